//! G3: `drained` is an answer, not a timer; and pools change under traffic without a loss (G2).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lab::held::Later;
use lab::history::Load;
use lab::origin::Then;
use lab::{Client, Gate, Lab, Origin, gate};
use serde_json::{Value, json};

fn held() -> (Lab, Gate) {
    let gate = Gate::default();
    (Lab::on(vec![Origin::held("blue", &gate), Origin::held("green", &gate)], ""), gate)
}

/// A client in the middle of a download from blue.
fn download(lab: &Lab) -> Client {
    let before = lab.origin("blue").served();
    let mut client = lab.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    lab.origin("blue").wait_served(before + 1);
    client
}

fn assert_whole(client: &mut Client) {
    let answer = client.answer();
    assert_eq!((answer.version(), answer.text().as_str(), answer.is_whole), ("blue", gate::HELD, true));
}

/// What the drain endpoint says of a version of `shop`.
fn drain(lab: &Lab, version: &str) -> Value {
    let (status, body) =
        lab.call("GET", &format!("/v1/services/shop/versions/{version}/drain"), &Value::Null);
    assert_eq!(status, 200, "{body}");
    body
}

/// Kinds and counts.
fn amounts(remaining: &Value) -> Vec<(String, u64)> {
    let amount = |left: &Value| (left["kind"].as_str().unwrap().to_owned(), left["count"].as_u64().unwrap());
    remaining.as_array().unwrap().iter().map(amount).collect()
}

#[test]
fn a_version_is_drained_when_its_last_request_has_ended_and_not_before() {
    let (lab, gate) = held();
    let mut client = download(&lab);
    let mut events = lab.events();
    let done = lab.flip("green");
    assert_eq!(done["leaving"], json!([{ "service": "shop", "version": "blue" }]), "{done}");
    let shop = lab.shop();
    assert_eq!((&shop["phase"], &shop["leaving"]), (&json!("draining"), &json!(["blue"])));
    let left = drain(&lab, "blue");
    assert_eq!((&left["drained"], &left["weight"]), (&json!(false), &json!(0)));
    assert_eq!(amounts(&left["remaining"]), [("request".to_owned(), 1)]);
    assert_eq!(left["endpoints"][0]["endpoint"], lab.origin("blue").address.to_string());
    assert_eq!(left["endpoints"][0]["remaining"], left["remaining"]);
    assert_eq!(drain(&lab, "green")["drained"], false, "it carries everything");
    assert_eq!(lab.get("/").version(), "green");
    gate.open();
    assert_whole(&mut client);
    let drained = events.drained("blue");
    assert_eq!(drained["service"], "shop");
    assert_eq!(
        drain(&lab, "blue"),
        json!({ "drained": true, "weight": 0, "remaining": [], "endpoints": [] })
    );
    assert_eq!(lab.shop()["phase"], "steady");
    let order: Vec<_> = events.past.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(order, ["hello", "changed", "drained"]);
}

#[test]
fn an_upload_is_named_as_what_is_left() {
    let (lab, _gate) = held();
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 4\r\n\r\nab");
    lab::wait_until("the upload is under way", || lab.shop()["versions"][0]["in_flight"]["total"] == 1);
    let mut events = lab.events();
    lab.flip("green");
    assert_eq!(amounts(&drain(&lab, "blue")["remaining"]), [("upload".to_owned(), 1)]);
    client.send("cd");
    assert_eq!(client.answer().version(), "blue");
    events.drained("blue");
}

