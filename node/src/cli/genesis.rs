//! Writing and checking genesis files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use tally_types::{
    Address, Genesis, Hash, Params, PublicKey,
    genesis::{FORMAT, GENESIS_BYTES_MAX, GenesisAccount, GenesisFile, GenesisValidator},
};

use super::{Failure, parse_address};
use crate::{driver::unix_millis, files, words::say};

#[derive(Debug, Subcommand)]
pub enum GenesisCommand {
    /// Writes a genesis file without accounts and validators.
    #[command(
        after_help = "Example:\n  tally-node genesis new --name points --symbol POINT --decimals 2 --file genesis.json"
    )]
    New(NewOptions),
    /// Adds an account.
    #[command(after_help = "Example:\n  tally-node genesis add-account --file genesis.json tally1... 100000000000")]
    AddAccount(AccountOptions),
    /// Adds a validator; its operator account must be among the accounts.
    #[command(
        after_help = "Example:\n  tally-node genesis add-validator --file genesis.json --stake 1000000000 tally1... 3b6a27bc..."
    )]
    AddValidator(ValidatorOptions),
    /// Checks a file and shows what it makes.
    #[command(after_help = "Example:\n  tally-node genesis validate --file genesis.json")]
    Validate(FileOption),
    /// Prints the genesis hash: the chain's identity.
    #[command(after_help = "Example:\n  tally-node genesis hash --file genesis.json")]
    Hash(FileOption),
}

#[derive(Debug, Args)]
pub struct FileOption {
    /// The genesis file.
    #[arg(long, default_value = "genesis.json", value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub struct NewOptions {
    #[command(flatten)]
    file: FileOption,
    /// Name of the network: 1 to 32 of a-z, 0-9 and "-".
    #[arg(long)]
    name: String,
    /// Symbol of the token.
    #[arg(long, default_value = "TALLY")]
    symbol: String,
    /// Its decimal places, 0 to 18.
    #[arg(long, default_value_t = 9)]
    decimals: u32,
    /// Fee of every operation, base units.
    #[arg(long, default_value_t = Params::default().base_fee)]
    base_fee: u64,
    /// Blocks of an epoch.
    #[arg(long, default_value_t = Params::default().epoch_blocks)]
    epoch_blocks: u64,
}

#[derive(Debug, Args)]
pub struct AccountOptions {
    #[command(flatten)]
    file: FileOption,
    /// Its address.
    #[arg(value_parser = parse_address)]
    address: Address,
    /// Its balance, base units.
    balance: u64,
}

#[derive(Debug, Args)]
pub struct ValidatorOptions {
    #[command(flatten)]
    file: FileOption,
    /// Its operator account.
    #[arg(value_parser = parse_address)]
    address: Address,
    /// Its consensus public key, 64 hex digits: `tally-node keys show`.
    #[arg(value_parser = |text: &str| PublicKey::from_hex(text).ok_or("not 64 lower-case hex digits"))]
    consensus_public_key: PublicKey,
    /// Its stake, base units.
    #[arg(long)]
    stake: u64,
    /// A name for people.
    #[arg(long, default_value = "")]
    moniker: String,
}

pub fn run(command: &GenesisCommand) -> Result<(), Failure> {
    match command {
        GenesisCommand::New(options) => new(options),
        GenesisCommand::AddAccount(options) => change(&options.file, options.balance, |file| {
            let address = options.address.to_string();
            file.accounts.push(GenesisAccount { address, balance: options.balance });
        }),
        GenesisCommand::AddValidator(options) => change(&options.file, options.stake, |file| {
            file.validators.push(GenesisValidator {
                address: options.address.to_string(),
                consensus_public_key: options.consensus_public_key.to_string(),
                stake: options.stake,
                moniker: options.moniker.clone(),
            });
        }),
        GenesisCommand::Validate(options) => validate(options),
        GenesisCommand::Hash(options) => {
            say!("{}", Hash::of(&read(&options.file)?));
            Ok(())
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    Ok(files::read(file, GENESIS_BYTES_MAX as u64).map_err(|error| format!("{}: {error}", file.display()))?)
}

fn new(options: &NewOptions) -> Result<(), Failure> {
    let file = GenesisFile {
        format: FORMAT,
        name: options.name.clone(),
        time_ms: unix_millis(),
        symbol: options.symbol.clone(),
        decimals: options.decimals,
        total_supply: 0,
        params: Params {
            base_fee: options.base_fee,
            epoch_blocks: options.epoch_blocks,
            // An epoch must outlast the window.
            execution_window: Params::default().execution_window.min(options.epoch_blocks.saturating_sub(4)),
            ..Params::default()
        },
        accounts: Vec::new(),
        validators: Vec::new(),
    };
    let path = &options.file.file;
    if path.exists() {
        return Err(format!("{} exists; it was left as it is", path.display()).into());
    }
    fs::write(path, file.encode()?)?;
    say!("{} written; add accounts and validators, then run `tally-node genesis validate`", path.display());
    Ok(())
}

/// Changes a file that need not be whole yet; the supply grows with what is added.
fn change(option: &FileOption, adds: u64, act: impl FnOnce(&mut GenesisFile)) -> Result<(), Failure> {
    let mut file = GenesisFile::parse(&read(&option.file)?)?;
    file.total_supply = file.total_supply.checked_add(adds).ok_or("the supply would be more than 2^64-1")?;
    act(&mut file);
    // Written beside and renamed: an interruption leaves the old file or the new one.
    let beside = option.file.with_extension("json.tmp");
    fs::write(&beside, file.encode()?)?;
    Ok(fs::rename(&beside, &option.file)?)
}

fn validate(option: &FileOption) -> Result<(), Failure> {
    let genesis = Genesis::parse(&read(&option.file)?)?;
    say!("chain id:     {}", genesis.chain.id);
    say!("genesis hash: {}", genesis.chain.genesis_hash);
    say!("supply:       {} {}", genesis.decimals.format(genesis.total_supply), genesis.symbol);
    say!("accounts:     {}", genesis.accounts.len());
    say!(
        "validators:   {} (quorum {} of {} stake)",
        genesis.validators.len(),
        genesis.validators.quorum(),
        genesis.validators.total()
    );
    for (member, moniker) in genesis.validators.members().iter().zip(&genesis.monikers) {
        say!("  {} stake {} consensus key {} {moniker}", member.address, member.stake, member.key);
    }
    Ok(())
}
