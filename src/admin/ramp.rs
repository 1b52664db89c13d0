//! Ramps: to begin one, to steer it, and to wait for its end.
#![allow(unused_qualifications, reason = "what `utoipa::path` expands to")]

use std::time::Duration;

use axum::response::Response;
use serde_json::Value;

use super::api::{ChangeAnswer, Leaving, Problem, Promote, Rule, StartRamp, SteerRamp, text};
use super::call::{Call, parse};
use super::openapi::{ChangeHeaders, ChangeResponses};
use super::order::{ChangeQuery, Order, make};
use super::refusal::Blame;
use super::{edit, wait};
use crate::control::Asked;
use crate::release::{Command, RampEnd, RampOrder, Ramped, State, Steps};
use crate::table::{BasisPoints, Epoch, Invalid, ServiceName};

/// The weight of one version rises, step by step: each is a change of its own, made when the one before has lasted long enough, the version is
/// ready, and supervision has nothing against it. It goes on by itself, in the next process too. `wait=finished` waits for its end.
#[utoipa::path(post, path = "/v1/services/{service}/ramp", tag = "changes", request_body = StartRamp,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn ramp(call: Call) -> Result<Response, Box<Problem>> {
    let (service, body) = (call.service()?, call.json::<StartRamp>()?);
    let order = Order::one(service.clone(), begin(service, &body)?);
    make(&call, order.because(body.reason).forced(body.force).blaming(Blame::Member("to"))).await
}

/// The next step of a ramp at once, or with `full` its last one. One that is frozen goes on from there.
#[utoipa::path(post, path = "/v1/services/{service}/promote", tag = "changes", request_body = Option<Promote>,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn promote(call: Call) -> Result<Response, Box<Problem>> {
    let (service, body) = (call.service()?, call.json_or_default::<Promote>()?);
    let order = RampOrder::Promote { full: body.full };
    let order = Order::one(service.clone(), Command::Ramp { service, order });
    make(&call, order.because(body.reason).forced(body.force)).await
}

/// A ramp is over, and the split as it was before it; or a retirement, and everybody is sent back at once.
#[utoipa::path(post, path = "/v1/services/{service}/abort", tag = "changes", request_body = Option<SteerRamp>,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn abort(call: Call) -> Result<Response, Box<Problem>> {
    steer(call, RampOrder::Abort).await
}

/// A ramp stays at its step, until `resume` or `promote`. Supervision goes on.
#[utoipa::path(post, path = "/v1/services/{service}/freeze", tag = "changes", request_body = Option<SteerRamp>,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn freeze(call: Call) -> Result<Response, Box<Problem>> {
    steer(call, RampOrder::Freeze { left: None }).await
}

/// A ramp that is frozen goes on, with what was left of its step.
#[utoipa::path(post, path = "/v1/services/{service}/resume", tag = "changes", request_body = Option<SteerRamp>,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn resume(call: Call) -> Result<Response, Box<Problem>> {
    steer(call, RampOrder::Resume).await
}

async fn steer(call: Call, order: RampOrder) -> Result<Response, Box<Problem>> {
    let (service, body) = (call.service()?, call.json_or_default::<SteerRamp>()?);
    make(&call, Order::one(service.clone(), Command::Ramp { service, order }).because(body.reason)).await
}

fn begin(service: ServiceName, asked: &StartRamp) -> Result<Command, Box<Problem>> {
    let bad = |field: &str, why: String| Problem::new(400, "bad_value", why).at(field);
    let steps = match &asked.steps {
        None => Steps::default(),
        Some(steps) => {
            let read = steps.iter().enumerate().map(|(index, value)| step(index, value));
            let read = read.collect::<Result<_, Box<Problem>>>()?;
            Steps::new(read).map_err(|Invalid(why)| Problem::new(422, "bad_steps", why).at("steps"))?
        }
    };
    let every = asked.every.as_deref().map(text::step).transpose();
    let every = every.map_err(|Invalid(why)| bad("every", why))?;
    let supervise = edit::supervise(asked.supervise.as_ref())?;
    let order = RampOrder::Begin { to: parse("to", &asked.to)?, steps, every, supervise };
    Ok(Command::Ramp { service, order })
}

