//! HTTP/2 towards clients: requests and answers of every shape pass as they do over HTTP/1.1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason as Code;
use http::{HeaderMap, HeaderValue, Method, Request};
use lab::frames::{
    self, DATA, END_HEADERS, END_STREAM, HEADERS, Piece, RST_STREAM, WHOLE, Way, block, frame,
};
use lab::http2::{answer, request, run, upload};
use lab::origin::{Peer, Seen, Then};
use lab::{Answer, Frames, Http2, Lab, Origin};

/// Says what it got: `/length`, `/chunks` and `/close` answer with the request's body, in that framing.
fn echo(name: &str) -> Origin {
    Origin::behaving(name, |seen, stream| {
        let Seen { body, .. } = seen;
        match seen.path() {
            "/204" => write!(stream, "HTTP/1.1 204 No Content\r\n\r\n")?,
            "/304" => {
                write!(stream, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"a\"\r\n\r\n")?
            }
            "/chunks" => {
                write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n")?;
                for part in body.chunks(9_001) {
                    write!(stream, "{:x}\r\n", part.len())?;
                    stream.write_all(part)?;
                    stream.write_all(b"\r\n")?;
                }
                write!(stream, "0\r\nx-sum: {}\r\ncontent-length: 7\r\n\r\n", body.len())?;
            }
            "/close" => {
                write!(stream, "HTTP/1.1 200 OK\r\n\r\n")?;
                stream.write_all(body)?;
                return Ok(Then::Close);
            }
            "/early" => {
                write!(stream, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n")?;
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            }
            _ => {
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len())?;
                write!(stream, "connection: keep-alive\r\nkeep-alive: timeout=5\r\n\r\n")?;
                if !seen.line.starts_with("HEAD") {
                    stream.write_all(body)?;
                }
            }
        }
        Ok(Then::Keep)
    })
}

fn lab() -> Lab {
    Lab::on(vec![echo("blue")], "")
}

fn status_and_reason(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("switchback-reason"))
}

#[test]
fn methods_and_bodiless_answers_pass() {
    let lab = lab();
    run(async {
        let client = Http2::to(lab.address()).await;
        for method in [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS] {
            let answer = client.ask(request(method.clone(), "/x?y=1")).await;
            assert_eq!((answer.status, answer.body.len()), (200, 0), "{method}");
            let seen = lab.origins[0].seen().pop().unwrap();
            assert_eq!(seen.line, format!("{method} /x?y=1 HTTP/1.1"));
            assert_eq!(seen.header("host"), Some("shop.test"));
        }
        let answer = client.get("/204").await;
        assert_eq!((answer.status, answer.header("content-length"), answer.is_whole), (204, None, true));
        let answer = client.get("/304").await;
        assert_eq!((answer.status, answer.header("etag"), answer.is_whole), (304, Some("\"a\""), true));
    });
    assert_eq!(lab.origins[0].connections(), 1, "one after the other over one connection");
}

#[test]
fn a_head_request_is_told_the_length_it_would_be() {
    let origin = Origin::behaving("blue", |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let lab = Lab::on(vec![origin], "");
    run(async {
        let answer = Http2::to(lab.address()).await.ask(request(Method::HEAD, "/")).await;
        assert_eq!((answer.header("content-length"), answer.is_whole), (Some("1234"), true));
    });
}

#[test]
fn fields_of_one_connection_do_not_pass() {
    let lab = lab();
    run(async {
        let client = Http2::to(lab.address()).await;
        let mut asked = request(Method::GET, "/");
        asked.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        asked.headers_mut().insert("x-kept", HeaderValue::from_static("yes"));
        let answer = client.ask(asked).await;
        for name in ["connection", "keep-alive", "transfer-encoding"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert!(answer.header("date").is_some());
    });
    let seen = lab.origins[0].only();
    assert_eq!((seen.header("x-kept"), seen.header("te")), (Some("yes"), Some("trailers")));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("via"), Some("2 switchback"));
    assert!(seen.headers.iter().all(|(name, _)| !name.starts_with(':')), "{seen:?}");
}

#[test]
fn bodies_pass_both_ways_in_every_framing() {
    let lab = lab();
    let body: Vec<u8> = (0..251u8).cycle().take(700_000).collect();
    run(async {
        let client = Http2::to(lab.address()).await;
        for path in ["/length", "/chunks", "/close"] {
            for length in [0, 1, 16_384, 700_000] {
                let answer = client.post(path, Bytes::copy_from_slice(&body[..length])).await;
                assert!(answer.body == body[..length] && answer.is_whole, "{path}, {length} bytes");
            }
        }
    });
}

#[test]
fn an_announced_length_is_passed_on_and_an_unknown_one_is_chunked() {
    let lab = lab();
    run(async {
        let client = Http2::to(lab.address()).await;
        let mut asked = request(Method::POST, "/");
        asked.headers_mut().insert("content-length", HeaderValue::from_static("5"));
        let (response, send) = client.start(asked, false).await;
        upload(send, "hello".into(), None).await.unwrap();
        assert_eq!(answer(response).await.unwrap().text(), "hello");
        let seen = lab.origins[0].seen().pop().unwrap();
        assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (Some("5"), None));
        client.post("/", "hello").await;
        let seen = lab.origins[0].seen().pop().unwrap();
        assert_eq!(
            (seen.header("content-length"), seen.header("transfer-encoding")),
            (None, Some("chunked"))
        );
    });
}

