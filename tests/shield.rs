//! What a version fails stable answers: whole, once, and only what may be; the failure stays the version's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::Builder;
use http::{Method, Request, Response};
use lab::frames::{self, frame};
use lab::http2::{request, run};
use lab::origin::{Peer, Then, never_accepts, nobody};
use lab::websocket::{echoed, echoes};
use lab::{Answer, Gate, Http2, Lab, Origin, PATIENCE, wait_until};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// `shop` on blue, which is stable, and green at these addresses, to which `?to=green` leads; with `settings` of the service and
/// `extra` lines behind it.
fn shop_at(blue: Origin, green: &[SocketAddr], settings: &str, extra: &str) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let text = text(&dir.path().display().to_string(), blue.address, green, settings, extra);
    Lab::configured(dir, vec![blue], &text)
}

fn text(dir: &str, blue: SocketAddr, green: &[SocketAddr], settings: &str, extra: &str) -> String {
    let green: Vec<_> = green.iter().map(ToString::to_string).collect();
    format!(
        "[access_log]\ntarget = \"file\"\npath = \"{dir}/access.log\"\n[services.shop]\nroutes = [{{ path = \"/\" }}]\n\
         stable = \"blue\"\noutliers = false\nrules = [{{ query = {{ to = \"green\" }}, to = \"green\" }}]\n{settings}\n\
         [services.shop.versions.blue]\nendpoints = [\"{blue}\"]\n\
         [services.shop.versions.green]\nendpoints = {green:?}\n{extra}"
    )
}

/// The same with an origin for green.
fn shop(green: Origin, settings: &str) -> Lab {
    let mut lab = shop_at(Origin::start("blue"), &[green.address], settings, "");
    lab.origins.push(green);
    lab
}

const ON: &str = "shield = true";

/// Reads a request's head, and does this.
fn reads_a_head(then: impl Fn(&mut Peer) -> std::io::Result<()> + Send + Sync + 'static) -> Origin {
    Origin::scripted("green", move |peer| {
        peer.head()?;
        then(peer)
    })
}

/// Answers everything with this status, once it has read it.
fn answers(status: u16) -> Origin {
    Origin::behaving("green", move |_, stream| {
        write!(stream, "HTTP/1.1 {status} X\r\nx-version: green\r\ncontent-length: 5\r\n\r\ngreen")?;
        Ok(Then::Keep)
    })
}

