//! One change: asked of control, waited for, answered.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ETAG, HeaderValue};
use serde::Deserialize;
use utoipa::IntoParams;

use super::api::text::figure;
use super::api::{ChangeAnswer, Problem};
use super::call::Call;
use super::caller::out_of_scope;
use super::refusal::{self, Blame};
use super::{edit, precondition, ramp, read, retire, until, wait};
use crate::control::health::Healthy;
use crate::control::{Asked, Done, Exclusively, Wanted};
use crate::release::{Command, Effects, State};
use crate::table::sticky::moved;
use crate::table::{Epoch, Service, ServiceName, VersionRef};

/// What every change takes in its query.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangeQuery {
    /// True: only answer what would happen.
    pub(super) dry_run: Option<bool>,
    /// When to answer: `fenced` (the default: durable, and nothing is admitted under an older epoch) or `drained`
    /// (and nothing is left on the versions that were left; where one is retired: once that is over), or `finished` (and the comparisons and the ramp or retirement that it began are over), or, where a version or an endpoint comes, `healthy` (and it is
    /// found well).
    pub(super) wait: Option<String>,
    /// True: give traffic to a version although too few of its endpoints are well; it is noted in the change.
    pub(super) force: Option<bool>,
    /// With `wait`, but for `fenced`: for how long, `500ms`, `30s` (the default), `5m`.
    pub(super) timeout: Option<String>,
    /// With `wait=finished`: for how long after what it began is over until nothing is left on the versions that were left; else for what is
    /// left of `timeout`.
    pub(super) drain_timeout: Option<String>,
    /// Why, where the body has no place for it.
    pub(super) reason: Option<String>,
    /// With weights: who gets what they leave over: a version's label, `@stable` or `@candidate`.
    pub(super) rest: Option<String>,
    /// With weights: whether what comes of them is supervised: `true`, `false`, or for how long, `10m`; left out: as the
    /// service's rules say.
    pub(super) supervise: Option<String>,
}

/// What a call asks for.
pub(super) struct Order {
    pub(super) asked: Asked,
    pub(super) reason: Option<String>,
    /// The services it names.
    pub(super) services: Vec<ServiceName>,
    /// Those of them that must be at an epoch.
    pub(super) expected: Vec<(ServiceName, Epoch)>,
    /// What is at fault when a version is not there.
    pub(super) blame: Blame,
    /// How a flip is made, if not just so.
    pub(super) exclusive: Option<Exclusively>,
    /// Whether endpoints are well or not.
    pub(super) force: bool,
    /// What `wait=healthy` waits for.
    pub(super) comes: Option<(VersionRef, Healthy)>,
}

impl Order {
    pub(super) fn one(service: ServiceName, command: Command) -> Self {
        let asked = Asked::Command(command);
        Self {
            asked,
            reason: None,
            services: vec![service],
            expected: Vec::new(),
            blame: Blame::Path,
            exclusive: None,
            force: false,
            comes: None,
        }
    }

    pub(super) fn forced(self, force: Option<bool>) -> Self {
        Self { force: force.unwrap_or(false), ..self }
    }

    pub(super) fn bringing(self, version: VersionRef, what: Healthy) -> Self {
        Self { comes: Some((version, what)), ..self }
    }

    pub(super) fn because(self, reason: Option<String>) -> Self {
        Self { reason, ..self }
    }

    pub(super) fn exclusively(self, exclusive: Option<Exclusively>) -> Self {
        Self { exclusive, ..self }
    }

    pub(super) fn blaming(self, blame: Blame) -> Self {
        Self { blame, ..self }
    }
}

/// Asks control for the change, waits as wanted, and answers.
pub(super) async fn make(call: &Call, order: Order) -> Result<Response, Box<Problem>> {
    let query: ChangeQuery = call.query()?;
    let (until, dry_run) = (until::until(&query, order.comes)?, query.dry_run.unwrap_or(false));
    if !matches!(order.blame, Blame::Weights(_)) {
        of_weights_alone(&query)?;
    }
    let before = call.app.control.state();
    let (named, ramp) = (wait::named(&order.asked), ramp::named(&order.asked));
    let retires = retire::named(&order.asked);
    let wanted = Wanted {
        command: order.asked,
        actor: call.actor(),
        scopes: call.caller.scopes().clone(),
        reason: edit::reason(order.reason, query.reason.as_ref())?,
        expected: expected(call, order.expected, &before)?,
        force: order.force || query.force.unwrap_or(false),
        idempotency: precondition::idempotency(call)?,
        dry_run,
        exclusive: order.exclusive,
        about: order.services.clone(),
        render,
    };
    let done = call.app.control.change(wanted).await;
    let done = match done {
        Ok(done) => done,
        Err(failed) => {
            let problem = refusal::failed(&call.app, failed, &order.blame);
            return Err(refusal::with_ages(&call.app, problem).await);
        }
    };
    let mut answer = answer(&done, &order.services);
    may_hear(call, &answer)?;
    if dry_run {
        answer.dry_run = true;
        let users = who_moves(&before, &done.state, &answer);
        answer.notes.extend(users);
    } else {
        wait::wait(call, &mut answer, &order.services, (named, ramp, retires), until).await?;
    }
    Ok(respond(&answer, done.replayed))
}

