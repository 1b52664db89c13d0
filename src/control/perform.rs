//! What a step asks for is done here, in one order: *persist → publish → close → report*.
//!
//! Until it is persisted nothing has happened; once it is, nothing can fail any more.

use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::custody::Custody;
use super::drain::Ended;
use super::elders::Elder;
use super::handle::{Notice, Seen};
use super::traffic::{is_led_to, is_mirrored};
use super::{Control, clock, hold};
use crate::proxy::live::Snapshot;
use crate::proxy::upstream::Upstream;
use crate::release::{Change, Effects, Event, State, step};
use crate::store::{Answer, StoreError};
use crate::table::{DrainRules, ServiceName, VersionName};

/// A change that the store may have kept or not: it failed, and then did not say.
#[derive(Debug)]
pub(super) struct Doubt {
    next: State,
    change: Arc<Change>,
    effects: Effects,
    /// When to ask again.
    pub(super) ask_at: Instant,
}

impl Control {
    /// Performs what a step asks for. On an error nothing has changed.
    pub(super) async fn perform(
        &mut self,
        next: State,
        effects: &Effects,
        answer: Option<Answer>,
    ) -> Result<(), StoreError> {
        self.perform_by(next, effects, answer, None).await
    }

    /// The same; a store that does not say `by` then whether it has kept the change leaves it in doubt.
    pub(super) async fn perform_by(
        &mut self,
        next: State,
        effects: &Effects,
        answer: Option<Answer>,
        by: Option<Instant>,
    ) -> Result<(), StoreError> {
        let Some(change) = effects.change.clone().map(Arc::new) else {
            log(effects);
            return self.remember(answer).await;
        };
        if let Err(error) = in_time(by, self.persist(&change, answer)).await {
            if matches!(error, StoreError::InDoubt(_)) {
                let (effects, ask_at) = (effects.clone(), clock::instant() + super::ASK_AGAIN);
                self.doubt = Some(Doubt { next, change, effects, ask_at });
            }
            return Err(error);
        }
        self.enact(next, change, effects);
        Ok(())
    }

    /// Keeps `change`; a store that fails is asked whether it has kept it.
    async fn persist(&self, change: &Arc<Change>, answer: Option<Answer>) -> Result<(), StoreError> {
        let Err(error) = self.keeper.append(Arc::clone(change), answer).await else { return Ok(()) };
        match self.keeper.newest().await {
            Ok(newest) if newest.as_ref() == Some(&**change) => {
                warn!(epoch = change.epoch.0, %error, "the store has kept a change although it failed");
                Ok(())
            }
            Ok(_) => Err(error),
            Err(_) => Err(StoreError::InDoubt(error.to_string())),
        }
    }

    /// An order that changed nothing has an answer all the same.
    async fn remember(&self, answer: Option<Answer>) -> Result<(), StoreError> {
        match answer {
            Some(answer) => self.keeper.ask(move |store| store.remember(&answer)).await,
            None => Ok(()),
        }
    }

    /// Finds out what became of a doubtful change, and follows the store.
    ///
    /// # Errors
    /// [`StoreError`] while the store does not answer: nothing else can be decided before.
    pub(super) async fn resolve_doubt(&mut self) -> Result<(), StoreError> {
        let Some(mut doubt) = self.doubt.take() else { return Ok(()) };
        match self.keeper.newest().await {
            Ok(newest) if newest.as_ref() == Some(&*doubt.change) => {
                warn!(epoch = doubt.change.epoch.0, "the store has kept a change although it failed");
                self.enact(doubt.next, doubt.change, &doubt.effects);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                doubt.ask_at = clock::instant() + super::ASK_AGAIN;
                self.doubt = Some(doubt);
                Err(error)
            }
        }
    }

    /// Publish, close, report: a change that is kept takes effect.
    fn enact(&mut self, next: State, change: Arc<Change>, effects: &Effects) {
        let before = self.live.snapshot();
        let workers = self.workers;
        let after = Arc::new(Snapshot::join(Arc::clone(&next.table), Some(&before), |service, version| {
            Arc::new(Upstream::open(service.name.clone(), version.name.clone(), workers))
        }));
        let gone = gone(&change, &before, &after);
        gone.iter().for_each(|upstream| self.tenures.leave(Arc::clone(upstream), None));

        // First: an endpoint that comes gets no request before it was found well.
        let services = change.services.iter().map(|record| &record.service);
        self.health.follow(services.clone(), Some(&before), &after);

        welcome(services, &before, &after, clock::instant());
        self.spare(effects, &after);
        hold::grant_time(&change, &before, &after);
        let start = clock::instant();
        self.live.publish(Arc::clone(&after));
        let now = clock::instant();
        make_room(change.services.iter().map(|record| &record.service), &before, &after);

        self.holds.follow(&change, &before, &after);
        self.hurry();
        self.close(effects, &before, &after, &gone, now);
        self.see_out_endpoints(&effects.out, &after, now);

        let before = std::mem::replace(&mut self.state, Arc::new(next));
        let touched = change.services.iter().map(|record| &record.service);
        self.ramps.follow(&self.state, touched.clone(), now, None);
        self.retirements.follow(&self.state, touched, now, None);
        let fence = now.saturating_duration_since(start);
        self.figures.on_change(&change, &self.state.table, Some(fence), now);
        self.tenures.sweep(now);
        self.show();
        log(effects);
        self.tell(Notice::Changed(Arc::clone(&change)));
        self.tell_ramps(&before, &change);
    }

