//! Arguments of `keys`.

use std::path::PathBuf;

use clap::Subcommand;

use super::payment::PassphraseArgs;
use crate::derive::ACCOUNT_MAX;

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
    /// Bring back a key from its words, typed at a prompt unless a file is given, or from a file of another kind.
    #[command(after_help = "Example:\n  tally-wallet keys import alice\n  tally-wallet keys import alice \
                            --words-file alice.words\n  tally-wallet keys import alice --keystore-file \
                            backup/alice.key")]
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
        /// Read an encrypted key file of this wallet; it opens with its own passphrase, which stays the key's.
        #[arg(long, conflicts_with_all = ["words_file", "words_stdin", "secret_file", "account"], value_name = "FILE")]
        keystore_file: Option<PathBuf>,
        /// Account number N of the path m/44'/9797'/N'.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(ACCOUNT_MAX)), value_name = "N")]
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
    /// Write a key to a file: encrypted as it is, or its bare secret.
    #[command(after_help = "Example:\n  tally-wallet keys export alice --keystore-file backup/alice.key\n  \
                            tally-wallet keys export alice --secret-file alice.secret")]
    Export {
        /// Name of the key.
        name: String,
        /// The encrypted key file, to this new file; it opens with the key's passphrase.
        #[arg(long, required_unless_present = "secret_file", conflicts_with = "secret_file", value_name = "FILE")]
        keystore_file: Option<PathBuf>,
        /// The secret itself, 64 hex digits, to this new file (mode 0600). Whoever reads it has the key's tokens.
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Give a key another passphrase.
    #[command(after_help = "Example:\n  tally-wallet keys passphrase alice")]
    Passphrase {
        /// Name of the key.
        name: String,
        /// Read the new passphrase from this file.
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Type the words of a key, to be sure that the paper they stand on brings it back.
    #[command(after_help = "Example:\n  tally-wallet keys verify-backup alice")]
    VerifyBackup {
        /// Name of the key.
        name: String,
        /// Read the words from this file.
        #[arg(long, value_name = "FILE")]
        words_file: Option<PathBuf>,
        /// Read the words from standard input.
        #[arg(long, conflicts_with = "words_file")]
        words_stdin: bool,
        /// Account number N of the path m/44'/9797'/N'.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(ACCOUNT_MAX)), value_name = "N")]
        account: u32,
    },
    /// Give a key another name. Its file holds the name authenticated, so the passphrase is needed.
    #[command(after_help = "Example:\n  tally-wallet keys rename alice savings")]
    Rename {
        /// Name of the key.
        name: String,
        /// Its new name.
        new_name: String,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Delete a key's file. Without its words or another backup its tokens are lost.
    #[command(after_help = "Example:\n  tally-wallet keys remove old-key")]
    Remove {
        /// Name of the key.
        name: String,
    },
}
