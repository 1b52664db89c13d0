//! A version without traffic gets copies of requests, and users see nothing of it: neither in what they are answered nor in what is
//! decided for them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io::Write;
use std::net::SocketAddr;

use lab::origin::{Seen, Then, nobody};
use lab::websocket::{echoed, echoes};
use lab::{Gate, Lab, Origin, wait_until};
use serde_json::{Value, json};

const MIRRORED: &str = "switchback_mirrored_total{";
const DIFFERENCES: &str = "switchback_mirror_differences_total{";
const MARK: &str = "switchback-mirrored";

/// `shop` on blue, with this mirror and these settings besides, and green at these addresses.
fn text(blue: SocketAddr, green: &str, mirror: &str, settings: &str) -> String {
    format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\noutliers = false\n{mirror}\n{settings}\n\
         [services.shop.versions.blue]\nendpoints = [\"{blue}\"]\n[services.shop.versions.green]\n{green}\n"
    )
}

fn at(green: SocketAddr) -> String {
    format!("endpoints = [\"{green}\"]")
}

/// The same on these two, with these members of `mirror` besides.
fn shop(blue: Origin, green: Origin, more: &str) -> Lab {
    let mirror = format!("mirror = {{ to = \"green\"{more} }}");
    let services = text(blue.address, &at(green.address), &mirror, "");
    Lab::configured(tempfile::tempdir().unwrap(), vec![blue, green], &services)
}

fn two(more: &str) -> Lab {
    shop(Origin::start("blue"), Origin::start("green"), more)
}

/// Answers `status`, with this body.
fn says(name: &'static str, status: u16, body: &'static str) -> Origin {
    Origin::behaving(name, move |_, stream| {
        let length = body.len();
        write!(stream, "HTTP/1.1 {status} X\r\nx-version: {name}\r\ncontent-length: {length}\r\n\r\n{body}")?;
        Ok(Then::Keep)
    })
}

/// How many copies green was sent, and how many it answered otherwise.
fn counts(lab: &Lab) -> (f64, f64) {
    let of = |name: &str| lab.metric(&[name, "version=\"green\""]).unwrap();
    (of(MIRRORED), of(DIFFERENCES))
}

fn wait_copied(lab: &Lab, count: f64) {
    lab.wait_for_metric(&[MIRRORED, "version=\"green\""], count);
}

/// Green's requests that are copies, and those that are not.
fn seen(lab: &Lab) -> (Vec<Seen>, Vec<Seen>) {
    lab.origin("green").seen().into_iter().partition(|seen| seen.header(MARK).is_some())
}

#[test]
fn a_copy_is_the_request_and_its_answer_is_nobodys() {
    let lab = two(", compare = \"body\"");
    let answer = lab
        .client()
        .send("GET /a?b=c HTTP/1.1\r\nhost: shop.test\r\nx-own: 1\r\ncookie: d=e\r\n\r\n")
        .answer();
    assert_eq!((answer.status, answer.version()), (200, "blue"));
    // Their bodies have their names in them.
    wait_copied(&lab, 1.0);
    lab.wait_for_metric(&[DIFFERENCES, "version=\"green\""], 1.0);
    let (copy, user) = (lab.origin("green").only(), lab.origin("blue").only());
    assert_eq!(copy.line, user.line);
    let (marks, rest): (Vec<_>, Vec<_>) = copy.headers.into_iter().partition(|(name, _)| name == MARK);
    assert_eq!(marks, [(MARK.to_owned(), "shop".to_owned())]);
    assert_eq!(rest, user.headers);
    for (metric, part) in [
        ("switchback_upstream_requests_total{", "version=\"green\""),
        ("switchback_client_requests_total{", "version=\"green\""),
    ] {
        assert_eq!(lab.metric_total(metric, part), 0.0, "{metric}");
    }
    let shop = lab.shop();
    let mirror = &shop["mirror"];
    assert_eq!((&mirror["to"], &mirror["state"]), (&json!("green"), &json!("on")), "{mirror}");
    assert_eq!((&mirror["mirrored"], &mirror["differences"]), (&json!(1), &json!(1)), "{mirror}");
    let status = lab.cli(&["status", "shop"]).1;
    assert!(status.contains("are copied to green (1 so far, 1 answered otherwise)"), "{status}");
    assert!(status.contains("the mirror leads to green: do not stop it"), "{status}");
}

