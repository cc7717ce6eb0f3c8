//! What is stored, as the messages of the contract.

use prost::Message as _;
use tally_ledger::Receipt;
use tally_proto::v1;
use tally_types::{Certificate, Genesis, Header, UnixMillis, VerifiedTransaction};

use super::{errors::Refusal, limits::BLOCK_MESSAGE_BYTES_MAX};
use crate::store::index::{FoundTransaction, Index, IndexedBlock, PAGE_MAX};

/// A time of the chain.
pub(super) fn timestamp(time: UnixMillis) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.0 % 1000).unwrap_or_default().saturating_mul(1_000_000);
    prost_types::Timestamp { seconds: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX), nanos }
}

/// A span of milliseconds.
pub(super) fn duration(millis: u64) -> prost_types::Duration {
    let nanos = i32::try_from(millis % 1000).unwrap_or_default().saturating_mul(1_000_000);
    prost_types::Duration { seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX), nanos }
}

/// The member of an enumeration that a request field names; 0 is its "unspecified".
pub(super) fn choice<T: TryFrom<i32>>(field: &'static str, value: i32) -> Result<T, Refusal> {
    T::try_from(value).map_err(|_| Refusal::field(field, format!("has value {value}, which it does not know")))
}

/// Whether FULL is asked for.
pub(super) fn is_full_transaction(view: i32) -> Result<bool, Refusal> {
    Ok(choice::<v1::TransactionView>("view", view)? == v1::TransactionView::Full)
}

/// Whether FULL is asked for.
pub(super) fn is_full_block(view: i32) -> Result<bool, Refusal> {
    Ok(choice::<v1::BlockView>("view", view)? == v1::BlockView::Full)
}

/// Whether the oldest come first.
pub(super) fn is_oldest_first(order: i32) -> Result<bool, Refusal> {
    Ok(choice::<v1::Order>("order", order)? == v1::Order::OldestFirst)
}

/// Turns what the index holds into messages. Remembers the block it saw last: neighbours often share it.
pub(super) struct Renderer<'a> {
    index: &'a Index,
    genesis: &'a Genesis,
    is_full: bool,
    seen: Option<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    height: u64,
    hash: String,
    time: UnixMillis,
}

