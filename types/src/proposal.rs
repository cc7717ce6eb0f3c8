//! A leader's PROPOSAL.

use std::sync::Arc;

use bytes::Bytes;
use tally_proto::consensus as proto;

use crate::{
    certificate::Certificate,
    hash::{Hash, TAG_PROPOSAL},
    header::Header,
    number::{Epoch, View},
    signature::{Signature, SignedBytes},
    vote::{MessageError, signature_of},
};

/// What a leader proposes, and why that is the parent it must take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Epoch.
    pub epoch: Epoch,
    /// View.
    pub view: View,
    /// The block.
    pub header: Header,
    /// J: dictates the parent. None: the epoch's start in epoch 0.
    pub justification: Option<Arc<Certificate>>,
    /// J as it travels: what the signature covers is its SHA-256.
    pub justification_bytes: Bytes,
    /// The leader's signature.
    pub signature: Signature,
    /// Highest commit certificate the leader holds; not covered by the signature, for it proves itself.
    pub highest_commit: Option<Arc<Certificate>>,
}

/// What a leader signs: epoch, view, header hash, SHA-256 of the serialized J.
pub fn signed_bytes(genesis: &Hash, epoch: Epoch, view: View, header: &Hash, justification: &[u8]) -> SignedBytes {
    let justification = Hash::of(justification);
    let (epoch, view) = (epoch.to_be_bytes(), view.to_be_bytes());
    let parts: [&[u8]; 4] = [&epoch, &view, header.as_bytes(), justification.as_bytes()];
    SignedBytes::new(TAG_PROPOSAL, genesis, &parts)
}

impl Proposal {
    /// What its leader signed.
    pub fn signed_bytes(&self, genesis: &Hash) -> SignedBytes {
        signed_bytes(genesis, self.epoch, self.view, &self.header.hash(), &self.justification_bytes)
    }

    /// The message that travels.
    pub fn to_proto(&self) -> proto::Proposal {
        proto::Proposal {
            epoch: self.epoch.0,
            view: self.view.0,
            header: self.header.bytes().clone(),
            justification: self.justification_bytes.clone(),
            signature: self.signature.0.to_vec().into(),
            highest_commit: self.highest_commit.as_ref().map(|certificate| certificate.to_proto()),
        }
    }

    /// Reads what travelled.
    pub fn from_proto(message: &proto::Proposal) -> Result<Proposal, MessageError> {
        let justification = match message.justification.is_empty() {
            true => None,
            false => Some(Arc::new(Certificate::parse(&message.justification)?)),
        };
        Ok(Proposal {
            epoch: Epoch(message.epoch),
            view: View(message.view),
            header: Header::parse(&message.header)?,
            justification,
            justification_bytes: Bytes::copy_from_slice(&message.justification),
            signature: signature_of(&message.signature)?,
            highest_commit: message.highest_commit.as_ref().map(Certificate::from_proto).transpose()?.map(Arc::new),
        })
    }
}
