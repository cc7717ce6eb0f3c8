//! What peers send: messages, questions and answers, written and read. Whatever the bytes are, they are read or named as wrong;
//! nothing here knows whether to believe them.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tally_consensus::{BLOCK_BATCHES_MAX, FetchedBlock, Message};
use tally_proto::consensus as proto;
use tally_types::{
    Batch, Certificate, Hash, Have, Header, Proposal, Seq, SignedBatch, SignedTransaction, Tip, ViewChange, Vote,
    genesis::Chain, signature::SignatureCheck, vote::MessageError,
};

/// Hashes or chains of batches in one question.
const ASKED_MAX: usize = 64;
/// Blocks of one answer that come with their payload.
const WHOLE_BLOCKS_MAX: u64 = 64;
/// Blocks in one answer at the very most: as many as an epoch may have, whose last one has a certificate.
const BLOCKS_MAX: u64 = 1000;
/// What is taken of one answer, in bytes of memory: what a server gives at most, which is payload up to the block that passes
/// 32 MiB, in memory, and headers.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;

/// A message as it is sent; certificates carry no signature of their own and go in an envelope.
pub fn written(message: &Message) -> proto::peer_message::Payload {
    use proto::peer_message::Payload;
    match message {
        Message::Proposal(proposal) => Payload::Proposal(proposal.to_proto()),
        Message::Vote(vote) => Payload::Vote(vote.to_proto()),
        Message::ViewChange(change) => Payload::ViewChange(change.to_proto()),
        Message::Batch(batch) => Payload::Batch(batch.to_proto()),
        Message::Have(have) => Payload::Have(have.to_proto()),
        Message::Certificates { entry, highest_commit } => {
            let certificates = proto::Certificates {
                entry: entry.as_ref().map(|one| one.to_proto()),
                highest_commit: highest_commit.as_ref().map(|one| one.to_proto()),
            };
            Payload::Certificates(certificates.encode_to_vec().into())
        }
    }
}

/// Reads a message that carries its own signatures, or the content of an envelope.
pub fn read(payload: proto::peer_message::Payload) -> Result<Message, MessageError> {
    use proto::peer_message::Payload;
    let certificate = |message: &Option<proto::Certificate>| {
        message.as_ref().map(Certificate::from_proto).transpose().map(|one| one.map(Arc::new))
    };
    Ok(match payload {
        Payload::Proposal(message) => Message::Proposal(Arc::new(Proposal::from_proto(&message)?)),
        Payload::Vote(message) => Message::Vote(Vote::from_proto(&message)?),
        Payload::ViewChange(message) => Message::ViewChange(ViewChange::from_proto(&message)?),
        Payload::Batch(message) => Message::Batch(SignedBatch::from_proto(&message)?),
        Payload::Have(message) => Message::Have(Arc::new(Have::from_proto(&message)?)),
        Payload::Certificates(bytes) => {
            let message = proto::Certificates::decode(bytes).map_err(|_| MessageError("certificates: not protobuf"))?;
            Message::Certificates {
                entry: certificate(&message.entry)?,
                highest_commit: certificate(&message.highest_commit)?,
            }
        }
        Payload::Hello(_) => return Err(MessageError("hello: not the first message")),
    })
}

/// Rule D2: the signatures that all transactions of a batch rest on; none: one of them is malformed.
pub fn transaction_checks(batch: &Batch, chain: &Chain) -> Option<Vec<SignatureCheck>> {
    let check =
        |bytes: &Bytes| SignedTransaction::parse(bytes, chain).ok().map(|transaction| transaction.check().clone());
    batch.transactions().iter().map(check).collect()
}

/// The blocks that an answer to this question may hold: with their payload up to the first height, at the very most up to the second.
pub struct AskedBlocks {
    /// Height of the first.
    pub first: u64,
    /// Height of the last that comes with its payload.
    pub last_whole: u64,
    /// Height of the last, whatever has a certificate.
    pub last: u64,
}

/// What a question for blocks asks for.
pub fn asked_blocks(question: &proto::FetchBlocksRequest) -> AskedBlocks {
    let first = question.from_height.max(1);
    AskedBlocks {
        first,
        last_whole: question.to_height.min(first.saturating_add(WHOLE_BLOCKS_MAX - 1)),
        last: first.saturating_add(BLOCKS_MAX - 1),
    }
}

/// The chains of batches that a question asks for: each a tip, and the place above which it begins.
pub fn asked_batches(question: &proto::FetchBatchesRequest) -> Result<Vec<(Tip, Seq)>, MessageError> {
    if question.chains.len() > ASKED_MAX {
        return Err(MessageError("more than 64 chains asked for"));
    }
    let chain = |chain: &proto::BatchChain| {
        let digest = Hash::from_slice(&chain.digest).ok_or(MessageError("digest: not 32 bytes"))?;
        Ok((Tip { seq: Seq(chain.seq), digest }, Seq(chain.above)))
    };
    question.chains.iter().map(chain).collect()
}

/// The hashes whose headers a question asks for; what is no hash is nobody's.
pub fn asked_headers(question: &proto::FetchHeadersRequest) -> Result<Vec<Hash>, MessageError> {
    if question.hashes.len() > ASKED_MAX {
        return Err(MessageError("more than 64 hashes asked for"));
    }
    Ok(question.hashes.iter().filter_map(|bytes| Hash::from_slice(bytes)).collect())
}

