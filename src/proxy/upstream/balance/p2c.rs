//! The power of two choices: of two that are drawn by lot, the one with less to do.
//!
//! The first is drawn by weight and the second evenly from the others, and the second has to be better to win. So while
//! there is little to do each gets its weight's share, and a lopsided weight still leaves somebody to compare with.

use super::group::{Slate, high, low};

/// The index in the pool of the one with less in flight for its weight, of two or more; `lot` is 64 random bits.
pub(super) fn choose(slate: &impl Slate, lot: u64, in_flight: impl Fn(usize) -> u32) -> usize {
    let (first, second) = two(slate, lot);
    let [one, other] = [first, second].map(|place| slate.seat(place));
    // in_flight / weight, crosswise.
    let load = |seat: usize, other: usize| u64::from(in_flight(seat)) * u64::from(slate.weight(other));
    if load(other, first) < load(one, second) { other } else { one }
}

/// The index in the pool of the one that costs less for its weight.
pub(super) fn cheaper(slate: &impl Slate, lot: u64, cost: impl Fn(usize) -> f64) -> usize {
    let (first, second) = two(slate, lot);
    let [one, other] = [first, second].map(|place| slate.seat(place));
    let load = |seat: usize, other: usize| cost(seat) * f64::from(slate.weight(other));
    if load(other, first) < load(one, second) { other } else { one }
}

/// Two places.
fn two(slate: &impl Slate, lot: u64) -> (usize, usize) {
    let first = slate.draw(high(lot));
    let others = slate.len() as u64 - 1;
    let second = high(u64::from(low(lot)) * others) as usize;
    (first, if second < first { second } else { second + 1 })
}
