//! Nothing passes that two readers could take apart differently: not from clients, not from origins (RFC 9112 §11.2).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

#[path = "smuggling/answers.rs"]
mod answers;
mod lab;
#[path = "smuggling/requests.rs"]
mod requests;

use std::io::Write;
use std::sync::{Arc, Mutex};

use lab::origin::{Peer, Seen, Then};
use lab::wire::{self, Parsed};
use lab::{Lab, Origin};

/// Each of these requests is refused, the connection is closed, and the origin hears nothing of it.
fn all_refused(requests: &[&str]) {
    let lab = Lab::start(&["blue"]);
    for request in requests {
        let mut client = lab.client();
        // What follows must not be taken for a request either.
        client.send(format!("{request}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("switchback-reason")),
            (400, Some("bad_request")),
            "{request:?}: {}",
            answer.text()
        );
        assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
        assert_eq!(String::from_utf8_lossy(&client.rest()), "", "{request:?}");
    }
    assert_eq!(lab.origins[0].served(), 0);
    let counted = lab.metric(&["switchback_client_requests_total{", "reason=\"bad_request\""]);
    assert_eq!(counted, Some(requests.len() as f64));
}

#[test]
fn a_length_beside_a_coding_is_refused() {
    all_refused(&[
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nx: y\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ]);
}

#[test]
fn a_coding_that_is_not_just_chunked_is_refused() {
    all_refused(&[
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: ,chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;x\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ]);
}

#[test]
fn a_length_that_is_not_one_number_is_refused() {
    all_refused(&[
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3,4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3.0\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1 2\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9223372036854775808\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551619\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 000000000000000000003\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 3\r\n\r\nabc",
    ]);
}

#[test]
fn lines_that_end_otherwise_than_with_crlf_are_refused() {
    all_refused(&[
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: y\nz: w\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\n",
        "GET / HTTP/1.1\r\nhost: a\n\n",
        "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\rhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: y\rz: w\r\n\r\n",
        "GET / HTTP/1.1\r\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\r\n\r\n",
    ]);
}

#[test]
fn fields_that_do_not_parse_in_one_way_are_refused() {
    all_refused(&[
        "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n\tz\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\u{1}b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\u{7f}b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx\0: y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx(y): z\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx\u{e4}: z\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n: y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\n host: a\r\nhost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / x HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nhost: a\r\n\r\n",
        "GET / http/1.1\r\nhost: a\r\n\r\n",
    ]);
}

#[test]
fn a_host_that_is_not_one_name_is_refused() {
    all_refused(&[
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: me@a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a:b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: http://a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n",
        "GET http://me@a/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    ]);
}

#[test]
fn a_chunk_that_can_be_read_in_two_ways_ends_the_request_and_the_connection() {
    let lab = Lab::start(&["blue"]);
    for chunks in [
        "-1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "1_0\r\na\r\n0\r\n\r\n",
        "10000000000000001\r\na\r\n0\r\n\r\n",
        "ffffffffffffffff0\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1;a\rb\r\na\r\n0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "1;a\0\r\na\r\n0\r\n\r\n",
        "1 2\r\na\r\n0\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\nx: y\r\n\n",
        "0\r\n\n",
    ] {
        let mut client = lab.client();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
        let _ = client.try_send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("switchback-reason")),
            (400, Some("request_body")),
            "{chunks:?}"
        );
        assert_eq!(String::from_utf8_lossy(&client.rest()), "", "{chunks:?}");
    }
    assert_eq!(lab.origins[0].served(), 0, "no request was ever finished: {:?}", lab.origins[0].seen());
}

#[test]
fn a_body_is_never_taken_for_a_request() {
    let lab = Lab::start(&["blue"]);
    let inner = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut client = lab.client();
    client.send(format!("POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{inner}", inner.len()));
    assert_eq!(client.answer().status, 200);
    let chunk = format!("{:x};x=\"{}\"\r\n{inner}\r\n0\r\n\r\n", inner.len(), "y".repeat(100));
    client.send(format!("POST /2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"));
    assert_eq!(client.answer().status, 200);
    assert_eq!(client.get("/3").status, 200);
    let paths: Vec<_> = lab.origins[0].seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(paths, ["/1", "/2", "/3"]);
}

#[test]
fn what_was_asked_before_an_ambiguous_request_is_answered_first() {
    let lab = Lab::start(&["blue"]);
    let bad =
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    for before in [1, 2, 40] {
        let mut client = lab.client();
        let sound: String = (0..before).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
        client.send(sound + bad);
        for n in 0..before {
            let answer = client.answer();
            assert!(answer.text().contains(&format!(" /{n} ")), "{n} of {before}: {answer:?}");
        }
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("switchback-reason")), (400, Some("bad_request")));
        assert!(client.rest().is_empty());
    }
}

