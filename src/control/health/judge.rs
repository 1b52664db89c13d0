//! Who ejects: one task that hears of endpoints whose requests fail, compares those of pools where that is wanted, and lets
//! the ejected come back when their time is over.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::outliers::{by_latency, by_success_rate};
use super::subject::Turned;
use super::{Health, clock, wait_until};
use crate::proxy::live::{Live, Snapshot};
use crate::proxy::upstream::suspicion::{Sums, Suspect};
use crate::proxy::upstream::{Cause, Upstream};
use crate::table::{EndpointAddr, OutlierRules, VersionSpec};

/// Ejects endpoints for as long as it runs.
#[derive(Debug)]
pub(super) struct Judge {
    health: Arc<Health>,
    live: Arc<Live>,
    /// When ejections end, and whose, by tenure.
    ends: BinaryHeap<Reverse<(Instant, u64, EndpointAddr)>>,
    /// The pools that are compared, by tenure.
    compared: HashMap<u64, Compared>,
}

/// A pool whose endpoints are compared.
#[derive(Debug)]
struct Compared {
    next: Instant,
    /// The sums at the last time.
    before: HashMap<EndpointAddr, Sums>,
}

/// A version whose endpoints are judged.
struct Bench<'s> {
    upstream: &'s Arc<Upstream>,
    version: &'s VersionSpec,
    rules: &'s OutlierRules,
}

impl Judge {
    pub(super) fn new(health: Arc<Health>, live: Arc<Live>) -> Self {
        Self { health, live, ends: BinaryHeap::new(), compared: HashMap::new() }
    }

    /// Until it is dropped.
    pub(super) async fn run(mut self) {
        let (suspects, mut changed) = (Arc::clone(&self.health.suspects), self.health.compared.subscribe());
        // Those of the first table too.
        changed.mark_changed();
        loop {
            let next = self.compared.values().map(|compared| compared.next);
            let next = next.chain(self.ends.peek().map(|Reverse((at, ..))| *at)).min();
            tokio::select! {
                suspects = suspects.come() => suspects.into_iter().for_each(|suspect| self.on_suspect(&suspect)),
                _ = changed.changed() => self.on_changed(&changed.borrow_and_update().clone()),
                () = wait_until(next) => self.on_time(clock::instant()),
            }
        }
    }

    fn on_suspect(&mut self, Suspect { tenure, address, cause }: &Suspect) {
        let snapshot = self.live.snapshot();
        let Some(bench) = bench(&snapshot, *tenure) else { return };
        self.judge(&bench, address, *cause);
        bench.upstream.known_vitals(address).inspect(|vitals| vitals.looked());
    }

    /// Ejects the endpoint, if it may be.
    fn judge(&mut self, bench: &Bench<'_>, address: &EndpointAddr, cause: Cause) {
        if bench.may_eject(address, cause) {
            let said =
                words(cause, bench.upstream.known_vitals(address).map_or(0, |vitals| vitals.row(cause)));
            let ends = self.health.eject(bench.upstream, address, cause, &said, bench.rules);
            self.ends.push(Reverse((ends, bench.upstream.id, address.clone())));
        }
    }

    /// Other pools are compared from now on.
    fn on_changed(&mut self, tenures: &[u64]) {
        let now = clock::instant();
        self.compared.retain(|tenure, _| tenures.contains(tenure));
        let snapshot = self.live.snapshot();
        for tenure in tenures {
            let next = || bench(&snapshot, *tenure).map_or(now, |bench| now + bench.rules.interval);
            self.compared.entry(*tenure).or_insert_with(|| Compared { next: next(), before: HashMap::new() });
        }
    }

