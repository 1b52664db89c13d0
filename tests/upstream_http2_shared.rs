//! A connection to an endpoint that many clients share: what one of them does, or does not do, is nothing to the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod lab;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lab::frames::{
    self, ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WHOLE,
    WINDOW_UPDATE, frame,
};
use lab::preload::Preload;
use lab::{Frames, Lab, PATIENCE, Proxy, wait_until};
use socket2::SockRef;

/// Codes of errors (RFC 9113 §7).
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// An endpoint that sends exactly the frames it is told to, over the one connection that it takes.
struct Endpoint {
    proxy: Frames,
    /// How much it may send on a stream, and on all of them.
    each: usize,
    all: usize,
    given_up: usize,
    /// Streams of requests that came while something else was waited for.
    asked: VecDeque<u32>,
}

impl Endpoint {
    fn accept(listener: &TcpListener) -> io::Result<Self> {
        Self::announcing(listener, &[])
    }

    /// One that says this of itself.
    fn announcing(listener: &TcpListener, settings: &[(u16, u32)]) -> io::Result<Self> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut [0; frames::PREFACE.len()])?;
        let mut proxy = Frames::over(Box::new(stream));
        proxy.try_send(frames::settings(settings))?;
        Ok(Self { proxy, each: 65_535, all: 65_535, given_up: 0, asked: VecDeque::new() })
    }

    /// The stream of the next request.
    fn request(&mut self) -> io::Result<u32> {
        while self.asked.is_empty() {
            self.until(|piece| piece.kind == HEADERS)?;
        }
        self.asked.pop_front().ok_or_else(|| io::Error::other("nobody asks"))
    }

    /// Goes on when the proxy has read all that was sent.
    fn is_read(&mut self) -> io::Result<()> {
        self.proxy.try_send(frames::ping(b"all read"))?;
        self.until(|piece| piece.kind == PING).map(drop)
    }

    fn until(&mut self, is_it: impl Fn(&frames::Piece) -> bool) -> io::Result<frames::Piece> {
        loop {
            let piece = self.proxy.try_piece()?;
            let number =
                |at: usize| u32::from_be_bytes(piece.payload[at..at + 4].try_into().unwrap()) as usize;
            match piece.kind {
                SETTINGS if piece.flags & ACK == 0 => {
                    let mut windows =
                        (0..piece.payload.len()).step_by(6).filter(|at| piece.payload[at + 1] == 4);
                    self.each = windows.next().map_or(self.each, |at| number(at + 2));
                    self.proxy.try_send(frame(SETTINGS, ACK, 0, ""))?;
                }
                WINDOW_UPDATE if piece.stream == 0 => self.all += number(0),
                RST_STREAM => self.given_up += 1,
                HEADERS => self.asked.push_back(piece.stream),
                _ => {}
            }
            if is_it(&piece) {
                return Ok(piece);
            }
        }
    }

    /// Says that the connection is over, and what was the last stream that it has looked at.
    fn leave(&mut self, last: u32, code: u32) -> io::Result<()> {
        self.proxy.try_send(frame(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat()))
    }

    fn begin(&mut self, stream: u32) -> io::Result<()> {
        self.proxy.try_send(frame(HEADERS, END_HEADERS, stream, [0x88]))
    }

    /// Sends this on a stream, in frames of so many bytes, unless there is no room for it.
    fn send(&mut self, stream: u32, bytes: usize, piece: usize) -> io::Result<()> {
        self.all = self.all.checked_sub(bytes).ok_or_else(|| io::Error::other("no room for it"))?;
        let parts = vec![b'x'; bytes];
        let frames = parts.chunks(piece).flat_map(|part| frame(DATA, 0, stream, part));
        self.proxy.try_send(frames.collect::<Vec<_>>())
    }

    fn end(&mut self, stream: u32) -> io::Result<()> {
        self.proxy.try_send(frame(DATA, END_STREAM, stream, "ended"))
    }
}

/// A proxy with one worker, and where its only endpoint is to be.
fn in_front(settings: &str) -> (Lab, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\n{settings}\n[services.shop.versions.blue]\n\
         endpoints = [\"{}\"]\nprotocol = \"h2c\"\n",
        listener.local_addr().unwrap()
    );
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &text);
    lab.restrict_to_one_worker();
    (lab, listener)
}

/// The same whose process has this C library's `source` before its own.
fn in_front_of(source: &str) -> (Lab, TcpListener) {
    let (mut lab, listener) = in_front("");
    let library = Preload::compile(lab.dir.path(), source).variable();
    assert!(lab.proxy.take().unwrap().stop().0.success());
    lab.proxy = Proxy::start_as(&["env", &library], &["--workers", "1"], &lab.config(), &lab.socket()).ok();
    (lab, listener)
}

