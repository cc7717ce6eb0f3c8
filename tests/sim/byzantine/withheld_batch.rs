//! It streams its batches to a bare quorum, or to the leader alone, and gives them to nobody who asks.

use tally_consensus::{Fetch, Message};
use tally_types::Stake;

use super::{Behaviour, Scene};

#[derive(Default)]
pub struct WithheldBatch;

impl Behaviour for WithheldBatch {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        if !matches!(message, Message::Batch(_)) {
            return scene.say(to, message.clone());
        }
        let leader = scene.status.as_ref().and_then(|status| scene.validators().place_of(&status.leader));
        if scene.rng.percent(50) {
            return scene
                .say(leader.map(|leader| leader as usize).filter(|leader| *leader != scene.me), message.clone());
        }
        let mut others = scene.others();
        scene.rng.shuffle(&mut others);
        let mut sum = scene.validators().stake(scene.me as u32).0;
        for other in others {
            if Stake(sum) >= scene.validators().quorum() {
                break;
            }
            sum += scene.validators().stake(other as u32).0;
            scene.say(Some(other), message.clone());
        }
    }

    fn answers(&mut self, fetch: &Fetch) -> bool {
        !matches!(fetch, Fetch::Batches(_))
    }
}
