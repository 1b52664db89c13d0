//! The handshakes that a worker is in the middle of: how many at most, and which has to go when there are more.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::metrics::Handshake;
use crate::proxy::clock::{Alarm, Clock};

/// How long a handshake may go on before a newer one can take its place. Clients that only hold places are pushed out
/// by those that come to stay; in a rush of honest ones, which the processor cannot keep up with, those that are
/// nearly done are left alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// One worker's handshakes, oldest first.
#[derive(Debug, Default)]
pub struct Handshakes(Rc<RefCell<Open>>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: BTreeMap<u64, Rc<One>>,
}

#[derive(Debug)]
struct One {
    since: u64,
    alarm: Alarm,
    is_pushed_out: Cell<bool>,
}

/// A handshake's place among them, until dropped.
#[derive(Debug)]
pub struct Slot {
    id: u64,
    is_hurried: Cell<bool>,
    one: Rc<One>,
    open: Rc<RefCell<Open>>,
}

impl Handshakes {
    /// A place for one more, for `limit`; `None` when there are `most` and none has lasted long enough to be pushed out.
    #[must_use]
    pub fn begin(&self, most: usize, limit: Duration, clock: &Rc<Clock>) -> Option<Slot> {
        let mut open = self.0.borrow_mut();
        if open.all.len() >= most && !open.push_out(clock.ticks()) {
            return None;
        }
        let one =
            Rc::new(One { since: clock.ticks(), alarm: clock.alarm(), is_pushed_out: Cell::new(false) });
        one.alarm.set(limit);
        open.next += 1;
        let id = open.next;
        open.all.insert(id, Rc::clone(&one));
        Some(Slot { id, is_hurried: Cell::new(false), one, open: Rc::clone(&self.0) })
    }
}

impl Open {
    /// Pushes the oldest out, if it has had its time.
    fn push_out(&mut self, now: u64) -> bool {
        let Some(oldest) = self.all.first_entry() else { return false };
        if now.saturating_sub(oldest.get().since) < Clock::ticks_in(PATIENCE) {
            return false;
        }
        let one = oldest.remove();
        one.is_pushed_out.set(true);
        one.alarm.set(Duration::ZERO);
        true
    }
}

impl Slot {
    /// The worker winds down: honest clients are done by then.
    pub fn hurry(&self) {
        if !self.is_hurried.replace(true) {
            self.one.alarm.shorten(PATIENCE);
        }
    }

    /// Ready when it is over before it was done, and why; else the task is woken when it is.
    pub fn poll_overdue(&self, cx: &Context<'_>) -> Poll<Handshake> {
        ready!(self.one.alarm.poll(cx));
        Poll::Ready(if self.one.is_pushed_out.get() { Handshake::Limit } else { Handshake::Timeout })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.borrow_mut().all.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn ended(slot: &Slot) -> Option<Handshake> {
        match slot.poll_overdue(&Context::from_waker(Waker::noop())) {
            Poll::Ready(why) => Some(why),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_handshake_ends_when_its_time_is_over() {
        let (all, clock) = (Handshakes::default(), Rc::new(Clock::default()));
        let slot = all.begin(1, Duration::from_secs(10), &clock).unwrap();
        clock.advance(Duration::from_secs(10));
        assert_eq!(ended(&slot), None);
        clock.advance(Duration::from_millis(10_100));
        assert_eq!(ended(&slot), Some(Handshake::Timeout));
    }

    #[test]
    fn the_oldest_is_pushed_out_but_not_at_once() {
        let (all, clock) = (Handshakes::default(), Rc::new(Clock::default()));
        let limit = Duration::from_secs(10);
        let (first, second) = (all.begin(2, limit, &clock).unwrap(), all.begin(2, limit, &clock).unwrap());
        assert!(all.begin(2, limit, &clock).is_none(), "both are fresh");
        clock.advance(PATIENCE);
        let third = all.begin(2, limit, &clock).unwrap();
        clock.advance(PATIENCE + Duration::from_millis(100));
        assert_eq!([&first, &second, &third].map(ended), [Some(Handshake::Limit), None, None]);
        drop((first, second, third));
        assert!(all.0.borrow().all.is_empty());
    }

    #[test]
    fn a_place_is_free_again_when_its_handshake_is_done() {
        let (all, clock) = (Handshakes::default(), Rc::new(Clock::default()));
        let limit = Duration::from_secs(10);
        for _ in 0..3 {
            let slot = all.begin(1, limit, &clock).unwrap();
            assert!(all.begin(1, limit, &clock).is_none());
            drop(slot);
        }
    }
}
