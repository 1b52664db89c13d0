//! The way back of a rollout: an old endpoint that still answers serves again, and only then the new one goes.

use tracing::warn;

use super::change::{Shift, is_in_pool};
use super::job::said;
use super::told::StepState;
use super::wait::{Halt, answers};
use super::{Back, Job, Wish};
use crate::control::{Handle, clock};
use crate::release::rollout::Move;
use crate::release::{Deployment, State};
use crate::table::{EndpointAddr, TraitsEdit};

impl Job {
    /// Takes back what is under way, or all; the newest first.
    ///
    /// # Errors
    /// [`Halt`], where it does not go on.
    pub(super) async fn reverse(&self, handle: &Handle, back: Back) -> Result<(), Halt> {
        self.ascertain(handle, clock::instant()).await?;
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

    /// The old endpoint serves again, if it answers and is well.
    async fn restore(&self, handle: &Handle, index: usize, out: &EndpointAddr) -> Result<bool, Halt> {
        let plan = &self.order.plan;
        if self.serves(handle, &plan.from, out) {
            return Ok(true);
        }
        if answers(out).await.is_err() {
            return Ok(false);
        }
        let wish = Wish::End(Back::All);
        // Whoever may have restarted it has not said so: what was found before may have been another process.
        let since = plan.moves[index].is_in_place().then(clock::instant);
        let is_found = async || Ok(self.is_well_since(handle, &plan.from, out, since));
        let found = self.until_but(handle, self.order.ready_timeout, is_found, String::new, wish).await;
        if let Err(Halt::TimedOut(_)) = found {
            return Ok(false);
        }
        found?;
        let (step, before) = (index..index + 1, self.before[index].out.as_ref());
        let was_found = before.is_some_and(|before| before.is_found);
        let has_removed = self.state(index) == StepState::Done && !plan.is_between();
        // It had been found, and is found no more; or somebody else has removed it, and is not overruled.
        let is_gone =
            |state: &State| (was_found || !has_removed) && !is_in_pool(state, plan, &plan.from, out);
        self.change(handle, &step, &format!("back: {out} serves again"), |state| {
            if is_gone(state) && !was_found {
                return Ok(Vec::new());
            }
            let traits = before.map_or_else(TraitsEdit::default, |before| said(&before.traits));
            let serves = self.serve(state, (&plan.from, out), before, traits);
            let again = Shift { again: std::slice::from_ref(out), ..Shift::default() };
            let shift = if is_gone(state) { None } else { self.shift(state, again) };
            Ok(serves.into_iter().chain(shift).collect())
        })
        .await?;
        if is_gone(&handle.state()) {
            return Ok(false);
        }
        let serves = async || Ok(self.serves(handle, &plan.from, out));
        let waited = self.until_but(handle, self.order.ready_timeout, serves, String::new, wish).await;
        if let Err(Halt::TimedOut(_)) = waited {
            return self.drain_again(handle, index, out).await;
        }
        waited.map(|()| true)
    }

    /// The old endpoint answers, but is not well: nothing is left to it where others can do without.
    async fn drain_again(&self, handle: &Handle, index: usize, out: &EndpointAddr) -> Result<bool, Halt> {
        let plan = &self.order.plan;
        let drain = |state: &State| {
            let shift = self.shift(state, Shift { goes: std::slice::from_ref(out), ..Shift::default() });
            Ok(shift.into_iter().chain([plan.drain(&plan.from, out)]).collect())
        };
        let what = format!("back: {out} is not healthy and drains again");
        match self.change(handle, &(index..index + 1), &what, drain).await {
            // The last one of its version stays.
            Err(Halt::Bound(why)) => warn!(service = %plan.service, why, "an unhealthy endpoint stays"),
            drained => drained?,
        }
        Ok(false)
    }

    /// The new endpoint gets nothing new, and leaves the pool when nothing is left on it; one that was there before is what it
    /// was, and drained if it was. The weight that came with it goes back also when somebody else has taken it out of the pool.
    async fn dismiss(&self, handle: &Handle, index: usize, into: &EndpointAddr) -> Result<(), Halt> {
        let plan = &self.order.plan;
        let (step, before) = (index..index + 1, self.before[index].into.as_ref());
        self.change(handle, &step, &format!("back: {into} drains"), |state| {
            let shift = self.shift(state, Shift { leaves: std::slice::from_ref(into), ..Shift::default() });
            let drains =
                before.is_none_or(|before| before.drained) && is_in_pool(state, plan, &plan.to, into);
            Ok(shift.into_iter().chain(drains.then(|| plan.drain(&plan.to, into))).collect())
        })
        .await?;
        if before.is_some() || !is_in_pool(&handle.state(), plan, &plan.to, into) {
            return Ok(());
        }
        let is_empty = async || Ok(self.is_empty(handle, &plan.to, into).await);
        let what = || format!("{into} did not become empty in time");
        let wish = Wish::End(Back::All);
        self.until_but(handle, self.order.drain_timeout, is_empty, what, wish).await?;
        let what = format!("back: {into} is gone");
        self.change(handle, &step, &what, |state| {
            // Taken away, it would go on serving: it stays drained.
            let is_found = |of: &Deployment| of.has_found(&plan.to, into);
            let is_found = state.deployment(&plan.service).is_some_and(is_found);
            Ok(if is_found { Vec::new() } else { vec![plan.remove(&plan.to, into)] })
        })
        .await
    }
}
