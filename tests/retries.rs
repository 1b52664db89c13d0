//! What one endpoint does not answer another one of the same version does: never twice what must not run twice, and
//! never so often that it becomes a storm.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use lab::origin::{Peer, Seen, Then, nobody};
use lab::preload::Preload;
use lab::wire::Parsed;
use lab::{Answer, Lab, Origin, Proxy};

/// The requests that an origin has seen, by path.
type Log = Arc<Mutex<Vec<String>>>;

fn failed(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("switchback-reason").unwrap_or(""))
}

/// Reads a request's head, and closes without an answer.
fn cuts_off(name: &str) -> (Origin, Log) {
    let log = Log::default();
    let noted = Arc::clone(&log);
    let origin = Origin::scripted(name, move |proxy: &mut Peer| {
        let head = proxy.head()?;
        noted.lock().unwrap().push(head.path().to_owned());
        Ok(())
    });
    (origin, log)
}

/// Reads a request's head, and says nothing until the proxy goes.
fn falls_silent(name: &str) -> Origin {
    Origin::scripted(name, move |proxy: &mut Peer| {
        proxy.head()?;
        proxy.rest();
        Ok(())
    })
}

/// Answers everything with this status.
fn answers(name: &str, status: &'static str) -> Origin {
    Origin::behaving(name, move |_, stream| {
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
        Ok(Then::Keep)
    })
}

/// As many attempts as there are failures.
const ALL: &str = "retries = { budget = \"100%\", min_per_second = 1_000 }";

fn retries(lab: &Lab, outcome: &str) -> f64 {
    let outcome = format!("outcome=\"{outcome}\"");
    lab.metric(&["switchback_retries_total{", "version=\"blue\"", &outcome]).unwrap()
}

fn upstream(lab: &Lab, reason: &str) -> f64 {
    lab.metric_total("switchback_upstream_requests_total{", &format!("reason=\"{reason}\""))
}

fn client(lab: &Lab, reason: &str) -> f64 {
    lab.metric_total("switchback_client_requests_total{", &format!("reason=\"{reason}\""))
}

