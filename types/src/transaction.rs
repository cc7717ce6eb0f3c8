//! Signed transactions: the bytes that travel, their id, and the ladder from bytes to proof.
//!
//! [`SignedTransaction`] is well-formed and of this chain; [`VerifiedTransaction`] was also signed by its sender. Nothing
//! is re-encoded on the way: what is signed, hashed, stored and sent are the bytes that arrived.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    address::{Address, AddressError},
    body::{Body, BodyError},
    genesis::Chain,
    hash::{Hash, TAG_TRANSACTION},
    signature::{SecretKey, Signature, SignatureCheck, SignedBytes, all_hold},
    wire::{Reader, Value, WireError},
};

/// Most bytes of a transaction: the largest body, one signature with its signer, and their framing.
pub const TRANSACTION_BYTES_MAX: usize = crate::body::BODY_BYTES_MAX + 192;

/// A well-formed transaction of this chain whose signature was not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTransaction {
    id: Hash,
    body: Arc<Body>,
    bytes: Arc<[u8]>,
    check: SignatureCheck,
}

/// A transaction its sender signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedTransaction {
    id: Hash,
    body: Arc<Body>,
    bytes: Arc<[u8]>,
}

/// Why bytes are not a transaction of this chain.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TransactionError {
    /// Over [`TRANSACTION_BYTES_MAX`].
    #[error("the transaction has {0} bytes, at most {TRANSACTION_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// No protobuf.
    #[error("Transaction: {0}")]
    Wire(#[from] WireError),
    /// A field this version does not know.
    #[error("Transaction has field {0}, which this node does not know")]
    UnknownField(u32),
    /// A known field of the wrong shape, or the body given twice.
    #[error("{field} {problem}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The signer is no address.
    #[error("signatures.signer: {0}")]
    Signer(AddressError),
    /// The body is wrong.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Meant for another chain.
    #[error("the transaction is for chain {got:?}, this is {expected:?}")]
    OtherChain {
        /// Chain of this node.
        expected: String,
        /// Chain named in the body.
        got: String,
    },
    /// Signed by a key that is not the sender's, or over other bytes, or for another genesis.
    #[error("the signature is not the sender's over these bytes for this chain")]
    Signature,
}

/// What a sender signs for `body` on the chain of `genesis`; its hash is the transaction's id.
pub fn signed_bytes(genesis: &Hash, body: &[u8]) -> SignedBytes {
    SignedBytes::new(TAG_TRANSACTION, genesis, &[body])
}

/// Signs a serialized body and wraps both into the serialized `Transaction` that travels.
pub fn sign(secret: &SecretKey, genesis: &Hash, body: &[u8]) -> Vec<u8> {
    use prost::Message as _;
    let signature = secret.sign(&signed_bytes(genesis, body));
    let signature = tally_proto::v1::Signature { signer: String::new(), signature: signature.0.to_vec() };
    tally_proto::v1::Transaction { body: body.to_vec(), signatures: vec![signature] }.encode_to_vec()
}

impl SignedTransaction {
    /// Reads `bytes`, strictly, as a transaction of `chain`.
    pub fn parse(bytes: &[u8], chain: &Chain) -> Result<SignedTransaction, TransactionError> {
        if bytes.len() > TRANSACTION_BYTES_MAX {
            return Err(TransactionError::TooLarge(bytes.len()));
        }
        let (body_bytes, signer, signature) = split(bytes)?;
        let body = Body::parse(body_bytes)?;
        if body.chain_id != chain.id {
            return Err(TransactionError::OtherChain { expected: chain.id.clone(), got: body.chain_id });
        }
        if signer.is_some_and(|signer| signer != body.sender) {
            return Err(TransactionError::Signature);
        }
        let signed = signed_bytes(&chain.genesis_hash, body_bytes);
        let id = signed.hash();
        let check = SignatureCheck { key: body.sender.into(), bytes: signed, signature };
        Ok(SignedTransaction { id, body: Arc::new(body), bytes: bytes.into(), check })
    }

    /// SHA-256 of the signed bytes: nobody but the sender can change it.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// What is left to check.
    pub fn check(&self) -> &SignatureCheck {
        &self.check
    }

