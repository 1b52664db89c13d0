//! One worker's endpoints with their idle connections: by address, whichever versions name them.
//!
//! A thousand services behind one sidecar, or two versions of one service on the same machine, share what is open to
//! it. An endpoint lives as long as a version names it; then its idle connections are closed at once.

mod opening;

mod past;

mod warm;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

pub use opening::Patience;
pub use past::Past;

use super::census::Census;
use super::dial::Dial;
use super::http2::{Connections, Ticket};
use super::names::Name;
use super::rest::Rest;
use super::stream::Stream;
use super::tls::Connector;
use crate::proxy::clock::Clock;
use crate::proxy::peer::Peer;
use crate::proxy::pipe::Bulk;
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
    /// Those that are for one client's connection alone: whom the endpoint has authenticated on it, it takes everybody for.
    private: RefCell<Vec<Idle>>,
    shared: Connections,
    /// All workers' connections to it, if there is a limit to them.
    census: OnceCell<Arc<Census>>,
    /// How many pools of versions it is in; in none, its connections are closed instead of kept.
    names: Cell<usize>,
    /// True while it is in the list of those to sweep.
    is_listed: Cell<bool>,
    home: Rc<Pools>,
    /// Whether its answers are large.
    pub bulk: Bulk,
}

/// How a request gets to an endpoint.
#[derive(Debug)]
pub enum Opened {
    /// Over a connection of its own.
    Own(Stream, Past),
    /// As a stream of a connection that others use too.
    Shared(Ticket),
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    past: Past,
    since: u64,
}

impl Idle {
    /// True while it may be used.
    fn is_good(&mut self, now: u64) -> bool {
        self.past.may_wait(now - self.since) && self.stream.is_quiet()
    }

    /// It goes out with a request.
    fn taken(mut self, now: u64) -> (Stream, Past) {
        self.past.rested(Rest::new(self.since, now));
        (self.stream, self.past)
    }

    /// True when nobody can use it any more.
    fn is_orphan(&self) -> bool {
        self.past.owner().is_some_and(|owner| owner.strong_count() == 0)
    }
}

impl Pools {
    /// None yet.
    pub(super) fn new(clock: Rc<Clock>) -> Self {
        Self { clock, ..Self::default() }
    }

    /// The worker's ticks.
    pub(super) fn ticks(&self) -> u64 {
        self.clock.ticks()
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
            private: RefCell::default(),
            shared: Connections::default(),
            census: OnceCell::new(),
            names: Cell::new(0),
            is_listed: Cell::new(false),
            home,
            bulk: Bulk::default(),
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
            self.private.take();
            self.shared.close();
        }
    }

    /// False when there is nothing left to sweep.
    fn sweep(&self, oldest: u64) -> bool {
        let (mut idle, mut private) = (self.idle.borrow_mut(), self.private.borrow_mut());
        let now = self.home.ticks();
        idle.retain_mut(|idle| idle.since >= oldest && idle.is_good(now));
        private.retain_mut(|idle| idle.since >= oldest && !idle.is_orphan() && idle.is_good(now));
        self.is_listed.set(self.shared.sweep(oldest) || !idle.is_empty() || !private.is_empty());
        self.is_listed.get()
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.there.protocol.is_tls() { "https" } else { "http" }
    }

    /// How a connection of somebody's own is opened to it.
    #[must_use]
    pub fn dial(&self) -> Dial {
        let Destination { address, protocol, proxy_header, tls } = &self.there;
        Dial::new(address.clone(), *protocol, tls.as_ref(), *proxy_header)
    }

    /// The idle connection used last, if one is still good: on it the endpoint is least likely to close just now.
    fn reuse(&self) -> Option<(Stream, Past)> {
        let mut idle = self.idle.borrow_mut();
        let now = self.home.ticks();
        std::iter::from_fn(|| idle.pop())
            .find_map(|mut idle| idle.is_good(now).then_some(idle))
            .map(|idle| idle.taken(now))
    }

    /// The one that is for this client's connection alone, if it has one that is still good.
    fn reuse_own(&self, peer: &Peer) -> Option<(Stream, Past)> {
        let owner = Arc::downgrade(peer.known_owner()?);
        let mut private = self.private.borrow_mut();
        let is_own = |idle: &Idle| idle.past.owner().is_some_and(|it| it.ptr_eq(&owner));
        let mut idle = private.iter().rposition(is_own).map(|at| private.remove(at))?;
        let now = self.home.ticks();
        idle.is_good(now).then(|| idle.taken(now))
    }

    /// Keeps a connection whose last exchange ended cleanly, while a version names the endpoint: up to `most` of those that anybody may
    /// use, and what is for one client's connection alone as long as that is there.
    pub fn keep(self: &Rc<Self>, stream: Stream, mut past: Past, most: usize, clock: &Clock) {
        if past.take(clock.ticks()) {
            self.put_by(stream, past, most, clock.ticks());
        } else {
            // Before it is counted out.
            drop(stream);
        }
    }

    fn put_by(self: &Rc<Self>, stream: Stream, past: Past, most: usize, now: u64) {
        // Dropped, it ends before it is counted out.
        let idle = Idle { stream, past, since: now };
        let is_wanted = self.census.get().is_some_and(|census| census.is_waited_for());
        // A connection that names a client is for that one alone.
        if self.names.get() == 0 || self.there.proxy_header.is_some() || is_wanted {
            return;
        }
        if idle.past.owner().is_some() {
            let mut private = self.private.borrow_mut();
            if private.len() == private.capacity() {
                // No more than those of clients that are there.
                private.retain(|idle| !idle.is_orphan());
            }
            private.push(idle);
        } else if self.idle.borrow().len() < most {
            self.idle.borrow_mut().push(idle);
        } else {
            return;
        }
        self.list();
    }

    /// Closes a connection without a request, if there is one and another worker waits for one: it is left alone otherwise.
    fn make_room(&self) {
        if self.census.get().is_some_and(|census| census.is_waited_for()) {
            let longest =
                [&self.idle, &self.private].map(RefCell::borrow_mut).into_iter().find(|it| !it.is_empty());
            longest.into_iter().for_each(|mut kept| drop(kept.remove(0)));
        }
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
        // Whoever listens for it hears that it is gone.
        self.census.get().inspect(|census| census.call());
        self.home.endpoints.borrow_mut().remove(&self.there);
    }
}

#[cfg(test)]
mod tests;
