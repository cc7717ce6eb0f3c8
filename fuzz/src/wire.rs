//! What clients and peers send.

use prost::Message as _;
use tally_consensus::{Message, Record, Sets};
use tally_node::peers::wire;
use tally_proto::{consensus as proto, v1};
use tally_types::{
    Batch, Certificate, Epoch, Header, SignedTransaction, ValidatorSet,
    body::{Body, Operation},
    header::HeaderFields,
};

use crate::chain::{genesis, many, vector};

/// The epoch in which there are as many validators as there may be.
pub const CROWDED: Epoch = Epoch(4);

/// The epochs that messages of the vectors speak of.
fn sets() -> Sets {
    let genesis = genesis();
    let set = |epoch| (Epoch(epoch), validators_of(Epoch(epoch)).clone(), genesis.chain.genesis_hash);
    Sets((1..=4).map(set).collect())
}

fn validators_of(epoch: Epoch) -> &'static ValidatorSet {
    if epoch == CROWDED { &many().validators } else { &genesis().validators }
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
        let _ = wire::transaction_checks(&batch, &genesis().chain);
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
        let validators = validators_of(certificate.epoch);
        if let Ok(checks) = certificate.checks(&genesis().chain.genesis_hash, validators) {
            assert!(checks.len() >= 2 && checks.len() <= 2 * validators.len(), "{} checks", checks.len());
        }
    }
}

pub fn certificates() -> Vec<Vec<u8>> {
    ["prepare", "commit", "view_change"].map(|kind| vector(&format!("{kind}.certificate"))).into()
}

/// Any message between validators, as it is read and judged before a machine sees it.
pub fn peer_message(bytes: &[u8]) {
    let Ok(message) = proto::PeerMessage::decode(bytes) else { return };
    let Some(payload) = message.payload else { return };
    if let proto::peer_message::Payload::Hello(content) = &payload {
        let _ = proto::Hello::decode(content.clone());
    }
    let read = wire::read(payload);
    let Ok(message) = read else { return };
    let again = wire::read(wire::written(&message));
    assert_eq!(again.as_ref(), Ok(&message), "what is read is sent on as the same");
    sets().judge(&genesis().chain.genesis_hash, &message);
    if let Message::Batch(signed) = &message {
        let _ = wire::transaction_checks(&signed.batch, &genesis().chain);
    }
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

/// An answer to a question for blocks: the height asked for, and any number of blocks, each with its length before it.
pub fn blocks(bytes: &[u8]) {
    let Some((from, mut rest)) = bytes.split_first_chunk() else { return };
    let from = u64::from_be_bytes(*from);
    let mut range = wire::Range::starting_at(from);
    while let Ok(block) = proto::FetchBlocksResponse::decode_length_delimited(&mut rest) {
        if !range.take(&block) || rest.is_empty() {
            break;
        }
    }
    let mut blocks = range.into_blocks();
    assert!(blocks.first().is_none_or(|first| first.header.height.0 == from));
    assert!(blocks.windows(2).all(|pair| pair[1].header.parent == pair[0].header.hash()));
    sets().judge_blocks(&genesis().chain.genesis_hash, &mut blocks);
}

pub fn ranges() -> Vec<Vec<u8>> {
    let commit = proto::Certificate::decode(&vector("commit.certificate")[..]).ok();
    let header = vector("header.bytes");
    let first = Header::parse(&header).expect("a good vector");
    let second = Header::new(HeaderFields {
        parent: first.hash(),
        height: first.height.next(),
        time: first.time.plus(1),
        ..first.fields().clone()
    });
    let batches = vec![vector("batch.bytes").into()];
    let first = proto::FetchBlocksResponse { header: header.into(), batches, commit };
    let second = proto::FetchBlocksResponse { header: second.bytes().clone(), batches: Vec::new(), commit: None };
    let from = Header::parse(&first.header).map_or(0, |header| header.height.0);
    let blocks = [first, second].map(|block| block.encode_length_delimited_to_vec());
    vec![[&from.to_be_bytes()[..], &blocks.concat()].concat()]
}

/// A question of a peer: of which kind, then its bytes.
pub fn question(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            let Ok(question) = proto::FetchBlocksRequest::decode(bytes) else { return };
            let asked = wire::asked_blocks(&question);
            assert!(asked.first >= 1 && asked.last >= asked.first && asked.last - asked.first < 1000);
            assert!(asked.last_whole <= question.to_height && asked.last_whole.saturating_sub(asked.first) < 64);
        }
        1 => {
            let Ok(question) = proto::FetchBatchesRequest::decode(bytes) else { return };
            assert!(wire::asked_batches(&question).map_or(0, |chains| chains.len()) <= 64);
        }
        _ => {
            let Ok(question) = proto::FetchHeadersRequest::decode(bytes) else { return };
            assert!(wire::asked_headers(&question).map_or(0, |hashes| hashes.len()) <= 64);
        }
    }
}

pub fn questions() -> Vec<Vec<u8>> {
    let digest = vector("genesis.hash");
    let caller = || proto::Caller { sender: digest.clone().into(), counter: 7, signature: vec![7; 64].into() };
    let chain = proto::BatchChain { digest: digest.clone().into(), seq: 9, above: 3 };
    let blocks = proto::FetchBlocksRequest { caller: Some(caller()), from_height: 7, to_height: 90 };
    let batches = proto::FetchBatchesRequest { caller: Some(caller()), chains: vec![chain; 3] };
    let headers = proto::FetchHeadersRequest { caller: Some(caller()), hashes: vec![digest.clone().into(); 3] };
    [(0, blocks.encode_to_vec()), (1, batches.encode_to_vec()), (2, headers.encode_to_vec())]
        .map(|(kind, bytes)| [vec![kind], bytes].concat())
        .into()
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
