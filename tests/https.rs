//! What TLS must not break, and what brings clients to it: reloads, slow clients, bodies, redirects, HSTS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and one that looks at the clock"
)]

mod lab;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::origin::Then;
use lab::tls::{Authority, Caller, Offer, Pair};
use lab::{Client, Gate, Http2, Lab, Origin, gate};

const LISTEN: &str = "127.0.0.2:0";
const SHOP: &str = "certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }]";

/// The services and one more listener, with `tls = { <settings> }` and `more` lines; `first` are lines of the lab's own.
fn services(origin: &Origin, first: &str, settings: &str, more: &str) -> String {
    format!(
        "{first}\n[[listeners]]\nlisten = \"{LISTEN}\"\ntls = {{ {settings} }}\n{more}\n\
         [services.shop]\nroutes = [{{ path = \"/\" }}]\n[services.shop.versions.blue]\nendpoints = [\"{}\"]\n",
        origin.address
    )
}

fn lab_on(origin: Origin, pair: &Pair, first: &str, settings: &str, more: &str) -> (Lab, SocketAddr) {
    let dir = tempfile::tempdir().unwrap();
    pair.write(dir.path(), "shop");
    let services = services(&origin, first, settings, more);
    let lab = Lab::configured(dir, vec![origin], &services);
    let address = lab.bound(LISTEN);
    (lab, address)
}

fn lab(pair: &Pair) -> (Lab, SocketAddr) {
    lab_on(Origin::start("blue"), pair, "", SHOP, "")
}

fn handshakes(lab: &Lab, result: &str) -> f64 {
    lab.metric(&["switchback_tls_handshakes_total", &format!("\"{result}\"")]).unwrap()
}

/// One that failed is counted a moment after its client knows.
fn wait_for_handshakes(lab: &Lab, result: &str, count: f64) {
    lab::wait_until(&format!("{count} handshakes: {result}"), || handshakes(lab, result) == count);
}

// ---- Certificates that change ----

/// Waits until `caller` is shown `expected`.
fn wait_for_certificate(caller: &Caller, at: SocketAddr, expected: &Pair) {
    lab::wait_until("the new certificate is shown", || {
        caller.connect(at, "shop.test").unwrap().certificate() == expected.der
    });
}

/// As certbot and editors do: beside it, then in its place.
fn replace(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join("beside"), text).unwrap();
    fs::rename(dir.join("beside"), dir.join(name)).unwrap();
}

/// Both files, one after the other: a reload may fall in between, which is an error until the second is there.
fn renew(lab: &mut Lab, new: &Pair) {
    lab.expected_errors.push("the configuration is not used");
    replace(lab.dir.path(), "shop.key", &new.key);
    replace(lab.dir.path(), "shop.pem", &new.cert);
}

#[test]
fn a_new_certificate_is_shown_without_a_signal_and_open_connections_live_on() {
    let authority = Authority::new("ca");
    let gate = Gate::default();
    let old = authority.issue(&["shop.test"]);
    let (mut lab, at) = lab_on(Origin::held("blue", &gate), &old, "", SHOP, "");
    let caller = Caller::trusting(&authority);
    let mut held = caller.connect(at, "shop.test").unwrap();
    held.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    let mut idle = caller.connect(at, "shop.test").unwrap();
    assert_eq!(idle.get("shop.test", "/").status, 200);

    let new = authority.issue(&["shop.test"]);
    renew(&mut lab, &new);
    wait_for_certificate(&caller, at, &new);
    gate.open();
    assert_eq!(held.answer().text(), gate::HELD);
    assert_eq!((held.certificate(), idle.certificate()), (old.der.clone(), old.der.clone()));
    assert_eq!(idle.get("shop.test", "/").status, 200);
    assert_eq!(held.get("shop.test", "/").status, 200);
}

