//! The largest good inputs there are, by target: what takes longest to read.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tally_consensus::{Message, Record};
use tally_node::peers::wire::{Range, read, written};
use tally_proto::{consensus as proto, v1};
use tally_types::{
    Batch, Certificate, Hash, Header, Proposal, Signature, SignedBatch, Tip, View, VoteKind,
    certificate::CertificateSignature, header::HeaderFields,
};

use crate::{
    chain::{MANY, crowd, vector},
    wire::CROWDED,
};

/// Transactions of a batch, and bytes of each, so that it is as large as it may be.
const TRANSACTIONS: usize = 1024;
const TRANSACTION_BYTES: usize = 250;
/// Batches of a block, and blocks of an answer.
const BATCHES: usize = 16;
const BLOCKS: usize = 8;
/// Accounts of a genesis.
const ACCOUNTS: usize = 5000;

fn certificate(kind: VoteKind, view: u64, block: Hash) -> Certificate {
    let highest = (kind == VoteKind::ViewChange)
        .then(|| Arc::new(certificate(VoteKind::Prepare, view - 1, Hash::of(b"prepared"))));
    let highest_view = highest.as_ref().map_or(View::ZERO, |highest| highest.view);
    let signature = |signer| CertificateSignature { signer, highest_view, signature: Signature([7; 64]) };
    let signatures = (0..MANY as u32).map(signature).collect();
    let block = if kind == VoteKind::ViewChange { Hash::ZERO } else { block };
    Certificate { kind, epoch: CROWDED, view: View(view), block, signatures, highest }
}

fn batch(lane: u32, parent: Tip) -> Batch {
    Batch::new(CROWDED, lane, parent, vec![Bytes::from(vec![7; TRANSACTION_BYTES]); TRANSACTIONS])
}

fn header(like: &Header, height: u64, parent: Hash) -> Header {
    Header::new(HeaderFields {
        epoch: CROWDED,
        height: tally_types::Height(height),
        view: View(height),
        parent,
        cut: vec![batch(0, Tip::START).tip(); MANY],
        ..like.fields().clone()
    })
}

/// Names of targets, and an input for each.
pub fn inputs() -> Vec<(&'static str, Vec<u8>)> {
    let like = Header::parse(&vector("header.bytes")).expect("a good vector");
    let entry = Arc::new(certificate(VoteKind::ViewChange, 9, Hash::ZERO));
    let commit = Arc::new(certificate(VoteKind::Commit, 7, Hash::of(b"final")));
    let top = header(&like, 10, Hash::of(b"parent"));
    let signature = Signature([7; 64]);
    let messages = [
        Message::Proposal(Arc::new(Proposal {
            epoch: CROWDED,
            view: View(10),
            header: top.clone(),
            justification: Some(entry.clone()),
            justification_bytes: Bytes::from(entry.encode()),
            signature,
            highest_commit: Some(commit.clone()),
        })),
        Message::Batch(SignedBatch { batch: batch(0, Tip::START), signature }),
        Message::Certificates { entry: Some(entry.clone()), highest_commit: Some(commit) },
    ];
    let wrapped = |message: &Message| {
        proto::PeerMessage { payload: Some(written(message)), ..Default::default() }.encode_to_vec()
    };
    let mut range = 1u64.to_be_bytes().to_vec();
    let mut parent = Hash::of(b"parent");
    for height in 1..=BLOCKS as u64 {
        let header = header(&like, height, parent);
        parent = header.hash();
        let block = proto::FetchBlocksResponse {
            header: header.bytes().clone(),
            batches: (0..BATCHES as u32).map(|lane| batch(lane, Tip::START).bytes().clone()).collect(),
            commit: Some(certificate(VoteKind::Commit, height, parent).to_proto()),
        };
        range.extend(block.encode_length_delimited_to_vec());
    }
    let stored = Record::Stored(batch(0, Tip::START));
    let mut all = vec![
        ("certificate", entry.encode()),
        ("header", top.bytes().to_vec()),
        ("batch", batch(0, Tip::START).bytes().to_vec()),
        ("blocks", range),
        ("genesis", crowd(ACCOUNTS)),
        ("transaction", transaction()),
        ("record", [&[stored.kind()][..], &stored.encode()].concat()),
    ];
    all.extend(messages.iter().map(|message| ("peer_message", wrapped(message))));
    all
}

/// The frozen one with as many operations as there may be.
fn transaction() -> Vec<u8> {
    let mut transaction = v1::Transaction::decode(&vector("transaction.bytes")[..]).expect("a good vector");
    let mut body = v1::TransactionBody::decode(&transaction.body[..]).expect("a good vector");
    body.operations = vec![body.operations[0].clone(); 64];
    transaction.body = body.encode_to_vec();
    transaction.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use tally_types::{Genesis, SignedTransaction};

    use super::*;
    use crate::chain::{genesis, many};

    /// What is refused at its first byte shows nothing.
    #[test]
    fn they_are_good_and_large() {
        let hash = genesis().chain.genesis_hash;
        for (name, bytes) in inputs() {
            match name {
                "certificate" => {
                    let certificate = Certificate::parse(&bytes).unwrap();
                    assert_eq!(certificate.checks(&hash, &many().validators).unwrap().len(), 2 * MANY);
                }
                "header" => assert_eq!(Header::parse(&bytes).unwrap().cut.len(), MANY),
                "batch" => assert_eq!(Batch::parse(&bytes).unwrap().transactions().len(), TRANSACTIONS),
                "genesis" => assert_eq!(Genesis::parse(&bytes).unwrap().accounts.len(), ACCOUNTS),
                "transaction" => {
                    let transaction = SignedTransaction::parse(&bytes, &genesis().chain).unwrap();
                    assert_eq!(transaction.ordered().body().operations.len(), 64);
                }
                "record" => assert!(Record::parse(bytes[0], &bytes[1..]).is_ok()),
                "blocks" => {
                    let mut rest = &bytes[8..];
                    let mut range = Range::starting_at(1);
                    while !rest.is_empty() {
                        assert!(range.take(&proto::FetchBlocksResponse::decode_length_delimited(&mut rest).unwrap()));
                    }
                    assert_eq!(range.into_blocks().len(), BLOCKS);
                }
                "peer_message" => {
                    let message = proto::PeerMessage::decode(&bytes[..]).unwrap();
                    assert!(read(message.payload.unwrap()).is_ok());
                }
                other => panic!("{other} is not looked at"),
            }
        }
    }
}
