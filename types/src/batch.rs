//! Batches: transactions of one lane, chained by digest.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use tally_proto::consensus as proto;

use crate::{
    address::Address,
    hash::{Hash, TAG_BATCH},
    have::Tip,
    number::{Epoch, Seq},
    signature::{Signature, SignedBytes},
    vote::{MessageError, signature_of},
};

/// Most bytes of a serialized batch.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Most transactions of a batch.
pub const BATCH_TRANSACTIONS_MAX: usize = 1024;

/// One batch, with the bytes it arrived as, and their digest.
#[derive(Clone)]
pub struct Batch(Arc<Inner>);

struct Inner {
    epoch: Epoch,
    lane: u32,
    seq: Seq,
    parent: Hash,
    transactions: Vec<Bytes>,
    bytes: Bytes,
    digest: Hash,
}

impl Batch {
    /// A new batch that follows `parent` in `lane`.
    pub fn new(epoch: Epoch, lane: u32, parent: Tip, transactions: Vec<Bytes>) -> Batch {
        let seq = parent.seq.next();
        let message = proto::Batch {
            epoch: epoch.0,
            lane,
            seq: seq.0,
            parent_digest: match seq.0 {
                1 => Bytes::new(),
                _ => crate::header::bytes_of(&parent.digest),
            },
            transactions,
        };
        let bytes = Bytes::from(message.encode_to_vec());
        let digest = Hash::tagged(TAG_BATCH, &[&bytes]);
        let transactions = message.transactions;
        Batch(Arc::new(Inner { epoch, lane, seq, parent: parent.digest, transactions, bytes, digest }))
    }

    /// Reads a batch; only the canonical encoding within the size limits is accepted. Whether the transactions in it are
    /// well formed and signed is not asked here.
    pub fn parse(bytes: &[u8]) -> Result<Batch, MessageError> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(MessageError("batch: larger than 256 KiB"));
        }
        // A copy of its own: a slice of the receive buffer would keep the whole buffer alive.
        let owned = Bytes::copy_from_slice(bytes);
        let message = proto::Batch::decode(owned).map_err(|_| MessageError("batch: not protobuf"))?;
        if message.transactions.is_empty() || message.transactions.len() > BATCH_TRANSACTIONS_MAX {
            return Err(MessageError("batch: not 1 to 1024 transactions"));
        }
        let parent_seq = Seq(message.seq).previous().ok_or(MessageError("batch: sequence 0"))?;
        let digest = match (parent_seq.0, message.parent_digest.len()) {
            (0, 0) => Hash::ZERO,
            (0, _) => return Err(MessageError("batch: the first of a lane has a parent")),
            _ => Hash::from_slice(&message.parent_digest).ok_or(MessageError("batch: parent digest not 32 bytes"))?,
        };
        let parent = Tip { seq: parent_seq, digest };
        let batch = Batch::new(Epoch(message.epoch), message.lane, parent, message.transactions);
        if batch.bytes() != bytes {
            return Err(MessageError("batch: not the canonical encoding"));
        }
        Ok(batch)
    }

    /// Epoch of its lane.
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// Place of its producer.
    pub fn lane(&self) -> u32 {
        self.0.lane
    }

    /// Its place in the lane.
    pub fn seq(&self) -> Seq {
        self.0.seq
    }

    /// Digest of the batch before; [`Hash::ZERO`] for the first.
    pub fn parent(&self) -> Hash {
        self.0.parent
    }

    /// The batch before.
    pub fn parent_tip(&self) -> Tip {
        Tip { seq: self.0.seq.previous().unwrap_or_default(), digest: self.0.parent }
    }

    /// This batch.
    pub fn tip(&self) -> Tip {
        Tip { seq: self.0.seq, digest: self.0.digest }
    }

    /// Serialized transactions, in order.
    pub fn transactions(&self) -> &[Bytes] {
        &self.0.transactions
    }

    /// The serialized batch.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// SHA-256 under `tally.batch.v1` of the bytes.
    pub fn digest(&self) -> Hash {
        self.0.digest
    }

    /// What its producer signs.
    pub fn signed_bytes(&self, genesis: &Hash, producer: &Address) -> SignedBytes {
        signed_bytes(genesis, self.epoch(), producer, &self.tip())
    }
}

/// What the producer of a batch signs: epoch, lane (the producer's address), seq, digest.
pub fn signed_bytes(genesis: &Hash, epoch: Epoch, producer: &Address, batch: &Tip) -> SignedBytes {
    let (epoch, seq) = (epoch.to_be_bytes(), batch.seq.to_be_bytes());
    let parts: [&[u8]; 4] = [&epoch, producer.as_bytes(), &seq, batch.digest.as_bytes()];
    SignedBytes::new(TAG_BATCH, genesis, &parts)
}

impl PartialEq for Batch {
    fn eq(&self, other: &Batch) -> bool {
        self.digest() == other.digest()
    }
}

impl Eq for Batch {}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:?} x{}", self.epoch(), self.lane(), self.tip(), self.transactions().len())
    }
}

/// A batch with its producer's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBatch {
    /// The batch.
    pub batch: Batch,
    /// The producer's signature over [`Batch::signed_bytes`].
    pub signature: Signature,
}

impl SignedBatch {
    /// The message that travels.
    pub fn to_proto(&self) -> proto::SignedBatch {
        proto::SignedBatch { batch: self.batch.bytes().clone(), signature: self.signature.0.to_vec().into() }
    }

    /// Reads what travelled.
    pub fn from_proto(message: &proto::SignedBatch) -> Result<SignedBatch, MessageError> {
        Ok(SignedBatch { batch: Batch::parse(&message.batch)?, signature: signature_of(&message.signature)? })
    }
}
