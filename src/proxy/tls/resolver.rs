//! Which certificate a client gets: by the name that it asks for and the signatures that it can verify.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::{Identity, certified};

/// A listener's certificates by name: an exact one, then a wildcard's, then the listener's first.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Lower case; a wildcard as `*.example.com`.
    by_name: HashMap<String, Candidates>,
    default: Candidates,
}

/// Certificates for the same name, one a kind of key; the cheapest signature first.
type Candidates = Vec<Arc<CertifiedKey>>;

impl Resolver {
    /// # Errors
    /// A key that cannot be used.
    pub(super) fn of(identities: &[Identity], provider: &CryptoProvider) -> Result<Self, rustls::Error> {
        let mut by_name: HashMap<String, Candidates> = HashMap::new();
        let mut default = Candidates::new();
        for (index, identity) in identities.iter().enumerate() {
            let certified = Arc::new(certified(identity, provider)?);
            // Beside the first one, others for the same names stand in for clients that cannot verify it.
            if index == 0 || identity.names.iter().any(|name| identities[0].names.contains(name)) {
                default.push(Arc::clone(&certified));
            }
            for name in &identity.names {
                by_name.entry(name.clone()).or_default().push(Arc::clone(&certified));
            }
        }
        by_name.values_mut().chain([&mut default]).for_each(|candidates| candidates.sort_by_key(cost));
        Ok(Self { by_name, default })
    }

    fn candidates(&self, name: Option<&str>) -> &Candidates {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.default };
        // One label only (RFC 6125 §6.4.3).
        let wildcard = || name.split_once('.').and_then(|(_, rest)| self.by_name.get(&format!("*.{rest}")));
        self.by_name.get(&name).or_else(wildcard).unwrap_or(&self.default)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(name);
        let fitting = candidates.iter().find(|candidate| candidate.key.choose_scheme(schemes).is_some());
        // With none rustls says what is missing.
        fitting.or_else(|| candidates.first()).cloned()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

/// An RSA signature costs some ten times an ECDSA one.
fn cost(certified: &Arc<CertifiedKey>) -> u8 {
    match certified.key.algorithm() {
        SignatureAlgorithm::ECDSA | SignatureAlgorithm::ED25519 => 0,
        _ => 1,
    }
}
