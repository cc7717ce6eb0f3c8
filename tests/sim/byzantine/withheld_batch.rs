//! It streams its batches to a bare quorum, or to the leader alone, and gives them to nobody who asks.

use std::collections::BTreeMap;

use tally_consensus::{Fetch, Message};
use tally_types::{Hash, Stake};

use super::{Behaviour, Scene};

/// Batches whose receivers are remembered.
const KEPT: usize = 256;

#[derive(Default)]
pub struct WithheldBatch {
    /// Who gets a batch, however often it is sent.
    receivers: BTreeMap<Hash, Vec<usize>>,
}

impl WithheldBatch {
    fn receivers(scene: &mut Scene<'_>) -> Vec<usize> {
        if scene.rng.percent(50) {
            let leader = scene.status().and_then(|status| scene.validators().place_of(&status.leader));
            return leader.map(|leader| leader as usize).filter(|leader| *leader != scene.me).into_iter().collect();
        }
        let mut others = scene.others();
        scene.rng.shuffle(&mut others);
        let mut sum = scene.validators().stake(scene.me as u32).0;
        others.retain(|other| {
            let lacks = Stake(sum) < scene.validators().quorum();
            sum += if lacks { scene.validators().stake(*other as u32).0 } else { 0 };
            lacks
        });
        others
    }
}

impl Behaviour for WithheldBatch {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let Message::Batch(batch) = message else { return scene.say(to, message.clone()) };
        if self.receivers.len() >= KEPT {
            self.receivers.pop_first();
        }
        let receivers = self.receivers.entry(batch.batch.digest()).or_insert_with(|| WithheldBatch::receivers(scene));
        for receiver in receivers.iter().filter(|receiver| to.is_none_or(|to| to == **receiver)) {
            scene.say(Some(*receiver), message.clone());
        }
    }

    fn answers(&mut self, fetch: &Fetch) -> bool {
        !matches!(fetch, Fetch::Batches(_))
    }
}
