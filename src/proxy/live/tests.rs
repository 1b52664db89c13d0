//! What a snapshot takes over from the one before it, and what it shares.

use std::time::Duration;

use super::*;
use crate::table::{DrainRules, HoldLimits, PoolTraits, Protocol, Route, ServiceSpec, Split};

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
