//! Snapshots of the state: what spares a restart, or a new node, the execution of every block since genesis.
//!
//! A snapshot is opaque bytes and the height they belong to. It is a cache of the journal: a damaged one is skipped for
//! the one before, and with none at all the state is executed again from genesis. Whoever gets one from a peer proves
//! it against a certified state root; the digest here only tells that the disk kept it.

use std::{io, sync::Arc};

use tally_types::Hash;

use crate::store::disk::{Disk, UNFINISHED, write_atomically};

/// The one format this code writes and reads.
pub const SNAPSHOT_FORMAT: u32 = 1;
/// Snapshots that are kept: the newest, and one in case it is damaged.
pub const SNAPSHOTS_KEPT: usize = 2;
/// Most bytes of a state in a snapshot.
pub const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

const MAGIC: [u8; 8] = *b"TALLYSNP";
const ENDING: &str = ".snapshot";
const DIGITS: usize = 20;
/// Magic, format, genesis hash, height, length, digest.
const HEADER_BYTES: usize = 8 + 4 + 32 + 8 + 8 + 32;
const DIGEST_BYTES: usize = 32;

/// A state at a height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Height of the last block executed in it.
    pub height: u64,
    /// The state, as its writer encoded it.
    pub bytes: Vec<u8>,
}

/// Why snapshots cannot be written or listed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk refused.
    #[error("cannot {doing} {file}: {source}")]
    Disk {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The state is above the bound.
    #[error("a state of {bytes} bytes is above a snapshot's bound of {SNAPSHOT_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
}

/// A snapshot that was not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub reason: SkipReason,
}

/// What is wrong with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// Shorter or longer than it says, not a snapshot, or its digest does not hold.
    #[error("it is damaged")]
    Damaged,
    /// Written by a program with another format.
    #[error("it has format {0}, not {SNAPSHOT_FORMAT}")]
    OtherFormat(u32),
    /// Of another genesis file.
    #[error("it belongs to another chain")]
    OtherChain,
    /// Its name says another height than its content.
    #[error("it is of height {0}, not what its name says")]
    Renamed(u64),
    /// The disk could not read it.
    #[error("the disk cannot read it ({0})")]
    Unreadable(io::ErrorKind),
}

/// The folder of snapshots.
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    genesis: [u8; 32],
}

impl Snapshots {
    /// Opens the folder and removes what an interrupted write left.
    pub fn open(disk: Arc<dyn Disk>, genesis: [u8; 32]) -> Result<Snapshots, SnapshotError> {
        let snapshots = Snapshots { disk, genesis };
        for name in snapshots.names()? {
            if name.strip_suffix(UNFINISHED).and_then(height_of).is_some() {
                snapshots.remove(&name)?;
            }
        }
        Ok(snapshots)
    }

    /// Writes a snapshot, durably and at once or not at all, then removes all but the newest
    /// [`SNAPSHOTS_KEPT`].
    pub fn write(&self, height: u64, state: &[u8]) -> Result<(), SnapshotError> {
        let length = state.len() as u64;
        if length > SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::TooLarge { bytes: length });
        }
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&SNAPSHOT_FORMAT.to_be_bytes());
        header.extend_from_slice(&self.genesis);
        header.extend_from_slice(&height.to_be_bytes());
        header.extend_from_slice(&length.to_be_bytes());
        let digest = digest(&header, state);
        let name = file_name(height);
        write_atomically(&*self.disk, &name, &[&header, &digest, state])
            .map_err(|source| self.failed("write", &name, source))?;
        for old in self.snapshots()?.into_iter().rev().skip(SNAPSHOTS_KEPT) {
            self.remove(&old)?;
        }
        Ok(())
    }

    /// The newest snapshot that is whole, if there is any, and those that were skipped for it.
    pub fn newest(&self) -> Result<(Option<Snapshot>, Vec<Skipped>), SnapshotError> {
        self.newest_up_to(u64::MAX)
    }

    /// The newest whole snapshot of a height of at most `height`.
    pub fn newest_up_to(&self, height: u64) -> Result<(Option<Snapshot>, Vec<Skipped>), SnapshotError> {
        let mut skipped = Vec::new();
        for name in self.snapshots()?.into_iter().rev() {
            if height_of(&name).is_none_or(|found| found > height) {
                continue;
            }
            match self.load(&name) {
                Ok(snapshot) => return Ok((Some(snapshot), skipped)),
                Err(reason) => skipped.push(Skipped { file: self.disk.display(&name), reason }),
            }
        }
        Ok((None, skipped))
    }

    fn load(&self, name: &str) -> Result<Snapshot, SkipReason> {
        let unreadable = |error: io::Error| SkipReason::Unreadable(error.kind());
        let file = self.disk.open(name).map_err(unreadable)?;
        let mut header = [0; HEADER_BYTES];
        if file.read_at(0, &mut header).map_err(unreadable)? != HEADER_BYTES {
            return Err(SkipReason::Damaged);
        }
        let (described, expected) = header.split_last_chunk::<DIGEST_BYTES>().ok_or(SkipReason::Damaged)?;
        let (version, genesis, height, length) = fields(described).ok_or(SkipReason::Damaged)?;
        if version != SNAPSHOT_FORMAT {
            return Err(SkipReason::OtherFormat(version));
        }
        if genesis != self.genesis {
            return Err(SkipReason::OtherChain);
        }
        // Memory is taken for what is on the disk, not for what the header claims.
        let size = file.size().map_err(unreadable)?;
        if length > SNAPSHOT_BYTES_MAX || size != length + HEADER_BYTES as u64 {
            return Err(SkipReason::Damaged);
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| SkipReason::Damaged)?];
        let read = file.read_at(HEADER_BYTES as u64, &mut bytes).map_err(unreadable)?;
        if read != bytes.len() || digest(described, &bytes) != *expected {
            return Err(SkipReason::Damaged);
        }
        match height_of(name) == Some(height) {
            true => Ok(Snapshot { height, bytes }),
            false => Err(SkipReason::Renamed(height)),
        }
    }

    /// Names of all snapshots, oldest first.
    fn snapshots(&self) -> Result<Vec<String>, SnapshotError> {
        let mut names = self.names()?;
        names.retain(|name| height_of(name).is_some());
        Ok(names)
    }

    fn names(&self) -> Result<Vec<String>, SnapshotError> {
        self.disk.list().map_err(|source| self.failed("list", "", source))
    }

    fn remove(&self, name: &str) -> Result<(), SnapshotError> {
        self.disk.remove(name).map_err(|source| self.failed("remove", name, source))
    }

    fn failed(&self, doing: &'static str, name: &str, source: io::Error) -> SnapshotError {
        SnapshotError::Disk { doing, file: self.disk.display(name), source }
    }
}

