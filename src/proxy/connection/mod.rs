//! One client's connection, from its first byte to its last.
//!
//! A client that closes its sending side is taken to be gone, as nginx, Envoy and Caddy take it: nothing else tells a
//! client that left from one that waits. It is not noticed while its bytes are not read, because an endpoint does not take
//! them or because a next request already waits; then the progress limits end it.

pub mod http1;

mod answer;

mod out;

pub mod http2;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::{HeaderMap, StatusCode};
use tokio_util::io::poll_read_buf;

use http1::Wire;
use http2::Reply;

use super::clock::{Alarm, Clock, TICK};
use super::entrance::Arrival;
use super::headers::Caller;
use super::settings::Settings;
use super::upstream::Stream;
use super::worker::{HEAD, Worker};
use crate::metrics::Reason;

/// What a connection's requests need to know of their client.
#[derive(Debug)]
pub struct Client {
    /// The worker it belongs to.
    pub worker: Rc<Worker>,
    /// What was set when its latest request began.
    settings: RefCell<Rc<Settings>>,
    /// How it came.
    pub arrival: Arrival,
    /// What endpoints are told of it; written for its first request.
    introduction: OnceCell<Box<[u8]>>,
}

impl Client {
    /// What is set for its request.
    #[must_use]
    pub fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.settings.borrow())
    }

    /// A request begins: what the operator has set meanwhile holds for it.
    fn renew(&self) {
        if self.worker.has_set(&self.settings.borrow()) {
            return;
        }
        let settings = self.worker.settings();
        self.arrival.peer.meet(&settings);
        self.settings.replace(settings);
    }

    /// Whose connection it is, as endpoints are told.
    #[must_use]
    pub fn caller(&self) -> Caller<'_> {
        let Arrival { peer, .. } = &self.arrival;
        Caller {
            client: peer.text.as_deref(),
            port: peer.port,
            scheme: self.arrival.scheme(),
            subject: self.arrival.subject(),
        }
    }

    /// [`Caller::introduction`].
    #[must_use]
    pub fn introduction(&self) -> &[u8] {
        self.introduction.get_or_init(|| self.caller().introduction())
    }
}

/// One request's turn: whose it is, its time limits, and what its client can be told before the answer.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Who asks.
    pub client: Rc<Client>,
    /// The time limits of the request towards endpoints.
    pub alarm: Rc<Alarm>,
    ear: Ear,
}

/// Where a client hears of its request before the answer.
#[derive(Debug, Clone)]
enum Ear {
    Http1(Rc<Wire>),
    Http2(Rc<Reply>),
}

impl Turn {
    /// The same for an attempt beside another, with time limits of its own.
    #[must_use]
    pub fn beside(&self) -> Self {
        let alarm = Rc::new(self.client.worker.clock.alarm());
        Self { alarm, ..self.clone() }
    }

    /// Tells a client that waits for it to send the body.
    pub fn go_on(&self) {
        match &self.ear {
            Ear::Http1(wire) => wire.go_on(),
            // Told when the body is first asked for, which can be done behind the final head too.
            Ear::Http2(_) => {}
        }
    }

    /// Tells the connection at which tick the request is over, also while its client does not take the answer.
    pub fn is_due(&self, tick: u64) {
        match &self.ear {
            Ear::Http1(wire) => wire.is_due(tick),
            Ear::Http2(reply) => reply.is_due(tick),
        }
    }

    /// True while nothing of the request is read, so that its client could be gone unnoticed.
    fn is_unread(&self) -> bool {
        match &self.ear {
            Ear::Http1(wire) => wire.is_unread(),
            // Frames are always read; a stream that is reset is dropped.
            Ear::Http2(_) => false,
        }
    }

    /// True when the client is gone, though not all that it sent was read.
    fn has_left(&self) -> bool {
        match &self.ear {
            Ear::Http1(wire) => wire.has_left(),
            Ear::Http2(_) => false,
        }
    }

