//! All workers together: started, told and stopped as one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::future::{join_all, select_all};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::commons::Commons;
use super::inherited::{Given, Inherited, Keeper, SocketFile};
use super::listener::{self, Accepting, ListenAddr, Sockets};
use super::live::Live;
use super::posts::Posts;
use super::settings::Settings;
use super::worker::{self, Farewell, Order, Queue, Seat, WorkerStats};

/// The workers of this process and what they listen on.
#[derive(Debug)]
pub struct Crew {
    workers: Vec<Hand>,
    /// By what was asked for.
    open: BTreeMap<ListenAddr, Open>,
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
pub struct Bound(Vec<(ListenAddr, Open, Vec<Vec<Accepting>>)>);

impl Bound {
    /// How many descriptors whoever accepts on them takes besides: one to spare for each socket.
    #[must_use]
    pub fn to_spare(&self) -> usize {
        self.0.iter().flat_map(|(_, _, shares)| shares).map(Vec::len).sum()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.0.iter().filter_map(|(_, open, _)| open.file.as_ref()).for_each(SocketFile::remove);
    }
}

/// What is listened on.
#[derive(Debug)]
pub struct Open {
    /// Where it is really bound: port 0 takes a free one.
    pub real: ListenAddr,
    /// All sockets of it, for a successor.
    pub handles: Vec<OwnedFd>,
    /// How many of them, the first, somebody keeps who has given them, and may go on with them.
    kept: usize,
    /// Its file, where that is ours. One that is taken over is its giver's until it is served here.
    file: Option<SocketFile>,
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
            io::ErrorKind::AddrInUse => {
                "another process listens there, or has a connection from that port: stop it, or choose another address"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE; a socket's folder must be writable"
            }
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
            _ => "choose another address",
        }
    }
}

/// Takes the sockets of those of `wanted` that `crew` does not listen on yet out of what was `inherited`, or binds them,
/// for `workers` workers; nothing is accepted yet.
///
/// # Errors
/// [`CannotListen`] for the first that cannot be had; then none is kept.
pub fn bind(
    wanted: &[ListenAddr],
    inherited: &mut Inherited,
    crew: Option<&Crew>,
    workers: usize,
) -> Result<Bound, CannotListen> {
    let is_new = |address: &&ListenAddr| crew.is_none_or(|crew| !crew.open.contains_key(*address));
    let mut all = Bound::default();
    for address in wanted.iter().filter(is_new) {
        let is_ours = |own: &ListenAddr| own.port().is_some() && own.port() == address.port();
        let is_own = crew.is_some_and(|crew| crew.open.values().any(|open| is_ours(&open.real)));
        let given = inherited.take(address);
        let is_new = given.is_empty();
        let bound = sockets(address, given, workers);
        let (sockets, kept) = bound.map_err(|why| CannotListen { address: address.clone(), why, is_own })?;
        let Sockets { real, handles, shares } = sockets;
        let file = if is_new { SocketFile::of(&real) } else { None };
        all.0.push((address.clone(), Open { real, handles, kept, file }, shares));
    }
    Ok(all)
}

/// An address' sockets, and how many of them, the first, somebody keeps who has given them.
fn sockets(address: &ListenAddr, given: Vec<Given>, workers: usize) -> io::Result<(Sockets, usize)> {
    let Some(first) = given.first() else { return Ok((listener::bind(address, workers)?, 0)) };
    let real = first.address.clone();
    let kept = if first.keeper == Keeper::Us { 0 } else { given.len() };
    let sockets = listener::share(&real, given.into_iter().map(|given| given.socket).collect(), workers)?;
    Ok((sockets, kept))
}

