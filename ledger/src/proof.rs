//! Proof that an account exists, or does not, against a state root alone.
//!
//! The way that the bits of an address take through the tree ends at one leaf. If that is the account's, the account
//! exists; if it is another's, the account does not, because in a well-formed tree (the only kind a quorum votes for) the
//! way to a key that is there ends at it. Both also prove the supply: the root commits to the sum of all tokens.

use tally_types::{Address, Amount, Hash};
use thiserror::Error;

use crate::{
    account::Account,
    reader::Reader,
    record,
    state::state_root,
    tree::{self, KEY_BITS, Key, Leaf, Step},
};

/// The way from a state root to a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Inner nodes, from the root; at most 264.
    pub steps: Vec<Step>,
    /// Key of the leaf at the end: kind and 32 bytes.
    pub key: [u8; 33],
    /// Its tokens.
    pub sum: Amount,
    /// The rest of it.
    pub value: Vec<u8>,
}

/// What a proof shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// All tokens there are.
    pub supply: Amount,
    /// The account; `None`: there is none.
    pub account: Option<Account>,
}

/// Why a proof shows nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProofError {
    /// The steps are not a way through a tree to this leaf for this address.
    #[error("the steps of the proof do not lead from a root to its leaf")]
    Path,
    /// The tokens add up to more than 2^64-1.
    #[error("the tokens of the proof add up to more than 2^64-1")]
    Overflow,
    /// It belongs to another state, or was changed.
    #[error("the proof leads to state root {got}, not to {expected}")]
    Root {
        /// The root to prove against.
        expected: Hash,
        /// The root the proof leads to.
        got: Hash,
    },
    /// The account's leaf is not readable.
    #[error("the account in the proof is not readable")]
    Account,
}

impl Proof {
    pub(crate) fn new(steps: Vec<Step>, leaf: &Leaf) -> Proof {
        let mut value = Vec::new();
        leaf.record.write_value(&mut value);
        Proof { steps, key: leaf.key, sum: leaf.record.sum(), value }
    }

    /// What it shows about `address` in the state with this root.
    pub fn verify(&self, root: &Hash, address: &Address) -> Result<Proven, ProofError> {
        let wanted = record::account_key(address);
        let (supply, hash) = self.climb(&wanted)?;
        let got = state_root(supply, &hash);
        if got != *root {
            return Err(ProofError::Root { expected: *root, got });
        }
        let account = match self.key == wanted {
            true => Some(self.account().ok_or(ProofError::Account)?),
            false => None,
        };
        Ok(Proven { supply, account })
    }

    /// Sum and hash of the root node.
    fn climb(&self, wanted: &Key) -> Result<(Amount, Hash), ProofError> {
        let mut below = KEY_BITS;
        let mut node = (self.sum, tree::leaf_hash(&self.key, self.sum, &self.value));
        for step in self.steps.iter().rev() {
            let right = tree::bit_of(wanted, step.bit);
            // Bits rise on the way down, and the leaf lies where the way to the wanted key leads.
            if step.bit >= below || tree::bit_of(&self.key, step.bit) != right {
                return Err(ProofError::Path);
            }
            below = step.bit;
            let other = (step.sum, step.hash);
            let (left, right) = if right { (other, node) } else { (node, other) };
            let sum = left.0.checked_add(right.0).ok_or(ProofError::Overflow)?;
            node = (sum, tree::inner_hash(step.bit, left, right));
        }
        Ok(node)
    }

    fn account(&self) -> Option<Account> {
        let mut reader = Reader::new(&self.value);
        let account = Account::read_value(self.sum, &mut reader)?;
        (reader.left() == 0).then_some(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Tx};

    #[test]
    fn accounts_and_their_absence_are_proven_with_the_supply() {
        let mut ledger = testing::ledger();
        let created = Tx::of(1).create(testing::address(9), 500);
        testing::run(&mut ledger, &[created.bytes()]);
        let state = ledger.state();
        for seed in 1..60 {
            let address = testing::address(seed);
            let proven = state.prove(&address).verify(&state.root(), &address).unwrap();
            assert_eq!(proven.account, state.account(&address));
            assert_eq!(proven.account.is_some(), [1, 2, 3, 4, 9].contains(&seed), "{seed}");
            assert_eq!(proven.supply, testing::genesis().total_supply);
        }
    }

    #[test]
    fn a_proof_that_was_changed_shows_nothing() {
        let state = testing::ledger().state().clone();
        let (here, absent) = (testing::address(1), testing::address(9));
        let root = state.root();
        for address in [here, absent] {
            let good = state.prove(&address);
            let changes: [fn(&mut Proof); 8] = [
                |proof| proof.sum.0 += 1,
                |proof| proof.value[3] ^= 1,
                |proof| proof.value.push(0),
                |proof| proof.steps[0].sum.0 += 1,
                |proof| proof.steps[0].hash.0[0] ^= 1,
                |proof| proof.steps[1].bit += 1,
                |proof| proof.steps.truncate(proof.steps.len() - 1),
                |proof| proof.key[20] ^= 1,
            ];
            for (index, change) in changes.into_iter().enumerate() {
                let mut proof = good.clone();
                change(&mut proof);
                assert!(proof.verify(&root, &address).is_err(), "change {index}");
            }
        }
        // Somebody else's way proves no absence, and no proof serves another root.
        let other_way = state.prove(&here).verify(&root, &testing::address(2));
        assert_eq!(other_way, Err(ProofError::Path));
        let mut turned = state.prove(&here);
        turned.steps.swap(0, 1);
        assert_eq!(turned.verify(&root, &here), Err(ProofError::Path));
        let got = root;
        let other_root = state.prove(&here).verify(&Hash::ZERO, &here);
        assert_eq!(other_root, Err(ProofError::Root { expected: Hash::ZERO, got }));
        let mut endless = state.prove(&here);
        endless.steps[0].sum = Amount(u64::MAX);
        assert_eq!(endless.verify(&root, &here), Err(ProofError::Overflow));
    }
}
