//! An answer, or a stream of them, on its way out.
//!
//! HTTP/2 lets a client stop an answer by closing its window, with the connection alive: nothing on the way then times out, and
//! what the answer holds is held for as long as the client likes. So the connection is closed where an answer lies untaken, and
//! where the answers of all connections come to more than there is room for, the oldest ([`super::room`]).
//!
//! Whatever is handed over lies in the connection until it is written: behind a window that the client keeps closed, or a line that
//! is slow. So an answer is handed over in pieces, which count until they are gone; but for the last of each message, which is
//! small.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tonic::{Status, body::Body, codegen::http::HeaderMap};

use super::{
    KeptWhileLeaving, late,
    room::{Owner, Place, Room},
};
use crate::incoming::ConnectionHandle;

/// Bytes handed over at a time: one frame of HTTP/2.
const PIECE_BYTES: usize = 16 * 1024;
/// Bytes of the last piece of a message, which nobody watches any more.
const LAST_PIECE_BYTES: usize = 1024;

/// Where an answer leaves.
#[derive(Debug)]
pub(super) struct Line {
    pub connection: ConnectionHandle,
    pub untaken: Duration,
    pub room: Arc<Room<ConnectionHandle>>,
    pub owner: Owner,
}

/// See the module.
pub(super) struct Leaving {
    body: Body,
    /// What has not been handed over of the last message.
    rest: Option<Rest>,
    deadline: Option<Pin<Box<Sleep>>>,
    is_over: bool,
    call: Arc<Call>,
}

/// A call, until nothing of its answer is here any more.
struct Call {
    progress: Mutex<Progress>,
    line: Option<Line>,
    /// Its end tells the watch that nothing lies here any more.
    _watched: oneshot::Sender<()>,
    _kept: Option<KeptWhileLeaving>,
}

struct Progress {
    /// When the connection last asked for more, or had written something.
    moved: Instant,
    /// Whether this node is the one that has nothing to say.
    has_nothing: bool,
    /// Pieces that are handed over and not written yet.
    pieces: usize,
}

/// A message that is being handed over, or lies in the connection.
struct Message {
    call: Arc<Call>,
    /// Where its bytes count.
    place: Option<Place>,
}

struct Rest {
    bytes: Bytes,
    message: Arc<Message>,
}

/// Part of a message, until it is written.
struct Piece {
    bytes: Bytes,
    message: Arc<Message>,
}

impl Call {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Message {
    fn new(call: &Arc<Call>, bytes: usize) -> Message {
        let line = call.line.as_ref().filter(|_| bytes > LAST_PIECE_BYTES);
        let place = line.map(|line| {
            let place = line.room.enter(line.owner, line.connection.clone());
            for displaced in line.room.hold(place, bytes) {
                displaced.hang_up();
            }
            place
        });
        Message { call: call.clone(), place }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let (Some(line), Some(place)) = (&self.call.line, self.place) {
            line.room.leave(place);
        }
    }
}

impl Piece {
    fn handed_over(bytes: Bytes, message: Arc<Message>) -> Bytes {
        message.call.progress().pieces += 1;
        Bytes::from_owner(Piece { bytes, message })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut progress = self.message.call.progress();
        progress.pieces = progress.pieces.saturating_sub(1);
        progress.moved = Instant::now();
    }
}

impl Leaving {
    pub(super) fn new(
        body: Body,
        deadline: Option<Instant>,
        line: Option<Line>,
        kept: Option<KeptWhileLeaving>,
    ) -> Leaving {
        let progress = Mutex::new(Progress { moved: Instant::now(), has_nothing: false, pieces: 0 });
        let (watched, gone) = oneshot::channel();
        let watching = line.as_ref().map(|line| (line.untaken, line.connection.clone()));
        let call = Arc::new(Call { progress, line, _watched: watched, _kept: kept });
        if let Some((untaken, connection)) = watching {
            tokio::spawn(watch(Arc::downgrade(&call), untaken, gone, connection));
        }
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        Leaving { body, rest: None, deadline, is_over: false, call }
    }

