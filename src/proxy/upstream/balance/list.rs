//! Who of a pool may be chosen: by standing, zone, and how long somebody has been there.

use std::time::{Duration, Instant};

use super::Pool;
use super::group::{Group, SCALE, Slate};
use crate::proxy::clock::Clock;
use crate::table::{SlowStart, ZoneName};

/// As long as at least 1 / 1.4 = 71 % of its own zone's endpoints serve, the proxy sends everything there; below that the
/// missing part goes to the other zones (Envoy's overprovisioning factor, Istio's locality failover).
const OVERPROVISIONING: (u64, u64) = (14, 10);

/// All of a share of 32 bits.
const ALL: u64 = 1 << 32;

/// Those that may be chosen when that is not simply all.
#[derive(Debug)]
pub(super) struct Listed {
    /// Where that is preferred: those in the proxy's own zone; else all of them.
    near: Group,
    /// The others.
    far: Group,
    /// How much goes to those near, of [`ALL`].
    near_share: u64,
    /// True when they are all that there are because too few serve.
    pub(super) is_panic: bool,
}

impl Listed {
    /// Who is to be chosen from, and then who if that fails; `lot` gives 32 random bits.
    pub(super) fn in_order(&self, lot: impl FnOnce() -> u32) -> [&Group; 2] {
        let is_near = match self.near_share {
            ALL => true,
            0 => false,
            share => u64::from(lot()) < share,
        };
        if is_near { [&self.near, &self.far] } else { [&self.far, &self.near] }
    }

    /// All of them, by their indices in the pool.
    pub(super) fn seats(&self) -> impl Iterator<Item = usize> {
        [&self.near, &self.far].into_iter().flat_map(|group| (0..group.len()).map(|place| group.seat(place)))
    }
}

/// Those that serve, or all when too few do; `None` when all serve alike. While somebody's share grows also after how many
/// ticks it has grown enough to look again.
pub(super) fn list(pool: Pool<'_>, now: Instant) -> (Option<Listed>, Option<u64>) {
    let serves: Vec<_> = pool.seats.iter().map(|seat| seat.vitals.standing().serves()).collect();
    let serving = serves.iter().filter(|serves| **serves).count();
    let needed = u64::from(pool.balance.panic_threshold.points()) * pool.seats.len() as u64;
    let is_panic = 10_000 * (serving as u64) < needed;
    let slow_start = pool.balance.slow_start.filter(|_| !is_panic);
    let shares: Vec<_> = pool.seats.iter().map(|seat| share(slow_start, seat.vitals.since(), now)).collect();
    let is_growing = shares.iter().any(|share| *share < SCALE);
    if serving == pool.seats.len() && !is_growing && pool.traits.is_empty() {
        return (None, None);
    }
    let weight = |index: usize| pool.traits.get(index).map_or(1, |traits| u32::from(traits.weight.number()));
    let zone = pool.zone.filter(|_| pool.balance.zone_preference && !is_panic);
    let is_near = |index: usize| match zone {
        None => true,
        Some(zone) => {
            pool.traits.get(index).and_then(|traits| traits.zone.as_ref()) == Some::<&ZoneName>(zone)
        }
    };
    let chosen: Vec<_> = (0..pool.seats.len()).filter(|index| is_panic || serves[*index]).collect();
    let group = |near: bool| -> Group {
        let members = chosen.iter().filter(|index| is_near(**index) == near);
        // At least something: who may be chosen has a weight.
        members.map(|index| (*index, (weight(*index) * shares[*index]).max(1))).collect()
    };
    let (near, far) = (group(true), group(false));
    let sum =
        |indices: &mut dyn Iterator<Item = usize>| indices.map(|index| u64::from(weight(index))).sum::<u64>();
    let of_zone = sum(&mut (0..pool.seats.len()).filter(|index| is_near(*index)));
    let of_it_serving = sum(&mut chosen.iter().copied().filter(|index| is_near(*index)));
    let near_share = if far.len() == 0 { ALL } else { near_share(of_it_serving, of_zone) };
    let step = slow_start.filter(|_| is_growing).map(|slow| step(slow.duration));
    (Some(Listed { near, far, near_share, is_panic }), step)
}

/// How much stays in the zone, of [`ALL`].
fn near_share(serving: u64, all: u64) -> u64 {
    let (more, than) = OVERPROVISIONING;
    (ALL * serving * more).checked_div(all * than).map_or(0, |share| share.min(ALL))
}

/// How much of its weight an endpoint has that serves since then, of [`SCALE`].
fn share(slow_start: Option<SlowStart>, since: Option<Instant>, now: Instant) -> u32 {
    let Some((slow, since)) = slow_start.zip(since) else { return SCALE };
    let part = now.saturating_duration_since(since).as_secs_f64() / slow.duration.as_secs_f64();
    if part >= 1.0 {
        return SCALE;
    }
    let grown = part.powf(100.0 / f64::from(slow.curve));
    let share = grown.max(f64::from(slow.floor.points()) / 10_000.0).min(1.0) * f64::from(SCALE);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to SCALE")]
    {
        (share as u32).clamp(1, SCALE)
    }
}

/// A hundredth of the time, and at least a tick.
fn step(duration: Duration) -> u64 {
    Clock::ticks_in(duration / 100).max(1)
}
