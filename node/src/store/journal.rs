//! The journal: everything a node must not forget, in the order it was said. It is the truth; all else comes back
//! from it.
//!
//! Records go in groups, one group and one sync for each turn of the node's loop. A group whose [`Journal::sync`]
//! returned is there after any crash; the group being written when the power fails is the only one that can be torn.
//! Rule R2: a torn tail is cut off and reported, damage before it refuses the start. To tell them apart, what a vote
//! depends on (`vital`) lies twice in its group, in different sectors: both copies bad in the last group is a torn
//! tail, one good is damage, which is repaired.
//!
//! What the log cannot see from itself: files restored from a copy, or whole groups taken off its end. Rule R3 covers
//! that.
//!
//! The journal does not know what its records mean. The driver appends and replays; the index and the peers' fetches
//! read single records back by [`Position`].

mod frame;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

use crate::store::disk::{Disk, DiskFile};
use frame::{ENTRY_BYTES, Framing, GroupView, SectorReader, Slot};
pub use frame::{GROUP_BYTES_MAX, GROUP_RECORDS_MAX, RECORD_BYTES_MAX};
pub use recovery::{Cut, OpenError, Recovered, Repair};
pub use segment::FORMAT_VERSION;
use segment::{GROUPS_OFFSET, Header, HeaderState, SEGMENT_MAX};

/// Size of a segment at which the next is begun, in bytes, unless configured otherwise.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Zeros written ahead, in bytes, unless configured otherwise.
pub const RESERVE_BYTES: u64 = 1 << 20;
/// Largest size a segment can be configured to, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;
/// Sector sizes a journal can have, in bytes.
pub const SECTOR_SIZES: [u32; 4] = [512, 1024, 2048, 4096];
/// Segments a reader keeps open.
const OPEN_SEGMENTS_MAX: usize = 16;
/// Bytes read ahead for one record.
const READ_WINDOW: usize = 64 << 10;

/// What a journal is made of. Segments that exist keep the sector size they were made with.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Hash of the genesis file: the journal of another chain is refused.
    pub genesis: [u8; 32],
    /// Size in bytes from which a segment takes no more groups; it is exceeded by at most one group. Values above
    /// [`SEGMENT_BYTES_MAX`] count as that.
    pub segment_bytes: u64,
    /// Bytes the disk writes as one: 512, 1024, 2048 or 4096; anything else is refused. Must not be below the disk's
    /// physical sector: a torn write of one group could then destroy both copies of the group before it.
    pub sector_bytes: u32,
    /// Zeros written ahead of the groups whenever their file must grow, in bytes; 0 for none. A sync that does not
    /// change the file's length takes half the time. All at once, 64 MiB of zeros held one sync up for 60 ms.
    pub reserve_bytes: u64,
}

impl JournalConfig {
    /// 64 MiB segments of 4096-byte sectors, growing by 1 MiB.
    pub fn new(genesis: [u8; 32]) -> JournalConfig {
        JournalConfig { genesis, segment_bytes: SEGMENT_BYTES, sector_bytes: 4096, reserve_bytes: RESERVE_BYTES }
    }

    fn segment_bytes(&self) -> u64 {
        self.segment_bytes.min(SEGMENT_BYTES_MAX)
    }
}

/// One entry of the journal, opaque to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// What the bytes are; the caller's numbering.
    pub kind: u8,
    /// Whether a vote depends on it: it is written twice, and never lost without an error.
    pub vital: bool,
    /// At most [`RECORD_BYTES_MAX`].
    pub bytes: Bytes,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}x{}", self.kind, if self.vital { "!" } else { "" }, self.bytes.len())
    }
}

