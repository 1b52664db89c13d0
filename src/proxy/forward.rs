//! One exchange with an endpoint: the request's body out, the answer's head and body in, both at once.
//!
//! Polled in place by the client's connection: no task, no channel. A slow reader on either side stops the other side's
//! reading, so that nothing is buffered beyond a few reads.

pub mod http2;

mod crossed;
mod end;
mod failure;
mod goodbye;
mod interims;
mod limits;
mod splice;

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::fields::Note;
use super::head::{Answer, Parts};
use bytes::{BufMut, Bytes};
use http::{StatusCode, Version};
use http_body::Frame;
use tokio_util::io::poll_read_buf;

use super::body::{Flow, Part, Source};
use super::bounds::Bounds;
use super::connection::Turn;
use super::farewell::Farewell;
use super::http1::{self, Change, Decoded, Decoder, Head};
use super::journal::Record;
use super::media;
use super::outgoing::{Outgoing, Upload, Waiting};
use super::permit::Permit;
use super::pipe::Pipes;
use super::tunnel::Tunnel;
use super::upstream::flights::Ask;
use super::upstream::{Endpoint, Far, Past, Stream};
use crate::metrics::{Kind, Reason};
use crate::table::Timeouts;
use interims::Interims;

pub use failure::Failure;
pub use goodbye::poll_cut_before;
pub use http2::Call;

/// How long an endpoint may keep a client waiting that expects `100 Continue` (RFC 9110 §10.1.1: not for ever).
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// What was taken off the input while a head is waited for.
enum Taken {
    Final(Head),
    Continue,
    Nothing,
}

/// A request on its way to an endpoint and its answer on the way back.
#[derive(Debug)]
pub struct Exchange {
    turn: Turn,
    permit: Option<Permit>,
    /// The request's line in the access log; written when the exchange is dropped.
    record: Option<Rc<Record>>,
    endpoint: Rc<Endpoint>,
    /// `None` once the connection was given back or is of no use.
    stream: Option<Stream>,
    past: Option<Past>,
    /// True when the endpoint has reset it.
    was_reset: bool,
    timeouts: Timeouts,
    bounds: Bounds,
    outgoing: Outgoing,
    /// What the rest of the request waits for.
    waiting: Waiting,
    input: Bytes,
    /// The endpoint's yes to a change of protocol, which begins behind the request's body (RFC 9110 §7.8).
    accepted: Option<Box<Head>>,
    interims: Interims,
    decoder: Decoder,
    keep_alive: bool,
    is_grpc: bool,
    /// Where the answer's body can be ended, if its version is left.
    farewell: Farewell,
    /// How long the answer's body may pause.
    patience: Duration,
}

impl Exchange {
    /// An exchange over this connection; without a permit it has to [adopt](Self::adopt) one before its answer.
    pub fn new(
        turn: &Turn,
        permit: Option<Permit>,
        endpoint: &Rc<Endpoint>,
        (stream, past): (Stream, Past),
        outgoing: Outgoing,
        timeouts: Timeouts,
        bounds: Bounds,
    ) -> Self {
        turn.alarm.clear();
        Self {
            record: permit.as_ref().and_then(Permit::record).map(Rc::clone),
            turn: turn.clone(),
            permit,
            endpoint: Rc::clone(endpoint),
            stream: Some(stream),
            was_reset: false,
            past: Some(past),
            timeouts,
            bounds,
            outgoing,
            waiting: Waiting::Endpoint,
            input: Bytes::new(),
            accepted: None,
            interims: Interims::default(),
            decoder: Decoder::Length(0),
            keep_alive: false,
            is_grpc: false,
            farewell: Farewell::default(),
            patience: timeouts.progress,
        }
    }

