//! SHA-256 digests, and the domain tags that keep one kind of digest from ever being taken for another.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Tag of a transaction's signed bytes.
pub const TAG_TRANSACTION: &str = "tally.tx.v1";
/// Tag of a proposal's signed bytes.
pub const TAG_PROPOSAL: &str = "tally.proposal.v1";
/// Tag of a PREPARE's signed bytes.
pub const TAG_PREPARE: &str = "tally.prepare.v1";
/// Tag of a COMMIT's signed bytes.
pub const TAG_COMMIT: &str = "tally.commit.v1";
/// Tag of a VIEW-CHANGE's signed bytes.
pub const TAG_VIEW_CHANGE: &str = "tally.view-change.v1";
/// Tag of a batch's signed bytes, and of its digest.
pub const TAG_BATCH: &str = "tally.batch.v1";
/// Tag of a HAVE's signed bytes, and of its digest.
pub const TAG_HAVE: &str = "tally.have.v1";
/// Tag of any other message between validators.
pub const TAG_PEER: &str = "tally.peer.v1";
/// Tag of the leader choice (hashed, never signed).
pub const TAG_LEADER: &str = "tally.leader.v1";
/// Tag of a header's hash.
pub const TAG_HEADER: &str = "tally.header.v1";
/// Tag of a validator set's hash.
pub const TAG_VALIDATOR_SET: &str = "tally.validator-set.v1";

/// A SHA-256 digest. Shown, and read, as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hash(pub [u8; 32]);

crate::order::ordered_as_bytes!(Hash);

impl Hash {
    /// 32 zero bytes: "none yet" wherever a hash may be missing.
    pub const ZERO: Hash = Hash([0; 32]);

    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }

    /// SHA-256 of `tag`, a zero byte, and `parts` one after the other.
    pub fn tagged(tag: &str, parts: &[&[u8]]) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(tag.as_bytes());
        hasher.update([0]);
        for part in parts {
            hasher.update(part);
        }
        Hash(hasher.finalize().into())
    }

    /// The hash in `bytes`, if there are exactly 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Hash> {
        bytes.try_into().ok().map(Hash)
    }

    /// The hash written as exactly 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Option<Hash> {
        if text.len() != 64 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Hash(bytes))
    }

    /// Whether this is [`Hash::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Hash::ZERO
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight digits tell hashes apart in a trace and keep its lines readable.
        f.write_str(hex::encode(self.0).get(..8).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_back_and_nothing_else_is_accepted() {
        let hash = Hash::of(b"abc");
        assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Hash::from_hex(&hash.to_string()), Some(hash));
        assert_eq!(Hash::from_hex(&hash.to_string().to_uppercase()), None);
        assert_eq!(Hash::from_hex(&hash.to_string()[..62]), None);
        assert_eq!(Hash::from_hex(&"g".repeat(64)), None);
    }

    #[test]
    fn a_tag_ends_where_its_zero_byte_stands() {
        assert_eq!(Hash::tagged("ab", &[b"c", b"d"]), Hash::of(b"ab\0cd"));
        assert_ne!(Hash::tagged("ab", &[b"c"]), Hash::tagged("a", &[b"b\0c"]));
    }
}
