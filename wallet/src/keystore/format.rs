//! A key file, byte by byte.
//!
//! ASCII text of eight lines, each ended by one LF, in this order and with single spaces:
//!
//! ```text
//! tally-key 1
//! name alice
//! address tally1…
//! kdf argon2id
//! kdf-params memory_kib=65536 passes=3 lanes=4
//! salt <32 hex digits>
//! nonce <48 hex digits>
//! secret <96 hex digits>
//! ```
//!
//! key = Argon2id v1.3 (RFC 9106) of the passphrase's UTF-8 bytes and the salt, 32 bytes. `secret` is the 32-byte Ed25519
//! seed under XChaCha20-Poly1305 with that key and nonce, tag last. The associated data is **every byte before the
//! line of `secret`**, so all of the file is authenticated. Numbers are decimal without leading zeros, hex is lower
//! case: one content has one text, and any flipped bit makes another file or none.

use std::fmt::{self, Write as _};

use argon2::{Algorithm, Argon2, Version};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use tally_types::{Address, SecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::KeyName;

/// Most bytes of a key file. Real ones have fewer than 450.
pub const FILE_BYTES_MAX: usize = 1024;

const MAGIC: &str = "tally-key 1";
const MAGIC_ANY_VERSION: &str = "tally-key ";
const KDF: &str = "kdf argon2id";

/// How much work it is to try one passphrase. Every file carries its own; a reader refuses what is out of bounds before
/// it takes any memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfParams {
    /// Argon2 memory in KiB: at least 8 per lane, at most [`KdfParams::MEMORY_KIB_MAX`].
    pub memory_kib: u32,
    /// Passes over the memory: 1 to [`KdfParams::PASSES_MAX`].
    pub passes: u32,
    /// Lanes: 1 to [`KdfParams::LANES_MAX`].
    pub lanes: u32,
}

impl KdfParams {
    /// For keys that matter: the second recommendation of RFC 9106, 64 MiB and 3 passes (about 0.1 s).
    pub const RECOMMENDED: KdfParams = KdfParams { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
    /// For the throw-away keys of a localnet: the least a reader accepts (8 KiB, microseconds). Such a file protects
    /// nothing; its passphrase is known anyway.
    pub const LOCALNET: KdfParams = KdfParams { memory_kib: 8, passes: 1, lanes: 1 };

    /// Most memory a reader takes, KiB: 1 GiB.
    pub const MEMORY_KIB_MAX: u32 = 1024 * 1024;
    /// Most passes a reader makes.
    pub const PASSES_MAX: u32 = 16;
    /// Most lanes.
    pub const LANES_MAX: u32 = 16;

    fn checked(self) -> Result<KdfParams, FormatError> {
        let lanes_fit = (1..=Self::LANES_MAX).contains(&self.lanes);
        let passes_fit = (1..=Self::PASSES_MAX).contains(&self.passes);
        let memory_fits = self.memory_kib >= self.lanes.saturating_mul(8) && self.memory_kib <= Self::MEMORY_KIB_MAX;
        if lanes_fit && passes_fit && memory_fits { Ok(self) } else { Err(FormatError::KdfParams(self)) }
    }
}

impl fmt::Display for KdfParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory_kib={} passes={} lanes={}", self.memory_kib, self.passes, self.lanes)
    }
}

/// What a key file says openly. Nothing of it is proven until the file is opened with its passphrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name of the key, and of its file.
    pub name: KeyName,
    /// Address of the key: its public key.
    pub address: Address,
    /// Cost of a try.
    pub kdf: KdfParams,
    /// Salt of the key derivation.
    pub salt: [u8; 16],
    /// Nonce of the cipher.
    pub nonce: [u8; 24],
}

/// A key file that is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Its open part.
    pub header: Header,
    sealed: [u8; 48],
}

/// Why bytes are not a key file, or cannot be opened.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// Starts like no key file.
    #[error("is not a tally key file")]
    Magic,
    /// A later format.
    #[error("has format {MAGIC_ANY_VERSION}{0:?}, this wallet reads {MAGIC:?} only")]
    Version(String),
    /// A line missing, damaged, or in another form than the one it must have.
    #[error("is damaged: its line {0:?} is missing or malformed")]
    Line(&'static str),
    /// Something after the last line.
    #[error("is damaged: it goes on after its last line")]
    Trailing,
    /// Parameters out of bounds.
    #[error(
        "asks for Argon2id with {0}; this wallet accepts 8 KiB per lane to {max} KiB of memory, 1 to {passes} passes, \
         1 to {lanes} lanes",
        max = KdfParams::MEMORY_KIB_MAX,
        passes = KdfParams::PASSES_MAX,
        lanes = KdfParams::LANES_MAX
    )]
    KdfParams(KdfParams),
    /// The system does not give the memory that Argon2id takes.
    #[error("takes {kib} KiB of memory to open, which this system does not give")]
    Memory {
        /// How much.
        kib: u32,
    },
    /// The cipher's tag does not fit.
    #[error("does not open with this passphrase (or it was altered since it was written)")]
    Passphrase,
    /// The secret inside belongs to another address than the one the file shows.
    #[error("shows the address {shown}, but the secret inside belongs to {held}")]
    ForeignAddress {
        /// Address in the header.
        shown: Address,
        /// Address of the secret.
        held: Address,
    },
}

