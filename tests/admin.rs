//! The admin API over its real socket: preconditions, repeats, plans, events, the past.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::io::Read;
use std::process::{Command, Stdio};

use lab::{Gate, Lab, Origin};
use serde_json::{Value, json};

fn etag(lab: &Lab) -> String {
    let answer = lab.call_with("GET", "/v1/services/shop", &[], &Value::Null);
    answer.header("etag").expect("an etag").to_owned()
}

#[test]
fn every_read_of_a_service_says_its_epoch() {
    let lab = Lab::start(&["blue", "green"]);
    let address = lab.origin("green").address;
    let of_version = ["drain", "health", "ready"].map(|what| format!("/versions/green/{what}"));
    let others = ["".to_owned(), "/verdict".to_owned(), format!("/versions/green/endpoints/{address}/drain")];
    for path in of_version.into_iter().chain(others) {
        let answer = lab.call_with("GET", &format!("/v1/services/shop{path}"), &[], &Value::Null);
        assert_eq!((answer.status, answer.header("etag")), (200, Some("\"1\"")), "{path}");
    }
}

#[test]
fn a_change_on_a_stale_understanding_is_refused_with_the_present_state() {
    let lab = Lab::start(&["blue", "green"]);
    let before = etag(&lab);
    let flip = |tag: &str, to: &str| {
        lab.call_with("POST", "/v1/services/shop/flip", &[("if-match", tag)], &json!({ "to": to }))
    };
    let done = flip(&before, "green");
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(done.header("etag"), Some(&*etag(&lab)), "the answer has the new one");
    let refused = flip(&before, "blue");
    assert_eq!(refused.status, 412);
    let problem = refused.json();
    assert_eq!(problem["type"], "urn:switchback:problem:conflict");
    assert_eq!(problem["present"]["weights"], json!({ "green": 10_000 }), "{problem}");
    assert_eq!(lab.get("/").version(), "green");
    assert_eq!(flip(&etag(&lab), "blue").status, 200);
}

#[test]
fn changes_of_other_services_do_not_conflict() {
    let origins = vec![Origin::start("blue"), Origin::start("green")];
    let service = |name: &str| {
        format!(
            "[services.{name}]\nroutes = [{{ path = \"/{name}\" }}]\nstable = \"blue\"\n\
             versions.blue.endpoints = [\"{}\"]\nversions.green.endpoints = [\"{}\"]\n",
            origins[0].address, origins[1].address
        )
    };
    let services = service("shop") + &service("cart");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    let before = etag(&lab);
    assert_eq!(lab.call("POST", "/v1/services/cart/flip", &json!({ "to": "green" })).0, 200);
    assert_eq!(etag(&lab), before);
    let tag = [("if-match", &*before)];
    assert_eq!(lab.call_with("POST", "/v1/services/shop/flip", &tag, &json!({ "to": "green" })).status, 200);
    // A batch is refused as a whole when one of its services has moved on.
    let batch = json!({ "changes": [
        { "service": "cart", "flip": { "to": "blue" } },
        { "service": "shop", "flip": { "to": "blue" }, "if_epoch": 1 },
    ] });
    assert_eq!(lab.call("POST", "/v1/changes", &batch).0, 412);
    assert_eq!((lab.get("/shop").version(), lab.get("/cart").version()), ("green", "green"));
}

#[test]
fn a_repeated_call_is_one_change_even_across_a_kill() {
    let mut lab = Lab::start(&["blue", "green"]);
    let flip = |lab: &Lab, key: &str, to: &str| {
        lab.call_with("POST", "/v1/services/shop/flip", &[("idempotency-key", key)], &json!({ "to": to }))
    };
    let first = flip(&lab, "deploy-42", "green");
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None));
    assert_eq!(flip(&lab, "deploy-43", "blue").status, 200);
    let epoch = lab.epoch();
    for _ in 0..2 {
        let again = flip(&lab, "deploy-42", "green");
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
        assert_eq!(again.json(), first.json());
        assert_eq!(lab.epoch(), epoch);
        assert_eq!(lab.get("/").version(), "blue", "what came later stands");
        lab.kill_and_restart();
    }
    // One that changes nothing, too.
    let vain = flip(&lab, "deploy-44", "blue");
    assert_eq!((vain.status, &vain.json()["changed"]), (200, &json!(false)));
    assert_eq!(flip(&lab, "deploy-45", "green").status, 200);
    assert_eq!(flip(&lab, "deploy-44", "blue").json(), vain.json());
    let other = flip(&lab, "deploy-42", "blue");
    assert_eq!((other.status, &other.json()["type"]), (422, &json!("urn:switchback:problem:key_reused")));
}

