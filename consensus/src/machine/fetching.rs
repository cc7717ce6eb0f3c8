//! Asking peers for what is missing. Rules D4, S0, S2.
//!
//! Every turn says anew what it needs; asking is spread over sources, repeated with back-off, and bounded.

use std::{collections::BTreeMap, sync::Arc};

use tally_types::{Address, Batch, Certificate, Hash, Header, Height, Seq, Tip};

use super::Machine;
use crate::{
    chain::Block,
    config::{EXECUTE_AHEAD, FETCH_BLOCKS, Voting, WANTS_MAX},
    event::{Action, Fetch, FetchedBlock, Reject},
    lanes::Lacking,
    record::Record,
};

/// Batches are usually on their way already: only after this long they are asked for.
const BATCH_PATIENCE_MS: u64 = 25;

/// How long a range of blocks may take before another peer is asked as well.
const RANGE_PATIENCE_MIN_MS: u64 = 500;
const RANGE_PATIENCE_MAX_MS: u64 = 10_000;

/// Something missing, and who should have it.
#[derive(Clone, Debug)]
pub(super) enum Need {
    /// A header by hash.
    Header { hash: Hash, sources: Vec<Address> },
    /// A batch by digest, with its ancestors down to, not including, `above`.
    Batches { tip: Tip, above: Seq, sources: Vec<Address> },
}

#[derive(Debug)]
struct Asking {
    ask_at_ms: u64,
    interval_ms: u64,
    tries: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    /// What this turn found missing, by hash or digest.
    pub needs: BTreeMap<Hash, Need>,
    asking: BTreeMap<Hash, Asking>,
    /// What a weak quorum announced and is not held here, as of `moves`.
    lacking: Vec<Lacking>,
    lacking_at: u64,
    /// A certificate names a block far above the final tip.
    pub behind: bool,
    /// Since when a peer has claimed a higher final block.
    pub lag_since_ms: Option<u64>,
    /// The final block whose payload keeps execution waiting, and since when. Peers may have let go of its batches: then
    /// only the block as a whole can be had.
    payload_gap: Option<(Height, u64)>,
    /// Who was asked for a range of blocks, and when. An answer is taken however late it comes: it proves itself.
    asked: BTreeMap<Address, u64>,
    /// How long the last one asked may take before another is asked as well; it doubles up to [`RANGE_PATIENCE_MAX_MS`].
    patience_ms: u64,
    ask_range_at_ms: u64,
    /// Who to ask next for a range.
    turn: usize,
    /// The first epoch this replica may sign in was learnt and is not durable yet.
    pub voting_changed: bool,
}

impl Fetching {
    pub fn len(&self) -> usize {
        self.asking.len()
    }

    /// When something is to be asked for again.
    pub fn due(&self) -> Option<u64> {
        let range = (self.patience_ms > 0).then_some(self.ask_range_at_ms);
        self.asking.values().map(|asking| asking.ask_at_ms).chain(range).min()
    }
}

impl Machine {
    pub(super) fn fetch(&mut self, out: &mut Vec<Action>) {
        if std::mem::take(&mut self.fetching.voting_changed)
            && let Voting::From(epoch) = self.voting
        {
            self.persist(Record::Observing(epoch), out);
        }
        if self.fetching.lacking_at != self.moves {
            self.fetching.lacking_at = self.moves;
            self.fetching.lacking = self.lanes.lacking();
        }
        for Lacking { place, announced, missing: tip, above } in self.fetching.lacking.clone() {
            let sources = self.addresses(self.lanes.announcers(place, &announced));
            self.fetching.needs.entry(tip.digest).or_insert(Need::Batches { tip, above, sources });
        }
        let now = self.now.mono_ms;
        let needs = std::mem::take(&mut self.fetching.needs);
        self.fetching.asking.retain(|hash, _| needs.contains_key(hash));
        for (hash, need) in &needs {
            if !self.fetching.asking.contains_key(hash) {
                if self.fetching.asking.len() >= WANTS_MAX {
                    continue;
                }
                let patience = if matches!(need, Need::Header { .. }) { 0 } else { BATCH_PATIENCE_MS };
                let interval_ms = self.config.resend_ms;
                let asking = Asking { ask_at_ms: now.saturating_add(patience), interval_ms, tries: 0 };
                self.fetching.asking.insert(*hash, asking);
            }
            let Some(asking) = self.fetching.asking.get_mut(hash).filter(|asking| asking.ask_at_ms <= now) else {
                continue;
            };
            let (Need::Header { sources, .. } | Need::Batches { sources, .. }) = need;
            // Sources take turns; the first is the likeliest to answer.
            let source = asking.tries.checked_rem(sources.len()).and_then(|turn| sources.get(turn)).copied();
            asking.tries = asking.tries.saturating_add(1);
            asking.ask_at_ms = now.saturating_add(asking.interval_ms);
            asking.interval_ms = asking.interval_ms.saturating_mul(2).min(self.config.resend_ms.saturating_mul(8));
            let Some(source) = source else { continue };
            out.push(Action::Ask(
                source,
                match need {
                    Need::Header { hash, .. } => Fetch::Headers(vec![*hash]),
                    Need::Batches { tip, above, .. } => Fetch::Batches(vec![(*tip, *above)]),
                },
            ));
        }
        self.fetching.needs = needs;
        self.fetch_range(out);
    }

