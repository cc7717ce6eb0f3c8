//! Following the chain and paging through it: nothing missed, nothing repeated.

use std::collections::BTreeMap;

use tally_proto::v1::{self, Order, TransactionState};

use crate::{
    load::Load,
    network::{Network, Node, Plan},
};

/// Every transaction through pages of `page_size`.
async fn transactions(
    node: &Node,
    account: &str,
    order: Order,
    page_size: i32,
    max_height: u64,
) -> Vec<v1::TransactionRecord> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListTransactionsRequest {
            page_size,
            page_token,
            account: account.into(),
            max_height,
            order: order.into(),
            ..Default::default()
        };
        let page = node.transactions().list_transactions(request).await.unwrap().into_inner();
        assert!(page.transactions.len() <= page_size as usize);
        all.extend(page.transactions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

fn ids(records: &[v1::TransactionRecord]) -> Vec<&str> {
    records.iter().map(|record| record.tx_id.as_str()).collect()
}

#[tokio::test]
async fn streams_from_the_first_block_have_no_seam_between_replay_and_follow() {
    let network = Network::start(Plan { payers: 8, ..Plan::of(4) }).await;
    let node = &network.nodes[2];
    let mut load = Load::start(&network);
    load.more(20).await;
    let blocks = v1::StreamBlocksRequest { from_height: 1, view: v1::BlockView::Full.into() };
    let mut blocks = node.blocks().stream_blocks(blocks).await.unwrap().into_inner();
    let from_first = v1::StreamTransactionsRequest { from_height: 1, ..Default::default() };
    let followed = node.transactions().stream_transactions(from_first.clone()).await.unwrap().into_inner();
    let account = network.payers()[0].name();
    let of_account = v1::StreamTransactionsRequest { account: account.clone(), ..from_first };
    let of_account = node.transactions().stream_transactions(of_account).await.unwrap().into_inner();
    load.more(60).await;
    load.stop().await;
    let tip = network.height().await;
    network.reach(tip).await;

    let (mut next, mut parent, mut in_blocks) = (1, network.genesis.chain.genesis_hash.to_string(), Vec::new());
    while next <= tip {
        let Some(block) = blocks.message().await.unwrap().unwrap().block else { continue };
        let header = block.header.unwrap();
        assert_eq!(header.height, next);
        if next > 1 {
            assert_eq!(header.parent_hash, parent);
        }
        assert_eq!(block.certificate.map(|certificate| certificate.block_hash), Some(block.block_hash.clone()));
        (next, parent) = (next + 1, block.block_hash);
        in_blocks.extend(block.transactions);
    }
    let read = |stream: tonic::Streaming<v1::StreamTransactionsResponse>| read_through(stream, tip);
    let followed = read(followed).await;
    let listed = transactions(node, "", Order::OldestFirst, 1000, tip).await;
    assert!(listed.len() >= 80, "{}", listed.len());
    assert_eq!(ids(&followed), ids(&listed));
    assert_eq!(ids(&in_blocks), ids(&listed));
    let listed = transactions(node, &account, Order::OldestFirst, 1000, tip).await;
    assert!(!listed.is_empty());
    assert_eq!(ids(&read(of_account).await), ids(&listed));

    // From in between, and from the next block on.
    let request = v1::StreamBlocksRequest { from_height: tip / 2, view: 0 };
    let mut middle = node.blocks().stream_blocks(request).await.unwrap().into_inner();
    assert_eq!(middle.message().await.unwrap().unwrap().height, tip / 2);
    let mut next = node.blocks().stream_blocks(v1::StreamBlocksRequest::default()).await.unwrap().into_inner();
    let first = next.message().await.unwrap().unwrap().height;
    let second = next.message().await.unwrap().unwrap().height;
    assert!(first > tip && second == first + 1, "{first}, {second} after {tip}");
}

/// What a stream tells until it has told everything up to `tip`.
async fn read_through(
    mut stream: tonic::Streaming<v1::StreamTransactionsResponse>,
    tip: u64,
) -> Vec<v1::TransactionRecord> {
    let (mut all, mut height) = (Vec::new(), 0);
    while height < tip {
        let message = stream.message().await.unwrap().unwrap();
        assert!(message.height >= height, "{} after {height}", message.height);
        height = message.height;
        all.extend(message.transactions.into_iter().filter(|one| one.receipt.as_ref().unwrap().height <= tip));
    }
    all
}

#[tokio::test]
async fn pages_of_any_size_and_order_tell_the_same_as_one() {
    let network = Network::start(Plan { payers: 6, ..Plan::of(1) }).await;
    let node = &network.nodes[0];
    let mut load = Load::start(&network);
    load.more(60).await;
    load.stop().await;
    let tip = network.height().await;
    let account = network.payers()[1].name();
    for of in ["", account.as_str()] {
        let all = transactions(node, of, Order::OldestFirst, 1000, tip).await;
        assert_eq!(ids(&transactions(node, of, Order::OldestFirst, 7, tip).await), ids(&all));
        let mut newest = transactions(node, of, Order::NewestFirst, 5, tip).await;
        newest.reverse();
        assert_eq!(ids(&newest), ids(&all));
        let mut places: Vec<_> =
            all.iter().map(|one| one.receipt.as_ref().map(|receipt| (receipt.height, receipt.index))).collect();
        let count = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), count);
    }

    let all = node.chain_up_to(tip).await;
    let mut found = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request =
            v1::ListBlocksRequest { page_size: 3, page_token, max_height: tip, min_height: 2, ..Default::default() };
        let page = node.blocks().list_blocks(request).await.unwrap().into_inner();
        for block in page.blocks {
            let height = block.header.as_ref().unwrap().height;
            assert!(found.keys().next().is_none_or(|lowest| height < *lowest), "newest first");
            found.insert(height, block);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found.into_values().collect::<Vec<_>>(), all[1..]);
    // A block by its hash is the block by its height.
    let by_hash = v1::get_block_request::BlockId::BlockHash(all[4].block_hash.clone());
    let request = v1::GetBlockRequest { block_id: Some(by_hash), view: 0 };
    assert_eq!(node.blocks().get_block(request).await.unwrap().into_inner().block.as_ref(), Some(&all[4]));
}

#[tokio::test]
async fn a_wait_on_one_node_hears_of_what_another_carried() {
    let network = Network::start(Plan::of(4)).await;
    let [mut alice, bob, _] = network.people();
    let transaction = alice.pay(&bob.address, 5);
    // Nobody has seen it: the wait ends with its timeout, which is no error.
    let wait = |id: &str, seconds: i64| {
        let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
        v1::WaitTransactionRequest { tx_id: id.into(), timeout }
    };
    let unknown =
        network.nodes[1].transactions().wait_transaction(wait(&"0".repeat(64), 1)).await.unwrap().into_inner();
    assert_eq!(unknown.transaction.unwrap().state(), TransactionState::Unknown);
    // The id is known before the transaction is sent.
    let id = tally_types::transaction::signed_bytes(&network.genesis.chain.genesis_hash, &transaction.body)
        .hash()
        .to_string();
    let mut client = network.nodes[1].transactions();
    let (waited, submitted) =
        tokio::join!(client.wait_transaction(wait(&id, 60)), network.nodes[0].submit(&transaction));
    assert_eq!(submitted.unwrap(), id);
    let waited = waited.unwrap().into_inner();
    let record = waited.transaction.unwrap();
    assert_eq!(record.state(), TransactionState::Finalized);
    assert!(waited.height >= record.receipt.unwrap().height);
}
