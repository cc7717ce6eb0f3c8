//! Keys, signatures, and the one verdict on whether a signature holds.
//!
//! The verdict is ZIP-215, by ed25519-zebra, single or in batches: both answer alike on every input, crafted ones
//! included, so validators can never split over a signature. `verify`, `verify_strict` and `verify_batch` of
//! ed25519-dalek disagree with each other on such inputs and are banned by lint; dalek only makes keys and signatures.

use std::{convert::Infallible, fmt, ops::Neg as _};

use bytes::Bytes;
use curve25519_dalek::{
    edwards::{CompressedEdwardsY, EdwardsPoint},
    scalar::Scalar,
};
use ed25519_dalek::Signer as _;
use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{address::Address, hash::Hash};

/// An Ed25519 public key, as bytes: not necessarily one that anybody can sign with.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

crate::order::ordered_as_bytes!(PublicKey);

impl PublicKey {
    /// Whether this is a key somebody can hold: the canonical encoding of a curve point of prime order. Asked once, when
    /// an account or a validator is opened; it costs as much as a signature check.
    pub fn is_usable(&self) -> bool {
        let Some(point) = CompressedEdwardsY(self.0).decompress() else { return false };
        // No point of prime order has a second encoding: y below 19, and the sign of x = 0, are of other orders.
        !point.is_small_order() && is_torsion_free(&point)
    }

    /// The key written as 64 hex digits.
    pub fn from_hex(text: &str) -> Option<PublicKey> {
        Hash::from_hex(text).map(|bytes| PublicKey(bytes.0))
    }

    /// The account whose key this is.
    pub fn address(&self) -> Address {
        Address(self.0)
    }
}

/// Whether the order of `point` divides the prime l: (l - 1) times it is its negative. A key is public, so this may take as long
/// as the numbers want, and is a fifth faster than dalek's, which may not.
fn is_torsion_free(point: &EdwardsPoint) -> bool {
    EdwardsPoint::vartime_double_scalar_mul_basepoint(&Scalar::ONE.neg(), point, &Scalar::ZERO) == point.neg()
}

impl From<Address> for PublicKey {
    fn from(address: Address) -> PublicKey {
        PublicKey(address.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hex::encode(self.0).get(..8).unwrap_or_default())
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl Signature {
    /// The signature in `bytes`, if there are exactly 64.
    pub fn from_slice(bytes: &[u8]) -> Option<Signature> {
        bytes.try_into().ok().map(Signature)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hex::encode(self.0).get(..8).unwrap_or_default())
    }
}

/// The bytes a signature covers: tag, zero byte, genesis hash, content. Made here only, so nothing is signed without its
/// tag and its chain. Cheap to clone: a quorum signs the same.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SignedBytes(Bytes);

impl SignedBytes {
    /// `parts` in order, under `tag`, for the chain of `genesis`.
    pub fn new(tag: &str, genesis: &Hash, parts: &[&[u8]]) -> SignedBytes {
        let parts_len = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        let mut bytes = Vec::with_capacity(tag.len().saturating_add(33).saturating_add(parts_len));
        bytes.extend_from_slice(tag.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(genesis.as_bytes());
        for part in parts {
            bytes.extend_from_slice(part);
        }
        SignedBytes(bytes.into())
    }

    /// Bytes that were signed long ago and kept. They are only shown and checked, never signed.
    pub fn recorded(bytes: Vec<u8>) -> SignedBytes {
        SignedBytes(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the bytes: of a transaction, its id.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.0)
    }
}

impl fmt::Debug for SignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// A question: did the holder of `key` sign `bytes`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureCheck {
    /// Whose signature it should be.
    pub key: PublicKey,
    /// What it should cover.
    pub bytes: SignedBytes,
    /// The signature.
    pub signature: Signature,
}

impl SignatureCheck {
    /// The answer, by ZIP-215.
    pub fn holds(&self) -> bool {
        VerificationKey::try_from(self.key.0)
            .and_then(|key| key.verify(&self.signature.0.into(), self.bytes.as_bytes()))
            .is_ok()
    }
}

/// Whether every one of `checks` holds. About twice as fast as one by one from 16 checks on.
pub fn all_hold(checks: &[SignatureCheck]) -> bool {
    match checks {
        [] => true,
        [one] => one.holds(),
        many => {
            let mut verifier = batch::Verifier::new();
            let mut transcript = Sha256::new();
            for check in many {
                let key = VerificationKeyBytes::from(check.key.0);
                verifier.queue((key, check.signature.0.into(), check.bytes.as_bytes()));
                transcript.update(check.key.0);
                transcript.update(check.signature.0);
                transcript.update(check.bytes.hash().0);
            }
            verifier.verify(TranscriptRng { seed: transcript.finalize().into(), counter: 0 }).is_ok()
        }
    }
}

/// The batch check weighs each signature by a number its author could not foresee. Numbers drawn from a hash over all
/// keys, messages and signatures have that property and keep the verdict a function of the input alone.
struct TranscriptRng {
    seed: [u8; 32],
    counter: u64,
}

impl TryRng for TranscriptRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Infallible> {
        for chunk in target.chunks_mut(32) {
            self.counter = self.counter.wrapping_add(1);
            let block = Hash::tagged("tally.batch-check.v1", &[&self.seed, &self.counter.to_be_bytes()]);
            for (to, from) in chunk.iter_mut().zip(block.0) {
                *to = from;
            }
        }
        Ok(())
    }
}

