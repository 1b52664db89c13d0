//! The admission protocol under every interleaving that the memory model allows: the real one passes, wrong ones fail.
//!
//! `src/proxy/admission.rs` is compiled here a second time, with loom's atomics in the place of the standard ones.
//! Each model is a promise, checked for any [`Protocol`]. [`Rebuilt`] is the same protocol written out again with at
//! most one [`Flaw`]; without a flaw it passes too, so it is the flaw that fails.

#![allow(clippy::unwrap_used, reason = "a panic is how a model fails")]

#[path = "../src/proxy/admission.rs"]
#[allow(dead_code, unreachable_pub, reason = "the whole file, of which a model needs a part")]
mod admission;
#[path = "loom/atomic.rs"]
mod atomic;

use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use admission::{Counts, Latch, Published, in_flight};
use atomic::{AtomicU64, Ordering, fence};

/// The epoch that workers chose under, and the one that replaces it.
const OLD: u64 = 1;
const NEW: u64 = 2;

/// Two workers' counts on one version, and the published epoch.
trait Protocol: Send + Sync + 'static {
    fn new() -> Self;
    /// Publishes `NEW`, then gives what is in flight.
    fn publish_then_count(&self) -> u64;
    fn in_flight(&self) -> u64;
    /// True when the request chosen under `OLD` was counted in.
    fn admit(&self, worker: usize) -> bool;
    fn end(&self, worker: usize);
}

/// Every interleaving with at most three preemptions, or as many as `LOOM_MAX_PREEMPTIONS` says.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(run);
}

// ---- The promises ----

/// G1: a request chosen under the old epoch is either refused, or counted by whoever reads after publishing.
fn every_admitted_request_is_counted<P: Protocol>() {
    model(|| {
        let both = Arc::new(P::new());
        let worker = thread::spawn({
            let both = Arc::clone(&both);
            move || both.admit(0)
        });
        let counted = both.publish_then_count();
        let admitted = worker.join().unwrap();
        assert!(!admitted || counted == 1, "admitted under the old epoch, and nobody counted it");
    });
}

/// G1, as a client sees it: nothing that starts after the acknowledgement is admitted under the old epoch.
fn nothing_is_admitted_after_the_acknowledgement<P: Protocol>() {
    model(|| {
        let (both, acknowledged) = (Arc::new(P::new()), Arc::new(AtomicBool::new(false)));
        let worker = thread::spawn({
            let (both, acknowledged) = (Arc::clone(&both), Arc::clone(&acknowledged));
            // Relaxed: the news may travel any way, and bring nothing else along.
            move || acknowledged.load(Ordering::Relaxed) && both.admit(0)
        });
        both.publish_then_count();
        acknowledged.store(true, Ordering::Relaxed);
        assert!(!worker.join().unwrap(), "admitted under the old epoch after the acknowledgement");
    });
}

/// G3: once the old version is empty after the change, it is killed; no request is on it then, or comes later, and all
/// that its requests did happened before.
fn an_empty_version_is_safe_to_kill<P: Protocol>() {
    model(|| {
        let both = Arc::new(P::new());
        let killed = Arc::new(AtomicBool::new(false));
        let done = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let work = |worker: usize| {
            let (both, killed, done) = (Arc::clone(&both), Arc::clone(&killed), Arc::clone(&done));
            move || {
                let admitted = both.admit(worker);
                if admitted {
                    assert!(!killed.load(Ordering::Relaxed), "a request is on a version that was killed");
                    done[worker].store(true, Ordering::Relaxed);
                    both.end(worker);
                }
                admitted
            }
        };
        let workers = [0, 1].map(|worker| thread::spawn(work(worker)));
        // Looks twice, as control's drain does again and again.
        let empty = both.publish_then_count() == 0 || both.in_flight() == 0;
        let seen = empty.then(|| {
            killed.store(true, Ordering::Relaxed);
            [0, 1].map(|worker| done[worker].load(Ordering::Relaxed))
        });
        let admitted = workers.map(|worker| worker.join().unwrap());
        assert!(seen.is_none_or(|seen| seen == admitted), "killed before a request had ended");
    });
}

/// Never fewer than there are: one long request stays on worker 0 while others come and go there.
fn a_long_request_is_always_counted<P: Protocol>() {
    model(|| {
        let both = Arc::new(P::new());
        assert!(both.admit(0));
        let worker = thread::spawn({
            let both = Arc::clone(&both);
            move || {
                (0..2).for_each(|_| {
                    if both.admit(0) {
                        both.end(0)
                    }
                })
            }
        });
        // Ends that come after they were read make it too many, never too few.
        assert!((1..=3).contains(&both.in_flight()), "never fewer than the one");
        worker.join().unwrap();
    });
}

