//! BlockService: blocks out of the index. Genesis is height 0 and no block.

use tally_proto::v1::{self, ErrorReason, block_service_server::BlockService, get_block_request::BlockId};
use tally_types::{Genesis, Hash};
use tonic::{Request, Response, Status};

use super::{
    Api,
    errors::Refusal,
    limits::PAGE_BYTES_MAX,
    pages::{Query, Room, page_size},
    render::{Renderer, is_full_block, is_oldest_first},
    streams::{Delivery, Feed, Piece, pruned},
};
use crate::store::index::{Index, IndexedBlock};

/// Blocks a stream reads at a time.
const STREAM_BLOCKS_MAX: usize = 64;

#[tonic::async_trait]
impl BlockService for Api {
    type StreamBlocksStream = Delivery<v1::StreamBlocksResponse>;

    async fn get_block(&self, request: Request<v1::GetBlockRequest>) -> Result<Response<v1::GetBlockResponse>, Status> {
        let request = request.into_inner();
        let is_full = is_full_block(request.view)?;
        let wanted = match request.block_id {
            None => Wanted::Height(self.latest().height.0),
            Some(BlockId::Height(height)) => Wanted::Height(height),
            Some(BlockId::BlockHash(text)) => {
                let hash = Hash::from_hex(&text);
                Wanted::Hash(hash.ok_or_else(|| Refusal::field("block_hash", "is not 64 lower-case hex digits"))?)
            }
        };
        let genesis = self.shared().genesis.clone();
        let block = self.read(move |index| {
            let found = find(index, &wanted)?;
            Renderer::new(index, &genesis, is_full).block(&found)
        });
        Ok(Response::new(v1::GetBlockResponse { block: Some(block.await?) }))
    }

    async fn list_blocks(
        &self,
        request: Request<v1::ListBlocksRequest>,
    ) -> Result<Response<v1::ListBlocksResponse>, Status> {
        let request = request.into_inner();
        let size = page_size(request.page_size, 20, 200)?;
        let is_full = is_full_block(request.view)?;
        let is_oldest_first = is_oldest_first(request.order)?;
        let asked = v1::ListBlocksRequest { page_size: 0, page_token: String::new(), ..request };
        let query = Query::new("ListBlocks", &self.shared().genesis.chain.genesis_hash, &asked);
        let from = query.position(&request.page_token)?.map(u64::from_be_bytes);
        let tip = self.latest().height.0;
        let mut first = request.min_height.max(1);
        let mut last = if request.max_height == 0 { tip } else { request.max_height.min(tip) };
        match is_oldest_first {
            true => first = first.max(from.unwrap_or(first)),
            false => last = last.min(from.unwrap_or(last)),
        }
        let genesis = self.shared().genesis.clone();
        let page = self.read(move |index| {
            let found = match is_oldest_first {
                true => index.blocks(first, last, size)?,
                false => newest_first(index, first, last, size)?,
            };
            let mut renderer = Renderer::new(index, &genesis, is_full);
            let mut room = Room::for_items(size);
            let mut blocks = Vec::new();
            for block in &found {
                let message = renderer.block(block)?;
                if !room.take(prost::Message::encoded_len(&message)) {
                    break;
                }
                blocks.push(message);
            }
            let end = blocks.len().checked_sub(1).and_then(|end| found.get(end)).map(|block| block.height);
            let next = match (end, is_oldest_first) {
                (Some(end), true) => end.checked_add(1).filter(|next| *next <= last),
                (Some(end), false) => end.checked_sub(1).filter(|next| *next >= first),
                (None, _) => None,
            };
            // Below what this node holds there is no next page.
            let next = match next {
                Some(next) if index.block(next)?.is_some() => Some(next),
                _ => None,
            };
            Ok((blocks, next))
        });
        let (blocks, next) = page.await?;
        let next_page_token = next.map(|next| query.token(&next.to_be_bytes())).unwrap_or_default();
        Ok(Response::new(v1::ListBlocksResponse { blocks, next_page_token }))
    }

    async fn stream_blocks(
        &self,
        request: Request<v1::StreamBlocksRequest>,
    ) -> Result<Response<Self::StreamBlocksStream>, Status> {
        let request = request.into_inner();
        let is_full = is_full_block(request.view)?;
        let next = self.first_height(request.from_height).await?;
        Ok(Response::new(self.follow(Blocks { next, is_full }, next)?))
    }
}

#[derive(Debug)]
enum Wanted {
    Height(u64),
    Hash(Hash),
}

fn find(index: &Index, wanted: &Wanted) -> Result<IndexedBlock, Refusal> {
    let height = match wanted {
        Wanted::Height(height) => Some(*height),
        Wanted::Hash(hash) => index.block_height_by_hash(hash.as_bytes())?,
    };
    let found = height.map(|height| index.block(height)).transpose()?.flatten();
    if let Some(block) = found {
        return Ok(block);
    }
    let earliest = index.blocks(0, u64::MAX, 1)?.first().map(|block| block.height);
    Err(match (wanted, earliest) {
        (Wanted::Height(height), Some(earliest)) if (1..earliest).contains(height) => pruned(*height, earliest),
        (Wanted::Height(0), _) => {
            let message = "height 0 is genesis, which is no block; see ChainService.GetGenesis";
            Refusal::new(ErrorReason::BlockNotFound, message).with("height", 0)
        }
        (Wanted::Height(height), _) => {
            let message = format!("there is no block {height} here yet");
            Refusal::new(ErrorReason::BlockNotFound, message).with("height", height)
        }
        (Wanted::Hash(hash), _) => {
            let message = format!("no block here has the hash {hash}");
            Refusal::new(ErrorReason::BlockNotFound, message).with("block_hash", hash)
        }
    })
}

/// Up to `size` blocks from `last` down.
fn newest_first(index: &Index, first: u64, last: u64, size: usize) -> Result<Vec<IndexedBlock>, Refusal> {
    let ahead = u64::try_from(size).unwrap_or(u64::MAX).saturating_sub(1);
    let mut found = index.blocks(last.saturating_sub(ahead).max(first), last, size)?;
    found.reverse();
    Ok(found)
}

/// Every block, one message each.
#[derive(Debug)]
struct Blocks {
    next: u64,
    is_full: bool,
}

impl Feed for Blocks {
    type Message = v1::StreamBlocksResponse;

    fn read(&mut self, index: &Index, genesis: &Genesis, tip: u64) -> Result<Piece<Self::Message>, Refusal> {
        let mut renderer = Renderer::new(index, genesis, self.is_full);
        let mut messages = Vec::new();
        let mut bytes = 0usize;
        for block in index.blocks(self.next, tip, STREAM_BLOCKS_MAX)? {
            if block.height != self.next {
                break;
            }
            let message = renderer.block(&block)?;
            bytes = bytes.saturating_add(prost::Message::encoded_len(&message));
            messages.push((block.height, v1::StreamBlocksResponse { height: block.height, block: Some(message) }));
            self.next = self.next.saturating_add(1);
            if bytes > PAGE_BYTES_MAX {
                break;
            }
        }
        if messages.is_empty() {
            return Err(Refusal::internal("the index lacks a block", &format_args!("block {}", self.next)));
        }
        Ok(Piece { messages, through: self.next.saturating_sub(1) })
    }

    fn heartbeat(height: u64) -> Self::Message {
        v1::StreamBlocksResponse { height, block: None }
    }
}
