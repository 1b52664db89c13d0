//! Supervision and what becomes of answers after their heads, and before: bodies that a version breaks off, endpoints that are cold.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lab::origin::Then;
use lab::{Client, Lab, Origin, Pulse, Users, wait_until};
use serde_json::{Value, json};

/// `shop` with blue, which is well, and this green, supervised by these rules.
fn shop(green: Origin, rules: &str) -> Lab {
    pair(Origin::pulsing("blue", &Pulse::well()), green, rules)
}

/// The same with these two.
fn pair(blue: Origin, green: Origin, rules: &str) -> Lab {
    let origins = vec![blue, green];
    let [blue, green] = [&origins[0], &origins[1]].map(|origin| origin.address);
    let services = format!(
        "trusted_proxies = [\"127.0.0.1\"]\n\
         [services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = {rules}\noutliers = false\n\
         [services.shop.versions.blue]\nendpoints = [\"{blue}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{green}\"]\n"
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

fn breaks_off_every_answer() -> Origin {
    Origin::behaving("green", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")?;
        Ok(Then::Close)
    })
}

/// One more user, who may get half of an answer.
fn ask(lab: &Lab) {
    // What came of it is asked of the proxy.
    let _ = Client::connect(lab.address()).try_get("/");
}

/// Until blue has a history to be measured by.
fn with_history(lab: &Lab) {
    wait_until("blue has a history", || {
        ask(lab);
        lab.origin("blue").served() > 300
    });
}

fn verdict(lab: &Lab) -> Value {
    let (status, verdict) = lab.call("GET", "/v1/services/shop/verdict", &Value::Null);
    assert_eq!(status, 200, "{verdict}");
    verdict
}

/// Takes its time for its first answers.
fn cold() -> Origin {
    let answered = AtomicUsize::new(0);
    Origin::behaving("green", move |_, stream| {
        if answered.fetch_add(1, Ordering::SeqCst) < FIRST {
            // What it does wrong.
            thread::sleep(Duration::from_millis(300));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    })
}

/// Answers at once, and `/poll` after a second.
fn polled(version: &str) -> Origin {
    slow_at("/poll", Duration::from_secs(1), version)
}

/// Answers at once, but for this path, which takes so long.
fn slow_at(path: &'static str, takes: Duration, version: &str) -> Origin {
    Origin::behaving(version, move |seen, stream| {
        if seen.path() == path {
            thread::sleep(takes);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    })
}

/// All who poll waited in its hold, so they ask at the same moments: at the flip, and as the time ends in which speed does not count.
#[test]
fn long_polls_do_not_make_the_same_version_slow_after_an_exclusive_flip() {
    let lab = pair(polled("blue"), polled("green"), "{ warmup = { latency = \"1s\" } }");
    let users = Users::of(lab.address(), Duration::from_millis(8));
    let (address, stop) = (lab.address(), Arc::<AtomicBool>::default());
    let pollers = [0; 24].map(|_| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let mut client = Client::connect(address);
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(client.get("/poll").status, 200);
            }
        })
    });
    wait_until("blue has a history", || lab.origin("blue").served() > 1_500);
    let body = json!({ "to": "green", "exclusive": true, "supervise": "5s", "reason": "a test" });
    let (status, answer) = lab.call("POST", "/v1/services/shop/flip", &body);
    assert_eq!(status, 200, "{answer}");
    wait_until("it is over", || !verdict(&lab)["ended"].is_null());
    stop.store(true, Ordering::SeqCst);
    pollers.into_iter().for_each(|poller| poller.join().unwrap());
    drop(users);
    assert_eq!(lab.weight("green"), 10_000, "{}", verdict(&lab));
    assert_eq!(lab.metric_total("switchback_supervision_suspects_total", "green"), 0.0);
}

