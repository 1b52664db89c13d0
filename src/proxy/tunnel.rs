//! A tunnel: what a connection is after a change of protocol. Bytes go both ways as they come, and nothing is read that
//! the other side has not room for.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::body::Incoming;
use super::clock::{Clock, TICK};
use super::connection::Turn;
use super::http1::{Change, pass_over};
use super::permit::Permit;
use super::upstream::Far;
use super::upstream::flights::Ask;
use super::upstream::leaving::ANSWER;
use super::websocket::{self, Frames};
use crate::metrics::{Kind, Reason};
use crate::table::Timeouts;

/// How long an endpoint of a WebSocket may be silent at most when its client has said all it had to say, and the client of any
/// other tunnel when its endpoint has: whoever is gone for good looks the same as one that only has ended.
const FAREWELL: Duration = Duration::from_secs(30);
/// How long a client may take to answer its Close at the deadline of the drain, in place of [`ANSWER`]; also how long the endpoint
/// may take for its own, and to end once both have closed.
const LAST: Duration = Duration::from_secs(1);

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
    change: Change,
    up: Half,
    down: Half,
    /// What the endpoint has said behind a message after which the client is to be told to go: kept back until it is.
    rest: Bytes,
    stage: Stage,
    /// The tick at which it is over, once it comes to its end.
    until: u64,
}

/// How far the end is that a tunnel comes to because its version is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It goes on.
    Open,
    /// One side has closed by itself: nothing is added to that, and the other has some time to close too.
    Theirs,
    /// The client is sent a Close: there is no way back. What the endpoint still says is left out; what the client says until it
    /// answers goes to the endpoint.
    Said,
    /// Both have closed, or one did not in time.
    Over,
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    data: Bytes,
    frames: Frames,
    /// True while TLS may hold what was written and has not gone out.
    is_held: bool,
    /// True when its source has ended.
    is_read: bool,
    /// True when its sink was told so.
    is_over: bool,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an end that the client can be told.
    Said,
    /// Its endpoint broke off, in a protocol that may have no other word for that.
    Torn,
}

impl Half {
    /// True when its source has sent a Close, and all of that has gone on.
    fn has_closed(&self) -> bool {
        self.frames.is_closed() && self.data.is_empty() && !self.is_held
    }
}

impl Tunnel {
    /// A tunnel over a stream, off which `early` was already read.
    pub(super) fn new(
        turn: Turn,
        permit: Permit,
        (stream, early, incoming): (Far, Bytes, Incoming),
        change: Change,
        timeouts: Timeouts,
    ) -> Self {
        let mut down = Half { data: early, ..Half::default() };
        match change {
            Change::Websocket => {
                permit.becomes(Kind::Websocket);
                permit.has_words();
                down.frames.follow(&down.data);
            }
            Change::Other => permit.becomes(Kind::Tunnel),
        }
        let (up, rest, stage, until) = (Half::default(), Bytes::new(), Stage::Open, 0);
        Self { incoming, turn, permit, stream, timeouts, change, up, down, rest, stage, until }
    }

    /// Joins both sides until the endpoint has ended, or, where that means something, both have; or nothing has moved for too long.
    /// Ends the permit.
    pub async fn join(mut self, client: &mut impl End) -> Ending {
        let ended = poll_fn(|cx| self.poll(client, cx)).await;
        let mut ending = Ending::Said;
        if self.change == Change::Other {
            ending = self.close(ended).await;
        }
        match ended {
            Ok(()) if self.is_told() => self.permit.said_goodbye(),
            Ok(()) => self.permit.complete(),
            Err(reason) => self.permit.failed(reason),
        }
        self.turn.alarm.clear();
        ending
    }

