//! Validators, their stake, and who leads a view.

use std::sync::Arc;

use thiserror::Error;

use crate::{
    address::Address,
    amount::Amount,
    hash::{Hash, TAG_LEADER, TAG_VALIDATOR_SET},
    number::{Epoch, Stake, View},
    signature::PublicKey,
};

/// Most validators of one set.
pub const VALIDATORS_MAX: usize = 128;

/// A member of a validator set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Validator {
    /// Its operator account: its name, and where its fees go.
    pub address: Address,
    /// The key that signs its messages.
    pub key: PublicKey,
    /// Its votes, above zero.
    pub stake: Stake,
}

/// The validators of one epoch, ordered by address. Messages name a validator by its place in that order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ValidatorSet(Arc<Inner>);

#[derive(PartialEq, Eq, Hash)]
struct Inner {
    members: Vec<Validator>,
    total: Stake,
    hash: Hash,
}

/// Why a list of validators is no set.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ValidatorSetError {
    /// None at all, or more than [`VALIDATORS_MAX`].
    #[error("{0} validators; a set has 1 to {VALIDATORS_MAX}")]
    Count(usize),
    /// The same address twice.
    #[error("validator {0} is listed twice")]
    Address(Address),
    /// The same key twice: one signature would count for two.
    #[error("the consensus key {0} is listed twice")]
    Key(PublicKey),
    /// A validator without stake.
    #[error("validator {0} has no stake")]
    NoStake(Address),
    /// The stakes add up to more than 2^63-1.
    #[error("the stakes add up to more than 2^63-1")]
    Overflow,
}

impl ValidatorSet {
    /// A set of `members`, in any order.
    pub fn new(mut members: Vec<Validator>) -> Result<ValidatorSet, ValidatorSetError> {
        if members.is_empty() || members.len() > VALIDATORS_MAX {
            return Err(ValidatorSetError::Count(members.len()));
        }
        members.sort_by_key(|member| member.address);
        let mut keys: Vec<_> = members.iter().map(|member| member.key).collect();
        keys.sort();
        for (one, two) in keys.iter().zip(keys.iter().skip(1)) {
            if one == two {
                return Err(ValidatorSetError::Key(*one));
            }
        }
        for (one, two) in members.iter().zip(members.iter().skip(1)) {
            if one.address == two.address {
                return Err(ValidatorSetError::Address(one.address));
            }
        }
        let mut total = Stake::ZERO;
        let mut encoded = Vec::new();
        for member in &members {
            if member.stake == Stake::ZERO {
                return Err(ValidatorSetError::NoStake(member.address));
            }
            total = total.checked_add(member.stake).ok_or(ValidatorSetError::Overflow)?;
            encoded.extend_from_slice(&member.address.0);
            encoded.extend_from_slice(&member.key.0);
            encoded.extend_from_slice(&member.stake.to_be_bytes());
        }
        if total.0 > Amount::SUPPLY_MAX.0 {
            return Err(ValidatorSetError::Overflow);
        }
        let hash = Hash::tagged(TAG_VALIDATOR_SET, &[&encoded]);
        Ok(ValidatorSet(Arc::new(Inner { members, total, hash })))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.members.len()
    }

    /// Never: a set has at least one member.
    pub fn is_empty(&self) -> bool {
        self.0.members.is_empty()
    }

    /// All members, in order.
    pub fn members(&self) -> &[Validator] {
        &self.0.members
    }

    /// The member at `place`.
    pub fn get(&self, place: u32) -> Option<&Validator> {
        self.0.members.get(usize::try_from(place).ok()?)
    }

