//! What a snapshot takes over from the one before it, and what it shares.

use std::time::Duration;

use super::*;
use crate::table::{
    DrainRules, HoldLimits, PoolTraits, Protocol, Route, ServiceSpec, Split, SuperviseRules, Watch,
};

fn version(name: &str, port: u16) -> VersionSpec {
    VersionSpec {
        name: name.parse().unwrap(),
        endpoints: Arc::new([format!("127.0.0.1:{port}").parse().unwrap()]),
        protocol: Protocol::default(),
        tls: None,
        proxy_header: None,
        draining: Arc::default(),
        traits: PoolTraits::default(),
        pool: Some(Arc::default()),
    }
}

fn service(name: &str, versions: Vec<VersionSpec>, to: &str, total: Option<Duration>) -> Service {
    let (stable, to): (VersionName, VersionName) = (versions[0].name.clone(), to.parse().unwrap());
    let host = format!("{name}.example.com").parse().unwrap();
    let spec = ServiceSpec {
        name: name.parse().unwrap(),
        routes: Arc::new([Route { host, path: "/".into(), headers: vec![] }]),
        versions: versions.clone(),
        discovering: Vec::new(),
        stable: stable.clone(),
        weights: vec![],
        timeouts: Timeouts { total, ..Timeouts::default() },
        rules: None,
        limits: ServiceLimits::default(),
        drain: DrainRules::default(),
        hold: HoldLimits::standard(),
        pool: Arc::default(),
        supervise: None,
        sticky: None,
        targeting: Default::default(),
        shield: None,
        upgrades: Default::default(),
        mirror: None,
    };
    Service::new(&spec, versions, stable, Split::all_to(to), Epoch(1))
}

fn joined(epoch: u64, services: Vec<Service>, before: Option<&Snapshot>) -> Snapshot {
    let table = Table::build(Epoch(epoch), services.into_iter().map(Arc::new).collect()).unwrap();
    Snapshot::join(Arc::new(table), before, |service, version| {
        Arc::new(Upstream::open(service.name.clone(), version.name.clone(), 1))
    })
}

#[test]
fn what_a_request_reads_of_a_lane_is_a_cache_line() {
    assert_eq!(size_of::<Lane>(), 64);
}

#[test]
fn services_with_the_same_terms_share_them_and_others_do_not() {
    let services = |epoch, total, before: Option<&Snapshot>| {
        let of = |name, total| service(name, vec![version("blue", 1)], "blue", total);
        joined(epoch, vec![of("a", None), of("b", None), of("c", total)], before)
    };
    let hour = Some(Duration::from_secs(3600));
    let first = services(1, hour, None);
    let lane = |snapshot: &Snapshot, service: usize| Arc::clone(&snapshot.lanes[service][0].terms);
    assert!(Arc::ptr_eq(&lane(&first, 0), &lane(&first, 1)));
    assert_eq!([0, 1, 2].map(|service| lane(&first, service).timeouts.total), [None, None, hour]);
    let second = services(2, None, Some(&first));
    assert!(Arc::ptr_eq(&lane(&first, 0), &lane(&second, 0)), "it has not changed");
    assert!(Arc::ptr_eq(&lane(&second, 0), &lane(&second, 2)), "it is now as others are");
}

/// A worker takes a pool for unchanged by its address alone.
#[test]
fn a_pool_is_the_same_one_until_something_of_it_changes() {
    let versions = [version("blue", 1), version("green", 2)];
    let first = joined(1, vec![service("a", versions.to_vec(), "blue", None)], None);
    let flipped = joined(2, vec![service("a", versions.to_vec(), "green", None)], Some(&first));
    let targets = |snapshot: &Snapshot| [0, 1].map(|at| Arc::clone(&snapshot.lanes[0][at].target));
    for (before, after) in targets(&first).iter().zip(&targets(&flipped)) {
        assert!(Arc::ptr_eq(before, after));
    }
    let moved = [version("blue", 3), versions[1].clone()];
    let moved = joined(3, vec![service("a", moved.to_vec(), "green", None)], Some(&flipped));
    let same =
        targets(&flipped).iter().zip(&targets(&moved)).map(|(a, b)| Arc::ptr_eq(a, b)).collect::<Vec<_>>();
    assert_eq!(same, [false, true]);
    assert_eq!(*moved.lanes[0][0].target.endpoints, ["127.0.0.1:3".parse().unwrap()]);
}

/// A request of a service that nobody watches finds nothing to do.
#[test]
fn only_the_lanes_of_a_supervised_service_count_and_only_those_of_the_two_that_are_compared() {
    let versions = [version("blue", 1), version("green", 2), version("grey", 3)].to_vec();
    let plain = service("a", versions.clone(), "blue", None);
    let mut supervised = service("b", versions, "blue", None);
    supervised.supervise = Some(Arc::new(SuperviseRules::default()));
    let (baseline, candidate) = ("blue".parse().unwrap(), Some("green".parse().unwrap()));
    supervised.watch = Some(Watch { stage: Epoch(1), generation: 0, baseline, candidate });
    let first = joined(1, vec![plain.clone(), supervised.clone()], None);
    assert!(first.lanes[0].iter().all(|lane| lane.rare.is_none()));
    let counts = |snapshot: &Snapshot| {
        let counting = |lane: &Lane| lane.rare.as_ref().is_some_and(|rare| rare.counting.is_some());
        snapshot.lanes[1].iter().map(counting).collect::<Vec<_>>()
    };
    assert_eq!(counts(&first), [true, true, false]);
    let ledger = |snapshot: &Snapshot| snapshot.ledger(&"b".parse().unwrap()).cloned();
    supervised.watch.as_mut().unwrap().generation = 1;
    let leaning = joined(2, vec![plain.clone(), supervised.clone()], Some(&first));
    assert!(Arc::ptr_eq(&ledger(&first).unwrap(), &ledger(&leaning).unwrap()), "the same comparison");
    supervised.watch = None;
    let over = joined(3, vec![plain, supervised], Some(&leaning));
    assert!(ledger(&over).is_none() && over.lanes[1].iter().all(|lane| lane.rare.is_none()));
}
