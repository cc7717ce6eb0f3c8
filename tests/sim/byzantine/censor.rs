//! It keeps one lane out of blocks as far as that can be done without a trace: it never announces it, orders it in no block of its
//! own, and feeds its own lane to so few others that those who know both are no quorum. It answers nothing.

use tally_consensus::{Fetch, Message, Unsigned};
use tally_types::Tip;

use super::{Behaviour, Scene};

#[derive(Default)]
pub struct Censor {
    /// The victim's tip in the last block that it saw proposed.
    ordered: Tip,
}

/// Whose lane it is: the same for all who do this, but for the victim itself.
fn victim(scene: &Scene<'_>) -> usize {
    usize::from(scene.me != 1)
}

impl Behaviour for Censor {
    fn on_receive(&mut self, scene: &mut Scene<'_>, _from: usize, message: &Message) {
        if let Message::Proposal(proposal) = message {
            self.ordered = proposal.header.cut.get(victim(scene)).copied().unwrap_or_default();
        }
    }

    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let victim = victim(scene);
        match message {
            Message::Batch(_) => {
                // Of two validators there is none but the victim.
                let rest: Vec<usize> = scene.others().into_iter().filter(|other| *other != victim).collect();
                let few = rest.len().min(scene.others().len() / 3 + 1);
                rest.iter().cycle().skip(scene.me).take(few).for_each(|other| scene.say(Some(*other), message.clone()));
            }
            Message::Have(have) => {
                let mut vector = have.vector.clone();
                if let Some(tip) = vector.tips.get_mut(victim) {
                    *tip = Tip::START;
                }
                let have = scene.sign(Unsigned::Have { signer: have.signer, vector });
                scene.say(to, have);
            }
            // Rather no block than one that orders it.
            Message::Proposal(proposal) if proposal.header.cut.get(victim) != Some(&self.ordered) => {}
            other => scene.say(to, other.clone()),
        }
    }

    fn answers(&mut self, _fetch: &Fetch) -> bool {
        false
    }
}
