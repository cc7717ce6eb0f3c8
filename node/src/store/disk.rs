//! One folder of files, as little of it as the journal and the snapshots need, so that a simulated one can take its
//! place and tear what was never synced.
//!
//! A written byte is durable once [`DiskFile::sync`] of its file returned, a name once [`Disk::sync_names`] returned;
//! before that any part of it may survive a power cut, in any order.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Ending of files that are being written and have not got their name yet; swept away at the next start.
pub const UNFINISHED: &str = ".tmp";

/// A flat folder of named files.
pub trait Disk: Send + Sync {
    /// The names in the folder, ascending.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a file, or empties the one that has the name.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, replacing the file that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes every creation, renaming and removal so far durable.
    fn sync_names(&self) -> io::Result<()>;
    /// How to show a file of this disk to a person.
    fn display(&self, name: &str) -> String;
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Reads from `offset` on until `buffer` is full or the file ends; returns how many bytes were read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, extending the file where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Extends the file to `size` with zeros that own their blocks, so that later writes can neither run out of space
    /// nor change the file's length. Never shortens it.
    fn reserve(&self, size: u64) -> io::Result<()>;
    /// Returns once every byte written so far, and the length, is durable.
    fn sync(&self) -> io::Result<()>;
}

/// Writes a file so that after a power cut either all of it is there or the file that had the name before.
pub fn write_atomically(disk: &dyn Disk, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let unfinished = format!("{name}{UNFINISHED}");
    let file = disk.create(&unfinished)?;
    let mut offset = 0;
    for part in parts {
        file.write_at(offset, part)?;
        offset += part.len() as u64;
    }
    file.sync()?;
    disk.rename(&unfinished, name)?;
    disk.sync_names()
}

/// A folder of the operating system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    folder: PathBuf,
}

impl RealDisk {
    /// Opens the folder, creating it (durably) if it is missing.
    pub fn open(folder: &Path) -> io::Result<RealDisk> {
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(RealDisk { folder: folder.to_path_buf() })
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(self.folder.join(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        Ok(Box::new(options.read(true).write(true).create(true).truncate(true).open(self.folder.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn display(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Zeros are written in pieces of this many bytes.
const ZEROS: usize = 1 << 20;

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        // Written, not fallocated: an unwritten extent still costs a metadata commit at the sync of its first write.
        let zeros = vec![0; ZEROS];
        let mut offset = DiskFile::size(self)?;
        while offset < size {
            let count = usize::try_from(size - offset).unwrap_or(ZEROS).min(ZEROS);
            self.write_all_at(zeros.get(..count).unwrap_or_default(), offset)?;
            offset += count as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: the length is part of it, the time of the last change is not.
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_file_reads_back_what_was_written_and_stops_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(&folder.path().join("new")).unwrap();
        let file = disk.create("a").unwrap();
        file.write_at(3, b"abc").unwrap();
        file.reserve(10).unwrap();
        file.reserve(4).unwrap();
        file.sync().unwrap();
        let mut buffer = [9; 16];
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 10);
        assert_eq!(&buffer[..10], b"\0\0\0abc\0\0\0\0");
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        assert_eq!(disk.open("a").err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
    }
}
