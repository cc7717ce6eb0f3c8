//! Things that must happen sometimes: a suite that never sees them tests less than it seems to.

use crate::byzantine::Kind;

macro_rules! marks {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Something the standard campaign must hit.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mark {
            pub const ALL: &'static [Mark] = &[$(Mark::$name,)+];
        }
    };
}

marks! {
    /// COMMIT for a view that was left, the first time: its PrepareQC or its payload came late. Rule P3.
    LateCommit,
    /// A view-change certificate that carries the certificate of a view before the last.
    TcWithOlderCertificate,
    /// A view-change certificate of signers none of whom saw a PrepareQC.
    TcWithoutCertificate,
    /// A proposal justified by a view-change certificate was prepared.
    PreparedOnTc,
    /// A proposal justified by a CommitQC inside its epoch.
    CommitJustifies,
    /// The epoch's last block proposed again. Rule P5.
    LastBlockAgain,
    /// A new epoch was entered.
    EpochEntered,
    /// A batch that came on request, alone or with its block, was kept.
    BatchFetched,
    /// A header came on request. Rule S0.
    HeaderFetched,
    /// A range of final blocks was taken in. Rule S2.
    RangeFetched,
    /// A range of final blocks whose last ones came without payload.
    BareRangeFetched,
    /// A block became final by the certificate of a descendant only.
    FinalByDescendant,
    /// A proposal was sent again. Rule V3.
    ProposalAgain,
    /// A VIEW-CHANGE in a turn in which a proposal arrived: most are invalid, or the second.
    ProposalGivenUp,
    /// A block above the execution window: lanes stand still. Rule P2.6.
    WindowClosed,
    /// A proposal from ahead of the local clock had to wait.
    TimeWaited,
    /// Transactions of a batch that lapsed with its epoch were sealed anew.
    SealedAnew,
    /// A peer spoke of an epoch unknown to the receiver.
    HeardAhead,
    /// A peer spoke of an epoch that is over for the receiver.
    HeardBehind,
    /// A node started from its journal in a view it had signed in.
    Restarted,
    /// A node started from a state snapshot.
    SnapshotStart,
    /// A state snapshot could not be written, or not to its end.
    SnapshotNotWritten,
    /// A damaged state snapshot was passed over.
    SnapshotSkipped,
    /// The power failed in the middle of a write.
    CutWhileWriting,
    /// The power failed while a node was starting.
    CutWhileStarting,
    /// A node was killed and lost nothing.
    Killed,
    /// All nodes were down at once, four or more.
    Blackout,
    /// The journal's torn tail was cut off.
    TailCut,
    /// Damage in the journal was repaired.
    JournalRepaired,
    /// A damaged journal refused the start.
    JournalRefused,
    /// A sync failed, and the node stopped.
    SyncFailed,
    /// A disk was full, and the node stopped.
    DiskFull,
    /// A validator without its journal follows as an observer.
    Observing,
    /// One that observed votes again. Rule R3.
    VotesAgain,
    /// A partition into parts that talk to themselves only.
    SymmetricPartition,
    /// A partition in which some hear whom they cannot answer.
    AsymmetricPartition,
    /// A ring: everybody talks to two neighbours only.
    RingPartition,
    /// A transaction was refused at admission.
    Refused,
    /// A transaction was taken by two nodes.
    SentTwice,
    /// Two transactions with one nonce were taken, mostly by two nodes.
    DoubleSpend,
    /// A node had no room for more transactions.
    NoRoom,
    /// An executed transaction failed for what became of its recipient, and paid its fee.
    FailedWithFee,
    /// An executed transaction failed because another had spent what it needed, and paid its fee.
    OverdraftFailed,
    /// A transaction was ordered and left no trace.
    Discarded,
    /// A message whose certificate or signature does not hold.
    ForgedDropped,
    /// A vote of a view too far ahead. Rule V5.
    FarViewDropped,
    /// A batch that does not follow its lane's tip.
    GapDropped,
    /// A batch with transactions that nobody signed.
    BadTransactionsDropped,
    /// A justification that does not fit its view.
    NotLeaderDropped,
    /// A leader named other roots: an alarm, never a vote.
    RootsAlarm,
    /// Evidence.
    DoubleProposal,
    /// Evidence.
    DoublePrepare,
    /// Evidence.
    DoubleCommit,
    /// Evidence.
    DoubleViewChange,
    /// Evidence.
    HiddenCommit,
    /// Evidence.
    DoubleBatch,
}

/// How often each was hit, and how often each kind of liar lied.
#[derive(Clone, Debug)]
pub struct Marks {
    hits: Vec<u64>,
    lies: Vec<u64>,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks { hits: vec![0; Mark::ALL.len()], lies: vec![0; Kind::ALL.len()] }
    }
}

impl Marks {
    pub fn hit(&mut self, mark: Mark) {
        self.hits[mark as usize] += 1;
    }

    /// A liar of this kind did what its machine would not do.
    pub fn note_lie(&mut self, kind: Kind) {
        self.lies[kind as usize] += 1;
    }

    pub fn lies(&self, kind: Kind) -> u64 {
        self.lies[kind as usize]
    }

    pub fn add(&mut self, other: &Marks) {
        for (sum, more) in self.hits.iter_mut().zip(&other.hits).chain(self.lies.iter_mut().zip(&other.lies)) {
            *sum += more;
        }
    }

    /// Every mark and every kind of liar, with its number.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let hits = Mark::ALL.iter().map(|mark| (format!("{mark:?}"), self.hits[*mark as usize]));
        hits.chain(Kind::ALL.iter().map(|kind| (format!("lies of {kind:?}"), self.lies(*kind)))).collect()
    }
}
