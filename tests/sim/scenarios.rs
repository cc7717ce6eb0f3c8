//! Worlds made for one question each.

use tally_consensus::Voting;

use crate::{
    campaign::must_make_progress,
    clients::Load,
    node::Stop,
    setup::{Faults, Setup},
    world::World,
};

fn calm(seed: u64, n: usize) -> World {
    World::new(Setup::calm(seed, n), false)
}

#[test]
fn four_calm_validators_order_everything_they_are_given() {
    for seed in 0..5 {
        let mut world = calm(seed, 4);
        world.run(30_000);
        world.setup.load = Load::none();
        world.run(33_000);
        let heights = world.final_heights();
        assert!(heights.iter().all(|height| *height > 100), "{heights:?}");
        let (executed, admitted) = (world.checkers.executed.len(), world.clients.admitted.len());
        assert_eq!(executed, admitted, "seed {seed}: {} submitted", world.clients.submitted);
        assert!(world.checkers.evidence.is_empty());
    }
}

#[test]
fn one_validator_alone_orders_everything() {
    let mut world = calm(1, 1);
    world.run(10_000);
    assert!(world.final_heights()[0] > 50, "{:?}", world.final_heights());
}

#[test]
fn an_idle_network_is_quiet_and_still_goes_on() {
    let mut world = World::new(Setup { load: Load::none(), ..Setup::calm(1, 4) }, false);
    world.run(60_000);
    let heights = world.final_heights();
    assert!(heights.iter().all(|height| (20..=40).contains(height)), "{heights:?}");
    assert!(world.events < 12_000, "{} events", world.events);
}

#[test]
fn one_of_four_may_be_gone() {
    let faults = Faults { down: 1, ..Faults::none() };
    let mut world = World::new(Setup { faults, ..Setup::calm(2, 4) }, false);
    world.run(30_000);
    must_make_progress(&mut world);
}

#[test]
fn with_two_of_four_gone_nothing_becomes_final_and_nothing_is_lost() {
    let mut world = calm(2, 4);
    world.run(5000);
    let before = world.final_heights();
    world.stop(2, Stop::PowerCut);
    world.stop(3, Stop::PowerCut);
    world.run(6000);
    let stopped = world.final_heights();
    world.run(40_000);
    assert_eq!(world.final_heights(), stopped);
    assert!(stopped[0] >= before[0]);
    world.start(2, Voting::Allowed);
    must_make_progress(&mut world);
}

#[test]
fn a_validator_far_behind_inside_an_epoch_catches_up() {
    let mut setup = Setup::calm(5, 4);
    setup.params.epoch_blocks = 1000;
    let mut world = World::new(setup, false);
    world.run(2000);
    world.stop(3, Stop::PowerCut);
    // More blocks than one answer holds.
    world.run(25_000);
    let others = world.final_heights()[0];
    assert!(others > 150, "{others}");
    world.start(3, Voting::Allowed);
    must_make_progress(&mut world);
}

#[test]
fn a_validator_without_its_journal_follows_and_signs_two_epochs_later() {
    let mut world = calm(6, 4);
    world.run(4000);
    world.stop(2, Stop::PowerCut);
    world.nodes[2].lose_disk();
    world.observe_from_now(2);
    world.start(2, Voting::From(None));
    // It goes down again before it may sign, at once and later: each start finds a journal and must still not sign.
    world.stop(2, Stop::PowerCut);
    world.start(2, Voting::Allowed);
    assert!(!world.status(2).unwrap().voting);
    world.run(4500);
    world.stop(2, Stop::PowerCut);
    world.start(2, Voting::Allowed);
    assert!(!world.status(2).unwrap().voting);
    world.run(40_000);
    assert!(world.status(2).unwrap().voting, "it never signs again");
    must_make_progress(&mut world);
    assert!(world.checkers.evidence.is_empty());
}
