//! HTTP/2 connections and the time: who is silent, slow, stalled or dead is not kept, and who is slow but honest is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use http::Method;
use lab::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, WHOLE,
    frame, window_update,
};
use lab::http2::{self, answer, request, run};
use lab::origin::Then;
use lab::{Frames, Gate, Http2, Lab, Origin, gate};

/// Short, and apart from each other.
const SHORT: &str = "[limits]\nidle = \"2s\"\nhead = \"1s\"\nwrite_stall = \"1s\"\n";

fn held(extra: &str) -> (Lab, Gate) {
    let gate = Gate::default();
    (Lab::on(vec![Origin::held("blue", &gate)], extra), gate)
}

/// Answers with `length` bytes.
fn large(length: usize) -> Origin {
    Origin::behaving("blue", move |seen, stream| {
        let length = if seen.path() == "/small" { 2 } else { length };
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")?;
        stream.write_all(&vec![b'x'; length])?;
        Ok(Then::Keep)
    })
}

fn in_flight(lab: &Lab) -> f64 {
    lab.metric_sum("switchback_in_flight{")
}

#[test]
fn silence_and_half_a_preface_are_closed_in_time() {
    let lab = Lab::with(&["blue"], SHORT);
    for said in [&b""[..], b"PRI", &PREFACE[..23]] {
        let since = Instant::now();
        let mut connection = Frames::silent(lab.address());
        connection.send(said);
        let mut end = Vec::new();
        connection.socket().try_clone().unwrap().read_to_end(&mut end).unwrap();
        assert!(since.elapsed() >= Duration::from_secs(1), "not before its time: {said:?}");
    }
    lab.wait_for_metric(&["switchback_client_connections "], 0.0);
}

#[test]
fn an_idle_connection_is_told_to_go_and_closed() {
    let lab = Lab::with(&["blue"], SHORT);
    let mut connection = Frames::to(lab.address());
    assert_eq!(connection.ask(1, "/"), 200);
    assert_eq!(connection.ask(3, "/"), 200);
    let since = Instant::now();
    assert_eq!(connection.next(GOAWAY, 0).code(), 0, "NO_ERROR");
    assert!(since.elapsed() >= Duration::from_millis(1_500), "{:?}", since.elapsed());
    // This one does not answer the ping behind it, and is closed all the same.
    connection.rest();
    lab.wait_for_metric(&["switchback_client_connections "], 0.0);
}

#[test]
fn a_connection_with_a_request_is_not_idle() {
    let (lab, gate) = held(SHORT);
    let mut connection = Frames::to(lab.address());
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/held")));
    lab.origin("blue").wait_served(1);
    thread::sleep(Duration::from_secs(3));
    gate.open();
    connection.until(|piece| piece.kind == DATA && piece.flags & END_STREAM != 0);
}

#[test]
fn a_head_that_never_ends_is_not_waited_for() {
    let lab = Lab::with(&["blue"], SHORT);
    let mut connection = Frames::to(lab.address());
    let since = Instant::now();
    connection.send(frame(HEADERS, END_STREAM, 1, frames::get("/")));
    assert_eq!(connection.end(), Some(11), "ENHANCE_YOUR_CALM");
    assert!(since.elapsed() >= Duration::from_secs(1));
    let counted = lab.metric(&["switchback_client_requests_total{", "reason=\"request_timeout\""]);
    assert_eq!(counted, Some(1.0));
}

#[test]
fn a_head_in_pieces_is_a_head() {
    let lab = Lab::with(&["blue"], SHORT);
    let mut connection = Frames::to(lab.address());
    let head = frames::get("/");
    connection.send(frame(HEADERS, END_STREAM, 1, &head[..5]));
    connection.send(frame(CONTINUATION, 0, 1, &head[5..9]));
    connection.send(frame(CONTINUATION, END_HEADERS, 1, &head[9..]));
    assert_eq!(connection.status(1), 200);
}

#[test]
fn a_client_that_opens_no_window_loses_the_stream_and_not_the_connection() {
    let lab = Lab::on(vec![large(100_000)], SHORT);
    let mut connection = Frames::silent(lab.address()).open(&[(4, 0)]);
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/")));
    assert_eq!(connection.status(1), 200);
    let since = Instant::now();
    assert_eq!(connection.next(RST_STREAM, 1).code(), 8, "CANCEL");
    assert!(since.elapsed() >= Duration::from_millis(800), "{:?}", since.elapsed());
    lab::wait_until("the endpoint is let go", || in_flight(&lab) == 0.0);
    connection.send(frame(HEADERS, WHOLE, 3, frames::get("/small")));
    connection.send(window_update(3, 100));
    assert_eq!(connection.next(DATA, 3).payload, b"xx");
}

