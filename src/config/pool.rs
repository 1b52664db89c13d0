//! The versions of a service and their endpoints.

use std::sync::Arc;

use super::diagnostic::did_you_mean;
use super::discover;
use super::document::Spot;
use super::edits;
use super::endpoint;
use super::pool_rules;
use super::upstream_tls;
use super::walk::{Entry, Node, Section};
use crate::table::{Edits, PoolRules, PoolTraits, Protocol, ProxyHeader, Source, VersionName, VersionSpec};

/// A version as it is listed, with enough said about it to say more.
pub(super) struct Listed<'a> {
    /// The version; when something was wrong with it, as far as it could be read.
    pub(super) version: VersionSpec,
    /// Where its empty list of endpoints is.
    pub(super) empty: Option<Spot<'a>>,
    /// What it changes about its requests and answers.
    pub(super) edits: Edits,
    /// Where more of its endpoints are found.
    pub(super) discover: Option<Source>,
}

/// The versions of the service, in the order of the file.
pub(super) fn versions<'a>(service: &mut Section<'a>, rules: &PoolRules) -> Vec<Listed<'a>> {
    let example = "versions.blue.endpoints = [\"127.0.0.1:9001\"]";
    let Some(node) = service.required("versions", example) else { return Vec::new() };
    let Some(section) = node.section(format!("the versions of {}", service.what)) else { return Vec::new() };
    let entries = section.entries();
    if entries.is_empty() {
        node.at.missing(format_args!("{} has no versions", service.what), format!("for example: {example}"));
    }
    entries.into_iter().filter_map(|entry| version(entry, &service.what, rules)).collect()
}

fn version<'a>(entry: Entry<'a>, service: &str, rules: &PoolRules) -> Option<Listed<'a>> {
    let name = entry.name::<VersionName>();
    let Some(mut section) =
        entry.value.section(format!("version `{}` of {service}", entry.key.escape_debug()))
    else {
        let version = VersionSpec {
            name: name?,
            endpoints: [].into(),
            protocol: Protocol::default(),
            tls: None,
            proxy_header: None,
            draining: [].into(),
            traits: PoolTraits::default(),
            pool: None,
        };
        return Some(Listed { version, empty: None, edits: Edits::default(), discover: None });
    };
    let discover = section.take("discover");
    let endpoints = match discover {
        Some(_) => section.take("endpoints"),
        None => section.required("endpoints", "endpoints = [\"127.0.0.1:9001\"]"),
    };
    let source = discover.and_then(discover::read);
    let protocol = section.or("protocol", Protocol::default(), protocol);
    // What is wrong with them is noted: the file is refused.
    let edits = edits::read(&mut section).unwrap_or_default();
    let list = endpoints
        .and_then(|node| Some((node, node.list("a list of endpoints such as [\"127.0.0.1:9001\"]")?)));
    // What is found later is nothing to count on, and nothing to miss.
    let empty = list.as_ref().filter(|(_, list)| list.is_empty() && discover.is_none());
    let empty = empty.map(|(node, _)| node.at);
    let (endpoints, traits) = list.map(|(_, list)| endpoint::pool(list)).unwrap_or_default();
    let tls = upstream_tls::read(&mut section, protocol, &endpoints).flatten();
    let proxy_header = section.or("proxy_protocol", None, |node| proxy_header(node, protocol)).flatten();
    let own = pool_rules::read(&mut section, rules).unwrap_or_default();
    section.finish();
    let pool = (own != *rules).then(|| Arc::new(own));
    let protocol = protocol.unwrap_or_default();
    let tls = upstream_tls::found_by(source.as_ref(), protocol, tls);
    let (endpoints, draining) = (endpoints.into(), [].into());
    let version = VersionSpec { name: name?, endpoints, protocol, tls, proxy_header, draining, traits, pool };
    Some(Listed { version, empty, edits, discover: source })
}

/// `proxy_protocol = "v2"`: not where several clients' requests share a connection.
fn proxy_header(node: Node<'_>, protocol: Option<Protocol>) -> Option<Option<ProxyHeader>> {
    let expected = "\"v1\" or \"v2\"";
    let header = match node.text(expected)? {
        "v1" => ProxyHeader::V1,
        "v2" => ProxyHeader::V2,
        _ => return node.unexpected(expected),
    };
    if let Some(protocol) = protocol.filter(|protocol| protocol.is_http2()) {
        let message = format!("a PROXY header cannot be sent with protocol `{}`", protocol.token());
        node.at
            .error_with(message, "its connections carry the requests of several clients: use http1 or https");
        return None;
    }
    Some(Some(header))
}

fn protocol(node: Node<'_>) -> Option<Protocol> {
    let word = node.text("a protocol such as \"http1\"")?;
    word.parse::<Protocol>().ok().or_else(|| {
        let hint = did_you_mean(word, Protocol::ALL.map(Protocol::token), "protocols are");
        node.at.error_with(format_args!("`{}` is not a protocol", word.escape_debug()), hint);
        None
    })
}
