//! The shield while traffic moves: users see nothing of a bad candidate, which goes back by itself; and nothing comes to a version that
//! is left, held or kept apart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use lab::held::Later;
use lab::origin::{Then, nobody};
use lab::{Gate, Lab, Origin, Pulse, Users, wait_until};
use serde_json::{Value, json};

/// `shop` on blue and green, shielded, with these settings besides; `?to=green` leads there.
fn shop(blue: Origin, green: SocketAddr, settings: &str) -> Lab {
    let shield = if settings.contains("shield = ") { "" } else { "shield = true" };
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\noutliers = false\n{shield}\n{settings}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{green}\"]\n",
        blue.address
    );
    Lab::configured(tempfile::tempdir().unwrap(), vec![blue], &services)
}

const RULE: &str = "rules = [{ query = { to = \"green\" }, to = \"green\" }]";
const EACH: Duration = Duration::from_millis(8);

/// Answers 500, `/late` only once the gate is open.
fn fails(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::behaving("green", move |seen, stream| {
        if seen.path().starts_with("/late") {
            gate.wait();
        }
        stream.write_all(b"HTTP/1.1 500 X\r\nx-version: green\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    })
}

fn shielded(lab: &Lab) -> f64 {
    lab.metric(&["switchback_shielded_total{", "version=\"green\""]).unwrap()
}

#[test]
fn users_see_nothing_of_a_canary_that_fails_always_and_it_goes_back_by_itself() {
    let bad = Pulse::of(500);
    let green = Origin::pulsing("green", &bad);
    for (green, share) in [(green.address, 500), (nobody(), 5_000)] {
        let lab = shop(Origin::pulsing("blue", &Pulse::well()), green, "supervise = true");
        let users = Users::of(lab.address(), EACH);
        wait_until("blue has a history", || lab.origin("blue").served() > 500);
        lab.weights(&json!({ "green": share, "blue": 10_000 - share }));
        wait_until("it went back", || lab.weight("blue") == 10_000);
        let change = lab.call("GET", "/v1/changes?limit=1", &Value::Null).1["changes"][0].clone();
        assert_eq!((&change["kind"], &change["actor"]["kind"]), (&json!("revert"), &json!("supervisor")));
        assert!(change["reason"].as_str().unwrap().contains("error_rate"), "{change}");
        assert_eq!(users.failed(), 0, "nobody has seen anything");
        let counted = |version: &str, outcome: &str| {
            let labels = format!("version=\"{version}\",outcome=\"{outcome}\"");
            lab.metric_total("switchback_supervision_requests_total{", &labels)
        };
        drop(users);
        let failed = counted("green", "failed");
        assert!(failed > 2.5 && shielded(&lab) >= failed, "{failed}, {}", shielded(&lab));
        assert_eq!(counted("green", "ok"), 0.0);
        assert_eq!(counted("blue", "failed"), 0.0);
        // What blue has answered for green is none of the coins that fell on blue.
        let upstream =
            lab.metric_total("switchback_upstream_requests_total{", "version=\"blue\",code=\"200\"");
        assert!(counted("blue", "ok") <= upstream - shielded(&lab), "{upstream}");
        let seen = lab.metric_total("switchback_client_requests_total{", "version=\"green\"");
        assert_eq!(seen, 0.0);
    }
}

#[test]
fn what_stable_answers_for_another_is_no_part_of_the_comparison() {
    let gate = Gate::default();
    let green = fails(&gate);
    let lab = shop(Origin::start("blue"), green.address, "supervise = { mode = \"alert\" }");
    // Everything but a hundredth of a per cent.
    lab.weights(&json!({ "green": 9_999, "blue": 1 }));
    let mut client = lab.client();
    (0..3).for_each(|_| assert_eq!(client.get("/").version(), "blue"));
    assert_eq!((green.served(), shielded(&lab)), (3, 3.0));
    let sums = |version: &str| {
        let of = |outcome: &str| {
            let labels = format!("version=\"{version}\",outcome=\"{outcome}\"");
            lab.metric_total("switchback_supervision_requests_total{", &labels)
        };
        ["ok", "failed", "client_error"].map(of)
    };
    wait_until("they are counted", || sums("green") == [0.0, 3.0, 0.0]);
    assert_eq!(sums("blue"), [0.0; 3]);
}

#[test]
fn an_endpoint_that_fails_is_left_alone_as_without_the_shield() {
    let (bad, well) = (Origin::pulsing("green", &Pulse::of(500)), Origin::pulsing("green", &Pulse::well()));
    let blue = Origin::start("blue");
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nshield = true\nbalance = \"round_robin\"\n{RULE}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{}\", \"{}\"]\n",
        blue.address, bad.address, well.address
    );
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), vec![blue], &services);
    lab.restrict_to_one_worker();
    let mut client = lab.client();
    wait_until("it is ejected", || {
        assert_eq!(client.get("/?to=green").status, 200);
        lab.metric_total("switchback_endpoint_ejections_total{", "version=\"green\"") > 0.0
    });
    assert!(bad.served() >= 5, "five in a row");
    assert_eq!(shielded(&lab), bad.served() as f64);
}

#[test]
fn a_flip_ends_the_shield_and_what_is_in_flight_fails_as_it_does() {
    let gate = Gate::default();
    let green = fails(&gate);
    let lab = shop(Origin::start("blue"), green.address, RULE);
    let late = lab.get_later("/late?to=green");
    green.wait_served(1);
    assert_eq!(lab.get("/?to=green").version(), "blue");
    lab.flip("green");
    let (_, drain) = lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null);
    assert_eq!(drain["drained"], true, "{drain}");
    gate.open();
    let answer = late.answer();
    assert_eq!((answer.status, answer.version()), (500, "green"), "blue may be gone by now");
    assert_eq!(lab.get("/").version(), "green");
    assert_eq!((lab.origin("blue").served(), shielded(&lab)), (1, 1.0));
    // And it is there again with the way back, for a canary.
    lab.call("POST", "/v1/services/shop/revert", &json!({}));
    assert_eq!(lab.get("/?to=green").version(), "blue");
}

