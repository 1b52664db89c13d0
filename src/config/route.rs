//! One route of a service: `{ host = "shop.example.com", path = "/", headers = { x-beta = "1" } }`.

use std::sync::Arc;

use super::walk::{Entry, Node};
use crate::table::{HostPattern, Route};

/// Reads a route; no host is any host, no path is every path.
pub(super) fn read(node: Node<'_>) -> Option<Route> {
    let mut section = node.section("a route")?;
    let host = section.or("host", HostPattern::Any, |node| node.parse("a host such as \"shop.example.com\""));
    let path = section.or("path", "/".into(), path);
    let headers = section.or("headers", Vec::new(), headers);
    section.finish();
    Some(Route { host: host?, path: path?, headers: headers? })
}

fn path(node: Node<'_>) -> Option<Arc<str>> {
    let text = node.text("a path such as \"/api/\"")?;
    let wrong = if !text.starts_with('/') {
        "does not start with `/`"
    } else if text.contains(['?', '#']) {
        "has a query or a fragment: routes are by path only"
    } else if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "has a space or control character, which no request has: write it as it is sent, such as %20"
    } else {
        return Some(text.into());
    };
    node.at.error(format_args!("path `{}` {wrong}", text.escape_debug()));
    None
}

fn headers(node: Node<'_>) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let section = node.section("a route's `headers`, such as { x-beta = \"1\" }")?;
    let headers: Vec<_> = section.entries().into_iter().map(header).collect();
    let mut headers: Vec<(Arc<str>, _)> = headers.into_iter().collect::<Option<_>>()?;
    headers.sort();
    if let Some(twice) = headers.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        node.at.error(format_args!("header `{}` is named twice: names differ in more than case", twice[0].0));
        return None;
    }
    Some(headers)
}

fn header(entry: Entry<'_>) -> Option<(Arc<str>, Arc<str>)> {
    let name = http::HeaderName::from_bytes(entry.key.as_bytes());
    if name.is_err() {
        entry.at.error(format_args!("`{}` is not a header name", entry.key.escape_debug()));
    }
    let value = entry.value.text("the header's value, such as \"1\"")?;
    // A request's values are trimmed, so one with a space around it would match nothing.
    if value.trim() != value || http::HeaderValue::from_str(value).is_err() {
        entry.value.at.error(format_args!("`{}` is not a header value", value.escape_debug()));
        return None;
    }
    Some((name.ok()?.as_str().into(), value.into()))
}
