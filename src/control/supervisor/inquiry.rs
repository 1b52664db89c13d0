//! A trial as it is judged: the counts of each look become evidence, and the evidence a wish.

use std::sync::Arc;
use std::time::Instant;

use super::case::{Fresh, age};
use super::convert::{elsewhere, group, points, ratio, settings};
use super::orders::{Orders, Wanted};
use super::past::Times;
use crate::control::Failed;
use crate::proxy::ledger::{GENERATIONS, Ledger, Side, Sums};
use crate::proxy::live::Snapshot;
use crate::release::verdict::{
    About, EndpointCounts, Group, LatencyHist, Report, Settings, Standing, Supervisor, endpoint_fault,
    guard_rate,
};
use crate::release::{Act, Timestamp, Trial};
use crate::table::{BasisPoints, EndpointAddr, Service, ServiceName, SuperviseRules};

/// So many answers of the baseline during a suspicion, none of them good, say that it does not serve,
const NONE_GOOD: u64 = 10;
/// when so many of the candidate's are good.
const SOME_GOOD: u64 = 3;

/// A trial under way.
#[derive(Debug)]
pub(super) struct Inquiry {
    service: ServiceName,
    pub(super) trial: Trial,
    /// When it ends by itself, whatever is done to the calendar meanwhile.
    ends: Option<Instant>,
    pub(super) rules: Arc<SuperviseRules>,
    pub(super) supervisor: Supervisor,
    /// How long answers of the baseline took before the trial.
    pub(super) times: Times,
    /// The candidate's share, by generation; `None`: nothing was published of it yet.
    pub(super) shares: [Option<f64>; GENERATIONS],
    /// The candidate's present share.
    pub(super) share: BasisPoints,
    pub(super) since: Instant,
    ticked: Instant,
    standing: Standing,
    /// When, and by what, it became suspect for the first time.
    pub(super) suspected: Option<(Instant, &'static str)>,
    ejections: u32,
    /// What came of the requests that were sent while it leaned back, by side, in the last suspicion: decided, and failed.
    leaning: [(u64, u64); 2],
    /// Nothing has come of any request to the candidate.
    is_unanswered: bool,
    /// Since when it has its present share.
    pub(super) weighed: Instant,
    /// When something came of a request to the candidate for the last time.
    pub(super) heard: Instant,
    orders: Orders,
}

impl Inquiry {
    /// Begins with what is known of the baseline: what it decided lately and what of that failed, and how long it took.
    pub(super) fn open(
        trial: &Trial,
        service: &Service,
        ledger: &Ledger,
        (decided, failed): (u64, u64),
        times: Times,
        now: Instant,
    ) -> Self {
        let rules = service.supervise.clone().unwrap_or_default();
        let settings = Settings { by_client: ledger.is_by_client(), ..settings(&rules, trial) };
        let p0 = guard_rate(decided, failed, settings.errors);
        let share = trial.asked.weight(&trial.candidate);
        let mut supervisor = Supervisor::new(ratio(share), p0, settings);
        if trial.is_suspected(&service.split) {
            supervisor.take_over_suspicion();
        }
        ledger.arm(u8::try_from(supervisor.fuse_len()).unwrap_or(u8::MAX));
        Self {
            service: service.name.clone(),
            trial: trial.clone(),
            ends: None,
            rules,
            supervisor,
            times,
            shares: [None; GENERATIONS],
            share,
            since: now,
            ticked: now,
            standing: Standing::Collecting,
            suspected: None,
            ejections: 0,
            leaning: [(0, 0); 2],
            is_unanswered: false,
            weighed: now,
            heard: now,
            orders: Orders::default(),
        }
    }

    /// The weights that are published now, and when it ends.
    pub(super) fn follow(&mut self, trial: &Trial, service: &Service, ends: Option<Instant>, now: Instant) {
        (self.trial, self.ends) = (trial.clone(), ends);
        let share = service.split.weight(&trial.candidate);
        if std::mem::replace(&mut self.share, share) != share {
            self.weighed = now;
        }
        // Of the same snapshot as the weights: the state may be a moment older.
        if let Some(watch) = &service.watch {
            self.shares[watch.generation as usize % GENERATIONS] = Some(ratio(self.share));
        }
    }

