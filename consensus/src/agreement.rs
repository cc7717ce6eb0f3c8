//! The deciding part of the protocol for one epoch: views, votes, certificates. Rules P2, P3, V1, V2, V5, S3.
//!
//! It knows blocks by hash only. What a block may contain, whether its payload is here, what is executed and what time it
//! is are the [`Machine`](crate::Machine)'s to know; it tells when a block may be prepared or committed. Every certificate
//! taken in is put out to be persisted before anything that depends on it: entry certificates, prepare certificates before
//! COMMIT and VIEW-CHANGE, commit certificates before anything is called final.

use std::{collections::BTreeMap, sync::Arc};

use tally_types::{
    Certificate, Epoch, Hash, Signature, ValidatorSet, View, ViewChange, Vote, VoteKind,
    certificate::CertificateSignature, vote::Ballot,
};

use crate::{
    event::Reject,
    evidence::EvidenceKind,
    tally::{Kept, Votes},
};

/// PREPAREs of this many views past the current one are kept, and COMMITs of this many views per signer. Rule V5.
pub(crate) const VOTE_WINDOW: u64 = 16;

/// What the agreement wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Make this certificate durable before anything that follows.
    Persist(Arc<Certificate>),
    /// Make this vote durable, then sign and send it.
    Sign(Ballot),
    /// A new view began.
    Entered(View),
    /// This certificate makes its block final.
    Committed(Arc<Certificate>),
    /// Two ballots of one signer that convict it.
    Convicted {
        /// Place of the signer.
        signer: u32,
        /// What it did.
        kind: EvidenceKind,
        /// First ballot and its signature.
        first: (Ballot, Signature),
        /// Second ballot and its signature.
        second: (Ballot, Signature),
    },
    /// A message was dropped.
    Dropped(Reject),
}

/// Agreement on the blocks of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agreement {
    epoch: Epoch,
    set: ValidatorSet,
    /// This replica's place; none: it observes and signs nothing.
    me: Option<u32>,
    /// Nothing more is signed in this epoch. Rule P5.
    closed: bool,
    /// The block the epoch starts from.
    start: Hash,
    view: View,
    /// The certificate that let this replica into its view; none: view 1 of epoch 0.
    entry: Option<Arc<Certificate>>,
    /// Highest commit certificate of this epoch. Its view is the floor of rule S3.
    commit: Option<Arc<Certificate>>,
    /// Prepare certificates of views above the floor.
    prepared: BTreeMap<View, Arc<Certificate>>,
    /// The last PREPARE sent.
    sent_prepare: Option<(View, Hash)>,
    /// COMMITs sent, of views above the floor.
    sent_commits: BTreeMap<View, Hash>,
    /// VIEW-CHANGEs sent, of views above the floor, with the certificate whose view is their h; none: h is 0.
    sent_view_changes: BTreeMap<View, Option<Arc<Certificate>>>,
    prepares: Votes,
    commits: Votes,
    /// Per signer: the VIEW-CHANGE of this view, and the highest later one.
    view_changes: BTreeMap<u32, BTreeMap<View, ViewChange>>,
}