/// Answers 200, `/late` only once the gate is open.
fn waits(name: &'static str, gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::behaving(name, move |seen, stream| {
        if seen.path().starts_with("/late") {
            gate.wait();
        }
        write!(stream, "HTTP/1.1 200 OK\r\nx-version: {name}\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    })
}

/// What the metrics say of a version, by its status and the reason: what it did, and what users saw.
fn views(lab: &Lab, version: &str, code: &str, reason: &str) -> (f64, f64) {
    let labels = format!("{{service=\"shop\",version=\"{version}\",code=\"{code}\",reason=\"{reason}\"}}");
    let of = |name: &str| lab.metric(&[&format!("{name}{labels}")]).unwrap_or(0.0);
    (of("switchback_upstream_requests_total"), of("switchback_client_requests_total"))
}

fn shielded(lab: &Lab, version: &str) -> f64 {
    lab.metric(&["switchback_shielded_total{", &format!("version=\"{version}\"")]).unwrap()
}

/// Asks for something of green, without a body.
fn ask(lab: &Lab, method: &str) -> Answer {
    let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
    lab.client().send(format!("{method} /a?to=green HTTP/1.1\r\nhost: shop.test\r\n{length}\r\n")).answer()
}

/// The lines of the access log, once there are so many.
fn log(lab: &Lab, count: usize) -> Vec<Value> {
    let read = || {
        let text = fs::read_to_string(lab.dir.path().join("access.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>()
    };
    wait_until("the lines are written", || read().len() >= count);
    read()
}

/// That green has failed one request like this, and blue has answered it.
fn is_shielded(lab: &Lab, answer: &Answer, (code, reason): (&str, &str)) {
    assert_eq!((answer.status, answer.version()), (200, "blue"), "{code} {reason}: {answer:?}");
    assert_eq!(views(lab, "green", code, reason), (1.0, 0.0), "green's own, and nobody's to see: {reason}");
    assert_eq!(views(lab, "blue", "200", ""), (1.0, 1.0), "{reason}");
    assert_eq!((shielded(lab, "green"), shielded(lab, "blue")), (1.0, 0.0), "{reason}");
    let seen: f64 = lab.metric_total("switchback_client_requests_total", "\"shop\"");
    assert_eq!(seen, 1.0, "one request is one");
    let line = log(lab, 1).remove(0);
    let epoch = lab.epoch();
    assert_eq!(
        (&line["version"], &line["status"], &line["outcome"]),
        (&json!("blue"), &json!(200), &json!("ok"))
    );
    assert_eq!((&line["assigned"], &line["epoch"]), (&json!("rule"), &json!(epoch)), "{line}");
    assert_eq!(line["endpoint"], lab.origin("blue").address.to_string());
    let was = &line["shielded"];
    let outcome = if reason.is_empty() { "ok" } else { reason };
    assert_eq!((&was["version"], &was["outcome"]), (&json!("green"), &json!(outcome)), "{line}");
    assert_eq!((was["status"].to_string(), &was["epoch"]), (code.to_owned(), &json!(epoch)), "{line}");
    assert!(was["endpoint"].is_string(), "{line}");
}

#[test]
fn whatever_a_version_fails_with_stable_answers_and_the_failure_is_the_versions() {
    let cases: [(Origin, &str, (&str, &str)); 5] = [
        (reads_a_head(|_| Ok(())), ON, ("502", "upstream_closed")),
        (reads_a_head(|peer| peer.send("nonsense\r\n\r\n")), ON, ("502", "upstream_protocol")),
        (answers(500), ON, ("500", "")),
        (answers(503), "shield = { statuses = [503] }", ("503", "")),
        (
            reads_a_head(|peer| {
                peer.rest();
                Ok(())
            }),
            "shield = true\ntimeouts = { response = \"200ms\" }",
            ("504", "response_timeout"),
        ),
    ];
    for (green, settings, failure) in cases {
        let lab = shop(green, settings);
        let answer = ask(&lab, "GET");
        is_shielded(&lab, &answer, failure);
        assert_eq!(log(&lab, 1)[0]["attempts"], 2);
        assert_eq!(lab.origin("blue").only().line, "GET /a?to=green HTTP/1.1");
    }
    let lab = shop_at(Origin::start("blue"), &[nobody()], ON, "");
    let answer = ask(&lab, "GET");
    is_shielded(&lab, &answer, ("503", "connect_failed"));
}

/// Speaks frames of HTTP/2, takes no WebSockets, and does this with the first request.
fn speaks_frames(then: impl Fn(&mut Peer) -> std::io::Result<()> + Send + Sync + 'static) -> Origin {
    Origin::scripted("green", move |peer| {
        peer.bytes(frames::PREFACE.len())?;
        peer.send(frame(frames::SETTINGS, 0, 0, b""))?;
        loop {
            let head = peer.bytes(9)?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            peer.bytes(length)?;
            match head[3] {
                frames::SETTINGS if head[4] & frames::ACK == 0 => {
                    peer.send(frame(frames::SETTINGS, frames::ACK, 0, b""))?;
                }
                frames::HEADERS => return then(peer),
                _ => {}
            }
        }
    })
}

#[test]
fn a_version_that_ends_its_connection_with_an_error_is_covered_for() {
    let green = speaks_frames(|peer| {
        let internal_error = [1_u32.to_be_bytes(), 2_u32.to_be_bytes()].concat();
        peer.send(frame(frames::GOAWAY, 0, 0, internal_error))?;
        peer.stream().shutdown(Shutdown::Write)?;
        peer.rest();
        Ok(())
    });
    let lab = shop_at(Origin::start("blue"), &[green.address], ON, "protocol = \"h2c\"\n");
    let answer = ask(&lab, "GET");
    is_shielded(&lab, &answer, ("502", "upstream_closed"));
    assert_eq!(ask(&lab, "POST").said(), (502, "upstream_closed"), "it may have run");
}

#[test]
fn where_nobody_shields_and_where_a_request_may_not_run_twice_the_user_sees_the_failure() {
    let lab = shop(answers(500), "shield = false");
    assert_eq!((ask(&lab, "GET").version(), views(&lab, "green", "500", "")), ("green", (1.0, 1.0)));
    assert_eq!(shielded(&lab, "green"), 0.0, "it is there all the same");
    let lab = shop(answers(500), ON);
    assert_eq!((ask(&lab, "POST").said(), ask(&lab, "PATCH").said()), ((500, ""), (500, "")));
    let lab = shop(reads_a_head(|_| Ok(())), ON);
    assert_eq!(ask(&lab, "POST").said(), (502, "upstream_closed"));
    assert_eq!((lab.origin("blue").served(), shielded(&lab, "green")), (0, 0.0));
    // Of this one nothing was sent, and its body is all there.
    let lab = shop_at(Origin::start("blue"), &[nobody()], ON, "");
    let answer = lab.client().post("/a?to=green", b"once");
    assert_eq!((answer.status, answer.version()), (200, "blue"));
    assert_eq!(lab.origin("blue").only().body, b"once");
}

#[test]
fn only_the_answers_that_are_listed_are_failures() {
    let lab = shop(answers(500), "shield = { statuses = [503] }");
    assert_eq!(ask(&lab, "GET").version(), "green");
    let lab = shop(answers(404), "shield = { statuses = [\"4xx\"] }");
    assert_eq!(ask(&lab, "GET").version(), "blue");
    assert_eq!(views(&lab, "green", "404", ""), (1.0, 0.0));
    let lab = shop(reads_a_head(|_| Ok(())), "shield = { statuses = [] }");
    assert_eq!(ask(&lab, "GET").version(), "blue", "no answer is no answer");
}

/// A PUT of these bytes to green, in one piece or in chunks of 1,000 bytes with a trailer.
fn put(body: &[u8], is_chunked: bool) -> Vec<u8> {
    let mut request = b"PUT /a?to=green HTTP/1.1\r\nhost: shop.test\r\n".to_vec();
    if is_chunked {
        request.extend_from_slice(b"transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n");
        for chunk in body.chunks(1_000) {
            write!(request, "{:x}\r\n", chunk.len()).unwrap();
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\nx-sum: 7\r\n\r\n");
    } else {
        write!(request, "content-length: {}\r\n\r\n", body.len()).unwrap();
        request.extend_from_slice(body);
    }
    request
}

#[test]
fn a_body_is_kept_within_its_bound_and_sent_once_more_whole() {
    let body: Vec<u8> = (0..60_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let early = || {
        // With the body still on its way.
        Origin::answering_early("green", |_, stream| {
            stream.write_all(b"HTTP/1.1 500 X\r\nx-version: green\r\ncontent-length: 0\r\n\r\n")?;
            Ok(Then::Close)
        })
    };
    let greens: [fn() -> Origin; 2] = [|| answers(500), || reads_a_head(|_| Ok(()))];
    for is_chunked in [false, true] {
        for green in [greens[0](), greens[1](), early()] {
            let lab = shop(green, ON);
            let answer = lab.client().send(put(&body, is_chunked)).answer();
            assert_eq!((answer.status, answer.version()), (200, "blue"), "{answer:?}");
            let seen = lab.origin("blue").only();
            assert!(seen.body == body, "{} bytes of {}", seen.body.len(), body.len());
            assert_eq!(seen.trailers.len(), usize::from(is_chunked));
        }
        // What is over the bound cannot be.
        let lab = shop(answers(500), "shield = { body = \"59999B\" }");
        assert_eq!(lab.client().send(put(&body, is_chunked)).answer().version(), "green");
        assert_eq!(lab.origin("green").only().body.len(), body.len(), "it has got all of it");
    }
}

#[test]
fn a_client_that_waits_to_be_told_to_send_its_body_sends_it_once() {
    let lab = shop(answers(500), ON);
    let mut client = lab.client();
    client.send(
        "PUT /a?to=green HTTP/1.1\r\nhost: shop.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
    );
    assert_eq!(client.line(), "HTTP/1.1 100 Continue");
    assert_eq!(client.line(), "");
    let answer = client.send("hello").answer();
    assert_eq!((answer.status, answer.version(), answer.interim.len()), (200, "blue", 0));
    assert_eq!(lab.origin("blue").only().body, b"hello");
    assert_eq!(client.get("/").version(), "blue", "and the connection goes on");
}

#[test]
fn a_body_that_nobody_has_asked_for_is_not_asked_for_by_the_shield() {
    let refuses = |name: &'static str, status: u16| {
        Origin::scripted(name, move |peer| {
            peer.head()?;
            peer.send(format!("HTTP/1.1 {status} X\r\nx-version: {name}\r\ncontent-length: 0\r\n\r\n"))?;
            peer.rest();
            Ok(())
        })
    };
    let green = refuses("green", 503);
    let lab = shop_at(refuses("blue", 401), &[green.address], ON, "");
    let mut client = lab.client();
    client.send(
        "PUT /a?to=green HTTP/1.1\r\nhost: shop.test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!((answer.status, answer.version(), answer.interim.len()), (401, "blue", 0));
}

/// An origin that speaks HTTP/2, answers with this status, and tells what it was sent.
fn speaks_http2(name: &'static str, status: u16) -> (SocketAddr, mpsc::Receiver<(Method, Vec<u8>)>) {
    let ((tell, seen), (tell_address, address)) = (mpsc::channel(), mpsc::channel());
    thread::spawn(move || {
        run_for_ever(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell_address.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let mut connection = Builder::new().handshake::<_, Bytes>(stream).await.unwrap();
                let tell = tell.clone();
                #[allow(clippy::disallowed_methods, reason = "a test's origin")]
                tokio::spawn(async move {
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let (head, mut body) = request.into_parts();
                        let tell = tell.clone();
                        tokio::spawn(async move {
                            let mut all = Vec::new();
                            while let Some(Ok(data)) = body.data().await {
                                body.flow_control().release_capacity(data.len()).unwrap();
                                all.extend_from_slice(&data);
                            }
                            let _ = tell.send((head.method, all));
                            let response = Response::builder().status(status).header("x-version", name);
                            respond.send_response(response.body(()).unwrap(), true).unwrap();
                        });
                    }
                });
            }
        });
    });
    (address.recv().unwrap(), seen)
}

fn run_for_ever(origin: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(origin);
}

#[test]
fn over_http2_on_either_side_it_is_the_same() {
    let (blue, seen) = speaks_http2("blue", 200);
    let (fails, _tried) = speaks_http2("green", 500);
    let (body, over_http1) = (vec![7; 50_000], answers(500));
    for (green, protocol) in [(fails, "h2c"), (nobody(), "h2c"), (over_http1.address, "http1")] {
        let text = format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\noutliers = false\nshield = true\n\
             rules = [{{ query = {{ to = \"green\" }}, to = \"green\" }}]\n[services.shop.versions.blue]\n\
             endpoints = [\"{blue}\"]\nprotocol = \"h2c\"\n[services.shop.versions.green]\n\
             endpoints = [\"{green}\"]\nprotocol = \"{protocol}\"\n"
        );
        let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &text);
        assert_eq!(lab.get("/?to=green").version(), "blue");
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), (Method::GET, Vec::new()));
        run(async {
            let client = Http2::to(lab.address()).await;
            assert_eq!(client.get("/?to=green").await.version(), "blue");
            assert_eq!(seen.recv_timeout(PATIENCE).unwrap().0, Method::GET);
            let (answer, send) = client.start(request(Method::PUT, "/?to=green"), false).await;
            let upload = lab::http2::upload(send, body.clone().into(), None);
            let (sent, answer) = tokio::join!(upload, lab::http2::answer(answer));
            sent.unwrap();
            assert_eq!(answer.unwrap().version(), "blue");
        });
        let (method, received) = seen.recv_timeout(PATIENCE).unwrap();
        assert!(method == Method::PUT && received == body, "{} bytes", received.len());
        assert_eq!(shielded(&lab, "green"), 3.0);
        // A gRPC call runs once: only what was not sent is stable's.
        let is_dead = protocol == "h2c" && green != fails;
        let call = Request::builder().method(Method::POST).uri("http://shop.test/a.B/C?to=green");
        let call = call.header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap();
        let answer = run(async {
            let client = Http2::to(lab.address()).await;
            let (answer, send) = client.start(call, false).await;
            let (sent, answer) = tokio::join!(
                lab::http2::upload(send, Bytes::from_static(b"call"), None),
                lab::http2::answer(answer)
            );
            sent.unwrap();
            answer.unwrap()
        });
        assert_eq!(answer.version(), if is_dead { "blue" } else { "green" });
        assert_eq!(seen.try_recv().is_ok(), is_dead);
    }
}

#[test]
fn stable_fails_for_itself_and_what_both_fail_is_answered_by_stable() {
    let fails = |name: &'static str| {
        Origin::behaving(name, move |_, stream| {
            write!(stream, "HTTP/1.1 500 X\r\nx-version: {name}\r\ncontent-length: 0\r\n\r\n")?;
            Ok(Then::Keep)
        })
    };
    let (blue, green) = (fails("blue"), fails("green"));
    let mut lab = shop_at(blue, &[green.address], ON, "");
    lab.origins.push(green);
    assert_eq!((lab.get("/").said(), lab.origin("green").served()), ((500, ""), 0));
    assert_eq!((ask(&lab, "GET").version(), shielded(&lab, "green")), ("blue", 1.0));
    assert_eq!((lab.origin("blue").served(), lab.origin("green").served()), (2, 1), "each once");
    assert_eq!((views(&lab, "blue", "500", ""), views(&lab, "green", "500", "")), ((2.0, 2.0), (1.0, 0.0)));
    // Nor is it green's any more when stable gives no answer either.
    let lab = shop_at(reads_a_head(|_| Ok(())), &[nobody()], ON, "");
    assert_eq!(ask(&lab, "GET").said(), (502, "upstream_closed"));
    assert_eq!(views(&lab, "blue", "502", "upstream_closed"), (1.0, 1.0));
    assert_eq!(views(&lab, "green", "503", "connect_failed"), (1.0, 0.0));
    assert_eq!(shielded(&lab, "green"), 0.0, "nobody has answered");
}

#[test]
fn where_stable_has_no_room_the_failure_is_the_answer() {
    for circuit in ["requests = 1", "endpoint_requests = 1"] {
        let (gate, green) = (Gate::default(), answers(500));
        let circuit = format!("[services.shop.versions.blue.circuit]\n{circuit}\n");
        let mut lab = shop_at(waits("blue", &gate), &[green.address], ON, &circuit);
        lab.origins.push(green);
        let held = lab.get_later("/late");
        lab.origin("blue").wait_served(1);
        let answer = ask(&lab, "GET");
        assert_eq!((answer.status, answer.version(), answer.text().as_str()), (500, "green", "green"));
        assert_eq!((views(&lab, "green", "500", ""), shielded(&lab, "green")), ((1.0, 1.0), 0.0));
        gate.open();
        assert_eq!(held.answer().status, 200);
        assert_eq!(ask(&lab, "GET").version(), "blue");
    }
}

#[test]
fn a_version_without_room_is_one_that_has_failed() {
    let gate = Gate::default();
    let green = waits("green", &gate);
    let circuit = "[services.shop.versions.green.circuit]\nrequests = 1\npending = 0\n";
    let mut lab = shop_at(Origin::start("blue"), &[green.address], ON, circuit);
    lab.origins.push(green);
    let held = lab.get_later("/late?to=green");
    lab.wait_for_metric_above(&["switchback_in_flight{", "\"green\"", "\"request\""], 0.5);
    let answer = lab.client().post("/a?to=green", b"once");
    assert_eq!((answer.status, answer.version()), (200, "blue"), "nothing was sent");
    assert_eq!(views(&lab, "green", "503", "circuit_open"), (1.0, 0.0));
    gate.open();
    assert_eq!(held.answer().version(), "green");
}

#[test]
fn no_more_than_the_budget_comes_to_stable() {
    let mut lab = shop(answers(500), "shield = { budget = \"0%\", min_per_second = 2 }");
    lab.restrict_to_one_worker();
    let since = Instant::now();
    let mut client = lab.client();
    let versions: Vec<_> = (0..20).map(|_| client.get("/?to=green").version().to_owned()).collect();
    let blue = versions.iter().filter(|version| *version == "blue").count();
    let most = 2 + usize::try_from(since.elapsed().as_millis() / 500).unwrap() + 1;
    assert!((2..=most).contains(&blue), "{versions:?} in {:?}", since.elapsed());
    assert_eq!(shielded(&lab, "green"), blue as f64);
    assert_eq!(views(&lab, "green", "500", ""), (20.0, (20 - blue) as f64));
    // A share of what stable has of its own, however many it gets of green's.
    let mut lab = shop(answers(500), "shield = { budget = \"50%\", min_per_second = 0 }");
    lab.restrict_to_one_worker();
    let mut client = lab.client();
    (0..10).for_each(|_| drop(client.get("/")));
    let blue = (0..20).filter(|_| client.get("/?to=green").version() == "blue").count();
    assert!(
        (4..=5).contains(&blue),
        "{blue}: what is left of it is forgotten, a little with each tenth of a second"
    );
}

#[test]
fn what_is_over_the_budget_takes_no_turn_at_stables_endpoints() {
    let (one, other, green) = (Origin::start("blue"), Origin::start("blue"), answers(500));
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\noutliers = false\nbalance = \"round_robin\"\n\
         shield = {{ budget = \"0%\", min_per_second = 0 }}\nrules = [{{ query = {{ to = \"green\" }}, to = \"green\" }}]\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\", \"{}\"]\n\
         [services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        one.address, other.address, green.address
    );
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &services);
    lab.restrict_to_one_worker();
    let mut client = lab.client();
    for _ in 0..10 {
        assert_eq!((client.get("/").version(), client.get("/?to=green").version()), ("blue", "green"));
    }
    assert_eq!((one.served(), other.served()), (5, 5), "as without the shield");
}

