//! How a request gets a connection to an endpoint.

use std::io;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, UnixStream};
use tokio::task::spawn_local;
use tokio::time::{Sleep, sleep, timeout};

use super::{Endpoint, Opened, Past};
use crate::metrics::Reason;
use crate::proxy::clock::{self, Clock};
use crate::proxy::descriptors::{self, Held};
use crate::proxy::peer::Peer;
use crate::proxy::proxy_protocol;
use crate::proxy::upstream::census::Census;
use crate::proxy::upstream::http2::{MOST, Risk, Ticket, Wish, half};
use crate::proxy::upstream::stream::Stream;
use crate::proxy::upstream::{Local, eyeballs};
use crate::table::EndpointAddr;

/// How often one endpoint's failing handshakes are worth a warning of one worker.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How long a request waits for its way to an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until a connection is open.
    pub connect: Duration,
    /// Until the endpoint takes another request on one that is; and why it then goes without.
    pub room: (Duration, Reason),
}

impl Endpoint {
    /// A connection for a request of `peer`, or a place on one: one that is there if there is a good one and it may be
    /// used, else a new one in time.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(
        self: &Rc<Self>,
        (may_reuse, risk): (bool, Risk),
        patience: Patience,
        peer: &Peer,
        local: &Local,
    ) -> Result<Opened, Reason> {
        if !self.shares_connections() {
            let opened = self.open_own(may_reuse, patience.connect, peer, local).await;
            return opened.map(|(stream, past)| Opened::Own(stream, past));
        }
        let half = if risk == Risk::None { 0 } else { half(most_shared(local)) };
        // Where there may be one connection only, all share it.
        let risk = if half == 0 { Risk::None } else { risk };
        if may_reuse && let Some(ticket) = self.shared.find(risk, half) {
            return Ok(Opened::Shared(ticket));
        }
        // Boxed: rare, and this is a part of every request.
        Box::pin(self.open_in_time((may_reuse, risk), patience, local)).await.map(Opened::Shared)
    }

    /// Waits for a place on any connection, while another one is opened if there may be more; for one alone, as long as requests queue
    /// for a place.
    async fn open_in_time(
        self: &Rc<Self>,
        (may_reuse, risk): (bool, Risk),
        patience: Patience,
        local: &Local,
    ) -> Result<Ticket, Reason> {
        let (room, reason) = match risk {
            Risk::None => patience.room,
            Risk::Head | Risk::Trailers => (local.rules().circuit.queue_timeout, Reason::CircuitOpen),
        };
        let mut room = pin!(sleep(room));
        let (most, lifetime) = (most_shared(local), local.rules().keepalive.lifetime);
        let wish = Wish { may_reuse, risk, most, connect: patience.connect, lifetime };
        loop {
            self.open_further(wish);
            if let Some(ticket) = self.shared.place(wish) {
                return Ok(ticket);
            }
            tokio::select! {
                handed = self.shared.wait(wish) => match handed {
                    Some(handed) => return handed,
                    None if room.is_elapsed() => return Err(reason),
                    None => {}
                },
                reason = self.outwait(wish, room.as_mut(), reason) => return Err(reason),
            }
        }
    }

    /// Why a request waits no longer: where only another connection can be of use, it has taken too long to open; else the time until
    /// there has to be `room` is over.
    async fn outwait(&self, wish: Wish, mut room: Pin<&mut Sleep>, reason: Reason) -> Reason {
        let mut connect = pin!(sleep(wish.connect));
        tokio::select! {
            () = &mut connect => if self.shared.hopes(wish) { return Reason::ConnectTimeout },
            () = &mut room => if !self.shared.hopes(wish) { return reason },
        }
        connect.await;
        room.await;
        if self.shared.hopes(wish) { Reason::ConnectTimeout } else { reason }
    }

    /// Has another connection opened for this wish, if there may be more, and then for those who still wait: one at a time, whatever
    /// becomes of the request that it was begun for.
    fn open_further(self: &Rc<Self>, mut wish: Wish) {
        if !self.shared.begins_to_open(wish) {
            return;
        }
        let endpoint = Rc::clone(self);
        spawn_local(async move {
            loop {
                match timeout(wish.connect, endpoint.open_shared(wish.lifetime)).await {
                    Ok(Ok(true)) => {}
                    // Nor would others be of use.
                    Ok(Ok(false)) => return endpoint.shared.do_without(None),
                    Ok(Err(reason)) => return endpoint.shared.do_without(Some(reason)),
                    // Who has waited as long knows it by himself.
                    Err(_) => endpoint.shared.do_without(None),
                }
                match endpoint.shared.goes_on_to_open() {
                    Some(next) => wish = next,
                    None => return endpoint.shared.do_without(None),
                }
            }
        });
    }

    async fn open_shared(self: &Rc<Self>, lifetime: Duration) -> Result<bool, Reason> {
        let stream = self.connect(None).await?;
        let until = self.home.ticks() + Clock::ticks_in(lifetime);
        let is_of_use = self.shared.open(stream, until, &self.home.clock).await.map_err(|error| {
            tracing::debug!(address = %self.address, %error, "an endpoint does not speak HTTP/2");
            Reason::UpstreamProtocol
        })?;
        if self.names.get() == 0 {
            self.shared.close();
        }
        self.list();
        Ok(is_of_use)
    }

    async fn open_own(
        self: &Rc<Self>,
        may_reuse: bool,
        limit: Duration,
        peer: &Peer,
        local: &Local,
    ) -> Result<(Stream, Past), Reason> {
        if may_reuse && let Some(kept) = self.reuse_own(peer).or_else(|| self.reuse()) {
            return Ok(kept);
        }
        let (keepalive, most, patience) = {
            let rules = local.rules();
            (rules.keepalive, rules.circuit.connections, rules.circuit.queue_timeout)
        };
        let past =
            |(held, took), counted| Past::new(keepalive, (self.home.ticks(), took), (Some(held), counted));
        let Some(most) = most else {
            let (stream, opened) = self.connect_own(limit, peer, local).await?;
            return Ok((stream, past(opened, None)));
        };
        // Boxed: rare, and this is a part of every request.
        let counted = Box::pin(async {
            // Other versions and services may have the connections that this one has places for.
            let admitted = timeout(patience, self.census().admit(most)).await;
            let counted = admitted.map_err(|_| Reason::CircuitOpen)?;
            let (stream, opened) = self.connect_own(limit, peer, local).await?;
            Ok((stream, past(opened, Some(counted))))
        });
        counted.await
    }

    /// One for a request at a time, whose descriptor counts as the version's of `local`; and how long it took.
    async fn connect_own(
        &self,
        limit: Duration,
        peer: &Peer,
        local: &Local,
    ) -> Result<(Stream, (Held, Duration)), Reason> {
        let held = local.upstream().share.take().map_err(|error| not_reached(&error))?;
        let begun = clock::now();
        let stream = timeout(limit, self.connect(Some(peer))).await;
        Ok((stream.unwrap_or(Err(Reason::ConnectTimeout))?, (held, begun.elapsed())))
    }

    /// All workers' connections to it. From now on those of this worker that have no request make room when another worker
    /// waits for one.
    pub(super) fn census(self: &Rc<Self>) -> &Arc<Census> {
        self.census.get_or_init(|| {
            let census = Census::shared(&self.there);
            let (listened, here) = (Arc::clone(&census), Rc::downgrade(self));
            spawn_local(async move {
                let answer = || match here.upgrade() {
                    Some(endpoint) => {
                        endpoint.make_room();
                        ControlFlow::Continue(())
                    }
                    None => ControlFlow::Break(()),
                };
                listened.listen(answer).await;
            });
            census
        })
    }

    /// True when its connections carry several requests at a time.
    #[must_use]
    pub fn shares_connections(&self) -> bool {
        self.there.protocol.is_http2()
    }

    async fn connect(&self, peer: Option<&Peer>) -> Result<Stream, Reason> {
        let mut stream = self.reach().await.map_err(|error| not_reached(&error))?;
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
            (EndpointAddr::Tcp(address), _) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                descriptors::spare(&socket)?;
                socket.connect(*address).await?
            }
            (EndpointAddr::Named { port, .. }, Some(name)) => {
                let turn = self.turn.replace(self.turn.get().wrapping_add(1));
                let tcp = Box::pin(eyeballs::connect(&name.addresses().await, *port, turn)).await?;
                descriptors::spare(&tcp)?;
                tcp
            }
            (EndpointAddr::Named { .. }, None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
            (EndpointAddr::Unix(path), _) => {
                let unix = UnixStream::connect(path).await?;
                return descriptors::spare(&unix).map(|()| Stream::Unix(unix));
            }
        };
        Stream::opened(tcp)
    }

    /// Says why, as a warning once in a while.
    fn on_tls_failed(&self, error: &io::Error) {
        let (now, address) = (self.home.clock.ticks(), &self.address);
        // Quoted: the names in the endpoint's certificate are a stranger's words.
        let error = error.to_string();
        if now < self.warn_from.get() {
            tracing::debug!(%address, error, "the TLS handshake with an endpoint failed");
        } else {
            self.warn_from.set(now + Clock::ticks_in(WARN_EVERY));
            tracing::warn!(%address, error, "the TLS handshake with an endpoint failed");
        }
    }
}

/// Whose fault that is.
fn not_reached(error: &io::Error) -> Reason {
    if descriptors::is_ours(error) { Reason::Overload } else { Reason::ConnectFailed }
}

/// A worker's part of the shared connections that the version of `local` may have to an endpoint, and at least one.
fn most_shared(local: &Local) -> usize {
    let part = |most: NonZeroU32| most.get() as usize / local.upstream().workers();
    local.rules().circuit.connections.map_or(MOST, |most| part(most).clamp(1, MOST))
}
