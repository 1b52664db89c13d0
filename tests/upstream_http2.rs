//! HTTP/2 towards endpoints: shared connections, streams in both directions, and no request lost in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::future::poll_fn;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use lab::frames::{self, frame};
use lab::preload::Preload;
use lab::tls::{Authority, Pair};
use lab::{Frames, Lab, Origin, PATIENCE, Proxy, wait_until};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// An origin that speaks HTTP/2 by prior knowledge.
struct Shared {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// What it was told, or saw happen to its streams.
    seen: mpsc::Receiver<String>,
}

/// What an origin does on its streams.
#[derive(Clone, Copy, Default)]
struct Habit {
    /// Most requests at a time, if that is limited.
    most: Option<u32>,
    /// It refuses the first stream of its first connection.
    refuses_first: bool,
    /// It refuses all streams.
    refuses: bool,
    /// Whatever it is asked, it does not answer.
    hangs: bool,
    /// It says goodbye after so many requests of a connection.
    leaves_after: Option<usize>,
}

impl Shared {
    fn start(habit: Habit) -> Self {
        Self::listening(habit, None)
    }

    /// Over TLS, as what this certificate says, with these application protocols.
    fn secure(pair: &Pair, alpn: &[&str]) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![pair.der.clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self::listening(Habit::default(), Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn listening(habit: Habit, tls: Option<TlsAcceptor>) -> Self {
        let connections = Arc::new(AtomicUsize::new(0));
        let (tell, seen) = mpsc::channel();
        let (address_tell, address) = mpsc::channel();
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                address_tell.send(listener.local_addr().unwrap()).unwrap();
                while let Ok((tcp, _)) = listener.accept().await {
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    let (tls, tell) = (tls.clone(), tell.clone());
                    #[allow(clippy::disallowed_methods, reason = "a test's origin")]
                    tokio::spawn(async move {
                        match tls {
                            None => serve(tcp, number, habit, tell).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(tcp).await {
                                    serve(stream, number, habit, tell).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        Self { address: address.recv().unwrap(), connections, seen }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn saw(&self) -> String {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }

    /// A proxy in front of it that believes `authority`.
    fn lab_over_tls(&self, authority: &Authority) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let text = format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}]\n[services.shop.versions.blue]\nendpoints = [\"{}\"]\n\
             protocol = \"h2\"\ntls = {{ ca = \"ca.pem\", server_name = \"blue.test\" }}\n",
            self.address
        );
        Lab::configured(dir, Vec::new(), &text)
    }

    fn lab(&self, settings: &str) -> Lab {
        Self::pool(&[self], settings)
    }

    /// A proxy in front of several of them, all of one version, in turn, and nobody is left alone.
    fn pool(endpoints: &[&Self], settings: &str) -> Lab {
        let endpoints: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
        let text = format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}]\nstable = \"blue\"\n\
             balance = \"round_robin\"\noutliers = false\n{settings}\n\
             [services.shop.versions.blue]\nendpoints = {endpoints:?}\nprotocol = \"h2c\"\n"
        );
        Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &text)
    }
}

async fn serve<S>(stream: S, number: usize, habit: Habit, tell: mpsc::Sender<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = Builder::new();
    if let Some(most) = habit.most {
        builder.max_concurrent_streams(most);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut requests = 0;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        requests += 1;
        if habit.refuses || habit.refuses_first && number == 0 && requests == 1 {
            respond.send_reset(Reason::REFUSED_STREAM);
            continue;
        }
        if habit.leaves_after == Some(requests) {
            connection.graceful_shutdown();
        }
        #[allow(clippy::disallowed_methods, reason = "a test's origin")]
        tokio::spawn(answer(request, respond, tell.clone(), habit.hangs));
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    tell: mpsc::Sender<String>,
    hangs: bool,
) {
    let (head, mut body) = request.into_parts();
    match head.uri.path() {
        _ if hangs => hang(respond, &tell).await,
        "/about" | "*" => {
            let mut fields: Vec<_> = head
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            fields.sort();
            let about = format!("{} {}\n{}", head.method, head.uri, fields.join("\n"));
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(about.into(), true).unwrap();
        }
        "/echo" => {
            let mut response = Response::new(());
            if let Some(content) = head.headers.get("content-type") {
                response.headers_mut().insert("content-type", content.clone());
            }
            let mut send = respond.send_response(response, false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                all(&mut send, data).await;
            }
            let trailers = body.trailers().await.unwrap().unwrap_or_default();
            let mut told = HeaderMap::new();
            told.insert("grpc-status", HeaderValue::from_static("0"));
            told.extend(trailers);
            send.send_trailers(told).unwrap();
        }
        "/nothing" => {
            let response = Response::builder().status(204).body(()).unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            drop(send.send_data(Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), true));
        }
        "/status" => {
            let response =
                Response::builder().header("content-type", "application/grpc").header("grpc-status", "5");
            respond.send_response(response.body(()).unwrap(), true).unwrap();
        }
        "/tells" => {
            for _ in 0..100 {
                respond.send_informational(Response::builder().status(104).body(()).unwrap()).unwrap();
            }
            respond.send_response(Response::new(()), true).unwrap();
        }
        "/hangs" => hang(respond, &tell).await,
        "/slow" => {
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            respond.send_response(Response::new(()), false).unwrap().send_data("slow".into(), true).unwrap();
        }
        "/large" => {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            for _ in 0..64 {
                all(&mut send, vec![b'x'; 64 << 10].into()).await;
            }
            send.send_data(Bytes::new(), true).unwrap();
        }
        "/long" => long(&head.method, 200, respond).await,
        "/unchanged" => long(&head.method, 304, respond).await,
        "/ends-late" => ends_late(respond).await,
        "/breaks" => {
            let mut response = Response::new(());
            response
                .headers_mut()
                .extend(head.headers.get("content-type").map(|content| (CONTENT_TYPE, content.clone())));
            let mut send = respond.send_response(response, false).unwrap();
            all(&mut send, "half".into()).await;
            // A reset takes back what has not gone out.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            send.send_reset(Reason::INTERNAL_ERROR);
        }
        _ => drop(respond.send_response(Response::builder().status(404).body(()).unwrap(), true)),
    }
}

/// Tells that it was asked, and how it ended.
async fn hang(mut respond: SendResponse<Bytes>, tell: &mpsc::Sender<String>) {
    tell.send("asked".into()).unwrap();
    let reset = poll_fn(|cx| respond.poll_reset(cx)).await;
    tell.send(format!("{reset:?}")).unwrap();
}

/// Answers with 2,000 bytes, or says that it would be so many.
async fn long(method: &Method, status: u16, mut respond: SendResponse<Bytes>) {
    let is_bodiless = method == Method::HEAD || status == 304;
    let response = Response::builder().status(status).header("content-length", 2_000).body(()).unwrap();
    let mut send = respond.send_response(response, is_bodiless).unwrap();
    if !is_bodiless {
        all(&mut send, vec![b'x'; 2_000].into()).await;
    }
}

/// Answers in parts, with the end in a frame of its own.
async fn ends_late(mut respond: SendResponse<Bytes>) {
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    for part in ["all", " of it"] {
        all(&mut send, part.into()).await;
        tokio::task::yield_now().await;
    }
    send.send_data(Bytes::new(), true).unwrap();
}

/// Sends all of `data` as the windows open.
async fn all(send: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let Some(Ok(room)) = poll_fn(|cx| send.poll_capacity(cx)).await else { return };
        if send.send_data(data.split_to(room.min(data.len())), false).is_err() {
            return;
        }
    }
}

