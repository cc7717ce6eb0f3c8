//! The disk of simulations: files in memory, of which a power cut keeps only what a real disk must keep.
//!
//! What was not synced is lost in any combination of 512-byte sectors, some of them torn in the middle or ruined; names that were
//! not synced are lost from the newest back. The caller brings the seed, so one seed gives one outcome. It also fills
//! up, fails its syncs and flips bits on demand. Clones share one disk.

use std::{
    collections::BTreeMap,
    io::{self, Error, ErrorKind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::store::disk::{Disk, DiskFile};

/// The unit a simulated disk writes, loses and tears.
pub const SECTOR_BYTES: usize = 512;
const ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

/// What a power cut does to everything that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it is gone.
    Everything,
    /// All of it had reached the disk.
    Nothing,
    /// Each sector, name and length is kept, lost or torn as the seed decides.
    Some(u64),
}

/// A folder in memory.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

type Names = BTreeMap<Arc<str>, u64>;

#[derive(Default)]
struct State {
    files: BTreeMap<u64, FileState>,
    names: Names,
    /// The names before each change since they were last synced, oldest first.
    older_names: Vec<Names>,
    next_file: u64,
    /// Handles from before a power cut are dead.
    boot: u64,
    /// Changes and syncs so far.
    operations: u64,
    /// The operation in which the power fails.
    power_fails_at: Option<u64>,
    /// The sync, counted from now, that fails.
    sync_fails_in: Option<u64>,
    syncs: u64,
    /// Bytes all files together may hold; no bound if `None`.
    capacity: Option<u64>,
}

#[derive(Clone, Default)]
struct FileState {
    bytes: Vec<u8>,
    durable_size: usize,
    /// The durable content of each sector that was written since.
    unsynced: BTreeMap<usize, Unsynced>,
}

#[derive(Clone)]
struct Unsynced {
    /// None: zeros, as in most of what a journal reserves.
    durable: Option<Box<[u8; SECTOR_BYTES]>>,
    /// A sync of it failed: the system took the page for clean, so only a new write gets it to the disk.
    forgotten: bool,
}

impl SimDisk {
    /// An empty disk without bound.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// A power cut: drops what was not synced as `loss` says, and makes every open file unusable. The disk works again
    /// afterwards.
    pub fn crash(&self, loss: Loss) {
        let mut state = self.lock();
        let mut dice = Dice(match loss {
            Loss::Some(seed) => seed,
            _ => 0,
        });
        state.boot += 1;
        state.power_fails_at = None;
        state.sync_fails_in = None;
        let lost_names = match loss {
            Loss::Everything => state.older_names.len(),
            Loss::Nothing => 0,
            Loss::Some(_) => dice.below(state.older_names.len() + 1),
        };
        // Names change in the order of the file system's own journal: what is lost is the newest.
        let keep = state.older_names.len() - lost_names;
        if let Some(names) = state.older_names.get(keep).cloned() {
            state.names = names;
        }
        state.older_names.clear();
        let State { files, names, .. } = &mut *state;
        files.retain(|file, _| names.values().any(|named| named == file));
        for file in files.values_mut() {
            file.crash(loss, &mut dice);
        }
    }

    /// The power fails in the operation after `operations` more (changes and syncs count, reads do not): that one and
    /// all later ones report an error, until [`SimDisk::crash`] decides what is left.
    pub fn fail_power_after(&self, operations: u64) {
        let mut state = self.lock();
        state.power_fails_at = Some(state.operations + operations);
    }

    /// Changes and syncs so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Syncs so far, of files and of names.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The sync after `syncs` more fails once, be it of a file or of names; what it should have written stays in memory only.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.lock().sync_fails_in = Some(syncs);
    }

    /// From now on nothing fails that was set to fail, and the disk has no bound. What is lost or damaged stays so.
    pub fn heal(&self) {
        let mut state = self.lock();
        (state.power_fails_at, state.sync_fails_in, state.capacity) = (None, None, None);
    }

    /// Bounds what all files together may hold, in bytes; `None` lifts the bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Damage: changes one bit (0 to 7) of what the disk holds. `false` if there is no such byte.
    pub fn flip_bit(&self, name: &str, offset: usize, bit: u8) -> bool {
        let mut state = self.lock();
        match state.named(name).and_then(|file| file.bytes.get_mut(offset)) {
            Some(byte) => {
                *byte ^= 1 << (bit & 7);
                true
            }
            None => false,
        }
    }

    /// What a file holds now, synced or not.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().named(name).map(|file| file.bytes.clone())
    }

    /// Puts a file on the disk, durably.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let file = state.next_file;
        state.next_file += 1;
        let durable_size = bytes.len();
        state.files.insert(file, FileState { bytes, durable_size, unsynced: BTreeMap::new() });
        state.names.insert(name.into(), file);
        for names in &mut state.older_names {
            names.insert(name.into(), file);
        }
    }

    /// A disk of its own with the same content, all of it durable.
    pub fn copy(&self) -> SimDisk {
        let state = self.lock();
        let copy = SimDisk::new();
        for (name, file) in &state.names {
            if let Some(file) = state.files.get(file) {
                copy.put(name, file.bytes.clone());
            }
        }
        copy
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, file: u64, boot: u64) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.clone(), file, boot })
    }
}

