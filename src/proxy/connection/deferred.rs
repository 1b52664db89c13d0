//! A client's socket as h2 sees it: what h2 writes is gathered, and goes out once a turn of the connection.
//!
//! h2 flushes after each DATA frame of 256 bytes or more, so that every small answer would be a TLS record and a `send`
//! of its own: 19.3 µs a request were measured, and 13.2 with the writes put off until all streams have had their turn.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2::{Frames, Tally};
use crate::proxy::clock::Clock;
use crate::proxy::upstream::Stream;

/// How much waits at most before h2 is told to wait too; one frame more can be there.
const MOST: usize = 128 * 1024;
/// The largest buffer that is kept between two turns: what `MOST` and a frame grow it to.
const MOST_KEPT: usize = 2 * MOST;
/// What the buffer begins with: a turn of 32 small answers then needs no other one.
const FIRST: usize = 64 * 1024;
/// How much is read at once of what nobody wants.
const FORGET: usize = 4 * 1024;

/// A socket with its gathered bytes, shared by h2 and the connection that sends them.
#[derive(Debug, Clone)]
pub(super) struct Deferred(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    stream: RefCell<Stream>,
    early: RefCell<Bytes>,
    out: RefCell<Vec<u8>>,
    at: Cell<usize>,
    /// True when h2 waits for room.
    is_blocked: Cell<bool>,
    frames: RefCell<Frames>,
    /// True when the client has sent something since that was last asked.
    was_heard: Cell<bool>,
    /// Bytes that the client's side has taken.
    sent: Cell<u64>,
}

impl Deferred {
    /// `stream`, from which `early` was already read.
    pub(super) fn new(stream: Stream, early: Bytes) -> Self {
        Self(Rc::new(Shared {
            stream: RefCell::new(stream),
            early: RefCell::new(early),
            out: RefCell::default(),
            at: Cell::new(0),
            is_blocked: Cell::new(false),
            frames: RefCell::default(),
            was_heard: Cell::new(false),
            sent: Cell::new(0),
        }))
    }

    /// Sends what was gathered: pending while the client does not take it.
    ///
    /// Ready with true when h2 had been waiting for room, and is to be polled again.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Shared { stream, out, at, is_blocked, .. } = &*self.0;
        let (mut stream, mut out) = (stream.borrow_mut(), out.borrow_mut());
        while at.get() < out.len() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &out[at.get()..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            at.set(at.get() + written);
            self.0.sent.set(self.0.sent.get() + written as u64);
            self.0.frames.borrow_mut().sent(written);
        }
        ready!(Pin::new(&mut *stream).poll_flush(cx))?;
        at.set(0);
        out.clear();
        if out.capacity() > MOST_KEPT {
            *out = Vec::new();
        }
        Poll::Ready(Ok(is_blocked.take()))
    }

    /// Sends what was gathered, and says that there is no more.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }

    /// Reads and forgets what still comes. Ready when the client has closed.
    pub(super) fn poll_forget(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [MaybeUninit::uninit(); FORGET];
        loop {
            let mut buf = ReadBuf::uninit(&mut bytes);
            let read = ready!(Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                return Poll::Ready(());
            }
            self.0.was_heard.set(true);
        }
    }

    /// Bytes that went to the client so far.
    pub(super) fn sent(&self) -> u64 {
        self.0.sent.get()
    }

    /// True when something came since this was last asked.
    pub(super) fn was_heard(&self) -> bool {
        self.0.was_heard.take()
    }

    /// True while the end of a request's head is waited for.
    pub(super) fn is_in_head(&self) -> bool {
        self.0.frames.borrow().is_in_head()
    }

    /// Why the client is to be sent away, if it is.
    pub(super) fn verdict(&self, clock: &Clock, tally: &Tally) -> Option<h2::Reason> {
        self.0.frames.borrow_mut().verdict(clock.ticks(), tally)
    }

    /// Gives the buffer back while the connection is idle.
    pub(super) fn rest(&self) {
        let mut out = self.0.out.borrow_mut();
        if out.is_empty() {
            *out = Vec::new();
        }
    }
}

impl AsyncRead for Deferred {
    /// Pending for good once the client has sent what it may not: then it is sent away by whoever polls.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let mut early = self.0.early.borrow_mut();
        if early.is_empty() {
            ready!(Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, buf))?;
        } else {
            let length = early.len().min(buf.remaining());
            buf.put_slice(&early[..length]);
            early.advance(length);
        }
        let fresh = &buf.filled()[before..];
        if fresh.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.0.was_heard.set(true);
        let taken = self.0.frames.borrow_mut().follow(fresh);
        buf.set_filled(before + taken);
        if taken == 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for Deferred {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut out = self.0.out.borrow_mut();
        if out.len() >= MOST {
            // Woken by whoever sends: it polls h2 again.
            self.0.is_blocked.set(true);
            return Poll::Pending;
        }
        if out.capacity() == 0 {
            out.reserve(FIRST);
        }
        out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(cx)
    }
}