    /// Ends the drains of what is back, before it gets requests: who comes is not seen out with who was left.
    fn spare(&mut self, effects: &Effects, after: &Snapshot) {
        let returned = effects.returned.iter();
        let back = returned.filter_map(|(service, version)| after.tenure(service, version));
        if self.drains.cancel(&back.map(|upstream| upstream.id).collect()) {
            self.live.departures.set(self.drains.departures(clock::instant()));
        }
    }

    /// Starts the drains of what was left.
    fn close(
        &mut self,
        effects: &Effects,
        before: &Snapshot,
        after: &Snapshot,
        gone: &[Arc<Upstream>],
        now: Instant,
    ) {
        let rules = |of: &ServiceName| {
            let service = after.table.service(of).or_else(|| before.table.service(of));
            let rules = service.map_or_else(DrainRules::default, |service| service.drain);
            let lasting = effects.lasting.iter().find(|(name, _)| name == of);
            lasting.map_or(rules, |(_, before)| rules.after(*before))
        };
        for (service, alone) in &effects.lasting {
            let left = effects.left.iter().filter(|(of, _)| of == service);
            left.for_each(|(_, version)| self.elders.leave_alone(service, version, now + *alone));
        }
        for upstream in effects.left.iter().filter_map(|(service, version)| before.tenure(service, version)) {
            self.drains.open(Arc::clone(upstream), rules(&upstream.service), now);
        }
        for upstream in gone {
            upstream.leave();
            if upstream.in_flight() > 0 {
                self.drains.open(Arc::clone(upstream), rules(&upstream.service), now);
            } else {
                self.tenures.on_drained(upstream.id, now);
                self.drains.remember(Arc::clone(upstream), rules(&upstream.service), now);
            }
        }
        if !(effects.left.is_empty() && gone.is_empty()) {
            self.live.departures.set(self.drains.departures(now));
        }
    }

    /// Handles the drains that have ended.
    pub(super) fn poll_drains(&mut self) {
        let now = clock::instant();
        let ended = self.drains.poll(now);
        if ended.is_empty() {
            return;
        }
        // The workers are not told: who is left is so still.
        let mut notices = Vec::new();
        for (index, Ended { upstream, seconds }) in ended.iter().enumerate() {
            self.figures.on_drained(&upstream.service, *seconds);
            self.tenures.on_drained(upstream.id, now);
            let Upstream { service, version, .. } = &**upstream;
            let another = ended[index + 1..].iter().any(|ended| ended.is_of(service, version));
            let elsewhere = self.elders.may_have(service, version);
            if elsewhere {
                let since = now.checked_sub(Duration::from_secs_f64(*seconds)).unwrap_or(now);
                self.elsewhere.insert((service.clone(), version.clone()), since);
            } else if !another && !self.drains.is_open(service, version) {
                notices.extend(self.on_drained(service, version, *seconds));
            }
        }
        self.show();
        notices.into_iter().for_each(|notice| self.tell(notice));
    }

    /// The elders have told something: what is left with them drains too.
    pub(super) fn on_elders(&mut self) {
        let now = clock::instant();
        let ago = |age| now.checked_sub(age).unwrap_or(now);
        let untold = self.elders.take_untold().into_iter();
        let untold = untold.map(|untold| (untold.service, untold.version, ago(untold.age)));
        let told = self.elders.all().into_iter().filter_map(|elder: Elder| elder.told);
        let left = told.flat_map(|told| told.left).map(|left| (left.service, left.version, now));
        for (service, version, since) in untold.chain(left) {
            if !is_led_to(&self.state, &service, &version)
                && let Entry::Vacant(new) = self.elsewhere.entry((service.clone(), version.clone()))
            {
                new.insert(since);
                self.observe(Event::Remains { service, version });
            }
        }
        let elders = Arc::clone(&self.elders);
        let is_over = |(service, version): &(ServiceName, VersionName)| !elders.may_have(service, version);
        let over: Vec<_> = self.elsewhere.extract_if(.., |name, _| is_over(name)).collect();
        let mut notices = Vec::new();
        for ((service, version), since) in over {
            if !self.drains.is_open(&service, &version) {
                let seconds = now.saturating_duration_since(since).as_secs_f64();
                notices.extend(self.on_drained(&service, &version, seconds));
            }
        }
        self.show();
        notices.into_iter().for_each(|notice| self.tell(notice));
    }

