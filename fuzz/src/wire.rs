//! What clients and peers send.

use std::sync::Arc;

use prost::Message as _;
use tally_consensus::{FetchedBlock, Message, Record, Sets};
use tally_proto::{consensus as proto, v1};
use tally_types::{
    Batch, Certificate, Epoch, Have, Header, Proposal, SignedBatch, SignedTransaction, ViewChange, Vote,
    body::{Body, Operation},
    vote::MessageError,
};

use crate::chain::{genesis, vector};

/// The epochs that messages of the vectors speak of.
fn sets() -> Sets {
    let genesis = genesis();
    let set = |epoch| (Epoch(epoch), genesis.validators.clone(), genesis.chain.genesis_hash);
    Sets((1..=3).map(set).collect())
}

pub fn transaction(bytes: &[u8]) {
    let Ok(transaction) = SignedTransaction::parse(bytes, &genesis().chain) else { return };
    let lax = v1::Transaction::decode(bytes).expect("what the strict reader takes, every reader takes");
    let body = Body::parse(&lax.body).expect("it was read a moment ago");
    let seen = v1::TransactionBody::decode(&lax.body[..]).expect("as above");
    assert_eq!((body.sender.to_string(), body.nonce.0, body.max_fee.0), (seen.sender, seen.nonce, seen.max_fee));
    assert_eq!((&body.chain_id, &body.memo), (&seen.chain_id, &seen.memo));
    let time = seen.expire_time.expect("a body without one is refused");
    assert_eq!(body.expire_time.0, time.seconds as u64 * 1000 + time.nanos as u64 / 1_000_000);
    assert_eq!(body.operations.len(), seen.operations.len());
    for (strict, lax) in body.operations.iter().zip(seen.operations) {
        let (recipient, amount) = match lax.operation.expect("an empty operation is refused") {
            v1::operation::Operation::Transfer(transfer) => {
                assert!(matches!(strict, Operation::Transfer { .. }));
                (transfer.recipient, transfer.amount)
            }
            v1::operation::Operation::CreateAccount(create) => {
                assert!(matches!(strict, Operation::CreateAccount { .. }));
                (create.new_account, create.opening_balance)
            }
        };
        assert_eq!((strict.recipient().to_string(), strict.amount().0), (recipient, amount));
    }
    let _ = transaction.verify();
}

pub fn transactions() -> Vec<Vec<u8>> {
    vec![vector("transaction.bytes")]
}

pub fn batch(bytes: &[u8]) {
    if let Ok(batch) = Batch::parse(bytes) {
        assert_eq!(batch.bytes(), bytes);
        assert_eq!(
            Batch::new(batch.epoch(), batch.lane(), batch.parent_tip(), batch.transactions().to_vec()).digest(),
            batch.digest()
        );
    }
}

pub fn batches() -> Vec<Vec<u8>> {
    vec![vector("batch.bytes")]
}

pub fn header(bytes: &[u8]) {
    if let Ok(header) = Header::parse(bytes) {
        assert_eq!(header.bytes(), bytes);
        assert_eq!(Header::new(header.fields().clone()).hash(), header.hash());
    }
}

pub fn headers() -> Vec<Vec<u8>> {
    vec![vector("header.bytes")]
}

pub fn certificate(bytes: &[u8]) {
    if let Ok(certificate) = Certificate::parse(bytes) {
        assert_eq!(Certificate::parse(&certificate.encode()).as_ref(), Ok(&certificate));
        let genesis = genesis();
        if let Ok(checks) = certificate.checks(&genesis.chain.genesis_hash, &genesis.validators) {
            assert!(checks.len() >= 2 && checks.len() <= 2 * genesis.validators.len(), "{} checks", checks.len());
        }
    }
}

pub fn certificates() -> Vec<Vec<u8>> {
    ["prepare", "commit", "view_change"].map(|kind| vector(&format!("{kind}.certificate"))).into()
}

/// Any message between validators, as it is read and judged before a machine sees it.
pub fn peer_message(bytes: &[u8]) {
    use proto::peer_message::Payload;
    let Ok(message) = proto::PeerMessage::decode(bytes) else { return };
    let Some(payload) = message.payload else { return };
    let read = match payload {
        Payload::Proposal(message) => Proposal::from_proto(&message).map(|one| Message::Proposal(one.into())),
        Payload::Vote(message) => Vote::from_proto(&message).map(Message::Vote),
        Payload::ViewChange(message) => ViewChange::from_proto(&message).map(Message::ViewChange),
        Payload::Batch(message) => SignedBatch::from_proto(&message).map(Message::Batch),
        Payload::Have(message) => Have::from_proto(&message).map(|one| Message::Have(one.into())),
        Payload::Certificates(content) => certificates_of(&content),
        Payload::Hello(content) => {
            let _ = proto::Hello::decode(content);
            return;
        }
    };
    let Ok(message) = read else { return };
    let again = match &message {
        Message::Proposal(one) => Proposal::from_proto(&one.to_proto()).map(|one| Message::Proposal(one.into())),
        Message::Vote(one) => Vote::from_proto(&one.to_proto()).map(Message::Vote),
        Message::ViewChange(one) => ViewChange::from_proto(&one.to_proto()).map(Message::ViewChange),
        Message::Batch(one) => SignedBatch::from_proto(&one.to_proto()).map(Message::Batch),
        Message::Have(one) => Have::from_proto(&one.to_proto()).map(|one| Message::Have(one.into())),
        Message::Certificates { entry, highest_commit } => {
            let encoded = |one: &Option<Arc<Certificate>>| one.as_ref().map(|one| one.to_proto());
            let message = proto::Certificates { entry: encoded(entry), highest_commit: encoded(highest_commit) };
            certificates_of(&message.encode_to_vec())
        }
    };
    assert_eq!(again.as_ref(), Ok(&message), "what is read is sent on as the same");
    sets().judge(&genesis().chain.genesis_hash, &message);
}

