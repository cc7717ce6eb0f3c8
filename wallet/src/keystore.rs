//! A folder of key files, one per key: `NAME.key`, mode 0600.
//!
//! A file is whole or absent, is never overwritten, and is authenticated to its last byte: see [`format`](mod@format).
//! Listing and naming keys needs no passphrase; the addresses shown then are only as good as the folder's permissions.
//! Nothing here asks a person anything.

pub mod format;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use tally_types::{Address, SecretKey};
use thiserror::Error;

use format::{FILE_BYTES_MAX, Header, KeyFile};
pub use format::{FormatError, KdfParams};

use crate::files;

/// Most characters of a key's name.
pub const NAME_LEN_MAX: usize = 32;

const EXTENSION: &str = "key";

/// Name of a key: 1 to [`NAME_LEN_MAX`] of a-z, 0-9, "-" and "_", starting with a letter or digit, and not with "tally1",
/// so that no name can be taken for an address, a path or a flag.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName(String);

/// A folder of keys.
#[derive(Clone, Debug)]
pub struct Keystore {
    folder: PathBuf,
}

/// What a key file says openly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name.
    pub name: KeyName,
    /// Its address.
    pub address: Address,
    /// Cost of trying one passphrase.
    pub kdf: KdfParams,
    /// Its file.
    pub file: PathBuf,
}

/// What can go wrong with keys.
#[derive(Debug, Error)]
pub enum KeystoreError {
    /// Not a name.
    #[error(
        "{0:?} cannot be a key's name: use 1 to {NAME_LEN_MAX} of a-z, 0-9, \"-\" and \"_\", starting with a letter \
         or digit and not with \"tally1\""
    )]
    Name(String),
    /// No such key.
    #[error("there is no key {name:?} in {}", .folder.display())]
    NotFound {
        /// The name.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The name is taken; the file there was not touched.
    #[error("a key {name:?} already exists in {}", .folder.display())]
    Exists {
        /// The name.
        name: KeyName,
        /// The folder.
        folder: PathBuf,
    },
    /// The file is wrong, or the passphrase.
    #[error("key file {} {problem}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: FormatError,
    },
    /// The file was renamed.
    #[error("key file {} holds the key {held:?}", .file.display())]
    Renamed {
        /// The file.
        file: PathBuf,
        /// Name inside.
        held: KeyName,
    },
    /// The disk said no.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// No randomness for salt and nonce.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(getrandom::Error),
}

