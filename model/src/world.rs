//! The state space: three honest validators, what they sent, and what can happen next.
//!
//! A state is three numbers. Validators, and sets of messages sent, are kept once each; what one validator can do depends
//! on itself and on what the network can show only, so it is worked out once for each such pair. That is what makes tens
//! of millions of states of a real core affordable.

use std::sync::Arc;

use stateright::{Model, Property};
use tally_types::{Certificate, View, VoteKind, vote::Ballot};

use crate::{
    block,
    config::{Config, VALIDATORS},
    evidence, healing,
    interner::{Interner, Memo},
    network::{Shown, tally_votes},
    replica::Replica,
    turn::{Turn, turns},
    validator::{Sent, Validator},
};

/// Number of a [`Node`].
pub type NodeNumber = u32;

/// Property: blocks that are final, or can be shown to be, lie on one chain.
pub const ONE_CHAIN: &str = "one chain";
/// Property: no honest validator signs two digests for one (kind, epoch, view).
pub const ONE_DIGEST: &str = "one digest for each kind, epoch and view";
/// Property: no honest validator sends what convicts it.
pub const NOT_CONVICTED: &str = "no honest validator is convicted";
/// Property: from every state a commit is reachable, see [`healing`].
pub const LIVE: &str = "a commit is reachable";
/// The check is not empty: something became final, in the last view too, after a view was given up, in a later epoch.
pub const REACHED: [&str; 3] = ["a block is final", "a block is final in the last view", "a later epoch votes"];

/// The honest validators, by number, in the order of [`Config::honest`]; those of one class are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// See [`Node`].
    pub nodes: [NodeNumber; 3],
}

/// An honest validator, with what it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Number of the [`Validator`].
    pub validator: u32,
    sent: u32,
    crashes: u8,
}

/// One validator moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// Which of the three.
    pub at: u8,
    /// What it becomes.
    pub to: NodeNumber,
}

/// What a validator has sent, by number of the message, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct SentSet {
    items: Vec<u32>,
    signs_twice: bool,
    convicts: bool,
}

/// Where a node can go: by a turn, and by a crash.
#[derive(Debug)]
struct Steps {
    turns: Vec<NodeNumber>,
    crashes: Vec<NodeNumber>,
}

/// The model, with everything met so far.
#[derive(Debug)]
pub struct World {
    config: Config,
    classes: [usize; 3],
    /// Whether these signers, a bit for each place, are a quorum: as the real tally says.
    quorums: [bool; 1 << VALIDATORS],
    validators: Interner<Validator>,
    messages: Interner<Sent>,
    sent: Interner<SentSet>,
    nodes: Interner<Node>,
    shown: Interner<Shown>,
    replicas: Interner<Replica>,
    certificates: Interner<Certificate>,
    shown_by: Memo<Vec<u32>, u32>,
    taken: Memo<(u32, u32), u32>,
    steps: Memo<(NodeNumber, u32), Arc<Steps>>,
    lives: Memo<(u32, bool), u32>,
    healed: Memo<[u32; 3], bool>,
}

