//! WebSockets to endpoints that speak HTTP/2: as streams of a shared connection (RFC 8441), with what holds over HTTP/1.1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::future::poll_fn;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::ext::Protocol;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use lab::{Http2, Lab, PATIENCE};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client};

/// An endpoint that speaks HTTP/2 by prior knowledge, and takes WebSockets over it or does not.
struct Endpoint {
    address: SocketAddr,
    /// What it was asked, and how its streams ended.
    seen: mpsc::Receiver<String>,
}

impl Endpoint {
    fn start(takes_websockets: bool) -> Self {
        let (tell, seen) = mpsc::channel();
        let (address_tell, address) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                address_tell.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((tcp, _)) = listener.accept().await {
                    tokio::spawn(serve(tcp, takes_websockets, tell.clone()));
                }
            });
        });
        Self { address: address.recv().unwrap(), seen }
    }

    fn saw(&self) -> String {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }
}

async fn serve(tcp: tokio::net::TcpStream, takes_websockets: bool, tell: mpsc::Sender<String>) {
    let mut builder = Builder::new();
    if takes_websockets {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(tcp).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, tell.clone()));
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, tell: mpsc::Sender<String>) {
    let (head, body) = request.into_parts();
    let protocol = head.extensions.get::<Protocol>().map_or("none", Protocol::as_str);
    let mut fields: Vec<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
    fields.retain(|name| {
        name.starts_with("sec-websocket") || matches!(*name, "connection" | "upgrade" | "host")
    });
    fields.sort_unstable();
    let _ = tell.send(format!("{} {} {protocol} {}", head.method, head.uri, fields.join(" ")));
    match head.uri.path() {
        "/refuses" => {
            let response = Response::builder().status(403).header("x-why", "because").body(()).unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            send.send_data("not you".into(), true).unwrap();
        }
        "/breaks" => {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(b"\x81\x01x"), false).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            send.send_reset(h2::Reason::CANCEL);
        }
        _ => {
            let response = Response::builder().header("sec-websocket-protocol", "chat").body(()).unwrap();
            let send = respond.send_response(response, false).unwrap();
            let (ours, theirs) = duplex(1 << 16);
            let (end, ()) = tokio::join!(carry(ours, send, body), echo(theirs));
            let _ = tell.send(end);
        }
    }
}

/// Sends every message back, and follows a close.
async fn echo(stream: DuplexStream) {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Carries bytes between a stream and `ours`; how the stream was ended by the other side.
async fn carry(ours: DuplexStream, mut send: SendStream<Bytes>, mut body: RecvStream) -> String {
    let (mut from, mut to) = tokio::io::split(ours);
    let up = async move {
        let mut end = "ended";
        while let Some(data) = body.data().await {
            let Ok(data) = data else {
                end = "reset";
                break;
            };
            body.flow_control().release_capacity(data.len()).unwrap();
            let _ = to.write_all(&data).await;
        }
        let _ = to.shutdown().await;
        end.to_owned()
    };
    let down = async move {
        let mut buffer = [0; 4096];
        loop {
            let read = from.read(&mut buffer).await.unwrap_or(0);
            let is_sent = all(&mut send, Bytes::copy_from_slice(&buffer[..read])).await;
            if read == 0 || !is_sent {
                let _ = send.send_data(Bytes::new(), true);
                return;
            }
        }
    };
    tokio::join!(up, down).0
}

/// Sends all of `data` as the windows open.
async fn all(send: &mut SendStream<Bytes>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let Some(Ok(room)) = poll_fn(|cx| send.poll_capacity(cx)).await else { return false };
        if send.send_data(data.split_to(room.min(data.len())), false).is_err() {
            return false;
        }
    }
    true
}

/// A proxy whose `blue` is at this endpoint, and whose `green` is nowhere.
fn lab(endpoint: SocketAddr, settings: &str) -> Lab {
    lab_of(endpoint, "h2c", settings)
}

