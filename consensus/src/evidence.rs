//! Pairs of signed messages that convict their signer.
//!
//! The same bytes twice, another justification or another attached certificate is no offence.

use std::fmt;

use tally_types::{Address, Epoch, Signature, SignedBytes};

/// What two messages contradict each other in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidenceKind {
    /// Two proposals of one view with different blocks.
    DoubleProposal,
    /// Two PREPAREs of one view for different blocks.
    DoublePrepare,
    /// Two COMMITs of one view for different blocks.
    DoubleCommit,
    /// Two VIEW-CHANGEs of one view with different h.
    DoubleViewChange,
    /// COMMIT(v) and VIEW-CHANGE(u, h) with u ≥ v and h < v.
    HiddenCommit,
    /// Two batches for one place of a lane.
    DoubleBatch,
}

impl EvidenceKind {
    /// Every kind.
    pub const ALL: [EvidenceKind; 6] = [
        EvidenceKind::DoubleProposal,
        EvidenceKind::DoublePrepare,
        EvidenceKind::DoubleCommit,
        EvidenceKind::DoubleViewChange,
        EvidenceKind::HiddenCommit,
        EvidenceKind::DoubleBatch,
    ];
}

/// A conviction.
#[derive(Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Who.
    pub validator: Address,
    /// What.
    pub kind: EvidenceKind,
    /// Epoch of both messages.
    pub epoch: Epoch,
    /// View of the first message; of batches: the sequence.
    pub number: u64,
    /// First signed bytes and their signature.
    pub first: (SignedBytes, Signature),
    /// Second signed bytes and their signature.
    pub second: (SignedBytes, Signature),
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by {:?} at {}/{}", self.kind, self.validator, self.epoch, self.number)
    }
}
