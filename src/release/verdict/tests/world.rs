//! A small world for a stage: requests come, a coin assigns them, versions answer later; a stage sees the counts every 10 ms.

use std::collections::VecDeque;

use super::super::*;

pub(super) const TICK: f64 = 0.01;
pub(super) const TICK_MICROS: u64 = 10_000;
pub(super) const BASELINE: usize = 0;
pub(super) const CANDIDATE: usize = 1;

/// xorshift64*: the same on every machine.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    /// 0 to 1.
    pub(super) fn roll(&mut self) -> f64 {
        self.bits() as f64 / (1u64 << 53) as f64
    }

    /// One of so many.
    pub(super) fn one_of(&mut self, many: u64) -> usize {
        usize::try_from(self.bits() % many).unwrap()
    }

    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.roll() < p
    }
}

/// How a version answers one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) bad: bool,
    /// After so many ticks, at least one.
    pub(super) after: usize,
    /// The endpoint that gave it.
    pub(super) endpoint: usize,
}

/// A good or bad answer after one or two ticks.
pub(super) fn promptly(dice: &mut Dice, failure: f64) -> Answer {
    Answer { bad: dice.chance(failure), after: if dice.chance(0.5) { 1 } else { 2 }, endpoint: 0 }
}

struct Sent {
    version: usize,
    w: f64,
    started: u64,
    answer: Answer,
}

/// A stage, and what it supervises.
pub(super) struct World<F> {
    pub(super) stage: Supervisor,
    pub(super) tick: u64,
    /// Bad answers of the candidate.
    pub(super) failed: u64,
    /// What the candidate's endpoints did.
    pub(super) endpoints: Vec<EndpointCounts>,
    /// How the baseline's answers were before; without any, nothing is ever overdue.
    pub(super) history: LatencyHist,
    rate: u64,
    dice: Dice,
    answer: F,
    out: VecDeque<Vec<Sent>>,
    cohorts: Vec<Cohort>,
    bad_in_a_row: u32,
    /// The tick in which the stage became suspect.
    mark: Option<u64>,
}

impl<F: FnMut(&mut Dice, usize, u64) -> Answer> World<F> {
    /// `rate` requests a tick; `answer` says how a version answers one that comes in a tick.
    pub(super) fn new(seed: u64, rate: u64, stage: Supervisor, answer: F) -> Self {
        let mut history = LatencyHist::default();
        for after in [1, 2] {
            (0..1000).for_each(|_| history.record(after * TICK_MICROS + TICK_MICROS / 2));
        }
        Self {
            stage,
            tick: 0,
            failed: 0,
            endpoints: vec![EndpointCounts::default(); 4],
            history,
            rate,
            dice: Dice::new(seed),
            answer,
            out: VecDeque::new(),
            cohorts: Vec::new(),
            bad_in_a_row: 0,
            mark: None,
        }
    }

    /// Until the stage has reverted, or so many ticks. Then what is still out is answered too.
    pub(super) fn run(&mut self, ticks: u64) -> Standing {
        for _ in 0..ticks {
            self.send();
            if self.step() == Standing::Breached {
                break;
            }
        }
        self.stage.standing()
    }

    /// Failures that users saw, when what is out is answered too.
    pub(super) fn failed_in_all(&self) -> u64 {
        let out = self.out.iter().flatten();
        self.failed + out.filter(|sent| sent.version == CANDIDATE && sent.answer.bad).count() as u64
    }

    fn send(&mut self) {
        let w = self.stage.weight();
        let mut cohort = Cohort::default();
        for _ in 0..self.rate {
            let version = usize::from(self.dice.chance(w));
            let answer = (self.answer)(&mut self.dice, version, self.tick);
            if self.out.len() <= answer.after {
                self.out.resize_with(answer.after + 1, Vec::new);
            }
            cohort.started += u64::from(version == BASELINE);
            self.out[answer.after].push(Sent { version, w, started: self.tick, answer });
        }
        self.cohorts.push(cohort);
    }

    /// What is answered in this tick is counted, and judged.
    pub(super) fn step(&mut self) -> Standing {
        let answered = self.out.pop_front().unwrap_or_default();
        let mut groups: Vec<(u64, Group)> = Vec::new();
        let mut live = 0;
        for Sent { version, w, started, answer: Answer { bad, endpoint, .. } } in answered {
            let bad = u64::from(bad);
            let known = groups.iter().position(|(_, group)| group.w == w);
            let index = known.unwrap_or_else(|| {
                groups.push((started, Group { w, ..Group::default() }));
                groups.len() - 1
            });
            let group = &mut groups[index].1;
            group.decided[version] += 1;
            group.measured[version] += 1;
            group.bad[version] += bad;
            if version == CANDIDATE {
                group.guard_bad += bad;
                group.guard_decided += 1;
                self.failed += bad;
                self.endpoints[endpoint].decided += 1;
                self.endpoints[endpoint].bad += bad;
                self.fuse(bad == 1);
            } else {
                self.cohorts[usize::try_from(started).unwrap()].finished += 1;
                live += u64::from(bad == 0 && self.mark.is_some_and(|mark| started > mark));
            }
        }
        groups.sort_by_key(|(started, _)| *started);
        let groups: Vec<_> = groups.into_iter().map(|(_, group)| group).collect();
        let stalled = self.stalled();
        let standing = self.stage.tick(TICK, &groups, stalled.as_ref(), live);
        self.remark();
        self.tick += 1;
        standing
    }

    fn fuse(&mut self, bad: bool) {
        self.bad_in_a_row = if bad { self.bad_in_a_row + 1 } else { 0 };
        if self.bad_in_a_row >= self.stage.fuse_len() && self.stage.fuse_blown() {
            self.remark();
        }
    }

    fn remark(&mut self) {
        let is_suspect = matches!(self.stage.standing(), Standing::Suspect | Standing::Held);
        self.mark = is_suspect.then(|| self.mark.unwrap_or(self.tick));
    }

    /// What is overdue at the baseline; looked for only when it matters.
    fn stalled(&self) -> Option<Stalled> {
        self.mark.is_some().then(|| {
            let age = |started: usize| (self.tick - started as u64) * TICK_MICROS + TICK_MICROS / 2;
            let cohorts = self.cohorts.iter().enumerate().rev().take(500);
            let cohorts = cohorts.map(|(started, cohort)| Cohort { age: age(started), ..*cohort });
            let missing = missing_answers(&self.history, &cohorts.collect::<Vec<_>>());
            Stalled { w: self.stage.weight(), missing, ..Stalled::default() }
        })
    }
}
