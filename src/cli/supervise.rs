//! What comes after a move that is supervised: to wait until that is over, or to say that it is not.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::args::Wait;
use super::client::{Call, Client, Error};
use super::render;
use super::session::{Exit, Session};
use super::status::now;
use crate::admin::api::{ChangeAnswer, Service, Supervision, TrialEnd, TrialEnded, text};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// Looks at no comparison after which there is none.
const PATIENCE: u32 = 10;

/// Whether supervision is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// It is not.
    Never,
    /// When there is any.
    Always,
}

impl Follows {
    /// What a machine's call waits for, and for how long: beyond `timeout` as long as the comparison lasts that it will begin,
    /// which only the proxy knows.
    pub(super) async fn until(
        self,
        client: &Client,
        call: &Call,
        timeout: Duration,
    ) -> Result<(&'static str, Duration), Error> {
        if self == Self::Never {
            return Ok(("drained", timeout));
        }
        let plan: ChangeAnswer = client.send(call.clone().query("dry_run", "true")).await?;
        let trials = plan.services.values().filter_map(|standing| standing.supervision.as_ref());
        let ends = trials
            .filter(|trial| trial.stage == plan.epoch)
            .filter_map(|trial| text::millis(trial.until.as_ref()?));
        Ok(match ends.max() {
            // None begins, or one that only the next change ends.
            None => ("drained", timeout),
            Some(end) => {
                let lasts = Duration::from_millis(end.saturating_sub(now()));
                ("finished", (timeout + lasts).min(text::LONGEST))
            }
        })
    }
}

/// As the API reads it in a body.
pub(super) fn value(asked: String) -> Value {
    match asked.as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => Value::String(asked),
    }
}

/// Waits until the comparisons are over that the change began; how the verb ends, if that is all there is to say.
pub(super) async fn follow(
    session: &mut Session<'_>,
    answer: &ChangeAnswer,
    follows: Follows,
    wait: &Wait,
) -> anyhow::Result<Option<Exit>> {
    let begun = answer.services.iter().filter_map(|(service, standing)| {
        let trial = standing.supervision.as_ref().filter(|trial| trial.stage == answer.epoch)?;
        Some((service, trial))
    });
    let begun: Vec<_> = begun.collect();
    let mut exit = None;
    for (service, trial) in &begun {
        let (baseline, candidate) = (&trial.baseline, &trial.candidate);
        match &trial.until {
            Some(until) => session.say(format!("{candidate} is compared with {baseline} until {until}")),
            None => session.say(format!("{candidate} is compared with {baseline}")),
        }
        if follows == Follows::Never || wait.no_wait || trial.until.is_none() {
            session.say(format!("traffic may go back to {baseline} by itself: do not stop it"));
            exit = Some(Exit::Done);
            continue;
        }
        let ended = until_over(session, service, trial.stage).await?;
        session.say(said(&ended, baseline, candidate));
        match ended.how {
            TrialEnded::Finished => {}
            TrialEnded::Reverted => {
                session.say(format!("{baseline} carries the traffic as before: do not stop it"));
                exit = Some(Exit::Reverted);
            }
            TrialEnded::Superseded => exit = if_elsewhere(session, answer, service).await?.or(exit),
        }
    }
    Ok(exit)
}

/// The change is made, and what it has done holds no more when a later one moved the traffic.
async fn if_elsewhere(
    session: &mut Session<'_>,
    answer: &ChangeAnswer,
    service: &str,
) -> anyhow::Result<Option<Exit>> {
    let present = session.client.get(&["v1", "services", service]).await;
    let present: Service =
        present.with_context(|| format!("cannot tell where the traffic of `{service}` is"))?;
    if answer.services.get(service).is_some_and(|told| told.weights == present.standing.weights) {
        return Ok(None);
    }
    let services = BTreeMap::from([(service.to_owned(), present.standing)]);
    session.say(render::carriers(&ChangeAnswer { services, ..answer.clone() }));
    Ok(Some(Exit::Failed))
}

fn said(ended: &TrialEnd, baseline: &str, candidate: &str) -> String {
    match ended.how {
        TrialEnded::Finished => format!("supervision is over, and {candidate} stays: {}", ended.said),
        TrialEnded::Reverted => ended.said.clone(),
        TrialEnded::Superseded => {
            format!("{candidate} is not compared with {baseline} any more: {}", ended.said)
        }
    }
}

/// Looks until it is over; tells when it stands otherwise.
async fn until_over(session: &mut Session<'_>, service: &str, stage: u64) -> anyhow::Result<TrialEnd> {
    let mut told = String::new();
    let mut looks_at_nothing = 0;
    loop {
        let path = ["v1", "services", service, "verdict"];
        let now: Supervision =
            session.client.get(&path).await.context("cannot tell how supervision goes on")?;
        if let Some(ended) = now.ended.filter(|ended| ended.stage == stage) {
            return Ok(ended);
        }
        let is_underway = now.trial.as_ref().is_some_and(|trial| trial.stage == stage);
        // It is noted a moment later how it ended, by the process in which it did.
        looks_at_nothing = if is_underway { 0 } else { looks_at_nothing + 1 };
        if looks_at_nothing > PATIENCE {
            let said = "later changes ended the comparison".to_owned();
            return Ok(TrialEnd { stage, how: TrialEnded::Superseded, epoch: stage, said });
        }
        if is_underway && now.state != told {
            if !told.is_empty() || now.state != "collecting" {
                session.say(format!("{}: {}", now.state, now.said.unwrap_or_default()));
            }
            told = now.state;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
