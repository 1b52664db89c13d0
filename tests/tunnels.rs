//! What a service lists in `upgrades` becomes a tunnel once its endpoint says so, and not before; nothing else does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use lab::gate::Gate;
use lab::origin::{Peer, Then, nobody};
use lab::tls::{Authority, Offer, Pair};
use lab::{Client, Lab, Origin, PATIENCE};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

const LISTED: &str = "upgrades = [\"spdy/3.1\", \"tcp\"]";
const ASKS: &str = "GET /attach HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: tcp\r\n";
const YES: &str = "HTTP/1.1 101 UPGRADED\r\ncontent-type: application/vnd.docker.raw-stream\r\nconnection: Upgrade\r\n\
                   upgrade: tcp\r\n\r\n";

/// A proxy with a service that lists them, and this one endpoint.
fn in_front_of(origin: Origin, settings: &str) -> Lab {
    Lab::pool(vec![origin], &[], "", &format!("{LISTED}\n{settings}"))
}

/// An endpoint that says yes to everybody, and then does what `then` says.
fn takes(then: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Origin {
    Origin::scripted("blue", move |peer| {
        peer.head()?;
        peer.send(YES)?;
        then(peer)
    })
}

/// One that sends back what it hears.
fn echoes() -> Origin {
    takes(|peer| {
        loop {
            let byte = peer.bytes(1)?;
            peer.send(byte)?;
        }
    })
}

/// A client with a tunnel.
fn attached(lab: &Lab) -> Client {
    let mut client = lab.client();
    let answer = client.send(format!("{ASKS}\r\n")).answer();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("tcp")), "{answer:?}");
    client
}

/// How the connection ends: everything that comes, and what the end is.
fn end_of(mut stream: &TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    (bytes, end.err().map(|error| error.kind()))
}

/// Bytes that tell where they are from.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..=250).cycle().skip(seed).take(length).collect()
}

const MANY: usize = 4 << 20;

#[test]
fn bytes_pass_both_ways_at_once_and_as_they_are() {
    let origin = takes(|peer| {
        let mut sender = peer.stream().try_clone()?;
        let sending = thread::spawn(move || sender.write_all(&pattern(MANY, 1)));
        assert!(peer.bytes(MANY)? == pattern(MANY, 2), "what the endpoint hears");
        sending.join().unwrap()?;
        peer.send("heard")
    });
    let lab = in_front_of(origin, "");
    let mut client = attached(&lab);
    let mut sender = client.sender();
    let sending = thread::spawn(move || sender.write_all(&pattern(MANY, 2)));
    assert!(client.bytes(MANY) == pattern(MANY, 1), "what the client hears");
    sending.join().unwrap().unwrap();
    assert_eq!(client.bytes(5), b"heard");
}

#[test]
fn what_is_asked_for_and_answered_passes_as_it_was_said() {
    let origin = Origin::scripted("blue", |peer| {
        let seen = peer.head()?;
        let said: Vec<_> =
            ["upgrade", "connection", "x-stream"].map(|name| seen.header(name).unwrap_or("-")).into();
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nx-a: b\r\nconnection: upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
        )?;
        peer.send(format!("{} {}\n", seen.line, said.join(" ")))
    });
    let lab = in_front_of(origin, "");
    let mut client = lab.client();
    let answer = client
        .send(
            "POST /exec?x=y HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, x-hop\r\nx-hop: 1\r\nx-stream: 7\r\n\
             upgrade: h2c, Spdy/3.1\r\nupgrade: foo, TCP, websocket, tcp\r\n\r\n",
        )
        .answer();
    let fields = ["upgrade", "connection", "x-a"].map(|name| answer.header(name));
    assert_eq!((answer.status, fields), (101, [Some("SPDY/3.1"), Some("Upgrade"), Some("b")]));
    let told = String::from_utf8(client.rest()).unwrap();
    assert_eq!(told, "POST /exec?x=y HTTP/1.1 spdy/3.1, tcp Upgrade 7\n");
}

