//! The store is lent and comes back.

use super::*;
use crate::proxy::upstream::Standing;
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

#[test]
fn a_store_that_cannot_keep_the_first_change_says_so_at_start() {
    let memory = Memory::default();
    memory.fail(1, Fault::BeforeKeeping);
    let failed = open(Box::new(memory), specs(), 1, file()).unwrap_err();
    assert!(matches!(failed, OpenFailed::Store(_)), "{failed}");
}
