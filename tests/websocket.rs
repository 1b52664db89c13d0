//! WebSockets pass over HTTP/1.1 and HTTP/2, count until they end, and are the only change of protocol that is served unasked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lab::origin::Then;
use lab::websocket::{SPEAK, echoed, echoes, speaks};
use lab::{Lab, Origin, PATIENCE};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept};

fn echoing() -> Lab {
    Lab::pool(vec![], &[echoes()], "", "")
}

fn connect(lab: &Lab) -> WebSocket<TcpStream> {
    lab::websocket::connect(lab.address(), "/chat?x=y")
}

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn messages_pass_both_ways_and_a_close_ends_both_sides() {
    let lab = echoing();
    let mut socket = connect(&lab);
    assert!(echoed(&mut socket, "hello"));
    let large = Message::binary(vec![7; 1 << 20]);
    socket.send(large.clone()).unwrap();
    assert!(socket.read().unwrap() == large, "a megabyte");
    socket.close(None).unwrap();
    assert!(matches!(socket.read().unwrap(), Message::Close(_)), "the endpoint's own");
    assert_eq!(socket.get_mut().read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_websocket_counts_until_it_ends_and_survives_a_flip() {
    let address = echoes();
    let green = Origin::start("green");
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
         versions.blue.endpoints = [\"{address}\"]\nversions.green.endpoints = [\"{}\"]\n",
        green.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![green], &services);
    let mut socket = connect(&lab);
    assert!(echoed(&mut socket, "before"));
    let mut events = lab.events();
    lab.flip("green");
    assert!(echoed(&mut socket, "after"));
    let drain = |lab: &Lab| lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null).1;
    let drained = drain(&lab);
    assert_eq!(drained["drained"], false);
    assert_eq!(drained["remaining"][0]["kind"], "websocket");
    assert_eq!(drained["remaining"][0]["count"], 1);
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    events.drained("blue");
    assert_eq!(drain(&lab)["remaining"], json!([]));
}

#[test]
fn what_a_client_sends_too_early_waits_for_the_endpoints_yes() {
    let lab = echoing();
    let mut stream = TcpStream::connect(lab.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A masked text frame, "Hello" (RFC 6455 §5.7), in the same write as the handshake.
    let frame = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    stream.write_all(&[HANDSHAKE.as_bytes(), b"\r\n", &frame].concat()).unwrap();
    let mut answer = Vec::new();
    let echo = [0x81, 0x05, b'H', b'e', b'l', b'l', b'o'];
    while !answer.ends_with(&echo) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{:?}", String::from_utf8_lossy(&answer));
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
}

#[test]
fn an_endpoint_that_does_not_want_a_websocket_is_heard_and_the_connection_goes_on() {
    let lab = Lab::start(&["blue"]);
    let mut client = lab.client();
    // What follows the handshake is the next request, and no frame.
    client.send(format!("{HANDSHAKE}\r\nGET /next HTTP/1.1\r\nhost: a\r\n\r\n"));
    assert_eq!((client.answer().status, client.answer().status), (200, 200));
    let seen = lab.origins[0].seen();
    assert_eq!(seen[0].header("upgrade"), Some("websocket"));
    assert_eq!((seen[1].path(), seen[1].header("upgrade")), ("/next", None));
}

#[test]
fn the_protocol_that_an_endpoint_requires_is_told_to_whom_it_can_be() {
    let required = "HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                    sec-websocket-version: 13\r\ncontent-length: 0\r\n\r\n";
    let origin = Origin::behaving("blue", |_, stream| {
        stream.write_all(required.as_bytes())?;
        Ok(Then::Keep)
    });
    let lab = Lab::on(vec![origin], "");
    let mut client = lab.client();
    for request in ["GET / HTTP/1.1\r\nhost: a\r\n", &HANDSHAKE.replace("version: 13", "version: 8")] {
        let answer = client.send(format!("{request}\r\n")).answer();
        assert_eq!(
            (answer.status, answer.header("upgrade"), answer.header("connection")),
            (426, Some("websocket"), Some("upgrade")),
            "{answer:?}"
        );
    }
    // There is no such field in HTTP/2 (RFC 9113 §8.2.2).
    assert_eq!(lab::frames::Frames::to(lab.address()).ask(1, "/"), 426);
}

#[test]
fn what_is_not_a_websocket_is_served_as_it_is() {
    let lab = Lab::start(&["blue"]);
    for fields in [
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "connection: upgrade\r\nupgrade: websocket, h2c\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\n",
        "upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "connection: upgrade\r\nupgrade: foo\r\n",
    ] {
        let answer = lab.client().send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).answer();
        assert_eq!(answer.status, 200, "{fields}");
        let seen = lab.origins[0].seen();
        assert_eq!(seen.last().unwrap().header("upgrade"), None, "{fields}");
    }
}

#[test]
fn a_change_that_was_not_asked_for_is_refused() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\
         sec-websocket-accept: y\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n",
    ] {
        let origin = Origin::behaving("blue", move |_, stream| {
            stream.write_all(answer.as_bytes())?;
            Ok(Then::Close)
        });
        let lab = Lab::on(vec![origin], "");
        let answer = lab.client().send(format!("{HANDSHAKE}\r\n")).answer();
        assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("upstream_protocol")));
    }
}

