//! The body of the request at hand: read when the exchange asks for it, passed over when nobody wants it.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::{Stage, Wire};
use crate::proxy::body::Broken;
use crate::proxy::http1::{Decoded, Decoder};

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

    /// Passes over what has come of a body that nobody wants; true when that was all of it.
    pub(super) fn skip_body(&self) -> bool {
        let mut body = self.body.get();
        let mut input = self.input.borrow_mut();
        while let Ok(Decoded::Data(_) | Decoded::Trailers(_)) = body.decode(&mut input) {}
        self.body.set(body);
        body.is_end()
    }
}
