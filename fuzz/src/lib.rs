//! What reaches Tally from outside, bent and broken: from clients, peers, files and people.
//!
//! A target takes any bytes. It panics where the code under it panics, and where one input means two things: what a strict
//! reader accepts must be written again as the same bytes, and a lax reader must read the same in it.
//!
//! Two ways to run it. `cargo test -p tally-fuzz` bends good inputs, on any toolchain, `FUZZ_RUNS` times per target, with no more
//! memory than is reasonable.
//! `cargo fuzz` (a C++ compiler; a nightly toolchain, or the stable one told to behave like it) looks for new paths through the code:
//! `cargo run -p tally-fuzz --example seeds` writes good inputs to `fuzz/corpus`, then
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run transaction --features libfuzzer -s none -- -timeout=1 -rss_limit_mb=2048`. With
//! `CARGO_PROFILE_RELEASE_LTO=off` in the environment they are built sooner.

pub mod bend;
mod chain;
mod files;
#[cfg(test)]
mod large;
mod people;
mod play;
mod replica;
mod wire;

/// One kind of input.
pub struct Target {
    /// Its name, and that of its cargo-fuzz target.
    pub name: &'static str,
    /// Does something with any bytes; panics where something is wrong.
    pub run: fn(&[u8]),
    /// Good inputs, to be bent.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All kinds of input.
pub const TARGETS: [Target; 17] = [
    Target { name: "address_and_amount", run: people::address_and_amount, seeds: people::texts },
    Target { name: "batch", run: wire::batch, seeds: wire::batches },
    Target { name: "blocks", run: wire::blocks, seeds: wire::ranges },
    Target { name: "certificate", run: wire::certificate, seeds: wire::certificates },
    Target { name: "config", run: files::config, seeds: files::configs },
    Target { name: "execute", run: tally_ledger::agree_on, seeds: chain::decisions },
    Target { name: "genesis", run: files::genesis, seeds: files::genesis_files },
    Target { name: "header", run: wire::header, seeds: wire::headers },
    Target { name: "journal", run: files::journal, seeds: files::journals },
    Target { name: "keystore", run: files::keystore, seeds: files::key_files },
    Target { name: "peer_message", run: wire::peer_message, seeds: wire::peer_messages },
    Target { name: "question", run: wire::question, seeds: wire::questions },
    Target { name: "record", run: wire::record, seeds: wire::records },
    Target { name: "replay", run: replica::replay, seeds: chain::decisions },
    Target { name: "replica", run: replica::replica, seeds: chain::decisions },
    Target { name: "snapshot", run: files::snapshot, seeds: files::snapshots },
    Target { name: "transaction", run: wire::transaction, seeds: wire::transactions },
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target {name}")).run)(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::{
        sync::atomic::Ordering,
        time::{Duration, Instant},
    };

    /// Runs per target, unless the environment says otherwise: seconds in all.
    const RUNS: u64 = 2000;
    /// The largest message between validators.
    const LARGE: usize = 1 << 20;
    /// No input may take longer; one is slow if it is each time it is tried, for a machine may have other things to do.
    const SLOW: Duration = Duration::from_secs(1);
    const TRIES: usize = 4;
    /// Bytes of address space that the process of these tests may take: what asks for more ends it.
    const MEMORY: u64 = 2 << 30;

    fn memory_is_bounded() {
        let most = rustix::process::getrlimit(rustix::process::Resource::As).maximum;
        let bound = rustix::process::Rlimit { current: Some(MEMORY.min(most.unwrap_or(MEMORY))), maximum: most };
        rustix::process::setrlimit(rustix::process::Resource::As, bound).unwrap();
        // A bound that binds nothing would pass everything.
        let asked = usize::try_from(MEMORY).unwrap();
        assert!(
            Vec::<u8>::new().try_reserve_exact(asked).is_err() || !cfg!(target_os = "linux"),
            "memory has no bound"
        );
    }

    fn try_on(target: &Target, input: &[u8], what: &str) {
        let mut took = Duration::MAX;
        for _ in 0..TRIES {
            let begun = Instant::now();
            let ran = std::panic::catch_unwind(|| (target.run)(input));
            assert!(ran.is_ok(), "{} fails on {what}", target.name);
            took = took.min(begun.elapsed());
            if took < SLOW {
                return;
            }
        }
        panic!("{} takes {took:?} for {what}", target.name);
    }

    #[test]
    fn nothing_bent_panics_or_means_two_things() {
        memory_is_bounded();
        let runs = std::env::var("FUZZ_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(RUNS);
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} has nothing to bend", target.name);
            seeds.iter().for_each(|seed| (target.run)(seed));
            for run in 0..runs {
                let input = bend::bend(&seeds, run);
                try_on(&target, &input, &hex::encode(&input));
            }
            println!("{}: {runs} runs from {} seeds", target.name, seeds.len());
        }
        let reached = &replica::REACHED;
        println!("{reached:?}");
        let all = [
            &reached.executed,
            &reached.epochs,
            &reached.whole_journals,
            &reached.bent_journals,
            &reached.executed_again,
        ];
        assert!(
            runs < RUNS || all.iter().all(|count| count.load(Ordering::Relaxed) > 0),
            "not deep enough: {reached:?}"
        );
    }

    /// The largest good ones; and any good input over and over until they are as large as a message may be: in protobuf, what is repeated comes that often. Also
    /// with a byte bent in each round, so that no two are the same.
    #[test]
    fn the_largest_inputs_take_no_longer_than_others() {
        memory_is_bounded();
        for (name, input) in large::inputs() {
            let target = TARGETS.into_iter().find(|target| target.name == name).unwrap();
            try_on(&target, &input, &format!("the largest there is, of {} bytes", input.len()));
        }
        for target in TARGETS {
            for (place, seed) in (target.seeds)().iter().filter(|seed| !seed.is_empty()).enumerate() {
                let mut large = seed.repeat(LARGE.div_ceil(seed.len()));
                large.truncate(LARGE);
                try_on(&target, &large, &format!("its seed {place} over and over"));
                for (round, at) in (0..LARGE).step_by(seed.len()).enumerate() {
                    let at = (at + round * 31 % seed.len()).min(LARGE - 1);
                    large[at] ^= 1 << (round % 8);
                }
                try_on(&target, &large, &format!("its seed {place} over and over, bent"));
            }
        }
    }

    #[test]
    fn every_target_has_its_file_for_cargo_fuzz() {
        for target in TARGETS {
            let path = format!("{}/fuzz_targets/{}.rs", env!("CARGO_MANIFEST_DIR"), target.name);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(&format!("run(\"{}\"", target.name)), "{path}");
        }
    }
}
