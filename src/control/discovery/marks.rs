//! The drains of endpoints that are found no more: they end some time after that, or an address would never serve again,
//! whoever has it by then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::table::{EndpointAddr, VersionSpec};

/// How long an endpoint that drains is not found until its drain ends: it may only be missing from an answer or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// Since when which of them are not found.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<EndpointAddr, Instant>);

impl Marks {
    /// Takes notice of a version as it stands.
    pub(super) fn look(&mut self, version: Option<&VersionSpec>, now: Instant) {
        let absent = |endpoint: &EndpointAddr| {
            version.is_some_and(|spec| spec.draining.contains(endpoint) && !spec.endpoints.contains(endpoint))
        };
        self.0.retain(|endpoint, _| absent(endpoint));
        let draining = version.into_iter().flat_map(|spec| spec.draining.iter());
        for endpoint in draining.filter(|endpoint| absent(endpoint)) {
            self.0.entry(endpoint.clone()).or_insert(now);
        }
    }

    /// When the next of these drains ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().min().map(|since| *since + PATIENCE)
    }

    /// Those that end now; they are given again only after as long a time, unless they have ended.
    pub(super) fn over(&mut self, now: Instant) -> Vec<EndpointAddr> {
        let over = self.0.extract_if(.., |_, since| now.saturating_duration_since(*since) >= PATIENCE);
        over.map(|(endpoint, _)| endpoint).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::clock;
    use crate::table::{PoolTraits, Protocol};

    #[test]
    fn a_drain_ends_when_its_endpoint_was_not_found_for_a_time_and_not_before() {
        let endpoints: Vec<EndpointAddr> = ["a:1", "b:1", "c:1"].map(|text| text.parse().unwrap()).into();
        let version = |found: &[EndpointAddr], draining: &[EndpointAddr]| VersionSpec {
            name: "blue".parse().unwrap(),
            endpoints: found.into(),
            protocol: Protocol::Http1,
            tls: None,
            proxy_header: None,
            draining: draining.into(),
            traits: PoolTraits::default(),
            pool: None,
        };
        let (mut marks, start) = (Marks::default(), clock::instant());
        let at = |seconds| start + Duration::from_secs(seconds);
        marks.look(Some(&version(&endpoints, &endpoints[..2])), at(0));
        assert_eq!(marks.next(), None, "both are there");
        marks.look(Some(&version(&endpoints[2..], &endpoints[..2])), at(10));
        marks.look(Some(&version(&endpoints[1..], &endpoints[..2])), at(69));
        assert_eq!((marks.next(), marks.over(at(69))), (Some(at(70)), Vec::new()));
        marks.look(Some(&version(&endpoints[2..], &endpoints[..2])), at(70));
        assert_eq!(marks.over(at(70)), endpoints[..1], "the other one was found again meanwhile");
        assert_eq!(marks.next(), Some(at(130)));
        marks.look(None, at(130));
        assert_eq!(marks.over(at(200)), Vec::new());
    }
}
