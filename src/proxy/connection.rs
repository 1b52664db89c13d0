//! hyper on one client connection, watched for clients that are slow, silent or gone.
//!
//! A client that closes its sending side is taken to be gone, as nginx, Envoy and Caddy take it: nothing else tells a
//! client that left from one that waits. It is not noticed while its bytes are not read, because an endpoint does not take
//! them or because a next request already waits; then the progress limits end it.

mod socket;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use socket::Socket;

use super::clock::Alarm;
use super::peer::Peer;
use super::sentry::{Refused, Sentry};
use super::upstream::Stream;
use super::worker::{Settings, Worker};
use super::{error, headers};
use crate::metrics::Reason;

/// One client's connection: what its requests need to know of it, and its socket.
#[derive(Debug)]
pub struct Client {
    /// The worker it belongs to.
    pub worker: Rc<Worker>,
    /// What was set when it came.
    pub settings: Rc<Settings>,
    /// Who it is.
    pub peer: Peer,
    /// The time limits of its requests towards endpoints.
    pub alarm: Alarm,
    /// The time limits of its own doing.
    watch: Alarm,
    phase: Cell<Phase>,
    stream: RefCell<Stream>,
    /// Bytes that came before hyper did.
    early: RefCell<Bytes>,
    /// Bytes that go out before anything else of hyper's.
    first: RefCell<Vec<u8>>,
    /// True when everything that hyper wrote has gone out.
    is_flushed: Cell<bool>,
    sentry: RefCell<Sentry>,
    /// True when the request at hand has a body that is not known to have come to its end.
    has_unread: Cell<bool>,
    /// True when a head that the sentry refused is the next to be answered.
    is_refused: Cell<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for the first byte of a request.
    Idle,
    /// In the middle of a request's head.
    Head,
    /// A request is being answered.
    Busy,
    /// Its answer is done, but for the bytes that are on their way out.
    Done,
}

/// A request's turn on its connection; over when dropped with the last byte of its answer.
#[derive(Debug)]
pub struct Turn(Rc<Client>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.phase.set(Phase::Done);
    }
}

/// Serves one connection until it ends, idles too long, or the worker winds down.
pub async fn run(stream: Stream, peer: Peer, worker: Rc<Worker>) {
    let settings = worker.settings();
    let client = Rc::new(Client {
        alarm: worker.clock.alarm(),
        watch: worker.clock.alarm(),
        phase: Cell::new(Phase::Idle),
        stream: RefCell::new(stream),
        early: RefCell::default(),
        first: RefCell::default(),
        is_flushed: Cell::new(true),
        sentry: RefCell::default(),
        has_unread: Cell::new(false),
        is_refused: Cell::new(false),
        worker,
        settings,
        peer,
    });
    client.watch.set(client.settings.head);
    while poll_fn(|cx| client.poll_first_bytes(cx)).await {
        // hyper and its two buffers of 8 KiB are there only while they are needed: of a silent or dozing connection
        // only this small task is left.
        if Box::pin(serve(&client)).await == Left::Dozing {
            client.watch.set(client.settings.idle.saturating_sub(DOZE));
            continue;
        }
        if !client.sentry.borrow().is_between() {
            client.watch.set(LINGER);
            poll_fn(|cx| client.poll_linger(cx)).await;
        }
        return;
    }
}

/// How a connection was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It is to be closed.
    Over,
    /// It is idle; hyper can come again with the next request.
    Dozing,
}

/// After how long an idle connection dozes. Waking it costs some 4,000 instructions, so never between the requests of a
/// busy client; and soon, so that many clients that come one after the other use the same few buffers.
const DOZE: Duration = Duration::from_millis(250);

/// How long a client may go on sending what nobody will read. Closing at once would reset the connection, and the reset
/// could overtake the answer that says why (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);

async fn serve(client: &Rc<Client>) -> Left {
    let service = service_fn(|request| super::serve(Rc::clone(client), request));
    let mut builder = http1::Builder::new();
    // One `send` of head and small body instead of a `writev`: 1.8 µs a request were measured. No timer: one of
    // hyper's a request costs 6 %; the watch does its work.
    builder.writev(false).header_read_timeout(None).max_headers(client.settings.headers);
    builder
        .max_buf_size(client.settings.head_bytes.max(MIN_BUFFER))
        .max_header_size(client.settings.head_bytes);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Socket(Rc::clone(client))), service));
    let mut is_told = false;
    poll_fn(|cx| {
        // First: a request that has already arrived is still answered when the worker winds down.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Left::Over);
        }
        if client.worker.is_stopping.get() && !is_told {
            is_told = true;
            connection.as_mut().graceful_shutdown();
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Left::Over);
            }
        }
        if client.is_refused.get() {
            client.refuse(Reason::BadRequest);
            return Poll::Ready(Left::Over);
        }
        ready!(client.watch.poll(cx));
        Poll::Ready(client.on_overdue())
    })
    .await
}

/// hyper's lower bound.
const MIN_BUFFER: usize = 8192;

impl Client {
    /// A request begins.
    pub fn begin(self: &Rc<Self>, has_body: bool) -> Turn {
        self.has_unread.set(has_body);
        self.phase.set(Phase::Busy);
        self.is_refused.set(false);
        self.watch.clear();
        Turn(Rc::clone(self))
    }

