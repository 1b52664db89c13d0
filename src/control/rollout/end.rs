//! How a rollout ends: with a way back, or early.

use std::ops::Range;

use futures_util::future::join_all;
use tracing::warn;

use super::change::as_one;
use super::told::RolloutState;
use super::wait::{Halt, answers};
use super::{Back, Job, lock};
use crate::control::Handle;
use crate::control::traffic::is_led_to;
use crate::release::{Command, State};
use crate::table::EndpointAddr;

impl Job {
    /// The old endpoints drain no more once their version has no weight: it gets nothing anyhow, and a flip, a revert, supervision or
    /// another rollout can give it traffic again. One that went over to the new version stays out, and so does one that does not
    /// answer any more: it was said to be safe, and somebody has stopped it.
    pub(super) async fn open_the_way_back(&self, handle: &Handle) -> Result<(), Halt> {
        let plan = &self.order.plan;
        if !plan.is_between() {
            return Ok(());
        }
        // What it says about the new version is heard before all of this is done.
        let heard = self.heed(handle).await;
        self.hindered(handle, None);
        heard?;
        let out = self.old_ones(|_| true).await;
        let ends = |state: &State| Ok(self.ends_of_drains(state, &out));
        let (all, what) = self.opening();
        match self.change(handle, &all, &what, ends).await {
            // Everything else is done, and stays.
            Err(Halt::Bound(why) | Halt::TimedOut(why)) => {
                warn!(service = %plan.service, why, "the old endpoints stay drained");
                Ok(())
            }
            opened => opened,
        }
    }

    /// Supervision wants to give traffic back, and all of the old version drains: the old endpoints that answer drain no more,
    /// unless somebody was just told to deal with them. Asked for once; who waits asks again. What is in the way of that, if anything is.
    pub(super) async fn make_way(&self, handle: &Handle) -> Option<String> {
        let plan = &self.order.plan;
        let is_shut = |state: &State| {
            let spec = state.table.service(&plan.service).and_then(|service| service.version(&plan.from));
            spec.is_some_and(|spec| spec.serving().next().is_none())
        };
        if !plan.is_between() || !is_shut(&handle.state()) {
            return None;
        }
        let out = self.old_ones(|index| !self.told.borrow().steps[index].awaits_confirmation).await;
        let state = handle.state();
        let command = as_one(self.ends_of_drains(&state, &out)).filter(|_| is_shut(&state))?;
        // Somebody else has moved the weights: that is found out soon enough.
        let epoch = self.check_weights(&state).ok()?;
        let (all, what) = self.opening();
        let made = self.make(handle, command, epoch, self.because(&all, &what)).await;
        made.err().map(|failed| failed.to_string())
    }

    fn opening(&self) -> (Range<usize>, String) {
        let plan = &self.order.plan;
        (0..plan.moves.len(), format!("{} can take traffic again", plan.from))
    }

    /// The old endpoints of the `wanted` moves that are no new ones, each with whether it answers.
    async fn old_ones(&self, wanted: impl Fn(usize) -> bool) -> Vec<(&EndpointAddr, bool)> {
        let moves = self.order.plan.moves.iter().enumerate();
        let moves = moves.filter(|(index, step)| !step.is_in_place() && wanted(*index));
        let out = moves.filter_map(|(_, step)| step.out.as_ref());
        join_all(out.map(|out| async move { (out, answers(out).await.is_ok()) })).await
    }

    /// Of these those that answer drain no more, where the old version has no weight.
    fn ends_of_drains(&self, state: &State, out: &[(&EndpointAddr, bool)]) -> Vec<Command> {
        let plan = &self.order.plan;
        let spec = state.table.service(&plan.service).and_then(|service| service.version(&plan.from));
        let Some(spec) = spec.filter(|_| !is_led_to(state, &plan.service, &plan.from)) else {
            return Vec::new();
        };
        // Whoever is found later at the address of one that was found no more is another one.
        let ends = out.iter().filter(|(out, answers)| *answers || !spec.endpoints.contains(out));
        let ends = ends.filter(|(out, _)| spec.draining.contains(out));
        ends.map(|(out, _)| plan.end_drain(&plan.from, out)).collect()
    }

    /// Ends early, and goes back as far as it should; `None` when the process ends.
    pub(super) async fn come_to_an_end(&self, handle: &Handle, halt: Halt) -> Option<RolloutState> {
        let (why, back) = match halt {
            Halt::Closed => return None,
            Halt::Asked(back) => {
                let why = lock(&self.ended_for).clone();
                (why.unwrap_or_else(|| "somebody has ended it".to_owned()), Some(back))
            }
            Halt::Bound(why) => (why, Some(self.order.on_failure)),
            // Nothing of a bad version stays.
            Halt::Convicted(why) => (why, Some(Back::All)),
            Halt::TimedOut(why) => {
                self.told.send_modify(|told| told.timed_out = true);
                (why, Some(self.order.on_failure))
            }
            Halt::Interfered(why) => (why, None),
        };
        warn!(service = %self.order.plan.service, why, "a rollout ends early");
        self.told.send_modify(|told| {
            told.why = Some(why);
            told.steps.iter_mut().for_each(|step| step.awaits_confirmation = false);
        });
        let Some(back) = back else { return Some(RolloutState::Stopped) };
        self.set_state(handle, RolloutState::Reversing);
        if let Err(halt) = self.reverse(handle, back).await {
            let why = match halt {
                Halt::Closed => return None,
                Halt::Asked(_) => String::new(),
                Halt::Bound(why) | Halt::Convicted(why) | Halt::TimedOut(why) | Halt::Interfered(why) => why,
            };
            warn!(service = %self.order.plan.service, why, "a rollout cannot go back further");
            let more = format!("; on the way back: {why}");
            self.told.send_modify(|told| told.why.get_or_insert_default().push_str(&more));
            return Some(RolloutState::Stopped);
        }
        Some(if back == Back::All { RolloutState::Reversed } else { RolloutState::Stopped })
    }
}
