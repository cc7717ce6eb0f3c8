//! It floods the others with votes for views that are far away.

use tally_types::{Epoch, Hash, View, vote::Ballot};

use super::{Behaviour, Scene};

/// Votes at a time.
const FLOOD: u64 = 20;

pub struct FarViews;

impl Behaviour for FarViews {
    fn on_time(&mut self, scene: &mut Scene<'_>) {
        let Some(status) = scene.status() else { return };
        for _ in 0..FLOOD {
            let reach = scene.rng.choose(&[20, 1000, 1 << 40]);
            let view = View(status.view.0 + 1 + scene.rng.below(reach));
            let block = Hash::of(&scene.rng.next().to_be_bytes());
            let ballot = match scene.rng.below(3) {
                0 => Ballot::Prepare(view, block),
                1 => Ballot::Commit(view, block),
                _ => Ballot::ViewChange(view, View::ZERO),
            };
            let epoch = if scene.rng.percent(90) { status.epoch } else { Epoch(status.epoch.0 + scene.rng.below(5)) };
            let flood = scene.sign_ballot(epoch, ballot, None);
            scene.say(None, flood);
        }
    }
}
