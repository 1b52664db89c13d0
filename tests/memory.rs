//! What a connection costs while nothing goes over it: none of what went over it before is kept. And what nobody has any
//! more is not in use.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it waits"
)]

mod lab;

use std::cell::Cell;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use http::Method;
use lab::gate::Gate;
use lab::http2::{request, run};
use lab::origin::Peer;
use lab::{Client, Http2, Lab, Origin, PATIENCE};

/// What is read at once, at most: the size of a buffer that one small part of it keeps whole.
const READ: usize = 64 * 1024;
/// The size of a file that does not go through a pipe, but through such a buffer.
const SMALL: usize = READ * 2 / 5;
/// How many connections there are, and what one of them may cost. The kernel may give memory in pieces of 2 MiB
/// (transparent huge pages): one more or less of them must not matter.
const COUNT: usize = 400;
const MOST: usize = 20 * 1024;

/// A message of a WebSocket's client.
const MESSAGE: &[u8] = b"\x81\x82\0\0\0\0hi";

/// Answers as the path says: with a file, with an event, or as one end of a tunnel.
fn serve(proxy: &mut Peer) -> io::Result<()> {
    loop {
        let seen = proxy.head()?;
        match seen.path() {
            "/events" => {
                let head = "content-type: text/event-stream\r\ntransfer-encoding: chunked";
                proxy.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n9\r\ndata: 1\n\n\r\n"))?;
                return if proxy.is_closed() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
            }
            "/wait" => {
                return if proxy.is_closed() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
            }
            "/tunnel" => {
                let head = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: a";
                proxy.send(format!("HTTP/1.1 101 Switching Protocols\r\n{head}\r\n\r\n"))?;
                let message = proxy.bytes(MESSAGE.len())?;
                proxy.send(message)?;
                return if proxy.is_closed() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
            }
            path => {
                let length = if path == "/file/small" { SMALL } else { READ };
                proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"))?;
                proxy.send(vec![b'x'; length])?;
            }
        }
    }
}

/// `shop`, and `files`, which only has files; on one worker.
fn lab() -> Lab {
    lab_of(Origin::scripted("blue", serve))
}

/// The same, with this origin for all that is no file.
fn lab_of(origin: Origin) -> Lab {
    let files = Origin::scripted("files", serve);
    let service = format!(
        "[services.files]\nroutes = [{{ path = \"/file\" }}]\nversions.only.endpoints = [\"{}\"]\n",
        files.address
    );
    let mut lab = Lab::on(vec![origin, files], &service);
    lab.restrict_to_one_worker();
    lab
}

/// How much memory each of [`COUNT`] connections takes that `open` leaves idle, with files read by somebody else in
/// between: so that no two of them have their bytes in one buffer.
fn cost_of_idle(lab: &Lab, open: impl Fn(&mut Client)) -> usize {
    let mut other = lab.client();
    let mut open = || {
        let mut client = lab.client();
        open(&mut client);
        assert_eq!(other.get("/file").body.len(), READ);
        for _ in 0..2 {
            assert_eq!(other.get("/file/small").body.len(), SMALL);
        }
        client
    };
    // What is there once a process has been at work for a while is there.
    let mut all: Vec<_> = (0..20).map(|_| open()).collect();
    let before = lab.proxy().memory();
    all.extend((0..COUNT).map(|_| open()));
    let grown = lab.proxy().memory().saturating_sub(before);
    grown / COUNT
}

#[test]
fn a_client_that_may_come_back_keeps_nothing_of_what_it_had() {
    let cost = cost_of_idle(&lab(), |client| assert_eq!(client.get("/file").body.len(), READ));
    assert!(cost < MOST, "{cost} bytes each");
}

#[test]
fn a_stream_between_two_events_keeps_nothing_of_the_last_one() {
    let cost = cost_of_idle(&lab(), |client| {
        client.send("GET /events HTTP/1.1\r\nhost: a\r\n\r\n");
        while !client.line().starts_with("data") {}
    });
    assert!(cost < MOST, "{cost} bytes each");
}