impl TryCryptoRng for TranscriptRng {}

/// An Ed25519 secret key (the 32-byte seed of RFC 8032). Wiped from memory when dropped; never shown. It stays in one place: a
/// value that is moved would leave its bytes where it was.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey(Box<[u8; 32]>);

impl SecretKey {
    /// The key of this seed, which the caller wipes.
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        let mut own = Box::new([0; 32]);
        own.copy_from_slice(seed);
        SecretKey(own)
    }

    /// The seed, for writing it to a key file.
    pub fn seed(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(ed25519_dalek::SigningKey::from_bytes(&self.0).verifying_key().to_bytes())
    }

    /// Signs `bytes`.
    pub fn sign(&self, bytes: &SignedBytes) -> Signature {
        Signature(ed25519_dalek::SigningKey::from_bytes(&self.0).sign(bytes.as_bytes()).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seed: u8, message: &[u8]) -> SignatureCheck {
        let secret = SecretKey::from_seed(&[seed; 32]);
        let bytes = SignedBytes::new("tally.test", &Hash::ZERO, &[message]);
        SignatureCheck { key: secret.public_key(), signature: secret.sign(&bytes), bytes }
    }

    #[test]
    fn one_wrong_signature_fails_its_batch() {
        let mut checks: Vec<_> = (0..20).map(|seed| check(seed, &[seed; 40])).collect();
        assert!(all_hold(&checks));
        checks[7].signature.0[5] ^= 1;
        assert!(!checks[7].holds());
        assert!(!all_hold(&checks));
        checks[7] = check(7, b"another message");
        checks[7].bytes = SignedBytes::new("tally.test", &Hash::of(b"another chain"), &[b"another message"]);
        assert!(!all_hold(&checks));
    }

    #[test]
    fn only_canonical_points_of_prime_order_are_usable_keys() {
        assert!(SecretKey::from_seed(&[1; 32]).public_key().is_usable());
        // The neutral element, a point of order 8, the same with a high bit, y = p (not canonical), no point at all.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let order8 = hex::decode("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05").unwrap();
        let mut not_canonical = [0xff; 32];
        not_canonical[0] = 0xed;
        not_canonical[31] = 0x7f;
        let mut no_point = [0; 32];
        no_point[0] = 2;
        for bytes in [neutral, order8.clone().try_into().unwrap(), not_canonical, no_point, [0xff; 32]] {
            assert!(!PublicKey(bytes).is_usable(), "{}", hex::encode(bytes));
        }
        // A good key plus a point of order 8: on the curve, canonical, but of mixed order.
        let good = CompressedEdwardsY(SecretKey::from_seed(&[1; 32]).public_key().0).decompress().unwrap();
        let torsion = CompressedEdwardsY(order8.try_into().unwrap()).decompress().unwrap();
        assert!(!PublicKey((good + torsion).compress().0).is_usable());
    }

    /// The y of a point may be written as y + p as well if that is below 2^255, and the sign of x = 0 in two ways.
    #[test]
    fn no_usable_key_can_be_written_otherwise() {
        let mut points = 0;
        for lowest in 0xed..=0xff {
            for sign in [0, 0x80] {
                let mut otherwise = [0xff; 32];
                (otherwise[0], otherwise[31]) = (lowest, 0x7f | sign);
                points += u32::from(CompressedEdwardsY(otherwise).decompress().is_some());
                assert!(!PublicKey(otherwise).is_usable(), "{lowest} {sign}");
            }
        }
        assert!(points > 0);
        let (mut one, mut minus_one) = ([0; 32], [0xff; 32]);
        (one[0], one[31]) = (1, 0x80);
        (minus_one[0], minus_one[31]) = (0xec, 0xff);
        for bytes in [one, minus_one] {
            assert!(CompressedEdwardsY(bytes).decompress().is_some_and(|point| point.compress().0 != bytes));
            assert!(!PublicKey(bytes).is_usable());
        }
    }

    #[test]
    fn usable_keys_are_the_points_that_are_free_of_torsion() {
        let mut torsion = Vec::new();
        for seed in 0..200u8 {
            let point = CompressedEdwardsY(Hash::of(&[seed]).0).decompress();
            let Some(point) = point else { continue };
            let key = PublicKey(point.compress().0);
            assert_eq!(key.is_usable(), point.is_torsion_free());
            torsion.push(point.is_torsion_free());
        }
        assert!(torsion.contains(&true) && torsion.contains(&false));
    }

    #[test]
    fn single_and_batch_checks_agree_on_crafted_signatures() {
        // A small-order key with R = neutral and s = 0: ZIP-215 accepts it for every message, the strict rules do not.
        // What matters is that both of our ways say the same.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let bytes = SignedBytes::new("tally.test", &Hash::ZERO, &[b"any"]);
        let crafted = SignatureCheck { key: PublicKey(neutral), signature: Signature(signature), bytes };
        assert!(crafted.holds());
        assert!(all_hold(&[crafted.clone(), check(1, b"x")]));
        let mut s_too_large = crafted;
        s_too_large.signature.0[63] = 0xff;
        assert!(!s_too_large.holds());
        assert!(!all_hold(&[s_too_large, check(1, b"x")]));
    }
}
