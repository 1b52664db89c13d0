//! A retirement, as people read it.

use std::time::Duration;

use super::ramp::by;
use crate::admin::api::{Change, RampEnded, Retired, Retirement};
use crate::cli::style::{line, span};

/// `nobody new comes to green; it is over when nobody has come for 30 min, at the latest in 24 h 0 min`.
pub(in crate::cli) fn retirement(retirement: &Retirement) -> String {
    let Retirement { version, quiet_ms, until, left_ms, quiet_for_ms, waits, .. } = retirement;
    let time = |millis: u64| match Duration::from_millis(millis).as_secs_f64() {
        seconds if seconds < 60.0 => format!("{seconds} s"),
        _ => span(millis / 1000),
    };
    let whole = |millis: u64| span(millis / 1000);
    let so_far = quiet_for_ms.map(|quiet| format!(" ({} so far)", whole(quiet))).unwrap_or_default();
    let latest =
        left_ms.map_or_else(|| format!("at {}", line(until, 32)), |left| format!("in {}", whole(left)));
    let waits = waits.as_ref().map(|why| format!("; it waits: {}", line(why, 160))).unwrap_or_default();
    let version = line(version, 64);
    format!(
        "nobody new comes to {version}; it is over when nobody has come for {}{so_far}, at the latest {latest}{waits}",
        time(*quiet_ms)
    )
}

/// How it ended, by what.
pub(in crate::cli) fn retired(service: &str, retired: &Retired, change: Option<&Change>) -> String {
    let (version, epoch) = (line(&retired.version, 64), retired.epoch);
    let by = change.map(|change| format!(", {}", by(change))).unwrap_or_default();
    match retired.how {
        RampEnded::Finished => format!("{service}: {version} is retired (epoch {epoch}{by})"),
        RampEnded::Aborted => {
            format!("{service}: everybody on {version} was sent back at once (epoch {epoch}{by})")
        }
        RampEnded::Reverted => {
            format!("{service}: supervision has taken the traffic back from {version} (epoch {epoch}{by})")
        }
        RampEnded::Superseded => {
            format!("{service}: the retirement of {version} was ended by another change (epoch {epoch}{by})")
        }
    }
}
