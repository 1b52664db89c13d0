//! Files that hold certificates and keys, as text (RFC 7468).

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{Error, PemObject, SectionKind, SliceIter};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::regular;
use crate::config::walk::Node;

/// The most that is read of one file: a bundle of some hundred authorities.
const MAX_FILE: u64 = 4 << 20;

/// A file that was named, and what it holds.
pub(in crate::config) struct Named<'a> {
    pub(in crate::config) node: Node<'a>,
    pub(in crate::config) path: PathBuf,
    pub(in crate::config) bytes: Vec<u8>,
}

impl<'a> Named<'a> {
    /// Reads the file at `node`; one that cannot be read is noted there.
    pub(in crate::config) fn read(node: Node<'a>, base: &Path) -> Option<Self> {
        let path = node.path(base, "a file's path")?;
        match contents(&path) {
            Ok(bytes) => Some(Self { node, path, bytes }),
            Err(why) => {
                node.at.error(format_args!("{} cannot be read: {why}", path.display()));
                None
            }
        }
    }

    /// All certificates in it, at least one.
    pub(in crate::config) fn certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match read {
            Ok(certificates) if !certificates.is_empty() => Some(certificates),
            Ok(_) => self.lacks("certificate", "-----BEGIN CERTIFICATE-----"),
            Err(why) => self.is_broken(&why),
        }
    }

    /// The one key in it.
    pub(in crate::config) fn key(&self) -> Option<PrivateKeyDer<'static>> {
        match PrivateKeyDer::from_pem_slice(&self.bytes) {
            Ok(key) => Some(key),
            // In PKCS #8's form, and in that of RFC 1421 §4.6.1.1.
            Err(_) if self.has("ENCRYPTED PRIVATE KEY") || self.has("Proc-Type: 4,ENCRYPTED") => {
                let hint = "decrypt it with `openssl pkey`, and keep it readable for this user only";
                self.node.at.error_with(
                    format_args!("{} holds a key under a pass phrase", self.path.display()),
                    hint,
                );
                None
            }
            Err(Error::NoItemsFound) => self.lacks("private key", "-----BEGIN PRIVATE KEY-----"),
            Err(why) => self.is_broken(&why),
        }
    }

    fn has(&self, label: &str) -> bool {
        memchr::memmem::find(&self.bytes, label.as_bytes()).is_some()
    }

    fn lacks<T>(&self, what: &str, label: &str) -> Option<T> {
        let path = self.path.display();
        let message = match self.kinds().first() {
            _ if self.bytes.trim_ascii().is_empty() => format!("{path} is empty: it has no {what}"),
            Some(other) => format!("{path} has no {what}, but a {other}"),
            None => format!("{path} has no {what}"),
        };
        self.node.at.error_with(message, format!("it has to be PEM text with a line {label}"));
        None
    }

    fn is_broken<T>(&self, why: &Error) -> Option<T> {
        self.node.at.error(format_args!("{} is not PEM text: {why}", self.path.display()));
        None
    }

    /// What it holds instead.
    fn kinds(&self) -> Vec<&'static str> {
        let sections = SliceIter::<(SectionKind, Vec<u8>)>::new(&self.bytes).map_while(Result::ok);
        let name = |(kind, _)| match kind {
            SectionKind::Certificate => Some("certificate"),
            SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => {
                Some("private key")
            }
            SectionKind::Csr => Some("certificate signing request"),
            SectionKind::PublicKey => Some("public key"),
            SectionKind::Crl => Some("revocation list"),
            _ => None,
        };
        sections.filter_map(name).collect()
    }
}

fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = regular::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(bytes)
}
