//! `network add|use|list`.

use serde_json::{Value, json};
use tally_types::Hash;

use super::{Context, rows};
use crate::{
    cli::NetworkCommand,
    client::{ChainError, Client},
    config::Network,
    error::{UsageError, WalletError},
};

/// Carries out a command about networks.
pub async fn run(context: Context, command: NetworkCommand) -> Result<(), WalletError> {
    match command {
        NetworkCommand::Add { name, genesis_hash } => add(context, &name, genesis_hash).await,
        NetworkCommand::Use { name } => {
            let mut config = context.config.clone();
            config.use_network(&name)?;
            config.save(&context.config_folder)?;
            let network = config.network(&name)?;
            context.output.result(&format!("using {name}: {}", describe(network)), &network_json(&name, network, true))
        }
        NetworkCommand::List => list(&context),
    }
}

async fn add(context: Context, name: &str, trusted: Option<Hash>) -> Result<(), WalletError> {
    let mut config = context.config.clone();
    config.ensure_network_free(name)?;
    let node = context.globals.node.clone().ok_or(UsageError::NoNode)?;
    let client = Client::connect(&node, context.globals.timeout).await?;
    let network = client.chain(None).await?.pin(&node);
    match trusted {
        Some(trusted) if trusted.to_string() != network.genesis_hash => {
            return Err(WalletError::Chain(ChainError {
                node,
                network: name.to_owned(),
                field: "genesis hash",
                pinned: trusted.to_string(),
                got: network.genesis_hash,
            }));
        }
        Some(_) => {}
        None => context.output.warning(&format!(
            "the genesis hash is pinned as this node tells it; compare it with one from somebody you trust: {}",
            network.genesis_hash
        )),
    }
    config.add_network(name, network.clone())?;
    config.save(&context.config_folder)?;
    let in_use = config.network.as_deref() == Some(name);
    let text = rows(&[
        ("network", name.to_owned()),
        ("node", network.node.clone()),
        ("chain", network.chain_id.clone()),
        ("genesis", network.genesis_hash.clone()),
        ("token", format!("{}, {} decimals", network.symbol, network.decimals)),
    ]);
    context.output.result(&text, &network_json(name, &network, in_use))
}

fn list(context: &Context) -> Result<(), WalletError> {
    let mut text = String::new();
    let mut networks = Vec::new();
    for (name, network) in &context.config.networks {
        let in_use = context.config.network.as_ref() == Some(name);
        text.push_str(&format!("{} {name}  {}\n", if in_use { '*' } else { ' ' }, describe(network)));
        networks.push(network_json(name, network, in_use));
    }
    if networks.is_empty() {
        context.output.note("no networks yet: tally-wallet network add NAME --node URL");
    }
    context.output.result(&text, &json!({ "networks": networks }))
}

fn describe(network: &Network) -> String {
    format!("{}  {}", network.chain_id, network.node)
}

fn network_json(name: &str, network: &Network, in_use: bool) -> Value {
    json!({
        "name": name,
        "node": network.node,
        "chainId": network.chain_id,
        "genesisHash": network.genesis_hash,
        "symbol": network.symbol,
        "decimals": network.decimals,
        "inUse": in_use,
    })
}
