//! Proposing, judging proposals, committing. Rules W1, P1, P2, P3, P5.

use std::sync::Arc;

use tally_types::{
    Certificate, Hash, Header, Height, Proposal, Seq, Stake, Tip, UnixMillis, VoteKind,
    header::{Executed, HeaderFields},
};

use super::{
    Machine,
    fetching::{Need, Wanted},
};
use crate::{
    chain::{Block, Path},
    config::{BLOCK_BATCHES_MAX, CUT_ADVANCE_MAX},
    event::{Action, Alarm},
    lanes::{Backing, Missing},
    record::Record,
    unsigned::Unsigned,
};

/// What the judgement of a proposal came to.
enum Verdict {
    /// Rules kept, waits over.
    Good,
    /// Not yet.
    Wait,
    /// A rule is broken.
    Invalid,
}

impl Machine {
    // Judging.

    /// Rule P2: PREPAREs the leader's proposal, waits, or gives up on it.
    pub(super) fn judge(&mut self, out: &mut Vec<Action>) {
        let Some((proposal, _)) = self.round.proposal.clone() else { return };
        if !self.signs() || self.agreement.gave_up_here() || self.agreement.sent_prepare().is_some() {
            return;
        }
        match self.verdict(&proposal, out) {
            Verdict::Good => {
                let mut outputs = Vec::new();
                if self.agreement.prepare(proposal.header.hash(), &mut outputs) {
                    self.moves = self.moves.wrapping_add(1);
                }
                self.carry_out(outputs, out);
            }
            Verdict::Wait => {}
            Verdict::Invalid => self.give_up(out),
        }
    }

    fn verdict(&mut self, proposal: &Proposal, out: &mut Vec<Action>) -> Verdict {
        let justification = proposal.justification.as_ref();
        let Some(parent) = self.agreement.parent(proposal.view, justification.map(Arc::as_ref)) else {
            return Verdict::Invalid;
        };
        let Some(parent) = self.chain.block(&parent) else {
            self.need_header(parent, justification);
            return Verdict::Wait;
        };
        let header = &proposal.header;
        // Rule P5: on top of the epoch's last block only that block itself can be proposed again.
        if parent.height == self.last_height() && parent.epoch == self.agreement.epoch() {
            return if header.hash() == parent.hash { Verdict::Good } else { Verdict::Invalid };
        }
        if !self.keeps_rules(proposal, &parent) {
            return Verdict::Invalid;
        }
        self.keep_header(header, out);
        // Durable before it is prepared: one for which there was no room waits for some.
        match !self.chain.knows(&header.hash()) || self.waits_for(header, &parent, out) {
            true => Verdict::Wait,
            false => Verdict::Good,
        }
    }

    /// Rules P2.1 to P2.6, as far as they can be judged for ever.
    fn keeps_rules(&self, proposal: &Proposal, parent: &Block) -> bool {
        let header = &proposal.header;
        let (epoch, set) = (self.agreement.epoch(), self.agreement.set());
        // P2.1: its signature was checked against the key of the view's leader; the header must name that leader.
        // P2.2: it extends exactly the parent.
        let extends = header.parent == parent.hash
            && header.height == parent.height.next()
            && header.epoch == epoch
            && header.view == proposal.view
            && header.proposer == self.leader()
            && header.validators == set.hash()
            && header.cut.len() == set.len();
        if !extends {
            return false;
        }
        // P2.3: each lane stays or advances, within the limit.
        let base = parent.cut_for(epoch, set.len());
        let advances = |(tip, from): (&Tip, &Tip)| {
            tip == from || (tip.seq > from.seq && tip.seq.above(from.seq) <= CUT_ADVANCE_MAX)
        };
        if !header.cut.iter().zip(&base).all(advances) {
            return false;
        }
        let ordered =
            header.cut.iter().zip(&base).fold(0u64, |sum, (tip, from)| sum.saturating_add(tip.seq.above(from.seq)));
        if ordered > BLOCK_BATCHES_MAX {
            return false;
        }
        // P2.4: x stays, or rises. Whether it is final the wait for it shows; the commit certificate sent along is not signed, so
        // what anybody did to it on the way must not count against the leader.
        let executed = header.executed;
        if executed != parent.executed && executed.height <= parent.executed.height {
            return false;
        }
        // P2.5.
        if header.time <= parent.time {
            return false;
        }
        // P2.6: while execution lags by more than the window, lanes stand still.
        if header.height.above(executed.height) > self.config.params.execution_window && header.cut != base {
            return false;
        }
        self.names_next_validators(header, parent)
    }

