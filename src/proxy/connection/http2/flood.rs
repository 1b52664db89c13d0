//! Follows a client's frames, and its streams: an honest client sends few frames that carry nothing and gives up few of
//! its requests; a hostile one does nothing else, because each costs us more than it (CVE-2019-9512 and its kin).
//!
//! Also refuses here, by the frame's header alone, what h2 would take or name wrongly.

use std::cell::Cell;

use h2::Reason as Code;

use super::trailers::Opening;
use crate::proxy::deferred::Watch;

/// Length of a frame's header (RFC 9113 §4.1), and of the preface before the first.
const HEADER: usize = 9;
const PREFACE: usize = 24;

/// Frames without a purpose that a client may send at once, and more of them for each tenth of a second.
const AT_ONCE: u64 = 1_000;
const A_TICK: u64 = 10;
/// A client may answer what it is sent: a control frame for so many bytes, and so many for each frame that its window
/// did not cut short. gRPC's clients ping at each message; others open two windows for each that they read.
const BYTES: u64 = 256;
const A_FRAME: u64 = 4;
/// Most frames that a client may have in hand for what it was sent.
const MOST_OWED: u64 = 16 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// `END_STREAM` of DATA, `ACK` of SETTINGS.
const FIRST_FLAG: u8 = 1;
const END_HEADERS: u8 = 4;

/// Follows the frames of one connection.
#[derive(Debug)]
pub struct Frames {
    /// Bytes until the next frame's header.
    skip: usize,
    header: [u8; HEADER],
    filled: usize,
    /// Frames that carried nothing.
    idle: u64,
    /// Control frames that the client may send for what it was sent.
    owed: u64,
    /// Bytes that were sent and are no frame yet.
    sent: u64,
    since: Option<u64>,
    is_begun: bool,
    /// True between HEADERS and the frame that ends them.
    is_in_head: bool,
    /// The highest stream so far.
    newest: u32,
    /// The trailers that have begun, until it is known whether they may be.
    opening: Option<Opening>,
    /// Why nothing more is taken from the client.
    fault: Option<Code>,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            skip: PREFACE,
            header: [0; HEADER],
            filled: 0,
            idle: 0,
            owed: 0,
            sent: 0,
            since: None,
            is_begun: false,
            is_in_head: false,
            newest: 0,
            opening: None,
            fault: None,
        }
    }
}

impl Watch for Frames {
    /// How many of the bytes stand before a fault.
    fn read(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.fault.is_none() {
            let skipped = self.skip.min(bytes.len() - at);
            if self.is_malformed(&bytes[at..][..skipped]) {
                self.fault = Some(Code::PROTOCOL_ERROR);
                return at;
            }
            self.skip -= skipped;
            at += skipped;
            let taken = (HEADER - self.filled).min(bytes.len() - at);
            self.header[self.filled..][..taken].copy_from_slice(&bytes[at..][..taken]);
            self.filled += taken;
            if self.filled == HEADER {
                self.filled = 0;
                self.judge();
                if self.fault.is_some() {
                    return at;
                }
            }
            at += taken;
        }
        at
    }

    /// The client may answer them.
    fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.owe(self.sent / BYTES);
        self.sent %= BYTES;
    }
}

impl Frames {
    fn owe(&mut self, frames: u64) {
        self.owed = (self.owed + frames).min(MOST_OWED);
    }

    /// True when these bytes of a frame's payload show that its trailers are none.
    fn is_malformed(&mut self, payload: &[u8]) -> bool {
        let known = self.opening.as_mut().and_then(|opening| opening.take(payload));
        if known.is_some() {
            self.opening = None;
        }
        known == Some(true)
    }

