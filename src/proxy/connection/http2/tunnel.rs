//! A stream as one side of a tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{Response, StatusCode};
use http_body::Body as _;

use super::super::Turn;
use super::stream::{GivenUp, Reply, Sending};
use crate::proxy::body::Incoming;
use crate::proxy::tunnel::{End, Tunnel};

impl Reply {
    /// Joins the stream to an endpoint that has changed the protocol (RFC 8441 §5).
    pub(super) async fn tunnel(
        &self,
        mut head: Response<()>,
        mut tunnel: Box<Tunnel>,
        turn: &Turn,
    ) -> Result<(), GivenUp> {
        *head.status_mut() = StatusCode::OK;
        head.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        let incoming = std::mem::replace(&mut tunnel.incoming, Incoming::None);
        self.due.set(u64::MAX);
        let sending = self.begin(head, false, turn)?;
        tunnel.join(&mut Side { sending, incoming }).await;
        Ok(())
    }
}

/// The client's side of a tunnel.
struct Side<'t> {
    sending: Sending<'t>,
    incoming: Incoming,
}

impl End for Side<'_> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => return Poll::Ready(Ok(Bytes::new())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    // Nothing is no end.
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Poll::Ready(Ok(data)),
                    Err(_) => return Poll::Ready(Ok(Bytes::new())),
                },
            }
        }
    }

    fn poll_write(&mut self, data: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !data.is_empty() {
            self.sending.send.reserve_capacity(data.len());
            let room = ready!(self.sending.poll_room(cx));
            let room = room.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
            self.sending.part(data, room, false).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.sending.send.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
