//! SIGTERM, and the end of standard input: exit code 0 within seconds, whatever is going on.

use std::time::{Duration, Instant};

use tally_proto::v1;

use crate::{
    load::{Load, assert_still_final},
    network::{Network, Plan, until},
};

/// How long the end may take.
const GOODBYE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn nodes_end_at_sigterm_under_load_with_open_calls_and_come_back() {
    let mut network = Network::start(Plan { payers: 8, ..Plan::of(4) }).await;
    let mut load = Load::start(&network);
    load.more(20).await;
    let request = v1::StreamBlocksRequest { from_height: 1, view: 0 };
    let mut stream = network.nodes[3].blocks().stream_blocks(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let asked = Instant::now();
    let status = network.nodes[3].terminate().await;
    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() < GOODBYE, "{:?}", asked.elapsed());
    // The stream says that the node stops, or breaks off; it does not end as if the chain had.
    let end = async {
        while stream.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    assert!(end.await.is_err());
    load.more(20).await;
    network.nodes[3].start();
    load.more(20).await;
    let finals = load.stop().await;
    assert_still_final(&network, &finals).await;
    let asked = Instant::now();
    for node in &mut network.nodes {
        assert_eq!(node.terminate().await.code(), Some(0));
    }
    assert!(asked.elapsed() < GOODBYE * 4, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_node_ends_when_its_standard_input_does() {
    let mut network = Network::start(Plan::of(1)).await;
    let node = &mut network.nodes[0];
    let asked = Instant::now();
    node.close_stdin();
    let status = until("the node ends", async || node.ended()).await;
    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() < GOODBYE, "{:?}", asked.elapsed());
}
