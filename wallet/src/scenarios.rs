//! The whole wallet against a node made of canned answers: what reaches the node, and which exit code comes out.

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use prost::Message as _;
use tally_proto::v1::{
    self,
    account_service_server::{AccountService, AccountServiceServer},
    chain_service_server::{ChainService, ChainServiceServer},
    transaction_service_server::{TransactionService, TransactionServiceServer},
};
use tally_types::{Address, Hash, SecretKey, SignedTransaction, genesis::Chain, transaction::signed_bytes};
use tempfile::TempDir;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    error::Exit,
    keystore::{KdfParams, Keystore},
};

#[derive(Clone, Copy, Debug)]
enum Submit {
    /// The node may have it, but its answer got lost.
    Lost,
    Refuse(&'static str),
    Take,
}

#[derive(Clone, Copy, Debug)]
enum Wait {
    Final,
    Failed,
    Pending,
    Expired,
    /// Unknown, at a block this many seconds after the latest one.
    Unknown(i64),
}

#[derive(Debug)]
struct Answers {
    genesis: Hash,
    decimals: u32,
    submit: VecDeque<Submit>,
    wait: Wait,
    next_nonce: u64,
    submitted: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct FakeNode(Arc<Mutex<Answers>>);

/// Time of the latest block: so long ago that what is signed for it has expired by this machine's clock as well.
fn latest_seconds() -> i64 {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    i64::try_from(now).unwrap() - 2 * 86_400
}

fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn chain_id(genesis: Hash) -> String {
    format!("local-{:.8}", genesis.to_string())
}

#[tonic::async_trait]
impl ChainService for FakeNode {
    async fn get_chain_info(
        &self,
        _: Request<v1::GetChainInfoRequest>,
    ) -> Result<Response<v1::GetChainInfoResponse>, Status> {
        let answers = self.0.lock().unwrap();
        Ok(Response::new(v1::GetChainInfoResponse {
            chain_id: chain_id(answers.genesis),
            genesis_hash: answers.genesis.to_string(),
            latest_height: 6,
            latest_block_time: at(latest_seconds()),
            params: Some(v1::ChainParams {
                symbol: "TALLY".into(),
                decimals: answers.decimals,
                base_fee: 1_000_000,
                max_expiry: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
                ..Default::default()
            }),
            ..Default::default()
        }))
    }

