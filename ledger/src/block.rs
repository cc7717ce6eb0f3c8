//! Executing blocks: the only way a ledger changes.

use std::sync::Arc;

use tally_types::{
    Address, Amount, Genesis, Hash, Height, Nonce, SignedTransaction, UnixMillis, VerifiedTransaction, genesis::Chain,
    header::Executed,
};
use thiserror::Error;

use crate::{
    accumulator::Accumulator,
    plan::{self, Moment},
    receipt::Receipt,
    reject::{Discard, Rejection},
    state::{State, Working},
};

/// State and receipts after a height, and what a chain's blocks are judged by. A clone is cheap and independent.
#[derive(Clone, Debug)]
pub struct Ledger {
    rules: Arc<Rules>,
    state: State,
    receipts: Accumulator,
    executed: Executed,
}

/// What genesis fixed for good.
#[derive(Debug)]
struct Rules {
    chain: Chain,
    total_supply: Amount,
}

/// A block to execute: what a final header orders, resolved to bytes.
#[derive(Clone, Debug)]
pub struct BlockInput<'a> {
    /// Its height: one above the ledger's.
    pub height: Height,
    /// Its time.
    pub time: UnixMillis,
    /// One per validator, in the order of their places. Lane `height` mod n executes first, then the ones after it, then
    /// those before it: no place is first for good.
    pub lanes: Vec<LaneInput<'a>>,
}

/// What a block orders of one lane.
#[derive(Clone, Debug)]
pub struct LaneInput<'a> {
    /// Where the fees of this lane go: its validator's operator account, which exists.
    pub fee_recipient: Address,
    /// Serialized transactions, in order.
    pub transactions: Vec<&'a [u8]>,
}

/// What executing a block led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Height and roots after it.
    pub executed: Executed,
    /// Transactions with a receipt, in the order in which they ran.
    pub transactions: Vec<ExecutedTransaction>,
    /// Ids of those that left no trace, in order, and why.
    pub discarded: Vec<(Hash, Discard)>,
    /// How many were no transaction of this chain at all. An honest validator lets none in.
    pub malformed: u64,
}

/// A transaction and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutedTransaction {
    /// The transaction.
    pub transaction: VerifiedTransaction,
    /// What became of it.
    pub receipt: Receipt,
}

/// Why a block cannot execute. Each means a bug here or in the caller, never a bad transaction; the ledger is unchanged.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExecuteError {
    /// Not the next height.
    #[error("the block has height {got}, the next to execute is {expected}")]
    Height {
        /// The next.
        expected: Height,
        /// The block's.
        got: Height,
    },
    /// Fees would go nowhere.
    #[error("the fees of a lane go to {0}, which does not exist")]
    FeeRecipient(Address),
    /// Tokens would appear or vanish.
    #[error("block {height} would leave {found} base units, the supply is {expected}; execution stops here")]
    Supply {
        /// The block's.
        height: Height,
        /// Fixed at genesis.
        expected: Amount,
        /// The sum after the block.
        found: Amount,
    },
}

impl Ledger {
    /// The ledger a chain starts from, at height 0.
    pub fn genesis(genesis: &Genesis) -> Ledger {
        Ledger::from_parts(genesis, State::genesis(genesis), Accumulator::default(), Height::ZERO)
    }

    pub(crate) fn from_parts(genesis: &Genesis, state: State, receipts: Accumulator, height: Height) -> Ledger {
        let rules = Rules { chain: genesis.chain.clone(), total_supply: genesis.total_supply };
        let executed = Executed { height, state_root: state.root(), receipts_root: receipts.root() };
        Ledger { rules: Arc::new(rules), state, receipts, executed }
    }

    /// Executes the next block, or changes nothing.
    pub fn execute(&mut self, block: &BlockInput<'_>) -> Result<Outcome, ExecuteError> {
        let expected = self.height().next();
        if block.height != expected {
            return Err(ExecuteError::Height { expected, got: block.height });
        }
        if let Some(lane) = block.lanes.iter().find(|lane| self.state.account(&lane.fee_recipient).is_none()) {
            return Err(ExecuteError::FeeRecipient(lane.fee_recipient));
        }
        let mut run = Run::new(self, block);
        for lane in rotated(&block.lanes, block.height) {
            for bytes in &lane.transactions {
                run.transaction(bytes, &lane.fee_recipient);
            }
        }
        let Run { accounts, receipts, mut outcome, .. } = run;
        let state = accounts.into_state();
        let (expected, found) = (self.rules.total_supply, state.supply());
        if found != expected {
            return Err(ExecuteError::Supply { height: block.height, expected, found });
        }
        outcome.executed = Executed { height: block.height, state_root: state.root(), receipts_root: receipts.root() };
        (self.state, self.receipts, self.executed) = (state, receipts, outcome.executed);
        Ok(outcome)
    }

