//! JSON as it is appended to a line: no intermediate value, and nothing that a client sent can end the line or a string.

use crate::table::calendar::civil;

/// Appends `"key":`, behind a comma unless it is the first of its object.
pub(super) fn key(out: &mut Vec<u8>, key: &str) {
    if out.last().is_some_and(|last| *last != b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends a string of at most `most` bytes of `bytes`; what is not UTF-8 becomes U+FFFD.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8], most: usize) {
    out.push(b'"');
    let (kept, is_cut) = match bytes.get(..most) {
        Some(kept) if bytes.len() > most => (kept, true),
        _ => (bytes, false),
    };
    for chunk in kept.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if is_cut {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

/// Appends `text`; quotes, backslashes, control characters (C1 too, which terminals obey) and the line ends of Unicode
/// are escaped.
fn escape(out: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: &u8| (b' '..=b'~').contains(byte) && !b"\"\\".contains(byte);
    if text.as_bytes().iter().all(is_plain) {
        return out.extend_from_slice(text.as_bytes());
    }
    for symbol in text.chars() {
        match symbol {
            '"' | '\\' => out.extend_from_slice(&[b'\\', symbol as u8]),
            _ if symbol.is_control() || matches!(symbol, '\u{2028}' | '\u{2029}') => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(symbol)).as_bytes());
            }
            _ => out.extend_from_slice(symbol.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Appends a string, or `null`.
pub(super) fn maybe(out: &mut Vec<u8>, bytes: Option<&[u8]>, most: usize) {
    match bytes {
        Some(bytes) => text(out, bytes, most),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a number, or `null`.
pub(super) fn number(out: &mut Vec<u8>, number: Option<u64>) {
    match number {
        Some(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends microseconds since 1970 as `"2026-01-02T03:04:05.678901Z"` (RFC 3339).
pub(super) fn moment(out: &mut Vec<u8>, micros: u64) {
    let (days, micros) = (micros / 86_400_000_000, micros % 86_400_000_000);
    let (year, month, day) = civil(days);
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let parts = [(year, 4, b'-'), (month, 2, b'-'), (day, 2, b'T'), (seconds / 3600, 2, b':')];
    let more = [(seconds / 60 % 60, 2, b':'), (seconds % 60, 2, b'.'), (micros, 6, b'Z')];
    out.push(b'"');
    for (number, width, end) in parts.into_iter().chain(more) {
        digits(out, number, width);
        out.push(end);
    }
    out.push(b'"');
}

/// Appends the last `width` digits of `number`.
fn digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let from = out.len();
    out.resize(from + width, b'0');
    for digit in out[from..].iter_mut().rev() {
        *digit += u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_moment_is_written_to_the_microsecond() {
        let at = |micros| written(|out| moment(out, micros));
        assert_eq!(at(0), "\"1970-01-01T00:00:00.000000Z\"");
        assert_eq!(at(951_782_400_000_001), "\"2000-02-29T00:00:00.000001Z\"");
        assert_eq!(at(1_767_323_045_678_901), "\"2026-01-02T03:04:05.678901Z\"");
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        assert_eq!(written(|out| text(out, b"abcdef", 3)), "\"abc…\"");
        assert_eq!(written(|out| text(out, "aä".as_bytes(), 2)), "\"a\u{fffd}…\"");
    }

    proptest! {
        /// Whatever a client sends is one string on one line, and reads back as it was.
        #[test]
        fn nothing_escapes_from_its_string(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let line = written(|out| text(out, &bytes, 1000));
            let is_one_line = !line.chars().any(|symbol| symbol.is_control() || symbol == '\u{2028}');
            prop_assert!(is_one_line);
            let back: String = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(back, String::from_utf8_lossy(&bytes));
        }
    }
}
