//! The ledger's rules a second time, as plainly as they can be written, and random blocks to compare the two.
//!
//! The model shares nothing with the ledger but the types of its answers: whole maps are copied, nonces are sets that
//! never forget, sums are wide integers.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use tally_types::{Address, Amount, Hash, Height, Nonce, body::Operation};

use crate::{
    block::{self, BlockInput, LaneInput, Ledger},
    reject::{Discard, Failure},
    testing::{self, BALANCE, BASE_FEE, MAX_EXPIRY, MIN_OPENING, TIME, Tx, address, unusable},
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    balance: u128,
    used: BTreeSet<u64>,
    creator: Option<Address>,
    created: u64,
}

#[derive(Clone, Debug)]
struct Model {
    accounts: BTreeMap<Address, Entry>,
    height: u64,
}

fn amount(value: u128) -> Amount {
    Amount(u64::try_from(value).unwrap_or(u64::MAX))
}

impl Entry {
    fn highest(&self) -> u64 {
        self.used.last().copied().unwrap_or(0)
    }

    fn usable(&self, nonce: u64) -> bool {
        nonce >= 1 && nonce + 128 > self.highest() && nonce <= self.highest() + 128 && !self.used.contains(&nonce)
    }

    fn check(&self, nonce: u64) -> Result<(), Discard> {
        let lowest = Nonce((1..).find(|nonce| self.usable(*nonce)).unwrap());
        let highest = Nonce(self.highest());
        if self.usable(nonce) {
            Ok(())
        } else if nonce > self.highest() {
            Err(Discard::NonceTooHigh { nonce: Nonce(nonce), highest })
        } else if nonce + 128 > self.highest() {
            Err(Discard::NonceInUse { nonce: Nonce(nonce), lowest })
        } else {
            Err(Discard::NonceTooLow { nonce: Nonce(nonce), lowest })
        }
    }
}

type Outcome = Result<Result<(), (u32, Failure)>, Discard>;

impl Model {
    fn new() -> Model {
        let entry = |seed| (address(seed), Entry { balance: u128::from(BALANCE), ..Entry::default() });
        Model { accounts: (1..=4).map(entry).collect(), height: 0 }
    }

    fn execute(&mut self, tx: &Tx, lane: Address) -> Outcome {
        let transaction = tx.verified();
        let body = transaction.body();
        let Some(sender) = self.accounts.get(&body.sender).cloned() else {
            return Err(Discard::SenderUnknown { address: body.sender });
        };
        let expire_time = body.expire_time;
        if expire_time < TIME {
            return Err(Discard::Expired { expire_time, block_time: TIME });
        }
        if expire_time.0 - TIME.0 > MAX_EXPIRY {
            return Err(Discard::ExpiryTooFar { expire_time, latest_allowed: TIME.plus(MAX_EXPIRY) });
        }
        sender.check(body.nonce.0)?;
        let fee = u128::from(BASE_FEE) * body.operations.len() as u128;
        if u128::from(body.max_fee.0) < fee {
            return Err(Discard::FeeTooLow { max_fee: body.max_fee, needed: amount(fee) });
        }
        if sender.balance < fee {
            return Err(Discard::FeeNotCovered { balance: amount(sender.balance), needed: amount(fee) });
        }
        let entry = self.accounts.get_mut(&body.sender).unwrap();
        entry.balance -= fee;
        entry.used.insert(body.nonce.0);
        let charged = self.clone();
        let result = self.operations(&body.sender, &body.operations, sender.balance, fee);
        if result.is_err() {
            *self = charged;
        }
        self.accounts.get_mut(&lane).unwrap().balance += fee;
        Ok(result)
    }

