//! HTTP/2 towards an endpoint: connections that many requests share.
//!
//! h2 keeps the protocol. A connection has a small task of its own, which moves bytes and nothing else: a stream is
//! polled by the request that it belongs to, and what all of them write in one turn goes out at once.

mod heard;
mod pulse;
mod queue;
mod risk;
mod task;
mod ticket;
mod window;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::StreamId;
use h2::client::SendRequest;

use heard::Heard;
use queue::{Queue, Waiter};
pub use risk::Risk;
use task::{FULL, start};
pub use ticket::Ticket;
pub use window::poll_room;

use super::rest::Rest;
use super::stream::Stream;
use crate::metrics::Reason;
use crate::proxy::clock::{Alarm, Clock};
use crate::proxy::deferred::Deferred;

/// Most connections of a worker to one endpoint; beyond it requests wait for a place on one.
pub const MOST: usize = 8;
/// With so many requests on each of its connections another one is opened.
const STREAMS: usize = 256;

/// Requests that are given up on a connection, with another one for two that are answered, before it is replaced: its endpoint may
/// take more for an attack (CVE-2023-44487), and end it with the requests of all. Envoy does so for 250, and for half of 500 or
/// more; we for [a hundred and some](crate::proxy::connection::http2::Tally).
const GIVEN_UP: u64 = 64;

/// A worker's connections to one endpoint.
#[derive(Debug, Default)]
pub struct Connections {
    list: RefCell<Vec<Rc<Connection>>>,
    queue: Rc<Queue<Handed>>,
}

/// What who waits is handed: a place, or why there is none.
type Handed = Result<Ticket, Reason>;

/// What a request asks of the connection that it goes on.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// False when it is to be a new one, if one can be had.
    pub may_reuse: bool,
    /// What the request may cost others.
    pub risk: Risk,
    /// How many there may be.
    pub most: usize,
    /// How long a new one may take to open.
    pub connect: Duration,
    /// How long a new one takes requests.
    pub lifetime: Duration,
}

impl Wish {
    /// How many may be had by requests for each alone.
    fn half(&self) -> usize {
        half(self.most)
    }
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
    io: Deferred<Heard>,
    streams: Cell<usize>,
    /// One of them has it for itself.
    is_taken: Cell<bool>,
    /// The last that was sent.
    newest: Cell<Option<StreamId>>,
    queue: Rc<Queue<Handed>>,
    /// The tick at which the last of them ended.
    used: Cell<u64>,
    /// How long it was without any the last time.
    rest: Cell<Rest>,
    /// Requests that were answered, and that were given up before.
    answered: Cell<u64>,
    given_up: Cell<u64>,
    /// No request can be sent on it any more.
    is_over: Cell<bool>,
    /// A request had no answer in time: the connection may be dead.
    is_doubted: Cell<bool>,
    pulse: Alarm,
}

impl Connections {
    /// A place on a connection that has room for a request of this risk, while it may have no more than `half` of them for itself.
    pub fn find(&self, risk: Risk, half: usize) -> Option<Ticket> {
        self.tidy();
        let list = self.list.borrow();
        list.iter()
            .find(|connection| connection.takes(risk, half))
            .map(|connection| connection.ticket(true, risk))
    }

    /// A place for who found none, on any that takes another request. Not on one that was of no use to it, nor on one that is to be
    /// replaced, while another one [is opened](Self::begins_to_open).
    pub fn place(&self, wish: Wish) -> Option<Ticket> {
        if self.queue.is_opening.get() && !wish.may_reuse {
            return None;
        }
        self.find(wish.risk, wish.half()).or_else(|| self.emptiest(wish.risk))
    }

    /// What is handed to a request when it is its turn; `None` when it is to look anew, for another connection may be opened.
    pub async fn wait(&self, wish: Wish) -> Option<Result<Ticket, Reason>> {
        self.queue.wait(wish).await
    }

    /// True when whoever asks has to open another connection, and then to [use](Self::open) it or [do without](Self::do_without):
    /// one may be opened for this wish, and nobody does so.
    pub fn begins_to_open(&self, wish: Wish) -> bool {
        self.list.borrow().iter().for_each(|connection| connection.hear());
        self.tidy();
        let begins = !self.queue.is_opening.get() && self.may_open(wish);
        if begins {
            self.queue.is_opening.set(true);
        }
        begins
    }

    /// As [`Self::begins_to_open`], for those who wait: the wish of the first for whom one may be opened.
    pub fn goes_on_to_open(&self) -> Option<Wish> {
        self.queue.firsts().into_iter().flatten().find(|wish| self.begins_to_open(*wish))
    }

    /// Opens another one over `stream`, that takes requests `until` a tick: those who wait have the first places on it. False when it
    /// has no place for any of them.
    ///
    /// # Errors
    /// When the endpoint does not speak HTTP/2, or ends the connection at once.
    pub async fn open(&self, stream: Stream, until: u64, clock: &Rc<Clock>) -> io::Result<bool> {
        let connection = start(stream, until, clock, &self.queue).await?;
        if let Some(end) = connection.end_of() {
            return Err(io::Error::other(end));
        }
        self.queue.is_opening.set(false);
        self.list.borrow_mut().push(Rc::clone(&connection));
        connection.hand_out(false);
        Ok(connection.state.streams.get() > 0)
    }

    /// No other one is opened now. Those who hoped for it alone are told why, if there is a reason; the others have to do with those
    /// that are there.
    pub fn do_without(&self, reason: Option<Reason>) {
        if let Some(reason) = reason {
            self.queue.tell(|wish| self.hopes(*wish), || Err(reason));
        }
        self.queue.is_opening.set(false);
        self.list.borrow().iter().for_each(Connection::serve);
    }

