//! Arguments of the commands that pay.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::values::duration;

/// Most payments of one transaction of a list, where nothing else is asked for.
pub const PER_TRANSACTION_DEFAULT: u32 = 64;

/// Flags of `send` and `create-account`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
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
    #[arg(long, conflicts_with = "stop")]
    pub no_wait: bool,
    /// Let the node work out what would happen; nothing is signed or sent, no key is touched.
    #[arg(long, group = "stop")]
    pub dry_run: bool,
    /// Stop before signing: write the unsigned transaction, touch no key. --from may be an address or a contact.
    #[arg(long, group = "stop")]
    pub build_only: bool,
    /// Stop after signing: write the signed transaction, send nothing.
    #[arg(long, group = "stop")]
    pub sign_only: bool,
    /// Where --build-only and --sign-only write to, a new file [default: stdout].
    #[arg(long, requires = "stop", conflicts_with = "dry_run", value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The recipient's last 6 characters, which are asked for when an address resembles one that this wallet knows.
    #[arg(long, value_name = "CHARACTERS")]
    pub confirm_recipient: Option<String>,
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
}

/// Flags of `pay`.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct PayFileArgs {
    /// CSV file: "to,amount" or "to,amount,note".
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where progress is kept [default: FILE.journal].
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Open the accounts of recipients that have none.
    #[arg(long)]
    pub create_if_missing: bool,
    /// Check every line against the chain; nothing is signed or sent, no key is touched.
    #[arg(long)]
    pub dry_run: bool,
    /// Text in every transaction, at most 256 bytes; public for ever.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub memo: String,
    /// Most payments of one transaction: they succeed or fail together.
    #[arg(long, default_value_t = PER_TRANSACTION_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "COUNT")]
    pub per_transaction: u32,
    /// A transaction never runs later than this from its signature [default: 5m, or the chain's limit if less].
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub expire_in: Option<Duration>,
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
}

/// Where the passphrase comes from when nobody is to type it. The environment variable TALLY_PASSPHRASE comes after
/// both.
#[derive(Clone, Debug, Default, Args)]
#[group(skip)]
pub struct PassphraseArgs {
    /// Read the passphrase from this file (or set TALLY_PASSPHRASE).
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Read the passphrase from standard input.
    #[arg(long, conflicts_with = "passphrase_file")]
    pub passphrase_stdin: bool,
}
