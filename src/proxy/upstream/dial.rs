//! Connections that no request uses: to look whether an endpoint is well, or to tell somebody something. None of them is shared.

mod dialed;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, UnixStream};

pub use dialed::{Allowance, Dialed};

use super::eyeballs;
use super::names::Name;
use super::stream::Stream;
use super::tls::Connector;
use crate::proxy::descriptors::{self, Taken};
use crate::proxy::proxy_protocol;
use crate::table::{EndpointAddr, Protocol, ProxyHeader, UpstreamTls};

/// How an endpoint is connected to, as a request would connect.
#[derive(Debug)]
pub struct Dial {
    address: EndpointAddr,
    proxy_header: Option<ProxyHeader>,
    connector: Option<Arc<Connector>>,
    name: Option<Arc<Name>>,
    /// Which address of the name is next.
    turn: AtomicUsize,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NotConnected {
    /// It does not accept.
    #[error("cannot connect: {0}")]
    Refused(io::Error),
    /// It is not who it should be, or does not speak TLS.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
}

impl NotConnected {
    /// True when that says nothing of the endpoint.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Refused(error) => descriptors::is_ours(error),
            Self::Tls(_) => false,
        }
    }
}

impl Dial {
    /// To `address`, where `protocol` is spoken.
    #[must_use]
    pub fn new(
        address: EndpointAddr,
        protocol: Protocol,
        tls: Option<&Arc<UpstreamTls>>,
        proxy_header: Option<ProxyHeader>,
    ) -> Self {
        let connector = protocol.is_tls().then(|| Connector::shared(tls, protocol.is_http2()));
        let name = match &address {
            EndpointAddr::Named { host, .. } => Some(Name::shared(host)),
            EndpointAddr::Tcp(_) | EndpointAddr::Unix(_) => None,
        };
        Self { address, proxy_header, connector, name, turn: AtomicUsize::new(0) }
    }

    /// To this port of a host, which is a name or an address.
    #[must_use]
    pub fn to(host: &str, port: u16) -> Self {
        let address = match host.parse() {
            Ok(ip) => EndpointAddr::Tcp(SocketAddr::new(ip, port)),
            Err(_) => EndpointAddr::Named { host: host.to_ascii_lowercase().into(), port },
        };
        Self::new(address, Protocol::default(), None, None)
    }

    /// Where it connects to.
    #[must_use]
    pub fn address(&self) -> &EndpointAddr {
        &self.address
    }

    /// How many may be open at a time.
    #[must_use]
    pub fn most_at_a_time() -> usize {
        descriptors::checks_at_a_time()
    }

    /// True when one that will be of use later may be kept until then.
    #[must_use]
    pub fn may_be_kept() -> bool {
        descriptors::are_plenty()
    }

    /// A new connection, over TLS where that is spoken. Closing it leaves nothing behind in the kernel.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`NotConnected`]; it has no time limit of its own.
    pub async fn connect(&self) -> Result<Dialed, NotConnected> {
        let (mut stream, taken) = self.open().await.map_err(NotConnected::Refused)?;
        stream.reset_on_close();
        if let Some(header) = self.proxy_header {
            let header = proxy_protocol::header(header, None);
            stream.write_all(&header).await.map_err(NotConnected::Refused)?;
        }
        let Some(connector) = &self.connector else { return Ok(Dialed::new(stream, taken)) };
        let secured = Box::pin(connector.handshake(stream, &self.address)).await;
        secured.map(|stream| Dialed::new(stream, taken)).map_err(NotConnected::Tls)
    }

    /// A new connection on which nothing has been said, and whose end is no reset.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// That it does not accept; it has no time limit of its own.
    pub async fn reach(&self) -> io::Result<Dialed> {
        self.open().await.map(|(stream, taken)| Dialed::new(stream, taken))
    }

    async fn open(&self) -> io::Result<(Stream, Taken)> {
        let taken = Taken::one();
        let stream = match (&self.address, &self.name) {
            (EndpointAddr::Tcp(address), _) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                descriptors::spare_for_check(&socket)?;
                socket.connect(*address).await.map(Stream::Tcp)
            }
            (EndpointAddr::Named { port, .. }, Some(name)) => {
                // Relaxed: any turn will do.
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let addresses = name.addresses().await;
                let tcp = Box::pin(eyeballs::connect(&addresses, *port, turn)).await?;
                descriptors::spare_for_check(&tcp).map(|()| Stream::Tcp(tcp))
            }
            (EndpointAddr::Named { .. }, None) => Err(io::ErrorKind::AddrNotAvailable.into()),
            (EndpointAddr::Unix(path), _) => {
                let unix = UnixStream::connect(path).await?;
                descriptors::spare_for_check(&unix).map(|()| Stream::Unix(unix))
            }
        };
        Ok((stream?, taken))
    }
}
