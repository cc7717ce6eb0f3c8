//! Networks of real nodes: made by `tally-node testnet generate`, each node a process with a home and ports of its own.
//!
//! What a test starts ends with it: a node is killed when its [`Node`] is dropped, and ends by itself when the test
//! process does. At most [`NETWORKS_MAX`] networks run at a time, whatever the number of test threads.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tally_proto::v1::{
    self, account_service_client::AccountServiceClient, block_service_client::BlockServiceClient,
    chain_service_client::ChainServiceClient, node_service_client::NodeServiceClient,
    transaction_service_client::TransactionServiceClient, validator_service_client::ValidatorServiceClient,
};
use tally_types::{Genesis, Params, genesis::GenesisFile};
use tempfile::TempDir;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, timeout_at},
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::payer::Payer;

/// How long any condition may take to come about. Two busy cores run eight nodes in debug builds.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Networks that run at a time.
const NETWORKS_MAX: usize = 2;
/// Times a whole network is started on other ports because one of them was taken in between.
const PORT_TRIES: usize = 5;
/// Base units that alice, bob and carol have from the start.
pub const FUNDS: u64 = 1_000_000_000_000_000;
/// Stake of every validator, base units.
pub const STAKE: u64 = 1_000_000_000_000;
/// Fee of an operation, base units.
pub const FEE: u64 = 1_000_000;

static PLACES: Semaphore = Semaphore::const_new(NETWORKS_MAX);

/// A place for one network; held while it runs.
pub async fn place() -> SemaphorePermit<'static> {
    PLACES.acquire().await.expect("never closed")
}

/// `tally-node`, ready for arguments.
pub fn tally_node() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally-node"));
    command.env_remove("TALLY_HOME").env_remove("TALLY_NODE").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs a command to its end and returns what it said; fails the test unless it succeeds.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{shown}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Tries until `attempt` finds something; fails the test after [`DEADLINE`].
pub async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Ok(Some(found)) = timeout_at(deadline, attempt()).await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", DEADLINE.as_secs());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Free ports below the range from which the kernel takes those of outgoing connections: a node that is down must not
/// lose its port to one.
pub fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    while held.len() < count {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", candidate(1))) {
            held.push(listener);
        }
    }
    held.iter().map(|listener| listener.local_addr().expect("it is bound").port()).collect()
}

/// The first of `width` ports that no other call in this process gets.
pub fn candidate(width: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = NEXT.fetch_add(width, Ordering::Relaxed).wrapping_add((std::process::id() * 131 % 20_000) as u16);
    10_000 + offset % 20_000
}

/// What a network is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many validators.
    pub validators: usize,
    /// Parameters of its genesis.
    pub params: Params,
    /// Payers with money from the start, besides alice, bob and carol.
    pub payers: usize,
}

impl Plan {
    /// `validators` validators that make a block at least every 250 ms, so that a test does not wait for one.
    pub fn of(validators: usize) -> Plan {
        Plan { validators, params: Params { idle_interval_ms: 250, ..Params::default() }, payers: 0 }
    }
}

/// A running network.
pub struct Network {
    /// Its validators, in the order of their homes.
    pub nodes: Vec<Node>,
    /// What it started from.
    pub genesis: Genesis,
    /// The folder that holds the homes.
    pub folder: TempDir,
    payers: usize,
    _place: SemaphorePermit<'static>,
}

impl Network {
    /// Four validators, two of which are gone after the first block: nothing is decided until they are started again.
    pub async fn without_quorum() -> Network {
        let mut network = Network::start(Plan::of(4)).await;
        network.reach(1).await;
        for node in [2, 3] {
            network.nodes[node].kill();
        }
        network
    }

    /// Makes and starts a network; returns once every node knows a first block.
    pub async fn start(plan: Plan) -> Network {
        for _ in 0..PORT_TRIES {
            let mut network = Network::on_free_ports(&plan).await;
            network.nodes.iter_mut().for_each(Node::start);
            if network.is_up().await {
                return network;
            }
            // Another process took a port between our look and the node's.
        }
        panic!("no free ports");
    }

    /// Makes a network without starting it.
    async fn on_free_ports(plan: &Plan) -> Network {
        let place = place().await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("testnet");
        let genesis = generate(plan, &out);
        let ports = free_ports(2 * plan.validators);
        let (clients, peers) = ports.split_at(plan.validators);
        let mut nodes = Vec::new();
        for (number, (client, peer)) in (1..).zip(clients.iter().zip(peers)) {
            let home = home_of(&out, number);
            let config = home.join("node.toml");
            let text = fs::read_to_string(&config).expect("node.toml");
            fs::write(&config, with_ports(&text, clients, peers)).expect("node.toml");
            nodes.push(Node::new(home, *client, *peer));
        }
        Network { nodes, genesis, folder, payers: plan.payers, _place: place }
    }

