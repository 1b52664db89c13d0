//! What is known of answers that have not ended: who is slow already, and what is presumed against a conviction.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::case::age;
use super::convert::ratio;
use super::inquiry::Inquiry;
use crate::proxy::ledger::{
    Counted, GENERATIONS, LATELY, Ledger, QUANTILES, SLOWLY, Side, Slow, Sums, patience,
};
use crate::release::verdict::{
    Cohort, LatencyTolerance, Stalled, bucket_low, latency_thresholds, missing_answers,
};
use crate::table::BasisPoints;

/// What is begun in so many microseconds may be begun together: by all who had waited in a hold, and then again by all of them
/// whose answers take equally long.
pub(super) const MOMENT: u64 = 100_000;

impl Inquiry {
    /// What is slow, by what the baseline did before.
    pub(super) fn learn(&self, ledger: &Ledger, sums: &Sums) {
        if let Some(slow) = self.slow_from(sums) {
            ledger.set_slow(slow);
        }
    }

    fn slow_from(&self, sums: &Sums) -> Option<Slow> {
        let share = f64::from(self.rules.latency.part) / 1e3;
        let least = u64::try_from(self.rules.latency.least.as_micros()).unwrap_or(u64::MAX);
        let history = self.times.known(&sums.took[Side::Baseline as usize]);
        let thresholds = latency_thresholds(&history, LatencyTolerance { share, least })?;
        let narrow = |bucket: usize| u16::try_from(bucket).unwrap_or(u16::MAX);
        Some([thresholds.map(|of| narrow(of.baseline)), thresholds.map(|of| narrow(of.candidate))])
    }

    /// What is in flight and known to be late.
    pub(super) fn stalled(&self, ledger: &Ledger, sums: &Sums, now: Instant) -> Stalled {
        let clock = micros(age(ledger.begun(), now));
        let lately = Overdue { clock, spread: 0, epochs: &sums.flights[Side::Baseline as usize] };
        // Of these it is known that they are out for as long as that at least.
        let older = Cohort { started: sums.older[Side::Baseline as usize], finished: 0, age: LATELY };
        let cohorts: Vec<_> = lately.cohorts().chain([older]).collect();
        let known = self.times.known(&sums.took[Side::Baseline as usize]);
        let missing = missing_answers(&known, &cohorts);
        let (slow, suspicious) = self.slow(ledger, sums, now);
        let breaking = breaking(&self.shares, sums);
        Stalled { w: ratio(self.share), missing, breaking, slow, suspicious }
    }

