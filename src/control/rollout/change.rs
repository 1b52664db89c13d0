//! What a rollout asks of control: ordinary changes, each for the state that was looked at.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use super::told::{RolloutState, StepState};
use super::wait::Halt;
use super::{Job, Place, Wish, lock};
use crate::control::handle::{Seen, Wanted};
use crate::control::traffic::weight;
use crate::control::{Failed, Handle, clock};
use crate::release::rollout::{Plan, Way};
use crate::release::{Command, Refused, State};
use crate::store::StoreError;
use crate::table::{BasisPoints, EndpointAddr, Epoch, TraitsEdit, VersionName};

/// How long after a change was refused for a reason that passes it is asked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often in a row somebody else may change the service between our look at it and our change.
const CONFLICTS: usize = 20;

/// Who serves after a change and did not before, or the other way round.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shift<'e> {
    /// Old endpoints that go.
    pub(super) goes: &'e [EndpointAddr],
    /// Old endpoints that serve again.
    pub(super) again: &'e [EndpointAddr],
    /// New endpoints that come.
    pub(super) comes: &'e [EndpointAddr],
    /// New endpoints that leave again.
    pub(super) leaves: &'e [EndpointAddr],
}

impl Job {
    /// Asks for one change; for none when there is nothing to change.
    ///
    /// `commands` makes it from the state as it is, and is asked again when somebody else was faster.
    ///
    /// # Errors
    /// [`Halt`]: it was not made, and it is not worth waiting until it can be.
    pub(super) async fn change(
        &self,
        handle: &Handle,
        batch: &Range<usize>,
        what: &str,
        commands: impl Fn(&State) -> Result<Vec<Command>, Halt>,
    ) -> Result<(), Halt> {
        let done = self.try_change(handle, batch, what, commands).await;
        self.hindered(handle, None);
        done
    }

    async fn try_change(
        &self,
        handle: &Handle,
        batch: &Range<usize>,
        what: &str,
        commands: impl Fn(&State) -> Result<Vec<Command>, Halt>,
    ) -> Result<(), Halt> {
        let (since, mut conflicts, mut seen) = (clock::instant(), 0, handle.seen.clone());
        while conflicts < CONFLICTS {
            self.ascertain(handle, since).await?;
            self.heed(handle).await?;
            let state = Arc::clone(&seen.borrow_and_update().state);
            let epoch = self.check_weights(&state)?;
            let Some(command) = as_one(commands(&state)?) else { return Ok(()) };
            let made = self.make(handle, command, epoch, self.because(batch, what)).await;
            match made {
                Ok(()) => return Ok(()),
                Err(Failed::Refused(Refused::Conflict { .. })) => conflicts += 1,
                Err(failed) => match passing(&failed) {
                    // The way back would need it as much.
                    Some(why) => self.wait_again(handle, why, since, &mut seen).await?,
                    None => return Err(Halt::of(failed)),
                },
            }
        }
        Err(Halt::Bound(format!("somebody else changes `{}` again and again", self.order.plan.service)))
    }

    /// Asks for one change, once.
    ///
    /// # Errors
    /// [`Failed`]: it was not made, unless it is [uncertain](Job::is_uncertain) then.
    pub(super) async fn make(
        &self,
        handle: &Handle,
        command: Command,
        epoch: Epoch,
        reason: String,
    ) -> Result<(), Failed> {
        let made = match handle.change(self.wanted(command.clone(), epoch, reason)).await {
            Ok(done) => weights(&done.state, &self.order.plan),
            // It is made; and nothing counts as empty before the old process has answered.
            Err(Failed::Unfenced | Failed::Overtaken) => self.weights_after(&command),
            Err(failed) => {
                if matches!(failed, Failed::Store(StoreError::InDoubt(_))) {
                    self.may_be_made(&command);
                }
                return Err(failed);
            }
        };
        *lock(&self.weights) = made;
        self.look(handle);
        Ok(())
    }

    /// Something is in the way that may pass: tells it, and waits until it is worth asking again.
    ///
    /// # Errors
    /// [`Halt::TimedOut`] when it has taken too long, or somebody wants an end.
    pub(super) async fn wait_again(
        &self,
        handle: &Handle,
        why: String,
        since: Instant,
        seen: &mut watch::Receiver<Seen>,
    ) -> Result<(), Halt> {
        self.hindered(handle, Some(why.clone()));
        self.check_patience(since, why)?;
        self.pause(seen).await
    }

    /// Nothing has changed, and that may pass.
    ///
    /// # Errors
    /// [`Halt::TimedOut`] when it has taken too long.
    fn check_patience(&self, since: Instant, why: String) -> Result<(), Halt> {
        let waited = clock::instant().saturating_duration_since(since);
        if waited < self.order.ready_timeout { Ok(()) } else { Err(Halt::TimedOut(why)) }
    }

    /// Waits until it is worth asking again: something else has changed, or some time has passed.
    ///
    /// # Errors
    /// [`Halt::Asked`].
    async fn pause(&self, seen: &mut watch::Receiver<Seen>) -> Result<(), Halt> {
        let (mut wish, goes_back) = (self.wish.subscribe(), self.goes_back());
        match *wish.borrow_and_update() {
            Wish::End(back) if !goes_back => return Err(Halt::Asked(back)),
            Wish::Go | Wish::End(_) => {}
        }
        tokio::select! {
            () = sleep(AGAIN) => {}
            _ = seen.changed() => {}
            _ = wish.changed(), if !goes_back => {}
        }
        Ok(())
    }

