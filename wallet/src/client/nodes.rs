//! Asking several nodes at once, so that one that is dead or lies changes nothing but a warning.
//!
//! An answer counts as much as the stake of the validator that gave it, a validator counts once however many nodes say they
//! are it, and an answer is accepted when validators with more than a third of the stake give it: then at least one of them
//! is honest as long as the protocol's own assumption holds. What grows with time (heights, block times) is believed up to
//! the value that more than a third of the stake has reached. With a single node there is nothing to compare, and it is
//! believed.
//!
//! Stakes come from the configuration, where `network add` pinned them as the genesis file proves them, or from the genesis
//! file itself. Which validator a node is, is what the node said when it was pinned: a claim, so the list should come from
//! people who run the validators.

mod agreement;
mod following;
mod reaching;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tally_proto::v1;
use tally_types::{Address, Hash};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tonic::Status;

pub use reaching::weigh;

use super::{BlockId, ChainView, Client, HistoryQuery, NodeError, Trace, time};
use crate::{
    config::{Network, Panel},
    error::WalletError,
    json,
    output::{Output, clean},
    token::Token,
};

/// Most nodes that are asked at a time.
pub const NODES_MAX: usize = 16;
/// Once enough nodes agree, how long the others may take to be heard, only for the sake of a warning.
const STRAGGLER_TIME: Duration = Duration::from_millis(500);

/// One or several nodes of one chain.
#[derive(Clone, Debug)]
pub struct Nodes {
    members: Vec<Member>,
    total_stake: u64,
    output: Output,
    warned: Arc<Mutex<BTreeSet<String>>>,
}

/// A node and its weight.
#[derive(Clone, Debug)]
struct Member {
    client: Client,
    /// Address of the validator it is; empty when it is none.
    validator: String,
    stake: u64,
}

/// How to reach nodes.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// URLs, at least one.
    pub urls: &'a [String],
    /// The network's name and what it is pinned to.
    pub pinned: Option<(&'a str, &'a Network)>,
    /// Pinned stakes of the network's nodes.
    pub panel: Option<&'a Panel>,
    /// How long a call may take.
    pub timeout: Duration,
    /// What is shown of the calls.
    pub trace: Trace,
    /// Where warnings go.
    pub output: Output,
}

/// What one node answered to a transaction that was handed to it.
pub type Handed = (String, Result<v1::SubmitTransactionResponse, Status>);

impl Nodes {
    /// Connects to all and asks for their chain; those that are dead or on another chain are left out with a warning.
    pub async fn connect(way: Way<'_>) -> Result<(Nodes, ChainView), WalletError> {
        if let [url] = way.urls {
            let client = Client::connect(url, way.timeout, way.trace).await?;
            let chain = client.chain(way.pinned).await?;
            let member = Member { client, validator: String::new(), stake: 1 };
            return Ok((Nodes::of(vec![member], 1, way.output), chain));
        }
        let mut nodes = Nodes::of(Vec::new(), 0, way.output);
        (nodes.members, nodes.total_stake) = reaching::reach(way, &|node, problem| nodes.warn(node, problem)).await?;
        let chain = nodes.chain(way.pinned).await?;
        Ok((nodes, chain))
    }

    /// What the nodes say about their chain, as far as more than a third of the stake has come.
    pub async fn chain(&self, pinned: Option<(&str, &Network)>) -> Result<ChainView, NodeError> {
        let pinned = pinned.map(|(name, network)| (name.to_owned(), network.clone()));
        let ask = move |client: Client| {
            let pinned = pinned.clone();
            async move {
                let pinned = pinned.as_ref().map(|(name, network)| (name.as_str(), network));
                client.chain(pinned).await.map_err(|error| match error {
                    WalletError::Node(error) => error,
                    error => NodeError::garbled(client.node(), &error.to_string()),
                })
            }
        };
        let key = |view: &ChainView| format!("{:?} {:?}", view.chain, view.info.params);
        let mut view = self.read(ask.clone(), key, |view| millis(view.info.latest_block_time)).await?;
        if self.members.len() > 1 {
            // Whose time is believed may say what it likes of heights, so these are ranked for themselves.
            view.info.latest_height = self.read(ask, key, |view| view.info.latest_height).await?.info.latest_height;
        }
        Ok(view)
    }

