//! A copy and its answer on the wire: over a connection of its own, of which nothing is kept.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::digest::{Digest, Sum};
use crate::proxy::connection::Client;
use crate::proxy::fields::Note;
use crate::proxy::forward::http2;
use crate::proxy::gate::Asked;
use crate::proxy::head::Parts;
use crate::proxy::headers;
use crate::proxy::http1::{self, Decoded, Decoder, Head};
use crate::proxy::media;
use crate::proxy::outgoing::{Outgoing, Upload};
use crate::proxy::upstream::{Dialed, Endpoint};
use crate::table::ServiceName;
use crate::table::mirror::MARK;

/// How long an answer that nobody compares is read at most, so that its version does not find its connection reset.
const LINGER: Duration = Duration::from_secs(1);
/// How much is read at once.
const READ: usize = 16 * 1024;
/// The longest head, and the longest trailers, of an answer over HTTP/2.
const MOST_HEADERS: u32 = 64 * 1024;

/// A copy as it is sent.
pub(super) struct Message {
    method: Method,
    /// The head as it is written for HTTP/1.1.
    head: Vec<u8>,
    /// The same for HTTP/2, if that is spoken and it can be said there.
    request: Option<Request<()>>,
    body: Option<Bytes>,
}

/// What the version said.
pub(super) struct Answered {
    pub(super) status: u16,
    /// Its body, if that was read and was short enough; an error when it broke off.
    pub(super) body: Option<Result<Digest, Broken>>,
}

/// There is no answer, or the rest of it does not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

impl<E: std::error::Error> From<E> for Broken {
    fn from(_: E) -> Self {
        Self
    }
}

