//! One client's HTTP/2 connection: its streams, each of them a request, polled in the connection's one task.
//!
//! h2 keeps the protocol; the windows, the counts and the time limits that keep a hostile client small are set here.

mod flood;
mod stream;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason as Code, RecvStream};
use http::Request;

pub use flood::Frames;
pub use stream::{Reply, Upload};

use super::Client;
use crate::metrics::Reason;
use crate::proxy::clock::Alarm;
use crate::proxy::deferred::Deferred;
use crate::proxy::settings::Settings;
use crate::proxy::upstream::Stream;

/// Requests at a time on one connection.
const STREAMS: u32 = 100;
/// Most bytes of a request's head, its fields counted as RFC 9113 §6.5.2 does.
const HEAD_BYTES: u32 = 16 * 1024;
/// Flow-control windows: what a stream, and a connection, may send ahead of the endpoint that takes it.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Most of an answer that waits in a stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client may reset before they were looked at (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that a client may make us reset by its errors (CVE-2025-8671).
const ERROR_RESETS: usize = 64;
/// How often a client is asked whether it is there, and how long it may take to say so.
const PULSE: Duration = Duration::from_secs(20);
const PULSE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take to close once it was told to.
const LINGER: Duration = Duration::from_secs(2);

/// Serves `stream` until it ends, idles too long, or the worker winds down.
pub(super) async fn run(client: Rc<Client>, stream: Stream, early: Bytes) {
    let io = Deferred::<Frames>::new(stream, early);
    let watch = client.worker.clock.alarm();
    watch.set(client.settings.head);
    let mut handshake = pin!(builder(&client.settings).handshake::<_, Bytes>(io.clone()));
    let connection = poll_fn(|cx| {
        if let Poll::Ready(connection) = handshake.as_mut().poll(cx) {
            return Poll::Ready(connection.ok());
        }
        match io.poll_send(cx, || {}) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(_)) | Poll::Pending => watch.poll(cx).map(|()| None),
        }
    });
    let Some(mut connection) = connection.await else { return };
    watch.clear();
    let pulse = Pulse { alarm: client.worker.clock.alarm(), pings: connection.ping_pong(), asked: false };
    pulse.alarm.set(PULSE);
    let tally: Rc<Tally> = Rc::default();
    let answer = {
        let (client, tally) = (Rc::clone(&client), Rc::clone(&tally));
        move |request, respond| stream::answer(Rc::clone(&client), Rc::clone(&tally), request, respond)
    };
    let streams = FuturesUnordered::new();
    let mut serving =
        Serving { client, connection, io, answer, streams, watch, pulse, tally, is_ending: false };
    poll_fn(|cx| serving.poll(cx)).await;
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES.min(u32::try_from(settings.head_bytes).unwrap_or(HEAD_BYTES)))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .enable_connect_protocol();
    builder
}

/// What a connection's streams came to; too many that the client gave up is a flood.
#[derive(Debug, Default)]
struct Tally {
    answered: Cell<u64>,
    given_up: Cell<u64>,
}

impl Tally {
    /// Resets that are nobody's fault: tabs that are closed, searches as one types.
    const FREE: u64 = 100;

    fn is_flood(&self) -> bool {
        self.given_up.get() > Self::FREE + 2 * self.answered.get()
    }
}

/// Asks a quiet client whether it is still there.
struct Pulse {
    alarm: Alarm,
    pings: Option<PingPong>,
    asked: bool,
}

impl Pulse {
    /// Ready when the client did not answer in time.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        if self.asked && pings.poll_pong(cx).is_ready() {
            self.asked = false;
            self.alarm.set(PULSE);
        }
        if self.alarm.poll(cx).is_pending() {
            return Poll::Pending;
        }
        if self.asked || pings.send_ping(Ping::opaque()).is_err() {
            return Poll::Ready(());
        }
        self.asked = true;
        self.alarm.set(PULSE_PATIENCE);
        // Twice: the alarm and the answer both have to know whom to wake.
        drop((self.alarm.poll(cx), pings.poll_pong(cx)));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A connection after its handshake; `answer` makes the future that answers one of its streams.
struct Serving<A, F> {
    client: Rc<Client>,
    connection: Connection<Deferred<Frames>, Bytes>,
    io: Deferred<Frames>,
    answer: A,
    streams: FuturesUnordered<F>,
    watch: Alarm,
    pulse: Pulse,
    tally: Rc<Tally>,
    /// True when the client was told that it is over.
    is_ending: bool,
}

impl<A, F> Serving<A, F>
where
    A: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
    F: Future<Output = ()>,
{
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.end_if_stopping();
        loop {
            while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(cx) {}
            let is_over = match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.watch.clear();
                    self.streams.push((self.answer)(request, respond));
                    continue;
                }
                Poll::Ready(Some(Err(_)) | None) => true,
                Poll::Pending => false,
            };
            match self.io.poll_send(cx, || self.watch.clear()) {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) if is_over => return Poll::Ready(()),
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return self.poll_limits(cx, true),
                Poll::Pending => return self.poll_limits(cx, false),
            }
        }
    }

    /// What is waited for while nothing moves, and for how long.
    fn poll_limits(&mut self, cx: &mut Context<'_>, is_sent: bool) -> Poll<()> {
        if self.tally.is_flood() || self.io.watch().is_flood(self.client.worker.clock.ticks()) {
            self.client.worker.refused(Reason::Flood);
            self.connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
            (self.tally, self.is_ending) = (Rc::default(), true);
            self.watch.set(LINGER);
            cx.waker().wake_by_ref();
        }
        let limit = match (is_sent, self.streams.is_empty()) {
            (false, _) => Some(self.client.settings.progress),
            (true, true) if self.is_ending => Some(LINGER),
            (true, true) => {
                self.io.rest();
                Some(self.client.settings.idle)
            }
            (true, false) => None,
        };
        limit.inspect(|limit| self.watch.set_once(*limit));
        if self.watch.poll(cx).is_ready() {
            if self.is_ending || !is_sent {
                return Poll::Ready(());
            }
            self.end(cx);
        }
        self.pulse.poll(cx)
    }

    /// The worker winds down: the client is told which of its requests will still be answered (RFC 9113 §6.8).
    fn end_if_stopping(&mut self) {
        if self.client.worker.is_stopping.get() && !self.is_ending {
            self.is_ending = true;
            self.connection.graceful_shutdown();
        }
    }

    fn end(&mut self, cx: &Context<'_>) {
        self.is_ending = true;
        self.connection.graceful_shutdown();
        self.watch.set(LINGER);
        cx.waker().wake_by_ref();
    }
}
