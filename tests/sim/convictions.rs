//! Evidence: it convicts the faulty only, and whoever contradicts himself to one node while that node looks is convicted.

use std::collections::{BTreeMap, HashSet};

use tally_consensus::{Action, Event, Evidence, EvidenceKind, Message};
use tally_types::{Epoch, Hash, View, VoteKind, signature::SignatureCheck};

use crate::{checkers::Violation, marks::Mark, world::World};

/// COMMITs of one validator that a replica keeps: older ones make room. Rule V5.
const COMMITS_KEPT: usize = 16;

/// How many views ahead of its own a replica keeps PREPAREs. Rule V5.
const PREPARES_AHEAD: u64 = 16;

/// What one validator says of one view, in one kind of vote.
type Said = (Hash, View);

/// What a node was told since it started, in its epoch.
#[derive(Default)]
pub struct Heard {
    epoch: Epoch,
    /// The first vote of each kind, signer and view, and whether the node kept it when it came.
    votes: BTreeMap<(u8, u32, View), (Said, bool)>,
    /// Whom it had to convict of a second one.
    convicted: HashSet<(u8, u32, View)>,
}

impl Heard {
    /// Whether newer COMMITs of `signer` may have taken the place of that for `view`.
    fn made_room(&self, signer: u32, view: View) -> bool {
        let kind = VoteKind::Commit as u8;
        self.votes.range((kind, signer, view.next())..=(kind, signer, View(u64::MAX))).count() >= COMMITS_KEPT
    }

    /// A COMMIT that is kept and a VIEW-CHANGE of the view that node is in, `here`, hide one another.
    fn hides(&self, kind: VoteKind, signer: u32, view: View, what: Said, here: View, floor: View) -> bool {
        let hidden = |commit: View, change: View, highest: View| commit > floor && change >= commit && highest < commit;
        match kind {
            VoteKind::Commit => {
                let change = self.votes.get(&(VoteKind::ViewChange as u8, signer, here));
                let kept = change.filter(|(_, kept)| *kept && !self.made_room(signer, view));
                kept.is_some_and(|((_, highest), _)| hidden(view, here, *highest))
            }
            VoteKind::ViewChange => {
                let kind = VoteKind::Commit as u8;
                let mut commits = self.votes.range((kind, signer, View::ZERO)..=(kind, signer, view));
                commits.any(|((.., commit), (_, kept))| {
                    *kept && !self.made_room(signer, *commit) && hidden(*commit, view, what.1)
                })
            }
            VoteKind::Prepare => false,
        }
    }
}

fn said(message: &Message) -> Option<(VoteKind, Epoch, u32, View, Said)> {
    match message {
        Message::Vote(vote) => Some((vote.kind, vote.epoch, vote.signer, vote.view, (vote.block, View::ZERO))),
        Message::ViewChange(change) => {
            Some((VoteKind::ViewChange, change.epoch, change.signer, change.view, (Hash::ZERO, change.highest_view)))
        }
        _ => None,
    }
}

impl World {
    /// A message that passed every check goes to the machine. If it contradicts a vote that the machine keeps, it must convict its
    /// signer of that at once.
    pub fn hand_over(&mut self, to: usize, from: tally_types::Address, message: Message) {
        let contrary = self.contradicts(to, &message).map(|contrary| (contrary, format!("{message:?}")));
        let before = self.nodes[to].actions.len();
        self.handle(to, Event::Message { from, message });
        let Some(((signer, kind), described)) = contrary else { return };
        let signer = self.genesis.validators.get(signer).map(|member| member.address);
        let convicts = |action: &Action| matches!(action, Action::Evidence(found) if found.kind == kind && Some(found.validator) == signer);
        if !self.nodes[to].actions[before..].iter().any(convicts) {
            self.violate(Violation::Unconvicted, format!("{to} has the contrary of {described}: {kind:?}"));
        }
    }

    /// Whom a message convicts of what.
    fn contradicts(&mut self, to: usize, message: &Message) -> Option<(u32, EvidenceKind)> {
        let (kind, epoch, signer, view, what) = said(message)?;
        let node = &mut self.nodes[to];
        let agreement = node.machine.as_ref()?.agreement();
        // Its own votes come another way.
        if !node.correct || epoch != agreement.epoch() || agreement.me() == Some(signer) {
            return None;
        }
        let (here, floor) = (agreement.view(), agreement.floor());
        let heard = &mut node.heard;
        if heard.epoch != epoch {
            *heard = Heard { epoch, ..Heard::default() };
        }
        // Rule V5. Of VIEW-CHANGEs that of this view is kept in any case.
        let (kept, double) = match kind {
            VoteKind::Prepare => {
                (view > floor && view >= here && view <= here.plus(PREPARES_AHEAD), EvidenceKind::DoublePrepare)
            }
            VoteKind::Commit => (view > floor && !heard.made_room(signer, view), EvidenceKind::DoubleCommit),
            VoteKind::ViewChange => (view == here, EvidenceKind::DoubleViewChange),
        };
        let place = (kind as u8, signer, view);
        match heard.votes.get(&place) {
            None => {
                let hides = kept && heard.hides(kind, signer, view, what, here, floor);
                heard.votes.insert(place, (what, kept));
                hides.then_some((signer, EvidenceKind::HiddenCommit))
            }
            Some((known, was_kept)) => {
                let contrary = *known != what && kept && *was_kept && heard.convicted.insert(place);
                contrary.then_some((signer, double))
            }
        }
    }

    /// Evidence convicts faulty validators only, and anybody can check it.
    pub fn check_evidence(&mut self, node: usize, evidence: Evidence) {
        if !self.nodes[node].correct {
            return;
        }
        self.note(node as u64 ^ 0xe0, || format!("{node} convicts {evidence:?}"));
        self.marks.hit(match evidence.kind {
            EvidenceKind::DoubleProposal => Mark::DoubleProposal,
            EvidenceKind::DoublePrepare => Mark::DoublePrepare,
            EvidenceKind::DoubleCommit => Mark::DoubleCommit,
            EvidenceKind::DoubleViewChange => Mark::DoubleViewChange,
            EvidenceKind::HiddenCommit => Mark::HiddenCommit,
            EvidenceKind::DoubleBatch => Mark::DoubleBatch,
        });
        let culprit = self.index(&evidence.validator);
        let excused = self.nodes[culprit].excused_up_to.is_some_and(|epoch| evidence.epoch <= epoch);
        if self.nodes[culprit].honest && !excused {
            self.violate(Violation::BadEvidence, format!("{node} convicts {culprit}, who is honest: {evidence:?}"));
        }
        if !self.nodes[culprit].correct && self.nodes[culprit].behaviour.is_none() {
            // Twins lie by being two.
            self.note_lie(culprit);
        }
        let key = self.nodes[culprit].signer.key;
        let holds = [&evidence.first, &evidence.second].into_iter().all(|(bytes, signature)| {
            self.keys.holds(&SignatureCheck { key, bytes: bytes.clone(), signature: *signature })
        });
        if !holds || evidence.first.0 == evidence.second.0 {
            self.violate(Violation::BadEvidence, format!("{node} has evidence that proves nothing: {evidence:?}"));
        }
        self.checkers.evidence.push((node, evidence));
    }
}
