//! The thread that owns the ledger: executes final blocks in order, writes the index, tells everybody.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use tally_consensus::{Event, Order};
use tally_ledger::{BlockInput, ExecuteError, LaneInput, Ledger, Outcome};
use tally_types::{Hash, Height, ValidatorSet, body::Operation};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::{
    context::{Latest, Shared},
    peers::Input,
    store::{
        index::{Index, IndexError, IndexedBlock, IndexedTransaction},
        snapshot::Snapshots,
    },
};

/// Blocks after which the state is written out, so that a restart executes no more than these again.
const SNAPSHOT_BLOCKS: u64 = 1000;
/// Payload after which it is written out earlier, in bytes.
const SNAPSHOT_PAYLOAD_BYTES: u64 = 256 * 1024 * 1024;

/// A final block on its way to the ledger.
#[derive(Debug)]
pub struct Job {
    /// What to execute.
    pub order: Box<Order>,
    /// Where its batches lie in the journal, in the order of the block.
    pub positions: Vec<u64>,
}

impl Job {
    /// Adds to an order where its batches lie.
    pub fn new(order: Box<Order>, positions: &HashMap<Hash, u64>) -> Job {
        let digests = order.lanes.iter().flatten().map(|batch| batch.digest());
        let positions = digests.filter_map(|digest| positions.get(&digest).copied()).collect();
        Job { order, positions }
    }
}

