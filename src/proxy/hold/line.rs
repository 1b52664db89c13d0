//! Who waits because a service is held, or behind those who did, in the order in which they came.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::proxy::clock;
use crate::table::HoldScope;

/// The line of one service, over all workers and all of its holds.
///
/// Reads and writes each have a first one, because reads may go on while writes are held. The first ones look whether they may go on,
/// and only when they are *called*: because they have become first, a gate has opened, or the service has changed. Calls are
/// kept for who has not waited yet, so whoever joins first and looks then misses none.
///
/// Who comes and finds nobody has read one number; only those who wait lock anything, for as long as it takes to look one up.
#[derive(Debug, Default)]
pub struct Line {
    /// How many stand in it.
    length: AtomicUsize,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    /// Reads, and writes.
    queues: [Queue; 2],
    /// How many have ever come.
    came: u64,
    /// Until when they wait for room, by the holds that have ended so far.
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Queue {
    /// By the number that they came with.
    all: BTreeMap<u64, Waiter>,
    bytes: u64,
}

#[derive(Debug)]
struct Waiter {
    /// The size of its head.
    bytes: u64,
    /// True when it is to look whether it may go on.
    is_called: bool,
    waker: Option<Waker>,
}

/// Where somebody stands: whether it writes, and the number that it came with.
pub(super) type Spot = (bool, u64);

/// The number of who comes just now.
pub(super) const NEWCOMER: u64 = u64::MAX;

impl Line {
    /// How many stand in it.
    #[must_use]
    pub fn length(&self) -> usize {
        // Relaxed: who overtakes somebody in the instant in which he comes has come as early as he.
        self.length.load(Ordering::Relaxed)
    }