    /// How many are out that are slow already, by side and quantile; and as how many those of the candidate raise suspicion.
    ///
    /// At an endpoint of the candidate that is not warm only those are that are out for longer than that excuses; the baseline's
    /// are however long they are out.
    fn slow(&self, ledger: &Ledger, sums: &Sums, now: Instant) -> ([[u64; QUANTILES]; 2], [f64; QUANTILES]) {
        let clock = micros(age(ledger.begun(), now));
        let of = |epochs, spread| Overdue { clock, spread, epochs };
        let [[blue, green], [long_blue, cold]] = [(&sums.flights, 0), (&sums.slowly, SLOWLY)]
            .map(|(all, spread)| all.each_ref().map(|of_side| of(of_side, spread)));
        let [beyond, cold_beyond] =
            [(0, 0), (1, SLOWLY)].map(|(index, spread)| of(&sums.beyond[index], spread));
        // What was begun before had another coin, or none: under this one it would be proof of nothing.
        let weighed = micros(age(self.weighed, now));
        let patience = patience(&self.rules);
        // Where all have it there is no coin, and none to be wrong about.
        let has_all = self.share == BasisPoints::ALL;
        let silence = patience.max(Duration::from_secs(1));
        let is_silent = has_all && age(self.heard, now) >= silence;
        // When nothing comes of it any more, what is out for so long hangs, whenever it was begun.
        let hanging = |from: u64| {
            if is_silent { cold.surely_less(&cold_beyond, from.max(micros(silence)), u64::MAX) } else { 0 }
        };
        let from = |bucket: u16| bucket_low(usize::from(bucket));
        let Some(([of_blue, of_green], known)) = ledger.slow().zip(ledger.slow_since()) else {
            // It makes a suspicion at most, and what is out for so long is none of the first moment's slowness.
            let known = self.slow_from(sums).filter(|_| hanging(0) > 0);
            let slow = known.map_or([0; QUANTILES], |[_, of_green]| of_green.map(|slow| hanging(from(slow))));
            return ([[0; QUANTILES], slow], slow.map(|slow| slow as f64));
        };
        let of_blue = of_blue
            .map(|slow| blue.surely(from(slow), weighed) + long_blue.maybe(from(slow).max(LATELY), weighed));
        // Of what was begun before that was known, the quick ones have not counted.
        let compared = weighed.min(clock.saturating_sub(known));
        let since = if has_all { compared } else { weighed };
        let late = |slow| from(slow).max(micros(patience));
        let slow = of_green.map(|slow| {
            let slow_ones = green.surely(from(slow), compared) + cold.surely(late(slow), since);
            slow_ones.max(hanging(from(slow)))
        });
        let suspicious = of_green.map(|slow| {
            let slow_ones = green.suspicious(&beyond, from(slow), compared)
                + cold.suspicious(&cold_beyond, late(slow), since);
            slow_ones.max(hanging(from(slow)) as f64)
        });
        ([of_blue, slow], suspicious)
    }
}

/// What is in flight, in groups of which it is known when they were begun: so far from their middle at most.
struct Overdue<'s> {
    clock: u64,
    spread: u64,
    epochs: &'s [(u64, u64, u64)],
}

