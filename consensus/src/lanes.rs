//! Dissemination: every validator's lane of batches, spread before anybody orders them. Rules D1 to D6.
//!
//! It holds batches by digest, so the payload of a block is the hash chain behind the block's tip, whatever chain this
//! replica accepted into the lane itself.

mod lane;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use tally_types::{
    Batch, Epoch, Hash, Seq, Signature, SignedBatch, Stake, Tip, ValidatorSet,
    batch::{BATCH_BYTES_MAX, BATCH_TRANSACTIONS_MAX},
};

use crate::{
    config::{BLOCK_BATCHES_MAX, CUT_ADVANCE_MAX, EARLY_BATCHES_MAX, LANE_WINDOW},
    event::Reject,
};
pub(crate) use lane::Backing;
use lane::{Announced, Lane};

/// Transaction bytes a batch aims at; the rest of [`BATCH_BYTES_MAX`] is framing and one last transaction.
const BATCH_BYTES_TARGET: usize = BATCH_BYTES_MAX - 16 * 1024;

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Accept {
    /// It, and perhaps early ones after it, were accepted into the lane.
    Accepted(Vec<SignedBatch>),
    /// It was here already, or waits for the one before.
    Known,
    /// It was dropped.
    Dropped(Reject),
    /// Its producer signed another batch for this place: that one's digest and signature.
    Contradicts(Hash, Signature),
}

/// All lanes of one epoch, and every batch held.
#[derive(Debug)]
pub(crate) struct Lanes {
    epoch: Epoch,
    set: ValidatorSet,
    me: Option<u32>,
    lanes: Vec<Lane>,
    held: BTreeMap<Hash, Batch>,
    /// The last place of its own lanes that this replica has sealed a batch for.
    sealed: (Epoch, Seq),
    /// Own transactions not in a batch yet, and when the first of them came.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    waiting_since: Option<u64>,
}

impl Lanes {
    pub fn new(epoch: Epoch, set: ValidatorSet, me: Option<u32>) -> Lanes {
        let mut lanes = Lanes {
            epoch,
            set,
            me,
            lanes: Vec::new(),
            held: BTreeMap::new(),
            sealed: (Epoch::ZERO, Seq::ZERO),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_since: None,
        };
        lanes.clear_lanes();
        lanes
    }

    fn clear_lanes(&mut self) {
        self.lanes = self.set.places().map(|_| Lane::new(&self.set)).collect();
    }

    /// Rule P5: the lanes of an epoch end with it. What is not ordered lapses; this replica's own transactions among it wait
    /// for its lane of the new epoch. `keep` are the digests that final blocks still need.
    pub fn next_epoch(&mut self, epoch: Epoch, set: ValidatorSet, me: Option<u32>, keep: &BTreeSet<Hash>, now: u64) {
        let lapsed = self.lapsed();
        self.epoch = epoch;
        self.set = set;
        self.me = me;
        self.clear_lanes();
        let old = std::mem::take(&mut self.held);
        self.held = old.into_iter().filter(|(digest, _)| keep.contains(digest)).collect();
        for transaction in lapsed.into_iter().rev() {
            self.waiting_bytes = self.waiting_bytes.saturating_add(transaction.len());
            self.waiting.push_front(transaction);
        }
        if !self.waiting.is_empty() {
            self.waiting_since = Some(now);
        }
    }

    /// Transactions of this replica's own lane that nothing final orders.
    fn lapsed(&self) -> Vec<Bytes> {
        let Some(lane) = self.own() else { return Vec::new() };
        let above = lane.chain.range(lane.ordered.seq.next()..);
        let batches = above.filter_map(|(_, (digest, _))| self.held.get(digest));
        batches.flat_map(|batch| batch.transactions().iter().cloned()).collect()
    }

    fn lane(&self, place: u32) -> Option<&Lane> {
        self.lanes.get(usize::try_from(place).ok()?)
    }

    fn lane_mut(&mut self, place: u32) -> Option<&mut Lane> {
        self.lanes.get_mut(usize::try_from(place).ok()?)
    }

    fn own(&self) -> Option<&Lane> {
        self.lane(self.me?)
    }

