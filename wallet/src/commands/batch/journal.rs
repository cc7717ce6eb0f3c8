//! What was signed for a list and what became of it, one JSON document per line, mode 0600.
//!
//! ```text
//! {"format":"tally-payments 1","list":"<SHA-256>","lines":120,"genesisHash":"…","chainId":"…","sender":"tally1…"}
//! {"signed":{"lines":[0,1,2],"transaction":{…a transaction file…}}}
//! {"settled":{"txId":"…","outcome":"final","height":"7"}}
//! ```
//!
//! Every line is synced before what depends on it happens: a transaction is sent only when its line is on disk. A last
//! line without its end was never depended on, and is cut off; anything else that does not fit is an error, because a
//! journal that is misread pays twice.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tally_types::{Address, Hash, genesis::Chain};

use crate::{envelope::Envelope, error::FileError};

/// Most bytes of a journal: 10,000 lines in transactions of their own, tried several times.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

const FORMAT: &str = "tally-payments 1";

/// What a journal is about. Another list, chain or sender needs another journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// SHA-256 of the list.
    pub list: Hash,
    /// How many lines it has.
    pub lines: usize,
    /// The chain.
    pub chain: Chain,
    /// Who pays.
    pub sender: Address,
}

/// What became of a transaction, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in a block and had its effect.
    Final {
        /// The block.
        height: u64,
    },
    /// It is in a block and paid nothing but its fee.
    Failed {
        /// The block.
        height: u64,
        /// Stable name of the reason.
        reason: String,
    },
    /// It never ran and never will.
    NeverRan,
}

