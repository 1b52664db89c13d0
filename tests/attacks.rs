//! Each class of attack that reverse proxies have fallen to, and what becomes of it here.
//!
//! | class | what | where |
//! |---|---|---|
//! | 1–5 | length beside coding, lengths, chunks, fields, hosts | here by name; in breadth `smuggling.rs` |
//! | 6, 7 | upgrades, CONNECT | here |
//! | 8 | injection from HTTP/2 into HTTP/1.1 | `tests/http2.rs`, `tests/http2_conformance.rs` |
//! | 9–13 | answers that nobody asked for, early answers, `Expect`, hop-by-hop fields, who is asking | here; `forwarded.rs` |
//! | 14–19 | resets, floods of frames, HPACK | `tests/http2_floods.rs` |
//! | 20, 21 | those who do not read, do not write, or hardly | here; each kind by itself in `slow.rs` |
//! | 22, 23 | bombs, paths | here |
//! | 24, 25 | TLS on either side | `tests/tls.rs`, `tests/https.rs`, `tests/upstream_tls.rs` |
//! | 26 | fields with an underscore | `forwarded.rs` |
//! | 27, 28 | the admin socket, parsers, logs, labels | here; `admin.rs`, `bad_input.rs` |
//! | 29, 30 | dependencies, memory | here, of `Cargo.lock` and `Cargo.toml` |

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
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lab::origin::{Peer, Seen, Then};
use lab::{Answer, Lab, Origin};
use serde_json::{Value, json};

/// What the client gets for each payload: refused with this status and reason, closed, and no origin hears of it.
fn refused(payloads: &[&str], status: u16, reason: &str) {
    let lab = Lab::start(&["blue"]);
    for payload in payloads {
        let mut client = lab.client();
        let _ = client.try_send(payload);
        let _ = client.try_send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.answer();
        let shown: String = payload.chars().take(200).collect();
        assert_eq!((answer.status, answer.header("switchback-reason")), (status, Some(reason)), "{shown:?}");
        assert!(client.rest().is_empty(), "{shown:?}");
    }
    assert_eq!(lab.origins[0].served(), 0);
    let reason = format!("reason=\"{reason}\"");
    assert_eq!(lab.metric_total("switchback_client_requests_total", &reason), payloads.len() as f64);
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn class_01_a_request_with_a_length_and_a_coding_is_refused() {
    let clte = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
        SMUGGLED.len() + 5
    );
    let tecl = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
        SMUGGLED.len()
    );
    let tete =
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n";
    refused(&[&clte, &tecl, tete], 400, "bad_request");
}

#[test]
fn class_02_a_length_that_wraps_or_is_signed_is_refused() {
    let of = |length: &str| format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nabc");
    let payloads = ["18446744073709551619", "+3", "0x3", "3,3", "", "4294967299x"].map(of);
    refused(&payloads.each_ref().map(String::as_str), 400, "bad_request");
}

#[test]
fn class_03_a_chunk_that_overflows_or_hides_something_is_refused() {
    let of =
        |chunks: String| format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
    let payloads = [
        of("10000000000000003\r\nabc\r\n0\r\n\r\n".to_owned()),
        of(format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000))),
        of("3\nabc\r\n0\r\n\r\n".to_owned()),
        of("3\r\nabcX\r\n0\r\n\r\n".to_owned()),
    ];
    refused(&payloads.each_ref().map(String::as_str), 400, "request_body");
}

#[test]
fn class_03_extensions_of_chunks_do_not_reach_the_origin() {
    let raw = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&raw);
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        proxy.head()?;
        while proxy.line()? != "0" {
            kept.lock().unwrap().push(proxy.line()?);
        }
        proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a=\"b\"\r\nabc\r\n0;c\r\n\r\n",
    );
    assert_eq!(client.answer().status, 200);
    assert_eq!(*raw.lock().unwrap(), ["abc"]);
}

