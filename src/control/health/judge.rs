//! Who ejects: one task that hears of endpoints whose requests fail, compares those of pools where that is wanted, and lets
//! the ejected come back when their time is over.
//!
//! It shares control's thread, and most of its work comes when everything fails. So it does a little at a time, and whoever
//! it has looked at is not heard of again for a moment.

mod bench;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::subject::Turned;
use super::{Health, clock};
use crate::proxy::live::Live;
use crate::proxy::upstream::suspicion::Sums;
use crate::proxy::upstream::{Member, Suspect, Upstream, Vitals};
use crate::table::pool::outliers::Cause;
use crate::table::{EndpointAddr, OutlierRules};
use bench::Bench;

/// Suspects that are looked at, or ejections that end, before control has a turn again.
const AT_A_TIME: usize = 64;
/// Pools that are compared before control has a turn again.
const POOLS_AT_A_TIME: usize = 16;
/// Between two looks at suspects: what a look costs, a whole pool, is paid so often at most.
const REST: Duration = Duration::from_millis(10);
/// Who was looked at is not told of again for so long: a pool that fails as a whole is a few suspects a second, not one a
/// request.
const PAUSE: Duration = Duration::from_millis(200);

/// What the judge is told.
#[derive(Debug)]
pub(super) enum Task {
    /// The endpoints of this tenure are compared from now on.
    Compare(Arc<Upstream>),
    /// Those of this one no more.
    Leave(u64),
    /// This ejection ends then.
    Await(Instant, Member),
}

/// Ejects endpoints for as long as it runs.
#[derive(Debug)]
pub(super) struct Judge {
    health: Arc<Health>,
    live: Arc<Live>,
    pub(super) tasks: mpsc::UnboundedReceiver<Task>,
    /// When ejections end, and whose.
    ends: BinaryHeap<Reverse<(Instant, Member)>>,
    /// Who may be told of again, and when; the first is the earliest.
    again: VecDeque<(Instant, Arc<Vitals>)>,
    /// When suspects are looked at again.
    rested: Option<Instant>,
    /// The pools that are compared, by tenure, and when each is.
    compared: HashMap<u64, Compared>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    dice: SmallRng,
}

/// A pool whose endpoints are compared.
#[derive(Debug)]
struct Compared {
    upstream: Arc<Upstream>,
    next: Instant,
    /// The sums at the last time.
    before: HashMap<EndpointAddr, Sums>,
}

impl Judge {
    pub(super) fn new(health: Arc<Health>, live: Arc<Live>, tasks: mpsc::UnboundedReceiver<Task>) -> Self {
        let (ends, again, rested) = (BinaryHeap::new(), VecDeque::new(), None);
        let (compared, due, dice) = (HashMap::new(), BinaryHeap::new(), rand::make_rng());
        Self { health, live, tasks, ends, again, rested, compared, due, dice }
    }

    /// Until it is dropped.
    pub(super) async fn run(mut self) {
        let suspects = Arc::clone(&self.health.suspects);
        loop {
            let (rested, next) = (self.rested, self.next());
            let come = async {
                if rested.is_some() {
                    clock::until(rested).await;
                }
                suspects.come(AT_A_TIME).await
            };
            tokio::select! {
                some = come => self.on_suspects(&some, clock::instant()),
                Some(task) = self.tasks.recv() => self.on_task(task, clock::instant()),
                () = clock::until(next) => self.on_time(clock::instant()),
            }
            // Control's turn, whatever else there is to do.
            yield_now().await;
        }
    }

    fn next(&self) -> Option<Instant> {
        let again = self.again.front().map(|(at, _)| *at);
        let ends = self.ends.peek().map(|Reverse((at, _))| *at);
        let due = self.due.peek().map(|Reverse((at, _))| *at);
        again.into_iter().chain(ends).chain(due).min()
    }

