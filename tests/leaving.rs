//! What lasts on a version that is left ends in its own words, evenly and untorn; nothing else moves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response};
use lab::http2::{Http2, request, run};
use lab::websocket::{SPEAK, connect, echoed, echoes, speaks};
use lab::{Client, Lab, Origin, PATIENCE};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, accept};

/// An endpoint that streams `event`s as long as it is heard, in parts of `part` bytes.
fn events(event: &'static str, part: usize, pause: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || stream_events(stream, event, part, pause));
        }
    });
    address
}

fn stream_events(mut stream: TcpStream, event: &str, part: usize, pause: Duration) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    loop {
        for piece in event.as_bytes().chunks(part) {
            write!(stream, "{:x}\r\n", piece.len())?;
            stream.write_all(piece)?;
            stream.write_all(b"\r\n")?;
            thread::sleep(pause);
        }
    }
}

/// An endpoint of HTTP/2: message after message of 100 bytes for a gRPC call, event after event for others, each cut in
/// two, for ever.
fn messages() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_messages(stream));
            }
        });
    });
    address
}

async fn serve_messages(stream: tokio::net::TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (kind, message) = match request.method() {
            &Method::POST => ("application/grpc", [&[0, 0, 0, 0, 100][..], &[7; 100]].concat()),
            _ => ("text/event-stream", EVENT.as_bytes().to_vec()),
        };
        let head = Response::builder().header("content-type", kind).body(()).unwrap();
        let mut send = respond.send_response(head, false).unwrap();
        tokio::spawn(async move {
            loop {
                let (first, second) = message.split_at(message.len() / 3);
                for part in [first, second] {
                    if send.send_data(Bytes::copy_from_slice(part), false).is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            }
        });
    }
}

const EVENT: &str = "data: one\ndata: two\n\n";

