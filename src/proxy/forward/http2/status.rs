//! The status of a gRPC call that the proxy had to end after its answer had begun.
//!
//! A reset would come out as `INTERNAL`, as if the call itself were at fault; a server that is lost is `UNAVAILABLE`, and
//! clients act on the difference.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::metrics::Reason;
use crate::proxy::error::REASON;

const DEADLINE_EXCEEDED: &str = "4";
const RESOURCE_EXHAUSTED: &str = "8";
const UNAVAILABLE: &str = "14";

/// What a client is told that waits for the rest; `None` where it has itself broken off or sent what it must not.
pub(super) fn of(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Deadline => Some(DEADLINE_EXCEEDED),
        Reason::RequestTooLarge | Reason::ResponseTooLarge => Some(RESOURCE_EXHAUSTED),
        other if other.status() < 500 => None,
        _ => Some(UNAVAILABLE),
    }
}

/// The trailers that say so.
pub(super) fn trailers(status: &'static str, reason: Reason) -> HeaderMap {
    let reason = HeaderValue::from_static(reason.token());
    let mut trailers = HeaderMap::with_capacity(3);
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status));
    trailers.insert(HeaderName::from_static("grpc-message"), reason.clone());
    trailers.insert(REASON, reason);
    trailers
}

/// The trailers of a stream that was ended because its version is being left: its client comes again.
pub(super) fn leaving() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(UNAVAILABLE));
    let message = HeaderValue::from_static("the service is being replaced; try again");
    trailers.insert(HeaderName::from_static("grpc-message"), message);
    trailers
}