    /// Closes the endpoint's side of what is no WebSocket: as the client has left its own.
    async fn close(&mut self, ended: Result<(), Reason>) -> Ending {
        match ended {
            Err(Reason::ClientGone | Reason::ClientStalled) => self.stream.reset_on_close(),
            Err(Reason::BodyTruncated | Reason::UpstreamClosed | Reason::BodyStalled) => return Ending::Torn,
            // As far as it goes at once: under TLS closing alone says nothing.
            Ok(()) | Err(_) => {
                let say = |cx: &mut Context<'_>| Poll::Ready(Pin::new(&mut self.stream).poll_shutdown(cx));
                drop(poll_fn(say).await);
            }
        }
        Ending::Said
    }

    fn poll(&mut self, client: &mut impl End, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        let mut moved = false;
        let up = self.poll_up(client, &mut moved, cx);
        let down = self.poll_down(client, &mut moved, cx);
        match (up, down) {
            // Who was told to go may go without a word.
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) if self.is_told() => {
                return Poll::Ready(Ok(()));
            }
            // The endpoint has ended before: it need not take what the client still says.
            (Poll::Ready(Err(_)), Poll::Ready(Ok(()))) if self.change == Change::Other => {
                return Poll::Ready(Ok(()));
            }
            (Poll::Ready(Err(reason)), _) | (_, Poll::Ready(Err(reason))) => return Poll::Ready(Err(reason)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            // The endpoint has closed: nothing that a WebSocket's client still says can reach it.
            (Poll::Pending, Poll::Ready(Ok(()))) if self.change == Change::Websocket => {
                return Poll::Ready(Ok(()));
            }
            (Poll::Pending | Poll::Ready(Ok(())), Poll::Pending) | (Poll::Pending, Poll::Ready(Ok(()))) => {}
        }
        if self.stage != Stage::Open || self.permit.ask() == Ask::Cut {
            return self.poll_farewell(client, cx);
        }
        let is_idle = self.up.data.is_empty() && self.down.data.is_empty();
        let limit = if is_idle { self.timeouts.tunnel } else { self.timeouts.progress };
        // One who has ended may wait for long: for what a command prints whose input is over, say.
        let is_last = match self.change {
            Change::Websocket => self.up.is_over,
            Change::Other => self.down.is_over,
        };
        let limit = if is_last { limit.min(FAREWELL) } else { limit };
        let alarm = &self.turn.alarm;
        if moved {
            alarm.set(limit);
        } else {
            alarm.set_once(limit);
        }
        ready!(alarm.poll(cx));
        // Who does not follow has nothing more to say; where nobody says anything nobody has failed.
        Poll::Ready(if is_last {
            Ok(())
        } else if !self.down.data.is_empty() {
            Err(Reason::ClientStalled)
        } else if !self.up.data.is_empty() {
            Err(Reason::BodyStalled)
        } else {
            Ok(())
        })
    }

    /// True when the client was sent a Close.
    fn is_told(&self) -> bool {
        matches!(self.stage, Stage::Said | Stage::Over)
    }

