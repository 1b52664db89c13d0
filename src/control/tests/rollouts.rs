//! Rollouts against a store that does not say what it has kept.

use std::net::TcpListener;

use tokio::sync::broadcast;
use tokio::task::LocalSet;

use super::*;
use crate::control::rollout::{self, Back, Order as RolloutOrder, RolloutState, StepState, Told};
use crate::release::rollout::{Move, Plan};
use crate::table::EndpointAddr;

/// `shop` on endpoints that accept connections: two of blue and one of green.
struct Pools {
    world: World,
    memory: Memory,
    endpoints: [EndpointAddr; 3],
    _listeners: [TcpListener; 3],
}

impl Pools {
    fn start() -> Self {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let endpoints = [0, 1, 2].map(|index: usize| {
            listeners[index].local_addr().unwrap().to_string().parse::<EndpointAddr>().unwrap()
        });
        let mut service = spec("shop");
        service.versions[0].endpoints = Arc::from(&endpoints[..2]);
        service.versions[1].endpoints = Arc::from(&endpoints[2..]);
        let memory = Memory::default();
        let world = World::start(memory.clone(), vec![service]);
        Self { world, memory, endpoints, _listeners: listeners }
    }

    /// Replaces the first endpoint of blue by the one of green.
    async fn begin(&self, to: &str) {
        let into = if to == "blue" { "127.0.0.1:1".parse().unwrap() } else { self.endpoints[2].clone() };
        let plan = Plan {
            service: shop(),
            from: version("blue"),
            to: version(to),
            moves: vec![Move { out: Some(self.endpoints[0].clone()), into: Some(into) }],
            batch: 1,
            surge: to != "blue",
            min_serving: 1,
        };
        let order = RolloutOrder {
            plan,
            drain_timeout: GUARD,
            ready_timeout: GUARD,
            settle: Duration::ZERO,
            confirm: false,
            on_failure: Back::All,
            actor: file(),
            reason: String::new(),
            expected: Vec::new(),
            idempotency: None,
        };
        self.world.handle.rollouts().begin(order, &self.world.handle).await.unwrap();
    }

    fn drained(&self) -> Vec<EndpointAddr> {
        let state = self.world.handle.state();
        state.table.service(&shop()).unwrap().version(&version("blue")).unwrap().draining.to_vec()
    }
}

/// Runs with somebody who does rollouts.
async fn with_rollouts(pools: &Pools, done: impl Future<Output = ()>) {
    let (local, dir) = (LocalSet::new(), TempDir::new().unwrap());
    local.spawn_local(rollout::run(pools.world.handle.clone(), dir.path().to_owned()));
    guarded(local.run_until(done)).await;
}

/// Waits until a rollout is told to be so.
async fn until(notices: &mut broadcast::Receiver<Notice>, is_so: impl Fn(&Told) -> bool) -> Told {
    loop {
        match guarded(notices.recv()).await.unwrap() {
            Notice::Rollout(news) if is_so(&news.told) => return news.told.clone(),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_drain_that_the_store_has_kept_although_it_failed_is_taken_back_with_the_rollout() {
    for is_ended_in_doubt in [false, true] {
        let pools = Pools::start();
        let (handle, mut notices) = (&pools.world.handle, pools.world.handle.subscribe());
        with_rollouts(&pools, async {
            pools.memory.fail(1, Fault::KeptThenDown);
            pools.begin("blue").await;
            until(&mut notices, |told| told.hindrance.is_some()).await;
            assert_eq!(pools.drained(), []);
            let end = || handle.rollouts().end(&shop(), Back::All, None).unwrap();
            if is_ended_in_doubt {
                end();
                until(&mut notices, |told| told.state == RolloutState::Reversing).await;
                pools.memory.come_up();
            } else {
                pools.memory.come_up();
                until(&mut notices, |told| told.steps[0].state == StepState::Draining).await;
                assert_eq!(pools.drained(), pools.endpoints[..1]);
                end();
            }
            let told = until(&mut notices, |told| !told.state.is_underway()).await;
            assert_eq!((told.state, told.steps[0].state), (RolloutState::Reversed, StepState::Restored));
            assert_eq!(pools.drained(), []);
        })
        .await;
    }
}

#[tokio::test]
async fn weights_that_the_store_has_kept_although_it_failed_are_the_rollouts_own() {
    let pools = Pools::start();
    let mut notices = pools.world.handle.subscribe();
    with_rollouts(&pools, async {
        pools.memory.fail(1, Fault::KeptThenDown);
        pools.begin("green").await;
        until(&mut notices, |told| told.hindrance.is_some()).await;
        pools.memory.come_up();
        let told = until(&mut notices, |told| {
            told.steps[0].state == StepState::Draining || !told.state.is_underway()
        });
        assert_eq!(told.await.state, RolloutState::Running);
    })
    .await;
}