    /// What comes of `waited`, which reads nothing, unless the client is seen to be gone meanwhile: it is looked for at every tick where
    /// nobody reads from it. Cancel-safe if `waited` is.
    ///
    /// # Errors
    /// [`Reason::ClientGone`].
    pub async fn unless_left<T>(&self, waited: impl Future<Output = T>) -> Result<T, Reason> {
        let (mut waited, mut scout) = (pin!(waited), None);
        poll_fn(|cx| match waited.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if !self.is_unread() => Poll::Pending,
            Poll::Pending => {
                let scout = scout.get_or_insert_with(|| self.client.worker.clock.alarm());
                self.poll_left(scout, cx).map(|()| Err(Reason::ClientGone))
            }
        })
        .await
    }

    /// Ready when the client is seen to be gone; looks whenever the alarm rings.
    fn poll_left(&self, scout: &Alarm, cx: &Context<'_>) -> Poll<()> {
        loop {
            if self.has_left() {
                return Poll::Ready(());
            }
            scout.set_once(TICK);
            ready!(scout.poll(cx));
            scout.clear();
        }
    }

    /// True when the client speaks HTTP/2, in which every answer may have trailers.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(self.ear, Ear::Http2(_))
    }

    /// True when the client could be handed a body in a pipe.
    #[must_use]
    pub fn takes_pipes(&self) -> bool {
        match &self.ear {
            Ear::Http1(wire) => wire.is_plain(),
            Ear::Http2(_) => false,
        }
    }

    /// Tells the client an interim answer (RFC 9110 §15.2), if that is possible now.
    pub fn relay_interim(&self, status: StatusCode, fields: &HeaderMap) {
        match &self.ear {
            Ear::Http1(wire) => wire.relay_interim(status, fields),
            Ear::Http2(reply) => reply.relay_interim(status, fields),
        }
    }
}

/// Serves one connection until it ends, idles too long, or the worker winds down.
pub async fn run(stream: Stream, arrival: Arrival, worker: Rc<Worker>) {
    let client = Rc::new(Client {
        settings: RefCell::new(worker.settings()),
        worker,
        arrival,
        introduction: OnceCell::new(),
    });
    // Under TLS the handshake has settled the protocol; what does not keep to it is malformed.
    let watch = client.worker.clock.alarm();
    let (stream, early, is_http2) = match &client.arrival.secured {
        Some(secured) => (stream, Bytes::new(), secured.is_http2()),
        None => match first_bytes(&client, stream, &watch).await {
            Some((stream, early)) => {
                let is_http2 = early.starts_with(PREFACE);
                (stream, early, is_http2)
            }
            None => return,
        },
    };
    if is_http2 {
        // Boxed: most connections are not of this kind, and all would have its size.
        Box::pin(http2::run(client, stream, early)).await;
    } else {
        http1::run(client, stream, early, watch).await;
    }
}

/// What an HTTP/2 client sends first (RFC 9113 §3.4); no HTTP/1.1 request begins so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear which protocol the client speaks; `None` when it says nothing in time or goes away.
async fn first_bytes(client: &Client, mut stream: Stream, watch: &Alarm) -> Option<(Stream, Bytes)> {
    watch.set(client.settings().head);
    let leave = Leave::default();
    let mut early = Bytes::new();
    while early.len() < PREFACE.len() && PREFACE.starts_with(&early) {
        let read = poll_fn(|cx| match poll_read(client, &mut stream, HEAD, cx) {
            Poll::Pending => {
                if early.is_empty() {
                    leave.take(&client.worker, watch);
                }
                watch.poll(cx).map(|()| None)
            }
            Poll::Ready(read) => Poll::Ready(read.ok().filter(|read| !read.is_empty())),
        });
        match read.await {
            Some(read) if early.is_empty() => {
                // Little of it waits for more, and not with the buffer that it was read into.
                early = if read.len() < PREFACE.len() { Bytes::copy_from_slice(&read) } else { read };
                leave.put_off(watch, client.settings().head);
            }
            Some(read) => early = [early, read].concat().into(),
            // Of a begun request its own protocol says what is wrong.
            None if early.is_empty() => return None,
            None => break,
        }
    }
    Some((stream, early))
}

/// The tick at which a connection ends that has no request, once its worker winds down and it has drawn its lot.
#[derive(Debug, Default)]
struct Leave(Cell<Option<u64>>);

impl Leave {
    /// Has `watch` ring by then, when the worker winds down.
    fn take(&self, worker: &Worker, watch: &Alarm) {
        let draw = || Some(worker.clock.ticks() + Clock::ticks_in(worker.farewell()?) + 1);
        if let Some(tick) = self.0.get().or_else(draw) {
            self.0.set(Some(tick));
            watch.ring_by(tick);
        }
    }

    /// A request has begun: it has its own time.
    fn put_off(&self, watch: &Alarm, time: Duration) {
        if self.0.get().is_some() {
            watch.set(time);
        }
    }
}

/// Reads once, at most `most`, into a buffer of the worker's; nothing is the end.
fn poll_read(
    client: &Client,
    stream: &mut Stream,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Bytes>> {
    let mut scratch = client.worker.read_buffer(most);
    let read = ready!(poll_read_buf(Pin::new(stream), cx, &mut (&mut *scratch).limit(most)));
    let fresh = scratch.split().freeze();
    Poll::Ready(read.map(|_| fresh))
}
