//! Between validators: streams out, streams in, and questions.
//!
//! Every pair keeps two streams each way, one for votes and one for batches, each on a connection of its own, so that a
//! vote never waits behind a batch. Messages that carry no signature of their own travel in a signed envelope. A queue
//! that is full drops: whatever matters is sent again by the protocol.

mod ask;
mod codec;
mod dial;
mod serve;
#[cfg(test)]
mod tests;
pub mod wire;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use prost::Message as _;
use tally_consensus::{Event, Message, Sets};
use tally_proto::consensus as proto;
use tally_types::{Address, Batch, Hash, Header, Tip};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tonic::transport::{Channel, Endpoint};

use crate::{
    signatures::Signatures,
    signing::Signer,
    store::{index::Index, journal::JournalReader},
};
pub use dial::dial;
pub use serve::serve;

/// Votes and the like that wait for one peer.
const CONTROL_QUEUE: usize = 2048;
/// Batches that wait for one peer: 8 MiB.
const BULK_QUEUE: usize = 32;
/// Largest message between validators, bytes: a batch and its framing, or the certificates of 128 validators.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Questions for headers or batches to one peer open at once.
const QUESTIONS_PER_PEER_MAX: usize = 4;
/// Version of the contract between validators.
const PROTOCOL_VERSION: u32 = 1;

/// What reaches the driver from outside.
#[derive(Debug)]
pub enum Input {
    /// An event for the machine.
    Event(Event),
    /// A peer asks for headers.
    Headers(Vec<Hash>, oneshot::Sender<Vec<Header>>),
    /// A peer asks for batches.
    Batches(Vec<(Tip, tally_types::Seq)>, oneshot::Sender<Vec<Batch>>),
    /// A peer asks how far this node is.
    Status(oneshot::Sender<tally_consensus::Status>),
}

/// What all tasks between validators share.
pub struct Peers {
    genesis: Hash,
    signer: Signer,
    outbound: BTreeMap<Address, Outbound>,
    sets: RwLock<Arc<Sets>>,
    signatures: Arc<Signatures>,
    chain: tally_types::genesis::Chain,
    control: mpsc::Sender<Input>,
    bulk: mpsc::Sender<Input>,
    counter: AtomicU64,
    index: Arc<Index>,
    journal: JournalReader,
    stopping: watch::Receiver<bool>,
    /// Messages dropped before the machine saw them, by reason.
    pub rejected: Rejected,
}

/// Counters of dropped messages.
#[derive(Debug, Default)]
pub struct Rejected {
    /// No protobuf, or a field out of shape.
    pub malformed: AtomicU64,
    /// A signature or certificate does not hold.
    pub forged: AtomicU64,
    /// A transaction in a batch is malformed or not signed.
    pub bad_transactions: AtomicU64,
    /// A queue to a peer was full.
    pub queue_full: AtomicU64,
    /// Of an epoch that is over.
    pub old_epoch: AtomicU64,
}

/// The way to one peer.
#[derive(Debug)]
struct Outbound {
    endpoint: String,
    channel: Channel,
    control: mpsc::Sender<Queued>,
    bulk: mpsc::Sender<Queued>,
    connected: AtomicBool,
    questions: Arc<Semaphore>,
    /// For ranges of blocks: one at a time, their answers are large and may take minutes.
    range: Arc<Semaphore>,
}

/// A message that waits for its stream. It gets its envelope when it is sent: counters rise along a stream.
#[derive(Debug)]
struct Queued {
    since: Instant,
    message: Message,
}

/// The receiving ends of a peer's queues, for its dialling tasks.
pub struct Queues {
    peer: Address,
    control: mpsc::Receiver<Queued>,
    bulk: mpsc::Receiver<Queued>,
}

/// What [`Peers::new`] needs.
pub struct PeersConfig {
    /// The chain.
    pub chain: tally_types::genesis::Chain,
    /// This validator.
    pub signer: Signer,
    /// The others, and where they listen.
    pub endpoints: Vec<(Address, String)>,
    /// Shared signature checks.
    pub signatures: Arc<Signatures>,
    /// Votes and the like, to the driver.
    pub control: mpsc::Sender<Input>,
    /// Batches and ranges, to the driver.
    pub bulk: mpsc::Sender<Input>,
    /// For peers that ask for blocks.
    pub index: Arc<Index>,
    /// For peers that ask for blocks.
    pub journal: JournalReader,
    /// Turns true when the node shuts down.
    pub stopping: watch::Receiver<bool>,
    /// Above every counter of earlier runs.
    pub first_counter: u64,
}

