//! Why a transaction does not do what it says: stable names, exact numbers, and a fixed precedence.
//!
//! The first that applies, in this order, is the answer, at admission as in a block:
//!
//! 1. [`Discard`], in the order of its variants, the fee's coverage last;
//! 2. [`Failure::AmountOverflow`] of the whole transaction;
//! 3. per operation, in order: CreateAccount is refused for `AccountAlreadyExists`, `KeyInvalid`, `OpeningBalanceTooLow`,
//!    `InsufficientFunds`; Transfer for `RecipientNotFound`, `InsufficientFunds`.
//!
//! The names are those of `tally.v1.ErrorReason` without `ERROR_REASON_`; the metadata is what its comments promise.
//! Times in metadata are Unix milliseconds.

use tally_types::{Address, Amount, Nonce, UnixMillis};
use thiserror::Error;

use crate::account::{NONCE_WINDOW, NonceError};

/// Why a transaction leaves no trace: no receipt, no index, no fee. It cannot even pay.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Discard {
    /// No account has that address.
    #[error("account {address} does not exist; an existing account must open it first")]
    SenderUnknown {
        /// The sender.
        address: Address,
    },
    /// The block's time is after it.
    #[error("the transaction expired at {expire_time}, it is now {block_time} (Unix milliseconds); sign a new one")]
    Expired {
        /// When it expired.
        expire_time: UnixMillis,
        /// Time of the block, or of the admission.
        block_time: UnixMillis,
    },
    /// Further ahead than the chain allows.
    #[error("expire_time {expire_time} is too far ahead: at most {latest_allowed} (Unix milliseconds) is allowed now")]
    ExpiryTooFar {
        /// When it would expire.
        expire_time: UnixMillis,
        /// The latest allowed now.
        latest_allowed: UnixMillis,
    },
    /// Below the window of nonces.
    #[error("nonce {nonce} is too low: the lowest free nonce is {lowest}")]
    NonceTooLow {
        /// The nonce.
        nonce: Nonce,
        /// The lowest that can be used.
        lowest: Nonce,
    },
    /// Another transaction of this sender used it, or this one did.
    #[error("nonce {nonce} is already used: the lowest free nonce is {lowest}")]
    NonceInUse {
        /// The nonce.
        nonce: Nonce,
        /// The lowest that can be used.
        lowest: Nonce,
    },
    /// More than [`NONCE_WINDOW`] ahead.
    #[error("nonce {nonce} is too high: it may be at most {NONCE_WINDOW} above {highest}")]
    NonceTooHigh {
        /// The nonce.
        nonce: Nonce,
        /// The highest one used, or admitted.
        highest: Nonce,
    },
    /// The sender allows less than the fee.
    #[error("the fee is {needed} base units, max_fee allows {max_fee}")]
    FeeTooLow {
        /// Most the sender will pay.
        max_fee: Amount,
        /// The fee.
        needed: Amount,
    },
    /// The sender has less than the fee.
    #[error("the fee is {needed} base units, the balance is {balance}")]
    FeeNotCovered {
        /// What the sender has.
        balance: Amount,
        /// The fee.
        needed: Amount,
    },
}

/// Why a transaction costs its fee and its nonce and does nothing else.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Failure {
    /// The amounts up to this operation add up to more than 2^64-1.
    #[error("the amounts of the transaction add up to more than 2^64-1 base units")]
    AmountOverflow,
    /// The sender has less than fee and amounts up to this operation.
    #[error("{needed} base units are needed with the fee, the balance is {balance}")]
    InsufficientFunds {
        /// What the sender had before the transaction.
        balance: Amount,
        /// Fee and amounts up to this operation; 2^64-1 if they are more.
        needed: Amount,
    },
    /// A transfer to an account that does not exist.
    #[error("account {address} does not exist; open it with CreateAccount")]
    RecipientNotFound {
        /// Its address.
        address: Address,
    },
    /// An account to open that exists.
    #[error("account {address} already exists; send to it with Transfer")]
    AccountAlreadyExists {
        /// Its address.
        address: Address,
    },
    /// An account to open that nobody could sign for.
    #[error("{address} is no key anybody can sign with; tokens sent there would be lost")]
    KeyInvalid {
        /// Its address.
        address: Address,
    },
    /// An account to open with too little.
    #[error("an account opens with at least {minimum} base units, not {opening_balance}")]
    OpeningBalanceTooLow {
        /// What it would have opened with.
        opening_balance: Amount,
        /// Least allowed.
        minimum: Amount,
    },
}

