//! Whether a candidate is worse than the baseline, told by evidence that may be looked at all the time.
//!
//! A [`Supervisor`] is one stage: one candidate (B) against one baseline (A), from one change of the weights to the next. It takes what
//! was counted since the last tick and says where the candidate stands, and which weight it shall have.
//!
//! ```text
//!                    clean evidence
//!     Collecting ◀──────────────────▶ Healthy
//!        ▲  │ guard, fuse, E ≥ 100       │
//!        │  ▼                            │
//!        │ Suspect ◀─────────────────────┘
//!        │  │  │ └────────────────────────────────────────▶ Held (nothing proven, time and again)
//!        └──┘  │ E ≥ 1/alpha, and the baseline answers        │
//!      no proof └───────────────▶ Breached ◀──────────────────┘
//! ```
//!
//! Only a comparison of requests whose version a coin chose may revert: a fault that hits both versions leaves the coin fair.
//! What the baseline did before may only raise suspicion. Then the candidate leans back to a tenth of the traffic, so that there is a
//! coin, and the proof is a few requests away; a revert passes through it always. Two things can make a fair coin look unfair, and both
//! only ever keep a revert back: a baseline that does not answer at all proves nothing (liveness), and its overdue answers are
//! presumed to be failures ([`missing_answers`]).
//!
//! The probability of a false revert in a stage of T hours is at most alpha (3/4 + T/4).

mod budget;
mod clients;
mod contradicted;
mod counts;
mod endpoint;
mod estats;
pub mod figures;
mod interval;
mod latency;
mod look;
mod pace;
mod report;
mod sentence;
mod settings;
mod standing;
#[cfg(test)]
mod tests;

pub use clients::ENOUGH_CLIENTS;
pub use counts::{Again, Group, Stalled, Totals};
pub use endpoint::{EndpointCounts, endpoint_fault};
pub use estats::{
    CleanTest, Counts, GuardDetector, PairDetector, Tolerance, combine, fuse_len, guard_rate, log_add_exp,
    log_sum_exp,
};
use estats::{MASS_START, MASS_SUSPECT, is_coin};
pub use interval::{Interval, Segment, excess_estimate, excess_interval};
pub use latency::{
    BUCKETS, Cohort, LatencyHist, LatencyThreshold, LatencyTolerance, QUANTILES, bucket_index, bucket_low,
    latency_thresholds, missing_answers,
};
use pace::Pace;
pub use report::{About, CONFIDENCE, Needed, Report};
pub use settings::Settings;
pub use standing::{GuardOf, Metric, Standing, Why};

/// The candidate may be slow as often as this allows before its guards for p75, p95 and p99 are against it.
pub const GUARD_LATENCY_BOUNDS: [f64; 3] = [0.38, 0.08, 0.02];
/// Evidence that is enough once the budget of bad answers is used up.
const BUDGET_EVIDENCE: f64 = 20.0;
/// So many bad answers of the baseline are no accident any more.
const COMMON_LEAST: u64 = 3;

/// One stage of supervision.
///
/// It allocates nothing after it is made. A tick costs some microseconds; every 10 ms is meant.
#[derive(Debug, Clone)]
pub struct Supervisor {
    settings: Settings,
    p0: f64,
    target: f64,
    weight: f64,
    standing: Standing,
    why: Option<Why>,
    suspects: u32,
    suspicion: Option<Suspicion>,
    pairs: [PairDetector; 5],
    guards: [GuardDetector; 4],
    /// One for each guard of speed.
    paces: [Pace; 3],
    clean: CleanTest,
    evidence: Evidence,
    /// Seconds since the stage began.
    elapsed: f64,
    /// When it last came to stand elsewhere, in the same seconds.
    turned: f64,
    /// Seconds since something was decided.
    idle: f64,
    totals: Totals,
    /// Bad answers of the candidate that are in the sums no more: of endpoints that were ejected.
    ejected_bad: u64,
    /// What was out and bad at the last tick.
    stalled: Stalled,
    /// True while too few clients have come to compare versions by.
    has_few_clients: bool,
}

/// What the last suspicion began with and what happened since.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suspicion {
    /// What raised it.
    pub why: Why,
    /// Seconds from the stage's beginning to it.
    pub at: f64,
    seconds: f64,
    /// First attempts on the candidate that were decided.
    candidate: u64,
    /// Good answers of the baseline to requests that started during the suspicion.
    live: u64,
    /// First attempts on the baseline that were decided, and the bad ones.
    baseline: [u64; 2],
}

impl Suspicion {
    fn new(why: Why, at: f64) -> Self {
        Self { why, at, seconds: 0.0, candidate: 0, live: 0, baseline: [0, 0] }
    }
}

/// Evidence as of the last tick, as logarithms.
#[derive(Debug, Clone, Copy)]
struct Evidence {
    total: f64,
    leading: Metric,
    of: [f64; 5],
    guard: f64,
    guard_leading: GuardOf,
}

