//! Seeds that once failed, by what was wrong.

use crate::{campaign::pass_or_explain, setup::Setup};

fn seed(seed: u64) {
    assert!(pass_or_explain(Setup::drawn(seed)).is_some(), "seed {seed} fails again");
}

#[test]
fn the_first_seed_passes() {
    seed(0);
}
