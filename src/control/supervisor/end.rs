//! How a trial has ended, for whoever waits for that, and for who asks again in a later process.

use super::Verdicts;
use super::told::{Ended, is_way_back};
use crate::control::{Failed, Handle};
use crate::release::{ActorKind, Change, ChangeKind, ServiceRecord, Trial};
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

    /// True when the change at this epoch began a trial, and that is over.
    pub async fn had_trial(&self, service: &ServiceName, stage: Epoch) -> bool {
        let state = self.state();
        let trial = state.deployment(service).and_then(|deployment| deployment.trial.as_ref());
        if trial.is_some_and(|trial| trial.stage == stage) {
            return false;
        }
        // Before the store is asked.
        if self.verdicts.ended_of(service).is_some_and(|ended| ended.stage == stage) {
            return true;
        }
        let began = |change: Change| Some(trial_after(&change, service).is_some_and(|it| it.stage == stage));
        self.look_back(service, stage, Some(Epoch(stage.0 + 1)), began).await == Some(true)
    }

    /// How a trial has ended that is over, by the history, as far as that reaches back.
    async fn ended_before(&self, service: &ServiceName, stage: Epoch) -> Ended {
        let mut next = None;
        let last = self.look_back(service, stage, None, |change| {
            let trial = trial_after(&change, service).filter(|trial| trial.stage == stage).cloned();
            if trial.is_none() {
                next = Some(change);
            }
            trial
        });
        let last = last.await;
        let Some((trial, end)) = last.zip(next) else {
            return Ended::unseen(stage, self.state().table.epoch());
        };
        let mut proven = None;
        let is_back = record(&end, service).is_some_and(|record| is_way_back(record, &trial));
        if is_back && end.kind == ChangeKind::Revert {
            // It had held everybody for that before.
            let held = |change: Change| {
                let is_its_own =
                    change.actor.kind == ActorKind::Supervisor && change.kind == ChangeKind::Hold;
                is_its_own.then_some(change.reason)
            };
            proven = self.look_back(service, stage, Some(end.epoch), held).await;
        }
        Ended::by(&end, stage, trial_after(&end, service), proven)
    }

    /// What `look` makes of the first change of a service that it makes something of: from before the epoch `before` back to `stage`,
    /// the newest first.
    async fn look_back<T>(
        &self,
        service: &ServiceName,
        stage: Epoch,
        mut before: Option<Epoch>,
        mut look: impl FnMut(Change) -> Option<T>,
    ) -> Option<T> {
        loop {
            let query = HistoryQuery { before, limit: PAGE, service: Some(service.clone()) };
            let page = self.history(query).await.ok()?;
            before = Some(page.last()?.epoch);
            for change in page {
                if change.epoch < stage {
                    return None;
                }
                if let Some(found) = look(change) {
                    return Some(found);
                }
            }
        }
    }
}

fn record<'c>(change: &'c Change, service: &ServiceName) -> Option<&'c ServiceRecord> {
    change.services.iter().find(|record| record.service == *service)
}

/// The trial of a service that was under way after this change.
fn trial_after<'c>(change: &'c Change, service: &ServiceName) -> Option<&'c Trial> {
    record(change, service)?.standing.as_ref()?.trial.as_ref()
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
