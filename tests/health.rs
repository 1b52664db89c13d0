//! Health checks: endpoints are asked as the file says, what they answer is shown, and decides who gets requests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use lab::health::first_check;
use lab::origin::{Then, nobody};
use lab::{Lab, Origin, Pulse};
use serde_json::{Value, json};

/// Checks that come often.
const OFTEN: &str = "health = { path = \"/healthz\", interval = \"100ms\", rise = 2, fall = 2 }";

fn pool_of(pulses: &[&Pulse]) -> Lab {
    let origins = pulses.iter().map(|pulse| Origin::with_pulse("blue", pulse)).collect();
    Lab::pool(origins, &[], "", OFTEN)
}

#[test]
fn an_endpoint_is_down_while_it_says_so_and_tells_why() {
    let (well, unwell) = (Pulse::well(), Pulse::well());
    let lab = pool_of(&[&well, &unwell]);
    let mut events = lab.events();
    let address = lab.origins[1].address.to_string();
    lab.wait_health(&address, "up");
    unwell.set(503);
    let event = events.wait_for(|event| event["type"] == "health" && event["state"] == "down");
    assert_eq!((&event["endpoint"], &event["before"]), (&json!(address), &json!("up")));
    assert_eq!(event["said"], "status 503");
    let health = lab.wait_health(&address, "down");
    assert_eq!(health["last"]["said"], "status 503");
    let up = |address: &str| lab.metric(&["switchback_endpoint_up{", address]);
    assert_eq!(up(&address), Some(0.0));
    assert_eq!(up(&lab.origins[0].address.to_string()), Some(1.0));
    let (_, status, _) = lab.cli(&["status"]);
    let told = status.lines().find(|line| line.contains(&format!("down: {address} of blue for "))).unwrap();
    assert!(told.ends_with(" s: status 503"), "{status}");
    unwell.set(200);
    let event = events.wait_for(|event| event["type"] == "health" && event["state"] == "up");
    assert_eq!(event["endpoint"], address.as_str());
    let health = lab.wait_health(&address, "up");
    assert_eq!(health["last"]["said"], "status 200");
    assert_eq!(health["last_failure"]["said"], "status 503", "the reason is always shown");
    assert!(lab.metric(&["switchback_health_checks_total{", "result=\"unwell\""]) >= Some(2.0));
    assert!(lab.metric(&["switchback_health_check_duration_seconds_count{"]) >= Some(4.0));
}

#[test]
fn one_bad_answer_is_not_enough() {
    let count = std::sync::atomic::AtomicU64::new(0);
    let flaky = Origin::behaving("blue", move |_, stream| {
        let turn = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let status = if turn.is_multiple_of(2) { 200 } else { 500 };
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Close)
    });
    let lab = Lab::pool(vec![flaky], &[], "", OFTEN);
    let mut events = lab.events();
    let address = lab.origins[0].address;
    lab.wait_health(address, "up");
    lab::wait_until("many checks", || lab.origins[0].served() > 8);
    assert_eq!(lab.endpoint(address)["health"]["state"], "up");
    lab.flip("blue");
    let next = lab.call("POST", "/v1/services/shop/hold", &Value::Null);
    assert_eq!(next.0, 200);
    let told = events.change();
    assert_eq!(told["kind"], "hold");
    let turned = events.past.iter().filter(|event| event["type"] == "health" && event["before"] == "up");
    assert_eq!(turned.count(), 0, "{:#?}", events.past);
    lab.release();
}

/// What is said about the only endpoint, at `address`, checked by `health`.
fn said_of(origin: Option<Origin>, health: &str, version: &str) -> Value {
    let address = origin.as_ref().map_or_else(nobody, |origin| origin.address);
    first_check(address, health, version, &[])
}