/// Answers what it is asked, but reads `/die`, takes so long over it, and closes without an answer.
fn dies(name: &str, after: Duration) -> Origin {
    Origin::behaving(name, move |seen, stream| {
        if seen.path() == "/die" {
            std::thread::sleep(after);
            return Ok(Then::Close);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    })
}

#[test]
fn a_kept_connection_that_is_closed_with_the_request_in_hand_is_the_versions_failure() {
    for after in [0, 300] {
        let mut lab = Lab::pool(vec![dies("one", Duration::from_millis(after))], &[], "", "");
        lab.restrict_to_one_worker();
        let mut user = lab.client();
        for number in 1..=3 {
            assert_eq!(user.get("/").status, 200);
            assert_eq!(failed(&user.get("/die")), (502, "upstream_closed"));
            // What it got it has done, each time.
            let attempts = lab.metric_total("switchback_upstream_requests_total{", "version=\"blue\"");
            assert_eq!((lab.origins[0].served(), attempts), (3 * number, 3.0 * number as f64));
            assert_eq!(retries(&lab, "failed"), number as f64, "there is no other endpoint");
        }
    }
}

#[test]
fn what_breaks_off_on_a_kept_connection_is_made_again_elsewhere() {
    let mut lab = Lab::pool(vec![dies("one", Duration::ZERO), Origin::start("two")], &[], "", ALL);
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    for _ in 0..2 {
        assert_eq!(user.get("/").status, 200);
    }
    for number in 0..6 {
        assert_eq!(user.get("/die").status, 200, "{number}");
    }
    let died = lab.origins[0].served() - 1;
    assert!(died >= 3);
    assert_eq!([upstream(&lab, "upstream_closed"), retries(&lab, "answered")], [died as f64; 2]);
    assert_eq!(lab.origins[1].served(), 7, "each once");
}

#[test]
fn where_nothing_is_to_be_tried_again_nothing_is_sent_twice() {
    for settings in ["retries = { attempts = 0 }", "retries = { on = [\"connect\"] }"] {
        let lab = Lab::pool(vec![dies("one", Duration::ZERO)], &[], "", settings);
        let mut user = lab.client();
        for _ in 0..4 {
            assert_eq!(user.get("/").status, 200);
            let answer = user.send("DELETE /die HTTP/1.1\r\nhost: a\r\n\r\n").answer();
            assert_eq!(failed(&answer), (502, "upstream_closed"));
        }
        assert_eq!(lab.origins[0].served(), 8, "{settings}");
    }
}

#[test]
fn kept_connections_that_break_off_cost_no_more_than_a_fifth_on_top() {
    let mut lab = Lab::pool(vec![dies("one", Duration::ZERO)], &[], "", "retries = { min_per_second = 0 }");
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    for _ in 0..100 {
        assert_eq!(user.get("/").status, 200);
        assert_eq!(user.get("/die").status, 502);
    }
    let served = lab.origins[0].served();
    assert!((230..=240).contains(&served), "{served} attempts");
    assert_eq!(retries(&lab, "failed") + retries(&lab, "budget_exhausted"), 100.0);
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// In one piece: whose body comes after the answer has no connection any more.
fn whole(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody")
}

/// Reads a request, and answers it.
fn serves_one<S: Read + Write>(mut stream: S) -> S {
    assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    stream
}

#[test]
fn a_connection_that_was_idle_and_is_reset_is_nobodys_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lab = Lab::pool(Vec::new(), &[listener.local_addr().unwrap()], "", "");
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    user.send(REQUEST);
    let mut stream = serves_one(listener.accept().unwrap().0);
    assert_eq!(user.answer().status, 200);
    // Closed with the request unread: after so long that may be for want of one, after a moment it is not.
    for (rest, counted) in [(Duration::from_millis(1300), [1.0, 0.0]), (Duration::ZERO, [1.0, 1.0])] {
        std::thread::sleep(rest);
        user.send(REQUEST);
        stream.peek(&mut [0]).unwrap();
        drop(stream);
        stream = serves_one(listener.accept().unwrap().0);
        assert_eq!(user.answer().status, 200);
        assert_eq!([retries(&lab, "reconnected"), upstream(&lab, "upstream_closed")], counted);
    }
    assert_eq!(client(&lab, "upstream_closed"), 0.0);
}

#[test]
fn a_connection_that_had_ended_before_the_request_came_is_nobodys_failure() {
    // As when the news of it cross: first the end, then a reset for what has come after it and nobody read.
    let origin = Origin::scripted("one", move |proxy: &mut Peer| {
        proxy.head()?;
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        proxy.stream().peek(&mut [0])?;
        proxy.stream().shutdown(Shutdown::Write)
    });
    let lab = Lab::pool(vec![origin], &[], "", ALL);
    let mut user = lab.client();
    assert_eq!(user.get("/").status, 200);
    for number in 0..40 {
        assert_eq!(user.get("/").status, 200, "{number}");
    }
    // Where the endpoint is kept from running between the two, the reset comes later than any on the wire.
    let (crossed, broken) = (retries(&lab, "reconnected"), upstream(&lab, "upstream_closed"));
    assert_eq!(crossed + broken, 40.0);
    assert!(broken <= 10.0, "{broken} of 40");
}

#[test]
fn of_a_unix_socket_it_is_known_whether_the_request_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blue.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let services = "[services.shop]\nroutes = [{ path = \"/\" }]\n[services.shop.versions.blue]";
    let text = format!("{services}\nendpoints = [\"unix:{}\"]\n", path.display());
    let mut lab = Lab::configured(dir, Vec::new(), &text);
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    user.send(REQUEST);
    let mut stream = serves_one(listener.accept().unwrap().0);
    assert_eq!(user.answer().status, 200);
    for (is_read, counted) in [(false, [1.0, 0.0]), (true, [1.0, 1.0])] {
        user.send(REQUEST);
        if is_read {
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
        } else {
            lab.wait_for_metric(&["switchback_in_flight{", "kind=\"request\""], 1.0);
        }
        drop(stream);
        stream = serves_one(listener.accept().unwrap().0);
        assert_eq!(user.answer().status, 200);
        assert_eq!([retries(&lab, "reconnected"), upstream(&lab, "upstream_closed")], counted);
    }
}