impl State {
    /// Counts a sync. Whether it is the one that fails.
    fn sync_fails(&mut self) -> bool {
        self.syncs += 1;
        let fails = self.sync_fails_in == Some(0);
        self.sync_fails_in = self.sync_fails_in.and_then(|left| left.checked_sub(1));
        fails
    }

    fn named(&mut self, name: &str) -> Option<&mut FileState> {
        self.files.get_mut(self.names.get(name)?)
    }

    /// Counts an operation. The one in which the power fails still reaches the volatile state: part of it may survive.
    fn operate(&mut self) -> io::Result<Power> {
        let now = self.operations;
        self.operations += 1;
        match self.power_fails_at {
            Some(at) if now > at => Err(power_failed()),
            Some(at) if now == at => Ok(Power::Failing),
            _ => Ok(Power::On),
        }
    }

    fn change_names(&mut self, change: impl FnOnce(&mut Names)) {
        self.older_names.push(self.names.clone());
        change(&mut self.names);
    }

    /// How many bytes of a file may be in use, given what the others use.
    fn room(&self, file: u64) -> usize {
        let Some(capacity) = self.capacity else { return usize::MAX };
        let others = self.files.iter().filter(|(other, _)| **other != file);
        let used: u64 = others.map(|(_, other)| other.bytes.len() as u64).sum();
        usize::try_from(capacity.saturating_sub(used)).unwrap_or(usize::MAX)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    Failing,
}

impl Power {
    fn report<T>(self, value: T) -> io::Result<T> {
        match self {
            Power::On => Ok(value),
            Power::Failing => Err(power_failed()),
        }
    }
}

fn power_failed() -> Error {
    Error::other("simulated power failure")
}

impl FileState {
    /// What lies in a sector, up to the end of the file.
    fn held(&self, index: usize) -> &[u8] {
        let start = (index * SECTOR_BYTES).min(self.bytes.len());
        let end = (start + SECTOR_BYTES).min(self.bytes.len());
        self.bytes.get(start..end).unwrap_or_default()
    }

    fn sector(&self, index: usize) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        let held = self.held(index);
        if let Some(to) = sector.get_mut(..held.len()) {
            to.copy_from_slice(held);
        }
        sector
    }

    fn touch(&mut self, index: usize) {
        if let Some(unsynced) = self.unsynced.get_mut(&index) {
            unsynced.forgotten = false;
            return;
        }
        let held = self.held(index);
        let durable = (ZEROS.get(..held.len()) != Some(held)).then(|| Box::new(self.sector(index)));
        self.unsynced.insert(index, Unsynced { durable, forgotten: false });
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        for index in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            self.touch(index);
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(held) = self.bytes.get_mut(offset..end) {
            held.copy_from_slice(bytes);
        }
    }

