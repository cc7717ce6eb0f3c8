//! One node of the world: the production machine, ledger and journal on a simulated disk, and how it starts and stops.

use std::sync::Arc;

use tally_consensus::{Action, Config, Event, Machine, Now, Record, Sets, Voting};
use tally_ledger::Ledger;
use tally_node::store::{
    journal::{Journal, JournalConfig, JournalError, OpenError, Recovered},
    sim_disk::{Loss, SimDisk},
    snapshot::Snapshots,
};
use tally_types::{Epoch, Height, UnixMillis, header::Executed};

use crate::{
    byzantine::Behaviour,
    checkers::Violation,
    clients::OnTheWay,
    convictions::Heard,
    keys::{self, Signer},
    marks::Mark,
    setup::START_MS,
    world::{Happening, World},
};

/// Blocks after which a node takes a snapshot of its state: few, so that short runs restart from one.
const SNAPSHOT_BLOCKS: u64 = 16;

pub struct Node {
    /// Its place among the validators. Twins share one.
    pub validator: usize,
    pub signer: Signer,
    /// It keeps the protocol: the checkers hold it to what it takes for final.
    pub correct: bool,
    /// And its disk keeps what was synced: they hold it to what it signs.
    pub honest: bool,
    /// Up to this epoch it may have signed what it forgot, and be convicted of it.
    pub excused_up_to: Option<Epoch>,
    pub behaviour: Option<Box<dyn Behaviour>>,
    pub machine: Option<Machine>,
    pub sets: Sets,
    /// What a crash leaves is what the real journal finds on this disk.
    pub disk: SimDisk,
    pub journal: Option<Journal>,
    pub ledger: Ledger,
    /// Its folder of snapshots, on the same disk: states that the journal has caught up with. A start executes only what is above.
    pub snapshots: SimDisk,
    to_write: Option<Ledger>,
    /// A write of a snapshot was the last thing its disk saw.
    pub power_fails: bool,
    pub incarnation: u64,
    /// Final blocks executed, by height from 1, with what execution led to.
    pub blocks: Vec<(tally_consensus::Order, Executed)>,
    /// What it was told, for those who check whom it convicts.
    pub heard: Heard,
    /// What it took from clients and has not seen settled.
    pub on_the_way: OnTheWay,
    /// What the machine wants done at the end of this turn.
    pub actions: Vec<Action>,
    pub in_turn: bool,
    /// A proposal arrived in this turn.
    pub was_proposed_to: bool,
    /// When the next tick is due, in the world's time.
    pub tick_at: u64,
    pub busy_until: u64,
    /// Groups of its journal that were synced.
    pub synced: u64,
    /// How many of them, at the end, damage since the last start may have taken without a trace; 0: none, its journal is whole.
    pub may_lack: u64,
    /// Its journal is lost as a whole, with its disk or by what a start found, and it was not started since.
    pub disk_gone: bool,
    pub clock: Clock,
    /// It was once started without the journal it had, as one that observes.
    pub observes: bool,
    /// It runs without the journal it once had, and must not sign up to this epoch.
    pub forbidden: Option<Epoch>,
    /// Its journal refused the last start, for damage.
    refused: bool,
}

/// A clock that is off and runs at its own speed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// How far the wall clock is off, milliseconds.
    pub skew_ms: i64,
    /// How much too fast it runs, per mille; negative: too slow.
    pub drift: i64,
    /// When the process was started: where its monotonic clock begins.
    pub since_ms: u64,
}

impl Clock {
    fn mono(&self, now: u64) -> u64 {
        (now - self.since_ms) * (1000 + self.drift) as u64 / 1000
    }

    /// The first moment of the world at which this clock has reached `mono`.
    fn when(&self, mono: u64) -> u64 {
        let speed = (1000 + self.drift) as u64;
        self.since_ms.saturating_add(mono.saturating_mul(1000).div_ceil(speed))
    }
}

