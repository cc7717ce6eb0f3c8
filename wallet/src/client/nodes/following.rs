//! Following the chain at several nodes at once: a transaction is told when nodes with more than a third of the stake told it.
//!
//! Every node has a stream of its own, opened again where it stopped when it breaks. What they tell is put in the order of the
//! chain. The first place that is open is decided before any later one: it is accepted with enough stake behind it, and
//! dropped once as much has gone past it without it. So one node that makes things up, leaves things out, falls silent or dies
//! changes nothing but a warning, and with a single node its word is taken as it comes.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tally_proto::v1;
use tally_types::Address;
use tokio::{sync::mpsc, task::JoinSet};

use super::{Nodes, record_key};
use crate::{
    client::{Client, NodeError},
    output::clean,
    token::Token,
};

/// Pause before a broken stream is opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest silence of a stream: the contract promises a sign of life every 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Messages of all nodes that wait to be looked at.
const MESSAGES_WAITING_MAX: usize = 16;
/// Transactions one node may tell ahead of what is decided; a node further ahead is not followed any more.
const AHEAD_MAX: usize = 10_000;

/// Height, and index in that block.
type Position = (u64, u32);

/// See the module.
pub struct Following {
    nodes: Nodes,
    reports: mpsc::Receiver<Report>,
    /// Streams end with what reads them.
    _streams: JoinSet<()>,
    decision: Decision,
    decided: VecDeque<v1::TransactionRecord>,
}

/// What a stream says, and whose it is.
enum Report {
    Told(usize, v1::StreamTransactionsResponse),
    /// It broke, and is opened again from this height.
    Broke(usize, String, u64),
}

impl Nodes {
    /// Follows the chain from a height on: all transactions, or those of an account.
    pub fn follow(&self, from_height: u64, account: Option<Address>, token: &Token) -> Following {
        let (sender, reports) = mpsc::channel(MESSAGES_WAITING_MAX);
        let mut streams = JoinSet::new();
        for (place, member) in self.members.iter().enumerate() {
            let (client, token, sender) = (member.client.clone(), token.clone(), sender.clone());
            streams.spawn(async move { tell(place, client, from_height, account, token, sender).await });
        }
        Following {
            nodes: self.clone(),
            reports,
            _streams: streams,
            decision: Decision::new(self.members.len()),
            decided: VecDeque::new(),
        }
    }
}

