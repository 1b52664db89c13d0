//! Who has the store: it is one process's own, and is lent to the one that is to take this one's place.
//!
//! ```text
//!    Ours ──── lend ───▶ Lent ──── give up ──▶ Gone
//!      ▲                  │
//!      └─── take back ────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::warn;

use super::elders::{Leaving, Pool, Untold};
use super::{Control, Failed, Handle, Notice, OpenFailed, clock, perform};
use crate::proxy::live::Snapshot;
use crate::proxy::upstream::Upstream;
use crate::release::{Actor, Change, Command, Event, Order, State, step};
use crate::store::keeper::Keeper;
use crate::store::{HistoryQuery, Loaded, Store, StoreError};
use crate::table::{DrainRules, Epoch, ServiceName, ServiceSpec, Table};

/// How long whoever wants something of the store waits while it is lent; later ones are told to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who has the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Custody {
    /// This process.
    Ours,
    /// A process that starts; who asks waits until then.
    Lent {
        /// Until when.
        until: Instant,
    },
    /// The process that has taken this one's place.
    Gone,
}

/// What control is told about it.
#[derive(Debug)]
pub(super) enum Transfer {
    Lend(oneshot::Sender<Result<(), Failed>>),
    TakeBack(Box<Returned>, oneshot::Sender<Result<(), OpenFailed>>),
    GiveUp(oneshot::Sender<Vec<Untold>>),
    /// These versions are left, and no others.
    Follow(Vec<Leaving>),
    /// These are the pools.
    GoBy(Vec<Pool>, oneshot::Sender<()>),
}

/// The store as it comes back, and what is laid over it should it have changed.
pub(super) struct Returned {
    pub(super) store: Box<dyn Store>,
    pub(super) services: Vec<ServiceSpec>,
    pub(super) file: Actor,
}

impl std::fmt::Debug for Returned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Returned").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Custody {
    /// True when whoever asks has to wait.
    pub(super) fn is_waited_for(self, now: Instant) -> bool {
        matches!(self, Self::Lent { until } if now < until)
    }

    /// When that ends.
    pub(super) fn wake(self, now: Instant) -> Option<Instant> {
        match self {
            Self::Lent { until } => Some(until).filter(|until| now < *until),
            Self::Ours | Self::Gone => None,
        }
    }

    /// Why nothing can be asked of the store.
    pub(super) fn refusal(self) -> Option<Failed> {
        match self {
            Self::Ours => None,
            Self::Lent { .. } => Some(Failed::Lent),
            Self::Gone => Some(Failed::Succeeded),
        }
    }
}

impl Handle {
    /// Closes the store, so that another process can open it; whoever asks for something of it waits for a while.
    ///
    /// # Errors
    /// [`Failed`] when it may not be closed now.
    pub async fn lend(&self) -> Result<(), Failed> {
        let (reply, done) = oneshot::channel();
        self.transfers.send(Transfer::Lend(reply)).await.map_err(|_| Failed::Closed)?;
        done.await.map_err(|_| Failed::Closed)?
    }

    /// Goes on with the store after it was lent; should it have changed, `services` are laid over it as at the start.
    ///
    /// # Errors
    /// [`OpenFailed`]: everything stays as it is, and can be tried again.
    pub async fn take_back(
        &self,
        store: Box<dyn Store>,
        services: Vec<ServiceSpec>,
        file: Actor,
    ) -> Result<(), OpenFailed> {
        let closed = || OpenFailed::Store(StoreError::Io(Failed::Closed.to_string()));
        let (reply, done) = oneshot::channel();
        let returned = Box::new(Returned { store, services, file });
        self.transfers.send(Transfer::TakeBack(returned, reply)).await.map_err(|_| closed())?;
        done.await.map_err(|_| closed())?
    }

    /// The process that the store was lent to keeps it: whoever waits is told to ask there, and that one tells when what is returned
    /// is drained.
    pub async fn give_up(&self) -> Vec<Untold> {
        let (reply, untold) = oneshot::channel();
        // One that has ended has given up everything.
        let _ = self.transfers.send(Transfer::GiveUp(reply)).await;
        let untold = untold.await.unwrap_or_default();
        self.verdicts.give_up();
        untold
    }

