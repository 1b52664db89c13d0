//! Rolling upgrades: one machine after the other, each said to be safe before it is stopped; and what is done when one of them
//! does not come.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a test"
)]

mod lab;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::held::Later;
use lab::origin::Then;
use lab::process::Endpoint;
use lab::{Client, Gate, Lab, Origin, origin, websocket};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const SERVES: &str = "serves_as_an_endpoint";

#[test]
fn serves_as_an_endpoint() {
    lab::process::serve_if_asked();
}

/// A service whose version `blue` has so many endpoints, which say their names.
fn pool(count: usize, extra: &str) -> Lab {
    let origins = (0..count).map(|index| Origin::start(&format!("old{index}"))).collect();
    Lab::pool(
        origins,
        &[],
        "",
        &format!("drain = {{ patience = \"0s\", spread = \"0s\", deadline = \"5s\" }}\n{extra}"),
    )
}

fn address(lab: &Lab, name: &str) -> String {
    lab.origin(name).address.to_string()
}

fn begin(lab: &Lab, body: &Value) -> Value {
    let (status, told) = lab.call("POST", "/v1/services/shop/rollout", body);
    assert_eq!(status, 202, "{told}");
    told
}

fn rollout(lab: &Lab) -> Value {
    let (status, told) = lab.call("GET", "/v1/services/shop/rollout", &Value::Null);
    assert_eq!(status, 200, "{told}");
    told
}

fn ended(lab: &Lab) -> Value {
    lab::wait_until("the rollout ends", || {
        !["running", "reversing"].contains(&rollout(lab)["state"].as_str().unwrap())
    });
    rollout(lab)
}

fn wait_for_step(lab: &Lab, index: usize, state: &str) {
    lab::wait_until(state, || rollout(lab)["steps"][index]["state"] == state);
}

