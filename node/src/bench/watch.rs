//! Watching blocks: when was which payment final, as clients of its node see it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tally_proto::v1::{self, block_service_client::BlockServiceClient};
use tally_types::Hash;
use tonic::transport::{Channel, Endpoint};

use super::payments::{Payments, account_of};
use crate::{cli::Failure, words::note};

/// Most bytes of a block with its ids: what a node sends at most.
const BLOCK_BYTES_MAX: usize = 33 * 1024 * 1024;
/// How often a stream is taken up again before the run fails.
const RESUMPTIONS_MAX: u32 = 20;
/// Pause before that.
const RESUMPTION_PAUSE: Duration = Duration::from_millis(200);

/// When each payment was seen in a block. Times count from when this was made.
pub(super) struct Sightings {
    start: Instant,
    places: std::collections::HashMap<Hash, usize>,
    accounts: usize,
    nodes: usize,
    /// Microseconds, by place of the payment; 0: not seen.
    seen_us: Vec<AtomicU64>,
    seen: AtomicU64,
    /// Blocks that the first node showed.
    blocks: Mutex<Vec<Seen>>,
}

/// A block that was seen.
struct Seen {
    at: Duration,
    /// How many of the payments it holds.
    payments: usize,
    epoch: u64,
    view: u64,
}

/// Blocks of a stretch of time.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// How many.
    pub(super) count: usize,
    /// How many of the payments they hold.
    pub(super) payments: usize,
    /// Views between them that led to no block: their leaders were not heard in time.
    pub(super) views_lost: u64,
}

impl Sightings {
    /// Nothing seen yet. Takes the places out of `payments`.
    pub(super) fn new(payments: &mut Payments, nodes: usize) -> Sightings {
        let places = std::mem::take(&mut payments.places);
        let seen_us = places.iter().map(|_| AtomicU64::new(0)).collect();
        Sightings {
            start: Instant::now(),
            places,
            accounts: payments.accounts,
            nodes,
            seen_us,
            seen: AtomicU64::new(0),
            blocks: Mutex::default(),
        }
    }

    /// Time since the start.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The moment at `time` after the start.
    pub(super) fn at(&self, time: Duration) -> Instant {
        self.start + time
    }

    /// The node that a payment goes to.
    pub(super) fn node_of(&self, place: usize) -> usize {
        account_of(place, self.accounts) % self.nodes
    }

    /// When a payment was seen in a block of its node.
    pub(super) fn seen(&self, place: usize) -> Option<Duration> {
        let seen = self.seen_us.get(place)?.load(Ordering::Acquire);
        (seen > 0).then(|| Duration::from_micros(seen))
    }

    /// How many were seen.
    pub(super) fn count(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Blocks seen in `from..to`.
    pub(super) fn blocks_within(&self, from: Duration, to: Duration) -> Blocks {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Blocks::default();
        let mut last: Option<&Seen> = None;
        for block in blocks.iter().filter(|block| (from..to).contains(&block.at)) {
            // Views count from 1 in every epoch.
            let expected = match last {
                Some(last) if last.epoch == block.epoch => last.view + 1,
                Some(_) => 1,
                None => block.view,
            };
            found.count += 1;
            found.payments += block.payments;
            found.views_lost += block.view.saturating_sub(expected);
            last = Some(block);
        }
        found
    }

    fn take(&self, node: usize, block: &v1::Block) {
        let now = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX).max(1);
        let mut held = 0;
        for id in &block.tx_ids {
            let Some(place) = Hash::from_hex(id).and_then(|id| self.places.get(&id).copied()) else { continue };
            held += 1;
            if self.node_of(place) != node {
                continue;
            }
            let first = self.seen_us[place].compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed);
            if first.is_ok() {
                self.seen.fetch_add(1, Ordering::Relaxed);
            }
        }
        if node == 0 {
            let (epoch, view) = block.header.as_ref().map_or((0, 0), |header| (header.epoch, header.view));
            let seen = Seen { at: Duration::from_micros(now), payments: held, epoch, view };
            self.blocks.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        }
    }
}

/// The block stream of one node.
pub(super) struct Watch {
    node: usize,
    client: BlockServiceClient<Channel>,
    stream: tonic::Streaming<v1::StreamBlocksResponse>,
    next_height: u64,
}

impl Watch {
    /// Opens the stream of node `node`, from the first block on.
    pub(super) async fn open(node: usize, url: &str) -> Result<Watch, Failure> {
        let channel = Endpoint::from_shared(url.to_owned())?.connect().await?;
        let mut client = BlockServiceClient::new(channel).max_decoding_message_size(BLOCK_BYTES_MAX);
        let stream = open(&mut client, 1).await?;
        Ok(Watch { node, client, stream, next_height: 1 })
    }

    /// Follows the stream; resumes where it was when it breaks off. Ends only by failing too often.
    pub(super) async fn follow(mut self, sightings: &Sightings) -> Failure {
        let mut broken = String::new();
        for _ in 0..RESUMPTIONS_MAX {
            broken = match self.read(sightings).await {
                Ok(()) => "the stream ended".into(),
                Err(status) => status.message().to_owned(),
            };
            note!("node {}: the stream of blocks broke off ({broken}), resuming", self.node + 1);
            tokio::time::sleep(RESUMPTION_PAUSE).await;
            if let Ok(stream) = open(&mut self.client, self.next_height).await {
                self.stream = stream;
            }
        }
        format!("the blocks of node {} cannot be followed: {broken}", self.node + 1).into()
    }

    async fn read(&mut self, sightings: &Sightings) -> Result<(), tonic::Status> {
        while let Some(message) = self.stream.message().await? {
            self.next_height = message.height + 1;
            if let Some(block) = &message.block {
                sightings.take(self.node, block);
            }
        }
        Ok(())
    }
}

async fn open(
    client: &mut BlockServiceClient<Channel>,
    from_height: u64,
) -> Result<tonic::Streaming<v1::StreamBlocksResponse>, tonic::Status> {
    let request = v1::StreamBlocksRequest { from_height, view: v1::BlockView::Basic.into() };
    Ok(client.stream_blocks(request).await?.into_inner())
}
