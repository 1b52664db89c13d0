//! SIGTERM finishes what is in flight and nothing else; a second one does not wait.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lab::{Client, Gate, Lab, Origin, gate};
use serde_json::{Value, json};

fn held(extra: &str) -> (Lab, Gate) {
    let gate = Gate::default();
    (Lab::on(vec![Origin::held("blue", &gate), Origin::held("green", &gate)], extra), gate)
}

/// A client in the middle of a download.
fn download(lab: &Lab) -> Client {
    let mut client = lab.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    lab.origin("blue").wait_served(1);
    client
}

fn terminate(lab: &Lab) {
    lab.proxy().signal("TERM");
    lab.proxy().wait_for_log("winding down");
}

#[test]
fn a_download_is_finished_and_nothing_new_is_taken() {
    let (mut lab, gate) = held("");
    let mut client = download(&lab);
    terminate(&lab);
    // Everybody is told to go elsewhere: whoever looks, and whoever connects.
    let ready = lab.call_with("GET", "/readyz", &[], &Value::Null);
    assert_eq!((ready.status, ready.text().as_str()), (503, "stopping\n"));
    lab::wait_until("nobody listens", || TcpStream::connect(lab.address()).is_err());
    gate.open();
    let answer = client.answer();
    assert_eq!((answer.text().as_str(), answer.is_whole), (gate::HELD, true));
    assert!(client.is_closed_within(lab::PATIENCE), "and then there is nothing more to come");
    let (status, log) = lab.proxy.take().unwrap().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!lab.socket().exists(), "the admin socket goes with the process");
}

#[test]
fn an_upload_is_finished() {
    let (mut lab, _gate) = held("");
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 10\r\n\r\n01234");
    let uploads = || lab.metric(&["switchback_in_flight{", "\"shop\"", "\"blue\"", "\"upload\""]);
    lab::wait_until("the upload is under way", || uploads() == Some(1.0));
    terminate(&lab);
    client.send("56789");
    let answer = client.answer();
    assert_eq!((answer.status, answer.version()), (200, "blue"));
    assert_eq!(lab.origin("blue").only().body, b"0123456789");
    assert_eq!(lab.proxy.take().unwrap().wait().0.code(), Some(0));
}

#[test]
fn the_deadline_of_the_file_ends_what_does_not_end() {
    let (mut lab, _gate) = held("[shutdown]\ndeadline = \"300ms\"\n");
    let mut client = download(&lab);
    let since = Instant::now();
    terminate(&lab);
    let answer = client.answer();
    assert!(since.elapsed() >= Duration::from_millis(250), "not before: {:?}", since.elapsed());
    assert!(!answer.is_whole, "a cut is not passed off as an end");
    let (status, log) = lab.proxy.take().unwrap().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("the deadline has come; what is still in flight is cut"), "{log}");
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let (mut lab, _gate) = held("[shutdown]\ndeadline = \"1h\"\n");
    let mut client = download(&lab);
    terminate(&lab);
    lab.proxy().signal("TERM");
    assert!(!client.answer().is_whole);
    let (status, log) = lab.proxy.take().unwrap().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("told twice"), "{log}");
}

#[test]
fn somebody_who_listens_to_events_does_not_hold_it_up() {
    let (mut lab, _gate) = held("");
    let events = lab.events();
    terminate(&lab);
    let since = Instant::now();
    assert_eq!(lab.proxy.take().unwrap().wait().0.code(), Some(0));
    assert!(since.elapsed() < Duration::from_millis(1_500), "{:?}", since.elapsed());
    drop(events);
}

#[test]
fn who_waits_for_a_verdict_is_told_that_the_change_is_made() {
    let (mut lab, _gate) = held("");
    let body = json!({ "to": "green", "supervise": "1h" });
    let waiting = lab.call_later("POST", "/v1/services/shop/flip?wait=finished&timeout=30s", &[], &body);
    lab::wait_until("it is flipped", || lab.epoch() == 2);
    terminate(&lab);
    let answer = waiting.answer();
    let problem = answer.json();
    assert_eq!((answer.status, &problem["change"]["epoch"]), (503, &json!(2)), "{problem}");
    assert_eq!(problem["detail"], "the change is made (epoch 2), but the proxy is shutting down");
    assert_eq!(lab.proxy.take().unwrap().wait().0.code(), Some(0));
}

#[test]
fn connections_that_wait_for_a_request_are_closed() {
    let (mut lab, gate) = held("");
    let mut busy = download(&lab);
    let mut used = lab.client();
    assert_eq!(used.get("/").status, 200);
    let mut fresh = lab.client();
    let open = || lab.metric(&["switchback_client_connections"]);
    lab::wait_until("all three are accepted", || open() == Some(3.0));
    terminate(&lab);
    assert!(used.is_closed_within(lab::PATIENCE));
    assert!(fresh.is_closed_within(lab::PATIENCE));
    // While the one with work goes on.
    gate.open();
    assert!(busy.answer().is_whole);
    assert_eq!(lab.proxy.take().unwrap().wait().0.code(), Some(0));
}

#[test]
fn in_the_lame_ducks_time_everything_is_served_but_nobody_is_sent_here() {
    let mut lab = Lab::with(&["blue"], "[shutdown]\nlame_duck = \"1h\"\n");
    let mut used = lab.client();
    assert_eq!(used.get("/").status, 200);
    terminate(&lab);
    assert_eq!(lab.call_with("GET", "/readyz", &[], &Value::Null).status, 503);
    for client in [&mut used, &mut lab.client()] {
        let answers = [client.get("/"), client.get("/")];
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.header("connection").is_none()));
    }
    lab.proxy().signal("TERM");
    let (status, log) = lab.proxy.take().unwrap().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("told twice"), "{log}");
}

