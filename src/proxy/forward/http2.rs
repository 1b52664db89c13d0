//! One exchange as a stream of a shared HTTP/2 connection; what [`Exchange`](super::Exchange) is in HTTP/1.1.
//!
//! Polled by the client's connection. Flow control holds on both sides: of the client's body no more is asked for than
//! the endpoint takes, and the endpoint's window opens only for what the client has taken.

mod end;
mod goodbye;
mod head;
mod kind;
mod limits;
mod status;
mod tunnel;
mod upload;

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::proxy::head::{Answer, Parts};
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Frame;

pub use head::request;

use super::interims::Interims;
use super::{EXPECT_PATIENCE, Failure};
use crate::metrics::{Kind, Reason};
use crate::proxy::body::{Flow, Source};
use crate::proxy::bounds::Bounds;
use crate::proxy::connection::Turn;
use crate::proxy::farewell::Farewell;
use crate::proxy::headers;
use crate::proxy::journal::Record;
use crate::proxy::media;
use crate::proxy::outgoing::{Rest, Upload, Waiting};
use crate::proxy::permit::Permit;
use crate::proxy::trailers;
use crate::proxy::upgrade::Upgrade;
use crate::proxy::upstream::flights::Ask;
use crate::proxy::upstream::http2::Ticket;
use crate::table::Timeouts;

/// A request on its way to an endpoint and its answer on the way back.
#[derive(Debug)]
pub struct Call {
    turn: Turn,
    permit: Option<Permit>,
    record: Option<Rc<Record>>,
    timeouts: Timeouts,
    bounds: Bounds,
    request: Option<Request<()>>,
    response: Option<ResponseFuture>,
    answer: Option<RecvStream>,
    send: Option<SendStream<Bytes>>,
    upgrade: Option<Upgrade>,
    rest: Rest,
    /// A part of the body that waits for the endpoint's window.
    part: Bytes,
    /// What was taken of the body, if anything was; of use while nothing of the request has gone out.
    touched: Option<VecDeque<Frame<Bytes>>>,
    /// How many bytes of the body the client has sent, and how many it may.
    taken: u64,
    most: u64,
    waiting: Waiting,
    interims: Interims,
    /// How much of the answer's body is to come, if that is known.
    remaining: Option<u64>,
    is_read: bool,
    is_grpc: bool,
    /// True while a gRPC call was answered and not told a status: its client takes that for a failure, whatever else has come.
    owes_status: bool,
    /// True when the client looks for a gRPC status behind the answer.
    takes_status: bool,
    /// Where the answer's body can be ended, if its version is left.
    farewell: Farewell,
    /// How long the answer's body may pause.
    patience: Duration,
    /// Last: what came before resets its stream when it is dropped, and the place is free only then.
    ticket: Ticket,
}

impl Call {
    /// A call of `request`, which may ask for a change of protocol, whose body is `rest` and may have so many bytes.
    pub fn new(
        turn: &Turn,
        permit: Option<Permit>,
        ticket: Ticket,
        (request, upgrade, rest, most): (Request<()>, Option<Upgrade>, Rest, u64),
        timeouts: Timeouts,
        bounds: Bounds,
    ) -> Self {
        turn.alarm.clear();
        let content = content(request.headers());
        let (is_grpc, is_call) = (media::is_grpc(content), media::is_call(content));
        if let Some(permit) = permit.as_ref().filter(|_| is_grpc) {
            permit.is_call(if is_call { Kind::Grpc } else { Kind::Stream });
        }
        Self {
            turn: turn.clone(),
            record: permit.as_ref().and_then(Permit::record).map(Rc::clone),
            permit,
            timeouts,
            bounds,
            request: Some(request),
            response: None,
            answer: None,
            send: None,
            upgrade,
            rest,
            part: Bytes::new(),
            touched: None,
            taken: 0,
            most,
            waiting: Waiting::Endpoint,
            interims: Interims::default(),
            remaining: None,
            is_read: false,
            is_grpc,
            owes_status: is_call && turn.is_http2(),
            takes_status: false,
            farewell: Farewell::default(),
            patience: timeouts.progress,
            ticket,
        }
    }