/// Where a record lies: the segment, its group's place there, its place in the group. Later records have higher
/// positions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    fn new(segment: u32, offset: u64, index: usize) -> Position {
        // 24 bits of segment, 24 of half KiB, 16 of record; SEGMENT_MAX, SEGMENT_BYTES_MAX, GROUP_RECORDS_MAX keep them.
        Position(u64::from(segment) << 40 | (offset / 512) << 16 | (index as u64 & 0xffff))
    }

    fn segment(self) -> u32 {
        u32::try_from(self.0 >> 40).unwrap_or(0)
    }

    fn offset(self) -> u64 {
        (self.0 >> 16 & 0xff_ffff) * 512
    }

    fn index(self) -> usize {
        usize::from(u16::try_from(self.0 & 0xffff).unwrap_or(0))
    }

    /// The position as a number, to be kept in an index.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The position kept as this number. A number that is no position leads to an error when it is read.
    pub const fn from_u64(number: u64) -> Position {
        Position(number)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.segment(), self.offset(), self.index())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the journal cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused. After this the process must end; what was acknowledged is safe.
    #[error("cannot {doing} {file}: {source}")]
    Disk {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier write or sync failed, so nobody knows what is on the disk.
    #[error("an earlier write to the journal failed: the process must end and be started again")]
    Poisoned,
    /// Rule R2: records that votes depend on are gone, and more than a power cut did it.
    #[error(
        "{file} is damaged at byte {offset}: {found} where group {sequence} should be. This is not a write cut short by \
         a power failure, and the node will not vote without it. Restore the disk, or move the journal folder away and \
         restart: the node then follows as an observer and signs nothing until two epochs have passed"
    )]
    Damaged {
        /// The segment.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// Sequence number of the group that is missing.
        sequence: u64,
        /// What is there instead.
        found: Damage,
    },
    /// More groups need repair than a disk in order can have.
    #[error("more than {limit} groups of the journal are damaged, the last in {file}: replace the disk")]
    TooManyRepairs {
        /// The bound.
        limit: usize,
        /// Where it was exceeded.
        file: String,
    },
    /// The journal belongs to another genesis file.
    #[error(
        "{file} belongs to the chain with genesis hash {found}, this node to {expected}: use another home folder or genesis file"
    )]
    OtherChain {
        /// The segment.
        file: String,
        /// Genesis hash of the journal, hex.
        found: String,
        /// Genesis hash of this node, hex.
        expected: String,
    },
    /// Written by a program with another format.
    #[error("{file} has journal format {found}, this program knows {FORMAT_VERSION}: use the program that wrote it")]
    OtherFormat {
        /// The segment.
        file: String,
        /// Its format.
        found: u32,
    },
    /// An intact file that is not where it was made.
    #[error("{file} is a segment of the journal under a wrong name, or two mixed: put the files back as they were")]
    Misplaced {
        /// The segment.
        file: String,
    },
    /// A segment between others is not there.
    #[error("{file} is missing from the journal: restore it")]
    Missing {
        /// The segment.
        file: String,
    },
    /// The configured sector size is not one of [`SECTOR_SIZES`].
    #[error("a journal cannot have sectors of {found} bytes, only of 512, 1024, 2048 or 4096")]
    SectorSize {
        /// The configured size.
        found: u32,
    },
    /// One record above the bound; nothing of the call was taken.
    #[error("a record of {bytes} bytes is above the bound of {RECORD_BYTES_MAX}")]
    RecordTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The group would exceed its bound; nothing of the call was taken. Sync, then append again.
    #[error(
        "a group of {records} records and {bytes} bytes is above the bound of {GROUP_RECORDS_MAX} or {GROUP_BYTES_MAX}"
    )]
    GroupFull {
        /// Records the group would have.
        records: usize,
        /// Bytes the group would have.
        bytes: usize,
    },
    /// All segment numbers are used up.
    #[error("the journal has no segment number left after {SEGMENT_MAX}")]
    Exhausted,
    /// There is no record at the position, or it is damaged.
    #[error("no readable record at position {position} of the journal")]
    NoRecord {
        /// What was asked for.
        position: Position,
    },
}

impl JournalError {
    fn disk(doing: &'static str, disk: &dyn Disk, name: &str, source: io::Error) -> JournalError {
        JournalError::Disk { doing, file: disk.display(name), source }
    }
}

/// What is found where a group should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Both copies of its vital records, and later groups or segments behind it.
    #[error("a group damaged in both copies, with later ones behind it,")]
    BothCopies,
    /// Another group's sector.
    #[error("a part of group {sequence}")]
    OtherGroup {
        /// Its sequence number.
        sequence: u64,
    },
    /// Neither copy of the segment's header, though there are groups behind it.
    #[error("a segment without a readable header")]
    Header,
    /// Nothing, though the next segment begins with a later group.
    #[error("the end of the segment, too early,")]
    EarlyEnd,
}