impl Overdue<'_> {
    fn cohorts(&self) -> impl Iterator<Item = Cohort> {
        self.epochs.iter().map(|(begun, started, finished)| Cohort {
            started: *started,
            finished: *finished,
            age: self.clock.saturating_sub(*begun),
        })
    }

    fn count(&self, is_meant: impl Fn(u64) -> bool) -> u64 {
        let meant = self.cohorts().filter(|cohort| is_meant(cohort.age));
        meant.map(|cohort| cohort.started.saturating_sub(cohort.finished)).sum()
    }

    /// The same as [`Self::surely`], where those begun in the same moment count as one: as the part of it that they are.
    fn moments(&self, from: u64, to: u64) -> f64 {
        let mut moments = BTreeMap::<u64, (u64, u64)>::new();
        for cohort in self.cohorts().filter(|cohort| self.is_surely(cohort.age, from, to)) {
            let (started, finished) = moments.entry(cohort.age / MOMENT).or_default();
            (*started, *finished) = (*started + cohort.started, *finished + cohort.finished);
        }
        let part =
            |(started, finished): (u64, u64)| started.saturating_sub(finished) as f64 / started.max(1) as f64;
        moments.into_values().map(part).sum()
    }

    /// As how many they raise suspicion: no more than there are without these, which are more than their clients count for.
    fn suspicious(&self, beyond: &Self, from: u64, to: u64) -> f64 {
        self.moments(from, to).min(self.surely_less(beyond, from, to) as f64)
    }

    fn is_surely(&self, age: u64, from: u64, to: u64) -> bool {
        age >= from + self.spread && age.saturating_add(self.spread) <= to
    }

    /// How many are out for no less than `from` and no more than `to`.
    fn surely(&self, from: u64, to: u64) -> u64 {
        self.count(|age| self.is_surely(age, from, to))
    }

    /// The same without these, which are among them.
    fn surely_less(&self, these: &Self, from: u64, to: u64) -> u64 {
        self.surely(from, to).saturating_sub(these.surely(from, to))
    }

    /// How many may be.
    fn maybe(&self, from: u64, to: u64) -> u64 {
        self.count(|age| age + self.spread >= from && age <= to.saturating_add(self.spread))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// How many of the baseline's answers that are still coming are presumed to break off: as many as have to for the candidate's to
/// be no evidence, if so many are still coming.
///
/// What both versions need may break off the answers of one at once, and leave those of the other hanging for a while. Failures
/// of the candidate that came that way count against it when the baseline's share of them has had the time to come.
fn breaking(shares: &[Option<f64>; GENERATIONS], sums: &Sums) -> u64 {
    let due = |(w, [baseline, candidate]): (f64, &[Counted; 2])| {
        let share = (1.0 - w) / w * candidate.broken as f64;
        if 0.0 < w && w < 1.0 { (share - baseline.broken as f64).max(0.0) } else { 0.0 }
    };
    let due: f64 = shares.iter().zip(&sums.groups).filter_map(|(w, sides)| Some(due(((*w)?, sides)))).sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not below 0, and it saturates"
    )]
    let due = due.ceil() as u64;
    due.min(sums.open[Side::Baseline as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_out_since_the_same_moment_counts_as_one() {
        let epochs = |all: &[(u64, u64, u64)]| {
            let of = Overdue { clock: 1_050_000, spread: 0, epochs: all };
            (of.surely(200_000, 1_000_000), of.moments(200_000, 1_000_000))
        };
        assert_eq!(epochs(&[(512_500, 40, 0)]), (40, 1.0));
        // On another worker, and a little later; the same of those who were quick.
        assert_eq!(epochs(&[(512_500, 40, 0), (512_500, 20, 0), (537_500, 60, 60)]), (60, 0.5));
        assert_eq!(epochs(&[(512_500, 1, 0), (712_500, 4, 3)]), (2, 1.25));
        assert_eq!(
            epochs(&[(912_500, 40, 0), (12_500, 40, 0)]),
            (0, 0.0),
            "not slow yet, and before all that"
        );
    }

    #[test]
    fn what_one_client_has_out_is_as_suspicious_as_what_counts_of_it_and_no_moment_more_than_one() {
        let suspicious = |beyond: &[(u64, u64, u64)]| {
            let epochs: &[_] = &[(312_500, 30, 0), (512_500, 30, 0), (712_500, 30, 0)];
            let [out, beyond] =
                [epochs, beyond].map(|epochs| Overdue { clock: 1_050_000, spread: 0, epochs });
            out.suspicious(&beyond, 200_000, 1_000_000)
        };
        assert_eq!(suspicious(&[]), 3.0);
        assert_eq!(suspicious(&[(312_500, 28, 0), (512_500, 30, 0), (712_500, 30, 0)]), 2.0);
        assert_eq!(suspicious(&[(312_500, 28, 28), (512_500, 10, 0)]), 3.0, "others are out as well");
    }

    #[test]
    fn answers_of_the_baseline_are_presumed_to_break_off_as_the_candidates_do_while_they_may() {
        let sums = |open, [blue, green]: [u64; 2]| {
            let mut sums = Sums { open: [open, 7], ..Sums::default() };
            sums.groups[1] = [blue, green].map(|broken| Counted { broken, ..Counted::default() });
            sums
        };
        let at = |w, sums: &Sums| {
            let mut shares = [None; GENERATIONS];
            shares[1] = w;
            breaking(&shares, sums)
        };
        assert_eq!(at(Some(0.1), &sums(1_000, [0, 0])), 0);
        assert_eq!(at(Some(0.1), &sums(1_000, [0, 3])), 27);
        assert_eq!(at(Some(0.1), &sums(1_000, [20, 3])), 7, "so many have");
        assert_eq!(at(Some(0.1), &sums(1_000, [40, 3])), 0);
        assert_eq!(at(Some(0.1), &sums(5, [0, 3])), 5, "there are no more");
        for none in [Some(0.0), Some(1.0), None] {
            assert_eq!(at(none, &sums(1_000, [0, 3])), 0, "no coin was thrown");
        }
    }
}
