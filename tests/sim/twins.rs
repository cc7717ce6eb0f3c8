//! Twins, every scenario of a kind: one of four validators runs twice with one key, and in each of the first views the network
//! is divided in some way (Bano et al., "Twins: BFT Systems Made Robust", arXiv 2004.10617).
//!
//! A scenario is a number: which validator has the twin, who leads (by one of four geneses), and for each of four views one of
//! the sixteen ways to divide five nodes in two. For a while, longer than a view's timeouts, what is said in that view arrives
//! only on the speaker's side: so some prepare, commit or give up, and others hear nothing of it. No honest node may disagree
//! with another, and all must go on.
//!
//! `TWINS_EVERY=1` runs all of them, `TWINS_SHARD=1/4` every fourth of those from the second on.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

use tally_types::Genesis;

use crate::{
    byzantine::Kind,
    campaign::{LINES_SHOWN, shard_of},
    clients::Load,
    network::Division,
    setup::{Faults, Setup},
    trace,
    world::World,
};

const VALIDATORS: usize = 4;
const GENESES: u64 = 4;
/// Views in which the network may be divided.
const VIEWS: u32 = 4;
/// How long a view is divided: several of its timeouts.
const DIVIDED_MS: u64 = 200;
/// Ways to divide five nodes in two; the first node's side is the first.
const DIVISIONS: u64 = 1 << VALIDATORS;
const SCENARIOS: u64 = VALIDATORS as u64 * GENESES * DIVISIONS.pow(VIEWS);
/// A plain `cargo test` runs one in so many: a prime, so that all parts of a scenario vary.
const EVERY: u64 = 1009;

#[derive(Debug)]
struct Scenario {
    number: u64,
    twin: usize,
    genesis: u64,
    /// Per view: bit n is the side of node n+1.
    divisions: [u64; VIEWS as usize],
}

impl Scenario {
    fn new(number: u64) -> Scenario {
        let mut rest = number;
        let mut digit = |base: u64| {
            let digit = rest % base;
            rest /= base;
            digit
        };
        Scenario {
            number,
            twin: digit(VALIDATORS as u64) as usize,
            genesis: digit(GENESES),
            divisions: std::array::from_fn(|_| digit(DIVISIONS)),
        }
    }

    fn setup(&self) -> Setup {
        let mut setup = Setup {
            byzantine: vec![(self.twin, Kind::Twins)],
            // Clocks are off for as long as the world lasts.
            faults: Faults { heal_ms: u64::MAX, ..Faults::none() },
            load: Load::payments(20),
            ..Setup::calm(self.number, VALIDATORS)
        };
        setup.params.epoch_blocks = 1000;
        setup.params.view_timeout_ms = 60;
        setup.params.idle_interval_ms = 20;
        // Other bytes, so another draw of leaders.
        setup.params.max_expiry_ms -= self.genesis;
        setup
    }

    fn run(&self, genesis: &Arc<Genesis>, reading: bool) -> World {
        let mut world = World::on(genesis.clone(), self.setup(), reading);
        // Two that lead with one key say different things only if their clocks differ.
        world.nodes[VALIDATORS].clock.skew_ms = 3;
        let division = |sides| Division { sides: (sides << 1) as u32, lasts_ms: DIVIDED_MS, until: None };
        world.divisions = self.divisions.map(division).to_vec();
        let goal = 4;
        while world.live().iter().any(|node| world.final_heights()[*node] < goal) {
            assert!(world.now < 60_000, "{self:?}: stuck at {:?}", world.final_heights());
            world.run(world.now + 50);
        }
        world
    }

    /// Runs it; if that fails, shows what came before and how to see it again.
    fn run_or_explain(&self, genesis: &Arc<Genesis>) -> World {
        catch_unwind(AssertUnwindSafe(|| self.run(genesis, false))).unwrap_or_else(|failed| {
            let _ = catch_unwind(AssertUnwindSafe(|| self.run(genesis, true)));
            trace::last_lines(LINES_SHOWN).iter().for_each(|line| eprintln!("{line}"));
            let number = self.number;
            eprintln!(
                "replay it whole: TWINS_SCENARIO={number} cargo test --release --test sim one_scenario -- --nocapture"
            );
            resume_unwind(failed)
        })
    }
}

/// One scenario, `TWINS_SCENARIO`, with its whole trace.
#[test]
fn one_scenario() {
    let number = std::env::var("TWINS_SCENARIO").map_or(0, |text| text.parse().expect("TWINS_SCENARIO is a number"));
    let scenario = Scenario::new(number);
    let world = catch_unwind(AssertUnwindSafe(|| scenario.run(&Arc::new(scenario.setup().genesis()), true)));
    trace::last_lines(usize::MAX).iter().for_each(|line| println!("{line}"));
    if let Err(failed) = world {
        resume_unwind(failed);
    }
}

#[test]
fn no_twin_divides_four_validators() {
    let every = std::env::var("TWINS_EVERY").map_or(EVERY, |text| text.parse().expect("TWINS_EVERY is a number"));
    let (shard, shards) = shard_of("TWINS_SHARD");
    let geneses: Vec<_> =
        (0..GENESES).map(|genesis| Arc::new(Scenario { genesis, ..Scenario::new(0) }.setup().genesis())).collect();
    let (mut scenarios, mut events, mut convicted) = (0u64, 0, 0u64);
    for number in (0..SCENARIOS).step_by(every as usize).skip(shard as usize).step_by(shards as usize) {
        let scenario = Scenario::new(number);
        let world = scenario.run_or_explain(&geneses[scenario.genesis as usize]);
        scenarios += 1;
        events += world.events;
        convicted += u64::from(!world.checkers.evidence.is_empty());
    }
    println!("{scenarios} of {SCENARIOS} scenarios, {events} events; in {convicted} the twins were convicted");
    assert!(convicted * 10 > scenarios, "in most scenarios the twins never disagree: {convicted} of {scenarios}");
}
