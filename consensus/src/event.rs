//! What goes into the machine and what comes out.

use std::sync::Arc;

use tally_types::{
    Address, Batch, Certificate, Epoch, Hash, Have, Header, Height, Proposal, SignedBatch, Tip, UnixMillis,
    ValidatorSet, View, ViewChange, Vote, header::Executed,
};

use crate::{evidence::Evidence, record::Record, unsigned::Unsigned, verify::Sets};

/// The time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; only differences count.
    pub mono_ms: u64,
    /// The wall clock.
    pub unix: UnixMillis,
}

/// A message between validators whose signatures and certificates hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// PROPOSAL, signed by the leader of its view.
    Proposal(Arc<Proposal>),
    /// PREPARE or COMMIT.
    Vote(Vote),
    /// VIEW-CHANGE.
    ViewChange(ViewChange),
    /// A batch whose transactions are well formed and signed.
    Batch(SignedBatch),
    /// HAVE.
    Have(Arc<Have>),
    /// Certificates that move a replica which stayed behind.
    Certificates {
        /// What let the sender into its view.
        entry: Option<Arc<Certificate>>,
        /// The sender's highest commit certificate.
        highest_commit: Option<Arc<Certificate>>,
    },
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer's message arrived. Its epoch is one of those last given by [`Action::Sets`].
    Message {
        /// The validator on the other end of the stream.
        from: Address,
        /// The message.
        message: Message,
    },
    /// What [`Action::Sign`] asked for, signed.
    Own(Message),
    /// A peer speaks of an epoch whose validators are not known here: this replica is behind, or the peer lies.
    Ahead {
        /// The peer.
        from: Address,
    },
    /// A peer speaks of an epoch that is over here: it is behind.
    Behind {
        /// The peer.
        from: Address,
    },
    /// A stream to this validator came up: it may have missed anything.
    Connected(Address),
    /// Admitted client transactions, serialized.
    Transactions(Vec<bytes::Bytes>),
    /// Headers that were asked for; others are ignored.
    Headers(Vec<Header>),
    /// Batches that were asked for, their transactions well formed and signed; others are ignored.
    Batches(Vec<Batch>),
    /// A range of blocks that was asked for, its commit certificates verified.
    Blocks {
        /// Who gave it.
        from: Address,
        /// Rising heights.
        blocks: Vec<FetchedBlock>,
    },
    /// A block was executed.
    Executed {
        /// Height and roots.
        executed: Executed,
        /// Who votes by the state after it.
        validators: ValidatorSet,
    },
    /// A timer ran out, or a turn ends.
    Tick,
}

/// A block out of a range.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchedBlock {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub batches: Vec<Batch>,
    /// A commit certificate for this very block, if there is one.
    pub commit: Option<Arc<Certificate>>,
}

/// What to ask peers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// Headers by hash.
    Headers(Vec<Hash>),
    /// Batches: each tip with its ancestors down to, not including, the sequence beside it.
    Batches(Vec<(Tip, tally_types::Seq)>),
    /// Final blocks from a height on.
    Blocks {
        /// First height.
        from: Height,
        /// Last height; the answer may end earlier.
        to: Height,
    },
}

/// A final block to execute.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its header.
    pub header: Header,
    /// The commit certificate of this very block, if there is one; else that of a descendant made it final.
    pub commit: Option<Arc<Certificate>>,
    /// The validators of its epoch.
    pub validators: ValidatorSet,
    /// Per lane, in validator order, the batches it orders, rising.
    pub lanes: Vec<Vec<Batch>>,
}

/// Something an operator must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A leader, or a final block, names other roots than execution here led to.
    StateMismatch {
        /// Height of the roots.
        height: Height,
        /// Roots found here.
        here: Executed,
        /// Roots named.
        named: Executed,
    },
    /// A final block orders a batch that does not fit its lane: more than a third of the stake is faulty.
    PayloadMismatch {
        /// The block.
        height: Height,
    },
}

/// Why a message was dropped. Dropped messages are counted, not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// From nobody in the validator set.
    Stranger,
    /// Of an epoch that is over, or not begun.
    OtherEpoch,
    /// Of a view that is over.
    Old,
    /// Of a view too far ahead.
    FarView,
    /// A kind of vote that does not belong there.
    WrongKind,
    /// A proposal from a replica that does not lead its view, or whose justification does not fit.
    NotLeader,
    /// A batch that does not follow the lane's tip.
    Gap,
    /// A batch further ahead than the window.
    LaneWindow,
    /// A second batch for a place that is taken.
    DoubleBatch,
    /// A HAVE older than the last.
    OldHave,
    /// A HAVE or a header with another number of tips than there are lanes, or parts that do not fit together.
    Shape,
    /// Something nobody asked for.
    NotAsked,
    /// A certificate or signature that does not hold.
    Forged,
    /// A block that does not follow, or lacks a certificate or payload.
    BadBlocks,
}

/// What to do, in order. See the contract at the top of the crate.
#[derive(Clone, Debug)]
pub enum Action {
    /// Make durable before anything after it in this turn.
    Persist(Record),
    /// Sign, send to every other validator, hand back as [`Event::Own`].
    Sign(Unsigned),
    /// Send to every other validator.
    Broadcast(Message),
    /// Send to one validator.
    Send(Address, Message),
    /// Ask one validator.
    Ask(Address, Fetch),
    /// Execute, then report back with [`Event::Executed`]. Heights come in order, without gaps.
    Execute(Box<Order>),
    /// The epochs of which messages can be judged from now on.
    Sets(Sets),
    /// Keep for ever: somebody cheated.
    Evidence(Box<Evidence>),
    /// Wake an operator.
    Alarm(Alarm),
    /// A message was dropped.
    Dropped(Reject),
}

/// Where a machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Epoch.
    pub epoch: Epoch,
    /// View.
    pub view: View,
    /// Leader of that view.
    pub leader: Address,
    /// Highest final height.
    pub final_height: Height,
    /// Its header hash.
    pub final_hash: Hash,
    /// Its time.
    pub final_time: UnixMillis,
    /// Height up to which execution has reported back.
    pub executed: Height,
    /// Highest final height a weak quorum of the stake has claimed.
    pub highest_seen: Height,
    /// Whether it signs.
    pub voting: bool,
    /// Bytes of client transactions that wait for a batch.
    pub waiting_bytes: usize,
}

/// How many things of each kind a machine keeps. Every one has a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// PREPAREs, COMMITs and VIEW-CHANGEs. Rule V5.
    pub votes: usize,
    /// Headers that are not final.
    pub open_headers: usize,
    /// Batches, by digest.
    pub batches: usize,
    /// Batches that wait for the one before, in the lane with most of them.
    pub early_batches: usize,
    /// Questions to peers.
    pub requests: usize,
    /// Commit certificates below the floor whose blocks are not final here yet.
    pub lower_commits: usize,
    /// Blocks known to be whole.
    pub whole: usize,
    /// Final blocks that wait for their payload or for execution.
    pub unexecuted: usize,
    /// Blocks given out for execution whose batches are kept.
    pub unreleased: usize,
    /// Results of execution that headers may still name.
    pub results: usize,
}
