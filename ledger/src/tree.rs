//! The state tree: a persistent binary Patricia tree whose every inner node commits to the tokens below it.
//!
//! Leaf: SHA-256(0x00 ‖ `key[33]` ‖ sum u64 ‖ value). Inner: SHA-256(0x01 ‖ bit u16 ‖ left sum u64 ‖ left hash ‖ right sum
//! u64 ‖ right hash), where `bit` is the first of the 264 bits of a key, from the most significant, in which the keys
//! below differ: 0 goes left. The shape depends on the set of keys alone, never on the order in which they came.
//!
//! A clone shares every node; writing copies the path to the leaf, or changes it in place where nobody shares it. Sums are
//! always up to date, hashes are computed when asked for and kept: a block that touches a leaf a thousand times hashes its
//! path once. Nothing is ever removed, because accounts are never closed.

use std::sync::{Arc, OnceLock};

use sha2::{Digest as _, Sha256};
use tally_types::{Amount, Hash};

use crate::record::Record;

/// Bits of a key.
pub(crate) const KEY_BITS: u16 = 264;

/// Kind and 32 bytes.
pub(crate) type Key = [u8; 33];

/// A tree with at least one leaf. No two leaves have one key.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Node,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

/// A key and what it stands for.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) key: Key,
    pub(crate) record: Record,
    hash: OnceLock<Hash>,
}

#[derive(Clone, Debug)]
struct Inner {
    /// Above those of all nodes over it.
    bit: u16,
    /// Sum of both sides. Stays at 2^64-1 instead of overflowing, which no supply equals: the assertion sees it.
    sum: Amount,
    hash: OnceLock<Hash>,
    left: Node,
    right: Node,
}

/// An inner node on the way to a leaf, as seen by whoever takes that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The bit it looks at.
    pub bit: u16,
    /// Tokens on the other side.
    pub sum: Amount,
    /// Hash of the other side.
    pub hash: Hash,
}

/// Bit `position` of `key`, from the most significant.
pub(crate) fn bit_of(key: &Key, position: u16) -> bool {
    let mask = 0x80u8.checked_shr(u32::from(position & 7)).unwrap_or_default();
    key.get(usize::from(position >> 3)).is_some_and(|byte| byte & mask != 0)
}

/// The first bit in which two keys differ.
fn first_difference(one: &Key, two: &Key) -> Option<u16> {
    let (index, differing) =
        one.iter().zip(two).map(|(one, two)| one ^ two).enumerate().find(|(_, differing)| *differing != 0)?;
    let position = u32::try_from(index).ok()?.saturating_mul(8).saturating_add(differing.leading_zeros());
    u16::try_from(position).ok()
}

/// Hash of a leaf.
pub(crate) fn leaf_hash(key: &Key, sum: Amount, value: &[u8]) -> Hash {
    let head = Sha256::new().chain_update([0]).chain_update(key).chain_update(sum.0.to_be_bytes());
    Hash(head.chain_update(value).finalize().into())
}

/// Hash of an inner node with these sides.
pub(crate) fn inner_hash(bit: u16, left: (Amount, Hash), right: (Amount, Hash)) -> Hash {
    let mut hasher = Sha256::new().chain_update([1]).chain_update(bit.to_be_bytes());
    for (sum, hash) in [left, right] {
        hasher.update(sum.0.to_be_bytes());
        hasher.update(hash.0);
    }
    Hash(hasher.finalize().into())
}

impl Leaf {
    /// A leaf.
    pub(crate) fn new(key: Key, record: Record) -> Leaf {
        Leaf { key, record, hash: OnceLock::new() }
    }

    fn hash(&self) -> Hash {
        *self.hash.get_or_init(|| {
            let mut value = Vec::with_capacity(72);
            self.record.write_value(&mut value);
            leaf_hash(&self.key, self.record.sum(), &value)
        })
    }
}

impl Inner {
    fn side(&self, right: bool) -> &Node {
        if right { &self.right } else { &self.left }
    }

    fn hash(&self) -> Hash {
        // As deep as the tree, which is at most one level per bit of a key.
        *self.hash.get_or_init(|| {
            let of = |node: &Node| (node.sum(), node.hash());
            inner_hash(self.bit, of(&self.left), of(&self.right))
        })
    }
}

impl Node {
    /// The inner node over two sides.
    fn over(bit: u16, left: Node, right: Node) -> Node {
        let sum = plus(left.sum(), right.sum());
        Node::Inner(Arc::new(Inner { bit, sum, hash: OnceLock::new(), left, right }))
    }

    fn sum(&self) -> Amount {
        match self {
            Node::Leaf(leaf) => leaf.record.sum(),
            Node::Inner(inner) => inner.sum,
        }
    }

    fn hash(&self) -> Hash {
        match self {
            Node::Leaf(leaf) => leaf.hash(),
            Node::Inner(inner) => inner.hash(),
        }
    }