#[test]
fn what_comes_too_early_waits_for_the_yes_and_is_not_lost_on_either_side() {
    let origin = Origin::scripted("blue", |peer| {
        peer.head()?;
        assert_eq!(peer.within(Duration::from_millis(300)), b"", "before the yes");
        peer.send(format!("{YES}first words"))?;
        let heard = peer.bytes(9)?;
        peer.send(heard)
    });
    let lab = in_front_of(origin, "");
    let mut client = lab.client();
    assert_eq!(client.send(format!("{ASKS}\r\ntoo early")).answer().status, 101);
    assert_eq!(client.rest(), b"first wordstoo early");
}

#[test]
fn each_side_may_end_before_the_other() {
    let origin = takes(|peer| {
        let heard = peer.rest();
        assert_eq!(heard, b"all my input");
        peer.send("a result")
    });
    let lab = in_front_of(origin, "");
    let mut client = attached(&lab);
    client.send("all my input").finish_sending();
    assert_eq!(end_of(&client.sender()), (b"a result".to_vec(), None));

    let (told, heard) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = takes(move |peer| {
        peer.send("hello")?;
        peer.stream().shutdown(Shutdown::Write)?;
        told.lock().unwrap().send(peer.rest()).unwrap();
        Ok(())
    });
    let lab = in_front_of(origin, "");
    let mut client = attached(&lab);
    assert_eq!(client.send("one, ").bytes(5), b"hello");
    assert_eq!(end_of(&client.sender()), (Vec::new(), None));
    client.send("two").finish_sending();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"one, two");
    lab.wait_for_metric(&["switchback_in_flight{", "kind=\"tunnel\""], 0.0);
    assert_eq!(lab.metric_total("switchback_upstream_requests_total{", "code=\"101\""), 1.0);
}

#[test]
fn one_whose_client_has_ended_may_be_silent_for_as_long_as_any_and_one_whose_endpoint_has_may_not() {
    let origin = takes(|peer| {
        if peer.bytes(1)? == b"e" {
            peer.stream().shutdown(Shutdown::Write)?;
        }
        peer.rest();
        peer.send("late")
    });
    let lab = in_front_of(origin, "timeouts = { tunnel = \"400ms\" }");
    let mut client = attached(&lab);
    client.send("c").finish_sending();
    assert_eq!(end_of(&client.sender()), (b"late".to_vec(), None));
    let mut client = attached(&lab);
    // It never ends its side.
    assert_eq!(end_of(&client.send("e").sender()), (Vec::new(), None));
    lab.wait_for_metric(&["switchback_in_flight{", "kind=\"tunnel\""], 0.0);
    let counted = |what| lab.metric_total("switchback_upstream_requests_total{", what);
    assert_eq!([counted("code=\"101\""), counted("body_stalled")], [2.0, 0.0]);
}

#[test]
fn a_reset_is_one_on_the_other_side_too() {
    let reset = |stream: &TcpStream| socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::pool(vec![], &[listener.local_addr().unwrap()], "", LISTED);
    let endpoint = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        stream.write_all(YES.as_bytes()).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        reset(&stream);
    });
    let mut client = attached(&lab);
    client.send("x");
    assert_eq!(end_of(&client.sender()).1, Some(ErrorKind::ConnectionReset));
    endpoint.join().unwrap();

    let (told, ends) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = takes(move |peer| {
        peer.bytes(1)?;
        told.lock().unwrap().send(end_of(peer.stream()).1).unwrap();
        Ok(())
    });
    let lab = in_front_of(origin, "");
    let mut client = attached(&lab);
    client.send("x");
    reset(&client.sender());
    drop(client);
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), Some(ErrorKind::ConnectionReset));
}

/// An endpoint that wants none of it.
fn refuses(status: &'static str) -> Origin {
    Origin::behaving("blue", move |seen, stream| {
        let body = format!("{} {}", seen.path(), seen.header("upgrade").unwrap_or("-"));
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        Ok(Then::Keep)
    })
}

#[test]
fn an_endpoint_that_refuses_is_heard_and_both_connections_go_on() {
    let lab = in_front_of(refuses("403 Forbidden"), "");
    let mut client = lab.client();
    for _ in 0..3 {
        let answer = client.send(format!("{ASKS}\r\n")).answer();
        assert_eq!((answer.status, &*answer.text()), (403, "/attach tcp"), "{answer:?}");
        let answer = client.send("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").answer();
        assert_eq!((answer.status, &*answer.text()), (403, "/next -"));
    }
    // Who may become a tunnel has a connection of his own, which others have behind him if he does not.
    assert!(lab.origins[0].connections() <= 4, "{}", lab.origins[0].connections());
}

