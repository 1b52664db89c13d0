//! When to read the file again: watches the configuration's directories and says so when its contents have changed.
//!
//! Directories and not files, because editors and Kubernetes do not write files, they put others in their place.
//! Contents and not events, because most events change nothing. What is done about it is not decided here.
//!
//! Limit: a writer that truncates a file and pauses for longer than [`QUIET`] before it goes on is read half-way.
//! Write beside it and rename.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tracing::debug;

use super::clock;

/// How long nothing must happen before the files are looked at.
pub const QUIET: Duration = Duration::from_millis(100);
/// When they are looked at however much happens.
const RESTLESS: Duration = Duration::from_secs(1);
/// How often they are looked at when nothing happens: network file systems do not tell.
const RESCAN: Duration = Duration::from_secs(30);
/// So many bytes of a file are looked at: what is larger is refused by whoever reads it.
pub const MOST: u64 = 64 << 20;
/// So many links are followed on the way to a file.
const LINKS: usize = 16;
/// Signals that wait for the watching thread; one that waits stands for all.
const SIGNALS: usize = 1;
/// Triggers that wait to be acted on; one that waits stands for all.
const TRIGGERS: usize = 1;

/// What the configuration is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// These files, there or not.
    pub files: Vec<PathBuf>,
    /// Every `*.toml` in these directories, there or not; names that begin with a dot are not looked at.
    pub dirs: Vec<PathBuf>,
    /// What the files name in their turn, such as certificates, there or not; see [`Watch::follow`].
    pub named: Vec<PathBuf>,
}

/// Asks for a reload. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trigger(mpsc::Sender<()>);

impl Trigger {
    /// A trigger, and where to wait for it: one message for any number of pulls that were not acted on yet.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<()>) {
        let (trigger, triggers) = mpsc::channel(TRIGGERS);
        (Self(trigger), triggers)
    }

    /// Asks for a reload now, whether anything has changed or not (SIGHUP).
    pub fn pull(&self) {
        // Full: one is waiting already. Closed: nobody reloads any more.
        let _ = self.0.try_send(());
    }
}

/// The configuration cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch the configuration for changes: {0}; SIGHUP still reloads it")]
pub struct WatchFailed(String);

/// A running watch; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    signals: SyncSender<Signal>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

/// What is watched, and a digest of what it held when it was last looked at.
#[derive(Debug)]
struct Seen {
    watched: Watched,
    contents: u64,
}

#[derive(Debug, Clone, Copy)]
enum Signal {
    Touched,
    Stop,
}

/// Pulls `trigger` whenever the contents of `watched` are no longer what they are now.
///
/// Start it *before* the first load, so that no change falls in between.
///
/// # Errors
/// [`WatchFailed`] when the system has no watch or no thread to give.
pub fn watch(watched: Watched, trigger: Trigger) -> Result<Watch, WatchFailed> {
    let (signals, received) = sync_channel(SIGNALS);
    let touched = signals.clone();
    let on_event = move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| is_of_interest(event.kind)) {
            // Full: one is waiting already.
            let _ = touched.try_send(Signal::Touched);
        }
    };
    let watcher = notify::recommended_watcher(on_event).map_err(|why| WatchFailed(why.to_string()))?;
    let seen = Arc::new(Mutex::new(Seen { watched, contents: 0 }));
    let mut scout = Scout { seen: Arc::clone(&seen), watcher, dirs: BTreeSet::new() };
    scout.follow();
    lock(&seen).look();
    let run = move || scout.run(&received, &trigger);
    let thread = thread::Builder::new().name("reload".to_owned()).spawn(run);
    let thread = thread.map_err(|why| WatchFailed(why.to_string()))?;
    Ok(Watch { signals, seen, thread: Some(thread) })
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// Looks at the contents; true when they are others than before.
    fn look(&mut self) -> bool {
        let before = std::mem::replace(&mut self.contents, self.watched.contents());
        self.contents != before
    }
}

impl Watch {
    /// Watches `named` as well, in place of what was named before. What they hold now is not news.
    ///
    /// Do it *before* they are read, so that no change falls in between. Blocks on the file system.
    pub fn follow(&self, named: Vec<PathBuf>) {
        let mut seen = lock(&self.seen);
        if seen.watched.named != named {
            seen.watched.named = named;
            seen.look();
            drop(seen);
            // Full: one is waiting already, and what is watched is looked at then.
            let _ = self.signals.try_send(Signal::Touched);
        }
    }
}

