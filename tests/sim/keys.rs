//! Keys of the world, and the stand-in for Ed25519.
//!
//! Replaced here, and nowhere else: making and checking one signature. A signature of the world is a keyed hash of the
//! signed bytes under a secret that only [`Keys`] holds; it is checked by making it again. Nobody in the world can make
//! another's: behaviours of Byzantine validators are handed the signature of their own key only. Real signatures cost
//! 20 to 50 µs each, more than everything else that happens to a message, and would prove nothing more here: what is
//! signed, who has to have signed it and which stake that adds up to is still decided by the production code
//! (`SignedBytes`, `Sets::judge`, `Certificate::checks`, `SignedTransaction::parse`). Public keys are real points, because
//! genesis and the ledger ask whether they are usable.

use std::{collections::BTreeMap, sync::OnceLock};

use tally_consensus::{Message, Unsigned};
use tally_types::{Address, Hash, PublicKey, SecretKey, Signature, SignedBytes, signature::SignatureCheck};

/// Accounts that pay each other.
pub const CLIENTS: usize = 10;
/// Accounts that clients may open: later ones are asked for again, and refused.
pub const FRESH: usize = 40;
/// Most validators of a world.
pub const VALIDATORS_MAX: usize = 10;

/// Public keys do not depend on the seed of a world and are made once per process.
struct Table {
    clients: Vec<PublicKey>,
    fresh: Vec<PublicKey>,
    operators: Vec<PublicKey>,
    validators: Vec<PublicKey>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let keys = |tag: u8, count: usize| -> Vec<PublicKey> {
            (0..count).map(|index| SecretKey::from_seed(&[tag.wrapping_add(index as u8); 32]).public_key()).collect()
        };
        let mut operators = keys(100, VALIDATORS_MAX);
        // A validator's place is the rank of its address: sorted here, so that its place is its index in the world.
        operators.sort();
        Table { clients: keys(1, CLIENTS), fresh: keys(20, FRESH), operators, validators: keys(200, VALIDATORS_MAX) }
    })
}

pub fn client(index: usize) -> Address {
    table().clients[index].address()
}

/// An account that does not exist at genesis.
pub fn fresh(index: usize) -> Address {
    table().fresh[index % FRESH].address()
}

pub fn operator(index: usize) -> Address {
    table().operators[index].address()
}

pub fn validator(index: usize) -> PublicKey {
    table().validators[index]
}

/// Every secret of a world.
pub struct Keys {
    genesis: Hash,
    /// By the first word of the key: looked up at every signature.
    secrets: BTreeMap<u64, (PublicKey, [u64; 2])>,
}

impl Keys {
    pub fn new(seed: u64, genesis: Hash) -> Keys {
        let table = table();
        let all = table.clients.iter().chain(&table.validators);
        let secret = |key: &PublicKey| {
            let digest = Hash::tagged("secret", &[&seed.to_be_bytes(), &key.0]).0;
            [word(&digest[..8]), word(&digest[8..16])]
        };
        let secrets: BTreeMap<_, _> = all.clone().map(|key| (first_word(key), (*key, secret(key)))).collect();
        assert_eq!(secrets.len(), all.count(), "two keys begin alike");
        Keys { genesis, secrets }
    }

    pub fn genesis(&self) -> &Hash {
        &self.genesis
    }

    fn secret(&self, key: &PublicKey) -> Option<[u64; 2]> {
        self.secrets.get(&first_word(key)).filter(|(known, _)| known == key).map(|(_, secret)| *secret)
    }

    /// What the holder of `key` makes of `bytes`.
    pub fn sign(&self, key: &PublicKey, bytes: &SignedBytes) -> Signature {
        keyed_hash(self.secret(key).expect("every signer of the world has a secret"), bytes.as_bytes())
    }

    /// Whether a signature holds; a key that nobody in the world has never signed anything.
    pub fn holds(&self, check: &SignatureCheck) -> bool {
        self.secret(&check.key).is_some_and(|secret| keyed_hash(secret, check.bytes.as_bytes()) == check.signature)
    }

    /// Makes the message that `unsigned` asks for.
    pub fn message(&self, signer: &Signer, unsigned: Unsigned) -> Message {
        unsigned.signed(&self.genesis, &signer.address, |bytes| self.sign(&signer.key, bytes))
    }
}

/// Who signs.
#[derive(Clone, Debug)]
pub struct Signer {
    pub address: Address,
    pub key: PublicKey,
}

fn first_word(key: &PublicKey) -> u64 {
    word(&key.0[..8])
}

/// Up to eight bytes.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Both halves of a 128-bit product, folded: every bit of the input reaches every bit of the output.
pub fn fold(one: u64, two: u64) -> u64 {
    let product = u128::from(one) * u128::from(two);
    (product as u64) ^ ((product >> 64) as u64)
}

fn keyed_hash(secret: [u64; 2], bytes: &[u8]) -> Signature {
    let [mut one, mut two] = secret;
    let (words, rest) = bytes.as_chunks();
    let words = words.iter().map(|bytes| u64::from_le_bytes(*bytes));
    for next in words.chain((!rest.is_empty()).then(|| word(rest))) {
        one = fold(one ^ next, 0x9e37_79b9_7f4a_7c15) ^ two;
        two = fold(two.wrapping_add(next), 0xd6e8_feb8_6659_fd93).rotate_left(29);
    }
    one ^= bytes.len() as u64;
    let mut signature = [0; 64];
    for (place, half) in signature.chunks_mut(8).zip([one, two, fold(one ^ secret[1], two | 1)]) {
        place.copy_from_slice(&half.to_le_bytes());
    }
    Signature(signature)
}
