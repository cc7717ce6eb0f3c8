//! It says nothing for long stretches, and answers nothing.

use tally_consensus::{Fetch, Message};

use super::{Behaviour, Scene};

#[derive(Default)]
pub struct Silence {
    speaks: bool,
}

impl Behaviour for Silence {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        if self.speaks {
            scene.say(to, message.clone());
        }
    }

    fn on_time(&mut self, scene: &mut Scene<'_>) {
        if scene.rng.percent(2) {
            self.speaks = !self.speaks;
        }
    }

    fn answers(&mut self, _fetch: &Fetch) -> bool {
        self.speaks
    }
}
