//! kill -9, under load: what was reported as final stays final everywhere, and the network goes on.

use tally_proto::v1;

use crate::{
    load::{Load, assert_still_final},
    network::{Network, Plan},
};

async fn loaded() -> (Network, Load) {
    let network = Network::start(Plan { payers: 12, ..Plan::of(4) }).await;
    let mut load = Load::start(&network);
    load.more(40).await;
    (network, load)
}

async fn assert_nothing_is_lost(network: &Network, load: Load) {
    let finals = load.stop().await;
    assert_still_final(network, &finals).await;
    network.assert_equal().await;
    // Each payment was executed once: every payer has paid as often as its nonce says, and was paid as often.
    let all: u64 = network.nodes[0].balances().await.iter().map(|(_, _, next_nonce)| next_nonce - 1).sum();
    assert_eq!(all, finals.len() as u64);
    let height = network.height().await;
    network.reach(height + 2).await;
}

#[tokio::test]
async fn a_killed_node_comes_back_to_every_final_payment() {
    let (mut network, mut load) = loaded().await;
    for round in 0..3 {
        network.nodes[round].kill();
        load.more(30).await;
        network.nodes[round].start();
        load.more(30).await;
    }
    assert_nothing_is_lost(&network, load).await;
}

#[tokio::test]
async fn the_network_goes_on_without_its_leader() {
    let (mut network, mut load) = loaded().await;
    for _ in 0..3 {
        let leader = leader(&network).await;
        network.nodes[leader].kill();
        load.more(20).await;
        network.nodes[leader].start();
        let height = network.nodes[(leader + 1) % 4].height().await;
        network.reach(height).await;
    }
    load.more(20).await;
    assert_nothing_is_lost(&network, load).await;
}

/// The node that leads now, by what node 1 knows.
async fn leader(network: &Network) -> usize {
    let request = v1::GetLeaderScheduleRequest { from_view: 0, count: 1 };
    let slots = network.nodes[0].validators().get_leader_schedule(request).await.unwrap().into_inner().slots;
    for (place, node) in network.nodes.iter().enumerate() {
        if node.status().await.unwrap().validator == slots[0].leader {
            return place;
        }
    }
    panic!("{slots:?} names no node");
}

#[tokio::test]
async fn when_all_nodes_are_killed_at_once_nothing_final_is_lost() {
    let (mut network, mut load) = loaded().await;
    for _ in 0..2 {
        for node in &mut network.nodes {
            node.kill();
        }
        for node in &mut network.nodes {
            node.start();
        }
        load.more(40).await;
    }
    assert_nothing_is_lost(&network, load).await;
}