    /// The header names V_{e+1} once x covers the last block of epoch e−1, and never before; L_e must name it.
    fn names_next_validators(&self, header: &Header, parent: &Block) -> bool {
        let named = header.next_validators;
        if header.height == self.last_height() && named.is_zero() {
            return false;
        }
        if !self.next_is_due(header.executed.height) {
            return named.is_zero();
        }
        if header.executed == parent.executed && parent.epoch == header.epoch && parent.height > Height::ZERO {
            return named == parent.next_validators;
        }
        // Where this replica has not executed that far yet, the wait for x will bring the set.
        self.sets.get(&header.epoch.next()).is_none_or(|set| set.hash() == named) && !named.is_zero()
    }

    fn next_is_due(&self, executed: Height) -> bool {
        match self.agreement.epoch().previous() {
            None => true,
            Some(before) => executed >= self.config.last_height(before),
        }
    }

    /// Rule P2's waits: not yet is never invalid.
    fn waits_for(&mut self, header: &Header, parent: &Block, out: &mut Vec<Action>) -> bool {
        let base = parent.cut_for(header.epoch, header.cut.len());
        // Rule D4. A producer can see to it that all announce different tips, and that this replica knows no link between them:
        // those who hold the lane prepare, and that is word enough.
        let is_vouched_for = self.agreement.is_weakly_prepared(header.hash());
        let mut moved =
            self.agreement.set().places().zip(header.cut.iter().zip(&base)).filter(|(_, (tip, from))| tip != from);
        let mut waits = !is_vouched_for && moved.any(|(place, (tip, _))| !self.lanes.is_available(place, tip));
        if header.executed != parent.executed {
            match self.execution.results.get(&header.executed.height).copied() {
                None => waits = true,
                Some(here) if here != header.executed => {
                    let (height, named) = (header.executed.height, header.executed);
                    self.raise(height, Alarm::StateMismatch { height, here, named }, out);
                    waits = true;
                }
                // Executed here, so final here.
                Some(_) => {}
            }
        }
        waits | (header.time > self.latest_time_for(parent))
    }

    /// The latest time a child of `parent` may have now.
    fn latest_time_for(&self, parent: &Block) -> UnixMillis {
        let drift = self.config.params.max_clock_drift_ms;
        self.now.unix.plus(drift).max(parent.time.next())
    }

    /// When a proposal that waits for its time only may be judged again, in milliseconds of the monotonic clock.
    pub(super) fn proposal_time_due(&self) -> Option<u64> {
        let (proposal, _) = self.round.proposal.as_ref()?;
        let drift = self.config.params.max_clock_drift_ms;
        let early = proposal.header.time.above(self.now.unix.plus(drift));
        (early > 0).then(|| self.now.mono_ms.saturating_add(early))
    }

    // Committing.

    /// Rule P3: COMMITs every prepared block whose headers and payload are here down to the final tip.
    pub(super) fn commit(&mut self, out: &mut Vec<Action>) {
        if !self.signs() {
            return;
        }
        let committable: Vec<_> = self.agreement.committable().collect();
        for (view, block) in committable {
            if self.is_whole_down(&block) {
                let mut outputs = Vec::new();
                self.agreement.send_commit(view, block, &mut outputs);
                self.moves = self.moves.wrapping_add(1);
                self.carry_out(outputs, out);
            }
        }
    }

