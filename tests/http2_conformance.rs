//! HTTP/2 by the letter: every case of h2spec, section by section, as frames of our own making.
//!
//! What is expected is what the RFC names, code and all. An error of a stream may be treated as one of the connection
//! (RFC 9113 §5.4.2); where h2 names another code than the RFC, the case says so with [`Case::but`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test"
)]

mod lab;

use std::io;

use Expect::{Acknowledged, Answer, Connection, Pong, Stream};
use lab::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE,
    PRIORITIZED, PRIORITY, PUSH_PROMISE, Piece, RST_STREAM, SETTINGS, WHOLE, Way, block, frame, get, ping,
    request, reset, settings, window_update,
};
use lab::{Frames, Lab, Origin};

/// RFC 9113 §7.
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;

/// What the proxy must do.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// Answer stream 1 with this status, and go on.
    Answer(u16),
    /// Answer the last ping, and go on.
    Pong,
    /// Acknowledge the settings, and go on.
    Acknowledged,
    /// End the connection with one of these codes.
    Connection(&'static [u32]),
    /// Reset the stream with one of these codes, or end the connection with it.
    Stream(&'static [u32]),
}

/// Does something to an open connection. An error is the proxy's having closed it.
type Act = fn(&mut Frames) -> io::Result<()>;

struct Case {
    name: &'static str,
    act: Act,
    expect: Expect,
    /// Codes that h2 gives instead.
    but: &'static [u32],
}

fn case(name: &'static str, expect: Expect, act: Act) -> Case {
    Case { name, act, expect, but: &[] }
}

impl Case {
    /// h2 gives another code than the RFC.
    fn but(mut self, codes: &'static [u32]) -> Self {
        self.but = codes;
        self
    }

    /// What is wrong, if anything is.
    fn judge(&self, mut connection: Frames) -> Result<(), String> {
        // It may have been closed before all was sent.
        let _ = (self.act)(&mut connection);
        let is_code = |codes: &[u32], piece: &Piece| {
            let code = piece.code();
            if codes.contains(&code) || self.but.contains(&code) {
                Ok(())
            } else {
                Err(format!("code {code} instead of {codes:?}"))
            }
        };
        let mut answered = None;
        loop {
            let piece = match (connection.try_piece(), self.expect) {
                (Ok(piece), _) => piece,
                (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(format!("nothing came but an answer: {answered:?}"));
                }
                // A reset can overtake the GOAWAY; that it is over is what counts.
                (Err(_), Connection(_) | Stream(_)) => return Ok(()),
                (Err(_), Answer(_) | Pong | Acknowledged) => return Err("the connection was closed".into()),
            };
            match (self.expect, piece.kind) {
                (Connection(codes), GOAWAY) => {
                    is_code(codes, &piece)?;
                    connection.rest();
                    return Ok(());
                }
                (Stream(codes), GOAWAY | RST_STREAM) => return is_code(codes, &piece),
                (Connection(_), RST_STREAM) => {}
                (Connection(_) | Stream(_), HEADERS) if piece.stream == 1 => answered = piece.status(),
                (_, GOAWAY | RST_STREAM) => return Err(format!("{piece:?}, code {}", piece.code())),
                (Answer(status), HEADERS) if piece.stream == 1 => {
                    let alive = connection.is_alive();
                    return match piece.status() {
                        Some(given) if given == status && alive => Ok(()),
                        given => Err(format!("{given:?}, and alive: {alive}")),
                    };
                }
                (Pong, PING) if piece.flags == ACK && piece.payload == *b"12345678" => return Ok(()),
                (Acknowledged, SETTINGS) if piece.flags == ACK => {
                    return if connection.is_alive() { Ok(()) } else { Err("and then it is over".into()) };
                }
                _ => {}
            }
        }
    }
}

/// Judges all cases, each on connections of its own, in clear text and under TLS.
fn judge(cases: &[Case]) {
    let (_lab, ways) = frames::ways_to(Origin::start("blue"), "");
    let failures: Vec<_> = ways
        .iter()
        .flat_map(|way| cases.iter().map(move |case| (way, case)))
        .filter_map(|(way, case)| {
            let error = case.judge(way.frames()).err()?;
            Some(format!(
                "{}, {}: {error}",
                case.name,
                if matches!(way, Way::Tls(..)) { "TLS" } else { "clear" }
            ))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// The header block of a POST.
fn post() -> Vec<u8> {
    block(&request("POST", "/"))
}

fn whole(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, get("/"))
}

/// A request whose body is still to come.
fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, post())
}

fn priority(stream: u32, on: u32, weight: u8) -> Vec<u8> {
    frame(PRIORITY, 0, stream, [&on.to_be_bytes()[..], &[weight]].concat())
}

/// A GET with these fields behind what each request has.
fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, block(&[&request("GET", "/")[..], fields].concat()))
}