    fn of(members: Vec<Member>, total_stake: u64, output: Output) -> Nodes {
        Nodes { members, total_stake, output, warned: Arc::default() }
    }

    /// All nodes, in the order they were given.
    pub fn all(&self) -> impl Iterator<Item = &Client> + Clone {
        self.members.iter().map(|member| &member.client)
    }

    /// Who answers, as a sentence names them.
    pub fn name(&self) -> String {
        match self.members.as_slice() {
            [one] => one.client.node().to_owned(),
            many => format!("enough of {} nodes", many.len()),
        }
    }

    /// An account, and the height of the state that holds it.
    pub async fn account(&self, address: &Address, token: &Token) -> Result<(v1::Account, u64), NodeError> {
        let (address, token) = (*address, token.clone());
        let ask = move |client: Client| {
            let token = token.clone();
            async move { client.account(&address, &token).await }
        };
        self.read(ask, |(account, _)| json::account(account).to_string(), |(_, height)| *height).await
    }

    /// A transaction as the nodes know it now.
    pub async fn transaction(&self, id: &Hash, token: &Token) -> Result<v1::GetTransactionResponse, NodeError> {
        let (id, token) = (*id, token.clone());
        let ask = move |client: Client| {
            let token = token.clone();
            async move { client.transaction(&id, &token).await }
        };
        let key = |answer: &v1::GetTransactionResponse| answer.transaction.as_ref().map(record_key);
        self.read(ask, key, |answer| answer.height).await
    }

    /// Waits up to `limit` for the outcome of a transaction. One round: nodes that do not agree are an error.
    pub async fn wait(
        &self,
        id: &Hash,
        limit: Duration,
        token: &Token,
    ) -> Result<v1::WaitTransactionResponse, NodeError> {
        let (id, token) = (*id, token.clone());
        let ask = move |client: Client| {
            let token = token.clone();
            async move {
                let answer = client.wait(&id, limit).await;
                answer.map_err(|status| NodeError::new(&status, client.node(), Some(&token)))
            }
        };
        let key = |answer: &v1::WaitTransactionResponse| answer.transaction.as_ref().map(record_key);
        self.round(&ask, &key, &|answer| millis(answer.block_time)).await
    }

    /// One page of an account's final transactions.
    pub async fn history_page(
        &self,
        query: &HistoryQuery,
        token: &Token,
    ) -> Result<v1::ListTransactionsResponse, NodeError> {
        let (query, token) = (query.clone(), token.clone());
        let ask = move |client: Client| {
            let (query, token) = (query.clone(), token.clone());
            async move { client.history_page(&query, &token).await }
        };
        let key = |page: &v1::ListTransactionsResponse| {
            (page.transactions.iter().map(record_key).collect::<Vec<_>>(), page.next_page_token.clone())
        };
        self.read(ask, key, |_| 0).await
    }

    /// What `body` would do now.
    pub async fn simulate(
        &self,
        body: &v1::TransactionBody,
        token: &Token,
    ) -> Result<v1::SimulateTransactionResponse, NodeError> {
        let (body, token) = (body.clone(), token.clone());
        let ask = move |client: Client| {
            let (body, token) = (body.clone(), token.clone());
            async move { client.simulate(body, &token).await }
        };
        let key = |answer: &v1::SimulateTransactionResponse| {
            let reason = answer.failure.as_ref().map(|failure| failure.reason.clone());
            let fee = answer.receipt.as_ref().map(|receipt| receipt.fee);
            (reason, fee, answer.sender_balance_before, answer.sender_balance_after)
        };
        self.read(ask, key, |answer| answer.height).await
    }

    /// A block. The latest one is the one that more than a third of the stake has reached.
    pub async fn block(&self, id: &BlockId, full: bool, latest: u64) -> Result<v1::Block, NodeError> {
        let id = match id {
            BlockId::Latest if self.members.len() > 1 => BlockId::Height(latest),
            id => id.clone(),
        };
        let ask = move |client: Client| {
            let id = id.clone();
            async move { client.block(&id, full).await }
        };
        self.read(ask, block_key, |_| 0).await
    }