/// Runs `test` with an HTTP/2 client of the proxy at `address`.
fn with_client<T>(address: SocketAddr, test: impl AsyncFnOnce(h2::client::SendRequest<Bytes>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let (send, connection) = h2::client::handshake(tcp).await.unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test's client")]
        tokio::spawn(async move { drop(connection.await) });
        tokio::time::timeout(PATIENCE, test(send)).await.expect("in time")
    })
}

fn post(path: &str) -> Request<()> {
    let uri = format!("http://a.example{path}");
    let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    request.body(()).unwrap()
}

#[test]
fn the_first_request_on_a_connection_has_opened_it_and_those_after_it_find_it() {
    let origin = Shared::start(Habit::default());
    let mut lab = origin.lab("[access_log]\ntarget = \"file\"\npath = \"access.log\"");
    lab.restrict_to_one_worker();
    (0..2).for_each(|_| assert_eq!(lab.get("/nothing").status, 204));
    let log = || std::fs::read_to_string(lab.dir.path().join("access.log")).unwrap_or_default();
    wait_until("two lines", || log().lines().count() == 2);
    let reused: Vec<_> = log().lines().map(|line| line.contains("\"reused\":true")).collect();
    assert_eq!((reused, origin.connections()), (vec![false, true], 1));
}

#[test]
fn interim_answers_may_be_many() {
    let answer = Shared::start(Habit::default()).lab("").get("/tells");
    assert_eq!((answer.status, answer.interim.len()), (200, 100));
}

