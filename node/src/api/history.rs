//! Committed transactions in ledger order, all or an account's, a bounded piece at a time.

use tally_types::Address;

use super::{errors::Refusal, limits::BLOCKS_SCANNED_MAX, pages::Room};
use crate::store::index::{FoundTransaction, Index, IndexError, Order, Place};

/// What is looked for.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// Those that touch it; `None`: all.
    pub(super) account: Option<Address>,
    /// Lowest place.
    pub(super) first: Place,
    /// Highest place.
    pub(super) last: Place,
    /// Which end to start from.
    pub(super) order: Order,
}

/// A piece of it.
#[derive(Debug)]
pub(super) struct Piece {
    /// In the order asked for; may be empty although more follows.
    pub(super) transactions: Vec<FoundTransaction>,
    /// Where the next piece starts; `None`: this was the last.
    pub(super) next: Option<Place>,
}

/// Reads the first piece of `span`: at most `items`, and about as many bytes as a page may have.
pub(super) fn read(index: &Index, span: &Span, items: usize) -> Result<Piece, Refusal> {
    let mut piece = Piece { transactions: Vec::new(), next: None };
    let mut room = Room::for_items(items);
    if span.first > span.last {
        return Ok(piece);
    }
    piece.next = match (&span.account, span.order) {
        (Some(account), _) => of_account(index, account, span, items, |found| piece.add(found, &mut room)),
        (None, Order::OldestFirst) => oldest_first(index, span, items, |found| piece.add(found, &mut room)),
        (None, Order::NewestFirst) => newest_first(index, span, items, |found| piece.add(found, &mut room)),
    }?;
    Ok(piece)
}

impl Piece {
    /// False: it is full, and `found` is where the next one starts.
    fn add(&mut self, found: FoundTransaction, room: &mut Room) -> bool {
        // The message holds the body decoded, the bytes in a FULL view, ids and hashes as hex, and an address or two.
        let bytes = found.bytes.len().saturating_mul(2).saturating_add(400);
        let fits = room.take(bytes);
        if fits {
            self.transactions.push(found);
        }
        fits
    }
}

fn of_account(
    index: &Index,
    account: &Address,
    span: &Span,
    items: usize,
    mut add: impl FnMut(FoundTransaction) -> bool,
) -> Result<Option<Place>, IndexError> {
    // One more than asked for, to know whether there is a next page. The index returns no more than its own maximum, so
    // a full answer always has a place to go on from.
    let places = index.history(account.as_bytes(), span.first..=span.last, span.order, items.saturating_add(1))?;
    for (taken, place) in places.iter().enumerate() {
        if taken >= items || !add(index.transaction_at(*place)?) {
            return Ok(Some(*place));
        }
    }
    let is_cut = places.len() >= crate::store::index::PAGE_MAX;
    Ok(places.last().filter(|_| is_cut).and_then(|last| beyond(*last, span)))
}

fn oldest_first(
    index: &Index,
    span: &Span,
    items: usize,
    mut add: impl FnMut(FoundTransaction) -> bool,
) -> Result<Option<Place>, IndexError> {
    let mut place = span.first;
    for _ in 0..BLOCKS_SCANNED_MAX {
        loop {
            let found = index.transactions_of_block(place.height, place.index, items.saturating_add(1))?;
            let Some(last) = found.last().map(|last| last.place) else { break };
            for transaction in found {
                let at = transaction.place;
                if at > span.last {
                    return Ok(None);
                }
                if !add(transaction) {
                    return Ok(Some(at));
                }
            }
            place = Place { index: last.index.saturating_add(1), ..last };
        }
        if place.height >= span.last.height {
            return Ok(None);
        }
        place = Place { height: place.height.saturating_add(1), index: 0 };
    }
    Ok(Some(place))
}

fn newest_first(
    index: &Index,
    span: &Span,
    items: usize,
    mut add: impl FnMut(FoundTransaction) -> bool,
) -> Result<Option<Place>, IndexError> {
    let mut height = span.last.height;
    // A token that was made up can name an index far beyond the block.
    let mut below = count(index, height)?.min(span.last.index.saturating_add(1));
    for _ in 0..BLOCKS_SCANNED_MAX {
        while below > 0 {
            let step = u32::try_from(items.saturating_add(1)).unwrap_or(u32::MAX).min(below);
            let first = below.saturating_sub(step);
            let found = index.transactions_of_block(height, first, usize::try_from(step).unwrap_or(usize::MAX))?;
            for transaction in found.into_iter().rev() {
                let at = transaction.place;
                if at < span.first {
                    return Ok(None);
                }
                if !add(transaction) {
                    return Ok(Some(at));
                }
            }
            below = first;
        }
        if height <= span.first.height {
            return Ok(None);
        }
        height -= 1;
        below = count(index, height)?;
    }
    Ok(Some(Place { height, index: u32::MAX }))
}

/// How many transactions the block at `height` has: their indices follow each other from 0.
fn count(index: &Index, height: u64) -> Result<u32, IndexError> {
    let exists = |at: u32| Ok::<_, IndexError>(!index.transactions_of_block(height, at, 1)?.is_empty());
    if !exists(0)? {
        return Ok(0);
    }
    // The last one is at `low` or above it, and below `high`.
    let mut low = 0u32;
    let mut high = 1u32;
    while high < u32::MAX && exists(high)? {
        low = high;
        high = high.saturating_mul(2);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if exists(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low.saturating_add(1))
}

/// The place after `place` in the order of `span`, if the span has it.
fn beyond(place: Place, span: &Span) -> Option<Place> {
    match span.order {
        Order::OldestFirst => {
            let next = match place.index.checked_add(1) {
                Some(index) => Place { index, ..place },
                None => Place { height: place.height.checked_add(1)?, index: 0 },
            };
            (next <= span.last).then_some(next)
        }
        Order::NewestFirst => {
            let next = match place.index.checked_sub(1) {
                Some(index) => Place { index, ..place },
                None => Place { height: place.height.checked_sub(1)?, index: u32::MAX },
            };
            (next >= span.first).then_some(next)
        }
    }
}
