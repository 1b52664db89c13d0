//! A request's head as a client sends it.
//!
//! What two readers could frame differently is refused, never repaired: a length beside a coding, a length twice, any
//! coding but `chunked`, a line that ends with a bare line feed (RFC 9112 §6.3, §11.2). What the request *means* is the
//! [gate](crate::proxy::gate)'s to judge.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Extensions, Method, Uri, Version};

use super::{Chunks, Decoder, MAX_FIELDS, as_known, before_fields, decimal, has_bare_line_feed, pass_over};
use crate::proxy::fields::{Lines, Note};
use crate::proxy::head::Parts;
use crate::proxy::headers;

/// The longest target that there can be, in bytes: the crate http's [`Uri`] has no room for more.
const MOST_TARGET: usize = u16::MAX as usize - 1;

/// A request's head and how its body is delimited.
#[derive(Debug)]
pub struct Request {
    /// Method, target, version and all fields, as they came.
    pub head: Box<Parts>,
    /// How the body is delimited; at its end when there is none.
    pub body: Decoder,
    /// True when the client keeps the connection open afterwards.
    pub keep_alive: bool,
}

/// Why a head is no request. Nothing behind it may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It does not parse, or could be framed in two ways.
    Malformed,
    /// It is longer than it may be, or has too many fields.
    TooLarge,
    /// Its first line alone is.
    TargetTooLong,
    /// It is not of HTTP/1.
    Version,
}

/// Takes a request's head off the front of `input`, if it is all there: at most `most_bytes` long, with at most
/// `most_fields` fields. Its values share `input`'s memory.
///
/// # Errors
/// [`Refused`].
pub fn parse_request(
    input: &mut Bytes,
    most_bytes: usize,
    most_fields: usize,
) -> Result<Option<Request>, Refused> {
    // Empty lines before a request are passed over (RFC 9112 §2.2).
    while input.starts_with(b"\r\n") {
        pass_over(input, 2);
    }
    let read = if most_fields <= MAX_FIELDS {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        read(input, most_bytes, &mut fields[..most_fields])
    } else {
        read(input, most_bytes, &mut vec![MaybeUninit::uninit(); most_fields])
    };
    match read {
        Ok(read) => Ok(read.map(|(length, request)| {
            pass_over(input, length);
            request
        })),
        Err(Refused::Version) => {
            let known = first_line(input).and_then(|line| as_known(input, line.len()));
            *input = known.ok_or(Refused::Version)?;
            parse_request(input, most_bytes, most_fields)
        }
        Err(refused) => Err(refused),
    }
}

/// The request at the front of `source`, and how long its head is.
fn read<'s>(
    source: &'s Bytes,
    most_bytes: usize,
    fields: &mut [MaybeUninit<httparse::Header<'s>>],
) -> Result<Option<(usize, Request)>, Refused> {
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(source, fields) {
        Ok(httparse::Status::Complete(length)) if length <= most_bytes => length,
        Ok(httparse::Status::Partial) if source.len() < most_bytes => return Ok(None),
        Ok(_) if is_one_line(&source[..most_bytes]) => return Err(Refused::TargetTooLong),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooLarge),
        // In which way is seen by the whole line alone, however it comes.
        Err(httparse::Error::Version) => {
            return match first_line(&source[..source.len().min(most_bytes)]) {
                None if source.len() < most_bytes => Ok(None),
                Some(line) if is_of_later_version(line) => Err(Refused::Version),
                Some(_) | None => Err(Refused::Malformed),
            };
        }
        Err(_) => return Err(Refused::Malformed),
    };
    let start = before_fields(&source[..length], parsed.headers);
    if has_bare_line_feed(&source[..start]) {
        return Err(Refused::Malformed);
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refused::Malformed);
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refused::Malformed)?;
    let uri = uri(source.slice_ref(target.as_bytes()), &method)?;
    let version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut framing = Framing::default();
    let mut lines = Lines::of_request(source.slice(start..length));
    // Looked for once: most heads have none, in names or values.
    let may_be_odd = memchr::memchr(b'_', &source[start..length]).is_some();
    for (index, field) in parsed.headers.iter().enumerate() {
        let line = lines.line(parsed.headers, index).ok_or(Refused::Malformed)?;
        let note = Note::of(field.name.as_bytes());
        lines.see(note, field.value);
        if may_be_odd && field.name.as_bytes().contains(&b'_') {
            lines.underscore();
        }
        match note {
            None | Some(Note::ContentType | Note::Date | Note::WwwAuthenticate | Note::Baggage) => {
                lines.pass(line);
            }
            Some(note) => framing.see(note, field.value, &mut lines)?,
        }
    }
    let body = framing.decoder(minor)?;
    let keep_alive = !framing.close && (minor == 1 || framing.keep_alive);
    // Boxed: it goes through several hands.
    let head = Box::new(Parts { method, uri, version, headers: lines.into(), extensions: Extensions::new() });
    Ok(Some((length, Request { head, body, keep_alive })))
}

