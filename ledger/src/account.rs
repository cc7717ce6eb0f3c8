//! An account, and the window that lets each of its nonces run once.

use tally_types::{Address, Amount, Height, Nonce};
use thiserror::Error;

use crate::reader::Reader;

/// How many nonces a window remembers, and how far ahead of the highest one a nonce may be.
pub const NONCE_WINDOW: u64 = 128;

/// What the ledger keeps of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Base units it can spend.
    pub balance: Amount,
    /// Nonces it used.
    pub nonces: NonceWindow,
    /// Who opened it; `None`: genesis.
    pub creator: Option<Address>,
    /// Height of the block that opened it; 0: genesis.
    pub created_height: Height,
}

/// The nonces an account used, as in IPsec: the highest, and a map of the 128 that end there. Gaps are harmless, order
/// does not matter within the window, and nothing runs twice: what fell out of the window counts as used.
///
/// Invariant: bit 0 is set unless `highest` is 0, and no bit speaks of a nonce below 1. So one set of used nonces has
/// one representation, which is what gets hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonceWindow {
    highest: Nonce,
    /// Bit i is set: nonce `highest` - i was used.
    used: u128,
}

/// Why a nonce cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NonceError {
    /// Below the window: whether it was used is no longer known.
    #[error("nonce {nonce} is too low: the lowest free nonce is {lowest}")]
    TooLow {
        /// The nonce.
        nonce: Nonce,
        /// The lowest that can be used.
        lowest: Nonce,
    },
    /// Used before.
    #[error("nonce {nonce} is already used: the lowest free nonce is {lowest}")]
    InUse {
        /// The nonce.
        nonce: Nonce,
        /// The lowest that can be used.
        lowest: Nonce,
    },
    /// More than [`NONCE_WINDOW`] ahead.
    #[error("nonce {nonce} is too high: it may be at most {NONCE_WINDOW} above {highest}")]
    TooHigh {
        /// The nonce.
        nonce: Nonce,
        /// The highest one used, or admitted.
        highest: Nonce,
    },
}

impl NonceWindow {
    /// The highest nonce used; 0: none yet.
    pub fn highest(&self) -> Nonce {
        self.highest
    }

    /// The nonce a client without anything in flight uses next.
    pub fn next(&self) -> Nonce {
        self.highest.next()
    }

    /// The lowest nonce that can still be used: the first gap in the window, or else [`NonceWindow::next`].
    pub fn lowest_usable(&self) -> Nonce {
        let ones_below = |count: u64| match u32::try_from(count).ok().and_then(|count| 1u128.checked_shl(count)) {
            Some(bit) => bit.saturating_sub(1),
            None => u128::MAX,
        };
        let free = !self.used & ones_below(self.highest.0.min(NONCE_WINDOW));
        match free.checked_ilog2() {
            Some(oldest) => Nonce(self.highest.0.saturating_sub(u64::from(oldest))),
            None => self.next(),
        }
    }

    /// Whether a transaction with `nonce` may execute now.
    pub fn check(&self, nonce: Nonce) -> Result<(), NonceError> {
        self.check_ahead_of(nonce, self.highest)
    }

    /// As [`NonceWindow::check`], with "too far ahead" measured from `highest_admitted` if that is higher: those below it
    /// are on their way, and the window will have moved when `nonce` executes.
    pub fn check_ahead_of(&self, nonce: Nonce, highest_admitted: Nonce) -> Result<(), NonceError> {
        if nonce < self.lowest() {
            return Err(NonceError::TooLow { nonce, lowest: self.lowest_usable() });
        }
        if self.is_used(nonce) {
            return Err(NonceError::InUse { nonce, lowest: self.lowest_usable() });
        }
        let highest = self.highest.max(highest_admitted);
        if nonce > highest.plus(NONCE_WINDOW) {
            return Err(NonceError::TooHigh { nonce, highest });
        }
        Ok(())
    }

