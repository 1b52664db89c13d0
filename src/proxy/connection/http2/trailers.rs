//! Whether a request's trailers begin with a pseudo-field, which makes it malformed (RFC 9113 §8.1): h2 drops it silently.
//!
//! Only the first field is looked at: behind an ordinary one, h2 itself refuses it. One that is indexed in the dynamic
//! table is not recognized; it is dropped, too, and never passed on.

const PADDED: u8 = 8;
const PRIORITIZED: u8 = 32;
/// The length of what [`PRIORITIZED`] puts before the fragment.
const PRIORITY: usize = 5;
/// The pseudo-fields of the static table are its first 14 (RFC 7541, appendix A).
const PSEUDO: u8 = 14;

/// The beginning of a block of trailers, as it comes: in a HEADERS frame, and in those that continue it.
#[derive(Debug)]
pub(super) struct Opening {
    next: Next,
    /// True when the next byte is the length of the frame's padding.
    is_padded: bool,
    /// Bytes before the frame's fragment of the block.
    before: usize,
    /// Bytes of the fragment that are still to come.
    left: usize,
}

/// What the next byte of the block is (RFC 7541 §6).
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The first of a field, or of a size update.
    Field,
    /// More of a size update's value.
    Update,
    /// The length of a name, and whether that is in Huffman's code.
    Length,
    /// A name's first.
    Name { is_coded: bool },
}

impl Opening {
    /// Of a HEADERS frame with these flags, whose payload has this length.
    pub(super) fn new(flags: u8, length: usize) -> Self {
        let is_padded = flags & PADDED != 0;
        let before = if flags & PRIORITIZED == 0 { 0 } else { PRIORITY };
        let left = length.saturating_sub(before + usize::from(is_padded));
        Self { next: Next::Field, is_padded, before, left }
    }

    /// It goes on in a CONTINUATION frame of this length.
    pub(super) fn go_on(&mut self, length: usize) {
        self.left = length;
    }

    /// Takes the next bytes of the frame's payload: `None` while more are needed, else whether it is a pseudo-field.
    pub(super) fn take(&mut self, payload: &[u8]) -> Option<bool> {
        payload.iter().find_map(|byte| self.take_byte(*byte))
    }

    fn take_byte(&mut self, byte: u8) -> Option<bool> {
        if std::mem::take(&mut self.is_padded) {
            self.left = self.left.saturating_sub(usize::from(byte));
        } else if self.before > 0 {
            self.before -= 1;
        } else if self.left > 0 {
            self.left -= 1;
            return self.next.take(byte);
        }
        None
    }
}

impl Next {
    fn take(&mut self, byte: u8) -> Option<bool> {
        let index = match (*self, byte) {
            (Self::Update, 0x80..) => return None,
            (Self::Update, _) => {
                *self = Self::Field;
                return None;
            }
            // It goes on: h2 knows no pseudo-field with so long a name.
            (Self::Length, 0x7f | 0xff) => return Some(false),
            (Self::Length, _) => {
                *self = Self::Name { is_coded: byte >= 0x80 };
                return None;
            }
            // A colon, in Huffman's code 1011100.
            (Self::Name { is_coded: true }, _) => return Some(byte >> 1 == 0b101_1100),
            (Self::Name { is_coded: false }, _) => return Some(byte == b':'),
            (Self::Field, 0x20..=0x3f) => {
                // The value goes on where its first part is full.
                if byte == 0x3f {
                    *self = Self::Update;
                }
                return None;
            }
            (Self::Field, 0x80..) => return Some((1..=PSEUDO).contains(&(byte & 0x7f))),
            (Self::Field, 0x40..) => byte & 0x3f,
            (Self::Field, _) => byte & 0x0f,
        };
        if index == 0 {
            *self = Self::Length;
            return None;
        }
        Some(index <= PSEUDO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_pseudo(flags: u8, payload: &[u8]) -> bool {
        let whole = Opening::new(flags, payload.len()).take(payload);
        let mut opening = Opening::new(flags, payload.len());
        let mut pieces = payload.iter().map(|byte| opening.take(&[*byte]));
        assert_eq!(pieces.find_map(|piece| piece), whole, "byte by byte");
        whole == Some(true)
    }

    /// The same in a frame for each byte of the block, behind one with padding alone that looks like a pseudo-field.
    fn is_pseudo_in_fragments(block: &[u8]) -> bool {
        let mut opening = Opening::new(PADDED, 3);
        assert_eq!(opening.take(b"\x02\x82\x82"), None);
        let mut fragments = block.iter().map(|byte| {
            opening.go_on(1);
            opening.take(&[*byte])
        });
        fragments.find_map(|fragment| fragment) == Some(true)
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
            &[&[0x20; 30][..], b"\x82"].concat(),
        ] {
            assert!(is_pseudo(0, payload), "{payload:?}");
            assert!(is_pseudo_in_fragments(payload), "{payload:?}");
        }
        assert!(is_pseudo(PADDED, b"\x02\x82\0\0"));
        assert!(is_pseudo(PADDED | PRIORITIZED, b"\x01\0\0\0\0\x07\x82\0"));
    }

    #[test]
    fn other_fields_are_none() {
        for payload in [
            &b"\x20"[..],
            b"\x00\x05x-sum\x0212",
            b"\x40\x84\xf2\xb2\x21\x3f\x0212",
            b"\xbe",
            b"\x7a\x02ok",
            b"\x00\x7f:a-name-of-185-bytes",
        ] {
            assert!(!is_pseudo(0, payload), "{payload:?}");
            assert!(!is_pseudo_in_fragments(payload), "{payload:?}");
        }
        assert!(!is_pseudo(PADDED, b"\x82\x00\x01x\x01y"), "the padding's length is no field");
    }
}
