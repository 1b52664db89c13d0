//! The one place where control reads the clock; everything behind it gets time as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::time::sleep_until;

use crate::release::Timestamp;

/// What the calendar says.
#[expect(clippy::disallowed_methods, reason = "control's edge: changes are dated here")]
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// For measuring how long something takes.
#[expect(clippy::disallowed_methods, reason = "control's edge: fences and drains are timed here")]
pub(super) fn instant() -> Instant {
    Instant::now()
}

/// At `at`; never, where there is nothing to wait for.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