#[test]
fn a_check_that_fails_says_how() {
    let often = "interval = \"150ms\", timeout = \"150ms\"";
    let refused = said_of(None, &format!("{{ {often} }}"), "");
    assert!(refused["said"].as_str().unwrap().starts_with("cannot connect: "), "{refused}");
    let refused = said_of(None, &format!("{{ type = \"tcp\", {often} }}"), "");
    assert!(refused["said"].as_str().unwrap().starts_with("cannot connect: "), "{refused}");
    let silent = Origin::scripted("silent", |peer| {
        peer.head()?;
        peer.rest();
        Ok(())
    });
    assert_eq!(said_of(Some(silent), &format!("{{ {often} }}"), "")["said"], "no answer within 150 ms");
    let rude = Origin::scripted("rude", |peer| peer.head().map(drop));
    let said = said_of(Some(rude), &format!("{{ {often} }}"), "");
    assert!(said["said"].as_str().unwrap().starts_with("it broke off: "), "{said}");
    let plain = Origin::start("plain");
    let said = said_of(Some(plain), &format!("{{ {often} }}"), "protocol = \"https\"");
    assert!(said["said"].as_str().unwrap().starts_with("the TLS handshake failed: "), "{said}");
}

#[test]
fn an_endpoint_that_sends_interim_answers_without_end_is_not_well_at_once() {
    let origin = Origin::never_comes_to_the_point("blue");
    let said = said_of(Some(origin), "{ interval = \"10s\", timeout = \"10s\" }", "");
    let why = said["said"].as_str().unwrap();
    assert!(
        why.starts_with("it broke off: ") && why.ends_with(": the answer does not end within 128 KiB"),
        "{why}"
    );
}

#[test]
fn a_check_asks_what_it_is_told_to_and_looks_at_all_of_the_answer() {
    let origin = Origin::start("blue");
    let health = "{ path = \"/ready?deep=1\", host = \"shop.internal\", method = \"POST\", status = [\"200-204\"], \
                  headers = { x-probe = \"yes\" }, body = \"POST /ready\", interval = \"100ms\", \
                  reuse = false }";
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nhealth = {health}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n",
        origin.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &services);
    lab.wait_health(lab.origins[0].address, "up");
    let seen = lab.origins[0].seen().remove(0);
    assert_eq!(seen.line, "POST /ready?deep=1 HTTP/1.1");
    assert_eq!(seen.header("host"), Some("shop.internal"));
    assert_eq!(seen.header("x-probe"), Some("yes"));
    assert_eq!(seen.header("connection"), Some("close"));
    assert!(seen.header("user-agent").unwrap().starts_with("switchback/"), "{seen:?}");
    let missing = said_of(Some(Origin::start("blue")), "{ body = \"all is well\" }", "");
    assert_eq!(missing["said"], "status 200, but the body does not contain `all is well`");
    let other = said_of(Some(Origin::start("blue")), "{ status = [301, \"400-499\"] }", "");
    assert_eq!((&other["said"], &other["well"]), (&json!("status 200"), &json!(false)));
}

#[test]
fn a_check_by_connection_needs_nothing_but_that() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    let lab = Lab::pool(Vec::new(), &[address], "", "health = { type = \"tcp\", interval = \"100ms\" }");
    assert_eq!(lab.wait_health(address, "up")["last"]["said"], "connected");
}

#[test]
fn a_connection_serves_several_checks_and_not_for_ever() {
    let lab = Lab::pool(vec![Origin::with_pulse("blue", &Pulse::well())], &[], "", OFTEN);
    let origin = &lab.origins[0];
    lab::wait_until("many checks", || origin.served() >= 25);
    assert_eq!(origin.connections(), 3);
    // One that was closed meanwhile says nothing: it was not asked.
    let mut events = lab.events();
    origin.cut();
    let served = origin.served();
    lab::wait_until("more checks", || origin.served() >= served + 3);
    assert_eq!(lab.metric(&["switchback_health_checks_total{", "unwell"]), Some(0.0));
    lab.hold(&Value::Null);
    events.change();
    assert!(events.past.iter().all(|event| event["type"] != "health"), "{:#?}", events.past);
    lab.release();
}

#[test]
fn a_check_may_have_a_port_of_its_own() {
    let (beside, address) = (Origin::with_pulse("beside", &Pulse::well()), nobody());
    let port = beside.address.port();
    let health = format!("health = {{ path = \"/healthz\", port = {port}, interval = \"100ms\" }}");
    let lab = Lab::pool(Vec::new(), &[address], "", &health);
    lab.wait_health(address, "up");
}

