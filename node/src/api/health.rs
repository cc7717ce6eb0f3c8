//! grpc.health.v1: SERVING while the node is at the tip and not stopping, for the whole and for every service.

use std::time::Instant;

use tally_proto::v1::{
    SyncState, account_service_server as accounts, block_service_server as blocks, chain_service_server as chain,
    node_service_server as node, transaction_service_server as transactions, validator_service_server as validators,
};
use tonic_health::{ServingStatus, server::HealthReporter};

use super::Api;

/// Every service of `tally.v1`.
pub(super) const SERVICES: [&str; 6] = [
    transactions::SERVICE_NAME,
    accounts::SERVICE_NAME,
    blocks::SERVICE_NAME,
    validators::SERVICE_NAME,
    chain::SERVICE_NAME,
    node::SERVICE_NAME,
];

/// Says how the node is now.
pub(super) async fn report(reporter: &HealthReporter, api: &Api) -> bool {
    let is_serving = !api.is_closing() && api.sync_state() != SyncState::CatchingUp;
    set(reporter, if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
    is_serving
}

/// Keeps saying it until the server closes. Also lets go of states that no listing of accounts uses any more.
pub(super) async fn keep(mut reporter: HealthReporter, api: Api) {
    let mut said = report(&reporter, &api).await;
    loop {
        tokio::select! {
            () = tokio::time::sleep(api.limits().health_interval) => {}
            () = api.closed() => break,
        }
        api.0.snapshots.expire(Instant::now());
        let is_serving = api.sync_state() != SyncState::CatchingUp;
        if is_serving != said {
            said = report(&reporter, &api).await;
        }
    }
    set(&reporter, ServingStatus::NotServing).await;
    // Whoever watches is told the last state, and then that there is nothing more to watch: an open watch would hold up
    // the end of the server.
    for service in SERVICES.into_iter().chain([""]) {
        reporter.clear_service_status(service).await;
    }
}

async fn set(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES.into_iter().chain([""]) {
        reporter.set_service_status(service, status).await;
    }
}
