//! It announces batches that do not exist, and heights that nobody reached.

use tally_consensus::{Message, Unsigned};
use tally_types::{Hash, Height, Seq, Tip};

use super::{Behaviour, Scene};

pub struct FalseHave;

impl Behaviour for FalseHave {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let Message::Have(have) = message else { return scene.say(to, message.clone()) };
        let mut vector = have.vector.clone();
        for tip in &mut vector.tips {
            match scene.rng.below(4) {
                0 => *tip = Tip { seq: Seq(tip.seq.0 + 1), digest: Hash::tagged("made up", &[&tip.digest.0]) },
                1 => *tip = Tip { seq: Seq(tip.seq.0 + 40), digest: Hash::tagged("far", &[&tip.digest.0]) },
                // A made-up digest for a place where there is a batch.
                2 if tip.seq > Seq(0) => tip.digest = Hash::tagged("other", &[&tip.digest.0]),
                _ => {}
            }
        }
        if scene.rng.percent(50) {
            vector.executed = Height(vector.executed.0 + scene.rng.below(50));
            vector.final_height = Height(vector.final_height.0 + scene.rng.below(5000));
        }
        let false_have = scene.sign(Unsigned::Have { signer: have.signer, vector });
        scene.say(to, false_have);
    }
}
