//! Which service a request is for: host, path prefix and headers; the most specific route wins.

use std::borrow::Borrow;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use super::name::Invalid;

/// The host part of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// `shop.example.com`, lower case, without a port.
    Exact(Arc<str>),
    /// `*.example.com`: any name that ends in `.example.com`, of one or more labels before it.
    Wildcard(Arc<str>),
    /// No host given, or `*`.
    Any,
}

impl FromStr for HostPattern {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        if name == "*" {
            return Ok(Self::Any);
        }
        let (suffix, wildcard) = match name.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (name.as_str(), false),
        };
        let v6 = suffix.starts_with('[') && suffix.ends_with(']');
        let plain = suffix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if suffix.is_empty() || suffix.starts_with('.') || !(plain || v6 && !wildcard) {
            return Err(Invalid(format!(
                "`{}` is not a host: expected a name such as shop.example.com, or *.example.com, without port or path",
                text.escape_default()
            )));
        }
        Ok(if wildcard { Self::Wildcard(suffix.into()) } else { Self::Exact(suffix.into()) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Host + path prefix (+ headers) that lead to a service.
///
/// The path is a prefix of the raw request path, compared byte by byte, never decoded: `/api` also matches `/apiary`;
/// write `/api/` to match only below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Which hosts.
    pub host: HostPattern,
    /// Raw path prefix; starts with `/`.
    pub path: Arc<str>,
    /// Header name (lower case) and the exact value it must have; all must match. Sorted by name.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)?;
        self.headers.iter().try_for_each(|(name, value)| write!(f, " [{name}: {value}]"))
    }
}

/// What the router needs to see of a request.
pub trait RouteKey {
    /// Host without port, any case.
    fn host(&self) -> &[u8];
    /// Raw path, without query.
    fn path(&self) -> &str;
    /// True when a header of this lower-case name has exactly this value.
    fn has_header(&self, name: &str, value: &str) -> bool;
}

/// Where a request goes, within one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed {
    /// The index of the service.
    pub service: usize,
    /// The index of the route among the service's.
    pub route: usize,
}

/// All routes of all services, arranged for lookup. Changes only when routes change, not when weights do.
///
/// With ten thousand hosts nothing of it is in a processor's cache when it is needed, so a host's name stands beside
/// its paths, and the first bytes of a path beside its service: a lookup touches two cache lines, besides a byte among the
/// few that the hosts are found by.
#[derive(Debug, Default)]
pub struct Router {
    exact: Map,
    /// Keyed by the suffix after `*.`.
    wildcard: Map,
    /// How long the longest of these is.
    longest: usize,
    any: Paths,
}

type Map = HashSet<Host, ahash::RandomState>;

/// Keys come from the configuration, never from a client, so fixed seeds open no door; they keep the table a pure value.
fn map() -> Map {
    HashSet::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4))
}

impl Router {
    /// Arranges `routes`, each with where it leads to.
    #[must_use]
    pub fn new<'r>(routes: impl Iterator<Item = (&'r Route, Routed)>) -> Self {
        let mut hosts = BTreeMap::<&HostPattern, Vec<_>>::new();
        for (route, routed) in routes {
            hosts.entry(&route.host).or_default().push((route, routed));
        }
        let mut router = Self { exact: map(), wildcard: map(), longest: 0, any: Paths::default() };
        for (host, routes) in hosts {
            let paths = Paths::of(routes);
            match host {
                HostPattern::Exact(name) => drop(router.exact.replace(Host::new(name, paths))),
                HostPattern::Wildcard(suffix) => {
                    router.longest = router.longest.max(suffix.len());
                    router.wildcard.replace(Host::new(suffix, paths));
                }
                HostPattern::Any => router.any = paths,
            }
        }
        router
    }

    /// Where the most specific route that matches leads to: exact host before wildcard (longest first) before any,
    /// then the longest path, then the most headers.
    pub fn route(&self, key: &impl RouteKey) -> Option<Routed> {
        let lower;
        let mut host = key.host().strip_suffix(b".").unwrap_or(key.host());
        if host.iter().any(u8::is_ascii_uppercase) {
            lower = host.to_ascii_lowercase();
            host = &lower;
        }
        if !self.exact.is_empty()
            && let Some(routed) = self.exact.get(host).and_then(|host| host.paths.find(key))
        {
            return Some(routed);
        }
        if !self.wildcard.is_empty() {
            let mut known = suffixes(host, self.longest).filter_map(|suffix| self.wildcard.get(suffix));
            if let Some(routed) = known.find_map(|host| host.paths.find(key)) {
                return Some(routed);
            }
        }
        self.any.find(key)
    }
}

