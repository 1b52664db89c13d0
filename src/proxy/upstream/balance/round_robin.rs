//! In turn: one after the other, the heavier ones more often, and evenly interleaved.

use super::group::Slate;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Where all weigh the same: the index in the pool of the next one.
    next: usize,
    /// Else how much each is owed, by its index in the pool (nginx's smooth weighted round robin).
    owed: Vec<i64>,
}

impl Turns {
    /// The index in the pool of the next one. Where weights differ it costs a look at all of them.
    pub(super) fn next(&mut self, slate: &impl Slate) -> usize {
        if slate.is_even() {
            let seat = slate.seat(slate.place_from(self.next));
            self.next = seat + 1;
            return seat;
        }
        let (mut total, mut best) = (0, (i64::MIN, 0));
        for place in 0..slate.len() {
            let (seat, weight) = (slate.seat(place), i64::from(slate.weight(place)));
            if self.owed.len() <= seat {
                self.owed.resize(seat + 1, 0);
            }
            self.owed[seat] += weight;
            total += weight;
            if self.owed[seat] > best.0 {
                best = (self.owed[seat], seat);
            }
        }
        let (_, seat) = best;
        self.owed[seat] -= total;
        seat
    }
}
