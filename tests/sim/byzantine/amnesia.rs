//! It forgets across views: its VIEW-CHANGEs say that it never saw a PrepareQC, whatever it committed.

use tally_consensus::Message;
use tally_types::{View, vote::Ballot};

use super::{Behaviour, Scene};

pub struct Amnesia;

impl Behaviour for Amnesia {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        match message {
            Message::ViewChange(change) if change.highest_view > View::ZERO => {
                let forgot = scene.sign_ballot(change.epoch, Ballot::ViewChange(change.view, View::ZERO), None);
                if scene.rng.percent(20) {
                    scene.say(to, message.clone());
                }
                scene.say(to, forgot);
            }
            _ => scene.say(to, message.clone()),
        }
    }

    /// Views are given up only where something goes wrong, so it gives some up by itself.
    fn on_time(&mut self, scene: &mut Scene<'_>) {
        let Some(status) = scene.status.clone().filter(|status| status.view > View(1)) else { return };
        if scene.rng.percent(20) {
            let forgot = scene.sign_ballot(status.epoch, Ballot::ViewChange(status.view, View::ZERO), None);
            scene.say(None, forgot);
        }
    }
}
