//! Clients that are slow or silent, of every kind: each connection is reclaimed within its configured time, and who is slow but
//! honest is served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use http::Method;
use lab::http2::{self, Http2};
use lab::origin::Then;
use lab::{Client, Lab, Origin, PATIENCE};
use socket2::{Domain, Socket, Type};

/// Everything a client may take its time for takes 300 ms at most.
const LIMITS: &str =
    "[limits]\nhead = \"300ms\"\nidle = \"300ms\"\nwrite_stall = \"300ms\"\nmin_body_rate = 1000";
const TIMEOUTS: &str = "timeouts = { progress = \"300ms\" }";

/// Much shorter than the limits, so that no pause alone is too long.
const DRIP: Duration = Duration::from_millis(30);

fn lab(origin: Origin) -> Lab {
    Lab::pool(vec![origin], &[], LIMITS, TIMEOUTS)
}

fn quick() -> Lab {
    lab(Origin::start("blue"))
}

/// Answers with more than any buffer holds.
fn generous_origin() -> Origin {
    Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")?;
        while stream.write_all(&[0; 65_536]).is_ok() {}
        Ok(Then::Close)
    })
}

fn generous() -> Lab {
    lab(generous_origin())
}

/// No connection is left.
fn is_reclaimed(lab: &Lab) {
    lab.wait_for_metric(&["switchback_client_connections "], 0.0);
}

/// Sends `first`, then `drips` one after the other and again, until the proxy has had enough: what it said.
fn drips(lab: &Lab, first: &str, drips: &[&str]) -> u16 {
    let mut client = lab.client();
    client.send(first);
    let since = Instant::now();
    let mut sender = client.sender();
    sender.set_read_timeout(Some(DRIP)).unwrap();
    for drip in drips.iter().cycle() {
        assert!(since.elapsed() < PATIENCE, "the proxy bears it for ever");
        // The answer comes while it still drips.
        if sender.write_all(drip.as_bytes()).is_err() || sender.peek(&mut [0]).is_ok() {
            break;
        }
    }
    let status = client.try_answer().map_or(0, |answer| answer.status);
    // It is told, and stays all the same: the other half of the connection is still open.
    is_reclaimed(lab);
    status
}

#[test]
fn who_says_nothing_behind_accept() {
    let lab = quick();
    let mut client = lab.client();
    assert_eq!(client.rest(), b"", "closed without a word");
    is_reclaimed(&lab);
}

#[test]
fn who_sends_nothing_but_empty_lines() {
    drips(&quick(), "\r\n", &["\r\n"]);
}

#[test]
fn whose_head_comes_byte_by_byte() {
    let status = drips(&quick(), "GET / HTTP/1.1\r\nhost: a\r\nx: ", &["y"]);
    assert!(matches!(status, 0 | 408), "{status}");
}

#[test]
fn whose_head_comes_line_by_line() {
    let status = drips(&quick(), "GET / HTTP/1.1\r\nhost: a\r\n", &["x: y\r\n"]);
    assert!(matches!(status, 0 | 408), "{status}");
}

