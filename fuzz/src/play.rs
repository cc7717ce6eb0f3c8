//! One replica among three others that send anything at all, as the bytes decide.
//!
//! Every signature counts as checked, so the others are worse than any real adversary: they have certificates for blocks
//! that contradict each other. Nothing is asserted about agreement then, but that no input reaches a panic, that what is signed
//! never contradicts itself, and that what is kept stays bounded.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use tally_consensus::{Action, Config, Event, Fetch, FetchedBlock, Machine, Message, Now, Record, Unsigned, Voting};
use tally_ledger::Ledger;
use tally_types::{
    Address, Batch, Certificate, Epoch, Hash, Header, Height, Seq, Signature, SignedBatch, Tip, UnixMillis, View,
    ViewChange, Vote, VoteKind,
    certificate::CertificateSignature,
    have::HaveVector,
    header::{Executed, HeaderFields},
};

use crate::chain::short_epochs;

/// Most things that happen.
const EVENTS_MAX: usize = 300;
/// Votes a replica among four keeps at most: see rule V5.
const VOTES_MAX: usize = 4 * (17 + 16 + 2);
/// Most batches in an answer.
const ANSWER_MAX: usize = 64;

pub struct Play<'a> {
    bytes: std::slice::Iter<'a, u8>,
    pub machine: Machine,
    now: Now,
    /// What the others speak of.
    headers: Vec<Header>,
    certificates: Vec<Arc<Certificate>>,
    batches: Vec<Batch>,
    own: VecDeque<Message>,
    executions: VecDeque<Executed>,
    signed: Signed,
    /// Whom it asked for blocks last.
    asked: Option<Address>,
    /// What it wrote to its journal.
    pub records: Vec<Record>,
    /// How many it had executed.
    pub executed: u64,
}

/// Digests of what was signed, by what may be signed once: kind, epoch, and view, sequence or counter. Restarts do not end it.
#[derive(Default)]
struct Signed(BTreeMap<(u8, Epoch, u64), Hash>);

impl Signed {
    /// Notes what is signed, and that nothing else was in its place.
    fn note(&mut self, unsigned: &Unsigned) {
        let (kind, epoch, number, digest) = match unsigned {
            Unsigned::Ballot { epoch, ballot, .. } => {
                let bytes = ballot.signed_bytes(&short_epochs().chain.genesis_hash, *epoch);
                (ballot.kind() as u8, *epoch, ballot.view().0, bytes.hash())
            }
            Unsigned::Proposal { epoch, view, header, .. } => (100, *epoch, view.0, header.hash()),
            Unsigned::Batch(batch) => (101, batch.epoch(), batch.seq().0, batch.digest()),
            Unsigned::Have { vector, .. } => (102, vector.epoch, vector.counter, Hash::of(&vector.encode())),
        };
        let before = *self.0.entry((kind, epoch, number)).or_insert(digest);
        assert_eq!(before, digest, "two of one kind and place are signed: {unsigned:?}");
    }
}

/// The replica before anything has happened.
pub fn machine(voting: Voting) -> Machine {
    let genesis = short_epochs();
    let executed = Ledger::genesis(genesis).executed();
    let me = genesis.validators.get(0).map(|member| member.address);
    Machine::new(Config::new(genesis, me, executed), voting, executed)
}

/// Roots that depend on nothing but the height.
pub fn execution_of(height: Height) -> Executed {
    let root = Hash([height.0 as u8; 32]);
    Executed { height, state_root: root, receipts_root: root }
}

