//! After a restart: taking the journal back. Rule R1.

use std::sync::Arc;

use tally_types::Epoch;

use super::Machine;
use crate::{
    config::Voting,
    event::{Action, Now},
    record::{Record, ReplayError},
    unsigned::Unsigned,
};

impl Machine {
    /// Takes back one record of an earlier run, in the journal's order. The only actions it puts out are
    /// [`Action::Execute`], for blocks above the snapshot, and [`Action::Sets`].
    ///
    /// A record of an epoch that the journal does not lead to is an error: something before it is missing.
    pub fn replay(&mut self, record: Record, out: &mut Vec<Action>) -> Result<(), ReplayError> {
        let epoch = self.agreement.epoch();
        let found = match &record {
            Record::Certificate(certificate) => certificate.epoch,
            Record::Proposed { epoch, .. } | Record::Prepared { epoch, .. } | Record::ViewChanged { epoch, .. } => {
                *epoch
            }
            _ => epoch,
        };
        if found > epoch {
            return Err(ReplayError { expected: epoch, found });
        }
        match record {
            Record::Certificate(certificate) => self.on_certificate(&certificate, out),
            Record::Header(header) => {
                self.keep_header(&header, out);
            }
            Record::Accepted(batch, signature) => self.lanes.replay_accepted(&batch, Some(signature)),
            Record::Sealed(batch) => self.lanes.replay_sealed(&batch),
            Record::Stored(batch) => {
                self.lanes.store(&batch);
            }
            Record::Proposed { epoch: of, view, block, justification } => {
                if of == epoch && view == self.agreement.view() {
                    self.round.proposed = true;
                    let header = self.chain.header(&block).cloned();
                    let highest_commit = self.highest_commit.clone();
                    self.round.own_proposal =
                        header.map(|header| Unsigned::Proposal { epoch, view, header, justification, highest_commit });
                }
            }
            Record::Prepared { epoch: of, view, block } if of == epoch => self.agreement.replay_prepare(view, block),
            Record::ViewChanged { epoch: of, view, highest } if of == epoch => {
                self.agreement.replay_view_change(view, highest);
            }
            // Votes of an epoch that is over.
            Record::Prepared { .. } | Record::ViewChanged { .. } => {}
            Record::Observing(from) => self.observe(from),
            Record::Executed(executed) => {
                if executed.height <= self.execution.covered {
                    self.execution.results.insert(executed.height, executed);
                    self.release();
                }
                while self.execution.unrecorded.front().is_some_and(|(height, _)| *height <= executed.height) {
                    self.execution.unrecorded.pop_front();
                }
            }
            Record::Validators(epoch, set) => self.learn_validators(epoch, set, out),
            Record::Incarnation(number) => self.have.counter = number.saturating_mul(1 << 32),
        }
        self.advance(out);
        Ok(())
    }

    /// Rule R3: from here on this replica signs nothing, in this epoch and those before `from`.
    fn observe(&mut self, from: Option<Epoch>) {
        let over = from.is_some_and(|from| from <= self.agreement.epoch());
        if !over && !self.restored {
            self.voting = Voting::From(from);
            self.agreement.close();
            self.lanes.observe();
        }
    }

    /// Begins to take part, after the last record. Puts out what was signed before and may not have arrived.
    pub fn resume(&mut self, now: Now, out: &mut Vec<Action>) {
        self.now = now;
        self.replaying = false;
        let incarnation = self.have.counter.checked_shr(32).unwrap_or_default().saturating_add(1);
        self.open_incarnation(incarnation, out);
        for (_, record) in std::mem::take(&mut self.execution.unrecorded) {
            self.persist(record, out);
        }
        self.start_round();
        self.round.resend_at_ms = now.mono_ms;
        self.have.dirty = true;
        if let Voting::From(from) = self.voting {
            self.persist(Record::Observing(from), out);
        }
        self.take_back_own_batches(out);
        self.tell_sets(out);
    }

    /// Own batches are signed again (the same bytes): peers may not have them, and the lane needs the signatures.
    fn take_back_own_batches(&self, out: &mut Vec<Action>) {
        for batch in self.lanes.own_unsigned() {
            out.push(Action::Sign(Unsigned::Batch(batch)));
        }
    }

    /// Whether this replica signs nothing, and from which epoch it will.
    pub fn voting(&self) -> Voting {
        self.voting
    }

    /// The certificate that made the highest final block final.
    pub fn highest_commit(&self) -> Option<&Arc<tally_types::Certificate>> {
        self.highest_commit.as_ref()
    }
}