/// A proxy with one worker, and an endpoint that does this; it is to be joined when the proxy is gone.
fn lab(
    act: impl FnOnce(&mut Endpoint) -> io::Result<()> + Send + 'static,
) -> (Lab, JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "[services.shop]\nroutes = [{{ path = \"/\" }}]\n[services.shop.versions.blue]\nendpoints = [\"{}\"]\n\
         protocol = \"h2c\"\n",
        listener.local_addr().unwrap()
    );
    let origin = thread::spawn(move || {
        let mut endpoint = Endpoint::accept(&listener)?;
        drop(listener);
        act(&mut endpoint)?;
        while endpoint.proxy.try_piece().is_ok() {}
        Ok(())
    });
    let mut lab = Lab::configured(tempfile::tempdir().unwrap(), Vec::new(), &text);
    lab.restrict_to_one_worker();
    (lab, origin)
}

/// The streams of so many requests.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|index| 2 * index + 1)
}

fn requests(count: u32) -> Vec<u8> {
    streams(count).flat_map(|stream| frame(HEADERS, WHOLE, stream, frames::get("/"))).collect()
}

/// Its answers come late: all that was given up is answered again and again, as if it had not heard of that.
#[test]
fn those_who_give_up_cut_nobody_off() {
    const EACH: u32 = 90;
    const CLIENTS: u32 = 7;
    let (tell, asked) = mpsc::channel();
    let (lab, origin) = lab(move |endpoint| {
        let first = endpoint.request()?;
        endpoint.begin(first)?;
        let mut others = Vec::new();
        for _ in 0..EACH * CLIENTS {
            others.push(endpoint.request()?);
            tell.send(()).map_err(io::Error::other)?;
        }
        while endpoint.given_up < others.len() {
            endpoint.until(|piece| piece.kind == RST_STREAM)?;
        }
        for _ in 0..20 {
            others.iter().try_for_each(|stream| endpoint.begin(*stream))?;
            endpoint.is_read()?;
        }
        endpoint.end(first)
    });
    let mut patient = lab.client();
    patient.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(patient.head_answer().status, 200);
    for _ in 0..CLIENTS {
        let mut client = Frames::to(lab.address());
        client.send(requests(EACH));
        (0..EACH).for_each(|_| asked.recv_timeout(PATIENCE).unwrap());
        client.send(streams(EACH).flat_map(|stream| frames::reset(stream, 8)).collect::<Vec<_>>());
        assert!(client.is_alive());
    }
    let rest = b"5\r\nended\r\n0\r\n\r\n";
    assert_eq!(patient.bytes(rest.len()), rest);
    drop((patient, lab));
    origin.join().unwrap().unwrap();
}

/// More requests than an honest client gives up.
fn given_up(lab: &Lab, endpoint: &mut Endpoint) {
    const MANY: u32 = 80;
    let mut client = Frames::to(lab.address());
    client.send(requests(MANY));
    for _ in 0..MANY {
        endpoint.request().unwrap();
    }
    client.send(streams(MANY).flat_map(|stream| frames::reset(stream, 8)).collect::<Vec<_>>());
    while endpoint.given_up < MANY as usize {
        endpoint.until(|piece| piece.kind == RST_STREAM).unwrap();
    }
}

/// There are endpoints that end a connection for them, with the requests of all.
#[test]
fn a_connection_on_which_many_requests_were_given_up_is_replaced_and_what_runs_on_it_goes_on() {
    let (lab, listener) = in_front("");
    let (mut patient, mut next) = (lab.client(), lab.client());
    patient.send(small("/"));
    let mut endpoint = Endpoint::accept(&listener).unwrap();
    let first = endpoint.request().unwrap();
    given_up(&lab, &mut endpoint);
    next.send(small("/"));
    let mut fresh = Endpoint::accept(&listener).unwrap();
    fresh.request().unwrap();
    endpoint.begin(first).unwrap();
    endpoint.end(first).unwrap();
    assert_eq!(patient.answer().text(), "ended");
}

/// It may have no more of them.
#[test]
fn where_there_may_be_one_connection_it_is_not_replaced_before_it_has_no_request() {
    let (lab, listener) = in_front("circuit = { connections = 1 }");
    let (mut patient, mut next) = (lab.client(), lab.client());
    patient.send(small("/"));
    let mut endpoint = Endpoint::accept(&listener).unwrap();
    let first = endpoint.request().unwrap();
    given_up(&lab, &mut endpoint);
    next.send(small("/"));
    let stream = endpoint.request().unwrap();
    for (stream, client) in [(first, &mut patient), (stream, &mut next)] {
        endpoint.begin(stream).unwrap();
        endpoint.end(stream).unwrap();
        assert_eq!(client.answer().text(), "ended");
    }
    next.send(small("/"));
    Endpoint::accept(&listener).unwrap().request().unwrap();
}

