//! From a commit certificate to final blocks, execution, and the next epoch. Rules P4, P5, S3.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tally_types::{Batch, Certificate, Epoch, Hash, Header, Height, Seq, Tip, ValidatorSet, header::Executed};

use super::{Machine, Round};
use crate::{
    agreement::Agreement,
    chain::Path,
    config::{EXECUTE_AHEAD, LANE_WINDOW, Voting},
    event::{Action, Alarm, Order},
    lanes::Missing,
    record::Record,
    verify::Sets,
};

impl Machine {
    /// Rule P4: the block of the highest commit certificate and all its ancestors are final.
    pub(super) fn finalize(&mut self, out: &mut Vec<Action>) {
        for lower in std::mem::take(&mut self.lower_commits) {
            self.finalize_by(&lower, out);
            if !self.chain.is_final(&lower.block) {
                self.lower_commits.push(lower);
            }
        }
        if let Some(commit) = self.agreement.commit().cloned() {
            self.finalize_by(&commit, out);
        }
    }

    fn finalize_by(&mut self, commit: &Arc<Certificate>, out: &mut Vec<Action>) {
        match self.chain.path(&commit.block) {
            // Rule P5: no honest quorum goes past the last block of its epoch.
            Path::Open(path) if path.last().is_some_and(|end| end.height > self.last_height()) => {}
            Path::Open(path) => {
                for header in path {
                    let own = (header.hash() == commit.block).then(|| commit.clone());
                    let base = self.chain.tip().cut_for(header.epoch, header.cut.len());
                    self.chain.finalize(&header);
                    self.lanes.ordered(&header.cut);
                    self.check_roots(header.executed, out);
                    self.execution.queue.push_back((header.clone(), base, own));
                    self.whole.remove(&header.hash());
                    if header.height == self.last_height() {
                        self.close(&header, commit);
                    }
                }
                self.moves = self.moves.wrapping_add(1);
                self.fetching.lag_since_ms = None;
                // Of blocks that lost against these nothing is asked any more.
                self.whole.retain(|hash| !self.chain.is_final(hash) && self.chain.knows(hash));
                self.release();
            }
            Path::Missing(hash) => {
                let far = self
                    .chain
                    .header(&commit.block)
                    .is_none_or(|header| header.height.above(self.chain.tip_height()) > 4);
                if hash == commit.block || !far {
                    self.need_header(hash, Some(commit));
                } else {
                    self.fetching.behind = true;
                }
            }
            Path::Final | Path::Conflict => {}
        }
    }

    /// Rule P5: with its last block final, nothing more is signed in this epoch.
    fn close(&mut self, last: &Header, commit: &Arc<Certificate>) {
        self.closing = Some(commit.clone());
        self.agreement.close();
        // seed_{e+2} is the hash of L_e.
        self.seeds.insert(self.agreement.epoch().next().next(), last.hash());
    }

    /// Gives final blocks out for execution, in order, as soon as their payload is here.
    pub(super) fn execute(&mut self, out: &mut Vec<Action>) {
        while let Some((header, base, commit)) = self.execution.queue.front().cloned() {
            if header.height.above(self.execution.done) > EXECUTE_AHEAD {
                return self.note_payload_gap(None);
            }
            if header.height <= self.execution.covered {
                self.execution.done = header.height;
                self.execution.issued = header.height;
                self.moves = self.moves.wrapping_add(1);
                let digests = self.digests_held(&header, &base);
                self.execution.unreleased.push_back((header.height, digests));
                self.execution.queue.pop_front();
                continue;
            }
            let Some(lanes) = self.payload(&header, &base) else {
                if self.is_misfit(&header, &base) {
                    self.raise(header.height, Alarm::PayloadMismatch { height: header.height }, out);
                }
                return self.note_payload_gap(Some(header.height));
            };
            let Some(validators) = self.sets.get(&header.epoch).cloned() else { return };
            let digests: Vec<Hash> = lanes.iter().flatten().map(|batch| batch.digest()).collect();
            self.execution.unreleased.push_back((header.height, digests));
            self.execution.issued = header.height;
            self.execution.queue.pop_front();
            out.push(Action::Execute(Box::new(Order { header, commit, validators, lanes })));
        }
        self.note_payload_gap(None);
    }

