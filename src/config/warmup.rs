//! `warmup = { connections = 4, duration = "10s" }`: what is opened before a version gets traffic.

use super::file::SOME_TIME;
use super::walk::Node;
use crate::table::Warmup;

/// A table, in which all may be left out.
pub(super) fn read(node: Node<'_>) -> Option<Warmup> {
    let mut section = node.section("`warmup`")?;
    let default = Warmup::default();
    let connections = section.or("connections", default.connections, |node| node.count(&(1..=Warmup::MOST)));
    let duration = section.or("duration", default.duration, |node| node.duration(SOME_TIME));
    section.finish();
    Some(Warmup { connections: connections?, duration: duration? })
}
