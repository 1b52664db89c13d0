//! What is wrong with a file, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, but not all of it means what its author may think.
    Warning,
}

/// One finding about a file, for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, named as it was asked for.
    pub file: PathBuf,
    /// Counted from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// Counted from 1, in characters; 0 when it is about the file as a whole.
    pub column: usize,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    /// `switchback.toml:31:14: weights of service …`, and `hint: …` on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(" warning:")?;
        }
        write!(f, " {}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

/// Everything that is wrong with a configuration, in the order of the files and their lines; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(pub Vec<Diagnostic>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&lines(&self.0))
    }
}

impl std::error::Error for Errors {}

/// All of `diagnostics`, one below the other.
pub(super) fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A hint for a word that is none of `known`: the one that was probably meant, or all of them.
pub(super) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>, all: &str) -> String {
    let known: Vec<_> = known.into_iter().collect();
    close_to(word, known.iter().copied()).unwrap_or_else(|| {
        let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        format!("{all}: {list}")
    })
}

/// A hint for a word that is none of `known`, if one of them was probably meant.
pub(super) fn close_to<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    let distance =
        |candidate: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase());
    // A third of the word may be wrong: `lisen` is `listen`, but `tsl` is not `id`.
    let close = known.into_iter().map(|candidate| (distance(candidate), candidate)).min();
    let close = close.filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3));
    close.map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood_and_anything_else_gets_the_list() {
        let hint = |word| did_you_mean(word, ["listen", "tls"], "its keys");
        assert_eq!(hint("lisetn"), "did you mean `listen`?");
        assert_eq!(hint("LISTEN"), "did you mean `listen`?");
        assert_eq!(hint("tsl"), "did you mean `tls`?");
        assert_eq!(hint("workers"), "its keys: listen, tls");
        assert_eq!(did_you_mean("blue", [], "its versions"), "its versions: none");
    }
}