/// A request of these fields alone.
fn of(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, block(fields))
}

/// A GET with this behind its header block.
fn hpack(more: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, [&get("/")[..], more].concat())
}

/// Asks on stream 1, and reads the whole answer.
fn closed(connection: &mut Frames) {
    assert_eq!(connection.ask(1, "/"), 200);
}

macro_rules! send {
    ($($part:expr),* $(,)?) => {
        |connection: &mut Frames| connection.try_send([$($part),*].concat())
    };
}

#[test]
fn generic_streams_and_frames() {
    judge(&[
        case("generic/1 client preface", Pong, send![ping(b"12345678")]),
        case("generic/2/1 PRIORITY on idle", Answer(200), send![priority(1, 0, 255), whole(1)]),
        case(
            "generic/2/2 WINDOW_UPDATE on half-closed (remote)",
            Answer(200),
            send![whole(1), window_update(1, 100)],
        ),
        case(
            "generic/2/3 PRIORITY on half-closed (remote)",
            Answer(200),
            send![whole(1), priority(1, 0, 255)],
        ),
        case(
            "generic/2/4 RST_STREAM on half-closed (remote)",
            Pong,
            send![whole(1), reset(1, 8), ping(b"12345678")],
        ),
        case("generic/2/5 PRIORITY on closed", Pong, |connection| {
            closed(connection);
            connection.try_send([priority(1, 0, 255), ping(b"12345678")].concat())
        }),
        case("generic/3.1/1 a DATA frame", Answer(200), send![open(1), frame(DATA, END_STREAM, 1, "test")]),
        case(
            "generic/3.1/2 several DATA frames",
            Answer(200),
            send![open(1), frame(DATA, 0, 1, "test"), frame(DATA, END_STREAM, 1, "test")],
        ),
        case(
            "generic/3.1/3 a padded DATA frame",
            Answer(200),
            send![open(1), frame(DATA, END_STREAM | PADDED, 1, [&[6][..], b"test", &[0; 6]].concat())],
        ),
        case("generic/3.2/1 a HEADERS frame", Answer(200), send![whole(1)]),
        case(
            "generic/3.2/2 a padded HEADERS frame",
            Answer(200),
            send![frame(HEADERS, WHOLE | PADDED, 1, [&[6][..], &get("/"), &[0; 6]].concat())],
        ),
        case(
            "generic/3.2/3 a HEADERS frame with priority",
            Answer(200),
            send![frame(HEADERS, WHOLE | PRIORITIZED, 1, [&[0, 0, 0, 0, 255][..], &get("/")].concat())],
        ),
    ]);
}

#[test]
fn generic_control_frames() {
    judge(&[
        case("generic/3.3/1 priority 1", Answer(200), send![priority(1, 0, 0), whole(1)]),
        case("generic/3.3/2 priority 256", Answer(200), send![priority(1, 0, 255), whole(1)]),
        case(
            "generic/3.3/3 a dependency",
            Answer(200),
            send![priority(1, 0, 255), priority(3, 1, 255), whole(1)],
        ),
        case(
            "generic/3.3/4 an exclusive dependency",
            Answer(200),
            send![priority(3, 1 << 31 | 1, 255), whole(1)],
        ),
        case(
            "generic/3.3/5 PRIORITY on idle, then HEADERS on a lower one",
            Answer(200),
            send![priority(5, 0, 255), whole(1)],
        ),
        case("generic/3.4 RST_STREAM", Pong, send![open(1), reset(1, 8), ping(b"12345678")]),
        case("generic/3.5 SETTINGS", Acknowledged, send![settings(&[(3, 100)])]),
        case("generic/3.7 PING", Pong, send![ping(b"12345678")]),
        case("generic/3.8 GOAWAY", Connection(&[0]), send![frame(GOAWAY, 0, 0, [0; 8])]),
        case("generic/3.9/1 WINDOW_UPDATE on 0", Answer(200), send![window_update(0, 1), whole(1)]),
        case(
            "generic/3.9/2 WINDOW_UPDATE on 1",
            Answer(200),
            send![open(1), window_update(1, 1), frame(DATA, END_STREAM, 1, "")],
        ),
        case(
            "generic/3.10/1 CONTINUATION",
            Answer(200),
            send![
                frame(HEADERS, END_STREAM, 1, &get("/")[..9]),
                frame(CONTINUATION, END_HEADERS, 1, &get("/")[9..])
            ],
        ),
        case(
            "generic/3.10/2 several CONTINUATIONs",
            Answer(200),
            send![
                frame(HEADERS, END_STREAM, 1, &get("/")[..9]),
                frame(CONTINUATION, 0, 1, &get("/")[9..20]),
                frame(CONTINUATION, END_HEADERS, 1, &get("/")[20..])
            ],
        ),
    ]);
}