#[test]
fn what_is_sent_behind_a_refused_upgrade_is_a_request_like_others() {
    for status in ["426 Upgrade Required", "400 Bad Request", "200 OK"] {
        let origin = refuses(status);
        let services = format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}, {{ path = \"/internal\", answer = {{ status = 403 }} }}]\n\
             stable = \"blue\"\n{LISTED}\nversions.blue.endpoints = [\"{}\"]\n",
            origin.address
        );
        let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &services);
        let mut client = lab.client();
        // Who believes in the tunnel passes this on unseen.
        client.send(format!("{ASKS}\r\nGET /internal HTTP/1.1\r\nhost: a\r\n\r\nno head at all\r\n\r\n"));
        assert_eq!(client.answer().status.to_string(), status[..3]);
        assert_eq!((client.answer().status, client.answer().status), (403, 400), "{status}");
        let seen = lab.origins[0].seen();
        assert!(seen.iter().all(|seen| seen.path() == "/attach"), "{seen:?}");
    }
}

#[test]
fn what_is_not_listed_is_served_as_it_is() {
    let lab = in_front_of(refuses("200 OK"), "");
    let unlisted = Lab::pool(vec![refuses("200 OK")], &[], "", "");
    let websocket =
        "connection: upgrade\r\nupgrade: websocket, tcp2\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (lab, version, fields) in [
        (&unlisted, "1.1", "connection: upgrade\r\nupgrade: tcp\r\n"),
        (&lab, "1.1", "connection: upgrade\r\nupgrade: foo\r\n"),
        (&lab, "1.1", "connection: upgrade\r\nupgrade: spdy\r\n"),
        (&lab, "1.1", "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"),
        (&lab, "1.1", websocket),
        // It is no upgrade without the word, and in HTTP/1.0 (RFC 9110 §7.8).
        (&lab, "1.1", "upgrade: tcp\r\n"),
        (&lab, "1.1", "connection: close\r\nupgrade: tcp\r\n"),
        (&lab, "1.0", "connection: upgrade\r\nupgrade: tcp\r\n"),
    ] {
        let answer = lab.client().send(format!("GET / HTTP/{version}\r\nhost: a\r\n{fields}\r\n")).answer();
        assert_eq!((answer.status, &*answer.text()), (200, "/ -"), "{fields}");
    }
}

#[test]
fn a_change_to_what_was_not_asked_for_is_refused() {
    for (fields, asks) in [
        ("upgrade: foo\r\nconnection: upgrade\r\n", ASKS),
        // Listed, and not asked for.
        ("upgrade: spdy/3.1\r\nconnection: upgrade\r\n", ASKS),
        ("upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n", ASKS),
        ("upgrade: tcp\r\nupgrade: websocket\r\nconnection: upgrade\r\n", ASKS),
        ("upgrade: tcp\r\nupgrade: tcp\r\nconnection: upgrade\r\n", ASKS),
        ("upgrade: tcp, foo\r\nconnection: upgrade\r\n", ASKS),
        ("upgrade: tcp\r\n", ASKS),
        ("connection: upgrade\r\n", ASKS),
        // Asked for by nobody whom that was passed on for.
        ("upgrade: tcp\r\nconnection: upgrade\r\n", "GET / HTTP/1.1\r\nhost: a\r\n"),
        (
            "upgrade: foo\r\nconnection: upgrade\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo\r\n",
        ),
    ] {
        let origin = Origin::behaving("blue", move |_, stream| {
            write!(stream, "HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n")?;
            Ok(Then::Close)
        });
        let lab = in_front_of(origin, "");
        let answer = lab.client().send(format!("{asks}\r\n")).answer();
        let reason = answer.header("switchback-reason");
        assert_eq!((answer.status, reason), (502, Some("upstream_protocol")), "{fields} {asks}");
    }
}

