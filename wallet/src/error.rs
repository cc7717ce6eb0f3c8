//! What a command can end in: an exit code for scripts, and for people what happened and what to do next.

mod advice;
mod own;

pub use own::{OWN_REASONS, OwnReason};
use std::{collections::BTreeMap, io, path::PathBuf, time::SystemTime};

use tally_types::{Amount, Hash, amount::AmountError, transaction::TransactionError};
use thiserror::Error;

use crate::{
    client::{ChainError, NodeError},
    config::ConfigError,
    envelope::EnvelopeError,
    keystore::{FormatError, KeystoreError},
    output::rfc3339,
    prompt::InputError,
    target::TargetError,
    token::Token,
};

/// Exit codes. They are part of the interface: scripts tell outcomes apart by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The result cannot be written, or the program cannot start.
    Failure = 1,
    /// Wrong arguments or configuration.
    Usage = 2,
    /// The node cannot be reached, or cannot serve yet.
    Unreachable = 3,
    /// Rejected: it will not run.
    Rejected = 4,
    /// It ran in a block and failed there.
    FailedInBlock = 5,
    /// Nobody knows yet.
    Unknown = 6,
    /// Expired: it never ran and never will.
    NeverRan = 7,
    /// A key, a passphrase, or a question without an answer.
    Key = 8,
    /// What was asked for does not exist.
    NotFound = 9,
    /// The node follows another chain than the pinned one.
    WrongNetwork = 10,
    /// Ctrl-C.
    Interrupted = 130,
}