    /// Sends the request `asked` and waits for the answer's head, relaying interim answers.
    ///
    /// # Errors
    /// [`Failure`]; the exchange is then over, and [`Exchange::into_parts`] is what is left of it.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, asked: &Parts) -> Poll<Result<Head, Failure>> {
        loop {
            let before = self.waiting;
            if let Some(reason) = self.is_cut() {
                return Poll::Ready(Err(Failure::Because(reason)));
            }
            let moved = self.send(cx).map_err(Failure::Because)? || before != self.waiting;
            self.can_be_answered()?;
            match self.take_head(asked)? {
                Taken::Final(head) if !self.bounds.fits(head.body.remaining()) => {
                    return Poll::Ready(Err(Failure::Because(Reason::ResponseTooLarge)));
                }
                Taken::Final(head) => return Poll::Ready(Ok(head)),
                Taken::Continue => continue,
                Taken::Nothing => {}
            }
            // What is behind a yes is no head.
            let is_accepted = self.accepted.is_some();
            match if is_accepted { Poll::Pending } else { self.receive(self.first_read(), cx) } {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(end) => return Poll::Ready(Err(self.cut_off(&end))),
                Poll::Pending if self.is_past_answering() => return Poll::Ready(Err(Failure::unsent(false))),
                Poll::Pending => ready!(self.poll_late(cx, before, moved))?,
            }
        }
    }

    /// A head off the input; interim ones are relayed to a client that can read them (RFC 9110 §15.2).
    fn take_head(&mut self, asked: &Parts) -> Result<Taken, Failure> {
        let mut taken = Taken::Nothing;
        if let Some(head) = self.accepted.take() {
            return self.accept(head);
        }
        while !self.input.is_empty() {
            let malformed = |why: http1::Malformed| Failure::Because(why.reason());
            let Some(head) = http1::parse_head(&mut self.input, &asked.method).map_err(malformed)? else {
                break;
            };
            if !head.status.is_informational() || self.outgoing.is_accepted_by(&head, asked) {
                self.outgoing.check(&head).map_err(Failure::Because)?;
                self.bind(&head);
                if head.change.is_some() && !self.outgoing.is_over() {
                    return self.accept(Box::new(head));
                }
                return Ok(Taken::Final(head));
            }
            let now = self.now();
            if head.status == StatusCode::SWITCHING_PROTOCOLS || !self.interims.take(&head.headers, now) {
                return Err(Failure::Because(Reason::UpstreamProtocol));
            }
            if head.status == StatusCode::CONTINUE {
                // At once: the final head may be behind it.
                self.outgoing.let_go();
                self.turn.go_on();
                taken = Taken::Continue;
            } else if asked.version >= Version::HTTP_11 {
                self.turn.relay_interim(head.status, &head.headers);
            }
        }
        Ok(taken)
    }

    /// The endpoint has said yes to a change of protocol with `head`, and gets the rest of the request before anything else: what is
    /// left of its body would be taken for the other protocol.
    fn accept(&mut self, head: Box<Head>) -> Result<Taken, Failure> {
        if !self.outgoing.is_over() {
            self.accepted = Some(head);
            return Ok(Taken::Nothing);
        }
        if self.outgoing.is_whole() {
            Ok(Taken::Final(*head))
        } else {
            Err(Failure::Because(Reason::UpstreamClosed))
        }
    }

    /// The answer with this head to the request of which `upload` was the body.
    #[must_use]
    pub fn answer(self: Box<Self>, head: Head, upload: &mut Upload) -> Answer {
        self.record.as_ref().inspect(|record| record.first_byte());
        let source = match head.status {
            StatusCode::SWITCHING_PROTOCOLS => self.tunnel(head.change, upload),
            _ => self.body(&head),
        };
        Answer { status: head.status, headers: head.headers, source }
    }

    /// The endpoint has changed the protocol: what follows is not ours to read.
    fn tunnel(mut self: Box<Self>, change: Option<Change>, upload: &mut Upload) -> Source {
        self.turn.alarm.clear();
        let (Some(permit), Some(stream), Some(past), Some(change)) =
            (self.permit.take(), self.stream.take(), self.past.take(), change)
        else {
            return Source::Full(Bytes::new());
        };
        permit.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16());
        let (turn, early) = (self.turn.clone(), std::mem::take(&mut self.input));
        let ends = (Far::Own(stream, past), early, upload.take_tunnel());
        let tunnel = Tunnel::new(turn, permit, ends, change, self.timeouts);
        Source::Tunnel(Box::new(tunnel))
    }

    /// The answer's body: whole when it is already here, else a stream.
    fn body(mut self: Box<Self>, head: &Head) -> Source {
        self.turn.alarm.clear();
        (self.decoder, self.keep_alive) = (head.body, head.keep_alive);
        if let Some(permit) = &self.permit {
            permit.answered(head.status.as_u16());
        }
        if self.stream.as_ref().is_some_and(Stream::is_plain) {
            self.endpoint.bulk.saw(self.decoder.remaining());
        }
        let length = self.decoder.remaining().and_then(|length| usize::try_from(length).ok());
        if let Some(length) = length.filter(|length| *length <= self.input.len()) {
            let body = self.input.split_to(length);
            self.finish();
            return Source::Full(body);
        }
        self.classify(head);
        Source::Stream(Flow::Http1(self))
    }

    /// What sort of work the answer is, and how long it may pause.
    fn classify(&mut self, head: &Head) {
        if self.decoder.remaining().is_some() {
            return;
        }
        let content = head.headers.first(Note::ContentType);
        let kind = match content.unwrap_or_default() {
            content if media::is_events(content) => Kind::Sse,
            content if media::is_call(content) => Kind::Grpc,
            _ => Kind::Stream,
        };
        self.is_grpc = kind == Kind::Grpc;
        self.patience = self.timeouts.stream;
        if kind == Kind::Sse {
            self.farewell = Farewell::of_events(&head.headers);
        }
        if let Some(permit) = &self.permit {
            permit.becomes(kind);
            if self.farewell.is_possible() {
                permit.has_words();
            }
        }
    }

    /// The next part of the answer's body, in a pipe where that is worth one; meanwhile the request's body goes on.
    pub fn poll_part(
        &mut self,
        pipes: Option<&Rc<Pipes>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, Reason>>> {
        if self.permit.is_none() {
            return Poll::Ready(None);
        }
        loop {
            if let Some(reason) = self.is_cut() {
                return self.break_off(reason);
            }
            let is_asked = self.ask() == Ask::Go;
            if self.farewell.is_here(is_asked) {
                return self.say_goodbye().map_ok(Part::Frame);
            }
            let mut moved = false;
            if !self.outgoing.is_over() {
                match self.send(cx) {
                    Ok(sent) => moved = sent,
                    Err(reason) => return self.break_off(reason),
                }
            }
            match self.decoder.decode(&mut self.input) {
                Ok(Decoded::Data(data)) => {
                    self.turn.alarm.clear();
                    if !self.bounds.take(data.len()) {
                        return self.break_off(Reason::ResponseTooLarge);
                    }
                    let data = self.farewell.pass(data, is_asked);
                    self.record.as_ref().inspect(|record| record.sent(data.len()));
                    if self.decoder.is_end() {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(Part::Frame(Frame::data(data)))));
                }
                Ok(Decoded::Trailers(trailers)) => {
                    let status = trailers.get("grpc-status").filter(|_| self.is_grpc);
                    if let Some((permit, status)) = self.permit.as_ref().zip(status) {
                        permit.grpc_status(Some(status));
                    }
                    self.finish();
                    return Poll::Ready(Some(Ok(Part::Frame(Frame::trailers(trailers)))));
                }
                Ok(Decoded::End) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {}
                Err(why) => return self.break_off(why.reason()),
            }
            let mut pipe = self.pipe(pipes);
            match self.receive_into(&mut pipe, cx) {
                Poll::Ready(Ok(1..)) => {
                    if let Some(pipe) = pipe {
                        return self.hand_on(pipe);
                    }
                }
                Poll::Ready(Ok(0)) if self.decoder == Decoder::UntilClose => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Poll::Ready(_) => return self.break_off(Reason::BodyTruncated),
                Poll::Pending if self.is_late(cx, self.patience, moved) => {
                    if self.bounds.is_over(self.now()) {
                        continue;
                    }
                    return self.break_off(Reason::BodyStalled);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Sends more of the request while nobody asks for the answer; that its body broke off is told to who asks next.
    pub fn push(&mut self, cx: &mut Context<'_>) {
        if !self.outgoing.is_over() && !self.is_over() {
            let _ = self.send(cx);
        }
    }

    /// Reads once, at most `most`; `Ok(0)` is the end. Into the worker's scratch buffer, whose read part is split off without a copy.
    fn receive(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        let mut scratch = self.turn.client.worker.read_buffer(most);
        let read = ready!(poll_read_buf(Pin::new(stream), cx, &mut (&mut *scratch).limit(most)));
        let fresh = scratch.split().freeze();
        self.input = if self.input.is_empty() {
            fresh
        } else {
            // A head or a chunk's line that came in two reads: rare, and short.
            [std::mem::take(&mut self.input), fresh].concat().into()
        };
        Poll::Ready(read)
    }

    /// Sends as much of the request as goes; true when something moved. Pending is not an error.
    ///
    /// # Errors
    /// When the client's body breaks off.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, Reason> {
        if self.waiting == Waiting::Sent {
            return Ok(false);
        }
        let sent = self.outgoing.send(&mut self.stream, cx);
        // Also of a body that is refused for what has come.
        self.record.as_ref().inspect(|record| record.received(self.outgoing.taken()));
        let (moved, waiting) = sent?;
        self.waiting = waiting;
        if waiting == Waiting::Sent && !self.outgoing.is_turned_away() {
            self.turn.client.worker.give_back(self.outgoing.take_buffer());
            if let Some(permit) = &self.permit {
                permit.becomes_if(Kind::Upload, Kind::Request);
            }
        }
        Ok(moved)
    }
}
