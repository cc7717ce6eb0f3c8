//! One lane: the chain accepted into it, what is ordered, and how far everybody announced it. Rules D2, D3, D4.

use std::collections::{BTreeMap, VecDeque};

use tally_types::{Batch, Hash, Seq, Signature, SignedBatch, Stake, Tip, ValidatorSet};

use crate::config::{ANNOUNCEMENTS_KEPT, LANE_WINDOW};

/// One lane of the current epoch.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Highest accepted.
    pub tip: Tip,
    /// Up to which the final chain orders it.
    pub ordered: Tip,
    /// Accepted and above what is ordered and released, with the producer's signature (own ones get it a turn later).
    pub chain: BTreeMap<Seq, (Hash, Option<Signature>)>,
    /// Arrived before the one they follow.
    pub early: BTreeMap<Seq, SignedBatch>,
    /// Per validator, what it announced.
    pub announced: Vec<Announced>,
    /// How far each of them announced the chain accepted here, the furthest first.
    far: Vec<(Seq, u32)>,
    /// How far a quorum, and a weak quorum, announced the chain accepted here. Counted when something changes: it is asked on
    /// every turn, for every lane.
    reached: Reached,
    /// The highest tip above what was accepted that a weak quorum announced; outer `None`: to be found out anew. Rule D4.
    pub ahead: Option<Option<Tip>>,
}

/// What one validator announced of a lane.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    /// Tips, latest last.
    pub tips: VecDeque<Tip>,
    /// The highest sequence among them.
    pub highest: Seq,
    /// Highest sequence up to which they announce the chain accepted here, counting links known here only. Rule D4.
    pub on_chain: Seq,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    quorum: Seq,
    weak: Seq,
}

/// How much stake must have announced a tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    Quorum,
    WeakQuorum,
}

impl Backing {
    pub fn stake(self, set: &ValidatorSet) -> Stake {
        match self {
            Backing::Quorum => set.quorum(),
            Backing::WeakQuorum => set.weak_quorum(),
        }
    }
}

impl Lane {
    /// The lane at the start of an epoch with these validators.
    pub fn new(set: &ValidatorSet) -> Lane {
        let mut lane = Lane { announced: vec![Announced::default(); set.len()], ..Lane::default() };
        lane.count_all(set);
        lane
    }

    pub fn is_on_chain(&self, tip: &Tip) -> bool {
        // Most announcements are ahead of what is here.
        let reached = tip.seq <= self.tip.seq;
        reached && (*tip == self.ordered || self.chain.get(&tip.seq).is_some_and(|(digest, _)| *digest == tip.digest))
    }

    /// The highest known tip of the chain accepted here, up to `seq`.
    pub fn tip_at(&self, seq: Seq) -> Option<Tip> {
        let accepted =
            self.chain.range(..=seq).next_back().map(|(seq, (digest, _))| Tip { seq: *seq, digest: *digest });
        let ordered = Some(self.ordered).filter(|ordered| ordered.seq <= seq);
        match (accepted, ordered) {
            (Some(accepted), Some(ordered)) if accepted.seq < ordered.seq => Some(ordered),
            (accepted, ordered) => accepted.or(ordered),
        }
    }

    /// Those of `places` that announced exactly `tip`, or a tip known here to link to it.
    pub fn announcers(&self, tip: &Tip, places: impl Iterator<Item = u32>) -> impl Iterator<Item = u32> {
        let on_chain = self.is_on_chain(tip);
        places.filter(move |place| {
            let announced = usize::try_from(*place).ok().and_then(|at| self.announced.get(at));
            announced.is_some_and(|one| one.tips.contains(tip) || (on_chain && one.on_chain >= tip.seq))
        })
    }

    /// How far validators with `backing` announced the chain accepted here.
    pub fn reached_by(&self, backing: Backing) -> Seq {
        match backing {
            Backing::Quorum => self.reached.quorum,
            Backing::WeakQuorum => self.reached.weak,
        }
    }

