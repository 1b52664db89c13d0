//! `[[webhooks]]`: who is told by HTTP what happens, about what, and how it is signed.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;

use super::diagnostic::did_you_mean;
use super::document::Place;
use super::file::SOME_TIME;
use super::tls::pem::Named;
use super::upstream_tls::authorities;
use super::walk::{Node, Section};
use crate::release::EVENTS;
use crate::table::{Glob, Invalid};

/// The most that are told.
const MOST: usize = 64;
/// How long a secret is in bytes, by the Standard Webhooks' specification.
const SECRET: std::ops::RangeInclusive<usize> = 24..=64;
/// Secrets of one webhook at a time: an old and a new one, and room for a slip.
const SECRETS: std::ops::RangeInclusive<usize> = 1..=4;

/// Somebody who is told by HTTP what happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// The name in metrics and the log; default: host and port of `url`.
    pub name: String,
    /// Where to.
    pub url: Uri,
    /// What deliveries are signed with, each of them once; default: none, they are not signed.
    pub secrets: Vec<Secret>,
    /// The authorities that are believed in place of the system's, as PEM text.
    pub authorities: Option<Arc<[u8]>>,
    /// The events that are told, by name; empty: all.
    pub events: Vec<String>,
    /// The services that they have to be about; events about none are told to everybody.
    pub services: Vec<Glob>,
    /// How long one attempt may take; default 10 s.
    pub timeout: Duration,
    /// How often one event is tried to be delivered at most; default 8.
    pub attempts: usize,
}

/// What deliveries are signed with. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The key.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl FromStr for Secret {
    type Err = Invalid;
    /// Reads `whsec_` and 24 to 64 bytes in base64.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bytes = text.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
        // What is wrong with it is not told with it.
        let bytes = bytes.filter(|bytes| SECRET.contains(&bytes.len()));
        bytes.map(|bytes| Self(bytes.into())).ok_or_else(|| {
            Invalid("a secret is whsec_ and 24 to 64 bytes in base64: `echo whsec_$(openssl rand -base64 32)` makes one".to_owned())
        })
    }
}

/// All of them; names and addresses once.
pub(super) fn read(node: Node<'_>, base: &Path) -> Option<Vec<Webhook>> {
    let list = node.list("one or more [[webhooks]]")?;
    if list.len() > MOST {
        node.at.error(format_args!("{} webhooks are too many: at most {MOST}", list.len()));
        return None;
    }
    let mut names = HashMap::new();
    let read: Vec<_> = list.into_iter().map(|node| one(node, base, &mut names)).collect();
    read.into_iter().collect()
}

/// Every file that they name, there or not.
pub(super) fn files(root: &mut Section<'_>, base: &Path) -> Vec<PathBuf> {
    let list = root.take("webhooks").and_then(|node| node.list("")).unwrap_or_default();
    let sections = list.into_iter().filter_map(|node| node.section(""));
    let named = sections.flat_map(|mut section| [section.take("secret_file"), section.take("ca")]);
    named.flatten().filter_map(|node| node.path(base, "")).collect()
}

fn one(node: Node<'_>, base: &Path, names: &mut HashMap<String, Place>) -> Option<Webhook> {
    let mut section = node.section("a webhook")?;
    let url_at = section.required("url", "url = \"https://deploy.example.com/switchback\"");
    let url = url_at.and_then(url);
    let given = section.take("name");
    let name = given.map_or_else(|| url.as_ref().and_then(authority), name);
    let ca = section.take("ca");
    let trusted = ca.map_or(Some(None), |node| authorities(node).map(Some));
    if let (Some(node), Some("http")) = (ca, url.as_ref().and_then(Uri::scheme_str)) {
        node.at.error_with("`ca` is of no use with http", "write the url with https");
    }
    let secrets = secrets(&mut section, base);
    let events = section.or("events", Vec::new(), events);
    let services = section.or("services", Vec::new(), globs);
    let timeout = section.or("timeout", Duration::from_secs(10), |node| node.duration(SOME_TIME));
    let attempts = section.or("attempts", 8, |node| node.count(&(1..=100)));
    section.finish();
    let name = name?;
    if let Some(first) = names.insert(name.clone(), section.at.place()) {
        let message = format!("webhook `{}` is already defined: {first}", name.escape_debug());
        given.or(url_at).unwrap_or(node).at.error_with(message, "give it another name: name = \"…\"");
        return None;
    }
    Some(Webhook {
        name,
        url: url?,
        secrets: secrets?,
        authorities: trusted?,
        events: events?,
        services: services?,
        timeout: timeout?,
        attempts: attempts?,
    })
}