impl Agreement {
    /// The start of an epoch, in view 1. `entry` is the commit certificate that ended the epoch before.
    pub fn new(
        epoch: Epoch,
        set: ValidatorSet,
        me: Option<u32>,
        start: Hash,
        entry: Option<Arc<Certificate>>,
    ) -> Agreement {
        Agreement {
            epoch,
            set,
            me,
            closed: false,
            start,
            view: View(1),
            entry,
            commit: None,
            prepared: BTreeMap::new(),
            sent_prepare: None,
            sent_commits: BTreeMap::new(),
            sent_view_changes: BTreeMap::new(),
            prepares: Votes::default(),
            commits: Votes::default(),
            view_changes: BTreeMap::new(),
        }
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Its validators.
    pub fn set(&self) -> &ValidatorSet {
        &self.set
    }

    /// This replica's place.
    pub fn me(&self) -> Option<u32> {
        self.me
    }

    /// From now on nothing is signed here: the epoch's last block is final (rule P5), or this replica observes (rule R3).
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether this replica may sign at all.
    pub fn signs(&self) -> bool {
        self.me.is_some() && !self.closed
    }

    /// The block the epoch starts from.
    pub fn start(&self) -> Hash {
        self.start
    }

    /// The view this replica is in.
    pub fn view(&self) -> View {
        self.view
    }

    /// The certificate that let it into this view.
    pub fn entry(&self) -> Option<&Arc<Certificate>> {
        self.entry.as_ref()
    }

    /// Rule S3: nothing is signed at or below this view.
    pub fn floor(&self) -> View {
        self.commit.as_ref().map_or(View::ZERO, |commit| commit.view)
    }

    /// Highest commit certificate of this epoch.
    pub fn commit(&self) -> Option<&Arc<Certificate>> {
        self.commit.as_ref()
    }

    /// The prepare certificate of the highest view held; a commit certificate proves one.
    pub fn highest(&self) -> Option<&Arc<Certificate>> {
        self.prepared.values().next_back().or(self.commit.as_ref())
    }

    /// The prepare certificates of views above the floor, rising.
    pub fn prepared(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.prepared.values()
    }

    /// Whether a weak quorum prepared `block` in the current view: somebody honest found its rules kept and its waits over.
    pub fn is_weakly_prepared(&self, block: Hash) -> bool {
        self.prepares.stake(&self.set, self.view, block) >= self.set.weak_quorum()
    }

    /// What this replica prepared in its current view.
    pub fn sent_prepare(&self) -> Option<Hash> {
        self.sent_prepare.filter(|(view, _)| *view == self.view).map(|(_, block)| block)
    }

    /// COMMITs sent and not known final yet.
    pub fn sent_commits(&self) -> impl Iterator<Item = (View, Hash)> + '_ {
        self.sent_commits.iter().map(|(view, block)| (*view, *block))
    }

    /// Whether this replica gave up its current view.
    pub fn gave_up_here(&self) -> bool {
        self.sent_view_changes.contains_key(&self.view)
    }

    /// The certificate that goes with the VIEW-CHANGE this replica sent for `view`.
    pub fn view_change_certificate(&self, view: View) -> Option<Arc<Certificate>> {
        self.sent_view_changes.get(&view).cloned().flatten()
    }

    /// J of a proposal in the current view, as its leader would give it: the prepare certificate of the view before if held,
    /// else what let it in. Rule P1: holding PrepareQC(v−1) it does not use TC(v−1).
    pub fn justification(&self) -> Option<Arc<Certificate>> {
        let before = self.view.previous().unwrap_or_default();
        let prepared = self.prepared.get(&before).or(self.commit.as_ref().filter(|commit| commit.view == before));
        match prepared {
            Some(prepared) if before > View::ZERO => Some(prepared.clone()),
            _ => self.entry.clone(),
        }
    }

    /// The parent that `justification` dictates for a proposal of `view`; none if it cannot justify that view. Rule P1.
    pub fn parent(&self, view: View, justification: Option<&Certificate>) -> Option<Hash> {
        let before = view.previous()?;
        match justification {
            // Epoch 0 starts from genesis, which nobody has to certify.
            None => (before == View::ZERO && self.epoch == Epoch::ZERO).then_some(self.start),
            Some(certificate) if before == View::ZERO => {
                let ends_last_epoch = certificate.kind == VoteKind::Commit
                    && certificate.epoch.next() == self.epoch
                    && certificate.block == self.start;
                ends_last_epoch.then_some(self.start)
            }
            Some(certificate) if certificate.epoch != self.epoch || certificate.view != before => None,
            Some(certificate) => match certificate.kind {
                VoteKind::Prepare | VoteKind::Commit => Some(certificate.block),
                VoteKind::ViewChange => Some(certificate.highest.as_ref().map_or(self.start, |highest| highest.block)),
            },
        }
    }

