//! `health` and `outliers`, right and wrong.

use std::time::Duration;

use super::*;
use crate::table::{BasisPoints, Least, OutlierRules, PoolRules, Probe, Protocol};

fn service(rules: &str) -> String {
    format!("[services.a]\nroutes = [{{}}]\n{rules}\nversions.v.endpoints = [\"127.0.0.1:1\"]\n")
}

fn pool(rules: &str) -> PoolRules {
    let listener = "listeners = [{ listen = \"0.0.0.0:80\" }]\n";
    PoolRules::clone(&load_text(&format!("{listener}{}", service(rules))).services[0].pool)
}

#[test]
fn checks_are_read_as_they_are_written() {
    let rules = "health = { path = \"/healthz?a=1\", host = \"h.test\", method = \"HEAD\", status = [204, \"300-399\"],
        headers = { x-a = \"b\" }, interval = \"2s\", jitter = \"0\", timeout = \"250ms\", rise = 1, fall = 4, port = 9000,
        protocol = \"h2c\", reuse = false, min_healthy = \"50%\" }";
    let rules = rules.replace('\n', " ");
    let health = pool(&rules).health.unwrap();
    let Probe::Http(asked) = &health.probe else { panic!("{health:?}") };
    assert_eq!((&*asked.path, asked.method.as_str()), ("/healthz?a=1", "HEAD"));
    assert_eq!(asked.status, [(204, 204), (300, 399)]);
    assert_eq!(asked.headers.len(), 1);
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(2), Duration::from_millis(250)));
    assert_eq!((health.rise, health.fall, health.port, health.reuse), (1, 4, Some(9000), false));
    assert_eq!((health.jitter, health.protocol), (BasisPoints::NONE, Some(Protocol::H2c)));
    assert_eq!(health.min_healthy, Least::Share(BasisPoints::new(5_000).unwrap()));
    let grpc = pool("health = { type = \"grpc\", service = \"shop.v1.Shop\" }").health.unwrap();
    assert_eq!(grpc.probe, Probe::Grpc("shop.v1.Shop".into()));
    assert_eq!(
        pool("health = { type = \"tcp\", min_healthy = 2 }").health.unwrap().min_healthy,
        Least::Count(2)
    );
    assert_eq!(pool("").health, None);
}