#[test]
fn a_window_of_a_byte_now_and_then_is_no_progress() {
    let lab = Lab::on(vec![large(100_000)], SHORT);
    let mut connection = Frames::silent(lab.address()).open(&[(4, 1)]);
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/")));
    let since = Instant::now();
    loop {
        let piece = connection.until(|piece| piece.kind == DATA || piece.kind == RST_STREAM);
        if piece.kind == RST_STREAM {
            break;
        }
        assert_eq!(piece.payload.len(), 1);
        assert!(since.elapsed() < lab::PATIENCE, "it drips for ever");
        thread::sleep(Duration::from_millis(100));
        connection.send(window_update(1, 1));
    }
    assert!(since.elapsed() >= Duration::from_millis(800));
}

#[test]
fn a_slow_reader_that_takes_something_is_served_to_the_end() {
    let lab = Lab::on(vec![large(100_000)], SHORT);
    let mut connection = Frames::silent(lab.address()).open(&[(4, 5_000)]);
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/")));
    let mut taken = 0;
    while taken < 100_000 {
        let data = connection.next(DATA, 1).payload.len();
        taken += data;
        if taken % 25_000 == 0 {
            thread::sleep(Duration::from_millis(700));
        }
        connection.send([window_update(1, 5_000), window_update(0, 5_000)].concat());
    }
}

/// Opens the window of stream 1 by `bytes` every 50 ms while data comes: how much it got, and whether it was reset.
fn sips(lab: &Lab, bytes: u32, most: usize) -> (usize, bool) {
    let mut connection = Frames::silent(lab.address()).open(&[(4, bytes)]);
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/")));
    let mut taken = 0;
    while taken < most {
        let piece = connection.until(|piece| piece.kind == DATA || piece.kind == RST_STREAM);
        if piece.kind == RST_STREAM {
            assert_eq!(piece.code(), 8, "CANCEL");
            // The connection lives on.
            connection.send(frame(HEADERS, WHOLE, 3, frames::get("/small")));
            connection.send(window_update(3, 100));
            assert_eq!(connection.next(DATA, 3).payload, b"xx");
            return (taken, true);
        }
        taken += piece.payload.len();
        thread::sleep(Duration::from_millis(50));
        connection.send(window_update(1, bytes));
    }
    (taken, false)
}

#[test]
fn a_stream_that_is_taken_on_and_on_but_too_slowly_is_given_up() {
    let lab = Lab::on(vec![large(100_000)], "[limits]\nwrite_stall = \"1s\"\nmin_drain_rate = 1_000_000\n");
    let (taken, is_reset) = sips(&lab, 1_000, 100_000);
    assert!(is_reset, "{taken}");
    let reason = "reason=\"client_stalled\"";
    lab.wait_for_metric(&["switchback_client_requests_total{", "version=\"blue\"", reason], 1.0);
}

#[test]
fn a_stream_that_is_taken_slowly_but_fast_enough_is_served() {
    let lab = Lab::on(vec![large(100_000)], "[limits]\nwrite_stall = \"2s\"\nmin_drain_rate = 500\n");
    assert_eq!(sips(&lab, 1_000, 60_000), (60_000, false), "longer than it may take nothing");
}

#[test]
fn the_time_in_all_is_over_for_who_opens_no_window_too() {
    let origin = large(100_000);
    let services = format!(
        "[limits]\nwrite_stall = \"5m\"\n[services.shop]\nroutes = [{{ path = \"/\" }}]\n\
         timeouts = {{ total = \"500ms\" }}\nversions.blue.endpoints = [\"{}\"]\n",
        origin.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &services);
    let mut connection = Frames::silent(lab.address()).open(&[(4, 10)]);
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/")));
    assert_eq!(connection.next(RST_STREAM, 1).code(), 8, "CANCEL");
    let reason = "reason=\"deadline\"";
    lab.wait_for_metric(&["switchback_client_requests_total{", "version=\"blue\"", reason], 1.0);
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let lab = Lab::on(vec![large(64 << 20)], SHORT);
    let mut connection = Frames::silent(lab.address()).open(&[(4, i32::MAX as u32)]);
    connection.send(window_update(0, i32::MAX as u32 - 65_535));
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/")));
    lab::wait_until("it is in flight", || in_flight(&lab) > 0.0);
    lab.wait_for_metric(&["switchback_client_connections "], 0.0);
    drop(connection);
}

#[test]
fn a_client_whose_answers_do_not_fit_the_socket_gets_them_whole() {
    let lab = Lab::on(vec![large(20 << 20)], "");
    let mut connection = Frames::silent(lab.address()).open(&[(4, i32::MAX as u32)]);
    connection.send(window_update(0, i32::MAX as u32 - 65_535));
    for stream in [1, 3, 5] {
        connection.send(frame(HEADERS, WHOLE, stream, frames::get("/")));
    }
    let (mut taken, mut ended) = (0, 0);
    while ended < 3 {
        let piece = connection.until(|piece| piece.kind == DATA);
        taken += piece.payload.len();
        ended += u32::from(piece.flags & END_STREAM != 0);
    }
    assert_eq!(taken, 3 * (20 << 20));
}

