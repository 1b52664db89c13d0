//! How a connection ends: so that the client sees the answer that says why.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Left, Wire};
use crate::proxy::upstream::Stream;

/// How long a client may go on sending what nobody will read. Closing at once would reset the connection, and the reset
/// could overtake the answer that says why (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);

impl Wire {
    /// Says that it is over; a client that may still be sending is heard until it has seen that.
    pub(super) async fn close(&self, left: Left) {
        match left {
            Left::Broken => return,
            Left::Reset => return self.stream.borrow().reset_on_close(),
            Left::Open | Left::Done | Left::Unread => {}
        }
        // Under its own limit, which writing sets and clears.
        self.watch.clear();
        if poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            return;
        }
        self.watch.set(LINGER);
        poll_fn(|cx| {
            if self.watch.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut stream = self.stream.borrow_mut();
            if ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() || left != Left::Unread {
                return Poll::Ready(());
            }
            poll_forget(&mut stream, cx)
        })
        .await;
    }
}

/// Reads and forgets what still comes, until the client has closed.
fn poll_forget(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        let mut forgotten = [MaybeUninit::uninit(); 4096];
        let mut forgotten = ReadBuf::uninit(&mut forgotten);
        let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut forgotten));
        if read.is_err() || forgotten.filled().is_empty() {
            return Poll::Ready(());
        }
    }
}
