//! The way back of a rollout: an old endpoint that still answers serves again, and only then the new one goes.

use super::told::StepState;
use super::wait::{Halt, answers};
use super::{Back, Job, Wish};
use crate::control::Handle;
use crate::release::rollout::Move;
use crate::table::EndpointAddr;

impl Job {
    /// Takes back what is under way, or all; the newest first.
    ///
    /// # Errors
    /// [`Halt`], where it does not go on.
    pub(super) async fn reverse(&self, handle: &Handle, back: Back) -> Result<(), Halt> {
        for index in (0..self.order.plan.moves.len()).rev() {
            match self.state(index) {
                StepState::Pending => {}
                StepState::Done if back == Back::Batch => {}
                // Restarted in its place: there is nothing to go back to.
                StepState::Done
                    if self.order.plan.moves[index].is_in_place() && !self.order.plan.is_between() => {}
                _ => self.take_back(handle, index).await?,
            }
        }
        Ok(())
    }

    async fn take_back(&self, handle: &Handle, index: usize) -> Result<(), Halt> {
        let Move { out, into } = &self.order.plan.moves[index];
        let is_back = match out {
            Some(out) => self.restore(handle, index, out).await?,
            // There was none before.
            None => true,
        };
        // A machine that was restarted in its place is both, unless it went over to another version.
        let is_apart = self.order.plan.is_between() || out != into;
        let came = into.as_ref().filter(|_| is_apart);
        let serves = came.is_some_and(|into| self.serves(handle, &self.order.plan.to, into));
        match (is_back, came) {
            (true, Some(into)) => {
                self.dismiss(handle, index, into).await?;
                self.set(handle, index, StepState::Restored, false);
            }
            (true, None) => self.set(handle, index, StepState::Restored, false),
            (false, _) if serves => self.set(handle, index, StepState::Kept, false),
            (false, _) => self.set(handle, index, StepState::Lost, false),
        }
        Ok(())
    }

    /// The old endpoint serves again, if it answers.
    async fn restore(&self, handle: &Handle, index: usize, out: &EndpointAddr) -> Result<bool, Halt> {
        let plan = &self.order.plan;
        if self.serves(handle, &plan.from, out) {
            return Ok(true);
        }
        if answers(out).await.is_err() {
            return Ok(false);
        }
        let mut commands = vec![plan.put(&plan.from, out)];
        commands.extend(self.shift_back(handle, Some(out), None));
        self.change(handle, &(index..index + 1), commands, &format!("back: {out} serves again")).await?;
        let serves = async || Ok(self.serves(handle, &plan.from, out));
        let what = || format!("{out} is not healthy");
        let waited =
            self.until_but(handle, self.order.ready_timeout, serves, what, Wish::End(Back::All)).await;
        match waited {
            Ok(()) => Ok(true),
            Err(Halt::TimedOut(_)) => Ok(false),
            Err(halt) => Err(halt),
        }
    }

    /// The new endpoint gets nothing new, and leaves the pool when nothing is left on it.
    async fn dismiss(&self, handle: &Handle, index: usize, into: &EndpointAddr) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let state = handle.state();
        let spec = state.table.service(&plan.service).and_then(|service| service.version(&plan.to));
        if !spec.is_some_and(|spec| spec.endpoints.contains(into)) {
            return Ok(());
        }
        let step = index..index + 1;
        let mut commands: Vec<_> = self.shift_back(handle, None, Some(into)).into_iter().collect();
        let stays = self.was_there[index];
        if !stays {
            commands.push(plan.drain(&plan.to, into));
        }
        self.change(handle, &step, commands, &format!("back: {into} drains")).await?;
        if stays {
            return Ok(());
        }
        let is_empty = async || Ok(self.is_empty(handle, &plan.to, into).await);
        let what = || format!("{into} did not become empty in time");
        let wish = Wish::End(Back::All);
        self.until_but(handle, self.order.drain_timeout, is_empty, what, wish).await?;
        let remove = vec![plan.remove(&plan.to, into)];
        self.change(handle, &step, remove, &format!("back: {into} is gone")).await
    }

    /// The weights when this one serves again and this one goes.
    fn shift_back(
        &self,
        handle: &Handle,
        again: Option<&EndpointAddr>,
        goes: Option<&EndpointAddr>,
    ) -> Option<crate::release::Command> {
        let plan = &self.order.plan;
        let state = handle.state();
        let service = state.table.service(&plan.service)?;
        let from = service.version(&plan.from).into_iter().flat_map(|spec| spec.serving());
        let stays = from.filter(|endpoint| Some(*endpoint) != again).count() + usize::from(again.is_some());
        let in_service = |endpoint: &EndpointAddr| {
            let index = plan.moves.iter().position(|step| step.into.as_ref() == Some(endpoint));
            index.is_none_or(|index| {
                matches!(self.state(index), StepState::Serving | StepState::Done | StepState::Kept)
            })
        };
        let to = service.version(&plan.to).into_iter().flat_map(|spec| spec.serving());
        let came = to.filter(|endpoint| Some(*endpoint) != goes && in_service(endpoint)).count();
        plan.weights(service, stays, came, false)
    }
}
