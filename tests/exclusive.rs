//! Exclusive flips: two versions never serve at the same time, and nobody is refused, also when the flip cannot be made.
//!
//! `SWITCHBACK_FLIPS=1000 SWITCHBACK_CLIENTS=40 cargo test --release --test exclusive two_versions -- --nocapture
//! --test-threads 1` is the full run, with its figures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test"
)]

mod lab;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::gate::Gate;
use lab::http2::run;
use lab::origin::Then;
use lab::{Answer, Client, Http2, Lab, Origin};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, accept, client};

/// What a version did with one request, by the origin's own clock.
#[derive(Debug, Clone)]
struct Served {
    version: &'static str,
    writes: bool,
    start: Instant,
    /// Before the last byte of the answer was sent: it was certainly not over sooner.
    end: Instant,
}

type Ledger = Arc<Mutex<Vec<Served>>>;

/// Takes up to `slowest` for each request, and writes down when.
fn recording(version: &'static str, ledger: &Ledger, slowest: Duration) -> Origin {
    let (ledger, turn) = (Arc::clone(ledger), AtomicU64::new(0));
    Origin::behaving(version, move |seen, stream| {
        let start = Instant::now();
        let part = turn.fetch_add(7, Ordering::Relaxed) % 11;
        thread::sleep(slowest / 10 * u32::try_from(part.min(10)).unwrap());
        let head = format!("HTTP/1.1 200 OK\r\nx-version: {version}\r\ncontent-length: 2\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let end = Instant::now();
        stream.write_all(b"ok")?;
        let writes = !seen.line.starts_with("GET");
        ledger.lock().unwrap().push(Served { version, writes, start, end });
        Ok(Then::Keep)
    })
}

/// Pairs of requests of different versions that were served at the same time.
fn overlaps(mut served: Vec<Served>) -> Vec<String> {
    served.sort_by_key(|served| served.start);
    let mut found = Vec::new();
    // Of each version the request that ends last so far.
    let mut latest: Vec<Served> = Vec::new();
    for served in served {
        for other in latest.iter().filter(|other| other.version != served.version && other.end > served.start)
        {
            found.push(format!("{other:?} and {served:?}"));
        }
        match latest.iter_mut().find(|other| other.version == served.version) {
            Some(other) if other.end < served.end => *other = served,
            Some(_) => {}
            None => latest.push(served),
        }
    }
    found
}

/// From the end of the last request of one version to the start of the first one of the next, ascending: how much longer
/// somebody waited than for the oldest request in flight.
fn gaps(mut served: Vec<Served>) -> Vec<Duration> {
    served.sort_by_key(|served| served.start);
    let mut gaps = Vec::new();
    let mut last: Option<(&str, Instant)> = None;
    for served in &served {
        if let Some((_, end)) = last.filter(|(version, _)| *version != served.version) {
            gaps.push(served.start.saturating_duration_since(end));
            last = None;
        }
        let end = last.map_or(served.end, |(_, end)| end.max(served.end));
        last = Some((served.version, end));
    }
    gaps.sort();
    gaps
}

/// Clients that ask one request after the other, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(u64, Duration)>>,
}

