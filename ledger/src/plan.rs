//! What a transaction will do, worked out on copies: everything that can fail, fails here.
//!
//! The sender pays the whole fee first, then each operation in order. What it needs for an operation is the fee and the
//! amounts up to that operation, against the balance it had before: neither a transfer to itself nor a fee that comes
//! back to it (when its own lane carries the transaction) pays for anything in the same transaction. So the answer does
//! not depend on whose lane it is. The fee reaches the lane's account after the operations.

use std::collections::BTreeMap;

use tally_types::{
    Address, Amount, Height, Nonce, Params, UnixMillis,
    body::{Body, Operation},
};

use crate::{
    account::{Account, NonceWindow},
    reject::{Discard, Failure},
    state::Working,
};

/// What a plan depends on besides the accounts.
pub(crate) struct Moment {
    /// Time of the block.
    pub(crate) time: UnixMillis,
    /// Height of the block.
    pub(crate) height: Height,
    /// Highest nonce of the sender that is on its way; in a block, 0.
    pub(crate) highest_admitted: Nonce,
}

/// A transaction that pays. Applying it cannot fail.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What it costs.
    pub(crate) fee: Amount,
    /// Accounts as they are afterwards, before the fee reaches its recipient.
    pub(crate) accounts: BTreeMap<Address, Account>,
    /// Whether it takes effect; if not, `accounts` holds the sender's payment of the fee and nothing else.
    pub(crate) result: Result<(), (u32, Failure)>,
}

/// Plans the transaction with this body. Rejections come in the order that [`crate::reject`] states.
pub(crate) fn plan(accounts: &Working, body: &Body, moment: &Moment) -> Result<Plan, Discard> {
    let params = accounts.params();
    let sender = accounts.account(&body.sender).ok_or(Discard::SenderUnknown { address: body.sender })?;
    check_expiry(body, moment.time, params)?;
    sender.nonces.check_ahead_of(body.nonce, moment.highest_admitted)?;
    let fee = fee(body.operations.len(), params);
    if body.max_fee < fee {
        return Err(Discard::FeeTooLow { max_fee: body.max_fee, needed: fee });
    }
    let Some(rest) = sender.balance.checked_sub(fee) else {
        return Err(Discard::FeeNotCovered { balance: sender.balance, needed: fee });
    };
    let nonces = sender.nonces.with(body.nonce);
    let charged = BTreeMap::from([(body.sender, Account { balance: rest, nonces, ..sender })]);
    let mut attempt = Attempt { before: accounts, after: charged.clone(), body, moment, balance: sender.balance, fee };
    let result = attempt.operations();
    let accounts = if result.is_ok() { attempt.after } else { charged };
    Ok(Plan { fee, accounts, result })
}

/// `balance` with `amount` more. Both are part of one supply of at most 2^63-1, so this never overflows; if it did, the
/// assertion of the supply would find the missing tokens.
pub(crate) fn credited(balance: Amount, amount: Amount) -> Amount {
    Amount(balance.0.saturating_add(amount.0))
}

fn check_expiry(body: &Body, time: UnixMillis, params: &Params) -> Result<(), Discard> {
    let expire_time = body.expire_time;
    if time > expire_time {
        return Err(Discard::Expired { expire_time, block_time: time });
    }
    let latest_allowed = time.plus(params.max_expiry_ms);
    if expire_time > latest_allowed {
        return Err(Discard::ExpiryTooFar { expire_time, latest_allowed });
    }
    Ok(())
}

/// What so many operations cost.
pub(crate) fn fee(operations: usize, params: &Params) -> Amount {
    // Genesis bounds the base fee so that 64 of them are an amount.
    let operations = u64::try_from(operations).unwrap_or(u64::MAX);
    Amount(params.base_fee.saturating_mul(operations))
}

/// A transaction under way, on copies.
struct Attempt<'a> {
    before: &'a Working,
    /// Accounts it changed so far.
    after: BTreeMap<Address, Account>,
    body: &'a Body,
    moment: &'a Moment,
    /// The sender's, before the fee.
    balance: Amount,
    fee: Amount,
}

