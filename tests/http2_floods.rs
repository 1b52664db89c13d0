//! Attack classes 14 to 20 on HTTP/2, each by its name: the attacker is sent away or loses its stream, each refusal is
//! counted, memory stays bounded, and a polite client next to it notices nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test, and it measures"
)]

mod lab;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY,
    RST_STREAM, WHOLE, block, frame, ping, reset, settings, window_update,
};
use lab::origin::Then;
use lab::{Client, Frames, Gate, Http2, Lab, Origin};

/// What the proxy may grow by under any of it.
const GROWTH: usize = 100 << 20;
/// How long the polite client's requests may take, 99 of 100 of them; a build for debugging is another proxy.
const POLITE: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3_000 } else { 250 });
const CALM: u32 = 11;

/// Answers with a mebibyte at `/large`, and soon enough else; `/late` once the gate is open.
fn origin(gate: &Gate) -> Origin {
    let gate = gate.clone();
    let body = vec![b'x'; 1 << 20];
    Origin::behaving("blue", move |seen, stream| {
        if seen.path() == "/late" {
            gate.wait();
        }
        let body = if seen.path() == "/large" { &body[..] } else { b"ok" };
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())?;
        stream.write_all(body)?;
        Ok(Then::Keep)
    })
}

/// A lab under attack, with a polite client.
struct Siege {
    lab: Lab,
    gate: Gate,
    before: usize,
    is_over: Arc<AtomicBool>,
    polite: JoinHandle<Vec<Duration>>,
}

impl Siege {
    fn lay() -> Self {
        Self::with("")
    }

    fn with(extra: &str) -> Self {
        let gate = Gate::default();
        let lab = Lab::on(vec![origin(&gate)], extra);
        let is_over = Arc::new(AtomicBool::new(false));
        let (address, over) = (lab.address(), Arc::clone(&is_over));
        // One connection a request: some of them meet the worker under attack.
        let polite = thread::spawn(move || {
            let mut times = Vec::new();
            while !over.load(Ordering::SeqCst) || times.len() < 50 {
                let since = Instant::now();
                assert_eq!(Client::connect(address).get("/polite").status, 200);
                times.push(since.elapsed());
                thread::sleep(Duration::from_millis(2));
            }
            times
        });
        let before = lab.proxy().memory();
        Self { lab, gate, before, is_over, polite }
    }

    fn attacker(&self) -> Frames {
        Frames::to(self.lab.address())
    }

    /// Sends `piece` until the proxy has had enough, and gives the code with which it says so, if that came through.
    fn flood(&self, mut attacker: Frames, mut piece: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
        let mut reader = Frames::over(Box::new(attacker.socket().try_clone().unwrap()));
        let end = thread::spawn(move || reader.end());
        let since = Instant::now();
        for index in 0.. {
            if attacker.try_send(piece(index)).is_err() {
                break;
            }
            assert!(since.elapsed() < lab::PATIENCE, "it is let do for ever");
        }
        end.join().unwrap()
    }

    /// Everything that must hold, when the attack is over and was refused for `reason` at least once.
    fn raise(self, reason: &str) {
        if !reason.is_empty() {
            let of = format!("reason=\"{reason}\"");
            let refused = || self.lab.metric(&["switchback_client_requests_total{service=\"\"", &of]);
            lab::wait_until("it is counted", || refused().is_some_and(|count| count >= 1.0));
        }
        let grown = self.lab.proxy().memory().saturating_sub(self.before);
        assert!(grown <= GROWTH, "the proxy has grown by {} MiB", grown >> 20);
        self.is_over.store(true, Ordering::SeqCst);
        let mut times = self.polite.join().expect("the polite client was served");
        times.sort();
        let p99 = times[times.len() * 99 / 100 - 1];
        assert!(p99 <= POLITE, "the polite client's p99 is {p99:?} of {} requests", times.len());
        self.gate.open();
    }
}

/// Stream number `index`.
fn stream(index: u32) -> u32 {
    2 * index + 1
}

fn assert_calmed(code: Option<u32>) {
    // The reset of the connection may overtake the frame.
    assert!(code.is_none() || code == Some(CALM), "{code:?}");
}