/// Blue took as long for `/report`, but nobody had asked it.
#[test]
fn one_client_that_asks_for_what_is_slow_anyway_makes_nobody_suspect() {
    let [blue, green] =
        ["blue", "green"].map(|version| slow_at("/report", Duration::from_millis(60), version));
    let lab = pair(blue, green, "{ warmup = { latency = \"1s\" } }");
    let _users = Users::of(lab.address(), Duration::from_millis(20));
    wait_until("blue has a history", || lab.origin("blue").served() > 300);
    lab.flip("green");
    wait_until("it is known what is slow", || {
        !verdict(&lab)["verdict"]["candidate"]["slow_from_seconds"].is_null()
    });
    let connections = [(); 3].map(|()| {
        let mut client = Client::connect(lab.address());
        thread::spawn(move || {
            for _ in 0..40 {
                client.send("GET /report HTTP/1.1\r\nhost: shop\r\nx-forwarded-for: 192.0.2.7\r\n\r\n");
                assert_eq!(client.answer().status, 200);
            }
        })
    });
    connections.into_iter().for_each(|connection| connection.join().unwrap());
    assert_eq!(lab.weight("green"), 10_000, "{}", verdict(&lab));
    assert_eq!(lab.metric_total("switchback_supervision_suspects_total", "green"), 0.0);
}

/// So many answers of an endpoint are no measure of its speed.
const FIRST: usize = 20;

#[test]
fn a_canary_that_is_cold_is_neither_suspect_nor_taken_back() {
    let lab = shop(cold(), "{ warmup = { latency = \"1s\" } }");
    with_history(&lab);
    let epoch = lab.epoch();
    lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    // At a quiet time.
    wait_until("it is known what is slow", || {
        !verdict(&lab)["verdict"]["candidate"]["slow_from_seconds"].is_null()
    });
    let burst: Vec<_> = (0..FIRST).map(|_| lab.get_later("/")).collect();
    burst.into_iter().for_each(|one| assert_eq!(one.answer().status, 200));
    wait_until("green was asked", || {
        ask(&lab);
        lab.origin("green").served() > 100
    });
    assert_eq!((lab.weight("green"), lab.epoch()), (5_000, epoch + 1));
    assert_eq!(lab.metric_total("switchback_supervision_suspects_total", "green"), 0.0);
}

#[test]
fn a_version_that_breaks_off_its_answers_goes_back() {
    let lab = shop(breaks_off_every_answer(), "true");
    with_history(&lab);
    lab.flip("green");
    wait_until("it went back", || {
        ask(&lab);
        lab.weight("blue") == 10_000
    });
    let change = lab.call("GET", "/v1/changes?limit=1", &Value::Null).1["changes"][0].clone();
    assert_eq!(
        (&change["kind"], &change["actor"]["kind"]),
        (&json!("revert"), &json!("supervisor")),
        "{change}"
    );
    assert!(change["reason"].as_str().unwrap().contains("error_rate"), "{change}");
    assert!(lab.origin("green").served() < 300, "{change}");
}

#[test]
fn what_a_version_broke_off_is_told_as_often_as_it_happened() {
    let lab = shop(breaks_off_every_answer(), "{ mode = \"alert\" }");
    with_history(&lab);
    lab.weights(&json!({ "green": 5_000, "blue": 5_000 }));
    wait_until("it is proven", || {
        ask(&lab);
        verdict(&lab)["state"] == "breached"
    });
    let cut = r#"switchback_upstream_requests_total{service="shop",version="green",code="502",reason="body_truncated"}"#;
    let outcome = |outcome: &str| {
        let of_green = format!(r#"version="green",outcome="{outcome}""#);
        lab.metric(&["switchback_supervision_requests_total{", &of_green]).unwrap()
    };
    let told = || [outcome("failed"), lab.metric(&[cut]).unwrap_or_default()];
    wait_until("all is told", || told()[0] == told()[1]);
    assert!(told()[0] >= 3.0, "{:?}", told());
    assert!(outcome("ok") <= 1.0, "at most the last one, half of which had come at a look");
}
