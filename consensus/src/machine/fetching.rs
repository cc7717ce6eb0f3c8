//! Asking peers for what is missing. Rules D4, S0, S2.
//!
//! Every turn says anew what it needs; asking is spread over sources, repeated with back-off, and bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tally_types::{Address, Batch, Certificate, Hash, Header, Height, Seq, Tip};

use super::Machine;
use crate::{
    chain::Block,
    config::{BLOCK_BATCHES_MAX, EXECUTE_AHEAD, FETCH_BLOCKS, Voting, WANTS_MAX},
    event::{Action, Fetch, FetchedBlock, Reject},
    lanes::Lacking,
    record::Record,
};

/// Batches are usually on their way already: only after this long they are asked for.
const BATCH_PATIENCE_MS: u64 = 25;

/// How long a range of blocks may take before another peer is asked as well.
const RANGE_PATIENCE_MIN_MS: u64 = 500;
/// As long as a driver may wait for one block: on a slow line several at once would take so long that none comes whole.
const RANGE_PATIENCE_MAX_MS: u64 = 40_000;
/// How long a peer that gave no blocks of use in time comes after those who did.
const RANGE_FAILURE_MS: u64 = 60_000;
/// How long nothing is asked for, at least, once enough waits for execution.
const RANGE_PAUSE_MS: u64 = 50;
/// Bytes of payload that wait for execution, above which no more blocks are asked for: twice the payload of an answer.
const UNEXECUTED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Something missing, and who should have it.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub what: Wanted,
    /// Who said that they have it.
    pub holders: Vec<Address>,
    /// Who else may have it.
    pub others: Vec<Address>,
}

/// What is missing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// A header by hash.
    Header(Hash),
    /// A batch by digest, with its ancestors down to, not including, `above`.
    Batches { tip: Tip, above: Seq },
}

#[derive(Debug)]
struct Asking {
    is_header: bool,
    ask_at_ms: u64,
    interval_ms: u64,
    /// Who was asked in this round.
    asked: BTreeSet<Address>,
    /// How many are asked next, at once.
    next: usize,
}

impl Asking {
    /// Whom `me` asks next: first those who said that they have it, in an order that differs from thing to thing and from one who
    /// asks to the next, and each time twice as many. Liars may be the first, the more of them there are the likelier, and must
    /// not hold up everybody for long. When all were asked it begins anew, slower.
    fn sources(&mut self, hash: &Hash, need: &Need, me: Option<Address>, resend_ms: u64) -> Vec<Address> {
        let own = me.unwrap_or(Address([0; 32]));
        let rank = |source: &Address| Hash::of(&[&hash.0[..], own.as_bytes(), source.as_bytes()].concat());
        let untried = |asked: &BTreeSet<Address>| {
            let mut sources: Vec<(bool, Hash, Address)> = Vec::new();
            for (other, list) in [(false, &need.holders), (true, &need.others)] {
                let new = list.iter().filter(|source| Some(**source) != me && !asked.contains(source));
                sources.extend(new.map(|source| (other, rank(source), *source)));
            }
            sources.sort_unstable();
            let mut seen = BTreeSet::new();
            sources.retain(|(_, _, source)| seen.insert(*source));
            sources
        };
        let mut sources = untried(&self.asked);
        if sources.is_empty() {
            self.asked.clear();
            self.next = 1;
            self.interval_ms = self.interval_ms.saturating_mul(2).min(resend_ms.saturating_mul(8));
            sources = untried(&self.asked);
        }
        sources.truncate(self.next);
        self.next = self.next.saturating_mul(2);
        let sources: Vec<Address> = sources.into_iter().map(|(_, _, source)| source).collect();
        self.asked.extend(&sources);
        sources
    }
}