#[test]
fn the_versions_own_endpoints_come_first_and_stable_once() {
    let dead = [nobody(), nobody()];
    let retries = "shield = true\nretries = { budget = \"100%\", min_per_second = 1_000 }";
    let lab = shop_at(Origin::start("blue"), &dead, retries, "");
    assert_eq!(ask(&lab, "GET").version(), "blue");
    assert_eq!(log(&lab, 1)[0]["attempts"], 3);
    let failed = lab.metric(&["switchback_retries_total{", "\"green\"", "\"failed\""]);
    assert_eq!((failed, views(&lab, "green", "503", "connect_failed")), (Some(1.0), (2.0, 0.0)));
    // One of them answers: there is nothing to be shielded from.
    let lab = shop_at(Origin::start("blue"), &[dead[0], lab.origin("blue").address], retries, "");
    assert_eq!((ask(&lab, "GET").status, shielded(&lab, "green")), (200, 0.0));
}

#[test]
fn all_of_a_requests_time_is_one() {
    let silent = || {
        reads_a_head(|peer| {
            peer.rest();
            Ok(())
        })
    };
    let lab = shop(silent(), "shield = true\ntimeouts = { total = \"300ms\" }");
    assert_eq!(ask(&lab, "GET").said(), (504, "deadline"));
    assert_eq!(lab.origin("blue").served(), 0);
    // What is left of it is all that stable has.
    let (blue, green) = (silent(), silent());
    let mut lab = shop_at(
        blue,
        &[green.address],
        "shield = true\ntimeouts = { response = \"500ms\", total = \"800ms\" }",
        "",
    );
    lab.origins.push(green);
    let since = Instant::now();
    assert_eq!(ask(&lab, "GET").said(), (504, "deadline"));
    assert!(since.elapsed() < Duration::from_millis(1_200), "{:?}", since.elapsed());
    assert_eq!(views(&lab, "green", "504", "response_timeout"), (1.0, 0.0));
    // The user has waited for both, and stable for its own part.
    let total = |name: &str| lab.metric(&[name]).unwrap();
    let (user, blue) = (
        total("switchback_client_request_duration_seconds_sum{service=\"shop\"}"),
        total("switchback_upstream_request_duration_seconds_sum{service=\"shop\",version=\"blue\"}"),
    );
    assert!(user > 0.65 && blue < 0.45, "{user} and {blue}");
}

