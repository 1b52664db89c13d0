//! HTTP/1.1 towards an endpoint: heads, framing and chunks, without I/O.
//!
//! Strict in what it accepts (RFC 9112): an answer whose framing could be read in two ways is an error, never repaired.
//! Most requests go this way, and hyper's client is what costs most on it: 8,300 instructions a request were measured.

mod body;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

pub use body::{Chunks, Decoded, Decoder, encode_chunk, encode_end};

use crate::proxy::headers;

/// Most fields of a response head or of its trailers.
const MAX_FIELDS: usize = 128;
/// Longest response head, or trailer section, in bytes.
pub const MAX_HEAD: usize = 64 * 1024;

/// Why an endpoint's bytes are not an HTTP/1.1 response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The head does not parse.
    #[error("malformed response head")]
    Head,
    /// The head, or the trailers, are longer than [`MAX_HEAD`] or have too many fields.
    #[error("response head too large")]
    TooLarge,
    /// The body's length is ambiguous.
    #[error("ambiguous response length")]
    Framing,
    /// The chunked coding is broken.
    #[error("malformed chunk")]
    Chunk,
    /// 101 without having been asked.
    #[error("unasked-for upgrade")]
    Upgrade,
}

/// A response's head, hop-by-hop fields already dropped.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The end-to-end fields, in order.
    pub headers: HeaderMap,
    /// How the body is delimited.
    pub body: Decoder,
    /// True when the endpoint keeps the connection open afterwards.
    pub keep_alive: bool,
}

/// Takes a response head off the front of `input`, if it is all there. Its values share `input`'s memory.
///
/// # Errors
/// [`Malformed`]; the connection is then of no further use.
pub fn parse_head(input: &mut Bytes, method: &Method) -> Result<Option<Head>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        &mut fields,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if input.len() <= MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
        Err(_) => return Err(Malformed::Head),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::Head)?;
    let version = response.version.ok_or(Malformed::Head)?;
    if has_bare_line_feed(&input[..length]) {
        return Err(Malformed::Head);
    }
    let Connection { close, keep_alive, nominated } = Connection::of(response.headers);
    let mut framing = Framing::default();
    let mut kept = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Head)?;
        let value =
            HeaderValue::from_maybe_shared(input.slice_ref(field.value)).map_err(|_| Malformed::Head)?;
        if name == TRANSFER_ENCODING {
            framing.transfer_encoding(&value)?;
        } else if name == CONTENT_LENGTH {
            // The second of two equal lengths is dropped, as RFC 9110 §8.6 allows.
            // An interim answer has no content, whatever it says (RFC 9110 §8.6).
            if framing.content_length(&value)? && !status.is_informational() {
                kept.append(name, value);
            }
        } else if !headers::is_hop_by_hop(&name) && !is_nominated(&nominated, &name) {
            kept.append(name, value);
        }
    }
    let body = framing.decoder(status, method, version)?;
    if matches!(body, Decoder::Chunked(_)) {
        kept.remove(CONTENT_LENGTH);
    }
    input.advance(length);
    let keep_alive = !close && (version == 1 || keep_alive) && !matches!(body, Decoder::UntilClose);
    Ok(Some(Head { status, headers: kept, body, keep_alive }))
}

fn is_nominated(nominated: &[Bytes], name: &HeaderName) -> bool {
    nominated.iter().any(|token| name.as_str().as_bytes().eq_ignore_ascii_case(token))
}

/// True when a line feed comes without its carriage return; httparse lets that pass.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

/// What the `Connection` field says.
#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    nominated: Vec<Bytes>,
}

impl Connection {
    fn of(fields: &[httparse::Header<'_>]) -> Self {
        let mut connection = Self::default();
        for field in fields.iter().filter(|field| field.name.eq_ignore_ascii_case("connection")) {
            for token in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if token.eq_ignore_ascii_case(b"close") {
                    connection.close = true;
                } else if token.eq_ignore_ascii_case(b"keep-alive") {
                    connection.keep_alive = true;
                } else if !token.is_empty() && !headers::is_protected(token) {
                    connection.nominated.push(Bytes::copy_from_slice(token));
                }
            }
        }
        connection
    }
}

/// The fields that delimit a body, as they are read.
#[derive(Default)]
struct Framing {
    chunked: bool,
    length: Option<u64>,
}

impl Framing {
    fn transfer_encoding(&mut self, value: &HeaderValue) -> Result<(), Malformed> {
        let only_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked") && !self.chunked;
        self.chunked = true;
        if only_chunked { Ok(()) } else { Err(Malformed::Framing) }
    }

    /// False when the same length was given before.
    fn content_length(&mut self, value: &HeaderValue) -> Result<bool, Malformed> {
        let length = decimal(value.as_bytes()).ok_or(Malformed::Framing)?;
        match self.length.replace(length) {
            None => Ok(true),
            Some(before) if before == length => Ok(false),
            Some(_) => Err(Malformed::Framing),
        }
    }

    /// RFC 9112 §6.3.
    fn decoder(self, status: StatusCode, method: &Method, version: u8) -> Result<Decoder, Malformed> {
        if self.chunked && (self.length.is_some() || version == 0) {
            return Err(Malformed::Framing);
        }
        let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
        if bodiless && self.chunked {
            return Err(Malformed::Framing);
        }
        if bodiless || status == StatusCode::NOT_MODIFIED || method == Method::HEAD {
            return Ok(Decoder::Length(0));
        }
        Ok(match (self.chunked, self.length) {
            (true, _) => Decoder::Chunked(Chunks::Size),
            (false, Some(length)) => Decoder::Length(length),
            (false, None) => Decoder::UntilClose,
        })
    }
}

/// Digits only, at most 19 of them and below 2⁶³: no sign, no list, no overflow.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        text.iter().fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
    (value < 1 << 63).then_some(value)
}
