//! The world: who is there, and what happens next.
//!
//! It replaces driver, disk, network, clock and keys ([`crate::keys`] says how far), and leaves machine, ledger and
//! journal as they are.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use tally_consensus::{Event, Fetch, Machine, Message, Status, Voting};
use tally_ledger::Ledger;
use tally_types::{Address, Genesis, Hash, header::Executed};

use crate::{
    byzantine::Kind,
    checkers::Checkers,
    clients::Clients,
    keys::Keys,
    marks::Marks,
    network::{Answer, Division},
    node::{Node, Stop},
    rng::Rng,
    setup::Setup,
    storage::Tape,
    trace::Trace,
};

/// Events of a world, far above what any needs.
const EVENTS_MAX: u64 = 5_000_000;

/// Something that will happen at its time.
#[derive(Debug)]
pub enum Happening {
    Deliver {
        to: usize,
        /// Of the receiver, when it was sent.
        incarnation: u64,
        from: usize,
        /// Shared by all that it was sent to.
        message: Rc<Message>,
    },
    /// What a node signed comes back to it.
    Own {
        to: usize,
        incarnation: u64,
        messages: Vec<Message>,
    },
    Ask {
        to: usize,
        from: usize,
        fetch: Fetch,
    },
    Answer {
        to: usize,
        from: usize,
        answer: Box<Answer>,
    },
    Executed {
        to: usize,
        incarnation: u64,
        executed: Box<Executed>,
    },
    Tick {
        to: usize,
        incarnation: u64,
    },
    EndTurn {
        to: usize,
        incarnation: u64,
    },
    Reconnect {
        one: usize,
        two: usize,
    },
    /// A Byzantine validator acts by itself.
    Mischief {
        node: usize,
    },
    Client,
    Crash {
        node: usize,
    },
    /// The power fails that a node's disk has lost already.
    PowerCut {
        node: usize,
    },
    Restart {
        node: usize,
    },
    Blackout,
    FullDisk {
        node: usize,
    },
    Partition,
    Heal,
}

pub struct World {
    pub setup: Setup,
    pub rng: Rng,
    /// Milliseconds since the world began.
    pub now: u64,
    pub nodes: Vec<Node>,
    pub events: u64,
    pub marks: Marks,
    pub checkers: Checkers,
    pub clients: Clients,
    pub keys: Keys,
    pub genesis: Arc<Genesis>,
    pub genesis_ledger: Ledger,
    pub genesis_executed: Executed,
    pub trace: Trace,
    /// Pairs that cannot talk now, by sender and receiver.
    pub cut: Vec<bool>,
    /// What one node writes, where that is of interest.
    pub tape: Option<Tape>,
    /// How the network is divided in the first views.
    pub divisions: Vec<Division>,
    /// Until when a node has hung up on another.
    pub hung_up: HashMap<(usize, usize), u64>,
    /// Whether the transactions of a batch are well formed and signed.
    pub good_batches: HashMap<Hash, bool>,
    /// What happens in this millisecond, in order.
    current: VecDeque<Happening>,
    /// What happens in later ones.
    queue: BTreeMap<u64, VecDeque<Happening>>,
    /// Of milliseconds that are over: with room for what the next ones bring.
    emptied: Vec<VecDeque<Happening>>,
}

impl World {
    pub fn new(setup: Setup, reading: bool) -> World {
        World::on(Arc::new(setup.genesis()), setup, reading)
    }