/// The headers of an answer, without what is none.
pub fn headers(answer: &proto::FetchHeadersResponse) -> Vec<Header> {
    answer.headers.iter().filter_map(|bytes| Header::parse(bytes).ok()).collect()
}

/// What was taken of an answer with blocks from a height on.
pub struct Range {
    from: u64,
    blocks: Vec<FetchedBlock>,
    /// What it takes in memory.
    bytes: usize,
}

impl Range {
    /// Nothing yet of an answer that is to begin at height `from`.
    pub fn starting_at(from: u64) -> Range {
        Range { from, blocks: Vec::new(), bytes: 0 }
    }

    /// Takes the next block; whether another may come. What does not go on from the one before, or begins elsewhere, proves
    /// nothing.
    pub fn take(&mut self, next: &proto::FetchBlocksResponse) -> bool {
        let Some(block) = read_block(next) else { return false };
        let follows = match self.blocks.last() {
            None => block.header.height.0 == self.from,
            Some(before) => block.header.parent == before.header.hash(),
        };
        if !follows {
            return false;
        }
        let transactions: usize = block.batches.iter().map(|batch| batch.transactions().len()).sum();
        let views = transactions.saturating_mul(size_of::<Bytes>());
        self.bytes = self.bytes.saturating_add(next.encoded_len()).saturating_add(views);
        self.blocks.push(block);
        self.blocks.len() < BLOCKS_MAX as usize && self.bytes <= ANSWER_BYTES_MAX
    }

    /// What was taken.
    pub fn into_blocks(self) -> Vec<FetchedBlock> {
        self.blocks
    }
}

fn read_block(message: &proto::FetchBlocksResponse) -> Option<FetchedBlock> {
    // Small ones take much more in memory than on the line.
    if message.batches.len() as u64 > BLOCK_BATCHES_MAX {
        return None;
    }
    let batches = message.batches.iter().map(|bytes| Batch::parse(bytes).ok()).collect::<Option<Vec<_>>>()?;
    let commit = match &message.commit {
        None => None,
        Some(commit) => Some(Arc::new(Certificate::from_proto(commit).ok()?)),
    };
    Some(FetchedBlock { header: Header::parse(&message.header).ok()?, batches, commit })
}

#[cfg(test)]
mod tests {
    use tally_types::{Epoch, Height, UnixMillis, View, header::HeaderFields};

    use super::*;

    fn block(height: u64, parent: Hash, transactions: usize) -> (proto::FetchBlocksResponse, Hash) {
        let header = Header::new(HeaderFields {
            epoch: Epoch(0),
            height: Height(height),
            view: View(height),
            parent,
            proposer: 0,
            time: UnixMillis(height),
            cut: vec![Tip::START],
            executed: tally_types::header::Executed {
                height: Height(0),
                state_root: Hash::ZERO,
                receipts_root: Hash::ZERO,
            },
            validators: Hash::ZERO,
            next_validators: Hash::ZERO,
        });
        let batch = Batch::new(Epoch(0), 0, Tip::START, vec![Bytes::from_static(b"t"); transactions]);
        let batches = if transactions == 0 { Vec::new() } else { vec![batch.bytes().clone()] };
        (proto::FetchBlocksResponse { header: header.bytes().clone(), batches, commit: None }, header.hash())
    }

    #[test]
    fn blocks_are_taken_as_long_as_they_link_and_up_to_the_bounds() {
        let (first, parent) = block(7, Hash::of(b"parent"), 0);
        let range = Range::starting_at;
        // It begins elsewhere.
        let mut wrong = range(8);
        assert!(!wrong.take(&first) && wrong.blocks.is_empty());
        // The second does not follow.
        let mut linked = range(7);
        assert!(linked.take(&first));
        assert!(!linked.take(&block(8, Hash::of(b"other"), 0).0) && linked.blocks.len() == 1);
        assert!(linked.take(&block(8, parent, 0).0));

        let mut many = range(1);
        let mut parent = Hash::ZERO;
        let taken = (1..).take_while(|height| {
            let (next, hash) = block(*height, parent, 0);
            parent = hash;
            many.take(&next)
        });
        assert_eq!((taken.count() + 1, many.blocks.len()), (BLOCKS_MAX as usize, BLOCKS_MAX as usize));

        // No block orders so many batches, and small ones take many times as much in memory.
        for (batches, taken) in [(BLOCK_BATCHES_MAX, true), (BLOCK_BATCHES_MAX + 1, false)] {
            let (mut next, _) = block(1, Hash::ZERO, 1);
            next.batches = vec![next.batches[0].clone(); batches as usize];
            assert_eq!(range(1).take(&next), taken);
        }

        // Transactions of one byte take many times as much in memory.
        let mut small = range(1);
        let (next, _) = block(1, Hash::ZERO, 1000);
        assert!(small.take(&next));
        assert!(small.bytes >= 1000 * size_of::<Bytes>() + next.encoded_len(), "{}", small.bytes);
        let mut full = Range { bytes: ANSWER_BYTES_MAX, ..range(1) };
        assert!(!full.take(&next));
    }
}
