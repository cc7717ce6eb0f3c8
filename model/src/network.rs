//! What the network can deliver: the certificates and proposals that anybody can show, given what was sent.
//!
//! The network loses, duplicates and reorders, so every message ever sent may arrive any number of times, at any time, or
//! never: it is the growing set of messages sent. Votes matter to a replica only once a quorum of them is together (that
//! is the core's own tally), so what is delivered is the certificate, made by the real tally of an observing
//! [`Agreement`], instead of its votes one by one. What votes below a quorum can do to a replica is covered otherwise:
//! giving up a view is possible at any time, and convictions are judged over everything sent ([`crate::evidence`]). Votes
//! one by one are delivered in [`crate::healing`].
//!
//! The Byzantine validator has signed everything it can sign: every PREPARE, COMMIT and VIEW-CHANGE, where a VIEW-CHANGE
//! names only certificates that exist. Nobody can sign for an honest validator.
//!
//! Certificates that differ in their signers only are one: nothing in the core looks at the signers.

use std::sync::Arc;

use tally_consensus::{Agreement, Output};
use tally_types::{Certificate, Epoch, Hash, Signature, ValidatorSet, View, ViewChange, Vote, VoteKind, vote::Ballot};

use crate::{
    block,
    config::{Config, VALIDATORS},
    mutant::Mutant,
    validator::Sent,
};

/// What anybody can show, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shown {
    /// Certificates that verify.
    pub certificates: Vec<Arc<Certificate>>,
    /// Proposals of honest leaders: epoch, view, block, J.
    pub proposals: Vec<(Epoch, View, Hash, Option<Arc<Certificate>>)>,
    /// Where an honest validator prepared a block with value 0: see [`Shown::may_prepare`].
    pub prepared: Vec<(Epoch, View, Hash)>,
}

/// A bit for each place.
pub type Signers = u8;

impl Shown {
    /// What can be shown when the honest validators, in the order of [`Config::honest`], have sent this.
    pub fn new(config: &Config, sent: [&[Arc<Sent>]; 3]) -> Shown {
        let set = config.set();
        let honest = config.honest();
        let byzantine: Signers = 1 << config.byzantine;
        let mut shown = Shown::default();
        // Ballots sent, with who sent them; the Byzantine validator joins every one.
        let mut votes: Vec<((Epoch, Ballot), Signers)> = Vec::new();
        let mut changes: Vec<Change> = Vec::new();
        for (signer, sent) in honest.iter().zip(sent).flat_map(|(signer, sent)| sent.iter().map(|sent| (*signer, sent)))
        {
            match sent.as_ref() {
                Sent::Proposal { epoch, view, block, justification } => {
                    shown.proposals.push((*epoch, *view, *block, justification.clone()));
                }
                Sent::Ballot { epoch, ballot: Ballot::ViewChange(view, h), highest } => {
                    changes.push(Change { signer, epoch: *epoch, view: *view, h: *h, highest: highest.clone() });
                }
                Sent::Ballot { epoch, ballot, .. } => {
                    if let Ballot::Prepare(view, block) = ballot
                        && block::twin(block) == *block
                    {
                        shown.prepared.push((*epoch, *view, *block));
                    }
                    match votes.iter_mut().find(|(known, _)| *known == (*epoch, *ballot)) {
                        Some((_, signers)) => *signers |= 1 << signer,
                        None => votes.push(((*epoch, *ballot), byzantine | 1 << signer)),
                    }
                }
            }
        }
        for ((epoch, ballot), signers) in votes {
            shown.certificates.extend(tally_votes(&set, epoch, ballot, signers));
        }
        shown.add_view_change_certificates(config, &set, changes);
        shown.certificates.sort_by_key(|certificate| sort_key(certificate));
        shown.certificates.dedup();
        shown.proposals.sort_by_key(|(epoch, view, block, _)| (*epoch, *view, *block));
        shown.prepared.sort();
        shown.prepared.dedup();
        shown
    }

    /// Which valid blocks the search lets an honest validator prepare, for the sake of fewer states.
    ///
    /// The two values of a view and parent mean nothing but "different": renaming them is a symmetry of the model. So the
    /// one that an honest validator prepares first is called 0. Without [`Config::rivals`], all that prepare in a view
    /// prepare the same block.
    pub fn may_prepare(&self, config: &Config, epoch: Epoch, view: View, block: &Hash) -> bool {
        let mut prepared = self.prepared.iter();
        if !config.rivals {
            return block::twin(block) == *block
                && prepared.all(|(e, v, other)| (*e, *v) != (epoch, view) || other == block);
        }
        block::twin(block) == *block || prepared.any(|(.., other)| *other == block::twin(block))
    }

    /// Whether two blocks are final, or can be shown to be, that do not lie on one chain.
    pub fn forks(&self) -> bool {
        let commits = || self.certificates.iter().filter(|certificate| certificate.kind == VoteKind::Commit);
        commits().any(|one| commits().any(|two| !block::on_one_chain(&one.block, &two.block)))
    }

