//! Messages of peers, and this replica's own coming back signed.

use std::sync::Arc;

use tally_types::{
    Address, Certificate, Epoch, Have, Proposal, SignedBatch, Tip, View, batch::signed_bytes as batch_signed_bytes,
};

use super::{Machine, Peer};
use crate::{
    config::RESTREAM_BATCHES,
    event::{Action, Message, Reject},
    evidence::{Evidence, EvidenceKind},
    lanes::Accept,
    record::Record,
};

impl Machine {
    pub(super) fn on_message(&mut self, from: Address, message: Message, out: &mut Vec<Action>) {
        if !self.sets.values().any(|set| set.place_of(&from).is_some()) {
            return out.push(Action::Dropped(Reject::Stranger));
        }
        let now = self.now.mono_ms;
        let peer = self.peers.entry(from).or_default();
        peer.heard_ms = now;
        peer.missed_views = 0;
        self.round.heard.insert(from);
        if let Some((epoch, view)) = place_of(&message) {
            let here = (self.agreement.epoch(), self.agreement.view());
            if (epoch, view) < here {
                self.answer(from, out);
            }
        }
        if let Message::Have(have) = &message {
            return self.on_have(from, have, out);
        }
        self.take(message, out);
    }

    pub(super) fn on_own(&mut self, message: Message, out: &mut Vec<Action>) {
        if let Message::Batch(batch) = &message {
            return self.lanes.own_signed(batch);
        }
        self.take(message, out);
    }

    fn take(&mut self, message: Message, out: &mut Vec<Action>) {
        let mut outputs = Vec::new();
        match message {
            Message::Proposal(proposal) => self.on_proposal(proposal, out),
            Message::Vote(vote) => self.agreement.on_vote(&vote, &mut outputs),
            Message::ViewChange(change) => self.agreement.on_view_change(&change, &mut outputs),
            Message::Batch(batch) => self.on_batch(batch, out),
            Message::Have(have) => {
                if let Some(me) = self.config.me {
                    self.on_have(me, &have, out);
                }
            }
            Message::Certificates { entry, highest_commit } => {
                for certificate in highest_commit.iter().chain(&entry) {
                    self.on_certificate(certificate, out);
                }
            }
        }
        self.carry_out(outputs, out);
    }

    /// Rule V4: a message of a lower epoch or view is answered, once per peer and resend interval.
    fn answer(&mut self, to: Address, out: &mut Vec<Action>) {
        let (now, interval) = (self.now.mono_ms, self.config.resend_ms);
        let peer = self.peers.entry(to).or_default();
        if peer.answered_ms.is_some_and(|last| now.saturating_sub(last) < interval) {
            return;
        }
        peer.answered_ms = Some(now);
        out.push(Action::Send(to, self.certificates()));
    }

    /// What moves a replica that stayed behind.
    pub(super) fn certificates(&self) -> Message {
        Message::Certificates { entry: self.agreement.entry().cloned(), highest_commit: self.highest_commit.clone() }
    }

    pub(super) fn on_ahead(&mut self, from: Address, out: &mut Vec<Action>) {
        if !self.sets.values().any(|set| set.place_of(&from).is_some()) {
            return out.push(Action::Dropped(Reject::Stranger));
        }
        let now = self.now.mono_ms;
        let peer = self.peers.entry(from).or_default();
        peer.heard_ms = now;
        peer.far_ahead = true;
    }

    /// Rule V4, for an epoch so old that its messages cannot be judged any more.
    pub(super) fn on_behind(&mut self, from: Address, out: &mut Vec<Action>) {
        if !self.sets.values().any(|set| set.place_of(&from).is_some()) {
            return out.push(Action::Dropped(Reject::Stranger));
        }
        self.peers.entry(from).or_default().heard_ms = self.now.mono_ms;
        self.answer(from, out);
    }

    /// A peer that reconnects may have missed anything: it gets the certificates, and the lane from where it stands.
    pub(super) fn on_connected(&mut self, peer: Address, out: &mut Vec<Action>) {
        out.push(Action::Send(peer, self.certificates()));
        self.stream_again(peer, out);
    }

    /// Rule D1: sends a peer the batches of this replica's lane that it has not announced.
    pub(super) fn stream_again(&self, peer: Address, out: &mut Vec<Action>) {
        let Some(place) = self.agreement.set().place_of(&peer) else { return };
        let announced = self.lanes.announced_of_own(place);
        for batch in self.lanes.own_after(announced.seq, RESTREAM_BATCHES) {
            out.push(Action::Send(peer, Message::Batch(batch)));
        }
    }

    fn on_proposal(&mut self, proposal: Arc<Proposal>, out: &mut Vec<Action>) {
        for certificate in proposal.highest_commit.iter().chain(&proposal.justification) {
            self.on_certificate(certificate, out);
        }
        if proposal.epoch != self.agreement.epoch() {
            return out.push(Action::Dropped(Reject::OtherEpoch));
        }
        if proposal.view < self.agreement.view() {
            return out.push(Action::Dropped(Reject::Old));
        }
        let parent = self.agreement.parent(proposal.view, proposal.justification.as_deref());
        if proposal.view > self.agreement.view() || parent.is_none() {
            // Its justification would have moved this replica into its view.
            return out.push(Action::Dropped(Reject::NotLeader));
        }
        match &self.round.proposal {
            Some((known, _)) if known.header.hash() != proposal.header.hash() => {
                let known = known.clone();
                self.convict_of_two_proposals(&known, &proposal, out);
                // Rule V2: a second proposal of the leader.
                self.give_up(out);
            }
            Some(_) => {}
            None => {
                self.round.proposal = Some((proposal, self.now.mono_ms));
                self.moves = self.moves.wrapping_add(1);
            }
        }
    }

