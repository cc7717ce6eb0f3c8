//! Blocks as the agreement knows them: by hash, and by what their parent is.
//!
//! A hash here *is* its chain: a marker byte, then one byte for each block from genesis on. Parent, height and "is an
//! ancestor of" are read off the bytes, so the model keeps no tree, and two different blocks never share a hash.

use tally_types::{Epoch, Hash, View};

/// Which of the two blocks with one view and one parent.
pub type Value = u8;

/// Longest chain a hash has room for.
pub const HEIGHT_MAX: u64 = 31;

/// Views a hash has room for.
pub const VIEW_MAX: u64 = 31;

/// The block epoch 0 starts from.
pub const GENESIS: Hash = {
    let mut bytes = [0; 32];
    bytes[0] = 0xff;
    Hash(bytes)
};

/// The block of `view` with `value` on top of `parent`.
pub fn child(parent: &Hash, epoch: Epoch, view: View, value: Value) -> Hash {
    assert!(epoch.0 < 4 && (1..=VIEW_MAX).contains(&view.0) && value < 2, "the byte of a block has no room");
    let mut bytes = parent.0;
    // Never zero: views begin with 1.
    bytes[height(parent) as usize + 1] = (epoch.0 << 6 | view.0 << 1) as u8 | value;
    Hash(bytes)
}

/// Blocks below it; genesis has none.
pub fn height(block: &Hash) -> u64 {
    block.0.iter().skip(1).take_while(|byte| **byte != 0).count() as u64
}

/// Epoch of the block; genesis counts as of epoch 0.
pub fn epoch(block: &Hash) -> Epoch {
    Epoch(u64::from(last_byte(block) >> 6) * u64::from(*block != GENESIS))
}

/// The block of the same view and parent with value 0.
pub fn twin(block: &Hash) -> Hash {
    let mut bytes = block.0;
    bytes[height(block) as usize] &= !1;
    Hash(bytes)
}

/// Whether one of the two is an ancestor of the other, or they are the same.
pub fn on_one_chain(one: &Hash, two: &Hash) -> bool {
    let common = height(one).min(height(two)) as usize + 1;
    one.0[..common] == two.0[..common]
}

/// The block as a trace shows it: `genesis/e0v1a/e0v2b`.
pub fn name(block: &Hash) -> String {
    let mut name = String::from("genesis");
    for byte in block.0.iter().skip(1).take_while(|byte| **byte != 0) {
        let value = if byte & 1 == 0 { 'a' } else { 'b' };
        name += &format!("/e{}v{}{value}", byte >> 6, byte >> 1 & 31);
    }
    name
}

fn last_byte(block: &Hash) -> u8 {
    block.0[height(block) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_its_chain() {
        let a = child(&GENESIS, Epoch(0), View(1), 0);
        let b = child(&GENESIS, Epoch(0), View(1), 1);
        let c = child(&b, Epoch(1), View(3), 0);
        assert_eq!([height(&GENESIS), height(&a), height(&c)], [0, 1, 2]);
        assert_eq!([epoch(&GENESIS), epoch(&b), epoch(&c)], [Epoch(0), Epoch(0), Epoch(1)]);
        assert_eq!(twin(&b), a);
        assert!(on_one_chain(&b, &c) && on_one_chain(&GENESIS, &c) && !on_one_chain(&a, &c) && !on_one_chain(&a, &b));
        assert_eq!(name(&c), "genesis/e0v1b/e1v3a");
    }
}