    /// Those who are first look whether they may go on. Call after what has changed is there to be seen.
    pub fn call(&self) {
        let wakers = self.standing().call();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// All of them look, wherever they stand: a change may have led them elsewhere. Call after that is there to be seen.
    pub fn call_all(&self) {
        let mut standing = self.standing();
        let waiters = standing.queues.iter_mut().flat_map(|queue| queue.all.values_mut());
        let wakers: Vec<_> = waiters.filter_map(Waiter::call).collect();
        drop(standing);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Somebody comes whose head has so many bytes, and is called at once.
    pub(super) fn join(&self, writes: bool, bytes: u64) -> Spot {
        let mut standing = self.standing();
        standing.came += 1;
        let number = standing.came;
        let queue = &mut standing.queues[usize::from(writes)];
        queue.all.insert(number, Waiter { bytes, is_called: true, waker: None });
        queue.bytes += bytes;
        self.length.fetch_add(1, Ordering::Relaxed);
        (writes, number)
    }

    /// Somebody goes; who is first then is called.
    pub(super) fn leave(&self, (writes, number): Spot) {
        let mut standing = self.standing();
        let queue = &mut standing.queues[usize::from(writes)];
        let was_first = queue.first() == Some(number);
        let Some(gone) = queue.all.remove(&number) else { return };
        queue.bytes -= gone.bytes;
        self.length.fetch_sub(1, Ordering::Relaxed);
        let wakers = if was_first { standing.call() } else { [None, None] };
        drop(standing);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// True when nobody came before whom nothing holds.
    pub(super) fn is_turn(&self, (writes, number): Spot, is_held: impl Fn(bool) -> bool) -> bool {
        let standing = self.standing();
        let mut goes = [false, true].into_iter().filter(|class| *class == writes || !is_held(*class));
        goes.all(|class| standing.queues[usize::from(class)].first().is_none_or(|first| number <= first))
    }

    /// Ready when it has been called since this was ready last.
    pub(super) fn poll_called(&self, (writes, number): Spot, cx: &Context<'_>) -> Poll<()> {
        let mut standing = self.standing();
        let Some(waiter) = standing.queues[usize::from(writes)].all.get_mut(&number) else {
            return Poll::Ready(());
        };
        if std::mem::take(&mut waiter.is_called) {
            return Poll::Ready(());
        }
        waiter.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// How many a hold of this scope holds, and how many bytes their heads have.
    pub(super) fn held_by(&self, scope: HoldScope) -> (usize, u64) {
        let standing = self.standing();
        let held = [false, true].into_iter().filter(|writes| scope.holds(*writes));
        let held = held.map(|writes| &standing.queues[usize::from(writes)]);
        held.fold((0, 0), |(count, bytes), queue| (count + queue.all.len(), bytes + queue.bytes))
    }

    /// A hold ends: they wait for room for so long from now on, or longer.
    pub(super) fn waits_for(&self, time: Duration) {
        let until = Some(clock::now() + time);
        let mut standing = self.standing();
        standing.until = standing.until.max(until);
    }

    /// How much longer they wait for room.
    pub(super) fn patience(&self) -> Duration {
        let until = self.standing().until;
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(clock::now()))
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    /// Calls those who are first; whom to wake when nothing is locked.
    fn call(&mut self) -> [Option<Waker>; 2] {
        self.queues.each_mut().map(|queue| {
            let mut first = queue.all.first_entry()?;
            first.get_mut().call()
        })
    }
}

impl Waiter {
    /// Whom to wake, if he waits.
    fn call(&mut self) -> Option<Waker> {
        self.is_called = true;
        self.waker.take()
    }
}

impl Queue {
    fn first(&self) -> Option<u64> {
        self.all.keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const READ: bool = false;
    const WRITE: bool = true;

    /// True once for each call.
    fn is_called(line: &Line, spot: Spot) -> bool {
        line.poll_called(spot, &Context::from_waker(Waker::noop())).is_ready()
    }

    /// Somebody who has looked in vain.
    fn waits(line: &Line, writes: bool) -> Spot {
        let spot = line.join(writes, 100);
        assert!(is_called(line, spot), "to look once more, when everybody sees him");
        spot
    }

    fn turns<const N: usize>(line: &Line, spots: [Spot; N]) -> [bool; N] {
        spots.map(|spot| line.is_turn(spot, |_| false))
    }

    #[test]
    fn whoever_came_first_goes_first_also_when_others_leave() {
        let line = Line::default();
        assert!(line.is_turn((READ, NEWCOMER), |_| false));
        let spots @ [first, second, third] = [READ, WRITE, READ].map(|writes| waits(&line, writes));
        assert_eq!(turns(&line, spots), [true, false, false]);
        line.leave(second);
        assert_eq!(turns(&line, [first, third]), [true, false]);
        line.leave(first);
        assert!(turns(&line, [third])[0] && !line.is_turn((WRITE, NEWCOMER), |_| false));
        line.leave(third);
        assert!(line.length() == 0 && line.is_turn((WRITE, NEWCOMER), |_| false));
    }

    #[test]
    fn a_read_stands_behind_no_write_that_is_held() {
        let line = Line::default();
        let [write, read, next] = [WRITE, READ, READ].map(|writes| waits(&line, writes));
        let turns = |spots: [Spot; 2]| spots.map(|spot| line.is_turn(spot, |writes| writes));
        assert_eq!(turns([read, next]), [true, false]);
        line.leave(read);
        assert_eq!(turns([read, next]), [true, true]);
        assert!(!line.is_turn(next, |_| false) && line.is_turn(write, |_| false));
    }

    #[test]
    fn who_becomes_first_is_called_and_nobody_else() {
        let line = Line::default();
        let [first, second, third, write] = [READ, READ, READ, WRITE].map(|writes| waits(&line, writes));
        let called = || [first, second, third, write].map(|spot| is_called(&line, spot));
        line.call();
        assert_eq!(called(), [true, false, false, true]);
        assert_eq!(called(), [false; 4]);
        line.leave(second);
        assert_eq!(called(), [false, true, false, false], "who is not there waits for nothing");
        line.leave(first);
        assert_eq!(called(), [true, true, true, true]);
    }

    #[test]
    fn a_call_wakes_and_is_kept_for_who_does_not_wait_yet() {
        let line = Line::default();
        let spot = line.join(READ, 1);
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        let poll = || line.poll_called(spot, &Context::from_waker(&waker)).is_ready();
        assert!(poll() && !poll());
        line.call();
        assert_eq!((woken.0.load(Ordering::Relaxed), poll()), (1, true));
        line.call();
        assert!(poll(), "it was called while it looked");
    }

    #[test]
    fn all_that_stand_in_it_are_counted_by_what_holds_them() {
        let line = Line::default();
        let [_, read] = [line.join(WRITE, 10), line.join(READ, 5)];
        assert_eq!((line.held_by(HoldScope::All), line.held_by(HoldScope::Writes)), ((2, 15), (1, 10)));
        line.leave(read);
        assert_eq!((line.held_by(HoldScope::All), line.length()), ((1, 10), 1));
    }

    #[test]
    fn a_shorter_hold_takes_nobodys_patience() {
        let line = Line::default();
        assert!(line.patience().is_zero());
        line.waits_for(Duration::from_mins(2));
        line.waits_for(Duration::from_mins(1));
        assert!(line.patience() > Duration::from_mins(1));
    }

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