impl<'a> Renderer<'a> {
    /// With the bytes that prove it, if `is_full`.
    pub(super) fn new(index: &'a Index, genesis: &'a Genesis, is_full: bool) -> Renderer<'a> {
        Renderer { index, genesis, is_full, seen: None }
    }

    /// A committed transaction.
    pub(super) fn record(&mut self, found: &FoundTransaction) -> Result<v1::TransactionRecord, Refusal> {
        let receipt = Receipt::decode(&found.receipt).map_err(|error| damaged(&error))?;
        let block = self.block_of(found.place.height)?;
        let mut message = v1::Receipt {
            result: v1::ExecutionResult::Ok.into(),
            fee: receipt.fee.0,
            height: receipt.height.0,
            block_hash: block.hash.clone(),
            index: receipt.index,
            block_time: Some(timestamp(block.time)),
            ..Default::default()
        };
        if let Err((operation, failure)) = &receipt.result {
            message.result = v1::ExecutionResult::Failed.into();
            message.failed_operation = *operation;
            message.failure_reason = failure.reason().to_owned();
        }
        Ok(v1::TransactionRecord {
            tx_id: receipt.tx_id.to_string(),
            state: v1::TransactionState::Finalized.into(),
            receipt: Some(message),
            ..self.written(&found.bytes)?
        })
    }

    /// A transaction on its way.
    pub(super) fn pending(&self, transaction: &VerifiedTransaction) -> Result<v1::TransactionRecord, Refusal> {
        Ok(v1::TransactionRecord {
            tx_id: transaction.id().to_string(),
            state: v1::TransactionState::Pending.into(),
            ..self.written(transaction.bytes())?
        })
    }

    /// A block.
    pub(super) fn block(&mut self, block: &IndexedBlock) -> Result<v1::Block, Refusal> {
        let header = Header::parse(&block.header).map_err(|error| damaged(&error))?;
        let hash = hex::encode(block.hash);
        self.seen = Some(Seen { height: block.height, hash: hash.clone(), time: header.time });
        let mut message = v1::Block { header: Some(self.header(&header)), block_hash: hash, ..Default::default() };
        if self.is_full {
            message.header_bytes.clone_from(&block.header);
            message.certificate = block.commit.as_deref().map(|bytes| self.certificate(bytes)).transpose()?;
        }
        let mut bytes = message.encoded_len();
        let mut first = 0u32;
        loop {
            let page = self.index.transactions_of_block(block.height, first, PAGE_MAX)?;
            for found in &page {
                let id = hex::encode(found.id);
                bytes = bytes.saturating_add(id.len() + 2);
                message.tx_ids.push(id);
                if self.is_full {
                    let record = self.record(found)?;
                    bytes = bytes.saturating_add(record.encoded_len() + 4);
                    message.transactions.push(record);
                }
                if bytes > BLOCK_MESSAGE_BYTES_MAX {
                    return Err(too_large(block.height));
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE_MAX => first = last.place.index.saturating_add(1),
                _ => return Ok(message),
            }
        }
    }

    fn block_of(&mut self, height: u64) -> Result<&Seen, Refusal> {
        if self.seen.as_ref().is_none_or(|seen| seen.height != height) {
            let block = self.index.block(height)?;
            let block =
                block.ok_or_else(|| damaged(&format_args!("a transaction of block {height}, which is gone")))?;
            let header = Header::parse(&block.header).map_err(|error| damaged(&error))?;
            self.seen = Some(Seen { height, hash: hex::encode(block.hash), time: header.time });
        }
        self.seen.as_ref().ok_or_else(|| damaged(&"nothing was read"))
    }

    /// What the bytes of a transaction say.
    fn written(&self, bytes: &[u8]) -> Result<v1::TransactionRecord, Refusal> {
        let transaction = v1::Transaction::decode(bytes).map_err(|error| damaged(&error))?;
        let body = v1::TransactionBody::decode(&transaction.body[..]).map_err(|error| damaged(&error))?;
        let transaction = self.is_full.then_some(transaction);
        Ok(v1::TransactionRecord { body: Some(body), transaction, ..Default::default() })
    }

    fn header(&self, header: &Header) -> v1::BlockHeader {
        let tip = |(place, tip): (u32, &tally_types::Tip)| v1::LaneTip {
            producer: self.name_of(place),
            sequence: tip.seq.0,
            digest: if tip.seq.0 == 0 { String::new() } else { tip.digest.to_string() },
        };
        let next = header.next_validators;
        v1::BlockHeader {
            chain_id: self.genesis.chain.id.clone(),
            height: header.height.0,
            view: header.view.0,
            parent_hash: header.parent.to_string(),
            block_time: Some(timestamp(header.time)),
            proposer: self.name_of(header.proposer),
            executed_height: header.executed.height.0,
            state_root: header.executed.state_root.to_string(),
            receipts_root: header.executed.receipts_root.to_string(),
            validator_set_hash: header.validators.to_string(),
            next_validator_set_hash: if next.is_zero() { String::new() } else { next.to_string() },
            epoch: header.epoch.0,
            cut: (0..).zip(&header.cut).map(tip).collect(),
        }
    }

    fn certificate(&self, bytes: &[u8]) -> Result<v1::CommitCertificate, Refusal> {
        let certificate = Certificate::parse(bytes).map_err(|error| damaged(&error))?;
        let signature = |part: &tally_types::certificate::CertificateSignature| v1::CommitSignature {
            validator: self.name_of(part.signer),
            signature: part.signature.0.to_vec(),
        };
        Ok(v1::CommitCertificate {
            epoch: certificate.epoch.0,
            view: certificate.view.0,
            block_hash: certificate.block.to_string(),
            signatures: certificate.signatures.iter().map(signature).collect(),
        })
    }

    /// Operator account of the validator at `place`. Sets do not change yet: all epochs have that of genesis.
    fn name_of(&self, place: u32) -> String {
        self.genesis.validators.get(place).map(|member| member.address.to_string()).unwrap_or_default()
    }
}

fn damaged(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::internal("the index holds what cannot be read", error)
}

fn too_large(height: u64) -> Refusal {
    let problem = format!(
        "makes block {height} larger than {} MiB; list its transactions with ListTransactions, min_height and max_height {height}",
        BLOCK_MESSAGE_BYTES_MAX >> 20
    );
    Refusal::field("view", problem).with("height", height)
}