    /// Waits for the Close of who was told to go, then for that of its endpoint, and for neither longer than it may take; or for
    /// those of both, where one has closed by itself.
    fn poll_farewell(&mut self, client: &mut impl End, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        if self.stage == Stage::Open {
            // It was cut, and in the middle of a frame, or of what knows no frames: there is no word for it.
            return Poll::Ready(Err(Reason::DrainDeadline));
        }
        loop {
            let clock = &self.turn.client.worker.clock;
            let has_answered = self.up.is_over || self.up.has_closed();
            if self.stage == Stage::Said && has_answered {
                self.stage = Stage::Over;
                self.until = clock.ticks() + Clock::ticks_in(LAST);
                // The client has heard and said all there is: it need not wait for the endpoint.
                drop(client.poll_shutdown(cx));
            }
            let have_closed = self.stage == Stage::Theirs && self.up.has_closed() && self.down.has_closed();
            if have_closed || self.permit.ask() == Ask::Cut {
                self.until = self.until.min(clock.ticks() + Clock::ticks_in(LAST));
            }
            if clock.ticks() < self.until {
                self.turn.alarm.set(TICK * u32::try_from(self.until - clock.ticks()).unwrap_or(u32::MAX));
                ready!(self.turn.alarm.poll(cx));
            }
            if self.stage != Stage::Said || !self.answer_for_client(cx) {
                drop(client.poll_shutdown(cx));
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Tells the endpoint in the place of a client that does not answer, if it takes it at once; true when it did.
    fn answer_for_client(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.up.frames.is_between_messages() || !self.up.data.is_empty() {
            return false;
        }
        let mask = self.turn.client.worker.dice().to_be_bytes();
        let close = websocket::close_for_endpoint([mask[0], mask[1], mask[2], mask[3]]);
        let written = Pin::new(&mut self.stream).poll_write(cx, &close);
        drop(Pin::new(&mut self.stream).poll_shutdown(cx));
        // Nothing that the client still says may follow.
        self.up.is_over = true;
        matches!(written, Poll::Ready(Ok(length)) if length == close.len())
    }

    /// What comes next for a client that has taken all before: a Close, where that is asked and tears nothing, else what was kept
    /// back.
    fn next_words(&mut self) -> Bytes {
        if self.change == Change::Other {
            return Bytes::new();
        }
        let (frames, rest) = (&self.down.frames, std::mem::take(&mut self.rest));
        let next = match (self.stage, self.permit.ask()) {
            (Stage::Theirs | Stage::Said | Stage::Over, _) | (Stage::Open, Ask::Stay) => return rest,
            (Stage::Open, _) if frames.is_closed() || self.up.frames.is_closed() => Stage::Theirs,
            (Stage::Open, _) if !rest.is_empty() => Stage::Said,
            (Stage::Open, Ask::Go) if frames.is_between_messages() => Stage::Said,
            // A control frame may stand between fragments (RFC 6455 §5.4).
            (Stage::Open, Ask::Cut) if frames.is_between_frames() => Stage::Said,
            (Stage::Open, Ask::Go | Ask::Cut) => return rest,
        };
        self.stage = next;
        self.until = self.turn.client.worker.clock.ticks() + Clock::ticks_in(ANSWER);
        if next == Stage::Theirs { rest } else { websocket::close_for_client().into() }
    }

    /// From the client to the endpoint.
    fn poll_up(
        &mut self,
        client: &mut impl End,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Reason>> {
        let sent = ready!(self.poll_send(client, moved, cx));
        if sent == Err(Reason::UpstreamClosed) && self.change == Change::Other {
            // It takes nothing any more; its last words may be on their way all the same.
            (self.up.data, self.up.is_over) = (Bytes::new(), true);
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(sent)
    }

    /// The same, as far as the endpoint takes it.
    fn poll_send(
        &mut self,
        client: &mut impl End,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Reason>> {
        let Self { up, stream, permit, change, .. } = self;
        while !up.is_over {
            while !up.data.is_empty() {
                let written = ready!(Pin::new(&mut *stream).poll_write(cx, &up.data));
                let written = written.map_err(|_| Reason::UpstreamClosed)?;
                pass_over(&mut up.data, written);
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
            if *change == Change::Websocket {
                up.frames.follow(&up.data);
            }
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
        loop {
            let Self { down, permit, .. } = self;
            if down.is_over {
                return Poll::Ready(Ok(()));
            }
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
                continue;
            }
            let words = self.next_words();
            let Self { down, stream, turn, .. } = self;
            if !words.is_empty() {
                down.data = words;
                continue;
            }
            let mut scratch = turn.client.worker.read_buffer(usize::MAX);
            let read = ready!(poll_read_buf(Pin::new(&mut *stream), cx, &mut *scratch));
            read.map_err(|_| Reason::BodyTruncated)?;
            down.data = scratch.split().freeze();
            down.is_read = down.data.is_empty();
            *moved = true;
            if self.change == Change::Other {
                continue;
            }
            if matches!(self.stage, Stage::Said | Stage::Over) {
                // It was told goodbye.
                down.data = Bytes::new();
            } else if let Some(end) = down.frames.follow(&down.data).message
                && self.permit.ask() != Ask::Stay
            {
                self.rest = down.data.split_off(end);
            }
        }
    }
}
