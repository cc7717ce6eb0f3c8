//! GetBlock and ListBlocks.

use tally_proto::v1::{self, block_service_server::BlockService as _, get_block_request::BlockId};
use tally_types::{Hash, Header};

use super::world::{Start, World, address, ok, refused, request};
use crate::api::{limits::BLOCK_MESSAGE_BYTES_MAX, render::timestamp};

fn by_height(height: u64) -> v1::GetBlockRequest {
    v1::GetBlockRequest { block_id: Some(BlockId::Height(height)), view: 0 }
}

fn by_hash(hash: impl ToString) -> v1::GetBlockRequest {
    v1::GetBlockRequest { block_id: Some(BlockId::BlockHash(hash.to_string())), view: 0 }
}

#[tokio::test]
async fn a_block_is_told_by_height_by_hash_and_as_the_latest() {
    let mut world = World::new();
    let transactions = [world.transaction(5, 1), world.transaction(6, 1)];
    world.blocks(1);
    world.block(&transactions);
    let block = ok(world.api.get_block(request(by_height(2)))).await.block.unwrap();
    assert_eq!(block.tx_ids, transactions.each_ref().map(|transaction| world.id(transaction)));
    assert_eq!(block.block_hash, world.hashes[2].to_string());
    assert_eq!((block.header_bytes.len(), block.transactions.len(), block.certificate.clone()), (0, 0, None));
    let header = block.header.clone().unwrap();
    assert_eq!((header.height, header.view, header.epoch, header.executed_height), (2, 3, 0, 1));
    assert_eq!(
        (header.chain_id, header.parent_hash),
        (world.shared.genesis.chain.id.clone(), world.hashes[1].to_string())
    );
    assert_eq!(header.block_time, Some(timestamp(world.time())));
    let set = &world.shared.genesis.validators;
    assert_eq!(header.proposer, set.get(2).unwrap().address.to_string());
    assert_eq!(header.validator_set_hash, set.hash().to_string());
    assert_eq!(header.next_validator_set_hash, "");
    let tips: Vec<_> =
        header.cut.iter().map(|tip| (tip.producer.as_str(), tip.sequence, tip.digest.as_str())).collect();
    let names: Vec<_> = set.members().iter().map(|member| member.address.to_string()).collect();
    let digest = Hash::of(b"batch").to_string();
    assert_eq!(tips, [(&*names[0], 2, &*digest), (&*names[1], 0, ""), (&*names[2], 0, ""), (&*names[3], 0, "")]);

    assert_eq!(ok(world.api.get_block(request(by_hash(world.hashes[2])))).await.block.unwrap(), block);
    let latest = v1::GetBlockRequest::default();
    assert_eq!(ok(world.api.get_block(request(latest))).await.block.unwrap(), block);

    let full = v1::GetBlockRequest { view: v1::BlockView::Full.into(), ..by_height(2) };
    let full = ok(world.api.get_block(request(full))).await.block.unwrap();
    assert_eq!((full.header.as_ref(), &full.tx_ids), (block.header.as_ref(), &block.tx_ids));
    assert_eq!(Header::parse(&full.header_bytes).unwrap().hash(), world.hashes[2]);
    let sent: Vec<_> = full.transactions.iter().map(|record| record.transaction.clone().unwrap()).collect();
    assert_eq!(sent, transactions);
    assert_eq!(full.transactions[1].receipt.as_ref().unwrap().block_hash, full.block_hash);
    let certificate = full.certificate.unwrap();
    assert_eq!((certificate.epoch, certificate.view, certificate.block_hash), (0, 3, full.block_hash));
    let signers: Vec<_> = certificate.signatures.iter().map(|part| part.validator.clone()).collect();
    assert_eq!(signers, [0, 1, 3].map(|place| names[place].clone()));
    assert_eq!(certificate.signatures[0].signature, [7; 64]);
    // A block that a later one made final has no certificate of its own.
    world.blocks(1);
    let full = v1::GetBlockRequest { view: v1::BlockView::Full.into(), ..by_height(3) };
    assert_eq!(ok(world.api.get_block(request(full))).await.block.unwrap().certificate, None);
}

