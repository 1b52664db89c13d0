//! The one thread that writes the access log: it may wait for a disk or a pipe, so that nobody else does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use tokio::sync::oneshot;

/// Most batches that wait to be written.
const QUEUE: usize = 4096;
/// Most bytes that wait to be written.
const MOST_WAITING: usize = 16 << 20;
/// How long it takes at most until a new file is looked at when nothing is or can be written.
const LOOK: Duration = Duration::from_secs(1);
/// What a pipe that has room at all has room for (pipe(7), `PIPE_BUF`).
const ROOM: usize = 4096;
/// For the owner, and for a group that may read.
const MODE: u32 = 0o640;

/// Where lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// The end of this file, which is made when it is not there (mode 0640); or a named pipe, whether somebody reads it or not.
    File(PathBuf),
}

/// A target that was opened.
#[derive(Debug)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file.
    File(File),
}

impl Target {
    /// Opens it, without waiting: what everything of the operator's goes through opens it too.
    ///
    /// # Errors
    /// When the file cannot be opened for writing.
    pub fn open(&self) -> io::Result<Output> {
        let Self::File(path) = self else { return Ok(Output::Stdout) };
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(MODE).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let is_pipe = fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo());
        // A pipe that is open for reading too can be had without a reader (fifo(7)), and what is written waits there for one.
        let opened = match options.read(is_pipe).open(path) {
            Err(error) if is_pipe && error.kind() == io::ErrorKind::PermissionDenied => {
                options.read(false).open(path)
            }
            opened => opened,
        };
        opened.map(Output::File)
    }
}

impl Output {
    /// Waits until it takes something, for no longer than this; false when it still does not.
    fn has_room_within(&self, patience: Duration) -> io::Result<bool> {
        let stdout = io::stdout();
        let output = match self {
            Self::Stdout => stdout.as_fd(),
            Self::File(file) => file.as_fd(),
        };
        let patience = patience.try_into().map_err(io::Error::other)?;
        Ok(poll(&mut [PollFd::from_borrowed_fd(output, PollFlags::OUT)], Some(&patience))? > 0)
    }

    /// Writes what it takes at once.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            // Whoever has it too decides whether writing there waits, so it is asked first, and given no more than it has said.
            Self::Stdout if !self.has_room_within(Duration::ZERO)? => Err(io::ErrorKind::WouldBlock.into()),
            Self::Stdout => Ok(rustix::io::write(io::stdout(), &bytes[..bytes.len().min(ROOM)])?),
        }
    }
}

/// The way to the writer. Sending never waits.
#[derive(Debug, Clone)]
pub struct Pipe {
    batches: SyncSender<(Vec<u8>, u64)>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Lines that were lost; outlives the writer.
    dropped: Arc<AtomicU64>,
    /// Bytes that were handed over and are not written yet. Added to once a batch, not once a request.
    waiting: AtomicUsize,
    /// What is written to from now on. Only the writer and whoever reads the configuration lock it.
    next: Mutex<Option<Output>>,
}

