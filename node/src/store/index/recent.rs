//! Blocks that are added to the index but not yet in its file, found by every key.
//!
//! Heights follow each other, and all lie above the file's: an answer is the file's and this one's, one after the other.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
};

use super::{FoundTransaction, IndexError, IndexedBlock, IndexedTransaction, Order, Place};

/// See the module. Bounded by its owner, through [`Recent::is_over`].
pub(super) struct Recent {
    blocks: VecDeque<Arc<IndexedBlock>>,
    hashes: HashMap<[u8; 32], u64>,
    ids: HashMap<[u8; 32], Place>,
    history: BTreeSet<([u8; 32], Place)>,
    /// Of the last block that was ever added, here or in the file.
    height: Option<u64>,
}

impl Recent {
    /// Nothing, above a file of this height.
    pub(super) fn after(height: Option<u64>) -> Recent {
        Recent {
            blocks: VecDeque::new(),
            hashes: HashMap::new(),
            ids: HashMap::new(),
            history: BTreeSet::new(),
            height,
        }
    }

    /// Adds all blocks, or none.
    pub(super) fn add(&mut self, blocks: Vec<IndexedBlock>) -> Result<(), IndexError> {
        let mut next = self.height.map(|height| height.saturating_add(1));
        for block in &blocks {
            if let Some(expected) = next.filter(|expected| *expected != block.height) {
                return Err(IndexError::OutOfOrder { expected, found: block.height });
            }
            next = Some(block.height.saturating_add(1));
        }
        for block in blocks {
            self.hashes.insert(block.hash, block.height);
            for (place, transaction) in block.placed() {
                self.ids.insert(transaction.id, place);
                self.history.extend(transaction.accounts.iter().map(|account| (*account, place)));
            }
            self.height = Some(block.height);
            self.blocks.push_back(Arc::new(block));
        }
        Ok(())
    }

    /// The oldest blocks, at most `limit`.
    pub(super) fn oldest(&self, limit: usize) -> Vec<Arc<IndexedBlock>> {
        self.blocks.iter().take(limit).cloned().collect()
    }

    /// Lets go of blocks up to this height.
    pub(super) fn forget_up_to(&mut self, height: u64) {
        while let Some(block) = self.blocks.pop_front_if(|block| block.height <= height) {
            self.hashes.remove(&block.hash);
            for (place, transaction) in block.placed() {
                self.ids.remove(&transaction.id);
                for account in &transaction.accounts {
                    self.history.remove(&(*account, place));
                }
            }
        }
    }

    /// Whether there are this many blocks, or this many transactions.
    pub(super) fn is_over(&self, blocks: usize, transactions: usize) -> bool {
        self.blocks.len() >= blocks || self.ids.len() >= transactions
    }

    /// Of the last block that was ever added.
    pub(super) fn height(&self) -> Option<u64> {
        self.height
    }

    /// Height of the oldest block here.
    pub(super) fn first(&self) -> Option<u64> {
        self.blocks.front().map(|block| block.height)
    }

    fn at(&self, height: u64) -> Option<&IndexedBlock> {
        let place = height.checked_sub(self.first()?)?;
        self.blocks.get(usize::try_from(place).ok()?).map(|block| &**block)
    }

    pub(super) fn block(&self, height: u64) -> Option<IndexedBlock> {
        self.at(height).map(bare)
    }

    pub(super) fn blocks(&self, range: RangeInclusive<u64>, limit: usize) -> Vec<IndexedBlock> {
        self.blocks.iter().filter(|block| range.contains(&block.height)).take(limit).map(|block| bare(block)).collect()
    }

    pub(super) fn height_of(&self, hash: &[u8; 32]) -> Option<u64> {
        self.hashes.get(hash).copied()
    }

    pub(super) fn transaction(&self, id: &[u8; 32]) -> Option<FoundTransaction> {
        self.transaction_at(*self.ids.get(id)?)
    }

    pub(super) fn transaction_at(&self, place: Place) -> Option<FoundTransaction> {
        let transactions = &self.at(place.height)?.transactions;
        transactions.get(usize::try_from(place.index).ok()?).map(|transaction| found(place, transaction))
    }

    /// `None`: the block is not here.
    pub(super) fn transactions_of_block(&self, height: u64, first: u32, limit: usize) -> Option<Vec<FoundTransaction>> {
        let from = self.at(height)?.placed().skip(usize::try_from(first).unwrap_or(usize::MAX));
        Some(from.take(limit).map(|(place, transaction)| found(place, transaction)).collect())
    }

    pub(super) fn history(
        &self,
        account: &[u8; 32],
        range: RangeInclusive<Place>,
        order: Order,
        limit: usize,
    ) -> Vec<Place> {
        let rows = self.history.range((*account, *range.start())..=(*account, *range.end())).map(|(_, place)| *place);
        match order {
            Order::OldestFirst => rows.take(limit).collect(),
            Order::NewestFirst => rows.rev().take(limit).collect(),
        }
    }
}

fn found(place: Place, transaction: &IndexedTransaction) -> FoundTransaction {
    let IndexedTransaction { id, receipt, bytes, .. } = transaction.clone();
    FoundTransaction { place, id, receipt, bytes }
}

/// Without its transactions.
fn bare(block: &IndexedBlock) -> IndexedBlock {
    IndexedBlock {
        height: block.height,
        hash: block.hash,
        header: block.header.clone(),
        commit: block.commit.clone(),
        transactions: Vec::new(),
        batches: block.batches.clone(),
    }
}
