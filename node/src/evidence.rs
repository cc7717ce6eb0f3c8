//! Convictions: kept in memory for clients, and in a file of the home, one line of JSON each, for ever.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tally_consensus::{Evidence, EvidenceKind};
use tally_types::{Address, Epoch, Signature, SignedBytes};

/// Convictions kept; a full book says so once in the log.
const EVIDENCE_MAX: usize = 10_000;
/// Of these, of one validator: who earns more has earned enough, and must not fill the book before others are convicted.
const EVIDENCE_PER_VALIDATOR_MAX: usize = 64;
/// Bytes a line may have. Signed bytes are a few hundred.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// Convictions recorded by this node, oldest first.
#[derive(Debug, Default)]
pub struct EvidenceBook(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    all: Vec<Evidence>,
    /// None: kept in memory only.
    file: Option<File>,
}

impl EvidenceBook {
    /// Reads what earlier runs recorded in the file at `path`, or makes it. A line that cannot be read, as a crash leaves
    /// one, is passed over with a warning and stays where it is.
    pub fn open(path: &Path) -> io::Result<EvidenceBook> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut book = Book::default();
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            match read_line(&line) {
                Some(evidence) => drop(book.add(evidence)),
                None => tracing::warn!(path = %path.display(), number, "a line of recorded evidence cannot be read"),
            }
        }
        // What a crash cut off must not run into the next line.
        if !line_ends(&mut file)? {
            file.write_all(b"\n")?;
        }
        book.file = Some(file);
        Ok(EvidenceBook(Mutex::new(book)))
    }

    /// Adds a conviction and makes it durable, unless this one, or one of the same kind, place and validator, is there
    /// already, or the book is full, or has enough of that validator.
    pub fn add(&self, evidence: Evidence) {
        let line = line_of(&evidence);
        let mut book = self.lock();
        if !book.add(evidence) {
            return;
        }
        tracing::warn!(evidence = %line, "a validator was convicted");
        if book.all.len() == EVIDENCE_MAX {
            tracing::warn!("no more evidence is recorded: {EVIDENCE_MAX} convictions are kept");
        }
        if let Some(file) = &mut book.file
            && let Err(error) = writeln!(file, "{line}").and_then(|()| file.sync_data())
        {
            tracing::error!(%error, "the evidence could not be written to its file");
        }
    }

    /// Up to `limit` convictions from the `skip`th on.
    pub fn list(&self, skip: usize, limit: usize) -> Vec<Evidence> {
        self.lock().all.iter().skip(skip).take(limit).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn add(&mut self, evidence: Evidence) -> bool {
        let place = |one: &Evidence| (one.kind, one.epoch, one.number);
        let mut same = self.all.iter().filter(|one| one.validator == evidence.validator);
        let count = same.clone().count();
        let is_new = self.all.len() < EVIDENCE_MAX
            && count < EVIDENCE_PER_VALIDATOR_MAX
            && !same.any(|one| place(one) == place(&evidence));
        if is_new {
            self.all.push(evidence);
        }
        is_new
    }
}

/// A conviction as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    validator: String,
    kind: String,
    epoch: u64,
    number: u64,
    first: Part,
    second: Part,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Part {
    signed_bytes: String,
    signature: String,
}

fn line_of(evidence: &Evidence) -> String {
    let part = |(bytes, signature): &(SignedBytes, Signature)| Part {
        signed_bytes: hex::encode(bytes.as_bytes()),
        signature: hex::encode(signature.0),
    };
    let line = Line {
        validator: evidence.validator.to_string(),
        kind: format!("{:?}", evidence.kind),
        epoch: evidence.epoch.0,
        number: evidence.number,
        first: part(&evidence.first),
        second: part(&evidence.second),
    };
    serde_json::to_string(&line).expect("strings and numbers always serialise")
}

