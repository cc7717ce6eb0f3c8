//! Asking all, sorting what they answer by what it says, and accepting what has enough stake behind it.

use std::{collections::BTreeMap, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tonic::Code;

use super::{Nodes, STRAGGLER_TIME, is_enough, next_before, stake_of};
use crate::{
    client::{Client, NodeError},
    error::Exit,
};

/// How long nodes that are not equally far get to agree.
const AGREEMENT_TIME: Duration = Duration::from_secs(5);
const AGREEMENT_PAUSE: Duration = Duration::from_millis(100);
const NO_AGREEMENT: &str = "NODES_DISAGREE";

/// Answers that say the same.
struct Group<T, K> {
    said: Said<K>,
    answers: Vec<(usize, Result<T, NodeError>)>,
}

#[derive(PartialEq)]
enum Said<K> {
    Answer(K),
    Refusal(String),
}

impl Nodes {
    /// Asks until enough nodes agree or the time for that is over.
    pub(super) async fn read<T, K, F, A>(
        &self,
        ask: F,
        key: impl Fn(&T) -> K,
        rank: impl Fn(&T) -> u64,
    ) -> Result<T, NodeError>
    where
        T: Send + 'static,
        K: PartialEq,
        F: Fn(Client) -> A,
        A: Future<Output = Result<T, NodeError>> + Send + 'static,
    {
        let deadline = Instant::now() + AGREEMENT_TIME;
        loop {
            match self.round(&ask, &key, &rank).await {
                Err(error) if error.reason == NO_AGREEMENT && Instant::now() + AGREEMENT_PAUSE < deadline => {
                    tokio::time::sleep(AGREEMENT_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// Asks every node once.
    pub(super) async fn round<T, K, F, A>(
        &self,
        ask: &F,
        key: &impl Fn(&T) -> K,
        rank: &impl Fn(&T) -> u64,
    ) -> Result<T, NodeError>
    where
        T: Send + 'static,
        K: PartialEq,
        F: Fn(Client) -> A,
        A: Future<Output = Result<T, NodeError>> + Send + 'static,
    {
        // The only node that was named; one that is left of several has less than all of the stake.
        if let [one] = self.members.as_slice()
            && self.total_stake <= one.stake
        {
            return ask(one.client.clone()).await;
        }
        let mut set = JoinSet::new();
        for (place, member) in self.members.iter().enumerate() {
            let asking = ask(member.client.clone());
            set.spawn(async move { (place, asking.await) });
        }
        let mut groups: Vec<Group<T, K>> = Vec::new();
        let mut silent = Vec::new();
        let mut stragglers = None;
        loop {
            let next = next_before(&mut set, stragglers).await;
            let Some(next) = next else { break };
            // A task that panicked is a bug of this wallet, and as good as a node that is silent.
            let Ok((place, answer)) = next else { continue };
            let said = match &answer {
                Ok(answer) => Said::Answer(key(answer)),
                Err(error) if error.from_node => Said::Refusal(error.reason.clone()),
                Err(error) => {
                    self.warn(self.members[place].client.node(), &error.message);
                    silent.push(error.clone());
                    continue;
                }
            };
            match groups.iter_mut().find(|group| group.said == said) {
                Some(group) => group.answers.push((place, answer)),
                None => groups.push(Group { said, answers: vec![(place, answer)] }),
            }
            if groups.iter().any(|group| self.weighs_enough(&group.answers)) {
                stragglers.get_or_insert_with(|| Instant::now() + STRAGGLER_TIME);
            }
        }
        let Some(at) = groups.iter().position(|group| self.weighs_enough(&group.answers)) else {
            return Err(self.no_agreement(groups.len(), silent));
        };
        let accepted = groups.swap_remove(at);
        for (place, answer) in groups.iter().flat_map(|group| &group.answers) {
            let said = match answer {
                Ok(_) => "it says something else than the others: it is behind, or it lies".to_owned(),
                Err(error) => format!("it alone refuses: {}", error.message),
            };
            self.warn(self.members[*place].client.node(), &said);
        }
        self.highest_reached(accepted.answers, rank)
    }

    /// Of answers that say the same, the furthest that more than a third of the stake has reached.
    fn highest_reached<T>(
        &self,
        mut answers: Vec<(usize, Result<T, NodeError>)>,
        rank: &impl Fn(&T) -> u64,
    ) -> Result<T, NodeError> {
        answers.sort_by_key(|(_, answer)| std::cmp::Reverse(answer.as_ref().map_or(0, rank)));
        let reached = (1..=answers.len()).find(|count| self.weighs_enough(&answers[..*count]));
        answers.swap_remove(reached.unwrap_or(answers.len()).saturating_sub(1)).1
    }

    pub(super) fn weighs_enough<T>(&self, answers: &[(usize, T)]) -> bool {
        let members = answers.iter().map(|(place, _)| &self.members[*place]);
        is_enough(stake_of(members.map(|member| (member.validator.as_str(), member.stake))), self.total_stake)
    }

    fn no_agreement(&self, groups: usize, silent: Vec<NodeError>) -> NodeError {
        if groups == 0
            && let Some(error) = silent.into_iter().next()
        {
            return error;
        }
        let held = stake_of(self.members.iter().map(|member| (member.validator.as_str(), member.stake)));
        let percent =
            u128::from(held).saturating_mul(100).checked_div(u128::from(self.total_stake)).unwrap_or_default();
        let (message, next) = match is_enough(held, self.total_stake) {
            true => ("the nodes do not agree: no answer has more than a third of the stake behind it", "try again"),
            false => {
                ("the nodes that answer hold too little stake to be believed against each other", "name more nodes")
            }
        };
        NodeError {
            reason: NO_AGREEMENT.into(),
            message: format!("{message} (nodes asked: {}, of {percent} % of the stake)", self.members.len()),
            next: format!("{next}, or ask one node that you trust with --node URL"),
            exit: Exit::Unreachable,
            metadata: BTreeMap::new(),
            code: Code::Unavailable,
            from_node: false,
            retry_after: None,
        }
    }
}