impl Supervisor {
    /// A stage that begins now: the candidate has `weight` (0 to 1), and `p0` is its guard's bound ([`guard_rate`]).
    #[must_use]
    pub fn new(weight: f64, p0: f64, settings: Settings) -> Self {
        let none = f64::NEG_INFINITY;
        Self {
            settings,
            p0,
            target: weight,
            weight,
            standing: Standing::Collecting,
            why: None,
            suspects: 0,
            suspicion: None,
            pairs: pairs(&settings),
            guards: guards(p0),
            paces: [(); 3].map(|()| Pace::new(settings.guard_pace)),
            clean: CleanTest::new(settings.errors),
            evidence: Evidence {
                total: none,
                leading: Metric::ErrorRate,
                of: [none; 5],
                guard: none,
                guard_leading: GuardOf::Errors,
            },
            elapsed: 0.0,
            turned: 0.0,
            idle: 0.0,
            totals: Totals::default(),
            ejected_bad: 0,
            stalled: Stalled::default(),
            has_few_clients: false,
        }
    }

    /// What was decided in the last `dt` seconds, one group a weight, older weights first; what is known of requests that are still out; and
    /// how many requests that started during the suspicion the baseline answered well. Where the candidate stands now.
    ///
    /// During a suspicion `stalled` has to be told every time: a revert is decided in the very tick in which the evidence is enough.
    pub fn tick(&mut self, dt: f64, groups: &[Group], stalled: Option<&Stalled>, live_ok: u64) -> Standing {
        if self.standing == Standing::Breached {
            return self.standing;
        }
        self.elapsed += dt;
        self.idle += dt;
        for group in groups {
            // New bets start once a tick, before what was decided in it counts.
            let dt = std::mem::take(&mut self.idle);
            self.count(dt, group);
        }
        self.stalled = stalled.copied().unwrap_or_default();
        self.weigh();
        match self.standing {
            Standing::Collecting | Standing::Healthy => self.on_calm(),
            Standing::Suspect | Standing::Held => self.on_suspicion(dt, live_ok),
            Standing::Breached => {}
        }
        self.standing
    }

    fn count(&mut self, dt: f64, group: &Group) {
        self.totals.add(group);
        for (metric, pair) in Metric::ALL.into_iter().zip(&mut self.pairs) {
            pair.update(dt, group.w, group.counts(metric));
        }
        self.clean.update(group.w, group.clean_counts());
        let is_suspect = matches!(self.standing, Standing::Suspect | Standing::Held);
        if is_suspect && let Some(suspicion) = &mut self.suspicion {
            suspicion.candidate += group.decided[1];
            suspicion.baseline[0] += group.decided[0];
            suspicion.baseline[1] += group.bad[0];
        }
        if self.are_guards_on() {
            let [errors, speed @ ..] = &mut self.guards;
            errors.update(dt, group.guard_decided, group.guard_bad);
            for (quantile, (guard, pace)) in speed.iter_mut().zip(&mut self.paces).enumerate() {
                let [measured, slow] = group.guarded(quantile);
                guard.update_in_part(dt, pace.part(dt, measured), measured, slow);
            }
        }
    }

    /// Once it is suspect they have said what they had to say, unless nobody else can.
    fn are_guards_on(&self) -> bool {
        !matches!(self.standing, Standing::Suspect | Standing::Held) || !self.can_lean_back()
    }

    fn weigh(&mut self) {
        let of = |index: usize| self.pairs[index].log_e_with(self.stalled.w, self.out_of(Metric::ALL[index]));
        let of = std::array::from_fn(of);
        let (total, leading) = combine(&self.settings.omega, &of);
        self.evidence = Evidence { total, leading: Metric::ALL[leading], of, ..self.evidence };
        if self.are_guards_on() {
            self.weigh_guards();
        }
    }

    fn weigh_guards(&mut self) {
        let [errors, latency @ ..] = &self.guards;
        let overdue = self.out_of_guards();
        let [p75, p95, p99] = std::array::from_fn(|index| latency[index].log_e_with(overdue[index]));
        let guards = [errors.log_e(), p75, p95, p99];
        let (guard, leading) = combine(&self.settings.guard_omega, &guards);
        self.evidence.guard = guard;
        self.evidence.guard_leading = if leading == 0 { GuardOf::Errors } else { GuardOf::Latency };
    }

    fn on_calm(&mut self) {
        let doubt = -self.settings.alpha_suspect.ln();
        if self.decisive() >= doubt.min(self.needed()) {
            self.suspect(Why::Metric(self.evidence.leading));
        } else if self.evidence.guard >= doubt {
            self.suspect(Why::Guard(self.evidence.guard_leading));
        } else if self.clean.log_e() >= -self.settings.alpha_clean.ln() && !self.has_few_clients {
            self.stand(Standing::Healthy);
        } else {
            self.stand(Standing::Collecting);
        }
    }

    fn stand(&mut self, standing: Standing) {
        if self.standing != standing {
            self.standing = standing;
            self.turned = self.elapsed;
        }
    }

