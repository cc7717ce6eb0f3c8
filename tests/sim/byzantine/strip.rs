//! It passes every proposal on at once, without the commit certificate that came with it: that is not signed. Where its copy comes
//! first, it must not count against the leader.

use std::sync::Arc;

use tally_consensus::Message;
use tally_types::{Epoch, Proposal, View};

use super::{Behaviour, Scene};

#[derive(Default)]
pub struct Strip {
    /// The highest view of which a proposal was passed on: only later ones are, or two of this kind would pass on each other's.
    passed_on: Option<(Epoch, View)>,
}

impl Behaviour for Strip {
    fn on_receive(&mut self, scene: &mut Scene<'_>, _from: usize, message: &Message) {
        let Message::Proposal(proposal) = message else { return };
        let place = Some((proposal.epoch, proposal.view));
        if place > self.passed_on {
            self.passed_on = place;
            let stripped = Proposal { highest_commit: None, ..Proposal::clone(proposal) };
            scene.say(None, Message::Proposal(Arc::new(stripped)));
        }
    }
}
