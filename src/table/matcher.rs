//! Which service a request is for: host, path prefix and headers; the most specific route wins.

use std::collections::HashMap;
use std::fmt;
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
    fn host(&self) -> &str;
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
#[derive(Debug, Default)]
pub struct Router {
    exact: Map<HostRoutes>,
    /// Keyed by the suffix after `*.`.
    wildcard: Map<HostRoutes>,
    any: HostRoutes,
}

type Map<T> = HashMap<Box<str>, T, ahash::RandomState>;

/// Keys come from the configuration, never from a client, so fixed seeds open no door; they keep the table a pure value.
fn map<T>() -> Map<T> {
    HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4))
}

impl Router {
    /// Arranges `routes`, each with where it leads to.
    #[must_use]
    pub fn new<'r>(routes: impl Iterator<Item = (&'r Route, Routed)>) -> Self {
        let mut router = Self { exact: map(), wildcard: map(), any: HostRoutes::default() };
        for (route, routed) in routes {
            let host = match &route.host {
                HostPattern::Exact(name) => router.exact.entry((**name).into()).or_default(),
                HostPattern::Wildcard(suffix) => router.wildcard.entry((**suffix).into()).or_default(),
                HostPattern::Any => &mut router.any,
            };
            host.insert(route, routed);
        }
        let hosts = router.exact.values_mut().chain(router.wildcard.values_mut());
        hosts.chain(std::iter::once(&mut router.any)).for_each(HostRoutes::arrange);
        router
    }

    /// Where the most specific route that matches leads to: exact host before wildcard (longest first) before any,
    /// then the longest path, then the most headers.
    pub fn route(&self, key: &impl RouteKey) -> Option<Routed> {
        let lower;
        let mut host = key.host().strip_suffix('.').unwrap_or(key.host());
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            host = &lower;
        }
        if !self.exact.is_empty()
            && let Some(routed) = self.exact.get(host).and_then(|routes| routes.find(key))
        {
            return Some(routed);
        }
        if !self.wildcard.is_empty() {
            let mut rest = host;
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some(routed) = self.wildcard.get(suffix).and_then(|routes| routes.find(key)) {
                    return Some(routed);
                }
                rest = suffix;
            }
        }
        self.any.find(key)
    }
}

/// The routes of one host pattern.
#[derive(Debug, Default)]
struct HostRoutes {
    by_path: HashMap<Box<str>, Vec<Leaf>, ahash::RandomState>,
    /// The distinct prefix lengths, longest first: a lookup costs one probe each, however many routes there are.
    lengths: Vec<usize>,
}

#[derive(Debug)]
struct Leaf {
    headers: Vec<(Arc<str>, Arc<str>)>,
    routed: Routed,
}

impl HostRoutes {
    fn insert(&mut self, route: &Route, routed: Routed) {
        let leaf = Leaf { headers: route.headers.clone(), routed };
        self.by_path.entry((*route.path).into()).or_default().push(leaf);
    }

    fn arrange(&mut self) {
        self.lengths = self.by_path.keys().map(|path| path.len()).collect();
        self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.lengths.dedup();
        for leaves in self.by_path.values_mut() {
            leaves.sort_by(|a, b| {
                b.headers.len().cmp(&a.headers.len()).then_with(|| a.headers.cmp(&b.headers))
            });
        }
    }

    fn find(&self, key: &impl RouteKey) -> Option<Routed> {
        let path = key.path();
        let matches = |leaf: &&Leaf| leaf.headers.iter().all(|(name, value)| key.has_header(name, value));
        let prefixes = self.lengths.iter().filter_map(|length| path.get(..*length));
        prefixes
            .filter_map(|prefix| self.by_path.get(prefix))
            .find_map(|leaves| leaves.iter().find(matches))
            .map(|leaf| leaf.routed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Key<'a>(&'a str, &'a str, &'a [(&'a str, &'a str)]);

    impl RouteKey for Key<'_> {
        fn host(&self) -> &str {
            self.0
        }
        fn path(&self) -> &str {
            self.1
        }
        fn has_header(&self, name: &str, value: &str) -> bool {
            self.2.contains(&(name, value))
        }
    }

    fn route(host: &str, path: &str, headers: &[(&str, &str)]) -> Route {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Route { host: host.parse().unwrap(), path: path.into(), headers }
    }

    fn router(routes: &[Route]) -> Router {
        Router::new(routes.iter().zip((0..).map(|route| Routed { service: 0, route })))
    }

    fn find(router: &Router, key: &Key<'_>) -> Option<usize> {
        router.route(key).map(|routed| routed.route)
    }

    #[test]
    fn the_most_specific_route_wins() {
        let router = router(&[
            route("*", "/", &[]),
            route("*.example.com", "/", &[]),
            route("*.shop.example.com", "/", &[]),
            route("a.shop.example.com", "/api/", &[]),
            route("a.shop.example.com", "/api/", &[("x-beta", "1")]),
            route("a.shop.example.com", "/api/v2", &[]),
        ]);
        let find = |host, path, headers| find(&router, &Key(host, path, headers));
        assert_eq!(find("a.shop.example.com", "/api/x", &[]), Some(3));
        assert_eq!(find("A.Shop.Example.com.", "/api/x", &[("x-beta", "1")]), Some(4));
        assert_eq!(find("a.shop.example.com", "/api/v2/y", &[("x-beta", "1")]), Some(5));
        assert_eq!(find("a.shop.example.com", "/", &[]), Some(2), "falls through to the wildcard");
        assert_eq!(find("b.c.shop.example.com", "/", &[]), Some(2));
        assert_eq!(find("example.com", "/", &[]), Some(0), "a wildcard needs a label");
        assert_eq!(find("other.org", "/api/", &[]), Some(0));
    }

    #[test]
    fn without_a_matching_route_there_is_no_service() {
        assert_eq!(router(&[route("a.b", "/x", &[])]).route(&Key("a.b", "/y", &[])), None);
        assert_eq!(router(&[]).route(&Key("", "/", &[])), None);
    }

    #[test]
    fn a_prefix_that_would_cut_a_character_does_not_match() {
        assert_eq!(router(&[route("*", "/ab", &[])]).route(&Key("", "/aé", &[])), None);
    }

    proptest! {
        /// The arranged lookup against the definition: filter all, take the most specific.
        #[test]
        fn lookup_agrees_with_its_definition(
            specs in proptest::collection::vec(("(\\*|[ab]\\.c|\\*\\.c|\\*\\.b\\.c)", "/[ab]{0,3}"), 0..12),
            host in "[ab](\\.[ab])?\\.c", path in "/[ab]{0,4}",
        ) {
            let mut routes: Vec<_> = specs.iter().map(|(host, path)| route(host, path, &[])).collect();
            routes.sort();
            routes.dedup();
            let rank = |route: &Route| match &route.host {
                HostPattern::Exact(name) => (&**name == host.as_str()).then_some(usize::MAX),
                HostPattern::Wildcard(suffix) => host.ends_with(&format!(".{suffix}")).then_some(suffix.len()),
                HostPattern::Any => Some(0),
            };
            let matching = routes.iter().enumerate().filter(|(_, route)| path.starts_with(&*route.path));
            let best = matching.filter_map(|(index, route)| Some((rank(route)?, route.path.len(), index)));
            prop_assert_eq!(find(&router(&routes), &Key(&host, &path, &[])), best.max().map(|(_, _, index)| index));
        }
    }
}