#[test]
fn trailers_pass_both_ways_and_those_that_may_not_be_are_dropped() {
    let lab = lab();
    run(async {
        let client = Http2::to(lab.address()).await;
        let mut asked = request(Method::POST, "/chunks");
        asked.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("abc"));
        trailers.insert("x-forwarded-for", HeaderValue::from_static("6.6.6.6"));
        let (response, send) = client.start(asked, false).await;
        upload(send, "hello".into(), Some(trailers)).await.unwrap();
        let answer = answer(response).await.unwrap();
        assert_eq!(answer.trailers, [("x-sum".to_owned(), "5".to_owned())]);
    });
    assert_eq!(lab.origins[0].only().trailers, [("x-sum".to_owned(), "abc".to_owned())]);
}

#[test]
fn interim_answers_are_relayed() {
    let lab = lab();
    run(async {
        let answer = Http2::to(lab.address()).await.get("/early").await;
        let link = ("link".to_owned(), "</a.css>".to_owned());
        assert_eq!(answer.interim, [(103, vec![link])]);
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    });
}

#[test]
fn a_client_that_expects_100_continue_is_told_once() {
    let lab = lab();
    run(async {
        let client = Http2::to(lab.address()).await;
        let mut asked = request(Method::POST, "/");
        asked.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
        let (mut response, send) = client.start(asked, false).await;
        let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(interim.status(), 100);
        upload(send, "hello".into(), None).await.unwrap();
        let answer = answer(response).await.unwrap();
        assert_eq!((answer.text().as_str(), answer.interim.len()), ("hello", 0));

        let mut asked = request(Method::POST, "/");
        asked.headers_mut().insert("expect", HeaderValue::from_static("200-maybe"));
        assert_eq!(client.ask(asked).await.status, 417);
    });
}

#[test]
fn while_a_download_fills_the_connection_a_stream_is_told_to_go_on_and_of_hints_no_flood() {
    let (tell, told) = std::sync::mpsc::channel();
    let taken = Arc::new(AtomicUsize::new(0));
    let taking = Arc::clone(&taken);
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        let answer = match proxy.head()?.path() {
            "/large" => {
                proxy.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_024 * 65_536))?;
                return (0..1_024).try_for_each(|_| {
                    proxy.send([b'x'; 65_536])?;
                    taking.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                });
            }
            "/upload" => {
                proxy.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n".repeat(1_000))?;
                proxy.send("HTTP/1.1 100 Continue\r\n\r\n")?;
                tell.send(()).unwrap();
                proxy.bytes(5)?
            }
            _ => b"small".to_vec(),
        };
        proxy.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")?;
        proxy.send(answer)
    });
    let mut lab = Lab::on(vec![origin], "");
    lab.restrict_to_one_worker();
    let mut connection = Frames::silent(lab.address()).open(&[(4, 1 << 30)]);
    connection.send(frames::window_update(0, 1 << 30));
    connection.send(frame(HEADERS, WHOLE, 1, frames::get("/large")));
    let mut before = 0;
    lab::wait_until("the client, which reads nothing, is behind", || {
        thread::sleep(Duration::from_millis(100));
        let now = taken.load(Ordering::SeqCst);
        std::mem::replace(&mut before, now) == now && now > 0
    });
    let expects = [("expect", "100-continue"), ("content-length", "5")];
    let asked = [frames::request("POST", "/upload"), expects.to_vec()].concat();
    connection.send(frame(HEADERS, END_HEADERS, 3, block(&asked)));
    told.recv_timeout(lab::PATIENCE).unwrap();
    assert_eq!(lab.get("/").text(), "small", "the worker has seen what it was told");
    let mut hints = 0;
    let last = loop {
        match connection.status(3) {
            103 => hints += 1,
            status => break status,
        }
    };
    assert_eq!(last, 100);
    assert!((1..500).contains(&hints), "{hints}");
    connection.send(frame(DATA, END_STREAM, 3, b"hello"));
    assert_eq!(connection.status(3), 200);
}