    fn judge(&mut self) {
        let [high, middle, low, kind, flags, stream @ ..] = self.header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.skip = length;
        let is_first = flags & FIRST_FLAG != 0;
        // RFC 9113 §3.4: the preface goes on with SETTINGS. §6.3 to §6.9: lengths that are no other.
        self.fault = match kind {
            _ if !self.is_begun && (kind != SETTINGS || is_first) => Some(Code::PROTOCOL_ERROR),
            SETTINGS if length % 6 != 0 || is_first && length > 0 => Some(Code::FRAME_SIZE_ERROR),
            PRIORITY if length != 5 => Some(Code::FRAME_SIZE_ERROR),
            RST_STREAM | WINDOW_UPDATE if length != 4 => Some(Code::FRAME_SIZE_ERROR),
            PING if length != 8 => Some(Code::FRAME_SIZE_ERROR),
            _ => None,
        };
        self.is_begun = true;
        // Between the fragments of a block there is nothing else.
        if kind != CONTINUATION {
            self.opening = None;
        }
        match kind {
            HEADERS => {
                self.is_in_head = flags & END_HEADERS == 0;
                let stream = u32::from_be_bytes(stream) & u32::MAX >> 1;
                if stream > self.newest {
                    self.newest = stream;
                } else {
                    self.opening = Some(Opening::new(flags, length));
                }
            }
            CONTINUATION => {
                self.is_in_head = flags & END_HEADERS == 0;
                self.opening.iter_mut().for_each(|opening| opening.go_on(length));
            }
            DATA => self.idle += u64::from(length == 0 && !is_first),
            // Who acknowledges settings that were not sent ends its connection.
            SETTINGS if is_first => {}
            // Owed for nothing: each can open the windows of all streams by a byte, and what goes out by that would pay for the next.
            SETTINGS => self.idle += 1,
            // PRIORITY, RST_STREAM, WINDOW_UPDATE, an answer to a PING, of which there are few, and what h2 passes over because it
            // does not know it.
            _ => self.count(),
        }
    }

    /// A control frame: owed for something, or one of those that carry nothing.
    fn count(&mut self) {
        match self.owed.checked_sub(1) {
            Some(left) => self.owed = left,
            None => self.idle += 1,
        }
    }

    /// True while the end of a request's head is waited for.
    pub fn is_in_head(&self) -> bool {
        self.is_in_head
    }

    /// Why the connection is not to go on, if there is a reason; `now` in ticks.
    pub fn verdict(&mut self, now: u64, tally: &Tally) -> Option<Verdict> {
        self.owe(tally.frames.take().saturating_mul(A_FRAME));
        let ticks = now.saturating_sub(*self.since.get_or_insert(now));
        let is_flood = self.idle > AT_ONCE + A_TICK * ticks;
        let refused = self.fault.or(is_flood.then_some(Code::ENHANCE_YOUR_CALM)).map(Verdict::Refused);
        refused.or_else(|| tally.is_flood(ticks).then_some(Verdict::GivesUp))
    }
}

/// Why a connection is not to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The client sends what no honest one does: it is told so with this code.
    Refused(Code),
    /// It gives up too many of its requests.
    GivesUp,
}

/// What a connection's streams came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were answered.
    pub answered: Cell<u64>,
    /// Requests that the client gave up.
    pub given_up: Cell<u64>,
    /// Frames that were sent since the last look, and that no window of the client's cut short.
    pub frames: Cell<u64>,
    /// True while the client does not take what it was sent.
    pub is_behind: Cell<bool>,
}

impl Tally {
    /// Requests that may be given up at once, and more of them for each that is answered and each tenth of a second:
    /// tabs are closed, films are skipped through, and another proxy passes on what its many clients give up.
    const FREE: u64 = 100;
    const AN_ANSWER: u64 = 2;
    const A_TICK: u64 = 2;

    /// One more of them.
    pub fn add(count: &Cell<u64>) {
        count.set(count.get() + 1);
    }

    fn is_flood(&self, ticks: u64) -> bool {
        let most = Self::FREE + Self::AN_ANSWER * self.answered.get() + Self::A_TICK * ticks;
        self.given_up.get() > most
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
        let text = [vec![0; PREFACE], frame(SETTINGS, 0, b""), frames.concat()].concat();
        for piece in text.chunks(piece) {
            counter.read(piece);
        }
        counter.idle -= 1;
        counter
    }