#[test]
fn the_lame_ducks_time_has_an_end() {
    let mut lab = Lab::with(&["blue"], "[shutdown]\nlame_duck = \"400ms\"\n");
    let since = Instant::now();
    let (status, log) = lab.proxy.take().unwrap().stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(since.elapsed() >= Duration::from_millis(400), "{:?}", since.elapsed());
}

#[test]
fn the_next_answer_of_a_connection_is_its_last_and_says_so() {
    let (mut lab, gate) = held("[shutdown]\nspread = \"20s\"\n");
    let mut busy = download(&lab);
    let mut used = lab.client();
    assert_eq!(used.get("/").status, 200);
    terminate(&lab);
    lab::wait_until("nobody listens", || TcpStream::connect(lab.address()).is_err());
    let last = used.get("/");
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(used.is_closed_within(lab::PATIENCE));
    gate.open();
    assert!(busy.answer().is_whole);
    let (status, log) = lab.proxy.take().unwrap().wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn idle_connections_are_not_closed_all_at_once() {
    const CLIENTS: usize = 40;
    let mut lab = Lab::with(&["blue"], "[shutdown]\nspread = \"2s\"\n");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = lab.client();
            assert_eq!(client.get("/").status, 200);
            client.sender()
        })
        .collect();
    let since = Instant::now();
    terminate(&lab);
    let closing = clients.into_iter().map(|mut client| {
        std::thread::spawn(move || {
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            since.elapsed()
        })
    });
    let closing: Vec<_> = closing.collect();
    let mut closed: Vec<_> = closing.into_iter().map(|client| client.join().unwrap()).collect();
    closed.sort();
    assert!(closed[0] >= Duration::from_millis(150), "whose request was on its way? {:?}", closed[0]);
    assert!(closed[CLIENTS - 1] - closed[0] >= Duration::from_millis(800), "{closed:?}");
    assert_eq!(lab.proxy.take().unwrap().wait().0.code(), Some(0));
}

#[test]
fn who_waits_in_the_kernels_queue_is_served() {
    let (mut lab, gate) = held("[limits]\nconnections = 2\n");
    lab.restrict_to_one_worker();
    let mut busy = [download(&lab), lab.client()];
    lab.wait_for_metric(&["switchback_client_connections "], 2.0);
    let mut waiting: Vec<_> = (0..6).map(|_| lab.client()).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    }
    terminate(&lab);
    lab::wait_until("nobody listens", || TcpStream::connect(lab.address()).is_err());
    for client in &mut waiting {
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    gate.open();
    assert!(busy[0].answer().is_whole);
    assert_eq!(lab.proxy.take().unwrap().wait().0.code(), Some(0));
}

#[test]
fn who_comes_while_it_closes_is_served_or_refused_and_never_reset() {
    let mut lab = Lab::start(&["blue"]);
    let (address, served) = (lab.address(), AtomicUsize::new(0));
    let refused: Vec<_> = std::thread::scope(|scope| {
        let count = || {
            served.fetch_add(1, Ordering::Relaxed);
        };
        let clients: Vec<_> =
            (0..16).map(|_| scope.spawn(move || Client::until_refused(address, count))).collect();
        lab::wait_until("all of them ask", || served.load(Ordering::Relaxed) > 200);
        terminate(&lab);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    // Whoever came before the socket was closed heard nothing, and asked again after a second.
    assert!(refused.iter().any(|took| *took > Duration::from_millis(900)), "{refused:?}");
    assert_eq!(lab.proxy.take().unwrap().wait().0.code(), Some(0));
}

#[test]
fn where_the_traffic_goes_survives() {
    let (mut lab, _gate) = held("");
    lab.flip("green");
    let standing =
        |lab: &Lab| ["weights", "stable", "previous", "epoch"].map(|part| lab.shop()[part].clone());
    let (before, epoch) = (standing(&lab), lab.epoch());
    let (status, log) = lab.proxy.take().unwrap().stop();
    assert_eq!(status.code(), Some(0), "{log}");
    lab.proxy = Some(lab.spawn(2));
    assert_eq!((standing(&lab), lab.epoch()), (before, epoch));
    assert_eq!(lab.get("/").version(), "green");
}

#[test]
fn an_interrupt_from_the_keyboard_and_a_quit_are_the_same() {
    for signal in ["INT", "QUIT"] {
        let (mut lab, gate) = held("");
        let mut client = download(&lab);
        lab.proxy().signal(signal);
        lab.proxy().wait_for_log("winding down");
        gate.open();
        assert!(client.answer().is_whole);
        assert_eq!(lab.proxy.take().unwrap().wait().0.code(), Some(0));
    }
}

#[test]
fn a_signal_that_means_something_to_other_proxies_ends_nothing() {
    let (lab, gate) = held("");
    let mut client = download(&lab);
    lab.proxy().signal("USR2");
    lab.proxy().wait_for_log("SIGUSR2 asks for nothing here");
    gate.open();
    assert!(client.answer().is_whole);
    assert_eq!(client.get("/").version(), "blue");
}

#[test]
fn a_successors_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.sock");
    let mut lab = Lab::with(&["blue"], &format!("[[listeners]]\nlisten = \"unix:{}\"\n", path.display()));
    std::fs::remove_file(&path).unwrap();
    let _successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (status, log) = lab.proxy.take().unwrap().stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(path.exists(), "its file is gone");
}