/// Why a transaction does not do what it says.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Rejection {
    /// It would leave no trace.
    #[error(transparent)]
    Discard(#[from] Discard),
    /// It would cost its fee and do nothing.
    #[error("operation {operation}: {failure}")]
    Failure {
        /// The operation that fails, from 0.
        operation: u32,
        /// Why.
        failure: Failure,
    },
}

impl From<NonceError> for Discard {
    fn from(error: NonceError) -> Discard {
        match error {
            NonceError::TooLow { nonce, lowest } => Discard::NonceTooLow { nonce, lowest },
            NonceError::InUse { nonce, lowest } => Discard::NonceInUse { nonce, lowest },
            NonceError::TooHigh { nonce, highest } => Discard::NonceTooHigh { nonce, highest },
        }
    }
}

impl Discard {
    /// Its name in `tally.v1.ErrorReason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Discard::SenderUnknown { .. } => "ACCOUNT_NOT_FOUND",
            Discard::Expired { .. } => "EXPIRED",
            Discard::ExpiryTooFar { .. } => "EXPIRY_TOO_FAR",
            Discard::NonceTooLow { .. } => "NONCE_TOO_LOW",
            Discard::NonceInUse { .. } => "NONCE_IN_USE",
            Discard::NonceTooHigh { .. } => "NONCE_TOO_HIGH",
            Discard::FeeTooLow { .. } => "FEE_TOO_LOW",
            Discard::FeeNotCovered { .. } => "INSUFFICIENT_FUNDS",
        }
    }

    /// Its metadata. `tx_id` of `NONCE_IN_USE` is for the caller to add: the ledger knows that a nonce was used, not by
    /// which transaction.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Discard::SenderUnknown { address } => vec![("address", address.to_string())],
            Discard::Expired { expire_time, block_time } => {
                vec![("expire_time", expire_time.to_string()), ("block_time", block_time.to_string())]
            }
            Discard::ExpiryTooFar { expire_time, latest_allowed } => {
                vec![("expire_time", expire_time.to_string()), ("latest_allowed", latest_allowed.to_string())]
            }
            Discard::NonceTooLow { nonce, lowest } => {
                vec![("nonce", nonce.to_string()), ("lowest", lowest.to_string())]
            }
            Discard::NonceInUse { nonce, .. } => vec![("nonce", nonce.to_string())],
            Discard::NonceTooHigh { nonce, highest } => {
                vec![("nonce", nonce.to_string()), ("highest", highest.to_string())]
            }
            Discard::FeeTooLow { max_fee, needed } => {
                vec![("max_fee", max_fee.to_string()), ("needed", needed.to_string())]
            }
            Discard::FeeNotCovered { balance, needed } => funds(*balance, *needed),
        }
    }
}

impl Failure {
    /// Its name in `tally.v1.ErrorReason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Failure::AmountOverflow => "AMOUNT_OVERFLOW",
            Failure::InsufficientFunds { .. } => "INSUFFICIENT_FUNDS",
            Failure::RecipientNotFound { .. } => "RECIPIENT_NOT_FOUND",
            Failure::AccountAlreadyExists { .. } => "ACCOUNT_ALREADY_EXISTS",
            Failure::KeyInvalid { .. } => "KEY_INVALID",
            Failure::OpeningBalanceTooLow { .. } => "OPENING_BALANCE_TOO_LOW",
        }
    }

    /// Its metadata, but for the `operation` of `AMOUNT_OVERFLOW`, which [`Rejection::metadata`] adds.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Failure::AmountOverflow => Vec::new(),
            Failure::InsufficientFunds { balance, needed } => funds(*balance, *needed),
            Failure::RecipientNotFound { address }
            | Failure::AccountAlreadyExists { address }
            | Failure::KeyInvalid { address } => vec![("address", address.to_string())],
            Failure::OpeningBalanceTooLow { opening_balance, minimum } => {
                vec![("opening_balance", opening_balance.to_string()), ("minimum", minimum.to_string())]
            }
        }
    }
}

