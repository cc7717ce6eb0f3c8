//! Making homes: `init`, `testnet generate`, `keys show`, `reindex`.

use std::{
    convert::Infallible,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};
use tally_consensus::Record;
use tally_types::{
    Address, Genesis, Hash, Params, SecretKey,
    genesis::{FORMAT, GENESIS_BYTES_MAX, GenesisAccount, GenesisFile, GenesisValidator},
};

use super::{Failure, HomeOption};
use crate::{
    config::{self, NodeConfig, PeerConfig},
    driver::unix_millis,
    files,
    opening::GENESIS_FILE,
    signing,
    store::{
        disk::RealDisk,
        home::Home,
        index::Index,
        journal::{Journal, JournalConfig},
    },
    turn,
    words::{note, say},
};

#[derive(Debug, Args)]
pub struct InitOptions {
    #[command(flatten)]
    home: HomeOption,
    /// Genesis file of the network; copied into the home. Without it only the key is made.
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum TestnetCommand {
    /// Writes one home per validator, ready to copy to as many machines.
    #[command(
        after_help = "Example:\n  tally-node testnet generate --validators 4 --out testnet --host 10.0.0.1 --host 10.0.0.2 --host 10.0.0.3 --host 10.0.0.4"
    )]
    Generate(GenerateOptions),
}

#[derive(Debug, Args)]
pub struct GenerateOptions {
    /// How many validators, 1 to 128.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=128))]
    validators: u16,
    /// Folder to write; must not exist yet.
    #[arg(long, default_value = "testnet", value_name = "DIR")]
    out: PathBuf,
    /// Name of the network.
    #[arg(long, default_value = "testnet")]
    name: String,
    /// Host of each validator, in order; without any, all on 127.0.0.1 with ports of their own.
    #[arg(long = "host", value_name = "IP")]
    hosts: Vec<IpAddr>,
    /// Ports: clients from this plus 1, peers from this plus 101.
    #[arg(long, default_value_t = 9100)]
    base_port: u16,
    /// An account with its balance in base units, as ADDRESS=AMOUNT; may be given often.
    #[arg(long = "account", value_name = "ADDRESS=AMOUNT", value_parser = parse_account)]
    accounts: Vec<(Address, u64)>,
    /// Stake of each validator, in base units.
    #[arg(long, default_value_t = 1_000_000_000_000)]
    stake: u64,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Shows the consensus public key of a home, for `genesis add-validator`.
    #[command(after_help = "Example:\n  tally-node keys show --home node")]
    Show(HomeOption),
}

fn parse_account(text: &str) -> Result<(Address, u64), String> {
    let (address, amount) = text.split_once('=').ok_or("write ADDRESS=AMOUNT")?;
    let amount = amount.parse().map_err(|_| format!("{amount:?} is not a whole number of base units"))?;
    Ok((super::parse_address(address)?, amount))
}

/// What one network is made of.
pub struct Network {
    /// Its genesis file.
    pub genesis: GenesisFile,
    /// Per validator: consensus key, operator key.
    pub validators: Vec<(SecretKey, SecretKey)>,
}

/// What [`new_network`] is told.
pub struct NetworkPlan<'a> {
    /// Name of the network.
    pub name: &'a str,
    /// How many validators.
    pub validators: usize,
    /// Stake of each, base units.
    pub stake: u64,
    /// Further accounts with their balances.
    pub accounts: Vec<(Address, u64)>,
    /// Parameters.
    pub params: Params,
}