fn lab_of(endpoint: SocketAddr, protocol: &str, settings: &str) -> Lab {
    let text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n{settings}\n\
         [services.shop.versions.blue]\nendpoints = [\"{endpoint}\"]\nprotocol = \"{protocol}\"\n\
         [services.shop.versions.green]\nendpoints = [\"{}\"]\n",
        lab::origin::nobody()
    );
    Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &text)
}

type Socket = WebSocket<TcpStream>;

fn try_connect(lab: &Lab, path: &str) -> Result<Socket, Error> {
    let stream = TcpStream::connect(lab.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let url = format!("ws://{}{path}", lab.address());
    let mut request = client::IntoClientRequest::into_client_request(url)?;
    request.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
    client(request, stream).map(|(socket, _)| socket).map_err(|error| match error {
        tokio_tungstenite::tungstenite::HandshakeError::Failure(error) => error,
        tokio_tungstenite::tungstenite::HandshakeError::Interrupted(_) => panic!("the socket blocks"),
    })
}

fn connect(lab: &Lab) -> Socket {
    // The client checks the proof and the subprotocol.
    try_connect(lab, "/chat?x=y").expect("a WebSocket")
}

fn is_echoed(socket: &mut Socket, message: &Message) -> bool {
    socket.send(message.clone()).unwrap();
    socket.read().unwrap() == *message
}

#[test]
fn a_handshake_of_http_1_becomes_an_extended_connect() {
    let endpoint = Endpoint::start(true);
    let lab = lab(endpoint.address, "");
    let mut socket = connect(&lab);
    let asked = format!("CONNECT http://{}/chat?x=y websocket ", lab.address());
    assert_eq!(endpoint.saw(), asked + "sec-websocket-protocol sec-websocket-version");
    assert!(is_echoed(&mut socket, &Message::text("hello")));
    assert!(is_echoed(&mut socket, &Message::binary(vec![7; 1 << 20])), "a megabyte");
    socket.close(None).unwrap();
    assert!(matches!(socket.read().unwrap(), Message::Close(_)), "the endpoint's own");
    assert_eq!(socket.get_mut().read(&mut [0]).unwrap(), 0);
    assert_eq!(endpoint.saw(), "ended", "and not reset");
}

#[test]
fn it_counts_until_it_ends_and_survives_a_flip() {
    let endpoint = Endpoint::start(true);
    let lab = lab(endpoint.address, "");
    let mut sockets = [connect(&lab), connect(&lab)];
    let mut events = lab.events();
    lab.flip("green");
    for socket in &mut sockets {
        assert!(is_echoed(socket, &Message::text("after")));
    }
    let drain = || lab.call("GET", "/v1/services/shop/versions/blue/drain", &Value::Null).1;
    let remaining = drain()["remaining"][0].clone();
    assert_eq!((&remaining["kind"], &remaining["count"]), (&json!("websocket"), &json!(2)));
    for socket in &mut sockets {
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
    }
    events.drained("blue");
    assert_eq!(drain()["remaining"], json!([]));
}

/// When a version is left: at once.
const SOON: &str = "drain = { patience = \"0s\", spread = \"0s\", deadline = \"20s\" }";

#[test]
fn it_is_told_to_come_again_when_its_version_is_left_and_both_sides_close() {
    let endpoint = Endpoint::start(true);
    let lab = lab(endpoint.address, SOON);
    let mut socket = connect(&lab);
    endpoint.saw();
    assert!(is_echoed(&mut socket, &Message::text("before")));
    lab.flip("green");
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("not a close") };
    assert_eq!(close.code, CloseCode::Restart);
    assert!(matches!(socket.read(), Err(Error::ConnectionClosed)), "the handshake is completed");
    assert_eq!(endpoint.saw(), "ended", "and not reset");
}

#[test]
fn an_endpoint_is_told_in_the_place_of_a_client_that_does_not_answer() {
    let endpoint = Endpoint::start(true);
    let lab = lab(endpoint.address, "drain = { patience = \"0s\", spread = \"0s\", deadline = \"1s\" }");
    let mut socket = connect(&lab);
    endpoint.saw();
    assert!(is_echoed(&mut socket, &Message::text("before")));
    let mut events = lab.events();
    lab.flip("green");
    let mut heard = Vec::new();
    socket.get_mut().read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"\x88\x11\x03\xf4service restart");
    assert_eq!(endpoint.saw(), "ended", "and not reset");
    events.drained("blue");
}

