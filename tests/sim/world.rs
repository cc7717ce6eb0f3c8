//! The world: nodes, network, clock, crashes, and the checkers that watch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tally_consensus::{
    Action, Config, Event, Evidence, Fetch, FetchedBlock, Judgement, Machine, Message, Now, Order, Record, RecordError,
    Sets, Unsigned, Voting,
};
use tally_ledger::{BlockInput, LaneInput, Ledger};
use tally_node::store::{
    journal::{self, Journal, JournalConfig, OpenError},
    sim_disk::{Loss, SimDisk},
};
use tally_proto::v1;
use tally_types::{
    Address, Amount, Batch, Certificate, Epoch, Genesis, Hash, Have, Header, Height, Params, Proposal, PublicKey,
    SecretKey, Signature, SignedBatch, SignedBytes, Tip, UnixMillis, ViewChange, Vote, VoteKind,
    genesis::{FORMAT, GenesisAccount, GenesisFile, GenesisValidator},
    header::Executed,
    vote::Ballot,
};

use crate::rng::Rng;

/// What the network and the machines go through until the world heals.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Messages lost, percent.
    pub loss: u64,
    /// Messages delivered twice, percent.
    pub duplicates: u64,
    /// Longest delay, milliseconds.
    pub delay_ms: u64,
    /// Crashes per node and 100 seconds.
    pub crashes: u64,
    /// Partitions come and go.
    pub partitions: bool,
    /// When all of that ends, milliseconds.
    pub heal_ms: u64,
    /// Nodes that never run.
    pub down: usize,
}

impl Faults {
    pub fn none() -> Faults {
        Faults { loss: 0, duplicates: 0, delay_ms: 5, crashes: 0, partitions: false, heal_ms: 0, down: 0 }
    }
}

/// How to make a world.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub stakes: Vec<u64>,
    pub params: Params,
    /// Client transactions per second of simulated time, in all.
    pub load: u64,
    pub faults: Faults,
}

impl Setup {
    pub fn calm(seed: u64, n: usize) -> Setup {
        let params = Params { epoch_blocks: 16, execution_window: 4, idle_interval_ms: 2000, ..Params::default() };
        Setup { seed, stakes: vec![1; n], params, load: 50, faults: Faults::none() }
    }
}

#[derive(Debug)]
enum Happening {
    Deliver { to: usize, from: usize, message: Box<Message> },
    Own { to: usize, incarnation: u64, message: Box<Message> },
    Ask { to: usize, from: usize, fetch: Fetch },
    Answer { to: usize, from: usize, answer: Answer },
    Executed { to: usize, incarnation: u64, executed: Executed },
    Tick { to: usize, incarnation: u64 },
    Client,
    Crash { node: usize },
    Restart { node: usize },
    Partition,
}

#[derive(Debug)]
enum Answer {
    Headers(Vec<Header>),
    Batches(Vec<Batch>),
    Blocks(Vec<FetchedBlock>),
}

pub struct Node {
    pub address: Address,
    pub key: PublicKey,
    pub machine: Option<Machine>,
    pub sets: Sets,
    /// What a crash leaves is what the real journal finds on this disk.
    pub disk: SimDisk,
    journal: Option<Journal>,
    ledger: Ledger,
    pub incarnation: u64,
    /// Final blocks executed, by height from 1, with what execution led to.
    pub blocks: Vec<(Order, Executed)>,
    pub tick_at: u64,
    pub busy_until: u64,
    pub ever: bool,
    pub rejected: BTreeMap<String, u64>,
}

pub struct World {
    pub setup: Setup,
    pub rng: Rng,
    pub now: u64,
    pub nodes: Vec<Node>,
    pub evidence: Vec<Evidence>,
    pub events: u64,
    pub trace: bool,
    /// Digest of everything that happened: equal seeds give equal traces.
    pub history: Hash,
    genesis: Arc<Genesis>,
    queue: BTreeMap<(u64, u64), Happening>,
    order: u64,
    /// Pairs that cannot talk now.
    cut: BTreeSet<(usize, usize)>,
    /// What each key has signed, by what it may sign once only.
    signed: BTreeMap<(usize, String), Hash>,
    /// The chain, by height: first node to call a block final decides, the others must agree.
    chain: Vec<Hash>,
    roots: BTreeMap<Height, Executed>,
    /// Executed transactions by id, with the height and place that executed them.
    executed: BTreeMap<Hash, (Height, u32)>,
    /// Epochs up to which a node must not sign, because its journal was lost in them.
    forbidden: BTreeMap<usize, Epoch>,
    /// Last nonce given out per client.
    nonces: Vec<u64>,
    pub submitted: u64,
}

