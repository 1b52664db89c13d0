//! Whether a request shows what a condition wants: one look through what it is about, and nothing is allocated.

use super::{Condition, Matching, Shown};
use crate::table::matcher::HostPattern;
use crate::table::sticky::cookie;

impl Condition {
    pub(super) fn fits(&self, request: &impl Shown) -> bool {
        match self {
            Self::Header(name, matching) => {
                request.header(name).any(|value| matching.fits(value.iter().copied()))
            }
            Self::Cookie(name, matching) => cookie(request.header("cookie"), name)
                .is_some_and(|value| matching.fits(value.iter().copied())),
            Self::Query(name, matching) => parameters(request.query())
                .any(|(key, value)| decoded(key).eq(name.bytes()) && matching.fits(decoded(value))),
            Self::Client(networks) => request
                .client()
                .is_some_and(|client| networks.iter().any(|network| network.contains(&client))),
            Self::Host(pattern) => is_host(pattern, request.host()),
        }
    }
}

impl Matching {
    fn fits(&self, mut value: impl Iterator<Item = u8>) -> bool {
        match self {
            Self::There => true,
            Self::Is(wanted) => value.eq(wanted.bytes()),
            Self::Starts(wanted) => wanted.bytes().all(|byte| value.next() == Some(byte)),
        }
    }
}

/// Names and values of a query, raw.
fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[][..]),
    })
}

/// The bytes that these stand for (RFC 3986 §2.1); a `%` without two hexadecimal digits is itself.
pub(in crate::table) fn decoded(mut raw: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    std::iter::from_fn(move || {
        let (first, after) = raw.split_first()?;
        raw = after;
        let [high, low, rest @ ..] = after else { return Some(*first) };
        match (*first, digit(*high), digit(*low)) {
            (b'%', Some(high), Some(low)) => {
                raw = rest;
                Some(high << 4 | low)
            }
            _ => Some(*first),
        }
    })
}

fn is_host(pattern: &HostPattern, host: &[u8]) -> bool {
    let host = host.strip_suffix(b".").unwrap_or(host);
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
        HostPattern::Wildcard(suffix) => {
            let label = host.len().checked_sub(suffix.len() + 1).filter(|length| *length > 0);
            label.is_some_and(|at| host[at] == b'.' && host[at + 1..].eq_ignore_ascii_case(suffix.as_bytes()))
        }
    }
}
