//! Passive checks: who fails where others do not is left alone for a time, and comes back by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::origin::Then;
use lab::{Lab, Origin, Pulse};
use serde_json::json;

/// Answers everything with what the pulse says.
fn origin(pulse: &Pulse) -> Origin {
    let pulse = pulse.clone();
    Origin::behaving("blue", move |_, stream| {
        write!(stream, "HTTP/1.1 {} X\r\ncontent-length: 2\r\n\r\nok", pulse.status())?;
        Ok(Then::Keep)
    })
}

fn pool_of(pulses: &[&Pulse], settings: &str) -> Lab {
    Lab::pool(pulses.iter().map(|pulse| origin(pulse)).collect(), &[], "", settings)
}

/// A steady rate of requests until it is dropped; the times and statuses of all answers.
struct Steady {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Vec<(Instant, u16)>>>,
}

impl Steady {
    fn start(lab: &Lab, each: Duration) -> Self {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), lab.address());
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut client = lab::Client::connect(address);
            let mut answers = Vec::new();
            let start = Instant::now();
            for turn in 0_u32.. {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                answers.push((Instant::now(), client.get("/").status));
                // The rate is the test: a pace, not a wait for something.
                thread::sleep((start + each * turn).saturating_duration_since(Instant::now()));
            }
            answers
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(mut self) -> Vec<(Instant, u16)> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn an_endpoint_that_starts_to_fail_is_ejected_within_a_second_and_comes_back() {
    let (well, failing) = (Pulse::well(), Pulse::well());
    let settings = "outliers = { base_ejection = \"500ms\" }";
    let lab = pool_of(&[&well, &failing, &well, &well], settings);
    let mut events = lab.events();
    let address = lab.origins[1].address.to_string();
    let traffic = Steady::start(&lab, Duration::from_millis(10));
    lab::wait_until("all serve", || lab.origins.iter().all(|origin| origin.served() > 2));
    let since = Instant::now();
    failing.set(503);
    let event = events.wait_for(|event| event["type"] == "health" && event["state"] == "ejected");
    let took = since.elapsed();
    assert_eq!((&event["endpoint"], &event["before"]), (&json!(address), &json!("unchecked")));
    assert!(took < Duration::from_secs(1), "{took:?}");
    failing.set(200);
    events.wait_for(|event| event["type"] == "health" && event["before"] == "ejected");
    let served = lab.origins[1].served();
    lab::wait_until("it serves again", || lab.origins[1].served() > served + 2);
    let answers = traffic.stop();
    let failed = answers.iter().filter(|(_, status)| *status != 200).count();
    assert!((1..=10).contains(&failed), "{failed} of {}", answers.len());
    assert!(lab.metric(&["switchback_endpoint_ejections_total{", "\"errors\""]) >= Some(1.0));
}

#[test]
fn it_is_told_why_and_until_when() {
    let (well, failing) = (Pulse::well(), Pulse::of(502));
    let settings = "outliers = { consecutive_errors = 0, base_ejection = \"300s\" }";
    let lab = pool_of(&[&well, &failing], settings);
    let address = lab.origins[1].address;
    let mut client = lab.client();
    lab::wait_until("it is ejected", || {
        client.get("/");
        lab.metric(&["switchback_endpoint_ejections_total{", "\"gateway_errors\""]) == Some(1.0)
    });
    let health = lab.wait_health(address, "ejected");
    let ejection = &health["ejection"];
    assert_eq!(ejection["cause"], "gateway_errors");
    assert!(ejection["said"].as_str().unwrap().ends_with(" answers 502, 503 or 504 in a row"), "{health}");
    assert_eq!(lab.metric(&["switchback_endpoint_up{", &address.to_string()]), Some(0.0));
    let (_, status, _) = lab.cli(&["status"]);
    assert!(status.contains(&format!("ejected: {address} of blue for ")), "{status}");
    let served = lab.origins[1].served();
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(lab.origins[1].served(), served, "it gets nothing");
}

#[test]
fn what_hits_all_ejects_nobody() {
    let pulses = [Pulse::of(500), Pulse::of(503), Pulse::of(502)];
    let lab = pool_of(&[&pulses[0], &pulses[1], &pulses[2]], "");
    let mut client = lab.client();
    lab::wait_until("all of them serve", || {
        (0..20).for_each(|_| assert!(client.get("/").status >= 500));
        lab.origins.iter().all(|origin| origin.served() > 50)
    });
    assert_eq!(lab.metric_sum("switchback_endpoint_ejections_total"), 0.0);
}

#[test]
fn one_alone_is_never_ejected_and_no_more_than_may_be() {
    let lab = pool_of(&[&Pulse::of(503)], "");
    let mut client = lab.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 503);
    }
    assert_eq!(lab.metric_sum("switchback_endpoint_ejections_total"), 0.0);
    drop(lab);
    let (well, failing) = (Pulse::well(), Pulse::of(503));
    let settings = "outliers = { max_ejected = \"10%\" }";
    let lab = pool_of(&[&well, &failing, &failing, &well], settings);
    let mut client = lab.client();
    let ejections = || lab.metric_sum("switchback_endpoint_ejections_total");
    lab::wait_until("one is ejected", || {
        client.get("/");
        ejections() >= 1.0
    });
    for _ in 0..200 {
        client.get("/");
    }
    assert_eq!(ejections(), 1.0, "10 % of 4, and one may always be");
}

