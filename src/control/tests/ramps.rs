//! A ramp's steps against a store that fails: told, tried again, none twice; and control's clock.

use super::*;
use crate::control::ramp::RampNotice;
use crate::release::{RampEnd, RampOrder, Steps};
use crate::table::BasisPoints;

/// To green in these steps, each so many milliseconds.
fn up(points: &[u64], millis: u64) -> Command {
    let steps = points.iter().map(|points| BasisPoints::new(*points).unwrap()).collect();
    let order = RampOrder::Begin {
        to: version("green").into(),
        steps: Steps::new(steps).unwrap(),
        every: Some(Duration::from_millis(millis)),
        supervise: Supervise::AsConfigured,
    };
    Command::Ramp { service: shop(), order }
}

async fn news(notices: &mut broadcast::Receiver<Notice>, wanted: impl Fn(&RampNotice) -> bool) -> RampNotice {
    loop {
        if let Notice::Ramp(news) = guarded(notices.recv()).await.unwrap()
            && wanted(&news)
        {
            return RampNotice::clone(&news);
        }
    }
}

fn is_over(news: &RampNotice) -> bool {
    news.ramp.is_err()
}

/// What the changes that are kept have given green.
fn kept(memory: &Memory) -> Vec<u16> {
    let changes = memory.changes().into_iter();
    let standings = changes.filter_map(|change| change.services[0].standing.clone());
    standings.map(|standing| standing.split.weight(&version("green")).points()).collect()
}

#[tokio::test]
async fn a_step_that_is_not_kept_is_told_and_tried_again() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    let mut notices = world.handle.subscribe();
    memory.fail(2, Fault::BeforeKeeping);
    world.order(up(&[100, 5_000, 10_000], 20)).await.unwrap();
    let waiting = news(&mut notices, |news| news.hindrance.is_some()).await;
    assert!(waiting.hindrance.unwrap().starts_with("nothing has changed: the state store failed"));
    assert_eq!(waiting.ramp.unwrap().step, 0);
    assert!(world.handle.ramps().left(&shop()).is_some_and(|(left, why)| left.is_zero() && why.is_some()));
    let ended = news(&mut notices, is_over).await.ramp.unwrap_err();
    assert_eq!((ended.how, kept(&memory)), (RampEnd::Finished, vec![0, 100, 5_000, 10_000]));
    let told = world.handle.ramped(&shop(), ended.begun).await.unwrap();
    assert_eq!(told, Some(ended));
}

#[tokio::test]
async fn a_step_that_was_kept_after_all_is_not_taken_twice() {
    for fault in [Fault::AfterKeeping, Fault::KeptThenDown] {
        let memory = Memory::default();
        let world = World::start(memory.clone(), specs());
        let mut notices = world.handle.subscribe();
        memory.fail(2, fault);
        world.order(up(&[100, 5_000, 10_000], 20)).await.unwrap();
        if fault == Fault::KeptThenDown {
            news(&mut notices, |news| news.hindrance.is_some()).await;
            memory.come_up();
        }
        news(&mut notices, is_over).await;
        assert_eq!(kept(&memory), [0, 100, 5_000, 10_000], "{fault:?}");
    }
}

#[tokio::test]
async fn no_step_is_taken_before_its_time() {
    let world = World::start(Memory::default(), specs());
    let mut notices = world.handle.subscribe();
    let since = clock::instant();
    world.order(up(&[100, 200, 300, 10_000], 100)).await.unwrap();
    for (step, due) in [(1, 100), (2, 200)] {
        news(&mut notices, |news| news.ramp.as_ref().is_ok_and(|ramp| ramp.step == step)).await;
        // From the beginning: each may be heard of late, and then the next one seems early.
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(due), "{took:?}");
    }
    news(&mut notices, is_over).await;
}

#[tokio::test]
async fn a_step_has_its_time_from_when_it_is_published_however_slow_the_store_is() {
    let every = Duration::from_millis(200);
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    let mut notices = world.handle.subscribe();
    world.order(up(&[100, 5_000, 10_000], 200)).await.unwrap();
    memory.pause();
    memory.await_paused_append();
    tokio::time::sleep(every * 2).await;
    let since = clock::instant();
    memory.resume();
    news(&mut notices, is_over).await;
    assert!(since.elapsed() >= every, "{:?}", since.elapsed());
    assert_eq!(kept(&memory), [0, 100, 5_000, 10_000]);
}
