//! `tls = { … }` of a version: whom its endpoints have to be, and what is shown to them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;

use super::walk::{Node, Section};
use crate::table::{EndpointAddr, Identity, Protocol, UpstreamTls};

/// The most that is read of one file: a bundle of some hundred authorities.
const MAX_FILE: u64 = 4 << 20;

/// The version's `tls`, and whether it fits the rest of the version. `Some(None)` when nothing is said.
pub(super) fn read(
    version: &mut Section<'_>,
    protocol: Option<Protocol>,
    endpoints: &[EndpointAddr],
) -> Option<Option<Arc<UpstreamTls>>> {
    let node = version.take("tls");
    let protocol = protocol?;
    let tls = match node {
        None => None,
        Some(node) if !protocol.is_tls() => {
            let message = format!("`tls` is of no use with protocol `{}`", protocol.token());
            node.at.error_with(message, "use `https`, or `h2` for HTTP/2");
            return None;
        }
        Some(node) => Some(Arc::new(settings(node)?)),
    };
    let is_named = tls.as_ref().is_some_and(|tls| tls.server_name.is_some() || !tls.verify);
    let unix = endpoints.iter().find(|endpoint| matches!(endpoint, EndpointAddr::Unix(_)));
    if let Some(endpoint) = unix.filter(|_| protocol.is_tls() && !is_named) {
        let message = format!("endpoint {endpoint} has no name that could be verified over TLS");
        version.at.error_with(message, "say whose certificate it has: tls = { server_name = \"…\" }");
        return None;
    }
    Some(tls)
}

fn settings(node: Node<'_>) -> Option<UpstreamTls> {
    let mut section = node.section("`tls`")?;
    let default = UpstreamTls::default();
    let server_name = section.or("server_name", None, |node| name(node).map(Some));
    let verify = section.or("verify", default.verify, Node::flag);
    let ca = section.take("ca");
    let authorities = ca.map_or(Some(None), |node| authorities(node).map(Some));
    let (certificate, key) = (section.take("client_cert"), section.take("client_key"));
    let identity = match (certificate, key) {
        (None, None) => Some(None),
        (Some(certificate), Some(key)) => identity(certificate, key).map(Some),
        (Some(node), None) | (None, Some(node)) => {
            let hint = "client_cert = \"proxy.pem\", client_key = \"proxy.key\"";
            node.at.error_with("`client_cert` and `client_key` go together", hint);
            None
        }
    };
    section.finish();
    let verify = verify?;
    if !verify {
        if let Some(ca) = ca {
            ca.at.error_with("`ca` is of no use with `verify = false`", "leave one of them out");
            return None;
        }
        node.at.warn("whoever answers at its endpoints is believed: `verify` is false");
    }
    Some(UpstreamTls { server_name: server_name?, verify, authorities: authorities?, identity: identity? })
}

fn name(node: Node<'_>) -> Option<Arc<str>> {
    let expected = "a host name such as \"shop.internal\", or an address";
    let text = node.text(expected)?;
    let is_name = text.parse::<IpAddr>().is_ok() || ServerName::try_from(text).is_ok();
    if is_name { Some(text.into()) } else { node.unexpected(expected) }
}

fn authorities(node: Node<'_>) -> Option<Arc<[u8]>> {
    let (bytes, certificates) = certificates(node)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates {
        if let Err(why) = roots.add(certificate) {
            node.at.error(format_args!("a certificate of it cannot be an authority: {why}"));
            return None;
        }
    }
    Some(bytes)
}

fn identity(certificate: Node<'_>, key: Node<'_>) -> Option<Identity> {
    let chain = certificates(certificate);
    let key_bytes = contents(key);
    let (chain, key_bytes) = (chain?, key_bytes?);
    let Ok(private) = PrivateKeyDer::from_pem_slice(&key_bytes) else {
        let hint = "it has to be PEM text with a line -----BEGIN PRIVATE KEY-----, not under a pass phrase";
        key.at.error_with("it holds no private key that can be read", hint);
        return None;
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if let Err(why) = CertifiedKey::from_der(chain.1, private, &provider) {
        key.at.error(format_args!("the key does not go with `client_cert`: {why}"));
        return None;
    }
    Some(Identity { certificate: chain.0, key: key_bytes })
}

/// The file at `node`, and the certificates in it: at least one.
fn certificates(node: Node<'_>) -> Option<(Arc<[u8]>, Vec<CertificateDer<'static>>)> {
    let bytes = contents(node)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => return Some((bytes, certificates)),
        Ok(_) => node.at.error_with(
            "it holds no certificate",
            "it has to be PEM text with a line -----BEGIN CERTIFICATE-----",
        ),
        Err(why) => node.at.error(format_args!("it is not PEM text: {why}")),
    }
    None
}

fn contents(node: Node<'_>) -> Option<Arc<[u8]>> {
    let path = node.path(node.at.directory(), "a file's path")?;
    match read_file(&path) {
        Ok(bytes) => Some(bytes.into()),
        Err(why) => {
            node.at.error(format_args!("{} cannot be read: {why}", path.display()));
            None
        }
    }
}

/// Regular files only: a pipe would be waited for.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(bytes)
}