#[test]
fn a_client_that_leaves_is_gone_for_the_endpoint_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::pool(vec![], &[listener.local_addr().unwrap()], "", "");
    let socket = thread::scope(|scope| {
        let endpoint = scope.spawn(|| accept(listener.accept().unwrap().0).unwrap());
        drop(connect(&lab));
        endpoint.join().unwrap()
    });
    let mut stream = socket.into_inner();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_websocket_that_is_silent_for_too_long_is_ended() {
    let lab = Lab::pool(vec![], &[echoes()], "", "timeouts = { tunnel = \"300ms\" }");
    let mut socket = connect(&lab);
    assert!(echoed(&mut socket, "hello"));
    assert!(socket.read().is_err());
    lab.wait_for_metric(&["switchback_in_flight{", "kind=\"websocket\""], 0.0);
    // Nobody has failed.
    let counted = |what| lab.metric_total("switchback_upstream_requests_total{", what);
    assert_eq!([counted("code=\"101\""), counted("body_stalled")], [1.0, 0.0]);
}

#[test]
fn one_that_is_silent_is_kept_no_longer_because_its_client_has_left() {
    let (mute, _words) = speaks();
    let lab = Lab::pool(vec![], &[mute], "", "timeouts = { tunnel = \"300ms\" }");
    let mut socket = connect(&lab);
    assert!(echoed(&mut socket, "hello"));
    socket.send(Message::text(SPEAK)).unwrap();
    let since = Instant::now();
    drop(socket);
    lab.wait_for_metric(&["switchback_in_flight{", "kind=\"websocket\""], 0.0);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_websocket_passes_over_http_2() {
    let lab = echoing();
    let stream = tokio::net::TcpStream::connect(lab.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::task::spawn(connection);
    let mut client = client.ready().await.unwrap();
    while !client.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let request = http::Request::builder().method("CONNECT").uri(format!("http://{}/chat", lab.address()));
    let request = request.extension(h2::ext::Protocol::from("websocket")).body(()).unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(
        (response.status(), response.headers().get("sec-websocket-accept")),
        (200.try_into().unwrap(), None)
    );
    let mut body = response.into_body();
    let mut made = WebSocket::from_raw_socket(Pipe::default(), Role::Client, None);
    made.send(Message::text("hello")).unwrap();
    send.send_data(Bytes::from(std::mem::take(&mut made.get_mut().0)), false).unwrap();
    let echo = body.data().await.unwrap().unwrap();
    assert_eq!(&echo[..], b"\x81\x05hello");
    body.flow_control().release_capacity(echo.len()).unwrap();
    send.send_data(Bytes::new(), true).unwrap();
    while let Some(rest) = body.data().await {
        assert!(rest.unwrap().is_empty(), "the endpoint follows");
    }
    drop((client, send, body));
    connection.await.unwrap().unwrap();
}

/// Takes what a WebSocket writes.
#[derive(Default)]
struct Pipe(Vec<u8>);

impl Read for Pipe {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::WouldBlock.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_connect_for_anything_else_is_refused() {
    let lab = echoing();
    let stream = tokio::net::TcpStream::connect(lab.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::builder().method("CONNECT").uri("a.test:443").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 405);
}
