//! What supervision says about the new version while a rollout goes on: to wait, or to go back.

use std::time::Duration;

use tokio::time::sleep;

use super::change::weights;
use super::wait::{Halt, LOOK};
use super::{Job, RolloutState, Wish, lock};
use crate::control::supervisor::How;
use crate::control::{Handle, clock};
use crate::release::verdict::Standing;
use crate::release::{State, Trial};

/// How long it may take until supervision has said that the weights were moved by it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What supervision thinks of the new version.
enum Doubt {
    None,
    /// It is not sure, and may keep traffic away meanwhile.
    Suspect,
    /// It cannot tell, time and again.
    Held,
    /// It has taken the traffic back.
    Convicted(String),
    /// The weights are not ours, and nobody has said why yet.
    Unknown,
}

impl Job {
    /// Waits while supervision doubts the new version; how long that is, is supervision's to say.
    ///
    /// # Errors
    /// [`Halt::Convicted`], [`Halt::Bound`], or somebody wants an end.
    pub(super) async fn heed(&self, handle: &Handle) -> Result<(), Halt> {
        let mut wish = self.wish.subscribe();
        let since = clock::instant();
        loop {
            match self.doubt(handle) {
                Doubt::None => return Ok(()),
                // Somebody else it was, and that is found out soon enough.
                Doubt::Unknown if clock::instant().saturating_duration_since(since) > PATIENCE => {
                    return Ok(());
                }
                Doubt::Unknown => {}
                Doubt::Suspect => {
                    let suspects = || format!("supervision suspects `{}`", self.order.plan.to);
                    let why = self.make_way(handle).await.unwrap_or_else(suspects);
                    self.hindered(handle, Some(why));
                }
                Doubt::Held => {
                    let why = format!("supervision cannot tell whether `{}` is well", self.order.plan.to);
                    return Err(Halt::Bound(why));
                }
                Doubt::Convicted(why) => return Err(self.convicted(handle, why)),
            }
            if let Wish::End(back) = *wish.borrow_and_update() {
                return Err(Halt::Asked(back));
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = wish.changed() => {}
            }
        }
    }

    /// True while supervision suspects the new version.
    pub(super) fn is_suspected(&self, handle: &Handle) -> bool {
        matches!(self.doubt(handle), Doubt::Suspect)
    }

    /// Whether supervision has taken the traffic back.
    ///
    /// # Errors
    /// [`Halt::Convicted`].
    pub(super) fn check_verdict(&self, handle: &Handle) -> Result<(), Halt> {
        match self.said(handle) {
            Some(why) => Err(self.convicted(handle, why)),
            None => Ok(()),
        }
    }

    /// True when the weights are those that we have set, or what supervision has made of these in its doubt.
    pub(super) fn are_ours(&self, state: &State) -> bool {
        let (plan, ours) = (&self.order.plan, *lock(&self.weights));
        let trial = state.deployment(&plan.service).and_then(|deployment| deployment.trial.as_ref());
        let asked = trial.map(|Trial { asked, .. }| (asked.weight(&plan.from), asked.weight(&plan.to)));
        weights(state, plan) == ours || asked == Some(ours)
    }

    /// From here on the weights are those that supervision has set.
    fn convicted(&self, handle: &Handle, why: String) -> Halt {
        *lock(&self.weights) = weights(&handle.state(), &self.order.plan);
        Halt::Convicted(format!("supervision has taken the traffic back: {why}"))
    }

    /// Why supervision has taken the traffic back from the new version, if it has.
    fn said(&self, handle: &Handle) -> Option<String> {
        let plan = &self.order.plan;
        if !plan.is_between() || self.told.borrow().state == RolloutState::Reversing {
            return None;
        }
        let ended = handle.verdicts().ended_of(&plan.service)?;
        (ended.how == How::Reverted && ended.epoch > self.since).then_some(ended.said)
    }

    fn doubt(&self, handle: &Handle) -> Doubt {
        let plan = &self.order.plan;
        if !plan.is_between() || self.told.borrow().state == RolloutState::Reversing {
            return Doubt::None;
        }
        if let Some(why) = self.said(handle) {
            return Doubt::Convicted(why);
        }
        let state = handle.state();
        let known = state.table.service(&plan.service).zip(state.deployment(&plan.service));
        let trial = known.and_then(|(service, deployment)| Some((service, deployment.trial.as_ref()?)));
        // One that only tells holds nobody up.
        match trial.filter(|(_, trial)| trial.candidate == plan.to && trial.acts) {
            Some((service, trial)) => match handle.verdicts().standing_of(&plan.service, trial.stage) {
                Some(Standing::Held) => Doubt::Held,
                Some(Standing::Suspect | Standing::Breached) => Doubt::Suspect,
                _ if trial.is_suspected(&service.split) => Doubt::Suspect,
                _ => Doubt::None,
            },
            None if weights(&state, plan) != *lock(&self.weights) => Doubt::Unknown,
            None => Doubt::None,
        }
    }
}
