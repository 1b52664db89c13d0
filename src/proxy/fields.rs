//! The fields of a message: as they came, and as a map for who asks.
//!
//! Most messages only pass. So what came over HTTP/1.1 stays the bytes that were read, with [notes](Note) of what was seen
//! on the way through them, and what passes is copied in a few runs. A map is made of it when somebody looks for a field
//! without a note (as a [`HeaderMap`], by dereferencing), and takes its place for good when a field is changed.

mod note;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

pub use note::Note;

use super::headers::{self, append};

/// The fields of a request, or of an answer without those that were for one connection only.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    /// As they came, unless they came as a map or were changed since. Boxed: an answer goes through many hands.
    lines: Option<Box<Lines>>,
    /// Else. Boxed: hardly any message over HTTP/1.1 needs it.
    map: Option<Box<HeaderMap>>,
}

/// The lines of a head that was found to be sound.
#[derive(Debug, Clone)]
pub struct Lines {
    /// All lines, one behind the other.
    section: Bytes,
    /// Those that pass as they are, as ranges of `section`; but for the last range.
    runs: SmallVec<[(usize, usize); 2]>,
    /// To which the next line may belong.
    last: (usize, usize),
    seen: u32,
    twice: u32,
    /// The value of `Host`, which everybody wants.
    host: (usize, usize),
    kind: Kind,
    /// The map of them. Boxed: hardly anybody asks for it.
    map: OnceCell<Box<HeaderMap>>,
}

/// One line, as a range of its section.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    from: usize,
    to: usize,
    /// False when it is not `name: value`: it has more or less blanks, or others.
    is_plain: bool,
}

/// Whose lines they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A request's: all of them are fields.
    Request,
    /// An answer's: only those that pass are, and its length.
    Answer { length: Option<u64> },
}

/// A line that passes is not plain.
const LOOSE: u32 = 1 << 29;
/// `Connection` names fields.
const NOMINATES: u32 = 1 << 30;
/// There is an underscore in a name.
const UNDERSCORE: u32 = 1 << 31;

/// The map of no fields.
static NONE: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

/// How often a field came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came<'f> {
    /// Not at all.
    Never,
    /// With this value.
    Once(&'f [u8]),
    /// In several lines.
    Often,
}

impl Lines {
    /// The fields of a head, with the empty line behind them; to be [told](Self::see) of each, in order.
    fn new(section: Bytes, kind: Kind) -> Self {
        Self {
            section,
            runs: SmallVec::new(),
            last: (0, 0),
            seen: 0,
            twice: 0,
            host: (0, 0),
            kind,
            map: OnceCell::new(),
        }
    }

    /// A request's.
    #[must_use]
    pub fn of_request(section: Bytes) -> Self {
        Self::new(section, Kind::Request)
    }

    /// An answer's.
    #[must_use]
    pub fn of_answer(section: Bytes) -> Self {
        Self::new(section, Kind::Answer { length: None })
    }

    /// The line of the field at `index` of `fields`; `None` when it ends with a line feed alone, which httparse lets pass.
    #[must_use]
    pub fn line(&self, fields: &[httparse::Header<'_>], index: usize) -> Option<Line> {
        let httparse::Header { name, value } = fields[index];
        let from = offset(&self.section, name);
        // The last line is followed by an empty one.
        let to =
            fields.get(index + 1).map_or(self.section.len() - 2, |next| offset(&self.section, next.name));
        let behind_name = self.section.get(from + name.len()..to)?;
        let is_plain = behind_name.len() == value.len() + 4 && behind_name.starts_with(b": ");
        behind_name.ends_with(b"\r\n").then_some(Line { from, to, is_plain })
    }

    /// Notes a field with this value.
    pub fn see(&mut self, note: Option<Note>, value: &[u8]) {
        let Some(note) = note else { return };
        self.twice |= self.seen & note.bit();
        if note == Note::Host && !self.has(note) {
            let from = offset(&self.section, value);
            self.host = (from, from + value.len());
        }
        self.seen |= note.bit();
    }

    /// Notes that `Connection` names other fields.
    pub fn nominate(&mut self) {
        self.seen |= NOMINATES;
    }

    /// Notes that there is an underscore in a name.
    pub fn underscore(&mut self) {
        self.seen |= UNDERSCORE;
    }

    /// This line passes as it is.
    pub fn pass(&mut self, Line { from, to, is_plain }: Line) {
        if !is_plain {
            self.seen |= LOOSE;
        }
        if self.last.1 == from {
            self.last.1 = to;
        } else {
            self.runs.push(std::mem::replace(&mut self.last, (from, to)));
        }
    }

    /// What passes.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.runs.iter().chain([&self.last]).map(|(from, to)| &self.section[*from..*to])
    }

