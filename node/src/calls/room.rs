//! Room for bytes that are on their way, over all connections, because memory is one. Above the bound **the oldest goes**, not
//! the newest: who is slow holds bytes only while nobody else needs them, and what moves at the pace of a network is never the
//! oldest for long.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// `T` is what tells a holder, or its connection, that it lost its place.
#[derive(Debug)]
pub(super) struct Room<T> {
    bytes_max: usize,
    held: Mutex<Held<T>>,
}

#[derive(Debug)]
struct Held<T> {
    bytes: usize,
    next_id: u64,
    /// By age: a smaller id came earlier.
    holdings: BTreeMap<u64, Holding<T>>,
}

#[derive(Debug)]
struct Holding<T> {
    bytes: usize,
    holder: T,
}

impl<T> Room<T> {
    pub(super) fn new(bytes_max: usize) -> Room<T> {
        Room { bytes_max, held: Mutex::new(Held { bytes: 0, next_id: 0, holdings: BTreeMap::new() }) }
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn held(&self) -> MutexGuard<'_, Held<T>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more, which holds nothing yet.
    pub(super) fn enter(&self, holder: T) -> u64 {
        let mut held = self.held();
        let id = held.next_id;
        held.next_id += 1;
        held.holdings.insert(id, Holding { bytes: 0, holder });
        id
    }

    /// Counts `bytes` for place `id`, and takes that place if it alone is beyond the bound, or else the places of the oldest
    /// until all that stay are within it. Who lost a place is returned.
    pub(super) fn hold(&self, id: u64, bytes: usize) -> Vec<T> {
        let held = &mut *self.held();
        let Some(holding) = held.holdings.get_mut(&id) else { return Vec::new() };
        holding.bytes = holding.bytes.saturating_add(bytes);
        held.bytes = held.bytes.saturating_add(bytes);
        let is_too_much = holding.bytes > self.bytes_max;
        let mut lost: Vec<T> = is_too_much.then(|| held.remove(id)).flatten().into_iter().collect();
        while held.bytes > self.bytes_max
            && let Some((_, oldest)) = held.holdings.pop_first()
        {
            held.bytes = held.bytes.saturating_sub(oldest.bytes);
            lost.push(oldest.holder);
        }
        lost
    }

    pub(super) fn leave(&self, id: u64) {
        self.held().remove(id);
    }

    /// Bytes and places.
    #[cfg(test)]
    pub(super) fn held_now(&self) -> (usize, usize) {
        let held = self.held();
        (held.bytes, held.holdings.len())
    }
}

impl<T> Held<T> {
    fn remove(&mut self, id: u64) -> Option<T> {
        let gone = self.holdings.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(gone.bytes);
        Some(gone.holder)
    }
}