impl Attempt<'_> {
    fn operations(&mut self) -> Result<(), (u32, Failure)> {
        let mut sums = Vec::with_capacity(self.body.operations.len());
        let mut sum = Amount::ZERO;
        for (index, operation) in (0u32..).zip(&self.body.operations) {
            sum = sum.checked_add(operation.amount()).ok_or((index, Failure::AmountOverflow))?;
            sums.push(sum);
        }
        let body = self.body;
        for ((index, operation), sum) in (0u32..).zip(&body.operations).zip(sums) {
            self.operation(operation, sum).map_err(|failure| (index, failure))?;
        }
        Ok(())
    }

    /// One operation; `sum`: its amount and those before it.
    fn operation(&mut self, operation: &Operation, sum: Amount) -> Result<(), Failure> {
        let to = match operation {
            Operation::Transfer { recipient, .. } => {
                self.account(recipient).ok_or(Failure::RecipientNotFound { address: *recipient })?
            }
            Operation::CreateAccount { new_account, opening_balance } => self.open(new_account, *opening_balance)?,
        };
        self.check_funds(sum)?;
        let amount = operation.amount();
        let to = (operation.recipient(), Account { balance: credited(to.balance, amount), ..to });
        if to.0 == self.body.sender {
            return Ok(());
        }
        if let Some(sender) = self.after.get_mut(&self.body.sender) {
            // Covered: `check_funds` compared the sum of all of them with the balance.
            sender.balance = sender.balance.checked_sub(amount).unwrap_or_default();
        }
        self.after.insert(to.0, to.1);
        Ok(())
    }

    /// The account that `address` opens with, still empty.
    fn open(&self, address: &Address, opening_balance: Amount) -> Result<Account, Failure> {
        if self.account(address).is_some() {
            return Err(Failure::AccountAlreadyExists { address: *address });
        }
        if !tally_types::PublicKey::from(*address).is_usable() {
            return Err(Failure::KeyInvalid { address: *address });
        }
        let minimum = Amount(self.before.params().min_opening_balance);
        if opening_balance < minimum {
            return Err(Failure::OpeningBalanceTooLow { opening_balance, minimum });
        }
        Ok(Account {
            balance: Amount::ZERO,
            nonces: NonceWindow::default(),
            creator: Some(self.body.sender),
            created_height: self.moment.height,
        })
    }

    fn check_funds(&self, sum: Amount) -> Result<(), Failure> {
        let needed = credited(self.fee, sum);
        match needed <= self.balance {
            true => Ok(()),
            false => Err(Failure::InsufficientFunds { balance: self.balance, needed }),
        }
    }

    fn account(&self, address: &Address) -> Option<Account> {
        self.after.get(address).cloned().or_else(|| self.before.account(address))
    }
}

#[cfg(test)]
mod tests {
    use tally_types::Height;

    use super::*;
    use crate::{
        block::Ledger,
        reject::Rejection,
        testing::{self, BASE_FEE, LANE, MAX_EXPIRY, MIN_OPENING, TIME, Tx, address, balance, unusable},
    };

    /// What account 1 has in [`prepared`].
    const RICH: u64 = testing::BALANCE - 3 * BASE_FEE - MIN_OPENING;
    const ABSENT: u8 = 9;
    const POOR: u8 = 5;

    /// Account 1 used nonces 72, 199 and 200; account 5 exists and has the least an account can open with.
    fn prepared() -> Ledger {
        let mut ledger = testing::ledger();
        let blocks = [72, 200].map(|nonce| Tx::of(1).nonce(nonce).transfer(address(1), 1).bytes());
        testing::run(&mut ledger, &blocks);
        testing::run(&mut ledger, &[Tx::of(1).nonce(199).create(address(POOR), MIN_OPENING).bytes()]);
        assert_eq!((balance(&ledger, 1), balance(&ledger, POOR)), (RICH, MIN_OPENING));
        ledger
    }

    fn tx() -> Tx {
        Tx::of(1).nonce(201)
    }

    fn transfers(tx: Tx, count: u64) -> Tx {
        (0..count).fold(tx, |tx, _| tx.transfer(address(2), 1))
    }

    fn failure(operation: u32, failure: Failure) -> Rejection {
        Rejection::Failure { operation, failure }
    }

