//! HTTP/2 towards an endpoint: connections that many requests share.
//!
//! h2 keeps the protocol. A connection has a small task of its own, which moves bytes and nothing else: a stream is
//! polled by the request that it belongs to, and what all of them write in one turn goes out at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection as Inner, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use tokio::task::spawn_local;

use super::stream::Stream;
use crate::proxy::clock::{Alarm, Clock};
use crate::proxy::deferred::{Deferred, Watch};
use crate::proxy::http1::MAX_HEAD;

/// Most connections of a worker to one endpoint; beyond it requests queue for streams.
pub const MOST: usize = 8;
/// Most requests at a time on a connection, while another can be opened.
const STREAMS: u32 = 256;
/// Flow-control windows: what an endpoint may send ahead of the client that takes it. The connection's has room for all of its
/// streams, so that clients who take nothing do not hold up the others.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// What frames of less than 256 bytes that wait for their clients may cost beside these bytes, as h2 reckons: a million of them, which
/// take about as much memory (265 bytes each were measured). Beyond it h2 ends the connection for all; by its own measure five
/// clients could come to that who take nothing of small messages.
const SMALL_FRAMES: usize = 256 * 1024 * 1024;
/// Most of a request's body that waits in a stream.
const SEND_BUFFER: usize = 64 * 1024;
/// After how long without an answer an endpoint is asked whether it is there. gRPC servers take pings that come more
/// often than every five minutes for an attack; on suspicion one is sent at once.
const PULSE: Duration = Duration::from_secs(310);
const PULSE_PATIENCE: Duration = Duration::from_secs(10);
/// Requests that were given up are remembered, so many and so long: what is still on its way for them is no error.
const REMEMBERED: usize = 512;
const MEMORY: Duration = Duration::from_secs(10);
/// How long an endpoint may take nothing of what is written.
const STALL: Duration = Duration::from_secs(30);

/// A worker's connections to one endpoint.
#[derive(Debug, Default)]
pub struct Connections {
    list: RefCell<Vec<Rc<Connection>>>,
    /// Held by whoever opens one: those who wait may find room on it.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Connection {
    send: SendRequest<Bytes>,
    state: Rc<State>,
    /// The tick from which on it takes no more requests.
    until: u64,
}

/// What a connection's task and its requests tell each other.
#[derive(Debug)]
struct State {
    clock: Rc<Clock>,
    streams: Cell<usize>,
    /// The tick at which the last of them ended.
    used: Cell<u64>,
    /// No request can be sent on it any more.
    is_over: Cell<bool>,
    /// A request had no answer in time: the connection may be dead.
    is_doubted: Cell<bool>,
    pulse: Alarm,
}

/// A request's place on a connection.
#[derive(Debug)]
pub struct Ticket {
    connection: Rc<Connection>,
    /// True when the connection had been there before.
    pub is_reused: bool,
}

impl Connections {
    /// A place on a connection that has room.
    pub fn find(&self) -> Option<Ticket> {
        let mut list = self.list.borrow_mut();
        list.retain(|connection| !connection.is_over());
        list.iter().find(|connection| connection.has_room()).map(|connection| Ticket::on(connection, true))
    }

    /// A place on a connection that has room, or on one that `connect` opens and that takes requests `until` a tick, or in
    /// the shortest queue when there are `most` connections, or no further one can be opened.
    ///
    /// # Errors
    /// Those of `connect`, and when the endpoint does not speak HTTP/2.
    pub async fn take<E>(
        &self,
        may_reuse: bool,
        (most, until): (usize, u64),
        clock: &Rc<Clock>,
        connect: impl Future<Output = Result<Stream, E>>,
        refused: impl FnOnce(io::Error) -> E,
    ) -> Result<Ticket, E> {
        let _turn = self.opening.lock().await;
        let found = if may_reuse { self.find() } else { None };
        if let Some(ticket) = found.or_else(|| self.shortest_queue(most)) {
            return Ok(ticket);
        }
        let stream = match connect.await {
            Ok(stream) => stream,
            // Those that are there can take more.
            Err(error) => return self.last_resort().filter(|_| may_reuse).ok_or(error),
        };
        let connection = Rc::new(start(stream, until, clock).await.map_err(refused)?);
        self.list.borrow_mut().push(Rc::clone(&connection));
        Ok(Ticket::on(&connection, false))
    }

    /// When no further connection may be opened: the one with the fewest requests, one that may be dead last of all.
    fn shortest_queue(&self, most: usize) -> Option<Ticket> {
        let mut list = self.list.borrow_mut();
        list.retain(|connection| !connection.is_over());
        let all = list.iter().filter(|_| list.len() >= most);
        let shortest = all.min_by_key(|it| (it.state.is_doubted.get(), it.state.streams.get()));
        shortest.map(|connection| Ticket::on(connection, true))
    }

    /// When no further connection can be had: the one with the fewest requests, unless all may be dead.
    fn last_resort(&self) -> Option<Ticket> {
        self.shortest_queue(1).filter(|ticket| !ticket.connection.state.is_doubted.get())
    }

    /// Closes those without requests since before `oldest`; true when some are left.
    pub fn sweep(&self, oldest: u64) -> bool {
        let mut list = self.list.borrow_mut();
        list.retain(|connection| {
            let state = &connection.state;
            !connection.is_over() && (state.streams.get() > 0 || state.used.get() >= oldest)
        });
        !list.is_empty()
    }