#[test]
fn a_malformed_request_behind_a_sound_one_gets_an_answer_of_its_own() {
    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nx(: y\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (400, Some("bad_request")));
    assert!(client.rest().is_empty());
}

#[test]
fn an_ambiguous_request_is_refused_however_it_is_cut() {
    let lab = Lab::start(&["blue"]);
    let bad =
        "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for cut in (1..bad.len()).step_by(5) {
        let mut client = lab.client();
        assert_eq!(client.get("/").status, 200);
        client.send(&bad[..cut]);
        // The second part may come when the refusal is already out.
        let _ = client.try_send(&bad[cut..]);
        assert_eq!(client.answer().status, 400, "cut at {cut}");
    }
    assert_eq!(lab.origins[0].seen().iter().filter(|seen| seen.line.starts_with("POST")).count(), 0);
}

/// For each of these answers the client gets a 502, and the connection they came over is not used again.
fn all_discarded(answers: &'static [&'static str]) {
    let served = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::behaving("blue", move |_, stream| {
        let index = served.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        stream.write_all(answers[index].as_bytes())?;
        Ok(Then::Keep)
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    for (index, text) in answers.iter().enumerate() {
        let answer = client.get("/");
        assert_eq!(
            (answer.status, answer.header("switchback-reason")),
            (502, Some("upstream_protocol")),
            "{text:?}: {answer:?}"
        );
        assert_eq!(lab.origins[0].connections(), index as u64 + 1, "{text:?}");
    }
}

#[test]
fn an_answer_that_can_be_framed_in_two_ways_is_discarded() {
    all_discarded(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775808\r\n\r\nabc",
    ]);
}

#[test]
fn an_answer_whose_head_does_not_parse_in_one_way_is_discarded() {
    all_discarded(&[
        "HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\n\n",
        "HTTP/1.1 200 OK\r\nx: y\r\n z\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : y\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx(: y\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "<html>no head at all</html>\r\n\r\n",
    ]);
}

#[test]
fn a_broken_chunk_of_an_answer_breaks_the_answer_off() {
    const BROKEN: [&str; 6] =
        ["-1\r\n", "1\na\r\n", "1\r\nab\r\n", "1;\r;\r\na\r\n", "zz\r\n", "0\r\nx: y\n\r\n"];
    let served = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::behaving("blue", move |_, stream| {
        let index = served.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n{}", BROKEN[index])?;
        Ok(Then::Keep)
    });
    let lab = Lab::on(vec![origin], "");
    for broken in BROKEN {
        let answer = lab.get("/");
        assert!(answer.text().starts_with("abc") && !answer.is_whole, "{broken:?}: {answer:?}");
    }
    assert_eq!(lab.origins[0].connections(), BROKEN.len() as u64);
}

#[test]
fn an_answer_that_nobody_asked_for_reaches_nobody() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        let path = proxy.head()?.path().to_owned();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len());
        proxy.send(answer + "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")?;
        assert!(proxy.is_closed());
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    for path in ["/a", "/b", "/c"] {
        assert_eq!(client.get(path).text(), path);
    }
    assert_eq!(lab.origins[0].connections(), 3);
}

/// What reached an origin that takes nothing that could be read in two ways: the requests, and why it hung up on others.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<(Vec<Seen>, Vec<String>)>>);

