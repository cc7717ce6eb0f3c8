//! The throw-away network: homes in a folder of its own, validators as child processes.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
};

use tally_types::{Address, Genesis, Params, genesis::Chain};
use tokio::task::JoinSet;

use super::{
    throttle::{Link, Upload, pass_on},
    usage::{self, Usage},
};
use crate::{
    cli::{
        Failure,
        localnet::{Node, first_block, start, stop_all},
        setup::{NetworkPlan, addresses, new_network, write_home},
    },
    config::{self, NodeConfig},
    words::note,
};

/// Stake of each validator, base units.
const STAKE: u64 = 1_000_000_000_000;

/// See the module. Its folder goes when it is dropped; its processes end by [`Network::stop`], or when this process does.
pub(super) struct Network {
    folder: Folder,
    chain: Chain,
    count: usize,
    base_port: u16,
    nodes: Vec<Node>,
    link: Option<Arc<Link>>,
    /// They pass on what goes over the link.
    passing: JoinSet<()>,
}

impl Network {
    /// Writes the homes of `count` validators, with `accounts` funded from the start.
    pub(super) fn create(count: usize, base_port: u16, accounts: Vec<(Address, u64)>) -> Result<Network, Failure> {
        let addresses = addresses(count, &[], base_port)?;
        for address in addresses.iter().flat_map(|(client, peer)| [client, peer]) {
            TcpListener::bind(address)
                .map_err(|error| format!("{address} cannot be used ({error}); choose another --base-port"))?;
        }
        let folder = Folder::new()?;
        let network = new_network(NetworkPlan {
            name: "bench",
            validators: count,
            stake: STAKE,
            accounts,
            // As `localnet` has it.
            params: Params { idle_interval_ms: 2000, ..Params::default() },
        })?;
        for number in 0..count {
            write_home(&folder.path.join(format!("node{}", number + 1)), &network, number, &addresses)?;
        }
        let chain = Genesis::parse(&network.genesis.encode()?)?.chain;
        Ok(Network { folder, chain, count, base_port, nodes: Vec::new(), link: None, passing: JoinSet::new() })
    }

    /// Puts a link of its own between the first validator and the others, before they start.
    pub(super) async fn put_link(&mut self) -> Result<(), Failure> {
        let link = Arc::<Link>::default();
        let home = |number: usize| self.folder.path.join(format!("node{}", number + 1));
        let addresses = addresses(self.count, &[], self.base_port)?;
        let first = addresses.first().map(|(_, peer)| *peer).ok_or("a network without validators has no link")?;
        let to_first = pass_on(first, Upload::Answered, &link, &mut self.passing).await?;
        for number in 0..self.count {
            let mut config = NodeConfig::load(&home(number))?;
            for peer in &mut config.peers {
                let address: SocketAddr = peer.endpoint.trim_start_matches("http://").parse()?;
                let instead = match (number, address == first) {
                    (0, _) => pass_on(address, Upload::Dialled, &link, &mut self.passing).await?,
                    (_, true) => to_first,
                    (_, false) => continue,
                };
                peer.endpoint = format!("http://{instead}");
            }
            fs::write(home(number).join(config::FILE), config.encode()?)?;
        }
        self.link = Some(link);
        Ok(())
    }

    /// The link of the first validator, if it has one of its own.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.link.clone()
    }

    /// Starts all validators and waits until each knows a first block.
    pub(super) async fn start(&mut self) -> Result<(), Failure> {
        for number in 1..=self.count {
            self.nodes.push(start(&self.folder.path, number, self.base_port)?);
        }
        first_block(&mut self.nodes).await
    }

    /// The chain that payments are signed for.
    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Client URL of every node.
    pub(super) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    /// What every node has used so far; an error names one that has ended.
    pub(super) fn usage(&mut self) -> Result<Vec<Usage>, Failure> {
        self.check()?;
        let ids = self.nodes.iter().filter_map(|node| node.child.id());
        Ok(ids.map(usage::of_process).collect::<Result<_, _>>()?)
    }

    /// Fails if a node has ended.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            if let Some(status) = node.child.try_wait()? {
                return Err(format!("validator {} ended with {status}", node.number).into());
            }
        }
        Ok(())
    }

    /// Stops all validators.
    pub(super) async fn stop(&mut self) {
        stop_all(&mut self.nodes).await;
    }

    /// Leaves the folder for whoever wants to know what went wrong.
    pub(super) fn keep(self) -> String {
        let mut folder = self.folder;
        folder.kept = true;
        folder.path.display().to_string()
    }
}

/// A folder that goes when it is dropped.
struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    fn new() -> Result<Folder, Failure> {
        let mut unique = [0; 8];
        getrandom::fill(&mut unique).map_err(|error| format!("the system gives no random numbers: {error}"))?;
        let path = std::env::temp_dir().join(format!("tally-bench-{}", hex::encode(unique)));
        create_private(&path).map_err(|error| format!("cannot make the folder {}: {error}", path.display()))?;
        Ok(Folder { path, kept: false })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            note!("the folder {} could not be removed: {error}", self.path.display());
        }
    }
}

fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(0o700).create(path)
}
