//! A block on its way in. What a message holds is counted before anything is made of it: forty mebibytes of empty batches would
//! be a gigabyte in memory.

use bytes::Buf;
use prost::{Message as _, decode_length_delimiter};
use tally_consensus::BLOCK_BATCHES_MAX;
use tally_proto::consensus as proto;
use tally_types::batch::BATCH_BYTES_MAX;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

/// Bytes of a header, or of a certificate: with 128 validators both are below 16 KiB.
const PART_BYTES_MAX: usize = 64 * 1024;

/// The fields of a block by their numbers, from 1 on: how often each may come, and with how many bytes.
const FIELDS: [(u64, usize); 3] = [(1, PART_BYTES_MAX), (BLOCK_BATCHES_MAX, BATCH_BYTES_MAX), (1, PART_BYTES_MAX)];

/// Asks for blocks, and reads them.
#[derive(Debug)]
pub(super) struct BlocksCodec;

/// Reads blocks.
#[derive(Debug)]
pub(super) struct BlocksDecoder;

impl Codec for BlocksCodec {
    type Encode = proto::FetchBlocksRequest;
    type Decode = proto::FetchBlocksResponse;
    type Encoder = ProstEncoder<proto::FetchBlocksRequest>;
    type Decoder = BlocksDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> BlocksDecoder {
        BlocksDecoder
    }
}

impl Decoder for BlocksDecoder {
    type Item = proto::FetchBlocksResponse;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let message = source.copy_to_bytes(source.remaining());
        if !is_at_most_a_block(&message) {
            return Err(Status::out_of_range("more than a block may hold"));
        }
        let block = proto::FetchBlocksResponse::decode(message);
        block.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Whether no field comes more often, or is larger, than in a block.
fn is_at_most_a_block(mut message: &[u8]) -> bool {
    let mut left = FIELDS;
    while !message.is_empty() {
        let Some((number, length)) = pass_field(&mut message) else { return false };
        let Some((times, bytes_max)) = number.checked_sub(1).and_then(|at| left.get_mut(at)) else { continue };
        if *times == 0 || length > *bytes_max {
            return false;
        }
        *times -= 1;
    }
    true
}

/// Passes over the next field of a message: its number, and the bytes of its content.
fn pass_field(message: &mut &[u8]) -> Option<(usize, usize)> {
    let varint = |message: &mut &[u8]| decode_length_delimiter(message).ok();
    let key = varint(message)?;
    let length = match key & 7 {
        0 => varint(message).map(|_| 0)?,
        1 => 8,
        2 => varint(message)?,
        5 => 4,
        _ => return None,
    };
    *message = message.get(length..)?;
    Some((key >> 3, length))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_message_that_holds_more_than_a_block_is_not_read() {
        let batch = Bytes::from(vec![7; BATCH_BYTES_MAX]);
        let largest = proto::FetchBlocksResponse {
            header: Bytes::from(vec![1; PART_BYTES_MAX]),
            batches: vec![batch; BLOCK_BATCHES_MAX as usize],
            commit: Some(proto::Certificate::default()),
        };
        let written = largest.encode_to_vec();
        let with = |bytes: &[u8]| [&written[..], bytes].concat();
        assert!(is_at_most_a_block(&written) && is_at_most_a_block(&[]));
        // What is not known yet is passed over, as protobuf does: a varint, eight bytes, four bytes, a string.
        assert!(is_at_most_a_block(&with(&[
            0x20, 0x96, 0x01, 0x29, 1, 2, 3, 4, 5, 6, 7, 8, 0x35, 1, 2, 3, 4, 0x3a, 1, 9
        ])));
        // Each field once more, and each a byte longer.
        for field in [1u8, 2, 3] {
            assert!(!is_at_most_a_block(&with(&[field << 3 | 2, 0])), "field {field}");
            let (_, most) = FIELDS[field as usize - 1];
            let alone = |bytes: usize| {
                let mut message = vec![field << 3 | 2];
                prost::encode_length_delimiter(bytes, &mut message).unwrap();
                message.resize(message.len() + bytes, 0);
                message
            };
            assert!(is_at_most_a_block(&alone(most)) && !is_at_most_a_block(&alone(most + 1)), "field {field}");
        }
        // The end of a group, a key without content, a length beyond the end.
        for broken in
            [&[0x0c][..], &[0x12], &[0x12, 1], &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]
        {
            assert!(!is_at_most_a_block(&with(broken)), "{broken:?}");
        }
        // Twenty million empty batches.
        assert!(!is_at_most_a_block(&[0x12, 0].repeat(20 << 20)));
    }
}
