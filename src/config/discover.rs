//! `discover = { … }` of a version: where more of its endpoints are found.

use super::walk::Node;
use crate::table::{EndpointAddr, Source};

/// `{ dns = "shop.internal:8080" }`, `{ srv = "_http._tcp.shop.internal" }` or `{ file = "endpoints.json" }`.
pub(super) fn read(node: Node<'_>) -> Option<Source> {
    let mut section = node.section("`discover`")?;
    let (dns, srv, file) = (section.take("dns"), section.take("srv"), section.take("file"));
    section.finish();
    match (dns, srv, file) {
        (Some(node), None, None) => by_name(node),
        (None, Some(node), None) => by_service(node),
        (None, None, Some(node)) => in_file(node),
        _ => {
            let hint = "{ dns = \"shop.internal:8080\" }, { srv = \"_http._tcp.shop.internal\" } or { file = \"endpoints.json\" }";
            node.at.error_with("`discover` is by exactly one of dns, srv and file", hint);
            None
        }
    }
}

fn by_name(node: Node<'_>) -> Option<Source> {
    let expected = "a name and a port such as \"shop.internal:8080\"";
    match node.text(expected)?.parse() {
        Ok(EndpointAddr::Named { host, port }) => Some(Source::Dns { host, port }),
        Ok(EndpointAddr::Tcp(_) | EndpointAddr::Unix(_)) | Err(_) => node.unexpected(expected),
    }
}

fn by_service(node: Node<'_>) -> Option<Source> {
    let expected = "the name of a service such as \"_http._tcp.shop.internal\"";
    let text = node.text(expected)?;
    // A name as an endpoint's, whatever its port.
    match format!("{text}:1").parse() {
        Ok(EndpointAddr::Named { host, .. }) => Some(Source::Srv { name: host }),
        Ok(EndpointAddr::Tcp(_) | EndpointAddr::Unix(_)) | Err(_) => node.unexpected(expected),
    }
}

fn in_file(node: Node<'_>) -> Option<Source> {
    let expected = "the path of a file that ends with .json or .toml";
    let path = node.path(node.at.directory(), expected)?;
    let is_known = path.extension().is_some_and(|end| end == "json" || end == "toml");
    let path = std::path::absolute(&path).unwrap_or(path);
    if is_known { Some(Source::File(path.into())) } else { node.unexpected(expected) }
}