    /// The next frame of what is answered, or the end when the caller's time is over.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let deadline = self.deadline.as_mut().filter(|_| polled.is_pending());
        if deadline.is_none_or(|deadline| deadline.as_mut().poll(context).is_pending()) {
            return polled;
        }
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(Status::from(late()).add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    /// The first piece of what is left of a message; the others stay.
    fn hand_over(&mut self, mut rest: Rest) -> Frame<Bytes> {
        match rest.bytes.len().checked_sub(LAST_PIECE_BYTES) {
            // A view would keep the whole message in memory.
            None | Some(0) => Frame::data(Bytes::copy_from_slice(&rest.bytes)),
            Some(before_last) => {
                let piece = rest.bytes.split_to(before_last.min(PIECE_BYTES));
                let piece = Piece::handed_over(piece, rest.message.clone());
                self.rest = Some(rest);
                Frame::data(piece)
            }
        }
    }
}

/// Closes the connection of an answer that lies untaken for too long.
async fn watch(call: Weak<Call>, untaken: Duration, mut gone: oneshot::Receiver<()>, connection: ConnectionHandle) {
    loop {
        let Some(call) = call.upgrade() else { return };
        let due = {
            let progress = call.progress();
            let waits = progress.has_nothing && progress.pieces == 0;
            if waits { Instant::now() + untaken } else { progress.moved + untaken }
        };
        drop(call);
        if due <= Instant::now() {
            return connection.hang_up();
        }
        if timeout_at(due, &mut gone).await.is_ok() {
            return;
        }
    }
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        let polled = match this.rest.take() {
            None => this.poll_answer(context).map_ok(|frame| match frame.into_data() {
                Ok(bytes) => {
                    let message = Arc::new(Message::new(&this.call, bytes.len()));
                    this.hand_over(Rest { bytes, message })
                }
                Err(trailers) => trailers,
            }),
            Some(rest) => Poll::Ready(Some(Ok(this.hand_over(rest)))),
        };
        // Asked again, the caller took what was here before.
        let mut progress = this.call.progress();
        progress.has_nothing = polled.is_pending();
        if polled.is_ready() {
            progress.moved = Instant::now();
        }
        drop(progress);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_none() { self.body.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One message, and then trailers.
    struct Answer(Option<Bytes>, bool);

    impl http_body::Body for Answer {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            let data = self.0.take().map(Frame::data);
            let trailers = |this: &mut Self| std::mem::take(&mut this.1).then(|| Frame::trailers(HeaderMap::new()));
            Poll::Ready(data.or_else(|| trailers(&mut self)).map(Ok))
        }
    }

    fn leaving(bytes: usize, room: &Arc<Room<ConnectionHandle>>) -> Leaving {
        let message = Bytes::from_iter((0..bytes).map(|at| at as u8));
        let untaken = Duration::from_secs(3600);
        let line = Line { connection: ConnectionHandle::default(), untaken, room: room.clone(), owner: None };
        Leaving::new(Body::new(Answer(Some(message), true)), None, Some(line), None)
    }

    async fn next(leaving: &mut Leaving) -> Option<Frame<Bytes>> {
        std::future::poll_fn(|context| Pin::new(&mut *leaving).poll_frame(context)).await.transpose().unwrap()
    }

    #[tokio::test]
    async fn an_answer_leaves_in_pieces_and_the_last_is_small() {
        let room = Arc::new(Room::new(1 << 20));
        for (bytes, pieces) in [
            (1, vec![1]),
            (LAST_PIECE_BYTES, vec![LAST_PIECE_BYTES]),
            (LAST_PIECE_BYTES + 1, vec![1, LAST_PIECE_BYTES]),
            (40_000, vec![PIECE_BYTES, PIECE_BYTES, 40_000 - 2 * PIECE_BYTES - LAST_PIECE_BYTES, LAST_PIECE_BYTES]),
        ] {
            let mut leaving = leaving(bytes, &room);
            let mut taken = Vec::new();
            for (at, piece) in pieces.iter().enumerate() {
                let frame = next(&mut leaving).await.unwrap().into_data().unwrap();
                assert_eq!(frame.len(), *piece, "piece {at} of {bytes}");
                taken.push(frame);
            }
            // All of it is handed over, and counts until it is written.
            assert!(taken.iter().flatten().copied().eq((0..bytes).map(|at| at as u8)));
            assert_eq!(room.held_now(), if pieces.len() > 1 { (bytes, 1) } else { (0, 0) });
            let last = taken.pop();
            drop(taken);
            assert_eq!(room.held_now(), (0, 0), "the last piece of {bytes} is a copy");
            drop(last);
            assert!(next(&mut leaving).await.unwrap().is_trailers());
            assert!(next(&mut leaving).await.is_none());
        }
    }

    #[tokio::test]
    async fn the_connection_of_the_answer_on_its_way_for_longest_is_closed_when_there_is_no_room() {
        let room = Arc::new(Room::new(100_000));
        let mut answers: Vec<Leaving> = (0..3).map(|_| leaving(40_000, &room)).collect();
        let hung_up = |leaving: &Leaving| {
            let mut waiting = Box::pin(leaving.call.line.as_ref().unwrap().connection.clone().hung_up());
            waiting.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        for answer in &mut answers {
            next(answer).await;
        }
        assert_eq!(answers.iter().map(hung_up).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(room.held_now(), (80_000, 2));
        drop(answers);
        assert_eq!(room.held_now(), (0, 0));
    }
}