impl Node {
    pub fn new(validator: usize, genesis: &tally_types::Genesis) -> Node {
        Node {
            validator,
            signer: Signer { address: keys::operator(validator), key: keys::validator(validator) },
            correct: true,
            honest: true,
            excused_up_to: None,
            behaviour: None,
            machine: None,
            sets: Sets::default(),
            disk: SimDisk::new(),
            journal: None,
            ledger: Ledger::genesis(genesis),
            snapshots: SimDisk::new(),
            to_write: None,
            power_fails: false,
            incarnation: 0,
            blocks: Vec::new(),
            heard: Heard::default(),
            on_the_way: OnTheWay::default(),
            actions: Vec::new(),
            in_turn: false,
            was_proposed_to: false,
            tick_at: u64::MAX,
            busy_until: 0,
            synced: 0,
            may_lack: 0,
            disk_gone: false,
            observes: false,
            clock: Clock::default(),
            forbidden: None,
            refused: false,
        }
    }

    /// Takes its disk away. What it signed is forgotten with it.
    pub fn lose_disk(&mut self) {
        (self.disk, self.snapshots) = (SimDisk::new(), SimDisk::new());
        (self.synced, self.may_lack) = (0, 0);
    }

    pub fn note_executed(&mut self) {
        if self.ledger.executed().height.0.is_multiple_of(SNAPSHOT_BLOCKS) && self.to_write.is_none() {
            self.to_write = Some(self.ledger.clone());
        }
    }
}

/// How a node stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The process ends; the system still writes what it was given.
    Kill,
    /// The power fails: what was not synced may be lost, in part, or torn.
    PowerCut,
}

impl World {
    pub fn clock_of(&self, node: usize) -> Now {
        let clock = self.nodes[node].clock;
        let off = if self.faulty() { clock.skew_ms + self.now as i64 * clock.drift / 1000 } else { 0 };
        Now { mono_ms: clock.mono(self.now), unix: UnixMillis((START_MS + self.now).saturating_add_signed(off)) }
    }

    /// The moment of the world at which `node` wants to be woken.
    pub fn wake_at(&self, node: usize) -> Option<u64> {
        let machine = self.nodes[node].machine.as_ref()?;
        Some(self.nodes[node].clock.when(machine.wake_at()))
    }

    fn config(&self, node: usize) -> Config {
        let mut config = Config::new(&self.genesis, Some(self.nodes[node].signer.address), self.genesis_executed);
        config.waiting_bytes_max = 64 << 10;
        config
    }

    /// Execution up to `height` is durable in the journal of `node`: a snapshot up to there may be written. It is a cache: if
    /// that fails there is none.
    pub fn note_durable(&mut self, node: usize, height: Height) {
        let state = &mut self.nodes[node];
        let Some(ledger) = state.to_write.take_if(|ledger| ledger.executed().height <= height) else { return };
        let disk = state.snapshots.clone();
        if self.faulty() && self.setup.faults.crashes > 0 && self.rng.below(100) < 5 {
            // The process does not know for a moment.
            let operations = self.rng.below(8);
            disk.fail_power_after(operations);
            self.nodes[node].power_fails = true;
            self.at(1, Happening::PowerCut { node });
        }
        let snapshots = Snapshots::open(Arc::new(disk), self.genesis.chain.genesis_hash.0);
        let written =
            snapshots.and_then(|snapshots| snapshots.write(height.0.min(ledger.height().0), &ledger.encode_snapshot()));
        if written.is_err() {
            self.marks.hit(Mark::SnapshotNotWritten);
        }
    }

    /// The newest state on a node's disk that is whole; else that of genesis.
    fn newest_snapshot(&mut self, node: usize) -> Ledger {
        let disk = Arc::new(self.nodes[node].snapshots.clone());
        let snapshots = Snapshots::open(disk, self.genesis.chain.genesis_hash.0).expect("a disk that works");
        let (newest, skipped) = snapshots.newest().expect("a disk that works");
        if !skipped.is_empty() {
            self.marks.hit(Mark::SnapshotSkipped);
        }
        let Some(newest) = newest else { return self.genesis_ledger.clone() };
        self.marks.hit(Mark::SnapshotStart);
        Ledger::decode_snapshot(&newest.bytes, &self.genesis).expect("a snapshot that is whole is a state")
    }

