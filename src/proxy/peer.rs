//! Who is at the other end of a client's connection, and who is asking through it.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::fields::{Fields, Note};
use super::forwarded;
use super::listener::ListenAddr;
use super::settings::Settings;

/// What the operator says about a listener's clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Door {
    /// Which listener it is; `None`: one that was dropped.
    pub listener: Option<ListenAddr>,
    /// The networks whose word on who is asking is believed.
    pub trusted: Vec<IpNet>,
    /// Whether a PROXY header comes first on every connection.
    pub proxy_protocol: bool,
}

impl Door {
    /// True for an address of a trusted network.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

/// The other end of one connection. Its address is the one that a PROXY header told, where there was one.
#[derive(Debug)]
pub struct Peer {
    /// Its address, an IPv4 one never in IPv6's form; `None` on a Unix socket, or where nobody knows.
    pub address: Option<IpAddr>,
    /// The same as text, written once for all its requests.
    pub text: Option<Box<str>>,
    /// The port that it connected to.
    pub port: Option<u16>,
    /// Whose connection it is and where it was accepted, both known or neither.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// The listener's, as it was set when the latest request began.
    door: RefCell<Arc<Door>>,
    is_trusted: Cell<bool>,
    /// By which those to endpoints that are for this connection alone know it; made for the first of them.
    owner: OnceCell<Arc<()>>,
}

impl Peer {
    /// Who connected from `from` to `to`; over a Unix socket, without either, it is trusted: the socket's
    /// permissions say who may.
    #[must_use]
    pub fn new(from: Option<SocketAddr>, to: Option<SocketAddr>, door: Arc<Door>) -> Self {
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let (from, to) = (from.map(canonical), to.map(canonical));
        let address = from.map(|from| from.ip());
        let is_trusted = address.is_none_or(|address| door.trusts(address));
        let text = address.map(text);
        let (is_trusted, door, owner) = (Cell::new(is_trusted), RefCell::new(door), OnceCell::new());
        Self { address, text, port: to.map(|to| to.port()), ends: from.zip(to), is_trusted, door, owner }
    }

    /// Whom a trusted proxy named; it is trusted itself if its address is.
    #[must_use]
    pub fn told(client: SocketAddr, server: SocketAddr, door: Arc<Door>) -> Self {
        Self::new(Some(client), Some(server), door)
    }

    /// Somebody of whom a trusted proxy could say nothing.
    #[must_use]
    pub fn unknown(door: Arc<Door>) -> Self {
        Self { is_trusted: Cell::new(false), ..Self::new(None, None, door) }
    }

    /// True when its `X-Forwarded-*` and `Forwarded` are to be believed.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.is_trusted.get()
    }

    /// Its connection, as the owner of some to endpoints that are for its requests alone.
    #[must_use]
    pub fn owner(&self) -> &Arc<()> {
        self.owner.get_or_init(Arc::default)
    }

    /// The same, if it has owned one.
    #[must_use]
    pub fn known_owner(&self) -> Option<&Arc<()>> {
        self.owner.get()
    }

    /// What its listener says of it by `settings`; who was trusted on a socket whose permissions say so stays that.
    pub fn meet(&self, settings: &Settings) {
        let listener = self.door.borrow().listener.clone();
        // Those of a listener that was dropped keep what it said.
        let Some(door) = listener.and_then(|listener| settings.doors.get(&listener).cloned()) else { return };
        if let Some(address) = self.address {
            self.is_trusted.set(door.trusts(address));
        }
        self.door.replace(door);
    }

    /// The client that asked for this: the peer, or the last one that is no trusted proxy in what trusted proxies say.
    /// `None` where nobody knows.
    #[must_use]
    pub fn client(&self, fields: &Fields) -> Option<IpAddr> {
        if !self.is_trusted() || !fields.has(Note::Forwarding) {
            return self.address;
        }
        forwarded::client(fields, self.address, |address| self.door.borrow().trusts(address))
    }

    /// Its address as text.
    #[must_use]
    pub fn client_text(&self, fields: &Fields) -> Option<Cow<'_, str>> {
        let client = self.client(fields);
        if client == self.address {
            return self.text.as_deref().map(Cow::Borrowed);
        }
        client.map(|client| Cow::Owned(text(client).into()))
    }
}

/// An address as text. Of an IPv4 one the usual way takes eight times as long, and every connection has one.
fn text(address: IpAddr) -> Box<str> {
    let IpAddr::V4(v4) = address else { return address.to_string().into() };
    let mut digits = [itoa::Buffer::new(); 4];
    let [a, b, c, d] = &mut digits;
    let [w, x, y, z] = v4.octets();
    [a.format(w), ".", b.format(x), ".", c.format(y), ".", d.format(z)].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_everybody_writes_it() {
        for address in ["0.0.0.0", "192.0.2.1", "255.255.255.255", "10.20.30.40", "2001:db8::1", "::1"] {
            assert_eq!(&*text(address.parse().unwrap()), address);
        }
    }
}