    /// The state; clone it to keep it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The accumulator of all receipts.
    pub fn receipts(&self) -> &Accumulator {
        &self.receipts
    }

    /// Height of the last block executed; 0: none.
    pub fn height(&self) -> Height {
        self.executed.height
    }

    /// Height and roots after the last block executed.
    pub fn executed(&self) -> Executed {
        self.executed
    }

    /// The chain whose blocks these are.
    pub fn chain(&self) -> &Chain {
        &self.rules.chain
    }

    /// [`State::admit`] on the latest state.
    pub fn admit(
        &self,
        now: UnixMillis,
        highest_admitted: Nonce,
        transaction: &VerifiedTransaction,
    ) -> Result<(), Rejection> {
        self.state.admit(now, highest_admitted, transaction)
    }
}

/// The lanes, from lane `height` mod n on.
fn rotated<'a, 'b>(lanes: &'a [LaneInput<'b>], height: Height) -> impl Iterator<Item = &'a LaneInput<'b>> {
    let count = u64::try_from(lanes.len()).unwrap_or(u64::MAX);
    let first = height.0.checked_rem(count).and_then(|first| usize::try_from(first).ok()).unwrap_or_default();
    let (before, after) = lanes.split_at_checked(first).unwrap_or((&[], lanes));
    after.iter().chain(before)
}

/// A block under way, beside the ledger.
struct Run<'a> {
    chain: &'a Chain,
    moment: Moment,
    accounts: Working,
    receipts: Accumulator,
    outcome: Outcome,
}

