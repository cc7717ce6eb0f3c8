//! A list of payments: CSV with the columns "to", "amount" and, for people, "note".

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use tally_types::{Amount, Hash};

use super::super::Context;
use crate::{
    error::{FileError, WalletError},
    output::{Output, clean},
    target::Target,
    token::Token,
};

/// Most bytes of a list.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most lines of a list.
pub const LINES_MAX: usize = 10_000;

/// Most warnings about lines that say the same.
const TWINS_SHOWN: usize = 3;

/// A list as it is in its file.
#[derive(Debug)]
pub struct Source {
    file: PathBuf,
    hash: Hash,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    number: u64,
    to: String,
    amount: String,
}

/// A list whose every line names an account and an amount.
#[derive(Debug)]
pub struct List {
    /// SHA-256 of the file: another content is another list.
    pub hash: Hash,
    /// 1 to [`LINES_MAX`].
    pub lines: Vec<Line>,
}

/// A payment.
#[derive(Clone, Debug)]
pub struct Line {
    /// Line in the file, from 1; the header is line 1.
    pub number: u64,
    /// Who is paid.
    pub to: Target,
    /// How much; above zero.
    pub amount: Amount,
}

/// Reads a list.
pub fn read(file: &Path) -> Result<Source, FileError> {
    let unreadable = |source| FileError::Read { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
    }
    let rows = parse(&bytes).map_err(|(line, problem)| FileError::Line { file: file.to_owned(), line, problem })?;
    Ok(Source { file: file.to_owned(), hash: Hash::of(&bytes), rows })
}

fn parse(bytes: &[u8]) -> Result<Vec<Row>, (u64, String)> {
    // What spreadsheets put in front of UTF-8.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let head = reader.headers().map_err(|error| (1, error.to_string()))?;
    let head: Vec<&str> = head.iter().collect();
    if !matches!(head.as_slice(), ["to", "amount"] | ["to", "amount", "note"]) {
        return Err((1, "the first line must be \"to,amount\" or \"to,amount,note\"".into()));
    }
    let mut rows = Vec::new();
    let mut lines = LineCount { bytes, at: 0, number: 1 };
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, |position| lines.up_to(position.byte()));
            // The error's own words repeat positions in bytes and records; people count lines.
            let problem = match error.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    format!("has {len} columns, the first line has {expected_len}")
                }
                csv::ErrorKind::Utf8 { .. } => "is not UTF-8 text".into(),
                _ => error.to_string(),
            };
            (line, problem)
        })?;
        let number = record.position().map_or(0, |position| lines.up_to(position.byte()));
        let cell = |place| record.get(place).unwrap_or_default().to_owned();
        rows.push(Row { number, to: cell(0), amount: cell(1) });
        if rows.len() > LINES_MAX {
            return Err((number, format!("is one too many: a list has at most {LINES_MAX} payments")));
        }
    }
    match rows.is_empty() {
        true => Err((1, "nobody is to be paid".into())),
        false => Ok(rows),
    }
}

/// Numbers of lines as people count them. The reader's own count lags behind at empty lines and at "\r\n".
struct LineCount<'a> {
    bytes: &'a [u8],
    at: usize,
    number: u64,
}

impl LineCount<'_> {
    /// The line of the first byte at or after `offset` that does not end a line. Offsets must not fall.
    fn up_to(&mut self, offset: u64) -> u64 {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        while let Some(byte) = self.bytes.get(self.at)
            && (self.at < offset || matches!(byte, b'\r' | b'\n'))
        {
            self.number += u64::from(*byte == b'\n');
            self.at += 1;
        }
        self.number
    }
}

impl Source {
    /// Every line as an account and an amount of this token.
    pub fn check(self, context: &Context, token: &Token) -> Result<List, WalletError> {
        let mut lines = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let wrong = |problem| FileError::Line { file: self.file.clone(), line: row.number, problem };
            // A secret is refused as such, and not repeated.
            let to = context.book().resolve(&row.to).map_err(|error| wrong(error.to_string()))?;
            let amount = token.parse(&row.amount).map_err(|error| wrong(clean(&error.to_string())))?;
            if amount.is_zero() {
                return Err(wrong("the amount is zero".into()).into());
            }
            if let Some(known) = context.book().resembled(&to.address) {
                return Err(wrong(format!(
                    "{} looks like {} but is another address; if it is right, make it a contact first",
                    to.address,
                    known.describe()
                ))
                .into());
            }
            lines.push(Line { number: row.number, to, amount });
        }
        Ok(List { hash: self.hash, lines })
    }
}

impl List {
    /// Two lines that pay the same to the same are often one payment entered twice.
    pub fn warn_of_twins(&self, output: Output) {
        let mut seen: BTreeMap<_, u64> = BTreeMap::new();
        let mut twins = Vec::new();
        for line in &self.lines {
            if let Some(first) = seen.insert((line.to.address, line.amount), line.number) {
                twins.push(format!("lines {first} and {} pay the same amount to {}", line.number, line.to.describe()));
            }
        }
        twins.iter().take(TWINS_SHOWN).for_each(|twin| output.warning(twin));
        if twins.len() > TWINS_SHOWN {
            output.warning(&format!("so do {} further pairs of lines", twins.len() - TWINS_SHOWN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_spreadsheets_write_it() {
        let rows = parse(b"\xef\xbb\xbfto,amount,note\r\nbob, 12.5 ,\"rent, May\"\r\n\r\ncarol,1,\r\n").unwrap();
        let read: Vec<_> = rows.iter().map(|row| (row.number, row.to.as_str(), row.amount.as_str())).collect();
        assert_eq!(read, [(2, "bob", "12.5"), (4, "carol", "1")]);
    }

    #[test]
    fn what_is_wrong_is_named_by_line() {
        let refused = |text: &str| parse(text.as_bytes()).unwrap_err();
        assert_eq!(refused("").0, 1);
        assert_eq!(refused("bob,12\n").0, 1);
        assert_eq!(refused("to,amount\n").0, 1);
        assert_eq!(refused("amount,to\n1,bob\n").0, 1);
        assert_eq!(refused("to,amount\nbob,1\ncarol,1,x\n"), (3, "has 3 columns, the first line has 2".into()));
        assert_eq!(parse(b"to,amount\nbob,\xff\n").unwrap_err(), (2, "is not UTF-8 text".into()));
        let many = format!("to,amount\n{}", "bob,1\n".repeat(LINES_MAX + 1));
        assert_eq!(refused(&many).0, 10_002);
    }
}
