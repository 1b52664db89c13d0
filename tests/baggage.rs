//! Releases over several services: a trusted hop's pin is followed where others get too, everybody else's is taken out, and
//! services behind are told which version a request was assigned to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method};
use lab::http2::{request, run};
use lab::origin::{Seen, Then};
use lab::{Answer, Client, Gate, Http2, Lab, Origin, Pulse, wait_until};
use serde_json::{Value, json};

/// Every client of the lab's listener is a trusted hop.
const TRUSTED: &str = "trusted_proxies = [\"127.0.0.1\"]";
const GREEN: &str = "baggage: switchback-release=green";
const HALVES: &str = "weights = { blue = 50, green = 50 }";

fn file(origins: &[Origin], extra: &str, settings: &str) -> String {
    let mut text =
        format!("{extra}\n[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{settings}\n");
    for origin in origins {
        let (name, address) = (&origin.name, origin.address);
        writeln!(text, "[services.shop.versions.{name}]\nendpoints = [\"{address}\"]").unwrap();
    }
    text
}

fn shop_on(origins: Vec<Origin>, extra: &str, settings: &str) -> Lab {
    let text = file(&origins, extra, settings);
    Lab::configured(tempfile::tempdir().unwrap(), origins, &text)
}

fn shop(extra: &str, settings: &str) -> Lab {
    shop_on(["blue", "green"].map(Origin::start).into(), extra, settings)
}

fn head(fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("GET / HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n")
}

/// One request with these fields.
fn ask(lab: &Lab, fields: &[&str]) -> Answer {
    lab.client().send(head(fields)).answer()
}

/// The one version that requests with these fields get: so many that by a coin they would get both.
fn version(lab: &Lab, fields: &[&str]) -> String {
    let mut client = lab.client();
    let mut versions: Vec<_> =
        (0..30).map(|_| client.send(head(fields)).answer().version().to_owned()).collect();
    versions.dedup();
    versions.join(" and ")
}

/// What came of this field.
fn values<'s>(seen: &'s Seen, name: &str) -> Vec<&'s str> {
    seen.headers.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str()).collect()
}

