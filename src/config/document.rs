//! One file's text, and the places in it that something is said about.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Severity};
use super::walk::Section;

/// What was found in all files so far.
pub(super) type Found = RefCell<Vec<Diagnostic>>;

/// A line and a column of a file, as people count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// One file that is being read.
pub(super) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    /// Where each line starts.
    lines: Vec<usize>,
    /// Lines with a syntax error: what is on them is not what was meant, so nothing more is said about them.
    broken: BTreeSet<usize>,
    found: &'a Found,
}

impl<'a> Document<'a> {
    /// Parses `text` as far as it can be, and hands the tree to `read`.
    pub(super) fn walk<T>(file: &Path, text: &str, found: &Found, read: impl FnOnce(Section<'_>) -> T) -> T {
        let (root, syntax) = DeTable::parse_recoverable(text);
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        let mut document = Document { file, text, lines, broken: BTreeSet::new(), found };
        let from = found.borrow().len();
        document.broken = document.syntax_errors(&syntax);
        let read = read(Section::root(&document, root.get_ref()));
        found.borrow_mut()[from..].sort_by_key(|found| (found.line, found.column));
        read
    }

    /// Notes what the parser could not read; the lines where that is.
    fn syntax_errors(&self, syntax: &[toml::de::Error]) -> BTreeSet<usize> {
        let (mut broken, mut unclosed) = (BTreeSet::new(), false);
        for error in syntax {
            let at = self.spot(error.span().map_or(self.text.len(), |span| span.start));
            // One slip often makes several: the first of a line is the one to mend, and a bracket that is not closed
            // swallows line after line.
            let inside = ["comma", "inline table", "array"].iter().any(|word| error.message().contains(word));
            let first = broken.insert(at.place().line);
            if first && !(inside && unclosed) {
                syntax_error(at, error.message());
            }
            unclosed |= inside;
        }
        broken
    }

    /// The place at this byte.
    pub(super) fn spot(&'a self, start: usize) -> Spot<'a> {
        Spot { document: self, start }
    }

    fn place(&self, start: usize) -> Place {
        let line = self.lines.partition_point(|line| *line <= start);
        let text = self.text.get(self.lines[line - 1]..start).unwrap_or_default();
        Place { file: self.file.to_owned(), line, column: text.chars().count() + 1 }
    }
}

/// A place in a file that something can be said about.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) document: &'a Document<'a>,
    pub(super) start: usize,
}

impl<'a> Spot<'a> {
    /// Where relative paths of this file begin.
    pub(super) fn directory(self) -> &'a Path {
        self.document.file.parent().unwrap_or(self.document.file)
    }

    pub(super) fn place(self) -> Place {
        self.document.place(self.start)
    }

    pub(super) fn error(self, message: impl Display) {
        self.note(Severity::Error, message, None);
    }

    pub(super) fn error_with(self, message: impl Display, hint: impl Into<String>) {
        self.note(Severity::Error, message, Some(hint.into()));
    }

    /// Something is not there. Of a file with syntax errors that cannot be known.
    pub(super) fn missing(self, message: impl Display, hint: impl Into<String>) {
        if self.document.broken.is_empty() {
            self.error_with(message, hint);
        }
    }

    pub(super) fn warn(self, message: impl Display) {
        self.note(Severity::Warning, message, None);
    }

    fn note(self, severity: Severity, message: impl Display, hint: Option<String>) {
        let Place { file, line, column } = self.place();
        if !self.document.broken.contains(&line) {
            let message = message.to_string();
            self.document.found.borrow_mut().push(Diagnostic { file, line, column, severity, message, hint });
        }
    }
}

fn syntax_error(at: Spot<'_>, message: &str) {
    match message.split_once(", expected ") {
        // What the parser took for a number or a date is mostly text.
        Some((what, "nothing")) => at.error_with(what, "text has to be in quotes"),
        _ => at.error(message),
    }
}

/// The line and column after `text`.
pub(super) fn position(text: &str) -> (usize, usize) {
    let last = text.rfind('\n').map_or(0, |at| at + 1);
    (text.matches('\n').count() + 1, text[last..].chars().count() + 1)
}
