//! How one group lies in a segment: sectors that each prove themselves, and two bodies made of them.
//!
//! Every sector begins with a checksum and a description of its whole group, so that any one survivor tells where the
//! group begins and ends, and no byte a client chose is ever read as the start of a sector. Body A holds a directory
//! and every record; body B, in sectors of its own behind it, the same directory and the vital records again.

use std::{io, ops::Range};

use bytes::Bytes;
use crc32fast::Hasher;

use crate::store::{disk::DiskFile, journal::Record};

/// Most bytes of one record.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Most bytes of one group: its records and their directory.
pub const GROUP_BYTES_MAX: usize = 64 << 20;
/// Most records of one group, so that a record's place in it fits 16 bits.
pub const GROUP_RECORDS_MAX: usize = 1 << 16;

/// Checksum, sequence number, place in the group, sectors of body A, sectors of the group.
const SECTOR_HEADER_BYTES: usize = 24;
/// Number of records.
const DIRECTORY_HEADER_BYTES: usize = 4;
/// Kind, flags, length, checksum of one record.
pub(super) const ENTRY_BYTES: usize = 10;
const FLAG_VITAL: u8 = 1;
const FLAG_LOST: u8 = 2;

/// What a group's sectors all say about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// 1 for the first group of the journal, then one more each.
    pub sequence: u64,
    /// Sectors of body A; at least 1.
    pub sectors_a: u32,
    /// Sectors of both bodies; more than `sectors_a`.
    pub sectors: u32,
}

/// How the sectors of one segment are checked and made.
#[derive(Clone)]
pub(super) struct Framing {
    /// Size of a sector, its 24-byte header included.
    pub sector_bytes: usize,
    /// Has taken in the genesis hash and the segment's number: a sector of another journal or place never checks.
    seed: Hasher,
}

impl Framing {
    pub fn new(genesis: &[u8; 32], segment: u32, sector_bytes: usize) -> Framing {
        let mut seed = Hasher::new();
        seed.update(genesis);
        seed.update(&segment.to_be_bytes());
        Framing { sector_bytes, seed }
    }

    fn payload(&self) -> usize {
        self.sector_bytes - SECTOR_HEADER_BYTES
    }

    /// Bytes of `sectors` sectors in the file.
    pub fn bytes_of(&self, sectors: u32) -> u64 {
        u64::from(sectors) * self.sector_bytes as u64
    }

    fn checksum(&self, offset: u64, rest: &[u8]) -> u32 {
        let mut hasher = self.seed.clone();
        hasher.update(&offset.to_be_bytes());
        hasher.update(rest);
        hasher.finalize()
    }

    /// The sectors of a whole group that begins at `offset`.
    pub fn seal(&self, offset: u64, sequence: u64, bodies: [&[u8]; 2]) -> (Shape, Vec<u8>) {
        let [sectors_a, sectors_b] =
            bodies.map(|body| u32::try_from(body.len().div_ceil(self.payload()).max(1)).unwrap_or(u32::MAX));
        let shape = Shape { sequence, sectors_a, sectors: sectors_a.saturating_add(sectors_b) };
        let mut sealed = Vec::with_capacity(shape.sectors as usize * self.sector_bytes);
        for body in bodies {
            for payload in body.chunks(self.payload()) {
                let start = sealed.len();
                let place = u32::try_from(start / self.sector_bytes).unwrap_or(u32::MAX);
                sealed.extend_from_slice(&[0; 4]);
                sealed.extend_from_slice(&sequence.to_be_bytes());
                sealed.extend_from_slice(&place.to_be_bytes());
                sealed.extend_from_slice(&shape.sectors_a.to_be_bytes());
                sealed.extend_from_slice(&shape.sectors.to_be_bytes());
                sealed.extend_from_slice(payload);
                sealed.resize(start + self.sector_bytes, 0);
                let sector = sealed.get_mut(start..).and_then(<[u8]>::split_first_chunk_mut::<4>);
                if let Some((checksum, rest)) = sector {
                    *checksum = self.checksum(offset + start as u64, rest).to_be_bytes();
                }
            }
        }
        (shape, sealed)
    }

