//! `network`: names for chains, and what each is pinned to.

use serde_json::{Value, json};
use tally_types::Hash;

use super::{Context, refuse_secret, rows};
use crate::{
    cli::groups::NetworkCommand,
    client::{ChainError, ChainView, Client, nodes, trace::quoted_if_odd},
    config::{Network, Panel},
    error::{UsageError, WalletError},
};

/// What `network add` was told.
struct Addition {
    genesis_hash: Option<Hash>,
    offline: bool,
    chain_id: Option<String>,
    symbol: Option<String>,
    decimals: Option<u32>,
}

/// Carries out a command about networks.
pub async fn run(context: Context, command: NetworkCommand) -> Result<(), WalletError> {
    match command {
        NetworkCommand::Add { name, genesis_hash, offline, chain_id, symbol, decimals } => {
            add(&context, &name, Addition { genesis_hash, offline, chain_id, symbol, decimals }).await
        }
        NetworkCommand::Use { name } => {
            refuse_secret(&name)?;
            let mut config = context.config.clone();
            config.use_network(&name)?;
            config.save(&context.config_folder)?;
            let network = config.network(&name)?;
            let json = network_json(&name, network, config.panels.get(&name), true);
            context.output.result(&format!("using {name}: {}", describe(network)), &json)
        }
        NetworkCommand::List => list(&context),
        NetworkCommand::Show { name } => show(&context, name),
        NetworkCommand::Remove { name } => remove(&context, &name).await,
    }
}

async fn add(context: &Context, name: &str, addition: Addition) -> Result<(), WalletError> {
    refuse_secret(name)?;
    let mut config = context.config.clone();
    config.ensure_network_free(name)?;
    let urls = &context.globals.node;
    let Some(first) = urls.first() else { return Err(UsageError::NoNode.into()) };
    let (network, panel) = match addition.offline {
        true => (offline(first, &addition), None),
        false => ask(context, name, addition.genesis_hash).await?,
    };
    config.add_network(name, network.clone())?;
    if let Some(panel) = &panel {
        config.panels.insert(name.to_owned(), panel.clone());
    }
    config.save(&context.config_folder)?;
    let in_use = config.network.as_deref() == Some(name);
    let json = network_json(name, &network, panel.as_ref(), in_use);
    context.output.result(&rows(&lines(name, &network, panel.as_ref())), &json)
}

/// What the flags say, unasked.
fn offline(node: &str, addition: &Addition) -> Network {
    Network {
        node: node.to_owned(),
        chain_id: addition.chain_id.clone().unwrap_or_default(),
        genesis_hash: addition.genesis_hash.as_ref().map(ToString::to_string).unwrap_or_default(),
        symbol: addition.symbol.clone().unwrap_or_default(),
        decimals: addition.decimals.unwrap_or_default(),
    }
}

