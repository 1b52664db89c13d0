//! `mirror` of a service: which of its requests are copied to a version without traffic.

use std::time::Duration;

use http::Method;

use super::diagnostic::did_you_mean;
use super::file::SOME_TIME;
use super::pool::Listed;
use super::size;
use super::walk::Node;
use crate::table::{Compare, MirrorRules, VersionName};

/// Most of a body that may be copied: each copy has as much in memory, and as much of its answer may be read.
const MOST_BODY: u64 = 64 << 10;
/// Most copies at a time on each worker.
const MOST_COPIES: usize = 1024;
/// A copy is nobody's to wait for.
const LONGEST: Duration = Duration::from_secs(60);

/// `mirror = { to = "green", share = "5%", methods = ["GET"], body = "64KiB", compare = "status", concurrency = 16, timeout = "5s" }`, or
/// `false`.
pub(super) fn read(node: Node<'_>, versions: &[Listed<'_>]) -> Option<Option<MirrorRules>> {
    let expected = "false, or a table such as { to = \"green\" }";
    if node.is_flag() {
        return if node.flag()? { node.unexpected(expected) } else { Some(None) };
    }
    let mut section = node.section("`mirror`")?;
    let to = section.required("to", "to = \"green\"").and_then(|node| version(node, versions));
    let is_named = to.is_some();
    // The rest is read all the same: all errors are told at once.
    let default = MirrorRules::to(to.or_else(|| "nobody".parse().ok())?);
    let share = section.or("share", default.share, Node::percentage);
    let methods = section.or("methods", default.methods, methods);
    let body = section.or("body", default.body, body);
    let compare = section.or("compare", default.compare, compare);
    let concurrency = section.or("concurrency", default.concurrency, |node| {
        node.count(&(1..=MOST_COPIES)).and_then(|count| u32::try_from(count).ok())
    });
    let timeout = section.or("timeout", default.timeout, |node| {
        let timeout = node.duration(SOME_TIME)?;
        if timeout <= LONGEST { Some(timeout) } else { node.unexpected("a duration of at most \"60s\"") }
    });
    section.finish();
    if !is_named {
        return None;
    }
    Some(Some(MirrorRules {
        to: default.to,
        share: share?,
        methods: methods?,
        body: body?,
        compare: compare?,
        concurrency: concurrency?,
        timeout: timeout?,
    }))
}

fn version(node: Node<'_>, versions: &[Listed<'_>]) -> Option<VersionName> {
    let name: VersionName = node.parse("the name of a version")?;
    if versions.iter().any(|listed| listed.version.name == name) {
        return Some(name);
    }
    let names = versions.iter().map(|listed| listed.version.name.as_str());
    let hint = did_you_mean(name.as_str(), names, "its versions are");
    node.at.error_with(format_args!("the service has no version `{name}`"), hint);
    None
}

fn methods(node: Node<'_>) -> Option<Vec<Method>> {
    let all: Vec<_> =
        node.list("a list of methods such as [\"GET\", \"POST\"]")?.into_iter().map(method).collect();
    all.into_iter().collect()
}

/// Not one that may make a tunnel.
fn method(node: Node<'_>) -> Option<Method> {
    let expected = "a method such as \"POST\"";
    let method = node.text(expected)?.parse().ok().filter(|method| *method != Method::CONNECT);
    method.or_else(|| node.unexpected(expected))
}

fn body(node: Node<'_>) -> Option<u64> {
    let size = size::parse(node.text("a size such as \"64KiB\"")?).map_err(|why| node.at.error(why)).ok()?;
    let fits = size <= MOST_BODY;
    fits.then_some(size).or_else(|| node.unexpected("a size of at most \"64KiB\""))
}

fn compare(node: Node<'_>) -> Option<Compare> {
    let expected = "\"status\", \"body\" or \"none\"";
    let token = node.text(expected)?;
    let found = Compare::ALL.into_iter().find(|compare| compare.token() == token);
    found.or_else(|| node.unexpected(expected))
}
