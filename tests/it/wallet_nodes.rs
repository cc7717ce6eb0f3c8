//! Several nodes at once: a dead one and a lying one change nothing but a warning.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tally_proto::v1::{
    self,
    account_service_client::AccountServiceClient,
    account_service_server::{AccountService, AccountServiceServer},
    chain_service_client::ChainServiceClient,
    chain_service_server::{ChainService, ChainServiceServer},
    node_service_client::NodeServiceClient,
    node_service_server::{NodeService, NodeServiceServer},
    transaction_service_client::TransactionServiceClient,
    transaction_service_server::{TransactionService, TransactionServiceServer},
};
use tally_types::{Hash, transaction::signed_bytes};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    network::{FEE, FUNDS, Network, Node, Plan, until},
    wallet::Wallet,
};

/// A node in front of a real one: it says truly who it is and which chain it follows, and lies about everything that moves.
#[derive(Clone)]
struct Liar {
    real: Channel,
    genesis: Hash,
    /// Transactions that were handed to it.
    submitted: Arc<AtomicU64>,
}

impl Liar {
    /// Starts one, and returns its URL and the number of transactions that it gets.
    async fn start(node: &Node, genesis: Hash) -> (String, Arc<AtomicU64>) {
        let submitted = Arc::default();
        let liar = Liar { real: node.channel(), genesis, submitted: Arc::clone(&submitted) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(ChainServiceServer::new(liar.clone()))
            .add_service(NodeServiceServer::new(liar.clone()))
            .add_service(AccountServiceServer::new(liar.clone()))
            .add_service(TransactionServiceServer::new(liar));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (url, submitted)
    }
}

#[tonic::async_trait]
impl ChainService for Liar {
    async fn get_chain_info(
        &self,
        request: Request<v1::GetChainInfoRequest>,
    ) -> Result<Response<v1::GetChainInfoResponse>, Status> {
        let mut info = ChainServiceClient::new(self.real.clone()).get_chain_info(request).await?.into_inner();
        // A year from now: who believed it would sign what may run for a year.
        info.latest_height += 1_000_000;
        if let Some(time) = &mut info.latest_block_time {
            time.seconds += 365 * 24 * 3600;
        }
        Ok(Response::new(info))
    }

    async fn get_genesis(
        &self,
        request: Request<v1::GetGenesisRequest>,
    ) -> Result<Response<v1::GetGenesisResponse>, Status> {
        ChainServiceClient::new(self.real.clone()).get_genesis(request).await
    }
}

#[tonic::async_trait]
impl NodeService for Liar {
    async fn get_node_status(
        &self,
        request: Request<v1::GetNodeStatusRequest>,
    ) -> Result<Response<v1::GetNodeStatusResponse>, Status> {
        NodeServiceClient::new(self.real.clone()).get_node_status(request).await
    }

