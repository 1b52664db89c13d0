//! A body of which a copy is kept while it is sent, within a bound, so that all of it can be sent once more: to another version.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};

use super::{Broken, Incoming};
use crate::proxy::pipe::Pipe;

/// How much of what is kept is in one piece.
const PIECE: usize = 16 * 1024;

/// One reading of such a body, from its beginning: first what has come already, then what the client still sends.
#[derive(Debug)]
pub struct Kept {
    body: Rc<RefCell<Body>>,
    /// How many bytes it has had, and whether the trailers.
    read: usize,
    has_trailers: bool,
}

#[derive(Debug)]
struct Body {
    rest: Incoming,
    /// What has come so far; `None` once that was too much.
    copy: Option<Pieces>,
    trailers: Option<HeaderMap>,
    /// How many bytes may be kept.
    most: usize,
    /// True once somebody wanted any of it.
    is_asked_for: bool,
}

/// Bytes, in pieces that are full but for the last: they may have come in thousands, and in one piece they would be copied as it grows, and
/// once more to be read.
#[derive(Debug, Default)]
struct Pieces {
    all: Vec<Vec<u8>>,
    length: usize,
}

impl Kept {
    /// Reads `rest`, of which nothing was taken, and keeps up to so many bytes of it.
    #[must_use]
    pub fn new(rest: Incoming, most: usize) -> Self {
        let body = Body { rest, copy: Some(Pieces::default()), trailers: None, most, is_asked_for: false };
        Self::of(Rc::new(RefCell::new(body)))
    }

    fn of(body: Rc<RefCell<Body>>) -> Self {
        Self { body, read: 0, has_trailers: false }
    }

    /// Reads all of it once more; `None` when more has come than is kept.
    #[must_use]
    pub fn again(&self) -> Option<Self> {
        let is_whole = self.body.borrow().copy.is_some();
        is_whole.then(|| Self::of(Rc::clone(&self.body)))
    }