    // Own transactions.

    /// Takes in client transactions. Their bound is kept by the caller, who asks [`Lanes::waiting_bytes`] first.
    pub fn add_transactions(&mut self, transactions: Vec<Bytes>, now: u64) {
        for transaction in transactions {
            self.waiting_bytes = self.waiting_bytes.saturating_add(transaction.len());
            self.waiting.push_back(transaction);
            self.waiting_since.get_or_insert(now);
        }
    }

    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// When the next batch is due; none if nothing waits or the lane is a window ahead of what is ordered. Rules D1, D5.
    pub fn seal_due(&self, batch_delay: u64) -> Option<u64> {
        let since = self.waiting_since?;
        let lane = self.own()?;
        // Only a dishonest quorum takes a lane to the last number there is; two batches would share it.
        let is_last = lane.tip.seq.next() == lane.tip.seq;
        // Only a dishonest quorum makes two chains final, of which a restart may lead to the other: no place has a second batch there.
        let was_sealed = (self.epoch, lane.tip.seq.next()) <= self.sealed;
        if is_last || was_sealed || lane.tip.seq.next().above(lane.ordered.seq) > LANE_WINDOW {
            return None;
        }
        let full = self.waiting_bytes >= BATCH_BYTES_TARGET || self.waiting.len() >= BATCH_TRANSACTIONS_MAX;
        let nothing_in_flight = lane.tip.seq <= lane.ordered.seq;
        Some(if full || nothing_in_flight { since } else { since.saturating_add(batch_delay) })
    }

    /// Seals the next batch of this replica's lane and accepts it. It must be durable before it is signed. Rule D1.
    pub fn seal(&mut self, now: u64) -> Option<Batch> {
        let me = self.me?;
        let parent = self.own()?.tip;
        let mut transactions = Vec::new();
        let mut size = 0usize;
        while let Some(next) = self.waiting.front() {
            // Four bytes frame a transaction inside a batch.
            let with_next = size.saturating_add(next.len()).saturating_add(4);
            let full = with_next > BATCH_BYTES_TARGET || transactions.len() >= BATCH_TRANSACTIONS_MAX;
            if full && !transactions.is_empty() {
                break;
            }
            size = with_next;
            transactions.extend(self.waiting.pop_front());
        }
        self.waiting_bytes = self.waiting.iter().map(Bytes::len).sum();
        self.waiting_since = (!self.waiting.is_empty()).then_some(now);
        if transactions.is_empty() {
            return None;
        }
        let batch = Batch::new(self.epoch, me, parent, transactions);
        self.sealed = (self.epoch, batch.seq());
        self.put(me, &batch, None);
        Some(batch)
    }

    /// Notes the signature of an own batch, and takes back one from the journal.
    pub fn own_signed(&mut self, batch: &SignedBatch) {
        let tip = batch.batch.tip();
        if let Some(lane) = self.me.and_then(|me| self.lane_mut(me))
            && let Some((digest, signature)) = lane.chain.get_mut(&tip.seq)
            && *digest == tip.digest
        {
            *signature = Some(batch.signature);
        }
    }

    /// Own batches above `seq`, signed, at most `most`: for a validator that lacks them. Rule D1.
    pub fn own_after(&self, seq: Seq, most: u64) -> Vec<SignedBatch> {
        let Some(lane) = self.own() else { return Vec::new() };
        let wanted = lane.chain.range(seq.next()..=seq.plus(most));
        let signed = wanted.filter_map(|(_, (digest, signature))| {
            let batch = self.held.get(digest)?.clone();
            Some(SignedBatch { batch, signature: (*signature)? })
        });
        signed.collect()
    }

    /// Own batches above what is ordered whose signature is not at hand: after a restart.
    pub fn own_unsigned(&self) -> Vec<Batch> {
        let Some(lane) = self.own() else { return Vec::new() };
        let above = lane.chain.range(lane.ordered.seq.next()..);
        let unsigned = above.filter(|(_, (_, signature))| signature.is_none());
        unsigned.filter_map(|(_, (digest, _))| self.held.get(digest).cloned()).collect()
    }

