//! PREPARE, COMMIT and VIEW-CHANGE: one layout, one encoder, one verifier.

use std::sync::Arc;

use tally_proto::consensus as proto;
use thiserror::Error;

use crate::{
    certificate::Certificate,
    hash::{Hash, TAG_COMMIT, TAG_PREPARE, TAG_VIEW_CHANGE},
    header::bytes_of,
    number::{Epoch, View},
    signature::{Signature, SignedBytes},
};

/// Why the bytes of a peer are not a message. The text names message and fault.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct MessageError(pub &'static str);

/// What a vote says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VoteKind {
    /// Accepts the proposal of a view.
    Prepare,
    /// Holds a prepare certificate of a view.
    Commit,
    /// Gives up on a view.
    ViewChange,
}

/// What one signature of a vote covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ballot {
    /// PREPARE(v, B).
    Prepare(View, Hash),
    /// COMMIT(v, B).
    Commit(View, Hash),
    /// VIEW-CHANGE(v, h).
    ViewChange(View, View),
}

impl Ballot {
    /// The bytes a validator signs: tag, genesis, epoch, view, then the block hash or h.
    pub fn signed_bytes(&self, genesis: &Hash, epoch: Epoch) -> SignedBytes {
        let epoch = epoch.to_be_bytes();
        match self {
            Ballot::Prepare(view, block) => {
                SignedBytes::new(TAG_PREPARE, genesis, &[&epoch, &view.to_be_bytes(), block.as_bytes()])
            }
            Ballot::Commit(view, block) => {
                SignedBytes::new(TAG_COMMIT, genesis, &[&epoch, &view.to_be_bytes(), block.as_bytes()])
            }
            Ballot::ViewChange(view, highest) => {
                SignedBytes::new(TAG_VIEW_CHANGE, genesis, &[&epoch, &view.to_be_bytes(), &highest.to_be_bytes()])
            }
        }
    }

    /// Its kind.
    pub fn kind(&self) -> VoteKind {
        match self {
            Ballot::Prepare(..) => VoteKind::Prepare,
            Ballot::Commit(..) => VoteKind::Commit,
            Ballot::ViewChange(..) => VoteKind::ViewChange,
        }
    }

    /// The view it speaks of.
    pub fn view(&self) -> View {
        match self {
            Ballot::Prepare(view, _) | Ballot::Commit(view, _) | Ballot::ViewChange(view, _) => *view,
        }
    }
}

/// A PREPARE or a COMMIT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vote {
    /// [`VoteKind::Prepare`] or [`VoteKind::Commit`].
    pub kind: VoteKind,
    /// Epoch.
    pub epoch: Epoch,
    /// View.
    pub view: View,
    /// Header hash voted for.
    pub block: Hash,
    /// Place of the signer.
    pub signer: u32,
    /// Its signature.
    pub signature: Signature,
}

impl Vote {
    /// What its signature covers.
    pub fn ballot(&self) -> Ballot {
        match self.kind {
            VoteKind::Prepare => Ballot::Prepare(self.view, self.block),
            VoteKind::Commit | VoteKind::ViewChange => Ballot::Commit(self.view, self.block),
        }
    }

    /// The message that travels.
    pub fn to_proto(&self) -> proto::Vote {
        proto::Vote {
            kind: kind_to_proto(self.kind).into(),
            epoch: self.epoch.0,
            view: self.view.0,
            block_hash: bytes_of(&self.block),
            signer: self.signer,
            signature: self.signature.0.to_vec().into(),
        }
    }

    /// Reads what travelled.
    pub fn from_proto(message: &proto::Vote) -> Result<Vote, MessageError> {
        let kind = kind_from_proto(message.kind)?;
        if kind == VoteKind::ViewChange {
            return Err(MessageError("vote: neither PREPARE nor COMMIT"));
        }
        Ok(Vote {
            kind,
            epoch: Epoch(message.epoch),
            view: View(message.view),
            block: Hash::from_slice(&message.block_hash).ok_or(MessageError("vote: block hash not 32 bytes"))?,
            signer: message.signer,
            signature: signature_of(&message.signature)?,
        })
    }
}

/// A VIEW-CHANGE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewChange {
    /// Epoch.
    pub epoch: Epoch,
    /// The view given up.
    pub view: View,
    /// h: the highest view in which the signer holds a prepare certificate; 0: none.
    pub highest_view: View,
    /// That certificate (or a commit certificate of that view).
    pub highest: Option<Arc<Certificate>>,
    /// Place of the signer.
    pub signer: u32,
    /// Its signature.
    pub signature: Signature,
}

impl ViewChange {
    /// What its signature covers.
    pub fn ballot(&self) -> Ballot {
        Ballot::ViewChange(self.view, self.highest_view)
    }

    /// The message that travels.
    pub fn to_proto(&self) -> proto::ViewChange {
        proto::ViewChange {
            epoch: self.epoch.0,
            view: self.view.0,
            highest_view: self.highest_view.0,
            highest: self.highest.as_ref().map(|certificate| certificate.to_proto()),
            signer: self.signer,
            signature: self.signature.0.to_vec().into(),
        }
    }

    /// Reads what travelled.
    pub fn from_proto(message: &proto::ViewChange) -> Result<ViewChange, MessageError> {
        Ok(ViewChange {
            epoch: Epoch(message.epoch),
            view: View(message.view),
            highest_view: View(message.highest_view),
            highest: message.highest.as_ref().map(Certificate::from_proto).transpose()?.map(Arc::new),
            signer: message.signer,
            signature: signature_of(&message.signature)?,
        })
    }
}

pub(crate) fn kind_to_proto(kind: VoteKind) -> proto::VoteKind {
    match kind {
        VoteKind::Prepare => proto::VoteKind::Prepare,
        VoteKind::Commit => proto::VoteKind::Commit,
        VoteKind::ViewChange => proto::VoteKind::ViewChange,
    }
}

pub(crate) fn kind_from_proto(kind: i32) -> Result<VoteKind, MessageError> {
    match proto::VoteKind::try_from(kind) {
        Ok(proto::VoteKind::Prepare) => Ok(VoteKind::Prepare),
        Ok(proto::VoteKind::Commit) => Ok(VoteKind::Commit),
        Ok(proto::VoteKind::ViewChange) => Ok(VoteKind::ViewChange),
        Ok(proto::VoteKind::Unspecified) | Err(_) => Err(MessageError("vote: unknown kind")),
    }
}

pub(crate) fn signature_of(bytes: &[u8]) -> Result<Signature, MessageError> {
    Signature::from_slice(bytes).ok_or(MessageError("a signature does not have 64 bytes"))
}
