//! What a rollout waits for, and what ends its patience.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::change::serves;
use super::told::StepState;
use super::{Job, Wish, capacity, lock};
use crate::control::traffic::is_led_to;
use crate::control::{Failed, Handle, clock};
use crate::proxy::upstream::dial::Dial;
use crate::table::{EndpointAddr, Protocol, VersionName};

/// How often it is looked.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// How long an endpoint may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// Why a rollout does not go on.
#[derive(Debug, Clone)]
pub(super) enum Halt {
    /// Somebody wants it to end.
    Asked(super::Back),
    /// A bound was hit.
    Bound(String),
    /// Supervision has taken the traffic back.
    Convicted(String),
    /// Something took too long.
    TimedOut(String),
    /// Somebody else has changed what it is about: it is not for us to set it right.
    Interfered(String),
    /// The process ends.
    Closed,
}

impl Halt {
    /// A change that was not made.
    pub(super) fn of(failed: Failed) -> Self {
        match failed {
            Failed::Closed | Failed::Succeeded | Failed::Overtaken | Failed::LeftBehind => Self::Closed,
            other => Self::Bound(other.to_string()),
        }
    }
}

/// Whether an endpoint accepts connections now, at the address where requests look for it.
///
/// # Errors
/// Why it does not.
pub async fn answers(endpoint: &EndpointAddr) -> Result<(), String> {
    // What it speaks does not matter: nothing is said.
    let dial = Dial::new(endpoint.clone(), Protocol::default(), None, None);
    match timeout(CONNECT, dial.connect()).await {
        Ok(connected) => connected.map(drop).map_err(|why| why.to_string()),
        Err(_) => Err("cannot connect in time".to_owned()),
    }
}

impl Job {
    /// Waits until `is_so` for at most `patience`; what stands in the way is its error.
    ///
    /// # Errors
    /// [`Halt`] when it took too long, too few serve, or somebody wants an end.
    pub(super) async fn until(
        &self,
        handle: &Handle,
        patience: Duration,
        is_so: impl AsyncFnMut() -> Result<bool, Halt>,
        what: impl Fn() -> String,
    ) -> Result<(), Halt> {
        self.until_but(handle, patience, is_so, what, Wish::Go).await
    }

    /// The same on the way back, where nobody's wish counts and no bound either.
    pub(super) async fn until_but(
        &self,
        handle: &Handle,
        patience: Duration,
        mut is_so: impl AsyncFnMut() -> Result<bool, Halt>,
        what: impl Fn() -> String,
        known: Wish,
    ) -> Result<(), Halt> {
        let since = clock::instant();
        let mut wish = self.wish.subscribe();
        loop {
            let now = *wish.borrow_and_update();
            match now {
                Wish::End(back) if known == Wish::Go => return Err(Halt::Asked(back)),
                Wish::Go | Wish::End(_) => {}
            }
            self.check_verdict(handle)?;
            if self.is_suspected(handle) {
                let why = self.make_way(handle).await;
                self.hindered(handle, why);
            }
            if is_so().await? {
                return Ok(());
            }
            let serving = self.look(handle);
            let least = self.order.plan.min_serving;
            if known == Wish::Go && serving < least {
                return Err(Halt::Bound(format!("{serving} endpoints serve, and at least {least} have to")));
            }
            if clock::instant().saturating_duration_since(since) >= patience {
                return Err(Halt::TimedOut(what()));
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.came.notified() => {}
                _ = wish.changed() => {}
            }
        }
    }

    /// How many serve; noted with what is told.
    pub(super) fn look(&self, handle: &Handle) -> usize {
        let serving = capacity::serving(handle, &self.order.plan).count();
        self.told.send_if_modified(|told| {
            let before = (told.serving, told.least_serving);
            (told.serving, told.least_serving) = (serving, told.least_serving.min(serving));
            before != (told.serving, told.least_serving)
        });
        serving
    }

