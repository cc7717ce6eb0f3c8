//! A chain of four validators and a few accounts, in memory, that grows when a test says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use tally_consensus::Status as Agreement;
use tally_ledger::{BlockInput, LaneInput, Ledger};
use tally_proto::v1::{self, operation::Operation};
use tally_types::{
    Address, Certificate, Epoch, Genesis, Hash, Header, Height, SecretKey, Seq, Signature, Tip, UnixMillis, View,
    VoteKind,
    certificate::CertificateSignature,
    genesis::{FORMAT, GenesisAccount, GenesisFile, GenesisValidator, Params},
    header::HeaderFields,
    transaction::{sign, signed_bytes},
};
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    admission::Admission,
    api::{Api, Limits, local_time},
    context::{Latest, PeerStanding, Shared, Standing},
    evidence::EvidenceBook,
    store::index::{Index, IndexedBlock, IndexedTransaction},
};

pub(super) const BALANCE: u64 = 10_000_000;
pub(super) const BASE_FEE: u64 = 10;
pub(super) const MIN_OPENING: u64 = 100;
pub(super) const EPOCH_BLOCKS: u64 = 16;
/// Accounts of genesis: seeds 1 to this. Those of 1 to 4 operate validators.
pub(super) const ACCOUNTS: u8 = 6;

pub(super) fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub(super) fn address(seed: u8) -> Address {
    secret(seed).public_key().address()
}

pub(super) fn genesis(filler: usize, silence_ms: u64) -> Genesis {
    let validator = |seed: u8| GenesisValidator {
        address: address(seed).to_string(),
        consensus_public_key: secret(seed + 100).public_key().to_string(),
        stake: 1000 * u64::from(seed),
        moniker: format!("validator {seed}"),
    };
    let account = |seed: u8| GenesisAccount { address: address(seed).to_string(), balance: BALANCE };
    let file = GenesisFile {
        format: FORMAT,
        name: "test".into(),
        time_ms: local_time().0 - silence_ms,
        symbol: "TALLY".into(),
        decimals: 9,
        total_supply: u64::from(ACCOUNTS) * BALANCE + 10_000,
        params: Params {
            base_fee: BASE_FEE,
            min_opening_balance: MIN_OPENING,
            min_validator_stake: 1000,
            epoch_blocks: EPOCH_BLOCKS,
            execution_window: 4,
            max_expiry_ms: 600_000,
            ..Params::default()
        },
        accounts: (1..=ACCOUNTS).map(account).collect(),
        validators: (1..=4).map(validator).collect(),
    };
    // White space is part of a genesis file, and of its hash.
    let bytes = [file.encode().unwrap(), vec![b' '; filler]].concat();
    Genesis::parse(&bytes).unwrap()
}

/// See the module.
pub(super) struct World {
    pub(super) api: Api,
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Ledger,
    pub(super) standing: watch::Sender<Arc<Standing>>,
    pub(super) stopping: watch::Sender<bool>,
    pub(super) closing: watch::Sender<bool>,
    /// What was handed to the driver.
    pub(super) admitted: mpsc::Receiver<Bytes>,
    latest: watch::Sender<Arc<Latest>>,
    pub(super) hashes: Vec<Hash>,
}

/// What a world starts from.
pub(super) struct Start {
    pub(super) limits: Limits,
    /// Blocks that are executed but not in the index.
    pub(super) pruned: u64,
    pub(super) is_validator: bool,
    pub(super) admitted_max: usize,
    pub(super) genesis_filler: usize,
    /// Age of the chain.
    pub(super) silence_ms: u64,
}

impl Default for Start {
    fn default() -> Start {
        let limits = Limits::default();
        Start { limits, pruned: 0, is_validator: true, admitted_max: 1000, genesis_filler: 0, silence_ms: 60_000 }
    }
}

impl World {
    pub(super) fn new() -> World {
        World::start(Start::default())
    }

    pub(super) fn with(limits: Limits) -> World {
        World::start(Start { limits, ..Start::default() })
    }