#[test]
fn series_are_there_from_0_on() {
    let lab = Lab::start(&["blue", "green"]);
    for version in ["blue", "green"] {
        let of = |name: &str| lab.metric(&[name, "service=\"shop\"", &format!("version=\"{version}\"")]);
        assert_eq!((of(MIRRORED), of(DIFFERENCES)), (Some(0.0), Some(0.0)));
    }
}

#[test]
fn only_what_is_named_is_copied_and_bodies_as_far_as_they_are_kept() {
    let lab = two(", methods = [\"POST\"], body = \"10B\"");
    let mut client = lab.client();
    assert_eq!(client.get("/get").status, 200);
    assert_eq!(client.post("/large", b"12345678901").status, 200);
    assert_eq!(client.post("/none", b"").status, 200);
    assert_eq!(client.post("/small", b"1234567890").status, 200);
    let chunked = "POST /chunked HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(client.send(chunked).answer().status, 200);
    assert_eq!(client.send(chunked.replace("2\r\nde", "8\r\ndefghijk")).answer().status, 200);
    wait_copied(&lab, 3.0);
    let mut copied: Vec<_> =
        seen(&lab).0.into_iter().map(|seen| (seen.path().to_owned(), seen.body)).collect();
    copied.sort();
    let expected = [("/chunked", &b"abcde"[..]), ("/none", b""), ("/small", b"1234567890")];
    assert_eq!(copied, expected.map(|(path, body)| (path.to_owned(), body.to_vec())));
    // Whatever comes behind them is not there.
    assert_eq!((counts(&lab), lab.origin("green").served()), ((3.0, 0.0), 3));
}

#[test]
fn a_body_that_is_still_on_its_way_when_the_answer_begins_is_not_copied() {
    let blue = Origin::answering_early("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(Then::Close)
    });
    let lab = shop(blue, Origin::start("green"), ", methods = [\"GET\", \"POST\"]");
    let mut client = lab.client();
    client.send("POST /late HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 10\r\n\r\nhalf").answer();
    lab.get("/after");
    wait_copied(&lab, 1.0);
    assert_eq!(lab.origin("green").only().path(), "/after");
}

#[test]
fn what_has_no_end_is_not_copied_nor_what_is_a_copy_of_a_trusted_hop() {
    let green = Origin::start("green");
    let mirror = "mirror = { to = \"green\", methods = [\"GET\", \"POST\"] }";
    for trusted in [true, false] {
        let proxies = if trusted { "trusted_proxies = [\"127.0.0.0/8\"]" } else { "" };
        let services = format!("{proxies}\n{}", text(echoes(), &at(green.address), mirror, ""));
        let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &services);
        let mut socket = lab::websocket::connect(lab.address(), "/socket");
        assert!(echoed(&mut socket, "hello"));
        drop(socket);
        drop(lab);
        assert_eq!(green.served(), 0, "no WebSocket");
    }
    for trusted in [true, false] {
        let proxies = if trusted { "trusted_proxies = [\"127.0.0.0/8\"]\n" } else { "" };
        let (blue, green) = (Origin::start("blue"), Origin::start("green"));
        let services = format!("{proxies}{}", text(blue.address, &at(green.address), mirror, ""));
        let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![blue, green], &services);
        let mut client = lab.client();
        for headers in ["content-type: application/grpc\r\n", "expect: 100-continue\r\ncontent-length: 0\r\n"]
        {
            client.send(format!("POST /no HTTP/1.1\r\nhost: shop.test\r\n{headers}\r\n")).answer();
        }
        client.send(format!("GET /marked HTTP/1.1\r\nhost: shop.test\r\n{MARK}: other\r\n\r\n")).answer();
        client.get("/last");
        let expected: &[&str] = if trusted { &["/last"] } else { &["/last", "/marked"] };
        wait_copied(&lab, expected.len() as f64);
        let mut paths: Vec<_> = seen(&lab).0.iter().map(|seen| seen.path().to_owned()).collect();
        paths.sort();
        assert_eq!(paths, expected);
        let marked = lab.origin("blue").seen().into_iter().find(|seen| seen.path() == "/marked").unwrap();
        let mark = if trusted { Some("other") } else { None };
        assert_eq!(marked.header(MARK), mark, "a stranger's word is taken out, a trusted hop's goes on");
    }
}