    /// The highest final height that a weak quorum of the stake claims to know or surpass: at least one of them is honest.
    pub(super) fn highest_claimed(&self) -> Height {
        let set = self.agreement.set();
        let mut claims: Vec<_> = set
            .places()
            .zip(set.members())
            .map(|(place, member)| (self.peers.get(&member.address).map_or(Height::ZERO, |p| p.final_height), place))
            .collect();
        claims.sort_by(|one, two| two.cmp(one));
        let mut sum = 0u64;
        for (height, place) in claims {
            sum = sum.saturating_add(set.stake(place).0);
            if sum >= set.weak_quorum().0 {
                return height;
            }
        }
        Height::ZERO
    }

    /// Notes which final block waits for its payload; none: none does.
    pub(super) fn note_payload_gap(&mut self, height: Option<Height>) {
        let known = self.fetching.payload_gap.map(|(height, _)| height);
        if known != height {
            self.fetching.payload_gap = height.map(|height| (height, self.now.mono_ms));
        }
    }

    /// Rule S2: asks one peer after the other for final blocks, while any claims to have more than this replica or while
    /// the payload of one that is final here is missing.
    fn fetch_range(&mut self, out: &mut Vec<Action>) {
        let (now, tip) = (self.now.mono_ms, self.chain.tip_height());
        let gap = self.fetching.payload_gap;
        let gap =
            gap.filter(|(_, since)| now.saturating_sub(*since) >= self.config.resend_ms).map(|(height, _)| height);
        let from = gap.unwrap_or(tip.next());
        let claims = |peer: &super::Peer| peer.far_ahead || peer.final_height >= from;
        // Its own HAVEs made this replica one of those heard.
        let others = self.peers.iter().filter(|(address, _)| Some(**address) != self.config.me);
        let ahead: Vec<Address> = others.filter(|(_, peer)| claims(peer)).map(|(address, _)| *address).collect();
        if ahead.is_empty() {
            self.fetching.lag_since_ms = None;
            self.fetching.behind = false;
            self.fetching.patience_ms = 0;
            self.fetching.ask_range_at_ms = now;
            return;
        }
        // Execution sets the pace: what waits for it is held in memory.
        let backlog = usize::try_from(EXECUTE_AHEAD.saturating_mul(2)).unwrap_or(usize::MAX);
        if gap.is_none() && self.execution.queue.len() > backlog {
            return;
        }
        let since = *self.fetching.lag_since_ms.get_or_insert(now);
        let far = |peer: &super::Peer| peer.far_ahead || peer.final_height.above(tip) > 8;
        let hurry = gap.is_some() || self.fetching.behind || self.ahead.is_some() || self.peers.values().any(far);
        // A block or two usually come by themselves, through proposals and votes.
        if !hurry && now.saturating_sub(since) < self.config.resend_ms {
            return;
        }
        if now < self.fetching.ask_range_at_ms {
            return;
        }
        self.fetching.turn = self.fetching.turn.wrapping_add(1);
        let chosen = self.fetching.turn.checked_rem(ahead.len()).and_then(|turn| ahead.get(turn)).copied();
        let Some(chosen) = chosen else { return };
        let least = self.config.resend_ms.saturating_mul(4).max(RANGE_PATIENCE_MIN_MS);
        self.fetching.patience_ms =
            self.fetching.patience_ms.saturating_mul(2).clamp(least, RANGE_PATIENCE_MAX_MS.max(least));
        self.fetching.ask_range_at_ms = now.saturating_add(self.fetching.patience_ms);
        self.fetching.asked.insert(chosen, now);
        out.push(Action::Ask(chosen, Fetch::Blocks { from, to: from.plus(FETCH_BLOCKS) }));
    }

