//! How an answer's head is written for an HTTP/1.1 client, and how its body will end.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, request, response};

use crate::proxy::body::Source;
use crate::proxy::headers::{self, append};
use crate::proxy::worker::Worker;

/// What a request says about its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    is_head: bool,
    /// True for HTTP/1.0.
    is_old: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    /// True when it takes trailers (RFC 9110 §10.1.4).
    takes_trailers: bool,
}

impl Asked {
    pub(super) fn of(head: &request::Parts, keep_alive: bool) -> Self {
        let is_old = head.version < Version::HTTP_11;
        Self {
            is_head: head.method == Method::HEAD,
            is_old,
            keep_alive,
            // To be ignored in HTTP/1.0 (RFC 9110 §10.1.1).
            expects_continue: !is_old && head.headers.contains_key(EXPECT),
            takes_trailers: head.headers.get(TE).is_some_and(|te| headers::has_token(te, b"trailers")),
        }
    }
}

/// How an answer's body is delimited, and what happens behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framing {
    pub(super) length: Option<u64>,
    pub(super) has_body: bool,
    pub(super) is_chunked: bool,
    pub(super) has_trailers: bool,
    pub(super) until_close: bool,
    /// True when the connection can take another request.
    pub(super) persists: bool,
    /// True when the connection is a tunnel from here on.
    upgrades: bool,
}

impl Framing {
    /// RFC 9112 §6.3. Takes the fields that frame and connect out of `head`.
    pub(super) fn of(head: &mut response::Parts, source: &Source, asked: Asked, may_persist: bool) -> Self {
        let told = head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(TRANSFER_ENCODING);
        let closes =
            head.headers.remove(CONNECTION).is_some_and(|value| headers::has_token(&value, b"close"));
        let bodiless = head.status.is_informational() || head.status == StatusCode::NO_CONTENT;
        let has_body = !bodiless && !asked.is_head && head.status != StatusCode::NOT_MODIFIED;
        let length = match source {
            Source::Full(data) => Some(data.len() as u64),
            Source::Stream(exchange) => exchange.remaining(),
            Source::Tunnel(_) => None,
        };
        let is_endless = has_body && length.is_none();
        let told = || told.as_ref().and_then(|told: &HeaderValue| told.to_str().ok()?.parse().ok());
        Self {
            length: match (bodiless, has_body) {
                (true, _) => None,
                (false, true) => length,
                // The length of the body that is not sent.
                (false, false) => told().or(length.filter(|length| *length > 0)),
            },
            has_body,
            is_chunked: is_endless && !asked.is_old,
            has_trailers: asked.takes_trailers,
            until_close: is_endless && asked.is_old,
            upgrades: head.status == StatusCode::SWITCHING_PROTOCOLS,
            persists: may_persist && !closes && !(is_endless && asked.is_old),
        }
    }
}

/// Appends an answer's head.
pub(super) fn encode(
    out: &mut Vec<u8>,
    head: &response::Parts,
    framing: Framing,
    asked: Asked,
    worker: &Worker,
) {
    encode_status(out, head.status, if asked.is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    for (name, value) in &head.headers {
        append(out, name.as_str().as_bytes(), value.as_bytes());
    }
    if let Some(length) = framing.length {
        append(out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
    }
    if framing.is_chunked {
        append(out, b"transfer-encoding", b"chunked");
    }
    if !head.headers.contains_key(DATE) {
        append(out, b"date", &worker.date());
    }
    match (framing.persists, asked.is_old) {
        _ if framing.upgrades => out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n"),
        (false, _) => append(out, b"connection", b"close"),
        (true, true) => append(out, b"connection", b"keep-alive"),
        (true, false) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim answer.
pub(super) fn encode_interim(out: &mut Vec<u8>, status: StatusCode, fields: &HeaderMap) {
    encode_status(out, status, b"HTTP/1.1 ");
    for (name, value) in fields {
        append(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// A status without a name of its own is given none.
fn encode_status(out: &mut Vec<u8>, status: StatusCode, version: &[u8; 9]) {
    out.extend_from_slice(version);
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
}
