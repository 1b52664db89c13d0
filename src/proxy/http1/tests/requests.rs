//! Requests of clients, well-formed and not; hyper's server is the oracle.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use proptest::prelude::*;
use proptest::{collection, sample};

use crate::proxy::http1::*;

/// A request as somebody read it: method, target, body.
type Read = (String, String, Vec<u8>);

/// Reads requests off `text`, which comes in pieces, up to the first that is not sound or not whole; also how that went.
fn read(text: &[u8], piece: usize) -> (Vec<Read>, Option<Refused>) {
    let (mut input, mut pieces, mut all) = (Bytes::new(), text.chunks(piece.max(1)), Vec::new());
    loop {
        let request = match parse_request(&mut input, 32 * 1024, 100) {
            Ok(Some(request)) => request,
            Err(refused) => return (all, Some(refused)),
            Ok(None) => match pieces.next() {
                Some(piece) => {
                    input = [&input, piece].concat().into();
                    continue;
                }
                None => return (all, None),
            },
        };
        let (mut decoder, mut body) = (request.body, Vec::new());
        loop {
            match decoder.decode(&mut input) {
                Ok(Decoded::Data(data)) => body.extend_from_slice(&data),
                Ok(Decoded::Trailers(_)) => {}
                Ok(Decoded::End) => break,
                Ok(Decoded::More) => match pieces.next() {
                    Some(piece) => input = [&input, piece].concat().into(),
                    None => return (all, None),
                },
                Err(_) => return (all, Some(Refused::Malformed)),
            }
        }
        all.push((request.head.method.to_string(), request.head.uri.to_string(), body));
        if !request.keep_alive {
            return (all, None);
        }
    }
}

fn with(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n")
}

#[test]
fn sound_streams_are_read_request_by_request() {
    for (text, count) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 1),
        ("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n\r\n", 1),
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\ncGET / HTTP/1.1\r\ncookie: c\r\n\r\n", 2),
        ("POST / HTTP/1.1\r\ncontent-length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked \r\n\r\n5\r\na\nb\nc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            2,
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1 ;x=\"y\"\r\na\r\n00\r\na: b\r\nc: d\r\n\r\n",
            1,
        ),
        ("GET", 0),
        ("GET / HTTP/1.1\r\nhost: a\r\n", 0),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nab", 0),
    ] {
        for piece in [1, 2, 7, 1000] {
            let (requests, refused) = read(text.as_bytes(), piece);
            assert_eq!((requests.len(), refused), (count, None), "{text:?} in pieces of {piece}");
        }
    }
}

#[test]
fn a_head_that_can_be_framed_in_two_ways_is_refused() {
    for fields in [
        "content-length: 3\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 3",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: xchunked",
        "transfer-encoding:",
        "content-length: 3\r\ncontent-length: 3",
        "content-length: 3, 3",
        "content-length: +3",
        "content-length: -3",
        "content-length: 0x3",
        "content-length:",
        "content-length: 3 3",
        "content-length: 9223372036854775808",
        "content-length: 00000000000000000003",
        "content-length : 3",
        "x: y\nz: w",
        "x: y\n",
        "x: y\r\n z",
        "x: y\rz",
        "x: \0",
        ": y",
        "x y: z",
    ] {
        assert_eq!(read(with(fields).as_bytes(), 1000), (vec![], Some(Refused::Malformed)), "{fields:?}");
    }
    let old = "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(read(old.as_bytes(), 1000), (vec![], Some(Refused::Malformed)));
    assert_eq!(read(b"GET /#x HTTP/1.1\r\n\r\n", 1000).1, Some(Refused::Malformed));
}

#[test]
fn what_comes_before_an_unsound_head_is_read() {
    let text = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\nhost: a\r\n\r\n";
    let (requests, refused) = read(text.as_bytes(), 1000);
    assert_eq!((requests.len(), refused), (1, Some(Refused::Malformed)));
}

#[test]
fn broken_chunks_are_refused() {
    for chunks in [
        "\r\n",
        ";x\r\n",
        "-1\r\n",
        "0x1\r\na\r\n",
        "1\na\r\n",
        "1\r\nab",
        "1\r\na\n",
        "1;\n\r\na\r\n",
        "1;a\rb\r\n",
        "1;\0\r\n",
        "1000000000000000\r\n",
        "0\r\na: b\n\r\n",
        "0\r\n\n",
        "g\r\n",
    ] {
        let text = with("transfer-encoding: chunked") + chunks;
        assert_eq!(read(text.as_bytes(), 1000), (vec![], Some(Refused::Malformed)), "{chunks:?}");
    }
}

#[test]
fn a_head_over_the_limits_is_refused_as_that() {
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(33 * 1024));
    assert_eq!(read(long.as_bytes(), 40_000).1, Some(Refused::TooLarge));
    let endless = format!("GET /{}", "y".repeat(33 * 1024));
    assert_eq!(read(endless.as_bytes(), 40_000).1, Some(Refused::TargetTooLong));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert_eq!(read(many.as_bytes(), 40_000).1, Some(Refused::TooLarge));
}

