//! The load of full TLS handshakes: a connection for each request, never a resumed session.
//!
//! `wrk` will not do: it takes the session of a connection over to the next one.

use std::{cell::RefCell, io, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use anyhow::Result;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs::{self, cipher_suite, kx_group},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    certificate,
    scenario::Load,
    tally::{self, Tally},
};

/// Puts the load on `to` and prints what `wrk` would.
pub(crate) fn load(to: SocketAddr, path: &str, connections: u16, seconds: u16) -> Result<()> {
    let connector = TlsConnector::from(Arc::new(config()?));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", certificate::NAME);
    let request: Rc<str> = request.into();
    tally::measure(connections, seconds, |end, tally| {
        let (connector, request) = (connector.clone(), Rc::clone(&request));
        async move {
            while Instant::now() < end {
                one(to, &connector, &request, &tally).await;
            }
        }
    })
}

/// Only TLS 1.3 and X25519: what all peers speak, so that all do the same work. The suite with AES-128 comes first, as
/// browsers offer them: who leaves the choice to the client makes the same as who orders them itself.
fn config() -> Result<ClientConfig> {
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![kx_group::X25519],
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// One connection, handshake, request and answer.
async fn one(to: SocketAddr, connector: &TlsConnector, request: &str, tally: &RefCell<Tally>) {
    let start = Instant::now();
    let answer = exchange(to, connector, request).await;
    let mut tally = tally.borrow_mut();
    match answer {
        Ok(answer) => tally.answered(start.elapsed(), answer.len(), answer.starts_with(b"HTTP/1.1 200")),
        Err(error) => tally.failed(&error),
    }
}

async fn exchange(to: SocketAddr, connector: &TlsConnector, request: &str) -> io::Result<Vec<u8>> {
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(certificate::NAME).map_err(io::Error::other)?;
    let mut stream = connector.connect(name, tcp).await?;
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::with_capacity(2048);
    match stream.read_to_end(&mut answer).await {
        // Some peers end the connection below TLS; whether the answer is whole is judged by its bytes.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(answer),
    }
}

/// Believes everybody: the load's own work is not what is measured.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Runs the load in a process of its own: the command line after the program.
pub(crate) fn arguments(to: SocketAddr, load: &Load, seconds: u16) -> Vec<String> {
    vec![
        "handshakes".to_owned(),
        format!("--to={to}"),
        format!("--path={}", load.path),
        format!("--connections={}", load.connections),
        format!("--seconds={seconds}"),
    ]
}
