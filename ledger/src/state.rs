//! The state: accounts, validators and parameters in one Merkle-sum tree.
//!
//! A clone is a snapshot: it costs one pointer, shares all it can, and never changes. The root commits to the sum of all
//! tokens, balances and stakes alike, so every proof against it proves the supply too.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tally_types::{
    Address, Amount, Genesis, Hash, Height, Nonce, Params, UnixMillis, ValidatorSet, VerifiedTransaction, body::Body,
};

use crate::{
    account::{Account, NonceWindow},
    plan::{self, Moment},
    proof::Proof,
    record::{self, KIND_PARAMETERS, KIND_VALIDATOR, Record},
    reject::{Discard, Failure, Rejection},
    tree::{Leaf, Tree},
};

/// Tag of the state root.
pub const TAG_STATE: &str = "tally.state.v1";

/// All that blocks act on, as of one height.
#[derive(Clone)]
pub struct State {
    tree: Tree,
    /// Leaves that are accounts.
    accounts: u64,
    /// What the validator leaves say.
    validators: ValidatorSet,
    /// What the parameters leaf says.
    params: Arc<Params>,
}

/// The root of a state with this sum and hash of its root node.
pub(crate) fn state_root(sum: Amount, node: &Hash) -> Hash {
    Hash::tagged(TAG_STATE, &[&sum.0.to_be_bytes(), node.as_bytes()])
}

/// What a transaction would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// What it costs.
    pub fee: Amount,
    /// Whether it takes effect; if not, which operation fails and why.
    pub result: Result<(), (u32, Failure)>,
    /// The sender's balance before.
    pub balance_before: Amount,
    /// The sender's balance after, before any fee comes back to it as a validator.
    pub balance_after: Amount,
}

impl State {
    /// The state a chain starts from.
    pub fn genesis(genesis: &Genesis) -> State {
        let mut state = State::bare(&genesis.params, genesis.validators.clone());
        for (address, balance) in &genesis.accounts {
            let nonces = NonceWindow::default();
            let account = Account { balance: *balance, nonces, creator: None, created_height: Height::ZERO };
            state.put(address, account);
        }
        state
    }

    /// Parameters and validators, without accounts.
    pub(crate) fn bare(params: &Params, validators: ValidatorSet) -> State {
        let key = record::key(KIND_PARAMETERS, &[0; 32]);
        let mut tree = Tree::new(Leaf::new(key, Record::Parameters(params.clone())));
        for member in validators.members() {
            let key = record::key(KIND_VALIDATOR, member.address.as_bytes());
            tree.put(Leaf::new(key, Record::Validator { key: member.key, stake: member.stake }));
        }
        State { tree, accounts: 0, validators, params: Arc::new(params.clone()) }
    }

    /// What every node that executed the same blocks has.
    pub fn root(&self) -> Hash {
        state_root(self.tree.sum(), &self.tree.hash())
    }

    /// All tokens: the sum at the root of the tree.
    pub fn supply(&self) -> Amount {
        self.tree.sum()
    }

    /// The account of `address`.
    pub fn account(&self, address: &Address) -> Option<Account> {
        match self.tree.get(&record::account_key(address)) {
            Some(Record::Account(account)) => Some(account.clone()),
            _ => None,
        }
    }

    /// How many accounts there are.
    pub fn account_count(&self) -> u64 {
        self.accounts
    }

    /// Up to `limit` accounts in the order of their addresses, those above `after` only.
    pub fn accounts_after(&self, after: Option<&Address>, limit: usize) -> Vec<(Address, Account)> {
        let after = match after {
            Some(address) => record::account_key(address),
            // Below every account, above everything else that comes before them.
            None => record::key(KIND_PARAMETERS, &[0xff; 32]),
        };
        let accounts = self.tree.leaves_after(&after).map_while(|leaf| match &leaf.record {
            Record::Account(account) => Some((Address(record::split_key(&leaf.key).1), account.clone())),
            _ => None,
        });
        accounts.take(limit).collect()
    }

    /// The validators.
    pub fn validators(&self) -> ValidatorSet {
        self.validators.clone()
    }

    /// The parameters of the chain.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Proves what [`State::account`] answers, and the supply, against [`State::root`].
    pub fn prove(&self, address: &Address) -> Proof {
        let (steps, leaf) = self.tree.path(&record::account_key(address));
        Proof::new(steps, leaf)
    }

    /// Whether `transaction` would take effect in a block of time `now`, by the rules of a block. `highest_admitted` is
    /// the highest nonce of its sender that was admitted and may still be on its way, or 0: how far ahead a nonce may be
    /// is measured from there, so a client can have thousands in flight. Earlier transactions that were admitted but did
    /// not execute yet are not counted against the balance.
    pub fn admit(
        &self,
        now: UnixMillis,
        highest_admitted: Nonce,
        transaction: &VerifiedTransaction,
    ) -> Result<(), Rejection> {
        let simulated = self.simulate(now, highest_admitted, transaction.body())?;
        simulated.result.map_err(|(operation, failure)| Rejection::Failure { operation, failure })
    }

    /// What a transaction of so many operations costs.
    pub fn fee(&self, operations: usize) -> Amount {
        plan::fee(operations, &self.params)
    }