/// What can be taken in of the blocks of an answer.
struct UsableRange {
    /// Makes them final.
    commit: Arc<Certificate>,
    /// How many there are up to it.
    blocks: usize,
    /// How many of these, from the first on, lack no payload.
    whole: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fetching {
    /// What this turn found missing, by hash or digest.
    pub needs: BTreeMap<Hash, Arc<Need>>,
    asking: BTreeMap<Hash, Asking>,
    /// What a weak quorum announced and is not held here, by digest, as of `moves`.
    lacking: Vec<(Hash, Arc<Need>)>,
    lacking_at: u64,
    /// A certificate names a block far above the final tip.
    pub behind: bool,
    /// Since when a peer has claimed a higher final block.
    pub lag_since_ms: Option<u64>,
    /// The final block whose payload keeps execution waiting, and when it is to be asked for as a whole: peers may have let go
    /// of its batches.
    payload_gap: Option<(Height, u64)>,
    /// An answer ended before the certificate that would have proved it: until one comes that does not, only headers up to it are
    /// asked for.
    proof_first: bool,
    /// Up to here nobody is about to send batches: these blocks became final by headers alone that came with a range, or lie behind one
    /// whose payload had to be asked for.
    bare_to: Height,
    /// Who was asked for a range of blocks, and from when on that took too long. An answer is taken however late it comes: it
    /// proves itself.
    asked: BTreeMap<Address, u64>,
    /// Who was asked last.
    asked_last: Option<Address>,
    /// And whether an earlier question waits for him as well.
    asked_again: bool,
    /// How long the last one asked may take before another is asked as well; it doubles up to [`RANGE_PATIENCE_MAX_MS`]. 0:
    /// nothing is to be asked at a time of its own.
    patience_ms: u64,
    ask_range_at_ms: u64,
    /// Questions for ranges so far.
    range_turn: u64,
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
            self.fetching.lacking = self.lanes.lacking().into_iter().map(|lacking| self.need_of(&lacking)).collect();
        }
        for (digest, need) in &self.fetching.lacking {
            self.fetching.needs.entry(*digest).or_insert_with(|| need.clone());
        }
        let now = self.now.mono_ms;
        let (me, resend_ms) = (self.config.me, self.config.resend_ms);
        let needs = std::mem::take(&mut self.fetching.needs);
        let asking = &mut self.fetching.asking;
        asking.retain(|hash, _| needs.contains_key(hash));
        let headers = asking.values().filter(|asking| asking.is_header).count();
        let mut open = [asking.len().saturating_sub(headers), headers];
        for (hash, need) in &needs {
            let is_header = matches!(need.what, Wanted::Header(_));
            if !asking.contains_key(hash) {
                let [batches, headers] = &mut open;
                let open = if is_header { headers } else { batches };
                if *open >= WANTS_MAX {
                    continue;
                }
                *open = open.saturating_add(1);
                let patience = if is_header { 0 } else { BATCH_PATIENCE_MS };
                let ask_at_ms = now.saturating_add(patience);
                let new = Asking { is_header, ask_at_ms, interval_ms: resend_ms, asked: BTreeSet::new(), next: 1 };
                asking.insert(*hash, new);
            }
            let Some(asking) = asking.get_mut(hash).filter(|asking| asking.ask_at_ms <= now) else { continue };
            let fetch = match need.what {
                Wanted::Header(hash) => Fetch::Headers(vec![hash]),
                Wanted::Batches { tip, above } => Fetch::Batches(vec![(tip, above)]),
            };
            let sources = asking.sources(hash, need, me, resend_ms);
            out.extend(sources.into_iter().map(|source| Action::Ask(source, fetch.clone())));
            asking.ask_at_ms = now.saturating_add(asking.interval_ms);
        }
        self.fetching.needs = needs;
        self.fetch_range(out);
    }

    fn need_of(&self, lacking: &Lacking) -> (Hash, Arc<Need>) {
        let what = Wanted::Batches { tip: lacking.missing, above: lacking.above };
        let holders = self.addresses(self.lanes.announcers(lacking.place, &lacking.announced));
        (lacking.missing.digest, Arc::new(Need { what, holders, others: Vec::new() }))
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
            let wait = |height| if height <= self.fetching.bare_to { 0 } else { self.config.resend_ms };
            self.fetching.payload_gap = height.map(|height| (height, self.now.mono_ms.saturating_add(wait(height))));
        }
    }

    /// Rule S2: asks one peer after the other for final blocks, while any claims to have more than this replica or while
    /// the payload of one that is final here is missing.
    fn fetch_range(&mut self, out: &mut Vec<Action>) {
        let (now, tip) = (self.now.mono_ms, self.chain.tip_height());
        // Final blocks are given once they are executed; the payload of those just made final may still come by itself.
        let claims = |peer: &super::Peer, gap: Option<Height>| {
            let claimed = peer.final_height;
            peer.far_ahead || gap.map_or(claimed > tip, |height| claimed.min(peer.executed) >= height)
        };
        // Its own HAVEs made this replica one of those heard.
        let claimants = |gap: Option<Height>| {
            let claiming = self.peers.iter().filter(move |(_, peer)| claims(peer, gap));
            claiming.map(|(address, _)| *address).filter(|address| Some(*address) != self.config.me)
        };
        let due = self.fetching.payload_gap.filter(|(_, due)| *due <= now).map(|(height, _)| height);
        let gap = due.filter(|height| claimants(Some(*height)).next().is_some());
        let from = gap.unwrap_or(tip.next());
        let ahead: Vec<Address> = claimants(gap).collect();
        if ahead.is_empty() {
            self.fetching.lag_since_ms = None;
            self.fetching.behind = false;
            self.fetching.patience_ms = 0;
            self.fetching.ask_range_at_ms = now;
            return;
        }
        let since = *self.fetching.lag_since_ms.get_or_insert(now);
        let far = |peer: &super::Peer| peer.far_ahead || peer.final_height.above(tip) > 8;
        let hurry = gap.is_some() || self.fetching.behind || self.ahead.is_some() || self.peers.values().any(far);
        // A block or two usually come by themselves, through proposals and votes.
        if !hurry && now.saturating_sub(since) < self.config.resend_ms {
            let due = since.saturating_add(self.config.resend_ms);
            self.fetching.ask_range_at_ms = self.fetching.ask_range_at_ms.max(due);
            return;
        }
        if now < self.fetching.ask_range_at_ms {
            // Whoever was asked again because nobody else claimed anything keeps nobody waiting who does now.
            let fresh = |address: &Address| !self.has_failed(address) && !self.fetching.asked.contains_key(address);
            if !self.fetching.asked_again || !ahead.iter().any(fresh) {
                return;
            }
            self.fetching.patience_ms = 0;
        }
        // Execution sets the pace: what waits for it is held in memory, and it names the validators that what follows the last
        // block of an epoch is judged by. With a gap, what lies behind it waits for this.
        let backlog = usize::try_from(EXECUTE_AHEAD.saturating_mul(2)).unwrap_or(usize::MAX);
        let waits = gap.is_none() && (self.closing.is_some() || self.execution.queue.len() > backlog);
        if waits || self.unexecuted_bytes(gap.is_none()) > UNEXECUTED_BYTES_MAX {
            self.fetching.patience_ms = self.fetching.patience_ms.max(1);
            self.fetching.ask_range_at_ms = now.saturating_add(RANGE_PAUSE_MS);
            return;
        }
        // Another's answer may be why this replica asks again, long before the last one asked is late.
        let is_late = |last: &Address| self.fetching.asked.get(last).is_some_and(|late_at| *late_at <= now);
        let in_vain = self.fetching.asked_last.filter(is_late);
        if let Some(late) = in_vain {
            self.note_failure(late);
        }
        let any_good = ahead.iter().any(|address| !self.has_failed(address));
        let ahead = ahead.iter().filter(|address| !any_good || !self.has_failed(address));
        // The one asked longest ago: whoever claims more or less from one question to the next can only pass over himself. At first
        // in an order of this replica's own. After a pause in vain one who gave: the silent, who could all wait for their first
        // turn, do not follow one upon the other, and pauses stay short.
        let own = self.config.me.unwrap_or(Address([0; 32]));
        let rank = |address: &Address| Hash::of(&[&own.as_bytes()[..], address.as_bytes()].concat());
        let order = |address: &&Address| {
            let (turn, gave) = self.peers.get(*address).map_or((0, false), |peer| (peer.range_turn, peer.range_given));
            (in_vain.is_some() && !gave, turn, rank(address))
        };
        let Some(chosen) = ahead.min_by_key(order).copied() else { return };
        self.fetching.range_turn = self.fetching.range_turn.saturating_add(1);
        if let Some(peer) = self.peers.get_mut(&chosen) {
            peer.range_turn = self.fetching.range_turn;
        }
        self.fetching.asked_last = Some(chosen);
        let least = self.config.resend_ms.saturating_mul(4).max(RANGE_PATIENCE_MIN_MS);
        self.fetching.patience_ms =
            self.fetching.patience_ms.saturating_mul(2).clamp(least, RANGE_PATIENCE_MAX_MS.max(least));
        self.fetching.ask_range_at_ms = now.saturating_add(self.fetching.patience_ms);
        self.fetching.asked_again = self.fetching.asked.insert(chosen, self.fetching.ask_range_at_ms).is_some();
        let to = if self.fetching.proof_first && gap.is_none() { tip } else { from.plus(FETCH_BLOCKS) };
        out.push(Action::Ask(chosen, Fetch::Blocks { from, to }));
    }

    /// Bytes of payload held here of final blocks that execution was given and is not through with, and, if asked for `all`, of
    /// those that it is still to be given.
    fn unexecuted_bytes(&self, all: bool) -> usize {
        let add = |bytes: usize, batch: &Batch| bytes.saturating_add(batch.bytes().len());
        let mut bytes = 0;
        for (height, digests) in &self.execution.unreleased {
            if *height > self.execution.done {
                bytes = digests.iter().filter_map(|digest| self.lanes.held(digest)).fold(bytes, add);
            }
        }
        for (header, base, _) in self.execution.queue.iter().filter(|_| all) {
            bytes = self.batches_held(header, base).iter().fold(bytes, add);
        }
        bytes
    }

    /// Whether a peer kept this replica waiting in vain lately: such come after those who did not, and a liar costs one wait a minute.
    /// Not longer, for a slow line does the same to the honest, and whoever is left then could give one block at a time.
    fn has_failed(&self, peer: &Address) -> bool {
        let at = self.peers.get(peer).and_then(|peer| peer.range_failed_ms);
        at.is_some_and(|at| self.now.mono_ms.saturating_sub(at) < RANGE_FAILURE_MS)
    }

    pub(super) fn note_failure(&mut self, peer: Address) {
        let now = self.now.mono_ms;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.range_failed_ms = Some(now);
            peer.range_given = false;
        }
    }

    fn disbelieve(&mut self, peer: Address) {
        self.note_failure(peer);
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

    /// Rule S2: a range is taken in up to its last commit certificate, its headers whole or not at all; payload as far as it came,
    /// from what waits for it first on. Blocks without a certificate of their own may lie below it, with more payload than one
    /// answer can carry: what is final and still lacks it is asked for from there.
    pub(super) fn on_blocks(&mut self, from: Address, blocks: Vec<FetchedBlock>, out: &mut Vec<Action>) {
        if self.fetching.asked.remove(&from).is_none() {
            return out.push(Action::Dropped(Reject::NotAsked));
        }
        let tip = self.chain.tip_height();
        let known = blocks.iter().take_while(|block| block.header.height <= tip).count();
        let (known, above) = blocks.split_at_checked(known).unwrap_or((&blocks, &[]));
        let withheld = known.first().is_some_and(|first| self.fits_what_waits(first) == Some(false));
        let (filled, without_gap) = self.fill_payload(known, out);
        let range = self.usable_range(above);
        if filled {
            // It had to be asked for: what lies behind it does not come by itself either.
            self.fetching.bare_to = self.fetching.bare_to.max(tip);
        }
        // The next question need not wait, unless this one was given up on before and brought nothing: then the line is another's.
        if filled || range.is_some() || self.fetching.asked_last == Some(from) {
            self.fetching.ask_range_at_ms = self.now.mono_ms;
        }
        // Headers are taken from whoever withholds the payload that was asked for, but nobody has all the turns by that.
        if withheld {
            self.note_failure(from);
        } else if filled || range.is_some() {
            self.fetching.patience_ms = 0;
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.range_failed_ms = None;
                peer.range_given = true;
            }
        }
        let Some(range) = range else {
            if !filled {
                // A line may be too slow for all the payload below a certificate.
                self.fetching.proof_first |= above.first().is_some_and(|first| self.follows_tip(&first.header));
                self.disbelieve(from);
                out.push(Action::Dropped(Reject::BadBlocks));
            }
            return;
        };
        self.fetching.proof_first = false;
        // What waits is not passed over: else payload would gather here behind a gap that no answer ever fills.
        let whole = if without_gap { range.whole } else { 0 };
        for (place, block) in above.iter().take(range.blocks).enumerate() {
            if place < whole {
                for batch in &block.batches {
                    self.keep_batch(batch, out);
                }
            } else {
                self.fetching.bare_to = block.header.height;
            }
            self.keep_header(&block.header, out);
        }
        self.on_certificate(&range.commit, out);
    }

    /// Takes the payload of blocks that are final here already and wait for it, lowest first, up to the first that came without.
    /// Whether there was any, and whether all of them lack nothing now.
    fn fill_payload(&mut self, blocks: &[FetchedBlock], out: &mut Vec<Action>) -> (bool, bool) {
        let mut filled = false;
        for block in blocks {
            match self.fits_what_waits(block) {
                None => continue,
                Some(false) => return (filled, false),
                Some(true) => {}
            }
            for batch in &block.batches {
                self.keep_batch(batch, out);
            }
            filled = true;
        }
        (filled, true)
    }

    /// Whether `block`, of those final here that wait for execution, came with what it lacks; none: it does not wait.
    fn fits_what_waits(&self, block: &FetchedBlock) -> Option<bool> {
        let (_, base, _) = self.execution.queue.iter().find(|(header, _, _)| *header == block.header)?;
        Some(self.has_payload(block, base))
    }

    fn follows_tip(&self, header: &Header) -> bool {
        let tip = self.chain.tip();
        header.parent == tip.hash && header.height == tip.height.next()
    }

    /// The part of `blocks` that can be taken in: up to the highest commit certificate of the current epoch up to which they link
    /// to the final tip, and to such payload as came with them.
    fn usable_range(&self, blocks: &[FetchedBlock]) -> Option<UsableRange> {
        let mut parent = self.chain.tip().clone();
        let mut best = None;
        let mut whole = 0usize;
        for (count, block) in (1usize..).zip(blocks) {
            let header = &block.header;
            let links = header.parent == parent.hash
                && header.height == parent.height.next()
                && header.epoch == self.agreement.epoch()
                && header.cut.len() == self.agreement.set().len();
            let complete = links && self.has_payload(block, &parent.cut_for(header.epoch, header.cut.len()));
            if !links || !complete && !block.batches.is_empty() {
                break;
            }
            if complete && whole.saturating_add(1) == count {
                whole = count;
            }
            let commit = block.commit.as_ref().filter(|commit| {
                commit.block == header.hash()
                    && commit.epoch == header.epoch
                    && commit.kind == tally_types::VoteKind::Commit
            });
            if let Some(commit) = commit {
                best = Some(UsableRange { commit: commit.clone(), blocks: count, whole });
            }
            parent = Block::of(header);
        }
        best
    }

    /// Whether a block came with all batches it orders that are not held here, and no others. No block orders more than rule P2.3
    /// allows, and nobody is to be busy with one that says so.
    fn has_payload(&self, block: &FetchedBlock, base: &[Tip]) -> bool {
        let steps = block.header.cut.iter().zip(base).map(|(tip, from)| tip.seq.above(from.seq));
        if steps.fold(0, u64::saturating_add) > BLOCK_BATCHES_MAX {
            return false;
        }
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
