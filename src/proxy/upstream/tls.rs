//! TLS towards endpoints: whom they have to be, and the handshake.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::stream::Stream;
use crate::table::{EndpointAddr, UpstreamTls};

/// Makes the TLS connections of all versions with the same settings; sessions are resumed among them.
pub struct Connector {
    /// Why there is none; the configuration was checked, so this is rare.
    config: Result<Arc<ClientConfig>, String>,
    settings: Arc<UpstreamTls>,
    is_http2: bool,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What connectors are shared by.
type Key = (Arc<UpstreamTls>, bool);

/// Locked when the table changes, never on the request path.
static CONNECTORS: LazyLock<Mutex<HashMap<Key, Weak<Connector>>>> = LazyLock::new(Mutex::default);

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

/// The system's authorities, read once.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!("the system has no authorities: no endpoint can be verified by them");
    }
    Arc::new(roots)
});

impl Connector {
    /// The connector for these settings.
    #[must_use]
    pub fn shared(settings: Option<&Arc<UpstreamTls>>, is_http2: bool) -> Arc<Self> {
        let settings = settings.map(Arc::clone).unwrap_or_default();
        let mut connectors = CONNECTORS.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (settings, is_http2);
        if let Some(known) = connectors.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        connectors.retain(|_, connector| connector.strong_count() > 0);
        let made = Arc::new(Self::new(Arc::clone(&key.0), is_http2));
        connectors.insert(key, Arc::downgrade(&made));
        made
    }

    fn new(settings: Arc<UpstreamTls>, is_http2: bool) -> Self {
        let config = client_config(&settings, is_http2).map(Arc::new);
        if let Err(why) = &config {
            tracing::error!(why, "no TLS connection to endpoints can be made");
        }
        Self { config, settings, is_http2 }
    }

    /// Shakes hands with `endpoint` over `stream`; nothing is read before, so nothing can have been put in its place.
    ///
    /// # Errors
    /// When it is not who it should be, or does not speak what it should.
    pub async fn handshake(&self, stream: Stream, endpoint: &EndpointAddr) -> io::Result<Stream> {
        let config = self.config.as_ref().map_err(|why| io::Error::other(why.clone()))?;
        let name = self.server_name(endpoint)?;
        let tls = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        if self.is_http2 && tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("it does not speak h2: ALPN chose something else"));
        }
        Ok(Stream::Secured(Box::new(tls)))
    }

    fn server_name(&self, endpoint: &EndpointAddr) -> io::Result<ServerName<'static>> {
        let named = |name: &str| ServerName::try_from(name.to_owned()).map_err(io::Error::other);
        let UpstreamTls { server_name, found_by, .. } = &*self.settings;
        match (server_name, endpoint, found_by) {
            (Some(name), ..) | (None, EndpointAddr::Tcp(_), Some(name)) => named(name),
            (None, EndpointAddr::Named { host, .. }, _) => named(host),
            (None, EndpointAddr::Tcp(address), None) => Ok(ServerName::from(address.ip())),
            (None, EndpointAddr::Unix(_), _) if !self.settings.verify => named("localhost"),
            (None, EndpointAddr::Unix(_), _) => Err(io::Error::other("a Unix socket has no name to verify")),
        }
    }
}

fn client_config(settings: &UpstreamTls, is_http2: bool) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER));
    let builder = builder.with_safe_default_protocol_versions().map_err(|why| why.to_string())?;
    let builder = match (&settings.authorities, settings.verify) {
        (_, false) => {
            let verifier = Arc::new(Anybody(PROVIDER.signature_verification_algorithms));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        (None, true) => builder.with_root_certificates(Arc::clone(&SYSTEM)),
        (Some(pem), true) => {
            let mut roots = RootCertStore::empty();
            for certificate in chain(pem)? {
                roots.add(certificate).map_err(|why| why.to_string())?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let mut config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(&identity.key).map_err(|why| why.to_string())?;
            builder
                .with_client_auth_cert(chain(&identity.certificate)?, key)
                .map_err(|why| why.to_string())?
        }
    };
    config.alpn_protocols = vec![if is_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(config)
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|why| why.to_string())
}

/// Believes whoever answers, as the operator wants it; still holds them to the key of the certificate they show.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
