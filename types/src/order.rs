//! The order of 32 bytes.

use std::cmp::Ordering;

/// As `one.cmp(two)`, a word at a time and without a call: maps by hash and by address are searched on every turn, and nearly always the
/// first word decides.
#[inline]
pub(crate) fn by_words(one: &[u8; 32], two: &[u8; 32]) -> Ordering {
    let (one, two) = (one.as_chunks::<8>().0, two.as_chunks::<8>().0);
    for (one, two) in one.iter().zip(two) {
        let (one, two) = (u64::from_be_bytes(*one), u64::from_be_bytes(*two));
        if one != two {
            return one.cmp(&two);
        }
    }
    Ordering::Equal
}

/// Orders a type around 32 bytes as these are.
macro_rules! ordered_as_bytes {
    ($name:ident) => {
        impl Ord for $name {
            #[inline]
            fn cmp(&self, other: &$name) -> std::cmp::Ordering {
                crate::order::by_words(&self.0, &other.0)
            }
        }

        impl PartialOrd for $name {
            #[inline]
            fn partial_cmp(&self, other: &$name) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
    };
}
pub(crate) use ordered_as_bytes;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_order_of_the_bytes(one: [u8; 32], other: [u8; 32], same in 0..=32usize) {
            let mut two = other;
            two[..same].copy_from_slice(&one[..same]);
            prop_assert_eq!(by_words(&one, &two), one.cmp(&two));
            prop_assert_eq!(by_words(&two, &one), two.cmp(&one));
        }
    }
}
