//! `upgrades` of a service: what its requests may change to beside WebSocket.

use std::sync::Arc;

use super::walk::Node;
use crate::table::UpgradeName;

/// Most of them: each is compared with all that a client offers.
const MOST: usize = 16;

/// `upgrades = ["spdy/3.1", "tcp"]`; a `websocket` among them says what is so anyway.
pub(super) fn read(node: Node<'_>) -> Option<Arc<[UpgradeName]>> {
    let list = node.list("a list of protocols such as [\"spdy/3.1\", \"tcp\"]")?;
    if list.len() > MOST {
        return node.unexpected(&format!("a list of at most {MOST} protocols"));
    }
    let all: Vec<_> = list.into_iter().map(name).collect();
    let all = all.into_iter().collect::<Option<Vec<_>>>()?;
    Some(all.into_iter().filter(|name| !name.is_websocket()).collect())
}

fn name(node: Node<'_>) -> Option<UpgradeName> {
    node.parse("a protocol such as \"spdy/3.1\" or \"tcp\"")
}
