//! Holds end in time whatever the store does, and no schedule of an exclusive flip lets two versions serve at once.

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;
use crate::proxy::admission::{Class, Counts};
use crate::proxy::hold::Gate;
use crate::table::{HoldScope, Holder, Holds, Table};

fn hold(millis: u64) -> Command {
    let timeout = Some(Duration::from_millis(millis));
    Command::Hold { service: shop(), holder: Holder::Operator, scope: HoldScope::All, timeout }
}

fn exclusive(to: &str, millis: u64) -> Wanted {
    let timeout = Some(Duration::from_millis(millis));
    let how = Exclusively { scope: HoldScope::All, streams: Streams::Refuse, timeout };
    Wanted { exclusive: Some(how), ..wanted(Asked::Command(flip(to))) }
}

impl World {
    fn gate(&self) -> Option<Arc<Gate>> {
        self.handle.live().snapshot().gates(&shop()).first().cloned()
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let patiently = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        guarded(patiently).await;
    }
}

#[tokio::test]
async fn a_hold_ends_in_time_although_the_store_is_lost_and_is_told_when_it_is_back() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    world.order(hold(20)).await.unwrap();
    let (gate, mut notices) = (world.gate().unwrap(), world.handle.subscribe());
    memory.go_down();
    world.until(|_| gate.ended() == Some(Ended::Time)).await;
    assert!(world.gate().is_some(), "the table still says that it is held");
    memory.come_up();
    let Notice::Changed(change) = guarded(notices.recv()).await.unwrap() else { panic!("a change") };
    assert_eq!(
        (change.kind.token(), change.reason.as_str()),
        ("release", "the hold has ended: its time of 0.02 s was over")
    );
    assert!(world.gate().is_none());
}

#[tokio::test]
async fn an_exclusive_flip_that_cannot_be_kept_lets_everybody_go_on_where_they_were() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    let blue = world.upstream("blue");
    world.admit(&blue);
    let mut flip = pin!(world.handle.change(exclusive("green", 60_000)));
    assert!(poll!(flip.as_mut()).is_pending());
    world.until(|world| world.gate().is_some()).await;
    let gate = world.gate().unwrap();
    memory.fail(1, Fault::BeforeKeeping);
    blue.shard(1).counts.end();
    assert!(matches!(guarded(flip).await, Err(Failed::Store(_))));
    assert_eq!((gate.ended(), world.split()), (Some(Ended::Store), "blue 100 %".to_owned()));
    world.until(|world| world.gate().is_none()).await;
    assert_eq!(
        memory.changes().iter().map(|change| change.kind.token()).collect::<Vec<_>>(),
        ["configure", "hold", "release"]
    );
}

#[tokio::test]
async fn a_store_that_hangs_holds_nobody_for_ever() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    let blue = world.upstream("blue");
    world.admit(&blue);
    let mut flip = pin!(world.handle.change(exclusive("green", 100)));
    assert!(poll!(flip.as_mut()).is_pending());
    world.until(|world| world.gate().is_some()).await;
    let gate = world.gate().unwrap();
    memory.pause();
    blue.shard(1).counts.end();
    assert!(matches!(guarded(flip).await, Err(Failed::Store(StoreError::InDoubt(_)))));
    assert_eq!((gate.ended(), world.split()), (Some(Ended::Store), "blue 100 %".to_owned()));
    // It was kept after all.
    memory.resume();
    world.until(|world| world.gate().is_none()).await;
    assert_eq!(world.split(), "green 100 %");
}

#[tokio::test]
async fn the_longest_hold_there_is_is_not_exceeded() {
    let world = World::start(Memory::default(), specs());
    world.order(hold(u64::MAX / 2)).await.unwrap();
    assert_eq!(world.gate().unwrap().hold().timeout, crate::table::LONGEST_HOLD);
}

#[tokio::test]
async fn a_second_hold_after_one_that_ended_is_another_one() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    world.order(hold(60_000)).await.unwrap();
    let first = world.gate().unwrap();
    first.burst(Ended::Requests);
    world.order(hold(60_000)).await.unwrap();
    let second = world.gate().unwrap();
    assert!(!Arc::ptr_eq(&first, &second) && second.ended().is_none());
    world.order(Command::Release { service: shop(), holder: Holder::Operator }).await.unwrap();
    assert_eq!(second.ended(), Some(Ended::Released));
}

