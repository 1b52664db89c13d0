//! The table as a whole: building, finding, replacing.

use std::sync::Arc;

use super::*;

fn service(name: &str, path: &str, weights: &[(&str, u64)]) -> Arc<Service> {
    let version = |name: &str| name.parse::<VersionName>().unwrap();
    let endpoints: Arc<[EndpointAddr]> = Arc::new(["127.0.0.1:9001".parse().unwrap()]);
    let pool = |name: &str| VersionSpec {
        name: version(name),
        endpoints: Arc::clone(&endpoints),
        protocol: Protocol::default(),
        tls: None,
        proxy_header: None,
        draining: Arc::default(),
        traits: PoolTraits::default(),
        pool: None,
    };
    let spec = ServiceSpec {
        name: name.parse().unwrap(),
        routes: Arc::new([Route { host: HostPattern::Any, path: path.into(), headers: vec![] }]),
        versions: weights.iter().map(|(name, _)| pool(name)).collect(),
        discovering: Vec::new(),
        stable: version(weights[0].0),
        weights: Vec::new(),
        timeouts: Timeouts::default(),
        rules: None,
        limits: ServiceLimits::default(),
        drain: DrainRules::default(),
        hold: HoldLimits::standard(),
        pool: Arc::default(),
        supervise: None,
        sticky: None,
        targeting: Default::default(),
        shield: None,
        upgrades: Arc::default(),
        mirror: None,
    };
    let points = weights.iter().map(|(name, points)| (version(name), BasisPoints::new(*points).unwrap()));
    let split = Split::new(points).unwrap();
    Arc::new(Service::new(&spec, spec.versions.clone(), spec.stable.clone(), split, Epoch(1)))
}

struct At(&'static str);

impl RouteKey for At {
    fn host(&self) -> &'static [u8] {
        b"shop.example.com"
    }
    fn path(&self) -> &'static str {
        self.0
    }
    fn has_header(&self, _: &str, _: &str) -> bool {
        false
    }
}

#[test]
fn services_are_found_by_name_and_by_route() {
    let services =
        vec![service("shop", "/", &[("blue", 10_000)]), service("cart", "/cart", &[("one", 10_000)])];
    let table = Table::build(Epoch(1), services).unwrap();
    let name = |index: Option<usize>| table.services()[index.unwrap()].name.to_string();
    assert_eq!(name(table.index(&"cart".parse().unwrap())), "cart");
    assert_eq!(table.index(&"stop".parse().unwrap()), None);
    let routed = |path| name(table.route(&At(path)).map(|routed| routed.service));
    assert_eq!(routed("/cart/7"), "cart");
    assert_eq!(routed("/"), "shop");
}

#[test]
fn one_route_leads_to_one_service() {
    let services = vec![service("shop", "/", &[("blue", 10_000)]), service("cart", "/", &[("one", 10_000)])];
    let taken = Table::build(Epoch(1), services).unwrap_err();
    assert_eq!(taken.to_string(), "services `cart` and `shop` both have the route */");
}

#[test]
fn replacing_one_service_shares_the_others_and_the_router() {
    let services =
        vec![service("shop", "/", &[("blue", 10_000)]), service("cart", "/cart", &[("one", 10_000)])];
    let before = Table::build(Epoch(1), services).unwrap();
    let index = before.index(&"shop".parse().unwrap()).unwrap();
    let after = before.with(Epoch(2), [(index, service("shop", "/", &[("green", 10_000)]))]);
    assert_eq!((before.epoch(), after.epoch()), (Epoch(1), Epoch(2)));
    assert_eq!(before.services()[index].stable.as_str(), "blue", "the old table is as it was");
    assert_eq!(after.services()[index].stable.as_str(), "green");
    assert!(Arc::ptr_eq(&before.services()[1 - index], &after.services()[1 - index]));
    assert!(Arc::ptr_eq(&before.router, &after.router));
}

#[test]
fn the_candidate_is_the_heaviest_besides_stable() {
    let candidate = |weights| service("shop", "/", weights).candidate().map(ToString::to_string);
    assert_eq!(candidate(&[("blue", 10_000)]), None);
    assert_eq!(candidate(&[("blue", 10_000), ("green", 0)]), None, "no weight, no candidate");
    assert_eq!(candidate(&[("blue", 1_000), ("green", 8_000), ("v3", 1_000)]).as_deref(), Some("green"));
}

#[test]
fn stable_covers_for_all_others_while_new_requests_come_to_it() {
    let covered = |weights: &[(&str, u64)]| {
        let plain = service("shop", "/", weights);
        assert!(
            plain.versions.iter().all(|version| plain.shield(&version.name).is_none()),
            "nobody asked for it"
        );
        let mut shop = Service::clone(&plain);
        shop.shield = Some(Arc::default());
        let covered = shop.versions.iter().filter(|version| shop.shield(&version.name).is_some());
        covered.map(|version| version.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(covered(&[("blue", 9_000), ("green", 500), ("v3", 500)]), ["green", "v3"]);
    assert_eq!(covered(&[("blue", 1), ("green", 9_999)]), ["green"]);
    assert_eq!(
        covered(&[("blue", 0), ("green", 10_000)]),
        [""; 0],
        "nothing comes to a version that is left"
    );
}

#[test]
fn aliases_name_the_version_that_plays_the_part_now() {
    let shop = service("shop", "/", &[("blue", 9_500), ("green", 500)]);
    let resolve = |name: &str| shop.resolve(&name.parse().unwrap()).map(ToString::to_string);
    assert_eq!(resolve("@stable").as_deref(), Some("blue"));
    assert_eq!(resolve("@candidate").as_deref(), Some("green"));
    assert_eq!(resolve("green").as_deref(), Some("green"));
    assert_eq!(resolve("v3"), None);
}

#[test]
fn to_versions_of_http_2_nothing_is_upgraded() {
    let mut shop = Service::clone(&service("shop", "/", &[("blue", 10_000), ("green", 0)]));
    assert!(shop.upgrades(&shop.versions[0]).is_none(), "nothing is listed");
    shop.upgrades = ["tcp".parse().unwrap()].into();
    let takes = |protocol| shop.upgrades(&VersionSpec { protocol, ..shop.versions[1].clone() }).is_some();
    assert_eq!(Protocol::ALL.map(takes), [true, true, false, false]);
}
