//! The command line: two levels, the same global flags everywhere, an example at the end of every help text.
//!
//! No flag takes a secret: arguments are visible to every user of the machine.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};
use tally_types::Hash;

/// Keys, payments and queries for a Tally network.
#[derive(Debug, Parser)]
#[command(
    name = "tally-wallet",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 the result cannot be written, 2 usage or configuration, 3 node unreachable or \
                  not ready, 4 rejected and will not run, 5 failed in a block, 6 outcome unknown yet, 7 expired and \
                  never ran, 8 key, passphrase or prompt, 9 not found, 10 wrong network, 130 interrupted.\n\n\
                  Example:\n  tally-wallet network add local --node http://127.0.0.1:4700\n  tally-wallet keys new \
                  alice\n  tally-wallet send bob 12.5 --from alice"
)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command, each with an environment variable of the same meaning.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Network to use, by the name given at `network add`.
    #[arg(long, global = true, env = "TALLY_NETWORK", value_name = "NAME")]
    pub network: Option<String>,
    /// Node to ask instead of the network's own; the pinned chain is checked all the same.
    #[arg(long, global = true, env = "TALLY_NODE", value_name = "URL")]
    pub node: Option<String>,
    /// Key that pays and signs; the only one in the keystore when not given.
    #[arg(long, global = true, env = "TALLY_FROM", value_name = "KEY")]
    pub from: Option<String>,
    /// Form of results on stdout, and of failures on stderr.
    #[arg(long, global = true, env = "TALLY_OUTPUT", value_enum, default_value_t = OutputForm::Text, value_name = "FORM")]
    pub output: OutputForm,
    /// Answer yes to every y/N question.
    #[arg(long, short, global = true, env = "TALLY_YES", value_parser = FalseyValueParser::new())]
    pub yes: bool,
    /// Never ask; a question without an answer is exit code 8.
    #[arg(long, global = true, env = "TALLY_NO_INPUT", value_parser = FalseyValueParser::new())]
    pub no_input: bool,
    /// No progress on stderr; ids of signed transactions, warnings and errors are still shown.
    #[arg(long, short, global = true, env = "TALLY_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// How long to wait for the node, and after that for a transaction to become final: "500ms", "30s", "2m".
    #[arg(long, global = true, env = "TALLY_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
    /// Folder of config.toml [default: $XDG_CONFIG_HOME/tally or ~/.config/tally].
    #[arg(long, global = true, env = "TALLY_CONFIG_DIR", value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Folder of the key files [default: keys/ in the configuration folder].
    #[arg(long, global = true, env = "TALLY_KEYSTORE_DIR", value_name = "DIR")]
    pub keystore_dir: Option<PathBuf>,
}

