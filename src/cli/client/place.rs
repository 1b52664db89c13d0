//! Where a switchback is called: by its admin socket, or over TCP, with what shows who calls.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderValue;
use http::uri::{Authority, Uri};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// What is shown of a caller, and who is believed; as the command line has it.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// A token; not shown.
    pub token: Option<Token>,
    /// A PEM file of the authorities that are believed in place of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of a certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// A bearer token. Never shown.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// # Errors
    /// It is no token.
    pub fn of(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        let value =
            HeaderValue::try_from(format!("Bearer {text}")).ok().filter(|_| is_plain && !text.is_empty());
        // What is wrong with it is not told with it.
        let mut value =
            value.ok_or_else(|| anyhow::anyhow!("it is empty, or has characters that no token has"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where a switchback is called.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Socket(PathBuf),
    Remote(Arc<Remote>),
}

/// Over TCP.
pub(super) struct Remote {
    url: String,
    authority: Authority,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    token: Option<Token>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.url).finish()
    }
}

/// A connection, whatever it is over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Why there is no connection.
pub(super) enum NotConnected {
    Io(io::Error),
    /// There is one, but TLS fails on it.
    Tls(io::Error),
}

/// The text of what is a URL and not a path.
pub(super) fn url(place: &Path) -> Option<&str> {
    place.to_str().filter(|text| ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)))
}

impl Place {
    /// A path, or `https://host:port`, `http://127.0.0.1:port`.
    ///
    /// # Errors
    /// What is wrong with the URL, or with the files of `credentials`; those are for URLs alone.
    pub(super) fn of(place: &Path, credentials: &Credentials) -> anyhow::Result<Self> {
        match url(place) {
            Some(url) => Ok(Self::Remote(Arc::new(Remote::of(url, credentials)?))),
            // They may be set for all commands by the environment.
            None => Ok(Self::Socket(place.to_owned())),
        }
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, NotConnected> {
        match self {
            Self::Socket(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(NotConnected::Io)?)),
            Self::Remote(remote) => {
                let stream = TcpStream::connect((host(&remote.authority), remote.port)).await;
                let stream = stream.map_err(NotConnected::Io)?;
                // Best effort: without it a call in two parts is late.
                stream.set_nodelay(true).ok();
                match &remote.tls {
                    None => Ok(Box::new(stream)),
                    Some((connector, name)) => {
                        let secured = connector.connect(name.clone(), stream).await;
                        Ok(Box::new(secured.map_err(NotConnected::Tls)?))
                    }
                }
            }
        }
    }

    /// What a call says for its `host`.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Socket(_) => "switchback",
            Self::Remote(remote) => remote.authority.as_str(),
        }
    }

    /// What a call says for its `authorization`.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        match self {
            Self::Socket(_) => None,
            Self::Remote(remote) => remote.token.as_ref().map(|Token(value)| value),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Remote(remote) => f.write_str(&remote.url),
        }
    }
}

impl Remote {
    fn of(url: &str, credentials: &Credentials) -> anyhow::Result<Self> {
        let parsed = url.parse::<Uri>().ok();
        let parsed = parsed.filter(|uri| matches!(uri.path(), "" | "/") && uri.query().is_none());
        let authority = parsed.as_ref().and_then(Uri::authority).cloned();
        let authority = authority.filter(|authority| {
            // What follows the host and is no port would be taken for none, and another one called.
            let port = authority.port_u16().filter(|port| *port != 0);
            let is_alone = authority.as_str() == authority.host();
            !authority.host().is_empty() && !authority.as_str().contains('@') && (port.is_some() || is_alone)
        });
        let Some(authority) = authority else {
            anyhow::bail!(
                "--socket takes a path, https://HOST:PORT or http://127.0.0.1:PORT, and no more than that"
            );
        };
        let is_secure = url.starts_with("https://");
        if !is_secure && credentials.token.is_some() && !is_here(host(&authority)) {
            anyhow::bail!("a token is not sent readable to another machine: use https:// with {authority}");
        }
        let tls = if is_secure { Some((connector(credentials)?, server_name(&authority)?)) } else { None };
        let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        Ok(Self { url: url.to_owned(), authority, port, tls, token: credentials.token.clone() })
    }
}

/// The host without the brackets of an IPv6 address.
fn host(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn server_name(authority: &Authority) -> anyhow::Result<ServerName<'static>> {
    let name = ServerName::try_from(host(authority).to_owned());
    name.map_err(|_| anyhow::anyhow!("{authority} has no name that could be in a certificate"))
}

fn connector(credentials: &Credentials) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match &credentials.ca {
        Some(file) => {
            for authority in certificates(file)? {
                let added = roots.add(authority);
                added.map_err(|why| anyhow::anyhow!("{}: no authority: {why}", file.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots);
    let mut config = match &credentials.certificate {
        None => config.with_no_client_auth(),
        Some((chain, key)) => {
            let read = PrivateKeyDer::from_pem_file(key);
            let read = read.map_err(|why| anyhow::anyhow!("{}: no private key: {why}", key.display()))?;
            let made = config.with_client_auth_cert(certificates(chain)?, read);
            made.map_err(|why| anyhow::anyhow!("{} with {}: {why}", chain.display(), key.display()))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(read) if !read.is_empty() => Ok(read),
        Ok(_) => Err(anyhow::anyhow!("{} has no certificate", file.display())),
        Err(why) => Err(anyhow::anyhow!("{}: no certificate: {why}", file.display())),
    }
}
