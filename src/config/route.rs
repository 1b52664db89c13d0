//! One route of a service: `{ host = "shop.example.com", path = "/", headers = { x-beta = "1" } }`.

use std::path::Path;
use std::sync::Arc;

use super::walk::{Entry, Node, Section};
use super::{answer, edits};
use crate::table::{Edits, HostPattern, PathRewrite, Route, RouteRules};

/// Reads a route and its rules, if it has any; no host is any host, no path is every path. `service` are the edits of
/// the service, which come first; relative paths are beside `base`.
pub(super) fn read(node: Node<'_>, service: &Edits, base: &Path) -> Option<(Route, Option<RouteRules>)> {
    let mut section = node.section("a route")?;
    let host = section.or("host", HostPattern::Any, |node| node.parse("a host such as \"shop.example.com\""));
    let path = section.or("path", "/".into(), path);
    let headers = section.or("headers", Vec::new(), headers);
    let rules = rules(&mut section, path.as_deref().unwrap_or("/"), service, base);
    section.finish();
    Some((Route { host: host?, path: path?, headers: headers? }, rules?))
}

fn rules(section: &mut Section<'_>, path: &str, service: &Edits, base: &Path) -> Option<Option<RouteRules>> {
    let own = edits::read(section);
    let rewrite = rewrite(section, path);
    let answer = answer::read(section, base);
    let (own, rewrite, answer) = (own?, rewrite?, answer?);
    if answer.is_some() && (rewrite.is_some() || !own.leaves_request()) {
        let hint = "leave out strip_prefix, replace_prefix, rewrite_host and request_headers";
        section.at.error_with("a route that answers by itself sends no request on", hint);
        return None;
    }
    let edits = Edits {
        request: [service.request.clone(), own.request].concat(),
        response: [service.response.clone(), own.response].concat(),
        host: own.host.or_else(|| service.host.clone()),
    };
    let rules = RouteRules { edits, path: rewrite, answer };
    Some((rules != RouteRules::default()).then_some(rules))
}

/// `strip_prefix = true` or `replace_prefix = "/v2"`.
fn rewrite(section: &mut Section<'_>, prefix: &str) -> Option<Option<PathRewrite>> {
    let strip = section.or("strip_prefix", false, Node::flag);
    let Some(node) = section.take("replace_prefix") else {
        return Some(strip?.then(|| PathRewrite::new(prefix, "")));
    };
    let with = path(node)?;
    if strip? {
        node.at.error("the prefix is stripped or replaced, not both: leave out `strip_prefix`");
        return None;
    }
    Some(Some(PathRewrite::new(prefix, &with)))
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