    /// One look.
    pub(super) fn tick(
        &mut self,
        ledger: &Ledger,
        sums: &Sums,
        fresh: &Fresh,
        alive: u64,
        now: Instant,
        snapshot: &Snapshot,
    ) -> Option<Wanted> {
        let dt = age(self.ticked, now).as_secs_f64();
        self.ticked = now;
        if ledger.slow().is_none() && age(self.since, now) >= self.rules.warmup.0 {
            self.learn(ledger, sums);
        }
        if fresh.iter().any(|[_, candidate]| candidate.decided > 0) {
            self.heard = now;
        }
        if ledger.has_blown() {
            self.supervisor.fuse_blown();
        }
        let mut groups: [Group; GENERATIONS] = Default::default();
        let mut len = 0;
        // The oldest first: the newest generation is the one that is published.
        for back in (0..GENERATIONS).rev() {
            let index = (self.trial.generation as usize + GENERATIONS - back) % GENERATIONS;
            let (Some(w), [baseline, candidate]) = (self.shares[index], &fresh[index]) else { continue };
            // An answer may break off in a look after that in which it was decided.
            if [baseline, candidate].iter().any(|counted| counted.decided + counted.failed > 0) {
                groups[len] = group(w, baseline, candidate);
                len += 1;
            }
        }
        let stalled = self.stalled(ledger, sums, now);
        if let Some(clients) = ledger.clients() {
            self.supervisor.has_clients(clients);
        }
        let standing = self.supervisor.tick(dt, &groups[..len], Some(&stalled), alive);
        self.is_unanswered = self.has_only_asked(sums);
        self.turned(standing, ledger, now);
        if self.leans() {
            let leaning = &fresh[self.trial.generation as usize % GENERATIONS];
            for ((decided, failed), counted) in self.leaning.iter_mut().zip(leaning) {
                (*decided, *failed) = (*decided + counted.decided, *failed + counted.failed);
            }
        }
        self.wanted(standing, (ledger, sums), now, snapshot)
    }

    /// It stands otherwise than before.
    fn turned(&mut self, standing: Standing, ledger: &Ledger, now: Instant) {
        let before = std::mem::replace(&mut self.standing, standing);
        if before == standing {
            return;
        }
        match standing {
            Standing::Suspect => {
                ledger.mark();
                self.leaning = [(0, 0); 2];
                if self.suspected.is_none() {
                    self.suspected = Some((now, self.supervisor.why().map_or("", |why| why.name())));
                }
            }
            Standing::Collecting | Standing::Healthy if before == Standing::Suspect => {
                ledger.arm(u8::try_from(self.supervisor.fuse_len()).unwrap_or(u8::MAX));
            }
            _ => {}
        }
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// What is ordered now: what is wanted, unless it was just then.
    fn wanted(
        &mut self,
        standing: Standing,
        (ledger, sums): (&Ledger, &Sums),
        now: Instant,
        snapshot: &Snapshot,
    ) -> Option<Wanted> {
        let tenure = || snapshot.tenure(&self.service, &self.trial.candidate);
        if self.orders.are_waited_for(now, |kind| tenure().map_or(0, |tenure| tenure.in_flight_by(kind))) {
            return None;
        }
        let wish = || self.wish(standing, (ledger, sums), now, snapshot);
        let Some(wanted) = self.orders.owed().cloned().or_else(wish) else {
            self.orders.rest();
            return None;
        };
        if !self.orders.give(&wanted, now) {
            return None;
        }
        if matches!(wanted, Wanted::Eject(..)) {
            self.ejections += 1;
            self.supervisor.start_again();
            self.standing = self.supervisor.standing();
        }
        Some(wanted)
    }

    fn wish(
        &self,
        standing: Standing,
        (ledger, sums): (&Ledger, &Sums),
        now: Instant,
        snapshot: &Snapshot,
    ) -> Option<Wanted> {
        let is_over = self.is_over(now);
        let leans = self.leans();
        let wanted = match standing {
            // Whatever it was found to be: nothing comes of it.
            _ if !self.trial.acts => is_over.then_some(Wanted::Act(Act::Acquit))?,
            Standing::Breached => match self.culprit(ledger, sums, snapshot) {
                Some(endpoint) => Wanted::Eject(self.trial.candidate.clone(), endpoint),
                None => Wanted::Act(Act::Convict),
            },
            Standing::Suspect | Standing::Held if self.is_baseline_gone() => {
                leans.then_some(Wanted::Act(Act::Restore))?
            }
            Standing::Suspect | Standing::Held => {
                let share =
                    points(self.supervisor.weight()).min(self.trial.asked.weight(&self.trial.candidate));
                // Where there is nothing to take away it is kept in mind, over a restart too.
                let is_news = share < BasisPoints::ALL && !self.trial.is_suspect;
                (share < self.share || is_news).then(|| Wanted::Act(Act::Lean(share.min(self.share))))?
            }
            Standing::Collecting | Standing::Healthy if leans || self.trial.is_suspect => {
                Wanted::Act(Act::Restore)
            }
            Standing::Collecting | Standing::Healthy => is_over.then_some(Wanted::Act(Act::Acquit))?,
        };
        Some(wanted)
    }

    /// True when time alone changes nothing about it.
    pub(super) fn is_calm(&self, now: Instant) -> bool {
        let is_calm = matches!(self.supervisor.standing(), Standing::Collecting | Standing::Healthy);
        let is_owed = self.orders.owed().is_some();
        is_calm
            && self.standing == self.supervisor.standing()
            && !self.leans()
            && !self.trial.is_suspect
            && !is_owed
            && !self.is_over(now)
    }

    /// It is not over before the candidate has said anything to those who have asked it, at the latest by its time-outs.
    fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| now >= ends) && !self.is_unanswered
    }

