//! A rollout from its first drain to its last word.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::change::{Shift, is_in_pool, serves, weights};
use super::told::{RolloutState, StepState};
use super::wait::{Halt, answers};
use super::{Job, capacity, lock};
use crate::control::handle::{Notice, RolloutNotice};
use crate::control::{Handle, clock};
use crate::release::State;
use crate::table::{BasisPoints, EndpointAddr, Traits, TraitsEdit, ZoneEdit};

/// Does the whole of it.
pub(super) async fn run(job: Arc<Job>, handle: Handle) {
    if !job.keep_answer(&handle).await {
        return handle.rollouts().forget(&job);
    }
    lock(&handle.rollouts().left).remove(&job.order.plan.service);
    job.tell(&handle, None);
    let ended = job.forward(&handle).await;
    let state = match ended {
        Ok(()) => Some(RolloutState::Done),
        Err(halt) => job.come_to_an_end(&handle, halt).await,
    };
    // With the process it ends without a word: the file says where it was.
    if let Some(state) = state {
        job.set_state(&handle, state);
    }
}

impl Job {
    async fn forward(&self, handle: &Handle) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let (count, batch) = (plan.moves.len(), plan.batch.max(1));
        for start in (0..count).step_by(batch) {
            let batch = start..count.min(start + batch);
            self.wait_for_capacity(handle, &batch).await?;
            if plan.surge {
                // One that is restarted in its place cannot come before it goes.
                self.bring_in(handle, &batch, |is_in_place| !is_in_place).await?;
                self.take_out(handle, &batch).await?;
                self.bring_in(handle, &batch, |is_in_place| is_in_place).await?;
            } else {
                self.take_out(handle, &batch).await?;
                self.bring_in(handle, &batch, |_| true).await?;
            }
            self.finish(handle, &batch).await?;
            self.settle(handle, &batch).await?;
        }
        self.open_the_way_back(handle).await
    }

    /// Nothing goes before enough others serve.
    async fn wait_for_capacity(&self, handle: &Handle, batch: &Range<usize>) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let moves = &plan.moves[batch.clone()];
        let missing = || {
            let serving = capacity::serving(handle, plan);
            let goes = moves.iter().filter(|step| serving.goes(step)).count();
            let first = moves.iter().filter(|step| plan.surge && !step.is_in_place() && serving.comes(step));
            // What goes does not count as missing where nothing goes.
            let needs = if goes == 0 { 0 } else { plan.min_serving + goes };
            (needs.saturating_sub(serving.count() + first.count()), goes)
        };
        let enough = async || Ok(missing().0 == 0);
        let what = || {
            let (missing, goes) = missing();
            format!("too few endpoints serve to take out {goes}: {missing} more have to before")
        };
        self.until(handle, self.order.ready_timeout, enough, what).await
    }

    /// The old endpoints of a batch get nothing new, until nothing is left on them and whoever has to has said so.
    async fn take_out(&self, handle: &Handle, batch: &Range<usize>) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let out: Vec<_> =
            batch.clone().filter_map(|index| Some((index, plan.moves[index].out.clone()?))).collect();
        if out.is_empty() {
            return Ok(());
        }
        let goes: Vec<_> = out.iter().map(|(_, endpoint)| endpoint.clone()).collect();
        let drains = |state: &State| {
            self.check_removable(state, batch)?;
            let shift = self.shift(state, Shift { goes: &goes, ..Shift::default() });
            let drains = goes.iter().map(|endpoint| plan.drain(&plan.from, endpoint));
            Ok(shift.into_iter().chain(drains).collect())
        };
        let drained = self.change(handle, batch, &format!("{} drains", list(&goes)), drains).await;
        if drained.is_ok() || self.is_uncertain() {
            // What may have been done is taken back as what was.
            out.iter().for_each(|(index, _)| self.set(handle, *index, StepState::Draining, false));
        }
        drained?;
        let all_safe = async || {
            for (index, endpoint) in &out {
                if self.is_in_the_way(*index) && self.is_empty(handle, &plan.from, endpoint).await {
                    self.on_empty(handle, *index, endpoint).await;
                }
            }
            self.check_gone(handle, &handle.state(), batch)?;
            Ok(!out.iter().any(|(index, _)| self.is_in_the_way(*index)))
        };
        let what = || match &self.still(&out, StepState::Draining)[..] {
            [] => format!("others use {} too", list(&self.still(&out, StepState::Shared))),
            draining => format!("{} did not become empty in time", list(draining)),
        };
        self.until(handle, self.order.drain_timeout, all_safe, what).await?;
        if self.order.confirm {
            let all_told = async || {
                self.check_gone(handle, &handle.state(), batch)?;
                Ok(out.iter().all(|(_, endpoint)| self.confirmed_at(endpoint).is_some()))
            };
            let what = || format!("nobody has confirmed that {} is dealt with", list(&goes));
            self.until(handle, self.order.ready_timeout, all_told, what).await?;
        }
        Ok(())
    }

    /// Nothing is drained that cannot be taken away then: it may have been discovered since the beginning.
    fn check_removable(&self, state: &State, batch: &Range<usize>) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let Some(deployment) = state.deployment(&plan.service) else { return Ok(()) };
        let moves = &plan.moves[batch.clone()];
        plan.check_removable(moves, deployment).map_err(|why| Halt::Bound(why.to_string()))
    }

    /// The new endpoints of a batch are waited for, and serve; those whose being in place is `wanted`.
    async fn bring_in(
        &self,
        handle: &Handle,
        batch: &Range<usize>,
        wanted: impl Fn(bool) -> bool,
    ) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let is_wanted = |index: &usize| wanted(plan.moves[*index].is_in_place());
        let into = batch
            .clone()
            .filter(is_wanted)
            .filter_map(|index| Some((index, plan.moves[index].into.clone()?)));
        let into: Vec<_> = into.collect();
        if into.is_empty() {
            return Ok(());
        }
        into.iter().for_each(|(index, _)| self.set(handle, *index, StepState::Warming, false));
        let comes: Vec<_> = into.iter().map(|(_, endpoint)| endpoint.clone()).collect();
        self.wait_until_there(handle, &into).await?;
        let put = |state: &State| {
            let put = into.iter().filter_map(|(index, endpoint)| {
                let (before, said) =
                    (self.before[*index].into.as_ref(), self.inherited(state, *index, endpoint));
                self.serve(state, (&plan.to, endpoint), before, said)
            });
            Ok(put.collect())
        };
        self.change(handle, batch, &format!("{} comes", list(&comes)), put).await?;
        let all_serve = async || Ok(comes.iter().all(|endpoint| self.serves(handle, &plan.to, endpoint)));
        let what = || {
            let state = handle.state();
            let unwell = comes.iter().filter(|endpoint| !self.serves(handle, &plan.to, endpoint)).cloned();
            let (there, gone): (Vec<_>, Vec<_>) =
                unwell.partition(|endpoint| is_in_pool(&state, plan, &plan.to, endpoint));
            let why = if gone.is_empty() { "is not healthy" } else { "is not discovered any more" };
            format!("{} {why}", list(if gone.is_empty() { &there } else { &gone }))
        };
        self.until(handle, self.order.ready_timeout, all_serve, what).await?;
        let shift = |state: &State| {
            let shift = self.shift(state, Shift { comes: &comes, ..Shift::default() });
            Ok(shift.into_iter().collect())
        };
        self.change(handle, batch, &format!("{} serves", list(&comes)), shift).await?;
        into.iter().for_each(|(index, _)| self.set(handle, *index, StepState::Serving, false));
        Ok(())
    }

    /// They accept connections; what was restarted is found well again where it is checked: what was found before was the
    /// old process.
    async fn wait_until_there(&self, handle: &Handle, into: &[(usize, EndpointAddr)]) -> Result<(), Halt> {
        let plan = &self.order.plan;
        for (index, endpoint) in into {
            let why = std::cell::RefCell::new(String::new());
            let since = self.confirmed_at(endpoint).filter(|_| plan.moves[*index].is_in_place());
            let is_there = async || {
                let found = match answers(endpoint).await {
                    Ok(()) if self.is_well_since(handle, &plan.to, endpoint, since) => return Ok(true),
                    Ok(()) => "its checks have not found it well since it was restarted".to_owned(),
                    Err(said) => said,
                };
                why.replace(found);
                Ok(false)
            };
            let what = || format!("{endpoint} is not there: {}", why.borrow());
            self.until(handle, self.order.ready_timeout, is_there, what).await?;
        }
        Ok(())
    }

    /// What is said of a new endpoint: what is said of the one whose place it takes, unless it has a place of its own.
    fn inherited(&self, state: &State, index: usize, into: &EndpointAddr) -> TraitsEdit {
        let plan = &self.order.plan;
        match &self.before[index].out {
            Some(old) if !is_in_pool(state, plan, &plan.to, into) => said(&old.traits),
            _ => TraitsEdit::default(),
        }
    }

    /// The old endpoints of a batch leave the pool, where others of the same version have come in their place.
    async fn finish(&self, handle: &Handle, batch: &Range<usize>) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let gone = plan.moves[batch.clone()].iter().filter(|step| !plan.is_between() && !step.is_in_place());
        let gone: Vec<_> = gone.filter_map(|step| step.out.clone()).collect();
        let remove = |state: &State| {
            self.check_gone(handle, state, &(0..batch.end))?;
            // Whoever has dealt with one may have removed it as well.
            let gone = gone.iter().filter(|out| is_in_pool(state, plan, &plan.from, out));
            Ok(gone.map(|endpoint| plan.remove(&plan.from, endpoint)).collect())
        };
        self.change(handle, batch, &format!("{} is gone", list(&gone)), remove).await?;
        for index in batch.clone() {
            if let Some(out) = &plan.moves[index].out {
                self.note_others(handle, index, out).await;
            }
            self.set(handle, index, StepState::Done, false);
        }
        Ok(())
    }

    /// Those that have gone get nothing: somebody else who has put one back ends the rollout. Supervision may have.
    fn check_gone(&self, handle: &Handle, state: &State, steps: &Range<usize>) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let has = weights(state, plan);
        if plan.is_between() && (has.0 == BasisPoints::NONE || has != *lock(&self.weights)) {
            return Ok(());
        }
        let has_gone = |index: &usize| match self.state(*index) {
            StepState::Draining | StepState::Safe | StepState::Shared => true,
            StepState::Warming | StepState::Serving | StepState::Done => !plan.moves[*index].is_in_place(),
            StepState::Pending | StepState::Restored | StepState::Kept | StepState::Lost => false,
        };
        for index in steps.clone().filter(has_gone) {
            if let Some(out) =
                plan.moves[index].out.as_ref().filter(|out| serves(state, plan, &plan.from, out))
            {
                self.set(handle, index, StepState::Restored, false);
                return Err(Halt::Interfered(format!("somebody else has put {out} back into service")));
            }
        }
        Ok(())
    }

    /// The new endpoints have to stay well for a while.
    async fn settle(&self, handle: &Handle, batch: &Range<usize>) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let since = clock::instant();
        let settled = async || {
            for endpoint in plan.moves[batch.clone()].iter().filter_map(|step| step.into.as_ref()) {
                if !self.serves(handle, &plan.to, endpoint) {
                    return Err(Halt::Bound(format!("{endpoint} has become unwell")));
                }
            }
            Ok(clock::instant().saturating_duration_since(since) >= self.order.settle)
        };
        self.until(handle, Duration::MAX, settled, String::new).await
    }

    pub(super) fn state(&self, index: usize) -> StepState {
        self.told.borrow().steps[index].state
    }

    /// Those that are in this state still.
    fn still(&self, of: &[(usize, EndpointAddr)], state: StepState) -> Vec<EndpointAddr> {
        of.iter()
            .filter(|(index, _)| self.state(*index) == state)
            .map(|(_, endpoint)| endpoint.clone())
            .collect()
    }

    /// A step has come so far.
    pub(super) fn set(&self, handle: &Handle, index: usize, state: StepState, awaits: bool) {
        let is_news = self.told.send_if_modified(|told| {
            let step = &mut told.steps[index];
            let before = (step.state, step.awaits_confirmation);
            (step.state, step.awaits_confirmation) = (state, awaits);
            told.news += 1;
            before != (state, awaits)
        });
        if is_news {
            self.tell(handle, Some(index));
        }
    }

    pub(super) fn set_state(&self, handle: &Handle, state: RolloutState) {
        self.told.send_modify(|told| {
            told.state = state;
            told.news += 1;
        });
        self.tell(handle, None);
    }

    /// Keeps where it is, and tells whoever listens.
    pub(super) fn tell(&self, handle: &Handle, step: Option<usize>) {
        let told = self.told.borrow().clone();
        handle.rollouts().keep(&told);
        let (service, state) = (&told.service, told.state.token());
        match step.map(|index| &told.steps[index]) {
            Some(of) => {
                let (out, into) = (of.out.as_deref().unwrap_or("-"), of.into.as_deref().unwrap_or("-"));
                info!(service, out, into, state = of.state.token(), "rollout");
            }
            None => {
                let (why, hindrance) = (&told.why, &told.hindrance);
                info!(service, state, steps = told.steps.len(), why, hindrance, "rollout");
            }
        }
        let notice = Arc::new(RolloutNotice { told, step, state: handle.state() });
        // Nobody listens: nobody to tell.
        let _ = handle.notices.send(Notice::Rollout(notice));
    }
}

/// `10.0.0.1:80, 10.0.0.2:80`.
pub(super) fn list(endpoints: &[EndpointAddr]) -> String {
    endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// All of it, for an endpoint that comes.
pub(super) fn said(traits: &Traits) -> TraitsEdit {
    let zone = traits.zone.clone().map_or(ZoneEdit::Nowhere, ZoneEdit::Is);
    TraitsEdit { weight: Some(traits.weight), zone }
}
