//! How long `tally-wallet` takes to start, as a ratio to `true`: `cargo bench --bench startup`.
//!
//! The two take turns, so that whatever else the machine does falls on both. Medians of [`ROUNDS`] runs.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const ROUNDS: usize = 200;

/// One run of a command, from its start to its end.
fn run(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("the command can be run").success(), "{command:?} failed");
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    println!("{:24} {:>9} {:>9} {:>7}", "command", "median", "true", "ratio");
    for arguments in [&["--version"][..], &["keys", "list"], &["config", "show"], &["send", "--help"]] {
        let (mut wallet, mut nothing) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tally-wallet"));
            wallet.push(run(command.args(arguments).env("TALLY_CONFIG_DIR", folder.path())));
            nothing.push(run(&mut Command::new("true")));
        }
        let (wallet, nothing) = (median(wallet), median(nothing));
        let ratio = wallet.as_secs_f64() / nothing.as_secs_f64();
        println!("{:24} {:>6.2} ms {:>6.2} ms {ratio:>7.2}", arguments.join(" "), millis(wallet), millis(nothing));
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
