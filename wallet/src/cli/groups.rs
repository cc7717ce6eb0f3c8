//! Arguments of the groups of commands other than `keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tally_types::Hash;

use super::{payment::PassphraseArgs, values::hash};

#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Ask nodes which chain they follow, and pin that chain under a name.
    #[command(after_help = "Example:\n  tally-wallet network add local --node http://127.0.0.1:9101\n  tally-wallet \
                            network add club --node http://10.0.0.1:9101 --node http://10.0.0.2:9101 --node \
                            http://10.0.0.3:9101")]
    Add {
        /// Name of the network: a-z, 0-9, "-" and "_".
        name: String,
        /// Genesis hash from somebody you trust; the node must follow this chain.
        #[arg(long, value_parser = hash, value_name = "HEX")]
        genesis_hash: Option<Hash>,
        /// Ask no node: pin what the other flags say. For a machine without network; `network show` prints the command.
        #[arg(long, requires_all = ["genesis_hash", "chain_id", "symbol", "decimals"])]
        offline: bool,
        /// With --offline: the chain's id.
        #[arg(long, requires = "offline", value_name = "ID")]
        chain_id: Option<String>,
        /// With --offline: the token's symbol.
        #[arg(long, requires = "offline", value_name = "SYMBOL")]
        symbol: Option<String>,
        /// With --offline: the token's decimal places.
        #[arg(long, requires = "offline", value_name = "COUNT")]
        decimals: Option<u32>,
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
    /// Show what a network is pinned to, and the command that pins it on a machine without network.
    #[command(after_help = "Example:\n  tally-wallet network show local")]
    Show {
        /// Name of the network; without one, the network in use.
        name: Option<String>,
    },
    /// Forget a network and what it is pinned to.
    #[command(after_help = "Example:\n  tally-wallet network remove local")]
    Remove {
        /// Name of the network.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum ContactsCommand {
    /// Give an address a name.
    #[command(after_help = "Example:\n  tally-wallet contacts add bob \
                            tally1qgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqrrcyly")]
    Add {
        /// Name: a-z, 0-9, "-" and "_"; not that of an own key.
        name: String,
        /// The address.
        address: String,
    },
    /// List the contacts.
    #[command(after_help = "Example:\n  tally-wallet contacts list")]
    List,
    /// Forget a contact.
    #[command(after_help = "Example:\n  tally-wallet contacts remove bob")]
    Remove {
        /// Name of the contact.
        name: String,
    },
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
    /// Show what a transaction file says. Asks no node and opens no key.
    #[command(after_help = "Example:\n  tally-wallet tx decode rent.tx")]
    Decode {
        /// File that --build-only, --sign-only or `tx sign` wrote; "-" is standard input.
        file: PathBuf,
    },
    /// Sign a transaction file. Asks no node.
    #[command(after_help = "Example:\n  tally-wallet tx sign rent.tx --out rent.signed")]
    Sign {
        /// File that --build-only wrote; "-" is standard input.
        file: PathBuf,
        /// Write the signed transaction to this new file [default: stdout].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Send a signed transaction file. Opens no key.
    #[command(after_help = "Example:\n  tally-wallet tx submit rent.signed")]
    Submit {
        /// File that --sign-only or `tx sign` wrote; "-" is standard input.
        file: PathBuf,
        /// Return once the node has taken the transaction, without waiting until it is final.
        #[arg(long)]
        no_wait: bool,
    },
}

/// A text to sign, or that was signed.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct MessageArgs {
    /// The text itself.
    #[arg(required_unless_present = "file")]
    pub text: Option<String>,
    /// Its bytes are the content of this file, at most 1 MiB.
    #[arg(long, conflicts_with = "text", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum MessageCommand {
    /// Prove that a text comes from the holder of a key. Such a signature is never one of a transaction.
    #[command(
        after_help = "Example:\n  tally-wallet message sign \"I am alice\" --from alice\n  tally-wallet message \
                            sign --file contract.pdf --from alice"
    )]
    Sign {
        #[command(flatten)]
        message: MessageArgs,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Check a signature of `message sign`. Asks no node and opens no key.
    #[command(after_help = "Example:\n  tally-wallet message verify alice 5f2b1c0d9e8f \"I am alice\"")]
    Verify {
        /// Who should have signed: address, own key or contact.
        account: String,
        /// The signature: 128 hex digits.
        signature: String,
        #[command(flatten)]
        message: MessageArgs,
    },
}

#[derive(Debug, Subcommand)]
pub enum ChainCommand {
    /// Show the chain, its token, its fee, and how far the node has come.
    #[command(after_help = "Example:\n  tally-wallet chain info --output json")]
    Info,
    /// Show a block.
    #[command(after_help = "Example:\n  tally-wallet chain block 42\n  tally-wallet chain block latest --full")]
    Block {
        /// Height, hash of its header, or "latest".
        #[arg(default_value = "latest")]
        block: String,
        /// With its transactions and the votes that committed it.
        #[arg(long)]
        full: bool,
    },
    /// List the validators and their votes.
    #[command(after_help = "Example:\n  tally-wallet chain validators")]
    Validators,
    /// Show who leads the coming views.
    #[command(after_help = "Example:\n  tally-wallet chain leaders --count 10")]
    Leaders {
        /// How many views.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "COUNT")]
        count: u32,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show every setting in force; with --origin, where it comes from.
    #[command(after_help = "Example:\n  tally-wallet config show --origin")]
    Show {
        /// Also show where each setting comes from: a flag, the environment, a file, or the default.
        #[arg(long)]
        origin: bool,
    },
}