    /// Has an endpoint serve, for the first time or again. It is not put where it is; nor is one that was found: that comes
    /// and goes as it is found.
    pub(super) fn serve(
        &self,
        state: &State,
        (version, endpoint): (&VersionName, &EndpointAddr),
        before: Option<&Place>,
        traits: TraitsEdit,
    ) -> Option<Command> {
        let plan = &self.order.plan;
        if !before.is_some_and(|before| before.is_found) && !is_in_pool(state, plan, version, endpoint) {
            return Some(plan.put(version, endpoint, traits));
        }
        let spec = state.table.service(&plan.service)?.version(version)?;
        spec.draining.contains(endpoint).then(|| plan.end_drain(version, endpoint))
    }

    /// What is in its way now, if anything is; told when it is news.
    pub(super) fn hindered(&self, handle: &Handle, why: Option<String>) {
        let is_news = self.told.send_if_modified(|told| {
            let is_news = told.hindrance != why;
            told.news += u64::from(is_news);
            told.hindrance = why;
            is_news
        });
        if is_news {
            self.tell(handle, None);
        }
    }

    fn goes_back(&self) -> bool {
        self.told.borrow().state == RolloutState::Reversing
    }

    fn wanted(&self, command: Command, epoch: Epoch, reason: String) -> Wanted {
        Wanted {
            expected: vec![(self.order.plan.service.clone(), epoch)],
            // The way back asks nobody.
            force: self.goes_back(),
            ..Wanted::plain(command, self.order.actor.clone(), reason)
        }
    }

    /// `rollout, step 3 of 10: 10.0.0.1:80 drains (new kernel)`.
    pub(super) fn because(&self, batch: &Range<usize>, what: &str) -> String {
        let (first, last, count) = (batch.start + 1, batch.end, self.order.plan.moves.len());
        let step = if first == last { first.to_string() } else { format!("{first} to {last}") };
        let why =
            if self.order.reason.is_empty() { String::new() } else { format!(" ({})", self.order.reason) };
        format!("rollout, step {step} of {count}: {what}{why}")
    }

    /// Between versions the weights are ours while it goes on: somebody else who moves them knows better. The service's epoch.
    pub(super) fn check_weights(&self, state: &State) -> Result<Epoch, Halt> {
        let plan = &self.order.plan;
        let Some(service) = state.table.service(&plan.service) else {
            return Err(Halt::Interfered(format!("somebody else has removed `{}`", plan.service)));
        };
        if plan.is_between() && !self.are_ours(state) {
            let why = format!("somebody else has changed the weights of `{}`", plan.service);
            return Err(Halt::Interfered(why));
        }
        Ok(service.epoch)
    }

    /// The weights after a shift, as far as they follow the endpoints.
    pub(super) fn shift(&self, state: &State, shift: Shift<'_>) -> Option<Command> {
        let plan = &self.order.plan;
        let service = state.table.service(&plan.service)?;
        let serving =
            |version: &VersionName| service.version(version).into_iter().flat_map(|spec| spec.serving());
        let stays =
            serving(&plan.from).filter(|other| !shift.goes.contains(other) && !shift.again.contains(other));
        let old = stays.count() + shift.again.len();
        let position =
            |endpoint: &EndpointAddr| plan.moves.iter().position(|step| step.into.as_ref() == Some(endpoint));
        // One of the new version's endpoints that stands in a later move counts when its turn has come.
        let has_come = |endpoint: &EndpointAddr| {
            shift.comes.contains(endpoint)
                || position(endpoint).is_none_or(|index| {
                    matches!(self.state(index), StepState::Serving | StepState::Done | StepState::Kept)
                })
        };
        let new: Vec<_> = serving(&plan.to)
            .filter(|endpoint| !shift.leaves.contains(endpoint) && has_come(endpoint))
            .collect();
        let is_over = !new.iter().any(|endpoint| position(endpoint).is_some());
        let way = match self.told.borrow().state {
            RolloutState::Reversing => Way::Back { begun: self.begun, is_over },
            _ => Way::Forward,
        };
        let new = match way {
            // Nobody else is left: what the new version has had traffic on since before carries it all.
            Way::Forward if old == 0 && weight(state, &plan.service, &plan.to) > BasisPoints::NONE => {
                serving(&plan.to).filter(|endpoint| !shift.leaves.contains(endpoint)).count()
            }
            _ => new.len(),
        };
        plan.weights(service, old, new, way)
    }
}

/// All of it as one change; `None` when there is nothing to change.
pub(super) fn as_one(mut commands: Vec<Command>) -> Option<Command> {
    match commands.len() {
        0 => None,
        1 => Some(commands.remove(0)),
        _ => Some(Command::Batch(commands)),
    }
}

/// Why nothing has changed, or why that is not known, where it is over by itself or when somebody has seen to it.
fn passing(failed: &Failed) -> Option<String> {
    match failed {
        Failed::Store(why) => Some(why.to_string()),
        Failed::Underway { .. } => Some(failed.to_string()),
        _ => None,
    }
}

/// What the two versions have.
pub(super) fn weights(state: &State, plan: &Plan) -> (BasisPoints, BasisPoints) {
    (weight(state, &plan.service, &plan.from), weight(state, &plan.service, &plan.to))
}

/// True when the endpoint is in the pool, draining or not.
pub(super) fn is_in_pool(state: &State, plan: &Plan, version: &VersionName, endpoint: &EndpointAddr) -> bool {
    let spec = state.table.service(&plan.service).and_then(|service| service.version(version));
    spec.is_some_and(|spec| spec.endpoints.contains(endpoint))
}

/// True when the endpoint is in the pool and does not drain.
pub(super) fn serves(state: &State, plan: &Plan, version: &VersionName, endpoint: &EndpointAddr) -> bool {
    let spec = state.table.service(&plan.service).and_then(|service| service.version(version));
    spec.is_some_and(|spec| spec.serving().any(|serving| serving == endpoint))
}
