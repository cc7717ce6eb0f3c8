//! It puts transactions into its lane that nobody signed.

use bytes::Bytes;
use tally_consensus::{Message, Unsigned};
use tally_types::Batch;

use super::{Behaviour, Scene};

pub struct ForgedBatch;

impl Behaviour for ForgedBatch {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let Message::Batch(signed) = message else { return scene.say(to, message.clone()) };
        if scene.rng.percent(50) {
            return scene.say(to, message.clone());
        }
        let batch = &signed.batch;
        let mut transactions = batch.transactions().to_vec();
        let mut forged = transactions[0].to_vec();
        let at = match scene.rng.below(2) {
            // A byte of the signature, which stands last.
            0 => forged.len() - 10,
            // A byte of the body.
            _ => scene.rng.index(forged.len()),
        };
        forged[at] ^= 1;
        transactions[0] = Bytes::from(forged);
        let other = Batch::new(batch.epoch(), batch.lane(), batch.parent_tip(), transactions);
        let forged = scene.sign(Unsigned::Batch(other));
        scene.say(to, forged);
    }
}
