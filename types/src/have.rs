//! Tips of lanes, and HAVE: the acknowledgement of batches.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;
use tally_proto::consensus as proto;

use crate::{
    hash::{Hash, TAG_HAVE},
    header::bytes_of,
    number::{Epoch, Height, Seq, View},
    signature::{Signature, SignedBytes},
    vote::MessageError,
};

/// A batch named by its place in a lane and its digest. `seq` 0 with a zero digest: the lane's start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tip {
    /// Its sequence.
    pub seq: Seq,
    /// Its digest.
    pub digest: Hash,
}

impl Tip {
    /// Where every lane starts.
    pub const START: Tip = Tip { seq: Seq(0), digest: Hash::ZERO };

    pub(crate) fn to_proto(self) -> proto::Tip {
        let digest = if self.seq == Seq::ZERO { Default::default() } else { bytes_of(&self.digest) };
        proto::Tip { seq: self.seq.0, digest }
    }

    pub(crate) fn from_proto(tip: &proto::Tip) -> Result<Tip, MessageError> {
        match (tip.seq, tip.digest.is_empty()) {
            (0, true) => Ok(Tip::START),
            (0, false) | (_, true) => Err(MessageError("tip: sequence and digest do not go together")),
            (seq, false) => {
                let digest = Hash::from_slice(&tip.digest).ok_or(MessageError("tip: the digest is not 32 bytes"))?;
                Ok(Tip { seq: Seq(seq), digest })
            }
        }
    }
}

impl fmt::Debug for Tip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", self.seq, self.digest)
    }
}

/// What a validator holds durably, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HaveVector {
    /// Epoch of the lanes.
    pub epoch: Epoch,
    /// Rises with every HAVE of its signer.
    pub counter: u64,
    /// Per lane, in validator order, the tip held durably.
    pub tips: Vec<Tip>,
    /// Height up to which the signer has executed.
    pub executed: Height,
    /// View the signer is in.
    pub view: View,
    /// Height up to which the signer knows blocks to be final.
    pub final_height: Height,
}

/// A signed [`HaveVector`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Have {
    /// The content.
    pub vector: HaveVector,
    /// The content as it was signed.
    bytes: Bytes,
    /// SHA-256 under `tally.have.v1` of the content.
    digest: Hash,
    /// Place of the signer.
    pub signer: u32,
    /// Its signature over [`Have::signed_bytes`].
    pub signature: Signature,
}

impl HaveVector {
    /// The serialized vector.
    pub fn encode(&self) -> Vec<u8> {
        proto::HaveVector {
            epoch: self.epoch.0,
            counter: self.counter,
            tips: self.tips.iter().copied().map(Tip::to_proto).collect(),
            executed_height: self.executed.0,
            view: self.view.0,
            final_height: self.final_height.0,
        }
        .encode_to_vec()
    }

    /// Signed by the one at place `signer`: `sign` is asked for the signature over [`Have::signed_bytes`].
    pub fn signed(self, genesis: &Hash, signer: u32, sign: impl FnOnce(&SignedBytes) -> Signature) -> Have {
        let bytes = self.encode().into();
        let mut have = Have::new(self, bytes, signer, Signature([0; 64]));
        have.signature = sign(&have.signed_bytes(genesis));
        have
    }
}

impl Have {
    fn new(vector: HaveVector, bytes: Bytes, signer: u32, signature: Signature) -> Have {
        let digest = Hash::tagged(TAG_HAVE, &[&bytes]);
        Have { vector, bytes, digest, signer, signature }
    }

    /// What its signer signs: epoch, counter, digest of the content.
    pub fn signed_bytes(&self, genesis: &Hash) -> SignedBytes {
        let (epoch, counter) = (self.vector.epoch.to_be_bytes(), self.vector.counter.to_be_bytes());
        SignedBytes::new(TAG_HAVE, genesis, &[&epoch, &counter, self.digest.as_bytes()])
    }

    /// The message that travels.
    pub fn to_proto(&self) -> proto::Have {
        proto::Have { vector: self.bytes.clone(), signer: self.signer, signature: self.signature.0.to_vec().into() }
    }

    /// Reads what travelled.
    pub fn from_proto(message: &proto::Have) -> Result<Have, MessageError> {
        let vector =
            proto::HaveVector::decode(message.vector.clone()).map_err(|_| MessageError("have: not protobuf"))?;
        let vector = HaveVector {
            epoch: Epoch(vector.epoch),
            counter: vector.counter,
            tips: vector.tips.iter().map(Tip::from_proto).collect::<Result<_, _>>()?,
            executed: Height(vector.executed_height),
            view: View(vector.view),
            final_height: Height(vector.final_height),
        };
        // Kept by itself, not as part of the frame it came in.
        let bytes = Bytes::copy_from_slice(&message.vector);
        Ok(Have::new(vector, bytes, message.signer, crate::vote::signature_of(&message.signature)?))
    }
}