#[test]
fn class_14_rapid_reset() {
    let siege = Siege::lay();
    let end = siege.flood(siege.attacker(), |index| {
        [frame(HEADERS, WHOLE, stream(index), frames::get("/late")), reset(stream(index), 8)].concat()
    });
    assert_calmed(end);
    siege.raise("flood");
}

#[test]
fn class_14_rapid_reset_in_one_burst() {
    let siege = Siege::lay();
    let end = siege.flood(siege.attacker(), |index| {
        let one = |index| {
            [frame(HEADERS, WHOLE, stream(index), frames::get("/late")), reset(stream(index), 8)].concat()
        };
        (50 * index..50 * (index + 1)).flat_map(one).collect()
    });
    assert_calmed(end);
    siege.raise("flood");
}

#[test]
fn class_14_requests_that_are_given_up_slowly_enough_are_honest() {
    let siege = Siege::lay();
    let mut client = siege.attacker();
    for index in 0..300 {
        client.send(frame(HEADERS, WHOLE, stream(2 * index), frames::get("/late")));
        client.send(reset(stream(2 * index), 8));
        assert_eq!(client.ask(stream(2 * index + 1), "/"), 200);
    }
    drop(client);
    siege.raise("");
}

/// It speaks for many, and passes on what they give up: the requests of the others are not lost by it.
#[test]
fn class_14_of_a_trusted_proxy_that_gives_many_up_the_connection_ends_with_the_answers_that_are_due() {
    let siege = Siege::with("trusted_proxies = [\"127.0.0.0/8\"]");
    let mut proxy = siege.attacker();
    proxy.send(frame(HEADERS, WHOLE, 1, frames::get("/late")));
    let mut goodbye = None;
    for batch in 0.. {
        let streams = || (1..=50).map(move |index| stream(50 * batch + index));
        let asked = streams().flat_map(|stream| frame(HEADERS, WHOLE, stream, frames::get("/late")));
        proxy.send(asked.chain(ping(b"all read")).collect::<Vec<_>>());
        let next = proxy.until(|piece| piece.kind == GOAWAY || piece.kind == PING && piece.flags & ACK != 0);
        if next.kind == GOAWAY {
            goodbye = Some(next.code());
            break;
        }
        proxy.send(streams().flat_map(|stream| reset(stream, 8)).collect::<Vec<_>>());
    }
    assert_eq!(goodbye, Some(0));
    siege.gate.open();
    assert_eq!(proxy.status(1), 200);
    siege.raise("");
}

#[test]
fn class_15_made_you_reset() {
    let siege = Siege::lay();
    // Each of them makes the proxy reset the stream: a window that overflows, one of nothing, a body that is too long.
    let provocations: [fn(u32) -> Vec<u8>; 3] = [
        |stream| window_update(stream, i32::MAX as u32),
        |stream| frame(HEADERS, END_HEADERS, stream, block(&[("x-trailer", "without an end")])),
        |stream| frame(DATA, END_STREAM, stream, "longer than announced"),
    ];
    for provocation in provocations {
        let end = siege.flood(siege.attacker(), |index| {
            let fields = [&frames::request("POST", "/late")[..], &[("content-length", "5")]].concat();
            [frame(HEADERS, END_HEADERS, stream(index), block(&fields)), provocation(stream(index))].concat()
        });
        assert_calmed(end);
    }
    siege.raise("flood");
}

#[test]
fn class_16_continuation_flood() {
    let siege = Siege::lay();
    for payload in [&b""[..], &block(&[("x-a", "b")]), &block(&[("x-a", &"v".repeat(8_000))])] {
        let mut attacker = siege.attacker();
        attacker.send(frame(HEADERS, END_STREAM, 1, frames::get("/")));
        let end = siege.flood(attacker, |_| frame(CONTINUATION, 0, 1, payload));
        assert!([None, Some(CALM), Some(1), Some(9)].contains(&end), "{end:?}");
    }
    siege.raise("flood");
}

