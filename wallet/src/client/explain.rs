//! The node's reasons in words: what happened, and what to do next.
//!
//! The `match` has no wildcard on purpose: a reason added to `error.proto` does not compile here until it has words.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tally_proto::v1::ErrorReason;
use tally_types::Amount;

use crate::{error::Exit, output::rfc3339, token::Token};

/// What a reason came with.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Metadata of the ErrorInfo.
    pub metadata: &'a BTreeMap<String, String>,
    /// How amounts are written, when the chain is known.
    pub token: Option<&'a Token>,
}

/// A reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Exit code.
    pub exit: Exit,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub next: String,
    /// Whether the node's own message says more.
    pub vague: bool,
}

impl Facts<'_> {
    fn get(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("(not told)", String::as_str)
    }

    /// Times come as milliseconds of Unix time.
    fn time(&self, key: &str) -> String {
        let millis = self.metadata.get(key).and_then(|text| text.parse().ok());
        match millis.and_then(|millis| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))) {
            Some(time) => rfc3339(time),
            None => self.get(key).to_owned(),
        }
    }

    fn amount(&self, key: &str) -> String {
        let base = self.metadata.get(key).and_then(|text| text.parse().ok()).map(Amount);
        match (base, self.token) {
            (Some(base), Some(token)) => token.show(base),
            (Some(base), None) => format!("{base} base units"),
            (None, _) => "(not told)".into(),
        }
    }
}

