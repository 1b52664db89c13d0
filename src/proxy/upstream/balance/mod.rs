//! Which of a pool's endpoints a request goes to.
//!
//! A [`Board`] is what one worker knows of who may be chosen. It is made again when somebody stands differently than
//! before ([`Shard::revision`](super::Shard::revision)), and now and then while somebody's share grows, so that a
//! choice looks at no more than it needs. While all of a pool serve alike there is nothing on it, and a pool of one costs
//! no choice at all.

mod group;
mod hash;
mod list;
mod p2c;
mod pace;
mod round_robin;

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Instant;

use super::seat::Seat;
use crate::table::{Balance, HashKey, Policy, Traits, ZoneName};
use group::{All, Group, Slate, high};
pub use hash::hash;
use list::Listed;
pub use pace::Pace;
use round_robin::Turns;

/// What a request comes with that is to be sent somewhere.
#[derive(Clone, Copy)]
pub struct Asking<'r> {
    /// Whether an endpoint will do; `None`: all of them.
    pub suits: Option<&'r dyn Fn(&Seat) -> bool>,
    /// Gives 64 fresh random bits.
    pub lot: &'r dyn Fn() -> u64,
    /// Gives the hash of what the pool hashes; `None` when the request does not have it.
    pub key: &'r dyn Fn(&HashKey) -> Option<u64>,
    /// Gives the time.
    pub now: &'r dyn Fn() -> Instant,
}

/// A pool as a board is made from it.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'p> {
    /// Its endpoints.
    pub seats: &'p [Rc<Seat>],
    /// What is said of each, in the same order; empty when nothing is said of any.
    pub traits: &'p [Traits],
    /// How it is worked.
    pub balance: &'p Balance,
    /// Where the proxy stands.
    pub zone: Option<&'p ZoneName>,
}

/// Who of a pool may be chosen, and whose turn it is.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Board {
    /// Of the standings that it was made from.
    revision: u32,
    /// The tick from which on it is to be made again; 0: it has to be made.
    until: u64,
    /// `None`: all of them, alike.
    listed: Option<Box<Listed>>,
    policy: Policy,
    turns: Turns,
    /// Where each endpoint stands among the hashes; empty without need.
    marks: Vec<u64>,
}

/// Who was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// By its index in the pool.
    pub seat: usize,
    /// True when all are used because too few serve.
    pub is_panic: bool,
}

impl Board {
    /// True while everybody stands as when it was made, and nobody's share has grown since.
    #[must_use]
    pub fn is_current(&self, revision: u32, tick: u64) -> bool {
        self.revision == revision && tick < self.until
    }

    /// It has to be made again: the pool is another one.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// It has to be made again: of the same pool, under other circumstances.
    pub fn expire(&mut self) {
        self.until = 0;
    }

    /// Makes it from how the endpoints of `pool` stand now, which is of `revision` or newer.
    pub fn make(&mut self, pool: Pool<'_>, revision: u32, tick: u64, now: Instant) {
        let policy = &pool.balance.policy;
        if self.policy != *policy {
            self.policy = policy.clone();
        }
        let decay = if let Policy::Ewma { decay } = policy { Some(*decay) } else { None };
        pool.seats.iter().for_each(|seat| seat.look(decay));
        if matches!(policy, Policy::Hash(_)) && self.marks.len() != pool.seats.len() {
            let mark = |seat: &Rc<Seat>| hash(seat.endpoint.address.to_string().as_bytes());
            self.marks = pool.seats.iter().map(mark).collect();
        }
        let (listed, step) = list::list(pool, now);
        self.listed = listed.map(Box::new);
        // Without shares that grow it stays until it expires.
        self.until = step.map_or(u64::MAX, |step| tick + step);
        self.revision = revision;
    }

    /// Chooses one of `seats`, which are those that it was made from, and one that suits; `None` when there is nobody who
    /// may be chosen.
    pub fn choose(&mut self, seats: &[Rc<Seat>], asking: Asking<'_>) -> Option<Choice> {
        let Self { policy, listed, turns, marks, .. } = self;
        let Some(listed) = listed else {
            if seats.len() == 1 && asking.suits.is_none() {
                return Some(Choice { seat: 0, is_panic: false });
            }
            let mut ballot = Ballot::new(policy, seats, marks, turns, asking);
            return ballot.one_of(&All(seats.len())).map(|seat| Choice { seat, is_panic: false });
        };
        let mut ballot = Ballot::new(policy, seats, marks, turns, asking);
        let [first, second] = listed.in_order(|| high(ballot.key.unwrap_or_else(|| (asking.lot)())));
        let seat = ballot.one_of(first).or_else(|| ballot.one_of(second))?;
        Some(Choice { seat, is_panic: listed.is_panic })
    }

    /// All who may be chosen, by their indices in the pool of `count`.
    pub fn chosen_from(&self, count: usize) -> Vec<usize> {
        self.listed.as_ref().map_or_else(|| (0..count).collect(), |listed| listed.seats().collect())
    }
}

/// One choice.
struct Ballot<'b> {
    policy: &'b Policy,
    seats: &'b [Rc<Seat>],
    marks: &'b [u64],
    turns: &'b mut Turns,
    asking: Asking<'b>,
    /// What the request is hashed to, if that matters.
    key: Option<u64>,
}

impl<'b> Ballot<'b> {
    fn new(
        policy: &'b Policy,
        seats: &'b [Rc<Seat>],
        marks: &'b [u64],
        turns: &'b mut Turns,
        asking: Asking<'b>,
    ) -> Self {
        let key = match policy {
            Policy::Hash(hashing) => (asking.key)(&hashing.key),
            Policy::P2c | Policy::RoundRobin | Policy::Random | Policy::Ewma { .. } => None,
        };
        Self { policy, seats, marks, turns, asking, key }
    }

    /// One of `slate` that suits.
    fn one_of(&mut self, slate: &impl Slate) -> Option<usize> {
        match self.asking.suits {
            None => self.any_of(slate),
            Some(suits) => {
                let members = (0..slate.len()).map(|place| (slate.seat(place), slate.weight(place)));
                self.any_of(&members.filter(|(seat, _)| suits(&self.seats[*seat])).collect::<Group>())
            }
        }
    }

    /// One of `slate`, all of which suit.
    fn any_of(&mut self, slate: &impl Slate) -> Option<usize> {
        if slate.len() < 2 {
            return (slate.len() == 1).then(|| slate.seat(0));
        }
        let (seats, lot) = (self.seats, self.asking.lot);
        let in_flight = |seat: usize| seats[seat].in_flight();
        Some(match (self.policy, self.key) {
            (Policy::RoundRobin, _) => self.turns.next(slate),
            (Policy::Random, _) => slate.seat(slate.draw(high(lot()))),
            (Policy::Hash(hashing), Some(key)) => {
                hash::choose(slate, key, hashing.bound, |seat| self.marks[seat], in_flight)
            }
            (Policy::P2c, _) | (Policy::Hash(_), None) => p2c::choose(slate, lot(), in_flight),
            (Policy::Ewma { .. }, _) => {
                let now = (self.asking.now)();
                p2c::cheaper(slate, lot(), |seat| seats[seat].pace.cost(seats[seat].in_flight(), now))
            }
        })
    }
}
