//! `drain` of a service: how what is left on a version ends that gets no new requests.

use std::time::Duration;

use super::file::SOME_TIME;
use super::walk::Node;
use crate::table::{DrainRules, duration};

/// `drain = { patience = "30s", spread = "60s", deadline = "10m", retry = "3s" }`.
pub(super) fn read(node: Node<'_>) -> Option<DrainRules> {
    let mut section = node.section("`drain`")?;
    let default = DrainRules::default();
    let patience = section.or("patience", default.patience, |node| node.duration(Duration::ZERO));
    let spread = section.or("spread", default.spread, |node| node.duration(Duration::ZERO));
    let told = section.take("deadline");
    let deadline = told.map_or(Some(default.deadline), |node| node.duration(SOME_TIME));
    let retry = section.or("retry", None, |node| node.duration(SOME_TIME).map(Some));
    section.finish();
    let rules = DrainRules { patience: patience?, spread: spread?, deadline: deadline?, retry: retry? };
    let last = rules.patience.saturating_add(rules.spread);
    if rules.deadline < last {
        let (deadline, last) = (duration::text(rules.deadline), duration::text(last));
        let at = told.map_or(node.at, |node| node.at);
        at.error_with(
            format_args!(
                "the deadline of {deadline} comes before patience and spread are over, which take {last}"
            ),
            format!("give it at least deadline = \"{last}\", or shorten the others"),
        );
        return None;
    }
    Some(rules)
}
