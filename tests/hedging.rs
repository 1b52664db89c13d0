//! A request that changes nothing goes to a second endpoint when the first takes its time; the first answer counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use lab::origin::{Peer, nobody};
use lab::{Answer, Lab, Origin, PATIENCE, wait_until};
use serde_json::json;

fn failed(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("switchback-reason").unwrap_or(""))
}

/// Reads a request's head, says nothing, and tells when it came and when the proxy has gone.
fn falls_silent(name: &str) -> (Origin, Receiver<&'static str>) {
    let (tell, told) = mpsc::channel();
    let origin = Origin::scripted(name, move |proxy: &mut Peer| {
        proxy.head()?;
        let _ = tell.send("asked");
        proxy.rest();
        let _ = tell.send("left");
        Ok(())
    });
    (origin, told)
}

const HEDGE: &str = "hedge = { after = \"50ms\" }\n\
    retries = { attempts = 0, budget = \"100%\", min_per_second = 1_000 }\ntimeouts = { response = \"20s\" }";

fn hedges(lab: &Lab, outcome: &str) -> f64 {
    let outcome = format!("outcome=\"{outcome}\"");
    lab.metric(&["switchback_hedges_total{", "version=\"blue\"", &outcome]).unwrap()
}

fn in_flight(lab: &Lab) -> f64 {
    lab.metric_sum("switchback_in_flight{")
}

#[test]
fn a_slow_endpoint_is_overtaken_by_another_and_its_attempt_is_ended() {
    let (slow, told) = falls_silent("one");
    let lab = Lab::pool(vec![slow, Origin::start("two")], &[], "", HEDGE);
    let mut user = lab.client();
    let since = Instant::now();
    for number in 0..6 {
        assert_eq!(user.get("/").status, 200, "{number}");
    }
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let won = hedges(&lab, "won");
    assert!(won >= 1.0);
    // Ended at once, not by any limit.
    let mut ended = 0.0;
    while ended < won {
        if told.recv_timeout(PATIENCE).unwrap() == "left" {
            ended += 1.0;
        }
    }
    assert_eq!([hedges(&lab, "failed"), hedges(&lab, "budget_exhausted")], [0.0, 0.0]);
    // One request each, whoever was asked.
    assert_eq!(lab.metric_total("switchback_client_requests_total{", "code=\"200\""), 6.0);
    assert_eq!(lab.metric_total("switchback_upstream_requests_total{", "code=\"200\""), 6.0);
}

#[test]
fn the_first_endpoint_may_still_be_the_first_to_answer() {
    let (tell, let_go) = mpsc::channel();
    let let_go = std::sync::Mutex::new(let_go);
    let first = Origin::scripted("one", move |proxy: &mut Peer| {
        proxy.head()?;
        let_go.lock().unwrap().recv().unwrap();
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\none")
    });
    let (slow, told) = falls_silent("two");
    let lab = Lab::pool(vec![first, slow], &[], "", HEDGE);
    // Whoever is asked first, the other is asked too, and only one of them answers.
    let mut user = lab.client();
    user.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(told.recv_timeout(PATIENCE), Ok("asked"));
    wait_until("both are asked", || lab.origins[0].connections() == 1);
    tell.send(()).unwrap();
    assert_eq!(user.answer().text(), "one");
    assert_eq!(told.recv_timeout(PATIENCE), Ok("left"));
    assert_eq!(hedges(&lab, "won") + hedges(&lab, "lost"), 1.0);
}

#[test]
fn what_may_change_something_is_never_sent_twice() {
    let (slow, told) = falls_silent("one");
    let settings = HEDGE.replace("20s", "300ms");
    let lab = Lab::pool(vec![slow, Origin::start("two")], &[], "", &settings);
    let mut user = lab.client();
    for method in ["POST", "PUT", "DELETE"] {
        for _ in 0..2 {
            let request = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab");
            let answer = user.send(request).answer();
            assert!(matches!(failed(&answer), (200, "") | (504, "response_timeout")), "{answer:?}");
        }
    }
    let asked = told.try_iter().filter(|what| *what == "asked").count();
    assert!(asked >= 2);
    assert_eq!(lab.origins[1].served() + asked as u64, 6, "each once");
    assert_eq!(hedges(&lab, "won") + hedges(&lab, "lost") + hedges(&lab, "failed"), 0.0);
}