#[test]
fn an_endpoint_that_comes_arrives_and_one_that_was_there_counts_as_well() {
    let slow = Pulse::of(503);
    let lab = pool_of(&[&Pulse::well()]);
    let late = Origin::with_pulse("blue", &slow);
    let path = format!("/v1/services/shop/versions/blue/endpoints/{}", late.address);
    assert_eq!(lab.call("PUT", &path, &Value::Null).0, 200);
    let health = lab.endpoint(late.address)["health"].take();
    assert_eq!(health["state"], "arriving", "{health}");
    lab::wait_until("several checks", || late.served() > 3);
    let health = lab.wait_health(late.address, "arriving");
    assert_eq!(health["last"]["said"], "status 503");
    slow.set(200);
    lab.wait_health(late.address, "up");
    assert_eq!(lab.call("DELETE", &path, &Value::Null).0, 200);
    let served = late.served();
    slow.set(503);
    assert_eq!(lab.call("PUT", &path, &Value::Null).0, 200);
    assert_eq!(lab.endpoint(late.address)["health"]["state"], "arriving", "it is new again");
    lab::wait_until("it is checked again", || late.served() > served);
}

#[test]
fn a_call_can_wait_until_what_it_brought_is_well() {
    let (pulse, lab) = (Pulse::of(503), pool_of(&[&Pulse::well()]));
    let late = Origin::with_pulse("green", &pulse);
    let path = "/v1/services/shop/versions/green";
    let body = json!({ "endpoints": [late.address.to_string()] });
    let (status, problem) = lab.call("PUT", &format!("{path}?wait=healthy&timeout=300ms"), &body);
    assert_eq!((status, &problem["title"]), (504, &json!("timed out")), "{problem}");
    assert_eq!(problem["change"]["changed"], true, "{problem}");
    assert_eq!(problem["unhealthy"][0]["said"], "status 503", "{problem}");
    let (status, health) = lab.call("GET", &format!("{path}/health"), &Value::Null);
    assert_eq!((status, &health["healthy"], &health["needed"]), (200, &json!(false), &json!(1)), "{health}");
    let waiting =
        lab.call_later("GET", &format!("{path}/health?wait=healthy&timeout=30s"), &[], &Value::Null);
    pulse.set(200);
    let answer = waiting.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["healthy"], true);
    let (status, _) = lab.call("PUT", &format!("{path}?wait=healthy"), &body);
    assert_eq!(status, 200);
}

#[test]
fn what_is_gone_or_drained_is_not_waited_for_as_healthy() {
    let lab = pool_of(&[&Pulse::well()]);
    let unwell = Pulse::of(503);
    for (how, path, expected) in [("DELETE", "", "unknown_endpoint"), ("POST", "/drain", "draining")] {
        let late = Origin::with_pulse("blue", &unwell);
        let endpoint = format!("/v1/services/shop/versions/blue/endpoints/{}", late.address);
        let put = format!("{endpoint}?wait=healthy&timeout=30s");
        let waiting = lab.call_later("PUT", &put, &[], &Value::Null);
        lab::wait_until("it is there", || lab.shop().to_string().contains(&late.address.to_string()));
        let (status, answer) = lab.call(how, &format!("{endpoint}{path}"), &Value::Null);
        assert_eq!(status, 200, "{answer}");
        let problem = waiting.answer().json();
        assert_eq!(problem["type"], format!("urn:switchback:problem:{expected}"), "{problem}");
        assert_eq!(problem["change"]["changed"], true, "{problem}");
    }
}

#[test]
fn checks_follow_the_file() {
    let pulse = Pulse::well();
    let lab = pool_of(&[&pulse]);
    let address = lab.origins[0].address;
    pulse.set(500);
    lab.wait_health(address, "down");
    let service = |health: &str| {
        format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}]\n{health}\n[services.shop.versions.blue]\nendpoints = [\"{address}\"]\n"
        )
    };
    // Others of the same endpoint go on from what is known.
    let mut events = lab.events();
    lab.write_config(&service("health = { path = \"/other\", interval = \"100ms\", rise = 1 }"));
    let event = events.wait_for(|event| event["type"] == "health");
    assert_eq!((&event["before"], &event["state"]), (&json!("down"), &json!("up")));
    lab.write_config(&service(""));
    lab::wait_until("nobody looks after it", || lab.endpoint(address)["health"].is_null());
    assert_eq!(lab.metric(&["switchback_endpoint_up{"]), Some(1.0));
    lab.write_config(&service(OFTEN));
    lab.wait_health(address, "down");
}

