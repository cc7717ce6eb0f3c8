//! It votes for everything it hears of, PREPARE and COMMIT, whatever it voted for before.

use std::collections::BTreeSet;

use tally_consensus::Message;
use tally_types::{Epoch, Hash, View, VoteKind, vote::Ballot};

use super::{Behaviour, Scene};

/// Blocks remembered, so that each gets its votes once.
const KEPT: usize = 256;

#[derive(Default)]
pub struct EagerVoter {
    voted: BTreeSet<(Epoch, View, Hash)>,
}

impl Behaviour for EagerVoter {
    fn on_receive(&mut self, scene: &mut Scene<'_>, _from: usize, message: &Message) {
        let (epoch, view, block) = match message {
            Message::Proposal(proposal) => (proposal.epoch, proposal.view, proposal.header.hash()),
            Message::Vote(vote) if vote.kind == VoteKind::Prepare => (vote.epoch, vote.view, vote.block),
            _ => return,
        };
        if self.voted.insert((epoch, view, block)) {
            for ballot in [Ballot::Prepare(view, block), Ballot::Commit(view, block)] {
                let vote = scene.sign_ballot(epoch, ballot, None);
                scene.say(None, vote);
            }
            if self.voted.len() > KEPT {
                self.voted.pop_first();
            }
        }
    }
}
