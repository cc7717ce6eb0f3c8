//! Every refusal of the client API, as AIP-193 has it: a code, `google.rpc.ErrorInfo` with a reason of
//! `tally.v1.ErrorReason`, BadRequest where a field is wrong, RetryInfo where trying again helps.
//!
//! The code, and whether to retry, follow from the reason alone: [`code_of`], [`retry_after`]. What a node finds wrong
//! with itself goes to its log and not to the client.

use std::{collections::HashMap, fmt, time::Duration};

use tally_ledger::Rejection;
use tally_proto::v1::{ErrorDetail, ErrorReason};
use tally_types::{
    address::AddressError,
    body::{BODY_BYTES_MAX, BodyError, OPERATIONS_MAX},
    transaction::TransactionError,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::limits::{MESSAGE_CHARS_MAX, METADATA_CHARS_MAX};
use crate::{
    admission::{AdmissionError, PENDING_PER_SENDER_MAX},
    store::index::IndexError,
};

/// `ErrorInfo.domain` of every refusal.
pub(super) const DOMAIN: &str = "tally.v1";

/// Why a call is refused.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Content>);

#[derive(Debug)]
struct Content {
    reason: ErrorReason,
    message: String,
    metadata: Vec<(&'static str, String)>,
    violation: Option<(String, String)>,
}

/// The status code of a reason: what `error.proto` says of it.
fn code_of(reason: ErrorReason) -> Code {
    use ErrorReason as R;
    match reason {
        // Not a reason a client has anything to do with: the node is at fault.
        R::Unspecified | R::Internal => Code::Internal,
        R::FieldInvalid
        | R::AddressInvalid
        | R::UnknownField
        | R::SignatureInvalid
        | R::ExpiryTooFar
        | R::PageTokenInvalid
        | R::BodyMalformed
        | R::BodyTooLarge
        | R::OperationCountInvalid
        | R::AmountZero
        | R::KeyInvalid
        | R::AmountOverflow
        | R::RequestMalformed
        | R::RequestTooLarge => Code::InvalidArgument,
        R::MethodUnknown => Code::Unimplemented,
        R::ChainIdMismatch
        | R::RecipientNotFound
        | R::InsufficientFunds
        | R::NonceTooLow
        | R::NonceTooHigh
        | R::Expired
        | R::FeeTooLow
        | R::OpeningBalanceTooLow
        | R::NodeBehind => Code::FailedPrecondition,
        R::AccountNotFound | R::TransactionNotFound | R::ValidatorNotFound | R::BlockNotFound => Code::NotFound,
        R::AccountAlreadyExists | R::NonceInUse => Code::AlreadyExists,
        R::MempoolFull | R::SlowConsumer | R::SenderLimit | R::TooManyStreams => Code::ResourceExhausted,
        R::NodeSyncing | R::NotAccepting => Code::Unavailable,
        R::Pruned => Code::OutOfRange,
        R::DeadlineExceeded | R::RequestIncomplete => Code::DeadlineExceeded,
    }
}

/// When the same call may succeed without a change.
fn retry_after(reason: ErrorReason) -> Option<Duration> {
    match reason {
        ErrorReason::MempoolFull | ErrorReason::SenderLimit | ErrorReason::TooManyStreams => {
            Some(Duration::from_secs(1))
        }
        ErrorReason::NodeSyncing | ErrorReason::NotAccepting => Some(Duration::from_secs(5)),
        _ => None,
    }
}

/// The reason as it travels.
fn name_of(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

impl Refusal {
    /// A refusal; the message says what happened and what to do.
    pub(crate) fn new(reason: ErrorReason, message: impl fmt::Display) -> Refusal {
        let message = message.to_string();
        Refusal(Box::new(Content { reason, message, metadata: Vec::new(), violation: None }))
    }

    /// A wrong field of a request.
    pub(super) fn field(field: impl Into<String>, problem: impl fmt::Display) -> Refusal {
        let field = field.into();
        let problem = problem.to_string();
        Refusal::new(ErrorReason::FieldInvalid, format!("{field} {problem}")).violating(field, problem)
    }

    /// The node's own fault: told to its log, not to the client.
    pub(crate) fn internal(what: &'static str, error: &dyn fmt::Display) -> Refusal {
        tracing::error!(%error, "client API: {what}");
        Refusal::new(ErrorReason::Internal, "this node cannot answer now; its operator finds the cause in the log")
    }

    /// Adds metadata.
    #[must_use]
    pub(crate) fn with(mut self, key: &'static str, value: impl ToString) -> Refusal {
        self.0.metadata.push((key, value.to_string()));
        self
    }

    /// Adds metadata, unless that key is there already.
    #[must_use]
    pub(crate) fn with_default(self, key: &'static str, value: impl ToString) -> Refusal {
        if self.0.metadata.iter().any(|(known, _)| *known == key) { self } else { self.with(key, value) }
    }

    /// Names the field that is wrong.
    #[must_use]
    fn violating(mut self, field: impl Into<String>, problem: impl Into<String>) -> Refusal {
        self.0.violation = Some((field.into(), problem.into()));
        self
    }

    /// The reason.
    pub(super) fn reason(&self) -> ErrorReason {
        self.0.reason
    }
}

impl Refusal {
    /// The refusal as a part of a response.
    pub(super) fn detail(self) -> ErrorDetail {
        let Content { reason, message, mut metadata, violation } = *self.0;
        // What BadRequest says of a call.
        if let Some((field, _)) = violation.filter(|_| metadata.iter().all(|(key, _)| *key != "field")) {
            metadata.push(("field", field));
        }
        ErrorDetail {
            code: code_of(reason).into(),
            reason: name_of(reason).to_owned(),
            message: cut(&message, MESSAGE_CHARS_MAX),
            metadata: bounded(metadata),
        }
    }
}

fn bounded(metadata: Vec<(&'static str, String)>) -> HashMap<String, String> {
    metadata.into_iter().map(|(key, value)| (key.to_owned(), cut(&value, METADATA_CHARS_MAX))).collect()
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let Content { reason, message, metadata, violation } = *refusal.0;
        let mut details = ErrorDetails::new();
        details.set_error_info(name_of(reason), DOMAIN, bounded(metadata));
        if let Some((field, problem)) = violation {
            details.add_bad_request_violation(field, cut(&problem, METADATA_CHARS_MAX));
        }
        if let Some(delay) = retry_after(reason) {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(code_of(reason), cut(&message, MESSAGE_CHARS_MAX), details)
    }
}

/// Errors travel in headers, which are bounded; some texts in them come from clients.
fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A request field that is no address.
pub(super) fn address(field: impl Into<String>, error: &AddressError) -> Refusal {
    let field = field.into();
    let value = match error {
        AddressError::Prefix(text)
        | AddressError::Case(text)
        | AddressError::Checksum(text)
        | AddressError::Length { text, .. } => text.clone(),
    };
    Refusal::new(ErrorReason::AddressInvalid, format!("{field}: {error}"))
        .with("field", &field)
        .with("value", value)
        .violating(field, error.to_string())
}

impl From<TransactionError> for Refusal {
    fn from(error: TransactionError) -> Refusal {
        let new = |reason| Refusal::new(reason, &error);
        match &error {
            TransactionError::TooLarge(_) | TransactionError::Wire(_) => Refusal::field("transaction", &error),
            TransactionError::UnknownField(number) => new(ErrorReason::UnknownField).with("field_number", number),
            TransactionError::Field { field, problem } => Refusal::field(format!("transaction.{field}"), problem),
            TransactionError::Signer(error) => address("transaction.signatures.signer", error),
            TransactionError::Body(error) => body("transaction.body", error),
            TransactionError::OtherChain { expected, got } => {
                new(ErrorReason::ChainIdMismatch).with("expected", expected).with("got", got)
            }
            TransactionError::Signature => new(ErrorReason::SignatureInvalid),
        }
    }
}

/// A body that stands in request field `place`.
pub(super) fn body(place: &str, error: &BodyError) -> Refusal {
    let new = |reason| Refusal::new(reason, error);
    let path = |field: &str| format!("{place}.{field}");
    match error {
        BodyError::TooLarge(size) => new(ErrorReason::BodyTooLarge).with("size", size).with("maximum", BODY_BYTES_MAX),
        BodyError::Wire { source, .. } => new(ErrorReason::BodyMalformed).with("problem", source),
        BodyError::UnknownField { number, .. } => new(ErrorReason::UnknownField).with("field_number", number),
        BodyError::Repeated { number, .. } => {
            new(ErrorReason::BodyMalformed).with("field_number", number).with("problem", "is given twice")
        }
        BodyError::SecondOperation => new(ErrorReason::BodyMalformed).with("problem", "is two things at once"),
        BodyError::Field { field, problem } => Refusal::field(path(field), problem),
        BodyError::Address { field, source } => address(path(field), source),
        BodyError::OperationCount(count) => {
            new(ErrorReason::OperationCountInvalid).with("operations", count).with("maximum", OPERATIONS_MAX)
        }
        BodyError::AmountZero(operation) => new(ErrorReason::AmountZero).with("operation", operation),
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Refusal {
        let name = format!("ERROR_REASON_{}", rejection.reason());
        // A test of the ledger holds its names against the contract.
        let reason = ErrorReason::from_str_name(&name).unwrap_or_default();
        let refusal = Refusal::new(reason, &rejection);
        rejection.metadata().into_iter().fold(refusal, |refusal, (key, value)| refusal.with(key, value))
    }
}

impl From<AdmissionError> for Refusal {
    fn from(error: AdmissionError) -> Refusal {
        let new = |reason| Refusal::new(reason, &error);
        match &error {
            AdmissionError::Transaction(error) => error.clone().into(),
            AdmissionError::Rejected(rejection) => rejection.clone().into(),
            AdmissionError::NonceHeld { nonce, holder, .. } => {
                new(ErrorReason::NonceInUse).with("nonce", nonce).with("tx_id", holder)
            }
            AdmissionError::NonceLeftBehind { nonce, next, .. } => {
                new(ErrorReason::NonceTooLow).with("nonce", nonce).with("lowest", next)
            }
            AdmissionError::SenderLimit => new(ErrorReason::SenderLimit)
                .with("pending", PENDING_PER_SENDER_MAX)
                .with("maximum", PENDING_PER_SENDER_MAX),
            AdmissionError::Full => new(ErrorReason::MempoolFull),
            AdmissionError::Stopping => new(ErrorReason::NotAccepting),
        }
    }
}

impl From<IndexError> for Refusal {
    fn from(error: IndexError) -> Refusal {
        Refusal::internal("the index cannot be read", &error)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// The comments of `error.proto`, by the number of the reason.
    fn comments() -> Vec<(ErrorReason, String)> {
        let set = FileDescriptorSet::decode(tally_proto::FILE_DESCRIPTOR_SET).unwrap();
        let file = set.file.into_iter().find(|file| file.name() == "tally/v1/error.proto").unwrap();
        let values = file.enum_type[0].value.clone();
        let comment = |place: usize| {
            let path = [5, 0, 2, i32::try_from(place).unwrap()];
            let info = file.source_code_info.as_ref().unwrap();
            let location = info.location.iter().find(|location| location.path == path).unwrap();
            location.leading_comments().trim().to_owned()
        };
        let reason = |number: i32| ErrorReason::try_from(number).unwrap();
        values.iter().enumerate().map(|(place, value)| (reason(value.number()), comment(place))).collect()
    }

    #[test]
    fn codes_and_retries_are_those_of_the_contract() {
        let comments = comments();
        assert_eq!(comments.len(), 41);
        for (reason, comment) in comments.into_iter().skip(1) {
            let code = format!("{:?}", code_of(reason));
            let written: String = comment.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            assert_eq!(written.replace('_', ""), code.to_uppercase(), "{reason:?}");
            assert_eq!(comment.contains("RetryInfo"), retry_after(reason).is_some(), "{reason:?}");
        }
    }

    #[test]
    fn an_error_fits_into_headers_whatever_a_client_sent() {
        let got = "é".repeat(8000);
        let refusal = Refusal::from(TransactionError::OtherChain { expected: "test".into(), got });
        let status = Status::from(refusal);
        assert_eq!(status.message().chars().count(), MESSAGE_CHARS_MAX + 1);
        assert!(status.details().len() < 1500, "{}", status.details().len());
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("CHAIN_ID_MISMATCH", "tally.v1"));
        assert_eq!(info.metadata["got"].chars().count(), METADATA_CHARS_MAX + 1);
    }

    #[test]
    fn what_is_wrong_with_the_node_stays_in_its_log() {
        let status = Status::from(Refusal::from(IndexError::Damaged { reason: "page 17".into() }));
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("17"));
        assert_eq!(status.get_details_error_info().unwrap().reason, "INTERNAL");
    }

    #[test]
    fn every_error_of_a_body_has_its_reason_and_metadata() {
        use tally_types::wire::WireError;
        let address_error = "tally1".parse::<tally_types::Address>().unwrap_err();
        for (error, reason, metadata, field) in [
            (BodyError::TooLarge(9000), "BODY_TOO_LARGE", "maximum=8192 size=9000", ""),
            (
                BodyError::Wire { message: "Operation", source: WireError::Truncated },
                "BODY_MALFORMED",
                "problem=the bytes end inside a field",
                "",
            ),
            (BodyError::UnknownField { message: "Operation", number: 3 }, "UNKNOWN_FIELD", "field_number=3", ""),
            (
                BodyError::Repeated { message: "Operation", number: 2 },
                "BODY_MALFORMED",
                "field_number=2 problem=is given twice",
                "",
            ),
            (BodyError::SecondOperation, "BODY_MALFORMED", "problem=is two things at once", ""),
            (
                BodyError::Field { field: "nonce".into(), problem: "is 0" },
                "FIELD_INVALID",
                "",
                "transaction.body.nonce",
            ),
            (
                BodyError::Address { field: "sender".into(), source: address_error },
                "ADDRESS_INVALID",
                "field=transaction.body.sender value=tally1",
                "transaction.body.sender",
            ),
            (BodyError::OperationCount(65), "OPERATION_COUNT_INVALID", "maximum=64 operations=65", ""),
            (BodyError::AmountZero(4), "AMOUNT_ZERO", "operation=4", ""),
        ] {
            let status = Status::from(Refusal::from(TransactionError::Body(error)));
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            let mut shown: Vec<_> = info.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
            shown.sort();
            assert_eq!((info.reason.as_str(), shown.join(" ").as_str()), (reason, metadata));
            let violated = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
            assert_eq!(violated.unwrap_or_default(), field);
            assert_eq!(status.code(), Code::InvalidArgument);
        }
    }
}
