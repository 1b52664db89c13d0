//! A client's socket as hyper sees it: what came early first, nothing that the sentry refused, our own bytes before hyper's.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Client, Phase};

/// The client's socket as hyper sees it.
pub(super) struct Socket(pub(super) Rc<Client>);

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let client = &self.0;
        let mut sentry = client.sentry.borrow_mut();
        if let Some(refused) = sentry.refused() {
            return client.hold_back(refused);
        }
        let before = buf.filled().len();
        ready!(client.poll_next_bytes(cx, buf))?;
        let sound = sentry.follow(&buf.filled()[before..]);
        buf.set_filled(before + sound);
        if let Some(refused) = sentry.refused().filter(|_| sound == 0) {
            return client.hold_back(refused);
        }
        if client.phase.get() == Phase::Idle && sentry.is_in_head() {
            client.phase.set(Phase::Head);
            client.watch.set(client.settings.head);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let client = &self.0;
        ready!(client.poll_write_first(cx))?;
        if let Some(reason) = client.is_hypers_refusal(bytes) {
            client.refuse(reason);
            client.is_flushed.set(false);
            return Poll::Ready(Ok(bytes.len()));
        }
        client.is_flushed.set(false);
        let written = Pin::new(&mut *client.stream.borrow_mut()).poll_write(cx, bytes);
        match written {
            Poll::Pending => client.watch.set_once(client.settings.progress),
            Poll::Ready(_) if matches!(client.phase.get(), Phase::Busy | Phase::Done) => client.watch.clear(),
            Poll::Ready(_) => {}
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_write_first(cx))?;
        if Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx)?.is_pending() {
            self.0.watch.set_once(self.0.settings.progress);
            return Poll::Pending;
        }
        self.0.is_flushed.set(true);
        if self.0.phase.get() == Phase::Done {
            self.0.on_answered(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_write_first(cx))?;
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}
