//! Pipes that bodies pass through inside the kernel.
//!
//! `splice(2)` hands the pages of one socket on to another, and no byte of them is copied to us. A pipe is in between,
//! which is taken for as long as it holds something: who waits for bytes has none, who does not take them has one. Where
//! there is no pipe, because a worker has no more of them, connections need the file descriptors or the kernel gives none, bodies
//! are copied.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::descriptors::Taken;
use super::upstream::Stream;

/// From how many bytes on a body is worth a pipe; below, the two calls more cost what the copies save.
pub const WORTH: u64 = 32 * 1024;
/// How much a pipe holds.
const SIZE: usize = 256 * 1024;
/// How much is read with a head where bodies are large: what comes along of the body is copied, so that it shall be little.
/// Of 4, 8 and 16 KiB and no limit this was the cheapest at answers of 64 KiB.
const FIRST_READ: usize = 4 * 1024;
/// Most pipes that a worker has at a time, of two file descriptors each; the next bodies are copied.
const MOST: usize = 128;
/// Most empty pipes that it keeps.
const MOST_KEPT: usize = 16;
/// How many times there is none after none was to be had, before it is asked for again: what the kernel gives to a user or a
/// process is bounded (pipe(7), `pipe-user-pages-soft`), and others have a part in it.
const PAUSE: u32 = 256;

/// One worker's pipes.
#[derive(Debug, Default)]
pub struct Pipes {
    kept: RefCell<Vec<Ends>>,
    taken: Cell<usize>,
    /// How many times there is none without asking.
    pause: Cell<u32>,
    /// True when the kernel does not splice.
    is_refused: Cell<bool>,
    /// True when it has: what it refuses then is this socket's.
    has_worked: Cell<bool>,
}

/// Whether the bodies that come from one side are large: then less of them is read along with their heads.
#[derive(Debug, Default)]
pub struct Bulk(Cell<bool>);

impl Bulk {
    /// How much to read at most when a head is waited for.
    pub fn first_read(&self) -> usize {
        if self.0.get() { FIRST_READ } else { usize::MAX }
    }

    /// A body of this length comes, if that is known.
    pub fn saw(&self, length: Option<u64>) {
        if let Some(length) = length.filter(|length| *length > FIRST_READ as u64) {
            self.0.set(length >= FIRST_READ as u64 + WORTH);
        }
    }
}

/// A pipe's two ends.
#[derive(Debug)]
struct Ends {
    out: OwnedFd,
    into: OwnedFd,
    _taken: [Taken; 2],
}

/// A pipe; dropped, it goes back to its worker if it is empty, and is closed if it is not.
#[derive(Debug)]
pub struct Pipe {
    pipes: Rc<Pipes>,
    /// There until it is dropped.
    ends: Option<Ends>,
    held: usize,
}

impl Pipes {
    /// An empty pipe, if one is to be had.
    #[must_use]
    pub fn take(self: &Rc<Self>) -> Option<Pipe> {
        if self.is_refused.get() || self.taken.get() == MOST {
            return None;
        }
        let kept = self.kept.borrow_mut().pop();
        let ends = kept.or_else(|| self.open())?;
        self.taken.set(self.taken.get() + 1);
        Some(Pipe { pipes: Rc::clone(self), ends: Some(ends), held: 0 })
    }

    fn open(&self) -> Option<Ends> {
        if let Some(left) = self.pause.get().checked_sub(1) {
            self.pause.set(left);
            return None;
        }
        Ends::open().inspect_err(|_| self.pause.set(PAUSE)).ok()
    }
}

impl Ends {
    fn open() -> io::Result<Self> {
        let taken = Taken::for_pipe()?;
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Who has many gets one that holds a page or two, which would cost more than it saves.
        fcntl_setpipe_size(&into, SIZE)?;
        Ok(Self { out, into, _taken: taken })
    }
}