/// It takes no more only while another one may be had.
#[test]
fn who_has_no_place_on_the_connection_that_replaces_another_has_one_on_that() {
    let (lab, listener) = in_front("circuit = { connections = 2 }");
    let mut patient = lab.client();
    patient.send(small("/"));
    let mut endpoint = Endpoint::accept(&listener).unwrap();
    endpoint.request().unwrap();
    given_up(&lab, &mut endpoint);
    let others = [2.0, 3.0].map(|in_flight| {
        let mut other = lab.client();
        other.send(small("/"));
        lab.wait_for_metric(&IN_FLIGHT, in_flight);
        other
    });
    let mut fresh = Endpoint::announcing(&listener, &[(MAX_CONCURRENT_STREAMS, 1)]).unwrap();
    fresh.request().unwrap();
    endpoint.request().unwrap();
    drop((patient, others));
}

/// `count` requests of each of so many clients that take nothing of their answers, which come in frames of so many bytes; then one
/// of another.
fn beside_those_who_take_nothing(
    (clients, count): (u32, u32),
    bytes: impl Fn(usize) -> usize + Send + 'static,
    piece: usize,
) {
    let (lab, origin) = lab(move |endpoint| {
        for _ in 0..clients * count {
            let stream = endpoint.request()?;
            endpoint.begin(stream)?;
            endpoint.send(stream, bytes(endpoint.each), piece)?;
        }
        endpoint.is_read()?;
        let other = endpoint.request()?;
        endpoint.begin(other)?;
        endpoint.send(other, 5, 5)?;
        endpoint.end(other)
    });
    let idle = (0..clients).map(|_| {
        let mut client = Frames::silent(lab.address()).open(&[(4, 0)]);
        client.send(requests(count));
        for _ in 0..count {
            client.until(|piece| piece.kind == HEADERS);
        }
        client
    });
    let idle: Vec<_> = idle.collect();
    assert_eq!(lab.get("/").text(), "xxxxxended");
    drop((idle, lab));
    origin.join().unwrap().unwrap();
}

#[test]
fn those_who_take_nothing_leave_room_for_others() {
    beside_those_who_take_nothing((1, 90), |window| window, 16_384);
}

/// They are more than share a connection while another can be opened.
#[test]
fn those_who_take_nothing_leave_room_for_others_on_the_only_connection() {
    beside_those_who_take_nothing((3, 90), |window| window, 16_384);
}

/// h2 reckons with what a frame costs beside its bytes.
#[test]
fn those_who_take_nothing_of_many_small_messages_cut_nobody_off() {
    beside_those_who_take_nothing((1, 90), |_| 3_000, 1);
}

/// What an endpoint has of the request's body: the frames' kinds and flags, and what they carry.
fn body_of(endpoint: &mut Endpoint, stream: u32) -> io::Result<Vec<(u8, u8, Vec<u8>)>> {
    let mut pieces = Vec::new();
    loop {
        let piece = endpoint.until(|piece| piece.stream == stream)?;
        let is_end = piece.flags & END_STREAM != 0;
        pieces.push((piece.kind, piece.flags, piece.payload));
        if is_end {
            return Ok(pieces);
        }
    }
}

/// HAProxy and nginx end a connection for a HEADERS frame without a field.
#[test]
fn trailers_of_which_nothing_is_left_are_an_end_and_no_empty_frame_of_fields() {
    let (tell, body) = mpsc::channel();
    let (lab, origin) = lab(move |endpoint| {
        let stream = endpoint.request()?;
        tell.send(body_of(endpoint, stream)?).map_err(io::Error::other)?;
        endpoint.begin(stream)?;
        endpoint.send(stream, 4, 4)?;
        // `set-cookie`, by HPACK's static table, as a literal.
        endpoint.proxy.try_send(frame(HEADERS, WHOLE, stream, b"\x0f\x28\x03a=b"))
    });
    let mut client = Frames::to(lab.address());
    client.send(frame(HEADERS, END_HEADERS, 1, frames::block(&frames::request("POST", "/"))));
    client.send(frame(DATA, 0, 1, "abc"));
    client.send(frame(HEADERS, WHOLE, 1, frames::block(&[("x_sum", "1")])));
    let pieces = body.recv_timeout(PATIENCE).unwrap();
    assert_eq!(pieces.last().unwrap(), &(DATA, END_STREAM, Vec::new()), "{pieces:?}");
    let end = client.until(|piece| piece.stream == 1 && piece.flags & END_STREAM != 0);
    assert_eq!((end.kind, end.payload.as_slice()), (DATA, &b""[..]));
    drop((client, lab));
    origin.join().unwrap().unwrap();
}

