//! As leader it proposes two blocks in one view, and votes for both.

use tally_consensus::Message;
use tally_types::{UnixMillis, vote::Ballot};

use super::{Behaviour, Scene, changed};

pub struct EquivocatingLeader;

impl Behaviour for EquivocatingLeader {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let Message::Proposal(proposal) = message else { return scene.say(to, message.clone()) };
        let other = changed(&proposal.header, |header| header.time = UnixMillis(header.time.0 + 1));
        let vote = scene.sign_ballot(proposal.epoch, Ballot::Prepare(proposal.view, other.hash()), None);
        let second = scene.propose(proposal, other, proposal.justification.clone());
        scene.say_by_halves(message, &second);
        scene.say(None, vote);
    }
}