    fn convict_of_two_proposals(&self, first: &Proposal, second: &Proposal, out: &mut Vec<Action>) {
        let Some(member) = self.agreement.set().get(self.leader_of(first.view)) else { return };
        let signed = |proposal: &Proposal| (proposal.signed_bytes(&self.config.genesis_hash), proposal.signature);
        out.push(Action::Evidence(Box::new(Evidence {
            validator: member.address,
            kind: EvidenceKind::DoubleProposal,
            epoch: first.epoch,
            number: first.view.0,
            first: signed(first),
            second: signed(second),
        })));
    }

    fn on_batch(&mut self, signed: SignedBatch, out: &mut Vec<Action>) {
        let (epoch, lane, seq) = (signed.batch.epoch(), signed.batch.lane(), signed.batch.seq());
        let second = signed.clone();
        match self.lanes.accept(signed) {
            Accept::Accepted(batches) => {
                for accepted in batches {
                    // Rule D3: durable, then announced.
                    self.persist(Record::Accepted(accepted.batch, accepted.signature), out);
                }
                self.have.dirty = true;
                self.moves = self.moves.wrapping_add(1);
            }
            Accept::Known => {}
            Accept::Dropped(reject) => out.push(Action::Dropped(reject)),
            Accept::Contradicts(digest, signature) => {
                let Some(member) = self.agreement.set().get(lane) else { return };
                let genesis = &self.config.genesis_hash;
                // The first one's content may be gone by now; its digest is all that was signed.
                let first = batch_signed_bytes(genesis, epoch, &member.address, &Tip { seq, digest });
                out.push(Action::Evidence(Box::new(Evidence {
                    validator: member.address,
                    kind: EvidenceKind::DoubleBatch,
                    epoch,
                    number: seq.0,
                    first: (first, signature),
                    second: (second.batch.signed_bytes(genesis, &member.address), second.signature),
                })));
            }
        }
    }

    fn on_have(&mut self, from: Address, have: &Arc<Have>, out: &mut Vec<Action>) {
        let vector = &have.vector;
        let set = self.sets.get(&vector.epoch);
        let Some(address) = set.and_then(|set| set.get(have.signer)).map(|member| member.address) else {
            return out.push(Action::Dropped(Reject::Stranger));
        };
        let peer: &mut Peer = self.peers.entry(address).or_default();
        let counter = (vector.epoch, vector.counter);
        if peer.have_counter.is_some_and(|last| counter <= last) {
            return out.push(Action::Dropped(Reject::OldHave));
        }
        peer.have_counter = Some(counter);
        if from == address {
            peer.own_epoch = Some(vector.epoch);
        }
        peer.executed = peer.executed.max(vector.executed);
        peer.final_height = vector.final_height;
        peer.far_ahead = false;
        if vector.epoch == self.agreement.epoch() {
            if vector.tips.len() != self.agreement.set().len() {
                return out.push(Action::Dropped(Reject::Shape));
            }
            self.lanes.announce(have.signer, &vector.tips);
        }
        self.learn_epoch();
        self.moves = self.moves.wrapping_add(1);
    }

    /// Rule R3: a replica without its journal signs nothing until two epochs after the highest a quorum speaks of, each for
    /// itself: what others pass on may be old. While somebody speaks of epochs unknown here, this replica is still behind. That it
    /// takes one to say so is needed: what a quorum said may be old as well, and the first to contradict it is right.
    fn learn_epoch(&mut self) {
        if self.voting != crate::config::Voting::From(None) {
            return;
        }
        let set = self.agreement.set();
        let heard = set.places().filter(|place| {
            let address = set.get(*place).map(|member| member.address);
            address.is_some_and(|address| self.peers.get(&address).is_some_and(|peer| peer.own_epoch.is_some()))
        });
        if set.stake_of(heard) >= set.quorum() && self.peers.values().all(|peer| !peer.far_ahead) {
            let highest = self.peers.values().filter_map(|peer| peer.own_epoch).max().unwrap_or_default();
            self.voting = crate::config::Voting::From(Some(highest.plus(2)));
            self.fetching.voting_changed = true;
        }
    }

    pub(super) fn give_up(&mut self, out: &mut Vec<Action>) {
        if self.signs() {
            let mut outputs = Vec::new();
            self.agreement.give_up(&mut outputs);
            self.carry_out(outputs, out);
        }
    }
}

/// Epoch and view a message speaks of, where lower ones are answered.
fn place_of(message: &Message) -> Option<(Epoch, View)> {
    let of = |certificate: &Arc<Certificate>| (certificate.epoch, certificate.view.next());
    match message {
        Message::Proposal(proposal) => Some((proposal.epoch, proposal.view)),
        // A COMMIT may come after its view without its sender being behind.
        Message::Vote(vote) if vote.kind == tally_types::VoteKind::Commit => None,
        Message::Vote(vote) => Some((vote.epoch, vote.view)),
        Message::ViewChange(change) => Some((change.epoch, change.view)),
        Message::Have(have) => Some((have.vector.epoch, have.vector.view)),
        Message::Certificates { entry: Some(entry), .. } => Some(of(entry)),
        Message::Certificates { entry: None, .. } => Some((Epoch::ZERO, View(1))),
        Message::Batch(_) => None,
    }
}