/// There are those who end a connection for a malformed field (RFC 9113 §8.2.1).
#[test]
fn a_malformed_trailer_is_refused_as_in_a_head() {
    let (lab, origin) = lab(|endpoint| {
        endpoint.request()?;
        endpoint
            .until(|piece| piece.kind == RST_STREAM || piece.flags & END_STREAM != 0)
            .and_then(|end| if end.kind == RST_STREAM { Ok(()) } else { Err(io::Error::other("it went on")) })
    });
    let mut client = Frames::to(lab.address());
    client.send(frame(HEADERS, END_HEADERS, 1, frames::block(&frames::request("POST", "/"))));
    client.send(frame(DATA, 0, 1, "abc"));
    client.send(frame(HEADERS, WHOLE, 1, frames::block(&[("x-sum", " 1 ")])));
    assert_eq!(client.status(1), 400);
    drop((client, lab));
    origin.join().unwrap().unwrap();
}

/// A client's library may end its connection for them.
#[test]
fn blanks_around_an_endpoints_values_do_not_reach_anybody() {
    let (lab, origin) = lab(|endpoint| {
        let stream = endpoint.request()?;
        let padded = frames::block(&[("x-kept", "\t a b ")]);
        endpoint.proxy.try_send(frame(HEADERS, END_HEADERS, stream, [&[0x88], &padded[..]].concat()))?;
        endpoint.send(stream, 4, 4)?;
        endpoint.proxy.try_send(frame(HEADERS, WHOLE, stream, padded))
    });
    let kept = [("x-kept".to_owned(), "a b".to_owned())];
    lab::http2::run(async {
        let answer = lab::Http2::to(lab.address()).await.get("/").await;
        assert!(answer.headers.contains(&kept[0]), "{:?}", answer.headers);
        assert_eq!(answer.trailers, kept);
    });
    drop(lab);
    origin.join().unwrap().unwrap();
}

/// More requests than a connection has while another can be opened.
#[test]
fn an_endpoint_that_accepts_no_further_connection_gets_all_requests_on_the_one_it_has() {
    const EACH: u32 = 90;
    const CLIENTS: u32 = 3;
    let (lab, origin) = lab(|endpoint| {
        let asked = (0..EACH * CLIENTS).map(|_| endpoint.request()).collect::<io::Result<Vec<_>>>()?;
        asked.into_iter().try_for_each(|stream| {
            endpoint.begin(stream)?;
            endpoint.end(stream)
        })
    });
    let mut clients = [(); CLIENTS as usize].map(|()| Frames::to(lab.address()));
    for client in &mut clients {
        client.send(requests(EACH));
    }
    for client in &mut clients {
        for _ in 0..EACH {
            assert_eq!(client.until(|piece| piece.kind == HEADERS).status(), Some(200));
        }
    }
    drop((clients, lab));
    origin.join().unwrap().unwrap();
}

const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// A request, and one whose head is larger than some endpoints take.
fn small(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes()
}

fn large(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\ncookie: {}\r\n\r\n", "c".repeat(8_000)).into_bytes()
}

/// There are endpoints that end a connection for one, with everybody's requests.
#[test]
fn a_head_that_is_larger_than_its_endpoint_says_it_takes_is_not_sent() {
    let (lab, listener) = in_front("");
    let mut client = lab.client();
    client.send(small("/"));
    let mut endpoint = Endpoint::announcing(&listener, &[(MAX_HEADER_LIST_SIZE, 4_000)]).unwrap();
    let first = endpoint.request().unwrap();
    let mut other = lab.client();
    let answer = other.send(large("/")).answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (431, Some("head_too_large")));
    endpoint.begin(first).unwrap();
    endpoint.end(first).unwrap();
    assert_eq!(client.answer().text(), "ended");
    client.send(small("/"));
    assert_eq!(endpoint.request().unwrap(), first + 2, "it has not seen another one");
}

/// It says how large a head may be: so it knows how to refuse one.
#[test]
fn a_large_head_shares_a_connection_with_others_if_its_endpoint_says_that_it_takes_it() {
    let (lab, listener) = in_front("");
    let (mut client, mut other) = (lab.client(), lab.client());
    client.send(small("/"));
    let mut endpoint = Endpoint::announcing(&listener, &[(MAX_HEADER_LIST_SIZE, 16_384)]).unwrap();
    let first = endpoint.request().unwrap();
    other.send(large("/"));
    assert_eq!(endpoint.request().unwrap(), first + 2);
}