#[test]
fn a_check_ends_before_the_next_one_begins() {
    let timeout = |rules: &str| pool(&format!("health = {{ {rules} }}")).health.unwrap().timeout.as_millis();
    assert_eq!(["", "interval = \"2s\"", "interval = \"300ms\""].map(timeout), [1_000, 1_000, 300]);
    assert_eq!(timeout("interval = \"2s\", timeout = \"2s\""), 2_000);
    let told = check_service(&service("health = { timeout = \"3s\", interval = \"2s\" }"));
    insta::assert_snapshot!(told, @"
    conf.d/a.toml:3:22: `timeout` is longer than `interval`
    hint: a check ends before the next one begins: a shorter `timeout`, or a longer `interval`
    switchback.toml: 1 error
    ");
}

#[test]
fn a_version_has_its_services_rules_unless_it_says_otherwise() {
    let text = "listeners = [{ listen = \"0.0.0.0:80\" }]
        [services.a]\nroutes = [{}]\nstable = \"v\"\nhealth = { interval = \"2s\" }\noutliers = false
        [services.a.versions.v]\nendpoints = [\"127.0.0.1:1\"]
        [services.a.versions.w]\nendpoints = [\"127.0.0.1:2\"]\nhealth = false\noutliers = { consecutive_errors = 9 }";
    let service = &load_text(text).services[0];
    let [v, w] = [0, 1].map(|index| service.versions[index].pool.as_deref());
    assert_eq!((service.pool.health.is_some(), v), (true, None));
    assert_eq!(service.pool.outliers, OutlierRules::never());
    let w = w.unwrap();
    assert_eq!((&w.health, w.outliers.consecutive_errors), (&None, 9));
}

#[test]
fn deviations_have_their_own_defaults() {
    let outliers = pool("outliers = { success_rate = true, latency = { factor = 2.5 } }").outliers;
    let told = [outliers.success_rate, outliers.latency]
        .map(|rules| rules.map(|rules| (rules.factor, rules.min_hosts)));
    assert_eq!(told, [Some((1_900, 5)), Some((2_500, 3))]);
    assert_eq!(pool("").outliers, OutlierRules::default());
}

#[test]
fn what_is_wrong_with_checks_is_told_at_its_place() {
    let rules = "health = { type = \"http\", path = \"healthz\", method = \"CONNECT\", status = [\"299-200\", 99], host = \"\", \
        headers = { connection = \"close\" }, interval = \"10ms\", jitter = \"2%%\", timeout = \"1ms\", rise = 0, fall = 1_001, \
        port = 0, protocol = \"h3\", min_healthy = \"half\", service = \"x\", intervall = \"1s\" }";
    insta::assert_snapshot!(check_service(&service(rules)), @r#"
    conf.d/a.toml:3:34: expected a path such as "/healthz", found the string "healthz"
    conf.d/a.toml:3:54: expected a method such as "GET", found the string "CONNECT"
    conf.d/a.toml:3:75: expected a status such as 200, or a range such as "200-299", found the string "299-200"
    conf.d/a.toml:3:86: expected a status such as 200, or a range such as "200-299", found the integer 99
    conf.d/a.toml:3:98: expected a host such as "shop.internal", found an empty string
    conf.d/a.toml:3:114: `connection` is not a header that a check can have; `host` has a key of its own
    conf.d/a.toml:3:149: 10ms is too short: at least 100ms
    conf.d/a.toml:3:183: 1ms is too short: at least 10ms
    conf.d/a.toml:3:197: expected a whole number from 1 to 1000, found the integer 0
    conf.d/a.toml:3:207: expected a whole number from 1 to 1000, found the integer 1001
    conf.d/a.toml:3:221: expected a whole number from 1 to 65535, found the integer 0
    conf.d/a.toml:3:235: `h3` is not a protocol: expected http1, https, h2c or h2
    conf.d/a.toml:3:255: expected a number of endpoints, or a share of them such as "50%", found the string "half"
    conf.d/a.toml:3:273: `service` is of no use in a check of type `http`
    hint: leave one of them out
    conf.d/a.toml:3:278: unknown key `intervall` in `health`
    hint: did you mean `interval`?
    switchback.toml: 15 errors
    "#);
}

#[test]
fn what_is_wrong_with_outliers_is_told_at_its_place() {
    let rules = "outliers = { consecutive_errors = -1, max_ejected = \"101%\", interval = \"1ms\", success_rate = { factor = 0, min_hosts = 1 }, \
        latency = 5, base = \"1s\" }";
    insta::assert_snapshot!(check_service(&service(rules)), @r#"
    conf.d/a.toml:3:35: expected a whole number from 0 to 10000, found the integer -1
    conf.d/a.toml:3:53: expected a percentage such as "10%", found the string "101%"
    conf.d/a.toml:3:72: 1ms is too short: at least 100ms
    conf.d/a.toml:3:105: expected a factor above 0 such as 1.9, found the integer 0
    conf.d/a.toml:3:120: expected a whole number from 2 to 10000, found the integer 1
    conf.d/a.toml:3:135: expected a table for `latency`, found the integer 5
    conf.d/a.toml:3:138: unknown key `base` in `outliers`
    hint: its keys are: consecutive_errors, consecutive_gateway_errors, consecutive_local_errors, success_rate, latency, interval, base_ejection, max_ejection, max_ejected
    switchback.toml: 7 errors
    "#);
    let told = [
        "health = true\noutliers = true",
        "health = { type = \"tpc\" }",
        "health = { type = \"tcp\", path = \"/\", status = 200 }",
        "health = { method = \"HEAD\", body = \"ok\" }",
        "health = { host = \"a b\" }",
    ];
    insta::assert_snapshot!(told.map(|rules| check_service(&service(rules))).join("\n--\n"), @r#"
    conf.d/a.toml:3:10: expected false, or a check such as { path = "/healthz", interval = "5s" }, found true
    conf.d/a.toml:4:12: expected false, or rules such as { consecutive_errors = 5 }, found true
    switchback.toml: 2 errors
    --
    conf.d/a.toml:3:19: `tpc` is not a type of check
    hint: did you mean `tcp`?
    switchback.toml: 1 error
    --
    conf.d/a.toml:3:33: `path` is of no use in a check of type `tcp`
    hint: leave one of them out
    conf.d/a.toml:3:47: `status` is of no use in a check of type `tcp`
    hint: leave one of them out
    switchback.toml: 2 errors
    --
    conf.d/a.toml:3:10: the answer to HEAD has no body
    hint: leave `body` out, or use GET
    switchback.toml: 1 error
    --
    conf.d/a.toml:3:19: expected a host such as "shop.internal", found the string "a b"
    switchback.toml: 1 error
    "#);
}
