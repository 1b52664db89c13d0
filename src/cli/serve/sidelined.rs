//! The endpoints that get no requests, as one process tells the next.

use tracing::info;

use super::talk;
use crate::control::Handle;
use crate::control::health::{Answer, Ejected, Sidelined};
use crate::proxy::upstream::Standing;
use crate::release::Timestamp;
use crate::table::pool::outliers::Cause;

/// How much of what somebody said is told.
const LONGEST: usize = 200;

/// Those of this process.
pub(super) fn tell(handle: &Handle) -> Vec<talk::Sidelined> {
    handle.health().sidelined().into_iter().map(told).collect()
}

/// Leaves them alone here too; what one does not know any more does not matter.
pub(super) fn take(handle: &Handle, told: Vec<talk::Sidelined>) {
    let all = told.into_iter().filter_map(heard).collect();
    let count = handle.health().inherit(&handle.live().snapshot(), all);
    if count > 0 {
        info!(endpoints = count, "get no requests, as the process before this one has found");
    }
}

fn told(one: Sidelined) -> talk::Sidelined {
    let Sidelined { service, version, endpoint, state, since, last_failure, ejection } = one;
    let short = |said: String| said.chars().take(LONGEST).collect();
    talk::Sidelined {
        service: service.to_string(),
        version: version.to_string(),
        endpoint: endpoint.to_string(),
        state: state.token().to_owned(),
        since: since.0,
        failure: last_failure.map(|answer| (short(answer.said), answer.at.0)),
        ejection: ejection.map(|Ejected { cause, said, until, count }| talk::Ejected {
            cause: cause.token().to_owned(),
            said: short(said),
            until: until.0,
            count,
        }),
    }
}

fn heard(one: talk::Sidelined) -> Option<Sidelined> {
    let talk::Sidelined { service, version, endpoint, state, since, failure, ejection } = one;
    let ejection = ejection.and_then(|talk::Ejected { cause, said, until, count }| {
        let cause = Cause::ALL.into_iter().find(|known| known.token() == cause)?;
        Some(Ejected { cause, said, until: Timestamp(until), count })
    });
    Some(Sidelined {
        service: service.parse().ok()?,
        version: version.parse().ok()?,
        endpoint: endpoint.parse().ok()?,
        state: Standing::ALL.into_iter().find(|known| known.token() == state)?,
        since: Timestamp(since),
        last_failure: failure.map(|(said, at)| Answer { is_well: false, said, at: Timestamp(at) }),
        ejection,
    })
}