/// Never fewer than there are: worker 1 begins its request before worker 0's ends, so there is always one.
fn a_relay_of_requests_is_never_missed<P: Protocol>() {
    model(|| {
        let both = Arc::new(P::new());
        assert!(both.admit(1));
        let workers = thread::spawn({
            let both = Arc::clone(&both);
            move || {
                both.admit(0);
                both.end(1);
            }
        });
        assert!((1..=2).contains(&both.in_flight()), "never fewer than the one");
        workers.join().unwrap();
    });
}

// ---- The protocol as it is ----

struct Real {
    published: Published,
    shards: [Counts; 2],
}

impl Protocol for Real {
    fn new() -> Self {
        Self { published: Published::new(OLD), shards: [Counts::new(), Counts::new()] }
    }
    fn publish_then_count(&self) -> u64 {
        self.published.publish(NEW);
        self.in_flight()
    }
    fn in_flight(&self) -> u64 {
        in_flight(self.shards.iter())
    }
    fn admit(&self, worker: usize) -> bool {
        self.shards[worker].admit(&self.published, OLD).is_ok()
    }
    fn end(&self, worker: usize) {
        self.shards[worker].end();
    }
}

#[test]
fn the_fence_holds() {
    every_admitted_request_is_counted::<Real>();
    nothing_is_admitted_after_the_acknowledgement::<Real>();
}

#[test]
fn an_empty_version_may_be_killed() {
    an_empty_version_is_safe_to_kill::<Real>();
}

#[test]
fn the_count_is_never_too_low() {
    a_long_request_is_always_counted::<Real>();
    a_relay_of_requests_is_never_missed::<Real>();
}

#[test]
fn an_admission_under_the_newest_epoch_succeeds() {
    model(|| {
        let (published, counts) = (Published::new(OLD), Counts::new());
        published.publish(NEW);
        assert_eq!(published.epoch(), NEW);
        assert!(counts.admit(&published, OLD).is_err());
        assert!(counts.admit(&published, NEW).is_ok());
        assert!(counts.admit(&published, NEW + 1).is_ok(), "the snapshot is visible before its epoch");
        assert_eq!(in_flight([&counts].into_iter()), 2);
        counts.end();
        assert_eq!((counts.admitted(), counts.ended()), (3, 2));
    });
}

// ---- The protocol written out again, with at most one flaw ----

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    CheckThenCount,
    CountWithoutFence,
    PublishWithoutFence,
    CountThenPublish,
    AdmittedBeforeEnded,
    ShardByShard,
    EndWithoutRelease,
}

const FLAWS: [Flaw; 8] = [
    Flaw::None,
    Flaw::CheckThenCount,
    Flaw::CountWithoutFence,
    Flaw::PublishWithoutFence,
    Flaw::CountThenPublish,
    Flaw::AdmittedBeforeEnded,
    Flaw::ShardByShard,
    Flaw::EndWithoutRelease,
];

/// `FLAW` is an index into [`FLAWS`].
struct Rebuilt<const FLAW: usize> {
    epoch: AtomicU64,
    shards: [Shard; 2],
}

struct Shard {
    admitted: AtomicU64,
    ended: AtomicU64,
}

impl Shard {
    fn new() -> Self {
        Self { admitted: AtomicU64::new(0), ended: AtomicU64::new(0) }
    }
    fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }
    fn admitted(&self) -> u64 {
        self.admitted.load(Ordering::Acquire)
    }
}

/// One writer: a plain load and store make an increment.
fn bump(cell: &AtomicU64, order: Ordering) {
    cell.store(cell.load(Ordering::Relaxed) + 1, order);
}

impl<const FLAW: usize> Rebuilt<FLAW> {
    fn has(flaw: Flaw) -> bool {
        FLAWS[FLAW] == flaw
    }
    fn is_old_published(&self) -> bool {
        self.epoch.load(Ordering::Acquire) <= OLD
    }
    fn publish(&self) {
        self.epoch.store(NEW, Ordering::Release);
        if !Self::has(Flaw::PublishWithoutFence) {
            fence(Ordering::SeqCst);
        }
    }
}

impl<const FLAW: usize> Protocol for Rebuilt<FLAW> {
    fn new() -> Self {
        Self { epoch: AtomicU64::new(OLD), shards: [Shard::new(), Shard::new()] }
    }

    fn publish_then_count(&self) -> u64 {
        if Self::has(Flaw::CountThenPublish) {
            let counted = self.in_flight();
            self.publish();
            return counted;
        }
        self.publish();
        self.in_flight()
    }

    fn in_flight(&self) -> u64 {
        let [zero, one] = &self.shards;
        if Self::has(Flaw::ShardByShard) {
            let one_shard = |shard: &Shard| {
                let ended = shard.ended();
                shard.admitted() - ended
            };
            return one_shard(zero) + one_shard(one);
        }
        if Self::has(Flaw::AdmittedBeforeEnded) {
            let admitted = zero.admitted() + one.admitted();
            return admitted.wrapping_sub(zero.ended() + one.ended());
        }
        let ended = zero.ended() + one.ended();
        zero.admitted() + one.admitted() - ended
    }

