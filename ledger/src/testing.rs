//! A small chain for the tests of this crate. Its transactions carry no real signature: a ledger never looks at one.

use std::sync::OnceLock;

use prost::Message as _;
use tally_proto::v1::{self, operation::Operation};
use tally_types::{
    Address, Genesis, SecretKey, SignedTransaction, UnixMillis, VerifiedTransaction,
    genesis::{FORMAT, GenesisAccount, GenesisFile, GenesisValidator, Params},
};

use crate::block::{BlockInput, LaneInput, Ledger, Outcome};

/// Fee of an operation.
pub(crate) const BASE_FEE: u64 = 10;
/// Least opening balance.
pub(crate) const MIN_OPENING: u64 = 100;
/// Balance of each genesis account.
pub(crate) const BALANCE: u64 = 10_000;
/// Time of every block, unless a test says otherwise.
pub(crate) const TIME: UnixMillis = UnixMillis(1_800_000_100_000);
/// Greatest distance of an expiry.
pub(crate) const MAX_EXPIRY: u64 = 60_000;
/// Seed of the account that receives the fees of the only lane.
pub(crate) const LANE: u8 = 4;

/// An address whose key somebody can hold.
pub(crate) fn address(seed: u8) -> Address {
    SecretKey::from_seed(&[seed; 32]).public_key().address()
}

/// Accounts 1 to 4; 2 to 4 operate validators.
pub(crate) fn genesis() -> Genesis {
    static GENESIS: OnceLock<Genesis> = OnceLock::new();
    GENESIS.get_or_init(make_genesis).clone()
}

fn make_genesis() -> Genesis {
    let validator = |seed: u8| GenesisValidator {
        address: address(seed).to_string(),
        consensus_public_key: SecretKey::from_seed(&[seed + 100; 32]).public_key().to_string(),
        stake: 1_000,
        moniker: String::new(),
    };
    let account = |seed: u8| GenesisAccount { address: address(seed).to_string(), balance: BALANCE };
    let file = GenesisFile {
        format: FORMAT,
        name: "test".into(),
        time_ms: 1_800_000_000_000,
        symbol: "TALLY".into(),
        decimals: 9,
        total_supply: 4 * BALANCE + 3_000,
        params: Params {
            base_fee: BASE_FEE,
            min_opening_balance: MIN_OPENING,
            min_validator_stake: 1_000,
            max_expiry_ms: MAX_EXPIRY,
            ..Params::default()
        },
        accounts: (1..=4).map(account).collect(),
        validators: (2..=4).map(validator).collect(),
    };
    Genesis::parse(&file.encode().unwrap()).unwrap()
}

pub(crate) fn ledger() -> Ledger {
    Ledger::genesis(&genesis())
}

/// A transaction under construction: nonce 1, any fee, expires in time, no operation yet.
#[derive(Clone, Debug)]
pub(crate) struct Tx {
    body: v1::TransactionBody,
}

impl Tx {
    pub(crate) fn of(seed: u8) -> Tx {
        Tx::from_address(address(seed))
    }

    pub(crate) fn from_address(sender: Address) -> Tx {
        let body = v1::TransactionBody {
            chain_id: genesis().chain.id,
            sender: sender.to_string(),
            nonce: 1,
            max_fee: u64::MAX,
            ..Default::default()
        };
        Tx { body }.expires(TIME.plus(1_000))
    }

    pub(crate) fn nonce(mut self, nonce: u64) -> Tx {
        self.body.nonce = nonce;
        self
    }

    pub(crate) fn max_fee(mut self, max_fee: u64) -> Tx {
        self.body.max_fee = max_fee;
        self
    }

    pub(crate) fn expires(mut self, at: UnixMillis) -> Tx {
        let nanos = i32::try_from(at.0 % 1_000).unwrap() * 1_000_000;
        self.body.expire_time = Some(prost_types::Timestamp { seconds: i64::try_from(at.0 / 1_000).unwrap(), nanos });
        self
    }

    pub(crate) fn transfer(self, recipient: Address, amount: u64) -> Tx {
        self.operation(Operation::Transfer(v1::Transfer { recipient: recipient.to_string(), amount }))
    }

    pub(crate) fn create(self, new_account: Address, opening_balance: u64) -> Tx {
        let new_account = new_account.to_string();
        self.operation(Operation::CreateAccount(v1::CreateAccount { new_account, opening_balance }))
    }

    fn operation(mut self, operation: Operation) -> Tx {
        self.body.operations.push(v1::Operation { operation: Some(operation) });
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let signature = v1::Signature { signer: String::new(), signature: vec![0; 64] };
        v1::Transaction { body: self.body.encode_to_vec(), signatures: vec![signature] }.encode_to_vec()
    }

    pub(crate) fn verified(&self) -> VerifiedTransaction {
        SignedTransaction::parse(&self.bytes(), &genesis().chain).unwrap().ordered()
    }
}

/// An address that no key belongs to.
pub(crate) fn unusable() -> Address {
    let mut no_point = [0; 32];
    no_point[0] = 2;
    Address(no_point)
}

/// The next block, all of it in the lane of account [`LANE`].
pub(crate) fn block<'a>(ledger: &Ledger, transactions: &'a [Vec<u8>]) -> BlockInput<'a> {
    let transactions = transactions.iter().map(|bytes| &bytes[..]).collect();
    let lane = LaneInput { fee_recipient: address(LANE), transactions };
    BlockInput { height: ledger.height().next(), time: TIME, lanes: vec![lane] }
}

/// Executes it.
pub(crate) fn run(ledger: &mut Ledger, transactions: &[Vec<u8>]) -> Outcome {
    ledger.execute(&block(ledger, transactions)).unwrap()
}

/// Balance of the account with this seed.
pub(crate) fn balance(ledger: &Ledger, seed: u8) -> u64 {
    ledger.state().account(&address(seed)).unwrap().balance.0
}