    fn set_size(&mut self, size: usize) {
        let (low, high) = (size.min(self.bytes.len()), size.max(self.bytes.len()));
        for index in low / SECTOR_BYTES..high.div_ceil(SECTOR_BYTES) {
            self.touch(index);
        }
        self.bytes.resize(size, 0);
    }

    /// A sector that the power left in the middle of being written: neither what was there nor what should be.
    fn ruin(&mut self, index: usize, dice: &mut Dice) {
        let start = index * SECTOR_BYTES;
        for held in self.bytes.iter_mut().skip(start).take(SECTOR_BYTES) {
            *held = dice.below(256) as u8;
        }
    }

    fn crash(&mut self, loss: Loss, dice: &mut Dice) {
        let size = match loss {
            Loss::Everything => self.durable_size,
            Loss::Nothing => self.bytes.len(),
            Loss::Some(_) => {
                let (low, high) = (self.durable_size.min(self.bytes.len()), self.durable_size.max(self.bytes.len()));
                match dice.below(3) {
                    0 => self.durable_size,
                    1 => self.bytes.len(),
                    _ => low + dice.below(high - low + 1),
                }
            }
        };
        let unsynced = std::mem::take(&mut self.unsynced);
        self.bytes.resize(self.bytes.len().max(size), 0);
        for (index, old) in unsynced {
            let from_old = match loss {
                Loss::Everything => SECTOR_BYTES,
                Loss::Nothing => 0,
                Loss::Some(_) => match dice.below(9) {
                    0..=3 => SECTOR_BYTES,
                    4..=6 => 0,
                    7 => dice.below(SECTOR_BYTES + 1),
                    // Written again with what it held, it still holds that.
                    _ if old.durable.as_deref().unwrap_or(&ZEROS) == &self.sector(index) => 0,
                    _ => {
                        self.ruin(index, dice);
                        continue;
                    }
                },
            };
            let start = index * SECTOR_BYTES;
            let durable = old.durable.as_deref().unwrap_or(&ZEROS);
            for (place, byte) in durable.iter().enumerate().skip(SECTOR_BYTES - from_old) {
                if let Some(held) = self.bytes.get_mut(start + place) {
                    *held = *byte;
                }
            }
        }
        self.bytes.truncate(size);
        self.durable_size = size;
    }
}

/// SplitMix64: enough to choose with, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().map(|name| name.to_string()).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.lock();
        let file = state.names.get(name).copied().ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        Ok(self.handle(file, state.boot))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        let power = state.operate()?;
        let file = match state.names.get(name).copied() {
            Some(file) => file,
            None => {
                let file = state.next_file;
                state.next_file += 1;
                state.files.insert(file, FileState::default());
                state.change_names(|names| {
                    names.insert(name.into(), file);
                });
                file
            }
        };
        if let Some(held) = state.files.get_mut(&file) {
            held.set_size(0);
        }
        power.report(self.handle(file, state.boot))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let power = state.operate()?;
        let file = state.names.get(from).copied().ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        state.change_names(|names| {
            names.remove(from);
            names.insert(to.into(), file);
        });
        power.report(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let power = state.operate()?;
        if !state.names.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change_names(|names| {
            names.remove(name);
        });
        power.report(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.operate()?.report(())?;
        if state.sync_fails() {
            return Err(Error::other("simulated failure of a sync of names"));
        }
        state.older_names.clear();
        Ok(())
    }

    fn display(&self, name: &str) -> String {
        name.to_owned()
    }
}