    /// Checks the signature.
    pub fn verify(self) -> Result<VerifiedTransaction, TransactionError> {
        if self.check.holds() { Ok(self.into_verified()) } else { Err(TransactionError::Signature) }
    }

    /// Checks all signatures at once; fails if any fails.
    pub fn verify_all(all: Vec<SignedTransaction>) -> Result<Vec<VerifiedTransaction>, TransactionError> {
        let (checks, verified): (Vec<_>, Vec<_>) = all
            .into_iter()
            .map(|tx| (tx.check, VerifiedTransaction { id: tx.id, body: tx.body, bytes: tx.bytes }))
            .unzip();
        if all_hold(&checks) { Ok(verified) } else { Err(TransactionError::Signature) }
    }

    /// Takes the signature as checked, because a final block orders this transaction: an honest validator checked it
    /// before it announced the batch, and no batch is ordered without one.
    pub fn ordered(self) -> VerifiedTransaction {
        self.into_verified()
    }

    fn into_verified(self) -> VerifiedTransaction {
        VerifiedTransaction { id: self.id, body: self.body, bytes: self.bytes }
    }
}

impl VerifiedTransaction {
    /// SHA-256 of the signed bytes.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// What was signed, decoded.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Who pays.
    pub fn sender(&self) -> Address {
        self.body.sender
    }

    /// The serialized `Transaction`, as it arrived.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }
}

/// Body, signer if named, and signature of a serialized `Transaction`.
fn split(bytes: &[u8]) -> Result<(&[u8], Option<Address>, Signature), TransactionError> {
    let field = |field, problem| TransactionError::Field { field, problem };
    let mut body = None;
    let mut signature = None;
    let mut reader = Reader::new(bytes);
    while let Some(next) = reader.next_field()? {
        match (next.number, next.value) {
            (1, Value::Bytes(bytes)) => {
                if body.replace(bytes).is_some() {
                    return Err(field("body", "is given twice"));
                }
            }
            (2, Value::Bytes(bytes)) => {
                if signature.replace(split_signature(bytes)?).is_some() {
                    return Err(field("signatures", "has more than one signature"));
                }
            }
            (1 | 2, _) => return Err(field("body or signatures", "is not length-delimited")),
            (number, _) => return Err(TransactionError::UnknownField(number)),
        }
    }
    let body = body.ok_or(field("body", "is missing"))?;
    let (signer, signature) = signature.ok_or(field("signatures", "is empty"))?;
    Ok((body, signer, signature))
}

