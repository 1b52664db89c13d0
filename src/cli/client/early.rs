//! A connection whose other end may answer before it has read, and close.
//!
//! A proxy that has no room for a caller says so at once. The caller's write then fails, and hyper would tell that, not
//! what was said.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads once something has been written, and takes what can no longer be written for written: the answer tells.
pub(super) struct Early<S> {
    stream: S,
    has_written: bool,
    reader: Option<Waker>,
}

impl<S> Early<S> {
    pub(super) fn of(stream: S) -> Self {
        Self { stream, has_written: false, reader: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Early<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.has_written {
            // Answers to nothing are no answers to hyper.
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Early<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.has_written = true;
        self.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(match written {
            Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(buf.len()),
            written => written,
        })
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
    use bytes::Bytes;
    use http::Request;
    use http_body_util::Full;
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn what_was_said_before_the_request_was_written_is_its_answer() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        drop(theirs);
        let (mut sender, connection) = http1::handshake(TokioIo::new(Early::of(ours))).await.unwrap();
        let answer = sender.send_request(Request::new(Full::new(Bytes::from_static(b"{}"))));
        let (answer, _) = futures_util::join!(answer, connection);
        assert_eq!(answer.unwrap().status(), 503);
    }
}
