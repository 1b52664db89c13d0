//! The holds of now: what is held, until when, and which exclusive flip waits behind it.
//!
//! A hold that ends by itself (a bound, its time) is open at once and for good; that it is over is then published as a change
//! like any other, again and again until the store keeps it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::warn;

use super::exclusive::Errand;
use super::{Control, clock};
use crate::proxy::hold::{Ended, Gate};
use crate::proxy::live::Snapshot;
use crate::proxy::upstream::leaving::Departure;
use crate::release::{Actor, ActorKind, Change, Command, Event, Order, step};
use crate::store::StoreError;
use crate::table::{Hold, Holder, ServiceName};

/// How often it is looked whether an exclusive flip may go on: its clients wait for that.
const OFTEN: Duration = Duration::from_millis(1);

/// All holds, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Holds {
    all: Vec<Holding>,
    /// Notified when a gate has opened by itself.
    pub(super) alert: Arc<Notify>,
    /// True while workers have been told to hurry.
    hurries: bool,
}

#[derive(Debug)]
struct Holding {
    service: ServiceName,
    gate: Arc<Gate>,
    /// What is to be done once the others are empty.
    errand: Option<Box<Errand>>,
    /// When to try again to publish that it is over.
    retry_at: Option<Instant>,
}

impl Holding {
    fn next_look(&self, now: Instant) -> Instant {
        match (self.retry_at, &self.errand) {
            (Some(retry_at), _) => retry_at,
            (None, _) if self.gate.ended().is_some() => now,
            (None, Some(_)) => self.gate.deadline().min(now + OFTEN),
            (None, None) => self.gate.deadline(),
        }
    }
}

impl Holds {
    /// Takes over what a change that was just published has held and released.
    pub(super) fn follow(&mut self, change: &Change, before: &Snapshot, after: &Snapshot) {
        for service in change.services.iter().map(|record| &record.service) {
            for old in only_in(before, after, service) {
                // After the publishing: whoever waits looks again, and sees the new table.
                old.open(Ended::Released);
                for gone in self.all.extract_if(.., |holding| Arc::ptr_eq(&holding.gate, old)) {
                    gone.errand.into_iter().for_each(|errand| errand.ended(service, old, Ended::Released));
                }
            }
            for new in only_in(after, before, service) {
                new.watch(&self.alert);
                let (service, gate) = (service.clone(), Arc::clone(new));
                self.all.push(Holding { service, gate, errand: None, retry_at: None });
            }
        }
    }

    /// True while nothing is held.
    pub(super) fn are_none(&self) -> bool {
        self.all.is_empty()
    }

    /// When to look again.
    pub(super) fn next_poll(&self, now: Instant) -> Option<Instant> {
        self.all.iter().map(|holding| holding.next_look(now)).min()
    }

    /// The gates of this service that have opened by themselves, and why.
    fn ended(&self, service: &ServiceName) -> Vec<(Arc<Gate>, Ended)> {
        let own = self.all.iter().filter(|holding| holding.service == *service);
        own.filter_map(|holding| Some((Arc::clone(&holding.gate), holding.gate.ended()?))).collect()
    }

    /// The exclusive flip of this service that is under way.
    pub(super) fn errand(&mut self, service: &ServiceName) -> Option<&mut Errand> {
        let mut own = self.all.iter_mut().filter(|holding| holding.service == *service);
        own.find_map(|holding| holding.errand.as_deref_mut())
    }

    /// This service's exclusive hold ends with a flip.
    ///
    /// # Errors
    /// The errand, when the service is not held so.
    pub(super) fn entrust(&mut self, service: &ServiceName, errand: Box<Errand>) -> Result<(), Box<Errand>> {
        let is_exclusive = |holding: &&mut Holding| holding.gate.hold().holder == Holder::Exclusive;
        let mut own = self.all.iter_mut().filter(|holding| holding.service == *service);
        match own.find(is_exclusive) {
            Some(holding) => {
                holding.errand = Some(errand);
                Ok(())
            }
            None => Err(errand),
        }
    }

    /// Takes the errand behind this gate away.
    pub(super) fn take_errand(&mut self, gate: &Arc<Gate>) -> Option<Box<Errand>> {
        self.all.iter_mut().find(|holding| Arc::ptr_eq(&holding.gate, gate))?.errand.take()
    }

    /// Those that have to be looked at.
    fn due(&self, now: Instant) -> Vec<(ServiceName, Arc<Gate>)> {
        let due = self.all.iter().filter(|holding| holding.next_look(now) <= now + OFTEN);
        due.map(|holding| (holding.service.clone(), Arc::clone(&holding.gate))).collect()
    }

    /// True when there is an errand behind this gate, and nothing in its way any more.
    fn is_clear(&mut self, gate: &Arc<Gate>) -> bool {
        let holding = self.all.iter_mut().find(|holding| Arc::ptr_eq(&holding.gate, gate));
        holding.and_then(|holding| holding.errand.as_deref_mut()).is_some_and(Errand::look)
    }

