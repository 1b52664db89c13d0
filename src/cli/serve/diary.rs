//! What the process tells about itself, on standard error: written by a thread of its own, so that nobody waits for who reads it.
//!
//! A disk that is full, a reader that stands still or has gone: lines are lost, and counted, and that is all. Who logs neither
//! waits nor hears of it. The order of lines stays.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::stdio::{dup2_stderr, stderr};
use tracing::warn;

/// Most bytes that wait to be written.
const MOST_WAITING: usize = 1 << 20;
/// How long the end waits for what is not written yet.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts where standard error does not block, because somebody who has it too wants it so.
const PAUSE: Duration = Duration::from_millis(10);

/// This process's.
static DIARY: Diary = Diary::new();

/// Starts the thread. When what is returned is dropped, what waits is written, if somebody takes it within a second.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn open() -> io::Result<Open> {
    let writer = || Pen { output: StandardError, is_torn: false }.write_all(&DIARY, tell_lost);
    thread::Builder::new().name("log".to_owned()).spawn(writer)?;
    panic::set_hook(Box::new(note_panic));
    Ok(Open(()))
}

/// Writes a line that somebody else has said.
pub(super) fn pass_on(line: &str) {
    DIARY.add(format!("{line}\n").as_bytes());
}

/// See [`open`].
#[derive(Debug)]
pub(super) struct Open(());

impl Drop for Open {
    fn drop(&mut self) {
        let nowhere = || File::options().write(true).open("/dev/null");
        // Who complains after this is not to wait either.
        if !DIARY.is_written(PATIENCE)
            && let Ok(nowhere) = nowhere()
        {
            let _ = dup2_stderr(nowhere);
        }
    }
}

/// As much as the standard library tells, by the same way as everything else.
fn note_panic(info: &PanicHookInfo<'_>) {
    let (thread, backtrace) = (thread::current(), Backtrace::capture());
    let mut text = format!("thread '{}' {info}\n", thread.name().unwrap_or("without a name"));
    if backtrace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("{backtrace}\n"));
    }
    DIARY.add(text.as_bytes());
    // It may be the last that is heard of this process.
    DIARY.is_written(PATIENCE);
}

fn tell_lost(lines: u64) {
    warn!(lines, "standard error was not taken: so many lines of this log are lost by now");
}

/// The way there, for `tracing`: each write is whole lines.
#[derive(Debug)]
pub(super) struct Entry;

impl Write for Entry {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        DIARY.add(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is to be written.
#[derive(Debug)]
struct Diary {
    pages: Mutex<Pages>,
    /// Something is to be written, or has been.
    turned: Condvar,
}

#[derive(Debug)]
struct Pages {
    waiting: Vec<u8>,
    is_writing: bool,
    /// Lines that were lost since the process started, and how many of them were told.
    lost: u64,
    told: u64,
}

impl Diary {
    const fn new() -> Self {
        let pages = Pages { waiting: Vec::new(), is_writing: false, lost: 0, told: 0 };
        Self { pages: Mutex::new(pages), turned: Condvar::new() }
    }

    /// Nobody holds it for longer than it takes to copy a line.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Whole also if a holder panicked.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds lines, or counts them when there is no room.
    fn add(&self, lines: &[u8]) {
        let mut pages = self.pages();
        if pages.waiting.len() + lines.len() > MOST_WAITING {
            pages.lost += count(lines);
        } else {
            pages.waiting.extend_from_slice(lines);
        }
        self.turned.notify_all();
    }

    /// Waits for something to write.
    fn take(&self) -> Vec<u8> {
        let is_empty = |pages: &mut Pages| pages.waiting.is_empty();
        let waited = self.turned.wait_while(self.pages(), is_empty);
        let mut pages = waited.unwrap_or_else(PoisonError::into_inner);
        pages.is_writing = true;
        std::mem::take(&mut pages.waiting)
    }

    /// What was taken is written, but for so many lines. How many are lost so far, when that is to be told now.
    fn written(&self, lost: u64) -> Option<u64> {
        let mut pages = self.pages();
        pages.lost += lost;
        pages.is_writing = false;
        self.turned.notify_all();
        // Behind what was said before they were lost, and when it can be expected to be read.
        let is_due = lost == 0 && pages.waiting.is_empty() && pages.told < pages.lost;
        is_due.then(|| {
            pages.told = pages.lost;
            pages.lost
        })
    }

    /// Waits until everything is written, for no longer than this; false when it is not.
    fn is_written(&self, patience: Duration) -> bool {
        let is_busy = |pages: &mut Pages| pages.is_writing || !pages.waiting.is_empty();
        let waited = self.turned.wait_timeout_while(self.pages(), patience, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// The writing thread's own.
struct Pen<W> {
    output: W,
    /// The last that was written is half a line.
    is_torn: bool,
}

impl<W: Write> Pen<W> {
    fn write_all(mut self, diary: &Diary, tell_lost: impl Fn(u64)) {
        loop {
            let lines = diary.take();
            let lost = self.write(&lines);
            diary.written(lost).into_iter().for_each(&tell_lost);
        }
    }

    /// Writes lines; how many of them were lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if std::mem::take(&mut self.is_torn) && self.put(b"\n") == 0 {
            self.is_torn = true;
            return count(lines);
        }
        let written = self.put(lines);
        self.is_torn = self.is_torn || lines[..written].last().is_some_and(|last| *last != b'\n');
        count(&lines[written..])
    }

    /// Writes as much as is taken.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.output.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(_) => break,
            }
        }
        written
    }
}

/// Without the standard library's lock: who holds that may wait for ever.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then no more.
    struct Full(Vec<u8>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.1.saturating_sub(self.0.len()).min(bytes.len());
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_the_next_one_is_whole() {
        let mut pen = Pen { output: Full(Vec::new(), 6), is_torn: false };
        assert_eq!(pen.write(b"one\ntwo\nthree\n"), 2);
        assert_eq!(pen.write(b"four\n"), 1);
        pen.output.1 = 100;
        assert_eq!(pen.write(b"five\n"), 0);
        assert_eq!(pen.output.0, b"one\ntw\nfive\n");
    }

    #[test]
    fn what_nobody_takes_is_counted_and_told_when_there_is_room_again() {
        let diary = Diary::new();
        diary.add(&vec![b'\n'; MOST_WAITING]);
        diary.add(b"a\nb\n");
        assert!(!diary.is_written(Duration::ZERO));
        assert_eq!(diary.take().len(), MOST_WAITING);
        diary.add(b"c\n");
        assert_eq!(diary.written(0), None, "something is still to be written");
        assert_eq!(diary.take(), b"c\n");
        assert_eq!(diary.written(1), None, "it is not taken yet");
        diary.add(b"d\n");
        diary.take();
        assert_eq!(diary.written(0), Some(3));
        assert!(diary.is_written(Duration::ZERO));
        diary.add(b"e\n");
        diary.take();
        assert_eq!(diary.written(0), None, "told once");
    }
}