#[test]
fn no_session_of_the_old_certificate_is_resumed_under_the_new_one() {
    let authority = Authority::new("ca");
    let (mut lab, at) = lab(&authority.issue(&["shop.test"]));
    let caller = Caller::trusting(&authority);
    for is_resumed in [false, true] {
        let mut secure = caller.connect(at, "shop.test").unwrap();
        assert_eq!((secure.get("shop.test", "/").status, secure.is_resumed()), (200, is_resumed));
    }
    // A reload that leaves the listener alone leaves its sessions alone.
    lab.proxy().signal("HUP");
    lab.proxy().wait_for_log("configuration read");
    assert!(caller.connect(at, "shop.test").unwrap().is_resumed());

    let mut held = caller.connect(at, "shop.test").unwrap();
    assert_eq!(held.get("shop.test", "/").status, 200, "it has a ticket of the old keys");
    let new = authority.issue(&["shop.test"]);
    renew(&mut lab, &new);
    wait_for_certificate(&Caller::trusting(&authority), at, &new);
    let secure = caller.connect(at, "shop.test").unwrap();
    assert!(!secure.is_resumed());
    assert_eq!(secure.certificate(), new.der);
}

#[test]
fn a_mounted_secret_that_is_swapped_by_its_link_is_taken_over() {
    let authority = Authority::new("ca");
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("secret");
    fs::create_dir(&mount).unwrap();
    let swap = |round: u32, pair: &Pair| {
        let own = mount.join(format!("..{round}"));
        fs::create_dir(&own).unwrap();
        pair.write(&own, "tls");
        symlink(format!("..{round}"), mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    swap(0, &authority.issue(&["shop.test"]));
    symlink("..data/tls.pem", mount.join("tls.pem")).unwrap();
    symlink("..data/tls.key", mount.join("tls.key")).unwrap();
    let origin = Origin::start("blue");
    let settings = "certificates = [{ cert = \"secret/tls.pem\", key = \"secret/tls.key\" }]";
    let services = services(&origin, "", settings, "");
    let lab = Lab::configured(dir, vec![origin], &services);
    let at = lab.bound(LISTEN);
    let caller = Caller::trusting(&authority);
    for round in 1..=2 {
        let new = authority.issue(&["shop.test"]);
        swap(round, &new);
        wait_for_certificate(&caller, at, &new);
    }
}

#[test]
fn a_bad_file_on_reload_changes_nothing_and_is_taken_when_it_is_mended() {
    let authority = Authority::new("ca");
    let old = authority.issue(&["shop.test"]);
    let (mut lab, at) = lab(&old);
    lab.expected_errors.push("the configuration is not used");
    let caller = Caller::trusting(&authority);
    let new = authority.issue(&["shop.test"]);
    // The certificate comes before its key.
    replace(lab.dir.path(), "shop.pem", &new.cert);
    lab.proxy().wait_for_log("the configuration is not used, everything stays as it was");
    lab.proxy().wait_for_log("shop.key is not the key of");
    assert_eq!(caller.connect(at, "shop.test").unwrap().certificate(), old.der);
    fs::remove_file(lab.dir.path().join("shop.key")).unwrap();
    lab.proxy().wait_for_log("shop.key cannot be read: No such file");
    assert_eq!(caller.get(at, "shop.test", "/").unwrap().status, 200);
    replace(lab.dir.path(), "shop.key", &new.key);
    wait_for_certificate(&caller, at, &new);
}

#[test]
fn a_listener_gets_tls_and_loses_it_without_being_closed() {
    let authority = Authority::new("ca");
    let (lab, at) = lab(&authority.issue(&["shop.test"]));
    let mut secure = Caller::trusting(&authority).connect(at, "shop.test").unwrap();
    let with = services(lab.origin("blue"), "", SHOP, "");
    lab.write_config(&with.replace(&format!("tls = {{ {SHOP} }}"), ""));
    lab::wait_until("the listener is in clear text", || Client::connect(at).try_get("/").is_ok());
    assert_eq!(secure.get("shop.test", "/").status, 200, "an open connection stays what it is");
    lab.write_config(&with);
    let caller = Caller::trusting(&authority);
    lab::wait_until("the listener has TLS again", || caller.get(at, "shop.test", "/").is_ok());
}

#[test]
fn when_a_certificate_expires_is_a_metric_and_an_expired_one_is_said() {
    let authority = Authority::new("ca");
    let old = authority.issue_with(&["shop.test"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let (mut lab, at) = lab(&old);
    lab.proxy().wait_for_log("shop.pem has expired on Fri, 01 Jan 2021 00:00:00 GMT");
    let parts = ["switchback_tls_certificate_expiry_timestamp_seconds", LISTEN, "/shop.pem\""];
    assert_eq!(lab.metric(&parts), Some(1_609_459_200.0));
    assert!(Caller::trusting(&authority).connect(at, "shop.test").is_err(), "the client's to decide");
    lab.wait_for_metric(&["switchback_tls_handshakes_total", "\"refused\""], 1.0);
    let new =
        authority.issue_with(&["shop.test"], |params| params.not_after = rcgen::date_time_ymd(2100, 1, 1));
    renew(&mut lab, &new);
    lab.wait_for_metric(&parts, 4_102_444_800.0);
}

// ---- Clients that are slow, silent or no clients at all ----

#[test]
fn a_silent_and_a_half_handshake_end_in_time() {
    let authority = Authority::new("ca");
    let settings = format!("{SHOP}, handshake_timeout = \"300ms\"");
    let pair = authority.issue(&["shop.test"]);
    let (lab, at) = lab_on(Origin::start("blue"), &pair, "", &settings, "");
    let since = Instant::now();
    let mut silent = Client::connect(at);
    let mut half = Client::connect(at);
    // The head of a record of 512 bytes, and one of them.
    half.send([22, 3, 1, 2, 0, 1]);
    assert!(silent.is_closed_within(lab::PATIENCE) && half.is_closed_within(lab::PATIENCE));
    assert!(since.elapsed() >= Duration::from_millis(300));
    lab.wait_for_metric(&["switchback_tls_handshakes_total", "\"timeout\""], 2.0);
    lab.wait_for_metric(&["switchback_client_connections "], 0.0);
    assert_eq!(Caller::trusting(&authority).get(at, "shop.test", "/").unwrap().status, 200);
}

#[test]
fn what_is_not_tls_is_refused_and_who_leaves_is_counted() {
    let authority = Authority::new("ca");
    let (lab, at) = lab(&authority.issue(&["shop.test"]));
    let mut plain = Client::connect(at);
    plain.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    // An alert: fatal (2), decode_error or the like.
    assert_eq!(plain.rest().first(), Some(&21));
    drop(Client::connect(at));
    lab.wait_for_metric(&["switchback_tls_handshakes_total", "\"closed\""], 1.0);
    wait_for_handshakes(&lab, "malformed", 1.0);
}

#[test]
fn handshakes_that_only_hold_a_place_make_room() {
    let authority = Authority::new("ca");
    let pair = authority.issue(&["shop.test"]);
    let limits = "[limits]\nhandshakes = 4";
    let settings = format!("{SHOP}, handshake_timeout = \"1h\"");
    let (lab, at) = lab_on(Origin::start("blue"), &pair, "", &settings, limits);
    // Two workers with four places each; whichever they come to, more than half have to go.
    let mut holders: Vec<_> = (0..24).map(|_| Client::connect(at)).collect();
    let caller = Caller::trusting(&authority);
    lab::wait_until("there is room", || caller.get(at, "shop.test", "/").is_ok());
    assert!(handshakes(&lab, "limit") >= 16.0, "{}", handshakes(&lab, "limit"));
    let open = holders
        .iter_mut()
        .filter_map(|holder| (!holder.is_closed_within(Duration::from_millis(50))).then_some(()));
    assert!(open.count() <= 8);
}

#[test]
fn handshakes_under_way_do_not_keep_it_from_stopping() {
    let authority = Authority::new("ca");
    let (mut lab, at) = lab(&authority.issue(&["shop.test"]));
    let mut half = Client::connect(at);
    half.send([22, 3, 1]);
    lab.wait_for_metric(&["switchback_client_connections "], 1.0);
    let since = Instant::now();
    assert!(lab.proxy.take().unwrap().stop().0.success());
    assert!(since.elapsed() < Duration::from_secs(10), "the handshake's limit is not waited for");
}

// ---- Bodies and ends ----

#[test]
fn large_bodies_go_both_ways() {
    let authority = Authority::new("ca");
    let echo = Origin::behaving("blue", |seen, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", seen.body.len())?;
        stream.write_all(&seen.body)?;
        Ok(Then::Keep)
    });
    let (_lab, at) = lab_on(echo, &authority.issue(&["shop.test"]), "", SHOP, "");
    let mut secure = Caller::trusting(&authority).connect(at, "shop.test").unwrap();
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    for _ in 0..2 {
        secure.send(format!("POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: {}\r\n\r\n", body.len()));
        assert!(secure.send(&body).answer().body == body);
    }
}

#[test]
fn an_event_comes_through_when_it_happens() {
    let authority = Authority::new("ca");
    let gate = Gate::default();
    let opened = gate.clone();
    let events = Origin::behaving("blue", move |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")?;
        opened.wait();
        write!(stream, "data: 2\n\n")?;
        Ok(Then::Close)
    });
    let (_lab, at) = lab_on(events, &authority.issue(&["shop.test"]), "", SHOP, "");
    let mut secure = Caller::trusting(&authority).connect(at, "shop.test").unwrap();
    secure.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    secure.wait_for("data: 1\n\n");
    gate.open();
    secure.wait_for("data: 2\n\n");
}

#[test]
fn an_early_hint_comes_before_the_answer() {
    let authority = Authority::new("ca");
    let gate = Gate::default();
    let opened = gate.clone();
    let hints = Origin::behaving("blue", move |_, stream| {
        write!(stream, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n")?;
        opened.wait();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let (_lab, at) = lab_on(hints, &authority.issue(&["shop.test"]), "", SHOP, "");
    let mut secure = Caller::trusting(&authority).connect(at, "shop.test").unwrap();
    secure.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    secure.wait_for("link: </a.css>");
    gate.open();
    secure.wait_for("HTTP/1.1 200 OK");
}

#[test]
fn a_connection_that_ends_says_so_and_one_that_breaks_off_does_not() {
    let authority = Authority::new("ca");
    let origin = Origin::behaving("blue", |seen, stream| {
        let length = if seen.path() == "/short" { 9 } else { 2 };
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nok")?;
        Ok(Then::Close)
    });
    let limits = "[limits]\nidle = \"300ms\"";
    let (_lab, at) = lab_on(origin, &authority.issue(&["shop.test"]), "", SHOP, limits);
    let caller = Caller::trusting(&authority);
    let mut idle = caller.connect(at, "shop.test").unwrap();
    assert_eq!(idle.get("shop.test", "/").text(), "ok");
    idle.end().expect("an idle connection ends with a word");
    let mut closed = caller.connect(at, "shop.test").unwrap();
    closed.send("GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n");
    assert_eq!(closed.answer().text(), "ok");
    closed.end().expect("so does one that the client wants closed");
    let mut short = caller.connect(at, "shop.test").unwrap();
    short.send("GET /short HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    assert!(!short.answer().is_whole);
    assert!(short.end().is_err(), "an answer that broke off is not an end");
}

#[test]
fn a_client_that_is_cut_off_in_its_body_is_gone_and_not_at_its_end() {
    let authority = Authority::new("ca");
    let (lab, at) = lab(&authority.issue(&["shop.test"]));
    let mut secure = Caller::trusting(&authority).connect(at, "shop.test").unwrap();
    secure.send("POST / HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    lab::wait_until("it is in flight", || lab.metric_sum("switchback_in_flight{") == 1.0);
    secure.cut();
    lab.wait_for_metric(&["switchback_client_requests_total", "client_gone", "blue"], 1.0);
    assert!(lab.origin("blue").seen().is_empty(), "no whole request ever came to it");
}

// ---- To TLS, and staying there ----

fn location(lab: &Lab, request: &str) -> (u16, Option<String>) {
    let answer = lab.client().send(request).answer();
    (answer.status, answer.header("location").map(str::to_owned))
}

#[test]
fn a_clear_text_listener_sends_everybody_to_https() {
    let authority = Authority::new("ca");
    let pair = authority.issue(&["shop.test"]);
    let (lab, _) = lab_on(Origin::start("blue"), &pair, "redirect_to_https = true", SHOP, "");
    let to = |location: &str| Some(location.to_owned());
    let ask = |line: &str, host: &str| location(&lab, &format!("{line} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
    assert_eq!(ask("GET /a?b=c", "shop.test"), (308, to("https://shop.test/a?b=c")));
    assert_eq!(ask("POST /", "shop.test:8080"), (308, to("https://shop.test/")));
    assert_eq!(ask("GET /", "[::1]:80"), (308, to("https://[::1]/")));
    assert_eq!(ask("OPTIONS *", "shop.test"), (308, to("https://shop.test/")));
    assert_eq!(location(&lab, "GET / HTTP/1.0\r\n\r\n").0, 400, "there is nowhere to send it");
    assert_eq!(lab.metric(&["switchback_https_redirects_total"]), Some(4.0));
    let proof = lab.get("/.well-known/acme-challenge/x");
    assert_eq!((proof.status, proof.version()), (200, "blue"));
    for way_out in ["", "../../admin", "%2e%2e/%2e%2e/admin", "..\\..\\admin", "x/y"] {
        assert_eq!(
            ask(&format!("GET /.well-known/acme-challenge/{way_out}"), "shop.test").0,
            308,
            "{way_out}"
        );
    }
    assert_eq!(lab.origin("blue").served(), 1);
}

#[test]
fn the_redirect_is_as_it_is_configured() {
    let authority = Authority::new("ca");
    let pair = authority.issue(&["shop.test"]);
    let first = "redirect_to_https = { port = 8443, status = 301, exempt_acme = false }";
    let (lab, _) = lab_on(Origin::start("blue"), &pair, first, SHOP, "");
    let acme = "GET /.well-known/acme-challenge/x HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    let expected = "https://shop.test:8443/.well-known/acme-challenge/x".to_owned();
    assert_eq!(location(&lab, acme), (301, Some(expected)));
}

#[test]
fn every_answer_of_a_tls_listener_carries_its_hsts_and_no_other_does() {
    let authority = Authority::new("ca");
    let origin = Origin::behaving("blue", |_, stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nstrict-transport-security: max-age=0\r\ncontent-length: 0\r\n\r\n"
        )?;
        Ok(Then::Keep)
    });
    let hsts = "hsts = \"max-age=600; includeSubDomains\"";
    let (lab, at) = lab_on(origin, &authority.issue(&["shop.test"]), "", SHOP, hsts);
    let policies = |headers: &[(String, String)]| {
        let policies = headers.iter().filter(|(name, _)| name == "strict-transport-security");
        policies.map(|(_, policy)| policy.clone()).collect::<Vec<_>>()
    };
    let mut secure = Caller::trusting(&authority).connect(at, "shop.test").unwrap();
    assert_eq!(policies(&secure.get("shop.test", "/").headers), ["max-age=600; includeSubDomains"]);
    secure.send("CONNECT shop.test:443 HTTP/1.1\r\nhost: shop.test:443\r\n\r\n");
    let refused = secure.answer();
    assert_eq!((refused.status, policies(&refused.headers).len()), (405, 1));
    assert_eq!(policies(&lab.get("/").headers), ["max-age=0"], "the endpoint's own, in clear text");
}

#[test]
fn every_stream_of_a_tls_listener_carries_its_hsts() {
    let authority = Authority::new("ca");
    let (origin, pair) = (Origin::start("blue"), authority.issue(&["shop.test"]));
    let (_lab, at) = lab_on(origin, &pair, "", SHOP, "hsts = \"max-age=600\"");
    let caller = Offer { alpn: &["h2"], ..Offer::to(&authority) }.caller();
    lab::http2::run(async {
        let client = Http2::secure(at, &caller, "shop.test").await;
        let request = |method, uri| http::Request::builder().method(method).uri(uri).body(()).unwrap();
        for (method, uri, status) in [("GET", "https://shop.test/", 200), ("CONNECT", "shop.test:443", 405)] {
            let answer = client.ask(request(method, uri)).await;
            let policy = answer.header("strict-transport-security");
            assert_eq!((answer.status, policy), (status, Some("max-age=600")), "{method}");
        }
    });
}

#[test]
fn the_last_bytes_reach_a_client_that_is_slow_to_read() {
    let authority = Authority::new("ca");
    // More than any socket's buffer: the proxy has to wait for room, also with the very last of it.
    let length = 8_000_000;
    let origin = Origin::behaving("blue", move |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")?;
        stream.write_all(&vec![b'x'; length])?;
        Ok(Then::Keep)
    });
    let (lab, at) = lab_on(origin, &authority.issue(&["shop.test"]), "", SHOP, "");
    let caller = Caller::trusting(&authority);
    let mut slow: Vec<_> =
        (0..1).map(|_| caller.connect_with(at, "shop.test", Some(4096)).unwrap()).collect();
    for secure in &mut slow {
        secure.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    }
    // A small window keeps most of it with the proxy until it is read.
    lab::wait_until("all are asked", || lab.origin("blue").seen().len() == 1);
    for secure in &mut slow {
        assert_eq!(secure.answer().body.len(), length);
    }
}
