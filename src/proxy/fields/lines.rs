//! The lines of a head, as they came, with notes of what was seen on the way through them.

use std::cell::OnceCell;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::LIST_OVERHEAD;
use super::lexicon::{self, Lexicon};
use super::note::Note;
use crate::proxy::headers::append;

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

/// What says who is asking was taken out.
const DISOWNED: u32 = 1 << 28;
/// A line that passes is not plain.
const LOOSE: u32 = 1 << 29;
/// `Connection` names fields.
const NOMINATES: u32 = 1 << 30;
/// There is an underscore in a name.
const UNDERSCORE: u32 = 1 << 31;

/// How many fields a map has room for at first: more than most messages have.
const MANY: usize = 16;

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

    /// True when there is a field that this is a note of.
    pub(super) fn has(&self, note: Note) -> bool {
        self.seen & note.bit() != 0
    }

    /// True when there is more than one.
    pub(super) fn has_twice(&self, note: Note) -> bool {
        self.twice & note.bit() != 0
    }

    /// The value of the first `Host`.
    pub(super) fn host(&self) -> &[u8] {
        &self.section[self.host.0..self.host.1]
    }

    /// True when there is an underscore in a name.
    pub(super) fn has_underscores(&self) -> bool {
        self.seen & UNDERSCORE != 0
    }

    /// Takes out what says who is asking; it is in no line that passes anyway.
    pub(super) fn drop_forwarding(&mut self) {
        self.seen = self.seen & !Note::Forwarding.bit() | DISOWNED;
        self.map.take();
    }

    /// True when no more has to be taken from a request than what only ever is for one connection, or ours to set.
    pub(super) fn may_pass(&self) -> bool {
        self.seen & (Note::Expect.bit() | Note::Forwarding.bit() | NOMINATES) == 0
    }

    /// Takes the length out that an answer told, if one did; `None` for a request's.
    pub(super) fn take_length(&mut self) -> Option<Option<u64>> {
        let Kind::Answer { length } = &mut self.kind else { return None };
        self.map.take();
        Some(length.take())
    }

    /// How large all of them are as a list of HTTP/2, or nearly: each has four bytes more than its name and value
    /// here.
    pub(super) fn list_size(&self) -> usize {
        let lines = memchr::memchr_iter(b'\n', &self.section).count();
        self.section.len() + (LIST_OVERHEAD - 4) * lines
    }

    /// Copies what is part of a larger buffer.
    pub(super) fn detach(&mut self) {
        self.section = Bytes::copy_from_slice(&self.section);
        self.map.take();
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
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let is_disowned = self.seen & DISOWNED != 0;
        let is_there = move |name: &[u8]| !is_disowned || Note::of(name) != Some(Note::Forwarding);
        self.parts().flat_map(each).filter(move |(name, _)| is_there(name))
    }

    /// The lines of all fields.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let (all, pieces) = match self.kind {
            Kind::Request => (Some(&*self.section), None),
            Kind::Answer { .. } => (None, Some(self.pieces())),
        };
        all.into_iter().chain(pieces.into_iter().flatten())
    }

    /// The map of them.
    pub(super) fn map(&self) -> &HeaderMap {
        self.map.get_or_init(|| Box::new(self.to_map()))
    }

    /// The same, for good.
    pub(super) fn into_map(mut self) -> Box<HeaderMap> {
        self.map.take().unwrap_or_else(|| Box::new(self.to_map()))
    }

    /// They share the memory of what was read.
    fn to_map(&self) -> HeaderMap {
        let field = |(name, value): (&[u8], &[u8])| {
            let value = HeaderValue::from_maybe_shared(self.section.slice_ref(value)).ok()?;
            Some((HeaderName::from_bytes(name).ok()?, value))
        };
        self.map_of(self.iter().filter_map(field))
    }

    /// They share nothing with what was read.
    pub(super) fn to_map_by(&self, lexicon: &Lexicon) -> HeaderMap {
        self.map_of(self.parts().flat_map(lines_of).filter_map(|line| lexicon.field(line)))
    }

    /// What was read is sound: what httparse takes for a name or a value is one (a test says so), and no field is left out.
    fn map_of(&self, fields: impl Iterator<Item = (HeaderName, HeaderValue)>) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(MANY);
        for (name, value) in fields {
            map.append(name, value);
        }
        if let Kind::Answer { length: Some(length) } = self.kind {
            map.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        map
    }
}

/// Where `part` is in `whole`, of which it is a part.
pub(in crate::proxy) fn offset(whole: &[u8], part: &(impl AsRef<[u8]> + ?Sized)) -> usize {
    part.as_ref().as_ptr().addr() - whole.as_ptr().addr()
}

/// The fields of lines that were found to be sound.
pub(super) fn each(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines_of(lines).filter_map(lexicon::split)
}

/// Lines, each without its end; all of them have one.
pub fn lines_of(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', lines).map(move |end| {
        let line = &lines[start..end];
        start = end + 1;
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}
