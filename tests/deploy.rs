//! `deploy`: a whole deployment in one command, and nothing moved when the new version does not become ready.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use lab::history::Load;
use lab::{Gate, Lab, Origin, origin};
use serde_json::{Value, json};

fn deploy(lab: &Lab, version: &str, endpoint: &str, more: &[&str]) -> (i32, String) {
    let args = ["deploy", "shop", "--version", version, "--endpoint", endpoint];
    let (code, out, err) = lab.cli(&[&args[..], more].concat());
    (code, out + &err)
}

fn versions(lab: &Lab) -> Vec<String> {
    let shop = lab.shop();
    shop["versions"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_new_version_gets_the_traffic_and_the_old_one_is_said_to_be_safe() {
    for way in [&[][..], &["--exclusive"], &["--rolling"]] {
        let lab = Lab::start(&["blue"]);
        let new = Origin::start("v42");
        let load = Load::start(lab.address(), 4, &[("shop", "/")]);
        let (code, said) = deploy(&lab, "v42", &new.address.to_string(), way);
        assert_eq!(code, 0, "{way:?}: {said}");
        assert!(said.trim_end().lines().last().unwrap().contains("safe to stop"), "{way:?}: {said}");
        assert_eq!(load.stop().failures, [] as [&str; 0], "{way:?}");
        assert_eq!(lab.get("/").version(), "v42");
        let drain = lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null).1;
        assert_eq!(drain["drained"], true, "{drain}");
        // Once more is the same deployment.
        let epoch = lab.epoch();
        let (code, said) = deploy(&lab, "v42", &new.address.to_string(), way);
        assert_eq!((code, lab.epoch()), (0, epoch), "{way:?}: {said}");
    }
}

#[test]
fn a_version_that_does_not_become_ready_moves_nothing_and_goes_again() {
    let lab = Lab::start(&["blue"]);
    let dead = origin::nobody().to_string();
    let (code, said) = deploy(&lab, "v43", &dead, &["--timeout", "300ms"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(&dead) && said.contains("nothing was moved"), "{said}");
    assert_eq!(
        (versions(&lab), lab.get("/").version().to_owned()),
        (vec!["blue".to_owned()], "blue".to_owned())
    );
}

#[test]
fn a_label_stands_for_one_release() {
    let lab = Lab::start(&["blue"]);
    let (code, said) = deploy(&lab, "blue", &origin::nobody().to_string(), &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("hint: give a new release a new label"), "{said}");
    let weights = |shop: &Value| shop["versions"][0]["weight"].clone();
    assert_eq!(weights(&lab.shop()), json!(10_000));
}

#[test]
fn a_label_that_is_there_is_what_it_was_when_its_new_pool_does_not_become_ready() {
    let lab = Lab::start(&["blue", "green"]);
    let (old, other) = (lab.origin("green").address, origin::nobody());
    let path = format!("/v1/services/shop/versions/green/endpoints/{old}");
    assert_eq!(lab.call("PUT", &path, &json!({ "weight": 3, "zone": "a" })).0, 200);
    let path = format!("/v1/services/shop/versions/green/endpoints/{other}");
    assert_eq!(lab.call("PUT", &path, &Value::Null).0, 200);
    assert_eq!(lab.call("POST", &format!("{path}/drain"), &Value::Null).0, 200);
    let green = || {
        let shop = lab.shop();
        (shop["versions"][1]["endpoints"].clone(), shop["versions"][1]["protocol"].clone())
    };
    let before = green();
    let dead = origin::nobody().to_string();
    let (code, said) = deploy(&lab, "green", &dead, &["--timeout", "300ms", "--protocol", "h2c"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("green is replaced"), "{said}");
    assert!(said.contains("nothing was moved, and it is what it was before"), "{said}");
    assert_eq!(green(), before);
}

#[test]
fn a_rolling_deployment_that_is_refused_leaves_everything_as_it_was() {
    let lab = Lab::start(&["blue"]);
    let shared = lab.origin("blue").address.to_string();
    let (code, said) = deploy(&lab, "v2", &shared, &["--rolling"]);
    assert_eq!((code, versions(&lab)), (1, vec!["blue".to_owned()]), "{said}");
    assert!(
        said.contains("; nothing was moved, and it is removed again\nhint: without `--rolling` "),
        "{said}"
    );
}

#[test]
fn a_rolling_deployment_takes_back_what_takes_longer_than_it_may() {
    let gate = Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    let asked = lab.ask_later("GET /late HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n");
    lab.origin("blue").wait_served(1);
    let new = Origin::start("v2");
    let (code, said) = deploy(&lab, "v2", &new.address.to_string(), &["--rolling", "--timeout", "500ms"]);
    assert_eq!((code, lab.shop()["weights"].clone()), (3, json!({ "blue": 10_000 })), "{said}");
    assert!(said.contains("did not become empty in time"), "{said}");
    gate.open();
    asked.answer();
}

#[test]
fn it_does_not_wait_for_the_old_version_when_it_is_not_to() {
    let gate = Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    let asked = lab.ask_later("GET /late HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n");
    lab.origin("blue").wait_served(1);
    for (version, way) in [("v2", &["--async"][..]), ("v3", &["--rolling", "--async"])] {
        let new = Origin::start(version);
        let (code, said) = deploy(&lab, version, &new.address.to_string(), way);
        assert_eq!(code, 0, "{said}");
        lab::wait_until("it has the traffic", || lab.shop()["weights"] == json!({ version: 10_000 }));
    }
    let drain = lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null).1;
    assert_eq!(drain["drained"], false, "{drain}");
    gate.open();
    asked.answer();
}
