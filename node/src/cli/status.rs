//! Where a running node stands.

use std::time::Duration;

use clap::Args;
use tally_proto::v1::{GetNodeStatusRequest, SyncState, node_service_client::NodeServiceClient};

use super::Failure;
use crate::words::say;

#[derive(Debug, Args)]
pub struct Options {
    /// Client URL of the node.
    #[arg(long, env = "TALLY_NODE", default_value = "http://127.0.0.1:9101", value_name = "URL")]
    node: String,
    /// How to print it.
    #[arg(long, value_parser = ["text", "json"], default_value = "text")]
    output: String,
}

pub async fn run(options: &Options) -> Result<(), Failure> {
    let endpoint = tonic::transport::Endpoint::from_shared(options.node.clone())?.timeout(Duration::from_secs(5));
    let unreachable = |error| format!("{} cannot be reached ({error}); is the node running?", options.node);
    let channel = endpoint.connect_timeout(Duration::from_secs(5)).connect().await.map_err(unreachable)?;
    let status = NodeServiceClient::new(channel).get_node_status(GetNodeStatusRequest {}).await?.into_inner();
    let state = SyncState::try_from(status.sync_state).unwrap_or_default().as_str_name();
    if options.output == "json" {
        let json = serde_json::json!({
            "version": status.version,
            "nodeId": status.node_id,
            "chainId": status.chain_id,
            "syncState": state,
            "latestHeight": status.latest_height.to_string(),
            "executedHeight": status.executed_height.to_string(),
            "highestSeenHeight": status.highest_seen_height.to_string(),
            "currentEpoch": status.current_epoch.to_string(),
            "currentView": status.current_view.to_string(),
            "validator": status.validator,
            "observerReason": status.observer_reason,
            "peerCount": status.peer_count,
            "mempoolSize": status.mempool_size,
            "rejectedMessages": status.rejected_messages,
        });
        say!("{json}");
        return Ok(());
    }
    say!("chain      {}", status.chain_id);
    say!("state      {}", state.trim_start_matches("SYNC_STATE_").to_lowercase());
    say!(
        "height     {} executed, {} final, {} seen",
        status.executed_height,
        status.latest_height,
        status.highest_seen_height
    );
    say!("agreement  epoch {}, view {}", status.current_epoch, status.current_view);
    say!("peers      {} connected", status.peer_count);
    say!("pending    {} transactions", status.mempool_size);
    match (status.validator.as_str(), status.observer_reason.as_str()) {
        ("", "") => say!("validator  no"),
        ("", reason) => say!("validator  not signing: {reason}"),
        (address, _) => say!("validator  {address}"),
    }
    for (reason, count) in &status.rejected_messages {
        say!("dropped    {count} messages: {reason}");
    }
    Ok(())
}
