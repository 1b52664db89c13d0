//! Sockets that clients connect to: one a worker, all on the same address; the kernel shares out the connections.
//! Where a service manager has bound the address, or the process before this one, theirs are served. A worker that has clearly
//! more to do than another [passes](super::posts) a connection on to it.

mod accept;
mod bind;
mod handshakes;

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use accept::Fresh;
pub use bind::{Accepting, Sockets, bind, share};
use futures_util::FutureExt;
pub use handshakes::{HANDSHAKE, begin_no_more};

use accept::{Accepted, Listener, is_clients};

use super::clock::{Clock, TICK};
use super::commons::Guest;
use super::descriptors::{self, Taken};
use super::entrance::{Arrival, Entrance};
use super::peer::{Door, Peer};
use super::posts::Passed;
use super::pressure::Pressure;
use super::proxy_protocol::{self, Told};
use super::upstream::Stream;
use super::worker::{Queue, Worker};
use super::{connection, error};
use crate::metrics::Reason;

/// How often a worker warns that it cannot accept.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// Pause when the process is out of file descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddr {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl ListenAddr {
    /// The port of an address that has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Accepts on `socket` until `closed`; then takes what the kernel has already queued, if that is ours.
pub async fn run(
    worker: Rc<Worker>,
    address: ListenAddr,
    socket: Accepting,
    closed: impl Future<Output = Queue>,
) {
    let listener = match Listener::of(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot listen"),
    };
    let spare = Spare::new();
    let mut early = None;
    let mut closed = std::pin::pin!(closed);
    let queue = loop {
        tokio::select! {
            biased;
            queue = &mut closed => break queue,
            accepted = next(&worker, &listener, &mut early) => match accepted {
                Ok(fresh) => seat(&worker, &address, fresh),
                Err(error) if is_clients(&error) => {}
                Err(error) => {
                    let entrance = worker.settings().entrance(&address);
                    spare.turn_away(&worker, &listener, &entrance, &error).await;
                }
            },
        }
    };
    let last = |fresh| {
        // As many as have come: they cannot be given back.
        let _ = worker.commons.enter(usize::MAX);
        // Not passed on: the others may be closing too.
        keep(&worker, &address, fresh);
    };
    early.into_iter().for_each(last);
    match queue {
        Queue::Ours => listener.last(last),
        Queue::Successors => {}
    }
}

/// The next connection, once there is room for it, and it is counted in; until then it waits in the kernel's queue. One may have
/// been accepted `early`: another worker has taken the last place meanwhile.
async fn next(worker: &Worker, listener: &Listener, early: &mut Option<Fresh>) -> io::Result<Fresh> {
    let commons = &worker.commons;
    loop {
        let vacancy = worker.vacancy.notified();
        let most = worker.settings().connections;
        if early.is_none() && commons.has_room(most) {
            *early = Some(listener.accept().await?);
        }
        if let Some(fresh) = early.take_if(|_| commons.enter(most)) {
            return Ok(fresh);
        }
        // Nobody tells that there is room on another worker: it is looked for.
        let _ = tokio::time::timeout(TICK, vacancy).await;
    }
}

/// Gives a connection to the worker that should serve it, which is mostly this one.
fn seat(worker: &Rc<Worker>, listener: &ListenAddr, fresh: Fresh) {
    let settings = worker.settings();
    match worker.commons.posts.elsewhere(worker.id) {
        None => keep(worker, listener, fresh),
        Some(to) => {
            let (door, entrance) = (settings.door(listener), settings.entrance(listener));
            let passed = Passed { connection: fresh, door, entrance };
            if let Err(passed) = worker.commons.posts.pass(worker.id, to, passed) {
                worker.expect();
                adopt(worker, passed);
            }
        }
    }
}

/// Serves a connection here, whatever others have to do.
fn keep(worker: &Rc<Worker>, listener: &ListenAddr, fresh: Fresh) {
    let settings = worker.settings();
    worker.expect();
    take(worker, fresh, settings.door(listener), settings.entrance(listener));
}

/// Serves a connection that was on its way to another worker.
pub(super) fn adopt(worker: &Rc<Worker>, Passed { connection, door, entrance }: Passed) {
    take(worker, connection, door, entrance);
}

/// Serves a connection that is this worker's, and [expected](Worker::expect), unless it is gone already.
fn take(worker: &Rc<Worker>, fresh: Fresh, door: Arc<Door>, entrance: Arc<Entrance>) {
    let opened = Opened::of(worker);
    let is_one_too_many = descriptors::spare(&fresh).is_err();
    let Ok(accepted) = fresh.stay() else { return };
    if is_one_too_many || worker.commons.pressure() >= Pressure::Tight {
        return turn_away(worker, accepted.stream, &entrance, Reason::Overload);
    }
    // Boxed: the runtime moves a task several times, and this one is large.
    tokio::task::spawn_local(Box::pin(async move {
        serve(&opened.0, accepted, door, entrance).await;
        drop(opened);
    }));
}