#[test]
fn what_is_cut_at_the_end_of_a_versions_drain_stable_answers() {
    let gate = Gate::default();
    let green = fails(&gate);
    let drain = "drain = { patience = \"100ms\", spread = \"100ms\", deadline = \"300ms\" }";
    let lab = shop(Origin::start("blue"), green.address, &format!("{RULE}\n{drain}"));
    let late = lab.get_later("/late?to=green");
    green.wait_served(1);
    lab.flip("blue");
    assert_eq!(late.answer().version(), "blue");
    gate.open();
}

#[test]
fn stable_is_not_drained_while_it_answers_for_another() {
    let (gate, green) = (Gate::default(), fails(&Gate::default()));
    let held = gate.clone();
    let blue = Origin::behaving("blue", move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")?;
        held.wait();
        stream.write_all(b"k")?;
        Ok(Then::Keep)
    });
    let lab = shop(blue, green.address, RULE);
    let late = lab.get_later("/?to=green");
    lab.origin("blue").wait_served(1);
    lab.flip("green");
    let drain = || lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null).1;
    assert_eq!((&drain()["drained"], &drain()["remaining"][0]["count"]), (&json!(false), &json!(1)));
    gate.open();
    assert_eq!(late.answer().status, 200);
    wait_until("now it is", || drain()["drained"] == true);
}

#[test]
fn nothing_is_shielded_while_the_service_is_held() {
    let gate = Gate::default();
    let green = fails(&gate);
    let lab = shop(Origin::start("blue"), green.address, RULE);
    let late = lab.get_later("/late?to=green");
    green.wait_served(1);
    lab.hold(&json!({}));
    gate.open();
    assert_eq!(late.answer().version(), "green");
    assert_eq!(lab.origin("blue").served(), 0);
    lab.release();
    assert_eq!(lab.get("/?to=green").version(), "blue");
}

#[test]
fn who_was_held_is_covered_for_while_others_still_stand_in_the_line() {
    for limits in ["", "limits = { in_flight = 1 }"] {
        let shield = "shield = { budget = \"100%\", min_per_second = 1_000 }";
        let lab = shop(Origin::start("blue"), nobody(), &format!("{shield}\n{RULE}\n{limits}"));
        lab.hold(&json!({}));
        let waiting: Vec<_> = (0..20).map(|_| lab.get_later("/?to=green")).collect();
        lab.wait_held(20);
        lab.release();
        for answer in waiting.into_iter().map(Later::answer) {
            assert_eq!(answer.said(), (200, ""), "{limits}");
        }
        assert_eq!(shielded(&lab), 20.0);
    }
}

#[test]
fn what_a_hold_has_piled_up_at_a_circuit_stable_answers_and_it_is_no_fault_of_the_version() {
    let gate = Gate::default();
    let green = Origin::held("green", &gate);
    let settings =
        "supervise = { mode = \"alert\" }\n[services.shop.versions.green.circuit]\nrequests = 1\npending = 0";
    let lab = shop(Origin::start("blue"), green.address, settings);
    lab.weights(&json!({ "green": 9_999, "blue": 1 }));
    lab.hold(&json!({ "timeout": "1s" }));
    let waiting: Vec<_> = (0..3).map(|_| lab.get_later("/late")).collect();
    lab.wait_held(3);
    lab.release();
    wait_until("two are answered", || shielded(&lab) == 2.0);
    gate.open();
    for answer in waiting.into_iter().map(Later::answer) {
        assert_eq!(answer.said(), (200, ""));
    }
    let counted = |outcome: &str| {
        let labels = format!("version=\"green\",outcome=\"{outcome}\"");
        lab.metric_total("switchback_supervision_requests_total{", &labels)
    };
    wait_until("the one is counted that it had", || counted("ok") == 1.0);
    assert_eq!(counted("failed"), 0.0);
}

#[test]
fn an_exclusive_flip_is_not_overtaken_by_the_shield() {
    let gate = Gate::default();
    let green = fails(&gate);
    let lab = shop(Origin::start("blue"), green.address, RULE);
    let late = lab.get_later("/late?to=green");
    green.wait_served(1);
    // Green has something, so blue waits for it to have everything.
    let flip = lab.flip_later("blue", &json!({}));
    lab.wait_holding(true);
    let waiting = lab.get_later("/");
    lab.wait_held(1);
    gate.open();
    assert_eq!(late.answer().version(), "green", "blue gets nothing before green is empty");
    assert_eq!(flip.answer().status, 200);
    assert_eq!(waiting.answer().version(), "blue");
    assert_eq!((lab.origin("blue").served(), shielded(&lab)), (1, 0.0));
}

#[test]
fn under_any_change_what_can_be_answered_is() {
    let bad = Pulse::of(503);
    let green = Origin::pulsing("green", &bad);
    let lab =
        shop(Origin::start("blue"), green.address, "shield = { budget = \"100%\", min_per_second = 1_000 }");
    let users = Users::of(lab.address(), EACH);
    for turn in 0..60_u32 {
        let green = [2_000, 0, 5_000, 100][turn as usize % 4];
        lab.weights(&json!({ "green": green, "blue": 10_000 - green }));
    }
    wait_until("some were", || shielded(&lab) > 20.0);
    assert_eq!(users.failed(), 0);
}