/// Passes on what a node tells, for as long as somebody listens.
async fn tell(
    place: usize,
    client: Client,
    mut from_height: u64,
    account: Option<Address>,
    token: Token,
    sender: mpsc::Sender<Report>,
) {
    loop {
        let error = match client.stream_transactions(from_height, account.as_ref()).await {
            Ok(mut stream) => loop {
                match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
                    Ok(Ok(Some(message))) => {
                        from_height = from_height.max(message.height.saturating_add(1));
                        if sender.send(Report::Told(place, message)).await.is_err() {
                            return;
                        }
                    }
                    Ok(Ok(None)) => break NodeError::unreachable(client.node(), "the stream ended"),
                    Ok(Err(status)) => break NodeError::new(&status, client.node(), Some(&token)),
                    Err(_) => break NodeError::unreachable(client.node(), "it fell silent"),
                }
            },
            Err(error) => error,
        };
        if sender.send(Report::Broke(place, error.message, from_height)).await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Following {
    /// The next transaction, in the order of the chain. Waits for it as long as it takes; what is wrong with a node is said on
    /// the way.
    pub async fn next(&mut self) -> Option<v1::TransactionRecord> {
        loop {
            if let Some(record) = self.decided.pop_front() {
                return Some(record);
            }
            match self.reports.recv().await? {
                Report::Broke(place, problem, from) => self.broke(place, &problem, from),
                Report::Told(place, message) => {
                    if !self.decision.take(place, message) {
                        self.warn(place, "it tells of blocks that nobody else knows, and is not followed any more");
                    }
                    let nodes = &self.nodes;
                    let enough = |places: &[usize]| {
                        let answers: Vec<(usize, ())> = places.iter().map(|place| (*place, ())).collect();
                        nodes.weighs_enough(&answers)
                    };
                    let (decided, alone) = self.decision.decide(enough);
                    self.decided.extend(decided);
                    alone.into_iter().for_each(|place| {
                        self.warn(place, "it tells something else than the others: it lies, or the others do");
                    });
                }
            }
        }
    }

    fn broke(&self, place: usize, problem: &str, from: u64) {
        match self.nodes.members.as_slice() {
            [_] => self.nodes.output.warning(&format!("{}; going on from height {from}", clean(problem))),
            _ => self.warn(place, problem),
        }
    }

    fn warn(&self, place: usize, problem: &str) {
        self.nodes.warn(self.nodes.members[place].client.node(), problem);
    }
}

/// Nodes that tell the same of one place, and what.
struct Told {
    record: v1::TransactionRecord,
    by: Vec<usize>,
}

/// What nodes told, up to where it is decided.
struct Decision {
    /// What is open, by place in the chain; more than one entry where nodes contradict each other.
    open: BTreeMap<Position, Vec<Told>>,
    /// Per node: everything up to here is told.
    through: Vec<Position>,
    /// Per node: how much of what is open it told.
    ahead: Vec<usize>,
    /// Everything up to here is decided.
    decided: Position,
}

impl Decision {
    fn new(nodes: usize) -> Decision {
        Decision { open: BTreeMap::new(), through: vec![(0, 0); nodes], ahead: vec![0; nodes], decided: (0, 0) }
    }

    /// Takes in a message. False: the node is too far ahead, and what it says is left out from now on.
    fn take(&mut self, place: usize, message: v1::StreamTransactionsResponse) -> bool {
        if self.ahead[place] > AHEAD_MAX {
            return true;
        }
        for record in message.transactions {
            let Some(at) = record.receipt.as_ref().map(|receipt| (receipt.height, receipt.index)) else { continue };
            // A block with many transactions comes in parts, and its beginning again when a stream was opened anew.
            if at <= self.through[place] || at <= self.decided {
                continue;
            }
            self.through[place] = at;
            self.ahead[place] += 1;
            let told = self.open.entry(at).or_default();
            match told.iter_mut().find(|told| record_key(&told.record) == record_key(&record)) {
                Some(told) => told.by.push(place),
                None => told.push(Told { record, by: vec![place] }),
            }
        }
        self.through[place] = self.through[place].max((message.height, u32::MAX));
        self.ahead[place] <= AHEAD_MAX
    }

    /// What is decided now, in order, and the nodes that told otherwise. `enough`: whether nodes have enough stake.
    fn decide(&mut self, enough: impl Fn(&[usize]) -> bool) -> (Vec<v1::TransactionRecord>, Vec<usize>) {
        let (mut accepted, mut alone) = (Vec::new(), Vec::new());
        while let Some((at, told)) = self.open.first_key_value() {
            let at = *at;
            let passed: Vec<usize> = (0..self.through.len()).filter(|place| self.through[*place] >= at).collect();
            let without =
                |by: &[usize]| -> Vec<usize> { passed.iter().copied().filter(|place| !by.contains(place)).collect() };
            let agreed = told.iter().position(|told| enough(&told.by));
            if agreed.is_none() && !told.iter().all(|told| enough(&without(&told.by))) {
                break;
            }
            let mut told = self.open.pop_first().map(|(_, told)| told).unwrap_or_default();
            self.decided = at;
            for place in told.iter().flat_map(|told| &told.by) {
                self.ahead[*place] = self.ahead[*place].saturating_sub(1);
            }
            match agreed {
                Some(agreed) => {
                    let agreed = told.swap_remove(agreed);
                    alone.extend(without(&agreed.by));
                    accepted.push(agreed.record);
                }
                None => alone.extend(told.into_iter().flat_map(|told| told.by)),
            }
        }
        (accepted, alone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(height: u64, index: u32, id: &str) -> v1::TransactionRecord {
        let receipt = v1::Receipt { height, index, ..Default::default() };
        v1::TransactionRecord { tx_id: id.into(), receipt: Some(receipt), ..Default::default() }
    }

    fn message(height: u64, transactions: &[v1::TransactionRecord]) -> v1::StreamTransactionsResponse {
        v1::StreamTransactionsResponse { height, transactions: transactions.to_vec() }
    }

    /// Of four nodes with one vote each, two are more than a third.
    fn two(places: &[usize]) -> bool {
        places.len() >= 2
    }

    fn ids(decided: (Vec<v1::TransactionRecord>, Vec<usize>)) -> (Vec<String>, Vec<usize>) {
        (decided.0.into_iter().map(|record| record.tx_id).collect(), decided.1)
    }

    #[test]
    fn what_two_of_four_tell_is_told_in_the_order_of_the_chain() {
        let mut decision = Decision::new(4);
        let (first, second) = (record(7, 0, "a"), record(9, 3, "b"));
        assert!(decision.take(0, message(9, std::slice::from_ref(&second))));
        assert!(decision.take(1, message(7, std::slice::from_ref(&first))));
        assert_eq!(ids(decision.decide(two)), (vec![], vec![]), "one of them may be a liar");
        assert!(decision.take(2, message(9, &[first.clone(), second.clone()])));
        // The first node went past the first transaction without a word.
        assert_eq!(ids(decision.decide(two)), (vec!["a".into(), "b".into()], vec![0]));
        assert!(decision.take(3, message(9, &[first, second])));
        assert_eq!(ids(decision.decide(two)), (vec![], vec![]), "nothing is told twice");
    }

    #[test]
    fn what_one_alone_tells_is_dropped_when_two_have_gone_past_it() {
        let mut decision = Decision::new(4);
        let (forged, real) = (record(8, 0, "forged"), record(9, 0, "real"));
        decision.take(3, message(8, &[forged]));
        decision.take(0, message(9, std::slice::from_ref(&real)));
        assert_eq!(ids(decision.decide(two)), (vec![], vec![]));
        decision.take(1, message(9, &[real]));
        assert_eq!(ids(decision.decide(two)), (vec!["real".into()], vec![3]));
    }

    #[test]
    fn two_versions_of_one_transaction_are_decided_by_the_many() {
        let mut decision = Decision::new(4);
        decision.take(3, message(5, &[record(5, 0, "other")]));
        decision.take(0, message(5, &[record(5, 0, "real")]));
        assert_eq!(ids(decision.decide(two)), (vec![], vec![]));
        decision.take(1, message(5, &[record(5, 0, "real")]));
        assert_eq!(ids(decision.decide(two)), (vec!["real".into()], vec![3]));
    }

    #[test]
    fn a_block_in_parts_is_told_whole_also_when_a_stream_begins_anew_inside_it() {
        let mut decision = Decision::new(1);
        let one = |places: &[usize]| !places.is_empty();
        // All but the last part name the height before: that is how far everything is delivered.
        decision.take(0, message(6, &[record(7, 0, "a"), record(7, 1, "b")]));
        assert_eq!(ids(decision.decide(one)).0, ["a", "b"]);
        decision.take(0, message(6, &[record(7, 0, "a"), record(7, 1, "b"), record(7, 2, "c")]));
        decision.take(0, message(7, &[record(7, 3, "d")]));
        assert_eq!(ids(decision.decide(one)).0, ["c", "d"]);
    }

    #[test]
    fn a_node_that_runs_far_ahead_is_left_behind() {
        let mut decision = Decision::new(4);
        let many: Vec<_> = (0..20).map(|height| record(height + 1, 0, "made up")).collect();
        let mut followed = true;
        for round in 0..2000 {
            let made_up: Vec<_> = many
                .iter()
                .map(|record| {
                    let mut record = record.clone();
                    record.receipt.as_mut().unwrap().height += round * 20;
                    record
                })
                .collect();
            followed &= decision.take(3, message(round * 20 + 20, &made_up));
            decision.decide(two);
        }
        assert!(!followed && decision.open.len() <= AHEAD_MAX + 20, "{}", decision.open.len());
        // The others go on.
        for place in 0..2 {
            decision.take(place, message(1_000_000, &[record(1_000_000, 0, "real")]));
        }
        assert_eq!(ids(decision.decide(two)).0, ["real"]);
    }
}