    /// The window after `nonce` was used. Unchanged for a nonce below the window.
    #[must_use]
    pub fn with(self, nonce: Nonce) -> NonceWindow {
        if nonce > self.highest {
            let moved = u32::try_from(nonce.above(self.highest)).ok().and_then(|by| self.used.checked_shl(by));
            return NonceWindow { highest: nonce, used: moved.unwrap_or_default() | 1 };
        }
        NonceWindow { used: self.used | self.bit(nonce), ..self }
    }

    /// Lower end of the window. Nonce 0 is none.
    fn lowest(&self) -> Nonce {
        Nonce(self.highest.next().above(Nonce(NONCE_WINDOW)).max(1))
    }

    fn is_used(&self, nonce: Nonce) -> bool {
        nonce <= self.highest && self.used & self.bit(nonce) != 0
    }

    /// The bit that speaks of `nonce`; none at all if it is below the window.
    fn bit(&self, nonce: Nonce) -> u128 {
        let age = u32::try_from(self.highest.above(nonce)).ok();
        age.and_then(|age| 1u128.checked_shl(age)).unwrap_or_default()
    }

    fn is_canonical(&self) -> bool {
        let below_one = u32::try_from(self.highest.0).ok().and_then(|count| self.used.checked_shr(count));
        match self.highest {
            Nonce(0) => self.used == 0,
            _ => self.used & 1 == 1 && below_one.unwrap_or_default() == 0,
        }
    }
}

