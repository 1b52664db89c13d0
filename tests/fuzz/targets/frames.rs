//! The follower of HTTP/2 frames: it comes to the same verdict however the bytes are cut.

#![cfg_attr(fuzzing, no_main)]

use switchback::proxy::connection::http2::{Frames, Tally};
use switchback::proxy::deferred::Watch;
use switchback_fuzz::fuzz_target;
use switchback_fuzz::pieces::sizes;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (seed, sent, bytes) = input;
    let (_, whole_taken) = followed(std::iter::once(bytes.len()), usize::from(sent), bytes);
    for seed in [0, 1, seed | 1] {
        let (mut pieces, taken) = followed(sizes(seed), usize::from(sent), bytes);
        let (mut whole, _) = followed(std::iter::once(bytes.len()), usize::from(sent), bytes);
        assert!(taken >= whole_taken && taken <= bytes.len(), "pieces {seed}");
        for now in [0, 1, 10, 1_000] {
            let tally = Tally::default();
            assert_eq!(pieces.verdict(now, &tally), whole.verdict(now, &tally), "pieces {seed} at {now}");
        }
    }
});

/// A follower that has seen all of `bytes`, and how many it let pass.
fn followed(mut sizes: impl Iterator<Item = usize>, sent: usize, bytes: &[u8]) -> (Frames, usize) {
    let (mut frames, mut rest, mut passed) = (Frames::default(), bytes, 0);
    frames.read(PREFACE);
    frames.sent(sent);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
        let taken = frames.read(piece);
        passed += taken;
        if taken < piece.len() {
            break;
        }
        rest = behind;
    }
    (frames, passed)
}
