//! Files of people, read within bounds: what is given by name may be anything, a device without an end too.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// Bytes of a configuration, and of the file of a key.
pub const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// Reads a file of at most `bytes_max` bytes; a larger one is `ErrorKind::FileTooLarge`. What is read may be secret.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Room for all of it at once: growing would leave copies of a secret behind.
    let room = file.metadata()?.len().min(bytes_max).saturating_add(1);
    let mut content = Vec::with_capacity(usize::try_from(room).unwrap_or_default());
    let read = file.take(bytes_max.saturating_add(1)).read_to_end(&mut content)?;
    if read as u64 > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content)
}

/// Reads a text of at most [`TEXT_BYTES_MAX`] bytes.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path, TEXT_BYTES_MAX)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_refused_at_its_bound() {
        let refused = read(Path::new("/dev/zero"), 1000).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 1000]).unwrap();
        assert_eq!(read(file.path(), 1000).unwrap().len(), 1000);
        assert!(read(file.path(), 999).is_err());
    }
}
