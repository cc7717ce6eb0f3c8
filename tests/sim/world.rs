//! The world: who is there, what happens next, and what a machine's actions do.
//!
//! It replaces driver, disk, network, clock and keys ([`crate::keys`] says how far), and leaves machine, ledger and
//! journal as they are. A turn is the driver's: everything that reaches a node in one millisecond is handled, then its
//! records are written with one sync, then the rest is done in the machine's order.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use tally_consensus::{Action, Event, Fetch, Machine, Message, Record, Status, Unsigned, Voting};
use tally_ledger::Ledger;
use tally_node::store::journal::{self, Journal, JournalError};
use tally_types::{Address, Genesis, Hash, VoteKind, header::Executed, vote::Ballot};

use crate::{
    byzantine::{Kind, Scene},
    checkers::Checkers,
    clients::Clients,
    keys::Keys,
    marks::{Mark, Marks},
    network::Answer,
    node::{Node, Stop},
    rng::Rng,
    setup::Setup,
    trace::Trace,
};

/// Something that will happen at its time.
#[derive(Debug)]
pub enum Happening {
    Deliver {
        to: usize,
        from: usize,
        message: Box<Message>,
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
        answer: Answer,
    },
    Executed {
        to: usize,
        incarnation: u64,
        executed: Executed,
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
    /// Until when a node has hung up on another.
    pub hung_up: HashMap<(usize, usize), u64>,
    /// Whether the transactions of a batch are well formed and signed.
    pub good_batches: HashMap<Hash, bool>,
    queue: BTreeMap<u64, VecDeque<Happening>>,
}

impl World {
    pub fn new(setup: Setup, reading: bool) -> World {
        let genesis = Arc::new(setup.genesis());
        let ledger = Ledger::genesis(&genesis);
        let hash = genesis.chain.genesis_hash;
        let mut nodes: Vec<Node> = (0..setup.stakes.len()).map(|place| Node::new(place, &genesis)).collect();
        for (place, kind) in &setup.byzantine {
            nodes[*place].honest = false;
            nodes[*place].behaviour = kind.behaviour();
            if *kind == Kind::Twins {
                let mut twin = Node::new(*place, &genesis);
                twin.honest = false;
                nodes.push(twin);
            }
        }
        let mut world = World {
            rng: Rng::new(setup.seed),
            now: 0,
            nodes,
            events: 0,
            marks: Marks::default(),
            checkers: Checkers::new(hash),
            clients: Clients::default(),
            keys: Keys::new(setup.seed, hash),
            genesis_executed: ledger.executed(),
            genesis_ledger: ledger,
            genesis,
            trace: Trace::new(reading),
            cut: Vec::new(),
            hung_up: HashMap::new(),
            good_batches: HashMap::new(),
            queue: BTreeMap::new(),
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
        self.queue.entry(self.now + delay).or_default().push_back(happening);
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
        while let Some(mut entry) = self.queue.first_entry() {
            let at = *entry.key();
            if at > until {
                break;
            }
            match entry.get_mut().pop_front() {
                Some(happening) => {
                    self.now = at;
                    self.happen(happening);
                }
                None => {
                    entry.remove();
                }
            }
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        self.events += u64::from(!matches!(happening, Happening::EndTurn { .. }));
        match happening {
            Happening::Deliver { to, from, message } => self.deliver(to, from, *message),
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
            Happening::Answer { to, from, answer } => self.take_answer(to, from, answer),
            Happening::Executed { to, incarnation, executed } => {
                if self.nodes[to].incarnation == incarnation {
                    self.handle(to, Event::Executed { executed, validators: self.genesis.validators.clone() });
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
            let how = if self.rng.percent(25) { Stop::Kill } else { Stop::PowerCut };
            self.stop_for(node, how, 20_000);
        }
        let next = self.next_crash();
        self.at(next, Happening::Crash { node });
    }

    fn black_out(&mut self) {
        for node in 0..self.nodes.len() {
            if self.faulty() && self.nodes[node].machine.is_some() {
                self.stop_for(node, Stop::PowerCut, 3000);
            }
        }
    }

    /// From now on nothing fails any more; Byzantine validators remain what they are.
    fn heal(&mut self) {
        self.note(0x4ea1, || "the world heals".into());
        self.cut.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.set_capacity(None);
            if self.nodes[node].machine.is_none() && self.nodes[node].incarnation > 0 {
                self.restart(node);
            }
        }
    }

    // Turns.

    /// Gives a node an event; what follows from it waits for the end of the turn.
    pub fn handle(&mut self, node: usize, event: Event) {
        let now = self.clock_of(node);
        let state = &mut self.nodes[node];
        let Some(machine) = state.machine.as_mut() else { return };
        machine.handle(now, event, &mut state.actions);
        self.begin_turn(node);
    }

    fn begin_turn(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        if state.machine.is_some() && !state.in_turn {
            state.in_turn = true;
            let incarnation = state.incarnation;
            self.at(0, Happening::EndTurn { to: node, incarnation });
        }
    }

    fn end_turn(&mut self, node: usize) {
        let now = self.clock_of(node);
        let state = &mut self.nodes[node];
        state.in_turn = false;
        let Some(machine) = state.machine.as_mut() else { return };
        machine.handle(now, Event::Tick, &mut state.actions);
        let actions = std::mem::take(&mut state.actions);
        self.carry_out(node, actions);
        self.nodes[node].was_proposed_to = false;
        self.check_bounds(node);
        self.tick_later(node);
    }

    pub fn tick_later(&mut self, node: usize) {
        let Some(at) = self.wake_at(node) else { return };
        let at = at.max(self.now);
        if at < self.nodes[node].tick_at {
            self.nodes[node].tick_at = at;
            let incarnation = self.nodes[node].incarnation;
            self.at(at - self.now, Happening::Tick { to: node, incarnation });
        }
    }

    /// The end of a turn: records, one sync, then everything else.
    pub fn carry_out(&mut self, node: usize, actions: Vec<Action>) {
        let faults = &self.setup.faults;
        let (crashes, sync_errors) = (faults.crashes, faults.sync_errors);
        // Crash points: anywhere in the writes of the turn, or after its sync and any first part of what is sent.
        let crash = self.faulty() && crashes > 0 && self.rng.below(20_000) < crashes;
        let cut_while_writing = crash && self.rng.percent(60);
        let writes = actions.iter().any(|action| matches!(action, Action::Persist(_)));
        if cut_while_writing {
            let operations = self.rng.below(6);
            self.nodes[node].disk.fail_power_after(operations);
        } else if sync_errors && writes && self.faulty() && self.rng.below(2000) == 0 {
            self.nodes[node].disk.fail_sync_after(0);
        }
        let written = self.write(node, &actions);
        if cut_while_writing {
            self.marks.hit(Mark::CutWhileWriting);
            return self.stop_for(node, Stop::PowerCut, 5000);
        }
        if let Err(error) = written {
            return self.stop_after(node, &error);
        }
        let stop = if crash { self.rng.index(actions.len() + 1) } else { actions.len() };
        let mut own = Vec::new();
        for action in actions.into_iter().take(stop) {
            self.act(node, action, &mut own);
        }
        if crash {
            return self.stop_for(node, Stop::PowerCut, 5000);
        }
        if !own.is_empty() {
            let incarnation = self.nodes[node].incarnation;
            self.at(0, Happening::Own { to: node, incarnation, messages: own });
        }
    }

    /// One group, one sync; an overfull turn takes several.
    fn write(&mut self, node: usize, actions: &[Action]) -> Result<(), JournalError> {
        let records = actions.iter().filter_map(|action| match action {
            Action::Persist(record) => Some(record),
            _ => None,
        });
        let mut executed = None;
        let mut any = false;
        let journal = self.nodes[node].journal.as_mut().expect("a running node has a journal");
        let mut votes_again = false;
        for record in records {
            any = true;
            append(journal, record)?;
            match record {
                Record::Executed(result) => executed = Some(result.height),
                Record::Certificate(certificate) if certificate.kind == VoteKind::ViewChange => {
                    match &certificate.highest {
                        None => self.marks.hit(Mark::TcWithoutCertificate),
                        Some(highest) if highest.view.next() < certificate.view => {
                            self.marks.hit(Mark::TcWithOlderCertificate);
                        }
                        Some(_) => {}
                    }
                }
                Record::Stored(_) => self.marks.hit(Mark::BatchFetched),
                Record::Validators(..) => self.marks.hit(Mark::EpochEntered),
                _ => {}
            }
        }
        if any {
            journal.sync()?;
            let state = &mut self.nodes[node];
            state.wrote = true;
            if let Some(height) = executed {
                state.note_durable(height);
            }
            let votes = state.machine.as_ref().is_some_and(|machine| machine.voting() == Voting::Allowed);
            votes_again = votes && state.forbidden.is_some();
        }
        if votes_again && actions.iter().any(|action| matches!(action, Action::Sign(Unsigned::Ballot { .. }))) {
            self.marks.hit(Mark::VotesAgain);
        }
        Ok(())
    }

    /// A journal that cannot be written ends the process: what the disk holds is then unknown.
    fn stop_after(&mut self, node: usize, error: &JournalError) {
        let text = error.to_string();
        self.note(node as u64 ^ 0x0d15c, || format!("{node} cannot write: {text}"));
        let full = text.contains("full") || text.contains("space");
        assert!(
            self.faulty() && (self.setup.faults.sync_errors || self.setup.faults.full_disks),
            "{}: {node} cannot write: {text}",
            self.name()
        );
        self.marks.hit(if full { Mark::DiskFull } else { Mark::SyncFailed });
        let how = if self.rng.percent(50) { Stop::Kill } else { Stop::PowerCut };
        self.stop_for(node, how, 5000);
    }

    fn act(&mut self, node: usize, action: Action, own: &mut Vec<Message>) {
        match action {
            Action::Persist(_) => {}
            Action::Sign(unsigned) => {
                self.check_signed(node, &unsigned);
                self.note_sealed(&unsigned);
                self.mark_signed(node, &unsigned);
                let message = self.keys.message(&self.nodes[node].signer, unsigned);
                self.say(node, None, &message);
                own.push(message);
            }
            Action::Broadcast(message) => self.say(node, None, &message),
            Action::Send(to, message) => self.say(node, Some(self.index(&to)), &message),
            Action::Ask(to, fetch) => {
                let to = self.index(&to);
                for to in self.nodes_of(to) {
                    if let Some(delay) = self.travel(node, to) {
                        self.at(delay, Happening::Ask { to, from: node, fetch: fetch.clone() });
                    }
                }
            }
            Action::Execute(order) => {
                let executed = self.execute(node, *order);
                // One thread executes, in order.
                let done = self.nodes[node].busy_until.max(self.now) + self.rng.below(5);
                self.nodes[node].busy_until = done;
                let incarnation = self.nodes[node].incarnation;
                self.at(done - self.now, Happening::Executed { to: node, incarnation, executed });
            }
            Action::Sets(sets) => self.nodes[node].sets = sets,
            Action::Evidence(evidence) => self.check_evidence(node, *evidence),
            Action::Alarm(alarm) => self.check_alarm(node, &alarm),
            Action::Dropped(reject) => self.mark_dropped(reject),
        }
    }

    fn mark_signed(&mut self, node: usize, unsigned: &Unsigned) {
        let Some(agreement) = self.nodes[node].machine.as_ref().map(Machine::agreement) else { return };
        match unsigned {
            Unsigned::Ballot { epoch, ballot: Ballot::Commit(view, _), .. }
                if *epoch == agreement.epoch() && view.next() < agreement.view() =>
            {
                self.marks.hit(Mark::LateCommit);
            }
            Unsigned::Ballot { ballot: Ballot::Prepare(view, _), .. } => {
                let on_tc = agreement.entry().is_some_and(|entry| entry.kind == VoteKind::ViewChange);
                if *view == agreement.view() && on_tc {
                    self.marks.hit(Mark::PreparedOnTc);
                }
            }
            Unsigned::Ballot { ballot: Ballot::ViewChange(..), .. } if self.nodes[node].was_proposed_to => {
                self.marks.hit(Mark::ProposalGivenUp);
            }
            _ => {}
        }
    }

    pub fn status(&self, node: usize) -> Option<Status> {
        self.nodes[node].machine.as_ref().map(Machine::status)
    }

    // Speaking.

    /// A node speaks to a validator or to all; a Byzantine one says what it likes.
    fn say(&mut self, node: usize, to: Option<usize>, message: &Message) {
        if let Some(mut behaviour) = self.nodes[node].behaviour.take() {
            self.let_act(node, |scene| behaviour.on_send(scene, to, message));
            self.nodes[node].behaviour = Some(behaviour);
            return;
        }
        match to {
            None => self.broadcast(node, message),
            Some(to) => self.nodes_of(to).into_iter().for_each(|to| self.send(node, to, message)),
        }
    }

    fn mischief(&mut self, node: usize) {
        if self.nodes[node].machine.is_some()
            && let Some(mut behaviour) = self.nodes[node].behaviour.take()
        {
            self.let_act(node, |scene| behaviour.on_time(scene));
            self.nodes[node].behaviour = Some(behaviour);
        }
        let next = 50 + self.rng.below(400);
        self.at(next, Happening::Mischief { node });
    }

    /// Sets the scene for a Byzantine validator, and sends what it said.
    pub fn let_act(&mut self, node: usize, act: impl FnOnce(&mut Scene<'_>)) {
        let state = &self.nodes[node];
        let mut scene = Scene {
            me: state.validator,
            genesis: &self.genesis,
            status: state.machine.as_ref().map(Machine::status),
            machine: state.machine.as_ref(),
            rng: &mut self.rng,
            keys: &self.keys,
            signer: &state.signer,
            said: Vec::new(),
        };
        act(&mut scene);
        for (to, message) in scene.said {
            match to {
                None => self.broadcast(node, &message),
                Some(to) => self.nodes_of(to).into_iter().for_each(|to| self.send(node, to, &message)),
            }
        }
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
        let is_byzantine =
            |node: &usize| self.setup.byzantine.iter().any(|(place, _)| place == &self.nodes[*node].validator);
        (0..self.nodes.len()).filter(|node| self.nodes[*node].machine.is_some() && !is_byzantine(node)).collect()
    }
}

fn append(journal: &mut Journal, record: &Record) -> Result<(), JournalError> {
    let raw = journal::Record { kind: record.kind(), vital: record.vital(), bytes: record.encode() };
    match journal.append(std::slice::from_ref(&raw)) {
        Err(JournalError::GroupFull { .. }) => {
            journal.sync()?;
            journal.append(std::slice::from_ref(&raw))?;
        }
        other => {
            other?;
        }
    }
    Ok(())
}
