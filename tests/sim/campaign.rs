//! Many worlds, each drawn from its seed, and what they came to.
//!
//! `SIM_SEED=7` runs one seed, `SIM_FIRST` and `SIM_SEEDS` a range, `SIM_SHARD=1/4` every fourth of it from the second on.
//! `SIM_STOP=1` ends at the first seed that fails. `SIM_THREADS=1` leaves the other cores alone: a world has one thread, a campaign
//! as many as there are cores. A campaign of at least [`STANDARD`] seeds must hit every mark.

use std::{
    collections::BTreeMap,
    num::NonZero,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Mutex,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use crate::{clients::Load, marks::Marks, setup::Setup, trace, world::World};

/// Seeds of the standard campaign.
pub const STANDARD: u64 = 2000;
/// Seeds of a plain `cargo test`.
const PLAIN: u64 = 60;
/// How long after healing the live core may take for its ten blocks, milliseconds.
const PROGRESS_MS: u64 = 60_000;
/// One seed in so many is run twice.
const SEEN_TWICE: u64 = 50;
/// A world takes a tenth of a second or two.
const LONG: Duration = Duration::from_secs(120);
/// Lines of its trace that a failing seed shows.
pub const LINES_SHOWN: usize = 120;

/// Seeds to run, and which of them are this shard's.
struct Seeds {
    range: Range<u64>,
    shard: u64,
    shards: u64,
}

impl Seeds {
    fn from_environment(default: u64) -> Seeds {
        let text = |name: &str| std::env::var(name).ok();
        let read = |name: &str| text(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")));
        if let Some(seed) = read("SIM_SEED") {
            return Seeds { range: seed..seed + 1, shard: 0, shards: 1 };
        }
        let first = read("SIM_FIRST").unwrap_or(0);
        let range = first..first + read("SIM_SEEDS").unwrap_or(default);
        let (shard, shards) = shard_of("SIM_SHARD");
        Seeds { range, shard, shards }
    }

    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.range.clone().filter(|seed| seed % self.shards == self.shard)
    }
}

/// Which part of a campaign this process runs, of how many: 0 of 1 unless the variable `name` says "1/4".
pub fn shard_of(name: &str) -> (u64, u64) {
    let Ok(text) = std::env::var(name) else { return (0, 1) };
    let parts = text.split_once('/').and_then(|(one, of)| Some((one.parse().ok()?, of.parse().ok()?)));
    parts.filter(|(shard, shards)| shard < shards).unwrap_or_else(|| panic!("{name} is a shard of many, as in 0/4"))
}

/// Runs the world of `setup` through its faults, and to the progress that must follow.
pub fn pass(setup: Setup, reading: bool) -> World {
    let mut world = World::new(setup, reading);
    // What happens at the moment of healing is part of it: who is down is started again.
    world.run(world.setup.faults.heal_ms + 1);
    let down: Vec<_> =
        world.nodes.iter().filter(|node| node.correct && node.incarnation > 0 && node.machine.is_none()).collect();
    assert!(down.is_empty(), "{}: {} nodes stay down", world.name(), down.len());
    must_make_progress(&mut world);
    must_settle(&mut world);
    // Where epochs are short, one that lost its journal signs again before long. Idle blocks come once a second.
    let observes = |world: &World| world.live().iter().any(|node| world.status(*node).is_some_and(|at| !at.voting));
    let until = world.now + 4 * PROGRESS_MS;
    while world.setup.params.epoch_blocks < 100 && observes(&world) {
        assert!(world.now < until, "{}: one that lost its journal does not sign again", world.name());
        world.run(world.now + 1000);
    }
    world
}

/// From now on every live node finalises and executes ten more blocks within a simulated minute.
pub fn must_make_progress(world: &mut World) {
    let start = world.now;
    let goal = world.final_heights().into_iter().max().unwrap_or(0) + 10;
    while world.now < start + PROGRESS_MS {
        world.run(world.now + 1000);
        let heights = world.final_heights();
        let done = |node: &usize| heights[*node] >= goal && world.nodes[*node].blocks.len() as u64 >= goal;
        if world.live().iter().all(done) {
            return;
        }
    }
    let heights = world.final_heights();
    let states: Vec<_> = world.live().iter().map(|node| world.status(*node)).collect();
    let executed: Vec<_> = world.nodes.iter().map(|node| node.blocks.len()).collect();
    panic!("{}: stuck at {heights:?}, executed {executed:?}, since {start} ms, goal {goal}: {states:#?}", world.name());
}

/// Once clients are quiet, everything that a node took and could bring into a block is in one.
pub fn must_settle(world: &mut World) {
    world.setup.load = Load::none();
    let until = world.now + PROGRESS_MS;
    while world.owed() > 0 {
        assert!(world.now < until, "{}: {} transactions are never executed", world.name(), world.owed());
        world.run(world.now + 1000);
    }
}

/// Runs `setup`; if that fails, shows how to see it again and what came before.
pub fn pass_or_explain(setup: Setup) -> Option<World> {
    if let Ok(world) = catch_unwind(AssertUnwindSafe(|| pass(setup.clone(), false))) {
        return Some(world);
    }
    // The same seed again, this time with every line kept.
    let _ = catch_unwind(AssertUnwindSafe(|| pass(setup.clone(), true)));
    eprintln!("the end of its trace:");
    for line in trace::last_lines(LINES_SHOWN) {
        eprintln!("{line}");
    }
    eprintln!("{setup:?}");
    let seed = setup.seed;
    eprintln!("replay it whole: {}", replay(seed));
    None
}

/// The command that shows a seed again.
fn replay(seed: u64) -> String {
    format!("SIM_SEED={seed} SIM_TRACE=1 {} one_seed -- --nocapture", trace::command())
}

/// Seconds of processor time this process has used: on a shared machine the only fair measure of speed.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything, in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// What the worlds of a campaign came to.
#[derive(Default)]
struct Outcome {
    worlds: u64,
    events: u64,
    /// Of all that happened, in whatever order the worlds ended.
    digest: u64,
    marks: Marks,
    failed: Vec<u64>,
}

#[test]
fn storms_pass() {
    let seeds = Seeds::from_environment(PLAIN);
    let stop = std::env::var_os("SIM_STOP").is_some();
    let threads = std::env::var("SIM_THREADS").map_or_else(
        |_| thread::available_parallelism().map_or(1, NonZero::get),
        |text| text.parse().map(NonZero::get).expect("SIM_THREADS is a number above 0"),
    );
    let (begun, spent) = (Instant::now(), processor_seconds());
    let waiting = Mutex::new(seeds.iter());
    let outcome = Mutex::new(Outcome::default());
    // In the head of the loop the lock would be held for as long as the world runs.
    let next = || waiting.lock().unwrap().next();
    let running = Mutex::new(BTreeMap::new());
    let run = || {
        while let Some(seed) = next() {
            running.lock().unwrap().insert(seed, Instant::now());
            let passed =
                pass_or_explain(Setup::drawn(seed)).map(|world| (world.trace.history, world.events, world.marks));
            // A seed is worth something only as long as it means one world.
            let passed = passed.filter(|(history, events, _)| {
                let twice = !(seed / seeds.shards).is_multiple_of(SEEN_TWICE)
                    || pass_or_explain(Setup::drawn(seed))
                        .is_some_and(|again| (again.trace.history, again.events) == (*history, *events));
                if !twice {
                    eprintln!("seed {seed} is two worlds: {}", replay(seed));
                }
                twice
            });
            running.lock().unwrap().remove(&seed);
            let mut outcome = outcome.lock().unwrap();
            outcome.worlds += 1;
            match passed {
                Some((history, events, marks)) => {
                    outcome.events += events;
                    outcome.digest ^= history;
                    outcome.marks.add(&marks);
                }
                None => outcome.failed.push(seed),
            }
            if stop && !outcome.failed.is_empty() {
                break;
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        // A world that does not end, or ends the process, is named before.
        while !workers.iter().all(ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(20));
            let mut running = running.lock().unwrap();
            for (seed, _) in running.extract_if(.., |_, since| since.elapsed() > LONG) {
                eprintln!("seed {seed} has been running for {LONG:?}: {}", replay(seed));
            }
        }
    });
    let Outcome { mut worlds, events, digest, marks, mut failed } = outcome.into_inner().unwrap();
    failed.sort_unstable();
    if let Some(first) = failed.first().filter(|_| stop) {
        // Seeds are given out in order: what other threads had begun by then is not what it took.
        worlds = seeds.iter().take_while(|seed| seed <= first).count() as u64;
    }
    let (seconds, spent) = (begun.elapsed().as_secs_f64(), processor_seconds() - spent);
    println!("{worlds} seeds from {}: {events} events in {seconds:.1} s", seeds.range.start);
    println!("{digest:016x} is the digest of all that happened");
    println!("{spent:.1} s of processor time, {:.0} events per second of it", events as f64 / spent.max(0.01));
    let counts = marks.counts();
    for (what, count) in &counts {
        println!("{count:>12} {what}");
    }
    assert!(failed.is_empty(), "these seeds fail: {failed:?}");
    if worlds >= STANDARD {
        let never: Vec<_> = counts.iter().filter(|(_, count)| *count == 0).map(|(what, _)| what).collect();
        assert!(never.is_empty(), "never hit: {never:?}");
    }
}

/// One seed, with its whole trace where `SIM_TRACE` is set.
#[test]
fn one_seed() {
    let seed = Seeds::from_environment(1).range.start;
    let reading = std::env::var_os("SIM_TRACE").is_some();
    let outcome = catch_unwind(AssertUnwindSafe(|| pass(Setup::drawn(seed), reading)));
    for line in trace::last_lines(usize::MAX) {
        println!("{line}");
    }
    match outcome {
        Ok(world) => println!("{:?}\n{} events", world.setup, world.events),
        Err(failed) => resume_unwind(failed),
    }
}

#[test]
fn equal_seeds_give_equal_traces() {
    for seed in 0..20 {
        let run = |seed, reading| {
            let world = pass(Setup::drawn(seed), reading);
            (world.trace.history, world.events, trace::last_lines(usize::MAX))
        };
        let (history, events, lines) = run(seed, true);
        assert!(lines.len() > 10);
        assert_eq!((history, events, lines), run(seed, true), "seed {seed}");
        assert_eq!((history, events), (run(seed, false).0, run(seed, false).1), "seed {seed}: reading changes it");
        assert_ne!(history, run(seed + 1, false).0);
    }
}
