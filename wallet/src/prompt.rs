//! Everything a person is asked, and every other way to give the answer.
//!
//! A secret comes from a file, from standard input, from the environment or from the terminal; never from an argument,
//! which other users of the machine can read. A question is asked only when standard input and standard error are
//! terminals; otherwise the error names the flag that answers it. The end of input is never consent and never a secret.

mod unseen;

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
};

use tally_types::Address;
use thiserror::Error;
use zeroize::Zeroizing;

pub use self::unseen::restore_terminal;
use crate::{cli::payment::PassphraseArgs, derive::WordsError, files};

/// Environment variable of the passphrase.
pub const PASSPHRASE_ENV: &str = "TALLY_PASSPHRASE";

const SECRET_BYTES_MAX: usize = 4096;
const ANSWER_BYTES_MAX: u64 = 1024;

/// What can go wrong when something is asked.
#[derive(Debug, Error)]
pub enum InputError {
    /// A question without anybody to answer it.
    #[error("{question} is needed, and there is no terminal to ask on, or --no-input forbids it")]
    NobodyToAsk {
        /// What would be asked.
        question: &'static str,
        /// Flags that answer it.
        flags: &'static str,
    },
    /// Nothing was typed, or the file was empty, or input ended.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// The second passphrase is another.
    #[error("the two passphrases differ")]
    Differ,
    /// Anything but yes.
    #[error("not confirmed: nothing was changed, signed or sent")]
    Declined,
    /// The characters typed are not those of the recipient.
    #[error("those are not the last 6 characters of the recipient: nothing was signed and nothing was sent")]
    OtherRecipient,
    /// Words of another key.
    #[error("these words bring back {got}, but the key {name} is {wanted}")]
    OtherBackup {
        /// Name of the key.
        name: String,
        /// Its address.
        wanted: Address,
        /// The address that the words lead to.
        got: Address,
    },
    /// Ctrl-C at a prompt.
    #[error("interrupted")]
    Interrupted,
    /// A file or a stream that cannot be read.
    #[error("cannot read {what} from {place}: {source}")]
    Read {
        /// What was wanted.
        what: &'static str,
        /// From where.
        place: String,
        /// Why not.
        source: io::Error,
    },
    /// Bytes that are no text.
    #[error("{0} is not UTF-8 text")]
    NotText(&'static str),
    /// Wrong words.
    #[error(transparent)]
    Words(#[from] WordsError),
    /// Not a seed.
    #[error("{} does not hold a secret key: 64 hex digits on one line", .0.display())]
    NotASeed(PathBuf),
    /// A file cannot be made, or is there already.
    #[error("cannot write the new file {}: {source}", .file.display())]
    NewFile {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Whether and how to ask.
#[derive(Clone, Copy, Debug)]
pub struct Prompt {
    may_ask: bool,
}

impl Prompt {
    /// Asks on the terminal, unless there is none or `no_input` forbids it.
    pub fn new(no_input: bool) -> Prompt {
        Prompt { may_ask: !no_input && io::stdin().is_terminal() && io::stderr().is_terminal() }
    }

    /// The passphrase of an existing key.
    pub fn passphrase(self, args: &PassphraseArgs, key: &str) -> Result<Zeroizing<String>, InputError> {
        match given_passphrase(args)? {
            Some(given) => Ok(given),
            None => self.hidden(&format!("Passphrase of key {key}: "), "the passphrase", PASSPHRASE_FLAGS),
        }
    }

    /// The passphrase of a new key, asked twice.
    pub fn new_passphrase(self, args: &PassphraseArgs, key: &str) -> Result<Zeroizing<String>, InputError> {
        if let Some(given) = given_passphrase(args)? {
            return Ok(given);
        }
        let first = self.hidden(&format!("New passphrase for key {key}: "), "the passphrase", PASSPHRASE_FLAGS)?;
        let second = self.hidden("The same again: ", "the passphrase", PASSPHRASE_FLAGS)?;
        if first == second { Ok(first) } else { Err(InputError::Differ) }
    }

    /// The words of a key to import, typed unseen.
    pub fn words(self) -> Result<Zeroizing<String>, InputError> {
        self.hidden("The words, separated by spaces: ", "the words", "--words-file, --words-stdin or --secret-file")
    }

    /// Fails when nobody could say yes: asked before a person is shown what it is about.
    pub fn can_confirm(self) -> Result<(), InputError> {
        match self.may_ask {
            true => Ok(()),
            false => Err(InputError::NobodyToAsk { question: "a confirmation", flags: "--yes" }),
        }
    }

    /// A yes to `question`.
    pub async fn confirm(self, question: &str) -> Result<(), InputError> {
        self.can_confirm()?;
        if is_yes(&line(&format!("{question} [y/N] ")).await) { Ok(()) } else { Err(InputError::Declined) }
    }

    /// The last 6 characters of the address that is about to be paid, which nobody types without looking.
    pub async fn last_characters(self, address: &str, given: Option<&str>) -> Result<(), InputError> {
        let wanted = &address[address.len().saturating_sub(LAST_CHARACTERS)..];
        let typed = match given {
            Some(given) => given.to_owned(),
            None if !self.may_ask => {
                let question = "the recipient's last 6 characters, because the address resembles a known one,";
                return Err(InputError::NobodyToAsk { question, flags: "--confirm-recipient CHARACTERS" });
            }
            None => line("Type the last 6 characters of the address as the recipient gave it to you: ").await,
        };
        if typed.trim() == wanted { Ok(()) } else { Err(InputError::OtherRecipient) }
    }

    /// A new passphrase in place of an old one.
    pub fn changed_passphrase(self, file: Option<&Path>, key: &str) -> Result<Zeroizing<String>, InputError> {
        let what = "the new passphrase";
        if let Some(file) = file {
            return one_line(read_file(file, what)?, what);
        }
        let first = self.hidden(&format!("New passphrase for key {key}: "), what, "--new-passphrase-file")?;
        let second = self.hidden("The same again: ", what, "--new-passphrase-file")?;
        if first == second { Ok(first) } else { Err(InputError::Differ) }
    }

    fn hidden(self, prompt: &str, what: &'static str, flags: &'static str) -> Result<Zeroizing<String>, InputError> {
        if !self.may_ask {
            return Err(InputError::NobodyToAsk { question: what, flags });
        }
        let typed = unseen::ask(prompt).map_err(|source| match source.kind() {
            io::ErrorKind::Interrupted => InputError::Interrupted,
            io::ErrorKind::UnexpectedEof => InputError::Empty(what),
            _ => InputError::Read { what, place: "the terminal".into(), source },
        })?;
        non_empty(typed, what)
    }
}

/// How much of an address has to be typed: 30 bits, which take a forger days.
const LAST_CHARACTERS: usize = 6;

/// Asks, and reads one line; the end of input is an empty one.
async fn line(question: &str) -> String {
    let mut stderr = io::stderr();
    let _ = write!(stderr, "{question}");
    let _ = stderr.flush();
    // On another thread, so that Ctrl-C ends the program while it waits here.
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut line).map(|_| line)
    });
    answer.await.ok().and_then(Result::ok).unwrap_or_default()
}

const PASSPHRASE_FLAGS: &str = "--passphrase-file, --passphrase-stdin or the environment variable TALLY_PASSPHRASE";

fn given_passphrase(args: &PassphraseArgs) -> Result<Option<Zeroizing<String>>, InputError> {
    let what = "the passphrase";
    if let Some(file) = &args.passphrase_file {
        return one_line(read_file(file, what)?, what).map(Some);
    }
    if args.passphrase_stdin {
        return one_line(read_stdin(what)?, what).map(Some);
    }
    match std::env::var(PASSPHRASE_ENV) {
        Ok(text) => non_empty(Zeroizing::new(text), what).map(Some),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(InputError::NotText(what)),
    }
}

/// A secret text from a file, at most 4096 bytes.
pub fn read_file(file: &Path, what: &'static str) -> Result<Zeroizing<String>, InputError> {
    let content = files::read_bounded(file, SECRET_BYTES_MAX).map_err(|source| InputError::Read {
        what,
        place: file.display().to_string(),
        source,
    })?;
    text(&content, what)
}

/// A secret text from standard input, to its end, at most 4096 bytes.
pub fn read_stdin(what: &'static str) -> Result<Zeroizing<String>, InputError> {
    let content = files::read_all_bounded(io::stdin().lock(), SECRET_BYTES_MAX).map_err(|source| InputError::Read {
        what,
        place: "standard input".into(),
        source,
    })?;
    text(&content, what)
}

fn text(content: &[u8], what: &'static str) -> Result<Zeroizing<String>, InputError> {
    let text = std::str::from_utf8(content).map_err(|_| InputError::NotText(what))?;
    non_empty(Zeroizing::new(text.to_owned()), what)
}

/// The text without the one line end that editors and `echo` put there; spaces belong to a passphrase.
fn one_line(text: Zeroizing<String>, what: &'static str) -> Result<Zeroizing<String>, InputError> {
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    non_empty(Zeroizing::new(line.to_owned()), what)
}

fn non_empty(text: Zeroizing<String>, what: &'static str) -> Result<Zeroizing<String>, InputError> {
    if text.is_empty() { Err(InputError::Empty(what)) } else { Ok(text) }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for answer in ["y\n", "Y\n", "yes\n", " YES \r\n"] {
            assert!(is_yes(answer), "{answer:?}");
        }
        for answer in ["", "\n", "n\n", "yep\n", "no\n", "y y\n"] {
            assert!(!is_yes(answer), "{answer:?}");
        }
    }