    /// Waits for the first block everywhere; false when a port was taken.
    async fn is_up(&mut self) -> bool {
        let nodes = &mut self.nodes;
        until("every node knows a first block", async || {
            let mut ready = 0;
            for node in nodes.iter_mut() {
                if let Some(status) = node.ended() {
                    let log = node.log();
                    assert!(log.contains("cannot listen on"), "a node ended with {status}:\n{log}");
                    return Some(false);
                }
                ready += usize::from(node.status().await.is_ok_and(|status| status.executed_height > 0));
            }
            (ready == nodes.len()).then_some(true)
        })
        .await
    }

    /// Alice, bob and carol, each with [`FUNDS`].
    pub fn people(&self) -> [Payer; 3] {
        [1, 2, 3].map(|seed| Payer::new(seed, &self.genesis.chain))
    }

    /// The further payers of the plan, each with [`FUNDS`].
    pub fn payers(&self) -> Vec<Payer> {
        (0..self.payers).map(|number| Payer::new(100 + number as u8, &self.genesis.chain)).collect()
    }

    /// Waits until all running nodes have executed `height`.
    pub async fn reach(&self, height: u64) {
        for node in self.running() {
            node.reach(height).await;
        }
    }

    /// The nodes that were started and not stopped.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.child.is_some())
    }

    /// The highest height any running node has executed.
    pub async fn height(&self) -> u64 {
        let mut highest = 0;
        for node in self.running() {
            highest = highest.max(node.height().await);
        }
        highest
    }

    /// Waits until `count` more blocks are executed everywhere.
    pub async fn grow(&self, count: u64) {
        let height = self.height().await;
        self.reach(height + count).await;
    }

    /// Waits until all running nodes are as far as the furthest is now, and compares every block and every account.
    /// The network must be quiet: accounts are compared as they are now.
    pub async fn assert_equal(&self) {
        let height = self.height().await;
        self.reach(height).await;
        let mut first: Option<(Vec<_>, Vec<_>)> = None;
        for node in self.running() {
            let found = (node.chain_up_to(height).await, node.balances().await);
            match &first {
                None => first = Some(found),
                Some((blocks, balances)) => {
                    for (ours, theirs) in blocks.iter().zip(&found.0) {
                        assert_eq!(ours, theirs, "{} differs from the first", node.home.display());
                    }
                    assert_eq!((blocks.len(), balances), (found.0.len(), &found.1), "{}", node.home.display());
                }
            }
        }
    }
}

/// Writes homes with `testnet generate`, then gives them the plan's parameters with `init`.
fn generate(plan: &Plan, out: &Path) -> Genesis {
    let mut command = tally_node();
    command.args(["testnet", "generate", "--name", "it", "--base-port", "9100", "--validators"]);
    command.arg(plan.validators.to_string()).arg("--out").arg(out).arg("--stake").arg(STAKE.to_string());
    for seed in [1, 2, 3].into_iter().chain((0..plan.payers).map(|number| 100 + number as u8)) {
        command.arg("--account").arg(format!("{}={FUNDS}", crate::payer::key(seed).public_key().address()));
    }
    succeed(&mut command);
    let path = out.join("genesis.json");
    let mut file = GenesisFile::parse(&fs::read(&path).expect("genesis.json")).expect("a genesis file");
    file.params = plan.params.clone();
    let bytes = file.encode().expect("JSON");
    fs::write(&path, &bytes).expect("genesis.json");
    for number in 1..=plan.validators {
        let home = home_of(out, number);
        fs::remove_file(home.join("genesis.json")).expect("the generated genesis");
        fs::remove_dir_all(home.join("journal")).expect("the journal of the generated genesis");
        succeed(tally_node().arg("init").arg("--home").arg(&home).arg("--genesis").arg(&path));
    }
    Genesis::parse(&bytes).expect("a genesis")
}

fn home_of(out: &Path, number: usize) -> PathBuf {
    out.join(format!("node{number}"))
}

/// A configuration of `testnet generate --base-port 9100` with other ports.
fn with_ports(text: &str, clients: &[u16], peers: &[u16]) -> String {
    let numbered = |base: u16, ports: &[u16], text: String| {
        ports.iter().zip(base..).fold(text, |text, (port, generated)| {
            text.replace(&format!("127.0.0.1:{generated}\""), &format!("127.0.0.1:{port}\""))
        })
    };
    numbered(9201, peers, numbered(9101, clients, text.to_owned()))
}

