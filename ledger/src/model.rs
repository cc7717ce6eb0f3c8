//! The ledger's rules a second time, as plainly as they can be written, and random blocks to compare the two.
//!
//! The model shares nothing with the ledger but the types of its answers: whole maps are copied, nonces are sets that
//! never forget, sums are wide integers.

use std::collections::{BTreeMap, BTreeSet};

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

/// What a transaction in a block comes to.
type Executed = Result<(), (u32, Failure)>;
type Outcome = Result<Executed, Discard>;

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

/// What the model made of a block: results of what it executed, and what it discarded, in order.
#[derive(Default)]
struct Expected {
    results: Vec<(Hash, Executed)>,
    discarded: Vec<(Hash, Discard)>,
}

/// Executes blocks on ledger and model; `judge` sees both after each. Returns the ledger.
fn play<E>(
    blocks: Vec<[Vec<Draft>; 3]>,
    mut judge: impl FnMut(&Ledger, &Model, block::Outcome, Expected) -> Result<(), E>,
) -> Result<Ledger, E> {
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

/// Compares all that both can tell after a block.
fn compare(ledger: &Ledger, model: &Model, outcome: block::Outcome, expected: Expected) {
    let receipts = outcome.transactions.into_iter().map(|tx| (tx.receipt.tx_id, tx.receipt.result));
    assert_eq!(receipts.collect::<Vec<_>>(), expected.results);
    assert_eq!(outcome.discarded, expected.discarded);
    assert_eq!(outcome.malformed, 0);
    assert_eq!(ledger.state().supply(), testing::genesis().total_supply);
    assert_eq!(ledger.state().account_count(), model.accounts.len() as u64);
    for (address, account) in ledger.state().accounts_after(None, usize::MAX) {
        let entry = &model.accounts[&address];
        assert_eq!(u128::from(account.balance.0), entry.balance);
        assert_eq!(account.nonces.highest().0, entry.highest());
        assert_eq!((account.creator, account.created_height.0), (entry.creator, entry.created));
    }
}

/// Plays the blocks that `bytes` spell out, one decision a byte, on ledger and model; panics where they disagree.
#[cfg(feature = "fuzzing")]
pub fn agree_on(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    let mut blocks = Vec::new();
    while let Some(drafts) = bytes.next() {
        let mut block = [Vec::new(), Vec::new(), Vec::new()];
        for place in 0..usize::from(drafts % 16) {
            let mut next = |below: u8| bytes.next().unwrap_or(0) % below;
            let operation = |next: &mut dyn FnMut(u8) -> u8| DraftOperation {
                create: next(3) == 0,
                to: next(12),
                size: match next(5) {
                    0 => Size::Rest(u64::from(next(3))),
                    1 => Size::Units(u64::MAX - u64::from(next(2))),
                    2 => Size::Units(MIN_OPENING - 1 + u64::from(next(3))),
                    3 => Size::Units(u64::from(next(255)) * BALANCE / 100 + 1),
                    _ => Size::Units(u64::from(next(255)) + 1),
                },
            };
            block[place % 3].push(Draft {
                sender: next(11) + 1,
                ahead: [1, 1, 1, 1, 0, -1, 2, 127, 128, 129, -127, -128][usize::from(next(12))],
                expires: [0, 1, 500, -1, MAX_EXPIRY as i64, MAX_EXPIRY as i64 + 1][usize::from(next(6))],
                fee_above: [None, None, Some(0), Some(-1), Some(1)][usize::from(next(5))],
                operations: (0..=next(5)).map(|_| operation(&mut next)).collect(),
            });
        }
        blocks.push(block);
    }
    blocks.truncate(32);
    let judge = |ledger: &Ledger, model: &Model, outcome, expected| {
        compare(ledger, model, outcome, expected);
        Ok::<_, std::convert::Infallible>(())
    };
    let Ok(ledger) = play(blocks, judge);
    let copy = Ledger::decode_snapshot(&ledger.encode_snapshot(), &testing::genesis()).unwrap();
    assert_eq!(copy.executed(), ledger.executed());
}

#[cfg(test)]
mod tests;