#[test]
fn a_share_of_them_is_copied_by_a_coin_of_its_own() {
    let lab = two(", share = \"20%\", concurrency = 1024");
    lab.weights(&json!({ "blue": 10_000 }));
    let mut client = lab.client();
    const REQUESTS: u32 = 2_000;
    (0..REQUESTS).for_each(|_| assert_eq!(client.get("/").version(), "blue"));
    wait_until("nothing is in flight", || {
        lab.metric_total("switchback_in_flight{", "kind=\"mirror\"") == 0.0
    });
    // 400 expected, with a deviation of 18.
    let copied = counts(&lab).0;
    assert!((310.0..490.0).contains(&copied), "{copied}");
    assert_eq!(lab.origin("blue").served(), u64::from(REQUESTS));
}

#[test]
fn what_differs_is_counted_by_what_is_compared() {
    let cases = [
        // What is compared, what green says, whether that is a difference.
        ("status", says("green", 200, "other"), 0.0),
        ("status", says("green", 500, "same"), 1.0),
        ("body", says("green", 200, "same"), 0.0),
        ("body", says("green", 200, "other"), 1.0),
        ("none", says("green", 500, "other"), 0.0),
        // It hangs up without an answer, or in the middle of one.
        ("status", Origin::behaving("green", |_, _| Ok(Then::Close)), 1.0),
        (
            "status",
            Origin::behaving("green", |_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsa")?;
                Ok(Then::Close)
            }),
            0.0,
        ),
        (
            "body",
            Origin::behaving("green", |_, stream| {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsa")?;
                Ok(Then::Close)
            }),
            1.0,
        ),
        (
            "body",
            Origin::behaving("green", |_, stream| {
                stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nsa\r\n2\r\nme\r\n0\r\n\r\n")?;
                Ok(Then::Keep)
            }),
            0.0,
        ),
    ];
    for (index, (compare, green, differences)) in cases.into_iter().enumerate() {
        let lab = shop(says("blue", 200, "same"), green, &format!(", compare = \"{compare}\""));
        assert_eq!(lab.get("/").text(), "same");
        wait_copied(&lab, 1.0);
        wait_until("it is over", || lab.metric_total("switchback_in_flight{", "kind=\"mirror\"") == 0.0);
        wait_until("it is compared", || counts(&lab) == (1.0, differences));
        assert_eq!(counts(&lab), (1.0, differences), "case {index}");
    }
}

#[test]
fn what_could_not_be_sent_is_not_counted_and_what_is_not_answered_in_time_is() {
    let blue = Origin::start("blue");
    let mirror = "mirror = { to = \"green\", timeout = \"300ms\" }";
    let services = text(blue.address, &at(nobody()), mirror, "");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![blue], &services);
    assert_eq!(lab.get("/").status, 200);
    wait_until("nothing is in flight", || {
        lab.metric_total("switchback_in_flight{", "kind=\"mirror\"") == 0.0
    });
    assert_eq!(counts(&lab), (0.0, 0.0));
    drop(lab);
    // What no version has answered is not copied.
    let green = Origin::start("green");
    let services = text(nobody(), &at(green.address), mirror, "");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![green], &services);
    assert_eq!(lab.get("/").status, 503);
    assert_eq!((counts(&lab), lab.origin("green").served()), ((0.0, 0.0), 0));
    drop(lab);
    let gate = Gate::default();
    let lab = shop(Origin::start("blue"), Origin::held("green", &gate), ", timeout = \"300ms\"");
    assert_eq!(lab.get("/late").version(), "blue");
    wait_until("it is given up", || counts(&lab) == (1.0, 1.0));
    gate.open();
}

