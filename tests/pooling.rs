//! Connections are kept on both sides, none of them costs a request when it closes, and nothing waits for ever.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lab::gate::Gate;
use lab::origin::{Peer, Then, never_accepts, nobody};
use lab::{Answer, Lab, Origin, PATIENCE};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn failed(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("switchback-reason").unwrap_or(""))
}

#[test]
fn connections_are_kept_on_both_sides() {
    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").status, 200);
        assert_eq!(client.post("/", b"body").status, 200);
    }
    assert_eq!(lab.origins[0].connections(), 1);
    for _ in 0..20 {
        assert_eq!(lab.get("/").status, 200);
    }
    assert!(lab.origins[0].connections() <= 2, "one for each worker");
}

/// All that a worker had at a time is there for the next time: with a busy endpoint none is closed to be opened again.
#[test]
fn what_many_requests_at_a_time_needed_is_kept() {
    const MANY: u64 = 300;
    let gates = [Gate::default(), Gate::default()];
    let waits = gates.clone();
    let origin = Origin::behaving("blue", move |seen, stream| {
        waits[usize::from(seen.path() == "/second")].wait();
        stream.write_all(OK.as_bytes())?;
        Ok(Then::Keep)
    });
    let mut lab = Lab::on(vec![origin], "");
    lab.restrict_to_one_worker();
    let mut clients: Vec<_> = (0..MANY).map(|_| lab.client()).collect();
    for (path, gate) in ["/first", "/second"].into_iter().zip(gates) {
        let before = lab.origin("blue").served();
        for client in &mut clients {
            client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
        }
        lab.origin("blue").wait_served(before + MANY);
        gate.open();
        assert!(clients.iter_mut().all(|client| client.answer().status == 200));
        assert_eq!(lab.origin("blue").connections(), MANY, "after {path}");
    }
}

#[test]
fn a_client_that_closes_does_not_close_the_origins_connection() {
    let lab = Lab::start(&["blue"]);
    for _ in 0..20 {
        let mut client = lab.client();
        let answer = client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").answer();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(client.rest().is_empty());
    }
    assert!(lab.origins[0].connections() <= 2, "one for each worker");
}

#[test]
fn an_origin_that_closes_does_not_close_the_clients_connection() {
    let origin = Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")?;
        Ok(Then::Close)
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    for requests in 1..=10 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.header("connection")), (200, None));
        assert_eq!(lab.origins[0].connections(), requests);
    }
}

/// Takes whoever asks on a connection for the user that it was authenticated for, as by NTLM or Negotiate (RFC 4559).
fn authenticates_connections() -> Origin {
    Origin::scripted("blue", |proxy: &mut Peer| {
        let mut user = None;
        loop {
            let head = proxy.head()?;
            match head.header("authorization") {
                Some("NTLM one") => {
                    proxy.send("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: NTLM two\r\ncontent-length: 0\r\n\r\n")?;
                    continue;
                }
                Some(known) => user = Some(known.to_owned()),
                None => {}
            }
            match &user {
                None => proxy.send(
                    "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: NTLM\r\ncontent-length: 0\r\n\r\n",
                )?,
                Some(user) => {
                    proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{user}", user.len()))?;
                }
            }
        }
    })
}

#[test]
fn a_connection_that_was_authenticated_for_a_client_is_for_its_requests_alone() {
    let mut lab = Lab::on(vec![authenticates_connections()], "");
    lab.restrict_to_one_worker();
    let (mut alice, mut other) = (lab.client(), lab.client());
    for (credentials, status) in
        [("", 401), ("authorization: NTLM one\r\n", 401), ("authorization: NTLM alice\r\n", 200)]
    {
        let answer = alice.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{credentials}\r\n")).answer();
        assert_eq!(answer.status, status);
        assert_eq!(other.get("/").status, 401);
    }
    for _ in 0..3 {
        assert_eq!(alice.get("/").text(), "NTLM alice");
        assert_eq!(other.get("/").status, 401);
        assert_eq!(lab.get("/").status, 401);
    }
}

