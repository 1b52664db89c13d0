//! TLS towards clients: what a listener presents, whom it lets in, and the handshake, bounded in time and number.
//!
//! Each listener has a [`ServerConfig`] and ticket keys of its own, made anew whenever anything in its `tls` changes, be
//! it a file's content. So a session is only ever resumed where it began: on the same listener, with the same
//! certificates and the same rule about clients' certificates, and, as rustls sees to, under the same server name. What
//! was checked in a full handshake is then still what would be checked (the fault of CVE-2025-23419 was to resume across
//! these); only that a client's certificate has expired since has to be looked at again.
//!
//! Never: renegotiation, compression, early data (a replayed request would be served twice), sessions kept in memory.

mod ciphers;
mod handshakes;
mod resolver;
mod subject;
mod tickets;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{Acceptor, NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, HandshakeKind, NamedGroup, RootCertStore, ServerConfig, ServerConnection};
use rustls::{SupportedProtocolVersion, crypto::aws_lc_rs};
use tokio_rustls::LazyConfigAcceptor;

pub use handshakes::Handshakes;

use ciphers::Configs;
use handshakes::Slot;
use resolver::Resolver;
use tickets::Tickets;

use super::peer::Peer;
use super::quota::network;
use super::upstream::Stream;
use super::worker::Worker;
use crate::metrics::Handshake;

/// The application protocols that a connection can go on with after its handshake. Of a listener's list only these are
/// offered.
const SERVED: [&str; 2] = [HTTP2, "http/1.1"];

/// HTTP/2 over TLS (RFC 9113 §3.2).
const HTTP2: &str = "h2";

/// What a listener's TLS is made of. Everything in it was checked when the configuration was read.
#[derive(Debug)]
pub struct Plan {
    /// What is presented; the first one to clients that name no host, or one that none is for.
    pub identities: Vec<Identity>,
    /// True when TLS 1.2 is not spoken.
    pub tls13_only: bool,
    /// The cipher suites that may be used, the most wanted first; empty: all that are safe.
    pub ciphers: Vec<CipherSuite>,
    /// The key exchange groups, the most wanted first; empty: the library's choice.
    pub groups: Vec<NamedGroup>,
    /// The authorities that sign clients' certificates; `None`: clients are not asked.
    pub client_authorities: Option<Arc<[CertificateDer<'static>]>>,
    /// Whether there has to be a client's certificate.
    pub requires_client: bool,
    /// The field that tells endpoints the verified client's name.
    pub subject_header: Option<HeaderName>,
    /// Application protocols, the most wanted first.
    pub alpn: Vec<&'static str>,
    /// How long a handshake may take.
    pub timeout: Duration,
    /// Whether sessions can be resumed.
    pub tickets: bool,
}

/// A certificate with its key and the names that it is for.
#[derive(Debug)]
pub struct Identity {
    /// DNS names in lower case, `*.` in front for a wildcard.
    pub names: Vec<String>,
    /// The certificate and those that lead from it towards an authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: Arc<PrivateKeyDer<'static>>,
    /// What its authority says of its revocation.
    pub ocsp: Option<Vec<u8>>,
}

/// A listener's TLS, shared by the workers.
#[derive(Debug)]
pub struct Tls {
    configs: Configs,
    timeout: Duration,
    subject_header: Option<HeaderName>,
    asks_clients: bool,
}

/// What a handshake has settled.
#[derive(Debug)]
pub struct Secured {
    /// The host that the client named, in lower case.
    pub server_name: Option<Box<str>>,
    /// The application protocol that was agreed on; `None`: the client named none.
    pub protocol: Option<&'static str>,
    /// Whose certificate was verified (RFC 4514); `None`: there was none.
    pub subject: Option<HeaderValue>,
    /// Whether clients' certificates decide who may ask: then every request has to be for `server_name`.
    pub asks_clients: bool,
}

impl Secured {
    /// True when HTTP/2 was agreed on.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.protocol == Some(HTTP2)
    }
}

impl Tls {
    /// The TLS that `plan` says.
    ///
    /// # Errors
    /// What of it rustls cannot do.
    pub fn build(plan: &Plan) -> Result<Self, rustls::Error> {
        Ok(Self {
            configs: Configs::of(server_config(plan)?),
            timeout: plan.timeout,
            subject_header: plan.subject_header.clone(),
            asks_clients: plan.client_authorities.is_some(),
        })
    }

    /// The field that tells endpoints the verified client's name.
    #[must_use]
    pub fn subject_header(&self) -> Option<&HeaderName> {
        self.subject_header.as_ref()
    }

    /// Does `peer`'s handshake on `stream` and counts how it ended; `None` when it failed, which closes the connection.
    ///
    /// Not to be awaited where connections are accepted: it takes as long as the client likes, up to the limit.
    pub async fn accept(
        &self,
        stream: Stream,
        peer: &Peer,
        worker: &Rc<Worker>,
    ) -> Option<(Stream, Secured)> {
        let (most, network) = (worker.settings().handshakes, network(peer.address));
        let done = match worker.handshakes.begin(network, most, self.timeout, &worker.clock) {
            Some(slot) => self.handshake(stream, &slot, worker).await,
            None => Err(Handshake::Limit),
        };
        let (ended, kept) = match done {
            Ok((ended, stream, secured)) => (ended, Some((stream, secured))),
            Err(ended) => (ended, None),
        };
        worker.handshaken(ended);
        kept
    }