#[test]
fn a_request_arrives_as_http2_knows_it() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    let mut client = lab.client();
    let answer = client
        .send("GET /about HTTP/1.1\r\nhost: a.example\r\nconnection: x-mine\r\nx-mine: 1\r\nte: trailers, gzip\r\nx-kept: 1\r\n\r\n")
        .answer();
    let text = answer.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "GET http://a.example/about");
    for field in ["te: trailers", "x-kept: 1", "x-forwarded-for: 127.0.0.1"] {
        assert!(lines.contains(&field), "{text}");
    }
    for name in ["host: ", "connection", "x-mine"] {
        assert!(!lines.iter().any(|line| line.starts_with(name)), "{text}");
    }
    assert_eq!(client.get("/nowhere").status, 404);
}

#[test]
fn options_of_the_whole_server_arrives_too() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    for target in ["*", "http://a.example"] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nhost: a.example\r\n\r\n");
        let text = lab.client().send(request).answer().text();
        // An authority, and the path `*`.
        assert!(text.starts_with("OPTIONS http://a.example*\n"), "{text}");
    }
}

#[test]
fn over_tls_a_request_is_one_of_https_and_connections_are_shared() {
    let authority = Authority::new("ca");
    let origin = Shared::secure(&authority.issue(&["blue.test"]), &["h2"]);
    let mut lab = origin.lab_over_tls(&authority);
    lab.restrict_to_one_worker();
    let mut client = lab.client();
    let text = client.get("/about").text();
    assert!(text.starts_with("GET https://shop.test/about\n"), "{text}");
    with_client(lab.address(), async |send| {
        let asked: Vec<_> = (0..20).map(|_| echoed(&send, &[7; 300_000])).collect();
        for echoed in futures_util::future::join_all(asked).await {
            assert_eq!(echoed, 300_000);
        }
    });
    assert_eq!(origin.connections(), 1);
}

/// Sends a body to be sent back: how much of it came.
async fn echoed(send: &h2::client::SendRequest<Bytes>, body: &'static [u8]) -> usize {
    let (answer, mut out) = send.clone().ready().await.unwrap().send_request(post("/echo"), false).unwrap();
    let sent = async {
        all(&mut out, Bytes::from_static(body)).await;
        out.send_data(Bytes::new(), true).unwrap();
    };
    let came = async {
        let mut body = answer.await.unwrap().into_body();
        let mut length = 0;
        while let Some(data) = body.data().await.transpose().unwrap() {
            body.flow_control().release_capacity(data.len()).unwrap();
            length += data.len();
        }
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        length
    };
    tokio::join!(sent, came).1
}

