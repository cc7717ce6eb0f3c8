//! Two processes with one validator's key: the mistake that locks cannot prevent on two machines.

use tally_proto::v1;

use crate::{
    load::{Load, assert_still_final},
    network::{Network, Node, Plan, copy_folder, free_ports},
};

#[tokio::test]
async fn the_network_goes_on_without_a_fork_while_two_nodes_sign_with_one_key() {
    let mut network = Network::start(Plan { payers: 8, ..Plan::of(4) }).await;
    let mut load = Load::start(&network);
    load.more(20).await;
    network.nodes[3].terminate().await;
    let home = network.folder.path().join("twin");
    copy_folder(&network.nodes[3].home, &home).unwrap();
    let ports = free_ports(2);
    let mut twin = Node::new(home, ports[0], ports[1]);
    let flags = [twin.client.to_string(), twin.peer.to_string()];
    network.nodes[3].start();
    twin.start_with(&["--client-listen", &flags[0], "--peer-listen", &flags[1]]);
    twin.reach(1).await;
    load.more(100).await;
    network.nodes[3].terminate().await;
    load.more(20).await;
    let finals = load.stop().await;
    assert_still_final(&network, &finals).await;
    network.assert_equal().await;
    for node in network.running() {
        let evidence = node.validators().list_evidence(v1::ListEvidenceRequest::default()).await.unwrap().into_inner();
        // Only the one whose key was used twice can be convicted.
        let twin = twin_address(&network, node).await;
        assert!(evidence.evidence.iter().all(|one| one.validator == twin), "{:?}", evidence.evidence);
    }
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
