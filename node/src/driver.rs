//! The thread that owns machine and journal, and carries the machine's actions out.
//!
//! A turn: take what waits, give it to the machine, write all records of the turn with one sync, then sign, send, ask and
//! execute, in the machine's order. That is the whole of "durable before sent". A failed sync ends the process: what the
//! disk holds is then unknown, and only a restart reads it again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tally_consensus::{Action, Event, Machine, Now, Voting};
use tally_types::{Hash, UnixMillis};
use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    context::{PeerStanding, Shared, Standing},
    executor::Job,
    peers::{Input, Peers},
    signing::Signer,
    store::journal::{Journal, JournalError},
    turn::{self, Durable},
};

/// Inputs of each kind taken into one turn: enough to share a sync, few enough to keep votes quick.
const CONTROL_PER_TURN: usize = 256;
const BULK_PER_TURN: usize = 16;
const TRANSACTIONS_PER_TURN: usize = 4096;
/// How often clients are told where agreement stands, at most.
const STANDING_INTERVAL: Duration = Duration::from_millis(20);

/// Why the driver ended before it was told to.
#[derive(Debug, Error)]
pub enum DriverError {
    /// The journal cannot be written: nothing more may be signed.
    #[error(
        "the journal failed, so nothing more can be signed: {0}. What was acknowledged is safe: make room on the disk, or \
         mend it, and start the node again"
    )]
    Journal(#[from] JournalError),
    /// The executor is gone; its own error says why.
    #[error("execution has ended")]
    Executor,
}

/// See the module.
pub struct Driver {
    /// The machine, its journal replayed.
    pub machine: Machine,
    /// The journal, at its end.
    pub journal: Journal,
    /// Where the batches that the machine holds lie in the journal.
    pub positions: HashMap<Hash, u64>,
    /// How many there were when they were last pruned.
    pub positions_kept: usize,
    /// Signs for this validator.
    pub signer: Signer,
    /// The ways to the others.
    pub peers: Arc<Peers>,
    /// To the executor.
    pub jobs: mpsc::Sender<Job>,
    /// Executions durable in the journal, for snapshots.
    pub durable: Arc<AtomicU64>,
    /// For clients.
    pub shared: Arc<Shared>,
    /// For clients.
    pub standing: watch::Sender<Arc<Standing>>,
    /// Messages the machine dropped, by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// What reaches the driver.
pub struct Inputs {
    /// Votes, certificates, answers of the executor.
    pub control: mpsc::Receiver<Input>,
    /// Batches and ranges of blocks.
    pub bulk: mpsc::Receiver<Input>,
    /// Admitted transactions.
    pub transactions: mpsc::Receiver<Bytes>,
    /// Turns true when the node shuts down.
    pub stopping: watch::Receiver<bool>,
}

impl Driver {
    /// Runs until the node stops.
    pub fn run(mut self, mut inputs: Inputs, runtime: &Handle) -> Result<(), DriverError> {
        // Questions to peers are asked in tasks of the runtime.
        let _entered = runtime.enter();
        let start = Instant::now();
        let now = || Now {
            mono_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            unix: UnixMillis(unix_millis()),
        };
        let mut actions = Vec::new();
        let mut own = Vec::new();
        self.machine.resume(now(), &mut actions);
        self.carry_out(&mut actions, &mut own)?;
        let mut told = start;
        while !*inputs.stopping.borrow() {
            // What was signed here comes back at once.
            let mut events: Vec<Event> = own.drain(..).map(Event::Own).collect();
            if events.is_empty() {
                let wait = Duration::from_millis(self.machine.wake_at().saturating_sub(now().mono_ms));
                self.wait(&mut inputs, wait, runtime, &mut events);
            }
            self.gather(&mut inputs, &mut events);
            let now = now();
            for event in events {
                self.machine.handle(now, event, &mut actions);
            }
            self.machine.handle(now, Event::Tick, &mut actions);
            self.carry_out(&mut actions, &mut own)?;
            self.prune_positions();
            if told.elapsed() >= STANDING_INTERVAL {
                told = Instant::now();
                self.tell();
            }
        }
        Ok(())
    }

    /// Waits for the first input of a turn, at most `wait`.
    fn wait(&mut self, inputs: &mut Inputs, wait: Duration, runtime: &Handle, events: &mut Vec<Event>) {
        let room = self.machine.room() > 0;
        let first = runtime.block_on(timeout(wait.min(Duration::from_secs(1)), async {
            tokio::select! {
                biased;
                _ = inputs.stopping.wait_for(|stopping| *stopping) => None,
                Some(input) = inputs.control.recv() => Some(input),
                Some(transaction) = inputs.transactions.recv(), if room => {
                    Some(Input::Event(Event::Transactions(vec![transaction])))
                }
                Some(input) = inputs.bulk.recv() => Some(input),
                else => None,
            }
        }));
        if let Ok(Some(input)) = first {
            self.take(input, events);
        }
    }

