//! Account addresses: the bech32m form of a 32-byte Ed25519 key.

use std::{fmt, str::FromStr};

use bech32::{Bech32m, Hrp, primitives::decode::CheckedHrpstring};
use thiserror::Error;

/// Human-readable part of every address.
pub const PREFIX: &str = "tally";
/// Length of an address as text: prefix, "1", 52 data characters, 6 of checksum.
pub const TEXT_LEN: usize = 64;
/// Where the last of the 52 data characters stands.
const LAST_DATA_CHARACTER: usize = 57;

/// The address of an account: an Ed25519 public key. As text, canonical lower-case bech32m: `tally1…`, 64 characters.
///
/// That the 32 bytes are a key somebody can sign with is checked where an account is opened, not here:
/// [`crate::signature::PublicKey::is_usable`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(pub [u8; 32]);

crate::order::ordered_as_bytes!(Address);

/// Why a text is not an address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// Another prefix.
    #[error("{0:?} does not start with \"tally1\"")]
    Prefix(String),
    /// Upper case, which would make two texts for one address.
    #[error("{0:?} has upper-case letters; an address is lower case only")]
    Case(String),
    /// Not 64 characters.
    #[error("{text:?} has {got} characters, an address has {TEXT_LEN}")]
    Length {
        /// The text.
        text: String,
        /// Its length in characters.
        got: usize,
    },
    /// A character that bech32 does not use, or a wrong checksum.
    #[error("{0:?} is mistyped: its checksum does not fit")]
    Checksum(String),
}

impl Address {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The address in `bytes`, if there are exactly 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Address> {
        bytes.try_into().ok().map(Address)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        // An error carries the text back to whoever sent it: never more of it than an address could be.
        let shown = || text.chars().take(80).collect::<String>();
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(AddressError::Case(shown()));
        }
        if !text.starts_with("tally1") {
            return Err(AddressError::Prefix(shown()));
        }
        if text.len() != TEXT_LEN {
            return Err(AddressError::Length { text: shown(), got: text.chars().count() });
        }
        let parsed = CheckedHrpstring::new::<Bech32m>(text).map_err(|_| AddressError::Checksum(shown()))?;
        let bytes: Vec<u8> = parsed.byte_iter().collect();
        let address = Address::from_slice(&bytes).ok_or_else(|| AddressError::Checksum(shown()))?;
        // 52 characters hold 260 bits: the last 4 must be zero ("q" is 0, "s" is 16), or two texts would name one address.
        match text.as_bytes().get(LAST_DATA_CHARACTER) {
            Some(b'q' | b's') => Ok(address),
            _ => Err(AddressError::Checksum(shown())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = Hrp::parse_unchecked(PREFIX);
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, prefix, &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_string().get(..12).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use bech32::{Bech32, ByteIterExt, Fe32IterExt};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_canonical_text_is_an_address() {
        let address = Address([7; 32]);
        let text = address.to_string();
        assert_eq!(text.len(), TEXT_LEN);
        assert_eq!(text.parse(), Ok(address));
        assert_eq!(text.to_uppercase().parse::<Address>(), Err(AddressError::Case(text.to_uppercase())));
        let mistyped = format!("{}q", &text[..63]);
        assert_eq!(mistyped.parse::<Address>(), Err(AddressError::Checksum(mistyped.clone())));
        assert_eq!(text[..63].parse::<Address>(), Err(AddressError::Length { text: text[..63].into(), got: 63 }));
        assert!("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq".parse::<Address>().is_err());
        assert!("".parse::<Address>().is_err());
        assert!("tally1é".parse::<Address>().is_err());
    }

    #[test]
    fn the_older_checksum_and_loose_padding_are_refused() {
        let hrp = Hrp::parse_unchecked(PREFIX);
        let older = bech32::encode_lower::<Bech32>(hrp, &[7; 32]).unwrap();
        assert!(matches!(older.parse::<Address>(), Err(AddressError::Checksum(_))));
        let mut fes: Vec<_> = [7u8; 32].iter().copied().bytes_to_fes().collect();
        let last = fes.last_mut().unwrap();
        *last = bech32::Fe32::try_from(last.to_u8() | 1).unwrap();
        let loose: String = fes.into_iter().with_checksum::<Bech32m>(&hrp).chars().collect();
        assert!(matches!(loose.parse::<Address>(), Err(AddressError::Checksum(_))));
    }

    proptest! {
        #[test]
        fn every_address_is_read_back(bytes: [u8; 32]) {
            prop_assert_eq!(Address(bytes).to_string().parse(), Ok(Address(bytes)));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Address>();
        }
    }
}
