//! One certificate with its chain and key: read, and found to belong together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::pem::Named;
use crate::config::walk::Node;

/// A certificate that can be presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its file.
    pub cert: PathBuf,
    /// The DNS names that it is for, in lower case: `shop.example.com`, `*.example.com`.
    pub names: Vec<String>,
    /// The certificate, and those that lead from it towards an authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: Arc<PrivateKeyDer<'static>>,
    /// What kind of key that is, as an object identifier.
    pub key_kind: String,
    /// What its authority says of its revocation (OCSP), to be handed to clients.
    pub ocsp: Option<Vec<u8>>,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
}

/// Reads `{ cert = "shop.pem", key = "shop.key", ocsp = "shop.ocsp" }`.
pub(super) fn read(node: Node<'_>, base: &Path) -> Option<Certificate> {
    let mut section = node.section("a certificate")?;
    let cert = section.required("cert", "cert = \"shop.pem\"");
    let key = section.required("key", "key = \"shop.key\"");
    let ocsp = section.take("ocsp");
    section.finish();
    let cert = cert.and_then(|node| Named::read(node, base));
    let key = key.and_then(|node| Named::read(node, base));
    let ocsp = ocsp.map_or(Some(None), |node| staple(node, base).map(Some));
    let chain = cert.as_ref().and_then(Named::certificates);
    let read_key = key.as_ref().and_then(Named::key);
    let (cert, key, chain, read_key) = (cert?, key?, chain?, read_key?);
    belong_together(&cert, &key, &chain, &read_key)?;
    let facts = Facts::of(&cert, &chain[0])?;
    facts.check_validity(&cert);
    Some(Certificate {
        cert: cert.path,
        names: facts.names,
        chain,
        key: Arc::new(read_key),
        key_kind: facts.key_kind,
        ocsp: ocsp?,
        not_after: facts.not_after,
    })
}

/// The authorities of a bundle.
pub(super) fn authorities(node: Node<'_>, base: &Path) -> Option<Vec<CertificateDer<'static>>> {
    let bundle = Named::read(node, base)?;
    let certificates = bundle.certificates()?;
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        if let Err(why) = store.add(certificate.clone()) {
            let path = bundle.path.display();
            node.at.error(format_args!("certificate {} of {path} cannot be used: {why}", index + 1));
            return None;
        }
    }
    Some(certificates)
}

/// The key is one that can be used, and the certificate's.
fn belong_together(
    cert: &Named<'_>,
    key: &Named<'_>,
    chain: &[CertificateDer<'static>],
    read_key: &PrivateKeyDer<'static>,
) -> Option<()> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let signer = provider.key_provider.load_private_key(read_key.clone_key());
    let signer = signer.map_err(|why| {
        key.node.at.error(format_args!("the key in {} cannot be used: {why}", key.path.display()));
    });
    match CertifiedKey::new(chain.to_vec(), signer.ok()?).keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Some(()),
        Err(Error::InconsistentKeys(_)) => {
            let hint = "a certificate needs the key that it was requested with; are two of them mixed up?";
            let message = format!("{} is not the key of {}", key.path.display(), cert.path.display());
            key.node.at.error_with(message, hint);
            None
        }
        Err(why) => {
            cert.node.at.error(format_args!("{} cannot be used: {why}", cert.path.display()));
            None
        }
    }
}

/// What a certificate says of itself.
struct Facts {
    names: Vec<String>,
    key_kind: String,
    not_before: i64,
    not_after: i64,
}

impl Facts {
    fn of(cert: &Named<'_>, der: &CertificateDer<'_>) -> Option<Self> {
        let Ok((_, parsed)) = X509Certificate::from_der(der) else {
            cert.node.at.error(format_args!("{} holds no X.509 certificate", cert.path.display()));
            return None;
        };
        Some(Self {
            names: names(&parsed),
            key_kind: parsed.public_key().algorithm.algorithm.to_id_string(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// An expired certificate is better than a listener that is gone: it is loaded, and said.
    fn check_validity(&self, cert: &Named<'_>) {
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        let path = cert.path.display();
        if self.not_after < now {
            let since = date(self.not_after);
            cert.node.at.warn(format_args!("{path} has expired on {since}: clients will refuse it"));
        } else if self.not_before > now {
            let from = date(self.not_before);
            cert.node
                .at
                .warn(format_args!("{path} is only valid from {from}: clients will refuse it until then"));
        }
    }
}

/// Its DNS names; without any, as old certificates are, its common name when that is one.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        for name in &alternative.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    } else {
        let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.filter(|name| is_dns_name(name)).map(str::to_ascii_lowercase));
    }
    names.sort();
    names.dedup();
    names
}

fn is_dns_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
    text.contains('.') && text.bytes().all(is_plain)
}

fn date(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    httpdate::fmt_http_date(UNIX_EPOCH + since)
}

/// An OCSP response in DER, of which only that it is a successful one is looked at (RFC 6960 §4.2.1).
fn staple(node: Node<'_>, base: &Path) -> Option<Vec<u8>> {
    let file = Named::read(node, base)?;
    if is_ocsp_response(&file.bytes) {
        return Some(file.bytes);
    }
    let hint = "it has to be DER as `openssl ocsp -respout` writes it";
    node.at.error_with(format_args!("{} holds no successful OCSP response", file.path.display()), hint);
    None
}

fn is_ocsp_response(der: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = der else { return false };
    // A long form says in how many bytes the length is.
    let skipped = if *length < 0x80 { 0 } else { usize::from(*length & 0x7f) };
    rest.get(skipped..).is_some_and(|content| content.starts_with(&[0x0a, 0x01, 0x00]))
}