/// Who answers, out of enough requests for everybody who serves to have had one.
fn who_answers(lab: &Lab) -> Vec<String> {
    let mut names: Vec<_> = (0..40).map(|_| lab.get("/").version().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// The endpoints of `blue` as they stand.
fn endpoints(lab: &Lab, version: &str) -> Vec<(String, bool)> {
    let shop = lab.shop();
    let version =
        shop["versions"].as_array().unwrap().iter().find(|known| known["name"] == version).unwrap().clone();
    let endpoint = |endpoint: &Value| {
        (endpoint["address"].as_str().unwrap().to_owned(), endpoint["draining"].as_bool().unwrap())
    };
    version["endpoints"].as_array().unwrap().iter().map(endpoint).collect()
}

// ---- The figure ----

/// Keeps WebSockets open and echoing; who is told to go comes again.
struct Sockets {
    stop: Arc<AtomicBool>,
    told_to_go: Arc<AtomicU64>,
    echoes: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Sockets {
    fn open(address: SocketAddr, count: usize) -> Self {
        let (stop, told_to_go, echoes): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) =
            Default::default();
        let threads = (0..count).map(|_| {
            let (stop, told, echoes) = (Arc::clone(&stop), Arc::clone(&told_to_go), Arc::clone(&echoes));
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let mut socket = websocket::connect(address, "/ws");
                    loop {
                        if stop.load(Ordering::SeqCst) {
                            let _ = socket.close(None);
                            while socket.read().is_ok() {}
                            break;
                        }
                        let said = socket.send(Message::text("ping")).map(|()| socket.read());
                        match said {
                            Ok(Ok(Message::Text(text))) if text.as_str() == "ping" => {
                                echoes.fetch_add(1, Ordering::SeqCst);
                                thread::sleep(Duration::from_millis(20));
                            }
                            Ok(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == 1012 => {
                                told.fetch_add(1, Ordering::SeqCst);
                                while socket.read().is_ok() {}
                                break;
                            }
                            other => {
                                failures.push(format!("{other:?}"));
                                break;
                            }
                        }
                    }
                }
                failures
            })
        });
        let threads = threads.collect();
        Self { stop, told_to_go, echoes, threads }
    }

    fn close(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

/// Sends requests at a steady rate over kept connections; gives what failed, and how many there were.
struct Steady {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<(u64, Vec<String>)>>,
}

impl Steady {
    fn start(address: SocketAddr, clients: u32, each: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..clients).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let (mut client, mut count, mut failures) = (Client::connect(address), 0, Vec::new());
                let (start, pause) = (Instant::now(), Duration::from_secs(1) / each);
                while !stop.load(Ordering::SeqCst) {
                    match client.try_get("/") {
                        Ok(answer) if answer.status == 200 && answer.is_whole => {}
                        other => failures.push(format!("{other:?}")),
                    }
                    count += 1;
                    let due = start + pause * u32::try_from(count).unwrap();
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                (count, failures)
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).fold((0, Vec::new()), |mut sum, one| {
            sum.0 += one.0;
            sum.1.extend(one.1);
            sum
        })
    }
}

/// Ten machines are replaced under load with WebSockets open. Each is killed as soon as it is said to be safe, and its
/// replacement is started only then.
#[test]
fn ten_endpoints_are_replaced_under_load_and_nobody_notices() {
    let mut running: BTreeMap<String, Endpoint> = (0..10)
        .map(|_| Endpoint::start(SERVES, "127.0.0.1:0"))
        .map(|endpoint| (endpoint.address.to_string(), endpoint))
        .collect();
    let old: Vec<SocketAddr> = running.values().map(|endpoint| endpoint.address).collect();
    let new: Vec<SocketAddr> = (0..10).map(|_| origin::nobody()).collect();
    let settings = "drain = { patience = \"0s\", spread = \"300ms\", deadline = \"20s\" }";
    let lab = Lab::pool(Vec::new(), &old, "", settings);
    let (load, sockets) = (Steady::start(lab.address(), 8, 250), Sockets::open(lab.address(), 20));
    lab::wait_until("all WebSockets are open", || sockets.echoes.load(Ordering::SeqCst) > 100);
    let mut events = lab.events();
    let since = Instant::now();
    let replace: Vec<_> = old
        .iter()
        .zip(&new)
        .map(|(out, into)| json!({ "out": out.to_string(), "into": into.to_string() }))
        .collect();
    let told = begin(&lab, &json!({ "replace": replace, "reason": "new kernel" }));
    assert_eq!((&told["min_serving"], &told["serving"]), (&json!(9), &json!(10)));
    let mut safe = 0;
    loop {
        let event = events.wait_for(|event| event["type"] == "rollout");
        let state = event["rollout"]["state"].as_str().unwrap();
        if event["now"]["state"] == "safe" {
            let out = event["now"]["out"].as_str().unwrap();
            let path = format!("/v1/services/shop/versions/blue/endpoints/{out}/drain");
            assert_eq!(lab.call("GET", &path, &Value::Null).1["drained"], true, "{out}");
            running.remove(out).expect("one that runs").kill();
            let into = event["now"]["into"].as_str().unwrap();
            running.insert(into.to_owned(), Endpoint::start(SERVES, into));
            safe += 1;
        }
        if state != "running" {
            assert_eq!(state, "done", "{event:#}");
            break;
        }
    }
    let took = since.elapsed();
    let ((count, failures), told) = (load.stop(), rollout(&lab));
    let told_to_go = sockets.told_to_go.load(Ordering::SeqCst);
    assert_eq!(failures, [""; 0], "of {count}");
    assert_eq!(sockets.close(), [""; 0]);
    assert_eq!((safe, &told["least_serving"]), (10, &json!(9)));
    let serving: Vec<_> = endpoints(&lab, "blue").into_iter().map(|(address, _)| address).collect();
    assert_eq!(serving.len(), 10);
    assert!(new.iter().all(|new| serving.contains(&new.to_string())), "{serving:?}");
    assert!(told_to_go > 0, "WebSockets of endpoints that went were told to go");
    eprintln!(
        "10 endpoints in {:.1} s under {:.0} requests/s: {count} requests and {told_to_go} WebSockets told to go, 0 failed",
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64()
    );
    let (_, history) = lab.call("GET", "/v1/changes?limit=3", &Value::Null);
    let last = &history["changes"][0];
    assert_eq!(last["reason"], format!("rollout, step 10 of 10: {} is gone (new kernel)", old[9]));
    assert_eq!(last["actor"]["kind"], "controller");
}

// ---- What lasts on an endpoint that goes ----

#[test]
fn a_websocket_on_an_endpoint_that_drains_is_told_to_go_and_others_stay() {
    let echoes = [websocket::echoes(), websocket::echoes()];
    let lab = Lab::pool(
        Vec::new(),
        &echoes,
        "",
        "drain = { patience = \"0s\", spread = \"0s\", deadline = \"10s\" }",
    );
    let mut sockets: Vec<_> = (0..8).map(|_| websocket::connect(lab.address(), "/ws")).collect();
    assert!(sockets.iter_mut().all(|socket| websocket::echoed(socket, "a")));
    let path = format!("/v1/services/shop/versions/blue/endpoints/{}/drain", echoes[0]);
    let left = || lab.call("GET", &path, &Value::Null).1["remaining"][0]["count"].as_u64().unwrap_or(0);
    let on_it = left();
    assert!((1..8).contains(&on_it), "{on_it}");
    assert_eq!(lab.call("POST", &path, &Value::Null).0, 200);
    lab::wait_until("the endpoint is empty", || lab.call("GET", &path, &Value::Null).1["drained"] == true);
    let (mut told, mut stay) = (0, 0);
    for mut socket in sockets {
        let _ = socket.send(Message::text("still there?"));
        match socket.read() {
            Ok(Message::Close(Some(frame))) => {
                assert_eq!(u16::from(frame.code), 1012);
                told += 1;
            }
            Ok(Message::Text(_)) => stay += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((told, stay), (on_it, 8 - on_it));
}

#[test]
fn a_websocket_on_an_endpoint_that_serves_again_before_its_time_stays() {
    let echo = [websocket::echoes(), websocket::echoes(), websocket::echoes()];
    let lab = Lab::pool(
        Vec::new(),
        &echo,
        "",
        "drain = { patience = \"300ms\", spread = \"0s\", deadline = \"10s\" }",
    );
    let mut sockets: Vec<_> = (0..12).map(|_| websocket::connect(lab.address(), "/ws")).collect();
    let drain = |at: &SocketAddr| {
        let path = format!("/v1/services/shop/versions/blue/endpoints/{at}");
        assert_eq!(lab.call("POST", &format!("{path}/drain"), &Value::Null).0, 200);
        path
    };
    for at in &echo[..2] {
        assert_eq!(lab.call("PUT", &drain(at), &Value::Null).0, 200);
    }
    // Those on the one that stays drained are told later than the others would have been.
    let answer = lab.call("GET", &format!("{}/drain", drain(&echo[2])), &Value::Null).1;
    let left = answer["remaining"][0]["count"].as_u64().unwrap();
    lab::wait_until("its own are told", || {
        lab.metric_total("switchback_drain_dismissed_total{", "websocket") >= left as f64
    });
    let stay = sockets.iter_mut().filter_map(|socket| {
        socket.send(Message::text("a")).ok()?;
        socket.read().ok().filter(|message| *message == Message::text("a"))
    });
    assert_eq!(stay.count() as u64, 12 - left);
}

// ---- Addresses that others use ----

/// `shop` and `api` on the same two endpoints.
fn two_services_on_one_pool() -> Lab {
    let origins = vec![Origin::start("old0"), Origin::start("old1")];
    let both: Vec<_> = origins.iter().map(|origin| origin.address.to_string()).collect();
    let api =
        format!("[services.api]\nroutes = [{{ path = \"/api/\" }}]\nversions.v1.endpoints = {both:?}\n");
    Lab::pool(origins, &[], &api, "drain = { patience = \"0s\", spread = \"0s\", deadline = \"5s\" }")
}

#[test]
fn an_endpoint_that_others_use_is_replaced_and_never_said_to_be_safe() {
    let (lab, new) = (two_services_on_one_pool(), Origin::start("new"));
    let old = address(&lab, "old0");
    let mut events = lab.events();
    let pair = format!("{old}={}", new.address);
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--surge", "--replace", &pair]);
    assert_eq!(exit, 1, "who stops it after this would stop the other service's: {out}{err}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("shop: done, ") && !out.contains("is safe to stop"), "{out}");
    assert!(last.ends_with(&format!("; api/v1 uses {old} too: do not stop it")), "{out}");
    events.wait_for(|event| event["rollout"]["state"] == "done");
    let states: Vec<_> = events.past.iter().filter_map(|event| event["now"]["state"].as_str()).collect();
    assert!(states.contains(&"shared") && !states.contains(&"safe"), "{states:?}");
    assert_eq!(who_answers(&lab), ["new", "old1"]);
}

#[test]
fn nobody_is_asked_to_deal_with_an_endpoint_that_others_use() {
    let (lab, new) = (two_services_on_one_pool(), Origin::start("new"));
    let old = address(&lab, "old0");
    begin(
        &lab,
        &json!({ "replace": [{ "out": old, "into": new.address.to_string() }], "surge": true, "confirm": true }),
    );
    wait_for_step(&lab, 0, "shared");
    let step = &rollout(&lab)["steps"][0];
    assert_eq!(step["awaits_confirmation"], false, "{step}");
    assert_eq!(step["also_used_by"], json!([{ "service": "api", "version": "v1", "address": old }]));
    let proceed = || {
        let path = "/v1/services/shop/rollout/proceed";
        lab.call("POST", path, &json!({ "endpoint": old })).0
    };
    assert_eq!(proceed(), 409);
    let path = format!("/v1/services/api/versions/v1/endpoints/{old}/drain");
    assert_eq!(lab.call("POST", &path, &Value::Null).0, 200);
    wait_for_step(&lab, 0, "safe");
    assert_eq!(proceed(), 200);
    let told = ended(&lab);
    assert_eq!((&told["state"], &told["steps"][0]["also_used_by"]), (&json!("done"), &Value::Null), "{told}");
}

// ---- Between versions ----

#[test]
fn the_weight_follows_the_endpoints_from_one_version_to_another() {
    let lab = pool(4, "");
    let new: Vec<_> = (0..4).map(|index| Origin::start(&format!("new{index}"))).collect();
    let pool: Vec<_> = new.iter().map(|origin| origin.address.to_string()).collect();
    let (status, _) = lab.call("PUT", "/v1/services/shop/versions/green", &json!({ "endpoints": pool }));
    assert_eq!(status, 200);
    let mut events = lab.events();
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--from", "blue", "--to", "green", "--surge"]);
    assert_eq!(exit, 0, "{out}{err}");
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("shop: done, never fewer than 4 endpoints served; "), "{out}");
    assert!(last.ends_with(" are safe to stop"), "{out}");
    events.wait_for(|event| event["rollout"]["state"] == "done");
    let changes = events.past.iter().filter(|event| event["type"] == "changed");
    let mut shares: Vec<_> = changes
        .map(|event| event["change"]["services"]["shop"]["weights"]["green"].as_u64().unwrap_or(0))
        .collect();
    shares.dedup();
    // A new endpoint comes first: 1 of 5, then with the old one gone 1 of 4, and so on.
    assert_eq!(shares, [2_000, 2_500, 4_000, 5_000, 6_000, 7_500, 8_000, 10_000]);
    assert_eq!(lab.shop()["stable"], "green");
    assert_eq!(who_answers(&lab), ["new0", "new1", "new2", "new3"]);
    let (_, drain) = lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null);
    assert_eq!(drain["drained"], true);
}

#[test]
fn somebody_else_who_moves_the_weights_ends_it_and_nothing_is_set_right() {
    let lab = pool(2, "");
    let new: Vec<_> = (0..2).map(|index| Origin::start(&format!("new{index}"))).collect();
    let pool: Vec<_> = new.iter().map(|origin| origin.address.to_string()).collect();
    lab.call("PUT", "/v1/services/shop/versions/green", &json!({ "endpoints": pool }));
    begin(&lab, &json!({ "from": "blue", "to": "green", "surge": true, "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    lab.weights(&json!({ "blue": 9_000, "green": 1_000 }));
    let out = rollout(&lab)["steps"][0]["out"].clone();
    let (status, _) = lab.call("POST", "/v1/services/shop/rollout/proceed", &json!({ "endpoint": out }));
    assert_eq!(status, 200);
    let told = ended(&lab);
    assert_eq!(
        (&told["state"], &told["why"]),
        (&json!("stopped"), &json!("somebody else has changed the weights of `shop`"))
    );
    assert_eq!(lab.shop()["weights"], json!({ "blue": 9_000, "green": 1_000 }));
}

// ---- What goes wrong ----

#[test]
fn a_replacement_that_never_comes_is_waited_for_and_then_everything_is_taken_back() {
    let lab = pool(3, "");
    let (good, dead) = (Origin::start("new0"), origin::nobody());
    let first = format!("{}={}", address(&lab, "old0"), good.address);
    let second = format!("{}={dead}", address(&lab, "old1"));
    let (exit, out, err) =
        lab.cli(&["rollout", "shop", "--replace", &first, &second, "--ready-timeout", "300ms"]);
    assert_eq!(exit, 3, "{out}{err}");
    assert!(out.contains(&format!("going back: {dead} is not there: cannot connect")), "{out}");
    assert!(out.trim_end().ends_with("the old endpoints serve: do not stop them"), "{out}");
    assert_eq!(who_answers(&lab), ["old0", "old1", "old2"]);
    assert!(endpoints(&lab, "blue").iter().all(|(_, draining)| !draining));
    let told = rollout(&lab);
    let states: Vec<_> = told["steps"].as_array().unwrap().iter().map(|step| step["state"].clone()).collect();
    assert_eq!((&told["state"], states), (&json!("reversed"), vec![json!("restored"), json!("restored")]));
}

#[test]
fn a_replacement_that_its_checks_find_unwell_does_not_count_and_everything_is_taken_back() {
    let lab = pool(3, "health = { path = \"/healthz\", interval = \"100ms\", rise = 2, fall = 2 }");
    let sick = Origin::behaving("sick", |seen, stream| {
        let status = if seen.path() == "/healthz" { "503 Service Unavailable" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\nx-version: sick\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let replace = json!([{ "out": address(&lab, "old0"), "into": sick.address.to_string() }]);
    begin(&lab, &json!({ "replace": replace, "ready_timeout": "1s" }));
    let told = ended(&lab);
    assert_eq!((&told["state"], &told["timed_out"]), (&json!("reversed"), &json!(true)));
    assert_eq!(told["why"], format!("{} is not healthy", sick.address));
    assert!(sick.seen().iter().any(|seen| seen.path() == "/healthz"), "it was asked");
    assert_eq!(who_answers(&lab), ["old0", "old1", "old2"]);
}

#[test]
fn an_endpoint_that_was_drained_before_is_so_again_when_everything_is_taken_back() {
    let lab = pool(3, "");
    let (old0, old1, spare) = (address(&lab, "old0"), address(&lab, "old1"), address(&lab, "old2"));
    let path = format!("/v1/services/shop/versions/blue/endpoints/{spare}/drain");
    assert_eq!(lab.call("POST", &path, &Value::Null).0, 200);
    let before = endpoints(&lab, "blue");
    let replace =
        json!([{ "out": old0, "into": spare }, { "out": old1, "into": origin::nobody().to_string() }]);
    begin(&lab, &json!({ "replace": replace }));
    wait_for_step(&lab, 1, "warming");
    assert_eq!(who_answers(&lab), ["old2"]);
    lab.cli(&["rollout", "shop", "--reverse"]);
    assert_eq!(rollout(&lab)["state"], "reversed");
    let mut after = endpoints(&lab, "blue");
    after.sort_by_key(|endpoint| before.iter().position(|other| other.0 == endpoint.0));
    assert_eq!(after, before);
    assert_eq!(who_answers(&lab), ["old0", "old1"]);
}

#[test]
fn an_old_endpoint_that_was_stopped_does_not_come_back_and_the_new_one_goes_on() {
    let mut lab = pool(3, "");
    let (good, dead) = (Origin::start("new0"), origin::nobody());
    let replace = json!([
        { "out": address(&lab, "old0"), "into": good.address.to_string() },
        { "out": address(&lab, "old1"), "into": dead.to_string() },
    ]);
    begin(&lab, &json!({ "replace": replace, "ready_timeout": "10m" }));
    wait_for_step(&lab, 1, "warming");
    // It was said to be safe.
    lab.origins.retain(|origin| origin.name != "old0");
    let (exit, out, _) = lab.cli(&["rollout", "shop", "--reverse"]);
    assert_eq!(exit, 1, "{out}");
    assert_eq!(who_answers(&lab), ["new0", "old1", "old2"]);
    let told = rollout(&lab);
    assert_eq!(
        (&told["steps"][0]["state"], &told["steps"][1]["state"]),
        (&json!("kept"), &json!("restored"))
    );
    assert_eq!(told["why"], "somebody has ended it");
}

#[test]
fn a_rollout_that_is_stopped_keeps_what_is_done() {
    let lab = pool(3, "");
    let new: Vec<_> = (0..2).map(|index| Origin::start(&format!("new{index}"))).collect();
    let replace: Vec<_> = (0..2)
        .map(|index| json!({ "out": address(&lab, &format!("old{index}")), "into": new[index].address.to_string() }))
        .collect();
    begin(&lab, &json!({ "replace": replace, "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    let (status, refused) =
        lab.call("POST", "/v1/services/shop/rollout", &json!({ "replace": replace, "confirm": true }));
    assert_eq!((status, &refused["type"]), (409, &json!("urn:switchback:problem:rollout_underway")));
    let (exit, _, err) = lab.cli(&["upgrade"]);
    assert_eq!(exit, 1);
    assert!(err.contains("a rollout is under way"), "{err}");
    let (exit, _, err) = lab.cli(&["rollout", "shop", "--proceed", &address(&lab, "old1")]);
    assert!(exit == 1 && err.contains("does not wait for a word about"), "{err}");
    let (exit, out, _) = lab.cli(&["--json", "rollout", "shop", "--proceed", &address(&lab, "old0")]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, &told["service"]), (0, &json!("shop")), "{told}");
    wait_for_step(&lab, 1, "safe");
    let (exit, out, _) = lab.cli(&["rollout", "shop", "--stop"]);
    assert_eq!(exit, 0, "{out}");
    assert_eq!(rollout(&lab)["state"], "stopped");
    assert_eq!(who_answers(&lab), ["new0", "old1", "old2"]);
}

#[test]
fn on_the_way_back_nothing_is_said_to_be_safe_that_serves_again() {
    for (how, state) in [("--reverse", "reversed"), ("--stop", "stopped")] {
        let lab = pool(3, "");
        let new: Vec<_> = (0..2).map(|index| Origin::start(&format!("new{index}"))).collect();
        let old: Vec<_> = (0..2).map(|index| address(&lab, &format!("old{index}"))).collect();
        let pairs = old.iter().zip(&new);
        let pairs = pairs.map(|(out, new)| json!({ "out": out, "into": new.address.to_string() }));
        begin(&lab, &json!({ "replace": pairs.collect::<Vec<_>>(), "confirm": true }));
        wait_for_step(&lab, 0, "safe");
        assert_eq!(lab.cli(&["rollout", "shop", "--proceed", &old[0]]).0, 0);
        wait_for_step(&lab, 1, "safe");
        let (exit, out, err) = lab.cli(&["rollout", "shop", how]);
        assert_eq!((exit, &rollout(&lab)["state"]), (0, &json!(state)), "what was asked is done: {out}{err}");
        assert!(out.contains(&format!("2/2: {} serves again", old[1])), "{out}");
        assert!(!out.contains("safe to stop"), "{out}");
    }
}

// ---- What somebody else removes ----

#[test]
fn an_old_endpoint_that_its_hook_removes_is_replaced_all_the_same() {
    let (lab, new) = (pool(2, ""), Origin::start("new"));
    let old = address(&lab, "old0");
    let hook = format!("{} endpoints rm shop/blue $SWITCHBACK_ENDPOINT", env!("CARGO_BIN_EXE_switchback"));
    let pair = format!("{old}={}", new.address);
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--replace", &pair, "--hook", &hook]);
    assert_eq!((exit, &rollout(&lab)["state"]), (0, &json!("done")), "{out}{err}");
    assert_eq!(who_answers(&lab), ["new", "old1"]);
}

#[test]
fn an_old_endpoint_that_somebody_has_removed_is_not_put_back() {
    let lab = pool(3, "");
    let old = address(&lab, "old0");
    let into = origin::nobody().to_string();
    begin(&lab, &json!({ "replace": [{ "out": old, "into": into }], "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    let path = format!("/v1/services/shop/versions/blue/endpoints/{old}");
    assert_eq!(lab.call("DELETE", &path, &Value::Null).0, 200);
    let (exit, out, _) = lab.cli(&["rollout", "shop", "--reverse"]);
    assert_eq!((exit, &rollout(&lab)["steps"][0]["state"]), (1, &json!("lost")), "{out}");
    assert!(out.contains(&format!("{old} does not serve")), "{out}");
    assert_eq!(who_answers(&lab), ["old1", "old2"]);
}

#[test]
fn too_little_capacity_is_a_reason_not_to_begin() {
    let lab = pool(3, "");
    let all: Vec<_> = (0..3).map(|index| address(&lab, &format!("old{index}"))).collect();
    let new = origin::nobody();
    let one = format!("{}={new}", all[0]);
    let (exit, _, err) = lab.cli(&["rollout", "shop", "--replace", &one, "--min-capacity", "100%"]);
    assert_eq!(exit, 1);
    assert!(err.contains("2 of 3 endpoints would serve, and at least 3 have to"), "{err}");
    assert!(err.contains("hint: replace fewer at a time"), "{err}");
    for (args, said) in [
        (&["--replace", &all[0]][..], "somebody has to say when that is done"),
        (&["--replace", &one, &one][..], "is named twice"),
        (&["--replace", &format!("{new}={new}"), "--confirm"][..], "does not serve in version `blue`"),
        (&["--replace", &format!("{}={}", all[0], all[1])][..], "serves in version `blue` already"),
        (&["--confirm", "--batch", "3"][..], "0 of 3 endpoints would serve"),
        (&["--to", "purple"][..], "no version `purple`"),
    ] {
        let (exit, out, err) = lab.cli(&[&["rollout", "shop"], args].concat());
        assert!(exit == 1 && err.contains(said), "{args:?}: {out}{err}");
    }
    let (exit, out, _) = lab.cli(&["rollout", "shop", "--replace", &one, "--dry-run"]);
    assert_eq!(exit, 0);
    assert!(out.ends_with("nothing was changed: this was a dry run\n"), "{out}");
    assert_eq!(lab.call("GET", "/v1/services/shop/rollout", &Value::Null).0, 404);
    assert_eq!(lab.epoch(), 1);
}

// ---- Hooks ----

#[test]
fn machines_are_restarted_in_their_place_by_a_hook() {
    let lab = pool(4, "");
    let log = lab.dir.path().join("hooks");
    let hook = format!(
        "echo \"$SWITCHBACK_STEP/$SWITCHBACK_STEPS $SWITCHBACK_SERVICE $SWITCHBACK_ENDPOINT $SWITCHBACK_REPLACEMENT\" >> {}",
        log.display()
    );
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--batch", "2", "--hook", &hook]);
    assert_eq!(exit, 0, "{out}{err}");
    let told = fs::read_to_string(log).unwrap();
    let mut lines: Vec<_> = told.lines().collect();
    lines.sort_unstable();
    let expected: Vec<_> = (0..4)
        .map(|index| {
            let at = address(&lab, &format!("old{index}"));
            format!("{}/4 shop {at} {at}", index + 1)
        })
        .collect();
    assert_eq!(lines, expected);
    assert!(
        out.trim_end().ends_with(
            "every endpoint was restarted and serves again (never fewer than 2 did): stop none of them"
        ),
        "{out}"
    );
    assert_eq!(who_answers(&lab).len(), 4);
}

#[test]
fn a_hook_that_fails_ends_the_rollout() {
    let lab = pool(3, "");
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--hook", "exit 7"]);
    assert_eq!(exit, 1, "{out}{err}");
    assert!(out.contains("has failed (exit status: 7): the rollout ends"), "{out}");
    let why = format!("the hook for {} has failed (exit status: 7)", address(&lab, "old0"));
    let told = rollout(&lab);
    assert_eq!((&told["state"], &told["why"]), (&json!("reversed"), &json!(why)));
    assert_eq!(who_answers(&lab).len(), 3);
}

// ---- The process ends ----

#[test]
fn after_a_crash_it_is_said_where_it_stopped_and_nothing_goes_on_by_itself() {
    let mut lab = pool(3, "");
    begin(&lab, &json!({ "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    lab.kill_and_restart();
    lab.proxy().wait_for_log("a rollout was interrupted by the end of its process");
    let (exit, out, _) = lab.cli(&["rollout", "shop", "--status"]);
    assert_eq!(exit, 1);
    let first = out.lines().nth(1).unwrap();
    assert!(first.contains(&address(&lab, "old0")) && first.contains("safe"), "{out}");
    assert!(out.trim_end().ends_with("`switchback status shop` shows what serves"), "{out}");
    let epoch = lab.epoch();
    assert!(endpoints(&lab, "blue")[0].1, "it stays drained");
    assert_eq!(
        lab.call(
            "PUT",
            &format!("/v1/services/shop/versions/blue/endpoints/{}", address(&lab, "old0")),
            &Value::Null
        )
        .0,
        200
    );
    assert_eq!(lab.epoch(), epoch + 1, "nobody else changed anything");
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--hook", "true"]);
    assert_eq!(exit, 0, "{out}{err}");
    lab.kill_and_restart();
    assert_eq!(rollout_status(&lab), 404, "what is over is not told of by the next process");
}

fn rollout_status(lab: &Lab) -> u16 {
    lab.call("GET", "/v1/services/shop/rollout", &Value::Null).0
}

// ---- What somebody else does meanwhile ----

fn put(lab: &Lab, version: &str, endpoint: &str, body: &Value) {
    let path = format!("/v1/services/shop/versions/{version}/endpoints/{endpoint}");
    let (status, answer) = lab.call("PUT", &path, body);
    assert_eq!(status, 200, "{answer}");
}

/// Three endpoints of which the first has a request in flight until the gate opens.
fn busy(extra: &str) -> (Lab, Gate, Later) {
    let gate = Gate::default();
    let origins = vec![Origin::held("old0", &gate), Origin::start("old1"), Origin::start("old2")];
    let settings = "drain = { patience = \"0s\", spread = \"0s\", deadline = \"20s\" }";
    let lab = Lab::pool(origins, &[], "", &format!("{settings}\n{extra}"));
    let request = "GET /late HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n";
    loop {
        let asked = lab.ask_later(request);
        lab::wait_until("it is answered, or waits", || {
            asked.is_answered() || lab.origin("old0").served() > 0
        });
        if lab.origin("old0").served() > 0 {
            return (lab, gate, asked);
        }
    }
}

#[test]
fn an_endpoint_that_somebody_puts_back_is_not_said_to_be_safe() {
    let (lab, gate, asked) = busy("");
    let old = address(&lab, "old0");
    begin(&lab, &json!({ "replace": [{ "out": old, "into": old }], "confirm": true }));
    wait_for_step(&lab, 0, "draining");
    put(&lab, "blue", &old, &Value::Null);
    let told = ended(&lab);
    let why = format!("somebody else has put {old} back into service");
    assert_eq!((&told["state"], &told["why"]), (&json!("stopped"), &json!(why)));
    gate.open();
    asked.answer();
    // The same while it is waited for a word about it.
    begin(&lab, &json!({ "replace": [{ "out": old, "into": old }], "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    put(&lab, "blue", &old, &Value::Null);
    assert_eq!(ended(&lab)["why"], why);
    let (_, out, _) = lab.cli(&["rollout", "shop", "--status"]);
    assert!(out.trim_end().ends_with("back into service; stop nothing"), "{out}");
}

#[test]
fn an_old_endpoint_that_somebody_puts_back_before_the_new_one_serves_is_not_said_to_be_safe() {
    let lab = pool(2, "");
    let (old, new) = (address(&lab, "old0"), origin::nobody().to_string());
    begin(&lab, &json!({ "replace": [{ "out": old, "into": new }] }));
    wait_for_step(&lab, 0, "warming");
    put(&lab, "blue", &old, &Value::Null);
    let _late = Origin::at(&new, "new0", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-version: new0\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let told = ended(&lab);
    assert_eq!(told["why"], format!("somebody else has put {old} back into service"));
    assert_eq!(who_answers(&lab), ["new0", "old0", "old1"]);
}

#[test]
fn changes_that_do_not_concern_it_are_no_reason_to_end() {
    let lab = pool(3, "");
    let other = origin::nobody().to_string();
    let is_over = AtomicBool::new(false);
    let replace: Vec<_> = (0..2).map(|index| address(&lab, &format!("old{index}"))).collect();
    let new: Vec<_> = (0..2).map(|index| Origin::start(&format!("new{index}"))).collect();
    let pairs: Vec<_> = replace.iter().zip(&new).map(|(old, new)| format!("{old}={}", new.address)).collect();
    lab.call("PUT", "/v1/services/shop/versions/green", &json!({ "endpoints": [other] }));
    let changes = thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::SeqCst) {
                put(&lab, "green", &other, &json!({ "weight": 1 + count % 2 }));
                count += 1;
            }
            count
        });
        let (exit, out, err) =
            lab.cli(&["rollout", "shop", "--settle", "100ms", "--replace", &pairs[0], &pairs[1]]);
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(exit, 0, "{out}{err}");
        changes.join().unwrap()
    });
    assert!(changes > 0);
    assert_eq!(who_answers(&lab), ["new0", "new1", "old2"]);
}

#[test]
fn a_rollout_waits_for_the_end_of_an_exclusive_flip_and_goes_on() {
    let (lab, gate, asked) = busy("");
    let old = address(&lab, "old1");
    let green = json!({ "endpoints": [lab.origin("old2").address.to_string()] });
    assert_eq!(lab.call("PUT", "/v1/services/shop/versions/green", &green).0, 200);
    begin(&lab, &json!({ "replace": [{ "out": old, "into": old }], "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    let flip = || lab.call("POST", "/v1/services/shop/flip", &json!({ "to": "green", "exclusive": true }));
    let hindered_by_it = || {
        lab::wait_until("it is hindered", || {
            let told = rollout(&lab)["hindrance"].clone();
            told == "an exclusive flip of `shop` to `green` is under way"
        });
    };
    let is_held = || lab::wait_until("it is held", || lab.shop()["phase"] == "holding");
    let call_off = || assert_eq!(lab.call("POST", "/v1/services/shop/release", &Value::Null).0, 200);
    thread::scope(|scope| {
        let flipped = scope.spawn(flip);
        is_held();
        assert_eq!(lab.cli(&["rollout", "shop", "--proceed", &old]).0, 0);
        hindered_by_it();
        assert_eq!(rollout(&lab)["state"], "running");
        call_off();
        assert_eq!(flipped.join().unwrap().0, 409);
    });
    let told = ended(&lab);
    assert_eq!((&told["state"], &told["hindrance"]), (&json!("done"), &Value::Null), "{told}");
    // And so it does on its way back.
    begin(&lab, &json!({ "replace": [{ "out": old, "into": old }], "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    thread::scope(|scope| {
        let flipped = scope.spawn(flip);
        is_held();
        assert_eq!(lab.call("DELETE", "/v1/services/shop/rollout", &Value::Null).0, 202);
        hindered_by_it();
        assert_eq!(rollout(&lab)["state"], "reversing");
        call_off();
        assert_eq!(flipped.join().unwrap().0, 409);
    });
    let told = ended(&lab);
    assert_eq!((&told["state"], &told["hindrance"]), (&json!("reversed"), &Value::Null), "{told}");
    assert!(endpoints(&lab, "blue").iter().all(|(_, draining)| !draining));
    gate.open();
    asked.answer();
}

#[test]
fn weights_that_somebody_else_sets_stay_whenever_he_does() {
    let lab = pool(4, "");
    let new: Vec<_> = (0..4).map(|index| Origin::start(&format!("new{index}"))).collect();
    let pool: Vec<_> = new.iter().map(|origin| origin.address.to_string()).collect();
    lab.call("PUT", "/v1/services/shop/versions/green", &json!({ "endpoints": pool }));
    let mut set = 0;
    for round in 0..8 {
        lab.weights(&json!({ "blue": 10_000 }));
        for endpoint in lab.shop()["versions"][0]["endpoints"].as_array().unwrap() {
            put(&lab, "blue", endpoint["address"].as_str().unwrap(), &Value::Null);
        }
        begin(&lab, &json!({ "from": "blue", "to": "green", "surge": true }));
        wait_for_step(&lab, round % 3, "done");
        let weights = json!({ "blue": 7_000 + round, "green": 3_000 - round });
        let (status, _) = lab.call("PUT", "/v1/services/shop/weights", &weights);
        ended(&lab);
        // Refused where nobody of the old version serves any more.
        if status == 200 {
            assert_eq!(lab.shop()["weights"], weights, "round {round}");
            set += 1;
        }
    }
    assert!(set > 0, "he never came in between");
}

#[test]
fn a_rollout_between_versions_leaves_a_way_back() {
    let lab = pool(2, "");
    let new: Vec<_> = (0..2).map(|index| Origin::start(&format!("new{index}"))).collect();
    let pool: Vec<_> = new.iter().map(|origin| origin.address.to_string()).collect();
    lab.call("PUT", "/v1/services/shop/versions/green", &json!({ "endpoints": pool }));
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--to", "green", "--surge"]);
    assert_eq!(exit, 0, "{out}{err}");
    for (old, draining) in endpoints(&lab, "blue") {
        assert!(!draining, "{old} gets nothing anyhow");
        let path = format!("/v1/services/shop/versions/blue/endpoints/{old}/drain");
        assert_eq!(lab.call("GET", &path, &Value::Null).1["drained"], true, "{old} is safe to stop");
    }
    let (exit, out, err) = lab.cli(&["revert", "shop"]);
    assert_eq!(exit, 0, "{out}{err}");
    assert!(who_answers(&lab).contains(&"old0".to_owned()));
    lab.flip("blue");
    assert_eq!(who_answers(&lab), ["old0", "old1"]);
}

#[test]
fn there_is_no_way_back_to_an_old_endpoint_that_was_stopped() {
    let mut lab = pool(2, "");
    let new: Vec<_> = (0..2).map(|index| Origin::start(&format!("new{index}"))).collect();
    let pool: Vec<_> = new.iter().map(|origin| origin.address.to_string()).collect();
    lab.call("PUT", "/v1/services/shop/versions/green", &json!({ "endpoints": pool }));
    let (old0, old1) = (address(&lab, "old0"), address(&lab, "old1"));
    begin(&lab, &json!({ "to": "green", "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    lab.origins.retain(|origin| origin.name != "old0");
    assert_eq!(lab.cli(&["rollout", "shop", "--proceed", &old0]).0, 0);
    wait_for_step(&lab, 1, "safe");
    assert_eq!(lab.cli(&["rollout", "shop", "--proceed", &old1]).0, 0);
    assert_eq!(ended(&lab)["state"], "done");
    assert_eq!(endpoints(&lab, "blue"), [(old0.clone(), true), (old1.clone(), false)]);
    let status = || lab.cli(&["rollout", "shop", "--status"]);
    let (exit, out, _) = status();
    assert!(exit == 0 && out.trim_end().ends_with(&format!("{old0} and {old1} are safe to stop")), "{out}");
    assert_eq!(lab.cli(&["flip", "shop", "--to", "blue"]).0, 0);
    assert_eq!(who_answers(&lab), ["old1"]);
    let (exit, out, _) = status();
    let last = format!("{old0} is safe to stop; {old1} serves again: do not stop it");
    assert!(exit == 1 && out.trim_end().ends_with(&last), "{out}");
}

#[test]
fn a_version_that_has_weight_already_takes_over_and_the_way_back_ends_where_it_began() {
    let lab = pool(2, "");
    let new: Vec<_> = (0..2).map(|index| Origin::start(&format!("new{index}"))).collect();
    let pool: Vec<_> = new.iter().map(|origin| origin.address.to_string()).collect();
    lab.call("PUT", "/v1/services/shop/versions/green", &json!({ "endpoints": pool }));
    let begun = json!({ "blue": 9_000, "green": 1_000 });
    lab.weights(&begun);
    begin(&lab, &json!({ "from": "blue", "to": "green", "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    let (code, _, err) = lab.cli(&["rollout", "shop", "--proceed", &address(&lab, "old0")]);
    assert_eq!(code, 0, "{err}");
    wait_for_step(&lab, 0, "done");
    let (_, out, _) = lab.cli(&["rollout", "shop", "--reverse"]);
    assert_eq!((rollout(&lab)["state"].clone(), lab.shop()["weights"].clone()), (json!("reversed"), begun));
    assert!(out.trim_end().ends_with("the old endpoints serve: do not stop them"), "{out}");
    assert!(endpoints(&lab, "blue").iter().all(|(_, draining)| !draining));
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--from", "blue", "--to", "green"]);
    assert_eq!(exit, 0, "{out}{err}");
    assert_eq!(who_answers(&lab), ["new0", "new1"]);
}

#[test]
fn a_version_that_has_weight_already_takes_over_from_the_last_endpoint_of_the_other() {
    for (count, batch) in [(1, 1), (2, 2)] {
        let lab = pool(count, "");
        let new: Vec<_> = (0..count).map(|index| Origin::start(&format!("new{index}"))).collect();
        let pool: Vec<_> = new.iter().map(|origin| origin.address.to_string()).collect();
        lab.call("PUT", "/v1/services/shop/versions/green", &json!({ "endpoints": pool }));
        lab.weights(&json!({ "blue": 9_000, "green": 1_000 }));
        let batch = format!("--batch={batch}");
        let (exit, out, err) = lab.cli(&["rollout", "shop", "--from", "blue", "--to", "green", &batch]);
        assert_eq!(exit, 0, "{out}{err}");
        assert_eq!(lab.shop()["weights"], json!({ "green": 10_000 }));
        assert!(who_answers(&lab).iter().all(|name| name.starts_with("new")));
    }
}

#[test]
fn the_way_back_leaves_no_weight_on_a_version_whose_pool_somebody_else_has_replaced() {
    let lab = pool(2, "");
    let new: Vec<_> = (0..2).map(|index| Origin::start(&format!("new{index}"))).collect();
    let pool: Vec<_> = new.iter().map(|origin| origin.address.to_string()).collect();
    let path = "/v1/services/shop/versions/green";
    lab.call("PUT", path, &json!({ "endpoints": pool }));
    begin(&lab, &json!({ "from": "blue", "to": "green", "surge": true, "settle": "10m" }));
    wait_for_step(&lab, 0, "done");
    put(&lab, "blue", &address(&lab, "old0"), &Value::Null);
    let pool = [origin::nobody().to_string()];
    assert_eq!(lab.call("PUT", path, &json!({ "endpoints": pool })).0, 200);
    let told = ended(&lab);
    let why = format!("{} has become unwell", new[0].address);
    assert_eq!((&told["state"], &told["why"]), (&json!("reversed"), &json!(why)));
    assert_eq!(lab.shop()["weights"], json!({ "blue": 10_000 }));
    assert_eq!(who_answers(&lab), ["old0", "old1"]);
    let of_green: Vec<_> = endpoints(&lab, "green").into_iter().map(|(address, _)| address).collect();
    assert_eq!(of_green, pool, "what somebody else has put there is left as it is");
}

// ---- The last line ----

#[test]
fn what_was_restarted_in_its_place_is_not_said_to_serve_no_more() {
    let lab = pool(3, "");
    begin(&lab, &json!({ "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    assert_eq!(lab.cli(&["rollout", "shop", "--proceed", &address(&lab, "old0")]).0, 0);
    wait_for_step(&lab, 1, "safe");
    let (exit, out, _) = lab.cli(&["rollout", "shop", "--stop"]);
    assert_eq!(exit, 0);
    assert!(out.trim_end().ends_with("shop: stopped: somebody has ended it; stop nothing"), "{out}");
}

#[test]
fn an_endpoint_that_is_lost_is_named() {
    for (mut lab, state) in [(pool(3, ""), "safe"), (two_services_on_one_pool(), "shared")] {
        let old = address(&lab, "old0");
        begin(&lab, &json!({ "confirm": true }));
        wait_for_step(&lab, 0, state);
        lab.origins.retain(|origin| origin.name != "old0");
        let (_, out, _) = lab.cli(&["rollout", "shop", "--reverse"]);
        let lost = format!(
            "; {old} does not serve, and nothing does in its place; the other old endpoints serve: do not stop them"
        );
        assert!(out.trim_end().ends_with(&lost), "{out}");
        assert_eq!(rollout(&lab)["steps"][0]["state"], "lost");
    }
}

/// Answers its checks as the switch says.
fn switched(name: &str, is_well: &Arc<AtomicBool>) -> Origin {
    let (version, is_well) = (name.to_owned(), Arc::clone(is_well));
    Origin::behaving(name, move |seen, stream| {
        let good = seen.path() != "/healthz" || is_well.load(Ordering::SeqCst);
        let status = if good { "200 OK" } else { "503 Service Unavailable" };
        write!(stream, "HTTP/1.1 {status}\r\nx-version: {version}\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    })
}

fn checked(well: &Arc<AtomicBool>, others: &[SocketAddr], fall: u16) -> Lab {
    let origins = vec![switched("old0", well), Origin::start("old1"), Origin::start("old2")];
    let settings = format!(
        "drain = {{ patience = \"0s\", spread = \"0s\", deadline = \"5s\" }}\n\
         health = {{ path = \"/healthz\", interval = \"100ms\", rise = 1, fall = {fall} }}"
    );
    let lab = Lab::pool(origins, others, "", &settings);
    let is_known = |endpoint: &Value| endpoint["health"]["state"] != "unchecked";
    lab::wait_until("all are checked", || {
        lab.shop()["versions"][0]["endpoints"].as_array().unwrap().iter().all(is_known)
    });
    lab
}

#[test]
fn an_old_endpoint_that_does_not_become_healthy_again_is_drained_again() {
    let well = Arc::new(AtomicBool::new(true));
    let lab = checked(&well, &[], 1);
    let (good, dead) = (Origin::start("new0"), origin::nobody());
    let (old0, old1) = (address(&lab, "old0"), address(&lab, "old1"));
    let replace = json!([
        { "out": old0, "into": good.address.to_string() },
        { "out": old1, "into": dead.to_string() },
    ]);
    begin(&lab, &json!({ "replace": replace, "ready_timeout": "1s" }));
    wait_for_step(&lab, 0, "done");
    well.store(false, Ordering::SeqCst);
    let told = ended(&lab);
    assert_eq!((&told["state"], &told["steps"][0]["state"]), (&json!("reversed"), &json!("kept")));
    assert!(endpoints(&lab, "blue").contains(&(old0.clone(), true)), "it drains");
    let (_, out, _) = lab.cli(&["rollout", "shop", "--status"]);
    assert!(out.trim_end().ends_with(&format!("{old0} no longer serves, stop nothing else")), "{out}");
    assert_eq!(who_answers(&lab), ["new0", "old1", "old2"]);
}

#[test]
fn what_was_restarted_gets_nothing_before_a_check_has_found_the_new_process_well() {
    let well = Arc::new(AtomicBool::new(true));
    // So many checks have to fail that it counts as well all the time.
    let lab = checked(&well, &[], 1_000);
    let old = address(&lab, "old0");
    begin(&lab, &json!({ "replace": [{ "out": old, "into": old }], "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    well.store(false, Ordering::SeqCst);
    let checks = || lab.origin("old0").served();
    assert_eq!(lab.cli(&["rollout", "shop", "--proceed", &old]).0, 0);
    let before = checks();
    lab::wait_until("it is checked", || checks() > before + 2);
    assert_eq!(rollout(&lab)["steps"][0]["state"], "warming");
    assert_eq!(who_answers(&lab), ["old1", "old2"]);
    well.store(true, Ordering::SeqCst);
    assert_eq!(ended(&lab)["state"], "done");
    assert_eq!(who_answers(&lab), ["old0", "old1", "old2"]);
}

#[test]
fn a_dead_machine_is_replaced_with_the_defaults() {
    let dead = origin::nobody();
    let well = Arc::new(AtomicBool::new(true));
    let lab = checked(&well, &[dead], 1);
    let new = Origin::start("new0");
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--replace", &format!("{dead}={}", new.address)]);
    assert_eq!(exit, 0, "{out}{err}");
    let told = rollout(&lab);
    assert_eq!((&told["min_serving"], &told["least_serving"]), (&json!(3), &json!(3)));
    assert_eq!(who_answers(&lab), ["new0", "old0", "old1", "old2"]);
}

#[test]
fn the_fewest_that_served_are_told_also_of_a_rollout_that_waits_for_nothing() {
    let lab = pool(3, "");
    let new = Origin::start("new0");
    let pair = format!("{}={}", address(&lab, "old0"), new.address);
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--replace", &pair]);
    assert_eq!(exit, 0, "{out}{err}");
    assert_eq!(rollout(&lab)["least_serving"], 2);
}

#[test]
fn weight_and_zone_go_over_to_the_replacement_and_come_back() {
    let lab = pool(3, "");
    let (old0, old1) = (address(&lab, "old0"), address(&lab, "old1"));
    let (good, dead) = (Origin::start("new0"), origin::nobody());
    put(&lab, "blue", &old0, &json!({ "weight": 3, "zone": "a" }));
    let said = |endpoint: &str| {
        let shop = lab.shop();
        let all = shop["versions"][0]["endpoints"].as_array().unwrap();
        let one = all.iter().find(|known| known["address"] == endpoint).unwrap();
        (one["weight"].clone(), one["zone"].clone())
    };
    let new = good.address.to_string();
    let replace = json!([{ "out": old0, "into": new }, { "out": old1, "into": dead.to_string() }]);
    begin(&lab, &json!({ "replace": replace, "ready_timeout": "10m" }));
    wait_for_step(&lab, 1, "warming");
    assert_eq!(said(&new), (json!(3), json!("a")));
    lab.cli(&["rollout", "shop", "--reverse"]);
    assert_eq!(said(&old0), (json!(3), json!("a")));
}

// ---- Hooks, and what they are asked for ----

#[test]
fn a_hook_runs_once_for_each_endpoint_of_a_batch() {
    let (lab, gate, asked) = busy("");
    let log = lab.dir.path().join("hooks");
    let hook = format!("echo $SWITCHBACK_ENDPOINT >> {}", log.display());
    let (old0, old1) = (address(&lab, "old0"), address(&lab, "old1"));
    thread::scope(|scope| {
        let cli = scope.spawn(|| {
            lab.cli(&["rollout", "shop", "--batch", "2", "--hook", &hook, "--replace", &old0, &old1])
        });
        lab::wait_until("the idle one is dealt with", || {
            let (status, told) = lab.call("GET", "/v1/services/shop/rollout", &Value::Null);
            status == 200
                && told["steps"][1]["state"] == "safe"
                && told["steps"][1]["awaits_confirmation"] == false
        });
        assert_eq!(rollout(&lab)["steps"][0]["state"], "draining", "the other one is not safe");
        gate.open();
        let (exit, out, err) = cli.join().unwrap();
        assert_eq!(exit, 0, "{out}{err}");
        assert!(out.contains(&format!("{old1} is dealt with")), "{out}");
    });
    asked.answer();
    assert_eq!(fs::read_to_string(log).unwrap(), format!("{old1}\n{old0}\n"));
}

#[test]
fn a_hook_that_takes_too_long_is_ended_with_all_its_processes() {
    let lab = pool(3, "");
    let log = lab.dir.path().join("pids");
    let hook = format!("sleep 600 & echo $$ $! > {}; wait", log.display());
    let (exit, out, err) = lab.cli(&["rollout", "shop", "--ready-timeout", "1s", "--hook", &hook]);
    assert_eq!(exit, 3, "{out}{err}");
    assert!(out.contains(&format!("the hook for {} was ended", address(&lab, "old0"))), "{out}");
    assert!(out.trim_end().ends_with("the old endpoints serve: do not stop them"), "{out}");
    let pids = fs::read_to_string(log).unwrap();
    let runs = |pid: &str| {
        // Whoever adopts it may take its time to look after it.
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    lab::wait_until("its processes end", || !pids.split_whitespace().any(runs));
}

// ---- What is asked for ----

#[test]
fn options_of_a_new_rollout_do_not_go_with_one_that_is_under_way() {
    let lab = pool(3, "");
    begin(&lab, &json!({ "confirm": true }));
    for what in [&["--stop"][..], &["--reverse"], &["--status"], &["--follow"], &["--proceed", "127.0.0.1:1"]]
    {
        for option in [&["--dry-run"][..], &["--batch", "2"], &["--surge"], &["--async"], &["--to", "green"]]
        {
            let (exit, _, err) = lab.cli(&[&["rollout", "shop"], what, option].concat());
            assert_eq!(exit, 2, "{what:?} {option:?}: {err}");
            assert!(err.contains("cannot be used with"), "{err}");
        }
    }
    assert_eq!(rollout(&lab)["state"], "running");
    let (exit, _, err) = lab.cli(&["rollout", "nobody", "--stop"]);
    assert!(exit == 1 && err.contains("no service `nobody`"), "{err}");
}

#[test]
fn a_rollout_is_begun_on_the_understanding_it_was_asked_for_and_once() {
    let lab = pool(3, "");
    let body = json!({ "confirm": true });
    let post = |headers: &[(&str, &str)], body: &Value| {
        lab.call_with("POST", "/v1/services/shop/rollout", headers, body)
    };
    let refused = post(&[("if-match", "\"7\"")], &body);
    assert_eq!((refused.status, &refused.json()["field"]), (412, &json!("if-match")));
    let dry =
        lab.call_with("POST", "/v1/services/shop/rollout?dry_run=true", &[("if-match", "\"7\"")], &body);
    assert_eq!(dry.status, 412);
    let epoch = format!("\"{}\"", lab.shop()["epoch"]);
    let call = [("if-match", &*epoch), ("idempotency-key", "k1")];
    let first = post(&call, &body);
    assert_eq!(first.status, 202, "{}", first.json());
    wait_for_step(&lab, 0, "safe");
    let again = post(&call, &body);
    assert_eq!((again.status, again.json()), (202, first.json()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let other = post(&call, &json!({ "confirm": true, "batch": 2 }));
    assert_eq!((other.status, &other.json()["field"]), (422, &json!("idempotency-key")));
    assert_eq!(post(&[], &body).status, 409, "without the key it is another one");
}

#[test]
fn a_rollout_goes_on_and_ends_on_the_understanding_it_was_asked_for() {
    let lab = pool(3, "");
    let path = "/v1/services/shop/rollout";
    begin(&lab, &json!({ "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    let body = json!({ "endpoint": address(&lab, "old0") });
    let (go_on, end) = (("POST", "/v1/services/shop/rollout/proceed", &body), ("DELETE", path, &Value::Null));
    let call = |(method, path, body): (&str, &str, &Value), tag: &str| {
        lab.call_with(method, path, &[("if-match", tag)], body)
    };
    for asked in [go_on, end] {
        let refused = call(asked, "\"1\"");
        assert_eq!((refused.status, &refused.json()["field"]), (412, &json!("if-match")));
        assert_eq!(call(asked, "1").status, 400);
    }
    assert_eq!(rollout(&lab)["steps"][0]["awaits_confirmation"], true);
    let tag = || lab.call_with("GET", path, &[], &Value::Null).header("etag").unwrap().to_owned();
    assert_eq!(call(go_on, &tag()).status, 200);
    wait_for_step(&lab, 1, "safe");
    assert_eq!(call(end, &tag()).status, 202);
    assert_eq!(ended(&lab)["state"], "reversed");
}

#[test]
fn a_key_of_before_a_restart_begins_no_second_rollout() {
    let mut lab = pool(3, "");
    let body = json!({ "confirm": true });
    let post = |lab: &Lab, key: &str, body: &Value| {
        lab.call_with("POST", "/v1/services/shop/rollout", &[("idempotency-key", key)], body)
    };
    let first = post(&lab, "k1", &body);
    assert_eq!(first.status, 202, "{}", first.json());
    wait_for_step(&lab, 0, "safe");
    lab.kill_and_restart();
    let epoch = lab.epoch();
    let again = post(&lab, "k1", &body);
    assert_eq!((again.status, again.json()), (202, first.json()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!((rollout(&lab)["state"].clone(), lab.epoch()), (json!("interrupted"), epoch), "none is begun");
    let other = post(&lab, "k1", &json!({ "confirm": true, "batch": 2 }));
    assert_eq!((other.status, &other.json()["field"]), (422, &json!("idempotency-key")));
    let flip = lab.call_with(
        "POST",
        "/v1/services/shop/flip",
        &[("idempotency-key", "k1")],
        &json!({ "to": "blue" }),
    );
    assert_eq!(flip.status, 422, "nor is anything else: {}", flip.json());
}

/// The store of a running proxy, taken away; and where it is meanwhile.
fn take_away(lab: &Lab) -> [PathBuf; 2] {
    let state = lab.dir.path().join("state/switchback.db");
    let away = state.with_extension("away");
    fs::rename(&state, &away).unwrap();
    [away, state]
}

#[test]
fn a_rollout_waits_for_a_store_that_refuses_its_change_and_goes_on() {
    let lab = pool(3, "");
    begin(&lab, &json!({ "confirm": true }));
    wait_for_step(&lab, 0, "safe");
    let (epoch, mut events) = (lab.epoch(), lab.events());
    let [away, state] = take_away(&lab);
    let proceed = |index: usize| {
        let out = rollout(&lab)["steps"][index]["out"].clone();
        let (status, told) =
            lab.call("POST", "/v1/services/shop/rollout/proceed", &json!({ "endpoint": out }));
        assert_eq!(status, 200, "{told}");
    };
    proceed(0);
    let told =
        events.wait_for(|event| event["type"] == "rollout" && !event["rollout"]["hindrance"].is_null());
    assert!(told["rollout"]["hindrance"].as_str().unwrap().contains("is gone"), "{told}");
    assert_eq!((rollout(&lab)["state"].clone(), lab.epoch()), (json!("running"), epoch));
    let (_, said, _) = lab.cli(&["rollout", "shop", "--status"]);
    assert!(said.contains("hindered: the state store failed"), "{said}");
    fs::rename(&away, &state).unwrap();
    wait_for_step(&lab, 1, "safe");
    assert_eq!(rollout(&lab)["hindrance"], Value::Null);
    // On the way back it is waited for as well.
    let [away, state] = take_away(&lab);
    lab.call("DELETE", "/v1/services/shop/rollout?mode=reverse", &Value::Null);
    lab::wait_until("it cannot go back", || !rollout(&lab)["hindrance"].is_null());
    assert_eq!(rollout(&lab)["state"], "reversing");
    fs::rename(&away, &state).unwrap();
    assert_eq!(ended(&lab)["state"], "reversed");
    assert!(endpoints(&lab, "blue").iter().all(|(_, drains)| !drains), "all of them serve");
}

#[test]
fn a_store_that_refuses_for_too_long_ends_a_rollout_and_so_does_whoever_wants_it() {
    for is_asked in [false, true] {
        let lab = pool(3, "");
        let ready_timeout = if is_asked { "5m" } else { "1s" };
        begin(&lab, &json!({ "confirm": true, "ready_timeout": ready_timeout, "on_failure": "stop" }));
        wait_for_step(&lab, 0, "safe");
        let [away, state] = take_away(&lab);
        let out = rollout(&lab)["steps"][0]["out"].clone();
        lab.call("POST", "/v1/services/shop/rollout/proceed", &json!({ "endpoint": out }));
        if is_asked {
            lab::wait_until("it cannot go on", || !rollout(&lab)["hindrance"].is_null());
            lab.call("DELETE", "/v1/services/shop/rollout?mode=stop", &Value::Null);
        }
        lab::wait_until("it goes no further", || rollout(&lab)["state"] != "running");
        fs::rename(&away, &state).unwrap();
        let told = ended(&lab);
        assert_eq!((&told["timed_out"], &told["hindrance"]), (&json!(!is_asked), &Value::Null), "{told}");
    }
}

#[test]
fn a_rollout_whose_key_cannot_be_kept_is_not_begun() {
    let lab = pool(3, "");
    let [away, state] = take_away(&lab);
    let (key, body) = ([("idempotency-key", "k1")], json!({ "confirm": true }));
    let refused = lab.call_with("POST", "/v1/services/shop/rollout", &key, &body);
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (503, &json!("urn:switchback:problem:store_failed"))
    );
    assert_eq!(lab.call("GET", "/v1/services/shop/rollout", &Value::Null).0, 404);
    fs::rename(away, state).unwrap();
    let begun = lab.call_with("POST", "/v1/services/shop/rollout", &key, &body);
    assert_eq!((begun.status, begun.header("idempotent-replayed")), (202, None), "{}", begun.json());
    wait_for_step(&lab, 0, "safe");
}

/// A process that is to take the old one's place has the store, and fails.
#[test]
fn none_begins_while_another_process_has_the_store() {
    let lab = pool(2, "");
    let (has_it, binary) = (lab.dir.path().join("has-it"), lab.dir.path().join("program"));
    let text = format!(
        "#!/usr/bin/env python3\nimport json, socket, sys\n\
         line = socket.socket(fileno=3).makefile('rw')\nassert 'hello' in json.loads(line.readline())\n\
         line.write('\"prepared\"\\n'); line.flush()\nassert 'yours' in json.loads(line.readline())\n\
         open('{}', 'w').close()\nline.readline()\n",
        has_it.display()
    );
    fs::write(&binary, text).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let upgrade = json!({ "binary": binary, "timeout": "2s" });
    let body = json!({ "confirm": true });
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| lab.call("POST", "/v1/upgrade", &upgrade));
        lab::wait_until("it has the store", || has_it.exists());
        let (status, answer) = lab.call("POST", "/v1/services/shop/rollout", &body);
        assert_eq!((status, &answer["type"]), (503, &json!("urn:switchback:problem:upgrading")), "{answer}");
        assert_eq!(upgrade.join().unwrap().0, 504);
    });
    begin(&lab, &body);
    wait_for_step(&lab, 0, "safe");
}
