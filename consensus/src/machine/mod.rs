//! The machine: agreement, lanes, chain, execution, timers and catch-up behind one face.
//!
//! `handle` takes one event, then lets everything advance that the event made possible, in a fixed order, until nothing
//! moves. What can be had again is recomputed on every turn and never stored: which headers and batches are missing, how
//! long to wait, what to send again.

mod clock;
mod fetching;
mod finality;
mod messages;
mod proposals;
mod replay;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use tally_types::{
    Address, Batch, Certificate, Epoch, Hash, Header, Height, Proposal, Seq, Tip, ValidatorSet, View, header::Executed,
    vote::Ballot,
};

use crate::{
    agreement::{Agreement, Output},
    chain::{Chain, Path},
    config::{Config, LOWER_COMMITS_MAX, Voting},
    event::{Action, Event, Kept, Now, Status},
    evidence::{Evidence, EvidenceKind},
    lanes::Lanes,
    record::Record,
    unsigned::Unsigned,
};
use fetching::Fetching;

/// Who leads a view: drawn from the seed of its epoch, which stands before that begins.
#[derive(Clone, Copy, Debug)]
struct Lead {
    epoch: Epoch,
    view: View,
    leader: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    now: Now,
    /// Takes records back: nothing is persisted, signed or sent.
    replaying: bool,
    agreement: Agreement,
    lanes: Lanes,
    chain: Chain,
    /// Validators and seed of the epochs whose messages can be judged.
    sets: BTreeMap<Epoch, ValidatorSet>,
    seeds: BTreeMap<Epoch, Hash>,
    voting: Voting,
    /// The driver said that the journal is lost or a copy: what it says of voting does not count. Rule R3.
    restored: bool,
    /// The last block of the epoch is final, by this certificate: nothing more is signed in it. Rule P5.
    closing: Option<Arc<Certificate>>,
    highest_commit: Option<Arc<Certificate>>,
    /// Highest commit certificate of a later epoch, for when that epoch is reached.
    ahead: Option<Arc<Certificate>>,
    /// Commit certificates at or below the floor whose blocks are not final here yet: from ranges, while catching up.
    lower_commits: Vec<Arc<Certificate>>,
    execution: Execution,
    round: Round,
    peers: BTreeMap<Address, Peer>,
    fetching: Fetching,
    have: Having,
    /// Open blocks whose payload is known to be whole.
    whole: BTreeSet<Hash>,
    /// Counts state changes, so that `advance` knows when to stop.
    moves: u64,
    /// The leader asked for last: the draw costs a hash, and every turn asks several times.
    leading: Cell<Option<Lead>>,
}

/// Final blocks on their way through execution.
#[derive(Debug)]
struct Execution {
    /// Final, not given out yet: header, the cut its lanes start from, certificate of its own.
    queue: VecDeque<(Header, Vec<Tip>, Option<Arc<Certificate>>)>,
    /// Highest height given out.
    issued: Height,
    /// Highest height reported back.
    done: Height,
    /// Results that headers may still name.
    results: BTreeMap<Height, Executed>,
    /// Payload of blocks given out, until it is executed and under a certified root.
    unreleased: VecDeque<(Height, Vec<Hash>)>,
    /// Up to here a state snapshot of the driver covers execution.
    covered: Height,
    /// Results of this replay that the journal does not hold yet: persisted when it ends.
    unrecorded: VecDeque<(Height, Record)>,
    /// Height of the last alarm, so that it is raised once.
    alarmed: Option<Height>,
}

/// What belongs to the current view only.
#[derive(Debug, Default)]
struct Round {
    entered_ms: u64,
    /// When there first was work in this view. Rule W1.
    work_since_ms: Option<u64>,
    /// `moves` when that was last asked.
    work_asked_at: u64,
    /// The leader's proposal, and when it came.
    proposal: Option<(Arc<Proposal>, u64)>,
    /// This replica's own proposal: sent, or about to be.
    own_proposal: Option<Unsigned>,
    /// This replica proposed in this view, whether or not it still has the header. Rule R1.
    proposed: bool,
    resend_at_ms: u64,
    resend_interval_ms: u64,
    /// Who was heard in this view. Rule V2.
    heard: BTreeSet<Address>,
}

