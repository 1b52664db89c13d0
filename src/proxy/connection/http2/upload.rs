//! A request's body as it comes from a stream.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason as Code, RecvStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Frame;

use super::stream::Reply;
use crate::proxy::body::{Broken, Incoming};
use crate::proxy::headers::is_padded;

/// A request's body; what nobody has read of it when it is dropped is left to the stream's answer.
#[derive(Debug)]
pub struct Upload {
    /// `None` only while it is dropped.
    body: Option<RecvStream>,
    /// How many bytes are to come, if that was announced; h2 holds the client to it.
    remaining: Option<u64>,
    is_read: bool,
    reply: Rc<Reply>,
    /// True while the client is to be told to go on when the body is first asked for.
    is_expecting: bool,
}

impl Upload {
    pub(super) fn of(
        headers: &HeaderMap,
        body: RecvStream,
        reply: &Rc<Reply>,
        is_expecting: bool,
    ) -> Incoming {
        if body.is_end_stream() {
            return Incoming::None;
        }
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let reply = Rc::clone(reply);
        Incoming::Http2(Self { body: Some(body), remaining: length, is_read: false, reply, is_expecting })
    }

    /// The next part of the body.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if std::mem::take(&mut self.is_expecting) {
            self.reply.go_on();
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if !self.is_read {
            match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Taken is taken: the next is asked for when the endpoint has this one.
                    drop(body.flow_control().release_capacity(data.len()));
                    self.remaining = self.remaining.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(broken(&error)))),
                None => self.is_read = true,
            }
        }
        match ready!(body.poll_trailers(cx)) {
            // As in a head, which the gate refuses; whoever shares an endpoint's connection would pay for it.
            Ok(Some(trailers)) if trailers.values().any(is_padded) => {
                Poll::Ready(Some(Err(Broken::Malformed)))
            }
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(broken(&error)))),
        }
    }

    /// True when something of it has come.
    pub fn has_come(&mut self) -> bool {
        self.is_end() || self.body.as_mut().is_some_and(|body| body.flow_control().used_capacity() > 0)
    }

    /// True when nothing is to come any more.
    pub fn is_end(&self) -> bool {
        self.body.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// How many bytes are to come, if that is known.
    pub fn remaining(&self) -> Option<u64> {
        self.remaining
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.reply.unread.replace(self.body.take());
    }
}

/// Who did not send what it announced, or anything malformed, has itself to blame; everybody else is just gone.
fn broken(error: &h2::Error) -> Broken {
    if error.is_library() && error.reason() == Some(Code::PROTOCOL_ERROR) {
        Broken::Malformed
    } else {
        Broken::Gone
    }
}
