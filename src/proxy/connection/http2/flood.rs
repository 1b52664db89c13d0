//! Counts a client's frames that carry nothing: pings, settings, resets, empty data. An honest client needs few of them;
//! a hostile one sends nothing else, because each costs us more than it (CVE-2019-9512 and its kin).

use crate::proxy::deferred::Watch;

/// Length of a frame's header (RFC 9113 §4.1), and of the preface before the first.
const HEADER: usize = 9;
const PREFACE: usize = 24;

/// Frames without a purpose that a client may send at once, and more of them for each tenth of a second.
const AT_ONCE: u64 = 1_000;
const A_TICK: u64 = 10;
/// One window update is due for this much of what was sent.
const A_WINDOW: usize = 1_024;

const DATA: u8 = 0;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// `END_STREAM` of DATA, `ACK` of SETTINGS and PING.
const FIRST_FLAG: u8 = 1;

/// Follows the frames of one connection.
#[derive(Debug)]
pub struct Frames {
    /// Bytes until the next frame's header.
    skip: usize,
    header: [u8; HEADER],
    filled: usize,
    /// Frames that carried nothing.
    idle: u64,
    /// Bytes that were sent and have not been accounted to a window update.
    sent: usize,
    since: Option<u64>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { skip: PREFACE, header: [0; HEADER], filled: 0, idle: 0, sent: 0, since: None }
    }
}

impl Watch for Frames {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..][..taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER {
                self.filled = 0;
                self.judge();
            }
        }
    }

    fn sent(&mut self, bytes: usize) {
        // The client may answer them with window updates.
        self.sent = self.sent.saturating_add(bytes);
    }
}

impl Frames {
    fn judge(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let is_first = flags & FIRST_FLAG != 0;
        let carries_nothing = match kind {
            DATA => self.skip == 0 && !is_first,
            SETTINGS | PING => !is_first,
            WINDOW_UPDATE => {
                let is_due = self.sent >= A_WINDOW;
                self.sent = self.sent.saturating_sub(A_WINDOW);
                !is_due
            }
            PRIORITY | RST_STREAM => true,
            // HEADERS, CONTINUATION; what h2 does not know it passes over.
            _ => kind > WINDOW_UPDATE + 1,
        };
        self.idle += u64::from(carries_nothing);
    }

    /// True when there were more of them than the time since the first look allows; `now` in ticks.
    pub fn is_flood(&mut self, now: u64) -> bool {
        let since = *self.since.get_or_insert(now);
        self.idle > AT_ONCE + A_TICK * now.saturating_sub(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn followed(frames: &[Vec<u8>], piece: usize) -> Frames {
        let mut counter = Frames::default();
        let text = [vec![0; PREFACE], frames.concat()].concat();
        text.chunks(piece).for_each(|piece| counter.read(piece));
        counter
    }

    #[test]
    fn only_frames_that_carry_nothing_are_counted() {
        let useful =
            [frame(1, 4, b"head"), frame(DATA, 0, b"data"), frame(DATA, 1, b""), frame(PING, 1, &[0; 8])];
        let idle =
            [frame(PING, 0, &[0; 8]), frame(DATA, 0, b""), frame(RST_STREAM, 0, &[0; 4]), frame(99, 0, b"x")];
        for piece in [1, 5, 1000] {
            assert_eq!(followed(&useful, piece).idle, 0);
            assert_eq!(followed(&idle, piece).idle, 4);
        }
    }

    #[test]
    fn a_window_update_is_owed_for_what_was_sent() {
        let mut frames = followed(&[], 1);
        frames.sent(2 * A_WINDOW);
        frames.read(&[frame(WINDOW_UPDATE, 0, &[0; 4]), frame(WINDOW_UPDATE, 0, &[0; 4])].concat());
        assert_eq!(frames.idle, 0);
        frames.read(&frame(WINDOW_UPDATE, 0, &[0; 4]));
        assert_eq!(frames.idle, 1);
    }

    #[test]
    fn a_flood_is_one_against_the_time_it_took() {
        let pings = vec![frame(PING, 0, &[0; 8]); 1_001];
        let mut frames = followed(&pings, 1000);
        assert!(frames.is_flood(7), "1,001 at once");
        assert!(!frames.is_flood(8), "but not in a tenth of a second more");
    }
}