impl Header {
    /// The bytes before the line of the secret: the associated data.
    fn to_text(&self) -> String {
        let Header { name, address, kdf, salt, nonce } = self;
        let (salt, nonce) = (hex::encode(salt), hex::encode(nonce));
        format!("{MAGIC}\nname {name}\naddress {address}\n{KDF}\nkdf-params {kdf}\nsalt {salt}\nnonce {nonce}\n")
    }
}

impl KeyFile {
    /// Seals `secret` under `passphrase`. The caller vouches for `header`: fresh salt and nonce, the secret's address.
    pub fn seal(header: Header, secret: &SecretKey, passphrase: &str) -> Result<KeyFile, FormatError> {
        let cipher = cipher(&header, passphrase)?;
        let aad = header.to_text();
        let payload = Payload { msg: secret.seed(), aad: aad.as_bytes() };
        let sealed =
            cipher.encrypt(&XNonce::from(header.nonce), payload).expect("32 bytes are below the cipher's limit");
        let sealed = sealed.try_into().expect("the tag has 16 bytes");
        Ok(KeyFile { header, sealed })
    }

    /// The secret inside, if `passphrase` is right and it belongs to the address that the file shows.
    pub fn unseal(&self, passphrase: &str) -> Result<SecretKey, FormatError> {
        let cipher = cipher(&self.header, passphrase)?;
        let aad = self.header.to_text();
        let payload = Payload { msg: &self.sealed[..], aad: aad.as_bytes() };
        let opened = cipher.decrypt(&XNonce::from(self.header.nonce), payload).map_err(|_| FormatError::Passphrase)?;
        let opened = Zeroizing::new(opened);
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(&opened);
        let secret = SecretKey::from_seed(&seed);
        let held = secret.public_key().address();
        if held != self.header.address {
            return Err(FormatError::ForeignAddress { shown: self.header.address, held });
        }
        Ok(secret)
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut text = self.header.to_text();
        writeln!(text, "secret {}", hex::encode(self.sealed)).expect("a String can be written to");
        text
    }

    /// Reads the text of a file, strictly.
    pub fn parse(bytes: &[u8]) -> Result<KeyFile, FormatError> {
        let text = std::str::from_utf8(bytes).map_err(|_| FormatError::Magic)?;
        let (first, rest) = text.split_once('\n').ok_or(FormatError::Magic)?;
        if first != MAGIC {
            let version = first.strip_prefix(MAGIC_ANY_VERSION).ok_or(FormatError::Magic)?;
            return Err(FormatError::Version(version.chars().take(20).collect()));
        }
        let mut rest = rest;
        let mut line = |name: &'static str| -> Result<&str, FormatError> {
            let (line, after) = rest.split_once('\n').ok_or(FormatError::Line(name))?;
            rest = after;
            line.strip_prefix(name).and_then(|line| line.strip_prefix(' ')).ok_or(FormatError::Line(name))
        };
        let name = line("name")?.parse().map_err(|_| FormatError::Line("name"))?;
        let address = line("address")?.parse().map_err(|_| FormatError::Line("address"))?;
        if line("kdf")? != "argon2id" {
            return Err(FormatError::Line("kdf"));
        }
        let kdf = parse_params(line("kdf-params")?).ok_or(FormatError::Line("kdf-params"))?.checked()?;
        let salt = parse_hex(line("salt")?).ok_or(FormatError::Line("salt"))?;
        let nonce = parse_hex(line("nonce")?).ok_or(FormatError::Line("nonce"))?;
        let sealed = parse_hex(line("secret")?).ok_or(FormatError::Line("secret"))?;
        if !rest.is_empty() {
            return Err(FormatError::Trailing);
        }
        Ok(KeyFile { header: Header { name, address, kdf, salt, nonce }, sealed })
    }
}