fn certificates_of(content: &[u8]) -> Result<Message, MessageError> {
    let message = proto::Certificates::decode(content).map_err(|_| MessageError("certificates: not protobuf"))?;
    let read = |one: &Option<proto::Certificate>| one.as_ref().map(Certificate::from_proto).transpose();
    let (entry, highest_commit) = (read(&message.entry)?, read(&message.highest_commit)?);
    Ok(Message::Certificates { entry: entry.map(Arc::new), highest_commit: highest_commit.map(Arc::new) })
}

pub fn peer_messages() -> Vec<Vec<u8>> {
    use proto::peer_message::Payload;
    let decoded = |name: &str| vector(&format!("{name}.message"));
    let certificate = |name: &str| proto::Certificate::decode(&vector(&format!("{name}.certificate"))[..]).ok();
    let (entry, highest_commit) = (certificate("view_change"), certificate("commit"));
    let certificates = proto::Certificates { entry, highest_commit };
    let hello = proto::Hello { genesis_hash: genesis().chain.genesis_hash.0.to_vec().into(), protocol_version: 1 };
    let payloads = [
        Payload::Proposal(proto::Proposal::decode(&decoded("proposal")[..]).expect("a good vector")),
        Payload::Vote(proto::Vote::decode(&decoded("prepare")[..]).expect("a good vector")),
        Payload::Vote(proto::Vote::decode(&decoded("commit")[..]).expect("a good vector")),
        Payload::ViewChange(proto::ViewChange::decode(&decoded("view_change")[..]).expect("a good vector")),
        Payload::Batch(proto::SignedBatch::decode(&decoded("batch")[..]).expect("a good vector")),
        Payload::Have(proto::Have::decode(&decoded("have")[..]).expect("a good vector")),
        Payload::Certificates(certificates.encode_to_vec().into()),
        Payload::Hello(hello.encode_to_vec().into()),
    ];
    let wrapped = |payload| proto::PeerMessage { payload: Some(payload), ..Default::default() }.encode_to_vec();
    payloads.map(wrapped).into()
}

/// An answer to a question for a range of blocks: any number of them, one after the other.
pub fn blocks(bytes: &[u8]) {
    let Ok(answer) = proto::FetchBatchesResponse::decode(bytes) else { return };
    // One after the other in the one field that is a list of bytes.
    let mut rest = &answer.batch[..];
    let mut blocks = Vec::new();
    while let Ok(block) = proto::FetchBlocksResponse::decode_length_delimited(&mut rest) {
        let Ok(header) = Header::parse(&block.header) else { return };
        let batches = block.batches.iter().map(|bytes| Batch::parse(bytes)).collect::<Result<Vec<_>, _>>();
        let commit = block.commit.as_ref().map(Certificate::from_proto).transpose();
        let (Ok(batches), Ok(commit)) = (batches, commit) else { return };
        blocks.push(FetchedBlock { header, batches, commit: commit.map(Into::into) });
        if rest.is_empty() {
            break;
        }
    }
    sets().judge_blocks(&genesis().chain.genesis_hash, &mut blocks);
}

pub fn ranges() -> Vec<Vec<u8>> {
    let commit = proto::Certificate::decode(&vector("commit.certificate")[..]).ok();
    let batches = vec![vector("batch.bytes").into()];
    let block = proto::FetchBlocksResponse { header: vector("header.bytes").into(), batches, commit };
    let bytes = [block.encode_length_delimited_to_vec(), block.encode_length_delimited_to_vec()].concat();
    vec![proto::FetchBatchesResponse { batch: bytes.into() }.encode_to_vec()]
}

/// A journal record: its kind, then its bytes.
pub fn record(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    if let Ok(record) = Record::parse(*kind, bytes) {
        let again = Record::parse(record.kind(), &record.encode());
        assert_eq!(again.as_ref(), Ok(&record));
    }
}

/// Records of a journal, each with its kind before it.
pub fn records() -> Vec<Vec<u8>> {
    (1..=12).map(|kind: u8| [vec![kind], vector(&format!("journal.record.kind_{kind}"))].concat()).collect()
}
