//! Some of a pool's endpoints with their weights, and drawing one of them by lot.

/// A weight of 1 in the units that are reckoned with, so that parts of it can be told.
pub(super) const SCALE: u32 = 1 << 16;

/// Those among whom is chosen, by their places: 0, 1, 2, …
pub(super) trait Slate {
    /// How many.
    fn len(&self) -> usize;
    /// The index in the pool of the one at `place`.
    fn seat(&self, place: usize) -> usize;
    /// The place of the first one that is at `seat` in the pool or behind it; the first of all when there is none.
    fn place_from(&self, seat: usize) -> usize;
    /// Its weight.
    fn weight(&self, place: usize) -> u32;
    /// True when all have the same weight.
    fn is_even(&self) -> bool;
    /// A place by lot, each as likely as its weight says; `lot` is 32 random bits.
    fn draw(&self, lot: u32) -> usize;
}

/// All of a pool with so many endpoints, alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct All(pub(super) usize);

impl Slate for All {
    fn len(&self) -> usize {
        self.0
    }

    fn seat(&self, place: usize) -> usize {
        place
    }

    fn place_from(&self, seat: usize) -> usize {
        if seat < self.0 { seat } else { 0 }
    }

    fn weight(&self, _: usize) -> u32 {
        SCALE
    }

    fn is_even(&self) -> bool {
        true
    }

    fn draw(&self, lot: u32) -> usize {
        spread(lot, self.0).0
    }
}

/// Some of a pool, each with its weight.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// By index in the pool, ascending, with their weights.
    members: Vec<(u32, u32)>,
    /// Where the weights differ: of each place, up to which lot within it it is drawn itself, and who is above that
    /// (Walker's alias method, so that a draw costs the same however many there are).
    alias: Vec<(u32, u32)>,
}

impl FromIterator<(usize, u32)> for Group {
    fn from_iter<I: IntoIterator<Item = (usize, u32)>>(members: I) -> Self {
        let members: Vec<_> = members.into_iter().map(|(seat, weight)| (narrow(seat), weight)).collect();
        let is_even = members.windows(2).all(|pair| pair[0].1 == pair[1].1);
        let alias = if is_even { Vec::new() } else { alias(&members) };
        Self { members, alias }
    }
}

impl Slate for Group {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn seat(&self, place: usize) -> usize {
        self.members[place].0 as usize
    }

    fn place_from(&self, seat: usize) -> usize {
        // In the order of the pool.
        let place = self.members.partition_point(|(member, _)| (*member as usize) < seat);
        if place < self.members.len() { place } else { 0 }
    }

    fn weight(&self, place: usize) -> u32 {
        self.members[place].1
    }

    fn is_even(&self) -> bool {
        self.alias.is_empty()
    }

    fn draw(&self, lot: u32) -> usize {
        let (place, rest) = spread(lot, self.members.len());
        match self.alias.get(place) {
            Some((own, other)) if rest >= *own => *other as usize,
            _ => place,
        }
    }
}

/// One of `count` places by 32 random bits, and what is left of these: again a fraction of 32 bits.
fn spread(lot: u32, count: usize) -> (usize, u32) {
    let product = u64::from(lot) * count as u64;
    (high(product) as usize, low(product))
}

/// The upper 32 bits.
pub(super) fn high(bits: u64) -> u32 {
    low(bits >> 32)
}

/// The lower 32 bits.
pub(super) fn low(bits: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "what it is for")]
    {
        bits as u32
    }
}

fn narrow(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Vose's construction in whole numbers: nothing is lost by rounding but what a fraction of 32 bits cannot hold.
fn alias(members: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let count = members.len() as u64;
    let total: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
    // Scaled so that a place's fair part is `total`.
    let mut parts: Vec<u64> = members.iter().map(|(_, weight)| u64::from(*weight) * count).collect();
    let mut alias: Vec<(u32, u32)> = (0..members.len()).map(|place| (u32::MAX, narrow(place))).collect();
    let (mut small, mut large): (Vec<_>, Vec<_>) =
        (0..members.len()).partition(|place| parts[*place] < total);
    while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
        alias[poor] = (fraction(parts[poor], total), narrow(rich));
        parts[rich] -= total - parts[poor];
        if parts[rich] < total {
            large.pop();
            small.push(rich);
        }
    }
    alias
}

/// `part` of `whole`, which is more, in 32 bits.
fn fraction(part: u64, whole: u64) -> u32 {
    let fraction = (u128::from(part) << 32) / u128::from(whole.max(1));
    u32::try_from(fraction).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(weights: &[u32]) -> Group {
        weights.iter().copied().enumerate().collect()
    }

    /// How much of all lots draws each place, reckoned from the table itself.
    fn shares(group: &Group) -> Vec<f64> {
        let count = group.len() as f64;
        let mut shares = vec![0.0; group.len()];
        for place in 0..group.len() {
            let (own, other) = group.alias.get(place).copied().unwrap_or((u32::MAX, 0));
            let own = f64::from(own) / f64::from(u32::MAX);
            shares[place] += own / count;
            shares[other as usize] += (1.0 - own) / count;
        }
        shares
    }

    proptest! {
        #[test]
        fn each_is_drawn_as_often_as_its_weight_says(weights in prop::collection::vec(1u32..=1000 * SCALE, 1..50)) {
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (share, weight) in shares(&group(&weights)).into_iter().zip(&weights) {
                prop_assert!((share - f64::from(*weight) / total).abs() < 1e-6);
            }
        }

        #[test]
        fn every_lot_draws_somebody(weights in prop::collection::vec(1u32..=1000 * SCALE, 1..50), lot: u32) {
            prop_assert!(group(&weights).draw(lot) < weights.len());
            prop_assert!(All(weights.len()).draw(lot) < weights.len());
        }
    }

    #[test]
    fn lots_are_drawn_as_the_table_says() {
        let group = group(&[1, 2, 7]);
        let mut drawn = [0; 3];
        // Every 2^12th lot: all of them, evenly.
        (0..1 << 20).for_each(|lot: u32| drawn[group.draw(lot << 12)] += 1);
        let shares = drawn.map(|drawn| f64::from(drawn) / f64::from(1 << 20));
        for (share, expected) in shares.into_iter().zip([0.1, 0.2, 0.7]) {
            assert!((share - expected).abs() < 1e-4, "{shares:?}");
        }
    }
}
