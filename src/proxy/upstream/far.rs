//! The endpoint's side of a tunnel: a connection of its own, or a stream of one that others use too (RFC 8441).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason as Code, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http2::{Ticket, poll_room};
use super::pool::Past;
use super::stream::Stream;
use crate::proxy::http1::pass_over;

/// What a tunnel's bytes go to.
#[derive(Debug)]
pub enum Far {
    /// A connection of its own, and what goes along with it.
    Own(Stream, Past),
    /// A stream of a shared connection. Boxed: rare, and large.
    Shared(Box<Shared>),
}

/// A stream of a shared connection that is a tunnel from here on.
#[derive(Debug)]
pub struct Shared {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// What has come and was not read.
    data: Bytes,
    /// True when the endpoint has said that it is done.
    is_read: bool,
    /// True when it was told the same.
    is_over: bool,
    /// Last: what came before ends the stream when it is dropped, and the place is free only then.
    ticket: Ticket,
}

impl Shared {
    /// Both directions of a stream, and its place on the connection.
    #[must_use]
    pub fn new(send: SendStream<Bytes>, receive: RecvStream, ticket: Ticket) -> Self {
        Self { send, receive, data: Bytes::new(), is_read: false, is_over: false, ticket }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.data.is_empty() && !self.is_read {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => self.data = data,
                // Trailers say nothing to a tunnel.
                None => {
                    self.is_read = true;
                    self.ticket.answered();
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = self.data.len().min(buf.remaining());
        buf.put_slice(&self.data[..length]);
        pass_over(&mut self.data, length);
        // The endpoint may send as much again; one that has ended does not care.
        drop(self.receive.flow_control().release_capacity(length));
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        let room = ready!(poll_room(&mut self.send, bytes.len(), cx)).ok_or_else(closed)?;
        let length = room.min(bytes.len());
        self.send.send_data(Bytes::copy_from_slice(&bytes[..length]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    fn shut(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.is_over, true) {
            return Ok(());
        }
        self.send.send_data(Bytes::new(), true).map_err(io::Error::other)
    }
}

impl Drop for Shared {
    /// A tunnel that the endpoint has ended is ended; one that broke off is reset, as a connection would be (§5).
    fn drop(&mut self) {
        if self.is_read {
            drop(self.shut());
        } else {
            self.send.send_reset(Code::CANCEL);
        }
    }
}

impl Far {
    /// Its end will be seen as a reset.
    pub fn reset_on_close(&self) {
        match self {
            Self::Own(stream, _) => stream.reset_on_close(),
            // It is reset unless the endpoint has ended it.
            Self::Shared(_) => {}
        }
    }
}

impl AsyncRead for Far {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Self::Shared(shared) => shared.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Far {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Own(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Shared(shared) => shared.poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream, _) => Pin::new(stream).poll_flush(cx),
            // Its connection's task sends.
            Self::Shared(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Shared(shared) => Poll::Ready(shared.shut()),
        }
    }
}