    /// What the sector at `offset` says, if its checksum holds: its group's shape, and its place in the group.
    fn check(&self, offset: u64, sector: &[u8]) -> Option<(Shape, u32)> {
        let (checksum, rest) = sector.split_first_chunk::<4>()?;
        if self.checksum(offset, rest) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (place, rest) = rest.split_first_chunk::<4>()?;
        let (sectors_a, rest) = rest.split_first_chunk::<4>()?;
        let (sectors, _) = rest.split_first_chunk::<4>()?;
        let place = u32::from_be_bytes(*place);
        let shape = Shape {
            sequence: u64::from_be_bytes(*sequence),
            sectors_a: u32::from_be_bytes(*sectors_a),
            sectors: u32::from_be_bytes(*sectors),
        };
        let sectors_max = 2 * GROUP_BYTES_MAX.div_ceil(self.payload());
        let possible = 0 < shape.sectors_a
            && shape.sectors_a < shape.sectors
            && place < shape.sectors
            && shape.sectors as usize <= sectors_max;
        possible.then_some((shape, place))
    }
}

/// One record's line in a group's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub kind: u8,
    pub vital: bool,
    /// Its bytes were damaged beyond repair and are zeros now; never set for a vital record.
    pub lost: bool,
    pub length: u32,
    /// Checksum of kind and bytes as they were appended.
    checksum: u32,
}

fn record_checksum(kind: u8, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&[kind]);
    hasher.update(bytes);
    hasher.finalize()
}

/// A place in a group: the record, or the line of one that was lost.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub entry: Entry,
    /// `None` if lost.
    pub bytes: Option<Bytes>,
}

impl Slot {
    pub fn new(record: &Record) -> Slot {
        let entry = Entry {
            kind: record.kind,
            vital: record.vital,
            lost: false,
            length: u32::try_from(record.bytes.len()).unwrap_or(u32::MAX),
            checksum: record_checksum(record.kind, &record.bytes),
        };
        Slot { entry, bytes: Some(record.bytes.clone()) }
    }

    pub fn record(&self) -> Option<Record> {
        let bytes = self.bytes.clone()?;
        Some(Record { kind: self.entry.kind, vital: self.entry.vital, bytes })
    }
}

fn bytes_of<'a>(slots: impl Iterator<Item = &'a Slot>) -> usize {
    slots.map(|slot| slot.entry.length as usize).sum()
}

/// Bodies A and B of a group.
pub(super) fn bodies(slots: &[Slot]) -> [Vec<u8>; 2] {
    let directory_bytes = DIRECTORY_HEADER_BYTES + slots.len() * ENTRY_BYTES;
    let mut all = Vec::with_capacity(directory_bytes + bytes_of(slots.iter()));
    all.extend_from_slice(&u32::try_from(slots.len()).unwrap_or(u32::MAX).to_be_bytes());
    for Slot { entry, bytes } in slots {
        let lost = if bytes.is_none() { FLAG_LOST } else { 0 };
        let vital = if entry.vital { FLAG_VITAL } else { 0 };
        all.extend_from_slice(&[entry.kind, vital | lost]);
        all.extend_from_slice(&entry.length.to_be_bytes());
        all.extend_from_slice(&entry.checksum.to_be_bytes());
    }
    let mut vital = Vec::with_capacity(directory_bytes + bytes_of(slots.iter().filter(|slot| slot.entry.vital)));
    vital.extend_from_slice(&all);
    for Slot { entry, bytes } in slots {
        match bytes {
            Some(bytes) => all.extend_from_slice(bytes),
            None => all.resize(all.len() + entry.length as usize, 0),
        }
        if let Some(bytes) = bytes.as_ref().filter(|_| entry.vital) {
            vital.extend_from_slice(bytes);
        }
    }
    [all, vital]
}

/// Reads a segment sector by sector through a window, so that neither a long file nor a long group is held in memory.
pub(super) struct SectorReader<'a> {
    file: &'a dyn DiskFile,
    framing: &'a Framing,
    window: Vec<u8>,
    window_bytes: usize,
    /// Offset in the file of the window's first byte.
    start: u64,
}

/// A sector whose checksum holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survivor {
    pub offset: u64,
    pub shape: Shape,
    pub place: u32,
}