/// Over HTTP/2.
fn ask_http2(lab: &Lab, fields: &[&str]) -> Answer {
    run(async {
        let mut asked = request(Method::GET, "/");
        for field in fields {
            let (name, value) = field.split_once(": ").unwrap();
            let name = HeaderName::from_bytes(name.to_lowercase().as_bytes()).unwrap();
            asked.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        Http2::to(lab.address()).await.ask(asked).await
    })
}

fn explain(lab: &Lab, fields: &[&str], client: Option<&str>) -> Value {
    let lines: Vec<_> = fields.iter().map(|field| field.split_once(": ").unwrap().1).collect();
    let headers = if lines.is_empty() { json!({}) } else { json!({ "Baggage": lines }) };
    let asked = json!({ "uri": "http://shop.test/", "headers": headers, "client": client });
    let (status, told) = lab.call("POST", "/v1/explain", &asked);
    assert_eq!(status, 200, "{told}");
    told
}

fn post(lab: &Lab, verb: &str, body: &Value) -> Value {
    let (status, answer) = lab.call("POST", &format!("/v1/services/shop/{verb}"), body);
    assert_eq!(status, 200, "{answer}");
    answer
}

#[test]
fn a_trusted_hops_pin_is_followed_and_goes_on() {
    let lab = shop(TRUSTED, HALVES);
    assert!(version(&lab, &[]).contains(" and "), "a coin");
    for (fields, expected, goes_on) in [
        (&[GREEN][..], "green", &["switchback-release=green"][..]),
        (&["baggage: switchback-release=blue"], "blue", &["switchback-release=blue"]),
        (
            &["Baggage: a=1,  switchback-release = green ;p=1"],
            "green",
            &["a=1,  switchback-release = green ;p=1"],
        ),
        (
            &["baggage: a=1", "BAGGAGE: b=2,switchback-release=gr%65en"],
            "green",
            &["a=1", "b=2,switchback-release=gr%65en"],
        ),
        (&["baggage: switchback-release=v42/blue/green"], "blue", &["switchback-release=v42/blue/green"]),
        (&["baggage: switchback-release=blue/shop:green"], "green", &["switchback-release=blue/shop:green"]),
        (
            &["baggage: switchback-release=cart%3Agreen%2Fblue"],
            "blue",
            &["switchback-release=cart%3Agreen%2Fblue"],
        ),
        // One alone goes on: the one that counted.
        (&[GREEN, "baggage: a=1,switchback-release=blue"], "green", &["switchback-release=green", "a=1"]),
        (
            &["baggage: switchback-release=?, Switchback-Release=blue,switchback-release=green"],
            "green",
            &["switchback-release=green"],
        ),
    ] {
        let before = lab.origin(expected).seen().len();
        assert_eq!(version(&lab, fields), expected, "{fields:?}");
        assert_eq!(ask_http2(&lab, fields).version(), expected, "{fields:?}");
        for seen in &lab.origin(expected).seen()[before..] {
            assert_eq!(values(seen, "baggage"), goes_on, "{fields:?}");
        }
    }
    // What pins nothing, or nothing here, leaves it to the coin.
    for fields in [
        &["baggage: switchback-release=v42"][..],
        &["baggage: switchback-release=cart:green"],
        &["baggage: switchback-release=shop:v42/green"],
        &["baggage: switchback-release="],
        &["baggage: switchback-release=green/"],
        &["baggage: Switchback-Release=green"],
        &["baggage: other=switchback-release"],
    ] {
        assert!(version(&lab, fields).contains(" and "), "{fields:?}");
    }
}

#[test]
fn a_strangers_pin_is_taken_out_over_http1_and_http2_and_nothing_else_is() {
    // Whoever is believed would go to green.
    let rules = "rules = [{ headers = { x-never = \"1\" }, to = \"green\" }]";
    for extra in ["", "trusted_proxies = [\"10.0.0.0/8\"]"] {
        let lab = shop(extra, rules);
        for (fields, goes_on) in [
            (&[GREEN][..], &[][..]),
            (&["baggage: a=1 , switchback-release=green , b=2;p"], &["a=1 , b=2;p"]),
            (&["baggage: a=1", GREEN, "Baggage: SWITCHBACK-RELEASE=green,c=3"], &["a=1", "c=3"]),
            (&["baggage: switchback%2Drelease=green, a=1"], &["a=1"]),
            (&["baggage: switchback-release;p=green,,a=1"], &[",a=1"]),
            (&["baggage: \"switchback-release\"=green"], &[]),
            (&["baggage: x=\",switchback-release=green,\""], &["x=\",\""]),
            (
                &["baggage: a=1 ,b=switchback-release, x-switchback-release=green;q"],
                &["a=1 ,b=switchback-release, x-switchback-release=green;q"],
            ),
            (&["baggage: "], &[""]),
            (&["baggage: %;=,=,%zz=%"], &["%;=,=,%zz=%"]),
            // Else it would pass beside what is looked at.
            (&[GREEN, "connection: baggage"], &[]),
            (&["BAGGAGE:switchback-release=green"], &[]),
        ] {
            let before = lab.origin("blue").seen().len();
            assert_eq!(ask(&lab, fields).version(), "blue", "{fields:?}");
            let is_http1 =
                fields.iter().any(|field| field.starts_with("connection") || !field.contains(": "));
            if !is_http1 {
                assert_eq!(ask_http2(&lab, fields).version(), "blue", "{fields:?}");
            }
            let seen = lab.origin("blue").seen().split_off(before);
            assert_eq!(seen.len(), 2 - usize::from(is_http1));
            for seen in &seen {
                assert_eq!(values(seen, "baggage"), goes_on, "{fields:?}");
            }
        }
        assert_eq!(lab.origin("green").served(), 0);
    }
}

#[test]
fn routes_and_rules_see_nothing_of_a_strangers_pin() {
    let settings = "rules = [{ headers = { baggage = { starts = \"switchback\" } }, to = \"green\" }]";
    let lab = shop("", settings);
    assert_eq!(ask(&lab, &[GREEN]).version(), "blue");
    assert_eq!(explain(&lab, &[GREEN], None)["version"], "blue");
    drop(lab);
    let lab = shop(TRUSTED, settings);
    assert_eq!(ask(&lab, &[GREEN]).version(), "green");
    let told = explain(&lab, &[GREEN], Some("127.0.0.1"));
    assert_eq!((&told["reason"], &told["pinned"]["fate"]), (&json!("rule"), &json!("rule")), "{told}");
}

#[test]
fn a_pin_behind_a_body_does_not_pass() {
    let lab = shop(TRUSTED, "");
    let body = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nbaggage: switchback-release=green\r\nx-sum: 1\r\n\r\n";
    assert_eq!(lab.client().send(body).answer().status, 200);
    assert_eq!(lab.origin("blue").only().trailers, [("x-sum".to_owned(), "1".to_owned())]);
}

#[test]
fn who_is_believed_is_whom_a_proxy_header_names_and_what_the_file_says_by_now() {
    let door = "[[listeners]]\nlisten = \"127.0.0.2:0\"\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]";
    let rules = "rules = [{ headers = { x-never = \"1\" }, to = \"green\" }]";
    let lab = shop(door, rules);
    let bound = lab.bound("127.0.0.2:0");
    for (peer, expected) in [("192.0.2.7", "blue"), ("10.0.0.9", "green"), ("127.0.0.1", "green")] {
        let mut client = Client::connect(bound);
        client.send(format!("PROXY TCP4 {peer} 127.0.0.2 4711 80\r\n"));
        assert_eq!(client.send(head(&[GREEN])).answer().version(), expected, "{peer}");
    }
    // What somebody says of himself makes nobody trusted, nor does it make a trusted one a stranger.
    assert_eq!(ask(&lab, &[GREEN, "x-forwarded-for: 10.0.0.9"]).version(), "blue");
    let mut client = lab.client();
    assert_eq!(client.send(head(&[GREEN])).answer().version(), "blue");
    let trusted = |extra: &str| lab.write_config(&file(&lab.origins, &format!("{extra}\n{door}"), rules));
    trusted("trusted_proxies = [\"127.0.0.0/8\"]");
    wait_until("it is believed on a connection that stands", || {
        client.send(head(&[GREEN])).answer().version() == "green"
    });
    assert_eq!(ask(&lab, &[GREEN, "x-forwarded-for: 192.0.2.7"]).version(), "green");
    trusted("");
    wait_until("it is no more", || client.send(head(&[GREEN])).answer().version() == "blue");
}

#[test]
fn a_pin_leads_to_nobody_who_was_left_and_holds_up_no_drain() {
    let gate = Gate::default();
    let lab = shop_on(vec![Origin::start("blue"), Origin::held("green", &gate)], TRUSTED, "");
    assert_eq!(version(&lab, &[GREEN]), "blue", "green has nothing");
    assert_eq!(explain(&lab, &[GREEN], Some("127.0.0.1"))["pinned"]["fate"], "idle");
    let (code, said, _) = lab.cli(&["explain", "http://shop.test/", "-H", GREEN, "--client", "127.0.0.1"]);
    assert_eq!(
        (code, said.contains("pinned to green, which gets nothing: passed over")),
        (0, true),
        "{said}"
    );
    post(&lab, "ramp", &json!({ "to": "green", "steps": [1, 100] }));
    let waits = lab.ask_later(&head(&[GREEN]).replace("GET / ", "GET /late "));
    wait_until("green has it", || lab.shop()["versions"][1]["in_flight"]["total"] == 1);
    post(&lab, "abort", &Value::Null);
    assert_eq!(version(&lab, &[GREEN]), "blue", "everybody is sent back");
    let drain =
        || lab.call("GET", "/v1/services/shop/versions/green/drain", &Value::Null).1["drained"].clone();
    assert_eq!(drain(), false);
    gate.open();
    assert_eq!(waits.answer().version(), "green");
    wait_until("it is empty", || drain() == true);
    assert_eq!(version(&lab, &[GREEN]), "blue");
    assert_eq!(drain(), true, "nobody comes by a pin");

    lab.flip("green");
    let blue = "baggage: switchback-release=blue";
    assert_eq!([version(&lab, &[blue]), version(&lab, &[GREEN])], ["green", "green"]);
    post(&lab, "revert", &Value::Null);
    assert_eq!([version(&lab, &[blue]), version(&lab, &[GREEN])], ["blue", "blue"]);
    post(&lab, "flip", &json!({ "to": "green", "exclusive": true }));
    assert_eq!(version(&lab, &[blue]), "green");
    // Where a rule leads somebody, so does a pin.
    let rule = json!([{ "headers": { "x-never": "1" }, "to": "blue" }]);
    assert_eq!(lab.call("PUT", "/v1/services/shop/rules", &rule).0, 200);
    assert_eq!([version(&lab, &[blue]), version(&lab, &[GREEN])], ["blue", "green"]);
    assert_eq!(lab.call("PUT", "/v1/services/shop/rules", &json!([])).0, 200);
    assert_eq!(version(&lab, &[blue]), "green");
}

#[test]
fn who_is_pinned_and_held_goes_by_what_there_is_when_he_goes_on() {
    let lab = shop(TRUSTED, HALVES);
    lab.hold(&json!({}));
    let waits = lab.ask_later(&head(&[GREEN]));
    lab.wait_held(1);
    lab.flip("blue");
    lab.release();
    assert_eq!(waits.answer().version(), "blue");
    lab.weights(&json!({ "green": 1, "blue": 9_999 }));
    lab.hold(&json!({}));
    let waits = lab.ask_later(&head(&[GREEN]));
    lab.wait_held(1);
    lab.release();
    assert_eq!(waits.answer().version(), "green");
}

#[test]
fn rules_come_before_it_and_keys_behind_it_and_explain_and_the_access_log_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let extra = format!("{TRUSTED}\n[access_log]\ntarget = \"file\"\npath = \"{}\"", log.display());
    let settings = format!(
        "{HALVES}\nsticky = {{ cookie = \"sb_id\", mint = true }}\nrules = [{{ headers = {{ x-beta = \"1\" }}, to = \"blue\" }}]"
    );
    let origins: Vec<_> = ["blue", "green"].map(Origin::start).into();
    let text = file(&origins, &extra, &settings);
    let lab = Lab::configured(dir, origins, &text);
    assert_eq!(ask(&lab, &[GREEN, "x-beta: 1"]).version(), "blue");
    let pinned = ask(&lab, &[GREEN]);
    assert_eq!(
        (pinned.version(), pinned.header("set-cookie")),
        ("green", None),
        "he has no coin to be known by"
    );
    // A user of blue.
    let mut users = (0..).map(|number| format!("cookie: sb_id=u{number}"));
    let user = users.find(|user| ask(&lab, &[user.as_str()]).version() == "blue").unwrap();
    let asked = lab.origin("blue").served() + lab.origin("green").served();
    assert_eq!([ask(&lab, &[&user, GREEN]).version(), ask(&lab, &[&user]).version()], ["green", "blue"]);
    assert!(ask(&lab, &["baggage: switchback-release=v42"]).header("set-cookie").is_some(), "and he has");

    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    wait_until("all are written", || lines().len() as u64 == asked + 3);
    let count = |by: &str| lines().iter().filter(|line| line["assigned"] == by).count() as u64;
    assert_eq!([count("rule"), count("pinned"), count("minted")], [1, 2, 1]);
    assert_eq!(count("sticky"), asked + 3 - 4);

    let told = explain(&lab, &[GREEN], Some("127.0.0.1"));
    let expected = json!({ "release": "green", "version": "green", "fate": "followed" });
    assert_eq!(
        (&told["reason"], &told["version"], &told["pinned"]),
        (&json!("pinned"), &json!("green"), &expected)
    );
    assert_eq!(told["chances"], json!([{ "version": "green", "weight": 5_000, "probability": 1.0 }]));
    let told = explain(&lab, &["baggage: a=1", "baggage: switchback-release=v42/cart:v7"], Some("127.0.0.1"));
    let expected = json!({ "release": "v42/cart:v7", "fate": "no_version" });
    assert_eq!((&told["reason"], &told["pinned"]), (&json!("minted"), &expected), "{told}");
    for client in [None, Some("192.0.2.7")] {
        let told = explain(&lab, &[GREEN], client);
        assert_eq!(
            (&told["reason"], &told["pinned"]["fate"]),
            (&json!("minted"), &json!("untrusted")),
            "{told}"
        );
    }
    assert!(explain(&lab, &["baggage: a=1"], None)["pinned"].is_null());
    let said = lab.cli(&["explain", "http://shop.test/", "-H", GREEN, "--client", "127.0.0.1"]).1;
    assert!(said.contains("to green: a trusted hop has pinned green (epoch 1)"), "{said}");
    let said = lab.cli(&["explain", "http://shop.test/", "-H", GREEN]).1;
    assert!(
        said.contains("pinned to green by nobody who is trusted: that is taken out; `--client IP`"),
        "{said}"
    );

    // Where one version has all, nothing is left to decide; and nobody is given a cookie for it.
    lab.flip("green");
    let single = ask(&lab, &[GREEN]);
    assert_eq!((single.version(), single.header("set-cookie")), ("green", None));
    wait_until("it is written", || lines().len() as u64 == asked + 4);
    assert_eq!([count("pinned"), count("single")], [2, 1]);
    let told = explain(&lab, &[GREEN], Some("127.0.0.1"));
    assert_eq!((&told["reason"], &told["pinned"]["fate"]), (&json!("single"), &json!("followed")), "{told}");
}