fn url(node: Node<'_>) -> Option<Uri> {
    let expected = "a URL such as \"https://deploy.example.com/switchback\"";
    let text = node.text(expected)?;
    let read = text.parse::<Uri>().ok().filter(|url| {
        let known = matches!(url.scheme_str(), Some("http" | "https"));
        // A password in it would be shown wherever the url is.
        let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let somewhere = url.host().is_some_and(|host| !host.is_empty());
        known && plain && somewhere && url.port_u16() != Some(0) && !text.contains('#')
    });
    if read.is_none() {
        // Without what was found: who may tell by it has a token in the path, or a password in front of the host.
        node.at.error_with(
            format_args!("expected {expected}"),
            "http or https and a host, without a user, a password or a fragment; what stands here is not shown",
        );
    }
    read
}

fn authority(url: &Uri) -> Option<String> {
    url.authority().map(|authority| authority.as_str().to_ascii_lowercase())
}

fn name(node: Node<'_>) -> Option<String> {
    let expected = "a name of letters, digits and - . _ :";
    let text = node.text(expected)?;
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    if plain && (1..=63).contains(&text.len()) { Some(text.to_owned()) } else { node.unexpected(expected) }
}

/// `secret = "whsec_…"`, several of them, or a file with one a line.
fn secrets(section: &mut Section<'_>, base: &Path) -> Option<Vec<Secret>> {
    let (here, file) = (section.take("secret"), section.take("secret_file"));
    match (here, file) {
        (None, None) => Some(Vec::new()),
        (Some(_), Some(node)) => {
            node.at.error_with("`secret` and `secret_file` do not go together", "leave one of them out");
            None
        }
        (Some(node), None) => listed(node),
        (None, Some(node)) => in_file(node, base),
    }
}

fn listed(node: Node<'_>) -> Option<Vec<Secret>> {
    let nodes = if node.is_text() { vec![node] } else { node.list("a secret such as \"whsec_…\"")? };
    number(node, nodes.len())?;
    let secret = |node: Node<'_>| {
        let secret = node.text("a secret such as \"whsec_…\"")?.parse::<Secret>();
        secret.map_err(|why| node.at.error(why)).ok()
    };
    let read: Vec<_> = nodes.into_iter().map(secret).collect();
    read.into_iter().collect()
}

fn in_file(node: Node<'_>, base: &Path) -> Option<Vec<Secret>> {
    let file = Named::read(node, base)?;
    let text = String::from_utf8_lossy(&file.bytes);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    number(node, lines.len())?;
    let read: Result<Vec<_>, Invalid> = lines.into_iter().map(str::parse).collect();
    read.map_err(|why| node.at.error(format_args!("{}: {why}", file.path.display()))).ok()
}

fn number(node: Node<'_>, count: usize) -> Option<()> {
    if SECRETS.contains(&count) {
        return Some(());
    }
    node.at.error(format_args!("{count} secrets: expected 1 to {}", SECRETS.end()));
    None
}

fn events(node: Node<'_>) -> Option<Vec<String>> {
    let list = node.list("a list of events such as [\"changed\", \"drained\"]")?;
    some(node, &list)?;
    let event = |node: Node<'_>| {
        let text = node.text("the name of an event such as \"drained\"")?;
        if EVENTS.contains(&text) {
            return Some(text.to_owned());
        }
        let hint = did_you_mean(text, EVENTS.iter().copied(), "events are");
        node.at.error_with(format_args!("`{}` is not an event", text.escape_debug()), hint);
        None
    };
    let read: Vec<_> = list.into_iter().map(event).collect();
    read.into_iter().collect()
}

/// None could be taken for all.
fn some(node: Node<'_>, list: &[Node<'_>]) -> Option<()> {
    if list.is_empty() {
        node.at.error_with(
            "an empty list says nothing",
            "leave it out for all of them, or take the webhook away",
        );
        return None;
    }
    Some(())
}

fn globs(node: Node<'_>) -> Option<Vec<Glob>> {
    let expected = "a pattern of service names such as \"shop-*\", or a list of them";
    let nodes = if node.is_text() { vec![node] } else { node.list(expected)? };
    some(node, &nodes)?;
    let read: Vec<_> = nodes.into_iter().map(|node| node.parse::<Glob>(expected)).collect();
    read.into_iter().collect()
}
