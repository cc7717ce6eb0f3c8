//! Where words go: results to stdout, everything else to stderr.
//!
//! With `--output json` stdout holds one JSON document and every line of stderr is a JSON document too. Text that a node
//! sent is shown without control characters: it must not be able to move a cursor or rewrite a line.

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tally_types::Hash;

use crate::{cli::OutputForm, error::WalletError};

/// The way out.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    form: OutputForm,
    quiet: bool,
}

impl Output {
    /// An output of this form; `quiet` drops progress.
    pub fn new(form: OutputForm, quiet: bool) -> Output {
        Output { form, quiet }
    }

    /// The one result of a command.
    pub fn result(self, text: &str, json: &Value) -> Result<(), WalletError> {
        let mut stdout = io::stdout().lock();
        match self.form {
            OutputForm::Text => writeln!(stdout, "{}", text.trim_end()),
            OutputForm::Json => writeln!(stdout, "{json}"),
        }
        .and_then(|()| stdout.flush())
        .map_err(WalletError::Stdout)
    }

    /// Progress, for people.
    pub fn note(self, text: &str) {
        if self.form == OutputForm::Text && !self.quiet {
            to_stderr(text);
        }
    }

    /// What a person must see whatever the form.
    pub fn warning(self, text: &str) {
        match self.form {
            OutputForm::Text => to_stderr(&format!("warning: {text}")),
            OutputForm::Json => to_stderr(&json!({ "warning": text }).to_string()),
        }
    }

    /// A question's preamble: shown in either form, because a person is about to answer.
    pub fn preamble(self, text: &str) {
        to_stderr(text);
    }

    /// The id of a transaction, before it is sent: whatever happens then, it can be asked for.
    pub fn signed(self, id: &Hash, expire_time: SystemTime) {
        let until = rfc3339(expire_time);
        match self.form {
            OutputForm::Text => to_stderr(&format!("transaction {id} (may run until {until})")),
            OutputForm::Json => {
                to_stderr(&json!({ "signed": { "txId": id.to_string(), "expireTime": until } }).to_string())
            }
        }
    }

    /// Why the command failed: what happened, why, and what to do next.
    pub fn failure(self, error: &WalletError) {
        let next = error.next_step();
        match self.form {
            OutputForm::Text => {
                to_stderr(&format!("error: {error}"));
                if !next.is_empty() {
                    to_stderr(&format!("next: {next}"));
                }
            }
            OutputForm::Json => to_stderr(&failure_line(&error.reason(), &error.to_string(), &next, error).to_string()),
        }
    }

    /// Arguments that clap refused. In text form clap words it best itself.
    pub fn usage_failure(self, text: &str) {
        match self.form {
            OutputForm::Text => to_stderr(text.trim_end()),
            OutputForm::Json => {
                let message = text.trim_start_matches("error: ").lines().next().unwrap_or_default();
                let next = "see tally-wallet --help";
                to_stderr(
                    &json!({ "reason": "USAGE", "message": message, "nextStep": next, "exitCode": 2 }).to_string(),
                );
            }
        }
    }
}

fn failure_line(reason: &str, message: &str, next: &str, error: &WalletError) -> Value {
    json!({
        "reason": reason,
        "message": message,
        "nextStep": next,
        "exitCode": error.exit() as u8,
        "metadata": error.metadata(),
    })
}

/// A closed stderr is no reason to stop: the exit code still tells.
fn to_stderr(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Text of another's hand without control characters, at most 500 characters of it.
pub fn clean(text: &str) -> String {
    let invisible = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().take(500).map(|c| if invisible(c) { '\u{fffd}' } else { c }).collect()
}

/// A time in UTC, with as many digits of the second as proto-JSON gives it: 0, 3 or 9.
pub fn rfc3339(time: SystemTime) -> String {
    // From 1970 to 9999: what humantime can write.
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let time = time.clamp(SystemTime::UNIX_EPOCH, last);
    let nanos = time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.subsec_nanos()).unwrap_or_default();
    match nanos {
        0 => humantime::format_rfc3339_seconds(time).to_string(),
        nanos if nanos.is_multiple_of(1_000_000) => humantime::format_rfc3339_millis(time).to_string(),
        _ => humantime::format_rfc3339_nanos(time).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_text_cannot_steer_the_terminal() {
        assert_eq!(clean("ok\u{1b}[2J\r\nerror\u{202e}"), "ok\u{fffd}[2J\u{fffd}\u{fffd}error\u{fffd}");
        assert_eq!(clean(&"x".repeat(1000)).len(), 500);
    }

    #[test]
    fn times_are_written_as_proto_json_does() {
        let at = |millis| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(at(1_800_000_000_000), "2027-01-15T08:00:00Z");
        assert_eq!(at(1_800_000_000_120), "2027-01-15T08:00:00.120Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX / 4)), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_failure_is_one_json_document() {
        let error = WalletError::Interrupted;
        let line = failure_line("INTERRUPTED", "interrupted", "", &error);
        assert_eq!(
            line.to_string(),
            r#"{"exitCode":130,"message":"interrupted","metadata":{},"nextStep":"","reason":"INTERRUPTED"}"#
        );
    }
}