#[test]
fn a_flip_can_wait_for_the_drain() {
    let (lab, gate) = held();
    let mut client = download(&lab);
    let wait = |timeout: &str| format!("/v1/services/shop/flip?wait=drained&timeout={timeout}");
    let (status, late) = lab.call("POST", &wait("50ms"), &json!({ "to": "green" }));
    assert_eq!((status, &late["change"]["changed"]), (504, &json!(true)), "{late}");
    assert_eq!(
        (&late["left"][0]["version"], amounts(&late["left"])),
        (&json!("blue"), vec![("request".to_owned(), 1)])
    );
    assert!(late["left"][0]["oldest_seconds"].as_f64() >= Some(0.05), "{late}");
    std::thread::scope(|scope| {
        // The drain goes on; whoever changes the service next can wait for it.
        let waiting = scope.spawn(|| {
            let path = "/v1/services/shop/versions/next?wait=drained&timeout=30s";
            lab.call("PUT", path, &json!({ "endpoints": ["127.0.0.1:1"] }))
        });
        gate.open();
        assert_whole(&mut client);
        let (status, done) = waiting.join().unwrap();
        assert_eq!((status, &done["state"]), (200, &json!("drained")), "{done}");
    });
    assert_eq!(drain(&lab, "blue")["drained"], true);
}

#[test]
fn a_revert_during_the_drain_keeps_the_request() {
    let (lab, gate) = held();
    let mut client = download(&lab);
    let mut events = lab.events();
    lab.flip("green");
    let (status, _) = lab.call("POST", "/v1/services/shop/revert", &Value::Null);
    assert_eq!(status, 200);
    assert_eq!(lab.get("/").version(), "blue");
    let back = drain(&lab, "blue");
    assert_eq!((&back["drained"], &back["weight"]), (&json!(false), &json!(10_000)));
    gate.open();
    assert_whole(&mut client);
    // Blue drains when it is left the next time, and was not said to have drained before.
    lab.flip("green");
    events.drained("blue");
    let about_blue =
        events.past.iter().filter(|event| event["type"] == "drained" && event["version"] == "blue");
    assert_eq!(about_blue.count(), 1);
    assert_eq!(events.past.iter().filter(|event| event["type"] == "changed").count(), 3);
}

#[test]
fn a_version_that_is_removed_while_it_serves_finishes_what_it_has() {
    let (lab, gate) = held();
    let mut client = download(&lab);
    let mut events = lab.events();
    lab.flip("green");
    let (status, body) = lab.call("DELETE", "/v1/services/shop/versions/blue", &Value::Null);
    assert_eq!(status, 200, "{body}");
    assert_eq!(drain(&lab, "blue")["remaining"][0]["count"], 1, "gone from the table, not from the proxy");
    assert_eq!(lab.get("/").version(), "green");
    gate.open();
    assert_whole(&mut client);
    events.drained("blue");
    let (status, gone) = lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null);
    assert_eq!((status, &gone["type"]), (404, &json!("urn:switchback:problem:unknown_version")));
}

#[test]
fn a_version_that_is_removed_and_comes_again_has_what_it_had_in_flight() {
    let (lab, gate) = held();
    let mut client = download(&lab);
    let blue = json!({ "endpoints": [lab.origin("blue").address.to_string()] });
    lab.flip("green");
    lab.call("DELETE", "/v1/services/shop/versions/blue", &Value::Null);
    let shown = lab.cli(&["status", "shop"]).1;
    assert!(
        shown.contains("stop: blue is removed and still has work in flight: do not stop it yet"),
        "{shown}"
    );
    let (status, done) = lab.call("PUT", "/v1/services/shop/versions/blue", &blue);
    assert_eq!(status, 200, "{done}");
    assert_eq!(lab.shop()["versions"][0]["in_flight"]["total"], 1, "{}", lab.shop());
    let shown = lab.cli(&["status", "shop"]).1;
    assert!(shown.contains("stop: blue still has 1 request in flight: do not stop it yet"), "{shown}");
    gate.open();
    assert_whole(&mut client);
}

#[test]
fn a_version_is_added_and_flipped_to_while_the_other_serves() {
    let (lab, gate) = held();
    let mut client = download(&lab);
    let v42 = Origin::start("v42");
    let load = Load::start(lab.address(), 2, &[("shop", "/")]);
    let body = json!({ "endpoints": [v42.address.to_string()] });
    let (status, done) = lab.call("PUT", "/v1/services/shop/versions/v42", &body);
    assert_eq!(status, 200, "{done}");
    lab.flip("v42");
    assert_eq!(lab.get("/").version(), "v42");
    load.wait_for_more(3);
    assert_eq!(load.stop().failures, [] as [&str; 0]);
    gate.open();
    assert_whole(&mut client);
}

