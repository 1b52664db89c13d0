//! The fields of a message: as they came, and as a map for who asks.
//!
//! Most messages only pass. So what came over HTTP/1.1 stays the bytes that were read, with [notes](Note) of what was seen
//! on the way through them, and what passes is copied in a few runs. A map is made of it when somebody looks for a field
//! without a note (as a [`HeaderMap`], by dereferencing), and takes its place for good when a field is changed.

mod lexicon;
mod lines;
mod note;
#[cfg(test)]
mod tests;

use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};

pub use lexicon::Lexicon;
pub(super) use lines::offset;
pub use lines::{Lines, lines_of};
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

/// What a field counts for beside its name and value in the size of a list (RFC 9113 §6.5.2).
pub const LIST_OVERHEAD: usize = 32;

/// How large these fields are, as a list of HTTP/2.
#[must_use]
pub fn list_size_of(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + LIST_OVERHEAD).sum()
}

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

impl<'f> Came<'f> {
    fn of(mut values: impl Iterator<Item = &'f [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Never,
            (Some(value), None) => Self::Once(value),
            (Some(_), Some(_)) => Self::Often,
        }
    }
}

impl Fields {
    /// How often the field came that this is a note of.
    #[must_use]
    pub fn came(&self, note: Note) -> Came<'_> {
        let Some(lines) = &self.lines else {
            return note.name().map_or(Came::Never, |name| self.search(&name));
        };
        match (lines.has(note), lines.has_twice(note)) {
            (false, _) => Came::Never,
            (true, true) => Came::Often,
            (true, false) => self.first(note).map_or(Came::Never, Came::Once),
        }
    }

    /// How often the field came, of which there need be no note.
    #[must_use]
    pub fn search(&self, wanted: &HeaderName) -> Came<'_> {
        match &self.lines {
            Some(lines) => {
                let is_it = |name: &[u8]| name.eq_ignore_ascii_case(wanted.as_str().as_bytes());
                Came::of(lines.iter().filter(|(name, _)| is_it(name)).map(|(_, value)| value))
            }
            None => Came::of(self.get_all(wanted).iter().map(HeaderValue::as_bytes)),
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
            (Some(lines), _) if note == Note::Host => Some(lines.host()),
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
        self.has_any(wanted, |given| given == value)
    }

    /// True when the field `wanted` has such a value, in any of its lines.
    #[must_use]
    pub fn has_any(&self, wanted: &str, is_such: impl Fn(&[u8]) -> bool) -> bool {
        match &self.lines {
            Some(lines) => lines
                .iter()
                .any(|(name, given)| is_such(given) && name.eq_ignore_ascii_case(wanted.as_bytes())),
            None => self.get_all(wanted).iter().any(|given| is_such(given.as_bytes())),
        }
    }

    /// The values of the field `wanted`, one a line.
    pub fn all_of<'f>(&'f self, wanted: &'f str) -> impl Iterator<Item = &'f [u8]> {
        let is_it = |(name, _): &(&[u8], &[u8])| name.eq_ignore_ascii_case(wanted.as_bytes());
        let lines = self.lines.iter().flat_map(|lines| lines.iter()).filter(is_it).map(|(_, value)| value);
        let map = self.map.iter().flat_map(move |map| map.get_all(wanted));
        lines.chain(map.map(HeaderValue::as_bytes))
    }

    /// True when who asks takes trailers (RFC 9110 §10.1.4).
    #[must_use]
    pub fn takes_trailers(&self) -> bool {
        let takes = |te: &HeaderValue| headers::has_token(te.as_bytes(), b"trailers");
        self.has(Note::Te) && self.get_all(TE).iter().any(takes)
    }

    /// How large they are, as a list of HTTP/2 (RFC 9113 §6.5.2).
    #[must_use]
    pub fn list_size(&self) -> usize {
        match &self.lines {
            Some(lines) => lines.list_size(),
            None => list_size_of(self),
        }
    }

    /// True when there are to be trailers (RFC 9110 §6.6.2).
    #[must_use]
    pub fn announces_trailers(&self) -> bool {
        match &self.lines {
            Some(lines) => lines.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"trailer")),
            None => self.contains_key(TRAILER),
        }
    }

    /// True when there is an underscore in a name.
    #[must_use]
    pub fn has_underscores(&self) -> bool {
        match &self.lines {
            Some(lines) => lines.has_underscores(),
            None => self.keys().any(|name| name.as_str().as_bytes().contains(&b'_')),
        }
    }

    /// The lines of a request from which no more has to be taken than what only ever is for one connection, or ours to set;
    /// `None`: to be told field by field.
    #[must_use]
    pub fn passing(&self) -> Option<&Lines> {
        self.lines.as_deref().filter(|lines| lines.may_pass())
    }

    /// Takes out of a request's what says who is asking.
    pub fn drop_forwarding(&mut self) {
        match &mut self.lines {
            Some(lines) => lines.drop_forwarding(),
            None => {
                let said: Vec<_> = self.keys().filter(|name| headers::is_forwarding(name)).cloned().collect();
                said.iter().for_each(|name| drop(self.remove(name)));
            }
        }
    }

    /// Takes out of an answer's fields what frames and connects: the length that they tell, and whether the connection is to
    /// be closed.
    pub fn take_framing(&mut self) -> (Option<u64>, bool) {
        if let Some(length) = self.lines.as_deref_mut().and_then(Lines::take_length) {
            return (length, false);
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
        if let Some(lines) = &mut self.lines {
            lines.detach();
        }
        for value in self.map.iter_mut().flat_map(|map| map.values_mut()) {
            if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
                copy.set_sensitive(value.is_sensitive());
                *value = copy;
            }
        }
    }

    /// All of them, for somebody who remembers them: they share nothing with what was read.
    #[must_use]
    pub fn into_map(mut self, lexicon: &Lexicon) -> HeaderMap {
        if let Some(lines) = &self.lines {
            return lines.to_map_by(lexicon);
        }
        self.detach();
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
            Some(lines) => lines.map(),
            None => self.map.as_deref().unwrap_or(&NONE),
        }
    }
}

impl DerefMut for Fields {
    fn deref_mut(&mut self) -> &mut HeaderMap {
        if let Some(lines) = self.lines.take() {
            self.map = Some(lines.into_map());
        }
        self.map.get_or_insert_default()
    }
}