    /// A world of `setup` on its genesis, for whoever makes many on one.
    pub fn on(genesis: Arc<Genesis>, setup: Setup, reading: bool) -> World {
        let ledger = Ledger::genesis(&genesis);
        let hash = genesis.chain.genesis_hash;
        let mut nodes: Vec<Node> = (0..setup.stakes.len()).map(|place| Node::new(place, &genesis)).collect();
        for (place, kind) in &setup.byzantine {
            (nodes[*place].honest, nodes[*place].correct) = (false, false);
            nodes[*place].behaviour = kind.behaviour();
            if *kind == Kind::Twins {
                let mut twin = Node::new(*place, &genesis);
                (twin.honest, twin.correct) = (false, false);
                nodes.push(twin);
            }
        }
        let mut world = World {
            rng: Rng::new(setup.seed),
            now: 0,
            nodes,
            events: 0,
            marks: Marks::default(),
            checkers: Checkers::new(&genesis, ledger.executed()),
            clients: Clients::default(),
            keys: Keys::new(setup.seed, hash),
            genesis_executed: ledger.executed(),
            genesis_ledger: ledger,
            genesis,
            trace: Trace::new(reading),
            cut: Vec::new(),
            tape: None,
            divisions: Vec::new(),
            hung_up: HashMap::new(),
            good_batches: HashMap::new(),
            current: VecDeque::new(),
            queue: BTreeMap::new(),
            emptied: Vec::new(),
            setup,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let faults = self.setup.faults.clone();
        let validators = self.setup.stakes.len();
        let runs = |node: &usize, world: &World| world.nodes[*node].validator + faults.down < validators;
        let running: Vec<usize> = (0..self.nodes.len()).filter(|node| runs(node, self)).collect();
        for node in &running {
            let state = &mut self.nodes[*node];
            if faults.skew_ms > 0 {
                state.clock.skew_ms = self.rng.below(2 * faults.skew_ms + 1) as i64 - faults.skew_ms as i64;
            }
            if faults.drift > 0 {
                state.clock.drift = self.rng.below(2 * faults.drift + 1) as i64 - faults.drift as i64;
            }
        }
        for node in &running {
            let clock = self.nodes[*node].clock;
            self.note(clock.skew_ms as u64, || {
                format!("{node} has a clock {} ms off that drifts {} per mille", clock.skew_ms, clock.drift)
            });
            assert!(self.start(*node, Voting::Allowed), "an empty disk has nothing to refuse");
            if self.nodes[*node].behaviour.is_some() {
                self.at(100, Happening::Mischief { node: *node });
            }
            if faults.crashes > 0 {
                let at = self.next_crash();
                self.at(at, Happening::Crash { node: *node });
            }
            if faults.full_disks && self.rng.percent(50) {
                let at = self.rng.below(faults.heal_ms);
                self.at(at, Happening::FullDisk { node: *node });
            }
        }
        self.next_client();
        if faults.partitions {
            self.at(500, Happening::Partition);
        }
        if faults.blackouts {
            let at = 2000 + self.rng.below(10_000);
            self.at(at, Happening::Blackout);
        }
        if faults.heal_ms > 0 {
            self.at(faults.heal_ms, Happening::Heal);
        }
    }

    fn next_crash(&mut self) -> u64 {
        1 + self.rng.below(200_000 / self.setup.faults.crashes)
    }

    pub fn at(&mut self, delay: u64, happening: Happening) {
        let due = match delay {
            0 => &mut self.current,
            _ => {
                let due = self.queue.entry(self.now + delay);
                due.or_insert_with(|| self.emptied.pop().unwrap_or_default())
            }
        };
        due.push_back(happening);
    }

    /// Whether things still go wrong.
    pub fn faulty(&self) -> bool {
        self.now < self.setup.faults.heal_ms
    }

    pub fn note(&mut self, digest: u64, line: impl FnOnce() -> String) {
        self.trace.note(self.now, digest, line);
    }

    /// Runs until `until` milliseconds.
    pub fn run(&mut self, until: u64) {
        loop {
            while let Some(happening) = self.current.pop_front() {
                self.happen(happening);
            }
            let Some(next) = self.queue.first_entry().filter(|next| *next.key() <= until) else { break };
            let (at, happenings) = next.remove_entry();
            self.now = at;
            self.emptied.push(std::mem::replace(&mut self.current, happenings));
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        self.events += u64::from(!matches!(happening, Happening::EndTurn { .. }));
        // A storm of messages that feeds itself is a failure as well, and must not look like a slow machine.
        assert!(self.events < EVENTS_MAX, "{}: {EVENTS_MAX} events by {} ms", self.name(), self.now);
        match happening {
            Happening::Deliver { to, incarnation, from, message } => {
                // A stream ends with the process that read it. What a HAVE says of its sender's epoch is believed for that: rule R3.
                // Everything else proves itself, however late it comes.
                if self.nodes[to].incarnation == incarnation || !matches!(*message, Message::Have(_)) {
                    self.deliver(to, from, &message);
                }
            }
            Happening::Own { to, incarnation, messages } => {
                if self.nodes[to].incarnation == incarnation {
                    for message in messages {
                        self.handle(to, Event::Own(message));
                    }
                }
            }
            Happening::Ask { to, from, fetch } => {
                self.note((to as u64) << 8 ^ from as u64 ^ 0xa5, || format!("{from} asks {to}: {fetch:?}"));
                self.answer(to, from, fetch);
            }
            Happening::Answer { to, from, answer } => self.take_answer(to, from, *answer),
            Happening::Executed { to, incarnation, executed } => {
                if self.nodes[to].incarnation == incarnation {
                    self.handle(
                        to,
                        Event::Executed { executed: *executed, validators: self.genesis.validators.clone() },
                    );
                }
            }
            Happening::Tick { to, incarnation } => {
                if self.nodes[to].incarnation == incarnation && self.nodes[to].tick_at <= self.now {
                    self.nodes[to].tick_at = u64::MAX;
                    self.begin_turn(to);
                }
            }
            Happening::EndTurn { to, incarnation } => {
                if self.nodes[to].incarnation == incarnation {
                    self.end_turn(to);
                }
            }
            Happening::Reconnect { one, two } => {
                if self.nodes[one].machine.is_some() && self.nodes[two].machine.is_some() {
                    self.connect(one, two);
                }
            }
            Happening::Mischief { node } => self.mischief(node),
            Happening::Client => self.client(),
            Happening::Crash { node } => self.crash(node),
            Happening::Restart { node } => self.restart(node),
            Happening::PowerCut { node } => {
                if self.nodes[node].power_fails && self.nodes[node].machine.is_some() {
                    self.stop_for(node, Stop::PowerCut, 5000);
                }
            }
            Happening::Blackout => self.black_out(),
            Happening::FullDisk { node } => {
                if self.faulty() {
                    self.fill_disk(node);
                }
            }
            Happening::Partition => {
                if self.faulty() {
                    self.partition();
                }
            }
            Happening::Heal => self.heal(),
        }
    }

    fn crash(&mut self, node: usize) {
        if !self.faulty() {
            return;
        }
        if self.nodes[node].machine.is_some() {
            match self.rng.below(4) {
                0 => self.stop_for(node, Stop::Kill, 20_000),
                1 => self.stop_for(node, Stop::PowerCut, 20_000),
                // Between turns everything is synced: only a cut while it writes has something to lose.
                _ => self.fail_power(node, 3),
            }
        }
        let next = self.next_crash();
        self.at(next, Happening::Crash { node });
    }

    fn black_out(&mut self) {
        for node in 0..self.nodes.len() {
            if self.faulty() && self.nodes[node].machine.is_some() {
                match self.rng.percent(50) {
                    true => self.stop_for(node, Stop::PowerCut, 3000),
                    false => self.fail_power(node, 3),
                }
            }
        }
    }

    /// From now on nothing fails any more; Byzantine validators remain what they are.
    fn heal(&mut self) {
        self.note(0x4ea1, || "the world heals".into());
        self.cut.clear();
        for node in 0..self.nodes.len() {
            // What power has already left goes down before that, not after.
            if self.nodes[node].power_fails && self.nodes[node].machine.is_some() {
                self.stop(node, Stop::PowerCut);
            }
            self.nodes[node].disk.heal();
            self.nodes[node].snapshots.heal();
            if self.nodes[node].machine.is_none() && self.nodes[node].incarnation > 0 {
                self.restart(node);
            }
        }
    }

    pub fn status(&self, node: usize) -> Option<Status> {
        self.nodes[node].machine.as_ref().map(Machine::status)
    }

    /// The nodes that run with the key of a validator: one, or twins.
    pub fn nodes_of(&self, validator: usize) -> Vec<usize> {
        let twins = self.setup.stakes.len()..self.nodes.len();
        std::iter::once(validator).chain(twins.filter(|node| self.nodes[*node].validator == validator)).collect()
    }

    pub fn index(&self, address: &Address) -> usize {
        self.nodes.iter().position(|node| node.signer.address == *address).expect("a known validator")
    }

    // What scenarios ask.

    pub fn final_heights(&self) -> Vec<u64> {
        (0..self.nodes.len()).map(|node| self.status(node).map_or(0, |status| status.final_height.0)).collect()
    }

    /// Nodes that run and keep the protocol: those that must make progress. One whose disk lost data follows.
    pub fn live(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].machine.is_some() && self.nodes[*node].correct).collect()
    }
}