#[test]
fn over_tls_an_endpoint_has_to_agree_on_http2_and_to_be_who_it_should_be() {
    let (authority, others) = (Authority::new("ca"), Authority::new("others"));
    for (pair, alpn) in [
        (authority.issue(&["blue.test"]), &["http/1.1"][..]),
        (authority.issue(&["blue.test"]), &[]),
        (authority.issue(&["green.test"]), &["h2"]),
        (others.issue(&["blue.test"]), &["h2"]),
    ] {
        let origin = Shared::secure(&pair, alpn);
        let lab = origin.lab_over_tls(&authority);
        let answer = lab.get("/about");
        assert_eq!(
            (answer.status, answer.header("switchback-reason")),
            (502, Some("upstream_tls")),
            "{alpn:?}"
        );
    }
}

#[test]
fn many_requests_share_a_connection() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    with_client(lab.address(), async |send| {
        let answers: Vec<_> = (0..50)
            .map(|_| {
                let (answer, mut body) = send.clone().send_request(post("/slow"), false).unwrap();
                body.send_data("body".into(), true).unwrap();
                answer
            })
            .collect();
        for answer in answers {
            assert_eq!(answer.await.unwrap().status(), 200);
        }
    });
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_endpoint_that_takes_few_at_a_time_gets_more_connections_and_no_request_is_lost() {
    let origin = Shared::start(Habit { most: Some(4), ..Habit::default() });
    let lab = origin.lab("");
    with_client(lab.address(), async |send| {
        let asked = || {
            let (answer, mut body) = send.clone().send_request(post("/slow"), false).unwrap();
            body.send_data("body".into(), true).unwrap();
            answer
        };
        let answers: Vec<_> = (0..80).map(|_| asked()).collect();
        for answer in answers {
            assert_eq!(answer.await.unwrap().status(), 200);
        }
    });
    assert_eq!(origin.connections(), 8, "no more than are allowed");
}

#[test]
fn a_stream_goes_both_ways_at_once_with_trailers_and_its_status_is_counted() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    with_client(lab.address(), async |mut send| {
        let mut request = post("/echo");
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-mine"));
        let (answer, mut upload) = send.send_request(request, false).unwrap();
        // The answer's head is there before the request has said anything.
        let (head, mut body) = answer.await.unwrap().into_parts();
        assert_eq!(head.headers["content-type"], "application/grpc");
        for word in ["one", "two", "three"] {
            upload.send_data(word.into(), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), word);
            body.flow_control().release_capacity(word.len()).unwrap();
        }
        assert_eq!(lab.metric(&["switchback_in_flight{", "kind=\"grpc\"", "blue"]), Some(1.0));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-mine", HeaderValue::from_static("1"));
        upload.send_trailers(trailers).unwrap();
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers["x-mine"]),
            (&HeaderValue::from_static("0"), &HeaderValue::from_static("1"))
        );
        let (answer, _) = send.send_request(post("/status"), true).unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        assert_eq!(head.headers["grpc-status"], "5");
        assert!(!head.headers.contains_key("content-length"), "trailers alone have none");
        assert!(body.data().await.is_none());
    });
    for status in ["0", "5"] {
        let labels = format!("grpc_status=\"{status}\"");
        assert_eq!(lab.metric(&["switchback_upstream_grpc_status_total{", &labels]), Some(1.0));
    }
}

#[test]
fn bodies_are_whole_in_both_directions_and_both_protocols() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    let mut client = lab.client();
    assert_eq!(client.get("/large").text().len(), 64 * (64 << 10));
    let body = vec![b'y'; 1 << 20];
    assert_eq!(client.post("/echo", &body).text().into_bytes(), body);
    client.send("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-mine: 1\r\n\r\n");
    assert_eq!(client.answer().text(), "abc");
    with_client(lab.address(), async |mut send| {
        let (answer, mut upload) = send.send_request(post("/echo"), false).unwrap();
        let sent = Bytes::from(vec![b'z'; 1 << 20]);
        let (_, mut body) = answer.await.unwrap().into_parts();
        let mut came = 0;
        let receive = async {
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                came += data.len();
                if came == 1 << 20 {
                    break;
                }
            }
        };
        tokio::join!(all(&mut upload, sent), receive);
        assert_eq!(came, 1 << 20);
    });
    assert_eq!(lab.client().post("/slow", b"x").text(), "slow");
}

