//! Supervision: a candidate that is worse goes back by itself, within milliseconds, and one that is not stays; what hits both
//! versions alike reverts nothing (G9).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::origin::Then;
use lab::{Client, Lab, Origin, Pulse, wait_until};
use serde_json::{Value, json};

/// Answers with its name, and with what the pulse says.
fn origin(name: &str, pulse: &Pulse) -> Origin {
    let (version, pulse) = (name.to_owned(), pulse.clone());
    Origin::behaving(name, move |_, stream| {
        write!(
            stream,
            "HTTP/1.1 {} X\r\nx-version: {version}\r\ncontent-length: 2\r\n\r\nok",
            pulse.status()
        )?;
        Ok(Then::Keep)
    })
}

/// `shop` with blue and green, each as well as its pulse, and supervised by these rules.
fn shop(blue: &Pulse, green: &Pulse, rules: &str) -> Lab {
    let origins = vec![origin("blue", blue), origin("green", green)];
    let [one, two] = [&origins[0], &origins[1]].map(|origin| origin.address);
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsupervise = {rules}\n\
         [services.shop.versions.blue]\nendpoints = [\"{one}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{two}\"]\n"
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

/// Requests at a pace from one client until it is dropped or stopped: by version, how many and how many failed.
struct Users {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Users {
    /// Four clients, each of them with a request every `each`.
    fn of(address: SocketAddr, each: Duration) -> Self {
        let (stop, failed): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let threads = (0..4).map(|_| {
            let (stopped, failures) = (Arc::clone(&stop), Arc::clone(&failed));
            thread::spawn(move || {
                let (mut client, start) = (Client::connect(address), Instant::now());
                for turn in 0_u32.. {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    if client.get("/").status >= 500 {
                        failures.fetch_add(1, Ordering::SeqCst);
                    }
                    // The rate is the test: a pace, not a wait for something.
                    thread::sleep((start + each * turn).saturating_duration_since(Instant::now()));
                }
            })
        });
        let threads = threads.collect();
        Self { stop, failed, threads }
    }

    fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn weight(lab: &Lab, version: &str) -> u64 {
    let shop = lab.shop();
    let versions = shop["versions"].as_array().unwrap();
    let found = versions.iter().find(|known| known["name"] == version).unwrap();
    found["weight"].as_u64().unwrap()
}

fn last_change(lab: &Lab) -> Value {
    lab.call("GET", "/v1/changes?limit=1", &Value::Null).1["changes"][0].clone()
}

fn flip(lab: &Lab, to: &str, more: &Value) -> (u16, Value) {
    let mut body = json!({ "to": to, "reason": "a test" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    lab.call("POST", "/v1/services/shop/flip", &body)
}

const EACH: Duration = Duration::from_millis(8);

#[test]
fn a_bad_version_goes_back_by_itself_after_a_flip() {
    let (blue, green) = (Pulse::well(), Pulse::well());
    let lab = shop(&blue, &green, "true");
    let users = Users::of(lab.address(), EACH);
    wait_until("blue has a history", || lab.origin("blue").served() > 500);
    green.set(500);
    let begun = Instant::now();
    let (status, answer) = flip(&lab, "green", &json!({}));
    assert_eq!(status, 200, "{answer}");
    wait_until("it went back", || weight(&lab, "blue") == 10_000);
    let took = begun.elapsed();
    let change = last_change(&lab);
    assert_eq!(
        (&change["kind"], &change["actor"]["kind"]),
        (&json!("revert"), &json!("supervisor")),
        "{change}"
    );
    println!("took {took:?}, {} failed", users.failed());
    assert!(users.failed() < 100, "{} users met a failure", users.failed());
    assert!(took < Duration::from_secs(5), "{took:?}");
}