    /// Notes a tip that `place` announced. Rule D4.
    pub fn announce(&mut self, place: u32, tip: &Tip, set: &ValidatorSet) {
        let on_chain = self.is_on_chain(tip);
        let Some(announced) = usize::try_from(place).ok().and_then(|at| self.announced.get_mut(at)) else { return };
        if *tip == Tip::START || announced.tips.back() == Some(tip) {
            return;
        }
        let before = announced.on_chain;
        let makes_room = announced.tips.len() >= ANNOUNCEMENTS_KEPT;
        let gone = if makes_room { announced.tips.pop_front().map(|tip| tip.seq) } else { None };
        announced.tips.push_back(*tip);
        announced.highest = announced.highest.max(tip.seq);
        if on_chain {
            announced.on_chain = announced.on_chain.max(tip.seq);
        }
        if gone == Some(announced.highest) || gone == Some(before) {
            self.count_place(place);
        }
        if tip.seq.max(gone.unwrap_or_default()) > self.tip.seq {
            self.ahead = None;
        }
        let now = self.on_chain(place);
        if now != before {
            self.far.retain(|(_, other)| *other != place);
            let at = self.far.partition_point(|other| *other > (now, place));
            self.far.insert(at, (now, place));
            self.count_stake(set);
        }
    }

    fn on_chain(&self, place: u32) -> Seq {
        let announced = usize::try_from(place).ok().and_then(|at| self.announced.get(at));
        announced.map_or(Seq::ZERO, |announced| announced.on_chain)
    }

    /// Makes a batch the tip.
    pub fn put(&mut self, batch: &Batch, signature: Option<Signature>, set: &ValidatorSet) {
        self.tip = batch.tip();
        self.ahead = None;
        self.chain.insert(batch.seq(), (batch.digest(), signature));
        // Whoever had announced it already is now known to be that far.
        if self.announced.iter().any(|announced| announced.tips.contains(&self.tip)) {
            self.count_all(set);
        }
    }

    /// A final block orders the lane up to `tip`, which is above what was ordered. Rules D2, D3: a lane on another chain goes
    /// on from there, if that is no step back. What was accepted above it was announced, and is kept.
    pub fn order(&mut self, tip: &Tip, set: &ValidatorSet) {
        let on_chain = self.chain.get(&tip.seq).is_some_and(|(digest, _)| *digest == tip.digest);
        if !on_chain && tip.seq >= self.tip.seq {
            self.tip = *tip;
            self.chain.clear();
            self.early.clear();
        }
        self.ordered = *tip;
        self.ahead = None;
        // Some ordered links stay: late announcements still count for them, and a second batch still convicts.
        let keep_from = Seq(tip.seq.0.saturating_sub(LANE_WINDOW));
        self.chain = self.chain.split_off(&keep_from);
        self.early = self.early.split_off(&tip.seq.next());
        self.count_all(set);
    }

    /// Counts anew how far `place` announced the chain accepted here.
    fn count_place(&mut self, place: u32) {
        let Some(at) = usize::try_from(place).ok() else { return };
        let Some(announced) = self.announced.get(at) else { return };
        let on_chain = announced.tips.iter().filter(|tip| self.is_on_chain(tip)).map(|tip| tip.seq).max();
        let highest = announced.tips.iter().map(|tip| tip.seq).max();
        if let Some(announced) = self.announced.get_mut(at) {
            announced.on_chain = on_chain.unwrap_or_default();
            announced.highest = highest.unwrap_or_default();
        }
    }

    /// Counts anew how far the chain is announced by how much stake.
    fn count_stake(&mut self, set: &ValidatorSet) {
        self.reached = Reached {
            quorum: reach(&self.far, Backing::Quorum.stake(set), set),
            weak: reach(&self.far, Backing::WeakQuorum.stake(set), set),
        };
    }

    /// How far validators of `places` with `stake` announced the chain accepted here.
    pub fn reached_together(&self, places: &[u32], stake: Stake, set: &ValidatorSet) -> Seq {
        reach(&self.falling(places.iter().copied()), stake, set)
    }

    /// How far each of `places` announced the chain accepted here, the furthest first.
    fn falling(&self, places: impl Iterator<Item = u32>) -> Vec<(Seq, u32)> {
        let mut far: Vec<_> = places.map(|place| (self.on_chain(place), place)).collect();
        far.sort_unstable_by(|one, two| two.cmp(one));
        far
    }

    /// The chain accepted here has changed.
    fn count_all(&mut self, set: &ValidatorSet) {
        for place in set.places() {
            self.count_place(place);
        }
        self.far = self.falling(set.places());
        self.count_stake(set);
    }
}

/// How far those with `stake` are: a weighted quantile of `far`, which falls.
fn reach(far: &[(Seq, u32)], stake: Stake, set: &ValidatorSet) -> Seq {
    let mut sum = Stake::ZERO;
    let enough = far.iter().find(|(_, place)| {
        sum = Stake(sum.0.saturating_add(set.stake(*place).0));
        sum >= stake
    });
    enough.map_or(Seq::default(), |(seq, _)| *seq)
}
