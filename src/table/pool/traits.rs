//! What is said of one endpoint beyond its address.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::table::{EndpointAddr, Invalid, ZoneName};

/// How much an endpoint takes in relation to the others of its pool, 1 to 1,000; default 1.
///
/// There is no 0: an endpoint that shall get nothing is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointWeight(u16);

impl EndpointWeight {
    /// The largest.
    pub const MOST: u16 = 1000;

    /// A weight of `weight`.
    ///
    /// # Errors
    /// [`Invalid`] for 0 and above 1,000.
    pub fn new(weight: u64) -> Result<Self, Invalid> {
        match u16::try_from(weight) {
            Ok(weight @ 1..=Self::MOST) => Ok(Self(weight)),
            Ok(0) => Err(Invalid(
                "an endpoint's weight is at least 1: drain one that shall get nothing".to_owned(),
            )),
            _ => Err(Invalid(format!("weight {weight} of an endpoint is over {}", Self::MOST))),
        }
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl Default for EndpointWeight {
    fn default() -> Self {
        Self(1)
    }
}

/// What is said of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Traits {
    /// How much it takes.
    pub weight: EndpointWeight,
    /// Where it stands.
    pub zone: Option<ZoneName>,
}

/// What somebody says of an endpoint; what he does not say stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraitsEdit {
    /// How much it takes.
    pub weight: Option<EndpointWeight>,
    /// Where it stands.
    pub zone: ZoneEdit,
}

/// What somebody says of an endpoint's zone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ZoneEdit {
    /// Nothing.
    #[default]
    AsItIs,
    /// It stands there.
    Is(ZoneName),
    /// It stands in none.
    Nowhere,
}

impl TraitsEdit {
    /// `traits` after this was said.
    #[must_use]
    pub fn over(self, traits: Traits) -> Traits {
        let zone = match self.zone {
            ZoneEdit::AsItIs => traits.zone,
            ZoneEdit::Is(zone) => Some(zone),
            ZoneEdit::Nowhere => None,
        };
        Traits { weight: self.weight.unwrap_or(traits.weight), zone }
    }
}

/// The endpoints of a pool of which something is said. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PoolTraits(Option<Arc<BTreeMap<EndpointAddr, Traits>>>);

impl PoolTraits {
    /// What is said of the endpoint at `address`.
    #[must_use]
    pub fn of(&self, address: &EndpointAddr) -> Traits {
        self.0.as_ref().and_then(|all| all.get(address)).cloned().unwrap_or_default()
    }

    /// True when nothing is said of any.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.0.is_none()
    }

    /// Those of which something is said, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&EndpointAddr, &Traits)> {
        self.0.iter().flat_map(|all| all.iter())
    }

    /// The same with this said of the endpoint at `address`.
    #[must_use]
    pub fn with(&self, address: &EndpointAddr, traits: Traits) -> Self {
        if self.of(address) == traits {
            return self.clone();
        }
        let others = self.iter().filter(|(other, _)| *other != address);
        others
            .map(|(other, traits)| (other.clone(), traits.clone()))
            .chain([(address.clone(), traits)])
            .collect()
    }

    /// Only what is said of those that are in `pool`.
    #[must_use]
    pub fn within(&self, pool: &[EndpointAddr]) -> Self {
        if self.iter().all(|(address, _)| pool.contains(address)) {
            return self.clone();
        }
        let kept = self.iter().filter(|(address, _)| pool.contains(address));
        kept.map(|(address, traits)| (address.clone(), traits.clone())).collect()
    }

    /// True when they are the same, without a look at what they point to.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(these), Some(those)) => Arc::ptr_eq(these, those),
            (these, those) => these.is_none() && those.is_none(),
        }
    }
}

impl FromIterator<(EndpointAddr, Traits)> for PoolTraits {
    fn from_iter<I: IntoIterator<Item = (EndpointAddr, Traits)>>(all: I) -> Self {
        let said: BTreeMap<_, _> =
            all.into_iter().filter(|(_, traits)| *traits != Traits::default()).collect();
        Self((!said.is_empty()).then(|| Arc::new(said)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> EndpointAddr {
        text.parse().unwrap()
    }

    fn heavy(weight: u64) -> Traits {
        Traits { weight: EndpointWeight::new(weight).unwrap(), zone: None }
    }

    #[test]
    fn a_weight_is_from_1_to_1000() {
        assert_eq!([1, 1000].map(|n| EndpointWeight::new(n).unwrap().number()), [1, 1000]);
        assert!(EndpointWeight::new(0).unwrap_err().0.contains("drain"));
        assert!(EndpointWeight::new(1001).is_err() && EndpointWeight::new(1 << 40).is_err());
    }

    #[test]
    fn what_goes_without_saying_is_not_kept() {
        let (a, b) = (address("a:1"), address("b:1"));
        let none: PoolTraits = [(a.clone(), Traits::default())].into_iter().collect();
        assert!(none.are_none() && none == PoolTraits::default());
        let one = none.with(&b, heavy(3));
        assert_eq!((one.of(&a), one.of(&b)), (Traits::default(), heavy(3)));
        assert!(one.with(&b, heavy(3)).is_same(&one), "nothing new: the same one");
        assert!(one.with(&b, Traits::default()).are_none());
        assert!(one.within(std::slice::from_ref(&b)).is_same(&one));
        assert!(one.within(&[a]).are_none());
    }

    #[test]
    fn what_is_not_said_stays() {
        let zone: ZoneName = "a".parse().unwrap();
        let edit = TraitsEdit { weight: None, zone: ZoneEdit::Is(zone.clone()) };
        let traits = edit.over(heavy(7));
        assert_eq!((traits.weight.number(), &traits.zone), (7, &Some(zone)));
        assert_eq!(TraitsEdit::default().over(traits.clone()), traits);
        let away = TraitsEdit { weight: None, zone: ZoneEdit::Nowhere };
        assert_eq!(away.over(traits), heavy(7));
    }
}
