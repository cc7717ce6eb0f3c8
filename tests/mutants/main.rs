//! Plausible mistakes, and whether the simulated worlds find them.
//!
//! ```sh
//! cargo run --example mutants              # every mutant: builds and runs each, 17 minutes on two fast cores
//! cargo run --example mutants -- fee-burnt # some
//! ```
//!
//! `list.toml` has them, as changes of source: production code has no switches. Each is built in a copy of the tree under
//! `target/mutants` and given to a test of `tests/sim`, which has to fail within [`SEEDS_MAX`] seeds. `cargo test` checks that
//! the list fits the source and that docs/testing.md says what became of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use serde::Deserialize;

/// Seeds within which a mutant must die.
const SEEDS_MAX: u64 = 10_000;
/// A run that takes longer has not found its mutant.
const RUN_MAX: Duration = Duration::from_secs(30 * 60);
/// The version of the project, and of mutants.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const MUTANT: &str = "version = \"0.0.0-mutant\"\n";
/// The test that runs drawn worlds.
const STORMS: &str = "storms_pass";

#[derive(Deserialize)]
struct List {
    mutant: Vec<Mutant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    /// What it breaks.
    rule: String,
    file: String,
    old: String,
    new: String,
    /// The test of `tests/sim` that must fail.
    #[serde(default = "storms")]
    run: String,
    /// Further changes, in the same file unless they say otherwise.
    #[serde(default)]
    also: Vec<Change>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    file: Option<String>,
    old: String,
    new: String,
}

fn storms() -> String {
    STORMS.into()
}