#[test]
fn stable_gets_it_as_it_would_have_and_the_answer_is_stables() {
    let green = answers(500);
    let edits = |version: &str| {
        format!(
            "[services.shop.versions.{version}.request_headers]\nset = {{ x-for = \"{version}\" }}\n\
             [services.shop.versions.{version}.response_headers]\nset = {{ x-by = \"%{{version}} %{{epoch}}\" }}\n"
        )
    };
    let extra = format!("{}{}", edits("blue"), edits("green"));
    let dir = tempfile::tempdir().unwrap();
    let blue = Origin::start("blue");
    let services = text(&dir.path().display().to_string(), blue.address, &[green.address], ON, &extra);
    let text = format!("[proxy]\nepoch_header = true\n{services}");
    let lab = Lab::configured(dir, vec![blue, green], &text);
    let answer = ask(&lab, "GET");
    let epoch = lab.epoch().to_string();
    assert_eq!((answer.version(), answer.header("switchback-epoch")), ("blue", Some(epoch.as_str())));
    assert_eq!(answer.header("x-by"), Some(format!("blue {epoch}").as_str()));
    let of = |version: &str| lab.origin(version).only().header("x-for").unwrap().to_owned();
    assert_eq!((of("blue"), of("green")), ("blue".to_owned(), "green".to_owned()));
}

