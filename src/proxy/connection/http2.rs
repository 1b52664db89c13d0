//! One client's HTTP/2 connection: its streams, each of them a request, polled in the connection's one task.
//!
//! h2 keeps the protocol; the windows, the counts and the time limits that keep a hostile client small are set here.

mod flood;
mod pulse;
mod stream;
mod trailers;
mod tunnel;
mod upload;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason as Code, RecvStream};
use http::Request;

pub use flood::{Frames, Tally, Verdict};
pub use stream::Reply;
pub use upload::Upload;

use super::Client;
use crate::metrics::Reason;
use crate::proxy::clock::{Alarm, Clock};
use crate::proxy::debt::Debt;
use crate::proxy::deferred::Deferred;
use crate::proxy::settings::Settings;
use crate::proxy::upstream::Stream;
use pulse::Pulse;

/// Most bytes of a request's head, its fields counted as RFC 9113 §6.5.2 does.
const HEAD_BYTES: u32 = 16 * 1024;
/// Flow-control window: what a stream may send ahead of the endpoint that takes it. The connection's has room for all of its
/// streams, so that requests that are held, or whose endpoints take nothing, do not hold up the others.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The least that a connection's is, however few streams there may be: h2 lets frames of less than 256 bytes that nobody has taken
/// cost half of it beside their bytes, and ends the connection for more.
const LEAST_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Most of an answer that waits in a stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client may reset before they were looked at (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that a client may make us reset by its errors (CVE-2025-8671).
const ERROR_RESETS: usize = 64;
/// Streams that were reset are remembered, so many and so long: what is still on its way for them is no error. With h2's
/// own 50 and a second, uploads that are refused by an early answer add up to a client's errors.
const REMEMBERED: usize = 512;
const MEMORY: Duration = Duration::from_secs(10);
/// How long a client that has come may take to begin, once the worker winds down.
const BEGIN: Duration = Duration::from_secs(1);
/// After how long without a byte for the client a connection gives its buffer back.
const QUIET: Duration = Duration::from_secs(1);
/// How long a client may be quiet before it closes, once it was told to.
const LINGER: Duration = Duration::from_secs(2);

/// Serves `stream` until it ends, idles too long, or the worker winds down.
pub(super) async fn run(client: Rc<Client>, stream: Stream, early: Bytes) {
    let io = Deferred::<Frames>::new(stream, early);
    let watch = client.worker.clock.alarm();
    watch.set(client.settings().head);
    let mut is_hurried = false;
    let mut handshake = pin!(builder(&client.settings()).handshake::<_, Bytes>(io.clone()));
    let connection = poll_fn(|cx| {
        if let Poll::Ready(connection) = handshake.as_mut().poll(cx) {
            return Poll::Ready(connection.ok());
        }
        if client.worker.is_stopping.get() && !is_hurried {
            is_hurried = true;
            watch.shorten(BEGIN);
        }
        match io.poll_send(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(_)) | Poll::Pending => watch.poll(cx).map(|()| None),
        }
    });
    let Some(mut connection) = connection.await else { return };
    let pulse = Pulse::new(client.worker.clock.alarm(), client.settings().ping, connection.ping_pong());
    let tally: Rc<Tally> = Rc::default();
    let answer = {
        let (client, tally) = (Rc::clone(&client), Rc::clone(&tally));
        // Boxed: it is moved several times on its way into the set, and is large.
        move |request, respond| {
            Box::pin(stream::answer(Rc::clone(&client), Rc::clone(&tally), request, respond))
        }
    };
    let mut serving = Serving {
        client,
        connection,
        io,
        answer,
        streams: FuturesUnordered::new(),
        accepted: 0,
        watch,
        wait: Wait::Answer(0),
        pulse,
        tally,
        phase: Phase::Open,
        until: 0,
        leave: None,
        debt: Debt::default(),
        taken: 0,
    };
    poll_fn(|cx| serving.poll(cx)).await;
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(settings.streams)
        .max_header_list_size(HEAD_BYTES.min(u32::try_from(settings.head_bytes).unwrap_or(HEAD_BYTES)))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(
            settings.streams.saturating_mul(STREAM_WINDOW).max(LEAST_CONNECTION_WINDOW),
        )
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_concurrent_reset_streams(REMEMBERED)
        .reset_stream_duration(MEMORY)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .enable_connect_protocol();
    builder
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It takes requests.
    Open,
    /// The client was told to send no more of them (RFC 9113 §6.8); those it has sent are answered.
    Ending,
    /// The client was sent away.
    Refused,
    /// Nothing is served any more: what h2 has said last is sent, and the client may close.
    Over,
}