    /// True when the candidate has requests, and nothing has come of any.
    fn has_only_asked(&self, sums: &Sums) -> bool {
        let [_, decided] = self.supervisor.totals().sum().decided;
        let [lately, slowly] = [&sums.flights, &sums.slowly].map(|of| &of[Side::Candidate as usize]);
        let lately = lately.iter().chain(slowly);
        let out = lately.map(|(_, started, finished)| started.saturating_sub(*finished)).sum::<u64>();
        decided == 0 && out + sums.older[Side::Candidate as usize] > 0
    }

    /// True while the candidate has less than was asked for.
    fn leans(&self) -> bool {
        self.share != self.trial.asked.weight(&self.trial.candidate)
    }

    /// True when the baseline has answered nothing that was sent while it was leaned on, and the candidate has: it was stopped too
    /// early, and to lean on it is worse than what is suspected.
    fn is_baseline_gone(&self) -> bool {
        let [(decided, failed), (of_candidate, bad)] = self.leaning;
        decided >= NONE_GOOD && failed >= decided && of_candidate.saturating_sub(bad) >= SOME_GOOD
    }

    /// Why supervision could not do what it wanted, the last time.
    pub(super) fn hindrance(&self) -> Option<String> {
        let is_gone = matches!(self.standing, Standing::Suspect | Standing::Held) && self.is_baseline_gone();
        let gone = || format!("`{}` answers nothing: traffic cannot lean back to it", self.trial.baseline);
        is_gone.then(gone).or_else(|| self.orders.hindrance().map(str::to_owned))
    }

    /// The endpoint of the candidate that alone is to blame; a second one is the version's fault.
    fn culprit(&self, ledger: &Ledger, sums: &Sums, snapshot: &Snapshot) -> Option<EndpointAddr> {
        let endpoints = self.endpoints(ledger, snapshot);
        if self.ejections > 0 || endpoints.len() < 2 {
            return None;
        }
        let mut counts: Vec<_> = endpoints.iter().map(|(_, counts)| *counts).collect();
        counts.extend(elsewhere(&counts, sums));
        let (address, _) = endpoints.get(endpoint_fault(&counts)?)?;
        Some(address.clone())
    }

    /// What the candidate's endpoints did since the trial began.
    pub(super) fn endpoints(
        &self,
        ledger: &Ledger,
        snapshot: &Snapshot,
    ) -> Vec<(EndpointAddr, EndpointCounts)> {
        let spec =
            snapshot.table.service(&self.service).and_then(|service| service.version(&self.trial.candidate));
        let Some((spec, tenure)) = spec.zip(snapshot.tenure(&self.service, &self.trial.candidate)) else {
            return Vec::new();
        };
        let counted = ledger.endpoints(Side::Candidate);
        let found = tenure.all_known_vitals(spec.serving()).into_iter().map(|(address, vitals)| {
            let id = vitals.map_or(0, |vitals| vitals.id());
            let found = counted.binary_search_by_key(&id, |(known, ..)| *known);
            let counts = found.map_or_else(
                |_| EndpointCounts::default(),
                |index| EndpointCounts { decided: counted[index].1, bad: counted[index].2 },
            );
            (address.clone(), counts)
        });
        found.collect()
    }

    /// All there is to tell of it.
    pub(super) fn report(
        &self,
        ledger: &Ledger,
        sums: &Sums,
        (now, at): (Instant, Timestamp),
        snapshot: &Snapshot,
    ) -> Report {
        let took = [Side::Baseline, Side::Candidate]
            .map(|side| sums.took[side as usize].iter().copied().collect::<LatencyHist>());
        let lasted = u64::try_from(age(self.since, now).as_millis()).unwrap_or(u64::MAX);
        let about = About {
            baseline: &self.trial.baseline,
            candidate: &self.trial.candidate,
            began: Timestamp(at.0.saturating_sub(lasted)),
            acts: self.trial.acts,
            took: [&took[0], &took[1]],
            slow_from: ledger.slow().map(|slow| slow.map(|from| from.map(usize::from))),
            endpoints: self.endpoints(ledger, snapshot),
            kinds: Vec::new(),
            user_failures: None,
            clients: ledger.clients(),
        };
        Report::of(&self.supervisor, about)
    }

    /// An order is carried out, or was not; gives back why when that is news.
    pub(super) fn answered(
        &mut self,
        wanted: &Wanted,
        done: Result<(), &Failed>,
        now: Instant,
    ) -> Option<&str> {
        let Err(failed) = done else {
            self.orders.done(wanted);
            return None;
        };
        let (is_owed, news) = self.orders.refused(wanted, failed, self.trial.exclusive.is_some(), now);
        // It is not drained: another one that is bad is no second one.
        self.ejections -= u32::from(is_owed);
        news
    }
}
