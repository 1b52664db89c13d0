//! A ramp, as people read it.

use std::time::Duration;

use crate::admin::api::{Change, ChangeAnswer, Ramp, RampEnded, Ramped};
use crate::cli::style::{Style, line, percent};

/// A ramp that has begun, or the plan of one: its first step, and what comes after it.
pub(in crate::cli) fn begun(answer: &ChangeAnswer, style: Style) -> String {
    let told = super::change(answer, style);
    let mut ramps = answer.services.values().filter_map(|standing| standing.ramp.as_ref());
    match ramps.next() {
        Some(ramp) => format!("{told}\n{}", prospect(ramp)),
        None => told,
    }
}

/// `ramp to green: 5 % now, then 25 %, 50 %, 100 %, each after 120 s`.
fn prospect(ramp: &Ramp) -> String {
    let (to, next) = (line(&ramp.to, 64), steps(ramp, ramp.step));
    format!("ramp to {to}: {} now, then {next}", percent(ramp.weight()))
}

/// `5 %, 25 %, 50 %, 100 %, each after 120 s`.
pub(in crate::cli) fn plan(ramp: &Ramp) -> String {
    steps(ramp, 0)
}

/// Its steps from this one on, counted from 0, and when they come.
fn steps(ramp: &Ramp, first: usize) -> String {
    let steps: Vec<_> = ramp.steps.iter().skip(first).map(|points| percent(*points)).collect();
    let when = match ramp.every_ms {
        Some(every) => format!("each after {} s", Duration::from_millis(every).as_secs_f64()),
        None => "each by `switchback promote`".to_owned(),
    };
    format!("{}, {when}", steps.join(", "))
}

/// `step 2 of 5 (5 %), 25 % in 80 s`.
pub(in crate::cli) fn stands(ramp: &Ramp) -> String {
    let (step, steps) = (ramp.step, ramp.steps.len());
    let seconds = |millis: u64| millis.div_ceil(1000);
    let next = match (&ramp.waits, ramp.left_ms) {
        (Some(why), Some(left)) if ramp.frozen => {
            format!("{} s left of it; {}", seconds(left), line(why, 160))
        }
        (Some(why), _) => format!("waits for {}: {}", percent(ramp.next()), line(why, 160)),
        (None, Some(left)) => format!("{} in {} s", percent(ramp.next()), seconds(left)),
        (None, None) => format!("{} next", percent(ramp.next())),
    };
    format!("step {step} of {steps} ({}), {next}", percent(ramp.weight()))
}

/// What is news since the last look; a clock that goes on is none.
pub(in crate::cli) fn news(service: &str, before: Option<&Ramp>, now: &Ramp) -> Option<String> {
    let without_clock = |ramp: &Ramp| (ramp.step, ramp.frozen, ramp.waits.clone());
    let same = before.is_some_and(|before| without_clock(before) == without_clock(now));
    (!same).then(|| format!("{service}: {}", stands(now)))
}

/// How it ended, by what.
pub(in crate::cli) fn ended(service: &str, ramped: &Ramped, change: Option<&Change>) -> String {
    let (to, reached) = (line(&ramped.to, 64), percent(ramped.reached));
    let (epoch, by) = (ramped.epoch, change.map(|change| format!(", {}", by(change))).unwrap_or_default());
    match ramped.how {
        RampEnded::Finished => {
            format!("{service}: the ramp to {to} is finished, at {reached} (epoch {epoch})")
        }
        RampEnded::Aborted => {
            format!("{service}: the ramp to {to} was taken back at {reached} (epoch {epoch}{by})")
        }
        RampEnded::Reverted => {
            format!(
                "{service}: supervision has taken the traffic back from {to}, which had {reached} (epoch {epoch}{by})"
            )
        }
        RampEnded::Superseded => {
            format!(
                "{service}: the ramp to {to} was ended at {reached} by another change (epoch {epoch}{by})"
            )
        }
    }
}

/// That it had finished, and what has moved the traffic since.
pub(in crate::cli) fn gone(service: &str, ramped: &Ramped, change: Option<&Change>) -> String {
    let (to, reached, epoch) = (line(&ramped.to, 64), percent(ramped.reached), ramped.epoch);
    let by = change.map(|change| format!(" (epoch {}, {})", change.epoch, by(change))).unwrap_or_default();
    format!(
        "{service}: the ramp to {to} had finished, at {reached} (epoch {epoch}), but the traffic is elsewhere by now{by}"
    )
}

/// `flip by operator uid=0: why`.
pub(super) fn by(change: &Change) -> String {
    let (kind, actor, name) = (&change.kind, &change.actor.kind, line(&change.actor.name, 80));
    match line(&change.reason, 400) {
        why if why.is_empty() => format!("{kind} by {actor} {name}"),
        why => format!("{kind} by {actor} {name}: {why}"),
    }
}
