//! A replica among three others that send anything at all: whatever they say, it goes on, and what it keeps stays bounded.
//!
//! Every signature counts as checked, so the others are worse than any real adversary: they have certificates for blocks
//! that contradict each other. Nothing is asserted about agreement then, but that no input reaches a panic, that own votes
//! never contradict each other, and that votes are kept in bounded number.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use tally_consensus::{Action, Config, Event, FetchedBlock, Machine, Message, Now, Record, Unsigned, Voting};
use tally_ledger::Ledger;
use tally_types::{
    Address, Batch, Certificate, Epoch, Hash, Have, Header, Height, Proposal, Signature, SignedBatch, Tip, UnixMillis,
    View, ViewChange, Vote, VoteKind,
    certificate::CertificateSignature,
    have::HaveVector,
    header::{Executed, HeaderFields},
    vote::Ballot,
};

use crate::chain::genesis;

/// Most things that happen.
const EVENTS_MAX: usize = 300;
/// Votes a replica among four keeps at most: see rule V5.
const VOTES_MAX: usize = 4 * (17 + 16 + 2);

struct Play<'a> {
    bytes: std::slice::Iter<'a, u8>,
    machine: Machine,
    now: Now,
    /// What the others speak of.
    headers: Vec<Header>,
    certificates: Vec<Arc<Certificate>>,
    batches: Vec<Batch>,
    own: VecDeque<Message>,
    executions: VecDeque<Executed>,
    /// Own ballots, by what may be signed once.
    signed: BTreeMap<(VoteKind, Epoch, View), Ballot>,
}

pub fn replica(bytes: &[u8]) {
    let genesis = genesis();
    let executed = Ledger::genesis(genesis).executed();
    let me = genesis.validators.get(0).map(|member| member.address);
    let mut play = Play {
        bytes: bytes.iter(),
        machine: Machine::new(Config::new(genesis, me, executed), Voting::Allowed, executed),
        now: Now { mono_ms: 0, unix: UnixMillis(genesis.time.0 + 1000) },
        headers: Vec::new(),
        certificates: Vec::new(),
        batches: Vec::new(),
        own: VecDeque::new(),
        executions: VecDeque::new(),
        signed: BTreeMap::new(),
    };
    let mut out = Vec::new();
    play.machine.resume(play.now, &mut out);
    play.carry_out(&mut out);
    for _ in 0..EVENTS_MAX {
        if play.bytes.len() == 0 {
            break;
        }
        let event = play.event();
        play.machine.handle(play.now, event, &mut out);
        play.carry_out(&mut out);
        let kept = play.machine.kept();
        assert!(kept.votes <= VOTES_MAX, "votes pile up: {kept:?}");
        assert!(kept.open_headers <= 1024 && kept.early_batches <= 8 && kept.requests <= 512, "{kept:?}");
        assert!(kept.lower_commits <= 8 && kept.whole <= 1024, "{kept:?}");
    }
}

