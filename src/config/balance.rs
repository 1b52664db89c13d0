//! `balance`, `slow_start` and what else says which endpoint of a pool a request goes to.

use super::diagnostic::did_you_mean;
use super::file::SOME_TIME;
use super::walk::{Node, Section};
use crate::table::{Balance, BasisPoints, HashKey, Hashing, Policy, SlowStart};

const POLICIES: [&str; 5] = ["p2c", "round_robin", "random", "hash", "ewma"];

/// What `section`, a service's or a version's, says; what it does not say is as in `default`.
pub(super) fn read(section: &mut Section<'_>, default: &Balance) -> Option<Balance> {
    let policy = section.or("balance", default.policy.clone(), policy);
    let panic_threshold = section.or("panic_threshold", default.panic_threshold, Node::percentage);
    let zone_preference = section.or("zone_preference", default.zone_preference, Node::flag);
    let slow_start = section.or("slow_start", default.slow_start, |node| slow_start(node).map(Some));
    Some(Balance {
        policy: policy?,
        panic_threshold: panic_threshold?,
        zone_preference: zone_preference?,
        slow_start: slow_start?,
    })
}

/// `"p2c"`, or `{ policy = "hash", … }` where there is more to say.
fn policy(node: Node<'_>) -> Option<Policy> {
    if !node.is_table() {
        return by_name(node, None);
    }
    let mut section = node.section("`balance`")?;
    let name = section.required("policy", "policy = \"p2c\"");
    let policy = name.and_then(|name| by_name(name, Some(&mut section)));
    // Of a policy that is not known nobody knows the keys.
    if name.is_some_and(|name| name.is_text() && name.text("").is_some_and(|name| POLICIES.contains(&name))) {
        section.finish();
    }
    policy
}

/// The policy of this name, with what its section says about it.
fn by_name(node: Node<'_>, section: Option<&mut Section<'_>>) -> Option<Policy> {
    match node.text("a way to choose endpoints such as \"p2c\"")? {
        "p2c" => Some(Policy::P2c),
        "round_robin" => Some(Policy::RoundRobin),
        "random" => Some(Policy::Random),
        "ewma" => {
            let default = Some(Policy::DECAY);
            let decay = section.map_or(default, |section| section.or("decay", Policy::DECAY, decay));
            decay.map(|decay| Policy::Ewma { decay })
        }
        "hash" => match section {
            Some(section) => hashing(section).map(Policy::Hash),
            None => {
                let example = "for example: balance = { policy = \"hash\", key = { header = \"x-user\" } }";
                node.at.error_with("`hash` has no `key`", example);
                None
            }
        },
        other => {
            let hint = did_you_mean(other, POLICIES, "there are");
            node.at
                .error_with(format_args!("`{}` is no way to choose endpoints", other.escape_debug()), hint);
            None
        }
    }
}

fn decay(node: Node<'_>) -> Option<std::time::Duration> {
    node.duration(SOME_TIME)
}

fn hashing(section: &mut Section<'_>) -> Option<Hashing> {
    let key = section.required("key", "key = { header = \"x-user\" }").and_then(key);
    let bound = section.or("bound", Some(Hashing::BOUND), bound);
    Some(Hashing { key: key?, bound: bound? })
}

/// `{ header = "x-user" }`, `{ cookie = "sb_id" }`, `{ client = true }` or `{ path = true }`.
fn key(node: Node<'_>) -> Option<HashKey> {
    let mut section = node.section("`key`")?;
    let header = section.take("header");
    let cookie = section.take("cookie");
    let client = section.take("client");
    let path = section.take("path");
    section.finish();
    match (header, cookie, client, path) {
        (Some(name), None, None, None) => token(name, "the name of a header such as \"x-user\"")
            .map(|name| HashKey::Header(name.to_ascii_lowercase().into())),
        (None, Some(name), None, None) => {
            token(name, "the name of a cookie such as \"sb_id\"").map(|name| HashKey::Cookie(name.into()))
        }
        (None, None, Some(flag), None) => is_true(flag).map(|()| HashKey::Client),
        (None, None, None, Some(flag)) => is_true(flag).map(|()| HashKey::Path),
        _ => {
            node.at.error_with(
                "`key` says what is hashed: one of header, cookie, client, path",
                "for example: key = { header = \"x-user\" }",
            );
            None
        }
    }
}

pub(super) fn token<'a>(node: Node<'a>, expected: &str) -> Option<&'a str> {
    let text = node.text(expected)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_token) { Some(text) } else { node.unexpected(expected) }
}

pub(super) fn is_true(node: Node<'_>) -> Option<()> {
    if node.flag()? { Some(()) } else { node.unexpected("true") }
}

/// `1.25`, or `"none"`.
fn bound(node: Node<'_>) -> Option<Option<u32>> {
    let expected = "a factor from 1 to 100 such as 1.25, or \"none\"";
    let text = node.number_or_text(expected)?;
    if text == "none" {
        return Some(None);
    }
    let hundredths = hundredths(&text).filter(|bound| (100..=10_000).contains(bound));
    hundredths.map(Some).or_else(|| node.unexpected(expected))
}

/// `"30s"`, or `{ duration = "30s", curve = 1.0, floor = "10%" }`.
fn slow_start(node: Node<'_>) -> Option<SlowStart> {
    if !node.is_table() {
        return node.duration(SOME_TIME).map(SlowStart::over);
    }
    let mut section = node.section("`slow_start`")?;
    let duration =
        section.required("duration", "duration = \"30s\"").and_then(|node| node.duration(SOME_TIME));
    let default = SlowStart::over(SOME_TIME);
    let curve = section.or("curve", default.curve, |node| {
        let expected = "a number from 0.1 to 10 such as 1.0";
        let curve = hundredths(&node.number_or_text(expected)?).filter(|curve| (10..=1000).contains(curve));
        curve.or_else(|| node.unexpected(expected))
    });
    let floor = section.or("floor", default.floor, |node| {
        let floor = node.percentage()?;
        if floor == BasisPoints::NONE {
            node.unexpected("a percentage above 0 such as \"10%\"")
        } else {
            Some(floor)
        }
    });
    section.finish();
    Some(SlowStart { duration: duration?, curve: curve?, floor: floor? })
}

/// A number with at most two decimals, times 100.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || whole.len() > 5 || decimals.len() > 2 {
        return None;
    }
    format!("{whole}{decimals:0<2}").parse().ok()
}