/// Their requests would go with it.
#[test]
fn a_large_head_shares_a_connection_with_nobody_if_it_is_not_known_what_its_endpoint_takes() {
    let (lab, listener) = in_front("circuit = { connections = 4 }");
    let mut clients = [(); 6].map(|()| lab.client());
    clients[0].send(large("/"));
    let mut alone = Endpoint::accept(&listener).unwrap();
    let first = alone.request().unwrap();
    clients[1].send(small("/"));
    let mut shared = Endpoint::accept(&listener).unwrap();
    shared.request().unwrap();
    clients[2].send(large("/"));
    let mut second = Endpoint::accept(&listener).unwrap();
    second.request().unwrap();
    // Half of them are for those who share.
    clients[3].send(large("/"));
    clients[4].send(small("/"));
    shared.request().unwrap();
    alone.begin(first).unwrap();
    alone.end(first).unwrap();
    assert_eq!(clients[0].answer().text(), "ended");
    let waited = alone.request().unwrap();
    alone.begin(waited).unwrap();
    alone.end(waited).unwrap();
    assert_eq!(clients[3].answer().text(), "ended");
    clients[5].send(small("/"));
    assert_eq!(alone.request().unwrap(), waited + 2, "it is like any other now");
}

#[test]
fn a_large_head_that_finds_no_connection_for_itself_is_refused_and_its_endpoint_not_blamed() {
    let (lab, listener) = in_front("circuit = { connections = 2, queue_timeout = \"50ms\" }");
    let (mut client, mut other) = (lab.client(), lab.client());
    client.send(large("/"));
    let mut endpoint = Endpoint::accept(&listener).unwrap();
    endpoint.request().unwrap();
    let answer = other.send(large("/")).answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (503, Some("circuit_open")));
}

/// What ended one connection would end the next.
#[test]
fn a_head_for_which_an_endpoint_ends_its_connection_goes_nowhere_else() {
    let (lab, listener) = in_front("");
    let mut client = lab.client();
    client.send(large("/"));
    let mut endpoint = Endpoint::accept(&listener).unwrap();
    endpoint.request().unwrap();
    endpoint.leave(1, ENHANCE_YOUR_CALM).unwrap();
    drop(endpoint);
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (431, Some("head_too_large")));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "it was not sent again");
}

#[test]
fn of_the_requests_of_a_connection_that_ends_with_an_error_the_newest_is_not_sent_again() {
    let (lab, listener) = in_front("");
    let (mut client, mut other) = (lab.client(), lab.client());
    client.send(small("/first"));
    let mut endpoint = Endpoint::accept(&listener).unwrap();
    let first = endpoint.request().unwrap();
    other.send(small("/second"));
    assert_eq!(endpoint.request().unwrap(), first + 2);
    // It says that it has looked at none.
    endpoint.leave(0, PROTOCOL_ERROR).unwrap();
    drop(endpoint);
    let answer = other.answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("upstream_closed")));
    let mut next = Endpoint::accept(&listener).unwrap();
    let again = next.request().unwrap();
    next.begin(again).unwrap();
    next.end(again).unwrap();
    assert_eq!(client.answer().text(), "ended");
}

/// There are endpoints that end a connection for any.
#[test]
fn trailers_that_are_announced_share_a_connection_with_nobody_and_others_are_dropped() {
    let (lab, listener) = in_front("");
    let (mut client, mut other, mut third) = (lab.client(), lab.client(), lab.client());
    let upload = |announced: &str| {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{announced}transfer-encoding: chunked\r\n\r\n");
        head + "3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"
    };
    client.send(small("/"));
    let mut shared = Endpoint::accept(&listener).unwrap();
    shared.request().unwrap();
    other.send(upload("trailer: x-sum\r\n"));
    let mut alone = Endpoint::accept(&listener).unwrap();
    let stream = alone.request().unwrap();
    assert_eq!(body_of(&mut alone, stream).unwrap().last().unwrap().0, HEADERS);
    third.send(upload(""));
    let stream = shared.request().unwrap();
    assert_eq!(body_of(&mut shared, stream).unwrap().last().unwrap().0, DATA);
}

const IN_FLIGHT: [&str; 3] = ["switchback_in_flight{", "version=\"blue\"", "kind=\"request\""];