    fn admit(&self, worker: usize) -> bool {
        let count = || bump(&self.shards[worker].admitted, Ordering::Release);
        if Self::has(Flaw::CheckThenCount) {
            let is_open = self.is_old_published();
            fence(Ordering::SeqCst);
            if is_open {
                count();
            }
            return is_open;
        }
        count();
        if !Self::has(Flaw::CountWithoutFence) {
            fence(Ordering::SeqCst);
        }
        let is_open = self.is_old_published();
        if !is_open {
            self.end(worker);
        }
        is_open
    }

    fn end(&self, worker: usize) {
        let order = if Self::has(Flaw::EndWithoutRelease) { Ordering::Relaxed } else { Ordering::Release };
        bump(&self.shards[worker].ended, order);
    }
}

#[test]
fn without_a_flaw_it_holds_too() {
    every_admitted_request_is_counted::<Rebuilt<0>>();
    nothing_is_admitted_after_the_acknowledgement::<Rebuilt<0>>();
    an_empty_version_is_safe_to_kill::<Rebuilt<0>>();
    a_long_request_is_always_counted::<Rebuilt<0>>();
    a_relay_of_requests_is_never_missed::<Rebuilt<0>>();
}

/// A test for each (flaw, promise it breaks).
macro_rules! broken_by {
    ($($test:ident: $flaw:ident breaks $promise:ident, $says:literal;)*) => {$(
        #[test]
        #[should_panic(expected = $says)]
        fn $test() {
            $promise::<Rebuilt<{ Flaw::$flaw as usize }>>();
        }
    )*};
}

broken_by! {
    checking_before_counting_breaks_the_fence:
        CheckThenCount breaks every_admitted_request_is_counted, "nobody counted it";
    checking_before_counting_kills_a_request:
        CheckThenCount breaks an_empty_version_is_safe_to_kill, "kill";
    counting_without_the_fence_breaks_the_fence:
        CountWithoutFence breaks every_admitted_request_is_counted, "nobody counted it";
    counting_without_the_fence_kills_a_request:
        CountWithoutFence breaks an_empty_version_is_safe_to_kill, "kill";
    publishing_without_the_fence_breaks_the_fence:
        PublishWithoutFence breaks every_admitted_request_is_counted, "nobody counted it";
    publishing_without_the_fence_admits_after_the_acknowledgement:
        PublishWithoutFence breaks nothing_is_admitted_after_the_acknowledgement, "after the acknowledgement";
    publishing_without_the_fence_kills_a_request:
        PublishWithoutFence breaks an_empty_version_is_safe_to_kill, "kill";
    counting_before_publishing_breaks_the_fence:
        CountThenPublish breaks every_admitted_request_is_counted, "nobody counted it";
    counting_before_publishing_kills_a_request:
        CountThenPublish breaks an_empty_version_is_safe_to_kill, "kill";
    reading_admissions_before_ends_misses_a_request:
        AdmittedBeforeEnded breaks a_long_request_is_always_counted, "never fewer than the one";
    reading_admissions_before_ends_misses_a_relay:
        AdmittedBeforeEnded breaks a_relay_of_requests_is_never_missed, "never fewer than the one";
    reading_shard_by_shard_misses_a_relay:
        ShardByShard breaks a_relay_of_requests_is_never_missed, "never fewer than the one";
    ending_without_release_kills_a_request:
        EndWithoutRelease breaks an_empty_version_is_safe_to_kill, "kill";
}

// ---- Work that becomes lasting ----

/// One worker's request, counted among those that end soon, becomes lasting: it is at no time in neither.
fn work_that_lasts_is_always_counted(take_over: fn(&Counts, &Counts)) {
    model(move || {
        let (published, both) = (Published::new(OLD), Arc::new([Counts::new(), Counts::new()]));
        both[0].admit(&published, OLD).unwrap();
        let worker = thread::spawn({
            let both = Arc::clone(&both);
            move || take_over(&both[1], &both[0])
        });
        // In both for a moment is too many; never too few.
        assert!((1..=2).contains(&in_flight(both.iter())), "never fewer than the one");
        worker.join().unwrap();
        assert_eq!((in_flight([&both[0]].into_iter()), in_flight([&both[1]].into_iter())), (0, 1));
    });
}

#[test]
fn taking_over_misses_nothing() {
    work_that_lasts_is_always_counted(|lasting, soon| lasting.take_over(soon));
}

