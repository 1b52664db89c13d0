//! The process that is to take this one's place: started with all sockets, heard until it serves or fails.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::activation::{BECOME, ELDER, LINE, LOG};
use super::diary;
use super::sockets::Handle;
use super::talk::{Hello, Legacy, Line, Ready, Told};

/// How many lines of its log are kept as its last words, and how long they may be.
const WORDS: usize = 8;
const LONGEST: usize = 400;
/// How long its log may take to its end once it has ended.
const EPILOGUE: Duration = Duration::from_secs(1);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(5);
/// The first descriptor of the protocol (sd_listen_fds(3)).
const FIRST: i32 = 3;

/// A process that is to take this one's place; killed when it is dropped before it serves.
pub(super) struct Heir {
    process: Offspring,
    line: Line,
    words: Rc<RefCell<VecDeque<String>>>,
    log: JoinHandle<()>,
}

struct Offspring {
    child: Child,
    /// False once it serves.
    is_ours: bool,
}

/// Why it does not serve.
#[derive(Debug)]
pub(super) enum Fell {
    /// It said so.
    Said(String),
    /// It has ended, or said what makes no sense.
    Silently,
}

impl Heir {
    /// Starts `program` with the arguments of this process.
    ///
    /// # Errors
    /// When there is no process or no descriptor to be had.
    pub(super) async fn start(
        program: &Path,
        sockets: Vec<Handle>,
        elders: Vec<OwnedFd>,
        hello: Hello,
    ) -> io::Result<Self> {
        let (mut line, theirs) = Line::pair()?;
        let (words, speaks) = io::pipe()?;
        let log = io::stderr().as_fd().try_clone_to_owned()?;
        let mut given = vec![(LINE.to_owned(), theirs.into()), (LOG.to_owned(), log)];
        given.extend(elders.into_iter().map(|fd| (ELDER.to_owned(), fd)));
        given.extend(sockets.into_iter().map(|handle| (handle.name, handle.fd)));
        // The program's number has to be in its environment before it starts: this very program, also when its file is
        // gone, says it and then becomes the other.
        let mut command = Command::new("/proc/self/exe");
        command.arg(BECOME).arg(program).args(env::args_os().skip(1));
        command.stderr(speaks);
        hand(&mut command, given)?;
        let child = command.spawn()?;
        // Its ends of everything are its own now.
        drop(command);
        let kept: Rc<RefCell<VecDeque<String>>> = Rc::default();
        let log = spawn_local(pass_on(pipe::Receiver::from_owned_fd(words.into())?, Rc::clone(&kept)));
        // One that has ended already says why when it is listened to.
        let _ = line.tell(&Told::Hello(hello)).await;
        Ok(Self { process: Offspring { child, is_ours: true }, line, words: kept, log })
    }

    /// Hears that it is prepared.
    pub(super) async fn prepared(&mut self) -> Result<(), Fell> {
        match self.line.hear().await {
            Ok(Some(Told::Prepared)) => Ok(()),
            Ok(Some(Told::Failed { reason })) => Err(Fell::Said(reason)),
            Ok(Some(_) | None) | Err(_) => Err(Fell::Silently),
        }
    }

    /// Tells it that the store is its own, and what is not in there, and hears that it serves.
    pub(super) async fn ready(&mut self, legacy: Legacy) -> Result<Ready, Fell> {
        self.line.tell(&Told::Yours(legacy)).await.map_err(|_| Fell::Silently)?;
        match self.line.hear().await {
            Ok(Some(Told::Ready(ready))) => {
                self.process.is_ours = false;
                Ok(ready)
            }
            Ok(Some(Told::Failed { reason })) => Err(Fell::Said(reason)),
            Ok(Some(_) | None) | Err(_) => Err(Fell::Silently),
        }
    }

    /// Tells it what this process was told.
    pub(super) fn pass_on(&self, signal: Signal) {
        // It may have ended already.
        let _ = kill_process(Pid::from_child(&self.process.child), signal);
    }

    /// The conversation with it, once it serves. Its end is waited for: it is to leave no trace in the system's list.
    pub(super) fn line(self) -> Line {
        let Self { mut process, line, .. } = self;
        let waiting = thread::Builder::new().name("heir".to_owned()).spawn(move || process.child.wait());
        if let Err(error) = waiting {
            warn!(%error, "the new process's end is not waited for");
        }
        line
    }

    /// Ends it, and tells what it said last.
    pub(super) async fn end(mut self) -> String {
        let status = self.status().await;
        let by_itself = status.is_some();
        if !by_itself {
            let _ = self.process.child.kill();
            while matches!(self.process.child.try_wait(), Ok(None)) {
                sleep(LOOK).await;
            }
        }
        let _ = timeout(EPILOGUE, &mut self.log).await;
        let words: Vec<_> = self.words.borrow().iter().cloned().collect();
        match (status, words.is_empty()) {
            (_, false) => words.join("\n"),
            (Some(status), true) => format!("it ended with {status} and said nothing"),
            (None, true) => "it said nothing".to_owned(),
        }
    }

    /// How it has ended, if it has: one that has closed its line is about to.
    async fn status(&mut self) -> Option<ExitStatus> {
        for _ in 0..20 {
            if let Ok(Some(status)) = self.process.child.try_wait() {
                return Some(status);
            }
            sleep(LOOK).await;
        }
        None
    }
}

impl Drop for Offspring {
    fn drop(&mut self) {
        if self.is_ours {
            // It may have ended already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Gives `command` these descriptors with their names.
fn hand(command: &mut Command, given: Vec<(String, OwnedFd)>) -> io::Result<()> {
    let names: Vec<_> = given.iter().map(|(name, _)| name.as_str()).collect();
    command.env("LISTEN_FDS", given.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    command.env_remove("LISTEN_PID");
    let mappings = given.into_iter().zip(FIRST..);
    let mappings = mappings.map(|((_, parent_fd), child_fd)| FdMapping { parent_fd, child_fd }).collect();
    command.fd_mappings(mappings).map(drop).map_err(io::Error::other)
}

/// Passes on what it logs until it logs by itself, and keeps the last of it.
async fn pass_on(pipe: pipe::Receiver, kept: Rc<RefCell<VecDeque<String>>>) {
    let mut lines = BufReader::new(pipe).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let text = String::from_utf8_lossy(&line).into_owned();
        diary::pass_on(&text);
        let mut kept = kept.borrow_mut();
        if kept.len() == WORDS {
            kept.pop_front();
        }
        kept.push_back(text.chars().take(LONGEST).collect());
    }
}

/// The program that this process was started from, by the name that was typed: what is installed there later is meant.
#[derive(Debug, Clone)]
pub(super) struct OwnProgram(PathBuf);

impl OwnProgram {
    /// To be called before anybody changes the directory.
    pub(super) fn find() -> io::Result<Self> {
        let typed = env::args_os().next().map(PathBuf::from).unwrap_or_default();
        let found = if typed.components().count() > 1 {
            Some(std::path::absolute(&typed)?)
        } else {
            let folders = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&folders).map(|folder| folder.join(&typed)).find(|path| path.is_file())
        };
        match found.filter(|path| path.is_file()) {
            Some(path) => Ok(Self(path)),
            None => env::current_exe().map(Self),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}
