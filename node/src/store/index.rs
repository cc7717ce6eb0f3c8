//! The index: what client queries need, found by key. A cache of the journal, which may lag behind it, may be deleted
//! while the node is down, and comes back block by block.
//!
//! Blocks are added in memory, where every query sees them at once, and written to one redb file many at a time: block
//! by block costs three to eight times as much, since each transaction's keys lie anywhere. One writer adds executed
//! blocks in order; any number of readers ask. The index takes headers, receipts and transactions as bytes, and vouches
//! for them. Whatever is wrong with the file becomes an [`IndexError`] that says by
//! [`IndexError::is_cured_by_rebuilding`] whether to delete it and start again.

mod codec;
mod file;
mod recent;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs, io,
    ops::RangeInclusive,
    path::Path,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use file::IndexFile;
use recent::Recent;

/// The one layout of the tables this code knows.
pub const INDEX_FORMAT: u64 = 1;
/// Most rows one query returns.
pub const PAGE_MAX: usize = 1000;
/// Most blocks one [`Index::write_out`] takes, so that a write transaction stays within memory.
pub const APPLY_BLOCKS_MAX: usize = 1024;
/// Transactions in memory that are worth a write: a second or two of a busy network. A restart executes them again.
const DUE_TRANSACTIONS: usize = 8192;
/// Blocks in memory that are worth a write, however little is in them.
const DUE_BLOCKS: usize = 512;
/// How often over what is due may be in memory before whoever adds has to wait.
const OVERDUE: usize = 4;

const PLACE_BYTES: usize = 12;
const HISTORY_BYTES: usize = 32 + PLACE_BYTES;

/// Where a transaction stands: its block's height, and its index there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The block's height.
    pub height: u64,
    /// 0 for the block's first transaction.
    pub index: u32,
}

impl Place {
    /// Before every transaction.
    pub const FIRST: Place = Place { height: 0, index: 0 };
    /// After every transaction.
    pub const LAST: Place = Place { height: u64::MAX, index: u32::MAX };
}

/// A block as it is indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedBlock {
    /// Its height, one above the block before.
    pub height: u64,
    /// Hash of its header.
    pub hash: [u8; 32],
    /// Its header, as received.
    pub header: Vec<u8>,
    /// The certificate that makes it final, if it is named by one itself.
    pub commit: Option<Vec<u8>>,
    /// Its transactions, in the order they were executed; none of them in a block that is read back.
    pub transactions: Vec<IndexedTransaction>,
    /// Positions of its batches in the journal, in order.
    pub batches: Vec<u64>,
}

impl IndexedBlock {
    fn placed(&self) -> impl Iterator<Item = (Place, &IndexedTransaction)> {
        (0..).zip(&self.transactions).map(|(index, found)| (Place { height: self.height, index }, found))
    }
}

/// A transaction as it is indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedTransaction {
    /// SHA-256 of the whole signed message.
    pub id: [u8; 32],
    /// What its execution came to.
    pub receipt: Vec<u8>,
    /// The signed message.
    pub bytes: Vec<u8>,
    /// Accounts it touched, each once.
    pub accounts: Vec<[u8; 32]>,
}

/// A transaction that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTransaction {
    /// Where it stands.
    pub place: Place,
    /// SHA-256 of the whole signed message.
    pub id: [u8; 32],
    /// What its execution came to.
    pub receipt: Vec<u8>,
    /// The signed message.
    pub bytes: Vec<u8>,
}

/// In which order a history is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first transaction on.
    OldestFirst,
    /// From the latest transaction back.
    NewestFirst,
}