    fn retry(&mut self, gate: &Arc<Gate>, at: Instant) {
        let holding = self.all.iter_mut().find(|holding| Arc::ptr_eq(&holding.gate, gate));
        holding.into_iter().for_each(|holding| holding.retry_at = Some(at));
    }

    /// What the workers are to hurry, when that is another list than before.
    fn news_of_hurry(&mut self) -> Option<Vec<Departure>> {
        let errands = self.all.iter().filter_map(|holding| holding.errand.as_deref());
        let hurried: Vec<_> = errands.flat_map(Errand::hurried).cloned().collect();
        let before = std::mem::replace(&mut self.hurries, !hurried.is_empty());
        (before || self.hurries).then_some(hurried)
    }

    /// Everybody goes on: the process ends.
    pub(super) fn open_all(&self) {
        self.all.iter().for_each(|holding| holding.gate.open(Ended::Stopping));
    }
}

/// Before a change is published that releases them: who sees that has the time that it leaves to those who have waited.
pub(super) fn grant_time(change: &Change, before: &Snapshot, after: &Snapshot) {
    let services = change.services.iter().map(|record| &record.service);
    services.flat_map(|service| only_in(before, after, service)).for_each(|gate| gate.grant_time());
}

/// The gates of a service that one of two snapshots has, and the other has not.
fn only_in<'s>(
    one: &'s Snapshot,
    other: &'s Snapshot,
    service: &ServiceName,
) -> impl Iterator<Item = &'s Arc<Gate>> {
    let others = other.gates(service);
    one.gates(service).iter().filter(|gate| !others.iter().any(|other| Arc::ptr_eq(other, gate)))
}

impl Control {
    /// Ends the holds whose time has come, and makes the flips that nothing stands in the way of any more.
    pub(super) async fn poll_holds(&mut self) {
        let now = clock::instant();
        for (service, gate) in self.holds.due(now) {
            if gate.ended().is_none() && self.holds.is_clear(&gate) && gate.seal() {
                self.switch(&service, &gate).await;
            } else if now >= gate.deadline() {
                gate.burst(Ended::Time);
            }
            if let Some(why) = gate.ended().filter(|why| *why != Ended::Released) {
                self.let_go(&service, &gate, why).await;
            }
        }
    }

    /// Tells the workers on which versions what lasts is to go at once, and on which it is spared again.
    pub(super) fn hurry(&mut self) {
        if let Some(hurried) = self.holds.news_of_hurry() {
            self.live.departures.hurry(hurried);
        }
    }

    /// A gate is open: its errand has failed, and the table says so as soon as the store keeps it.
    pub(super) async fn let_go(&mut self, service: &ServiceName, gate: &Arc<Gate>, why: Ended) {
        if let Some(errand) = self.holds.take_errand(gate) {
            errand.ended(service, gate, why);
        }
        self.hurry();
        if let Err(error) = self.release(service, gate, why).await {
            warn!(%service, %error, "the hold is over, which cannot be kept yet; trying again");
            self.holds.retry(gate, clock::instant() + super::ASK_AGAIN);
        }
    }

    /// Holds that have ended are over in the table too before another one begins, if the store keeps it.
    pub(super) async fn settle(&mut self, service: &ServiceName) {
        for (gate, why) in self.holds.ended(service) {
            self.let_go(service, &gate, why).await;
        }
    }

    async fn release(&mut self, service: &ServiceName, gate: &Gate, why: Ended) -> Result<(), StoreError> {
        self.resolve_doubt().await?;
        let Hold { holder, .. } = gate.hold();
        let present = self.state.table.service(service).and_then(|service| service.holds.of(holder));
        if present != Some(gate.hold()) {
            // The holder has another one by now, or none.
            return Ok(());
        }
        let command = Command::Release { service: service.clone(), holder };
        let actor = Actor { kind: ActorKind::Supervisor, name: "switchback".to_owned() };
        let order = Order {
            command,
            actor,
            reason: reason(gate, why),
            expected: Vec::new(),
            health: crate::release::Health::default(),
        };
        // It can only be refused for a service that is gone, and its hold with it.
        let Ok((next, effects)) = step(&self.state, Event::Order(order), clock::now()) else { return Ok(()) };
        self.perform(next, &effects, None).await
    }
}

/// Why a hold has ended, for the history.
pub(super) fn reason(gate: &Gate, why: Ended) -> String {
    let limits = gate.limits();
    match why {
        Ended::Released => "it was released".to_owned(),
        Ended::Requests => format!("the hold has ended: more than {} requests waited", limits.requests),
        Ended::Bytes => {
            format!("the hold has ended: the requests that waited had more than {} bytes", limits.bytes)
        }
        Ended::Time => {
            format!("the hold has ended: its time of {} s was over", gate.hold().timeout.as_secs_f64())
        }
        Ended::Stopping => "the hold has ended: the proxy stops".to_owned(),
        Ended::Store => "the hold has ended: the flip behind it could not be made".to_owned(),
    }
}
