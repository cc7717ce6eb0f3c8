//! What a person writes where an account belongs: an address, the name of an own key or a contact, or, by mistake, a secret.
//!
//! Addresses that look like known ones are recognised, too: people compare the ends of an address, so forgers make ends that
//! match.

use std::fmt;

use tally_types::{Address, address::AddressError};
use thiserror::Error;

use crate::{
    contacts::Contacts,
    derive,
    keystore::{KeyName, Keystore, KeystoreError},
};

/// Why a text names no account.
#[derive(Debug, Error)]
pub enum TargetError {
    /// It looks like a secret. It is not repeated here or anywhere.
    #[error("what stands where an address belongs looks like {0}")]
    Secret(SecretKind),
    /// It is not an address.
    #[error(transparent)]
    Address(AddressError),
    /// It is no address and no key has this name.
    #[error("{0:?} is neither an address nor the name of a key in this keystore or of a contact")]
    NoSuchKey(String),
    /// The key file of that name is broken.
    #[error(transparent)]
    Keystore(KeystoreError),
}

/// What a secret looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// A run of hex digits as long as a key.
    Hex,
    /// Words of the BIP-39 list.
    Words,
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SecretKind::Hex => "a secret key",
            SecretKind::Words => "the words of a key",
        })
    }
}

/// An account, and what it is called here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub address: Address,
    /// Name of the own key or contact; none for a bare address that nobody here knows.
    pub name: Option<String>,
}

/// Everything that gives names to addresses.
#[derive(Clone, Copy, Debug)]
pub struct Book<'a> {
    /// Own keys; they come first.
    pub keystore: &'a Keystore,
    /// Others.
    pub contacts: &'a Contacts,
}

impl Target {
    /// The address, with its name if it has one.
    pub fn describe(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({name})", self.address),
            None => self.address.to_string(),
        }
    }
}

impl Book<'_> {
    /// The account that `text` names.
    pub fn resolve(self, text: &str) -> Result<Target, TargetError> {
        // First of all, because every other refusal repeats the text.
        if let Some(kind) = secret_kind(text) {
            return Err(TargetError::Secret(kind));
        }
        let not_an_address = match text.parse() {
            Ok(address) => return Ok(Target { address, name: self.name_of(&address) }),
            Err(error) => error,
        };
        if text.parse::<KeyName>().is_err() {
            return Err(TargetError::Address(not_an_address));
        }
        let named = |address| Ok(Target { address, name: Some(text.to_owned()) });
        match self.keystore.find(text) {
            Ok(key) => named(key.address),
            Err(KeystoreError::NotFound { .. }) => match self.contacts.get(text) {
                Some(address) => named(address),
                None => Err(TargetError::NoSuchKey(text.to_owned())),
            },
            Err(error) => Err(TargetError::Keystore(error)),
        }
    }

    /// What an address is called here.
    pub fn name_of(self, address: &Address) -> Option<String> {
        self.known().into_iter().find(|(_, known)| known == address).map(|(name, _)| name)
    }

    /// The known account that an unknown address could be mistaken for.
    pub fn resembled(self, address: &Address) -> Option<Target> {
        let known = self.known();
        if known.iter().any(|(_, known)| known == address) {
            return None;
        }
        let alike = |known: &Address| ends_alike(&known.to_string(), &address.to_string());
        let found = known.into_iter().find(|(_, known)| alike(known));
        found.map(|(name, address)| Target { address, name: Some(name) })
    }

    fn known(self) -> Vec<(String, Address)> {
        let keys = self.keystore.list().unwrap_or_default().into_iter().flatten();
        let keys = keys.map(|key| (key.name.to_string(), key.address));
        keys.chain(self.contacts.iter().map(|(name, address)| (name.to_owned(), address))).collect()
    }
}

/// Whether two addresses share at least four characters at their ends, counted from the left after "tally1" and from the
/// right. By chance that happens once in 200,000 pairs; to forge it takes seconds.
fn ends_alike(one: &str, two: &str) -> bool {
    let (one, two) = (one.trim_start_matches("tally1"), two.trim_start_matches("tally1"));
    let left = one.bytes().zip(two.bytes()).take_while(|(a, b)| a == b).count();
    let right = one.bytes().rev().zip(two.bytes().rev()).take_while(|(a, b)| a == b).count();
    left.saturating_add(right) >= 4
}

/// What secret `text` looks like, also when it is cut short, mistyped, quoted or in upper case: a warning too many costs
/// nothing, a secret repeated in a message or a log costs the account.
pub fn secret_kind(text: &str) -> Option<SecretKind> {
    let trimmed = text.trim().trim_matches(['"', '\'']);
    let digits = trimmed.strip_prefix("0x").or(trimmed.strip_prefix("0X")).unwrap_or(trimmed);
    if digits.len() >= 40 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(SecretKind::Hex);
    }
    let words: Vec<&str> = trimmed.split([' ', '\t', '\n', '\r', ',']).filter(|word| !word.is_empty()).collect();
    let known = words.iter().filter(|word| derive::is_bip39_word(word)).count();
    // Three of four, so that a few mistyped words do not hide the rest.
    (words.len() >= 6 && known.saturating_mul(4) >= words.len().saturating_mul(3)).then_some(SecretKind::Words)
}