/// One version with a pool of these.
fn pool(origins: Vec<Origin>) -> Lab {
    let endpoints: Vec<_> = origins.iter().map(|origin| format!("\"{}\"", origin.address)).collect();
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nversions.v1.endpoints = [{}]\n",
        endpoints.join(", ")
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

fn endpoint(lab: &Lab, method: &str, at: SocketAddr) {
    let path = format!("/v1/services/shop/versions/v1/endpoints/{at}");
    let (status, body) = lab.call(method, &path, &Value::Null);
    assert_eq!(status, 200, "{body}");
}

#[test]
fn endpoints_come_and_go_under_traffic_without_a_loss() {
    let lab = pool(["a", "b", "c"].map(Origin::start).into());
    let load = Load::start(lab.address(), 4, &[("shop", "/")]);
    for _ in 0..10 {
        for name in ["a", "b", "c"] {
            let origin = lab.origin(name);
            endpoint(&lab, "DELETE", origin.address);
            load.wait_for_more(2);
            let served = origin.served();
            load.wait_for_more(2);
            assert_eq!(origin.served(), served, "nothing new arrives at what was removed");
            endpoint(&lab, "PUT", origin.address);
        }
    }
    let traffic = load.stop();
    assert_eq!(traffic.failures, [] as [&str; 0]);
    let sent: u64 = lab.origins.iter().map(Origin::served).sum();
    assert_eq!(sent, traffic.requests.len() as u64, "each request went to one of them, once");
}

#[test]
fn a_request_on_an_endpoint_that_is_removed_is_finished() {
    let gate = Gate::default();
    let lab = pool(vec![Origin::held("blue", &gate), Origin::start("other")]);
    // By turns: one of two goes to the one that holds.
    let mut clients: Vec<_> = (0..2).map(|_| lab.client()).collect();
    for client in &mut clients {
        client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    }
    let mut held: Vec<_> = (0..4).map(|_| lab.client()).collect();
    for client in &mut held {
        client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    }
    lab.origin("blue").wait_served(1);
    endpoint(&lab, "DELETE", lab.origin("blue").address);
    gate.open();
    for client in clients.iter_mut().chain(&mut held) {
        let answer = client.answer();
        assert_eq!((answer.status, answer.is_whole), (200, true));
    }
    assert_eq!(lab.get("/").version(), "other");
}

#[test]
fn a_service_that_was_dropped_is_not_said_to_be_gone_while_it_has_work() {
    let (lab, gate) = held();
    let mut client = download(&lab);
    let mut events = lab.events();
    lab.write_config("[services.cart]\nroutes = [{ path = \"/cart\" }]\n[services.cart.versions.v1]\nendpoints = [\"127.0.0.1:9\"]\n");
    events.change();
    let left = drain(&lab, "blue");
    assert_eq!((&left["drained"], &left["remaining"][0]["count"]), (&json!(false), &json!(1)), "{left}");
    gate.open();
    assert_whole(&mut client);
}

/// What is said of one endpoint of version `v1`.
fn endpoint_drain(lab: &Lab, at: SocketAddr) -> Value {
    let (status, body) =
        lab.call("GET", &format!("/v1/services/shop/versions/v1/endpoints/{at}/drain"), &Value::Null);
    assert_eq!(status, 200, "{body}");
    body
}

fn drain_endpoint(lab: &Lab, at: SocketAddr) {
    let path = format!("/v1/services/shop/versions/v1/endpoints/{at}/drain");
    let (status, body) = lab.call("POST", &path, &Value::Null);
    assert_eq!(status, 200, "{body}");
}

#[test]
fn an_endpoint_is_drained_when_its_last_request_has_ended_and_serves_again_when_it_is_put() {
    let gate = Gate::default();
    let lab = pool(vec![Origin::held("held", &gate), Origin::start("other")]);
    let (held, other) = (lab.origin("held").address, lab.origin("other").address);
    // By turns, on each worker: of enough requests some are with either.
    let mut clients: Vec<_> = (0..8).map(|_| lab.client()).collect();
    for client in &mut clients {
        client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    }
    lab.origin("held").wait_served(1);
    lab::wait_until("the other ones are answered", || {
        drain(&lab, "v1")["endpoints"].as_array().unwrap().len() == 1
    });
    let serving = endpoint_drain(&lab, held);
    assert_eq!((&serving["drained"], &serving["draining"]), (&json!(false), &json!(false)));
    drain_endpoint(&lab, held);
    let left = endpoint_drain(&lab, held);
    assert_eq!(
        (&left["drained"], &left["draining"], &left["in_pool"]),
        (&json!(false), &json!(true), &json!(true))
    );
    assert_eq!(left["remaining"][0]["kind"], "request");
    assert!(left["remaining"][0]["oldest_seconds"].as_f64().unwrap() > 0.0, "{left}");
    let before = lab.origin("held").served();
    for _ in 0..20 {
        assert_eq!(lab.get("/").version(), "other");
    }
    assert_eq!(lab.origin("held").served(), before, "nothing new arrives");
    let (exit, out, _) =
        lab.cli(&["endpoints", "drain", "shop/v1", &held.to_string(), "--wait", "--timeout", "50ms"]);
    assert_eq!(exit, 3, "{out}");
    assert!(out.trim_end().ends_with("in flight: do not stop it yet"), "{out}");
    gate.open();
    for client in &mut clients {
        assert!(client.answer().is_whole);
    }
    let (exit, out, _) = lab.cli(&["endpoints", "drain", "shop/v1", &held.to_string(), "--wait"]);
    assert_eq!(
        (exit, out.lines().last().unwrap()),
        (0, &*format!("{held} is safe to stop: nothing is left on it"))
    );
    assert_eq!(endpoint_drain(&lab, held)["drained"], true);
    assert_eq!(endpoint_drain(&lab, other)["drained"], false);
    endpoint(&lab, "PUT", held);
    assert_eq!(endpoint_drain(&lab, held)["drained"], false);
    lab::wait_until("it serves again", || lab.get("/").version() == "held");
}

#[test]
fn a_call_that_drains_or_removes_an_endpoint_can_wait_until_nothing_is_left_on_it() {
    for (method, path) in [("POST", "/drain"), ("DELETE", "")] {
        let gate = Gate::default();
        let lab = pool(vec![Origin::held("held", &gate), Origin::start("other")]);
        let held = lab.origin("held").address;
        let mut clients: Vec<_> = (0..8).map(|_| lab.client()).collect();
        for client in &mut clients {
            client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        }
        lab.origin("held").wait_served(1);
        let call = |timeout: &str| {
            let wait = format!("?wait=drained&timeout={timeout}");
            lab.call(
                method,
                &format!("/v1/services/shop/versions/v1/endpoints/{held}{path}{wait}"),
                &Value::Null,
            )
        };
        let (status, late) = call("50ms");
        assert_eq!((status, &late["change"]["changed"]), (504, &json!(true)), "{late}");
        assert_eq!(late["left"][0]["kind"], "request");
        if method == "POST" {
            // The same again waits for the same.
            assert_eq!(call("50ms").0, 504);
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| call("30s"));
                gate.open();
                let (status, done) = waiting.join().unwrap();
                assert_eq!((status, &done["state"]), (200, &json!("drained")), "{done}");
            });
            assert_eq!(endpoint_drain(&lab, held)["drained"], true);
        }
        gate.open();
    }
}

