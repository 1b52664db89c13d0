//! Reads a TOML tree by what is expected at each place, and notes what is not as expected instead of stopping there.
//!
//! Every reader answers `None` only after something was noted, so a walk without findings has read everything.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::did_you_mean;
use super::document::{Document, Spot};
use crate::table::{BasisPoints, duration};

/// A value, before it is known to be what is expected there.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) at: Spot<'a>,
    value: &'a DeValue<'a>,
}

impl<'a> Node<'a> {
    fn of(document: &'a Document<'a>, spanned: &'a Spanned<DeValue<'a>>) -> Self {
        Self { at: document.spot(spanned.span().start), value: spanned.get_ref() }
    }

    /// A table; `what` it describes, for what is said about it.
    pub(super) fn section(self, what: impl Into<String>) -> Option<Section<'a>> {
        let what = what.into();
        match self.value {
            DeValue::Table(table) => Some(Section { at: self.at, what, table, known: Vec::new() }),
            _ => self.unexpected(&format!("a table for {what}")),
        }
    }

    /// A list of anything.
    pub(super) fn list(self, expected: &str) -> Option<Vec<Self>> {
        let document = self.at.document;
        match self.value {
            DeValue::Array(list) => Some(list.iter().map(|item| Self::of(document, item)).collect()),
            _ => self.unexpected(expected),
        }
    }

    /// Text.
    pub(super) fn text(self, expected: &str) -> Option<&'a str> {
        self.value.as_str().or_else(|| self.unexpected(expected))
    }

    /// Text that is read further.
    pub(super) fn parse<T: FromStr<Err: Display>>(self, expected: &str) -> Option<T> {
        self.text(expected)?.parse().map_err(|why| self.at.error(why)).ok()
    }

    /// Text or a number, as it was written, in decimal.
    pub(super) fn number_or_text(self, expected: &str) -> Option<String> {
        match self.value {
            DeValue::String(text) => Some(text.as_ref().to_owned()),
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(value) => Some(value.to_string()),
                Err(_) => self.unexpected(expected),
            },
            _ => self.unexpected(expected),
        }
    }

    /// A share such as `"10%"`.
    pub(super) fn percentage(self) -> Option<BasisPoints> {
        let expected = "a percentage such as \"10%\"";
        self.number_or_text(expected)?.parse().ok().or_else(|| self.unexpected(expected))
    }

    /// A file's path; a relative one is beside the file that names it.
    pub(super) fn path(self, base: &Path, expected: &str) -> Option<PathBuf> {
        match self.text(expected)? {
            "" => self.unexpected(expected),
            text => Some(base.join(text)),
        }
    }

    pub(super) fn is_flag(self) -> bool {
        self.value.as_bool().is_some()
    }

    pub(super) fn is_list(self) -> bool {
        self.value.as_array().is_some()
    }

    pub(super) fn is_table(self) -> bool {
        self.value.as_table().is_some()
    }

    pub(super) fn is_text(self) -> bool {
        self.value.as_str().is_some()
    }

    pub(super) fn flag(self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.unexpected("true or false"))
    }

    /// A whole number within `range`.
    pub(super) fn count(self, range: &RangeInclusive<usize>) -> Option<usize> {
        let integer = self.value.as_integer();
        let number = integer.and_then(|i| usize::from_str_radix(i.as_str(), i.radix()).ok());
        let (least, most) = (range.start(), range.end());
        let within = number.filter(|number| range.contains(number));
        within.or_else(|| self.unexpected(&format!("a whole number from {least} to {most}")))
    }

    /// A duration of at least `least`.
    pub(super) fn duration(self, least: Duration) -> Option<Duration> {
        let duration = self.text("a duration such as \"500ms\", \"30s\", \"5m\" or \"1h\"")?;
        let duration = duration::parse(duration).map_err(|why| self.at.error(why)).ok()?;
        if duration < least {
            let least = duration::text(least);
            self.at.error(format_args!("{} is too short: at least {least}", duration::text(duration)));
            return None;
        }
        Some(duration)
    }

    /// Notes that this is not what was expected.
    pub(super) fn unexpected<T>(self, expected: &str) -> Option<T> {
        self.at.error(format_args!("expected {expected}, found {}", self.description()));
        None
    }

    fn description(self) -> String {
        match self.value {
            DeValue::String(text) if text.is_empty() => "an empty string".to_owned(),
            DeValue::String(text) => {
                let start: String = text.chars().take(40).collect();
                let more = if start.len() < text.len() { "…" } else { "" };
                format!("the string \"{}{more}\"", start.escape_debug())
            }
            DeValue::Integer(integer) => format!("the integer {integer}"),
            DeValue::Float(float) => format!("the number {float}"),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }
}

/// A table whose keys are known, or are names that its author chose.
pub(super) struct Section<'a> {
    pub(super) at: Spot<'a>,
    /// What it describes.
    pub(super) what: String,
    table: &'a DeTable<'a>,
    /// The keys that were asked for so far.
    known: Vec<&'static str>,
}

/// One `key = value` of a [`Section`].
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) at: Spot<'a>,
    pub(super) key: &'a str,
    pub(super) value: Node<'a>,
}

impl<'a> Section<'a> {
    /// The root of a file.
    pub(super) fn root(document: &'a Document<'a>, table: &'a DeTable<'a>) -> Self {
        Self { at: document.spot(0), what: "the file".to_owned(), table, known: Vec::new() }
    }

    /// The value of `key`, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.known.push(key);
        self.table.get(key).map(|value| Node::of(self.at.document, value))
    }

    /// True when `key` is there; it is not taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of `key`, which has to be there; `example` shows how it is written.
    pub(super) fn required(&mut self, key: &'static str, example: &str) -> Option<Node<'a>> {
        let node = self.take(key);
        if node.is_none() {
            self.at.missing(format_args!("{} has no `{key}`", self.what), format!("for example: {example}"));
        }
        node
    }

    /// What `read` makes of the value of `key`; `default` when it is not there.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(Node<'a>) -> Option<T>,
    ) -> Option<T> {
        self.take(key).map_or(Some(default), read)
    }

    /// All entries, in the order of the file.
    pub(super) fn entries(&self) -> Vec<Entry<'a>> {
        let document = self.at.document;
        let entries = self.table.iter().map(|(key, value)| {
            let at = document.spot(key.span().start);
            Entry { at, key: key.get_ref(), value: Node::of(document, value) }
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by_key(|entry| entry.at.start);
        entries
    }

    /// Notes every key that was not asked for.
    pub(super) fn finish(&self) {
        for entry in self.entries() {
            if !self.known.contains(&entry.key) {
                entry.unknown(&self.what, &self.known);
            }
        }
    }
}

impl Entry<'_> {
    /// Notes that the key is none of `known`.
    pub(super) fn unknown(self, what: &str, known: &[&str]) {
        let hint = did_you_mean(self.key, known.iter().copied(), "its keys are");
        self.at.error_with(format_args!("unknown key `{}` in {what}", self.key.escape_debug()), hint);
    }

    /// The key as a name.
    pub(super) fn name<T: FromStr<Err: Display>>(self) -> Option<T> {
        self.key.parse().map_err(|why| self.at.error(why)).ok()
    }
}