#[test]
fn a_client_that_leaves_ends_the_stream_at_once_and_not_the_connection() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    let mut client = lab.client();
    client.send("GET /hangs HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(origin.saw(), "asked");
    drop(client);
    assert_eq!(origin.saw(), "Ok(CANCEL)");
    with_client(lab.address(), async |mut send| {
        let (answer, mut upload) = send.send_request(post("/hangs"), false).unwrap();
        upload.send_data("x".into(), false).unwrap();
        assert_eq!(origin.saw(), "asked");
        upload.send_reset(Reason::CANCEL);
        drop(answer);
        assert_eq!(origin.saw(), "Ok(CANCEL)");
    });
    assert!(origin.connections() <= 2, "one for each worker");
    lab.wait_for_metric(&["switchback_client_requests_total{", "blue", "reason=\"client_gone\""], 2.0);
}

#[test]
fn a_refused_request_is_sent_again_whatever_its_method() {
    for method in ["GET", "POST"] {
        let origin = Shared::start(Habit { refuses_first: true, ..Habit::default() });
        let lab = origin.lab("");
        let answer = lab.client().send(format!("{method} /about HTTP/1.1\r\nhost: a\r\n\r\n")).answer();
        assert_eq!(answer.status, 200);
        assert_eq!(origin.connections(), 2);
    }
}

#[test]
fn a_request_that_is_refused_again_goes_to_another_endpoint_whatever_its_method() {
    let refuses = Shared::start(Habit { refuses: true, ..Habit::default() });
    let good = Shared::start(Habit::default());
    let lab = Shared::pool(&[&refuses, &good], "retries = { min_per_second = 1_000 }");
    for number in 0..8 {
        let method = ["GET", "POST"][number % 2];
        let answer = lab.client().send(format!("{method} /about HTTP/1.1\r\nhost: a\r\n\r\n")).answer();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let again = lab.metric(&["switchback_retries_total{", "outcome=\"answered\""]).unwrap();
    assert!(again >= 2.0, "{again}");
    // Once over a fresh connection, and not more often.
    assert!(refuses.connections() as f64 <= 2.0 * again, "{} for {again}", refuses.connections());
}

/// A process whose writes fail that begin with the head of a connection's second request.
const DEAF: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

ssize_t send(int socket, const void *bytes, size_t length, int flags) {
    static ssize_t (*next)(int, const void *, size_t, int);
    if (!next) next = dlsym(RTLD_NEXT, "send");
    const char *frame = bytes;
    if (length > 9 && frame[3] == 1 && !memcmp(frame + 5, "\0\0\0\3", 4)) {
        errno = EPIPE;
        return -1;
    }
    return next(socket, bytes, length, flags);
}
"#;

#[test]
fn what_could_not_be_sent_at_all_is_sent_afresh_whatever_it_is() {
    let origin = Shared::start(Habit::default());
    let mut lab = origin.lab("retries = { budget = \"100%\", min_per_second = 1_000 }");
    let library = Preload::compile(lab.dir.path(), DEAF).variable();
    assert!(lab.proxy.take().unwrap().stop().0.success());
    lab.proxy = Proxy::start_as(&["env", &library], &["--workers", "1"], &lab.config(), &lab.socket()).ok();
    let mut client = lab.client();
    assert_eq!(client.get("/about").status, 200);
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\n";
    // More than the endpoint takes at first, too.
    for body in ["", "body", &"x".repeat(300_000)] {
        assert_eq!(client.post("/echo", body.as_bytes()).text(), body, "{}", body.len());
    }
    client.send(format!(
        "{head}transfer-encoding: chunked\r\ntrailer: x-mine\r\n\r\n3\r\nabc\r\n0\r\nx-mine: 1\r\n\r\n"
    ));
    assert_eq!(client.answer().text(), "abc");
    client.send("POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!((client.line(), client.line()), ("HTTP/1.1 100 Continue".into(), String::new()));
    assert_eq!(client.send("body").answer().text(), "slow");
    with_client(lab.address(), async |mut send| {
        let mut request = post("/echo");
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-mine"));
        let (answer, mut upload) = send.send_request(request, false).unwrap();
        upload.send_data("stream".into(), false).unwrap();
        upload
            .send_trailers([("x-mine".parse().unwrap(), HeaderValue::from_static("1"))].into_iter().collect())
            .unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "stream");
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["x-mine"], "1");
    });
    assert_eq!(lab.metric(&["switchback_retries_total{", "outcome=\"reconnected\""]), Some(6.0));
    assert_eq!(lab.metric_total("switchback_upstream_requests_total{", "reason=\"upstream_closed\""), 0.0);
}