    /// The batches of a block that are held here, in each lane down from the highest to the first that is missing.
    pub(super) fn batches_held(&self, header: &Header, base: &[Tip]) -> Vec<Batch> {
        let chains = header.cut.iter().zip(base).map(|(tip, from)| self.lookup_batches(tip, from.seq, usize::MAX));
        chains.flatten().collect()
    }

    fn digests_held(&self, header: &Header, base: &[Tip]) -> Vec<Hash> {
        self.batches_held(header, base).iter().map(Batch::digest).collect()
    }

    pub(super) fn on_executed(&mut self, executed: Executed, validators: ValidatorSet, out: &mut Vec<Action>) {
        if executed.height != self.execution.done.next() {
            return;
        }
        let epoch_ended = (0..=1)
            .map(|back| Epoch(self.agreement.epoch().0.saturating_sub(back)))
            .find(|epoch| self.config.last_height(*epoch) == executed.height);
        if let Some(ended) = epoch_ended {
            // V_{e+2} is who votes by the state after L_e.
            let epoch = Epoch(ended.0.saturating_add(2));
            self.record_execution(executed.height, Record::Validators(epoch, validators.clone()), out);
            self.learn_validators(epoch, validators, out);
        }
        self.record_execution(executed.height, Record::Executed(executed), out);
        self.note_executed(executed);
        self.have.dirty = true;
        if let Some(named) = self.chain.tip().header().map(|tip| tip.executed).filter(|x| x.height == executed.height) {
            self.check_roots(named, out);
        }
    }

    /// What is executed while the journal is taken back may not stand in it: then it is written when that ends.
    fn record_execution(&mut self, height: Height, record: Record, out: &mut Vec<Action>) {
        if self.replaying {
            self.execution.unrecorded.push_back((height, record));
        } else {
            self.persist(record, out);
        }
    }

    /// Whether a batch of the block belongs elsewhere.
    fn is_misfit(&self, header: &Header, base: &[Tip]) -> bool {
        let lanes = (0u32..).zip(header.cut.iter().zip(base));
        let mut payloads = lanes.map(|(place, (tip, from))| self.lanes.payload(header.epoch, place, tip, from.seq));
        payloads.any(|payload| payload == Err(Missing::Misfit))
    }

    /// Raises an alarm, once per height.
    pub(super) fn raise(&mut self, height: Height, alarm: Alarm, out: &mut Vec<Action>) {
        if self.execution.alarmed != Some(height) {
            self.execution.alarmed = Some(height);
            out.push(Action::Alarm(alarm));
        }
    }

    fn note_executed(&mut self, executed: Executed) {
        self.execution.done = executed.height;
        self.execution.issued = self.execution.issued.max(executed.height);
        self.execution.results.insert(executed.height, executed);
        self.moves = self.moves.wrapping_add(1);
        self.release();
    }

    pub(super) fn learn_validators(&mut self, epoch: Epoch, validators: ValidatorSet, out: &mut Vec<Action>) {
        self.sets.insert(epoch, validators);
        self.tell_sets(out);
    }

    /// A final header's roots are those of this replica, or an operator must know.
    fn check_roots(&mut self, named: Executed, out: &mut Vec<Action>) {
        let here = self.execution.results.get(&named.height).copied();
        if let Some(here) = here.filter(|here| *here != named) {
            self.raise(named.height, Alarm::StateMismatch { height: named.height, here, named }, out);
        }
    }

    /// Rule S3: batches go once ordered, executed and under a certified root; results once no header can name them.
    pub(super) fn release(&mut self) {
        let certified = self.chain.tip().executed.height;
        let gone = certified.min(self.execution.done);
        while self.execution.unreleased.front().is_some_and(|(height, _)| *height <= gone) {
            if let Some((_, digests)) = self.execution.unreleased.pop_front() {
                self.lanes.release(&digests);
            }
        }
        self.execution.results = self.execution.results.split_off(&certified);
        self.prune_held();
    }

