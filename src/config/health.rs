//! `health` of a service or a version: how endpoints are asked whether they are well.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};

use super::diagnostic::did_you_mean;
use super::walk::{Node, Section};
use crate::table::{HealthCheck, HttpProbe, Least, Probe, Protocol};

/// The shortest interval: checks are not to be an endpoint's main work.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// The shortest time for an answer.
const LEAST_TIMEOUT: Duration = Duration::from_millis(10);
/// The sorts of checks.
const TYPES: [&str; 3] = ["http", "grpc", "tcp"];
/// What only a request has.
const OF_HTTP: [&str; 6] = ["path", "host", "method", "status", "body", "headers"];

/// `health = { type = "http", path = "/healthz", interval = "2s", … }`, or `false` for none.
pub(super) fn read(node: Node<'_>) -> Option<Option<Arc<HealthCheck>>> {
    if node.is_flag() {
        return match node.flag()? {
            false => Some(None),
            true => node.unexpected("false, or a check such as { path = \"/healthz\", interval = \"5s\" }"),
        };
    }
    let mut section = node.section("`health`")?;
    let default = HealthCheck::default();
    let probe = probe(&mut section);
    let protocol = section.or("protocol", None, |node| protocol(node).map(Some));
    let port = section.or("port", None, |node| port(node).map(Some));
    let reuse = section.or("reuse", default.reuse, Node::flag);
    let interval = section.or("interval", default.interval, |node| node.duration(LEAST_INTERVAL));
    let jitter = section.or("jitter", default.jitter, Node::percentage);
    let timeout = timeout(&mut section, interval.unwrap_or(Duration::MAX));
    let rise = section.or("rise", default.rise, times);
    let fall = section.or("fall", default.fall, times);
    let min_healthy = section.or("min_healthy", default.min_healthy, least);
    section.finish();
    Some(Some(Arc::new(HealthCheck {
        probe: probe?,
        protocol: protocol?,
        port: port?,
        reuse: reuse?,
        interval: interval?,
        jitter: jitter?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
        min_healthy: min_healthy?,
    })))
}

/// By default a second, or the interval if that is shorter: there is one check of an endpoint at a time.
fn timeout(section: &mut Section<'_>, interval: Duration) -> Option<Duration> {
    let default = HealthCheck::default().timeout.min(interval);
    section.or("timeout", default, |node| {
        let timeout = node.duration(LEAST_TIMEOUT)?;
        if timeout > interval {
            let hint = "a check ends before the next one begins: a shorter `timeout`, or a longer `interval`";
            node.at.error_with("`timeout` is longer than `interval`", hint);
            return None;
        }
        Some(timeout)
    })
}

fn probe(section: &mut Section<'_>) -> Option<Probe> {
    let sort = section.or("type", "http", |node| {
        let word = node.text("a type such as \"http\"")?;
        let known = TYPES.into_iter().find(|known| *known == word);
        if known.is_none() {
            let hint = did_you_mean(word, TYPES, "types are");
            node.at.error_with(format_args!("`{}` is not a type of check", word.escape_debug()), hint);
        }
        known
    })?;
    let is_http = sort == "http";
    let foreign = OF_HTTP.into_iter().filter(|key| !is_http && section.has(key));
    let foreign: Vec<_> =
        foreign.chain((sort != "grpc" && section.has("service")).then_some("service")).collect();
    for key in &foreign {
        let at = section.take(key).map_or(section.at, |node| node.at);
        at.error_with(
            format_args!("`{key}` is of no use in a check of type `{sort}`"),
            "leave one of them out",
        );
    }
    let probe = match sort {
        "grpc" => Probe::Grpc(section.or("service", Arc::default(), service)?),
        "tcp" => Probe::Tcp,
        _ => Probe::Http(request(section)?),
    };
    foreign.is_empty().then_some(probe)
}

fn request(section: &mut Section<'_>) -> Option<HttpProbe> {
    let default = HttpProbe::default();
    let method = section.or("method", default.method, method);
    let path = section.or("path", default.path, path);
    let host = section.or("host", None, |node| host(node).map(Some));
    let headers = section.or("headers", Vec::new(), headers);
    let status = section.or("status", default.status, statuses);
    let body = section.or("body", None, |node| {
        let text = some_text(node, "what the body has to contain, such as \"ok\"");
        text.map(Some)
    });
    if let (Some(Method::HEAD), Some(Some(_))) = (&method, &body) {
        section.at.error_with("the answer to HEAD has no body", "leave `body` out, or use GET");
    }
    Some(HttpProbe {
        method: method?,
        path: path?,
        host: host?,
        headers: headers?,
        status: status?,
        body: body?,
    })
}

