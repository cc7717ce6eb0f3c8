//! It streams its lane so that every validator announces another tip of it, and some hear nothing at all: who has no link between
//! two tips must count them apart. It votes for nothing, leads nothing, and answers with less than it is asked for. Several leave out
//! different validators, so that few know the tips of all their lanes.
//!
//! A validator announces the last of what it accepted together. So each gets the batches in bundles, the first of a bundle last, and
//! the bundles of no two validators end alike.

use std::collections::BTreeMap;

use tally_consensus::Message;

use super::{Behaviour, Scene};
use crate::network::Answer;

/// Batches of a bundle that is not complete: more than a lane may run ahead.
const BUNDLE_MAX: usize = 64;

#[derive(Default)]
pub struct Drip {
    /// Per receiver, what will be its next bundle.
    bundles: BTreeMap<usize, Vec<Message>>,
    /// First batches of bundles whose others are on their way.
    firsts: Vec<(usize, Message)>,
}

impl Behaviour for Drip {
    fn on_send(&mut self, scene: &mut Scene<'_>, to: Option<usize>, message: &Message) {
        let batch = match message {
            Message::Batch(batch) if to.is_none() => batch,
            Message::Batch(_) | Message::Proposal(_) | Message::Vote(_) | Message::ViewChange(_) => return,
            Message::Have(_) | Message::Certificates { .. } => return scene.say(to, message.clone()),
        };
        let others = scene.others();
        // Those that come next in the circle.
        let victims = (others.len() / 3).div_ceil(2);
        let (me, count) = (scene.me, others.len() + 1);
        let left_out = |other: usize| (1..=victims).any(|step| (me + step) % count == other);
        for (index, other) in others.iter().copied().enumerate().filter(|(_, other)| !left_out(*other)) {
            let bundle = self.bundles.entry(other).or_default();
            bundle.push(message.clone());
            if (batch.batch.seq().0 as usize + index).is_multiple_of(others.len()) || bundle.len() >= BUNDLE_MAX {
                let mut bundle = std::mem::take(bundle).into_iter();
                self.firsts.extend(bundle.next().map(|first| (other, first)));
                bundle.for_each(|later| scene.say(Some(other), later));
            }
        }
    }

    fn on_time(&mut self, scene: &mut Scene<'_>) {
        for (to, first) in self.firsts.drain(..) {
            scene.say(Some(to), first);
        }
    }

    fn on_answer(&mut self, _scene: &mut Scene<'_>, answer: Answer) -> Answer {
        match answer {
            Answer::Batches(batches) => Answer::Batches(batches.into_iter().take(1).collect()),
            other => other,
        }
    }
}