#[test]
fn generic_messages() {
    judge(&[
        case("generic/4/1 GET", Answer(200), send![whole(1)]),
        case("generic/4/2 HEAD", Answer(200), send![frame(HEADERS, WHOLE, 1, block(&request("HEAD", "/")))]),
        case("generic/4/3 POST", Answer(200), send![open(1), frame(DATA, END_STREAM, 1, "test")]),
        case(
            "generic/4/4 POST with trailers",
            Answer(200),
            send![open(1), frame(DATA, 0, 1, "test"), frame(HEADERS, WHOLE, 1, block(&[("x-test", "ok")]))],
        ),
    ]);
}

#[test]
fn generic_header_compression() {
    // `user-agent` is 58 in the static table; "h2spec" in Huffman's code is 9a 64 c5 e2 ...: here "ok".
    judge(&[
        case(
            "generic/5/1 indexed",
            Answer(200),
            send![frame(
                HEADERS,
                WHOLE,
                1,
                [&[0x82, 0x86, 0x84][..], &block(&[(":authority", "shop.test")])].concat()
            )],
        ),
        case("generic/5/2 indexed name, to be indexed", Answer(200), send![hpack(&[0x7a, 2, b'o', b'k'])]),
        case(
            "generic/5/3 indexed name, to be indexed, Huffman",
            Answer(200),
            send![hpack(&[0x7a, 0x82, 0x3f, 0x5f])],
        ),
        case(
            "generic/5/4 new name, to be indexed",
            Answer(200),
            send![hpack(&[0x40, 1, b'x', 2, b'o', b'k'])],
        ),
        case(
            "generic/5/5 new name, to be indexed, Huffman",
            Answer(200),
            send![hpack(&[0x40, 0x82, 0x3f, 0x5f, 0x82, 0x3f, 0x5f])],
        ),
        case(
            "generic/5/6 indexed name, not indexed",
            Answer(200),
            send![hpack(&[0x0f, 0x2b, 2, b'o', b'k'])],
        ),
        case(
            "generic/5/7 indexed name, not indexed, Huffman",
            Answer(200),
            send![hpack(&[0x0f, 0x2b, 0x82, 0x3f, 0x5f])],
        ),
        case("generic/5/8 new name, not indexed", Answer(200), send![hpack(&[0, 1, b'x', 2, b'o', b'k'])]),
        case(
            "generic/5/9 new name, not indexed, Huffman",
            Answer(200),
            send![hpack(&[0, 0x82, 0x3f, 0x5f, 0x82, 0x3f, 0x5f])],
        ),
        case(
            "generic/5/10 indexed name, never indexed",
            Answer(200),
            send![hpack(&[0x1f, 0x2b, 2, b'o', b'k'])],
        ),
        case(
            "generic/5/11 indexed name, never indexed, Huffman",
            Answer(200),
            send![hpack(&[0x1f, 0x2b, 0x82, 0x3f, 0x5f])],
        ),
        case(
            "generic/5/12 new name, never indexed",
            Answer(200),
            send![hpack(&[0x10, 1, b'x', 2, b'o', b'k'])],
        ),
        case(
            "generic/5/13 new name, never indexed, Huffman",
            Answer(200),
            send![hpack(&[0x10, 0x82, 0x3f, 0x5f, 0x82, 0x3f, 0x5f])],
        ),
        case(
            "generic/5/14 a size update",
            Answer(200),
            send![frame(HEADERS, WHOLE, 1, [&[0x20][..], &get("/")].concat())],
        ),
        case(
            "generic/5/15 several size updates",
            Answer(200),
            send![frame(HEADERS, WHOLE, 1, [&[0x20, 0x3f, 0xe1, 0x1f][..], &get("/")].concat())],
        ),
    ]);
}

