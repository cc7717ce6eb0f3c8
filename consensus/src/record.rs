//! What a machine writes to its journal, and reads back after a restart.
//!
//! A record is a kind byte and bytes of a fixed layout, integers big-endian; messages inside are those of the wire.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use tally_types::{
    Address, Batch, Certificate, Epoch, Hash, Header, Height, PublicKey, Signature, Stake, Validator, ValidatorSet,
    View, header::Executed,
};
use thiserror::Error;

/// One thing to remember.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A certificate that was taken in: of entry, of a prepared or a final block.
    Certificate(Arc<Certificate>),
    /// A header.
    Header(Header),
    /// A batch accepted into its lane, with the producer's signature.
    Accepted(Batch, Signature),
    /// A batch of this replica's own lane: before it is signed.
    Sealed(Batch),
    /// A batch kept by digest because a prepared or final block orders it.
    Stored(Batch),
    /// PROPOSAL was, or may have been, sent; its header is a record of its own.
    Proposed {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
        /// Header hash.
        block: Hash,
        /// J.
        justification: Option<Arc<Certificate>>,
    },
    /// PREPARE was, or may have been, sent; its header is a record of its own.
    Prepared {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
        /// Header hash.
        block: Hash,
    },
    /// VIEW-CHANGE was, or may have been, sent; h is the view of the certificate, or 0.
    ViewChanged {
        /// Epoch.
        epoch: Epoch,
        /// View.
        view: View,
        /// Certificate of h.
        highest: Option<Arc<Certificate>>,
    },
    /// This replica signs nothing before an epoch (none: not yet known). Rule R3.
    Observing(Option<Epoch>),
    /// A block was executed.
    Executed(Executed),
    /// The validators of an epoch, learnt by execution.
    Validators(Epoch, ValidatorSet),
    /// One start of the process; HAVE counters begin above all earlier ones.
    Incarnation(u64),
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("journal record of kind {kind}: {problem}")]
pub struct RecordError {
    /// Its kind.
    pub kind: u8,
    /// What is wrong.
    pub problem: &'static str,
}

/// A journal that leads nowhere: what stands in it can only follow from something that is missing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "the journal speaks of epoch {found} where epoch {expected} has not ended: a part of it is missing; restore this home, or \
     start it with --restored and an empty journal folder"
)]
pub struct ReplayError {
    /// Epoch replay stands in.
    pub expected: Epoch,
    /// Epoch of the record.
    pub found: Epoch,
}

impl Record {
    /// Whether a vote depends on it: such records are written twice. Rule R2. Batches and execution results can be had
    /// again from peers or by executing.
    pub fn vital(&self) -> bool {
        !matches!(self, Record::Accepted(..) | Record::Stored(_) | Record::Executed(_))
    }

    /// Its kind byte.
    pub fn kind(&self) -> u8 {
        match self {
            Record::Certificate(_) => 1,
            Record::Header(_) => 2,
            Record::Accepted(..) => 3,
            Record::Sealed(_) => 4,
            Record::Stored(_) => 5,
            Record::Proposed { .. } => 6,
            Record::Prepared { .. } => 7,
            Record::ViewChanged { .. } => 8,
            Record::Observing(_) => 9,
            Record::Executed(_) => 10,
            Record::Validators(..) => 11,
            Record::Incarnation(_) => 12,
        }
    }