    /// Takes no more requests; each closes when its last one has ended.
    pub fn close(&self) {
        self.list.take();
    }
}

impl Connection {
    /// True when it takes no more requests; it closes with its last one.
    fn is_over(&self) -> bool {
        self.state.is_over.get() || self.state.clock.ticks() >= self.until
    }

    fn has_room(&self) -> bool {
        let most = self.send.current_max_send_streams().min(STREAMS as usize);
        !self.state.is_doubted.get() && self.state.streams.get() < most
    }
}

impl Ticket {
    fn on(connection: &Rc<Connection>, is_reused: bool) -> Self {
        connection.state.streams.set(connection.state.streams.get() + 1);
        Self { connection: Rc::clone(connection), is_reused }
    }

    /// Sends a request's head.
    ///
    /// # Errors
    /// When the connection takes no more requests; nothing of it was sent then.
    pub fn send(
        &self,
        request: Request<()>,
        is_end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let sent = self.connection.send.clone().send_request(request, is_end);
        sent.inspect_err(|_| self.connection.state.is_over.set(true))
    }

    /// True when the endpoint takes WebSockets as streams of this connection (RFC 8441 §3).
    #[must_use]
    pub fn takes_websockets(&self) -> bool {
        self.connection.send.is_extended_connect_protocol_enabled()
    }

    /// The endpoint takes no more requests on this connection.
    pub fn retire(&self) {
        self.connection.state.is_over.set(true);
    }

    /// The endpoint did not answer in time: it is asked whether it is there before the connection is used again.
    pub fn doubt(&self) {
        let state = &self.connection.state;
        if !state.is_doubted.replace(true) {
            state.pulse.set(Duration::ZERO);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let state = &self.connection.state;
        state.streams.set(state.streams.get() - 1);
        state.used.set(state.clock.ticks());
    }
}

/// How many bytes may be sent now, up to `wanted`; `None` when the endpoint takes no more.
pub fn poll_room(send: &mut SendStream<Bytes>, wanted: usize, cx: &mut Context<'_>) -> Poll<Option<usize>> {
    send.reserve_capacity(wanted);
    loop {
        let room = send.capacity();
        if room > 0 {
            return Poll::Ready(Some(room));
        }
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(None),
        }
    }
}

/// Sees whether the endpoint has said anything.
#[derive(Debug, Default)]
struct Heard {
    bytes: usize,
    /// The length of the first frame's payload, as it comes.
    length: [u8; 3],
}

impl Heard {
    /// True when all of the first frame has come, which is its settings (RFC 9113 §3.4).
    fn has_settings(&self) -> bool {
        let [high, middle, low] = self.length.map(usize::from);
        self.bytes >= HEADER + (high << 16 | middle << 8 | low)
    }
}

impl Watch for Heard {
    fn read(&mut self, bytes: &[u8]) -> usize {
        self.length.iter_mut().skip(self.bytes).zip(bytes).for_each(|(to, from)| *to = *from);
        self.bytes += bytes.len();
        bytes.len()
    }

    fn sent(&mut self, _: usize) {}
}

/// A frame's header (RFC 9113 §4.1).
const HEADER: usize = 9;

/// Opens a connection over `stream`, and waits for the endpoint's settings: how many requests it takes at a time.
async fn start(stream: Stream, until: u64, clock: &Rc<Clock>) -> io::Result<Connection> {
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
        match (over, io.poll_send(cx, || {})) {
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
        used: Cell::new(clock.ticks()),
        is_over: Cell::new(false),
        is_doubted: Cell::new(false),
        pulse: clock.alarm(),
        clock: Rc::clone(clock),
    });
    spawn_local(drive(connection, io, Rc::clone(&state)));
    Ok(Connection { send, state, until })
}

/// Moves a connection's bytes until it is over; ends when nobody can send on it and no stream is left.
async fn drive(connection: Inner<Deferred<Heard>, Bytes>, io: Deferred<Heard>, state: Rc<State>) {
    let mut connection = pin!(connection);
    let mut pulse = Pulse { pings: connection.ping_pong(), asked: false };
    let stall = state.clock.alarm();
    state.pulse.set(PULSE);
    poll_fn(|cx| {
        loop {
            let is_over = connection.as_mut().poll(cx).is_ready();
            match io.poll_send(cx, || stall.clear()) {
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
    })
    .await;
    state.is_over.set(true);
}

/// Asks an endpoint whether it is still there.
struct Pulse {
    pings: Option<PingPong>,
    asked: bool,
}

impl Pulse {
    /// Ready when the endpoint did not answer in time.
    fn poll(&mut self, state: &State, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        if self.asked && pings.poll_pong(cx).is_ready() {
            self.asked = false;
            state.is_doubted.set(false);
            state.pulse.set(PULSE);
        }
        while state.pulse.poll(cx).is_ready() {
            if self.asked {
                return Poll::Ready(());
            }
            let is_waited_for = state.streams.get() > 0 || state.is_doubted.get();
            if !is_waited_for {
                state.pulse.set(PULSE);
                continue;
            }
            if pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.asked = true;
            state.pulse.set(PULSE_PATIENCE);
            // Its answer has to know whom to wake, and the ping has to go out.
            drop(pings.poll_pong(cx));
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
