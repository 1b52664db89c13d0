//! Health against a table that changes, with a judge that is told the time.

use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::judge::Judge;
use super::*;
use crate::proxy::live::Live;
use crate::proxy::upstream::{Heard, Vitals};
use crate::table::{
    DrainRules, Epoch, HoldLimits, OutlierRules, PoolRules, PoolTraits, Protocol, Route, ServiceLimits,
    ServiceSpec, Split, Table, Timeouts,
};

/// `shop`, all of it on blue.
pub(super) struct World {
    pub(super) health: Arc<Health>,
    pub(super) live: Arc<Live>,
    pub(super) judge: Judge,
    pub(super) now: Instant,
}

fn shop() -> ServiceName {
    "shop".parse().unwrap()
}

pub(super) fn endpoint(port: u16) -> EndpointAddr {
    format!("127.0.0.1:{port}").parse().unwrap()
}

fn table(epoch: u64, ports: &[u16], rules: PoolRules) -> Arc<Table> {
    let blue = VersionSpec {
        name: "blue".parse().unwrap(),
        endpoints: ports.iter().copied().map(endpoint).collect(),
        protocol: Protocol::default(),
        tls: None,
        proxy_header: None,
        draining: Arc::default(),
        traits: PoolTraits::default(),
        pool: None,
    };
    let route = Route { host: "shop.example.com".parse().unwrap(), path: "/".into(), headers: vec![] };
    let spec = ServiceSpec {
        name: shop(),
        routes: Arc::new([route]),
        versions: vec![blue.clone()],
        stable: blue.name.clone(),
        discovering: Vec::new(),
        weights: vec![(blue.name.clone(), 10_000)],
        timeouts: Timeouts::default(),
        rules: None,
        limits: ServiceLimits::default(),
        drain: DrainRules::default(),
        hold: HoldLimits::standard(),
        pool: Arc::new(rules),
        supervise: None,
        sticky: None,
        targeting: Default::default(),
        shield: None,
        upgrades: Default::default(),
        mirror: None,
    };
    let split = Split::all_to(blue.name.clone());
    let service = crate::table::Service::new(&spec, vec![blue.clone()], blue.name, split, Epoch(epoch));
    Arc::new(Table::build(Epoch(epoch), vec![Arc::new(service)]).unwrap())
}

impl World {
    pub(super) fn start(ports: &[u16], rules: PoolRules) -> Self {
        let (health, Fresh(_, tasks)) = Health::new(broadcast::Sender::new(16));
        let first = Snapshot::join(table(1, ports, rules), None, |service, version| {
            Arc::new(Upstream::open(service.name.clone(), version.name.clone(), 1))
        });
        health.follow([shop()].iter(), None, &first);
        let live = Arc::new(Live::new(first));
        let judge = Judge::new(Arc::clone(&health), Arc::clone(&live), tasks);
        Self { health, live, judge, now: clock::instant() }
    }

    /// Other rules, as after a reload.
    pub(super) fn reload(&self, ports: &[u16], rules: PoolRules) {
        let before = self.live.snapshot();
        let next = table(before.table.epoch().0 + 1, ports, rules);
        let after = Arc::new(Snapshot::join(next, Some(&before), |_, _| unreachable!("it is there")));
        self.health.follow([shop()].iter(), Some(&before), &after);
        self.live.publish(after);
    }

    /// Has the judge do what it was told.
    pub(super) fn take_tasks(&mut self) {
        while let Ok(task) = self.judge.tasks.try_recv() {
            self.judge.on_task(task, self.now);
        }
    }

    pub(super) fn vitals(&self, port: u16) -> Arc<Vitals> {
        self.live.snapshot().upstream(0, 0).vitals(&endpoint(port))
    }

    pub(super) fn hear(&self, port: u16, heard: Heard, times: usize) {
        for _ in 0..times {
            let _ = self.vitals(port).hear(heard);
        }
    }

    /// How many suspects the judge has looked at.
    pub(super) fn judged(&mut self) -> usize {
        let suspects = self.health.suspects.come(99).now_or_never().unwrap_or_default();
        self.judge.on_suspects(&suspects, self.now);
        suspects.len()
    }
}

#[test]
fn a_pool_that_fails_as_a_whole_is_looked_at_at_a_bounded_rate() {
    let mut world = World::start(&[1, 2], PoolRules::default());
    let mut looks = 0;
    // Both fail a thousand times a second for two seconds.
    for _ in 0..2_000 {
        [1, 2].into_iter().for_each(|port| world.hear(port, Heard::Nothing, 1));
        looks += world.judged();
        world.now += Duration::from_millis(1);
        world.judge.on_time(world.now);
    }
    assert_eq!(looks, 20, "each of them every 200 ms");
    // Somebody does better: with the next look the other is ejected.
    world.hear(2, Heard::Good, 1);
    world.now += Duration::from_millis(200);
    world.judge.on_time(world.now);
    world.hear(1, Heard::Nothing, 1);
    assert_eq!(world.judged(), 1);
    assert_eq!(world.vitals(1).standing(), Standing::Ejected);
}