    /// True once somebody wanted any of it: its client has been told to send it, or waits for nothing.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.body.borrow().is_asked_for
    }

    /// All of it, if it has come to its end, without trailers, and is kept.
    #[must_use]
    pub fn whole(&self) -> Option<Vec<u8>> {
        let body = self.body.borrow();
        let pieces = body.copy.as_ref().filter(|_| body.trailers.is_none() && body.rest.is_end_stream())?;
        Some(pieces.all.concat())
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let is_last = Rc::strong_count(&self.body) == 1;
        let mut body = self.body.borrow_mut();
        body.is_asked_for = true;
        let left = body.left(self.read);
        if !left.is_empty() {
            let data = Bytes::copy_from_slice(left);
            self.read += data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = body.trailers.as_ref().filter(|_| !self.has_trailers) {
            self.has_trailers = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        if is_last {
            // Nobody else wants to read it.
            body.copy = None;
        }
        let frame = ready!(Pin::new(&mut body.rest).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            body.keep(frame);
            self.read = body.length();
            self.has_trailers = body.trailers.is_some();
        }
        Poll::Ready(frame)
    }

    pub(super) fn poll_pipe(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Pipe, Broken>>> {
        let mut body = self.body.borrow_mut();
        // What is in a pipe cannot be kept.
        if body.copy.is_some() { Poll::Ready(None) } else { body.rest.poll_pipe(cx) }
    }

    pub(super) fn poll_come(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut body = self.body.borrow_mut();
        if self.has_more(&body) { Poll::Ready(()) } else { body.rest.poll_come(cx) }
    }

    fn has_more(&self, body: &Body) -> bool {
        !body.left(self.read).is_empty() || body.trailers.is_some() && !self.has_trailers
    }

    pub(super) fn is_end(&self) -> bool {
        let body = self.body.borrow();
        !self.has_more(&body) && body.rest.is_end_stream()
    }

    pub(super) fn remaining(&self) -> Option<u64> {
        let body = self.body.borrow();
        body.rest.size_hint().exact().map(|rest| rest + body.length().saturating_sub(self.read) as u64)
    }
}

impl Body {
    /// What is kept behind the first bytes, as far as it is in one piece.
    fn left(&self, read: usize) -> &[u8] {
        self.copy.as_ref().map_or(&[], |copy| copy.left(read))
    }

    /// How many bytes are kept.
    fn length(&self) -> usize {
        self.copy.as_ref().map_or(0, |copy| copy.length)
    }

    /// Keeps what has come, or nothing any more.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(copy) = &mut self.copy else { return };
        let more = frame.data_ref().map_or(&[][..], |data| &data[..]);
        if copy.length + more.len() > self.most {
            self.copy = None;
        } else {
            copy.append(more);
            self.trailers = frame.trailers_ref().cloned();
        }
    }
}

impl Pieces {
    fn left(&self, read: usize) -> &[u8] {
        self.all.get(read / PIECE).and_then(|piece| piece.get(read % PIECE..)).unwrap_or_default()
    }

    fn append(&mut self, mut more: &[u8]) {
        while !more.is_empty() {
            if self.length.is_multiple_of(PIECE) {
                // The first one grows: most bodies are small.
                self.all.push(Vec::with_capacity(if self.length == 0 { 0 } else { PIECE }));
            }
            let (fits, rest) = more.split_at(more.len().min(PIECE - self.length % PIECE));
            self.all.last_mut().into_iter().for_each(|piece| piece.extend_from_slice(fits));
            self.length += fits.len();
            more = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::Again;
    use super::*;

    /// A body of these parts.
    fn body(parts: &[&'static str]) -> Incoming {
        let frames = parts.iter().map(|part| Frame::data(Bytes::from_static(part.as_bytes())));
        Incoming::Again(Box::new(Again::new(frames.collect(), None, Incoming::None)))
    }

    fn next(kept: &mut Kept) -> Option<Bytes> {
        let Poll::Ready(frame) = kept.poll_frame(&mut Context::from_waker(Waker::noop())) else {
            panic!("it is all there");
        };
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    }

    fn all(kept: &mut Kept) -> Vec<Bytes> {
        std::iter::from_fn(|| next(kept)).collect()
    }

    #[test]
    fn it_is_read_again_from_its_beginning_whatever_was_taken() {
        let whole = ["one", "two", "three"];
        for taken in 0..=3 {
            let mut first = Kept::new(body(&whole), 11);
            let handle = first.again().unwrap();
            (0..taken).for_each(|index| assert_eq!(next(&mut first).unwrap(), whole[index]));
            drop(first);
            let mut second = handle.again().unwrap();
            assert_eq!((second.remaining(), second.is_end()), (Some(11), false));
            assert_eq!(all(&mut second).concat(), *b"onetwothree", "after {taken}");
            assert!(second.is_end());
        }
    }

    #[test]
    fn what_is_kept_is_read_again_a_piece_at_a_time() {
        let mut first = Kept::new(body(&["0123456789"; 4_000]), 40_000);
        let handle = first.again().unwrap();
        drop((all(&mut first), first));
        let pieces = all(&mut handle.again().unwrap());
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE), "not all of it at once");
        assert_eq!(pieces.concat(), b"0123456789".repeat(4_000));
    }

    #[test]
    fn what_is_too_much_is_not_kept_and_goes_on_all_the_same() {
        let mut first = Kept::new(body(&["one", "two", "three"]), 10);
        let handle = first.again().unwrap();
        assert_eq!(all(&mut first), ["one", "two", "three"]);
        assert!(handle.again().is_none());
    }

    #[test]
    fn nothing_is_kept_that_nobody_could_read() {
        let mut only = Kept::new(body(&["one", "two"]), 100);
        assert_eq!(next(&mut only).unwrap(), "one");
        assert!(only.again().is_none());
        assert_eq!((only.remaining(), all(&mut only)), (Some(3), vec![Bytes::from("two")]));
    }
}
