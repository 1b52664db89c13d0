//! How a rollout ends: with a way back, or early.

use futures_util::future::join_all;
use tracing::warn;

use super::change::weights;
use super::told::RolloutState;
use super::wait::{Halt, answers};
use super::{Back, Job, lock};
use crate::control::Handle;
use crate::release::State;
use crate::table::BasisPoints;

impl Job {
    /// The old endpoints drain no more once their version has no weight: it gets nothing anyhow, and a flip, a revert, supervision or
    /// another rollout can give it traffic again. One that went over to the new version stays out, and so does one that does not
    /// answer any more: it was said to be safe, and somebody has stopped it.
    pub(super) async fn open_the_way_back(&self, handle: &Handle) -> Result<(), Halt> {
        let plan = &self.order.plan;
        if !plan.is_between() {
            return Ok(());
        }
        let out = plan.moves.iter().filter(|step| !step.is_in_place()).filter_map(|step| step.out.as_ref());
        let asked = out.map(|out| async move { (out, answers(out).await.is_ok()) });
        let out = join_all(asked).await;
        let ends = |state: &State| {
            let spec = state.table.service(&plan.service).and_then(|service| service.version(&plan.from));
            let Some(spec) = spec.filter(|_| weights(state, plan).0 == BasisPoints::NONE) else {
                return Ok(Vec::new());
            };
            // Whoever is found later at the address of one that was found no more is another one.
            let ends = out.iter().filter(|(out, answers)| *answers || !spec.endpoints.contains(out));
            let ends = ends.filter(|(out, _)| spec.draining.contains(out));
            Ok(ends.map(|(out, _)| plan.end_drain(&plan.from, out)).collect())
        };
        let (all, what) = (0..plan.moves.len(), format!("{} can take traffic again", plan.from));
        match self.change(handle, &all, &what, ends).await {
            Err(Halt::Closed) => Err(Halt::Closed),
            // Everything else is done, and stays.
            Err(halt) => {
                warn!(service = %plan.service, ?halt, "the old endpoints stay drained");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
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
