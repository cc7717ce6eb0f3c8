//! A node that is far behind takes no transactions, and says how far.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use tally_proto::v1::{SyncState, TransactionState};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    network::{Network, Plan, until},
    rejections::{metadata, verdict},
};

/// Blocks a node may be behind before it refuses.
const BEHIND_MAX: u64 = 32;

/// A way to a port that is shut: whoever connects waits in the kernel's queue, as behind a firewall that swallows all.
struct Way {
    listener: TcpListener,
    to: SocketAddr,
}

impl Way {
    async fn shut(to: SocketAddr) -> Way {
        Way { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), to }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Lets everybody through for as long as this runs.
    async fn open(self) {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = self.listener.accept().await {
            let to = self.to;
            connections.spawn(async move {
                // Either side may hang up; that is its own affair.
                if let Ok(mut to) = TcpStream::connect(to).await {
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    }
}

#[tokio::test]
async fn a_node_far_behind_refuses_transactions_until_it_has_caught_up() {
    let mut plan = Plan::of(4);
    (plan.params.idle_interval_ms, plan.params.view_timeout_ms) = (50, 200);
    let mut network = Network::start(plan).await;
    let [mut alice, bob, _] = network.people();
    network.nodes[3].kill();
    network.grow(BEHIND_MAX + 8).await;

    // Others reach it, and it cannot reach them: it hears how far they are, and cannot ask for what it lacks.
    let config = network.nodes[3].home.join("node.toml");
    let mut text = fs::read_to_string(&config).unwrap();
    let mut ways = Vec::new();
    for node in &network.nodes[..3] {
        let way = Way::shut(node.peer).await;
        let shut = text.replace(&format!(":{}\"", node.peer.port()), &format!(":{}\"", way.port()));
        assert_ne!(shut, text);
        text = shut;
        ways.push(way);
    }
    fs::write(&config, text).unwrap();
    network.nodes[3].start();
    let node = &network.nodes[3];
    let status = until("the node hears that it is far behind", async || {
        let status = node.status().await.ok()?;
        (status.highest_seen_height > status.executed_height + BEHIND_MAX).then_some(status)
    })
    .await;
    assert_eq!(status.sync_state(), SyncState::CatchingUp);

    let payment = alice.pay(&bob.address, 5);
    let refused = node.submit(&payment).await.unwrap_err();
    assert_eq!(verdict(&refused), (Code::Unavailable, "NODE_SYNCING".into()));
    assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
    let [height, seen]: [u64; 2] =
        ["height", "highest_seen_height"].map(|key| metadata(&refused, key).parse().unwrap());
    assert_eq!(height, node.height().await);
    assert!(seen > height + BEHIND_MAX, "{height} of {seen}");
    assert_eq!(node.status().await.unwrap().mempool_size, 0);
    // The others are asked, as the refusal says; what it knows it still tells.
    let receipt = network.nodes[0].execute(&payment).await;
    assert!(node.account(&alice.name()).await.unwrap().next_nonce < 2);

    let opened: JoinSet<()> = ways.into_iter().map(Way::open).collect();
    let id = until("the node takes transactions again", async || node.submit(&payment).await.ok()).await;
    // The same payment: it has learnt by now, or soon does, that it is final.
    assert_eq!(node.receipt(&id).await, receipt);
    assert_eq!(node.transaction(&id).await.unwrap().state(), TransactionState::Finalized);
    node.execute(&alice.pay(&bob.address, 6)).await;
    network.assert_equal().await;
    drop(opened);
}
