//! A consistent hash: weighted rendezvous with bounded loads.
//!
//! Each endpoint has a number for each key, by nothing but its address and the key, and the highest number has the key
//! (Thaler and Ravishankar). So all proxies agree; who goes takes only his own keys along, and who comes takes only what
//! he is due. The bound is Mirrokni's: nobody gets more than so much of his fair part of what is in flight, and what is
//! beyond goes to the next one of the key. It costs a look at all endpoints.

use super::group::{SCALE, Slate};
use crate::table::fnv::Fnv;

/// A hash that is the same on every machine and in every version: FNV-1a, mixed.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    mix(Fnv::of(bytes))
}

/// The last step of splitmix64: every bit depends on every bit.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The index in the pool of the one that has `key`, of two or more.
///
/// `bound` is in hundredths. What is in flight is what this worker has.
pub(super) fn choose(
    slate: &impl Slate,
    key: u64,
    bound: Option<u32>,
    mark: impl Fn(usize) -> u64,
    in_flight: impl Fn(usize) -> u32,
) -> usize {
    let rating = |place: usize| rating(mix(key ^ mark(slate.seat(place))), slate.weight(place));
    let best = |places: &mut dyn Iterator<Item = usize>| {
        let rated = places.map(|place| (rating(place), place));
        rated.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, place)| place)
    };
    let sums = |sum: (u64, u64), place: usize| {
        (sum.0 + u64::from(in_flight(slate.seat(place))), sum.1 + u64::from(slate.weight(place)))
    };
    let place = match bound {
        None => best(&mut (0..slate.len())),
        Some(bound) => {
            let (total, weights) = (0..slate.len()).fold((0, 0), sums);
            let has_room = |place: &usize| {
                let fair = u128::from(total + 1) * u128::from(slate.weight(*place)) * u128::from(bound);
                let most = fair.div_ceil(100 * u128::from(weights));
                u128::from(in_flight(slate.seat(*place))) < most
            };
            best(&mut (0..slate.len()).filter(has_room))
        }
    };
    // Somebody has less than his part of what there is, so somebody has room.
    slate.seat(place.unwrap_or(0))
}

/// The higher the better: -weight / ln(u), where u is `bits` as a fraction between 0 and 1.
fn rating(bits: u64, weight: u32) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let fraction = ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    f64::from(weight) / f64::from(SCALE) / -fraction.ln()
}