impl Keystore {
    /// The keystore in `folder`. A folder that does not exist is an empty keystore; [`Keystore::create`] makes it.
    pub fn open(folder: impl Into<PathBuf>) -> Keystore {
        Keystore { folder: folder.into() }
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a new key file, encrypted under `passphrase` at the cost of `kdf`. Fails without a trace when the name is
    /// taken.
    pub fn create(
        &self,
        name: &str,
        secret: &SecretKey,
        passphrase: &str,
        kdf: KdfParams,
    ) -> Result<KeyInfo, KeystoreError> {
        let name: KeyName = name.parse()?;
        self.ensure_free(&name)?;
        let file = self.file_of(&name);
        let sealed = seal(name.clone(), secret, passphrase, kdf).map_err(|error| error.at(&file))?;
        files::create_private_folder(&self.folder)
            .map_err(|source| KeystoreError::Io { path: self.folder.clone(), source })?;
        files::write_new(&file, sealed.to_text().as_bytes()).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeystoreError::Exists { name, folder: self.folder.clone() },
            _ => KeystoreError::Io { path: file.clone(), source },
        })?;
        Ok(KeyInfo::new(sealed.header, file))
    }

    /// Fails when there is a key of this name: asked before a person types a passphrase for nothing.
    pub fn ensure_free(&self, name: &KeyName) -> Result<(), KeystoreError> {
        let file = self.file_of(name);
        match fs::symlink_metadata(&file) {
            Ok(_) => Err(KeystoreError::Exists { name: name.clone(), folder: self.folder.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(KeystoreError::Io { path: file, source }),
        }
    }

    /// The open part of the key `name`.
    pub fn find(&self, name: &str) -> Result<KeyInfo, KeystoreError> {
        let (file, path) = self.read(name)?;
        Ok(KeyInfo::new(file.header, path))
    }

    /// The secret of the key `name`. Changes nothing, whatever the outcome.
    pub fn unlock(&self, name: &str, passphrase: &str) -> Result<SecretKey, KeystoreError> {
        let (file, path) = self.read(name)?;
        file.unseal(passphrase).map_err(|problem| KeystoreError::File { file: path, problem })
    }

    /// The key file's own text: encrypted, fit for a backup.
    pub fn text(&self, name: &str) -> Result<String, KeystoreError> {
        Ok(self.read(name)?.0.to_text())
    }

    /// Encrypts the key `name` anew under another passphrase, at the recommended cost. The old file stays until the new
    /// one is whole and was opened once.
    pub fn change_passphrase(
        &self,
        name: &str,
        old: &str,
        new: &str,
        kdf: KdfParams,
    ) -> Result<KeyInfo, KeystoreError> {
        let (file, path) = self.read(name)?;
        let wrong = |problem| KeystoreError::File { file: path.clone(), problem };
        let secret = file.unseal(old).map_err(wrong)?;
        let sealed = seal(file.header.name, &secret, new, kdf).map_err(|error| error.at(&path))?;
        let text = sealed.to_text();
        KeyFile::parse(text.as_bytes()).and_then(|written| written.unseal(new)).map_err(wrong)?;
        files::replace(&path, text.as_bytes()).map_err(|source| KeystoreError::Io { path: path.clone(), source })?;
        Ok(KeyInfo::new(sealed.header, path))
    }

    /// Gives the key `name` another name. The name is authenticated, so this is a new file; interrupted in between, there
    /// are both.
    pub fn rename(&self, name: &str, new_name: &str, passphrase: &str) -> Result<KeyInfo, KeystoreError> {
        let (file, path) = self.read(name)?;
        let secret = file.unseal(passphrase).map_err(|problem| KeystoreError::File { file: path.clone(), problem })?;
        let renamed = self.create(new_name, &secret, passphrase, file.header.kdf)?;
        self.unlock(new_name, passphrase)?;
        fs::remove_file(&path).map_err(|source| KeystoreError::Io { path, source })?;
        Ok(renamed)
    }

    /// Deletes the file of the key `name`.
    pub fn remove(&self, name: &str) -> Result<KeyInfo, KeystoreError> {
        let info = self.find(name)?;
        fs::remove_file(&info.file).map_err(|source| KeystoreError::Io { path: info.file.clone(), source })?;
        Ok(info)
    }

    /// The secret in a key file that is not in this folder, whatever its name.
    pub fn open_file(file: &Path, passphrase: &str) -> Result<SecretKey, KeystoreError> {
        let bytes = files::read_bounded(file, FILE_BYTES_MAX).map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => {
                KeystoreError::File { file: file.to_owned(), problem: FormatError::Trailing }
            }
            _ => KeystoreError::Io { path: file.to_owned(), source },
        })?;
        let opened = KeyFile::parse(&bytes).and_then(|read| read.unseal(passphrase));
        opened.map_err(|problem| KeystoreError::File { file: file.to_owned(), problem })
    }

    /// Every key, by name; what is wrong with a file stands in its place and hides no other.
    pub fn list(&self) -> Result<Vec<Result<KeyInfo, KeystoreError>>, KeystoreError> {
        let io = |source| KeystoreError::Io { path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(io)?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            if path.extension().is_some_and(|extension| extension == EXTENSION)
                && let Some(name) = name
                && !name.starts_with('.')
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names.iter().map(|name| self.find(name)).collect())
    }

    fn read(&self, name: &str) -> Result<(KeyFile, PathBuf), KeystoreError> {
        let name: KeyName = name.parse()?;
        let path = self.file_of(&name);
        let bytes = files::read_bounded(&path, FILE_BYTES_MAX).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => KeystoreError::NotFound { name: name.0.clone(), folder: self.folder.clone() },
            io::ErrorKind::FileTooLarge => KeystoreError::File { file: path.clone(), problem: FormatError::Trailing },
            _ => KeystoreError::Io { path: path.clone(), source },
        })?;
        let file = KeyFile::parse(&bytes).map_err(|problem| KeystoreError::File { file: path.clone(), problem })?;
        if file.header.name != name {
            return Err(KeystoreError::Renamed { file: path, held: file.header.name });
        }
        Ok((file, path))
    }

    fn file_of(&self, name: &KeyName) -> PathBuf {
        self.folder.join(format!("{name}.{EXTENSION}"))
    }
}

