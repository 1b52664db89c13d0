//! The store is lent and comes back.

use super::*;
use crate::control::elders::{self, Elder};
use crate::metrics::Kind;
use crate::proxy::upstream::{Remaining, Standing};
use crate::table::{EndpointAddr, HealthCheck, PoolRules};

/// `shop` with checks; blue has these endpoints.
fn checked(ports: &[u16]) -> ServiceSpec {
    let mut shop = spec("shop");
    let rules = PoolRules { health: Some(Arc::new(HealthCheck::default())), ..PoolRules::default() };
    shop.pool = Arc::new(rules);
    shop.versions[0].endpoints = ports.iter().map(|port| endpoint(*port)).collect();
    shop
}

fn endpoint(port: u16) -> EndpointAddr {
    format!("127.0.0.1:{port}").parse().unwrap()
}

#[tokio::test]
async fn a_store_that_comes_back_with_a_change_brings_its_endpoints_as_any_change_does() {
    let dir = TempDir::new().unwrap();
    let world = World::start(sqlite(dir.path()), vec![checked(&[1])]);
    world.handle.lend().await.unwrap();
    let changed = vec![checked(&[1, 2])];
    // The process that was to take over makes a change, and fails.
    let (control, other) = open(Box::new(sqlite(dir.path())), changed.clone(), 1, file()).unwrap();
    control.run(std::future::ready(())).await;
    drop(other);
    world.handle.take_back(Box::new(sqlite(dir.path())), changed, file()).await.unwrap();
    let name = world.handle.state().table.services()[0].versions[0].name.clone();
    let known = world.handle.health().of(&shop(), &name);
    assert_eq!(known.len(), 2);
    let standing = |port| world.upstream(&name.to_string()).standing(&endpoint(port));
    assert_eq!([1, 2].map(standing), [Standing::Unchecked, Standing::Arriving]);
}

#[tokio::test]
async fn what_was_changed_while_the_store_was_lent_is_told_by_who_takes_it_back() {
    let dir = TempDir::new().unwrap();
    let world = World::start(sqlite(dir.path()), vec![checked(&[1])]);
    let mut notices = world.handle.subscribe();
    world.handle.lend().await.unwrap();
    let (control, other) = open(Box::new(sqlite(dir.path())), vec![checked(&[2])], 1, file()).unwrap();
    control.run(std::future::ready(())).await;
    drop(other);
    world.handle.take_back(Box::new(sqlite(dir.path())), vec![checked(&[1])], file()).await.unwrap();
    for (epoch, reason) in [(2, "start"), (3, "take back")] {
        let Ok(Notice::Changed(change)) = notices.try_recv() else { panic!("change {epoch} is not told") };
        assert_eq!((change.epoch, &*change.reason), (Epoch(epoch), reason));
    }
    let figures = world.handle.figures().services();
    assert_eq!(figures[&shop()].changes.values().sum::<u64>(), 3);
}

/// Whoever took it over would begin anew, at the first epoch.
#[tokio::test]
async fn a_store_that_was_taken_away_is_not_lent() {
    let dir = TempDir::new().unwrap();
    let world = World::start(sqlite(dir.path()), specs());
    let away = dir.path().with_extension("away");
    std::fs::rename(dir.path(), &away).unwrap();
    let refused = world.handle.lend().await.unwrap_err();
    assert!(refused.to_string().contains("is gone"), "{refused}");
    std::fs::rename(&away, dir.path()).unwrap();
    world.handle.lend().await.unwrap();
}

#[tokio::test]
async fn who_has_given_up_supervises_nobody_any_more() {
    let world = World::start(Memory::default(), specs());
    let supervising = supervisor::run(world.handle.clone());
    world.handle.give_up().await;
    guarded(supervising).await;
}

/// A process that was taken over from, with so many requests on blue.
fn elder(count: u64) -> Elder {
    let work = Remaining { kind: Kind::Request, endpoint: None, count, oldest: Duration::ZERO };
    let left = elders::Left { service: shop(), version: version("blue"), work };
    let left = if count > 0 { vec![left] } else { Vec::new() };
    let told = Some(elders::Told { connections: count, left, pools: Vec::new() });
    Elder { pid: 1, generation: Some(1), program: None, is_quiet: true, told }
}

/// One that has flipped to green, and what it tells from then on.
async fn flipped() -> (World, broadcast::Receiver<Notice>) {
    let world = World::start(Memory::default(), specs());
    let mut notices = world.handle.subscribe();
    world.flip("green").await.unwrap();
    assert_eq!(drained(&mut notices).await.0, version("blue"));
    (world, notices)
}

#[tokio::test]
async fn the_end_of_a_drain_is_told_by_who_takes_over_once_the_other_has_given_up() {
    let mut old = World::start(Memory::default(), specs());
    let (new, mut told) = flipped().await;
    let blue = old.upstream("blue");
    old.admit(&blue);
    old.flip("green").await.unwrap();
    let mut silent = old.handle.subscribe();
    let untold = old.handle.give_up().await;
    let names: Vec<_> = untold.iter().map(|untold| (&untold.service, &untold.version)).collect();
    assert_eq!(names, [(&shop(), &version("blue"))]);
    blue.shard(1).counts.end();
    while !old.handle.draining().is_empty() {
        guarded(old.handle.changed()).await;
    }
    assert!(silent.try_recv().is_err(), "it says nothing any more");
    new.handle.elders().leave_to_tell(untold);
    new.handle.elders().set(elder(0));
    assert_eq!(drained(&mut told).await.0, version("blue"));
    assert!(new.handle.draining().is_empty() && told.try_recv().is_err(), "once");
}

#[tokio::test]
async fn what_an_elder_has_left_is_leaving_until_it_is_over() {
    let (mut world, mut told) = flipped().await;
    assert_eq!(world.leaving(), []);
    world.handle.elders().set(elder(1));
    while world.leaving() != [version("blue")] {
        guarded(world.handle.changed()).await;
    }
    world.handle.elders().set(elder(0));
    assert_eq!(drained(&mut told).await.0, version("blue"));
    assert_eq!(world.leaving(), []);
}

#[tokio::test]
async fn what_an_elder_has_left_is_told_by_the_next_one_too() {
    let (mut old, _told) = flipped().await;
    old.handle.elders().set(elder(1));
    while old.handle.draining().is_empty() {
        guarded(old.handle.changed()).await;
    }
    let untold = old.handle.give_up().await;
    assert_eq!(untold.iter().map(|untold| &untold.version).collect::<Vec<_>>(), [&version("blue")]);
}

#[test]
fn a_store_that_cannot_keep_the_first_change_says_so_at_start() {
    let memory = Memory::default();
    memory.fail(1, Fault::BeforeKeeping);
    let failed = open(Box::new(memory), specs(), 1, file()).unwrap_err();
    assert!(matches!(failed, OpenFailed::Store(_)), "{failed}");
}
