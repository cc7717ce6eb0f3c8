//! Evidence: it convicts the faulty only, and whoever contradicts himself to one node while that node looks is convicted.

use std::collections::{BTreeMap, HashSet};

use tally_consensus::{Action, Event, Evidence, EvidenceKind, Message};
use tally_types::{Epoch, Hash, View, VoteKind, signature::SignatureCheck};

use crate::{checkers::Violation, marks::Mark, world::World};

/// COMMITs of one validator that a replica keeps: older ones make room. Rule V5.
const COMMITS_KEPT: usize = 16;

/// What one validator says of one view, in one kind of vote.
type Said = (Hash, View);

/// What a node was told since it started, in its epoch.
#[derive(Default)]
pub struct Heard {
    epoch: Epoch,
    /// Votes, and whether the node was in that view.
    votes: BTreeMap<(u8, u32, View), (Said, bool)>,
    /// Whom it convicted of what.
    convicted: HashSet<(u8, u32, View)>,
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
    /// A message that passed every check goes to the machine. If it contradicts one that the machine has, both of the view it is
    /// in, it must convict at once.
    pub fn hand_over(&mut self, to: usize, from: tally_types::Address, message: Message) {
        let contradicts = self.contradicts(to, &message);
        let before = self.nodes[to].actions.len();
        let described = contradicts.then(|| format!("{message:?}"));
        self.handle(to, Event::Message { from, message });
        let Some(described) = described else { return };
        let convicts = |action: &Action| matches!(action, Action::Evidence(_));
        if !self.nodes[to].actions[before..].iter().any(convicts) {
            self.violate(Violation::Unconvicted, format!("{to} has the contrary of {described}"));
        }
    }

    fn contradicts(&mut self, to: usize, message: &Message) -> bool {
        let Some((kind, epoch, signer, view, what)) = said(message) else { return false };
        let node = &mut self.nodes[to];
        let Some(agreement) = node.machine.as_ref().map(|machine| machine.agreement()) else { return false };
        if !node.correct || epoch != agreement.epoch() {
            return false;
        }
        let heard = &mut node.heard;
        if heard.epoch != epoch {
            *heard = Heard { epoch, ..Heard::default() };
        }
        let here = view == agreement.view();
        let kind_number = kind as u8;
        let above = (kind_number, signer, view.next())..=(kind_number, signer, View(u64::MAX));
        let made_room = kind == VoteKind::Commit && heard.votes.range(above).count() >= COMMITS_KEPT;
        match heard.votes.get(&(kind_number, signer, view)) {
            None => {
                heard.votes.insert((kind_number, signer, view), (what, here));
                false
            }
            Some((known, was_here)) => {
                *known != what && here && *was_here && !made_room && heard.convicted.insert((kind_number, signer, view))
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
