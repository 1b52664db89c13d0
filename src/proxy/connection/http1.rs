//! One client's HTTP/1.1 connection: head after head, each answered before the next is taken.
//!
//! Everything is polled in the connection's one task: the request's body is read when the exchange asks for it, the
//! answer's body when the client has taken what came before. Between two requests no buffer is held.

mod close;
mod splice;
mod taking;
mod tunnel;
mod upload;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::answer::{self, Asked, Framing};
use super::out::Out;
use super::{Client, Ear, Leave, Turn, poll_read};
use crate::metrics::Reason;
use crate::proxy::body::{Flow, Incoming, Part, Source};
use crate::proxy::clock::Alarm;
use crate::proxy::debt::Debt;
use crate::proxy::error;
use crate::proxy::head::Answer;
use crate::proxy::http1::{self, Decoder, Refused};
use crate::proxy::pipe::Bulk;
use crate::proxy::upstream::Stream;
use crate::proxy::worker::HEAD;

/// How much a client is told by interim answers that it has not taken all of: what an endpoint may say at once, and some more.
const MOST_TOLD: usize = 256 * 1024;

/// The connection, as the requests on it share it: what was read and not taken, what was answered and not written.
#[derive(Debug)]
pub struct Wire {
    client: Rc<Client>,
    stream: RefCell<Stream>,
    /// The time limits of the client's own doing.
    watch: Alarm,
    input: RefCell<Bytes>,
    /// True when `input` may hold a whole head: a line has ended since it was last looked at.
    is_worth_parsing: Cell<bool>,
    /// What is left of the body of the request at hand.
    body: Cell<Decoder>,
    /// Whether its requests are large.
    bulk: Bulk,
    stage: Cell<Stage>,
    out: RefCell<Out>,
    /// True from the first byte behind the last request, also if it is of an empty line.
    is_begun: Cell<bool>,
    /// True while the watch is there for a client that takes nothing.
    is_stalled: Cell<bool>,
    leave: Leave,
    /// What the client is behind in taking.
    debt: Cell<Debt>,
    /// The tick at which the request at hand is over.
    due: Cell<u64>,
}

/// How far the request at hand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its client waits for `100 Continue` before it sends the body.
    Expecting,
    /// There is no answer yet.
    Waiting,
    /// The answer's head is on its way.
    Answering,
}

/// How a connection was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It can take another request.
    Open,
    /// Everything that was asked has been read and answered.
    Done,
    /// The client may still be sending what nobody reads.
    Unread,
    /// The same, and it may still be reading what came out of its tunnel.
    Tunnel,
    /// The client is gone, or sees by the framing that its answer broke off.
    Broken,
    /// The client could take what it got for the whole answer, and must not.
    Reset,
}

/// What comes next on a connection.
#[derive(Debug)]
enum Next {
    Request(http1::Request),
    /// Something that cannot become a request.
    Refused(Reason),
    /// Nothing came for as long as that was waited for.
    Nothing,
    /// There will be no more.
    End,
}

/// What is left of an answer's body.
#[derive(Debug)]
enum Rest {
    Stream(Flow),
    Over,
    BrokenOff,
}

/// How long a connection is kept ready for its next request before what serving takes is given up.
const DOZE: Duration = Duration::from_millis(200);

/// Serves `stream` until it ends, idles too long, or the worker winds down. `watch` is set where a head is begun already.
pub(super) async fn run(client: Rc<Client>, stream: Stream, early: Bytes, watch: Alarm) {
    let is_begun = !early.is_empty();
    let wire = Rc::new(Wire {
        watch,
        debt: Cell::default(),
        due: Cell::new(u64::MAX),
        client,
        stream: RefCell::new(stream),
        input: RefCell::new(early),
        is_worth_parsing: Cell::new(true),
        body: Cell::new(Decoder::Length(0)),
        bulk: Bulk::default(),
        stage: Cell::new(Stage::Waiting),
        out: RefCell::default(),
        is_begun: Cell::new(is_begun),
        is_stalled: Cell::new(false),
        leave: Leave::default(),
    });
    let mut patience = wire.client.settings().head;
    let left = loop {
        match poll_fn(|cx| wire.poll_head(cx, patience)).await {
            // Boxed: a connection that idles shall not have the size of one that is served.
            Next::Request(request) => match Box::pin(wire.serve_while_busy(request)).await {
                Left::Open => patience = wire.client.settings().idle.saturating_sub(DOZE),
                left => break left,
            },
            Next::Nothing | Next::End => break Left::Done,
            Next::Refused(reason) => break wire.refuse(reason),
        }
    };
    wire.close(left).await;
}