#[test]
fn cookies_that_come_one_by_one_are_joined() {
    let lab = lab();
    run(async {
        let mut asked = request(Method::GET, "/");
        for crumb in ["a=1", "b=2; c=3", "", "d=4", ""] {
            asked.headers_mut().append("cookie", HeaderValue::from_static(crumb));
        }
        Http2::to(lab.address()).await.ask(asked).await;
    });
    let cookies: Vec<_> =
        lab.origins[0].only().headers.into_iter().filter(|(name, _)| name == "cookie").collect();
    assert_eq!(cookies, [("cookie".to_owned(), "a=1; b=2; c=3; d=4".to_owned())]);
}

/// What one request, made of these fields, is answered with: a status, or the code of its reset.
fn told(connection: &mut Frames, stream: u32, fields: &[(&str, &str)]) -> Result<u16, u32> {
    connection.send(frame(HEADERS, WHOLE, stream, block(fields)));
    let piece =
        connection.until(|piece| piece.stream == stream && [HEADERS, RST_STREAM].contains(&piece.kind));
    if piece.kind == RST_STREAM { Err(piece.code()) } else { Ok(piece.status().unwrap()) }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let lab = lab();
    let mut connection = Frames::to(lab.address());
    let get = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    let with = |more: &[(&'static str, &'static str)]| [&get[..], more].concat();
    let no_authority = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "shop.test")];
    let method = |method, path| {
        vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "shop.test")]
    };
    type Fields<'f> = Vec<(&'f str, &'f str)>;
    let cases: &[(&str, Fields<'_>, u16)] = &[
        ("authority", with(&[(":authority", "shop.test")]), 200),
        ("authority and the same host", with(&[(":authority", "shop.test"), ("host", "shop.test")]), 200),
        ("host alone", no_authority.to_vec(), 200),
        ("neither", with(&[]), 400),
        ("another host", with(&[(":authority", "shop.test"), ("host", "bank.test")]), 400),
        ("two hosts", with(&[("host", "shop.test"), ("host", "shop.test")]), 400),
        ("two hosts behind an authority", with(&[(":authority", "a"), ("host", "a"), ("host", "a")]), 400),
        ("user information", with(&[(":authority", "u@shop.test")]), 400),
        ("a blank before a value", with(&[(":authority", "shop.test"), ("x-beta", " 1")]), 400),
        ("a blank behind a value", with(&[(":authority", "shop.test"), ("x-beta", "1\t")]), 400),
        ("a blank in a value", with(&[(":authority", "shop.test"), ("x-beta", "1 2")]), 200),
        ("all of it", method("OPTIONS", "*"), 200),
        ("all of it with GET", method("GET", "*"), 400),
        ("no further", [method("TRACE", "/"), vec![("max-forwards", "0")]].concat(), 405),
        ("once more", [method("TRACE", "/"), vec![("max-forwards", "1")]].concat(), 200),
        ("a path without a slash", method("GET", "x"), 400),
        (
            "another scheme",
            vec![(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "shop.test")],
            400,
        ),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "bank.test:443")], 405),
    ];
    for ((name, fields, expected), stream) in cases.iter().zip((1..).step_by(2)) {
        // A malformed request may be reset instead of answered (RFC 9113 §8.1.1).
        match told(&mut connection, stream, fields) {
            Err(code) if *expected == 400 => assert_eq!(code, 1, "{name}"),
            told => assert_eq!(told, Ok(*expected), "{name}"),
        }
    }
    assert!(connection.is_alive(), "none of it costs the connection");
}

