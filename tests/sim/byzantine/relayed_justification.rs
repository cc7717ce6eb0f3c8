//! It relays honest proposals with another valid justification, and signs its own with two.

use std::sync::Arc;

use bytes::Bytes;
use tally_consensus::Message;
use tally_types::{Certificate, Epoch, Proposal, View};

use super::{Behaviour, Scene};

const KEPT: usize = 32;

#[derive(Default)]
pub struct RelayedJustification {
    /// Certificates that verify: what its machine was let in with, and what others sent.
    valid: Vec<Arc<Certificate>>,
    /// The highest view of which a proposal was relayed: only later ones are, or two of this kind would relay each other's
    /// relays for ever.
    relayed: Option<(Epoch, View)>,
}

impl RelayedJustification {
    /// A valid certificate other than `this`, one for the same view if there is.
    fn another(&self, scene: &mut Scene<'_>, this: &Proposal) -> Option<Arc<Certificate>> {
        let differs = |one: &&Arc<Certificate>| Some(*one) != this.justification.as_ref();
        let others: Vec<_> = self.valid.iter().filter(differs).collect();
        let fits = others.iter().find(|one| one.epoch == this.epoch && one.view.next() == this.view);
        let any = |scene: &mut Scene<'_>| others.get(scene.rng.index(others.len().max(1))).copied();
        fits.copied().or_else(|| any(scene)).cloned()
    }
}

impl Behaviour for RelayedJustification {
    fn on_receive(&mut self, scene: &mut Scene<'_>, _from: usize, message: &Message) {
        if let Message::Certificates { entry, highest_commit } = message {
            self.valid.extend(entry.iter().chain(highest_commit).cloned());
        }
        let Message::Proposal(proposal) = message else { return };
        self.valid.extend(proposal.justification.iter().chain(&proposal.highest_commit).cloned());
        self.valid.extend(scene.machine.and_then(|machine| machine.agreement().entry().cloned()));
        let excess = self.valid.len().saturating_sub(KEPT);
        self.valid.drain(..excess);
        let place = Some((proposal.epoch, proposal.view));
        if place <= self.relayed {
            return;
        }
        self.relayed = place;
        // It is no proposal of the leader's: whoever gets one hangs up for a while.
        if scene.rng.percent(90) {
            return;
        }
        if let Some(other) = self.another(scene, proposal) {
            let justification_bytes = Bytes::from(other.encode());
            let relayed = Proposal { justification: Some(other), justification_bytes, ..Proposal::clone(proposal) };
            scene.say(None, Message::Proposal(Arc::new(relayed)));
        }
    }

    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        scene.say(to, message.clone());
        if let Message::Proposal(proposal) = message
            && let Some(other) = self.another(scene, proposal)
        {
            // Another J under the same block is no offence.
            let again = scene.propose(proposal, proposal.header.clone(), Some(other));
            scene.say(to, again);
        }
    }
}