impl Rejection {
    /// Its name in `tally.v1.ErrorReason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Rejection::Discard(discard) => discard.reason(),
            Rejection::Failure { failure, .. } => failure.reason(),
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Rejection::Discard(discard) => discard.metadata(),
            Rejection::Failure { operation, failure: Failure::AmountOverflow } => {
                vec![("operation", operation.to_string())]
            }
            Rejection::Failure { failure, .. } => failure.metadata(),
        }
    }
}

fn funds(balance: Amount, needed: Amount) -> Vec<(&'static str, String)> {
    let missing = needed.checked_sub(balance).unwrap_or_default();
    vec![("balance", balance.to_string()), ("needed", needed.to_string()), ("missing", missing.to_string())]
}

#[cfg(test)]
mod tests {
    use tally_proto::v1::ErrorReason;

    use super::*;

    fn all() -> Vec<(Rejection, ErrorReason, &'static str)> {
        let address = Address([7; 32]);
        let (balance, needed) = (Amount(5), Amount(8));
        let (nonce, lowest, highest) = (Nonce(3), Nonce(9), Nonce(200));
        let (expire_time, block_time, latest_allowed) = (UnixMillis(1), UnixMillis(2), UnixMillis(3));
        let discard = Rejection::Discard;
        let failure = |failure| Rejection::Failure { operation: 4, failure };
        vec![
            (discard(Discard::SenderUnknown { address }), ErrorReason::AccountNotFound, "address"),
            (discard(Discard::Expired { expire_time, block_time }), ErrorReason::Expired, "expire_time=1 block_time=2"),
            (
                discard(Discard::ExpiryTooFar { expire_time, latest_allowed }),
                ErrorReason::ExpiryTooFar,
                "expire_time=1 latest_allowed=3",
            ),
            (discard(Discard::NonceTooLow { nonce, lowest }), ErrorReason::NonceTooLow, "nonce=3 lowest=9"),
            (discard(Discard::NonceInUse { nonce, lowest }), ErrorReason::NonceInUse, "nonce=3"),
            (discard(Discard::NonceTooHigh { nonce, highest }), ErrorReason::NonceTooHigh, "nonce=3 highest=200"),
            (discard(Discard::FeeTooLow { max_fee: balance, needed }), ErrorReason::FeeTooLow, "max_fee=5 needed=8"),
            (
                discard(Discard::FeeNotCovered { balance, needed }),
                ErrorReason::InsufficientFunds,
                "balance=5 needed=8 missing=3",
            ),
            (failure(Failure::AmountOverflow), ErrorReason::AmountOverflow, "operation=4"),
            (
                failure(Failure::InsufficientFunds { balance, needed }),
                ErrorReason::InsufficientFunds,
                "balance=5 needed=8 missing=3",
            ),
            (failure(Failure::RecipientNotFound { address }), ErrorReason::RecipientNotFound, "address"),
            (failure(Failure::AccountAlreadyExists { address }), ErrorReason::AccountAlreadyExists, "address"),
            (failure(Failure::KeyInvalid { address }), ErrorReason::KeyInvalid, "address"),
            (
                failure(Failure::OpeningBalanceTooLow { opening_balance: balance, minimum: needed }),
                ErrorReason::OpeningBalanceTooLow,
                "opening_balance=5 minimum=8",
            ),
        ]
    }

    #[test]
    fn names_and_metadata_are_those_of_the_contract() {
        for (rejection, reason, metadata) in all() {
            assert_eq!(format!("ERROR_REASON_{}", rejection.reason()), reason.as_str_name());
            let shown: Vec<_> = rejection.metadata().iter().map(|(key, value)| format!("{key}={value}")).collect();
            let expected = match metadata {
                "address" => format!("address={}", Address([7; 32])),
                other => other.to_owned(),
            };
            assert_eq!(shown.join(" "), expected);
        }
    }

    #[test]
    fn people_read_what_happened_and_what_to_do() {
        let [.., low] = &all()[..] else { unreachable!() };
        assert_eq!(low.0.to_string(), "operation 4: an account opens with at least 8 base units, not 5");
        let in_use = Discard::NonceInUse { nonce: Nonce(7), lowest: Nonce(9) };
        assert_eq!(in_use.to_string(), "nonce 7 is already used: the lowest free nonce is 9");
    }
}
