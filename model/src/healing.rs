//! "From every state a commit is reachable": from the given replicas, with everything in flight lost and the Byzantine
//! validator silent, the real cores vote by vote with real tallies, until a new block is final everywhere.
//!
//! The schedule is one that a network which works again gives: in every round each replica sends what rules V3 and V4 have
//! it send, everything arrives, and when a round changed nothing every replica's timeout is over. One such schedule is
//! enough for "reachable"; that it is a fair one, which nobody has to choose, is what makes it a liveness check. Views are
//! not bounded here, and led in turn after those of the configuration.

use std::{collections::VecDeque, sync::Arc};

use tally_consensus::Output;
use tally_types::{Certificate, Epoch, Hash, View, VoteKind, vote::Ballot};

use crate::{
    block,
    config::Config,
    mutant::Mutant,
    network::{view_change, vote},
    replica::{Proposal, Replica},
};

/// Rounds until a schedule counts as stuck. Four leaders in turn, one of them silent, need far fewer.
const ROUNDS_MAX: u32 = 60;

/// Whether a block above all that is final becomes final at every replica. They stand in the order of [`Config::honest`].
pub fn heals(config: &Config, replicas: [Replica; 3]) -> bool {
    let places = config.honest();
    let mut healing = Healing { config, replicas, places, wire: VecDeque::new(), answered: [[false; 3]; 3] };
    let goal = healing.replicas.iter().map(final_height).max().unwrap_or_default() + 1;
    for _ in 0..ROUNDS_MAX {
        let before = healing.replicas.clone();
        healing.round();
        if healing.replicas.iter().all(|replica| final_height(replica) >= goal) {
            return true;
        }
        if healing.replicas == before && !healing.time_out() {
            return false;
        }
    }
    false
}

fn final_height(replica: &Replica) -> u64 {
    replica.highest_commit.as_ref().map_or(0, |commit| block::height(&commit.block))
}

/// What travels, with the place it comes from.
#[derive(Clone, Debug)]
enum Message {
    Have,
    Certificates([Option<Arc<Certificate>>; 2]),
    Proposal(Proposal, Option<Arc<Certificate>>),
    Ballot(Ballot, Option<Arc<Certificate>>),
}

/// A message on its way: sender, receiver (none: everybody), epoch and view it speaks of (none: it moves nobody to answer).
#[derive(Clone, Debug)]
struct Sending {
    from: usize,
    to: Option<usize>,
    epoch: Epoch,
    view: Option<View>,
    message: Message,
}

struct Healing<'a> {
    config: &'a Config,
    replicas: [Replica; 3],
    places: [u32; 3],
    wire: VecDeque<Sending>,
    /// Whom each answered in this round. Rule V4: once per peer and resend interval.
    answered: [[bool; 3]; 3],
}

