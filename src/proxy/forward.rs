//! One exchange with an endpoint: the request's body out, the answer's head and body in, both at once.
//!
//! Polled in place by the client's connection: no task, no channel. A slow reader on either side stops the other side's
//! reading, so that nothing is buffered beyond a few reads.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::body::Source;
use super::connection::Client;
use super::permit::Permit;
use super::upstream::http1::{self, Decoded, Decoder, Head};
use super::upstream::{Endpoint, Stream};
use crate::metrics::{Kind, Reason};
use crate::table::Timeouts;

/// How much of a body is gathered before it is written.
const BATCH: usize = 16 * 1024;
/// How much is read at once.
const READ: usize = 64 * 1024;
/// Most interim answers (1xx) before the final one.
const MAX_INTERIM: u32 = 32;
/// How long an endpoint may keep a client waiting that expects `100 Continue` (RFC 9110 §10.1.1: not for ever).
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

/// What is left to send of a request.
#[derive(Debug)]
pub enum Outgoing {
    /// Nothing.
    Nothing,
    /// A body that waits for the endpoint's `100 Continue`.
    Held(Incoming, Coding),
    /// A body on its way.
    Open(Incoming, Coding),
}

/// How a request's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is; its length was announced.
    Plain,
    /// In chunks.
    Chunked,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The connection had been idle and was closed before a byte of the answer: the endpoint may not have seen anything.
    Stale,
    /// For this reason.
    Because(Reason),
}

/// A request on its way to an endpoint and its answer on the way back.
#[derive(Debug)]
pub struct Exchange {
    client: Rc<Client>,
    permit: Option<Permit>,
    endpoint: Rc<Endpoint>,
    /// `None` once the connection was given back or is of no use.
    stream: Option<Stream>,
    is_reused: bool,
    timeouts: Timeouts,
    /// Bytes to write before `frame`.
    out: Vec<u8>,
    frame: Bytes,
    outgoing: Outgoing,
    is_sent: bool,
    /// True when the endpoint takes no more of the request; its answer may still come.
    is_deaf: bool,
    /// True when a held body was just let go.
    is_let_go: bool,
    input: Bytes,
    interims: u32,
    decoder: Decoder,
    keep_alive: bool,
    /// How long the answer's body may pause.
    patience: Duration,
    /// Why the answer broke off; told one poll later, so that hyper flushes what came before.
    broken_off: Option<Reason>,
}

impl Exchange {
    /// An exchange over `stream`, beginning with the encoded `head`.
    pub fn new(
        client: &Rc<Client>,
        permit: Permit,
        endpoint: Rc<Endpoint>,
        (stream, is_reused): (Stream, bool),
        (head, outgoing): (Vec<u8>, Outgoing),
        timeouts: Timeouts,
    ) -> Self {
        client.alarm.clear();
        Self {
            client: Rc::clone(client),
            permit: Some(permit),
            endpoint,
            stream: Some(stream),
            is_reused,
            timeouts,
            out: head,
            frame: Bytes::new(),
            outgoing,
            is_sent: false,
            is_deaf: false,
            is_let_go: false,
            broken_off: None,
            input: Bytes::new(),
            interims: 0,
            decoder: Decoder::Length(0),
            keep_alive: false,
            patience: timeouts.progress,
        }
    }

