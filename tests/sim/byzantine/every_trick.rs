//! What a single validator can do against agreement, all at once: two proposals, votes for everything, VIEW-CHANGEs that
//! forget. Safety below a third must hold against this; the other kinds show what convicts each trick by itself.

use tally_consensus::Message;

use super::{Behaviour, Scene, amnesia::Amnesia, eager_voter::EagerVoter, equivocating_leader::EquivocatingLeader};

#[derive(Default)]
pub struct EveryTrick {
    voter: EagerVoter,
}

impl Behaviour for EveryTrick {
    fn on_receive(&mut self, scene: &mut Scene<'_>, from: usize, message: &Message) {
        self.voter.on_receive(scene, from, message);
    }

    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        match message {
            Message::Proposal(_) => EquivocatingLeader.on_send(scene, to, message),
            _ => Amnesia.on_send(scene, to, message),
        }
    }
}
