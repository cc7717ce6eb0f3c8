//! The command line: two levels, the same global flags everywhere, an example at the end of every help text.
//!
//! No flag takes a secret: arguments are visible to every user of the machine.

pub mod groups;
pub mod keys;
pub mod payment;
mod values;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};

use groups::{ChainCommand, ConfigCommand, ContactsCommand, MessageCommand, NetworkCommand, TxCommand};
use keys::KeysCommand;
use payment::{PayArgs, PayFileArgs};
use values::duration;

/// Keys, payments and queries for a Tally network.
#[derive(Debug, Parser)]
#[command(
    name = "tally-wallet",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 the result cannot be written, 2 usage or configuration, 3 node unreachable or \
                  not ready, 4 rejected and will not run, 5 failed in a block, 6 outcome unknown yet, 7 expired and \
                  never ran, 8 key, passphrase or prompt, 9 not found, 10 wrong network or proof, 130 interrupted.\n\n\
                  Example:\n  tally-wallet network add local --node http://127.0.0.1:9101\n  tally-wallet keys new \
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
    #[arg(long, global = true, env = "TALLY_NETWORK", hide_env_values = true, value_name = "NAME")]
    pub network: Option<String>,
    /// Nodes to ask instead of the network's own, up to 16; with several, what holders of more than a third of the
    /// stake agree on is accepted. The pinned chain is checked all the same.
    #[arg(long, global = true, env = "TALLY_NODE", hide_env_values = true, value_name = "URL", value_delimiter = ',')]
    pub node: Vec<String>,
    /// Key that pays and signs; the only one in the keystore when not given.
    #[arg(long, global = true, env = "TALLY_FROM", hide_env_values = true, value_name = "KEY")]
    pub from: Option<String>,
    /// Form of results on stdout, and of failures on stderr.
    #[arg(long, global = true, env = "TALLY_OUTPUT", hide_env_values = true, value_enum, default_value_t = OutputForm::Text, value_name = "FORM")]
    pub output: OutputForm,
    /// Answer yes to every y/N question.
    #[arg(long, short, global = true, env = "TALLY_YES", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub yes: bool,
    /// Never ask; a question without an answer is exit code 8.
    #[arg(long, global = true, env = "TALLY_NO_INPUT", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub no_input: bool,
    /// No progress on stderr; ids of signed transactions, warnings and errors are still shown.
    #[arg(long, short, global = true, env = "TALLY_QUIET", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Show on stderr how every call to a node went.
    #[arg(long, short, global = true, env = "TALLY_VERBOSE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// Show on stderr every call to a node as a grpcurl command that makes the same call.
    #[arg(long, global = true, env = "TALLY_EXPLAIN", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub explain: bool,
    /// How long to wait for the node, and after that for a transaction to become final: "500ms", "30s", "2m".
    #[arg(long, global = true, env = "TALLY_TIMEOUT", hide_env_values = true, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
    /// Colour on stderr and in help: auto means on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, env = "TALLY_COLOR", hide_env_values = true, value_enum, default_value_t = ColorWhen::Auto, value_name = "WHEN")]
    pub color: ColorWhen,
    /// Folder of config.toml and contacts.toml [default: $XDG_CONFIG_HOME/tally or ~/.config/tally].
    #[arg(long, global = true, env = "TALLY_CONFIG_DIR", hide_env_values = true, value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// Folder of the key files [default: keys/ in the configuration folder].
    #[arg(long, global = true, env = "TALLY_KEYSTORE_DIR", hide_env_values = true, value_name = "DIR")]
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

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, import, back up and show keys.
    #[command(subcommand, after_help = "Example:\n  tally-wallet keys new alice")]
    Keys(KeysCommand),
    /// Name networks, and pin each to its chain.
    #[command(subcommand, after_help = "Example:\n  tally-wallet network add local --node http://127.0.0.1:9101")]
    Network(NetworkCommand),
    /// Name addresses of others.
    #[command(subcommand, after_help = "Example:\n  tally-wallet contacts list")]
    Contacts(ContactsCommand),
    /// Show where to pay, and the command that a sponsor runs to open or pay this account.
    #[command(after_help = "Example:\n  tally-wallet receive --from alice --amount 100")]
    Receive {
        /// Tokens asked for, for example 100.
        #[arg(long, value_name = "AMOUNT")]
        amount: Option<String>,
    },
    /// Show what an account holds.
    #[command(after_help = "Example:\n  tally-wallet balance alice\n  tally-wallet balance --all")]
    Balance {
        /// Address, own key or contact; without one, the key of --from.
        account: Option<String>,
        /// Of every key in the keystore.
        #[arg(long, conflicts_with = "account")]
        all: bool,
    },
    /// Pay an account that exists.
    #[command(after_help = "Example:\n  tally-wallet send bob 12.5 --from alice --memo \"invoice 7\"\n  \
                            tally-wallet send bob all")]
    Send {
        /// Address, own key or contact.
        to: String,
        /// Tokens, for example 12.5; "all" for everything but the fee.
        amount: String,
        /// Open the account if the recipient has none.
        #[arg(long)]
        create_if_missing: bool,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Open an account with a first balance.
    #[command(after_help = "Example:\n  tally-wallet create-account bob 100 --from alice")]
    CreateAccount {
        /// Address of the new account, own key or contact.
        new: String,
        /// Its opening balance in tokens, for example 100.
        amount: String,
        #[command(flatten)]
        pay: PayArgs,
    },
    /// Pay every line of a CSV file, once, in as few transactions as possible; after an interruption, go on.
    #[command(
        after_help = "The file has a header line with the columns \"to\" and \"amount\", and may have \"note\", \
                            which is for you. What is signed and what became of it is kept in FILE.journal: the same \
                            command again pays what is not paid yet, and nothing twice.\n\nExample:\n  tally-wallet \
                            pay salaries.csv --from alice --dry-run\n  tally-wallet pay salaries.csv --from alice"
    )]
    Pay {
        #[command(flatten)]
        pay: PayFileArgs,
    },
    /// List the final transactions of an account, newest first.
    #[command(
        after_help = "Example:\n  tally-wallet history alice --limit 5\n  tally-wallet history alice --all --csv"
    )]
    History {
        /// Address, own key or contact; without one, the key of --from.
        account: Option<String>,
        /// Most transactions to list.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "COUNT")]
        limit: u32,
        /// All of them, up to a million.
        #[arg(long, conflicts_with = "limit")]
        all: bool,
        /// Then go on with new ones, oldest first, until Ctrl-C.
        #[arg(long)]
        follow: bool,
        /// As CSV, one row for each operation that touches the account; --output then holds for failures alone.
        #[arg(long, conflicts_with = "follow")]
        csv: bool,
    },
    /// Show new transactions of an account as they become final; without an account, all.
    #[command(
        after_help = "With --output json, every line of stdout is a document.\n\nExample:\n  tally-wallet watch \
                            alice\n  tally-wallet watch --count 10 --output json"
    )]
    Watch {
        /// Address, own key or contact.
        account: Option<String>,
        /// End after this many transactions.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "COUNT")]
        count: Option<u64>,
    },
    /// Look at transactions, sign and submit prepared ones.
    #[command(
        subcommand,
        after_help = "Example:\n  tally-wallet tx wait \
                      5f2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b"
    )]
    Tx(TxCommand),
    /// Sign texts, and check such signatures.
    #[command(subcommand, after_help = "Example:\n  tally-wallet message sign \"I am alice\" --from alice")]
    Message(MessageCommand),
    /// Facts about the chain.
    #[command(subcommand, after_help = "Example:\n  tally-wallet chain info")]
    Chain(ChainCommand),
    /// Find out what is wrong with this wallet or its nodes, and what to do.
    #[command(after_help = "Example:\n  tally-wallet doctor")]
    Doctor,
    /// Show the settings in force.
    #[command(subcommand, after_help = "Example:\n  tally-wallet config show --origin")]
    Config(ConfigCommand),
    /// Print a script that completes this command's words in a shell.
    #[command(after_help = "Example:\n  tally-wallet completions bash")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one page for each command.
    #[command(after_help = "Example:\n  tally-wallet man\n  tally-wallet man --out-dir man1")]
    Man {
        /// Write all pages into this folder, which must exist.
        #[arg(long, value_name = "DIR")]
        out_dir: Option<PathBuf>,
    },
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
                // The only quoted arguments of any example.
                let args = args.replace("invoice 7", "invoice-7").replace("I am alice", "I-am-alice");
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
