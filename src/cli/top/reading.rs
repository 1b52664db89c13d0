//! What `/metrics` says at one moment of requests, by service and version (Prometheus' text format 0.0.4).

use std::collections::BTreeMap;

use crate::metrics::GRPC_FAILURES;
use crate::metrics::names::{self, Metric};

/// One reading.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// What users of each service saw.
    clients: BTreeMap<String, Tally>,
    /// What each version did, by service and version.
    upstreams: BTreeMap<(String, String), Tally>,
}

/// Requests that have ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tally {
    /// All of them.
    pub(super) requests: f64,
    /// Those that failed.
    pub(super) errors: f64,
    /// How many took at most so many seconds, in ascending order; the last is for all.
    buckets: Vec<(f64, f64)>,
}

/// What a line is about.
#[derive(Debug, Clone, Copy)]
enum About {
    Client(Part),
    Upstream(Part),
}

#[derive(Debug, Clone, Copy)]
enum Part {
    /// Requests by status.
    Codes,
    /// Calls by their status of gRPC.
    Calls,
    /// Requests by how long they took.
    Buckets,
}

/// Each series that counts here: its metric, what is added to that one's name, what it is about.
const KNOWN: [(Metric, &str, About); 5] = [
    (names::CLIENT_REQUESTS, "", About::Client(Part::Codes)),
    (names::CLIENT_SECONDS, "_bucket", About::Client(Part::Buckets)),
    (names::UPSTREAM_REQUESTS, "", About::Upstream(Part::Codes)),
    (names::UPSTREAM_GRPC_STATUS, "", About::Upstream(Part::Calls)),
    (names::UPSTREAM_SECONDS, "_bucket", About::Upstream(Part::Buckets)),
];

impl Reading {
    /// What `text` says. A line that is about something else tells nothing.
    pub(super) fn of(text: &str) -> Self {
        let mut this = Self::default();
        for line in text.lines() {
            let _ = this.read(line);
        }
        this
    }

    /// What users of a service saw.
    pub(super) fn client(&self, service: &str) -> Tally {
        self.clients.get(service).cloned().unwrap_or_default()
    }

    /// What a version did.
    pub(super) fn upstream(&self, service: &str, version: &str) -> Tally {
        self.upstreams.get(&(service.to_owned(), version.to_owned())).cloned().unwrap_or_default()
    }

    /// One line: `name{label="value",…} number`.
    fn read(&mut self, line: &str) -> Option<()> {
        let (series, value) = line.rsplit_once(' ')?;
        let value: f64 = value.parse().ok()?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let about = KNOWN.into_iter().find(|(metric, end, _)| name.strip_prefix(metric.name) == Some(end))?.2;
        let service = label(labels, "service")?.to_owned();
        let (tally, part) = match about {
            About::Client(part) => (self.clients.entry(service).or_default(), part),
            About::Upstream(part) => {
                let version = label(labels, "version")?.to_owned();
                // No status of gRPC is a reason to try again: it is what the user saw, too.
                if matches!(part, Part::Calls) {
                    self.clients.entry(service.clone()).or_default().add(part, labels, value);
                }
                (self.upstreams.entry((service, version)).or_default(), part)
            }
        };
        tally.add(part, labels, value)
    }
}

impl Tally {
    fn add(&mut self, part: Part, labels: &str, value: f64) -> Option<()> {
        let is_bad = match part {
            Part::Codes => {
                self.requests += value;
                label(labels, "code")?.parse::<u16>().is_ok_and(|code| code >= 500)
            }
            // Another status than the known ones is a failure, as supervision has it.
            Part::Calls => {
                let status = label(labels, "grpc_status")?.parse::<usize>();
                status.map_or(true, |status| GRPC_FAILURES.contains(&status))
            }
            Part::Buckets => {
                self.buckets.push((label(labels, "le")?.parse().ok()?, value));
                false
            }
        };
        if is_bad {
            self.errors += value;
        }
        Some(())
    }

    /// What came since `before`. A proxy that was started in between has counted from 0, so that all of it came since.
    pub(super) fn since(&self, before: &Self) -> Self {
        if self.requests < before.requests {
            return self.clone();
        }
        let known = |bound: f64| before.buckets.iter().find(|(other, _)| *other >= bound);
        let came =
            |(bound, count): &(f64, f64)| (*bound, count - known(*bound).map_or(0.0, |(_, count)| *count));
        Self {
            requests: self.requests - before.requests,
            // A call that was answered with a 5xx has no good status either.
            errors: (self.errors - before.errors).clamp(0.0, self.requests - before.requests),
            buckets: self.buckets.iter().map(came).collect(),
        }
    }

