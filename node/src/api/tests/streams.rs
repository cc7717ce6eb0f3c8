//! StreamBlocks and StreamTransactions: no gap, no repeat, no end but with a word.

use std::time::Duration;

use tally_proto::v1::{
    self, block_service_server::BlockService as _, transaction_service_server::TransactionService as _,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::world::{Start, World, address, ok, refused, request, shown, transfer, until};
use crate::api::{Limits, limits::PAGE_BYTES_MAX};

fn blocks(from_height: u64) -> v1::StreamBlocksRequest {
    v1::StreamBlocksRequest { from_height, view: 0 }
}

fn transactions(from_height: u64, account: Option<u8>) -> v1::StreamTransactionsRequest {
    let account = account.map(|seed| address(seed).to_string()).unwrap_or_default();
    v1::StreamTransactionsRequest { from_height, account, view: 0 }
}

/// The next message, within ten seconds.
async fn next<M>(stream: &mut (impl Stream<Item = Result<M, Status>> + Unpin)) -> Option<Result<M, Status>> {
    tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("a message within ten seconds")
}

fn memos(message: &v1::StreamTransactionsResponse) -> Vec<String> {
    message.transactions.iter().map(|record| record.body.as_ref().unwrap().memo.clone()).collect()
}

#[tokio::test]
async fn blocks_are_told_once_each_across_replay_and_follow() {
    let mut world = World::new();
    world.blocks(150);
    let mut stream = ok(world.api.stream_blocks(request(blocks(3)))).await;
    for height in 3..=400 {
        // The chain grows while it is replayed, and goes on when the replay has caught up.
        if height % 2 == 0 || height == world.height() {
            world.blocks(3);
        }
        let message = next(&mut stream).await.unwrap().unwrap();
        assert_eq!(message.height, height);
        let block = message.block.unwrap();
        assert_eq!(block.block_hash, world.hashes[usize::try_from(height).unwrap()].to_string());
    }
}

#[tokio::test]
async fn a_stream_from_zero_starts_with_the_next_block() {
    let mut world = World::new();
    world.blocks(5);
    let mut stream = ok(world.api.stream_blocks(request(blocks(0)))).await;
    let mut ahead = ok(world.api.stream_blocks(request(blocks(8)))).await;
    world.blocks(3);
    for height in 6..=8 {
        assert_eq!(next(&mut stream).await.unwrap().unwrap().height, height);
    }
    assert_eq!(next(&mut ahead).await.unwrap().unwrap().block.unwrap().header.unwrap().height, 8);
}

#[tokio::test]
async fn transactions_are_told_once_each_one_message_per_block() {
    let mut world = World::new();
    let mut nonce = 0;
    let mut block = |world: &mut World, count: u64| {
        let height = world.height() + 1;
        let transactions: Vec<_> = (0..count)
            .map(|index| {
                nonce += 1;
                let mut body = world.body(5, nonce);
                body.memo = format!("{height}/{index}");
                if index == 1 {
                    body.operations = vec![transfer(address(2), 1)];
                }
                world.sign(5, &body)
            })
            .collect();
        world.block(&transactions);
    };
    for count in [2, 0, 1, 600, 3] {
        block(&mut world, count);
    }
    let mut all = ok(world.api.stream_transactions(request(transactions(2, None)))).await;
    let mut some = ok(world.api.stream_transactions(request(transactions(1, Some(2))))).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(next(&mut all).await.unwrap().unwrap());
    }
    // A block with more than a read takes comes in parts; only the last says that it was the last.
    assert_eq!(told.iter().map(|message| message.height).collect::<Vec<_>>(), [3, 3, 4, 5]);
    let memos_told: Vec<_> = told.iter().flat_map(memos).collect();
    let expected: Vec<_> = [(3, 1), (4, 600), (5, 3)]
        .iter()
        .flat_map(|(height, count)| (0..*count).map(move |index| format!("{height}/{index}")))
        .collect();
    assert_eq!(memos_told, expected);
    for expected in ["1/1", "4/1", "5/1"] {
        assert_eq!(memos(&next(&mut some).await.unwrap().unwrap()), [expected]);
    }
    for count in [0, 1, 2] {
        block(&mut world, count);
    }
    assert_eq!(memos(&next(&mut all).await.unwrap().unwrap()), ["7/0"]);
    assert_eq!(memos(&next(&mut all).await.unwrap().unwrap()), ["8/0", "8/1"]);
    let last = next(&mut some).await.unwrap().unwrap();
    assert_eq!((last.height, memos(&last)), (8, vec!["8/1".to_owned()]));
}