/// Takes one request of each connection, and closes its ear before it answers: nobody tells who is to write the next.
fn closes_its_ear(listener: UnixListener) -> mpsc::Receiver<Seen> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut deaf = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = Vec::new();
            let seen = loop {
                match lab::wire::request(&bytes).unwrap() {
                    Parsed::Whole(seen, _) => break seen,
                    Parsed::Partial => {
                        let mut buffer = [0; 64 << 10];
                        let read = stream.read(&mut buffer).unwrap();
                        assert!(read > 0, "half a request: {:?}", String::from_utf8_lossy(&bytes));
                        bytes.extend_from_slice(&buffer[..read]);
                        if bytes.ends_with(b"expect: 100-continue\r\n\r\n") {
                            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
                        }
                    }
                }
            };
            stream.shutdown(Shutdown::Read).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            tell.send(seen).unwrap();
            deaf.push(stream);
        }
    });
    told
}

#[test]
fn what_could_not_be_sent_at_all_is_sent_afresh_whatever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blue.sock");
    let told = closes_its_ear(UnixListener::bind(&path).unwrap());
    let text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\n{ALL}\n\
         [services.shop.versions.blue]\nendpoints = [\"unix:{}\"]\n",
        path.display()
    );
    let mut lab = Lab::configured(dir, Vec::new(), &text);
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    assert_eq!(user.get("/").status, 200);
    told.recv().unwrap();
    let chunks =
        "transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nbody\r\n3\r\n, 2\r\n0\r\nx-sum: 7\r\n";
    let large = |length: usize| format!("content-length: {length}\r\n\r\n{}", "x".repeat(length));
    for (method, rest, body, trailers) in [
        ("POST", "content-length: 0\r\n\r\n".to_owned(), String::new(), 0),
        ("POST", "content-length: 4\r\n\r\nbody".to_owned(), "body".to_owned(), 0),
        ("POST", format!("{chunks}\r\n"), "body, 2".to_owned(), 1),
        ("PATCH", large(20_000), "x".repeat(20_000), 0),
        ("PUT", large(2_000_000), "x".repeat(2_000_000), 0),
    ] {
        user.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n{rest}"));
        assert_eq!(failed(&user.answer()), (200, ""), "{method} {}", body.len());
        let seen = told.recv().unwrap();
        assert!(seen.line.starts_with(method) && seen.body == body.as_bytes(), "{}", seen.body.len());
        assert_eq!(seen.trailers.len(), trailers);
    }
    user.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!((user.line(), user.line()), ("HTTP/1.1 100 Continue".into(), String::new()));
    assert_eq!(user.send("body").answer().status, 200);
    assert_eq!(told.recv().unwrap().body, b"body");
    assert_eq!([retries(&lab, "reconnected"), upstream(&lab, "upstream_closed")], [6.0, 0.0]);
}

#[test]
fn what_could_not_be_sent_is_sent_afresh_within_the_limits_that_there_are() {
    for settings in ["retries = { attempts = 0 }", "retries = { budget = \"0%\", min_per_second = 0 }"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blue.sock");
        let told = closes_its_ear(UnixListener::bind(&path).unwrap());
        let text = format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}]\n{settings}\n\
             [services.shop.versions.blue]\nendpoints = [\"unix:{}\"]\n",
            path.display()
        );
        let mut lab = Lab::configured(dir, Vec::new(), &text);
        lab.restrict_to_one_worker();
        let mut user = lab.client();
        for _ in 0..2 {
            assert_eq!(user.get("/").status, 200);
            told.recv().unwrap();
            assert_eq!(failed(&user.send(whole("/")).answer()), (502, "upstream_closed"), "{settings}");
        }
    }
}

/// A process whose first write of `POST /gone` fails, before a byte of it has gone out.
const GONE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

ssize_t send(int socket, const void *bytes, size_t length, int flags) {
    static int failed;
    static ssize_t (*next)(int, const void *, size_t, int);
    if (!next) next = dlsym(RTLD_NEXT, "send");
    if (length > 10 && !memcmp(bytes, "POST /gone", 10) && !failed++) {
        errno = EPIPE;
        return -1;
    }
    return next(socket, bytes, length, flags);
}
"#;