    fn insufficient(balance: u64, needed: u64) -> Failure {
        Failure::InsufficientFunds { balance: Amount(balance), needed: Amount(needed) }
    }

    /// A row for every rejection, several where it has several edges.
    fn table() -> Vec<(&'static str, Tx, Rejection)> {
        let absent = address(ABSENT);
        let pay = |tx: Tx| tx.transfer(address(2), 1);
        let not_found = Failure::RecipientNotFound { address: absent };
        let exists = Failure::AccountAlreadyExists { address: address(POOR) };
        let opening =
            |opening| Failure::OpeningBalanceTooLow { opening_balance: Amount(opening), minimum: Amount(MIN_OPENING) };
        let after = |millis: u64| TIME.plus(millis);
        let expired = Discard::Expired { expire_time: UnixMillis(TIME.0 - 1), block_time: TIME };
        let too_far = Discard::ExpiryTooFar { expire_time: after(MAX_EXPIRY + 1), latest_allowed: after(MAX_EXPIRY) };
        let nonce = Nonce;
        let too_low = Discard::NonceTooLow { nonce: nonce(72), lowest: nonce(73) };
        let in_use = |used| Discard::NonceInUse { nonce: nonce(used), lowest: nonce(73) };
        let too_high = Discard::NonceTooHigh { nonce: nonce(329), highest: nonce(200) };
        let fee_too_low = |max_fee, needed| Discard::FeeTooLow { max_fee: Amount(max_fee), needed: Amount(needed) };
        let not_covered = Discard::FeeNotCovered { balance: Amount(MIN_OPENING), needed: Amount(11 * BASE_FEE) };
        vec![
            ("unknown sender", pay(Tx::of(ABSENT)), Discard::SenderUnknown { address: absent }.into()),
            ("expired a millisecond ago", pay(tx()).expires(UnixMillis(TIME.0 - 1)), expired.into()),
            ("expires a millisecond too late", pay(tx()).expires(after(MAX_EXPIRY + 1)), too_far.into()),
            ("nonce below the window", pay(tx().nonce(72)), too_low.into()),
            ("nonce used, the highest", pay(tx().nonce(200)), in_use(200).into()),
            ("nonce used, inside the window", pay(tx().nonce(199)), in_use(199).into()),
            ("nonce above the window", pay(tx().nonce(329)), too_high.into()),
            ("fee above max_fee", pay(tx()).max_fee(BASE_FEE - 1), fee_too_low(BASE_FEE - 1, BASE_FEE).into()),
            ("fee of 64", transfers(tx(), 64).max_fee(639), fee_too_low(639, 640).into()),
            ("fee not covered", transfers(Tx::of(POOR), 11), not_covered.into()),
            (
                "amounts beyond 2^64-1",
                pay(tx()).transfer(address(2), u64::MAX - 1).transfer(address(2), 1),
                failure(2, Failure::AmountOverflow),
            ),
            (
                "one unit short",
                tx().transfer(address(2), RICH - BASE_FEE + 1),
                failure(0, insufficient(RICH, RICH + 1)),
            ),
            (
                "one unit short at the last operation",
                pay(tx()).transfer(address(2), RICH - 2 * BASE_FEE),
                failure(1, insufficient(RICH, RICH + 1)),
            ),
            (
                "one unit short to itself",
                tx().transfer(address(1), RICH - BASE_FEE + 1),
                failure(0, insufficient(RICH, RICH + 1)),
            ),
            (
                "what it sends itself does not pay again",
                tx().transfer(address(1), RICH - 2 * BASE_FEE).transfer(address(1), 1),
                failure(1, insufficient(RICH, RICH + 1)),
            ),
            (
                "one unit short to open",
                tx().create(absent, RICH - BASE_FEE + 1),
                failure(0, insufficient(RICH, RICH + 1)),
            ),
            ("needed beyond 2^64-1", tx().transfer(address(2), u64::MAX), failure(0, insufficient(RICH, u64::MAX))),
            ("unknown recipient", tx().transfer(absent, 1), failure(0, not_found.clone())),
            ("used before it is opened", tx().transfer(absent, 1).create(absent, 100), failure(0, not_found)),
            ("account exists", tx().create(address(POOR), MIN_OPENING), failure(0, exists)),
            (
                "account opened twice",
                tx().create(absent, MIN_OPENING).create(absent, MIN_OPENING),
                failure(1, Failure::AccountAlreadyExists { address: absent }),
            ),
            (
                "opens itself",
                tx().create(address(1), 100),
                failure(0, Failure::AccountAlreadyExists { address: address(1) }),
            ),
            (
                "key nobody can hold",
                tx().create(unusable(), MIN_OPENING),
                failure(0, Failure::KeyInvalid { address: unusable() }),
            ),
            ("opening balance too low", tx().create(absent, MIN_OPENING - 1), failure(0, opening(MIN_OPENING - 1))),
            ("the last of three fails", pay(pay(tx())).create(absent, 1), failure(2, opening(1))),
        ]
    }

