//! G3: drained is an answer, not a timer.

use super::*;
use crate::release::Phase;

#[tokio::test]
async fn drained_is_said_when_the_last_request_has_ended() {
    let world = World::start(Memory::default(), specs());
    let (blue, mut notices) = (world.upstream("blue"), world.handle.subscribe());
    world.admit(&blue);
    world.flip("green").await.unwrap();
    assert_eq!(world.leaving(), [version("blue")]);
    let waited = [(shop(), version("blue"))];
    let mut wait = pin!(world.handle.wait_drained(&waited));
    assert!(poll!(wait.as_mut()).is_pending());
    blue.shard(1).counts.end();
    let (name, seconds) = drained(&mut notices).await;
    assert_eq!((name, seconds >= 0.0), (version("blue"), true));
    assert!(matches!(guarded(wait).await.unwrap(), Waited::Drained(_)));
    assert_eq!(world.handle.state().deployment(&shop()).unwrap().phase, Phase::Steady);
    assert_eq!(world.epoch(), Epoch(2), "a drain is no change");
    assert_eq!(world.handle.figures().services()[&shop()].drain.count(), 1);
}

#[tokio::test]
async fn a_version_that_is_back_is_never_called_drained() {
    let world = World::start(Memory::default(), specs());
    let (blue, mut notices) = (world.upstream("blue"), world.handle.subscribe());
    world.admit(&blue);
    world.flip("green").await.unwrap();
    let waited = [(shop(), version("blue"))];
    let mut wait = pin!(world.handle.wait_drained(&waited));
    assert!(poll!(wait.as_mut()).is_pending());
    world.order(Command::Revert { service: shop() }).await.unwrap();
    let Waited::Returned(_, back) = guarded(wait).await.unwrap() else { panic!("it is not drained") };
    assert_eq!(back, version("blue"));
    assert_eq!(drained(&mut notices).await.0, version("green"));
    blue.shard(1).counts.end();
    world.flip("green").await.unwrap();
    assert_eq!(drained(&mut notices).await.0, version("blue"), "by the second flip, not the first");
}

#[tokio::test]
async fn the_tenure_of_a_removed_version_is_watched_to_its_end() {
    let world = World::start(Memory::default(), specs());
    let (blue, mut notices) = (world.upstream("blue"), world.handle.subscribe());
    world.admit(&blue);
    world.flip("green").await.unwrap();
    world.order(Command::RemoveVersion { service: shop(), version: version("blue") }).await.unwrap();
    assert!(world.handle.is_draining(&shop(), &version("blue")));
    assert_eq!(world.upstream("blue").id, blue.id, "its series stay");

    // The version comes again, and carries traffic, while the old tenure still has work.
    let pool = spec("shop").versions.remove(0);
    world.order(Command::PutVersion { service: shop(), version: pool }).await.unwrap();
    world.flip("blue").await.unwrap();
    assert_eq!(drained(&mut notices).await.0, version("green"));
    let tenures = world.handle.tenures().tenures();
    let of_blue: Vec<_> = tenures.iter().filter(|upstream| upstream.version == version("blue")).collect();
    assert_eq!(of_blue.len(), 2);
    let present = of_blue.iter().find(|upstream| upstream.id != blue.id).unwrap();

    // It is left again: drained only when both tenures are.
    world.admit(present);
    world.flip("green").await.unwrap();
    let waited = [(shop(), version("blue"))];
    let mut wait = pin!(world.handle.wait_drained(&waited));
    present.shard(1).counts.end();
    assert!(poll!(wait.as_mut()).is_pending());
    blue.shard(1).counts.end();
    assert!(matches!(guarded(wait).await.unwrap(), Waited::Drained(_)));
    assert_eq!(drained(&mut notices).await.0, version("blue"));
    assert!(notices.is_empty(), "once");
}

#[tokio::test]
async fn a_dropped_service_is_watched_to_its_end() {
    let world = World::start(Memory::default(), vec![spec("shop"), spec("cart")]);
    let (blue, mut notices) = (world.upstream("blue"), world.handle.subscribe());
    assert_eq!(blue.service.as_str(), "cart");
    world.admit(&blue);
    let done = world.handle.reload(specs(), file()).await.unwrap();
    assert_eq!(done.effects.left, [("cart".parse().unwrap(), version("blue"))]);
    assert!(world.handle.is_draining(&"cart".parse().unwrap(), &version("blue")));
    blue.shard(1).counts.end();
    let Notice::Changed(_) = guarded(notices.recv()).await.unwrap() else { panic!("first the change") };
    assert_eq!(drained(&mut notices).await.0, version("blue"));
    assert_eq!(world.handle.figures().services().len(), 2, "the figures stay");
}