/// Start of simulated wall-clock time.
const EPOCH_MS: u64 = 1_800_000_000_000;
/// Accounts that pay each other.
const CLIENTS: u64 = 8;

fn client_key(client: u64) -> SecretKey {
    SecretKey::from_seed([client as u8 + 1; 32])
}

fn new_genesis(setup: &Setup) -> Genesis {
    let mut accounts: Vec<GenesisAccount> = (0..CLIENTS)
        .map(|client| GenesisAccount {
            address: client_key(client).public_key().address().to_string(),
            balance: 1 << 50,
        })
        .collect();
    let mut validators = Vec::new();
    for (index, stake) in setup.stakes.iter().enumerate() {
        let operator = SecretKey::from_seed([index as u8 + 100; 32]).public_key().address().to_string();
        accounts.push(GenesisAccount { address: operator.clone(), balance: 0 });
        validators.push(GenesisValidator {
            address: operator,
            consensus_public_key: SecretKey::from_seed([index as u8 + 200; 32]).public_key().to_string(),
            stake: *stake,
            moniker: String::new(),
        });
    }
    let file = GenesisFile {
        format: FORMAT,
        name: "world".into(),
        time_ms: EPOCH_MS - 1,
        symbol: "TALLY".into(),
        decimals: 9,
        total_supply: CLIENTS * (1 << 50) + setup.stakes.iter().sum::<u64>(),
        params: Params { min_validator_stake: 1, ..setup.params.clone() },
        accounts,
        validators,
    };
    Genesis::parse(&file.encode().expect("JSON")).expect("a good genesis")
}

/// A payment, an opened account, or one that cannot be paid.
fn transaction(genesis: &Genesis, rng: &mut Rng, client: u64, nonce: u64, now: u64) -> Bytes {
    let key = client_key(client);
    let operation = if rng.percent(20) {
        let fresh = SecretKey::from_seed(Hash::of(&rng.next().to_be_bytes()).0).public_key().address();
        v1::operation::Operation::CreateAccount(v1::CreateAccount {
            new_account: fresh.to_string(),
            opening_balance: genesis.params.min_opening_balance,
        })
    } else {
        let recipient = client_key(rng.below(CLIENTS)).public_key().address().to_string();
        let amount = if rng.percent(5) { u64::MAX >> 2 } else { 1 + rng.below(1000) };
        v1::operation::Operation::Transfer(v1::Transfer { recipient, amount })
    };
    let body = v1::TransactionBody {
        chain_id: genesis.chain.id.clone(),
        sender: key.public_key().address().to_string(),
        nonce,
        expire_time: Some(prost_types::Timestamp { seconds: ((EPOCH_MS + now) / 1000) as i64 + 3600, nanos: 0 }),
        max_fee: Amount::SUPPLY_MAX.0,
        memo: String::new(),
        operations: vec![v1::Operation { operation: Some(operation) }],
    };
    tally_types::transaction::sign(&key, &genesis.chain.genesis_hash, &body.encode_to_vec()).into()
}