#[test]
fn a_target_is_as_long_as_a_uri_may_be() {
    let asked = |length: usize| {
        let text = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(length - 1));
        parse_request(&mut Bytes::from(text), 1024 * 1024, 100).map(|request| request.is_some())
    };
    assert_eq!(asked(65_534), Ok(true));
    assert_eq!(asked(65_535), Err(Refused::TargetTooLong));
    assert_eq!(asked(100_000), Err(Refused::TargetTooLong));
}

#[test]
fn a_later_minor_version_is_read_as_the_last_that_is_known() {
    let text = "POST /1 HTTP/1.2\r\ncontent-length: 3\r\n\r\nabcGET /2 HTTP/1.9\r\nhost: a\r\n\r\n";
    for piece in [1, 2, 7, 1000] {
        let (requests, refused) = read(text.as_bytes(), piece);
        assert_eq!((requests.len(), refused), (2, None), "in pieces of {piece}");
    }
    for (version, why) in [
        ("HTTP/1.10", Refused::Malformed),
        ("HTTP/11.2", Refused::Malformed),
        ("HTTP/0.9", Refused::Malformed),
        ("HTTP/2.1", Refused::Version),
    ] {
        assert_eq!(read(format!("GET / {version}\r\n\r\n").as_bytes(), 1000).1, Some(why), "{version}");
    }
}

/// A connection on which `text` comes and nobody listens.
struct Script(io::Cursor<Vec<u8>>);

impl hyper::rt::Read for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = vec![0; buf.remaining()];
        let length = io::Read::read(&mut self.0, &mut piece)?;
        buf.put_slice(&piece[..length]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The requests that hyper's server reads off `text`.
fn read_by_hyper(text: &[u8]) -> Vec<Read> {
    let all = Rc::new(RefCell::new(Vec::new()));
    let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
        let all = Rc::clone(&all);
        async move {
            let (head, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let body = body.to_bytes().to_vec();
                all.borrow_mut().push((head.method.to_string(), head.uri.to_string(), body));
            }
            Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.header_read_timeout(None).half_close(true);
    drop(runtime.block_on(builder.serve_connection(Script(io::Cursor::new(text.to_vec())), service)));
    all.take()
}

/// Parts that streams are made of, sound and otherwise.
const PARTS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.1\r\n",
    "PUT http://a/b HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\n",
    "GET / HTTP/1.1\n",
    "host: a\r\n",
    "host: a\r\n\r\n",
    "content-length: 3\r\n",
    "Content-Length: 0\r\n\r\n",
    "content-length: 3\r\n\r\nabc",
    "content-length:  +3\r\n",
    "transfer-encoding: chunked\r\n\r\n",
    "transfer-encoding: chunked\r\n",
    "transfer-encoding: gzip, chunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "connection: close\r\n",
    "connection: keep-alive, te\r\n",
    "3\r\nabc\r\n",
    "3;x=y\r\nabc\r\n",
    "03\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nx: y\r\n\r\n",
    "0\r\n",
    "x : y\r\n",
    " folded\r\n",
    "x: \u{7f}\r\n",
    "x: y\n",
    "abc",
    "\r\n",
    "\n",
    "\r",
    "\0",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// What we take for requests, hyper takes for the same ones: nothing can be smuggled past one of the two.
    #[test]
    fn every_request_that_passes_is_read_alike_by_hyper(
        parts in collection::vec(sample::select(PARTS), 0..16), piece in 1usize..64,
    ) {
        let text = parts.concat();
        let (ours, _) = read(text.as_bytes(), piece);
        let hypers = read_by_hyper(text.as_bytes());
        prop_assert_eq!(&ours[..], &hypers[..ours.len().min(hypers.len())]);
        prop_assert!(ours.len() <= hypers.len(), "{:?} but hyper reads {:?}", ours, hypers);
    }

    /// However a stream is cut, the same requests are read off it.
    #[test]
    fn pieces_do_not_matter(parts in collection::vec(sample::select(PARTS), 0..16), piece in 1usize..64) {
        let text = parts.concat();
        prop_assert_eq!(read(text.as_bytes(), piece).0, read(text.as_bytes(), text.len()).0);
    }

    /// Whatever comes, nothing panics, and a refusal takes nothing that follows.
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, piece in 1usize..64) {
        read(&bytes, piece);
    }

    /// Whatever the pieces are, the end of every body is found.
    #[test]
    fn any_body_is_read_to_its_end(
        bodies in collection::vec((any::<bool>(), collection::vec(any::<u8>(), 0..300)), 1..6), piece in 1usize..50,
    ) {
        let mut text = Vec::new();
        for (is_chunked, body) in &bodies {
            if *is_chunked {
                text.extend_from_slice(b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
                body.chunks(77).for_each(|chunk| encode_chunk(&mut text, chunk));
                encode_end(&mut text, None);
            } else {
                text.extend_from_slice(format!("PUT / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
                text.extend_from_slice(body);
            }
        }
        let (read, refused) = read(&text, piece);
        prop_assert_eq!(refused, None);
        prop_assert!(read.iter().map(|(.., body)| body).eq(bodies.iter().map(|(_, body)| body)));
    }
}