impl Run<'_> {
    fn new<'a>(ledger: &'a Ledger, block: &BlockInput<'_>) -> Run<'a> {
        Run {
            chain: &ledger.rules.chain,
            moment: Moment { time: block.time, height: block.height, highest_admitted: Nonce::ZERO },
            accounts: Working::new(&ledger.state),
            receipts: ledger.receipts.clone(),
            outcome: Outcome {
                executed: ledger.executed,
                transactions: Vec::new(),
                discarded: Vec::new(),
                malformed: 0,
            },
        }
    }

    fn transaction(&mut self, bytes: &[u8], fee_recipient: &Address) {
        let Ok(parsed) = SignedTransaction::parse(bytes, self.chain) else {
            self.outcome.malformed = self.outcome.malformed.saturating_add(1);
            return;
        };
        let transaction = parsed.ordered();
        let plan = match plan::plan(&self.accounts, transaction.body(), &self.moment) {
            Ok(plan) => plan,
            Err(discard) => return self.outcome.discarded.push((transaction.id(), discard)),
        };
        let receipt = Receipt {
            tx_id: transaction.id(),
            height: self.moment.height,
            index: u32::try_from(self.outcome.transactions.len()).unwrap_or(u32::MAX),
            fee: plan.fee,
            result: plan.result,
        };
        self.accounts.apply(plan.fee, plan.accounts, fee_recipient);
        self.receipts.append(&receipt.encode());
        self.outcome.transactions.push(ExecutedTransaction { transaction, receipt });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, BALANCE, BASE_FEE, LANE, TIME, Tx, address, balance};

    fn pay(seed: u8, nonce: u64) -> Vec<u8> {
        Tx::of(seed).nonce(nonce).transfer(address(2), 1).bytes()
    }

    fn lane(seed: u8, transactions: &[Vec<u8>]) -> LaneInput<'_> {
        LaneInput { fee_recipient: address(seed), transactions: transactions.iter().map(|bytes| &bytes[..]).collect() }
    }

    #[test]
    fn an_empty_block_changes_neither_root() {
        let mut ledger = testing::ledger();
        testing::run(&mut ledger, &[pay(1, 1)]);
        let before = ledger.executed();
        let lanes = vec![lane(2, &[]), lane(3, &[])];
        let input = BlockInput { height: Height(2), time: TIME.plus(1), lanes };
        let outcome = ledger.execute(&input).unwrap();
        assert_eq!(outcome.executed, Executed { height: Height(2), ..before });
        assert_eq!(ledger.executed(), outcome.executed);
        let nobody = BlockInput { height: Height(3), time: TIME.plus(2), lanes: Vec::new() };
        assert_eq!(ledger.execute(&nobody).unwrap().executed, Executed { height: Height(3), ..before });
    }

    #[test]
    fn a_transaction_changes_both_roots() {
        let mut ledger = testing::ledger();
        let before = ledger.executed();
        let after = testing::run(&mut ledger, &[pay(1, 1)]).executed;
        assert_ne!(after.state_root, before.state_root);
        assert_ne!(after.receipts_root, before.receipts_root);
    }

    #[test]
    fn the_fee_moves_to_the_lane_that_carried_the_transaction() {
        for (carrier, expected) in [
            // To somebody else, to the recipient of the transfer, and back to the sender.
            (3, [BALANCE - 5 - BASE_FEE, BALANCE + 5, BALANCE + BASE_FEE]),
            (2, [BALANCE - 5 - BASE_FEE, BALANCE + 5 + BASE_FEE, BALANCE]),
            (1, [BALANCE - 5, BALANCE + 5, BALANCE]),
        ] {
            let mut ledger = testing::ledger();
            let tx = [Tx::of(1).transfer(address(2), 5).bytes()];
            let input = BlockInput { height: Height(1), time: TIME, lanes: vec![lane(carrier, &tx)] };
            let outcome = ledger.execute(&input).unwrap();
            assert_eq!(outcome.transactions[0].receipt.fee, Amount(BASE_FEE));
            assert_eq!([1, 2, 3].map(|seed| balance(&ledger, seed)), expected, "lane of {carrier}");
        }
    }

    #[test]
    fn a_fee_that_comes_back_pays_for_nothing_in_its_transaction() {
        let mut ledger = testing::ledger();
        let tx = [Tx::of(LANE).transfer(address(2), BALANCE).bytes()];
        let outcome = testing::run(&mut ledger, &tx);
        let (balance, needed) = (Amount(BALANCE), Amount(BALANCE + BASE_FEE));
        assert_eq!(
            outcome.transactions[0].receipt.result,
            Err((0, crate::reject::Failure::InsufficientFunds { balance, needed }))
        );
        assert_eq!(testing::balance(&ledger, LANE), BALANCE);
        let all_but_the_fee = [Tx::of(LANE).nonce(2).transfer(address(2), BALANCE - BASE_FEE).bytes()];
        testing::run(&mut ledger, &all_but_the_fee);
        assert_eq!(testing::balance(&ledger, LANE), BASE_FEE);
    }

    #[test]
    fn lanes_take_turns_at_being_first() {
        for height in 1..8u64 {
            let mut ledger = testing::ledger();
            for _ in 1..height {
                testing::run(&mut ledger, &[]);
            }
            let own: Vec<_> = (1..=3).map(|seed| [pay(seed, 1), pay(seed, 2)]).collect();
            let lanes = own.iter().map(|transactions| lane(LANE, transactions)).collect();
            let outcome = ledger.execute(&BlockInput { height: Height(height), time: TIME, lanes }).unwrap();
            let order: Vec<_> = outcome.transactions.iter().map(|tx| tx.transaction.sender()).collect();
            let turn = |place: u64| address(u8::try_from((height + place) % 3).unwrap() + 1);
            assert_eq!(order, [0, 0, 1, 1, 2, 2].map(turn), "height {height}");
            let nonces: Vec<_> = outcome.transactions.iter().map(|tx| tx.transaction.body().nonce.0).collect();
            assert_eq!(nonces, [1, 2, 1, 2, 1, 2]);
            let places: Vec<_> =
                outcome.transactions.iter().map(|tx| (tx.receipt.height.0, tx.receipt.index)).collect();
            assert_eq!(places, [0, 1, 2, 3, 4, 5].map(|index| (height, index)));
        }
    }

    #[test]
    fn a_duplicate_is_discarded_by_its_nonce() {
        let mut ledger = testing::ledger();
        let tx = pay(1, 1);
        let mut once = ledger.clone();
        testing::run(&mut once, std::slice::from_ref(&tx));
        // In another lane of the same block, and again in the next block.
        let (one, two) = ([tx.clone()], [tx.clone()]);
        let input = BlockInput { height: Height(1), time: TIME, lanes: vec![lane(LANE, &one), lane(LANE, &two)] };
        let outcome = ledger.execute(&input).unwrap();
        let in_use = Discard::NonceInUse { nonce: Nonce(1), lowest: Nonce(2) };
        let id = outcome.transactions[0].transaction.id();
        assert_eq!(outcome.transactions.len(), 1);
        assert_eq!(outcome.discarded, [(id, in_use.clone())]);
        assert_eq!(ledger.executed(), once.executed());
        let next = testing::run(&mut ledger, &[tx]);
        assert_eq!((next.transactions, next.discarded), (Vec::new(), vec![(id, in_use)]));
    }

    #[test]
    fn what_is_no_transaction_of_this_chain_is_counted_and_skipped() {
        let mut ledger = testing::ledger();
        let mut no_operation = Tx::of(1).bytes();
        let outcome = testing::run(&mut ledger, &[vec![], vec![0xff; 100], no_operation.clone(), pay(1, 1)]);
        assert_eq!((outcome.malformed, outcome.transactions.len(), outcome.discarded.len()), (3, 1, 0));
        assert_eq!(outcome.transactions[0].receipt.index, 0);
        no_operation.push(0);
        assert_eq!(testing::run(&mut ledger, &[no_operation]).malformed, 1);
    }

    #[test]
    fn receipts_go_into_the_accumulator_in_order() {
        let mut ledger = testing::ledger();
        let failing = Tx::of(3).transfer(address(77), 1).bytes();
        let outcome = testing::run(&mut ledger, &[pay(1, 1), pay(1, 1), failing, pay(2, 1)]);
        let mut expected = Accumulator::default();
        for executed in &outcome.transactions {
            expected.append(&executed.receipt.encode());
        }
        assert_eq!(expected.count(), 3);
        assert_eq!(ledger.receipts(), &expected);
        assert_eq!(outcome.executed.receipts_root, expected.root());
    }

    #[test]
    fn a_block_that_cannot_execute_changes_nothing() {
        let tx = [pay(1, 1)];
        let execute = |ledger: &mut Ledger, height, recipient| {
            let lanes = vec![lane(recipient, &tx)];
            let before = ledger.encode_snapshot();
            let result = ledger.execute(&BlockInput { height: Height(height), time: TIME, lanes });
            assert_eq!(ledger.encode_snapshot(), before);
            result.unwrap_err()
        };
        let mut ledger = testing::ledger();
        for got in [Height(0), Height(2)] {
            assert_eq!(execute(&mut ledger, got.0, LANE), ExecuteError::Height { expected: Height(1), got });
        }
        assert_eq!(execute(&mut ledger, 1, 99), ExecuteError::FeeRecipient(address(99)));
    }

    #[test]
    fn tokens_that_appear_or_vanish_stop_execution() {
        let supply = testing::genesis().total_supply;
        for found in [Amount(supply.0 + 1), Amount(supply.0 - 1)] {
            let mut ledger = testing::ledger();
            let mut account = ledger.state().account(&address(1)).unwrap();
            account.balance = Amount(account.balance.0 + found.0 - supply.0);
            ledger.state.put(&address(1), account);
            let before = ledger.encode_snapshot();
            let tx = [pay(2, 1)];
            let error = ledger.execute(&testing::block(&ledger, &tx)).unwrap_err();
            assert_eq!(error, ExecuteError::Supply { height: Height(1), expected: supply, found });
            assert_eq!(ledger.encode_snapshot(), before);
        }
    }

    #[test]
    fn a_state_kept_from_an_earlier_height_does_not_change() {
        let mut ledger = testing::ledger();
        let (kept, copy) = (ledger.state().clone(), ledger.clone());
        let root = kept.root();
        testing::run(&mut ledger, &[pay(1, 1)]);
        assert_eq!((kept.root(), copy.executed().state_root), (root, root));
        assert_eq!(kept.account(&address(1)).unwrap().balance, Amount(BALANCE));
        assert_ne!(ledger.state().root(), root);
    }
}