    /// The places, in order.
    pub fn places(&self) -> impl Iterator<Item = u32> + Clone + use<> {
        0..u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    /// The place of `address`.
    pub fn place_of(&self, address: &Address) -> Option<u32> {
        let place = self.0.members.binary_search_by_key(address, |member| member.address).ok()?;
        u32::try_from(place).ok()
    }

    /// The stake of the member at `place`; zero if there is none.
    pub fn stake(&self, place: u32) -> Stake {
        self.get(place).map_or(Stake::ZERO, |member| member.stake)
    }

    /// The stake of `places`, each of which must stand there once.
    pub fn stake_of(&self, places: impl IntoIterator<Item = u32>) -> Stake {
        // Distinct members add up to the total at most, which `new` bounded.
        Stake(places.into_iter().fold(0u64, |sum, place| sum.saturating_add(self.stake(place).0)))
    }

    /// S: the stake of all.
    pub fn total(&self) -> Stake {
        self.0.total
    }

    /// ⌊2S/3⌋+1. Two sets with that much stake share more than a third: an honest member.
    pub fn quorum(&self) -> Stake {
        let two_thirds = u128::from(self.total().0).saturating_mul(2).checked_div(3).unwrap_or_default();
        Stake(u64::try_from(two_thirds).unwrap_or(u64::MAX)).next()
    }

    /// ⌊S/3⌋+1. A set with that much stake has an honest member.
    pub fn weak_quorum(&self) -> Stake {
        Stake(self.total().0.checked_div(3).unwrap_or_default()).next()
    }

    /// SHA-256 under `tally.validator-set.v1` of each member's address, key and stake, in order.
    pub fn hash(&self) -> Hash {
        self.0.hash
    }

    /// Who leads view `view` of epoch `epoch`: a place drawn by stake from the epoch's seed. Anyone can compute it.
    pub fn leader(&self, seed: &Hash, epoch: Epoch, view: View) -> u32 {
        let digest = Hash::tagged(TAG_LEADER, &[seed.as_bytes(), &epoch.to_be_bytes(), &view.to_be_bytes()]);
        let draw = digest.0.iter().take(16).fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
        // S is above zero: `new` refuses members without stake.
        let draw = draw.checked_rem(u128::from(self.total().0)).unwrap_or_default();
        let mut passed = 0u128;
        for (place, member) in self.places().zip(self.members()) {
            passed = passed.saturating_add(u128::from(member.stake.0));
            if draw < passed {
                return place;
            }
        }
        0
    }
}

impl std::fmt::Debug for ValidatorSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ValidatorSet({} members, {:?})", self.len(), self.hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: u8, stake: u64) -> Validator {
        Validator { address: Address([name; 32]), key: PublicKey([name; 32]), stake: Stake(stake) }
    }

    fn set(stakes: &[u64]) -> ValidatorSet {
        let members = (1..).zip(stakes).map(|(name, stake)| member(name, *stake)).collect();
        ValidatorSet::new(members).unwrap()
    }

    #[test]
    fn quorums_are_counted_in_stake() {
        for (stakes, quorum, weak) in [
            (&[1][..], 1, 1),
            (&[1, 1, 1], 3, 2),
            (&[1, 1, 1, 1], 3, 2),
            (&[2, 2, 2, 1], 5, 3),
            (&[10, 1, 1, 1], 9, 5),
            (&[i64::MAX as u64 - 3, 1, 1, 1], 6_148_914_691_236_517_205, 3_074_457_345_618_258_603),
        ] {
            assert_eq!(set(stakes).quorum(), Stake(quorum), "{stakes:?}");
            assert_eq!(set(stakes).weak_quorum(), Stake(weak), "{stakes:?}");
        }
    }

    #[test]
    fn sets_that_could_be_misread_are_refused() {
        let new = ValidatorSet::new;
        assert_eq!(new(vec![]).unwrap_err(), ValidatorSetError::Count(0));
        assert_eq!(new(vec![member(1, 0)]).unwrap_err(), ValidatorSetError::NoStake(Address([1; 32])));
        assert_eq!(
            new(vec![member(1, 1), Validator { address: Address([2; 32]), ..member(1, 1) }]).unwrap_err(),
            ValidatorSetError::Key(PublicKey([1; 32]))
        );
        assert_eq!(
            new(vec![member(1, 1), Validator { key: PublicKey([2; 32]), ..member(1, 1) }]).unwrap_err(),
            ValidatorSetError::Address(Address([1; 32]))
        );
        assert_eq!(new(vec![member(1, i64::MAX as u64), member(2, 1)]).unwrap_err(), ValidatorSetError::Overflow);
        let many = (0..129).map(|n| member(n, 1)).collect();
        assert_eq!(new(many).unwrap_err(), ValidatorSetError::Count(129));
    }

    #[test]
    fn order_does_not_depend_on_the_list() {
        let one = ValidatorSet::new(vec![member(1, 1), member(2, 2)]).unwrap();
        let two = ValidatorSet::new(vec![member(2, 2), member(1, 1)]).unwrap();
        assert_eq!(one.hash(), two.hash());
        assert_eq!(one.place_of(&Address([2; 32])), Some(1));
        assert_eq!(one.place_of(&Address([3; 32])), None);
    }

    #[test]
    fn everybody_leads_as_often_as_the_stake_says() {
        let set = set(&[1, 2, 3, 4]);
        let mut led = [0u32; 4];
        for view in 1..=10_000 {
            led[set.leader(&Hash::ZERO, Epoch(0), View(view)) as usize] += 1;
        }
        for (place, count) in led.iter().enumerate() {
            let expected = 1000 * (place as u32 + 1);
            assert!(count.abs_diff(expected) < 150, "{led:?}");
        }
        // Frozen: other implementations must draw the same.
        let first: Vec<_> = (1..=12).map(|view| set.leader(&Hash::of(b"seed"), Epoch(3), View(view))).collect();
        assert_eq!(first, [3, 3, 1, 3, 3, 1, 2, 3, 0, 2, 1, 2]);
    }
}
