//! Names for addresses of others: `contacts.toml` in the configuration folder, mode 0600, replaced whole or not at all.
//!
//! ```toml
//! [contacts]
//! bob = "tally1…"
//! ```

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};
use tally_types::Address;

use crate::{
    config::ConfigError,
    files,
    keystore::{KeyName, KeystoreError},
};

/// Name of the file in the configuration folder.
pub const FILE_NAME: &str = "contacts.toml";
/// Most contacts.
pub const CONTACTS_MAX: usize = 1000;

const FILE_BYTES_MAX: usize = 256 * 1024;
const NOTICE: &str = "# Written by tally-wallet: the `contacts` commands replace this file.\n";

/// Contacts by name. Names obey the rules of a key's name, so that none can be taken for an address or a flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contacts {
    by_name: BTreeMap<String, Address>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    contacts: BTreeMap<String, String>,
}

impl Contacts {
    /// Reads `contacts.toml` in `folder`; a missing one is empty.
    pub fn load(folder: &Path) -> Result<Contacts, ConfigError> {
        let file = folder.join(FILE_NAME);
        let bytes = match files::read_bounded(&file, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contacts::default()),
            Err(source) => return Err(ConfigError::Io { file, source }),
        };
        let toml = |problem: String| ConfigError::Toml { file: file.clone(), problem };
        let text = std::str::from_utf8(&bytes).map_err(|_| toml("is not UTF-8".into()))?;
        let read: File = toml::from_str(text).map_err(|error| toml(error.to_string().trim_end().to_owned()))?;
        let mut contacts = Contacts::default();
        for (name, address) in read.contacts {
            let wrong = |problem| ConfigError::Field { field: format!("contacts.{name}"), problem };
            let address = address.parse().map_err(|_| wrong("is not an address"))?;
            let checked: KeyName = name.parse().map_err(|_| wrong("is not a name"))?;
            contacts.add(&checked, address)?;
        }
        Ok(contacts)
    }

    /// Writes `contacts.toml` in `folder`, making the folder (mode 0700) when it is missing.
    pub fn save(&self, folder: &Path) -> Result<(), ConfigError> {
        let file = folder.join(FILE_NAME);
        let contacts = self.iter().map(|(name, address)| (name.to_owned(), address.to_string())).collect();
        let text = toml::to_string(&File { contacts })
            .map_err(|error| ConfigError::Toml { file: file.clone(), problem: error.to_string() })?;
        files::create_private_folder(folder)
            .and_then(|()| files::replace(&file, format!("{NOTICE}{text}").as_bytes()))
            .map_err(|source| ConfigError::Io { file, source })
    }

    /// Adds a contact; a name that is taken stays as it is.
    pub fn add(&mut self, name: &KeyName, address: Address) -> Result<(), ConfigError> {
        let wrong = |problem| Err(ConfigError::Field { field: format!("contact {name}"), problem });
        if self.by_name.contains_key(name.as_str()) {
            return wrong("is there already; remove it first to change its address");
        }
        if self.by_name.len() >= CONTACTS_MAX {
            return wrong("is one too many: 1000 are the most");
        }
        self.by_name.insert(name.as_str().to_owned(), address);
        Ok(())
    }

    /// Takes a contact away.
    pub fn remove(&mut self, name: &str) -> Option<Address> {
        self.by_name.remove(name)
    }

    /// The address of a contact.
    pub fn get(&self, name: &str) -> Option<Address> {
        self.by_name.get(name).copied()
    }

    /// All contacts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Address)> {
        self.by_name.iter().map(|(name, address)| (name.as_str(), *address))
    }
}

/// A contact's name, if it can be one.
pub fn name(text: &str) -> Result<KeyName, KeystoreError> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_no_name_changes_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("a");
        let mut contacts = Contacts::load(&home).unwrap();
        let bob = name("bob").unwrap();
        contacts.add(&bob, Address([2; 32])).unwrap();
        assert!(contacts.add(&bob, Address([3; 32])).is_err());
        contacts.save(&home).unwrap();
        assert_eq!(Contacts::load(&home).unwrap(), contacts);
        assert_eq!(contacts.get("bob"), Some(Address([2; 32])));
        assert_eq!(fs::metadata(home.join(FILE_NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(contacts.remove("bob"), Some(Address([2; 32])));
        assert_eq!(contacts, Contacts::default());
    }

    #[test]
    fn a_file_that_says_too_much_or_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for text in
            ["[contact]\n", "[contacts]\nbob = 1\n", "[contacts]\nbob = \"tally1\"\n", "[contacts]\n-x = \"\"\n"]
        {
            fs::write(folder.path().join(FILE_NAME), text).unwrap();
            assert!(Contacts::load(folder.path()).is_err(), "{text}");
        }
        let many: String = (0..=CONTACTS_MAX).map(|i| format!("c{i} = \"{}\"\n", Address([7; 32]))).collect();
        fs::write(folder.path().join(FILE_NAME), format!("[contacts]\n{many}")).unwrap();
        assert!(matches!(Contacts::load(folder.path()), Err(ConfigError::Field { .. })));
    }
}
