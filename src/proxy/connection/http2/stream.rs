//! One stream: a request and its answer, under the flow control of both sides.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Code, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, COOKIE, DATE, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use super::super::answer::{Asked, Framing};
use super::super::{Client, Ear, Turn};
use super::Tally;
use super::upload::Upload;
use crate::metrics::Reason;
use crate::proxy::body::{Flow, Part, Source};
use crate::proxy::clock::{Alarm, span};
use crate::proxy::debt::Debt;
use crate::proxy::error;
use crate::proxy::fields::{LIST_OVERHEAD, list_size_of};
use crate::proxy::head::{Answer, Parts};
use crate::proxy::{trailers, upgrade};

/// How long, and for how many bytes, a client may go on sending what nobody will read, once it has its answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;
/// How large a part may be to be copied out of the buffer it was read into, which it would keep for as long as its
/// client takes nothing.
const MOST_COPIED: usize = 16 * 1024;

/// Bytes of interim answers, as lists of fields, for a client that does not take what it was sent, be it another stream's answer.
const MOST_TOLD: usize = 16 * 1024;

/// The client has given the request up.
pub(super) struct GivenUp;

/// Answers the stream's request; dropped when the connection ends.
pub(super) async fn answer(
    client: Rc<Client>,
    tally: Rc<Tally>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let _open = Open::of(&client);
    client.renew();
    let (mut head, body) = request.into_parts();
    join_cookies(&mut head.headers);
    upgrade::drop_key(&mut head);
    let head = Box::new(Parts::from(head));
    let asked = Asked::of(&head, true);
    let reply = Rc::new(Reply {
        unread: RefCell::default(),
        respond: RefCell::new(respond),
        tally,
        is_answered: Cell::new(false),
        told: Cell::new(0),
        due: Cell::new(u64::MAX),
    });
    let alarm = Rc::new(client.worker.clock.alarm());
    let is_small = head.headers.len() <= client.settings().headers;
    let turn = Turn { client, alarm, ear: Ear::Http2(Rc::clone(&reply)) };
    let answer = if is_small {
        let incoming = Upload::of(&head.headers, body, &reply, asked.expects_continue);
        let answering = pin!(crate::proxy::serve(turn.clone(), head, incoming));
        reply.unless_given_up(answering).await
    } else {
        turn.client.worker.refused(None, Reason::HeadTooLarge);
        turn.client.worker.journal.refused(&turn.client, Reason::HeadTooLarge);
        Ok(error::answer(Reason::HeadTooLarge, &head.headers).into())
    };
    let answered = match answer {
        Ok(answer) => reply.answer(answer, asked, &turn).await,
        Err(given_up) => Err(given_up),
    };
    Tally::add(if answered.is_ok() { &reply.tally.answered } else { &reply.tally.given_up });
    if answered.is_ok() {
        reply.linger(&turn.alarm).await;
    }
}

/// An open stream, for what its worker has to do.
struct Open(Rc<Client>);

impl Open {
    fn of(client: &Rc<Client>) -> Self {
        let streams = &client.worker.streams;
        streams.set(streams.get() + 1);
        Self(Rc::clone(client))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let streams = &self.0.worker.streams;
        streams.set(streams.get() - 1);
    }
}

/// A client may send its cookies one by one; HTTP/1.1 has one field for them (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let all: Vec<_> = all.filter(|crumb| !crumb.is_empty()).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Where a stream's answer goes.
#[derive(Debug)]
pub struct Reply {
    respond: RefCell<SendResponse<Bytes>>,
    /// What nobody has read of the request.
    pub(super) unread: RefCell<Option<RecvStream>>,
    /// Of its connection.
    tally: Rc<Tally>,
    is_answered: Cell<bool>,
    /// Bytes of interim answers since the client is behind.
    told: Cell<usize>,
    /// The tick at which the request is over.
    pub(super) due: Cell<u64>,
}

impl Reply {
    /// The request is over at this tick.
    pub(in super::super) fn is_due(&self, tick: u64) {
        self.due.set(tick);
    }

    /// Tells the client an interim answer, unless too many wait for it.
    pub(in super::super) fn relay_interim(&self, status: StatusCode, fields: &HeaderMap) {
        let size = LIST_OVERHEAD + list_size_of(fields);
        self.told.set(if self.tally.is_behind.get() { self.told.get() + size } else { 0 });
        if self.told.get() <= MOST_TOLD {
            self.tell(status, fields.clone());
        }
    }