impl Wire {
    /// Answers a request, and those that follow without a pause.
    async fn serve_while_busy(self: &Rc<Self>, mut request: http1::Request) -> Left {
        let alarm = Rc::new(self.client.worker.clock.alarm());
        let turn = Turn { client: Rc::clone(&self.client), alarm, ear: Ear::Http1(Rc::clone(self)) };
        loop {
            match self.serve(&turn, request).await {
                Left::Open => self.is_worth_parsing.set(true),
                left => return left,
            }
            let moment = DOZE.min(self.client.settings().idle);
            request = match poll_fn(|cx| self.poll_head(cx, moment)).await {
                Next::Request(next) => next,
                Next::Nothing => return Left::Open,
                Next::End => return Left::Done,
                Next::Refused(reason) => return self.refuse(reason),
            };
        }
    }

    /// The next request's head, if its first byte comes within `patience`.
    fn poll_head(&self, cx: &mut Context<'_>, patience: Duration) -> Poll<Next> {
        let settings = self.client.settings();
        loop {
            if self.client.worker.is_shut.get() {
                return Poll::Ready(if self.input.borrow().is_empty() {
                    Next::End
                } else {
                    Next::Refused(Reason::Overload)
                });
            }
            match self.take_head() {
                Ok(None) => {}
                Ok(Some(request)) => {
                    self.watch.clear();
                    self.is_begun.set(false);
                    return Poll::Ready(Next::Request(request));
                }
                Err(reason) => return Poll::Ready(Next::Refused(reason)),
            }
            let is_empty = self.input.borrow().is_empty();
            self.is_begun.set(self.is_begun.get() || !is_empty);
            self.watch.set_once(if self.is_begun.get() { settings.head } else { patience });
            match self.poll_fill(self.bulk.first_read().min(HEAD), cx) {
                Poll::Ready(Ok(1..)) if self.is_begun.replace(true) => {}
                Poll::Ready(Ok(1..)) => self.watch.set(settings.head),
                Poll::Ready(_) => return Poll::Ready(Next::End),
                Poll::Pending => {
                    // The watch is set to the head's time again when one begins.
                    if !self.is_begun.get() {
                        self.leave.take(&self.client.worker, &self.watch);
                    }
                    ready!(self.watch.poll(cx));
                    self.watch.clear();
                    return Poll::Ready(match (is_empty, self.is_begun.get()) {
                        (true, false) => Next::Nothing,
                        (true, true) => Next::End,
                        (false, _) => Next::Refused(Reason::RequestTimeout),
                    });
                }
            }
        }
    }

    fn take_head(&self) -> Result<Option<http1::Request>, Reason> {
        let mut input = self.input.borrow_mut();
        if input.is_empty() {
            return Ok(None);
        }
        self.client.renew();
        let settings = self.client.settings();
        // Not looked at for every byte of a client that sends them one by one.
        if !self.is_worth_parsing.take() && input.len() < settings.head_bytes {
            return Ok(None);
        }
        let request = http1::parse_request(&mut input, settings.head_bytes, settings.headers);
        request.map_err(|refused| match refused {
            Refused::Malformed => Reason::BadRequest,
            Refused::TooLarge => Reason::HeadTooLarge,
            Refused::TargetTooLong => Reason::TargetTooLong,
            Refused::Version => Reason::HttpVersion,
        })
    }

    /// Reads once, at most `most`; `Ok(0)` is the end.
    fn poll_fill(&self, most: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = poll_read(&self.client, &mut self.stream.borrow_mut(), most, cx);
        let mut input = self.input.borrow_mut();
        let Poll::Ready(fresh) = read else {
            // The beginning of a head or of a chunk's line waits for its end: not with the buffer that it was read into.
            if !input.is_empty() && !input.is_unique() {
                *input = Bytes::copy_from_slice(&input);
            }
            return Poll::Pending;
        };
        let fresh = fresh?;
        let length = fresh.len();
        if input.is_empty() || memchr::memchr(b'\n', &fresh).is_some() {
            self.is_worth_parsing.set(true);
        }
        *input = if input.is_empty() {
            fresh
        } else {
            // A head or a chunk's line that came in two reads: rare, and short.
            [std::mem::take(&mut *input), fresh].concat().into()
        };
        Poll::Ready(Ok(length))
    }

