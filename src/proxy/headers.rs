//! Which fields pass, which are ours to set, and how a request's head is written for an endpoint.

mod nominated;

use http::header::{CONTENT_LENGTH, EXPECT, FORWARDED, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use super::fields::{Fields, Note};
use super::head::Parts;
use super::upgrade::Upgrade;
use nominated::Nominated;
pub use nominated::{drop_nominated, is_nominated};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// True for fields that are for one connection only (RFC 9110 §7.6.1).
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    Note::of(name.as_str().as_bytes()).is_some_and(Note::is_hop_by_hop)
}

/// True for fields that `Connection` may not make hop-by-hop: they route, frame, or say who is asking
/// (the abuse of CVE-2022-31813 and CVE-2024-45410).
#[must_use]
pub fn is_protected(token: &[u8]) -> bool {
    const PROTECTED: [&[u8]; 7] =
        [b"host", b"content-length", b"transfer-encoding", b"te", b"forwarded", b"via", b"authorization"];
    let token = token.to_ascii_lowercase();
    PROTECTED.contains(&&token[..]) || token.starts_with(b"x-forwarded-") || token.starts_with(b"switchback-")
}

/// Takes out of an answer what was for one connection only.
pub fn strip_response(fields: &mut HeaderMap) {
    let refused: Vec<_> = fields.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    refused.iter().for_each(|name| drop(fields.remove(name)));
}

/// True for a value with a blank around it, which is malformed in HTTP/2 (RFC 9113 §8.2.1). In HTTP/1.1 the blank is no part of
/// the value: a route would go by another one than the endpoint sees.
pub(super) fn is_padded(value: &HeaderValue) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last())
}

/// Takes the blanks away that are around an HTTP/2 endpoint's values, as they are in HTTP/1.1: a client may end its connection
/// for one.
pub fn trim(fields: &mut HeaderMap) {
    for value in fields.values_mut().filter(|value| is_padded(value)) {
        if let Ok(mut trimmed) = HeaderValue::from_bytes(value.as_bytes().trim_ascii()) {
            trimmed.set_sensitive(value.is_sensitive());
            *value = trimmed;
        }
    }
}

/// Appends one field line.
#[inline]
pub fn append(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whose connection it is, for the fields that say so: the same for all of its requests.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'c> {
    /// The client's address as text; `None` for a Unix socket.
    pub client: Option<&'c str>,
    /// The port that it connected to, if there is one.
    pub port: Option<u16>,
    /// `http` or `https`.
    pub scheme: &'c str,
    /// Whose certificate was verified, and the field to tell it in.
    pub subject: Option<(&'c HeaderName, &'c HeaderValue)>,
}

/// How long it is in bytes, most often at most: every connection has one.
const INTRODUCTION: usize = 128;

impl Caller<'_> {
    /// What endpoints are told of one for whom no other proxy speaks.
    #[must_use]
    pub fn introduction(self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(INTRODUCTION);
        self.write(&mut out, None);
        out.into()
    }

    /// The same behind what trusted proxies say in the fields `known`: theirs are kept, and the address that they came from is
    /// appended.
    fn write(self, out: &mut Vec<u8>, known: Option<&HeaderMap>) {
        let kept = |name: &HeaderName| known?.get(name).map(HeaderValue::as_bytes);
        let before = known.into_iter().flat_map(|known| known.get_all(&X_FORWARDED_FOR));
        let addresses = before.map(HeaderValue::as_bytes).chain(self.client.map(str::as_bytes));
        for (index, address) in addresses.enumerate() {
            out.extend_from_slice(if index == 0 { b"x-forwarded-for: " } else { b", " });
            out.extend_from_slice(address);
        }
        if self.client.is_some() || kept(&X_FORWARDED_FOR).is_some() {
            out.extend_from_slice(b"\r\n");
        }
        append(out, b"x-forwarded-proto", kept(&X_FORWARDED_PROTO).unwrap_or(self.scheme.as_bytes()));
        let mut digits = itoa::Buffer::new();
        let port = self.port.map(|port| digits.format(port).as_bytes());
        if let Some(port) = kept(&X_FORWARDED_PORT).or(port) {
            append(out, b"x-forwarded-port", port);
        }
        if let Some((name, subject)) = self.subject {
            append(out, name.as_str().as_bytes(), subject.as_bytes());
        }
    }
}

/// Who is asking, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'c> {
    /// Whose connection it is.
    pub caller: Caller<'c>,
    /// [`Caller::introduction`], written once for all.
    pub introduction: &'c [u8],
    /// The host that the endpoint is asked for, with its port.
    pub host: &'c [u8],
    /// The host that the client asked for, with its port.
    pub asked: &'c [u8],
    /// True when `Forwarded` is sent too.
    pub forwarded: bool,
    /// Our name in `Via`.
    pub via: &'c str,
}

/// How a request's body is delimited towards the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// No body and no word about it.
    None,
    /// So many bytes.
    Known(u64),
    /// Chunked.
    Unknown,
}

