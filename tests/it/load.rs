//! Payments that go on while nodes come and go, and what became of each.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tally_proto::v1::{self, ExecutionResult, transaction_service_client::TransactionServiceClient};
use tally_types::Address;
use tokio::{task::JoinSet, time::Instant};
use tonic::transport::Channel;

use crate::{
    network::{DEADLINE, Network, until},
    payer::Payer,
};

type Clients = Vec<TransactionServiceClient<Channel>>;

/// A transaction that some node reported as final.
#[derive(Clone, Debug)]
pub struct Final {
    pub id: String,
    pub receipt: v1::Receipt,
}

/// Running payers. Each sends one payment after the other to whichever node answers, the same bytes until they are final.
pub struct Load {
    finals: Arc<Mutex<Vec<Final>>>,
    stop: Arc<AtomicBool>,
    payers: JoinSet<()>,
}

impl Load {
    /// Lets the network's payers pay in a ring.
    pub fn start(network: &Network) -> Load {
        let (finals, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let all = network.payers();
        let clients: Clients = network.nodes.iter().map(|node| node.transactions()).collect();
        let mut payers = JoinSet::new();
        for (place, payer) in all.iter().enumerate() {
            let next = all[(place + 1) % all.len()].address;
            // Each begins with another node.
            let mut clients = clients.clone();
            clients.rotate_left(place % network.nodes.len());
            payers.spawn(pay(payer.clone(), next, clients, Arc::clone(&finals), Arc::clone(&stop)));
        }
        Load { finals, stop, payers }
    }

    /// Waits until `count` more payments are final.
    pub async fn more(&mut self, count: usize) {
        let goal = self.finals.lock().unwrap().len() + count;
        let (finals, payers) = (&self.finals, &mut self.payers);
        until(&format!("{goal} payments are final"), async || {
            if let Some(ended) = payers.try_join_next() {
                panic!("a payer ended: {ended:?}");
            }
            (finals.lock().unwrap().len() >= goal).then_some(())
        })
        .await;
    }

    /// Lets every payer finish its payment, and returns all that were made.
    pub async fn stop(mut self) -> Vec<Final> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.payers.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.finals.lock().unwrap())
    }
}

async fn pay(
    mut payer: Payer,
    to: Address,
    mut clients: Clients,
    finals: Arc<Mutex<Vec<Final>>>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        let transaction = payer.pay(&to, 1);
        let deadline = Instant::now() + 2 * DEADLINE;
        let done = loop {
            match one_try(&mut clients[0], &transaction).await {
                Some(done) => break done,
                None => clients.rotate_left(1),
            }
            assert!(Instant::now() < deadline, "a payment is not final");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(done.receipt.result(), ExecutionResult::Ok, "{done:?}");
        finals.lock().unwrap().push(done);
    }
}

/// Hands the transaction to one node and waits there for two seconds.
async fn one_try(client: &mut TransactionServiceClient<Channel>, transaction: &v1::Transaction) -> Option<Final> {
    let request = v1::SubmitTransactionRequest { transaction: Some(transaction.clone()) };
    let id = client.submit_transaction(request).await.ok()?.into_inner().tx_id;
    let timeout = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    let request = v1::WaitTransactionRequest { tx_id: id.clone(), timeout };
    let receipt = client.wait_transaction(request).await.ok()?.into_inner().transaction?.receipt?;
    Some(Final { id, receipt })
}

/// Every one of `finals` is final on every running node, with the receipt that was reported first.
pub async fn assert_still_final(network: &Network, finals: &[Final]) {
    network.reach(finals.iter().map(|one| one.receipt.height).max().unwrap_or(0)).await;
    for node in network.running() {
        for one in finals {
            let record = node.transaction(&one.id).await.unwrap_or_else(|status| panic!("{one:?} is lost: {status:?}"));
            assert_eq!(record.state(), v1::TransactionState::Finalized);
            assert_eq!(record.receipt.as_ref(), Some(&one.receipt), "{}", node.home.display());
        }
    }
}