#[test]
fn section_3_the_preface() {
    let lab = Lab::with(&["blue"], "");
    let mut connection = Frames::silent(lab.address());
    connection.send([PREFACE, &settings(&[])].concat());
    let first = connection.piece();
    assert_eq!((first.kind, first.flags), (SETTINGS, 0), "3.5/1");
    assert!(connection.is_alive());
    let mut connection = Frames::silent(lab.address());
    connection.send("INVALID CONNECTION PREFACE\r\n\r\n");
    connection.rest();
    let mut connection = Frames::silent(lab.address());
    connection.send([PREFACE, &ping(b"12345678")].concat());
    assert!([None, Some(PROTOCOL)].contains(&connection.end()), "settings come first");
}

#[test]
fn section_4_frames() {
    const LARGE: &[u8] = &[0; 16_385];
    judge(&[
        case("4.1/1 an unknown type", Pong, send![frame(0xff, 0, 0, [0; 8]), ping(b"12345678")]),
        case("4.1/2 an unknown flag", Pong, send![frame(PING, 0x16, 0, b"12345678")]),
        case("4.1/3 the reserved bit", Pong, send![frame(PING, 0, 1 << 31, b"12345678")]),
        case(
            "4.2/1 DATA of 2^14 bytes",
            Answer(200),
            send![open(1), frame(DATA, END_STREAM, 1, &LARGE[..16_384])],
        ),
        case(
            "4.2/2 DATA over the frame's largest size",
            Stream(&[FRAME_SIZE]),
            send![open(1), frame(DATA, END_STREAM, 1, LARGE)],
        ),
        case(
            "4.2/3 HEADERS over the frame's largest size",
            Connection(&[FRAME_SIZE]),
            send![frame(HEADERS, WHOLE, 1, [&get("/")[..], LARGE].concat())],
        ),
        case(
            "4.3/1 an invalid header block",
            Connection(&[COMPRESSION]),
            send![frame(HEADERS, WHOLE, 1, [0x40, 1, b'x'])],
        )
        .but(&[PROTOCOL]),
        case(
            "4.3/2 PRIORITY inside a header block",
            Connection(&[PROTOCOL]),
            send![
                frame(HEADERS, END_STREAM, 1, get("/")),
                priority(1, 0, 255),
                frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "y")]))
            ],
        ),
        case(
            "4.3/3 HEADERS of another stream inside a header block",
            Connection(&[PROTOCOL]),
            send![frame(HEADERS, END_STREAM, 1, get("/")), whole(3)],
        ),
    ]);
}

#[test]
fn section_5_1_states() {
    judge(&[
        case("5.1/1 idle: DATA", Connection(&[PROTOCOL]), send![frame(DATA, END_STREAM, 1, "test")]),
        case("5.1/2 idle: RST_STREAM", Connection(&[PROTOCOL]), send![reset(1, 8)]),
        case("5.1/3 idle: WINDOW_UPDATE", Connection(&[PROTOCOL]), send![window_update(1, 100)]),
        case(
            "5.1/4 idle: CONTINUATION",
            Connection(&[PROTOCOL]),
            send![frame(CONTINUATION, END_HEADERS, 1, get("/"))],
        ),
        case(
            "5.1/5 half-closed (remote): DATA",
            Stream(&[STREAM_CLOSED]),
            send![whole(1), frame(DATA, END_STREAM, 1, "test")],
        )
        .but(&[PROTOCOL]),
        case("5.1/6 half-closed (remote): HEADERS", Stream(&[STREAM_CLOSED]), send![whole(1), whole(1)])
            .but(&[PROTOCOL]),
        case(
            "5.1/7 half-closed (remote): CONTINUATION",
            Connection(&[STREAM_CLOSED, PROTOCOL]),
            send![whole(1), frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "y")]))],
        ),
        case("5.1/11 closed: DATA", Stream(&[STREAM_CLOSED]), |connection| {
            closed(connection);
            connection.try_send(frame(DATA, END_STREAM, 1, "test"))
        }),
        case("5.1/12 closed: HEADERS", Connection(&[STREAM_CLOSED]), |connection| {
            closed(connection);
            connection.try_send(whole(1))
        })
        .but(&[PROTOCOL]),
        case("5.1/13 closed: CONTINUATION", Connection(&[STREAM_CLOSED, PROTOCOL]), |connection| {
            closed(connection);
            connection.try_send(frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "y")])))
        }),
        case("5.1.1/1 an even stream", Connection(&[PROTOCOL]), send![whole(2)]),
        case(
            "5.1.1/2 a stream below one that was opened",
            Connection(&[PROTOCOL]),
            send![whole(5), whole(3)],
        ),
    ]);
}

