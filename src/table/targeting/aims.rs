//! The rules of a service as the request path asks them: which one decides, and which version it leads to.

use super::{Shown, TargetRule, Targeting};
use crate::table::name::VersionName;

/// The rules of one service, compiled for the request path; at least one.
#[derive(Debug, PartialEq, Eq)]
pub struct Aims {
    rules: Targeting,
    /// Of each rule.
    places: Box<[Place]>,
}

/// Where a rule stands and leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Which rule it is for who has set them, from 1 on.
    number: u8,
    /// The index of its version in the service; `None` where that has no such version: then the rule is passed over.
    version: Option<usize>,
}

/// What a rule has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aim {
    /// Which rule of those that were set, from 1 on.
    pub rule: u8,
    /// The index of its version in the service.
    pub version: usize,
}

impl Aims {
    /// Compiles `targeting` over `versions`, in whose order the indices count; `None` where there is no rule.
    #[must_use]
    pub fn of<'v>(
        targeting: &Targeting,
        versions: impl Iterator<Item = &'v VersionName> + Clone,
    ) -> Option<Self> {
        let index = |rule: &TargetRule| versions.clone().position(|name| *name == rule.to);
        let places =
            (1..).zip(targeting.rules()).map(|(number, rule)| Place { number, version: index(rule) });
        let places = places.collect();
        (!targeting.is_empty()).then(|| Self { rules: targeting.clone(), places })
    }

    /// The same, each rule with the number that it has among `all`, of which others are passed over.
    #[must_use]
    pub fn numbered_among(&self, all: &Targeting) -> Self {
        let mut all = (1..).zip(all.rules());
        let places = self.rules().iter().zip(&self.places).map(|(rule, place)| {
            let number = all.by_ref().find(|(_, other)| *other == rule).map(|(number, _)| number);
            Place { number: number.unwrap_or(place.number), ..*place }
        });
        Self { places: places.collect(), rules: self.rules.clone() }
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[TargetRule] {
        self.rules.rules()
    }

    /// What the first rule that fits decides.
    pub fn aim(&self, request: &impl Shown) -> Option<Aim> {
        self.known().find(|(rule, _)| rule.when.fit(request)).map(|(_, aim)| aim)
    }

    /// What decides of that before any rule that fits, if the client, whom nobody knows, is in the right network.
    pub fn by_client(&self, request: &impl Shown) -> impl Iterator<Item = Aim> {
        let before = self.known().take_while(|(rule, _)| !rule.when.fit(request));
        before.filter(|(rule, _)| rule.when.may_fit(request)).map(|(_, aim)| aim)
    }

    /// The rule of this number.
    #[must_use]
    pub fn rule(&self, number: u8) -> Option<&TargetRule> {
        let at = self.places.iter().position(|place| place.number == number)?;
        self.rules().get(at)
    }

    fn known(&self) -> impl Iterator<Item = (&TargetRule, Aim)> {
        let rules = self.rules().iter().zip(&self.places);
        rules.filter_map(|(of, place)| Some((of, Aim { rule: place.number, version: place.version? })))
    }
}
