//! `retries` of a service or a version: when a request is tried again with another endpoint.

use super::diagnostic::did_you_mean;
use super::file::SOME_TIME;
use super::walk::Node;
use crate::table::{BasisPoints, Failing, RetryRules};

/// Most attempts after the first; more would be a storm of one request.
const MOST: usize = 10;

/// `retries = { attempts = 1, on = ["connect", "refused", "reset", "timeout"], statuses = [], budget = "20%",
/// min_per_second = 10, per_try_timeout = "2s" }`; what it does not say is as in `default`.
pub(super) fn read(node: Node<'_>, default: &RetryRules) -> Option<RetryRules> {
    let mut section = node.section("`retries`")?;
    let attempts = section.or("attempts", default.attempts, |node| number(node, MOST));
    let on = section.or("on", default.on.clone(), |node| {
        each(node, "a list of failures such as [\"connect\", \"reset\"]", failing)
    });
    let statuses = section.or("statuses", default.statuses.clone(), |node| {
        each(node, "a list of statuses such as [503]", status)
    });
    let budget = section.or("budget", default.budget, budget);
    let min_per_second = section.or("min_per_second", default.min_per_second, |node| number(node, 1_000_000));
    let per_try_timeout =
        section.or("per_try_timeout", default.per_try_timeout, |node| node.duration(SOME_TIME).map(Some));
    section.finish();
    Some(RetryRules {
        attempts: attempts?,
        on: on?,
        statuses: statuses?,
        budget: budget?,
        min_per_second: min_per_second?,
        per_try_timeout: per_try_timeout?,
    })
}

fn number(node: Node<'_>, most: usize) -> Option<u32> {
    node.count(&(0..=most)).and_then(|count| u32::try_from(count).ok())
}

fn each<T>(node: Node<'_>, expected: &str, read: fn(Node<'_>) -> Option<T>) -> Option<Vec<T>> {
    let all: Vec<_> = node.list(expected)?.into_iter().map(read).collect();
    all.into_iter().collect()
}

fn failing(node: Node<'_>) -> Option<Failing> {
    let word = node.text("a failure such as \"connect\"")?;
    let known = Failing::ALL.into_iter().find(|failing| failing.token() == word);
    if known.is_none() {
        let hint = did_you_mean(word, Failing::ALL.map(Failing::token), "failures are");
        node.at.error_with(format_args!("`{}` is no failure", word.escape_debug()), hint);
    }
    known
}

/// An error's: whoever has anything else has what it asked for.
fn status(node: Node<'_>) -> Option<u16> {
    node.count(&(400..=599)).and_then(|status| u16::try_from(status).ok())
}

fn budget(node: Node<'_>) -> Option<BasisPoints> {
    let expected = "a share of the requests such as \"20%\"";
    let share = node.text(expected)?.strip_suffix('%').and_then(|percent| percent.parse().ok());
    share.or_else(|| node.unexpected(expected))
}