#[test]
fn class_17_control_frame_floods() {
    let siege = Siege::lay();
    type Piece = fn(u32) -> Vec<u8>;
    let floods: [(&str, Piece); 7] = [
        ("pings", |_| ping(b"12345678")),
        ("answers to no ping", |_| frame(PING, ACK, 0, b"12345678")),
        ("settings", |_| settings(&[(4, 65_535)])),
        ("resets of what is closed", |_| reset(1, 8)),
        ("priorities", |_| frame(PRIORITY, 0, 1, [0, 0, 0, 0, 7])),
        ("window updates", |index| window_update(0, 1 + index % 2)),
        ("frames of no known type", |_| frame(99, 0, 0, [7; 20])),
    ];
    for (name, piece) in floods {
        let mut attacker = siege.attacker();
        assert_eq!(attacker.ask(1, "/"), 200);
        let burst = |index| (0..100).flat_map(|_| piece(index)).collect();
        let end = siege.flood(attacker, burst);
        assert!(end.is_none() || end == Some(CALM), "{name}: {end:?}");
    }
    let log = siege.lab.proxy().log();
    assert!(log.lines().count() < 10, "a client writes none of it:\n{log}");
    siege.raise("flood");
}

#[test]
fn class_17_pings_of_a_client_that_does_not_read() {
    let siege = Siege::lay();
    let mut attacker = siege.attacker();
    let since = Instant::now();
    while attacker.try_send(ping(b"12345678").repeat(1_000)).is_ok() {
        assert!(since.elapsed() < lab::PATIENCE, "it is let do for ever");
    }
    siege.lab.wait_for_metric(&["switchback_client_requests_total{service=\"\"", "reason=\"flood\""], 1.0);
    siege.raise("flood");
}

#[test]
fn class_17_pings_for_what_is_sent_are_honest() {
    let siege = Siege::lay();
    let mut client = siege.attacker();
    // As gRPC's clients do: one for each message, and two windows opened for it.
    for index in 0..1_500 {
        assert_eq!(client.ask(stream(index), "/"), 200);
        client.send([ping(b"12345678"), window_update(0, 2), window_update(stream(index), 2)].concat());
    }
    assert!(client.is_alive());
    drop(client);
    siege.raise("");
}

#[test]
fn class_18_empty_tiny_and_padded_data() {
    let siege = Siege::lay();
    let padded = [&[250][..], b"", &[0; 250]].concat();
    let tiny_padded = [&[250][..], b"x", &[0; 250]].concat();
    let floods = [
        ("empty", 0, &b""[..]),
        ("tiny", 0, b"x"),
        ("padding alone", PADDED, &padded),
        ("padded", PADDED, &tiny_padded),
    ];
    for (name, flags, payload) in floods {
        let mut attacker = siege.attacker();
        attacker.send(frame(HEADERS, END_HEADERS, 1, block(&frames::request("POST", "/"))));
        let burst = frame(DATA, flags, 1, payload).repeat(100);
        // Windows are opened as the endpoint takes it, so this one can go on only by being honest.
        let (mut reader, since) =
            (Frames::over(Box::new(attacker.socket().try_clone().unwrap())), Instant::now());
        let reading = thread::spawn(move || reader.end());
        let mut sent = 0;
        while attacker.try_send(&burst).is_ok() && since.elapsed() < Duration::from_secs(3) {
            sent += 100;
        }
        if !reading.is_finished() {
            // What it sends is a body, byte by byte, and it pays for each more than the proxy does.
            println!("{name}: {sent} frames in {:?}", since.elapsed());
        }
        let _ = attacker.socket().shutdown(std::net::Shutdown::Both);
        assert!([None, Some(CALM), Some(3)].contains(&reading.join().unwrap()), "{name}");
    }
    siege.raise("flood");
}

#[test]
fn class_18_small_messages_that_the_endpoint_takes_are_honest() {
    let siege = Siege::lay();
    lab::http2::run(async {
        let client = Http2::to(siege.lab.address()).await;
        let asked = lab::http2::request(http::Method::POST, "/");
        let (response, mut send) = client.start(asked, false).await;
        for _ in 0..20_000 {
            send.reserve_capacity(5);
            std::future::poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
            send.send_data("hello".into(), false).unwrap();
            tokio::task::yield_now().await;
        }
        send.send_data("".into(), true).unwrap();
        assert_eq!(lab::http2::answer(response).await.unwrap().status, 200);
    });
    siege.raise("");
}

