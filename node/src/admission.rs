//! Transactions on their way: from a client's submission to the block that executes them.
//!
//! A transaction is pending here from its admission until a block executes or discards it, or until a block's time passes
//! its expiry. Pending promises nothing; it is kept so that the same bytes sent again are answered alike, so that two
//! transactions of one nonce do not both go out, and so that waiters learn the outcome. Rules: bounded in all and per
//! sender, so one that floods leaves room for others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tally_ledger::{Rejection, account::NONCE_WINDOW};
use tally_types::{
    Address, Hash, Nonce, SignedTransaction, UnixMillis, VerifiedTransaction, transaction::TransactionError,
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::context::Latest;

/// Transactions pending in all: a few seconds of what a network carries. Beyond that a refusal is kinder than a wait.
pub const PENDING_MAX: usize = 20_000;
/// Transactions pending of one sender.
pub const PENDING_PER_SENDER_MAX: usize = 10_000;
/// Transactions that wait for their signature check.
const CHECKS_MAX: usize = 2048;
/// Signatures checked together.
const CHECKS_PER_BATCH: usize = 256;
/// Ids remembered of transactions that expired.
const EXPIRED_KEPT: usize = 100_000;
/// Transactions waited for, above which those that nobody waits for any more are looked for: twice as many as calls may wait
/// (`Limits::waits_max`), so each look finds half of them.
const WAITED_FOR_MAX: usize = 2 * 16_384;
/// Calls that wait for one transaction.
const WAITERS_PER_TRANSACTION_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Admission {
    inner: Mutex<Inner>,
    to_driver: mpsc::Sender<Bytes>,
    to_checker: mpsc::Sender<Checking>,
}

/// A transaction on its way through the signature check.
struct Checking {
    transaction: SignedTransaction,
    answer: oneshot::Sender<Result<VerifiedTransaction, TransactionError>>,
}

/// A signature that is being checked.
#[derive(Debug)]
pub struct Verifying(oneshot::Receiver<Result<VerifiedTransaction, TransactionError>>);

impl Verifying {
    /// What the check found.
    pub async fn done(self) -> Result<VerifiedTransaction, AdmissionError> {
        Ok(self.0.await.map_err(|_| AdmissionError::Stopping)??)
    }
}

#[derive(Debug, Default)]
struct Inner {
    pending: HashMap<Hash, VerifiedTransaction>,
    by_sender: HashMap<Address, BTreeMap<Nonce, Hash>>,
    by_expiry: BTreeSet<(UnixMillis, Hash)>,
    expired: HashSet<Hash>,
    expired_order: VecDeque<Hash>,
    waiters: HashMap<Hash, Vec<oneshot::Sender<()>>>,
}

/// Why a transaction is not admitted.
#[derive(Debug, Error)]
pub enum AdmissionError {
    /// Its signature does not hold.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// It could not be executed on the latest state.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Another transaction of this sender holds the nonce.
    #[error("nonce {nonce} of this account is taken by transaction {holder}, which is pending; use {next}")]
    NonceHeld {
        /// The nonce.
        nonce: Nonce,
        /// The transaction that holds it.
        holder: Hash,
        /// A nonce that is free here.
        next: Nonce,
    },
    /// Those of its sender that are pending will have moved the window past its nonce when it arrives.
    #[error(
        "nonce {nonce} is too low: transactions of this account up to nonce {highest} are pending here; use {next}"
    )]
    NonceLeftBehind {
        /// The nonce.
        nonce: Nonce,
        /// The highest one pending.
        highest: Nonce,
        /// A nonce that is free here.
        next: Nonce,
    },
    /// The sender has [`PENDING_PER_SENDER_MAX`] transactions here.
    #[error("this account has {PENDING_PER_SENDER_MAX} transactions pending here; wait until some are final")]
    SenderLimit,
    /// The node is full.
    #[error("this node has as many transactions pending as it takes; try again shortly, or another node")]
    Full,
    /// The node is shutting down.
    #[error("this node is shutting down; try another")]
    Stopping,
}

