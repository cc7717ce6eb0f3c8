//! Checking signatures: remembered, in batches, on as many threads as there are cores.
//!
//! Most signatures in a certificate were checked before, as votes. What held once is remembered by the hash of key,
//! message and signature, so that a certificate usually costs nothing.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use tally_types::{
    Hash,
    signature::{SignatureCheck, all_hold},
};
use tokio::sync::Semaphore;

/// Signatures remembered: those of a few hundred views.
const REMEMBERED_MAX: usize = 65_536;
/// Up to this many are checked where they are asked for; above, a thread of their own is worth its price.
const INLINE_MAX: usize = 8;
/// Signatures of one batch check: beyond this a larger batch gains nothing.
const CHUNK: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Signatures {
    remembered: Mutex<Remembered>,
    threads: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Remembered {
    known: HashSet<Hash>,
    order: VecDeque<Hash>,
}

impl Signatures {
    /// Uses up to `threads` threads at once.
    pub fn new(threads: usize) -> Signatures {
        Signatures { remembered: Mutex::default(), threads: Arc::new(Semaphore::new(threads.max(1))) }
    }

    /// Whether all of `checks` hold, for votes and certificates, which come again.
    pub async fn hold(&self, mut checks: Vec<SignatureCheck>) -> bool {
        let names: Vec<Hash> = checks.iter().map(name).collect();
        {
            let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            let mut names = names.iter();
            checks.retain(|_| names.next().is_none_or(|name| !remembered.known.contains(name)));
        }
        let hold = self.hold_once(checks).await;
        if hold {
            let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            for name in names {
                if remembered.known.insert(name) {
                    remembered.order.push_back(name);
                }
            }
            while remembered.order.len() > REMEMBERED_MAX {
                if let Some(oldest) = remembered.order.pop_front() {
                    remembered.known.remove(&oldest);
                }
            }
        }
        hold
    }

    /// Whether all of `checks` hold, for transactions, which are seen once.
    pub async fn hold_once(&self, checks: Vec<SignatureCheck>) -> bool {
        if checks.len() <= INLINE_MAX {
            return all_hold(&checks);
        }
        let mut chunks = Vec::new();
        let mut rest = checks;
        while !rest.is_empty() {
            let tail = rest.split_off(rest.len().min(CHUNK));
            let chunk = std::mem::replace(&mut rest, tail);
            let Ok(permit) = self.threads.clone().acquire_owned().await else { return false };
            chunks.push(tokio::task::spawn_blocking(move || {
                let hold = all_hold(&chunk);
                drop(permit);
                hold
            }));
        }
        let mut hold = true;
        for chunk in chunks {
            hold &= chunk.await.unwrap_or(false);
        }
        hold
    }
}

fn name(check: &SignatureCheck) -> Hash {
    Hash::tagged("tally.remembered.v1", &[&check.key.0, &check.signature.0, check.bytes.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_types::{SecretKey, SignedBytes};

    fn check(seed: u8) -> SignatureCheck {
        let secret = SecretKey::from_seed(&[seed; 32]);
        let bytes = SignedBytes::new("tally.test", &Hash::ZERO, &[&[seed]]);
        SignatureCheck { key: secret.public_key(), signature: secret.sign(&bytes), bytes }
    }

    #[tokio::test]
    async fn what_held_once_is_remembered_and_nothing_else() {
        let signatures = Signatures::new(2);
        let good: Vec<_> = (0..20).map(check).collect();
        assert!(signatures.hold(good.clone()).await);
        let mut mixed = good.clone();
        mixed[3].signature.0[1] ^= 1;
        assert!(!signatures.hold(mixed.clone()).await);
        assert!(!signatures.hold(vec![mixed[3].clone()]).await);
        assert!(signatures.hold(good).await);
    }

    #[tokio::test]
    async fn one_bad_signature_among_many_chunks_is_found() {
        let signatures = Signatures::new(2);
        let mut many: Vec<_> = (0..200).map(check).cycle().take(900).collect();
        assert!(signatures.hold_once(many.clone()).await);
        many[777].signature.0[0] ^= 1;
        assert!(!signatures.hold_once(many).await);
    }
}
