//! Each way to choose endpoints, through the configuration, over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use lab::http2::run;
use lab::origin::{Then, never_accepts, nobody};
use lab::{Client, Gate, Http2, Lab, Origin, wait_until};
use serde_json::{Value, json};

/// `shop` with one version that these origins are endpoints of, as `endpoint` writes each, on one worker.
fn pool(origins: Vec<Origin>, extra: &str, settings: &str, endpoint: impl Fn(&Origin) -> String) -> Lab {
    let endpoints: Vec<_> = origins.iter().map(endpoint).collect();
    let services = format!(
        "{extra}\n[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{settings}\n\
         [services.shop.versions.blue]\nendpoints = [{}]\n",
        endpoints.join(", ")
    );
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    lab.restrict_to_one_worker();
    lab
}

fn plain(origin: &Origin) -> String {
    format!("\"{}\"", origin.address)
}

/// As many origins as names, `a`, `b`, …
fn origins(names: &[&str]) -> Vec<Origin> {
    names.iter().map(|name| Origin::start(name)).collect()
}

/// Who answered, each how often.
fn counts(lab: &Lab, requests: usize) -> BTreeMap<String, usize> {
    let mut client = lab.client();
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(client.get("/").version().to_owned()).or_default() += 1;
    }
    counts
}

fn count(counts: &BTreeMap<String, usize>, name: &str) -> usize {
    counts.get(name).copied().unwrap_or_default()
}

#[test]
fn in_turn_and_by_weight() {
    let weighed = |origin: &Origin| match origin.name.as_str() {
        "a" => format!("{{ address = \"{}\", weight = 3 }}", origin.address),
        _ => plain(origin),
    };
    let lab = pool(origins(&["a", "b"]), "", "balance = \"round_robin\"", weighed);
    let counts = counts(&lab, 16);
    assert_eq!((count(&counts, "a"), count(&counts, "b")), (12, 4));
}

#[test]
fn by_lot_and_by_weight() {
    let weighed = |origin: &Origin| {
        let weight = if origin.name == "a" { 9 } else { 1 };
        format!("{{ address = \"{}\", weight = {weight} }}", origin.address)
    };
    for policy in ["random", "p2c"] {
        let lab = pool(origins(&["a", "b"]), "", &format!("balance = \"{policy}\""), weighed);
        // One in 10 of 500 is 50, give or take 7.
        let counts = counts(&lab, 500);
        assert!((10..110).contains(&count(&counts, "b")), "{policy}: {counts:?}");
    }
}

#[test]
fn by_default_where_less_is_in_flight() {
    let gate = Gate::default();
    let lab = pool(vec![Origin::held("busy", &gate), Origin::start("free")], "", "", plain);
    let busy = lab.origin("busy");
    // Until one is held there.
    let mut waiting: Vec<Client> = Vec::new();
    wait_until("one is with the busy one", || {
        let mut client = lab.client();
        client.send("GET /late HTTP/1.1\r\nhost: a\r\n\r\n");
        waiting.push(client);
        wait_until("somebody has it", || {
            busy.seen().len() as u64 + lab.origin("free").served() == waiting.len() as u64
        });
        !busy.seen().is_empty()
    });
    assert_eq!(counts(&lab, 50), BTreeMap::from([("free".to_owned(), 50)]));
    gate.open();
    waiting.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
}

/// Sends a request with this line and these fields; who answered.
fn who(client: &mut Client, path: &str, fields: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    client.send(request).answer().version().to_owned()
}