fn file_name(height: u64) -> String {
    format!("{height:020}{ENDING}")
}

fn height_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

fn digest(described: &[u8], state: &[u8]) -> [u8; DIGEST_BYTES] {
    *Hash::tagged("tally.snapshot.v1", &[described, state]).as_bytes()
}

fn fields(described: &[u8]) -> Option<(u32, [u8; 32], u64, u64)> {
    let rest = described.strip_prefix(&MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (genesis, rest) = rest.split_first_chunk::<32>()?;
    let (height, rest) = rest.split_first_chunk::<8>()?;
    let (length, _) = rest.split_first_chunk::<8>()?;
    Some((u32::from_be_bytes(*version), *genesis, u64::from_be_bytes(*height), u64::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sim_disk::{Loss, SimDisk};

    const GENESIS: [u8; 32] = [3; 32];

    fn open(disk: &SimDisk) -> Snapshots {
        Snapshots::open(Arc::new(disk.clone()), GENESIS).unwrap()
    }

    fn state(height: u64) -> Vec<u8> {
        vec![height as u8; 100 + height as usize]
    }

    fn whole(height: u64) -> Option<Snapshot> {
        Some(Snapshot { height, bytes: state(height) })
    }

    #[test]
    fn the_newest_two_are_kept() {
        let disk = SimDisk::new();
        let snapshots = open(&disk);
        assert_eq!(snapshots.newest().unwrap(), (None, Vec::new()));
        for height in [8, 9, 10, 11] {
            snapshots.write(height, &state(height)).unwrap();
        }
        assert_eq!(disk.list().unwrap(), [file_name(10), file_name(11)]);
        assert_eq!(snapshots.newest().unwrap(), (whole(11), Vec::new()));
        assert_eq!(snapshots.newest_up_to(10).unwrap(), (whole(10), Vec::new()));
    }

    #[test]
    fn a_damaged_snapshot_is_skipped_for_the_older_one_whichever_byte_it_is() {
        let disk = SimDisk::new();
        open(&disk).write(1, &state(1)).unwrap();
        open(&disk).write(2, &state(2)).unwrap();
        for offset in 0..disk.bytes(&file_name(2)).unwrap().len() {
            let damaged = disk.copy();
            damaged.flip_bit(&file_name(2), offset, 5);
            let (found, skipped) = open(&damaged).newest().unwrap();
            assert_eq!((found, skipped.len()), (whole(1), 1), "byte {offset}");
            assert_eq!(skipped[0].file, file_name(2));
            damaged.put(&file_name(2), disk.bytes(&file_name(2)).unwrap()[..offset].to_vec());
            let (found, skipped) = open(&damaged).newest().unwrap();
            assert_eq!((found, skipped[0].reason), (whole(1), SkipReason::Damaged), "cut to {offset}");
        }
    }

    #[test]
    fn a_snapshot_of_another_chain_or_height_is_not_used() {
        let disk = SimDisk::new();
        Snapshots::open(Arc::new(disk.clone()), [4; 32]).unwrap().write(1, &state(1)).unwrap();
        let skipped = Skipped { file: file_name(1), reason: SkipReason::OtherChain };
        assert_eq!(open(&disk).newest().unwrap(), (None, vec![skipped]));
        open(&disk).write(1, &state(1)).unwrap();
        disk.rename(&file_name(1), &file_name(7)).unwrap();
        let skipped = Skipped { file: file_name(7), reason: SkipReason::Renamed(1) };
        assert_eq!(open(&disk).newest().unwrap(), (None, vec![skipped]));
    }

    #[test]
    fn a_power_cut_while_a_snapshot_is_written_leaves_a_whole_one() {
        for seed in 0..40 {
            for cut_at in 0.. {
                let disk = SimDisk::new();
                for height in [1, 2] {
                    open(&disk).write(height, &state(height)).unwrap();
                }
                disk.fail_power_after(cut_at);
                let finished = open(&disk).write(3, &vec![3; 2000]).is_ok();
                disk.crash(Loss::Some(seed));
                let (found, skipped) = open(&disk).newest().unwrap();
                let height = found.map(|found| found.height);
                assert!(height == Some(3) || (height == Some(2) && !finished), "seed {seed}, cut {cut_at}: {height:?}");
                assert_eq!(skipped, [], "seed {seed}, cut {cut_at}");
                assert!(disk.list().unwrap().iter().all(|name| !name.ends_with(UNFINISHED)));
                if finished {
                    break;
                }
            }
        }
    }
}
