//! A socket as h2 sees it, on either side: what h2 writes is gathered, and goes out once a turn of the connection.
//!
//! h2 flushes after each DATA frame of 256 bytes or more, so that every small answer would be a TLS record and a `send`
//! of its own: 19.3 µs a request were measured, and 13.2 with the writes put off until all streams have had their turn.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::upstream::Stream;

/// How much waits at most before h2 is told to wait too.
const MOST: usize = 128 * 1024;

/// Who follows what goes over the socket.
pub trait Watch {
    /// These bytes came in.
    fn read(&mut self, bytes: &[u8]);
    /// So many bytes went out.
    fn sent(&mut self, bytes: usize);
}

/// A socket with its gathered bytes, shared by h2 and the connection that sends them.
#[derive(Debug)]
pub struct Deferred<W>(Rc<Shared<W>>);

impl<W> Clone for Deferred<W> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Shared<W> {
    stream: RefCell<Stream>,
    early: RefCell<Bytes>,
    out: RefCell<Vec<u8>>,
    at: Cell<usize>,
    /// True when h2 waits for room.
    is_blocked: Cell<bool>,
    watch: RefCell<W>,
}

impl<W: Watch + Default> Deferred<W> {
    /// `stream`, from which `early` was already read.
    pub fn new(stream: Stream, early: Bytes) -> Self {
        Self(Rc::new(Shared {
            stream: RefCell::new(stream),
            early: RefCell::new(early),
            out: RefCell::default(),
            at: Cell::new(0),
            is_blocked: Cell::new(false),
            watch: RefCell::default(),
        }))
    }

    /// Sends what was gathered: pending while the client does not take it. `moved` is called when something went.
    ///
    /// Ready with true when h2 had been waiting for room, and is to be polled again.
    ///
    /// # Errors
    /// When the peer is gone.
    pub fn poll_send(&self, cx: &mut Context<'_>, moved: impl Fn()) -> Poll<io::Result<bool>> {
        let Shared { stream, out, at, is_blocked, .. } = &*self.0;
        let (mut stream, mut out) = (stream.borrow_mut(), out.borrow_mut());
        while at.get() < out.len() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &out[at.get()..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            at.set(at.get() + written);
            self.0.watch.borrow_mut().sent(written);
            moved();
        }
        ready!(Pin::new(&mut *stream).poll_flush(cx))?;
        at.set(0);
        out.clear();
        if out.capacity() > MOST {
            *out = Vec::new();
        }
        Poll::Ready(Ok(is_blocked.take()))
    }

    /// Who follows it.
    pub fn watch(&self) -> RefMut<'_, W> {
        self.0.watch.borrow_mut()
    }

    /// Gives the buffer back while the connection is idle.
    pub fn rest(&self) {
        let mut out = self.0.out.borrow_mut();
        if out.is_empty() {
            *out = Vec::new();
        }
    }
}

impl<W: Watch> AsyncRead for Deferred<W> {
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
        self.0.watch.borrow_mut().read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<W: Watch + Default> AsyncWrite for Deferred<W> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut out = self.0.out.borrow_mut();
        if out.len() >= MOST {
            // Woken by whoever sends: it polls h2 again.
            self.0.is_blocked.set(true);
            return Poll::Pending;
        }
        out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx, || {}))?;
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}