impl Crew {
    /// Starts `workers` workers that serve what `live` publishes, each pinned to its CPU of `pins`, where there is one.
    ///
    /// # Errors
    /// When there is no thread or no runtime to be had.
    pub fn start(workers: usize, pins: &[usize], live: &Arc<Live>, settings: &Settings) -> io::Result<Self> {
        let stats: Vec<Arc<WorkerStats>> = (0..workers).map(|_| Arc::default()).collect();
        let (posts, inboxes) = Posts::of(stats.iter().cloned());
        let commons = Arc::new(Commons::of(posts));
        let start = |(id, (stats, passed)): (usize, (Arc<WorkerStats>, _))| {
            let (live, shared, counted) = (Arc::clone(live), Arc::clone(&commons), Arc::clone(&stats));
            let seat = Seat { id, cpu: pins.get(id).copied(), passed };
            let (orders, ended) = worker::start(seat, live, settings.clone(), counted, shared)?;
            Ok(Hand { orders, ended, stats })
        };
        let workers = stats.into_iter().zip(inboxes).enumerate().map(start).collect::<io::Result<_>>()?;
        Ok(Self { workers, open: BTreeMap::new(), commons })
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

    /// What is listened on, by what was asked for.
    #[must_use]
    pub fn listeners(&self) -> &BTreeMap<ListenAddr, Open> {
        &self.open
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
        for (address, mut open, shares) in std::mem::take(&mut bound.0) {
            open.own();
            for (hand, sockets) in self.workers.iter().zip(shares) {
                hand.tell(Order::Listen { address: address.clone(), sockets }).await;
            }
            self.open.insert(address, open);
        }
        let gone: Vec<_> = self.open.keys().filter(|address| !wanted.contains(address)).cloned().collect();
        let open: Vec<_> = gone.iter().filter_map(|address| self.open.remove(address)).collect();
        end(open).await;
        for address in gone {
            for hand in &self.workers {
                hand.tell(Order::Close(address.clone())).await;
            }
        }
    }

    /// Resolves when a worker has ended without being told: its connections are lost and it does not come back.
    pub async fn failed(&mut self) {
        if !self.workers.is_empty() {
            select_all(self.workers.iter_mut().map(|hand| &mut hand.ended)).await.0.unwrap_or(());
        }
    }

    /// Who can be asked whether they are alive.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse(self.workers.iter().map(|hand| hand.orders.clone()).collect())
    }

    /// Accepts nothing more, finishes what is in flight, and resolves when every worker is done.
    pub async fn stop(self, farewell: Farewell) {
        match farewell.queue {
            Queue::Ours => end(self.open.into_values().collect()).await,
            Queue::Successors => drop(self.open),
        }
        for hand in &self.workers {
            hand.tell(Order::Stop(farewell)).await;
        }
        join_all(self.workers.into_iter().map(|hand| hand.ended)).await;
    }
}

/// Nobody comes here any more; the workers, who still accept, close the sockets then. Of the handles none is left, so that the
/// workers' ends are the sockets' ends.
async fn end(open: Vec<Open>) {
    // Their files before their ends: who finds none may make one of his own.
    open.iter().filter_map(|open| open.file.as_ref()).for_each(SocketFile::remove);
    let ours =
        open.iter().filter(|open| open.real.port().is_some()).flat_map(|open| &open.handles[open.kept..]);
    let are_closing = ours.filter(|socket| listener::begin_no_more(socket).is_ok()).count() > 0;
    drop(open);
    if are_closing {
        sleep(listener::HANDSHAKE).await;
    }
}

/// All workers, for who only wants to know whether they are alive.
#[derive(Debug)]
pub struct Pulse(Vec<mpsc::Sender<Order>>);

impl Pulse {
    /// Resolves when every worker has said that it is alive.
    pub async fn echo(&self) {
        let echo = self.0.iter().map(|orders| async {
            let (reply, echo) = oneshot::channel();
            // One that has ended is noticed otherwise.
            let _ = orders.send(Order::Echo(reply)).await;
            echo.await
        });
        join_all(echo).await;
    }
}

impl Open {
    /// It is served here from now on, and its file goes with it, unless somebody keeps that.
    fn own(&mut self) {
        if !self.is_kept() && self.file.is_none() {
            self.file = SocketFile::of(&self.real);
        }
    }

    /// True when somebody keeps it who has given it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept > 0
    }
}

impl Hand {
    async fn tell(&self, order: Order) {
        // A worker that has ended is noticed by `failed`.
        drop(self.orders.send(order).await);
    }
}