#[test]
fn class_19_hpack_and_header_count_bombs() {
    let siege = Siege::lay();
    // A field of 4,000 bytes in the table, then a byte for each time it is meant.
    let mut bomb = frames::get("/");
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'v'; 4_000]);
    bomb.resize(bomb.len() + 10_000, 0xbe);
    let many: Vec<_> = (0..1_000).map(|_| ("a", "")).collect();
    let count = [frames::get("/"), block(&many)].concat();
    for (name, head) in [("table", bomb), ("count", count)] {
        for _ in 0..50 {
            let mut attacker = siege.attacker();
            for index in 0..20 {
                if attacker.try_send(frame(HEADERS, WHOLE, stream(index), &head)).is_err() {
                    break;
                }
            }
            let piece = loop {
                match attacker.try_piece() {
                    Ok(piece) if [HEADERS, RST_STREAM, GOAWAY].contains(&piece.kind) => break Some(piece),
                    Ok(_) => {}
                    Err(_) => break None,
                }
            };
            let is_refused = match piece {
                Some(piece) if piece.kind == HEADERS => piece.status() == Some(431),
                Some(_) | None => true,
            };
            assert!(is_refused, "{name}");
        }
    }
    assert_eq!(siege.lab.origins[0].seen().iter().filter(|seen| seen.path() == "/").count(), 0);
    siege.raise("");
}

#[test]
fn class_20_windows_that_never_open() {
    let siege = Siege::with("[limits]\nwrite_stall = \"3s\"\n");
    let mut attackers: Vec<_> =
        (0..10).map(|_| Frames::silent(siege.lab.address()).open(&[(4, 0)])).collect();
    for attacker in &mut attackers {
        for index in 0..100 {
            attacker.send(frame(HEADERS, WHOLE, stream(index), frames::get("/large")));
        }
    }
    let in_flight = || siege.lab.metric_sum("switchback_in_flight{");
    lab::wait_until("all of them hold", || in_flight() > 990.0);
    let held = siege.lab.proxy().memory().saturating_sub(siege.before);
    assert!(held <= GROWTH, "{} MiB are held", held >> 20);
    for attacker in &mut attackers {
        for _ in 0..100 {
            let end = attacker.until(|piece| piece.kind == RST_STREAM);
            assert_eq!(end.code(), 8, "CANCEL");
        }
    }
    drop(attackers);
    siege.raise("");
}

#[test]
fn class_20_a_byte_at_a_time() {
    let siege = Siege::lay();
    let mut attacker = Frames::silent(siege.lab.address()).open(&[(4, 1)]);
    attacker.send(frame(HEADERS, WHOLE, 1, frames::get("/large")));
    let end = siege.flood(attacker, |_| window_update(1, 1).repeat(10));
    assert_calmed(end);
    siege.raise("flood");
}

/// CVE-2019-9517 by one frame for all streams: what they are sent by it is more than it.
#[test]
fn class_20_a_byte_of_each_answer_at_a_time() {
    const STREAMS: u32 = 40;
    let siege = Siege::lay();
    let mut attacker = Frames::silent(siege.lab.address()).open(&[(4, 0)]);
    for index in 0..STREAMS {
        attacker.send(frame(HEADERS, WHOLE, stream(index), frames::get("/large")));
    }
    (0..STREAMS).for_each(|_| drop(attacker.until(|piece| piece.kind == HEADERS)));
    let since = Instant::now();
    let bytes = |attacker: &mut Frames, window| {
        attacker.try_send(settings(&[(4, window)]))?;
        let mut left = STREAMS;
        while left > 0 {
            let piece = attacker.try_piece()?;
            if piece.kind == GOAWAY {
                assert_calmed(Some(piece.code()));
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            left -= u32::from(piece.kind == DATA);
        }
        std::io::Result::Ok(())
    };
    let end = (1..).find(|window| bytes(&mut attacker, *window).is_err() || since.elapsed() > lab::PATIENCE);
    assert!(since.elapsed() < lab::PATIENCE, "it is let do for ever, {end:?} times so far");
    siege.raise("flood");
}

#[test]
fn pings_that_are_answered_out_of_turn_are_passed_over() {
    let siege = Siege::lay();
    let mut client = siege.attacker();
    client.send(frame(PING, ACK, 0, [7; 8]));
    assert!(client.is_alive());
    drop(client);
    siege.raise("");
}
