//! A request's head as HTTP/2 has it.

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request, Uri, Version};

use crate::metrics::Reason;
use crate::proxy::http1;

/// A request's head as HTTP/2 has it, from the one that was written for HTTP/1.1: which fields pass and which are ours
/// is said in one place only.
///
/// # Errors
/// When its host cannot be an authority.
pub fn request(written: &[u8], scheme: &'static str) -> Result<Request<()>, Reason> {
    // As many fields as there are lines, and no more room than that: the head is our own.
    let lines = memchr::memchr_iter(b'\n', written).count();
    let parsed = http1::parse_request(&mut Bytes::copy_from_slice(written), usize::MAX, lines);
    let Ok(Some(http1::Request { mut head, .. })) = parsed else { return Err(Reason::BadRequest) };
    let mut request = Request::new(());
    if head.headers.remove(UPGRADE).is_some() {
        // There is no other one; and no key, which proves nothing here (RFC 8441 §5).
        head.method = Method::CONNECT;
        head.headers.remove(SEC_WEBSOCKET_KEY);
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    let host = head.headers.remove(HOST).ok_or(Reason::BadRequest)?;
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.remove(CONNECTION);
    let target = head.uri.path_and_query().cloned().ok_or(Reason::BadRequest)?;
    let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(target);
    *request.method_mut() = head.method;
    *request.uri_mut() = uri.build().map_err(|_| Reason::BadRequest)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers.into_map();
    Ok(request)
}