    /// Takes in a verified certificate of this epoch. Rules V1, S1, S3.
    pub fn on_certificate(&mut self, certificate: &Arc<Certificate>, out: &mut Vec<Output>) {
        if certificate.epoch != self.epoch {
            return;
        }
        // A certificate inside another is one like any other.
        if let Some(highest) = &certificate.highest {
            self.on_certificate(&highest.clone(), out);
        }
        let view = certificate.view;
        // Nothing follows the last number there is. No honest quorum gets there, so this only keeps a replica that hears the
        // impossible from entering one view for ever.
        let moves = view >= self.view && view.next() > view;
        let news = match certificate.kind {
            VoteKind::Prepare => view > self.floor() && !self.prepared.contains_key(&view),
            VoteKind::Commit => view > self.floor(),
            VoteKind::ViewChange => false,
        };
        if news || moves {
            out.push(Output::Persist(certificate.clone()));
        }
        match certificate.kind {
            VoteKind::Prepare if news => {
                self.prepared.insert(view, certificate.clone());
            }
            VoteKind::Commit if news => {
                self.raise_floor(certificate.clone());
                out.push(Output::Committed(certificate.clone()));
            }
            _ => {}
        }
        if moves {
            self.enter(certificate.clone(), out);
        }
    }

    /// Takes in a verified PREPARE or COMMIT of this epoch.
    pub fn on_vote(&mut self, vote: &Vote, out: &mut Vec<Output>) {
        if vote.epoch != self.epoch {
            return out.push(Output::Dropped(Reject::OtherEpoch));
        }
        if vote.view <= self.floor() {
            return out.push(Output::Dropped(Reject::Old));
        }
        match vote.kind {
            VoteKind::Prepare => self.on_prepare(vote, out),
            VoteKind::Commit => self.on_commit(vote, out),
            VoteKind::ViewChange => out.push(Output::Dropped(Reject::WrongKind)),
        }
    }

    fn on_prepare(&mut self, vote: &Vote, out: &mut Vec<Output>) {
        // Rule V5: PREPAREs of this view and the next `VOTE_WINDOW`.
        if vote.view < self.view {
            return out.push(Output::Dropped(Reject::Old));
        }
        if vote.view > self.view.plus(VOTE_WINDOW) {
            return out.push(Output::Dropped(Reject::FarView));
        }
        // One more than the window, for the view itself.
        let most = usize::try_from(VOTE_WINDOW).unwrap_or(usize::MAX).saturating_add(1);
        let kept = self.prepares.insert(vote.signer, vote.view, vote.block, vote.signature, most);
        if let Kept::Contradicts(block, signature) = kept {
            let first = (Ballot::Prepare(vote.view, block), signature);
            return self.convict(vote, EvidenceKind::DoublePrepare, first, out);
        }
        if let Some(votes) = self.prepares.quorum(&self.set, vote.view, vote.block) {
            let certificate = self.certificate(VoteKind::Prepare, vote, votes);
            self.on_certificate(&certificate, out);
        }
    }

    fn on_commit(&mut self, vote: &Vote, out: &mut Vec<Output>) {
        let most = usize::try_from(VOTE_WINDOW).unwrap_or(usize::MAX);
        match self.commits.insert(vote.signer, vote.view, vote.block, vote.signature, most) {
            Kept::Contradicts(block, signature) => {
                let first = (Ballot::Commit(vote.view, block), signature);
                return self.convict(vote, EvidenceKind::DoubleCommit, first, out);
            }
            Kept::Known => return,
            Kept::New => self.look_for_hidden_commits(vote.signer, out),
        }
        if let Some(votes) = self.commits.quorum(&self.set, vote.view, vote.block) {
            let certificate = self.certificate(VoteKind::Commit, vote, votes);
            self.on_certificate(&certificate, out);
        }
    }

