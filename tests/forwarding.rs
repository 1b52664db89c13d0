//! What is asked and what is answered passes as it was said; what is for one connection only does not (RFC 9110, 9112).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lab::origin::{Peer, Seen, Then};
use lab::{Answer, Client, Lab, Origin, PATIENCE};
use serde_json::{Value, json};

/// One origin that answers every request with `answer`.
fn answering(answer: impl Into<String>) -> Lab {
    let answer = answer.into();
    let origin = Origin::behaving("blue", move |_, stream| {
        stream.write_all(answer.as_bytes())?;
        Ok(Then::Keep)
    });
    Lab::on(vec![origin], "")
}

/// What the origin sees of `request`, whose answer has to be 200.
fn seen_by(lab: &Lab, request: &str) -> Seen {
    let before = lab.origins[0].seen().len();
    let answer = lab.client().send(request).answer();
    assert_eq!(answer.status, 200, "{request:?}: {}", answer.text());
    lab.origins[0].seen().swap_remove(before)
}

fn seen_of(request: &str) -> Seen {
    seen_by(&Lab::start(&["blue"]), request)
}

fn values<'f>(fields: &'f [(String, String)], name: &str) -> Vec<&'f str> {
    fields.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str()).collect()
}

#[test]
fn a_target_passes_byte_by_byte() {
    let lab = Lab::start(&["blue"]);
    for target in [
        "/",
        "/a?b=c&d",
        "//a//b",
        "/a%2fb%2Fc",
        "/a/../b/./c",
        "/?",
        "/a;b=c?x=%20+y",
        "/~|{}\"^",
        "/?a?b/c",
    ] {
        let seen = seen_by(&lab, &format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n\r\n"));
        assert_eq!(seen.line, format!("GET {target} HTTP/1.1"));
    }
    let long = format!("/{}", "x".repeat(10_000));
    let seen = seen_by(&lab, &format!("GET {long} HTTP/1.1\r\nhost: a.test\r\n\r\n"));
    assert_eq!(seen.path(), long);
}

#[test]
fn methods_pass_known_or_not() {
    let lab = Lab::start(&["blue"]);
    for method in ["DELETE", "PATCH", "PROPFIND", "M-SEARCH", "get", "TRACE"] {
        let seen = seen_by(&lab, &format!("{method} / HTTP/1.1\r\nhost: a.test\r\n\r\n"));
        assert_eq!(seen.line, format!("{method} / HTTP/1.1"));
    }
}

#[test]
fn end_to_end_fields_pass_with_every_value_in_order() {
    let seen = seen_of(
        "GET / HTTP/1.1\r\nHost: a.test:81\r\nX-One: a, b\r\nx-two:\t c \r\nX-ONE: d\r\nempty:\r\nbytes: \u{e4}\r\n\r\n",
    );
    assert_eq!(values(&seen.headers, "host"), ["a.test:81"]);
    assert_eq!(values(&seen.headers, "x-one"), ["a, b", "d"]);
    assert_eq!(values(&seen.headers, "x-two"), ["c"]);
    assert_eq!(values(&seen.headers, "empty"), [""]);
    assert_eq!(values(&seen.headers, "bytes"), ["\u{e4}"]);
}

#[test]
fn a_field_that_only_means_something_in_answers_passes_in_a_request() {
    let seen = seen_of("GET / HTTP/1.1\r\nhost: a\r\nwww-authenticate: Basic\r\nx-behind: 1\r\n\r\n");
    assert_eq!((seen.header("www-authenticate"), seen.header("x-behind")), (Some("Basic"), Some("1")));
}

#[test]
fn fields_of_the_clients_connection_do_not_reach_the_origin() {
    let seen = seen_of(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, X-Mine, upgrade\r\nx-mine: 1\r\nkeep-alive: 3\r\n\
         proxy-connection: close\r\nproxy-authorization: x\r\nte: gzip\r\nupgrade: websocket\r\nx-other: 2\r\n\r\n",
    );
    let names: Vec<_> = seen.headers.iter().map(|(name, _)| name.as_str()).collect();
    let own = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-host", "via"];
    assert_eq!(names, [&["host", "x-other"], &own[..]].concat());
}

#[test]
fn connection_cannot_make_a_field_vanish_that_routes_frames_or_authenticates() {
    let lab = Lab::start(&["blue"]);
    let seen = seen_by(
        &lab,
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: host, authorization, via, x-forwarded-for, x-forwarded-proto, \
         content-length, switchback-release\r\nauthorization: me\r\nvia: 1.1 first\r\nswitchback-release: 7\r\n\
         content-length: 2\r\n\r\nhi",
    );
    assert_eq!(seen.header("host"), Some("a"));
    assert_eq!(seen.header("authorization"), Some("me"));
    assert_eq!(values(&seen.headers, "via"), ["1.1 first", "1.1 switchback"]);
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("switchback-release"), Some("7"));
    assert_eq!(seen.body, b"hi");
}