#[test]
fn a_head_over_the_limits_is_refused_and_the_connection_goes_on() {
    let lab = lab();
    let mut connection = Frames::to(lab.address());
    let names: Vec<_> = (0..101).map(|index| format!("x-{index}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    let get = frames::request("GET", "/");
    assert_eq!(told(&mut connection, 1, &[&get, &many[..90]].concat()), Ok(200));
    assert_eq!(told(&mut connection, 3, &[&get, &many[..]].concat()), Ok(431));
    let long = "v".repeat(7_000);
    let large = [("x-a", long.as_str()), ("x-b", &long), ("x-c", &long)];
    assert_eq!(told(&mut connection, 5, &[&get, &large[..2]].concat()), Ok(200));
    // In two frames: one has no more than 16 KiB.
    let text = block(&[&get, &large[..]].concat());
    connection.send(frame(HEADERS, END_STREAM, 7, &text[..16_000]));
    connection.send(frame(frames::CONTINUATION, END_HEADERS, 7, &text[16_000..]));
    assert_eq!(connection.status(7), 431);
    assert_eq!(connection.ask(9, "/"), 200);
    let counted =
        lab.metric(&["switchback_client_requests_total{", "code=\"431\"", "reason=\"head_too_large\""]);
    assert!(counted >= Some(1.0), "{counted:?}");
}

#[test]
fn a_body_that_is_not_what_was_announced_is_reset_and_its_upstream_request_aborted() {
    let origin = Origin::scripted("blue", |proxy| {
        let head = proxy.head()?;
        if head.path() == "/fine" {
            return proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
        let rest = proxy.rest();
        assert!(rest.len() < 10, "it never got the ten bytes that were announced: {rest:?}");
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let mut connection = Frames::to(lab.address());
    let fields = [&frames::request("POST", "/")[..], &[("content-length", "10")]].concat();
    for (stream, body) in [(1, "four"), (3, "more than ten of them")] {
        connection.send(frame(HEADERS, END_HEADERS, stream, block(&fields)));
        connection.send(frame(DATA, END_STREAM, stream, body));
        assert_eq!(connection.next(RST_STREAM, stream).code(), 1, "{body}");
    }
    assert_eq!(connection.ask(5, "/fine"), 200);
    // By which of its two signs it is noticed depends on how far the request was.
    let counted = |reason| lab.metric(&["switchback_upstream_requests_total{", reason]).unwrap_or(0.0);
    lab::wait_until("both are counted", || {
        counted("reason=\"request_body\"") + counted("reason=\"client_gone\"") == 2.0
    });
}

#[test]
fn answers_of_many_streams_do_not_wait_for_each_other() {
    let gate = lab::Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    run(async {
        let client = Http2::to(lab.address()).await;
        let mut held = Vec::new();
        for _ in 0..50 {
            held.push(client.start(request(Method::GET, "/held"), true).await.0);
        }
        assert_eq!(client.get("/").await.text(), lab::gate::HELD, "the last one first");
        gate.open();
        for response in held {
            let answer = answer(response).await.unwrap();
            assert_eq!((answer.text().as_str(), answer.is_whole), (lab::gate::HELD, true));
        }
    });
}

#[test]
fn requests_above_the_stream_limit_wait_at_the_client_or_are_refused_unprocessed() {
    let gate = lab::Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    let mut connection = Frames::to(lab.address());
    for stream in (1..=2 * 103).step_by(2) {
        connection.send(frame(HEADERS, WHOLE, stream, frames::get("/late")));
    }
    for stream in [201, 203, 205] {
        assert_eq!(connection.next(RST_STREAM, stream).code(), 7, "REFUSED_STREAM");
    }
    gate.open();
    connection.until(|piece| piece.stream == 199 && piece.kind == HEADERS);
    // Others may have theirs later.
    lab.origins[0].wait_served(100);
    assert_eq!(lab.origins[0].served(), 100);
}

#[test]
fn an_answer_that_breaks_off_is_reset_and_never_ended() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        let origin = Origin::behaving("blue", move |_, stream| {
            stream.write_all(text.as_bytes())?;
            Ok(Then::Close)
        });
        let lab = Lab::on(vec![origin], "");
        let mut connection = Frames::to(lab.address());
        connection.send(frame(HEADERS, WHOLE, 1, frames::get("/")));
        let is_end = |piece: &Piece| piece.kind == RST_STREAM || piece.flags & END_STREAM != 0;
        let end = connection.until(|piece| piece.stream == 1 && is_end(piece));
        assert_eq!((end.kind, end.code()), (RST_STREAM, 2), "{text:?}: INTERNAL_ERROR");
        let counted = lab.metric(&["switchback_upstream_requests_total{", "reason=\"body_truncated\""]);
        assert_eq!(counted, Some(1.0));
    }
}

#[test]
fn failures_before_the_answer_have_their_reason() {
    let origin = Origin::behaving("blue", |_, _| Ok(Then::Close));
    let lab = Lab::on(vec![origin], "");
    run(async {
        let client = Http2::to(lab.address()).await;
        let answer = client.post("/", "x").await;
        assert_eq!(status_and_reason(&answer), (502, Some("upstream_closed")));
        assert!(answer.text().contains("closed the connection"), "{}", answer.text());
    });
}

#[test]
fn an_early_answer_stops_an_upload_without_an_error() {
    let origin = Origin::answering_early("blue", |_, stream| {
        write!(stream, "HTTP/1.1 413 Too Much\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno\n")?;
        Ok(Then::Close)
    });
    let lab = Lab::on(vec![origin], "");
    let mut connection = Frames::to(lab.address());
    // More often than h2 remembers streams that it reset.
    for first in [1, 181] {
        for stream in (first..first + 180).step_by(2) {
            connection.send(frame(HEADERS, END_HEADERS, stream, block(&frames::request("POST", "/"))));
            connection.send(frame(DATA, 0, stream, [7; 100]));
            let head = connection.next(HEADERS, stream);
            assert_eq!(head.status(), Some(413));
            let is_end = |piece: &Piece| piece.kind == DATA && piece.flags & END_STREAM != 0;
            connection.until(|piece| piece.stream == stream && is_end(piece));
        }
        for _ in 0..90 {
            let reset = connection.until(|piece| piece.kind == RST_STREAM);
            assert_eq!(reset.code(), 0, "NO_ERROR, once it is answered and had time to be read");
            // It had not seen that yet.
            connection.send(frame(DATA, END_STREAM, reset.stream, [7; 100]));
        }
    }
    assert!(connection.is_alive());
}

#[test]
fn a_request_that_is_cancelled_ends_upstream_at_once() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::scripted("blue", move |proxy| {
        let head = proxy.head()?;
        if head.path() == "/begun" {
            proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirst")?;
        }
        assert!(proxy.is_closed());
        tell.lock().unwrap().send(()).unwrap();
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let in_flight = || lab.metric_sum("switchback_in_flight{");
    let mut connection = Frames::to(lab.address());
    for (count, stream, path) in [(1, 1, "/waiting"), (2, 3, "/begun")] {
        connection.send(frame(HEADERS, WHOLE, stream, frames::get(path)));
        if path == "/begun" {
            connection.next(DATA, stream);
        }
        lab::wait_until("it is in flight", || in_flight() > 0.0);
        connection.send(frames::reset(stream, 8));
        told.recv_timeout(lab::PATIENCE).expect("the endpoint is told by the end of its connection");
        lab.wait_for_metric(
            &["switchback_client_requests_total{", "code=\"499\"", "reason=\"client_gone\"", "blue"],
            f64::from(count),
        );
    }
    assert!(connection.is_alive());
}

#[test]
fn a_client_that_goes_away_ends_all_of_its_requests() {
    let gate = lab::Gate::default();
    let lab = Lab::on(vec![Origin::held("blue", &gate)], "");
    let mut connection = Frames::to(lab.address());
    for stream in (1..40).step_by(2) {
        connection.send(frame(HEADERS, WHOLE, stream, frames::get("/late")));
    }
    lab.origin("blue").wait_served(20);
    drop(connection);
    lab.wait_for_metric(
        &["switchback_client_requests_total{", "code=\"499\"", "reason=\"client_gone\"", "blue"],
        20.0,
    );
    gate.open();
}

#[test]
fn a_connection_made_by_tools_in_use_works() {
    let lab = Lab::on(vec![Origin::start("blue")], "");
    let url = format!("http://{}/x", lab.address());
    let curl = Command::new("curl")
        .args(["-s", "--http2-prior-knowledge", "-d", "hello", "-w", "%{http_version} %{http_code}", &url])
        .output()
        .expect("curl is installed");
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "blue POST /x HTTP/1.1\n2 200");
    let nghttp = Command::new("nghttp").args(["-m", "20", &url]).output().expect("nghttp is installed");
    assert!(nghttp.status.success(), "{nghttp:?}");
    assert_eq!(String::from_utf8_lossy(&nghttp.stdout).matches("blue GET /x").count(), 20);
    let h2load = Command::new("h2load").args(["-n2000", "-c4", "-m32", &url]).output().expect("h2load");
    let text = String::from_utf8_lossy(&h2load.stdout);
    assert!(text.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
}

#[test]
fn it_is_the_same_under_tls() {
    let (lab, ways) = frames::ways_to(Origin::start("blue"), "");
    let Way::Tls(address, _) = &ways[1] else { unreachable!("the second one") };
    let mut connection = ways[1].frames();
    assert_eq!(connection.ask(1, "/"), 200);
    assert_eq!(lab.origins[0].only().header("x-forwarded-proto"), Some("https"));
    let url = format!("https://{address}/x");
    let curl = Command::new("curl")
        .args(["-sk", "--http2", "-d", "hello", "-w", "%{http_version} %{http_code}", &url])
        .output()
        .expect("curl is installed");
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "blue POST /x HTTP/1.1\n2 200");
    let h2load = Command::new("h2load").args(["-n2000", "-c4", "-m32", &url]).output().expect("h2load");
    let text = String::from_utf8_lossy(&h2load.stdout);
    assert!(text.contains("Application protocol: h2"), "{text}");
    assert!(text.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
}

#[test]
fn a_request_without_a_known_route_is_answered_on_its_stream() {
    let services = |port| {
        format!(
            "[services.shop]\nroutes = [{{ host = \"other.test\" }}]\n[services.shop.versions.blue]\n\
             endpoints = [\"127.0.0.1:{port}\"]\n"
        )
    };
    let origin = Origin::start("blue");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![], &services(origin.address.port()));
    run(async {
        let client = Http2::to(lab.address()).await;
        assert_eq!(status_and_reason(&client.get("/").await), (404, Some("no_route")));
        let asked = Request::get("http://other.test/").body(()).unwrap();
        assert_eq!(client.ask(asked).await.status, 200);
    });
}

#[test]
fn the_client_sees_the_code_of_a_truncated_answer() {
    let origin = Origin::behaving("blue", |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")?;
        Ok(Then::Close)
    });
    let lab = Lab::on(vec![origin], "");
    run(async {
        let client = Http2::to(lab.address()).await;
        let (response, _) = client.start(request(Method::GET, "/"), true).await;
        // The head may have been queued with what broke off, and is then dropped with it.
        let error = match response.await {
            Err(error) => error,
            Ok(response) => {
                let mut body = response.into_body();
                loop {
                    match body.data().await.expect("no clean end") {
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                }
            }
        };
        assert_eq!(error.reason(), Some(Code::INTERNAL_ERROR));
    });
}

#[test]
fn a_connect_that_became_no_tunnel_has_not_succeeded() {
    let origin = echo("blue");
    let text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}, {{ path = \"/own\", answer = {{ status = 200, body = \"x\" }} }}]\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n",
        origin.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &text);
    let mut connection = Frames::to(lab.address());
    for (path, stream) in [("/", 1), ("/204", 3), ("/close", 5), ("/own", 7)] {
        let mut fields = frames::request("CONNECT", path);
        fields.insert(0, (":protocol", "websocket"));
        assert_eq!(told(&mut connection, stream, &fields), Ok(502), "{path}");
        let reason = "reason=\"no_websocket\"";
        let counted = || lab.metric_total("switchback_client_requests_total", reason);
        lab::wait_until("it is counted", || counted() == f64::from(stream / 2 + 1));
    }
    assert_eq!(told(&mut connection, 9, &frames::request("GET", "/")), Ok(200));
}
