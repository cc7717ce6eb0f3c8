//! Payments that go through.

use tally_proto::v1::{ExecutionResult, TransactionState};
use tally_types::Address;

use crate::{
    network::{FEE, FUNDS, Network, Plan},
    payer::{Payer, create_account, transfer},
};

#[tokio::test]
async fn a_payment_through_one_node_is_final_on_all_with_the_same_receipt() {
    let network = Network::start(Plan::of(4)).await;
    let [mut alice, bob, _] = network.people();
    let transaction = alice.pay(&bob.address, 12_500_000_000);
    let id = network.nodes[1].submit(&transaction).await.unwrap();
    let receipt = network.nodes[1].receipt(&id).await;
    assert_eq!((receipt.result(), receipt.fee), (ExecutionResult::Ok, FEE));
    for node in &network.nodes {
        node.reach(receipt.height).await;
        let record = node.transaction(&id).await.unwrap();
        assert_eq!((record.state(), record.receipt), (TransactionState::Finalized, Some(receipt.clone())));
        assert_eq!(node.balance(&alice.name()).await, FUNDS - 12_500_000_000 - FEE);
        assert_eq!(node.balance(&bob.name()).await, FUNDS + 12_500_000_000);
    }
    network.assert_equal().await;
}

#[tokio::test]
async fn a_payment_to_oneself_costs_its_fee_and_mints_nothing() {
    let network = Network::start(Plan::of(1)).await;
    let [mut alice, ..] = network.people();
    let transaction = alice.pay(&alice.address.clone(), FUNDS - FEE);
    network.nodes[0].execute(&transaction).await;
    assert_eq!(network.nodes[0].balance(&alice.name()).await, FUNDS - FEE);
}

#[tokio::test]
async fn the_same_bytes_submitted_to_every_node_execute_once() {
    let network = Network::start(Plan::of(4)).await;
    let [mut alice, bob, _] = network.people();
    let transaction = alice.pay(&bob.address, 1000);
    let mut ids = Vec::new();
    for node in network.nodes.iter().chain(&network.nodes) {
        ids.push(node.submit(&transaction).await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    network.nodes[0].receipt(&ids[0]).await;
    // Once final, the answer is the same.
    network.grow(2).await;
    for node in &network.nodes {
        assert_eq!(node.submit(&transaction).await.unwrap(), ids[0]);
    }
    network.grow(2).await;
    for node in &network.nodes {
        assert_eq!(node.balance(&bob.name()).await, FUNDS + 1000);
        assert_eq!(node.balance(&alice.name()).await, FUNDS - 1000 - FEE);
        assert_eq!(node.account(&alice.name()).await.unwrap().next_nonce, 2);
    }
}

#[tokio::test]
async fn a_payout_of_64_operations_opens_and_pays_32_accounts_at_once() {
    let network = Network::start(Plan::of(4)).await;
    let [mut alice, ..] = network.people();
    let new: Vec<Address> = (0..32).map(|n| Payer::new(200 + n, &network.genesis.chain).address).collect();
    let operations = new.iter().flat_map(|one| [create_account(one, 10_000_000), transfer(one, 5)]).collect();
    let receipt = network.nodes[0].execute(&alice.transaction(operations)).await;
    assert_eq!(receipt.fee, 64 * FEE);
    network.reach(receipt.height).await;
    for node in &network.nodes {
        for one in &new {
            let account = node.account(&one.to_string()).await.unwrap();
            let expected = (10_000_005, alice.name(), receipt.height);
            assert_eq!((account.balance, account.creator, account.created_height), expected);
        }
        assert_eq!(node.balance(&alice.name()).await, FUNDS - 32 * 10_000_005 - 64 * FEE);
    }
}

#[tokio::test]
async fn nonces_may_be_used_out_of_order_within_the_window() {
    let network = Network::start(Plan::of(1)).await;
    let [mut alice, bob, _] = network.people();
    for nonce in [128, 3, 127, 1] {
        alice.nonce = nonce;
        network.nodes[0].execute(&alice.pay(&bob.address, nonce)).await;
    }
    assert_eq!(network.nodes[0].balance(&bob.name()).await, FUNDS + 128 + 3 + 127 + 1);
}