#[test]
fn no_connection_is_kept_where_the_operator_wants_none() {
    let lab = Lab::with(&["blue"], "[limits]\npool_size = 0");
    let mut client = lab.client();
    for requests in 1..=5 {
        assert_eq!(client.get("/").status, 200);
        assert_eq!(lab.origins[0].connections(), requests);
    }
}

/// Answers and then closes without notice, sooner or later: at once, a moment later, or with the next request in hand.
/// Tells every request's path.
fn closes_connections() -> (Origin, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let turns = AtomicUsize::new(0);
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        let head = proxy.head()?;
        proxy.bytes(head.header("content-length").map_or(0, |length| length.parse().unwrap()))?;
        noted.lock().unwrap().push(head.path().to_owned());
        proxy.send(OK)?;
        match turns.fetch_add(1, Ordering::SeqCst) % 4 {
            0 => {}
            1 => thread::yield_now(),
            2 => thread::sleep(Duration::from_millis(1)),
            _ => noted.lock().unwrap().push(proxy.head()?.path().to_owned()),
        }
        Ok(())
    });
    (origin, seen)
}

#[test]
fn no_get_is_lost_to_an_origin_that_closes_connections() {
    let (origin, _) = closes_connections();
    let lab = Lab::pool(vec![origin], &[], "", "retries = { budget = \"100%\", min_per_second = 1_000 }");
    let mut client = lab.client();
    for number in 0..600 {
        let answer = client.get(&format!("/{number}"));
        assert_eq!(answer.status, 200, "{number}: {answer:?}");
    }
}

#[test]
fn no_post_is_sent_twice_to_an_origin_that_closes_connections() {
    let (origin, seen) = closes_connections();
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    let mut lost = 0;
    for number in 0..300 {
        let answer = match number % 2 {
            0 => client.post(&format!("/{number}"), b"body"),
            _ => client.send(format!("POST /{number} HTTP/1.1\r\nhost: a\r\n\r\n")).answer(),
        };
        if answer.status != 200 {
            assert_eq!(failed(&answer), (502, "upstream_closed"));
            lost += 1;
            if answer.header("connection") == Some("close") {
                // The answer was there before the body.
                client = lab.client();
            }
        }
    }
    let mut paths = seen.lock().unwrap().clone();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), seen.lock().unwrap().len(), "none came twice");
    // Those that met a closing connection, and no others.
    assert!(lost <= 200, "{lost} of 300 failed");
}

#[test]
fn a_get_over_a_closed_connection_goes_to_the_same_endpoint_again() {
    let (closed, is_closed) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send(OK)?;
        proxy.stream().shutdown(Shutdown::Both)?;
        closed.send(()).map_err(io::Error::other)
    });
    let lab = Lab::pool(vec![origin], &[nobody()], "", "");
    let mut client = lab.client();
    for number in 0..60 {
        let answer = client.get(&format!("/{number}"));
        assert_eq!(answer.status, 200, "{number}: {answer:?}");
        is_closed.recv().unwrap();
    }
}

#[test]
fn a_request_goes_to_another_endpoint_when_one_does_not_accept() {
    let origins = vec![Origin::start("one"), Origin::start("two")];
    let lab = Lab::pool(origins, &[nobody()], "", "");
    let mut client = lab.client();
    for number in 0..30 {
        assert_eq!(client.get("/").status, 200, "{number}");
        assert_eq!(client.post("/", b"body").status, 200, "{number}");
    }
    assert_eq!(lab.origins.iter().map(Origin::served).sum::<u64>(), 60, "each once");
    let failures = lab.metric(&["switchback_upstream_requests_total{", "reason=\"connect_failed\""]);
    assert!(failures.is_some_and(|failures| failures >= 10.0), "{failures:?} attempts failed");
    assert_eq!(
        lab.metric(&["switchback_client_requests_total{", "reason=\"connect_failed\""]).unwrap_or(0.0),
        0.0
    );
}

