//! A transaction before it travels: unsigned or signed, in memory or in a file that goes from machine to machine.
//!
//! A file is JSON of one form for both:
//!
//! ```json
//! {
//!   "format": "tally-transaction 1",
//!   "chainId": "local-1a2b3c4d",
//!   "genesisHash": "1a2b3c4d…",
//!   "body": "base64 of the serialized tally.v1.TransactionBody",
//!   "signatures": [{ "signature": "base64 of 64 bytes" }]
//! }
//! ```
//!
//! `signatures` is empty before signing and has one entry after. An [`Envelope`] that exists is well-formed: its body was
//! read as strictly as nodes read it, belongs to the chain that the file names, and its signature, if there is one, holds.
//! Whether that chain is the one the person means is for the caller to check, against a pinned network.

use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tally_proto::v1;
use tally_types::{
    Hash, SecretKey, Signature, SignedTransaction,
    body::Body,
    genesis::Chain,
    transaction::{self, TransactionError},
};
use thiserror::Error;

/// Most bytes of a file: a body of 8 KiB in base64, and room.
pub const FILE_BYTES_MAX: usize = 16 * 1024;

const FORMAT: &str = "tally-transaction 1";

/// A well-formed transaction of the chain it names, signed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    chain: Chain,
    bytes: Vec<u8>,
    body: Body,
    signature: Option<Signature>,
}

/// Why there is no envelope.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Too long to be one.
    #[error("has more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// No JSON, a missing field or an unknown one.
    #[error("is no transaction file: {0}")]
    Json(String),
    /// Another format.
    #[error("has the format {0:?}, this wallet reads {FORMAT:?} only")]
    Format(String),
    /// A field that cannot be.
    #[error("is damaged: {0} {1}")]
    Field(&'static str, &'static str),
    /// The body or the signature is wrong.
    #[error("holds no valid transaction: {0}")]
    Transaction(#[from] TransactionError),
    /// It is signed, and must not be.
    #[error("is signed already")]
    Signed,
    /// It is not signed, and must be.
    #[error("is not signed yet")]
    Unsigned,
    /// The key at hand is another than the sender's.
    #[error("must be signed by {sender}, which is not the key {key}")]
    OtherKey {
        /// Who has to sign.
        sender: String,
        /// Which key was to.
        key: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    format: String,
    chain_id: String,
    genesis_hash: String,
    body: String,
    signatures: Vec<FileSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSignature {
    signature: String,
}

impl Envelope {
    /// An unsigned transaction of `chain`.
    pub fn unsigned(chain: &Chain, body: &v1::TransactionBody) -> Result<Envelope, EnvelopeError> {
        Envelope::new(chain.clone(), body.encode_to_vec(), None)
    }

    fn new(chain: Chain, bytes: Vec<u8>, signature: Option<Signature>) -> Result<Envelope, EnvelopeError> {
        let body = Body::parse(&bytes).map_err(TransactionError::from)?;
        if body.chain_id != chain.id {
            let (expected, got) = (chain.id, body.chain_id);
            return Err(TransactionError::OtherChain { expected, got }.into());
        }
        let envelope = Envelope { chain, bytes, body, signature };
        if let Some(transaction) = envelope.transaction() {
            // Read back as strictly as a node will: what breaks a rule is not even sent.
            SignedTransaction::parse(&transaction.encode_to_vec(), &envelope.chain)?.verify()?;
        }
        Ok(envelope)
    }

    /// The same, signed. Refused when `secret` is not the sender's.
    pub fn sign(self, secret: &SecretKey) -> Result<Envelope, EnvelopeError> {
        let signature = secret.sign(&transaction::signed_bytes(&self.chain.genesis_hash, &self.bytes));
        Envelope::new(self.chain, self.bytes, Some(signature))
    }

    /// The chain it is for.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What is, or will be, signed.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The same, as messages have it.
    pub fn message(&self) -> v1::TransactionBody {
        v1::TransactionBody::decode(&self.bytes[..]).expect("these bytes were just read")
    }

    /// The id, which does not depend on the signature.
    pub fn id(&self) -> Hash {
        transaction::signed_bytes(&self.chain.genesis_hash, &self.bytes).hash()
    }

    /// Last moment at which it may run.
    pub fn expire_time(&self) -> SystemTime {
        // Times that no clock can show are those that no chain allows.
        let since = Duration::from_millis(self.body.expire_time.0);
        SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Whether it is signed.
    pub fn is_signed(&self) -> bool {
        self.signature.is_some()
    }

    /// What travels, once it is signed.
    pub fn transaction(&self) -> Option<v1::Transaction> {
        let signature = self.signature?;
        let signature = v1::Signature { signer: String::new(), signature: signature.0.to_vec() };
        Some(v1::Transaction { body: self.bytes.clone(), signatures: vec![signature] })
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let signatures = self.signature.iter().map(|signature| BASE64_STANDARD.encode(signature.0));
        let file = File {
            format: FORMAT.into(),
            chain_id: self.chain.id.clone(),
            genesis_hash: self.chain.genesis_hash.to_string(),
            body: BASE64_STANDARD.encode(&self.bytes),
            signatures: signatures.map(|signature| FileSignature { signature }).collect(),
        };
        let text = serde_json::to_string_pretty(&file).expect("strings are JSON");
        format!("{text}\n")
    }

    /// Reads a file's text.
    pub fn parse(bytes: &[u8]) -> Result<Envelope, EnvelopeError> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge);
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| EnvelopeError::Json(error.to_string()))?;
        if file.format != FORMAT {
            return Err(EnvelopeError::Format(file.format.chars().take(40).collect()));
        }
        let genesis_hash = Hash::from_hex(&file.genesis_hash)
            .ok_or(EnvelopeError::Field("genesisHash", "is not 64 lower-case hex digits"))?;
        let start = format!("{:.8}", genesis_hash.to_string());
        if file.chain_id.rsplit_once('-').is_none_or(|(_, end)| end != start) {
            return Err(EnvelopeError::Field("chainId", "does not end in the first 8 digits of genesisHash"));
        }
        let body = BASE64_STANDARD.decode(&file.body).map_err(|_| EnvelopeError::Field("body", "is not base64"))?;
        let signature = match file.signatures.as_slice() {
            [] => None,
            [one] => {
                let bytes = BASE64_STANDARD.decode(&one.signature).ok();
                let signature = bytes.as_deref().and_then(Signature::from_slice);
                Some(signature.ok_or(EnvelopeError::Field("signatures", "is not base64 of 64 bytes"))?)
            }
            _ => return Err(EnvelopeError::Field("signatures", "has more than one signature")),
        };
        Envelope::new(Chain { id: file.chain_id, genesis_hash }, body, signature)
    }
}