    fn operations(
        &mut self,
        sender: &Address,
        operations: &[Operation],
        balance: u128,
        fee: u128,
    ) -> Result<(), (u32, Failure)> {
        let mut total = 0;
        for (index, operation) in (0..).zip(operations) {
            total += u128::from(operation.amount().0);
            if total > u128::from(u64::MAX) {
                return Err((index, Failure::AmountOverflow));
            }
        }
        let mut needed = fee;
        for (index, operation) in (0..).zip(operations) {
            needed += u128::from(operation.amount().0);
            let to = operation.recipient();
            let exists = self.accounts.contains_key(&to);
            let short = Failure::InsufficientFunds { balance: amount(balance), needed: amount(needed) };
            let fault = match operation {
                Operation::Transfer { .. } if !exists => Some(Failure::RecipientNotFound { address: to }),
                Operation::CreateAccount { .. } if exists => Some(Failure::AccountAlreadyExists { address: to }),
                Operation::CreateAccount { .. } if to == unusable() => Some(Failure::KeyInvalid { address: to }),
                Operation::CreateAccount { opening_balance, .. } if opening_balance.0 < MIN_OPENING => {
                    let minimum = Amount(MIN_OPENING);
                    Some(Failure::OpeningBalanceTooLow { opening_balance: *opening_balance, minimum })
                }
                _ if needed > balance => Some(short),
                _ => None,
            };
            if let Some(fault) = fault {
                return Err((index, fault));
            }
            let created = Entry { creator: Some(*sender), created: self.height, ..Entry::default() };
            self.accounts.entry(to).or_insert(created).balance += u128::from(operation.amount().0);
            self.accounts.get_mut(sender).unwrap().balance -= u128::from(operation.amount().0);
        }
        Ok(())
    }
}

/// A transaction before it is known what the accounts look like when it is made.
#[derive(Clone, Debug)]
struct Draft {
    sender: u8,
    /// Nonce above (or below) the sender's highest.
    ahead: i64,
    /// Expiry after the block's time, milliseconds.
    expires: i64,
    /// What max_fee has above the fee; `None`: as much as there is.
    fee_above: Option<i64>,
    operations: Vec<DraftOperation>,
}

#[derive(Clone, Debug)]
struct DraftOperation {
    create: bool,
    /// Seed of the recipient; 0: an address that is no key.
    to: u8,
    size: Size,
}

#[derive(Clone, Debug)]
enum Size {
    Units(u64),
    /// All that is left after fee and earlier operations, and so many units more.
    Rest(u64),
}

impl Draft {
    fn finish(&self, model: &Model) -> Tx {
        let nothing = Entry::default();
        let sender = model.accounts.get(&address(self.sender)).unwrap_or(&nothing);
        let fee = BASE_FEE * self.operations.len() as u64;
        let max_fee = self.fee_above.map_or(u64::MAX, |above| fee.saturating_add_signed(above));
        let nonce = sender.highest().saturating_add_signed(self.ahead).max(1);
        let expires = tally_types::UnixMillis(TIME.0.saturating_add_signed(self.expires));
        let mut tx = Tx::of(self.sender).nonce(nonce).max_fee(max_fee).expires(expires);
        let mut rest = u64::try_from(sender.balance).unwrap().saturating_sub(fee);
        for operation in &self.operations {
            let units = match operation.size {
                Size::Units(units) => units,
                Size::Rest(more) => (rest + more).max(1),
            };
            rest = rest.saturating_sub(units);
            let to = if operation.to == 0 { unusable() } else { address(operation.to) };
            tx = if operation.create { tx.create(to, units) } else { tx.transfer(to, units) };
        }
        tx
    }
}

fn draft() -> impl Strategy<Value = Draft> {
    let size = prop_oneof![
        8 => (1u64..300).prop_map(Size::Units),
        2 => (1u64..2 * BALANCE).prop_map(Size::Units),
        2 => (0u64..2).prop_map(Size::Rest),
        1 => Just(Size::Units(u64::MAX)),
        1 => (MIN_OPENING - 1..=MIN_OPENING).prop_map(Size::Units),
    ];
    let operation =
        (prop::bool::weighted(0.3), 0u8..12, size).prop_map(|(create, to, size)| DraftOperation { create, to, size });
    let ahead = prop_oneof![8 => Just(1i64), 2 => -3i64..4, 1 => -130i64..-125, 1 => 125i64..131];
    let limit = MAX_EXPIRY as i64;
    let expires = prop_oneof![8 => 0i64..1000, 1 => -1i64..1, 1 => limit - 1..limit + 2];
    let fee_above = prop_oneof![4 => Just(None), 1 => (-1i64..2).prop_map(Some)];
    let operations = prop_oneof![6 => prop::collection::vec(operation.clone(), 1..4),
        1 => prop::collection::vec(operation, 10..20)];
    (1u8..12, ahead, expires, fee_above, operations).prop_map(|(sender, ahead, expires, fee_above, operations)| Draft {
        sender,
        ahead,
        expires,
        fee_above,
        operations,
    })
}

