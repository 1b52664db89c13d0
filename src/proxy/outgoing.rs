//! A request on its way to an endpoint: its head, then its body as the client sends it.

mod again;
mod flush;

use std::cell::OnceCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{EXPECT, SEC_WEBSOCKET_ACCEPT};
use http_body::{Body as _, Frame};

use super::body::{Broken, Incoming};
use super::connection::Client;
use super::fields::Note;
use super::gate::Asked;
use super::head::Parts;
use super::headers::{self, BodyLength, Origin};
use super::http1::{self, Change, Head};
use super::pipe::Pipe;
use super::settings::Settings;
use super::upgrade::{self, Offer, Upgrade};
use super::upstream::{Endpoint, Stream};
use crate::metrics::Reason;
use crate::table::{EndpointAddr, SentHost};

/// How much of a body is gathered before it is written.
const BATCH: usize = 16 * 1024;

/// A request's body, of which nothing has been taken yet.
#[derive(Debug)]
pub struct Upload {
    rest: Rest,
    length: BodyLength,
    /// What a client's stream carries when it is a tunnel: no body.
    tunnel: Incoming,
    /// How many bytes it may have.
    most: u64,
}

/// What is left to take of a body.
#[derive(Debug)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// Waits for the endpoint's `100 Continue`.
    Held(Incoming, Coding),
    /// On its way.
    Open(Incoming, Coding),
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is; its length was announced.
    Plain,
    /// In chunks.
    Chunked,
}

/// What is left to send of a request.
#[derive(Debug)]
pub struct Outgoing {
    /// Bytes to write before `frame`; the head is the first of them, until it was written.
    out: Vec<u8>,
    head_length: usize,
    frame: Bytes,
    /// Behind both.
    pipe: Option<Pipe>,
    rest: Rest,
    settings: Rc<Settings>,
    /// How many bytes of the body the client has sent, and how many it may.
    taken: u64,
    most: u64,
    /// How many it has announced.
    announced: Option<u64>,
    /// True when something of it was written.
    is_begun: bool,
    is_sent: bool,
    /// True when the endpoint took not all of it.
    is_cut: bool,
    upgrade: Option<Upgrade>,
    /// Our key of the upgrade, for a client that has none.
    key: String,
}

/// What a request waits for before more of it can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// For nothing: all of it is sent.
    Sent,
    /// For the endpoint's `100 Continue`.
    Continue,
    /// For the client's next bytes.
    Client,
    /// For the endpoint to read.
    Endpoint,
}

impl Upload {
    /// The body of the request `head`, of at most so many bytes, and how it is delimited towards the endpoint.
    pub fn of(head: &Parts, body: Incoming, asked: &Asked<'_>, most: Option<u64>) -> Self {
        let most = most.unwrap_or(u64::MAX);
        if asked.upgrade.is_some_and(|upgrade| upgrade != Upgrade::Listed) {
            return Self { rest: Rest::Nothing, length: BodyLength::None, tunnel: body, most };
        }
        let tunnel = Incoming::None;
        if body.is_end_stream() && !head.headers.has(Note::TransferEncoding) {
            let announced = head.headers.has(Note::ContentLength);
            let length = if announced { BodyLength::Known(0) } else { BodyLength::None };
            return Self { rest: Rest::Nothing, length, tunnel, most };
        }
        let (length, coding) = match body.size_hint().exact() {
            Some(length) => (BodyLength::Known(length), Coding::Plain),
            None => (BodyLength::Unknown, Coding::Chunked),
        };
        // The endpoint says nothing to what it was not told of.
        let is_told = || head.headers.has(Note::Expect) && !headers::is_nominated(&head.headers, &EXPECT);
        let rest = if asked.expects_continue && is_told() { Rest::Held } else { Rest::Open };
        Self { rest: rest(body, coding), length, tunnel, most }
    }

    /// What a tunnel's client sends.
    pub fn take_tunnel(&mut self) -> Incoming {
        std::mem::replace(&mut self.tunnel, Incoming::None)
    }

    /// True when there is no body.
    pub fn is_empty(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }
}

impl Rest {
    /// Lets a held body go; true when there was one.
    pub fn let_go(&mut self) -> bool {
        match std::mem::replace(self, Self::Nothing) {
            Self::Held(body, coding) => {
                *self = Self::Open(body, coding);
                true
            }
            other => {
                *self = other;
                false
            }
        }
    }