#[test]
fn whose_body_of_known_length_comes_byte_by_byte() {
    assert_eq!(drips(&quick(), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n", &["y"]), 408);
}

#[test]
fn whose_body_calls_itself_one_of_grpc_but_comes_over_http1() {
    let call =
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 100000\r\n\r\n";
    assert_eq!(drips(&quick(), call, &["y"]), 408);
}

#[test]
fn whose_chunks_come_one_by_one() {
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(drips(&quick(), chunked, &["1\r\ny\r\n"]), 408);
}

#[test]
fn whose_chunk_size_never_ends() {
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=";
    assert_eq!(drips(&quick(), chunked, &["y"]), 408);
}

#[test]
fn whose_trailers_come_byte_by_byte() {
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: ";
    assert_eq!(drips(&quick(), chunked, &["y"]), 408);
}

#[test]
fn who_never_reads_the_answer() {
    let lab = generous();
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    is_reclaimed(&lab);
    drop(client);
}

#[test]
fn who_reads_the_answer_byte_by_byte() {
    let lab = generous();
    // The smallest buffer there is: the window opens again only when half of it is free.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&lab.address().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let since = Instant::now();
    let mut byte = [0];
    while lab.metric(&["switchback_client_connections "]) != Some(0.0) {
        assert!(since.elapsed() < PATIENCE, "the proxy bears it for ever");
        std::thread::sleep(DRIP);
        let _ = stream.read(&mut byte);
    }
}

/// Takes the answer at `generous` in gulps with pauses in between, until the proxy has had enough or for `most` bytes.
fn gulps(lab: &Lab, most: usize) -> usize {
    let mut stream = TcpStream::connect(lab.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let (mut taken, mut gulp) = (0, vec![0; 1 << 20]);
    while taken < most {
        match stream.read_exact(&mut gulp) {
            Ok(()) => taken += gulp.len(),
            Err(_) => break,
        }
        std::thread::sleep(DRIP);
    }
    taken
}

/// More than a client of `gulps` takes, and more than the kernels hold.
const MUCH: usize = 100 << 20;

#[test]
fn who_reads_on_and_on_but_too_little() {
    // It never pauses for as long as it may, and takes some 30 MB a second of a gigabyte.
    let limits = "[limits]\nwrite_stall = \"1s\"\nmin_drain_rate = 1_000_000_000";
    let lab = Lab::pool(vec![generous_origin()], &[], limits, "");
    assert!(gulps(&lab, MUCH) < MUCH, "the proxy bears it");
    is_reclaimed(&lab);
    let reason = "reason=\"client_stalled\"";
    lab.wait_for_metric(&["switchback_client_requests_total{", "version=\"blue\"", reason], 1.0);
}

#[test]
fn who_reads_slowly_but_enough_is_served() {
    // The last takes longer in all than it may owe.
    for (stall, rate) in [("5s", 0), ("5s", 100), ("2s", 1_000_000)] {
        let limits = format!("[limits]\nwrite_stall = \"{stall}\"\nmin_drain_rate = {rate}");
        let lab = Lab::pool(vec![generous_origin()], &[], &limits, "");
        assert_eq!(gulps(&lab, MUCH), MUCH);
    }
}

#[test]
fn whose_endpoint_is_slow_is_not_to_blame() {
    let origin = Origin::behaving("blue", |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n")?;
        for _ in 0..20 {
            stream.write_all(b"x")?;
            std::thread::sleep(DRIP);
        }
        Ok(Then::Keep)
    });
    let limits = "[limits]\nwrite_stall = \"100ms\"\nmin_drain_rate = 1_000_000";
    let lab = Lab::pool(vec![origin], &[], limits, "");
    assert_eq!(lab.get("/").text(), "x".repeat(20));
}

#[test]
fn who_does_not_read_has_no_more_time_in_all_than_others() {
    let limits = "[limits]\nwrite_stall = \"5m\"";
    let lab = Lab::pool(vec![generous_origin()], &[], limits, "timeouts = { total = \"500ms\" }");
    let mut client = lab.client();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    is_reclaimed(&lab);
    let reason = "reason=\"deadline\"";
    lab.wait_for_metric(&["switchback_client_requests_total{", "version=\"blue\"", reason], 1.0);
    drop(client);
}

#[test]
fn who_keeps_the_connection_and_asks_nothing() {
    let lab = quick();
    let mut client = lab.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.rest(), b"", "closed without a word");
    is_reclaimed(&lab);
}

#[test]
fn who_closes_half_of_the_connection() {
    let lab = quick();
    for request in
        ["", "GET / HTTP/1.1\r\nhost", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc"]
    {
        let mut client = lab.client();
        client.send(request).finish_sending();
        let _ = client.rest();
        is_reclaimed(&lab);
    }
}

#[test]
fn who_asks_again_and_again_and_reads_nothing() {
    let lab = generous();
    let client: Client = lab.client();
    let mut sender = client.sender();
    sender.set_write_timeout(Some(DRIP)).unwrap();
    let since = Instant::now();
    loop {
        assert!(since.elapsed() < PATIENCE, "the proxy bears it for ever");
        let sent = sender.write_all(&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000));
        if sent.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock) {
            break;
        }
    }
    is_reclaimed(&lab);
}

#[test]
fn who_is_slow_but_sends_enough_is_served() {
    let lab = quick();
    let mut client = lab.client();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20000\r\n\r\n");
    let mut sender = client.sender();
    for _ in 0..20 {
        sender.write_all(&[0; 1000]).unwrap();
        std::thread::sleep(DRIP);
    }
    assert_eq!(client.answer().status, 200, "it took twice as long as it may pause");
}