/// One that waits for its endpoint is not h2's, which would send it, late and in its order, whatever has become of its client.
#[test]
fn a_request_whose_client_leaves_before_its_endpoint_has_room_is_not_sent() {
    let (lab, listener) = in_front("circuit = { connections = 1 }");
    let (mut client, mut leaver, mut patient) = (lab.client(), lab.client(), lab.client());
    client.send(small("/"));
    let mut endpoint = Endpoint::announcing(&listener, &[(MAX_CONCURRENT_STREAMS, 1)]).unwrap();
    let first = endpoint.request().unwrap();
    leaver.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    lab.wait_for_metric(&IN_FLIGHT, 2.0);
    patient.send(small("/"));
    lab.wait_for_metric(&IN_FLIGHT, 3.0);
    drop(leaver);
    lab.wait_for_metric(&IN_FLIGHT, 2.0);
    endpoint.begin(first).unwrap();
    endpoint.end(first).unwrap();
    assert_eq!(client.answer().text(), "ended");
    let second = endpoint.request().unwrap();
    endpoint.begin(second).unwrap();
    endpoint.end(second).unwrap();
    assert_eq!(patient.answer().text(), "ended");
    client.send(small("/"));
    assert_eq!((second, endpoint.request().unwrap(), endpoint.given_up), (first + 2, first + 4, 0));
}

#[test]
fn a_request_for_which_an_endpoint_has_no_room_in_time_is_not_sent() {
    let settings = "circuit = { connections = 1 }\ntimeouts = { response = \"300ms\" }";
    let (lab, listener) = in_front(settings);
    let (mut client, mut other) = (lab.client(), lab.client());
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na");
    let mut endpoint = Endpoint::announcing(&listener, &[(MAX_CONCURRENT_STREAMS, 1)]).unwrap();
    let first = endpoint.request().unwrap();
    let answer = other.send(small("/")).answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (504, Some("response_timeout")));
    endpoint.begin(first).unwrap();
    endpoint.end(first).unwrap();
    assert_eq!(client.answer().text(), "ended");
    other.send(small("/"));
    assert_eq!(endpoint.request().unwrap(), first + 2);
}

#[test]
fn a_request_that_waits_for_room_is_cut_with_its_version() {
    let settings = "stable = \"blue\"\ncircuit = { connections = 1 }\n\
                    drain = { patience = \"0s\", spread = \"0s\", deadline = \"300ms\" }\n\
                    [services.shop.versions.green]\nendpoints = [\"127.0.0.1:9\"]\n";
    let (lab, listener) = in_front(settings);
    let (mut client, mut other) = (lab.client(), lab.client());
    client.send(small("/"));
    let mut endpoint = Endpoint::announcing(&listener, &[(MAX_CONCURRENT_STREAMS, 1)]).unwrap();
    endpoint.request().unwrap();
    other.send(small("/"));
    lab.wait_for_metric(&IN_FLIGHT, 2.0);
    lab.flip("green");
    for client in [&mut client, &mut other] {
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("switchback-reason")), (503, Some("drain_deadline")));
    }
    endpoint.until(|piece| piece.kind == RST_STREAM).unwrap();
    endpoint.is_read().unwrap();
    assert!(endpoint.asked.is_empty(), "nothing else was sent");
}

/// An endpoint may say at any time how many it takes (RFC 9113 §6.5.2), and that it takes none.
#[test]
fn requests_wait_while_an_endpoint_takes_none_and_go_when_it_does_again() {
    let (lab, listener) = in_front("circuit = { connections = 1 }");
    let mut clients = [(); 3].map(|()| lab.client());
    clients[0].send(small("/"));
    let mut endpoint = Endpoint::announcing(&listener, &[(MAX_CONCURRENT_STREAMS, 0)]).unwrap();
    endpoint.is_read().unwrap();
    lab.wait_for_metric(&IN_FLIGHT, 1.0);
    endpoint.is_read().unwrap();
    assert!(endpoint.asked.is_empty());
    let takes = |endpoint: &mut Endpoint, most| {
        endpoint.proxy.try_send(frames::settings(&[(MAX_CONCURRENT_STREAMS, most)])).unwrap();
    };
    takes(&mut endpoint, 1);
    let first = endpoint.request().unwrap();
    takes(&mut endpoint, 0);
    endpoint.is_read().unwrap();
    clients[1].send(small("/"));
    clients[2].send(small("/"));
    lab.wait_for_metric(&IN_FLIGHT, 3.0);
    endpoint.begin(first).unwrap();
    endpoint.end(first).unwrap();
    assert_eq!(clients[0].answer().text(), "ended");
    endpoint.is_read().unwrap();
    assert!(endpoint.asked.is_empty());
    takes(&mut endpoint, 2);
    assert_eq!([endpoint.request().unwrap(), endpoint.request().unwrap()], [first + 2, first + 4]);
}

#[test]
fn requests_that_wait_for_a_connection_that_ends_go_on_another_one() {
    let (lab, listener) = in_front("circuit = { connections = 1 }");
    let mut clients = [(); 3].map(|()| lab.client());
    clients[0].send(small("/"));
    let mut endpoint = Endpoint::announcing(&listener, &[(MAX_CONCURRENT_STREAMS, 1)]).unwrap();
    let first = endpoint.request().unwrap();
    clients[1].send(small("/"));
    clients[2].send(small("/"));
    lab.wait_for_metric(&IN_FLIGHT, 3.0);
    endpoint.leave(first, 0).unwrap();
    let mut next = Endpoint::accept(&listener).unwrap();
    next.request().unwrap();
    next.request().unwrap();
    endpoint.begin(first).unwrap();
    endpoint.end(first).unwrap();
    assert_eq!(clients[0].answer().text(), "ended");
}