    /// Takes what else waits, votes first.
    fn gather(&mut self, inputs: &mut Inputs, events: &mut Vec<Event>) {
        for _ in 0..CONTROL_PER_TURN {
            let Ok(input) = inputs.control.try_recv() else { break };
            self.take(input, events);
        }
        for _ in 0..BULK_PER_TURN {
            let Ok(input) = inputs.bulk.try_recv() else { break };
            self.take(input, events);
        }
        let mut transactions = Vec::new();
        let mut room = self.machine.room();
        while transactions.len() < TRANSACTIONS_PER_TURN && room > 0 {
            let Ok(transaction) = inputs.transactions.try_recv() else { break };
            room = room.saturating_sub(transaction.len());
            transactions.push(transaction);
        }
        if !transactions.is_empty() {
            events.push(Event::Transactions(transactions));
        }
    }

    fn take(&mut self, input: Input, events: &mut Vec<Event>) {
        // Whoever asked may be gone; that is its own affair.
        match input {
            Input::Event(event) => events.push(event),
            Input::Headers(hashes, answer) => {
                let found = hashes.iter().filter_map(|hash| self.machine.lookup_header(hash).cloned());
                let _ = answer.send(found.collect());
            }
            Input::Batches(chains, answer) => {
                let found = chains.iter().flat_map(|(tip, above)| self.machine.lookup_batches(tip, *above, 64));
                let _ = answer.send(found.take(64).collect());
            }
            Input::Status(answer) => {
                let _ = answer.send(self.machine.status());
            }
        }
    }

    /// Forgets where batches lie that the machine has let go of.
    fn prune_positions(&mut self) {
        if self.positions.len() > self.positions_kept.saturating_mul(2).max(1024) {
            self.positions.retain(|digest, _| self.machine.holds(digest));
            self.positions_kept = self.positions.len();
        }
    }

    fn carry_out(
        &mut self,
        actions: &mut Vec<Action>,
        own: &mut Vec<tally_consensus::Message>,
    ) -> Result<(), DriverError> {
        let Durable { actions, batches, executed } = turn::make_durable(&mut self.journal, std::mem::take(actions))?;
        self.positions.extend(batches.into_iter().map(|(digest, position)| (digest, position.to_u64())));
        if let Some(height) = executed {
            self.durable.store(height.0, Ordering::Release);
        }
        for action in actions {
            self.act(action, own)?;
        }
        Ok(())
    }

    fn act(&mut self, action: Action, own: &mut Vec<tally_consensus::Message>) -> Result<(), DriverError> {
        match action {
            // It is on disk already.
            Action::Persist(_) => {}
            Action::Sign(unsigned) => {
                let message = self.signer.sign(unsigned);
                self.peers.broadcast(&message);
                own.push(message);
            }
            Action::Broadcast(message) => self.peers.broadcast(&message),
            Action::Send(to, message) => self.peers.send(&to, &message),
            Action::Ask(peer, fetch) => self.peers.ask(peer, fetch),
            Action::Execute(order) => {
                let job = Job::new(order, &self.positions);
                // The queue holds all that the machine gives out ahead, so a full one is a dead executor.
                self.jobs.try_send(job).map_err(|_| DriverError::Executor)?;
            }
            Action::Sets(sets) => self.peers.set_sets(sets),
            Action::Evidence(evidence) => self.shared.evidence.add(*evidence),
            Action::Alarm(alarm) => {
                tracing::error!(
                    ?alarm,
                    "ALARM: this node does not vote on it; compare its version and disk with the others"
                );
                *self.rejected.entry("ALARM".into()).or_default() += 1;
            }
            Action::Dropped(reject) => *self.rejected.entry(format!("{reject:?}")).or_default() += 1,
        }
        Ok(())
    }

    /// Tells clients where agreement stands.
    fn tell(&mut self) {
        let status = self.machine.status();
        let mut rejected = self.rejected.clone();
        let counters = &self.peers.rejected;
        for (name, counter) in [
            ("malformed", &counters.malformed),
            ("forged", &counters.forged),
            ("bad_transactions", &counters.bad_transactions),
            ("queue_full", &counters.queue_full),
            ("old_epoch", &counters.old_epoch),
        ] {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                rejected.insert(name.into(), count);
            }
        }
        let claims: HashMap<_, _> =
            self.machine.peers().into_iter().map(|(address, height, _)| (address, height)).collect();
        let set = self.machine.agreement().set().clone();
        let others = set.members().iter().filter(|member| member.address != self.signer.address());
        let peers = others.map(|member| {
            let (endpoint, connected) = self.peers.standing(&member.address);
            let final_height = claims.get(&member.address).copied().unwrap_or_default();
            PeerStanding { address: member.address, key: member.key, endpoint, connected, final_height }
        });
        let observer_reason = observer_reason(self.machine.voting());
        self.standing.send_replace(Arc::new(Standing { status, peers: peers.collect(), rejected, observer_reason }));
    }
}

/// Why a node does not sign although it is a validator; empty when it does.
pub fn observer_reason(voting: Voting) -> String {
    match voting {
        Voting::Allowed => String::new(),
        Voting::From(Some(epoch)) => format!("its journal was lost: it signs nothing before epoch {epoch}"),
        Voting::From(None) => {
            "its journal was lost: it signs nothing until it has heard a quorum, and then for two epochs".into()
        }
    }
}

/// The wall clock, in Unix milliseconds.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
