//! Which cipher suite a connection gets: the listener's order decides, but for clients without instructions for AES.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::server::ClientHello;
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite};

/// All that are safe, the most wanted first. A key of 128 bits is as good as one of 256 for as long as anybody can tell, and SHA-384
/// has no instructions of its own where SHA-256 has: a sixth of a handshake. Go and BoringSSL order them like this.
const ORDER: [CipherSuite; 9] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// The suites of a listener in their order; `wanted` is the operator's, or empty.
pub(super) fn suites(wanted: &[CipherSuite]) -> Vec<SupportedCipherSuite> {
    let wanted = if wanted.is_empty() { &ORDER } else { wanted };
    let find = |suite: &CipherSuite| ALL_CIPHER_SUITES.iter().copied().find(|known| known.suite() == *suite);
    wanted.iter().filter_map(find).collect()
}

/// A listener's configuration, once for each order of the suites.
#[derive(Debug)]
pub(super) struct Configs {
    /// The listener's order decides.
    ours: Arc<ServerConfig>,
    /// The client's does.
    theirs: Arc<ServerConfig>,
}

impl Configs {
    /// Both share the keys of the tickets, so that a session goes on whichever it began with.
    pub(super) fn of(config: ServerConfig) -> Self {
        let [mut ours, mut theirs] = [config.clone(), config];
        (ours.ignore_client_order, theirs.ignore_client_order) = (true, false);
        Self { ours: Arc::new(ours), theirs: Arc::new(theirs) }
    }

    /// The one for the client of `hello`. Who wants ChaCha20 most has a processor that is slow with AES.
    pub(super) fn choose(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        // What is unknown is there to be ignored (RFC 8701).
        let known = hello.cipher_suites().iter().find(|suite| ORDER.contains(suite));
        Arc::clone(if known.is_some_and(is_chacha20) { &self.theirs } else { &self.ours })
    }
}

fn is_chacha20(suite: &CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}
