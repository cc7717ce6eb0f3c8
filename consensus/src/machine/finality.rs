//! From a commit certificate to final blocks, execution, and the next epoch. Rules P4, P5, S3.

use tally_types::{Epoch, Hash, Header, Tip, ValidatorSet, header::Executed};

use super::{Machine, Round};
use crate::{
    agreement::Agreement,
    chain::Path,
    config::{EXECUTE_AHEAD, Voting},
    event::{Action, Alarm, Order},
    record::Record,
    verify::Sets,
};

impl Machine {
    /// Rule P4: the block of the highest commit certificate and all its ancestors are final.
    pub(super) fn finalize(&mut self, out: &mut Vec<Action>) {
        let Some(commit) = self.agreement.commit().cloned() else { return };
        match self.chain.path(&commit.block) {
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
                        self.close(&header);
                    }
                }
                self.moves = self.moves.wrapping_add(1);
                self.fetching.lag_since_ms = None;
                self.release();
            }
            Path::Missing(hash) => {
                let far = self
                    .chain
                    .header(&commit.block)
                    .is_none_or(|header| header.height.above(self.chain.tip_height()) > 4);
                if hash == commit.block || !far {
                    self.need_header(hash, Some(&commit));
                } else {
                    self.fetching.behind = true;
                }
            }
            Path::Final | Path::Conflict => {}
        }
    }

    /// Rule P5: with its last block final, nothing more is signed in this epoch.
    fn close(&mut self, last: &Header) {
        self.closing = true;
        // seed_{e+2} is the hash of L_e.
        self.seeds.insert(Epoch(last.epoch.0.saturating_add(2)), last.hash());
    }

    /// Gives final blocks out for execution, in order, as soon as their payload is here.
    pub(super) fn execute(&mut self, out: &mut Vec<Action>) {
        while let Some((header, base, commit)) = self.execution.queue.front().cloned() {
            if header.height.above(self.execution.done) > EXECUTE_AHEAD {
                return;
            }
            if header.height <= self.execution.covered {
                // The snapshot holds what it led to, and the journal says so in its turn.
                if self.execution.done < header.height {
                    return;
                }
                let digests = self.digests_held(&header, &base);
                self.execution.unreleased.push_back((header.height, digests));
                self.execution.queue.pop_front();
                continue;
            }
            let Some(lanes) = self.payload(&header, &base) else {
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

    /// Digests of the batches of a block that are held here.
    fn digests_held(&self, header: &Header, base: &[Tip]) -> Vec<Hash> {
        let chains = header.cut.iter().zip(base).map(|(tip, from)| self.lookup_batches(tip, from.seq, usize::MAX));
        chains.flatten().map(|batch| batch.digest()).collect()
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
            self.persist(Record::Validators(epoch, validators.clone()), out);
            self.learn_validators(epoch, validators, out);
        }
        self.persist(Record::Executed(executed), out);
        self.note_executed(executed);
        self.have.dirty = true;
        if let Some(named) = self.chain.tip().header.map(|tip| tip.executed).filter(|x| x.height == executed.height) {
            self.check_roots(named, out);
        }
    }

    pub(super) fn note_executed(&mut self, executed: Executed) {
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
    fn check_roots(&self, named: Executed, out: &mut Vec<Action>) {
        if let Some(here) = self.execution.results.get(&named.height).filter(|here| **here != named) {
            out.push(Action::Alarm(Alarm::StateMismatch { height: named.height, here: *here, named }));
        }
    }

    /// Rule S3: batches go once ordered, executed and under a certified root; results once no header can name them.
    fn release(&mut self) {
        let certified = self.chain.tip().executed.height;
        let gone = certified.min(self.execution.done);
        while self.execution.unreleased.front().is_some_and(|(height, _)| *height <= gone) {
            if let Some((_, digests)) = self.execution.unreleased.pop_front() {
                self.lanes.release(&digests);
            }
        }
        self.execution.results = self.execution.results.split_off(&certified);
    }

    /// Rule P5: enters the next epoch once its validators are known, that is once L_{e−1} is executed here.
    pub(super) fn enter_epoch(&mut self, out: &mut Vec<Action>) {
        let tip = self.chain.tip();
        let epoch = self.agreement.epoch().next();
        let Some(commit) = self.agreement.commit().filter(|commit| self.closing && commit.block == tip.hash).cloned()
        else {
            return;
        };
        let Some(set) = self.sets.get(&epoch).cloned() else { return };
        if let Voting::From(Some(from)) = self.voting
            && epoch >= from
        {
            self.voting = Voting::Allowed;
        }
        let place = || set.place_of(&self.config.me?);
        let me = if self.voting == Voting::Allowed { place() } else { None };
        let needed = self.execution.unreleased.iter().flat_map(|(_, digests)| digests.iter().copied());
        let mut keep: Vec<Hash> = needed.collect();
        let queued: Vec<_> =
            self.execution.queue.iter().map(|(header, base, _)| (header.clone(), base.clone())).collect();
        for (header, base) in queued {
            keep.extend(self.digests_held(&header, &base));
        }
        self.agreement = Agreement::new(epoch, set.clone(), me, tip.hash, Some(commit));
        self.lanes.next_epoch(epoch, set, me, &keep, self.now.mono_ms);
        self.closing = false;
        self.whole.clear();
        self.round = Round::default();
        self.start_round();
        let oldest = Epoch(epoch.0.saturating_sub(1));
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
