//! A validator that lost its journal follows for two epochs before it signs again. Rule R3.

use std::{fs, path::Path};

use tally_proto::v1;
use tally_types::Params;
use tonic::Code;

use crate::{
    load::{Load, assert_still_final},
    network::{Network, Node, Plan, succeed, tally_node, until},
    payer::transfer,
    rejections::verdict,
};

/// Takes away everything a node wrote while it ran; its key, genesis and configuration stay.
fn wipe(home: &Path) {
    fs::remove_dir_all(home.join("journal")).unwrap();
    fs::remove_dir_all(home.join("snapshots")).unwrap();
    fs::remove_file(home.join("index.redb")).unwrap();
}

/// The heights above `above` of blocks that `validator` signed the commit of, by what `node` knows.
async fn signed_by(node: &Node, validator: &str, above: u64) -> Vec<v1::BlockHeader> {
    let request = v1::ListBlocksRequest {
        page_size: 200,
        min_height: above + 1,
        order: v1::Order::OldestFirst.into(),
        view: v1::BlockView::Full.into(),
        ..Default::default()
    };
    let blocks = node.blocks().list_blocks(request).await.unwrap().into_inner().blocks;
    let signed = |block: &v1::Block| {
        let certificate = block.certificate.as_ref();
        certificate.is_some_and(|certificate| certificate.signatures.iter().any(|one| one.validator == validator))
    };
    blocks.into_iter().filter(signed).filter_map(|block| block.header).collect()
}

#[tokio::test]
async fn a_wiped_validator_catches_up_and_votes_again_two_epochs_later() {
    let params = Params { epoch_blocks: 16, execution_window: 8, idle_interval_ms: 100, ..Params::default() };
    let mut network = Network::start(Plan { params, payers: 4, ..Plan::of(4) }).await;
    let [mut alice, bob, _] = network.people();
    // Every node has carried transactions, the wiped one too.
    let mut load = Load::start(&network);
    load.more(40).await;
    network.nodes[3].execute(&alice.pay(&bob.address, 5)).await;
    let wiped = network.nodes[3].status().await.unwrap().validator;
    assert!(!wiped.is_empty());
    assert!(!signed_by(&network.nodes[0], &wiped, 0).await.is_empty());
    network.nodes[3].kill();
    wipe(&network.nodes[3].home);
    // Whatever it had signed before is decided by now.
    network.grow(4).await;
    let height = network.height().await;

    network.nodes[3].start();
    let node = &network.nodes[3];
    let status = until("the node says from which epoch it signs", async || {
        node.status().await.ok().filter(|status| status.observer_reason.contains("before epoch"))
    })
    .await;
    let epoch: u64 = status.observer_reason.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(epoch >= status.current_epoch + 2 || epoch >= height / 16 + 2, "{status:?}");
    node.reach(height).await;
    let refused = node.submit(&alice.sign(&alice.body(vec![transfer(&bob.address, 5)]))).await.unwrap_err();
    assert_eq!(verdict(&refused), (Code::Unavailable, "NOT_ACCEPTING".into()));
    network.nodes[0].execute(&alice.pay(&bob.address, 6)).await;

    let back = until("the node signs again", async || {
        node.status().await.ok().filter(|status| status.observer_reason.is_empty())
    })
    .await;
    assert!(back.current_epoch >= epoch, "{back:?} before {epoch}");
    assert_eq!(back.validator, wiped);
    let signed = until("a commit is signed by the node", async || {
        Some(signed_by(&network.nodes[0], &wiped, height).await).filter(|signed| !signed.is_empty())
    })
    .await;
    assert!(signed.iter().all(|header| header.epoch >= epoch), "signed before epoch {epoch}: {signed:?}");
    node.execute(&alice.pay(&bob.address, 7)).await;
    let finals = load.stop().await;
    assert_still_final(&network, &finals).await;
    network.assert_equal().await;
}

#[tokio::test]
async fn a_node_that_only_observes_says_why() {
    let mut network = Network::start(Plan::of(1)).await;
    let node = &mut network.nodes[0];
    node.kill();
    wipe(&node.home);
    node.start();
    let reason = until("the node says why it does not sign", async || {
        let status = node.status().await.ok()?;
        Some(status.observer_reason).filter(|reason| !reason.is_empty())
    })
    .await;
    assert!(reason.contains("journal was lost"), "{reason}");
    let status = succeed(tally_node().args(["status", "--node"]).arg(format!("http://{}", node.client)));
    assert!(status.contains(&reason), "{status}");
    // "Operator account when it may vote in this epoch; else empty", says the contract.
    assert_eq!(node.status().await.unwrap().validator, "");
}

#[tokio::test]
async fn a_restored_home_follows_before_it_signs() {
    let params = Params { epoch_blocks: 16, execution_window: 8, idle_interval_ms: 100, ..Params::default() };
    let mut network = Network::start(Plan { params, ..Plan::of(4) }).await;
    network.reach(3).await;
    network.nodes[2].terminate().await;
    network.nodes[2].start_with(&["--restored"]);
    let node = &network.nodes[2];
    let observes = async || node.status().await.ok().filter(|status| !status.observer_reason.is_empty());
    until("the node observes", observes).await;
    let votes = async || node.status().await.ok().filter(|status| status.observer_reason.is_empty());
    until("the node signs again", votes).await;
    network.assert_equal().await;
}