    pub(super) fn start(start: Start) -> World {
        let genesis = Arc::new(genesis(start.genesis_filler, start.silence_ms));
        let ledger = Ledger::genesis(&genesis);
        let hash = genesis.chain.genesis_hash;
        let first = Latest { ledger: ledger.clone(), height: Height(0), time: genesis.time, hash };
        let (latest, latest_seen) = watch::channel(Arc::new(first));
        let (standing, standing_seen) = watch::channel(Arc::new(standing()));
        let (stopping, stopping_seen) = watch::channel(false);
        let (closing, closing_seen) = watch::channel(false);
        let (to_driver, admitted) = mpsc::channel(start.admitted_max);
        let shared = Arc::new(Shared {
            me: start.is_validator.then(|| address(1)),
            key: secret(101).public_key(),
            latest: latest_seen,
            standing: standing_seen,
            index: Arc::new(Index::in_memory(hash.as_bytes()).unwrap()),
            admission: Admission::new(to_driver).unwrap(),
            evidence: EvidenceBook::default(),
            started: SystemTime::now(),
            stopping: stopping_seen,
            genesis,
        });
        let api = Api::new(shared.clone(), start.limits, closing_seen);
        let hashes = vec![hash];
        let mut world = World { api, shared, ledger, standing, stopping, closing, admitted, latest, hashes };
        for _ in 0..start.pruned {
            world.execute(&[], false);
        }
        world
    }

    /// Height of the last block.
    pub(super) fn height(&self) -> u64 {
        self.ledger.height().0
    }

    /// Time of the last block.
    pub(super) fn time(&self) -> UnixMillis {
        self.shared.latest.borrow().time
    }

    /// Adds a block with these transactions, all in the lane of validator 1.
    pub(super) fn block(&mut self, transactions: &[v1::Transaction]) {
        self.execute(transactions, true);
    }

    /// Adds empty blocks.
    pub(super) fn blocks(&mut self, count: u64) {
        (0..count).for_each(|_| self.block(&[]));
    }

    /// Lets readers see the state of a block before the last, as they do between the index and the state.
    pub(super) fn look_back(&self, latest: Arc<Latest>) {
        self.latest.send_replace(latest);
    }

    fn execute(&mut self, transactions: &[v1::Transaction], is_indexed: bool) {
        let encoded: Vec<_> = transactions.iter().map(|transaction| transaction.encode_to_vec()).collect();
        let (before, executed) = (self.shared.latest.borrow().clone(), self.ledger.executed());
        let time = before.time.plus(10);
        let height = before.height.next();
        let lane =
            LaneInput { fee_recipient: address(1), transactions: encoded.iter().map(|bytes| &bytes[..]).collect() };
        let outcome = self.ledger.execute(&BlockInput { height, time, lanes: vec![lane] }).unwrap();
        let set = &self.shared.genesis.validators;
        let mut cut = vec![Tip::START; 4];
        cut[0] = Tip { seq: Seq(height.0), digest: Hash::of(b"batch") };
        let header = Header::new(HeaderFields {
            epoch: Epoch((height.0 - 1) / EPOCH_BLOCKS),
            height,
            view: View(height.0 + 1),
            parent: before.hash,
            proposer: 2,
            time,
            cut,
            executed,
            validators: set.hash(),
            next_validators: Hash::ZERO,
        });
        let part = |signer| CertificateSignature { signer, highest_view: View(0), signature: Signature([7; 64]) };
        let commit = Certificate {
            kind: VoteKind::Commit,
            epoch: header.epoch,
            view: header.view,
            block: header.hash(),
            signatures: [0, 1, 3].map(part).to_vec(),
            highest: None,
        };
        let indexed = outcome.transactions.iter().map(|executed| {
            let body = executed.transaction.body();
            let recipients = body.operations.iter().map(|operation| operation.recipient());
            let accounts: BTreeSet<_> = recipients.chain([body.sender]).map(|account| account.0).collect();
            IndexedTransaction {
                id: executed.receipt.tx_id.0,
                receipt: executed.receipt.encode(),
                bytes: executed.transaction.bytes().to_vec(),
                accounts: accounts.into_iter().collect(),
            }
        });
        let block = IndexedBlock {
            height: height.0,
            hash: header.hash().0,
            header: header.bytes().to_vec(),
            // Every third block is made final by a later one's certificate.
            commit: (height.0 % 3 != 0).then(|| commit.encode()),
            transactions: indexed.collect(),
            batches: vec![],
        };
        let executed: Vec<_> = outcome.transactions.iter().map(|executed| executed.receipt.tx_id).collect();
        let discarded: Vec<_> = outcome.discarded.iter().map(|(id, _)| *id).collect();
        if is_indexed {
            self.shared.index.add(vec![block]).unwrap();
        }
        let hash = header.hash();
        self.hashes.push(hash);
        self.latest.send_replace(Arc::new(Latest { ledger: self.ledger.clone(), height, time, hash }));
        self.shared.admission.settle(&executed, &discarded, time);
    }