/// Pipes are the same when they lead to the same writer.
impl PartialEq for Pipe {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Pipe {}

impl Pipe {
    /// Hands over so many lines; when there is no room they are dropped and counted.
    pub fn send(&self, batch: Vec<u8>, lines: u64) {
        let length = batch.len();
        // Relaxed: a bound, not a hand-over; the queue orders what is sent.
        let before = self.shared.waiting.fetch_add(length, Ordering::Relaxed);
        if before + length > MOST_WAITING || self.batches.try_send((batch, lines)).is_err() {
            self.shared.waiting.fetch_sub(length, Ordering::Relaxed);
            self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

/// The writing thread. It ends when every [`Pipe`] to it is gone and all is written.
#[derive(Debug)]
pub struct Writer {
    pipe: Pipe,
    target: Target,
    ended: oneshot::Receiver<()>,
}

impl Writer {
    /// Opens `target` and starts the thread; lost lines are counted in `dropped`.
    ///
    /// # Errors
    /// When the file cannot be opened, or there is no thread to be had.
    pub fn start(target: Target, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        let output = target.open()?;
        let (batches, queue) = sync_channel(QUEUE);
        let shared = Arc::new(Shared { dropped, waiting: AtomicUsize::new(0), next: Mutex::new(None) });
        let (end, ended) = oneshot::channel();
        let mut pen = Pen { output, shared: Arc::clone(&shared), is_torn: false, is_failing: false };
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            // Dropped with the thread, also when it panics.
            let _end = end;
            pen.write_all(&queue);
        })?;
        Ok(Self { pipe: Pipe { batches, shared }, target, ended })
    }

    /// A way to it.
    #[must_use]
    pub fn pipe(&self) -> Pipe {
        self.pipe.clone()
    }

    /// Where it writes.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// From now on `output` is written to, which is `target`, opened.
    pub fn turn_to(&mut self, target: Target, output: Output) {
        self.target = target;
        *self.pipe.shared.next() = Some(output);
    }

    /// Opens the target anew: what was there may have been moved away.
    ///
    /// # Errors
    /// When it cannot be opened; then what is open is written to as before.
    pub fn reopen(&mut self) -> io::Result<()> {
        let output = self.target.open()?;
        self.turn_to(self.target.clone(), output);
        Ok(())
    }

    /// Waits until all is written; every other pipe has to be gone. Cancel-safe: what is left is then lost.
    pub async fn finish(self) {
        let Self { pipe, ended, .. } = self;
        drop(pipe);
        drop(ended.await);
    }
}

impl Shared {
    fn next(&self) -> MutexGuard<'_, Option<Output>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's own.
struct Pen {
    output: Output,
    shared: Arc<Shared>,
    /// The last thing that was written is half a line.
    is_torn: bool,
    /// Writing fails; said once, until it works again.
    is_failing: bool,
}

impl Pen {
    fn write_all(&mut self, queue: &Receiver<(Vec<u8>, u64)>) {
        loop {
            let batch = queue.recv_timeout(LOOK);
            if let Some(next) = self.shared.next().take() {
                (self.output, self.is_torn) = (next, false);
            }
            match batch {
                Ok((lines, _)) => {
                    let lost = self.write(&lines);
                    self.shared.waiting.fetch_sub(lines.len(), Ordering::Relaxed);
                    self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Writes lines, and before them the end of one that is half written; how many of them were lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if self.is_torn && self.put(b"\n") == 0 {
            return count(lines);
        }
        let written = self.put(lines);
        self.is_torn = lines[..written].last().is_some_and(|last| *last != b'\n');
        count(&lines[written..])
    }

    /// Writes as much as is taken. Waits for room, but not when something else is to be written to by now.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            let result = match self.output.write(&bytes[written..]) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                result => result,
            };
            match result {
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.finds_room() => {}
                Err(error) => {
                    self.fails(&error);
                    return written;
                }
            }
        }
        self.succeeds();
        written
    }

    /// Waits until the output has room; false when it is the output no more.
    fn finds_room(&mut self) -> bool {
        loop {
            match self.output.has_room_within(LOOK) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.shared.next().is_some() {
                return false;
            }
            self.fails(&io::Error::other("nobody reads it"));
        }
    }

    fn succeeds(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("the access log is written again");
        }
    }

    fn fails(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(%error, "the access log cannot be written; lines are lost, traffic goes on");
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Arc<Shared> {
        Arc::new(Shared { dropped: Arc::default(), waiting: AtomicUsize::new(0), next: Mutex::new(None) })
    }

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let output = Output::File(File::create("/dev/full").unwrap());
        let mut pen = Pen { output, shared: shared(), is_torn: false, is_failing: false };
        assert_eq!(pen.write(b"one\ntwo\n"), 2);
        assert!(pen.is_failing);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        (pen.output, pen.is_torn) = (Target::File(path.clone()).open().unwrap(), true);
        assert_eq!(pen.write(b"three\n"), 0);
        assert!(!pen.is_failing);
        assert_eq!(fs::read(path).unwrap(), b"\nthree\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_opened_at_once_and_lines_wait_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let target = Target::File(path.clone());
        let (before, mut output) = (target.open().unwrap(), target.open().unwrap());
        drop(before);
        assert_eq!(output.write(b"waits\n").unwrap(), 6);
        let mut reader = File::open(path).unwrap();
        drop(output);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "waits\n");
    }

    #[tokio::test]
    async fn everything_is_written_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer::start(Target::File(path.clone()), Arc::clone(&dropped)).unwrap();
        for number in 0..100 {
            writer.pipe().send(format!("{number}\n").into_bytes(), 1);
        }
        writer.finish().await;
        let lines = fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines, dropped.load(Ordering::Relaxed)), (100, 0));
    }

    #[test]
    fn who_sends_to_a_full_queue_does_not_wait() {
        let (batches, queue) = sync_channel(1);
        let pipe = Pipe { batches, shared: shared() };
        pipe.send(b"a\n".to_vec(), 1);
        pipe.send(b"b\nc\n".to_vec(), 2);
        assert_eq!(pipe.shared.dropped.load(Ordering::Relaxed), 2);
        assert_eq!(queue.recv().unwrap().0, b"a\n");
        // Bytes are bounded too, whatever room there is for batches.
        pipe.send(vec![b'\n'; MOST_WAITING], 7);
        assert_eq!(pipe.shared.dropped.load(Ordering::Relaxed), 9);
    }
}
