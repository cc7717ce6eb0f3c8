//! Streams that follow the chain: replay from a height out of the index, then one read per new block, so there is no seam
//! between the two and nothing is missed or repeated.
//!
//! Each stream has a task that reads and a reader that takes; one message waits between them. A reader that leaves it
//! there for too long loses the stream, not the chain: the error names the height to resume from. A reader that is merely
//! slower than the chain falls behind into the replay and costs nothing.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tally_proto::v1::ErrorReason;
use tally_types::Genesis;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};
use tokio_stream::Stream;
use tonic::Status;

use super::{Api, errors::Refusal};
use crate::store::index::Index;

/// Messages between a stream's task and its reader.
const MESSAGES_WAITING_MAX: usize = 1;

/// What a stream tells, and how far it has read.
pub(super) trait Feed: Send + 'static {
    /// What it sends.
    type Message: Send + 'static;

    /// Reads on, up to block `tip`; a bounded piece.
    fn read(&mut self, index: &Index, genesis: &Genesis, tip: u64) -> Result<Piece<Self::Message>, Refusal>;

    /// The message that says nothing but how far it is.
    fn heartbeat(height: u64) -> Self::Message;
}

/// What a feed read.
#[derive(Debug)]
pub(super) struct Piece<M> {
    /// Messages, each with the height up to which everything is told once it is delivered.
    pub(super) messages: Vec<(u64, M)>,
    /// The height up to which everything is told after all of them.
    pub(super) through: u64,
}

/// The reader's end.
#[derive(Debug)]
pub(super) struct Delivery<M> {
    messages: mpsc::Receiver<M>,
    /// Why it ends; after the last message.
    end: Option<oneshot::Receiver<Status>>,
    _permit: OwnedSemaphorePermit,
}

impl<M> Delivery<M> {
    /// Whether nothing more will be put in.
    #[cfg(test)]
    pub(super) fn is_ended(&self) -> bool {
        self.messages.is_closed()
    }
}

impl<M> Stream for Delivery<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(message) = ready!(self.messages.poll_recv(context)) {
            return Poll::Ready(Some(Ok(message)));
        }
        let Some(end) = self.end.as_mut() else { return Poll::Ready(None) };
        let end = ready!(Pin::new(end).poll(context));
        self.end = None;
        // Without a word the task panicked: a bug of ours, which must not look like the end of the chain.
        Poll::Ready(Some(Err(end.unwrap_or_else(|error| Refusal::internal("a stream's task is gone", &error).into()))))
    }
}

impl Api {
    /// Lets `feed` tell what follows height `from` - 1.
    pub(super) fn follow<F: Feed>(&self, feed: F, from: u64) -> Result<Delivery<F::Message>, Refusal> {
        let permit = self.stream_permit()?;
        let (sender, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
        let (ended, end) = oneshot::channel();
        let task = Task { api: self.clone(), sender, through: from.saturating_sub(1), last_sent: Instant::now() };
        // It ends with its reader, at the latest at the next heartbeat.
        tokio::spawn(async move {
            if let Err(Some(refusal)) = task.run(feed).await {
                let _ = ended.send(refusal.into());
            }
        });
        Ok(Delivery { messages, end: Some(end), _permit: permit })
    }

    /// The first height of a stream that was asked to start at `asked`; 0: the next block.
    pub(super) async fn first_height(&self, asked: u64) -> Result<u64, Refusal> {
        if asked == 0 {
            return Ok(self.latest().height.next().0);
        }
        let earliest = self.earliest_height().await?;
        if asked < earliest { Err(pruned(asked, earliest)) } else { Ok(asked) }
    }
}

/// A height below what this node holds.
pub(super) fn pruned(height: u64, earliest: u64) -> Refusal {
    let message = format!("this node holds blocks from {earliest} on, not {height}; ask another");
    Refusal::new(ErrorReason::Pruned, message).with("earliest_height", earliest)
}

/// The reading end.
struct Task<M> {
    api: Api,
    sender: mpsc::Sender<M>,
    /// Everything up to here is told.
    through: u64,
    last_sent: Instant,
}

/// Why a stream ends; `None`: its reader went away.
type End = Option<Refusal>;

impl<M: Send + 'static> Task<M> {
    async fn run<F: Feed<Message = M>>(mut self, mut feed: F) -> Result<(), End> {
        let mut states = self.api.shared().latest.clone();
        loop {
            let tip = states.borrow_and_update().height.0;
            while self.through < tip {
                let genesis = self.api.shared().genesis.clone();
                let reading = self.api.read(move |index| {
                    let piece = feed.read(index, &genesis, tip)?;
                    Ok((feed, piece))
                });
                let (read, piece) = reading.await?;
                feed = read;
                for (through, message) in piece.messages {
                    self.send(through, message).await?;
                }
                self.through = self.through.max(piece.through);
                if self.last_sent.elapsed() >= self.api.limits().heartbeat {
                    self.send(self.through, F::heartbeat(self.through)).await?;
                }
            }
            tokio::select! {
                changed = states.changed() => changed.map_err(|_| Some(stopping()))?,
                () = tokio::time::sleep_until(self.last_sent + self.api.limits().heartbeat) => {
                    self.send(self.through, F::heartbeat(self.through)).await?;
                }
                () = self.sender.closed() => return Err(None),
                () = self.api.closed() => return Err(Some(stopping())),
            }
        }
    }

    async fn send(&mut self, through: u64, message: M) -> Result<(), End> {
        let slow_reader = self.api.limits().slow_reader;
        let sent = tokio::select! {
            sent = self.sender.send_timeout(message, slow_reader) => sent,
            () = self.api.closed() => return Err(Some(stopping())),
        };
        match sent {
            Ok(()) => {}
            Err(mpsc::error::SendTimeoutError::Closed(_)) => return Err(None),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Err(Some(self.slow())),
        }
        self.through = self.through.max(through);
        self.last_sent = Instant::now();
        Ok(())
    }

    fn slow(&self) -> Refusal {
        let next = self.through.saturating_add(1);
        let waited = self.api.limits().slow_reader.as_secs_f32();
        let message = format!("a message was not taken for {waited} s; resume from height {next}");
        Refusal::new(ErrorReason::SlowConsumer, message).with("next_height", next)
    }
}

fn stopping() -> Refusal {
    Refusal::new(ErrorReason::NotAccepting, "this node is shutting down; resume from another")
}
