//! The ingress gate behind the parser: what is let through is one request, to every reader, and stays what it was.

#![cfg_attr(fuzzing, no_main)]

use bytes::Bytes;
use switchback::proxy::gate::{Asked, disown};
use switchback::proxy::head::Parts;
use switchback::proxy::headers::{BodyLength, Caller, Origin, write_request};
use switchback::proxy::http1::{Chunks, Decoder, Refused, Request, parse_request};
use switchback::table::pin;
use switchback_fuzz::fuzz_target;
use switchback_fuzz::pieces::{Body, Pieces};
use switchback_fuzz::strict;

/// The defaults of `[limits]`.
const MOST_BYTES: usize = 32 * 1024;
const MOST_FIELDS: usize = 100;

fuzz_target!(|input: (u8, &[u8])| {
    let (seed, bytes) = input;
    let mut whole = Bytes::copy_from_slice(bytes);
    let parsed = parse_request(&mut whole, MOST_BYTES, MOST_FIELDS);
    pieces_do_not_matter(bytes, &parsed, whole.len(), seed);
    let Ok(Some(request)) = parsed else { return };
    let head = &bytes[..bytes.len() - whole.len()];
    let is_bare = |at: usize| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r');
    assert!(!(0..head.len()).any(is_bare), "some readers end a line at a bare line feed, some do not");
    // Nothing of the client's is read behind this body, and it is the same body however it comes.
    let read = |seed| Body::read(request.body, &mut Pieces::of(&whole, seed));
    assert_eq!(read(0), read(seed | 1));
    baggage_is_sorted(&request.head);
    let Ok(asked) = Asked::of(&request.head) else { return };
    for is_trusted in [false, true] {
        forwarded_it_is_the_same(&request, &asked, is_trusted);
    }
});

fn pieces_do_not_matter(bytes: &[u8], whole: &Result<Option<Request>, Refused>, left: usize, seed: u8) {
    let mut pieces = Pieces::of(bytes, seed | 1);
    let parsed = loop {
        let parsed = parse_request(&mut pieces.buffer, MOST_BYTES, MOST_FIELDS);
        if !matches!(parsed, Ok(None)) || !pieces.more() {
            break parsed;
        }
    };
    match (whole, parsed) {
        (Ok(Some(whole)), Ok(Some(request))) => {
            assert_eq!(left, pieces.left(), "the head has another length in pieces");
            assert_eq!(whole.body, request.body);
            assert_eq!(whole.keep_alive, request.keep_alive);
            assert_eq!(facts(&whole.head), facts(&request.head));
        }
        (Ok(None), Ok(None)) => {}
        (Err(whole), Err(why)) => assert_eq!(*whole, why),
        (whole, parsed) => panic!("whole {whole:?}, in pieces {parsed:?}"),
    }
}

fn facts(head: &Parts) -> impl PartialEq + std::fmt::Debug {
    let fields = head.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>();
    (head.method.clone(), head.uri.to_string(), head.version, fields)
}

/// Of who is not believed nothing goes on that may be read as a pin; of who is, what was read and no more.
fn baggage_is_sorted(head: &Parts) {
    let lines: Vec<_> =
        head.headers.get_all(pin::FIELD).iter().map(|line| line.as_bytes().to_vec()).collect();
    let sort = |lines: &[Vec<u8>], is_believed| pin::sort(lines.iter().map(Vec::as_slice), is_believed);
    for is_believed in [false, true] {
        let sorted = sort(&lines, is_believed);
        let left = sorted.lines.unwrap_or_else(|| lines.clone());
        let are_read = left.iter().filter(|line| pin::is_in(line)).count();
        assert_eq!(are_read, usize::from(sorted.pin.is_some()), "{left:?}");
        assert!(is_believed || sorted.pin.is_none());
        let again = sort(&left, is_believed);
        assert_eq!((again.pin, again.lines), (sorted.pin, None));
    }
}

/// What the endpoint gets is one head, to a stricter reader and to our own, and says what the client said.
fn forwarded_it_is_the_same(request: &Request, asked: &Asked<'_>, is_trusted: bool) {
    let host = if asked.authority.is_empty() { b"endpoint:80" } else { asked.authority };
    let length = body_length(request.body);
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let upgrade = asked.upgrade.map(|upgrade| (upgrade, key));
    let mut out = Vec::new();
    let introduction = CALLER.introduction();
    let origin = Origin {
        caller: CALLER,
        introduction: &introduction,
        host,
        asked: host,
        forwarded: true,
        via: "switchback",
    };
    let mut head = request.head.clone();
    disown(&mut head.headers, is_trusted, &[]);
    write_request(&mut out, &head, asked.target, length, origin, upgrade);
    let head = strict::Head::read(&out);
    assert_eq!(head.start, [request.head.method.as_str(), asked.target, "HTTP/1.1"]);
    assert_eq!(head.all("host"), [host]);
    let (lengths, codings) = (head.all("content-length"), head.all("transfer-encoding"));
    match length {
        BodyLength::None => assert!(lengths.is_empty() && codings.is_empty()),
        BodyLength::Known(length) => {
            assert_eq!((lengths, codings.len()), (vec![length.to_string().as_bytes()], 0));
        }
        BodyLength::Unknown => assert_eq!((lengths.len(), codings), (0, vec![&b"chunked"[..]])),
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization"] {
        assert!(head.all(name).is_empty(), "{name} is for one connection only");
    }
    if !is_trusted {
        assert_eq!(head.all("x-forwarded-for"), [&b"192.0.2.1"[..]]);
        assert_eq!(head.all("x-forwarded-host"), [host]);
        assert!(head.all("x-real-ip").is_empty());
    }
    let mut again = Bytes::from(out.clone());
    let again = match parse_request(&mut again, usize::MAX, MOST_FIELDS + 20) {
        Ok(Some(parsed)) if again.is_empty() => parsed,
        other => panic!("we do not read what we write: {other:?}"),
    };
    assert_eq!(again.head.method, request.head.method);
    let sent = Asked::of(&again.head).expect("what passed the gate passes it again");
    assert_eq!((sent.authority, sent.target), (host, asked.target));
    assert_eq!(sent.upgrade.is_some(), asked.upgrade.is_some());
    assert_eq!(
        body_length(again.body),
        if length == BodyLength::None { BodyLength::Known(0) } else { length }
    );
}

fn body_length(body: Decoder) -> BodyLength {
    match body {
        Decoder::Length(0) => BodyLength::Known(0),
        Decoder::Length(length) => BodyLength::Known(length),
        Decoder::Chunked(Chunks::Size) => BodyLength::Unknown,
        other => panic!("a request is not framed so: {other:?}"),
    }
}

const CALLER: Caller<'static> =
    Caller { client: Some("192.0.2.1"), port: Some(443), scheme: "https", subject: None };