impl Load {
    /// Each of `clients` asks with these methods in turn.
    fn start(address: SocketAddr, clients: usize, methods: &'static [&'static str]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let drive = |stop: Arc<AtomicBool>| {
            move || {
                let (mut client, mut slowest, mut made) = (Client::connect(address), Duration::ZERO, 0);
                for method in methods.iter().cycle() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let since = Instant::now();
                    let request = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
                    let answer = client.send(request).answer();
                    assert_eq!((answer.status, answer.is_whole), (200, true), "{answer:?}");
                    slowest = slowest.max(since.elapsed());
                    made += 1;
                }
                (made, slowest)
            }
        };
        let clients = (0..clients).map(|_| thread::spawn(drive(Arc::clone(&stop)))).collect();
        Self { stop, clients }
    }

    /// How many requests were made, and how long the slowest took.
    fn stop(self) -> (u64, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.clients.into_iter().map(|client| client.join().expect("nothing failed"));
        ended.fold((0, Duration::ZERO), |(made, slowest), (more, other)| (made + more, slowest.max(other)))
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

fn flips() -> usize {
    number("SWITCHBACK_FLIPS", 40)
}

/// How long the flip held requests at most, as its answer tells.
fn held_millis(answer: &Value) -> u64 {
    let notes = answer["notes"].as_array().unwrap();
    let note = notes.iter().filter_map(Value::as_str).find(|note| note.ends_with(" ms"));
    note.and_then(|note| note.rsplit(' ').nth(1)?.parse().ok()).unwrap_or(0)
}

/// Flips to and fro under load; gives what the versions did.
fn flip_under_load(exclusive: &Value, methods: &'static [&'static str]) -> Vec<Served> {
    let (ledger, slowest) = (Ledger::default(), Duration::from_millis(20));
    let lab = Lab::on(vec![recording("blue", &ledger, slowest), recording("green", &ledger, slowest)], "");
    let load = Load::start(lab.address(), number("SWITCHBACK_CLIENTS", 16), methods);
    let (since, mut longest) = (Instant::now(), 0);
    for to in ["green", "blue"].into_iter().cycle().take(flips()) {
        let answer = lab.flip_later(to, &json!({ "exclusive": exclusive })).answer();
        assert_eq!(answer.status, 200, "{}", answer.text());
        longest = longest.max(held_millis(&answer.json()));
    }
    let seconds = since.elapsed().as_secs_f64();
    let (made, slowest) = load.stop();
    let served = std::mem::take(&mut *ledger.lock().unwrap());
    println!(
        "{} exclusive flips ({exclusive}) in {seconds:.1} s under {made} requests: longest hold {longest} ms with requests of at most 20 ms; \
         slowest request {slowest:?}",
        flips()
    );
    assert_eq!(served.len() as u64, made, "each request was served once");
    // A busy machine is not what is tested here; that nobody waits for a time-out is.
    assert!(longest < 5_000, "{longest} ms");
    served
}

#[test]
fn two_versions_never_serve_at_the_same_time() {
    let served = flip_under_load(&json!(true), &["GET", "POST"]);
    let gaps = gaps(served.clone());
    let at = |percent: usize| gaps[(gaps.len() * percent / 100).min(gaps.len() - 1)];
    println!(
        "from the last of the old to the first of the new: p50 {:?} p90 {:?} max {:?}",
        at(50),
        at(90),
        at(100)
    );
    let overlaps = overlaps(served);
    assert!(overlaps.is_empty(), "{} overlaps, such as\n{}", overlaps.len(), overlaps[0]);
}

#[test]
fn two_versions_never_write_at_the_same_time() {
    let served = flip_under_load(&json!("writes"), &["GET", "POST", "GET"]);
    let (writes, reads): (Vec<_>, Vec<_>) = served.into_iter().partition(|served| served.writes);
    println!("{} writes, {} reads", writes.len(), reads.len());
    let overlaps = overlaps(writes);
    assert!(overlaps.is_empty(), "{} overlaps, such as\n{}", overlaps.len(), overlaps[0]);
}

#[test]
fn a_flip_that_is_not_exclusive_is_caught_by_the_checker() {
    let (ledger, slowest) = (Ledger::default(), Duration::from_millis(20));
    let lab = Lab::on(vec![recording("blue", &ledger, slowest), recording("green", &ledger, slowest)], "");
    let load = Load::start(lab.address(), 16, &["GET"]);
    let is_caught = || !overlaps(ledger.lock().unwrap().clone()).is_empty();
    let mut to = ["green", "blue"].into_iter().cycle();
    lab::wait_until("two versions serve at once", || {
        lab.flip(to.next().unwrap());
        is_caught()
    });
    load.stop();
}

/// `blue` with `/late` and `/held` behind a gate, and `green`.
fn gated() -> (Lab, Gate) {
    let gate = Gate::default();
    (Lab::on(vec![Origin::held("blue", &gate), Origin::start("green")], ""), gate)
}

fn problem(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["type"].as_str().unwrap_or("").replace("urn:switchback:problem:", ""))
}

