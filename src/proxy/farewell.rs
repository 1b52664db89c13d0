//! Where a stream can end without tearing anything: after a whole event, after a whole message.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use memchr::memchr2;

use std::time::Duration;

/// What an answer's body consists of, as far as it can be ended between two parts.
#[derive(Debug, Default)]
pub enum Parts {
    /// Nothing that could be ended before its time.
    #[default]
    None,
    /// Server-sent events.
    Events(Events),
    /// The messages of a gRPC call.
    Messages(Messages),
}

/// An answer's body that is followed, so that it can be ended well.
#[derive(Debug, Default)]
pub struct Farewell {
    parts: Parts,
    /// True when the rest was left out: there is no way back.
    is_over: bool,
}

impl Farewell {
    /// Of server-sent events with these fields; what is compressed cannot be followed.
    #[must_use]
    pub fn of_events(fields: &HeaderMap) -> Self {
        let is_plain = fields.get(CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
        let parts = if is_plain { Parts::Events(Events::default()) } else { Parts::None };
        Self { parts, is_over: false }
    }

    /// Of a gRPC call.
    #[must_use]
    pub fn of_messages() -> Self {
        Self { parts: Parts::Messages(Messages::default()), is_over: false }
    }

    /// True when it can be ended before its time.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        !matches!(self.parts, Parts::None)
    }

    /// Follows a part of the body on its way. Once it `is_asked` to end, what is behind the last whole part is left out.
    pub fn pass(&mut self, mut data: Bytes, is_asked: bool) -> Bytes {
        let end = match &mut self.parts {
            Parts::None => None,
            Parts::Events(events) => events.follow(&data),
            Parts::Messages(messages) => messages.follow(&data),
        };
        if let Some(end) = end.filter(|_| is_asked) {
            data.truncate(end);
            self.is_over = true;
        }
        data
    }

    /// True when it is to end here, if it `is_asked` to.
    #[must_use]
    pub fn is_here(&self, is_asked: bool) -> bool {
        let is_between = || match &self.parts {
            Parts::None => false,
            Parts::Events(events) => events.is_between(),
            Parts::Messages(messages) => messages.is_between(),
        };
        self.is_over || (is_asked && is_between())
    }

    /// The last event, if there is to be one; then no more.
    pub fn last_words(&mut self, retry: Option<Duration>) -> Option<Bytes> {
        match std::mem::take(&mut self.parts) {
            Parts::Events(_) => {
                self.is_over = true;
                retry.map(|retry| format!("retry: {}\n\n", retry.as_millis()).into())
            }
            Parts::Messages(_) | Parts::None => None,
        }
    }
}

/// Follows server-sent events: each ends with an empty line (WHATWG HTML §9.2.5). A line ends with LF, CR or both. Comments between
/// two events are of neither, so the end of one is as good a place (§9.2.6: without data there is no event).
#[derive(Debug)]
pub struct Events {
    line: Line,
    /// True when the last byte was a CR, to which a LF would belong.
    is_after_cr: bool,
}

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Behind an empty line and comments at most, or at the beginning.
    Between,
    /// Within a comment there.
    Comment,
    /// At the beginning of a line.
    Start,
    /// Within one.
    Inside,
}

impl Default for Events {
    fn default() -> Self {
        Self { line: Line::Between, is_after_cr: false }
    }
}

impl Events {
    fn step(&mut self, byte: u8) {
        let is_second = std::mem::take(&mut self.is_after_cr) && byte == b'\n';
        match byte {
            // The rest of a line's end that was counted.
            b'\n' if is_second => {}
            b'\n' | b'\r' => {
                self.is_after_cr = byte == b'\r';
                self.line = match self.line {
                    Line::Inside => Line::Start,
                    Line::Start | Line::Between | Line::Comment => Line::Between,
                };
            }
            _ => {
                self.line = match (self.line, byte) {
                    (Line::Between, b':') | (Line::Comment, _) => Line::Comment,
                    (Line::Between | Line::Start | Line::Inside, _) => Line::Inside,
                };
            }
        }
    }

    /// Follows bytes, and gives the place behind the last event that ends in them.
    fn follow(&mut self, data: &[u8]) -> Option<usize> {
        let (mut last, mut rest) = (None, data);
        while let Some((byte, behind)) = rest.split_first() {
            self.step(*byte);
            rest = behind;
            match self.line {
                Line::Between => last = Some(data.len() - rest.len()),
                Line::Start => {}
                // Nothing matters before its end.
                Line::Inside | Line::Comment => {
                    rest = &rest[memchr2(b'\n', b'\r', rest).unwrap_or(rest.len())..];
                }
            }
        }
        last
    }

    fn is_between(&self) -> bool {
        self.line == Line::Between
    }
}

/// Follows length-prefixed messages: a flag, a length of four bytes, so many bytes (gRPC over HTTP/2).
#[derive(Debug, Default)]
pub struct Messages {
    prefix: [u8; 5],
    have: usize,
    left: u64,
}