impl World {
    /// The world of a configuration.
    pub fn new(config: Config) -> World {
        let set = config.set();
        let ballot = Ballot::Commit(View(1), block::GENESIS);
        let quorums =
            std::array::from_fn(|signers| tally_votes(&set, tally_types::Epoch::ZERO, ballot, signers as u8).is_some());
        World {
            classes: config.classes(),
            quorums,
            config,
            validators: Interner::default(),
            messages: Interner::default(),
            sent: Interner::default(),
            nodes: Interner::default(),
            shown: Interner::default(),
            replicas: Interner::default(),
            certificates: Interner::default(),
            shown_by: Memo::default(),
            taken: Memo::default(),
            steps: Memo::default(),
            lives: Memo::default(),
            healed: Memo::default(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The validator with that number.
    pub fn validator(&self, number: u32) -> Arc<Validator> {
        self.validators.get(number)
    }

    /// The number of a validator.
    pub fn number(&self, validator: Validator) -> u32 {
        self.validators.number(validator)
    }

    /// What a validator becomes that takes in a certificate.
    pub fn taken(&self, validator: u32, certificate: &Arc<Certificate>) -> u32 {
        // By content: the numbers of certificates are for this memo only.
        let number = self.certificates.number(certificate.as_ref().clone());
        self.taken.answer((validator, number), |_| {
            let mut next = self.validators.get(validator).as_ref().clone();
            next.take(&self.config, certificate);
            self.validators.number(next)
        })
    }

    /// How many validators, nodes and networks were told apart.
    pub fn met(&self) -> [(&'static str, usize); 5] {
        [
            ("validators", self.validators.len()),
            ("nodes", self.nodes.len()),
            ("networks", self.shown.len()),
            ("pairs of both", self.steps.len()),
            ("triples healed", self.healed.len()),
        ]
    }

    /// What leads from a state to the next, in words.
    pub fn describe(&self, state: &State, action: &Action) -> String {
        let honest = self.config.honest();
        let at = usize::from(action.at);
        let node = *self.nodes.get(state.nodes[at]);
        let shown = self.shown.get(self.shown(state));
        let found = turns(self, node.validator, &shown).into_iter().find(|turn| self.after(node, turn) == action.to);
        let turn = found.map_or_else(|| String::from("does something unknown"), |turn| turn.to_string());
        format!("validator {} {turn}", honest[at])
    }

    /// What the network can show in a state.
    fn shown(&self, state: &State) -> u32 {
        self.shown_by.answer(self.key_of_shown(state), |_| {
            let sent = state.nodes.map(|node| {
                let sent = self.sent.get(self.nodes.get(node).sent);
                sent.items.iter().map(|item| self.messages.get(*item)).collect::<Vec<_>>()
            });
            self.shown.number(Shown::new(&self.config, [&sent[0], &sent[1], &sent[2]]))
        })
    }

    /// What of the messages sent decides what the network can show: of votes, whether they are a quorum.
    fn key_of_shown(&self, state: &State) -> Vec<u32> {
        let honest = self.config.honest();
        let mut signed: Vec<(u32, u8)> = Vec::with_capacity(24);
        for (place, node) in honest.iter().zip(state.nodes) {
            for item in &self.sent.get(self.nodes.get(node).sent).items {
                match signed.iter_mut().find(|(known, _)| known == item) {
                    Some((_, signers)) => *signers |= 1 << place,
                    None => signed.push((*item, 1 << place)),
                }
            }
        }
        signed.sort_unstable();
        let key = signed.into_iter().filter_map(|(item, signers)| {
            let code = match self.messages.get(item).as_ref() {
                Sent::Ballot { ballot: Ballot::Prepare(_, block), .. } => {
                    u32::from(self.is_quorum(signers)) | u32::from(block::twin(block) == *block) << 1
                }
                Sent::Ballot { ballot: Ballot::Commit(..), .. } => u32::from(self.is_quorum(signers)),
                Sent::Ballot { ballot: Ballot::ViewChange(..), .. } | Sent::Proposal { .. } => u32::from(signers),
            };
            (code != 0).then_some(item << VALIDATORS | code)
        });
        key.collect()
    }

    /// The Byzantine validator signs with everybody.
    fn is_quorum(&self, signers: u8) -> bool {
        self.quorums[usize::from(signers | 1 << self.config.byzantine)]
    }

    fn steps(&self, node: NodeNumber, shown: u32) -> Arc<Steps> {
        self.steps.answer((node, shown), |_| {
            let before = *self.nodes.get(node);
            let mut steps = Steps { turns: Vec::new(), crashes: Vec::new() };
            for turn in turns(self, before.validator, &self.shown.get(shown)) {
                let after = self.after(before, &turn);
                let list = if turn.crashes { &mut steps.crashes } else { &mut steps.turns };
                if !list.contains(&after) {
                    list.push(after);
                }
            }
            Arc::new(steps)
        })
    }

    fn after(&self, node: Node, turn: &Turn) -> NodeNumber {
        let sent = turn.sent.iter().fold(node.sent, |sent, message| self.sent_too(sent, message));
        self.nodes.number(Node { validator: turn.to, sent, crashes: node.crashes + u8::from(turn.crashes) })
    }

    fn sent_too(&self, sent: u32, message: &Sent) -> u32 {
        let item = self.messages.number(message.clone());
        let mut items = self.sent.get(sent).items.clone();
        let Err(place) = items.binary_search(&item) else { return sent };
        items.insert(place, item);
        let messages: Vec<_> = items.iter().map(|item| self.messages.get(*item)).collect();
        let signs_twice = evidence::signs_twice(&messages);
        let convicts = evidence::convicts(&self.config, &messages);
        self.sent.number(SentSet { items, signs_twice, convicts })
    }

    /// Those of one class are exchangeable: sorted, states that differ by an exchange are one.
    fn sorted(&self, mut nodes: [NodeNumber; 3]) -> State {
        for one in 0..3 {
            for two in one + 1..3 {
                if self.classes[one] == self.classes[two] && nodes[one] > nodes[two] {
                    nodes.swap(one, two);
                }
            }
        }
        State { nodes }
    }

    fn any_sent(&self, state: &State, wrong: fn(&SentSet) -> bool) -> bool {
        state.nodes.iter().any(|node| wrong(&self.sent.get(self.nodes.get(*node).sent)))
    }

    fn any_shown(&self, state: &State, is: impl Fn(&Certificate) -> bool) -> bool {
        self.shown.get(self.shown(state)).certificates.iter().any(|certificate| is(certificate))
    }

    /// Whether a commit is reachable, whichever of the validators restart first.
    fn is_live(&self, state: &State) -> bool {
        (0..8u8).all(|restarting| {
            let mut lives = [0; 3];
            for (at, live) in lives.iter_mut().enumerate() {
                let validator = self.nodes.get(state.nodes[at]).validator;
                *live = self.lives.answer((validator, restarting & 1 << at != 0), |(validator, restarts)| {
                    let mut validator = self.validators.get(*validator).as_ref().clone();
                    if *restarts {
                        validator.crash(&self.config);
                    }
                    self.replicas.number(validator.live)
                });
            }
            self.healed.answer(lives, |lives| {
                let replicas = lives.map(|live| self.replicas.get(live).as_ref().clone());
                healing::heals(&self.config, replicas)
            })
        })
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let honest = self.config.honest();
        let sent = self.sent.number(SentSet::default());
        let nodes = self.classes.map(|class| {
            let validator = self.validators.number(Validator::new(&self.config, honest[class]));
            self.nodes.number(Node { validator, sent, crashes: 0 })
        });
        vec![self.sorted(nodes)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let shown = self.shown(state);
        let crashes: u8 = state.nodes.iter().map(|node| self.nodes.get(*node).crashes).sum();
        for (at, node) in (0u8..).zip(state.nodes) {
            let steps = self.steps(node, shown);
            actions.extend(steps.turns.iter().map(|to| Action { at, to: *to }));
            if crashes < self.config.crashes {
                actions.extend(steps.crashes.iter().map(|to| Action { at, to: *to }));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut nodes = state.nodes;
        nodes[usize::from(action.at)] = action.to;
        Some(self.sorted(nodes))
    }

    fn format_step(&self, state: &State, action: Action) -> Option<String> {
        Some(self.describe(state, &action))
    }

    fn properties(&self) -> Vec<Property<World>> {
        let mut properties = vec![
            Property::<World>::always(ONE_CHAIN, |world, state| !world.shown.get(world.shown(state)).forks()),
            Property::<World>::always(ONE_DIGEST, |world, state| !world.any_sent(state, |sent| sent.signs_twice)),
            Property::<World>::always(NOT_CONVICTED, |world, state| !world.any_sent(state, |sent| sent.convicts)),
            Property::<World>::sometimes(REACHED[0], |world, state| {
                world.any_shown(state, |certificate| certificate.kind == VoteKind::Commit)
            }),
            Property::<World>::sometimes(REACHED[1], |world, state| {
                world.any_shown(state, |certificate| {
                    certificate.kind == VoteKind::Commit
                        && certificate.view == world.config.last_view(certificate.epoch)
                })
            }),
        ];
        if self.config.views.len() > 1 {
            properties.push(Property::<World>::sometimes(REACHED[2], |world, state| {
                world.any_shown(state, |certificate| certificate.epoch > tally_types::Epoch::ZERO)
            }));
        }
        if self.config.liveness {
            properties.push(Property::<World>::always(LIVE, |world, state| world.is_live(state)));
        }
        properties
    }
}
