//! What a slow link of one validator costs the network: agreement's promise that payload is off the leader's path.
//!
//! All bytes between the first validator and the others pass through this process. The load runs twice on one network:
//! first over a link without a limit, with clients at every node, which measures what the first node uploads; then with a
//! tenth of that, and all clients at the other nodes. The first node goes on to lead its share of the views.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::Instant,
};

use super::{Options, load, network::Network, payments::Payments};
use crate::{cli::Failure, words::note};

/// The part of its upload that the first node keeps in the second run.
const PART: u64 = 10;
/// Bytes that pass at once: as a packet, so that votes take turns with batches as on a real link.
const PACKET_BYTES: usize = 1400;

/// What both runs came to.
#[derive(Debug)]
pub(super) struct Measured {
    /// What the first node uploaded without a limit, bytes per second.
    pub(super) upload: u64,
    pub(super) free: load::Measured,
    pub(super) throttled: load::Measured,
}

/// Runs the load twice.
pub(super) async fn run(options: &Options, network: &mut Network, payments: Payments) -> Result<Measured, Failure> {
    let link = network.link().ok_or("the network was started without a link")?;
    let (first, second) = payments.halves();
    let urls = network.urls();
    let (sent, start) = (link.sent(), Instant::now());
    let free = load::run(options, network, first, &urls).await?;
    let upload = (link.sent().saturating_sub(sent) as f64 / start.elapsed().as_secs_f64()) as u64;
    link.limit(upload / PART);
    note!("the first node uploaded {upload} bytes/s; now it has {} bytes/s, and no clients", upload / PART);
    let throttled = load::run(options, network, second, &urls[1..]).await?;
    Ok(Measured { upload, free, throttled })
}

/// The first node's upload, over as many connections as there are.
#[derive(Debug, Default)]
pub(super) struct Link {
    sent: AtomicU64,
    /// Bytes per second; 0: no limit.
    limit: AtomicU64,
    /// When the link is free again.
    free_at: Mutex<Option<Instant>>,
}

impl Link {
    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn limit(&self, bytes_per_second: u64) {
        self.limit.store(bytes_per_second.max(1), Ordering::Relaxed);
    }

    /// Waits for this many bytes' turn.
    async fn pass(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == 0 {
            return;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / limit as f64);
        let turn = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = free_at.map_or_else(Instant::now, |free_at| free_at.max(Instant::now())) + takes;
            *free_at = Some(turn);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

/// Which way is the first node's upload.
#[derive(Clone, Copy, Debug)]
pub(super) enum Upload {
    /// From whoever connects: the first node dials.
    Dialled,
    /// To whoever connects: the first node is dialled.
    Answered,
}

/// Passes connections on to `to`, the upload through `link`, until the returned tasks are dropped.
pub(super) async fn pass_on(
    to: SocketAddr,
    upload: Upload,
    link: &Arc<Link>,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((to.ip(), 0)).await?;
    let address = listener.local_addr()?;
    let link = link.clone();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        // A node that is not there yet is dialled again by whoever wanted it.
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(to).await else { continue };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let (there, back) = match upload {
                Upload::Dialled => (Some(link.clone()), None),
                Upload::Answered => (None, Some(link.clone())),
            };
            connections.spawn(copy(near_in, far_out, there));
            connections.spawn(copy(far_in, near_out, back));
        }
    });
    Ok(address)
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: Option<Arc<Link>>) {
    let mut packet = [0; PACKET_BYTES];
    // Either end hanging up ends the connection, as it would without this in between.
    while let Ok(length) = from.read(&mut packet).await
        && length > 0
    {
        if let Some(link) = &link {
            link.pass(length).await;
        }
        if to.write_all(&packet[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