#[test]
fn a_new_connection_that_takes_nothing_is_none_and_the_request_goes_elsewhere() {
    for (count, said) in [(2, (200, "")), (1, (502, "upstream_closed"))] {
        let origins = ["one", "two"].into_iter().take(count).map(Origin::start).collect();
        let mut lab = Lab::pool(origins, &[], "", ALL);
        let library = Preload::compile(lab.dir.path(), GONE).variable();
        assert!(lab.proxy.take().unwrap().stop().0.success());
        lab.proxy =
            Proxy::start_as(&["env", &library], &["--workers", "1"], &lab.config(), &lab.socket()).ok();
        let mut user = lab.client();
        let answer = user.send(whole("/gone")).answer();
        assert_eq!(failed(&answer), said);
        let seen: Vec<_> = lab.origins.iter().flat_map(Origin::seen).collect();
        assert_eq!((seen.len(), seen.iter().all(|seen| seen.body == b"body")), (count - 1, true));
        assert_eq!([upstream(&lab, "upstream_closed"), retries(&lab, "reconnected")], [1.0, 0.0]);
        assert_eq!(user.send(whole("/gone")).answer().status, 200);
    }
}

/// A process that writes the head of a request only when its endpoint has closed.
const SLOW: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

ssize_t write(int socket, const void *bytes, size_t length) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next) next = dlsym(RTLD_NEXT, "write");
    if (length > 6 && (!memcmp(bytes, "GET /e", 6) || !memcmp(bytes, "POST /", 6))) {
        struct pollfd closed = { socket, POLLRDHUP, 0 };
        poll(&closed, 1, -1);
    }
    return next(socket, bytes, length);
}
"#;

#[test]
fn the_word_of_an_endpoint_that_takes_nothing_is_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blue.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let answer = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy";
        for words in [answer, answer, &answer[..50], "HTTP/1.1 100 Continue\r\n\r\n", ""] {
            listener.accept().unwrap().0.write_all(words.as_bytes()).unwrap();
            tell.send(()).unwrap();
        }
    });
    let text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\n{ALL}\n\
         [services.shop.versions.blue]\nendpoints = [\"unix:{}\"]\n",
        path.display()
    );
    let mut lab = Lab::configured(dir, Vec::new(), &text);
    let library = Preload::compile(lab.dir.path(), SLOW).variable();
    assert!(lab.proxy.take().unwrap().stop().0.success());
    lab.proxy = Proxy::start_as(&["env", &library], &["--workers", "1"], &lab.config(), &lab.socket()).ok();
    let mut user = lab.client();
    for ask in ["GET /e HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), whole("/")] {
        let answer = user.send(ask).answer();
        assert_eq!((failed(&answer), answer.header("retry-after")), ((503, ""), Some("7")));
        assert_eq!(answer.text(), "busy");
        told.recv().unwrap();
    }
    // Part of an answer is none, nor is an interim one.
    for number in 0..3 {
        assert_eq!(failed(&user.send(whole("/")).answer()), (502, "upstream_closed"), "{number}");
        told.recv().unwrap();
    }
    assert_eq!([retries(&lab, "answered"), retries(&lab, "failed"), retries(&lab, "reconnected")], [0.0; 3]);
}

#[test]
fn a_get_that_is_cut_off_is_made_again_at_another_endpoint() {
    let (cutter, log) = cuts_off("one");
    let lab = Lab::pool(vec![cutter, Origin::start("two")], &[], "", ALL);
    let mut user = lab.client();
    for number in 0..20 {
        assert_eq!(user.get(&format!("/{number}")).status, 200, "{number}");
    }
    let cut = log.lock().unwrap().len() as f64;
    assert!(cut >= 5.0, "{cut} were cut off");
    // Every one of them counts against the version, and none for a user.
    assert_eq!((upstream(&lab, "upstream_closed"), client(&lab, "upstream_closed")), (cut, 0.0));
    assert_eq!([retries(&lab, "answered"), retries(&lab, "failed")], [cut, 0.0]);
    assert_eq!(retries(&lab, "budget_exhausted"), 0.0);
}