/// What a connection waits for, each with its own patience. Another one of the same kind is another wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// For somebody else's answer, while so many bytes have gone out.
    Answer(u64),
    /// For the client to take bytes, of which it has taken so many.
    Room(u64),
    /// For the end of a request's head, after so many requests.
    Head(u64),
    /// For the next request, after so many.
    Request(u64),
    /// For the client to close.
    Close,
}

/// A connection after its handshake; `answer` makes the future that answers one of its streams.
struct Serving<A, F> {
    client: Rc<Client>,
    connection: Connection<Deferred<Frames>, Bytes>,
    io: Deferred<Frames>,
    answer: A,
    streams: FuturesUnordered<F>,
    /// Streams so far.
    accepted: u64,
    watch: Alarm,
    wait: Wait,
    pulse: Pulse,
    tally: Rc<Tally>,
    phase: Phase,
    /// The tick at which a connection that is over ends at the latest.
    until: u64,
    /// Rings when it is told to end, once the worker winds down.
    leave: Option<Alarm>,
    /// What the client is behind in taking of all its answers.
    debt: Debt,
    /// How many bytes it had taken when that was last looked at.
    taken: u64,
}

impl<A, F> Serving<A, F>
where
    A: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
    F: Future<Output = ()> + Unpin,
{
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_leave(cx);
        loop {
            if self.phase == Phase::Over {
                return self.poll_close(cx);
            }
            while let Poll::Ready(Some(())) = self.streams.poll_next_unpin(cx) {}
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((_, mut respond)))) if self.client.worker.is_shut.get() => {
                    // It may be sent again: nothing was done for it (RFC 9113 §8.7).
                    respond.send_reset(Code::REFUSED_STREAM);
                    continue;
                }
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.accepted += 1;
                    self.streams.push((self.answer)(request, respond));
                    continue;
                }
                Poll::Ready(Some(Err(error))) => self.finish(Some(&error)),
                Poll::Ready(None) => self.finish(None),
                Poll::Pending => {}
            }
            let is_sent = match self.io.poll_send(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(is_worth_polling)) => {
                    if is_worth_polling || self.phase == Phase::Over {
                        continue;
                    }
                    true
                }
                Poll::Pending => false,
            };
            self.tally.is_behind.set(!is_sent);
            if self.refuse_floods() {
                continue;
            }
            return self.poll_limits(is_sent, cx);
        }
    }

    /// Says goodbye when it is this connection's turn, once the worker winds down.
    fn poll_leave(&mut self, cx: &Context<'_>) {
        let Some(stay) = self.client.worker.farewell().filter(|_| self.phase == Phase::Open) else { return };
        let clock = &self.client.worker.clock;
        let leave = self.leave.get_or_insert_with(|| {
            let leave = clock.alarm();
            leave.set(stay);
            leave
        });
        if leave.poll(cx).is_ready() {
            self.end();
        }
    }

    /// What is waited for while nothing moves, and for how long. Ready when it is over.
    fn poll_limits(&mut self, is_sent: bool, cx: &mut Context<'_>) -> Poll<()> {
        let room = self.patience(is_sent);
        let (settings, now) = (self.client.settings(), self.client.worker.clock.ticks());
        let (wait, limit) = match self.phase {
            Phase::Refused | Phase::Over => (Wait::Close, Some(LINGER)),
            _ if !is_sent => (Wait::Room(self.io.sent()), Some(room)),
            _ if self.io.watch().is_in_head() => (Wait::Head(self.accepted), Some(settings.head)),
            _ if !self.streams.is_empty() => (Wait::Answer(self.io.sent()), Some(QUIET)),
            Phase::Ending => (Wait::Close, Some(LINGER)),
            Phase::Open => {
                self.io.rest();
                (Wait::Request(self.accepted), Some(settings.idle))
            }
        };
        if self.wait != wait {
            self.wait = wait;
            limit.map_or_else(|| self.watch.clear(), |limit| self.watch.set(limit));
        }
        if self.watch.poll(cx).is_ready() {
            match wait {
                Wait::Request(_) => self.end(),
                Wait::Head(_) => self.refuse(Reason::RequestTimeout, Code::ENHANCE_YOUR_CALM),
                Wait::Answer(_) => {
                    self.io.rest();
                    self.watch.clear();
                    return self.pulse.poll(settings.ping, &self.io, now, cx);
                }
                Wait::Room(_) | Wait::Close => return Poll::Ready(()),
            }
            cx.waker().wake_by_ref();
        }
        self.pulse.poll(settings.ping, &self.io, now, cx)
    }

    /// How long the client may still take for what waits for it.
    fn patience(&mut self, is_sent: bool) -> Duration {
        let (sent, now) = (self.io.sent(), self.client.worker.clock.ticks());
        if is_sent || sent != self.taken {
            let taken = usize::try_from(sent - self.taken).unwrap_or(usize::MAX);
            self.debt.took(&self.client.settings(), taken, now);
            self.taken = sent;
        }
        if is_sent { Duration::MAX } else { self.debt.wait(&self.client.settings(), now) }
    }

    /// Tells the client which of its requests will still be answered.
    fn end(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Ending;
            self.connection.graceful_shutdown();
        }
    }

    /// Sends a client away that sends what no honest one does; true when h2 has something to say of that.
    fn refuse_floods(&mut self) -> bool {
        if matches!(self.phase, Phase::Refused | Phase::Over) {
            return false;
        }
        let verdict = self.io.watch().verdict(self.client.worker.clock.ticks(), &self.tally);
        let is_trusted = self.client.arrival.peer.is_trusted();
        match verdict {
            None => return false,
            Some(Verdict::GivesUp) if is_trusted && self.phase == Phase::Ending => return false,
            // Who speaks for many passes on what they give up: its other requests are not to be lost by it. A fresh connection has a
            // fresh account.
            Some(Verdict::GivesUp) if is_trusted => self.end(),
            Some(Verdict::GivesUp) => self.refuse(Reason::Flood, Code::ENHANCE_YOUR_CALM),
            Some(Verdict::Refused(code)) => self.refuse(reason(code), code),
        }
        true
    }

    fn refuse(&mut self, reason: Reason, code: Code) {
        self.client.worker.refused(None, reason);
        self.phase = Phase::Refused;
        self.connection.abrupt_shutdown(code);
    }

    /// h2 has nothing more to do: because the client has closed, was told to, or for this error.
    fn finish(&mut self, error: Option<&h2::Error>) {
        if let Some(error) = error.filter(|error| error.is_library() && error.is_go_away()) {
            self.client.worker.refused(None, reason(error.reason().unwrap_or(Code::PROTOCOL_ERROR)));
            self.phase = Phase::Refused;
        }
        let most = if self.phase == Phase::Refused { LINGER } else { self.client.settings().progress };
        self.until = self.client.worker.clock.ticks() + Clock::ticks_in(most);
        self.phase = Phase::Over;
        self.streams.clear();
        self.watch.set(LINGER);
    }

    /// Hears the client until it has closed. To close before would reset the connection at its next frame, and the reset
    /// would overtake what it has not read yet: the frame that says why, or the end of its download.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_closed = match self.io.poll_end(cx) {
            Poll::Ready(Ok(())) => self.io.poll_forget(cx).is_ready(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if is_closed {
            return Poll::Ready(());
        }
        let may_go_on = self.client.worker.clock.ticks() < self.until;
        if self.io.was_heard() && may_go_on {
            self.watch.set(LINGER);
        }
        self.watch.poll(cx)
    }
}

/// What a connection that ends with `code` is counted under.
fn reason(code: Code) -> Reason {
    if code == Code::ENHANCE_YOUR_CALM { Reason::Flood } else { Reason::BadRequest }
}