/// `reason`, as it stands in ErrorInfo or in a receipt, in words.
pub fn explain(reason: &str, facts: &Facts<'_>) -> Explained {
    use ErrorReason as R;
    let known = ErrorReason::from_str_name(&format!("ERROR_REASON_{reason}")).unwrap_or(R::Unspecified);
    let amount = |key: &str| facts.amount(key);
    let get = |key: &str| facts.get(key);
    let time = |key: &str| facts.time(key);
    let bug = "this should not happen: check the versions of node and wallet";
    let later = "try again in a moment, or ask another node with --node URL";
    let (exit, message, next) = match known {
        R::Unspecified => (
            Exit::Rejected,
            format!(
                "the node refused with the reason {:?}, which this wallet does not know",
                crate::output::clean(reason)
            ),
            "check the versions of node and wallet".into(),
        ),
        // Whether it took the transaction is not known then: to try again with the same bytes is safe.
        R::Internal => (Exit::Unknown, "the node failed; its operator finds the cause in its log".into(), later.into()),
        R::FieldInvalid => (Exit::Rejected, "the node calls a field wrong".into(), "correct that field".into()),
        R::AddressInvalid => (
            Exit::Rejected,
            format!("{:?} is not an address", get("value")),
            "copy the whole address: 64 characters that start with tally1".into(),
        ),
        R::UnknownField => (
            Exit::Rejected,
            format!("the node does not know field {} of the transaction", get("field_number")),
            "ask a node of a newer version with --node URL".into(),
        ),
        R::SignatureInvalid => (Exit::Rejected, "the node says the signature is not the sender's".into(), bug.into()),
        R::ChainIdMismatch => (
            Exit::WrongNetwork,
            format!("the transaction is for chain {}, the node follows {}", get("got"), get("expected")),
            "use a node of this network: --node URL".into(),
        ),
        R::AccountNotFound => (
            Exit::NotFound,
            format!("there is no account {}", get("address")),
            format!(
                "check the address; an account is opened by another one: tally-wallet create-account {} AMOUNT",
                get("address")
            ),
        ),
        R::RecipientNotFound => (
            Exit::Rejected,
            format!("the recipient {} has no account", get("address")),
            format!("open it, with a first balance: tally-wallet create-account {} AMOUNT", get("address")),
        ),
        R::AccountAlreadyExists => (
            Exit::Rejected,
            format!("the account {} exists already", get("address")),
            format!("pay into it: tally-wallet send {} AMOUNT", get("address")),
        ),
        R::InsufficientFunds => (
            Exit::Rejected,
            format!("balance {} is {} short of the {} needed", amount("balance"), amount("missing"), amount("needed")),
            "send less, or pay into the account first".into(),
        ),
        R::NonceTooLow => (
            Exit::Rejected,
            format!("nonce {} is used up or too old; the lowest good one is {}", get("nonce"), get("lowest")),
            "run it again without --nonce: the wallet takes the next free one".into(),
        ),
        R::NonceTooHigh => (
            Exit::Rejected,
            format!("nonce {} is more than 128 above the highest used one, {}", get("nonce"), get("highest")),
            "wait for earlier transactions, then run it again without --nonce".into(),
        ),
        R::NonceInUse => (
            Exit::Rejected,
            format!("nonce {} belongs to another transaction of this account, {}", get("nonce"), get("tx_id")),
            format!(
                "look at that one (tally-wallet tx show {}); if it is not this payment, run it again without --nonce",
                get("tx_id")
            ),
        ),
        R::Expired => (
            Exit::NeverRan,
            format!("it expired at {}, before the block time {}", time("expire_time"), time("block_time")),
            "send it again; if this repeats, set this machine's clock right".into(),
        ),
        R::ExpiryTooFar => (
            Exit::Rejected,
            format!(
                "its expire time {} is later than {}, the latest allowed",
                time("expire_time"),
                time("latest_allowed")
            ),
            "give a shorter --expire-in, and set this machine's clock right".into(),
        ),
        R::FeeTooLow => (
            Exit::Rejected,
            format!("the fee is {}, above the limit of {}", amount("needed"), amount("max_fee")),
            "leave --max-fee away, or raise it".into(),
        ),
        R::OpeningBalanceTooLow => (
            Exit::Rejected,
            format!("an account opens with at least {}, not with {}", amount("minimum"), amount("opening_balance")),
            "give the new account more".into(),
        ),
        R::MempoolFull => (Exit::Rejected, "the node has no room for more transactions now".into(), later.into()),
        R::NodeSyncing => (
            Exit::Unreachable,
            format!(
                "the node is still catching up: it is at height {}, the chain at {}",
                get("height"),
                get("highest_seen_height")
            ),
            later.into(),
        ),
        R::NodeBehind => (
            Exit::Unreachable,
            format!("the node is at height {}, below the {} asked for", get("height"), get("min_height")),
            later.into(),
        ),
        R::Pruned => (
            Exit::NotFound,
            format!("the node no longer has this: it begins at height {}", get("earliest_height")),
            "ask a node that keeps more, with --node URL".into(),
        ),
        R::TransactionNotFound => (
            Exit::NotFound,
            format!(
                "the node knows no transaction {} up to height {} ({})",
                get("tx_id"),
                get("height"),
                time("block_time")
            ),
            "it may be on its way until its expire time; wait for it with `tally-wallet tx wait ID`".into(),
        ),
        R::ValidatorNotFound => {
            (Exit::NotFound, format!("there is no validator {}", get("validator")), "check the address".into())
        }
        R::SlowConsumer => (
            Exit::Unreachable,
            "the node ended the stream because it was read too slowly".into(),
            format!("go on from height {}", get("next_height")),
        ),
        R::PageTokenInvalid => {
            (Exit::Rejected, "the list changed while it was being read".into(), "run the command again".into())
        }
        R::BodyMalformed => (
            Exit::Rejected,
            format!("the node cannot read field {} of the transaction: {}", get("field_number"), get("problem")),
            bug.into(),
        ),
        R::BodyTooLarge => (
            Exit::Rejected,
            format!("the transaction has {} bytes, at most {} are allowed", get("size"), get("maximum")),
            "shorten the memo".into(),
        ),
        R::OperationCountInvalid => (
            Exit::Rejected,
            format!("the transaction has {} operations, 1 to {} are allowed", get("operations"), get("maximum")),
            bug.into(),
        ),
        R::AmountZero => (
            Exit::Rejected,
            format!("operation {} moves nothing", get("operation")),
            "give an amount above zero".into(),
        ),
        R::KeyInvalid => (
            Exit::Rejected,
            format!("{} is the address of no usable key: tokens sent there would be lost", get("address")),
            "ask the recipient for the address again".into(),
        ),
        R::AmountOverflow => {
            (Exit::Rejected, "the amounts add up to more than any account can hold".into(), "send less".into())
        }
        R::SenderLimit => (
            Exit::Rejected,
            format!(
                "{} transactions of this account are waiting at this node, at most {} may",
                get("pending"),
                get("maximum")
            ),
            "wait until earlier ones are final, or use another node with --node URL".into(),
        ),
        R::BlockNotFound => (
            Exit::NotFound,
            "the node has no such block".into(),
            "see `tally-wallet chain info` for its heights".into(),
        ),
        R::TooManyStreams => (
            Exit::Unreachable,
            format!("the node serves at most {} such calls at a time", get("maximum")),
            later.into(),
        ),
        R::NotAccepting => (
            Exit::Unreachable,
            "the node takes no transactions: it is shutting down, or it is not a validator".into(),
            "use another node with --node URL".into(),
        ),
        R::RequestMalformed => (Exit::Rejected, "the node cannot read this wallet's request".into(), bug.into()),
        R::RequestTooLarge => (
            Exit::Rejected,
            format!("the request is larger than the {} bytes that the node takes", get("maximum")),
            "send less at a time".into(),
        ),
        R::MethodUnknown => (
            Exit::Rejected,
            "the node has no such method: it is older than this wallet".into(),
            "use another node with --node URL, or the wallet of the node's version".into(),
        ),
        R::DeadlineExceeded => {
            (Exit::Unreachable, "the node did not answer within the time it was given".into(), later.into())
        }
        R::RequestIncomplete => {
            (Exit::Unreachable, "the request did not reach the node whole in time".into(), later.into())
        }
    };
    Explained { exit, message, next, vague: matches!(known, R::Unspecified | R::FieldInvalid | R::SignatureInvalid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_reason() -> Vec<ErrorReason> {
        let all: Vec<_> = (0..1000).filter_map(|number| ErrorReason::try_from(number).ok()).collect();
        assert!(all.len() >= 35, "the enum has at least the reasons of the first version");
        all
    }

    fn short_name(reason: ErrorReason) -> &'static str {
        reason.as_str_name().strip_prefix("ERROR_REASON_").unwrap()
    }

    #[test]
    fn every_reason_of_the_contract_has_its_own_words() {
        let metadata = BTreeMap::new();
        let facts = Facts { metadata: &metadata, token: None };
        let unknown = explain("NOT_A_REASON", &facts);
        assert!(unknown.message.contains("NOT_A_REASON"));
        let mut messages = std::collections::BTreeSet::new();
        for reason in every_reason().into_iter().filter(|reason| *reason != ErrorReason::Unspecified) {
            let explained = explain(short_name(reason), &facts);
            assert!(!explained.message.contains("does not know") || reason == ErrorReason::UnknownField, "{reason:?}");
            assert!(!explained.next.is_empty(), "{reason:?}");
            assert!(messages.insert(explained.message), "{reason:?} has another reason's words");
        }
    }

    /// The metadata keys that error.proto names for a reason are all told to the person.
    #[test]
    fn what_the_node_tells_is_passed_on() {
        for (reason, key) in [
            (ErrorReason::RecipientNotFound, "address"),
            (ErrorReason::NonceTooLow, "lowest"),
            (ErrorReason::NonceTooHigh, "highest"),
            (ErrorReason::NonceInUse, "tx_id"),
            (ErrorReason::Expired, "block_time"),
            (ErrorReason::ExpiryTooFar, "latest_allowed"),
            (ErrorReason::NodeSyncing, "highest_seen_height"),
            (ErrorReason::Pruned, "earliest_height"),
            (ErrorReason::TransactionNotFound, "height"),
            (ErrorReason::BodyMalformed, "problem"),
            (ErrorReason::SenderLimit, "maximum"),
        ] {
            let metadata = BTreeMap::from([(key.to_owned(), "told-by-node".to_owned())]);
            let explained = explain(short_name(reason), &Facts { metadata: &metadata, token: None });
            assert!(explained.message.contains("told-by-node"), "{reason:?}: {}", explained.message);
        }
    }

    #[test]
    fn times_are_told_as_people_write_them() {
        let metadata = BTreeMap::from([
            ("expire_time".to_owned(), "1800000000000".to_owned()),
            ("block_time".to_owned(), "1800000000120".to_owned()),
        ]);
        let told = explain("EXPIRED", &Facts { metadata: &metadata, token: None }).message;
        assert_eq!(told, "it expired at 2027-01-15T08:00:00Z, before the block time 2027-01-15T08:00:00.120Z");
    }

    #[test]
    fn a_missing_account_comes_with_the_command_that_opens_it() {
        let metadata = BTreeMap::from([("address".to_owned(), "tally1xyz".to_owned())]);
        let explained = explain("RECIPIENT_NOT_FOUND", &Facts { metadata: &metadata, token: None });
        assert!(explained.next.contains("tally-wallet create-account tally1xyz AMOUNT"), "{}", explained.next);
    }
}
