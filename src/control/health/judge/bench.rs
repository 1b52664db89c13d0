//! A pool as it is judged: who of it may be ejected.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::outliers::{by_latency, by_success_rate};
use crate::proxy::live::Snapshot;
use crate::proxy::upstream::suspicion::Sums;
use crate::proxy::upstream::{Member, Standing, Upstream, Vitals};
use crate::table::pool::outliers::Cause;
use crate::table::{EndpointAddr, OutlierRules, VersionSpec};

/// The endpoints of a version that are judged, looked at once for all that are judged together.
pub(super) struct Bench<'s> {
    pub(super) upstream: &'s Arc<Upstream>,
    pub(super) rules: &'s OutlierRules,
    /// In the order of the pool, without the drained.
    endpoints: Vec<(&'s EndpointAddr, Option<Arc<Vitals>>)>,
    places: HashMap<&'s EndpointAddr, usize>,
    ejected: usize,
    serving: usize,
    /// Those that serve and have answered well last.
    better: usize,
}

impl<'s> Bench<'s> {
    /// The pool that `member` is in, if it is in the table.
    pub(super) fn of(snapshot: &'s Snapshot, member: &Member) -> Option<Self> {
        let upstream = snapshot.tenure(&member.service, &member.version)?;
        if upstream.id == member.tenure { Self::look(snapshot, upstream) } else { None }
    }

    /// The pool of a tenure, if it is in the table.
    pub(super) fn of_tenure(snapshot: &'s Snapshot, upstream: &Upstream) -> Option<Self> {
        let present = snapshot.tenure(&upstream.service, &upstream.version)?;
        if present.id == upstream.id { Self::look(snapshot, present) } else { None }
    }

    /// What the endpoints of a tenure are judged by.
    pub(super) fn rules_of<'t>(snapshot: &'t Snapshot, upstream: &Upstream) -> Option<&'t OutlierRules> {
        let service = snapshot.table.service(&upstream.service)?;
        Some(&service.pool(service.version(&upstream.version)?).outliers)
    }

    fn look(snapshot: &'s Snapshot, upstream: &'s Arc<Upstream>) -> Option<Self> {
        let service = snapshot.table.service(&upstream.service)?;
        let version: &VersionSpec = service.version(&upstream.version)?;
        let endpoints = upstream.all_known_vitals(version.serving());
        let places = endpoints.iter().enumerate().map(|(place, (address, _))| (*address, place)).collect();
        let rules = &service.pool(version).outliers;
        let (ejected, serving, better) = (0, 0, 0);
        let mut bench = Self { upstream, rules, endpoints, places, ejected, serving, better };
        for (_, vitals) in &bench.endpoints {
            let standing = standing(vitals.as_deref());
            bench.ejected += usize::from(standing == Standing::Ejected);
            bench.serving += usize::from(standing.serves());
            bench.better += usize::from(is_better(vitals.as_deref()));
        }
        Some(bench)
    }

    /// What is known of one of them.
    pub(super) fn vitals(&self, address: &EndpointAddr) -> Option<&Arc<Vitals>> {
        self.endpoints[*self.places.get(address)?].1.as_ref()
    }

    /// Only one that serves beside others that do better: what hits all of them is nobody's fault.
    pub(super) fn may_eject(&self, address: &EndpointAddr, cause: Cause) -> bool {
        let vitals = self.vitals(address).map(|vitals| &**vitals);
        if !self.places.contains_key(address) || !standing(vitals).serves() {
            return false;
        }
        let others = match cause {
            // What it does goes on meanwhile.
            Cause::Errors | Cause::GatewayErrors | Cause::LocalErrors => {
                self.better.saturating_sub(usize::from(is_better(vitals)))
            }
            // By comparison with the others already.
            Cause::SuccessRate | Cause::Latency => self.serving.saturating_sub(1),
        };
        others > 0 && self.ejected < self.rules.most(self.endpoints.len())
    }

    /// One of them is ejected, who served until now. It was none of the better ones.
    pub(super) fn on_ejected(&mut self) {
        self.ejected += 1;
        self.serving = self.serving.saturating_sub(1);
    }

    /// Those that do worse than the others, by what they did since `before`, which is brought up to now.
    pub(super) fn compare(&self, before: &mut HashMap<EndpointAddr, Sums>) -> Vec<(EndpointAddr, Cause)> {
        let sums = self.endpoints.iter().map(|(address, vitals)| {
            let sums = vitals.as_ref().map_or_else(Sums::default, |vitals| vitals.sums());
            let before = before.insert((*address).clone(), sums).unwrap_or_default();
            sums.since(before)
        });
        let sums: Vec<_> = sums.collect();
        before.retain(|address, _| self.places.contains_key(address));
        let by_rate = self.rules.success_rate.map_or_else(Vec::new, |rules| by_success_rate(&sums, rules));
        let slow = self.rules.latency.map_or_else(Vec::new, |rules| by_latency(&sums, rules));
        let found = by_rate.into_iter().map(|at| (at, Cause::SuccessRate));
        let found = found.chain(slow.into_iter().map(|at| (at, Cause::Latency)));
        found.map(|(at, cause)| (self.endpoints[at].0.clone(), cause)).collect()
    }
}

fn standing(vitals: Option<&Vitals>) -> Standing {
    vitals.map(Vitals::standing).unwrap_or_default()
}

/// True when it serves, and was heard to do well: of one that was never asked nothing is known.
fn is_better(vitals: Option<&Vitals>) -> bool {
    vitals.is_some_and(|vitals| vitals.standing().serves() && vitals.is_good())
}