#[test]
fn when_all_are_dead_it_is_said_at_once_and_over_with_the_first_that_comes_back() {
    let dead = [nobody(), nobody()];
    let lab = Lab::pool(Vec::new(), &dead, "", OFTEN);
    dead.iter().for_each(|address| drop(lab.wait_health(address, "down")));
    let mut client = lab.client();
    client.get("/");
    let since = Instant::now();
    let answer = client.get("/");
    let took = since.elapsed();
    assert!(answer.status >= 500, "{answer:?}");
    assert!(answer.header("switchback-reason").is_some(), "{answer:?}");
    // A guard for slow machines: nothing waits for anything.
    assert!(took < Duration::from_millis(100), "{took:?}");
    let listener = TcpListener::bind(dead[1]).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut head = [0; 4096];
                while stream.read(&mut head).is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                }
            });
        }
    });
    // Where nobody is well everybody is asked, so the first one that is back serves before its checks say so.
    assert_eq!(client.get("/").status, 200);
    let since = Instant::now();
    lab.wait_health(dead[1], "up");
    assert!(since.elapsed() < Duration::from_millis(1_000), "two checks: {:?}", since.elapsed());
}

#[test]
fn a_process_finds_out_by_itself() {
    let (well, unwell) = (Pulse::well(), Pulse::of(503));
    let mut lab = pool_of(&[&well, &unwell]);
    let address = lab.origins[1].address;
    lab.wait_health(address, "down");
    unwell.set(200);
    lab.kill_and_restart();
    let health = lab.wait_health(address, "up");
    assert!(health["last_failure"].is_null(), "{health}");
}

#[test]
fn who_is_down_or_has_just_come_gets_no_requests() {
    let (unwell, late) = (Pulse::well(), Pulse::of(503));
    let lab = pool_of(&[&Pulse::well(), &unwell]);
    let (down, well) = (&lab.origins[1], &lab.origins[0]);
    lab.wait_health(well.address, "up");
    unwell.set(503);
    lab.wait_health(down.address, "down");
    let asked = |origin: &Origin| origin.seen().iter().filter(|seen| seen.path() == "/").count();
    let before = asked(down);
    let come = Origin::with_pulse("blue", &late);
    let path = format!("/v1/services/shop/versions/blue/endpoints/{}", come.address);
    assert_eq!(lab.call("PUT", &path, &Value::Null).0, 200);
    let mut client = lab.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!((asked(down), asked(&come), asked(well)), (before, 0, 50));
    late.set(200);
    lab.wait_health(come.address, "up");
    lab::wait_until("it serves", || {
        client.get("/");
        asked(&come) > 0
    });
    drop(lab);
}

#[test]
fn one_that_went_and_came_again_is_seen_as_it_is_by_who_had_no_request_meanwhile() {
    let pulses = [Pulse::well(), Pulse::well()];
    let mut lab = pool_of(&[&pulses[0], &pulses[1]]);
    lab.restrict_to_one_worker();
    let mut client = lab.client();
    (0..4).for_each(|_| assert_eq!(client.get("/").status, 200));
    let at = lab.origins[0].address;
    let path = format!("/v1/services/shop/versions/blue/endpoints/{at}");
    assert_eq!(lab.call("DELETE", &path, &Value::Null).0, 200);
    assert_eq!(lab.call("PUT", &path, &Value::Null).0, 200);
    lab.wait_health(at, "up");
    pulses[0].set(503);
    lab.wait_health(at, "down");
    let asked = || lab.origins[0].seen().iter().filter(|seen| seen.path() != "/healthz").count();
    let before = asked();
    (0..10).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!(asked(), before);
}