/// An open journal, locked against other processes.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    envelope: Envelope,
    lines: Vec<usize>,
    outcome: Option<Outcome>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Head {
    format: String,
    list: String,
    lines: usize,
    genesis_hash: String,
    chain_id: String,
    sender: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum Record {
    Signed {
        lines: Vec<usize>,
        transaction: Value,
    },
    #[serde(rename_all = "camelCase")]
    Settled {
        tx_id: String,
        outcome: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        height: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

impl Subject {
    /// The first line of its journal.
    fn head(&self) -> String {
        let head = Head {
            format: FORMAT.into(),
            list: self.list.to_string(),
            lines: self.lines,
            genesis_hash: self.chain.genesis_hash.to_string(),
            chain_id: self.chain.id.clone(),
            sender: self.sender.to_string(),
        };
        serde_json::to_string(&head).expect("strings and numbers are JSON")
    }
}

impl Journal {
    /// Opens the journal at `path` for `subject`, or makes it.
    pub fn open(path: &Path, subject: Subject) -> Result<Journal, FileError> {
        let io = |source| FileError::Write { file: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileError::Locked { file: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let (entries, good) = read(path, &mut file, &subject)?;
        file.set_len(good).and_then(|()| file.seek(SeekFrom::End(0))).map_err(io)?;
        let mut journal = Journal { path: path.to_owned(), file, lines: subject.lines, entries };
        if good == 0 {
            journal.append(&subject.head())?;
            crate::files::sync_folder(path).map_err(io)?;
        }
        Ok(journal)
    }

    /// Which lines are paid, without making, locking or changing a journal.
    pub fn look(path: &Path, subject: &Subject) -> Result<Vec<bool>, FileError> {
        match File::open(path) {
            Ok(mut file) => Ok(paid(&read(path, &mut file, subject)?.0, subject.lines)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![false; subject.lines]),
            Err(source) => Err(FileError::Read { file: path.to_owned(), source }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a signed transaction that pays `lines`, before it is sent.
    pub fn signed(&mut self, envelope: &Envelope, lines: &[usize]) -> Result<(), FileError> {
        let transaction = serde_json::from_str(&envelope.to_text()).expect("a transaction file is JSON");
        self.write(&Record::Signed { lines: lines.to_vec(), transaction })?;
        self.entries.push(Entry { envelope: envelope.clone(), lines: lines.to_vec(), outcome: None });
        Ok(())
    }

    /// Keeps what became of it.
    pub fn settled(&mut self, envelope: &Envelope, outcome: Outcome) -> Result<(), FileError> {
        let (name, height, reason) = match &outcome {
            Outcome::Final { height } => ("final", Some(height.to_string()), None),
            Outcome::Failed { height, reason } => ("failed", Some(height.to_string()), Some(reason.clone())),
            Outcome::NeverRan => ("neverRan", None, None),
        };
        let tx_id = envelope.id().to_string();
        self.write(&Record::Settled { tx_id, outcome: name.into(), height, reason })?;
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.envelope.id() == envelope.id()) {
            entry.outcome = Some(outcome);
        }
        Ok(())
    }

    /// Transactions of which it is not known what became of them.
    pub fn unsettled(&self) -> Vec<Envelope> {
        let open = self.entries.iter().filter(|entry| entry.outcome.is_none());
        open.map(|entry| entry.envelope.clone()).collect()
    }

    /// Lines that no transaction pays or may still pay.
    pub fn open_lines(&self) -> Vec<usize> {
        let mut open = vec![true; self.lines];
        for entry in &self.entries {
            if matches!(entry.outcome, None | Some(Outcome::Final { .. })) {
                entry.lines.iter().for_each(|line| open[*line] = false);
            }
        }
        (0..self.lines).filter(|line| open[*line]).collect()
    }

    /// Transactions that are said to have never run and whose lines are open, with those lines; the last of each nonce.
    pub fn never_ran(&self) -> Vec<(Envelope, Vec<usize>)> {
        let open = self.open_lines();
        let mut found: Vec<(Envelope, Vec<usize>)> = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.outcome == Some(Outcome::NeverRan)) {
            if entry.lines.iter().all(|line| open.contains(line)) {
                let nonce = entry.envelope.body().nonce;
                found.retain(|(other, _)| other.body().nonce != nonce);
                found.push((entry.envelope.clone(), entry.lines.clone()));
            }
        }
        found
    }

    /// How many lines are paid.
    pub fn paid(&self) -> usize {
        paid(&self.entries, self.lines).into_iter().filter(|paid| *paid).count()
    }

    /// Id, height and lines of every transaction that paid.
    pub fn finals(&self) -> Vec<(String, u64, &[usize])> {
        let finals = self.entries.iter().filter_map(|entry| match entry.outcome {
            Some(Outcome::Final { height }) => Some((entry.envelope.id().to_string(), height, entry.lines.as_slice())),
            _ => None,
        });
        finals.collect()
    }

    fn write(&mut self, record: &Record) -> Result<(), FileError> {
        self.append(&serde_json::to_string(record).expect("strings and numbers are JSON"))
    }

    fn append(&mut self, line: &str) -> Result<(), FileError> {
        let written = self.file.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| FileError::Write { file: self.path.clone(), source })
    }
}

fn paid(entries: &[Entry], lines: usize) -> Vec<bool> {
    let mut paid = vec![false; lines];
    for entry in entries.iter().filter(|entry| matches!(entry.outcome, Some(Outcome::Final { .. }))) {
        entry.lines.iter().for_each(|line| paid[*line] = true);
    }
    paid
}

/// The entries, and how many bytes of the file are whole lines.
fn read(path: &Path, file: &mut File, subject: &Subject) -> Result<(Vec<Entry>, u64), FileError> {
    let mut bytes = Vec::new();
    let limited = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    limited.map_err(|source| FileError::Read { file: path.to_owned(), source })?;
    let wrong = |problem: String| FileError::Journal { file: path.to_owned(), problem };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong("is larger than 64 MiB".into()));
    }
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    // What a crash left of a first line may go; anything else is somebody's file.
    if whole == 0 && !subject.head().as_bytes().starts_with(&bytes) {
        return Err(wrong("is no journal of `pay`; name another file, or move this one away".into()));
    }
    let text = std::str::from_utf8(&bytes[..whole]).map_err(|_| wrong("is not UTF-8 text".into()))?;
    let mut entries: Vec<Entry> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let damaged = |problem: String| wrong(format!("is damaged in line {number}: {problem}"));
        if number == 1 {
            let head: Head = serde_json::from_str(line).map_err(|error| damaged(error.to_string()))?;
            check(&head, subject).map_err(&wrong)?;
            continue;
        }
        match serde_json::from_str(line).map_err(|error| damaged(error.to_string()))? {
            Record::Signed { lines, transaction } => {
                let bytes = serde_json::to_vec(&transaction).map_err(|error| damaged(error.to_string()))?;
                let envelope = Envelope::parse(&bytes).map_err(|error| damaged(error.to_string()))?;
                if *envelope.chain() != subject.chain
                    || envelope.body().sender != subject.sender
                    || !envelope.is_signed()
                {
                    return Err(damaged("another chain, another sender, or no signature".into()));
                }
                if lines.iter().any(|line| *line >= subject.lines) || lines.len() != envelope.body().operations.len() {
                    return Err(damaged("its lines are not those of its transaction".into()));
                }
                entries.push(Entry { envelope, lines, outcome: None });
            }
            Record::Settled { tx_id, outcome, height, reason } => {
                let height = height.map(|height| height.parse());
                let outcome = match (outcome.as_str(), height, reason) {
                    ("final", Some(Ok(height)), None) => Outcome::Final { height },
                    ("failed", Some(Ok(height)), Some(reason)) => Outcome::Failed { height, reason },
                    ("neverRan", None, None) => Outcome::NeverRan,
                    _ => return Err(damaged("no such outcome".into())),
                };
                let entry = entries.iter_mut().find(|entry| entry.envelope.id().to_string() == tx_id);
                let entry = entry.ok_or_else(|| damaged("it settles a transaction that was not signed".into()))?;
                entry.outcome = Some(outcome);
            }
        }
    }
    Ok((entries, u64::try_from(whole).unwrap_or(u64::MAX)))
}

fn check(head: &Head, subject: &Subject) -> Result<(), String> {
    if head.format != FORMAT {
        return Err(format!(
            "has the format {:?}, this wallet reads {FORMAT:?} only",
            crate::output::clean(&head.format)
        ));
    }
    if head.genesis_hash != subject.chain.genesis_hash.to_string() || head.chain_id != subject.chain.id {
        return Err("is of another network".into());
    }
    if head.sender != subject.sender.to_string() {
        return Err(format!("is of another sender, {}", crate::output::clean(&head.sender)));
    }
    if head.list != subject.list.to_string() || head.lines != subject.lines {
        return Err("belongs to another content of the list: it was changed after the first payment. Bring it back as it was; new payments belong into a new list".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use tally_proto::v1;
    use tally_types::{Amount, SecretKey};

    use super::*;

    fn secret() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    fn subject() -> Subject {
        let genesis_hash = Hash::of(b"genesis");
        let chain = Chain { id: format!("local-{:.8}", genesis_hash.to_string()), genesis_hash };
        Subject { list: Hash::of(b"list"), lines: 5, chain, sender: secret().public_key().address() }
    }

    fn envelope(nonce: u64, operations: usize) -> Envelope {
        let operation = super::super::super::plan::operation(false, &Address([2; 32]), Amount(5));
        let body = v1::TransactionBody {
            chain_id: subject().chain.id,
            sender: subject().sender.to_string(),
            nonce,
            expire_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            max_fee: 9,
            memo: String::new(),
            operations: vec![operation; operations],
        };
        Envelope::unsigned(&subject().chain, &body).unwrap().sign(&secret()).unwrap()
    }

    #[test]
    fn a_line_is_open_only_when_nothing_can_pay_it_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path, subject()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(journal.open_lines(), [0, 1, 2, 3, 4]);
        let all = [envelope(1, 2), envelope(2, 1), envelope(3, 1)];
        for (envelope, lines) in all.iter().zip([&[0, 1][..], &[2], &[3]]) {
            journal.signed(envelope, lines).unwrap();
        }
        assert_eq!(journal.open_lines(), [4], "what was signed may run");
        journal.settled(&all[0], Outcome::Final { height: 7 }).unwrap();
        journal.settled(&all[1], Outcome::Failed { height: 8, reason: "INSUFFICIENT_FUNDS".into() }).unwrap();
        assert!(matches!(Journal::open(&path, subject()), Err(FileError::Locked { .. })));
        drop(journal);
        // Read again, cut anywhere in its last line, it says the same.
        let text = fs::read(&path).unwrap();
        for torn in ["", "{\"settled", "{\"settled\":{\"txId\":\"x\"}}"] {
            fs::write(&path, [&text[..], torn.as_bytes()].concat()).unwrap();
            let journal = Journal::open(&path, subject()).unwrap();
            assert_eq!(journal.open_lines(), [2, 4]);
            assert_eq!((journal.paid(), journal.unsettled()), (2, vec![all[2].clone()]));
            assert_eq!(journal.finals().len(), 1);
            drop(journal);
            assert_eq!(fs::read(&path).unwrap(), text, "a torn line is cut off");
        }
        assert_eq!(Journal::look(&path, &subject()).unwrap(), [true, true, false, false, false]);
    }

    #[test]
    fn what_never_ran_is_known_by_its_nonce_until_something_pays_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&folder.path().join("journal"), subject()).unwrap();
        let (first, second) = (envelope(2, 1), envelope(2, 2));
        journal.signed(&first, &[0]).unwrap();
        assert!(journal.never_ran().is_empty(), "it may run");
        journal.settled(&first, Outcome::NeverRan).unwrap();
        assert_eq!(journal.never_ran(), [(first.clone(), vec![0])]);
        journal.signed(&second, &[0, 1]).unwrap();
        assert!(journal.never_ran().is_empty(), "the second may run");
        journal.settled(&second, Outcome::NeverRan).unwrap();
        assert_eq!(journal.never_ran(), [(second, vec![0, 1])]);
        // It ran after all: what was said last counts.
        journal.settled(&first, Outcome::Final { height: 9 }).unwrap();
        assert_eq!((journal.open_lines(), journal.never_ran()), (vec![1, 2, 3, 4], vec![]));
    }

    #[test]
    fn a_journal_of_something_else_or_a_damaged_one_is_refused_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::open(&path, subject()).unwrap();
        journal.signed(&envelope(1, 1), &[0]).unwrap();
        drop(journal);
        let text = fs::read_to_string(&path).unwrap();
        let refused =
            |subject: Subject| assert!(matches!(Journal::open(&path, subject), Err(FileError::Journal { .. })));
        refused(Subject { list: Hash::of(b"changed"), ..subject() });
        refused(Subject { sender: Address([9; 32]), ..subject() });
        refused(Subject { chain: Chain { genesis_hash: Hash::of(b"x"), ..subject().chain }, ..subject() });
        for (from, to) in [
            ("payments 1", "payments 2"),
            ("\"lines\":[0]", "\"lines\":[5]"),
            ("\"lines\":[0]", "\"lines\":[0,1]"),
            ("{\"signed\"", "{\"Signed\""),
            ("\n", "\n\n"),
        ] {
            let bad = text.replacen(from, to, 1);
            assert_ne!(bad, text);
            fs::write(&path, &bad).unwrap();
            refused(subject());
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        let unsigned = text.clone() + "{\"settled\":{\"txId\":\"00\",\"outcome\":\"final\",\"height\":\"7\"}}\n";
        fs::write(&path, unsigned).unwrap();
        refused(subject());
        for other in ["a secret without a line end".to_owned(), text[..text.find('\n').unwrap() - 1].to_owned() + "x"] {
            fs::write(&path, &other).unwrap();
            refused(subject());
            assert_eq!(fs::read_to_string(&path).unwrap(), other);
        }
        // A crash in the middle of the first line.
        fs::write(&path, &text[..40]).unwrap();
        Journal::open(&path, subject()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text[..=text.find('\n').unwrap()]);
    }
}