#[test]
fn a_connection_that_ends_with_a_request_in_hand_is_the_versions_failure_unless_it_was_idle() {
    let (lab, listener) = in_front("");
    let mut client = lab.client();
    let answers = |endpoint: &mut Endpoint, client: &mut lab::Client| {
        let stream = endpoint.request().unwrap();
        endpoint.begin(stream).unwrap();
        endpoint.end(stream).unwrap();
        assert_eq!(client.answer().text(), "ended");
    };
    client.send(small("/"));
    let mut endpoint = Endpoint::accept(&listener).unwrap();
    answers(&mut endpoint, &mut client);
    for (rest, counted) in [(Duration::ZERO, [1.0, 0.0]), (Duration::from_millis(1300), [1.0, 1.0])] {
        thread::sleep(rest);
        client.send(small("/"));
        endpoint.request().unwrap();
        drop(endpoint);
        endpoint = Endpoint::accept(&listener).unwrap();
        answers(&mut endpoint, &mut client);
        let closed = lab.metric_total("switchback_upstream_requests_total{", "reason=\"upstream_closed\"");
        let afresh = lab.metric(&["switchback_retries_total{", "outcome=\"reconnected\""]).unwrap();
        assert_eq!([closed, afresh], counted);
    }
}

/// One that is accepted and never served: there are those who serve one connection at a time, and firewalls that drop.
#[test]
fn who_waits_while_a_further_connection_does_not_come_to_be_is_served_by_the_one_there_is_in_order_of_arrival()
 {
    let (lab, listener) = in_front("timeouts = { connect = \"200ms\" }");
    let mut clients = [(); 4].map(|()| lab.client());
    clients[0].send(small("/"));
    let mut endpoint = Endpoint::announcing(&listener, &[(MAX_CONCURRENT_STREAMS, 1)]).unwrap();
    let first = endpoint.request().unwrap();
    for (client, in_flight) in clients[1..].iter_mut().zip([2.0, 3.0, 4.0]) {
        client.send(small("/"));
        lab.wait_for_metric(&IN_FLIGHT, in_flight);
    }
    let further = [(); 2].map(|()| listener.accept().unwrap());
    for (client, stream) in clients.iter_mut().zip((first..).step_by(2)) {
        endpoint.begin(stream).unwrap();
        endpoint.end(stream).unwrap();
        assert_eq!(client.answer().text(), "ended");
        if stream < first + 6 {
            assert_eq!(endpoint.request().unwrap(), stream + 2);
        }
    }
    drop(further);
}

#[test]
fn a_connection_that_does_not_come_to_be_fails_all_who_have_no_other() {
    let (lab, listener) = in_front("");
    let mut clients = [(); 3].map(|()| lab.client());
    for (client, in_flight) in clients.iter_mut().zip([1.0, 2.0, 3.0]) {
        client.send(small("/"));
        lab.wait_for_metric(&IN_FLIGHT, in_flight);
    }
    drop(listener.accept().unwrap());
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("upstream_protocol")));
    }
    clients[0].send(small("/"));
    let mut endpoint = Endpoint::accept(&listener).unwrap();
    let stream = endpoint.request().unwrap();
    endpoint.begin(stream).unwrap();
    endpoint.end(stream).unwrap();
    assert_eq!(clients[0].answer().text(), "ended");
}

/// One that is shutting down, and accepts as long as it can.
#[test]
fn an_endpoint_that_ends_every_connection_at_once_is_given_up() {
    let (lab, listener) = in_front("");
    let mut client = lab.client();
    client.send(small("/"));
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(&[frames::settings(&[]), frame(GOAWAY, 0, 0, [0; 8])].concat()).unwrap();
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("switchback-reason")), (502, Some("upstream_protocol")));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "it is not tried again and again");
}