#[test]
fn a_plan_changes_nothing() {
    let lab = Lab::start(&["blue", "green"]);
    let (before, epoch) = (lab.shop(), lab.epoch());
    let (status, plan) = lab.call("POST", "/v1/services/shop/flip?dry_run=true", &json!({ "to": "green" }));
    assert_eq!((status, &plan["dry_run"], &plan["changed"]), (200, &json!(true), &json!(true)), "{plan}");
    let moves = json!([
        { "service": "shop", "version": "blue", "from": 10_000, "to": 0 },
        { "service": "shop", "version": "green", "from": 0, "to": 10_000 },
    ]);
    assert_eq!((&plan["moves"], &plan["summary"]), (&moves, &json!("shop: green 100 %")));
    for (method, path, body, what) in [
        ("PUT", "versions/blue/endpoints/127.0.0.1:9", json!({}), "shop: blue +127.0.0.1:9"),
        ("DELETE", "versions/green", json!({}), "shop: green removed"),
        ("POST", "hold", json!({}), "shop: requests held for at most 10 s"),
    ] {
        let path = format!("/v1/services/shop/{path}?dry_run=true");
        let (status, plan) = lab.call(method, &path, &body);
        assert_eq!((status, &plan["summary"]), (200, &json!(what)), "{plan}");
    }
    assert_eq!((lab.shop(), lab.epoch()), (before, epoch));
    assert_eq!(lab.get("/").version(), "blue");
    // A plan of what would be refused is refused.
    let (status, _) = lab.call("POST", "/v1/services/shop/flip?dry_run=true", &json!({ "to": "gren" }));
    assert_eq!(status, 422);
    // What is only a plan takes no idempotency key.
    let key = [("idempotency-key", "plan")];
    let body = json!({ "to": "green" });
    assert_eq!(lab.call_with("POST", "/v1/services/shop/flip?dry_run=true", &key, &body).status, 200);
    assert_eq!(lab.call_with("POST", "/v1/services/shop/flip", &key, &body).json()["dry_run"], false);
    assert_eq!(lab.get("/").version(), "green");
}

#[test]
fn events_tell_what_happened_in_its_order() {
    let gate = Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate), Origin::held("green", &gate)], "");
    let mut client = lab.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    lab.origin("blue").wait_served(1);
    let mut events = lab.events();
    let flipped = lab.flip("green");
    lab.weights(&json!({ "green": 10_000 }));
    gate.open();
    assert!(client.answer().is_whole);
    events.drained("blue");
    let reverted = lab.call("POST", "/v1/services/shop/revert", &json!({ "reason": "slow" })).1;
    events.drained("green");
    let told: Vec<_> = events
        .past
        .iter()
        .map(|event| match event["type"].as_str().unwrap() {
            "changed" => format!("{} {}", event["change"]["kind"], event["change"]["epoch"]),
            "drained" => format!("drained {}", event["version"]),
            other => other.to_owned(),
        })
        .collect();
    assert_eq!(
        told,
        [
            "hello".to_owned(),
            format!("\"flip\" {}", flipped["epoch"]),
            "drained \"blue\"".to_owned(),
            format!("\"revert\" {}", reverted["epoch"]),
            "drained \"green\"".to_owned(),
        ],
        "and nothing of what changed nothing"
    );
}

#[test]
fn the_history_says_who_and_why_and_an_undo_goes_back_to_it() {
    let mut lab = Lab::start(&["blue", "green"]);
    let reason = json!({ "to": "green", "reason": "release 42" });
    assert_eq!(lab.call("POST", "/v1/services/shop/flip", &reason).0, 200);
    lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
    let half = lab.epoch();
    lab.flip("blue");
    // The way back survives a kill as well.
    lab.kill_and_restart();
    let (_, history) = lab.call("GET", "/v1/changes", &Value::Null);
    let kinds: Vec<_> = history["changes"].as_array().unwrap().iter().map(|change| &change["kind"]).collect();
    assert_eq!(kinds, ["flip", "weights", "flip", "configure"]);
    let first = &history["changes"][2];
    assert_eq!((&first["reason"], &first["actor"]["kind"]), (&json!("release 42"), &json!("controller")));
    let who = first["actor"]["name"].as_str().unwrap();
    assert!(who.contains(&format!("pid={}", std::process::id())), "{who}");
    let (status, undone) = lab.call("POST", "/v1/undo", &json!({ "to_epoch": half, "reason": "not yet" }));
    assert_eq!((status, &undone["changed"]), (200, &json!(true)), "{undone}");
    assert_eq!(lab.shop()["weights"], json!({ "blue": 5_000, "green": 5_000 }));
    assert_eq!(lab.epoch(), half + 2, "an undo is a change like any other");
    let (_, page) = lab.call("GET", "/v1/changes?limit=2", &Value::Null);
    assert_eq!((&page["changes"][0]["kind"], &page["next_before"]), (&json!("undo"), &json!(half + 1)));
}

#[test]
fn the_socket_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::start(&["blue"]);
    let mode = std::fs::metadata(lab.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn who_looks_is_told_how_it_stands() {
    let lab = Lab::start(&["blue"]);
    for (path, said) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = lab.call_with("GET", path, &[], &Value::Null);
        assert_eq!((answer.status, answer.text().as_str()), (200, said));
    }
    let (_, document) = lab.call("GET", "/v1/openapi.json", &Value::Null);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
}

#[test]
fn a_picture_that_nobody_reads_any_more_is_the_last_one() {
    let lab = Lab::start(&["blue"]);
    let mut watch = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(["--json", "status", "--watch"])
        .env("SWITCHBACK_SOCKET", lab.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    watch.stdout.take().unwrap().read_exact(&mut first).unwrap();
    lab::wait_until("it ends", || watch.try_wait().unwrap().is_some());
    assert!(watch.wait().unwrap().success());
}