/// Why execution cannot go on. The node stops: the journal has everything, and nothing wrong was told to anybody.
#[derive(Debug, Error)]
pub enum ExecutorError {
    /// The ledger refused the block.
    #[error("execution stopped: {0}")]
    Ledger(#[from] ExecuteError),
    /// The index cannot be written.
    #[error("execution stopped: {0}")]
    Index(#[from] IndexError),
}

/// Ledger, index and snapshots.
pub struct Executor {
    ledger: Ledger,
    index: Arc<Index>,
    indexed: Height,
    /// The thread that writes the index out, if there was one.
    writing: Option<JoinHandle<Result<(), IndexError>>>,
    snapshots: Arc<Snapshots>,
    snapshot: Option<JoinHandle<()>>,
    /// A state to write as soon as the journal allows it.
    to_write: Option<Ledger>,
    blocks_since_snapshot: u64,
    bytes_since_snapshot: u64,
    /// Up to this height the journal durably says what execution led to: only then a snapshot may say it.
    durable: Arc<AtomicU64>,
}

impl Executor {
    /// Goes on from `ledger`.
    pub fn new(
        ledger: Ledger,
        index: Arc<Index>,
        snapshots: Arc<Snapshots>,
        durable: Arc<AtomicU64>,
    ) -> Result<Executor, IndexError> {
        let indexed = Height(index.height()?.unwrap_or(0));
        Ok(Executor {
            ledger,
            index,
            indexed,
            writing: None,
            snapshots,
            snapshot: None,
            to_write: None,
            blocks_since_snapshot: 0,
            bytes_since_snapshot: 0,
            durable,
        })
    }

    /// The ledger as it is now.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Executes one block; what it came to is still to be indexed.
    pub fn execute(&mut self, job: &Job) -> Result<(Outcome, IndexedBlock), ExecutorError> {
        let (header, members) = (&job.order.header, job.order.validators.members());
        let lanes = members.iter().zip(&job.order.lanes).map(|(member, batches)| LaneInput {
            fee_recipient: member.address,
            transactions: batches.iter().flat_map(|batch| batch.transactions()).map(|bytes| &bytes[..]).collect(),
        });
        let input = BlockInput { height: header.height, time: header.time, lanes: lanes.collect() };
        let outcome = self.ledger.execute(&input)?;
        self.blocks_since_snapshot += 1;
        self.bytes_since_snapshot +=
            job.order.lanes.iter().flatten().map(|batch| batch.bytes().len() as u64).sum::<u64>();
        let transactions = outcome.transactions.iter().map(|executed| {
            let body = executed.transaction.body();
            let mut accounts = vec![body.sender.0];
            accounts.extend(body.operations.iter().map(Operation::recipient).map(|address| address.0));
            accounts.sort_unstable();
            accounts.dedup();
            IndexedTransaction {
                id: executed.receipt.tx_id.0,
                receipt: executed.receipt.encode(),
                bytes: executed.transaction.bytes().to_vec(),
                accounts,
            }
        });
        let block = IndexedBlock {
            height: header.height.0,
            hash: header.hash().0,
            header: header.bytes().to_vec(),
            commit: job.order.commit.as_ref().map(|commit| commit.encode()),
            transactions: transactions.collect(),
            batches: job.positions.clone(),
        };
        Ok((outcome, block))
    }

    /// Indexes blocks that are not indexed yet.
    pub fn index(&mut self, mut blocks: Vec<IndexedBlock>) -> Result<(), ExecutorError> {
        blocks.retain(|block| block.height > self.indexed.0);
        if let Some(last) = blocks.last().map(|block| Height(block.height)) {
            self.index.add(blocks)?;
            self.indexed = last;
        }
        self.write_out_if_due()
    }

    /// Writes the index out in the background when that is worth it. Execution waits for it only where it has fallen far
    /// behind.
    fn write_out_if_due(&mut self) -> Result<(), ExecutorError> {
        let running = self.writing.as_ref().is_some_and(|thread| !thread.is_finished());
        if !self.index.is_due() || (running && !self.index.is_overdue()) {
            return Ok(());
        }
        self.end_writing()?;
        let index = self.index.clone();
        let write_out = move || {
            crate::run::yield_to_agreement();
            index.write_out()
        };
        match std::thread::Builder::new().name("indexer".into()).spawn(write_out) {
            Ok(thread) => self.writing = Some(thread),
            Err(_) => self.index.write_out()?,
        }
        Ok(())
    }

    fn end_writing(&mut self) -> Result<(), ExecutorError> {
        match self.writing.take().map(JoinHandle::join) {
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            Some(Ok(written)) => Ok(written?),
            None => Ok(()),
        }
    }

    /// Who votes by the present state.
    pub fn validators(&self) -> ValidatorSet {
        self.ledger.state().validators()
    }

    /// Writes the state out in the background when it is time and the journal allows it.
    pub fn snapshot_if_due(&mut self) {
        let due = self.blocks_since_snapshot >= SNAPSHOT_BLOCKS || self.bytes_since_snapshot >= SNAPSHOT_PAYLOAD_BYTES;
        if due && self.to_write.is_none() {
            (self.blocks_since_snapshot, self.bytes_since_snapshot) = (0, 0);
            self.to_write = Some(self.ledger.clone());
        }
        let running = self.snapshot.as_ref().is_some_and(|thread| !thread.is_finished());
        let durable = self.durable.load(Ordering::Acquire);
        let Some(ledger) = self.to_write.take_if(|ledger| !running && ledger.height().0 <= durable) else { return };
        let (height, snapshots) = (ledger.height(), self.snapshots.clone());
        let write = move || match snapshots.write(height.0, &ledger.encode_snapshot()) {
            Ok(()) => tracing::info!(%height, "state snapshot written"),
            // Only a restart will take longer.
            Err(error) => tracing::warn!(%error, "state snapshot not written"),
        };
        self.snapshot = std::thread::Builder::new().name("snapshot".into()).spawn(write).ok();
    }

    /// Runs until the driver closes `jobs`, and leaves everything written.
    pub fn run(
        mut self,
        jobs: mpsc::Receiver<Job>,
        to_driver: mpsc::Sender<Input>,
        latest: watch::Sender<Arc<Latest>>,
        shared: Arc<Shared>,
    ) -> Result<(), ExecutorError> {
        self.execute_all(jobs, &to_driver, &latest, &shared)?;
        self.close()
    }

    /// Leaves everything written, and no thread behind.
    pub fn close(mut self) -> Result<(), ExecutorError> {
        if let Some(thread) = self.snapshot.take() {
            let _ = thread.join();
        }
        self.end_writing()?;
        while self.index.has_unwritten() {
            self.index.write_out()?;
        }
        Ok(())
    }

    /// Several blocks that wait are told of together. Ends when the driver is gone.
    fn execute_all(
        &mut self,
        mut jobs: mpsc::Receiver<Job>,
        to_driver: &mpsc::Sender<Input>,
        latest: &watch::Sender<Arc<Latest>>,
        shared: &Shared,
    ) -> Result<(), ExecutorError> {
        let mut waiting = Vec::new();
        while jobs.blocking_recv_many(&mut waiting, 16) > 0 {
            let mut blocks = Vec::with_capacity(waiting.len());
            let (mut executed, mut discarded) = (Vec::new(), Vec::new());
            let mut last = None;
            for job in waiting.drain(..) {
                let (outcome, block) = self.execute(&job)?;
                executed.extend(outcome.transactions.iter().map(|executed| executed.receipt.tx_id));
                discarded.extend(outcome.discarded.iter().map(|(id, _)| *id));
                blocks.push(block);
                last = Some(job.order.header.clone());
                let event = Event::Executed { executed: outcome.executed, validators: self.validators() };
                if to_driver.blocking_send(Input::Event(event)).is_err() {
                    return Ok(());
                }
            }
            self.index(blocks)?;
            if let Some(header) = last {
                let (height, time, hash) = (header.height, header.time, header.hash());
                latest.send_replace(Arc::new(Latest { ledger: self.ledger.clone(), height, time, hash }));
                shared.admission.settle(&executed, &discarded, time);
            }
            self.snapshot_if_due();
        }
        Ok(())
    }
}