impl Ledger {
    /// What came since the last call.
    fn take(&self) -> (Vec<Seen>, Vec<String>) {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Answers each request with its own target.
    fn origin(&self) -> Origin {
        let ledger = self.clone();
        Origin::scripted("blue", move |proxy: &mut Peer| {
            loop {
                match proxy.parse(wire::request) {
                    Ok(Some(seen)) => {
                        let path = seen.path().to_owned();
                        ledger.0.lock().unwrap().0.push(seen);
                        proxy.send(format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}",
                            path.len()
                        ))?;
                    }
                    Ok(None) => return Ok(()),
                    Err(why) => {
                        ledger.0.lock().unwrap().1.push(why);
                        return Ok(());
                    }
                }
            }
        })
    }
}

/// The answers among `bytes`, interim ones left out, read as strictly as the origin reads requests.
fn answers_in(mut bytes: &[u8], methods: &[&str]) -> Vec<Seen> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let method = methods.get(answers.len()).copied().unwrap_or("GET");
        match wire::answer(bytes, method, true) {
            Ok(Parsed::Whole(seen, length)) => {
                bytes = &bytes[length..];
                answers.extend(Some(seen).filter(|seen| wire::status(seen) >= Some(200)));
            }
            other => panic!("{other:?} in {:?}", String::from_utf8_lossy(bytes)),
        }
    }
    answers
}

