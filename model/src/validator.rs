//! An honest validator: a replica, its disk, and what it asks to have sent.
//!
//! The disk is kept as the replica that a restart would make of it: records are replayed as they are written, which gives
//! the same as replaying all of them at the restart, and leaves out of the state what no restart can tell apart. As in
//! `Machine`, a turn's records are durable before anything of that turn leaves; the mutants differ in just that.

use std::sync::Arc;

use tally_consensus::{Output, Record};
use tally_types::{Certificate, Epoch, Hash, View, VoteKind, vote::Ballot};

use crate::{
    config::Config,
    mutant::Mutant,
    replica::{Replica, ends_epoch},
};

/// What an honest validator has sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// PROPOSAL.
    Proposal {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
        /// The block.
        block: Hash,
        /// J.
        justification: Option<Arc<Certificate>>,
    },
    /// PREPARE, COMMIT or VIEW-CHANGE.
    Ballot {
        /// Epoch.
        epoch: Epoch,
        /// What is signed.
        ballot: Ballot,
        /// PrepareQC_h of a VIEW-CHANGE.
        highest: Option<Arc<Certificate>>,
    },
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Validator {
    /// What runs.
    pub live: Replica,
    /// What a restart would make of the disk.
    disk: Replica,
    /// What it would make of it once the last turn is synced; none: it is. Without a mutant it always is.
    unsynced: Option<Replica>,
}

impl Validator {
    /// A validator at genesis.
    pub fn new(config: &Config, me: u32) -> Validator {
        let replica = Replica::new(config, me);
        Validator { live: replica.clone(), disk: replica, unsynced: None }
    }

    /// Takes in a certificate that somebody can show.
    pub fn take(&mut self, config: &Config, certificate: &Arc<Certificate>) {
        self.sync();
        if let Some(highest) = certificate.highest.as_ref().filter(|_| config.forgets_entries()) {
            self.take(config, highest);
            return self.take(config, &Arc::new(Certificate { highest: None, ..certificate.as_ref().clone() }));
        }
        let outputs = self.live.take(config, certificate);
        let sent = self.carry_out(config, outputs);
        assert!(sent.is_empty(), "a certificate alone makes nobody vote");
    }

    /// The header of L_e arrives. Rule P5.
    pub fn finalize(&mut self, config: &Config) -> bool {
        self.sync();
        self.disk.finalize(config);
        self.live.finalize(config)
    }

    /// V_{e+1} becomes known. Rule P5.
    pub fn enter_epoch(&mut self, config: &Config, me: u32) -> bool {
        self.sync();
        self.disk.enter_epoch(config, me);
        self.live.enter_epoch(config, me)
    }

    /// PREPARE for a valid proposal.
    pub fn prepare(&mut self, config: &Config, block: Hash) -> Vec<Sent> {
        self.sync();
        let outputs = self.live.prepare(block);
        self.carry_out(config, outputs)
    }

    /// COMMIT for one of [`Replica::committable`].
    pub fn commit(&mut self, config: &Config, view: View, block: Hash) -> Vec<Sent> {
        // The mistaken replica sends it in the turn in which it learnt of the certificate.
        if config.mutant != Some(Mutant::PreparedNotDurable) {
            self.sync();
        }
        let outputs = self.live.commit(view, block);
        self.carry_out(config, outputs)
    }

    /// VIEW-CHANGE.
    pub fn give_up(&mut self, config: &Config) -> Vec<Sent> {
        self.sync();
        let outputs = self.live.give_up();
        self.carry_out(config, outputs)
    }

    /// PROPOSAL, if it leads.
    pub fn propose(&mut self, config: &Config, me: u32) -> Vec<Sent> {
        self.sync();
        let Some((block, justification)) = self.live.propose(config, me) else { return Vec::new() };
        let (epoch, view) = (self.live.agreement.epoch(), self.live.agreement.view());
        let record = Record::Proposed { epoch, view, block, justification: justification.clone() };
        self.write(config, &record, false);
        vec![Sent::Proposal { epoch, view, block, justification }]
    }

    /// The process ends and starts again with what is on its disk. Rule R1.
    pub fn crash(&mut self, config: &Config) {
        self.unsynced = None;
        if config.mutant == Some(Mutant::FloorLowered) {
            self.disk = self.disk.with_floor_lowered(config);
        }
        self.live = self.disk.clone();
    }

    /// `Machine::carry_out`, and the driver's part: records are durable, then votes leave.
    fn carry_out(&mut self, config: &Config, outputs: Vec<Output>) -> Vec<Sent> {
        let epoch = self.live.agreement.epoch();
        let mut sent = Vec::new();
        for output in outputs {
            match output {
                Output::Persist(certificate) => self.persist(config, certificate),
                Output::Sign(ballot) => {
                    let highest = match ballot {
                        Ballot::ViewChange(view, _) => self.live.agreement.view_change_certificate(view),
                        Ballot::Prepare(..) | Ballot::Commit(..) => None,
                    };
                    let late = config.mutant == Some(Mutant::VoteNotDurable);
                    match ballot {
                        Ballot::Prepare(view, block) => {
                            self.write(config, &Record::Prepared { epoch, view, block }, late);
                        }
                        Ballot::ViewChange(view, _) => {
                            let highest = highest.clone();
                            self.write(config, &Record::ViewChanged { epoch, view, highest }, late);
                        }
                        // It follows from what is durable already: see `Machine::sign`.
                        Ballot::Commit(..) => {}
                    }
                    sent.push(Sent::Ballot { epoch, ballot, highest });
                }
                Output::Entered(_) | Output::Committed(_) | Output::Convicted { .. } | Output::Dropped(_) => {}
            }
        }
        sent
    }

    fn persist(&mut self, config: &Config, certificate: Arc<Certificate>) {
        let left_out = match config.mutant {
            Some(Mutant::EntryNotDurable) => certificate.kind == VoteKind::ViewChange,
            Some(Mutant::EpochEndForgotten) => ends_epoch(config, &certificate),
            _ => false,
        };
        let late = config.mutant == Some(Mutant::PreparedNotDurable) && certificate.kind == VoteKind::Prepare;
        if !left_out {
            self.write(config, &Record::Certificate(certificate), late);
        }
    }

    /// Writes a record; a `late` one is not synced before the next turn.
    fn write(&mut self, config: &Config, record: &Record, late: bool) {
        if late && self.unsynced.is_none() {
            self.unsynced = Some(self.disk.clone());
        }
        if let Some(unsynced) = &mut self.unsynced {
            unsynced.replay(config, record);
        }
        if !late {
            self.disk.replay(config, record);
        }
    }

    fn sync(&mut self) {
        if let Some(synced) = self.unsynced.take() {
            self.disk = synced;
        }
    }
}