#[test]
fn a_version_of_which_no_endpoint_accepts_is_not_available() {
    let lab = Lab::pool(Vec::new(), &[nobody(), nobody()], "", "");
    let mut client = lab.client();
    for _ in 0..3 {
        assert_eq!(failed(&client.get("/")), (503, "connect_failed"));
    }
    assert_eq!(failed(&client.post("/", &[0; 100])), (503, "connect_failed"));
}

#[test]
fn an_endpoint_that_does_not_accept_in_time_is_given_up() {
    let (address, _socket, _queued) = never_accepts();
    let lab = Lab::pool(Vec::new(), &[address], "", "timeouts = { connect = \"200ms\" }");
    assert_eq!(failed(&lab.get("/")), (504, "connect_timeout"));
    drop(lab);
    let lab = Lab::pool(vec![Origin::start("good")], &[address], "", "timeouts = { connect = \"200ms\" }");
    let mut client = lab.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").status, 200, "another one accepts");
    }
}

/// Says `answer` and then nothing; tells when the proxy has gone.
fn falls_silent(answer: &'static str) -> (Origin, mpsc::Receiver<()>) {
    let (tell, gone) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send(answer)?;
        proxy.rest();
        let _ = tell.send(());
        Ok(())
    });
    (origin, gone)
}

#[test]
fn an_origin_that_does_not_answer_is_given_up() {
    let (origin, gone) = falls_silent("");
    let lab = Lab::pool(vec![origin], &[], "", "timeouts = { response = \"200ms\" }");
    let mut client = lab.client();
    assert_eq!(failed(&client.get("/")), (504, "response_timeout"));
    gone.recv_timeout(PATIENCE).unwrap();
    assert_eq!(failed(&client.post("/", b"body")), (504, "response_timeout"));
    assert_eq!(lab.origins[0].connections(), 2);
}

#[test]
fn an_origin_that_stops_in_its_answer_is_given_up() {
    for (answer, limit) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "progress"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "stream"),
    ] {
        let (origin, gone) = falls_silent(answer);
        let lab = Lab::pool(vec![origin], &[], "", &format!("timeouts = {{ {limit} = \"200ms\" }}"));
        let answer = lab.get("/");
        assert_eq!((answer.text().as_str(), answer.is_whole), ("abc", false));
        gone.recv_timeout(PATIENCE).unwrap();
        let counted = lab.metric(&["switchback_upstream_requests_total{", "reason=\"body_stalled\""]);
        assert_eq!(counted, Some(1.0));
    }
}

#[test]
fn an_origin_that_does_not_read_is_given_up() {
    let (silent, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        let _ = wait.lock().unwrap().recv();
        Ok(())
    });
    let lab = Lab::pool(vec![origin], &[], "", "timeouts = { progress = \"300ms\" }");
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n");
    let mut sender = client.sender();
    let sending = thread::spawn(move || while sender.write_all(&[0; 65_536]).is_ok() {});
    assert_eq!(failed(&client.answer()), (504, "response_timeout"));
    drop(silent);
    sending.join().unwrap();
}

#[test]
fn a_client_that_stops_in_its_body_is_told_so() {
    let (origin, gone) = falls_silent("");
    let lab = Lab::pool(vec![origin], &[], "", "timeouts = { progress = \"200ms\" }");
    let mut client = lab.client();
    let answer = client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc").answer();
    assert_eq!(failed(&answer), (408, "request_timeout"));
    assert!(client.rest().is_empty());
    gone.recv_timeout(PATIENCE).unwrap();
}

/// Says `text` in drips of one byte, longer than the limits of these tests in all, and each of them much shorter.
fn drip(mut stream: impl Write, text: &str) {
    for byte in text.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(75));
    }
}

const ONE_SECOND: &str = "timeouts = { response = \"1s\", progress = \"1s\", stream = \"1s\" }";

