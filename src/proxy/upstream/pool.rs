//! One worker's endpoints with their idle connections: by address, whichever versions name them.
//!
//! A thousand services behind one sidecar, or two versions of one service on the same machine, share what is open to
//! it. An endpoint lives as long as a version names it; then its idle connections are closed at once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use super::eyeballs;
use super::http2::{Connections, Ticket};
use super::names::Name;
use super::stream::Stream;
use super::tls::Connector;
use crate::metrics::Reason;
use crate::proxy::clock::Clock;
use crate::proxy::peer::Peer;
use crate::proxy::proxy_protocol;
use crate::table::{EndpointAddr, Protocol, ProxyHeader, UpstreamTls};

/// What connections are shared by: two versions that agree in all of it use the same ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Where it listens.
    pub address: EndpointAddr,
    /// What is spoken to it.
    pub protocol: Protocol,
    /// What comes first on a connection.
    pub proxy_header: Option<ProxyHeader>,
    /// How it is verified.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// Every endpoint that one worker's versions name, each once.
#[derive(Debug, Default)]
pub struct Pools {
    clock: Rc<Clock>,
    endpoints: RefCell<HashMap<Destination, Weak<Endpoint>, ahash::RandomState>>,
    /// Those that may have idle connections: all that a sweep has to look at.
    idle: RefCell<Vec<Weak<Endpoint>>>,
}

/// One endpoint with this worker's idle connections to it.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: EndpointAddr,
    there: Destination,
    connector: Option<Arc<Connector>>,
    name: Option<Arc<Name>>,
    /// Which address of the name is next.
    turn: Cell<usize>,
    /// The tick before which a failed handshake is not worth a warning again.
    warn_from: Cell<u64>,
    idle: RefCell<Vec<Idle>>,
    shared: Connections,
    /// How many pools of versions it is in; in none, its connections are closed instead of kept.
    names: Cell<usize>,
    /// True while it is in the list of those to sweep.
    is_listed: Cell<bool>,
    home: Rc<Pools>,
}

/// How a request gets to an endpoint.
#[derive(Debug)]
pub enum Opened {
    /// Over a connection of its own; true when it was kept from an earlier one.
    Own(Stream, bool),
    /// As a stream of a connection that others use too.
    Shared(Ticket),
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since: u64,
}

/// How often one endpoint's failing handshakes are worth a warning of one worker.
const WARN_EVERY: Duration = Duration::from_secs(60);

impl Pools {
    /// None yet.
    pub(super) fn new(clock: Rc<Clock>) -> Self {
        Self { clock, ..Self::default() }
    }

    /// The endpoint there; named once more than before.
    pub(super) fn name(self: &Rc<Self>, there: Destination) -> Rc<Endpoint> {
        let mut endpoints = self.endpoints.borrow_mut();
        let known = endpoints.get(&there).and_then(Weak::upgrade);
        let endpoint = known.unwrap_or_else(|| {
            let endpoint = Rc::new(Endpoint::new(there.clone(), Rc::clone(self)));
            endpoints.insert(there, Rc::downgrade(&endpoint));
            endpoint
        });
        endpoint.name();
        endpoint
    }

    /// Closes connections that are idle since before `oldest`, or that the other side has closed.
    ///
    /// Looks at endpoints with idle connections only, however many others there are.
    pub(super) fn sweep(&self, oldest: u64) {
        self.idle.borrow_mut().retain(|endpoint| endpoint.upgrade().is_some_and(|it| it.sweep(oldest)));
    }
}

impl Endpoint {
    fn new(there: Destination, home: Rc<Pools>) -> Self {
        let connector =
            there.protocol.is_tls().then(|| Connector::shared(there.tls.as_ref(), there.protocol.is_http2()));
        Self {
            address: there.address.clone(),
            name: match &there.address {
                EndpointAddr::Named { host, .. } => Some(Name::shared(host)),
                EndpointAddr::Tcp(_) | EndpointAddr::Unix(_) => None,
            },
            turn: Cell::new(0),
            there,
            connector,
            warn_from: Cell::new(0),
            idle: RefCell::default(),
            shared: Connections::default(),
            names: Cell::new(0),
            is_listed: Cell::new(false),
            home,
        }
    }