/// Whatever takes it out, not only what names it.
#[test]
fn a_change_that_takes_an_endpoint_out_can_wait_until_nothing_is_left_on_it() {
    for what in ["put", "undo", "batch"] {
        let gate = Gate::default();
        let lab = pool(vec![Origin::start("stays"), Origin::held("held", &gate)]);
        let [stays, held] = ["stays", "held"].map(|name| lab.origin(name).address);
        endpoint(&lab, "DELETE", held);
        let without = lab.epoch();
        endpoint(&lab, "PUT", held);
        let mut clients: Vec<_> = (0..8).map(|_| lab.client()).collect();
        for client in &mut clients {
            client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        }
        lab.origin("held").wait_served(1);
        let pool = json!({ "version": "v1", "endpoints": [stays.to_string()] });
        let (method, path, body) = match what {
            "put" => ("PUT", "services/shop/versions/v1", json!({ "endpoints": [stays.to_string()] })),
            "undo" => ("POST", "undo", json!({ "to_epoch": without })),
            _ => ("POST", "changes", json!({ "changes": [{ "service": "shop", "put_version": pool }] })),
        };
        let path = format!("/v1/{path}?wait=drained&timeout=50ms");
        let call = || {
            let answer = lab.call_with(method, &path, &[("idempotency-key", what)], &body);
            (answer.status, answer.json())
        };
        let (status, late) = call();
        let out = json!([{ "service": "shop", "version": "v1", "endpoint": held.to_string() }]);
        assert_eq!((status, &late["change"]["out"]), (504, &out), "{late}");
        assert_eq!(late["left"][0]["kind"], "request");
        // The same again is answered the same, and waits for the same.
        assert_eq!(call().0, 504);
        gate.open();
        lab::wait_until("nothing is left", || call().1["state"] == "drained");
        assert_eq!(endpoint_drain(&lab, held)["drained"], true);
        clients.iter_mut().for_each(|client| assert!(client.answer().is_whole));
    }
}