/// The append-only log. One owner; [`Journal::reader`] gives others access to what is synced.
pub struct Journal {
    disk: Arc<dyn Disk>,
    config: JournalConfig,
    reader: JournalReader,
    header: Header,
    framing: Framing,
    file: Box<dyn DiskFile>,
    /// Where the next group goes, in bytes.
    end: u64,
    /// Length of the file, in bytes.
    size: u64,
    next_sequence: u64,
    /// The group being gathered.
    group: Vec<Slot>,
    /// Bytes of its records and their directory.
    group_bytes: usize,
    poisoned: bool,
}

impl Journal {
    /// Opens the journal, or begins one in an empty folder, and hands every record to `replay`, in order; all of them
    /// are durable when this returns. Records are streamed: memory holds one group at a time.
    ///
    /// `replay` may have seen records when an error follows. The files are only changed (cut, repaired) after all of
    /// them were found good enough to start.
    pub fn open<E>(
        disk: Arc<dyn Disk>,
        config: JournalConfig,
        replay: &mut dyn FnMut(Position, Record) -> Result<(), E>,
    ) -> Result<(Journal, Recovered), OpenError<E>> {
        recovery::open(disk, config, replay)
    }

    /// Takes records into the group, and says where they will lie. Nothing is written before [`Journal::sync`]. Either
    /// all of `records` are taken or none.
    pub fn append(&mut self, records: &[Record]) -> Result<Vec<Position>, JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        let mut bytes = self.group_bytes;
        for record in records {
            if record.bytes.len() > RECORD_BYTES_MAX {
                return Err(JournalError::RecordTooLarge { bytes: record.bytes.len() });
            }
            bytes = bytes.saturating_add(ENTRY_BYTES + record.bytes.len());
        }
        let count = self.group.len() + records.len();
        if count > GROUP_RECORDS_MAX || bytes > GROUP_BYTES_MAX - ENTRY_BYTES {
            return Err(JournalError::GroupFull { records: count, bytes });
        }
        let (segment, offset) = self.next_group()?;
        let first = self.group.len();
        self.group.extend(records.iter().map(Slot::new));
        self.group_bytes = bytes;
        Ok((first..count).map(|index| Position::new(segment, offset, index)).collect())
    }

    /// Writes the group and makes it durable with one sync; nothing if the group is empty. After an error the journal
    /// is poisoned: the state of the disk is unknown, and only a restart reads it again.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        if self.group.is_empty() {
            return Ok(());
        }
        self.poisoned = true;
        if self.is_full() {
            self.rotate()?;
        }
        let [all, vital] = frame::bodies(&self.group);
        let (_, sealed) = self.framing.seal(self.end, self.next_sequence, [&all, &vital]);
        let end = self.end + sealed.len() as u64;
        self.file.write_at(self.end, &sealed).map_err(|source| self.failed("write", source))?;
        if end > self.size {
            self.size = end + self.config.reserve_bytes;
            match self.file.reserve(self.size) {
                // Only a matter of speed: the group itself has found room.
                Err(error) if takes_no_more(error.kind()) => {}
                other => other.map_err(|source| self.failed("extend", source))?,
            }
        }
        self.file.sync().map_err(|source| self.failed("sync", source))?;
        self.end = end;
        self.next_sequence += 1;
        self.group.clear();
        self.group_bytes = 0;
        self.poisoned = false;
        Ok(())
    }

    /// How many groups it holds, all of them durable.
    pub fn groups(&self) -> u64 {
        self.next_sequence.saturating_sub(1)
    }

    /// Where the next record will lie.
    pub fn position(&self) -> Result<Position, JournalError> {
        let (segment, offset) = self.next_group()?;
        Ok(Position::new(segment, offset, self.group.len()))
    }

    /// The record at a position [`Journal::append`] or the replay gave, synced or not.
    pub fn read(&self, position: Position) -> Result<Record, JournalError> {
        if (position.segment(), position.offset()) != self.next_group()? {
            return self.reader.read(position);
        }
        let slot = self.group.get(position.index());
        slot.and_then(Slot::record).ok_or(JournalError::NoRecord { position })
    }

    /// Access to synced records for other threads.
    pub fn reader(&self) -> JournalReader {
        self.reader.clone()
    }

    /// Sequence number of the group [`Journal::sync`] writes next; the first is 1.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    fn is_full(&self) -> bool {
        self.end > GROUPS_OFFSET && self.end >= self.config.segment_bytes()
    }

    /// Segment and offset of the group being gathered.
    fn next_group(&self) -> Result<(u32, u64), JournalError> {
        match (self.is_full(), self.header.segment) {
            (false, segment) => Ok((segment, self.end)),
            (true, SEGMENT_MAX..) => Err(JournalError::Exhausted),
            (true, segment) => Ok((segment + 1, GROUPS_OFFSET)),
        }
    }

    /// Every group so far is synced, so the existence of the next segment proves this one complete.
    fn rotate(&mut self) -> Result<(), JournalError> {
        let (segment, offset) = self.next_group()?;
        let header = Header {
            sector_bytes: self.config.sector_bytes,
            genesis: self.config.genesis,
            segment,
            base: self.next_sequence,
        };
        self.file = header.create(&*self.disk)?;
        (self.header, self.framing, self.end, self.size) = (header, header.framing(), offset, offset);
        Ok(())
    }

    /// What went wrong with the segment that is written now.
    fn failed(&self, doing: &'static str, source: io::Error) -> JournalError {
        JournalError::disk(doing, &*self.disk, &segment::file_name(self.header.segment), source)
    }
}

