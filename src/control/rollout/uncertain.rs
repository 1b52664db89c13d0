//! A change that the store may have kept or not: nothing else is decided before it says so.

use std::time::Instant;

use super::change::weights;
use super::wait::Halt;
use super::{Job, lock};
use crate::control::{Failed, Handle};
use crate::release::{Command, State};
use crate::table::BasisPoints;

/// What the two versions have.
pub(super) type Weights = (BasisPoints, BasisPoints);

impl Job {
    /// This change may have been made.
    pub(super) fn may_be_made(&self, command: &Command) {
        *lock(&self.uncertain) = Some(self.weights_after(command));
    }

    /// True while it is not known whether our last change was made.
    pub(super) fn is_uncertain(&self) -> bool {
        lock(&self.uncertain).is_some()
    }

    /// What the two versions have once this change of ours is made.
    pub(super) fn weights_after(&self, command: &Command) -> Weights {
        self.order.plan.weights_by(command).unwrap_or_else(|| *lock(&self.weights))
    }

    /// Waits until it is known whether our last change was made; what is shown then is so.
    ///
    /// # Errors
    /// [`Halt::TimedOut`] when the store has not said so in `ready_timeout` since then, or somebody wants an end.
    pub(super) async fn ascertain(&self, handle: &Handle, since: Instant) -> Result<(), Halt> {
        let mut seen = handle.seen.clone();
        while self.is_uncertain() {
            seen.mark_unchanged();
            match handle.ascertain().await {
                Ok(()) => self.learn(&handle.state()),
                Err(Failed::Store(why)) => {
                    self.wait_again(handle, why.to_string(), since, &mut seen).await?;
                }
                Err(failed) => return Err(Halt::of(failed)),
            }
        }
        Ok(())
    }

    /// It is known now. The weights are those that we have set, if they are.
    fn learn(&self, state: &State) {
        if let Some(set) = lock(&self.uncertain).take()
            && weights(state, &self.order.plan) == set
        {
            *lock(&self.weights) = set;
        }
    }
}