    /// No tenure of this version has anything left; nothing to say when the version is back, or when whoever has taken this one's
    /// place says it.
    fn on_drained(&mut self, service: &ServiceName, version: &VersionName, seconds: f64) -> Option<Notice> {
        if is_led_to(&self.state, service, version) || self.custody == Custody::Gone {
            return None;
        }
        let (service, version) = (service.clone(), version.clone());
        self.observe(Event::Drained { service: service.clone(), version: version.clone() });
        if is_mirrored(&self.state, &service, &version) {
            // What it had is over, and copies may come: nobody is to stop it.
            return None;
        }
        info!(%service, %version, seconds, "drained");
        Some(Notice::Drained { service, version, seconds })
    }

    /// Something happened that changes the phase alone; it is shown with what comes of it.
    fn observe(&mut self, event: Event) {
        if let Ok((next, _)) = step(&self.state, event, clock::now()) {
            self.state = Arc::new(next);
        }
    }

    /// Shows the present state with its drains, as one.
    pub(super) fn show(&self) {
        let here = self.drains.names();
        let is_left =
            |(service, version): &&(ServiceName, VersionName)| !is_led_to(&self.state, service, version);
        let elsewhere = self.elsewhere.keys().filter(|name| !here.contains(name)).filter(is_left);
        let draining = here.iter().chain(elsewhere).cloned().collect();
        let is_past = self.custody == Custody::Gone;
        self.seen.send_replace(Seen { state: Arc::clone(&self.state), draining, is_past });
        let is_back = |service: &_, version: &_| is_led_to(&self.state, service, version);
        self.elders.alone_no_more(clock::instant(), is_back);
    }

    pub(super) fn tell(&self, notice: Notice) {
        // Nobody listens: nobody to tell.
        let _ = self.notices.send(notice);
    }
}

async fn in_time(
    by: Option<Instant>,
    kept: impl Future<Output = Result<(), StoreError>>,
) -> Result<(), StoreError> {
    let Some(by) = by else { return kept.await };
    let late = |_| StoreError::InDoubt("it has not answered in time".to_owned());
    tokio::time::timeout_at(by.into(), kept).await.map_err(late)?
}

/// What a step has to say to the operator's log.
pub(super) fn log(effects: &Effects) {
    for note in &effects.notes {
        warn!(note);
    }
    if let Some(Change { epoch, kind, actor, reason, summary, .. }) = &effects.change {
        let (kind, name) = (kind.token(), &actor.name);
        info!(epoch = epoch.0, kind, actor = actor.kind.token(), name, reason, summary, "changed");
    }
}

/// Endpoints that come to a pool that serves already begin now; those that are gone are forgotten.
pub(super) fn welcome<'s>(
    touched: impl Iterator<Item = &'s ServiceName>,
    before: &Snapshot,
    after: &Snapshot,
    now: Instant,
) {
    let touched = touched.filter_map(|name| after.table.service(name));
    for (service, new) in touched.flat_map(|service| service.versions.iter().map(move |new| (service, new))) {
        let Some(upstream) = after.tenure(&service.name, &new.name) else { continue };
        let old = before.table.service(&service.name).and_then(|service| service.version(&new.name));
        let Some(old) = old.filter(|old| (&old.endpoints, &old.draining) != (&new.endpoints, &new.draining))
        else {
            continue;
        };
        if old.serving().next().is_some() {
            let came = new.serving().filter(|endpoint| !old.serving().any(|before| before == *endpoint));
            came.for_each(|endpoint| upstream.arrive(endpoint, now));
        }
        upstream.forget_all_but(&new.endpoints);
    }
}

/// Who waits for a place waits by the limits of now, and at the endpoints of now; who asks from now on does anyway.
fn make_room<'s>(touched: impl Iterator<Item = &'s ServiceName>, before: &Snapshot, after: &Snapshot) {
    if !after.table.routes_as(&before.table) {
        before.lines().for_each(|line| line.call_all());
    }
    for service in touched.filter_map(|name| after.table.service(name)) {
        after.line(&service.name).inspect(|line| line.call());
        before.quota(&service.name).inspect(|quota| quota.look_anew());
        for version in &service.versions {
            if let Some(upstream) = after.tenure(&service.name, &version.name) {
                upstream.look_anew();
            }
        }
    }
}

/// The tenures of `before` that `after` no longer has; only services of the change can have lost any.
fn gone(change: &Change, before: &Snapshot, after: &Snapshot) -> Vec<Arc<Upstream>> {
    let touched = change.services.iter().filter_map(|record| before.table.service(&record.service));
    let versions =
        touched.flat_map(|service| service.versions.iter().map(|version| (&service.name, &version.name)));
    let lost = versions.filter(|(service, version)| after.tenure(service, version).is_none());
    lost.filter_map(|(service, version)| before.tenure(service, version).cloned()).collect()
}
