//! What holds for every call, whatever its service: the caller's deadline, the bounds of a request on its way
//! ([`super::arriving`]), and how long an answer may lie untaken.
//!
//! HTTP/2 lets a client stop an answer by closing its window, with the connection alive: nothing on the way then times out, and
//! what the answer holds is held for as long as the client likes. So the connection is closed.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tally_proto::v1::ErrorReason;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until, timeout_at},
};
use tonic::{
    Status,
    body::Body,
    codegen::{
        BoxFuture, Service,
        http::{HeaderMap, Request, Response},
    },
};
use tower::Layer;

use super::{
    Limits,
    arriving::{Arriving, Room},
    errors::Refusal,
};
use crate::incoming::HangUp;

/// tonic keeps deadlines too, but answers without a reason; this much earlier it has nothing left to do.
const AHEAD_OF_TONIC: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct CallsLayer {
    arrival: Duration,
    untaken: Duration,
    room: Arc<Room>,
}

impl CallsLayer {
    pub(super) fn new(limits: &Limits) -> CallsLayer {
        let room = Arc::new(Room::new(limits.arriving_bytes_max));
        CallsLayer { arrival: limits.arrival, untaken: limits.untaken, room }
    }
}

impl<S> Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { inner, rules: self.clone() }
    }
}

/// A service whose calls keep the rules.
#[derive(Clone, Debug)]
pub(super) struct Calls<S> {
    inner: S,
    rules: CallsLayer,
}

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Response<Body>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let CallsLayer { arrival, untaken, room } = self.rules.clone();
        let now = Instant::now();
        let allowed = allowed_time(request.headers()).map(|time| time.saturating_sub(AHEAD_OF_TONIC));
        // A time beyond what a clock can name is none.
        let deadline = allowed.and_then(|time| now.checked_add(time));
        let hang_up = request.extensions().get::<HangUp>().cloned();
        let answering = self.inner.call(request.map(|body| Body::new(Arriving::new(body, now + arrival, room))));
        Box::pin(async move {
            let response = match deadline {
                None => answering.await?,
                Some(deadline) => match timeout_at(deadline, answering).await {
                    Ok(response) => response?,
                    Err(_) => return Ok(Status::from(late()).into_http()),
                },
            };
            Ok(response.map(|body| Body::new(Leaving::new(body, deadline, untaken, hang_up))))
        })
    }
}

/// The time that a caller gives, as gRPC writes it: at most eight digits and a unit.
fn allowed_time(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(value.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(value.saturating_mul(60))),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

fn late() -> Refusal {
    Refusal::new(
        ErrorReason::DeadlineExceeded,
        "the deadline that the caller set is over; what was asked for may have been done",
    )
}

/// An answer, or a stream of them, on its way to the caller.
#[derive(Debug)]
struct Leaving {
    body: Body,
    deadline: Option<Pin<Box<Sleep>>>,
    is_over: bool,
    /// Since when something may lie here untaken; none while this node is the one that has nothing to say.
    idle_since: Arc<Mutex<Option<Instant>>>,
    /// Its end tells the watch that nothing lies here any more.
    _watched: Option<oneshot::Sender<()>>,
}

impl Leaving {
    fn new(body: Body, deadline: Option<Instant>, untaken: Duration, hang_up: Option<HangUp>) -> Leaving {
        let idle_since = Arc::new(Mutex::new(Some(Instant::now())));
        let watched = hang_up.map(|hang_up| {
            let (watched, gone) = oneshot::channel();
            tokio::spawn(watch(idle_since.clone(), untaken, gone, hang_up));
            watched
        });
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        Leaving { body, deadline, is_over: false, idle_since, _watched: watched }
    }
}

/// Closes the connection of an answer that lies untaken for too long.
async fn watch(
    idle_since: Arc<Mutex<Option<Instant>>>,
    untaken: Duration,
    mut gone: oneshot::Receiver<()>,
    hang_up: HangUp,
) {
    loop {
        let since = idle_since.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(Instant::now);
        let due = since + untaken;
        if due <= Instant::now() {
            return hang_up.now();
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
        let mut polled = Pin::new(&mut this.body).poll_frame(context);
        let deadline = this.deadline.as_mut().filter(|_| polled.is_pending());
        if deadline.is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
            this.is_over = true;
            let mut trailers = HeaderMap::new();
            polled = match Status::from(late()).add_header(&mut trailers) {
                Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Err(status) => Poll::Ready(Some(Err(status))),
            };
        }
        // Asked again, the caller took what was here before.
        let idle_since = polled.is_ready().then(Instant::now);
        *this.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = idle_since;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_past_its_deadline_is_answered_with_a_reason() {
        let never = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Status>>());
        let request = Request::builder().header("grpc-timeout", "5m").body(Body::empty()).unwrap();
        let response = CallsLayer::new(&Limits::default()).layer(never).call(request).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        let details = tonic_types::StatusExt::get_error_details(&status);
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(details.error_info().unwrap().reason, "DEADLINE_EXCEEDED");
    }

    #[test]
    fn a_caller_s_time_is_read_as_grpc_writes_it() {
        let time = |text: &str| {
            allowed_time(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
        };
        assert_eq!(time("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(time("3M"), Some(Duration::from_secs(180)));
        assert_eq!(time("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(time("50m"), Some(Duration::from_millis(50)));
        assert_eq!(time("7u"), Some(Duration::from_micros(7)));
        assert_eq!(time("9n"), Some(Duration::from_nanos(9)));
        for wrong in ["", "S", "5", "5s", "-5S", "123456789S", "5 S", "é"] {
            assert_eq!(time(wrong), None, "{wrong:?}");
        }
    }
}
