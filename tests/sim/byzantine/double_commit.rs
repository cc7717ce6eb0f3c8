//! It sends two COMMITs in one view, and commits what it merely prepared.

use tally_consensus::Message;
use tally_types::{Hash, VoteKind, vote::Ballot};

use super::{Behaviour, Scene};

pub struct DoubleCommit;

impl Behaviour for DoubleCommit {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        match message {
            Message::Vote(vote) if vote.kind == VoteKind::Commit => {
                let other = Hash::tagged("another", &[&vote.block.0]);
                let second = scene.sign_ballot(vote.epoch, Ballot::Commit(vote.view, other), None);
                scene.say_by_halves(message, &second);
            }
            Message::Vote(vote) => {
                let early = scene.sign_ballot(vote.epoch, Ballot::Commit(vote.view, vote.block), None);
                scene.say(to, message.clone());
                scene.say(to, early);
            }
            _ => scene.say(to, message.clone()),
        }
    }
}
