//! A stage in words: what was done, and the figures that it was done by.

use super::figures::{figure, odds, points, span, time};
use super::report::Report;
use super::standing::{GuardOf, Metric, Standing, Why};
use super::{ENOUGH_CLIENTS, Interval, Tolerance};

/// The most endpoints that are named.
const MOST: usize = 8;

impl Report {
    /// How it stands, with numbers, in one line.
    ///
    /// ```text
    /// reverted green -> blue after 0.13 s: error_rate. green 6 of 6 requests failed (5xx 6), blue 0 of 119.
    /// Difference +18 .. +100 points (95 %, valid at any time); tolerated 1.5 x blue + 0.2 points.
    /// Evidence 1.2e5 : 1 (needed 1e4 : 1). User requests that failed: 6. Triggered by: guard_errors at +0.05 s.
    /// Endpoints: 10.0.0.7:8080 2, 10.0.0.8:8080 2, 10.0.0.9:8080 2.
    /// ```
    #[must_use]
    pub fn sentence(&self) -> String {
        self.worded("reverted")
    }

    /// The same for as long as nothing came of it: who is breached `reverts`, and is not reverted before that is kept.
    #[must_use]
    pub fn so_far(&self) -> String {
        self.worded("reverts")
    }

    fn worded(&self, reverted: &str) -> String {
        let all = match (self.standing, self.why) {
            (Standing::Breached, Some(Why::PoolDown)) => {
                vec![Some(self.head(reverted)), Some(self.pool_down()), self.users(), self.endpoints()]
            }
            (Standing::Breached, _) => vec![
                Some(self.head(reverted)),
                Some(self.counted()),
                self.difference(),
                Some(self.evidence()),
                self.alone(),
                self.users(),
                self.trigger(),
                self.endpoints(),
            ],
            (Standing::Suspect | Standing::Held, _) => vec![
                Some(self.head(reverted)),
                Some(self.leaning()),
                self.common(),
                Some(self.counted()),
                self.difference(),
                Some(self.evidence()),
                self.lacking(),
                self.endpoints(),
            ],
            (Standing::Collecting | Standing::Healthy, _) => {
                vec![
                    Some(self.head(reverted)),
                    Some(self.counted()),
                    self.difference(),
                    Some(self.evidence()),
                ]
            }
        };
        all.into_iter().flatten().chain(self.by_client()).collect::<Vec<_>>().join(" ")
    }

    /// What is different where the coin is the client's.
    fn by_client(&self) -> Option<String> {
        let clients = self.clients?;
        if self.too_few_clients {
            return Some(format!(
                "Too few clients to compare versions by: {clients}, and it takes {ENOUGH_CLIENTS}."
            ));
        }
        let [of_baseline, of_candidate] = self.counts.again_of(self.metric);
        let said = format!("Of these {of_candidate} and {of_baseline} say nothing new of their clients.");
        (of_baseline + of_candidate > 0).then_some(said)
    }

    fn head(&self, reverted: &str) -> String {
        let Self { candidate, baseline, suspects, .. } = self;
        let (after, why) = (span(self.seconds), self.why.map_or("", Why::name));
        match self.standing {
            Standing::Collecting => {
                format!("{candidate} is compared with {baseline}: nothing proven after {after}.")
            }
            Standing::Healthy => {
                let sure = figure((1.0 - self.settings.alpha_clean) * 100.0);
                format!("{candidate} is within tolerance of {baseline} ({sure} %), after {after}.")
            }
            Standing::Suspect => {
                let at = self.trigger.map_or(0.0, |(_, at)| at);
                format!("{candidate} is suspect since +{}: {why}.", span(at))
            }
            Standing::Held => {
                let times =
                    if *suspects == 1 { "a suspicion".to_owned() } else { format!("{suspects} suspicions") };
                format!("{candidate} is held after {times} without a proof: {why}. Flip or revert it.")
            }
            Standing::Breached if self.acts => {
                format!("{reverted} {candidate} -> {baseline} after {after}: {why}.")
            }
            Standing::Breached => {
                format!("would have reverted {candidate} -> {baseline} after {after}: {why}.")
            }
        }
    }

    /// What counted for the metric that the difference is of.
    fn counted(&self) -> String {
        let Self { candidate, baseline, .. } = self;
        let [(of_baseline, bad_baseline), (of_candidate, bad_candidate)] = self.shares(self.metric);
        let noun = if of_candidate == 1 { "request" } else { "requests" };
        let begin = format!("{candidate} {bad_candidate} of {of_candidate} {noun}");
        let end = match of_baseline {
            0 => format!("{baseline} had no requests"),
            _ => format!("{baseline} {bad_baseline} of {of_baseline}"),
        };
        let Some(quantile) = self.metric.quantile() else {
            return match self.metric {
                Metric::ClientErrorShare => format!("{begin} were client errors, {end}."),
                _ => format!("{begin} failed{}, {end}{}.", self.kinds(), self.overdue()),
            };
        };
        let [from_baseline, from_candidate] = match self.slow_from {
            Some(of) => of.map(|from| format!("{} or longer", time(from[quantile]))),
            None => [const { String::new() }; 2],
        };
        let out = self.out_of(self.metric)[1];
        let out = if out > 0 { format!(" ({out} still out)") } else { String::new() };
        if from_candidate.is_empty() {
            return format!("{begin} were slow{out}, {end}.");
        }
        let from_baseline = if of_baseline == 0 { String::new() } else { format!(" {from_baseline}") };
        format!("{begin} took {from_candidate}{out}, {end}{from_baseline}.")
    }