    /// This replica's own tip.
    pub fn own_tip(&self) -> Tip {
        self.own().map_or(Tip::START, |lane| lane.tip)
    }

    // Batches of others.

    /// Judges a batch that its producer streamed; signature and transactions were checked. Rules D2, D5.
    pub fn accept(&mut self, signed: SignedBatch) -> Accept {
        let (batch, place) = (&signed.batch, signed.batch.lane());
        if batch.epoch() != self.epoch {
            return Accept::Dropped(Reject::OtherEpoch);
        }
        let Some(lane) = self.lane_mut(place) else { return Accept::Dropped(Reject::Stranger) };
        let seq = batch.seq();
        if seq <= lane.tip.seq {
            // One batch per place, ever.
            return match lane.chain.get(&seq) {
                Some((digest, Some(signature))) if *digest != batch.digest() => {
                    Accept::Contradicts(*digest, *signature)
                }
                Some((digest, None)) if *digest != batch.digest() => Accept::Dropped(Reject::DoubleBatch),
                _ => Accept::Known,
            };
        }
        if seq.above(lane.ordered.seq) > LANE_WINDOW {
            return Accept::Dropped(Reject::LaneWindow);
        }
        if seq > lane.tip.seq.next() {
            return match lane.early.get(&seq) {
                Some(first) if first.batch.digest() != batch.digest() => {
                    Accept::Contradicts(first.batch.digest(), first.signature)
                }
                Some(_) => Accept::Known,
                None if lane.early.len() < EARLY_BATCHES_MAX => {
                    lane.early.insert(seq, signed);
                    Accept::Known
                }
                None => Accept::Dropped(Reject::Gap),
            };
        }
        if batch.parent_tip() != lane.tip {
            return Accept::Dropped(Reject::Gap);
        }
        let mut accepted = Vec::new();
        let mut next = Some(signed);
        while let Some(signed) = next.take() {
            self.put(place, &signed.batch, Some(signed.signature));
            accepted.push(signed);
            let Some(lane) = self.lane_mut(place) else { break };
            let after = lane.early.remove(&lane.tip.seq.next());
            next = after.filter(|early| early.batch.parent_tip() == lane.tip);
        }
        Accept::Accepted(accepted)
    }

    /// Makes `batch` the tip of its lane.
    fn put(&mut self, place: u32, batch: &Batch, signature: Option<Signature>) {
        self.held.insert(batch.digest(), batch.clone());
        if let Some(lane) = usize::try_from(place).ok().and_then(|place| self.lanes.get_mut(place)) {
            lane.put(batch, signature, &self.set);
        }
    }

    /// Takes a batch of this replica's own lane back from the journal. Its transactions wait no more.
    pub fn replay_sealed(&mut self, batch: &Batch) {
        if !self.waiting.is_empty() {
            let sealed: BTreeSet<&Bytes> = batch.transactions().iter().collect();
            self.waiting.retain(|transaction| !sealed.contains(transaction));
            self.waiting_bytes = self.waiting.iter().map(Bytes::len).sum();
            if self.waiting.is_empty() {
                self.waiting_since = None;
            }
        }
        self.sealed = self.sealed.max((batch.epoch(), batch.seq()));
        self.replay_accepted(batch, None);
    }

    /// Takes a batch back from the journal: it was accepted once. Rules D2, R1.
    pub fn replay_accepted(&mut self, batch: &Batch, signature: Option<Signature>) {
        let follows = self.lane(batch.lane()).is_some_and(|lane| lane.tip == batch.parent_tip());
        if batch.epoch() == self.epoch && follows {
            self.put(batch.lane(), batch, signature);
        } else {
            self.held.insert(batch.digest(), batch.clone());
        }
    }

    /// Keeps a batch by digest: a prepared or final block orders it, or a proposal that may. Rule D2. False if known.
    pub fn store(&mut self, batch: &Batch) -> bool {
        self.held.insert(batch.digest(), batch.clone()).is_none()
    }

    pub fn held(&self, digest: &Hash) -> Option<&Batch> {
        self.held.get(digest)
    }

    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    pub fn early_most(&self) -> usize {
        self.lanes.iter().map(|lane| lane.early.len()).max().unwrap_or_default()
    }

