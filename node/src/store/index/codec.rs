//! Keys and values of the index. Keys are big-endian, so that their order is the order of heights; values end in a
//! CRC-32 of the key and what is before it.

use crate::store::index::{
    FoundTransaction, HISTORY_BYTES, IndexError, IndexedBlock, IndexedTransaction, PLACE_BYTES, Place,
};

pub(super) fn place(place: Place) -> [u8; PLACE_BYTES] {
    let mut key = [0; PLACE_BYTES];
    let (height, index) = key.split_at_mut(8);
    height.copy_from_slice(&place.height.to_be_bytes());
    index.copy_from_slice(&place.index.to_be_bytes());
    key
}

pub(super) fn read_place(key: &[u8; PLACE_BYTES]) -> Place {
    let [h0, h1, h2, h3, h4, h5, h6, h7, i0, i1, i2, i3] = *key;
    Place { height: u64::from_be_bytes([h0, h1, h2, h3, h4, h5, h6, h7]), index: u32::from_be_bytes([i0, i1, i2, i3]) }
}

pub(super) fn history(account: &[u8; 32], at: Place) -> [u8; HISTORY_BYTES] {
    let mut key = [0; HISTORY_BYTES];
    let (owner, rest) = key.split_at_mut(32);
    owner.copy_from_slice(account);
    rest.copy_from_slice(&place(at));
    key
}

pub(super) fn read_history(key: &[u8; HISTORY_BYTES]) -> Place {
    key.last_chunk().map_or(Place::FIRST, read_place)
}

pub(super) fn block(block: &IndexedBlock) -> Vec<u8> {
    let commit = block.commit.as_deref();
    let mut value =
        Vec::with_capacity(64 + block.header.len() + commit.map_or(0, <[u8]>::len) + 8 * block.batches.len());
    value.extend_from_slice(&block.hash);
    put(&mut value, &block.header);
    value.push(u8::from(commit.is_some()));
    put(&mut value, commit.unwrap_or_default());
    for batch in &block.batches {
        value.extend_from_slice(&batch.to_be_bytes());
    }
    seal(&block.height.to_be_bytes(), value)
}

pub(super) fn read_block(height: u64, value: &[u8]) -> Result<IndexedBlock, IndexError> {
    let fields = || {
        let value = open(&height.to_be_bytes(), value)?;
        let (hash, value) = value.split_first_chunk::<32>()?;
        let (header, value) = take(value)?;
        let (has_commit, value) = value.split_first()?;
        let (commit, value) = take(value)?;
        let (batches, []) = value.as_chunks::<8>() else { return None };
        Some(IndexedBlock {
            height,
            hash: *hash,
            header: header.to_vec(),
            commit: (*has_commit != 0).then(|| commit.to_vec()),
            transactions: Vec::new(),
            batches: batches.iter().map(|batch| u64::from_be_bytes(*batch)).collect(),
        })
    };
    fields().ok_or_else(|| IndexError::damaged(format_args!("block {height} does not check")))
}

pub(super) fn transaction(at: Place, transaction: &IndexedTransaction) -> Vec<u8> {
    let mut value = Vec::with_capacity(40 + transaction.receipt.len() + transaction.bytes.len());
    value.extend_from_slice(&transaction.id);
    put(&mut value, &transaction.receipt);
    value.extend_from_slice(&transaction.bytes);
    seal(&place(at), value)
}

pub(super) fn read_transaction(at: Place, value: &[u8]) -> Result<FoundTransaction, IndexError> {
    let fields = || {
        let value = open(&place(at), value)?;
        let (id, value) = value.split_first_chunk::<32>()?;
        let (receipt, bytes) = take(value)?;
        Some(FoundTransaction { place: at, id: *id, receipt: receipt.to_vec(), bytes: bytes.to_vec() })
    };
    fields().ok_or_else(|| IndexError::damaged(format_args!("transaction {}/{} does not check", at.height, at.index)))
}

fn put(value: &mut Vec<u8>, bytes: &[u8]) {
    value.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    value.extend_from_slice(bytes);
}

fn take(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = value.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

fn seal(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let checksum = checksum(key, &value);
    value.extend_from_slice(&checksum.to_be_bytes());
    value
}

fn open<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (value, found) = value.split_last_chunk::<4>()?;
    (checksum(key, value) == u32::from_be_bytes(*found)).then_some(value)
}
