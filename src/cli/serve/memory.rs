//! Looks at how much memory is used and tells the workers how tight it is: on the main thread, never on a worker's.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::proxy::commons::Commons;
use crate::proxy::pressure::{self, MemoryLimit, Pressure};

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
        if now != Pressure::Calm {
            give_back();
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            _ = limit.changed() => {}
        }
    }
}

/// Gives to the system what has been free for a second.
///
/// mimalloc keeps that until some thread takes or frees a page of it, which none does while whoever comes is refused: what
/// is free would be in use for good. When a thread ends, it looks through all that any thread has freed
/// (`_mi_theap_collect_abandon` in its `theap.c`); there is no other way to ask it in safe Rust.
fn give_back() {
    // Only a thread that has allocated has anything to end with.
    let ends = || drop(black_box(Box::new(0_u8)));
    if let Err(error) = thread::Builder::new().name("give-back".to_owned()).spawn(ends) {
        debug!(%error, "memory: nothing is given back now");
    }
}
