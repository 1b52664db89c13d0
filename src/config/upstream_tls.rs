//! `tls = { … }` of a version: whom its endpoints have to be, and what is shown to them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;

use super::tls::pem::Named;
use super::walk::{Entry, Node, Section};
use crate::table::{EndpointAddr, Identity, Protocol, Source, UpstreamTls};

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

/// The same where addresses are found by a name: that is in their certificates.
pub(super) fn found_by(
    source: Option<&Source>,
    protocol: Protocol,
    tls: Option<Arc<UpstreamTls>>,
) -> Option<Arc<UpstreamTls>> {
    match source {
        Some(Source::Dns { host, .. }) if protocol.is_tls() => {
            let said = tls.as_deref().cloned().unwrap_or_default();
            Some(Arc::new(UpstreamTls { found_by: Some(Arc::clone(host)), ..said }))
        }
        Some(Source::Dns { .. } | Source::Srv { .. } | Source::File(_)) | None => tls,
    }
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
    let (server_name, authorities, identity) = (server_name?, authorities?, identity?);
    Some(UpstreamTls { server_name, found_by: None, verify, authorities, identity })
}

fn name(node: Node<'_>) -> Option<Arc<str>> {
    let expected = "a host name such as \"shop.internal\", or an address";
    let text = node.text(expected)?;
    let is_name = text.parse::<IpAddr>().is_ok() || ServerName::try_from(text).is_ok();
    if is_name { Some(text.into()) } else { node.unexpected(expected) }
}

/// A file of authorities, as it is.
pub(super) fn authorities(node: Node<'_>) -> Option<Arc<[u8]>> {
    let named = Named::read(node, node.at.directory())?;
    let mut roots = RootCertStore::empty();
    for certificate in named.certificates()? {
        if let Err(why) = roots.add(certificate) {
            node.at.error(format_args!("a certificate of it cannot be an authority: {why}"));
            return None;
        }
    }
    Some(named.bytes.into())
}

fn identity(certificate: Node<'_>, key: Node<'_>) -> Option<Identity> {
    let pair = (Named::read(certificate, certificate.at.directory()), Named::read(key, key.at.directory()));
    let (Some(chain), Some(named_key)) = pair else { return None };
    let (certificates, private) = (chain.certificates(), named_key.key());
    let (certificates, private) = (certificates?, private?);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if let Err(why) = CertifiedKey::from_der(certificates, private, &provider) {
        key.at.error(format_args!("the key does not go with `client_cert`: {why}"));
        return None;
    }
    Some(Identity { certificate: chain.bytes.into(), key: named_key.bytes.into() })
}

/// Every file that the versions' `tls` name, there or not, right or wrong: what is to be watched.
pub(super) fn files(services: Node<'_>) -> Vec<PathBuf> {
    fn inner<'a>(node: Node<'a>) -> Vec<Entry<'a>> {
        node.section("").map(|section| section.entries()).unwrap_or_default()
    }
    let services = inner(services).into_iter().filter_map(|entry| entry.value.section(""));
    let versions = services.filter_map(|mut service| service.take("versions")).flat_map(inner);
    let tls = versions.filter_map(|entry| entry.value.section("")?.take("tls")?.section(""));
    let named = tls.flat_map(|mut tls| {
        ["ca", "client_cert", "client_key"]
            .into_iter()
            .filter_map(move |key| tls.take(key))
            .collect::<Vec<_>>()
    });
    named.filter_map(|node| node.path(node.at.directory(), "")).collect()
}