    // Announcements.

    /// Tips held durably, per lane: what HAVE says. Rule D3.
    pub fn tips(&self) -> Vec<Tip> {
        self.lanes.iter().map(|lane| lane.tip).collect()
    }

    /// Notes what `place` announced. Rule D4.
    pub fn announce(&mut self, place: u32, tips: &[Tip]) {
        for (lane, tip) in self.lanes.iter_mut().zip(tips) {
            lane.announce(place, tip, &self.set);
        }
    }

    /// What `place` last announced of this replica's own lane.
    pub fn announced_of_own(&self, place: u32) -> Tip {
        let tip = || self.own()?.announced.get(usize::try_from(place).ok()?)?.tips.back().copied();
        tip().unwrap_or(Tip::START)
    }

    /// Places that announced exactly `tip`, or a tip known here to link to it.
    pub fn announcers(&self, place: u32, tip: &Tip) -> Vec<u32> {
        let Some(lane) = self.lane(place) else { return Vec::new() };
        lane.announcers(tip, self.set.places()).collect()
    }

    /// The highest tip of a lane, above `above` and at most `most` past it, that validators with `backing` announced.
    /// `held_only`: and that is held here.
    pub fn tip_announced_by(
        &self,
        place: u32,
        above: Seq,
        most: u64,
        backing: Backing,
        held_only: bool,
    ) -> Option<Tip> {
        let lane = self.lane(place)?;
        let bound = above.plus(most);
        let best = lane.tip_at(lane.reached_by(backing).min(bound)).filter(|tip| tip.seq > above);
        if held_only {
            return best;
        }
        // Tips not on the chain accepted here count only as themselves.
        let stake = backing.stake(&self.set);
        let floor = best.map_or(above, |best| best.seq);
        let further = self.set.places().zip(&lane.announced).filter(|(_, announced)| announced.highest > floor);
        if self.set.stake_of(further.clone().map(|(validator, _)| validator)) < stake {
            return best;
        }
        let range = floor.next()..=bound;
        let tips = further.flat_map(|(validator, announced)| announced.tips.iter().map(move |tip| (*tip, validator)));
        let mut tips: Vec<(Tip, u32)> =
            tips.filter(|(tip, _)| range.contains(&tip.seq) && !lane.is_on_chain(tip)).collect();
        // One pass over all of them: whoever makes up tips must not cost more than he announces.
        tips.sort_unstable();
        tips.dedup();
        let announced = tips.chunk_by(|(one, _), (two, _)| one == two).rev();
        let mut enough = announced.filter(|who| self.set.stake_of(who.iter().map(|(_, place)| *place)) >= stake);
        enough.find_map(|who| who.first()).map(|(tip, _)| *tip).or(best)
    }

    /// How far a block on `cut` may order the lanes by what validators with `backing` announced; those first in `order` come
    /// first. Rule P1.
    ///
    /// It moves as far as the same validators announced all of it. If each lane had a quorum of its own, few might know the tips
    /// of all lanes, and the others wait: rule D4 vouches for a block as a whole.
    pub fn advance(&self, cut: &[Tip], order: &[u32], backing: Backing, held_only: bool) -> Vec<Tip> {
        let mut next = cut.to_vec();
        let mut left = BLOCK_BATCHES_MAX;
        let mut knowing = self.best_informed(cut, order, backing, held_only);
        for place in order {
            let Some(tip) = usize::try_from(*place).ok().and_then(|at| next.get_mut(at)) else { continue };
            let most = CUT_ADVANCE_MAX.min(left);
            if let Some(moved) = self.tip_known_to(*place, tip.seq, most, backing, held_only, &mut knowing) {
                left = left.saturating_sub(moved.seq.above(tip.seq));
                *tip = moved;
            }
        }
        next
    }

