//! The body of the request at hand: read when the exchange asks for it, passed over when nobody wants it.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;

use super::{Stage, Wire};
use crate::proxy::body::{Broken, Source};
use crate::proxy::http1::{Decoded, Decoder, Malformed};
use crate::proxy::worker::HEAD;

/// How long, and for how many bytes, a client that may ask again goes on sending what nobody will read, once it has its answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

impl Wire {
    /// The next part of the body of the request at hand.
    pub fn poll_upload(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            let mut body = self.body.get();
            let decoded = body.decode(&mut self.input.borrow_mut());
            self.body.set(body);
            match decoded {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(_) => return Poll::Ready(Some(Err(Broken::Malformed))),
            }
            self.go_on();
            match ready!(self.poll_fill(usize::MAX, cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(Broken::Gone))),
            }
        }
    }

    /// Ready when something of the body has come, or nothing can come any more.
    pub fn poll_come(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.input.borrow().is_empty() {
            self.poll_fill(usize::MAX, cx).map(drop)
        } else {
            Poll::Ready(())
        }
    }

    /// Tells a client that waits for it to send the body.
    pub(in super::super) fn go_on(&self) {
        if self.stage.get() == Stage::Expecting {
            self.stage.set(Stage::Waiting);
            let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
            self.out.borrow_mut().text(&self.client.worker).extend_from_slice(go_on);
        }
    }

    /// How the body of the request at hand is delimited from here on.
    pub fn upload(&self) -> Decoder {
        self.body.get()
    }

    /// Whether the connection can take another request behind this answer, by what is left of the body of the one at hand: it will not
    /// be read once the answer is over (RFC 9112 §9.3).
    pub(super) fn may_persist(&self, source: &Source) -> bool {
        match source {
            // Until then it is still on its way to the endpoint; but for one that its client waits to be asked for, and need not send.
            Source::Stream(_) => self.stage.get() != Stage::Expecting || self.body.get().is_end(),
            Source::Full(_) | Source::Tunnel(_) => self.skip_body(),
        }
    }

    /// Passes over what the client is still sending of the request at hand, whose answer is over; true when that was all. The answer did
    /// not say that the connection ends: the next request may be on its way already.
    pub(super) async fn linger(&self) -> bool {
        self.watch.set(LINGER);
        let mut left = LINGER_BYTES;
        let is_read = poll_fn(|cx| {
            while let Ok(false) = self.skip() {
                match self.poll_fill(HEAD, cx) {
                    Poll::Ready(Ok(read @ 1..)) if read < left => left -= read,
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return self.watch.poll(cx).map(|()| false),
                }
            }
            Poll::Ready(self.body.get().is_end())
        })
        .await;
        self.watch.clear();
        is_read
    }

    /// Passes over what has come of a body that nobody wants; true when that was all of it.
    pub(super) fn skip_body(&self) -> bool {
        self.skip().unwrap_or(false)
    }

    fn skip(&self) -> Result<bool, Malformed> {
        let mut body = self.body.get();
        let mut input = self.input.borrow_mut();
        let skipped = loop {
            match body.decode(&mut input) {
                Ok(Decoded::Data(_) | Decoded::Trailers(_)) => {}
                Ok(Decoded::End | Decoded::More) => break Ok(body.is_end()),
                Err(why) => break Err(why),
            }
        };
        self.body.set(body);
        skipped
    }
}