#[test]
fn new_requests_wait_for_the_last_of_the_old_version_and_go_to_the_new_one() {
    let (lab, gate) = gated();
    let old = lab.get_later("/late");
    lab.origin("blue").wait_served(1);
    let flip = lab.flip_later("green", &json!({ "reason": "schema" }));
    lab.wait_holding(true);
    let waiting = [lab.get_later("/"), lab.post_later("/")];
    lab.wait_held(2);
    assert_eq!(
        (flip.is_answered(), lab.origin("green").served(), lab.origin("blue").served()),
        (false, 0, 1)
    );
    gate.open();
    let answer = flip.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["changed"], &answer["epoch"]), (&json!(true), &json!(3)));
    assert_eq!(answer["services"]["shop"]["weights"], json!({ "green": 10_000 }));
    assert_eq!(answer["services"]["shop"]["hold"], Value::Null);
    let note = answer["notes"][0].as_str().unwrap();
    assert!(note.starts_with("shop: 2 requests waited, for at most "), "{note}");
    assert_eq!(old.answer().version(), "blue");
    assert!(waiting.into_iter().all(|waiting| waiting.answer().version() == "green"));
    let (_, history) = lab.call("GET", "/v1/changes?limit=2", &Value::Null);
    let [flip, hold] = [0, 1].map(|index| history["changes"][index].clone());
    assert_eq!((&flip["kind"], &flip["summary"]), (&json!("flip"), &json!("shop: green 100 %, released")));
    assert_eq!((&hold["kind"], &hold["reason"]), (&json!("hold"), &json!("schema")));
    // One step, and one step back.
    lab.call("POST", "/v1/services/shop/revert", &json!({}));
    assert_eq!(lab.get("/").version(), "blue");
}

#[test]
fn a_canary_is_not_waited_for_but_gets_nothing_new_either() {
    let gate = Gate::default();
    let lab = Lab::on(vec![Origin::start("blue"), Origin::held("green", &gate)], "");
    lab.weights(&json!({ "green": 10_000 }));
    let canary = lab.get_later("/late");
    lab.origin("green").wait_served(1);
    lab.weights(&json!({ "blue": 5_000, "green": 5_000 }));
    let answer = lab.flip_later("green", &json!({})).answer();
    assert_eq!((answer.status, canary.is_answered()), (200, false));
    gate.open();
    assert_eq!(canary.answer().version(), "green");
}

#[test]
fn reads_flow_while_the_last_write_is_waited_for() {
    let (lab, gate) = gated();
    let old = lab.post_later("/late");
    let read = lab.get_later("/held");
    lab.origin("blue").wait_served(2);
    let flip = lab.flip_later("green", &json!({ "exclusive": "writes" }));
    lab.wait_holding(true);
    let waiting = lab.post_later("/");
    lab.wait_held(1);
    for _ in 0..10 {
        assert_eq!(lab.get("/").version(), "blue");
    }
    assert!(!flip.is_answered() && !waiting.is_answered());
    gate.open();
    assert_eq!(flip.answer().status, 200);
    assert_eq!((old.answer().version(), waiting.answer().version()), ("blue", "green"));
    assert_eq!(read.answer().status, 200);
}

#[test]
fn no_read_is_waited_for_by_a_flip_for_writes() {
    let (lab, gate) = gated();
    let read = lab.get_later("/late");
    lab.origin("blue").wait_served(1);
    assert_eq!(lab.flip_later("green", &json!({ "exclusive": "writes" })).answer().status, 200);
    assert!(!read.is_answered());
    gate.open();
    assert_eq!(read.answer().version(), "blue");
}

#[test]
fn a_flip_that_takes_too_long_fails_and_everything_goes_on_where_it_was() {
    let (lab, gate) = gated();
    let old = lab.get_later("/late");
    lab.origin("blue").wait_served(1);
    let flip = lab.flip_later("green", &json!({ "hold_timeout": "500ms" }));
    lab.wait_holding(true);
    let waiting = lab.get_later("/");
    let answer = flip.answer();
    assert_eq!(problem(&answer), (409, "hold_timed_out".to_owned()), "{}", answer.text());
    let mut left = answer.json()["left"][0].take();
    assert!(left["oldest_seconds"].take().as_f64() >= Some(0.5), "{}", answer.text());
    let request = json!({ "service": "shop", "version": "blue", "kind": "request", "count": 1, "oldest_seconds": null });
    assert_eq!(left, request, "{}", answer.text());
    assert_eq!(waiting.answer().version(), "blue");
    lab.wait_holding(false);
    assert_eq!(lab.shop()["weights"], json!({ "blue": 10_000 }));
    // And from the command line, where it is a status of its own.
    let (code, _, said) =
        lab.cli(&["flip", "shop", "--to", "green", "--exclusive", "--hold-timeout", "200ms"]);
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains("cannot flip `shop` to `green`: the hold has ended: its time of 0.2 s was over"),
        "{said}"
    );
    assert!(said.contains("in the way: 1 request on `blue`"), "{said}");
    assert!(said.contains("request on blue: the oldest is in flight for "), "{said}");
    gate.open();
    assert_eq!(old.answer().version(), "blue");
    let (code, said, _) = lab.cli(&["flip", "shop", "--to", "green", "--exclusive"]);
    assert_eq!((code, lab.get("/").version()), (0, "green"), "{said}");
    let back = "switchback flip shop --to blue --exclusive\n";
    assert!(said.contains(&format!("the way back: {back}")), "{said}");
    let (_, status, _) = lab.cli(&["status", "shop"]);
    assert!(status.contains(&format!("back: {back}")), "{status}");
}

