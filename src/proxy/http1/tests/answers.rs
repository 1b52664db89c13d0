//! Answers of endpoints, well-formed and not.

use crate::proxy::http1::body::MAX_CHUNK_LINE;
use crate::proxy::http1::*;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Option<Head>, Malformed> {
    parse_head(&mut Bytes::copy_from_slice(text.as_bytes()), &Method::GET)
}

fn body_of(head: &str) -> Result<Decoder, Malformed> {
    parse(&format!("HTTP/1.1 200 OK\r\n{head}\r\n")).map(|head| head.unwrap().body)
}

/// Decodes `wire` fed in pieces; gives the body and the trailers, or what was wrong.
fn decode(mut decoder: Decoder, wire: &[u8], piece: usize) -> Result<(Vec<u8>, HeaderMap, usize), Malformed> {
    let (mut input, mut body, mut trailers) = (Bytes::new(), Vec::new(), HeaderMap::new());
    let mut pieces = wire.chunks(piece.max(1));
    loop {
        match decoder.decode(&mut input)? {
            Decoded::Data(data) => body.extend_from_slice(&data),
            Decoded::Trailers(fields) => trailers = fields,
            Decoded::End => {
                return Ok((body, trailers, input.len() + pieces.map(<[u8]>::len).sum::<usize>()));
            }
            Decoded::More => match pieces.next() {
                Some(piece) => input = [&input, piece].concat().into(),
                None => return Ok((body, trailers, usize::MAX)),
            },
        }
    }
}

const CHUNKED: Decoder = Decoder::Chunked(Chunks::Size);

#[test]
fn a_head_is_taken_only_when_it_is_whole() {
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx-a:\r\nX-B: b\r\n\r\n";
    for cut in 0..whole.len() {
        assert!(parse(&whole[..cut]).unwrap().is_none(), "{cut}");
    }
    let mut input = Bytes::from(format!("{whole}abc"));
    let head = parse_head(&mut input, &Method::GET).unwrap().unwrap();
    assert_eq!((head.status, head.body, head.keep_alive), (StatusCode::OK, Decoder::Length(3), true));
    assert_eq!(
        (&head.headers["x-a"], &head.headers["x-b"]),
        (&HeaderValue::from_static(""), &HeaderValue::from_static("b"))
    );
    assert_eq!(&input[..], b"abc");
}

#[test]
fn a_change_of_protocol_is_to_one_and_is_said_twice() {
    let change = |status: &str, fields: &str| {
        let head = parse(&format!("HTTP/1.1 {status}\r\n{fields}\r\n")).unwrap().unwrap();
        let named = head.headers.get("upgrade").map(|name| name.to_str().unwrap().to_owned());
        (head.change, named)
    };
    let yes = |fields: &str| change("101 Yes", &format!("connection: x, Upgrade\r\n{fields}"));
    assert_eq!(yes("upgrade: WebSocket\r\n"), (Some(Change::Websocket), None));
    assert_eq!(yes("upgrade: SPDY/3.1\r\n"), (Some(Change::Other), Some("SPDY/3.1".to_owned())));
    for fields in [
        "",
        "upgrade: websocket\r\nupgrade: websocket\r\n",
        "upgrade: websocket\r\nupgrade: tcp\r\n",
        "upgrade: tcp\r\nupgrade: tcp\r\n",
    ] {
        assert_eq!(yes(fields).0, None, "{fields}");
    }
    assert_eq!(change("101 Yes", "upgrade: tcp\r\n").0, None);
    assert_eq!(change("200 OK", "connection: upgrade\r\nupgrade: tcp\r\n"), (None, None));
    assert_eq!(change("426 No", "connection: upgrade\r\nupgrade: tcp\r\n"), (None, Some("tcp".to_owned())));
}

#[test]
fn lengths_that_can_be_read_in_two_ways_are_refused() {
    let refused = [
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: 1, 1\r\n",
        "content-length: +1\r\n",
        "content-length: -1\r\n",
        "content-length: 0x1\r\n",
        "content-length:\r\n",
        "content-length: 9223372036854775808\r\n",
        "content-length: 18446744073709551617\r\n",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
    ];
    for head in refused {
        assert_eq!(body_of(head).unwrap_err(), Malformed::Framing, "{head}");
    }
    assert_eq!(body_of("content-length: 7\r\ncontent-length: 7\r\n"), Ok(Decoder::Length(7)));
    assert_eq!(body_of("transfer-encoding: Chunked\r\n"), Ok(CHUNKED));
    assert_eq!(body_of(""), Ok(Decoder::UntilClose));
}

#[test]
fn heads_that_are_not_http_are_refused() {
    for head in [
        "x: a\nb\r\n",
        "x : a\r\n",
        " x: a\r\n",
        "x: a\r\n b\r\n",
        "x: a\0b\r\n",
        ": a\r\n",
        "x\r\n",
        "x: a\rb\r\n",
    ] {
        assert_eq!(body_of(head).unwrap_err(), Malformed::Head, "{head:?}");
    }
    for line in ["HTTP/2 200 OK", "HTTP/1.1 20 OK", "ICY 200 OK", "HTTP/1.1 99 x"] {
        assert!(parse(&format!("{line}\r\n\r\n")).is_err(), "{line}");
    }
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(MAX_HEAD));
    assert_eq!(parse(&huge).unwrap_err(), Malformed::TooLarge);
    let many = "a: b\r\n".repeat(MAX_FIELDS + 1);
    assert_eq!(body_of(&many).unwrap_err(), Malformed::TooLarge);
}

