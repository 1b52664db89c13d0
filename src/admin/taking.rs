//! A client's stream that knows when the client takes nothing of what it is sent, and gives it up in the end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::room::Guest;

/// The stream of a guest.
pub(super) struct Taking<S> {
    stream: S,
    guest: Guest,
    /// How long it may take nothing.
    limit: Duration,
    /// While it takes nothing: until it is given up.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S> Taking<S> {
    /// A guest's that is given up (`TimedOut`) when it takes nothing for as long as `limit`.
    pub(super) fn of(stream: S, guest: Guest, limit: Duration) -> Self {
        Self { stream, guest, limit, stall: None }
    }

    /// What has become of something to be written.
    fn heed<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stall.take().is_some() {
                self.guest.has_acted();
            }
            return written;
        }
        // Said again and again: its next head may have come meanwhile.
        self.guest.is_waited_for();
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        stall.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taking<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taking<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.heed(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.heed(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::oneshot;

    use super::*;
    use crate::admin::room::Room;

    const LIMIT: Duration = Duration::from_millis(200);

    /// Eleven bytes are on their way to a client, of which ten fit the stream; and what will have become of that.
    fn send(room: &mut Room) -> (DuplexStream, oneshot::Receiver<io::Result<()>>) {
        let (ours, client) = duplex(10);
        let (tell, told) = oneshot::channel();
        room.enter(|guest| async move {
            let mut stream = Taking::of(ours, guest, LIMIT);
            drop(tell.send(stream.write_all(&[0; 11]).await));
        });
        (client, told)
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_and_who_takes_something_is_not() {
        let mut room = Room::of(2);
        let ((_idle, given_up), (mut reading, sent)) = (send(&mut room), send(&mut room));
        reading.read_exact(&mut [0; 11]).await.unwrap();
        sent.await.unwrap().unwrap();
        assert_eq!(given_up.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