/// Blocks of three lanes.
fn blocks() -> impl Strategy<Value = Vec<[Vec<Draft>; 3]>> {
    let lane = || prop::collection::vec(draft(), 0..8);
    prop::collection::vec([lane(), lane(), lane()], 1..6)
}

/// What the model made of a block: results of what it executed, and what it discarded, in order.
#[derive(Default)]
struct Expected {
    results: Vec<(Hash, Result<(), (u32, Failure)>)>,
    discarded: Vec<(Hash, Discard)>,
}

/// Executes blocks on ledger and model; `judge` sees both after each. Returns the ledger.
fn play(
    blocks: Vec<[Vec<Draft>; 3]>,
    mut judge: impl FnMut(&Ledger, &Model, block::Outcome, Expected) -> Result<(), TestCaseError>,
) -> Result<Ledger, TestCaseError> {
    let mut ledger = testing::ledger();
    let mut model = Model::new();
    let carriers = [address(2), address(3), address(4)];
    for (height, drafts) in (1u64..).zip(blocks) {
        model.height = height;
        let mut lanes = [Vec::new(), Vec::new(), Vec::new()];
        let mut expected = Expected::default();
        for turn in 0..3 {
            let place = ((height + turn) % 3) as usize;
            for draft in &drafts[place] {
                let tx = draft.finish(&model);
                lanes[place].push(tx.bytes());
                match model.execute(&tx, carriers[place]) {
                    Ok(result) => expected.results.push((tx.verified().id(), result)),
                    Err(discard) => expected.discarded.push((tx.verified().id(), discard)),
                }
            }
        }
        let lanes = lanes.iter().zip(carriers).map(|(transactions, fee_recipient)| LaneInput {
            fee_recipient,
            transactions: transactions.iter().map(|bytes| &bytes[..]).collect(),
        });
        let input = BlockInput { height: Height(height), time: TIME, lanes: lanes.collect() };
        let outcome = ledger.execute(&input).unwrap();
        judge(&ledger, &model, outcome, expected)?;
    }
    Ok(ledger)
}

proptest! {
    #[test]
    fn ledger_and_model_agree_on_every_block(blocks in blocks()) {
        let supply = testing::ledger().state().supply();
        let ledger = play(blocks, |ledger, model, outcome, expected| {
            let receipts = outcome.transactions.into_iter().map(|tx| (tx.receipt.tx_id, tx.receipt.result));
            prop_assert_eq!(receipts.collect::<Vec<_>>(), expected.results);
            prop_assert_eq!(outcome.discarded, expected.discarded);
            prop_assert_eq!(outcome.malformed, 0);
            prop_assert_eq!(ledger.state().supply(), supply);
            prop_assert_eq!(ledger.state().account_count(), model.accounts.len() as u64);
            for (address, account) in ledger.state().accounts_after(None, usize::MAX) {
                let entry = &model.accounts[&address];
                prop_assert_eq!(u128::from(account.balance.0), entry.balance);
                prop_assert_eq!(account.nonces.highest().0, entry.highest());
                prop_assert_eq!((account.creator, account.created_height.0), (entry.creator, entry.created));
            }
            Ok(())
        })?;
        let copy = Ledger::decode_snapshot(&ledger.encode_snapshot(), &testing::genesis()).unwrap();
        prop_assert_eq!(copy.executed(), ledger.executed());
    }
}

/// Set in the processes that only execute and print.
const PRINT: &str = "TALLY_LEDGER_PRINT_ROOTS";

/// Whatever differs between two processes, seeds of hash maps and addresses in memory among it, must not show in a root.
#[test]
fn the_same_transactions_in_two_processes_give_identical_roots() {
    if std::env::var_os(PRINT).is_some() {
        let mut runner = TestRunner::deterministic();
        for _ in 0..50 {
            let blocks = blocks().new_tree(&mut runner).unwrap().current();
            let print = |ledger: &Ledger, _: &Model, _, _| {
                println!("executed {:?}", ledger.executed());
                Ok(())
            };
            play(blocks, print).unwrap();
        }
        return;
    }
    let roots = || {
        let mut process = Command::new(std::env::current_exe().unwrap());
        process.args(["--exact", "model::the_same_transactions_in_two_processes_give_identical_roots", "--nocapture"]);
        let output = process.env(PRINT, "1").output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.starts_with("executed ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (one, other) = (roots(), roots());
    assert!(one.len() > 100, "{} blocks", one.len());
    assert_eq!(one, other);
}