impl World {
    pub fn new(setup: Setup) -> World {
        let genesis = Arc::new(new_genesis(&setup));
        let members = genesis.validators.members().to_vec();
        let node = |member: &tally_types::Validator| Node {
            address: member.address,
            key: member.key,
            machine: None,
            sets: Sets::default(),
            disk: SimDisk::new(),
            journal: None,
            ledger: Ledger::genesis(&genesis),
            incarnation: 0,
            blocks: Vec::new(),
            tick_at: u64::MAX,
            busy_until: 0,
            ever: false,
            rejected: BTreeMap::new(),
        };
        let mut world = World {
            rng: Rng::new(setup.seed),
            now: 0,
            nodes: members.iter().map(node).collect(),
            evidence: Vec::new(),
            events: 0,
            trace: std::env::var_os("SIM_TRACE").is_some(),
            history: Hash::ZERO,
            genesis: genesis.clone(),
            queue: BTreeMap::new(),
            order: 0,
            cut: BTreeSet::new(),
            signed: BTreeMap::new(),
            chain: vec![genesis.chain.genesis_hash],
            nonces: vec![0; CLIENTS as usize],
            roots: BTreeMap::new(),
            executed: BTreeMap::new(),
            forbidden: BTreeMap::new(),
            submitted: 0,
            setup,
        };
        let running = world.nodes.len() - world.setup.faults.down;
        for node in 0..running {
            world.start(node, Voting::Allowed);
        }
        if world.setup.load > 0 {
            world.at(1, Happening::Client);
        }
        if world.setup.faults.partitions {
            world.at(500, Happening::Partition);
        }
        if world.setup.faults.crashes > 0 {
            for node in 0..running {
                let at = world.next_crash();
                world.at(at, Happening::Crash { node });
            }
        }
        world
    }

    fn next_crash(&mut self) -> u64 {
        1 + self.rng.below(200_000 / self.setup.faults.crashes)
    }