/// Answers without an end, in the way that the path asks for.
fn endless(name: &str) -> Origin {
    Origin::behaving(name, |seen, stream| {
        let zeros = [0; 65_536];
        let (head, first, part) = match seen.path() {
            "/known" => ("200 OK\r\ncontent-length: 100000000000", &b""[..], zeros.to_vec()),
            // One message of one frame.
            "/chat" => (
                "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x",
                &[0x82, 127, 0, 0, 0, 255, 0, 0, 0, 0][..],
                zeros.to_vec(),
            ),
            _ => (
                "200 OK\r\ntransfer-encoding: chunked",
                &b""[..],
                [b"10000\r\n", &zeros[..], b"\r\n"].concat(),
            ),
        };
        stream.write_all(&[b"HTTP/1.1 ", head.as_bytes(), b"\r\n\r\n", first].concat())?;
        while stream.write_all(&part).is_ok() {}
        Ok(Then::Close)
    })
}

/// The same over HTTP/2: as much as the windows allow.
fn endless_over_http2() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        let send = respond.send_response(http::Response::new(()), false).unwrap();
                        tokio::spawn(http2::upload(send, vec![0; 100_000_000].into(), None));
                    }
                });
            }
        });
    });
    address
}

/// `shop` with blue and green at these addresses, whose clients may take nothing for longer than the test lasts, unless
/// their version is left.
fn left_soon(origins: Vec<Origin>, protocol: &str, blue: SocketAddr, green: SocketAddr) -> Lab {
    let services = format!(
        "[limits]\nwrite_stall = \"10m\"\n[services.shop]\nroutes = [{{}}]\nstable = \"blue\"\n\
         drain = {{ patience = \"0s\", spread = \"0s\", deadline = \"300ms\" }}\n\
         versions.blue = {{ endpoints = [\"{blue}\"], protocol = \"{protocol}\" }}\n\
         versions.green = {{ endpoints = [\"{green}\"], protocol = \"{protocol}\" }}\n"
    );
    Lab::configured(tempfile::tempdir().unwrap(), origins, &services)
}

/// The version that has the traffic is left, and nothing is left on it.
fn leave(lab: &Lab, is_blue: &mut bool) {
    let (from, to) = if *is_blue { ("blue", "green") } else { ("green", "blue") };
    *is_blue = !*is_blue;
    let mut events = lab.events();
    lab.flip(to);
    events.drained(from);
}

/// Asks for `path` over HTTP/1.1, takes the head and no more.
fn stalls(lab: &Lab, path: &str, fields: &str) -> Client {
    let mut client = lab.client();
    client.send(format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n"));
    while !client.line().is_empty() {}
    client
}

/// The same over HTTP/2: a stream's first window and no more, until `leave` has returned.
fn stalls_over_http2(lab: &Lab, path: &str, leave: impl FnOnce()) {
    http2::run(async {
        let client = Http2::to(lab.address()).await;
        let (answer, _) = client.start(http2::request(Method::GET, path), true).await;
        let mut body = answer.await.unwrap().into_body();
        let first = body.data().await.unwrap().unwrap();
        assert!(!first.is_empty());
        leave();
        // What was under way comes, and then that there is no more.
        let mut end = None;
        while end.is_none() {
            end = body.data().await.unwrap().err();
        }
        assert_eq!(end.unwrap().reason(), Some(h2::Reason::INTERNAL_ERROR));
    });
}

/// So many requests of each version were ended by the deadline.
fn are_cut(lab: &Lab, times: f64) {
    for version in ["blue", "green"] {
        let version = format!("version=\"{version}\"");
        let cut = ["switchback_upstream_requests_total{", &version, "reason=\"drain_deadline\""];
        lab.wait_for_metric(&cut, times);
    }
}

/// Where an answer's version is left, its client has until the deadline, however much of the answer is still to be taken.
#[test]
fn who_takes_nothing_holds_no_drain_up_beyond_its_deadline() {
    let (blue, green) = (endless("blue"), endless("green"));
    let (at_blue, at_green) = (blue.address, green.address);
    let lab = left_soon(vec![blue, green], "http1", at_blue, at_green);
    let (mut is_blue, mut clients) = (true, Vec::new());
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, fields) in [("/known", ""), ("/chunked", ""), ("/chat", upgrade)] {
        let mut client = stalls(&lab, path, fields);
        // Of a frame, the beginning.
        client.bytes(16);
        clients.push(client);
        leave(&lab, &mut is_blue);
    }
    stalls_over_http2(&lab, "/known", || leave(&lab, &mut is_blue));
    are_cut(&lab, 2.0);
}

#[test]
fn nor_where_the_endpoint_speaks_http2() {
    let lab = left_soon(Vec::new(), "h2c", endless_over_http2(), endless_over_http2());
    let mut is_blue = true;
    let client = stalls(&lab, "/", "");
    leave(&lab, &mut is_blue);
    stalls_over_http2(&lab, "/", || leave(&lab, &mut is_blue));
    are_cut(&lab, 1.0);
    drop(client);
}