#[test]
fn an_attempt_that_takes_too_long_or_is_overtaken_is_reset() {
    let (hangs, good) =
        (Shared::start(Habit { hangs: true, ..Habit::default() }), Shared::start(Habit::default()));
    let settings = "retries = { per_try_timeout = \"150ms\", min_per_second = 1_000 }";
    for settings in [settings, "hedge = { after = \"50ms\" }\nretries = { min_per_second = 1_000 }"] {
        let lab = Shared::pool(&[&hangs, &good], settings);
        let before = hangs.connections();
        let mut user = lab.client();
        for number in 0..6 {
            assert_eq!(user.get("/about").status, 200, "{settings} {number}");
        }
        let outcome = |name: &str, outcome: &str| lab.metric_total(name, &format!("outcome=\"{outcome}\""));
        let left =
            outcome("switchback_retries_total{", "answered") + outcome("switchback_hedges_total{", "won");
        assert!(left >= 2.0, "{left} {settings}");
        let mut seen = 0.0;
        while seen < left {
            assert_eq!((hangs.saw().as_str(), hangs.saw().as_str()), ("asked", "Ok(CANCEL)"));
            seen += 1.0;
        }
        if outcome("switchback_hedges_total{", "won") > 0.0 {
            // Nothing is wrong with its connection; one that had no answer in time is asked first whether it is there.
            assert_eq!(hangs.connections(), before + 1);
        }
    }
}