/// Appends a request's head, rebuilt from what was parsed: of what the client sent only whole lines pass that were found to be
/// sound.
///
/// `upgrade` is the change of protocol that it asks for, with our key for it.
pub fn write_request(
    out: &mut Vec<u8>,
    request: &Parts,
    target: &str,
    body: BodyLength,
    origin: Origin<'_>,
    upgrade: Option<(Upgrade, &str)>,
) {
    let headers = &request.headers;
    // Of `CONNECT` only what is a `GET` in HTTP/1.1 gets here (RFC 8441 §5).
    let is_handshake = upgrade.is_some_and(|(upgrade, _)| upgrade != Upgrade::Listed);
    let method = if is_handshake { &Method::GET } else { &request.method };
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    append(out, b"host", origin.host);
    let is_introduced = match headers.passing() {
        Some(lines) => {
            lines.write(out);
            false
        }
        None => write_fields(out, request),
    };
    match body {
        BodyLength::None => {}
        BodyLength::Known(length) => {
            append(out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        BodyLength::Unknown => append(out, b"transfer-encoding", b"chunked"),
    }
    write_forwarding(out, is_introduced.then_some(headers), origin);
    write_via(out, request.version, origin.via);
    if let Some((upgrade, key)) = upgrade {
        upgrade.write(out, request, key);
    }
    if !is_handshake && headers.takes_trailers() {
        out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the fields that pass, one by one; true when there are any that say who is asking.
fn write_fields(out: &mut Vec<u8>, request: &Parts) -> bool {
    // An expectation of HTTP/1.0 is to be ignored (RFC 9110 §10.1.1).
    let may_expect = request.version >= Version::HTTP_11;
    let nominated = Nominated::of(&request.headers);
    let mut is_introduced = false;
    for (name, value) in &*request.headers {
        let note = Note::of(name.as_str().as_bytes());
        let is_forwarding = note == Some(Note::Forwarding);
        is_introduced |= is_forwarding;
        let passes = *name != HOST
            && *name != CONTENT_LENGTH
            && !note.is_some_and(Note::is_hop_by_hop)
            && !(is_forwarding && is_ours(name))
            && !nominated.contains(name)
            && (may_expect || *name != EXPECT);
        if passes {
            append(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    is_introduced
}

/// True when an endpoint may read `name` as `meant`: many take an underscore for a hyphen (CGI's `HTTP_X_USER`).
pub(super) fn is_taken_for(name: &HeaderName, meant: &HeaderName) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (name, meant) = (name.as_str().bytes().map(plain), meant.as_str().bytes().map(plain));
    name.eq(meant)
}

/// What `Connection` says beside names of fields (RFC 9110 §7.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionOption {
    /// This message is the last one.
    Close,
    /// It is not, also in HTTP/1.0.
    KeepAlive,
    /// The protocol is to be changed.
    Upgrade,
}

impl ConnectionOption {
    /// The option of this name, if it is one.
    #[must_use]
    pub fn of(token: &[u8]) -> Option<Self> {
        let is = |name: &[u8]| token.eq_ignore_ascii_case(name);
        match token.len() {
            5 if is(b"close") => Some(Self::Close),
            7 if is(b"upgrade") => Some(Self::Upgrade),
            10 if is(b"keep-alive") => Some(Self::KeepAlive),
            _ => None,
        }
    }
}

/// The value of a field that is there once.
#[must_use]
pub fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// True when the list `value` names `token`, whatever its quality.
pub fn has_token(value: &[u8], token: &[u8]) -> bool {
    let named = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    named.into_iter().any(|named| named.eq_ignore_ascii_case(token))
}

/// True for the fields with which proxies say who is asking, and how; a stranger's are dropped at the gate, also those that only
/// somebody behind us may read (`X-Forwarded-User`, `X-Forwarded-Prefix`, `X-Real-IP`).
pub(super) fn is_forwarding(name: &HeaderName) -> bool {
    Note::of(name.as_str().as_bytes()) == Some(Note::Forwarding)
}

/// True for those of them that are written anew in any case.
fn is_ours(name: &HeaderName) -> bool {
    [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT, FORWARDED].contains(name)
}

/// Who is asking. What `known` says of it has passed the gate, so it is a trusted proxy's word, or the operator's, and is kept.
fn write_forwarding(out: &mut Vec<u8>, known: Option<&Fields>, origin: Origin<'_>) {
    if let Some(known) = known {
        let known: &HeaderMap = known;
        origin.caller.write(out, Some(known));
        let host = known.get(X_FORWARDED_HOST).map_or(origin.asked, HeaderValue::as_bytes);
        append(out, b"x-forwarded-host", host);
        for forwarded in known.get_all(FORWARDED) {
            append(out, b"forwarded", forwarded.as_bytes());
        }
    } else {
        out.extend_from_slice(origin.introduction);
        append(out, b"x-forwarded-host", origin.asked);
    }
    if origin.forwarded {
        write_forwarded(out, origin);
    }
}

/// By which protocol the request came, and to whom (RFC 9110 §7.6.3).
fn write_via(out: &mut Vec<u8>, received: Version, name: &str) {
    out.extend_from_slice(match received {
        Version::HTTP_2 => b"via: 2 ",
        Version::HTTP_10 => b"via: 1.0 ",
        _ => b"via: 1.1 ",
    });
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Our own element of `Forwarded` (RFC 7239). The host has passed the gate: there is nothing in it to escape.
fn write_forwarded(out: &mut Vec<u8>, origin: Origin<'_>) {
    let client = match origin.caller.client {
        Some(v6) if v6.contains(':') => format!("\"[{v6}]\""),
        Some(v4) => v4.to_owned(),
        None => "unknown".to_owned(),
    };
    for part in [b"forwarded: for=", client.as_bytes(), b";host=\"", origin.asked, b"\";proto="] {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(origin.caller.scheme.as_bytes());
    out.extend_from_slice(b"\r\n");
}