    async fn get_genesis(&self, _: Request<v1::GetGenesisRequest>) -> Result<Response<v1::GetGenesisResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

#[tonic::async_trait]
impl AccountService for FakeNode {
    async fn get_account(
        &self,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::GetAccountResponse>, Status> {
        let address = request.into_inner().address;
        if address != alice().public_key().address().to_string() {
            let details = ErrorDetails::with_error_info(
                "ACCOUNT_NOT_FOUND",
                "tally.v1",
                HashMap::from([("address".to_owned(), address)]),
            );
            return Err(Status::with_error_details(Code::NotFound, "none", details));
        }
        let next_nonce = self.0.lock().unwrap().next_nonce;
        let account =
            v1::Account { address, balance: 100_000_000_000, next_nonce, pending_nonce: 1, ..Default::default() };
        Ok(Response::new(v1::GetAccountResponse { account: Some(account), height: 6 }))
    }

    async fn list_accounts(
        &self,
        _: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

#[tonic::async_trait]
impl TransactionService for FakeNode {
    type StreamTransactionsStream = std::pin::Pin<
        Box<dyn tonic::codegen::tokio_stream::Stream<Item = Result<v1::StreamTransactionsResponse, Status>> + Send>,
    >;

    async fn submit_transaction(
        &self,
        request: Request<v1::SubmitTransactionRequest>,
    ) -> Result<Response<v1::SubmitTransactionResponse>, Status> {
        let transaction = request.into_inner().transaction.unwrap();
        let mut answers = self.0.lock().unwrap();
        answers.submitted.push(transaction.encode_to_vec());
        match answers.submit.pop_front().unwrap_or(Submit::Take) {
            Submit::Lost => Err(Status::unavailable("connection reset")),
            Submit::Refuse(reason) => {
                let details = ErrorDetails::with_error_info(reason, "tally.v1", HashMap::new());
                Err(Status::with_error_details(Code::FailedPrecondition, "no", details))
            }
            Submit::Take => {
                let tx_id = signed_bytes(&answers.genesis, &transaction.body).hash().to_string();
                let state = v1::TransactionState::Pending.into();
                Ok(Response::new(v1::SubmitTransactionResponse { tx_id, state }))
            }
        }
    }

    async fn submit_transactions(
        &self,
        _: Request<v1::SubmitTransactionsRequest>,
    ) -> Result<Response<v1::SubmitTransactionsResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn simulate_transaction(
        &self,
        _: Request<v1::SimulateTransactionRequest>,
    ) -> Result<Response<v1::SimulateTransactionResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn wait_transaction(
        &self,
        request: Request<v1::WaitTransactionRequest>,
    ) -> Result<Response<v1::WaitTransactionResponse>, Status> {
        use v1::{ExecutionResult as Result_, TransactionState as State};
        let tx_id = request.into_inner().tx_id;
        let (state, result, ahead) = match self.0.lock().unwrap().wait {
            Wait::Final => (State::Finalized, Some(Result_::Ok), 1),
            Wait::Failed => (State::Finalized, Some(Result_::Failed), 1),
            Wait::Pending => (State::Pending, None, 1),
            Wait::Expired => (State::Expired, None, 1),
            Wait::Unknown(ahead) => (State::Unknown, None, ahead),
        };
        let receipt = result.map(|result| v1::Receipt {
            result: result.into(),
            failure_reason: "INSUFFICIENT_FUNDS".into(),
            fee: 1_000_000,
            height: 7,
            ..Default::default()
        });
        let record = v1::TransactionRecord { tx_id, state: state.into(), receipt, ..Default::default() };
        Ok(Response::new(v1::WaitTransactionResponse {
            transaction: Some(record),
            height: 7,
            block_time: at(latest_seconds() + ahead),
        }))
    }

    async fn get_transaction(
        &self,
        _: Request<v1::GetTransactionRequest>,
    ) -> Result<Response<v1::GetTransactionResponse>, Status> {
        let details = ErrorDetails::with_error_info("TRANSACTION_NOT_FOUND", "tally.v1", HashMap::new());
        Err(Status::with_error_details(Code::NotFound, "none", details))
    }

    async fn list_transactions(
        &self,
        _: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        Ok(Response::new(v1::ListTransactionsResponse::default()))
    }

    async fn stream_transactions(
        &self,
        _: Request<v1::StreamTransactionsRequest>,
    ) -> Result<Response<Self::StreamTransactionsStream>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}

fn alice() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

/// A node, and a wallet that has pinned its chain and holds alice's key.
struct World {
    node: FakeNode,
    url: String,
    home: TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    fn new(submit: &[Submit], wait: Wait) -> World {
        let node = FakeNode(Arc::new(Mutex::new(Answers {
            genesis: Hash::of(b"genesis"),
            decimals: 9,
            submit: submit.iter().copied().collect(),
            wait,
            next_nonce: 1,
            submitted: Vec::new(),
        })));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(ChainServiceServer::new(node.clone()))
            .add_service(AccountServiceServer::new(node.clone()))
            .add_service(TransactionServiceServer::new(node.clone()))
            .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
        runtime.spawn(server);
        let home = tempfile::tempdir().unwrap();
        let world = World { node, url, home, _runtime: runtime };
        std::fs::write(world.home.path().join("pass"), "open sesame").unwrap();
        Keystore::open(world.home.path().join("keys"))
            .create("alice", &alice(), "open sesame", KdfParams::LOCALNET)
            .unwrap();
        world.expect(None, &["network", "add", "local", "--node", &world.url]);
        world
    }

    fn wallet(&self, args: &[&str]) -> ExitCode {
        let home = self.home.path().to_str().unwrap();
        let rest = ["--config-dir", home, "--no-input"];
        let all = ["tally-wallet"].iter().chain(args).chain(&rest);
        crate::run(all.map(OsString::from))
    }

    fn expect(&self, exit: Option<Exit>, args: &[&str]) {
        let wanted = exit.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit as u8));
        assert_eq!(format!("{:?}", self.wallet(args)), format!("{wanted:?}"), "{args:?}, wanted {exit:?}");
    }

    fn send(&self, exit: Option<Exit>, more: &[&str]) {
        let to = Address([2; 32]).to_string();
        let pass = self.home.path().join("pass");
        let args = ["send", &to, "12.5", "--yes", "--timeout", "1s", "--passphrase-file", pass.to_str().unwrap()];
        let args: Vec<&str> = args.into_iter().chain(more.iter().copied()).collect();
        self.expect(exit, &args);
    }

    fn change(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.node.0.lock().unwrap());
    }