/// Why a command did not do what it was asked.
#[derive(Debug, Error)]
pub enum WalletError {
    /// Keys.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Questions and secrets.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Not an account.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Not an amount.
    #[error(transparent)]
    Amount(#[from] AmountError),
    /// A selection that is missing or contradicts another.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The node says no, or nothing.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Another chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Found out before anything was signed.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// A file that is not what it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// A transaction that this wallet itself could not make.
    #[error("this makes no valid transaction: it {0}")]
    Envelope(#[from] EnvelopeError),
    /// A message whose signature does not hold.
    #[error("the signature is not that of {0} over this text on this network")]
    Proof(String),
    /// Something that `doctor` found; its own words were the result.
    #[error("{0} of the checks above found something wrong")]
    Unwell(usize, Exit),
    /// A signed transaction that did not become final and good.
    #[error(transparent)]
    Fate(Box<Fate>),
    /// Stdout is gone.
    #[error("{done}cannot write the result: {source}")]
    Stdout {
        /// What is done all the same, for a person who would do it again; may be empty.
        done: String,
        /// Why not.
        source: io::Error,
    },
    /// No randomness for a new key.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(getrandom::Error),
    /// The program cannot start.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// What is missing or contradictory in the arguments.
#[derive(Debug, Error)]
pub enum UsageError {
    /// Neither flag nor configuration names a network or a node.
    #[error("no network is chosen")]
    NoNetwork,
    /// `network add` without a node.
    #[error("`network add` needs the URL of a node")]
    NoNode,
    /// Signing for a chain that nothing pins.
    #[error("nothing is signed for a node alone: only a named network has its chain pinned")]
    NotPinned,
    /// A URL that is none, or needs TLS.
    #[error("{0:?} is not a node URL of the form http://HOST:PORT")]
    NodeUrl(String),
    /// No key to pay from.
    #[error("which key? The keystore has {0}, and --from does not say")]
    NoSender(usize),
    /// A secret where a name belongs.
    #[error("what stands where a name belongs looks like {0}")]
    Secret(crate::target::SecretKind),
    /// Words given as arguments.
    #[error("the words of a key stand on the command line")]
    Words,
    /// No home folder.
    #[error("there is no folder for the configuration: neither XDG_CONFIG_HOME nor HOME is set")]
    NoConfigFolder,
    /// The memo is too long.
    #[error("the memo has {0} bytes, at most 256 are allowed")]
    MemoTooLong(usize),
    /// The distance to the expiry is too great.
    #[error("--expire-in is above {}, the most this chain allows", humantime::format_duration(*.max))]
    ExpireIn {
        /// The chain's limit.
        max: std::time::Duration,
    },
    /// Nothing to move.
    #[error("the amount is zero")]
    AmountZero,
    /// More nodes than are asked at a time.
    #[error("{0} nodes are named, at most 16 are asked at a time")]
    TooManyNodes(usize),
    /// No contact has this name.
    #[error("there is no contact {0:?}")]
    ContactNotFound(String),
    /// The contact would hide behind an own key.
    #[error("{0:?} is the name of an own key")]
    ContactIsKey(String),
    /// The key would hide a contact.
    #[error("{0:?} is the name of a contact: whoever is paid by that name would change")]
    KeyIsContact(String),
    /// A file for a chain that no network here is pinned to.
    #[error("no network of this wallet is pinned to the chain {0:?} of the transaction")]
    ChainNotPinned(String),
    /// A file for another chain than that of the network named.
    #[error("the transaction is for the chain with genesis hash {got}, the network {network:?} is pinned to {pinned}")]
    OtherChain {
        /// Network named by `--network`.
        network: String,
        /// Its genesis hash.
        pinned: String,
        /// The file's.
        got: String,
    },
    /// Not a signature.
    #[error("what stands where a signature belongs is not 128 hex digits")]
    NotASignature,
    /// Not a block.
    #[error("{0:?} is neither a height, nor a header's hash of 64 hex digits, nor \"latest\"")]
    NotABlock(String),
}

/// What is wrong with a file that was named.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}", .file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds no transaction, or not the right one.
    #[error("{} {problem}", .file.display())]
    Envelope {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: EnvelopeError,
    },
    /// A line of a list of payments is wrong.
    #[error("{} line {line}: {problem}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A journal of another list, sender or chain, or a damaged one.
    #[error("the journal {} {problem}", .file.display())]
    Journal {
        /// The journal.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another process works on it.
    #[error("{} is in use by another tally-wallet", .file.display())]
    Locked {
        /// A journal, or a folder of this wallet.
        file: PathBuf,
    },
}

/// Why nothing was signed although the arguments are right.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The balance is too small.
    #[error(
        "balance {} is {} short of {} (amount {} + fee {})",
        .token.number(*.balance), .token.number(*.missing), .token.number(*.needed), .token.number(*.amount),
        .token.number(*.fee)
    )]
    Shortage {
        /// What the account holds.
        balance: Amount,
        /// What it lacks.
        missing: Amount,
        /// Amount and fee.
        needed: Amount,
        /// What was to be moved.
        amount: Amount,
        /// What the chain charges.
        fee: Amount,
        /// How amounts are written.
        token: Token,
    },
    /// The limit set for the fee is below the fee.
    #[error("the fee is {}, above the limit of {}", .token.show(*.fee), .token.show(*.max_fee))]
    FeeTooLow {
        /// What the chain charges.
        fee: Amount,
        /// What the sender would pay.
        max_fee: Amount,
        /// How amounts are written.
        token: Token,
    },
    /// Too little to open an account.
    #[error("an account opens with at least {}, not with {}", .token.show(*.minimum), .token.show(*.amount))]
    OpeningBalanceTooLow {
        /// The chain's minimum.
        minimum: Amount,
        /// What was given.
        amount: Amount,
        /// How amounts are written.
        token: Token,
    },
    /// More than any account can hold.
    #[error("amount and fee together are more than any account can hold")]
    Overflow,
}

/// What became of a signed transaction, when that is not success.
#[derive(Debug, Error)]
pub enum Fate {
    /// It is in a block, and had no effect there but its fee.
    #[error("transaction {id} failed in block {height}, according to {node}: {why}; only its fee of {fee} was charged")]
    Failed {
        /// The transaction.
        id: Hash,
        /// Its block.
        height: u64,
        /// Who says so.
        node: String,
        /// Stable name of the reason.
        reason: String,
        /// The reason in words.
        why: String,
        /// What to do about it.
        next: String,
        /// Fee charged, with its symbol.
        fee: String,
    },
    /// Nothing certain is known.
    #[error("the outcome of transaction {id} is not known yet: {why}; {}", until(*.expire_time, *.past))]
    Unknown {
        /// The transaction.
        id: Hash,
        /// What the node said last, or why it said nothing.
        why: String,
        /// Last moment at which it may run, when this wallet knows it.
        expire_time: Option<SystemTime>,
        /// Whether a block's time is past it already.
        past: bool,
        /// The command that waits on.
        wait: String,
    },
    /// It can never run.
    #[error(
        "transaction {id} expired and never ran, according to {node} at height {height}: nothing moved, no fee was charged"
    )]
    NeverRan {
        /// The transaction.
        id: Hash,
        /// Who says so.
        node: String,
        /// Height the answer speaks of.
        height: u64,
    },
}