    fn at(&mut self, delay: u64, happening: Happening) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), happening);
    }

    fn clock(&self) -> Now {
        Now { mono_ms: self.now, unix: UnixMillis(EPOCH_MS + self.now) }
    }

    fn faulty(&self) -> bool {
        self.now < self.setup.faults.heal_ms
    }

    pub fn config(&self, node: usize) -> Config {
        let genesis_executed = Ledger::genesis(&self.genesis).executed();
        let mut config = Config::new(&self.genesis, Some(self.nodes[node].address), genesis_executed);
        config.waiting_bytes_max = 1 << 20;
        config
    }

    /// Starts a node from its journal.
    pub fn start(&mut self, node: usize, voting: Voting) {
        let mut machine = Machine::new(self.config(node), voting, Ledger::genesis(&self.genesis).executed());
        self.nodes[node].incarnation += 1;
        self.nodes[node].blocks.clear();
        self.nodes[node].sets = Sets::default();
        self.nodes[node].ledger = Ledger::genesis(&self.genesis);
        let mut config = JournalConfig::new(self.genesis.chain.genesis_hash.0);
        // Small enough that runs rotate.
        config.segment_bytes = 256 << 10;
        config.sector_bytes = 512;
        config.reserve_bytes = 16 << 10;
        let disk = self.nodes[node].disk.clone();
        let mut records = Vec::new();
        let opened = Journal::open::<RecordError>(Arc::new(disk), config, &mut |_, record| {
            records.push(Record::parse(record.kind, &record.bytes)?);
            Ok(())
        });
        let (journal, _) = match opened {
            Ok(opened) => opened,
            Err(OpenError::Journal(error)) => {
                panic!("seed {}: {node} cannot open its journal: {error}", self.setup.seed)
            }
            Err(OpenError::Replay(error)) => {
                panic!("seed {}: {node} cannot read its journal: {error}", self.setup.seed)
            }
        };
        self.nodes[node].journal = Some(journal);
        let mut out = Vec::new();
        for record in records {
            machine.replay(record, &mut out).expect("a journal that leads somewhere");
            self.execute_at_once(node, &mut machine, &mut out);
        }
        machine.resume(self.clock(), &mut out);
        let first = !std::mem::replace(&mut self.nodes[node].ever, true);
        self.nodes[node].machine = Some(machine);
        self.log(|| format!("{node} starts{}", if first { "" } else { " again" }));
        self.carry_out(node, out);
        self.tick(node);
        // Streams come up: everybody greets everybody.
        for peer in 0..self.nodes.len() {
            if peer != node && self.nodes[peer].machine.is_some() {
                let (one, two) = (self.nodes[peer].address, self.nodes[node].address);
                self.handle(node, Event::Connected(one));
                self.handle(peer, Event::Connected(two));
            }
        }
    }

    /// While the journal is replayed, final blocks are executed as they come.
    fn execute_at_once(&mut self, node: usize, machine: &mut Machine, out: &mut Vec<Action>) {
        let mut actions = std::mem::take(out);
        while !actions.is_empty() {
            let mut more = Vec::new();
            for action in actions {
                match action {
                    Action::Execute(order) => {
                        let executed = self.execute(node, *order);
                        let validators = self.genesis.validators.clone();
                        machine.handle(self.clock(), Event::Executed { executed, validators }, &mut more);
                    }
                    Action::Sets(sets) => self.nodes[node].sets = sets,
                    other => panic!("{node} asks for {other:?} while it replays"),
                }
            }
            actions = more;
        }
    }

    pub fn crash(&mut self, node: usize) {
        self.log(|| format!("{node} crashes"));
        self.nodes[node].machine = None;
        self.nodes[node].journal = None;
        self.nodes[node].tick_at = u64::MAX;
        let loss = match self.rng.below(3) {
            0 => Loss::Everything,
            1 => Loss::Nothing,
            _ => Loss::Some(self.rng.next()),
        };
        self.nodes[node].disk.crash(loss);
    }

    /// Runs until `until` milliseconds.
    pub fn run(&mut self, until: u64) {
        while let Some(entry) = self.queue.first_entry() {
            let (at, _) = *entry.key();
            if at > until {
                break;
            }
            let happening = entry.remove();
            self.now = at;
            self.events += 1;
            self.happen(happening);
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver { to, from, message } => self.deliver(to, from, *message),
            Happening::Own { to, incarnation, message } => {
                if self.nodes[to].incarnation == incarnation {
                    self.handle(to, Event::Own(*message));
                }
            }
            Happening::Ask { to, from, fetch } => {
                self.log(|| format!("{from} asks {to}: {fetch:?}"));
                self.answer(to, from, fetch);
            }
            Happening::Answer { to, from, answer } => self.take_answer(to, from, answer),
            Happening::Executed { to, incarnation, executed } => {
                if self.nodes[to].incarnation == incarnation {
                    self.handle(to, Event::Executed { executed, validators: self.genesis.validators.clone() });
                }
            }
            Happening::Tick { to, incarnation } => {
                if self.nodes[to].incarnation == incarnation && self.nodes[to].tick_at <= self.now {
                    self.nodes[to].tick_at = u64::MAX;
                    self.handle(to, Event::Tick);
                }
            }
            Happening::Client => self.client(),
            Happening::Crash { node } => {
                if self.faulty() {
                    if self.nodes[node].machine.is_some() {
                        self.crash(node);
                        let downtime = 1 + self.rng.below(20_000);
                        self.at(downtime, Happening::Restart { node });
                    }
                    let next = self.next_crash();
                    self.at(next, Happening::Crash { node });
                }
            }
            Happening::Restart { node } => {
                if self.nodes[node].machine.is_none() {
                    self.start(node, Voting::Allowed);
                }
            }
            Happening::Partition => {
                self.cut.clear();
                if self.faulty() {
                    if self.rng.percent(50) {
                        for one in 0..self.nodes.len() {
                            for two in 0..self.nodes.len() {
                                // Each direction by itself: asymmetric partitions too.
                                if one != two && self.rng.percent(30) {
                                    self.cut.insert((one, two));
                                }
                            }
                        }
                    }
                    let next = 500 + self.rng.below(8000);
                    self.at(next, Happening::Partition);
                }
            }
        }
    }

    fn client(&mut self) {
        let client = self.rng.below(CLIENTS);
        self.nonces[client as usize] += 1;
        self.submitted += 1;
        let transaction = transaction(&self.genesis, &mut self.rng, client, self.nonces[client as usize], self.now);
        // A client stays with its node: nonces of one lane arrive in order.
        let node = (client % self.nodes.len() as u64) as usize;
        self.handle(node, Event::Transactions(vec![transaction]));
        let mean = (1000 / self.setup.load).max(1);
        let next = 1 + self.rng.below(2 * mean);
        self.at(next, Happening::Client);
    }

    /// One turn of a node: the event, the end of the turn, then all actions.
    pub fn handle(&mut self, node: usize, event: Event) {
        let now = self.clock();
        let Some(machine) = self.nodes[node].machine.as_mut() else { return };
        let mut out = Vec::new();
        machine.handle(now, event, &mut out);
        machine.handle(now, Event::Tick, &mut out);
        self.carry_out(node, out);
        self.tick(node);
    }

    fn tick(&mut self, node: usize) {
        let Some(machine) = self.nodes[node].machine.as_ref() else { return };
        let at = machine.wake_at();
        if at < self.nodes[node].tick_at {
            self.nodes[node].tick_at = at;
            let incarnation = self.nodes[node].incarnation;
            self.at(at.saturating_sub(self.now), Happening::Tick { to: node, incarnation });
        }
    }

    fn carry_out(&mut self, node: usize, actions: Vec<Action>) {
        // Crash points: anywhere in the writes of the turn, or after its sync and any first part of what is sent.
        let crash =
            self.faulty() && self.setup.faults.crashes > 0 && self.rng.below(20_000) < self.setup.faults.crashes;
        let cut_while_writing = crash && self.rng.percent(60);
        if cut_while_writing {
            let operations = self.rng.below(6);
            self.nodes[node].disk.fail_power_after(operations);
        }
        let records = actions.iter().filter_map(|action| match action {
            Action::Persist(record) => {
                Some(journal::Record { kind: record.kind(), vital: record.vital(), bytes: record.encode() })
            }
            _ => None,
        });
        let records: Vec<_> = records.collect();
        let journal = self.nodes[node].journal.as_mut().expect("a running node has a journal");
        let written = records.is_empty() || journal.append(&records).and_then(|_| journal.sync()).is_ok();
        if cut_while_writing {
            return self.crash_in_turn(node);
        }
        assert!(written, "seed {}: {node} cannot write", self.setup.seed);
        let stop = if crash { self.rng.below(actions.len() as u64 + 1) as usize } else { actions.len() };
        for action in actions.into_iter().take(stop) {
            self.act(node, action);
        }
        if crash {
            self.crash_in_turn(node);
        }
    }

    fn crash_in_turn(&mut self, node: usize) {
        self.crash(node);
        let downtime = 1 + self.rng.below(5000);
        self.at(downtime, Happening::Restart { node });
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Persist(_) => {}
            Action::Sign(unsigned) => {
                let message = self.sign(node, unsigned);
                self.broadcast(node, &message);
                let incarnation = self.nodes[node].incarnation;
                self.at(0, Happening::Own { to: node, incarnation, message: Box::new(message) });
            }
            Action::Broadcast(message) => self.broadcast(node, &message),
            Action::Send(to, message) => {
                let to = self.index(&to);
                self.send(node, to, message);
            }
            Action::Ask(to, fetch) => {
                let to = self.index(&to);
                if let Some(delay) = self.travel(node, to) {
                    self.at(delay, Happening::Ask { to, from: node, fetch });
                }
            }
            Action::Execute(order) => {
                let executed = self.execute(node, *order);
                // One thread executes, in order.
                let done = self.nodes[node].busy_until.max(self.now) + self.rng.below(5);
                self.nodes[node].busy_until = done;
                let delay = done - self.now;
                let incarnation = self.nodes[node].incarnation;
                self.at(delay, Happening::Executed { to: node, incarnation, executed });
            }
            Action::Sets(sets) => self.nodes[node].sets = sets,
            Action::Evidence(evidence) => {
                self.log(|| format!("{node} convicts {evidence:?}"));
                self.evidence.push(*evidence);
            }
            Action::Alarm(alarm) => panic!("seed {}: {node} raises {alarm:?}", self.setup.seed),
            Action::Dropped(reject) => *self.nodes[node].rejected.entry(format!("{reject:?}")).or_default() += 1,
        }
    }

    fn index(&self, address: &Address) -> usize {
        self.nodes.iter().position(|node| node.address == *address).expect("a known validator")
    }

    // Network.

    fn broadcast(&mut self, from: usize, message: &Message) {
        for to in 0..self.nodes.len() {
            if to != from {
                self.send(from, to, message.clone());
            }
        }
    }

    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        for _ in 0..if self.faulty() && self.rng.percent(self.setup.faults.duplicates) { 2 } else { 1 } {
            if let Some(delay) = self.travel(from, to) {
                let message = Box::new(through_the_wire(&message));
                self.at(delay, Happening::Deliver { to, from, message });
            }
        }
    }

    /// How long a message takes; none: it is lost.
    fn travel(&mut self, from: usize, to: usize) -> Option<u64> {
        if !self.faulty() {
            return Some(1 + self.rng.below(5));
        }
        if self.cut.contains(&(from, to)) || self.rng.percent(self.setup.faults.loss) {
            return None;
        }
        // Most are quick, some take up to the longest delay: reordering.
        let longest =
            if self.rng.percent(90) { self.setup.faults.delay_ms.min(20) } else { self.setup.faults.delay_ms };
        Some(1 + self.rng.below(longest.max(1)))
    }

    fn deliver(&mut self, to: usize, from: usize, message: Message) {
        if self.nodes[to].machine.is_none() {
            return;
        }
        let from_address = self.nodes[from].address;
        match self.nodes[to].sets.judge(&self.genesis.chain.genesis_hash, &message) {
            Judgement::Check(checks) => {
                if checks.iter().all(|check| fake_signature(&check.key, &check.bytes) == check.signature) {
                    self.log(|| format!("{from} -> {to}: {}", describe(&message)));
                    self.handle(to, Event::Message { from: from_address, message });
                } else {
                    *self.nodes[to].rejected.entry("Signature".into()).or_default() += 1;
                }
            }
            Judgement::Ahead => self.handle(to, Event::Ahead { from: from_address }),
            Judgement::Over => self.handle(to, Event::Behind { from: from_address }),
            Judgement::Drop(reject) => *self.nodes[to].rejected.entry(format!("{reject:?}")).or_default() += 1,
        }
    }

    fn answer(&mut self, node: usize, from: usize, fetch: Fetch) {
        let Some(machine) = &self.nodes[node].machine else { return };
        let answer = match fetch {
            Fetch::Headers(hashes) => {
                Answer::Headers(hashes.iter().filter_map(|hash| machine.lookup_header(hash)).cloned().collect())
            }
            Fetch::Batches(wanted) => Answer::Batches(
                wanted.iter().flat_map(|(tip, above)| machine.lookup_batches(tip, *above, 64)).collect(),
            ),
            Fetch::Blocks { from, to } => {
                // As a real node: past the end, up to the next block with a certificate of its own.
                let mut blocks = Vec::new();
                for (order, _) in self.nodes[node].blocks.iter().filter(|(order, _)| order.header.height >= from) {
                    let batches = order.lanes.iter().flatten().cloned().collect();
                    let (header, commit) = (order.header.clone(), order.commit.clone());
                    let enough = header.height >= to && commit.is_some();
                    blocks.push(FetchedBlock { header, batches, commit });
                    if enough {
                        break;
                    }
                }
                Answer::Blocks(blocks)
            }
        };
        if let Some(delay) = self.travel(node, from) {
            self.at(delay, Happening::Answer { to: from, from: node, answer });
        }
    }

    fn take_answer(&mut self, to: usize, from: usize, answer: Answer) {
        self.log(|| format!("{from} answers {to}: {answer:?}"));
        let event = match answer {
            Answer::Headers(headers) => Event::Headers(headers),
            Answer::Batches(batches) => Event::Batches(batches),
            Answer::Blocks(mut blocks) => {
                let from = self.nodes[from].address;
                let judgement = self.nodes[to].sets.judge_blocks(&self.genesis.chain.genesis_hash, &mut blocks);
                let Judgement::Check(checks) = judgement else { return };
                if !checks.iter().all(|check| fake_signature(&check.key, &check.bytes) == check.signature) {
                    return;
                }
                Event::Blocks { from, blocks }
            }
        };
        self.handle(to, event);
    }

    // Keys.

    fn sign(&mut self, node: usize, unsigned: Unsigned) -> Message {
        self.check_signed_once(node, &unsigned);
        sign(&self.genesis.chain.genesis_hash, &self.nodes[node], unsigned)
    }

    /// An honest key signs one thing per (kind, epoch, view) and per place of its lane, ever.
    fn check_signed_once(&mut self, node: usize, unsigned: &Unsigned) {
        let epoch = match unsigned {
            Unsigned::Proposal { epoch, .. } | Unsigned::Ballot { epoch, .. } => *epoch,
            Unsigned::Batch(batch) => batch.epoch(),
            Unsigned::Have { vector, .. } => vector.epoch,
        };
        let forbidden = self.forbidden.get(&node).is_some_and(|up_to| epoch <= *up_to);
        assert!(!forbidden, "seed {}: {node} signs in epoch {epoch} without its journal", self.setup.seed);
        let (place, digest) = match unsigned {
            Unsigned::Proposal { epoch, view, header, .. } => (format!("proposal {epoch} {view}"), header.hash()),
            Unsigned::Ballot { epoch, ballot, .. } => {
                let digest = ballot.signed_bytes(&self.genesis.chain.genesis_hash, *epoch).hash();
                (format!("{:?} {epoch} {}", ballot.kind(), ballot.view()), digest)
            }
            Unsigned::Batch(batch) => (format!("batch {} {}", batch.epoch(), batch.seq()), batch.digest()),
            Unsigned::Have { vector, .. } => (format!("have {}", vector.counter), Hash::of(&vector.encode())),
        };
        let known = *self.signed.entry((node, place.clone())).or_insert(digest);
        assert_eq!(known, digest, "seed {}: {node} signs a second {place}", self.setup.seed);
    }

    // Execution, by the real ledger.

    fn execute(&mut self, node: usize, order: Order) -> Executed {
        let header = order.header.clone();
        let seed = self.setup.seed;
        let height = header.height.0 as usize;
        assert_eq!(self.nodes[node].blocks.len() + 1, height, "seed {seed}: {node} executes out of order");
        match self.chain.get(height) {
            Some(known) => assert_eq!(*known, header.hash(), "seed {seed}: {node} forks at height {height}"),
            None => {
                assert_eq!(self.chain.len(), height);
                self.chain.push(header.hash());
            }
        }
        let lanes = order.validators.members().iter().zip(&order.lanes).map(|(member, batches)| LaneInput {
            fee_recipient: member.address,
            transactions: batches.iter().flat_map(|batch| batch.transactions()).map(|bytes| &bytes[..]).collect(),
        });
        let input = BlockInput { height: header.height, time: header.time, lanes: lanes.collect() };
        let outcome = self.nodes[node].ledger.execute(&input).expect("the supply is what it was");
        assert_eq!(self.nodes[node].ledger.state().supply(), self.genesis.total_supply);
        let executed = outcome.executed;
        let known = *self.roots.entry(header.height).or_insert(executed);
        assert_eq!(known, executed, "seed {seed}: {node} has another state at height {height}");
        for (id, discard) in &outcome.discarded {
            if !self.executed.contains_key(id) {
                self.log(|| format!("{node} discards {id:?}: {discard}"));
            }
        }
        for done in &outcome.transactions {
            let place = (header.height, done.receipt.index);
            let known = *self.executed.entry(done.receipt.tx_id).or_insert(place);
            assert_eq!(known, place, "seed {seed}: a transaction runs twice");
        }
        self.log(|| format!("{node} executes {header:?} with {} transactions", outcome.transactions.len()));
        self.nodes[node].blocks.push((order, executed));
        executed
    }

    /// From now on `node` must not sign in epochs up to this one.
    pub fn forbid_signing(&mut self, node: usize, up_to: Epoch) {
        self.forbidden.insert(node, up_to);
    }

    pub fn executed_count(&self) -> u64 {
        self.executed.len() as u64
    }

    pub fn final_heights(&self) -> Vec<u64> {
        let height = |node: &Node| node.machine.as_ref().map_or(0, |machine| machine.status().final_height.0);
        self.nodes.iter().map(height).collect()
    }

    pub fn live(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].machine.is_some())
    }

    fn log(&mut self, line: impl Fn() -> String) {
        let line = line();
        self.history = Hash::tagged("history", &[&self.history.0, &self.now.to_be_bytes(), line.as_bytes()]);
        if self.trace {
            eprintln!("{:>8} {line}", self.now);
        }
    }
}

