//! The follower of HTTP/2 frames: it counts what a plain reader counts, however the bytes are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use switchback::proxy::connection::http2::Frames;
use switchback::proxy::deferred::Watch;
use switchback_fuzz::pieces::sizes;

const PREFACE: usize = 24;
/// As many pings as are no flood yet, so that every further idle frame is one.
const ALLOWED: u64 = 1_000;
const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (seed, sent, bytes) = input;
    let expected = idle(bytes, usize::from(sent));
    for seed in [0, 1, seed | 1] {
        let mut frames = full();
        frames.sent(usize::from(sent));
        let (mut rest, mut sizes) = (bytes, sizes(seed));
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
            frames.read(piece);
            rest = behind;
        }
        // Ten more are allowed for each tick.
        let allowed_at = expected.div_ceil(10);
        assert_eq!(frames.is_flood(0), expected > 0, "pieces {seed}");
        assert!(!frames.is_flood(allowed_at), "{expected}, pieces {seed}");
        assert!(expected == 0 || frames.is_flood(allowed_at - 1), "{expected}, pieces {seed}");
    }
});

/// A connection that has had all the idle frames that it may have.
fn full() -> Frames {
    let mut frames = Frames::default();
    frames.read(&[0; PREFACE]);
    (0..ALLOWED).for_each(|_| frames.read(&PING));
    assert!(!frames.is_flood(0));
    frames
}

/// How many frames of `bytes` carry nothing, after so many bytes were sent.
fn idle(mut bytes: &[u8], mut sent: usize) -> u64 {
    let mut idle = 0;
    while let [a, b, c, kind, flags, _, _, _, _, payload @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let is_idle = match kind {
            0 => length == 0 && flags & 1 == 0,
            4 | 6 => flags & 1 == 0,
            2 | 3 => true,
            8 if sent >= 1024 => {
                sent -= 1024;
                false
            }
            8 => {
                sent = 0;
                true
            }
            // HEADERS, PUSH_PROMISE, GOAWAY, CONTINUATION.
            1 | 5 | 7 | 9 => false,
            _ => true,
        };
        idle += u64::from(is_idle);
        bytes = payload.get(length..).unwrap_or_default();
    }
    idle
}
