//! Whether a request's trailers begin with a pseudo-field, which makes it malformed (RFC 9113 §8.1): h2 drops it silently.
//!
//! Only the first field is looked at: behind an ordinary one, h2 itself refuses it. One that is indexed in the dynamic
//! table is not recognized; it is dropped, too, and never passed on.

/// As much of a frame as is needed: padding, priority, a few size updates, and the beginning of a field.
const MOST: usize = 24;

const PADDED: u8 = 8;
const PRIORITIZED: u8 = 32;
/// The pseudo-fields of the static table are its first 14 (RFC 7541, appendix A).
const PSEUDO: u8 = 14;

/// The beginning of a HEADERS frame's payload, as it comes.
#[derive(Debug)]
pub(super) struct Opening {
    flags: u8,
    bytes: [u8; MOST],
    filled: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
}

impl Opening {
    pub(super) fn new(flags: u8, length: usize) -> Self {
        Self { flags, bytes: [0; MOST], filled: 0, left: length }
    }

    /// Takes the next bytes: `None` while more are needed, else whether it is a pseudo-field.
    pub(super) fn take(&mut self, payload: &[u8]) -> Option<bool> {
        let taken = payload.len().min(MOST - self.filled);
        self.bytes[self.filled..][..taken].copy_from_slice(&payload[..taken]);
        self.filled += taken;
        self.left -= payload.len().min(self.left);
        (self.filled == MOST || self.left == 0).then(|| self.is_pseudo())
    }

    fn is_pseudo(&self) -> bool {
        let mut bytes = self.bytes[..self.filled].iter().copied();
        let before = usize::from(self.flags & PADDED != 0) + 5 * usize::from(self.flags & PRIORITIZED != 0);
        bytes.by_ref().take(before).for_each(drop);
        while let Some(first) = bytes.next() {
            let index = match first {
                // A size update, whose value may go on.
                0x20..=0x3f => {
                    if first == 0x3f {
                        while bytes.next().is_some_and(|byte| byte >= 0x80) {}
                    }
                    continue;
                }
                0x80..=0xff => first & 0x7f,
                0x40..=0x7f => first & 0x3f,
                0x00..=0x1f => first & 0x0f,
            };
            return match index {
                // A name of its own: a colon, in Huffman's code 1011100.
                0 if first < 0x80 => match (bytes.next(), bytes.next()) {
                    (Some(0x80..), Some(name)) => name >> 1 == 0b101_1100,
                    (_, name) => name == Some(b':'),
                },
                index => (1..=PSEUDO).contains(&index),
            };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_pseudo(flags: u8, payload: &[u8]) -> bool {
        let whole = Opening::new(flags, payload.len()).take(payload).unwrap();
        let mut opening = Opening::new(flags, payload.len());
        let mut pieces = payload.iter().map(|byte| opening.take(&[*byte]));
        assert_eq!(pieces.find_map(|piece| piece), Some(whole), "byte by byte");
        whole
    }

    #[test]
    fn a_pseudo_field_is_known_in_each_of_its_forms() {
        for payload in [
            &[0x82][..],
            b"\x42\x03GET",
            b"\x02\x03GET",
            b"\x12\x03GET",
            b"\x00\x05:test\x02ok",
            b"\x40\x05:test\x02ok",
            b"\x00\x84\xb8\x41\x52\x7f\x02ok",
            b"\x20\x3f\xe1\x1f\x82",
        ] {
            assert!(is_pseudo(0, payload), "{payload:?}");
        }
        assert!(is_pseudo(PADDED, b"\x02\x82\0\0"));
        assert!(is_pseudo(PADDED | PRIORITIZED, b"\x01\0\0\0\0\x07\x82\0"));
    }

    #[test]
    fn other_fields_are_none() {
        for payload in
            [&b"\x20"[..], b"\x00\x05x-sum\x0212", b"\x40\x84\xf2\xb2\x21\x3f\x0212", b"\xbe", b"\x7a\x02ok"]
        {
            assert!(!is_pseudo(0, payload), "{payload:?}");
        }
        assert!(!is_pseudo(PADDED, b"\x82\x00\x01x\x01y"), "the padding's length is no field");
    }
}
