//! `deploy`: a whole deployment in one command, and nothing moved when the new version does not become ready.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use lab::history::Load;
use lab::{Lab, Origin, origin};
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
