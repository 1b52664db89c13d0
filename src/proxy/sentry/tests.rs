//! What the sentry lets pass and what it does not, whole, cut in two, and byte by byte.

use super::*;

/// Follows `text` in one piece and cut in two at every place, which must be judged alike: whether it is at rest.
fn judge(text: &[u8]) -> Result<bool, Refused> {
    let mut sentry = Sentry::default();
    let sound = sentry.follow(text);
    let whole = sentry.refused().map_or(Ok(sentry.is_between()), Err);
    for cut in 0..text.len() {
        let mut sentry = Sentry::default();
        let halves = sentry.follow(&text[..cut]) + sentry.follow(&text[cut..]);
        assert_eq!(sentry.refused().map_or(Ok(sentry.is_between()), Err), whole, "cut at {cut}");
        // Of what came in two parts only the second can still be held back.
        assert!(halves == sound || (whole.is_err() && halves == cut), "cut at {cut}: {sound} {halves}");
    }
    whole
}

fn with(fields: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n").into_bytes()
}

#[test]
fn sound_streams_are_followed_from_head_to_head() {
    for text in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\ncGET / HTTP/1.1\r\ncookie: c\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked \r\n\r\n5\r\na\nb\nc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1 ;x=\"y\"\r\na\r\n00\r\na: b\r\nc: d\r\n\r\n",
    ] {
        assert_eq!(judge(text.as_bytes()), Ok(true), "{text:?}");
    }
    for text in ["GET", "GET / HTTP/1.1\r\nhost: a\r\n", "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nab"] {
        assert_eq!(judge(text.as_bytes()), Ok(false), "{text:?}");
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
        "x: y\nz: w",
        "x: y\n",
    ] {
        assert_eq!(judge(&with(fields)), Err(Refused::Head), "{fields:?}");
    }
}

#[test]
fn what_comes_before_an_unsound_head_passes() {
    let text = "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\nhost: a\r\n\r\n";
    let mut sentry = Sentry::default();
    assert_eq!(sentry.follow(text.as_bytes()), 27);
    assert_eq!(sentry.follow(b"GET / HTTP/1.1\r\n\r\n"), 0);
    assert_eq!(sentry.refused(), Some(Refused::Head));
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
        let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(judge(text.as_bytes()), Err(Refused::Chunk), "{chunks:?}");
    }
}

proptest::proptest! {
    /// A head at one look and byte by byte is the same head.
    #[test]
    fn the_quick_look_sees_what_the_slow_one_sees(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "GET / HTTP/1.1\r\n", "a: b\r\n", "cookie: a-b\r\n", "\r\n", "\r\n\r\n", "\n", "\r", "x: yyyyyyyyyyyyyyyyyyyyyyy\r\n",
            "content-length:0\r\n", "Content-Length: 1\r\n", "transfer-encoding:chunked\r\n", "c", "content-language: x\r\n",
        ]), 0..12),
    ) {
        let text = parts.concat() + "\r\n\r\n";
        let (mut quick, mut slow) = (Sentry::default(), Sentry::default());
        quick.follow(text.as_bytes());
        for byte in text.as_bytes().chunks(1) {
            slow.follow(byte);
        }
        proptest::prop_assert_eq!((quick.at, quick.line), (slow.at, slow.line));
    }

    /// Whatever the pieces are, the sentry finds the end of every body.
    #[test]
    fn any_body_is_followed_to_its_end(
        bodies in proptest::collection::vec(
            (proptest::bool::ANY, proptest::collection::vec(proptest::num::u8::ANY, 0..300)), 1..6,
        ),
        piece in 1usize..50,
    ) {
        let mut text = Vec::new();
        for (is_chunked, body) in &bodies {
            if *is_chunked {
                text.extend_from_slice(b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
                for chunk in body.chunks(77) {
                    text.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                    text.extend_from_slice(chunk);
                    text.extend_from_slice(b"\r\n");
                }
                text.extend_from_slice(b"0\r\n\r\n");
            } else {
                text.extend_from_slice(format!("PUT / HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
                text.extend_from_slice(body);
            }
        }
        let mut sentry = Sentry::default();
        for piece in text.chunks(piece) {
            proptest::prop_assert_eq!(sentry.follow(piece), piece.len());
        }
        proptest::prop_assert!(sentry.is_between());
    }
}
