//! What comes behind a body.

use bytes::Bytes;
use h2::SendStream;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION,
    CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, EXPECT, HOST, RANGE, SET_COOKIE, TRAILER,
    VIA,
};
use http::{HeaderMap, HeaderName};

use super::headers::{is_forwarding, is_hop_by_hop, is_protected};
use crate::table::pin;

/// True for fields that may come after a body: none that frame, route or authenticate, or that say what the body is and how it
/// is to be treated (RFC 9110 §6.5.1). A digest of it may: it is known only then (RFC 9530 §4).
#[must_use]
pub fn may_be_trailer(name: &HeaderName) -> bool {
    let refused = [
        HOST,
        TRAILER,
        EXPECT,
        VIA,
        AUTHORIZATION,
        COOKIE,
        SET_COOKIE,
        CACHE_CONTROL,
        RANGE,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_RANGE,
        CONTENT_LOCATION,
        CONTENT_LANGUAGE,
        CONTENT_DISPOSITION,
        CONTENT_SECURITY_POLICY,
    ];
    !is_hop_by_hop(name)
        && !is_protected(name.as_str().as_bytes())
        && !is_forwarding(name)
        && name.as_str() != pin::FIELD
        && !refused.contains(name)
}

/// Only the fields that may come after a body.
#[must_use]
pub fn only_trailers(mut trailers: HeaderMap) -> HeaderMap {
    let refused: Vec<_> = trailers.keys().filter(|name| !may_be_trailer(name)).cloned().collect();
    refused.iter().for_each(|name| drop(trailers.remove(name)));
    trailers
}

/// Ends a stream of HTTP/2 with these. Where there is none it ends with a frame of data: a HEADERS frame without a field is valid,
/// but there are those who end the connection for it, with everybody's requests (HAProxy 2.6 and nginx 1.22 were measured).
///
/// # Errors
/// When the stream is over already.
pub fn end(send: &mut SendStream<Bytes>, trailers: HeaderMap) -> Result<(), h2::Error> {
    if trailers.is_empty() { send.send_data(Bytes::new(), true) } else { send.send_trailers(trailers) }
}
