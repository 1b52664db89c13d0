//! How an answer's head is written for an HTTP/1.1 client, and how its body will end.

use http::{HeaderMap, Method, StatusCode, Version};

use crate::proxy::body::Source;
use crate::proxy::fields::{Fields, Note};
use crate::proxy::head::Parts;
use crate::proxy::headers::append;
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
    pub(super) fn of(head: &Parts, keep_alive: bool) -> Self {
        let is_old = head.version < Version::HTTP_11;
        Self {
            is_head: head.method == Method::HEAD,
            is_old,
            keep_alive,
            // To be ignored in HTTP/1.0 (RFC 9110 §10.1.1).
            expects_continue: !is_old && head.headers.has(Note::Expect),
            takes_trailers: head.headers.takes_trailers(),
        }
    }
}

/// How an answer's body is delimited, and what happens behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framing {
    pub(super) length: Option<u64>,
    /// True when the answer itself tells a length.
    pub(super) was_told: bool,
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
    /// RFC 9112 §6.3. Takes the fields that frame and connect out of `headers`.
    pub(super) fn of(
        status: StatusCode,
        headers: &mut Fields,
        source: &Source,
        asked: Asked,
        may_persist: bool,
    ) -> Self {
        let (told, closes) = headers.take_framing();
        let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
        let has_body = !bodiless && !asked.is_head && status != StatusCode::NOT_MODIFIED;
        let length = match source {
            Source::Full(data) => Some(data.len() as u64),
            Source::Stream(exchange) => exchange.remaining(),
            Source::Tunnel(_) => None,
        };
        let is_endless = has_body && length.is_none();
        Self {
            length: match (bodiless, has_body) {
                (true, _) => None,
                (false, true) => length,
                // The length of the body that is not sent.
                (false, false) => told.or(length.filter(|length| *length > 0)),
            },
            was_told: told.is_some(),
            has_body,
            is_chunked: is_endless && !asked.is_old,
            has_trailers: asked.takes_trailers,
            until_close: is_endless && asked.is_old,
            upgrades: status == StatusCode::SWITCHING_PROTOCOLS,
            persists: may_persist && !closes && !(is_endless && asked.is_old),
        }
    }
}

/// Appends an answer's head.
pub(super) fn encode(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &Fields,
    framing: Framing,
    asked: Asked,
    worker: &Worker,
) {
    encode_status(out, status, if asked.is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    headers.write(out);
    if let Some(length) = framing.length {
        append(out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
    }
    if framing.is_chunked {
        append(out, b"transfer-encoding", b"chunked");
    }
    if !headers.has(Note::Date) {
        append(out, b"date", &worker.date());
    }
    if status == StatusCode::UPGRADE_REQUIRED && headers.has(Note::Upgrade) {
        append(out, b"connection", b"upgrade");
    }
    match (framing.persists, asked.is_old) {
        _ if framing.upgrades => {
            append(out, b"connection", b"Upgrade");
            // To anything else its own field says.
            if !headers.has(Note::Upgrade) {
                append(out, b"upgrade", b"websocket");
            }
        }
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
