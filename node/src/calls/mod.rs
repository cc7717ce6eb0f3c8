//! What holds for every call of clients and of validators, whatever its service: the caller's deadline, the bounds of a request
//! on its way here ([`arriving`]), and of an answer on its way out ([`leaving`]).

mod arriving;
mod leaving;
mod room;

use std::{
    any::Any,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tally_proto::v1::ErrorReason;
use tally_types::Address;
use tokio::time::{Instant, timeout_at};
use tonic::{
    Status,
    body::Body,
    codegen::{
        BoxFuture, Service,
        http::{HeaderMap, Request, Response},
    },
};
use tower::Layer;

use self::{arriving::Arriving, leaving::Leaving, room::Room};
use crate::{api::errors::Refusal, incoming::ConnectionHandle};

/// tonic keeps deadlines too, but answers without a reason; this much earlier it has nothing left to do.
const AHEAD_OF_TONIC: Duration = Duration::from_millis(1);

/// The bounds of all calls of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How long a request may take to arrive whole; after: REQUEST_INCOMPLETE.
    pub arrival: Duration,
    /// Bytes of requests that are arriving, over all connections; above: TOO_MANY_STREAMS to the one on its way for longest.
    pub arriving_bytes_max: usize,
    /// How long an answer may lie untaken; after: the connection is closed.
    pub untaken: Duration,
    /// Bytes of answers that are leaving, over all connections; above: the connection of the one on its way for
    /// longest is closed, see [`room`].
    pub leaving_bytes_max: usize,
    /// The path of a call whose request does not end; what arrives there is for its service to bound.
    pub endless: Option<&'static str>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct CallsLayer {
    bounds: Bounds,
    arriving: Arc<Room<arriving::Stay>>,
    leaving: Arc<Room<ConnectionHandle>>,
}

impl CallsLayer {
    pub(crate) fn new(bounds: Bounds) -> CallsLayer {
        let arriving = Arc::new(Room::new(bounds.arriving_bytes_max));
        let leaving = Arc::new(Room::new(bounds.leaving_bytes_max));
        CallsLayer { bounds, arriving, leaving }
    }
}

impl<S> Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { inner, rules: self.clone() }
    }
}

/// Put into an answer's extensions: dropped when the answer has left, or never will.
#[derive(Clone)]
pub(crate) struct KeptWhileLeaving {
    /// The validator that the answer is for.
    pub validator: Address,
    #[expect(dead_code, reason = "its end is what counts")]
    pub place: Arc<dyn Any + Send + Sync>,
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
        let CallsLayer { bounds, arriving, leaving } = self.rules.clone();
        let now = Instant::now();
        let allowed = allowed_time(request.headers()).map(|time| time.saturating_sub(AHEAD_OF_TONIC));
        // A time beyond what a clock can name is none.
        let deadline = allowed.and_then(|time| now.checked_add(time));
        let connection = request.extensions().get::<ConnectionHandle>().cloned();
        let answering = match bounds.endless == Some(request.uri().path()) {
            true => self.inner.call(request),
            false => {
                self.inner.call(request.map(|body| Body::new(Arriving::new(body, now + bounds.arrival, arriving))))
            }
        };
        Box::pin(async move {
            let mut response = match deadline {
                None => answering.await?,
                Some(deadline) => match timeout_at(deadline, answering).await {
                    Ok(response) => response?,
                    Err(_) => return Ok(Status::from(late()).into_http()),
                },
            };
            let kept = response.extensions_mut().remove::<KeptWhileLeaving>();
            let (untaken, owner) = (bounds.untaken, kept.as_ref().map(|kept| kept.validator));
            let line = connection.map(|connection| leaving::Line { connection, untaken, room: leaving, owner });
            Ok(response.map(|body| Body::new(Leaving::new(body, deadline, line, kept))))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_past_its_deadline_is_answered_with_a_reason() {
        let never = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Status>>());
        let request = Request::builder().header("grpc-timeout", "5m").body(Body::empty()).unwrap();
        let response =
            CallsLayer::new(crate::api::Limits::default().of_calls()).layer(never).call(request).await.unwrap();
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
