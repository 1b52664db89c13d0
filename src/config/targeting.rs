//! `rules` of a service: the first targeting rules, in order.

use super::diagnostic::did_you_mean;
use super::pool::Listed;
use super::walk::{Entry, Node, Section};
use crate::table::targeting::network;
use crate::table::{Condition, Conditions, Matching, TargetRule, Targeting, VersionName};

/// `[{ headers = { x-beta = "yes" }, to = "green" }, …]`, to versions of these.
pub(super) fn read(node: Node<'_>, versions: &[Listed<'_>]) -> Option<Targeting> {
    let list = node.list("a list of rules such as [{ headers = { x-beta = \"yes\" }, to = \"green\" }]")?;
    let rules: Vec<_> = list.into_iter().map(|node| rule(node, versions)).collect();
    let rules = rules.into_iter().collect::<Option<_>>()?;
    Targeting::new(rules).map_err(|why| node.at.error(why)).ok()
}

fn rule(node: Node<'_>, versions: &[Listed<'_>]) -> Option<TargetRule> {
    let mut section = node.section("a rule")?;
    let named = [
        named(&mut section, "headers", Condition::Header),
        named(&mut section, "cookies", Condition::Cookie),
        named(&mut section, "query", Condition::Query),
    ];
    let client = section.take("client").map(networks);
    let host = section
        .take("host")
        .map(|node| node.parse("a host such as \"beta.example.com\"").map(Condition::Host));
    let to = section.required("to", "to = \"green\"").and_then(|node| version(node, versions));
    section.finish();
    let mut all: Vec<_> = named.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
    for one in [client, host].into_iter().flatten() {
        all.push(one?);
    }
    let when = Conditions::new(all).map_err(|why| {
        node.at.error_with(why, "for example: { headers = { x-beta = \"yes\" }, to = \"green\" }");
    });
    Some(TargetRule { when: when.ok()?, to: to? })
}

fn version(node: Node<'_>, versions: &[Listed<'_>]) -> Option<VersionName> {
    let name: VersionName = node.parse("the name of a version")?;
    let Some(listed) = versions.iter().find(|listed| listed.version.name == name) else {
        let names = versions.iter().map(|listed| listed.version.name.as_str());
        let hint = did_you_mean(name.as_str(), names, "its versions are");
        node.at.error_with(format_args!("the service has no version `{name}`"), hint);
        return None;
    };
    if listed.empty.is_some() {
        node.at.error(format_args!("a rule leads to version `{name}`, which has no endpoints"));
        return None;
    }
    Some(name)
}

/// `{ x-beta = "yes", x-team = true, x-user = { starts = "qa-" } }`.
fn named(
    section: &mut Section<'_>,
    key: &'static str,
    make: fn(Box<str>, Matching) -> Condition,
) -> Option<Vec<Condition>> {
    section.or(key, Vec::new(), |node| {
        let section = node.section(format!("a rule's `{key}`, such as {{ x-beta = \"yes\" }}"))?;
        let all: Vec<_> = section.entries().into_iter().map(|entry| condition(key, entry, make)).collect();
        all.into_iter().collect()
    })
}

fn condition(key: &str, entry: Entry<'_>, make: fn(Box<str>, Matching) -> Condition) -> Option<Condition> {
    if key == "headers" && entry.key.contains('_') {
        entry.at.warn("fields with an underscore are taken out unless [proxy] underscores_in_headers is \"allow\": write a hyphen");
    }
    let condition = make(entry.key.into(), matching(entry.value)?);
    // One by one, so that each is told in its place.
    Conditions::new(vec![condition.clone()]).map_err(|why| entry.at.error(why)).ok()?;
    Some(condition)
}

fn matching(node: Node<'_>) -> Option<Matching> {
    let expected = "the value such as \"yes\", true for any, or { starts = \"…\" }";
    if node.is_table() {
        let mut section = node.section("how a value begins")?;
        let begin = section
            .required("starts", "{ starts = \"qa-\" }")
            .and_then(|node| node.text("how a value begins"));
        section.finish();
        return Some(Matching::Starts(begin?.into()));
    }
    match node.is_flag() {
        true if node.flag()? => Some(Matching::There),
        true => node.unexpected(expected),
        false => Some(Matching::Is(node.text(expected)?.into())),
    }
}

fn networks(node: Node<'_>) -> Option<Condition> {
    let list = node.list("a list of networks such as [\"10.0.0.0/8\"]")?;
    let read = |node: Node<'_>| {
        network(node.text("a network such as \"10.0.0.0/8\"")?).map_err(|why| node.at.error(why)).ok()
    };
    let networks: Vec<_> = list.into_iter().map(read).collect();
    Some(Condition::Client(networks.into_iter().collect::<Option<_>>()?))
}