#[test]
fn a_later_minor_version_is_read_as_the_last_that_is_known() {
    let whole = "HTTP/1.2 200 OK\r\ncontent-length: 3\r\n\r\n";
    for cut in 0..whole.len() {
        assert!(parse(&whole[..cut]).unwrap().is_none(), "{cut}");
    }
    let head = parse(whole).unwrap().unwrap();
    assert_eq!((head.body, head.keep_alive), (Decoder::Length(3), true));
    for version in ["HTTP/1.10", "HTTP/1.:", "HTTP/0.9", "HTTP/2.1", "http/1.2"] {
        assert!(parse(&format!("{version} 200 OK\r\n\r\n")).is_err(), "{version}");
    }
}

#[test]
fn answers_without_a_body_have_none_whatever_they_say() {
    let head = |status: &str, method: &Method| {
        let text = format!("HTTP/1.1 {status} x\r\ncontent-length: 9\r\n\r\n");
        parse_head(&mut Bytes::from(text), method).unwrap().unwrap()
    };
    for (status, method) in
        [("204", Method::GET), ("304", Method::GET), ("103", Method::GET), ("200", Method::HEAD)]
    {
        assert_eq!(head(status, &method).body, Decoder::Length(0), "{status}");
    }
    assert_eq!(head("200", &Method::HEAD).headers[CONTENT_LENGTH], "9");
}

#[test]
fn hop_by_hop_fields_and_what_connection_names_are_dropped() {
    let text = "HTTP/1.1 200 OK\r\nConnection: X-Hop, close, content-length\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-End: 2\r\nContent-Length: 0\r\n\r\n";
    let head = parse(text).unwrap().unwrap();
    let names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["x-end", "content-length"]);
    assert!(!head.keep_alive);
}

#[test]
fn an_http_1_0_endpoint_closes_unless_it_says_otherwise() {
    let keeps = |head: &str| {
        parse(&format!("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n{head}\r\n")).unwrap().unwrap().keep_alive
    };
    assert!(!keeps(""));
    assert!(keeps("connection: keep-alive\r\n"));
}

#[test]
fn it_is_seen_when_a_connection_is_authenticated_and_not_a_request() {
    let is_so = |fields: &str| {
        let wire = format!("HTTP/1.1 401 Unauthorized\r\n{fields}content-length: 0\r\n\r\n");
        parse_head(&mut Bytes::from(wire), &Method::GET).unwrap().unwrap().authenticates_connection()
    };
    for challenge in
        ["NTLM", "ntlm TlRMTVNTUAAC=", "Negotiate", "Basic realm=\"a\",Negotiate oYG2, NTLM", "Nego2"]
    {
        assert!(is_so(&format!("www-authenticate: {challenge}\r\n")), "{challenge}");
        let second = format!("WWW-Authenticate: Bearer\r\nWWW-Authenticate:{challenge}\r\n");
        assert!(is_so(&second), "{challenge}");
    }
    for challenge in ["Basic realm=\"a\"", "Bearer", "Digest algorithm=MD5, nonce=\"negotiated\"", ""] {
        assert!(!is_so(&format!("www-authenticate: {challenge}\r\n")), "{challenge}");
    }
    assert!(!is_so("x-authenticate: NTLM\r\n"));
}

#[test]
fn chunks_are_taken_apart_however_they_arrive() {
    let wire = b"4\r\nWiki\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nx-sum: 1\r\nhost: evil\r\n\r\nHTTP/1.1";
    for piece in 1..wire.len() {
        let (body, trailers, left) = decode(CHUNKED, wire, piece).unwrap();
        assert_eq!((body.as_slice(), left), (&b"Wiki0123456789"[..], 8), "{piece}");
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
    }
}

#[test]
fn broken_chunks_are_refused() {
    let broken: [&[u8]; 14] = [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"0x4\r\n",
        b"4\nWiki",
        b"4 x\r\n",
        b"4\r\nWikiX",
        b"4\r\nWiki\n",
        b"4\r\nWiki\rX",
        b"fffffffffffffffff\r\n",
        b"1000000000000000\r\n",
        b"4;\x01\r\n",
        b"0\r\nbad\r\n\r\n",
        b"0\r\na: b\n\r\n",
    ];
    for wire in broken {
        for piece in [1, 3, wire.len()] {
            let outcome = decode(CHUNKED, wire, piece);
            assert!(outcome.is_err(), "{:?} {outcome:?}", String::from_utf8_lossy(wire));
        }
    }
    assert!(decode(CHUNKED, &[b'1'; MAX_CHUNK_LINE + 2], usize::MAX).is_err());
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..600), 0..8), piece in 1usize..700,
    ) {
        let mut wire = Vec::new();
        chunks.iter().for_each(|chunk| encode_chunk(&mut wire, chunk));
        encode_end(&mut wire, None);
        let (body, _, left) = decode(CHUNKED, &wire, piece).unwrap();
        prop_assert_eq!((body, left), (chunks.concat(), 0));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), piece in 1usize..50) {
        let _ = parse_head(&mut Bytes::from(bytes.clone()), &Method::GET);
        let _ = decode(CHUNKED, &bytes, piece);
        let text = [&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat();
        let _ = parse_head(&mut Bytes::from(text), &Method::GET);
    }
}