    #[test]
    fn a_passphrase_file_is_one_line_and_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p");
        let read = |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            given_passphrase(&PassphraseArgs { passphrase_file: Some(file.clone()), passphrase_stdin: false })
        };
        assert_eq!(*read(b" open sesame \r\n").unwrap().unwrap(), " open sesame ");
        assert_eq!(*read(b"open\n\n").unwrap().unwrap(), "open\n");
        assert!(matches!(read(b"\n"), Err(InputError::Empty(_))));
        assert!(matches!(read(b""), Err(InputError::Empty(_))));
        assert!(matches!(read(b"\xff"), Err(InputError::NotText(_))));
        assert!(matches!(read(&[b'x'; 4097]), Err(InputError::Read { .. })));
    }

    #[tokio::test]
    async fn without_a_terminal_the_flag_is_named() {
        let prompt = Prompt { may_ask: false };
        let flags = |error| match error {
            InputError::NobodyToAsk { flags, .. } => flags,
            other => panic!("{other:?}"),
        };
        assert_eq!(flags(prompt.confirm("Send?").await.unwrap_err()), "--yes");
        assert!(flags(prompt.words().unwrap_err()).contains("--words-file"));
        let hidden = prompt.hidden("Passphrase: ", "the passphrase", PASSPHRASE_FLAGS).unwrap_err();
        assert!(flags(hidden).contains("--passphrase-file"));
    }
}