#[test]
#[should_panic(expected = "never fewer than the one")]
fn ending_before_it_is_taken_over_misses_it() {
    work_that_lasts_is_always_counted(|lasting, soon| {
        soon.end();
        lasting.take_over(&Counts::new());
    });
}

/// Who asks for writers alone is told of every writer, and of nobody else: a read in flight keeps nobody waiting.
#[test]
fn a_writer_is_counted_among_the_writers_and_a_read_is_not() {
    model(|| {
        let all = Arc::new((Published::new(OLD), Counts::new(), Counts::new()));
        let worker = thread::spawn({
            let all = Arc::clone(&all);
            move || {
                let (published, reads, writes) = &*all;
                (reads.admit(published, OLD).is_ok(), writes.admit(published, OLD).is_ok())
            }
        });
        let (published, reads, writes) = &*all;
        published.publish(NEW);
        let (writers, both) = (in_flight([writes].into_iter()), in_flight([reads, writes].into_iter()));
        let (has_read, has_written) = worker.join().unwrap();
        assert!(!has_written || writers == 1, "admitted under the old epoch, and nobody counted it");
        assert!(u64::from(has_read) + u64::from(has_written) <= both);
        assert!(writers <= 1, "a read among the writers");
    });
}

// ---- The exclusive flip ----

/// The epoch of the flip that ends the hold, whose own epoch is `NEW`.
const FLIPPED: u64 = 3;

/// A service's two versions while it is flipped from blue to green.
struct Exclusive {
    published: Published,
    latch: Latch,
    blue: Counts,
    /// What a version's process would notice.
    blue_runs: AtomicBool,
}

impl Exclusive {
    fn new() -> Self {
        let (published, latch, blue) = (Published::new(OLD), Latch::new(), Counts::new());
        Self { published, latch, blue, blue_runs: AtomicBool::new(false) }
    }

    /// A request that was chosen under `epoch`, when blue had the traffic.
    fn ask_blue(&self, epoch: u64) {
        if self.blue.admit(&self.published, epoch).is_ok() {
            self.blue_runs.store(true, Ordering::Relaxed);
            self.blue_runs.store(false, Ordering::Relaxed);
            self.blue.end();
        }
    }

    /// A request that takes the newest table; green has the traffic once the flip is published.
    fn ask_green(&self) {
        if self.published.epoch() == FLIPPED {
            assert!(!self.blue_runs.load(Ordering::Relaxed), "two versions serve at the same time");
        }
    }
}

/// Blue's request and the hold come at the same time; green's comes whenever it does.
fn two_versions_never_serve_at_once(flip: fn(&Exclusive)) {
    model(move || {
        let all = Arc::new(Exclusive::new());
        let ask = |ask: fn(&Exclusive)| {
            let all = Arc::clone(&all);
            thread::spawn(move || ask(&all))
        };
        let workers = [ask(|all| all.ask_blue(OLD)), ask(Exclusive::ask_green)];
        flip(&all);
        let _ = workers.map(|worker| worker.join().unwrap());
    });
}

#[test]
fn an_exclusive_flip_overlaps_with_nothing() {
    two_versions_never_serve_at_once(|all| {
        all.published.publish(NEW);
        if in_flight([&all.blue].into_iter()) == 0 && all.latch.seal() {
            all.published.publish(FLIPPED);
        }
    });
}

#[test]
#[should_panic(expected = "two versions serve at the same time")]
fn a_flip_that_looks_before_it_holds_overlaps() {
    two_versions_never_serve_at_once(|all| {
        let is_empty = in_flight([&all.blue].into_iter()) == 0;
        all.published.publish(NEW);
        if is_empty && all.latch.seal() {
            all.published.publish(FLIPPED);
        }
    });
}

/// A bound is hit, and its request goes on to blue under the hold's own epoch, while control finds blue empty.
fn a_bound_and_a_flip_exclude_each_other(may_flip: fn(&Latch) -> bool) {
    model(move || {
        let all = Arc::new(Exclusive::new());
        all.published.publish(NEW);
        let worker = thread::spawn({
            let all = Arc::clone(&all);
            move || {
                all.latch.burst(0);
                let passes = all.latch.reason().is_some();
                if passes {
                    all.ask_blue(NEW);
                }
                passes
            }
        });
        let flipped = in_flight([&all.blue].into_iter()) == 0 && may_flip(&all.latch);
        if flipped {
            all.published.publish(FLIPPED);
        }
        assert!(!(worker.join().unwrap() && flipped), "somebody has passed, and it was flipped");
    });
}

#[test]
fn nobody_passes_a_sealed_latch() {
    a_bound_and_a_flip_exclude_each_other(Latch::seal);
}

#[test]
#[should_panic(expected = "somebody has passed")]
fn looking_at_the_latch_instead_of_sealing_it_lets_somebody_pass() {
    a_bound_and_a_flip_exclude_each_other(|latch| latch.reason().is_none());
}