#[test]
fn no_more_are_ejected_in_one_look_than_may_be() {
    let ports: Vec<_> = (1..=20).collect();
    let rules = OutlierRules { max_ejected: "10%".parse().unwrap(), ..OutlierRules::default() };
    let mut world = World::start(&ports, PoolRules { outliers: rules, ..PoolRules::default() });
    world.hear(20, Heard::Good, 1);
    (1..=10).for_each(|port| world.hear(port, Heard::Nothing, 5));
    assert_eq!(world.judged(), 10);
    let ejected = |port: &u16| world.vitals(*port).standing() == Standing::Ejected;
    assert_eq!(ports.iter().copied().filter(ejected).count(), 2);
}

#[test]
fn one_that_was_never_asked_is_not_taken_for_a_better_one() {
    let mut world = World::start(&[1, 2, 3], PoolRules::default());
    world.hear(1, Heard::Error, 5);
    world.hear(2, Heard::Gateway, 5);
    assert_eq!(world.judged(), 2);
    let standings = [1, 2, 3].map(|port| world.vitals(port).standing());
    assert_eq!(standings, [Standing::Unchecked; 3], "of the third nothing is known");
    world.hear(3, Heard::Good, 1);
    world.hear(3, Heard::Error, 1);
    world.now += Duration::from_millis(200);
    world.judge.on_time(world.now);
    world.hear(1, Heard::Error, 1);
    assert_eq!((world.judged(), world.vitals(1).standing()), (1, Standing::Unchecked), "it fails too");
}

#[test]
fn who_got_no_requests_in_one_process_gets_none_in_the_next() {
    let checked = || PoolRules { health: Some(Arc::default()), ..PoolRules::default() };
    let mut old = World::start(&[1, 2, 3], checked());
    let member = judge::member(old.live.snapshot().upstream(0, 0), &endpoint(1));
    let answer = Answer { is_well: false, said: "status 503".to_owned(), at: clock::now() };
    let turned = old.health.known_subject(&member).unwrap().found(answer.clone());
    assert_eq!(turned.map(|turned| turned.to), Some(Standing::Down));
    old.hear(2, Heard::Good, 1);
    old.hear(3, Heard::Nothing, 5);
    assert_eq!(old.judged(), 1);
    let told = old.health.sidelined();
    assert_eq!(told.len(), 2);

    let mut next = World::start(&[1, 2, 3], checked());
    assert_eq!(next.health.inherit(&next.live.snapshot(), told.clone()), 2);
    let standings = |world: &World| [1, 2, 3].map(|port| world.vitals(port).standing());
    assert_eq!(standings(&next), [Standing::Down, Standing::Unchecked, Standing::Ejected]);
    let known = next.health.of(&shop(), &"blue".parse().unwrap());
    assert_eq!(known[&endpoint(1)].last_failure, Some(answer));
    assert_eq!(known[&endpoint(3)].ejection.as_ref().unwrap().said, "5 failures in a row");
    next.take_tasks();
    next.judge.on_time(next.now + Duration::from_secs(29));
    assert_eq!(standings(&next)[2], Standing::Ejected);
    next.judge.on_time(next.now + Duration::from_secs(31));
    assert_eq!(standings(&next)[2], Standing::Unchecked, "its time is over here too");

    // Where nobody is checked or ejected there is nothing to take over.
    let never = PoolRules { outliers: OutlierRules::never(), ..PoolRules::default() };
    let other = World::start(&[1, 2, 3], never);
    assert_eq!(other.health.inherit(&other.live.snapshot(), told), 0);
    assert_eq!(standings(&other), [Standing::Unchecked; 3]);
}

#[test]
fn other_rules_hold_for_those_that_are_ejected_already() {
    let with = |outliers| PoolRules { outliers, ..PoolRules::default() };
    let mut world = World::start(&[1, 2], with(OutlierRules::default()));
    let eject = |world: &mut World| {
        world.hear(2, Heard::Good, 1);
        world.hear(1, Heard::Nothing, 5);
        assert_eq!(world.judged(), 1);
        assert_eq!(world.vitals(1).standing(), Standing::Ejected);
    };
    eject(&mut world);
    world.reload(&[1, 2], with(OutlierRules::never()));
    assert_eq!(world.vitals(1).standing(), Standing::Unchecked, "nobody is ejected any more");
    world.reload(&[1, 2], with(OutlierRules::default()));
    eject(&mut world);
    world.reload(&[1], with(OutlierRules::default()));
    assert_eq!(world.vitals(1).standing(), Standing::Unchecked, "it is alone");

    world.reload(
        &[1, 2],
        with(OutlierRules { base_ejection: Duration::from_hours(1), ..OutlierRules::default() }),
    );
    eject(&mut world);
    let second = Duration::from_secs(1);
    world.reload(
        &[1, 2],
        with(OutlierRules { base_ejection: second, max_ejection: second, ..OutlierRules::default() }),
    );
    world.take_tasks();
    world.judge.on_time(clock::instant() + Duration::from_secs(2));
    assert_eq!(world.vitals(1).standing(), Standing::Unchecked, "its time is shorter");
}