fn read_line(line: &[u8]) -> Option<Evidence> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let part = |part: &Part| {
        let signature = Signature::from_slice(&hex::decode(&part.signature).ok()?)?;
        Some((SignedBytes::recorded(hex::decode(&part.signed_bytes).ok()?), signature))
    };
    Some(Evidence {
        validator: line.validator.parse::<Address>().ok()?,
        kind: EvidenceKind::ALL.into_iter().find(|kind| format!("{kind:?}") == line.kind)?,
        epoch: Epoch(line.epoch),
        number: line.number,
        first: part(&line.first)?,
        second: part(&line.second)?,
    })
}

fn line_ends(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tally_types::{Hash, SecretKey};

    use super::*;

    fn evidence(number: u64) -> Evidence {
        let secret = SecretKey::from_seed(&[7; 32]);
        let part = |content: u8| {
            let bytes = SignedBytes::new("tally.test", &Hash::ZERO, &[&[content]]);
            let signature = secret.sign(&bytes);
            (bytes, signature)
        };
        Evidence {
            validator: secret.public_key().address(),
            kind: EvidenceKind::ALL[number as usize % EvidenceKind::ALL.len()],
            epoch: Epoch(3),
            number,
            first: part(1),
            second: part(2),
        }
    }

    #[test]
    fn convictions_outlive_the_process_and_are_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evidence.jsonl");
        for _ in 0..2 {
            let book = EvidenceBook::open(&path).unwrap();
            (0..12).map(evidence).for_each(|one| book.add(one));
            assert_eq!(book.list(0, 99), (0..12).map(evidence).collect::<Vec<_>>());
            assert_eq!(book.list(3, 2), [evidence(3), evidence(4)]);
        }
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 12);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evidence.jsonl");
        let book = EvidenceBook::open(&path).unwrap();
        book.add(evidence(1));
        book.add(evidence(2));
        drop(book);
        let bytes = fs::read(&path).unwrap();
        let first = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        for end in 0..bytes.len() {
            fs::write(&path, &bytes[..end]).unwrap();
            let book = EvidenceBook::open(&path).unwrap();
            let whole = [(first, evidence(1)), (bytes.len() - 1, evidence(2))];
            let expected: Vec<_> = whole.into_iter().filter(|(length, _)| end >= *length).map(|(_, one)| one).collect();
            assert_eq!(book.list(0, 9), expected, "cut at {end}");
            book.add(evidence(3));
            drop(book);
            assert_eq!(EvidenceBook::open(&path).unwrap().list(0, 9).last(), Some(&evidence(3)), "cut at {end}");
        }
        let mut flipped = bytes.clone();
        flipped[5] ^= 0x80;
        fs::write(&path, [flipped, [&[b'x'; 40_000][..], b"\n"].concat(), bytes.clone()].concat()).unwrap();
        let found = EvidenceBook::open(&path).unwrap().list(0, 9);
        assert!(found.contains(&evidence(1)) && found.contains(&evidence(2)), "{found:?}");
    }

    #[test]
    fn a_full_book_takes_no_more() {
        let book = EvidenceBook::default();
        let of = |validator: usize, number: u64| Evidence {
            validator: Address((validator as u64 + 1).to_be_bytes().repeat(4).try_into().unwrap()),
            number,
            ..evidence(0)
        };
        // One alone does not fill it.
        for number in 0..=EVIDENCE_PER_VALIDATOR_MAX as u64 {
            book.add(of(0, number));
        }
        assert_eq!(book.list(0, usize::MAX).len(), EVIDENCE_PER_VALIDATOR_MAX);
        book.add(of(1, 0));
        assert_eq!(book.list(0, usize::MAX).last(), Some(&of(1, 0)));
        book.0.lock().unwrap().all = (0..EVIDENCE_MAX).map(|one| of(one, 0)).collect();
        book.add(of(EVIDENCE_MAX, 0));
        assert_eq!(book.list(0, usize::MAX).len(), EVIDENCE_MAX);
    }
}
