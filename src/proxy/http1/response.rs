//! A response's head as an endpoint sends it.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{Method, StatusCode};

use super::{
    Chunks, Decoder, MAX_FIELDS, MAX_HEAD, Malformed, VERSION, as_known, before_fields, decimal,
    has_bare_line_feed, pass_over,
};
use crate::proxy::fields::{Fields, Lines, Note};
use crate::proxy::headers::{self, ConnectionOption};

/// A response's head, hop-by-hop fields already dropped, but for the `Upgrade` of a 426, which is its point (RFC 9110 §15.5.22),
/// and that of a 101 which is no WebSocket's.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The end-to-end fields, in order.
    pub headers: Fields,
    /// How the body is delimited.
    pub body: Decoder,
    /// True when the endpoint keeps the connection open afterwards.
    pub keep_alive: bool,
    /// What it changes the protocol to, if it does.
    pub change: Option<Change>,
}

/// A change of protocol that an endpoint has made: to one, and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// To WebSocket.
    Websocket,
    /// To what the `Upgrade` among the fields says.
    Other,
}

/// Schemes of authentication (RFC 9110 §11.1) by which a connection is authenticated, and not the request alone (RFC 4559 §6).
const OF_CONNECTIONS: [&[u8]; 3] = [b"ntlm", b"negotiate", b"nego2"];

impl Head {
    /// True when the endpoint may take whoever asks next on the connection for who has asked now.
    #[must_use]
    pub fn authenticates_connection(&self) -> bool {
        // In a parameter's value such a word means nothing, and costs a connection.
        let names_one = |value: &[u8]| {
            let mut words = value.split(|byte| !byte.is_ascii_alphanumeric());
            words.any(|word| OF_CONNECTIONS.iter().any(|scheme| word.eq_ignore_ascii_case(scheme)))
        };
        self.headers.has(Note::WwwAuthenticate) && self.headers.has_any(WWW_AUTHENTICATE.as_str(), names_one)
    }
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
        Err(httparse::Error::Version) => {
            *input = as_known(input, VERSION).ok_or(Malformed::Head)?;
            return parse_head(input, method);
        }
        Err(_) => return Err(Malformed::Head),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::Head)?;
    let version = response.version.ok_or(Malformed::Head)?;
    let start = before_fields(&input[..length], response.headers);
    if has_bare_line_feed(&input[..start]) {
        return Err(Malformed::Head);
    }
    let Connection { close, keep_alive, upgrade, nominated } = Connection::of(response.headers);
    let (mut websockets, mut others) = (0, 0);
    let mut framing = Framing::default();
    let mut lines = Lines::of_answer(input.slice(start..length));
    for (index, field) in response.headers.iter().enumerate() {
        let line = lines.line(response.headers, index).ok_or(Malformed::Head)?;
        let (name, value) = (field.name.as_bytes(), field.value);
        let note = Note::of(name);
        match note {
            Some(Note::TransferEncoding) => framing.transfer_encoding(value)?,
            Some(Note::ContentLength) => framing.content_length(value)?,
            Some(Note::Upgrade) if status == StatusCode::UPGRADE_REQUIRED => {
                lines.see(note, value);
                lines.pass(line);
            }
            // Counted so that only one is right.
            Some(Note::Upgrade) if value.eq_ignore_ascii_case(b"websocket") => websockets += 1,
            Some(Note::Upgrade) if status == StatusCode::SWITCHING_PROTOCOLS => {
                others += 1;
                lines.see(note, value);
                lines.pass(line);
            }
            Some(note) if note.is_hop_by_hop() => {}
            _ if is_nominated(&nominated, name) => {}
            note => {
                lines.see(note, value);
                lines.pass(line);
            }
        }
    }
    // Of an interim answer it means nothing (RFC 9110 §8.6).
    lines.told(framing.length.filter(|_| !framing.chunked && !status.is_informational()));
    let body = framing.decoder(status, method, version)?;
    pass_over(input, length);
    let keep_alive = !close && (version == 1 || keep_alive) && !matches!(body, Decoder::UntilClose);
    let change = match (websockets, others) {
        _ if status != StatusCode::SWITCHING_PROTOCOLS || !upgrade => None,
        (1, 0) => Some(Change::Websocket),
        (0, 1) => Some(Change::Other),
        _ => None,
    };
    Ok(Some(Head { status, headers: lines.into(), body, keep_alive, change }))
}

fn is_nominated(nominated: &[Bytes], name: &[u8]) -> bool {
    nominated.iter().any(|token| name.eq_ignore_ascii_case(token))
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
                match ConnectionOption::of(token) {
                    Some(ConnectionOption::Close) => connection.close = true,
                    Some(ConnectionOption::KeepAlive) => connection.keep_alive = true,
                    Some(ConnectionOption::Upgrade) => connection.upgrade = true,
                    None if token.is_empty() || headers::is_protected(token) => {}
                    None => connection.nominated.push(Bytes::copy_from_slice(token)),
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
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let only_chunked = value.eq_ignore_ascii_case(b"chunked") && !self.chunked;
        self.chunked = true;
        if only_chunked { Ok(()) } else { Err(Malformed::Framing) }
    }

    /// Of two equal lengths the second is dropped, as RFC 9110 §8.6 allows.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let length = decimal(value).ok_or(Malformed::Framing)?;
        let before = self.length.replace(length);
        if before.is_some_and(|before| before != length) { Err(Malformed::Framing) } else { Ok(()) }
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