    async fn list_peers(&self, _: Request<v1::ListPeersRequest>) -> Result<Response<v1::ListPeersResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl AccountService for Liar {
    async fn get_account(
        &self,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::GetAccountResponse>, Status> {
        let mut answer = AccountServiceClient::new(self.real.clone()).get_account(request).await?.into_inner();
        let account = answer.account.as_mut().unwrap();
        account.balance = account.balance / 2 + 1;
        account.pending_nonce += 1000;
        Ok(Response::new(answer))
    }

    async fn list_accounts(
        &self,
        _: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl TransactionService for Liar {
    type StreamTransactionsStream = tokio_stream::Once<Result<v1::StreamTransactionsResponse, Status>>;

    async fn submit_transaction(
        &self,
        request: Request<v1::SubmitTransactionRequest>,
    ) -> Result<Response<v1::SubmitTransactionResponse>, Status> {
        self.submitted.fetch_add(1, Ordering::Relaxed);
        let body = request.into_inner().transaction.unwrap().body;
        let tx_id = signed_bytes(&self.genesis, &body).hash().to_string();
        Ok(Response::new(v1::SubmitTransactionResponse { tx_id, state: v1::TransactionState::Pending.into() }))
    }

    async fn submit_transactions(
        &self,
        _: Request<v1::SubmitTransactionsRequest>,
    ) -> Result<Response<v1::SubmitTransactionsResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn simulate_transaction(
        &self,
        request: Request<v1::SimulateTransactionRequest>,
    ) -> Result<Response<v1::SimulateTransactionResponse>, Status> {
        TransactionServiceClient::new(self.real.clone()).simulate_transaction(request).await
    }

    async fn wait_transaction(
        &self,
        request: Request<v1::WaitTransactionRequest>,
    ) -> Result<Response<v1::WaitTransactionResponse>, Status> {
        let record = v1::TransactionRecord {
            tx_id: request.into_inner().tx_id,
            state: v1::TransactionState::Expired.into(),
            ..Default::default()
        };
        let block_time = Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 });
        Ok(Response::new(v1::WaitTransactionResponse { transaction: Some(record), height: 9_999_999, block_time }))
    }

    async fn get_transaction(
        &self,
        _: Request<v1::GetTransactionRequest>,
    ) -> Result<Response<v1::GetTransactionResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    /// The real ones, with other amounts.
    async fn list_transactions(
        &self,
        request: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        let mut service = TransactionServiceClient::new(self.real.clone());
        let mut answer = service.list_transactions(request).await?.into_inner();
        let bodies = answer.transactions.iter_mut().filter_map(|record| record.body.as_mut());
        for operation in bodies.flat_map(|body| &mut body.operations) {
            if let Some(v1::operation::Operation::Transfer(transfer)) = &mut operation.operation {
                transfer.amount += 1;
            }
        }
        Ok(Response::new(answer))
    }

    /// One payment that never was, and nothing of those that were.
    async fn stream_transactions(
        &self,
        request: Request<v1::StreamTransactionsRequest>,
    ) -> Result<Response<Self::StreamTransactionsStream>, Status> {
        let height = request.into_inner().from_height;
        let receipt = v1::Receipt { height, result: v1::ExecutionResult::Ok.into(), ..Default::default() };
        let record = v1::TransactionRecord {
            tx_id: Hash::of(b"never").to_string(),
            state: v1::TransactionState::Finalized.into(),
            receipt: Some(receipt),
            ..Default::default()
        };
        let message = v1::StreamTransactionsResponse { height, transactions: vec![record] };
        Ok(Response::new(tokio_stream::once(Ok(message))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_liar_and_one_dead_node_change_nothing_but_a_warning() {
    let mut network = Network::start(Plan::of(4)).await;
    let (liar, submitted) = Liar::start(&network.nodes[3], network.genesis.chain.genesis_hash).await;
    let wallet = Wallet::new();
    let urls: Vec<String> = network.nodes[..3].iter().map(|node| format!("http://{}", node.client)).collect();
    let all = format!("{},{liar}", urls.join(","));
    let added = wallet.json(&["network", "add", "it", "--node", &all]);
    assert_eq!(added["nodes"].as_array().unwrap().len(), 4);
    assert_eq!(added["totalStake"], "4000000000000");

    let warned = |arguments: &[&str], node: &str| {
        let output = wallet.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {}\n{said}", output.status);
        let warning = said.lines().find(|line| line.contains("\"warning\"") && line.contains(node));
        assert!(warning.is_some(), "{arguments:?} says nothing about {node}:\n{said}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let balance = |node: &str| warned(&["balance", "alice"], node)["account"]["balance"].clone();
    assert_eq!(balance(&liar), FUNDS.to_string());
    let paid = warned(&["send", "bob", "12.5", "--from", "alice", "--yes"], &liar);
    assert_eq!(paid["receipt"]["result"], "EXECUTION_RESULT_OK");
    // The year that the liar put on top is in nobody's transaction.
    let expires = paid["body"]["expireTime"].as_str().unwrap();
    let this_year = paid["receipt"]["blockTime"].as_str().unwrap();
    assert_eq!(expires[..4], this_year[..4], "{paid}");
    let left = FUNDS - 12_500_000_000 - FEE;
    assert_eq!(balance(&liar), left.to_string());
    assert_eq!(submitted.load(Ordering::Relaxed), 1, "a payment goes to all nodes");
    // What all others refuse and one says it took is not taken: it may be in somebody's hands, and nothing more is certain.
    let used = ["send", "bob", "1", "--from", "alice", "--yes", "--nonce", "1"];
    let refused = wallet.failure(&[&used[..], &["--no-wait"]].concat());
    assert_eq!(refused, (6, "OUTCOME_UNKNOWN".to_owned()));
    let history = warned(&["history", "alice"], &liar);
    let [only] = history["transactions"].as_array().unwrap().as_slice() else { panic!("{history}") };
    assert_eq!(only["body"]["operations"][0]["transfer"]["amount"], "12500000000");
    // Alone and named, it may say what it likes, but not that what it holds will never run.
    let mut believed = wallet.command();
    believed.args(["send", "bob", "1", "--from", "alice", "--yes", "--timeout", "2s", "--node", &liar]);
    let output = believed.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("calls it expired before its time"), "{said}");
    assert!(said.contains("ahead of this machine's clock"), "{said}");

    // One dead besides: two of four still agree, on what they are asked and on what they tell by themselves.
    network.nodes[2].kill();
    assert_eq!(balance(&urls[2]), left.to_string());
    let mut watcher = wallet.command();
    watcher.args(["watch", "alice", "--count", "2", "--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watcher = watcher.spawn().unwrap();
    let mut lines = BufReader::new(watcher.stdout.take().unwrap()).lines();
    // It begins at the block after the one it found: first payments may come before that.
    let (mut paid, mut left) = (Vec::new(), left);
    while watcher.try_wait().unwrap().is_none() {
        paid.push(warned(&["send", "bob", "1", "--from", "alice", "--yes"], &liar)["txId"].clone());
        left -= 1_000_000_000 + FEE;
        assert!(paid.len() < 50, "nothing is told");
    }
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["txId"].clone();
    let told = [next(), next()];
    assert!(paid.windows(2).any(|pair| pair == told), "{told:?} are not two that follow each other of {paid:?}");
    // Two dead: what is left is one honest node and one liar, and nobody can tell which is which.
    network.nodes[1].kill();
    let failed = until("the nodes no longer agree", async || Some(wallet.failure(&["balance", "alice"]))).await;
    assert_eq!(failed, (3, "NODES_DISAGREE".to_owned()));
    // A single node that is named is believed, because the person chose it.
    assert_eq!(wallet.json(&["balance", "alice", "--node", &urls[0]])["account"]["balance"], left.to_string());
}

/// A machine that hangs keeps its port open: connections come up, and then nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_accepts_and_never_answers_changes_nothing_but_a_warning() {
    let mut network = Network::start(Plan::of(4)).await;
    let wallet = Wallet::new();
    let urls: Vec<String> = network.nodes.iter().map(|node| format!("http://{}", node.client)).collect();
    wallet.json(&["network", "add", "it", "--node", &urls.join(",")]);
    network.nodes[3].terminate().await;
    let port = network.nodes[3].client;
    let mute = until("the port is free", async || std::net::TcpListener::bind(port).ok()).await;
    std::thread::spawn(move || {
        // Held, never read.
        let _held: Vec<_> = mute.incoming().collect();
    });
    for arguments in [&["balance", "alice"][..], &["send", "bob", "1", "--from", "alice", "--yes"], &["history", "bob"]]
    {
        let begun = Instant::now();
        let output = wallet.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(
            said.lines().any(|line| line.contains("\"warning\"") && line.contains(&urls[3])),
            "{arguments:?}: {said}"
        );
        // Far less than the deadline of a call to it, several of which would follow each other.
        assert!(begun.elapsed() < Duration::from_secs(20), "{arguments:?} took {:?}", begun.elapsed());
    }
    // Named on the line, without pins: nobody waits for it either, and it is only missed.
    let (stranger, named) = (Wallet::new(), urls.join(","));
    let output = stranger.run(&["balance", "alice", "--node", &named]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let missed = format!("{}: it does not answer in time; going on with the other nodes", urls[3]);
    assert!(said.contains(&missed), "{said}");
    // Alone it is an error, in the time that was given.
    let output = wallet.command().args(["balance", "alice", "--node", &urls[3], "--timeout", "2s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Without a pinned chain nobody can say which of two is meant, so neither is believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_two_chains_are_refused_if_none_is_pinned() {
    let one = Network::start(Plan::of(1)).await;
    let other = Network::start(Plan::of(1)).await;
    let url = |network: &Network| format!("http://{}", network.nodes[0].client);
    let wallet = Wallet::new();
    let both = format!("{},{}", url(&one), url(&other));
    let refused = wallet.failure(&["balance", "alice", "--node", &both]);
    assert_eq!(refused, (10, "WRONG_NETWORK".to_owned()));
    // With one of them pinned, the node of the other is left out.
    wallet.json(&["network", "add", "it", "--node", &url(&one)]);
    let output = wallet.run(&["balance", "alice", "--node", &both]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains(&url(&other)), "{said}");
}
