//! `[shutdown]` and `[upgrade]`: how the process ends, and how another takes its place.

use std::time::Duration;

use super::file::SOME_TIME;
use super::walk::Node;
use super::{Shutdown, Upgrade};

/// `[shutdown]`.
pub(super) fn shutdown(node: Node<'_>) -> Option<Shutdown> {
    let mut section = node.section("[shutdown]")?;
    let default = Shutdown::default();
    let lame_duck = section.or("lame_duck", default.lame_duck, |node| node.duration(Duration::ZERO));
    let spread = section.or("spread", default.spread, |node| node.duration(Duration::ZERO));
    let deadline = section.or("deadline", default.deadline, |node| node.duration(Duration::ZERO));
    section.finish();
    Some(Shutdown { lame_duck: lame_duck?, spread: spread?, deadline: deadline? })
}

/// `[upgrade]`.
pub(super) fn upgrade(node: Node<'_>) -> Option<Upgrade> {
    let mut section = node.section("[upgrade]")?;
    let default = Upgrade::default();
    let spread = section.or("spread", default.spread, |node| {
        let spread = node.duration(Duration::ZERO)?;
        if spread > Upgrade::MOST_SPREAD {
            node.at.error("changes wait for so long after an upgrade: at most 5s");
            return None;
        }
        Some(spread)
    });
    let deadline = section.or("deadline", default.deadline, |node| node.duration(SOME_TIME));
    let predecessors = section.or("predecessors", default.predecessors, |node| node.count(&(1..=64)));
    section.finish();
    Some(Upgrade { spread: spread?, deadline: deadline?, predecessors: predecessors? })
}