impl Peers {
    /// The queues to all peers, and their other ends.
    pub fn new(config: PeersConfig) -> Result<(Arc<Peers>, Vec<Queues>), tonic::transport::Error> {
        let mut outbound = BTreeMap::new();
        let mut queues = Vec::new();
        for (peer, endpoint) in config.endpoints {
            let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
            let (bulk, bulk_queue) = mpsc::channel(BULK_QUEUE);
            let channel = dial::endpoint(&endpoint)?.connect_lazy();
            let questions = Arc::new(Semaphore::new(QUESTIONS_PER_PEER_MAX));
            let range = Arc::new(Semaphore::new(1));
            let connected = AtomicBool::new(false);
            outbound.insert(peer, Outbound { endpoint, channel, control, bulk, connected, questions, range });
            queues.push(Queues { peer, control: control_queue, bulk: bulk_queue });
        }
        let peers = Peers {
            genesis: config.chain.genesis_hash,
            signer: config.signer,
            outbound,
            sets: RwLock::default(),
            signatures: config.signatures,
            chain: config.chain,
            control: config.control,
            bulk: config.bulk,
            counter: AtomicU64::new(config.first_counter),
            index: config.index,
            journal: config.journal,
            stopping: config.stopping,
            rejected: Rejected::default(),
        };
        Ok((Arc::new(peers), queues))
    }

    /// The epochs whose messages can be judged from now on.
    pub fn set_sets(&self, sets: Sets) {
        *self.sets.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(sets);
    }

    fn sets(&self) -> Arc<Sets> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Queues a message for every peer.
    pub fn broadcast(&self, message: &Message) {
        for to in self.outbound.keys() {
            self.send(to, message);
        }
    }

    /// Queues a message for one peer; a full queue drops it.
    pub fn send(&self, to: &Address, message: &Message) {
        let Some(outbound) = self.outbound.get(to) else { return };
        let queue = if matches!(message, Message::Batch(_)) { &outbound.bulk } else { &outbound.control };
        let queued = Queued { since: Instant::now(), message: message.clone() };
        if queue.try_send(queued).is_err() {
            self.rejected.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Where a peer is reached, and whether the stream of votes to it is up.
    pub fn standing(&self, peer: &Address) -> (String, bool) {
        let outbound = self.outbound.get(peer);
        let standing = outbound.map(|one| (one.endpoint.clone(), one.connected.load(Ordering::Relaxed)));
        standing.unwrap_or_default()
    }

    fn next_counter(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    fn wrap(&self, to: &Address, message: &Message) -> proto::PeerMessage {
        let payload = wire::written(message);
        if let proto::peer_message::Payload::Certificates(content) = &payload {
            let content = content.clone();
            return self.enveloped(to, &content, payload);
        }
        proto::PeerMessage { payload: Some(payload), ..Default::default() }
    }

    fn hello(&self, to: &Address) -> proto::PeerMessage {
        let hello =
            proto::Hello { genesis_hash: Bytes::copy_from_slice(&self.genesis.0), protocol_version: PROTOCOL_VERSION };
        let content = Bytes::from(hello.encode_to_vec());
        let mut message = self.enveloped(to, &content, proto::peer_message::Payload::Hello(content.clone()));
        message.sender = Bytes::copy_from_slice(self.signer.address().as_bytes());
        message
    }

    fn enveloped(&self, to: &Address, content: &[u8], payload: proto::peer_message::Payload) -> proto::PeerMessage {
        let counter = self.next_counter();
        let signature = self.signer.envelope(to, counter, content);
        proto::PeerMessage {
            counter,
            signature: Bytes::copy_from_slice(&signature.0),
            payload: Some(payload),
            ..Default::default()
        }
    }
}

/// Parses an endpoint as configured.
pub fn check_endpoint(text: &str) -> Result<Endpoint, tonic::transport::Error> {
    dial::endpoint(text)
}
