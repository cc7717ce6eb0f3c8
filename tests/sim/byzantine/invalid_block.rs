//! As leader it proposes blocks that break one of the rules P2.2 to P2.6.

use tally_consensus::Message;
use tally_types::{Hash, Height, Seq, Tip, UnixMillis, View};

use super::{Behaviour, Scene, changed};

pub struct InvalidBlock;

impl Behaviour for InvalidBlock {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let Message::Proposal(proposal) = message else { return scene.say(to, message.clone()) };
        // By the block's hash: the same again when it is sent again.
        let lags =
            proposal.header.height.above(proposal.header.executed.height) > scene.genesis.params.execution_window;
        let breach = if lags { 11 } else { proposal.header.hash().0[0] % 11 };
        let header = changed(&proposal.header, |header| match breach {
            0 => header.time = UnixMillis(1),
            1 => header.height = header.height.next(),
            2 => header.view = View(header.view.0 + 1),
            3 => header.proposer = (header.proposer + 1) % header.cut.len() as u32,
            4 => header.cut[0] = Tip { seq: Seq(header.cut[0].seq.0 + 33), digest: Hash::of(b"too far") },
            5 => header.executed.height = Height(header.height.0 + 7),
            6 => header.validators = Hash::of(b"another set"),
            7 => header.next_validators = Hash::of(b"another next set"),
            8 => header.parent = Hash::of(b"another parent"),
            9 => header.epoch = header.epoch.next(),
            // P2.6: no lane moves now.
            11 => header.cut[0] = Tip { seq: header.cut[0].seq.next(), digest: Hash::of(b"now") },
            _ => header.cut.iter_mut().for_each(|tip| *tip = Tip::START),
        });
        let invalid = scene.propose(proposal, header, proposal.justification.clone());
        scene.say(to, invalid);
    }
}
