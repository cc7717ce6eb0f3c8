//! A node's turn, as the driver's: what arrived is handled, its records are written with one sync, then the rest is done
//! in the machine's order. Here it crashes, and here a Byzantine validator says something else.

use tally_consensus::{Action, Event, Machine, Message, Record, Unsigned, Voting};
use tally_node::{
    store::journal::{Journal, JournalError},
    turn::{make_durable, raw},
};
use tally_types::VoteKind;

use crate::{
    byzantine::Scene,
    marks::Mark,
    node::Stop,
    world::{Happening, World},
};

impl World {
    /// Gives a node an event; what follows from it waits for the end of the turn.
    pub fn handle(&mut self, node: usize, event: Event) {
        let now = self.clock_of(node);
        let state = &mut self.nodes[node];
        let Some(machine) = state.machine.as_mut() else { return };
        machine.handle(now, event, &mut state.actions);
        self.begin_turn(node);
    }

    pub fn begin_turn(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        if state.machine.is_some() && !state.in_turn {
            state.in_turn = true;
            let incarnation = state.incarnation;
            self.at(0, Happening::EndTurn { to: node, incarnation });
        }
    }

    pub fn end_turn(&mut self, node: usize) {
        let now = self.clock_of(node);
        let state = &mut self.nodes[node];
        state.in_turn = false;
        let Some(machine) = state.machine.as_mut() else { return };
        machine.handle(now, Event::Tick, &mut state.actions);
        let actions = std::mem::take(&mut state.actions);
        self.carry_out(node, actions);
        self.nodes[node].was_proposed_to = false;
        self.look_at(node);
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
        let writes = actions.iter().any(|action| matches!(action, Action::Persist(_)));
        let cut_while_writing = crash && writes && self.rng.percent(80);
        if cut_while_writing {
            // A write and a sync, and more where a segment ends.
            let most = if self.rng.percent(80) { 3 } else { 8 };
            let operations = self.rng.below(most);
            self.nodes[node].disk.fail_power_after(operations);
        } else if sync_errors && writes && self.faulty() && self.rng.below(2000) == 0 {
            let syncs = self.rng.below(3);
            let disk = if self.rng.percent(80) { &self.nodes[node].disk } else { &self.nodes[node].snapshots };
            disk.fail_sync_after(syncs);
        }
        let written = self.write(node, actions);
        if cut_while_writing {
            if written.is_err() {
                self.marks.hit(Mark::CutWhileWriting);
            }
            return self.stop_for(node, Stop::PowerCut, 5000);
        }
        let actions = match written {
            Ok(actions) => actions,
            Err(error) => return self.stop_after(node, &error),
        };
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

    /// The records of a turn, as the driver writes them; what may be done then.
    fn write(&mut self, node: usize, actions: Vec<Action>) -> Result<Vec<Action>, JournalError> {
        let records = actions.iter().filter_map(|action| match action {
            Action::Persist(record) => Some(record),
            _ => None,
        });
        if let Some(tape) = self.tape.as_mut().filter(|tape| tape.node == node) {
            let group: Vec<_> = records.clone().map(raw).collect();
            if !group.is_empty() {
                tape.groups.push(group);
                tape.acknowledged.push(self.nodes[node].blocks.len() as u64);
            }
        }
        let mut any = false;
        for record in records {
            any = true;
            match record {
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
        let state = &mut self.nodes[node];
        let durable = make_durable(state.journal.as_mut().expect("a running node has a journal"), actions)?;
        state.synced = state.journal.as_ref().map_or(0, Journal::groups);
        if let Some(height) = durable.executed {
            self.note_durable(node, height);
        }
        let state = &self.nodes[node];
        let votes = state.machine.as_ref().is_some_and(|machine| machine.voting() == Voting::Allowed);
        let signs = |action: &Action| matches!(action, Action::Sign(Unsigned::Ballot { .. }));
        if any && votes && state.forbidden.is_some() && durable.actions.iter().any(signs) {
            self.marks.hit(Mark::VotesAgain);
        }
        Ok(durable.actions)
    }

    /// A journal that cannot be written ends the process: what the disk holds is then unknown.
    fn stop_after(&mut self, node: usize, error: &JournalError) {
        let text = error.to_string();
        self.note(node as u64 ^ 0x0d15c, || format!("{node} cannot write: {text}"));
        if self.nodes[node].power_fails && text.contains("power failure") {
            self.marks.hit(Mark::CutWhileWriting);
            return self.stop_for(node, Stop::PowerCut, 5000);
        }
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
                let message = self.keys.message(&self.nodes[node].signer, unsigned);
                let is_new = self.check_signed(node, &message);
                self.note_sealed(node, &message);
                self.mark_signed(node, &message, is_new);
                self.say(node, None, &message);
                if self.nodes[node].behaviour.as_mut().is_none_or(|behaviour| behaviour.hears_itself(&message)) {
                    own.push(message);
                }
            }
            Action::Broadcast(message) => self.say(node, None, &message),
            Action::Send(to, message) => self.say(node, Some(self.index(&to)), &message),
            Action::Ask(to, fetch) => {
                let to = self.index(&to);
                for to in self.nodes_of(to) {
                    match self.travel(node, to) {
                        Some(delay) => self.at(delay, Happening::Ask { to, from: node, fetch: fetch.clone() }),
                        None => self.note(to as u64 ^ 0xa2, || format!("{node} asks {to} and it is lost: {fetch:?}")),
                    }
                }
            }
            Action::Execute(order) => {
                let executed = self.execute(node, *order);
                // One thread executes, in order.
                let done = self.nodes[node].busy_until.max(self.now) + self.rng.below(5);
                self.nodes[node].busy_until = done;
                let incarnation = self.nodes[node].incarnation;
                self.at(done - self.now, Happening::Executed { to: node, incarnation, executed: Box::new(executed) });
            }
            Action::Sets(sets) => self.nodes[node].sets = sets,
            Action::Evidence(evidence) => self.check_evidence(node, *evidence),
            Action::Alarm(alarm) => self.check_alarm(node, &alarm),
            Action::Dropped(reject) => self.mark_dropped(reject),
        }
    }

    fn mark_signed(&mut self, node: usize, message: &Message, is_new: bool) {
        let Some(agreement) = self.nodes[node].machine.as_ref().map(Machine::agreement) else { return };
        match message {
            Message::Vote(vote) if vote.kind == VoteKind::Prepare => {
                let on_tc = agreement.entry().is_some_and(|entry| entry.kind == VoteKind::ViewChange);
                if vote.view == agreement.view() && on_tc {
                    self.marks.hit(Mark::PreparedOnTc);
                }
            }
            Message::Vote(vote) if is_new && vote.epoch == agreement.epoch() && vote.view.next() < agreement.view() => {
                self.marks.hit(Mark::LateCommit);
            }
            Message::ViewChange(_) if self.nodes[node].was_proposed_to => self.marks.hit(Mark::ProposalGivenUp),
            _ => {}
        }
    }

    // Speaking.

    /// A node speaks to a validator or to all; a Byzantine one says what it likes.
    fn say(&mut self, node: usize, to: Option<usize>, message: &Message) {
        if let Some(mut behaviour) = self.nodes[node].behaviour.take() {
            let said = self.let_act(node, |scene| behaviour.on_send(scene, to, message));
            self.nodes[node].behaviour = Some(behaviour);
            let honest = self.one_by_one(node, &[(to, message.clone())]);
            if self.one_by_one(node, &said) != honest {
                self.note_lie(node);
            }
            return;
        }
        match to {
            None => self.broadcast(node, message),
            Some(to) => self.nodes_of(to).into_iter().for_each(|to| self.send(node, to, message)),
        }
    }

    pub fn mischief(&mut self, node: usize) {
        if self.nodes[node].machine.is_some()
            && let Some(mut behaviour) = self.nodes[node].behaviour.take()
        {
            let said = self.let_act(node, |scene| behaviour.on_time(scene));
            self.nodes[node].behaviour = Some(behaviour);
            if !said.is_empty() {
                self.note_lie(node);
            }
        }
        let next = 50 + self.rng.below(400);
        self.at(next, Happening::Mischief { node });
    }

    /// Who is told what, whether by a word to all or by one to each.
    fn one_by_one(&self, node: usize, said: &[(Option<usize>, Message)]) -> Vec<(usize, Message)> {
        let me = self.nodes[node].validator;
        let to = |to: &Option<usize>| to.map_or(0..self.setup.stakes.len(), |to| to..to + 1);
        let each = said.iter().flat_map(|(whom, message)| to(whom).map(|one| (one, message.clone())));
        each.filter(|(to, _)| *to != me).collect()
    }

    /// A Byzantine validator did something that its machine would not do.
    pub fn note_lie(&mut self, node: usize) {
        let validator = self.nodes[node].validator;
        for (_, kind) in self.setup.byzantine.iter().filter(|(liar, _)| *liar == validator) {
            self.marks.note_lie(*kind);
        }
    }

    /// Sets the scene for a Byzantine validator, and sends what it said, which it gives back.
    pub fn let_act(&mut self, node: usize, act: impl FnOnce(&mut Scene<'_>)) -> Vec<(Option<usize>, Message)> {
        let state = &self.nodes[node];
        let mut scene = Scene {
            me: state.validator,
            genesis: &self.genesis,
            machine: state.machine.as_ref(),
            rng: &mut self.rng,
            keys: &self.keys,
            signer: &state.signer,
            said: Vec::new(),
        };
        act(&mut scene);
        let said = scene.said;
        for (to, message) in &said {
            match to {
                None => self.broadcast(node, message),
                Some(to) => self.nodes_of(*to).into_iter().for_each(|to| self.send(node, to, message)),
            }
        }
        said
    }
}
