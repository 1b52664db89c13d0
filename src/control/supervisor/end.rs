//! How a trial has ended, for whoever waits for that, and for who asks again in a later process.

use super::Verdicts;
use super::told::Ended;
use crate::control::{Failed, Handle};
use crate::store::HistoryQuery;
use crate::table::{Epoch, ServiceName};

/// Changes of a service that are looked through at a time.
const PAGE: usize = 100;

impl Handle {
    /// How the trial of this stage has ended; waits for it. Cancel-safe.
    ///
    /// # Errors
    /// As of [`Handle::wait_drained`].
    pub async fn trial_ended(&self, service: &ServiceName, stage: Epoch) -> Result<Ended, Failed> {
        let mut seen = self.seen.clone();
        let ended = tokio::select! {
            biased;
            ended = self.verdicts.end_of(self, service, stage) => ended,
            past = seen.wait_for(|seen| seen.is_past) => {
                return Err(past.map_or(Failed::Closed, |_| Failed::LeftBehind));
            }
        };
        match ended {
            Some(ended) => Ok(ended),
            None => Ok(self.ended_before(service, stage).await),
        }
    }

    /// How a trial has ended that is over, by the history, as far as that reaches back.
    async fn ended_before(&self, service: &ServiceName, stage: Epoch) -> Ended {
        let unseen = || Ended::unseen(stage, self.state().table.epoch());
        // The change after the one that is looked at.
        let (mut next, mut before) = (None, None);
        loop {
            let query = HistoryQuery { before, limit: PAGE, service: Some(service.clone()) };
            let Ok(page) = self.history(query).await else { return unseen() };
            let Some(oldest) = page.last() else { return unseen() };
            before = Some(oldest.epoch);
            for change in page {
                let record = change.services.iter().find(|record| record.service == *service);
                let standing = record.and_then(|record| record.standing.as_ref());
                let trial = standing.and_then(|standing| standing.trial.clone());
                if trial.as_ref().is_some_and(|trial| trial.stage == stage) {
                    return next.unwrap_or_else(unseen);
                }
                if change.epoch <= stage {
                    return unseen();
                }
                next = Some(Ended::by(&change, stage, trial.as_ref(), None));
            }
        }
    }
}

impl Verdicts {
    /// How the trial of this stage has ended; waits for it. `None`: it is over, and this process has not seen its end. Cancel-safe.
    async fn end_of(&self, handle: &Handle, service: &ServiceName, stage: Epoch) -> Option<Ended> {
        let mut known = self.known.subscribe();
        loop {
            // In this order: what is over in that state is told by the time that it is known.
            let state = handle.state();
            let is_known = *known.borrow_and_update() >= state.table.epoch();
            match self.ended_of(service) {
                Some(ended) if ended.stage == stage => return Some(ended),
                // There was another one after it.
                Some(ended) if ended.stage > stage => return None,
                Some(_) | None => {}
            }
            let trial = state.deployment(service).and_then(|deployment| deployment.trial.as_ref());
            if is_known && trial.is_none_or(|trial| trial.stage != stage) {
                return None;
            }
            // It is there for as long as we are.
            let _ = known.changed().await;
        }
    }
}