    #[test]
    fn every_rejection_is_exact_and_costs_what_it_should() {
        let before = prepared();
        for (name, tx, expected) in table() {
            let admitted = before.state().admit(TIME, Nonce(0), &tx.verified());
            assert_eq!(admitted, Err(expected.clone()), "{name}, at admission");
            let mut ledger = before.clone();
            let outcome = testing::run(&mut ledger, &[tx.bytes()]);
            let id = tx.verified().id();
            match expected {
                Rejection::Discard(discard) => {
                    assert_eq!(outcome.discarded, [(id, discard)], "{name}");
                    assert_eq!(outcome.transactions, [], "{name}");
                    assert_eq!(ledger.state().root(), before.state().root(), "{name}");
                    assert_eq!(ledger.receipts(), before.receipts(), "{name}");
                }
                Rejection::Failure { operation, failure } => {
                    assert_eq!(outcome.discarded, [], "{name}");
                    let [executed] = &outcome.transactions[..] else { panic!("{name}: no receipt") };
                    let fee = Amount(BASE_FEE * u64::try_from(tx.verified().body().operations.len()).unwrap());
                    assert_eq!(executed.receipt.result, Err((operation, failure)), "{name}");
                    assert_eq!(executed.receipt.fee, fee, "{name}");
                    // Nothing but the fee and the nonce.
                    let mut state = before.state().clone();
                    let sender = tx.verified().sender();
                    let mut account = state.account(&sender).unwrap();
                    account.balance = account.balance.checked_sub(fee).unwrap();
                    account.nonces = account.nonces.with(tx.verified().body().nonce);
                    state.put(&sender, account);
                    let mut lane = state.account(&address(LANE)).unwrap();
                    lane.balance = lane.balance.checked_add(fee).unwrap();
                    state.put(&address(LANE), lane);
                    assert_eq!(ledger.state().root(), state.root(), "{name}");
                }
            }
        }
    }

    #[test]
    fn the_first_of_two_faults_is_the_answer() {
        let absent = address(ABSENT);
        let past = UnixMillis(TIME.0 - 1);
        let far = TIME.plus(MAX_EXPIRY + 1);
        let low_fee = |tx: Tx| transfers(tx, 1).max_fee(0);
        for (tx, reason, operation) in [
            (transfers(Tx::of(ABSENT), 1).expires(past), "ACCOUNT_NOT_FOUND", None),
            (transfers(tx().nonce(200), 1).expires(past), "EXPIRED", None),
            (transfers(tx().nonce(72), 1).expires(far), "EXPIRY_TOO_FAR", None),
            (low_fee(tx().nonce(72)), "NONCE_TOO_LOW", None),
            (low_fee(tx().nonce(200)), "NONCE_IN_USE", None),
            (low_fee(tx().nonce(329)), "NONCE_TOO_HIGH", None),
            (transfers(Tx::of(POOR), 11).max_fee(109), "FEE_TOO_LOW", None),
            (transfers(Tx::of(POOR), 10).transfer(absent, u64::MAX), "INSUFFICIENT_FUNDS", None),
            (tx().transfer(absent, 1).transfer(absent, u64::MAX), "AMOUNT_OVERFLOW", Some(1)),
            (tx().create(address(2), 1), "ACCOUNT_ALREADY_EXISTS", Some(0)),
            (tx().create(unusable(), 1), "KEY_INVALID", Some(0)),
            (Tx::of(POOR).create(absent, 99), "OPENING_BALANCE_TOO_LOW", Some(0)),
            (tx().transfer(absent, RICH), "RECIPIENT_NOT_FOUND", Some(0)),
            (tx().transfer(address(2), RICH).transfer(absent, 1), "INSUFFICIENT_FUNDS", Some(0)),
        ] {
            let rejection = prepared().admit(TIME, Nonce(0), &tx.verified()).unwrap_err();
            let at = match &rejection {
                Rejection::Failure { operation, .. } => Some(*operation),
                Rejection::Discard(_) => None,
            };
            assert_eq!((rejection.reason(), at), (reason, operation), "{rejection}");
        }
    }

