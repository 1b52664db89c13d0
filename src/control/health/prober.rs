//! Who looks, and when: one task for all endpoints, which keeps what is due in order and has a bounded number of looks under
//! way. It shares control's thread, where each look takes a few microseconds at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;
use tokio::task::{spawn_local, yield_now};

use super::judge::Judge;
use super::probe::Found;
use super::subject::Subject;
use super::{Fresh, Health, clock};
use crate::proxy::live::Live;
use crate::proxy::upstream::Dial;

/// Looks under way at a time, or fewer where descriptors are few; beyond it endpoints are looked at later.
const AT_ONCE: usize = 1024;
/// Looks that begin before control has a turn again.
const AT_A_TIME: usize = 16;
/// Endpoints that come together are looked at so far from one another at first.
const SPREAD: Duration = Duration::from_micros(200);
/// From so many endpoints on, looks begin together every [`GRAIN`]: the thread wakes for several at a time, which is half of
/// what a look costs.
const MANY: usize = 64;
const GRAIN: Duration = Duration::from_millis(16);

/// Looks after endpoints for as long as it runs.
#[derive(Debug)]
pub struct Prober {
    judge: Judge,
    looking: Looking,
}

/// Looks at endpoints.
#[derive(Debug)]
struct Looking {
    health: Arc<Health>,
    fresh: mpsc::UnboundedReceiver<Arc<Subject>>,
    due: BinaryHeap<Due>,
    /// From when the grains are counted.
    since: Instant,
    /// When the last of those that came is looked at first.
    last_first: Option<Instant>,
    dice: SmallRng,
}

/// An endpoint that is to be looked at; the earliest is the greatest.
#[derive(Debug)]
struct Due {
    at: Reverse<Instant>,
    subject: Arc<Subject>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// What one look came to.
struct Looked {
    subject: Arc<Subject>,
    /// When it was to begin, and when it did.
    due: Instant,
    begun: Instant,
    found: Found,
}

impl Prober {
    pub(in crate::control) fn new(
        health: &Arc<Health>,
        Fresh(fresh, tasks): Fresh,
        live: &Arc<Live>,
    ) -> Self {
        let judge = Judge::new(Arc::clone(health), Arc::clone(live), tasks);
        let (health, due) = (Arc::clone(health), BinaryHeap::new());
        Self {
            judge,
            looking: Looking {
                health,
                fresh,
                due,
                since: clock::instant(),
                last_first: None,
                dice: rand::make_rng(),
            },
        }
    }

    /// Looks at every endpoint that has to be checked, and judges those whose requests fail, each until another process does;
    /// to be run where tasks can be spawned that stay on the thread. Ends only when something is wrong.
    pub async fn run(self) {
        let Self { judge, looking } = self;
        let health = Arc::clone(&looking.health);
        let mut judging = spawn_local(health.judging.clone().run_until_cancelled_owned(judge.run()));
        let looked = async {
            health.looking.run_until_cancelled(looking.run()).await;
            health.close_checks();
        };
        tokio::select! {
            () = looked => {}
            _ = &mut judging => return,
        }
        // Whoever has ended looking is about to end judging too.
        if judging.await.is_ok() {
            std::future::pending().await
        }
    }
}

impl Looking {
    async fn run(mut self) {
        let mut looks = FuturesUnordered::new();
        let at_once = AT_ONCE.min(Dial::most_at_a_time());
        loop {
            let next = self.next().filter(|_| looks.len() < at_once);
            tokio::select! {
                Some(subject) = self.fresh.recv() => self.on_fresh(subject),
                Some(looked) = looks.next(), if !looks.is_empty() => self.on_looked(looked),
                () = clock::until(next), if next.is_some() => {
                    let now = clock::instant();
                    let most = (looks.len() + AT_A_TIME).min(at_once);
                    while looks.len() < most && let Some((due, subject)) = self.take(now) {
                        looks.push(look(subject, due, now));
                    }
                    // Control's turn, however many are due.
                    yield_now().await;
                }
            }
        }
    }

    fn on_fresh(&mut self, subject: Arc<Subject>) {
        let now = clock::instant();
        let after_last = self.last_first.map_or(now, |last| last + SPREAD);
        let first = after_last.max(now);
        self.last_first = Some(first);
        self.due.push(Due { at: Reverse(first), subject });
    }

    /// When the next looks begin.
    fn next(&self) -> Option<Instant> {
        let first = self.due.peek()?.at.0;
        let is_alone = self.due.len() < MANY;
        Some(if is_alone { first } else { end_of_grain(self.since, first) })
    }

    /// The first endpoint that is due.
    fn take(&mut self, now: Instant) -> Option<(Instant, Arc<Subject>)> {
        while let Some(first) = self.due.peek_mut().filter(|first| first.at.0 <= now) {
            let Due { at, subject } = PeekMut::pop(first);
            if !subject.is_over() {
                return Some((at.0, subject));
            }
        }
        None
    }

    fn on_looked(&mut self, looked: Looked) {
        let Looked { subject, due, begun, found } = looked;
        let now = clock::instant();
        self.health.on_found(&subject, &found, now.saturating_duration_since(begun));
        if let Some(rules) = subject.check.as_ref().map(|check| &check.rules).filter(|_| !subject.is_over()) {
            let interval =
                jittered(rules.interval, f64::from(rules.jitter.points()) / 10_000.0, self.dice.random());
            // One that was late is not made up for.
            let at = (due + interval).max(now);
            self.due.push(Due { at: Reverse(at), subject });
        }
    }
}

/// The first end of a [`GRAIN`] since `since` that is not before `at`.
fn end_of_grain(since: Instant, at: Instant) -> Instant {
    let grains = at.saturating_duration_since(since).as_nanos().div_ceil(GRAIN.as_nanos());
    u32::try_from(grains).map_or(at, |grains| since + GRAIN * grains)
}

/// Only of those that are checked.
async fn look(subject: Arc<Subject>, due: Instant, begun: Instant) -> Looked {
    let found = match &subject.check {
        Some(check) => check.look().await,
        None => std::future::pending().await,
    };
    Looked { subject, due, begun, found }
}

/// `interval`, longer or shorter by at most `jitter` of it; `dice` from 0 to 1 says by how much.
fn jittered(interval: Duration, jitter: f64, dice: f64) -> Duration {
    interval.mul_f64(1.0 + jitter * (2.0 * dice - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grain_ends_at_the_next_whole_one_and_never_before() {
        let since = clock::instant();
        let end = |millis| end_of_grain(since, since + Duration::from_millis(millis)) - since;
        assert_eq!([0, 1, 16, 17, 1_000].map(|millis| end(millis).as_millis()), [0, 16, 16, 32, 1_008]);
        assert_eq!(end_of_grain(since + GRAIN, since), since + GRAIN, "what was due before is due at once");
    }

    #[test]
    fn jitter_goes_both_ways_and_no_further() {
        let millis = |jitter, dice| jittered(Duration::from_secs(1), jitter, dice).as_millis();
        assert_eq!([millis(0.1, 0.0), millis(0.1, 0.5), millis(0.1, 1.0)], [900, 1_000, 1_100]);
        assert_eq!([millis(0.0, 0.7), millis(1.0, 0.0)], [1_000, 0]);
    }
}
