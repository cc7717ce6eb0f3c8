//! Snapshots: a ledger as bytes, for a node that restarts or joins.
//!
//! Layout, integers big-endian: "TALLYSN1", genesis `hash[32]`, height u64, state `root[32]`, receipts `root[32]`, number of
//! receipts u64, its `peaks[32]` (one per bit set in that number), number of leaves u64, and the leaves of the state tree in
//! the order of their keys, each as it is hashed: `key[33]`, sum u64, value. One ledger has one snapshot.
//!
//! A snapshot that decodes is consistent in itself and holds the chain's supply. That it is the chain's is for the caller
//! to check: [`Ledger::executed`] must be what a certified header says.

use tally_types::{Address, Amount, Genesis, Hash, Height, Params, Validator, ValidatorSet, header::Executed};
use thiserror::Error;

use crate::{
    account::Account,
    accumulator::Accumulator,
    block::Ledger,
    reader::Reader,
    record::{self, Record},
    state::State,
};

const MAGIC: &[u8; 8] = b"TALLYSN1";

/// Why bytes are no snapshot of this chain.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SnapshotError {
    /// Not the format this version reads.
    #[error("these bytes are not a snapshot that this version reads")]
    Format,
    /// Of another chain.
    #[error("the snapshot is of the chain with genesis {got}, this one has {expected}")]
    OtherChain {
        /// Genesis hash of this chain.
        expected: Hash,
        /// Genesis hash in the snapshot.
        got: Hash,
    },
    /// Cut short, too long, or a value that its field cannot hold.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// Parameters other than those of genesis.
    #[error("the snapshot has other parameters than genesis")]
    Params,
    /// Tokens are missing, or too many.
    #[error("the snapshot holds {found} base units, the supply is {expected}")]
    Supply {
        /// Fixed at genesis.
        expected: Amount,
        /// The sum of its leaves.
        found: Amount,
    },
    /// The leaves lead to another root than the snapshot says.
    #[error("the snapshot says state root {expected}, its content has {found}")]
    StateRoot {
        /// Stored.
        expected: Hash,
        /// Recomputed.
        found: Hash,
    },
    /// The peaks lead to another root than the snapshot says.
    #[error("the snapshot says receipts root {expected}, its content has {found}")]
    ReceiptsRoot {
        /// Stored.
        expected: Hash,
        /// Recomputed.
        found: Hash,
    },
}

impl Ledger {
    /// Its snapshot.
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let executed = self.executed();
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(self.chain().genesis_hash.as_bytes());
        out.extend_from_slice(&executed.height.to_be_bytes());
        out.extend_from_slice(executed.state_root.as_bytes());
        out.extend_from_slice(executed.receipts_root.as_bytes());
        out.extend_from_slice(&self.receipts().count().to_be_bytes());
        for peak in self.receipts().peaks() {
            out.extend_from_slice(peak.as_bytes());
        }
        let count_at = out.len();
        out.extend_from_slice(&[0; 8]);
        let mut count = 0u64;
        for leaf in self.state().tree().leaves() {
            out.extend_from_slice(&leaf.key);
            out.extend_from_slice(&leaf.record.sum().0.to_be_bytes());
            leaf.record.write_value(&mut out);
            count = count.saturating_add(1);
        }
        if let Some(place) = out.get_mut(count_at..).and_then(<[u8]>::first_chunk_mut) {
            *place = count.to_be_bytes();
        }
        out
    }

    /// Reads a snapshot and checks all that it can be checked against. Takes memory in proportion to `bytes`.
    pub fn decode_snapshot(bytes: &[u8], genesis: &Genesis) -> Result<Ledger, SnapshotError> {
        let mut reader = Reader::new(bytes);
        let stored = read_head(&mut reader, genesis)?;
        let receipts = read_receipts(&mut reader).ok_or(SnapshotError::Damaged("its receipts"))?;
        let state = read_state(&mut reader, genesis)?;
        if reader.left() != 0 {
            return Err(SnapshotError::Damaged("bytes after its end"));
        }
        let (expected, found) = (genesis.total_supply, state.supply());
        if found != expected {
            return Err(SnapshotError::Supply { expected, found });
        }
        let ledger = Ledger::from_parts(genesis, state, receipts, stored.height);
        let found = ledger.executed();
        if found.state_root != stored.state_root {
            return Err(SnapshotError::StateRoot { expected: stored.state_root, found: found.state_root });
        }
        if found.receipts_root != stored.receipts_root {
            return Err(SnapshotError::ReceiptsRoot { expected: stored.receipts_root, found: found.receipts_root });
        }
        Ok(ledger)
    }
}

