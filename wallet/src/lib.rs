//! `tally-wallet`: keys, payments and queries from the command line.
//!
//! Guarantees: a secret leaves its encrypted file only to sign, and is wiped afterwards; nothing is signed for a chain
//! other than the pinned one; a transaction's id is shown before the transaction is sent, and its outcome is never called
//! a failure while it may still run. Results go to stdout, all else to stderr.
//!
//! It does not verify proofs: "final" is always "according to" a node, or to several that must agree. It depends on the wire contract and
//! on `tally-types` alone, and knows nothing of ledger, consensus or the node's inside.
//!
//! [`run`] is the whole program. [`keystore`] and [`config`] are public so that a localnet can write a wallet's folder.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
pub mod derive;
pub mod keystore;

mod cli;
mod client;
mod commands;
mod contacts;
mod envelope;
mod error;
mod files;
mod interrupt;
mod json;
mod origin;
mod output;
mod prompt;
#[cfg(test)]
mod scenarios;
mod target;
mod token;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, FromArgMatches as _, builder::Resettable, error::ErrorKind};

use crate::{
    cli::{Cli, ColorWhen, OutputForm},
    error::{Exit, UsageError, WalletError},
    interrupt::Interrupts,
    origin::Origins,
    output::Output,
};

pub use error::{OWN_REASONS, OwnReason};

/// The exit code for a reason that a node gives, and the advice that goes with it: what docs/errors.md lists.
pub fn advice(reason: &str) -> (u8, String) {
    let explained =
        client::explain::explain(reason, &client::explain::Facts { metadata: &BTreeMap::new(), token: None });
    (explained.exit as u8, explained.next)
}

/// Runs the wallet with these arguments (the first is the program's name) and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let words: Vec<String> = args.iter().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    // What the environment says is repeated by complaints as well.
    let twins = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("TALLY_") && name != prompt::PASSPHRASE_ENV
    });
    let twins = twins.map(|(_, value)| value.to_string_lossy().into_owned());
    let said: Vec<String> = words.iter().cloned().chain(twins).collect();
    // Before clap, whose complaint would repeat them.
    if target::has_words(&said) {
        return fail(Output::new(form_of(&words), false), &UsageError::Words.into(), &said);
    }
    let color = match color_of(&words) {
        ColorWhen::Auto => clap::ColorChoice::Auto,
        ColorWhen::Always => clap::ColorChoice::Always,
        ColorWhen::Never => clap::ColorChoice::Never,
    };
    let parsed = without_empty_twins(Cli::command()).color(color).try_get_matches_from(&args);
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, Origins::of(&matches, &GLOBALS))));
    let (cli, origins) = match parsed {
        Ok(parsed) => parsed,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(error) => {
            let text = error.render();
            let text = if stderr_color(color_of(&words)) { text.ansi().to_string() } else { text.to_string() };
            Output::new(form_of(&words), false).usage_failure(&target::hide_hex(&text, &said));
            return ExitCode::from(Exit::Usage as u8);
        }
    };
    let output = Output::new(cli.globals.output, cli.globals.quiet).with_color(stderr_color(cli.globals.color));
    match run_command(cli, origins, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(output, &error, &said),
    }
}

fn run_command(cli: Cli, origins: Origins, output: Output) -> Result<(), WalletError> {
    // A worker of its own keeps connections alive while a person reads a prompt on this thread.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(WalletError::Start)?;
    let result = runtime.block_on(async {
        let interrupts = Interrupts::listen(output).map_err(WalletError::Start)?;
        commands::run(cli, origins, output, interrupts).await
    });
    // A thread may still wait for a line on stdin.
    runtime.shutdown_background();
    result
}

fn fail(output: Output, error: &WalletError, said: &[String]) -> ExitCode {
    let message = match error.exit() {
        // What is wrong with an argument, a file or a key. All else is about hashes that were asked for.
        Exit::Usage | Exit::Key | Exit::Failure => target::hide_hex(&error.to_string(), said),
        _ => error.to_string(),
    };
    output.failure(error, &message);
    ExitCode::from(error.exit() as u8)
}

/// Ids of the global flags.
const GLOBALS: [&str; 13] = [
    "network",
    "node",
    "from",
    "output",
    "yes",
    "no_input",
    "quiet",
    "verbose",
    "explain",
    "timeout",
    "color",
    "config_dir",
    "keystore_dir",
];

