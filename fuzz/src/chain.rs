//! A small chain that all targets share: its genesis and the frozen bytes of everything on it.

use std::{collections::HashMap, sync::OnceLock};

use tally_types::{
    Address, Genesis, SecretKey,
    genesis::{GenesisAccount, GenesisFile, GenesisValidator},
};

/// The vectors that libraries in other languages check themselves against.
const VECTORS: &str = include_str!("../../clients/vectors/vectors.txt");

/// Value of a line of the vectors, as bytes.
pub fn vector(name: &str) -> Vec<u8> {
    static LINES: OnceLock<HashMap<&str, &str>> = OnceLock::new();
    let lines = LINES.get_or_init(|| VECTORS.lines().filter_map(|line| line.split_once(' ')).collect());
    let value = lines.get(name).unwrap_or_else(|| panic!("no vector {name}"));
    hex::decode(value).unwrap_or_else(|_| value.as_bytes().to_vec())
}

/// The chain of the vectors.
pub fn genesis() -> &'static Genesis {
    static GENESIS: OnceLock<Genesis> = OnceLock::new();
    GENESIS.get_or_init(|| Genesis::parse(&vector("genesis.file")).expect("the frozen genesis is good"))
}

/// Bytes that are read as one decision each: any will do, so some with different lengths and patterns.
pub fn decisions() -> Vec<Vec<u8>> {
    let pattern =
        |step: u8| (0..400u16).map(|at| (at as u8).wrapping_mul(step).rotate_left(u32::from(at % 7))).collect();
    [1, 7, 37, 101, 151, 211].into_iter().map(pattern).collect()
}

/// The same validators, with epochs as short as they may be.
pub fn short_epochs() -> &'static Genesis {
    static GENESIS: OnceLock<Genesis> = OnceLock::new();
    GENESIS.get_or_init(|| {
        let file = String::from_utf8(vector("genesis.file")).expect("JSON is text");
        let short = file.replace("\"epoch_blocks\": 1000", "\"epoch_blocks\": 16");
        let short = short.replace("\"execution_window\": 16", "\"execution_window\": 8");
        Genesis::parse(short.as_bytes()).expect("as good as the frozen genesis")
    })
}

/// Validators at most.
pub const MANY: usize = 128;

/// A chain with as many validators as there may be.
pub fn many() -> &'static Genesis {
    static GENESIS: OnceLock<Genesis> = OnceLock::new();
    GENESIS.get_or_init(|| Genesis::parse(&crowd(MANY)).expect("a good genesis"))
}

/// The file of a genesis with as many validators as there may be and so many accounts.
pub fn crowd(accounts: usize) -> Vec<u8> {
    let key = |number: usize| {
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        SecretKey::from_seed(&seed).public_key()
    };
    let addresses: Vec<String> = (0..accounts).map(|number| Address(key(number).0).to_string()).collect();
    let params = genesis().params.clone();
    let validator = |place: usize| GenesisValidator {
        address: addresses[place].clone(),
        consensus_public_key: key(place).to_string(),
        stake: params.min_validator_stake,
        moniker: String::new(),
    };
    let file = GenesisFile {
        format: 1,
        name: "crowd".into(),
        time_ms: genesis().time.0,
        symbol: "TALLY".into(),
        decimals: 9,
        total_supply: accounts as u64 * 1000 + MANY as u64 * params.min_validator_stake,
        accounts: addresses.iter().map(|address| GenesisAccount { address: address.clone(), balance: 1000 }).collect(),
        validators: (0..MANY).map(validator).collect(),
        params,
    };
    file.encode().expect("JSON")
}