#[test]
fn a_post_is_never_made_again_once_it_was_sent() {
    let (cutter, log) = cuts_off("one");
    let lab = Lab::pool(vec![cutter, Origin::start("two")], &[], "", ALL);
    for number in 0..20 {
        let mut user = lab.client();
        let answer = match number % 2 {
            0 => user.post(&format!("/{number}"), b"body"),
            _ => user.send(format!("POST /{number} HTTP/1.1\r\nhost: a\r\n\r\n")).answer(),
        };
        if answer.status != 200 {
            assert_eq!(failed(&answer), (502, "upstream_closed"));
        }
    }
    let mut paths = log.lock().unwrap().clone();
    let cut = paths.len();
    assert!(cut >= 5, "{cut} were cut off");
    paths.extend(lab.origins[1].seen().iter().map(|seen| seen.path().to_owned()));
    paths.sort();
    let all = paths.len();
    paths.dedup();
    assert_eq!((paths.len(), all), (20, 20), "each came once");
    assert_eq!(retries(&lab, "answered"), 0.0);
}

#[test]
fn a_put_is_made_again_while_nothing_of_its_body_was_taken() {
    let (cutter, log) = cuts_off("one");
    let lab = Lab::pool(vec![cutter, Origin::start("two")], &[], "", ALL);
    for _ in 0..4 {
        let mut user = lab.client();
        let head = "PUT /held HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
        user.send(head);
        assert_eq!((user.line(), user.line()), ("HTTP/1.1 100 Continue".into(), String::new()));
        assert_eq!(user.send("body").answer().status, 200);
    }
    let held = log.lock().unwrap().len();
    assert!(held >= 1, "the endpoint that cuts off was never asked");
    assert!(lab.origins[1].seen().iter().all(|seen| seen.body == b"body"));
    for _ in 0..8 {
        let mut user = lab.client();
        let answer = user.send("PUT /sent HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").answer();
        if answer.status != 200 {
            assert_eq!(failed(&answer), (502, "upstream_closed"));
        }
    }
    let sent = log.lock().unwrap().len() - held;
    let served = lab.origins[1].seen().iter().filter(|seen| seen.path() == "/sent").count();
    assert_eq!(sent + served, 8, "what was sent is not sent again");
}

#[test]
fn an_endpoint_of_another_version_is_no_other_endpoint() {
    let (cutter, _) = cuts_off("blue");
    let lab = Lab::on(vec![cutter, Origin::start("green")], "");
    for _ in 0..4 {
        assert_eq!(failed(&lab.get("/")), (502, "upstream_closed"));
    }
    assert_eq!(lab.origin("green").served(), 0);
    assert_eq!(retries(&lab, "failed"), 0.0);
}

#[test]
fn there_are_as_many_attempts_as_are_wanted() {
    for (attempts, most) in [(0, 0), (1, 1), (2, 2)] {
        let (one, first) = cuts_off("one");
        let (two, second) = cuts_off("two");
        let settings =
            format!("retries = {{ attempts = {attempts}, budget = \"100%\", min_per_second = 1_000 }}");
        let lab = Lab::pool(vec![one, two, Origin::start("three")], &[], "", &settings);
        let answers: Vec<_> = (0..12).map(|_| lab.get("/").status).collect();
        let served = answers.iter().filter(|status| **status == 200).count() as u64;
        assert_eq!(lab.origins[2].served(), served);
        assert_eq!(served == 12, attempts == 2, "{served} of 12 with {attempts}");
        let cut = first.lock().unwrap().len() + second.lock().unwrap().len();
        assert!(cut <= 12 * (most + 1), "{cut} attempts failed");
        assert_eq!(retries(&lab, "answered") + retries(&lab, "failed") > 0.0, attempts > 0);
    }
}