#[tokio::test]
async fn a_block_with_more_transactions_than_a_read_takes_is_told_whole() {
    let mut world = World::new();
    let sixth: Vec<_> = (1..=1200).map(|nonce| world.transaction(6, nonce)).collect();
    world.block(&sixth);
    let block = ok(world.api.get_block(request(by_height(1)))).await.block.unwrap();
    assert_eq!(block.tx_ids, sixth.iter().map(|transaction| world.id(transaction)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_block_that_is_not_there_is_not_found() {
    let mut world = World::new();
    let latest = refused(world.api.get_block(request(v1::GetBlockRequest::default()))).await;
    assert_eq!(latest, "NotFound BLOCK_NOT_FOUND height=0");
    world.blocks(2);
    assert_eq!(refused(world.api.get_block(request(by_height(0)))).await, "NotFound BLOCK_NOT_FOUND height=0");
    assert_eq!(refused(world.api.get_block(request(by_height(3)))).await, "NotFound BLOCK_NOT_FOUND height=3");
    let max = u64::MAX;
    assert_eq!(
        refused(world.api.get_block(request(by_height(max)))).await,
        format!("NotFound BLOCK_NOT_FOUND height={max}")
    );
    let genesis = world.hashes[0];
    let hash = refused(world.api.get_block(request(by_hash(genesis)))).await;
    assert_eq!(hash, format!("NotFound BLOCK_NOT_FOUND block_hash={genesis}"));
    assert_eq!(
        refused(world.api.get_block(request(by_hash("12")))).await,
        "InvalidArgument FIELD_INVALID bad=block_hash"
    );
    let view = v1::GetBlockRequest { view: 3, ..by_height(1) };
    assert_eq!(refused(world.api.get_block(request(view))).await, "InvalidArgument FIELD_INVALID bad=view");

    let mut pruned = World::start(Start { pruned: 4, ..Start::default() });
    pruned.blocks(2);
    assert_eq!(refused(pruned.api.get_block(request(by_height(4)))).await, "OutOfRange PRUNED earliest_height=5");
    assert_eq!(refused(pruned.api.get_block(request(by_height(0)))).await, "NotFound BLOCK_NOT_FOUND height=0");
    ok(pruned.api.get_block(request(by_height(5)))).await;
}

async fn heights(world: &World, mut message: v1::ListBlocksRequest) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let page = ok(world.api.list_blocks(request(message.clone()))).await;
        assert!(page.blocks.len() <= usize::try_from(message.page_size).unwrap());
        assert!(!page.blocks.is_empty() || page.next_page_token.is_empty());
        all.extend(page.blocks.iter().map(|block| block.header.as_ref().unwrap().height));
        message.page_token = page.next_page_token;
        if message.page_token.is_empty() {
            return all;
        }
    }
}

#[tokio::test]
async fn pages_of_blocks_of_every_size_make_the_same_list() {
    let mut whole = World::new();
    whole.blocks(7);
    let mut pruned = World::start(Start { pruned: 3, ..Start::default() });
    pruned.blocks(4);
    for (world, earliest) in [(&whole, 1), (&pruned, 4)] {
        for page_size in 1..=8 {
            for (min_height, max_height) in
                [(0, 0), (1, 7), (2, 6), (5, 5), (6, 4), (3, 100), (8, 0), (0, 2), (u64::MAX, u64::MAX)]
            {
                let last = if max_height == 0 { 7 } else { max_height.min(7) };
                let mut expected: Vec<_> = (min_height.max(earliest)..=last).collect();
                let message =
                    v1::ListBlocksRequest { page_size, min_height, max_height, order: 2, ..Default::default() };
                assert_eq!(heights(world, message.clone()).await, expected, "{message:?}");
                expected.reverse();
                let message = v1::ListBlocksRequest { order: 0, ..message };
                assert_eq!(heights(world, message.clone()).await, expected, "{message:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_page_of_blocks_has_a_bounded_size_and_its_own_token() {
    let mut world = World::new();
    world.blocks(30);
    let default = ok(world.api.list_blocks(request(v1::ListBlocksRequest::default()))).await;
    assert_eq!(default.blocks.len(), 20);
    let token = |page_token: &str| v1::ListBlocksRequest { page_token: page_token.into(), ..Default::default() };
    assert_eq!(ok(world.api.list_blocks(request(token(&default.next_page_token)))).await.blocks.len(), 10);
    for message in [
        v1::ListBlocksRequest { order: 2, ..token(&default.next_page_token) },
        v1::ListBlocksRequest { view: 2, ..token(&default.next_page_token) },
        v1::ListBlocksRequest { min_height: 1, ..token(&default.next_page_token) },
        token("zz"),
    ] {
        assert_eq!(refused(world.api.list_blocks(request(message))).await, "InvalidArgument PAGE_TOKEN_INVALID");
    }
    for (message, field) in [
        (v1::ListBlocksRequest { page_size: -1, ..Default::default() }, "page_size"),
        (v1::ListBlocksRequest { order: 9, ..Default::default() }, "order"),
        (v1::ListBlocksRequest { view: 9, ..Default::default() }, "view"),
    ] {
        let refused = refused(world.api.list_blocks(request(message))).await;
        assert_eq!(refused, format!("InvalidArgument FIELD_INVALID bad={field}"));
    }
    // Of blocks of more than half a page each, one fits on a page.
    let mut nonce = 0;
    for _ in 0..3 {
        let large = |nonce| world.sign(5, &world.body_of(5, nonce, vec![super::world::transfer(address(6), 1); 64]));
        let transactions: Vec<_> = (1..=60).map(|more| large(nonce + more)).collect();
        nonce += 60;
        world.block(&transactions);
    }
    let full = v1::ListBlocksRequest { view: 2, page_size: 3, ..Default::default() };
    let page = ok(world.api.list_blocks(request(full))).await;
    assert_eq!((page.blocks.len(), page.next_page_token.is_empty()), (1, false));
}

#[tokio::test]
async fn a_block_too_large_for_a_message_says_how_to_read_it() {
    let mut world = World::new();
    let large = |nonce| world.sign(5, &world.body_of(5, nonce, vec![super::world::transfer(address(6), 1); 64]));
    let one = prost::Message::encoded_len(&large(1));
    let count = u64::try_from(BLOCK_MESSAGE_BYTES_MAX / (2 * one)).unwrap() + 1;
    assert!(count * 64 * 11 < super::world::BALANCE);
    let transactions: Vec<_> = (1..=count).map(large).collect();
    world.block(&transactions);
    let full = v1::GetBlockRequest { view: v1::BlockView::Full.into(), ..by_height(1) };
    assert_eq!(refused(world.api.get_block(request(full))).await, "InvalidArgument FIELD_INVALID height=1 bad=view");
    ok(world.api.get_block(request(by_height(1)))).await;
}
