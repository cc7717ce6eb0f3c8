//! The bounds of streams, met by clients: too many of them, and one that is not read.

use std::time::{Duration, SystemTime};

use tally_proto::v1::{self, block_service_client::BlockServiceClient};
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::{
    network::{Network, Node, Plan, until},
    payer::transfer,
    rejections::{metadata, verdict},
};

/// Streams a node has open at a time, and calls on one connection.
const STREAMS_MAX: usize = 256;
/// How long a message may wait for its reader.
const SLOW_READER: Duration = Duration::from_secs(10);

type Blocks = Streaming<v1::StreamBlocksResponse>;

/// A connection of its own that takes no more than 64 KiB ahead of its reader.
async fn connect(node: &Node) -> BlockServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", node.client)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(1 << 20);
    BlockServiceClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(64 << 20)
}

async fn follow(client: &mut BlockServiceClient<Channel>, from_height: u64) -> Result<Blocks, Status> {
    let request = v1::StreamBlocksRequest { from_height, view: v1::BlockView::Full.into() };
    Ok(client.stream_blocks(request).await?.into_inner())
}

#[tokio::test]
async fn a_stream_too_many_is_refused_until_another_is_closed() {
    let network = Network::start(Plan::of(1)).await;
    let node = &network.nodes[0];
    let mut clients = [connect(node).await, connect(node).await];
    let mut streams = Vec::new();
    for number in 0..STREAMS_MAX {
        streams.push(follow(&mut clients[number % 2], 0).await.unwrap());
    }
    let transactions = v1::StreamTransactionsRequest::default();
    let refusals = [
        follow(&mut clients[0], 0).await.expect_err("one too many"),
        node.transactions().stream_transactions(transactions).await.expect_err("one too many"),
    ];
    for status in refusals {
        assert_eq!(verdict(&status), (Code::ResourceExhausted, "TOO_MANY_STREAMS".into()));
        assert_eq!(metadata(&status, "maximum"), STREAMS_MAX.to_string());
        assert!(status.get_details_retry_info().is_some(), "{status:?}");
    }
    // Other calls have room, and the streams that are open go on.
    let tip = node.height().await;
    node.reach(tip + 2).await;
    let first = streams[0].message().await.unwrap().unwrap().height;
    assert_eq!(streams[0].message().await.unwrap().unwrap().height, first + 1);
    drop(streams.swap_remove(7));
    let mut another = until("there is room again", async || follow(&mut clients[1], 1).await.ok()).await;
    assert_eq!(another.message().await.unwrap().unwrap().height, 1);
}

/// Adds blocks of some 200 KiB in all, more than a connection takes ahead of its reader.
async fn add_large_blocks(network: &Network) {
    let [mut alice, bob, _] = network.people();
    let mut last = String::new();
    for _ in 0..200 {
        let mut body = alice.body(vec![transfer(&bob.address, 1)]);
        body.memo = "x".repeat(256);
        alice.nonce += 1;
        last = network.nodes[0].submit(&alice.sign(&body)).await.unwrap();
    }
    network.nodes[0].receipt(&last).await;
    network.grow(2).await;
}

/// Reads on from the block after `height`, without a gap; the last height before `tip`, and how the stream ended there.
async fn read_to_its_end(stream: &mut Blocks, height: u64, tip: u64) -> (u64, Status) {
    for next in height + 1..=tip {
        match stream.message().await {
            Ok(message) => assert_eq!(message.expect("no end without a word").height, next),
            Err(status) => return (next - 1, status),
        }
    }
    panic!("the stream was not cut off before {tip}")
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_off_and_misses_nothing_when_it_resumes() {
    let network = Network::start(Plan::of(1)).await;
    let node = &network.nodes[0];
    add_large_blocks(&network).await;
    let tip = node.height().await;
    let mut stream = follow(&mut connect(node).await, 1).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().height, 1);
    // By the chain's own clock it takes nothing for longer than it may.
    let over: prost_types::Timestamp = (SystemTime::now() + SLOW_READER + SLOW_READER / 4).into();
    until("a block tells that the time is over", async || {
        let time = node.status().await.ok()?.latest_block_time?;
        ((time.seconds, time.nanos) > (over.seconds, over.nanos)).then_some(())
    })
    .await;
    // What was on its way arrives, and then the word.
    let (height, status) = read_to_its_end(&mut stream, 1, tip).await;
    assert_eq!(verdict(&status), (Code::ResourceExhausted, "SLOW_CONSUMER".into()));
    assert_eq!(metadata(&status, "next_height"), (height + 1).to_string());
    assert!(status.message().contains("resume from height"), "{status:?}");
    assert!(stream.message().await.unwrap().is_none());

    let mut resumed = follow(&mut connect(node).await, height + 1).await.unwrap();
    let tip = node.height().await;
    let mut parent = None;
    for expected in height + 1..=tip {
        let message = resumed.message().await.unwrap().unwrap();
        let block = message.block.unwrap();
        let header = block.header.unwrap();
        assert_eq!((message.height, header.height), (expected, expected));
        assert!(parent.is_none_or(|parent| parent == header.parent_hash), "{expected} follows another block");
        parent = Some(block.block_hash);
    }
}