fn cipher(header: &Header, passphrase: &str) -> Result<XChaCha20Poly1305, FormatError> {
    let kdf = header.kdf.checked()?;
    let mut key = Zeroizing::new([0; 32]);
    let params = argon2::Params::new(kdf.memory_kib, kdf.passes, kdf.lanes, Some(32))
        .expect("our bounds lie inside those of Argon2");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), &header.salt, key.as_mut_slice())
        // Salt and output have lengths that Argon2 takes: what is left is memory.
        .map_err(|_| FormatError::Memory { kib: kdf.memory_kib })?;
    Ok(XChaCha20Poly1305::new_from_slice(key.as_slice()).expect("the key has 32 bytes"))
}

fn parse_params(text: &str) -> Option<KdfParams> {
    let mut fields = text.split(' ');
    let mut field = |name: &str| fields.next()?.strip_prefix(name)?.parse::<u32>().ok();
    let params = KdfParams { memory_kib: field("memory_kib=")?, passes: field("passes=")?, lanes: field("lanes=")? };
    // Written again it must be the same text: no "+1", no "01", nothing behind.
    (params.to_string() == text).then_some(params)
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    fn header() -> Header {
        Header {
            name: "alice".parse().unwrap(),
            address: secret().public_key().address(),
            kdf: KdfParams::LOCALNET,
            salt: [2; 16],
            nonce: [3; 24],
        }
    }

    fn file() -> KeyFile {
        KeyFile::seal(header(), &secret(), "open sesame").unwrap()
    }

    fn open(bytes: &[u8], passphrase: &str) -> Result<SecretKey, FormatError> {
        KeyFile::parse(bytes)?.unseal(passphrase)
    }

    /// The format is a promise: these bytes must open for ever.
    #[test]
    fn the_format_is_frozen() {
        let frozen = include_str!("../../testdata/alice.key");
        assert_eq!(file().to_text(), frozen);
        assert_eq!(open(frozen.as_bytes(), "open sesame").unwrap().seed(), secret().seed());
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = file().to_text().into_bytes();
        assert!(open(&good, "open sesame").is_ok());
        for byte in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                assert!(open(&bad, "open sesame").is_err(), "bit {bit} of byte {byte}");
            }
        }
    }

    #[test]
    fn every_shorter_and_every_longer_file_is_refused() {
        let good = file().to_text().into_bytes();
        for len in 0..good.len() {
            assert!(open(&good[..len], "open sesame").is_err(), "{len} bytes");
        }
        assert_eq!(KeyFile::parse(&[&good[..], b"\n"].concat()), Err(FormatError::Trailing));
    }

    #[test]
    fn a_wrong_passphrase_is_named_as_such() {
        assert_eq!(file().unseal("open barley").unwrap_err(), FormatError::Passphrase);
        assert_eq!(file().unseal("").unwrap_err(), FormatError::Passphrase);
    }

    #[test]
    fn another_key_s_address_is_refused_even_when_authenticated() {
        let shown = Address([9; 32]);
        let file = KeyFile::seal(Header { address: shown, ..header() }, &secret(), "open sesame").unwrap();
        let held = secret().public_key().address();
        assert_eq!(file.unseal("open sesame").unwrap_err(), FormatError::ForeignAddress { shown, held });
    }

    #[test]
    fn parameters_out_of_bounds_are_refused_before_memory_is_taken() {
        let good = file().to_text();
        for (memory_kib, passes, lanes) in [
            (u32::MAX, 1, 1),
            (KdfParams::MEMORY_KIB_MAX + 1, 1, 1),
            (7, 1, 1),
            (15, 1, 2),
            (8, 0, 1),
            (8, 17, 1),
            (8, u32::MAX, 1),
            (8, 1, 0),
            (1024, 1, 17),
        ] {
            let params = KdfParams { memory_kib, passes, lanes };
            let bad = good.replace("memory_kib=8 passes=1 lanes=1", &params.to_string());
            assert_eq!(KeyFile::parse(bad.as_bytes()), Err(FormatError::KdfParams(params)), "{params}");
            let sealed = KeyFile::seal(Header { kdf: params, ..header() }, &secret(), "x");
            assert_eq!(sealed, Err(FormatError::KdfParams(params)), "what cannot be read is not written");
        }
    }

    #[test]
    fn one_content_has_one_text() {
        let good = file().to_text();
        for (from, to) in [("memory_kib=8", "memory_kib=08"), ("passes=1", "passes=+1"), ("lanes=1", "lanes=1 ")] {
            let bad = good.replace(from, to);
            assert_eq!(KeyFile::parse(bad.as_bytes()), Err(FormatError::Line("kdf-params")), "{to}");
        }
        let bad = good.replace("tally-key 1\n", "tally-key 2\n");
        assert_eq!(KeyFile::parse(bad.as_bytes()), Err(FormatError::Version("2".into())));
        assert_eq!(KeyFile::parse(b"{}\n"), Err(FormatError::Magic));
    }
}
