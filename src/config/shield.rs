//! `shield` of a service: when stable answers in the place of another version that has failed.

use super::size;
use super::walk::Node;
use crate::table::{BasisPoints, ShieldRules};

/// Most of a body that may be kept: each request to a version that is tried may have as much in memory.
const MOST_BODY: u64 = 16 << 20;
const MOST_PER_SECOND: usize = 1_000_000;

/// `shield = { statuses = ["5xx"], body = "64KiB", budget = "20%", min_per_second = 10 }`, or `true`, or `false`.
pub(super) fn read(node: Node<'_>) -> Option<Option<ShieldRules>> {
    let default = ShieldRules::default();
    if node.is_flag() {
        return node.flag().map(|is_on| is_on.then_some(default));
    }
    let mut section = node.section("`shield`")?;
    let statuses = section.or("statuses", default.statuses, statuses);
    let body = section.or("body", default.body, body);
    let budget = section.or("budget", default.budget, budget);
    let min_per_second = section.or("min_per_second", default.min_per_second, |node| {
        node.count(&(0..=MOST_PER_SECOND)).and_then(|count| u32::try_from(count).ok())
    });
    section.finish();
    let (statuses, body) = (statuses?, body?);
    Some(Some(ShieldRules { statuses, body, budget: budget?, min_per_second: min_per_second? }))
}

fn statuses(node: Node<'_>) -> Option<Vec<(u16, u16)>> {
    let all: Vec<_> =
        node.list("a list of statuses such as [\"5xx\", 429]")?.into_iter().map(status).collect();
    all.into_iter().collect()
}

/// An error's: whoever has anything else has what it asked for.
fn status(node: Node<'_>) -> Option<(u16, u16)> {
    let expected = "a status from 400 to 599, \"4xx\" or \"5xx\"";
    match node.number_or_text(expected)?.as_str() {
        "4xx" => Some((400, 499)),
        "5xx" => Some((500, 599)),
        other => {
            let status = other.parse().ok().filter(|status| (400..=599).contains(status));
            status.map(|status| (status, status)).or_else(|| node.unexpected(expected))
        }
    }
}

fn body(node: Node<'_>) -> Option<u64> {
    let size = size::parse(node.text("a size such as \"64KiB\"")?).map_err(|why| node.at.error(why)).ok()?;
    let fits = size <= MOST_BODY;
    fits.then_some(size).or_else(|| node.unexpected("a size of at most \"16MiB\""))
}

fn budget(node: Node<'_>) -> Option<BasisPoints> {
    let expected = "a share of stable's requests such as \"20%\"";
    let share = node.text(expected)?.strip_suffix('%').and_then(|percent| percent.parse().ok());
    share.or_else(|| node.unexpected(expected))
}