#[test]
fn class_04_a_field_that_ends_or_begins_in_two_ways_is_refused() {
    let of = |field: &str| format!("GET / HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n");
    let payloads = ["x: a\0b", "x: a\rb", "x: a\nb", "x: a\r\n b", ": a", "x : a", "x\u{b}: a", "x"].map(of);
    refused(&payloads.each_ref().map(String::as_str), 400, "bad_request");
}

#[test]
fn class_05_a_host_that_two_readers_see_differently_is_refused() {
    let payloads = [
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: b@a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n",
    ];
    refused(&payloads, 400, "bad_request");
}

/// Heads, each with what came behind it before it was answered.
type Heads = Arc<Mutex<Vec<(Seen, Vec<u8>)>>>;

/// An origin that looks for bytes behind a request's head before it answers 403; every head it got.
fn suspicious() -> (Origin, Heads) {
    let seen = Heads::default();
    let noted = Arc::clone(&seen);
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        loop {
            let head = proxy.head()?;
            let length = head.header("content-length").map_or(0, |length| length.parse().unwrap());
            proxy.bytes(length)?;
            let early = proxy.within(Duration::from_millis(200));
            noted.lock().unwrap().push((head, early));
            proxy.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")?;
        }
    });
    (origin, seen)
}

#[test]
fn class_06_nothing_passes_behind_an_upgrade_before_the_origin_agrees() {
    let (origin, seen) = suspicious();
    let lab = Lab::on(vec![origin], "");
    let ask = |upgrade: &str| {
        format!(
            "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {upgrade}\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n{SMUGGLED}"
        )
    };
    for upgrade in ["websocket", "h2c", "websocket, h2c", "TLS/1.0"] {
        let mut client = lab.client();
        client.send(ask(upgrade));
        assert!(matches!(client.answer().status, 403 | 400), "{upgrade}");
    }
    for (head, early) in seen.lock().unwrap().iter() {
        assert!(early.is_empty(), "{head:?} was followed by {:?}", String::from_utf8_lossy(early));
        // What came behind was a request of its own, and passed the gate as one.
        assert_eq!(head.header("via"), Some("1.1 switchback"), "{head:?}");
        assert!(matches!(head.header("upgrade"), None | Some("websocket")), "{head:?}");
    }
}

#[test]
fn class_06_an_upgrade_that_is_not_a_websockets_is_not_passed_on() {
    let (origin, seen) = suspicious();
    let lab = Lab::on(vec![origin], "");
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nabc",
        "GET / HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n",
    ] {
        let mut client = lab.client();
        assert!((400..500).contains(&client.send(request).answer().status), "{request:?}");
    }
    for (head, _) in seen.lock().unwrap().iter() {
        assert_eq!((head.header("upgrade"), head.header("http2-settings")), (None, None), "{head:?}");
    }
}

#[test]
fn class_07_connect_is_refused_however_it_is_written() {
    let payloads = [
        "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n",
        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: 127.0.0.1:22\r\n\r\n",
        "CONNECT [::1]:22 HTTP/1.1\r\nhost: [::1]:22\r\n\r\n",
    ];
    refused(&payloads, 405, "method_not_allowed");
}

#[test]
fn class_09_an_answer_that_is_two_poisons_nobodys_queue() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        let path = proxy.head()?.path().to_owned();
        let mut both = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len());
        both += "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
        proxy.send(both)?;
        proxy.rest();
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let (mut first, mut second) = (lab.client(), lab.client());
    for round in 0..10 {
        assert_eq!(first.get(&format!("/a{round}")).text(), format!("/a{round}"));
        assert_eq!(second.get(&format!("/b{round}")).text(), format!("/b{round}"));
    }
}

