//! The first split of a service: `stable = "blue"`, or `weights = { blue = 90, green = "0.25%" }`, or both.

use super::diagnostic::did_you_mean;
use super::pool::Listed;
use super::walk::{Entry, Node, Section};
use crate::table::{BasisPoints, Split, VersionName};

/// Which version carries the service, and the weights.
///
/// With weights alone the heaviest carries it; with neither there must be no choice.
pub(super) fn read(service: &mut Section<'_>, versions: &[Listed<'_>]) -> Option<(VersionName, Split)> {
    let (stable, weights) = (service.take("stable"), service.take("weights"));
    if versions.is_empty() {
        // Which is an error of its own.
        return None;
    }
    let versions = Versions { service: &service.what, listed: versions };
    let named = stable.map(|node| versions.stable(node));
    let split = weights.map(|node| versions.weights(node));
    let (stable, split) = match (named, split) {
        (None, None) => versions.only(service).map(|only| (only.clone(), Split::all_to(only)))?,
        (Some(stable), None) => stable.map(|stable| (stable.clone(), Split::all_to(stable)))?,
        (None, Some(split)) => split.map(|split| (split.heaviest().clone(), split))?,
        (Some(stable), Some(split)) => (stable?, split?),
    };
    if let Some(node) = weights.filter(|_| split.weight(&stable) == BasisPoints::NONE) {
        let message = format!("stable `{stable}` of {} has no weight", service.what);
        node.at.error_with(message, "give it weight, or name a version that has it as `stable`");
        return None;
    }
    versions.have_endpoints(&split).then_some((stable, split))
}

/// The versions that can be named.
struct Versions<'v> {
    service: &'v str,
    listed: &'v [Listed<'v>],
}

impl Versions<'_> {
    fn names(&self) -> impl Iterator<Item = &VersionName> {
        self.listed.iter().map(|listed| &listed.version.name)
    }

    /// A hint for a version that is not there.
    fn hint(&self, word: &str) -> Option<String> {
        let there = self.names().any(|name| name.as_str() == word);
        (!there).then(|| did_you_mean(word, self.names().map(VersionName::as_str), "its versions are"))
    }

    fn stable(&self, node: Node<'_>) -> Option<VersionName> {
        let name: VersionName = node.parse("the name of a version")?;
        if let Some(hint) = self.hint(name.as_str()) {
            node.at.error_with(format_args!("{} has no version `{name}`", self.service), hint);
            return None;
        }
        Some(name)
    }

    fn weights(&self, node: Node<'_>) -> Option<Split> {
        let section = node.section("weights, such as { blue = 90, green = 10 }")?;
        let weights: Vec<_> = section.entries().into_iter().map(|entry| self.weight(entry)).collect();
        let weights: Vec<_> = weights.into_iter().collect::<Option<_>>()?;
        let sum: u64 = weights.iter().map(|(_, weight)| u64::from(weight.points())).sum();
        if sum != u64::from(BasisPoints::ALL.points()) {
            let (whole, cents) = (sum / 100, sum % 100);
            node.at.error(format_args!("weights of {} sum to {whole}.{cents:02} %, not 100 %", self.service));
            return None;
        }
        Split::new(weights).map_err(|why| node.at.error(why)).ok()
    }

    fn weight(&self, entry: Entry<'_>) -> Option<(VersionName, BasisPoints)> {
        let name = entry.name::<VersionName>();
        let unknown = name.as_ref().and_then(|name| self.hint(name.as_str()));
        if let Some(hint) = &unknown {
            entry.at.error_with(format_args!("{} has no version `{}`", self.service, entry.key), hint);
        }
        let text = entry.value.number_or_text("a weight such as 5, 0.25 or \"5%\"")?;
        let weight = text.parse().map_err(|why| entry.value.at.error(why)).ok()?;
        name.filter(|_| unknown.is_none()).map(|name| (name, weight))
    }

    /// The version of a service that has one and need not say which.
    fn only(&self, service: &Section<'_>) -> Option<VersionName> {
        match self.listed {
            [] => None,
            [only] => Some(only.version.name.clone()),
            [first, second, ..] => {
                let (count, first, second) = (self.listed.len(), &first.version.name, &second.version.name);
                service.at.missing(
                    format_args!(
                        "{} has {count} versions and does not say which one carries it",
                        self.service
                    ),
                    format!("stable = \"{first}\", or weights = {{ {first} = 90, {second} = 10 }}"),
                );
                None
            }
        }
    }

    /// Notes every version that has weight and nowhere to send it.
    fn have_endpoints(&self, split: &Split) -> bool {
        let empty = self.listed.iter().filter_map(|listed| Some((listed.empty?, &listed.version.name)));
        let empty = empty.filter(|(_, name)| split.weight(name) > BasisPoints::NONE);
        let empty = empty.inspect(|(at, name)| {
            let weight = split.weight(name);
            at.error(format_args!(
                "version `{name}` of {} has a weight of {weight} and no endpoints",
                self.service
            ));
        });
        empty.count() == 0
    }
}