#[test]
fn what_is_not_listed_is_not_tried_again() {
    let (cutter, _) = cuts_off("one");
    let settings = "retries = { on = [\"connect\"] }";
    let lab = Lab::pool(vec![cutter, Origin::start("two")], &[], "", settings);
    let answers: Vec<_> = (0..10).map(|_| lab.get("/").status).collect();
    assert!(answers.contains(&502), "{answers:?}");
    assert_eq!(retries(&lab, "answered"), 0.0);
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up_for_another_one() {
    let settings = "timeouts = { response = \"1500ms\" }\n\
        retries = { per_try_timeout = \"150ms\", budget = \"100%\", min_per_second = 1_000 }";
    let lab = Lab::pool(vec![falls_silent("one"), Origin::start("two")], &[], "", settings);
    let mut user = lab.client();
    for number in 0..6 {
        assert_eq!(user.get("/").status, 200, "{number}");
    }
    let late = upstream(&lab, "response_timeout");
    assert!(late >= 1.0);
    assert_eq!((client(&lab, "response_timeout"), retries(&lab, "answered")), (0.0, late));
    // What must not run twice has all of the time.
    let (mut waited, since) = (0, Instant::now());
    for _ in 0..2 {
        waited += u32::from(failed(&user.post("/", b"body")) == (504, "response_timeout"));
    }
    assert!(since.elapsed() >= Duration::from_millis(1500) * waited && waited >= 1, "{waited}");
}

#[test]
fn an_attempt_that_takes_too_long_ends_the_request_when_there_is_nowhere_else_to_go() {
    let settings = "retries = { per_try_timeout = \"150ms\" }";
    let lab = Lab::pool(vec![falls_silent("one")], &[], "", settings);
    let since = Instant::now();
    assert_eq!(failed(&lab.get("/")), (504, "response_timeout"));
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn an_answer_is_a_reason_to_try_again_only_where_that_is_wanted() {
    let pool = |settings: &str, status| {
        Lab::pool(vec![answers("one", status), Origin::start("two")], &[], "", settings)
    };
    for (settings, status, is_wanted) in [
        ("", "503 Service Unavailable", false),
        ("retries = { on = [\"gateway_error\"], min_per_second = 1_000 }", "503 Service Unavailable", true),
        (
            "retries = { on = [\"gateway_error\"], min_per_second = 1_000 }",
            "500 Internal Server Error",
            false,
        ),
        ("retries = { statuses = [500], min_per_second = 1_000 }", "500 Internal Server Error", true),
    ] {
        let lab = pool(settings, status);
        let mut user = lab.client();
        let answers: Vec<_> = (0..10).map(|_| user.get("/").status).collect();
        assert_eq!(answers.iter().all(|status| *status == 200), is_wanted, "{settings} {answers:?}");
        let tried = lab.origins[0].served();
        assert!(tried >= 3);
        let code = format!("code=\"{}\"", &status[..3]);
        let (did, saw) = ["upstream", "client"]
            .map(|view| lab.metric_total(&format!("switchback_{view}_requests_total{{"), &code))
            .into();
        assert_eq!(did, tried as f64, "what the version did");
        assert_eq!(saw, if is_wanted { 0.0 } else { tried as f64 }, "what users saw");
        // Nothing is wrong with its connection.
        assert!(lab.origins[0].connections() <= 2, "one for each worker");
        let before = lab.origins[0].served() + lab.origins[1].served();
        let posts: Vec<_> = (0..6).map(|_| user.post("/", b"body").status).collect();
        assert!(posts.iter().any(|status| *status != 200), "{posts:?}");
        assert_eq!(lab.origins[0].served() + lab.origins[1].served(), before + 6, "each once");
    }
}

#[test]
fn when_no_endpoint_answers_the_last_answer_is_the_clients() {
    let settings = "retries = { on = [\"gateway_error\"], min_per_second = 1_000 }";
    let pool = vec![answers("one", "503 Service Unavailable"), answers("two", "502 Bad Gateway")];
    let lab = Lab::pool(pool, &[], "", settings);
    for _ in 0..4 {
        let answer = lab.get("/");
        assert!(matches!(failed(&answer), (502 | 503, "")), "{answer:?}");
    }
    assert_eq!(lab.origins[0].served() + lab.origins[1].served(), 8);
    assert_eq!(retries(&lab, "answered"), 4.0);
}

#[test]
fn a_version_that_fails_gets_no_more_than_a_fifth_on_top() {
    let (one, first) = cuts_off("one");
    let (two, second) = cuts_off("two");
    let mut lab = Lab::pool(vec![one, two], &[], "", "retries = { min_per_second = 0 }");
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    for number in 0..200 {
        assert_eq!(failed(&user.get("/")), (502, "upstream_closed"), "{number}");
    }
    let attempts = first.lock().unwrap().len() + second.lock().unwrap().len();
    // What is not taken at once is forgotten with time, however little of that there was.
    assert!((230..=240).contains(&attempts), "{attempts} attempts");
    let (failed, refused) = (retries(&lab, "failed"), retries(&lab, "budget_exhausted"));
    assert_eq!((failed, failed + refused), (attempts as f64 - 200.0, 200.0));
}

/// Accepts, and closes at once.
fn closes_at_once<S>(mut accept: impl FnMut() -> std::io::Result<S> + Send + 'static) {
    std::thread::spawn(move || while accept().is_ok() {});
}

#[test]
fn endpoints_that_accept_and_take_nothing_are_asked_no_more_than_a_fifth_on_top() {
    let dir = tempfile::tempdir().unwrap();
    let local = ["one", "two"].map(|name| {
        let path = dir.path().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        closes_at_once(move || listener.accept());
        format!("unix:{}", path.display())
    });
    let shared = [(); 2].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        closes_at_once(move || listener.accept());
        address.to_string()
    });
    for (endpoints, protocol, why) in
        [(local, "http1", "upstream_closed"), (shared, "h2c", "upstream_protocol")]
    {
        let text = format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}]\nretries = {{ min_per_second = 0 }}\noutliers = false\n\
             [services.shop.versions.blue]\nendpoints = {endpoints:?}\nprotocol = \"{protocol}\"\n"
        );
        let mut lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &text);
        lab.restrict_to_one_worker();
        let mut user = lab.client();
        for number in 0..200 {
            assert_eq!(failed(&user.post("/", b"")), (502, why), "{number}");
        }
        let made = upstream(&lab, why);
        assert!((200.0..=240.0).contains(&made), "{made} attempts, {protocol}");
        assert_eq!(retries(&lab, "failed"), made - 200.0, "{protocol}");
    }
}

