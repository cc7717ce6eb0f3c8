//! Where words go: results to stdout, everything else to stderr.
//!
//! With `--output json` stdout holds one JSON document and every line of stderr is a JSON document too. Text that a node
//! sent is shown without control characters: it must not be able to move a cursor or rewrite a line.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tally_types::Hash;

use crate::{
    cli::OutputForm,
    error::{Exit, WalletError},
};

/// Bold red and yellow, as terminals of the last forty years understand them.
const RED: &str = "1;31";
const YELLOW: &str = "1;33";
/// Characters of a progress bar.
const PROGRESS_WIDTH: usize = 40;

/// The way out.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    form: OutputForm,
    quiet: bool,
    color: bool,
}

impl Output {
    /// An output of this form; `quiet` drops progress.
    pub fn new(form: OutputForm, quiet: bool) -> Output {
        Output { form, quiet, color: false }
    }

    /// The same, with the words "error" and "warning" on stderr in colour.
    pub fn with_color(self, color: bool) -> Output {
        Output { color, ..self }
    }

    /// The form of results.
    pub fn form(self) -> OutputForm {
        self.form
    }

    /// A result that is neither text nor JSON but bytes of a form of its own: a file, a script, a page.
    pub fn raw(self, bytes: &[u8]) -> Result<(), WalletError> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(|source| WalletError::Stdout { done: String::new(), source })
    }

    /// The call that is about to be made, as a command. Asked for by name, so shown whatever the form.
    pub fn explained(self, command: &str) {
        match self.form {
            OutputForm::Text => to_stderr(command),
            OutputForm::Json => to_stderr(&json!({ "explain": command }).to_string()),
        }
    }

    /// How a call went. Asked for by name, so shown whatever the form.
    pub fn detail(self, text: &str) {
        match self.form {
            OutputForm::Text => to_stderr(text),
            OutputForm::Json => to_stderr(&json!({ "detail": text }).to_string()),
        }
    }

    fn paint(self, word: &str, code: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() }
    }

    /// The one result of a command.
    pub fn result(self, text: &str, json: &Value) -> Result<(), WalletError> {
        let mut stdout = io::stdout().lock();
        match self.form {
            OutputForm::Text => writeln!(stdout, "{}", text.trim_end()),
            OutputForm::Json => writeln!(stdout, "{json}"),
        }
        .and_then(|()| stdout.flush())
        .map_err(|source| WalletError::Stdout { done: String::new(), source })
    }

    /// Progress, for people.
    pub fn note(self, text: &str) {
        if self.form == OutputForm::Text && !self.quiet {
            to_stderr(text);
        }
    }

    /// How many of how many lines are paid: one line of a terminal, written over and over.
    pub fn progress(self, done: usize, total: usize) {
        if self.form == OutputForm::Text && !self.quiet && io::stderr().is_terminal() {
            let filled = done.saturating_mul(PROGRESS_WIDTH).checked_div(total).unwrap_or_default().min(PROGRESS_WIDTH);
            let bar = "#".repeat(filled) + &"-".repeat(PROGRESS_WIDTH.saturating_sub(filled));
            let _ = write!(io::stderr().lock(), "\r[{bar}] {done}/{total} lines");
        }
    }

    /// Leaves the line of the progress.
    pub fn progress_ends(self) {
        if self.form == OutputForm::Text && !self.quiet && io::stderr().is_terminal() {
            to_stderr("");
        }
    }

    /// What a person must see whatever the form.
    pub fn warning(self, text: &str) {
        match self.form {
            OutputForm::Text => to_stderr(&format!("{} {text}", self.paint("warning:", YELLOW))),
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
    pub fn failure(self, error: &WalletError, message: &str) {
        let next = error.next_step();
        match self.form {
            OutputForm::Text => {
                to_stderr(&format!("{} {message}", self.paint("error:", RED)));
                if !next.is_empty() {
                    to_stderr(&format!("next: {next}"));
                }
            }
            OutputForm::Json => {
                let exit = error.exit() as u8;
                to_stderr(&failure_line(&error.reason(), message, &next, exit, &error.metadata()).to_string());
            }
        }
    }

    /// Arguments that clap refused. In text form clap words it best itself.
    pub fn usage_failure(self, text: &str) {
        match self.form {
            OutputForm::Text => to_stderr(text.trim_end()),
            OutputForm::Json => {
                // Up to the usage: some complaints name what they are about on lines of their own.
                let complaint = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
                let message = complaint.split_whitespace().collect::<Vec<_>>().join(" ");
                let message = message.as_str();
                let next = "see tally-wallet --help";
                to_stderr(&failure_line("USAGE", message, next, Exit::Usage as u8, &BTreeMap::new()).to_string());
            }
        }
    }
}

fn failure_line(reason: &str, message: &str, next: &str, exit: u8, metadata: &BTreeMap<String, String>) -> Value {
    json!({
        "reason": reason,
        "message": message,
        "nextStep": next,
        "exitCode": exit,
        "metadata": metadata,
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
        let line = failure_line("INTERRUPTED", "interrupted", "", 130, &BTreeMap::new());
        assert_eq!(
            line.to_string(),
            r#"{"exitCode":130,"message":"interrupted","metadata":{},"nextStep":"","reason":"INTERRUPTED"}"#
        );
    }
}
