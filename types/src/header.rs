//! Block headers: all that validators vote on. A header's size depends on the number of validators, never on how many
//! transactions it orders.

use std::{fmt, ops::Deref, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use tally_proto::consensus as proto;

use crate::{
    hash::{Hash, TAG_HEADER},
    have::Tip,
    number::{Epoch, Height, UnixMillis, View},
    vote::MessageError,
};

/// The content of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// Epoch.
    pub epoch: Epoch,
    /// Height; genesis is 0.
    pub height: Height,
    /// View in which it was first proposed.
    pub view: View,
    /// Header hash of the block before; the genesis hash at height 1.
    pub parent: Hash,
    /// Place of the proposer.
    pub proposer: u32,
    /// The proposer's time, above the parent's.
    pub time: UnixMillis,
    /// Per lane, in validator order, the tip up to which it is ordered.
    pub cut: Vec<Tip>,
    /// Height the two roots speak of.
    pub executed: Executed,
    /// Hash of this epoch's validator set.
    pub validators: Hash,
    /// Hash of the next epoch's; [`Hash::ZERO`] while unknown.
    pub next_validators: Hash,
}

/// What execution up to a height led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Executed {
    /// The height.
    pub height: Height,
    /// Root of the state after it.
    pub state_root: Hash,
    /// Root of the receipts accumulator after it.
    pub receipts_root: Hash,
}

/// A header with the bytes it arrived as, and their hash.
#[derive(Clone)]
pub struct Header(Arc<Inner>);

struct Inner {
    fields: HeaderFields,
    bytes: Bytes,
    hash: Hash,
}

impl Header {
    /// A new header.
    pub fn new(fields: HeaderFields) -> Header {
        let bytes = Bytes::from(encode(&fields).encode_to_vec());
        let hash = Hash::tagged(TAG_HEADER, &[&bytes]);
        Header(Arc::new(Inner { fields, bytes, hash }))
    }

    /// Reads a header. Only one encoding is accepted, the canonical one, so a header that is accepted anywhere has no
    /// content that anybody overlooked.
    pub fn parse(bytes: &[u8]) -> Result<Header, MessageError> {
        let message = proto::Header::decode(bytes).map_err(|_| MessageError("header: not protobuf"))?;
        let header = Header::new(decode(&message)?);
        if header.bytes() != bytes {
            return Err(MessageError("header: not the canonical encoding"));
        }
        Ok(header)
    }

    /// SHA-256 under `tally.header.v1` of the bytes.
    pub fn hash(&self) -> Hash {
        self.0.hash
    }

    /// The serialized header.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The content.
    pub fn fields(&self) -> &HeaderFields {
        &self.0.fields
    }
}

impl Deref for Header {
    type Target = HeaderFields;

    fn deref(&self) -> &HeaderFields {
        &self.0.fields
    }
}

impl PartialEq for Header {
    fn eq(&self, other: &Header) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for Header {}

impl std::hash::Hash for Header {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash.hash(state);
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{} {:?}", self.epoch, self.view, self.height, self.hash())
    }
}

fn encode(fields: &HeaderFields) -> proto::Header {
    proto::Header {
        epoch: fields.epoch.0,
        height: fields.height.0,
        view: fields.view.0,
        parent_hash: bytes_of(&fields.parent),
        proposer: fields.proposer,
        time_ms: fields.time.0,
        cut: fields.cut.iter().copied().map(Tip::to_proto).collect(),
        executed_height: fields.executed.height.0,
        state_root: bytes_of(&fields.executed.state_root),
        receipts_root: bytes_of(&fields.executed.receipts_root),
        validator_set_hash: bytes_of(&fields.validators),
        next_validator_set_hash: match fields.next_validators.is_zero() {
            true => Bytes::new(),
            false => bytes_of(&fields.next_validators),
        },
    }
}

fn decode(message: &proto::Header) -> Result<HeaderFields, MessageError> {
    let hash = |bytes: &[u8]| Hash::from_slice(bytes).ok_or(MessageError("header: a hash does not have 32 bytes"));
    Ok(HeaderFields {
        epoch: Epoch(message.epoch),
        height: Height(message.height),
        view: View(message.view),
        parent: hash(&message.parent_hash)?,
        proposer: message.proposer,
        time: UnixMillis(message.time_ms),
        cut: message.cut.iter().map(Tip::from_proto).collect::<Result<_, _>>()?,
        executed: Executed {
            height: Height(message.executed_height),
            state_root: hash(&message.state_root)?,
            receipts_root: hash(&message.receipts_root)?,
        },
        validators: hash(&message.validator_set_hash)?,
        next_validators: match message.next_validator_set_hash.is_empty() {
            true => Hash::ZERO,
            false => hash(&message.next_validator_set_hash)?,
        },
    })
}

/// A hash as a protobuf `bytes` field.
pub(crate) fn bytes_of(hash: &Hash) -> Bytes {
    Bytes::copy_from_slice(&hash.0)
}
