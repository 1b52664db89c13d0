//! A rollout from its first drain to its last word.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::told::{RolloutState, StepState};
use super::wait::{Halt, answers};
use super::{Back, Job, lock};
use crate::control::handle::{Asked, Notice, RolloutNotice, Wanted, weight};
use crate::control::{Handle, clock};
use crate::release::Command;
use crate::table::{EndpointAddr, VersionName};

/// Does the whole of it.
pub(super) async fn run(job: Arc<Job>, handle: Handle) {
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
        Ok(())
    }

    /// Nothing goes before enough others serve.
    async fn wait_for_capacity(&self, handle: &Handle, batch: &Range<usize>) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let moves = &plan.moves[batch.clone()];
        let goes = moves.iter().filter(|step| step.out.is_some()).count();
        let first = if plan.surge {
            moves.iter().filter(|step| !step.is_in_place() && step.into.is_some()).count()
        } else {
            0
        };
        let needs = plan.min_serving + goes;
        let enough = async || Ok(self.look(handle) + first >= needs);
        let what = || format!("too few endpoints serve to take out {goes}: {needs} have to before");
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
        let mut commands: Vec<_> = self.shift(handle, &goes, &[], true).into_iter().collect();
        commands.extend(goes.iter().map(|endpoint| plan.drain(&plan.from, endpoint)));
        self.change(handle, batch, commands, &format!("{} drains", list(&goes))).await?;
        out.iter().for_each(|(index, _)| self.set(handle, *index, StepState::Draining, false));
        let all_safe = async || {
            for (index, endpoint) in &out {
                if self.state(*index) == StepState::Draining
                    && self.is_empty(handle, &plan.from, endpoint).await
                {
                    self.set(handle, *index, StepState::Safe, self.order.confirm);
                }
            }
            Ok(!out.iter().any(|(index, _)| self.state(*index) == StepState::Draining))
        };
        let what =
            || format!("{} did not become empty in time", list(&self.still(&out, StepState::Draining)));
        self.until(handle, self.order.drain_timeout, all_safe, what).await?;
        if self.order.confirm {
            let all_told = async || Ok(out.iter().all(|(_, endpoint)| self.is_confirmed(endpoint)));
            let what = || format!("nobody has confirmed that {} is dealt with", list(&goes));
            self.until(handle, self.order.ready_timeout, all_told, what).await?;
            out.iter().for_each(|(index, _)| self.set(handle, *index, StepState::Safe, false));
        }
        Ok(())
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
        for endpoint in &comes {
            let why = std::cell::RefCell::new(String::new());
            let is_there = async || match answers(endpoint).await {
                Ok(()) => Ok(true),
                Err(said) => {
                    why.replace(said);
                    Ok(false)
                }
            };
            let what = || format!("{endpoint} is not there: {}", why.borrow());
            self.until(handle, self.order.ready_timeout, is_there, what).await?;
        }
        let commands = comes.iter().map(|endpoint| plan.put(&plan.to, endpoint)).collect();
        self.change(handle, batch, commands, &format!("{} comes", list(&comes))).await?;
        let all_serve = async || Ok(comes.iter().all(|endpoint| self.serves(handle, &plan.to, endpoint)));
        let what = || {
            let unwell = comes.iter().filter(|endpoint| !self.serves(handle, &plan.to, endpoint));
            format!("{} is not healthy", list(&unwell.cloned().collect::<Vec<_>>()))
        };
        self.until(handle, self.order.ready_timeout, all_serve, what).await?;
        let shift = self.shift(handle, &[], &comes, true);
        self.change(handle, batch, shift.into_iter().collect(), &format!("{} serves", list(&comes))).await?;
        into.iter().for_each(|(index, _)| self.set(handle, *index, StepState::Serving, false));
        self.look(handle);
        Ok(())
    }

    /// The old endpoints of a batch leave the pool, where others of the same version have come in their place.
    async fn finish(&self, handle: &Handle, batch: &Range<usize>) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let gone = plan.moves[batch.clone()].iter().filter(|step| !plan.is_between() && !step.is_in_place());
        let gone: Vec<_> = gone.filter_map(|step| step.out.clone()).collect();
        let commands = gone.iter().map(|endpoint| plan.remove(&plan.from, endpoint)).collect();
        self.change(handle, batch, commands, &format!("{} is gone", list(&gone))).await?;
        batch.clone().for_each(|index| self.set(handle, index, StepState::Done, false));
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

    /// The weights when these go and these have come, as far as they follow the endpoints.
    pub(super) fn shift(
        &self,
        handle: &Handle,
        goes: &[EndpointAddr],
        comes: &[EndpointAddr],
        is_forward: bool,
    ) -> Option<Command> {
        let plan = &self.order.plan;
        let state = handle.state();
        let service = state.table.service(&plan.service)?;
        let serving =
            |version: &VersionName| service.version(version).into_iter().flat_map(|spec| spec.serving());
        let stays = serving(&plan.from).filter(|endpoint| !goes.contains(endpoint)).count();
        // One of the new version's endpoints that stands in a later move counts when its turn has come.
        let later = |endpoint: &EndpointAddr| {
            let index = plan.moves.iter().position(|step| step.into.as_ref() == Some(endpoint));
            index.is_some_and(|index| {
                !matches!(self.state(index), StepState::Serving | StepState::Done | StepState::Kept)
            })
        };
        let came = serving(&plan.to).filter(|endpoint| comes.contains(endpoint) || !later(endpoint)).count();
        plan.weights(service, stays, came, is_forward)
    }

    /// Asks for one change; for none when there is nothing to change.
    pub(super) async fn change(
        &self,
        handle: &Handle,
        batch: &Range<usize>,
        mut commands: Vec<Command>,
        what: &str,
    ) -> Result<(), Halt> {
        let command = match commands.len() {
            0 => return Ok(()),
            1 => commands.remove(0),
            _ => Command::Batch(commands),
        };
        self.check_weights(handle)?;
        let (first, last, count) = (batch.start + 1, batch.end, self.order.plan.moves.len());
        let step = if first == last { first.to_string() } else { format!("{first} to {last}") };
        let why =
            if self.order.reason.is_empty() { String::new() } else { format!(" ({})", self.order.reason) };
        let wanted = Wanted {
            command: Asked::Command(command),
            actor: self.order.actor.clone(),
            reason: format!("rollout, step {step} of {count}: {what}{why}"),
            expected: Vec::new(),
            idempotency: None,
            dry_run: false,
            // The way back asks nobody.
            force: self.told.borrow().state == RolloutState::Reversing,
            exclusive: None,
            render: |_, _| String::new(),
        };
        handle.change(wanted).await.map_err(Halt::of)?;
        self.note_weights(handle);
        Ok(())
    }

    /// Between versions the weights are ours while it goes on: somebody else who moves them knows better.
    fn check_weights(&self, handle: &Handle) -> Result<(), Halt> {
        let now = self.weights(handle);
        let ours = lock(&self.weights).get_or_insert(now).to_owned();
        if !self.order.plan.is_between() || now == ours {
            return Ok(());
        }
        Err(Halt::Interfered(format!(
            "somebody else has changed the weights of `{}`",
            self.order.plan.service
        )))
    }

    fn note_weights(&self, handle: &Handle) {
        *lock(&self.weights) = Some(self.weights(handle));
    }

    fn weights(&self, handle: &Handle) -> (u16, u16) {
        let (state, plan) = (handle.state(), &self.order.plan);
        let of = |version| weight(&state, &plan.service, version).points();
        (of(&plan.from), of(&plan.to))
    }

    /// Ends early, and goes back as far as it should; `None` when the process ends.
    async fn come_to_an_end(&self, handle: &Handle, halt: Halt) -> Option<RolloutState> {
        let (why, back) = match halt {
            Halt::Closed => return None,
            Halt::Asked(back) => ("somebody has ended it".to_owned(), Some(back)),
            Halt::Bound(why) => (why, Some(self.order.on_failure)),
            Halt::TimedOut(why) => {
                self.told.send_modify(|told| told.timed_out = true);
                (why, Some(self.order.on_failure))
            }
            Halt::Interfered(why) => (why, None),
        };
        warn!(service = %self.order.plan.service, why, "a rollout ends early");
        self.told.send_modify(|told| told.why = Some(why));
        let Some(back) = back else { return Some(RolloutState::Stopped) };
        self.set_state(handle, RolloutState::Reversing);
        if let Err(halt) = self.reverse(handle, back).await {
            let why = match halt {
                Halt::Closed => return None,
                Halt::Asked(_) => String::new(),
                Halt::Bound(why) | Halt::TimedOut(why) | Halt::Interfered(why) => why,
            };
            warn!(service = %self.order.plan.service, why, "a rollout cannot go back further");
            let more = format!("; on the way back: {why}");
            self.told.send_modify(|told| told.why.get_or_insert_default().push_str(&more));
            return Some(RolloutState::Stopped);
        }
        Some(if back == Back::All { RolloutState::Reversed } else { RolloutState::Stopped })
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

    fn set_state(&self, handle: &Handle, state: RolloutState) {
        self.told.send_modify(|told| {
            told.state = state;
            told.news += 1;
        });
        self.tell(handle, None);
    }

    /// Keeps where it is, and tells whoever listens.
    fn tell(&self, handle: &Handle, step: Option<usize>) {
        let told = self.told.borrow().clone();
        handle.rollouts().keep(&told);
        let (service, state) = (&told.service, told.state.token());
        match step.map(|index| &told.steps[index]) {
            Some(of) => {
                let (out, into) = (of.out.as_deref().unwrap_or("-"), of.into.as_deref().unwrap_or("-"));
                info!(service, out, into, state = of.state.token(), "rollout");
            }
            None => info!(service, state, steps = told.steps.len(), why = told.why, "rollout"),
        }
        // Nobody listens: nobody to tell.
        let _ = handle.notices.send(Notice::Rollout(Arc::new(RolloutNotice { told, step })));
    }
}

/// `10.0.0.1:80, 10.0.0.2:80`.
pub(super) fn list(endpoints: &[EndpointAddr]) -> String {
    endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