    /// Batches that were fetched for blocks which never became final, or lie on a chain that was not ordered, go when
    /// there are more than the lanes account for.
    fn prune_held(&mut self) {
        let lanes = self.agreement.set().len();
        let due = usize::try_from(LANE_WINDOW.saturating_mul(4)).unwrap_or(usize::MAX).saturating_mul(lanes);
        if self.lanes.held_count() <= due.saturating_add(self.execution.queue.len().saturating_mul(lanes)) {
            return;
        }
        let mut keep: BTreeSet<Hash> = self.lanes.accepted().collect();
        keep.extend(self.needed_by_final_blocks());
        for header in self.chain.open() {
            let Some(parent) = self.chain.block(&header.parent) else { continue };
            keep.extend(self.digests_held(header, &parent.cut_for(header.epoch, header.cut.len())));
        }
        self.lanes.keep_only(&keep);
    }

    /// Digests that blocks final here may still be executed from, or served from. Of those that wait, whatever lies in the span
    /// they order: where one batch is still missing, nothing shows which of those below it belong to them.
    fn needed_by_final_blocks(&self) -> BTreeSet<Hash> {
        let given_out = self.execution.unreleased.iter().flat_map(|(_, digests)| digests.iter().copied());
        let mut spans: BTreeMap<(Epoch, u32), (Seq, Seq)> = BTreeMap::new();
        for (header, base, _) in &self.execution.queue {
            for (place, (tip, from)) in (0u32..).zip(header.cut.iter().zip(base)) {
                spans.entry((header.epoch, place)).or_insert((from.seq, tip.seq)).1 = tip.seq;
            }
        }
        given_out.chain(self.lanes.held_within(&spans)).collect()
    }

    /// Rule P5: enters the next epoch once its validators are known, that is once L_{e−1} is executed here.
    pub(super) fn enter_epoch(&mut self, out: &mut Vec<Action>) {
        let tip = self.chain.tip();
        let epoch = self.agreement.epoch().next();
        let Some(closing) = &self.closing else { return };
        // A higher one for the same block, if there is one.
        let commit = self.agreement.commit().filter(|commit| commit.block == tip.hash).unwrap_or(closing).clone();
        let Some(set) = self.sets.get(&epoch).cloned() else { return };
        if let Voting::From(Some(from)) = self.voting
            && epoch >= from
        {
            self.voting = Voting::Allowed;
        }
        let place = || set.place_of(&self.config.me?);
        let me = if self.voting == Voting::Allowed { place() } else { None };
        let keep = self.needed_by_final_blocks();
        self.agreement = Agreement::new(epoch, set.clone(), me, tip.hash, Some(commit));
        self.lanes.next_epoch(epoch, set, me, &keep, self.now.mono_ms);
        self.closing = None;
        self.lower_commits.clear();
        self.chain.begin_epoch(epoch);
        self.whole.clear();
        self.round = Round::default();
        self.start_round();
        // A block that waits for its payload is executed, and proven by those who give it, by the validators of its own epoch.
        let waiting = self.execution.queue.front().map_or(epoch, |(header, _, _)| header.epoch);
        let oldest = Epoch(epoch.0.saturating_sub(1)).min(waiting);
        self.sets = self.sets.split_off(&oldest);
        self.seeds = self.seeds.split_off(&oldest);
        self.have.dirty = true;
        self.moves = self.moves.wrapping_add(1);
        self.tell_sets(out);
        if let Some(ahead) = self.ahead.take_if(|ahead| ahead.epoch <= epoch) {
            self.on_certificate(&ahead, out);
        }
    }

    pub(super) fn tell_sets(&self, out: &mut Vec<Action>) {
        let known = self.sets.iter().filter_map(|(epoch, set)| Some((*epoch, set.clone(), *self.seeds.get(epoch)?)));
        out.push(Action::Sets(Sets(known.collect())));
    }
}