impl Pipe {
    /// How many bytes it holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes bytes off `from` into the pipe, which must be empty, at most `most` of them; `Ok(0)` is the end. The kernel may
    /// [refuse](is_refusal): then nothing was taken.
    pub fn poll_fill(
        &mut self,
        from: &mut Stream,
        most: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        let most = usize::try_from(most).unwrap_or(SIZE).min(SIZE);
        let filled = ready!(from.poll_reading(cx, |socket| {
            Ok(retry_on_intr(|| splice(socket, None, &ends.into, None, most, SpliceFlags::NONBLOCK))?)
        }));
        match &filled {
            Ok(filled) => {
                self.held = *filled;
                self.pipes.has_worked.set(true);
            }
            Err(error) => self.refused(error),
        }
        Poll::Ready(filled)
    }

    /// Hands on to `to` what it holds, as much as goes.
    fn poll_drain(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        let drained = ready!(to.poll_writing(cx, |socket| {
            Ok(retry_on_intr(|| splice(&ends.out, None, socket, None, self.held, SpliceFlags::NONBLOCK))?)
        }));
        match &drained {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(drained) => self.held -= drained,
            Err(error) => self.refused(error),
        }
        Poll::Ready(drained)
    }

    /// What it holds, as bytes of ours.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub fn into_bytes(mut self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.held];
        let mut at = 0;
        while let Some(ends) = self.ends.as_ref().filter(|_| at < bytes.len()) {
            match rustix::io::read(&ends.out, &mut bytes[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => at += read,
            }
        }
        self.held = 0;
        Ok(bytes.into())
    }

    fn refused(&self, error: &io::Error) {
        if is_refusal(error) && !self.pipes.has_worked.get() {
            self.pipes.is_refused.set(true);
        }
    }
}

/// Hands on to `to` what `pipe` holds, as much as goes, and lets go of it when it is empty. If the kernel refuses that, `frame`
/// has the bytes, and none are gone.
pub fn poll_drain(
    pipe: &mut Option<Pipe>,
    frame: &mut Bytes,
    to: &mut Stream,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let Some(full) = pipe else { return Poll::Ready(Ok(0)) };
    match ready!(full.poll_drain(to, cx)) {
        Err(error) if is_refusal(&error) => {
            *frame = pipe.take().map_or_else(|| Ok(Bytes::new()), Pipe::into_bytes)?;
            Poll::Ready(Ok(0))
        }
        drained => {
            pipe.take_if(|pipe| pipe.held == 0);
            Poll::Ready(drained)
        }
    }
}

