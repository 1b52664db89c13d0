//! G4: the share that a version really gets is its weight, by independent coins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::sync::Arc;
use std::thread;

use lab::{Client, Lab};
use serde_json::json;
use switchback::proxy::live::{Live, Snapshot};
use switchback::proxy::settings::Settings;
use switchback::proxy::upstream::Upstream;
use switchback::proxy::worker::{Worker, WorkerStats};
use switchback::table::{
    BasisPoints, DrainRules, Epoch, HoldLimits, PoolTraits, Protocol, Route, Service, ServiceLimits,
    ServiceSpec, Split, Table, Timeouts, VersionSpec,
};

/// The promise: within so many standard deviations.
const SIGMAS: f64 = 4.5;

/// What became of a row of requests: true where the version got one.
type Row = Vec<bool>;

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

fn hits(row: &Row) -> usize {
    row.iter().filter(|hit| **hit).count()
}

/// How many stretches of the same there are.
fn runs(row: &Row) -> usize {
    1 + row.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// The share is right: binomial, so √(npq) is its standard deviation.
fn check_share(row: &Row, share: f64) -> Result<(), String> {
    let (n, hits) = (float(row.len()), float(hits(row)));
    let (expected, deviation) = (n * share, (n * share * (1.0 - share)).sqrt());
    let sigmas = (hits - expected) / deviation;
    if sigmas.abs() <= SIGMAS {
        Ok(())
    } else {
        Err(format!("{hits} of {n} is {sigmas:.1} σ from {expected}"))
    }
}

/// The coins are independent, by the Wald-Wolfowitz test: as many runs as there are of coins, not more as in a rotation.
fn check_runs(row: &Row) -> Result<(), String> {
    let (n, ones) = (float(row.len()), float(hits(row)));
    let zeros = n - ones;
    let expected = 2.0 * ones * zeros / n + 1.0;
    let deviation = ((expected - 1.0) * (expected - 2.0) / (n - 1.0)).max(0.0).sqrt();
    let off = (float(runs(row)) - expected).abs();
    // Two pairs of neighbours too many or too few are 4 runs: at 0.01 % they are rare, but no normal distribution.
    if off <= SIGMAS * deviation + 4.0 {
        Ok(())
    } else {
        Err(format!("{} runs, {:.1} σ from {expected:.0}", runs(row), off / deviation))
    }
}

/// Runs of each length are as frequent as of coins: geometric.
fn check_run_lengths(row: &Row, share: f64) -> Result<(), String> {
    let mut lengths = [0usize; 8];
    for run in row.chunk_by(|a, b| a == b).filter(|run| run[0]) {
        if let Some(count) = lengths.get_mut(run.len() - 1) {
            *count += 1;
        }
    }
    let mut length = 0;
    for count in lengths {
        length += 1;
        let expected = float(row.len()) * share.powi(length) * (1.0 - share).powi(2);
        // Counts of overlapping patterns spread a little wider than Poisson's √; 1 for what is rarer than once.
        let off = (float(count) - expected).abs();
        if off > SIGMAS * (1.5 * expected).sqrt() + 3.0 {
            return Err(format!("{count} runs of {length}, expected {expected:.1}"));
        }
    }
    Ok(())
}

fn check(row: &Row, share: f64) {
    let checks = [check_share(row, share), check_runs(row), check_run_lengths(row, share)];
    checks.into_iter().for_each(|check| check.unwrap_or_else(|why| panic!("at {share}: {why}")));
}

/// `shop` with green at `points`, as the table has it.
fn service(points: u16) -> Arc<Service> {
    let version = |name: &str, port: u16| VersionSpec {
        name: name.parse().unwrap(),
        endpoints: Arc::new([format!("127.0.0.1:{port}").parse().unwrap()]),
        protocol: Protocol::default(),
        tls: None,
        proxy_header: None,
        draining: Arc::default(),
        traits: PoolTraits::default(),
        pool: None,
    };
    let spec = ServiceSpec {
        name: "shop".parse().unwrap(),
        routes: Arc::new([Route { host: "*".parse().unwrap(), path: "/".into(), headers: vec![] }]),
        versions: vec![version("blue", 1), version("green", 2)],
        discovering: Vec::new(),
        stable: "blue".parse().unwrap(),
        weights: vec![],
        timeouts: Timeouts::default(),
        rules: None,
        limits: ServiceLimits::default(),
        drain: DrainRules::default(),
        hold: HoldLimits::standard(),
        pool: Arc::default(),
        supervise: None,
        sticky: None,
        targeting: switchback::table::Targeting::default(),
        shield: None,
        upgrades: Default::default(),
        mirror: None,
    };
    let weight =
        |name: &str, points: u16| (name.parse().unwrap(), BasisPoints::new(u64::from(points)).unwrap());
    let split = Split::new([weight("blue", 10_000 - points), weight("green", points)]).unwrap();
    Arc::new(Service::new(&spec, spec.versions.clone(), spec.stable.clone(), split, Epoch(1)))
}

/// A worker as it runs, but for the thread.
fn worker(service: &Arc<Service>) -> Worker {
    let table = Arc::new(Table::build(Epoch(1), vec![Arc::clone(service)]).unwrap());
    let snapshot = Snapshot::join(table, None, |service, version| {
        Arc::new(Upstream::open(service.name.clone(), version.name.clone(), 1))
    });
    Worker::new(0, Arc::new(Live::new(snapshot)), Settings::default(), Arc::new(WorkerStats::default()))
}

/// A million requests' coins, assigned as a worker does.
fn million(points: u16) -> Row {
    let service = service(points);
    let worker = worker(&service);
    (0..1_000_000).map(|_| service.assign(worker.coin()) == Some(1)).collect()
}

#[test]
fn a_million_coins_are_true_to_their_weight_and_independent() {
    for points in [1, 100, 500, 5_000, 9_999] {
        let (row, share) = (million(points), f64::from(points) / 10_000.0);
        println!("{points:>5} bp: {:>6} of 1,000,000 in {} runs", hits(&row), runs(&row));
        check(&row, share);
    }
}

#[test]
fn none_of_a_million_coins_is_none_and_all_is_all() {
    assert_eq!(hits(&million(0)), 0);
    assert_eq!(hits(&million(10_000)), 1_000_000);
}

#[test]
fn a_rotation_has_the_share_and_is_caught() {
    let rotation: Row = (0..1_000_000).map(|turn| turn % 20 == 0).collect();
    check_share(&rotation, 0.05).unwrap();
    check_runs(&rotation).unwrap_err();
    check_run_lengths(&rotation, 0.05).unwrap_err();
    // And so is a share that is a little off.
    let off: Row = (0..1_000_000).map(|turn| turn % 19 == 0).collect();
    check_share(&off, 0.05).unwrap_err();
}

/// What `count` requests on one kept-alive connection got; some at a time, which is all the same to a coin.
fn row(mut client: Client, count: usize) -> Row {
    const AT_ONCE: usize = 25;
    let request = "GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n".repeat(AT_ONCE);
    let mut row = Row::with_capacity(count);
    while row.len() < count {
        client.send(&request);
        row.extend((0..AT_ONCE).map(|_| match client.answer().version() {
            "green" => true,
            "blue" => false,
            other => panic!("an answer of {other:?}"),
        }));
    }
    row
}

#[test]
fn real_requests_are_shared_by_weight_and_by_independent_coins() {
    let lab = Lab::start(&["blue", "green"]);
    for points in [500u16, 5_000] {
        lab.weights(&json!({ "blue": 10_000 - points, "green": points }));
        let before = lab.origin("green").served();
        let clients: Vec<_> =
            (0..4).map(|_| lab.client()).map(|c| thread::spawn(|| row(c, 12_500))).collect();
        let rows: Vec<Row> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        let share = f64::from(points) / 10_000.0;
        // Each connection's own row, and all of them.
        rows.iter().for_each(|row| check(row, share));
        let all: Row = rows.concat();
        check_share(&all, share).unwrap();
        println!("{points:>5} bp: {} of {} requests", hits(&all), all.len());
        assert_eq!(lab.origin("green").served() - before, hits(&all) as u64, "the origin counts the same");
    }
}

#[test]
fn none_gets_nothing_and_all_gets_everything() {
    let lab = Lab::start(&["blue", "green"]);
    lab.weights(&json!({ "blue": 10_000, "green": 0 }));
    assert_eq!(hits(&row(lab.client(), 2_000)), 0);
    lab.weights(&json!({ "blue": 0, "green": 10_000 }));
    assert_eq!(hits(&row(lab.client(), 2_000)), 2_000);
}

#[test]
fn a_changed_weight_holds_from_the_first_request_on() {
    let lab = Lab::start(&["blue", "green"]);
    // One connection on each worker, most likely; each was just used under the weights of before.
    let mut clients: Vec<_> = (0..4).map(|_| lab.client()).collect();
    for to in ["green", "blue"].into_iter().cycle().take(100) {
        let weight = |version: &str| if version == to { 10_000 } else { 0 };
        lab.weights(&json!({ "blue": weight("blue"), "green": weight("green") }));
        assert!(clients.iter_mut().all(|client| client.get("/").version() == to));
    }
}
