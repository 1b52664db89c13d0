//! HTTP/2 towards an endpoint: connections that many requests share.
//!
//! h2 keeps the protocol. A connection has a small task of its own, which moves bytes and nothing else: a stream is
//! polled by the request that it belongs to, and what all of them write in one turn goes out at once.

mod heard;
mod pulse;
mod risk;
mod task;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason as Code, SendStream, StreamId};
use http::Request;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

pub use risk::Risk;
use task::start;

use super::stream::Stream;
use crate::proxy::clock::{Alarm, Clock};

/// Most connections of a worker to one endpoint; beyond it requests queue for streams.
pub const MOST: usize = 8;
/// Most requests at a time on a connection, while another can be opened.
const STREAMS: u32 = 256;

/// A worker's connections to one endpoint.
#[derive(Debug, Default)]
pub struct Connections {
    list: RefCell<Vec<Rc<Connection>>>,
    /// Held by whoever opens one: those who wait may find room on it.
    opening: tokio::sync::Mutex<()>,
    /// Told when a connection has no request any more.
    vacant: Rc<Notify>,
}

#[derive(Debug)]
struct Connection {
    send: SendRequest<Bytes>,
    state: Rc<State>,
    /// How large a head the endpoint says that it takes.
    most_head: Option<u32>,
    /// The tick from which on it takes no more requests.
    until: u64,
}

/// What a connection's task and its requests tell each other.
#[derive(Debug)]
struct State {
    clock: Rc<Clock>,
    streams: Cell<usize>,
    /// One of them has it for itself.
    is_taken: Cell<bool>,
    /// The last that was sent.
    newest: Cell<Option<StreamId>>,
    vacant: Rc<Notify>,
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
    /// For which the connection is its own; none, when it is not.
    risk: Risk,
    /// The request, once it was sent.
    stream: Cell<Option<StreamId>>,
}

impl Connections {
    /// A place on a connection that has room for a request of this risk.
    pub fn find(&self, risk: Risk) -> Option<Ticket> {
        let mut list = self.list.borrow_mut();
        list.retain(|connection| !connection.is_over());
        list.iter().find(|connection| connection.takes(risk)).map(|connection| connection.ticket(true, risk))
    }

    /// A place on a connection that takes a request of this risk, or on one that `connect` opens and that takes requests `until` a
    /// tick, or in the shortest queue when there are `most` connections, or no further one can be opened. `None` when none is to
    /// be had for it alone: it has to wait until one [is vacant](Self::vacant).
    ///
    /// # Errors
    /// Those of `connect`, and when the endpoint does not speak HTTP/2.
    pub async fn take<E>(
        &self,
        (may_reuse, risk): (bool, Risk),
        (most, until): (usize, u64),
        clock: &Rc<Clock>,
        connect: impl Future<Output = Result<Stream, E>>,
        refused: impl FnOnce(io::Error) -> E,
    ) -> Result<Option<Ticket>, E> {
        let _turn = self.opening.lock().await;
        let found = if may_reuse { self.find(risk) } else { None };
        if let Some(ticket) = found.or_else(|| self.shortest_queue(most, risk)) {
            return Ok(Some(ticket));
        }
        if risk != Risk::None && !self.may_be_alone(most) {
            return Ok(None);
        }
        let stream = match connect.await {
            Ok(stream) => stream,
            // Those that are there can take more.
            Err(error) => {
                return self.last_resort(risk).filter(|_| may_reuse).map(Some).ok_or(error);
            }
        };
        let connection = start(stream, until, clock, &self.vacant).await.map_err(refused)?;
        let connection = Rc::new(connection);
        self.list.borrow_mut().push(Rc::clone(&connection));
        Ok(Some(connection.ticket(false, risk)))
    }

    /// Ready when some connection has lost its last request since this was called.
    pub fn vacant(&self) -> Notified<'_> {
        self.vacant.notified()
    }

    /// True when another connection may be opened for one request alone: half of them are for those who share.
    fn may_be_alone(&self, most: usize) -> bool {
        let list = self.list.borrow();
        let taken = list.iter().filter(|connection| connection.state.is_taken.get()).count();
        list.len() < most && taken < most / 2
    }

    /// When no further connection may be opened: the one with the fewest requests, one that may be dead last of all.
    fn shortest_queue(&self, most: usize, risk: Risk) -> Option<Ticket> {
        let mut list = self.list.borrow_mut();
        list.retain(|connection| !connection.is_over());
        let all = list.iter().filter(|it| list.len() >= most && it.is_shared_by(risk));
        let shortest = all.min_by_key(|it| (it.state.is_doubted.get(), it.state.streams.get()));
        shortest.map(|connection| connection.ticket(true, risk))
    }

    /// When no further connection can be had: the one with the fewest requests, unless all may be dead.
    fn last_resort(&self, risk: Risk) -> Option<Ticket> {
        self.shortest_queue(1, risk).filter(|ticket| !ticket.connection.state.is_doubted.get())
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

    /// True when a request of this risk may go on it beside others.
    fn is_shared_by(&self, risk: Risk) -> bool {
        !self.state.is_taken.get() && (risk == Risk::None || self.most_head.is_some())
    }

    /// True when there is room for a request of this risk.
    fn takes(&self, risk: Risk) -> bool {
        self.has_room() && (self.is_shared_by(risk) || self.state.streams.get() == 0)
    }

    fn has_room(&self) -> bool {
        let most = self.send.current_max_send_streams().min(STREAMS as usize);
        !self.state.is_doubted.get() && self.state.streams.get() < most
    }

    /// A place on it.
    fn ticket(self: &Rc<Self>, is_reused: bool, risk: Risk) -> Ticket {
        let risk = if self.most_head.is_some() { Risk::None } else { risk };
        self.state.streams.set(self.state.streams.get() + 1);
        self.state.is_taken.set(risk != Risk::None);
        Ticket { connection: Rc::clone(self), is_reused, risk, stream: Cell::new(None) }
    }
}

impl Ticket {
    /// Sends a request's head.
    ///
    /// # Errors
    /// When the connection takes no more requests; nothing of it was sent then.
    pub fn send(
        &self,
        request: Request<()>,
        is_end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let state = &self.connection.state;
        let sent = self.connection.send.clone().send_request(request, is_end);
        let sent = sent.inspect_err(|_| state.is_over.set(true))?;
        self.stream.set(Some(sent.0.stream_id()));
        state.newest.set(self.stream.get());
        Ok(sent)
    }

    /// How large a head the endpoint says that it takes.
    #[must_use]
    pub fn most_head(&self) -> Option<usize> {
        self.connection.most_head.and_then(|most| usize::try_from(most).ok())
    }

    /// True when trailers put nobody else at risk.
    #[must_use]
    pub fn takes_trailers(&self) -> bool {
        self.risk != Risk::None || self.connection.most_head.is_some()
    }

    /// The risk for which the request has the connection for itself.
    #[must_use]
    pub fn risk(&self) -> Risk {
        self.risk
    }

    /// True when the endpoint has ended the connection with an error, and this request may be why: the last that it was sent.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let end = self.connection.send.clone().poll_ready(&mut cx);
        let Poll::Ready(Err(end)) = end else { return false };
        let is_error = end.is_remote() && end.is_go_away() && end.reason() != Some(Code::NO_ERROR);
        is_error && self.connection.state.newest.get() == self.stream.get()
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
        if self.risk != Risk::None {
            state.is_taken.set(false);
        }
        if state.streams.get() == 0 {
            state.vacant.notify_waiters();
        }
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