#[test]
fn section_5_1_closed_by_a_reset() {
    judge(&[
        case(
            "5.1/8 closed by the client: DATA",
            Stream(&[STREAM_CLOSED]),
            send![open(1), reset(1, 8), frame(DATA, END_STREAM, 1, "test")],
        )
        .but(&[PROTOCOL]),
        case(
            "5.1/9 closed by the client: HEADERS",
            Stream(&[STREAM_CLOSED]),
            send![open(1), reset(1, 8), whole(1)],
        )
        .but(&[PROTOCOL]),
        case(
            "5.1/10 closed by the client: CONTINUATION",
            Connection(&[STREAM_CLOSED, PROTOCOL]),
            send![open(1), reset(1, 8), frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "y")]))],
        ),
    ]);
}

#[test]
fn section_5_1_2_concurrency() {
    judge(&[case("5.1.2/1 more streams than were allowed", Stream(&[REFUSED, PROTOCOL]), |connection| {
        (0..101).try_for_each(|index| connection.try_send(open(2 * index + 1)))
    })]);
}

#[test]
fn section_5_dependencies_errors_and_extensions() {
    judge(&[
        case(
            "5.3.1/1 HEADERS that depend on themselves",
            Stream(&[PROTOCOL]),
            send![frame(HEADERS, WHOLE | PRIORITIZED, 1, [&[0, 0, 0, 1, 255][..], &get("/")].concat())],
        ),
        case("5.3.1/2 PRIORITY that depends on itself", Stream(&[PROTOCOL]), send![priority(1, 1, 255)]),
        case(
            "5.4.1/1 a connection error closes",
            Connection(&[PROTOCOL]),
            send![frame(PING, 0, 1, b"12345678")],
        ),
        case("5.5/1 an unknown frame", Pong, send![frame(0x16, 0, 0, b"anything"), ping(b"12345678")]),
        case(
            "5.5/2 an unknown frame inside a header block",
            Connection(&[PROTOCOL]),
            send![
                frame(HEADERS, END_STREAM, 1, get("/")),
                frame(0x16, 0, 1, b"anything"),
                frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "y")]))
            ],
        ),
    ]);
}

#[test]
fn section_6_1_to_6_4() {
    judge(&[
        case("6.1/1 DATA on 0", Connection(&[PROTOCOL]), send![frame(DATA, END_STREAM, 0, "test")]),
        case(
            "6.1/2 DATA on a stream that is not open",
            Stream(&[STREAM_CLOSED]),
            send![whole(1), frame(DATA, END_STREAM, 1, "test")],
        )
        .but(&[PROTOCOL]),
        case(
            "6.1/3 DATA padded beyond its end",
            Connection(&[PROTOCOL]),
            send![open(1), frame(DATA, END_STREAM | PADDED, 1, b"\xfftest")],
        ),
        case(
            "6.2/1 HEADERS, then PRIORITY",
            Connection(&[PROTOCOL]),
            send![frame(HEADERS, END_STREAM, 1, get("/")), priority(1, 0, 255)],
        ),
        case(
            "6.2/2 HEADERS, then those of another stream",
            Connection(&[PROTOCOL]),
            send![frame(HEADERS, END_STREAM, 1, get("/")), whole(3)],
        ),
        case("6.2/3 HEADERS on 0", Connection(&[PROTOCOL]), send![whole(0)]),
        case(
            "6.2/4 HEADERS padded beyond their end",
            Connection(&[PROTOCOL]),
            send![frame(HEADERS, WHOLE | PADDED, 1, [&[0xff][..], &get("/")].concat())],
        ),
        case("6.3/1 PRIORITY on 0", Connection(&[PROTOCOL]), send![priority(0, 1, 255)]),
        case(
            "6.3/2 PRIORITY of another length",
            Stream(&[FRAME_SIZE]),
            send![whole(1), frame(PRIORITY, 0, 1, [0; 4])],
        ),
        case("6.4/1 RST_STREAM on 0", Connection(&[PROTOCOL]), send![reset(0, 8)]),
        case("6.4/2 RST_STREAM on idle", Connection(&[PROTOCOL]), send![reset(1, 8)]),
        case(
            "6.4/3 RST_STREAM of another length",
            Connection(&[FRAME_SIZE]),
            send![open(1), frame(RST_STREAM, 0, 1, [0; 3])],
        ),
    ]);
}