/// True when the first line of a head does not end in this part of it.
fn is_one_line(part: &[u8]) -> bool {
    memchr::memchr(b'\n', part).is_none()
}

/// The first line, if it is all there.
fn first_line(head: &[u8]) -> Option<&[u8]> {
    memchr::memchr2(b'\r', b'\n', head).map(|end| &head[..end])
}

/// True when the version of a request's line is sound, and later than those that are known (RFC 9112 §2.3).
fn is_of_later_version(line: &[u8]) -> bool {
    let version = line.rsplit(|byte| *byte == b' ').next().and_then(|word| word.strip_prefix(b"HTTP/"));
    matches!(version, Some([b'1', b'.', b'2'..=b'9'] | [b'2'..=b'9', b'.', b'0'..=b'9']))
}

/// A target has no fragment (RFC 9112 §3.2); one that came would be dropped without a word.
fn uri(target: Bytes, method: &Method) -> Result<Uri, Refused> {
    if memchr::memchr(b'#', &target).is_some() {
        return Err(Refused::Malformed);
    }
    let length = target.len();
    let uri = Uri::from_maybe_shared(target)
        .map_err(|_| if length > MOST_TARGET { Refused::TargetTooLong } else { Refused::Malformed })?;
    let is_whole = uri.scheme().is_some();
    if is_whole { with_path(uri, length, method).ok_or(Refused::Malformed) } else { Ok(uri) }
}

/// A whole URI, as long as it came, may have an empty path, which is `/` (RFC 9110 §4.2.3). Without a query either, OPTIONS asks
/// for the server itself (RFC 9112 §3.2.4).
fn with_path(uri: Uri, length: usize, method: &Method) -> Option<Uri> {
    let mut parts = uri.into_parts();
    let target = parts.path_and_query?;
    let before =
        parts.scheme.as_ref()?.as_str().len() + "://".len() + parts.authority.as_ref()?.as_str().len();
    parts.path_and_query = Some(match target.as_str() {
        "/" if before == length && *method == Method::OPTIONS => PathAndQuery::from_static("*"),
        // Written, it has a path.
        bare if bare.starts_with('?') => target.to_string().parse().ok()?,
        _ => target,
    });
    Uri::from_parts(parts).ok()
}

/// The fields that frame the message and keep the connection, as they are read.
#[derive(Default)]
struct Framing {
    chunked: bool,
    length: Option<u64>,
    close: bool,
    keep_alive: bool,
}

impl Framing {
    fn see(&mut self, note: Note, value: &[u8], lines: &mut Lines) -> Result<(), Refused> {
        match note {
            Note::ContentLength => {
                let length = decimal(value).filter(|_| self.length.is_none());
                self.length = Some(length.ok_or(Refused::Malformed)?);
            }
            Note::TransferEncoding => {
                let is_sound = !self.chunked && value.eq_ignore_ascii_case(b"chunked");
                self.chunked = true;
                return if is_sound { Ok(()) } else { Err(Refused::Malformed) };
            }
            Note::Connection => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    match headers::ConnectionOption::of(option) {
                        Some(headers::ConnectionOption::Close) => self.close = true,
                        Some(headers::ConnectionOption::KeepAlive) => self.keep_alive = true,
                        Some(headers::ConnectionOption::Upgrade) => {}
                        None if option.is_empty() || headers::is_protected(option) => {}
                        None => lines.nominate(),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 §6.3; a request never lasts until the connection closes.
    fn decoder(&self, minor: u8) -> Result<Decoder, Refused> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refused::Malformed),
            // HTTP/1.0 knows no codings: who sends one is not who it seems.
            (true, None) if minor == 0 => Err(Refused::Malformed),
            (true, None) => Ok(Decoder::Chunked(Chunks::Size)),
            (false, length) => Ok(Decoder::Length(length.unwrap_or(0))),
        }
    }
}