fn until(expire_time: Option<SystemTime>, past: bool) -> String {
    match expire_time {
        _ if past => "its expire time is over, so it ran before or never will".into(),
        Some(time) => format!("it may still run until {}, and never after", rfc3339(time)),
        None => "it may still run until its expire time, and never after".into(),
    }
}

impl From<Fate> for WalletError {
    fn from(fate: Fate) -> WalletError {
        WalletError::Fate(Box::new(fate))
    }
}

impl WalletError {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            WalletError::Target(TargetError::Keystore(_)) | WalletError::Keystore(_) => Exit::Key,
            WalletError::Input(InputError::Interrupted) | WalletError::Interrupted => Exit::Interrupted,
            WalletError::Input(_) => Exit::Key,
            WalletError::Config(ConfigError::NetworkNotFound(_)) => Exit::NotFound,
            WalletError::Config(_) | WalletError::Target(_) | WalletError::Amount(_) => Exit::Usage,
            WalletError::Usage(UsageError::NoSender(_)) => Exit::Key,
            WalletError::Usage(UsageError::ContactNotFound(_)) => Exit::NotFound,
            WalletError::Usage(UsageError::OtherChain { .. } | UsageError::ChainNotPinned(_)) => Exit::WrongNetwork,
            WalletError::File(FileError::Envelope { problem: EnvelopeError::OtherKey { .. }, .. }) => Exit::Key,
            WalletError::File(FileError::Envelope {
                problem: EnvelopeError::Transaction(TransactionError::Signature),
                ..
            })
            | WalletError::Proof(_) => Exit::WrongNetwork,
            WalletError::File(FileError::Locked { .. }) => Exit::Failure,
            WalletError::File(FileError::Write { .. }) => Exit::Failure,
            WalletError::File(_) | WalletError::Envelope(_) => Exit::Usage,
            WalletError::Unwell(_, exit) => *exit,
            WalletError::Usage(_) => Exit::Usage,
            WalletError::Node(error) => error.exit,
            WalletError::Chain(_) => Exit::WrongNetwork,
            WalletError::Refusal(_) => Exit::Rejected,
            WalletError::Fate(fate) => match **fate {
                Fate::Failed { .. } => Exit::FailedInBlock,
                Fate::Unknown { .. } => Exit::Unknown,
                Fate::NeverRan { .. } => Exit::NeverRan,
            },
            WalletError::Stdout { .. } | WalletError::Randomness(_) | WalletError::Start(_) => Exit::Failure,
        }
    }

    /// A stable name for scripts: those of `tally.v1.ErrorReason` where a node would use them.
    pub fn reason(&self) -> String {
        let name = match self {
            WalletError::Node(error) => return error.reason.clone(),
            WalletError::Fate(fate) => match &**fate {
                Fate::Failed { reason, .. } => return reason.clone(),
                Fate::Unknown { .. } => "OUTCOME_UNKNOWN",
                Fate::NeverRan { .. } => "EXPIRED",
            },
            WalletError::Refusal(refusal) => match refusal {
                Refusal::Shortage { .. } => "INSUFFICIENT_FUNDS",
                Refusal::FeeTooLow { .. } => "FEE_TOO_LOW",
                Refusal::OpeningBalanceTooLow { .. } => "OPENING_BALANCE_TOO_LOW",
                Refusal::Overflow => "AMOUNT_OVERFLOW",
            },
            WalletError::Keystore(error) | WalletError::Target(TargetError::Keystore(error)) => match error {
                KeystoreError::NotFound { .. } => "KEY_NOT_FOUND",
                KeystoreError::Exists { .. } => "KEY_EXISTS",
                KeystoreError::File { problem: FormatError::Passphrase, .. } => "PASSPHRASE_WRONG",
                KeystoreError::Name(_) => "KEY_NAME_INVALID",
                _ => "KEY_FILE",
            },
            WalletError::Input(InputError::NobodyToAsk { .. }) => "PROMPT_IMPOSSIBLE",
            WalletError::Input(InputError::Declined) => "NOT_CONFIRMED",
            WalletError::Input(InputError::OtherRecipient) => "RECIPIENT_NOT_CONFIRMED",
            WalletError::Input(InputError::OtherBackup { .. }) => "BACKUP_DIFFERS",
            WalletError::Input(InputError::Interrupted) | WalletError::Interrupted => "INTERRUPTED",
            WalletError::Input(_) => "SECRET_INPUT",
            WalletError::Target(TargetError::Secret(_))
            | WalletError::Usage(UsageError::Secret(_) | UsageError::Words) => "SECRET_TYPED",
            WalletError::Target(_) => "ADDRESS_INVALID",
            WalletError::Amount(_) => "AMOUNT_INVALID",
            WalletError::Config(ConfigError::NetworkNotFound(_)) => "NETWORK_NOT_FOUND",
            WalletError::Config(ConfigError::NetworkExists(_)) => "NETWORK_EXISTS",
            WalletError::Config(_) => "CONFIG",
            WalletError::Usage(UsageError::ContactNotFound(_)) => "CONTACT_NOT_FOUND",
            WalletError::Usage(UsageError::OtherChain { .. } | UsageError::ChainNotPinned(_)) => "WRONG_NETWORK",
            WalletError::Usage(_) => "USAGE",
            WalletError::File(error) => match error {
                FileError::Read { .. } | FileError::Write { .. } => "FILE",
                FileError::Envelope { problem: EnvelopeError::OtherKey { .. }, .. } => "KEY_NOT_FOUND",
                FileError::Envelope { .. } => "TRANSACTION_FILE",
                FileError::Line { .. } => "PAYMENT_FILE",
                FileError::Journal { .. } => "JOURNAL",
                FileError::Locked { .. } => "IN_USE",
            },
            WalletError::Envelope(_) => "TRANSACTION_INVALID",
            WalletError::Proof(_) => "SIGNATURE_INVALID",
            WalletError::Unwell(..) => "UNWELL",
            WalletError::Chain(_) => "WRONG_NETWORK",
            WalletError::Stdout { .. } => "STDOUT",
            WalletError::Randomness(_) | WalletError::Start(_) => "SYSTEM",
        };
        name.into()
    }

    /// The same error, after something was done that must not be done again because of it.
    #[must_use]
    pub fn after(self, done: &str) -> WalletError {
        match self {
            WalletError::Stdout { source, .. } => WalletError::Stdout { done: format!("{done}; "), source },
            error => error,
        }
    }

    /// Facts for scripts.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        match self {
            WalletError::Node(error) => error.metadata.clone(),
            WalletError::Fate(fate) => match &**fate {
                Fate::Failed { id, height, .. } | Fate::NeverRan { id, height, .. } => {
                    pairs([("txId", id.to_string()), ("height", height.to_string())])
                }
                Fate::Unknown { id, expire_time, .. } => {
                    let mut facts = pairs([("txId", id.to_string())]);
                    facts.extend(expire_time.map(|time| ("expireTime".to_owned(), rfc3339(time))));
                    facts
                }
            },
            WalletError::Refusal(Refusal::Shortage { balance, missing, needed, .. }) => pairs([
                ("balance", balance.to_string()),
                ("missing", missing.to_string()),
                ("needed", needed.to_string()),
            ]),
            WalletError::Chain(error) => {
                pairs([("field", error.field.to_owned()), ("pinned", error.pinned.clone()), ("got", error.got.clone())])
            }
            _ => BTreeMap::new(),
        }
    }
}