    /// Takes in a verified VIEW-CHANGE of this epoch, its attached certificate included.
    pub fn on_view_change(&mut self, change: &ViewChange, out: &mut Vec<Output>) {
        if change.epoch != self.epoch {
            return out.push(Output::Dropped(Reject::OtherEpoch));
        }
        let known = self.view_changes.get(&change.signer).and_then(|own| own.get(&change.view));
        let is_known = known.is_some();
        // Before the certificate it carries can end the view, and what was kept of it goes.
        if let Some(known) = known.filter(|known| known.highest_view != change.highest_view) {
            let (first, second) = ((known.ballot(), known.signature), (change.ballot(), change.signature));
            let (signer, kind) = (change.signer, EvidenceKind::DoubleViewChange);
            out.push(Output::Convicted { signer, kind, first, second });
        }
        if let Some(highest) = &change.highest {
            self.on_certificate(&highest.clone(), out);
        }
        if is_known {
            return;
        }
        if change.view < self.view {
            return out.push(Output::Dropped(Reject::Old));
        }
        let own = self.view_changes.entry(change.signer).or_default();
        own.insert(change.view, change.clone());
        // Rule V5: that of this view, and the highest later one.
        let view = self.view;
        let highest_later = own.keys().next_back().copied().unwrap_or_default();
        own.retain(|kept, _| *kept == view || *kept == highest_later);
        self.look_for_hidden_commits(change.signer, out);
        self.count_view_changes(change.view, out);
    }

    fn count_view_changes(&mut self, view: View, out: &mut Vec<Output>) {
        let given_up: Vec<&ViewChange> = self.view_changes.values().filter_map(|own| own.get(&view)).collect();
        let stake = self.set.stake_of(given_up.iter().map(|change| change.signer));
        if stake >= self.set.quorum() {
            // By rising signer, as the map is; the highest certificate any of them names goes along.
            let part = |change: &&ViewChange| CertificateSignature {
                signer: change.signer,
                highest_view: change.highest_view,
                signature: change.signature,
            };
            let certificate = Arc::new(Certificate {
                kind: VoteKind::ViewChange,
                epoch: self.epoch,
                view,
                block: Hash::ZERO,
                signatures: given_up.iter().map(part).collect(),
                highest: given_up.iter().max_by_key(|change| change.highest_view).and_then(|c| c.highest.clone()),
            });
            return self.on_certificate(&certificate, out);
        }
        // Rule V2: VIEW-CHANGEs for this view of a weak quorum.
        if view == self.view && stake >= self.set.weak_quorum() {
            self.give_up(out);
        }
    }

    /// Whether `signer` gave up the current view.
    pub fn gave_up(&self, signer: u32) -> bool {
        self.view_changes.get(&signer).is_some_and(|own| own.contains_key(&self.view))
    }

    /// Sends PREPARE for `block` in the current view, unless this replica prepared or gave up in it. The caller has found
    /// the rules kept and the waits over. Rule P2.
    pub fn prepare(&mut self, block: Hash, out: &mut Vec<Output>) -> bool {
        let free = self.sent_prepare.is_none_or(|(view, _)| view < self.view);
        if !self.signs() || !free || self.sent_view_changes.contains_key(&self.view) || self.view <= self.floor() {
            return false;
        }
        self.sent_prepare = Some((self.view, block));
        out.push(Output::Sign(Ballot::Prepare(self.view, block)));
        true
    }