#[test]
fn a_requests_body_comes_before_the_tunnel() {
    let origin = Origin::scripted("blue", |peer| {
        let seen = peer.head()?;
        let mut body = Vec::new();
        match seen.header("content-length") {
            Some(length) => body = peer.bytes(length.parse().unwrap())?,
            None => {
                assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
                loop {
                    let size = usize::from_str_radix(&peer.line()?, 16).unwrap();
                    body.extend(peer.bytes(size)?);
                    peer.line()?;
                    if size == 0 {
                        break;
                    }
                }
            }
        }
        peer.send(YES)?;
        peer.send(format!("{}:", body.len()))?;
        let heard = peer.bytes(5)?;
        peer.send(heard)
    });
    let lab = in_front_of(origin, "");
    let head = ASKS.replace("GET /attach", "POST /exec/7/start");
    let large = "x".repeat(300_000);
    for (body, length) in [
        ("content-length: 16\r\n\r\n{\"Detach\":false}".to_owned(), 16),
        (format!("content-length: 300000\r\n\r\n{large}"), 300_000),
        ("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_owned(), 5),
    ] {
        let mut client = lab.client();
        assert_eq!(client.send(format!("{head}{body}input")).answer().status, 101);
        assert_eq!(String::from_utf8(client.rest()).unwrap(), format!("{length}:input"));
    }
}

#[test]
fn a_yes_before_the_body_is_all_there_is_told_behind_it() {
    let (gate, told) = (Gate::default(), Gate::default());
    let (opens, is_told) = (gate.clone(), told.clone());
    let origin = Origin::scripted("blue", move |peer| {
        peer.head()?;
        peer.bytes(3)?;
        peer.send(format!("{YES}early"))?;
        opens.open();
        assert_eq!(peer.bytes(7)?, b"defrest");
        is_told.wait();
        peer.send("late")
    });
    let lab = in_front_of(origin, "");
    let mut client = lab.client();
    client.send(format!("{ASKS}content-length: 6\r\n\r\nabc"));
    gate.wait();
    // Nothing is said before the request is whole.
    let mut sender = client.sender();
    sender.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(sender.read(&mut [0]).is_err());
    sender.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send("defrest");
    assert_eq!(client.answer().status, 101);
    assert_eq!(client.bytes(5), b"early");
    told.open();
    assert_eq!(client.rest(), b"late");
}

#[test]
fn a_tunnel_counts_until_it_ends_survives_a_flip_and_is_cut_at_the_deadline() {
    let green = Origin::start("green");
    let (told, ends) = mpsc::channel();
    let told = Mutex::new(told);
    let blue = takes(move |peer| {
        let heard = peer.bytes(5)?;
        peer.send(heard)?;
        told.lock().unwrap().send(end_of(peer.stream())).unwrap();
        Ok(())
    });
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{LISTED}\n\
         drain = {{ patience = \"100ms\", spread = \"100ms\", deadline = \"2s\" }}\n\
         versions.blue.endpoints = [\"{}\"]\nversions.green.endpoints = [\"{}\"]\n",
        blue.address, green.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![blue, green], &services);
    let mut client = attached(&lab);
    lab.wait_for_metric(&["switchback_in_flight{", "version=\"blue\"", "kind=\"tunnel\""], 1.0);
    let mut events = lab.events();
    let since = Instant::now();
    lab.flip("green");
    assert_eq!(client.send("after").bytes(5), b"after");
    let drain = lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null).1;
    assert_eq!(drain["drained"], false);
    assert_eq!(
        (&drain["remaining"][0]["kind"], &drain["remaining"][0]["count"]),
        (&json!("tunnel"), &json!(1))
    );
    // In the middle of anything: an end, and no reset.
    assert_eq!(end_of(&client.sender()), (Vec::new(), None));
    assert!(since.elapsed() >= Duration::from_millis(1900), "{:?}", since.elapsed());
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), (Vec::new(), None));
    events.drained("blue");
    let cut = ["switchback_upstream_requests_total{", "version=\"blue\"", "reason=\"drain_deadline\""];
    assert_eq!(lab.metric(&cut), Some(1.0));
}