#[test]
fn class_09_an_upgrade_that_nobody_asked_for_is_no_answer() {
    let origin = Origin::scripted("blue", |proxy: &mut Peer| {
        proxy.head()?;
        proxy
            .send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")?;
        assert_eq!(String::from_utf8_lossy(&proxy.rest()), "", "nothing is tunnelled");
        Ok(())
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n\r\n{SMUGGLED}"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("upstream_protocol")));
}

#[test]
fn class_10_what_is_left_of_a_body_behind_an_early_answer_is_no_request() {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&heads);
    // Answers at the head and then takes what comes for the next request, as origins did that fell to this.
    let origin = Origin::scripted("blue", move |proxy: &mut Peer| {
        loop {
            let line = proxy.head()?.line;
            noted.lock().unwrap().push(line);
            proxy.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly")?;
        }
    });
    let lab = Lab::on(vec![origin], "");
    let mut attacker = lab.client();
    attacker.send("POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    assert_eq!(attacker.answer().text(), "early");
    // The rest of the body comes only now.
    let _ = attacker.try_send(SMUGGLED.repeat(100));
    for _ in 0..4 {
        assert_eq!(lab.get("/victim").text(), "early");
    }
    drop(attacker);
    let heads = heads.lock().unwrap();
    let victims = heads.iter().filter(|line| **line == "GET /victim HTTP/1.1").count();
    let known = ["GET /victim HTTP/1.1", "POST /early HTTP/1.1", "GET /smuggled HTTP/1.1"];
    assert_eq!(victims, 4, "each over a connection that was clean: {heads:?}");
    assert!(heads.iter().all(|line| known.contains(&line.as_str())), "{heads:?}");
}

#[test]
fn class_11_only_one_expectation_is_known_and_it_changes_no_framing() {
    let of = |expect: &str| {
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\n{expect}\r\ncontent-length: {}\r\n\r\n{SMUGGLED}",
            SMUGGLED.len()
        )
    };
    let payloads =
        ["expect: x", "expect: 100-continue, x", "expect: 100-continue\r\nexpect: 100-continue", "expect:"]
            .map(of);
    refused(&payloads.each_ref().map(String::as_str), 417, "expectation_failed");

    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    // "0.CL": the body is there before anybody said that it may come.
    client.send(of("expect: 100-continue").replacen("POST", "GET", 1));
    assert_eq!(client.answer().status, 200);
    assert_eq!(lab.origins[0].only().body, SMUGGLED.as_bytes());
}

#[test]
fn class_12_connection_makes_no_field_vanish_that_others_rely_on() {
    let lab = Lab::with(&["blue"], "trusted_proxies = [\"127.0.0.0/8\"]");
    let protected = "host, content-length, te, transfer-encoding, forwarded, via, authorization, x-forwarded-for, \
                     x-forwarded-host, x-forwarded-proto, x-forwarded-port, x-forwarded-x, switchback-release";
    lab.client()
        .send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: {protected}, x-mine\r\nConnection: {}, x-also\r\nx-mine: 1\r\n\
             x-also: 1\r\nforwarded: for=1.1.1.1\r\nvia: 1.1 x\r\nauthorization: me\r\nx-forwarded-for: 1.1.1.1\r\n\
             x-forwarded-host: b\r\nx-forwarded-proto: https\r\nx-forwarded-port: 81\r\nswitchback-release: 7\r\n\
             content-length: 3\r\n\r\nabc",
            protected.to_uppercase()
        ))
        .answer();
    let seen = lab.origins[0].only();
    assert_eq!(seen.body, b"abc");
    for name in [
        "host",
        "content-length",
        "forwarded",
        "via",
        "authorization",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "switchback-release",
    ] {
        assert!(seen.header(name).is_some(), "{name} is gone: {seen:?}");
    }
    assert_eq!((seen.header("x-mine"), seen.header("x-also")), (None, None), "these may");
}

#[test]
fn class_13_a_stranger_does_not_say_who_is_asking() {
    let lab = Lab::start(&["blue"]);
    let fields = "x-forwarded-for: 10.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\nx-forwarded-proto: https\r\n\
                  x-forwarded-host: admin.test\r\nx-forwarded-port: 1\r\nforwarded: for=10.0.0.1;host=admin.test\r\n";
    lab.client().send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).answer();
    let seen = lab.origins[0].only();
    let said = format!("{:?}", seen.headers);
    assert!(!said.contains("10.0.0.1") && !said.contains("admin.test") && !said.contains("https"), "{said}");
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-host"), Some("a"));
}

