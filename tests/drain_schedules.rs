//! G3 on real sockets: over schedules of downloads, streams and uploads `drained` is never said before the last byte, and
//! soon after it. `SWITCHBACK_SCHEDULES` says how many (60).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test"
)]

mod lab;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lab::origin::Then;
use lab::{Client, Gate, Lab, Origin};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// What one client does.
#[derive(Debug, Clone, Copy)]
enum Work {
    Download,
    Stream,
    Upload,
}

#[derive(Debug, Clone)]
struct Schedule {
    /// Each with how long it lasts.
    work: Vec<(Work, Duration)>,
    /// The flip is taken back and made again while all of it is under way.
    is_reverted: bool,
}

/// What the endpoints and the clients have in common.
#[derive(Default)]
struct Round {
    /// Open once all have arrived.
    gate: Mutex<Gate>,
    /// How many answers have ended.
    ended: AtomicUsize,
}

impl Round {
    fn wait(&self) {
        let gate = self.gate.lock().unwrap().clone();
        gate.wait();
    }

    fn open(&self) {
        self.gate.lock().unwrap().open();
    }

    fn begin(&self) {
        *self.gate.lock().unwrap() = Gate::default();
        self.ended.store(0, Ordering::SeqCst);
    }
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let work = prop_oneof![Just(Work::Download), Just(Work::Stream), Just(Work::Upload)];
    let lasting = (work, (0..40_u64).prop_map(Duration::from_millis));
    (proptest::collection::vec(lasting, 1..7), prop::bool::weighted(0.2))
        .prop_map(|(work, is_reverted)| Schedule { work, is_reverted })
}

/// An endpoint that counts an answer as ended just before it sends its last bytes.
fn origin(name: &'static str, round: &Arc<Round>) -> Origin {
    let round = Arc::clone(round);
    Origin::behaving(name, move |seen, stream| {
        let (kind, millis) = seen.path()[1..].split_once('/').unwrap_or(("", "0"));
        let (head, first, last): (_, _, &[u8]) = match kind {
            "stream" => ("transfer-encoding: chunked", "4\r\nhalf\r\n", b"4\r\nhalf\r\n0\r\n\r\n"),
            _ => ("content-length: 8", "half", b"half"),
        };
        write!(stream, "HTTP/1.1 200 OK\r\nx-version: {name}\r\n{head}\r\n\r\n{first}")?;
        round.wait();
        thread::sleep(Duration::from_millis(millis.parse().unwrap()));
        round.ended.fetch_add(1, Ordering::SeqCst);
        stream.write_all(last)?;
        Ok(Then::Keep)
    })
}

/// Does `work`; when its last byte was here.
fn work(mut client: Client, (work, lasts): (Work, Duration), round: &Round, version: &str) -> Instant {
    let millis = lasts.as_millis();
    let first = |text: &str| format!("{text} HTTP/1.1\r\nhost: shop.test\r\n");
    match work {
        Work::Download => client.send(first(&format!("GET /download/{millis}")) + "\r\n"),
        Work::Stream => client.send(first(&format!("GET /stream/{millis}")) + "\r\n"),
        Work::Upload => client.send(first("POST /upload/0") + "content-length: 8\r\n\r\nhalf"),
    };
    if let Work::Upload = work {
        round.wait();
        thread::sleep(lasts);
        client.send("half");
    }
    let answer = client.answer();
    assert_eq!((answer.version(), answer.text().as_str(), answer.is_whole), (version, "halfhalf", true));
    Instant::now()
}

/// By how much the event came after the last byte.
fn lateness(lab: &Lab, schedule: &Schedule, (from, to): (&str, &str), round: &Round) -> Duration {
    round.begin();
    let mut events = lab.events();
    thread::scope(|scope| {
        let begin = |&what| {
            let client = lab.client();
            scope.spawn(move || work(client, what, round, from))
        };
        let clients: Vec<_> = schedule.work.iter().map(begin).collect();
        lab::wait_until("all have arrived", || in_flight(lab, from) == schedule.work.len());
        // Short ones may be over before the flip.
        round.open();
        lab.flip(to);
        if schedule.is_reverted {
            let (status, body) = lab.call("POST", "/v1/services/shop/revert", &serde_json::Value::Null);
            assert_eq!(status, 200, "{body}");
            lab.flip(to);
        }
        events.drained(from);
        let (said, so_far) = (Instant::now(), round.ended.load(Ordering::SeqCst));
        assert_eq!(so_far, schedule.work.len(), "drained was said too early: {schedule:?}");
        let last = clients.into_iter().map(|client| client.join().unwrap()).max().unwrap();
        said.saturating_duration_since(last)
    })
}

fn in_flight(lab: &Lab, version: &str) -> usize {
    let shop = lab.shop();
    let versions = shop["versions"].as_array().unwrap();
    let found = versions.iter().find(|found| found["name"] == version).unwrap();
    usize::try_from(found["in_flight"]["total"].as_u64().unwrap()).unwrap()
}

#[test]
fn drained_is_never_said_before_the_last_byte_and_soon_after() {
    let count: usize = std::env::var("SWITCHBACK_SCHEDULES").map_or(60, |text| text.parse().unwrap());
    let round = Arc::new(Round::default());
    let lab = Lab::on(vec![origin("blue", &round), origin("green", &round)], "");
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut late: Vec<Duration> = (0..count)
        .map(|number| {
            let schedule = schedules().new_tree(&mut runner).unwrap().current();
            let way = if number % 2 == 0 { ("blue", "green") } else { ("green", "blue") };
            lateness(&lab, &schedule, way, &round)
        })
        .collect();
    late.sort_unstable();
    let at = |share: usize| late[(late.len() * share / 100).min(late.len() - 1)];
    println!("{count} schedules: drained {:?} after the last byte in the middle, p99 {:?}", at(50), at(99));
    assert!(at(50) <= Duration::from_millis(50), "{late:?}");
}
