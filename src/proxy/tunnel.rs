//! A tunnel: what a connection is after a change of protocol. Bytes go both ways as they come, and nothing is read that
//! the other side has not room for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::body::Incoming;
use super::connection::Turn;
use super::permit::Permit;
use super::upstream::Far;
use crate::metrics::{Kind, Reason};
use crate::table::Timeouts;

/// How long an endpoint may go on when its client has said all it had to say.
const FAREWELL: Duration = Duration::from_secs(30);

/// The client's side of a tunnel.
pub trait End {
    /// The next bytes; none is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>>;
    /// Writes all of `data`, which is advanced by what has gone.
    fn poll_write(&mut self, data: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Says that nothing more will come.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// An accepted change of protocol: the endpoint's side, ready to be joined to the client's.
#[derive(Debug)]
pub struct Tunnel {
    /// The body of a client's stream that carries its side, over HTTP/2.
    pub incoming: Incoming,
    turn: Turn,
    permit: Permit,
    stream: Far,
    timeouts: Timeouts,
    up: Half,
    down: Half,
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    data: Bytes,
    /// True while TLS may hold what was written and has not gone out.
    is_held: bool,
    /// True when its source has ended.
    is_read: bool,
    /// True when its sink was told so.
    is_over: bool,
}

impl Tunnel {
    /// A tunnel over `stream`, off which `early` was already read.
    pub(super) fn new(
        turn: Turn,
        permit: Permit,
        stream: Far,
        early: Bytes,
        incoming: Incoming,
        timeouts: Timeouts,
    ) -> Self {
        permit.becomes(Kind::Websocket);
        let down = Half { data: early, ..Half::default() };
        Self { incoming, turn, permit, stream, timeouts, up: Half::default(), down }
    }

    /// Joins both sides until the endpoint has ended, or nothing has moved for too long. Ends the permit.
    pub async fn join(mut self, client: &mut impl End) {
        let ended = std::future::poll_fn(|cx| self.poll(client, cx)).await;
        match ended {
            Ok(()) => self.permit.complete(),
            Err(reason) => self.permit.failed(reason),
        }
        self.turn.alarm.clear();
    }

    fn poll(&mut self, client: &mut impl End, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        let mut moved = false;
        let up = self.poll_up(client, &mut moved, cx);
        let down = self.poll_down(client, &mut moved, cx);
        match (up, down) {
            (Poll::Ready(Err(reason)), _) | (_, Poll::Ready(Err(reason))) => return Poll::Ready(Err(reason)),
            // The endpoint has closed: nothing that the client still says can reach it.
            (_, Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            (_, Poll::Pending) => {}
        }
        let limit = if self.up.is_over {
            FAREWELL
        } else if self.up.data.is_empty() && self.down.data.is_empty() {
            self.timeouts.tunnel
        } else {
            self.timeouts.progress
        };
        let alarm = &self.turn.alarm;
        if moved {
            alarm.set(limit);
        } else {
            alarm.set_once(limit);
        }
        ready!(alarm.poll(cx));
        // Who does not follow has nothing more to say.
        Poll::Ready(if limit == FAREWELL { Ok(()) } else { Err(Reason::BodyStalled) })
    }

    /// From the client to the endpoint.
    fn poll_up(
        &mut self,
        client: &mut impl End,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Reason>> {
        let Self { up, stream, permit, .. } = self;
        while !up.is_over {
            while !up.data.is_empty() {
                let written = ready!(Pin::new(&mut *stream).poll_write(cx, &up.data));
                let written = written.map_err(|_| Reason::UpstreamClosed)?;
                up.data.advance(written);
                permit.record().inspect(|record| record.received_more(written));
                *moved |= written > 0;
            }
            if up.is_read {
                // It may be gone already; its side of the tunnel tells.
                drop(ready!(Pin::new(&mut *stream).poll_shutdown(cx)));
                up.is_over = true;
                break;
            }
            // Under TLS what was written may wait for this.
            if let Poll::Ready(flushed) = Pin::new(&mut *stream).poll_flush(cx) {
                flushed.map_err(|_| Reason::UpstreamClosed)?;
            }
            up.data = ready!(client.poll_read(cx)).map_err(|_| Reason::ClientGone)?;
            up.is_read = up.data.is_empty();
            *moved = true;
        }
        Poll::Ready(Ok(()))
    }

    /// From the endpoint to the client.
    fn poll_down(
        &mut self,
        client: &mut impl End,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Reason>> {
        let Self { down, stream, turn, permit, .. } = self;
        while !down.is_over {
            if !down.data.is_empty() || down.is_held {
                let before = down.data.len();
                let written = client.poll_write(&mut down.data, cx);
                let gone = before - down.data.len();
                permit.record().inspect(|record| record.sent(gone));
                *moved |= gone > 0;
                down.is_held = written.is_pending();
                ready!(written).map_err(|_| Reason::ClientGone)?;
            }
            if down.is_read {
                drop(ready!(client.poll_shutdown(cx)));
                down.is_over = true;
                break;
            }
            let mut scratch = turn.client.worker.read_buffer();
            let read = ready!(poll_read_buf(Pin::new(&mut *stream), cx, &mut *scratch));
            read.map_err(|_| Reason::BodyTruncated)?;
            down.data = scratch.split().freeze();
            down.is_read = down.data.is_empty();
            *moved = true;
        }
        Poll::Ready(Ok(()))
    }
}
