//! The connection as one side of a tunnel.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{Left, Wire};
use crate::proxy::http1::pass_over;
use crate::proxy::tunnel::{End, Ending, Tunnel};

impl Wire {
    /// Joins the connection to an endpoint that has changed the protocol.
    pub(super) async fn join(&self, tunnel: Tunnel) -> Left {
        self.due.set(u64::MAX);
        if poll_fn(|cx| self.poll_flush(cx)).await.is_err() {
            return Left::Tunnel;
        }
        match tunnel.join(&mut &*self).await {
            Ending::Said => Left::Tunnel,
            Ending::Torn => Left::Reset,
        }
    }
}

/// The client's side of a tunnel; what it sent too early was kept for it.
impl End for &Wire {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.input.borrow().is_empty() {
            ready!(self.poll_fill(usize::MAX, cx))?;
        }
        Poll::Ready(Ok(self.input.take()))
    }

    fn poll_write(&mut self, data: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        let mut stream = self.stream.borrow_mut();
        while !data.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, data))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => pass_over(data, written),
            }
        }
        Pin::new(&mut *stream).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }
}