    /// Tells the client to send the body: once, and always.
    pub(super) fn go_on(&self) {
        self.tell(StatusCode::CONTINUE, HeaderMap::new());
    }

    /// Too late once the final answer is on its way. The client may be gone, which is noticed elsewhere.
    fn tell(&self, status: StatusCode, fields: HeaderMap) {
        if !self.is_answered.get() {
            let mut interim = Response::new(());
            (*interim.status_mut(), *interim.headers_mut()) = (status, fields);
            drop(self.respond.borrow_mut().send_informational(interim));
        }
    }

    /// Forgets what is still to come of a request that was answered before its end. To reset the stream at once would be
    /// correct (RFC 9113 §8.1), but there are clients that then forget the answer (curl before 8).
    async fn linger(&self, alarm: &Alarm) {
        let Some(mut unread) = self.unread.take().filter(|unread| !unread.is_end_stream()) else { return };
        alarm.set(LINGER);
        let mut left = LINGER_BYTES;
        poll_fn(|cx| {
            while left > 0 {
                match unread.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        left = left.saturating_sub(data.len());
                        drop(unread.flow_control().release_capacity(data.len()));
                    }
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => return alarm.poll(cx),
                }
            }
            Poll::Ready(())
        })
        .await;
        alarm.clear();
    }

    /// What `answering` comes to, unless the client resets the stream first. Pinned where it is made: taken by value it
    /// would have room twice in every stream's future.
    async fn unless_given_up<T>(
        &self,
        mut answering: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, GivenUp> {
        poll_fn(|cx| {
            if let Poll::Ready(answer) = answering.as_mut().poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            self.respond.borrow_mut().poll_reset(cx).map(|_| Err(GivenUp))
        })
        .await
    }

    /// Sends an answer, head and body.
    async fn answer(&self, answer: Answer, asked: Asked, turn: &Turn) -> Result<(), GivenUp> {
        let Answer { status, mut headers, source } = answer;
        let mut framing = Framing::of(status, &mut headers, &source, asked, true);
        // That there is no body is said by the stream's end; a gRPC answer of trailers alone has no length at all.
        framing.length = framing.length.filter(|length| *length > 0 || framing.was_told);
        let mut headers = headers.into_map(&turn.client.worker.lexicon);
        if status == StatusCode::UPGRADE_REQUIRED {
            // No such field is valid here (RFC 9113 §8.2.2).
            headers.remove(UPGRADE);
        }
        let head = finished(status, headers, framing, turn);
        let (data, exchange) = match source {
            Source::Stream(exchange) if framing.has_body => (Bytes::new(), Some(exchange)),
            Source::Tunnel(tunnel) => return self.tunnel(head, tunnel, turn).await,
            Source::Full(data) if framing.has_body => (data, None),
            Source::Full(_) | Source::Stream(_) => (Bytes::new(), None),
        };
        let is_end = data.is_empty() && exchange.is_none();
        let mut sending = self.begin(head, is_end, turn)?;
        match exchange {
            _ if is_end => Ok(()),
            Some(exchange) => sending.stream(exchange).await,
            None => sending.data(data, true, None).await,
        }
    }

    /// Sends the head of an answer.
    pub(super) fn begin<'t>(
        &'t self,
        head: Response<()>,
        is_end: bool,
        turn: &'t Turn,
    ) -> Result<Sending<'t>, GivenUp> {
        let sent = self.respond.borrow_mut().send_response(head, is_end);
        self.is_answered.set(true);
        Tally::add(&self.tally.frames);
        let due = self.due.get();
        Ok(Sending {
            send: sent.map_err(|_| GivenUp)?,
            alarm: None,
            debt: Debt::default(),
            due,
            is_stalled: false,
            turn,
            tally: &self.tally,
        })
    }
}

/// The head, with the fields that HTTP/2 leaves to us.
fn finished(status: StatusCode, mut headers: HeaderMap, framing: Framing, turn: &Turn) -> Response<()> {
    if let Some(length) = framing.length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::from_bytes(&turn.client.worker.date())
    {
        headers.insert(DATE, date);
    }
    let mut head = Response::new(());
    (*head.status_mut(), *head.headers_mut()) = (status, headers);
    head
}

/// An answer's body on its way to the client.
pub(super) struct Sending<'t> {
    pub(super) send: SendStream<Bytes>,
    /// How long the client may take too little; most take everything at once and need none.
    alarm: Option<Alarm>,
    /// What it is behind in taking: who opens a window of one byte now and then takes nothing (CVE-2019-9517).
    debt: Debt,
    /// The tick at which the request is over.
    due: u64,
    /// True when the client was waited for long enough.
    is_stalled: bool,
    turn: &'t Turn,
    tally: &'t Tally,
}