    /// Lets a held body go that has begun to come: its client does not wait for `100 Continue` (RFC 9110 §10.1.1).
    pub fn let_go_if_come(&mut self, cx: &mut Context<'_>) {
        if let Self::Held(body, _) = self
            && body.poll_come(cx).is_ready()
        {
            self.let_go();
        }
    }
}

impl Outgoing {
    /// The request as `endpoint` gets it; takes the body out of `upload`.
    pub fn new(
        client: &Client,
        head: &Parts,
        asked: &Asked<'_>,
        upload: &mut Upload,
        endpoint: &Endpoint,
    ) -> Self {
        let (settings, own) = (client.settings(), OnceCell::new());
        let host = match asked.sent_host {
            Some(SentHost::Fixed(host)) => host.as_bytes(),
            None if !asked.authority.is_empty() => asked.authority,
            Some(SentHost::Endpoint) | None => own.get_or_init(|| own_host(&endpoint.address)).as_bytes(),
        };
        let origin = Origin {
            caller: client.caller(),
            introduction: client.introduction(),
            host,
            asked: if asked.authority.is_empty() { host } else { asked.authority },
            forwarded: settings.forwarded,
            via: &settings.via,
        };
        let key = match asked.upgrade {
            Some(Upgrade::Http2) => upgrade::key([0; 4].map(|_: u32| client.worker.coin())),
            Some(Upgrade::Http1 | Upgrade::Listed) | None => String::new(),
        };
        let mut out = client.worker.take_buffer();
        headers::write_request(
            &mut out,
            head,
            asked.target,
            upload.length,
            origin,
            asked.upgrade.map(|upgrade| (upgrade, &*key)),
        );
        let rest = std::mem::replace(&mut upload.rest, Rest::Nothing);
        Self {
            head_length: out.len(),
            out,
            frame: Bytes::new(),
            pipe: None,
            rest,
            settings,
            taken: 0,
            most: upload.most,
            announced: match upload.length {
                BodyLength::Known(length) => Some(length),
                BodyLength::None | BodyLength::Unknown => None,
            },
            is_begun: false,
            is_sent: false,
            is_cut: false,
            upgrade: asked.upgrade,
            key,
        }
    }

    /// The head that was written, the body that goes with it, and the change of protocol that it asks for.
    pub fn into_parts(self) -> (Vec<u8>, Rest, Option<Upgrade>) {
        (self.out, self.rest, self.upgrade)
    }

    /// True when there is nothing more to send, whether or not the endpoint took it all.
    pub fn is_over(&self) -> bool {
        self.is_sent
    }

    /// True when the endpoint has all of it.
    pub fn is_whole(&self) -> bool {
        self.is_sent && !self.is_cut
    }

    /// True when `head` is the change of protocol that `asked` has asked for.
    pub fn is_accepted_by(&self, head: &Head, asked: &Parts) -> bool {
        match (self.upgrade, head.change) {
            // It is the client's key, and the client's to judge.
            (Some(Upgrade::Http1), Some(Change::Websocket)) => {
                head.headers.get_all(SEC_WEBSOCKET_ACCEPT).iter().count() == 1
            }
            (Some(Upgrade::Http2), Some(Change::Websocket)) => {
                upgrade::is_accepted(&head.headers, self.key.as_bytes())
            }
            (Some(Upgrade::Listed), Some(Change::Other)) => Offer::is_accepted(asked, &head.headers),
            (_, Some(Change::Websocket | Change::Other) | None) => false,
        }
    }

    /// Any success of a `CONNECT` is the tunnel to its client (RFC 9110 §9.3.6), who would take the body for what comes through.
    ///
    /// # Errors
    /// [`Reason::NoWebsocket`] when `head` is one, and no change of protocol.
    pub fn check(&self, head: &Head) -> Result<(), Reason> {
        let is_other = self.upgrade == Some(Upgrade::Http2) && head.status.is_success();
        if is_other { Err(Reason::NoWebsocket) } else { Ok(()) }
    }

    /// How many bytes of the body were taken so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Lets a held body go; true when there was one.
    pub fn let_go(&mut self) -> bool {
        self.rest.let_go()
    }

