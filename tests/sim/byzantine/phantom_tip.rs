//! As leader it orders a batch of its own lane that nobody has: at a place where others hold one, under another digest.

use tally_consensus::Message;
use tally_types::{Hash, Seq, Tip};

use super::{Behaviour, Scene, changed};

#[derive(Default)]
pub struct PhantomTip {
    /// The end of its own lane.
    end: Seq,
    /// The block proposed last, and which place it orders: the same again when it is sent again.
    proposed: Option<(Hash, Seq)>,
}

impl Behaviour for PhantomTip {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let me = scene.me;
        match message {
            Message::Proposal(proposal) => {
                let honest = proposal.header.hash();
                let seq = match self.proposed {
                    Some((header, seq)) if header == honest => seq,
                    _ => self.end.max(proposal.header.cut[me].seq),
                };
                self.proposed = Some((honest, seq));
                let header = changed(&proposal.header, |header| {
                    header.cut[me] = Tip { seq, digest: Hash::of(b"nobody has it") };
                });
                let phantom = scene.propose(proposal, header, proposal.justification.clone());
                scene.say(to, phantom);
            }
            Message::Have(have) => {
                self.end = have.vector.tips[me].seq;
                scene.say(to, message.clone());
            }
            _ => scene.say(to, message.clone()),
        }
    }
}
