//! How a service's new requests are shared among its versions.

use std::cmp::Reverse;
use std::fmt;

use super::name::{BasisPoints, Invalid, VersionName};
use super::targeting::Targeting;

/// Weights over versions that sum to exactly 100 %; versions that are not named have 0. Before these, targeting rules: whoever
/// they fit goes where they lead, and the weights share the others.
///
/// Kept in the order of the names, so that two splits with the same weights and rules are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    shares: Vec<(VersionName, BasisPoints)>,
    targeting: Targeting,
}

impl Split {
    /// A split of exactly these weights, without rules; entries of 0 are left out.
    ///
    /// # Errors
    /// [`Invalid`] when a version is named twice or the weights do not sum to 100 %.
    pub fn new(weights: impl IntoIterator<Item = (VersionName, BasisPoints)>) -> Result<Self, Invalid> {
        let mut shares: Vec<_> = weights.into_iter().collect();
        shares.sort();
        if let Some(twice) = shares.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Invalid(format!("version `{}` is named twice", twice[0].0)));
        }
        let sum: u64 = shares.iter().map(|(_, weight)| u64::from(weight.points())).sum();
        if sum != u64::from(BasisPoints::ALL.points()) {
            return Err(Invalid(format!("weights sum to {}.{:02} %, not 100 %", sum / 100, sum % 100)));
        }
        shares.retain(|(_, weight)| *weight != BasisPoints::NONE);
        Ok(Self { shares, targeting: Targeting::default() })
    }

    /// Everything to one version, whoever it is.
    #[must_use]
    pub fn all_to(version: VersionName) -> Self {
        Self { shares: vec![(version, BasisPoints::ALL)], targeting: Targeting::default() }
    }

    /// These weights with these rules in the place of their own.
    #[must_use]
    pub fn targeting(self, targeting: Targeting) -> Self {
        Self { targeting, ..self }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Targeting {
        &self.targeting
    }

    /// True when the weights are the same, whatever the rules are.
    #[must_use]
    pub fn weighs_as(&self, other: &Self) -> bool {
        self.shares == other.shares
    }

    /// True when new requests may go to `version`, by its weight or by a rule.
    #[must_use]
    pub fn leads_to(&self, version: &VersionName) -> bool {
        self.weight(version) > BasisPoints::NONE || self.targeting.leads_to(version)
    }

    /// The versions to which new requests may go, each once: those with weight by name, then others that only rules lead to.
    pub fn versions(&self) -> impl Iterator<Item = &VersionName> {
        let rules = self.targeting.rules();
        let targets = rules.iter().enumerate().filter(move |(index, rule)| {
            let is_told = rules[..*index].iter().any(|before| before.to == rule.to);
            !is_told && self.weight(&rule.to) == BasisPoints::NONE
        });
        self.shares.iter().map(|(name, _)| name).chain(targets.map(|(_, rule)| &rule.to))
    }

    /// The weight of `version`, 0 when it is not part of the split.
    #[must_use]
    pub fn weight(&self, version: &VersionName) -> BasisPoints {
        let share = self.shares.iter().find(|(name, _)| name == version);
        share.map_or(BasisPoints::NONE, |(_, weight)| *weight)
    }

    /// The versions with a weight above 0, by name.
    pub fn shares(&self) -> impl Iterator<Item = (&VersionName, BasisPoints)> {
        self.shares.iter().map(|(name, weight)| (name, *weight))
    }

    /// True when one version has everything: no rule leads elsewhere either.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.versions().nth(1).is_none()
    }

    /// `share` to one version and the rest to the other.
    #[must_use]
    pub fn of_two(one: &VersionName, share: BasisPoints, other: &VersionName) -> Self {
        let rest = BasisPoints::ALL.points() - share.points();
        let weights = [(one, share), (other, BasisPoints::new(u64::from(rest)).unwrap_or_default())];
        Self::new(weights.map(|(version, weight)| (version.clone(), weight)))
            .unwrap_or_else(|_| Self::all_to(other.clone()))
    }

    /// `weight` to one version; of the rest each of the others has what it has of theirs now, to a point. The rules stay.
    ///
    /// What rounding leaves goes to the largest remainders; among equals first to `stable`.
    #[must_use]
    pub fn giving(&self, to: &VersionName, weight: BasisPoints, stable: &VersionName) -> Self {
        let others = || self.shares().filter(|(version, _)| *version != to);
        let points = |weight: BasisPoints| u64::from(weight.points());
        let all: u64 = others().map(|(_, weight)| points(weight)).sum();
        let rest = points(BasisPoints::ALL) - points(weight);
        let parts = others().map(|(version, weight)| (version, points(weight) * rest));
        let mut parts: Vec<_> = parts.map(|(version, part)| (version, part / all, part % all)).collect();
        let left = rest - parts.iter().map(|(_, whole, _)| whole).sum::<u64>();
        parts.sort_by_key(|(version, _, remainder)| Reverse((*remainder, *version == stable)));
        let shares = (0..).zip(parts).map(|(rank, (version, whole, _))| {
            (version.clone(), BasisPoints::new(whole + u64::from(rank < left)).unwrap_or_default())
        });
        let weights: Vec<_> = shares.chain([(to.clone(), weight)]).collect();
        let split = Self::new(weights).unwrap_or_else(|_| Self::all_to(to.clone()));
        split.targeting(self.targeting.clone())
    }

    /// The version with the largest weight; among equals the first by name.
    #[must_use]
    pub fn heaviest(&self) -> &VersionName {
        let heaviest = self.shares.iter().rev().max_by_key(|(_, weight)| *weight);
        // A split sums to 100 %, so it has at least one share.
        &heaviest.unwrap_or(&self.shares[0]).0
    }
}

