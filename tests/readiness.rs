//! The readiness gate: a version gets traffic only when enough of its endpoints are well; the way back is never barred.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use lab::{Lab, Origin, Pulse};
use serde_json::{Value, json};

#[test]
fn nothing_moves_to_a_version_that_is_not_well() {
    let pulse = Pulse::of(503);
    let lab = Lab::checked(&pulse);
    let address = lab.origin("green").address;
    lab.wait_health(address, "down");
    let epoch = lab.epoch();
    let green = json!({ "to": "green" });
    let asked = [
        ("POST", "/v1/services/shop/flip", green.clone()),
        ("POST", "/v1/services/shop/flip?dry_run=true", green.clone()),
        ("POST", "/v1/services/shop/flip", json!({ "to": "green", "exclusive": true })),
        ("PUT", "/v1/services/shop/weights", json!({ "blue": 9_999, "green": 1 })),
        ("POST", "/v1/changes", json!({ "changes": [{ "service": "shop", "flip": green }] })),
    ];
    for (method, path, body) in asked {
        let (status, problem) = lab.call(method, path, &body);
        assert_eq!(
            (status, &problem["type"]),
            (409, &json!("urn:switchback:problem:not_ready")),
            "{problem}"
        );
        let unhealthy = &problem["unhealthy"][0];
        assert_eq!(
            (&unhealthy["endpoint"], &unhealthy["said"]),
            (&json!(address.to_string()), &json!("status 503"))
        );
        assert!(unhealthy["at"].as_str().unwrap().ends_with('Z'), "{problem}");
    }
    // At fault is what gives it traffic, not what else is said of the service.
    let pool = json!({ "version": "v3", "endpoints": [address.to_string()] });
    let flip = |to| ("flip", json!({ "to": to }));
    let rule = |to| ("rules", json!([{ "headers": { "x-beta": "yes" }, "to": to }]));
    for (edits, at_fault) in [
        ([("put_version", pool), flip("green")], "changes[1]"),
        ([flip("green"), rule("blue")], "changes[0]"),
        ([flip("blue"), rule("green")], "changes[1]"),
        ([rule("green"), ("weights", json!({ "blue": 10_000, "green": 0 }))], "changes[0]"),
    ] {
        let edits = edits.map(|(what, said)| json!({ "service": "shop", what: said }));
        let (_, problem) = lab.call("POST", "/v1/changes", &json!({ "changes": edits }));
        assert_eq!((&problem["field"], &problem["status"]), (&json!(at_fault), &json!(409)), "{problem}");
    }
    assert_eq!((lab.epoch(), lab.shop()["phase"].as_str()), (epoch, Some("steady")));
    let (code, _, said) = lab.cli(&["flip", "shop", "--to", "green"]);
    assert_eq!(code, 1);
    let expected = format!("0 of 1 endpoint healthy, 1 needed ({address}: status 503)");
    assert!(said.contains(&expected) && said.contains("--force"), "{said}");
    pulse.set(200);
    lab.wait_health(address, "up");
    lab.flip("green");
    assert_eq!(lab.get("/").version(), "green");
}

#[test]
fn a_forced_change_is_made_and_noted_and_the_way_back_is_always_open() {
    let pulse = Pulse::of(503);
    let lab = Lab::checked(&pulse);
    lab.wait_health(lab.origin("green").address, "down");
    let (code, told, said) = lab.cli(&["flip", "shop", "--to", "green", "--force", "--timeout", "5s"]);
    assert_eq!(code, 0, "{told}{said}");
    assert_eq!(lab.get("/").version(), "green", "where nobody is well everybody serves");
    let (_, history) = lab.call("GET", "/v1/changes?limit=1", &Value::Null);
    let summary = history["changes"][0]["summary"].as_str().unwrap();
    assert_eq!(summary, "shop: green 100 %; shop: forced, 0 of 1 of green healthy");
    lab.call("POST", "/v1/services/shop/revert", &Value::Null);
    // Back to green by hand, then blue fails too: a revert goes there nevertheless, and says what it found.
    let (status, _) = lab.call("PUT", "/v1/services/shop/weights?force=true", &json!({ "green": 10_000 }));
    assert_eq!(status, 200);
    let (code, told, _) = lab.cli(&["weights", "shop", "blue=50", "--rest", "green", "--force"]);
    assert_eq!(code, 0, "{told}");
    let (status, answer) = lab.call("POST", "/v1/services/shop/revert", &Value::Null);
    assert_eq!(status, 200, "{answer}");
    let note = answer["notes"][0].as_str().unwrap_or_default();
    assert!(note.starts_with("`green` of `shop`: 0 of 1 endpoint healthy, 1 needed"), "{answer}");
}

