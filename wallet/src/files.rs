//! Files that are either whole or absent: written beside their place, synced, then moved into it.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

/// Writes a new file of mode 0600. A file that is already there stays as it is: `ErrorKind::AlreadyExists`.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    write_beside(path, content)?.persist_noclobber(path).map_err(|failed| failed.error)?;
    sync_folder(path)
}

/// Writes a file of mode 0600 in place of the one that may be there.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    write_beside(path, content)?.persist(path).map_err(|failed| failed.error)?;
    sync_folder(path)
}

/// Makes a folder, and those above it, that only its owner can enter.
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Reads a file of at most `bytes_max` bytes; a larger one is `ErrorKind::FileTooLarge`. What is read may be secret.
pub(crate) fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    read_all_bounded(File::open(path)?, bytes_max)
}

/// Reads `source` to its end, at most `bytes_max` bytes.
pub(crate) fn read_all_bounded(source: impl io::Read, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // The full capacity at once: growing would leave copies of a secret behind.
    let mut content = Zeroizing::new(Vec::with_capacity(bytes_max.saturating_add(1)));
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    source.take(limit).read_to_end(&mut content)?;
    if content.len() > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

/// How long somebody else may hold a folder.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Keeps other wallets from changing what is in `folder`, which is made if need be, until the returned file goes. Waits up to
/// ten seconds for another one that does; after that `ErrorKind::WouldBlock`.
pub(crate) fn lock_folder(folder: &Path) -> io::Result<File> {
    create_private_folder(folder)?;
    let file = File::options().create(true).append(true).mode(0o600).open(folder.join(".lock"))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= LOCK_WAIT => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
    }
}

fn write_beside(path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    // The error's own words name a file that nobody asked for.
    let mut file = NamedTempFile::new_in(folder(path)).map_err(|error| io::Error::from(error.kind()))?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Makes a new name in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_private_and_never_overwrites() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        write_new(&path, b"first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(write_new(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        replace(&path, b"third").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing temporary stays behind");
    }

    #[test]
    fn a_file_above_its_bound_is_refused() {
        assert_eq!(read_all_bounded(&b"12345"[..], 5).unwrap().as_slice(), b"12345");
        assert_eq!(read_all_bounded(&b"123456"[..], 5).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