#[tokio::test]
async fn messages_of_transactions_are_bounded_in_bytes() {
    let mut world = World::new();
    let large = |nonce| world.sign(5, &world.body_of(5, nonce, vec![transfer(address(6), 1); 64]));
    let sent: Vec<_> = (1..=120).map(large).collect();
    world.block(&sent);
    let message = v1::StreamTransactionsRequest { view: v1::TransactionView::Full.into(), ..transactions(1, None) };
    let mut stream = ok(world.api.stream_transactions(request(message))).await;
    let mut told = Vec::new();
    while told.len() < 120 {
        let message = next(&mut stream).await.unwrap().unwrap();
        assert!(prost::Message::encoded_len(&message) <= PAGE_BYTES_MAX);
        told.extend(message.transactions.iter().map(|record| record.transaction.clone().unwrap()));
        assert_eq!(message.height, u64::from(told.len() == 120));
    }
    assert_eq!(told, sent);
}

#[tokio::test]
async fn a_silent_stream_says_how_far_it_is() {
    let mut world = World::with(Limits { heartbeat: Duration::from_millis(5), ..Limits::default() });
    world.blocks(2);
    let mut stream = ok(world.api.stream_blocks(request(blocks(0)))).await;
    for _ in 0..3 {
        let message = next(&mut stream).await.unwrap().unwrap();
        assert_eq!((message.height, message.block), (2, None));
    }
    let mut stream = ok(world.api.stream_transactions(request(transactions(1, Some(2))))).await;
    for _ in 0..3 {
        let message = next(&mut stream).await.unwrap().unwrap();
        assert_eq!((message.height, message.transactions.len()), (2, 0));
    }
    // Empty blocks move it on.
    world.blocks(1);
    while next(&mut stream).await.unwrap().unwrap().height != 3 {}
    // What is not there yet is not told to be delivered.
    let mut ahead = ok(world.api.stream_blocks(request(blocks(10)))).await;
    assert_eq!(next(&mut ahead).await.unwrap().unwrap().height, 9);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_loses_the_stream_and_learns_where_to_resume() {
    let mut world = World::with(Limits { slow_reader: Duration::from_millis(5), ..Limits::default() });
    world.blocks(10);
    let mut stream = ok(world.api.stream_blocks(request(blocks(4)))).await;
    until(async || stream.is_ended()).await;
    // What waits is still delivered.
    assert_eq!(next(&mut stream).await.unwrap().unwrap().height, 4);
    let end = next(&mut stream).await.unwrap().unwrap_err();
    assert_eq!(shown(&end), "ResourceExhausted SLOW_CONSUMER next_height=5");
    assert!(next(&mut stream).await.is_none());
    let mut stream = ok(world.api.stream_blocks(request(blocks(5)))).await;
    assert_eq!(next(&mut stream).await.unwrap().unwrap().height, 5);
}

#[tokio::test]
async fn streams_end_with_the_node_and_say_so() {
    let world = World::new();
    let mut following = ok(world.api.stream_blocks(request(blocks(0)))).await;
    let mut others = ok(world.api.stream_transactions(request(transactions(0, None)))).await;
    world.closing.send_replace(true);
    let end = next(&mut following).await.unwrap().unwrap_err();
    assert_eq!(shown(&end), "Unavailable NOT_ACCEPTING retry");
    assert!(next(&mut following).await.is_none());
    assert_eq!(shown(&next(&mut others).await.unwrap().unwrap_err()), "Unavailable NOT_ACCEPTING retry");
}

#[tokio::test]
async fn streams_are_bounded_and_a_reader_that_left_makes_room() {
    let world = World::with(Limits { streams_max: 2, ..Limits::default() });
    let one = ok(world.api.stream_blocks(request(blocks(0)))).await;
    let _two = ok(world.api.stream_transactions(request(transactions(0, None)))).await;
    let full = "ResourceExhausted TOO_MANY_STREAMS maximum=2 retry";
    assert_eq!(refused(world.api.stream_blocks(request(blocks(0)))).await, full);
    assert_eq!(refused(world.api.stream_transactions(request(transactions(0, None)))).await, full);
    drop(one);
    ok(world.api.stream_blocks(request(blocks(0)))).await;
}

#[tokio::test]
async fn a_stream_that_cannot_start_is_refused() {
    let mut world = World::start(Start { pruned: 4, ..Start::default() });
    world.blocks(2);
    assert_eq!(refused(world.api.stream_blocks(request(blocks(4)))).await, "OutOfRange PRUNED earliest_height=5");
    let early = refused(world.api.stream_transactions(request(transactions(1, None)))).await;
    assert_eq!(early, "OutOfRange PRUNED earliest_height=5");
    let view = v1::StreamBlocksRequest { view: 3, ..blocks(5) };
    assert_eq!(refused(world.api.stream_blocks(request(view))).await, "InvalidArgument FIELD_INVALID bad=view");
    let account = v1::StreamTransactionsRequest { account: "me".into(), ..transactions(5, None) };
    let account = refused(world.api.stream_transactions(request(account))).await;
    assert_eq!(account, "InvalidArgument ADDRESS_INVALID field=account value=me bad=account");
    let mut stream = ok(world.api.stream_blocks(request(blocks(5)))).await;
    assert_eq!(next(&mut stream).await.unwrap().unwrap().height, 5);
}
