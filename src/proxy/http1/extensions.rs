//! What may follow a chunk's size on its line: it means nothing to us, but is read as it is written.
//!
//! Passed over unread, a quoted string that is not closed ends for us with the line, and for others at the next quote,
//! behind what they take for part of the body and we for the next request (CVE-2026-2332, CVE-2026-33870).

/// True for a chunk's extensions, none or several (RFC 9112 §7.1.1). Blanks before the line's end are let pass, too: there are
/// endpoints that fill the size up with them.
pub(super) fn are_extensions(line: &[u8]) -> bool {
    let mut rest = behind_blanks(line);
    while !rest.is_empty() {
        match behind_extension(rest) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    true
}

/// What follows the extension that `text` begins with.
fn behind_extension(text: &[u8]) -> Option<&[u8]> {
    let name = behind_blanks(text.strip_prefix(b";")?);
    let rest = behind_blanks(behind_token(name)?);
    let Some(value) = rest.strip_prefix(b"=").map(behind_blanks) else { return Some(rest) };
    let is_quoted = value.starts_with(b"\"");
    let rest = if is_quoted { behind_quoted(value) } else { behind_token(value) };
    rest.map(behind_blanks)
}

/// Blanks only: to others a carriage return here ends the line.
fn behind_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &text[blanks..]
}

/// RFC 9110 §5.6.2.
fn behind_token(text: &[u8]) -> Option<&[u8]> {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = text.iter().take_while(is_part).count();
    (length > 0).then(|| &text[length..])
}

/// RFC 9110 §5.6.4.
fn behind_quoted(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', quoted, behind @ ..] if is_text(*quoted) => behind,
            [b'\\', ..] => return None,
            [byte, behind @ ..] if is_text(*byte) => behind,
            _ => return None,
        };
    }
}

/// A visible character, a blank, or of no known coding.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_read_as_they_are_written() {
        for line in [
            &b""[..],
            b" ",
            b";a",
            b" ;\ta = b ; c",
            b";a=\"\"",
            b";a=\"b;\\\"=\\\\\xff\t\";c=\"d\"",
            b";!#$%&'*+-.^_`|~=1  ",
        ] {
            assert!(are_extensions(line), "{:?}", line.escape_ascii().to_string());
        }
        for line in [
            &b"a"[..],
            b";",
            b";;a",
            b";a;",
            b";=b",
            b";a=",
            b";a=;b",
            b";a=b c",
            b";a b",
            b";a=\"",
            b";a=\"b\\\"",
            b";a=\"b\\",
            b";a=\"b\"c",
            b";a=b\"c\"",
            b";\"a\"",
            b";a=\"\x7f\"",
            b";a=\"\\\r\"",
            b";\xff",
            b"\r",
            b";a\r",
        ] {
            assert!(!are_extensions(line), "{:?}", line.escape_ascii().to_string());
        }
    }
}
