//! An answer, or a stream of them, on its way out.
//!
//! HTTP/2 lets a client stop an answer by closing its window, with the connection alive: nothing on the way then times out, and
//! what the answer holds is held for as long as the client likes. So the connection is closed where an answer lies untaken, and
//! where the answers of all connections come to more than there is room for, that of the oldest ([`super::room`]).
//!
//! Whatever is handed over is out of sight: the connection keeps it until the window has room. So an answer is handed over in
//! pieces, the next only when the window had room for the one before, and the last of them is small.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
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

use super::{KeptWhileLeaving, late, room::Room};
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
}

/// See the module.
pub(super) struct Leaving {
    body: Body,
    /// What has not been handed over of the last message.
    rest: Bytes,
    deadline: Option<Pin<Box<Sleep>>>,
    is_over: bool,
    /// Since when something may lie here untaken; none while this node is the one that has nothing to say.
    idle_since: Arc<Mutex<Option<Instant>>>,
    line: Option<Line>,
    /// Of the message that is being handed over.
    place: Option<u64>,
    /// Its end tells the watch that nothing lies here any more.
    _watched: Option<oneshot::Sender<()>>,
    _kept: Option<KeptWhileLeaving>,
}

impl Leaving {
    pub(super) fn new(
        body: Body,
        deadline: Option<Instant>,
        line: Option<Line>,
        kept: Option<KeptWhileLeaving>,
    ) -> Leaving {
        let idle_since = Arc::new(Mutex::new(Some(Instant::now())));
        let watched = line.as_ref().map(|line| {
            let (watched, gone) = oneshot::channel();
            tokio::spawn(watch(idle_since.clone(), line.untaken, gone, line.connection.clone()));
            watched
        });
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        let (rest, is_over, place) = (Bytes::new(), false, None);
        Leaving { body, rest, deadline, is_over, idle_since, line, place, _watched: watched, _kept: kept }
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

    fn take_place(&mut self) {
        let (Some(line), bytes) = (&self.line, self.rest.len()) else { return };
        if bytes > LAST_PIECE_BYTES {
            let id = line.room.enter(line.connection.clone());
            self.place = Some(id);
            for displaced in line.room.hold(id, bytes) {
                displaced.hang_up();
            }
        }
    }

    fn leave_place(&mut self) {
        if let (Some(line), Some(id)) = (&self.line, self.place.take()) {
            line.room.leave(id);
        }
    }

    fn next_piece(&mut self) -> Frame<Bytes> {
        let most = match self.rest.len().checked_sub(LAST_PIECE_BYTES) {
            None | Some(0) => self.rest.len(),
            Some(before_last) => before_last.min(PIECE_BYTES),
        };
        let piece = self.rest.split_to(most);
        if self.rest.is_empty() {
            self.leave_place();
        }
        Frame::data(piece)
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.leave_place();
    }
}

/// Closes the connection of an answer that lies untaken for too long.
async fn watch(
    idle_since: Arc<Mutex<Option<Instant>>>,
    untaken: Duration,
    mut gone: oneshot::Receiver<()>,
    connection: ConnectionHandle,
) {
    loop {
        let since = idle_since.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(Instant::now);
        let due = since + untaken;
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
        let polled = match this.rest.is_empty() {
            true => this.poll_answer(context).map_ok(|frame| match frame.into_data() {
                Ok(data) => {
                    this.rest = data;
                    this.take_place();
                    this.next_piece()
                }
                Err(trailers) => trailers,
            }),
            false => Poll::Ready(Some(Ok(this.next_piece()))),
        };
        // Asked again, the caller took what was here before.
        let idle_since = polled.is_ready().then(Instant::now);
        *this.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = idle_since;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One message, and then trailers.
    struct Message(Option<Bytes>, bool);

    impl http_body::Body for Message {
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
        let line = Line { connection: ConnectionHandle::default(), untaken, room: room.clone() };
        Leaving::new(Body::new(Message(Some(message), true)), None, Some(line), None)
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
                taken.extend_from_slice(&frame);
                let rest = if at + 1 < pieces.len() { (bytes, 1) } else { (0, 0) };
                assert_eq!(room.held_now(), rest, "after piece {at} of {bytes}");
            }
            assert!(taken.into_iter().eq((0..bytes).map(|at| at as u8)));
            assert!(next(&mut leaving).await.unwrap().is_trailers());
            assert!(next(&mut leaving).await.is_none());
        }
    }

    #[tokio::test]
    async fn the_connection_of_the_answer_on_its_way_for_longest_is_closed_when_there_is_no_room() {
        let room = Arc::new(Room::new(100_000));
        let mut answers: Vec<Leaving> = (0..3).map(|_| leaving(40_000, &room)).collect();
        let hung_up = |leaving: &Leaving| {
            let mut waiting = Box::pin(leaving.line.as_ref().unwrap().connection.clone().hung_up());
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