#[test]
fn a_hold_that_was_there_before_is_there_after_it() {
    let (lab, gate) = gated();
    let old = lab.get_later("/late");
    lab.origin("blue").wait_served(1);
    lab.hold(&json!({ "timeout": "5m" }));
    let waiting = lab.post_later("/");
    lab.wait_held(1);
    let is_held_as_before =
        || lab.shop()["hold"] == json!({ "by": "operator", "scope": "all", "timeout_ms": 300_000 });
    // It fails, and is called off.
    let failed = lab.flip_later("green", &json!({ "hold_timeout": "200ms" })).answer();
    assert_eq!(problem(&failed), (409, "hold_timed_out".to_owned()), "{}", failed.text());
    let flip = lab.flip_later("green", &json!({ "hold_timeout": "5m" }));
    lab::wait_until("it is under way", || lab.epoch() == 5);
    lab.call("POST", "/v1/services/shop/revert", &json!({}));
    assert_eq!(problem(&flip.answer()), (409, "called_off".to_owned()));
    assert!(is_held_as_before() && !waiting.is_answered());
    // It is made.
    let flip = lab.flip_later("green", &json!({ "hold_timeout": "5m" }));
    lab::wait_until("it is under way", || lab.epoch() == 7);
    gate.open();
    let done = flip.answer();
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(done.json()["summary"], "shop: green 100 %, requests held as before");
    assert_eq!(done.json()["notes"][1], "shop is still held, as it was before");
    assert!(is_held_as_before() && !waiting.is_answered());
    lab.wait_held(1);
    lab.release();
    assert_eq!((waiting.answer().version(), old.answer().version()), ("green", "blue"));
}

#[test]
fn a_release_ends_what_was_asked_for_and_then_the_flip() {
    let (lab, gate) = gated();
    let old = lab.get_later("/late");
    lab.origin("blue").wait_served(1);
    lab.hold(&json!({ "scope": "writes", "timeout": "5m" }));
    let flip = lab.flip_later("green", &json!({ "hold_timeout": "5m" }));
    lab::wait_until("it is under way", || lab.epoch() == 3);
    let waiting = lab.get_later("/");
    lab.wait_held(1);
    let hold = |by, scope| json!({ "by": by, "scope": scope, "timeout_ms": 300_000 });
    assert_eq!(lab.shop()["holds"], json!([hold("operator", "writes"), hold("exclusive", "all")]));
    let (_, out, _) = lab.cli(&["status", "shop"]);
    let held: Vec<_> = out.lines().filter_map(|line| line.trim().strip_prefix("held: ")).collect();
    assert_eq!(
        held,
        [
            "requests, 1 waiting   (until an exclusive flip is made, or called off)",
            "writes as well   (on: switchback release shop)"
        ]
    );
    let done = lab.release();
    assert_eq!(done["notes"], json!(["requests of `shop` still wait, for an exclusive flip to `green`"]));
    assert_eq!(done["services"]["shop"]["hold"]["by"], "exclusive");
    assert!(!waiting.is_answered() && !flip.is_answered());
    lab.release();
    assert_eq!((waiting.answer().version(), problem(&flip.answer()).1.as_str()), ("blue", "called_off"));
    gate.open();
    assert_eq!(old.answer().version(), "blue");
}

