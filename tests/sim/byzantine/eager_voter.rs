//! It votes for everything it hears of, PREPARE and COMMIT, whatever it voted for before.

use std::collections::BTreeSet;

use tally_consensus::Message;
use tally_types::{Epoch, Hash, View, VoteKind, vote::Ballot};

use super::{Behaviour, Scene};

/// Blocks remembered, so that each gets its votes once.
const KEPT: usize = 256;
/// Views ahead of its own in which it believes: those of liars would push out what it remembers.
const AHEAD: u64 = 16;

#[derive(Default)]
pub struct EagerVoter {
    voted: BTreeSet<(Epoch, View, Hash)>,
    /// What it no longer remembers ends here: voting for that again, two of this kind would answer each other for ever.
    forgot: Option<(Epoch, View, Hash)>,
}

impl Behaviour for EagerVoter {
    fn on_receive(&mut self, scene: &mut Scene<'_>, _from: usize, message: &Message) {
        let (epoch, view, block) = match message {
            Message::Proposal(proposal) => (proposal.epoch, proposal.view, proposal.header.hash()),
            Message::Vote(vote) if vote.kind == VoteKind::Prepare => (vote.epoch, vote.view, vote.block),
            _ => return,
        };
        let believes = scene.status().is_some_and(|at| epoch <= at.epoch && view <= at.view.plus(AHEAD));
        if believes && Some((epoch, view, block)) > self.forgot && self.voted.insert((epoch, view, block)) {
            for ballot in [Ballot::Prepare(view, block), Ballot::Commit(view, block)] {
                let vote = scene.sign_ballot(epoch, ballot, None);
                scene.say(None, vote);
            }
            if self.voted.len() > KEPT {
                self.forgot = self.voted.pop_first();
            }
        }
    }
}
