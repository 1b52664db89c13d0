//! The one thread that writes the access log: it may wait for a disk or a pipe, so that nobody else does.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// Most batches that wait to be written.
const QUEUE: usize = 4096;
/// Most bytes that wait to be written.
const MOST_WAITING: usize = 16 << 20;
/// How long it takes at most until a new file is looked at when nothing is written.
const LOOK: Duration = Duration::from_secs(1);
/// For the owner, and for a group that may read.
const MODE: u32 = 0o640;

/// Where lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// The end of this file, which is made when it is not there (mode 0640).
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
    /// Opens it.
    ///
    /// # Errors
    /// When the file cannot be opened for writing.
    pub fn open(&self) -> io::Result<Output> {
        match self {
            Self::Stdout => Ok(Output::Stdout),
            Self::File(path) => {
                let opened = OpenOptions::new().append(true).create(true).mode(MODE).open(path);
                opened.map(Output::File)
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => io::stdout().write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().flush(),
            Self::File(_) => Ok(()),
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
        let seen = Arc::clone(&shared);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            // Dropped with the thread, also when it panics.
            let _end = end;
            Pen { output, is_torn: false, is_failing: false }.write_all(&queue, &seen);
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
        *self.pipe.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
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

/// The thread's own.
struct Pen {
    output: Output,
    /// The last thing that was written is half a line.
    is_torn: bool,
    /// Writing fails; said once, until it works again.
    is_failing: bool,
}

impl Pen {
    fn write_all(&mut self, queue: &Receiver<(Vec<u8>, u64)>, shared: &Shared) {
        loop {
            let batch = queue.recv_timeout(LOOK);
            if let Some(next) = shared.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
                (self.output, self.is_torn) = (next, false);
            }
            match batch {
                Ok((lines, _)) => {
                    let lost = self.write(&lines);
                    shared.waiting.fetch_sub(lines.len(), Ordering::Relaxed);
                    shared.dropped.fetch_add(lost, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Writes lines; how many of them were lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        let mut written = 0;
        let result = self.mend().and_then(|()| {
            while written < lines.len() {
                match self.output.write(&lines[written..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(more) => written += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.output.flush()
        });
        if written > 0 {
            self.is_torn = lines[written - 1] != b'\n';
        }
        match result {
            Ok(()) if self.is_failing => {
                self.is_failing = false;
                tracing::info!("the access log is written again");
            }
            Ok(()) => {}
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::warn!(%error, "the access log cannot be written; lines are lost, traffic goes on");
            }
            Err(_) => {}
        }
        memchr::memchr_iter(b'\n', &lines[written..]).count() as u64
    }

    /// Ends half a line, so that the next one is whole.
    fn mend(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.output.write_all(b"\n")?;
            self.is_torn = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let mut pen = Pen {
            output: Output::File(File::create("/dev/full").unwrap()),
            is_torn: false,
            is_failing: false,
        };
        assert_eq!(pen.write(b"one\ntwo\n"), 2);
        assert!(pen.is_failing);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        (pen.output, pen.is_torn) = (Target::File(path.clone()).open().unwrap(), true);
        assert_eq!(pen.write(b"three\n"), 0);
        assert!(!pen.is_failing);
        assert_eq!(std::fs::read(path).unwrap(), b"\nthree\n");
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
        let lines = std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines, dropped.load(Ordering::Relaxed)), (100, 0));
    }

    #[test]
    fn who_sends_to_a_full_queue_does_not_wait() {
        let (batches, queue) = sync_channel(1);
        let shared = Shared { dropped: Arc::default(), waiting: AtomicUsize::new(0), next: Mutex::new(None) };
        let pipe = Pipe { batches, shared: Arc::new(shared) };
        pipe.send(b"a\n".to_vec(), 1);
        pipe.send(b"b\nc\n".to_vec(), 2);
        assert_eq!(pipe.shared.dropped.load(Ordering::Relaxed), 2);
        assert_eq!(queue.recv().unwrap().0, b"a\n");
        // Bytes are bounded too, whatever room there is for batches.
        pipe.send(vec![b'\n'; MOST_WAITING], 7);
        assert_eq!(pipe.shared.dropped.load(Ordering::Relaxed), 9);
    }
}
