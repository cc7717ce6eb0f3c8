//! The tables of the index in one redb file: written in large steps, each durable, and read by any number of snapshots.
//!
//! redb checks its pages only after a crash, so values carry a checksum. Whatever is wrong with the file, a panic inside
//! redb included, becomes an [`IndexError`].

use std::{
    any::Any,
    borrow::Borrow,
    io,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, backends::InMemoryBackend,
};

use super::{
    APPLY_BLOCKS_MAX, FoundTransaction, HISTORY_BYTES, INDEX_FORMAT, IndexError, IndexedBlock, IndexedTransaction,
    Order, PAGE_MAX, PLACE_BYTES, Place, codec,
};

/// Format, and genesis hash.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Height: hash, header, certificate, batches. The highest key is the height of the index.
pub(super) const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
/// Block hash: height.
pub(super) const HASHES: TableDefinition<[u8; 32], u64> = TableDefinition::new("hashes");
/// Height and index: id, receipt, transaction.
const TRANSACTIONS: TableDefinition<[u8; PLACE_BYTES], &[u8]> = TableDefinition::new("transactions");
/// Transaction id: height and index.
const IDS: TableDefinition<[u8; 32], [u8; PLACE_BYTES]> = TableDefinition::new("ids");
/// Account, height and index.
const HISTORY: TableDefinition<[u8; HISTORY_BYTES], ()> = TableDefinition::new("history");

pub(super) const META_FORMAT: &str = "format";
const META_GENESIS: &str = "genesis";

impl<E: Into<redb::Error>> From<E> for IndexError {
    fn from(error: E) -> IndexError {
        match error.into() {
            // A file that is cut off shows as a read beyond its end.
            redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => IndexError::damaged(error),
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => IndexError::damaged(error),
            redb::Error::Io(error) => IndexError::Disk(error),
            redb::Error::DatabaseAlreadyOpen => IndexError::InUse,
            other => IndexError::damaged(other),
        }
    }
}

/// Runs something of redb's; a panic in it becomes an error. Release builds of redb 4.5 report what they find damaged,
/// debug builds assert.
fn guarded<T>(act: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|panic| Err(IndexError::Damaged { reason: format!("redb panicked: {}", message_of(&*panic)) }))
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "without a message",
    }
}

/// The file, or one in memory. Shared by reference between its one writer and its readers.
pub(super) struct IndexFile {
    /// `None` only while it is dropped.
    database: Option<Database>,
}

impl IndexFile {
    /// Opens `file`, or makes an empty one.
    pub(super) fn open(file: &Path, genesis: &[u8; 32]) -> Result<IndexFile, IndexError> {
        IndexFile::check(|| Ok(Database::builder().set_cache_size(CACHE_BYTES).create(file)?), genesis)
    }

    /// An index in memory, for simulations.
    pub(super) fn in_memory(genesis: &[u8; 32]) -> Result<IndexFile, IndexError> {
        IndexFile::check(|| Ok(Database::builder().create_with_backend(InMemoryBackend::new())?), genesis)
    }

    fn check(
        database: impl FnOnce() -> Result<Database, IndexError>,
        genesis: &[u8; 32],
    ) -> Result<IndexFile, IndexError> {
        let index = IndexFile { database: Some(guarded(database)?) };
        index.guarded(|database| {
            let transaction = database.begin_write()?;
            {
                let mut meta = transaction.open_table(META)?;
                let format = meta.get(META_FORMAT)?.map(|held| held.value().to_vec());
                let held = meta.get(META_GENESIS)?.map(|held| held.value().to_vec());
                match (format, held) {
                    (None, None) => {
                        meta.insert(META_FORMAT, INDEX_FORMAT.to_be_bytes().as_slice())?;
                        meta.insert(META_GENESIS, genesis.as_slice())?;
                    }
                    (Some(format), _) if format != INDEX_FORMAT.to_be_bytes() => {
                        let found = format.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                        return Err(IndexError::OtherFormat { found });
                    }
                    (Some(_), Some(held)) if held == genesis => {}
                    (Some(_), Some(held)) => return Err(IndexError::OtherChain { found: hex::encode(held) }),
                    _ => return Err(IndexError::damaged("half of its description is missing")),
                }
                // Readers find every table, whatever is in it.
                transaction.open_table(BLOCKS)?;
                transaction.open_table(HASHES)?;
                transaction.open_table(TRANSACTIONS)?;
                transaction.open_table(IDS)?;
                transaction.open_table(HISTORY)?;
            }
            Ok(transaction.commit()?)
        })?;
        Ok(index)
    }