    #[test]
    fn what_stands_on_the_edge_is_good() {
        let good = [
            transfers(tx(), 1).expires(TIME),
            transfers(tx(), 1).expires(TIME.plus(MAX_EXPIRY)),
            transfers(tx().nonce(73), 1),
            transfers(tx().nonce(328), 1),
            transfers(tx(), 1).max_fee(BASE_FEE),
            transfers(tx(), 64).max_fee(64 * BASE_FEE),
            tx().transfer(address(2), RICH - BASE_FEE),
            tx().transfer(address(1), RICH - BASE_FEE),
            tx().create(address(ABSENT), RICH - BASE_FEE),
            tx().create(address(ABSENT), MIN_OPENING),
        ];
        for (index, tx) in good.into_iter().enumerate() {
            let mut ledger = prepared();
            assert_eq!(ledger.admit(TIME, Nonce(0), &tx.verified()), Ok(()), "{index}");
            let outcome = testing::run(&mut ledger, &[tx.bytes()]);
            assert_eq!(outcome.transactions.len(), 1, "{index}");
            assert_eq!(outcome.transactions[0].receipt.result, Ok(()), "{index}");
        }
    }

    #[test]
    fn a_transfer_to_itself_costs_the_fee_and_mints_nothing() {
        let mut ledger = prepared();
        testing::run(&mut ledger, &[tx().transfer(address(1), RICH - BASE_FEE).bytes()]);
        assert_eq!(balance(&ledger, 1), RICH - BASE_FEE);
    }

    #[test]
    fn an_account_is_used_in_the_transaction_that_opens_it() {
        let mut ledger = prepared();
        let outcome =
            testing::run(&mut ledger, &[tx().create(address(ABSENT), 100).transfer(address(ABSENT), 7).bytes()]);
        assert_eq!(outcome.transactions[0].receipt.result, Ok(()));
        let account = ledger.state().account(&address(ABSENT)).unwrap();
        let nonces = NonceWindow::default();
        let (balance, creator, created_height) = (Amount(107), Some(address(1)), Height(3));
        assert_eq!(account, Account { balance, nonces, creator, created_height });
    }

    #[test]
    fn sixty_four_operations_are_one_transaction() {
        let mut ledger = prepared();
        let payout = (0..63).fold(tx().create(address(ABSENT), 100), |tx, _| tx.transfer(address(ABSENT), 2));
        testing::run(&mut ledger, &[payout.bytes()]);
        assert_eq!(balance(&ledger, ABSENT), 226);
        assert_eq!(balance(&ledger, 1), RICH - 226 - 64 * BASE_FEE);
    }

    #[test]
    fn a_client_may_have_thousands_in_flight() {
        let state = prepared().state().clone();
        let admit = |nonce, highest| state.admit(TIME, Nonce(highest), &transfers(tx().nonce(nonce), 1).verified());
        assert_eq!(admit(5_128, 5_000), Ok(()));
        let too_high = Discard::NonceTooHigh { nonce: Nonce(5_129), highest: Nonce(5_000) };
        assert_eq!(admit(5_129, 5_000), Err(too_high.into()));
        let in_use = Discard::NonceInUse { nonce: Nonce(199), lowest: Nonce(73) };
        assert_eq!(admit(199, 5_000), Err(in_use.into()));
        let too_low = Discard::NonceTooLow { nonce: Nonce(72), lowest: Nonce(73) };
        assert_eq!(admit(72, 5_000), Err(too_low.into()));
    }
}