#[test]
fn one_that_serves_again_is_not_waited_for() {
    let gate = Gate::default();
    let lab = pool(vec![Origin::held("held", &gate), Origin::start("other")]);
    let held = lab.origin("held").address;
    let mut clients: Vec<_> = (0..8).map(|_| lab.client()).collect();
    for client in &mut clients {
        client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    }
    lab.origin("held").wait_served(1);
    std::thread::scope(|scope| {
        let path = format!("/v1/services/shop/versions/v1/endpoints/{held}");
        let waiting = scope.spawn({
            let path = format!("{path}/drain?wait=drained&timeout=30s");
            let lab = &lab;
            move || lab.call("POST", &path, &Value::Null)
        });
        lab::wait_until("it drains", || endpoint_drain(&lab, held)["draining"] == true);
        assert_eq!(lab.call("PUT", &path, &Value::Null).0, 200);
        let (status, returned) = waiting.join().unwrap();
        assert_eq!(
            (status, &returned["type"]),
            (409, &json!("urn:switchback:problem:returned")),
            "{returned}"
        );
        gate.open();
    });
}

/// `v1` with two endpoints that each keep a request until its gate is open, and `v2`; and a wait for both of them, under way.
fn waits_for_two(version: &str) -> (Lab, [Gate; 2], Vec<Client>, Later) {
    let gates = [Gate::default(), Gate::default()];
    let mut origins: Vec<_> =
        ["first", "second"].iter().zip(&gates).map(|(name, gate)| Origin::held(name, gate)).collect();
    origins.extend(["stays", "next"].map(Origin::start));
    let at: Vec<_> = origins.iter().map(|origin| origin.address.to_string()).collect();
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"v1\"\nversions.v1.endpoints = {:?}\nversions.v2.endpoints = {:?}\n",
        &at[..3],
        &at[3..]
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    let mut clients: Vec<_> = (0..12).map(|_| lab.client()).collect();
    for client in &mut clients {
        client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    }
    for name in ["first", "second"] {
        lab.origin(name).wait_served(1);
    }
    let edit =
        |at: &String| json!({ "service": "shop", "drain_endpoint": { "version": version, "endpoint": at } });
    let body = json!({ "changes": [edit(&at[0]), edit(&at[1])] });
    let before = lab.epoch();
    let waiting = lab.call_later("POST", "/v1/changes?wait=drained&timeout=30s", &[], &body);
    lab::wait_until("they drain", || lab.epoch() > before);
    (lab, gates, clients, waiting)
}

