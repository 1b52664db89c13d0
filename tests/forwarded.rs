//! Who is asking: what strangers say about it is replaced, what trusted proxies say is kept, and origins are told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use lab::origin::Seen;
use lab::{Answer, Lab, PATIENCE};

/// What the origin sees of a request with these fields.
fn seen_of(lab: &Lab, fields: &str) -> Seen {
    let before = lab.origins[0].seen().len();
    let answer = lab.client().send(format!("GET / HTTP/1.1\r\nhost: a.test:81\r\n{fields}\r\n")).answer();
    assert_eq!(answer.status, 200, "{fields:?}");
    lab.origins[0].seen().swap_remove(before)
}

fn values<'f>(seen: &'f Seen, name: &str) -> Vec<&'f str> {
    seen.headers.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str()).collect()
}

const SAID: &str = "x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: b.test\r\n\
                    x-forwarded-port: 443\r\nx-forwarded-user: root\r\nx-forwarded-prefix: /p\r\nx-real-ip: 6.6.6.6\r\n\
                    forwarded: for=6.6.6.6;proto=https\r\n";

#[test]
fn nothing_of_a_strangers_word_reaches_the_origin() {
    let lab = Lab::with(&["blue"], "trusted_proxies = [\"10.0.0.0/8\", \"::ffff:11.0.0.0/104\"]");
    let seen = seen_of(&lab, SAID);
    let port = lab.address().port().to_string();
    assert_eq!(values(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&seen, "x-forwarded-host"), ["a.test:81"]);
    assert_eq!(values(&seen, "x-forwarded-port"), [port.as_str()]);
    for name in ["forwarded", "x-forwarded-user", "x-forwarded-prefix", "x-real-ip"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[test]
fn a_trusted_proxys_word_is_kept() {
    let lab = Lab::with(&["blue"], "trusted_proxies = [\"::ffff:127.0.0.0/104\"]");
    let seen = seen_of(&lab, SAID);
    assert_eq!(values(&seen, "x-forwarded-for"), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(values(&seen, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&seen, "x-forwarded-host"), ["b.test"]);
    assert_eq!(values(&seen, "x-forwarded-port"), ["443"]);
    assert_eq!(values(&seen, "x-forwarded-user"), ["root"]);
    assert_eq!(values(&seen, "x-real-ip"), ["6.6.6.6"]);
    assert_eq!(values(&seen, "forwarded"), ["for=6.6.6.6;proto=https"]);
}

#[test]
fn forwarded_is_sent_where_the_operator_wants_it() {
    let lab = Lab::with(&["blue"], "[proxy]\nforwarded = true");
    let seen = seen_of(&lab, SAID);
    assert_eq!(values(&seen, "forwarded"), ["for=127.0.0.1;host=\"a.test:81\";proto=http"]);
    let lab = Lab::with(&["blue"], "trusted_proxies = [\"127.0.0.1\"]\n[proxy]\nforwarded = true");
    let seen = seen_of(&lab, SAID);
    let own = "for=127.0.0.1;host=\"a.test:81\";proto=http";
    assert_eq!(values(&seen, "forwarded"), ["for=6.6.6.6;proto=https", own]);
}

#[test]
fn class_26_a_field_with_an_underscore_reaches_nobody() {
    let fields =
        "x_forwarded_for: 6.6.6.6\r\nX_Forwarded_For: 7.7.7.7\r\nx_y: 1\r\nx-y: 2\r\ncontent_length: 5\r\n";
    let seen = seen_of(&Lab::start(&["blue"]), fields);
    assert!(!seen.headers.iter().any(|(name, _)| name.contains('_')), "{seen:?}");
    assert_eq!(seen.header("x-y"), Some("2"));

    let seen = seen_of(&Lab::with(&["blue"], "[proxy]\nunderscores_in_headers = \"allow\""), fields);
    assert_eq!(values(&seen, "x_forwarded_for"), ["6.6.6.6", "7.7.7.7"]);

    let lab = Lab::with(&["blue"], "[proxy]\nunderscores_in_headers = \"reject\"");
    let answer = lab.client().send("GET / HTTP/1.1\r\nhost: a\r\nx_y: 1\r\n\r\n").answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (400, Some("bad_request")));
    assert_eq!(lab.get("/").status, 200);
}

#[test]
fn class_26_trailers_are_fields_too() {
    let request =
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx_y: 1\r\nx-y: 2\r\n\r\n";
    let lab = Lab::start(&["blue"]);
    assert_eq!(lab.client().send(request).answer().status, 200);
    assert_eq!(lab.origins[0].only().trailers, [("x-y".to_owned(), "2".to_owned())]);
}

#[test]
fn a_field_that_is_dropped_leads_nowhere_either() {
    let origin = lab::Origin::start("blue");
    let services = format!(
        "[services.shop]\nroutes = [{{ headers = {{ x_beta = \"1\" }} }}]\nversions.blue.endpoints = [\"{}\"]",
        origin.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &services);
    assert_eq!(lab.client().send("GET / HTTP/1.1\r\nhost: a\r\nx_beta: 1\r\n\r\n").answer().status, 404);
}

/// A lab with a further listener that expects a PROXY header, and where that listens.
fn introduced(listen: &str, more: &str) -> (Lab, String) {
    let lab = Lab::with(
        &["blue"],
        &format!(
            "[[listeners]]\nlisten = \"{listen}\"\nproxy_protocol = true\n{more}\n[limits]\nhead = \"300ms\""
        ),
    );
    let (_, status) = lab.call("GET", "/v1/status", &serde_json::Value::Null);
    let listeners = status["listeners"].as_array().unwrap();
    let bound = listeners.iter().find(|one| one["bound"] != lab.address().to_string()).unwrap();
    let bound = bound["bound"].as_str().unwrap().to_owned();
    (lab, bound)
}

const TRUSTED: &str = "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]";

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\nconnection: close\r\n\r\n";

/// All that comes back for `parts`, sent one by one.
fn exchange(mut stream: impl Read + Write, parts: &[&[u8]]) -> Vec<u8> {
    for part in parts {
        // It may be closed by now.
        let _ = stream.write_all(part);
        let _ = stream.flush();
    }
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn connect(bound: &str) -> TcpStream {
    let stream = TcpStream::connect(bound.parse::<SocketAddr>().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn v2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, kind][..], &length, rest].concat()
}

#[test]
fn the_client_is_whom_a_proxy_header_names() {
    let (lab, bound) = introduced("127.0.0.2:0", TRUSTED);
    let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x67, 1, 187];
    let v6: Vec<u8> = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]; 2].concat();
    let v6 = [&v6[..], &[0, 1, 31, 144]].concat();
    let with_vectors = [&v4[..], &[3, 0, 4, 1, 2, 3, 4], &[0x20, 0, 200], &[7; 200]].concat();
    for (header, client, port) in [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n".to_vec(), "192.0.2.1", "443"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 8080\r\n".to_vec(), "2001:db8::1", "8080"),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 443\r\n".to_vec(), "192.0.2.1", "443"),
        (v2(0x21, 0x11, &v4), "192.0.2.1", "443"),
        (v2(0x21, 0x21, &v6), "2001:db8::1", "8080"),
        (v2(0x21, 0x11, &with_vectors), "192.0.2.1", "443"),
    ] {
        // With the request behind it in one packet, and in drips.
        let (first, second) = header.split_at(header.len() / 2);
        for parts in [&[&header[..], GET][..], &[first, second, GET]] {
            let before = lab.origins[0].seen().len();
            let answer = Answer::of(&exchange(connect(&bound), parts)).expect("an answer");
            assert_eq!(answer.status, 200);
            let seen = lab.origins[0].seen().swap_remove(before);
            assert_eq!(values(&seen, "x-forwarded-for"), [client], "a stranger's word is no more than that");
            assert_eq!(values(&seen, "x-forwarded-port"), [port]);
        }
    }
}