    /// True when nothing is left on an endpoint that gets nothing new, on any worker.
    pub(super) async fn is_empty(
        &self,
        handle: &Handle,
        version: &VersionName,
        endpoint: &EndpointAddr,
    ) -> bool {
        let plan = &self.order.plan;
        let epoch = || handle.state().table.service(&plan.service).map(|service| service.epoch);
        let before = epoch();
        // First: what those tell that are quiet can only become less.
        let are_elders_quiet = handle.elders().are_quiet();
        let told = handle.remaining_at(&plan.service, version, endpoint).await;
        // What the workers said holds for the table that they were asked under.
        let state = handle.state();
        let gets_something =
            is_led_to(&state, &plan.service, version) && serves(&state, plan, version, endpoint);
        let is_same = are_elders_quiet && before == epoch() && !gets_something;
        is_same && told.is_some_and(|left| left.is_empty())
    }

    /// True while a step does not go on: something is left on its old endpoint, or somebody is to deal with that and others
    /// use it.
    pub(super) fn is_in_the_way(&self, index: usize) -> bool {
        let state = self.state(index);
        state == StepState::Draining || (state == StepState::Shared && self.order.confirm)
    }

    /// Nothing of the version is left on an old endpoint: it is safe to stop, unless others use its address.
    pub(super) async fn on_empty(&self, handle: &Handle, index: usize, endpoint: &EndpointAddr) {
        if self.note_others(handle, index, endpoint).await {
            self.set(handle, index, StepState::Shared, false);
        } else {
            self.set(handle, index, StepState::Safe, self.order.confirm);
        }
    }

    /// Notes who else uses an old endpoint; true when somebody does.
    pub(super) async fn note_others(&self, handle: &Handle, index: usize, endpoint: &EndpointAddr) -> bool {
        let plan = &self.order.plan;
        let uses = handle.uses(BTreeSet::from([endpoint.clone()])).await;
        let others = uses.by_others(&plan.service, &plan.from, [endpoint]).into_iter();
        let others: Vec<_> = others.map(|of| (of.service.to_string(), of.version.to_string())).collect();
        let is_used = !others.is_empty();
        self.told.send_if_modified(|told| {
            let known = &mut told.steps[index].also_used_by;
            let is_news = *known != others;
            *known = others;
            is_news
        });
        is_used
    }

    /// True when an endpoint of the pool gets requests.
    pub(super) fn serves(&self, handle: &Handle, version: &VersionName, endpoint: &EndpointAddr) -> bool {
        let plan = &self.order.plan;
        serves(&handle.state(), plan, version, endpoint)
            && capacity::is_well(&handle.live().snapshot(), &plan.service, version, endpoint)
    }

    /// True when an endpoint that is checked was found well after `since`; always where none is, or it is not known yet.
    pub(super) fn is_well_since(
        &self,
        handle: &Handle,
        version: &VersionName,
        endpoint: &EndpointAddr,
        since: Option<Instant>,
    ) -> bool {
        let plan = &self.order.plan;
        let state = handle.state();
        let is_checked = state.table.service(&plan.service).is_some_and(|service| {
            service.version(version).is_some_and(|version| service.pool(version).health.is_some())
        });
        let known = handle.health().of(&plan.service, version);
        let (Some(since), Some(known)) = (since, known.get(endpoint).filter(|_| is_checked)) else {
            return true;
        };
        known.standing.serves()
            && known.last.as_ref().is_some_and(|last| last.is_well)
            && known.looked.is_some_and(|looked| looked > since)
    }

    /// When somebody confirmed that this one was dealt with.
    pub(super) fn confirmed_at(&self, endpoint: &EndpointAddr) -> Option<Instant> {
        lock(&self.confirmed).get(endpoint).copied()
    }

    /// The step that waits for a word about this one.
    pub(super) fn awaiting(&self, endpoint: &EndpointAddr) -> Option<usize> {
        let name = endpoint.to_string();
        let told = self.told.borrow();
        told.steps.iter().position(|step| step.awaits_confirmation && step.out.as_ref() == Some(&name))
    }
}