/// What stands behind each dot of `host`, the longest first, and none that is longer than `most`: whoever asks for a host of
/// many thousand dots would have as many suffixes hashed, each of them nearly as long as the host.
fn suffixes(host: &[u8], most: usize) -> impl Iterator<Item = &[u8]> {
    let from = host.len().saturating_sub(most + 1);
    let dots = host[from..].iter().enumerate().filter(|(_, byte)| **byte == b'.');
    dots.map(move |(dot, _)| &host[from + dot + 1..])
}

/// A host with its paths, found by its name: one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Host {
    name: HostName,
    paths: Paths,
}

const _: () = assert!(size_of::<Host>() == 64 && 3 * size_of::<Prefix>() <= 64, "a cache line each");

/// In place when it is short, as most are.
#[derive(Debug)]
enum HostName {
    Short([u8; SHORT], u8),
    Long(Box<str>),
}

const SHORT: usize = 30;

impl Host {
    fn new(name: &str, paths: Paths) -> Self {
        let mut short = [0; SHORT];
        let name = match (short.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(name.as_bytes());
                HostName::Short(short, length)
            }
            _ => HostName::Long(name.into()),
        };
        Self { name, paths }
    }
}

impl Borrow<[u8]> for Host {
    fn borrow(&self) -> &[u8] {
        match &self.name {
            HostName::Short(bytes, length) => &bytes[..usize::from(*length)],
            HostName::Long(name) => name.as_bytes(),
        }
    }
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<[u8]>::borrow(self) == Borrow::<[u8]>::borrow(other)
    }
}

impl Eq for Host {}

impl Hash for Host {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<[u8]>::borrow(self).hash(state);
    }
}

/// The routes of one host pattern: its path prefixes in order, each once.
#[derive(Debug, Default)]
struct Paths {
    prefixes: Box<[Prefix]>,
    /// What does not fit in a prefix.
    many: Box<[Many]>,
}

/// A path prefix and where it leads to: three of them in a cache line.
#[derive(Debug)]
struct Prefix {
    /// Its first bytes, padded with zeros: most comparisons need no more.
    head: [u8; HEAD],
    /// The index of the longest other prefix that this one begins with, plus one.
    shorter: Option<NonZeroU32>,
    leads: Leads,
}

/// How many bytes of a path stand beside its service.
const HEAD: usize = 8;

#[derive(Debug)]
enum Leads {
    /// A prefix of so many bytes, not more than its head has, with one route without headers.
    One { service: u32, route: u16, length: u8 },
    /// By its index: any other.
    Many(u32),
}

/// A prefix of any length with all of its routes.
#[derive(Debug)]
struct Many {
    path: Box<str>,
    leaves: Vec<Leaf>,
}

#[derive(Debug)]
struct Leaf {
    headers: Vec<(Arc<str>, Arc<str>)>,
    routed: Routed,
}

