//! Sizes as people write them: `512B`, `16KiB`, `10MiB`, `2GiB`.

use crate::table::Invalid;

const UNITS: [(&str, u32); 4] = [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30)];

/// Reads a whole number and a unit.
///
/// # Errors
/// [`Invalid`] for anything else, and for more than 2⁶³ bytes.
pub fn parse(text: &str) -> Result<u64, Invalid> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let shift = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, shift)| *shift);
    let (Some(shift), Ok(number)) = (shift, number.parse::<u64>()) else {
        return Err(Invalid(format!(
            "`{}` is not a size: expected a whole number and a unit, such as 512B, 16KiB, 10MiB or 2GiB",
            text.escape_default()
        )));
    };
    let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes < 1 << 63);
    bytes.ok_or_else(|| Invalid(format!("`{text}` is too much")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse("0B"), Ok(0));
        assert_eq!(parse("16KiB"), Ok(16_384));
        assert_eq!(parse("10MiB"), Ok(10 << 20));
        assert_eq!(parse("2GiB"), Ok(2 << 30));
        for bad in ["", "10", "MiB", "-1B", "1.5MiB", "1 MiB", "1MB", "1mib", "99999999999GiB", "1KiBx"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
