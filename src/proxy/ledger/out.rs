//! What a worker has in flight on the two versions, by when it was begun.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Side;
use super::flight::{EPOCH, Flight, bump};
use super::page::Sums;

/// So many times as coarsely is it known for how long the slow ones are out, and so many times as long.
const COARSE: u64 = 16;
/// How far from the middle of its group such a one was begun at most, in microseconds.
pub const SLOWLY: u64 = EPOCH * COARSE / 2;

/// How one request is in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) side: Side,
    /// It is with an endpoint of the candidate that is not warm.
    pub(super) is_cold: bool,
    /// Its client has so many others that it raises no suspicion; of the candidate.
    pub(super) is_beyond: bool,
}

/// All that is in flight. Only its worker writes.
#[derive(Default)]
pub(super) struct Out {
    lately: [Flight; 2],
    /// The same of a longer time, of the baseline; what is in flight to endpoints that are not warm, of the candidate, and only there.
    slowly: [Flight; 2],
    /// Those of the candidate's in both that do not count where one client must not decide alone.
    beyond: [Flight; 2],
    /// Good answers of which something was still to come, and those of which nothing is any more.
    opened: [AtomicU64; 2],
    closed: [AtomicU64; 2],
}

impl Out {
    /// A request was begun so long after the ledger.
    pub(super) fn began(&self, way: Way, at: u64) {
        self.each(way, at, Flight::began);
    }

    /// What was begun then and is in flight has met an endpoint that is not warm.
    pub(super) fn grows_cold(&self, way: Way, begun: u64) {
        self.began(Way { is_cold: true, ..way }, begun);
        self.ended(Way { is_cold: false, ..way }, begun);
    }

    /// A request that was begun then is in flight no more, as far as this is concerned.
    pub(super) fn ended(&self, way: Way, begun: u64) {
        self.each(way, begun, Flight::ended);
    }

    fn each(&self, Way { side, is_cold, is_beyond }: Way, at: u64, count: fn(&Flight, u64)) {
        let index = side as usize;
        if !is_cold {
            count(&self.lately[index], at);
        }
        if is_cold || side == Side::Baseline {
            count(&self.slowly[index], at / COARSE);
        }
        if is_beyond {
            count(&self.beyond[usize::from(is_cold)], if is_cold { at / COARSE } else { at });
        }
    }

    /// A good answer has begun to come.
    pub(super) fn opened(&self, side: Side) {
        bump(&self.opened[side as usize]);
    }

    /// Nothing more comes of one.
    pub(super) fn closed(&self, side: Side) {
        bump(&self.closed[side as usize]);
    }

    pub(super) fn add_to(&self, sums: &mut Sums) {
        let coarsely = |(middle, begun, ended)| (middle * COARSE, begun, ended);
        // Those of them that are beyond first: what has ended among them has ended.
        let [lately, slowly] = &mut sums.beyond;
        self.beyond[0].look(|epoch| lately.push(epoch));
        self.beyond[1].look(|epoch| slowly.push(coarsely(epoch)));
        for side in [Side::Baseline, Side::Candidate].map(|side| side as usize) {
            let (lately, slowly) = (&mut sums.flights[side], &mut sums.slowly[side]);
            sums.older[side] += self.lately[side].look(|epoch| lately.push(epoch));
            let older = self.slowly[side].look(|epoch| slowly.push(coarsely(epoch)));
            // The baseline's are among the older ones already.
            sums.older[side] += if side == Side::Candidate as usize { older } else { 0 };
            // Pairs with `bump`: what is over was begun.
            let closed = self.closed[side].load(Ordering::Acquire);
            sums.open[side] += self.opened[side].load(Ordering::Acquire) - closed;
        }
    }
}