#[test]
fn section_6_5_settings() {
    judge(&[
        case(
            "6.5/1 an acknowledgement with settings",
            Connection(&[FRAME_SIZE]),
            send![frame(SETTINGS, ACK, 0, [0; 6])],
        ),
        case(
            "6.5/2 on a stream",
            Connection(&[PROTOCOL]),
            send![frame(SETTINGS, 0, 1, [0, 3, 0, 0, 0, 100])],
        ),
        case("6.5/3 of another length", Connection(&[FRAME_SIZE]), send![frame(SETTINGS, 0, 0, [0; 3])]),
        case("6.5.2/1 ENABLE_PUSH of 2", Connection(&[PROTOCOL]), send![settings(&[(2, 2)])]),
        case("6.5.2/2 a window over 2^31-1", Connection(&[FLOW_CONTROL]), send![settings(&[(4, 1 << 31)])])
            .but(&[PROTOCOL]),
        case("6.5.2/3 frames below 2^14", Connection(&[PROTOCOL]), send![settings(&[(5, 16_383)])]),
        case("6.5.2/4 frames over 2^24-1", Connection(&[PROTOCOL]), send![settings(&[(5, 1 << 24)])]),
        case("6.5.2/5 an unknown setting", Pong, send![settings(&[(0xff, 1)]), ping(b"12345678")]),
        case("6.5.3/2 it is acknowledged", Acknowledged, send![settings(&[(2, 0)])]),
    ]);
}

#[test]
fn section_6_7_to_6_9() {
    judge(&[
        case("6.7/1 PING", Pong, send![ping(b"12345678")]),
        case(
            "6.7/2 an answer nobody asked for",
            Pong,
            send![frame(PING, ACK, 0, b"invalid!"), ping(b"12345678")],
        ),
        case("6.7/3 PING on a stream", Connection(&[PROTOCOL]), send![frame(PING, 0, 1, b"12345678")]),
        case("6.7/4 PING of another length", Connection(&[FRAME_SIZE]), send![frame(PING, 0, 0, b"123456")]),
        case("6.8/1 GOAWAY on a stream", Connection(&[PROTOCOL]), send![frame(GOAWAY, 0, 1, [0; 8])]),
        case("6.9/1 a window of nothing", Connection(&[PROTOCOL]), send![window_update(0, 0)]),
        case("6.9/2 a stream's window of nothing", Stream(&[PROTOCOL]), send![open(1), window_update(1, 0)]),
        case(
            "6.9/3 WINDOW_UPDATE of another length",
            Connection(&[FRAME_SIZE]),
            send![frame(8, 0, 0, [0; 3])],
        ),
        case(
            "6.9.1/2 the connection's window over 2^31-1",
            Connection(&[FLOW_CONTROL]),
            send![window_update(0, i32::MAX as u32), window_update(0, i32::MAX as u32)],
        ),
        case(
            "6.9.1/3 a stream's window over 2^31-1",
            Stream(&[FLOW_CONTROL]),
            send![open(1), window_update(1, i32::MAX as u32), window_update(1, i32::MAX as u32)],
        ),
        case(
            "6.9.2/3 the initial window over 2^31-1",
            Connection(&[FLOW_CONTROL]),
            send![settings(&[(4, 1 << 31)])],
        )
        .but(&[PROTOCOL]),
    ]);
}