/// What a journal may hold behind good checksums: records in any order, each with its length before it. They lead somewhere or
/// are refused, and where they led the replica starts.
pub fn replay(bytes: &[u8]) {
    let genesis = genesis();
    let executed = Ledger::genesis(genesis).executed();
    let me = genesis.validators.get(0).map(|member| member.address);
    let mut machine = Machine::new(Config::new(genesis, me, executed), Voting::Allowed, executed);
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk()
        && let Some((record, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        && let Some((kind, content)) = record.split_first()
    {
        rest = after;
        let Ok(record) = Record::parse(*kind, content) else { return };
        let mut out = Vec::new();
        if machine.replay(record, &mut out).is_err() {
            return;
        }
        while let Some(action) = out.pop() {
            if let Action::Execute(order) = action {
                let executed = execution_of(order.header.height);
                let validators = genesis.validators.clone();
                machine.handle(Now::default(), Event::Executed { executed, validators }, &mut out);
            }
        }
    }
    let unix = UnixMillis(genesis.time.0 + 1000);
    machine.resume(Now { mono_ms: 0, unix }, &mut Vec::new());
    for second in 1..20 {
        let now = Now { mono_ms: second * 1000, unix: unix.plus(second * 1000) };
        machine.handle(now, Event::Tick, &mut Vec::new());
    }
}

/// Journals of the records there are: all in their order, and each by itself.
pub fn journals() -> Vec<Vec<u8>> {
    let framed = |record: &Vec<u8>| [&(record.len() as u16).to_be_bytes()[..], record].concat();
    let each: Vec<Vec<u8>> = crate::wire::records().iter().map(framed).collect();
    std::iter::once(each.concat()).chain(each).collect()
}

/// Roots that depend on nothing but the height.
fn execution_of(height: Height) -> Executed {
    let root = Hash([height.0 as u8; 32]);
    Executed { height, state_root: root, receipts_root: root }
}

impl Play<'_> {
    fn byte(&mut self, below: u8) -> u8 {
        self.bytes.next().copied().unwrap_or(0) % below
    }

    fn pick<T: Clone>(&mut self, of: fn(&Self) -> &Vec<T>) -> Option<T> {
        let at = usize::from(self.byte(255));
        let all = of(self);
        all.get(at.checked_rem(all.len())?).cloned()
    }

    fn number(&mut self) -> u64 {
        match self.byte(16) {
            15 => u64::MAX,
            14 => u64::MAX - 1,
            13 => 1 << 32,
            12 => 1000,
            small => u64::from(small),
        }
    }

    fn epoch(&mut self) -> Epoch {
        let here = self.machine.agreement().epoch();
        if self.byte(8) == 0 { Epoch(self.number()) } else { here }
    }

    fn view(&mut self) -> View {
        let here = self.machine.agreement().view();
        match self.byte(6) {
            0 => View(self.number()),
            1 => here.next(),
            2 => View(here.0.saturating_sub(1)),
            _ => here,
        }
    }

    fn place(&mut self) -> u32 {
        let place = self.byte(9);
        if place == 8 { u32::MAX } else { u32::from(place % 4) }
    }

    fn hash(&mut self) -> Hash {
        match self.byte(4) {
            0 => Hash([self.byte(4); 32]),
            1 => genesis().chain.genesis_hash,
            _ => self.pick(|play| &play.headers).map_or(Hash::ZERO, |header| header.hash()),
        }
    }

    fn tip(&mut self) -> Tip {
        match self.byte(4) {
            0 => Tip::START,
            1 => Tip { seq: tally_types::Seq(self.number()), digest: Hash([self.byte(4); 32]) },
            _ => self.pick(|play| &play.batches).map_or(Tip::START, |batch| batch.tip()),
        }
    }

    fn tips(&mut self) -> Vec<Tip> {
        let count = if self.byte(16) == 0 { usize::from(self.byte(9)) } else { 4 };
        (0..count).map(|_| self.tip()).collect()
    }

    fn header(&mut self) -> Header {
        let status = self.machine.status();
        let agreement = self.machine.agreement();
        let (epoch, view) = (agreement.epoch(), agreement.view());
        let leader = agreement.set().place_of(&status.leader).unwrap_or_default();
        let validators = agreement.set().hash();
        let mut fields = HeaderFields {
            epoch,
            height: status.final_height.next(),
            view,
            parent: status.final_hash,
            proposer: leader,
            time: self.now.unix,
            cut: self.tips(),
            executed: Ledger::genesis(genesis()).executed(),
            validators,
            next_validators: validators,
        };
        match self.byte(12) {
            0 => fields.height = Height(self.number()),
            1 => fields.parent = self.hash(),
            2 => fields.view = self.view(),
            3 => fields.time = UnixMillis(self.number()),
            4 => fields.executed.height = Height(self.number()),
            5 => fields.epoch = self.epoch(),
            6 | 7 => {
                // On top of another.
                if let Some(parent) = self.pick(|play| &play.headers) {
                    fields.parent = parent.hash();
                    fields.height = parent.height.next();
                    fields.time = parent.time.plus(1);
                }
            }
            _ => {}
        }
        let header = Header::new(fields);
        self.headers.push(header.clone());
        header
    }

    fn certificate(&mut self) -> Option<Arc<Certificate>> {
        if self.byte(3) == 0 {
            return self.pick(|play| &play.certificates);
        }
        let kind = [VoteKind::Prepare, VoteKind::Commit, VoteKind::ViewChange][usize::from(self.byte(3))];
        let highest = if kind == VoteKind::ViewChange { self.pick(|play| &play.certificates) } else { None };
        let highest = highest.filter(|highest| highest.kind != VoteKind::ViewChange);
        let highest_view = highest.as_ref().map_or(View(0), |highest| highest.view);
        let block = if kind == VoteKind::ViewChange { Hash::ZERO } else { self.hash() };
        let signature = |signer| CertificateSignature { signer, highest_view, signature: Signature([7; 64]) };
        let signatures = (1..4).map(signature).collect();
        let certificate = Certificate { kind, epoch: self.epoch(), view: self.view(), block, signatures, highest };
        let certificate = Arc::new(certificate);
        self.certificates.push(certificate.clone());
        Some(certificate)
    }

    fn message(&mut self) -> Message {
        let (epoch, signature) = (self.epoch(), Signature([self.byte(3); 64]));
        match self.byte(7) {
            0 => {
                let justification = if self.byte(2) == 0 { None } else { self.certificate() };
                let justification_bytes =
                    justification.as_ref().map(|one| Bytes::from(one.encode())).unwrap_or_default();
                let highest_commit = if self.byte(3) == 0 { self.certificate() } else { None };
                let (view, header) = (self.view(), self.header());
                Message::Proposal(Arc::new(Proposal {
                    epoch,
                    view,
                    header,
                    justification,
                    justification_bytes,
                    signature,
                    highest_commit,
                }))
            }
            1 | 2 => {
                let kind = if self.byte(2) == 0 { VoteKind::Prepare } else { VoteKind::Commit };
                Message::Vote(Vote {
                    kind,
                    epoch,
                    view: self.view(),
                    block: self.hash(),
                    signer: self.place(),
                    signature,
                })
            }
            3 => {
                let highest = if self.byte(2) == 0 { None } else { self.certificate() };
                let highest_view = highest.as_ref().map_or(View(0), |highest| highest.view);
                let (view, signer) = (self.view(), self.place());
                Message::ViewChange(ViewChange { epoch, view, highest_view, highest, signer, signature })
            }
            4 => {
                let parent = self.tip();
                let transactions = vec![Bytes::from(vec![self.byte(255); 20])];
                let lane = self.place();
                let batch = Batch::new(epoch, lane, parent, transactions);
                self.batches.push(batch.clone());
                Message::Batch(SignedBatch { batch, signature })
            }
            5 => {
                let vector = HaveVector {
                    epoch,
                    counter: self.number(),
                    tips: self.tips(),
                    executed: Height(self.number()),
                    view: self.view(),
                    final_height: Height(self.number()),
                };
                let bytes = vector.encode();
                Message::Have(Arc::new(Have { vector, bytes, signer: self.place(), signature }))
            }
            _ => Message::Certificates { entry: self.certificate(), highest_commit: self.certificate() },
        }
    }

    fn from(&mut self) -> Address {
        let place = u32::from(self.byte(4));
        genesis().validators.get(place).map_or(Address([9; 32]), |member| member.address)
    }

    fn event(&mut self) -> Event {
        match self.byte(16) {
            0 => {
                let ahead = u64::from(self.byte(255)) * 20;
                self.now.mono_ms += ahead;
                self.now.unix = self.now.unix.plus(ahead);
                Event::Tick
            }
            1 | 2 if !self.own.is_empty() => Event::Own(self.own.pop_front().expect("it is not empty")),
            3 if !self.executions.is_empty() => {
                let executed = self.executions.pop_front().expect("it is not empty");
                Event::Executed { executed, validators: genesis().validators.clone() }
            }
            4 => Event::Transactions(vec![Bytes::from(vec![self.byte(255); 30])]),
            5 => Event::Headers(self.headers.clone()),
            6 => Event::Batches(self.batches.clone()),
            7 => {
                let from = self.from();
                let commit = self.certificate();
                let header = self.pick(|play| &play.headers);
                let block = |header| FetchedBlock { header, batches: self.batches.clone(), commit };
                Event::Blocks { from, blocks: header.map(block).into_iter().collect() }
            }
            8 => Event::Connected(self.from()),
            9 => Event::Ahead { from: self.from() },
            10 => Event::Behind { from: self.from() },
            _ => {
                let from = self.from();
                Event::Message { from, message: self.message() }
            }
        }
    }

    /// Signs and executes.
    fn carry_out(&mut self, out: &mut Vec<Action>) {
        for action in out.drain(..) {
            match action {
                Action::Execute(order) => {
                    self.executions.push_back(execution_of(order.header.height));
                }
                Action::Sign(unsigned) => {
                    if let Unsigned::Ballot { epoch, ballot, .. } = &unsigned {
                        let once = (ballot.kind(), *epoch, ballot.view());
                        let before = *self.signed.entry(once).or_insert(*ballot);
                        assert_eq!(before, *ballot, "two ballots of one kind and view");
                    }
                    let (genesis, me) = (genesis().chain.genesis_hash, Address([0; 32]));
                    let message = unsigned.signed(&genesis, &me, |_| Signature([0; 64]));
                    if let Message::Batch(signed) = &message {
                        self.batches.push(signed.batch.clone());
                    }
                    self.own.push_back(message);
                }
                _ => {}
            }
        }
    }
}