impl<'a> Play<'a> {
    /// Everything that these bytes decide.
    pub fn of(bytes: &'a [u8]) -> Play<'a> {
        let mut play = Play {
            bytes: bytes.iter(),
            machine: machine(Voting::Allowed),
            now: Now { mono_ms: 0, unix: UnixMillis(short_epochs().time.0 + 1000) },
            headers: Vec::new(),
            certificates: Vec::new(),
            batches: Vec::new(),
            own: VecDeque::new(),
            executions: VecDeque::new(),
            signed: Signed::default(),
            asked: None,
            records: Vec::new(),
            executed: 0,
        };
        if play.byte(8) == 0 {
            play.machine = machine(Voting::From(None));
        }
        play.run();
        play
    }

    /// It starts again, as `machine` that came of what it wrote down, among the same others, and `bytes` decide what happens then.
    pub fn go_on(&mut self, machine: Machine, bytes: &'a [u8]) {
        self.machine = machine;
        self.bytes = bytes.iter();
        self.own.clear();
        self.executions.clear();
        self.asked = None;
        self.run();
    }

    fn run(&mut self) {
        let mut out = Vec::new();
        self.machine.resume(self.now, &mut out);
        self.carry_out(out);
        for _ in 0..EVENTS_MAX {
            if self.bytes.len() == 0 {
                break;
            }
            self.step();
        }
    }

    /// Something happens to it.
    fn tell(&mut self, event: Event) {
        let mut out = Vec::new();
        self.machine.handle(self.now, event, &mut out);
        self.carry_out(out);
        let kept = self.machine.kept();
        assert!(kept.votes <= VOTES_MAX, "votes pile up: {kept:?}");
        assert!(kept.open_headers <= 1024 && kept.early_batches <= 8 && kept.requests <= 512, "{kept:?}");
        assert!(kept.lower_commits <= 8 && kept.whole <= 1024, "{kept:?}");
    }

    fn say(&mut self, message: Message) {
        let from = self.from();
        self.tell(Event::Message { from, message });
    }

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
            1 => short_epochs().chain.genesis_hash,
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
            executed: Ledger::genesis(short_epochs()).executed(),
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
                let highest_commit = if self.byte(3) == 0 { self.certificate() } else { None };
                let (view, header) = (self.view(), self.header());
                let proposal = Unsigned::Proposal { epoch, view, header, justification, highest_commit };
                proposal.signed(&Hash::ZERO, &Address([0; 32]), |_| signature)
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
                Message::Have(Arc::new(vector.signed(&Hash::ZERO, self.place(), |_| signature)))
            }
            _ => Message::Certificates { entry: self.certificate(), highest_commit: self.certificate() },
        }
    }

    fn from(&mut self) -> Address {
        let place = u32::from(self.byte(4));
        short_epochs().validators.get(place).map_or(Address([9; 32]), |member| member.address)
    }

    /// What the leader of its view should propose, with a time of its own: each time it is another block.
    fn good_proposal(&mut self) -> Option<Message> {
        let (status, agreement) = (self.machine.status(), self.machine.agreement());
        let (epoch, view) = (agreement.epoch(), agreement.view());
        let justification = agreement.justification();
        let parent_hash = agreement.parent(view, justification.as_deref())?;
        let (set, genesis) = (agreement.set().clone(), short_epochs());
        let parent = self.headers.iter().find(|header| header.hash() == parent_hash);
        if parent.is_none() && parent_hash != genesis.chain.genesis_hash {
            return None;
        }
        let of_epoch = parent.filter(|parent| parent.epoch == epoch);
        let header = Header::new(HeaderFields {
            epoch,
            height: parent.map_or(Height(1), |parent| parent.height.next()),
            view,
            parent: parent_hash,
            proposer: set.place_of(&status.leader).unwrap_or_default(),
            time: parent.map_or(genesis.time, |parent| parent.time).plus(1 + self.headers.len() as u64),
            cut: of_epoch.map_or(vec![Tip::START; set.len()], |parent| parent.cut.clone()),
            executed: parent.map_or(Ledger::genesis(genesis).executed(), |parent| parent.executed),
            validators: set.hash(),
            next_validators: of_epoch.map_or(set.hash(), |parent| parent.next_validators),
        });
        self.headers.push(header.clone());
        let highest_commit = self.machine.highest_commit().cloned();
        let proposal = Unsigned::Proposal { epoch, view, header, justification, highest_commit };
        Some(proposal.signed(&Hash::ZERO, &Address([0; 32]), |_| Signature([7; 64])))
    }

    /// Blocks that follow the final one as they should, with payload now and then, all in the view after the other. They end
    /// with the epoch, and now and then they do not.
    fn good_blocks(&mut self) -> Vec<FetchedBlock> {
        let (status, agreement) = (self.machine.status(), self.machine.agreement());
        let (epoch, mut view) = (agreement.epoch(), agreement.view());
        let (validators, leader) = (agreement.set().hash(), agreement.set().place_of(&status.leader));
        let last = self.headers.iter().find(|header| header.hash() == status.final_hash);
        let mut cut = last
            .filter(|last| last.epoch == epoch && last.cut.len() == 4)
            .map_or(vec![Tip::START; 4], |last| last.cut.clone());
        let (mut height, mut parent, mut time) = (status.final_height, status.final_hash, status.final_time);
        let all_certified = self.byte(2) == 0;
        let last_height = (epoch.0 + 1) * short_epochs().params.epoch_blocks;
        let left = if self.byte(16) == 0 { u64::MAX } else { last_height.saturating_sub(height.0) };
        let count = u64::from(1 + self.byte(8)).min(left);
        let mut blocks = Vec::new();
        for place in 1..=count {
            let mut batches = Vec::new();
            if self.byte(3) == 0 {
                let lane = usize::from(self.byte(4));
                let transactions = vec![Bytes::from(vec![self.byte(255); 20])];
                let batch = Batch::new(epoch, lane as u32, cut[lane], transactions);
                cut[lane] = batch.tip();
                batches.push(batch);
            }
            (height, time) = (height.next(), time.plus(1));
            let header = Header::new(HeaderFields {
                epoch,
                height,
                view,
                parent,
                proposer: leader.unwrap_or_default(),
                time,
                cut: cut.clone(),
                executed: Ledger::genesis(short_epochs()).executed(),
                validators,
                next_validators: validators,
            });
            parent = header.hash();
            let signature =
                |signer| CertificateSignature { signer, highest_view: View::ZERO, signature: Signature([7; 64]) };
            let commit = (all_certified || place == count).then(|| {
                Arc::new(Certificate {
                    kind: VoteKind::Commit,
                    epoch,
                    view,
                    block: parent,
                    signatures: (1..4).map(signature).collect(),
                    highest: None,
                })
            });
            view = view.next();
            self.headers.push(header.clone());
            self.certificates.extend(commit.clone());
            self.batches.extend(batches.clone());
            blocks.push(FetchedBlock { header, batches, commit });
        }
        blocks
    }

    /// The others are some blocks ahead, and it learns of them in one way or another.
    fn grow(&mut self) {
        let mut blocks = self.good_blocks();
        if blocks.is_empty() {
            return;
        }
        if self.byte(2) == 0 {
            for FetchedBlock { header, batches, commit } in blocks {
                if commit.is_some() {
                    self.say(Message::Certificates { entry: None, highest_commit: commit });
                }
                self.tell(Event::Headers(vec![header]));
                self.tell(Event::Batches(batches));
            }
            return;
        }
        let last = blocks.last().map(|block| block.header.height).unwrap_or_default();
        for place in 1..4 {
            let vector = HaveVector {
                epoch: self.machine.agreement().epoch(),
                counter: self.now.mono_ms,
                tips: vec![Tip::START; 4],
                executed: last,
                view: View(1),
                final_height: last,
            };
            let have = vector.signed(&Hash::ZERO, place, |_| Signature([7; 64]));
            self.say(Message::Have(Arc::new(have)));
        }
        for _ in 0..3 {
            self.pass(1000);
            match self.byte(8) {
                0 => blocks.iter_mut().for_each(|block| block.batches.clear()),
                1 => blocks.reverse(),
                2 => {
                    let gone = usize::from(self.byte(8)) % blocks.len();
                    blocks.remove(gone);
                }
                3 => blocks.truncate(1),
                4 => blocks.iter_mut().for_each(|block| block.commit = None),
                _ => {}
            }
            if blocks.is_empty() {
                return;
            }
            let Some(from) = self.asked.take() else { continue };
            self.tell(Event::Blocks { from, blocks: blocks.clone() });
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix = self.now.unix.plus(ms);
        self.tell(Event::Tick);
    }

    fn step(&mut self) {
        match self.byte(17) {
            0 => {
                let ahead = u64::from(self.byte(255)) * 20;
                self.pass(ahead);
            }
            1 | 2 => match self.own.pop_front() {
                Some(own) => self.tell(Event::Own(own)),
                None => self.grow(),
            },
            3 | 4 => match self.executions.pop_front() {
                Some(executed) => {
                    self.executed += 1;
                    self.tell(Event::Executed { executed, validators: short_epochs().validators.clone() });
                }
                None => self.grow(),
            },
            5 => {
                let transactions = vec![Bytes::from(vec![self.byte(255); 30])];
                self.tell(Event::Transactions(transactions));
            }
            6 => self.tell(Event::Headers(self.headers.clone())),
            7 => self.tell(Event::Batches(self.batches.clone())),
            8 => {
                // Any run of blocks there are, in any state.
                let from = self.asked.take().unwrap_or_else(|| self.from());
                let count = usize::from(self.byte(6));
                let first = usize::from(self.byte(255)).checked_rem(self.headers.len()).unwrap_or_default();
                let headers: Vec<Header> = self.headers.iter().skip(first).take(count).cloned().collect();
                let block = |header| {
                    let batches = if self.byte(2) == 0 { self.batches.clone() } else { Vec::new() };
                    FetchedBlock { header, batches, commit: self.certificate() }
                };
                let blocks = headers.into_iter().map(block).collect();
                self.tell(Event::Blocks { from, blocks });
            }
            9 => {
                let from = self.from();
                self.tell(Event::Connected(from));
            }
            10 => {
                let from = self.from();
                self.tell(Event::Ahead { from });
            }
            11 => {
                let from = self.from();
                self.tell(Event::Behind { from });
            }
            12 => {
                // A peer asks.
                let (tip, above) = (self.tip(), Seq(self.number()));
                assert!(self.machine.lookup_batches(&tip, above, ANSWER_MAX).len() <= ANSWER_MAX);
                let hash = self.hash();
                assert!(self.machine.lookup_header(&hash).is_none_or(|header| header.hash() == hash));
            }
            13 => self.grow(),
            14 => match self.good_proposal() {
                Some(proposal) => self.say(proposal),
                None => self.grow(),
            },
            _ => {
                let message = self.message();
                self.say(message);
            }
        }
    }

    /// Writes down, signs and executes.
    fn carry_out(&mut self, out: Vec<Action>) {
        for action in out {
            match action {
                Action::Persist(record) => self.records.push(record),
                Action::Execute(order) => {
                    self.executions.push_back(execution_of(order.header.height));
                }
                Action::Ask(from, Fetch::Blocks { .. }) => self.asked = Some(from),
                Action::Sign(unsigned) => {
                    self.signed.note(&unsigned);
                    let (genesis, me) = (short_epochs().chain.genesis_hash, Address([0; 32]));
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
