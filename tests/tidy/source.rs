//! Rust source as far as the rules need it: code without comments and literals, its words, and its paths.

/// One file of `src/`.
pub(crate) struct File {
    /// From `src/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Without comments, literals and the tests at its end.
    pub(crate) code: String,
}

impl File {
    pub(crate) fn new(path: String, text: String) -> Self {
        let mut code = strip(&text);
        if let Some(tests) = code.find("#[cfg(test)]\nmod tests {") {
            code.truncate(tests);
        }
        Self { path, text, code }
    }

    /// Its directory right under `src/`, or its own name.
    pub(crate) fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The module that the file is, from the crate's root.
    fn module(&self) -> Vec<String> {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        path.split('/').filter(|part| *part != "lib").map(str::to_owned).collect()
    }
}

/// The words of some code.
pub(crate) fn identifiers(code: &str) -> Vec<&str> {
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).collect()
}

/// Every path in the file that starts with `crate` or `super`, from the crate's root.
pub(crate) fn paths(file: &File) -> Vec<Vec<String>> {
    let tokens = tokens(&file.code);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let is_inside = at > 0 && tokens[at - 1] == "::";
        let mut from = match *token {
            "crate" if !is_inside => Vec::new(),
            "super" if !is_inside => parent(&file.module()),
            _ => continue,
        };
        let mut rest = &tokens[at + 1..];
        while let ["::", "super", after @ ..] = rest {
            (from, rest) = (parent(&from), after);
        }
        if let ["::", after @ ..] = rest {
            expand(&from, after, &mut found);
        }
    }
    found
}

/// Above the root is still the root: a `super` in a nested test module counts the module itself.
fn parent(module: &[String]) -> Vec<String> {
    module[..module.len().saturating_sub(1)].to_vec()
}

/// Reads `a::b`, `a::{b, c::d}`, `a::*` and gives what is after it.
fn expand<'t>(from: &[String], tokens: &'t [&'t str], found: &mut Vec<Vec<String>>) -> &'t [&'t str] {
    match tokens {
        ["{", rest @ ..] => {
            let mut rest = rest;
            while !matches!(rest, [] | ["}", ..]) {
                rest = expand(from, rest, found);
                // What follows a name in a group: `as x`, a comma.
                while !matches!(rest, [] | ["}", ..] | [",", ..]) {
                    rest = &rest[1..];
                }
                if let [",", after @ ..] = rest {
                    rest = after;
                }
            }
            rest.get(1..).unwrap_or_default()
        }
        [name, rest @ ..] => {
            let path: Vec<_> = from.iter().cloned().chain([(*name).to_owned()]).collect();
            match rest {
                ["::", rest @ ..] if !matches!(rest, ["<", ..]) => expand(&path, rest, found),
                _ => {
                    found.push(path);
                    rest
                }
            }
        }
        [] => tokens,
    }
}

/// Words, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = match rest {
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The code without comments and literals; its lines stay where they are.
pub(crate) fn strip(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = skipped(rest, code.chars().next_back());
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
            code.push(' ');
            rest = &rest[length..];
        }
    }
    code
}

/// How long the comment or literal is that starts here; 0 when there is none.
fn skipped(rest: &str, before: Option<char>) -> usize {
    let to = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("//") {
        return to(rest.find('\n'));
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if before == Some('r') && rest.starts_with('#') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let is_raw = rest[hashes..].starts_with('"');
        return if is_raw {
            to(rest[hashes + 1..].find(&end).map(|at| hashes + 1 + at + end.len()))
        } else {
            0
        };
    }
    // A lifetime has no second quote right after its first character.
    let mut chars = rest.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('\''), Some('\\'), _) | (Some('\''), Some(_), Some('\'')) => quoted(rest, '\''),
        _ => 0,
    }
}

/// Up to the end of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Up to the closing quote that no backslash is before.
fn quoted(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}