    /// The length that an answer tells.
    pub fn told(&mut self, told: Option<u64>) {
        self.kind = Kind::Answer { length: told };
    }

    fn has(&self, note: Note) -> bool {
        self.seen & note.bit() != 0
    }

    /// Appends what passes, each line as `name: value`: not every reader takes all that a sender may put around a value (RFC
    /// 9112 §5.1), and who reads it otherwise reads another request.
    pub fn write(&self, out: &mut Vec<u8>) {
        if self.seen & LOOSE == 0 {
            let mut copy = |(from, to): &(usize, usize)| out.extend_from_slice(&self.section[*from..*to]);
            self.runs.iter().for_each(&mut copy);
            copy(&self.last);
        } else {
            self.pieces().flat_map(each).for_each(|(name, value)| append(out, name, value));
        }
    }

    /// All fields, by name and value.
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (all, pieces) = match self.kind {
            Kind::Request => (Some(&*self.section), None),
            Kind::Answer { .. } => (None, Some(self.pieces())),
        };
        all.into_iter().chain(pieces.into_iter().flatten()).flat_map(each)
    }

    /// They share the memory of what was read.
    fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(16);
        for (name, value) in self.iter() {
            let value = HeaderValue::from_maybe_shared(self.section.slice_ref(value));
            // What was read is sound: what httparse takes for a name or a value is one (a test says so).
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
                map.append(name, value);
            }
        }
        if let Kind::Answer { length: Some(length) } = self.kind {
            map.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        map
    }
}

/// Where `part` is in `whole`, of which it is a part.
pub(super) fn offset(whole: &[u8], part: &(impl AsRef<[u8]> + ?Sized)) -> usize {
    part.as_ref().as_ptr().addr() - whole.as_ptr().addr()
}