/// Also one of a version that is gone since, or that an alias does not mean any more.
#[test]
fn each_endpoint_that_a_change_takes_out_is_waited_for() {
    for version in ["v1", "@stable"] {
        let (lab, [first, second], mut clients, waiting) = waits_for_two(version);
        lab.flip("v2");
        assert_eq!(lab.call("DELETE", "/v1/services/shop/versions/v1", &Value::Null).0, 200);
        first.open();
        let [one, other] = ["first", "second"].map(|name| lab.origin(name).address);
        lab::wait_until("the first is empty", || endpoint_drain(&lab, one)["drained"] == true);
        // Longer than it takes to look again.
        for _ in 0..50 {
            assert_eq!(endpoint_drain(&lab, other)["drained"], false);
        }
        assert!(!waiting.is_answered(), "{version}: the second is not empty");
        second.open();
        let answer = waiting.answer();
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("drained")), "{version}");
        assert!(clients.iter_mut().all(|client| client.answer().is_whole));
    }
}

#[test]
fn what_was_empty_first_and_serves_again_is_not_called_drained_with_the_others() {
    let (lab, [first, second], mut clients, waiting) = waits_for_two("v1");
    first.open();
    let one = lab.origin("first").address;
    lab::wait_until("the first is empty", || endpoint_drain(&lab, one)["drained"] == true);
    endpoint(&lab, "PUT", one);
    let answer = waiting.answer();
    let returned = answer.json();
    assert_eq!(
        (answer.status, &returned["type"]),
        (409, &json!("urn:switchback:problem:returned")),
        "{returned}"
    );
    second.open();
    assert!(clients.iter_mut().all(|client| client.answer().is_whole));
}

#[test]
fn an_address_that_has_work_of_another_service_is_not_safe_to_stop() {
    let gate = Gate::default();
    let origins = vec![Origin::held("held", &gate), Origin::start("other")];
    let [held, other] = [0, 1].map(|index| origins[index].address);
    let service = |name: &str, path: &str| {
        format!(
            "[services.{name}]\nroutes = [{{ path = \"{path}\" }}]\nversions.v1.endpoints = [\"{held}\", \"{other}\"]\n"
        )
    };
    let services = service("shop", "/") + &service("api", "/held");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    let used = || {
        let told = endpoint_drain(&lab, held);
        assert_eq!(told["drained"], true, "{told}");
        told["also_used_by"].clone()
    };
    drain_endpoint(&lab, held);
    let api = json!([{ "service": "api", "version": "v1", "address": held.to_string() }]);
    assert_eq!(used(), api, "it gets requests of the other service");
    let mut clients: Vec<_> = (0..8).map(|_| lab.client()).collect();
    for client in &mut clients {
        client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    }
    lab.origin("held").wait_served(1);
    // What is left there after it was drained, or taken out of the pool, counts as long as it lasts.
    for (method, suffix) in [("POST", "/drain"), ("DELETE", "")] {
        let path = format!("/v1/services/api/versions/v1/endpoints/{held}{suffix}");
        assert_eq!(lab.call(method, &path, &Value::Null).0, 200);
        assert_eq!(used(), api, "{method}");
    }
    let (exit, out, _) = lab.cli(&["endpoints", "drain", "shop/v1", &held.to_string(), "--wait"]);
    let last = out.lines().last().unwrap();
    assert!(exit == 1 && last.ends_with(&format!("but api/v1 uses {held} too: do not stop it")), "{out}");
    gate.open();
    for client in &mut clients {
        assert!(client.answer().is_whole);
    }
    lab::wait_until("nobody uses it", || used() == Value::Null);
    assert_eq!(lab.get("/held").version(), "other");
    assert_eq!(used(), Value::Null, "others of the version's endpoints do not count");
}

