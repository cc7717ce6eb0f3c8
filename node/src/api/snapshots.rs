//! States kept while somebody lists accounts, so that every page of a listing reads one height.
//!
//! A state costs what later blocks changed. Listings that start within a few seconds share one: so many listings at once
//! do not push each other out before their time.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tally_types::Height;

use crate::context::Latest;

/// States of recent listings, the one used last at the back.
#[derive(Debug)]
pub(super) struct Snapshots {
    kept: Mutex<VecDeque<Kept>>,
    count_max: usize,
    kept_for: Duration,
}

#[derive(Debug)]
struct Kept {
    latest: Arc<Latest>,
    since: Instant,
    used: Instant,
}

impl Snapshots {
    /// At most `count_max`, each for `kept_for` after its last use.
    pub(super) fn new(count_max: usize, kept_for: Duration) -> Snapshots {
        Snapshots { kept: Mutex::default(), count_max, kept_for }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state for a listing that starts `now` and does not fit on one page: `latest`, or one a little older.
    pub(super) fn start(&self, latest: &Arc<Latest>, now: Instant) -> Arc<Latest> {
        // So many of these spans make up the time a state is kept, that those in it never push out one still in it.
        let share = self.kept_for / u32::try_from(self.count_max.saturating_sub(1).max(1)).unwrap_or(u32::MAX);
        let mut kept = self.lock();
        if let Some(recent) = kept.iter_mut().find(|kept| now.saturating_duration_since(kept.since) < share) {
            recent.used = now;
            return recent.latest.clone();
        }
        kept.push_back(Kept { latest: latest.clone(), since: now, used: now });
        while kept.len() > self.count_max {
            let oldest = (0..kept.len()).min_by_key(|place| kept.get(*place).map(|kept| kept.used));
            oldest.and_then(|place| kept.remove(place));
        }
        latest.clone()
    }

    /// The state at `height`, for the next page of a listing.
    pub(super) fn at(&self, height: Height, now: Instant) -> Option<Arc<Latest>> {
        let mut all = self.lock();
        let found = all.iter_mut().find(|kept| kept.latest.height == height)?;
        if now.saturating_duration_since(found.used) > self.kept_for {
            return None;
        }
        found.used = now;
        Some(found.latest.clone())
    }

    /// Lets go of what nobody used for too long.
    pub(super) fn expire(&self, now: Instant) {
        self.lock().retain(|kept| now.saturating_duration_since(kept.used) <= self.kept_for);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