    /// Whether headers and payload of `block` and of its ancestors not yet final are here, hence durable.
    fn is_whole_down(&mut self, block: &Hash) -> bool {
        match self.chain.path(block) {
            Path::Final => true,
            Path::Conflict => false,
            Path::Missing(hash) => {
                let certificate = self.certificate_for(block);
                self.need_header(hash, certificate.as_ref());
                false
            }
            Path::Open(path) => {
                let mut parent = self.chain.tip().clone();
                let mut whole = true;
                for header in path {
                    let base = parent.cut_for(header.epoch, header.cut.len());
                    whole &= self.is_whole(&header, &base);
                    if let Some(block) = self.chain.block(&header.hash()) {
                        parent = block;
                    }
                }
                whole
            }
        }
    }

    fn is_whole(&mut self, header: &Header, base: &[Tip]) -> bool {
        if self.whole.contains(&header.hash()) {
            return true;
        }
        let whole = self.payload(header, base).is_some();
        if whole {
            self.whole.insert(header.hash());
        }
        whole
    }

    /// Rule D6: the payload of a block, per lane; what is missing is asked for.
    pub(super) fn payload(&mut self, header: &Header, base: &[Tip]) -> Option<Vec<Vec<tally_types::Batch>>> {
        let mut lanes = Vec::with_capacity(header.cut.len());
        let mut whole = true;
        for (place, (tip, from)) in (0u32..).zip(header.cut.iter().zip(base)) {
            match self.lanes.payload(header.epoch, place, tip, from.seq) {
                Ok(batches) => lanes.push(batches),
                Err(Missing::Batch(tip)) => {
                    whole = false;
                    let what = Wanted::Batches { tip, above: from.seq };
                    let holders = self.addresses(self.lanes.announcers(place, &tip));
                    let mut others = self.addresses([header.proposer, place]);
                    // Those of the last epoch serve on: whoever is heard may have it.
                    others.extend(self.peers.keys());
                    self.fetching.needs.insert(tip.digest, Arc::new(Need { what, holders, others }));
                }
                Err(Missing::Misfit) => return None,
            }
        }
        whole.then_some(lanes)
    }

    fn certificate_for(&self, block: &Hash) -> Option<Arc<Certificate>> {
        let commit = self.agreement.commit().into_iter();
        commit.chain(self.agreement.prepared()).find(|certificate| certificate.block == *block).cloned()
    }

    /// Rule S0: a header that a certificate names is fetched from the certificate's signers.
    pub(super) fn need_header(&mut self, hash: Hash, certificate: Option<&Arc<Certificate>>) {
        let holders = match certificate {
            Some(certificate) => {
                let named = if certificate.kind == VoteKind::ViewChange {
                    certificate.highest.as_ref().unwrap_or(certificate)
                } else {
                    certificate
                };
                self.addresses(named.signers())
            }
            None => self.addresses(self.agreement.set().places()),
        };
        let what = Wanted::Header(hash);
        self.fetching.needs.insert(hash, Arc::new(Need { what, holders, others: Vec::new() }));
    }

    // Proposing.

    /// The parent that a proposal of the current view must have, as far as this replica knows.
    fn parent_here(&self) -> Option<(Option<Arc<Certificate>>, Hash)> {
        let justification = self.agreement.justification();
        let parent = self.agreement.parent(self.agreement.view(), justification.as_deref())?;
        Some((justification, parent))
    }

    /// Time of that parent.
    pub(super) fn parent_time(&self) -> Option<UnixMillis> {
        let (_, parent) = self.parent_here()?;
        self.chain.block(&parent).map(|parent| parent.time)
    }

    /// Rule W1: whether there is work on top of `parent`.
    pub(super) fn has_work(&self) -> bool {
        let Some((_, parent)) = self.parent_here() else { return false };
        let Some(parent) = self.chain.block(&parent) else { return true };
        if parent.height == self.last_height() && parent.epoch == self.agreement.epoch() {
            return true;
        }
        let lags = self.chain.last_move(&parent.hash).is_some_and(|last| last > self.chain.tip().executed.height);
        lags || self.lanes_move_on(&parent)
    }

