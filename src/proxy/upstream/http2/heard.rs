//! What an endpoint says first: its settings.

use crate::proxy::deferred::Watch;

/// A frame's header (RFC 9113 §4.1).
const HEADER: usize = 9;
/// One setting: a number and a value (RFC 9113 §6.5.1).
const SETTING: usize = 6;
/// The number of `SETTINGS_MAX_HEADER_LIST_SIZE`, of which h2 does not tell.
const MAX_HEADER_LIST_SIZE: [u8; 2] = [0, 6];

/// Reads the first frame, which is the settings (RFC 9113 §3.4), as it comes. What is set later is not looked at.
#[derive(Debug, Default)]
pub(super) struct Heard {
    bytes: usize,
    /// The length of the frame's payload.
    length: [u8; 3],
    setting: [u8; SETTING],
    most_head: Option<u32>,
}

impl Heard {
    /// True when all of it has come.
    pub(super) fn has_settings(&self) -> bool {
        self.bytes >= self.end()
    }

    /// How large a head it takes, by the measure of RFC 9113 §6.5.2, if it says so.
    pub(super) fn most_head(&self) -> Option<u32> {
        self.most_head
    }

    /// Where the frame ends, once its length is known.
    fn end(&self) -> usize {
        let [high, middle, low] = self.length.map(usize::from);
        HEADER + (high << 16 | middle << 8 | low)
    }

    /// Takes the byte of the payload that is there.
    fn set(&mut self, at: usize, byte: u8) {
        self.setting[at % SETTING] = byte;
        if at % SETTING == SETTING - 1
            && let [high, low, value @ ..] = self.setting
            && [high, low] == MAX_HEADER_LIST_SIZE
        {
            self.most_head = Some(u32::from_be_bytes(value));
        }
    }
}

impl Watch for Heard {
    fn read(&mut self, bytes: &[u8]) -> usize {
        let before = self.bytes;
        self.length.iter_mut().skip(before).zip(bytes).for_each(|(to, from)| *to = *from);
        self.bytes += bytes.len();
        if before < self.end() {
            for (at, byte) in (before..self.end()).zip(bytes).filter(|(at, _)| *at >= HEADER) {
                self.set(at - HEADER, *byte);
            }
        }
        bytes.len()
    }

    fn sent(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_endpoint_takes_is_read_off_its_first_frame_however_that_comes() {
        let frame = b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x06\0\0\x20\0\0\x04\0\0\xff\xff";
        let behind = b"\0\0\x06\x04\0\0\0\0\0\0\x06\0\0\0\x01";
        let all = [&frame[..], behind].concat();
        for size in [1, 2, 5, 9, 16, frame.len(), all.len()] {
            let mut heard = Heard::default();
            for part in all.chunks(size) {
                assert_eq!(heard.has_settings(), heard.bytes >= frame.len());
                heard.read(part);
            }
            assert_eq!((heard.has_settings(), heard.most_head()), (true, Some(8_192)), "{size}");
        }
        let mut silent = Heard::default();
        silent.read(b"\0\0\0\x04\0\0\0\0\0");
        assert_eq!((silent.has_settings(), silent.most_head()), (true, None));
    }
}