    /// Validators with `backing` that between them know most of what a block on `cut` could order, all of which know something
    /// of the first lane in `order` that can move at all. Rule P1.
    fn best_informed(&self, cut: &[Tip], order: &[u32], backing: Backing, held_only: bool) -> Vec<u32> {
        let most = CUT_ADVANCE_MAX;
        let tip_of = |place: u32| usize::try_from(place).ok().and_then(|at| cut.get(at)).copied().unwrap_or_default();
        let first = order.iter().find_map(|place| {
            let tip = self.tip_announced_by(*place, tip_of(*place).seq, most, backing, held_only)?;
            Some((self.lane(*place)?, tip_of(*place).seq, tip))
        });
        let Some((lane, above, tip)) = first else { return self.set.places().collect() };
        if !lane.is_on_chain(&tip) {
            return lane.announcers(&tip, self.set.places()).collect();
        }
        let knows = |lane: &Lane, place: u32, above: Seq| {
            let announced = usize::try_from(place).ok().and_then(|at| lane.announced.get(at));
            announced.map_or(0, |announced| announced.on_chain.above(above)).min(most)
        };
        let candidates = self.set.places().filter(|place| knows(lane, *place, above) > 0);
        let mut ranked: Vec<(u64, u32)> = candidates
            .map(|place| {
                let lanes = self.lanes.iter().zip(cut);
                let all = lanes.map(|(lane, tip)| knows(lane, place, tip.seq));
                (all.fold(0u64, u64::saturating_add), place)
            })
            .collect();
        ranked.sort_unstable_by(|one, two| two.cmp(one));
        let (stake, mut sum, mut least) = (backing.stake(&self.set), Stake::ZERO, 0);
        let enough = ranked.iter().take_while(|(known, place)| {
            let goes = sum < stake || *known == least;
            sum = Stake(sum.0.saturating_add(self.set.stake(*place).0));
            least = *known;
            goes
        });
        enough.map(|(_, place)| *place).collect()
    }

    /// As [`Lanes::tip_announced_by`], but announced by validators with `backing` that are all in `knowing`, and those stay in it.
    /// Rule P1.
    fn tip_known_to(
        &self,
        place: u32,
        above: Seq,
        most: u64,
        backing: Backing,
        held_only: bool,
        knowing: &mut Vec<u32>,
    ) -> Option<Tip> {
        let lane = self.lane(place)?;
        let stake = backing.stake(&self.set);
        let highest = self.tip_announced_by(place, above, most, backing, held_only)?;
        let (tip, who) = self.known_to(lane, highest, stake, knowing).or_else(|| {
            // Those in it are together less far than others are.
            let seq = lane.reached_together(knowing, stake, &self.set).min(above.plus(most));
            let (digest, _) = lane.chain.get(&seq).filter(|_| seq > above)?;
            self.known_to(lane, Tip { seq, digest: *digest }, stake, knowing)
        })?;
        *knowing = who;
        Some(tip)
    }

    /// `tip`, and those of `knowing` that announced it, if they have that much stake.
    fn known_to(&self, lane: &Lane, tip: Tip, stake: Stake, knowing: &[u32]) -> Option<(Tip, Vec<u32>)> {
        let who: Vec<u32> = lane.announcers(&tip, knowing.iter().copied()).collect();
        (self.set.stake_of(who.iter().copied()) >= stake).then_some((tip, who))
    }

    /// Rule D4: this replica accepted `tip` into its lane, or a weak quorum announced it, or tips that it is known here to
    /// link to. A batch that was merely fetched counts for nothing: it does not carry its producer's signature.
    pub fn is_available(&self, place: u32, tip: &Tip) -> bool {
        let Some(lane) = self.lane(place) else { return false };
        if lane.is_on_chain(tip) {
            return true;
        }
        let announced = self.set.places().zip(&lane.announced);
        let links = |announced: &Announced| announced.tips.iter().rev().any(|announced| self.links(announced, tip));
        let linked = announced.filter(|(_, announced)| links(announced));
        self.set.stake_of(linked.map(|(validator, _)| validator)) >= self.set.weak_quorum()
    }

    /// Whether the chain behind `from`, as far as it is held here, leads to `to`.
    fn links(&self, from: &Tip, to: &Tip) -> bool {
        let mut at = *from;
        while at.seq > to.seq {
            let Some(batch) = self.held.get(&at.digest) else { return false };
            at = batch.parent_tip();
        }
        at == *to
    }