impl Admission {
    /// Admitted transactions go to `to_driver`. Fails where the system gives no thread to check signatures.
    pub fn new(to_driver: mpsc::Sender<Bytes>) -> io::Result<Admission> {
        let (to_checker, queue) = mpsc::channel(CHECKS_MAX);
        // It ends with the admission that feeds it.
        std::thread::Builder::new().name("checker".into()).spawn(move || check_all(queue))?;
        Ok(Admission { inner: Mutex::default(), to_driver, to_checker })
    }

    /// Has a client's signature checked, together with whatever else waits: half the price of one by one, on one thread, so
    /// that a flood of submissions leaves the other cores to agreement.
    pub fn verify(&self, transaction: SignedTransaction) -> Result<Verifying, AdmissionError> {
        let (answer, verified) = oneshot::channel();
        self.to_checker.try_send(Checking { transaction, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AdmissionError::Full,
            mpsc::error::TrySendError::Closed(_) => AdmissionError::Stopping,
        })?;
        Ok(Verifying(verified))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a transaction that is neither pending nor in a block, judged by the state `latest` at time `now`.
    pub fn admit(
        &self,
        latest: &Latest,
        now: UnixMillis,
        transaction: VerifiedTransaction,
    ) -> Result<(), AdmissionError> {
        let (id, sender, nonce) = (transaction.id(), transaction.sender(), transaction.body().nonce);
        let mut inner = self.lock();
        if inner.pending.contains_key(&id) {
            return Ok(());
        }
        let held = inner.by_sender.get(&sender);
        let highest = held.and_then(|nonces| nonces.keys().next_back().copied()).unwrap_or_default();
        ensure_free(held, nonce)?;
        latest.ledger.admit(now, highest, &transaction)?;
        // Those pending go first. A block would discard this one without a receipt, and its sender would never hear of it.
        if highest.above(nonce) >= NONCE_WINDOW {
            return Err(AdmissionError::NonceLeftBehind { nonce, highest, next: highest.next() });
        }
        if held.is_some_and(|nonces| nonces.len() >= PENDING_PER_SENDER_MAX) {
            return Err(AdmissionError::SenderLimit);
        }
        if inner.pending.len() >= PENDING_MAX {
            return Err(AdmissionError::Full);
        }
        match self.to_driver.try_send(Bytes::copy_from_slice(transaction.bytes())) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(AdmissionError::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(AdmissionError::Stopping),
        }
        inner.by_sender.entry(sender).or_default().insert(nonce, id);
        inner.by_expiry.insert((transaction.body().expire_time, id));
        inner.pending.insert(id, transaction);
        Ok(())
    }

    /// The pending transaction of this id.
    pub fn pending(&self, id: &Hash) -> Option<VerifiedTransaction> {
        self.lock().pending.get(id).cloned()
    }

    /// How many are pending.
    pub fn len(&self) -> usize {
        self.lock().pending.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this transaction was pending here when a block's time passed its expiry.
    pub fn expired(&self, id: &Hash) -> bool {
        self.lock().expired.contains(id)
    }

    /// The nonce after the highest that is pending here for this account.
    pub fn next_nonce(&self, sender: &Address) -> Option<Nonce> {
        let inner = self.lock();
        inner.by_sender.get(sender)?.keys().next_back().map(|highest| highest.next())
    }

    /// Refuses a nonce that a pending transaction of `sender` holds.
    pub fn ensure_free(&self, sender: &Address, nonce: Nonce) -> Result<(), AdmissionError> {
        ensure_free(self.lock().by_sender.get(sender), nonce)
    }

    /// Resolves when a block executes or discards the transaction, or when it expires; none: too many wait for it.
    pub fn wait(&self, id: Hash) -> Option<oneshot::Receiver<()>> {
        let mut inner = self.lock();
        // Blocks sweep too, but without agreement there are none.
        if inner.waiters.len() >= WAITED_FOR_MAX {
            inner.sweep_waiters();
        }
        let waiters = inner.waiters.entry(id).or_default();
        // Calls that ended leave their place.
        waiters.retain(|waiter| !waiter.is_closed());
        if waiters.len() >= WAITERS_PER_TRANSACTION_MAX {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        waiters.push(sender);
        Some(receiver)
    }

    /// Blocks up to one with this time were executed and indexed: what they executed, and what they discarded.
    pub fn settle(&self, executed: &[Hash], discarded: &[Hash], block_time: UnixMillis) {
        let mut inner = self.lock();
        for id in executed {
            inner.forget(id);
        }
        // Before those that were discarded: for expiry, most of them, and that is what their senders are told.
        while let Some((_, id)) = inner.by_expiry.first().copied().filter(|(expiry, _)| *expiry < block_time) {
            inner.forget(&id);
            inner.remember_expired(id);
        }
        for id in discarded {
            inner.forget(id);
        }
        inner.sweep_waiters();
    }
}

/// Takes whatever waits, checks it at once, and only where that fails one by one.
fn check_all(mut queue: mpsc::Receiver<Checking>) {
    crate::run::yield_to_agreement();
    let mut waiting = Vec::new();
    while queue.blocking_recv_many(&mut waiting, CHECKS_PER_BATCH) > 0 {
        let all = waiting.iter().map(|checking| checking.transaction.clone()).collect();
        let verified = SignedTransaction::verify_all(all);
        let mut verified = verified.map(Vec::into_iter).ok();
        for Checking { transaction, answer } in waiting.drain(..) {
            let result = match verified.as_mut().and_then(Iterator::next) {
                Some(verified) => Ok(verified),
                None => transaction.verify(),
            };
            // Whoever submitted it may be gone; that is its own affair.
            let _ = answer.send(result);
        }
    }
}

impl Inner {
    fn sweep_waiters(&mut self) {
        self.waiters.retain(|_, waiters| waiters.iter().any(|waiter| !waiter.is_closed()));
    }

    fn forget(&mut self, id: &Hash) {
        if let Some(transaction) = self.pending.remove(id) {
            let (sender, nonce) = (transaction.sender(), transaction.body().nonce);
            if let Some(nonces) = self.by_sender.get_mut(&sender) {
                nonces.remove(&nonce);
                if nonces.is_empty() {
                    self.by_sender.remove(&sender);
                }
            }
            self.by_expiry.remove(&(transaction.body().expire_time, *id));
        }
        for waiter in self.waiters.remove(id).unwrap_or_default() {
            // Whoever waited may be gone; that is its own affair.
            let _ = waiter.send(());
        }
    }

    fn remember_expired(&mut self, id: Hash) {
        self.expired.insert(id);
        self.expired_order.push_back(id);
        while self.expired_order.len() > EXPIRED_KEPT {
            if let Some(oldest) = self.expired_order.pop_front() {
                self.expired.remove(&oldest);
            }
        }
    }
}
fn ensure_free(held: Option<&BTreeMap<Nonce, Hash>>, nonce: Nonce) -> Result<(), AdmissionError> {
    let Some(nonces) = held else { return Ok(()) };
    let Some(holder) = nonces.get(&nonce).copied() else { return Ok(()) };
    let highest = nonces.keys().next_back().copied().unwrap_or_default();
    Err(AdmissionError::NonceHeld { nonce, holder, next: highest.next() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_of_calls_that_ended_are_found_without_a_block() {
        let (to_driver, _) = mpsc::channel(1);
        let admission = Admission::new(to_driver).unwrap();
        let kept = admission.wait(Hash::of(b"kept")).unwrap();
        for number in 0..3 * WAITED_FOR_MAX {
            drop(admission.wait(Hash::of(&number.to_be_bytes())));
        }
        assert!(admission.lock().waiters.len() <= WAITED_FOR_MAX);
        admission.settle(&[Hash::of(b"kept")], &[], UnixMillis(0));
        kept.await.unwrap();
    }
}