/// What is known of a validator.
#[derive(Debug, Default, Clone)]
struct Peer {
    heard_ms: u64,
    /// Views in a row in which a quorum was heard and this one was not.
    missed_views: u64,
    /// When it was last sent certificates. Rule V4.
    answered_ms: Option<u64>,
    /// Epoch and counter of its last HAVE: a validator that lost its journal counts from the start, in a later epoch.
    have_counter: Option<(Epoch, u64)>,
    /// Epoch of the last HAVE that came from itself. Rule R3.
    own_epoch: Option<Epoch>,
    executed: Height,
    final_height: Height,
    /// It speaks of epochs unknown here.
    far_ahead: bool,
    /// When it last was asked for blocks and gave none of use in time, since it last did.
    range_failed_ms: Option<u64>,
    /// It gave what it was asked for last.
    range_given: bool,
    /// The last question for blocks that it was asked, counted from 1; 0: none yet.
    range_turn: u64,
    /// What it had announced of this replica's lane when last looked at, and since when. Rule D1.
    behind: Seq,
    behind_since_ms: u64,
}

#[derive(Debug, Default)]
struct Having {
    counter: u64,
    /// Something changed since the last HAVE.
    dirty: bool,
    sent_ms: u64,
}

impl Machine {
    /// A machine at genesis. Records of earlier runs are given by [`Machine::replay`], in order, before
    /// [`Machine::resume`]. `covered`: what the state snapshot says that the driver has loaded; that of genesis: none.
    pub fn new(config: Config, voting: Voting, covered: Executed) -> Machine {
        let genesis = config.genesis_hash;
        let set = config.genesis_validators.clone();
        let me = config.me.filter(|_| voting == Voting::Allowed).and_then(|me| set.place_of(&me));
        let execution = Execution {
            queue: VecDeque::new(),
            issued: Height::ZERO,
            done: Height::ZERO,
            results: BTreeMap::from([(Height::ZERO, config.genesis_executed), (covered.height, covered)]),
            unreleased: VecDeque::new(),
            covered: covered.height,
            unrecorded: VecDeque::new(),
            alarmed: None,
        };
        Machine {
            now: Now::default(),
            replaying: true,
            agreement: Agreement::new(Epoch::ZERO, set.clone(), me, genesis, None),
            lanes: Lanes::new(Epoch::ZERO, set.clone(), me),
            chain: Chain::new(&config),
            sets: BTreeMap::from([(Epoch(0), set.clone()), (Epoch(1), set)]),
            seeds: BTreeMap::from([(Epoch(0), genesis), (Epoch(1), genesis)]),
            voting,
            restored: voting != Voting::Allowed,
            closing: None,
            highest_commit: None,
            ahead: None,
            lower_commits: Vec::new(),
            execution,
            round: Round::default(),
            peers: BTreeMap::new(),
            fetching: Fetching::default(),
            have: Having::default(),
            whole: BTreeSet::new(),
            // Above the zero of a new round: the first question is asked.
            moves: 1,
            leading: Cell::new(None),
            config,
        }
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Vec<Action>) {
        self.now = Now { mono_ms: now.mono_ms.max(self.now.mono_ms), unix: now.unix };
        let tick = matches!(event, Event::Tick);
        match event {
            Event::Message { from, message } => self.on_message(from, message, out),
            Event::Own(message) => self.on_own(message, out),
            Event::Ahead { from } => self.on_ahead(from, out),
            Event::Behind { from } => self.on_behind(from, out),
            Event::Connected(peer) => self.on_connected(peer, out),
            Event::Transactions(transactions) => self.lanes.add_transactions(transactions, self.now.mono_ms),
            Event::Headers(headers) => self.on_headers(headers, out),
            Event::Batches(batches) => self.on_batches(batches, out),
            Event::Blocks { from, blocks } => self.on_blocks(from, blocks, out),
            Event::Executed { executed, validators } => self.on_executed(executed, validators, out),
            Event::Tick => {}
        }
        self.advance(out);
        if !self.replaying {
            self.time_out(out);
            self.seal(out);
            self.fetch(out);
            if tick {
                self.announce(out);
                self.resend(out);
            }
        }
    }

    /// Everything that became possible, in a fixed order, until nothing moves.
    fn advance(&mut self, out: &mut Vec<Action>) {
        loop {
            let before = self.moves;
            self.fetching.needs.clear();
            self.finalize(out);
            self.execute(out);
            self.enter_epoch(out);
            if !self.replaying {
                self.judge(out);
                self.commit(out);
                self.propose(out);
            }
            if self.moves == before {
                break;
            }
        }
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        let tip = self.chain.tip();
        let leader = self.agreement.set().get(self.leader()).map(|member| member.address);
        Status {
            epoch: self.agreement.epoch(),
            view: self.agreement.view(),
            leader: leader.unwrap_or(Address([0; 32])),
            final_height: tip.height,
            final_hash: tip.hash,
            final_time: tip.time,
            executed: self.execution.done,
            highest_seen: self.highest_claimed().max(tip.height),
            voting: self.signs(),
            waiting_bytes: self.lanes.waiting_bytes(),
        }
    }