impl Message {
    /// The copy of a request of `service` with this head, as `endpoint` would get it, and with this body.
    pub(super) fn of(
        client: &Client,
        (head, asked): (&Parts, &Asked<'_>),
        endpoint: &Endpoint,
        (body, service): (Option<Vec<u8>>, &ServiceName),
    ) -> Self {
        let announced = body.as_ref().map(Vec::len).or(head.headers.has(Note::ContentLength).then_some(0));
        let mut upload = Upload::elsewhere(announced);
        let (written, _, _) = Outgoing::new(client, head, asked, &mut upload, endpoint).into_parts();
        let mut marked = written.strip_suffix(b"\r\n").unwrap_or(&written).to_vec();
        client.worker.give_back(written);
        headers::append(&mut marked, MARK.as_bytes(), service.as_str().as_bytes());
        marked.extend_from_slice(b"\r\n");
        let lexicon = &client.worker.lexicon;
        let is_http2 = endpoint.shares_connections();
        let request = is_http2.then(|| http2::request(&marked, endpoint.scheme(), lexicon).ok()).flatten();
        Self { method: head.method.clone(), head: marked, request, body: body.map(Bytes::from) }
    }

    /// Sends it, and reads the answer by `end`, of the body as much as `reads` says if that is to be compared; `is_sent` once all of it has
    /// gone out.
    pub(super) async fn exchange(
        self,
        endpoint: &Endpoint,
        reads: Option<u64>,
        end: Instant,
        is_sent: &Cell<bool>,
    ) -> Result<Answered, Broken> {
        let dial = endpoint.dial();
        let stream = timeout_at(end, Box::pin(dial.connect())).await??;
        if endpoint.shares_connections() {
            Box::pin(self.over_http2(stream, reads, end, is_sent)).await
        } else {
            Box::pin(self.over_http1(stream, reads, end, is_sent)).await
        }
    }

    async fn over_http1(
        self,
        stream: Dialed,
        reads: Option<u64>,
        end: Instant,
        is_sent: &Cell<bool>,
    ) -> Result<Answered, Broken> {
        let mut answer = Http1 { stream, input: Bytes::new() };
        let begun = async {
            answer.stream.write_all(&self.head).await?;
            answer.stream.write_all(&self.body.unwrap_or_default()).await?;
            answer.stream.flush().await?;
            is_sent.set(true);
            answer.head(&self.method).await
        };
        let Head { status, headers, mut body, .. } = timeout_at(end, begun).await??;
        let content = headers.first(Note::ContentType).unwrap_or_default();
        let body = match far(reads, end, media::is_events(content)) {
            Some((most, end)) => in_time(end, answer.body(&mut body, most)).await,
            None => None,
        };
        Ok(Answered { status: status.as_u16(), body })
    }

    async fn over_http2(
        self,
        stream: Dialed,
        reads: Option<u64>,
        end: Instant,
        is_sent: &Cell<bool>,
    ) -> Result<Answered, Broken> {
        let request = self.request.ok_or(Broken)?;
        let opening = h2::client::Builder::new()
            .max_header_list_size(MOST_HEADERS)
            .enable_push(false)
            .handshake(stream);
        let (client, connection) = timeout_at(end, opening).await??;
        let exchange = async {
            let begun = async {
                let mut client = client.ready().await?;
                let (answer, mut send) = client.send_request(request, self.body.is_none())?;
                if let Some(body) = self.body {
                    send.send_data(body, true)?;
                }
                is_sent.set(true);
                Ok::<_, Broken>(answer.await?.into_parts())
            };
            let (head, mut receive) = timeout_at(end, begun).await??;
            let content = head.headers.get(CONTENT_TYPE);
            let is_events = content.is_some_and(|content| media::is_events(content.as_bytes()));
            let body = match far(reads, end, is_events) {
                Some((most, end)) => in_time(end, body_of(&mut receive, most)).await,
                None => None,
            };
            Ok(Answered { status: head.status.as_u16(), body })
        };
        let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
        tokio::select! {
            biased;
            answered = &mut exchange => answered,
            // What has come is there.
            _ = &mut connection => exchange.await,
        }
    }
}

/// How much of a body is read, and until when; `None` of one that is not compared and may have no end.
fn far(reads: Option<u64>, end: Instant, is_events: bool) -> Option<(u64, Instant)> {
    match reads {
        Some(most) => Some((most, end)),
        None => (!is_events).then(|| (u64::MAX, end.min(Instant::now() + LINGER))),
    }
}

/// What is read of a body by then.
async fn in_time(
    end: Instant,
    body: impl Future<Output = Result<Option<Digest>, Broken>>,
) -> Option<Result<Digest, Broken>> {
    timeout_at(end, body).await.unwrap_or(Err(Broken)).transpose()
}

/// An answer over HTTP/1.1.
struct Http1 {
    stream: Dialed,
    input: Bytes,
}

impl Http1 {
    /// Its head, behind any number of interim ones.
    async fn head(&mut self, method: &Method) -> Result<Head, Broken> {
        loop {
            match http1::parse_head(&mut self.input, method)? {
                Some(head) if head.status.is_informational() => {}
                Some(head) => return Ok(head),
                None if self.more().await? == 0 => return Err(Broken),
                None => {}
            }
        }
    }

    /// Its body, if it has at most so many bytes.
    async fn body(&mut self, decoder: &mut Decoder, most: u64) -> Result<Option<Digest>, Broken> {
        let mut sum = Sum::new(most);
        loop {
            match decoder.decode(&mut self.input)? {
                Decoded::Data(data) if !sum.add(&data) => return Ok(None),
                Decoded::Data(_) => {}
                Decoded::Trailers(_) | Decoded::End => return Ok(Some(sum.digest())),
                Decoded::More if self.more().await? == 0 => {
                    return if *decoder == Decoder::UntilClose {
                        Ok(Some(sum.digest()))
                    } else {
                        Err(Broken)
                    };
                }
                Decoded::More => {}
            }
        }
    }

    /// Reads once.
    async fn more(&mut self) -> io::Result<usize> {
        let mut fresh = BytesMut::with_capacity(READ);
        let read = self.stream.read_buf(&mut fresh).await?;
        self.input =
            if self.input.is_empty() { fresh.freeze() } else { [&self.input[..], &fresh].concat().into() };
        Ok(read)
    }
}

/// The body of an answer over HTTP/2, if it has at most so many bytes.
async fn body_of(receive: &mut h2::RecvStream, most: u64) -> Result<Option<Digest>, Broken> {
    let mut sum = Sum::new(most);
    while let Some(data) = receive.data().await {
        let data = data?;
        receive.flow_control().release_capacity(data.len())?;
        if !sum.add(&data) {
            return Ok(None);
        }
    }
    Ok(Some(sum.digest()))
}
