//! The genesis file: supply, first accounts, first validators, parameters. Its bytes are the chain's identity.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    address::Address,
    amount::{Amount, Decimals},
    hash::Hash,
    number::{Stake, UnixMillis},
    signature::PublicKey,
    validators::{Validator, ValidatorSet, ValidatorSetError},
};

/// The format this version reads and writes.
pub const FORMAT: u32 = 1;
/// Most bytes of a genesis file.
pub const GENESIS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What names a chain: every signature is bound to the hash, people read the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Genesis name, "-", first 8 hex digits of the genesis hash.
    pub id: String,
    /// SHA-256 of the genesis file's bytes.
    pub genesis_hash: Hash,
}

/// Content of a genesis file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisFile {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the network: 1 to 32 of a-z, 0-9 and "-".
    pub name: String,
    /// Time of genesis in Unix milliseconds; the first block's time is above it.
    pub time_ms: u64,
    /// Symbol of the token: 1 to 12 of A-Z.
    pub symbol: String,
    /// Decimal places, 0 to 18.
    pub decimals: u32,
    /// All tokens there will ever be, in base units: the sum of balances and stakes, at most 2^63-1.
    #[serde(with = "decimal")]
    pub total_supply: u64,
    /// Parameters.
    pub params: Params,
    /// First accounts.
    pub accounts: Vec<GenesisAccount>,
    /// First validators.
    pub validators: Vec<GenesisValidator>,
}

/// Parameters of the chain, fixed at genesis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Fee of every operation, base units.
    #[serde(with = "decimal")]
    pub base_fee: u64,
    /// Least opening balance of an account, base units.
    #[serde(with = "decimal")]
    pub min_opening_balance: u64,
    /// Least stake of a validator, base units, above zero.
    #[serde(with = "decimal")]
    pub min_validator_stake: u64,
    /// Greatest distance of an `expire_time` from a block's time, milliseconds.
    pub max_expiry_ms: u64,
    /// Blocks of an epoch, [`EPOCH_BLOCKS_MIN`] to [`EPOCH_BLOCKS_MAX`].
    pub epoch_blocks: u64,
    /// How far execution may lag before blocks stay empty, in blocks, at least 4.
    pub execution_window: u64,
    /// Longest wait between blocks when there is nothing to order, milliseconds.
    pub idle_interval_ms: u64,
    /// How long a replica first waits for a proposal, and then for its certificate, milliseconds.
    pub view_timeout_ms: u64,
    /// How far a block's time may be ahead of a validator's clock, milliseconds.
    pub max_clock_drift_ms: u64,
}

/// Least `epoch_blocks`: an epoch must outlast the execution window, so that its last block can name the next set.
pub const EPOCH_BLOCKS_MIN: u64 = 16;
/// Most `epoch_blocks`: whoever catches up can hold the headers of a whole epoch, so those above a gap leave room for those
/// that close it.
pub const EPOCH_BLOCKS_MAX: u64 = 1000;

impl Default for Params {
    fn default() -> Params {
        Params {
            base_fee: 1_000_000,
            min_opening_balance: 10_000_000,
            min_validator_stake: 1_000_000_000,
            max_expiry_ms: 24 * 60 * 60 * 1000,
            epoch_blocks: 1000,
            execution_window: 16,
            idle_interval_ms: 10_000,
            view_timeout_ms: 1000,
            max_clock_drift_ms: 1000,
        }
    }
}

/// An account that exists from the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisAccount {
    /// Its address.
    pub address: String,
    /// Its balance, base units.
    #[serde(with = "decimal")]
    pub balance: u64,
}

/// A validator from the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisValidator {
    /// Its operator account, which must be among the accounts: fees go there.
    pub address: String,
    /// The key that signs its messages, 64 hex digits; not the operator's own.
    pub consensus_public_key: String,
    /// Its stake, base units, outside any balance.
    #[serde(with = "decimal")]
    pub stake: u64,
    /// A name for people, at most 64 bytes.
    #[serde(default)]
    pub moniker: String,
}