    /// True when nothing but the connection that is being opened can be of use.
    pub fn hopes(&self, wish: Wish) -> bool {
        self.queue.is_opening.get() && self.may_open(wish) && !self.is_any_shared_by(wish.risk)
    }

    /// True when another connection may be opened; half of them are for those who share.
    fn may_open(&self, wish: Wish) -> bool {
        let may_be_alone = wish.risk == Risk::None || self.queue.taken.get() < wish.half();
        self.list.borrow().len() < wish.most && may_be_alone
    }

    /// A place beside others on the one with the fewest requests, if there is one.
    fn emptiest(&self, risk: Risk) -> Option<Ticket> {
        let list = self.list.borrow();
        let open = list.iter().filter(|it| it.is_shared_by(risk) && it.is_open());
        let place = open.min_by_key(|it| (it.state.is_tired(), it.state.streams.get()));
        place.map(|connection| connection.ticket(true, risk))
    }

    /// True when one that is not taken to be dead has a place for a request of this risk now or later.
    fn is_any_shared_by(&self, risk: Risk) -> bool {
        let is_one =
            |it: &Rc<Connection>| !it.is_over() && !it.state.is_doubted.get() && it.is_shared_by(risk);
        self.list.borrow().iter().any(is_one)
    }

    /// Forgets those that take no more requests: others may be opened in their place.
    fn tidy(&self) {
        let mut list = self.list.borrow_mut();
        let before = list.len();
        list.retain(|connection| !connection.is_over());
        if list.len() < before {
            self.queue.dismiss();
        }
    }

    /// Closes those without requests since before `oldest`; true when some are left.
    pub fn sweep(&self, oldest: u64) -> bool {
        self.tidy();
        let mut list = self.list.borrow_mut();
        list.retain(|connection| connection.state.streams.get() > 0 || connection.state.used.get() >= oldest);
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

    /// Notices that the endpoint takes no more requests, which is otherwise told to the next one that is sent.
    fn hear(&self) {
        if self.end_of().is_some() {
            self.state.end();
        }
    }

    /// The error that h2 would meet another request with.
    fn end_of(&self) -> Option<h2::Error> {
        match self.send.clone().poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(end)) => Some(end),
            Poll::Ready(Ok(())) | Poll::Pending => None,
        }
    }

    /// True when a request of this risk may go on it beside others.
    fn is_shared_by(&self, risk: Risk) -> bool {
        !self.state.is_taken.get() && (risk == Risk::None || self.most_head.is_some())
    }

    /// True when there is room for a request of this risk, which may have no more than `half` of the connections for itself.
    fn takes(&self, risk: Risk, half: usize) -> bool {
        let state = &self.state;
        let may_be_alone = || state.streams.get() == 0 && state.queue.taken.get() < half;
        self.has_room(STREAMS) && !state.is_tired() && (self.is_shared_by(risk) || may_be_alone())
    }

    /// True when the endpoint takes another request now, and there are fewer than `most`. To h2 no more are given: it would send
    /// them, in their order, also when they were given up meanwhile.
    fn has_room(&self, most: usize) -> bool {
        let most = self.send.current_max_send_streams().min(most);
        !self.state.is_doubted.get() && self.state.streams.get() < most
    }

    /// True when it takes another request, though it may have many.
    fn is_open(&self) -> bool {
        let is_replaced = self.state.queue.is_opening.get() && self.state.is_tired();
        self.has_room(FULL) && !is_replaced
    }

    /// A place on it.
    fn ticket(self: &Rc<Self>, is_reused: bool, risk: Risk) -> Ticket {
        let risk = if self.most_head.is_some() { Risk::None } else { risk };
        let state = &self.state;
        if state.streams.get() == 0 {
            state.rest.set(Rest::new(state.used.get(), state.clock.ticks()));
        }
        state.streams.set(state.streams.get() + 1);
        if risk != Risk::None {
            state.is_taken.set(true);
            state.queue.taken.set(state.queue.taken.get() + 1);
        }
        Ticket {
            connection: Rc::clone(self),
            is_reused,
            risk,
            stream: Cell::new(None),
            sent: Cell::new(0),
            is_answered: Cell::new(false),
        }
    }

    /// Hands what room there is to those who wait for it.
    fn serve(self: &Rc<Self>) {
        self.hand_out(true);
    }

    fn hand_out(self: &Rc<Self>, is_reused: bool) {
        while let Some(Waiter { wish, place }) = self.next() {
            drop(place.send(Ok(self.ticket(is_reused, wish.risk))));
        }
    }

    /// Who has waited longest for a place here, if there is one.
    fn next(&self) -> Option<Waiter<Handed>> {
        let (state, queue) = (&self.state, &self.state.queue);
        if queue.is_empty() {
            return None;
        }
        self.hear();
        if self.is_over() || !self.is_open() {
            return None;
        }
        let may_be_alone = |half| state.streams.get() == 0 && queue.taken.get() < half;
        let suits = |it: &Waiter<_>| self.is_shared_by(it.wish.risk) || may_be_alone(it.wish.half());
        let fresh = queue.fresh.first_if(|it| !queue.is_opening.get() && suits(it));
        fresh.or_else(|| queue.alone.first_if(suits)).or_else(|| queue.sharing.first_if(suits))
    }
}

impl State {
    /// It takes no more requests: those who wait may open another one.
    fn end(&self) {
        if !self.is_over.replace(true) {
            self.queue.dismiss();
        }
    }

    /// True when so many requests were given up on it that its endpoint may take that for an attack.
    fn is_tired(&self) -> bool {
        self.given_up.get() > GIVEN_UP + self.answered.get() / 2
    }
}

/// How many of `most` connections may be had by requests for each alone.
#[must_use]
pub fn half(most: usize) -> usize {
    most / 2
}
