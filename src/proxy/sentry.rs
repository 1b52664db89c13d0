//! The sentry: reads a client's bytes before hyper does, and lets nothing pass whose end two readers could see differently.
//!
//! hyper drops `Content-Length` beside `Transfer-Encoding`, takes lists of codings and equal lengths twice, and ends lines
//! at a bare line feed: each of them a way to smuggle a request past one of two readers (RFC 9112 §11.2). The sentry
//! follows the stream from head to head (lines, the two framing fields, lengths, chunks) and judges those alone;
//! everything else in a head is hyper's and the gate's.
//!
//! It is strict where it need not agree with hyper: what either of them refuses is refused, so both must only be right
//! about what is valid. 420 instructions were measured for a GET of 200 bytes, 310 for one of 40; a head that frames a
//! body, or that comes in pieces, costs 90 a line.

/// Follows one connection's bytes.
#[derive(Debug, Default)]
pub struct Sentry {
    at: At,
    /// The beginning of a line that came without its end.
    line: Vec<u8>,
    length: Option<u64>,
    is_chunked: bool,
}

/// Where in the stream the next byte stands.
///
/// ```text
/// Start ─ request line ─▶ Fields ─ empty line ─▶ Body(n) ─▶ Start
///                            │                ─▶ Chunks ──▶ Start
///                            └── anything ambiguous ──▶ Refused
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Start,
    Fields,
    Body(u64),
    Chunks(Chunks),
    Refused(Refused),
}

/// Where in the chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    /// In the size; so many digits so far.
    Size(u64, u32),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
    InTrailer,
    TrailerLf,
    EndLf,
}

/// What the sentry refuses; nothing of it, or after it, may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A head, which never becomes a request.
    Head,
    /// A chunk: the request that it belongs to cannot be finished.
    Chunk,
}

impl Sentry {
    /// Follows the next bytes: how many of them may be read, all unless something was [refused](Self::refused).
    pub fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut from = 0;
        while from < bytes.len() {
            let rest = &bytes[from..];
            from += match &mut self.at {
                At::Start | At::Fields => match self.head(rest) {
                    Some(taken) => taken,
                    None => self.refuse(Refused::Head),
                },
                At::Body(left) => {
                    let taken = skip(left, rest);
                    if *left == 0 {
                        self.at = At::Start;
                    }
                    taken
                }
                At::Chunks(chunks) => match chunks.follow(rest) {
                    Some((taken, is_end)) => {
                        if is_end {
                            self.at = At::Start;
                        }
                        taken
                    }
                    None => self.refuse(Refused::Chunk),
                },
                At::Refused(_) => break,
            };
        }
        from
    }

    #[cold]
    fn refuse(&mut self, refused: Refused) -> usize {
        self.at = At::Refused(refused);
        0
    }

    /// What was refused, for good.
    #[must_use]
    pub fn refused(&self) -> Option<Refused> {
        match self.at {
            At::Refused(refused) => Some(refused),
            At::Start | At::Fields | At::Body(_) | At::Chunks(_) => None,
        }
    }

    /// True when the client is in the middle of a head.
    #[must_use]
    pub fn is_in_head(&self) -> bool {
        self.at == At::Fields || !self.line.is_empty()
    }

    /// True when the client is in the middle of a body.
    #[must_use]
    pub fn is_in_body(&self) -> bool {
        matches!(self.at, At::Body(_) | At::Chunks(_))
    }

    /// True when every request that was begun has been read to its end.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.at == At::Start && self.line.is_empty()
    }

    /// Takes lines up to the end of the head or of `bytes`; `None` for a head that must not pass.
    fn head(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut start = 0;
        if self.line.is_empty() {
            if self.at == At::Start && is_plain(bytes) {
                return Some(bytes.len());
            }
        } else {
            let Some(end) = memchr::memchr(b'\n', bytes) else { return Some(self.carry(bytes, 0)) };
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..end]);
            start = end + 1;
            if self.line(&line)? {
                return Some(start);
            }
        }
        let from = start;
        for end in memchr::memchr_iter(b'\n', &bytes[from..]) {
            let end = from + end;
            let is_last = self.line(&bytes[start..end])?;
            start = end + 1;
            if is_last {
                return Some(start);
            }
        }
        Some(self.carry(bytes, start))
    }

    /// Keeps the line that begins at `start` for its end to come; all bytes are taken then.
    #[cold]
    fn carry(&mut self, bytes: &[u8], start: usize) -> usize {
        self.line.extend_from_slice(&bytes[start..]);
        bytes.len()
    }

    /// One line without its line feed; true when it was the head's last.
    #[inline]
    fn line(&mut self, line: &[u8]) -> Option<bool> {
        let [line @ .., b'\r'] = line else { return None };
        if self.at == At::Start {
            // Empty lines before a request are passed over (RFC 9112 §2.2).
            if !line.is_empty() {
                self.at = At::Fields;
            }
            return Some(false);
        }
        match line {
            [] => self.at = self.body()?,
            // Both names have a hyphen that few others have there.
            [b'c' | b'C', _, _, _, _, _, _, b'-', ..] => self.content_length(line)?,
            [b't' | b'T', _, _, _, _, _, _, _, b'-', ..] => self.transfer_encoding(line)?,
            [..] => {}
        }
        Some(line.is_empty())
    }

    /// What follows the head; forgets its framing.
    fn body(&mut self) -> Option<At> {
        match (std::mem::take(&mut self.is_chunked), self.length.take()) {
            (false, None | Some(0)) => Some(At::Start),
            (false, Some(length)) => Some(At::Body(length)),
            (true, None) => Some(At::Chunks(Chunks::Size(0, 0))),
            (true, Some(_)) => None,
        }
    }

    /// Once, digits only, at most 19 of them and below 2⁶³: no sign, no list, no overflow.
    fn content_length(&mut self, line: &[u8]) -> Option<()> {
        let Some(value) = value_of(line, b"content-length") else { return Some(()) };
        if self.length.is_some() || value.is_empty() || value.len() > 19 {
            return None;
        }
        let add = |sum: u64, byte: &u8| {
            byte.is_ascii_digit().then(|| sum.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')))
        };
        self.length = value.iter().try_fold(0, add).filter(|length| *length < 1 << 63);
        self.length.map(drop)
    }

    /// Once, and nothing but `chunked`.
    fn transfer_encoding(&mut self, line: &[u8]) -> Option<()> {
        let Some(value) = value_of(line, b"transfer-encoding") else { return Some(()) };
        let is_sound = !self.is_chunked && value.eq_ignore_ascii_case(b"chunked");
        self.is_chunked = true;
        is_sound.then_some(())
    }
}