struct SimFile {
    disk: SimDisk,
    file: u64,
    boot: u64,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.lock();
        match state.boot == self.boot {
            true => act(&mut state, self.file),
            false => Err(power_failed()),
        }
    }

    fn change(&self, size: usize, change: impl FnOnce(&mut FileState, usize)) -> io::Result<()> {
        self.with(|state, file| {
            let power = state.operate()?;
            let room = state.room(file);
            let held = state.files.get_mut(&file).ok_or_else(|| Error::from(ErrorKind::NotFound))?;
            // A full disk takes what still fits.
            change(held, size.min(room.max(held.bytes.len())));
            match size > room && size > held.bytes.len() {
                true => Err(ErrorKind::StorageFull.into()),
                false => power.report(()),
            }
        })
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge.into())
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.with(|state, file| Ok(state.files.get(&file).map_or(0, |held| held.bytes.len() as u64)))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let offset = place(offset)?;
        self.with(|state, file| {
            let held = state.files.get(&file).map(|held| held.bytes.as_slice()).unwrap_or_default();
            let held = held.get(offset..).unwrap_or_default();
            let count = held.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..count), held.get(..count)) {
                to.copy_from_slice(from);
            }
            Ok(count)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = place(offset)?;
        self.change(offset + bytes.len(), |file, end| {
            file.write(offset, bytes.get(..end.saturating_sub(offset).min(bytes.len())).unwrap_or_default());
        })
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.change(place(size)?, FileState::set_size)
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        self.change(place(size)?, |file, size| file.set_size(size.max(file.bytes.len())))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, file| {
            state.operate()?.report(())?;
            let fails = state.sync_fails();
            let Some(held) = state.files.get_mut(&file) else { return Ok(()) };
            if fails {
                held.unsynced.values_mut().for_each(|sector| sector.forgotten = true);
                return Err(Error::other("simulated failure of a sync"));
            }
            if held.unsynced.values().any(|sector| sector.forgotten) {
                held.unsynced.retain(|_, sector| sector.forgotten);
            } else {
                held.unsynced.clear();
            }
            held.durable_size = held.bytes.len();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_synced_is_lost_and_what_was_is_kept() {
        let disk = SimDisk::new();
        let file = disk.create("a").unwrap();
        file.write_at(0, &[1; 1000]).unwrap();
        file.sync().unwrap();
        disk.sync_names().unwrap();
        file.write_at(600, &[2; 1000]).unwrap();
        disk.create("b").unwrap();
        disk.crash(Loss::Everything);
        assert_eq!(disk.bytes("a"), Some(vec![1; 1000]));
        assert_eq!(disk.list().unwrap(), ["a"]);
        assert!(file.size().is_err(), "a handle from before the power cut still works");
    }

    #[test]
    fn one_seed_gives_one_outcome_and_seeds_differ() {
        let outcome = |seed| {
            let disk = SimDisk::new();
            let file = disk.create("a").unwrap();
            disk.sync_names().unwrap();
            file.write_at(0, &[7; 64 * SECTOR_BYTES]).unwrap();
            disk.crash(Loss::Some(seed));
            disk.bytes("a").unwrap()
        };
        assert_eq!(outcome(5), outcome(5));
        assert!((0..20).any(|seed| outcome(seed) != outcome(5)));
        assert!((0..20).any(|seed| {
            outcome(seed).chunks(SECTOR_BYTES).any(|sector| sector.windows(2).any(|two| two[0] != two[1]))
        }));
    }

    #[test]
    fn a_sync_after_a_failed_one_does_not_bring_the_bytes_back() {
        let disk = SimDisk::new();
        let file = disk.create("a").unwrap();
        disk.sync_names().unwrap();
        file.write_at(0, &[7; 10]).unwrap();
        disk.fail_sync_after(0);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        disk.crash(Loss::Everything);
        assert_eq!(disk.bytes("a"), Some(vec![0; 10]));
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_says_so() {
        let disk = SimDisk::new();
        disk.set_capacity(Some(8));
        let file = disk.create("a").unwrap();
        assert_eq!(file.write_at(4, b"abcdefgh").map_err(|error| error.kind()), Err(ErrorKind::StorageFull));
        assert_eq!(disk.bytes("a"), Some(b"\0\0\0\0abcd".to_vec()));
    }
}