#[test]
fn one_that_is_silent_for_too_long_is_ended_on_both_sides() {
    let (told, ends) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = takes(move |peer| {
        told.lock().unwrap().send(end_of(peer.stream())).unwrap();
        Ok(())
    });
    let lab = in_front_of(origin, "timeouts = { tunnel = \"300ms\" }");
    let client = attached(&lab);
    assert_eq!(end_of(&client.sender()), (Vec::new(), None));
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), (Vec::new(), None));
    // Nobody has failed.
    let counted = |what| lab.metric_total("switchback_upstream_requests_total{", what);
    assert_eq!([counted("code=\"101\""), counted("body_stalled")], [1.0, 0.0]);
}

#[test]
fn a_shutdown_ends_tunnels_at_its_deadline() {
    let origin = echoes();
    let services = format!(
        "[shutdown]\ndeadline = \"500ms\"\n[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{LISTED}\n\
         versions.blue.endpoints = [\"{}\"]\n",
        origin.address
    );
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &services);
    let mut client = attached(&lab);
    lab.proxy().signal("TERM");
    assert_eq!(client.send("still").bytes(5), b"still");
    assert_eq!(end_of(&client.sender()), (Vec::new(), None));
    let (status, log) = lab.proxy.take().unwrap().wait();
    assert!(status.success(), "{log}");
}

#[test]
fn what_may_have_been_sent_is_not_sent_again_and_what_was_not_is() {
    let leaves = || {
        Origin::scripted("blue", |peer| {
            peer.head()?;
            Ok(())
        })
    };
    let lab = Lab::pool(
        vec![leaves(), leaves()],
        &[],
        "",
        &format!("{LISTED}\nretries = {{ attempts = 3, statuses = [503] }}"),
    );
    let answer = lab.client().send(format!("{ASKS}\r\n")).answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("upstream_closed")));
    let made: u64 = lab.origins.iter().map(Origin::connections).sum();
    assert_eq!(made, 1);

    let lab = Lab::pool(vec![echoes()], &[nobody()], "", LISTED);
    for _ in 0..4 {
        assert_eq!(attached(&lab).send("x").bytes(1), b"x");
    }

    // A connection that was kept may be closed by now, which would be found out too late.
    let origin = Origin::scripted("blue", |peer| {
        let seen = peer.head()?;
        if seen.header("upgrade").is_some() {
            return peer.send(YES);
        }
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        peer.head().map(|_| ())
    });
    let lab = in_front_of(origin, "");
    for _ in 0..3 {
        assert_eq!(lab.get("/").status, 200);
        attached(&lab);
    }
}

#[test]
fn neither_the_shield_nor_a_hedge_is_for_tunnels() {
    let slow = Origin::scripted("green", |peer| {
        let seen = peer.head()?;
        peer.within(Duration::from_millis(200));
        let status = if seen.header("upgrade").is_some() { "503 No" } else { "500 No" };
        peer.send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"))
    });
    let blue = Origin::start("blue");
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nweights = {{ blue = 50, green = 50 }}\nstable = \"blue\"\nshield = true\n\
         hedge = {{ after = \"20ms\", max = 1 }}\nrules = [{{ headers = {{ x-beta = true }}, to = \"green\" }}]\n{LISTED}\n\
         versions.blue.endpoints = [\"{}\"]\nversions.green.endpoints = [\"{}\"]\n",
        blue.address, slow.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![blue, slow], &services);
    let answer = lab.client().send(format!("{ASKS}x-beta: 1\r\n\r\n")).answer();
    assert_eq!(answer.status, 503);
    assert_eq!((lab.origin("green").connections(), lab.origin("blue").served()), (1, 0));
    // Without the upgrade it is covered for.
    assert_eq!(lab.client().send("GET / HTTP/1.1\r\nhost: a\r\nx-beta: 1\r\n\r\n").answer().status, 200);
    let explain =
        |headers: Value| lab.call("POST", "/v1/explain", &json!({ "uri": "/", "headers": headers })).1;
    let explained = explain(json!({ "x-beta": "1", "connection": "Upgrade", "upgrade": "foo, TCP" }));
    assert_eq!((&explained["upgrades"], &explained["shielded_by"]), (&json!(["tcp"]), &Value::Null));
    let explained = explain(json!({ "x-beta": "1", "upgrade": "tcp" }));
    assert_eq!((&explained["upgrades"], &explained["shielded_by"]), (&Value::Null, &json!("blue")));
    assert_eq!(lab.shop()["upgrades"], json!(["spdy/3.1", "tcp"]));
}