    /// Bytes of client transactions it still takes.
    pub fn room(&self) -> usize {
        self.config.waiting_bytes_max.saturating_sub(self.lanes.waiting_bytes())
    }

    /// What is known of the other validators: address, final height claimed, milliseconds since it was last heard.
    pub fn peers(&self) -> Vec<(Address, Height, u64)> {
        let silence = |peer: &Peer| self.now.mono_ms.saturating_sub(peer.heard_ms);
        self.peers.iter().map(|(address, peer)| (*address, peer.final_height, silence(peer))).collect()
    }

    /// A header it holds, for a peer that asks.
    pub fn lookup_header(&self, hash: &Hash) -> Option<&Header> {
        self.chain.header(hash)
    }

    /// Whether it holds this batch.
    pub fn holds(&self, digest: &Hash) -> bool {
        self.lanes.held(digest).is_some()
    }

    /// The batches it holds from `tip` down to, not including, `above`, highest first, at most `most`, for a peer that asks.
    pub fn lookup_batches(&self, tip: &Tip, above: Seq, most: usize) -> Vec<Batch> {
        let mut found = Vec::new();
        let mut at = *tip;
        while at.seq > above && found.len() < most {
            let Some(batch) = self.lanes.held(&at.digest) else { break };
            at = batch.parent_tip();
            found.push(batch.clone());
        }
        found
    }

    /// How many things of each kind it keeps, for tests of the bounds.
    pub fn kept(&self) -> Kept {
        Kept {
            votes: self.agreement.votes_kept(),
            open_headers: self.chain.open_len(),
            batches: self.lanes.held_count(),
            early_batches: self.lanes.early_most(),
            requests: self.fetching.len(),
            lower_commits: self.lower_commits.len(),
            whole: self.whole.len(),
            unexecuted: self.execution.queue.len(),
            unreleased: self.execution.unreleased.len(),
            results: self.execution.results.len(),
        }
    }

    /// The agreement part.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    // What the parts share.

    /// Whether this replica may sign in its epoch.
    fn signs(&self) -> bool {
        self.agreement.signs() && !self.replaying
    }

    fn leader(&self) -> u32 {
        self.leader_of(self.agreement.view())
    }

    fn leader_of(&self, view: View) -> u32 {
        let epoch = self.agreement.epoch();
        if let Some(lead) = self.leading.get().filter(|lead| (lead.epoch, lead.view) == (epoch, view)) {
            return lead.leader;
        }
        let seed = self.seeds.get(&epoch).unwrap_or(&self.config.genesis_hash);
        let leader = self.agreement.set().leader(seed, epoch, view);
        self.leading.set(Some(Lead { epoch, view, leader }));
        leader
    }

    fn last_height(&self) -> Height {
        self.config.last_height(self.agreement.epoch())
    }

    fn persist(&self, record: Record, out: &mut Vec<Action>) {
        if !self.replaying {
            out.push(Action::Persist(record));
        }
    }

    /// Keeps a header, durably.
    fn keep_header(&mut self, header: &Header, out: &mut Vec<Action>) {
        if self.chain.is_full() {
            let lower = self.lower_commits.iter();
            let certified = self.agreement.prepared().chain(self.agreement.commit()).chain(lower);
            let ends: Vec<Hash> = certified.map(|certificate| certificate.block).collect();
            self.chain.keep_only(&ends);
        }
        if self.chain.insert(header) {
            self.moves = self.moves.wrapping_add(1);
            self.persist(Record::Header(header.clone()), out);
        }
    }

    /// Takes in a verified certificate of whatever epoch. Rules V1, S1.
    fn on_certificate(&mut self, certificate: &Arc<Certificate>, out: &mut Vec<Action>) {
        if certificate.epoch == self.agreement.epoch() {
            self.note_lower_commit(certificate, out);
            let mut outputs = Vec::new();
            self.agreement.on_certificate(certificate, &mut outputs);
            self.carry_out(outputs, out);
        } else if certificate.epoch > self.agreement.epoch() && certificate.kind == tally_types::VoteKind::Commit {
            let place = |certificate: &Certificate| (certificate.epoch, certificate.view);
            if self.ahead.as_ref().is_none_or(|ahead| place(ahead) < place(certificate)) {
                self.ahead = Some(certificate.clone());
            }
        }
    }

