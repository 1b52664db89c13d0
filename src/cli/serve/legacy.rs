//! What a process knows and the store does not, as one process tells the next: who gets no requests, and how long what is over by time
//! still takes.

use std::time::Duration;

use tracing::info;

use super::elders::millis;
use super::talk;
use crate::control::health::{Answer, Ejected, Sidelined};
use crate::control::{Handle, Term, TermOf};
use crate::proxy::upstream::Standing;
use crate::release::Timestamp;
use crate::table::pool::outliers::Cause;

/// How much of what somebody said is told.
const LONGEST: usize = 200;

/// What this process knows.
pub(super) fn tell(handle: &Handle) -> talk::Legacy {
    talk::Legacy {
        sidelined: handle.health().sidelined().into_iter().map(told).collect(),
        terms: handle.terms().into_iter().map(term_told).collect(),
    }
}

/// Goes by it here too; what one does not know any more does not matter.
pub(super) fn take(handle: &Handle, legacy: talk::Legacy) {
    handle.go_on_with(legacy.terms.into_iter().filter_map(term_heard).collect());
    let all = legacy.sidelined.into_iter().filter_map(heard).collect();
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
        ejection: ejection.map(|Ejected { cause, said, until, left, count }| talk::Ejected {
            cause: cause.token().to_owned(),
            said: short(said),
            until: until.0,
            left_ms: left.map(millis),
            count,
        }),
    }
}

fn heard(one: talk::Sidelined) -> Option<Sidelined> {
    let talk::Sidelined { service, version, endpoint, state, since, failure, ejection } = one;
    let ejection = ejection.and_then(|talk::Ejected { cause, said, until, left_ms, count }| {
        let cause = Cause::ALL.into_iter().find(|known| known.token() == cause)?;
        let left = left_ms.map(Duration::from_millis);
        Some(Ejected { cause, said, until: Timestamp(until), left, count })
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

fn term_told(Term { service, of, until, left }: Term) -> talk::Term {
    talk::Term {
        service: service.to_string(),
        of: of.token().to_owned(),
        until: until.0,
        left_ms: millis(left),
    }
}

fn term_heard(talk::Term { service, of, until, left_ms }: talk::Term) -> Option<Term> {
    Some(Term {
        service: service.parse().ok()?,
        of: TermOf::ALL.into_iter().find(|known| known.token() == of)?,
        until: Timestamp(until),
        left: Duration::from_millis(left_ms),
    })
}