/// One validator: its home, its ports, and its process while it runs.
pub struct Node {
    /// Its folder.
    pub home: PathBuf,
    /// Where it serves clients.
    pub client: SocketAddr,
    /// Where it serves validators.
    pub peer: SocketAddr,
    /// Whether "panicked" in its log fails the test at the end.
    pub must_not_panic: bool,
    child: Option<Child>,
    channel: Channel,
}

impl Node {
    /// The node of `home`, not running yet.
    pub fn new(home: PathBuf, client: u16, peer: u16) -> Node {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let endpoint = Endpoint::from_shared(format!("http://{}", address(client))).expect("a URL");
        // Above the longest WaitTransaction.
        let channel = endpoint.connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(65)).connect_lazy();
        Node { home, client: address(client), peer: address(peer), must_not_panic: true, child: None, channel }
    }

    /// `tally-node start` for this home.
    pub fn start_command(&self) -> Command {
        let mut command = tally_node();
        command.arg("start").arg("--home").arg(&self.home);
        command
    }

    /// Starts the process; [`Node::reach`] says when it answers.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with more arguments.
    pub fn start_with(&mut self, args: &[&str]) {
        let mut command = self.start_command();
        command.args(args).arg("--until-stdin-closes");
        self.spawn(command, self.log_file());
    }

    /// Starts the process with its log going elsewhere.
    pub fn start_logging_to(&mut self, log: fs::File) {
        let mut command = self.start_command();
        command.arg("--until-stdin-closes");
        self.spawn(command, log);
    }

    /// Starts the process where no file may become longer than `bytes`, which the node cannot tell from a full disk: writes
    /// beyond fail. (Their signal would end the process; what a shell ignores, the program it becomes ignores as well.)
    pub fn start_with_files_up_to(&mut self, bytes: u64) {
        // In units of 512 bytes, says POSIX.
        let limited = format!("trap '' XFSZ && ulimit -f {} && exec \"$@\"", bytes / 512);
        let mut command = Command::new("sh");
        let start = self.start_command();
        command.arg("-c").arg(limited).arg("sh").arg(start.get_program()).args(start.get_args());
        for (key, value) in start.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command.arg("--until-stdin-closes");
        self.spawn(command, self.log_file());
    }

    fn spawn(&mut self, mut command: Command, log: fs::File) {
        assert!(self.child.is_none(), "{} runs already", self.home.display());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("tally-node starts"));
    }

    fn log_file(&self) -> fs::File {
        fs::OpenOptions::new().create(true).append(true).open(self.home.join("node.log")).expect("a log")
    }

    /// Runs the node of a home that must be refused, and returns what it says.
    pub fn start_refused(&self) -> Output {
        let output = self.start_command().arg("--until-stdin-closes").stdin(Stdio::piped()).spawn_and_wait();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The exit status of a process that ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("our child")
    }

    /// Lets go of a process that has ended, so that the node can be started again.
    pub fn forget(&mut self) {
        assert!(self.ended().is_some(), "{} still runs", self.home.display());
        self.child = None;
    }

    /// Lets the node's standard input end.
    pub fn close_stdin(&mut self) {
        drop(self.child.as_mut().and_then(|child| child.stdin.take()));
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// SIGTERM, and its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        kill_process(Pid::from_child(child), Signal::TERM).expect("our child");
        let status = until("a node ends at SIGTERM", async || child.try_wait().expect("our child")).await;
        self.child = None;
        status
    }

    /// What it wrote to stderr since its home was made.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("node.log")).unwrap_or_default()
    }

    /// NodeService.
    pub fn node(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    /// TransactionService.
    pub fn transactions(&self) -> TransactionServiceClient<Channel> {
        TransactionServiceClient::new(self.channel.clone())
    }

    /// AccountService.
    pub fn accounts(&self) -> AccountServiceClient<Channel> {
        AccountServiceClient::new(self.channel.clone())
    }

    /// BlockService.
    pub fn blocks(&self) -> BlockServiceClient<Channel> {
        BlockServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    /// ValidatorService.
    pub fn validators(&self) -> ValidatorServiceClient<Channel> {
        ValidatorServiceClient::new(self.channel.clone())
    }

    /// ChainService.
    pub fn chain(&self) -> ChainServiceClient<Channel> {
        ChainServiceClient::new(self.channel.clone())
    }

    /// The connection.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// GetNodeStatus.
    pub async fn status(&self) -> Result<v1::GetNodeStatusResponse, Status> {
        Ok(self.node().get_node_status(v1::GetNodeStatusRequest {}).await?.into_inner())
    }

    /// The height it has executed; waits until it answers.
    pub async fn height(&self) -> u64 {
        until("the node answers", async || self.status().await.ok()).await.executed_height
    }

    /// Waits until it has executed `height`; also until it answers at all.
    pub async fn reach(&self, height: u64) {
        until(&format!("{} executes block {height}", self.home.display()), async || {
            self.status().await.ok().filter(|status| status.executed_height >= height)
        })
        .await;
    }

    /// An account's balance.
    pub async fn balance(&self, address: &str) -> u64 {
        self.account(address).await.expect("the account exists").balance
    }

    /// An account.
    pub async fn account(&self, address: &str) -> Result<v1::Account, Status> {
        let request = v1::GetAccountRequest { address: address.into(), min_height: 0 };
        Ok(self.accounts().get_account(request).await?.into_inner().account.expect("an account"))
    }

    /// Every account with its balance and next nonce, through all pages.
    pub async fn balances(&self) -> Vec<(String, u64, u64)> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListAccountsRequest { page_size: 1000, page_token };
            let page = self.accounts().list_accounts(request).await.expect("accounts").into_inner();
            all.extend(page.accounts.into_iter().map(|account| (account.address, account.balance, account.next_nonce)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }

    /// Every block up to `height`, in order.
    pub async fn chain_up_to(&self, height: u64) -> Vec<v1::Block> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListBlocksRequest {
                page_size: 200,
                page_token,
                max_height: height,
                order: v1::Order::OldestFirst.into(),
                ..Default::default()
            };
            let page = self.blocks().list_blocks(request).await.expect("blocks").into_inner();
            all.extend(page.blocks);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                assert_eq!(all.len() as u64, height, "{} lacks blocks", self.home.display());
                return all;
            }
        }
    }

    /// Submits a transaction and returns its id.
    pub async fn submit(&self, transaction: &v1::Transaction) -> Result<String, Status> {
        let request = v1::SubmitTransactionRequest { transaction: Some(transaction.clone()) };
        Ok(self.transactions().submit_transaction(request).await?.into_inner().tx_id)
    }

    /// Waits until a transaction is final, and returns its receipt.
    pub async fn receipt(&self, id: &str) -> v1::Receipt {
        until(&format!("transaction {id} is final"), async || {
            let timeout = Some(prost_types::Duration { seconds: 10, nanos: 0 });
            let request = v1::WaitTransactionRequest { tx_id: id.into(), timeout };
            let answer = self.transactions().wait_transaction(request).await.ok()?.into_inner();
            answer.transaction.and_then(|transaction| transaction.receipt)
        })
        .await
    }

    /// Submits a transaction that must succeed, and waits until it is final.
    pub async fn execute(&self, transaction: &v1::Transaction) -> v1::Receipt {
        let id = self.submit(transaction).await.expect("it is admitted");
        let receipt = self.receipt(&id).await;
        assert_eq!(receipt.result(), v1::ExecutionResult::Ok, "{receipt:?}");
        receipt
    }

    /// GetTransaction.
    pub async fn transaction(&self, id: &str) -> Result<v1::TransactionRecord, Status> {
        let request = v1::GetTransactionRequest { tx_id: id.into(), ..Default::default() };
        Ok(self.transactions().get_transaction(request).await?.into_inner().transaction.expect("a record"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<_> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default();
            eprintln!("--- {}\n{}", self.home.display(), last.join("\n"));
        } else if self.must_not_panic {
            assert!(!log.contains("panicked"), "a thread panicked in {}:\n{log}", self.home.display());
        }
    }
}

/// Runs a child to its end within [`DEADLINE`].
pub trait SpawnAndWait {
    /// Keeps standard input open meanwhile: a node with `--until-stdin-closes` must end by itself.
    fn spawn_and_wait(&mut self) -> Output;
}

impl SpawnAndWait for Command {
    fn spawn_and_wait(&mut self) -> Output {
        let mut child = self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let stdin = child.stdin.take();
        let deadline = std::time::Instant::now() + DEADLINE;
        while child.try_wait().expect("our child").is_none() {
            if std::time::Instant::now() >= deadline {
                let _ = child.kill();
                let output = child.wait_with_output().expect("our child");
                panic!("{self:?} did not end:\n{}", String::from_utf8_lossy(&output.stderr));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(stdin);
        child.wait_with_output().expect("our child")
    }
}

/// Copies a folder.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
