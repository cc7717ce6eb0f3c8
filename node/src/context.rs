//! What the parts of a node share: read by the client API, written by driver and executor.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use tally_consensus::Status;
use tally_ledger::Ledger;
use tally_types::{Address, Genesis, Hash, Height, PublicKey, UnixMillis};
use tokio::sync::watch;

use crate::{admission::Admission, evidence::EvidenceBook, store::index::Index};

/// Handles to everything a client may ask about.
#[derive(Debug)]
pub struct Shared {
    /// What the chain started from.
    pub genesis: Arc<Genesis>,
    /// Operator account of this node, if genesis names its key as a validator's.
    pub me: Option<Address>,
    /// Consensus key of this node.
    pub key: PublicKey,
    /// The state after the last block that was executed and indexed.
    pub latest: watch::Receiver<Arc<Latest>>,
    /// Where agreement stands.
    pub standing: watch::Receiver<Arc<Standing>>,
    /// Blocks, receipts, histories.
    pub index: Arc<Index>,
    /// Transactions on their way.
    pub admission: Admission,
    /// Who was caught cheating.
    pub evidence: EvidenceBook,
    /// When the process started.
    pub started: SystemTime,
    /// Turns true when the node shuts down: streams end then.
    pub stopping: watch::Receiver<bool>,
}

/// The state after a block.
#[derive(Clone, Debug)]
pub struct Latest {
    /// A snapshot; reading it never waits for execution.
    pub ledger: Ledger,
    /// Height of the block.
    pub height: Height,
    /// Its time.
    pub time: UnixMillis,
    /// Its header hash.
    pub hash: Hash,
}

/// Where agreement stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What the machine says of itself.
    pub status: Status,
    /// The other validators.
    pub peers: Vec<PeerStanding>,
    /// Peer messages dropped since the start, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Why it does not sign although it is a validator; empty when it does.
    pub observer_reason: String,
}

/// What is known of another validator.
#[derive(Clone, Debug)]
pub struct PeerStanding {
    /// Its operator account.
    pub address: Address,
    /// Its consensus key.
    pub key: PublicKey,
    /// Where it is reached, as configured.
    pub endpoint: String,
    /// Whether a stream to it is up.
    pub connected: bool,
    /// Final height it last claimed.
    pub final_height: Height,
}
