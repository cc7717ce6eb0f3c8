//! The suite detects: with enough Byzantine stake there are forks, and the checkers report them; with less there are none.

use tally_consensus::Voting;

use crate::{byzantine::Kind, checkers::Violation, node::Stop, setup::Setup, world::World};

/// Every Byzantine validator runs twice with one key, one of each pair on either side of a partition that also divides
/// the honest ones. Whether the chain forks then is a question of stake alone.
fn divided_by_twins(seed: u64, stakes: &[u64], twins: &[usize]) -> World {
    let byzantine = twins.iter().map(|place| (*place, Kind::Twins)).collect();
    let setup = Setup { stakes: stakes.to_vec(), byzantine, tolerant: true, ..Setup::calm(seed, stakes.len()) };
    let mut world = World::new(setup, false);
    let (validators, twins) = (stakes.len(), twins.to_vec());
    let side = move |node: usize| {
        if node >= validators { true } else { !twins.contains(&node) && node.is_multiple_of(2) }
    };
    world.cut_where(|one, two| side(one) != side(two));
    world.run(20_000);
    world
}

fn forks(world: &World) -> usize {
    world.checkers.violations.iter().filter(|(violation, _)| *violation == Violation::Fork).count()
}

#[test]
fn above_a_third_of_byzantine_stake_the_chain_forks_and_the_checkers_say_so() {
    for (stakes, twins) in [
        (&[1, 1, 1, 1][..], &[2, 3][..]),
        // The honest sides have two each, and three twins make either a quorum of seven.
        (&[1, 1, 1, 1, 1, 1, 1], &[4, 5, 6]),
        // Just above a third: 34 of 100 and 33 are a quorum of 67.
        (&[33, 33, 34], &[2]),
        // By stake, not by head: one validator is enough.
        (&[2, 2, 3], &[2]),
    ] {
        for seed in 0..3 {
            let world = divided_by_twins(seed, stakes, twins);
            assert!(forks(&world) > 0, "seed {seed}: {stakes:?} does not fork: {:?}", world.final_heights());
            let wrong =
                |violation: &Violation| !matches!(violation, Violation::Fork | Violation::Roots | Violation::RanTwice);
            assert!(!world.checkers.violations.iter().any(|(violation, _)| wrong(violation)));
        }
    }
}

#[test]
fn below_a_third_the_same_attack_makes_no_fork() {
    for (stakes, twins) in [
        (&[1, 1, 1, 1][..], &[3][..]),
        (&[1, 1, 1, 1, 1, 1, 1], &[5, 6]),
        (&[3, 3, 2, 2], &[0]),
        // Just below a third.
        (&[34, 33, 33], &[1]),
    ] {
        for seed in 0..3 {
            let mut world = divided_by_twins(seed, stakes, twins);
            world.cut.clear();
            world.run(40_000);
            assert!(world.checkers.violations.is_empty(), "seed {seed}: {:?}", world.checkers.violations);
        }
    }
}

/// A quorum is more than two thirds: with exactly a third against them the others may stand still, but never disagree.
#[test]
fn exactly_a_third_makes_no_fork() {
    for (stakes, twins) in [(&[1, 1, 1][..], &[2][..]), (&[1, 1, 1, 1, 1, 1], &[4, 5]), (&[2, 3, 1, 3], &[3])] {
        for seed in 0..3 {
            let world = divided_by_twins(seed, stakes, twins);
            assert!(world.checkers.violations.is_empty(), "seed {seed}: {:?}", world.checkers.violations);
        }
    }
}

/// The other checkers report as well: an honest validator that votes on with an empty journal signs things twice.
#[test]
fn a_validator_that_forgot_what_it_signed_is_reported() {
    let mut setup = Setup { tolerant: true, ..Setup::calm(1, 4) };
    setup.params.epoch_blocks = 1000;
    let mut world = World::new(setup, false);
    world.run(5000);
    world.stop(0, Stop::PowerCut);
    world.nodes[0].lose_disk();
    world.observe_from_now(0);
    world.start(0, Voting::Allowed);
    world.run(20_000);
    let seen: Vec<_> = world.checkers.violations.iter().map(|(violation, _)| *violation).collect();
    assert!(seen.contains(&Violation::SignedTwice), "{seen:?}");
    assert!(seen.contains(&Violation::SignedTooEarly), "{seen:?}");
}
