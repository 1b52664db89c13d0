//! Authorities, certificates, and clients that speak TLS.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use socket2::{Domain, Socket, Type};

use super::client::{Answer, Reader};

/// Signs certificates.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Pair {
    pub der: CertificateDer<'static>,
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A server's certificate, with an ECDSA key.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.sign(names, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), |_| ())
    }

    /// A server's certificate, with an RSA key.
    pub fn issue_rsa(&self, names: &[&str]) -> Pair {
        self.sign(names, KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(), |_| ())
    }

    /// A server's certificate as `change` says.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        self.sign(names, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), change)
    }

    /// A client's certificate.
    pub fn client(&self, name: &str) -> Pair {
        self.sign(&[], KeyPair::generate().unwrap(), |params| {
            params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    fn sign(&self, names: &[&str], key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { der: certificate.der().clone(), cert: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write(&self, dir: &std::path::Path, name: &str) {
        std::fs::write(dir.join(format!("{name}.key")), &self.key).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), &self.cert).unwrap();
    }
}

/// What a client offers; it remembers its sessions.
#[derive(Clone)]
pub struct Caller(Arc<ClientConfig>);

/// How a [`Caller`] is made.
pub struct Offer<'a> {
    pub authority: &'a Authority,
    pub versions: &'a [&'static SupportedProtocolVersion],
    /// Those that are offered, the most wanted first; empty: all.
    pub suites: &'a [CipherSuite],
    pub shows: Option<&'a Pair>,
    pub alpn: &'a [&'a str],
}

impl<'a> Offer<'a> {
    pub fn to(authority: &'a Authority) -> Self {
        Self { authority, versions: rustls::ALL_VERSIONS, suites: &[], shows: None, alpn: &[] }
    }

    pub fn caller(&self) -> Caller {
        let mut provider = aws_lc_rs::default_provider();
        if !self.suites.is_empty() {
            let known = std::mem::take(&mut provider.cipher_suites);
            let find = |name: &CipherSuite| known.iter().copied().find(|suite| suite.suite() == *name);
            provider.cipher_suites = self.suites.iter().filter_map(find).collect();
        }
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.shows {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![pair.der.clone()], key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Caller(Arc::new(config))
    }
}

impl Caller {
    pub fn trusting(authority: &Authority) -> Self {
        Offer::to(authority).caller()
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    /// Connects and does the handshake; `name` may be an address, which is not sent.
    ///
    /// # Errors
    /// Why there is none, as the client sees it.
    pub fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Secure> {
        self.connect_with(address, name, None)
    }

    /// The same with a receive buffer of this size.
    ///
    /// # Errors
    /// As [`Caller::connect`].
    pub fn connect_with(&self, address: SocketAddr, name: &str, buffer: Option<usize>) -> io::Result<Secure> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if let Some(size) = buffer {
            socket.set_recv_buffer_size(size)?;
        }
        socket.connect(&address.into())?;
        let mut stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(super::PATIENCE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Secure { reader: Reader { pending: Vec::new(), source: StreamOwned::new(connection, stream) } })
    }

    /// One GET over a connection of its own.
    ///
    /// # Errors
    /// As [`Caller::connect`], and when there is no answer.
    pub fn get(&self, address: SocketAddr, name: &str, path: &str) -> io::Result<Answer> {
        self.connect(address, name)?.try_get(name, path)
    }
}

/// A connection under TLS.
pub struct Secure {
    reader: Reader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Secure {
    /// The certificate that was shown.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.reader.source.conn.peer_certificates().unwrap()[0].clone()
    }

    pub fn connection(&self) -> &ClientConnection {
        &self.reader.source.conn
    }

    /// The bytes themselves, for other protocols.
    pub fn into_stream(self) -> StreamOwned<ClientConnection, TcpStream> {
        self.reader.source
    }

    pub fn is_resumed(&self) -> bool {
        self.connection().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.reader.source.write_all(bytes.as_ref()).expect("the proxy takes it");
        self.reader.source.flush().expect("the proxy takes it");
        self
    }

    pub fn try_answer(&mut self) -> io::Result<Answer> {
        self.reader.answer(false)
    }

    pub fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer")
    }

    pub fn get(&mut self, host: &str, path: &str) -> Answer {
        self.try_get(host, path).expect("an answer")
    }

    /// # Errors
    /// When there is no answer.
    pub fn try_get(&mut self, host: &str, path: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.reader.source.write_all(request.as_bytes())?;
        self.reader.source.flush()?;
        self.try_answer()
    }

    /// Reads until `text` has come, whatever is around it.
    pub fn wait_for(&mut self, text: &str) {
        while !self.reader.pending.windows(text.len()).any(|bytes| bytes == text.as_bytes()) {
            self.reader.more().expect("more to come");
        }
    }

    /// Reads to the end: `Ok` when the proxy has said that it is one (`close_notify`).
    pub fn end(&mut self) -> io::Result<()> {
        loop {
            match self.reader.more() {
                Ok(()) => self.reader.pending.clear(),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none() => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the connection below TLS, without a word.
    pub fn cut(self) {
        drop(self.reader.source.sock);
    }
}
