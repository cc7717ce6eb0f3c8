//! `--explain` and `-v`: what is asked of which node, and how long the answer takes.
//!
//! An explained call is a grpcurl command that asks the same: nodes serve reflection, so it needs nothing else.

use std::time::Duration;

use serde_json::Value;
use tonic::{Code, Status};

use super::ANSWER_BYTES_MAX;
use crate::output::{Output, clean};

/// How much of the talk with nodes is shown on stderr.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    output: Output,
    explain: bool,
    verbose: bool,
}

impl Trace {
    /// Shows every call as a command if `explain`, and how it ended if `verbose`.
    pub fn new(output: Output, explain: bool, verbose: bool) -> Trace {
        Trace { output, explain, verbose }
    }

    /// A call is about to be made.
    pub(super) fn asks(self, node: &str, method: &str, request: &Value) {
        if self.explain {
            self.output.explained(&grpcurl(node, method, request));
        }
    }

    /// It ended.
    pub(super) fn answered<T>(self, node: &str, method: &str, took: Duration, answer: &Result<T, Status>) {
        if self.verbose {
            let end = match answer {
                Ok(_) => "OK".into(),
                Err(status) => format!("{:?} {}", status.code(), clean(status.message())),
            };
            self.output.detail(&format!("{method} at {node}: {end} after {} ms", took.as_millis()));
        }
    }

    /// A stream was opened, or was not.
    pub(super) fn opened(self, node: &str, method: &str, code: Code) {
        if self.verbose {
            self.output.detail(&format!("{method} at {node}: stream opened with {code:?}"));
        }
    }
}

/// The command that makes the same call.
fn grpcurl(node: &str, method: &str, request: &Value) -> String {
    let place = node.strip_prefix("http://").unwrap_or(node).trim_end_matches('/');
    let data = match request.as_object().is_some_and(|fields| fields.is_empty()) {
        true => String::new(),
        false => format!("-d {} ", quoted(&request.to_string())),
    };
    // A block may be larger than the 4 MiB that grpcurl takes by itself.
    let size = match method.starts_with("BlockService/") {
        true => format!("-max-msg-sz {ANSWER_BYTES_MAX} "),
        false => String::new(),
    };
    format!("grpcurl -plaintext {size}{data}{} tally.v1.{method}", quoted_if_odd(place))
}

/// `text` as one word of a shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The same, without quotes where none are needed.
pub fn quoted_if_odd(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,@+%".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) { text.to_owned() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_a_command_whatever_is_in_it() {
        assert_eq!(
            grpcurl("http://127.0.0.1:9101/", "ChainService/GetChainInfo", &json!({})),
            "grpcurl -plaintext 127.0.0.1:9101 tally.v1.ChainService/GetChainInfo"
        );
        assert_eq!(
            grpcurl("http://n:1", "X/Y", &json!({ "memo": "it's $HOME" })),
            r#"grpcurl -plaintext -d '{"memo":"it'\''s $HOME"}' n:1 tally.v1.X/Y"#
        );
        assert_eq!(
            grpcurl("http://n:1", "BlockService/GetBlock", &json!({ "height": "1" })),
            r#"grpcurl -plaintext -max-msg-sz 50331648 -d '{"height":"1"}' n:1 tally.v1.BlockService/GetBlock"#
        );
        assert_eq!(quoted_if_odd("my file; rm"), "'my file; rm'");
        assert_eq!(quoted_if_odd(""), "''");
    }
}
