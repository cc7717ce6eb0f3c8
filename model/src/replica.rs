//! One replica: the real [`Agreement`], and of `Machine` what drives it. Each act names the code it mirrors.
//!
//! Headers, payload, execution and time are left out: where `Machine` waits for them the model waits for any length, by
//! making the act a step of its own. So every order of acts that `Machine` can produce is an order the model can produce.

use std::sync::Arc;

use tally_consensus::{Agreement, Output, Record};
use tally_types::{Certificate, Epoch, Hash, View, VoteKind, vote::Ballot};

use crate::{
    block::{self, GENESIS, Value},
    config::Config,
    mutant::Mutant,
};

/// A proposal: the block and J.
pub type Proposal = (Hash, Option<Arc<Certificate>>);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    /// The core under test.
    pub agreement: Agreement,
    /// `Machine::closing`.
    closing: bool,
    /// `Machine::highest_commit`.
    pub highest_commit: Option<Arc<Certificate>>,
    /// The certificates that ended epochs, which every replica serves with ranges of blocks (rule S2).
    pub ended: Vec<Arc<Certificate>>,
    /// `Round::own_proposal`.
    pub own_proposal: Option<Proposal>,
    /// [`Mutant::EntryNotDurable`]: it resumed in its view without the certificate that proves it.
    unproved: bool,
}

impl Replica {
    /// A replica at genesis.
    pub fn new(config: &Config, me: u32) -> Replica {
        Replica {
            agreement: Agreement::new(Epoch::ZERO, config.set(), Some(me), GENESIS, None),
            closing: false,
            highest_commit: None,
            ended: Vec::new(),
            own_proposal: None,
            unproved: false,
        }
    }

    /// Whether it stands in a view in which the configuration lets it sign.
    pub fn in_bounds(&self, config: &Config) -> bool {
        self.agreement.view() <= config.last_view(self.agreement.epoch())
    }

    /// `Machine::on_certificate`. One of a later epoch waits in `Machine::ahead` until that epoch: here until it is taken
    /// in then.
    pub fn take(&mut self, config: &Config, certificate: &Arc<Certificate>) -> Vec<Output> {
        let mut outputs = Vec::new();
        let floor = self.agreement.floor();
        self.agreement.on_certificate(certificate, &mut outputs);
        self.note(&outputs);
        if config.mutant == Some(Mutant::DropsAboveFloor) && self.agreement.floor() > floor {
            self.drop_votes();
        }
        outputs
    }

