//! What an endpoint's flow control lets through.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;

/// How many bytes may be sent now, up to `wanted`; `None` when the endpoint takes no more.
pub fn poll_room(send: &mut SendStream<Bytes>, wanted: usize, cx: &mut Context<'_>) -> Poll<Option<usize>> {
    send.reserve_capacity(wanted);
    loop {
        let room = send.capacity();
        if room > 0 {
            return Poll::Ready(Some(room));
        }
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(None),
        }
    }
}
