//! `Max-Forwards`: through how many more proxies an OPTIONS or a TRACE may go, which is to be counted by each (RFC 9110
//! §7.6.2). With other methods the field passes as any.

use bytes::Bytes;
use http::header::{ALLOW, MAX_FORWARDS};
use http::{Method, Response};

use super::error::ALLOWED;
use super::fields::Came;
use super::head::Parts;
use super::http1::decimal;
use crate::metrics::Reason;

/// Through how many more the request `head` may go, if it says so and is one that is counted.
///
/// # Errors
/// [`Reason::BadRequest`] when nobody can tell how many.
pub fn left(head: &Parts) -> Result<Option<u64>, Reason> {
    if !matches!(head.method, Method::OPTIONS | Method::TRACE) {
        return Ok(None);
    }
    match head.headers.search(&MAX_FORWARDS) {
        Came::Never => Ok(None),
        Came::Once(value) => decimal(value).map(Some).ok_or(Reason::BadRequest),
        Came::Often => Err(Reason::BadRequest),
    }
}

/// The answer to one that may go through no more.
///
/// # Errors
/// [`Reason::Method`] for TRACE: a request that is sent back shows a script what its browser keeps from it.
pub fn answer(head: &Parts) -> Result<Response<Bytes>, Reason> {
    if head.method == Method::TRACE {
        return Err(Reason::Method);
    }
    let mut response = Response::new(Bytes::new());
    response.headers_mut().insert(ALLOW, ALLOWED);
    Ok(response)
}
