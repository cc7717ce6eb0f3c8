//! From words to a key: BIP-39 words, the BIP-39 seed, SLIP-0010 for Ed25519.
//!
//! **The path is `m/44'/9797'/N'`**, every step hardened as Ed25519 demands; N is 0 unless `--account` says otherwise.
//! The words are English and carry no BIP-39 passphrase (no "25th word"): the words alone bring a key back, in this
//! wallet or in any other that follows the two standards.

use bip39::{Language, Mnemonic};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha512;
use tally_types::SecretKey;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

/// First step of the path: BIP-44.
pub const PURPOSE: u32 = 44;
/// Second step of the path: Tally.
pub const COIN: u32 = 9797;
/// Largest account number: the highest bit of a step means "hardened".
pub const ACCOUNT_MAX: u32 = (1 << 31) - 1;
/// Words of a new key: 256 bits of entropy.
pub const WORDS_NEW: usize = 24;

const HARDENED: u32 = 1 << 31;

/// BIP-39 words whose checksum is right. Wiped from memory when dropped; never shown by `Debug`.
pub struct Words(Mnemonic);

/// Why a text is not BIP-39 words. The text itself is never repeated.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WordsError {
    /// Too few or too many.
    #[error("{0} words were given; there must be 12, 15, 18, 21 or 24")]
    Count(usize),
    /// A word that is not in the list; counted from 1.
    #[error("word number {0} is not in the BIP-39 English list")]
    NotInList(usize),
    /// Every word is in the list, but together they are not a phrase.
    #[error("the words do not belong together: their checksum does not fit, so one is wrong or two changed places")]
    Checksum,
}

impl Words {
    /// 24 new words from the operating system's randomness.
    pub fn generate() -> Result<Words, getrandom::Error> {
        let mut entropy = Zeroizing::new([0; 32]);
        getrandom::fill(entropy.as_mut_slice())?;
        Ok(Words(Mnemonic::from_entropy_in(Language::English, entropy.as_slice()).expect("BIP-39 allows 32 bytes")))
    }

    /// Reads words as people type them: any spacing, any case.
    pub fn parse(text: &str) -> Result<Words, WordsError> {
        let lower = Zeroizing::new(text.to_ascii_lowercase());
        Mnemonic::parse_in_normalized(Language::English, &lower).map(Words).map_err(|error| match error {
            bip39::Error::BadWordCount(count) => WordsError::Count(count),
            bip39::Error::UnknownWord(index) => WordsError::NotInList(index.saturating_add(1)),
            _ => WordsError::Checksum,
        })
    }

    /// The words, for the one time they are shown.
    pub fn phrase(&self) -> Zeroizing<String> {
        let mut phrase = Zeroizing::new(String::with_capacity(256));
        for word in self.0.words() {
            if !phrase.is_empty() {
                phrase.push(' ');
            }
            phrase.push_str(word);
        }
        phrase
    }

    /// The key at `m/44'/9797'/account'`.
    pub fn secret_key(&self, account: u32) -> SecretKey {
        let seed = Zeroizing::new(self.0.to_seed_normalized(""));
        secret_at(seed.as_slice(), &[PURPOSE, COIN, account])
    }
}

/// The path as it is written: `m/44'/9797'/0'`.
pub fn path(account: u32) -> String {
    format!("m/{PURPOSE}'/{COIN}'/{account}'")
}

/// Whether `word` is in the BIP-39 English list.
pub fn is_bip39_word(word: &str) -> bool {
    Language::English.find_word(&word.to_ascii_lowercase()).is_some()
}