#[test]
fn it_comes_to_the_endpoint_of_stable_that_is_its_own() {
    let (blues, green) = (["b0", "b1", "b2", "b3"].map(Origin::start), answers(500));
    let addresses: Vec<_> = blues.iter().map(|blue| blue.address.to_string()).collect();
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\noutliers = false\n\
         shield = {{ budget = \"100%\", min_per_second = 1_000 }}\nbalance = {{ policy = \"hash\", key = {{ header = \"x-user\" }} }}\n\
         rules = [{{ query = {{ to = \"green\" }}, to = \"green\" }}]\n\
         [services.shop.versions.blue]\nendpoints = {addresses:?}\n\
         [services.shop.versions.green]\nendpoints = [\"{}\"]\nrequest_headers = {{ set = {{ x-user = \"anybody\" }} }}\n",
        green.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &services);
    let mut client = lab.client();
    let mut get = |path: &str, user: u32| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\nx-user: u{user}\r\n\r\n");
        client.send(request).answer().version().to_owned()
    };
    for user in 0..16 {
        assert_eq!(get("/", user), get("/?to=green", user));
    }
}

#[test]
fn what_a_version_has_failed_is_in_the_log_whatever_the_sample() {
    let (dir, blue, green) = (tempfile::tempdir().unwrap(), Origin::start("blue"), answers(500));
    let services = text(&dir.path().display().to_string(), blue.address, &[green.address], ON, "");
    let services = services.replace("[access_log]", "[access_log]\nsample = \"0%\"");
    let lab = Lab::configured(dir, vec![blue, green], &services);
    assert_eq!((lab.get("/").version(), ask(&lab, "GET").version()), ("blue", "blue"));
    let line = log(&lab, 1).remove(0);
    assert_eq!((&line["status"], &line["shielded"]["status"]), (&json!(200), &json!(500)), "{line}");
}