impl fmt::Display for Split {
    /// `blue 95 %, green 5 %`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (version, weight)) in self.shares().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{version} {weight}")?;
        }
        Ok(())
    }
}

/// A split compiled for the request path: a 32-bit coin in, the index of a version out.
///
/// A version of weight w gets exactly the coins in an interval of w/10,000 · 2³² values (rounded to a whole value,
/// an error below 2⁻³²), so 0 is none and 100 % is all (G4).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coin {
    /// (first coin that is *not* this version's any more, index of the version), ascending.
    bounds: Vec<(u64, usize)>,
}

impl Coin {
    /// Compiles `split` over `versions`, in whose order the indices count.
    #[must_use]
    pub fn new<'v>(split: &Split, versions: impl Iterator<Item = &'v VersionName>) -> Self {
        let mut cumulative = 0u64;
        let mut bounds = Vec::with_capacity(split.shares.len());
        for (index, version) in versions.enumerate() {
            let points = u64::from(split.weight(version).points());
            if points > 0 {
                cumulative += points;
                bounds.push(((cumulative << 32) / u64::from(BasisPoints::ALL.points()), index));
            }
        }
        Self { bounds }
    }

    /// True when every coin falls on the same version.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.bounds.len() == 1
    }

    /// Of each version with weight: the first coin that is not its any more, and its index; ascending.
    #[must_use]
    pub fn bounds(&self) -> &[(u64, usize)] {
        &self.bounds
    }

    /// The index of the version this coin falls on. O(versions with weight); the first bound decides most.
    #[must_use]
    pub fn toss(&self, coin: u32) -> Option<usize> {
        self.bounds.iter().find(|(bound, _)| u64::from(coin) < *bound).map(|(_, index)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(name: &str) -> VersionName {
        name.parse().unwrap()
    }

    proptest! {
        #[test]
        fn every_version_owns_exactly_its_share_of_the_coins(first in 0u64..=10_000, second in 0u64..=10_000) {
            let (low, high) = (first.min(second), first.max(second));
            let weights = [low, high - low, 10_000 - high];
            let names = ["a", "b", "c"].map(version);
            let split = Split::new(names.iter().cloned().zip(weights.map(|w| BasisPoints::new(w).unwrap()))).unwrap();
            let coin = Coin::new(&split, names.iter());
            let mut from = 0u64;
            for (index, weight) in weights.into_iter().enumerate() {
                let owned = (weight << 32) / 10_000;
                let upto = from + owned;
                let cumulative: u64 = weights[..=index].iter().sum();
                let exact = (cumulative << 32) / 10_000;
                prop_assert!(exact.abs_diff(upto) <= 3);
                if weight > 0 {
                    prop_assert_eq!(coin.toss(u32::try_from(exact - 1).unwrap()), Some(index));
                }
                from = upto;
            }
            prop_assert!(coin.toss(u32::MAX).is_some(), "no coin is lost");
        }
    }

    proptest! {
        /// Of two: with three, the intervals between move too, which is why sticky keys do not use this coin (G5).
        #[test]
        fn raising_one_of_two_takes_no_coin_from_it(low in 0u64..=10_000, high in 0u64..=10_000, value: u32) {
            let (low, high) = (low.min(high), low.max(high));
            let names = ["blue", "green"].map(version);
            let coin = |green: u64| {
                let weights = [10_000 - green, green].map(|points| BasisPoints::new(points).unwrap());
                Coin::new(&Split::new(names.iter().cloned().zip(weights)).unwrap(), names.iter())
            };
            if coin(low).toss(value) == Some(1) {
                prop_assert_eq!(coin(high).toss(value), Some(1));
            }
        }
    }

    #[test]
    fn none_is_none_and_all_is_all() {
        let names = ["blue", "green"].map(version);
        let coin = Coin::new(&Split::all_to(version("green")), names.iter());
        for value in [0, 1, u32::MAX / 2, u32::MAX] {
            assert_eq!(coin.toss(value), Some(1));
        }
    }

    #[test]
    fn a_split_that_is_not_whole_is_refused() {
        let half = BasisPoints::new(5_000).unwrap();
        let refused = Split::new([(version("a"), half)]).unwrap_err();
        assert_eq!(refused.to_string(), "weights sum to 50.00 %, not 100 %");
        assert!(Split::new([(version("a"), half), (version("a"), half)]).is_err());
    }
}