/// A genesis file that was checked: what a chain starts from.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// The chain it makes.
    pub chain: Chain,
    /// Time of genesis.
    pub time: UnixMillis,
    /// Symbol of the token.
    pub symbol: String,
    /// Its decimal places.
    pub decimals: Decimals,
    /// All tokens there will ever be.
    pub total_supply: Amount,
    /// Parameters.
    pub params: Params,
    /// First accounts, by address.
    pub accounts: Vec<(Address, Amount)>,
    /// First validators, and names for people by place.
    pub validators: ValidatorSet,
    /// Names for people, by place in the set.
    pub monikers: Vec<String>,
    /// The file's bytes.
    pub bytes: Vec<u8>,
}

/// Why bytes are no genesis file.
#[derive(Debug, Error)]
pub enum GenesisError {
    /// Over [`GENESIS_BYTES_MAX`].
    #[error("the genesis file has {0} bytes, at most {GENESIS_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// No JSON of the right shape.
    #[error("the genesis file is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// Another format.
    #[error("the genesis file has format {0}, this version reads format {FORMAT}")]
    Format(u32),
    /// A field out of its range.
    #[error("genesis field {field}: {problem}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// The validators are no set.
    #[error("genesis validators: {0}")]
    Validators(#[from] ValidatorSetError),
    /// Balances and stakes do not add up.
    #[error("balances and stakes add up to {sum} base units, total_supply says {total_supply}")]
    Supply {
        /// What they add up to.
        sum: u128,
        /// What the file says.
        total_supply: u64,
    },
}

impl GenesisFile {
    /// The file's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, GenesisError> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a file without checking what it says.
    pub fn parse(bytes: &[u8]) -> Result<GenesisFile, GenesisError> {
        if bytes.len() > GENESIS_BYTES_MAX {
            return Err(GenesisError::TooLarge(bytes.len()));
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl Genesis {
    /// Reads and checks a genesis file.
    pub fn parse(bytes: &[u8]) -> Result<Genesis, GenesisError> {
        let file = GenesisFile::parse(bytes)?;
        if file.format != FORMAT {
            return Err(GenesisError::Format(file.format));
        }
        check_names(&file)?;
        check_params(&file.params)?;
        let decimals = Decimals::new(file.decimals).ok_or_else(|| wrong("decimals", "is above 18"))?;
        let accounts = accounts(&file)?;
        let members = members(&file, &accounts)?;
        let validators = ValidatorSet::new(members)?;
        let sum = accounts.iter().map(|(_, balance)| u128::from(balance.0)).sum::<u128>();
        let sum = sum.saturating_add(u128::from(validators.total().0));
        if file.total_supply > Amount::SUPPLY_MAX.0 {
            return Err(wrong("total_supply", "is above 2^63-1"));
        }
        if sum != u128::from(file.total_supply) {
            return Err(GenesisError::Supply { sum, total_supply: file.total_supply });
        }
        let genesis_hash = Hash::of(bytes);
        let id = format!("{}-{}", file.name, genesis_hash.to_string().get(..8).unwrap_or_default());
        let moniker_of = |member: &Validator| {
            let address = member.address.to_string();
            let found = file.validators.iter().find(|validator| validator.address == address);
            found.map(|validator| validator.moniker.clone()).unwrap_or_default()
        };
        Ok(Genesis {
            chain: Chain { id, genesis_hash },
            time: UnixMillis(file.time_ms),
            symbol: file.symbol.clone(),
            decimals,
            total_supply: Amount(file.total_supply),
            params: file.params.clone(),
            monikers: validators.members().iter().map(moniker_of).collect(),
            accounts,
            validators,
            bytes: bytes.to_vec(),
        })
    }
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> GenesisError {
    GenesisError::Field { field: field.into(), problem: problem.into() }
}

fn check_names(file: &GenesisFile) -> Result<(), GenesisError> {
    let name_bytes = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=32).contains(&file.name.len()) || !file.name.bytes().all(name_bytes) {
        return Err(wrong("name", "must be 1 to 32 of a-z, 0-9 and \"-\""));
    }
    if !(1..=12).contains(&file.symbol.len()) || !file.symbol.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(wrong("symbol", "must be 1 to 12 of A-Z"));
    }
    Ok(())
}

fn check_params(params: &Params) -> Result<(), GenesisError> {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let in_range = |field: &str, value: u64, least: u64, most: u64| match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(wrong(format!("params.{field}"), format!("is {value}, must be {least} to {most}"))),
    };
    // A fee times 64 operations must stay an amount.
    in_range("base_fee", params.base_fee, 0, Amount::SUPPLY_MAX.0.checked_div(64).unwrap_or_default())?;
    in_range("min_opening_balance", params.min_opening_balance, 0, Amount::SUPPLY_MAX.0)?;
    in_range("min_validator_stake", params.min_validator_stake, 1, Amount::SUPPLY_MAX.0)?;
    in_range("max_expiry_ms", params.max_expiry_ms, 1000, DAY_MS)?;
    in_range("epoch_blocks", params.epoch_blocks, EPOCH_BLOCKS_MIN, EPOCH_BLOCKS_MAX)?;
    let window_max = params.epoch_blocks.saturating_sub(4).min(1000);
    in_range("execution_window", params.execution_window, 4, window_max)?;
    in_range("idle_interval_ms", params.idle_interval_ms, 10, DAY_MS)?;
    in_range("view_timeout_ms", params.view_timeout_ms, 10, DAY_MS)?;
    in_range("max_clock_drift_ms", params.max_clock_drift_ms, 1, DAY_MS)
}

fn accounts(file: &GenesisFile) -> Result<Vec<(Address, Amount)>, GenesisError> {
    let mut accounts = Vec::with_capacity(file.accounts.len());
    for (index, account) in file.accounts.iter().enumerate() {
        let field = || format!("accounts[{index}].address");
        let address: Address = account.address.parse().map_err(|error| wrong(field(), format!("{error}")))?;
        if !PublicKey::from(address).is_usable() {
            return Err(wrong(field(), "is no key anybody can sign with"));
        }
        accounts.push((address, Amount(account.balance)));
    }
    accounts.sort();
    for ((one, _), (two, _)) in accounts.iter().zip(accounts.iter().skip(1)) {
        if one == two {
            return Err(wrong("accounts", format!("{one} is listed twice")));
        }
    }
    Ok(accounts)
}

fn members(file: &GenesisFile, accounts: &[(Address, Amount)]) -> Result<Vec<Validator>, GenesisError> {
    let known: BTreeSet<_> = accounts.iter().map(|(address, _)| *address).collect();
    let mut members = Vec::with_capacity(file.validators.len());
    for (index, validator) in file.validators.iter().enumerate() {
        let field = |name: &str| format!("validators[{index}].{name}");
        let address: Address =
            validator.address.parse().map_err(|error| wrong(field("address"), format!("{error}")))?;
        if !known.contains(&address) {
            return Err(wrong(
                field("address"),
                format!("{address} is not among the accounts; fees must go somewhere"),
            ));
        }
        let key = PublicKey::from_hex(&validator.consensus_public_key)
            .ok_or_else(|| wrong(field("consensus_public_key"), "is not 64 lower-case hex digits"))?;
        if !key.is_usable() {
            return Err(wrong(field("consensus_public_key"), "is no key anybody can sign with"));
        }
        if validator.stake < file.params.min_validator_stake {
            let problem = format!("is {}, below params.min_validator_stake", validator.stake);
            return Err(wrong(field("stake"), problem));
        }
        if validator.moniker.len() > 64 {
            return Err(wrong(field("moniker"), "is longer than 64 bytes"));
        }
        members.push(Validator { address, key, stake: Stake(validator.stake) });
    }
    Ok(members)
}

/// 64-bit integers as decimal strings: JSON numbers lose digits above 2^53 in many readers.
mod decimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let parsed = digits.then(|| text.parse().ok()).flatten();
        parsed.ok_or_else(|| D::Error::custom(format!("{text:?} is not a whole number of base units below 2^64")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::SecretKey;

    fn address(seed: u8) -> String {
        SecretKey::from_seed(&[seed; 32]).public_key().address().to_string()
    }

    fn file() -> GenesisFile {
        let validator = |seed: u8| GenesisValidator {
            address: address(seed),
            consensus_public_key: SecretKey::from_seed(&[seed + 100; 32]).public_key().to_string(),
            stake: 1_000_000_000,
            moniker: format!("v{seed}"),
        };
        GenesisFile {
            format: FORMAT,
            name: "test".into(),
            time_ms: 1_800_000_000_000,
            symbol: "TALLY".into(),
            decimals: 9,
            total_supply: 2_000_000_030,
            params: Params::default(),
            accounts: vec![
                GenesisAccount { address: address(1), balance: 10 },
                GenesisAccount { address: address(2), balance: 20 },
            ],
            validators: vec![validator(1), validator(2)],
        }
    }

    fn parse(change: impl FnOnce(&mut GenesisFile)) -> Result<Genesis, String> {
        let mut file = file();
        change(&mut file);
        Genesis::parse(&file.encode().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_file_names_its_chain_by_its_bytes() {
        let genesis = parse(|_| {}).unwrap();
        let hash = Hash::of(&file().encode().unwrap());
        assert_eq!(genesis.chain.genesis_hash, hash);
        assert_eq!(genesis.chain.id, format!("test-{}", &hash.to_string()[..8]));
        assert_eq!(genesis.validators.len(), 2);
        let place = genesis.validators.place_of(&address(2).parse().unwrap()).unwrap();
        assert_eq!(genesis.monikers[place as usize], "v2");
    }

    #[test]
    fn every_fault_is_named() {
        for (change, expected) in [
            ((|f| f.format = 2) as fn(&mut GenesisFile), "has format 2, this version reads format 1"),
            (|f| f.name = "Test".into(), "name: must be 1 to 32"),
            (|f| f.symbol = String::new(), "symbol: must be 1 to 12"),
            (|f| f.decimals = 19, "decimals: is above 18"),
            (|f| f.total_supply += 1, "add up to 2000000030 base units, total_supply says 2000000031"),
            (|f| f.total_supply = 1 << 63, "total_supply: is above 2^63-1"),
            (|f| f.accounts[0].address = "x".into(), "accounts[0].address"),
            (|f| f.accounts[1] = f.accounts[0].clone(), "is listed twice"),
            (|f| f.accounts[0].address = Address([0; 32]).to_string(), "no key anybody can sign with"),
            (|f| f.validators.clear(), "0 validators; a set has 1 to 128"),
            (|f| f.validators[0].address = address(3), "not among the accounts"),
            (|f| f.validators[0].consensus_public_key = "00".into(), "64 lower-case hex digits"),
            (|f| f.validators[0].consensus_public_key = "00".repeat(32), "no key anybody can sign with"),
            (|f| f.validators[0].stake = 999_999_999, "below params.min_validator_stake"),
            (|f| f.params.epoch_blocks = 15, "params.epoch_blocks: is 15"),
            (|f| f.params.epoch_blocks = 1001, "params.epoch_blocks: is 1001"),
            (|f| f.params.execution_window = 3, "params.execution_window: is 3"),
            (|f| f.params.max_expiry_ms = 86_400_001, "params.max_expiry_ms"),
            (|f| f.params.base_fee = u64::MAX / 64, "params.base_fee"),
        ] {
            let error = parse(change).unwrap_err();
            assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
        }
    }

    #[test]
    fn unknown_fields_and_loose_numbers_are_refused() {
        let text = String::from_utf8(file().encode().unwrap()).unwrap();
        for (from, to) in [
            ("\"name\"", "\"extra\": 1, \"name\""),
            ("\"balance\": \"10\"", "\"balance\": 10"),
            ("\"balance\": \"10\"", "\"balance\": \"+10\""),
            ("\"balance\": \"10\"", "\"balance\": \"18446744073709551616\""),
        ] {
            assert!(text.contains(from));
            assert!(matches!(Genesis::parse(text.replace(from, to).as_bytes()), Err(GenesisError::Json(_))));
        }
    }
}