/// Draws keys for a new network and writes its genesis.
pub fn new_network(plan: NetworkPlan<'_>) -> Result<Network, Failure> {
    let mut validators = Vec::new();
    let mut accounts: Vec<GenesisAccount> = Vec::new();
    let mut members = Vec::new();
    let mut total_supply = 0u64;
    for number in 1..=plan.validators {
        let (consensus, operator) = (signing::new_key()?, signing::new_key()?);
        let address = operator.public_key().address().to_string();
        accounts.push(GenesisAccount { address: address.clone(), balance: 0 });
        members.push(GenesisValidator {
            address,
            consensus_public_key: consensus.public_key().to_string(),
            stake: plan.stake,
            moniker: format!("validator-{number}"),
        });
        total_supply = total_supply.checked_add(plan.stake).ok_or("the stakes add up to too much")?;
        validators.push((consensus, operator));
    }
    for (address, balance) in plan.accounts {
        accounts.push(GenesisAccount { address: address.to_string(), balance });
        total_supply = total_supply.checked_add(balance).ok_or("the balances add up to too much")?;
    }
    let genesis = GenesisFile {
        format: FORMAT,
        name: plan.name.to_owned(),
        time_ms: unix_millis(),
        symbol: "TALLY".into(),
        decimals: 9,
        total_supply,
        params: plan.params,
        accounts,
        validators: members,
    };
    Genesis::parse(&genesis.encode()?)?;
    Ok(Network { genesis, validators })
}

/// Writes the home of validator `number` (from 0).
pub fn write_home(
    folder: &Path,
    network: &Network,
    number: usize,
    addresses: &[(SocketAddr, SocketAddr)],
) -> Result<(), Failure> {
    let (consensus, operator) = network.validators.get(number).ok_or("no such validator")?;
    let (client_listen, peer_listen) = *addresses.get(number).ok_or("no address for a validator")?;
    let bytes = network.genesis.encode()?;
    let peers = network.genesis.validators.iter().zip(addresses).enumerate().filter(|(other, _)| *other != number);
    let peers = peers.map(|(_, (validator, (_, peer)))| PeerConfig {
        address: validator.address.clone(),
        endpoint: format!("http://{peer}"),
    });
    let config = NodeConfig { client_listen, peer_listen, peers: peers.collect(), ..NodeConfig::default() };
    let home = Home::open(folder)?;
    signing::write_key(&home.key_file(), consensus)?;
    signing::write_key(&folder.join("operator.key"), operator)?;
    fs::write(folder.join(GENESIS_FILE), &bytes)?;
    fs::write(folder.join(config::FILE), config.encode()?)?;
    begin_journal(&home, &Hash::of(&bytes))
}

/// Leaves the first record in a new journal. A node that finds none knows that its journal was lost. Rule R3.
fn begin_journal(home: &Home, genesis: &Hash) -> Result<(), Failure> {
    let disk = Arc::new(RealDisk::open(&home.journal())?);
    let opened = Journal::open::<Infallible>(disk, JournalConfig::new(genesis.0), &mut |_, _| Ok(()));
    let (mut journal, recovered) = opened?;
    if recovered.records > 0 {
        return Err("this home has a journal already; it was left as it is".into());
    }
    let record = Record::Incarnation(0);
    journal.append(&[turn::raw(&record)])?;
    Ok(journal.sync()?)
}

pub fn init(options: &InitOptions) -> Result<(), Failure> {
    let folder = &options.home.home;
    let genesis = options.genesis.as_ref().map(|file| files::read(file, GENESIS_BYTES_MAX as u64)).transpose()?;
    if let Some(bytes) = &genesis {
        Genesis::parse(bytes)?;
    }
    let home = Home::open(folder)?;
    if home.key_file().exists() {
        // A second `init` completes a home; it never replaces a key.
        if folder.join(GENESIS_FILE).exists() || genesis.is_none() {
            return Err(format!("{} has a key already; it was left as it is", folder.display()).into());
        }
    } else {
        signing::write_key(&home.key_file(), &signing::new_key()?)?;
    }
    let config_path = folder.join(config::FILE);
    if !config_path.exists() {
        fs::write(&config_path, NodeConfig::default().encode()?)?;
    }
    if let Some(bytes) = &genesis {
        fs::write(folder.join(GENESIS_FILE), bytes)?;
        begin_journal(&home, &Hash::of(bytes))?;
    }
    let key = signing::read_key(&home.key_file())?.public_key();
    say!("consensus public key: {key}");
    let shown = folder.display();
    match genesis {
        Some(_) => say!(
            "next: list the other validators as [[peer]] in {shown}/{}, then\n  tally-node start --home {shown}",
            config::FILE
        ),
        None => say!(
            "next: have this key put into the genesis file (tally-node genesis add-validator), then\n  tally-node init --home {shown} --genesis genesis.json"
        ),
    }
    Ok(())
}