/// A request of version `v1` is with the first of these endpoints, which ends without an answer once `gate` is open, and would then
/// be tried with the second; `v2` has the traffic.
fn left_in_the_middle_of_an_attempt(gate: &Gate) -> (Lab, Client, [SocketAddr; 2]) {
    let asked = Arc::new(AtomicBool::new(false));
    let fails_first = |name| {
        let (asked, gate) = (Arc::clone(&asked), gate.clone());
        Origin::behaving(name, move |_, stream| {
            if !asked.swap(true, Ordering::SeqCst) {
                gate.wait();
                return Ok(Then::Close);
            }
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
            Ok(Then::Keep)
        })
    };
    let origins = vec![Origin::start("green"), fails_first("one"), fails_first("two")];
    let [green, one, two] = [0, 1, 2].map(|index| origins[index].address);
    let services =
        format!("[services.shop]\nroutes = [{{ path = \"/\" }}]\nversions.v2.endpoints = [\"{green}\"]\n");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    put(&lab, &[one, two]);
    lab.flip("v1");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    let is_at = |name| lab.origin(name).served() == 1;
    lab::wait_until("it is with one of them", || is_at("one") || is_at("two"));
    lab.flip("v2");
    let pool = if is_at("one") { [one, two] } else { [two, one] };
    (lab, client, pool)
}

/// Version `v1` has these endpoints.
fn put(lab: &Lab, endpoints: &[SocketAddr]) {
    let path = "/v1/services/shop/versions/v1";
    let (status, body) = lab.call("PUT", path, &json!({ "endpoints": endpoints }));
    assert_eq!(status, 200, "{body}");
}

#[test]
fn an_endpoint_to_which_a_request_may_still_come_is_not_drained() {
    let remove = |lab: &Lab| {
        assert_eq!(lab.call("DELETE", "/v1/services/shop/versions/v1", &Value::Null).0, 200);
    };
    for how in ["left", "removed", "removed and put again"] {
        let gate = Gate::default();
        let (lab, mut client, [failing, other]) = left_in_the_middle_of_an_attempt(&gate);
        if how != "left" {
            remove(&lab);
        }
        if how == "removed and put again" {
            put(&lab, &[failing]);
        }
        let told = endpoint_drain(&lab, other);
        assert_eq!(told["drained"], false, "{how}: {told}");
        assert_eq!(amounts(&told["remaining"]), [("request".to_owned(), 1)], "{how}");
        let of_green = || {
            let path = format!("/v1/services/shop/versions/v2/endpoints/{other}/drain");
            lab.call("GET", &path, &Value::Null).1
        };
        let user = json!([{ "service": "shop", "version": "v1", "address": other.to_string() }]);
        assert_eq!(of_green()["also_used_by"], user, "{how}");
        gate.open();
        assert_eq!(client.answer().status, 200, "{how}: the other one has answered");
        lab::wait_until("nothing can come any more", || of_green()["also_used_by"].is_null());
        if how != "removed" {
            assert_eq!(endpoint_drain(&lab, other)["drained"], true, "{how}");
        }
    }
}

#[test]
fn an_endpoint_that_drains_waits_for_no_request_that_is_elsewhere() {
    let gate = Gate::default();
    let (lab, mut client, [_, other]) = left_in_the_middle_of_an_attempt(&gate);
    drain_endpoint(&lab, other);
    let told = endpoint_drain(&lab, other);
    assert_eq!((&told["drained"], &told["remaining"]), (&json!(true), &json!([])), "{told}");
    gate.open();
    assert_eq!(client.answer().status, 502, "nothing goes there");
}

#[test]
fn the_whole_proxy_tells_what_is_left_of_versions_without_traffic() {
    let (lab, gate) = held();
    let mut client = download(&lab);
    let all = || lab.call("GET", "/v1/drain", &Value::Null).1;
    assert_eq!(all()["drained"], true, "blue carries the traffic");
    lab.flip("green");
    let left = all();
    assert_eq!(
        (&left["drained"], &left["versions"][0]["version"]),
        (&json!(false), &json!("blue")),
        "{left}"
    );
    let (exit, out, _) = lab.cli(&["drain", "--all"]);
    assert_eq!((exit, out.trim_end()), (1, "blue still has 1 request in flight: do not stop it yet"));
    gate.open();
    assert_whole(&mut client);
    assert_eq!(lab.cli(&["drain", "--all", "--wait"]).0, 0);
}