    /// Ends the work that is left on these versions here, and spares that on others: another process decides now.
    pub async fn follow(&self, leaving: Vec<Leaving>) {
        // One that has ended ends everything.
        let _ = self.transfers.send(Transfer::Follow(leaving)).await;
    }

    /// What is left on the versions with these pools goes by them from now on. To be said once nothing begins here any more.
    pub async fn go_by(&self, pools: Vec<Pool>) {
        let (reply, done) = oneshot::channel();
        // One that has ended goes nowhere.
        let _ = self.transfers.send(Transfer::GoBy(pools, reply)).await;
        let _ = done.await;
    }
}

impl Control {
    pub(super) async fn on_transfer(&mut self, transfer: Transfer) {
        // Nobody waits any more: nothing to do about it.
        match transfer {
            Transfer::Lend(reply) => drop(reply.send(self.lend().await)),
            Transfer::TakeBack(returned, reply) => drop(reply.send(self.take_back(*returned))),
            Transfer::GiveUp(reply) => {
                self.custody = Custody::Gone;
                self.show();
                self.health.end_looking();
                let _ = reply.send(self.untold());
            }
            Transfer::Follow(leaving) => self.follow(&leaving),
            Transfer::GoBy(pools, reply) => {
                self.go_by(&pools);
                let _ = reply.send(());
            }
        }
    }

    /// What is left, here or with elders, and was not told to be drained: from now on another process tells it, and this one nothing.
    fn untold(&self) -> Vec<Untold> {
        let here = self.drains.since();
        let here =
            here.map(|(upstream, since)| ((upstream.service.clone(), upstream.version.clone()), since));
        let elsewhere = self.elsewhere.iter().map(|(name, since)| (name.clone(), *since));
        let (all, now): (BTreeMap<_, _>, _) = (here.chain(elsewhere).collect(), clock::instant());
        let untold = all.into_iter().map(|((service, version), since)| {
            let alone = self.elders.alone_for(&service, &version, now);
            Untold { service, version, age: now.saturating_duration_since(since), alone }
        });
        untold.chain(self.elders.take_untold()).collect()
    }

    /// Another process says what leaves: work there comes to its end here too, and what it has taken back is spared.
    fn follow(&mut self, leaving: &[Leaving]) {
        let now = clock::instant();
        let before = self.drains.names();
        let alone = |upstream: &Upstream| {
            let is_it =
                |left: &&Leaving| upstream.service == left.service && upstream.version == left.version;
            leaving.iter().find(is_it).map(|left| left.alone)
        };
        let tenures = self.tenures.tenures();
        let stay = tenures.iter().filter(|upstream| alone(upstream).is_none());
        let is_spared = self.drains.cancel(&stay.map(|upstream| upstream.id).collect());
        for upstream in tenures.into_iter().filter(|upstream| upstream.in_flight() > 0) {
            let Some(alone) = alone(&upstream) else { continue };
            let rules = rules(&self.state.table, &upstream.service).after(alone);
            self.drains.open(upstream, rules, now);
        }
        if is_spared || before != self.drains.names() {
            self.live.departures.set(self.drains.departures(now));
            self.show();
        }
    }

    /// Closes the store, with nothing half done.
    async fn lend(&mut self) -> Result<(), Failed> {
        self.resolve_doubt().await?;
        if !self.holds.are_none() {
            return Err(Failed::Holding);
        }
        // They would go on by the table of now, long after the other process has acknowledged another one.
        if let Some(service) = self.live.snapshot().queueing() {
            return Err(Failed::Queueing(service.clone()));
        }
        // The process that opens it next would begin anew.
        self.keeper.ask(|store| store.check()).await?;
        if !self.rollouts.lend() {
            return Err(Failed::RollingOut);
        }
        std::mem::replace(&mut self.keeper, Keeper::gone()).close().await;
        self.custody = Custody::Lent { until: clock::instant() + PATIENCE };
        Ok(())
    }