#[test]
fn a_connection_takes_no_more_requests_once_it_is_old_and_none_is_lost() {
    let origin = Shared::start(Habit::default());
    let mut lab = origin.lab("keepalive = { lifetime = \"200ms\" }");
    lab.restrict_to_one_worker();
    let mut user = lab.client();
    user.send("GET /hangs HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(origin.saw(), "asked");
    let mut other = lab.client();
    wait_until("two connections are old", || {
        assert_eq!(other.get("/about").status, 200);
        origin.connections() >= 3
    });
    // What is on the first of them goes on.
    drop(user);
    assert_eq!(origin.saw(), "Ok(CANCEL)");
}

#[test]
fn an_endpoint_gets_no_more_connections_than_it_may_have() {
    let origin = Shared::start(Habit { most: Some(1), ..Habit::default() });
    let mut lab = origin.lab("circuit = { connections = 2 }");
    lab.restrict_to_one_worker();
    with_client(lab.address(), async |mut send| {
        let answers: Vec<_> = (0..12).map(|_| send.send_request(post("/slow"), true).unwrap().0).collect();
        for answer in answers {
            assert_eq!(answer.await.unwrap().status(), 200);
        }
    });
    assert_eq!(origin.connections(), 2);
}

#[test]
fn no_request_is_lost_to_an_endpoint_that_says_goodbye() {
    let origin = Shared::start(Habit { leaves_after: Some(3), ..Habit::default() });
    let lab = origin.lab("");
    let mut client = lab.client();
    for number in 0..60 {
        assert_eq!(client.get("/about").status, 200, "{number}");
    }
    with_client(lab.address(), async |send| {
        for _ in 0..10 {
            let answers: Vec<_> =
                (0..6).map(|_| send.clone().send_request(post("/about"), true).unwrap().0).collect();
            for answer in answers {
                assert_eq!(answer.await.unwrap().status(), 200);
            }
        }
    });
}

/// Speaks frames: answers streams of its first connection up to 1, says goodbye to the next, and answers all of others.
fn says_goodbye() -> Origin {
    let count = AtomicUsize::new(0);
    Origin::scripted("blue", move |peer| {
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        peer.bytes(frames::PREFACE.len())?;
        peer.send(frame(frames::SETTINGS, 0, 0, b""))?;
        loop {
            let head = peer.bytes(9)?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            peer.bytes(length)?;
            match head[3] {
                frames::SETTINGS if head[4] & frames::ACK == 0 => {
                    peer.send(frame(frames::SETTINGS, frames::ACK, 0, b""))?;
                }
                frames::HEADERS if is_first && stream > 1 => {
                    let last = [1_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat();
                    peer.send(frame(frames::GOAWAY, 0, 0, last))?;
                }
                // `:status: 200`, by HPACK's static table.
                frames::HEADERS => peer.send(frame(frames::HEADERS, frames::WHOLE, stream, [0x88]))?,
                _ => {}
            }
        }
    })
}

#[test]
fn a_goodbye_loses_no_request_where_there_may_be_one_connection() {
    for settings in ["", "circuit = { connections = 1 }"] {
        let origin = says_goodbye();
        let text = format!(
            "[services.shop]\nroutes = [{{ path = \"/\" }}]\n{settings}\n\
             [services.shop.versions.blue]\nendpoints = [\"{}\"]\nprotocol = \"h2c\"\n",
            origin.address
        );
        let mut lab = Lab::configured(tempfile::tempdir().unwrap(), vec![origin], &text);
        lab.restrict_to_one_worker();
        let mut client = lab.client();
        (0..4).for_each(|number| assert_eq!(client.get("/").status, 200, "{settings} {number}"));
        assert_eq!(lab.origins[0].connections(), 2);
    }
}

#[test]
fn an_end_in_a_frame_of_its_own_is_an_end() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    with_client(lab.address(), async |mut send| {
        for _ in 0..100 {
            let (answer, _) = send.send_request(post("/ends-late"), true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            let mut whole = Vec::new();
            while let Some(data) = body.data().await {
                whole.extend_from_slice(&data.expect("a clean end"));
            }
            assert_eq!(whole, b"all of it");
        }
    });
    assert_eq!(lab.get("/ends-late").text(), "all of it");
}

#[test]
fn an_answer_that_breaks_off_shows() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    let answer = lab.get("/breaks");
    assert_eq!((answer.text().as_str(), answer.is_whole), ("half", false));
    let counted = lab.metric(&["switchback_upstream_requests_total{", "reason=\"body_truncated\""]);
    assert_eq!(counted, Some(1.0));
}

#[test]
fn a_call_that_breaks_off_ends_with_a_status_where_nothing_else_could_pass_for_one() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    with_client(lab.address(), async |mut send| {
        for (content, is_told) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            let mut request = post("/breaks");
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
            let (answer, _) = send.send_request(request, true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "half");
            if is_told {
                assert!(body.data().await.is_none());
                let trailers = body.trailers().await.unwrap().unwrap();
                assert_eq!(
                    (&trailers["grpc-status"], &trailers["switchback-reason"]),
                    (&HeaderValue::from_static("14"), &HeaderValue::from_static("body_truncated"))
                );
            } else {
                assert!(body.data().await.unwrap().is_err(), "{content}");
            }
        }
    });
    let counted = lab.metric(&["switchback_upstream_requests_total{", "reason=\"body_truncated\""]);
    assert_eq!(counted, Some(4.0));
    let told = lab.metric_total("switchback_upstream_grpc_status_total", "grpc_status=\"14\"");
    assert_eq!(told, 0.0, "it is not the version's");
}