impl Mutant {
    /// The files it changes, as they become.
    fn sources(&self, root: &Path) -> Result<BTreeMap<PathBuf, String>, String> {
        let first = Change { file: None, old: self.old.clone(), new: self.new.clone() };
        let mut sources = BTreeMap::new();
        for change in std::iter::once(&first).chain(&self.also) {
            let path = PathBuf::from(change.file.as_ref().unwrap_or(&self.file));
            if !sources.contains_key(&path) {
                let text = fs::read_to_string(root.join(&path))
                    .map_err(|error| format!("{}: {}: {error}", self.name, path.display()))?;
                sources.insert(path.clone(), text);
            }
            let text = &sources[&path];
            match text.matches(&change.old).count() {
                1 => sources.insert(path.clone(), text.replacen(&change.old, &change.new, 1)),
                times => {
                    return Err(format!("{}: found {times} times in {}:\n{}", self.name, path.display(), change.old));
                }
            };
        }
        Ok(sources)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn list() -> Vec<Mutant> {
    let text = fs::read_to_string(root().join("tests/mutants/list.toml")).expect("the list is part of the project");
    toml::from_str::<List>(&text).expect("the list can be read").mutant
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mutants = list();
    if let Some(unknown) = wanted.iter().find(|name| !mutants.iter().any(|mutant| mutant.name == **name)) {
        eprintln!("There is no mutant {unknown:?}; tests/mutants/list.toml has them all.");
        return ExitCode::from(2);
    }
    let chosen = mutants.iter().filter(|mutant| wanted.is_empty() || wanted.contains(&mutant.name));
    let copy = copied_tree();
    let (mut killed, mut survived) = (0, 0);
    for mutant in chosen {
        let sources = mutant.sources(root()).expect("cargo test checks that the list fits");
        let begun = Instant::now();
        for (path, text) in &sources {
            fs::write(copy.join(path), text).expect("the copy can be written");
        }
        let verdict = verdict(&copy, mutant);
        for path in sources.keys() {
            fs::copy(root().join(path), copy.join(path)).expect("the copy can be written");
        }
        let seconds = begun.elapsed().as_secs();
        match verdict {
            Ok(found) => {
                killed += 1;
                println!(
                    "| {} | {} | `{}` | {} | {} | {seconds} s |",
                    mutant.name, mutant.rule, mutant.run, found.seeds, found.how
                );
            }
            Err(why) => {
                survived += 1;
                println!("SURVIVED {}: {why} ({seconds} s)", mutant.name);
            }
        }
    }
    println!("mutants: {killed} passed, {survived} failed");
    if survived == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A copy of the tree: what git tracks, and new files that it does not ignore. Of another version, or cargo would take what it
/// builds of the copy for what it has built of the project.
fn copied_tree() -> PathBuf {
    let copy = root().join("target/mutants");
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    let mut kept = BTreeSet::new();
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root().join(name), copy.join(name));
        let Ok(mut bytes) = fs::read(&from) else { continue };
        if name == "Cargo.toml" {
            bytes = String::from_utf8_lossy(&bytes).replace(&format!("version = \"{VERSION}\"\n"), MUTANT).into();
        }
        fs::create_dir_all(to.parent().expect("files lie in folders")).expect("the copy can be written");
        // What has not changed keeps its time, so that it is not built again.
        if fs::read(&to).ok().as_ref() != Some(&bytes) {
            fs::write(&to, bytes).expect("the copy can be written");
        }
        kept.insert(to);
    }
    copy
}

/// How a mutant died.
struct Found {
    /// Seeds that were run, the last of which failed; scenarios of their own count as one.
    seeds: u64,
    how: String,
}

fn verdict(copy: &Path, mutant: &Mutant) -> Result<Found, String> {
    let mut cargo = cargo(copy);
    // The workspace as a whole has the features that its tests are built with.
    cargo.args(["test", "--workspace", "--test", "sim", "--no-run", "--message-format", "json"]);
    let built = cargo.stderr(Stdio::piped()).output().map_err(|error| format!("cargo: {error}"))?;
    if !built.status.success() {
        return Err(format!("it does not build:\n{}", String::from_utf8_lossy(&built.stderr)));
    }
    let executable = String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "sim")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or("cargo names no executable")?;
    let output = root().join("target/mutants/output");
    let file = fs::File::create(&output).map_err(|error| error.to_string())?;
    let mut test = Command::new(executable)
        .args([&mutant.run, "--nocapture"])
        .env("SIM_STOP", "1")
        .env("SIM_SEEDS", SEEDS_MAX.to_string())
        .env("RUST_BACKTRACE", "0")
        .stdout(file.try_clone().map_err(|error| error.to_string())?)
        .stderr(file)
        .spawn()
        .map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let status = loop {
        match test.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if begun.elapsed() > RUN_MAX => {
                test.kill().map_err(|error| error.to_string())?;
                return Err(format!("{} found nothing in {} s", mutant.run, RUN_MAX.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let text = fs::read(&output).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&text);
    match status.code() {
        Some(0) => Err(format!("{} found nothing", mutant.run)),
        // What a test that fails exits with.
        Some(101) if mutant.run != STORMS || text.contains("these seeds fail") => {
            Ok(Found { seeds: seeds_run(&text), how: first_words(&text) })
        }
        _ => Err(format!("{} ended with {status}", mutant.run)),
    }
}

fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What lies outside the copy, the crates it uses, is shared with the project's own builds.
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", root().join("target")).env("CARGO_INCREMENTAL", "1");
    cargo
}

/// "17 seeds from 0: …"
fn seeds_run(text: &str) -> u64 {
    let line = text.lines().find(|line| line.contains(" seeds from "));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1)
}

/// The line after the first "panicked at", without the seed, short enough for a table.
fn first_words(text: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.contains("panicked at")).skip(1);
    let line = lines.next().unwrap_or("failed");
    let line = line.strip_prefix("seed ").and_then(|rest| rest.split_once(": ")).map_or(line, |(_, rest)| rest);
    line.replace('|', "/").chars().take(90).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_fits_the_source_and_differs_from_it() {
        let mutants = list();
        assert!(mutants.len() >= 25, "{}", mutants.len());
        let names: BTreeSet<_> = mutants.iter().map(|mutant| &mutant.name).collect();
        assert_eq!(names.len(), mutants.len(), "a name stands twice");
        for mutant in &mutants {
            let sources = mutant.sources(root()).unwrap_or_else(|error| panic!("{error}"));
            for (path, text) in sources {
                assert_ne!(text, fs::read_to_string(root().join(path)).unwrap(), "{} changes nothing", mutant.name);
            }
        }
    }

    #[test]
    fn the_documentation_says_what_became_of_each() {
        let document = fs::read_to_string(root().join("docs/testing.md")).unwrap();
        for mutant in list() {
            let row = format!("| {} | {} | `{}` |", mutant.name, mutant.rule, mutant.run);
            assert!(document.contains(&row), "docs/testing.md lacks: {row}");
        }
    }
}