/// SLIP-0010 for Ed25519: the key at `steps` below `seed`, every step hardened.
fn secret_at(seed: &[u8], steps: &[u32]) -> SecretKey {
    let mut node = hmac(b"ed25519 seed", &[seed]);
    for step in steps {
        let (key, chain_code) = node.split_at(32);
        let next = hmac(chain_code, &[&[0], key, &(step | HARDENED).to_be_bytes()]);
        node = next;
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&node[..32]);
    SecretKey::from_seed(&key)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 64]> {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    let mut output = mac.finalize().into_bytes();
    let mut digest = Zeroizing::new([0; 64]);
    digest.copy_from_slice(&output);
    output.as_mut_slice().zeroize();
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret_hex(seed: &str, steps: &[u32]) -> String {
        hex::encode(secret_at(&hex::decode(seed).unwrap(), steps).seed())
    }

    /// Test vectors 1 and 2 for ed25519 of <https://github.com/satoshilabs/slips/blob/master/slip-0010.md>.
    #[test]
    fn slip_0010_vectors_hold() {
        let seed = "000102030405060708090a0b0c0d0e0f";
        for (steps, secret) in [
            (&[][..], "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7"),
            (&[0], "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3"),
            (&[0, 1], "b1d0bad404bf35da785a64ca1ac54b2617211d2777696fbffaf208f746ae84f2"),
            (&[0, 1, 2], "92a5b23c0b8a99e37d07df3fb9966917f5d06e02ddbd909c7e184371463e9fc9"),
            (&[0, 1, 2, 2], "30d1dc7e5fc04c31219ab25a27ae00b50f6fd66622f6e9c913253d6511d1e662"),
            (&[0, 1, 2, 2, 1_000_000_000], "8f94d394a8e8fd6b1bc2f3f49f5c47e385281d5c17e65324b0f62483e37e8793"),
        ] {
            assert_eq!(secret_hex(seed, steps), secret, "{steps:?}");
        }
        let seed = "fffcf9f6f3f0edeae7e4e1dedbd8d5d2cfccc9c6c3c0bdbab7b4b1aeaba8a5a29f9c999693908d8a8784817e7b787572\
                    6f6c696663605d5a5754514e4b484542";
        for (steps, secret) in [
            (&[][..], "171cb88b1b3c1db25add599712e36245d75bc65a1a5c9e18d76f9f2b1eab4012"),
            (&[0], "1559eb2bbec5790b0c65d8693e4d0875b1747f4970ae8b650486ed7470845635"),
            (&[0, 2_147_483_647], "ea4f5bfe8694d8bb74b7b59404632fd5968b774ed545e810de9c32a4fb4192f4"),
            (&[0, 2_147_483_647, 1], "3757c7577170179c7868353ada796c839135b3d30554bbb74a4b1e4a5a58505c"),
            (&[0, 2_147_483_647, 1, 2_147_483_646], "5837736c89570de861ebc173b1086da4f505d4adb387c6a1b1342d5e4ac9ec72"),
            (
                &[0, 2_147_483_647, 1, 2_147_483_646, 2],
                "551d333177df541ad876a60ea71f00447931c0a9da16f227c11ea080d7391b8d",
            ),
        ] {
            assert_eq!(secret_hex(seed, steps), secret, "{steps:?}");
        }
        let public = secret_at(&hex::decode(seed).unwrap(), &[0]).public_key();
        assert_eq!(public.to_string(), "86fab68dcb57aa196c77c5f264f215a112c22a912c10d123b0d03c3c28ef1037");
    }

    /// The all-zero vector of <https://github.com/trezor/python-mnemonic/blob/master/vectors.json> has the passphrase
    /// "TREZOR"; without passphrase its seed is 408b285c….
    #[test]
    fn bip_39_vectors_hold() {
        let text = format!("{}art", "abandon ".repeat(23));
        let words = Words::parse(&text).unwrap();
        assert_eq!(*words.phrase(), text);
        assert_eq!(
            hex::encode(words.0.to_seed_normalized("TREZOR")),
            "bda85446c68413707090a52022edd26a1c9462295029f2e60cd7c4f2bbd3097170af7a4d73245cafa9c3cca8d561a7c3de6f5d\
             4a10be8ed2a5e608d68f92fcc8"
        );
        assert_eq!(
            hex::encode(words.0.to_seed_normalized("")),
            "408b285c123836004f4b8842c89324c1f01382450c0d439af345ba7fc49acf705489c6fc77dbd4e3dc1dd8cc6bc9f043db8ada\
             1e243c4a0eafb290d399480840"
        );
    }

    #[test]
    fn spacing_and_case_do_not_matter_and_accounts_differ() {
        let text = format!("{}art", "abandon ".repeat(23));
        let words = Words::parse(&text).unwrap();
        let loose = Words::parse(&format!("  {}\n", text.to_uppercase().replace(' ', " \t"))).unwrap();
        assert_eq!(words.secret_key(0).public_key(), loose.secret_key(0).public_key());
        assert_ne!(words.secret_key(0).public_key(), words.secret_key(1).public_key());
        assert_eq!(path(7), "m/44'/9797'/7'");
    }

    #[test]
    fn wrong_words_are_refused_by_number() {
        let refused = |text: &str| Words::parse(text).err();
        assert_eq!(refused("abandon abandon"), Some(WordsError::Count(2)));
        assert_eq!(refused(&"abandon ".repeat(24)), Some(WordsError::Checksum));
        assert_eq!(refused(&format!("{}tally", "abandon ".repeat(11))), Some(WordsError::NotInList(12)));
    }

    #[test]
    fn new_words_are_24_and_never_the_same() {
        let (one, other) = (Words::generate().unwrap(), Words::generate().unwrap());
        assert_eq!(one.phrase().split(' ').count(), WORDS_NEW);
        assert_ne!(*one.phrase(), *other.phrase());
        assert!(Words::parse(&one.phrase()).is_ok());
    }
}