    /// Sends the request and waits for the answer's head, relaying interim answers.
    ///
    /// # Errors
    /// [`Failure`]; the exchange is then over and can be taken apart with [`Exchange::into_parts`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>, method: &http::Method) -> Poll<Result<Head, Failure>> {
        loop {
            let was_sent = self.is_sent;
            let progressed = self.send(cx).map_err(Failure::Because)?;
            if let Some(head) = self.take_head(method)? {
                return Poll::Ready(Ok(head));
            }
            if std::mem::take(&mut self.is_let_go) {
                continue;
            }
            match self.receive(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) if self.is_reused && self.input.is_empty() && self.interims == 0 => {
                    return Poll::Ready(Err(Failure::Stale));
                }
                Poll::Ready(_) => return Poll::Ready(Err(Failure::Because(Reason::UpstreamClosed))),
                Poll::Pending => {
                    let limit = match (self.is_sent, &self.outgoing) {
                        (true, _) => self.timeouts.response,
                        (false, Outgoing::Held(..)) => EXPECT_PATIENCE,
                        (false, _) => self.timeouts.progress,
                    };
                    if !self.is_late(cx, limit, progressed || was_sent != self.is_sent) {
                        return Poll::Pending;
                    }
                    match std::mem::replace(&mut self.outgoing, Outgoing::Nothing) {
                        Outgoing::Held(body, coding) => self.outgoing = Outgoing::Open(body, coding),
                        Outgoing::Open(..) if self.out.is_empty() && self.frame.is_empty() => {
                            return Poll::Ready(Err(Failure::Because(Reason::RequestTimeout)));
                        }
                        Outgoing::Open(..) | Outgoing::Nothing => {
                            return Poll::Ready(Err(Failure::Because(Reason::ResponseTimeout)));
                        }
                    }
                }
            }
        }
    }

    /// A head off the input, if it is final; interim ones are relayed.
    fn take_head(&mut self, method: &http::Method) -> Result<Option<Head>, Failure> {
        while !self.input.is_empty() {
            let malformed = |_| Failure::Because(Reason::UpstreamProtocol);
            let Some(head) = http1::parse_head(&mut self.input, method).map_err(malformed)? else {
                return Ok(None);
            };
            if !head.status.is_informational() {
                return Ok(Some(head));
            }
            self.interims += 1;
            if self.interims > MAX_INTERIM || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(Failure::Because(Reason::UpstreamProtocol));
            }
            self.on_interim(&head);
        }
        Ok(None)
    }

    fn on_interim(&mut self, head: &Head) {
        if head.status != StatusCode::CONTINUE {
            return self.client.relay_interim(head.status, &head.headers);
        }
        // hyper sends its own `100 Continue` to the client when the body is first asked for.
        self.outgoing = match std::mem::replace(&mut self.outgoing, Outgoing::Nothing) {
            Outgoing::Held(body, coding) => {
                self.is_let_go = true;
                Outgoing::Open(body, coding)
            }
            other => other,
        };
    }

    /// The answer to `head`: whole when its body is already here, else a stream.
    #[must_use]
    pub fn answer(mut self, head: &Head) -> Source {
        self.client.alarm.clear();
        (self.decoder, self.keep_alive) = (head.body, head.keep_alive);
        if let Some(permit) = &self.permit {
            permit.answered(head.status.as_u16());
        }
        let length = self.decoder.remaining().and_then(|length| usize::try_from(length).ok());
        if let Some(length) = length.filter(|length| *length <= self.input.len()) {
            let body = self.input.split_to(length);
            self.finish();
            return Source::Full(body);
        }
        self.classify(head);
        Source::Stream(Box::new(self))
    }

    /// What sort of work the answer is, and how long it may pause.
    fn classify(&mut self, head: &Head) {
        if self.decoder.remaining().is_some() {
            return;
        }
        let kind = head.headers.get(http::header::CONTENT_TYPE).map_or(Kind::Stream, |content| {
            if content.as_bytes().starts_with(b"text/event-stream") { Kind::Sse } else { Kind::Stream }
        });
        self.patience = self.timeouts.stream;
        if let Some(permit) = &self.permit {
            permit.becomes(kind);
        }
    }

    /// The next part of the answer's body; meanwhile the request's body goes on.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if let Some(reason) = self.broken_off.take() {
            return Poll::Ready(Some(Err(reason)));
        }
        loop {
            if !self.is_sent && self.send(cx).is_err() {
                return self.break_off(cx, Reason::RequestBody);
            }
            match self.decoder.decode(&mut self.input) {
                Ok(Decoded::Data(data)) => {
                    self.client.alarm.clear();
                    if self.decoder.is_end() {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::Trailers(trailers)) => {
                    self.finish();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::End) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {}
                Err(_) => return self.break_off(cx, Reason::UpstreamProtocol),
            }
            match self.receive(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if self.decoder == Decoder::UntilClose => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Poll::Ready(_) => return self.break_off(cx, Reason::BodyTruncated),
                Poll::Pending if self.is_late(cx, self.patience, false) => {
                    return self.break_off(cx, Reason::BodyStalled);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// True when the answer's last byte was handed on.
    pub fn is_over(&self) -> bool {
        self.permit.is_none() && self.broken_off.is_none()
    }

    /// How many bytes of the answer's body are left, if that is known.
    pub fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    /// What is left after a [`Failure`]: the permit, and the request's body if nothing was taken from it.
    pub fn into_parts(mut self) -> (Option<Permit>, Outgoing) {
        self.client.alarm.clear();
        let outgoing = std::mem::replace(&mut self.outgoing, Outgoing::Nothing);
        (self.permit.take(), outgoing)
    }

    /// Gives the connection back if its next answer can only be the next request's, and ends the permit.
    fn finish(&mut self) {
        self.client.alarm.clear();
        let clean = self.keep_alive && self.is_sent && !self.is_deaf && self.input.is_empty();
        if let Some(stream) = self.stream.take().filter(|_| clean) {
            let worker = &self.client.worker;
            self.endpoint.keep(stream, self.client.settings.pool_size, &worker.clock);
        }
        if let Some(permit) = self.permit.take() {
            permit.complete();
        }
    }

    fn break_off<T>(&mut self, cx: &Context<'_>, reason: Reason) -> Poll<T> {
        self.stream = None;
        self.client.alarm.clear();
        if let Some(permit) = self.permit.take() {
            permit.failed(reason);
        }
        self.broken_off = Some(reason);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// True when nothing has moved for `limit`. Armed only while both sides wait, so a slow reader is not held against
    /// the other side.
    fn is_late(&self, cx: &Context<'_>, limit: Duration, progressed: bool) -> bool {
        if progressed {
            self.client.alarm.set(limit);
        } else {
            self.client.alarm.set_once(limit);
        }
        let late = self.client.alarm.poll(cx).is_ready();
        if late {
            self.client.alarm.clear();
        }
        late
    }

    /// Reads once; `Ok(0)` is the end. Into the worker's scratch buffer, whose read part is split off without a copy.
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        let mut scratch = self.client.worker.scratch.borrow_mut();
        if scratch.capacity() < READ / 4 {
            scratch.reserve(READ);
        }
        let read = ready!(poll_read_buf(Pin::new(stream), cx, &mut *scratch));
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
        let mut progressed = false;
        while !self.is_sent {
            let waiting = self.gather(cx)?;
            match self.flush(cx) {
                Poll::Ready(Ok(moved)) => progressed |= moved,
                Poll::Ready(Err(_)) => self.go_deaf(),
                Poll::Pending => return Ok(progressed),
            }
            match self.outgoing {
                Outgoing::Nothing => self.on_sent(),
                Outgoing::Held(..) => return Ok(progressed),
                Outgoing::Open(..) if waiting => return Ok(progressed),
                Outgoing::Open(..) => {}
            }
        }
        Ok(progressed)
    }

    fn on_sent(&mut self) {
        self.is_sent = true;
        self.client.worker.give_back(std::mem::take(&mut self.out));
        if let Some(permit) = &self.permit {
            permit.becomes_if(Kind::Upload, Kind::Request);
        }
    }

    /// The endpoint closed its ear; it may have answered already (413, say), so that is still read.
    fn go_deaf(&mut self) {
        (self.is_deaf, self.is_sent) = (true, true);
        self.outgoing = Outgoing::Nothing;
        (self.out, self.frame) = (Vec::new(), Bytes::new());
    }

    /// Takes frames of the request's body until there is a batch to write; true when the client has to be waited for.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, Reason> {
        while self.frame.is_empty() && self.out.len() < BATCH {
            let Outgoing::Open(body, coding) = &mut self.outgoing else { return Ok(false) };
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { return Ok(true) };
            let coding = *coding;
            match frame {
                Some(Ok(frame)) => self.encode(frame, coding),
                Some(Err(_)) => return Err(Reason::RequestBody),
                None => {
                    if coding == Coding::Chunked {
                        http1::encode_end(&mut self.out, None);
                    }
                    self.outgoing = Outgoing::Nothing;
                }
            }
        }
        Ok(false)
    }

    fn encode(&mut self, frame: Frame<Bytes>, coding: Coding) {
        match (frame.into_data(), coding) {
            (Ok(data), Coding::Plain) if self.out.len() + data.len() <= BATCH => {
                self.out.extend_from_slice(&data)
            }
            (Ok(data), Coding::Plain) => self.frame = data,
            // A chunk of length 0 would end the body.
            (Ok(data), Coding::Chunked) if data.is_empty() => {}
            (Ok(data), Coding::Chunked) => http1::encode_chunk(&mut self.out, &data),
            (Err(frame), Coding::Chunked) => {
                http1::encode_end(&mut self.out, frame.trailers_ref());
                self.outgoing = Outgoing::Nothing;
            }
            (Err(_), Coding::Plain) => {}
        }
    }

    /// Writes what was gathered; true when something was written.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut moved = false;
        let mut written = 0;
        while written < self.out.len() {
            match Pin::new(&mut *stream).poll_write(cx, &self.out[written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(length)) => written += length,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.out.drain(..written);
                    return Poll::Pending;
                }
            }
            moved = true;
        }
        self.out.clear();
        while !self.frame.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.frame))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.frame.advance(length),
            }
            moved = true;
        }
        Poll::Ready(Ok(moved))
    }
}
