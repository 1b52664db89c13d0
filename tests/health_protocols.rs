//! Health checks over everything that versions speak: HTTP/2, TLS, gRPC, and a PROXY header before it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use h2::server;
use http::{HeaderMap, HeaderValue, Request, Response};
use lab::frames::{END_HEADERS, HEADERS, PING, PREFACE, SETTINGS, block, frame};
use lab::health::first_check;
use lab::origin::Peer;
use lab::tls::{Authority, Pair};
use lab::{Lab, Origin};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What an origin answers over HTTP/2: status, body, trailers.
type Answer = (u16, &'static [u8], &'static [(&'static str, &'static str)]);

/// What it was asked: the request and its body.
type Asked = (Request<()>, Vec<u8>);

/// An origin over HTTP/2 that answers with what `say` makes of the request and its body; the requests come out too.
fn http2(
    tls: Option<&Pair>,
    say: impl Fn(&Request<()>, &[u8]) -> Answer + Send + Sync + 'static,
) -> (SocketAddr, mpsc::Receiver<Asked>) {
    let acceptor = tls.map(|pair| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![pair.der.clone()], key);
        let mut config = config.unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    });
    let ((tell_address, address), (tell, seen), say) = (mpsc::channel(), mpsc::channel(), Arc::new(say));
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell_address.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, say, tell) = (acceptor.clone(), Arc::clone(&say), tell.clone());
                // The proxy closes when it likes; that is no failure of the origin's.
                #[allow(clippy::disallowed_methods, reason = "a test's origin")]
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(tcp, &*say, &tell).await,
                        Some(acceptor) => serve(acceptor.accept(tcp).await.ok()?, &*say, &tell).await,
                    }
                });
            }
        });
    });
    (address.recv_timeout(lab::PATIENCE).unwrap(), seen)
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    say: &(impl Fn(&Request<()>, &[u8]) -> Answer + ?Sized),
    tell: &mpsc::Sender<Asked>,
) -> Option<()> {
    let mut connection = server::handshake(stream).await.ok()?;
    while let Some(asked) = connection.accept().await {
        let (request, mut respond) = asked.ok()?;
        let (head, mut receive) = request.into_parts();
        let mut body = Vec::new();
        // A body of a few bytes has come with its request; the connection is polled by `accept` alone.
        while !receive.is_end_stream() {
            tokio::select! {
                data = receive.data() => body.extend_from_slice(&data?.ok()?),
                // Nothing else comes on it.
                _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => break,
            }
        }
        let request = Request::from_parts(head, ());
        let (status, text, trailers) = say(&request, &body);
        let _ = tell.send((request, body));
        let answer = Response::builder().status(status).body(()).unwrap();
        let mut send = respond.send_response(answer, false).ok()?;
        send.send_data(Bytes::from_static(text), trailers.is_empty()).ok()?;
        if !trailers.is_empty() {
            let fields = trailers.iter().map(|(name, value)| {
                (name.parse::<http::HeaderName>().unwrap(), HeaderValue::from_static(value))
            });
            send.send_trailers(fields.collect::<HeaderMap>()).ok()?;
        }
    }
    Some(())
}

#[test]
fn what_is_sent_between_interim_answers_makes_room_for_no_more_of_them() {
    let fields = [(":status", "103"), ("link", &*"x".repeat(1000))];
    let interims = frame(HEADERS, END_HEADERS, 1, block(&fields)).repeat(50);
    let until = |peer: &mut Peer, kind| -> io::Result<()> {
        loop {
            let head = peer.bytes(9)?;
            peer.bytes(usize::from(u16::from_be_bytes([head[1], head[2]])))?;
            if head[3] == kind {
                return Ok(());
            }
        }
    };
    let origin = Origin::scripted("blue", move |peer| {
        peer.bytes(PREFACE.len())?;
        peer.send(frame(SETTINGS, 0, 0, []))?;
        until(peer, HEADERS)?;
        loop {
            peer.send(&interims)?;
            peer.send(frame(PING, 0, 0, [0; 8]))?;
            until(peer, PING)?;
        }
    });
    let health = "{ interval = \"10s\", timeout = \"10s\" }";
    let said = first_check(origin.address, health, "protocol = \"h2c\"", &[])["said"].clone();
    assert!(said.as_str().unwrap().ends_with(": the answer does not end within 128 KiB"), "{said}");
}

