//! What is remembered of a body, to be compared with another: its length and a hash, if it ends and is short enough.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::metrics::Reason;
use crate::proxy::body::{Flow, Part};
use crate::proxy::pipe::Pipes;
use crate::table::fnv::Fnv;

/// A body's length, and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(u64, u64);

/// What has come of a body so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum {
    hash: Fnv,
    length: u64,
    most: u64,
}

impl Sum {
    /// Of a body that is compared if it has at most so many bytes.
    pub(super) fn new(most: u64) -> Self {
        Self { hash: Fnv::default(), length: 0, most }
    }

    /// More of it; false when it is too much.
    pub(super) fn add(&mut self, bytes: &[u8]) -> bool {
        self.length += bytes.len() as u64;
        if self.length > self.most {
            return false;
        }
        bytes.iter().for_each(|byte| self.hash.write(*byte));
        true
    }

    /// All of it has come.
    pub(super) fn digest(self) -> Digest {
        Digest(self.length, self.hash.finish())
    }
}

/// A body on its way to its client, of which the digest is told once it has all passed, and is not if it is too long or breaks off.
#[derive(Debug)]
pub struct Watched {
    flow: Flow,
    /// Until it is told, or never will be.
    sum: Option<(Sum, oneshot::Sender<Digest>)>,
}

impl Watched {
    pub(super) fn new(flow: Flow, most: u64) -> (Self, oneshot::Receiver<Digest>) {
        let (tell, told) = oneshot::channel();
        (Self { flow, sum: Some((Sum::new(most), tell)) }, told)
    }

    /// The next part of it, as [`Flow::poll_part`]; not in a pipe as long as it is looked at.
    pub fn poll_part(
        &mut self,
        pipes: Option<&Rc<Pipes>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, Reason>>> {
        let pipes = pipes.filter(|_| self.sum.is_none());
        let polled = self.flow.poll_part(pipes, cx);
        match &polled {
            Poll::Ready(Some(Ok(Part::Frame(frame)))) => {
                let bytes = frame.data_ref().map_or(&[][..], Bytes::as_ref);
                let fits = self.sum.as_mut().is_none_or(|(sum, _)| sum.add(bytes));
                if !fits {
                    self.sum = None;
                } else if self.flow.is_over() {
                    self.tell();
                }
            }
            Poll::Ready(None) => self.tell(),
            Poll::Ready(Some(Ok(Part::Piped(_)) | Err(_))) => self.sum = None,
            Poll::Pending => {}
        }
        polled
    }

    fn tell(&mut self) {
        if let Some((sum, tell)) = self.sum.take() {
            // Nobody waits for it any more.
            let _ = tell.send(sum.digest());
        }
    }

    pub(in crate::proxy) fn flow(&self) -> &Flow {
        &self.flow
    }

    pub(in crate::proxy) fn flow_mut(&mut self) -> &mut Flow {
        &mut self.flow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_the_same_whatever_pieces_they_come_in() {
        let of = |parts: &[&str]| {
            let mut sum = Sum::new(6);
            parts.iter().all(|part| sum.add(part.as_bytes())).then(|| sum.digest())
        };
        assert_eq!(of(&["abc", "def"]), of(&["abcdef", ""]));
        assert_ne!(of(&["abcdef"]), of(&["abcdeg"]));
        assert_ne!(of(&[]), of(&["\0"]));
        assert_eq!(of(&["abcdefg"]), None, "too much");
    }
}
