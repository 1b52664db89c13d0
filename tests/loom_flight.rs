//! What a worker has in flight, read at any moment: the real way passes every interleaving, wrong ones fail.
//!
//! `src/proxy/ledger/flight.rs` is compiled here a second time, with loom's atomics in the place of the standard ones.
//! There is one place, so that what is begun an epoch later takes it over. [`Rebuilt`] is the same written out again
//! with at most one [`Flaw`]; without a flaw it passes too, so it is the flaw that fails.

#![allow(clippy::unwrap_used, reason = "a panic is how a model fails")]

#[path = "loom/atomic.rs"]
#[allow(dead_code, unused_imports, reason = "what another model needs")]
mod atomic;
#[path = "../src/proxy/ledger/flight.rs"]
#[allow(dead_code, unreachable_pub, reason = "the whole file, of which a model needs a part")]
mod flight;

use loom::sync::Arc;
use loom::thread;

use atomic::{AtomicU64, Ordering};

/// When the first requests were begun, and those that take over their place, in microseconds.
const EARLY: u64 = 0;
const LATE: u64 = 25_000;
/// The middle of both epochs.
const MIDDLES: [u64; 2] = [12_500, 37_500];

/// The epochs with what was begun and what has ended, and what is older.
type Seen = (Vec<(u64, u64, u64)>, u64);

/// What one worker writes and anybody reads.
trait Way: Send + Sync + 'static {
    fn new() -> Self;
    fn began(&self, at: u64);
    fn ended(&self, begun: u64);
    fn look(&self) -> Seen;
}

/// Three requests are begun early and one of them has ended. While somebody looks, `work` goes on.
fn seen_during<W: Way>(work: fn(&W), holds: fn(Seen)) {
    loom::model(move || {
        let way = Arc::new(W::new());
        (0..3).for_each(|_| way.began(EARLY));
        way.ended(EARLY);
        let worker = thread::spawn({
            let way = Arc::clone(&way);
            move || work(&way)
        });
        holds(way.look());
        worker.join().unwrap();
    });
}

// ---- The promises ----

/// The two that are out are known, whoever takes over their place; for an instant maybe as both lately and older.
fn what_is_out_is_never_missed<W: Way>() {
    seen_during::<W>(
        |way| way.began(LATE),
        |(lately, older)| {
            let early = lately.iter().find(|(middle, ..)| *middle == MIDDLES[0]);
            let out = early.map_or(0, |(_, begun, ended)| begun.saturating_sub(*ended)) + older;
            assert!((2..=4).contains(&out), "{out} of the two are known");
        },
    );
}

/// An epoch's counts are its own: three were begun early, and one late.
fn two_epochs_are_never_mixed<W: Way>() {
    seen_during::<W>(
        |way| way.began(LATE),
        |(lately, _)| {
            for (middle, begun, ended) in lately {
                let own = if middle == MIDDLES[0] { (3, 1) } else { (begun.min(1), 0) };
                assert_eq!((begun, ended), own, "counts of two epochs are mixed");
            }
        },
    );
}

/// There are never more ends than beginnings.
fn nothing_ends_before_it_began<W: Way>() {
    seen_during::<W>(
        |way| {
            way.ended(EARLY);
            way.ended(EARLY);
            way.began(EARLY);
            way.ended(EARLY);
        },
        |(lately, _)| {
            let holds = lately.iter().all(|(_, begun, ended)| begun >= ended);
            assert!(holds, "something ended before it began");
        },
    );
}

/// One that ends after its place was taken over is out no more.
fn a_late_end_is_an_end<W: Way>() {
    loom::model(|| {
        let way = W::new();
        way.began(EARLY);
        way.began(LATE);
        assert_eq!(way.look(), (vec![(MIDDLES[1], 1, 0)], 1));
        way.ended(EARLY);
        way.ended(LATE);
        assert_eq!(way.look(), (vec![(MIDDLES[1], 1, 1)], 0));
    });
}

// ---- The way it is ----

impl Way for flight::Flight<1> {
    fn new() -> Self {
        Self::default()
    }
    fn began(&self, at: u64) {
        self.began(at);
    }
    fn ended(&self, begun: u64) {
        self.ended(begun);
    }
    fn look(&self) -> Seen {
        let mut lately = Vec::new();
        let older = self.look(|epoch| lately.push(epoch));
        (lately, older)
    }
}

#[test]
fn whoever_looks_sees_what_is_out() {
    what_is_out_is_never_missed::<flight::Flight<1>>();
    two_epochs_are_never_mixed::<flight::Flight<1>>();
    nothing_ends_before_it_began::<flight::Flight<1>>();
    a_late_end_is_an_end::<flight::Flight<1>>();
}

