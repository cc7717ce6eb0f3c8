//! It speaks to some only, and changes its mind about whom.

use tally_consensus::Message;

use super::{Behaviour, Scene};

#[derive(Default)]
pub struct SelectiveSending {
    shunned: u64,
}

impl Behaviour for SelectiveSending {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let all = match to {
            Some(to) => vec![to],
            None => scene.others(),
        };
        for to in all {
            if self.shunned >> to & 1 == 0 {
                scene.say(Some(to), message.clone());
            }
        }
    }

    fn on_time(&mut self, scene: &mut Scene<'_>) {
        if scene.rng.percent(5) {
            self.shunned = scene.rng.next();
        }
    }
}
