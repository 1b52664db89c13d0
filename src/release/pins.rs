//! Where no pin of a trusted hop leads, although others get there: to who is suspect, as no rule does, and to who is retired, for
//! whoever is pinned is nobody who was there.

use super::draft::Item;
use crate::table::pin::Avoided;

impl Item {
    /// What pins are to avoid, by the trial and the retirement that there are.
    pub(super) fn settle_pins(&mut self) {
        let Self { service, deployment, .. } = self;
        let trial = deployment.trial.as_ref().filter(|trial| trial.is_suspected(&service.split));
        service.avoided = Avoided {
            suspected: trial.map(|trial| trial.candidate.clone()),
            retiring: deployment.retirement.as_ref().map(|retirement| retirement.version.clone()),
        };
    }
}
