//! Opening a journal: which groups are whole, which are damage to repair, and where a torn tail begins (rule R2).
//!
//! First every segment is read and judged without changing a byte; only then are the tail cut and groups repaired, so
//! that a journal which is refused is still as it was found.
//!
//! What is taken for a torn tail: in the last segment, a group that has lost a vital record in both copies, or of which
//! no sector is left, with no valid sector of any group behind it. Everything else that does not check is damage. A
//! segment with another file behind it, even an unfinished one, has no torn tail: rotation follows a successful sync. If
//! that file says that it begins with the very next group, bytes between the two were never a group. Nor is a single bit that
//! is set there, whatever that file says: a bit that flipped in the zeros written ahead costs nothing.

use std::sync::Arc;

use crate::store::{
    disk::{Disk, DiskFile},
    journal::{
        Damage, Journal, JournalConfig, JournalError, JournalReader, Position, Record, SECTOR_SIZES,
        frame::{self, Framing, GroupView, Salvage, SectorReader, Shape, Slot},
        segment::{self, GROUPS_OFFSET, Header, HeaderState},
    },
};

/// Damaged groups that are repaired at one start; a disk with more should not be trusted.
const REPAIRS_MAX: usize = 1024;
/// Bytes read ahead while the journal is replayed.
const REPLAY_WINDOW: usize = 1 << 20;

/// What opening a journal found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments.
    pub segments: u32,
    /// Groups that were kept.
    pub groups: u64,
    /// Records that were replayed.
    pub records: u64,
    /// The torn tail, if there was one.
    pub cut: Option<Cut>,
    /// Damage that was repaired, in order; at most 1024.
    pub repaired: Vec<Repair>,
    /// Segments of which one copy of the header was damaged and written again.
    pub headers_repaired: u32,
    /// Segments of which bytes behind the last group were cut off that are no group: the next segment proves that no
    /// group is missing.
    pub litter_cut: u32,
    /// Records without vital content that are gone: those lost now, and those an earlier repair reported.
    pub records_lost: u64,
}

/// A tail that was never synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub file: String,
    /// Where it was cut, in bytes.
    pub offset: u64,
    /// Bytes that were dropped.
    pub bytes: u64,
}

/// A damaged group of which every vital record was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The segment.
    pub file: String,
    /// Where the group begins, in bytes.
    pub offset: u64,
    /// Its sequence number.
    pub sequence: u64,
    /// Records of it, none vital, that are lost.
    pub records_lost: u32,
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E> {
    /// The journal itself.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The caller refused a record.
    #[error("replaying the journal: {0}")]
    Replay(E),
}

type Replay<'a, E> = &'a mut dyn FnMut(Position, Record) -> Result<(), E>;

/// A segment's file, opened and judged by its header.
struct Segment {
    number: u32,
    name: String,
    file: Box<dyn DiskFile>,
    header: Header,
    framing: Framing,
    /// Whether a copy of the header must be written again.
    repair_header: bool,
    /// Whether a file with a higher number exists.
    sealed: bool,
}

/// A group to be written again in place.
struct Rewrite {
    segment: usize,
    offset: u64,
    shape: Shape,
}

/// How far the scan has come.
struct Scan {
    next_sequence: u64,
    /// End of the last good group of the segment read last.
    end: u64,
    /// The last group of all.
    last: Option<Rewrite>,
    repairs: Vec<Rewrite>,
    /// Bytes behind the last group of the segment read last, which another follows: a group damaged in every sector, unless
    /// that segment says that it begins with the group that comes next.
    litter: Option<JournalError>,
    /// Segments with bytes that are no group behind their last, and where these begin.
    littered: Vec<(usize, u64)>,
    recovered: Recovered,
}