#[test]
fn an_endpoint_that_does_not_answer_or_does_not_speak_http2_is_given_up() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("timeouts = { response = \"200ms\" }");
    let answer = lab.get("/hangs");
    assert_eq!((answer.status, answer.header("switchback-reason")), (504, Some("response_timeout")));
    assert_eq!(origin.saw(), "asked");
    assert_eq!(origin.saw(), "Ok(CANCEL)");
    assert_eq!(lab.get("/about").status, 200);
    let plain = Origin::behaving("plain", |_, stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")?;
        Ok(lab::origin::Then::Close)
    });
    let text = format!(
        "[services.shop]\nroutes = [{{}}]\n[services.shop.versions.blue]\nendpoints = [\"{}\"]\nprotocol = \"h2c\"\n",
        plain.address
    );
    let lab = Lab::configured(tempfile::tempdir().unwrap(), vec![plain], &text);
    let answer = lab.get("/");
    assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("upstream_protocol")));
}

#[test]
fn what_comes_behind_an_answer_without_a_body_is_nobodys_answer() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    let mut client = lab.client();
    let answer = client.send("GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n").answer();
    assert_eq!(answer.status, 204);
    assert!(client.get("/about").text().starts_with("GET "), "the next answer is the next request's");
}

#[test]
fn an_answer_without_a_body_is_over_with_its_head() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("");
    let counted = |code: &str, times| {
        for view in ["client", "upstream"] {
            let name = format!("switchback_{view}_requests_total{{service=\"shop\"");
            lab.wait_for_metric(&[&name, &format!("code=\"{code}\",reason=\"\"")], times);
        }
    };
    let mut client = lab.client();
    client.send("GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n").answer();
    counted("204", 1.0);
    assert_eq!(client.send("HEAD /ends-late HTTP/1.1\r\nhost: a\r\n\r\n").head_answer().status, 200);
    counted("200", 1.0);
}

#[test]
fn a_length_without_its_body_is_within_every_limit() {
    let origin = Shared::start(Habit::default());
    let lab = origin.lab("limits = { response_body = \"1KiB\" }");
    let mut client = lab.client();
    assert_eq!(client.send("HEAD /long HTTP/1.1\r\nhost: a\r\n\r\n").head_answer().status, 200);
    assert_eq!(client.get("/unchanged").status, 304);
    let answer = client.get("/long");
    assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("response_too_large")));
}

#[test]
fn what_had_come_of_a_body_that_is_too_large_stands_in_the_access_log() {
    let origin = Shared::start(Habit::default());
    let log = "[access_log]\ntarget = \"file\"\npath = \"access.log\"";
    let lab = origin.lab(&format!("limits = {{ request_body = \"1KiB\" }}\n{log}"));
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512)).repeat(3);
    let request =
        format!("POST /hangs HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    assert_eq!(lab.client().send(request).answer().status, 413);
    let log = || std::fs::read_to_string(lab.dir.path().join("access.log")).unwrap_or_default();
    wait_until("it is written", || log().ends_with('\n'));
    let line: serde_json::Value = serde_json::from_str(&log()).unwrap();
    assert!(line["request_bytes"].as_u64().unwrap() > 1024, "{line}");
}

#[test]
fn with_so_many_requests_on_a_connection_another_one_is_opened() {
    let origin = Shared::start(Habit { hangs: true, ..Habit::default() });
    let mut lab = origin.lab("");
    lab.restrict_to_one_worker();
    let requests = |count| {
        (0..count).flat_map(|index| frame(frames::HEADERS, frames::WHOLE, 2 * index + 1, frames::get("/")))
    };
    let mut clients = [(); 3].map(|()| Frames::to(lab.address()));
    for (client, connections) in clients.iter_mut().zip([1, 1, 2]) {
        client.send(requests(90).collect::<Vec<_>>());
        (0..90).for_each(|_| assert_eq!(origin.saw(), "asked"));
        wait_until("another connection", || origin.connections() >= connections);
        assert_eq!(origin.connections(), connections);
    }
}
