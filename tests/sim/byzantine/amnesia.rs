//! It forgets across views: its VIEW-CHANGEs say that it never saw a PrepareQC, whatever it committed.

use tally_consensus::Message;
use tally_types::{View, VoteKind, vote::Ballot};

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
            // Views are given up only where something goes wrong: so it gives some up right after it committed.
            Message::Vote(vote) if vote.kind == VoteKind::Commit && scene.rng.percent(30) => {
                let forgot = scene.sign_ballot(vote.epoch, Ballot::ViewChange(vote.view.next(), View::ZERO), None);
                scene.say(to, message.clone());
                scene.say(to, forgot);
            }
            _ => scene.say(to, message.clone()),
        }
    }
}