    /// Whether a child of `parent` may move any lane: the first one that moves has a quorum to itself.
    fn lanes_move_on(&self, parent: &Block) -> bool {
        let set = self.agreement.set();
        let cut = parent.cut_for(self.agreement.epoch(), set.len());
        let announced = |(place, tip): (u32, &Tip)| {
            self.lanes.tip_announced_by(place, tip.seq, CUT_ADVANCE_MAX, Backing::Quorum, false).is_some()
        };
        self.may_move(parent, self.next_executed(parent)) && set.places().zip(&cut).any(announced)
    }

    /// Rule P2.6.
    fn may_move(&self, parent: &Block, executed: Executed) -> bool {
        parent.height.next().above(executed.height) <= self.config.params.execution_window
    }

    /// Rules P1, W1: proposes if this replica leads and there is reason enough.
    pub(super) fn propose(&mut self, out: &mut Vec<Action>) {
        let leads = self.agreement.me() == Some(self.leader());
        if !leads || !self.signs() || self.agreement.gave_up_here() || self.round.proposed {
            return;
        }
        let Some((justification, parent)) = self.parent_here() else { return };
        let Some(parent) = self.chain.block(&parent) else {
            self.need_header(parent, justification.as_ref());
            return;
        };
        let Some(header) = self.next_header(&parent) else {
            // What lanes have moved since the last final block shows in its ancestors.
            if let Path::Missing(hash) = self.chain.path(&parent.hash) {
                self.need_header(hash, justification.as_ref());
            }
            return;
        };
        let (epoch, view) = (self.agreement.epoch(), self.agreement.view());
        self.keep_header(&header, out);
        let (block, record_justification) = (header.hash(), justification.clone());
        self.persist(Record::Proposed { epoch, view, block, justification: record_justification }, out);
        let highest_commit = self.highest_commit.clone();
        let proposal = Unsigned::Proposal { epoch, view, header, justification, highest_commit };
        self.round.own_proposal = Some(proposal.clone());
        self.round.proposed = true;
        self.moves = self.moves.wrapping_add(1);
        out.push(Action::Sign(proposal));
    }

    /// The header to propose on `parent` now; none: not yet.
    fn next_header(&self, parent: &Block) -> Option<Header> {
        let now = self.now.mono_ms;
        let waited = now.saturating_sub(self.round.entered_ms);
        let half = self.view_timeout_ms().checked_div(2).unwrap_or_default();
        let worked = self.round.work_since_ms.map(|since| now.saturating_sub(since.max(self.round.entered_ms)));
        let half_over = worked.is_some_and(|worked| worked >= half);
        if parent.height == self.last_height() && parent.epoch == self.agreement.epoch() {
            // Rule P5.
            return parent.header().filter(|_| half_over).cloned();
        }
        let interval = self.config.block_interval_ms;
        let paced = waited >= interval || self.now.unix >= parent.time.plus(interval);
        let late = half_over || waited >= self.config.params.idle_interval_ms;
        // Asked on every turn of a leader: nothing needs to be counted before its time.
        if !paced && !late {
            return None;
        }
        let (epoch, set) = (self.agreement.epoch(), self.agreement.set());
        let executed = self.next_executed(parent);
        let (mut cut, mut moves) = self.next_cut(parent, executed, Backing::Quorum, false);
        let last_move = self.chain.last_move(&parent.hash)?;
        let covers = executed.height >= last_move && parent.executed.height < last_move;
        // A tip held here that only a weak quorum announced is work as well, after half the propose timeout; but not right after
        // a view that failed: others may hear nothing of that tip, if a validator says to each what it likes.
        let after_failure = self.agreement.entry().is_some_and(|entry| entry.kind == VoteKind::ViewChange);
        if waited >= half && !after_failure {
            let (weak_cut, weak_moves) = self.next_cut(parent, executed, Backing::WeakQuorum, true);
            if weak_moves && !moves {
                (cut, moves) = (weak_cut, weak_moves);
            }
        }
        if !late && !moves && !covers {
            return None;
        }
        let height = parent.height.next();
        let next = match self.next_is_due(executed.height) {
            false => Hash::ZERO,
            // As the parent named them: this replica may not have executed that far itself.
            true if executed == parent.executed && parent.epoch == epoch && parent.height > Height::ZERO => {
                parent.next_validators
            }
            true => self.sets.get(&epoch.next())?.hash(),
        };
        if height == self.last_height() && next.is_zero() {
            return None;
        }
        let time = self.now.unix.max(parent.time.next());
        Some(Header::new(HeaderFields {
            epoch,
            height,
            view: self.agreement.view(),
            parent: parent.hash,
            proposer: self.leader(),
            time,
            cut,
            executed,
            validators: set.hash(),
            next_validators: next,
        }))
    }

