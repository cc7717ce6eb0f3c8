//! What a person writes where an account belongs: an address, the name of an own key, or, by mistake, a secret.

use std::fmt;

use tally_types::{Address, address::AddressError};
use thiserror::Error;

use crate::{
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
    #[error("{0:?} is neither an address nor the name of a key in this keystore")]
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

/// The account that `text` names.
pub fn resolve(text: &str, keystore: &Keystore) -> Result<Address, TargetError> {
    // First of all, because every other refusal repeats the text.
    if let Some(kind) = secret_kind(text) {
        return Err(TargetError::Secret(kind));
    }
    let not_an_address = match text.parse() {
        Ok(address) => return Ok(address),
        Err(error) => error,
    };
    if text.parse::<KeyName>().is_err() {
        return Err(TargetError::Address(not_an_address));
    }
    match keystore.find(text) {
        Ok(key) => Ok(key.address),
        Err(KeystoreError::NotFound { .. }) => Err(TargetError::NoSuchKey(text.to_owned())),
        Err(error) => Err(TargetError::Keystore(error)),
    }
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

/// Whether arguments that follow one another are BIP-39 words: somebody typed a phrase without quotes.
pub fn has_bare_words(args: &[String]) -> bool {
    args.windows(8).any(|run| run.iter().all(|word| derive::is_bip39_word(word)))
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
        let keystore = Keystore::open("/nonexistent");
        for secret in [PHRASE, "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"] {
            let error = resolve(secret, &keystore).unwrap_err();
            assert!(!error.to_string().contains(&secret[..8]), "{error}");
        }
    }

    #[test]
    fn a_phrase_typed_without_quotes_is_noticed() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(has_bare_words(&args(&format!("tally-wallet send {PHRASE} 5"))));
        assert!(!has_bare_words(&args("tally-wallet send alice 5 --memo coffee")));
    }

    #[test]
    fn an_address_or_an_own_key_s_name_is_an_account() {
        let folder = tempfile::tempdir().unwrap();
        let keystore = Keystore::open(folder.path());
        let secret = SecretKey::from_seed([1; 32]);
        keystore.create("alice", &secret, "x", KdfParams::LOCALNET).unwrap();
        let address = secret.public_key().address();
        assert_eq!(resolve("alice", &keystore).unwrap(), address);
        assert_eq!(resolve(&address.to_string(), &keystore).unwrap(), address);
        assert!(matches!(resolve("bob", &keystore), Err(TargetError::NoSuchKey(name)) if name == "bob"));
        let mistyped = format!("{}q", &address.to_string()[..63]);
        assert!(matches!(resolve(&mistyped, &keystore), Err(TargetError::Address(AddressError::Checksum(_)))));
        assert!(matches!(resolve("Bob", &keystore), Err(TargetError::Address(AddressError::Case(_)))));
    }
}
