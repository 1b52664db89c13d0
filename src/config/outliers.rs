//! `outliers` of a service or a version: which endpoints are left alone for a time.

use std::time::Duration;

use super::walk::{Node, Section};
use crate::table::{Deviation, OutlierRules};

/// The shortest interval and ejection.
const LEAST: Duration = Duration::from_millis(100);
/// The greatest factor.
const MOST_FACTOR: f64 = 1_000.0;

/// `outliers = { consecutive_errors = 5, base_ejection = "30s", … }`, or `false` for none.
pub(super) fn read(node: Node<'_>) -> Option<OutlierRules> {
    if node.is_flag() {
        return match node.flag()? {
            false => Some(OutlierRules::never()),
            true => node.unexpected("false, or rules such as { consecutive_errors = 5 }"),
        };
    }
    let mut section = node.section("`outliers`")?;
    let default = OutlierRules::default();
    let errors = section.or("consecutive_errors", default.consecutive_errors, times);
    let gateway = section.or("consecutive_gateway_errors", default.consecutive_gateway_errors, times);
    let local = section.or("consecutive_local_errors", default.consecutive_local_errors, times);
    let success_rate = section.or("success_rate", None, |node| {
        deviation(node, "`success_rate`", Deviation { factor: 1_900, min_hosts: 5, min_requests: 100 })
    });
    let latency = section.or("latency", None, |node| {
        deviation(node, "`latency`", Deviation { factor: 3_000, min_hosts: 3, min_requests: 100 })
    });
    let interval = section.or("interval", default.interval, |node| node.duration(LEAST));
    let base_ejection = section.or("base_ejection", default.base_ejection, |node| node.duration(LEAST));
    let max_ejection = section.or("max_ejection", default.max_ejection, |node| node.duration(LEAST));
    let max_ejected = section.or("max_ejected", default.max_ejected, Node::percentage);
    section.finish();
    Some(OutlierRules {
        consecutive_errors: errors?,
        consecutive_gateway_errors: gateway?,
        consecutive_local_errors: local?,
        success_rate: success_rate?,
        latency: latency?,
        interval: interval?,
        base_ejection: base_ejection?,
        max_ejection: max_ejection?,
        max_ejected: max_ejected?,
    })
}

/// `{ factor = 1.9, min_hosts = 5, min_requests = 100 }`, or `true` for just these.
fn deviation(node: Node<'_>, what: &str, default: Deviation) -> Option<Option<Deviation>> {
    if node.is_flag() {
        return Some(node.flag()?.then_some(default));
    }
    let mut section: Section<'_> = node.section(what)?;
    let factor = section.or("factor", default.factor, factor);
    let min_hosts = section.or("min_hosts", default.min_hosts, |node| {
        node.count(&(2..=10_000)).and_then(|hosts| u16::try_from(hosts).ok())
    });
    let min_requests = section.or("min_requests", default.min_requests, |node| {
        node.count(&(1..=1_000_000_000)).and_then(|requests| u32::try_from(requests).ok())
    });
    section.finish();
    Some(Some(Deviation { factor: factor?, min_hosts: min_hosts?, min_requests: min_requests? }))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within these bounds")]
fn factor(node: Node<'_>) -> Option<u32> {
    let expected = "a factor above 0 such as 1.9";
    let factor = node.number_or_text(expected)?.parse::<f64>().ok();
    let factor = factor.filter(|factor| *factor >= 0.001 && *factor <= MOST_FACTOR);
    factor.map(|factor| (factor * 1_000.0) as u32).or_else(|| node.unexpected(expected))
}

fn times(node: Node<'_>) -> Option<u16> {
    node.count(&(0..=10_000)).and_then(|times| u16::try_from(times).ok())
}