    /// Digests of the batches accepted into lanes.
    pub fn accepted(&self) -> impl Iterator<Item = Hash> + '_ {
        self.lanes.iter().flat_map(|lane| lane.chain.values().map(|(digest, _)| *digest))
    }

    /// Digests of the batches held that lie in a span of their epoch's lane: above the first place, up to the last.
    pub fn held_within(&self, spans: &BTreeMap<(Epoch, u32), (Seq, Seq)>) -> impl Iterator<Item = Hash> {
        let lies_in = |batch: &Batch| {
            let span = spans.get(&(batch.epoch(), batch.lane()));
            span.is_some_and(|(above, last)| batch.seq() > *above && batch.seq() <= *last)
        };
        self.held.iter().filter(move |(_, batch)| lies_in(batch)).map(|(digest, _)| *digest)
    }

    /// Lets go of every batch that is not in `keep`.
    pub fn keep_only(&mut self, keep: &BTreeSet<Hash>) {
        self.held.retain(|digest, _| keep.contains(digest));
    }

    /// This replica signs nothing: it has no lane. Rule R3.
    pub fn observe(&mut self) {
        self.me = None;
    }

    /// Rule D6: the hash chain of `epoch` that ends in `tip`, down to, not including, `above`; rising. Or the highest batch
    /// missing.
    pub fn payload(&self, epoch: Epoch, place: u32, tip: &Tip, above: Seq) -> Result<Vec<Batch>, Missing> {
        let mut chain = Vec::new();
        let mut at = *tip;
        while at.seq > above {
            let batch = self.held.get(&at.digest).ok_or(Missing::Batch(at))?;
            if batch.epoch() != epoch || batch.lane() != place || batch.seq() != at.seq {
                return Err(Missing::Misfit);
            }
            at = batch.parent_tip();
            chain.push(batch.clone());
        }
        chain.reverse();
        Ok(chain)
    }

    /// The highest tip that a weak quorum announced, above what was accepted. Rule D4.
    fn ahead(&mut self, place: u32) -> Option<Tip> {
        let lane = self.lane(place)?;
        if let Some(known) = lane.ahead {
            return known;
        }
        let above = lane.tip.seq;
        // Mostly nobody is ahead.
        let any = lane.announced.iter().any(|announced| announced.highest > above);
        let ahead =
            if any { self.tip_announced_by(place, above, LANE_WINDOW, Backing::WeakQuorum, false) } else { None };
        self.lane_mut(place)?.ahead = Some(ahead);
        ahead
    }

    /// Per lane, the highest batch missing behind a tip that a weak quorum announced. Rule D4.
    pub fn lacking(&mut self) -> Vec<Lacking> {
        let mut lacking = Vec::new();
        for place in self.set.places() {
            let (Some(announced), Some(lane)) = (self.ahead(place), self.lane(place)) else { continue };
            let above = lane.tip.seq;
            let mut missing = announced;
            while missing.seq > above
                && let Some(batch) = self.held.get(&missing.digest)
            {
                missing = batch.parent_tip();
            }
            if missing.seq > above {
                lacking.push(Lacking { place, announced, missing, above });
            }
        }
        lacking
    }

    // Order.

    /// A final block orders the lanes up to `cut`.
    pub fn ordered(&mut self, cut: &[Tip]) {
        for (lane, tip) in self.lanes.iter_mut().zip(cut) {
            if tip.seq > lane.ordered.seq {
                lane.order(tip, &self.set);
            }
        }
    }

    /// Lets go of batches that are executed and under a certified root. Rule S3.
    pub fn release(&mut self, digests: &[Hash]) {
        for digest in digests {
            self.held.remove(digest);
        }
    }
}

/// What is missing of a lane that a weak quorum announced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lacking {
    pub place: u32,
    pub announced: Tip,
    /// That tip, or the highest batch behind it that is not held.
    pub missing: Tip,
    /// Down to here, exclusive, the lane was accepted.
    pub above: Seq,
}

/// Why a payload is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// This batch is not held.
    Batch(Tip),
    /// A batch behind the tip belongs elsewhere: no honest validator announced it.
    Misfit,
}

#[cfg(test)]
mod tests;
