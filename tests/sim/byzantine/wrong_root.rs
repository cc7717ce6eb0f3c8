//! As leader it names a state that execution did not lead to.

use tally_consensus::Message;
use tally_types::Hash;

use super::{Behaviour, Scene, changed};

pub struct WrongRoot;

impl Behaviour for WrongRoot {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let Message::Proposal(proposal) = message else { return scene.say(to, message.clone()) };
        // By the block's hash: the same again when it is sent again.
        let draw = proposal.header.hash().0[0] % 2;
        let header = changed(&proposal.header, |header| match draw {
            0 => header.executed.state_root = Hash::of(b"more for me"),
            _ => header.executed.receipts_root = Hash::of(b"it never happened"),
        });
        let wrong = scene.propose(proposal, header, proposal.justification.clone());
        scene.say(to, wrong);
    }
}