#[test]
fn a_bound_that_is_hit_ends_it_and_nobody_is_refused() {
    let gate = Gate::default();
    let origins = vec![Origin::held("blue", &gate), Origin::start("green")];
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\nhold = {{ requests = 2 }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n[services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        origins[0].address, origins[1].address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    let old = lab.post_later("/late");
    lab.origin("blue").wait_served(1);
    let flip = lab.flip_later("green", &json!({}));
    lab.wait_holding(true);
    let waiting: Vec<_> = (0..3).map(|_| lab.get_later("/")).collect();
    assert!(waiting.into_iter().all(|waiting| waiting.answer().version() == "blue"));
    let answer = flip.answer();
    assert_eq!(problem(&answer), (409, "hold_overrun".to_owned()), "{}", answer.text());
    let left = &answer.json()["left"];
    assert_eq!(
        (left.as_array().unwrap().len(), &left[0]["version"], &left[0]["count"]),
        (1, &json!("blue"), &json!(1))
    );
    gate.open();
    assert_eq!(old.answer().version(), "blue");
}

/// An origin whose `/events` never ends by itself.
fn streaming(version: &'static str, gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::behaving(version, move |seen, stream: &mut TcpStream| {
        if seen.path() != "/events" {
            write!(stream, "HTTP/1.1 200 OK\r\nx-version: {version}\r\ncontent-length: 0\r\n\r\n")?;
            return Ok(Then::Keep);
        }
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        stream.write_all(b"9\r\ndata: 1\n\n\r\n")?;
        gate.wait();
        stream.write_all(b"0\r\n\r\n")?;
        Ok(Then::Keep)
    })
}

#[test]
fn work_without_an_end_is_a_reason_to_refuse_at_once_or_is_ignored() {
    let gate = Gate::default();
    let lab = Lab::on(vec![streaming("blue", &gate), Origin::start("green")], "");
    let events = lab.get_later("/events");
    lab.wait_for_metric(&["switchback_in_flight", "\"blue\"", "\"sse\""], 1.0);
    let (_, plan) =
        lab.call("POST", "/v1/services/shop/flip?dry_run=true", &json!({ "to": "green", "exclusive": true }));
    assert_eq!(plan["notes"], json!(["`shop` would be refused: 1 sse on blue"]));
    let answer = lab.flip_later("green", &json!({})).answer();
    assert_eq!(problem(&answer), (409, "streams_open".to_owned()), "{}", answer.text());
    assert_eq!(answer.json()["left"][0]["kind"], "sse");
    assert_eq!((lab.epoch(), lab.get("/").version()), (1, "blue"), "nothing was held for it");
    let done = lab.flip_later("green", &json!({ "streams": "ignore" })).answer();
    assert_eq!((done.status, events.is_answered()), (200, false), "{}", done.text());
    assert_eq!(lab.get("/").version(), "green");
    lab.flip("blue");
    // A stream that only reads is in no writer's way.
    assert_eq!(lab.flip_later("green", &json!({ "exclusive": "writes" })).answer().status, 200);
    gate.open();
    assert!(events.answer().is_whole);
}

#[test]
fn what_lasts_is_told_to_go_at_once_and_comes_again_to_the_new_version() {
    let gate = Gate::default();
    let lab = Lab::on(vec![streaming("blue", &gate), Origin::start("green")], "");
    let mut events: Vec<_> = (0..5).map(|_| lab.get_later("/events")).collect();
    lab.wait_for_metric(&["switchback_in_flight", "\"blue\"", "\"sse\""], 5.0);
    let since = Instant::now();
    let done = lab.flip_later("green", &json!({ "streams": "close" })).answer();
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    for ended in events.drain(..) {
        let answer = ended.answer();
        assert!(answer.is_whole && answer.text().ends_with("\n\n"), "{answer:?}");
    }
    assert_eq!(lab.get("/events").version(), "green");
    gate.open();
}

#[test]
fn a_websocket_is_told_to_come_again_before_the_switch() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (echo, green) = (listener.local_addr().unwrap(), Origin::start("green"));
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten().flat_map(accept) {
            while socket.read().is_ok_and(|message| !message.is_text() || socket.send(message).is_ok()) {}
        }
    });
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
         [services.shop.versions.blue]\nendpoints = [\"{echo}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        green.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![green], &services);
    let stream = TcpStream::connect(lab.address()).unwrap();
    stream.set_read_timeout(Some(lab::PATIENCE)).unwrap();
    let mut socket = client(format!("ws://{}/", lab.address()), stream).expect("a WebSocket").0;
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("hello"));
    let refused = lab.flip_later("green", &json!({ "exclusive": "writes" })).answer();
    assert_eq!(problem(&refused), (409, "streams_open".to_owned()), "what is behind it may be written");
    let flip = lab.flip_later("green", &json!({ "exclusive": "writes", "streams": "close" }));
    let Message::Close(Some(frame)) = socket.read().unwrap() else { panic!("a close") };
    assert_eq!(frame.code, CloseCode::Restart);
    while socket.read().is_ok() {}
    assert_eq!((flip.answer().status, lab.post_later("/").answer().version()), (200, "green"));
}