#[test]
fn class_20_those_who_ask_much_and_read_nothing_cost_little() {
    let origin = Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")?;
        stream.write_all(&vec![b'x'; 1_000_000])?;
        Ok(Then::Keep)
    });
    let lab = Lab::on(vec![origin], "");
    let before = lab.proxy().memory();
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let client = lab.client();
            let mut sender = client.sender();
            sender.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
            // As much as is taken of 10,000 pipelined requests.
            let _ = sender.write_all("GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(10_000).as_bytes());
            client
        })
        .collect();
    let mut polite = lab.client();
    for _ in 0..20 {
        assert_eq!(polite.get("/").body.len(), 1_000_000);
    }
    let grown = lab.proxy().memory().saturating_sub(before);
    assert!(grown < 100 << 20, "{} MiB more", grown >> 20);
    drop(clients);
}

#[test]
fn class_22_what_is_compressed_passes_as_it_is() {
    // The head of a gzip and nothing that could be unpacked: nobody tries to on the way.
    let packed: Vec<u8> = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", &[0xa5; 4096][..]].concat();
    let body = packed.clone();
    let origin = Origin::behaving("blue", move |_, stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )?;
        stream.write_all(&body)?;
        Ok(Then::Keep)
    });
    let lab = Lab::on(vec![origin], "");
    let answer = lab.client().post("/", &packed);
    assert_eq!((answer.header("content-encoding"), &answer.body), (Some("gzip"), &packed));
    assert_eq!(lab.origins[0].only().body, packed);
    // Nothing that is matched can be made to take long: no expression is evaluated.
    let hard = format!("/{}!", "a".repeat(30_000));
    assert_eq!(lab.get(&hard).status, 200);
}

#[test]
fn class_23_a_path_is_routed_and_forwarded_byte_by_byte() {
    let (open, locked) = (Origin::start("open"), Origin::start("locked"));
    let service = |name: &str, path: &str, address| {
        format!(
            "[services.{name}]\nroutes = [{{ path = \"{path}\" }}]\nversions.v.endpoints = [\"{address}\"]\n"
        )
    };
    let services = service("open", "/", open.address) + &service("locked", "/locked/", locked.address);
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![open, locked], &services);
    for (path, by) in [
        ("/locked/x", "locked"),
        ("/locked/../x", "locked"),
        ("/locked/%2e%2e/x", "locked"),
        ("//locked/x", "open"),
        ("/./locked/x", "open"),
        ("/x/../locked/x", "open"),
        ("/%6cocked/x", "open"),
        ("/locked%2fx", "open"),
        ("/LOCKED/x", "open"),
        ("/locked;v=1/x", "open"),
        ("/locked\\x", "open"),
        ("/x?/locked/", "open"),
    ] {
        let answer = lab.get(path);
        assert_eq!((answer.version(), answer.status), (by, 200), "{path}");
        assert_eq!(answer.text(), format!("{by} GET {path} HTTP/1.1\n"), "as it was asked for");
    }
}

