//! A node's refusals and failures, in words, with what they mean for the outcome.

use std::{collections::BTreeMap, time::Duration};

use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::explain;
use crate::{error::Exit, output::clean, token::Token};

/// Domain of the node's reasons.
const DOMAIN: &str = "tally.v1";

/// The node refused, failed, or could not be reached.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct NodeError {
    /// Stable name of the reason.
    pub reason: String,
    /// What happened, in words.
    pub message: String,
    /// What to do next.
    pub next: String,
    /// What it means for the exit code of a query.
    pub exit: Exit,
    /// The node's facts.
    pub metadata: BTreeMap<String, String>,
    /// The gRPC code.
    pub code: Code,
    /// Whether a node gave the reason, so that it is known to have seen the call and to have refused it.
    pub from_node: bool,
    /// How long the node asks to wait before another try.
    pub retry_after: Option<Duration>,
}

impl NodeError {
    /// `status` in words. `token` writes the amounts in it, when the chain is known already.
    pub fn new(status: &Status, node: &str, token: Option<&Token>) -> NodeError {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN);
        let Some(info) = info else { return NodeError::without_reason(status, node) };
        let metadata: BTreeMap<_, _> = info.metadata.iter().map(|(key, value)| (clean(key), clean(value))).collect();
        let explained = explain::explain(&info.reason, &explain::Facts { metadata: &metadata, token });
        let mut message = explained.message;
        // For what the reason alone cannot tell: which field, and what the node calls the problem.
        if let Some(violation) = details.bad_request().and_then(|request| request.field_violations.first()) {
            message = format!("{message}: {} {}", clean(&violation.field), clean(&violation.description));
        } else if explained.vague && !status.message().is_empty() {
            message = format!("{message}: {}", clean(status.message()));
        }
        NodeError {
            reason: clean(&info.reason),
            message,
            next: explained.next,
            exit: explained.exit,
            metadata,
            code: status.code(),
            from_node: true,
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }

    /// Nobody answers.
    pub fn unreachable(node: &str, problem: &str) -> NodeError {
        NodeError {
            reason: "UNREACHABLE".into(),
            message: format!("{} cannot be reached: {}", clean(node), clean(problem)),
            next: "check that the node runs and that its URL is right, or ask another node with --node URL".into(),
            exit: Exit::Unreachable,
            metadata: BTreeMap::new(),
            code: Code::Unavailable,
            from_node: false,
            retry_after: None,
        }
    }

    /// An answer that cannot be.
    pub fn garbled(node: &str, problem: &str) -> NodeError {
        NodeError {
            reason: "ANSWER_INVALID".into(),
            message: format!("{} gave an answer that cannot be: {problem}", clean(node)),
            next: "check the versions of node and wallet, or ask another node with --node URL".into(),
            code: Code::Internal,
            ..NodeError::unreachable(node, problem)
        }
    }

    /// Whether nobody can tell from this error if the node took what it was sent. Only a node's own reason is a refusal: any
    /// other code may be that of something on the way, or of this side's reading of an answer.
    pub fn is_uncertain(&self) -> bool {
        !self.from_node || matches!(self.reason.as_str(), "INTERNAL" | "DEADLINE_EXCEEDED")
    }

    fn without_reason(status: &Status, node: &str) -> NodeError {
        let problem = match std::error::Error::source(status) {
            Some(source) => innermost(source),
            None => status.message().to_owned(),
        };
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled => {
                NodeError { code: status.code(), ..NodeError::unreachable(node, &problem) }
            }
            Code::DeadlineExceeded => NodeError {
                reason: "NO_ANSWER".into(),
                message: format!("{} did not answer in time", clean(node)),
                next: "try again, with a longer --timeout, or ask another node with --node URL".into(),
                code: status.code(),
                ..NodeError::unreachable(node, &problem)
            },
            Code::Unimplemented => NodeError {
                reason: "UNIMPLEMENTED".into(),
                message: format!("{} does not offer this call", clean(node)),
                next: "check that the URL is that of a Tally node's client API, and that it is new enough".into(),
                code: status.code(),
                ..NodeError::unreachable(node, &problem)
            },
            code => NodeError {
                reason: "NODE_ERROR".into(),
                message: format!("{} answered {code:?}: {}", clean(node), clean(&problem)),
                next: "try again, or ask another node with --node URL".into(),
                code,
                ..NodeError::unreachable(node, &problem)
            },
        }
    }
}

/// The cause at the bottom: "Connection refused" says more than "transport error".
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_reason_of_the_node_is_put_into_words() {
        let facts = [("balance", "3000000000"), ("needed", "12501000000"), ("missing", "9501000000")];
        let facts: HashMap<String, String> = facts.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let details = ErrorDetails::with_error_info("INSUFFICIENT_FUNDS", DOMAIN, facts.clone());
        let status = Status::with_error_details(Code::FailedPrecondition, "no", details);
        let error = NodeError::new(&status, "http://n:1", Token::new("TALLY", 9).as_ref());
        assert_eq!(error.message, "balance 3 TALLY is 9.501 TALLY short of the 12.501 TALLY needed");
        assert_eq!((error.exit, error.from_node), (Exit::Rejected, true));
        assert!(!error.is_uncertain());
        // Another domain's reasons are another's.
        let details = ErrorDetails::with_error_info("INSUFFICIENT_FUNDS", "example.com", facts);
        let status = Status::with_error_details(Code::Unavailable, "no", details);
        let error = NodeError::new(&status, "http://n:1", None);
        assert_eq!((error.reason.as_str(), error.from_node), ("UNREACHABLE", false));
    }

    #[test]
    fn only_an_answer_of_the_node_makes_a_refusal_certain() {
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Unknown,
            Code::Cancelled,
            Code::Internal,
            Code::Unimplemented,
            Code::InvalidArgument,
            Code::ResourceExhausted,
            Code::OutOfRange,
        ] {
            assert!(NodeError::new(&Status::new(code, "x"), "http://n:1", None).is_uncertain(), "{code:?}");
        }
        for (reason, uncertain) in [("INTERNAL", true), ("DEADLINE_EXCEEDED", true), ("INSUFFICIENT_FUNDS", false)] {
            let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
            let status = Status::with_error_details(Code::Internal, "x", details);
            assert_eq!(NodeError::new(&status, "http://n:1", None).is_uncertain(), uncertain, "{reason}");
        }
        let details = ErrorDetails::with_error_info("NODE_SYNCING", DOMAIN, HashMap::new());
        let status = Status::with_error_details(Code::Unavailable, "x", details);
        let error = NodeError::new(&status, "http://n:1", None);
        assert!(!error.is_uncertain() && error.exit == Exit::Unreachable);
    }
}
