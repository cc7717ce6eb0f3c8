//! Errors that are found before any service sees the call: tonic's own. They get a reason like all others.

use tally_proto::v1::ErrorReason;
use tonic::{Code, Status, codegen::http::Response};

use super::{errors::Refusal, limits::REQUEST_BYTES_MAX};

/// Gives a response of tonic's own its reason. What a service refused has one already, and so it stays.
pub(super) fn explain<B>(response: Response<B>) -> Response<B> {
    let status = Status::from_header_map(response.headers()).filter(|status| status.details().is_empty());
    let Some(refusal) = status.as_ref().and_then(refusal_of) else { return response };
    let (mut parts, body) = response.into_parts();
    // A message that cannot stand in a header would be a mistake of ours; then the response stays as it was.
    let _ = Status::from(refusal).add_header(&mut parts.headers);
    Response::from_parts(parts, body)
}

fn refusal_of(status: &Status) -> Option<Refusal> {
    match status.code() {
        Code::OutOfRange => {
            let message = format!("the request is larger than {REQUEST_BYTES_MAX} bytes; send less at a time");
            Some(Refusal::new(ErrorReason::RequestTooLarge, message).with("maximum", REQUEST_BYTES_MAX))
        }
        Code::Internal => {
            let message = format!("the request is not what this method takes: {}", status.message());
            Some(Refusal::new(ErrorReason::RequestMalformed, message))
        }
        Code::Unimplemented if status.message().is_empty() => {
            let message = "this node has no such method; its reflection service lists those it has";
            Some(Refusal::new(ErrorReason::MethodUnknown, message))
        }
        Code::Unimplemented => Some(Refusal::new(ErrorReason::MethodUnknown, status.message())),
        _ => None,
    }
}