    fn take_back(&mut self, returned: Returned) -> Result<(), OpenFailed> {
        let Returned { mut store, services, file } = returned;
        let loaded = store.load()?;
        if loaded.epoch != self.state.table.epoch() {
            warn!(
                epoch = loaded.epoch.0,
                "the process that failed has made a change; laying the file over it"
            );
            let made = made_since(&mut *store, self.state.table.epoch(), loaded.epoch)?;
            let own = self.overlay(&mut *store, loaded, services, file)?;
            self.report(made.into_iter().chain(own));
        }
        self.keeper = Keeper::start(store)?;
        self.custody = Custody::Ours;
        self.rollouts.take_back();
        Ok(())
    }

    /// Tells of changes that did not come about by a step from the present state; nobody else does.
    fn report(&self, changes: impl Iterator<Item = Change>) {
        for change in changes {
            self.figures.on_change(&change, &self.state.table, None, clock::instant());
            self.tell(Notice::Changed(Arc::new(change)));
        }
    }

    /// As at the start, but on the table that is published; gives the change if there is one.
    fn overlay(
        &mut self,
        store: &mut dyn Store,
        loaded: Loaded,
        services: Vec<ServiceSpec>,
        file: Actor,
    ) -> Result<Option<Change>, OpenFailed> {
        let command = Command::Configure { services, records: loaded.records };
        let order = Order {
            command,
            actor: file,
            reason: "take back".to_owned(),
            expected: Vec::new(),
            health: crate::release::Health::default(),
        };
        let (next, effects) = step(&State::at(loaded.epoch), Event::Order(order), clock::now())?;
        if let Some(change) = &effects.change {
            store.append(change, None)?;
        }
        perform::log(&effects);
        self.replace(next);
        Ok(effects.change)
    }

    /// Publishes a state that did not come about by a step from the present one.
    fn replace(&mut self, next: State) {
        let (before, workers) = (self.live.snapshot(), self.workers);
        let after = Snapshot::join(Arc::clone(&next.table), Some(&before), |service, version| {
            Arc::new(Upstream::open(service.name.clone(), version.name.clone(), workers))
        });
        let after = Arc::new(after);
        let present: Vec<_> = after.upstreams().map(|upstream| upstream.id).collect();
        let gone: Vec<_> = before.upstreams().filter(|old| !present.contains(&old.id)).cloned().collect();
        gone.iter().for_each(|upstream| self.tenures.leave(Arc::clone(upstream), None));
        // As for every change: an endpoint that comes gets no request before it was found well.
        let all = before.table.services().iter().chain(after.table.services());
        let names: BTreeSet<_> = all.map(|service| &service.name).collect();
        self.health.follow(names.iter().copied(), Some(&before), &after);
        perform::welcome(names.into_iter(), &before, &after, clock::instant());
        let carries = |upstream: &&Arc<Upstream>| {
            super::traffic::is_led_to(&next, &upstream.service, &upstream.version)
        };
        // As for every change: who is back is spared before it gets requests.
        self.drains.cancel(&after.upstreams().filter(carries).map(|upstream| upstream.id).collect());
        self.live.departures.set(self.drains.departures(clock::instant()));
        self.live.publish(Arc::clone(&after));
        let now = clock::instant();
        for upstream in gone {
            upstream.leave();
            let rules = rules(&self.state.table, &upstream.service);
            self.drains.open(upstream, rules, now);
        }
        for upstream in after.upstreams().filter(|upstream| !carries(upstream)) {
            if super::traffic::is_led_to(&self.state, &upstream.service, &upstream.version) {
                let rules = rules(&next.table, &upstream.service);
                self.drains.open(Arc::clone(upstream), rules, now);
            }
        }
        self.live.departures.set(self.drains.departures(now));
        self.state = Arc::new(next);
        self.follow_ramps();
        self.show();
    }
}

/// The changes after `known`, the oldest first.
fn made_since(store: &mut dyn Store, known: Epoch, newest: Epoch) -> Result<Vec<Change>, StoreError> {
    let limit = usize::try_from(newest.0.saturating_sub(known.0)).unwrap_or(usize::MAX);
    let mut made = store.history(&HistoryQuery { before: None, limit, service: None })?;
    made.reverse();
    Ok(made)
}

/// How what lasts is seen out of the versions of a service.
fn rules(table: &Table, service: &ServiceName) -> DrainRules {
    table.service(service).map_or_else(DrainRules::default, |service| service.drain)
}