    /// So many seconds at most took this part of them, 0 to 1: within a bucket they are taken to be spread evenly, as
    /// `histogram_quantile` of Prometheus does; beyond the last bound, that. `None` when there were none.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        let all = self.buckets.last().map(|(_, count)| *count).filter(|all| *all > 0.0)?;
        let wanted = all * part;
        let index = self.buckets.iter().position(|(_, count)| *count >= wanted)?;
        let (bound, count) = self.buckets[index];
        let (low, below) = index.checked_sub(1).map_or((0.0, 0.0), |index| self.buckets[index]);
        if bound.is_infinite() {
            return Some(low);
        }
        Some(low + (bound - low) * ((wanted - below) / (count - below)).clamp(0.0, 1.0))
    }
}

/// The value of a label; names of services and versions, and numbers, have nothing that is escaped.
fn label<'l>(labels: &'l str, name: &str) -> Option<&'l str> {
    let mut parts = labels.trim_end_matches('}').split("\",");
    let value = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix("=\""))?;
    Some(value.trim_end_matches('"')).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP switchback_epoch The number of the table.
switchback_epoch 7

switchback_client_requests_total{service="shop",version="blue",code="200",reason=""} 80
switchback_client_requests_total{service="shop",version="green",code="502",reason="upstream_closed"} 20
switchback_client_requests_total{service="",version="",code="404",reason="no_route"} 1000
switchback_client_request_duration_seconds_bucket{service="shop",le="0.5"} 50
switchback_client_request_duration_seconds_bucket{service="shop",le="1"} 90
switchback_client_request_duration_seconds_bucket{service="shop",le="60"} 99
switchback_client_request_duration_seconds_bucket{service="shop",le="+Inf"} 100
switchback_client_request_duration_seconds_sum{service="shop"} 77
switchback_upstream_requests_total{service="shop",version="green",code="200",reason=""} 10
switchback_upstream_requests_total{service="shop",version="green",code="404",reason=""} 5
switchback_upstream_requests_total{service="shop",version="green",code="503",reason=""} 5
switchback_upstream_grpc_status_total{service="shop",version="green",grpc_status="0"} 6
switchback_upstream_grpc_status_total{service="shop",version="green",grpc_status="14"} 3
switchback_upstream_grpc_status_total{service="shop",version="green",grpc_status="other"} 1
"#;

    #[test]
    fn a_text_of_prometheus_is_read_by_service_and_version() {
        let reading = Reading::of(TEXT);
        let client = reading.client("shop");
        assert_eq!((client.requests, client.errors), (100.0, 24.0), "5xx, and calls that failed");
        let green = reading.upstream("shop", "green");
        assert_eq!((green.requests, green.errors), (20.0, 9.0));
        assert_eq!(reading.upstream("shop", "blue"), Tally::default());
        assert_eq!(reading.client("cart"), Tally::default());
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let client = Reading::of(TEXT).client("shop");
        let quantiles = [0.25, 0.5, 0.7, 0.9, 0.99, 0.999].map(|part| client.quantile(part).unwrap());
        assert_eq!(quantiles, [0.25, 0.5, 0.75, 1.0, 60.0, 60.0]);
        assert_eq!(Tally::default().quantile(0.5), None);
    }

    #[test]
    fn what_came_since_is_the_difference_or_all_of_a_proxy_that_began_anew() {
        let whole = Reading::of(TEXT).client("shop");
        let mut later = whole.clone();
        (later.requests, later.errors) = (104.0, 25.0);
        later.buckets.iter_mut().for_each(|(bound, count)| *count += if *bound < 60.0 { 0.0 } else { 4.0 });
        let came = later.since(&whole);
        assert_eq!((came.requests, came.errors), (4.0, 1.0));
        assert_eq!(came.quantile(0.5), Some(30.5), "all of them took from 1 to 60 s");
        assert_eq!(whole.since(&later), whole);
        assert_eq!(whole.since(&Tally::default()), whole);
        assert_eq!(whole.since(&whole).quantile(0.5), None);
    }
}