impl Messages {
    /// Follows bytes, and gives the place behind the last message that ends in them.
    fn follow(&mut self, mut data: &[u8]) -> Option<usize> {
        let (mut last, total) = (None, data.len());
        while !data.is_empty() {
            if self.left > 0 {
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                (self.left, data) = (self.left - step as u64, &data[step..]);
            } else {
                let step = (self.prefix.len() - self.have).min(data.len());
                self.prefix[self.have..self.have + step].copy_from_slice(&data[..step]);
                (self.have, data) = (self.have + step, &data[step..]);
                if self.have < self.prefix.len() {
                    break;
                }
                let [_, length @ ..] = self.prefix;
                (self.have, self.left) = (0, u64::from(u32::from_be_bytes(length)));
            }
            if self.left == 0 {
                last = Some(total - data.len());
            }
        }
        last
    }

    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(text: &str) -> Farewell {
        let mut farewell = Farewell::of_events(&HeaderMap::new());
        farewell.pass(Bytes::copy_from_slice(text.as_bytes()), false);
        farewell
    }

    #[test]
    fn an_event_ends_with_an_empty_line_however_lines_end() {
        for text in
            ["", "data: x\n\n", "data: x\r\n\r\n", "data: x\r\r", "a\n\r\n", ": ping\n\n", "a\r\n\n", "\n"]
        {
            assert!(events(text).is_here(true), "{text:?}");
            assert!(!events(text).is_here(false), "{text:?}: nobody has asked");
        }
        for text in
            ["data: x", "data: x\n", "data: x\r\n", "data: x\r", "\n\na", "a\n\nb\n", "a\r\n\r\nb\r\n"]
        {
            assert!(!events(text).is_here(true), "{text:?}");
        }
    }

    #[test]
    fn a_comment_between_two_events_is_of_neither() {
        for text in [":\n", ": ping\r\n", "data: x\n\n:\n", "data: x\r\r: one\r:two\r", "data: x\n:\n\n"] {
            assert!(events(text).is_here(true), "{text:?}");
        }
        for text in [":", "data: x\n\n: pi", "data: x\n:\n", "data: x\n\n:\ndata: y\n", ":\n\r:\n "] {
            assert!(!events(text).is_here(true), "{text:?}");
        }
        let mut farewell = events("data: x\n\n: o");
        assert_eq!(&farewell.pass(Bytes::from_static(b"ne\n:\n: thr"), true)[..], b"ne\n:\n");
        assert!(farewell.is_here(false));
    }

    #[test]
    fn what_is_behind_the_last_whole_event_is_left_out_and_there_is_no_way_back() {
        let mut farewell = events("data: on");
        let passed = farewell.pass(Bytes::from_static(b"e\n\ndata: two\r\n\r\ndata: thr"), true);
        assert_eq!(&passed[..], b"e\n\ndata: two\r\n\r\n");
        assert!(farewell.is_here(false), "also when nobody wants it any more");
        assert_eq!(farewell.last_words(Some(Duration::from_secs(3))).unwrap(), "retry: 3000\n\n");
        assert_eq!(farewell.last_words(Some(Duration::from_secs(3))), None);
        assert!(farewell.is_here(false));
    }

    #[test]
    fn what_is_compressed_is_not_ended() {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        let mut farewell = Farewell::of_events(&fields);
        assert!(!farewell.is_possible() && !farewell.is_here(true));
        assert_eq!(&farewell.pass(Bytes::from_static(b"\n\nx"), true)[..], b"\n\nx");
    }

    #[test]
    fn messages_end_where_their_length_says() {
        let mut farewell = Farewell::of_messages();
        assert!(farewell.is_here(true));
        let bytes = [&[0, 0, 0, 0, 2, 9, 9][..], &[0, 0, 0, 0, 0], &[1, 0, 0, 1, 0, 5]].concat();
        assert_eq!(farewell.pass(bytes.clone().into(), false), bytes);
        assert!(!farewell.is_here(true));
        let rest: Bytes = [&[5; 255][..], &[0, 0]].concat().into();
        assert_eq!(farewell.pass(rest, true).len(), 255);
        assert!(farewell.is_here(false));
        assert_eq!(farewell.last_words(Some(Duration::from_secs(1))), None);
    }

    proptest! {
        /// However the bytes are cut, the last end is where it is found byte by byte.
        #[test]
        fn ends_of_events_are_found_however_the_bytes_come(
            text in "[a:\r\n]{0,24}", cuts in prop::collection::vec(1usize..9, 0..8),
        ) {
            let (mut events, mut single, mut rest) = (Events::default(), Events::default(), text.as_bytes());
            for cut in cuts.into_iter().chain([24]) {
                let (part, others) = rest.split_at(cut.min(rest.len()));
                let mut last = None;
                for (index, byte) in part.iter().enumerate() {
                    single.step(*byte);
                    last = single.is_between().then_some(index + 1).or(last);
                }
                prop_assert_eq!(events.follow(part), last, "{:?}", part);
                prop_assert_eq!(events.is_between(), single.is_between(), "{:?}", part);
                rest = others;
            }
        }
    }
}