#[test]
fn class_27_the_admin_api_is_its_owners_and_not_on_the_clients_side() {
    let lab = Lab::start(&["blue", "green"]);
    assert_eq!(fs::metadata(lab.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    // Nothing is changed by what a browser can be made to send without asking: a GET.
    for path in ["/v1/services/shop/flip?to=green", "/v1/services/shop/revert", "/v1/undo?to_epoch=1"] {
        let (status, _) = lab.call("GET", path, &Value::Null);
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    assert_eq!(lab.epoch(), 1);
    for path in ["/v1/services", "/v1/status", "/metrics"] {
        assert_eq!(lab.get(path).version(), "blue", "{path} is the service's here");
    }
}

#[test]
fn class_28_what_clients_say_is_neither_logged_nor_made_a_label() {
    let lab = Lab::start(&["blue"]);
    let forged = "forged\u{1b}[31m ERROR panicked";
    let mut answers = vec![
        lab.client()
            .send("FORGED /forged?forged HTTP/1.1\r\nhost: forged\r\nuser-agent: forged\r\n\r\n")
            .answer(),
        lab.client().send(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {forged}\r\n\r\n")).answer(),
        lab.client().send("GET / HTTP/1.1\r\nhost: forged forged\r\n\r\n").answer(),
    ];
    answers.retain(|answer: &Answer| answer.status == 400);
    assert_eq!(answers.len(), 2);
    assert!(!answers.iter().any(|answer| answer.text().contains("forged")));
    assert!(!lab.proxy().log().contains("forged"), "{}", lab.proxy().log());
    let metrics = lab::admin::call(&lab.socket(), "GET", "/metrics", &[], "").unwrap().text();
    assert!(!metrics.to_lowercase().contains("forged"));
}

#[test]
fn class_28_nothing_that_is_said_to_the_admin_socket_brings_it_down() {
    let lab = Lab::start(&["blue", "green"]);
    let deep = "[".repeat(100_000);
    let wide = format!("{{\"to\":\"{}\"}}", "x".repeat(1_000_000));
    for body in [&deep, &wide, "{", "\u{0}", "{\"to\":1e999}", "{\"to\":\"\\ud800\"}", "nul"] {
        let answer = lab::admin::call(&lab.socket(), "POST", "/v1/services/shop/flip", &[], body);
        let status = answer.map_or(400, |answer| answer.status);
        assert!((400..500).contains(&status), "{status}");
    }
    assert_eq!(lab.flip("green")["epoch"], json!(2));
}

/// The version of `krate` that is built in, as numbers.
fn locked(krate: &str) -> Vec<Vec<u64>> {
    let lock: toml::Table = include_str!("../Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    let versions = packages.filter(|package| package["name"].as_str() == Some(krate));
    let numbers =
        |version: &str| version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect();
    versions.map(|package| numbers(package["version"].as_str().unwrap())).collect()
}

#[test]
fn class_29_no_dependency_is_older_than_its_last_known_hole() {
    for (krate, least) in [
        ("hyper", [1, 0, 0]),
        ("h2", [0, 4, 20]),
        ("http", [0, 1, 20]),
        ("bytes", [1, 11, 1]),
        ("tokio", [1, 44, 2]),
        ("rustls", [0, 23, 18]),
        ("rustls-webpki", [0, 103, 13]),
        ("tungstenite", [0, 20, 1]),
        ("arc-swap", [1, 1, 0]),
        ("ring", [0, 17, 12]),
        ("aws-lc-sys", [0, 39, 0]),
        ("protobuf", [3, 7, 2]),
        ("tonic", [0, 12, 3]),
    ] {
        for version in locked(krate) {
            assert!(version >= least.to_vec(), "{krate} {version:?}: at least {least:?}");
        }
    }
    assert_eq!(locked("rustls-pemfile"), Vec::<Vec<u64>>::new(), "it is not maintained");
}

#[test]
fn class_30_there_is_no_unsafe_code_to_corrupt_memory() {
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().unwrap();
    assert_eq!(manifest["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    // And what arrives in the worst shape is answered or closed, never a crash: the lab looks for panics at its end.
    let lab = Lab::start(&["blue"]);
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..300)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_le_bytes()[0]
            })
            .collect();
        let mut client = lab.client();
        let _ = client.try_send([b"GET / HTTP/1.1\r\nhost: a\r\n", &bytes[..]].concat());
        let _ = client.try_send(&bytes);
        let _ = client.sender().shutdown(std::net::Shutdown::Write);
        let _ = client.rest();
    }
    assert_eq!(lab.get("/").status, 200);
}
