//! All workers together: started, told and stopped as one.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::{join_all, select_all};
use tokio::sync::{mpsc, oneshot};

use super::commons::Commons;
use super::listener::{self, Accepting, ListenAddr};
use super::live::Live;
use super::settings::Settings;
use super::worker::{self, Order, WorkerStats};

/// The workers of this process and what they listen on.
#[derive(Debug)]
pub struct Crew {
    workers: Vec<Hand>,
    /// What was asked for, and where it is really bound (port 0 takes a free one).
    bound: BTreeMap<ListenAddr, ListenAddr>,
    files: Vec<SocketFile>,
    commons: Arc<Commons>,
}

#[derive(Debug)]
struct Hand {
    orders: mpsc::Sender<Order>,
    ended: oneshot::Receiver<()>,
    stats: Arc<WorkerStats>,
}

/// Sockets that are bound and not yet served; nothing is left of them when nobody ever does.
#[derive(Debug, Default)]
pub struct Bound(Vec<(ListenAddr, ListenAddr, Vec<Accepting>)>, Vec<SocketFile>);

impl Drop for Bound {
    fn drop(&mut self) {
        self.1.iter().for_each(SocketFile::remove);
    }
}

/// A Unix socket's file, recognised by more than its path: a successor's in its place is left alone.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(address: &ListenAddr) -> Option<Self> {
        let ListenAddr::Unix(path) = address else { return None };
        Some(Self { path: path.clone(), identity: identity(path)? })
    }

    /// Nobody is to find a socket that nobody serves. It may be gone already.
    fn remove(&self) {
        if identity(&self.path) == Some(self.identity) {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// A listener cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {why}")]
pub struct CannotListen {
    /// Where.
    pub address: ListenAddr,
    /// Why.
    #[source]
    pub why: io::Error,
    /// True when it is this proxy that listens on the port, at another address.
    pub is_own: bool,
}

impl CannotListen {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self.why.kind() {
            io::ErrorKind::AddrInUse if self.is_own => {
                "this proxy itself listens on that port, at another address: restart to move it"
            }
            io::ErrorKind::AddrInUse => "another process listens there: stop it, or choose another address",
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE; a socket's folder must be writable"
            }
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
            _ => "choose another address",
        }
    }
}

/// Binds those of `wanted` that `crew` does not listen on yet, for `workers` workers; nothing is accepted yet.
///
/// # Errors
/// [`CannotListen`] for the first that cannot be had; then none is kept.
pub fn bind(wanted: &[ListenAddr], crew: Option<&Crew>, workers: usize) -> Result<Bound, CannotListen> {
    let is_new = |address: &&ListenAddr| crew.is_none_or(|crew| !crew.bound.contains_key(*address));
    let mut all = Bound::default();
    for address in wanted.iter().filter(is_new) {
        let bound = listener::bind(address, workers);
        let is_ours = |own: &ListenAddr| own.port().is_some() && own.port() == address.port();
        let is_own = crew.is_some_and(|crew| crew.bound.values().any(is_ours));
        let (real, sockets) = bound.map_err(|why| CannotListen { address: address.clone(), why, is_own })?;
        all.1.extend(SocketFile::of(&real));
        all.0.push((address.clone(), real, sockets));
    }
    Ok(all)
}

impl Crew {
    /// Starts `workers` workers that serve what `live` publishes.
    ///
    /// # Errors
    /// When there is no thread or no runtime to be had.
    pub fn start(workers: usize, live: &Arc<Live>, settings: &Settings) -> io::Result<Self> {
        let commons: Arc<Commons> = Arc::default();
        let start = |id| {
            let stats = Arc::new(WorkerStats::default());
            let (live, commons) = (Arc::clone(live), Arc::clone(&commons));
            let (orders, ended) = worker::start(id, live, settings.clone(), Arc::clone(&stats), commons)?;
            Ok(Hand { orders, ended, stats })
        };
        let workers = (0..workers).map(start).collect::<io::Result<_>>()?;
        Ok(Self { workers, bound: BTreeMap::new(), files: Vec::new(), commons })
    }

    /// What they share besides what is published.
    #[must_use]
    pub fn commons(&self) -> &Arc<Commons> {
        &self.commons
    }

    /// How many workers there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.workers.len()
    }

    /// What is listened on: as asked for, and as bound.
    #[must_use]
    pub fn listeners(&self) -> &BTreeMap<ListenAddr, ListenAddr> {
        &self.bound
    }

    /// Each worker's counters that belong to no version.
    pub fn stats(&self) -> impl Iterator<Item = &Arc<WorkerStats>> {
        self.workers.iter().map(|hand| &hand.stats)
    }

    /// Accepts on `bound`, no more on listeners that are not `wanted`, and takes over `settings`.
    ///
    /// Connections that are open live on, also those of a closed listener.
    pub async fn follow(&mut self, wanted: &[ListenAddr], mut bound: Bound, settings: &Settings) {
        for hand in &self.workers {
            hand.tell(Order::Follow(Box::new(settings.clone()))).await;
        }
        self.files.append(&mut bound.1);
        for (address, real, sockets) in std::mem::take(&mut bound.0) {
            for (hand, socket) in self.workers.iter().zip(sockets) {
                hand.tell(Order::Listen { address: address.clone(), socket }).await;
            }
            self.bound.insert(address, real);
        }
        let gone: Vec<_> = self.bound.keys().filter(|address| !wanted.contains(address)).cloned().collect();
        for address in gone {
            // Before its end: who finds no file may make one of his own.
            self.files
                .extract_if(.., |file| ListenAddr::Unix(file.path.clone()) == address)
                .for_each(|file| file.remove());
            for hand in &self.workers {
                hand.tell(Order::Close(address.clone())).await;
            }
            self.bound.remove(&address);
        }
    }

    /// Resolves when a worker has ended without being told: its connections are lost and it does not come back.
    pub async fn failed(&mut self) {
        if !self.workers.is_empty() {
            select_all(self.workers.iter_mut().map(|hand| &mut hand.ended)).await.0.unwrap_or(());
        }
    }

    /// Accepts nothing more, finishes what is in flight, and resolves when every worker is done.
    pub async fn stop(self) {
        self.files.iter().for_each(SocketFile::remove);
        for hand in &self.workers {
            hand.tell(Order::Stop).await;
        }
        join_all(self.workers.into_iter().map(|hand| hand.ended)).await;
    }
}

impl Hand {
    async fn tell(&self, order: Order) {
        // A worker that has ended is noticed by `failed`.
        drop(self.orders.send(order).await);
    }
}
