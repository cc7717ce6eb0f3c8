//! The way in: one transaction, or many.

use prost::Message as _;
use tally_proto::v1::{self, ErrorReason, TransactionState};
use tally_types::{
    Address, Hash, Nonce, SignedTransaction,
    body::{BODY_BYTES_MAX, BodyError},
    transaction::{TransactionError, signed_bytes},
};

use super::{
    Api,
    errors::Refusal,
    limits::{NONCE_HOLDER_ROWS_MAX, SUBMIT_BEHIND_BLOCKS_MAX, SUBMIT_TRANSACTIONS_MAX},
    local_time,
};
use crate::{
    admission::Verifying,
    store::index::{Order, Place},
};

/// A transaction on its way in.
struct Submission {
    id: Hash,
    verifying: Result<Verifying, Refusal>,
}

impl Api {
    /// Admits a transaction, or says where it is already. Every refusal names the transaction.
    pub(super) async fn submit(&self, transaction: &v1::Transaction) -> (Hash, Result<TransactionState, Refusal>) {
        self.finish(self.begin(transaction)).await
    }

    /// The same for many, each by itself: their signatures are checked together, and then they are admitted in order, so
    /// that a sender's nonces may follow each other.
    pub(super) async fn submit_all(
        &self,
        transactions: &[v1::Transaction],
    ) -> Result<Vec<v1::SubmitTransactionsResult>, Refusal> {
        if transactions.is_empty() || transactions.len() > SUBMIT_TRANSACTIONS_MAX {
            let problem = format!("has {} members, 1 to {SUBMIT_TRANSACTIONS_MAX} are allowed", transactions.len());
            return Err(Refusal::field("transactions", problem).with("maximum", SUBMIT_TRANSACTIONS_MAX));
        }
        let submissions: Vec<_> = transactions.iter().map(|transaction| self.begin(transaction)).collect();
        let mut results = Vec::with_capacity(submissions.len());
        for submission in submissions {
            let (id, outcome) = self.finish(submission).await;
            let (state, error) = match outcome {
                Ok(state) => (state, None),
                Err(refusal) => (TransactionState::Unspecified, Some(refusal.detail())),
            };
            results.push(v1::SubmitTransactionsResult { tx_id: id.to_string(), state: state.into(), error });
        }
        Ok(results)
    }

    /// Reads a transaction and has its signature checked.
    fn begin(&self, transaction: &v1::Transaction) -> Submission {
        let chain = &self.shared().genesis.chain;
        let id = signed_bytes(&chain.genesis_hash, &transaction.body).hash();
        let parsed = if transaction.body.len() > BODY_BYTES_MAX {
            Err(TransactionError::Body(BodyError::TooLarge(transaction.body.len())))
        } else {
            // Body and signatures are all there is in it, and the body's bytes stay what they were.
            SignedTransaction::parse(&transaction.encode_to_vec(), chain)
        };
        let verifying = parsed.map_err(Refusal::from);
        let verifying = verifying.and_then(|parsed| Ok(self.shared().admission.verify(parsed)?));
        Submission { id, verifying }
    }

    async fn finish(&self, submission: Submission) -> (Hash, Result<TransactionState, Refusal>) {
        let Submission { id, verifying } = submission;
        let outcome = match verifying {
            Ok(verifying) => self.admit(id, verifying).await,
            Err(refusal) => Err(refusal),
        };
        let outcome = outcome.map_err(|refusal| match refusal.reason() {
            // There tx_id names the transaction that holds the nonce.
            ErrorReason::NonceInUse => refusal.with("submitted_tx_id", id),
            _ => refusal.with("tx_id", id),
        });
        (id, outcome)
    }

    async fn admit(&self, id: Hash, verifying: Verifying) -> Result<TransactionState, Refusal> {
        let verified = verifying.done().await?;
        if self.shared().admission.pending(&id).is_some() {
            return Ok(TransactionState::Pending);
        }
        let (sender, nonce) = (verified.sender(), verified.body().nonce);
        let admitted = self.accepts().and_then(|()| {
            let latest = self.latest();
            let now = local_time().max(latest.time);
            self.shared().admission.admit(&latest, now, verified).map_err(Refusal::from)
        });
        let Err(refusal) = admitted else { return Ok(TransactionState::Pending) };
        // A transaction that was executed can be admitted no more: its nonce is used. So the index, which is on disk, is
        // asked only about those that are refused.
        if self.read(move |index| Ok(index.transaction(id.as_bytes())?.is_some())).await? {
            return Ok(TransactionState::Finalized);
        }
        match refusal.reason() {
            ErrorReason::NonceInUse => self.naming_holder(refusal, sender, nonce).await,
            _ => Err(refusal),
        }
    }

    /// Whether this node can carry transactions at all.
    fn accepts(&self) -> Result<(), Refusal> {
        let (latest, standing) = (self.latest(), self.standing());
        let not_accepting = |message: &str| Err(Refusal::new(ErrorReason::NotAccepting, message));
        if self.is_closing() {
            return not_accepting("this node is shutting down; submit to another");
        }
        let seen = standing.status.highest_seen;
        if seen.above(latest.height) > SUBMIT_BEHIND_BLOCKS_MAX {
            let message = format!("this node is at height {} of {seen}; wait, or submit to another", latest.height);
            let refusal = Refusal::new(ErrorReason::NodeSyncing, message);
            return Err(refusal.with("height", latest.height).with("highest_seen_height", seen));
        }
        if self.shared().me.is_none() {
            return not_accepting("this node is no validator and cannot carry transactions; submit to one that is");
        }
        if !standing.observer_reason.is_empty() {
            let message = format!("this node only observes ({}); submit to another", standing.observer_reason);
            return not_accepting(&message);
        }
        Ok(())
    }

    /// Adds to a NONCE_IN_USE which transaction used the nonce, if it is among the sender's latest.
    async fn naming_holder(
        &self,
        refusal: Refusal,
        sender: Address,
        nonce: Nonce,
    ) -> Result<TransactionState, Refusal> {
        let genesis = self.shared().genesis.clone();
        let holder = self.read(move |index| {
            let range = Place::FIRST..=Place::LAST;
            for place in index.history(sender.as_bytes(), range, Order::NewestFirst, NONCE_HOLDER_ROWS_MAX)? {
                let found = index.transaction_at(place)?;
                let parsed = SignedTransaction::parse(&found.bytes, &genesis.chain).map(SignedTransaction::ordered);
                if parsed.is_ok_and(|used| used.sender() == sender && used.body().nonce == nonce) {
                    return Ok(Some(Hash(found.id)));
                }
            }
            Ok(None)
        });
        match holder.await? {
            Some(holder) => Err(refusal.with_default("tx_id", holder)),
            None => Err(refusal),
        }
    }
}