fn read_head(reader: &mut Reader<'_>, genesis: &Genesis) -> Result<Executed, SnapshotError> {
    if reader.array().as_ref() != Some(MAGIC) {
        return Err(SnapshotError::Format);
    }
    let mut hash = || reader.array().map(Hash).ok_or(SnapshotError::Damaged("its head"));
    let (expected, got) = (genesis.chain.genesis_hash, hash()?);
    if got != expected {
        return Err(SnapshotError::OtherChain { expected, got });
    }
    let height = reader.u64().map(Height).ok_or(SnapshotError::Damaged("its head"))?;
    let mut hash = || reader.array().map(Hash).ok_or(SnapshotError::Damaged("its head"));
    Ok(Executed { height, state_root: hash()?, receipts_root: hash()? })
}

fn read_receipts(reader: &mut Reader<'_>) -> Option<Accumulator> {
    let count = reader.u64()?;
    let peaks = (0..count.count_ones()).map(|_| reader.array().map(Hash)).collect::<Option<_>>()?;
    Accumulator::from_parts(count, peaks)
}

/// The leaves of a snapshot, by kind.
#[derive(Default)]
struct Leaves {
    params: Option<Params>,
    accounts: Vec<(Address, Account)>,
    validators: Vec<Validator>,
}

fn read_state(reader: &mut Reader<'_>, genesis: &Genesis) -> Result<State, SnapshotError> {
    let count = reader.u64().ok_or(SnapshotError::Damaged("its number of leaves"))?;
    let mut leaves = Leaves::default();
    let mut last = None;
    // A false count ends where the bytes end: nothing is set aside for what was not read.
    for _ in 0..count {
        let leaf = Record::read(reader).ok_or(SnapshotError::Damaged("a leaf"))?;
        if last.is_some_and(|last| last >= leaf.key) {
            return Err(SnapshotError::Damaged("leaves out of order"));
        }
        last = Some(leaf.key);
        let address = Address(record::split_key(&leaf.key).1);
        match leaf.record {
            Record::Parameters(params) => leaves.params = Some(params),
            Record::Account(account) => leaves.accounts.push((address, account)),
            Record::Validator { key, stake } => leaves.validators.push(Validator { address, key, stake }),
        }
    }
    if leaves.params.as_ref() != Some(&genesis.params) {
        return Err(SnapshotError::Params);
    }
    let validators =
        ValidatorSet::new(leaves.validators).map_err(|_| SnapshotError::Damaged("its validators are no set"))?;
    let mut state = State::bare(&genesis.params, validators);
    for (address, account) in leaves.accounts {
        state.put(&address, account);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, Tx};

    fn used_ledger() -> Ledger {
        let mut ledger = testing::ledger();
        for nonce in 1..8 {
            let open = Tx::of(1).nonce(nonce).create(testing::address(20 + nonce as u8), 100);
            let pay = Tx::of(2).nonce(200 - nonce).transfer(testing::address(3), 7);
            testing::run(&mut ledger, &[open.bytes(), pay.bytes()]);
        }
        ledger
    }

    fn decode(bytes: &[u8]) -> Result<Ledger, SnapshotError> {
        Ledger::decode_snapshot(bytes, &testing::genesis())
    }

    #[test]
    fn a_snapshot_goes_on_as_the_ledger_it_was_taken_of() {
        let mut ledger = used_ledger();
        let bytes = ledger.encode_snapshot();
        let mut copy = decode(&bytes).unwrap();
        assert_eq!(copy.executed(), ledger.executed());
        assert_eq!(copy.encode_snapshot(), bytes);
        assert_eq!(copy.state().account_count(), 11);
        assert_eq!(copy.state().validators(), ledger.state().validators());
        let next = Tx::of(1).nonce(8).transfer(testing::address(21), 5).bytes();
        let again = Tx::of(1).nonce(7).transfer(testing::address(21), 5).bytes();
        let blocks = [next, again];
        assert_eq!(testing::run(&mut copy, &blocks), testing::run(&mut ledger, &blocks));
        let fresh = testing::ledger();
        assert_eq!(decode(&fresh.encode_snapshot()).unwrap().executed(), fresh.executed());
    }

    #[test]
    fn every_fault_is_named() {
        let ledger = used_ledger();
        let good = ledger.encode_snapshot();
        let executed = ledger.executed();
        let change = |at: usize, by: u8| {
            let mut bytes = good.clone();
            bytes[at] ^= by;
            decode(&bytes).unwrap_err()
        };
        // Offsets: magic 0, genesis 8, height 40, state root 48, receipts root 80, count 112, peaks 120, leaves.
        assert_eq!(change(7, 1), SnapshotError::Format);
        let expected = testing::genesis().chain.genesis_hash;
        assert!(matches!(change(8, 1), SnapshotError::OtherChain { expected: e, .. } if e == expected));
        assert!(matches!(change(48, 1), SnapshotError::StateRoot { found, .. } if found == executed.state_root));
        assert!(matches!(change(80, 1), SnapshotError::ReceiptsRoot { found, .. } if found == executed.receipts_root));
        assert!(matches!(change(120, 1), SnapshotError::ReceiptsRoot { .. }));
        let leaves = 120 + 32 * ledger.receipts().peaks().len();
        assert_eq!(change(leaves + 7, 0x40), SnapshotError::Damaged("a leaf"));
        // A count of 2^63 leaves ends where the bytes end.
        assert_eq!(change(leaves, 0x80), SnapshotError::Damaged("a leaf"));
        let params = leaves + 8 + 33 + 8;
        assert_eq!(change(params, 1), SnapshotError::Params);
        let account = params + 72;
        let (supply, balance_low_byte) = (testing::genesis().total_supply, account + 33 + 7);
        let found = match good[balance_low_byte] & 1 {
            0 => Amount(supply.0 + 1),
            _ => Amount(supply.0 - 1),
        };
        assert_eq!(change(balance_low_byte, 1), SnapshotError::Supply { expected: supply, found });
        // The first account's address: its leaf now sorts elsewhere, or hashes otherwise.
        assert_eq!(change(account + 1, 0xff), SnapshotError::Damaged("leaves out of order"));
        assert!(matches!(change(account + 32, 1), SnapshotError::StateRoot { .. }));
        let longer = [&good[..], &[0]].concat();
        assert_eq!(decode(&longer).unwrap_err(), SnapshotError::Damaged("bytes after its end"));
        for len in 0..good.len() {
            decode(&good[..len]).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(decode(&bytes).is_err());
            let genesis = testing::genesis().chain.genesis_hash;
            prop_assert!(decode(&[&MAGIC[..], &genesis.0, &bytes].concat()).is_err());
        }

        #[test]
        fn a_changed_snapshot_is_refused_or_is_another_height(at in any::<prop::sample::Index>(), by in 1u8..) {
            let ledger = used_ledger();
            let mut bytes = ledger.encode_snapshot();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            match decode(&bytes) {
                Err(_) => {}
                // Nothing in the roots says the height: the certified header does.
                Ok(decoded) => {
                    prop_assert!((40..48).contains(&at), "byte {at}");
                    prop_assert_ne!(decoded.height(), ledger.height());
                }
            }
        }
    }
}
