//! The receipts accumulator: an append-only Merkle mountain range over every receipt since genesis.
//!
//! Leaf: SHA-256(0x00 ‖ receipt bytes). Inner: SHA-256(0x01 ‖ left ‖ right). Root: SHA-256 under `tally.receipts.v1` of
//! the number of leaves (u64) and the peaks, the one over the oldest leaves first. Only the peaks are kept, one for each
//! bit set in the number of leaves: at most 64 hashes.

use sha2::{Digest as _, Sha256};
use tally_types::Hash;

/// Tag of the root.
pub const TAG_RECEIPTS: &str = "tally.receipts.v1";

/// All receipts so far, as their peaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accumulator {
    count: u64,
    /// One per bit set in `count`, the highest bit first.
    peaks: Vec<Hash>,
}

impl Accumulator {
    /// The accumulator with these parts, if there is a peak for each bit set in `count`.
    pub fn from_parts(count: u64, peaks: Vec<Hash>) -> Option<Accumulator> {
        let fits = u32::try_from(peaks.len()).is_ok_and(|len| len == count.count_ones());
        fits.then_some(Accumulator { count, peaks })
    }

    /// How many receipts it holds.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The peaks, oldest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds the bytes of one receipt.
    pub fn append(&mut self, receipt: &[u8]) {
        let mut node = leaf(receipt);
        // A peak of height k stands for bit k of the count: adding one carries through the lowest ones.
        for _ in 0..self.count.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = inner(&left, &node);
            }
        }
        self.peaks.push(node);
        self.count = self.count.saturating_add(1);
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let count = self.count.to_be_bytes();
        let parts: Vec<&[u8]> =
            [&count[..]].into_iter().chain(self.peaks.iter().map(|peak| &peak.as_bytes()[..])).collect();
        Hash::tagged(TAG_RECEIPTS, &parts)
    }
}

fn leaf(receipt: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(receipt).finalize().into())
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: u8) -> Accumulator {
        let mut accumulator = Accumulator::default();
        for receipt in 0..count {
            accumulator.append(&[receipt]);
        }
        accumulator
    }

    /// The perfect tree over `leaves`, the plain way.
    fn perfect(leaves: &[Hash]) -> Hash {
        match leaves {
            [one] => *one,
            many => {
                let (left, right) = many.split_at(many.len() / 2);
                inner(&perfect(left), &perfect(right))
            }
        }
    }

    #[test]
    fn peaks_are_the_perfect_trees_of_the_binary_digits_of_the_count() {
        for count in 0..=70u8 {
            let leaves: Vec<_> = (0..count).map(|receipt| leaf(&[receipt])).collect();
            let mut rest = &leaves[..];
            let mut peaks = Vec::new();
            for power in (0..7).rev().map(|bit| 1 << bit).filter(|power| usize::from(count) & power != 0) {
                let (tree, later) = rest.split_at(power);
                peaks.push(perfect(tree));
                rest = later;
            }
            assert_eq!(of(count).peaks(), peaks);
            assert_eq!(of(count).count(), u64::from(count));
        }
    }

    #[test]
    fn the_root_is_frozen() {
        let empty = Accumulator::default().root();
        assert_eq!(empty, Hash::tagged("tally.receipts.v1", &[&[0; 8]]));
        assert_eq!(empty.to_string(), "0687dc80bc43116a21aeb5eb5d42f429539c9b856d565c6f2cacfedaf2d25816");
        assert_eq!(of(7).root().to_string(), "4600c5d40790d05c964a97459b15a66ba2951d64f763fb2a97a678bd817a92e7");
    }

    #[test]
    fn every_receipt_and_their_order_count() {
        let roots: Vec<_> = (0..20).map(|count| of(count).root()).collect();
        for (index, root) in roots.iter().enumerate() {
            assert!(!roots[..index].contains(root));
        }
        let (mut one, mut other) = (Accumulator::default(), Accumulator::default());
        for (a, b) in [(b"a", b"b"), (b"b", b"a")] {
            one.append(a);
            other.append(b);
        }
        assert_ne!(one.root(), other.root());
    }

    #[test]
    fn parts_must_fit() {
        let whole = of(7);
        assert_eq!(Accumulator::from_parts(7, whole.peaks().to_vec()), Some(whole.clone()));
        assert_eq!(Accumulator::from_parts(6, whole.peaks().to_vec()), None);
        assert_eq!(Accumulator::from_parts(0, Vec::new()), Some(Accumulator::default()));
    }
}
