//! The validator's key: reading and writing its file, and signing what the machine asks for.

use std::{fs, io, io::Write as _, path::Path};

use tally_consensus::{Message, Unsigned};
use tally_types::{Address, Hash, PublicKey, SecretKey, Signature, SignedBytes, hash::TAG_PEER};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::files;

/// Why a key file cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("cannot {doing} the key file {path}: {source}")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// It does not hold a key.
    #[error("the key file {0} does not hold 64 hex digits; restore it, or run `tally-node init` for a new validator")]
    Malformed(String),
    /// Others may read it.
    #[error("the key file {0} may be read by others; run `chmod 600 {0}`")]
    Open(String),
}

/// Draws a new key.
pub fn new_key() -> io::Result<SecretKey> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(SecretKey::from_seed(&seed))
}

/// Writes a key to a new file that only its owner may read.
pub fn write_key(path: &Path, key: &SecretKey) -> Result<(), KeyError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |doing| move |source| KeyError::Disk { doing, path: path.display().to_string(), source };
    let mut text = Zeroizing::new([b'\n'; 65]);
    hex::encode_to_slice(key.seed(), &mut text[..64]).expect("64 digits have room for 32 bytes");
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed("create"))?;
    file.write_all(text.as_slice()).and_then(|()| file.sync_all()).map_err(failed("write"))
}

/// Reads a key file.
pub fn read_key(path: &Path) -> Result<SecretKey, KeyError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |doing| move |source| KeyError::Disk { doing, path: path.display().to_string(), source };
    let mode = fs::metadata(path).map_err(failed("read"))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(KeyError::Open(path.display().to_string()));
    }
    let text = Zeroizing::new(files::read(path, files::TEXT_BYTES_MAX).map_err(failed("read"))?);
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii_end(), &mut *seed)
        .map_err(|_| KeyError::Malformed(path.display().to_string()))?;
    Ok(SecretKey::from_seed(&seed))
}

/// Signs as one validator on one chain.
#[derive(Clone, Debug)]
pub struct Signer {
    secret: SecretKey,
    genesis: Hash,
    me: Address,
}

impl Signer {
    /// Signs with `secret` as the validator `me` on the chain of `genesis`.
    pub fn new(secret: SecretKey, genesis: Hash, me: Address) -> Signer {
        Signer { secret, genesis, me }
    }

    /// The validator's public key.
    pub fn public_key(&self) -> PublicKey {
        self.secret.public_key()
    }

    /// The validator's address.
    pub fn address(&self) -> Address {
        self.me
    }

    /// Signs what the machine asks for. The same request gives the same bytes, for ever: Ed25519 is deterministic.
    pub fn sign(&self, unsigned: Unsigned) -> Message {
        unsigned.signed(&self.genesis, &self.me, |bytes| self.secret.sign(bytes))
    }

    /// Signs a message between two validators that carries no signature of its own.
    pub fn envelope(&self, receiver: &Address, counter: u64, content: &[u8]) -> Signature {
        self.secret.sign(&envelope_bytes(&self.genesis, receiver, counter, content))
    }
}

/// What [`Signer::envelope`] covers: receiver, counter, SHA-256 of the content.
pub fn envelope_bytes(genesis: &Hash, receiver: &Address, counter: u64, content: &[u8]) -> SignedBytes {
    let digest = Hash::of(content);
    SignedBytes::new(TAG_PEER, genesis, &[receiver.as_bytes(), &counter.to_be_bytes(), digest.as_bytes()])
}