#[test]
fn a_client_of_http_2_has_a_stream_on_both_sides() {
    let endpoint = Endpoint::start(true);
    let lab = lab(endpoint.address, "");
    lab::http2::run(async {
        let (response, send) = extended(&lab, &[]).await;
        assert_eq!((response.status().as_u16(), response.headers().get("sec-websocket-accept")), (200, None));
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        let (ours, theirs) = duplex(1 << 16);
        let mut socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        let talk = async move {
            for message in [Message::text("hello"), Message::binary(vec![7; 1 << 20])] {
                socket.send(message.clone()).await.unwrap();
                assert!(socket.next().await.unwrap().unwrap() == message);
            }
            socket.close(None).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        };
        let ((), end) = tokio::join!(talk, carry(theirs, send, response.into_body()));
        assert_eq!(end, "ended");
    });
}

/// A WebSocket of a client that speaks HTTP/2.
async fn extended(lab: &Lab, fields: &[(&str, &str)]) -> (Response<RecvStream>, SendStream<Bytes>) {
    let client = Http2::to(lab.address()).await;
    while !client.send.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let request = Request::builder().method("CONNECT").uri(format!("http://{}/chat", lab.address()));
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.extension(Protocol::from("websocket")).body(()).unwrap();
    let (response, send) = client.start(request, false).await;
    (response.await.unwrap(), send)
}