fn method(node: Node<'_>) -> Option<Method> {
    let expected = "a method such as \"GET\"";
    let text = node.text(expected)?;
    let method = text.parse().ok().filter(|method| *method != Method::CONNECT);
    method.or_else(|| node.unexpected(expected))
}

fn path(node: Node<'_>) -> Option<Arc<str>> {
    let expected = "a path such as \"/healthz\"";
    let text = node.text(expected)?;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if text.starts_with('/') && text.bytes().all(is_plain) {
        Some(text.into())
    } else {
        node.unexpected(expected)
    }
}

fn host(node: Node<'_>) -> Option<HeaderValue> {
    let expected = "a host such as \"shop.internal\"";
    let host = value(node, expected)?;
    let is_one = Authority::try_from(host.as_bytes()).is_ok_and(|read| !read.as_str().contains('@'));
    if is_one { Some(host) } else { node.unexpected(expected) }
}

fn value(node: Node<'_>, expected: &str) -> Option<HeaderValue> {
    let text = node.text(expected)?;
    let value = HeaderValue::from_str(text).ok().filter(|value| !value.is_empty());
    value.or_else(|| node.unexpected(expected))
}

/// What frames a request is the probe's own.
fn headers(node: Node<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let section = node.section("headers and their values, such as { authorization = \"…\" }")?;
    let read = section.entries().into_iter().map(|entry| {
        let name: Option<HeaderName> = entry.key.parse().ok();
        let own = ["host", "connection", "content-length", "transfer-encoding", "te", "upgrade", "trailer"];
        let name = name.filter(|name| !own.contains(&name.as_str()));
        if name.is_none() {
            let key = entry.key.escape_debug();
            entry.at.error(format_args!(
                "`{key}` is not a header that a check can have; `host` has a key of its own"
            ));
        }
        let value = value(entry.value, "a header's value");
        Some((name?, value?))
    });
    let read: Vec<_> = read.collect();
    read.into_iter().collect()
}

/// `status = 200`, `status = ["200-299", 304]`.
fn statuses(node: Node<'_>) -> Option<Vec<(u16, u16)>> {
    let expected = "a list of statuses such as [\"200-299\", 304]";
    let list = if node.is_list() { node.list(expected)? } else { vec![node] };
    if list.is_empty() {
        return node.unexpected(expected);
    }
    let read: Vec<_> = list.into_iter().map(range).collect();
    read.into_iter().collect()
}

fn range(node: Node<'_>) -> Option<(u16, u16)> {
    let expected = "a status such as 200, or a range such as \"200-299\"";
    let text = node.number_or_text(expected)?;
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Some((first, last)),
        _ => node.unexpected(expected),
    }
}

fn service(node: Node<'_>) -> Option<Arc<str>> {
    some_text(node, "the name of a gRPC service, such as \"shop.v1.Shop\"")
}

fn some_text(node: Node<'_>, expected: &str) -> Option<Arc<str>> {
    let text = node.text(expected)?;
    if (1..=1024).contains(&text.len()) { Some(text.into()) } else { node.unexpected(expected) }
}

fn protocol(node: Node<'_>) -> Option<Protocol> {
    node.parse("a protocol such as \"http1\"")
}

fn port(node: Node<'_>) -> Option<u16> {
    node.count(&(1..=65_535)).and_then(|port| u16::try_from(port).ok())
}

fn times(node: Node<'_>) -> Option<u16> {
    node.count(&(1..=1_000)).and_then(|times| u16::try_from(times).ok())
}

/// `min_healthy = 2`, `min_healthy = "50%"`.
fn least(node: Node<'_>) -> Option<Least> {
    if node.is_text() {
        let expected = "a number of endpoints, or a share of them such as \"50%\"";
        let text = node.text(expected)?.strip_suffix('%');
        let share = text.and_then(|text| text.parse().ok());
        return share.map(Least::Share).or_else(|| node.unexpected(expected));
    }
    node.count(&(0..=100_000)).map(Least::Count)
}