// ---- The same written out again, with at most one flaw ----

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    NumberLast,
    OneLook,
    ClosedRelaxed,
    OlderLast,
    OlderFirst,
    BegunBeforeEnded,
    EndRelaxed,
}

const FLAWS: [Flaw; 8] = [
    Flaw::None,
    Flaw::NumberLast,
    Flaw::OneLook,
    Flaw::ClosedRelaxed,
    Flaw::OlderLast,
    Flaw::OlderFirst,
    Flaw::BegunBeforeEnded,
    Flaw::EndRelaxed,
];

/// `FLAW` is an index into [`FLAWS`].
struct Rebuilt<const FLAW: usize> {
    number: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
    older_begun: AtomicU64,
    older_ended: AtomicU64,
}

fn own(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

fn bump(cell: &AtomicU64, order: Ordering) {
    cell.store(own(cell) + 1, order);
}

impl<const FLAW: usize> Rebuilt<FLAW> {
    fn has(flaw: Flaw) -> bool {
        FLAWS[FLAW] == flaw
    }
    fn leave(&self, left: u64) {
        self.older_begun.store(own(&self.older_begun) + left, Ordering::Release);
    }
    fn older(&self) -> u64 {
        let ended = self.older_ended.load(Ordering::Acquire);
        self.older_begun.load(Ordering::Acquire) - ended
    }
    fn place(&self) -> Option<(u64, u64, u64)> {
        let number = self.number.load(Ordering::Acquire);
        let load = |cell: &AtomicU64| cell.load(Ordering::Acquire);
        let (begun, ended) = if Self::has(Flaw::BegunBeforeEnded) {
            (load(&self.begun), load(&self.ended))
        } else {
            let ended = load(&self.ended);
            (load(&self.begun), ended)
        };
        let is_same = Self::has(Flaw::OneLook) || load(&self.number) == number;
        Some((MIDDLES[usize::try_from(number.checked_sub(1)?).unwrap()], begun, ended)).filter(|_| is_same)
    }
}

impl<const FLAW: usize> Way for Rebuilt<FLAW> {
    fn new() -> Self {
        let [number, begun, ended, older_begun, older_ended] = std::array::from_fn(|_| AtomicU64::new(0));
        Self { number, begun, ended, older_begun, older_ended }
    }

    fn began(&self, at: u64) {
        let number = at / LATE + 1;
        if own(&self.number) != number {
            let left = own(&self.begun) - own(&self.ended);
            if !Self::has(Flaw::OlderLast) {
                self.leave(left);
            }
            let order = if Self::has(Flaw::ClosedRelaxed) { Ordering::Relaxed } else { Ordering::Release };
            if !Self::has(Flaw::NumberLast) {
                self.number.store(0, order);
            }
            self.begun.store(0, order);
            self.ended.store(0, order);
            self.number.store(number, Ordering::Release);
            if Self::has(Flaw::OlderLast) {
                self.leave(left);
            }
        }
        bump(&self.begun, Ordering::Release);
    }

    fn ended(&self, begun: u64) {
        let is_there = own(&self.number) == begun / LATE + 1;
        let order = if Self::has(Flaw::EndRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        bump(if is_there { &self.ended } else { &self.older_ended }, order);
    }

    fn look(&self) -> Seen {
        if Self::has(Flaw::OlderFirst) {
            let older = self.older();
            return (self.place().into_iter().collect(), older);
        }
        let lately = self.place().into_iter().collect();
        (lately, self.older())
    }
}

#[test]
fn without_a_flaw_it_holds_too() {
    what_is_out_is_never_missed::<Rebuilt<0>>();
    two_epochs_are_never_mixed::<Rebuilt<0>>();
    nothing_ends_before_it_began::<Rebuilt<0>>();
    a_late_end_is_an_end::<Rebuilt<0>>();
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
    a_place_that_is_not_closed_first_mixes_two_epochs:
        NumberLast breaks two_epochs_are_never_mixed, "mixed";
    a_number_that_is_read_once_mixes_two_epochs:
        OneLook breaks two_epochs_are_never_mixed, "mixed";
    a_place_that_is_closed_without_release_mixes_two_epochs:
        ClosedRelaxed breaks two_epochs_are_never_mixed, "mixed";
    what_leaves_its_place_too_early_is_missed:
        OlderLast breaks what_is_out_is_never_missed, "0 of the two";
    looking_at_what_is_older_first_misses_it:
        OlderFirst breaks what_is_out_is_never_missed, "0 of the two";
    reading_beginnings_before_ends_sees_an_end_too_many:
        BegunBeforeEnded breaks nothing_ends_before_it_began, "before it began";
    an_end_without_release_is_seen_before_its_beginning:
        EndRelaxed breaks nothing_ends_before_it_began, "before it began";
}
