//! What each policy promises, over many choices with a fixed seed and a clock that is told.

mod hashed;
mod measured;
mod policies;
mod starting;
mod zones;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::proxy::clock::{self, TICK};
use crate::proxy::upstream::Upstream;
use crate::proxy::upstream::pool::{Destination, Pools};
use crate::proxy::upstream::vitals::Standing;
use crate::table::{BasisPoints, EndpointAddr, EndpointWeight, Hashing, Protocol, SlowStart};

/// A pool with its board, at a time of its own.
struct World {
    upstream: Arc<Upstream>,
    seats: Vec<Rc<Seat>>,
    traits: Vec<Traits>,
    balance: Balance,
    zone: Option<ZoneName>,
    board: Board,
    random: RefCell<SmallRng>,
    start: Instant,
    at: Duration,
}

fn address(index: usize) -> EndpointAddr {
    format!("10.0.{}.{}:80", index / 250, index % 250 + 1).parse().unwrap()
}

fn traits(weight: u64, zone: &str) -> Traits {
    let zone = (!zone.is_empty()).then(|| zone.parse().unwrap());
    Traits { weight: EndpointWeight::new(weight).unwrap(), zone }
}

impl World {
    fn of(count: usize, policy: Policy) -> Self {
        let upstream = Arc::new(Upstream::open("shop".parse().unwrap(), "blue".parse().unwrap(), 1));
        let pools: Rc<Pools> = Rc::default();
        let seat = |index| {
            let address = address(index);
            let vitals = upstream.vitals(&address);
            let there = Destination { address, protocol: Protocol::Http1, proxy_header: None, tls: None };
            Rc::new(Seat::new(pools.name(there), vitals))
        };
        Self {
            seats: (0..count).map(seat).collect(),
            upstream,
            traits: Vec::new(),
            balance: Balance { policy, ..Balance::default() },
            zone: None,
            board: Board::default(),
            random: RefCell::new(SmallRng::seed_from_u64(7)),
            start: clock::now(),
            at: Duration::ZERO,
        }
    }

    fn weighing(policy: Policy, weights: &[u64]) -> Self {
        let traits = weights.iter().map(|weight| traits(*weight, "")).collect();
        Self { traits, ..Self::of(weights.len(), policy) }
    }

    fn now(&self) -> Instant {
        self.start + self.at
    }

    fn stands(&self, index: usize, standing: Standing) {
        self.seats[index].vitals.set_standing(standing, self.now());
    }

    fn choice(&mut self, tried: &[usize], key: Option<u64>) -> Option<Choice> {
        let now = self.now();
        let tick = (self.at.as_millis() / TICK.as_millis()).try_into().unwrap();
        let revision = self.upstream.shard(0).revision();
        let Self { seats, traits, balance, zone, board, random, .. } = self;
        if !board.is_current(revision, tick) {
            board.make(Pool { seats, traits, balance, zone: zone.as_ref() }, revision, tick, now);
        }
        let untried = |seat: &Seat| !tried.iter().any(|index| seats[*index].id() == seat.id());
        let suits = (!tried.is_empty()).then_some(&untried as &dyn Fn(&Seat) -> bool);
        let (lot, key, now) = (|| random.borrow_mut().next_u64(), |_: &HashKey| key, || now);
        board.choose(seats, Asking { suits, lot: &lot, key: &key, now: &now })
    }

    fn pick(&mut self) -> usize {
        self.choice(&[], None).unwrap().seat
    }

    fn of_key(&mut self, key: u64) -> usize {
        self.choice(&[], Some(hash(&key.to_be_bytes()))).unwrap().seat
    }

    /// How often each was chosen of `total` times, with nothing in flight.
    fn counts(&mut self, total: usize) -> Vec<usize> {
        let mut counts = vec![0; self.seats.len()];
        (0..total).for_each(|_| counts[self.pick()] += 1);
        counts
    }

    fn shares(&mut self) -> Vec<f64> {
        const TOTAL: usize = 40_000;
        self.counts(TOTAL).into_iter().map(|count| count as f64 / TOTAL as f64).collect()
    }
}

fn is_near(shares: &[f64], expected: &[f64]) {
    let near = shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() < 0.01);
    assert!(near && shares.len() == expected.len(), "{shares:?}, and not {expected:?}");
}

fn hashing(bound: Option<u32>) -> Policy {
    Policy::Hash(Hashing { key: HashKey::Path, bound })
}

fn ewma() -> Policy {
    Policy::Ewma { decay: Policy::DECAY }
}

fn all() -> [Policy; 5] {
    [Policy::P2c, Policy::RoundRobin, Policy::Random, hashing(Some(Hashing::BOUND)), ewma()]
}
