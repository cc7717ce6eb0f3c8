//! A request on its way here: how long it may take to arrive whole, and how many bytes of unfinished ones are held ([`super::room`]).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tally_proto::v1::ErrorReason;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};
use tonic::{Status, body::Body};

use super::room::{Place, Room};
use crate::api::errors::Refusal;

/// Its end tells a request that it lost its place.
pub(super) type Stay = oneshot::Sender<()>;

/// That a request has a place in the room.
#[derive(Debug)]
struct Staying {
    place: Place,
    lost: oneshot::Receiver<()>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Arriving {
    body: Body,
    overdue: Pin<Box<Sleep>>,
    room: Arc<Room<Stay>>,
    /// From its first bytes on.
    staying: Option<Staying>,
}

impl Arriving {
    /// `body`, which is due whole at `due`.
    pub(super) fn new(body: Body, due: Instant, room: Arc<Room<Stay>>) -> Arriving {
        Arriving { body, overdue: Box::pin(sleep_until(due)), room, staying: None }
    }

    /// Whether this request lost its place; if not, its task is woken when it does.
    fn is_displaced(&mut self, context: &mut Context<'_>) -> bool {
        self.staying.as_mut().is_some_and(|staying| Pin::new(&mut staying.lost).poll(context).is_ready())
    }

    fn displaced(&self) -> Status {
        let message = "this node holds as many bytes of requests as it takes, and this one has been on its way for longest; \
                       try again, or another node";
        Refusal::new(ErrorReason::TooManyStreams, message).with("maximum", self.room.bytes_max()).into()
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let staying = this.staying.get_or_insert_with(|| {
                let (stay, lost) = oneshot::channel();
                Staying { place: this.room.enter(None, stay), lost }
            });
            drop(this.room.hold(staying.place, bytes));
        }
        if this.is_displaced(context) {
            this.staying = None;
            return Poll::Ready(Some(Err(this.displaced())));
        }
        // Who sends without end is late, too.
        if polled.is_pending() || this.overdue.deadline() <= Instant::now() {
            ready!(this.overdue.as_mut().poll(context));
            let message = "the request did not arrive whole in time; send it again";
            return Poll::Ready(Some(Err(Refusal::new(ErrorReason::RequestIncomplete, message).into())));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(staying) = &self.staying {
            self.room.leave(staying.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    /// The body of one who sends this much and then nothing.
    struct Stalled(Bytes);

    impl http_body::Body for Stalled {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            if self.0.is_empty() {
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.0)))))
        }
    }

    async fn next(arriving: &mut Arriving) -> Result<usize, String> {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *arriving).poll_frame(context)).await.unwrap();
        frame.map(|frame| frame.into_data().unwrap().len()).map_err(|status| status.message().to_owned())
    }

    #[tokio::test]
    async fn the_request_on_its_way_for_longest_goes_when_there_is_no_room() {
        let room = Arc::new(Room::new(1000));
        let due = Instant::now() + std::time::Duration::from_secs(3600);
        let held = || room.held_now();
        let stalled = |bytes| Arriving::new(Body::new(Stalled(Bytes::from(vec![0; bytes]))), due, room.clone());
        let (mut oldest, mut older) = (stalled(400), stalled(400));
        assert_eq!(next(&mut oldest).await, Ok(400));
        assert_eq!(next(&mut older).await, Ok(400));
        // One that waits is woken by what displaces it.
        let waiting = tokio::spawn(async move { next(&mut oldest).await });
        tokio::task::yield_now().await;
        let mut newest = stalled(500);
        assert_eq!(next(&mut newest).await, Ok(500));
        assert!(waiting.await.unwrap().unwrap_err().contains("on its way for longest"));
        assert_eq!(held(), (900, 2));
        // Who alone is beyond the bound displaces nobody else.
        assert!(next(&mut stalled(1001)).await.is_err());
        assert_eq!(held(), (900, 2));
        assert_eq!(next(&mut stalled(1000)).await, Ok(1000));
        assert_eq!(held(), (0, 0));
        assert!(next(&mut older).await.is_err() && next(&mut newest).await.is_err());
    }
}
