//! Checks one configuration and says how far it came.

use std::{
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use stateright::{Checker, HasDiscoveries, Model};
use tally_model::{
    config::{Config, NAMES},
    mutant::Mutant,
    world::{REACHED, World},
};

/// Model check of Tally's agreement core.
#[derive(Parser)]
struct Arguments {
    /// Which configuration.
    #[arg(long, default_value = "equal")]
    config: String,
    /// What is wrong on purpose.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Stop after this many unique states.
    #[arg(long, default_value_t = usize::MAX)]
    states: usize,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Depth first: far less memory, but counterexamples are not short.
    #[arg(long)]
    deep: bool,
    /// List the configurations.
    #[arg(long)]
    list: bool,
    /// Change the configuration: highest view of each epoch.
    #[arg(long, value_delimiter = ',')]
    views: Vec<u64>,
    /// Change the configuration: crashes.
    #[arg(long)]
    crashes: Option<u8>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for (name, text) in NAMES {
            println!("{name:16} {text}");
        }
        return ExitCode::SUCCESS;
    }
    let Some(mut config) = Config::named(&arguments.config) else {
        eprintln!("There is no configuration {:?}; --list shows them.", arguments.config);
        return ExitCode::FAILURE;
    };
    config.mutant = arguments.mutant;
    if !arguments.views.is_empty() {
        config.views = arguments.views.clone().leak();
    }
    config.crashes = arguments.crashes.unwrap_or(config.crashes);
    run(config, &arguments)
}

fn run(config: Config, arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let builder = World::new(config).checker().threads(arguments.threads).finish_when(HasDiscoveries::AnyFailures);
    match arguments.deep {
        true => watch(builder.spawn_dfs(), arguments.states, started),
        false => watch(builder.spawn_bfs(), arguments.states, started),
    }
}

fn watch(checker: impl Checker<World>, most: usize, started: Instant) -> ExitCode {
    let mut printed = Instant::now();
    while !checker.is_done() && checker.unique_state_count() < most {
        std::thread::sleep(Duration::from_millis(100));
        if printed.elapsed() > Duration::from_secs(10) {
            printed = Instant::now();
            print(&checker, started);
        }
    }
    print(&checker, started);
    let exhausted = checker.is_done();
    let mut failed = false;
    for (name, path) in checker.discoveries() {
        let wanted = REACHED.contains(&name);
        failed |= !wanted;
        println!(
            "{} after {} steps: {name}",
            if wanted { "reached" } else { "BROKEN" },
            path.clone().into_actions().len()
        );
        if !wanted {
            let mut last = None;
            for (state, action) in path.into_vec() {
                if let Some(action) = action {
                    println!("  {}", checker.model().describe(&state, &action));
                }
                last = Some(state);
            }
            println!("  {last:?}");
        }
    }
    let verdict = match (failed, exhausted) {
        (true, _) => "a counterexample",
        (false, true) => "exhausted, no counterexample",
        (false, false) => "stopped, no counterexample",
    };
    println!("{verdict}");
    let _ = std::io::stdout().flush();
    // Threads of an unfinished search are not waited for.
    std::process::exit(i32::from(failed));
}

fn print<C: Checker<World>>(checker: &C, started: Instant) {
    let met: Vec<String> = checker.model().met().iter().map(|(name, count)| format!("{count} {name}")).collect();
    println!(
        "{} s: {} unique states of {} generated, depth {}; {}",
        started.elapsed().as_secs(),
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        met.join(", "),
    );
}
