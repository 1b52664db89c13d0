//! Where the coin is a client's, and not a request's.

use crate::release::verdict::{
    Again, ENOUGH_CLIENTS, Group, Settings, Stalled, Standing, Supervisor, Why, guard_rate,
};

use super::world::Dice;

const SHARE: f64 = 0.05;

fn stage(weight: f64) -> Supervisor {
    let settings = Settings { by_client: true, ..Settings::default() };
    let mut stage = Supervisor::new(weight, guard_rate(100_000, 100, settings.errors), settings);
    stage.has_clients(1_000);
    stage
}

fn group(w: f64, decided: [u64; 2], bad: [u64; 2], again: [u64; 2]) -> Group {
    let (guard_bad, guard_decided) = (bad[1] - again[1], decided[1] - again[1]);
    let again = Again { bad: again, ..Again::default() };
    Group { w, decided, bad, guard_bad, guard_decided, measured: decided, again, ..Group::default() }
}

/// Its standing after so many looks at the same.
fn after(stage: &mut Supervisor, times: usize, group: Group, stalled: Option<Stalled>) -> Standing {
    let mut standing = stage.standing();
    for _ in 0..times {
        standing = stage.tick(0.01, &[group], stalled.as_ref(), group.decided[0]);
    }
    standing
}

#[test]
fn one_client_that_hammers_proves_nothing_and_hides_nothing() {
    let mut stage = stage(SHARE);
    after(&mut stage, 1, group(SHARE, [95, 105], [0, 100], [0, 99]), None);
    let standing = after(&mut stage, 1_000, group(SHARE, [95, 105], [0, 100], [0, 100]), None);
    assert!(matches!(standing, Standing::Collecting | Standing::Suspect), "{standing:?}");
    assert!(stage.log_e() < 4.0, "{}", stage.log_e());
    // And others that fail are still found, though it goes on.
    let standing = after(&mut stage, 40, group(SHARE, [95, 105], [0, 101], [0, 100]), None);
    assert_eq!(standing, Standing::Breached);
}

#[test]
fn what_one_client_hammers_at_is_not_proven_to_be_well() {
    let mut stage = stage(SHARE);
    assert_ne!(after(&mut stage, 2_000, group(SHARE, [95, 25], [0, 20], [0, 20]), None), Standing::Healthy);
    // Nor is anything by what hammers at the baseline.
    let quiet = |bad, again| group(SHARE, [95, 5], [bad, 0], [again, 0]);
    let [mut hammered, mut unmolested] = [self::stage(SHARE), self::stage(SHARE)];
    after(&mut hammered, 100, quiet(90, 90), None);
    after(&mut unmolested, 100, quiet(0, 0), None);
    assert!(hammered.clean_log_e() <= unmolested.clean_log_e());
}

#[test]
fn of_few_clients_nothing_follows_before_there_are_more() {
    let bad = group(SHARE, [95, 5], [0, 5], [0, 0]);
    let mut stage = stage(SHARE);
    stage.has_clients(ENOUGH_CLIENTS - 1);
    assert_eq!(after(&mut stage, 100, bad, None), Standing::Suspect);
    assert!(matches!(stage.why(), Some(Why::Guard(_))), "{:?}", stage.why());
    assert!(stage.has_few_clients() && stage.log_e() > stage.needed_log_e());
    assert_eq!(stage.needed_failures(), None);
    stage.has_clients(ENOUGH_CLIENTS);
    assert_eq!(after(&mut stage, 1, bad, None), Standing::Breached);
}

#[test]
fn few_clients_do_not_make_it_healthy() {
    let good = group(SHARE, [950, 50], [0, 0], [0, 0]);
    let mut stage = stage(SHARE);
    stage.has_clients(20);
    assert_eq!(after(&mut stage, 500, good, None), Standing::Collecting);
    stage.has_clients(ENOUGH_CLIENTS);
    assert_eq!(after(&mut stage, 1, good, None), Standing::Healthy);
}