#[tokio::test]
async fn a_hold_that_is_asked_for_once_more_lasts_as_long_from_then_on() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    world.order(hold(60_000)).await.unwrap();
    let first = world.gate().unwrap();
    world.order(hold(60_000)).await.unwrap();
    let second = world.gate().unwrap();
    assert!(second.deadline() > first.deadline());
    assert_eq!((first.ended(), second.ended()), (Some(Ended::Released), None));
    let summaries: Vec<_> = memory.changes().iter().skip(1).map(|change| change.summary.clone()).collect();
    assert_eq!(summaries, ["shop: requests held for at most 60 s"; 2]);
}

#[tokio::test]
async fn a_shutdown_opens_every_gate() {
    let world = World::start(Memory::default(), specs());
    world.order(hold(60_000)).await.unwrap();
    let gate = world.gate().unwrap();
    drop(world);
    assert_eq!(gate.ended(), Some(Ended::Stopping));
}

/// What may happen next.
#[derive(Debug, Clone, Copy)]
enum Move {
    /// A request takes the newest table.
    Come { writes: bool },
    /// One that came is counted in, or waits, or chooses again.
    Enter(prop::sample::Index),
    /// One that runs becomes lasting work.
    Last(prop::sample::Index),
    /// One that runs ends.
    End(prop::sample::Index),
    /// Control begins an exclusive flip to the other version, or holds it as it was asked to.
    Hold(Holder),
    /// Control looks whether the others are empty.
    Look,
    /// A bound is hit.
    Burst,
    /// Control publishes that it is over.
    Release(Holder),
}

fn any_move() -> impl Strategy<Value = Move> {
    let index = any::<prop::sample::Index>;
    let holder = || prop::sample::select(&Holder::ALL[..]);
    prop_oneof![
        3 => any::<bool>().prop_map(|writes| Move::Come { writes }),
        4 => index().prop_map(Move::Enter),
        1 => index().prop_map(Move::Last),
        3 => index().prop_map(Move::End),
        2 => holder().prop_map(Move::Hold),
        3 => Just(Move::Look),
        1 => Just(Move::Burst),
        1 => holder().prop_map(Move::Release),
    ]
}

/// The real table, snapshot, gate and counts, and requests of which each step can come at any time.
struct Schedule {
    state: State,
    live: Live,
    scope: HoldScope,
    /// Those that have chosen, with what they chose from.
    came: Vec<(Arc<Snapshot>, bool)>,
    running: Vec<(Arc<Upstream>, Class)>,
    flips: u32,
}

impl Schedule {
    fn start(scope: HoldScope) -> Self {
        let command = Command::Configure { services: specs(), records: Vec::new() };
        let state = Self::stepped(&State::at(Epoch(0)), command);
        let live = Live::new(Self::joined(&state.table, None));
        Self { state, live, scope, came: Vec::new(), running: Vec::new(), flips: 0 }
    }

    fn stepped(state: &State, command: Command) -> State {
        let order = Order {
            command,
            actor: file(),
            reason: String::new(),
            expected: Vec::new(),
            health: release::Health::default(),
        };
        step(state, Event::Order(order), release::Timestamp(0)).unwrap().0
    }

    fn joined(table: &Arc<Table>, before: Option<&Snapshot>) -> Snapshot {
        Snapshot::join(Arc::clone(table), before, |service, version| {
            Arc::new(Upstream::open(service.name.clone(), version.name.clone(), 1))
        })
    }

    fn publish(&mut self, command: Command) {
        let before = self.live.snapshot();
        self.state = Self::stepped(&self.state, command);
        if self.state.table.epoch() > before.table.epoch() {
            self.live.publish(Arc::new(Self::joined(&self.state.table, Some(&before))));
        }
        let after = self.live.snapshot();
        let is_left = |gate: &Arc<Gate>| after.gates(&shop()).iter().any(|left| Arc::ptr_eq(left, gate));
        before
            .gates(&shop())
            .iter()
            .filter(|gate| !is_left(gate))
            .for_each(|gate| gate.open(Ended::Released));
    }

    fn holds(&self) -> Holds {
        self.state.table.service(&shop()).unwrap().holds
    }

    fn enter(&mut self, index: usize) {
        let (snapshot, writes) = self.came.swap_remove(index);
        let lane = snapshot.assign(snapshot.table.index(&shop()).unwrap(), 0).unwrap();
        let is_held = |gate: &Arc<Gate>| gate.hold().scope.holds(writes) && gate.ended().is_none();
        let class = Class::of(writes);
        let counts = |class| -> &Counts { lane.upstream.shard(0).of(class) };
        let is_in = !snapshot.gates(&shop()).iter().any(is_held)
            && counts(class).admit(self.live.published(), snapshot.table.epoch().0).is_ok();
        if is_in {
            self.running.push((Arc::clone(&lane.upstream), class));
        } else {
            // It waits, or was too late: it looks again, at the newest.
            self.came.push((self.live.snapshot(), writes));
        }
    }