#[test]
fn what_is_slow_but_moves_is_not_given_up() {
    let origin = Origin::behaving("blue", |_, mut stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n")?;
        drip(&mut stream, "twenty drips, twenty");
        Ok(Then::Keep)
    });
    let lab = Lab::pool(vec![origin], &[], "[limits]\nmin_body_rate = 10", ONE_SECOND);
    let mut client = lab.client();
    let since = Instant::now();
    assert_eq!(client.get("/").text(), "twenty drips, twenty");
    assert!(since.elapsed() > Duration::from_secs(1), "slower than the limit");
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\n");
    drip(client.sender(), "twenty drips, twenty");
    assert_eq!(client.answer().text(), "twenty drips, twenty");
}

#[test]
fn an_upload_that_moves_keeps_a_silent_answer_alive() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n")?;
        let body = proxy.bytes(20)?;
        proxy.send(body)?;
        assert!(proxy.is_closed());
        Ok(())
    });
    let lab = Lab::pool(vec![origin], &[], "", ONE_SECOND);
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\n");
    drip(client.sender(), "twenty drips, twenty");
    let answer = client.answer();
    assert_eq!((answer.text().as_str(), answer.is_whole), ("twenty drips, twenty", true));
}

#[test]
fn a_client_that_reads_late_is_not_held_against_the_origin() {
    const ALL: usize = 32 << 20;
    let origin = Origin::behaving("blue", |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {ALL}\r\n\r\n")?;
        stream.write_all(&vec![b'x'; ALL])?;
        Ok(Then::Keep)
    });
    let limits = "timeouts = { response = \"20s\", progress = \"1s\", stream = \"1s\" }";
    let lab = Lab::pool(vec![origin], &[], "", limits);
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.line(), "HTTP/1.1 200 OK");
    // Busy with other things, for more than twice the origin's limit.
    thread::sleep(Duration::from_millis(2_500));
    while client.line() != "" {}
    assert_eq!(client.bytes(ALL).len(), ALL);
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_given_up() {
    let (tell, told) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")?;
        while proxy.send([0; 65_536]).is_ok() {}
        let _ = tell.send(());
        Ok(())
    });
    let lab = Lab::on(vec![origin], "[limits]\nwrite_stall = \"200ms\"");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    told.recv_timeout(PATIENCE).unwrap();
    lab.wait_for_metric(
        &["switchback_client_requests_total{", "version=\"blue\"", "reason=\"client_stalled\""],
        1.0,
    );
}

#[test]
fn an_idle_client_is_closed_without_a_word() {
    let lab = Lab::with(&["blue"], "[limits]\nidle = \"300ms\"");
    for after in ["", "\r\n"] {
        // Some old clients end a body with an empty line: no request begins with it.
        let mut client = lab.client();
        assert_eq!(client.get("/").status, 200);
        assert!(client.send(after).is_closed_within(PATIENCE));
    }
}

#[test]
fn a_client_that_never_says_anything_is_closed_without_a_word() {
    let lab = Lab::with(&["blue"], "[limits]\nhead = \"200ms\"");
    assert!(lab.client().is_closed_within(PATIENCE));
}

#[test]
fn a_client_that_does_not_finish_its_head_is_told_so() {
    let lab = Lab::with(&["blue"], "[limits]\nhead = \"200ms\"");
    for before in ["", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
        // At once, or behind a whole request in the same packet.
        let mut client = lab.client();
        client.send(format!("{before}GET / HTTP/1.1\r\nhost"));
        if !before.is_empty() {
            assert_eq!(client.answer().status, 200);
        }
        assert_eq!(failed(&client.answer()), (408, "request_timeout"));
        assert!(client.rest().is_empty());
    }
}

#[test]
fn an_idle_connection_to_an_origin_is_closed() {
    let (tell, told) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send(OK)?;
        let _ = tell.send(proxy.is_closed());
        Ok(())
    });
    let lab = Lab::on(vec![origin], "[limits]\npool_idle = \"100ms\"");
    let mut client = lab.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(true));
}