/// An answer that is given again was another's perhaps, who may do more.
fn may_hear(call: &Call, answer: &ChangeAnswer) -> Result<(), Box<Problem>> {
    let scopes = call.caller.scopes();
    let others = answer.services.keys().filter(|service| !scopes.read(service));
    let others: Vec<_> = others.map(|service| format!("operate:{service}")).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(out_of_scope("the answer is about services that may not be looked at", &others))
}

fn of_weights_alone(query: &ChangeQuery) -> Result<(), Box<Problem>> {
    let bad = |field, why| Err(Problem::new(400, "bad_query", why).at(field));
    match query {
        ChangeQuery { rest: Some(_), .. } => bad("rest", "`rest` goes with weights"),
        ChangeQuery { supervise: Some(_), .. } => bad(
            "supervise",
            "`supervise` in the query goes with weights; that of a flip stands in its body, and nothing else has one",
        ),
        ChangeQuery { .. } => Ok(()),
    }
}

/// What `If-Match` and the body expect.
///
/// Of several epochs the one that is present now is taken; control compares it again when it makes the change.
pub(super) fn expected(
    call: &Call,
    mut expected: Vec<(ServiceName, Epoch)>,
    state: &State,
) -> Result<Vec<(ServiceName, Epoch)>, Box<Problem>> {
    let epochs = precondition::if_match(&call.parts.headers)?;
    let Some(first) = epochs.first() else { return Ok(expected) };
    let Ok(service) = call.service() else {
        let problem =
            Problem::new(400, "bad_if_match", "`if-match` is about one service, this call about many");
        return Err(problem.hint("in a batch, give an edit its `if_epoch`").at("if-match"));
    };
    let present = state.table.service(&service).map(|service| service.epoch);
    let epoch = present.filter(|present| epochs.contains(present)).unwrap_or(*first);
    expected.push((service, epoch));
    Ok(expected)
}

/// The answer's body as it is kept for the idempotency key.
fn render(state: &State, effects: &Effects, services: &[ServiceName]) -> String {
    serde_json::to_string(&told(state, effects, services)).unwrap_or_default()
}

fn answer(done: &Done, services: &[ServiceName]) -> ChangeAnswer {
    serde_json::from_str(&done.body).unwrap_or_else(|_| told(&done.state, &done.effects, services))
}

fn told(state: &State, effects: &Effects, services: &[ServiceName]) -> ChangeAnswer {
    let mut answer = ChangeAnswer::of(state, effects);
    // Nothing is recorded of a service that was so already.
    services.iter().for_each(|service| answer.add(state, service));
    answer
}

/// Whom the planned change would move, as far as that can be known, one note a service: how many of those who stay with a version, and
/// that there are those whom rules are about.
fn who_moves(before: &State, after: &State, answer: &ChangeAnswer) -> Vec<String> {
    let names =
        after.table.services().iter().filter(|service| answer.services.contains_key(service.name.as_str()));
    let note = |new: &Arc<Service>| {
        let (name, old) = (&new.name, before.table.service(&new.name)?);
        let has_other_rules = old.split.rules() != new.split.rules();
        let Some(sticky) = &new.sticky else {
            let note = format!("whom the rules of `{name}` would move is not known before they come");
            return has_other_rules.then_some(note);
        };
        let (share, by) = (moved(&old.split, &new.split) * 100.0, &sticky.rules.by);
        let besides = if has_other_rules { ", and whom rules are about" } else { "" };
        Some(format!(
            "`{name}` is sticky by {by}: {} % of its users would change versions{besides}",
            figure(share)
        ))
    };
    names.filter_map(note).collect()
}

fn respond(answer: &ChangeAnswer, replayed: bool) -> Response {
    let mut response = Json(answer).into_response();
    let headers = response.headers_mut();
    let mut epochs = answer.services.values().map(|standing| standing.epoch);
    let first = epochs.next();
    // One tag for several services only where it is right for each of them.
    if let Some(epoch) = first.filter(|first| epochs.all(|epoch| epoch == *first)) {
        headers.insert(ETAG, read::etag(epoch));
    }
    if replayed {
        headers.insert(precondition::REPLAYED_HEADER, HeaderValue::from_static("true"));
    }
    response
}