    async fn handshake(
        &self,
        stream: Stream,
        slot: &Slot,
        worker: &Worker,
    ) -> Result<(Handshake, Stream, Secured), Handshake> {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let begun = unless_given_up(hello, slot, worker).await?;
        let config = self.configs.choose(&begun.client_hello());
        let stream = unless_given_up(begun.into_stream(config), slot, worker).await?;
        let connection = stream.get_ref().1;
        let secured = self.secured(connection)?;
        let ended = match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => Handshake::Full,
        };
        Ok((ended, Stream::Tls(Box::new(stream)), secured))
    }

    fn secured(&self, connection: &ServerConnection) -> Result<Secured, Handshake> {
        let shown = connection.peer_certificates().and_then(|chain| chain.first());
        let subject = match shown {
            None => None,
            // A ticket outlives a certificate that expires an hour later.
            Some(certificate) => {
                let subject = subject::of_valid(certificate, UnixTime::now());
                Some(subject.ok_or(Handshake::ClientCertificate)?)
            }
        };
        let agreed = connection.alpn_protocol();
        Ok(Secured {
            server_name: connection.server_name().map(Into::into),
            protocol: SERVED.into_iter().find(|name| agreed == Some(name.as_bytes())),
            subject,
            asks_clients: self.asks_clients,
        })
    }
}

/// What rustls makes of `plan`, for listeners that no worker serves too: with ticket keys of its own.
///
/// # Errors
/// What of it rustls cannot do.
pub fn server_config(plan: &Plan) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(provider(plan));
    let resolver = Resolver::of(&plan.identities, &provider)?;
    let verifier = match &plan.client_authorities {
        None => Arc::new(NoClientAuth) as _,
        Some(authorities) => verifier(authorities, plan.requires_client, &provider)?,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(plan))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    let served = plan.alpn.iter().filter(|name| SERVED.contains(name));
    config.alpn_protocols = served.map(|name| name.as_bytes().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    // One is enough for a client that goes on with it; the second would cost 36 µs a handshake.
    config.send_tls13_tickets = usize::from(plan.tickets);
    if plan.tickets {
        config.ticketer = Arc::new(Tickets::new()?);
    }
    Ok(config)
}

/// One half of a handshake; the error is why it failed. Both halves together have the time of `slot`.
async fn unless_given_up<T>(
    mut half: impl Future<Output = io::Result<T>> + Unpin,
    slot: &Slot,
    worker: &Worker,
) -> Result<T, Handshake> {
    poll_fn(|cx| {
        if let Poll::Ready(done) = Pin::new(&mut half).poll(cx) {
            return Poll::Ready(done.map_err(|error| why(&error)));
        }
        poll_given_up(slot, worker, cx).map(Err)
    })
    .await
}

/// Ready when it has lasted too long; once the worker winds down that is sooner.
fn poll_given_up(slot: &Slot, worker: &Worker, cx: &Context<'_>) -> Poll<Handshake> {
    if worker.is_stopping.get() {
        slot.hurry();
    }
    slot.poll_overdue(cx)
}

fn provider(plan: &Plan) -> CryptoProvider {
    let cipher_suites = ciphers::suites(&plan.ciphers);
    let mut provider = CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() };
    if !plan.groups.is_empty() {
        let known = aws_lc_rs::ALL_KX_GROUPS;
        let find = |name: &NamedGroup| known.iter().copied().find(|group| group.name() == *name);
        provider.kx_groups = plan.groups.iter().filter_map(find).collect();
    }
    provider
}

/// A version is only spoken when one of the cipher suites is for it.
fn versions(plan: &Plan) -> Vec<&'static SupportedProtocolVersion> {
    let is_tls13 = |suite: &CipherSuite| {
        let known = aws_lc_rs::ALL_CIPHER_SUITES.iter().find(|known| known.suite() == *suite);
        known.is_some_and(|known| known.tls13().is_some())
    };
    let all = plan.ciphers.is_empty();
    let has_tls12 = !plan.tls13_only && (all || !plan.ciphers.iter().all(is_tls13));
    let has_tls13 = all || plan.ciphers.iter().any(is_tls13);
    [(has_tls13, &TLS13), (has_tls12, &TLS12)]
        .into_iter()
        .filter_map(|(is_spoken, version)| is_spoken.then_some(version))
        .collect()
}

fn verifier(
    authorities: &[CertificateDer<'static>],
    is_required: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|why| rustls::Error::General(why.to_string()))
}

fn certified(identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey, rustls::Error> {
    let mut certified = CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), provider)?;
    certified.ocsp.clone_from(&identity.ocsp);
    Ok(certified)
}

/// Why a handshake failed.
fn why(error: &io::Error) -> Handshake {
    use rustls::Error::{
        AlertReceived, InvalidCertificate, NoApplicationProtocol, NoCertificatesPresented, PeerIncompatible,
    };
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        None => Handshake::Closed,
        Some(PeerIncompatible(_) | NoApplicationProtocol) => Handshake::Incompatible,
        Some(NoCertificatesPresented | InvalidCertificate(_)) => Handshake::ClientCertificate,
        Some(AlertReceived(_)) => Handshake::Refused,
        Some(_) => Handshake::Malformed,
    }
}
