//! The mirror while traffic moves: what copies may come to is not said to be drained, and nothing comes to a version that traffic has left,
//! is held back, or is kept apart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lab::{Gate, Lab, Origin, wait_until};
use serde_json::{Value, json};

const MIRRORED: &str = "switchback_mirrored_total{";
const DIFFERENCES: &str = "switchback_mirror_differences_total{";

const TO_GREEN: &str = "mirror = { to = \"green\", timeout = \"30s\" }";
const WRITES_TO_GREEN: &str = "mirror = { to = \"green\", timeout = \"30s\", methods = [\"GET\", \"POST\"] }";

/// `shop` on blue, with this mirror, and these versions at these addresses.
fn text(versions: &[(&str, SocketAddr)], mirror: &str) -> String {
    let mut text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\noutliers = false\n{mirror}\n"
    );
    for (name, address) in versions {
        text.push_str(&format!("[services.shop.versions.{name}]\nendpoints = [\"{address}\"]\n"));
    }
    text
}

/// The same on these origins, named after their versions.
fn of(lab: &Lab, mirror: &str) -> String {
    let versions: Vec<_> = lab.origins.iter().map(|origin| (&*origin.name, origin.address)).collect();
    text(&versions, mirror)
}

fn shop(origins: Vec<Origin>, mirror: &str) -> Lab {
    let versions: Vec<_> = origins.iter().map(|origin| (&*origin.name, origin.address)).collect();
    let services = text(&versions, mirror);
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

fn two() -> Lab {
    shop(vec![Origin::start("blue"), Origin::start("green")], TO_GREEN)
}

fn copied(lab: &Lab, version: &str) -> f64 {
    lab.metric(&[MIRRORED, &format!("version=\"{version}\"")]).unwrap()
}

fn in_flight(lab: &Lab) -> f64 {
    lab.metric_total("switchback_in_flight{", "kind=\"mirror\"")
}

fn drain(lab: &Lab, version: &str) -> Value {
    lab.call("GET", &format!("/v1/services/shop/versions/{version}/drain"), &Value::Null).1
}

fn state(lab: &Lab) -> Value {
    lab.shop()["mirror"]["state"].clone()
}

/// Puts another file in place, and waits until it holds.
fn reload(lab: &Lab, mirror: &str, holds: impl Fn(&Value) -> bool) {
    lab.write_config(&of(lab, mirror));
    wait_until("the file is read", || holds(&lab.shop()["mirror"]));
}

/// One request, whose copy has come when it returns.
fn one_copied(lab: &Lab, version: &str) {
    let before = copied(lab, version);
    lab.get("/");
    wait_until("it is copied", || copied(lab, version) == before + 1.0);
}

/// So many requests, of which none is copied.
fn none_copied(lab: &Lab, requests: usize) {
    let all = || lab.metric_sum(MIRRORED);
    wait_until("nothing is on its way", || in_flight(lab) == 0.0);
    let before = all();
    (0..requests).for_each(|_| assert_eq!(lab.get("/").status, 200));
    wait_until("nothing is on its way", || in_flight(lab) == 0.0);
    assert_eq!(all(), before, "{}", lab.shop()["mirror"]);
}

#[test]
fn it_is_over_once_the_version_has_traffic_and_stays_so_over_a_restart() {
    let mut lab = two();
    one_copied(&lab, "green");
    lab.weights(&json!({ "green": 1, "blue": 9_999 }));
    assert_eq!(state(&lab), "over");
    none_copied(&lab, 20);
    lab.weights(&json!({ "blue": 10_000 }));
    none_copied(&lab, 20);
    wait_until("green is empty", || drain(&lab, "green")["drained"] == true);
    assert_eq!(lab.cli(&["drain", "shop/green"]).0, 0, "it is safe to stop");
    lab.kill_and_restart();
    assert_eq!(state(&lab), "over");
    none_copied(&lab, 20);
    reload(&lab, "", Value::is_null);
    reload(&lab, TO_GREEN, |mirror| mirror["state"] == "on");
    one_copied(&lab, "green");
}

#[test]
fn a_version_that_copies_may_come_to_is_never_said_to_be_drained() {
    let lab = two();
    one_copied(&lab, "green");
    wait_until("it is over", || in_flight(&lab) == 0.0);
    let told = drain(&lab, "green");
    assert_eq!(
        (&told["drained"], &told["mirrored"], &told["remaining"]),
        (&json!(false), &json!(true), &json!([]))
    );
    let address = lab.origin("green").address;
    let path = format!("/v1/services/shop/versions/green/endpoints/{address}/drain");
    let told = lab.call("GET", &path, &Value::Null).1;
    assert_eq!((&told["drained"], &told["mirrored"]), (&json!(false), &json!(true)), "{told}");
    for args in
        [&["drain", "shop/green"][..], &["drain", "shop/green", "--wait"], &["drain", "--all", "--wait"]]
    {
        let (code, said, _) = lab.cli(args);
        let is_told = said
            .lines()
            .last()
            .unwrap()
            .contains("the mirror leads to green: copies may come at any time, do not stop it");
        assert_eq!((code, is_told), (1, true), "{args:?}: {said}");
    }
    for (method, path, body) in [
        ("DELETE", "versions/green".to_owned(), Value::Null),
        ("PUT", "versions/green".to_owned(), json!({ "endpoints": [] })),
        ("DELETE", format!("versions/green/endpoints/{address}"), Value::Null),
        ("POST", format!("versions/green/endpoints/{address}/drain"), Value::Null),
    ] {
        let (status, problem) = lab.call(method, &format!("/v1/services/shop/{path}"), &body);
        let token = problem["type"].as_str().unwrap().rsplit(['/', ':', '#']).next().unwrap().to_owned();
        assert_eq!((status, &*token), (409, "mirrored"), "{method} {path}: {problem}");
    }
    reload(&lab, "", Value::is_null);
    assert_eq!(drain(&lab, "green")["drained"], true);
}

#[test]
fn a_copy_in_flight_is_left_on_its_version_and_told_of() {
    let gate = Gate::default();
    let lab = shop(vec![Origin::start("blue"), Origin::held("green", &gate)], TO_GREEN);
    lab.get("/late");
    wait_until("it is there", || lab.origin("green").connections() == 1);
    reload(&lab, "", Value::is_null);
    let told = drain(&lab, "green");
    assert_eq!((&told["drained"], &told["mirrored"]), (&json!(false), &Value::Null));
    assert_eq!(
        (&told["remaining"][0]["kind"], &told["remaining"][0]["count"]),
        (&json!("mirror"), &json!(1))
    );
    let address = lab.origin("green").address.to_string();
    assert_eq!(told["endpoints"][0]["endpoint"], address, "{told}");
    gate.open();
    wait_until("it is over", || drain(&lab, "green")["drained"] == true);
}

#[test]
fn who_waits_for_a_version_to_drain_hears_at_once_that_copies_come_there() {
    let gate = Gate::default();
    let lab = shop(vec![Origin::held("blue", &gate), Origin::start("green")], "");
    let user = lab.get_later("/late");
    lab.wait_for_metric(&["switchback_in_flight{", "version=\"blue\"", "kind=\"request\""], 1.0);
    let path = "/v1/services/shop/flip?wait=drained&timeout=60s";
    let waits = lab.call_later("POST", path, &[], &json!({ "to": "green" }));
    wait_until("it is flipped", || lab.weight("green") == 10_000);
    let since = Instant::now();
    reload(&lab, "mirror = { to = \"blue\" }", |mirror| mirror["state"] == "on");
    let answer = waits.answer();
    let problem = answer.json();
    assert_eq!(answer.status, 409, "{problem}");
    assert!(problem["type"].as_str().unwrap().ends_with("mirrored"), "{problem}");
    assert!(since.elapsed() < Duration::from_secs(30));
    gate.open();
    assert_eq!(user.answer().version(), "blue");
    reload(&lab, "", Value::is_null);
    wait_until("blue is empty", || drain(&lab, "blue")["drained"] == true);
}

#[test]
fn nothing_is_copied_while_the_service_is_held() {
    let lab = two();
    one_copied(&lab, "green");
    lab.hold(&json!({ "scope": "writes" }));
    assert_eq!(state(&lab), "held");
    none_copied(&lab, 10);
    assert_eq!(drain(&lab, "green")["mirrored"], true, "it goes on when that is over");
    lab.release();
    one_copied(&lab, "green");
}

#[test]
fn an_exclusive_flip_waits_for_copies_and_none_comes_behind_it() {
    for to in ["green", "red"] {
        let gate = Gate::default();
        let origins = vec![Origin::start("blue"), Origin::held("green", &gate), Origin::start("red")];
        let lab = shop(origins, WRITES_TO_GREEN);
        lab.client().post("/late", b"");
        wait_until("a copy is there", || lab.origin("green").connections() == 1);
        let flip = lab.flip_later(to, &json!({ "exclusive": true }));
        lab.wait_holding(true);
        let user = lab.get_later("/");
        lab.wait_held(1);
        assert!(!flip.is_answered());
        assert_eq!(in_flight(&lab), 1.0);
        gate.open();
        assert_eq!(flip.answer().status, 200);
        assert_eq!(user.answer().status, 200);
        assert_eq!(state(&lab), "over");
        none_copied(&lab, 20);
        lab.flip("blue");
        none_copied(&lab, 20);
    }
}

#[test]
fn an_exclusive_flip_gives_up_a_copy_that_changes_nothing_before_its_users_wait_for_long() {
    for to in ["green", "red"] {
        let gate = Gate::default();
        let origins = vec![Origin::start("blue"), Origin::held("green", &gate), Origin::start("red")];
        let lab = shop(origins, TO_GREEN);
        lab.get("/late");
        wait_until("a copy is there", || lab.origin("green").connections() == 1);
        // Green does not answer it before the flip is made.
        let flip = lab.flip_later(to, &json!({ "exclusive": true })).answer();
        assert_eq!(flip.status, 200, "{flip:?}");
        assert_eq!(lab.get("/").version(), to);
        assert_eq!(in_flight(&lab), 0.0);
        assert_eq!(
            lab.metric_total(DIFFERENCES, "version=\"green\""),
            0.0,
            "nobody knows what it would have said"
        );
        gate.open();
    }
}

#[test]
fn an_exclusive_flip_that_was_not_made_names_the_copies_on_the_version_that_it_leads_to() {
    let gate = Gate::default();
    let lab = shop(vec![Origin::start("blue"), Origin::held("green", &gate)], WRITES_TO_GREEN);
    lab.client().post("/late", b"");
    wait_until("a copy is there", || lab.origin("green").connections() == 1);
    let (_, _, said) = lab.cli(&["flip", "shop", "--to", "green", "--exclusive", "--hold-timeout", "200ms"]);
    assert!(said.contains("in the way: 1 mirror on `green`"), "{said}");
    gate.open();
}

#[test]
fn the_file_says_how_many_are_copied() {
    let lab = two();
    one_copied(&lab, "green");
    reload(&lab, "mirror = { to = \"green\", share = \"0%\" }", |mirror| mirror["share"] == 0);
    none_copied(&lab, 20);
    reload(&lab, TO_GREEN, |mirror| mirror["share"] == 10_000);
    one_copied(&lab, "green");
    assert_eq!(lab.shop()["mirror"]["mirrored"], 2, "it goes on as it was");
}

#[test]
fn a_proxy_that_stops_does_not_wait_for_copies() {
    let gate = Gate::default();
    let mut lab = shop(vec![Origin::start("blue"), Origin::held("green", &gate)], TO_GREEN);
    lab.get("/late");
    wait_until("it is there", || lab.origin("green").connections() == 1);
    let since = Instant::now();
    let (status, log) = lab.proxy.take().unwrap().stop();
    assert!(status.success(), "{log}");
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    gate.open();
}

#[test]
fn copies_go_on_with_what_moves_and_come_to_nobody_who_has_left() {
    // Flips of the other two under load: not one request fails, and copies come to red alone.
    let lab = shop(
        vec![Origin::start("blue"), Origin::start("green"), Origin::start("red")],
        "mirror = { to = \"red\" }",
    );
    let users = lab::Users::of(lab.address(), Duration::from_millis(5));
    for to in ["green", "blue", "green", "blue"] {
        let before = copied(&lab, "red");
        lab.flip(to);
        wait_until("copies come", || copied(&lab, "red") > before + 5.0);
    }
    assert_eq!(users.failed(), 0);
    drop(users);
    assert_eq!((copied(&lab, "green"), copied(&lab, "blue")), (0.0, 0.0));
    lab.flip("red");
    let now = copied(&lab, "red");
    none_copied(&lab, 10);
    lab.flip("blue");
    wait_until("red is empty", || drain(&lab, "red")["drained"] == true);
    let served = lab.origin("red").served();
    none_copied(&lab, 20);
    assert_eq!((lab.origin("red").served(), copied(&lab, "red")), (served, now));
}
