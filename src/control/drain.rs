//! Drains: the tenures that get no new requests, watched until nothing is left on them (G3).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::proxy::upstream::Upstream;
use crate::proxy::upstream::leaving::{Departure, Plan};
use crate::table::{DrainRules, ServiceName, VersionName};

// A worker that has nothing left of a version tells so at once, which is when most drains end; what is told nobody else
// is found by looking.

/// How often a young drain is looked at: most end with the requests of this moment.
const SOONEST: Duration = Duration::from_millis(5);
/// How often an old one is.
const LATEST: Duration = Duration::from_millis(50);
/// In between, an answer is late by at most this part of the drain's age.
const PART: u32 = 20;
/// How many ends are handled before other work has its turn.
const A_TURN: usize = 64;
/// How long workers may take to see that a version without work was left; else its idle connections age.
const REMEMBERED: Duration = Duration::from_secs(5);
const MOST_REMEMBERED: usize = 65_536;

/// The open drains. Counts are read by the thread that published, after it published: none is too low.
#[derive(Debug, Default)]
pub(super) struct Drains {
    open: Vec<Drain>,
    /// When to look again.
    next: Option<Instant>,
    /// Rung by a worker that has nothing left of one of them.
    bell: Arc<Notify>,
    /// Those that have just ended: a worker may not have seen yet that they were left, and still keep idle connections.
    past: VecDeque<(Instant, Departure)>,
}

#[derive(Debug)]
struct Drain {
    upstream: Arc<Upstream>,
    plan: Plan,
}

/// A drain that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) upstream: Arc<Upstream>,
    pub(super) seconds: f64,
}

impl Ended {
    /// True for a tenure of this version.
    pub(super) fn is_of(&self, service: &ServiceName, version: &VersionName) -> bool {
        self.upstream.service == *service && self.upstream.version == *version
    }
}

impl Drains {
    /// Starts the drain of a tenure that gets no new requests since `now`; one that is open goes on.
    pub(super) fn open(&mut self, upstream: Arc<Upstream>, rules: DrainRules, now: Instant) {
        if !self.open.iter().any(|drain| drain.upstream.id == upstream.id) {
            // Before it is looked at for the first time.
            upstream.watch(&self.bell);
            self.open.push(Drain { upstream, plan: Plan::of(now, rules) });
            self.next = Some(now);
        }
    }

    /// A tenure without work is left, whose drain is not worth a word: the workers are to see it.
    pub(super) fn remember(&mut self, upstream: Arc<Upstream>, rules: DrainRules, now: Instant) {
        if !self.open.iter().any(|drain| drain.upstream.id == upstream.id) {
            self.past.push_back((now, Departure { upstream, plan: Plan::of(now, rules) }));
        }
    }

    /// The tenures with these ids carry traffic again. True when one of them was left, or had been until a moment ago:
    /// the workers are to hear of it.
    pub(super) fn cancel(&mut self, ids: &HashSet<u64>) -> bool {
        if ids.is_empty() {
            return false;
        }
        let before = self.open.len() + self.past.len();
        let back = self.open.extract_if(.., |drain| ids.contains(&drain.upstream.id));
        back.for_each(|drain| drain.upstream.unwatch());
        self.past.retain(|(_, departure)| !ids.contains(&departure.upstream.id));
        self.schedule_if_empty();
        self.open.len() + self.past.len() < before
    }

    /// Everything that is left, or was until a moment ago, for the workers: each tenure once, as it was left last.
    pub(super) fn departures(&mut self, now: Instant) -> Vec<Departure> {
        let is_old = |since: Instant| now.saturating_duration_since(since) > REMEMBERED;
        while self.past.len() > MOST_REMEMBERED || self.past.front().is_some_and(|(since, _)| is_old(*since))
        {
            self.past.pop_front();
        }
        let open = self.open.iter();
        let open = open.map(|drain| Departure { upstream: Arc::clone(&drain.upstream), plan: drain.plan });
        let past = self.past.iter().rev().map(|(_, departure)| departure.clone());
        let mut seen = HashSet::new();
        open.chain(past).filter(|departure| seen.insert(departure.upstream.id)).collect()
    }

