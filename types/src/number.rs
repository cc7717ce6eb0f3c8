//! The counted things of the protocol, each its own type, with checked arithmetic only.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// Zero.
            pub const ZERO: $name = $name(0);

            /// One more. Stays at the largest value, which no honest chain reaches: 2^64 blocks, views or nonces.
            #[must_use]
            pub const fn next(self) -> $name {
                $name(self.0.saturating_add(1))
            }

            /// One less; nothing below zero.
            pub const fn previous(self) -> Option<$name> {
                match self.0.checked_sub(1) {
                    Some(value) => Some($name(value)),
                    None => None,
                }
            }

            /// `count` more, staying at the largest value.
            #[must_use]
            pub const fn plus(self, count: u64) -> $name {
                $name(self.0.saturating_add(count))
            }

            /// How far this is above `other`; zero when it is not.
            pub const fn above(self, other: $name) -> u64 {
                self.0.saturating_sub(other.0)
            }

            /// The number as 8 big-endian bytes, as every signed or hashed message holds it.
            pub const fn to_be_bytes(self) -> [u8; 8] {
                self.0.to_be_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A run of heights with one fixed validator set; the first is 0.
    Epoch
);
number!(
    /// A block's place in the chain; genesis is 0.
    Height
);
number!(
    /// A round of agreement inside an epoch; the first is 1, 0 means "none".
    View
);
number!(
    /// A batch's place in its lane; the first is 1, 0 means "none".
    Seq
);
number!(
    /// A transaction's number within its account; the first is 1.
    Nonce
);
number!(
    /// Milliseconds since 1970-01-01T00:00:00Z.
    UnixMillis
);
number!(
    /// Base units a validator has at stake: its votes.
    Stake
);

impl Stake {
    /// The sum, unless it is above 2^64-1.
    pub fn checked_add(self, other: Stake) -> Option<Stake> {
        self.0.checked_add(other.0).map(Stake)
    }
}