    fn submitted(&self) -> Vec<Vec<u8>> {
        self.node.0.lock().unwrap().submitted.clone()
    }
}

#[test]
fn a_payment_becomes_final_and_the_node_got_what_was_meant() {
    let world = World::new(&[], Wait::Final);
    world.send(None, &["--memo", "tea", "--output", "json"]);
    let genesis = Hash::of(b"genesis");
    let chain = Chain { id: chain_id(genesis), genesis_hash: genesis };
    let verified = SignedTransaction::parse(&world.submitted()[0], &chain).unwrap().verify().unwrap();
    assert_eq!(verified.sender(), alice().public_key().address());
    assert_eq!(verified.body().total().unwrap().0, 12_500_000_000);
    assert_eq!(verified.body().memo, "tea");
    world.expect(None, &["balance"]);
    world.expect(None, &["history", "alice", "--output", "json"]);
    world.expect(None, &["chain", "info"]);
    world.expect(None, &["network", "list"]);
    world.expect(None, &["tx", "wait", &verified.id().to_string()]);
    world.expect(Some(Exit::NotFound), &["tx", "show", &verified.id().to_string()]);
    world.expect(Some(Exit::NotFound), &["balance", &Address([3; 32]).to_string()]);
}

#[test]
fn a_lost_answer_is_followed_by_the_same_bytes() {
    let world = World::new(&[Submit::Lost, Submit::Refuse("MEMPOOL_FULL")], Wait::Final);
    world.send(None, &[]);
    let submitted = world.submitted();
    assert_eq!(submitted.len(), 3);
    assert!(submitted.iter().all(|bytes| *bytes == submitted[0]));
}

#[test]
fn a_refusal_is_certain_only_when_no_call_was_lost() {
    World::new(&[Submit::Refuse("RECIPIENT_NOT_FOUND")], Wait::Pending).send(Some(Exit::Rejected), &[]);
    World::new(&[Submit::Refuse("ACCOUNT_NOT_FOUND")], Wait::Pending).send(Some(Exit::Rejected), &[]);
    World::new(&[Submit::Refuse("CHAIN_ID_MISMATCH")], Wait::Pending).send(Some(Exit::WrongNetwork), &[]);
    World::new(&[Submit::Refuse("EXPIRED")], Wait::Pending).send(Some(Exit::NeverRan), &[]);
    let lost = [Submit::Lost, Submit::Refuse("NONCE_IN_USE")];
    World::new(&lost, Wait::Unknown(1)).send(Some(Exit::Unknown), &[]);
    World::new(&lost, Wait::Final).send(None, &[]);
    World::new(&lost, Wait::Final).send(Some(Exit::Unknown), &["--no-wait"]);
}

#[test]
fn every_outcome_has_its_exit_code() {
    World::new(&[], Wait::Failed).send(Some(Exit::FailedInBlock), &[]);
    World::new(&[], Wait::Expired).send(Some(Exit::NeverRan), &[]);
    World::new(&[], Wait::Pending).send(Some(Exit::Unknown), &[]);
    World::new(&[], Wait::Pending).send(None, &["--no-wait"]);
    // Past the expire time and forgotten by the node: the account's nonce decides.
    let forgotten = World::new(&[], Wait::Unknown(100_000));
    forgotten.send(Some(Exit::NeverRan), &[]);
    forgotten.change(|answers| answers.next_nonce = 2);
    forgotten.send(Some(Exit::Unknown), &["--nonce", "1"]);
}

#[test]
fn nothing_is_signed_for_another_chain_or_another_meaning_of_an_amount() {
    let world = World::new(&[], Wait::Final);
    world.change(|answers| answers.decimals = 10);
    world.send(Some(Exit::WrongNetwork), &[]);
    world.change(|answers| answers.genesis = Hash::of(b"other"));
    world.send(Some(Exit::WrongNetwork), &[]);
    world.expect(Some(Exit::WrongNetwork), &["balance"]);
    let url = world.url.clone();
    let trusted = Hash::of(b"genesis").to_string();
    let add = ["network", "add", "second", "--node", &url, "--genesis-hash", &trusted];
    world.expect(Some(Exit::WrongNetwork), &add);
    world.expect(Some(Exit::NotFound), &["network", "use", "second"]);
    assert!(world.submitted().is_empty());
}

#[test]
fn nothing_is_sent_without_consent_passphrase_or_balance() {
    let world = World::new(&[], Wait::Final);
    let to = Address([2; 32]).to_string();
    world.expect(Some(Exit::Key), &["send", &to, "12.5"]);
    world.expect(Some(Exit::Rejected), &["send", &to, "100", "--yes"]);
    world.expect(Some(Exit::Usage), &["send", &to, "1.0000000001", "--yes"]);
    std::fs::write(world.home.path().join("pass"), "open barley").unwrap();
    world.send(Some(Exit::Key), &[]);
    let elsewhere = tempfile::tempdir().unwrap();
    let only_node = ["send", &to, "1", "--yes", "--node", &world.url];
    let keys = world.home.path().join("keys");
    let folders = ["--config-dir", elsewhere.path().to_str().unwrap(), "--keystore-dir", keys.to_str().unwrap()];
    let all = ["tally-wallet"].iter().chain(&only_node).chain(&folders).map(OsString::from);
    let usage = ExitCode::from(Exit::Usage as u8);
    assert_eq!(format!("{:?}", crate::run(all)), format!("{usage:?}"), "a node alone pins nothing");
    assert!(world.submitted().is_empty());
}
