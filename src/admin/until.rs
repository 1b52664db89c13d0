//! When a change is answered, as its query says.

use std::time::Duration;

use super::api::{Problem, text};
use super::order::ChangeQuery;
use crate::control::health::Healthy;
use crate::table::VersionRef;

/// How long is waited unless told.
const WAIT: &str = "30s";

/// When a change is answered.
#[derive(Debug)]
pub(super) enum Until {
    /// Once it is durable and fenced.
    Fenced,
    /// Once nothing is left on what it left, or after this long.
    Drained(Duration),
    /// Once what it began is over, or after this long, and nothing is left on what it left, for which that may take so long: where
    /// nothing is said, what is left of the first.
    Finished(Duration, Option<Duration>),
    /// Once what it brought is found well, or after this long.
    Healthy(VersionRef, Healthy, Duration),
}

/// What is to be waited for, of a change that brings what `comes`.
pub(super) fn until(
    query: &ChangeQuery,
    comes: Option<(VersionRef, Healthy)>,
) -> Result<Until, Box<Problem>> {
    let bad = |field: &str, detail: String| Err(Problem::new(400, "bad_query", detail).at(field));
    let timeout = timeout(query.timeout.as_deref())?;
    match (query.wait.as_deref(), comes) {
        (Some("finished"), _) => {
            let drain = query.drain_timeout.as_deref().map(|text| self::timeout(Some(text))).transpose();
            Ok(Until::Finished(timeout, drain.map_err(|problem| problem.at("drain_timeout"))?))
        }
        _ if query.drain_timeout.is_some() => {
            bad("drain_timeout", "`drain_timeout` goes with `wait=finished`".to_owned())
        }
        (None | Some("fenced"), _) => Ok(Until::Fenced),
        (Some("drained"), _) => Ok(Until::Drained(timeout)),
        (Some("healthy"), Some((version, what))) => Ok(Until::Healthy(version, what, timeout)),
        (Some("healthy"), None) => {
            bad("wait", "`healthy` goes with a version or an endpoint that is put".to_owned())
        }
        (Some(other), _) => {
            let other = other.escape_default();
            let expected = "expected fenced, drained, finished or healthy";
            bad("wait", format!("`{other}` is nothing to wait for: {expected}"))
        }
    }
}

/// How long to wait, as the query says it.
pub(super) fn timeout(text: Option<&str>) -> Result<Duration, Box<Problem>> {
    let timeout = text::duration(text.unwrap_or(WAIT));
    timeout.map_err(|why| Problem::new(400, "bad_query", why.0).at("timeout"))
}