/// There is none in HTTP/2 (RFC 8441 §5), but an endpoint of HTTP/1.1 would answer whichever it finds first.
#[test]
fn a_key_of_a_client_of_http_2_does_not_reach_the_endpoint() {
    let lab = lab_of(lab::websocket::echoes(), "http1", "");
    lab::http2::run(async {
        let theirs = [("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
        assert_eq!(extended(&lab, &theirs).await.0.status().as_u16(), 200);
    });
}

#[test]
fn a_client_of_http_2_is_told_too_and_its_stream_ends_whatever_its_endpoint_speaks() {
    let over_http2 = Endpoint::start(true);
    let over_http1 = lab::websocket::echoes();
    for (address, protocol) in [(over_http2.address, "h2c"), (over_http1, "http1")] {
        let lab = lab_of(address, protocol, SOON);
        lab::http2::run(async {
            let (response, send) = extended(&lab, &[]).await;
            let (ours, theirs) = duplex(1 << 16);
            let mut socket = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
            let talk = async {
                socket.send(Message::text("before")).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("before"));
                let path = lab.socket();
                let flip = move || {
                    lab::admin::call(&path, "POST", "/v1/services/shop/flip", &[], r#"{"to":"green"}"#)
                };
                assert_eq!(tokio::task::spawn_blocking(flip).await.unwrap().unwrap().status, 200);
                let close = socket.next().await.unwrap().unwrap();
                let Message::Close(Some(close)) = close else { panic!("not a close: {close:?}") };
                assert_eq!(close.code, CloseCode::Restart);
                while let Some(Ok(_)) = socket.next().await {}
                drop(socket);
            };
            let ((), end) = tokio::join!(talk, carry(theirs, send, response.into_body()));
            assert_eq!(end, "ended", "{protocol}");
        });
    }
}

#[test]
fn a_revert_spares_one_whose_client_has_not_taken_its_last_message() {
    let (address, say) = lab::websocket::speaks();
    let mut lab = lab_of(address, "http1", SOON);
    lab.restrict_to_one_worker();
    let mut other = lab::websocket::connect(lab.address(), "/chat");
    let change = |call: &'static str, body: &'static str| {
        let path = lab.socket();
        let change = move || {
            lab::admin::call(&path, "POST", &format!("/v1/services/shop/{call}"), &[], body).unwrap().status
        };
        async { assert_eq!(tokio::task::spawn_blocking(change).await.unwrap(), 200) }
    };
    lab::http2::run(async {
        let (response, mut send) = extended(&lab, &[]).await;
        let mut body = response.into_body();
        // Masked with zeros.
        send.send_data(Bytes::from_static(b"\x81\x85\0\0\0\0speak"), false).unwrap();
        // The first fragment of a message: the client's window has one byte left behind it.
        let first = [&[0x01, 126, 0xff, 0xfa][..], &[b'a'; 0xfffa]].concat();
        say.send(first.clone()).unwrap();
        hear(&mut body, first.len()).await;
        change("flip", r#"{"to":"green"}"#).await;
        // Both are told in the same moment.
        let told = tokio::task::spawn_blocking(move || other.read().unwrap());
        assert!(told.await.unwrap().is_close());
        say.send(b"\x80\x01b\x81\x04mo".to_vec()).unwrap();
        assert_eq!(hear(&mut body, 1).await, b"\x80");
        change("revert", "{}").await;
        body.flow_control().release_capacity(0xffff).unwrap();
        assert_eq!(hear(&mut body, 6).await, b"\x01b\x81\x04mo");
        say.send(b"re".to_vec()).unwrap();
        assert_eq!(hear(&mut body, 2).await, b"re");
    });
}

/// So many bytes, for which no room is given back.
async fn hear(body: &mut RecvStream, count: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < count {
        heard.extend_from_slice(&body.data().await.unwrap().unwrap());
    }
    heard
}

#[test]
fn an_endpoint_that_takes_none_is_not_asked() {
    let endpoint = Endpoint::start(false);
    let lab = lab(endpoint.address, "");
    let Err(Error::Http(response)) = try_connect(&lab, "/chat") else { panic!("it is refused") };
    let reason = response.headers()["switchback-reason"].to_str().unwrap();
    assert_eq!((response.status().as_u16(), reason), (502, "no_websocket"));
    assert!(endpoint.seen.try_recv().is_err());
    let reason = "reason=\"no_websocket\"";
    assert_eq!(lab.metric(&["switchback_upstream_requests_total{", "blue", reason]), Some(1.0));
    // Everything else is served.
    assert_eq!(lab.get("/refuses").status, 403);
}

#[test]
fn an_endpoint_that_does_not_want_it_is_heard_and_the_connection_goes_on() {
    let endpoint = Endpoint::start(true);
    let lab = lab(endpoint.address, "");
    let mut client = lab.client();
    for _ in 0..2 {
        let answer = client
            .send(
                "GET /refuses HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .answer();
        assert_eq!(
            (answer.status, answer.header("x-why"), &*answer.text()),
            (403, Some("because"), "not you")
        );
    }
}

#[test]
fn a_client_that_leaves_is_gone_for_the_endpoint_too() {
    let endpoint = Endpoint::start(true);
    let lab = lab(endpoint.address, "");
    let mut socket = connect(&lab);
    assert!(is_echoed(&mut socket, &Message::text("hello")));
    endpoint.saw();
    drop(socket);
    assert_eq!(endpoint.saw(), "ended");
}

#[test]
fn an_endpoint_that_breaks_off_is_gone_for_the_client_too() {
    let endpoint = Endpoint::start(true);
    let lab = lab(endpoint.address, "");
    let mut client = lab.client();
    client.send(
        "GET /breaks HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(client.answer().header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(client.rest(), b"\x81\x01x");
    let reason = "reason=\"body_truncated\"";
    lab.wait_for_metric(&["switchback_upstream_requests_total{", "blue", reason], 1.0);
}

#[test]
fn one_that_is_silent_for_too_long_is_ended() {
    let endpoint = Endpoint::start(true);
    let lab = lab(endpoint.address, "timeouts = { tunnel = \"300ms\" }");
    let mut socket = connect(&lab);
    endpoint.saw();
    assert!(is_echoed(&mut socket, &Message::text("hello")));
    assert!(socket.read().is_err());
    assert_eq!(endpoint.saw(), "reset");
    lab.wait_for_metric(&["switchback_in_flight{", "kind=\"websocket\""], 0.0);
}