pub(super) fn open<E>(
    disk: Arc<dyn Disk>,
    config: JournalConfig,
    replay: Replay<'_, E>,
) -> Result<(Journal, Recovered), OpenError<E>> {
    if !SECTOR_SIZES.contains(&config.sector_bytes) {
        return Err(JournalError::SectorSize { found: config.sector_bytes }.into());
    }
    let (mut segments, unfinished) = find_segments(&*disk, &config)?;
    let mut scan = Scan {
        next_sequence: 1,
        end: GROUPS_OFFSET,
        last: None,
        repairs: Vec::new(),
        litter: None,
        littered: Vec::new(),
        recovered: Recovered::default(),
    };
    for (index, segment) in segments.iter().enumerate() {
        scan.segment(&*disk, index, segment, replay)?;
    }
    if let Some(damaged) = scan.litter.take() {
        return Err(damaged.into());
    }

    // From here on files change. The last segment's header is written again like its last group below: the sync that
    // should have made it durable may have failed in the process before this one.
    let last = segments.len().checked_sub(1);
    for (index, segment) in segments.iter().enumerate() {
        if segment.repair_header || Some(index) == last {
            segment.header.write(&*segment.file).map_err(|source| segment.failed(&*disk, "repair", source))?;
            scan.recovered.headers_repaired += u32::from(segment.repair_header);
        }
    }
    for (index, offset) in &scan.littered {
        if let Some(segment) = segments.get(*index) {
            segment.cut(*offset).map_err(|source| segment.failed(&*disk, "cut", source))?;
            scan.recovered.litter_cut += 1;
        }
    }
    if let (Some(cut), Some(segment)) = (&scan.recovered.cut, segments.last()) {
        segment.cut(cut.offset).map_err(|source| segment.failed(&*disk, "cut", source))?;
    }
    // The sync of the last group may have failed in the process before this one: what was just read may be in memory
    // only, and only a new write brings it to the disk.
    let unrepaired = scan.last.filter(|last| scan.repairs.last().is_none_or(|repair| !repair.is(last)));
    for rewrite in scan.repairs.iter().chain(&unrepaired) {
        if let Some(segment) = segments.get(rewrite.segment) {
            rewrite.carry_out(segment).map_err(|source| segment.failed(&*disk, "repair", source))?;
        }
    }

    let (header, framing, file) = match (segments.pop(), unfinished) {
        (Some(segment), None) => (segment.header, segment.framing, segment.file),
        (previous, unfinished) => {
            let number = unfinished.or(previous.map(|previous| previous.number)).unwrap_or(1);
            let header = Header {
                sector_bytes: config.sector_bytes,
                genesis: config.genesis,
                segment: number,
                base: scan.next_sequence,
            };
            let file = header.create(&*disk)?;
            scan.end = GROUPS_OFFSET;
            scan.recovered.segments += 1;
            (header, header.framing(), file)
        }
    };
    disk.sync_names().map_err(|source| JournalError::disk("sync the folder of", &*disk, "", source))?;
    let size = file.size().map_err(|source| JournalError::disk("read", &*disk, "", source))?;
    let journal = Journal {
        reader: JournalReader::new(disk.clone(), config.clone()),
        disk,
        config,
        header,
        framing,
        file,
        end: scan.end,
        size,
        next_sequence: scan.next_sequence,
        group: Vec::new(),
        group_bytes: 0,
        poisoned: false,
    };
    Ok((journal, scan.recovered))
}

