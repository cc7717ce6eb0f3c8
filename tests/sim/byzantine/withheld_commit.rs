//! It commits nothing, and has one other give up each view that it leads before that one can prepare its block: prepared by a
//! quorum, committed by none, such blocks become final by their descendants only, any number in a row and without a trace.

use tally_consensus::Message;
use tally_types::{View, VoteKind, vote::Ballot};

use super::{Behaviour, Scene};

pub struct WithheldCommit;

impl Behaviour for WithheldCommit {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        match message {
            Message::Vote(vote) if vote.kind == VoteKind::Commit => {}
            Message::Proposal(proposal) if to.is_none() => {
                let others = scene.others();
                let Some(left_out) = others.get(scene.me % others.len().max(1)).copied() else { return };
                let give_up = scene.sign_ballot(proposal.epoch, Ballot::ViewChange(proposal.view, View::ZERO), None);
                scene.say(Some(left_out), give_up);
                others
                    .iter()
                    .filter(|other| **other != left_out)
                    .for_each(|other| scene.say(Some(*other), message.clone()));
            }
            _ => scene.say(to, message.clone()),
        }
    }
}