    /// A body that transfers 1 to account 6, good for a minute.
    pub(super) fn body(&self, sender: u8, nonce: u64) -> v1::TransactionBody {
        self.body_of(sender, nonce, vec![transfer(address(6), 1)])
    }

    pub(super) fn body_of(&self, sender: u8, nonce: u64, operations: Vec<v1::Operation>) -> v1::TransactionBody {
        v1::TransactionBody {
            chain_id: self.shared.genesis.chain.id.clone(),
            sender: address(sender).to_string(),
            nonce,
            expire_time: Some(super::super::render::timestamp(local_time().plus(60_000))),
            max_fee: 1000,
            memo: String::new(),
            operations,
        }
    }

    pub(super) fn sign(&self, sender: u8, body: &v1::TransactionBody) -> v1::Transaction {
        self.sign_bytes(sender, &body.encode_to_vec())
    }

    pub(super) fn sign_bytes(&self, sender: u8, body: &[u8]) -> v1::Transaction {
        let bytes = sign(&secret(sender), &self.shared.genesis.chain.genesis_hash, body);
        v1::Transaction::decode(&bytes[..]).unwrap()
    }

    /// A signed transfer.
    pub(super) fn transaction(&self, sender: u8, nonce: u64) -> v1::Transaction {
        self.sign(sender, &self.body(sender, nonce))
    }

    pub(super) fn id(&self, transaction: &v1::Transaction) -> String {
        signed_bytes(&self.shared.genesis.chain.genesis_hash, &transaction.body).hash().to_string()
    }

    /// Changes where agreement stands.
    pub(super) fn stand(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(|standing| change(Arc::make_mut(standing)));
    }
}

pub(super) fn transfer(recipient: Address, amount: u64) -> v1::Operation {
    let transfer = v1::Transfer { recipient: recipient.to_string(), amount };
    v1::Operation { operation: Some(Operation::Transfer(transfer)) }
}

pub(super) fn create(new_account: Address, opening_balance: u64) -> v1::Operation {
    let create = v1::CreateAccount { new_account: new_account.to_string(), opening_balance };
    v1::Operation { operation: Some(Operation::CreateAccount(create)) }
}

fn standing() -> Standing {
    let peer = |seed: u8| PeerStanding {
        address: address(seed),
        key: secret(seed + 100).public_key(),
        endpoint: format!("10.0.0.{seed}:7000"),
        connected: seed != 4,
        final_height: Height(u64::from(seed)),
    };
    Standing {
        status: Agreement {
            epoch: Epoch(0),
            view: View(1),
            leader: address(1),
            final_height: Height(0),
            final_hash: Hash::ZERO,
            final_time: UnixMillis(0),
            executed: Height(0),
            highest_seen: Height(0),
            voting: true,
            waiting_bytes: 0,
        },
        peers: (2..=4).map(peer).collect(),
        rejected: BTreeMap::from([("stale".to_owned(), 3)]),
        observer_reason: String::new(),
    }
}

/// The answer of a direct call.
pub(super) async fn ok<R>(call: impl Future<Output = Result<Response<R>, Status>>) -> R {
    match call.await {
        Ok(response) => response.into_inner(),
        Err(status) => panic!("{status:?}"),
    }
}

/// A refusal as code, reason and metadata ("key=value", sorted).
pub(super) fn shown(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("every refusal has ErrorInfo");
    assert_eq!(info.domain, "tally.v1");
    assert!(!status.message().is_empty());
    let mut metadata: Vec<_> = info.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    metadata.sort();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    metadata.extend(violations.iter().map(|violation| format!("bad={}", violation.field)));
    metadata.extend(details.retry_info().map(|_| "retry".to_owned()));
    [format!("{:?} {}", status.code(), info.reason), metadata.join(" ")].join(" ").trim_end().to_owned()
}

/// The refusal of a direct call, as [`shown`].
pub(super) async fn refused<R>(call: impl Future<Output = Result<Response<R>, Status>>) -> String {
    match call.await {
        Ok(_) => panic!("was not refused"),
        Err(status) => shown(&status),
    }
}

pub(super) fn request<T>(message: T) -> Request<T> {
    Request::new(message)
}

/// Waits until `condition` holds, for ten seconds at most.
pub(super) async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited for ten seconds");
        tokio::task::yield_now().await;
    }
}
