//! The bounds of the client API, each with what happens there.

use std::time::Duration;

use crate::calls::Bounds;

/// Most bytes of a request; above: REQUEST_TOO_LARGE. Only SubmitTransactions comes near it.
pub(super) const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Most transactions of one SubmitTransactions; above: FIELD_INVALID.
pub(super) const SUBMIT_TRANSACTIONS_MAX: usize = 1000;
/// Bytes of a page, or of a message of a stream of transactions, that are not exceeded once it holds an item.
pub(super) const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of one block in a response; above: FIELD_INVALID of `view`, because blocks do not come in parts.
pub(super) const BLOCK_MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of a chunk of the genesis file.
pub(super) const GENESIS_CHUNK_BYTES: usize = 1024 * 1024;
/// Blocks looked at for one page of transactions; above: a shorter page with a token to go on.
pub(super) const BLOCKS_SCANNED_MAX: u64 = 2000;
/// Rows of an account's history looked through for the transaction that used a nonce; above: it is not named.
pub(super) const NONCE_HOLDER_ROWS_MAX: usize = 256;
/// Leaders told at a time; above: coerced.
pub(super) const LEADER_SLOTS_MAX: u32 = 1000;
/// Leaders told when the request does not say how many.
pub(super) const LEADER_SLOTS_DEFAULT: u32 = 20;
/// Blocks a node may be behind before it refuses transactions with NODE_SYNCING.
pub(super) const SUBMIT_BEHIND_BLOCKS_MAX: u64 = 32;
/// Blocks a node may be behind before it says that it is catching up.
pub(super) const SYNCED_BEHIND_BLOCKS_MAX: u64 = 2;
/// Idle intervals without a block after which a node says that it is stalled.
pub(super) const STALLED_IDLE_INTERVALS: u64 = 10;
/// Most characters of an error's message: it travels in a header.
pub(super) const MESSAGE_CHARS_MAX: usize = 300;
/// Most characters of a value in an error's metadata.
pub(super) const METADATA_CHARS_MAX: usize = 128;

/// Bounds that depend on the machine, or that a test wants smaller.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at a time; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Calls open at a time on one connection; HTTP/2 makes the client hold back further ones.
    pub calls_per_connection_max: u32,
    /// Streams open at a time on this node; above: TOO_MANY_STREAMS. Each may hold two messages.
    pub streams_max: usize,
    /// Calls that wait for something (WaitTransaction, GetAccount with `min_height`); above: TOO_MANY_STREAMS.
    pub waits_max: usize,
    /// Reads of the index at a time; further ones wait their turn.
    pub reads_max: usize,
    /// How long a connection may take to say that it speaks HTTP/2; after: closed.
    pub first_bytes: Duration,
    /// How often an idle connection is asked whether it lives.
    pub keepalive_interval: Duration,
    /// How long it may take to answer; after: closed.
    pub keepalive_timeout: Duration,
    /// Age at which a connection is told to open a new one; its open calls go on.
    pub connection_age_max: Duration,
    /// How long a request may take to arrive whole; after: REQUEST_INCOMPLETE. A stream of questions (reflection) is one.
    pub arrival: Duration,
    /// Bytes of requests that are arriving, over all connections; above: TOO_MANY_STREAMS to the one on its way for longest.
    pub arriving_bytes_max: usize,
    /// Bytes of answers that are leaving, over all connections; above: the connection of the one on its way for longest is closed.
    pub leaving_bytes_max: usize,
    /// How long a stream's reader may leave a message untaken; after: SLOW_CONSUMER.
    pub slow_reader: Duration,
    /// How long an answer, or the end of a stream, may lie untaken; after: the connection is closed.
    pub untaken: Duration,
    /// Silence after which a stream says how far it is. The contract promises 10 s.
    pub heartbeat: Duration,
    /// WaitTransaction without a timeout.
    pub wait_default: Duration,
    /// Longest WaitTransaction; above: coerced.
    pub wait_max: Duration,
    /// How long GetAccount waits for `min_height`; after: NODE_BEHIND.
    pub min_height_wait: Duration,
    /// States kept for listings of accounts; above: the one unused for longest goes.
    pub snapshots_max: usize,
    /// How long a state is kept after its last page; after: PAGE_TOKEN_INVALID.
    pub snapshot_kept: Duration,
    /// How often health is looked at.
    pub health_interval: Duration,
    /// How long open calls may take to end when the node stops; after: they are cut off.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 1024,
            calls_per_connection_max: 256,
            streams_max: 256,
            waits_max: 16_384,
            reads_max: 32,
            first_bytes: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            connection_age_max: Duration::from_secs(2 * 60 * 60),
            arrival: Duration::from_secs(30),
            arriving_bytes_max: 64 * 1024 * 1024,
            leaving_bytes_max: 256 * 1024 * 1024,
            slow_reader: Duration::from_secs(10),
            untaken: Duration::from_secs(20),
            heartbeat: Duration::from_secs(5),
            wait_default: Duration::from_secs(10),
            wait_max: Duration::from_secs(60),
            min_height_wait: Duration::from_secs(2),
            snapshots_max: 16,
            snapshot_kept: Duration::from_secs(60),
            health_interval: Duration::from_millis(250),
            drain: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// What holds for every call.
    pub(crate) fn of_calls(&self) -> Bounds {
        Bounds {
            arrival: self.arrival,
            arriving_bytes_max: self.arriving_bytes_max,
            untaken: self.untaken,
            leaving_bytes_max: self.leaving_bytes_max,
            endless: None,
        }
    }
}
