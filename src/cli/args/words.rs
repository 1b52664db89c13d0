//! The words that people type, and how they are read.

use std::time::Duration;

use crate::admin::api::{Rule, text};
use crate::table::{self, BasisPoints, Conditions, EndpointAddr};

/// `SERVICE/VERSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionOf {
    /// The service.
    pub service: String,
    /// The version: its label, `@stable` or `@candidate`.
    pub version: String,
}

pub(super) fn version_of(text: &str) -> Result<VersionOf, String> {
    match text.split_once('/') {
        Some((service, version)) if !service.is_empty() && !version.is_empty() => {
            Ok(VersionOf { service: service.to_owned(), version: version.to_owned() })
        }
        _ => Err("expected SERVICE/VERSION, such as shop/blue".to_owned()),
    }
}

/// An endpoint that goes and the one that comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Goes.
    pub old: String,
    /// Comes; the same: it is restarted in its place.
    pub new: String,
}

pub(super) fn pair(text: &str) -> Result<Pair, String> {
    let (old, new) = text.split_once('=').unwrap_or((text, text));
    match (old, new) {
        ("", _) | (_, "") => Err("expected OLD or OLD=NEW, such as 10.0.0.1:80=10.0.1.1:80".to_owned()),
        (old, new) => Ok(Pair { old: address(old)?, new: address(new)? }),
    }
}

/// What endpoints can speak.
pub(super) const PROTOCOLS: [&str; 4] = ["http1", "https", "h2c", "h2"];

/// An endpoint's address, as it was written: a wrong one is the command line's fault, not the proxy's to refuse.
pub(super) fn address(text: &str) -> Result<String, String> {
    text.parse::<EndpointAddr>().map_err(|why| why.to_string())?;
    Ok(text.to_owned())
}

pub(super) fn weight(text: &str) -> Result<(String, BasisPoints), String> {
    let (version, percent) = text.split_once('=').ok_or("expected VERSION=PERCENT, such as green=5")?;
    Ok((version.to_owned(), percent.parse::<BasisPoints>().map_err(|why| why.to_string())?))
}

/// `header x-beta=yes -> green`.
pub(super) fn rule(text: &str) -> Result<Rule, String> {
    let (when, to) = Conditions::read_rule(text).map_err(|why| why.to_string())?;
    Ok(Rule::new(&when, &to))
}

pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'NAME: VALUE'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(super) fn supervision(text: &str) -> Result<Duration, String> {
    text::supervision(text).map_err(|why| why.to_string())
}

pub(super) fn step(text: &str) -> Result<Duration, String> {
    text::step(text).map_err(|why| why.to_string())
}

/// One of more than a day too.
pub(super) fn long_duration(text: &str) -> Result<Duration, String> {
    table::duration::parse(text).map_err(|why| why.to_string())
}

/// Between two looks at a proxy: each costs it something.
pub(super) fn refresh(text: &str) -> Result<Duration, String> {
    let every = duration(text)?;
    (every >= Duration::from_millis(100)).then_some(every).ok_or_else(|| "expected 100ms or more".to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text::duration(text).map_err(|why| why.to_string())
}