pub fn testnet(command: &TestnetCommand) -> Result<(), Failure> {
    let TestnetCommand::Generate(options) = command;
    let count = usize::from(options.validators);
    if !options.hosts.is_empty() && options.hosts.len() != count {
        return Err(
            format!("{} hosts for {count} validators; give one --host each, or none", options.hosts.len()).into()
        );
    }
    if options.out.exists() {
        return Err(format!("{} exists; choose another --out", options.out.display()).into());
    }
    let network = new_network(NetworkPlan {
        name: &options.name,
        validators: count,
        stake: options.stake,
        accounts: options.accounts.clone(),
        params: Params::default(),
    })?;
    let addresses = addresses(count, &options.hosts, options.base_port)?;
    for number in 0..count {
        write_home(&options.out.join(format!("node{}", number + 1)), &network, number, &addresses)?;
    }
    let bytes = network.genesis.encode()?;
    fs::write(options.out.join(GENESIS_FILE), &bytes)?;
    say!("{count} homes in {}, genesis hash {}", options.out.display(), Hash::of(&bytes));
    if options.accounts.iter().all(|(_, balance)| *balance == 0) {
        note!(
            "warning: no account has tokens, and none can be made later: nobody will ever pay. Give --account \
             ADDRESS=AMOUNT, with an address of `tally-wallet keys new`"
        );
    }
    say!("next: copy each folder to its machine and run there\n  tally-node start --home node1");
    Ok(())
}

/// Client and peer address of each validator.
pub fn addresses(count: usize, hosts: &[IpAddr], base_port: u16) -> Result<Vec<(SocketAddr, SocketAddr)>, Failure> {
    let shared = IpAddr::from([127, 0, 0, 1]);
    let mut addresses = Vec::new();
    for number in 0..count {
        let host = hosts.get(number).copied();
        // On a host of its own every validator has the same ports.
        let offset = if host.is_some() { 1 } else { u16::try_from(number + 1)? };
        let client = base_port.checked_add(offset).ok_or("the ports do not fit below 65536")?;
        let peer = client.checked_add(100).ok_or("the ports do not fit below 65536")?;
        let client_host = if host.is_some() { shared } else { host.unwrap_or(shared) };
        addresses.push((SocketAddr::new(client_host, client), SocketAddr::new(host.unwrap_or(shared), peer)));
    }
    Ok(addresses)
}

pub fn keys(command: &KeysCommand) -> Result<(), Failure> {
    let KeysCommand::Show(home) = command;
    let key = signing::read_key(&home.home.join("validator.key"))?;
    say!("{}", key.public_key());
    Ok(())
}

pub fn reindex(folder: &Path) -> Result<(), Failure> {
    // Opening the home makes sure that no node uses it.
    let home = Home::open(folder)?;
    let path = home.index_file();
    match Index::delete(&path) {
        Ok(()) => {}
        Err(error) if !path.exists() => tracing::debug!(%error, "there was no index"),
        Err(error) => return Err(error.into()),
    }
    say!("the index is gone; the next `tally-node start --home {}` makes it anew from the journal", folder.display());
    Ok(())
}

/// Removes a folder that this program made.
pub fn remove_folder(folder: &Path, marker: &str) -> Result<(), Failure> {
    if !folder.exists() {
        return Ok(());
    }
    if !folder.join(marker).exists() {
        let shown = folder.display();
        return Err(
            format!("{shown} is not a folder this command made (no {marker} in it); it was left as it is").into()
        );
    }
    fs::remove_dir_all(folder).map_err(|error: io::Error| error.into())
}