#[test]
fn the_same_key_goes_to_the_same_endpoint_before_and_after_a_restart() {
    type Request = dyn Fn(usize) -> (String, String);
    let keys = |lab: &Lab, request: &Request| -> Vec<String> {
        let mut client = lab.client();
        (0..40)
            .map(|key| {
                let (path, fields) = request(key);
                who(&mut client, &path, &fields)
            })
            .collect()
    };
    let header = |key: usize| ("/".to_owned(), format!("X-User: {key}\r\n"));
    let cookie = |key: usize| ("/".to_owned(), format!("cookie: a=b; id={key}\r\n"));
    let path = |key: usize| (format!("/{key}?{}", std::process::id()), String::new());
    let all: [(&str, &Request); 3] =
        [("{ header = \"x-user\" }", &header), ("{ cookie = \"id\" }", &cookie), ("{ path = true }", &path)];
    for (key, request) in all {
        let settings = format!("balance = {{ policy = \"hash\", key = {key} }}");
        let mut lab = pool(origins(&["a", "b", "c"]), "", &settings, plain);
        let first = keys(&lab, request);
        assert_eq!(first, keys(&lab, request), "{key}");
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{key}: {first:?}");
        lab.kill_and_restart();
        assert_eq!(first, keys(&lab, request), "{key}");
    }
    let lab = pool(
        origins(&["a", "b", "c"]),
        "",
        "balance = { policy = \"hash\", key = { client = true } }",
        plain,
    );
    assert_eq!(counts(&lab, 30).len(), 1, "one client");
}

#[test]
fn a_host_is_the_same_key_over_http_1_and_http_2() {
    let settings = "balance = { policy = \"hash\", key = { header = \"host\" } }";
    let lab = pool(origins(&["a", "b", "c"]), "", settings, plain);
    let mut client = lab.client();
    let hosts: Vec<_> = (0..20).map(|host| format!("t{host}.test")).collect();
    let mut ask = |host: &str| {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).answer().version().to_owned()
    };
    let first: Vec<_> = hosts.iter().map(|host| ask(host)).collect();
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{first:?}");
    run(async {
        let http2 = Http2::to(lab.address()).await;
        for (host, who) in hosts.iter().zip(&first) {
            assert_eq!(ask(&format!("{}:80", host.to_uppercase())), *who);
            let request = http::Request::get(format!("http://{host}/")).body(()).unwrap();
            assert_eq!(http2.ask(request).await.version(), who);
        }
    });
}

#[test]
fn the_address_that_a_stranger_tells_is_no_key() {
    let settings = "balance = { policy = \"hash\", key = { client = true } }";
    let lab = pool(origins(&["a", "b", "c"]), "", settings, plain);
    let mut client = lab.client();
    let spread: BTreeSet<_> =
        (1..40).map(|n| who(&mut client, "/", &format!("x-forwarded-for: 10.0.0.{n}\r\n"))).collect();
    assert_eq!(spread.len(), 1, "a stranger's word");
}

