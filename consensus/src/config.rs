//! What a machine is told at its start, and its bounds.

use tally_types::{Address, Epoch, Genesis, Hash, Height, Params, UnixMillis, ValidatorSet, header::Executed};

/// Whether this replica may sign. Rule R3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voting {
    /// It has its journal: it signs.
    Allowed,
    /// Its journal was lost or restored: it follows and signs nothing before this epoch; none: not yet known, because no
    /// quorum was heard so far.
    From(Option<Epoch>),
}

/// What the machine is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The validator this replica is; none: it only follows.
    pub me: Option<Address>,
    /// Hash of the genesis file.
    pub genesis_hash: Hash,
    /// Time of genesis.
    pub genesis_time: UnixMillis,
    /// State and receipts roots of genesis.
    pub genesis_executed: Executed,
    /// Validators of epochs 0 and 1.
    pub genesis_validators: ValidatorSet,
    /// Parameters fixed at genesis.
    pub params: Params,
    /// Longest wait from a transaction's arrival to its batch, while batches of this replica are on their way,
    /// milliseconds.
    pub batch_delay_ms: u64,
    /// A leader that has work proposes no earlier than this after its parent's time, milliseconds: under load a block then
    /// orders many batches, and its votes and certificates are paid for once.
    pub block_interval_ms: u64,
    /// A HAVE is sent at least this often, milliseconds.
    pub heartbeat_ms: u64,
    /// First interval after which what had no effect is sent or asked for again, milliseconds; it doubles up to eight
    /// times this.
    pub resend_ms: u64,
    /// Bytes of client transactions that wait for a place in this replica's lane.
    pub waiting_bytes_max: usize,
}

impl Config {
    /// The defaults for a replica on the chain of `genesis`.
    pub fn new(genesis: &Genesis, me: Option<Address>, genesis_executed: Executed) -> Config {
        Config {
            me,
            genesis_hash: genesis.chain.genesis_hash,
            genesis_time: genesis.time,
            genesis_executed,
            genesis_validators: genesis.validators.clone(),
            params: genesis.params.clone(),
            batch_delay_ms: 20,
            block_interval_ms: 50,
            heartbeat_ms: 1000,
            resend_ms: genesis.params.view_timeout_ms.checked_div(2).unwrap_or_default().max(5),
            waiting_bytes_max: 4 * 1024 * 1024,
        }
    }

    /// The last height of `epoch`: L_e. Epoch 0 starts at height 1.
    pub fn last_height(&self, epoch: Epoch) -> Height {
        Height(epoch.next().0.saturating_mul(self.params.epoch_blocks))
    }
}

/// Batches a lane may run ahead of what is ordered. Rule D5.
pub(crate) const LANE_WINDOW: u64 = 64;
/// Batches of one lane that one block may order. Rule P2.3.
pub(crate) const CUT_ADVANCE_MAX: u64 = 32;
/// Batches that one block may order in all: at 256 KiB each, a payload every peer can fetch whole. Rule P2.3.
pub const BLOCK_BATCHES_MAX: u64 = 128;
/// Commit certificates below the floor kept until their blocks are final.
pub(crate) const LOWER_COMMITS_MAX: usize = 8;
/// Blocks given to execution and not reported back.
pub(crate) const EXECUTE_AHEAD: u64 = 64;
/// Headers kept that are not final yet: more than an epoch has blocks, see [`Chain::keep_only`](crate::chain::Chain::keep_only).
pub(crate) const OPEN_HEADERS_MAX: usize = 1024;
const _: () = assert!(tally_types::genesis::EPOCH_BLOCKS_MAX < OPEN_HEADERS_MAX as u64);
/// Final headers kept for proposals, catch-up and peers.
pub(crate) const FINAL_HEADERS_KEPT: u64 = 1024;
/// Batches of a lane kept that arrived before the one they follow.
pub(crate) const EARLY_BATCHES_MAX: usize = 8;
/// Announcements kept per validator and lane.
pub(crate) const ANNOUNCEMENTS_KEPT: usize = 8;
/// Batches sent again to one validator per resend interval.
pub(crate) const RESTREAM_BATCHES: u64 = 8;
/// Open requests for headers and for batches, each.
pub(crate) const WANTS_MAX: usize = 256;
/// Blocks asked for at once.
pub(crate) const FETCH_BLOCKS: u64 = 64;
/// Views without a message after which a validator counts as silent. Rule V2.
pub(crate) const INACTIVE_VIEWS: u64 = 4;
/// Doublings of the view timeout. Rule V3.
pub(crate) const TIMEOUT_DOUBLINGS_MAX: u64 = 5;