    fn window_updates(count: usize) -> Vec<u8> {
        vec![frame(WINDOW_UPDATE, 0, &[0; 4]); count].concat()
    }

    #[test]
    fn only_frames_that_carry_nothing_are_counted() {
        let useful =
            [frame(1, 4, b"head"), frame(DATA, 0, b"data"), frame(DATA, 1, b""), frame(SETTINGS, 1, b"")];
        let idle = [
            frame(PING, 0, &[0; 8]),
            frame(PING, 1, &[0; 8]),
            frame(DATA, 0, b""),
            frame(RST_STREAM, 0, &[0; 4]),
            frame(99, 0, b"x"),
        ];
        for piece in [1, 5, 1000] {
            assert_eq!(followed(&useful, piece).idle, 0);
            assert_eq!(followed(&idle, piece).idle, 5);
        }
    }

    #[test]
    fn what_was_sent_may_be_answered() {
        let mut frames = followed(&[], 1);
        frames.sent(500);
        frames.sent(12);
        frames.read(&window_updates(2));
        assert_eq!(frames.idle, 0);
        frames.read(&window_updates(1));
        assert_eq!(frames.idle, 1);
        // A small message is no 256 bytes.
        let tally = Tally::default();
        tally.frames.set(1);
        assert_eq!(frames.verdict(0, &tally), None);
        frames.read(&window_updates(5));
        assert_eq!(frames.idle, 2);
    }

    #[test]
    fn settings_are_no_answer_to_what_was_sent() {
        let mut frames = followed(&[], 1);
        frames.sent(1 << 20);
        frames.read(&[window_updates(3), vec![frame(SETTINGS, 0, &[0, 4, 0, 0, 0, 1]); 3].concat()].concat());
        assert_eq!(frames.idle, 3);
    }

    #[test]
    fn a_flood_is_one_against_the_time_it_took() {
        let pings = vec![frame(PING, 0, &[0; 8]); 1_001];
        let mut frames = followed(&pings, 1000);
        assert_eq!(
            frames.verdict(7, &Tally::default()),
            Some(Verdict::Refused(Code::ENHANCE_YOUR_CALM)),
            "1,001 at once"
        );
        assert_eq!(frames.verdict(8, &Tally::default()), None, "but not in a tenth of a second more");
        let tally = Tally::default();
        tally.given_up.set(103);
        assert_eq!(frames.verdict(8, &tally), Some(Verdict::GivesUp));
        tally.answered.set(1);
        assert_eq!(frames.verdict(8, &tally), None);
    }

    #[test]
    fn nothing_from_a_fault_on_is_taken() {
        for (faulty, code) in [
            (frame(PING, 0, &[0; 7]), Code::FRAME_SIZE_ERROR),
            (frame(SETTINGS, 1, &[0; 6]), Code::FRAME_SIZE_ERROR),
            (frame(PRIORITY, 0, &[0; 4]), Code::FRAME_SIZE_ERROR),
        ] {
            let good = frame(DATA, 0, b"data");
            let mut frames = followed(&[], 100);
            assert_eq!(frames.read(&[good.clone(), faulty, good.clone()].concat()), good.len());
            assert_eq!(frames.read(&good), 0);
            assert_eq!(frames.verdict(0, &Tally::default()), Some(Verdict::Refused(code)));
        }
        let trailers = [frame(HEADERS, 4, b"head"), frame(HEADERS, 5, b"\x42\x03GET")].concat();
        let mut frames = followed(&[], 100);
        assert_eq!(frames.read(&trailers), trailers.len() - 5);
        assert_eq!(frames.verdict(0, &Tally::default()), Some(Verdict::Refused(Code::PROTOCOL_ERROR)));
        let mut frames = Frames::default();
        let early = [vec![0; PREFACE], frame(HEADERS, 5, b"head")].concat();
        assert_eq!(frames.read(&early), PREFACE, "settings come first");
        assert_eq!(frames.verdict(0, &Tally::default()), Some(Verdict::Refused(Code::PROTOCOL_ERROR)));
    }
}