    /// The emptied buffer, for the next request's head.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Sends as much as goes: whether any byte moved, and what the rest waits for.
    ///
    /// # Errors
    /// When the client's body breaks off.
    pub fn send(
        &mut self,
        stream: &mut Option<Stream>,
        cx: &mut Context<'_>,
    ) -> Result<(bool, Waiting), Reason> {
        let mut moved = false;
        while !self.is_sent {
            let waits_for_client = self.gather(stream.as_ref().is_some_and(Stream::is_plain), cx)?;
            let Some(stream) = stream else {
                self.cut();
                break;
            };
            let flushed = self.flush(stream, &mut moved, cx);
            self.is_begun |= moved;
            match flushed {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) if self.is_unsent() && stream.fails_whole(self.out.len()) => {
                    // It stays as it was gathered.
                    (self.is_sent, self.is_cut) = (true, true);
                    break;
                }
                Poll::Ready(Err(_)) => self.cut(),
                Poll::Pending => return Ok((moved, Waiting::Endpoint)),
            }
            self.rest.let_go_if_come(cx);
            match self.rest {
                Rest::Nothing => self.is_sent = true,
                Rest::Held(..) => return Ok((moved, Waiting::Continue)),
                Rest::Open(..) if waits_for_client => return Ok((moved, Waiting::Client)),
                Rest::Open(..) => {}
            }
        }
        Ok((moved, Waiting::Sent))
    }

    /// Takes frames of the body until there is a batch to write, or a pipe of it; true when the client has to be waited for.
    fn gather(&mut self, is_plain: bool, cx: &mut Context<'_>) -> Result<bool, Reason> {
        while self.frame.is_empty() && self.pipe.is_none() && self.out.len() < BATCH {
            let Rest::Open(body, coding) = &mut self.rest else { return Ok(false) };
            let coding = *coding;
            if is_plain && coding == Coding::Plain {
                match body.poll_pipe(cx) {
                    Poll::Ready(None) => {}
                    Poll::Ready(Some(Ok(pipe))) => {
                        self.take(pipe.held())?;
                        self.pipe = Some(pipe);
                        return Ok(false);
                    }
                    Poll::Ready(Some(Err(broken))) => return Err(because(broken)),
                    Poll::Pending => return Ok(true),
                }
            }
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { return Ok(true) };
            match frame {
                Some(Ok(frame)) => {
                    self.take(frame.data_ref().map_or(0, Bytes::len))?;
                    self.encode(frame, coding);
                }
                Some(Err(broken)) => return Err(because(broken)),
                // An endpoint would take the next request's bytes for what is missing.
                None if coding == Coding::Plain && self.announced != Some(self.taken) => {
                    return Err(Reason::RequestBody);
                }
                None => {
                    if coding == Coding::Chunked {
                        http1::encode_end(&mut self.out, None);
                    }
                    self.rest = Rest::Nothing;
                }
            }
        }
        Ok(false)
    }

    /// The client has sent so many more bytes.
    fn take(&mut self, bytes: usize) -> Result<(), Reason> {
        self.taken += bytes as u64;
        if self.taken > self.most { Err(Reason::RequestTooLarge) } else { Ok(()) }
    }

    fn encode(&mut self, frame: Frame<Bytes>, coding: Coding) {
        match (frame.into_data(), coding) {
            (Ok(data), Coding::Plain) if self.out.len() + data.len() <= BATCH => {
                self.out.extend_from_slice(&data);
            }
            (Ok(data), Coding::Plain) => self.frame = data,
            // A chunk of length 0 would end the body.
            (Ok(data), Coding::Chunked) if data.is_empty() => {}
            (Ok(data), Coding::Chunked) => http1::encode_chunk(&mut self.out, &data),
            (Err(frame), Coding::Chunked) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                self.settings.clean_trailers(&mut trailers);
                http1::encode_end(&mut self.out, Some(&trailers));
                self.rest = Rest::Nothing;
            }
            (Err(_), Coding::Plain) => {}
        }
    }
}

/// An endpoint's own `Host`; a Unix socket has none, and everything is local to it.
fn own_host(address: &EndpointAddr) -> String {
    match address {
        EndpointAddr::Unix(_) => "localhost".to_owned(),
        EndpointAddr::Tcp(_) | EndpointAddr::Named { .. } => address.to_string(),
    }
}

/// What a request's broken body is counted as.
pub(super) fn because(broken: Broken) -> Reason {
    match broken {
        Broken::Gone => Reason::ClientGone,
        Broken::Malformed => Reason::RequestBody,
    }
}