    /// As control does: the others' counts, then the seal, then the flip.
    fn look(&mut self) {
        let snapshot = self.live.snapshot();
        let mut gates = snapshot.gates(&shop()).iter();
        let Some(gate) = gates.find(|gate| gate.hold().holder == Holder::Exclusive) else { return };
        let service = Arc::clone(self.state.table.service(&shop()).unwrap());
        let to = service.versions.iter().find(|version| version.name != service.stable).unwrap();
        let mut others = snapshot.upstreams().filter(|upstream| upstream.version != to.name);
        let is_empty = others.all(|other| other.in_flight_of(|class| self.scope.holds(class.writes())) == 0);
        if gate.ended().is_none() && is_empty && gate.seal() {
            self.publish(Command::Switch {
                service: shop(),
                to: to.name.clone(),
                scope: self.scope,
                supervise: Supervise::AsConfigured,
            });
            self.flips += 1;
        }
    }

    fn play(&mut self, next: Move) {
        let (came, running) = (self.came.len(), self.running.len());
        match next {
            Move::Come { writes } => self.came.push((self.live.snapshot(), writes)),
            Move::Enter(index) if came > 0 => self.enter(index.index(came)),
            Move::Last(index) if running > 0 => {
                let (upstream, class) = &mut self.running[index.index(running)];
                if !class.is_lasting() {
                    let shard = upstream.shard(0);
                    shard.of(class.lasting()).take_over(shard.of(*class));
                    *class = class.lasting();
                }
            }
            Move::End(index) if running > 0 => {
                let (upstream, class) = self.running.swap_remove(index.index(running));
                upstream.shard(0).of(class).end();
            }
            Move::Hold(holder @ Holder::Exclusive) if self.holds().of(holder).is_some() => {}
            Move::Hold(holder) => {
                self.publish(Command::Hold { service: shop(), holder, scope: self.scope, timeout: None })
            }
            Move::Look => self.look(),
            Move::Burst => {
                self.live.snapshot().gates(&shop()).iter().for_each(|gate| gate.burst(Ended::Requests));
            }
            Move::Release(holder) => self.publish(Command::Release { service: shop(), holder }),
            Move::Enter(_) | Move::Last(_) | Move::End(_) => {}
        }
    }

    /// Of all that the flip is about, nothing runs on two versions.
    fn check(&self) {
        let of_scope = self.running.iter().filter(|(_, class)| self.scope.holds(class.writes()));
        let versions: std::collections::BTreeSet<_> =
            of_scope.map(|(upstream, _)| &upstream.version).collect();
        assert!(versions.len() < 2, "{versions:?} serve at the same time");
    }
}

#[test]
fn a_schedule_flips_when_the_last_has_ended_and_not_before() {
    let first =
        any::<prop::sample::Index>().new_tree(&mut proptest::test_runner::TestRunner::deterministic());
    let first = first.unwrap().current();
    let mut schedule = Schedule::start(HoldScope::All);
    let come = Move::Come { writes: true };
    let begin = [
        come,
        Move::Enter(first),
        come,
        Move::Last(first),
        Move::Hold(Holder::Exclusive),
        Move::Look,
        Move::Enter(first),
    ];
    begin.into_iter().for_each(|next| schedule.play(next));
    assert_eq!((schedule.flips, schedule.running.len(), schedule.came.len()), (0, 1, 1));
    let end = [Move::End(first), Move::Look, Move::Enter(first), Move::Enter(first)];
    end.into_iter().for_each(|next| schedule.play(next));
    assert_eq!((schedule.flips, schedule.running.len(), schedule.came.len()), (1, 1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_schedule_lets_two_versions_serve_at_once(
        all: bool,
        moves in prop::collection::vec(any_move(), 1..120),
    ) {
        let mut schedule = Schedule::start(if all { HoldScope::All } else { HoldScope::Writes });
        for next in moves {
            schedule.play(next);
            schedule.check();
        }
        // Whatever happened: once everything has ended and nothing is held, all that came go on.
        for holder in Holder::ALL {
            schedule.publish(Command::Release { service: shop(), holder });
        }
        while !schedule.came.is_empty() {
            schedule.enter(0);
        }
        let (running, snapshot) = (schedule.running.len() as u64, schedule.live.snapshot());
        prop_assert_eq!(snapshot.upstreams().map(|upstream| upstream.in_flight()).sum::<u64>(), running);
    }
}