impl Paths {
    fn of(mut routes: Vec<(&Route, Routed)>) -> Self {
        // The most headers first.
        let rank = |route: &Route| (Reverse(route.headers.len()), route.headers.clone());
        routes.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path).then_with(|| rank(a).cmp(&rank(b))));
        let (mut prefixes, mut many) = (Vec::<Prefix>::new(), Vec::new());
        let mut texts: Vec<&str> = Vec::new();
        for same in routes.chunk_by(|(a, _), (b, _)| a.path == b.path) {
            let path = &*same[0].0.path;
            let begins = |shorter: &NonZeroU32| path.starts_with(texts[index(*shorter)]);
            let before = NonZeroU32::new(narrow(texts.len()));
            // What a path begins with is the one before it in order, or what that one begins with.
            let shorter = std::iter::successors(before, |at| prefixes[index(*at)].shorter).find(begins);
            let leads = Leads::one(same).unwrap_or_else(|| {
                many.push(Many::of(path, same));
                Leads::Many(narrow(many.len() - 1))
            });
            prefixes.push(Prefix { head: head(path), shorter, leads });
            texts.push(path);
        }
        Self { prefixes: prefixes.into(), many: many.into() }
    }

    fn find(&self, key: &impl RouteKey) -> Option<Routed> {
        let path = key.path();
        let start = head(path);
        let after = self.prefixes.partition_point(|prefix| self.is_at_most(prefix, path, start));
        let mut at = after.checked_sub(1);
        while let Some(prefix) = at.map(|at| &self.prefixes[at]) {
            if let Some(routed) = self.lead(prefix, key, start) {
                return Some(routed);
            }
            at = prefix.shorter.map(index);
        }
        None
    }

    /// True when `prefix` comes before `path` in order, or is the same; `start` is the path's [`head`].
    fn is_at_most(&self, prefix: &Prefix, path: &str, start: [u8; HEAD]) -> bool {
        match (prefix.head.cmp(&start), &prefix.leads) {
            (Ordering::Equal, Leads::Many(many)) => *self.many[*many as usize].path <= *path,
            (order, _) => order.is_le(),
        }
    }

    /// Where it leads to what begins with `prefix`.
    fn lead(&self, prefix: &Prefix, key: &impl RouteKey, start: [u8; HEAD]) -> Option<Routed> {
        match prefix.leads {
            Leads::One { service, route, length } => {
                let length = usize::from(length);
                let begins = prefix.head[..length] == start[..length];
                begins.then(|| Routed { service: service as usize, route: usize::from(route) })
            }
            Leads::Many(many) => self.many[many as usize].find(key),
        }
    }
}

/// What a [`Prefix::shorter`] says.
fn index(shorter: NonZeroU32) -> usize {
    shorter.get() as usize - 1
}

/// Nothing that is counted in a configuration is more.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The first bytes of a path, padded with zeros, which no path has.
fn head(path: &str) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let length = path.len().min(HEAD);
    head[..length].copy_from_slice(&path.as_bytes()[..length]);
    head
}

impl Leads {
    /// Where these routes of one path lead to, if there is room for that.
    fn one(routes: &[(&Route, Routed)]) -> Option<Self> {
        let [(route, Routed { service, route: index })] = routes else { return None };
        let is_short = route.headers.is_empty() && route.path.len() <= HEAD;
        let (service, index) = (u32::try_from(*service).ok()?, u16::try_from(*index).ok()?);
        let length = u8::try_from(route.path.len()).ok().filter(|_| is_short)?;
        Some(Self::One { service, route: index, length })
    }
}

impl Many {
    fn of(path: &str, routes: &[(&Route, Routed)]) -> Self {
        let leaf =
            |(route, routed): &(&Route, Routed)| Leaf { headers: route.headers.clone(), routed: *routed };
        Self { path: path.into(), leaves: routes.iter().map(leaf).collect() }
    }

    fn find(&self, key: &impl RouteKey) -> Option<Routed> {
        let matches = |leaf: &&Leaf| leaf.headers.iter().all(|(name, value)| key.has_header(name, value));
        let leaves = key.path().starts_with(&*self.path).then_some(&self.leaves);
        leaves?.iter().find(matches).map(|leaf| leaf.routed)
    }
}

#[cfg(test)]
mod tests;
