//! G1, G2 and G4 on one HTTP/2 connection: every stream has its own coin and its own epoch, and a flip loses none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use lab::history::{Change, History, Request};
use lab::http2::run;
use lab::{Http2, Lab};
use serde_json::json;

#[test]
fn each_stream_of_a_connection_has_its_own_coin() {
    let lab = Lab::start(&["blue", "green"]);
    lab.weights(&json!({ "blue": 7_000, "green": 3_000 }));
    let (loops, each) = (40, 100);
    let green = AtomicU64::new(0);
    run(async {
        let client = Http2::to(lab.address()).await;
        let asking = (0..loops).map(|_| async {
            for _ in 0..each {
                let answer = client.get("/").await;
                green.fetch_add(u64::from(answer.version() == "green"), Ordering::SeqCst);
            }
        });
        futures_util::future::join_all(asking).await;
    });
    // Five standard deviations: sqrt(4,000 · 0.3 · 0.7) = 29.
    let green = green.load(Ordering::SeqCst);
    assert!((1_055..=1_345).contains(&green), "{green} of 4,000 were green's");
}

#[test]
fn flips_under_load_on_one_connection_lose_nothing_and_hold_from_their_acknowledgement_on() {
    let lab = Lab::with(&["blue", "green"], "[proxy]\nepoch_header = true\n");
    let beginning = vec![("shop", vec!["blue".to_owned()])];
    let mut changes =
        vec![Change { call: Instant::now(), ack: Instant::now(), epoch: lab.epoch(), serves: beginning }];
    let is_over = Arc::new(AtomicBool::new(false));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let asking = {
        let (over, requests, address) = (Arc::clone(&is_over), Arc::clone(&requests), lab.address());
        thread::spawn(move || {
            run(async {
                let http2 = Http2::to(address).await;
                let streams = (0..32).map(|client| {
                    let (http2, over, requests) = (&http2, &over, &requests);
                    async move {
                        while !over.load(Ordering::SeqCst) {
                            let start = Instant::now();
                            let answer = http2.get("/").await;
                            let end = Instant::now();
                            assert_eq!((answer.status, answer.is_whole), (200, true));
                            let epoch = answer.header("switchback-epoch").unwrap().parse().unwrap();
                            let version = answer.version().into();
                            let request = Request { client, service: "shop", start, end, version, epoch };
                            requests.lock().unwrap().push(request);
                        }
                    }
                });
                futures_util::future::join_all(streams).await;
            });
        })
    };
    lab::wait_until("requests pass", || requests.lock().unwrap().len() > 100);
    for to in ["green", "blue"].into_iter().cycle().take(200) {
        let call = Instant::now();
        let answer = lab.flip(to);
        let (ack, epoch) = (Instant::now(), answer["epoch"].as_u64().unwrap());
        changes.push(Change { call, ack, epoch, serves: vec![("shop", vec![to.to_owned()])] });
    }
    // A busy machine takes its time.
    lab::wait_until("enough requests pass", || requests.lock().unwrap().len() > 1_000);
    is_over.store(true, Ordering::SeqCst);
    asking.join().expect("no request failed");
    let history = History { requests: requests.lock().unwrap().clone(), changes };
    let violations = history.violations();
    assert!(violations.is_empty(), "{} violations, such as {}", violations.len(), violations[0]);
}