    /// Starts a node from its journal. False: its store refuses, and it stays down.
    pub fn start(&mut self, node: usize, voting: Voting) -> bool {
        let now = self.now;
        let segment_bytes = self.setup.segment_bytes;
        let ledger = self.newest_snapshot(node);
        let covered = ledger.executed();
        let state = &mut self.nodes[node];
        state.incarnation += 1;
        state.clock.since_ms = now;
        state.blocks.truncate(covered.height.0 as usize);
        state.sets = Default::default();
        state.ledger = ledger;
        state.to_write = None;
        state.heard = Heard::default();
        state.on_the_way = OnTheWay::default();
        state.actions.clear();
        state.in_turn = false;
        state.busy_until = 0;
        let mut config = JournalConfig::new(self.genesis.chain.genesis_hash.0);
        config.segment_bytes = segment_bytes;
        config.sector_bytes = 512;
        config.reserve_bytes = 16 << 10;
        let disk = Arc::new(state.disk.clone());
        let mut machine = Machine::new(self.config(node), voting, covered);
        let mut records = 0u64;
        let opened = Journal::open::<String>(disk, config, &mut |_, record| {
            records += 1;
            let record = Record::parse(record.kind, &record.bytes).map_err(|error| error.to_string())?;
            let mut out = Vec::new();
            machine.replay(record, &mut out).map_err(|error| error.to_string())?;
            self.execute_at_once(node, &mut machine, out);
            Ok(())
        });
        let (journal, recovered) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.refuse_start(node, &error);
                return false;
            }
        };
        self.mark_recovery(&recovered);
        self.check_recovery(node, &recovered);
        // As `run::open`: a journal that ends below what is known to have been durable in it has lost records. Rule R3.
        // One whose first start without a journal was cut short before it had noted that it observes has an empty one again: in a
        // real home every new journal begins with a record.
        let Node { synced, observes, honest, disk_gone, .. } = self.nodes[node];
        let lost = (records == 0 && (synced > 0 || observes)) || machine.status().final_height < covered.height;
        if lost && voting == Voting::Allowed {
            let excused = !honest || disk_gone || synced == 0;
            assert!(excused, "{}: {node} has lost its journal by itself", self.name());
            drop((journal, machine));
            self.nodes[node].snapshots = SimDisk::new();
            self.observe_from_now(node);
            self.nodes[node].observes = true;
            self.nodes[node].disk_gone = true;
            return self.start(node, Voting::From(None));
        }
        self.note(node as u64 ^ 0x57, || format!("{node} starts with {records} records, {recovered:?}"));
        self.finish_start(node, machine, journal);
        true
    }

    fn finish_start(&mut self, node: usize, mut machine: Machine, journal: Journal) {
        if machine.agreement().open_ballots().iter().any(|ballot| ballot.view() == machine.agreement().view()) {
            self.marks.hit(Mark::Restarted);
        }
        if machine.voting() != Voting::Allowed {
            self.marks.hit(Mark::Observing);
        }
        let mut out = Vec::new();
        machine.resume(self.clock_of(node), &mut out);
        self.nodes[node].machine = Some(machine);
        (self.nodes[node].synced, self.nodes[node].may_lack) = (journal.groups(), 0);
        self.nodes[node].disk_gone = false;
        self.nodes[node].journal = Some(journal);
        self.carry_out(node, out);
        self.tick_later(node);
        // Streams come up: everybody greets everybody.
        for peer in 0..self.nodes.len() {
            if self.nodes[peer].validator != self.nodes[node].validator && self.nodes[peer].machine.is_some() {
                self.connect(node, peer);
            }
        }
    }

    /// Both ends hear that the stream between them is up.
    pub fn connect(&mut self, one: usize, two: usize) {
        let (first, second) = (self.nodes[one].signer.address, self.nodes[two].signer.address);
        self.handle(one, Event::Connected(second));
        self.handle(two, Event::Connected(first));
    }

    /// While the journal is replayed, final blocks are executed as they come.
    fn execute_at_once(&mut self, node: usize, machine: &mut Machine, mut actions: Vec<Action>) {
        while !actions.is_empty() {
            let mut more = Vec::new();
            for action in actions {
                match action {
                    Action::Execute(order) => {
                        let executed = self.execute(node, *order);
                        let validators = self.genesis.validators.clone();
                        machine.handle(Now::default(), Event::Executed { executed, validators }, &mut more);
                    }
                    Action::Sets(_) => {}
                    other => panic!("{}: {node} asks for {other:?} while it replays", self.name()),
                }
            }
            actions = more;
        }
    }

    fn mark_recovery(&mut self, recovered: &Recovered) {
        if recovered.cut.is_some() {
            self.marks.hit(Mark::TailCut);
        }
        if !recovered.repaired.is_empty() || recovered.headers_repaired + recovered.litter_cut > 0 {
            self.marks.hit(Mark::JournalRepaired);
        }
    }

    /// What was synced is there again. Damage in both copies of the very last groups looks like a torn tail, rule R2 says; any
    /// other is refused, never passed over. Whoever lost groups that way counts as Byzantine from then on.
    fn check_recovery(&mut self, node: usize, recovered: &Recovered) {
        let Node { synced, may_lack, disk_gone, .. } = self.nodes[node];
        if recovered.groups >= synced || disk_gone {
            return;
        }
        if recovered.groups + may_lack < synced {
            self.violate(
                Violation::Forgotten,
                format!("{node} starts with {recovered:?} where {synced} groups were synced"),
            );
        }
        self.nodes[node].honest = false;
    }

    /// A store that refuses says so, and the node stays down until somebody does what the error says.
    fn refuse_start(&mut self, node: usize, error: &OpenError<String>) {
        self.note(node as u64 ^ 0x5e, || format!("{node} cannot start: {error}"));
        let disk_failed = matches!(error, OpenError::Journal(JournalError::Disk { .. }));
        self.nodes[node].refused = !disk_failed;
        let faults = &self.setup.faults;
        // One bit is mended, always: rule R2.
        let Node { honest, may_lack, power_fails, .. } = self.nodes[node];
        let without_power = power_fails && error.to_string().contains("power failure");
        let fails = self.faulty() && (faults.sync_errors || faults.full_disks) || without_power;
        let excused = if disk_failed { fails } else { !honest || may_lack > 0 };
        assert!(excused, "{}: {node} cannot start on a good disk: {error}", self.name());
        if !disk_failed {
            self.marks.hit(Mark::JournalRefused);
        }
        if without_power {
            self.marks.hit(Mark::CutWhileStarting);
        }
        if power_fails {
            self.stop(node, Stop::PowerCut);
        }
    }

    /// Takes a node's disk away, and with it the promise to bring what it sealed into a block.
    pub fn lose_disk(&mut self, node: usize) {
        self.nodes[node].lose_disk();
        self.checkers.sealed_by.retain(|(_, by)| *by != node);
    }

    /// The least epoch that a quorum can speak of without `node`, were those that cheat to speak of none. Who is down now may be up
    /// again by then.
    fn epoch_of_a_quorum(&self, node: usize) -> Epoch {
        let validators = &self.genesis.validators;
        let epoch = |other: usize| match self.nodes[other].honest && other != node {
            false => Epoch::default(),
            true => self.status(other).map(|at| at.epoch).or(self.highest_epoch_signed(other)).unwrap_or_default(),
        };
        let mut epochs: Vec<_> =
            validators.places().map(|place| (epoch(place as usize), validators.stake(place).0)).collect();
        epochs.sort_unstable();
        let mut sum = 0;
        let reached = epochs.into_iter().find(|(_, stake)| {
            sum += stake;
            sum >= validators.quorum().0
        });
        reached.map(|(epoch, _)| epoch).unwrap_or_default()
    }

    /// From here on a node without its journal must not sign in this epoch or the next.
    pub fn observe_from_now(&mut self, node: usize) {
        let highest = self.epoch_of_a_quorum(node).next();
        let own = self.highest_epoch_signed(node).unwrap_or_default();
        let state = &mut self.nodes[node];
        state.forbidden = Some(highest.max(own).max(state.forbidden.unwrap_or_default()));
        // From then on it is as good as any other.
        if state.correct && !state.honest {
            (state.honest, state.excused_up_to) = (true, state.forbidden);
        }
    }

    /// Stops a node, as if by surprise.
    pub fn stop(&mut self, node: usize, how: Stop) {
        let how = if self.nodes[node].power_fails { Stop::PowerCut } else { how };
        self.note(node as u64 ^ 0xc0, || format!("{node} stops: {how:?}"));
        let state = &mut self.nodes[node];
        state.power_fails = false;
        let ran = state.machine.take().is_some();
        state.journal = None;
        state.actions.clear();
        state.tick_at = u64::MAX;
        match how {
            Stop::Kill => self.marks.hit(Mark::Killed),
            Stop::PowerCut => {
                let loss = match self.rng.below(3) {
                    0 => Loss::Everything,
                    1 => Loss::Nothing,
                    _ => Loss::Some(self.rng.next()),
                };
                self.note(node as u64 ^ 0xc1, || format!("of what {node} had not synced this is lost: {loss:?}"));
                self.nodes[node].disk.crash(loss);
                self.nodes[node].snapshots.crash(loss);
            }
        }
        // Damage that no start has seen yet is enough.
        if ran && self.faulty() && self.setup.faults.rotting.contains(&node) {
            self.rot(node);
        }
        if self.nodes[node].behaviour.as_ref().is_some_and(|behaviour| behaviour.forgets()) {
            self.lose_disk(node);
            self.note_lie(node);
        }
        if self.nodes.len() >= 4 && self.nodes.iter().all(|node| node.machine.is_none()) {
            self.marks.hit(Mark::Blackout);
        }
    }

    /// The power of a node fails in one of its next writes, or a moment later.
    pub fn fail_power(&mut self, node: usize, operations: u64) {
        let (operations, moment) = (self.rng.below(operations), 1 + self.rng.below(50));
        self.nodes[node].disk.fail_power_after(operations);
        self.nodes[node].power_fails = true;
        self.at(moment, Happening::PowerCut { node });
    }

    /// Stops a node that will be back after a while.
    pub fn stop_for(&mut self, node: usize, how: Stop, longest_ms: u64) {
        self.stop(node, how);
        let downtime = 1 + self.rng.below(longest_ms);
        self.at(downtime, Happening::Restart { node });
    }

    pub fn restart(&mut self, node: usize) {
        if self.nodes[node].machine.is_some() {
            return;
        }
        // Whoever starts it again has made room, mostly.
        if !self.faulty() || self.rng.percent(80) {
            self.nodes[node].disk.set_capacity(None);
            self.nodes[node].snapshots.set_capacity(None);
        }
        if self.faulty() && self.setup.faults.crashes > 0 && self.rng.percent(5) {
            self.fail_power(node, 12);
        }
        if !self.start(node, Voting::Allowed) {
            if !self.nodes[node].refused {
                // The disk failed, the journal is as it was: it is tried again.
                return self.at(1000, Happening::Restart { node });
            }
            // The error says what to do: move the journal away, follow, and sign nothing for two epochs.
            self.lose_disk(node);
            self.observe_from_now(node);
            self.nodes[node].observes = true;
            assert!(self.start(node, Voting::From(None)), "an empty disk has nothing to refuse");
        }
    }
}
