//! A rule as text, as people type and read it: `header x-beta=yes and client 10.0.0.0/8 -> green`.
//!
//! A value of anything but plain characters stands in quotes, with `\` before a quote and itself: what is written is read again.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use super::{Condition, Conditions, Matching, TargetRule};
use crate::table::name::{Invalid, VersionName, VersionRef};

const EXPECTED: &str = "expected such as `header x-beta=yes and cookie team^=qa -> green`: header, cookie or query with NAME, NAME=VALUE or NAME^=BEGINNING, client with NETWORK,…, host with a name or *.name, joined by `and`";

impl Conditions {
    /// A rule, and the version it leads to, which may be a part: `@candidate`.
    ///
    /// # Errors
    /// [`Invalid`] says what was expected.
    pub fn read_rule(text: &str) -> Result<(Self, VersionRef), Invalid> {
        let wrong = |what: String| Invalid(format!("{what}: {EXPECTED}"));
        let words = words(text).map_err(wrong)?;
        let [when @ .., arrow, to] = &words[..] else {
            return Err(wrong("a rule has too few words".to_owned()));
        };
        if arrow != "->" {
            return Err(wrong("a rule ends with `-> VERSION`".to_owned()));
        }
        let mut conditions = Vec::new();
        for condition in when.chunks(3) {
            // By their places, so that a header may be called `and`.
            let ([what, of] | [what, of, _]) = condition else {
                return Err(wrong("a condition has two words".to_owned()));
            };
            if condition.get(2).is_some_and(|and| and != "and") {
                return Err(wrong("between two conditions stands `and`".to_owned()));
            }
            conditions
                .push(read_condition(what, of).ok_or_else(|| wrong(format!("`{what}` is no condition")))??);
        }
        if when.len() % 3 != 2 {
            return Err(wrong("a rule has conditions before its `->`".to_owned()));
        }
        Ok((Self::new(conditions)?, to.parse()?))
    }
}

impl FromStr for TargetRule {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (when, to) = Conditions::read_rule(text)?;
        let to: VersionName = to.to_string().parse()?;
        Ok(Self { when, to })
    }
}

impl fmt::Display for TargetRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.when, self.to)
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, condition) in self.all().iter().enumerate() {
            let and = if index == 0 { "" } else { " and " };
            write!(f, "{and}{condition}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        match self {
            Self::Header(_, matching) | Self::Cookie(_, matching) | Self::Query(_, matching) => {
                match matching {
                    Matching::There => Ok(()),
                    Matching::Is(value) => write!(f, "={}", quoted(value)),
                    Matching::Starts(value) => write!(f, "^={}", quoted(value)),
                }
            }
            Self::Client(networks) => {
                let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                write!(f, " {}", networks.join(","))
            }
            Self::Host(pattern) => write!(f, " {pattern}"),
        }
    }
}

/// The value as it is, or in quotes where it would be read otherwise.
fn quoted(value: &str) -> String {
    let is_plain =
        !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\'));
    if is_plain {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The words of a rule; quotes keep spaces together, and are taken off.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), None::<String>, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if is_quoted => word.get_or_insert_default().extend(chars.next()),
            c if c.is_whitespace() && !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if is_quoted { Err("a quote is not closed".to_owned()) } else { Ok(words) }
}

/// `None` when there is no such condition.
fn read_condition(what: &str, of: &str) -> Option<Result<Condition, Invalid>> {
    let (name, matching) = match of.split_once('=') {
        None => (of, Matching::There),
        Some((name, value)) => match name.strip_suffix('^') {
            Some(name) => (name, Matching::Starts(value.into())),
            None => (name, Matching::Is(value.into())),
        },
    };
    Some(Ok(match what {
        "header" => Condition::Header(name.into(), matching),
        "cookie" => Condition::Cookie(name.into(), matching),
        "query" => Condition::Query(name.into(), matching),
        "client" => match of.split(',').map(network).collect::<Result<Box<[_]>, _>>() {
            Ok(networks) => Condition::Client(networks),
            Err(why) => return Some(Err(why)),
        },
        "host" => match of.parse() {
            Ok(pattern) => Condition::Host(pattern),
            Err(why) => return Some(Err(why)),
        },
        _ => return None,
    }))
}

/// A client's network: `10.0.0.0/8`, or an address.
///
/// # Errors
/// [`Invalid`] when it is none.
pub fn network(text: &str) -> Result<IpNet, Invalid> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| address());
    network.map_err(|_| {
        let text = text.escape_debug();
        Invalid(format!("`{text}` is no network: expected such as 10.0.0.0/8, fd00::/8 or an address"))
    })
}
