//! Its lane forks: different batches for one place, only to keep others waiting.

use tally_consensus::{Message, Unsigned};
use tally_types::Batch;

use super::{Behaviour, Scene};

pub struct LaneEquivocation;

impl Behaviour for LaneEquivocation {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let Message::Batch(signed) = message else { return scene.say(to, message.clone()) };
        let batch = &signed.batch;
        let mut transactions = batch.transactions().to_vec();
        transactions.push(transactions[0].clone());
        let other = Batch::new(batch.epoch(), batch.lane(), batch.parent_tip(), transactions);
        let second = scene.sign(Unsigned::Batch(other));
        match to {
            None => scene.say_by_halves(message, &second),
            Some(to) if scene.rng.percent(50) => scene.say(Some(to), second),
            Some(to) => scene.say(Some(to), message.clone()),
        }
    }
}