    /// TCs. Which signers a TC has matters only by the highest certificate it carries, so for each VIEW-CHANGE that could
    /// be the highest one, those that name no higher view join. If others name the same view, whoever puts the TC together
    /// chooses among their certificates: rule C2 asks for one of that view.
    fn add_view_change_certificates(&mut self, config: &Config, set: &ValidatorSet, changes: Vec<Change>) {
        let mut made = Vec::new();
        let mut places: Vec<(Epoch, View)> = changes.iter().map(|change| (change.epoch, change.view)).collect();
        places.sort();
        places.dedup();
        for (epoch, view) in places {
            let byzantine = |highest: Option<Arc<Certificate>>| Change {
                signer: config.byzantine,
                epoch,
                view,
                h: highest.as_ref().map_or(View::ZERO, |highest| highest.view),
                highest,
            };
            let honest = || changes.iter().filter(|change| (change.epoch, change.view) == (epoch, view));
            let known = self.certificates.iter().filter(|known| known.epoch == epoch && known.view < view);
            let mut tops: Vec<Change> = honest().cloned().collect();
            tops.push(byzantine(None));
            tops.extend(known.map(|known| byzantine(Some(known.clone()))));
            for top in tops {
                let mut joined = vec![top.clone()];
                for other in honest().cloned().chain([byzantine(None)]) {
                    if other.h <= top.h && joined.iter().all(|known| known.signer != other.signer) {
                        joined.push(other);
                    }
                }
                let Some(certificate) = tally_view_changes(set, &joined) else { continue };
                assert_eq!(certificate.highest.as_ref().map_or(View::ZERO, |highest| highest.view), top.h);
                let forgets = config.mutant == Some(Mutant::CertificateForgetsHighest);
                let highest = top.highest.filter(|_| !forgets);
                made.push(Arc::new(Certificate { highest, ..certificate }));
            }
        }
        self.certificates.extend(made);
    }
}

/// A VIEW-CHANGE.
#[derive(Clone, Debug)]
struct Change {
    signer: u32,
    epoch: Epoch,
    view: View,
    h: View,
    highest: Option<Arc<Certificate>>,
}

/// A vote as it travels; signatures are the callers' business, so all are blank.
pub fn vote(epoch: Epoch, signer: u32, kind: VoteKind, view: View, block: Hash) -> Vote {
    Vote { kind, epoch, view, block, signer, signature: Signature([0; 64]) }
}

/// A VIEW-CHANGE as it travels.
pub fn view_change(epoch: Epoch, signer: u32, view: View, highest: Option<Arc<Certificate>>) -> ViewChange {
    let highest_view = highest.as_ref().map_or(View::ZERO, |highest| highest.view);
    ViewChange { epoch, view, highest_view, highest, signer, signature: Signature([0; 64]) }
}

/// An agreement that signs nothing and knows nothing yet.
pub fn observer(set: &ValidatorSet, epoch: Epoch) -> Agreement {
    Agreement::new(epoch, set.clone(), None, block::GENESIS, None)
}

/// What the real tally makes of PREPAREs or COMMITs of `signers`.
pub fn tally_votes(set: &ValidatorSet, epoch: Epoch, ballot: Ballot, signers: Signers) -> Option<Arc<Certificate>> {
    let (kind, view, block) = match ballot {
        Ballot::Prepare(view, block) => (VoteKind::Prepare, view, block),
        Ballot::Commit(view, block) => (VoteKind::Commit, view, block),
        Ballot::ViewChange(..) => return None,
    };
    let mut tally = observer(set, epoch);
    let mut outputs = Vec::new();
    for signer in (0..VALIDATORS).filter(|signer| signers & 1 << signer != 0) {
        tally.on_vote(&vote(epoch, signer, kind, view, block), &mut outputs);
    }
    made(outputs, kind, view).map(Arc::new)
}

/// What the real tally makes of these VIEW-CHANGEs of one view. The first is counted first, so it is in.
fn tally_view_changes(set: &ValidatorSet, changes: &[Change]) -> Option<Certificate> {
    let first = changes.first()?;
    let mut tally = observer(set, first.epoch);
    let mut outputs = Vec::new();
    for change in changes {
        tally.on_view_change(
            &view_change(first.epoch, change.signer, change.view, change.highest.clone()),
            &mut outputs,
        );
    }
    made(outputs, VoteKind::ViewChange, first.view)
}

/// The certificate put out, without its signers.
fn made(outputs: Vec<Output>, kind: VoteKind, view: View) -> Option<Certificate> {
    let mut persisted = outputs.into_iter().filter_map(|output| match output {
        Output::Persist(certificate) => Some(certificate),
        _ => None,
    });
    let found = persisted.find(|certificate| (certificate.kind, certificate.view) == (kind, view))?;
    Some(Certificate { signatures: Vec::new(), ..found.as_ref().clone() })
}

fn sort_key(certificate: &Certificate) -> impl Ord + use<> {
    let highest = certificate.highest.as_ref().map(|highest| (highest.kind, highest.view, highest.block));
    (certificate.epoch, certificate.view, certificate.kind, certificate.block, highest)
}
