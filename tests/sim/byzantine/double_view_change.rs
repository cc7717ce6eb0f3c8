//! It gives up views that nobody else gives up, twice each, and names another certificate each time.

use tally_consensus::Message;
use tally_types::{View, vote::Ballot};

use super::{Behaviour, Scene};

pub struct DoubleViewChange;

impl Behaviour for DoubleViewChange {
    fn on_time(&mut self, scene: &mut Scene<'_>) {
        let Some(agreement) = scene.machine.map(|machine| machine.agreement()) else { return };
        let (epoch, view, highest) = (agreement.epoch(), agreement.view(), agreement.highest().cloned());
        let Some(highest) = highest.filter(|highest| highest.view < view) else { return };
        let named = Ballot::ViewChange(view, highest.view);
        let changes: [Message; 2] = [
            scene.sign_ballot(epoch, named, Some(highest)),
            scene.sign_ballot(epoch, Ballot::ViewChange(view, View::ZERO), None),
        ];
        changes.into_iter().for_each(|change| scene.say(None, change));
    }
}