/// Reading is not: our own reads would wake us again.
fn is_of_interest(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread takes every signal, and ends at this one; it panics nowhere that anybody could help.
        let _ = self.signals.send(Signal::Stop);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The watching thread's own.
struct Scout {
    seen: Arc<Mutex<Seen>>,
    watcher: RecommendedWatcher,
    /// The directories that are watched now.
    dirs: BTreeSet<PathBuf>,
}

impl Scout {
    fn run(mut self, signals: &Receiver<Signal>, trigger: &Trigger) {
        while wait(signals) {
            // Links may lead elsewhere now. What changes from here on is seen by the new watches.
            self.follow();
            if lock(&self.seen).look() {
                trigger.pull();
            }
        }
    }

    /// Watches the directories where the configuration is now.
    fn follow(&mut self) {
        let dirs = lock(&self.seen).watched.directories();
        for dir in self.dirs.difference(&dirs) {
            // Gone already, most likely.
            let _ = self.watcher.unwatch(dir);
        }
        // Those of before too: a directory that was replaced by another of its name is a new one.
        for dir in &dirs {
            if let Err(why) = self.watcher.watch(dir, RecursiveMode::NonRecursive) {
                debug!(dir = %dir.display(), %why, "cannot watch; looking from time to time");
            }
        }
        self.dirs = dirs;
    }
}

/// Waits until something has happened and it is quiet again, or for a while; false to stop.
fn wait(signals: &Receiver<Signal>) -> bool {
    match signals.recv_timeout(RESCAN) {
        Ok(Signal::Touched) => {}
        Err(RecvTimeoutError::Timeout) => return true,
        Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
    }
    let since = clock::instant();
    loop {
        match signals.recv_timeout(QUIET) {
            Ok(Signal::Touched) if clock::instant().saturating_duration_since(since) < RESTLESS => {}
            Ok(Signal::Touched) | Err(RecvTimeoutError::Timeout) => return true,
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

impl Watched {
    /// A digest of all the contents; what is not there or cannot be read has one as well.
    fn contents(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for file in self.all_files() {
            file.hash(&mut hasher);
            match read(&file, &mut hasher) {
                Ok(length) => (true, length).hash(&mut hasher),
                Err(error) => (false, error.kind()).hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    fn all_files(&self) -> Vec<PathBuf> {
        let mut all = [&self.files[..], &self.named].concat();
        all.extend(self.dirs.iter().flat_map(|dir| fragments(dir)));
        all
    }

    /// Every directory in which an event can mean that the contents change, without links.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let named = self.all_files().into_iter().chain(self.dirs.iter().cloned());
        let around = named.flat_map(|path| around(&path, LINKS));
        around.chain(self.dirs.iter().cloned()).filter_map(|dir| dir.canonicalize().ok()).collect()
    }
}

/// Where the name is, and where each link is that is on the way to what it leads to.
fn around(path: &Path, links: usize) -> Vec<PathBuf> {
    let is_link = |step: &&Path| fs::symlink_metadata(step).is_ok_and(|found| found.is_symlink());
    let mut all = vec![parent(path)];
    for link in path.ancestors().filter(is_link) {
        all.push(parent(link));
        let rest = path.strip_prefix(link).unwrap_or(Path::new(""));
        if let Some(target) = fs::read_link(link).ok().filter(|_| links > 0) {
            all.extend(around(&parent(link).join(target).join(rest), links - 1));
        }
    }
    all
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// The `*.toml` of a directory, in order.
fn fragments(dir: &Path) -> Vec<PathBuf> {
    let is_fragment = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|extension| extension == "toml")
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut fragments: Vec<_> = entries.filter(is_fragment).collect();
    fragments.sort();
    fragments
}

/// Takes a file's contents into a digest, piece by piece; how many bytes there were.
///
/// Regular files only: a pipe would be waited for.
fn read(file: &Path, digest: &mut impl Hasher) -> io::Result<u64> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut contents = BufReader::new(File::open(file)?.take(MOST + 1));
    let mut length = 0;
    loop {
        let piece = contents.fill_buf()?;
        if piece.is_empty() {
            return Ok(length);
        }
        digest.write(piece);
        let taken = piece.len();
        contents.consume(taken);
        length += taken as u64;
    }
}

#[cfg(test)]
mod tests;
