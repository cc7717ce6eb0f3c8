//! What to do next, for everything that a command can end in.

use super::{Fate, FileError, Refusal, UsageError, WalletError};
use crate::{
    config::ConfigError,
    envelope::EnvelopeError,
    keystore::{FormatError, KeystoreError},
    prompt::InputError,
    target::TargetError,
};

impl WalletError {
    /// What to do next; empty when there is nothing to say.
    pub fn next_step(&self) -> String {
        match self {
            WalletError::Node(error) => error.next.clone(),
            WalletError::Fate(fate) => match &**fate {
                Fate::Failed { next, .. } => next.clone(),
                Fate::Unknown { wait, .. } => format!("do not send it again before you know; wait with: {wait}"),
                Fate::NeverRan { .. } => "send it again".into(),
            },
            WalletError::Refusal(refusal) => match refusal {
                Refusal::Shortage { .. } => "send less, or pay into the account first".into(),
                Refusal::FeeTooLow { fee, token, .. } => format!("give --max-fee {}", token.number(*fee)),
                Refusal::OpeningBalanceTooLow { .. } => "give the new account more".into(),
                Refusal::Overflow => "send less".into(),
            },
            WalletError::Keystore(error) | WalletError::Target(TargetError::Keystore(error)) => {
                keystore_next_step(error).into()
            }
            WalletError::Input(error) => match error {
                InputError::NobodyToAsk { flags, .. } => format!("give {flags}"),
                InputError::Differ => "type the same passphrase twice".into(),
                InputError::Empty(what) => format!("give {what}; nothing was changed"),
                InputError::Words(_) => "compare with the words you wrote down".into(),
                InputError::OtherRecipient => {
                    "compare the whole address with the recipient over another way than the one it came by".into()
                }
                InputError::OtherBackup { .. } => {
                    "try --account N if the key was imported with one; otherwise this paper is another key's".into()
                }
                InputError::NewFile { .. } => "name a new file in a folder that exists".into(),
                _ => String::new(),
            },
            WalletError::Target(TargetError::Secret(_))
            | WalletError::Usage(UsageError::Secret(_) | UsageError::Words) => {
                "never type a secret as an argument: it is now in the shell's history, and was visible to other \
                 users. If it is a real key, move its tokens to a new one. To import a key: tally-wallet keys import \
                 NAME"
                    .into()
            }
            WalletError::Target(TargetError::NoSuchKey(_)) => {
                "give an address (tally1…), or one of the names that `tally-wallet keys list` shows".into()
            }
            WalletError::Target(TargetError::Address(_)) => {
                "copy the whole address: 64 characters that start with tally1".into()
            }
            WalletError::Amount(_) => "write the amount in tokens, for example 12.5".into(),
            WalletError::Config(error) => match error {
                ConfigError::NetworkNotFound(_) => {
                    "see `tally-wallet network list`, or add it: tally-wallet network add NAME --node URL".into()
                }
                ConfigError::NetworkExists(_) => {
                    "choose another name; to replace it, first delete its part of config.toml".into()
                }
                _ => "correct it and try again".into(),
            },
            WalletError::Usage(error) => usage_next_step(error).into(),
            WalletError::File(error) => match error {
                FileError::Read { .. } | FileError::Write { .. } => "correct the name, or the rights of the file",
                FileError::Envelope { problem: EnvelopeError::Unsigned, .. } => {
                    "sign it first: tally-wallet tx sign FILE --out FILE.signed"
                }
                FileError::Envelope { problem: EnvelopeError::Signed, .. } => "send it: tally-wallet tx submit FILE",
                FileError::Envelope { problem: EnvelopeError::OtherKey { .. }, .. } => {
                    "sign it where that key is, or name it with --from"
                }
                FileError::Envelope { .. } => "make it again: tally-wallet send TO AMOUNT --build-only --out FILE",
                FileError::Line { .. } => "correct that line; nothing was signed or sent",
                FileError::Journal { .. } => {
                    "do not delete it before you know what it says: it alone knows which lines were paid"
                }
                FileError::Locked { .. } => "wait until that one ends",
            }
            .into(),
            WalletError::Envelope(_) => "correct the arguments; nothing was sent".into(),
            WalletError::Proof(_) => {
                "compare text, address and network with what was signed: one changed character is another text".into()
            }
            WalletError::Unwell(..) => "each says what to do".into(),
            WalletError::Chain(_) => "nothing was signed. Use a node of this network, or add the other chain as a \
                                      network of its own: tally-wallet network add NAME --node URL"
                .into(),
            WalletError::Stdout { .. }
            | WalletError::Randomness(_)
            | WalletError::Start(_)
            | WalletError::Interrupted => String::new(),
        }
    }
}

fn keystore_next_step(error: &KeystoreError) -> &'static str {
    match error {
        KeystoreError::Name(_) => "choose another name",
        KeystoreError::NotFound { .. } => "see `tally-wallet keys list`, or make it: tally-wallet keys new NAME",
        KeystoreError::Exists { .. } => "choose another name; the existing key was not touched",
        KeystoreError::File { problem: FormatError::Passphrase, .. } => {
            "try again; without the passphrase the key comes back only from its words: tally-wallet keys import NAME"
        }
        KeystoreError::File { problem: FormatError::Memory { .. }, .. } => "try again where there is more memory",
        KeystoreError::File { .. } => {
            "move the file away and bring the key back from its words: tally-wallet keys import NAME"
        }
        KeystoreError::Renamed { .. } => "give the file the name of its key again",
        KeystoreError::Io { .. } | KeystoreError::Randomness(_) => "correct it and try again",
    }
}

fn usage_next_step(error: &UsageError) -> &'static str {
    match error {
        UsageError::NoNetwork | UsageError::NotPinned => {
            "add the network once (tally-wallet network add NAME --node URL), then name it with --network NAME"
        }
        UsageError::NoNode => "give --node http://HOST:PORT",
        UsageError::NodeUrl(_) => {
            "write it like http://127.0.0.1:9101. This wallet speaks no TLS itself: reach a far node through a tunnel"
        }
        UsageError::NoSender(0) => "make a key: tally-wallet keys new NAME",
        UsageError::NoSender(_) => "give --from NAME, or put from = \"NAME\" into config.toml",
        UsageError::NoConfigFolder => "give --config-dir DIR",
        UsageError::MemoTooLong(_) => "shorten the memo",
        UsageError::ExpireIn { .. } => "give a shorter --expire-in",
        UsageError::AmountZero => "give an amount above zero, for example 12.5",
        UsageError::TooManyNodes(_) => "name fewer",
        UsageError::ContactNotFound(_) => "see `tally-wallet contacts list`",
        UsageError::ContactIsKey(_) => "choose another name for the contact",
        UsageError::KeyIsContact(_) => {
            "choose another name for the key, or forget the contact: tally-wallet contacts remove NAME"
        }
        UsageError::ChainNotPinned(_) => {
            "pin it first: `tally-wallet network show` prints the command where it is pinned already"
        }
        UsageError::OtherChain { .. } => "nothing was signed. Name the network that the transaction is for",
        UsageError::NotASignature => "copy the whole signature that `tally-wallet message sign` printed",
        UsageError::NotABlock(_) => "see `tally-wallet chain info` for the heights",
        UsageError::Secret(_) | UsageError::Words => "",
    }
}