    /// Rule P4: a commit certificate at or below the floor makes its block final as well. It comes with a range of blocks,
    /// when a higher certificate, whose block is still far, has raised the floor already.
    fn note_lower_commit(&mut self, certificate: &Arc<Certificate>, out: &mut Vec<Action>) {
        let lower = certificate.kind == tally_types::VoteKind::Commit && certificate.view <= self.agreement.floor();
        let open = !self.chain.is_final(&certificate.block) && self.chain.header(&certificate.block).is_some();
        let known = self.lower_commits.iter().any(|known| known.block == certificate.block);
        if lower && open && !known {
            if self.lower_commits.len() >= LOWER_COMMITS_MAX {
                // Only for a higher one, or one that makes its block final in this turn: else one peer could have them written
                // down in a circle.
                let lowest = self.lower_commits.iter().enumerate().min_by_key(|(_, kept)| kept.view);
                let Some((lowest, view)) = lowest.map(|(at, kept)| (at, kept.view)) else { return };
                let now = matches!(self.chain.path(&certificate.block), Path::Open(_));
                if certificate.view < view && !now {
                    return;
                }
                self.lower_commits.remove(lowest);
            }
            self.lower_commits.push(certificate.clone());
            self.moves = self.moves.wrapping_add(1);
            self.persist(Record::Certificate(certificate.clone()), out);
        }
    }

    /// Turns what the agreement wants into actions.
    fn carry_out(&mut self, outputs: Vec<Output>, out: &mut Vec<Action>) {
        for output in outputs {
            match output {
                Output::Persist(certificate) => self.persist(Record::Certificate(certificate), out),
                Output::Sign(ballot) => self.sign(ballot, out),
                Output::Entered(_) => self.enter_view(),
                Output::Committed(certificate) => {
                    self.highest_commit = Some(certificate);
                    self.moves = self.moves.wrapping_add(1);
                }
                Output::Convicted { signer, kind, first, second } => self.convict(signer, kind, first, second, out),
                Output::Dropped(reject) => out.push(Action::Dropped(reject)),
            }
        }
    }

    /// Makes a ballot durable and has it signed.
    fn sign(&mut self, ballot: Ballot, out: &mut Vec<Action>) {
        let epoch = self.agreement.epoch();
        match ballot {
            Ballot::Prepare(view, block) => self.persist(Record::Prepared { epoch, view, block }, out),
            Ballot::ViewChange(view, _) => {
                let highest = self.agreement.view_change_certificate(view);
                self.persist(Record::ViewChanged { epoch, view, highest }, out);
            }
            // COMMIT follows from durable certificates and VIEW-CHANGEs alone: after a restart it is found again.
            Ballot::Commit(..) => {}
        }
        self.ask_for_signature(ballot, out);
    }

    fn ask_for_signature(&self, ballot: Ballot, out: &mut Vec<Action>) {
        let Some(signer) = self.agreement.me().filter(|_| !self.replaying) else { return };
        let highest = match ballot {
            Ballot::ViewChange(view, _) => self.agreement.view_change_certificate(view),
            _ => None,
        };
        out.push(Action::Sign(Unsigned::Ballot { epoch: self.agreement.epoch(), signer, ballot, highest }));
    }

    fn convict(
        &self,
        signer: u32,
        kind: EvidenceKind,
        first: (Ballot, tally_types::Signature),
        second: (Ballot, tally_types::Signature),
        out: &mut Vec<Action>,
    ) {
        let Some(member) = self.agreement.set().get(signer) else { return };
        let epoch = self.agreement.epoch();
        let signed = |(ballot, signature): (Ballot, tally_types::Signature)| {
            (ballot.signed_bytes(&self.config.genesis_hash, epoch), signature)
        };
        out.push(Action::Evidence(Box::new(Evidence {
            validator: member.address,
            kind,
            epoch,
            number: first.0.view().0,
            first: signed(first),
            second: signed(second),
        })));
    }

    /// Addresses of `places` of the current epoch, without this replica.
    fn addresses(&self, places: impl IntoIterator<Item = u32>) -> Vec<Address> {
        let set = self.agreement.set();
        let found = places.into_iter().filter_map(|place| set.get(place).map(|member| member.address));
        found.filter(|address| Some(*address) != self.config.me).collect()
    }
}

#[cfg(test)]
mod tests;