#[test]
fn who_is_pinned_is_not_compared_unless_it_decides_nothing() {
    let green = Origin::behaving("green", |seen, stream| {
        let status = if seen.header("baggage").is_some() { 500 } else { 200 };
        write!(stream, "HTTP/1.1 {status} X\r\nx-version: green\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let settings = "supervise = { mode = \"on\" }\noutliers = false";
    let lab = shop_on(vec![Origin::start("blue"), green], TRUSTED, settings);
    let mut client = lab.client();
    let mut ask = |fields: &[&str]| {
        let answer = client.send(head(fields)).answer();
        (answer.status, answer.version().to_owned())
    };
    lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    for _ in 0..300 {
        assert_eq!(ask(&[GREEN]), (500, "green".to_owned()));
        assert_eq!(ask(&["baggage: switchback-release=blue"]), (200, "blue".to_owned()));
    }
    let greens = (0..100).filter(|_| ask(&[]).1 == "green").count() as u64;
    let verdict = || lab.call("GET", "/v1/services/shop/verdict", &Value::Null).1;
    let counted = |side: &str| verdict()["verdict"][side]["requests"].as_u64();
    wait_until("all others are counted", || {
        counted("candidate") == Some(greens) && counted("baseline") == Some(100 - greens)
    });
    let figures = verdict();
    assert_eq!(
        (&figures["verdict"]["candidate"]["failed"], &figures["state"]),
        (&json!(0), &json!("collecting"))
    );
    // Everybody goes to green now, pinned or not: what they meet there is proof, and they are sent back.
    lab.flip("green");
    wait_until("it goes back", || {
        // Over a connection each: as suspicion one client counts twice a second.
        (0..20).for_each(|_| drop(self::ask(&lab, &[GREEN])));
        lab.shop()["weights"] == json!({ "blue": 10_000 })
    });
    assert_eq!(ask(&[GREEN]), (200, "blue".to_owned()));
}

#[test]
fn a_pin_to_who_is_suspect_is_passed_over_also_after_a_kill() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let origins = vec![Origin::pulsing("blue", &blue), Origin::pulsing("green", &green)];
    let settings = "supervise = { suspect_hold = \"10m\" }\noutliers = false";
    let mut lab = shop_on(origins, TRUSTED, settings);
    (0..300).for_each(|_| drop(lab.get("/")));
    lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    assert_eq!(version(&lab, &[GREEN]), "green");
    // A fault that both have: suspicion, and no proof.
    blue.set(503);
    green.set(503);
    wait_until("green is suspect", || {
        (0..20).for_each(|_| drop(lab.get("/")));
        lab.shop()["weights"] == json!({ "blue": 9_000, "green": 1_000 })
    });
    let is_passed_over = |lab: &Lab| {
        let told = explain(lab, &[GREEN], Some("127.0.0.1"));
        assert_eq!(
            (&told["pinned"]["fate"], &told["reason"]),
            (&json!("suspected"), &json!("coin")),
            "{told}"
        );
        assert_ne!(version(lab, &[GREEN]), "green", "one of ten, by the coin");
        assert_eq!(version(lab, &["baggage: switchback-release=blue"]), "blue");
    };
    is_passed_over(&lab);
    lab.kill_and_restart();
    is_passed_over(&lab);
    let alert = "supervise = { mode = \"alert\" }\noutliers = false";
    lab.write_config(&file(&lab.origins, TRUSTED, alert));
    wait_until("who only tells keeps nobody away", || {
        explain(&lab, &[GREEN], Some("127.0.0.1"))["pinned"]["fate"] == "followed"
    });
    assert_eq!(version(&lab, &[GREEN]), "green");
}

#[test]
fn nobody_comes_by_a_pin_to_who_is_retired() {
    let lab = shop(TRUSTED, "sticky = { cookie = \"sb_id\", mint = true }");
    lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    assert_eq!(version(&lab, &[GREEN]), "green");
    post(&lab, "retire", &json!({}));
    assert_eq!(version(&lab, &[GREEN]), "blue");
    assert_eq!(explain(&lab, &[GREEN], Some("127.0.0.1"))["pinned"]["fate"], "retiring");
    post(&lab, "abort", &Value::Null);
    assert_eq!(version(&lab, &[GREEN]), "blue");
}

#[test]
fn services_behind_are_told_by_who_asks_for_that() {
    let lab = shop(TRUSTED, &format!("{HALVES}\npin_release = true"));
    let told = |fields: &[&str]| {
        let answer = ask(&lab, fields);
        let seen = lab.origin(answer.version()).seen().pop().unwrap();
        let told: Vec<_> = values(&seen, "baggage").into_iter().map(str::to_owned).collect();
        told.join("|").replace(answer.version(), "VERSION")
    };
    let own = "switchback-release=VERSION";
    for (fields, expected) in [
        (&[][..], own.to_owned()),
        (&["baggage: a=1 , b=2;p", "baggage: c=3"], format!("{own},a=1,b=2;p,c=3")),
        // The client's, and ours is not for it to take away.
        (&["baggage: a=1", "connection: baggage"], own.to_owned()),
        // It could not be read: nobody has pinned anything.
        (&["baggage: switchback-release=?,a=1"], format!("{own},a=1")),
        (
            &["baggage: switchback-release=v42,a=1", "baggage: b=2"],
            "switchback-release=v42,a=1|b=2".to_owned(),
        ),
    ] {
        assert_eq!(told(fields), expected, "{fields:?}");
    }
    assert_eq!(version(&lab, &["baggage: switchback-release=blue"]), "blue");
    let many: Vec<_> = (0..80).map(|number| format!("k{number}=1")).collect();
    let many = told(&[&format!("baggage: {}", many.join(","))]);
    assert_eq!(
        (many.split(',').count(), many.starts_with(own), many.ends_with(",k62=1")),
        (64, true, true),
        "{many}"
    );
    let long = format!("baggage: {},{}", "x".repeat(4_000), "y".repeat(5_000));
    assert_eq!(told(&[&long]), format!("{own},{}", "x".repeat(4_000)));
    assert_eq!(ask_http2(&lab, &["baggage: a=1"]).status, 200);
    let all = |name: &str| lab.origin(name).seen();
    let is_told =
        |seen: &Seen| seen.header("baggage").is_some_and(|line| line.contains("switchback-release="));
    assert!(all("blue").iter().chain(&all("green")).all(is_told));
}

#[test]
fn absurd_baggage_costs_little_and_fails_nobody() {
    for extra in ["", TRUSTED] {
        let lab = shop(extra, &format!("{HALVES}\npin_release = true"));
        let since = Instant::now();
        let mut client = lab.client();
        for piece in
            ["%25", "%", ",", ";", "=", "switchback-release=,", "%73witchback-release=v/", "\t", "\"", "a=b,"]
        {
            let field = format!("baggage: {}", piece.repeat(30_000 / piece.len()));
            assert_eq!(client.send(head(&[&field])).answer().status, 200, "{piece:?}");
            let lines = vec![format!("baggage: {}", piece.repeat(200 / piece.len())); 90];
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            assert_eq!(client.send(head(&lines)).answer().status, 200, "{piece:?}");
        }
        // Unoptimised, on a busy machine: what is not linear takes minutes.
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
        // A control byte is no part of a value, there or anywhere.
        assert_eq!(ask(&lab, &["baggage: switchback-release=\u{1}green"]).status, 400);
    }
}

/// One that asks the service `cart` in turn, with the baggage that it got, and says what came of both.
fn asking_cart(name: &'static str, cart: &Arc<OnceLock<SocketAddr>>) -> Origin {
    let cart = Arc::clone(cart);
    Origin::behaving(name, move |seen, stream| {
        let baggage = values(seen, "baggage").into_iter().map(|line| format!("baggage: {line}\r\n"));
        let asked = format!("GET / HTTP/1.1\r\nhost: cart.test\r\n{}\r\n", baggage.collect::<String>());
        let answer = Client::connect(*cart.get().unwrap()).send(asked).answer();
        let met = format!("{name} {}", answer.version());
        write!(stream, "HTTP/1.1 200 OK\r\nx-version: {name}\r\ncontent-length: {}\r\n\r\n{met}", met.len())?;
        Ok(Then::Keep)
    })
}

/// The example of docs/assignment.md: two services, one behind the other.
#[test]
fn who_meets_a_release_in_front_meets_it_behind() {
    let page = include_str!("../docs/assignment.md");
    let section = page.split("## A release over several services\n").nth(1).unwrap();
    let example = section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let cart = Arc::new(OnceLock::new());
    let origins = vec![
        asking_cart("v41", &cart),
        asking_cart("v42", &cart),
        Origin::start("v41"),
        Origin::start("v42"),
    ];
    // The lab's listener is the one for clients; its own file has the rest.
    let (_, rest) = example.split_once("\n\n").unwrap();
    let ports = ["127.0.0.1:9001", "127.0.0.1:9101", "127.0.0.1:9002", "127.0.0.1:9102"];
    let text = ports.iter().zip(&origins).fold(rest.to_owned(), |text, (port, origin)| {
        assert!(text.contains(port), "{port}");
        text.replace(port, &origin.address.to_string())
    });
    let text = text.replace("127.0.0.1:8081", "127.0.0.2:0");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &text);
    cart.set(lab.bound("127.0.0.2:0")).unwrap();
    let mut client = lab.client();
    let mut met = |fields: &str| {
        let asked = format!("GET / HTTP/1.1\r\nhost: web.test\r\n{fields}\r\n");
        client.send(asked).answer().text()
    };
    let all: Vec<_> = (0..200).map(|_| met("")).collect();
    let new = all.iter().filter(|met| *met == "v42 v42").count();
    assert_eq!(all.iter().filter(|met| *met == "v41 v41").count(), 200 - new, "{all:?}");
    assert!((20..80).contains(&new), "a quarter of them, by the coin in front: {new}");
    // No client chooses.
    let own = (0..40).map(|_| met("baggage: switchback-release=v42\r\n"));
    assert!(own.filter(|met| met == "v42 v42").count() < 40);

    // Both in one change; nobody meets two versions of a contract from then on.
    let both = json!({ "changes": [
        { "service": "web", "flip": { "to": "v42" } }, { "service": "cart", "flip": { "to": "v42" } },
    ] });
    assert_eq!(lab.call("POST", "/v1/changes", &both).0, 200);
    assert!((0..20).all(|_| met("") == "v42 v42"));
    // What is wrong with cart's v42 is so for those who are pinned to it too.
    let (status, answer) = lab.call("POST", "/v1/services/cart/flip", &json!({ "to": "v41" }));
    assert_eq!(status, 200, "{answer}");
    assert!((0..20).all(|_| met("") == "v42 v41"));
}