#[test]
fn a_proxy_header_that_names_a_trusted_proxy_makes_its_word_believed() {
    let (lab, bound) = introduced("127.0.0.2:0", TRUSTED);
    exchange(connect(&bound), &[b"PROXY TCP4 10.1.2.3 198.51.100.2 1 443\r\n", GET]);
    assert_eq!(values(&lab.origins[0].only(), "x-forwarded-for"), ["6.6.6.6, 10.1.2.3"]);
}

#[test]
fn a_proxy_that_names_nobody_is_itself_or_nobody() {
    let (lab, bound) = introduced("127.0.0.2:0", TRUSTED);
    for (header, client) in [
        // It looks whether we are alive: a trusted proxy like others.
        (v2(0x20, 0x00, &[]), vec!["6.6.6.6, 127.0.0.1"]),
        (v2(0x21, 0x00, &[]), vec![]),
        (v2(0x21, 0x31, &[0; 216]), vec![]),
        (b"PROXY UNKNOWN\r\n".to_vec(), vec![]),
    ] {
        let before = lab.origins[0].seen().len();
        let answer = Answer::of(&exchange(connect(&bound), &[&header, GET])).expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(values(&lab.origins[0].seen()[before], "x-forwarded-for"), client, "{header:?}");
    }
}

#[test]
fn who_does_not_introduce_himself_is_closed_and_counted() {
    let (lab, bound) = introduced("127.0.0.2:0", TRUSTED);
    let long = [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat();
    let payloads: [&[u8]; 6] = [
        b"",
        b"PROXY TCP4 1.1",
        b"PROXY TCP4 a b 1 2\r\n",
        &long,
        &v2(0x21, 0x11, &[0; 5000]),
        &v2(0x21, 0x11, &[0; 4]),
    ];
    for payload in payloads {
        let got = exchange(connect(&bound), &[payload]);
        assert!(got.is_empty(), "{:?} to {payload:?}", String::from_utf8_lossy(&got));
    }
    assert!(exchange(connect(&bound), &[GET]).is_empty());
    assert_eq!(lab.metric_total("switchback_client_requests_total", "reason=\"proxy_protocol\""), 7.0);
    assert_eq!(lab.origins[0].served(), 0);
}

#[test]
fn a_stranger_introduces_nobody() {
    let (lab, bound) = introduced("127.0.0.2:0", "trusted_proxies = [\"10.0.0.0/8\"]");
    let got = exchange(connect(&bound), &[b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", GET]);
    assert!(got.is_empty(), "{:?}", String::from_utf8_lossy(&got));
    assert_eq!(lab.metric_total("switchback_client_requests_total", "reason=\"proxy_protocol\""), 1.0);
    assert_eq!(lab.origins[0].served(), 0);
}

#[test]
fn a_proxy_header_comes_over_a_unix_socket_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let (lab, _) = introduced(&format!("unix:{}", path.display()), "");
    let stream = UnixStream::connect(&path).unwrap();
    exchange(stream, &[b"PROXY TCP4 192.0.2.1 198.51.", b"100.2 1 443\r\n", GET]);
    assert_eq!(values(&lab.origins[0].only(), "x-forwarded-for"), ["192.0.2.1"]);
    exchange(UnixStream::connect(&path).unwrap(), &[&v2(0x20, 0x00, &[]), GET]);
    assert_eq!(values(&lab.origins[0].seen()[1], "x-forwarded-for"), ["6.6.6.6"], "its peers are trusted");
}

#[test]
fn a_listener_on_any_ipv6_address_takes_ipv4_too() {
    let lab =
        Lab::with(&["blue"], "[[listeners]]\nlisten = \"[::]:0\"\ntrusted_proxies = [\"::ffff:127.0.0.1\"]");
    let (_, status) = lab.call("GET", "/v1/status", &serde_json::Value::Null);
    let listeners = status["listeners"].as_array().unwrap();
    let port = listeners
        .iter()
        .map(|one| one["bound"].as_str().unwrap().parse::<SocketAddr>().unwrap())
        .find(SocketAddr::is_ipv6)
        .unwrap()
        .port();
    for (host, client) in [("127.0.0.1", "6.6.6.6, 127.0.0.1"), ("[::1]", "::1")] {
        let before = lab.origins[0].seen().len();
        exchange(connect(&format!("{host}:{port}")), &[GET]);
        assert_eq!(values(&lab.origins[0].seen()[before], "x-forwarded-for"), [client], "in IPv4's own form");
    }
}

/// An origin that tells the first line of each connection, and answers.
fn tells_first_lines() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let mut rest = String::new();
            while rest != "\r\n" {
                rest.clear();
                reader.read_line(&mut rest).unwrap();
            }
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").unwrap();
            tell.send(line).unwrap();
        }
    });
    (address, lines)
}

#[test]
fn an_endpoint_is_told_whose_each_connection_is() {
    let (address, lines) = tells_first_lines();
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\n\
         versions.blue = {{ endpoints = [\"{address}\"], proxy_protocol = \"v1\" }}\n"
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![], &services);
    for _ in 0..2 {
        let stream = TcpStream::connect(lab.address()).unwrap();
        let (from, to) = (stream.local_addr().unwrap(), lab.address());
        let answer = exchange(stream, &[b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"]);
        assert!(answer.ends_with(b"hi"), "{}", String::from_utf8_lossy(&answer));
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), to.port());
        assert_eq!(lines.recv().unwrap(), line, "every request has a connection of its own");
    }
}