/// Basis points, or per cent as people write it.
fn step(index: usize, value: &Value) -> Result<BasisPoints, Box<Problem>> {
    let read = match value {
        Value::Number(points) => points.as_u64().ok_or(()).map(BasisPoints::new),
        Value::String(percent) => Ok(percent.parse()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(()),
    };
    let expected =
        "expected basis points from 1 to 10000, such as 500, or per cent as text, such as \"5\"".to_owned();
    let read = read.unwrap_or(Err(Invalid(expected)));
    read.map_err(|Invalid(why)| Problem::new(422, "bad_steps", why).at(format!("steps[{index}]")))
}

/// The services whose ramp is waited for.
pub(super) fn named(asked: &Asked) -> Option<ServiceName> {
    match asked {
        Asked::Command(Command::Ramp { service, order }) => match order {
            RampOrder::Begin { .. } | RampOrder::Promote { .. } | RampOrder::Resume => Some(service.clone()),
            RampOrder::Step { .. }
            | RampOrder::Abort
            | RampOrder::Freeze { .. }
            | RampOrder::Retire { .. }
            | RampOrder::Retired { .. } => None,
        },
        Asked::Command(_) | Asked::UndoTo(_) => None,
    }
}

/// Waits until the ramp is over that `answer` tells of; it then tells what that has left. Gives how it has ended, if there was one.
///
/// # Errors
/// It was taken back or superseded, or is not over in time.
pub(super) async fn until_over(
    call: &Call,
    answer: &mut ChangeAnswer,
    service: &ServiceName,
    patience: Duration,
) -> Result<Option<Ramped>, Box<Problem>> {
    let control = &call.app.control;
    let standing = answer.services.get(service.as_str());
    let under_way = standing.and_then(|standing| standing.ramp.as_ref()).map(|ramp| ramp.begun);
    // One step alone is over at once.
    let over = standing.and_then(|standing| standing.ramped.as_ref()).map(|ramped| ramped.begun);
    let Some(begun) = under_way.or(over) else { return Ok(None) };
    let ended = match call.app.within(patience, control.ramped(service, Epoch(begun))).await {
        Err(_) => {
            let detail =
                format!("the ramp of `{service}` is under way (epoch {}), and goes on", answer.epoch);
            let mut problem = Problem::new(504, "timed_out", detail)
                .hint("`GET /v1/services/{service}` tells how it stands; stop nothing until then");
            problem.change = Some(answer.clone());
            return Err(problem);
        }
        Ok(Err(failed)) => return Err(wait::broken_off(&call.app, answer, failed)),
        Ok(Ok(ended)) => ended,
    };
    match ended {
        Some(ended) if ended.how == RampEnd::Finished => {
            answer.leaving.extend(left(answer, service, &ended, &control.state()));
            answer.add(&control.state(), service);
            Ok(Some(ended))
        }
        ended => Err(wait::moved(answer, ended_otherwise(ended.as_ref()), said(service, ended.as_ref()))),
    }
}

/// The versions that its last step has left: by what the ramp began from, not by the present state, in which they may have traffic again.
///
/// Those to which a rule led are not left. Where the service has changed since that step, the rules are those that the ramp began with.
fn left(answer: &ChangeAnswer, service: &ServiceName, ended: &Ramped, state: &State) -> Vec<Leaving> {
    let Some(standing) = answer.services.get(service.as_str()).filter(|_| ended.reached == BasisPoints::ALL)
    else {
        return Vec::new();
    };
    let unchanged = state.table.service(service).filter(|present| present.epoch == ended.epoch);
    let rules = unchanged.map_or_else(|| standing.rules.clone(), |present| Rule::all_of(&present.split));
    let versions = standing.previous.iter().flat_map(|before| before.weights.keys());
    let is_led_to = |version: &String| rules.iter().any(|rule| rule.to == *version);
    let others = versions.filter(|version| *version != ended.to.as_str() && !is_led_to(version));
    others.map(|version| Leaving { service: service.to_string(), version: version.clone() }).collect()
}

/// That the traffic is where the last step of a ramp has left it.
///
/// # Errors
/// It is elsewhere by now.
pub(super) fn check_stands(
    call: &Call,
    answer: &ChangeAnswer,
    service: &ServiceName,
    ended: &Ramped,
) -> Result<(), Box<Problem>> {
    let Ramped { to, reached, epoch, .. } = ended;
    let state = call.app.control.state();
    if state.table.service(service).is_some_and(|present| present.split.weight(to) == *reached) {
        return Ok(());
    }
    let detail = format!(
        "the ramp of `{service}` to `{to}` had finished, at {reached} (epoch {epoch}), but the traffic is elsewhere by now"
    );
    Err(wait::moved(answer, "superseded", detail))
}

fn ended_otherwise(ended: Option<&Ramped>) -> &'static str {
    ended.map_or("superseded", |ended| ended.how.token())
}

fn said(service: &ServiceName, ended: Option<&Ramped>) -> String {
    match ended {
        Some(Ramped { to, reached, how: RampEnd::Reverted, epoch, .. }) => format!(
            "supervision has taken the traffic of `{service}` back from `{to}`, which had {reached} (epoch {epoch})"
        ),
        Some(Ramped { to, reached, how: RampEnd::Aborted, epoch, .. }) => {
            format!("the ramp of `{service}` to `{to}` was taken back at {reached} (epoch {epoch})")
        }
        Some(Ramped { to, reached, epoch, .. }) => {
            format!("a later change ended the ramp of `{service}` to `{to}` at {reached} (epoch {epoch})")
        }
        None => format!(
            "the ramp of `{service}` is over, and no longer the last one that is kept: the history tells how it ended"
        ),
    }
}