    /// The validators.
    pub async fn validators(&self) -> Result<v1::ListValidatorsResponse, NodeError> {
        let ask = |client: Client| async move { client.validators().await };
        self.read(ask, |answer| format!("{answer:?}"), |answer| answer.epoch).await
    }

    /// Who leads from a view on. Nodes work on different views, so several must be asked from the same one.
    pub async fn leaders(&self, from_view: u64, count: u32) -> Result<v1::GetLeaderScheduleResponse, NodeError> {
        let ask = move |client: Client| async move { client.leaders(from_view, count).await };
        self.read(ask, |answer| format!("{answer:?}"), |answer| answer.epoch).await
    }

    /// Hands a transaction to every node; returns once all answered, or one took it and the others had their time.
    pub async fn submit(&self, transaction: &v1::Transaction, limit: Duration) -> Vec<Handed> {
        let mut set = JoinSet::new();
        for member in &self.members {
            let (client, transaction) = (member.client.clone(), transaction.clone());
            set.spawn(async move { (client.node().to_owned(), client.submit(transaction, limit).await) });
        }
        let mut answers: Vec<Handed> = Vec::new();
        let mut stragglers = None;
        loop {
            let next = next_before(&mut set, stragglers).await;
            let Some(next) = next else { break };
            answers.extend(next.ok());
            if answers.last().is_some_and(|(_, answer)| answer.is_ok()) {
                stragglers.get_or_insert_with(|| Instant::now() + STRAGGLER_TIME);
            }
        }
        // The slow ones go on: a node more that has it harms nobody.
        set.detach_all();
        answers
    }

    /// Whether the nodes at these URLs have more than a third of the stake.
    pub fn weigh_enough(&self, urls: &[String]) -> bool {
        let members = self.members.iter().filter(|member| urls.iter().any(|url| url == member.client.node()));
        is_enough(stake_of(members.map(|member| (member.validator.as_str(), member.stake))), self.total_stake)
    }

    /// Once per node: what is wrong with it does not change within a command.
    fn warn(&self, node: &str, problem: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(node.to_owned()) {
            let node = clean(node);
            let problem = problem.strip_prefix(&node).unwrap_or(problem).trim_start_matches([':', ' ']);
            self.output.warning(&format!("{node}: {problem}; going on with the other nodes"));
        }
    }
}

/// The stake of nodes, every validator counted once.
fn stake_of<'a>(nodes: impl Iterator<Item = (&'a str, u64)>) -> u64 {
    let by_validator: BTreeMap<&str, u64> = nodes.collect();
    by_validator.values().fold(0, |sum: u64, stake| sum.saturating_add(*stake))
}

/// The next to answer, as long as there is time: for stragglers there is an end.
async fn next_before<T: 'static>(set: &mut JoinSet<T>, until: Option<Instant>) -> Option<Result<T, JoinError>> {
    match until {
        None => set.join_next().await,
        Some(until) => timeout_at(until, set.join_next()).await.unwrap_or(None),
    }
}

fn is_enough(stake: u64, total: u64) -> bool {
    u128::from(stake).saturating_mul(3) > u128::from(total)
}

/// What two nodes that know the same of a transaction both say: all of it that is shown, or one that lies among those that agree
/// would choose the amounts.
fn record_key(record: &v1::TransactionRecord) -> String {
    json::record(record).to_string()
}

/// What two nodes both say of a block. Whose votes a certificate holds may differ.
fn block_key(block: &v1::Block) -> String {
    json::block(&v1::Block { certificate: None, ..block.clone() }).to_string()
}

fn millis(timestamp: Option<prost_types::Timestamp>) -> u64 {
    let since = timestamp.and_then(time).and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_is_not_enough_and_a_validator_counts_once() {
        assert!(!is_enough(100, 300));
        assert!(is_enough(101, 300));
        assert!(!is_enough(0, 0));
        assert!(is_enough(u64::MAX, u64::MAX));
        assert_eq!(stake_of([("a", 5), ("a", 5), ("b", 2), ("", 0)].into_iter()), 7);
    }
}