fn pairs<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::new("TALLY", 9).unwrap()
    }

    #[test]
    fn a_shortage_says_by_how_much() {
        let refusal = Refusal::Shortage {
            balance: Amount(3_000_000_000),
            missing: Amount(9_501_000_000),
            needed: Amount(12_501_000_000),
            amount: Amount(12_500_000_000),
            fee: Amount(1_000_000),
            token: token(),
        };
        assert_eq!(refusal.to_string(), "balance 3 is 9.501 short of 12.501 (amount 12.5 + fee 0.001)");
        let error = WalletError::from(refusal);
        assert_eq!((error.exit(), error.reason().as_str()), (Exit::Rejected, "INSUFFICIENT_FUNDS"));
    }

    #[test]
    fn an_unknown_outcome_is_never_called_a_failure() {
        let error = WalletError::from(Fate::Unknown {
            id: Hash::of(b"tx"),
            why: "http://n has it as pending".into(),
            expire_time: Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000)),
            past: false,
            wait: "tally-wallet tx wait X".into(),
        });
        let text = format!("{error} {}", error.next_step());
        assert!(!text.contains("fail"), "{text}");
        assert!(text.contains("may still run until 2027-01-15T08:00:00Z"), "{text}");
        assert!(text.contains("tally-wallet tx wait X"), "{text}");
        assert_eq!(error.exit(), Exit::Unknown);
    }
}