impl Account {
    /// All of the account but its balance, which stands before it as the sum of its leaf: highest nonce u64, used u128,
    /// 0x00 or 0x01 and the creator, created height u64.
    pub(crate) fn write_value(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nonces.highest.to_be_bytes());
        out.extend_from_slice(&self.nonces.used.to_be_bytes());
        match &self.creator {
            None => out.push(0),
            Some(creator) => {
                out.push(1);
                out.extend_from_slice(creator.as_bytes());
            }
        }
        out.extend_from_slice(&self.created_height.to_be_bytes());
    }

    /// Reads what [`Account::write_value`] writes, and nothing else.
    pub(crate) fn read_value(balance: Amount, reader: &mut Reader<'_>) -> Option<Account> {
        let nonces = NonceWindow { highest: Nonce(reader.u64()?), used: reader.u128()? };
        let creator = match reader.u8()? {
            0 => None,
            1 => Some(Address(reader.array()?)),
            _ => return None,
        };
        let created_height = Height(reader.u64()?);
        nonces.is_canonical().then_some(Account { balance, nonces, creator, created_height })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The rule in one sentence, on a set that never forgets.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn highest(&self) -> u64 {
            self.0.last().copied().unwrap_or(0)
        }

        fn usable(&self, nonce: u64) -> bool {
            let (nonce, highest) = (i128::from(nonce), i128::from(self.highest()));
            let unused = !self.0.contains(&u64::try_from(nonce).unwrap());
            nonce >= 1 && unused && nonce > highest - 128 && nonce <= highest + 128
        }
    }

    fn window(used: impl IntoIterator<Item = u64>) -> NonceWindow {
        used.into_iter().fold(NonceWindow::default(), |window, nonce| window.with(Nonce(nonce)))
    }

    #[test]
    fn the_ends_of_the_window_are_exact() {
        let fresh = NonceWindow::default();
        assert_eq!((fresh.highest(), fresh.next(), fresh.lowest_usable()), (Nonce(0), Nonce(1), Nonce(1)));
        assert_eq!(fresh.check(Nonce(0)), Err(NonceError::TooLow { nonce: Nonce(0), lowest: Nonce(1) }));
        assert_eq!(fresh.check(Nonce(1)), Ok(()));
        assert_eq!(fresh.check(Nonce(128)), Ok(()));
        assert_eq!(fresh.check(Nonce(129)), Err(NonceError::TooHigh { nonce: Nonce(129), highest: Nonce(0) }));

        let at_200 = window([72, 200]);
        assert_eq!(at_200.check(Nonce(72)), Err(NonceError::TooLow { nonce: Nonce(72), lowest: Nonce(73) }));
        assert_eq!(at_200.check(Nonce(73)), Ok(()));
        assert_eq!(at_200.check(Nonce(200)), Err(NonceError::InUse { nonce: Nonce(200), lowest: Nonce(73) }));
        assert_eq!(at_200.check(Nonce(328)), Ok(()));
        assert_eq!(at_200.check(Nonce(329)), Err(NonceError::TooHigh { nonce: Nonce(329), highest: Nonce(200) }));
    }

    #[test]
    fn ahead_is_measured_from_the_highest_admitted() {
        let used = window([1, 2, 3]);
        assert_eq!(used.check_ahead_of(Nonce(5128), Nonce(5000)), Ok(()));
        let too_high = NonceError::TooHigh { nonce: Nonce(5129), highest: Nonce(5000) };
        assert_eq!(used.check_ahead_of(Nonce(5129), Nonce(5000)), Err(too_high));
        assert_eq!(used.check_ahead_of(Nonce(4), Nonce(5000)), Ok(()));
        let in_use = NonceError::InUse { nonce: Nonce(2), lowest: Nonce(4) };
        assert_eq!(used.check_ahead_of(Nonce(2), Nonce(5000)), Err(in_use));
        // An admission of long ago does not pull the measure back.
        assert_eq!(used.check_ahead_of(Nonce(131), Nonce(1)), Ok(()));
    }

    #[test]
    fn the_last_nonce_of_all_does_not_overflow() {
        let end = window([u64::MAX - 1]).with(Nonce(u64::MAX));
        assert_eq!(end.next(), Nonce(u64::MAX));
        assert!(end.check(Nonce(u64::MAX)).is_err());
        assert_eq!(end.check(Nonce(u64::MAX - 2)), Ok(()));
        assert_eq!(end.lowest_usable(), Nonce(u64::MAX - 127));
    }

    #[test]
    fn a_window_that_no_nonces_make_is_not_read() {
        let bytes = |highest: u64, used: u128| {
            let nonces = NonceWindow { highest: Nonce(highest), used };
            let account = Account { balance: Amount(1), nonces, creator: None, created_height: Height(0) };
            let mut out = Vec::new();
            account.write_value(&mut out);
            out
        };
        let reads = |bytes: Vec<u8>| Account::read_value(Amount(1), &mut Reader::new(&bytes)).is_some();
        for (highest, used, good) in [
            (0, 0, true),
            (0, 1, false),
            (1, 1, true),
            (1, 3, false),
            (2, 2, false),
            (2, 3, true),
            (127, u128::MAX, false),
            (128, u128::MAX, true),
            (u64::MAX, 1, true),
            (1 << 32, 0, false),
        ] {
            assert_eq!(reads(bytes(highest, used)), good, "{highest} {used:x}");
        }
        let mut creator = bytes(1, 1);
        creator[24] = 2;
        assert!(!reads(creator));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(steps in prop::collection::vec((0u64..6, 0u64..150), 1..200)) {
            let mut model = Model::default();
            let mut window = NonceWindow::default();
            for (kind, offset) in steps {
                let nonce = match kind {
                    0 => model.highest().saturating_sub(offset),
                    1 => model.highest() + offset,
                    2 => (model.highest() + 128).saturating_sub(offset % 3),
                    3 => (model.highest() + 1).saturating_sub(127 + offset % 3),
                    _ => model.highest() + offset % 4,
                };
                prop_assert_eq!(window.check(Nonce(nonce)).is_ok(), model.usable(nonce), "nonce {}", nonce);
                if model.usable(nonce) {
                    model.0.insert(nonce);
                    window = window.with(Nonce(nonce));
                }
                prop_assert_eq!(window.highest().0, model.highest());
                let lowest = (0..).find(|nonce| model.usable(*nonce)).unwrap();
                prop_assert_eq!(window.lowest_usable().0, lowest);
                prop_assert!(window.is_canonical());
            }
        }
    }
}