#[test]
fn few_requests_are_all_tried_again() {
    let (cutter, _) = cuts_off("one");
    let mut lab = Lab::pool(vec![cutter, Origin::start("two")], &[], "", "");
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    for number in 0..10 {
        assert_eq!(user.get("/").status, 200, "{number}");
    }
}

#[test]
fn a_version_of_which_no_endpoint_accepts_is_asked_no_more_than_a_fifth_on_top_and_answers_at_once() {
    let pool: Vec<_> = (0..4).map(|_| nobody()).collect();
    let lab = Lab::pool(Vec::new(), &pool, "", "");
    let mut user = lab.client();
    let since = Instant::now();
    let mut took: Vec<_> = (0..1000)
        .map(|number| {
            let since = Instant::now();
            assert_eq!(failed(&user.get("/")), (503, "connect_failed"), "{number}");
            since.elapsed()
        })
        .collect();
    took.sort();
    eprintln!("a 503 took {:?}, p99 {:?}", took[500], took[990]);
    // The figure is that of a release build.
    let most = Duration::from_millis(if cfg!(debug_assertions) { 10 } else { 1 });
    assert!(took[500] <= most, "{:?} in the middle", took[500]);
    let made = upstream(&lab, "connect_failed");
    // Whatever the time brings in any case.
    let few = 10.0 * since.elapsed().as_secs_f64() + 10.0;
    assert!(made <= 1200_f64.max(1000.0 + few), "{made} attempts at 1000 requests");
    assert!(made >= 1100.0, "{made} attempts");
}

#[test]
fn an_endpoint_that_does_not_accept_costs_no_request_however_many_there_are() {
    let settings = "retries = { budget = \"0%\", min_per_second = 0 }";
    let lab = Lab::pool(vec![Origin::start("one"), Origin::start("two")], &[nobody()], "", settings);
    let mut user = lab.client();
    for number in 0..100 {
        assert_eq!(user.get("/").status, 200, "{number}");
        assert_eq!(user.post("/", b"body").status, 200, "{number}");
    }
    assert_eq!(retries(&lab, "answered"), upstream(&lab, "connect_failed"));
    assert!(retries(&lab, "answered") >= 20.0);
}