/// Those who want a connection alone take it from those who share only up to their half, also where it has no request just now.
#[test]
fn large_heads_take_no_more_connections_than_their_half_and_nobody_opens_more_than_there_may_be() {
    let (lab, listener) = in_front("circuit = { connections = 2 }");
    let mut clients = [(); 4].map(|()| lab.client());
    let served = |endpoint: &mut Endpoint, client: &mut lab::Client| {
        let stream = endpoint.request().unwrap();
        endpoint.begin(stream).unwrap();
        endpoint.end(stream).unwrap();
        assert_eq!(client.answer().text(), "ended");
        stream
    };
    clients[0].send(small("/"));
    let mut alone = Endpoint::accept(&listener).unwrap();
    served(&mut alone, &mut clients[0]);
    clients[1].send(large("/"));
    alone.request().unwrap();
    clients[0].send(small("/"));
    let mut shared = Endpoint::accept(&listener).unwrap();
    let stream = served(&mut shared, &mut clients[0]);
    clients[2].send(large("/"));
    lab.wait_for_metric(&IN_FLIGHT, 2.0);
    clients[3].send(small("/"));
    assert_eq!(served(&mut shared, &mut clients[3]), stream + 2);
    clients[0].send(small("/"));
    assert_eq!(served(&mut shared, &mut clients[0]), stream + 4);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "there are no others");
}

/// A process whose sockets are full soon.
const SMALL: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>

int socket(int domain, int type, int protocol) {
    static int (*next)(int, int, int);
    if (!next) next = dlsym(RTLD_NEXT, "socket");
    int made = next(domain, type, protocol), size = 4096;
    setsockopt(made, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    return made;
}
"#;

#[test]
fn what_an_endpoint_that_ends_its_side_has_not_been_sent_it_is_not_sent_after_all() {
    let (lab, listener) = in_front_of(SMALL);
    SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    let mut uploader = TcpStream::connect(lab.address()).unwrap();
    uploader.write_all(b"POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 90000000\r\n\r\n").unwrap();
    let mut endpoint = Endpoint::announcing(&listener, &[(INITIAL_WINDOW_SIZE, 1 << 24)]).unwrap();
    endpoint.request().unwrap();
    endpoint.proxy.send(frames::window_update(0, 1 << 24));
    endpoint.is_read().unwrap();
    // From here on the endpoint reads nothing.
    uploader.write_all(&[b'u'; 64 << 10]).unwrap();
    // The kernel takes a little more of it for a while, and tells nobody when it does not any more.
    thread::sleep(Duration::from_millis(500));
    let mut payer = lab.client();
    payer.send("POST /pay HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nonce");
    wait_until("both are under way", || lab.metric_sum("switchback_in_flight{") == 2.0);
    endpoint.proxy.socket().shutdown(Shutdown::Write).unwrap();
    thread::spawn(move || {
        let mut other = Endpoint::accept(&listener).unwrap();
        let stream = other.request().unwrap();
        other.begin(stream).unwrap();
        other.end(stream).unwrap();
        while other.proxy.try_piece().is_ok() {}
    });
    let is_paid_afresh = payer.answer().status == 200;
    let is_paid_late = endpoint.proxy.rest().iter().any(|piece| piece.kind == HEADERS);
    assert_ne!(is_paid_afresh, is_paid_late, "afresh: {is_paid_afresh}");
}

/// A process that cannot write the head of a connection's second request before it has read that connection's end.
const LATE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static int waits = -1, has_ended;

ssize_t send(int socket, const void *bytes, size_t length, int flags) {
    static ssize_t (*next)(int, const void *, size_t, int);
    if (!next) next = dlsym(RTLD_NEXT, "send");
    const char *frame = bytes;
    if (waits < 0 && length > 9 && frame[3] == 1 && !memcmp(frame + 5, "\0\0\0\3", 4)) {
        waits = socket;
        fputs("the head waits\n", stderr);
    }
    if (socket == waits && !has_ended) {
        errno = EAGAIN;
        return -1;
    }
    return next(socket, bytes, length, flags);
}

ssize_t recv(int socket, void *bytes, size_t length, int flags) {
    static ssize_t (*next)(int, void *, size_t, int);
    if (!next) next = dlsym(RTLD_NEXT, "recv");
    ssize_t read = next(socket, bytes, length, flags);
    if (socket == waits && read == 0) has_ended = 1;
    return read;
}
"#;

#[test]
fn what_goes_out_as_an_endpoint_ends_its_side_is_not_sent_again() {
    let (lab, listener) = in_front_of(LATE);
    let mut client = lab.client();
    client.send(small("/"));
    let mut endpoint = Endpoint::accept(&listener).unwrap();
    let stream = endpoint.request().unwrap();
    endpoint.begin(stream).unwrap();
    endpoint.end(stream).unwrap();
    assert_eq!(client.answer().text(), "ended");
    client.send("POST /pay HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nonce");
    lab.proxy().wait_for_log("the head waits");
    endpoint.proxy.socket().shutdown(Shutdown::Write).unwrap();
    let stream = endpoint.request().unwrap();
    endpoint.until(|piece| (piece.stream, piece.flags) == (stream, END_STREAM)).unwrap();
    assert_eq!(client.answer().said(), (502, "upstream_closed"));
}