#[test]
fn fields_of_the_origins_connection_do_not_reach_the_client() {
    let lab = answering(
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-mine\r\nkeep-alive: timeout=5\r\nx-mine: 1\r\nupgrade: h2c\r\n\
         proxy-connection: x\r\nset-cookie: a\r\nset-cookie: b\r\nserver: me\r\ndate: then\r\ncontent-length: 2\r\n\r\nhi",
    );
    let answer = lab.get("/");
    let names: Vec<_> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["set-cookie", "set-cookie", "server", "date", "content-length"]);
    assert_eq!(values(&answer.headers, "set-cookie"), ["a", "b"]);
}

#[test]
fn a_strangers_word_on_who_is_asking_is_replaced() {
    let seen = seen_of(
        "GET / HTTP/1.1\r\nhost: a.test:81\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\n\
         x-forwarded-proto: https\r\nx-forwarded-host: evil\r\nforwarded: for=6.6.6.6\r\n\r\n",
    );
    assert_eq!(values(&seen.headers, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&seen.headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&seen.headers, "x-forwarded-host"), ["a.test:81"]);
    assert_eq!(seen.header("forwarded"), None);
}

#[test]
fn a_trusted_proxys_word_is_kept_and_its_address_appended() {
    let lab = Lab::with(&["blue"], "trusted_proxies = [\"127.0.0.0/8\"]");
    let seen = seen_by(
        &lab,
        "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nx-forwarded-proto: https\r\n\
         x-forwarded-host: shop.test\r\nforwarded: for=6.6.6.6\r\nforwarded: for=7.7.7.7\r\n\r\n",
    );
    assert_eq!(values(&seen.headers, "x-forwarded-for"), ["6.6.6.6, 7.7.7.7, 127.0.0.1"]);
    assert_eq!(values(&seen.headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&seen.headers, "x-forwarded-host"), ["shop.test"]);
    assert_eq!(values(&seen.headers, "forwarded"), ["for=6.6.6.6", "for=7.7.7.7"]);
    let plain = seen_by(&lab, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(plain.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(plain.header("x-forwarded-host"), Some("a"));
}

#[test]
fn via_carries_the_name_that_was_configured() {
    let lab = Lab::with(&["blue"], "[proxy]\nvia = \"edge-7\"");
    let seen = seen_by(&lab, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(values(&seen.headers, "via"), ["1.1 edge-7"]);
    let old = seen_by(&lab, "GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(values(&old.headers, "via"), ["1.0 edge-7"]);
}

#[test]
fn an_absolute_target_wins_over_nothing_and_must_agree_with_host() {
    let lab = Lab::start(&["blue"]);
    let seen = seen_by(&lab, "GET http://a.test:81/x?y HTTP/1.1\r\nhost: A.test:81\r\n\r\n");
    assert_eq!((seen.path(), seen.header("host")), ("/x?y", Some("a.test:81")));
    for (whole, target) in [("http://a.test?y", "/?y"), ("http://a.test", "/"), ("http://a.test?", "/?")] {
        let seen = seen_by(&lab, &format!("GET {whole} HTTP/1.1\r\nhost: a.test\r\n\r\n"));
        assert_eq!(seen.path(), target);
    }
    let answer = lab.client().send("GET http://a.test/ HTTP/1.1\r\nhost: b.test\r\n\r\n").answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (400, Some("bad_request")));
}

#[test]
fn options_of_the_whole_server_passes() {
    let lab = Lab::start(&["blue"]);
    for (whole, target) in [
        ("*", "*"),
        ("http://a", "*"),
        ("HTTP://a:80", "*"),
        ("http://a/", "/"),
        ("http://a?", "/?"),
        ("http://a/*", "/*"),
    ] {
        let host = if whole.contains(":80") { "a:80" } else { "a" };
        let seen = seen_by(&lab, &format!("OPTIONS {whole} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(seen.line, format!("OPTIONS {target} HTTP/1.1"), "{whole}");
    }
}

#[test]
fn the_hops_that_options_and_trace_may_make_are_counted() {
    let lab = Lab::start(&["blue"]);
    let ask = |method: &str, fields: &str| {
        lab.client().send(format!("{method} /x HTTP/1.1\r\nhost: a\r\n{fields}x-a: b\r\n\r\n")).answer()
    };
    for method in ["OPTIONS", "TRACE"] {
        for (given, left) in [("1", "0"), ("010", "9"), ("9223372036854775807", "9223372036854775806")] {
            let fields = format!("Max-Forwards: {given}\r\n");
            let seen = seen_by(&lab, &format!("{method} /x HTTP/1.1\r\nhost: a\r\n{fields}x-a: b\r\n\r\n"));
            assert_eq!(values(&seen.headers, "max-forwards"), [left]);
            assert_eq!(seen.header("x-a"), Some("b"));
        }
        for odd in ["", "-1", "x", "1, 1", "1\r\nmax-forwards: 1", "99999999999999999999"] {
            let answer = ask(method, &format!("max-forwards: {odd}\r\n"));
            assert_eq!(
                (answer.status, answer.header("switchback-reason")),
                (400, Some("bad_request")),
                "{odd}"
            );
        }
    }
    let before = lab.origins[0].seen().len();
    let answer = ask("OPTIONS", "max-forwards: 0\r\n");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("0")));
    assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    let answer = ask("TRACE", "max-forwards: 0\r\n");
    assert_eq!((answer.status, answer.header("switchback-reason")), (405, Some("method_not_allowed")));
    assert_eq!(lab.origins[0].seen().len(), before, "neither goes on");
    assert_eq!(lab.metric(&["switchback_route_answers_total", "max_forwards"]), Some(1.0));
    // Of other methods it says nothing.
    let seen = seen_by(&lab, "GET / HTTP/1.1\r\nhost: a\r\nmax-forwards: 0\r\n\r\n");
    assert_eq!(seen.header("max-forwards"), Some("0"));
}

#[test]
fn an_answer_to_head_has_the_length_and_no_body() {
    let lab = answering("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n");
    let mut client = lab.client();
    for _ in 0..2 {
        let answer = client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").head_answer();
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("1234")));
    }
    assert_eq!(lab.origins[0].connections(), 1);
}

#[test]
fn answers_that_have_no_body_end_with_their_head() {
    for (status, length) in
        [("204 No Content", None), ("304 Not Modified", Some("9")), ("304 Not Modified", None)]
    {
        let field = length.map_or(String::new(), |length| format!("content-length: {length}\r\n"));
        let text: &'static str = format!("HTTP/1.1 {status}\r\netag: \"x\"\r\n{field}\r\n").leak();
        let lab = answering(text);
        let mut client = lab.client();
        for _ in 0..2 {
            let answer = client.get("/");
            assert!(status.starts_with(&answer.status.to_string()), "{answer:?}");
            assert_eq!(answer.header("content-length"), length, "{status}");
            assert_eq!(answer.header("transfer-encoding"), None);
            assert_eq!(answer.header("etag"), Some("\"x\""));
        }
        assert_eq!(lab.origins[0].connections(), 1, "the connection is still good");
    }
}

#[test]
fn a_status_without_a_name_is_given_none() {
    let lab = answering("HTTP/1.1 299 Fine By Me\r\ncontent-length: 0\r\n\r\n");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.line().trim_end(), "HTTP/1.1 299");
}