/// Why the index cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Made of another chain's blocks.
    #[error("the index belongs to the chain with genesis hash {found}: delete it, it is made again from the journal")]
    OtherChain {
        /// Its genesis hash, hex.
        found: String,
    },
    /// Laid out by another program.
    #[error(
        "the index has format {found}, this program knows {INDEX_FORMAT}: delete it, it is made again from the journal"
    )]
    OtherFormat {
        /// Its format.
        found: u64,
    },
    /// Not a database, or a damaged one.
    #[error("the index is damaged ({reason}): delete it, it is made again from the journal")]
    Damaged {
        /// What redb, or a checksum, says.
        reason: String,
    },
    /// Another process, or another value in this one, has it open.
    #[error("the index is open elsewhere")]
    InUse,
    /// The block does not follow the ones that are there; nothing was applied.
    #[error("the index expects the block of height {expected}, not {found}")]
    OutOfOrder {
        /// The height that comes next.
        expected: u64,
        /// The height that was offered.
        found: u64,
    },
    /// More blocks at once than the bound; nothing was applied.
    #[error("{blocks} blocks at once are above the bound of {APPLY_BLOCKS_MAX}")]
    TooManyBlocks {
        /// How many.
        blocks: usize,
    },
    /// The disk refused.
    #[error(
        "the disk refused the index: {0}. The journal has everything: make room on the disk, or mend it, and start again"
    )]
    Disk(io::Error),
}

impl IndexError {
    /// Whether deleting the file and applying every block again helps.
    pub fn is_cured_by_rebuilding(&self) -> bool {
        matches!(self, Self::OtherChain { .. } | Self::OtherFormat { .. } | Self::Damaged { .. })
    }

    fn damaged(reason: impl fmt::Display) -> IndexError {
        IndexError::Damaged { reason: reason.to_string() }
    }
}

/// The index. Shared by reference between its one writer and its readers.
pub struct Index {
    file: IndexFile,
    /// What the file lacks. Never locked while the file is written.
    recent: RwLock<Recent>,
}

impl Index {
    /// Opens the index in `file`, or makes an empty one.
    pub fn open(file: &Path, genesis: &[u8; 32]) -> Result<Index, IndexError> {
        Index::over(IndexFile::open(file, genesis)?)
    }

    /// An index in memory, for simulations.
    pub fn in_memory(genesis: &[u8; 32]) -> Result<Index, IndexError> {
        Index::over(IndexFile::in_memory(genesis)?)
    }

    fn over(file: IndexFile) -> Result<Index, IndexError> {
        let height = file.height()?;
        // Whether the journal lacks something is decided by this height: one flipped bit of a key must not pass for it. The
        // checksum of the block covers its height.
        height.map(|height| file.block(height)).transpose()?;
        let recent = Recent::after(height);
        Ok(Index { file, recent: RwLock::new(recent) })
    }

