//! Runs of the world.

use tally_types::Params;

use crate::{
    rng::Rng,
    world::{Faults, Setup, World},
};

fn seeds(default: u64) -> std::ops::Range<u64> {
    let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match read("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = read("SIM_FIRST").unwrap_or(0);
            first..first + read("SIM_SEEDS").unwrap_or(default)
        }
    }
}

/// After healing, every live node finalises ten more blocks within a simulated minute.
fn must_make_progress(world: &mut World) {
    let seed = world.setup.seed;
    let before = world.final_heights().into_iter().max().unwrap_or(0);
    let start = world.now;
    let goal = before + 10;
    let live: Vec<usize> = world.live().collect();
    for _ in 0..60 {
        world.run(world.now + 1000);
        let heights = world.final_heights();
        if live.iter().all(|node| heights[*node] >= goal) {
            return;
        }
    }
    let heights = world.final_heights();
    let states: Vec<_> =
        live.iter().map(|node| world.nodes[*node].machine.as_ref().map(|machine| machine.status())).collect();
    panic!("seed {seed}: stuck at {heights:?} since {start} ms, goal {goal}: {states:#?}");
}

#[test]
fn four_calm_validators_order_everything_they_are_given() {
    for seed in 0..5 {
        let mut world = World::new(Setup::calm(seed, 4));
        world.run(30_000);
        world.setup.load = 1;
        world.run(33_000);
        let heights = world.final_heights();
        assert!(heights.iter().all(|height| *height > 100), "{heights:?}");
        let (executed, submitted) = (world.executed_count(), world.submitted);
        assert!(executed + 3 > submitted, "seed {seed}: {executed} of {submitted}");
        assert!(world.evidence.is_empty());
    }
}

#[test]
fn one_validator_alone_orders_everything() {
    let mut world = World::new(Setup::calm(1, 1));
    world.run(10_000);
    assert!(world.final_heights()[0] > 50, "{:?}", world.final_heights());
}

#[test]
fn an_idle_network_is_quiet_and_still_goes_on() {
    let mut world = World::new(Setup { load: 0, ..Setup::calm(1, 4) });
    world.run(60_000);
    let heights = world.final_heights();
    assert!(heights.iter().all(|height| (20..=40).contains(height)), "{heights:?}");
    assert!(world.events < 12_000, "{} events", world.events);
}

#[test]
fn equal_seeds_give_equal_histories() {
    let run = |seed| {
        let mut world = World::new(stormy(seed));
        world.run(20_000);
        world.history
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn one_of_four_may_be_gone() {
    let faults = Faults { down: 1, ..Faults::none() };
    let mut world = World::new(Setup { faults, ..Setup::calm(2, 4) });
    world.run(30_000);
    must_make_progress(&mut world);
}

#[test]
fn with_two_of_four_gone_nothing_becomes_final_and_nothing_is_lost() {
    let mut world = World::new(Setup::calm(2, 4));
    world.run(5000);
    let before = world.final_heights();
    world.crash(2);
    world.crash(3);
    world.run(6000);
    let stopped = world.final_heights();
    world.run(40_000);
    assert_eq!(world.final_heights(), stopped);
    assert!(stopped[0] >= before[0]);
    world.start(2, tally_consensus::Voting::Allowed);
    must_make_progress(&mut world);
}

/// A world drawn from its seed: size, stakes, loss, delay, partitions, crashes.
fn stormy(seed: u64) -> Setup {
    let mut rng = Rng::new(seed.wrapping_mul(7919));
    let n = 1 + rng.below(7) as usize;
    let skewed = rng.percent(30);
    let stakes = (0..n).map(|_| if skewed { 1 + rng.below(10) } else { 1 }).collect();
    let faults = Faults {
        loss: rng.below(40),
        duplicates: rng.below(50),
        delay_ms: [5, 50, 500, 10_000][rng.below(4) as usize],
        crashes: [0, 1, 5, 20][rng.below(4) as usize],
        partitions: rng.percent(50),
        heal_ms: 40_000,
        down: 0,
    };
    let params = Params {
        // Long ones too: catching up inside an epoch is another thing than across its end.
        epoch_blocks: if rng.percent(50) { 16 + rng.below(20) } else { 1000 },
        execution_window: 4 + rng.below(8),
        idle_interval_ms: 1000,
        view_timeout_ms: 300,
        ..Params::default()
    };
    Setup { seed, stakes, params, load: [0, 5, 50][rng.below(3) as usize], faults }
}

#[test]
fn a_validator_far_behind_inside_an_epoch_catches_up() {
    let mut setup = Setup::calm(5, 4);
    setup.params.epoch_blocks = 1000;
    let mut world = World::new(setup);
    world.run(2000);
    world.crash(3);
    // More blocks than one answer holds.
    world.run(25_000);
    let others = world.final_heights()[0];
    assert!(others > 150, "{others}");
    world.start(3, tally_consensus::Voting::Allowed);
    must_make_progress(&mut world);
}

#[test]
fn a_validator_without_its_journal_follows_and_signs_two_epochs_later() {
    let mut world = World::new(Setup::calm(6, 4));
    world.run(4000);
    world.crash(2);
    world.nodes[2].disk = tally_node::store::sim_disk::SimDisk::new();
    let wiped_in = world.nodes[0].machine.as_ref().unwrap().status().epoch;
    world.forbid_signing(2, wiped_in.plus(1));
    world.start(2, tally_consensus::Voting::From(None));
    // It goes down again before it may sign, at once and later: each start finds a journal and must still not sign.
    world.crash(2);
    world.start(2, tally_consensus::Voting::Allowed);
    assert!(!world.nodes[2].machine.as_ref().unwrap().status().voting);
    world.run(4500);
    world.crash(2);
    world.start(2, tally_consensus::Voting::Allowed);
    assert!(!world.nodes[2].machine.as_ref().unwrap().status().voting);
    world.run(40_000);
    assert!(world.nodes[2].machine.as_ref().unwrap().status().voting, "it never signs again");
    must_make_progress(&mut world);
    assert!(world.evidence.is_empty());
}

#[test]
fn storms_pass() {
    for seed in seeds(24) {
        let mut world = World::new(stormy(seed));
        world.run(world.setup.faults.heal_ms + 25_000);
        must_make_progress(&mut world);
        assert!(world.evidence.is_empty(), "seed {seed}: honest validators convicted: {:?}", world.evidence);
    }
}

#[test]
fn one_seed() {
    let seed = seeds(1).start;
    let mut world = World::new(stormy(seed));
    eprintln!("{:?}", world.setup);
    world.run(world.setup.faults.heal_ms + 25_000);
    must_make_progress(&mut world);
    eprintln!("{} events, {} executed of {}", world.events, world.executed_count(), world.submitted);
}
