//! A stage in words: what was done, and the figures that it was done by.

use super::report::Report;
use super::standing::{GuardOf, Metric, Standing, Why};
use super::{Interval, Tolerance};

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
        let all = match (self.standing, self.why) {
            (Standing::Breached, Some(Why::PoolDown)) => {
                vec![Some(self.head()), Some(self.pool_down()), self.users(), self.endpoints()]
            }
            (Standing::Breached, _) => vec![
                Some(self.head()),
                Some(self.counted()),
                self.difference(),
                Some(self.evidence()),
                self.users(),
                self.trigger(),
                self.endpoints(),
            ],
            (Standing::Suspect | Standing::Held, _) => vec![
                Some(self.head()),
                Some(self.leaning()),
                self.common(),
                Some(self.counted()),
                self.difference(),
                Some(self.evidence()),
                self.lacking(),
                self.endpoints(),
            ],
            (Standing::Collecting | Standing::Healthy, _) => {
                vec![Some(self.head()), Some(self.counted()), self.difference(), Some(self.evidence())]
            }
        };
        let clients = self.too_few_clients.then(|| "Too few clients to compare versions by.".to_owned());
        all.into_iter().flatten().chain(clients).collect::<Vec<_>>().join(" ")
    }

    fn head(&self) -> String {
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
                format!("reverted {candidate} -> {baseline} after {after}: {why}.")
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
            0 => format!("{baseline} had none"),
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
        let Tolerance { rho, delta } = match self.metric {
            Metric::ErrorRate => self.settings.errors,
            Metric::ClientErrorShare => self.settings.client_errors,
            Metric::LatencyP75 | Metric::LatencyP95 | Metric::LatencyP99 => {
                Tolerance { rho: 1.0, delta: 0.0 }
            }
        };
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

/// A number without needless zeros, to four places.
fn figure(number: f64) -> String {
    let text = format!("{number:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share as points with a sign: `+18`, `-0.3`.
fn points(share: f64) -> String {
    let points = share * 100.0;
    match points.abs() {
        9.95.. => format!("{points:+.0}"),
        0.995.. => format!("{points:+.1}"),
        _ => format!("{points:+.2}"),
    }
}

/// `e^log_e` for people: `0.35`, `12`, `1.2e5`; never too large for a number.
fn odds(log_e: f64) -> String {
    let exponent = (log_e / std::f64::consts::LN_10 + 1e-9).floor();
    if exponent < 3.0 {
        let number = log_e.exp();
        return if number < 9.95 { figure((number * 100.0).round() / 100.0) } else { format!("{number:.0}") };
    }
    let mantissa = (log_e - exponent * std::f64::consts::LN_10).exp();
    // Rounding up to 10 would be one more place.
    let (mantissa, exponent) = if mantissa < 9.95 { (mantissa, exponent) } else { (1.0, exponent + 1.0) };
    let text = format!("{mantissa:.1}");
    format!("{}e{exponent:.0}", text.trim_end_matches(".0"))
}

/// Seconds as a span: `0.13 s`, `42 s`, `2.5 min`, `1.5 h`.
fn span(seconds: f64) -> String {
    match seconds {
        ..9.995 => format!("{seconds:.2} s"),
        ..59.5 => format!("{seconds:.0} s"),
        ..3570.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Seconds that an answer takes: `0.5 ms`, `115 ms`, `1.2 s`.
fn time(seconds: f64) -> String {
    match seconds * 1e3 {
        ..9.95 => format!("{:.1} ms", seconds * 1e3),
        ..999.5 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odds_are_told_at_any_size() {
        let told = [0.0001, 0.354, 1.0, 9.94, 9.96, 100.0, 999.4, 1e3, 9.96e3, 1e4, 1.24e5]
            .map(|e: f64| odds(e.ln()));
        assert_eq!(told, ["0", "0.35", "1", "9.94", "10", "100", "999", "1e3", "1e4", "1e4", "1.2e5"]);
        assert_eq!(odds(5000.0 * std::f64::consts::LN_10), "1e5000");
    }

    #[test]
    fn differences_spans_and_times_have_the_digits_that_matter() {
        assert_eq!([1.0, 0.0996, 0.0994, -0.003, -1.0].map(points), ["+100", "+10", "+9.9", "-0.30", "-100"]);
        let spans = [0.126, 9.99, 10.0, 59.4, 59.6, 150.0, 3569.0, 5400.0].map(span);
        assert_eq!(spans, ["0.13 s", "9.99 s", "10 s", "59 s", "1.0 min", "2.5 min", "59.5 min", "1.5 h"]);
        let times = [0.0005, 0.00994, 0.1147, 0.9994, 0.9996, 1.25].map(time);
        assert_eq!(times, ["0.5 ms", "9.9 ms", "115 ms", "999 ms", "1.0 s", "1.2 s"]);
        assert_eq!([1.5, 2.0, 0.25, 100.0, 0.0].map(figure), ["1.5", "2", "0.25", "100", "0"]);
    }
}
