//! Reaching several nodes: who answers for the chain, and what the word of each weighs.

use std::collections::{BTreeMap, BTreeSet};

use tally_types::{Genesis, Hash, Stake};
use tokio::{task::JoinSet, time::Instant};

use super::{Member, STRAGGLER_TIME, Way, is_enough, next_before, stake_of};
use crate::{
    client::{ChainView, Client, NodeError},
    config::{Network, Panel, PanelNode},
    error::{Exit, WalletError},
};

/// A node that answered.
struct Found {
    client: Client,
    chain: ChainView,
    pin: PanelNode,
    total_stake: u64,
}

/// The nodes that answer for the chain, in the order they were given, and the stake of all validators. Once those that
/// answered have more than a third of it, the others get [`STRAGGLER_TIME`]. `warn` is told of each that is left out.
///
/// # Errors
/// What is wrong with one of them if none answers; without a pinned chain, if they do not all name the same: nothing could be
/// said about which is meant.
pub async fn reach(way: Way<'_>, warn: &impl Fn(&str, &str)) -> Result<(Vec<Member>, u64), WalletError> {
    let pins = way.panel.filter(|panel| way.urls.iter().all(|url| panel.of(url).is_some()));
    let mut set = JoinSet::new();
    for (place, url) in way.urls.iter().enumerate() {
        let (url, timeout, trace, panel) = (url.clone(), way.timeout, way.trace, pins.cloned());
        let pinned = way.pinned.map(|(name, network)| (name.to_owned(), network.clone()));
        set.spawn(async move {
            let client = Client::connect(&url, timeout, trace).await;
            let found = match client {
                Ok(client) => ask(client, pinned.as_ref(), panel.as_ref()).await,
                Err(error) => Err(error),
            };
            (place, found)
        });
    }
    let mut found: BTreeMap<usize, Found> = BTreeMap::new();
    let mut silent: BTreeSet<&String> = way.urls.iter().collect();
    let mut first_error: Option<WalletError> = None;
    let mut stragglers = None;
    loop {
        let next = next_before(&mut set, stragglers).await;
        let Some(next) = next else { break };
        let Ok((place, answer)) = next else { continue };
        silent.remove(&way.urls[place]);
        match answer {
            Ok(answer) => drop(found.insert(place, answer)),
            Err(error) => {
                warn(&way.urls[place], &error.to_string());
                // Another chain weighs more than silence: it is what a person has to know.
                if first_error.as_ref().is_none_or(|first| first.exit() != Exit::WrongNetwork) {
                    first_error = Some(error);
                }
            }
        }
        let heard = found.values().map(|node| (node.pin.validator.as_str(), node.pin.stake));
        if found.values().next().is_some_and(|node| is_enough(stake_of(heard), node.total_stake)) {
            stragglers.get_or_insert_with(|| Instant::now() + STRAGGLER_TIME);
        }
    }
    silent.into_iter().for_each(|url| warn(url, "it does not answer in time"));
    let mut found = found.into_values();
    let Some(first) = found.next() else {
        return Err(first_error.unwrap_or_else(|| NodeError::unreachable("no node", "none was named").into()));
    };
    let (total_stake, named) = (first.total_stake, first.chain.pin(first.client.node()));
    let mut members = vec![first.member()];
    for node in found {
        node.chain.check(node.client.node(), &named.node, &named)?;
        members.push(node.member());
    }
    Ok((members, total_stake))
}

impl Found {
    fn member(self) -> Member {
        Member { client: self.client, validator: self.pin.validator, stake: self.pin.stake }
    }
}

async fn ask(client: Client, pinned: Option<&(String, Network)>, panel: Option<&Panel>) -> Result<Found, WalletError> {
    let chain = client.chain(pinned.map(|(name, network)| (name.as_str(), network))).await?;
    let known = panel.and_then(|panel| Some((panel.of(client.node())?.clone(), panel.total_stake)));
    let (pin, total_stake) = match known {
        Some(known) => known,
        None => weigh(&client, &chain.chain.genesis_hash).await?,
    };
    Ok(Found { client, chain, pin, total_stake })
}

/// Which validator a node says it is, with the stake that the genesis file gives that one, and the stake of all. Each node gives
/// the file itself, proven by its hash: then none that is slow holds up the others.
pub async fn weigh(client: &Client, genesis: &Hash) -> Result<(PanelNode, u64), NodeError> {
    let file = client.genesis(genesis).await?;
    let file = Genesis::parse(&file).map_err(|error| NodeError::garbled(client.node(), &error.to_string()))?;
    let validator = client.status().await?.validator;
    let member = file.validators.members().iter().find(|member| member.address.to_string() == validator);
    let (validator, stake) = match member {
        Some(member) => (validator, member.stake),
        None => (String::new(), Stake(0)),
    };
    Ok((PanelNode { url: client.node().to_owned(), validator, stake: stake.0 }, file.validators.total().0))
}
