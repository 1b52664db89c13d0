//! The most specific route wins, also by another way of looking.

use super::*;
use proptest::prelude::*;

struct Key<'a>(&'a str, &'a str, &'a [(&'a str, &'a str)]);

impl RouteKey for Key<'_> {
    fn host(&self) -> &[u8] {
        self.0.as_bytes()
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

/// More of them than a prefix has room to say.
#[test]
fn of_very_many_routes_of_a_service_each_is_found() {
    let last = usize::from(u16::MAX) + 1;
    let routes: Vec<_> = (0..=last).map(|index| route("a.b", &format!("/{index:x}/"), &[])).collect();
    let router = router(&routes);
    for index in [0, 1, last - 1, last] {
        assert_eq!(find(&router, &Key("a.b", &format!("/{index:x}/x"), &[])), Some(index));
    }
    assert_eq!(find(&router, &Key("a.b", "/none", &[])), None);
}

#[test]
fn a_prefix_that_would_cut_a_character_does_not_match() {
    assert_eq!(router(&[route("*", "/ab", &[])]).route(&Key("", "/aé", &[])), None);
}

#[test]
fn a_host_of_very_many_labels_is_looked_up_no_more_often_than_a_wildcard_is_long() {
    let host = ".a".repeat(10_000);
    assert_eq!(suffixes(host.as_bytes(), 7).collect::<Vec<_>>(), [&b"a.a.a.a"[..], b"a.a.a", b"a.a", b"a"]);
    assert_eq!(suffixes(b"a.b.c", 3).collect::<Vec<_>>(), [&b"b.c"[..], b"c"]);
    assert_eq!(suffixes(b"a.b.c", 100).collect::<Vec<_>>(), [&b"b.c"[..], b"c"]);
    assert_eq!(suffixes(b"", 0).count() + suffixes(b"a", 9).count(), 0);
    let router = router(&[route("*.a.a", "/", &[]), route("*.b", "/", &[])]);
    assert_eq!(find(&router, &Key(&host, "/", &[])), Some(0));
}

/// Names and values of fields, each once at most.
fn fields() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let all = vec![("x-a", "1"), ("x-b", "1"), ("x-b", "2")];
    proptest::sample::subsequence(all, 0..=2).prop_map(|mut fields| {
        fields.dedup_by_key(|(name, _)| *name);
        fields
    })
}

proptest! {
    /// The arranged lookup against the definition: filter all, take the most specific.
    #[test]
    fn lookup_agrees_with_its_definition(
        specs in proptest::collection::vec(
            ("(\\*|[ab]\\.c|\\*\\.c|\\*\\.b\\.c|\\*\\.a\\.b\\.c)", "/[ab]{0,3}(/static/[ab]{0,3})?(/static/é?)?", fields()),
            0..24,
        ),
        (host, behind) in ("[abAB](\\.[abAB]){0,4}\\.[cC]", "\\.?"),
        path in "/[ab]{0,4}(/static/[ab]{0,4})?(/static/é?[ab]?)?",
        fields in fields(),
    ) {
        let mut routes: Vec<_> = specs.iter().map(|(host, path, fields)| route(host, path, fields)).collect();
        routes.sort();
        routes.dedup();
        let lower = host.to_ascii_lowercase();
        let rank = |route: &Route| match &route.host {
            HostPattern::Exact(name) => (**name == *lower).then_some(usize::MAX),
            HostPattern::Wildcard(suffix) => lower.ends_with(&format!(".{suffix}")).then_some(suffix.len()),
            HostPattern::Any => Some(0),
        };
        let has = |(name, value): &(Arc<str>, Arc<str>)| fields.contains(&(&**name, &**value));
        let matching = routes
            .iter()
            .enumerate()
            .filter(|(_, route)| path.starts_with(&*route.path) && route.headers.iter().all(has));
        // Of as many fields the first ones in order.
        let best = matching.filter_map(|(index, route)| {
            Some((rank(route)?, route.path.len(), route.headers.len(), Reverse(&route.headers), index))
        });
        let host = host + &behind;
        prop_assert_eq!(find(&router(&routes), &Key(&host, &path, &fields)), best.max().map(|(.., index)| index));
    }
}