#[test]
fn an_http_1_0_client_gets_what_it_can_read() {
    let lab = answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let mut client = lab.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let text = String::from_utf8(client.rest()).unwrap();
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("\r\n\r\nabc"), "{text}");
    assert!(!text.contains("chunked"), "{text}");
    let seen = lab.origins[0].only();
    assert_eq!(seen.line, "GET / HTTP/1.1");
    assert_eq!(seen.header("host"), Some(&*lab.origins[0].address.to_string()));
}

#[test]
fn an_http_1_0_client_may_keep_its_connection() {
    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    for _ in 0..2 {
        let answer = client.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").answer();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("keep-alive")));
    }
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").answer();
    assert!(client.rest().is_empty());
}

#[test]
fn an_http_1_0_origin_ends_its_answer_by_closing() {
    let origin = Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.0 200 OK\r\nx-version: blue\r\n\r\nuntil the end")?;
        Ok(Then::Close)
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!(answer.text(), "until the end");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert!(answer.is_whole);
    }
}

#[test]
fn a_clients_trailers_reach_the_origin_but_for_those_that_frame_or_route() {
    let seen = seen_of(
        "POST / HTTP/1.1\r\nhost: a\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\
         x-sum: 7\r\nhost: b\r\ncontent-length: 3\r\nx-forwarded-for: me\r\nauthorization: me\r\n\r\n",
    );
    assert_eq!((seen.body.as_slice(), seen.header("trailer")), (&b"abc"[..], Some("x-sum")));
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn a_digest_may_be_a_trailer_and_what_describes_a_body_may_not() {
    let seen = seen_of(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\
         content-digest: sha-256=:x:\r\ncontent-type: text/html\r\ncontent-encoding: gzip\r\ncontent-range: bytes 0-1/2\r\n\
         content-location: /b\r\ncontent-language: en\r\ncontent-disposition: inline\r\n\r\n",
    );
    assert_eq!(seen.trailers, [("content-digest".to_owned(), "sha-256=:x:".to_owned())]);
}

#[test]
fn an_origins_trailers_reach_the_client_that_takes_them() {
    let lab = answering(
        "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n",
    );
    let mut client = lab.client();
    let answer = client
        .send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers, deflate;q=0.5\r\nconnection: te\r\n\r\n")
        .answer();
    assert_eq!((answer.text().as_str(), answer.header("trailer")), ("abc", Some("x-sum")));
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    assert_eq!(client.get("/").trailers, [], "nobody asked for them");
    let seen = lab.origins[0].seen();
    assert_eq!((seen[0].header("te"), seen[0].header("connection")), (Some("trailers"), Some("te")));
    assert_eq!((seen[1].header("te"), seen[1].header("connection")), (None, None));
}

/// Early hints, twice, and then the answer.
fn with_hints() -> Lab {
    answering(
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    )
}

#[test]
fn interim_answers_pass_in_order_before_the_final_one() {
    let answer = with_hints().get("/");
    let hints: Vec<_> =
        answer.interim.iter().map(|(status, fields)| (*status, values(fields, "link"))).collect();
    assert_eq!(hints, [(103, vec!["</a>"]), (103, vec!["</b>"])]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
}

/// `count` times how far an upload is, and then the answer.
fn telling(count: usize) -> Lab {
    let progress = |at| format!("HTTP/1.1 104 Upload Resumption Supported\r\nupload-offset: {at}\r\n\r\n");
    let told: String = (0..count).map(progress).collect();
    answering(told + "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
}

#[test]
fn interim_answers_may_be_many_but_no_flood() {
    let answer = telling(1_000).get("/");
    assert_eq!((answer.interim.len(), answer.text().as_str()), (1_000, "hi"));
    let answer = telling(10_000).get("/");
    assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("upstream_protocol")));
}

#[test]
fn an_http_1_0_client_gets_no_interim_answer() {
    let lab = with_hints();
    let mut client = lab.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let text = String::from_utf8(client.rest()).unwrap();
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("\r\n\r\nhi"), "{text}");
}

