//! More transactions than a node takes: who sends too many is told so, whoever else sends is not, and what was admitted
//! becomes final.

use tally_proto::v1;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    network::{FEE, FUNDS, Network, Node, Plan, until},
    payer::Payer,
    rejections::{metadata, verdict},
};

/// Transactions a node keeps pending in all, and of one sender.
const PENDING_MAX: usize = 20_000;
const PENDING_PER_SENDER_MAX: usize = 10_000;
/// Calls open at a time: fewer than the 128 nonces that may overtake one.
const CALLS: usize = 64;

/// Submits in order, [`CALLS`] at a time, until some are refused: these refusals, or none.
async fn flood(node: &Node, transactions: &[v1::Transaction]) -> Vec<Status> {
    for some in transactions.chunks(CALLS) {
        let mut calls = JoinSet::new();
        for transaction in some {
            let mut client = node.transactions();
            let request = v1::SubmitTransactionRequest { transaction: Some(transaction.clone()) };
            calls.spawn(async move { client.submit_transaction(request).await.err() });
        }
        let refused: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
        if !refused.is_empty() {
            return refused;
        }
    }
    Vec::new()
}

fn payments(payer: &mut Payer, to: &Payer, count: usize) -> Vec<v1::Transaction> {
    (0..count).map(|_| payer.pay(&to.address, 1)).collect()
}

#[tokio::test]
async fn a_full_node_refuses_a_flood_and_carries_all_it_admitted() {
    let mut network = Network::start(Plan::of(4)).await;
    let [mut alice, mut bob, mut carol] = network.people();
    // Without a quorum nothing becomes final, so everything stays pending.
    network.nodes[3].kill();
    network.nodes[2].kill();
    let node = &network.nodes[0];

    let of_alice = payments(&mut alice, &bob, PENDING_PER_SENDER_MAX);
    // A disk that is slow for a moment may let the queue to it fill; then she tries again, as she is told.
    let admitted = async || flood(node, &of_alice).await.is_empty().then_some(());
    until("alice has as many pending as she may", admitted).await;
    let one_more = alice.pay(&bob.address, 1);
    let status = node.submit(&one_more).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::ResourceExhausted, "SENDER_LIMIT".into()));
    let numbers = ["pending", "maximum"].map(|key| metadata(&status, key));
    assert_eq!(numbers, [PENDING_PER_SENDER_MAX.to_string(), PENDING_PER_SENDER_MAX.to_string()]);
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
    // That is nobody else's affair.
    let of_bob = node.submit(&bob.pay(&carol.address, 7)).await.unwrap();

    // Others fill what is left; where batches wait for a place in the lane, a little before the last place is taken.
    let of_carol = payments(&mut carol, &bob, PENDING_MAX - PENDING_PER_SENDER_MAX);
    let mut before = 0;
    let pending = until("carol finds no more room", async || {
        let refused = flood(node, &of_carol).await;
        assert!(!refused.is_empty(), "bob has one of the places");
        for status in &refused {
            assert_eq!(verdict(status), (Code::ResourceExhausted, "MEMPOOL_FULL".into()));
            assert!(status.get_details_retry_info().is_some(), "{status:?}");
        }
        let pending = usize::try_from(node.status().await.ok()?.mempool_size).unwrap();
        let is_full = pending == PENDING_MAX || pending == before;
        before = pending;
        is_full.then_some(pending)
    })
    .await;
    let full = node.submit(&bob.pay(&carol.address, 8)).await.unwrap_err();
    assert_eq!(verdict(&full), (Code::ResourceExhausted, "MEMPOOL_FULL".into()));
    bob.nonce -= 1;
    assert_eq!(usize::try_from(node.status().await.unwrap().mempool_size).unwrap(), pending);
    assert!(pending > PENDING_MAX * 3 / 4 && pending <= PENDING_MAX, "{pending}");
    let carols = (pending - PENDING_PER_SENDER_MAX - 1) as u64;
    // What is pending is no news, however full it is.
    assert!(node.submit(&of_alice[0]).await.is_ok());
    // Another node has room.
    let elsewhere = network.nodes[1].submit(&bob.pay(&carol.address, 8)).await.unwrap();

    network.nodes[2].start();
    let node = &network.nodes[0];
    until("all that was pending is final", async || (node.status().await.ok()?.mempool_size == 0).then_some(())).await;
    for id in [of_bob, elsewhere] {
        assert_eq!(node.receipt(&id).await.result(), v1::ExecutionResult::Ok);
    }
    node.execute(&one_more).await;
    node.execute(&bob.pay(&carol.address, 9)).await;
    // Every payment that was admitted was made, once, and none that was refused.
    let alices = PENDING_PER_SENDER_MAX as u64 + 1;
    let expected = [
        (&alice, FUNDS - alices * (1 + FEE)),
        (&bob, FUNDS + alices + carols - (7 + 8 + 9) - 3 * FEE),
        (&carol, FUNDS - carols * (1 + FEE) + (7 + 8 + 9)),
    ];
    for (payer, balance) in expected {
        assert_eq!(node.balance(&payer.name()).await, balance, "{}", payer.name());
    }
    network.assert_equal().await;
}