#[test]
fn a_client_that_leaves_before_the_yes_is_gone_for_the_endpoint_too() {
    let (told, ends) = mpsc::channel();
    let told = Mutex::new(told);
    let origin = Origin::scripted("blue", move |peer| {
        peer.head()?;
        told.lock().unwrap().send(peer.is_closed()).unwrap();
        Ok(())
    });
    let lab = in_front_of(origin, "");
    let mut client = lab.client();
    client.send(format!("{ASKS}\r\n"));
    while lab.origins[0].connections() == 0 {
        thread::yield_now();
    }
    drop(client);
    assert!(ends.recv_timeout(PATIENCE).unwrap());
}

/// An endpoint over TLS that says yes, hears all there is, and answers then.
fn secure(pair: &Pair) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![pair.der.clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, config) = (listener.local_addr().unwrap(), Arc::new(config));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            stream.write_all(YES.as_bytes()).unwrap();
            let mut heard = Vec::new();
            // With the word for an end, or this is an error.
            stream.read_to_end(&mut heard).unwrap();
            stream.write_all(format!("{} heard", heard.len()).as_bytes()).unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        }
    });
    address
}

#[test]
fn over_tls_on_both_sides_each_may_end_before_the_other() {
    let (authority, dir) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    authority.issue(&["shop.test"]).write(dir.path(), "shop");
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    let services = format!(
        "[[listeners]]\nlisten = \"127.0.0.2:0\"\ntls = {{ certificates = [{{ cert = \"shop.pem\", key = \"shop.key\" }}] }}\n\
         [services.shop]\nroutes = [{{ path = \"/\" }}]\n{LISTED}\n[services.shop.versions.blue]\n\
         endpoints = [\"{}\"]\nprotocol = \"https\"\ntls = {{ ca = \"ca.pem\", server_name = \"end.test\" }}\n",
        secure(&authority.issue(&["end.test"]))
    );
    let lab = Lab::configured(dir, vec![], &services);
    let mut caller = Offer::to(&authority).caller().connect(lab.bound("127.0.0.2:0"), "shop.test").unwrap();
    let answer = caller.send(ASKS.replace("host: a", "host: shop.test") + "\r\n").answer();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("tcp")), "{answer:?}");
    let mut stream = caller.into_stream();
    stream.write_all(&pattern(MANY, 3)).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert_eq!(told, format!("{MANY} heard"));
}

#[test]
fn to_a_version_of_http_2_the_request_goes_as_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!((request.method(), request.headers().get("upgrade")), (&http::Method::GET, None));
                drop(respond.send_response(http::Response::new(()), true));
            }
        });
    });
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\n{LISTED}\n[services.shop.versions.blue]\n\
         endpoints = [\"{address}\"]\nprotocol = \"h2c\"\n"
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![], &services);
    assert_eq!(lab.client().send(format!("{ASKS}\r\n")).answer().status, 200);
}

#[test]
fn an_endpoint_that_is_done_is_heard_to_the_end_whatever_its_client_still_says() {
    let origin = takes(|peer| {
        peer.bytes(1)?;
        peer.send(pattern(1 << 20, 5))?;
        peer.stream().shutdown(Shutdown::Write)?;
        // Unread bytes make what comes now a reset, which would take back what was not heard yet.
        peer.bytes(4 << 20).map(drop)
    });
    let lab = in_front_of(origin, "");
    let mut client = attached(&lab);
    let mut sender = client.sender();
    let talking = thread::spawn(move || while sender.write_all(&[7; 1024]).is_ok() {});
    assert!(client.bytes(1 << 20) == pattern(1 << 20, 5));
    assert_eq!(end_of(&client.sender()), (Vec::new(), None));
    lab.wait_for_metric(&["switchback_in_flight{", "kind=\"tunnel\""], 0.0);
    client.sender().shutdown(Shutdown::Both).unwrap();
    talking.join().unwrap();
}