/// Form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// For people.
    Text,
    /// One JSON document, proto-JSON names, uint64 as strings.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, import and show keys.
    #[command(subcommand, after_help = "Example:\n  tally-wallet keys new alice")]
    Keys(KeysCommand),
    /// Name networks, and pin each to its chain.
    #[command(subcommand, after_help = "Example:\n  tally-wallet network add local --node http://127.0.0.1:4700")]
    Network(NetworkCommand),
    /// Show what an account holds.
    #[command(after_help = "Example:\n  tally-wallet balance alice")]
    Balance {
        /// Address or own key; without one, the key of --from.
        account: Option<String>,
    },
    /// Pay an account that exists.
    #[command(after_help = "Example:\n  tally-wallet send bob 12.5 --from alice --memo \"invoice 7\"")]
    Send {
        /// Address, or name of an own key.
        to: String,
        /// Tokens, for example 12.5.
        amount: String,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Open an account with a first balance.
    #[command(after_help = "Example:\n  tally-wallet create-account bob 100 --from alice")]
    CreateAccount {
        /// Address of the new account, or name of an own key.
        new: String,
        /// Its opening balance in tokens, for example 100.
        amount: String,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// List the final transactions of an account, newest first.
    #[command(after_help = "Example:\n  tally-wallet history alice --limit 5")]
    History {
        /// Address or own key; without one, the key of --from.
        account: Option<String>,
        /// Most transactions to list.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "COUNT")]
        limit: u32,
    },
    /// Follow one transaction.
    #[command(
        subcommand,
        after_help = "Example:\n  tally-wallet tx wait \
                      5f2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b"
    )]
    Tx(TxCommand),
    /// Facts about the chain.
    #[command(subcommand, after_help = "Example:\n  tally-wallet chain info")]
    Chain(ChainCommand),
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key, and show its 24 words once: they are the only backup.
    #[command(after_help = "Example:\n  tally-wallet keys new alice\n  tally-wallet keys new alice --words-file \
                            alice.words --passphrase-file pass")]
    New {
        /// Name of the key: a-z, 0-9, "-" and "_".
        name: String,
        /// Write the words to this new file (mode 0600) instead of the terminal.
        #[arg(long, value_name = "FILE")]
        words_file: Option<PathBuf>,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Bring back a key from its words, typed at a prompt unless a file is given.
    #[command(after_help = "Example:\n  tally-wallet keys import alice\n  tally-wallet keys import alice \
                            --words-file alice.words")]
    Import {
        /// Name of the key: a-z, 0-9, "-" and "_".
        name: String,
        /// Read the words from this file.
        #[arg(long, value_name = "FILE")]
        words_file: Option<PathBuf>,
        /// Read the words from standard input.
        #[arg(long, conflicts_with_all = ["words_file", "passphrase_stdin"])]
        words_stdin: bool,
        /// Read a secret key, 64 hex digits of the Ed25519 seed, from this file.
        #[arg(long, conflicts_with_all = ["words_file", "words_stdin", "account"], value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// Account number N of the path m/44'/9797'/N'.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(crate::derive::ACCOUNT_MAX)), value_name = "N")]
        account: u32,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// List the keys with their addresses.
    #[command(after_help = "Example:\n  tally-wallet keys list")]
    List,
    /// Show the open part of a key: its address, never its secret.
    #[command(after_help = "Example:\n  tally-wallet keys show alice")]
    Show {
        /// Name of the key.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Ask a node which chain it follows, and pin that chain under a name.
    #[command(after_help = "Example:\n  tally-wallet network add local --node http://127.0.0.1:4700")]
    Add {
        /// Name of the network: a-z, 0-9, "-" and "_".
        name: String,
        /// Genesis hash from somebody you trust; the node must follow this chain.
        #[arg(long, value_parser = hash, value_name = "HEX")]
        genesis_hash: Option<Hash>,
    },
    /// Make a network the one that is used without --network.
    #[command(after_help = "Example:\n  tally-wallet network use local")]
    Use {
        /// Name of the network.
        name: String,
    },
    /// List the networks.
    #[command(after_help = "Example:\n  tally-wallet network list")]
    List,
}

#[derive(Debug, Subcommand)]
pub enum TxCommand {
    /// Show what the node knows of a transaction now.
    #[command(after_help = "Example:\n  tally-wallet tx show \
                            5f2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b --output json")]
    Show {
        /// Id: 64 hex digits.
        #[arg(value_parser = hash)]
        id: Hash,
    },
    /// Wait until a transaction is final or has expired.
    #[command(after_help = "Example:\n  tally-wallet tx wait \
                            5f2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b --timeout 5m")]
    Wait {
        /// Id: 64 hex digits.
        #[arg(value_parser = hash)]
        id: Hash,
    },
}

#[derive(Debug, Subcommand)]
pub enum ChainCommand {
    /// Show the chain, its token, its fee, and how far the node has come.
    #[command(after_help = "Example:\n  tally-wallet chain info --output json")]
    Info,
}

/// Flags of the commands that pay.
#[derive(Clone, Debug, Args)]
pub struct PayArgs {
    /// Text for the recipient, at most 256 bytes; public for ever.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub memo: String,
    /// Most tokens to pay as fee [default: what the chain charges now].
    #[arg(long, value_name = "AMOUNT")]
    pub max_fee: Option<String>,
    /// The transaction never runs later than this from now [default: 5m, or the chain's limit if less].
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub expire_in: Option<Duration>,
    /// Number of the transaction in its account [default: the node's next free one].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub nonce: Option<u64>,
    /// Return once the node has taken the transaction, without waiting until it is final.
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
}

/// Where the passphrase comes from when nobody is to type it. The environment variable TALLY_PASSPHRASE comes after
/// both.
#[derive(Clone, Debug, Default, Args)]
pub struct PassphraseArgs {
    /// Read the passphrase from this file (or set TALLY_PASSPHRASE).
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Read the passphrase from standard input.
    #[arg(long, conflicts_with = "passphrase_file")]
    pub passphrase_stdin: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 30s or 5m"))?;
    // A century: no clock arithmetic below can overflow.
    let limit = Duration::from_secs(100 * 365 * 24 * 3600);
    if duration.is_zero() || duration > limit {
        return Err("must be above zero and at most 100 years".into());
    }
    Ok(duration)
}

fn hash(text: &str) -> Result<Hash, String> {
    Hash::from_hex(text).ok_or_else(|| "must be 64 lower-case hex digits".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_text_ends_in_an_example() {
        fn check(command: &mut clap::Command) {
            let name = command.get_name().to_owned();
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = after.rsplit("Example:\n").next().filter(|_| after.contains("Example:\n"));
            let example = example.unwrap_or_else(|| panic!("{name} has no example"));
            for line in example.lines() {
                let args = line.trim().replace('"', "");
                // A memo of two words is the only quoted argument of any example.
                let args = args.replace("invoice 7", "invoice-7");
                if let Err(error) = Cli::try_parse_from(args.split(' ')) {
                    // The example of a group is an example of one of its commands.
                    panic!("{name}: {line}: {error}");
                }
            }
            command.get_subcommands_mut().for_each(check);
        }
        check(&mut Cli::command());
    }

    #[test]
    fn a_secret_is_never_the_value_of_an_argument() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let id = arg.get_id().as_str();
                if id.contains("passphrase") || id.contains("words") || id.contains("secret") {
                    assert!(id.ends_with("_file") || id.ends_with("_stdin"), "{id}");
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn globals_stand_before_or_after_the_command() {
        for args in ["w --output json balance", "w balance --output json"] {
            let cli = Cli::try_parse_from(args.split(' ')).unwrap();
            assert_eq!(cli.globals.output, OutputForm::Json);
        }
        assert!(Cli::try_parse_from(["w", "balance", "--timeout", "0s"]).is_err());
        assert!(
            Cli::try_parse_from(["w", "send", "bob", "1", "--passphrase-file", "x", "--passphrase-stdin"]).is_err()
        );
    }
}