#[test]
fn nobody_is_ejected_where_the_operator_does_not_want_it() {
    let (well, failing) = (Pulse::well(), Pulse::of(503));
    let lab = pool_of(&[&well, &failing], "outliers = false");
    let mut client = lab.client();
    for _ in 0..100 {
        client.get("/");
    }
    assert!(lab.origins[1].served() > 30);
    assert_eq!(lab.metric_sum("switchback_endpoint_ejections_total"), 0.0);
}

#[test]
fn the_slow_one_among_several_is_ejected() {
    slow_one_is_ejected("");
}

#[test]
fn the_slow_one_is_ejected_also_where_another_is_asked_in_its_place() {
    slow_one_is_ejected(
        "hedge = { after = \"200ms\" }\nretries = { budget = \"100%\", min_per_second = 1_000 }",
    );
}

fn slow_one_is_ejected(settings: &str) {
    // How long it takes is what it does wrong; what the others take is above what a busy machine adds.
    let taking = |millis| {
        Origin::behaving("blue", move |_, stream| {
            thread::sleep(Duration::from_millis(millis));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(Then::Keep)
        })
    };
    let origins: Vec<_> = [30, 30, 30, 600].map(taking).into();
    let address = origins[3].address;
    let outliers = "outliers = { interval = \"2s\", latency = { factor = 3, min_requests = 2 } }";
    let lab = Lab::pool(origins, &[], "", &format!("{outliers}\n{settings}"));
    let mut client = lab.client();
    lab::wait_until("it is ejected", || {
        (0..8).for_each(|_| drop(client.get("/")));
        lab.metric(&["switchback_endpoint_ejections_total{", "\"latency\""]) == Some(1.0)
    });
    lab.wait_health(address, "ejected");
}

#[test]
fn the_one_that_fails_more_often_than_the_others_is_ejected() {
    let count = std::sync::atomic::AtomicU64::new(0);
    let flaky = Origin::behaving("blue", move |_, stream| {
        // Every second one: never two in a row.
        let status = if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) { 200 } else { 500 };
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    let address = flaky.address;
    let mut origins: Vec<_> = (0..5).map(|_| origin(&Pulse::well())).collect();
    origins.push(flaky);
    let settings = "outliers = { interval = \"500ms\", success_rate = { min_requests = 10 } }";
    let lab = Lab::pool(origins, &[], "", settings);
    let mut client = lab.client();
    lab::wait_until("it is ejected", || {
        (0..20).for_each(|_| drop(client.get("/")));
        lab.metric(&["switchback_endpoint_ejections_total{", "\"success_rate\""]) == Some(1.0)
    });
    lab.wait_health(address, "ejected");
}

#[test]
fn one_that_breaks_off_its_answers_is_ejected() {
    let breaks = Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")?;
        Ok(Then::Close)
    });
    let address = breaks.address;
    let lab = Lab::pool(vec![origin(&Pulse::well()), breaks], &[], "", "outliers = {}");
    lab::wait_until("it is ejected", || {
        (0..4).for_each(|_| drop(lab.client().try_get("/")));
        lab.metric_sum("switchback_endpoint_ejections_total") == 1.0
    });
    lab.wait_health(address, "ejected");
}

#[test]
fn how_long_a_client_takes_to_send_says_nothing_about_its_endpoint() {
    // They take as long as a loaded machine does not double, and the client ten times as long.
    let takes = Duration::from_millis(40);
    let origin = || {
        Origin::behaving("blue", move |_, stream| {
            thread::sleep(takes);
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            Ok(Then::Keep)
        })
    };
    let settings = "outliers = { interval = \"1200ms\", latency = { factor = 3, min_requests = 2 } }";
    let mut lab = Lab::pool((0..4).map(|_| origin()).collect(), &[], "", settings);
    lab.restrict_to_one_worker();
    for _ in 0..8 {
        // In turn: of four the first is the slow client's.
        let mut slow = lab.client();
        slow.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab");
        thread::sleep(takes * 10);
        slow.send("cd");
        assert_eq!(slow.answer().status, 200);
        (0..3).for_each(|_| assert_eq!(lab.client().post("/", b"quick").status, 200));
    }
    assert_eq!(lab.metric_sum("switchback_endpoint_ejections_total"), 0.0);
}

#[test]
fn one_that_is_dead_is_ejected_and_costs_no_user_anything() {
    let dead = lab::origin::nobody();
    let origins = vec![origin(&Pulse::well()), origin(&Pulse::well())];
    let lab =
        Lab::pool(origins, &[dead], "", "outliers = { consecutive_errors = 0, base_ejection = \"60s\" }");
    let mut client = lab.client();
    lab::wait_until("it is ejected", || {
        assert_eq!(client.get("/").status, 200);
        lab.metric(&["switchback_endpoint_ejections_total{", "\"local_errors\""]) == Some(1.0)
    });
    let ejection = lab.wait_health(dead, "ejected")["ejection"].take();
    assert_eq!(ejection["cause"], "local_errors");
    assert!(
        ejection["said"].as_str().unwrap().ends_with(" attempts in a row without an answer"),
        "{ejection}"
    );
}