    /// One more pool has it.
    pub(super) fn name(&self) {
        self.names.set(self.names.get() + 1);
    }

    /// One pool fewer has it; the last one closes its idle connections.
    pub(super) fn unname(&self) {
        self.names.set(self.names.get() - 1);
        if self.names.get() == 0 {
            self.idle.take();
            self.shared.close();
        }
    }

    /// False when there is nothing left to sweep.
    fn sweep(&self, oldest: u64) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|idle| idle.since >= oldest && idle.stream.is_quiet());
        self.is_listed.set(self.shared.sweep(oldest) || !idle.is_empty());
        self.is_listed.get()
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.there.protocol.is_tls() { "https" } else { "http" }
    }

    /// A connection for a request of `peer`, or a place on one: one that is there if there is a good one and it may be
    /// used, else a new one in time.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(
        self: &Rc<Self>,
        may_reuse: bool,
        limit: Duration,
        peer: &Peer,
    ) -> Result<Opened, Reason> {
        if !self.there.protocol.is_http2() {
            let opened = self.open_own(may_reuse, limit, peer).await;
            return opened.map(|(stream, is_kept)| Opened::Own(stream, is_kept));
        }
        if let Some(ticket) = self.shared.find().filter(|_| may_reuse) {
            return Ok(Opened::Shared(ticket));
        }
        // Boxed: rare, and this is a part of every request.
        let taken = tokio::time::timeout(limit, Box::pin(self.open_shared(may_reuse))).await;
        taken.unwrap_or(Err(Reason::ConnectTimeout)).map(Opened::Shared)
    }

    async fn open_shared(self: &Rc<Self>, may_reuse: bool) -> Result<Ticket, Reason> {
        let refused = |error| {
            tracing::debug!(address = %self.address, %error, "an endpoint does not speak HTTP/2");
            Reason::UpstreamProtocol
        };
        let ticket = self.shared.take(may_reuse, &self.home.clock, self.connect(None), refused).await?;
        if self.names.get() == 0 {
            self.shared.close();
        }
        self.list();
        Ok(ticket)
    }

    async fn open_own(
        &self,
        may_reuse: bool,
        limit: Duration,
        peer: &Peer,
    ) -> Result<(Stream, bool), Reason> {
        if may_reuse && let Some(stream) = self.reuse() {
            return Ok((stream, true));
        }
        let connected = tokio::time::timeout(limit, self.connect(Some(peer))).await;
        connected.unwrap_or(Err(Reason::ConnectTimeout)).map(|stream| (stream, false))
    }

    async fn connect(&self, peer: Option<&Peer>) -> Result<Stream, Reason> {
        let mut stream = self.reach().await.map_err(|_| Reason::ConnectFailed)?;
        if let Some(header) = self.there.proxy_header {
            // Before anything else, also before TLS.
            let ends = peer.and_then(|peer| peer.ends);
            let header = proxy_protocol::header(header, ends);
            stream.write_all(&header).await.map_err(|_| Reason::ConnectFailed)?;
        }
        let Some(connector) = &self.connector else { return Ok(stream) };
        // Boxed: a handshake is large and rare, and this is a part of every request.
        let secured = Box::pin(connector.handshake(stream, &self.address)).await;
        secured.map_err(|error| {
            self.on_tls_failed(&error);
            Reason::UpstreamTls
        })
    }

    /// Opens a connection; of a name that has several addresses, to another one each time.
    async fn reach(&self) -> io::Result<Stream> {
        let tcp = match (&self.address, &self.name) {
            (EndpointAddr::Tcp(address), _) => TcpStream::connect(address).await?,
            (EndpointAddr::Named { port, .. }, Some(name)) => {
                let turn = self.turn.replace(self.turn.get().wrapping_add(1));
                Box::pin(eyeballs::connect(&name.addresses().await, *port, turn)).await?
            }
            (EndpointAddr::Named { .. }, None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
            (EndpointAddr::Unix(path), _) => return UnixStream::connect(path).await.map(Stream::Unix),
        };
        Stream::tcp(tcp)
    }

    /// Says why, as a warning once in a while.
    fn on_tls_failed(&self, error: &io::Error) {
        let (now, address) = (self.home.clock.ticks(), &self.address);
        if now < self.warn_from.get() {
            tracing::debug!(%address, %error, "the TLS handshake with an endpoint failed");
        } else {
            self.warn_from.set(now + Clock::ticks_in(WARN_EVERY));
            tracing::warn!(%address, %error, "the TLS handshake with an endpoint failed");
        }
    }

    /// The idle connection used last, if one is still good: on it the endpoint is least likely to close just now.
    fn reuse(&self) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop())
            .map(|idle| idle.stream)
            .find_map(|mut stream| stream.is_quiet().then_some(stream))
    }

    /// Keeps a connection whose last exchange ended cleanly, up to `most` of them, while a version names the endpoint.
    pub fn keep(self: &Rc<Self>, stream: Stream, most: usize, clock: &Clock) {
        let mut idle = self.idle.borrow_mut();
        // A connection that names a client is for that one alone.
        if self.names.get() == 0 || idle.len() >= most || self.there.proxy_header.is_some() {
            return;
        }
        idle.push(Idle { stream, since: clock.ticks() });
        self.list();
    }
}