#[test]
fn section_6_9_windows() {
    let (_lab, ways) = frames::ways_to(Origin::start("blue"), "");
    for way in ways {
        // 6.5.3/1: the last of two in one frame.
        let mut connection = way.frames();
        connection.send([settings(&[(4, 100), (4, 1)]), whole(1)].concat());
        assert_eq!(connection.next(DATA, 1).payload.len(), 1);
        // 6.9.1/1: a byte, and no more.
        let mut connection = way.with(&[(4, 1)]);
        connection.send(whole(1));
        assert_eq!(connection.next(DATA, 1).payload.len(), 1);
        assert!(connection.is_alive());
        // 6.9.2/1: the window of a stream that is open already is changed.
        let mut connection = way.with(&[(4, 0)]);
        connection.send(whole(1));
        connection.next(HEADERS, 1);
        connection.send(settings(&[(4, 1)]));
        assert_eq!(connection.next(DATA, 1).payload.len(), 1);
        // 6.9.2/2: to less than nothing, and back.
        let mut connection = way.with(&[(4, 3)]);
        connection.send(whole(1));
        assert_eq!(connection.next(DATA, 1).payload.len(), 3);
        connection.send([settings(&[(4, 2)]), window_update(1, 2)].concat());
        assert_eq!(connection.next(DATA, 1).payload.len(), 1);
    }
}

#[test]
fn section_6_10_continuation() {
    judge(&[
        case(
            "6.10/1 several of them",
            Answer(200),
            send![
                frame(HEADERS, END_STREAM, 1, get("/")),
                frame(CONTINUATION, 0, 1, block(&[("x", "y")])),
                frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "y")]))
            ],
        ),
        case(
            "6.10/2 and then another frame",
            Connection(&[PROTOCOL]),
            send![
                frame(HEADERS, END_STREAM, 1, get("/")),
                frame(CONTINUATION, 0, 1, block(&[("x", "y")])),
                frame(DATA, END_STREAM, 1, "test")
            ],
        ),
        case(
            "6.10/3 on 0",
            Connection(&[PROTOCOL]),
            send![
                frame(HEADERS, END_STREAM, 1, get("/")),
                frame(CONTINUATION, END_HEADERS, 0, block(&[("x", "y")]))
            ],
        ),
        case(
            "6.10/4 after HEADERS that ended",
            Connection(&[PROTOCOL]),
            send![open(1), frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "y")]))],
        ),
        case(
            "6.10/5 after one that ended",
            Connection(&[PROTOCOL]),
            send![
                frame(HEADERS, 0, 1, post()),
                frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "y")])),
                frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "y")]))
            ],
        ),
        case(
            "6.10/6 after DATA",
            Connection(&[PROTOCOL]),
            send![
                open(1),
                frame(DATA, 0, 1, "test"),
                frame(CONTINUATION, END_HEADERS, 1, block(&[("x", "y")]))
            ],
        ),
    ]);
}

#[test]
fn section_7_codes() {
    judge(&[
        case(
            "7/1 GOAWAY with an unknown code",
            Connection(&[0, 0xff]),
            send![frame(GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0xff])],
        ),
        case("7/2 RST_STREAM with an unknown code", Pong, send![open(1), reset(1, 0xff), ping(b"12345678")]),
    ]);
}

#[test]
fn section_8_1_messages() {
    let malformed = Stream(&[PROTOCOL]);
    let scheme = (":scheme", "http");
    let authority = (":authority", "shop.test");
    assert_eq!(request("GET", "/")[1..], [scheme, (":path", "/"), authority]);
    judge(&[
        case(
            "8.1/1 a second HEADERS that ends nothing",
            malformed,
            send![
                open(1),
                frame(DATA, 0, 1, "test"),
                frame(HEADERS, END_HEADERS, 1, block(&[("x-test", "ok")]))
            ],
        ),
        case("8.1.2/1 a name in capitals", malformed, send![with(&[("X-TEST", "ok")])]),
        case("8.1.2.1/1 an unknown pseudo-field", malformed, send![with(&[(":test", "ok")])]),
        case("8.1.2.1/2 an answer's pseudo-field", malformed, send![with(&[(":status", "200")])]),
        case(
            "8.1.2.1/3 a pseudo-field as a trailer",
            malformed,
            send![open(1), frame(DATA, 0, 1, "test"), frame(HEADERS, WHOLE, 1, block(&[(":method", "200")]))],
        ),
        case(
            "8.1.2.1/4 a pseudo-field behind another",
            malformed,
            send![of(&[
                (":method", "GET"),
                (":scheme", "http"),
                ("x-test", "ok"),
                (":path", "/"),
                (":authority", "shop.test"),
            ])],
        ),
        case("8.1.2.2/1 a field of the connection", malformed, send![with(&[("connection", "keep-alive")])]),
        case("8.1.2.2/2 TE but for trailers", malformed, send![with(&[("te", "trailers, deflate")])]),
        case(
            "8.1.2.3/1 an empty path",
            malformed,
            send![of(
                &[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "shop.test"),]
            )],
        ),
        case(
            "8.1.2.3/2 no method",
            malformed,
            send![of(&[(":scheme", "http"), (":path", "/"), (":authority", "shop.test")])],
        ),
        case(
            "8.1.2.3/3 no scheme",
            malformed,
            send![of(&[(":method", "GET"), (":path", "/"), (":authority", "shop.test")])],
        ),
        case(
            "8.1.2.3/4 no path",
            malformed,
            send![of(&[(":method", "GET"), (":scheme", "http"), (":authority", "shop.test")])],
        ),
        case(
            "8.1.2.3/5 two methods",
            malformed,
            send![of(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":method", "GET"),])],
        ),
        case(
            "8.1.2.3/6 two schemes",
            malformed,
            send![of(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":scheme", "http"),])],
        ),
        case(
            "8.1.2.3/7 two paths",
            malformed,
            send![of(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":path", "/"),])],
        ),
    ]);
}

