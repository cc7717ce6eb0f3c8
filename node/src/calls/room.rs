//! Room for bytes that are on their way, over all connections, because memory is one. Above the bound **the oldest goes**, not the
//! newest: who is slow holds bytes only while nobody else needs them, and what moves at the pace of a network is never the oldest for
//! long. Validators are told apart by their keys, and only who holds at least an equal part loses any: however many of them fill the
//! room, that much is left to each. Clients cannot be told apart, and count as one.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tally_types::Address;

/// Whose bytes they are; none: a client's.
pub(super) type Owner = Option<Address>;

/// `T` is what tells a holder, or its connection, that it lost its place.
#[derive(Debug)]
pub(super) struct Room<T> {
    bytes_max: usize,
    held: Mutex<Held<T>>,
}

/// A place in the room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    owner: Owner,
    /// A smaller one came earlier.
    id: u64,
}

#[derive(Debug)]
struct Held<T> {
    bytes: usize,
    next_id: u64,
    owners: BTreeMap<Owner, Share<T>>,
}

/// What one owner holds, by age.
#[derive(Debug)]
struct Share<T> {
    bytes: usize,
    holdings: BTreeMap<u64, Holding<T>>,
}

#[derive(Debug)]
struct Holding<T> {
    bytes: usize,
    holder: T,
}

impl<T> Room<T> {
    pub(super) fn new(bytes_max: usize) -> Room<T> {
        Room { bytes_max, held: Mutex::new(Held { bytes: 0, next_id: 0, owners: BTreeMap::new() }) }
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn held(&self) -> MutexGuard<'_, Held<T>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more, which holds nothing yet.
    pub(super) fn enter(&self, owner: Owner, holder: T) -> Place {
        let mut held = self.held();
        let id = held.next_id;
        held.next_id += 1;
        let share = held.owners.entry(owner).or_insert_with(|| Share { bytes: 0, holdings: BTreeMap::new() });
        share.holdings.insert(id, Holding { bytes: 0, holder });
        Place { owner, id }
    }

    /// Counts `bytes` for a place, and takes it if it alone is beyond the bound, or else the oldest places of those who hold an equal
    /// part or more, until all that stay are within it. Who lost a place is returned.
    pub(super) fn hold(&self, place: Place, bytes: usize) -> Vec<T> {
        let held = &mut *self.held();
        let Some(share) = held.owners.get_mut(&place.owner) else { return Vec::new() };
        let Some(holding) = share.holdings.get_mut(&place.id) else { return Vec::new() };
        holding.bytes = holding.bytes.saturating_add(bytes);
        share.bytes = share.bytes.saturating_add(bytes);
        held.bytes = held.bytes.saturating_add(bytes);
        let is_too_much = holding.bytes > self.bytes_max;
        let mut lost: Vec<T> = is_too_much.then(|| held.remove(place)).flatten().into_iter().collect();
        while held.bytes > self.bytes_max
            && let Some(oldest) = held.oldest_of_the_large()
        {
            lost.extend(held.remove(oldest));
        }
        lost
    }

    pub(super) fn leave(&self, place: Place) {
        self.held().remove(place);
    }

    /// Bytes and places.
    #[cfg(test)]
    pub(super) fn held_now(&self) -> (usize, usize) {
        let held = self.held();
        (held.bytes, held.owners.values().map(|share| share.holdings.len()).sum())
    }
}

impl<T> Held<T> {
    fn oldest_of_the_large(&self) -> Option<Place> {
        let large = |(_, share): &(&Owner, &Share<T>)| share.bytes.saturating_mul(self.owners.len()) >= self.bytes;
        let oldest = |(owner, share): (&Owner, &Share<T>)| {
            let (id, _) = share.holdings.first_key_value()?;
            Some(Place { owner: *owner, id: *id })
        };
        self.owners.iter().filter(large).filter_map(oldest).min_by_key(|place| place.id)
    }

    fn remove(&mut self, place: Place) -> Option<T> {
        let share = self.owners.get_mut(&place.owner)?;
        let gone = share.holdings.remove(&place.id)?;
        share.bytes = share.bytes.saturating_sub(gone.bytes);
        self.bytes = self.bytes.saturating_sub(gone.bytes);
        if share.holdings.is_empty() {
            self.owners.remove(&place.owner);
        }
        Some(gone.holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_of_those_who_hold_an_equal_part_or_more() {
        let room = Room::new(100);
        let enter = |owner: u8, bytes: usize| room.hold(room.enter(Some(Address([owner; 32])), owner), bytes);
        let slow = room.enter(Some(Address([1; 32])), 1);
        assert!(room.hold(slow, 30).is_empty());
        // Two that fill the room lose what they hold, one after the other, and never the slow one its part.
        for round in 0..10 {
            for owner in [2, 3] {
                let expected: &[u8] = if round == 0 { &[] } else { &[owner] };
                assert_eq!(enter(owner, 35), expected, "round {round}");
            }
        }
        assert_eq!(room.held_now(), (100, 3));
        // With more, somebody must go, and of equal parts the oldest.
        assert_eq!(enter(4, 35), [2]);
        room.leave(slow);
        assert_eq!(room.held_now(), (70, 2));
        assert!(enter(4, 30).is_empty());
        // Both others hold more than a third by now.
        assert_eq!(enter(5, 1), [3]);
        // Beyond the bound alone.
        assert_eq!(enter(6, 101), [6]);
        assert_eq!(room.held_now(), (66, 3));
    }
}