/// Lets a client in that may come in, and serves it.
async fn serve(worker: &Rc<Worker>, accepted: Accepted, door: Arc<Door>, entrance: Arc<Entrance>) {
    let Some((stream, peer)) = introduce(accepted, door, worker).await else { return };
    let Some(_guest) = guest(worker, &peer) else {
        return turn_away(worker, stream, &entrance, Reason::Connections);
    };
    let secured = match &entrance.tls {
        None => Some((stream, None)),
        // Boxed: a clear-text connection's task shall not be the larger for it.
        Some(tls) => {
            Box::pin(tls.accept(stream, &peer, worker)).await.map(|(stream, how)| (stream, Some(how)))
        }
    };
    if let Some((stream, secured)) = secured {
        let arrival = Arrival { peer, entrance, secured };
        connection::run(stream, arrival, Rc::clone(worker)).await;
    }
}

/// The place of one more connection of this client; `None` when it has as many as it may. Trusted proxies, and those of
/// whom no address is known, may have any number.
fn guest(worker: &Worker, peer: &Peer) -> Option<Option<Guest>> {
    let most = worker.settings().connections_per_client;
    match peer.address.filter(|_| !peer.is_trusted() && most > 0) {
        Some(address) => worker.commons.let_in(address, most).map(Some),
        None => Some(None),
    }
}

/// Says why nobody listens, as far as that can be said at once, and counts it. Under TLS nothing can be said before the
/// handshake, which is what costs most.
fn turn_away(worker: &Worker, mut stream: Stream, entrance: &Entrance, reason: Reason) {
    worker.refused(None, reason);
    if entrance.tls.is_some() {
        return;
    }
    stream.dismiss(&error::refusal(reason, &worker.date()));
}

/// A file descriptor that is kept for when there are none left: given up for as long as it takes to accept a client and
/// turn it away. Without it nobody could be accepted, and accept would report the same client again and again.
struct Spare {
    file: Cell<Option<File>>,
    /// The tick from which it is worth a warning again.
    warn_from: Cell<u64>,
}

impl Spare {
    fn new() -> Self {
        Self { file: Cell::new(File::open("/dev/null").ok()), warn_from: Cell::new(0) }
    }

    /// Deals with a client that could not be accepted because of `error`.
    async fn turn_away(&self, worker: &Worker, listener: &Listener, entrance: &Entrance, error: &io::Error) {
        use rustix::io::Errno;
        let now = worker.clock.ticks();
        if now >= self.warn_from.get() {
            self.warn_from.set(now + Clock::ticks_in(WARN_EVERY));
            tracing::warn!(%error, worker = worker.id, "cannot accept; turning clients away");
        }
        let is_out = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
        let had_one = self.file.take().is_some();
        if is_out.contains(&error.raw_os_error())
            && had_one
            && let Some(Ok(fresh)) = listener.accept().now_or_never()
            && let Ok(accepted) = fresh.stay()
        {
            turn_away(worker, accepted.stream, entrance, Reason::Overload);
            self.file.set(File::open("/dev/null").ok());
        } else {
            tokio::time::sleep(BACK_OFF).await;
            self.file.set(File::open("/dev/null").ok());
        }
    }
}

/// Who it is that came; nobody when a PROXY header should have said so and did not, or may not.
///
/// Nothing is answered then: who speaks the protocol does not expect HTTP, and who does not is no client of this listener.
async fn introduce(
    Accepted { mut stream, from, to }: Accepted,
    door: Arc<Door>,
    worker: &Worker,
) -> Option<(Stream, Peer)> {
    let peer = Peer::new(from, to.or_else(|| stream.local_address()), Arc::clone(&door));
    if !door.proxy_protocol {
        return Some((stream, peer));
    }
    if !peer.is_trusted() {
        worker.refused(None, Reason::ProxyProtocol);
        return None;
    }
    let told = tokio::time::timeout(worker.settings().head, proxy_protocol::read(&mut stream)).await;
    let peer = match told {
        Ok(Ok(Told::Itself)) => peer,
        Ok(Ok(Told::Unknown)) => Peer::unknown(door),
        Ok(Ok(Told::Client { client, server })) => Peer::told(client, server, door),
        Ok(Err(_)) | Err(_) => {
            worker.refused(None, Reason::ProxyProtocol);
            return None;
        }
    };
    Some((stream, peer))
}

/// An open connection, for the counts: also when a request panics.
struct Opened(Rc<Worker>, Taken);

impl Opened {
    fn of(worker: &Rc<Worker>) -> Self {
        worker.opened();
        Self(Rc::clone(worker), Taken::one())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.closed();
    }
}