    /// Removes the file of an index that is not open, so that the next [`Index::open`] starts from nothing.
    pub fn delete(file: &Path) -> Result<(), IndexError> {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(IndexError::Disk(error)),
            _ => Ok(()),
        }
    }

    /// Adds executed blocks, all or none. The first may have any height in an empty index; from then on heights follow
    /// each other. Queries find them at once; a crash takes back those that are not written out, and then
    /// [`Index::height`] is lower and the caller adds them again.
    pub fn add(&self, blocks: Vec<IndexedBlock>) -> Result<(), IndexError> {
        self.recent.write().unwrap_or_else(PoisonError::into_inner).add(blocks)
    }

    /// Whether enough has come together for [`Index::write_out`].
    pub fn is_due(&self) -> bool {
        self.recent().is_over(DUE_BLOCKS, DUE_TRANSACTIONS)
    }

    /// Whether so much has come together that nothing should be added before it is written out.
    pub fn is_overdue(&self) -> bool {
        self.recent().is_over(DUE_BLOCKS * OVERDUE, DUE_TRANSACTIONS * OVERDUE)
    }

    /// Whether anything is in memory only.
    pub fn has_unwritten(&self) -> bool {
        self.recent().is_over(1, 1)
    }

    /// Writes what is in memory to the file, at most [`APPLY_BLOCKS_MAX`] blocks, durably. Called by one thread at a
    /// time; neither queries nor [`Index::add`] wait for it.
    pub fn write_out(&self) -> Result<(), IndexError> {
        let blocks = self.recent().oldest(APPLY_BLOCKS_MAX);
        if let Some(last) = blocks.last().map(|block| block.height) {
            self.file.apply(&blocks)?;
            self.recent.write().unwrap_or_else(PoisonError::into_inner).forget_up_to(last);
        }
        Ok(())
    }

    fn recent(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    // Every query looks in memory first: what is written out in between is then in the file as well.

    /// Height of the last block that was added; `None` in an empty index.
    pub fn height(&self) -> Result<Option<u64>, IndexError> {
        Ok(self.recent().height())
    }

    /// The block at a height, without its transactions.
    pub fn block(&self, height: u64) -> Result<Option<IndexedBlock>, IndexError> {
        let recent = self.recent().block(height);
        recent.map_or_else(|| self.file.block(height), |block| Ok(Some(block)))
    }

    /// Blocks from height `first` to `last`, both included, without their transactions: at most `limit`, and at most
    /// [`PAGE_MAX`].
    pub fn blocks(&self, first: u64, last: u64, limit: usize) -> Result<Vec<IndexedBlock>, IndexError> {
        let limit = limit.min(PAGE_MAX);
        let (recent_first, recent) = {
            let recent = self.recent();
            (recent.first(), recent.blocks(first..=last, limit))
        };
        // In the file only below what is in memory: it may have been written out meanwhile.
        let last = recent_first.map_or(last, |above| last.min(above.saturating_sub(1)));
        let mut blocks = self.file.blocks(first, last, limit)?;
        blocks.extend(recent);
        blocks.truncate(limit);
        Ok(blocks)
    }

    /// Height of the block with this hash.
    pub fn block_height_by_hash(&self, hash: &[u8; 32]) -> Result<Option<u64>, IndexError> {
        let recent = self.recent().height_of(hash);
        recent.map_or_else(|| self.file.block_height_by_hash(hash), |height| Ok(Some(height)))
    }

    /// The transaction with this id.
    pub fn transaction(&self, id: &[u8; 32]) -> Result<Option<FoundTransaction>, IndexError> {
        let recent = self.recent().transaction(id);
        recent.map_or_else(|| self.file.transaction(id), |found| Ok(Some(found)))
    }

    /// Transactions of the block at `height`, from index `first` on: at most `limit`, and at most [`PAGE_MAX`].
    pub fn transactions_of_block(
        &self,
        height: u64,
        first: u32,
        limit: usize,
    ) -> Result<Vec<FoundTransaction>, IndexError> {
        let limit = limit.min(PAGE_MAX);
        let recent = self.recent().transactions_of_block(height, first, limit);
        recent.map_or_else(|| self.file.transactions_of_block(height, first, limit), Ok)
    }

    /// Places of the transactions that touched `account`, from place `first` to `last`, both included: at most `limit`,
    /// and at most [`PAGE_MAX`].
    pub fn history(
        &self,
        account: &[u8; 32],
        range: RangeInclusive<Place>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Place>, IndexError> {
        if range.start() > range.end() {
            return Ok(Vec::new());
        }
        let limit = limit.min(PAGE_MAX);
        let (recent_first, recent) = {
            let recent = self.recent();
            (recent.first(), recent.history(account, range.clone(), order, limit))
        };
        // In the file only below what is in memory: it may have been written out meanwhile.
        let older = |limit| match recent_first {
            Some(first) if range.start().height >= first => Ok(Vec::new()),
            Some(first) => {
                let last = Place { height: first.saturating_sub(1), index: u32::MAX }.min(*range.end());
                self.file.history(account, *range.start()..=last, order, limit)
            }
            None => self.file.history(account, range.clone(), order, limit),
        };
        let mut places = match order {
            Order::OldestFirst => [older(limit)?, recent].concat(),
            Order::NewestFirst => {
                let rest = limit.saturating_sub(recent.len());
                [recent, older(rest)?].concat()
            }
        };
        places.truncate(limit);
        Ok(places)
    }

    /// The transaction at a place that [`Index::history`] gave.
    pub fn transaction_at(&self, place: Place) -> Result<FoundTransaction, IndexError> {
        let recent = self.recent().transaction_at(place);
        recent.map_or_else(|| self.file.transaction_at(place), Ok)
    }

    /// Walks the whole file and checks every page's checksum; takes as long as reading it. For a node that was told
    /// to doubt its disk.
    pub fn verify(&mut self) -> Result<(), IndexError> {
        self.file.verify()
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Index")
    }
}
