//! Durations as people write them, in the file, in calls and on the command line: `500ms`, `30s`, `5m`, `1h`.

use std::time::Duration;

use super::Invalid;

/// The longest duration that is accepted, a year: far from where adding it to a clock overflows.
pub const LONGEST: Duration = Duration::from_hours(365 * 24);

/// The units with their length in milliseconds, longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a whole number and a unit: `500ms`, `30s`, `5m`, `1h`.
///
/// # Errors
/// [`Invalid`] for anything else, and for more than [`LONGEST`].
pub fn parse(text: &str) -> Result<Duration, Invalid> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let (Some((_, length)), false) = (unit, number.is_empty()) else {
        return Err(Invalid(format!(
            "`{}` is not a duration: expected a whole number and a unit, such as 500ms, 30s, 5m or 1h",
            text.escape_default()
        )));
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*length));
    let duration = millis.map(Duration::from_millis).filter(|duration| *duration <= LONGEST);
    duration.ok_or_else(|| Invalid(format!("`{text}` is longer than a year")))
}

/// Writes a duration as [`parse`] reads it, in the longest unit that is exact; parts of a millisecond are cut off.
#[must_use]
pub fn text(duration: Duration) -> String {
    let millis = duration.as_millis();
    let exact = UNITS.iter().find(|(_, length)| millis.is_multiple_of(u128::from(*length)));
    match exact {
        Some((unit, length)) if millis > 0 => format!("{}{unit}", millis / u128::from(*length)),
        _ => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        for bad in
            ["", "30", "s", "-1s", "1.5s", "30 s", "1d", "5M", "1h30m", "9000h", "99999999999999999999s"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_is_written_in_its_longest_exact_unit() {
        let written = [0, 1, 1_500, 60_000, 90_000, 7_200_000].map(|ms| text(Duration::from_millis(ms)));
        assert_eq!(written, ["0s", "1ms", "1500ms", "1m", "90s", "2h"]);
    }

    proptest! {
        #[test]
        fn a_duration_is_written_as_it_is_read(ms in 0u64..=31_536_000_000) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse(&text(duration)), Ok(duration));
        }
    }
}