impl Endpoint {
    /// It has something to sweep.
    fn list(self: &Rc<Self>) {
        if !self.is_listed.replace(true) {
            self.home.idle.borrow_mut().push(Rc::downgrade(self));
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.home.endpoints.borrow_mut().remove(&self.there);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn there(text: &str) -> Destination {
        Destination {
            address: text.parse().unwrap(),
            protocol: Protocol::Http1,
            proxy_header: None,
            tls: None,
        }
    }

    async fn connection() -> (Stream, Stream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Stream::Unix(ours), Stream::Unix(theirs))
    }

    async fn is_closed(mut peer: Stream) -> bool {
        peer.read(&mut [0]).await.is_ok_and(|read| read == 0)
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(test);
    }

    #[test]
    fn those_who_name_the_same_address_share_its_connections() {
        run(async {
            let (pools, clock) = (Rc::<Pools>::default(), Clock::default());
            let (one, other) = (pools.name(there("127.0.0.1:1")), pools.name(there("127.0.0.1:1")));
            let (stream, _peer) = connection().await;
            one.keep(stream, 1, &clock);
            assert!(other.reuse().is_some());
            assert!(pools.name(there("127.0.0.1:2")).reuse().is_none());
        });
    }

    #[test]
    fn the_last_who_names_it_closes_its_connections() {
        run(async {
            let (pools, clock) = (Rc::<Pools>::default(), Clock::default());
            let (one, other) = (pools.name(there("127.0.0.1:1")), pools.name(there("127.0.0.1:1")));
            let (stream, mut peer) = connection().await;
            one.keep(stream, 1, &clock);
            one.unname();
            assert!(peer.is_quiet());
            other.unname();
            assert!(is_closed(peer).await);
            let (stream, peer) = connection().await;
            one.keep(stream, 1, &clock);
            assert!(is_closed(peer).await, "an exchange that ends later keeps nothing");
            let again = pools.name(there("127.0.0.1:1"));
            let (stream, _peer) = connection().await;
            one.keep(stream, 1, &clock);
            assert!(again.reuse().is_some(), "back again");
        });
    }

    #[test]
    fn a_sweep_looks_only_at_what_is_idle_and_nothing_is_left_of_what_went() {
        run(async {
            let (pools, clock) = (Rc::<Pools>::default(), Clock::default());
            let endpoints: Vec<_> =
                (1..=100).map(|port| pools.name(there(&format!("[::1]:{port}")))).collect();
            let (stream, mut peer) = connection().await;
            endpoints[7].keep(stream, 1, &clock);
            assert_eq!(pools.idle.borrow().len(), 1);
            pools.sweep(0);
            assert!(peer.is_quiet());
            pools.sweep(1);
            assert!(is_closed(peer).await, "too old");
            assert_eq!(pools.idle.borrow().len(), 0);
            drop(endpoints);
            assert_eq!(pools.endpoints.borrow().len(), 0);
        });
    }
}