/// A disk, a quota or a file that takes no more.
fn takes_no_more(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} at {}:{}", self.next_sequence, self.header.segment, self.end)
    }
}

/// Reads synced records by position, from any thread.
#[derive(Clone)]
pub struct JournalReader {
    disk: Arc<dyn Disk>,
    config: JournalConfig,
    open: Arc<Mutex<BTreeMap<u32, Arc<OpenSegment>>>>,
}

struct OpenSegment {
    file: Box<dyn DiskFile>,
    framing: Framing,
}

impl JournalReader {
    fn new(disk: Arc<dyn Disk>, config: JournalConfig) -> JournalReader {
        JournalReader { disk, config, open: Arc::default() }
    }

    /// The record at a position that was synced. Its checksums are verified; the second copy of a vital record is read
    /// where the first is damaged.
    pub fn read(&self, position: Position) -> Result<Record, JournalError> {
        let missing = JournalError::NoRecord { position };
        let offset = position.offset();
        if offset < GROUPS_OFFSET {
            return Err(missing);
        }
        let Some(segment) = self.segment(position.segment())? else { return Err(missing) };
        let name = segment::file_name(position.segment());
        let failed = |source| JournalError::disk("read", &*self.disk, &name, source);
        let mut reader = SectorReader::new(&*segment.file, &segment.framing, READ_WINDOW);
        let (Some(found), _) = reader.next_survivor(offset).map_err(failed)? else { return Err(missing) };
        if found.offset.checked_sub(segment.framing.bytes_of(found.place)) != Some(offset) {
            return Err(missing);
        }
        let mut group = GroupView { reader: &mut reader, offset, shape: found.shape };
        let Some(entries) = group.directory().map_err(failed)? else { return Err(missing) };
        let bytes = group.record_bytes(&entries, position.index()).map_err(failed)?;
        match (entries.get(position.index()), bytes) {
            (Some(entry), Some(bytes)) => Ok(Record { kind: entry.kind, vital: entry.vital, bytes }),
            _ => Err(missing),
        }
    }

    fn segment(&self, number: u32) -> Result<Option<Arc<OpenSegment>>, JournalError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = open.get(&number) {
            return Ok(Some(segment.clone()));
        }
        let name = segment::file_name(number);
        let file = match self.disk.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|source| JournalError::disk("open", &*self.disk, &name, source))?,
        };
        let header = match segment::read_header(&*file, &self.disk.display(&name), number, &self.config)? {
            HeaderState::Good(header) | HeaderState::HalfGood(header) => header,
            HeaderState::Bad => return Ok(None),
        };
        if open.len() >= OPEN_SEGMENTS_MAX {
            open.pop_first();
        }
        let segment = Arc::new(OpenSegment { file, framing: header.framing() });
        open.insert(number, segment.clone());
        Ok(Some(segment))
    }
}
