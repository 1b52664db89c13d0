//! Supervision where users stay with a version: the coin is the user's then, so one user proves nothing however much he does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use lab::origin::Then;
use lab::{Client, Lab, Origin, Pulse, wait_until};
use serde_json::{Value, json};

/// Answers with what the pulse says, and `/bad` with 500.
fn origin(name: &str, pulse: &Pulse) -> Origin {
    let (version, pulse) = (name.to_owned(), pulse.clone());
    Origin::behaving(name, move |seen, stream| {
        let status = if seen.path() == "/bad" { 500 } else { pulse.status() };
        write!(stream, "HTTP/1.1 {status} X\r\nx-version: {version}\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    })
}

fn shop(green: &Pulse) -> Lab {
    let origins = vec![origin("blue", &Pulse::well()), origin("green", green)];
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nsticky = {{ header = \"x-user\" }}\n\
         supervise = {{ suspect_hold = \"1h\", sticky_quiet = \"1h\" }}\noutliers = false\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        origins[0].address, origins[1].address
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

fn ask(client: &mut Client, path: &str, user: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\nx-user: {user}\r\n\r\n");
    client.send(request).answer().version().to_owned()
}

/// So many users, one request after the other in turn, until it is dropped.
struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    fn of(address: SocketAddr, users: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut client = Client::connect(address);
            for user in (0..users).cycle() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                ask(&mut client, "/", &format!("user-{user}"));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn green_to(lab: &Lab, points: u64) {
    lab.weights(&json!({ "green": points, "blue": 10_000 - points }));
}

fn verdict(lab: &Lab) -> Value {
    lab.call("GET", "/v1/services/shop/verdict", &Value::Null).1
}

fn is_reverted(lab: &Lab) -> bool {
    let (_, history) = lab.call("GET", "/v1/changes?limit=1", &Value::Null);
    history["changes"][0]["kind"] == "revert"
}

#[test]
fn one_user_who_hammers_reverts_nothing_and_a_bad_version_goes_back() {
    let green = Pulse::well();
    let lab = shop(&green);
    // At a tenth, where it also leans back to: so he stays there whatever is suspected.
    green_to(&lab, 1_000);
    let _crowd = Crowd::of(lab.address(), 2_000);
    wait_until("enough have come", || verdict(&lab)["verdict"]["too_few_clients"] == json!(false));
    let mut client = lab.client();
    let user =
        (0..).map(|user| format!("bad-{user}")).find(|user| ask(&mut client, "/", user) == "green").unwrap();
    for _ in 0..400 {
        assert_eq!(ask(&mut client, "/bad", &user), "green");
    }
    wait_until("all of it is counted", || {
        verdict(&lab)["verdict"]["candidate"]["failed"].as_u64() >= Some(400)
    });
    let told = verdict(&lab);
    let candidate = &told["verdict"]["candidate"];
    assert_eq!((&candidate["failed"], &candidate["failed_again"]), (&json!(400), &json!(399)), "{told}");
    assert!(!is_reverted(&lab) && lab.weight("green") == 1_000, "{told}");
    // The same from as many users is another thing.
    green.set(500);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    assert!(is_reverted(&lab));
}

#[test]
fn of_few_users_nothing_follows_before_there_are_more() {
    let green = Pulse::well();
    let lab = shop(&green);
    green_to(&lab, 5_000);
    green.set(500);
    let few = Crowd::of(lab.address(), 40);
    wait_until("it is suspect", || verdict(&lab)["state"] == "suspect");
    let served = lab.origin("green").served();
    wait_until("there was more than enough to judge by", || lab.origin("green").served() > served + 200);
    let told = verdict(&lab);
    assert_eq!(
        (&told["state"], &told["verdict"]["too_few_clients"]),
        (&json!("suspect"), &json!(true)),
        "{told}"
    );
    assert!((35..=45).contains(&told["verdict"]["clients"].as_u64().unwrap()), "{told}");
    assert!(!is_reverted(&lab) && lab.weight("green") == 1_000, "it leans back, and no more: {told}");
    let (_, text, _) = lab.cli(&["status", "shop"]);
    assert!(text.contains("too few clients"), "{text}");
    drop(few);
    let _many = Crowd::of(lab.address(), 2_000);
    wait_until("it went back", || lab.weight("blue") == 10_000);
    assert!(is_reverted(&lab));
}

#[test]
fn requests_without_a_key_have_coins_of_their_own() {
    let green = Pulse::well();
    let lab = shop(&green);
    green_to(&lab, 1_000);
    green.set(500);
    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopped) = (lab.address(), Arc::clone(&stop));
    let thread = thread::spawn(move || {
        let mut client = Client::connect(address);
        while !stopped.load(Ordering::SeqCst) {
            client.get("/");
        }
    });
    wait_until("it went back", || lab.weight("blue") == 10_000);
    stop.store(true, Ordering::SeqCst);
    thread.join().unwrap();
    assert!(is_reverted(&lab));
}