#[test]
fn nobody_waits_for_a_copy_and_there_are_so_many_at_a_time() {
    let gate = Gate::default();
    let mut lab =
        shop(Origin::start("blue"), Origin::held("green", &gate), ", concurrency = 2, timeout = \"30s\"");
    lab.restrict_to_one_worker();
    let mut client = lab.client();
    (0..20).for_each(|_| assert_eq!(client.get("/late").version(), "blue"));
    lab.wait_for_metric(&["switchback_in_flight{", "version=\"green\"", "kind=\"mirror\""], 2.0);
    wait_until("both are there", || lab.origin("green").connections() == 2);
    gate.open();
    wait_copied(&lab, 2.0);
    client.get("/");
    wait_copied(&lab, 3.0);
    assert_eq!(lab.origin("green").served(), 3);
}

#[test]
fn a_copy_takes_no_place_of_a_users_and_turns_no_order() {
    // Both versions on the same two endpoints, worked in turn, with room for one request at each.
    let gate = Gate::default();
    let (one, two) = (Origin::held("one", &gate), Origin::held("two", &gate));
    let pool = format!("endpoints = [\"{}\", \"{}\"]", one.address, two.address);
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\noutliers = false\nbalance = \"round_robin\"\n\
         circuit = {{ endpoint_requests = 1, pending = 0 }}\nmirror = {{ to = \"green\" }}\n\
         [services.shop.versions.blue]\n{pool}\n[services.shop.versions.green]\n{pool}\n"
    );
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), vec![one, two], &services);
    lab.restrict_to_one_worker();
    let mut client = lab.client();
    let turns: Vec<_> = (0..10).map(|_| client.get("/").version().to_owned()).collect();
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
    wait_copied(&lab, 10.0);
    assert_eq!(lab.metric_total("switchback_pending_requests{", ""), 0.0);
    assert_eq!(lab.metric_total("switchback_upstream_requests_total{", "code=\"200\""), 10.0);
}

#[test]
fn over_http2_as_over_http1() {
    let blue = Origin::start("blue");
    // A second proxy that speaks HTTP/2 in front of an origin.
    let behind = Lab::start(&["green"]);
    let green = format!("endpoints = [\"{}\"]\nprotocol = \"h2c\"", behind.address());
    let mirror = "mirror = { to = \"green\", methods = [\"GET\", \"POST\"] }";
    let services = text(blue.address, &green, mirror, "");
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![blue], &services);
    let mut client = lab.client();
    client.get("/get");
    client.post("/post", b"body");
    wait_copied(&lab, 2.0);
    wait_until("both are there", || behind.origin("green").served() == 2);
    let mut seen: Vec<_> =
        behind.origin("green").seen().into_iter().map(|seen| (seen.path().to_owned(), seen.body)).collect();
    seen.sort();
    assert_eq!(seen, [("/get".to_owned(), Vec::new()), ("/post".to_owned(), b"body".to_vec())]);
    wait_until("they are over", || lab.metric_total("switchback_in_flight{", "kind=\"mirror\"") == 0.0);
    assert_eq!(counts(&lab), (2.0, 0.0));
}

