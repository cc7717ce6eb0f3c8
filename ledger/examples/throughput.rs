//! How fast blocks execute, without signatures, network or disk:
//! `cargo run --release -p tally-ledger --example throughput [transfers] [accounts]`.

// The ledger itself never asks for the time; this measures it from outside.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::time::Instant;

use prost::Message as _;
use tally_ledger::{BlockInput, LaneInput, Ledger};
use tally_proto::v1::{self, operation::Operation};
use tally_types::{
    Address, Genesis, Params, SecretKey, SignedTransaction, UnixMillis,
    genesis::{FORMAT, GenesisAccount, GenesisFile, GenesisValidator},
};

const TIME_MS: u64 = 1_800_000_000_000;
const ROUNDS: usize = 7;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let transfers: usize = arguments.next().unwrap_or(10_000);
    let accounts: usize = arguments.next().unwrap_or(1_000);
    let addresses: Vec<_> = (0..accounts).map(|index| secret(index as u64).public_key().address()).collect();
    let genesis = genesis(&addresses);
    let ledger = Ledger::genesis(&genesis);
    let transactions: Vec<_> = (0..transfers).map(|index| transfer(&genesis, &addresses, index)).collect();

    let mut parse_ms = Vec::new();
    let mut execute_ms = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for bytes in &transactions {
            SignedTransaction::parse(bytes, &genesis.chain).expect("well-formed");
        }
        parse_ms.push(start.elapsed().as_secs_f64() * 1e3);
        let mut ledger = ledger.clone();
        let lane = LaneInput {
            fee_recipient: addresses[0],
            transactions: transactions.iter().map(|bytes| &bytes[..]).collect(),
        };
        let block = BlockInput { height: ledger.height().next(), time: UnixMillis(TIME_MS + 1_000), lanes: vec![lane] };
        let start = Instant::now();
        let outcome = ledger.execute(&block).expect("a good block");
        execute_ms.push(start.elapsed().as_secs_f64() * 1e3);
        assert!(outcome.transactions.iter().all(|tx| tx.receipt.result.is_ok()));
        assert_eq!(outcome.transactions.len(), transfers);
    }
    parse_ms.sort_by(f64::total_cmp);
    execute_ms.sort_by(f64::total_cmp);
    let (parse, execute) = (parse_ms[ROUNDS / 2], execute_ms[ROUNDS / 2]);
    println!(
        "{transfers} transfers among {accounts} accounts in one block: {execute:.1} ms (of which parsing {parse:.1} ms), \
         {:.0} transfers/s; median of {ROUNDS}",
        transfers as f64 / execute * 1e3
    );
}

fn secret(index: u64) -> SecretKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&index.to_be_bytes());
    SecretKey::from_seed(&seed)
}

fn genesis(addresses: &[Address]) -> Genesis {
    let file = GenesisFile {
        format: FORMAT,
        name: "bench".into(),
        time_ms: TIME_MS,
        symbol: "TALLY".into(),
        decimals: 9,
        total_supply: 1_000_000_000 * addresses.len() as u64 + 1_000,
        params: Params { base_fee: 10, min_validator_stake: 1, ..Params::default() },
        accounts: addresses
            .iter()
            .map(|address| GenesisAccount { address: address.to_string(), balance: 1_000_000_000 })
            .collect(),
        validators: vec![GenesisValidator {
            address: addresses[0].to_string(),
            consensus_public_key: secret(u64::MAX).public_key().to_string(),
            stake: 1_000,
            moniker: String::new(),
        }],
    };
    Genesis::parse(&file.encode().expect("writable")).expect("a good genesis")
}

fn transfer(genesis: &Genesis, addresses: &[Address], index: usize) -> Vec<u8> {
    let sender = addresses[index % addresses.len()];
    let recipient = addresses[(index * 7_919 + 13) % addresses.len()];
    let transfer = v1::Transfer { recipient: recipient.to_string(), amount: 5 };
    let body = v1::TransactionBody {
        chain_id: genesis.chain.id.clone(),
        sender: sender.to_string(),
        nonce: (index / addresses.len()) as u64 + 1,
        expire_time: Some(prost_types::Timestamp { seconds: (TIME_MS / 1_000) as i64 + 60, nanos: 0 }),
        max_fee: 1_000,
        memo: String::new(),
        operations: vec![v1::Operation { operation: Some(Operation::Transfer(transfer)) }],
    };
    let signature = v1::Signature { signer: String::new(), signature: vec![0; 64] };
    v1::Transaction { body: body.encode_to_vec(), signatures: vec![signature] }.encode_to_vec()
}