    fn disbelieve(&mut self, peer: Address) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.final_height = Height::ZERO;
            peer.far_ahead = false;
        }
    }

    pub(super) fn on_headers(&mut self, headers: Vec<Header>, out: &mut Vec<Action>) {
        for header in headers {
            if self.fetching.needs.contains_key(&header.hash()) {
                self.keep_header(&header, out);
            } else {
                out.push(Action::Dropped(Reject::NotAsked));
            }
        }
    }

    /// Batches given on request, highest first: each is wanted itself, or is the parent of one before it.
    pub(super) fn on_batches(&mut self, batches: Vec<Batch>, out: &mut Vec<Action>) {
        let mut parent = Hash::ZERO;
        for batch in batches {
            let wanted = self.fetching.needs.contains_key(&batch.digest()) || batch.digest() == parent;
            if !wanted {
                out.push(Action::Dropped(Reject::NotAsked));
                continue;
            }
            parent = batch.parent();
            self.keep_batch(&batch, out);
        }
    }

    fn keep_batch(&mut self, batch: &Batch, out: &mut Vec<Action>) {
        if self.lanes.store(batch) {
            self.persist(Record::Stored(batch.clone()), out);
            self.moves = self.moves.wrapping_add(1);
        }
    }

    /// Rule S2: a range is taken in up to its last commit certificate, whole or not at all.
    pub(super) fn on_blocks(&mut self, from: Address, blocks: Vec<FetchedBlock>, out: &mut Vec<Action>) {
        if self.fetching.asked.remove(&from).is_none() {
            return out.push(Action::Dropped(Reject::NotAsked));
        }
        // Whatever it brought, the next question need not wait.
        self.fetching.ask_range_at_ms = self.now.mono_ms;
        let tip = self.chain.tip_height();
        let known = blocks.iter().take_while(|block| block.header.height <= tip).count();
        let (known, above) = blocks.split_at_checked(known).unwrap_or((&blocks, &[]));
        let filled = self.fill_payload(known, out);
        let Some((certificate, usable)) = self.usable_range(above) else {
            if !filled {
                self.disbelieve(from);
                out.push(Action::Dropped(Reject::BadBlocks));
            }
            return;
        };
        self.fetching.patience_ms = 0;
        for block in above.iter().take(usable) {
            for batch in &block.batches {
                self.keep_batch(batch, out);
            }
            self.keep_header(&block.header, out);
        }
        self.on_certificate(&certificate, out);
    }

    /// Takes the payload of blocks that are final here already and wait for it. Whether there was any.
    fn fill_payload(&mut self, blocks: &[FetchedBlock], out: &mut Vec<Action>) -> bool {
        let mut filled = false;
        for block in blocks {
            let waiting = self.execution.queue.iter().find(|(header, _, _)| *header == block.header);
            let Some(base) = waiting.map(|(_, base, _)| base.clone()) else { continue };
            if self.has_payload(block, &base) {
                for batch in &block.batches {
                    self.keep_batch(batch, out);
                }
                filled = true;
            }
        }
        filled
    }

    /// The highest commit certificate of the current epoch in `blocks` up to which they link to the final tip and to their
    /// payload, and how many blocks that are.
    fn usable_range(&self, blocks: &[FetchedBlock]) -> Option<(Arc<Certificate>, usize)> {
        let mut parent = self.chain.tip().clone();
        let mut best = None;
        for (count, block) in (1usize..).zip(blocks) {
            let header = &block.header;
            let links = header.parent == parent.hash
                && header.height == parent.height.next()
                && header.epoch == self.agreement.epoch()
                && header.cut.len() == self.agreement.set().len();
            if !links || !self.has_payload(block, &parent.cut_for(header.epoch, header.cut.len())) {
                break;
            }
            let commit = block.commit.as_ref().filter(|commit| {
                commit.block == header.hash()
                    && commit.epoch == header.epoch
                    && commit.kind == tally_types::VoteKind::Commit
            });
            if let Some(commit) = commit {
                best = Some((commit.clone(), count));
            }
            parent = Block::of(header);
        }
        best
    }

    /// Whether a block came with all batches it orders that are not held here, and no others.
    fn has_payload(&self, block: &FetchedBlock, base: &[Tip]) -> bool {
        let given: BTreeMap<Hash, &Batch> = block.batches.iter().map(|batch| (batch.digest(), batch)).collect();
        let mut used = 0usize;
        for (place, (tip, from)) in (0u32..).zip(block.header.cut.iter().zip(base)) {
            let mut at = *tip;
            while at.seq > from.seq {
                let given = given.get(&at.digest).copied();
                used = used.saturating_add(usize::from(given.is_some()));
                let Some(batch) = given.or_else(|| self.lanes.held(&at.digest)) else { return false };
                if batch.epoch() != block.header.epoch || batch.lane() != place || batch.seq() != at.seq {
                    return false;
                }
                at = batch.parent_tip();
            }
        }
        used == block.batches.len()
    }
}