#[test]
fn the_slow_one_is_avoided_by_what_was_measured() {
    let slow = Origin::behaving("slow", |_, stream| {
        thread::sleep(Duration::from_millis(60));
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-version: slow\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    let lab = pool(vec![slow, Origin::start("fast")], "", "balance = \"ewma\"", plain);
    let counts = counts(&lab, 200);
    assert!((1..=3).contains(&count(&counts, "slow")), "{counts:?}");
}

#[test]
fn one_whose_answers_nobody_waits_for_is_not_taken_for_a_fast_one() {
    let slow = || {
        Origin::behaving("slow", |_, stream| {
            thread::sleep(Duration::from_millis(400));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(Then::Keep)
        })
    };
    // Another one is asked beside it, and is faster every time.
    let hedge = "balance = \"ewma\"\nhedge = { after = \"20ms\" }\nretries = { budget = \"100%\", min_per_second = 1_000 }";
    let lab = pool(vec![slow(), Origin::start("fast")], "", hedge, plain);
    assert_eq!(count(&counts(&lab, 60), "fast"), 60);
    let asked = lab.origin("slow").seen().len();
    assert!((1..=6).contains(&asked), "{asked} beside another");
    // Its clients leave.
    let lab = pool(vec![slow(), Origin::start("fast")], "", "balance = \"ewma\"", plain);
    for _ in 0..30 {
        let mut client = lab.client();
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        // How long it waits is what is tried.
        thread::sleep(Duration::from_millis(60));
    }
    let asked = lab.origin("slow").seen().len();
    assert!((1..=6).contains(&asked), "{asked} of those who left");
}

#[test]
fn one_that_fails_is_not_taken_for_a_fast_one() {
    let closes = Origin::behaving("closes", |_, _| Ok(Then::Close));
    let lab = pool(vec![closes, Origin::start("good")], "", "balance = \"ewma\"", plain);
    assert_eq!(
        counts(&lab, 100),
        BTreeMap::from([("good".to_owned(), 100)]),
        "another attempt makes good for it"
    );
    let tried = lab.origin("closes").seen().len();
    assert!((1..=3).contains(&tried), "{tried}");
}

fn in_zone(origin: &Origin) -> String {
    format!("{{ address = \"{}\", zone = \"{}\" }}", origin.address, origin.name)
}

#[test]
fn the_proxys_own_zone_comes_first_and_can_be_another_one() {
    let lab = pool(origins(&["a", "b"]), "[proxy]\nzone = \"a\"", "", in_zone);
    assert_eq!(counts(&lab, 40), BTreeMap::from([("a".to_owned(), 40)]));
    let services = |zone: &str, settings: &str| {
        format!(
            "{zone}\n[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{settings}\n\
             [services.shop.versions.blue]\nendpoints = [{}, {}]\n",
            in_zone(lab.origin("a")),
            in_zone(lab.origin("b"))
        )
    };
    lab.write_config(&services("[proxy]\nzone = \"b\"", ""));
    wait_until("it stands in b", || lab.get("/").version() == "b");
    assert_eq!(counts(&lab, 40), BTreeMap::from([("b".to_owned(), 40)]));
    lab.write_config(&services("[proxy]\nzone = \"b\"", "zone_preference = false"));
    wait_until("it does not matter", || lab.get("/").version() == "a");
    assert_eq!(counts(&lab, 100).len(), 2);
}

#[test]
fn another_attempt_leaves_the_zone_when_nobody_is_left_in_it() {
    let dead = nobody();
    let zoned = |origin: &Origin| format!("{{ address = \"{dead}\", zone = \"a\" }}, {}", in_zone(origin));
    let lab = pool(origins(&["b"]), "[proxy]\nzone = \"a\"", "", zoned);
    assert_eq!(counts(&lab, 20), BTreeMap::from([("b".to_owned(), 20)]));
}

#[test]
fn weight_and_zone_are_set_through_the_api_and_the_command_line_and_survive_a_restart() {
    let mut lab = pool(origins(&["a", "b"]), "", "balance = \"round_robin\"", plain);
    let (a, b) = (lab.origin("a").address, lab.origin("b").address);
    let path = format!("/v1/services/shop/versions/blue/endpoints/{a}");
    let (status, body) = lab.call("PUT", &path, &json!({ "weight": 3, "zone": "z1" }));
    assert_eq!(status, 200, "{body}");
    let (status, body) = lab.call("PUT", &path, &json!({ "weight": 3 }));
    assert_eq!((status, &body["changed"]), (200, &json!(false)), "what is not said stays");
    let (code, out, err) = lab.cli(&["endpoints", "add", "shop/blue", &b.to_string(), "--zone", "z2"]);
    assert_eq!(code, 0, "{out}{err}");
    let shown = |lab: &Lab| lab.shop()["versions"][0]["endpoints"].clone();
    let expected = json!([
        { "address": a.to_string(), "draining": false, "weight": 3, "zone": "z1" },
        { "address": b.to_string(), "draining": false, "zone": "z2" },
    ]);
    assert_eq!(shown(&lab), expected);
    let counted = counts(&lab, 16);
    assert_eq!((count(&counted, "a"), count(&counted, "b")), (12, 4));
    let (_, out, _) = lab.cli(&["status", "shop"]);
    assert!(out.contains("(weight 3, zone z1)"), "{out}");
    let (_, out, _) = lab.cli(&["history", "shop"]);
    assert!(out.contains(&format!("{a} weight 3 zone z1")), "{out}");
    lab.kill_and_restart();
    assert_eq!(shown(&lab), expected);
    let (status, body) = lab.call("DELETE", &path, &Value::Null);
    assert_eq!(status, 200, "{body}");
    let (status, _) = lab.call("PUT", &path, &Value::Null);
    assert_eq!((status, shown(&lab)[1]["weight"].clone()), (200, Value::Null), "it came anew");
    let (code, _, err) = lab.cli(&["endpoints", "add", "shop/blue", &b.to_string(), "--zone", ""]);
    let nowhere = json!({ "address": b.to_string(), "draining": false });
    assert_eq!((code, &shown(&lab)[0]), (0, &nowhere), "{err}");
}

#[test]
fn a_bad_weight_or_zone_is_refused_with_its_place() {
    let lab = Lab::start(&["blue"]);
    let path = "/v1/services/shop/versions/blue/endpoints/127.0.0.1:9";
    for (body, field) in [
        (json!({ "weight": 0 }), "weight"),
        (json!({ "weight": 1001 }), "weight"),
        (json!({ "zone": "a/b" }), "zone"),
    ] {
        let (status, problem) = lab.call("PUT", path, &body);
        assert_eq!((status, &problem["field"]), (400, &json!(field)), "{problem}");
    }
    let edit = json!({ "version": "blue", "endpoint": "127.0.0.1:9", "weight": 0 });
    let (status, problem) =
        lab.call("POST", "/v1/changes", &json!({ "changes": [{ "service": "shop", "put_endpoint": edit }] }));
    assert_eq!((status, &problem["field"]), (400, &json!("changes[0].put_endpoint.weight")), "{problem}");
    let (status, problem) = lab.call(
        "POST",
        "/v1/changes",
        &json!({ "changes": [{ "service": "shop", "drain_endpoint": edit }] }),
    );
    assert_eq!((status, &problem["field"]), (400, &json!("changes[0].drain_endpoint.weight")), "{problem}");
    let (code, _, err) = lab.cli(&["endpoints", "add", "shop/blue", "127.0.0.1:9", "--weight", "0"]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn an_endpoint_that_joins_gets_its_share_bit_by_bit() {
    let add = |lab: &Lab, origin: &Origin| {
        let path = format!("/v1/services/shop/versions/blue/endpoints/{}", origin.address);
        let (status, body) = lab.call("PUT", &path, &Value::Null);
        assert_eq!(status, 200, "{body}");
    };
    let late = Origin::start("late");
    let lab = pool(origins(&["a"]), "", "slow_start = { duration = \"1h\", floor = \"1%\" }", plain);
    assert_eq!(counts(&lab, 10).len(), 1);
    add(&lab, &late);
    // One in 101 of 300 is 3.
    let begun = counts(&lab, 300);
    assert!(count(&begun, "late") <= 20, "{begun:?}");
    drop(lab);
    let lab = pool(origins(&["a"]), "", "", plain);
    assert_eq!(counts(&lab, 10).len(), 1);
    add(&lab, &late);
    let at_once = counts(&lab, 300);
    assert!((90..210).contains(&count(&at_once, "late")), "{at_once:?}");
}

// ---- Warm-up ----

/// `shop` on blue with green beside it, which has these endpoints too.
fn before_a_flip(settings: &str, others: &[SocketAddr]) -> Lab {
    let origins = origins(&["blue", "green"]);
    let more: String = others.iter().map(|address| format!(", \"{address}\"")).collect();
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{settings}\n\
         [services.shop.versions.blue]\nendpoints = [{}]\n[services.shop.versions.green]\nendpoints = [{}{more}]\n",
        plain(&origins[0]),
        plain(&origins[1])
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

#[test]
fn a_flip_finds_connections_open_that_nobody_had_asked_for() {
    let lab = before_a_flip("warmup = { connections = 3 }", &[]);
    let green = lab.origin("green");
    assert_eq!(green.connections(), 0);
    lab.flip("green");
    // Two workers; the last one may be accepted a moment later than it was opened.
    wait_until("all are open", || green.connections() == 6);
    for _ in 0..20 {
        assert_eq!(lab.get("/").version(), "green");
    }
    assert_eq!(green.connections(), 6, "and they are used");
    lab.flip("green");
    assert_eq!(green.connections(), 6, "nobody comes from cold");
}

#[test]
fn without_a_word_nothing_is_opened_beforehand_and_a_dry_run_opens_nothing() {
    let lab = before_a_flip("", &[]);
    lab.flip("green");
    assert_eq!(lab.origin("green").connections(), 0);
    let lab = before_a_flip("warmup = {}", &[]);
    let (status, _) = lab.call("POST", "/v1/services/shop/flip?dry_run=true", &json!({ "to": "green" }));
    assert_eq!((status, lab.origin("green").connections()), (200, 0));
}

#[test]
fn new_weights_and_a_revert_warm_up_too() {
    let lab = before_a_flip("warmup = { connections = 1 }", &[]);
    lab.weights(&json!({ "green": 100, "blue": 9900 }));
    wait_until("one a worker", || lab.origin("green").connections() == 2);
    lab.flip("green");
    let before = lab.origin("blue").connections();
    // What was open to blue was closed when it was left.
    wait_until("blue is drained", || lab.shop()["leaving"] == json!([]));
    let (status, body) = lab.call("POST", "/v1/services/shop/revert", &json!({}));
    assert_eq!(status, 200, "{body}");
    wait_until("one a worker again", || lab.origin("blue").connections() >= before + 2);
}

#[test]
fn a_flip_does_not_fail_for_an_endpoint_that_cannot_be_warmed_and_waits_no_longer_than_the_bound() {
    let (address, _socket, _queued) = never_accepts();
    let lab = before_a_flip(
        "warmup = { connections = 2, duration = \"1m\" }\ntimeouts = { connect = \"1m\" }",
        &[address, nobody()],
    );
    let since = Instant::now();
    lab.flip("green");
    let took = since.elapsed();
    assert!(took >= Duration::from_secs(1), "it waited: {took:?}");
    assert!(took < Duration::from_secs(10), "not for the connection: {took:?}");
    wait_until("the good one is warm", || lab.origin("green").connections() == 4);
    let lab = before_a_flip("warmup = { connections = 2, duration = \"50ms\" }", &[address]);
    let since = Instant::now();
    lab.flip("green");
    assert!(since.elapsed() < Duration::from_secs(1), "its own bound: {:?}", since.elapsed());
}

// ---- Panic ----

/// `shop` on two endpoints that do not answer and are found to be down.
fn all_down(settings: &str) -> Lab {
    let dead = [nobody(), nobody()];
    let checked = "health = { type = \"tcp\", interval = \"100ms\", fall = 1 }";
    let lab = Lab::pool(Vec::new(), &dead, "", &format!("{checked}\noutliers = false\n{settings}"));
    lab.wait_for_metric(&["switchback_endpoint_up", &dead[0].to_string()], 0.0);
    lab.wait_for_metric(&["switchback_endpoint_up", &dead[1].to_string()], 0.0);
    lab
}

#[test]
fn when_all_are_down_all_are_used_and_it_is_counted_or_nobody_is() {
    let panics = ["switchback_panic_requests_total", "service=\"shop\",version=\"blue\""];
    let lab = all_down("");
    assert_eq!(lab.metric(&panics), Some(0.0));
    let answer = lab.get("/");
    assert_eq!((answer.status, answer.header("switchback-reason")), (503, Some("connect_failed")));
    assert!(lab.metric(&panics).unwrap() >= 1.0);
    drop(lab);
    let lab = all_down("panic_threshold = \"0%\"");
    let answer = lab.get("/");
    assert_eq!((answer.status, answer.header("switchback-reason")), (503, Some("no_endpoint")));
    assert_eq!(lab.metric(&panics), Some(0.0));
}