    /// Puts `leaf` below this node. `split`: the first bit in which its key differs from its nearest neighbour's, `None`
    /// if it takes the place of a leaf with the same key.
    fn put(&mut self, leaf: Leaf, split: Option<u16>) {
        match (self, split) {
            (Node::Inner(inner), _) if split.is_none_or(|bit| inner.bit < bit) => {
                let inner = Arc::make_mut(inner);
                let side = if bit_of(&leaf.key, inner.bit) { &mut inner.right } else { &mut inner.left };
                side.put(leaf, split);
                inner.sum = plus(inner.left.sum(), inner.right.sum());
                inner.hash = OnceLock::new();
            }
            (node, None) => *node = Node::Leaf(Arc::new(leaf)),
            (node, Some(bit)) => {
                let old = node.clone();
                let right = bit_of(&leaf.key, bit);
                let new = Node::Leaf(Arc::new(leaf));
                *node = if right { Node::over(bit, old, new) } else { Node::over(bit, new, old) };
            }
        }
    }
}

impl Tree {
    /// The tree of one leaf.
    pub(crate) fn new(leaf: Leaf) -> Tree {
        Tree { root: Node::Leaf(Arc::new(leaf)) }
    }

    /// What `key` stands for.
    pub(crate) fn get(&self, key: &Key) -> Option<&Record> {
        let leaf = self.nearest(key);
        (leaf.key == *key).then_some(&leaf.record)
    }

    /// Puts `leaf` in, in the place of the one with its key if there is one. True if there was none.
    pub(crate) fn put(&mut self, leaf: Leaf) -> bool {
        let split = first_difference(&self.nearest(&leaf.key).key, &leaf.key);
        self.root.put(leaf, split);
        split.is_some()
    }

    /// All tokens.
    pub(crate) fn sum(&self) -> Amount {
        self.root.sum()
    }

    /// Hash of the root node.
    pub(crate) fn hash(&self) -> Hash {
        self.root.hash()
    }

    /// The leaves with keys above `after`, in the order of their keys.
    pub(crate) fn leaves_after(&self, after: &Key) -> Leaves<'_> {
        let split = first_difference(&self.nearest(after).key, after);
        let mut stack = Vec::new();
        let mut node = &self.root;
        while let Node::Inner(inner) = node {
            if split.is_some_and(|bit| inner.bit > bit) {
                break;
            }
            let right = bit_of(after, inner.bit);
            if !right {
                stack.push(&inner.right);
            }
            node = inner.side(right);
        }
        // All keys below `node` differ from `after` in bit `split` first, if at all.
        if split.is_some_and(|bit| !bit_of(after, bit)) {
            stack.push(node);
        }
        Leaves { stack }
    }

    /// All leaves, in the order of their keys.
    pub(crate) fn leaves(&self) -> Leaves<'_> {
        Leaves { stack: vec![&self.root] }
    }

    /// The leaf that the bits of `key` lead to, and the inner nodes on the way, from the root.
    pub(crate) fn path(&self, key: &Key) -> (Vec<Step>, &Leaf) {
        let mut steps = Vec::new();
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return (steps, leaf),
                Node::Inner(inner) => {
                    let right = bit_of(key, inner.bit);
                    let other = inner.side(!right);
                    steps.push(Step { bit: inner.bit, sum: other.sum(), hash: other.hash() });
                    node = inner.side(right);
                }
            }
        }
    }

    /// The leaf that the bits of `key` lead to: the one with that key if there is one. No other leaf shares more of its
    /// first bits.
    fn nearest(&self, key: &Key) -> &Leaf {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf,
                Node::Inner(inner) => node = inner.side(bit_of(key, inner.bit)),
            }
        }
    }
}

/// Leaves in the order of their keys.
pub(crate) struct Leaves<'a> {
    stack: Vec<&'a Node>,
}

impl<'a> Iterator for Leaves<'a> {
    type Item = &'a Leaf;

    fn next(&mut self) -> Option<&'a Leaf> {
        let mut node = self.stack.pop()?;
        loop {
            match node {
                Node::Leaf(leaf) => return Some(leaf),
                Node::Inner(inner) => {
                    self.stack.push(&inner.right);
                    node = &inner.left;
                }
            }
        }
    }
}