/// Opens every segment. The number of a last one whose creation a power cut interrupted comes separately.
fn find_segments(disk: &dyn Disk, config: &JournalConfig) -> Result<(Vec<Segment>, Option<u32>), JournalError> {
    let names = disk.list().map_err(|source| JournalError::disk("list", disk, "", source))?;
    let numbers: Vec<u32> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    let mut segments = Vec::with_capacity(numbers.len());
    for (expected, number) in (1..).zip(&numbers) {
        let name = segment::file_name(*number);
        if *number != expected {
            return Err(JournalError::Missing { file: disk.display(&segment::file_name(expected)) });
        }
        let file = disk.open(&name).map_err(|source| JournalError::disk("open", disk, &name, source))?;
        let sealed = Some(number) != numbers.last();
        let (header, repair_header) = match segment::read_header(&*file, &disk.display(&name), *number, config)? {
            HeaderState::Good(header) => (header, false),
            HeaderState::HalfGood(header) => (header, true),
            // The header is durable before the first group is written, so without groups nothing is lost.
            HeaderState::Bad if !sealed && holds_nothing(disk, &name, &*file)? => return Ok((segments, Some(*number))),
            HeaderState::Bad => {
                let file = disk.display(&name);
                return Err(JournalError::Damaged { file, offset: 0, sequence: 0, found: Damage::Header });
            }
        };
        segments.push(Segment {
            number: *number,
            name,
            file,
            header,
            framing: header.framing(),
            repair_header,
            sealed,
        });
    }
    Ok((segments, None))
}

/// Whether a segment has only zeros where groups would be.
fn holds_nothing(disk: &dyn Disk, name: &str, file: &dyn DiskFile) -> Result<bool, JournalError> {
    let mut window = vec![0; 64 << 10];
    let mut offset = GROUPS_OFFSET;
    loop {
        let count =
            file.read_at(offset, &mut window).map_err(|source| JournalError::disk("read", disk, name, source))?;
        let read = window.get(..count).unwrap_or_default();
        if read.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if count < window.len() {
            return Ok(true);
        }
        offset += count as u64;
    }
}

impl Segment {
    fn failed(&self, disk: &dyn Disk, doing: &'static str, source: std::io::Error) -> JournalError {
        JournalError::disk(doing, disk, &self.name, source)
    }

    fn reader(&self) -> std::io::Result<SectorReader<'_>> {
        let window = usize::try_from(self.file.size()?).unwrap_or(REPLAY_WINDOW).min(REPLAY_WINDOW);
        Ok(SectorReader::new(&*self.file, &self.framing, window))
    }

    /// Cuts a torn tail off, so that no sector of it can ever be taken for part of a later group.
    fn cut(&self, offset: u64) -> std::io::Result<()> {
        self.file.set_size(offset)?;
        self.file.sync()
    }
}

impl Scan {
    fn segment<E>(
        &mut self,
        disk: &dyn Disk,
        index: usize,
        segment: &Segment,
        replay: Replay<'_, E>,
    ) -> Result<(), OpenError<E>> {
        let shown = disk.display(&segment.name);
        if segment.header.base != self.next_sequence {
            // Groups are missing at the end of the segment before.
            if let Some(damaged) = self.litter.take() {
                return Err(damaged.into());
            }
            let (before, offset) = (segment.number.saturating_sub(1), self.end);
            let file = disk.display(&segment::file_name(before));
            let (sequence, found) = (self.next_sequence, Damage::EarlyEnd);
            return Err(JournalError::Damaged { file, offset, sequence, found }.into());
        }
        if self.litter.take().is_some() {
            self.littered.extend(index.checked_sub(1).map(|before| (before, self.end)));
        }
        self.recovered.segments += 1;
        self.end = GROUPS_OFFSET;
        let failed = |source| segment.failed(disk, "read", source);
        let mut reader = segment.reader().map_err(failed)?;
        loop {
            let (offset, sequence) = (self.end, self.next_sequence);
            let damaged = |found| JournalError::Damaged { file: shown.clone(), offset, sequence, found };
            let (survivor, garbage) = reader.next_survivor(offset).map_err(failed)?;
            let Some(survivor) = survivor else {
                match garbage {
                    0 => {}
                    // One bit flipped in the zeros written ahead: a group is two sectors at least, and leaves more of itself.
                    1 if segment.sealed => self.littered.push((index, offset)),
                    _ if segment.sealed => self.litter = Some(damaged(Damage::BothCopies)),
                    _ => self.cut(disk, segment, damaged(Damage::BothCopies))?,
                }
                return Ok(());
            };
            let begin = survivor.offset.checked_sub(segment.framing.bytes_of(survivor.place));
            if survivor.shape.sequence != sequence || begin != Some(offset) {
                return Err(damaged(Damage::OtherGroup { sequence: survivor.shape.sequence }).into());
            }
            let shape = survivor.shape;
            let salvage = GroupView { reader: &mut reader, offset, shape }.salvage().map_err(failed)?;
            let next = offset + segment.framing.bytes_of(shape.sectors);
            let Salvage::Kept { slots, whole, lost } = salvage else {
                // Rule R2: both copies are bad. Behind the group being written at a power cut there is nothing.
                if reader.next_survivor(next).map_err(failed)?.0.is_some() {
                    return Err(damaged(Damage::BothCopies).into());
                }
                self.cut(disk, segment, damaged(Damage::BothCopies))?;
                return Ok(());
            };
            if !whole {
                self.repair(Rewrite { segment: index, offset, shape }, &shown, lost)?;
            }
            self.replay(segment.number, offset, &slots, replay)?;
            self.last = Some(Rewrite { segment: index, offset, shape });
            (self.end, self.next_sequence) = (next, sequence + 1);
        }
    }

