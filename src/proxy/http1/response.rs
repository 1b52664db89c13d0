//! A response's head as an endpoint sends it.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::{Chunks, Decoder, MAX_FIELDS, MAX_HEAD, Malformed, decimal, has_bare_line_feed};
use crate::proxy::headers;

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
    /// True when it changes to WebSocket, and to nothing else.
    pub to_websocket: bool,
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
    let Connection { close, keep_alive, upgrade, nominated } = Connection::of(response.headers);
    let mut protocol = 0;
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
        } else if name == UPGRADE {
            // Counted so that only one, and this one, is right.
            protocol += if value.as_bytes().eq_ignore_ascii_case(b"websocket") { 1 } else { 2 };
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
    let to_websocket = status == StatusCode::SWITCHING_PROTOCOLS && upgrade && protocol == 1;
    Ok(Some(Head { status, headers: kept, body, keep_alive, to_websocket }))
}

fn is_nominated(nominated: &[Bytes], name: &HeaderName) -> bool {
    nominated.iter().any(|token| name.as_str().as_bytes().eq_ignore_ascii_case(token))
}

/// What the `Connection` field says.
#[derive(Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
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
                } else if token.eq_ignore_ascii_case(b"upgrade") {
                    connection.upgrade = true;
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
