//! The handshakes that a worker is in the middle of: how many at most, and which has to go when there are more.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::metrics::Handshake;
use crate::proxy::clock::{Alarm, Clock};

/// How long a handshake may go on before a newer one can take its place, whoever begins that. Clients that only hold places
/// are pushed out by those that come to stay; in a rush of honest ones, which the processor cannot keep up with, those that
/// are nearly done are left alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// One worker's handshakes.
#[derive(Debug, Default)]
pub struct Handshakes(Rc<RefCell<Open>>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// Oldest first.
    all: BTreeMap<u64, Rc<One>>,
    /// Those of each network, and the networks by how many they have.
    crowds: HashMap<IpAddr, BTreeSet<u64>, ahash::RandomState>,
    sizes: BTreeSet<(usize, IpAddr)>,
}

#[derive(Debug)]
struct One {
    network: IpAddr,
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
    /// A place for one more of a client's [network](crate::proxy::quota::network), for `limit`.
    ///
    /// When there are `most`, the oldest goes if it has had its time, or else the oldest of the network that has more than
    /// any other, and more than this one would have; `None` when there is neither.
    #[must_use]
    pub fn begin(&self, network: IpAddr, most: usize, limit: Duration, clock: &Rc<Clock>) -> Option<Slot> {
        let mut open = self.0.borrow_mut();
        if open.all.len() >= most {
            let id = open.late(clock.ticks()).or_else(|| open.crowding(network))?;
            open.push_out(id);
        }
        let (since, alarm) = (clock.ticks(), clock.alarm());
        let one = Rc::new(One { network, since, alarm, is_pushed_out: Cell::new(false) });
        one.alarm.set(limit);
        let id = open.add(Rc::clone(&one));
        Some(Slot { id, is_hurried: Cell::new(false), one, open: Rc::clone(&self.0) })
    }
}

impl Open {
    /// The oldest, if it has had its time.
    fn late(&self, now: u64) -> Option<u64> {
        let (id, oldest) = self.all.first_key_value()?;
        (now.saturating_sub(oldest.since) >= Clock::ticks_in(PATIENCE)).then_some(*id)
    }

    /// The oldest of those who have the most, if they have more than `network` would have.
    fn crowding(&self, network: IpAddr) -> Option<u64> {
        let (many, crowd) = self.sizes.last()?;
        let own = self.crowds.get(&network).map_or(0, BTreeSet::len);
        self.crowds.get(crowd).filter(|_| *many > own + 1)?.first().copied()
    }

    fn push_out(&mut self, id: u64) {
        if let Some(one) = self.remove(id) {
            one.is_pushed_out.set(true);
            one.alarm.set(Duration::ZERO);
        }
    }

    fn add(&mut self, one: Rc<One>) -> u64 {
        self.next += 1;
        let id = self.next;
        self.resize(one.network, |crowd| crowd.insert(id));
        self.all.insert(id, one);
        id
    }

    /// Nothing when it has been pushed out.
    fn remove(&mut self, id: u64) -> Option<Rc<One>> {
        let one = self.all.remove(&id)?;
        self.resize(one.network, |crowd| crowd.remove(&id));
        Some(one)
    }

    /// Has one come to those of `network`, or go.
    fn resize(&mut self, network: IpAddr, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let crowd = self.crowds.entry(network).or_default();
        self.sizes.remove(&(crowd.len(), network));
        change(crowd);
        match crowd.len() {
            0 => drop(self.crowds.remove(&network)),
            many => drop(self.sizes.insert((many, network))),
        }
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
        self.open.borrow_mut().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const SOMEBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const SOMEBODY_ELSE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn ended(slot: &Slot) -> Option<Handshake> {
        match slot.poll_overdue(&Context::from_waker(Waker::noop())) {
            Poll::Ready(why) => Some(why),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_handshake_ends_when_its_time_is_over() {
        let (all, clock) = (Handshakes::default(), Rc::new(Clock::default()));
        let slot = all.begin(SOMEBODY, 1, Duration::from_secs(10), &clock).unwrap();
        clock.advance(Duration::from_secs(10));
        assert_eq!(ended(&slot), None);
        clock.advance(Duration::from_millis(10_100));
        assert_eq!(ended(&slot), Some(Handshake::Timeout));
    }

    #[test]
    fn the_oldest_is_pushed_out_but_not_at_once() {
        let (all, clock) = (Handshakes::default(), Rc::new(Clock::default()));
        let limit = Duration::from_secs(10);
        let (first, second) =
            (all.begin(SOMEBODY, 2, limit, &clock).unwrap(), all.begin(SOMEBODY, 2, limit, &clock).unwrap());
        assert!(all.begin(SOMEBODY, 2, limit, &clock).is_none(), "both are fresh");
        clock.advance(PATIENCE);
        let third = all.begin(SOMEBODY, 2, limit, &clock).unwrap();
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
            let slot = all.begin(SOMEBODY, 1, limit, &clock).unwrap();
            assert!(all.begin(SOMEBODY, 1, limit, &clock).is_none());
            drop(slot);
        }
    }

    #[test]
    fn whoever_has_more_places_than_others_makes_room_for_them() {
        let (all, clock) = (Handshakes::default(), Rc::new(Clock::default()));
        let begin = |network| all.begin(network, 4, Duration::from_secs(10), &clock);
        let many = [(); 4].map(|()| begin(SOMEBODY).unwrap());
        assert!(begin(SOMEBODY).is_none(), "not for themselves");
        let few = [(); 2].map(|()| begin(SOMEBODY_ELSE).unwrap());
        assert!(begin(SOMEBODY_ELSE).is_none(), "they have as many now");
        clock.advance(Duration::from_millis(100));
        let limit = Some(Handshake::Limit);
        assert_eq!([0, 1, 2, 3].map(|at| ended(&many[at])), [limit, limit, None, None]);
        assert_eq!([0, 1].map(|at| ended(&few[at])), [None, None]);
        drop((many, few));
        let open = all.0.borrow();
        assert!(open.all.is_empty() && open.crowds.is_empty() && open.sizes.is_empty());
    }
}