    pub(super) fn on_suspects(&mut self, suspects: &[Suspect], now: Instant) {
        let snapshot = self.live.snapshot();
        let mut benches: HashMap<u64, Option<Bench<'_>>> = HashMap::new();
        for Suspect { member, cause } in suspects {
            // One look at a pool, however many of it have come.
            let bench = benches.entry(member.tenure).or_insert_with(|| Bench::of(&snapshot, member));
            let Some(bench) = bench else { continue };
            judge(&self.health, &mut self.ends, bench, &member.address, *cause);
            let vitals = bench.vitals(&member.address).cloned();
            self.again.extend(vitals.map(|vitals| (now + PAUSE, vitals)));
        }
        self.rested = Some(now + REST);
    }

    pub(super) fn on_task(&mut self, task: Task, now: Instant) {
        match task {
            Task::Compare(upstream) => {
                let snapshot = self.live.snapshot();
                let interval = Bench::rules_of(&snapshot, &upstream).map(|rules| rules.interval);
                // Pools that come together are not compared together; each first after a whole interval.
                let interval = interval.unwrap_or_default().mul_f64(1.0 + self.dice.random::<f64>());
                let (next, id, before) = (now + interval, upstream.id, HashMap::new());
                self.compared.insert(id, Compared { upstream, next, before });
                self.due.push(Reverse((next, id)));
            }
            Task::Leave(tenure) => drop(self.compared.remove(&tenure)),
            Task::Await(end, member) => self.ends.push(Reverse((end, member))),
        }
    }

    pub(super) fn on_time(&mut self, now: Instant) {
        while let Some((_, vitals)) = self.again.pop_front_if(|(at, _)| *at <= now) {
            vitals.looked();
        }
        for _ in 0..AT_A_TIME {
            if self.ends.peek().is_none_or(|Reverse((at, _))| *at > now) {
                break;
            }
            if let Some(Reverse((_, member))) = self.ends.pop() {
                self.health.readmit(&member, now);
            }
        }
        for _ in 0..POOLS_AT_A_TIME {
            if self.due.peek().is_none_or(|Reverse((at, _))| *at > now) {
                break;
            }
            if let Some(Reverse((at, tenure))) = self.due.pop() {
                self.on_due(tenure, at, now);
            }
        }
    }

    /// Compares the endpoints of a pool by what they did since the last time.
    fn on_due(&mut self, tenure: u64, at: Instant, now: Instant) {
        // One that went and came again has another time.
        let Some(compared) = self.compared.get_mut(&tenure).filter(|compared| compared.next == at) else {
            return;
        };
        let snapshot = self.live.snapshot();
        let Some(mut bench) = Bench::of_tenure(&snapshot, &compared.upstream) else {
            self.compared.remove(&tenure);
            return;
        };
        compared.next = now + bench.rules.interval;
        self.due.push(Reverse((compared.next, tenure)));
        for (address, cause) in bench.compare(&mut compared.before) {
            judge(&self.health, &mut self.ends, &mut bench, &address, cause);
        }
    }
}

/// Ejects the endpoint, if it may be.
fn judge(
    health: &Health,
    ends: &mut BinaryHeap<Reverse<(Instant, Member)>>,
    bench: &mut Bench<'_>,
    address: &EndpointAddr,
    cause: Cause,
) {
    if bench.may_eject(address, cause) {
        let said = words(cause, bench.vitals(address).map_or(0, |vitals| vitals.row(cause)));
        let end = health.eject(bench.upstream, address, cause, &said, bench.rules);
        bench.on_ejected();
        ends.push(Reverse((end, member(bench.upstream, address))));
    }
}

/// The endpoint at `address` of a tenure.
pub(super) fn member(upstream: &Upstream, address: &EndpointAddr) -> Member {
    let (service, version) = (upstream.service.clone(), upstream.version.clone());
    Member { service, version, tenure: upstream.id, address: address.clone() }
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
        upstream.checks().ejected(cause);
        if let Some(turned) = turned {
            self.tell(&subject, turned, said.to_owned());
        }
        ends
    }

    /// It gets requests again, as far as its checks go.
    fn readmit(&self, member: &Member, now: Instant) {
        let Some(subject) = self.known_subject(member) else { return };
        let turned: Option<Turned> = subject.readmit(now, clock::now());
        if let Some(turned) = turned {
            self.tell(&subject, turned, OVER.to_owned());
        }
    }
}