#[test]
fn a_next_request_that_came_too_early_keeps_little_more_than_its_head() {
    let gate = Gate::default();
    let lab = lab_of(Origin::held("blue", &gate));
    let asked = Cell::new(0);
    let cost = cost_of_idle(&lab, |client| {
        client.send("GET /late HTTP/1.1\r\nhost: a\r\n\r\n");
        asked.set(asked.get() + 1);
        lab.origin("blue").wait_served(asked.get());
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    });
    assert!(cost < 2 * MOST, "{cost} bytes each");
    gate.open();
}

#[test]
fn a_tunnel_between_two_messages_keeps_nothing_of_the_last_one() {
    let cost = cost_of_idle(&lab(), |client| {
        client.send(
            "GET /tunnel HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        while !client.line().is_empty() {}
        client.send(MESSAGE);
        assert_eq!(client.bytes(MESSAGE.len()), MESSAGE);
    });
    assert!(cost < MOST, "{cost} bytes each");
}

#[test]
fn a_request_that_is_held_keeps_no_more_than_its_head() {
    let lab = lab();
    lab.hold(&serde_json::json!({ "timeout": "5m" }));
    let cost = cost_of_idle(&lab, |client| {
        client.send("GET /held HTTP/1.1\r\nhost: a\r\nx-a: b\r\n\r\n");
    });
    assert!(cost < MOST, "{cost} bytes each");
    lab.release();
}

#[test]
fn a_request_that_waits_for_its_answer_keeps_little_more_than_its_head() {
    let cost = cost_of_idle(&lab(), |client| {
        client.send("GET /wait HTTP/1.1\r\nhost: a\r\nx-a: b\r\n\r\n");
    });
    assert!(cost < 2 * MOST, "{cost} bytes each");
}

/// It gives its buffer back when nothing was to be sent for a second, and the next one takes it.
#[test]
fn a_stream_of_http_2_between_two_events_keeps_not_what_it_was_sent_from() {
    let lab = lab();
    run(async {
        let mut open = Vec::new();
        let mut cost_of = async |count: usize| {
            let before = lab.proxy().memory();
            for _ in 0..count {
                let client = Http2::to(lab.address()).await;
                let (answer, _) = client.start(request(Method::GET, "/events"), true).await;
                let mut body = answer.await.unwrap().into_body();
                assert_eq!(body.data().await.unwrap().unwrap(), "data: 1\n\n");
                open.push((client, body));
            }
            lab.proxy().memory().saturating_sub(before) / count
        };
        let fresh = cost_of(COUNT).await;
        assert!(fresh > READ, "{fresh} bytes each: this test sees nothing");
        let since = Instant::now();
        while cost_of(COUNT / 10).await > MOST {
            assert!(since.elapsed() < PATIENCE, "nothing was given back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn a_head_that_does_not_come_to_its_end_keeps_no_more_than_has_come() {
    for begun in ["GET / HTTP/1.1\r\nhost: a\r\nx-", "PRI * HTT", "POST /file HTTP/1.1\r\nhost: a\r\n"] {
        let cost = cost_of_idle(&lab(), |client| {
            client.send(begun);
        });
        assert!(cost < MOST, "{cost} bytes each: {begun:?}");
    }
}

/// The allocator keeps what a thread has freed, and gives it back when threads have more to do than those do here.
#[test]
fn what_was_free_before_everybody_is_refused_is_not_in_use_for_good() {
    let origin = Origin::start("blue");
    let service =
        format!("[services.shop]\nroutes = [{{}}]\nversions.blue.endpoints = [\"{}\"]\n", origin.address);
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &service);
    lab.expected_errors.push("the configuration is not used");
    let little = (lab.proxy().memory() >> 20) + 20;
    lab.write_config(&format!("[limits]\nmemory = \"{little}MiB\"\n{service}"));
    lab.proxy().wait_for_log("configuration read");
    // Refused when all of it has been read, for it is no UTF-8.
    let large = lab.dir.path().join("large");
    fs::write(&large, [0xff]).unwrap();
    fs::OpenOptions::new().write(true).open(&large).unwrap().set_len(60 << 20).unwrap();
    fs::rename(large, lab.config()).unwrap();
    lab.proxy().wait_for_log("now=Critical");
    lab.proxy().wait_for_log("now=Calm");
    assert_eq!(lab.get("/").status, 200);
}