/// Why a secret cannot be sealed; in which file is for the caller to say.
enum SealError {
    Randomness(getrandom::Error),
    Format(FormatError),
}

impl SealError {
    fn at(self, file: &Path) -> KeystoreError {
        match self {
            SealError::Randomness(error) => KeystoreError::Randomness(error),
            SealError::Format(problem) => KeystoreError::File { file: file.to_owned(), problem },
        }
    }
}

/// Seals with a fresh salt and nonce: neither is ever used twice.
fn seal(name: KeyName, secret: &SecretKey, passphrase: &str, kdf: KdfParams) -> Result<KeyFile, SealError> {
    let mut header = Header { name, address: secret.public_key().address(), kdf, salt: [0; 16], nonce: [0; 24] };
    getrandom::fill(&mut header.salt).map_err(SealError::Randomness)?;
    getrandom::fill(&mut header.nonce).map_err(SealError::Randomness)?;
    KeyFile::seal(header, secret, passphrase).map_err(SealError::Format)
}

impl KeyInfo {
    fn new(header: Header, file: PathBuf) -> KeyInfo {
        KeyInfo { name: header.name, address: header.address, kdf: header.kdf, file }
    }
}

impl KeyName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<KeyName, KeystoreError> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !starts_well || text.len() > NAME_LEN_MAX || !text.bytes().all(inner) || text.starts_with("tally1") {
            return Err(KeystoreError::Name(text.chars().take(80).collect()));
        }
        Ok(KeyName(text.to_owned()))
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn secret() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    fn with_alice() -> (tempfile::TempDir, Keystore) {
        let folder = tempfile::tempdir().unwrap();
        let keystore = Keystore::open(folder.path().join("keys"));
        keystore.create("alice", &secret(), "open sesame", KdfParams::LOCALNET).unwrap();
        (folder, keystore)
    }

    #[test]
    fn a_key_is_read_back_from_a_private_file() {
        let (_folder, keystore) = with_alice();
        let info = keystore.find("alice").unwrap();
        assert_eq!(info.address, secret().public_key().address());
        assert_eq!(fs::metadata(&info.file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(keystore.folder()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(keystore.unlock("alice", "open sesame").unwrap().seed(), secret().seed());
    }

    #[test]
    fn a_wrong_passphrase_changes_nothing() {
        let (_folder, keystore) = with_alice();
        let before = fs::read(keystore.find("alice").unwrap().file).unwrap();
        let error = keystore.unlock("alice", "open barley").unwrap_err();
        assert!(matches!(&error, KeystoreError::File { problem: FormatError::Passphrase, .. }), "{error}");
        assert_eq!(fs::read(keystore.find("alice").unwrap().file).unwrap(), before);
    }

    #[test]
    fn an_existing_key_is_never_overwritten() {
        let (_folder, keystore) = with_alice();
        let before = fs::read(keystore.find("alice").unwrap().file).unwrap();
        let other = SecretKey::from_seed(&[2; 32]);
        let error = keystore.create("alice", &other, "x", KdfParams::LOCALNET).unwrap_err();
        assert!(matches!(error, KeystoreError::Exists { .. }));
        assert_eq!(fs::read(keystore.find("alice").unwrap().file).unwrap(), before);
        assert_eq!(fs::read_dir(keystore.folder()).unwrap().count(), 1);
    }

    #[test]
    fn another_passphrase_or_name_keeps_the_secret_and_an_error_keeps_the_file() {
        let (_folder, keystore) = with_alice();
        let before = keystore.text("alice").unwrap();
        assert!(keystore.change_passphrase("alice", "open barley", "new", KdfParams::LOCALNET).is_err());
        assert!(keystore.rename("alice", "bob", "open barley").is_err());
        assert_eq!(keystore.text("alice").unwrap(), before);
        keystore.change_passphrase("alice", "open sesame", "new", KdfParams::LOCALNET).unwrap();
        assert!(keystore.unlock("alice", "open sesame").is_err());
        assert_eq!(keystore.unlock("alice", "new").unwrap().seed(), secret().seed());
        keystore.create("bob", &SecretKey::from_seed(&[2; 32]), "x", KdfParams::LOCALNET).unwrap();
        assert!(matches!(keystore.rename("alice", "bob", "new"), Err(KeystoreError::Exists { .. })));
        keystore.rename("alice", "carol", "new").unwrap();
        assert_eq!(keystore.unlock("carol", "new").unwrap().seed(), secret().seed());
        assert!(matches!(keystore.find("alice"), Err(KeystoreError::NotFound { .. })));
        let copy = keystore.folder().join("copy");
        fs::write(&copy, keystore.text("carol").unwrap()).unwrap();
        assert_eq!(Keystore::open_file(&copy, "new").unwrap().seed(), secret().seed());
        assert!(Keystore::open_file(&copy, "old").is_err());
        keystore.remove("carol").unwrap();
        assert!(matches!(keystore.remove("carol"), Err(KeystoreError::NotFound { .. })));
    }

    #[test]
    fn a_renamed_file_is_noticed() {
        let (_folder, keystore) = with_alice();
        let file = keystore.find("alice").unwrap().file;
        fs::rename(&file, keystore.folder().join("bob.key")).unwrap();
        assert!(matches!(keystore.find("bob"), Err(KeystoreError::Renamed { held, .. }) if held.as_str() == "alice"));
        assert!(matches!(keystore.find("alice"), Err(KeystoreError::NotFound { .. })));
    }

    #[test]
    fn one_broken_file_hides_no_other() {
        let (_folder, keystore) = with_alice();
        fs::write(keystore.folder().join("broken.key"), "tally-key 1\n").unwrap();
        fs::write(keystore.folder().join("huge.key"), vec![b'x'; FILE_BYTES_MAX + 1]).unwrap();
        fs::write(keystore.folder().join("notes.txt"), "no key").unwrap();
        let keys = keystore.list().unwrap();
        assert_eq!(keys.len(), 3);
        assert_eq!(keys[0].as_ref().unwrap().name.as_str(), "alice");
        assert!(matches!(keys[1], Err(KeystoreError::File { problem: FormatError::Line("name"), .. })));
        assert!(matches!(keys[2], Err(KeystoreError::File { problem: FormatError::Trailing, .. })));
        assert_eq!(Keystore::open("/nonexistent/keys").list().unwrap().len(), 0);
    }

    #[test]
    fn no_name_can_be_taken_for_a_path_a_flag_or_an_address() {
        for name in ["", ".", "..", "../x", "a/b", "-a", "_a", "A", "ä", "a b", "tally1abc", &"a".repeat(33)] {
            assert!(matches!(name.parse::<KeyName>(), Err(KeystoreError::Name(_))), "{name}");
        }
        for name in ["a", "0", "alice-2_b", "tally", &"a".repeat(32)] {
            assert!(name.parse::<KeyName>().is_ok(), "{name}");
        }
    }
}
