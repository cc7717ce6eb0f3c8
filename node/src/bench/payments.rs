//! Accounts that pay each other, and their payments, signed ahead.
//!
//! Payment `k` is the account's `k mod accounts`, so payments of one account are as far apart as can be. All payments of
//! an account go to one node: its nonces then arrive in order, and one admission knows all that are on their way.

use std::{collections::HashMap, thread, time::Duration};

use prost::Message as _;
use tally_proto::v1;
use tally_types::{Address, Hash, SecretKey, genesis::Chain, transaction::signed_bytes};

use crate::{cli::Failure, driver::unix_millis};

/// Fee limit of a payment, base units.
const FEE_MAX: u64 = 1_000_000;
/// What is paid, base units.
const AMOUNT: u64 = 1;
/// How long payments are good beyond the end of the load.
const EXPIRY: Duration = Duration::from_secs(10 * 60);

/// Accounts whose keys everybody can derive: worth nothing outside a benchmark.
pub(super) struct Accounts {
    holders: Vec<Holder>,
}

#[derive(Clone)]
struct Holder {
    secret: SecretKey,
    address: Address,
    shown: String,
}

/// Signed payments, in the order in which they are sent.
pub(super) struct Payments {
    /// What is sent.
    pub(super) transactions: Vec<v1::Transaction>,
    /// The place of each in the order, by transaction id.
    pub(super) places: HashMap<Hash, usize>,
    /// How many accounts pay.
    pub(super) accounts: usize,
}

impl Accounts {
    /// Derives the keys of `count` accounts.
    pub(super) fn new(count: u32) -> Accounts {
        let holder = |number: u32| {
            let secret = SecretKey::from_seed(&Hash::tagged("tally.bench.account", &[&number.to_be_bytes()]).0);
            let address = secret.public_key().address();
            Holder { secret, address, shown: address.to_string() }
        };
        Accounts { holders: (0..count).map(holder).collect() }
    }

    /// The accounts as a genesis lists them, each with enough for its share of `payments`.
    pub(super) fn funded(&self, payments: u64) -> Vec<(Address, u64)> {
        let share = payments / self.holders.len().max(1) as u64 + 1;
        let balance = share * (FEE_MAX + AMOUNT) * 2;
        self.holders.iter().map(|holder| (holder.address, balance)).collect()
    }

    /// Signs `count` payments on all cores; they expire some minutes after `lifetime` from now.
    pub(super) async fn sign(self, count: u64, chain: &Chain, lifetime: Duration) -> Result<Payments, Failure> {
        let (done, signed) = tokio::sync::oneshot::channel();
        let count = usize::try_from(count)?;
        let expiry_ms = unix_millis() + u64::try_from((lifetime + EXPIRY).as_millis())?;
        let chain = chain.clone();
        // A thread, not a blocking task: Ctrl-C must not wait for it.
        thread::Builder::new().name("signing".into()).spawn(move || {
            let _ = done.send(self.sign_now(count, &chain, expiry_ms));
        })?;
        Ok(signed.await?)
    }

    fn sign_now(&self, count: usize, chain: &Chain, expiry_ms: u64) -> Payments {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let share = count.div_ceil(cores).max(1);
        let part = |start: usize| {
            let places = start..count.min(start + share);
            places.map(|place| self.payment(place, chain, expiry_ms)).collect::<Vec<_>>()
        };
        let parts: Vec<_> = thread::scope(|scope| {
            let part = &part;
            let starts = (0..count).step_by(share);
            let threads: Vec<_> = starts.map(|start| scope.spawn(move || part(start))).collect();
            threads.into_iter().map(|thread| thread.join().expect("signing does not panic")).collect()
        });
        let (mut transactions, mut places) = (Vec::with_capacity(count), HashMap::with_capacity(count));
        for (place, (id, transaction)) in parts.into_iter().flatten().enumerate() {
            places.insert(id, place);
            transactions.push(transaction);
        }
        Payments { transactions, places, accounts: self.holders.len() }
    }

    /// Payment `place`, with its id.
    fn payment(&self, place: usize, chain: &Chain, expiry_ms: u64) -> (Hash, v1::Transaction) {
        let count = self.holders.len();
        let (round, sender) = (place / count, place % count);
        // Another one every round; the same as the sender only when there is one account.
        let recipient = (sender + 1 + round % count.saturating_sub(1).max(1)) % count;
        let transfer = v1::Transfer { recipient: self.holders[recipient].shown.clone(), amount: AMOUNT };
        let body = v1::TransactionBody {
            chain_id: chain.id.clone(),
            sender: self.holders[sender].shown.clone(),
            nonce: round as u64 + 1,
            expire_time: Some(prost_types::Timestamp {
                seconds: i64::try_from(expiry_ms / 1000).unwrap_or(i64::MAX),
                nanos: 0,
            }),
            max_fee: FEE_MAX,
            memo: String::new(),
            operations: vec![v1::Operation { operation: Some(v1::operation::Operation::Transfer(transfer)) }],
        };
        let body = body.encode_to_vec();
        let bytes = signed_bytes(&chain.genesis_hash, &body);
        let signature = self.holders[sender].secret.sign(&bytes).0.to_vec();
        let signatures = vec![v1::Signature { signer: String::new(), signature }];
        (bytes.hash(), v1::Transaction { body, signatures })
    }
}

impl Payments {
    /// The first half and the second, each in order from place 0. An account's second half begins where its first ends.
    pub(super) fn halves(mut self) -> (Payments, Payments) {
        let half = self.transactions.len() / 2;
        let second = self.transactions.split_off(half);
        let (later, places) = self.places.drain().partition::<HashMap<_, _>, _>(|(_, place)| *place >= half);
        let later = later.into_iter().map(|(id, place)| (id, place - half)).collect();
        let accounts = self.accounts;
        (Payments { places, ..self }, Payments { transactions: second, places: later, accounts })
    }
}

/// The account that makes payment `place`, of `accounts`.
pub(super) fn account_of(place: usize, accounts: usize) -> usize {
    place % accounts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tally_types::SignedTransaction;

    use super::*;

    #[test]
    fn payments_are_signed_and_no_account_uses_a_nonce_twice() {
        let chain = Chain { id: "bench-01020304".into(), genesis_hash: Hash::of(b"genesis") };
        let accounts = Accounts::new(3);
        let payments = accounts.sign_now(10, &chain, 1_800_000_000_000);
        assert_eq!((payments.transactions.len(), payments.places.len()), (10, 10));
        let mut used = BTreeSet::new();
        for (place, transaction) in payments.transactions.iter().enumerate() {
            let parsed = SignedTransaction::parse(&transaction.encode_to_vec(), &chain).unwrap();
            assert_eq!(payments.places[&parsed.id()], place);
            let verified = parsed.verify().unwrap();
            assert_eq!(verified.sender(), accounts.holders[account_of(place, 3)].address);
            assert!(used.insert((verified.sender(), verified.body().nonce)));
        }
        let (first, second) = payments.halves();
        for half in [first, second] {
            let ids = half
                .transactions
                .iter()
                .map(|transaction| SignedTransaction::parse(&transaction.encode_to_vec(), &chain).unwrap().id());
            assert_eq!(ids.map(|id| half.places[&id]).collect::<Vec<_>>(), (0..5).collect::<Vec<_>>());
        }
    }
}