#[test]
fn an_attempt_that_fails_beside_another_is_nobodys_answer() {
    let (tell, let_go) = mpsc::channel::<()>();
    let let_go = std::sync::Mutex::new(let_go);
    let slow = Origin::scripted("one", move |proxy: &mut Peer| {
        proxy.head()?;
        let_go.lock().unwrap().recv().unwrap();
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\none")
    });
    let settings = HEDGE.replace("attempts = 0", "attempts = 1");
    let mut lab = Lab::pool(vec![slow], &[nobody()], "", &settings);
    lab.restrict_to_one_worker();
    // The first in turn is the slow one; the other one does not accept.
    let mut user = lab.client();
    user.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    wait_until("the hedge has failed", || hedges(&lab, "failed") == 1.0);
    tell.send(()).unwrap();
    assert_eq!(user.answer().text(), "one");
    assert_eq!(lab.metric_total("switchback_upstream_requests_total{", "reason=\"connect_failed\""), 1.0);
    assert_eq!(lab.metric_total("switchback_client_requests_total{", "reason=\"connect_failed\""), 0.0);
}

/// Asked, it says so, and closes without an answer when it is let go.
fn fails(name: &str, asked: &mpsc::Sender<&'static str>, word: &'static str) -> (Origin, mpsc::Sender<()>) {
    let (let_go, may_go) = mpsc::channel();
    let (asked, may_go) = (asked.clone(), std::sync::Mutex::new(may_go));
    let origin = Origin::scripted(name, move |proxy: &mut Peer| {
        proxy.head()?;
        asked.send(word).unwrap();
        let _ = may_go.lock().unwrap().recv();
        Ok(())
    });
    (origin, let_go)
}

#[test]
fn what_has_failed_at_both_endpoints_is_not_tried_again_at_either() {
    for first in [0, 1] {
        let (tell, asked) = mpsc::channel();
        let (one, end_one) = fails("one", &tell, "one");
        let (two, end_two) = fails("two", &tell, "two");
        let mut lab = Lab::pool(vec![one, two], &[], "", &HEDGE.replace("attempts = 0", "attempts = 3"));
        lab.restrict_to_one_worker();
        let mut user = lab.client();
        user.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!([(); 2].map(|()| asked.recv_timeout(PATIENCE).unwrap()), ["one", "two"]);
        let failed_ones =
            || lab.metric_total("switchback_upstream_requests_total{", "reason=\"upstream_closed\"");
        let mut ends = [end_one, end_two];
        ends.rotate_left(first);
        let [first, second] = ends;
        drop(first);
        wait_until("one has failed", || failed_ones() == 1.0);
        drop(second);
        assert_eq!(failed(&user.answer()), (502, "upstream_closed"));
        assert!(asked.try_recv().is_err(), "each was asked once");
        assert_eq!(hedges(&lab, "failed"), 1.0, "whichever failed last");
    }
}

#[test]
fn without_a_budget_there_is_one_attempt() {
    let (one, first) = falls_silent("one");
    let (two, second) = falls_silent("two");
    let settings = "hedge = { after = \"50ms\" }\ntimeouts = { response = \"400ms\" }\n\
        retries = { attempts = 0, budget = \"0%\", min_per_second = 0 }";
    let lab = Lab::pool(vec![one, two], &[], "", settings);
    assert_eq!(failed(&lab.get("/")), (504, "response_timeout"));
    assert_eq!(hedges(&lab, "budget_exhausted"), 1.0);
    let asked = [first, second].iter().flat_map(Receiver::try_iter).filter(|what| *what == "asked").count();
    assert_eq!(asked, 1);
}

