//! The command line of `tally-node`.

mod check;
mod genesis;
pub(crate) mod localnet;
pub(crate) mod setup;
mod status;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use tally_types::{Address, SecretKey, genesis::Chain};
use tokio::signal::unix::{SignalKind, signal};

use crate::{config::NodeConfig, run, words};

/// Failures that reach a person: what happened, why, and what to do next.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A validator of a Tally network.
#[derive(Debug, Parser)]
#[command(
    name = "tally-node",
    version,
    about,
    after_help = "Examples:\n  tally-node localnet\n  tally-node testnet generate --validators 4 --out testnet\n  tally-node start --home testnet/node1"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a whole network on this machine, to try things out.
    #[command(after_help = "Example:\n  tally-node localnet --nodes 4 --home localnet")]
    Localnet(localnet::Options),
    /// Makes the home of a new validator: its key, its journal, its configuration.
    #[command(after_help = "Example:\n  tally-node init --home node --genesis genesis.json")]
    Init(setup::InitOptions),
    /// Runs the validator of a home until SIGTERM or Ctrl-C.
    #[command(after_help = "Example:\n  tally-node start --home node")]
    Start(StartOptions),
    /// Makes homes for a new network.
    #[command(subcommand)]
    Testnet(setup::TestnetCommand),
    /// Writes and checks genesis files.
    #[command(subcommand)]
    Genesis(genesis::GenesisCommand),
    /// Shows a validator's public key.
    #[command(subcommand)]
    Keys(setup::KeysCommand),
    /// Shows where a running node stands.
    #[command(after_help = "Example:\n  tally-node status --node http://127.0.0.1:9101 --output json")]
    Status(status::Options),
    /// Looks at the home of a stopped node: what a start would find, and every page of the index. Exits with 1 if a node could
    /// not start from it, or if its index must be made anew.
    #[command(
        after_help = "It mends what a start mends, and signs nothing.\n\nExample:\n  tally-node check --home node --output json"
    )]
    Check(check::Options),
    /// Makes the index of a stopped node anew from its journal, at its next start.
    #[command(after_help = "Example:\n  tally-node reindex --home node")]
    Reindex(HomeOption),
    /// Loads a network with transfers and reports throughput and time to finality.
    #[command(after_help = "Example:\n  tally-node bench --rate 5000 --seconds 20")]
    Bench(crate::bench::Options),
}

#[derive(Debug, Args)]
pub(crate) struct HomeOption {
    /// Folder of the node.
    #[arg(long, env = "TALLY_HOME", default_value = "tally-home", value_name = "DIR")]
    home: PathBuf,
}

#[derive(Debug, Args)]
struct StartOptions {
    #[command(flatten)]
    home: HomeOption,
    /// Where clients are served; overrides `client_listen`.
    #[arg(long, env = "TALLY_CLIENT_LISTEN", value_name = "ADDRESS:PORT")]
    client_listen: Option<SocketAddr>,
    /// Where other validators are served; overrides `peer_listen`.
    #[arg(long, env = "TALLY_PEER_LISTEN", value_name = "ADDRESS:PORT")]
    peer_listen: Option<SocketAddr>,
    /// The journal comes from a copy: follow for two epochs before signing anything.
    #[arg(long)]
    restored: bool,
    /// Ends the node when its standard input ends, for a parent process that must not leave it behind.
    #[arg(long)]
    until_stdin_closes: bool,
}

/// What a wallet for a new local network is made of. The root package hands in who writes it: node and wallet do not
/// know each other.
pub struct WalletPlan<'a> {
    /// Folder to write.
    pub folder: &'a Path,
    /// The network's name in the wallet.
    pub network: &'a str,
    /// URL of a node.
    pub node: String,
    /// The chain to pin.
    pub chain: &'a Chain,
    /// Symbol of its token.
    pub symbol: &'a str,
    /// Its decimal places.
    pub decimals: u32,
    /// Keys by name; the first one pays.
    pub keys: Vec<(&'a str, SecretKey)>,
    /// Passphrase of all keys.
    pub passphrase: &'a str,
}

/// Writes a wallet.
pub type WriteWallet = fn(&WalletPlan<'_>) -> Result<(), Failure>;

/// Runs the command line of this process.
pub fn main(write_wallet: WriteWallet) -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("TALLY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // A log that cannot be written, on a full disk, is told nowhere: telling it on standard error, which it is, would panic.
    log.log_internal_errors(false).init();
    let done = dispatch(cli.command, write_wallet).and_then(|()| {
        let unsaid = |error| Failure::from(format!("standard output: {error}; the command itself was carried out"));
        words::unsaid().map_or(Ok(()), |error| Err(unsaid(error)))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The exit code tells whoever cannot be told in words.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command, write_wallet: WriteWallet) -> Result<(), Failure> {
    match command {
        Command::Localnet(options) => runtime()?.block_on(localnet::run(options, write_wallet)),
        Command::Init(options) => setup::init(&options),
        Command::Start(options) => runtime()?.block_on(start(options)),
        Command::Testnet(command) => setup::testnet(&command),
        Command::Genesis(command) => genesis::run(&command),
        Command::Keys(command) => setup::keys(&command),
        Command::Status(options) => runtime()?.block_on(status::run(&options)),
        Command::Check(options) => check::run(&options),
        Command::Reindex(home) => setup::reindex(&home.home),
        Command::Bench(options) => runtime()?.block_on(crate::bench::run(options)),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

async fn start(options: StartOptions) -> Result<(), Failure> {
    let mut config = NodeConfig::load(&options.home.home)?;
    if let Some(address) = options.client_listen {
        config.client_listen = address;
    }
    if let Some(address) = options.peer_listen {
        config.peer_listen = address;
    }
    let until_stdin_closes = options.until_stdin_closes;
    let stop = async move {
        tokio::select! {
            () = interrupted() => {}
            () = stdin_closed(), if until_stdin_closes => {}
        }
    };
    Ok(run::run(&options.home.home, config, options.restored, stop).await?)
}

/// Resolves at SIGINT or SIGTERM.
pub(crate) async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Resolves when standard input ends. A thread of its own: a blocked read must not keep the runtime from ending.
async fn stdin_closed() {
    let (ended, wait) = tokio::sync::oneshot::channel();
    let read = move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    };
    if std::thread::Builder::new().name("stdin".into()).spawn(read).is_err() {
        return std::future::pending().await;
    }
    let _ = wait.await;
}

/// Reads an address given on the command line.
pub(crate) fn parse_address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error: tally_types::address::AddressError| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_tree_holds_together() {
        super::Cli::command().debug_assert();
    }
}