fn plus(one: Amount, two: Amount) -> Amount {
    Amount(one.0.saturating_add(two.0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tally_types::{Height, Nonce};

    use super::*;
    use crate::account::{Account, NonceWindow};

    fn account(balance: u64) -> Record {
        let nonces = NonceWindow::default();
        Record::Account(Account { balance: Amount(balance), nonces, creator: None, created_height: Height(0) })
    }

    fn tree(leaves: &[(Key, u64)]) -> Tree {
        let mut leaves = leaves.iter().map(|(key, balance)| Leaf::new(*key, account(*balance)));
        let mut tree = Tree::new(leaves.next().unwrap());
        leaves.for_each(|leaf| {
            tree.put(leaf);
        });
        tree
    }

    /// Keys that share long prefixes, so that nodes of every depth occur.
    fn a_key() -> impl Strategy<Value = Key> {
        prop::collection::vec((0usize..264, any::<bool>()), 0..6).prop_map(|bits| {
            let mut key = [0; 33];
            for (bit, set) in bits {
                if set {
                    key[bit / 8] |= 0x80 >> (bit % 8);
                }
            }
            key
        })
    }

    /// The definition, from the sorted leaves, without a tree.
    fn naive(leaves: &[(Key, u64)]) -> (Amount, Hash) {
        if let [(key, balance)] = leaves {
            let mut value = Vec::new();
            account(*balance).write_value(&mut value);
            return (Amount(*balance), leaf_hash(key, Amount(*balance), &value));
        }
        let bit = (0..KEY_BITS).find(|bit| bit_of(&leaves[0].0, *bit) != bit_of(&leaves.last().unwrap().0, *bit));
        let (left, right) = leaves.split_at(leaves.partition_point(|(key, _)| !bit_of(key, bit.unwrap())));
        let (left, right) = (naive(left), naive(right));
        (Amount(left.0.0 + right.0.0), inner_hash(bit.unwrap(), left, right))
    }

    #[test]
    fn an_account_leaf_is_frozen() {
        let nonces = NonceWindow::default().with(Nonce(1)).with(Nonce(3));
        let creator = Some(tally_types::Address([0x22; 32]));
        let account = Account { balance: Amount(1_000_000), nonces, creator, created_height: Height(5) };
        let leaf = Leaf::new(crate::record::key(1, &[0x11; 32]), Record::Account(account));
        let bytes = [
            "00",
            "01",
            &"11".repeat(32),
            "00000000000f4240",
            "0000000000000003",
            "00000000000000000000000000000005",
            "01",
            &"22".repeat(32),
            "0000000000000005",
        ];
        assert_eq!(leaf.hash(), Hash::of(&hex::decode(bytes.concat()).unwrap()));
        assert_eq!(leaf.hash().to_string(), "5bbeb403cfdd7f19d6908e21f24f12cbed68a4b35a4e2e95b66fa165d322fab3");
    }

    #[test]
    fn a_clone_does_not_see_later_writes() {
        let first = tree(&[([0; 33], 1), ([1; 33], 2), ([2; 33], 3)]);
        let hash = first.hash();
        let mut second = first.clone();
        assert!(!second.put(Leaf::new([1; 33], account(7))));
        assert!(second.put(Leaf::new([3; 33], account(1))));
        assert_eq!((first.sum(), first.hash()), (Amount(6), hash));
        assert_eq!(second.sum(), Amount(12));
        assert_ne!(second.hash(), hash);
        assert_eq!(first.get(&[1; 33]), Some(&account(2)));
        assert_eq!(first.get(&[3; 33]), None);
    }

    #[test]
    fn a_sum_beyond_an_amount_never_looks_like_a_supply() {
        let over = tree(&[([0; 33], u64::MAX), ([1; 33], 2), ([2; 33], 3)]);
        assert_eq!(over.sum(), Amount(u64::MAX));
    }

    proptest! {
        #[test]
        fn the_tree_is_what_its_definition_says_in_any_order(
            writes in prop::collection::vec((a_key(), 0u64..1000), 1..40),
            probes in prop::collection::vec(a_key(), 10),
            turn in 0usize..40,
        ) {
            let model: BTreeMap<_, _> = writes.iter().copied().collect();
            let sorted: Vec<_> = model.iter().map(|(key, balance)| (*key, *balance)).collect();
            let mut turned = sorted.clone();
            turned.rotate_left(turn % sorted.len());
            for tree in [tree(&writes), tree(&turned)] {
                prop_assert_eq!((tree.sum(), tree.hash()), naive(&sorted));
                let keys: Vec<_> = tree.leaves().map(|leaf| leaf.key).collect();
                prop_assert_eq!(&keys, &model.keys().copied().collect::<Vec<_>>());
                for probe in probes.iter().chain(&keys) {
                    let expected = model.get(probe).map(|balance| account(*balance));
                    prop_assert_eq!(tree.get(probe), expected.as_ref());
                    let after: Vec<_> = tree.leaves_after(probe).map(|leaf| leaf.key).collect();
                    let expected: Vec<_> = keys.iter().copied().filter(|key| key > probe).collect();
                    prop_assert_eq!(after, expected);
                }
            }
        }

        #[test]
        fn hashes_that_were_kept_are_forgotten_on_the_way_to_a_write(
            writes in prop::collection::vec((a_key(), 0u64..1000), 2..40),
        ) {
            let mut hashed_often = tree(&writes[..1]);
            for (key, balance) in &writes[1..] {
                hashed_often.hash();
                hashed_often.put(Leaf::new(*key, account(*balance)));
            }
            prop_assert_eq!(hashed_often.hash(), tree(&writes).hash());
        }
    }
}