fn split_signature(bytes: &[u8]) -> Result<(Option<Address>, Signature), TransactionError> {
    let field = |field, problem| TransactionError::Field { field, problem };
    let mut signer = None;
    let mut signature = None;
    let mut reader = Reader::new(bytes);
    while let Some(next) = reader.next_field()? {
        match (next.number, next.value) {
            (1, Value::Bytes(text)) => {
                let text = std::str::from_utf8(text).map_err(|_| field("signatures.signer", "is not UTF-8"))?;
                let address = match text {
                    "" => None,
                    text => Some(text.parse().map_err(TransactionError::Signer)?),
                };
                if signer.replace(address).is_some() {
                    return Err(field("signatures.signer", "is given twice"));
                }
            }
            (2, Value::Bytes(bytes)) => {
                let parsed =
                    Signature::from_slice(bytes).ok_or(field("signatures.signature", "does not have 64 bytes"))?;
                if signature.replace(parsed).is_some() {
                    return Err(field("signatures.signature", "is given twice"));
                }
            }
            (1 | 2, _) => return Err(field("signatures", "is not length-delimited")),
            (number, _) => return Err(TransactionError::UnknownField(number)),
        }
    }
    let signature = signature.ok_or(field("signatures.signature", "is missing"))?;
    Ok((signer.flatten(), signature))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tally_proto::v1;

    use super::*;

    fn chain() -> Chain {
        Chain { id: "test-01020304".into(), genesis_hash: Hash::of(b"genesis") }
    }

    fn secret() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    fn body() -> v1::TransactionBody {
        let transfer = v1::Transfer { recipient: Address([2; 32]).to_string(), amount: 5 };
        v1::TransactionBody {
            chain_id: chain().id,
            sender: secret().public_key().address().to_string(),
            nonce: 1,
            expire_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            max_fee: 1000,
            memo: String::new(),
            operations: vec![v1::Operation { operation: Some(v1::operation::Operation::Transfer(transfer)) }],
        }
    }

    fn parse(change: impl FnOnce(&mut v1::Transaction)) -> Result<VerifiedTransaction, TransactionError> {
        let bytes = sign(&secret(), &chain().genesis_hash, &body().encode_to_vec());
        let mut transaction = v1::Transaction::decode(&bytes[..]).unwrap();
        change(&mut transaction);
        SignedTransaction::parse(&transaction.encode_to_vec(), &chain())?.verify()
    }

    #[test]
    fn a_signed_transaction_verifies_and_its_id_ignores_the_signature() {
        let plain = parse(|_| {}).unwrap();
        let named = parse(|tx| tx.signatures[0].signer = body().sender).unwrap();
        assert_eq!(plain.id(), named.id());
        assert_eq!(plain.id(), signed_bytes(&chain().genesis_hash, &body().encode_to_vec()).hash());
    }

    #[test]
    fn what_is_not_signed_by_the_sender_for_this_chain_is_refused() {
        assert_eq!(parse(|tx| tx.signatures[0].signature[0] ^= 1), Err(TransactionError::Signature));
        assert_eq!(
            parse(|tx| tx.signatures[0].signer = Address([9; 32]).to_string()),
            Err(TransactionError::Signature)
        );
        let other_genesis = sign(&secret(), &Hash::of(b"other"), &body().encode_to_vec());
        let parsed = SignedTransaction::parse(&other_genesis, &chain()).unwrap();
        assert_eq!(parsed.verify(), Err(TransactionError::Signature));
        let mut foreign = body();
        foreign.chain_id = "other-05060708".into();
        let bytes = sign(&secret(), &chain().genesis_hash, &foreign.encode_to_vec());
        assert_eq!(
            SignedTransaction::parse(&bytes, &chain()),
            Err(TransactionError::OtherChain { expected: chain().id, got: "other-05060708".into() })
        );
    }

    #[test]
    fn the_envelope_is_as_strict_as_the_body() {
        let field = |field, problem| Err(TransactionError::Field { field, problem });
        assert_eq!(parse(|tx| tx.signatures.clear()), field("signatures", "is empty"));
        assert_eq!(
            parse(|tx| tx.signatures.push(tx.signatures[0].clone())),
            field("signatures", "has more than one signature")
        );
        assert_eq!(
            parse(|tx| tx.signatures[0].signature.truncate(63)),
            field("signatures.signature", "does not have 64 bytes")
        );
        assert!(matches!(parse(|tx| tx.signatures[0].signer = "me".into()), Err(TransactionError::Signer(_))));
        let good = sign(&secret(), &chain().genesis_hash, &body().encode_to_vec());
        let with = |tail: &[u8]| SignedTransaction::parse(&[&good[..], tail].concat(), &chain());
        assert_eq!(with(&[0x1a, 0]).unwrap_err(), TransactionError::UnknownField(3));
        let twice = TransactionError::Field { field: "body", problem: "is given twice" };
        assert_eq!(with(&[0x0a, 0]).unwrap_err(), twice);
        assert_eq!(
            SignedTransaction::parse(&[0; TRANSACTION_BYTES_MAX + 1], &chain()).unwrap_err(),
            TransactionError::TooLarge(TRANSACTION_BYTES_MAX + 1)
        );
    }

    #[test]
    fn many_verify_together_or_not_at_all() {
        let sign_with = |seed: u8| {
            let secret = SecretKey::from_seed(&[seed; 32]);
            let mut body = body();
            body.sender = secret.public_key().address().to_string();
            let bytes = sign(&secret, &chain().genesis_hash, &body.encode_to_vec());
            SignedTransaction::parse(&bytes, &chain()).unwrap()
        };
        let mut all: Vec<_> = (1..40).map(sign_with).collect();
        assert_eq!(SignedTransaction::verify_all(all.clone()).unwrap().len(), 39);
        all[20].check.signature.0[0] ^= 1;
        assert_eq!(SignedTransaction::verify_all(all), Err(TransactionError::Signature));
    }
}