impl<'a> SectorReader<'a> {
    pub fn new(file: &'a dyn DiskFile, framing: &'a Framing, window_bytes: usize) -> SectorReader<'a> {
        SectorReader { file, framing, window: Vec::new(), window_bytes, start: 0 }
    }

    /// The bytes at `offset`: a sector, or less where the file ends.
    fn sector(&mut self, offset: u64) -> io::Result<&[u8]> {
        let size = self.framing.sector_bytes;
        let end = self.start + self.window.len() as u64;
        if offset < self.start || offset + size as u64 > end {
            let mut window = std::mem::take(&mut self.window);
            window.resize(self.window_bytes.max(size), 0);
            let count = self.file.read_at(offset, &mut window)?;
            window.truncate(count);
            self.window = window;
            self.start = offset;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let rest = self.window.get(from..).unwrap_or_default();
        Ok(rest.get(..size).unwrap_or(rest))
    }

    /// The next sector at or after `offset` whose checksum holds, and how many bits before it are set.
    pub fn next_survivor(&mut self, mut offset: u64) -> io::Result<(Option<Survivor>, u64)> {
        let (framing, mut garbage) = (self.framing, 0);
        loop {
            let sector = self.sector(offset)?;
            if sector.is_empty() {
                return Ok((None, garbage));
            }
            if let Some((shape, place)) = framing.check(offset, sector) {
                return Ok((Some(Survivor { offset, shape, place }), garbage));
            }
            garbage += bits_set(sector);
            offset += framing.sector_bytes as u64;
        }
    }
}

/// How many bits are set. A word at a time: most of what a journal reserves is still zeros, and a start reads all of it.
fn bits_set(sector: &[u8]) -> u64 {
    let (words, rest) = sector.as_chunks::<8>();
    let in_words = words.iter().map(|word| u64::from_ne_bytes(*word).count_ones());
    in_words.chain(rest.iter().map(|byte| byte.count_ones())).map(u64::from).sum()
}

/// Which body of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Copy {
    A,
    B,
}

/// One group on disk, of which any sectors may be damaged.
pub(super) struct GroupView<'r, 'a> {
    pub reader: &'r mut SectorReader<'a>,
    /// Offset of its first sector.
    pub offset: u64,
    pub shape: Shape,
}

/// What is left of a group.
pub(super) enum Salvage {
    /// Every vital record is there. `whole` if nothing at all is damaged; `lost` non-vital records are gone for good.
    Kept { slots: Vec<Slot>, whole: bool, lost: u32 },
    /// No directory is left, or a vital record is damaged in both copies.
    Ruined,
}

impl GroupView<'_, '_> {
    /// The payload of one of its sectors, if that is undamaged.
    fn payload(&mut self, place: u32) -> io::Result<Option<&[u8]>> {
        let (framing, shape) = (self.reader.framing, self.shape);
        let offset = self.offset + framing.bytes_of(place);
        let sector = self.reader.sector(offset)?;
        let good = framing.check(offset, sector) == Some((shape, place));
        Ok(sector.get(SECTOR_HEADER_BYTES..).filter(|_| good))
    }

