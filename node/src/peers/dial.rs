//! Streams out: one task per peer and class keeps a call open and feeds it from the queue.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tally_consensus::{Event, Message};
use tally_proto::consensus::{self as proto, consensus_service_client::ConsensusServiceClient};
use tally_types::Address;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Error};

use super::{Input, MESSAGE_BYTES_MAX, Peers, Queued, Queues};

/// First wait before a peer is dialled again; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long a peer may take to accept a connection, and to answer the greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection without a sign of life for this long is given up.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// What waited longer than this for its stream says nothing of now: the machine sends again what still matters. A validator that
/// lost its journal must not take an old HAVE for a new one.
const STALE: Duration = Duration::from_secs(5);
/// Messages handed to the connection ahead of what it has taken.
const AHEAD: usize = 4;

/// A connection to `text`, with the limits every connection between validators has.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(text.to_owned())?
        .connect_timeout(GREETING_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024))
}

/// Starts the tasks that keep the streams to one peer open. They end when the node stops.
pub fn dial(peers: &Arc<Peers>, queues: Queues, tasks: &mut JoinSet<()>) {
    tasks.spawn(keep_open(peers.clone(), queues.peer, queues.control, true));
    tasks.spawn(keep_open(peers.clone(), queues.peer, queues.bulk, false));
}

async fn keep_open(peers: Arc<Peers>, peer: Address, mut queue: mpsc::Receiver<Queued>, control: bool) {
    let mut backoff = BACKOFF_MIN;
    let mut stopping = peers.stopping.clone();
    loop {
        let done = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            done = run(&peers, peer, &mut queue, control) => done,
        };
        let Some(outbound) = peers.outbound.get(&peer) else { return };
        if control {
            outbound.connected.store(false, Ordering::Relaxed);
        }
        match done {
            // It was up: dial again at once, then slower.
            Ok(()) => backoff = BACKOFF_MIN,
            Err(error) => tracing::debug!(%peer, %error, "peer not reached"),
        }
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(backoff) => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// One connection, until it ends.
async fn run(
    peers: &Arc<Peers>,
    peer: Address,
    queue: &mut mpsc::Receiver<Queued>,
    control: bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(outbound) = peers.outbound.get(&peer) else { return Ok(()) };
    let channel = timeout(GREETING_TIMEOUT, endpoint(&outbound.endpoint)?.connect()).await??;
    let mut client = ConsensusServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let (sender, receiver) = mpsc::channel(AHEAD);
    let wrapped = |message| proto::ExchangeRequest { message: Some(message) };
    sender.try_send(wrapped(peers.hello(&peer)))?;
    let mut answer = timeout(GREETING_TIMEOUT, client.exchange(ReceiverStream::new(receiver))).await??.into_inner();
    if control {
        outbound.connected.store(true, Ordering::Relaxed);
        tracing::info!(%peer, "connected");
        // What was missed is caught up by the machine.
        let _ = peers.control.send(Input::Event(Event::Connected(peer))).await;
    }
    loop {
        tokio::select! {
            ended = answer.message() => {
                if let Err(status) = ended {
                    tracing::debug!(%peer, %status, "peer hung up");
                }
                return Ok(());
            }
            next = next_to_send(queue, control) => {
                let Some(message) = next else { return Ok(()) };
                tokio::select! {
                    _ = answer.message() => return Ok(()),
                    sent = sender.send(wrapped(peers.wrap(&peer, &message))) => if sent.is_err() { return Ok(()) },
                }
            }
        }
    }
}

/// The next message that is worth sending; none: the node stops.
async fn next_to_send(queue: &mut mpsc::Receiver<Queued>, control: bool) -> Option<Message> {
    loop {
        let Queued { since, message } = queue.recv().await?;
        if !control || since.elapsed() <= STALE {
            return Some(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tally_types::{Epoch, Hash, Signature, View, Vote, VoteKind};

    use super::*;

    #[tokio::test]
    async fn votes_and_announcements_that_waited_too_long_are_not_sent_and_batches_are() {
        for (control, sent) in [(true, vec![2]), (false, vec![1, 2])] {
            let (sender, mut queue) = mpsc::channel(2);
            let now = Instant::now();
            for (since, signer) in [(now.checked_sub(2 * STALE).unwrap(), 1), (now, 2)] {
                let vote = Vote {
                    kind: VoteKind::Prepare,
                    epoch: Epoch(0),
                    view: View(1),
                    block: Hash::ZERO,
                    signer,
                    signature: Signature([0; 64]),
                };
                sender.try_send(Queued { since, message: Message::Vote(vote) }).unwrap();
            }
            drop(sender);
            for signer in sent {
                let next = next_to_send(&mut queue, control).await;
                assert!(matches!(next, Some(Message::Vote(vote)) if vote.signer == signer));
            }
            assert!(next_to_send(&mut queue, control).await.is_none());
        }
    }
}