impl Sending<'_> {
    /// Sends a body as it comes from an endpoint; a part is asked for when the client has taken the one before.
    async fn stream(&mut self, mut exchange: Flow) -> Result<(), GivenUp> {
        loop {
            let part = poll_fn(|cx| match exchange.poll_part(None, cx) {
                Poll::Ready(part) => Poll::Ready(Ok(part)),
                Poll::Pending => self.send.poll_reset(cx).map(|_| Err(GivenUp)),
            });
            let frame = match part.await? {
                Some(Ok(Part::Frame(frame))) => frame,
                // A clean end would pass for a whole answer. No pipe was offered.
                Some(Err(_) | Ok(Part::Piped(_))) => {
                    self.send.send_reset(Code::INTERNAL_ERROR);
                    return Ok(());
                }
                None => return self.send.send_data(Bytes::new(), true).map_err(|_| GivenUp),
            };
            match frame.into_data() {
                Ok(data) => {
                    let is_last = exchange.is_over();
                    self.data(data, is_last, Some(&mut exchange)).await?;
                    if is_last {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    let fields = frame.into_trailers().unwrap_or_default();
                    return trailers::end(&mut self.send, fields).map_err(|_| GivenUp);
                }
            }
        }
    }

    /// Sends bytes as the client's windows open; meanwhile the request's body goes on.
    async fn data(
        &mut self,
        mut data: Bytes,
        is_end: bool,
        mut exchange: Option<&mut Flow>,
    ) -> Result<(), GivenUp> {
        if data.is_empty() && is_end {
            return self.send.send_data(data, true).map_err(|_| GivenUp);
        }
        while !data.is_empty() {
            self.send.reserve_capacity(data.len());
            if self.send.capacity() == 0 && data.len() <= MOST_COPIED {
                data = Bytes::copy_from_slice(&data);
            }
            let room = poll_fn(|cx| {
                if let Some(exchange) = &mut exchange {
                    exchange.push(cx);
                }
                let room = self.poll_room(cx);
                if room.is_pending()
                    && let Some(exchange) = &mut exchange
                {
                    exchange.give_up(ready!(exchange.poll_cut(cx)));
                    self.send.send_reset(Code::INTERNAL_ERROR);
                    return Poll::Ready(Err(GivenUp));
                }
                room
            });
            let room = room.await.inspect_err(|_| self.blame(exchange.as_deref_mut()))?;
            self.part(&mut data, room, is_end)?;
        }
        Ok(())
    }

    /// Tells an answer that is given up, if it is not over, whose fault that is.
    fn blame(&self, exchange: Option<&mut Flow>) {
        let reason = match self.is_stalled {
            false => Reason::ClientGone,
            true if self.turn.client.worker.clock.ticks() >= self.due => Reason::Deadline,
            true => Reason::ClientStalled,
        };
        if let Some(exchange) = exchange.filter(|exchange| !exchange.is_over()) {
            exchange.give_up(reason);
        }
    }

    /// Sends what there is room for.
    pub(super) fn part(&mut self, data: &mut Bytes, room: usize, is_end: bool) -> Result<(), GivenUp> {
        let part = data.split_to(room.min(data.len()));
        if data.is_empty() {
            Tally::add(&self.tally.frames);
        }
        if let Some(alarm) = &self.alarm {
            alarm.clear();
            let client = &self.turn.client;
            self.debt.took(&client.settings(), part.len(), client.worker.clock.ticks());
        }
        self.send.send_data(part, is_end && data.is_empty()).map_err(|_| GivenUp)
    }

    /// How many bytes may be sent now; a client that opens no window for too long has stalled.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, GivenUp>> {
        loop {
            let room = self.send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match self.send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(GivenUp)),
                Poll::Pending => break,
            }
        }
        if self.send.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(GivenUp));
        }
        let clock = &self.turn.client.worker.clock;
        let alarm = self.alarm.get_or_insert_with(|| clock.alarm());
        let now = clock.ticks();
        alarm.set_once(
            self.debt.wait(&self.turn.client.settings(), now).min(span(self.due.saturating_sub(now))),
        );
        ready!(alarm.poll(cx));
        self.is_stalled = true;
        self.send.send_reset(Code::CANCEL);
        Poll::Ready(Err(GivenUp))
    }
}