    /// Views that may be committed as far as the votes sent so far allow; the caller knows whether headers and payload are
    /// durable. Rule P3.
    pub fn committable(&self) -> impl Iterator<Item = (View, Hash)> + '_ {
        let certificates = self.prepared.values().filter(move |certificate| {
            let view = certificate.view;
            // Every VIEW-CHANGE(u, h) ever sent with u ≥ v has h ≥ v.
            let hidden = self.sent_view_changes.range(view..).any(|(_, highest)| view_of(highest) < view);
            self.signs() && view > self.floor() && !hidden && !self.sent_commits.contains_key(&view)
        });
        certificates.map(|certificate| (certificate.view, certificate.block))
    }

    /// Sends COMMIT for a view out of [`Agreement::committable`]. Rule P3.
    pub fn send_commit(&mut self, view: View, block: Hash, out: &mut Vec<Output>) {
        self.sent_commits.insert(view, block);
        out.push(Output::Sign(Ballot::Commit(view, block)));
    }

    /// Sends VIEW-CHANGE for the current view, once. Rule V2.
    pub fn give_up(&mut self, out: &mut Vec<Output>) {
        if !self.signs() || self.sent_view_changes.contains_key(&self.view) || self.view <= self.floor() {
            return;
        }
        let highest = self.highest().cloned();
        let ballot = Ballot::ViewChange(self.view, view_of(&highest));
        self.sent_view_changes.insert(self.view, highest);
        out.push(Output::Sign(ballot));
    }

    /// Takes back a PREPARE from the journal: it was sent, or may have been. Rule R1.
    pub fn replay_prepare(&mut self, view: View, block: Hash) {
        if view > self.floor() && self.sent_prepare.is_none_or(|(sent, _)| sent < view) {
            self.sent_prepare = Some((view, block));
        }
    }

    /// Takes back a VIEW-CHANGE from the journal. Rule R1.
    pub fn replay_view_change(&mut self, view: View, highest: Option<Arc<Certificate>>) {
        if view > self.floor() {
            self.sent_view_changes.insert(view, highest);
        }
    }

    /// Votes this replica sent and whose outcome is open: of the current view, and COMMITs not known final. Rule V3.
    pub fn open_ballots(&self) -> Vec<Ballot> {
        let prepare = self.sent_prepare().map(|block| Ballot::Prepare(self.view, block));
        let given_up = self.sent_view_changes.get(&self.view);
        let view_change = given_up.map(|highest| Ballot::ViewChange(self.view, view_of(highest)));
        let commits = self.sent_commits().map(|(view, block)| Ballot::Commit(view, block));
        prepare.into_iter().chain(view_change).chain(commits).collect()
    }

    /// How many votes are kept: a bounded number, see rule V5.
    pub fn votes_kept(&self) -> usize {
        let changes = self.view_changes.values().map(BTreeMap::len).sum::<usize>();
        self.prepares.len().saturating_add(self.commits.len()).saturating_add(changes)
    }

    /// Rule V1: enters the view after the certificate's.
    fn enter(&mut self, certificate: Arc<Certificate>, out: &mut Vec<Output>) {
        self.view = certificate.view.next();
        self.entry = Some(certificate);
        self.prepares.drop_below(self.view);
        for own in self.view_changes.values_mut() {
            *own = own.split_off(&self.view);
        }
        self.view_changes.retain(|_, own| !own.is_empty());
        let view = self.view;
        out.push(Output::Entered(view));
        // A weak quorum may have given up the new view already.
        self.count_view_changes(view, out);
    }

    /// Rule S3: with CommitQC(w) durable, what belongs to views ≤ w goes, and nothing of views above w.
    fn raise_floor(&mut self, commit: Arc<Certificate>) {
        let above = commit.view.next();
        self.prepared = self.prepared.split_off(&above);
        self.sent_commits = self.sent_commits.split_off(&above);
        self.sent_view_changes = self.sent_view_changes.split_off(&above);
        self.commits.drop_below(above);
        self.commit = Some(commit);
    }

    fn certificate(&self, kind: VoteKind, vote: &Vote, votes: Vec<(u32, Signature)>) -> Arc<Certificate> {
        let part = |(signer, signature)| CertificateSignature { signer, highest_view: View::ZERO, signature };
        Arc::new(Certificate {
            kind,
            epoch: self.epoch,
            view: vote.view,
            block: vote.block,
            signatures: votes.into_iter().map(part).collect(),
            highest: None,
        })
    }

    fn convict(&self, vote: &Vote, kind: EvidenceKind, first: (Ballot, Signature), out: &mut Vec<Output>) {
        let second = (vote.ballot(), vote.signature);
        out.push(Output::Convicted { signer: vote.signer, kind, first, second });
    }

    /// COMMIT(v) with VIEW-CHANGE(u ≥ v, h < v) of one signer, in either order.
    fn look_for_hidden_commits(&self, signer: u32, out: &mut Vec<Output>) {
        for change in self.view_changes.get(&signer).into_iter().flat_map(BTreeMap::values) {
            for (view, block, signature) in self.commits.of(signer) {
                if change.view >= view && change.highest_view < view {
                    let first = (Ballot::Commit(view, block), signature);
                    let second = (change.ballot(), change.signature);
                    return out.push(Output::Convicted { signer, kind: EvidenceKind::HiddenCommit, first, second });
                }
            }
        }
    }
}

fn view_of(highest: &Option<Arc<Certificate>>) -> View {
    highest.as_ref().map_or(View::ZERO, |certificate| certificate.view)
}

#[cfg(test)]
mod tests;