#[test]
fn section_8_1_trailers_in_fragments() {
    /// A request whose trailers begin with nothing, and go on in two pieces.
    fn with_trailers(fields: &[(&str, &str)]) -> Vec<u8> {
        let block = block(fields);
        let trailers = [
            frame(HEADERS, END_STREAM, 1, ""),
            frame(CONTINUATION, 0, 1, &block[..1]),
            frame(CONTINUATION, END_HEADERS, 1, &block[1..]),
        ];
        [open(1), frame(DATA, 0, 1, "test"), trailers.concat()].concat()
    }
    judge(&[
        case("a pseudo-field", Stream(&[PROTOCOL]), send![with_trailers(&[(":method", "200")])]),
        case("another field", Answer(200), send![with_trailers(&[("x-test", ":ok")])]),
    ]);
}

#[test]
fn section_8_lengths_and_pushes() {
    fn announced(stream: u32) -> Vec<u8> {
        let fields = [&request("POST", "/")[..], &[("content-length", "1")]].concat();
        frame(HEADERS, END_HEADERS, stream, block(&fields))
    }
    judge(&[
        case(
            "8.1.2.6/1 another length than was announced",
            Stream(&[PROTOCOL]),
            send![announced(1), frame(DATA, END_STREAM, 1, "test")],
        ),
        case(
            "8.1.2.6/2 another length in several frames",
            Stream(&[PROTOCOL]),
            send![announced(1), frame(DATA, 0, 1, "te"), frame(DATA, END_STREAM, 1, "st")],
        ),
        case(
            "8.2/1 PUSH_PROMISE",
            Connection(&[PROTOCOL]),
            send![frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &get("/")].concat())],
        ),
    ]);
}

#[test]
fn header_compression_errors() {
    let compression = Connection(&[COMPRESSION]);
    judge(&[
        case("hpack 2.3.3/1 an index beyond the tables", compression, send![hpack(&[0xc6])]).but(&[PROTOCOL]),
        case(
            "hpack 2.3.3/2 a name's index beyond the tables",
            compression,
            send![hpack(&[0x7f, 0x07, 2, b'o', b'k'])],
        )
        .but(&[PROTOCOL]),
        case("hpack 4.2/1 a size update at the block's end", compression, send![hpack(&[0x3f, 0x01])])
            .but(&[PROTOCOL]),
        case(
            "hpack 5.2/1 Huffman's padding over seven bits",
            compression,
            send![hpack(&[0x40, 1, b'x', 0x83, 0x3f, 0x5f, 0xff])],
        )
        .but(&[PROTOCOL]),
        case(
            "hpack 5.2/2 Huffman's padding of zeros",
            compression,
            send![hpack(&[0x40, 1, b'x', 0x81, 0x38])],
        )
        .but(&[PROTOCOL]),
        case(
            "hpack 5.2/3 Huffman's end of string",
            compression,
            send![hpack(&[0x40, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff])],
        )
        .but(&[PROTOCOL]),
        case("hpack 6.1/1 index 0", compression, send![hpack(&[0x80])]).but(&[PROTOCOL]),
        case(
            "hpack 6.3/1 a size update over the setting",
            compression,
            send![frame(HEADERS, WHOLE, 1, [&[0x3f, 0xe2, 0x1f][..], &get("/")].concat())],
        )
        .but(&[PROTOCOL]),
    ]);
}
