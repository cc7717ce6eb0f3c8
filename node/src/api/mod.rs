//! What clients speak to: `tally.v1`, reflection and health, on one port.
//!
//! Guaranteed: every answer comes from a snapshot and waits neither for execution nor for agreement; every refusal
//! carries a reason of `tally.v1.ErrorReason` ([`errors`]); every page, stream, wait and connection has a bound
//! ([`limits::Limits`]); nothing a client sends panics a node or reaches it unchecked.
//!
//! Deliberately unknown here: how a block comes to be. The API reads [`Shared`], and writes nothing but
//! [`crate::admission::Admission`]. `node::run` calls [`serve`].
//!
//! One file per service; what they share: [`render`] turns what is stored into messages, [`history`] finds
//! transactions, [`pages`] cuts lists, [`streams`] follows the chain, [`snapshots`] keeps the state of a listing. Every call is
//! bound in time and memory by [`crate::calls`].

mod accounts;
mod blocks;
mod chain;
pub(crate) mod errors;
mod health;
mod history;
mod limits;
mod node;
mod pages;
mod render;
mod server;
mod simulate;
mod snapshots;
mod streams;
mod submit;
#[cfg(test)]
mod tests;
mod transactions;
mod transport;
mod validators;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tally_proto::v1::ErrorReason;
use tally_types::{Address, UnixMillis};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use self::{errors::Refusal, snapshots::Snapshots};
use crate::{
    context::{Latest, Shared, Standing},
    store::index::Index,
};

pub use self::{
    limits::Limits,
    server::{serve, serve_with},
};

/// All services of `tally.v1`. A clone is a handle.
#[derive(Clone, Debug)]
struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    limits: Limits,
    /// Turns true, or loses its sender, when streams and waits have to end.
    closing: watch::Receiver<bool>,
    streams: Arc<Semaphore>,
    waits: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    snapshots: Snapshots,
}

impl Api {
    fn new(shared: Arc<Shared>, limits: Limits, closing: watch::Receiver<bool>) -> Api {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Api(Arc::new(Inner {
            closing,
            streams: semaphore(limits.streams_max),
            waits: semaphore(limits.waits_max),
            reads: semaphore(limits.reads_max),
            snapshots: Snapshots::new(limits.snapshots_max, limits.snapshot_kept),
            limits,
            shared,
        }))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn latest(&self) -> Arc<Latest> {
        self.0.shared.latest.borrow().clone()
    }

    fn standing(&self) -> Arc<Standing> {
        self.0.shared.standing.borrow().clone()
    }

    fn is_closing(&self) -> bool {
        *self.0.closing.borrow() || self.0.closing.has_changed().is_err()
    }

    /// Resolves when streams and waits have to end.
    async fn closed(&self) {
        let mut closing = self.0.closing.clone();
        // An error means that the server is gone, which is as good as closing.
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// A place among the calls that wait.
    fn wait_permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        permit(&self.0.waits, self.0.limits.waits_max)
    }

    /// A place among the streams.
    fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        permit(&self.0.streams, self.0.limits.streams_max)
    }

    /// Reads the index where it may block; at most [`Limits::reads_max`] at a time, the others wait their turn.
    async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Index) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = self.0.reads.clone().acquire_owned().await;
        let shared = self.shared().clone();
        let reading = tokio::task::spawn_blocking(move || {
            let answer = act(&shared.index);
            drop(permit);
            answer
        });
        reading.await.map_err(|error| Refusal::internal("a read of the index did not end", &error))?
    }
}

fn permit(semaphore: &Arc<Semaphore>, maximum: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    semaphore.clone().try_acquire_owned().map_err(|_| {
        let message = "this node has as many of these calls open as it takes; close some, or try another node";
        Refusal::new(ErrorReason::TooManyStreams, message).with("maximum", maximum)
    })
}

/// The local clock.
fn local_time() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The address that `text` of request field `field` is.
fn address_in(field: &'static str, text: &str) -> Result<Address, Refusal> {
    text.parse().map_err(|error| errors::address(field, &error))
}
