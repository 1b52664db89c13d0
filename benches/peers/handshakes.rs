//! The load of full TLS handshakes: a connection for each request, never a resumed session.
//!
//! `wrk` will not do: it takes the session of a connection over to the next one.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs::{self, kx_group},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
};
use tokio_rustls::TlsConnector;

use crate::certificate;

/// What was counted.
#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    bytes: u64,
    connect: u64,
    read: u64,
    status: u64,
}

/// Puts the load on `to` and prints what `wrk` would.
pub(crate) fn load(to: SocketAddr, path: &str, connections: u16, seconds: u16) -> Result<()> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let connector = TlsConnector::from(Arc::new(config()?));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", certificate::NAME);
    let request: Rc<str> = request.into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = Instant::now();
    let end = start + Duration::from_secs(u64::from(seconds));
    runtime.block_on(LocalSet::new().run_until(async {
        let client = |_| {
            let (tally, connector, request) = (Rc::clone(&tally), connector.clone(), Rc::clone(&request));
            tokio::task::spawn_local(async move {
                while Instant::now() < end {
                    one(to, &connector, &request, &tally).await;
                }
            })
        };
        for client in (0..connections).map(client).collect::<Vec<_>>() {
            client.await?;
        }
        anyhow::Ok(())
    }))?;
    println!("summary: {}", tally.borrow_mut().summary(start.elapsed()));
    Ok(())
}

/// Only TLS 1.3 and X25519: what all peers speak, so that all do the same work.
fn config() -> Result<ClientConfig> {
    let provider =
        rustls::crypto::CryptoProvider { kx_groups: vec![kx_group::X25519], ..aws_lc_rs::default_provider() };
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
        Ok(answer) => {
            tally.latencies.push(start.elapsed());
            tally.bytes += answer.len() as u64;
            tally.status += u64::from(!answer.starts_with(b"HTTP/1.1 200"));
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => tally.connect += 1,
        Err(_) => tally.read += 1,
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

impl Tally {
    fn summary(&mut self, elapsed: Duration) -> String {
        self.latencies.sort_unstable();
        let percentile = |share: usize| {
            let at = self.latencies.len() * share / 100;
            self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
        };
        format!(
            r#"{{"seconds": {:.6}, "requests": {}, "bytes": {}, "p50_us": {:.1}, "p99_us": {:.1}, "errors": {{"connect": {}, "read": {}, "write": 0, "timeout": 0, "status": {}}}}}"#,
            elapsed.as_secs_f64(),
            self.latencies.len(),
            self.bytes,
            percentile(50),
            percentile(99),
            self.connect,
            self.read,
            self.status
        )
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
pub(crate) fn arguments(to: SocketAddr, path: &str, connections: u16, seconds: u16) -> Vec<String> {
    vec![
        "handshakes".to_owned(),
        format!("--to={to}"),
        format!("--path={path}"),
        format!("--connections={connections}"),
        format!("--seconds={seconds}"),
    ]
}