#[cfg(test)]
mod tests {
    use tally_types::Address;

    use super::*;

    fn secret() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    fn unsigned() -> Envelope {
        let genesis_hash = Hash::of(b"genesis");
        let chain = Chain { id: format!("local-{:.8}", genesis_hash.to_string()), genesis_hash };
        let transfer = v1::Transfer { recipient: Address([2; 32]).to_string(), amount: 5 };
        let body = v1::TransactionBody {
            chain_id: chain.id.clone(),
            sender: secret().public_key().address().to_string(),
            nonce: 1,
            expire_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            max_fee: 1,
            memo: "rent".into(),
            operations: vec![v1::Operation { operation: Some(v1::operation::Operation::Transfer(transfer)) }],
        };
        Envelope::unsigned(&chain, &body).unwrap()
    }

    #[test]
    fn a_file_says_the_same_before_and_after_signing() {
        let before = unsigned();
        assert_eq!(Envelope::parse(before.to_text().as_bytes()).unwrap(), before);
        assert!(before.transaction().is_none());
        let signed = before.clone().sign(&secret()).unwrap();
        assert_eq!(Envelope::parse(signed.to_text().as_bytes()).unwrap(), signed);
        assert_eq!((signed.id(), signed.body()), (before.id(), before.body()));
        assert!(signed.transaction().is_some());
        let foreign = SecretKey::from_seed(&[3; 32]);
        assert_eq!(before.sign(&foreign), Err(EnvelopeError::Transaction(TransactionError::Signature)));
    }

    /// The format is a promise: files are kept and carried between versions.
    #[test]
    fn the_format_is_frozen() {
        let signed = unsigned().sign(&secret()).unwrap();
        assert_eq!(signed.to_text(), include_str!("../testdata/signed.tx"));
    }

    #[test]
    fn every_flipped_bit_is_refused_or_changes_nothing() {
        let signed = unsigned().sign(&secret()).unwrap();
        let good = signed.to_text().into_bytes();
        for byte in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                // Space between tokens is no content: a flipped one may still be space.
                if let Ok(read) = Envelope::parse(&bad) {
                    assert!(good[byte].is_ascii_whitespace() && read == signed, "bit {bit} of byte {byte}");
                }
            }
        }
        for len in 0..good.len() - 2 {
            assert!(Envelope::parse(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn what_a_file_must_not_say_is_named() {
        let text = unsigned().to_text();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Envelope::parse(text.replace(from, to).as_bytes()).unwrap_err()
        };
        assert_eq!(refused("transaction 1", "transaction 2"), EnvelopeError::Format("tally-transaction 2".into()));
        assert!(matches!(refused("\"body\"", "\"memo\": \"\", \"body\""), EnvelopeError::Json(_)));
        assert!(matches!(refused("\"format\"", "\"Format\""), EnvelopeError::Json(_)));
        assert!(matches!(refused("\"chainId\": \"local-", "\"chainId\": \"other-"), EnvelopeError::Transaction(_)));
        assert!(matches!(
            refused("\"genesisHash\": \"", "\"genesisHash\": \"0"),
            EnvelopeError::Field("genesisHash", _)
        ));
        assert!(matches!(refused("\"body\": \"", "\"body\": \"!"), EnvelopeError::Field("body", _)));
        let two = "\"signatures\": [{\"signature\": \"\"}, {\"signature\": \"\"}]";
        assert!(matches!(refused("\"signatures\": []", two), EnvelopeError::Field("signatures", _)));
        assert_eq!(Envelope::parse(&vec![b' '; FILE_BYTES_MAX + 1]), Err(EnvelopeError::TooLarge));
    }
}
