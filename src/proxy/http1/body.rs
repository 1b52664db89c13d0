//! A body as it is framed after a head: a length, chunks, or everything until the endpoint closes.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::extensions::are_extensions;
use super::{MAX_FIELDS, MAX_HEAD, Malformed, has_bare_line_feed, pass_over};
use crate::proxy::{headers, trailers};

/// Longest chunk-size line with its extensions, in bytes.
pub(super) const MAX_CHUNK_LINE: usize = 16 * 1024;

/// Takes a body off the bytes that follow a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    /// So many bytes are left.
    Length(u64),
    /// Chunked coding.
    Chunked(Chunks),
    /// Everything until the endpoint closes.
    UntilClose,
}

/// Where in the chunked coding the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunks {
    /// At a chunk-size line.
    Size,
    /// So many bytes of a chunk are left, its line end not counted.
    Data(u64),
    /// At the line end after a chunk.
    DataEnd,
    /// At a trailer section.
    Trailers,
    /// Behind the last byte.
    End,
}

/// What a decoder made of some bytes.
#[derive(Debug)]
pub enum Decoded {
    /// Bytes of the body, at least one.
    Data(Bytes),
    /// The trailers; nothing follows.
    Trailers(HeaderMap),
    /// The body is over.
    End,
    /// More bytes are needed.
    More,
}

impl Decoder {
    /// True when the body is over and was delimited.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::End))
    }

    /// How many bytes are left, if that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// So many bytes of a body of a known length were taken by others.
    pub fn pass(&mut self, bytes: u64) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(bytes);
        }
    }

    /// Takes the next part of the body off the front of `input`.
    ///
    /// # Errors
    /// [`Malformed`]; the connection is then of no further use.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Decoded, Malformed> {
        match self {
            Self::Length(0) | Self::Chunked(Chunks::End) => Ok(Decoded::End),
            _ if input.is_empty() => Ok(Decoded::More),
            Self::Length(left) => Ok(Decoded::Data(take(input, left))),
            Self::UntilClose => Ok(Decoded::Data(std::mem::take(input))),
            Self::Chunked(chunks) => chunks.decode(input),
        }
    }
}

/// At most `left` bytes off the front; counts them off.
fn take(input: &mut Bytes, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    input.split_to(length)
}

impl Chunks {
    fn decode(&mut self, input: &mut Bytes) -> Result<Decoded, Malformed> {
        loop {
            match self {
                Self::Size => match chunk_size(input)? {
                    None => return Ok(Decoded::More),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Data(size),
                },
                Self::Data(left) => {
                    if input.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let data = take(input, left);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Decoded::Data(data));
                }
                Self::DataEnd => match input.as_ref() {
                    [] | [b'\r'] => return Ok(Decoded::More),
                    [b'\r', b'\n', ..] => {
                        pass_over(input, 2);
                        *self = Self::Size;
                    }
                    _ => return Err(Malformed::Chunk),
                },
                Self::Trailers => {
                    let Some(trailers) = trailers(input)? else { return Ok(Decoded::More) };
                    *self = Self::End;
                    return Ok(if trailers.is_empty() { Decoded::End } else { Decoded::Trailers(trailers) });
                }
                Self::End => return Ok(Decoded::End),
            }
        }
    }
}

/// Takes a chunk-size line; its extensions mean nothing (RFC 9112 §7.1.1).
fn chunk_size(input: &mut Bytes) -> Result<Option<u64>, Malformed> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        let hopeless = input.len() > MAX_CHUNK_LINE || !input.first().is_none_or(u8::is_ascii_hexdigit);
        return if hopeless { Err(Malformed::Chunk) } else { Ok(None) };
    };
    let line = input[..end].strip_suffix(b"\r").ok_or(Malformed::Chunk)?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at(digits);
    if !(1..=15).contains(&digits) || end > MAX_CHUNK_LINE || !are_extensions(rest) {
        return Err(Malformed::Chunk);
    }
    let size = number.iter().fold(0u64, |size, digit| size << 4 | u64::from(hex(*digit)));
    pass_over(input, end + 1);
    Ok(Some(size))
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// Takes a trailer section with its closing empty line; fields that frame or route are dropped (RFC 9110 §6.5.1).
fn trailers(input: &mut Bytes) -> Result<Option<HeaderMap>, Malformed> {
    if input.starts_with(b"\r\n") {
        pass_over(input, 2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let (length, fields) = match httparse::parse_headers(input, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) if length <= MAX_HEAD => (length, fields),
        Ok(httparse::Status::Partial) if input.len() <= MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
        Err(_) => return Err(Malformed::Chunk),
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Chunk)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed::Chunk)?;
        if trailers::may_be_trailer(&name) {
            trailers.append(name, value);
        }
    }
    if has_bare_line_feed(&input[..length]) {
        return Err(Malformed::Chunk);
    }
    pass_over(input, length);
    Ok(Some(trailers))
}

/// Appends the line that begins a chunk of `length` bytes, which must not be 0: that would end the body.
pub fn encode_size(out: &mut Vec<u8>, length: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let significant = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for nibble in (0..significant).rev() {
        out.push(DIGITS[(length >> (nibble * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends one chunk.
pub fn encode_chunk(out: &mut Vec<u8>, data: &[u8]) {
    encode_size(out, data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk with the trailers that may be sent.
pub fn encode_end(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if trailers::may_be_trailer(name) {
            headers::append(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}
