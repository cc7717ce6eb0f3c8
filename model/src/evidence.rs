//! What an honest validator must never have sent: two digests for one thing, or two messages that convict it.

use std::sync::Arc;

use tally_consensus::{Agreement, Output};
use tally_types::{VoteKind, vote::Ballot};

use crate::{
    config::Config,
    network::{observer, view_change, vote},
    validator::Sent,
};

/// Whether `sent` holds two different messages of one (kind, epoch, view).
pub fn signs_twice(sent: &[Arc<Sent>]) -> bool {
    pairs(sent).any(|(one, two)| match (one, two) {
        (Sent::Proposal { epoch, view, block, .. }, Sent::Proposal { epoch: e, view: v, block: b, .. }) => {
            (epoch, view) == (e, v) && block != b
        }
        (Sent::Ballot { epoch, ballot, .. }, Sent::Ballot { epoch: e, ballot: two, .. }) => {
            (epoch, ballot.kind(), ballot.view()) == (e, two.kind(), two.view()) && ballot != two
        }
        _ => false,
    })
}

/// Whether the core convicts the sender of something in `sent`, whichever of two messages it hears first.
pub fn convicts(config: &Config, sent: &[Arc<Sent>]) -> bool {
    pairs(sent).any(|(one, two)| hears(config, one, two) || hears(config, two, one))
}

fn hears(config: &Config, first: &Sent, second: &Sent) -> bool {
    let (Sent::Ballot { epoch, .. }, Sent::Ballot { epoch: other, .. }) = (first, second) else { return false };
    let mut observer = observer(&config.set(), *epoch);
    let mut outputs = Vec::new();
    tell(&mut observer, first, &mut outputs);
    tell(&mut observer, second, &mut outputs);
    epoch == other && outputs.iter().any(|output| matches!(output, Output::Convicted { .. }))
}

fn tell(observer: &mut Agreement, sent: &Sent, outputs: &mut Vec<Output>) {
    let Sent::Ballot { epoch, ballot, highest } = sent else { return };
    match *ballot {
        Ballot::Prepare(view, block) => observer.on_vote(&vote(*epoch, 1, VoteKind::Prepare, view, block), outputs),
        Ballot::Commit(view, block) => observer.on_vote(&vote(*epoch, 1, VoteKind::Commit, view, block), outputs),
        Ballot::ViewChange(view, _) => {
            observer.on_view_change(&view_change(*epoch, 1, view, highest.clone()), outputs);
        }
    }
}

fn pairs(sent: &[Arc<Sent>]) -> impl Iterator<Item = (&Sent, &Sent)> {
    sent.iter().enumerate().flat_map(|(at, one)| sent.iter().skip(at + 1).map(move |two| (one.as_ref(), two.as_ref())))
}
