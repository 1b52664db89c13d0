//! `circuit` and `keepalive` of a service or a version: how much of its pool may be used at a time, and for how long.

use std::num::NonZeroU32;

use super::file::SOME_TIME;
use super::walk::Node;
use crate::table::{CircuitRules, KeepaliveRules, LONGEST_QUEUE, duration};

const MOST: usize = 10_000_000;

/// `circuit = { requests = 1_000, endpoint_requests = 100, connections = 100, pending = 1_024, queue_timeout = "1s" }`; what
/// it does not say is as in `default`.
pub(super) fn read(node: Node<'_>, default: &CircuitRules) -> Option<CircuitRules> {
    let mut section = node.section("`circuit`")?;
    let requests = section.or("requests", default.requests, |node| some(node).map(Some));
    let endpoint_requests =
        section.or("endpoint_requests", default.endpoint_requests, |node| some(node).map(Some));
    let connections = section.or("connections", default.connections, |node| some(node).map(Some));
    let pending = section.or("pending", default.pending, |node| {
        node.count(&(0..=MOST)).and_then(|count| u32::try_from(count).ok())
    });
    let queue_timeout = section.or("queue_timeout", default.queue_timeout, |node| {
        let timeout = node.duration(SOME_TIME)?;
        if timeout > LONGEST_QUEUE {
            let longest = duration::text(LONGEST_QUEUE);
            node.at.error(format_args!("{} is too long: at most {longest}", duration::text(timeout)));
            return None;
        }
        Some(timeout)
    });
    section.finish();
    Some(CircuitRules {
        requests: requests?,
        endpoint_requests: endpoint_requests?,
        connections: connections?,
        pending: pending?,
        queue_timeout: queue_timeout?,
    })
}

/// `keepalive = { idle = "55s", lifetime = "1h", requests = 1_000 }`.
pub(super) fn keepalive(node: Node<'_>, default: KeepaliveRules) -> Option<KeepaliveRules> {
    let mut section = node.section("`keepalive`")?;
    let idle = section.or("idle", default.idle, |node| node.duration(SOME_TIME).map(Some));
    let lifetime = section.or("lifetime", default.lifetime, |node| node.duration(SOME_TIME));
    let requests = section.or("requests", default.requests, |node| some(node).map(Some));
    section.finish();
    Some(KeepaliveRules { idle: idle?, lifetime: lifetime?, requests: requests? })
}

fn some(node: Node<'_>) -> Option<NonZeroU32> {
    let count = node.count(&(1..=MOST))?;
    u32::try_from(count).ok().and_then(NonZeroU32::new)
}