    /// Some bytes of a body; `None` if a sector they lie in is damaged, or there is no such place.
    fn slice(&mut self, copy: Copy, range: Range<usize>) -> io::Result<Option<Vec<u8>>> {
        let payload = self.reader.framing.payload();
        let (first, sectors) = match copy {
            Copy::A => (0, self.shape.sectors_a),
            Copy::B => (self.shape.sectors_a, self.shape.sectors - self.shape.sectors_a),
        };
        if range.end > sectors as usize * payload {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(range.len());
        let mut at = range.start;
        while at < range.end {
            let place = u32::try_from(at / payload).unwrap_or(u32::MAX);
            let Some(held) = self.payload(first + place)? else { return Ok(None) };
            let from = at % payload;
            let count = (payload - from).min(range.end - at);
            bytes.extend_from_slice(held.get(from..from + count).unwrap_or_default());
            at += count;
        }
        Ok(Some(bytes))
    }

    fn directory_in(&mut self, copy: Copy) -> io::Result<Option<Vec<Entry>>> {
        let Some(count) = self.slice(copy, 0..DIRECTORY_HEADER_BYTES)? else { return Ok(None) };
        let count = count.first_chunk::<4>().map_or(0, |count| u32::from_be_bytes(*count)) as usize;
        if count > GROUP_RECORDS_MAX {
            return Ok(None);
        }
        let end = DIRECTORY_HEADER_BYTES + count * ENTRY_BYTES;
        let Some(lines) = self.slice(copy, DIRECTORY_HEADER_BYTES..end)? else { return Ok(None) };
        let (lines, _) = lines.as_chunks::<ENTRY_BYTES>();
        let mut entries = Vec::with_capacity(lines.len());
        for [kind, flags, l0, l1, l2, l3, c0, c1, c2, c3] in lines {
            let length = u32::from_be_bytes([*l0, *l1, *l2, *l3]);
            if length as usize > RECORD_BYTES_MAX || flags & !(FLAG_VITAL | FLAG_LOST) != 0 {
                return Ok(None);
            }
            entries.push(Entry {
                kind: *kind,
                vital: flags & FLAG_VITAL != 0,
                lost: flags & FLAG_LOST != 0,
                length,
                checksum: u32::from_be_bytes([*c0, *c1, *c2, *c3]),
            });
        }
        Ok(Some(entries))
    }

    /// The directory, from whichever copy is readable.
    pub fn directory(&mut self) -> io::Result<Option<Vec<Entry>>> {
        match self.directory_in(Copy::A)? {
            Some(entries) => Ok(Some(entries)),
            None => self.directory_in(Copy::B),
        }
    }

    /// The bytes of the record at `index`, from whichever copy is undamaged.
    pub fn record_bytes(&mut self, entries: &[Entry], index: usize) -> io::Result<Option<Bytes>> {
        let Some(entry) = entries.get(index) else { return Ok(None) };
        let before = entries.get(..index).unwrap_or_default();
        let [all, vital] = starts(entries.len(), before);
        self.bytes_at(entry, all, vital)
    }

    fn bytes_at(&mut self, entry: &Entry, all: usize, vital: usize) -> io::Result<Option<Bytes>> {
        let length = entry.length as usize;
        let matches = |bytes: &Vec<u8>| record_checksum(entry.kind, bytes) == entry.checksum;
        if !entry.lost
            && let Some(bytes) = self.slice(Copy::A, all..all + length)?.filter(matches)
        {
            return Ok(Some(bytes.into()));
        }
        if entry.vital
            && let Some(bytes) = self.slice(Copy::B, vital..vital + length)?.filter(matches)
        {
            return Ok(Some(bytes.into()));
        }
        Ok(None)
    }

    /// Reads all of the group and keeps what can be kept.
    pub fn salvage(&mut self) -> io::Result<Salvage> {
        let mut whole = true;
        for place in 0..self.shape.sectors {
            whole &= self.payload(place)?.is_some();
        }
        let Some(entries) = self.directory()? else { return Ok(Salvage::Ruined) };
        let [mut all, mut vital] = starts(entries.len(), &[]);
        let (mut slots, mut lost) = (Vec::with_capacity(entries.len()), 0);
        for entry in entries {
            let bytes = self.bytes_at(&entry, all, vital)?;
            if bytes.is_none() && entry.vital {
                return Ok(Salvage::Ruined);
            }
            if bytes.is_none() && !entry.lost {
                (whole, lost) = (false, lost + 1);
            }
            all += entry.length as usize;
            vital += if entry.vital { entry.length as usize } else { 0 };
            slots.push(Slot { entry, bytes });
        }
        Ok(Salvage::Kept { slots, whole, lost })
    }
}

/// Where the record after `before` begins in body A and, if vital, in body B.
fn starts(count: usize, before: &[Entry]) -> [usize; 2] {
    let directory = DIRECTORY_HEADER_BYTES + count * ENTRY_BYTES;
    let length = |vital_only: bool| -> usize {
        before.iter().filter(|entry| entry.vital || !vital_only).map(|entry| entry.length as usize).sum()
    };
    [directory + length(false), directory + length(true)]
}
