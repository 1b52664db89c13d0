//! A connection from its beginning to its end, and the task that moves its bytes.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection as Inner};
use tokio::task::spawn_local;

use super::heard::Heard;
use super::pulse::{PULSE, Pulse};
use super::queue::Queue;
use super::{Connection, Handed, State};
use crate::proxy::clock::Clock;
use crate::proxy::deferred::Deferred;
use crate::proxy::http1::MAX_HEAD;
use crate::proxy::upstream::stream::Stream;

/// Flow-control windows: what an endpoint may send ahead of the client that takes it. The connection's is the largest that there is
/// (RFC 9113 §6.9.1), and has room for all of its streams: clients who take nothing do not hold up the others, and each has no more
/// than its own.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Most requests at a time on a connection.
pub(super) const FULL: usize = (CONNECTION_WINDOW / STREAM_WINDOW) as usize;
/// What frames of less than 256 bytes that wait for their clients may cost beside these bytes, as h2 reckons: a million of them, which
/// take about as much memory (265 bytes each were measured). Beyond it h2 ends the connection for all; by its own measure five
/// clients could come to that who take nothing of small messages.
const SMALL_FRAMES: usize = 256 * 1024 * 1024;
/// Most of a request's body that waits in a stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Requests that were given up are remembered, so many and so long: what is still on its way for them is no error.
const REMEMBERED: usize = 512;
const MEMORY: Duration = Duration::from_secs(10);
/// How long an endpoint may take nothing of what is written.
const STALL: Duration = Duration::from_secs(30);

/// Opens a connection over `stream`, and waits for the endpoint's settings: how many requests it takes at a time.
pub(super) async fn start(
    stream: Stream,
    until: u64,
    clock: &Rc<Clock>,
    queue: &Rc<Queue<Handed>>,
) -> io::Result<Rc<Connection>> {
    let io = Deferred::<Heard>::new(stream, Bytes::new());
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_reset_streams(REMEMBERED)
        .reset_stream_duration(MEMORY)
        // h2 ends a connection after 1,024 of them in its life, and with it the requests of all others: what comes for a request
        // that was forgotten is one, so that a few clients who give up could cut everybody off.
        .max_local_error_reset_streams(None)
        .data_frame_budget(SMALL_FRAMES)
        .max_send_buffer_size(SEND_BUFFER);
    let (send, mut connection) = builder.handshake::<_, Bytes>(io.clone()).await.map_err(io::Error::other)?;
    poll_fn(|cx| {
        let over = Pin::new(&mut connection).poll(cx);
        match (over, io.poll_send(cx)) {
            (Poll::Ready(Err(error)), _) => Poll::Ready(Err(io::Error::other(error))),
            (Poll::Ready(Ok(())), _) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Pending, _) if io.watch().has_settings() => Poll::Ready(Ok(())),
            (Poll::Pending, _) => Poll::Pending,
        }
    })
    .await?;
    let state = Rc::new(State {
        streams: Cell::new(0),
        is_taken: Cell::new(false),
        newest: Cell::new(None),
        queue: Rc::clone(queue),
        used: Cell::new(clock.ticks()),
        rest: Cell::default(),
        answered: Cell::new(0),
        given_up: Cell::new(0),
        is_over: Cell::new(false),
        is_doubted: Cell::new(false),
        pulse: clock.alarm(),
        clock: Rc::clone(clock),
        io,
    });
    let most_head = state.io.watch().most_head();
    let ours = Rc::new(Connection { send, state, most_head, until });
    spawn_local(drive(connection, Rc::clone(&ours.state), Rc::downgrade(&ours)));
    Ok(ours)
}

/// Moves a connection's bytes until it is over; ends when nobody can send on it and no stream is left.
async fn drive(connection: Inner<Deferred<Heard>, Bytes>, state: Rc<State>, ours: Weak<Connection>) {
    let mut connection = pin!(connection);
    let mut pulse = Pulse::new(connection.ping_pong());
    let stall = state.clock.alarm();
    state.pulse.set(PULSE);
    let mut moved = |cx: &mut Context<'_>| {
        loop {
            let before = state.io.sent();
            let is_over = connection.as_mut().poll(cx).is_ready();
            let sent = state.io.poll_send(cx);
            if state.io.sent() != before {
                stall.clear();
            }
            match sent {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) if is_over => return Poll::Ready(()),
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return pulse.poll(&state, cx),
                Poll::Pending => {
                    stall.set_once(STALL);
                    return if stall.poll(cx).is_ready() { Poll::Ready(()) } else { pulse.poll(&state, cx) };
                }
            }
        }
    };
    poll_fn(|cx| {
        let over = moved(cx);
        if over.is_pending() && !state.queue.is_empty() {
            // The endpoint may take more now, or has shown that it is there.
            ours.upgrade().inspect(Connection::serve);
        }
        over
    })
    .await;
    // Whoever has a place on it has the socket too.
    state.io.close();
    state.end();
}