#[test]
fn an_interim_answer_does_not_wait_for_the_final_one() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::behaving("blue", move |_, stream| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")?;
        let _ = gone.lock().unwrap().recv();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.line(), "HTTP/1.1 103 Early Hints");
    assert_eq!((client.line(), client.line()), ("link: </a>".into(), String::new()));
    go.send(()).unwrap();
    assert_eq!(client.answer().status, 200);
}

const EXPECTING: &str = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";

#[test]
fn a_body_that_waits_is_let_go_by_the_origin() {
    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    client.send(EXPECTING);
    assert_eq!((client.line(), client.line()), ("HTTP/1.1 100 Continue".into(), String::new()));
    assert_eq!(client.send("body").answer().status, 200);
    let seen = lab.origins[0].only();
    assert_eq!((seen.body.as_slice(), seen.header("expect")), (&b"body"[..], Some("100-continue")));
}

#[test]
fn a_body_that_waits_is_never_sent_when_the_origin_refuses() {
    let origin = Origin::scripted("blue", |proxy| {
        proxy.head()?;
        proxy.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")?;
        assert!(proxy.is_closed(), "no body, and no next request");
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    let answer = client.send(EXPECTING).answer();
    assert_eq!((answer.status, answer.interim.len()), (417, 0));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.rest().is_empty());
}

#[test]
fn a_body_goes_after_a_second_when_the_origin_says_nothing() {
    let origin = Origin::scripted("blue", |proxy| {
        proxy.head()?;
        assert_eq!(proxy.bytes(4)?, b"body");
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        assert!(proxy.is_closed());
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send(EXPECTING);
    assert_eq!((client.line(), client.line()), ("HTTP/1.1 100 Continue".into(), String::new()));
    assert_eq!(client.send("body").answer().status, 200);
}

#[test]
fn a_body_that_waits_is_let_go_also_when_the_answer_comes_at_once() {
    let origin = Origin::scripted("blue", |proxy| {
        proxy.head()?;
        proxy.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        assert_eq!(proxy.bytes(4)?, b"body");
        proxy.send("2\r\nhi\r\n0\r\n\r\n")
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send(EXPECTING);
    assert_eq!((client.line(), client.line()), ("HTTP/1.1 100 Continue".into(), String::new()));
    assert_eq!(client.send("body").answer().text(), "hi");
}

#[test]
fn a_client_that_expects_need_not_wait() {
    let lab = Lab::start(&["blue"]);
    let answer = lab.client().send(format!("{EXPECTING}body")).answer();
    assert_eq!(answer.status, 200);
    assert_eq!(lab.origins[0].only().body, b"body");
}

/// An origin that says nothing before it has all of it, and a client that does not wait, with this beside the expectation.
fn is_not_waited_for(extra: &str) {
    let (tell, head_is_there) = mpsc::channel();
    let origin = Origin::scripted("blue", move |proxy| {
        proxy.head()?;
        tell.send(()).unwrap();
        assert_eq!(proxy.bytes(4)?, b"body");
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    });
    let lab = Lab::on(vec![origin], "");
    let (mut client, since) = (lab.client(), Instant::now());
    client.send(format!(
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n{extra}content-length: 4\r\n\r\n"
    ));
    head_is_there.recv_timeout(PATIENCE).unwrap();
    assert_eq!(client.send("body").answer().status, 200);
    assert!(since.elapsed() < Duration::from_secs(1), "nothing was waited for");
}

#[test]
fn a_body_that_comes_all_the_same_goes_at_once_when_the_origin_says_nothing() {
    is_not_waited_for("");
}

#[test]
fn a_body_goes_at_once_when_the_origin_is_not_told_of_the_expectation() {
    is_not_waited_for("connection: expect\r\n");
}

#[test]
fn an_expectation_of_http_1_0_is_ignored() {
    let since = Instant::now();
    let seen = seen_of("POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!((seen.body.as_slice(), seen.header("expect")), (&b"body"[..], None));
    assert!(since.elapsed() < Duration::from_secs(1), "nothing was waited for");
}

#[test]
fn the_most_specific_route_wins() {
    let names = ["any", "exact", "wild", "path", "field"];
    let origins: Vec<_> = names.iter().map(|name| Origin::start(name)).collect();
    let routes = [
        r#"path = "/""#,
        r#"host = "a.test", path = "/""#,
        r#"host = "*.a.test", path = "/""#,
        r#"host = "a.test", path = "/api""#,
        r#"host = "a.test", path = "/api", headers = { x-beta = "1" }"#,
    ];
    let services: String = std::iter::zip(&origins, routes)
        .map(|(origin, route)| {
            let Origin { name, address, .. } = origin;
            format!(
                "[services.{name}]\nroutes = [{{ {route} }}]\nstable = \"v\"\n\
                 [services.{name}.versions.v]\nendpoints = [\"{address}\"]\n"
            )
        })
        .collect();
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    let mut client = lab.client();
    for (request, to) in [
        ("GET / HTTP/1.1\r\nhost: b.test", "any"),
        ("GET / HTTP/1.1\r\nhost: A.TEST:8080", "exact"),
        ("GET /ap HTTP/1.1\r\nhost: a.test", "exact"),
        ("GET //api HTTP/1.1\r\nhost: a.test", "exact"),
        ("GET /%61pi HTTP/1.1\r\nhost: a.test", "exact"),
        ("GET /x HTTP/1.1\r\nhost: b.a.test", "wild"),
        ("GET /api?x HTTP/1.1\r\nhost: a.test", "path"),
        ("GET http://a.test/api/x HTTP/1.1\r\nhost: a.test", "path"),
        ("GET /api/x HTTP/1.1\r\nhost: a.test\r\nx-beta: 1", "field"),
        ("GET /api/x HTTP/1.1\r\nhost: a.test\r\nx-beta: 2", "path"),
        ("OPTIONS * HTTP/1.1\r\nhost: a.test", "exact"),
    ] {
        let answer = client.send(format!("{request}\r\n\r\n")).answer();
        assert_eq!(answer.version(), to, "{request:?}");
    }
}

#[test]
fn a_request_without_a_route_is_told_so_in_the_form_it_takes() {
    let origin = Origin::start("blue");
    let services = format!(
        "[proxy]\nepoch_header = true\n[services.shop]\nroutes = [{{ host = \"a.test\", path = \"/\" }}]\nstable = \"blue\"\n\
         [services.shop.versions.blue]\nendpoints = [\"{}\"]\n",
        origin.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &services);
    let mut client = lab.client();
    let answer = client.get("/");
    assert_eq!((answer.status, answer.header("switchback-reason")), (404, Some("no_route")));
    assert_eq!(answer.header("switchback-epoch"), Some("1"), "by which table nobody is there");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&problem["status"], &problem["reason"]), (&json!(404), &json!("no_route")));
    let answer = client.send("GET / HTTP/1.1\r\nhost: b\r\naccept: text/html\r\n\r\n").answer();
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.text(), "404 no service answers here\n");
    let answer = client.send("HEAD / HTTP/1.1\r\nhost: b\r\n\r\n").head_answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (404, Some("no_route")));
    assert_eq!(client.get("/").status, 404, "the connection is still good");
}

/// A refusal and its reason; the connection is closed behind it.
fn refused(mut client: Client, request: &[u8]) -> (u16, String, Answer) {
    // Refused before all of it was sent: then sending fails, and the answer is there all the same.
    let _ = client.try_send(request);
    let answer = client.answer();
    assert!(client.rest().is_empty(), "closed behind {answer:?}");
    (answer.status, answer.header("switchback-reason").unwrap_or("").to_owned(), answer)
}

#[test]
fn every_refusal_names_its_reason() {
    let lab = Lab::start(&["blue"]);
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = "x".repeat(40_000);
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_request"),
        ("nonsense\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET / HTTP/3.0\r\nhost: a\r\n\r\n".to_owned(), 505, "http_version"),
        ("GET / HTTP/3.01\r\nhost: a\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400, "bad_request"),
        ("G\u{1}T / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400, "bad_request"),
        ("CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\n\r\n".to_owned(), 405, "method_not_allowed"),
        ("POST / HTTP/1.1\r\nhost: a\r\nexpect: cake\r\n\r\n".to_owned(), 417, "expectation_failed"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431, "head_too_large"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"), 431, "head_too_large"),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414, "target_too_long"),
    ] {
        let (got, token, answer) = refused(lab.client(), request.as_bytes());
        let shown: String = request.chars().take(60).collect();
        assert_eq!((got, token.as_str()), (status, reason), "{shown:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
        assert!(answer.header("date").is_some(), "{shown:?}");
        assert_eq!(lab.origins[0].served(), 0);
    }
    let counted = lab.metric(&["switchback_client_requests_total{", "reason=\"head_too_large\""]);
    assert_eq!(counted, Some(2.0));
}

#[test]
fn a_hundred_fields_and_a_head_of_30_kib_pass() {
    let lab = Lab::start(&["blue"]);
    let many: String = (0..99).map(|n| format!("x-{n}: {}\r\n", "y".repeat(290))).collect();
    let seen = seen_by(&lab, &format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"));
    assert_eq!(seen.headers.iter().filter(|(name, _)| name.starts_with("x-") && name.len() < 5).count(), 99);
}

#[test]
fn a_flood_of_fields_is_answered_without_being_read() {
    let lab = Lab::start(&["blue"]);
    let flood = format!("GET / HTTP/1.1\r\nhost: a\r\n{}", "x: y\r\n".repeat(100_000));
    let (status, reason, _) = refused(lab.client(), flood.as_bytes());
    assert_eq!((status, reason.as_str()), (431, "head_too_large"));
}

#[test]
fn answers_carry_the_epoch_where_the_operator_wants_it() {
    let lab = Lab::with(&["blue", "green"], "[proxy]\nepoch_header = true");
    let epoch = |answer: &Answer| answer.header("switchback-epoch").unwrap().parse::<u64>().unwrap();
    let before = epoch(&lab.get("/"));
    let done = lab.flip("green");
    assert_eq!(epoch(&lab.get("/")), done["epoch"].as_u64().unwrap());
    assert!(before < done["epoch"].as_u64().unwrap());
    assert_eq!(Lab::start(&["blue"]).get("/").header("switchback-epoch"), None);
}

#[test]
fn answers_that_no_version_made_carry_the_epoch_of_the_table_that_decided_them() {
    let services = "[proxy]\nepoch_header = true\n[services.moved]\n\
                    routes = [{ host = \"moved.test\", redirect = { to = \"https://a.test/\", status = 308 } }]\n\
                    versions.v1.endpoints = [\"127.0.0.1:1\"]\n[services.full]\nroutes = [{ host = \"full.test\" }]\n\
                    versions.v1.endpoints = [\"127.0.0.1:1\"]\nlimits = { rate = \"1/h\" }\n";
    let lab = Lab::with(&["blue"], services);
    let epoch = lab.get("/").header("switchback-epoch").map(str::to_owned);
    let ask = |host: &str| lab.client().send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).answer();
    ask("full.test");
    for (host, status) in [("moved.test", 308), ("full.test", 429)] {
        let answer = ask(host);
        assert_eq!((answer.status, answer.header("switchback-epoch")), (status, epoch.as_deref()), "{host}");
    }
}

#[test]
fn an_upgrade_is_not_passed_on_and_one_that_nobody_asked_for_is_refused() {
    let seen = seen_of(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n\r\n",
    );
    assert_eq!((seen.header("upgrade"), seen.header("http2-settings")), (None, None));
    let lab = answering("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nraw");
    let answer = lab.get("/");
    assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("upstream_protocol")));
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    let requests: String = (0..40)
        .map(|n| match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"),
            _ => format!(
                "PUT /{n} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
        })
        .collect();
    client.send(requests);
    for n in 0..40 {
        let answer = client.answer();
        assert!(answer.text().contains(&format!(" /{n} ")), "{n}: {}", answer.text());
    }
}

#[test]
fn an_empty_line_between_requests_is_passed_over() {
    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    client.send("\r\nGET /1 HTTP/1.1\r\nhost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(client.answer().text().contains("/1"));
    assert!(client.answer().text().contains("/2"));
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    for byte in b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().status, 200);
    assert_eq!(lab.origins[0].only().body, b"hi");
}

#[test]
fn an_answers_head_may_come_byte_by_byte() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        proxy.head()?;
        for byte in
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
        {
            proxy.send([*byte])?;
        }
        assert!(proxy.is_closed());
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let answer = lab.get("/");
    assert_eq!((answer.status, answer.interim.len(), answer.text().as_str()), (200, 1, "hi"));
}

#[test]
fn an_interim_answer_never_announces_a_body() {
    let origin = Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\ncontent-length: 40\r\nlink: </a>\r\n\r\n")?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let lab = Lab::on(vec![origin], "");
    let answer = lab.get("/");
    assert_eq!(answer.interim, [(103, vec![("link".to_owned(), "</a>".to_owned())])]);
    assert_eq!(answer.status, 200);
}

#[test]
fn an_upload_that_waits_behind_another_request_is_served() {
    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    let first = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send(format!("{first}POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    assert_eq!(client.send("67890").answer().status, 200);
    assert_eq!(lab.origins[0].seen()[1].body, b"1234567890");
}
