//! Supervision of an exclusive flip: two versions do not serve at the same time, neither while it is made nor when it is taken back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lab::origin::Then;
use lab::{Client, Lab, Origin, Pulse, wait_until};
use serde_json::{Value, json};

/// Which version served from when to when.
type Served = Arc<Mutex<Vec<(&'static str, Instant, Instant)>>>;

/// Takes ten milliseconds for each request, answers what the pulse says, and writes down when.
fn recording(version: &'static str, pulse: &Pulse, served: &Served) -> Origin {
    let (pulse, served) = (pulse.clone(), Arc::clone(served));
    Origin::behaving(version, move |_, stream| {
        let start = Instant::now();
        thread::sleep(Duration::from_millis(10));
        let status = pulse.status();
        write!(stream, "HTTP/1.1 {status} X\r\nx-version: {version}\r\ncontent-length: 2\r\n\r\n")?;
        // Before the last byte of it: it was certainly not over sooner.
        let end = Instant::now();
        stream.write_all(b"ok")?;
        served.lock().unwrap().push((version, start, end));
        Ok(Then::Keep)
    })
}

#[test]
fn a_bad_version_that_came_alone_goes_back_alone() {
    let (served, pulse) = (Served::default(), Pulse::well());
    let origins = vec![recording("blue", &Pulse::well(), &served), recording("green", &pulse, &served)];
    let [blue, green] = [&origins[0], &origins[1]].map(|origin| origin.address);
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = true\noutliers = false\n\
         [services.shop.versions.blue]\nendpoints = [\"{blue}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{green}\"]\n"
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    let (stop, address) = (Arc::<AtomicBool>::default(), lab.address());
    let users = [0; 4].map(|_| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let (mut client, mut refused) = (Client::connect(address), 0);
            while !stop.load(Ordering::SeqCst) {
                let answer = client.get("/");
                refused += u32::from(answer.header("x-version").is_none());
            }
            refused
        })
    });
    wait_until("blue has a history", || lab.origin("blue").served() > 300);
    let body = json!({ "to": "green", "exclusive": true, "reason": "one at a time" });
    let (status, answer) = lab.call("POST", "/v1/services/shop/flip", &body);
    assert_eq!(status, 200, "{answer}");
    let epoch = answer["epoch"].as_u64().unwrap();
    wait_until("green has it", || lab.origin("green").served() > 50);
    let trial = lab.call("GET", "/v1/services/shop/verdict", &Value::Null).1["trial"].clone();
    assert_eq!((&trial["exclusive"], &trial["leaning"]), (&json!(true), &json!(false)), "{trial}");
    pulse.set(500);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    let before = lab.origin("blue").served();
    wait_until("blue serves as before", || lab.origin("blue").served() > before + 20);
    stop.store(true, Ordering::SeqCst);
    assert_eq!(users.map(|user| user.join().unwrap()), [0; 4], "nobody was refused");
    let changes = lab.call("GET", "/v1/changes?limit=10", &Value::Null).1["changes"].clone();
    let later = changes.as_array().unwrap().iter().filter(|change| change["epoch"].as_u64().unwrap() > epoch);
    let later: Vec<_> = later.map(|change| (&change["kind"], &change["actor"]["kind"])).collect();
    let supervisor = json!("supervisor");
    assert_eq!(later, [(&json!("revert"), &supervisor), (&json!("hold"), &supervisor)], "{changes}");
    let mut served = served.lock().unwrap().clone();
    served.sort_by_key(|(_, start, _)| *start);
    let mut latest: [Option<Instant>; 2] = [None, None];
    for (version, start, end) in served {
        let (own, other) = if version == "blue" { (0, 1) } else { (1, 0) };
        assert!(latest[other].is_none_or(|other| other <= start), "both served at once");
        latest[own] = latest[own].max(Some(end));
    }
}
