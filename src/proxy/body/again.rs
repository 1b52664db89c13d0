//! A body that is sent again, because nothing of what had been taken of it was sent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use super::{Broken, Incoming};
use crate::proxy::pipe::Pipe;

/// What had been taken of a body, then the rest of it as it comes from the client.
#[derive(Debug)]
pub struct Again {
    frames: VecDeque<Frame<Bytes>>,
    /// Behind them.
    pipe: Option<Pipe>,
    rest: Incoming,
}

impl Again {
    /// These frames, then what the pipe holds, then `rest`.
    #[must_use]
    pub fn new(frames: VecDeque<Frame<Bytes>>, pipe: Option<Pipe>, rest: Incoming) -> Self {
        Self { frames, pipe, rest }
    }

    fn is_over(&self) -> bool {
        self.frames.is_empty() && self.pipe.is_none()
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match self.pipe.take() {
            // It is the proxy that cannot read it, and the client that is not heard any more.
            Some(pipe) => Poll::Ready(Some(pipe.into_bytes().map(Frame::data).map_err(|_| Broken::Gone))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    pub(super) fn poll_pipe(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Pipe, Broken>>> {
        if !self.frames.is_empty() {
            return Poll::Ready(None);
        }
        match self.pipe.take() {
            Some(pipe) => Poll::Ready(Some(Ok(pipe))),
            None => self.rest.poll_pipe(cx),
        }
    }

    pub(super) fn poll_come(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over() { self.rest.poll_come(cx) } else { Poll::Ready(()) }
    }

    pub(super) fn is_end(&self) -> bool {
        self.is_over() && self.rest.is_end_stream()
    }

    pub(super) fn remaining(&self) -> Option<u64> {
        let taken = self.frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>();
        let taken = taken + self.pipe.as_ref().map_or(0, Pipe::held);
        self.rest.size_hint().exact().map(|rest| rest + taken as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use super::*;
    use crate::proxy::pipe::Pipes;
    use crate::proxy::upstream::Stream;

    /// `one`, then `two` in a pipe, then nothing.
    async fn again() -> Again {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.write_all(b"two").unwrap();
        let mut from = Stream::Unix(tokio::net::UnixStream::from_std(ours).unwrap());
        let mut pipe = Rc::<Pipes>::default().take().unwrap();
        poll_fn(|cx| pipe.poll_fill(&mut from, 100, cx)).await.unwrap();
        Again::new([Frame::data("one".into())].into(), Some(pipe), Incoming::None)
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    async fn frame(again: &mut Again) -> Option<Bytes> {
        poll_fn(|cx| again.poll_frame(cx)).await.map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[test]
    fn what_was_taken_comes_first_and_in_order_as_bytes_or_in_its_pipe() {
        run(async {
            let mut bytes = again().await;
            assert_eq!((bytes.remaining(), bytes.is_end()), (Some(6), false));
            assert_eq!(frame(&mut bytes).await.unwrap(), "one");
            assert_eq!(frame(&mut bytes).await.unwrap(), "two");
            assert!(frame(&mut bytes).await.is_none() && bytes.is_end());
            let mut piped = again().await;
            assert!(poll_fn(|cx| piped.poll_pipe(cx)).await.is_none(), "a frame is before it");
            assert_eq!(frame(&mut piped).await.unwrap(), "one");
            let pipe = poll_fn(|cx| piped.poll_pipe(cx)).await.unwrap().unwrap();
            assert_eq!((pipe.held(), piped.remaining()), (3, Some(0)));
            assert!(poll_fn(|cx| piped.poll_pipe(cx)).await.is_none());
        });
    }
}