    fn kinds(&self) -> String {
        let kinds = self.kinds.iter().filter(|(_, count)| *count > 0);
        let kinds: Vec<_> = kinds.map(|(kind, count)| format!("{kind} {count}")).collect();
        if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) }
    }

    fn overdue(&self) -> String {
        if self.overdue > 0 { format!(" ({} more are overdue)", self.overdue) } else { String::new() }
    }

    /// `Difference +18 .. +100 points (95 %, valid at any time); tolerated 1.5 x blue + 0.2 points.`
    fn difference(&self) -> Option<String> {
        let Self { baseline, interval: Interval { low, high }, .. } = self;
        let Tolerance { rho, delta } = self.tolerance();
        if self.excess.is_none() {
            let is_guarded = matches!(self.why, Some(Why::Guard(GuardOf::Errors) | Why::Fuse));
            let tolerated = figure(self.guard_bound * 100.0);
            return is_guarded.then(|| format!("Tolerated {tolerated} %, by what {baseline} did before."));
        }
        let more = if delta > 0.0 { format!(" + {} points", figure(delta * 100.0)) } else { String::new() };
        Some(format!(
            "Difference {} .. {} points (95 %, valid at any time); tolerated {} x {baseline}{more}.",
            points(*low),
            points(*high),
            figure(rho),
        ))
    }

    /// `Evidence 1.2e5 : 1 (needed 1e4 : 1).`
    fn evidence(&self) -> String {
        let (log_e, whose) = match (self.standing, self.why) {
            (Standing::Breached, Some(Why::Guard(_))) => (self.guard_log_e, " of the guard"),
            _ => (self.log_e, ""),
        };
        if log_e == f64::NEG_INFINITY {
            return "No evidence yet.".to_owned();
        }
        format!("Evidence{whose} {} : 1 (needed {} : 1).", odds(log_e), odds(self.needed.breach))
    }

    /// What a proof is worth to which the other version contributed nothing.
    fn alone(&self) -> Option<String> {
        let is_alone = matches!(self.why, Some(Why::Guard(_)));
        let Self { baseline, .. } = self;
        is_alone.then(|| format!("{baseline} did not serve beside it: an outage of both looks the same."))
    }

    fn users(&self) -> Option<String> {
        self.user_failures.map(|failed| format!("User requests that failed: {failed}."))
    }

    fn trigger(&self) -> Option<String> {
        self.trigger.map(|(why, at)| format!("Triggered by: {} at +{}.", why.name(), span(at)))
    }

    /// `Endpoints: 10.0.0.7:8080 2, 10.0.0.8:8080 2.`: those with failures, as many as are named.
    fn endpoints(&self) -> Option<String> {
        let bad: Vec<_> = self.endpoints.iter().filter(|(_, counts)| counts.bad > 0).collect();
        let named = bad.iter().take(MOST).map(|(address, counts)| format!("{address} {}", counts.bad));
        let more = (bad.len() > MOST).then(|| format!("and {} more", bad.len() - MOST));
        let all: Vec<_> = named.chain(more).collect();
        (!all.is_empty()).then(|| format!("Endpoints: {}.", all.join(", ")))
    }

    fn pool_down(&self) -> String {
        let Self { candidate, baseline, .. } = self;
        format!("No endpoint of {candidate} can be reached, and {baseline} answers.")
    }

    fn leaning(&self) -> String {
        let share = figure(self.weight * 100.0);
        match (self.acts, self.weight < self.target) {
            (true, true) => format!("It gets {share} % instead of {} %.", figure(self.target * 100.0)),
            (true, false) => format!("It keeps {share} %."),
            (false, _) => format!("It keeps {} %: supervision only tells.", figure(self.target * 100.0)),
        }
    }

    fn common(&self) -> Option<String> {
        let Self { baseline, .. } = self;
        self.common_mode.then(|| format!("{baseline} fails too (common mode), which is no reason to revert."))
    }

    fn lacking(&self) -> Option<String> {
        let failures = self.needed_failures.filter(|failures| *failures > 0.0)?;
        let plural = if failures > 1.0 { "failures" } else { "failure" };
        Some(format!("{failures} more {plural} of {} alone would prove it.", self.candidate))
    }
}