#[test]
fn what_is_out_may_all_be_one_clients_and_raises_suspicion_at_most() {
    let slow = [[0; 3], [400; 3]];
    let stalled =
        Stalled { w: SHARE, slow, suspicious: slow[1].map(|slow| slow as f64), ..Stalled::default() };
    let mut stage = stage(SHARE);
    assert_eq!(
        after(&mut stage, 1_000, group(SHARE, [95, 5], [0, 0], [0, 0]), Some(stalled)),
        Standing::Suspect
    );
    assert!(stage.log_e() < 1.0, "{}", stage.log_e());
}

/// Fewer failures of the comparison do not make the budget of bad answers smaller.
#[test]
fn a_budget_of_bad_answers_is_not_one_clients_to_spend() {
    let settings = Settings { by_client: true, bad_budget: 50, ..Settings::default() };
    let mut stage = Supervisor::new(SHARE, 0.004, settings);
    stage.has_clients(1_000);
    after(&mut stage, 100, group(SHARE, [95, 105], [0, 100], [0, 100]), None);
    assert!(stage.needed_log_e() > 9.0, "{}", stage.needed_log_e());
}

/// Users of whom a few are very busy, and each hundredth fails half of the time, whichever version he has.
struct Crowd {
    dice: Dice,
    /// Below which share of the candidate each is the candidate's.
    lots: Vec<f64>,
    /// Up to which part of all requests they are his or those before him.
    busy: Vec<f64>,
    failing: Vec<bool>,
    /// When each has met a failure last, in seconds.
    failed: Vec<Option<f64>>,
    now: f64,
}

impl Crowd {
    fn of(users: usize, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut sum = 0.0;
        let upto = (1..=users).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        let upto: Vec<f64> = upto.collect();
        let busy = upto.into_iter().map(|upto| upto / sum).collect();
        let lots = (0..users).map(|_| dice.roll()).collect();
        let failing = (0..users).map(|_| dice.chance(0.01)).collect();
        Self { dice, lots, busy, failing, failed: vec![None; users], now: 0.0 }
    }

    /// A tenth of a second of 200 requests a second.
    fn ask(&mut self, w: f64, quiet: f64, is_candidate_bad: bool) -> Group {
        let mut group = Group { w, ..Group::default() };
        self.now += 0.1;
        for _ in 0..20 {
            let drawn = self.dice.roll();
            let user = self.busy.partition_point(|upto| *upto < drawn).min(self.lots.len() - 1);
            let version = usize::from(self.lots[user] < w);
            let is_bad = (is_candidate_bad && version == 1) || (self.failing[user] && self.dice.chance(0.5));
            group.decided[version] += 1;
            if is_bad {
                group.bad[version] += 1;
                let before = self.failed[user].replace(self.now);
                group.again.bad[version] +=
                    u64::from(before.is_some_and(|before| self.now - before <= quiet));
            }
        }
        (group.guard_decided, group.measured) = (group.decided[1], group.decided);
        group.guard_bad = group.bad[1];
        group
    }
}

/// Whether a candidate that is as good as the baseline is reverted in 20,000 requests of these users; and after how many more once
/// it fails always, at most 10,000.
fn reverts(users: usize, w: f64, quiet: f64, seed: u64) -> (bool, Option<usize>) {
    let (mut crowd, mut stage) = (Crowd::of(users, seed), stage(w));
    let mut look = |is_bad| {
        let group = crowd.ask(stage.weight(), quiet, is_bad);
        stage.tick(0.1, &[group], None, group.decided[0] - group.bad[0]) == Standing::Breached
    };
    if (0..1_000).any(|_| look(false)) {
        return (true, None);
    }
    (false, (1..500).find(|_| look(true)).map(|looks| looks * 20))
}

/// The specification's table 8.7, smaller.
#[test]
fn users_who_fail_revert_nothing_and_a_version_that_fails_is_found() {
    for seed in 1..=8 {
        for w in [0.05, 0.5] {
            let (is_reverted, found) = reverts(1_000, w, 60.0, seed);
            assert!(!is_reverted, "seed {seed}, {w}");
            assert!(found.is_some(), "seed {seed}, {w}");
        }
    }
}

/// Why each counts but once.
#[test]
fn users_who_count_as_often_as_they_fail_revert_what_is_good() {
    let seed = (1..=40).find(|seed| reverts(200, 0.1, -1.0, *seed).0).unwrap();
    assert!(!reverts(200, 0.1, 60.0, seed).0, "and the same ones do not");
}