/// `shop` with blue at `blue` and green at `green`, and `cart`, which is `other`'s, untouched.
fn lab(drain: &str, protocol: &str, blue: SocketAddr, green: SocketAddr) -> Lab {
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\ndrain = {drain}\n\
         versions.blue = {{ endpoints = [\"{blue}\"], protocol = \"{protocol}\" }}\n\
         versions.green = {{ endpoints = [\"{green}\"], protocol = \"{protocol}\" }}\n\
         [services.cart]\nroutes = [{{ path = \"/cart\" }}]\nstable = \"blue\"\ndrain = {drain}\n\
         versions.blue = {{ endpoints = [\"{blue}\"], protocol = \"{protocol}\" }}\n\
         versions.green = {{ endpoints = [\"{green}\"], protocol = \"{protocol}\" }}\n"
    );
    Lab::configured(tempfile::tempdir().unwrap(), vec![], &services)
}

/// Reads to the end, which has to be a Close with this code, answered, and then the end of the connection.
fn ends_with(socket: &mut WebSocket<TcpStream>, code: CloseCode) {
    loop {
        match socket.read() {
            Ok(Message::Close(Some(close))) => assert_eq!(close.code, code),
            Ok(Message::Text(_) | Message::Binary(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(Error::ConnectionClosed) => return,
            Err(error) => panic!("not a clean end: {error}"),
        }
    }
}

fn drain(lab: &Lab, version: &str) -> Value {
    lab.call("GET", &format!("/v1/services/shop/versions/{version}/drain"), &Value::Null).1
}

const SOON: &str = "{ patience = \"100ms\", spread = \"0s\", deadline = \"20s\", retry = \"50ms\" }";

#[test]
fn a_websocket_is_told_to_come_again_and_both_sides_close() {
    let lab = lab(SOON, "http1", echoes(), echoes());
    let mut sockets: Vec<_> = (0..4).map(|_| connect(lab.address(), "/chat")).collect();
    sockets.iter_mut().for_each(|socket| assert!(echoed(socket, "before")));
    let mut events = lab.events();
    lab.flip("green");
    sockets.iter_mut().for_each(|socket| ends_with(socket, CloseCode::Restart));
    events.drained("blue");
    assert_eq!(drain(&lab, "blue")["drained"], true);
    let dismissed =
        ["switchback_drain_dismissed_total{", "\"shop\"", "version=\"blue\"", "kind=\"websocket\""];
    assert_eq!(lab.metric(&dismissed), Some(4.0));
    assert!(echoed(&mut connect(lab.address(), "/chat"), "again"));
}

#[test]
fn a_message_that_is_on_its_way_is_not_torn() {
    // The endpoint sends fragments of a message for a while, and its end when the test says so.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, may_end) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let end = Arc::clone(&may_end);
    let endpoint = thread::spawn(move || {
        let mut socket = accept(listener.accept().unwrap().0).unwrap();
        let stream = socket.get_mut();
        stream.write_all(&[0x01, 2, b'a', b'b']).unwrap();
        while !end.load(Ordering::SeqCst) {
            // A header, and the payload a little later; a ping between fragments.
            stream.write_all(&[0x00, 3]).unwrap();
            thread::sleep(Duration::from_millis(20));
            stream.write_all(b"cde\x89\x00").unwrap();
        }
        stream.write_all(&[0x80, 1, b'z', 0x81, 9]).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    });
    let lab = lab(SOON, "http1", address, echoes());
    let mut socket = connect(lab.address(), "/chat");
    lab.flip("green");
    thread::sleep(Duration::from_millis(500));
    may_end.store(true, Ordering::SeqCst);
    let text = loop {
        match socket.read().unwrap() {
            Message::Ping(_) => {}
            Message::Text(text) => break text,
            other => panic!("{other:?}"),
        }
    };
    assert!(text.starts_with("abcde") && text.ends_with("ez"), "{text}");
    ends_with(&mut socket, CloseCode::Restart);
    let rest = endpoint.join().unwrap();
    let mut frames = &rest[..];
    while frames[0] != 0x88 {
        // Pongs, short and masked.
        frames = &frames[6 + usize::from(frames[1] & 0x7f)..];
    }
    assert_eq!(frames[1] & 0x80, 0x80, "the client's Close has come to the endpoint, masked");
}

#[test]
fn one_whose_turn_comes_within_a_message_is_closed_behind_it_and_once_only() {
    let (last, restart, theirs) =
        (&b"\x80\x01z"[..], &b"\x88\x11\x03\xf4service restart"[..], b"\x88\x02\x03\xe8");
    for (said, heard) in [
        (last.to_vec(), [last, restart].concat()),
        // Its endpoint begins the next one.
        ([last, b"\x81\x02o"].concat(), [last, restart].concat()),
        // Its endpoint closes by itself.
        ([last, theirs].concat(), [last, theirs].concat()),
        ([last, theirs, b"?"].concat(), [last, theirs, b"?"].concat()),
    ] {
        let (address, say) = speaks();
        let drain = "{ patience = \"1s\", spread = \"0s\", deadline = \"10m\" }";
        let mut lab = lab(drain, "http1", address, echoes());
        lab.restrict_to_one_worker();
        let (mut socket, mut other) = (connect(lab.address(), "/chat"), connect(lab.address(), "/chat"));
        socket.send(Message::text(SPEAK)).unwrap();
        let stream = socket.get_mut();
        say.send(b"\x01\x01a".to_vec()).unwrap();
        assert_eq!(bytes(stream, 3), b"\x01\x01a");
        lab.flip("green");
        // Both are told in the same moment.
        ends_with(&mut other, CloseCode::Restart);
        say.send(said).unwrap();
        assert_eq!(bytes(stream, heard.len()), heard);
        drop(say);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "nothing more");
    }
}

fn bytes(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_client_that_does_not_answer_is_closed_and_its_endpoint_told_in_its_place() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = thread::spawn(move || {
        let mut socket = accept(listener.accept().unwrap().0).unwrap();
        loop {
            match socket.read() {
                Ok(Message::Close(close)) => return close.unwrap().code,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    let drain = "{ patience = \"0s\", spread = \"0s\", deadline = \"1s\" }";
    let lab = lab(drain, "http1", address, echoes());
    let mut socket = connect(lab.address(), "/chat");
    lab.flip("green");
    let mut bytes = Vec::new();
    socket.get_mut().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes[..4], [0x88, 17, 3, 0xf4]);
    assert_eq!(endpoint.join().unwrap(), CloseCode::Away);
}

#[test]
fn a_client_that_closes_by_itself_hears_no_other_close_than_its_endpoints() {
    // Its endpoint answers, or does not, and keeps the connection open.
    for said in [&b"\x88\x02\x03\xe8"[..], b""] {
        let (address, say) = speaks();
        let times = "{ patience = \"500ms\", spread = \"0s\", deadline = \"2s\" }";
        let mut lab = lab(times, "http1", address, echoes());
        lab.restrict_to_one_worker();
        let (mut socket, mut other) = (connect(lab.address(), "/chat"), connect(lab.address(), "/chat"));
        socket.send(Message::text(SPEAK)).unwrap();
        socket.close(None).unwrap();
        lab.flip("green");
        // Both are told in the same moment.
        ends_with(&mut other, CloseCode::Restart);
        say.send(said.to_vec()).unwrap();
        let mut heard = Vec::new();
        socket.get_mut().read_to_end(&mut heard).unwrap();
        assert_eq!(heard, said);
        lab::wait_until("it is drained", || drain(&lab, "blue")["drained"] == true);
        let counted = |what| lab.metric_total("switchback_upstream_requests_total{", what);
        assert_eq!([counted("code=\"101\""), counted("drain_deadline")], [2.0, 0.0]);
    }
}

/// A connection that closes while its client talks is reset, with all that is on its way to it.
#[test]
fn a_client_that_is_behind_and_talks_gets_all_that_was_sent_and_its_close() {
    let drain = "{ patience = \"0s\", spread = \"0s\", deadline = \"300ms\" }";
    let lab = lab(drain, "http1", echoes(), echoes());
    let mut socket = connect(lab.address(), "/chat");
    assert!(echoed(&mut socket, "hello"));
    lab.flip("green");
    let since = Instant::now();
    // Nobody waits for its answer as long.
    while since.elapsed() < Duration::from_secs(4) {
        socket.send(Message::text("still reading")).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    ends_with(&mut socket, CloseCode::Restart);
}

#[test]
fn when_the_process_ends_what_lasts_on_every_version_is_told_to_go() {
    let patient = "{ patience = \"5m\", spread = \"1m\", deadline = \"1h\" }";
    let mut lab = lab(patient, "http1", echoes(), echoes());
    let mut sockets = ["/chat", "/cart/chat", "/chat"].map(|path| connect(lab.address(), path));
    sockets.iter_mut().for_each(|socket| assert!(echoed(socket, "before")));
    lab.proxy().signal("TERM");
    sockets.iter_mut().for_each(|socket| ends_with(socket, CloseCode::Restart));
    let (status, log) = lab.proxy.take().unwrap().wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("is cut"), "{log}");
}

fn subscribe(lab: &Lab) -> Client {
    let mut client = lab.client();
    client.send("GET /events HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    client
}

#[test]
fn an_event_stream_ends_after_a_whole_event_and_its_connection_goes_on() {
    for (event, part) in [
        ("data: one\ndata: two\n\n", 5),
        ("id: 7\r\ndata: x\r\n\r\n", 3),
        ("data: y\r\r", 100),
        (":\n", 100),
        (": ping\r\n", 3),
    ] {
        let address = events(event, part, Duration::from_millis(2));
        let lab = lab(SOON, "http1", address, address);
        let mut clients: Vec<_> = (0..4).map(|_| subscribe(&lab)).collect();
        lab::wait_until("all are there", || {
            lab.metric(&["switchback_in_flight{", "service=\"shop\"", "version=\"blue\"", "kind=\"sse\""])
                == Some(4.0)
        });
        lab.flip("green");
        for client in &mut clients {
            let answer = client.answer();
            assert!(answer.is_whole, "the last chunk has come");
            let text = answer.text();
            let text = text.strip_suffix("retry: 50\n\n").expect("when to come again");
            assert!(!text.is_empty() && text.len().is_multiple_of(event.len()), "{text:?}");
            assert!(text.as_bytes().chunks(event.len()).all(|chunk| chunk == event.as_bytes()), "{text:?}");
        }
        // Over the same connection.
        clients[0].send("GET /none HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        drop(clients);
        lab.wait_for_metric(&["switchback_in_flight{", "version=\"green\"", "kind=\"sse\""], 0.0);
    }
}

#[test]
fn a_grpc_stream_ends_after_a_whole_message_as_unavailable() {
    let lab = lab(SOON, "h2c", messages(), messages());
    run(async {
        let client = Http2::to(lab.address()).await;
        let mut call = request(Method::POST, "/chat.Rooms/Listen");
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        call.headers_mut().insert("te", "trailers".parse().unwrap());
        let (response, _send) = client.start(call, false).await;
        let response = response.await.unwrap();
        let mut body = response.into_body();
        let first = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(first.len()).unwrap();
        let mut total = first.len();
        // In another thread: this one keeps the connection running.
        let flip = tokio::task::spawn_blocking({
            let socket = lab.socket();
            move || {
                lab::admin::call(&socket, "POST", "/v1/services/shop/flip", &[], r#"{"to":"green"}"#).unwrap()
            }
        });
        while let Some(data) = body.data().await {
            let data = data.expect("not torn");
            body.flow_control().release_capacity(data.len()).unwrap();
            total += data.len();
        }
        let trailers = body.trailers().await.unwrap().expect("trailers");
        assert_eq!(trailers["grpc-status"], "14");
        assert!(trailers.contains_key("grpc-message"));
        assert_eq!(total % 105, 0, "whole messages");
        assert_eq!(flip.await.unwrap().status, 200);
    });
    lab.wait_for_metric(
        &["switchback_drain_dismissed_total{", "\"shop\"", "version=\"blue\"", "kind=\"grpc\""],
        1.0,
    );
}

#[test]
fn an_event_stream_over_http2_ends_after_a_whole_event_too() {
    let lab = lab(SOON, "h2c", messages(), messages());
    let whole = |text: &str| {
        let text = text.strip_suffix("retry: 50\n\n").expect("when to come again");
        assert!(!text.is_empty() && text.replace(EVENT, "").is_empty(), "{text:?}");
    };
    let mut old = subscribe(&lab);
    run(async {
        let client = Http2::to(lab.address()).await;
        let (response, _send) = client.start(request(Method::GET, "/events"), true).await;
        let mut body = response.await.unwrap().into_body();
        let mut seen = body.data().await.unwrap().unwrap().to_vec();
        let flip = tokio::task::spawn_blocking({
            let socket = lab.socket();
            move || {
                lab::admin::call(&socket, "POST", "/v1/services/shop/flip", &[], r#"{"to":"green"}"#).unwrap()
            }
        });
        while let Some(data) = body.data().await {
            let data = data.expect("not torn");
            body.flow_control().release_capacity(data.len()).unwrap();
            seen.extend_from_slice(&data);
        }
        assert!(body.is_end_stream(), "a clean end");
        whole(std::str::from_utf8(&seen).unwrap());
        assert_eq!(flip.await.unwrap().status, 200);
    });
    let answer = old.answer();
    assert!(answer.is_whole, "the last chunk has come");
    whole(&answer.text());
}

#[test]
fn what_has_no_words_is_cut_at_the_deadline_and_an_ordinary_request_before_it_is_not() {
    let gate = lab::Gate::default();
    let origins = vec![Origin::held("blue", &gate), Origin::start("green")];
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
         drain = {{ patience = \"0s\", spread = \"0s\", deadline = \"1s\" }}\n\
         versions.blue.endpoints = [\"{}\"]\nversions.green.endpoints = [\"{}\"]\n",
        origins[0].address, origins[1].address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), origins, &services);
    let mut client = lab.client();
    client.send("GET /held HTTP/1.1\r\nhost: shop.test\r\n\r\n");
    lab.origin("blue").wait_served(1);
    let mut events = lab.events();
    lab.flip("green");
    let drained = events.drained("blue");
    assert!(drained["seconds"].as_f64().unwrap() >= 1.0, "{drained}");
    let answer = client.answer();
    assert!(!answer.is_whole, "{answer:?}");
    let cut = ["switchback_upstream_requests_total{", "version=\"blue\"", "reason=\"drain_deadline\""];
    assert_eq!(lab.metric(&cut), Some(1.0));
    gate.open();
}

#[test]
fn a_revert_spares_all_that_have_not_gone() {
    let drain = "{ patience = \"200ms\", spread = \"20s\", deadline = \"1m\" }";
    let lab = lab(drain, "http1", echoes(), echoes());
    let mut sockets: Vec<_> = (0..40).map(|_| connect(lab.address(), "/chat")).collect();
    sockets.iter_mut().for_each(|socket| assert!(echoed(socket, "before")));
    lab.flip("green");
    // Two a second: that some are told is seen by their Closes.
    let mut told = 0;
    lab::wait_until("some are told", || {
        for socket in &mut sockets {
            socket.get_mut().set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            told += usize::from(matches!(socket.read(), Ok(Message::Close(_))));
        }
        told >= 3
    });
    assert_eq!(lab.call("POST", "/v1/services/shop/revert", &Value::Null).0, 200);
    let mut left = 0u32;
    for socket in &mut sockets {
        socket.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.send(Message::text("still there?"));
        match socket.read() {
            Ok(Message::Text(_)) => left += 1,
            Ok(Message::Close(Some(close))) => assert_eq!(close.code, CloseCode::Restart),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((10..40).contains(&left), "{left}");
    let dismissed = || lab.metric_total("switchback_drain_dismissed_total{", "kind=\"websocket\"");
    lab::wait_until("those that were told are gone", || dismissed() == f64::from(40 - left));
    thread::sleep(Duration::from_secs(2));
    assert_eq!(dismissed(), f64::from(40 - left), "nobody after the revert");
    assert_eq!(drain_count(&lab), u64::from(left));
    sockets
        .iter_mut()
        .filter(|socket| socket.can_write())
        .for_each(|socket| assert!(echoed(socket, "after")));
}

#[test]
fn a_revert_spares_also_one_whose_time_had_come_in_the_middle_of_a_message() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, may_end) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let end = Arc::clone(&may_end);
    let endpoint = thread::spawn(move || {
        let mut socket = accept(listener.accept().unwrap().0).unwrap();
        // The first fragment of a message, and the last when the test says so; then it echoes.
        socket.get_mut().write_all(&[0x01, 2, b'a', b'b']).unwrap();
        lab::wait_until("the test has reverted", || end.load(Ordering::SeqCst));
        socket.get_mut().write_all(&[0x80, 1, b'z']).unwrap();
        while let Ok(message) = socket.read() {
            if message.is_text() {
                socket.send(message).unwrap();
            }
        }
    });
    let lab = lab(SOON, "http1", address, echoes());
    let mut socket = connect(lab.address(), "/chat");
    lab.flip("green");
    // Its time comes after 100 ms, and nobody outside can see that it has.
    thread::sleep(Duration::from_millis(600));
    assert_eq!(lab.call("POST", "/v1/services/shop/revert", &Value::Null).0, 200);
    may_end.store(true, Ordering::SeqCst);
    assert_eq!(socket.read().unwrap(), Message::text("abz"));
    assert!(echoed(&mut socket, "still here"));
    drop(socket);
    endpoint.join().unwrap();
}

fn drain_count(lab: &Lab) -> u64 {
    let left = drain(lab, "blue");
    left["remaining"].as_array().unwrap().iter().map(|left| left["count"].as_u64().unwrap()).sum()
}

#[test]
fn they_are_told_evenly_over_the_spread() {
    let drain = "{ patience = \"1s\", spread = \"4s\", deadline = \"1m\" }";
    let lab = lab(drain, "http1", echoes(), echoes());
    let sockets: Vec<_> = (0..80).map(|_| connect(lab.address(), "/chat")).collect();
    lab.flip("green");
    let start = Instant::now();
    let mut ends: Vec<_> = thread::scope(|scope| {
        let reading = sockets.into_iter().map(|mut socket| {
            scope.spawn(move || {
                ends_with(&mut socket, CloseCode::Restart);
                start.elapsed().as_secs_f64()
            })
        });
        let reading: Vec<_> = reading.collect();
        reading.into_iter().map(|end| end.join().unwrap()).collect()
    });
    ends.sort_by(f64::total_cmp);
    assert!(ends[0] > 0.9, "not before their time: {}", ends[0]);
    // Of an even row each stands where its number says: a fifth of the spread on either side is for a loaded machine.
    for (index, end) in ends.iter().enumerate() {
        let even = 1.0 + 4.0 * (index as f64 + 0.5) / 80.0;
        assert!((end - even).abs() < 0.8, "number {index} at {end:.2}, not {even:.2}: {ends:.2?}");
    }
}

#[test]
fn nothing_unrelated_moves() {
    let lab = lab("{ patience = \"0s\", spread = \"0s\", deadline = \"1s\" }", "http1", echoes(), echoes());
    let mut sockets: Vec<_> = (0..50).map(|_| connect(lab.address(), "/cart/chat")).collect();
    for round in 0..8 {
        lab.flip(if round % 2 == 0 { "green" } else { "blue" });
        for (index, socket) in sockets.iter_mut().enumerate() {
            assert!(echoed(socket, &format!("{round}/{index}")));
        }
        if round == 4 {
            lab.proxy().signal("HUP");
        }
    }
    let in_flight = ["switchback_in_flight{", "service=\"cart\"", "version=\"blue\"", "kind=\"websocket\""];
    assert_eq!(lab.metric(&in_flight), Some(50.0));
    assert_eq!(lab.metric_total("switchback_drain_dismissed_total{", "websocket"), 0.0);
}

/// `shop` goes to green and comes back to blue, and nothing is left on either.
fn there_and_back(lab: &Lab) {
    let mut events = lab.events();
    for (to, from) in [("green", "blue"), ("blue", "green")] {
        lab.flip(to);
        events.drained(from);
    }
}

#[test]
fn a_version_that_is_left_again_is_seen_out_again() {
    let mut lab = lab(SOON, "http1", echoes(), echoes());
    lab.restrict_to_one_worker();
    // Something is left on blue when it is left for the first time: its worker sees that it has gone.
    drop(connect(lab.address(), "/chat"));
    there_and_back(&lab);
    let mut socket = connect(lab.address(), "/chat");
    assert!(echoed(&mut socket, "before"));
    lab.flip("green");
    ends_with(&mut socket, CloseCode::Restart);
}

#[test]
fn a_version_that_is_back_is_not_seen_out_for_having_been_left() {
    let mut lab = lab("{ patience = \"0s\", spread = \"0s\" }", "http1", echoes(), echoes());
    lab.restrict_to_one_worker();
    there_and_back(&lab);
    let mut stays = connect(lab.address(), "/chat");
    let mut goes = connect(lab.address(), "/cart/chat");
    assert!(echoed(&mut stays, "before") && echoed(&mut goes, "before"));
    assert_eq!(lab.call("POST", "/v1/services/cart/flip", &json!({ "to": "green" })).0, 200);
    // Whoever is told to go is told in the same moment.
    ends_with(&mut goes, CloseCode::Restart);
    assert!(echoed(&mut stays, "after"));
}

#[test]
fn a_version_that_comes_back_at_once_has_its_connections_still() {
    let mut lab = Lab::start(&["blue", "green"]);
    lab.restrict_to_one_worker();
    let mut client = lab.client();
    loop {
        assert_eq!(client.get("/").version(), "blue");
        let (before, since) = (lab.origin("blue").connections(), Instant::now());
        lab.flip("green");
        assert_eq!(client.get("/").version(), "green");
        lab.flip("blue");
        assert_eq!(client.get("/").version(), "blue");
        let after = lab.origin("blue").connections();
        // On a machine that is busy with other things it may not have been at once.
        if since.elapsed() < Duration::from_millis(900) {
            return assert_eq!(after, before);
        }
    }
}

#[test]
fn idle_connections_to_a_version_that_is_left_are_closed_soon() {
    let closed = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&closed);
    let blue = Origin::scripted("blue", move |peer| {
        while peer.head().is_ok() {
            peer.send("HTTP/1.1 200 OK\r\nx-version: blue\r\ncontent-length: 0\r\n\r\n")?;
        }
        tell.store(true, Ordering::SeqCst);
        Ok(())
    });
    let lab = Lab::on(vec![blue, Origin::start("green")], "");
    let mut client = lab.client();
    assert_eq!(client.get("/").version(), "blue");
    assert!(!closed.load(Ordering::SeqCst));
    lab.flip("green");
    // Of its own age it would be closed in a minute.
    lab::wait_until("the idle connection is closed", || closed.load(Ordering::SeqCst));
    assert_eq!(client.get("/").version(), "green", "over the client's same connection");
}