#[test]
fn a_user_stays_with_the_version_he_was_assigned_to() {
    let settings =
        "shield = true\nweights = { blue = 0.01, green = 99.99 }\nsticky = { cookie = \"id\", mint = true }";
    let lab = shop(answers(500), settings);
    let first = lab.get("/");
    assert_eq!((first.status, first.version()), (200, "blue"));
    let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let again = format!("GET / HTTP/1.1\r\nhost: shop.test\r\ncookie: {cookie}\r\n\r\n");
    let second = lab.client().send(again).answer();
    assert_eq!((second.status, second.version(), second.header("set-cookie")), (200, "blue", None));
    assert_eq!(lab.origin("green").served(), 2, "he is green's");
    assert_eq!(
        (&log(&lab, 2)[0]["assigned"], &log(&lab, 2)[1]["assigned"]),
        (&json!("minted"), &json!("sticky"))
    );
}

#[test]
fn a_websocket_that_is_not_accepted_is_accepted_by_stable() {
    let (dir, refuses, has_none) = (tempfile::tempdir().unwrap(), answers(503), speaks_frames(|_| Ok(())));
    let greens = [(nobody(), ""), (refuses.address, ""), (has_none.address, "protocol = \"h2c\"\n")];
    for (green, extra) in greens {
        let services = text(&dir.path().display().to_string(), echoes(), &[green], ON, extra);
        let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &services);
        let mut socket = lab::websocket::connect(lab.address(), "/chat?to=green");
        assert!(echoed(&mut socket, "hello"));
        assert_eq!(shielded(&lab, "green"), 1.0);
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
    }
}

