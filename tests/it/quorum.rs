//! More than two thirds of the stake, or nothing becomes final.

use tally_proto::v1::{self, ExecutionResult, TransactionState};
use tonic::Code;

use crate::{
    network::{FEE, FUNDS, Network, Node, Plan},
    payer::transfer,
    rejections::{metadata, verdict},
};

/// Waits `seconds` for a transaction that must still be pending then.
async fn assert_pending(node: &Node, id: &str, seconds: i64) {
    let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    let request = v1::WaitTransactionRequest { tx_id: id.into(), timeout };
    let record = node.transactions().wait_transaction(request).await.unwrap().into_inner().transaction.unwrap();
    assert_eq!((record.state(), record.receipt), (TransactionState::Pending, None));
}

#[tokio::test]
async fn four_validators_go_on_without_one_and_wait_without_two() {
    let mut network = Network::start(Plan::of(4)).await;
    let [mut alice, mut bob, carol] = network.people();

    network.nodes[3].kill();
    for node in &network.nodes[..3] {
        node.execute(&alice.pay(&bob.address, 1)).await;
    }
    network.grow(3).await;

    network.nodes[2].kill();
    let nodes = &network.nodes[..2];
    let pending = bob.pay(&carol.address, 7);
    let id = nodes[0].submit(&pending).await.unwrap();
    // What was decided before the second node fell is known within a second; after that, nothing more.
    assert_pending(&nodes[0], &id, 2).await;
    let heights = [nodes[0].height().await, nodes[1].height().await];
    assert_pending(&nodes[0], &id, 5).await;
    assert_eq!([nodes[0].height().await, nodes[1].height().await], heights);
    assert_eq!(nodes[0].balance(&carol.name()).await, FUNDS);

    // What is pending holds its nonce, and the same bytes again are no other transaction.
    assert_eq!(nodes[0].submit(&pending).await.unwrap(), id);
    assert_eq!(nodes[0].account(&bob.name()).await.unwrap().pending_nonce, 2);
    bob.nonce = 1;
    let status = nodes[0].submit(&bob.pay(&carol.address, 8)).await.unwrap_err();
    assert_eq!(verdict(&status), (Code::AlreadyExists, "NONCE_IN_USE".into()));
    assert_eq!(metadata(&status, "tx_id"), id);

    // Two payments that the balance allows one by one, but not both.
    let all = alice.body(vec![transfer(&carol.address, FUNDS - 10 * FEE)]);
    let both = [alice.nonce, alice.nonce + 1].map(|nonce| alice.sign(&v1::TransactionBody { nonce, ..all.clone() }));
    let mut ids = Vec::new();
    for transaction in &both {
        ids.push(nodes[0].submit(transaction).await.unwrap());
    }

    network.nodes[2].start();
    let nodes = &network.nodes[..3];
    assert_eq!(nodes[0].receipt(&id).await.result(), ExecutionResult::Ok);
    let results = [nodes[0].receipt(&ids[0]).await, nodes[0].receipt(&ids[1]).await];
    assert_eq!(results[0].result(), ExecutionResult::Ok);
    assert_eq!(results[1].result(), ExecutionResult::Failed);
    assert_eq!((results[1].failure_reason.as_str(), results[1].fee), ("INSUFFICIENT_FUNDS", FEE));
    assert_eq!(nodes[0].balance(&carol.name()).await, FUNDS + 7 + FUNDS - 10 * FEE);
    assert_eq!(nodes[0].balance(&alice.name()).await, FUNDS - 3 - 3 * FEE - (FUNDS - 10 * FEE) - 2 * FEE);

    network.nodes[3].start();
    network.nodes[3].reach(results[1].height).await;
    network.grow(2).await;
    network.assert_equal().await;
}

#[tokio::test]
async fn what_expires_while_nothing_becomes_final_never_runs() {
    let mut network = Network::start(Plan::of(4)).await;
    let [alice, bob, _] = network.people();
    network.nodes[3].kill();
    network.nodes[2].kill();
    let mut body = alice.body(vec![transfer(&bob.address, 5)]);
    body.expire_time = Some((std::time::SystemTime::now() + std::time::Duration::from_secs(3)).into());
    let id = network.nodes[0].submit(&alice.sign(&body)).await.unwrap();
    assert_pending(&network.nodes[0], &id, 5).await;
    network.nodes[2].start();
    let request =
        v1::WaitTransactionRequest { tx_id: id, timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }) };
    let record = network.nodes[0].transactions().wait_transaction(request).await.unwrap().into_inner();
    assert_eq!(record.transaction.unwrap().state(), TransactionState::Expired);
    network.grow(2).await;
    assert_eq!(network.nodes[0].balance(&alice.name()).await, FUNDS);
    assert_eq!(network.nodes[0].balance(&bob.name()).await, FUNDS);
    assert_eq!(network.nodes[0].account(&alice.name()).await.unwrap().next_nonce, 1);
}