/// Signs with a key that stands for a real one: nobody else in the world makes this value.
pub fn fake_signature(key: &PublicKey, bytes: &SignedBytes) -> Signature {
    let one = Hash::tagged("one", &[&key.0, bytes.as_bytes()]);
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&one.0);
    signature[32..].copy_from_slice(&key.0);
    Signature(signature)
}

pub fn sign(genesis: &Hash, node: &Node, unsigned: Unsigned) -> Message {
    let signed = |bytes: &SignedBytes| fake_signature(&node.key, bytes);
    match unsigned {
        Unsigned::Proposal { epoch, view, header, justification, highest_commit } => {
            let justification_bytes =
                justification.as_ref().map(|certificate| Bytes::from(certificate.encode())).unwrap_or_default();
            let bytes = tally_types::proposal::signed_bytes(genesis, epoch, view, &header.hash(), &justification_bytes);
            let signature = signed(&bytes);
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
        Unsigned::Ballot { epoch, signer, ballot, highest } => {
            let signature = signed(&ballot.signed_bytes(genesis, epoch));
            match ballot {
                Ballot::Prepare(view, block) => {
                    Message::Vote(Vote { kind: VoteKind::Prepare, epoch, view, block, signer, signature })
                }
                Ballot::Commit(view, block) => {
                    Message::Vote(Vote { kind: VoteKind::Commit, epoch, view, block, signer, signature })
                }
                Ballot::ViewChange(view, highest_view) => {
                    Message::ViewChange(ViewChange { epoch, view, highest_view, highest, signer, signature })
                }
            }
        }
        Unsigned::Batch(batch) => {
            let signature = signed(&batch.signed_bytes(genesis, &node.address));
            Message::Batch(SignedBatch { batch, signature })
        }
        Unsigned::Have { signer, vector } => {
            let bytes = vector.encode();
            let signature = signed(&vector.signed_bytes(genesis, &bytes));
            Message::Have(Arc::new(Have { vector, bytes, signer, signature }))
        }
    }
}

/// Every message goes through its bytes, as between real nodes.
fn through_the_wire(message: &Message) -> Message {
    let read = "what is written can be read";
    let certificate = |certificate: &Option<Arc<Certificate>>| {
        certificate.as_ref().map(|one| Arc::new(Certificate::parse(&one.encode()).expect(read)))
    };
    match message {
        Message::Proposal(proposal) => {
            Message::Proposal(Arc::new(Proposal::from_proto(&proposal.to_proto()).expect(read)))
        }
        Message::Vote(vote) => Message::Vote(Vote::from_proto(&vote.to_proto()).expect(read)),
        Message::ViewChange(change) => Message::ViewChange(ViewChange::from_proto(&change.to_proto()).expect(read)),
        Message::Batch(batch) => Message::Batch(SignedBatch::from_proto(&batch.to_proto()).expect(read)),
        Message::Have(have) => Message::Have(Arc::new(Have::from_proto(&have.to_proto()).expect(read))),
        Message::Certificates { entry, highest_commit } => {
            Message::Certificates { entry: certificate(entry), highest_commit: certificate(highest_commit) }
        }
    }
}

fn describe(message: &Message) -> String {
    match message {
        Message::Proposal(proposal) => format!("PROPOSAL {:?} in view {}", proposal.header, proposal.view),
        Message::Vote(vote) => {
            format!("{:?} {}/{} {:?} by {}", vote.kind, vote.epoch, vote.view, vote.block, vote.signer)
        }
        Message::ViewChange(change) => {
            format!("VIEW-CHANGE {}/{} h={} by {}", change.epoch, change.view, change.highest_view, change.signer)
        }
        Message::Batch(batch) => format!("BATCH {:?}", batch.batch),
        Message::Have(have) => {
            let vector = &have.vector;
            let tips: Vec<Tip> = vector.tips.clone();
            format!("HAVE {}/{} x={} {tips:?} by {}", vector.epoch, vector.view, vector.executed, have.signer)
        }
        Message::Certificates { entry, highest_commit } => {
            let name = |certificate: &Option<Arc<Certificate>>| {
                certificate.as_ref().map(|one| format!("{:?} {}/{}", one.kind, one.epoch, one.view))
            };
            format!("CERTIFICATES entry {:?}, commit {:?}", name(entry), name(highest_commit))
        }
    }
}