    /// Sends the request and waits for the answer's head, relaying interim answers.
    ///
    /// # Errors
    /// [`Failure`]; the call is then over, and [`Call::into_parts`] is what is left of it.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        asked: &Parts,
    ) -> Poll<Result<Response<RecvStream>, Failure>> {
        loop {
            let before = self.waiting;
            // Also before it is sent: the room for it may come of others that are cut.
            if let Some(reason) = self.is_cut() {
                return Poll::Ready(Err(Failure::Because(reason)));
            }
            self.start()?;
            let moved = self.send(cx).map_err(Failure::Because)? || before != self.waiting;
            if self.take_interims(cx, asked)? && self.rest.let_go() {
                continue;
            }
            let Some(response) = &mut self.response else {
                return Poll::Ready(Err(Failure::Because(Reason::Internal)));
            };
            if let Poll::Ready(answer) = Pin::new(response).poll(cx) {
                let answer = answer.map_err(|error| self.failure(&error))?;
                let is_bodiless = kind::is_bodiless(answer.status(), &asked.method);
                let fits = is_bodiless || self.bounds.fits(announced(answer.headers()));
                let too_large = Failure::Because(Reason::ResponseTooLarge);
                return Poll::Ready(if fits { Ok(answer) } else { Err(too_large) });
            }
            let limit = self.limit(before);
            if !self.is_late(cx, limit, moved) {
                return Poll::Pending;
            }
            match self.waiting {
                _ if self.bounds.is_over(self.now()) => {
                    return Poll::Ready(Err(Failure::Because(Reason::Deadline)));
                }
                Waiting::Continue => drop(self.rest.let_go()),
                Waiting::Client => return Poll::Ready(Err(Failure::Because(Reason::RequestTimeout))),
                Waiting::Endpoint | Waiting::Sent => {
                    self.ticket.doubt();
                    return Poll::Ready(Err(Failure::Because(Reason::ResponseTimeout)));
                }
            }
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let Some(request) = self.request.take() else { return Ok(()) };
        if self.upgrade.is_some() && !self.ticket.takes_websockets() {
            return Err(Failure::Because(Reason::NoWebsocket));
        }
        let is_empty = matches!(self.rest, Rest::Nothing);
        if self.ticket.most_head().is_some_and(|most| head::list_size(&request) > most) {
            return Err(Failure::Because(Reason::HeadTooLarge));
        }
        let is_end = is_empty && self.upgrade.is_none();
        let (response, send) = self.ticket.send(request, is_end).map_err(|_| Failure::Refused)?;
        self.response = Some(response);
        if is_empty {
            self.waiting = Waiting::Sent;
        }
        if !is_end {
            self.send = Some(send);
        }
        Ok(())
    }

    /// Relays interim answers to a client that can read them; true when the body may go.
    fn take_interims(&mut self, cx: &mut Context<'_>, asked: &Parts) -> Result<bool, Failure> {
        let mut may_go = false;
        while let Some(response) = &mut self.response {
            let Poll::Ready(Some(interim)) = response.poll_informational(cx) else { break };
            let interim = interim.map_err(|error| self.failure(&error))?;
            let (status, now) = (interim.status(), self.now());
            if status == StatusCode::SWITCHING_PROTOCOLS || !self.interims.take(interim.headers(), now) {
                return Err(Failure::Because(Reason::UpstreamProtocol));
            }
            if status == StatusCode::CONTINUE {
                may_go = true;
            } else if asked.version >= Version::HTTP_11 {
                let mut fields = interim.into_parts().0.headers;
                headers::strip_response(&mut fields);
                headers::trim(&mut fields);
                // An interim answer has no content (RFC 9110 §8.6).
                fields.remove(CONTENT_LENGTH);
                self.turn.relay_interim(status, &fields);
            }
        }
        Ok(may_go)
    }

    /// The answer with this head to the request `asked`, of which `upload` was the body.
    #[must_use]
    pub fn answer(
        mut self: Box<Self>,
        response: Response<RecvStream>,
        upload: &mut Upload,
        asked: &Parts,
    ) -> Answer {
        self.turn.alarm.clear();
        self.record.as_ref().inspect(|record| record.first_byte());
        (self.response, self.touched) = (None, None);
        if self.waiting == Waiting::Sent {
            self.rest = Rest::Nothing;
        }
        let (mut head, body) = response.into_parts();
        headers::strip_response(&mut head.headers);
        headers::trim(&mut head.headers);
        if let Some(mut send) = self.send.take_if(|_| self.upgrade.is_some()) {
            if head.status.is_success() {
                return self.tunnel(head.headers, send, body, upload, asked);
            }
            // It does not want a tunnel: there is nothing more to say.
            drop(send.send_data(Bytes::new(), true));
        }
        self.classify(&head.headers);
        self.owes_status &= head.status == StatusCode::OK;
        if let Some(permit) = &self.permit {
            permit.answered(head.status.as_u16());
        }
        // What comes behind a head that has no body is nobody's answer: mostly the end, in a frame of its own.
        let is_end = body.is_end_stream() || kind::is_bodiless(head.status, &asked.method);
        self.answer = Some(body);
        let source = if is_end {
            self.told_status(&head.headers);
            self.finish();
            Source::Full(Bytes::new())
        } else {
            Source::Stream(Flow::Http2(self))
        };
        Answer { status: head.status, headers: head.headers.into(), source }
    }

    /// The next part of the answer's body; meanwhile the request's body goes on.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if self.permit.is_none() {
            return Poll::Ready(None);
        }
        if let Some(reason) = self.is_cut() {
            return self.break_off(reason);
        }
        if self.farewell.is_here(self.ask() == Ask::Go) {
            return self.say_goodbye();
        }
        let moved = match self.send(cx) {
            Ok(moved) => moved,
            Err(reason) => return self.break_off(reason),
        };
        let Some(answer) = &mut self.answer else { return Poll::Ready(None) };
        while !self.is_read {
            match answer.poll_data(cx) {
                // Often the end, in a frame of its own: it is told as the end, not as a part of the body.
                Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
                Poll::Ready(Some(Ok(data))) => return self.on_data(data),
                Poll::Ready(Some(Err(error))) => {
                    self.broke_off(&error);
                    return self.break_off(Reason::BodyTruncated);
                }
                Poll::Ready(None) => self.is_read = true,
                Poll::Pending => return self.poll_late(cx, moved),
            }
        }
        match answer.poll_trailers(cx) {
            Poll::Ready(Ok(trailers)) => {
                let mut trailers = trailers.map(trailers::only_trailers);
                trailers.iter_mut().for_each(headers::trim);
                if let Some(trailers) = &trailers {
                    self.told_status(trailers);
                }
                self.finish();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Poll::Ready(Err(error)) => {
                self.broke_off(&error);
                self.break_off(Reason::BodyTruncated)
            }
            Poll::Pending => self.poll_late(cx, moved),
        }
    }

    /// Sends more of the request while nobody asks for the answer; that its body broke off is told to who asks next.
    pub fn push(&mut self, cx: &mut Context<'_>) {
        if !self.is_over() {
            let _ = self.send(cx);
        }
    }

    fn on_data(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        self.turn.alarm.clear();
        if !self.bounds.take(data.len()) {
            return self.break_off(Reason::ResponseTooLarge);
        }
        self.record.as_ref().inspect(|record| record.sent(data.len()));
        self.remaining = self.remaining.map(|left| left.saturating_sub(data.len() as u64));
        let length = data.len();
        let data = self.farewell.pass(data, self.ask() == Ask::Go);
        if let Some(answer) = &mut self.answer {
            // The next is asked for when the client has taken this.
            drop(answer.flow_control().release_capacity(length));
            if answer.is_end_stream() {
                self.finish();
            }
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn poll_late(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if !self.is_late(cx, self.patience, moved) {
            return Poll::Pending;
        }
        if self.bounds.is_over(self.now()) {
            return self.break_off(Reason::Deadline);
        }
        self.ticket.doubt();
        self.break_off(Reason::BodyStalled)
    }

    /// True when the answer's last byte was handed on.
    pub fn is_over(&self) -> bool {
        self.permit.is_none()
    }

    /// How many bytes of the answer's body are left, if that is known.
    pub fn remaining(&self) -> Option<u64> {
        self.remaining
    }

    /// What is left after a [`Failure`]: the permit, and the request's body if nothing of it was taken, or nothing of the request
    /// was sent.
    pub fn into_parts(mut self) -> (Option<Permit>, Rest) {
        self.turn.alarm.clear();
        (self.permit.take(), self.untouched())
    }
}

/// The content that fields announce.
fn content(fields: &HeaderMap) -> &[u8] {
    fields.get(CONTENT_TYPE).map_or(&[], HeaderValue::as_bytes)
}

/// The length that an answer's fields announce.
fn announced(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}
