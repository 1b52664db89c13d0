//! The switch, on the real binary with real traffic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use lab::Lab;
use serde_json::json;

#[test]
fn a_flip_moves_all_new_requests() {
    let lab = Lab::start(&["blue", "green"]);
    assert_eq!(lab.get("/").version(), "blue");
    let done = lab.flip("green");
    assert_eq!(done["changed"], true);
    assert_eq!(lab.get("/").version(), "green");
}

#[test]
fn a_flip_reaches_connections_that_are_kept_alive() {
    let lab = Lab::start(&["blue", "green"]);
    let mut client = lab.client();
    for to in ["green", "blue", "green", "blue"] {
        lab.flip(to);
        assert_eq!(client.get("/").version(), to);
    }
}

#[test]
fn a_revert_puts_back_the_split_before() {
    let lab = Lab::start(&["blue", "green"]);
    lab.weights(&json!({ "blue": 9_000, "green": 1_000 }));
    lab.flip("green");
    let (status, _) = lab.call("POST", "/v1/services/shop/revert", &json!({ "reason": "slow" }));
    assert_eq!(status, 200);
    let shop = lab.shop();
    assert_eq!(shop["weights"], json!({ "blue": 9_000, "green": 1_000 }), "{shop}");
    assert_eq!(shop["stable"], "blue");
}
