//! It commits nothing, and has as many others as a prepare quorum can do without give up each view that it leads before they can
//! prepare its block: prepared by a quorum, committed by none, such blocks become final by their descendants only, and without a
//! trace.

use std::collections::BTreeSet;

use tally_consensus::Message;
use tally_types::{Epoch, View, VoteKind, vote::Ballot};

use super::{Behaviour, Scene};

/// Views remembered.
const KEPT: usize = 64;

#[derive(Default)]
pub struct WithheldCommit {
    /// Views that it told some others it gives up.
    given_up: BTreeSet<(Epoch, View)>,
}

fn is_commit(message: &Message) -> bool {
    matches!(message, Message::Vote(vote) if vote.kind == VoteKind::Commit)
}

/// Whom a prepare quorum can do without, drawn anew each time.
fn left_out(scene: &mut Scene<'_>) -> Vec<usize> {
    let mut others = scene.others();
    scene.rng.shuffle(&mut others);
    let spare = scene.validators().total().0 - scene.validators().quorum().0;
    let mut sum = 0;
    others.retain(|other| {
        let stake = scene.validators().stake(*other as u32).0;
        let fits = sum + stake <= spare;
        sum += if fits { stake } else { 0 };
        fits
    });
    others
}

impl Behaviour for WithheldCommit {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        match message {
            _ if is_commit(message) => {}
            Message::Proposal(proposal) if to.is_none() => {
                let left_out = left_out(scene);
                let give_up = scene.sign_ballot(proposal.epoch, Ballot::ViewChange(proposal.view, View::ZERO), None);
                for other in scene.others() {
                    scene.say(Some(other), if left_out.contains(&other) { &give_up } else { message }.clone());
                }
                self.given_up.insert((proposal.epoch, proposal.view));
                if self.given_up.len() > KEPT {
                    self.given_up.pop_first();
                }
            }
            // Another one for the same view would convict it.
            Message::ViewChange(change) if self.given_up.contains(&(change.epoch, change.view)) => {}
            _ => scene.say(to, message.clone()),
        }
    }

    fn hears_itself(&mut self, message: &Message) -> bool {
        !is_commit(message)
    }
}
