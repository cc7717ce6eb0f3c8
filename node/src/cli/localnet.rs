//! A whole network on this machine: validators as child processes that share nothing but gRPC.
//!
//! No node knows that it is in a localnet: each has a home as `testnet generate` writes it, and runs `start`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use clap::Args;
use tally_proto::v1::{GetNodeStatusRequest, GetNodeStatusResponse, node_service_client::NodeServiceClient};
use tally_types::{Amount, Genesis, Params};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{
    Failure, WalletPlan, WriteWallet, interrupted,
    setup::{NetworkPlan, addresses, new_network, remove_folder, write_home},
};
use crate::{
    opening::GENESIS_FILE,
    signing,
    words::{note, say},
};

/// Marks a folder as one that `--reset` may remove.
const MARKER: &str = "localnet.txt";
/// How long children may take to end.
const GOODBYE: Duration = Duration::from_secs(8);
/// How long the first block may take.
const FIRST_BLOCK: Duration = Duration::from_secs(60);
/// People with money from the start.
const FUNDED: [&str; 3] = ["alice", "bob", "carol"];
/// Balance of each, base units: a million tokens.
const FUNDS: u64 = 1_000_000_000_000_000;
const PASSPHRASE: &str = "localnet";

#[derive(Debug, Args)]
pub struct Options {
    /// How many validators, 1 to 16. Below 4 no fault is tolerated.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: u16,
    /// Folder of the network; a second start goes on with what is there.
    #[arg(long, default_value = "localnet", value_name = "DIR")]
    home: PathBuf,
    /// Starts over: removes what is in the folder first.
    #[arg(long)]
    reset: bool,
    /// Clients are served from this port plus 1, peers from this plus 101.
    #[arg(long, default_value_t = 9100)]
    base_port: u16,
}

/// A validator that runs as a child process.
pub(crate) struct Node {
    /// Its place, from 1.
    pub(crate) number: usize,
    home: PathBuf,
    /// Where it serves clients.
    pub(crate) url: String,
    /// The process.
    pub(crate) child: Child,
    down: bool,
}

pub async fn run(options: Options, write_wallet: WriteWallet) -> Result<(), Failure> {
    if options.reset {
        remove_folder(&options.home, MARKER)?;
    }
    let count = usize::from(options.nodes);
    let genesis_path = options.home.join(GENESIS_FILE);
    if genesis_path.exists() {
        let known = Genesis::parse(&fs::read(&genesis_path)?)?.validators.len();
        if known != count {
            let shown = options.home.display();
            return Err(
                format!("{shown} holds a network of {known}; add --nodes {known}, --reset, or another --home").into()
            );
        }
    } else {
        create(&options, write_wallet)?;
    }
    let genesis = Genesis::parse(&fs::read(&genesis_path)?)?;
    let home = fs::canonicalize(&options.home)?;
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(start(&home, number, options.base_port)?);
    }
    let stopped = interrupted();
    tokio::pin!(stopped);
    let up = tokio::select! {
        () = &mut stopped => { stop_all(&mut nodes).await; return Ok(()) }
        up = first_block(&mut nodes) => up,
    };
    if let Err(error) = up {
        stop_all(&mut nodes).await;
        return Err(error);
    }
    print_welcome(&home, &genesis, &nodes);
    tokio::select! {
        () = &mut stopped => {}
        () = watch(&mut nodes) => {}
    }
    note!("stopping {count} validators");
    stop_all(&mut nodes).await;
    Ok(())
}

/// Makes keys, genesis, homes and a wallet.
fn create(options: &Options, write_wallet: WriteWallet) -> Result<(), Failure> {
    let count = usize::from(options.nodes);
    let shown = options.home.display();
    let foreign = fs::read_dir(&options.home).is_ok_and(|mut entries| entries.next().is_some());
    if foreign && !options.home.join(MARKER).exists() {
        return Err(format!("{shown} is not empty; choose another --home").into());
    }
    fs::create_dir_all(&options.home)?;
    fs::write(
        options.home.join(MARKER),
        "A local Tally network, made by `tally-node localnet`. Its keys are worth nothing.\n",
    )?;
    let keys: Vec<_> = FUNDED.iter().map(|name| Ok((*name, signing::new_key()?))).collect::<Result<_, Failure>>()?;
    let network = new_network(NetworkPlan {
        name: "localnet",
        validators: count,
        stake: 1_000_000_000_000,
        accounts: keys.iter().map(|(_, key)| (key.public_key().address(), FUNDS)).collect(),
        params: Params { idle_interval_ms: 2000, ..Params::default() },
    })?;
    let addresses = addresses(count, &[], options.base_port)?;
    for number in 0..count {
        write_home(&options.home.join(format!("node{}", number + 1)), &network, number, &addresses)?;
    }
    let bytes = network.genesis.encode()?;
    let genesis = Genesis::parse(&bytes)?;
    write_wallet(&WalletPlan {
        folder: &options.home.join("wallet"),
        network: "localnet",
        node: format!("http://127.0.0.1:{}", options.base_port.saturating_add(1)),
        chain: &genesis.chain,
        symbol: &genesis.symbol,
        decimals: genesis.decimals.places(),
        keys,
        passphrase: PASSPHRASE,
    })?;
    // Last: a folder with a genesis file is whole.
    Ok(fs::write(options.home.join(GENESIS_FILE), bytes)?)
}

