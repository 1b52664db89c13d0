//! `request_headers`, `response_headers` and `rewrite_host`, of a service, a route or a version.

use std::sync::Arc;

use super::walk::{Entry, Node, Section};
use crate::table::{Edits, FieldOp, SentHost, Side, Template, field};

/// Reads the three keys off `section`.
pub(super) fn read(section: &mut Section<'_>) -> Option<Edits> {
    let request = section.or("request_headers", Vec::new(), |node| fields(node, Side::Request));
    let response = section.or("response_headers", Vec::new(), |node| fields(node, Side::Response));
    let host = section.or("rewrite_host", None, |node| sent_host(node).map(Some));
    Some(Edits { request: request?, response: response?, host: host? })
}

/// `{ remove = ["x-debug"], set = { x-env = "prod" }, add = { vary = "x-env" } }`, done in this order.
fn fields(node: Node<'_>, side: Side) -> Option<Vec<FieldOp>> {
    let mut section = node.section("header operations (remove, set, add)")?;
    let removed = section.or("remove", Vec::new(), |node| removed(node, side));
    let set = section.or("set", Vec::new(), |node| valued(node, side));
    let added = section.or("add", Vec::new(), |node| valued(node, side));
    section.finish();
    let set = set?.into_iter().map(|(name, value)| FieldOp::Set(name, value));
    let added = added?.into_iter().map(|(name, value)| FieldOp::Add(name, value));
    Some(removed?.into_iter().map(FieldOp::Remove).chain(set).chain(added).collect())
}

fn removed(node: Node<'_>, side: Side) -> Option<Vec<Arc<str>>> {
    let list = node.list("a list of header names such as [\"x-debug\"]")?;
    let read = |node: Node<'_>| name(node.text("a header name such as \"x-debug\"")?, node, side);
    let names: Vec<_> = list.into_iter().map(read).collect();
    names.into_iter().collect()
}

/// `{ x-env = "prod", x-request-id = "%{request_id}" }`.
fn valued(node: Node<'_>, side: Side) -> Option<Vec<(Arc<str>, Template)>> {
    let section = node.section("headers and their values, such as { x-env = \"prod\" }")?;
    let read: Vec<_> = section.entries().into_iter().map(|entry| field(entry, side)).collect();
    let read: Vec<(Arc<str>, _)> = read.into_iter().collect::<Option<_>>()?;
    let twice = |(index, (name, _)): (usize, &(Arc<str>, _))| {
        read[..index].iter().any(|(other, _)| other == name).then(|| Arc::clone(name))
    };
    if let Some(name) = read.iter().enumerate().find_map(twice) {
        node.at.error(format_args!("header `{name}` is named twice: names differ in more than case"));
        return None;
    }
    Some(read)
}

fn field(entry: Entry<'_>, side: Side) -> Option<(Arc<str>, Template)> {
    let value = template(entry.value);
    let at = Entry { value: entry.value, ..entry };
    let name = match http::HeaderName::from_bytes(at.key.as_bytes()) {
        Ok(name) => allowed(name.as_str(), at.at, side),
        Err(_) => {
            at.at.error(format_args!("`{}` is not a header name", at.key.escape_debug()));
            None
        }
    };
    Some((name?, value?))
}

/// A field's value: text that a header can hold, with placeholders.
fn template(node: Node<'_>) -> Option<Template> {
    let text = node.text("the header's value, such as \"prod\" or \"%{client_addr}\"")?;
    if text.trim() != text || http::HeaderValue::from_str(text).is_err() {
        node.at.error(format_args!("`{}` is not a header value", text.escape_debug()));
        return None;
    }
    text.parse().map_err(|why| node.at.error(why)).ok()
}

fn name(text: &str, node: Node<'_>, side: Side) -> Option<Arc<str>> {
    let Ok(name) = http::HeaderName::from_bytes(text.as_bytes()) else {
        node.at.error(format_args!("`{}` is not a header name", text.escape_debug()));
        return None;
    };
    allowed(name.as_str(), node.at, side)
}

/// The name, if operations may touch it.
fn allowed(name: &str, at: super::document::Spot<'_>, side: Side) -> Option<Arc<str>> {
    if let Some(hint) = field::protected(name, side) {
        let head = if side == Side::Request { "a request" } else { "an answer" };
        at.error_with(format_args!("`{name}` of {head} cannot be changed"), hint);
        return None;
    }
    Some(name.into())
}

/// `"internal.test:8080"`, or `"@endpoint"`.
fn sent_host(node: Node<'_>) -> Option<SentHost> {
    let expected = "a host such as \"internal.test\" or \"internal.test:8080\", or \"@endpoint\"";
    match node.text(expected)? {
        "@endpoint" => Some(SentHost::Endpoint),
        text => {
            let authority = text.parse::<http::uri::Authority>().ok().filter(|authority| {
                let port = authority.port().is_none_or(|port| port.as_u16() > 0);
                // A userinfo is no part of `Host`, and a dangling colon is no port.
                port && !text.contains('@') && !text.ends_with(':') && !authority.host().is_empty()
            });
            authority.map(|_| SentHost::Fixed(text.into())).or_else(|| node.unexpected(expected))
        }
    }
}