/// What the nodes say: all of them, and all the same.
async fn ask(context: &Context, name: &str, trusted: Option<Hash>) -> Result<(Network, Option<Panel>), WalletError> {
    let urls = &context.globals.node;
    if urls.len() > nodes::NODES_MAX {
        return Err(UsageError::TooManyNodes(urls.len()).into());
    }
    let mut found: Option<(Network, ChainView)> = None;
    let mut clients = Vec::new();
    for url in urls {
        let client = Client::connect(url, context.globals.timeout, context.trace()).await?;
        match &found {
            None => {
                let chain = client.chain(None).await?;
                found = Some((chain.pin(url), chain));
            }
            Some((network, _)) => drop(client.chain(Some((name, network))).await?),
        }
        clients.push(client);
    }
    let Some((network, chain)) = found else { return Err(UsageError::NoNode.into()) };
    match trusted {
        Some(trusted) if trusted.to_string() != network.genesis_hash => {
            return Err(WalletError::Chain(ChainError {
                node: network.node,
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
    if clients.len() < 2 {
        return Ok((network, None));
    }
    let mut panel = Panel { total_stake: 0, nodes: Vec::new() };
    for client in &clients {
        let (node, total_stake) = nodes::weigh(client, &chain.chain.genesis_hash).await?;
        panel.total_stake = total_stake;
        panel.nodes.push(node);
    }
    for node in panel.nodes.iter().filter(|node| node.stake == 0) {
        context.output.warning(&format!("{} is no validator: its word weighs nothing", node.url));
    }
    Ok((network, Some(panel)))
}

fn list(context: &Context) -> Result<(), WalletError> {
    let mut text = String::new();
    let mut networks = Vec::new();
    for (name, network) in &context.config.networks {
        let in_use = context.config.network.as_ref() == Some(name);
        text.push_str(&format!("{} {name}  {}\n", if in_use { '*' } else { ' ' }, describe(network)));
        networks.push(network_json(name, network, context.config.panels.get(name), in_use));
    }
    if networks.is_empty() {
        context.output.note("no networks yet: tally-wallet network add NAME --node URL");
    }
    context.output.result(&text, &json!({ "networks": networks }))
}

fn show(context: &Context, name: Option<String>) -> Result<(), WalletError> {
    let name = match name {
        Some(name) => name,
        None => context.pinned_network()?.0,
    };
    refuse_secret(&name)?;
    let network = context.config.network(&name)?;
    let panel = context.config.panels.get(&name);
    let mut lines = lines(&name, network, panel);
    lines.push((
        "pin it",
        format!(
            "tally-wallet network add {name} --offline --node {} --chain-id {} --genesis-hash {} --symbol {} --decimals {}",
            quoted_if_odd(&network.node),
            network.chain_id,
            network.genesis_hash,
            network.symbol,
            network.decimals
        ),
    ));
    let in_use = context.config.network.as_ref() == Some(&name);
    context.output.result(&rows(&lines), &network_json(&name, network, panel, in_use))
}

async fn remove(context: &Context, name: &str) -> Result<(), WalletError> {
    refuse_secret(name)?;
    let mut config = context.config.clone();
    let network = config.remove_network(name)?;
    if !context.globals.yes {
        context.prompt.can_confirm()?;
        context.output.preamble(&format!("{name}: {}", describe(&network)));
        context.prompt.confirm("Forget this network and what it is pinned to?").await?;
    }
    config.save(&context.config_folder)?;
    let json = network_json(name, &network, context.config.panels.get(name), false);
    context.output.result(&format!("forgot {name}"), &json)
}

fn lines(name: &str, network: &Network, panel: Option<&Panel>) -> Vec<(&'static str, String)> {
    let mut lines = vec![("network", name.to_owned())];
    match panel {
        None => lines.push(("node", network.node.clone())),
        Some(panel) => lines.extend(panel.nodes.iter().map(|node| {
            let percent = u128::from(node.stake).saturating_mul(100) / u128::from(panel.total_stake.max(1));
            ("node", format!("{}, {percent} % of the stake", node.url))
        })),
    }
    lines.push(("chain", network.chain_id.clone()));
    lines.push(("genesis", network.genesis_hash.clone()));
    lines.push(("token", format!("{}, {} decimals", network.symbol, network.decimals)));
    lines
}

fn describe(network: &Network) -> String {
    format!("{}  {}", network.chain_id, network.node)
}

fn network_json(name: &str, network: &Network, panel: Option<&Panel>, in_use: bool) -> Value {
    let mut json = json!({
        "name": name,
        "node": network.node,
        "chainId": network.chain_id,
        "genesisHash": network.genesis_hash,
        "symbol": network.symbol,
        "decimals": network.decimals,
        "inUse": in_use,
    });
    if let Some(panel) = panel {
        let nodes = panel
            .nodes
            .iter()
            .map(|node| json!({ "url": node.url, "validator": node.validator, "stake": node.stake.to_string() }));
        json["nodes"] = nodes.collect();
        json["totalStake"] = panel.total_stake.to_string().into();
    }
    json
}