/// Whether the words of a key stand among the arguments: quoted, or one after the other because somebody left the quotes out.
/// There is no place where they belong.
pub fn has_words(args: &[String]) -> bool {
    let quoted = |arg: &String| {
        let value = arg.split_once('=').map_or(arg.as_str(), |(_, value)| value);
        secret_kind(arg) == Some(SecretKind::Words) || secret_kind(value) == Some(SecretKind::Words)
    };
    args.iter().any(quoted) || args.windows(8).any(|run| run.iter().all(|word| derive::is_bip39_word(word)))
}

/// `text` without what could be a secret key and stands in the arguments. Hex is also what hashes look like, so it cannot be
/// refused wherever it stands; but a complaint about an argument can do without repeating it.
pub fn hide_hex(text: &str, args: &[String]) -> String {
    let runs = args.iter().flat_map(|arg| arg.split(|c: char| !c.is_ascii_hexdigit()));
    let secrets = runs.filter(|run| secret_kind(run) == Some(SecretKind::Hex));
    secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "[hidden: it looks like a secret key]"))
}

#[cfg(test)]
mod tests {
    use tally_types::SecretKey;

    use super::*;
    use crate::keystore::KdfParams;

    const PHRASE: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

    #[test]
    fn secrets_are_recognised_also_when_mistyped() {
        let hex = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        for text in [hex, &hex.to_uppercase(), &format!("0x{hex}"), &hex[1..], &format!(" {hex}\n"), &hex.repeat(2)] {
            assert_eq!(secret_kind(text), Some(SecretKind::Hex), "{text}");
        }
        let mistyped = PHRASE.replace("sausage", "sausgae");
        let commas = PHRASE.replace(' ', ",");
        for text in [PHRASE, &PHRASE.to_uppercase(), &mistyped, &commas, &PHRASE[..40], &format!("\"{PHRASE}\"")] {
            assert_eq!(secret_kind(text), Some(SecretKind::Words), "{text}");
        }
        for text in
            ["alice", &Address([7; 32]).to_string(), "legal winner", "deadbeef", "for the bread, the wine and you"]
        {
            assert_eq!(secret_kind(text), None, "{text}");
        }
    }

    #[test]
    fn a_refusal_never_repeats_a_secret() {
        let (keystore, contacts) = (Keystore::open("/nonexistent"), Contacts::default());
        let book = Book { keystore: &keystore, contacts: &contacts };
        for secret in [PHRASE, "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"] {
            let error = book.resolve(secret).unwrap_err();
            assert!(!error.to_string().contains(&secret[..8]), "{error}");
        }
    }

    #[test]
    fn the_words_of_a_key_are_noticed_with_and_without_quotes() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(has_words(&args(&format!("send {PHRASE} 5"))));
        assert!(!has_words(&args("send alice 5 --memo coffee")));
        for quoted in [PHRASE.to_owned(), format!("--memo={PHRASE}")] {
            assert!(has_words(&["send".into(), quoted]));
        }
        assert!(!has_words(&["--memo=for the bread, the wine and you".into()]));
    }

    #[test]
    fn a_complaint_hides_what_could_be_a_key_and_nothing_else() {
        let (hex, hash) = ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "ab".repeat(32));
        for arg in [hex.to_owned(), format!("--limit={hex}"), format!("--x{hex}"), format!("./{hex}.key")] {
            let shown = hide_hex(&format!("error: '{arg}' is wrong, block {hash} is right"), &[arg]);
            assert!(!shown.contains(hex) && shown.contains(&hash), "{shown}");
        }
    }

    #[test]
    fn an_address_or_an_own_key_s_name_is_an_account() {
        let folder = tempfile::tempdir().unwrap();
        let keystore = Keystore::open(folder.path());
        let secret = SecretKey::from_seed(&[1; 32]);
        keystore.create("alice", &secret, "x", KdfParams::LOCALNET).unwrap();
        let address = secret.public_key().address();
        let mut contacts = Contacts::default();
        contacts.add(&"carol".parse().unwrap(), Address([3; 32])).unwrap();
        let book = Book { keystore: &keystore, contacts: &contacts };
        let named = |name: &str, address| Target { address, name: Some(name.to_owned()) };
        assert_eq!(book.resolve("alice").unwrap(), named("alice", address));
        assert_eq!(book.resolve(&address.to_string()).unwrap(), named("alice", address));
        assert_eq!(book.resolve("carol").unwrap(), named("carol", Address([3; 32])));
        assert_eq!(book.resolve(&Address([4; 32]).to_string()).unwrap().name, None);
        assert!(matches!(book.resolve("bob"), Err(TargetError::NoSuchKey(name)) if name == "bob"));
        let mistyped = format!("{}q", &address.to_string()[..63]);
        assert!(matches!(book.resolve(&mistyped), Err(TargetError::Address(AddressError::Checksum(_)))));
        assert!(matches!(book.resolve("Bob"), Err(TargetError::Address(AddressError::Case(_)))));
    }

    #[test]
    fn an_address_whose_ends_are_those_of_a_contact_is_noticed() {
        let keystore = Keystore::open("/nonexistent");
        let mut contacts = Contacts::default();
        let real = Address([3; 32]);
        contacts.add(&"carol".parse().unwrap(), real).unwrap();
        let book = Book { keystore: &keystore, contacts: &contacts };
        // The first 20 bits are the first four characters.
        let mut forged = [9; 32];
        forged[..3].copy_from_slice(&real.0[..3]);
        assert_eq!(book.resembled(&Address(forged)).unwrap().name.as_deref(), Some("carol"));
        assert_eq!(book.resembled(&real), None, "it is carol");
        assert_eq!(book.resembled(&Address([9; 32])), None);
    }
}
