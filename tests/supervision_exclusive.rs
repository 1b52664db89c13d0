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
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::gate::Gate;
use lab::origin::Then;
use lab::{Client, Lab, Origin, Pulse, wait_until};
use serde_json::{Value, json};

/// Which version served from when to when.
type Served = Arc<Mutex<Vec<(&'static str, Instant, Instant)>>>;

/// Takes ten milliseconds for each request, answers what the pulse says, and writes down when.
///
/// `/late` waits for the gate besides.
fn recording(version: &'static str, pulse: &Pulse, served: &Served, gate: &Gate) -> Origin {
    let (pulse, served, gate) = (pulse.clone(), Arc::clone(served), gate.clone());
    Origin::behaving(version, move |seen, stream| {
        let start = Instant::now();
        if seen.path() == "/late" {
            gate.wait();
        }
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

/// `blue` is well, `green` does as the pulse says, and the service is supervised.
fn supervised(pulse: &Pulse, served: &Served, gate: &Gate) -> Lab {
    let well = Pulse::well();
    let origins = vec![recording("blue", &well, served, gate), recording("green", pulse, served, gate)];
    let [blue, green] = [&origins[0], &origins[1]].map(|origin| origin.address);
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = true\noutliers = false\n\
         [services.shop.versions.blue]\nendpoints = [\"{blue}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{green}\"]\n"
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

/// Who asks one request after the other.
struct Users {
    stop: Arc<AtomicBool>,
    users: [JoinHandle<u32>; 4],
}

impl Users {
    fn of(lab: &Lab) -> Self {
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
        Self { stop, users }
    }

    /// Nobody was refused.
    fn go(self) {
        self.stop.store(true, Ordering::SeqCst);
        assert_eq!(self.users.map(|user| user.join().unwrap()), [0; 4], "nobody was refused");
    }
}

/// All to `green`, which came alone, once `blue` has a history; the epoch of that.
fn flip_to_green(lab: &Lab) -> u64 {
    wait_until("blue has a history", || lab.origin("blue").served() > 300);
    let body = json!({ "to": "green", "exclusive": true, "reason": "one at a time" });
    let (status, answer) = lab.call("POST", "/v1/services/shop/flip", &body);
    assert_eq!(status, 200, "{answer}");
    wait_until("green has it", || lab.origin("green").served() > 50);
    answer["epoch"].as_u64().unwrap()
}

/// Kind, and whose, of the changes after this epoch, the newest first.
fn later(lab: &Lab, epoch: u64) -> Vec<(String, String)> {
    let changes = lab.call("GET", "/v1/changes?limit=10", &Value::Null).1["changes"].clone();
    let later = changes.as_array().unwrap().iter().filter(|change| change["epoch"].as_u64().unwrap() > epoch);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    later.map(|change| (text(&change["kind"]), text(&change["actor"]["kind"]))).collect()
}

#[test]
fn a_bad_version_that_came_alone_goes_back_alone() {
    let (served, pulse) = (Served::default(), Pulse::well());
    let lab = supervised(&pulse, &served, &Gate::default());
    let users = Users::of(&lab);
    let epoch = flip_to_green(&lab);
    let trial = lab.call("GET", "/v1/services/shop/verdict", &Value::Null).1["trial"].clone();
    assert_eq!((&trial["exclusive"], &trial["leaning"]), (&json!(true), &json!(false)), "{trial}");
    pulse.set(500);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    let before = lab.origin("blue").served();
    wait_until("blue serves as before", || lab.origin("blue").served() > before + 20);
    users.go();
    let by_supervisor = |kind: &str| (kind.to_owned(), "supervisor".to_owned());
    assert_eq!(later(&lab, epoch), ["revert", "hold"].map(by_supervisor));
    let mut served = served.lock().unwrap().clone();
    served.sort_by_key(|(_, start, _)| *start);
    let mut latest: [Option<Instant>; 2] = [None, None];
    for (version, start, end) in served {
        let (own, other) = if version == "blue" { (0, 1) } else { (1, 0) };
        assert!(latest[other].is_none_or(|other| other <= start), "both served at once");
        latest[own] = latest[own].max(Some(end));
    }
}

#[test]
fn the_way_back_ends_no_hold_that_was_asked_for() {
    let pulse = Pulse::well();
    let lab = supervised(&pulse, &Served::default(), &Gate::default());
    let users = Users::of(&lab);
    let epoch = flip_to_green(&lab);
    lab.hold(&json!({ "scope": "writes", "timeout": "5m" }));
    let write = lab.post_later("/");
    lab.wait_held(1);
    pulse.set(500);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    let before = lab.origin("blue").served();
    wait_until("blue serves as before", || lab.origin("blue").served() > before + 20);
    users.go();
    assert_eq!(lab.shop()["hold"], json!({ "by": "operator", "scope": "writes", "timeout_ms": 300_000 }));
    let kinds: Vec<_> = later(&lab, epoch).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!((kinds, write.is_answered()), (["revert", "hold", "hold"].map(str::to_owned).to_vec(), false));
    lab.wait_held(1);
    lab.release();
    assert_eq!(write.answer().version(), "blue");
}

#[test]
fn a_revert_makes_the_way_back_at_once_and_a_release_does_not_end_it() {
    let (pulse, gate) = (Pulse::well(), Gate::default());
    let mut lab = supervised(&pulse, &Served::default(), &gate);
    let users = Users::of(&lab);
    wait_until("blue has a history", || lab.origin("blue").served() > 300);
    let body = json!({ "to": "green", "exclusive": true });
    let (flip, key) = ("/v1/services/shop/flip?wait=finished&timeout=1m", [("idempotency-key", "1")]);
    let waiter = lab.call_later("POST", flip, &key, &body);
    wait_until("green has it", || lab.origin("green").served() > 50);
    let late = lab.get_later("/late");
    wait_until("it is asked", || lab.origin("green").seen().iter().any(|seen| seen.path() == "/late"));
    pulse.set(500);
    lab.wait_holding(true);
    let (status, refused) = lab.call("POST", "/v1/services/shop/release", &json!({}));
    assert_eq!((status, &refused["type"]), (409, &json!("urn:switchback:problem:exclusive_underway")));
    let (status, done) = lab.call("POST", "/v1/services/shop/revert", &json!({ "reason": "it is broken" }));
    assert_eq!((status, &done["services"]["shop"]["weights"]), (200, &json!({ "blue": 10_000 })), "{done}");
    assert_eq!((&done["services"]["shop"]["hold"], late.is_answered()), (&Value::Null, false));
    let waiter = waiter.answer();
    assert_eq!((waiter.status, &waiter.json()["type"]), (409, &json!("urn:switchback:problem:reverted")));
    let ended = lab.call("GET", "/v1/services/shop/verdict", &Value::Null).1["ended"].clone();
    let said = ended["said"].as_str().unwrap();
    assert_eq!((&ended["how"], &ended["epoch"]), (&json!("reverted"), &done["epoch"]), "{ended}");
    assert!(
        said.starts_with("reverted green -> blue ") && said.contains(" It was made at once by "),
        "{said}"
    );
    let before = lab.origin("blue").served();
    wait_until("blue serves", || lab.origin("blue").served() > before + 20);
    users.go();
    gate.open();
    assert_eq!(late.answer().version(), "green");
    lab.kill_and_restart();
    let again = lab.call_with("POST", flip, &key, &body);
    let (status, problem) = (again.status, again.json());
    assert_eq!((status, &problem["type"]), (409, &json!("urn:switchback:problem:reverted")), "{problem}");
}