    /// What `body` would come to in a block of time `now`, judged as in [`State::admit`].
    pub fn simulate(&self, now: UnixMillis, highest_admitted: Nonce, body: &Body) -> Result<Simulated, Discard> {
        let moment = Moment { time: now, height: Height::ZERO, highest_admitted };
        let plan = plan::plan(&Working::new(self), body, &moment)?;
        let balance = |account: Option<&Account>| account.map(|account| account.balance).unwrap_or_default();
        Ok(Simulated {
            fee: plan.fee,
            result: plan.result,
            balance_before: balance(self.account(&body.sender).as_ref()),
            balance_after: balance(plan.accounts.get(&body.sender)),
        })
    }

    /// Puts an account in, or in the place of the one it was.
    pub(crate) fn put(&mut self, address: &Address, account: Account) {
        let is_new = self.tree.put(Leaf::new(record::account_key(address), Record::Account(account)));
        self.accounts = self.accounts.saturating_add(u64::from(is_new));
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("root", &self.root()).field("accounts", &self.accounts).finish_non_exhaustive()
    }
}

/// A state and the accounts a block has changed so far. The tree is written once per account and block, at the end.
pub(crate) struct Working {
    state: State,
    changed: BTreeMap<Address, Account>,
}

impl Working {
    pub(crate) fn new(state: &State) -> Working {
        Working { state: state.clone(), changed: BTreeMap::new() }
    }

    /// The account of `address` as the transactions so far left it.
    pub(crate) fn account(&self, address: &Address) -> Option<Account> {
        self.changed.get(address).cloned().or_else(|| self.state.account(address))
    }

    pub(crate) fn params(&self) -> &Params {
        self.state.params()
    }

    /// Does what was planned and moves the fee to `fee_recipient`, an account that exists. Nothing here can fail.
    pub(crate) fn apply(&mut self, fee: Amount, accounts: BTreeMap<Address, Account>, fee_recipient: &Address) {
        self.changed.extend(accounts);
        if let Some(mut account) = self.account(fee_recipient) {
            account.balance = plan::credited(account.balance, fee);
            self.changed.insert(*fee_recipient, account);
        }
    }

    /// The state after all of it.
    pub(crate) fn into_state(self) -> State {
        let mut state = self.state;
        for (address, account) in self.changed {
            state.put(&address, account);
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use tally_types::Validator;

    use super::*;
    use crate::testing;

    #[test]
    fn genesis_is_what_its_file_says() {
        let genesis = testing::genesis();
        let state = State::genesis(&genesis);
        assert_eq!(state.supply(), genesis.total_supply);
        assert_eq!(state.account_count(), 4);
        assert_eq!(state.validators(), genesis.validators);
        assert_eq!(state.params(), &genesis.params);
        let listed: Vec<_> =
            state.accounts_after(None, 100).into_iter().map(|(a, account)| (a, account.balance)).collect();
        assert_eq!(listed, genesis.accounts);
        let account = state.account(&testing::address(1)).unwrap();
        assert_eq!((account.creator, account.created_height, account.nonces.next()), (None, Height(0), Nonce(1)));
    }

    #[test]
    fn a_small_state_root_is_frozen() {
        let nonces = NonceWindow::default().with(Nonce(1));
        let account = |balance| Account { balance: Amount(balance), nonces, creator: None, created_height: Height(0) };
        let member = Validator {
            address: Address([0x11; 32]),
            key: tally_types::PublicKey([0x33; 32]),
            stake: tally_types::Stake(1_000),
        };
        let mut state = State::bare(&Params::default(), ValidatorSet::new(vec![member]).unwrap());
        state.put(&Address([0x11; 32]), account(20));
        state.put(&Address([0x22; 32]), account(300));
        assert_eq!(state.supply(), Amount(1_320));
        assert_eq!(state.root().to_string(), "c20df03c46b3368b0ec381a401b5c634ca806e249714c80372843e8e2220f30f");
    }

    #[test]
    fn the_order_in_which_accounts_came_does_not_change_the_root() {
        let genesis = testing::genesis();
        let addresses: Vec<_> = (10..60).map(testing::address).collect();
        let build = |addresses: &mut dyn Iterator<Item = &Address>| {
            let mut state = State::genesis(&genesis);
            for address in addresses {
                let mut account = state.account(&testing::address(1)).unwrap();
                account.balance = Amount(u64::from(address.0[0]));
                state.put(address, account);
                state.root();
            }
            (state.root(), state.supply(), state.account_count())
        };
        let forward = build(&mut addresses.iter());
        assert_eq!(forward, build(&mut addresses.iter().rev()));
        assert_eq!(forward.2, 54);
    }

    #[test]
    fn accounts_are_listed_page_by_page() {
        let state = State::genesis(&testing::genesis());
        let all = state.accounts_after(None, usize::MAX);
        assert_eq!(all.len(), 4);
        let mut paged = Vec::new();
        while let page @ [_, ..] = &state.accounts_after(paged.last().map(|(address, _)| address), 3)[..] {
            paged.extend_from_slice(page);
        }
        assert_eq!(paged, all);
        assert_eq!(state.accounts_after(None, 0), []);
        assert_eq!(state.accounts_after(Some(&Address([0; 32])), 100), all);
        assert_eq!(state.accounts_after(Some(&Address([0xff; 32])), 100), []);
    }

    #[test]
    fn a_snapshot_goes_to_other_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<State>();
        check::<crate::block::Ledger>();
    }
}