#[test]
fn an_exclusive_flip_is_not_made_to_a_version_that_fails_while_it_waits() {
    let pulse = Pulse::well();
    let gate = lab::Gate::default();
    let held = gate.clone();
    let origins = vec![
        Origin::behaving("blue", move |seen, stream| {
            use std::io::Write;
            if seen.path() == "/slow" {
                held.wait();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-version: blue\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(lab::origin::Then::Keep)
        }),
        Origin::with_pulse("green", &pulse),
    ];
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
         health = {{ path = \"/healthz\", interval = \"100ms\", rise = 1, fall = 1 }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        origins[0].address, origins[1].address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    let green = lab.origin("green").address;
    lab.wait_health(green, "up");
    lab.wait_health(lab.origin("blue").address, "up");
    let slow = lab.get_later("/slow");
    lab.wait_for_metric(&["switchback_in_flight{", "\"blue\"", "\"request\""], 1.0);
    let flip = lab.flip_later("green", &json!({ "exclusive": true }));
    lab.wait_holding(true);
    pulse.set(503);
    lab.wait_health(green, "down");
    gate.open();
    let answer = flip.answer();
    assert_eq!(
        (answer.status, answer.json()["type"].clone()),
        (409, json!("urn:switchback:problem:not_ready"))
    );
    assert_eq!(slow.answer().version(), "blue");
    lab.wait_holding(false);
    assert_eq!(lab.get("/").version(), "blue");
}

#[test]
fn a_way_back_to_what_is_well_is_noted_by_nobody() {
    let lab = Lab::checked(&Pulse::well());
    lab.wait_health(lab.origin("green").address, "up");
    let before = lab.epoch();
    lab.flip("green");
    let (status, answer) = lab.call("POST", "/v1/undo", &json!({ "to_epoch": before }));
    assert_eq!((status, answer["changed"].as_bool()), (200, Some(true)), "{answer}");
    assert!(answer["notes"].as_array().is_none_or(Vec::is_empty), "{answer}");
    assert_eq!(lab.get("/").version(), "blue");
}

#[test]
fn a_file_does_not_send_what_is_served_to_a_version_that_is_down() {
    let green = Pulse::of(503);
    let mut lab = Lab::checked(&green);
    lab.expected_errors.push("the configuration is not used");
    let other = lab.origin("green").address;
    lab.wait_health(other, "down");
    let (before, mut events) = (lab.epoch(), lab.events());
    let file = |versions: &str| {
        format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"green\"\n\
             health = {{ path = \"/healthz\", interval = \"100ms\", rise = 1, fall = 1 }}\n\
             [services.shop.versions.green]\nendpoints = [\"{other}\"]\n{versions}"
        )
    };
    let mut told = |versions: &str| {
        lab.write_config(&file(versions));
        events.wait_for(|event| event["type"] == "reload_failed")["errors"].as_str().unwrap().to_owned()
    };
    let gone = told("");
    assert!(gone.starts_with("the file has no version `blue` of service `shop` any more"), "{gone}");
    assert!(gone.contains("`green`, which would get that, is not ready: 0 of 1 endpoint healthy"), "{gone}");
    let remedy = "switchback flip shop --to OTHER";
    assert!(gone.lines().last().unwrap().contains(remedy), "{gone}");
    let empty = told("[services.shop.versions.blue]\nendpoints = []\n");
    assert!(
        empty.starts_with("the file leaves version `blue` of service `shop` without endpoints"),
        "{empty}"
    );
    assert!(empty.lines().last().unwrap().contains(remedy), "{empty}");
    assert_eq!((lab.epoch(), lab.get("/").version()), (before, "blue"));
    // As soon as the other one is well.
    green.set(200);
    lab.wait_health(other, "up");
    lab.write_config(&file(""));
    events.change();
    assert_eq!((lab.weight("green"), lab.get("/").version()), (10_000, "green"));
}
