//! It sends again what others said long ago, and changes some of it.

use std::sync::Arc;

use tally_consensus::Message;
use tally_types::{Epoch, Proposal, Signature, View};

use super::{Behaviour, Scene};

const KEPT: usize = 128;

#[derive(Default)]
pub struct Replay {
    heard: Vec<Message>,
}

impl Behaviour for Replay {
    fn on_receive(&mut self, scene: &mut Scene<'_>, _from: usize, message: &Message) {
        if self.heard.len() < KEPT {
            self.heard.push(message.clone());
        } else if scene.rng.percent(5) {
            let place = scene.rng.index(KEPT);
            self.heard[place] = message.clone();
        }
    }

    fn on_time(&mut self, scene: &mut Scene<'_>) {
        if self.heard.is_empty() {
            return;
        }
        for _ in 0..4 {
            let old = self.heard[scene.rng.index(self.heard.len())].clone();
            let message = if scene.rng.percent(50) { old } else { mutated(scene, old) };
            let to = scene.others();
            let to = Some(to[scene.rng.index(to.len())]);
            scene.say(to, message);
        }
    }
}

fn mutated(scene: &mut Scene<'_>, message: Message) -> Message {
    let draw = scene.rng.below(4);
    let bent = |mut signature: Signature| {
        signature.0[draw as usize] ^= 1;
        signature
    };
    match message {
        Message::Proposal(proposal) => {
            let mut proposal = Proposal::clone(&proposal);
            match draw {
                0 => proposal.view = proposal.view.next(),
                1 => proposal.highest_commit = None,
                2 => proposal.epoch = proposal.epoch.next(),
                _ => proposal.signature = bent(proposal.signature),
            }
            Message::Proposal(Arc::new(proposal))
        }
        Message::Vote(mut vote) => {
            match draw {
                0 => vote.view = vote.view.next(),
                1 => vote.signer = scene.me as u32,
                2 => vote.epoch = Epoch(vote.epoch.0 + 1),
                _ => vote.signature = bent(vote.signature),
            }
            Message::Vote(vote)
        }
        Message::ViewChange(mut change) => {
            match draw {
                0 => change.highest_view = View(change.highest_view.0 + 1),
                1 => change.highest = None,
                2 => change.view = change.view.next(),
                _ => change.signature = bent(change.signature),
            }
            Message::ViewChange(change)
        }
        Message::Batch(mut batch) => {
            batch.signature = bent(batch.signature);
            Message::Batch(batch)
        }
        Message::Have(have) => {
            let mut have = tally_types::Have::clone(&have);
            have.signature = bent(have.signature);
            Message::Have(Arc::new(have))
        }
        Message::Certificates { entry, highest_commit } => {
            Message::Certificates { entry: highest_commit, highest_commit: entry }
        }
    }
}