    fn on_time(&mut self, now: Instant) {
        while self.ends.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            if let Some(Reverse((_, tenure, address))) = self.ends.pop() {
                self.health.readmit(tenure, &address, now);
            }
        }
        let due = self.compared.iter().filter(|(_, compared)| compared.next <= now);
        let due: Vec<_> = due.map(|(tenure, _)| *tenure).collect();
        let snapshot = self.live.snapshot();
        for tenure in due {
            match bench(&snapshot, tenure) {
                Some(bench) => self.compare(&bench, now),
                None => drop(self.compared.remove(&tenure)),
            }
        }
    }

    /// Compares the endpoints of a pool by what they did since the last time.
    fn compare(&mut self, bench: &Bench<'_>, now: Instant) {
        let Some(compared) = self.compared.get_mut(&bench.upstream.id) else { return };
        compared.next = now + bench.rules.interval;
        let serving: Vec<_> = bench.version.serving().cloned().collect();
        let sums = serving.iter().map(|address| {
            let sums =
                bench.upstream.known_vitals(address).map_or_else(Sums::default, |vitals| vitals.sums());
            let before = compared.before.insert(address.clone(), sums).unwrap_or_default();
            sums.since(before)
        });
        let sums: Vec<_> = sums.collect();
        compared.before.retain(|address, _| serving.contains(address));
        let by_rate = bench.rules.success_rate.map_or_else(Vec::new, |rules| by_success_rate(&sums, rules));
        let slow = bench.rules.latency.map_or_else(Vec::new, |rules| by_latency(&sums, rules));
        let found = by_rate.into_iter().map(|at| (at, Cause::SuccessRate));
        for (at, cause) in found.chain(slow.into_iter().map(|at| (at, Cause::Latency))) {
            self.judge(bench, &serving[at], cause);
        }
    }
}

/// What a tenure is judged by, if it is in the table and its endpoints may be ejected.
fn bench(snapshot: &Snapshot, tenure: u64) -> Option<Bench<'_>> {
    let upstream = snapshot.upstreams().find(|upstream| upstream.id == tenure)?;
    let service = snapshot.table.service(&upstream.service)?;
    let version = service.version(&upstream.version)?;
    Some(Bench { upstream, version, rules: &service.pool(version).outliers })
}

impl Bench<'_> {
    /// Only one that serves beside others that do better: what hits all of them is nobody's fault.
    fn may_eject(&self, address: &EndpointAddr, cause: Cause) -> bool {
        let (mut ejected, mut serves, mut has_better, mut count) = (0, false, false, 0);
        for other in self.version.serving() {
            count += 1;
            let vitals = self.upstream.known_vitals(other);
            let standing = vitals.as_ref().map(|vitals| vitals.standing()).unwrap_or_default();
            ejected += usize::from(standing == crate::proxy::upstream::Standing::Ejected);
            if other == address {
                serves = standing.serves();
            } else {
                has_better |= standing.serves() && vitals.is_none_or(|vitals| vitals.row(cause) == 0);
            }
        }
        serves && has_better && ejected < self.rules.most(count)
    }
}

fn words(cause: Cause, row: u32) -> String {
    match cause {
        Cause::Errors => format!("{row} failures in a row"),
        Cause::GatewayErrors => format!("{row} answers 502, 503 or 504 in a row"),
        Cause::LocalErrors => format!("{row} attempts in a row without an answer"),
        Cause::SuccessRate => "far more of its requests fail than of the others'".to_owned(),
        Cause::Latency => "its answers take far longer than the others'".to_owned(),
    }
}

/// What the log and the events say when somebody comes back.
pub(super) const OVER: &str = "its time is over";

impl Health {
    /// The endpoint is left alone; until when.
    fn eject(
        &self,
        upstream: &Arc<Upstream>,
        address: &EndpointAddr,
        cause: Cause,
        said: &str,
        rules: &OutlierRules,
    ) -> Instant {
        let subject = self.subject_of(upstream, address);
        let (ends, turned) = subject.eject(cause, said, rules, (clock::instant(), clock::now()));
        upstream.checks().ejected(cause as usize);
        if let Some(turned) = turned {
            self.tell(&subject, turned, said.to_owned());
        }
        ends
    }

    /// It gets requests again, as far as its checks go.
    fn readmit(&self, tenure: u64, address: &EndpointAddr, now: Instant) {
        let Some(subject) = self.known_subject(tenure, address) else { return };
        let turned: Option<Turned> = subject.readmit(now, clock::now());
        if let Some(turned) = turned {
            self.tell(&subject, turned, OVER.to_owned());
        }
    }
}