    /// The cut a child of `parent` may have by what `backing` announced, and whether it moves.
    fn next_cut(&self, parent: &Block, executed: Executed, backing: Backing, held_only: bool) -> (Vec<Tip>, bool) {
        let (epoch, set) = (self.agreement.epoch(), self.agreement.set());
        let cut = parent.cut_for(epoch, set.len());
        if !self.may_move(parent, executed) {
            return (cut, false);
        }
        // The lane that has waited longest comes first: whoever knows of which lanes, and whoever leads when, none is left out for
        // long. Those that have waited alike take turns.
        let count = u64::try_from(set.len()).unwrap_or(u64::MAX);
        let first = usize::try_from(parent.height.0.checked_rem(count).unwrap_or_default()).unwrap_or_default();
        let moved = self.chain.lanes_moved(parent, epoch, set.len());
        let mut order: Vec<u32> = set.places().cycle().skip(first).take(set.len()).collect();
        order.sort_by_key(|place| usize::try_from(*place).ok().and_then(|at| moved.get(at)).copied());
        let next = self.lanes.advance(&cut, &order, backing, held_only);
        let moves = next != cut;
        (next, moves)
    }

    /// Rule P1: the highest height that a quorum announced executed, at most this replica's own; else the parent's.
    fn next_executed(&self, parent: &Block) -> Executed {
        let set = self.agreement.set();
        let done = self.execution.done;
        let mut reached: Vec<(Height, u32)> = Vec::with_capacity(set.len());
        for (place, member) in set.places().zip(set.members()) {
            let announced = match Some(member.address) == self.config.me {
                true => done,
                false => self.peers.get(&member.address).map_or(Height::ZERO, |peer| peer.executed),
            };
            reached.push((announced, place));
        }
        reached.sort_by(|one, two| two.cmp(one));
        let mut sum = Stake::ZERO;
        let mut height = Height::ZERO;
        for (announced, place) in reached {
            sum = Stake(sum.0.saturating_add(set.stake(place).0));
            if sum >= set.quorum() {
                height = announced.min(done);
                break;
            }
        }
        let result = self.execution.results.get(&height).filter(|_| height > parent.executed.height);
        result.copied().unwrap_or(parent.executed)
    }

    /// Rules D1, D5: seals own batches that are due.
    pub(super) fn seal(&mut self, out: &mut Vec<Action>) {
        if !self.signs() {
            return;
        }
        while self.lanes.seal_due(self.config.batch_delay_ms).is_some_and(|due| due <= self.now.mono_ms) {
            let Some(batch) = self.lanes.seal(self.now.mono_ms) else { return };
            self.persist(Record::Sealed(batch.clone()), out);
            self.have.dirty = true;
            self.moves = self.moves.wrapping_add(1);
            out.push(Action::Sign(Unsigned::Batch(batch)));
        }
    }

    /// Sequence above which a peer's knowledge of this replica's lane ends.
    pub(super) fn own_tip_seq(&self) -> Seq {
        self.lanes.own_tip().seq
    }
}