    /// The part of `Machine::carry_out` that concerns neither disk nor network.
    pub fn note(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Entered(_) => {
                    self.own_proposal = None;
                    self.unproved = false;
                }
                Output::Committed(certificate) => self.highest_commit = Some(certificate.clone()),
                _ => {}
            }
        }
    }

    /// The block of its highest commit certificate, or where its epoch started: `Chain::tip`.
    pub fn tip(&self) -> Hash {
        self.agreement.commit().map_or(self.agreement.start(), |commit| commit.block)
    }

    /// `Machine::finalize_by` for L_e, as soon as its header is here. Rule P5.
    pub fn finalize(&mut self, config: &Config) -> bool {
        let epoch = self.agreement.epoch();
        let ends = block::height(&self.tip()) == config.last_height(epoch) && block::epoch(&self.tip()) == epoch;
        if self.closing || !ends || self.agreement.commit().is_none() {
            return false;
        }
        self.closing = true;
        self.agreement.close();
        true
    }

    /// `Machine::enter_epoch`, as soon as V_{e+1} is known. Rule P5.
    pub fn enter_epoch(&mut self, config: &Config, me: u32) -> bool {
        let epoch = self.agreement.epoch().next();
        let Some(commit) = self.agreement.commit().filter(|_| self.closing).cloned() else { return false };
        if config.last_view(epoch) == View::ZERO && !config.liveness {
            return false;
        }
        self.agreement = Agreement::new(epoch, config.set(), Some(me), commit.block, Some(commit.clone()));
        self.closing = false;
        self.ended.push(commit);
        self.own_proposal = None;
        self.unproved = false;
        true
    }

    /// The blocks that `Machine::verdict` finds good in this view under `justification`: rule P2.2, and P5 on top of L_e.
    pub fn valid_blocks(&self, config: &Config, justification: Option<&Certificate>) -> Vec<Hash> {
        let (epoch, view) = (self.agreement.epoch(), self.agreement.view());
        let Some(parent) = self.agreement.parent(view, justification) else { return Vec::new() };
        if self.is_last(config, &parent) {
            return vec![parent];
        }
        [0, 1].map(|value: Value| block::child(&parent, epoch, view, value)).to_vec()
    }

    /// `Machine::judge`, with a good verdict.
    pub fn prepare(&mut self, block: Hash) -> Vec<Output> {
        let mut outputs = Vec::new();
        if !self.agreement.gave_up_here() && self.agreement.sent_prepare().is_none() {
            self.agreement.prepare(block, &mut outputs);
        }
        outputs
    }

    /// What `Machine::commit` may send COMMIT for; payload and headers are here or not, so each is a step of its own.
    pub fn committable(&self, config: &Config) -> Vec<(View, Hash)> {
        if !self.agreement.signs() {
            return Vec::new();
        }
        let found: Vec<_> = match config.mutant {
            Some(Mutant::CommitAfterHiding) => {
                let sent: Vec<View> = self.agreement.sent_commits().map(|(view, _)| view).collect();
                let fresh = self.agreement.prepared().filter(|certificate| !sent.contains(&certificate.view));
                fresh.map(|certificate| (certificate.view, certificate.block)).collect()
            }
            _ => self.agreement.committable().collect(),
        };
        // `Machine::is_whole_down`: never on a chain that branches off below the final tip.
        found.into_iter().filter(|(_, block)| block::on_one_chain(block, &self.tip())).collect()
    }

    /// `Machine::commit`.
    pub fn commit(&mut self, view: View, block: Hash) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.agreement.send_commit(view, block, &mut outputs);
        outputs
    }

    /// `Machine::give_up`: any cause of rule V2, at any time.
    pub fn give_up(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        if self.agreement.signs() {
            self.agreement.give_up(&mut outputs);
        }
        outputs
    }

    /// `Machine::propose`: an honest leader has one thing to propose, and proposes once.
    pub fn propose(&mut self, config: &Config, me: u32) -> Option<Proposal> {
        let (epoch, view) = (self.agreement.epoch(), self.agreement.view());
        let leads = config.leader(epoch, view) == me && self.agreement.signs();
        if !leads || self.agreement.gave_up_here() || self.own_proposal.is_some() || self.unproved {
            return None;
        }
        let justification = self.agreement.justification();
        let parent = self.agreement.parent(view, justification.as_deref())?;
        let block = match self.is_last(config, &parent) {
            true => parent,
            false => block::child(&parent, epoch, view, 0),
        };
        self.own_proposal = Some((block, justification));
        self.own_proposal.clone()
    }

    /// `Machine::replay`.
    pub fn replay(&mut self, config: &Config, record: &Record) {
        let here = self.agreement.epoch();
        if let Record::Prepared { epoch, view, .. } | Record::ViewChanged { epoch, view, .. } = record
            && config.mutant == Some(Mutant::EntryNotDurable)
            && *epoch == here
        {
            self.resume_unproved(*view);
        }
        match record {
            Record::Certificate(certificate) => {
                self.take(config, certificate);
            }
            Record::Proposed { epoch, view, block, justification }
                if (*epoch, *view) == (here, self.agreement.view()) =>
            {
                self.own_proposal = Some((*block, justification.clone()));
            }
            Record::Prepared { epoch, view, block } if *epoch == here => self.agreement.replay_prepare(*view, *block),
            Record::ViewChanged { epoch, view, highest } if *epoch == here => {
                self.agreement.replay_view_change(*view, highest.clone());
            }
            _ => {}
        }
    }

    /// `Machine::certificates`: what rules V3 and V4 send, entry and highest commit certificate.
    pub fn certificates(&self, config: &Config) -> [Option<Arc<Certificate>>; 2] {
        let forgotten = |certificate: &Arc<Certificate>| {
            config.mutant == Some(Mutant::EpochEndForgotten) && ends_epoch(config, certificate)
        };
        let entry = self.agreement.entry().filter(|entry| !self.unproved && !forgotten(entry));
        [entry.cloned(), self.highest_commit.clone().filter(|commit| !forgotten(commit))]
    }

    /// [`Mutant::FloorLowered`]: what a restart finds if the commit certificate does not count, after S3 dropped all else.
    pub fn with_floor_lowered(&self, config: &Config) -> Replica {
        let Some(commit) = self.agreement.commit() else { return self.clone() };
        let (epoch, start) = (self.agreement.epoch(), self.agreement.start());
        let mut lowered = self.clone();
        lowered.agreement = Agreement::new(epoch, config.set(), self.agreement.me(), start, self.ended.last().cloned());
        let mut outputs = Vec::new();
        // It still proves that the block was prepared.
        let prepared = Certificate { kind: VoteKind::Prepare, ..commit.as_ref().clone() };
        lowered.agreement.on_certificate(&Arc::new(prepared), &mut outputs);
        for certificate in self.agreement.prepared().chain(self.agreement.entry()) {
            if certificate.kind != VoteKind::Commit {
                lowered.agreement.on_certificate(certificate, &mut outputs);
            }
        }
        self.give_votes_to(&mut lowered.agreement);
        lowered
    }

    /// [`Mutant::DropsAboveFloor`]: the same certificates, and no vote of its own.
    fn drop_votes(&mut self) {
        let old = self.agreement.clone();
        let Some(me) = old.me() else { return };
        self.agreement =
            Agreement::new(old.epoch(), old.set().clone(), Some(me), old.start(), self.ended.last().cloned());
        let mut outputs = Vec::new();
        for certificate in old.commit().into_iter().chain(old.prepared()).chain(old.entry()) {
            self.agreement.on_certificate(certificate, &mut outputs);
        }
    }

    fn give_votes_to(&self, other: &mut Agreement) {
        let view = self.agreement.view();
        if let Some(block) = self.agreement.sent_prepare() {
            other.replay_prepare(view, block);
        }
        for ballot in self.agreement.open_ballots() {
            if let Ballot::ViewChange(view, _) = ballot {
                other.replay_view_change(view, self.agreement.view_change_certificate(view));
            }
        }
    }

    /// [`Mutant::EntryNotDurable`]: rule R1 without the certificate. The made-up one lets the agreement into the view; it is
    /// never shown to anybody.
    fn resume_unproved(&mut self, view: View) {
        if view <= self.agreement.view() {
            return;
        }
        let made_up = Certificate {
            kind: VoteKind::ViewChange,
            epoch: self.agreement.epoch(),
            view: view.previous().unwrap_or_default(),
            block: Hash::ZERO,
            signatures: Vec::new(),
            highest: None,
        };
        let mut outputs = Vec::new();
        self.agreement.on_certificate(&Arc::new(made_up), &mut outputs);
        self.note(&outputs);
        self.unproved = true;
    }

    fn is_last(&self, config: &Config, block: &Hash) -> bool {
        let epoch = self.agreement.epoch();
        block::height(block) == config.last_height(epoch) && block::epoch(block) == epoch
    }
}

/// Whether this is the commit certificate of an epoch's last block.
pub fn ends_epoch(config: &Config, certificate: &Certificate) -> bool {
    certificate.kind == VoteKind::Commit && block::height(&certificate.block) == config.last_height(certificate.epoch)
}
