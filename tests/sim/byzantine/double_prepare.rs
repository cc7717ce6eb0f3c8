//! It sends two PREPAREs in one view.

use tally_consensus::Message;
use tally_types::{Hash, VoteKind, vote::Ballot};

use super::{Behaviour, Scene};

pub struct DoublePrepare;

impl Behaviour for DoublePrepare {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        match message {
            Message::Vote(vote) if vote.kind == VoteKind::Prepare => {
                let other = Hash::tagged("another", &[&vote.block.0]);
                let second = scene.sign_ballot(vote.epoch, Ballot::Prepare(vote.view, other), None);
                scene.say_by_halves(message, &second);
            }
            _ => scene.say(to, message.clone()),
        }
    }
}