/// True when the kernel says that it does not splice this: copying is possible all the same.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP];
    error.raw_os_error().is_some_and(|code| refusals.map(Errno::raw_os_error).contains(&code))
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pipes.taken.set(self.pipes.taken.get() - 1);
        let mut kept = self.pipes.kept.borrow_mut();
        if let Some(ends) = self.ends.take().filter(|_| self.held == 0 && kept.len() < MOST_KEPT) {
            kept.push(ends);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// A stream of ours, and its other side.
    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::Unix(tokio::net::UnixStream::from_std(ours).unwrap()), theirs)
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    /// Everything in `from` through pipes, at most `most` of each: how much was taken and handed on.
    async fn pass(pipes: &Rc<Pipes>, from: &mut Stream, to: &mut Stream, most: u64) -> (usize, usize) {
        let (mut taken, mut handed_on) = (0, 0);
        loop {
            let mut pipe = pipes.take().unwrap();
            let filled = poll_fn(|cx| pipe.poll_fill(from, most, cx)).await.unwrap();
            assert!(filled as u64 <= most && filled == pipe.held());
            taken += filled;
            let (mut pipe, mut frame) = (Some(pipe), Bytes::new());
            while pipe.as_ref().is_some_and(|pipe| pipe.held() > 0) {
                handed_on += poll_fn(|cx| poll_drain(&mut pipe, &mut frame, to, cx)).await.unwrap();
            }
            assert!(frame.is_empty(), "the kernel refuses");
            if filled == 0 {
                return (taken, handed_on);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_taken_is_handed_on(
            bytes in prop::collection::vec(any::<u8>(), 0..600_000),
            part in 1..100_000_usize,
            most in 1..400_000_u64,
        ) {
            let sent = bytes.clone();
            let (counts, got, pipes) = run(async move {
                let ((mut from, mut near), (mut to, mut far)) = (pair(), pair());
                let writing = thread::spawn(move || {
                    bytes.chunks(part).try_for_each(|part| near.write_all(part)).unwrap();
                });
                let reading = thread::spawn(move || {
                    let mut got = Vec::new();
                    far.read_to_end(&mut got).unwrap();
                    got
                });
                let pipes = Rc::<Pipes>::default();
                let counts = pass(&pipes, &mut from, &mut to, most).await;
                drop(to);
                writing.join().unwrap();
                (counts, reading.join().unwrap(), pipes)
            });
            prop_assert_eq!(counts, (sent.len(), sent.len()));
            prop_assert!(got == sent);
            prop_assert_eq!((pipes.taken.get(), pipes.kept.borrow().len()), (0, 1));
        }
    }

    #[test]
    fn a_pipe_that_holds_something_is_not_used_again() {
        run(async {
            let (mut from, mut near) = pair();
            near.write_all(b"of another").unwrap();
            let pipes = Rc::<Pipes>::default();
            let mut pipe = pipes.take().unwrap();
            poll_fn(|cx| pipe.poll_fill(&mut from, 100, cx)).await.unwrap();
            drop(pipe);
            assert_eq!((pipes.taken.get(), pipes.kept.borrow().len()), (0, 0));
        });
    }

    /// What the kernel does not splice, because it is no pipe; what is written into the one end is there at the other.
    fn refused(pipes: &Rc<Pipes>, held: &[u8]) -> Pipe {
        let (out, mut into) = UnixStream::pair().unwrap();
        into.write_all(held).unwrap();
        pipes.kept.borrow_mut().push(Ends {
            out: out.into(),
            into: into.into(),
            _taken: [Taken::one(), Taken::one()],
        });
        let mut pipe = pipes.take().unwrap();
        pipe.held = held.len();
        pipe
    }

    #[test]
    fn what_a_kernel_does_not_take_is_left_where_it_was() {
        run(async {
            let (mut from, mut near) = pair();
            near.write_all(b"all of it").unwrap();
            let pipes = Rc::<Pipes>::default();
            let mut pipe = refused(&pipes, b"");
            let error = poll_fn(|cx| pipe.poll_fill(&mut from, 100, cx)).await.unwrap_err();
            assert!(is_refusal(&error), "{error}");
            assert!(pipes.take().is_none(), "it is not asked again");
            let mut left = [0; 9];
            from.read_exact(&mut left).await.unwrap();
            assert_eq!(&left, b"all of it");
        });
    }

    #[test]
    fn what_a_kernel_does_not_hand_on_is_there_as_bytes() {
        run(async {
            let (mut to, _far) = pair();
            let pipes = Rc::<Pipes>::default();
            let (mut pipe, mut frame) = (Some(refused(&pipes, b"all of it")), Bytes::new());
            let drained = poll_fn(|cx| poll_drain(&mut pipe, &mut frame, &mut to, cx)).await.unwrap();
            assert_eq!((drained, &frame[..], pipe.is_none()), (0, &b"all of it"[..], true));
            assert!(pipes.take().is_none(), "it is not asked again");
        });
    }

    #[test]
    fn one_that_the_kernel_does_not_give_is_asked_for_again_later() {
        let pipes = Rc::<Pipes>::default();
        pipes.pause.set(PAUSE);
        let asked = (0..).find(|_| pipes.take().is_some());
        assert_eq!(asked, Some(PAUSE));
    }

    #[test]
    fn there_are_only_so_many() {
        let pipes = Rc::<Pipes>::default();
        let mut taken: Vec<_> = (0..MOST).map_while(|_| pipes.take()).collect();
        assert_eq!(taken.len(), MOST);
        assert!(pipes.take().is_none());
        taken.pop();
        assert!(pipes.take().is_some());
        drop(taken);
        assert_eq!((pipes.taken.get(), pipes.kept.borrow().len()), (0, MOST_KEPT));
    }
}