#[test]
fn both_attempts_are_seen_by_a_drain_and_cut_at_its_deadline() {
    let (one, first) = falls_silent("one");
    let (two, second) = falls_silent("two");
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{HEDGE}\n\
         drain = {{ patience = \"0s\", spread = \"0s\", deadline = \"500ms\" }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\", \"{}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        one.address,
        two.address,
        nobody()
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![one, two], &services);
    let mut user = lab.client();
    user.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(first.recv_timeout(PATIENCE), Ok("asked"));
    assert_eq!(second.recv_timeout(PATIENCE), Ok("asked"));
    assert_eq!(in_flight(&lab), 1.0, "one request");
    let (status, drain) = lab.call("GET", "/v1/services/shop/versions/blue/drain", &json!(null));
    assert_eq!(status, 200, "{drain}");
    assert_eq!(drain["drained"], false);
    assert_eq!(drain["endpoints"].as_array().unwrap().len(), 2, "{drain}");
    lab.flip("green");
    assert_eq!(failed(&user.answer()), (503, "drain_deadline"));
    assert_eq!(first.recv_timeout(PATIENCE), Ok("left"));
    assert_eq!(second.recv_timeout(PATIENCE), Ok("left"));
}

/// On one worker, so that the first in turn is the first.
fn pool_of_two(one: Origin, two: Origin) -> (Lab, [String; 2]) {
    let drains = [one.address, two.address]
        .map(|address| format!("/v1/services/shop/versions/blue/endpoints/{address}/drain"));
    let drain = "drain = { patience = \"0s\", spread = \"0s\", deadline = \"500ms\" }";
    let mut lab = Lab::pool(vec![one, two], &[], "", &format!("{HEDGE}\n{drain}"));
    lab.restrict_to_one_worker();
    (lab, drains)
}

fn drained(lab: &Lab, drain: &str) -> bool {
    lab.call("GET", drain, &json!(null)).1["drained"] == true
}

#[test]
fn an_attempt_at_an_endpoint_that_is_drained_is_cut_and_the_other_goes_on() {
    for at in [0, 1] {
        let (one, first) = falls_silent("one");
        let (two, second) = falls_silent("two");
        let (lab, drains) = pool_of_two(one, two);
        let mut user = lab.client();
        user.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let told = [first, second];
        told.iter().for_each(|told| assert_eq!(told.recv_timeout(PATIENCE), Ok("asked")));
        assert_eq!(lab.call("POST", &drains[at], &json!(null)).0, 200);
        assert_eq!(told[at].recv_timeout(PATIENCE), Ok("left"));
        wait_until("nothing is left there", || drained(&lab, &drains[at]));
        assert_eq!(in_flight(&lab), 1.0, "it goes on");
        assert!(told[1 - at].try_recv().is_err());
    }
}

#[test]
fn the_endpoint_of_an_attempt_that_has_failed_does_not_wait_for_the_other() {
    let (asked, is_asked) = mpsc::channel();
    let (fail, may_fail) = mpsc::channel::<()>();
    let may_fail = std::sync::Mutex::new(may_fail);
    let one = Origin::scripted("one", move |proxy: &mut Peer| {
        proxy.head()?;
        asked.send(()).unwrap();
        may_fail.lock().unwrap().recv().unwrap();
        Ok(())
    });
    let (answer, may_answer) = mpsc::channel::<()>();
    let may_answer = std::sync::Mutex::new(may_answer);
    let two = Origin::scripted("two", move |proxy: &mut Peer| {
        proxy.head()?;
        may_answer.lock().unwrap().recv().unwrap();
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo")
    });
    let (lab, drains) = pool_of_two(one, two);
    let mut user = lab.client();
    user.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    is_asked.recv_timeout(PATIENCE).unwrap();
    let listed = || lab.call("GET", "/v1/services/shop/versions/blue/drain", &json!(null)).1;
    wait_until("both are asked", || listed()["endpoints"].as_array().unwrap().len() == 2);
    fail.send(()).unwrap();
    wait_until("one is left", || listed()["endpoints"].as_array().unwrap().len() == 1);
    assert_eq!(lab.call("POST", &drains[0], &json!(null)).0, 200);
    assert!(drained(&lab, &drains[0]), "nothing is there any more");
    answer.send(()).unwrap();
    assert_eq!(user.answer().text(), "two");
    assert_eq!(hedges(&lab, "won"), 1.0, "also alone");
}

#[test]
fn a_client_that_leaves_ends_both_attempts() {
    let (one, first) = falls_silent("one");
    let (two, second) = falls_silent("two");
    let lab = Lab::pool(vec![one, two], &[], "", HEDGE);
    let mut user = lab.client();
    user.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    for told in [&first, &second] {
        assert_eq!(told.recv_timeout(PATIENCE), Ok("asked"));
    }
    drop(user);
    for told in [&first, &second] {
        assert_eq!(told.recv_timeout(PATIENCE), Ok("left"));
    }
}