/// Starts validator `number` (from 1) of the homes in `home`.
pub(crate) fn start(home: &Path, number: usize, base_port: u16) -> Result<Node, Failure> {
    let folder = home.join(format!("node{number}"));
    let client = base_port.checked_add(u16::try_from(number)?).ok_or("the ports do not fit below 65536")?;
    let peer = client.checked_add(100).ok_or("the ports do not fit below 65536")?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("start")
        .arg("--until-stdin-closes")
        .arg("--home")
        .arg(&folder)
        .arg("--client-listen")
        .arg(format!("127.0.0.1:{client}"))
        .arg("--peer-listen")
        .arg(format!("127.0.0.1:{peer}"))
        // A child reads its end when this process is gone, however it went.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C is for this process alone: it stops the children itself.
        .process_group(0)
        .spawn()?;
    if let Some(stderr) = child.stderr.take() {
        let log = folder.join("node.log");
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            let mut file = fs::OpenOptions::new().create(true).append(true).open(log).ok();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(file) = &mut file {
                    use std::io::Write as _;
                    let _ = writeln!(file, "{line}");
                }
            }
        });
    }
    Ok(Node { number, home: folder, url: format!("http://127.0.0.1:{client}"), child, down: false })
}

/// Waits until every node knows a first block.
pub(crate) async fn first_block(nodes: &mut [Node]) -> Result<(), Failure> {
    let deadline = Instant::now() + FIRST_BLOCK;
    note!("starting {} validators; waiting for the first block", nodes.len());
    loop {
        let mut ready = 0;
        for node in nodes.iter_mut() {
            if let Some(status) = node.child.try_wait()? {
                let log = node.home.join("node.log");
                let last = fs::read_to_string(&log).unwrap_or_default();
                let last = last.lines().rev().find(|line| line.contains("error")).unwrap_or("it says nothing more");
                return Err(format!(
                    "validator {} ended with {status}: {last}\nits log: {}",
                    node.number,
                    log.display()
                )
                .into());
            }
            if status_of(&node.url).await.is_some_and(|status| status.latest_height > 0) {
                ready += 1;
            }
        }
        if ready == nodes.len() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(
                format!("no block within {} s; look at the logs, DIR/node1/node.log", FIRST_BLOCK.as_secs()).into()
            );
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn status_of(url: &str) -> Option<GetNodeStatusResponse> {
    let ask = async {
        let endpoint = tonic::transport::Endpoint::from_shared(url.to_owned()).ok()?;
        let mut client = NodeServiceClient::new(endpoint.connect().await.ok()?);
        Some(client.get_node_status(GetNodeStatusRequest {}).await.ok()?.into_inner())
    };
    timeout(Duration::from_secs(1), ask).await.ok().flatten()
}

fn print_welcome(home: &Path, genesis: &Genesis, nodes: &[Node]) {
    let count = nodes.len();
    let faults = genesis.validators.len().saturating_sub(1) / 3;
    say!("\nTally network {} is up: {count} validators.", genesis.chain.id);
    match faults {
        0 => say!("It tolerates no fault: with one validator down, nothing becomes final. Use --nodes 4 or more."),
        1 => say!("It tolerates one faulty validator."),
        faults => say!("It tolerates {faults} faulty validators."),
    }
    say!("\nClient endpoints (gRPC, with reflection):");
    for node in nodes {
        say!("  {}", node.url);
    }
    say!("\nAccounts with {} {} each: {}", genesis.decimals.format(Amount(FUNDS)), genesis.symbol, FUNDED.join(", "));
    let wallet =
        std::env::current_exe().ok().map(|path| path.with_file_name("tally-wallet")).filter(|path| path.exists());
    let wallet = match wallet {
        Some(path) => path.display().to_string(),
        None => "cargo run --quiet --release --bin tally-wallet --".to_owned(),
    };
    say!("\nIn another terminal, use the wallet of this network:");
    say!("  export TALLY_CONFIG_DIR='{}' TALLY_PASSPHRASE={PASSPHRASE}", home.join("wallet").display());
    say!("\nThen, for example:");
    say!("  {wallet} balance");
    say!("  {wallet} send bob 12.5 --yes");
    say!("  {wallet} keys new dave --words-file dave.words");
    say!("  {wallet} create-account dave 100 --yes");
    say!("\nCtrl-C stops the network; the same command starts it again where it stood.");
}

/// Says when a node falls, and how to start it again. Ends when all are down.
async fn watch(nodes: &mut [Node]) {
    while nodes.iter().any(|node| !node.down) {
        sleep(Duration::from_millis(200)).await;
        for node in nodes.iter_mut().filter(|node| !node.down) {
            if let Ok(Some(status)) = node.child.try_wait() {
                node.down = true;
                let program = std::env::current_exe().map_or("tally-node".into(), |path| path.display().to_string());
                note!(
                    "validator {} ended with {status}; its log: {}\nstart it again with\n  {program} start --home {}",
                    node.number,
                    node.home.join("node.log").display(),
                    node.home.display()
                );
            }
        }
    }
}

/// SIGTERM to all, then a while to end, then SIGKILL.
pub(crate) async fn stop_all(nodes: &mut [Node]) {
    for node in nodes.iter_mut() {
        let id = node.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
    }
    let deadline = Instant::now() + GOODBYE;
    for node in nodes.iter_mut() {
        if tokio::time::timeout_at(deadline, node.child.wait()).await.is_err() {
            note!("validator {} did not end in time and is killed", node.number);
            let _ = node.child.kill().await;
        }
    }
}