/// True for one whole head without a framing field, as most are: then there is nothing to follow. Never true for
/// anything else. Written so that the compiler looks at many bytes at once: a third of the work of going line by line.
fn is_plain(bytes: &[u8]) -> bool {
    let Some(last) = bytes.len().checked_sub(BLOCK + REACH) else { return false };
    let whole = last - last % BLOCK + BLOCK;
    // The last block overlaps the one before, and ends where no framing field would fit any more.
    let is_odd = is_odd(&bytes[..whole + REACH]) | is_odd(&bytes[last..]);
    let ends = &bytes[bytes.len() - REACH..];
    !is_odd && bytes[0] > b' ' && ends.ends_with(b"\r\n\r\n") && !ends[1..6].contains(&b'\n')
}

const BLOCK: usize = 32;
/// How far around a byte is looked: one before it and nine behind.
const REACH: usize = 10;

/// True when one of the bytes, [`REACH`] taken off, is a line feed without its carriage return, or before an empty line, or
/// before a field that may frame: both names have a hyphen where few others have one.
fn is_odd(bytes: &[u8]) -> bool {
    let count = bytes.len() - REACH;
    let behind = |by: usize| bytes[by..][..count].iter();
    let lines = std::iter::zip(behind(0), behind(1));
    let names = std::iter::zip(behind(2), std::iter::zip(behind(9), behind(10)));
    let mut odd = 0;
    for ((before, here), (first, (seventh, eighth))) in std::iter::zip(lines, names) {
        let letter = first | 0x20;
        let may_frame = (letter == b'c') & (*seventh == b'-') | (letter == b't') & (*eighth == b'-');
        odd |= u8::from((*here == b'\n') & ((*before != b'\r') | (*first == b'\r') | may_frame));
    }
    odd != 0
}

/// The value of the field on this line, if it is the field `name`.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (given, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":").filter(|_| given.eq_ignore_ascii_case(name))?;
    Some(value.trim_ascii())
}

/// Passes over at most `left` bytes and counts them off.
fn skip(left: &mut u64, bytes: &[u8]) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= taken as u64;
    taken
}

impl Chunks {
    /// Takes bytes up to the end of the body or of `bytes`: how many, and whether the body is over.
    fn follow(&mut self, bytes: &[u8]) -> Option<(usize, bool)> {
        let mut at = 0;
        while at < bytes.len() {
            if let Self::Data(left) = self {
                at += skip(left, &bytes[at..]);
                if *left == 0 {
                    *self = Self::DataCr;
                }
                continue;
            }
            let is_last = *self == Self::EndLf;
            *self = self.after(bytes[at])?;
            at += 1;
            if is_last {
                return Some((at, true));
            }
        }
        Some((at, false))
    }

    /// One byte that is not data (RFC 9112 §7.1). White space behind a size is read as an extension: hyper, which reads
    /// it too, knows better what may follow.
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size(size, digits @ ..15), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                Self::Size(size << 4 | u64::from(char::from(byte).to_digit(16)?), digits + 1)
            }
            (Self::Size(size, 1..), b'\r') | (Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (Self::Size(size, 1..), b';' | b' ' | b'\t') => Self::Extension(size),
            (Self::Extension(size), b' '..=b'~' | b'\t' | 0x80..) => Self::Extension(size),
            (Self::SizeEnd(0), b'\n') => Self::Trailer,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size(0, 0),
            (Self::Trailer, b'\r') => Self::EndLf,
            (Self::InTrailer, b'\r') => Self::TrailerLf,
            (Self::Trailer | Self::InTrailer, 1..=9 | 11..) => Self::InTrailer,
            (Self::TrailerLf, b'\n') => Self::Trailer,
            // The caller sees that this was the last byte.
            (Self::EndLf, b'\n') => Self::Trailer,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