    pub(super) fn guarded<T>(&self, act: impl FnOnce(&Database) -> Result<T, IndexError>) -> Result<T, IndexError> {
        let database = self.database.as_ref().ok_or(IndexError::InUse)?;
        guarded(|| act(database))
    }

    pub(super) fn read<T>(&self, act: impl FnOnce(&ReadTransaction) -> Result<T, IndexError>) -> Result<T, IndexError> {
        self.guarded(|database| act(&database.begin_read()?))
    }

    /// Adds executed blocks, all or none, in one write transaction that is durable when this returns. The first may have
    /// any height in an empty file; from then on heights follow each other.
    pub(super) fn apply<B: Borrow<IndexedBlock>>(&self, blocks: &[B]) -> Result<(), IndexError> {
        if blocks.len() > APPLY_BLOCKS_MAX {
            return Err(IndexError::TooManyBlocks { blocks: blocks.len() });
        }
        self.guarded(|database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(BLOCKS)?;
                let mut next = table.last()?.map(|(height, _)| height.value().saturating_add(1));
                let mut hashes = transaction.open_table(HASHES)?;
                for block in blocks.iter().map(Borrow::borrow) {
                    if let Some(expected) = next.filter(|expected| *expected != block.height) {
                        return Err(IndexError::OutOfOrder { expected, found: block.height });
                    }
                    table.insert(block.height, codec::block(block).as_slice())?;
                    hashes.insert(block.hash, block.height)?;
                    next = Some(block.height.saturating_add(1));
                }
                let mut table = transaction.open_table(TRANSACTIONS)?;
                for (place, found) in placed(blocks) {
                    table.insert(codec::place(place), codec::transaction(place, found).as_slice())?;
                }
                // In the order of their keys: neighbours share pages, and each page is taken up once.
                let mut ids: Vec<_> = placed(blocks).map(|(place, found)| (found.id, place)).collect();
                ids.sort_unstable();
                let mut table = transaction.open_table(IDS)?;
                for (id, place) in ids {
                    table.insert(id, codec::place(place))?;
                }
                let history = |(place, found): (Place, &IndexedTransaction)| {
                    found.accounts.iter().map(move |account| codec::history(account, place)).collect::<Vec<_>>()
                };
                let mut history: Vec<_> = placed(blocks).flat_map(history).collect();
                history.sort_unstable();
                let mut table = transaction.open_table(HISTORY)?;
                for key in history {
                    table.insert(key, ())?;
                }
            }
            Ok(transaction.commit()?)
        })
    }

    /// Height of the last block that was applied; `None` in an empty index.
    pub(super) fn height(&self) -> Result<Option<u64>, IndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(BLOCKS)?;
            let last = table.last()?;
            Ok(last.map(|(height, _)| height.value()))
        })
    }

    /// The block at a height, without its transactions.
    pub(super) fn block(&self, height: u64) -> Result<Option<IndexedBlock>, IndexError> {
        self.read(|transaction| match transaction.open_table(BLOCKS)?.get(height)? {
            Some(value) => codec::read_block(height, value.value()).map(Some),
            None => Ok(None),
        })
    }

    /// Blocks from height `first` to `last`, both included, without their transactions: at most `limit`, and at most
    /// [`PAGE_MAX`].
    pub(super) fn blocks(&self, first: u64, last: u64, limit: usize) -> Result<Vec<IndexedBlock>, IndexError> {
        if first > last {
            return Ok(Vec::new());
        }
        self.read(|transaction| {
            let table = transaction.open_table(BLOCKS)?;
            let mut blocks = Vec::new();
            for row in table.range(first..=last)?.take(limit.min(PAGE_MAX)) {
                let (height, value) = row?;
                blocks.push(codec::read_block(height.value(), value.value())?);
            }
            Ok(blocks)
        })
    }

    /// Height of the block with this hash.
    pub(super) fn block_height_by_hash(&self, hash: &[u8; 32]) -> Result<Option<u64>, IndexError> {
        self.read(|transaction| {
            let Some(height) = transaction.open_table(HASHES)?.get(hash)? else { return Ok(None) };
            let height = height.value();
            let block = transaction.open_table(BLOCKS)?;
            let block = block.get(height)?.map(|value| codec::read_block(height, value.value())).transpose()?;
            match block.is_some_and(|block| block.hash == *hash) {
                true => Ok(Some(height)),
                false => Err(IndexError::damaged("a hash leads to another block")),
            }
        })
    }

    /// The transaction with this id.
    pub(super) fn transaction(&self, id: &[u8; 32]) -> Result<Option<FoundTransaction>, IndexError> {
        self.read(|transaction| {
            let Some(place) = transaction.open_table(IDS)?.get(id)? else { return Ok(None) };
            let place = codec::read_place(&place.value());
            let found = transaction_at(transaction, place)?;
            match found.id == *id {
                true => Ok(Some(found)),
                false => Err(IndexError::damaged("an id leads to another transaction")),
            }
        })
    }

    /// Transactions of the block at `height`, from index `first` on: at most `limit`, and at most [`PAGE_MAX`].
    pub(super) fn transactions_of_block(
        &self,
        height: u64,
        first: u32,
        limit: usize,
    ) -> Result<Vec<FoundTransaction>, IndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(TRANSACTIONS)?;
            let from = codec::place(Place { height, index: first });
            let to = codec::place(Place { height, index: u32::MAX });
            let mut found = Vec::new();
            for row in table.range(from..=to)?.take(limit.min(PAGE_MAX)) {
                let (place, value) = row?;
                found.push(codec::read_transaction(codec::read_place(&place.value()), value.value())?);
            }
            Ok(found)
        })
    }

    /// Places of the transactions that touched `account`, from place `first` to `last`, both included: at most `limit`,
    /// and at most [`PAGE_MAX`].
    pub(super) fn history(
        &self,
        account: &[u8; 32],
        range: RangeInclusive<Place>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Place>, IndexError> {
        if range.start() > range.end() {
            return Ok(Vec::new());
        }
        self.read(|transaction| {
            let table = transaction.open_table(HISTORY)?;
            let keys = codec::history(account, *range.start())..=codec::history(account, *range.end());
            let mut rows = table.range(keys)?;
            let mut places = Vec::new();
            while places.len() < limit.min(PAGE_MAX) {
                let row = match order {
                    Order::OldestFirst => rows.next(),
                    Order::NewestFirst => rows.next_back(),
                };
                let Some(row) = row else { break };
                places.push(codec::read_history(&row?.0.value()));
            }
            Ok(places)
        })
    }

    /// The transaction at a place that [`Index::history`] gave.
    pub(super) fn transaction_at(&self, place: Place) -> Result<FoundTransaction, IndexError> {
        self.read(|transaction| transaction_at(transaction, place))
    }

    /// Walks the whole file and checks every page's checksum; takes as long as reading it. For a node that was told
    /// to doubt its disk.
    pub(super) fn verify(&mut self) -> Result<(), IndexError> {
        let database = self.database.as_mut().ok_or(IndexError::InUse)?;
        match guarded(|| Ok(database.check_integrity()?))? {
            true => Ok(()),
            false => Err(IndexError::damaged("its pages did not check")),
        }
    }
}

/// Memory redb keeps pages in, in bytes.
const CACHE_BYTES: usize = 256 << 20;

fn placed<B: Borrow<IndexedBlock>>(blocks: &[B]) -> impl Iterator<Item = (Place, &IndexedTransaction)> {
    blocks.iter().flat_map(|block| block.borrow().placed())
}

fn transaction_at(transaction: &ReadTransaction, place: Place) -> Result<FoundTransaction, IndexError> {
    let table = transaction.open_table(TRANSACTIONS)?;
    let value = table.get(codec::place(place))?;
    let value = value.ok_or_else(|| IndexError::damaged("a key leads to no transaction"))?;
    codec::read_transaction(place, value.value())
}

impl Drop for IndexFile {
    fn drop(&mut self) {
        // Closing writes; on a damaged file that can panic like anything else.
        let database = self.database.take();
        let _ = guarded(|| {
            drop(database);
            Ok(())
        });
    }
}