/// The fields of lines that were found to be sound.
fn each(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

impl Fields {
    /// How often the field came that this is a note of.
    #[must_use]
    pub fn came(&self, note: Note) -> Came<'_> {
        let Some(lines) = &self.lines else {
            let Some(name) = note.name() else { return Came::Never };
            let mut values = self.get_all(name).iter();
            return match (values.next(), values.next()) {
                (None, _) => Came::Never,
                (Some(value), None) => Came::Once(value.as_bytes()),
                (Some(_), Some(_)) => Came::Often,
            };
        };
        match (lines.has(note), lines.twice & note.bit() != 0) {
            (false, _) => Came::Never,
            (true, true) => Came::Often,
            (true, false) => self.first(note).map_or(Came::Never, Came::Once),
        }
    }

    /// True when there is any field that this is a note of.
    #[must_use]
    pub fn has(&self, note: Note) -> bool {
        match (&self.lines, note.name()) {
            (Some(lines), _) => lines.has(note),
            (None, Some(name)) => self.contains_key(name),
            (None, None) => self.keys().any(|name| Note::of(name.as_str().as_bytes()) == Some(note)),
        }
    }

    /// The first value of a field.
    #[must_use]
    pub fn first(&self, note: Note) -> Option<&[u8]> {
        match (&self.lines, note.name()) {
            (Some(lines), _) if !lines.has(note) => None,
            (Some(lines), _) if note == Note::Host => Some(&lines.section[lines.host.0..lines.host.1]),
            (Some(lines), Some(field)) => {
                let is_it = |name: &[u8]| name.eq_ignore_ascii_case(field.as_str().as_bytes());
                lines.iter().find(|(name, _)| is_it(name)).map(|(_, value)| value)
            }
            (None, Some(name)) => self.get(name).map(HeaderValue::as_bytes),
            (_, None) => None,
        }
    }

    /// True when the field `wanted` has this value, in any of its lines.
    #[must_use]
    pub fn has_value(&self, wanted: &str, value: &[u8]) -> bool {
        match &self.lines {
            Some(lines) => lines
                .iter()
                .any(|(name, given)| given == value && name.eq_ignore_ascii_case(wanted.as_bytes())),
            None => self.get_all(wanted).iter().any(|given| given.as_bytes() == value),
        }
    }

    /// True when who asks takes trailers (RFC 9110 §10.1.4).
    #[must_use]
    pub fn takes_trailers(&self) -> bool {
        let takes = |te: &HeaderValue| headers::has_token(te.as_bytes(), b"trailers");
        self.has(Note::Te) && self.get_all(TE).iter().any(takes)
    }

    /// True when there is an underscore in a name.
    #[must_use]
    pub fn has_underscores(&self) -> bool {
        match &self.lines {
            Some(lines) => lines.seen & UNDERSCORE != 0,
            None => self.keys().any(|name| name.as_str().as_bytes().contains(&b'_')),
        }
    }

    /// The lines of a request from which no more has to be taken than what only ever is for one connection, or ours to set;
    /// `None`: to be told field by field.
    #[must_use]
    pub fn passing(&self, keeps_forwarding: bool) -> Option<&Lines> {
        let special = Note::Expect.bit() | NOMINATES;
        let forwarding = if keeps_forwarding { Note::Forwarding.bit() } else { 0 };
        self.lines.as_deref().filter(|lines| lines.seen & (special | forwarding) == 0)
    }

    /// Takes out of an answer's fields what frames and connects: the length that they tell, and whether the connection is to
    /// be closed.
    pub fn take_framing(&mut self) -> (Option<u64>, bool) {
        if let Some(Lines { kind: Kind::Answer { length }, map, .. }) = self.lines.as_deref_mut() {
            map.take();
            return (length.take(), false);
        }
        let told = self.remove(CONTENT_LENGTH).and_then(|told| told.to_str().ok()?.parse().ok());
        self.remove(TRANSFER_ENCODING);
        let closes =
            self.remove(CONNECTION).is_some_and(|value| headers::has_token(value.as_bytes(), b"close"));
        (told, closes)
    }

    /// Appends all lines of an answer.
    pub fn write(&self, out: &mut Vec<u8>) {
        match &self.lines {
            Some(lines) => lines.write(out),
            None => {
                self.iter().for_each(|(name, value)| append(out, name.as_str().as_bytes(), value.as_bytes()))
            }
        }
    }

    /// Copies what is part of a larger buffer, which it would keep whole.
    pub fn detach(&mut self) {
        self.detach_lines();
        for value in self.map.iter_mut().flat_map(|map| map.values_mut()) {
            if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
                *value = copy;
            }
        }
    }

    /// The same where they are lines, which it costs little.
    pub fn detach_lines(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.section = Bytes::copy_from_slice(&lines.section);
            lines.map.take();
        }
    }

    /// All of them.
    #[must_use]
    pub fn into_map(mut self) -> HeaderMap {
        std::mem::take(&mut *self)
    }
}

impl From<Lines> for Fields {
    fn from(lines: Lines) -> Self {
        Self { lines: Some(Box::new(lines)), map: None }
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        Self { lines: None, map: Some(Box::new(map)) }
    }
}

impl Deref for Fields {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        match &self.lines {
            Some(lines) => lines.map.get_or_init(|| Box::new(lines.to_map())),
            None => self.map.as_deref().unwrap_or(&NONE),
        }
    }
}

impl DerefMut for Fields {
    fn deref_mut(&mut self) -> &mut HeaderMap {
        if let Some(mut lines) = self.lines.take() {
            self.map = lines.map.take().or_else(|| Some(Box::new(lines.to_map())));
        }
        self.map.get_or_insert_default()
    }
}