    /// Answers one request.
    async fn serve(self: &Rc<Self>, turn: &Turn, request: http1::Request) -> Left {
        let http1::Request { head, body, keep_alive } = request;
        let asked = Asked::of(&head, keep_alive);
        self.body.set(body);
        if !body.is_end() && self.is_plain() {
            self.bulk.saw(body.remaining());
        }
        self.due.set(u64::MAX);
        self.stage.set(if asked.expects_continue { Stage::Expecting } else { Stage::Waiting });
        self.forgive();
        let incoming = if body.is_end() { Incoming::None } else { Incoming::Http1(Rc::clone(self)) };
        // In a scope of its own: what answering takes is given up before the answer is written.
        let answer = {
            let mut answering = pin!(crate::proxy::serve(turn.clone(), head, incoming));
            poll_fn(|cx| {
                if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
                    return Poll::Ready(Some(answer));
                }
                match self.poll_flush(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(None),
                    Poll::Ready(Ok(())) | Poll::Pending => self.poll_gone(cx).map(|()| None),
                }
            })
            .await
        };
        let left = match answer {
            Some(answer) => self.answer(answer, asked).await,
            None => Left::Broken,
        };
        // It may be set to look for a client that has gone.
        self.watch.clear();
        left
    }

    /// Writes an answer, head and body.
    async fn answer(&self, answer: Answer, asked: Asked) -> Left {
        let Answer { status, mut headers, source } = answer;
        let may_persist =
            self.may_persist(&source) && asked.keep_alive && !self.client.worker.is_stopping.get();
        self.stage.set(Stage::Answering);
        let framing = Framing::of(status, &mut headers, &source, asked, may_persist);
        let (mut rest, mut tunnel) = (Rest::Over, None);
        {
            let out = &mut *self.out.borrow_mut();
            let text = out.text(&self.client.worker);
            answer::encode(text, status, &headers, framing, asked, &self.client.worker);
            match source {
                Source::Full(data) if framing.has_body => out.push(data),
                Source::Full(_) => {}
                // What an endpoint sends behind such a head is nobody's answer.
                Source::Stream(_) if !framing.has_body => {}
                Source::Stream(exchange) => rest = Rest::Stream(exchange),
                Source::Tunnel(joined) => tunnel = Some(joined),
            }
        }
        // They keep all of the buffer that they were read into, and the rest may take hours.
        drop(headers);
        if let Some(tunnel) = tunnel {
            return self.join(*tunnel).await;
        }
        match poll_fn(|cx| self.poll_body(&mut rest, framing, cx)).await {
            Err(_) => Left::Broken,
            Ok(()) if matches!(rest, Rest::BrokenOff) && framing.until_close => Left::Reset,
            Ok(()) if matches!(rest, Rest::BrokenOff) => Left::Broken,
            // Boxed: rare, and all would have its size.
            Ok(()) if !(self.skip_body() || framing.persists && Box::pin(self.linger()).await) => {
                Left::Unread
            }
            Ok(()) if framing.persists => Left::Open,
            Ok(()) if self.input.borrow().is_empty() => Left::Done,
            Ok(()) => Left::Unread,
        }
    }

    /// Writes the answer's body as it comes: gathered while more is there, at once when it has to be waited for.
    fn poll_body(&self, rest: &mut Rest, framing: Framing, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Rest::Stream(exchange) = rest else { return self.poll_flush(cx) };
            if self.out.borrow().is_full() {
                match self.poll_flush(cx) {
                    Poll::Ready(flushed) => {
                        flushed.inspect_err(|error| exchange.give_up(self.blame(error)))?;
                    }
                    Poll::Pending => {
                        exchange.give_up(ready!(exchange.poll_cut(cx)));
                        *rest = Rest::BrokenOff;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            let pipes = self.pipes().filter(|_| !framing.is_chunked);
            match exchange.poll_part(pipes, cx) {
                Poll::Ready(Some(Ok(Part::Piped(pipe)))) => self.out.borrow_mut().pipe(pipe),
                Poll::Ready(Some(Ok(Part::Frame(frame)))) => {
                    if self.out.borrow_mut().add(frame, framing, &self.client.worker) {
                        *rest = Rest::Over;
                    }
                }
                Poll::Ready(Some(Err(_))) => *rest = Rest::BrokenOff,
                Poll::Ready(None) => {
                    if framing.is_chunked {
                        http1::encode_end(self.out.borrow_mut().text(&self.client.worker), None);
                    }
                    *rest = Rest::Over;
                }
                Poll::Pending => {
                    if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                        exchange.give_up(self.blame(&error));
                        return Poll::Ready(Err(error));
                    }
                    return self.poll_gone(cx).map(|()| Err(io::ErrorKind::ConnectionAborted.into()));
                }
            }
        }
    }

    /// Tells the client an interim answer; too late once the final one is on its way, and in vain while the client does not
    /// take what it was told before.
    pub(super) fn relay_interim(&self, status: StatusCode, fields: &HeaderMap) {
        let out = &mut *self.out.borrow_mut();
        if self.stage.get() != Stage::Answering && out.gathered() < MOST_TOLD {
            answer::encode_interim(out.text(&self.client.worker), status, fields);
        }
    }

    /// Answers what never became a request.
    fn refuse(&self, reason: Reason) -> Left {
        self.client.worker.refused(None, reason);
        self.client.worker.journal.refused(&self.client, reason);
        let refusal = error::refusal(reason, &self.client.worker.date());
        self.out.borrow_mut().text(&self.client.worker).extend_from_slice(&refusal);
        Left::Unread
    }
}