    /// Its bytes, without the kind.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Record::Certificate(certificate) => return certificate.encode().into(),
            Record::Header(header) => return header.bytes().clone(),
            Record::Accepted(batch, signature) => {
                bytes.reserve(signature.0.len().saturating_add(batch.bytes().len()));
                bytes.put_slice(&signature.0);
                bytes.put_slice(batch.bytes());
            }
            Record::Sealed(batch) | Record::Stored(batch) => return batch.bytes().clone(),
            Record::Proposed { epoch, view, block, justification } => {
                put_numbers(&mut bytes, &[epoch.0, view.0]);
                bytes.put_slice(&block.0);
                bytes.put_slice(&encode_optional(justification));
            }
            Record::Prepared { epoch, view, block } => {
                put_numbers(&mut bytes, &[epoch.0, view.0]);
                bytes.put_slice(&block.0);
            }
            Record::ViewChanged { epoch, view, highest } => {
                put_numbers(&mut bytes, &[epoch.0, view.0]);
                bytes.put_slice(&encode_optional(highest));
            }
            Record::Observing(epoch) => {
                // One more than the epoch; 0: not yet known.
                put_numbers(&mut bytes, &[epoch.map_or(0, |epoch| epoch.next().0)]);
            }
            Record::Executed(executed) => {
                put_numbers(&mut bytes, &[executed.height.0]);
                bytes.put_slice(&executed.state_root.0);
                bytes.put_slice(&executed.receipts_root.0);
            }
            Record::Validators(epoch, set) => {
                put_numbers(&mut bytes, &[epoch.0]);
                for member in set.members() {
                    bytes.put_slice(&member.address.0);
                    bytes.put_slice(&member.key.0);
                    put_numbers(&mut bytes, &[member.stake.0]);
                }
            }
            Record::Incarnation(number) => put_numbers(&mut bytes, &[*number]),
        }
        bytes.freeze()
    }

    /// Reads what [`Record::encode`] wrote.
    pub fn parse(kind: u8, bytes: &[u8]) -> Result<Record, RecordError> {
        let wrong = |problem| RecordError { kind, problem };
        let mut fields = Fields { kind, rest: bytes };
        let certificate = |bytes: &[u8]| {
            Certificate::parse(bytes).map(Arc::new).map_err(|error| RecordError { kind, problem: error.0 })
        };
        let optional = |bytes: &[u8]| if bytes.is_empty() { Ok(None) } else { certificate(bytes).map(Some) };
        let batch = |bytes: &[u8]| Batch::parse(bytes).map_err(|error| wrong(error.0));
        let record = match kind {
            1 => Record::Certificate(certificate(fields.all())?),
            2 => Record::Header(Header::parse(fields.all()).map_err(|error| wrong(error.0))?),
            3 => {
                let signature = Signature(fields.array()?);
                Record::Accepted(batch(fields.all())?, signature)
            }
            4 => Record::Sealed(batch(fields.all())?),
            5 => Record::Stored(batch(fields.all())?),
            6 => Record::Proposed {
                epoch: Epoch(fields.number()?),
                view: View(fields.number()?),
                block: Hash(fields.array()?),
                justification: optional(fields.all())?,
            },
            7 => Record::Prepared {
                epoch: Epoch(fields.number()?),
                view: View(fields.number()?),
                block: Hash(fields.array()?),
            },
            8 => Record::ViewChanged {
                epoch: Epoch(fields.number()?),
                view: View(fields.number()?),
                highest: optional(fields.all())?,
            },
            9 => Record::Observing(fields.number()?.checked_sub(1).map(Epoch)),
            10 => Record::Executed(Executed {
                height: Height(fields.number()?),
                state_root: Hash(fields.array()?),
                receipts_root: Hash(fields.array()?),
            }),
            11 => {
                let epoch = Epoch(fields.number()?);
                let mut members = Vec::new();
                while !fields.rest.is_empty() {
                    members.push(Validator {
                        address: Address(fields.array()?),
                        key: PublicKey(fields.array()?),
                        stake: Stake(fields.number()?),
                    });
                }
                Record::Validators(epoch, ValidatorSet::new(members).map_err(|_| wrong("is no validator set"))?)
            }
            12 => Record::Incarnation(fields.number()?),
            _ => return Err(wrong("is of a kind this version does not know")),
        };
        match fields.rest.is_empty() {
            true => Ok(record),
            false => Err(wrong("has bytes left over")),
        }
    }
}

fn put_numbers(bytes: &mut BytesMut, numbers: &[u64]) {
    for number in numbers {
        bytes.put_u64(*number);
    }
}

fn encode_optional(certificate: &Option<Arc<Certificate>>) -> Vec<u8> {
    certificate.as_ref().map(|certificate| certificate.encode()).unwrap_or_default()
}

struct Fields<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let short = RecordError { kind: self.kind, problem: "is too short" };
        let (taken, rest) = self.rest.split_at_checked(N).ok_or(short)?;
        self.rest = rest;
        taken.try_into().map_err(|_| short)
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_be_bytes)
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}
