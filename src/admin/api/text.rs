//! Times and durations as text; and the figures of a verdict.

use std::time::Duration;

pub use crate::release::verdict::figures::{figure, odds, points, time};
use crate::table::calendar::{civil, days};
use crate::table::{Invalid, duration as words};

const DAY: u64 = 86_400_000;
/// The longest time that is read.
pub const LONGEST: Duration = Duration::from_hours(24);
/// The shortest supervisory period.
const LEAST_SUPERVISION: Duration = Duration::from_secs(1);

/// Milliseconds since 1970 as `2026-01-02T03:04:05.678Z`.
#[must_use]
pub fn rfc3339(millis: u64) -> String {
    let (year, month, day) = civil(millis / DAY);
    let (seconds, rest) = (millis % DAY / 1000, millis % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z")
}

/// Reads what [`rfc3339`] writes; `None` for anything else.
#[must_use]
pub fn millis(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers =
        |text: &str, by: &[char]| text.split(by).map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>();
    let [year, month, day] = numbers(date, &['-'])?.try_into().ok()?;
    let [hour, minute, second, rest] = numbers(time, &[':', '.'])?.try_into().ok()?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year, month, day) * DAY + ((hour * 60 + minute) * 60 + second) * 1000 + rest)
}

/// Reads `500ms`, `30s`, `5m`, `1h`, as the file has them.
///
/// # Errors
/// [`Invalid`] for anything else, and for more than a day.
pub fn duration(text: &str) -> Result<Duration, Invalid> {
    let duration = words::parse(text)?;
    if duration > LONGEST {
        return Err(Invalid(format!("`{text}` is longer than a day: give 24h at most")));
    }
    Ok(duration)
}

/// Reads for how long something is supervised: as [`duration`], and not too short to tell anything.
///
/// # Errors
/// [`Invalid`] for anything else, and for less than a second.
pub fn supervision(text: &str) -> Result<Duration, Invalid> {
    let period = duration(text)?;
    if period < LEAST_SUPERVISION {
        return Err(Invalid("a flip is supervised for 1s at least".to_owned()));
    }
    Ok(period)
}

/// Reads how long a step of a ramp lasts: as [`duration`], and some time.
///
/// # Errors
/// [`Invalid`] for anything else, and for none.
pub fn step(text: &str) -> Result<Duration, Invalid> {
    let lasts = duration(text)?;
    if lasts.is_zero() {
        let why = "a step lasts 1ms at least; leave `every` out to have each wait for `promote`";
        return Err(Invalid(why.to_owned()));
    }
    Ok(lasts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_767_323_045_678), "2026-01-02T03:04:05.678Z");
    }

    proptest! {
        #[test]
        fn a_time_reads_back(time in 0u64..250_000_000_000_000) {
            prop_assert_eq!(millis(&rfc3339(time)), Some(time));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "5", "s", "-1s", "1.5s", "25h", "1d", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