    fn on_suspicion(&mut self, dt: f64, live_ok: u64) {
        let Some(suspicion) = &mut self.suspicion else { return };
        suspicion.seconds += dt;
        suspicion.live += live_ok;
        let Suspicion { seconds, live, candidate, .. } = *suspicion;
        let Settings { suspect_hold, suspect_hold_factor, max_suspects, .. } = self.settings;
        let (needed, guards_alone) = (self.needed(), !self.can_lean_back());
        if self.decisive() >= needed && live >= self.settings.live_min {
            let (total, leading) = self.uncontradicted();
            if total >= needed {
                return self.breach(Why::Metric(leading));
            }
        }
        if guards_alone && self.evidence.guard >= -self.settings.alpha.ln() {
            return self.breach(Why::Guard(self.evidence.guard_leading));
        }
        let hold = suspect_hold * suspect_hold_factor.powf(f64::from(self.suspects.saturating_sub(1)));
        let is_over = seconds >= hold && candidate >= self.settings.suspect_min_b;
        let is_doubted = self.decisive() >= 0.0 || (guards_alone && self.evidence.guard >= 0.0);
        match self.standing {
            Standing::Suspect if !is_over || is_doubted => {}
            Standing::Suspect if self.suspects >= max_suspects => self.stand(Standing::Held),
            Standing::Suspect => self.calm(),
            Standing::Collecting | Standing::Healthy | Standing::Breached | Standing::Held => {}
        }
    }

    fn suspect(&mut self, why: Why) {
        self.suspects += 1;
        self.stand(Standing::Suspect);
        self.why = Some(why);
        self.suspicion = Some(Suspicion::new(why, self.elapsed));
        let mass = MASS_SUSPECT * 0.5_f64.powf(f64::from(self.suspects));
        self.pairs.iter_mut().for_each(|pair| pair.inject(mass));
        self.lean_back();
    }

    fn lean_back(&mut self) {
        let least = if self.can_lean_back() { self.settings.suspect_weight } else { self.target };
        self.weight = self.target.min(least);
    }

    /// What has no coin needs one, unless the operator wants nobody to go back.
    fn can_lean_back(&self) -> bool {
        self.settings.leans_back || is_coin(self.target)
    }

    /// Nothing was proven.
    fn calm(&mut self) {
        self.stand(Standing::Collecting);
        self.why = None;
        self.weight = self.target;
        self.guards = guards(self.p0);
        self.clean = CleanTest::new(self.settings.errors);
        self.weigh_guards();
    }

    fn breach(&mut self, why: Why) {
        self.stand(Standing::Breached);
        self.why = Some(why);
        self.weight = 0.0;
    }

    /// The data plane counted [`fuse_len`](Self::fuse_len) bad answers in a row. True when the stage is suspect because of it, and was not before.
    pub fn fuse_blown(&mut self) -> bool {
        let is_calm = matches!(self.standing, Standing::Collecting | Standing::Healthy);
        if is_calm {
            self.suspect(Why::Fuse);
        }
        is_calm
    }

    /// Who judged before leans back, and nothing else is known of that: it is suspect until the contrary is shown.
    pub fn take_over_suspicion(&mut self) {
        self.suspect(Why::Inherited);
    }

    /// No endpoint of the candidate can be reached, and one of the baseline answers: reverted at once, for nothing was processed that
    /// could not be sent to the baseline. True when it was not before.
    pub fn pool_down(&mut self) -> bool {
        let is_news = self.standing != Standing::Breached;
        if is_news {
            self.breach(Why::PoolDown);
        }
        is_news
    }

    /// An endpoint was ejected, and all evidence with it: for the bound it is a new stage. One that was suspect stays so, and a breach that
    /// was not acted on is one no more; not so when the pool is down.
    pub fn start_again(&mut self) {
        if self.why == Some(Why::PoolDown) {
            return;
        }
        self.pairs = pairs(&self.settings);
        self.guards = guards(self.p0);
        self.clean = CleanTest::new(self.settings.errors);
        self.ejected_bad += self.totals.sum().bad[1];
        self.totals = Totals::default();
        self.stalled = Stalled::default();
        self.weigh();
        self.weigh_guards();
        if let Some(before) = self.suspicion
            && !matches!(self.standing, Standing::Collecting | Standing::Healthy)
        {
            self.stand(Standing::Suspect);
            self.why = Some(before.why);
            self.suspicion = Some(Suspicion::new(before.why, before.at));
            self.lean_back();
        }
    }
}

fn pairs(settings: &Settings) -> [PairDetector; 5] {
    Metric::ALL.map(|metric| {
        let mut pair = PairDetector::new(settings.tolerance(metric));
        pair.inject(MASS_START);
        pair
    })
}

fn guards(p0: f64) -> [GuardDetector; 4] {
    let [p75, p95, p99] = GUARD_LATENCY_BOUNDS;
    [p0, p75, p95, p99].map(|bound| {
        let mut guard = GuardDetector::new(bound);
        guard.inject(MASS_START);
        guard
    })
}