#[test]
fn http2_is_asked_over_http2() {
    let (address, seen) = http2(None, |_, _| (204, b"", &[]));
    let last =
        first_check(address, "{ path = \"/ready\", host = \"shop.internal\" }", "protocol = \"h2c\"", &[]);
    assert_eq!(last["said"], "status 204");
    let (request, _) = seen.recv_timeout(lab::PATIENCE).unwrap();
    assert_eq!(request.uri(), "http://shop.internal/ready");
}

#[test]
fn http2_over_tls_is_asked_as_the_version_says() {
    let authority = Authority::new("ca");
    let (address, seen) =
        http2(Some(&authority.issue(&["shop.internal"])), |_, _| (200, b"all is well", &[]));
    let tls = "protocol = \"h2\"\ntls = { ca = \"ca.pem\", server_name = \"shop.internal\" }";
    let pem = authority.pem();
    let last = first_check(address, "{ body = \"is well\" }", tls, &[("ca.pem", &pem)]);
    assert_eq!(last["said"], "status 200");
    let (request, _) = seen.recv_timeout(lab::PATIENCE).unwrap();
    assert_eq!(request.uri().scheme_str(), Some("https"));
    let other = Authority::new("other").pem();
    let last = first_check(address, "{}", tls, &[("ca.pem", &other)]);
    assert!(last["said"].as_str().unwrap().starts_with("the TLS handshake failed: "), "{last}");
    let last = first_check(address, "{ type = \"tcp\" }", tls, &[("ca.pem", &other)]);
    assert!(last["said"].as_str().unwrap().starts_with("the TLS handshake failed: "), "{last}");
    let last = first_check(address, "{ type = \"tcp\" }", tls, &[("ca.pem", &pem)]);
    assert_eq!(last["said"], "connected");
}

/// `HealthCheckResponse { status }` in a frame.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 2];

#[test]
fn grpc_is_asked_for_the_health_of_a_service() {
    // By the service that is asked for: field 1 of the request.
    let (address, seen) = http2(None, |_, body| match &body[5..] {
        b"\x0a\x04shop" => (200, SERVING, &[("grpc-status", "0")]),
        b"" => (200, NOT_SERVING, &[("grpc-status", "0")]),
        _ => (200, b"", &[("grpc-status", "5")]),
    });
    let asked = |health: &str| first_check(address, health, "protocol = \"h2c\"", &[]);
    let last = asked("{ type = \"grpc\", service = \"shop\" }");
    assert_eq!((&last["said"], &last["well"]), (&Value::from("serving"), &Value::from(true)));
    let (request, _) = seen.recv_timeout(lab::PATIENCE).unwrap();
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/grpc.health.v1.Health/Check"));
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    let last = asked("{ type = \"grpc\" }");
    assert_eq!(
        (&last["said"], &last["well"]),
        (&"the health service says NOT_SERVING".into(), &false.into())
    );
    let last = asked("{ type = \"grpc\", service = \"cart\" }");
    assert_eq!(last["said"], "the health service answers with gRPC status 5");
}

#[test]
fn a_version_over_http2_may_be_asked_over_http1() {
    let beside = Origin::start("beside");
    let health = format!("{{ protocol = \"http1\", port = {} }}", beside.address.port());
    let (address, _seen) = http2(None, |_, _| (500, b"", &[]));
    assert_eq!(first_check(address, &health, "protocol = \"h2c\"", &[])["said"], "status 200");
    assert!(beside.seen()[0].line.ends_with("HTTP/1.1"));
}

#[test]
fn where_a_proxy_header_begins_connections_it_begins_those_of_checks_too() {
    let origin = Origin::scripted("proxied", |peer| {
        let line = peer.line()?;
        peer.head()?;
        assert_eq!(line, "PROXY UNKNOWN");
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    });
    let last = first_check(origin.address, "{}", "proxy_protocol = \"v1\"", &[]);
    assert_eq!(last["said"], "status 200");
}

#[test]
fn a_unix_socket_is_asked_too() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            let is_local = String::from_utf8_lossy(&head[..read]).contains("host: localhost\r\n");
            let status = if is_local { 200 } else { 421 };
            let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let services = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\nhealth = {{ port = 1, interval = \"100ms\" }}\n\
         [services.shop.versions.blue]\nendpoints = [\"unix:{}\"]\n",
        path.display()
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &services);
    lab.wait_health(format!("unix:{}", path.display()), "up");
}