/// Sends `piece` again and again; says when nobody has taken any of it for a while.
fn flood(stream: &mut TcpStream, piece: &[u8], stuck: &Gate) -> std::io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    let mut sent = 0;
    loop {
        match stream.write(&piece[sent..]) {
            Ok(more) => sent = (sent + more) % piece.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => stuck.open(),
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn who_has_stopped_reading_bars_no_flip_and_what_cannot_be_told_is_waited_for() {
    let (late, stuck) = (Gate::default(), [Gate::default(), Gate::default()]);
    let blue = Origin::behaving("blue", {
        let (late, stuck) = (late.clone(), stuck.clone());
        move |seen, stream| {
            if let Some(key) = seen.header("sec-websocket-key") {
                let accept = derive_accept_key(key.as_bytes());
                write!(
                    stream,
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                     sec-websocket-accept: {accept}\r\n\r\n"
                )?;
                flood(stream, &[&[0x82, 126, 0xea, 0x60][..], &[7; 60_000]].concat(), &stuck[0])?;
            } else if seen.path() == "/events" {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
                stream.write_all(head.as_bytes())?;
                flood(stream, format!("data: {}\n\n", "x".repeat(60_000)).as_bytes(), &stuck[1])?;
            } else {
                late.wait();
                stream.write_all(b"HTTP/1.1 200 OK\r\nx-version: blue\r\ncontent-length: 0\r\n\r\n")?;
            }
            Ok(Then::Keep)
        }
    });
    let lab = Lab::on(vec![blue, Origin::start("green")], "");
    let [mut chat, mut events] = [lab.client(), lab.client()];
    chat.send(
        "GET /chat HTTP/1.1\r\nhost: shop.test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    events.send("GET /events HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    let waited_for = lab.get_later("/late");
    stuck.iter().for_each(Gate::wait);
    lab.origin("blue").wait_served(3);
    let flip = lab.flip_later("green", &json!({ "streams": "close" }));
    lab.wait_for_metric(&["switchback_client_requests_total", "\"blue\"", "drain_deadline"], 2.0);
    assert!(!flip.is_answered() && !waited_for.is_answered());
    late.open();
    assert_eq!(waited_for.answer().version(), "blue");
    let done = flip.answer();
    assert_eq!(done.status, 200, "{}", done.text());
}

#[test]
fn a_flip_that_fails_spares_what_comes_after_it() {
    let gate = Gate::default();
    let blue = Origin::behaving("blue", {
        let gate = gate.clone();
        move |seen, stream| {
            if seen.path() == "/late" {
                gate.wait();
            }
            if seen.path() == "/events" {
                stream.write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
                )?;
                gate.wait();
                stream.write_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")?;
                return Ok(Then::Keep);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nx-version: blue\r\ncontent-length: 0\r\n\r\n")?;
            Ok(Then::Keep)
        }
    });
    let lab = Lab::on(vec![blue, Origin::start("green")], "");
    let late = lab.get_later("/late");
    lab.origin("blue").wait_served(1);
    let failed = lab.flip_later("green", &json!({ "streams": "close", "hold_timeout": "300ms" })).answer();
    assert_eq!(problem(&failed), (409, "hold_timed_out".to_owned()));
    let events = lab.get_later("/events");
    lab.wait_for_metric(&["switchback_in_flight", "\"blue\"", "\"sse\""], 1.0);
    gate.open();
    assert_eq!(
        (events.answer().text().as_str(), late.answer().version()),
        ("data: 1\n\ndata: 2\n\n", "blue")
    );
}

#[test]
fn the_service_is_left_alone_meanwhile_and_others_are_not() {
    let (lab, gate) = gated();
    let old = lab.get_later("/late");
    lab.origin("blue").wait_served(1);
    let flip = lab.flip_later("green", &json!({ "hold_timeout": "5m" }));
    lab.wait_holding(true);
    for (method, path, body) in [
        ("POST", "/v1/services/shop/flip", json!({ "to": "green" })),
        ("POST", "/v1/services/shop/flip", json!({ "to": "green", "exclusive": true })),
        // It is so already, and would not stay so.
        ("POST", "/v1/services/shop/flip", json!({ "to": "blue" })),
        ("PUT", "/v1/services/shop/weights", json!({ "blue": 10_000 })),
        ("POST", "/v1/services/shop/hold", json!({})),
        ("PUT", "/v1/services/shop/weights", json!({ "blue": 5_000, "green": 5_000 })),
        ("PUT", "/v1/services/shop/versions/v3", json!({ "endpoints": ["127.0.0.1:1"] })),
        ("POST", "/v1/services/shop/hold", json!({ "scope": "writes" })),
        ("POST", "/v1/changes", json!({ "changes": [{ "service": "shop", "flip": { "to": "green" } }] })),
        // All this is so at the moment, and would not stay so.
        ("POST", "/v1/services/shop/flip", json!({ "to": "blue" })),
        ("PUT", "/v1/services/shop/weights", json!({ "blue": 10_000 })),
        ("POST", "/v1/services/shop/hold", json!({})),
        ("POST", "/v1/undo", json!({ "to_epoch": lab.epoch() - 1 })),
        ("POST", "/v1/changes", json!({ "changes": [{ "service": "shop", "flip": { "to": "blue" } }] })),
    ] {
        let answer = lab.call_with(method, path, &[], &body);
        assert_eq!(problem(&answer), (409, "exclusive_underway".to_owned()), "{path}: {}", answer.text());
    }
    let (_, status, _) = lab.cli(&["status", "shop"]);
    assert!(status.contains("  back: switchback revert shop   (calls the exclusive flip off"), "{status}");
    // The file is read as always.
    let mut events = lab.events();
    lab.write_config(&format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\ntimeouts = {{ connect = \"1s\" }}\n\
         [services.shop.versions.blue]\nendpoints = [\"{0}\"]\n[services.shop.versions.green]\nendpoints = [\"{1}\"]\n\
         [services.cart]\nroutes = [{{ path = \"/cart\" }}]\n[services.cart.versions.v1]\nendpoints = [\"{1}\"]\n",
        lab.origin("blue").address,
        lab.origin("green").address
    ));
    events.wait_for(|event| event["change"]["kind"] == "configure");
    assert_eq!(lab.get("/cart").version(), "green");
    assert!(!flip.is_answered());
    gate.open();
    assert_eq!(
        (flip.answer().status, lab.get("/").version(), old.answer().version()),
        (200, "green", "blue")
    );
}

#[test]
fn a_release_or_a_revert_calls_it_off() {
    for call in ["release", "revert"] {
        let (lab, gate) = gated();
        let old = lab.get_later("/late");
        lab.origin("blue").wait_served(1);
        let flip = lab.flip_later("green", &json!({ "hold_timeout": "5m" }));
        lab.wait_holding(true);
        let waiting = lab.get_later("/");
        lab.wait_held(1);
        let (status, done) = lab.call("POST", &format!("/v1/services/shop/{call}"), &json!({}));
        assert_eq!((status, &done["services"]["shop"]["phase"]), (200, &json!("steady")), "{done}");
        assert_eq!(problem(&flip.answer()), (409, "called_off".to_owned()));
        assert_eq!(waiting.answer().version(), "blue");
        gate.open();
        assert_eq!(old.answer().version(), "blue");
    }
}

#[test]
fn a_repeated_call_is_the_same_flip() {
    let (lab, gate) = gated();
    let old = lab.get_later("/late");
    lab.origin("blue").wait_served(1);
    let call = || {
        let body = json!({ "to": "green", "exclusive": true });
        lab.call_later("POST", "/v1/services/shop/flip", &[("idempotency-key", "one")], &body)
    };
    let (first, second) = (call(), call());
    lab.wait_holding(true);
    gate.open();
    let [first, second] = [first, second].map(|call| call.answer());
    assert_eq!((first.status, second.status), (200, 200), "{}{}", first.text(), second.text());
    assert_eq!(first.json(), second.json());
    let third = call().answer();
    assert_eq!((third.header("idempotent-replayed"), third.json()), (Some("true"), first.json()));
    assert_eq!((lab.epoch(), old.answer().version()), (3, "blue"));
}

#[test]
fn what_cannot_be_holds_nobody() {
    let (lab, _gate) = gated();
    let flip = |headers: &[(&str, &str)], body: Value| {
        lab.call_with("POST", "/v1/services/shop/flip", headers, &body)
    };
    let stale = flip(&[("if-match", "\"7\"")], json!({ "to": "green", "exclusive": true }));
    assert_eq!(stale.status, 412);
    for (body, status, field) in [
        (json!({ "to": "purple", "exclusive": true }), 422, "to"),
        (json!({ "to": "green", "exclusive": "reads" }), 400, "exclusive"),
        (json!({ "to": "green", "exclusive": true, "streams": "cut" }), 400, "streams"),
        (json!({ "to": "green", "streams": "ignore" }), 400, "streams"),
        (json!({ "to": "green", "exclusive": true, "hold_timeout": "1h" }), 400, "hold_timeout"),
        (json!({ "to": "green", "hold_timeout": "1s" }), 400, "hold_timeout"),
    ] {
        let answer = flip(&[], body);
        assert_eq!((answer.status, &answer.json()["field"]), (status, &json!(field)), "{}", answer.text());
    }
    let batch = json!({ "changes": [{ "service": "shop", "flip": { "to": "green", "exclusive": true } }] });
    let (status, answer) = lab.call("POST", "/v1/changes", &batch);
    assert_eq!((status, &answer["field"]), (400, &json!("changes[0].flip.exclusive")));
    let same = flip(&[], json!({ "to": "blue", "exclusive": true }));
    assert_eq!((same.status, &same.json()["changed"]), (200, &json!(false)));
    assert_eq!(lab.epoch(), 1);
}

#[test]
fn a_process_that_dies_meanwhile_begins_released_and_on_the_old_version() {
    let (mut lab, gate) = gated();
    let old = lab.ask_later("GET /held HTTP/1.1\r\nhost: a\r\n\r\n");
    lab.origin("blue").wait_served(1);
    let flip = {
        let (socket, body) = (lab.socket(), json!({ "to": "green", "exclusive": true }).to_string());
        thread::spawn(move || lab::admin::call(&socket, "POST", "/v1/services/shop/flip", &[], &body))
    };
    lab.wait_holding(true);
    lab.kill_and_restart();
    assert!(flip.join().unwrap().is_err() && !old.answer().is_whole);
    gate.open();
    assert_eq!((&lab.shop()["phase"], lab.get("/").version()), (&json!("steady"), "blue"));
    assert_eq!(lab.flip_later("green", &json!({})).answer().status, 200);
}

#[test]
fn a_proxy_that_stops_meanwhile_finishes_what_waits_on_the_old_version() {
    let (mut lab, gate) = gated();
    let old = lab.get_later("/late");
    lab.origin("blue").wait_served(1);
    let flip = lab.flip_later("green", &json!({ "hold_timeout": "5m" }));
    lab.wait_holding(true);
    let waiting = lab.get_later("/");
    lab.wait_held(1);
    let proxy = lab.proxy.take().unwrap();
    let stopping = thread::spawn(move || proxy.stop());
    assert_eq!(waiting.answer().version(), "blue");
    assert_eq!(flip.answer().status, 409);
    gate.open();
    assert_eq!(old.answer().version(), "blue");
    assert!(stopping.join().unwrap().0.success());
}

#[test]
fn streams_of_http2_wait_and_go_to_the_new_version() {
    let (lab, gate) = gated();
    run(async {
        let client = Http2::to(lab.address()).await;
        let old = async { client.get("/late").await.version().to_owned() };
        let new = async {
            lab::http2::wait_until("it is there", || lab.origin("blue").served() == 1).await;
            let flip = lab.flip_later("green", &json!({}));
            lab::http2::wait_until("it is held", || lab.shop()["phase"] == "holding").await;
            let waiting = async { client.get("/").await.version().to_owned() };
            let open = async {
                lab::http2::wait_until("it waits", || lab.shop()["held_requests"] == 1).await;
                gate.open();
            };
            let (version, ()) = tokio::join!(waiting, open);
            (flip.answer().status, version)
        };
        let (old, new) = tokio::join!(old, new);
        assert_eq!((old.as_str(), new), ("blue", (200, "green".to_owned())));
    });
}