impl Healing<'_> {
    /// Everybody sends, everything arrives.
    fn round(&mut self) {
        self.answered = Default::default();
        for at in 0..self.replicas.len() {
            self.advance(at);
            self.resend(at);
        }
        while let Some(sending) = self.wire.pop_front() {
            for at in 0..self.replicas.len() {
                if sending.to.is_none_or(|to| to == at) {
                    self.receive(at, &sending);
                }
            }
        }
    }

    /// `Machine::announce` and `Machine::resend`. Rules V3, D3.
    fn resend(&mut self, from: usize) {
        let replica = &self.replicas[from];
        if !replica.agreement.signs() {
            return;
        }
        let view = replica.agreement.view();
        self.send(from, None, Some(view), Message::Have);
        let replica = &self.replicas[from];
        let ballots = replica.agreement.open_ballots();
        let proposal = replica.own_proposal.clone();
        if ballots.is_empty() && proposal.is_none() {
            return;
        }
        self.send_certificates(from, None);
        if let Some(proposal) = proposal {
            self.send_proposal(from, proposal);
        }
        for ballot in ballots {
            self.send_ballot(from, ballot);
        }
    }

    /// Every timeout is over. Rule V2. Whether anybody had one left.
    fn time_out(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.replicas.len() {
            let outputs = self.replicas[at].give_up();
            any |= !outputs.is_empty();
            self.carry_out(at, outputs);
        }
        any
    }

    /// `Machine::on_message` and `Machine::take`.
    fn receive(&mut self, at: usize, sending: &Sending) {
        let agreement = &self.replicas[at].agreement;
        let here = (agreement.epoch(), agreement.view());
        let behind = at != sending.from && sending.view.is_some_and(|view| (sending.epoch, view) < here);
        if behind && !std::mem::replace(&mut self.answered[at][sending.from], true) {
            self.send_certificates(at, Some(sending.from));
        }
        if sending.epoch > here.0 {
            self.fetch_range(at, sending.from);
        }
        match &sending.message {
            Message::Have => {}
            Message::Certificates(certificates) => {
                for certificate in certificates.iter().rev().flatten() {
                    self.take(at, certificate);
                }
            }
            Message::Proposal((block, justification), commit) => {
                for certificate in commit.iter().chain(justification) {
                    self.take(at, certificate);
                }
                self.judge(at, sending, *block, justification.as_deref());
            }
            Message::Ballot(ballot, highest) => self.count(at, sending, *ballot, highest),
        }
        self.advance(at);
    }

    /// Rule S2: who hears of a later epoch fetches the blocks that lead there, with the certificate that ended its own.
    fn fetch_range(&mut self, at: usize, from: usize) {
        let forgotten = self.config.mutant == Some(Mutant::EpochEndForgotten);
        for ended in self.replicas[from].ended.clone().iter().filter(|_| !forgotten) {
            self.take(at, ended);
        }
    }

    fn take(&mut self, at: usize, certificate: &Arc<Certificate>) {
        if certificate.epoch == self.replicas[at].agreement.epoch() {
            let outputs = self.replicas[at].take(self.config, certificate);
            self.carry_out(at, outputs);
        }
    }

    /// `Machine::on_proposal` and `Machine::judge`.
    fn judge(&mut self, at: usize, sending: &Sending, block: Hash, justification: Option<&Certificate>) {
        let replica = &mut self.replicas[at];
        let here = (replica.agreement.epoch(), Some(replica.agreement.view()));
        if (sending.epoch, sending.view) == here && replica.valid_blocks(self.config, justification).contains(&block) {
            let outputs = replica.prepare(block);
            self.carry_out(at, outputs);
        }
    }

    fn count(&mut self, at: usize, sending: &Sending, ballot: Ballot, highest: &Option<Arc<Certificate>>) {
        let (epoch, signer) = (sending.epoch, self.places[sending.from]);
        let agreement = &mut self.replicas[at].agreement;
        let mut outputs = Vec::new();
        match ballot {
            Ballot::Prepare(view, block) => {
                agreement.on_vote(&vote(epoch, signer, VoteKind::Prepare, view, block), &mut outputs);
            }
            Ballot::Commit(view, block) => {
                agreement.on_vote(&vote(epoch, signer, VoteKind::Commit, view, block), &mut outputs);
            }
            Ballot::ViewChange(view, _) => {
                agreement.on_view_change(&view_change(epoch, signer, view, highest.clone()), &mut outputs);
            }
        }
        self.replicas[at].note(&outputs);
        self.carry_out(at, outputs);
    }

    /// `Machine::advance`, with nothing to wait for.
    fn advance(&mut self, at: usize) {
        let place = self.places[at];
        self.replicas[at].finalize(self.config);
        let me = self.replicas[at].agreement.me().unwrap_or(place);
        self.replicas[at].enter_epoch(self.config, me);
        for (view, block) in self.replicas[at].committable(self.config) {
            let outputs = self.replicas[at].commit(view, block);
            self.carry_out(at, outputs);
        }
        if self.replicas[at].agreement.view() <= View(block::VIEW_MAX)
            && let Some(proposal) = self.replicas[at].propose(self.config, place)
        {
            self.send_proposal(at, proposal);
        }
    }

    fn carry_out(&mut self, at: usize, outputs: Vec<Output>) {
        for output in outputs {
            if let Output::Sign(ballot) = output {
                self.send_ballot(at, ballot);
            }
        }
    }

    fn send_ballot(&mut self, from: usize, ballot: Ballot) {
        let (view, highest) = match ballot {
            Ballot::ViewChange(view, _) => (Some(view), self.replicas[from].agreement.view_change_certificate(view)),
            Ballot::Prepare(view, _) => (Some(view), None),
            // It may come after its view without its sender being behind.
            Ballot::Commit(..) => (None, None),
        };
        self.send(from, None, view, Message::Ballot(ballot, highest));
    }

    fn send_proposal(&mut self, from: usize, proposal: Proposal) {
        let view = self.replicas[from].agreement.view();
        let commit = self.replicas[from].certificates(self.config)[1].clone();
        self.send(from, None, Some(view), Message::Proposal(proposal, commit));
    }

    fn send_certificates(&mut self, from: usize, to: Option<usize>) {
        let certificates = self.replicas[from].certificates(self.config);
        let entry = certificates[0].as_ref();
        let (epoch, view) = entry.map_or((Epoch::ZERO, View(1)), |entry| (entry.epoch, entry.view.next()));
        self.wire.push_back(Sending {
            from,
            to,
            epoch,
            view: Some(view),
            message: Message::Certificates(certificates),
        });
    }

    fn send(&mut self, from: usize, to: Option<usize>, view: Option<View>, message: Message) {
        let epoch = self.replicas[from].agreement.epoch();
        self.wire.push_back(Sending { from, to, epoch, view, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{GENESIS, child};

    fn commit(view: u64, block: Hash) -> Arc<Certificate> {
        let (kind, epoch, view) = (VoteKind::Commit, Epoch::ZERO, View(view));
        Arc::new(Certificate { kind, epoch, view, block, signatures: Vec::new(), highest: None })
    }

    /// Two in the next epoch, one left behind, the fourth silent.
    fn one_left_behind(mutant: Option<Mutant>) -> bool {
        let config = Config { mutant, ..Config::named("live-epoch-end").unwrap() };
        let mut replicas = config.honest().map(|me| Replica::new(&config, me));
        for replica in &mut replicas[1..] {
            replica.take(&config, &commit(1, child(&GENESIS, Epoch::ZERO, View(1), 0)));
            assert!(replica.finalize(&config) && replica.enter_epoch(&config, 1));
        }
        heals(&config, replicas)
    }

    #[test]
    fn one_left_behind_in_the_last_epoch_is_brought_along() {
        assert!(one_left_behind(None));
        assert!(!one_left_behind(Some(Mutant::EpochEndForgotten)));
    }
}