/// Sends each payload with `GET /next` behind it, and lets another client ask something between them.
fn each_request_is_read_in_one_way(before: &str, cases: &[(requests::Verdict, &'static [u8])]) {
    let ledger = Ledger::default();
    let lab = Lab::on(vec![ledger.origin()], "");
    let mut canary = lab.client();
    let mut failed = Vec::new();
    for (verdict, payload) in cases {
        let next = "GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let sent = [before.as_bytes(), payload, next.as_bytes()].concat();
        let shown = String::from_utf8_lossy(&sent).into_owned();
        let mut client = lab.client();
        // It may be refused before all of it was sent.
        let _ = client.try_send(&sent);
        let got = answers_in(&client.rest(), &[]);
        assert_eq!(canary.get("/canary").text(), "/canary", "behind {shown:?}");
        let (mut seen, wrong) = ledger.take();
        assert!(wrong.is_empty(), "the origin got {wrong:?} of {shown:?}");
        assert_eq!(seen.pop().expect("the canary").path(), "/canary", "of {shown:?}");
        let seen: Vec<_> =
            seen.iter().map(|seen| (seen.path(), String::from_utf8_lossy(&seen.body))).collect();
        let is_case = |body: &str, next: &[&str]| {
            let is_first = seen.first().is_some_and(|(path, got)| path.contains("/case") && got == body);
            is_first && seen[1..].iter().map(|(path, _)| *path).eq(next.iter().copied())
        };
        let statuses: Vec<_> = got.iter().filter_map(wire::status).collect();
        let is_refused = seen.is_empty() && matches!(statuses[..], [400..=599]);
        let is_passed = |body: &str| is_case(body, &["/next"]) && statuses == [200, 200];
        let is_right = match verdict {
            requests::Verdict::Refused => is_refused,
            requests::Verdict::Passed(body) => is_passed(body),
            requests::Verdict::Either(body) => is_refused || is_passed(body),
            requests::Verdict::Last(body) => is_case(body, &[]) && statuses == [200],
        };
        if !is_right {
            failed.push(format!(
                "{verdict:?}: {shown:?}\n  the origin saw {seen:?}\n  the client got {statuses:?}"
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn codings_of_requests_are_read_in_one_way() {
    each_request_is_read_in_one_way("", requests::CODINGS);
}

#[test]
fn lengths_of_requests_are_read_in_one_way() {
    each_request_is_read_in_one_way("", requests::LENGTHS);
}

#[test]
fn lines_of_requests_are_read_in_one_way() {
    each_request_is_read_in_one_way("", requests::LINES);
}

#[test]
fn hosts_of_requests_are_read_in_one_way() {
    each_request_is_read_in_one_way("", requests::HOSTS);
}

#[test]
fn fields_of_requests_are_read_in_one_way() {
    each_request_is_read_in_one_way("", requests::FIELDS);
}

#[test]
fn chunks_of_requests_are_read_in_one_way() {
    let head = "POST /case HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    each_request_is_read_in_one_way(head, requests::CHUNKS);
}

/// Answers `/case` with each payload in turn, then sees what the client makes of it, and of what it asks next.
fn each_answer_is_read_in_one_way(
    before: &'static str,
    cases: &'static [(&'static str, answers::Verdict, &'static [u8], answers::Then)],
) {
    // The paths that came, each with the number of its connection.
    let seen: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let (noted, connections) = (Arc::clone(&seen), Mutex::new(0..));
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        let connection = connections.lock().unwrap().next().unwrap();
        while let Some(asked) = proxy.parse(wire::request).map_err(std::io::Error::other)? {
            noted.lock().unwrap().push((asked.path().to_owned(), connection));
            let Some(index) = asked.path().strip_prefix("/case/") else {
                proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext")?;
                continue;
            };
            let (_, _, payload, then) = cases[index.parse::<usize>().unwrap()];
            proxy.send([before.as_bytes(), payload].concat())?;
            if then == answers::Then::Closes {
                return Ok(());
            }
        }
        Ok(())
    });
    let mut lab = Lab::on(vec![origin], "");
    lab.restrict_to_one_worker();
    let mut failed = Vec::new();
    for (index, (method, verdict, payload, _)) in cases.iter().enumerate() {
        let shown = format!("{method} {:?}", String::from_utf8_lossy(payload));
        let mut client = lab.client();
        client.send(format!("{method} /case/{index} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
        let bytes = client.rest();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(lab.get("/next").text(), "next", "behind {shown}");
        let came = std::mem::take(&mut *seen.lock().unwrap());
        let is_reused = came.windows(2).any(|pair| pair[0].0 != "/next" && pair[0].1 == pair[1].1);
        assert_eq!(came.last().map(|(path, _)| path.as_str()), Some("/next"), "behind {shown}");
        let is_passed = |status: u16, body: &str| {
            let answers = answers_in(&bytes, &[method]);
            let is = |answer: &Seen| wire::status(answer) == Some(status) && answer.body == body.as_bytes();
            answers.len() == 1 && is(&answers[0])
        };
        let is_right = match verdict {
            answers::Verdict::Discarded => {
                let answers = answers_in(&bytes, &[method]);
                !is_reused && answers.len() == 1 && wire::status(&answers[0]) == Some(502)
            }
            answers::Verdict::Passed(status, body) => is_passed(*status, body),
            answers::Verdict::Last(status, body) => !is_reused && is_passed(*status, body),
            answers::Verdict::Cut(begun) => {
                !is_reused && text.starts_with("HTTP/1.1 200 ") && breaks_off(&bytes, begun)
            }
        };
        if !is_right {
            failed.push(format!("{verdict:?}: {shown}\n  the client got {text:?}\n  the origin {came:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// True when what came is the beginning of an answer whose body goes as far as `begun`, and is seen not to be all of it.
fn breaks_off(bytes: &[u8], begun: &str) -> bool {
    let answer = lab::Answer::of(bytes).expect("a head");
    let is_framed = answer.header("content-length").is_some() || answer.header("transfer-encoding").is_some();
    is_framed && !answer.is_whole && begun.as_bytes().starts_with(&answer.body)
}

#[test]
fn the_framing_of_answers_is_read_in_one_way() {
    each_answer_is_read_in_one_way("", answers::FRAMING);
}

#[test]
fn what_comes_beside_an_answer_reaches_nobody() {
    each_answer_is_read_in_one_way("", answers::LEFT_OVER);
}

#[test]
fn heads_of_answers_are_read_in_one_way() {
    each_answer_is_read_in_one_way("", answers::HEADS);
}

#[test]
fn chunks_of_answers_are_read_in_one_way() {
    let before = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    each_answer_is_read_in_one_way(before, answers::CHUNKS);
}

#[test]
fn there_are_enough_of_them() {
    let requests = [
        requests::CODINGS,
        requests::LENGTHS,
        requests::LINES,
        requests::HOSTS,
        requests::FIELDS,
        requests::CHUNKS,
    ];
    let answers = [answers::FRAMING, answers::LEFT_OVER, answers::HEADS, answers::CHUNKS];
    let count = requests.iter().map(|cases| cases.len()).sum::<usize>()
        + answers.iter().map(|cases| cases.len()).sum::<usize>();
    assert!(count >= 150, "{count} payloads");
}