    fn replay<E>(
        &mut self,
        segment: u32,
        offset: u64,
        slots: &[Slot],
        replay: Replay<'_, E>,
    ) -> Result<(), OpenError<E>> {
        self.recovered.groups += 1;
        for (index, slot) in slots.iter().enumerate() {
            match slot.record() {
                Some(record) => {
                    replay(Position::new(segment, offset, index), record).map_err(OpenError::Replay)?;
                    self.recovered.records += 1;
                }
                None => self.recovered.records_lost += 1,
            }
        }
        Ok(())
    }

    fn repair(&mut self, rewrite: Rewrite, shown: &str, records_lost: u32) -> Result<(), JournalError> {
        if self.repairs.len() >= REPAIRS_MAX {
            return Err(JournalError::TooManyRepairs { limit: REPAIRS_MAX, file: shown.to_owned() });
        }
        self.recovered.repaired.push(Repair {
            file: shown.to_owned(),
            offset: rewrite.offset,
            sequence: rewrite.shape.sequence,
            records_lost,
        });
        self.repairs.push(rewrite);
        Ok(())
    }

    /// Notes a torn tail; `otherwise` if the segment cannot have one.
    fn cut(&mut self, disk: &dyn Disk, segment: &Segment, otherwise: JournalError) -> Result<(), JournalError> {
        if segment.sealed {
            return Err(otherwise);
        }
        let size = segment.file.size().map_err(|source| segment.failed(disk, "read", source))?;
        let bytes = size.saturating_sub(self.end);
        self.recovered.cut = Some(Cut { file: disk.display(&segment.name), offset: self.end, bytes });
        Ok(())
    }
}

impl Rewrite {
    fn is(&self, other: &Rewrite) -> bool {
        self.shape.sequence == other.shape.sequence
    }

    /// Writes the group again, one body after the other, so that a power cut in between leaves one good. The lengths
    /// of lost records stay, so every position stays.
    fn carry_out(&self, segment: &Segment) -> std::io::Result<()> {
        let mut reader = segment.reader()?;
        let salvage = GroupView { reader: &mut reader, offset: self.offset, shape: self.shape }.salvage()?;
        let Salvage::Kept { slots, .. } = salvage else {
            return Err(std::io::Error::other("the group changed while it was repaired"));
        };
        let [all, vital] = frame::bodies(&slots);
        let (shape, sealed) = segment.framing.seal(self.offset, self.shape.sequence, [&all, &vital]);
        if shape != self.shape {
            return Err(std::io::Error::other("the group's directory does not fit its sectors"));
        }
        let middle = shape.sectors_a as usize * segment.framing.sector_bytes;
        let (a, b) = sealed.split_at_checked(middle).unwrap_or_default();
        segment.file.write_at(self.offset, a)?;
        segment.file.sync()?;
        segment.file.write_at(self.offset + a.len() as u64, b)?;
        segment.file.sync()
    }
}
