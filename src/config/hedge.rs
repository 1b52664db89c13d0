//! `hedge` of a service or a version: when a request goes to a second endpoint before the first has answered.

use super::file::SOME_TIME;
use super::walk::Node;
use crate::table::HedgeRules;

/// Most endpoints besides the first.
const MOST: usize = 5;

/// `hedge = { after = "50ms", max = 1 }`, or `false` in a version of a service that has it; `default` is the service's.
pub(super) fn read(node: Node<'_>, default: Option<HedgeRules>) -> Option<Option<HedgeRules>> {
    if node.is_flag() {
        return match node.flag()? {
            false => Some(None),
            true => node.unexpected("`hedge = { after = \"50ms\" }`, or false"),
        };
    }
    let mut section = node.section("`hedge`")?;
    let after = match default {
        Some(default) => section.or("after", default.after, |node| node.duration(SOME_TIME)),
        None => section.required("after", "after = \"50ms\"").and_then(|node| node.duration(SOME_TIME)),
    };
    let max = section.or("max", default.map_or(1, |default| default.max), |node| {
        node.count(&(1..=MOST)).and_then(|count| u32::try_from(count).ok())
    });
    section.finish();
    Some(Some(HedgeRules { after: after?, max: max? }))
}
