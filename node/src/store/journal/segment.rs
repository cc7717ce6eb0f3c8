//! The file of one segment: its name, and the header that says whose it is.

use std::io;

use crc32fast::Hasher;

use crate::store::{
    disk::{Disk, DiskFile},
    journal::{JournalConfig, JournalError, frame::Framing},
};

/// A header is this long, and written twice: at offset 0 and right behind.
const HEADER_BYTES: usize = 4096;
/// Where the first group begins.
pub(super) const GROUPS_OFFSET: u64 = 2 * HEADER_BYTES as u64;
const MAGIC: [u8; 8] = *b"TALLYLOG";
/// The one format this code writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Highest segment number, so that a record's position fits 64 bits.
pub(super) const SEGMENT_MAX: u32 = (1 << 24) - 1;

const ENDING: &str = ".log";
const DIGITS: usize = 8;

/// `00000001.log` for segment 1.
pub(super) fn file_name(segment: u32) -> String {
    format!("{segment:08}{ENDING}")
}

/// The number in a segment's name; `None` for any other file.
pub(super) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(ENDING)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// What a segment's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// 512, 1024, 2048 or 4096.
    pub sector_bytes: u32,
    pub genesis: [u8; 32],
    pub segment: u32,
    /// Sequence number of the segment's first group.
    pub base: u64,
}

/// What the two copies of a header came to.
pub(super) enum HeaderState {
    Good(Header),
    /// One copy is damaged.
    HalfGood(Header),
    /// Neither copy checks.
    Bad,
}

impl Header {
    pub fn framing(&self) -> Framing {
        Framing::new(&self.genesis, self.segment, self.sector_bytes as usize)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.sector_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.genesis);
        bytes.extend_from_slice(&self.segment.to_be_bytes());
        bytes.extend_from_slice(&self.base.to_be_bytes());
        bytes.resize(HEADER_BYTES - 4, 0);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Writes both copies and makes them durable, leaving the groups alone.
    pub fn write(&self, file: &dyn DiskFile) -> io::Result<()> {
        let copy = self.encode();
        file.write_at(0, &copy)?;
        file.write_at(HEADER_BYTES as u64, &copy)?;
        file.sync()
    }

    /// Creates the segment's file, durably, with no group in it.
    pub fn create(&self, disk: &dyn Disk) -> Result<Box<dyn DiskFile>, JournalError> {
        let name = file_name(self.segment);
        let failed = |source| JournalError::disk("create", disk, &name, source);
        let file = disk.create(&name).map_err(failed)?;
        self.write(&*file).map_err(failed)?;
        // Before a group is in it, so that a group that was acknowledged is never in a file without a name.
        disk.sync_names().map_err(failed)?;
        Ok(file)
    }
}

/// Reads both copies of a header. `Err` is about a header that is intact and not ours.
pub(super) fn read_header(
    file: &dyn DiskFile,
    shown: &str,
    segment: u32,
    config: &JournalConfig,
) -> Result<HeaderState, JournalError> {
    let mut copies = [None, None];
    for (offset, copy) in [0, HEADER_BYTES as u64].into_iter().zip(&mut copies) {
        let mut bytes = vec![0; HEADER_BYTES];
        let count = file.read_at(offset, &mut bytes).map_err(|source| JournalError::Disk {
            doing: "read",
            file: shown.to_owned(),
            source,
        })?;
        bytes.truncate(count);
        *copy = decode(&bytes, shown)?;
    }
    let (header, state) = match copies {
        [Some(a), Some(b)] if a == b => (a, HeaderState::Good(a)),
        [Some(a), None] | [None, Some(a)] => (a, HeaderState::HalfGood(a)),
        [None, None] => return Ok(HeaderState::Bad),
        [Some(_), Some(_)] => return Err(JournalError::Misplaced { file: shown.to_owned() }),
    };
    if header.genesis != config.genesis {
        return Err(JournalError::OtherChain {
            file: shown.to_owned(),
            found: hex::encode(header.genesis),
            expected: hex::encode(config.genesis),
        });
    }
    match header.segment == segment {
        true => Ok(state),
        false => Err(JournalError::Misplaced { file: shown.to_owned() }),
    }
}

fn decode(bytes: &[u8], shown: &str) -> Result<Option<Header>, JournalError> {
    let Some((rest, checksum)) = bytes.split_last_chunk::<4>().filter(|_| bytes.len() == HEADER_BYTES) else {
        return Ok(None);
    };
    let mut hasher = Hasher::new();
    hasher.update(rest);
    let Some(rest) = rest.strip_prefix(&MAGIC).filter(|_| hasher.finalize() == u32::from_be_bytes(*checksum)) else {
        return Ok(None);
    };
    // From here on the bytes are as they were written: what does not fit was written by another program.
    let fields = (|| {
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (sector_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (genesis, rest) = rest.split_first_chunk::<32>()?;
        let (segment, rest) = rest.split_first_chunk::<4>()?;
        let (base, _) = rest.split_first_chunk::<8>()?;
        let header = Header {
            sector_bytes: u32::from_be_bytes(*sector_bytes),
            genesis: *genesis,
            segment: u32::from_be_bytes(*segment),
            base: u64::from_be_bytes(*base),
        };
        Some((u32::from_be_bytes(*version), header))
    })();
    match fields {
        Some((FORMAT_VERSION, header)) if super::SECTOR_SIZES.contains(&header.sector_bytes) => Ok(Some(header)),
        Some((version, _)) => Err(JournalError::OtherFormat { file: shown.to_owned(), found: version }),
        None => Ok(None),
    }
}
