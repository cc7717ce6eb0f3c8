//! Two processes with one validator's key: the mistake that locks cannot prevent on two machines.

use tally_proto::v1;

use crate::{
    load::{Load, assert_still_final},
    network::{Network, Node, Plan, copy_folder, free_ports, until},
};

#[tokio::test]
async fn two_nodes_sign_with_one_key_and_are_convicted_while_the_network_goes_on() {
    let mut network = Network::start(Plan { payers: 8, ..Plan::of(4) }).await;
    let mut load = Load::start(&network);
    load.more(20).await;
    network.nodes[3].terminate().await;
    let home = network.folder.path().join("twin");
    copy_folder(&network.nodes[3].home, &home).unwrap();
    let ports = free_ports(2);
    let mut twin = Node::new(home, ports[0], ports[1]);
    let flags = [twin.client.to_string(), twin.peer.to_string()];
    // Without a quorum nothing is ordered, so what each of the two seals in the one lane of their one key meets the other's.
    network.nodes[1].terminate().await;
    network.nodes[2].terminate().await;
    network.nodes[3].start();
    twin.start_with(&["--client-listen", &flags[0], "--peer-listen", &flags[1]]);
    let [mut alice, mut bob, _] = network.people();
    for (node, payment) in [(&twin, alice.pay(&bob.address, 1)), (&network.nodes[3], bob.pay(&alice.address, 1))] {
        until("both take a payment", async || node.submit(&payment).await.ok()).await;
    }
    until("the double batch convicts", async || {
        let all = convictions(&network.nodes[0]).await;
        all.iter().any(|one| one.kind() == v1::EvidenceKind::DoubleBatch).then_some(())
    })
    .await;
    network.nodes[1].start();
    network.nodes[2].start();
    load.more(100).await;
    network.nodes[3].terminate().await;
    load.more(20).await;
    let finals = load.stop().await;
    assert_still_final(&network, &finals).await;
    network.assert_equal().await;
    // Only the one whose key was used twice is convicted, and a restart forgets nothing.
    let before = convictions(&network.nodes[0]).await;
    network.nodes[0].terminate().await;
    network.nodes[0].start();
    network.nodes[0].reach(1).await;
    let after = convictions(&network.nodes[0]).await;
    assert_eq!(after[..before.len()], before[..]);
    let twin_address = twin_address(&network, &network.nodes[0]).await;
    for node in network.running() {
        let all = convictions(node).await;
        assert!(all.iter().all(|one| one.validator == twin_address), "{all:?}");
    }
}

async fn convictions(node: &Node) -> Vec<v1::Evidence> {
    let request = v1::ListEvidenceRequest { page_size: 1000, ..Default::default() };
    node.validators().list_evidence(request).await.unwrap().into_inner().evidence
}

/// The operator of node 4, by what `node` knows: the validator that is no other node's.
async fn twin_address(network: &Network, node: &Node) -> String {
    let set = node.validators().list_validators(v1::ListValidatorsRequest::default()).await.unwrap().into_inner();
    let mut others = Vec::new();
    for other in network.running() {
        others.push(other.status().await.unwrap().validator);
    }
    let twin = set.validators.into_iter().find(|validator| !others.contains(&validator.address));
    twin.expect("three of four run").address
}