#[test]
fn an_event_stream_is_compared_by_its_head() {
    let gate = Gate::default();
    let events = |name: &'static str, gate: &Gate| {
        let gate = gate.clone();
        Origin::behaving(name, move |_, stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")?;
            gate.wait();
            Ok(Then::Close)
        })
    };
    let lab = shop(events("blue", &gate), events("green", &gate), ", compare = \"body\", timeout = \"20s\"");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    assert!(client.line().starts_with("HTTP/1.1 200"));
    wait_until("it is over", || {
        counts(&lab).0 == 1.0 && lab.metric_total("switchback_in_flight{", "kind=\"mirror\"") == 0.0
    });
    assert_eq!(counts(&lab), (1.0, 0.0));
    gate.open();
}

#[test]
fn explain_says_whether_a_request_is_copied() {
    let lab = two(", share = \"5%\"");
    let explain = |request: Value| {
        let (status, told) = lab.call("POST", "/v1/explain", &request);
        assert_eq!(status, 200, "{told}");
        told["copied"].clone()
    };
    let unlisted = json!({ "connection": "upgrade", "upgrade": "h2c" });
    let marked = json!({ "switchback-mirrored": "shop" });
    for request in [
        json!({ "uri": "/" }),
        json!({ "uri": "/", "headers": unlisted }),
        json!({ "uri": "/", "headers": marked, "client": "192.0.2.1" }),
    ] {
        assert_eq!(explain(request), json!({ "to": "green", "share": 500 }));
    }
    for (request, unless) in [
        (json!({ "uri": "/", "method": "POST" }), "method"),
        (json!({ "uri": "/", "headers": { "upgrade": "websocket" } }), "upgrade"),
        (json!({ "uri": "/", "headers": { "content-type": "application/grpc+proto" } }), "grpc"),
        (json!({ "uri": "/", "headers": { "expect": "100-continue" } }), "expect"),
        (json!({ "uri": "/", "headers": { "Switchback-Mirrored": "shop" } }), "marked"),
    ] {
        assert_eq!(explain(request), json!({ "to": "green", "share": 0, "unless": unless }));
    }
    let said = lab.cli(&["explain", "/"]).1;
    assert!(said.contains("5 % of such requests are copied to green"), "{said}");
    lab.flip("green");
    assert_eq!(explain(json!({ "uri": "/" }))["unless"], "over");
}

#[test]
fn copies_leave_users_what_is_short_of_descriptors() {
    let gate = Gate::default();
    let green = Origin::held("green", &gate);
    let blue = Origin::start("blue");
    let services = text(
        blue.address,
        &at(green.address),
        "mirror = { to = \"green\", concurrency = 1024, timeout = \"30s\" }",
        "",
    );
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), vec![blue, green], &services);
    lab.proxy.take().unwrap().stop();
    let (config, socket) = (lab.config(), lab.socket());
    let few = ["prlimit", "--nofile=256:256"];
    let limited = lab::Proxy::start_as(&few, &["--workers", "1"], &config, &socket);
    lab.proxy = Some(limited.unwrap_or_else(|log| panic!("{log}")));
    let mut client = lab.client();
    (0..100).for_each(|_| assert_eq!(client.get("/late").version(), "blue"));
    wait_until("copies are there", || lab.origin("green").connections() > 0);
    let copies = || lab.metric_total("switchback_in_flight{", "kind=\"mirror\"");
    wait_until("no other comes", || copies() == lab.origin("green").connections() as f64);
    assert!((1.0..=8.0).contains(&copies()), "{}: a thirty-second of 192 descriptors", copies());
    // Clients take more than half: what is under way ends, and nothing is copied any more.
    let mut clients: Vec<_> = (0..100).map(|_| lab.client()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").version(), "blue"));
    wait_until("copies make room", || copies() == 0.0);
    let served = lab.origin("green").connections();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").version(), "blue"));
    assert_eq!((copies(), lab.origin("green").connections()), (0.0, served));
    drop(clients);
    gate.open();
    wait_until("there is room again", || {
        client.get("/");
        lab.origin("green").connections() > served
    });
}
