//! How a connection ends: so that the client sees the answer that says why.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Left, Wire};
use crate::proxy::clock::{Clock, TICK};
use crate::proxy::upstream::Stream;
use crate::proxy::worker::HEAD;

/// How long a client may go on sending what nobody will read. Closing at once would reset the connection, and the reset
/// could overtake the answer that says why (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
/// The same where a tunnel has ended, for a client that is heard all the time: so far it may be behind in reading what was sent before.
const BEHIND: Duration = Duration::from_secs(30);

impl Wire {
    /// Ready when the client is gone. It is not looked for while bytes of its next request wait to be read.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_unread() {
            return Poll::Pending;
        }
        if self.stream.borrow().is_fresh() {
            // Mostly the answer is there sooner than it is worth telling the kernel to watch the client.
            self.watch.set_once(TICK);
            ready!(self.watch.poll(cx));
            self.watch.clear();
        }
        match self.poll_fill(HEAD, cx) {
            Poll::Ready(Ok(1..)) | Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(()),
        }
    }

    /// True while nobody reads: its client could be gone without that being noticed.
    pub(in super::super) fn is_unread(&self) -> bool {
        !self.body.get().is_end() || !self.input.borrow().is_empty()
    }

    /// True when the client sends nothing more, whether or not all that it sent is read.
    pub(in super::super) fn has_left(&self) -> bool {
        self.stream.borrow_mut().has_left()
    }

    /// Says that it is over; a client that may still be sending, or has sent what nobody has read, is heard until it has seen
    /// that.
    pub(super) async fn close(&self, left: Left) {
        match left {
            Left::Broken => return,
            Left::Reset => return self.stream.borrow().reset_on_close(),
            Left::Open | Left::Done | Left::Unread | Left::Tunnel => {}
        }
        // Under its own limit, which writing sets and clears.
        self.watch.clear();
        if poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            return;
        }
        let may_send = matches!(left, Left::Unread | Left::Tunnel);
        let is_unread = may_send || self.stream.borrow_mut().has_unread();
        if !is_unread && self.is_plain() {
            // Closing says it.
            return;
        }
        let clock = &self.client.worker.clock;
        let until = clock.ticks() + Clock::ticks_in(if left == Left::Tunnel { BEHIND } else { LINGER });
        self.watch.set(LINGER);
        poll_fn(|cx| {
            if self.watch.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut stream = self.stream.borrow_mut();
            if ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() || !is_unread {
                return Poll::Ready(());
            }
            poll_forget(&mut stream, cx, || {
                self.watch.set(LINGER);
                self.watch.ring_by(until);
            })
        })
        .await;
    }
}

/// Reads and forgets what still comes, and is `heard`, until the client has closed.
fn poll_forget(stream: &mut Stream, cx: &mut Context<'_>, heard: impl Fn()) -> Poll<()> {
    loop {
        let mut forgotten = [MaybeUninit::uninit(); 4096];
        let mut forgotten = ReadBuf::uninit(&mut forgotten);
        let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut forgotten));
        if read.is_err() || forgotten.filled().is_empty() {
            return Poll::Ready(());
        }
        heard();
    }
}
