//! Looks at how much memory is used and tells the workers how tight it is: on the main thread, never on a worker's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::proxy::commons::Commons;
use crate::proxy::pressure::{self, MemoryLimit};

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(250);

/// Looks for as long as somebody holds the other end of `limit`. Without `/proc` there is nothing to see.
pub(super) async fn look(commons: Arc<Commons>, mut limit: watch::Receiver<MemoryLimit>) {
    while limit.has_changed().is_ok() {
        let Some(memory) = pressure::memory() else { return };
        let before = commons.pressure();
        let now = limit.borrow_and_update().judge(memory, before);
        if now != before {
            let (used, all) = (memory.used >> 20, memory.all >> 20);
            commons.set_pressure(now);
            // After it holds: who reads this may rely on it.
            warn!(used_mib = used, all_mib = all, ?now, ?before, "memory: pressure has changed");
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            _ = limit.changed() => {}
        }
    }
}
