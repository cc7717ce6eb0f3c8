//! The home folder of a node: where everything lies in it, which format it has, and the lock that keeps a second
//! process out. Two processes with one key would sign against each other.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use crate::store::disk::{RealDisk, write_atomically};

/// The one layout of a home folder this code knows.
pub const HOME_FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
const FORMAT_PREFIX: &str = "tally-node home ";
const LOCK_FILE: &str = "lock";
/// Longest content of the format and lock files that is read, in bytes.
const SMALL_FILE_BYTES_MAX: u64 = 64;

/// Why a home folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another process holds the lock.
    #[error(
        "{home} is in use by {}: a home folder belongs to one running node",
        pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The folder.
        home: String,
        /// The process, if it wrote its number.
        pid: Option<u32>,
    },
    /// Made by a program with another layout.
    #[error("{file} says {found:?}, this program knows \"{FORMAT_PREFIX}{HOME_FORMAT}\": use the program that made it")]
    OtherFormat {
        /// The format file.
        file: String,
        /// What it says.
        found: String,
    },
    /// The disk refused.
    #[error("cannot {doing} {path}: {source}")]
    Disk {
        /// What was attempted.
        doing: &'static str,
        /// The file or folder.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// A home folder that this process alone uses, as long as the value lives.
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    /// Holds the lock; the system releases it with the process, however that ends.
    _lock: File,
}

impl Home {
    /// Creates the folder if it is missing, locks it, and checks its format.
    pub fn open(folder: &Path) -> Result<Home, HomeError> {
        let failed = |doing, path: &Path| {
            let path = path.display().to_string();
            move |source| HomeError::Disk { doing, path, source }
        };
        RealDisk::open(folder).map_err(failed("create", folder))?;
        restrict(folder).map_err(failed("restrict access to", folder))?;
        let lock = lock(folder)?;
        let disk = RealDisk::open(folder).map_err(failed("open", folder))?;
        let format = folder.join(FORMAT_FILE);
        let expected = format!("{FORMAT_PREFIX}{HOME_FORMAT}\n");
        match File::open(&format) {
            Ok(file) => {
                let found = read_small(file).map_err(failed("read", &format))?;
                if found != expected {
                    let found = found.trim_end().to_owned();
                    return Err(HomeError::OtherFormat { file: format.display().to_string(), found });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_atomically(&disk, FORMAT_FILE, &[expected.as_bytes()]).map_err(failed("write", &format))?;
            }
            Err(source) => return Err(failed("read", &format)(source)),
        }
        Ok(Home { folder: folder.to_path_buf(), _lock: lock })
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The validator's key: 64 hex digits.
    pub fn key_file(&self) -> PathBuf {
        self.folder.join("validator.key")
    }

    /// Folder of the journal: the truth.
    pub fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    /// File of the index: a cache, may be deleted while the node is down.
    pub fn index_file(&self) -> PathBuf {
        self.folder.join("index.redb")
    }

    /// Folder of the state snapshots: a cache, too.
    pub fn snapshots(&self) -> PathBuf {
        self.folder.join("snapshots")
    }
}

/// Nobody but the owner reads what a validator signs before it is sent.
fn restrict(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

fn lock(folder: &Path) -> Result<File, HomeError> {
    let path = folder.join(LOCK_FILE);
    let failed = |doing| {
        let path = path.display().to_string();
        move |source| HomeError::Disk { doing, path, source }
    };
    // Not truncated: while another process holds the lock, its number stands in the file.
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = read_small(file).ok().and_then(|text| text.trim().parse().ok());
            return Err(HomeError::InUse { home: folder.display().to_string(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
    }
    file.set_len(0).map_err(failed("write"))?;
    file.rewind().map_err(failed("write"))?;
    writeln!(file, "{}", std::process::id()).map_err(failed("write"))?;
    Ok(file)
}

fn read_small(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_node_is_told_who_holds_the_home() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        match Home::open(folder.path()) {
            Err(HomeError::InUse { home, pid }) => {
                assert_eq!((home, pid), (folder.path().display().to_string(), Some(std::process::id())));
            }
            other => panic!("{other:?}"),
        }
        drop(home);
        Home::open(folder.path()).unwrap();
    }

    #[test]
    fn a_home_of_another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(Home::open(folder.path()).unwrap());
        fs::write(folder.path().join(FORMAT_FILE), "tally-node home 2\n").unwrap();
        match Home::open(folder.path()) {
            Err(HomeError::OtherFormat { found, .. }) => assert_eq!(found, "tally-node home 2"),
            other => panic!("{other:?}"),
        }
    }
}