#[test]
fn a_limit_of_the_service_counts_the_request_once() {
    let settings = "shield = true\n[services.shop.limits]\nin_flight = 1";
    let lab = shop(answers(500), settings);
    for _ in 0..3 {
        assert_eq!(ask(&lab, "GET").version(), "blue");
    }
}

#[test]
fn it_follows_the_file_and_is_told() {
    let lab = shop(answers(500), "shield = false");
    assert_eq!(ask(&lab, "GET").version(), "green");
    assert_eq!(lab.shop()["shield"], Value::Null);
    let [blue, green] = [0, 1].map(|at: usize| lab.origins[at].address);
    let write = |settings: &str| {
        lab.write_config(&text(&lab.dir.path().display().to_string(), blue, &[green], settings, ""));
    };
    write("shield = { statuses = [500, \"4xx\"], body = \"1KiB\" }");
    wait_until("it is on", || lab.shop()["shield"].is_object());
    assert_eq!(ask(&lab, "GET").version(), "blue");
    let told = json!({ "statuses": ["500", "400-499"], "body": 1024, "budget": 2000, "min_per_second": 10, "answered": 1 });
    assert_eq!(lab.shop()["shield"], told);
    let (_, status, _) = lab.cli(&["status", "shop"]);
    assert!(status.contains("shield: what another version fails is answered by blue (1 so far)"), "{status}");
    let explain = |more: &[&str]| lab.cli(&[&["explain", "http://shop.test/?to=green"], more].concat()).1;
    assert!(explain(&[]).contains("what green fails is answered by blue"), "{}", explain(&[]));
    assert!(!explain(&["--method", "POST"]).contains("answered by"), "a POST is not");
    assert!(explain(&["--method", "CONNECT"]).contains("answered by"), "a WebSocket is");
    let (_, other, _) = lab.cli(&["explain", "http://shop.test/"]);
    assert!(!other.contains("answered by"), "blue's own: {other}");
    write("shield = false");
    wait_until("it is off", || lab.shop()["shield"].is_null());
    assert_eq!(ask(&lab, "GET").version(), "green");
}

#[test]
fn a_client_that_leaves_while_stable_works_has_left_stable() {
    let (gate, green) = (Gate::default(), answers(500));
    let mut lab = shop_at(waits("blue", &gate), &[green.address], ON, "");
    lab.origins.push(green);
    let mut client = lab.client();
    client.send("GET /late?to=green HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    lab.origin("blue").wait_served(1);
    drop(client);
    wait_until("it is seen", || views(&lab, "blue", "499", "client_gone") == (1.0, 1.0));
    assert_eq!((views(&lab, "green", "500", ""), shielded(&lab, "green")), ((1.0, 0.0), 0.0));
    gate.open();
}

#[test]
fn who_does_not_accept_in_time_is_covered_for_too() {
    let (full, _socket, _queued) = never_accepts();
    let lab =
        shop_at(Origin::start("blue"), &[full], "shield = true\ntimeouts = { connect = \"200ms\" }", "");
    let answer = ask(&lab, "POST");
    is_shielded(&lab, &answer, ("504", "connect_timeout"));
}