/// A variable that is empty counts as unset, as everywhere in a shell.
fn without_empty_twins(command: clap::Command) -> clap::Command {
    let is_empty = |id: &str| {
        let value = std::env::var_os(format!("TALLY_{}", id.to_uppercase()));
        value.is_some_and(|value| value.is_empty())
    };
    let empty = GLOBALS.into_iter().filter(|id| is_empty(id));
    empty.fold(command, |command, id| command.mut_arg(id, |arg| arg.env(Resettable::Reset)))
}

/// The form asked for, when the arguments as a whole cannot be read.
fn form_of(args: &[String]) -> OutputForm {
    if value_of(args, "output").is_some_and(|value| value == "json") { OutputForm::Json } else { OutputForm::Text }
}

/// The same for colour.
fn color_of(args: &[String]) -> ColorWhen {
    match value_of(args, "color").as_deref() {
        Some("always") => ColorWhen::Always,
        Some("never") => ColorWhen::Never,
        _ => ColorWhen::Auto,
    }
}

fn value_of(args: &[String], flag: &str) -> Option<String> {
    let spaced = args.windows(2).find(|pair| pair[0] == format!("--{flag}")).map(|pair| pair[1].clone());
    let start = format!("--{flag}=");
    let joined = || args.iter().find_map(|arg| arg.strip_prefix(&start).map(str::to_owned));
    spaced.or_else(joined).or_else(|| std::env::var(format!("TALLY_{}", flag.to_uppercase())).ok())
}

/// Whether stderr is coloured: <https://no-color.org> says that any value but the empty one counts.
fn stderr_color(when: ColorWhen) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto => !refused && io::stderr().is_terminal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(args: &[&str]) -> ExitCode {
        run(args.iter().map(OsString::from))
    }

    #[test]
    fn usage_errors_and_typed_secrets_end_in_2() {
        let usage = format!("{:?}", ExitCode::from(2));
        assert_eq!(format!("{:?}", code(&["tally-wallet", "pay"])), usage);
        assert_eq!(format!("{:?}", code(&["tally-wallet"])), usage);
        let phrase = "legal winner thank year wave sausage worth useful legal winner thank yellow";
        let args: Vec<&str> = ["tally-wallet", "send"].into_iter().chain(phrase.split(' ')).collect();
        assert_eq!(format!("{:?}", code(&args)), usage);
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(format!("{:?}", code(&["tally-wallet", "balance", phrase, "--config-dir", home])), usage);
    }

    #[test]
    fn keys_are_made_imported_and_listed_without_a_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (home, pass, words) = (path("home"), path("pass"), path("words"));
        std::fs::write(&pass, "open sesame\n").unwrap();
        let ok = format!("{:?}", ExitCode::SUCCESS);
        let key_trouble = format!("{:?}", ExitCode::from(8));
        let keys = |args: &[&str]| {
            let rest = ["--config-dir", &home, "--no-input", "--output", "json", "--passphrase-file", &pass];
            let all: Vec<&str> = ["tally-wallet", "keys"].into_iter().chain(args.iter().copied()).chain(rest).collect();
            format!("{:?}", code(&all))
        };
        assert_eq!(keys(&["new", "alice", "--words-file", &words]), ok);
        assert_eq!(keys(&["import", "again", "--words-file", &words]), ok);
        assert_eq!(keys(&["import", "second", "--words-file", &words, "--account", "1"]), ok);
        let keystore = keystore::Keystore::open(format!("{home}/keys"));
        let address = |name: &str| keystore.find(name).unwrap().address;
        assert_eq!(address("alice"), address("again"));
        assert_ne!(address("alice"), address("second"));
        assert!(keystore.unlock("alice", "open sesame").is_ok());
        // The name is taken, the words file is taken: neither is touched.
        let before = std::fs::read(&words).unwrap();
        assert_eq!(keys(&["new", "alice", "--words-file", &path("other")]), key_trouble);
        assert!(!std::path::Path::new(&path("other")).exists());
        assert_eq!(keys(&["new", "bob", "--words-file", &words]), key_trouble);
        assert!(keystore.find("bob").is_err());
        assert_eq!(std::fs::read(&words).unwrap(), before);
        let seed = path("seed");
        std::fs::write(&seed, format!("{}\n", "07".repeat(32))).unwrap();
        assert_eq!(keys(&["import", "raw", "--secret-file", &seed]), ok);
        let raw = tally_types::SecretKey::from_seed(&[7; 32]).public_key().address();
        assert_eq!(address("raw"), raw);
        std::fs::write(&seed, "07").unwrap();
        assert_eq!(keys(&["import", "raw2", "--secret-file", &seed]), key_trouble);
        let list = ["tally-wallet", "keys", "list", "--config-dir", &home];
        assert_eq!(format!("{:?}", code(&list)), ok);
    }
}