    /// True when the body of a request has not come to its end.
    pub fn is_sending(&self) -> bool {
        // The sentry may be further on, in the body of a request that waits behind this one.
        self.has_unread.get() && self.sentry.borrow().is_in_body()
    }

    /// The body of the request at hand has been read to its end.
    pub fn on_body_read(&self) {
        self.has_unread.set(false);
    }

    /// Waits for the first bytes of a request; false when the client is not worth waiting for.
    fn poll_first_bytes(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut scratch = self.worker.read_buffer();
        match poll_read_buf(Pin::new(&mut *self.stream.borrow_mut()), cx, &mut *scratch) {
            Poll::Ready(read) => {
                self.early.replace(scratch.split().freeze());
                Poll::Ready(read.is_ok_and(|read| read > 0))
            }
            Poll::Pending if self.worker.is_stopping.get() => Poll::Ready(false),
            Poll::Pending => self.watch.poll(cx).map(|()| false),
        }
    }

    /// The next bytes of the client: those that came early first.
    fn poll_next_bytes(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut early = self.early.borrow_mut();
        if early.is_empty() {
            return Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf);
        }
        let length = early.len().min(buf.remaining());
        buf.put_slice(&early.split_to(length));
        Poll::Ready(Ok(()))
    }

    /// Tells the client an interim answer, unless earlier bytes are still on their way out.
    pub fn relay_interim(&self, status: StatusCode, fields: &HeaderMap) {
        if !self.is_flushed.get() || !self.first.borrow().is_empty() {
            return;
        }
        let mut text =
            format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or(""))
                .into_bytes();
        for (name, value) in fields {
            headers::append(&mut text, name.as_str().as_bytes(), value.as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        self.push(text);
    }

    /// Writes `text` now as far as it goes, the rest before hyper's next byte and behind what waits already.
    fn push(&self, mut text: Vec<u8>) {
        let mut first = self.first.borrow_mut();
        if first.is_empty() {
            let written = match &*self.stream.borrow() {
                Stream::Tcp(tcp) => tcp.try_write(&text),
                Stream::Unix(unix) => unix.try_write(&text),
            };
            text.drain(..written.unwrap_or(0));
        }
        first.append(&mut text);
    }

    /// A client that began a request and did not go on is told so; one that reads nothing is left; one that is idle may
    /// doze for the rest of its time.
    fn on_overdue(&self) -> Left {
        match self.phase.get() {
            Phase::Head if self.is_flushed.get() => self.refuse(Reason::RequestTimeout),
            Phase::Idle if self.settings.idle > DOZE && self.sentry.borrow().is_between() => {
                return Left::Dozing;
            }
            Phase::Idle | Phase::Head | Phase::Busy | Phase::Done => {}
        }
        Left::Over
    }

    /// Answers what never became a request.
    fn refuse(&self, reason: Reason) {
        self.worker.refused(reason);
        self.push(error::refusal(reason));
    }

    /// Says that the answer is over, then reads and forgets what still comes, until the client has seen it.
    fn poll_linger(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watch.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if ready!(self.poll_write_first(cx)).is_err() {
            return Poll::Ready(());
        }
        let mut stream = self.stream.borrow_mut();
        if ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        loop {
            let mut forgotten = [MaybeUninit::uninit(); 4096];
            let mut forgotten = ReadBuf::uninit(&mut forgotten);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut forgotten));
            if read.is_err() || forgotten.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    /// The answer has gone out: what is waited for now.
    fn on_answered(&self, cx: &Context<'_>) {
        let sentry = self.sentry.borrow();
        let (phase, limit) = match sentry.is_in_head() {
            true => (Phase::Head, self.settings.head),
            false => (Phase::Idle, self.settings.idle.min(DOZE)),
        };
        self.phase.set(phase);
        self.watch.set(limit);
        if sentry.refused().is_some() {
            // hyper waits for bytes; it has to ask for them again to be answered.
            cx.waker().wake_by_ref();
        }
    }

    /// Holds back what the sentry refused. A head's refusal is due when all before it is answered and hyper asks for
    /// more; a chunk breaks its request's body off.
    fn hold_back(&self, refused: Refused) -> Poll<io::Result<()>> {
        match refused {
            Refused::Head => {
                self.is_refused.set(matches!(self.phase.get(), Phase::Idle | Phase::Head));
                Poll::Pending
            }
            Refused::Chunk => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Writes what comes before hyper's bytes; a client that does not take it is under the same limit as for those.
    fn poll_write_first(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut first = self.first.borrow_mut();
        if first.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !first.is_empty() {
            match Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, &first) {
                Poll::Ready(written) => drop(first.drain(..written?)),
                Poll::Pending => {
                    self.watch.set_once(self.settings.progress);
                    return Poll::Pending;
                }
            }
        }
        if matches!(self.phase.get(), Phase::Busy | Phase::Done) {
            self.watch.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// hyper answers a head that it cannot read by itself, without a request: an answer with its reason is put in place.
    fn is_hypers_refusal(&self, bytes: &[u8]) -> Option<Reason> {
        let is_alone = matches!(self.phase.get(), Phase::Idle | Phase::Head) && self.is_flushed.get();
        let status = bytes.strip_prefix(b"HTTP/1.1 ").filter(|_| is_alone)?;
        match status.get(..3)? {
            b"431" | b"414" => Some(Reason::HeadTooLarge),
            [b'4', ..] => Some(Reason::BadRequest),
            _ => None,
        }
    }
}