#[test]
fn sigterm_tells_in_two_steps_and_finishes_what_was_begun() {
    let (mut lab, gate) = held("");
    let mut connection = Frames::to(lab.address());
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/held")));
    lab.origin("blue").wait_served(1);
    lab.proxy().signal("TERM");
    let warning = connection.until(|piece| piece.kind == HEADERS || piece.kind == GOAWAY);
    let warning = if warning.kind == GOAWAY { warning } else { wait_goaway(&mut connection) };
    assert_eq!((warning.code(), &warning.payload[..4]), (0, &0x7fff_ffff_u32.to_be_bytes()[..]));
    // Sent before it has heard of it: still served.
    connection.send(frame(HEADERS, WHOLE, 3, frames::get("/")));
    let ping = connection.next(PING, 0);
    connection.send(frame(PING, frames::ACK, 0, &ping.payload));
    let last = wait_goaway(&mut connection);
    assert_eq!((last.code(), &last.payload[..4]), (0, &3_u32.to_be_bytes()[..]));
    gate.open();
    let rest = connection.rest();
    let ends = |stream| {
        rest.iter().any(|piece| piece.stream == stream && piece.kind == DATA && piece.flags & END_STREAM != 0)
    };
    assert!(ends(1), "{rest:?}");
    let (status, log) = lab.proxy.take().unwrap().wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

fn wait_goaway(connection: &mut Frames) -> frames::Piece {
    loop {
        let piece = connection.piece();
        if piece.kind == GOAWAY {
            return piece;
        }
    }
}

#[test]
fn sigterm_does_not_wait_for_idle_connections_that_say_nothing() {
    let mut lab = Lab::with(&["blue"], "");
    let mut connection = Frames::to(lab.address());
    assert_eq!(connection.ask(1, "/"), 200);
    // So that it is idle by then, in the proxy's eyes too.
    assert!(connection.is_alive());
    let since = Instant::now();
    lab.proxy().signal("TERM");
    let (status, log) = lab.proxy.take().unwrap().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
}

#[test]
fn a_client_that_closes_on_goaway_is_not_lingered_for() {
    let (mut lab, gate) = held("");
    run(async {
        let client = Http2::to(lab.address()).await;
        let (response, _) = client.start(request(Method::GET, "/held"), true).await;
        http2::wait_until("it is asked", || lab.origin("blue").served() == 1).await;
        lab.proxy().signal("TERM");
        lab.proxy().wait_for_log("winding down");
        gate.open();
        assert_eq!(answer(response).await.unwrap().text(), gate::HELD);
        drop(client.send);
        client.connection.await.unwrap().unwrap();
    });
    let (status, log) = lab.proxy.take().unwrap().wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn the_dead_are_found_by_a_ping() {
    // Longer than anything here takes: only the ping can end it.
    let (lab, gate) = held("[limits]\nidle = \"5m\"\nwrite_stall = \"5m\"\nping = \"2s\"\n");
    let mut connection = Frames::to(lab.address());
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/late")));
    assert_eq!(connection.next(PING, 0).flags, 0);
    let since = Instant::now();
    connection.rest();
    assert!(since.elapsed() >= Duration::from_millis(500), "it had time to answer");
    lab.wait_for_metric(&["switchback_client_connections "], 0.0);
    gate.open();
}

#[test]
fn who_is_quiet_is_asked_at_the_time_and_not_at_the_next() {
    let lab = Lab::with(&["blue"], "[limits]\nidle = \"5m\"\nping = \"4s\"\n");
    let since = Instant::now();
    let mut connection = Frames::to(lab.address());
    connection.next(PING, 0);
    let after = since.elapsed();
    assert!(after >= Duration::from_secs(3) && after < Duration::from_secs(7), "{after:?}");
}

#[test]
fn who_answers_pings_is_kept() {
    let (lab, gate) = held("[limits]\nping = \"500ms\"\n");
    let mut connection = Frames::to(lab.address());
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/late")));
    for _ in 0..5 {
        let ping = connection.next(PING, 0);
        connection.send(frame(PING, frames::ACK, 0, &ping.payload));
    }
    gate.open();
    connection.until(|piece| piece.kind == DATA && piece.flags & END_STREAM != 0);
}

#[test]
fn fewer_streams_can_be_allowed() {
    let (lab, gate) = held("[limits]\nstreams = 2\n");
    let mut connection = Frames::to(lab.address());
    for stream in [1, 3, 5] {
        connection.send(frame(HEADERS, WHOLE, stream, frames::get("/late")));
    }
    assert_eq!(connection.next(RST_STREAM, 5).code(), 7, "REFUSED_STREAM");
    gate.open();
    connection.next(HEADERS, 1);
}