    /// Rung when it is worth looking before [`Drains::next_poll`].
    pub(super) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// The drains that have ended, at most a turn's worth; sets when to look again.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Ended> {
        let mut left = A_TURN;
        let empty = |drain: &mut Drain| {
            let ends = left > 0 && drain.upstream.in_flight() == 0;
            left -= usize::from(ends);
            ends
        };
        let ended = self.open.extract_if(.., empty);
        let seconds = |drain: &Drain| now.saturating_duration_since(drain.plan.since).as_secs_f64();
        let mut end = |drain: Drain| {
            let (seconds, upstream) = (seconds(&drain), Arc::clone(&drain.upstream));
            upstream.unwatch();
            self.past.push_back((now, Departure { upstream: drain.upstream, plan: drain.plan }));
            Ended { upstream, seconds }
        };
        let ended: Vec<_> = ended.map(&mut end).collect();
        let youngest = self.open.iter().map(|drain| now.saturating_duration_since(drain.plan.since)).min();
        let pause = youngest.map(|age| (age / PART).clamp(SOONEST, LATEST));
        self.next = if left == 0 { Some(now) } else { pause.map(|pause| now + pause) };
        self.schedule_if_empty();
        ended
    }

    /// When to look again; `None` while nothing is open.
    pub(super) fn next_poll(&self) -> Option<Instant> {
        self.next
    }

    /// True while any tenure of this version is open.
    pub(super) fn is_open(&self, service: &ServiceName, version: &VersionName) -> bool {
        self.open.iter().any(|drain| drain.upstream.service == *service && drain.upstream.version == *version)
    }

    /// The versions that are draining.
    pub(super) fn names(&self) -> Arc<[(ServiceName, VersionName)]> {
        let name = |drain: &Drain| (drain.upstream.service.clone(), drain.upstream.version.clone());
        self.open.iter().map(name).collect()
    }

    /// Whose drains they are, and since when.
    pub(super) fn since(&self) -> impl Iterator<Item = (&Upstream, Instant)> {
        self.open.iter().map(|drain| (&*drain.upstream, drain.plan.since))
    }

    fn schedule_if_empty(&mut self) {
        if self.open.is_empty() {
            self.next = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::control::clock;
    use crate::proxy::admission::{Class, Published};

    fn busy(version: &str) -> Arc<Upstream> {
        let upstream = Upstream::open("shop".parse().unwrap(), version.parse().unwrap(), 2);
        upstream.shard(1).counts.admit(&Published::new(1), 1).unwrap();
        Arc::new(upstream)
    }

    #[test]
    fn a_drain_ends_with_the_last_request_and_not_before() {
        let (mut drains, blue, start) = (Drains::default(), busy("blue"), clock::instant());
        assert_eq!(drains.next_poll(), None);
        drains.open(Arc::clone(&blue), DrainRules::default(), start);
        assert_eq!(drains.next_poll(), Some(start));
        assert!(drains.poll(start).is_empty());
        blue.shard(1).counts.end();
        let ended = drains.poll(start + Duration::from_secs(2));
        assert_eq!((ended.len(), ended[0].seconds), (1, 2.0));
        assert_eq!(drains.next_poll(), None);
    }

    #[test]
    fn the_older_a_drain_the_rarer_a_look() {
        let (mut drains, start) = (Drains::default(), clock::instant());
        drains.open(busy("blue"), DrainRules::default(), start);
        for (age, pause) in [(0, 5), (200, 10), (900, 45), (60_000, 50)]
            .map(|(age, pause)| (Duration::from_millis(age), Duration::from_millis(pause)))
        {
            drains.poll(start + age);
            assert_eq!(drains.next_poll(), Some(start + age + pause));
        }
    }

    #[test]
    fn many_ends_are_handled_in_turns() {
        let (mut drains, start) = (Drains::default(), clock::instant());
        for _ in 0..A_TURN + 1 {
            let blue = busy("blue");
            blue.shard(1).counts.end();
            drains.open(blue, DrainRules::default(), start);
        }
        assert_eq!(drains.poll(start).len(), A_TURN);
        assert_eq!(drains.next_poll(), Some(start), "at once");
        assert_eq!(drains.poll(start).len(), 1);
        assert_eq!(drains.next_poll(), None);
    }

    #[test]
    fn the_workers_list_has_each_tenure_once_as_it_was_left_last_and_none_that_is_back() {
        let (mut drains, blue, start) = (Drains::default(), busy("blue"), clock::instant());
        let later = start + Duration::from_secs(1);
        let left = |drains: &mut Drains| {
            let left = drains.departures(later).into_iter();
            left.map(|departure| (departure.upstream.id, departure.plan.since)).collect::<Vec<_>>()
        };
        drains.remember(Arc::clone(&blue), DrainRules::default(), start);
        drains.open(Arc::clone(&blue), DrainRules::default(), later);
        assert_eq!(left(&mut drains), [(blue.id, later)], "an end is remembered, and it has work again");
        blue.shard(1).counts.end();
        assert_eq!(drains.poll(later).len(), 1);
        assert_eq!(left(&mut drains), [(blue.id, later)], "two ends are remembered");
        assert!(!drains.cancel(&HashSet::from([blue.id + 1])));
        assert!(drains.cancel(&HashSet::from([blue.id])), "also after its end");
        assert_eq!(left(&mut drains), []);
        assert!(!drains.cancel(&HashSet::from([blue.id])));
    }

    /// What happens to one version, in some order.
    #[derive(Debug, Clone, Copy)]
    enum Act {
        /// A worker looks at the newest table, and counts a request in with what it knows, now or later.
        Look(usize),
        Admit(usize),
        /// The oldest request of a worker ends.
        End(usize),
        /// The version gets no new requests any more, or gets them again.
        Leave,
        Return,
        /// Control looks.
        Poll,
    }

    fn any_act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => (0..3usize).prop_map(Act::Look),
            5 => (0..3usize).prop_map(Act::Admit),
            6 => (0..3usize).prop_map(Act::End),
            2 => Just(Act::Leave),
            1 => Just(Act::Return),
            4 => Just(Act::Poll),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

        /// In every order of what workers and control do: drained is said after the last end, with the next look, and
        /// never before; and a worker whose last request has ended says that a look is worth it.
        #[test]
        fn drained_is_said_after_the_last_end_and_never_before(acts in prop::collection::vec(any_act(), 1..60)) {
            let (start, published) = (clock::instant(), Published::new(1));
            let upstream = Upstream::open("shop".parse().unwrap(), "blue".parse().unwrap(), 3);
            let (upstream, mut drains) = (Arc::new(upstream), Drains::default());
            // By worker: the epoch it knows, whether the version had weight then, and its requests.
            let mut workers = [(1, true, 0u64); 3];
            let (mut epoch, mut has_weight, mut is_open) = (1, true, false);
            for act in acts {
                match act {
                    Act::Look(id) => (workers[id].0, workers[id].1) = (epoch, has_weight),
                    Act::Admit(id) => {
                        let (known, had_weight, flying) = &mut workers[id];
                        if *had_weight && upstream.shard(id).counts.admit(&published, *known).is_ok() {
                            prop_assert!(has_weight, "nothing is admitted under an older epoch");
                            *flying += 1;
                        }
                    }
                    Act::End(id) if workers[id].2 > 0 => {
                        workers[id].2 -= 1;
                        upstream.shard(id).end(Class::Read, || &upstream);
                        let is_told = drains.bell().notified().now_or_never().is_some();
                        prop_assert_eq!(is_told, is_open && workers[id].2 == 0);
                    }
                    Act::Leave if has_weight => {
                        (epoch, has_weight, is_open) = (epoch + 1, false, true);
                        published.publish(epoch);
                        drains.open(Arc::clone(&upstream), DrainRules::default(), start);
                    }
                    Act::Return if !has_weight => {
                        (epoch, has_weight, is_open) = (epoch + 1, true, false);
                        published.publish(epoch);
                        drains.cancel(&HashSet::from([upstream.id]));
                    }
                    Act::Poll => {
                        let flying: u64 = workers.iter().map(|worker| worker.2).sum();
                        let is_said = !drains.poll(start).is_empty();
                        prop_assert_eq!(is_said, is_open && flying == 0);
                        is_open &= !is_said;
                    }
                    Act::End(_) | Act::Leave | Act::Return => {}
                }
            }
        }
    }
}
