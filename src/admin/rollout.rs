//! The calls about rolling upgrades, and whether the endpoints of a version are ready.
#![allow(unused_qualifications, reason = "what `utoipa::path` expands to")]

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use http::header::ETAG;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::api::{EndpointReady, Problem, Proceed, Ready, Replace, Rollout, StartRollout, text};
use super::call::{Call, parse};
use super::caller::out_of_scope;
use super::openapi::{ChangeHeaders, MatchHeader, ReadResponses, RolloutResponses};
use super::read::{Nothing, etag, no_service};
use super::refusal::{self, Blame};
use super::{edit, order, precondition};
use crate::control::rollout::{Back, NotBegun, Order, Rollouts, answers};
use crate::control::{Failed, Handle};
use crate::release::rollout::{Move, Plan};
use crate::release::{Beyond, Deployment, Refused, check_expected};
use crate::table::{EndpointAddr, Invalid, Service, ServiceName, VersionRef, VersionSpec};

/// How long a new endpoint may take.
const READY: Duration = Duration::from_mins(5);
/// What a drain gets beyond the service's deadline, at which what is left is cut.
const BEYOND: Duration = Duration::from_secs(10);

/// What the beginning of a rollout takes in its query.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct StartQuery {
    /// True: only answer what would be done.
    dry_run: Option<bool>,
}

/// How a rollout is to end.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct EndQuery {
    /// `reverse`: everything is taken back, as far as the old endpoints still answer; `stop`: only what is under way. By default as
    /// its `on_failure` says.
    mode: Option<String>,
    /// Why; told as the reason of its end.
    reason: Option<String>,
}

/// How a rolling upgrade stands: the one that is under way, or the last one.
#[utoipa::path(get, path = "/v1/services/{service}/rollout", tag = "rollouts", params(("service" = String, Path)),
    responses((status = 200, body = Rollout, description = "how far it is", headers(("etag" = String))), ReadResponses))]
pub(super) async fn show(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let service = call.service()?;
    let (told, state) = (call.app.control.rollouts().told(&service), call.app.control.state());
    let epoch = state.table.service(&service).map(|service| service.epoch);
    match (told, epoch) {
        (Some(told), epoch) => {
            let tag = epoch.map(|epoch| [(ETAG, etag(epoch.0))]);
            Ok((tag, Json(Rollout::of(&told, &state))).into_response())
        }
        (None, None) => Err(no_service(&service)),
        (None, Some(_)) => {
            Err(Problem::new(404, "no_rollout", format!("there was no rollout of `{service}`")))
        }
    }
}

/// Begins a rolling upgrade and answers at once; each of its steps is a change in the history.
#[utoipa::path(post, path = "/v1/services/{service}/rollout", tag = "rollouts", request_body = StartRollout,
    params(("service" = String, Path), StartQuery, ChangeHeaders), responses(RolloutResponses))]
pub(super) async fn start(call: Call) -> Result<Response, Box<Problem>> {
    let (name, body) = (call.service()?, call.json::<StartRollout>()?);
    let query: StartQuery = call.query()?;
    let control = &call.app.control;
    let state = control.state();
    let known = state.table.service(&name).zip(state.deployment(&name));
    let known = known.ok_or_else(|| no_service(&name))?;
    let order = Order {
        expected: order::expected(&call, Vec::new(), &state)?,
        idempotency: precondition::idempotency(&call)?,
        ..read(&call, known, &body)?
    };
    brings_no_path(&call, known.0, &order.plan)?;
    if query.dry_run.unwrap_or(false) {
        let told = Rollouts::plan(&order, control).map_err(|why| refused(&call, why))?;
        return Ok(Json(Rollout { dry_run: true, ..Rollout::of(&told, &state) }).into_response());
    }
    let begun = control.rollouts().begin(order, control).await.map_err(|why| refused(&call, why))?;
    let mut response = (StatusCode::ACCEPTED, Json(Rollout::of(&begun.told, &state))).into_response();
    if begun.replayed {
        let is_so = HeaderValue::from_static("true");
        response.headers_mut().insert(precondition::REPLAYED_HEADER, is_so);
    }
    Ok(response)
}

/// Ends a rolling upgrade that is under way; `GET` tells when it has come to its end.
#[utoipa::path(delete, path = "/v1/services/{service}/rollout", tag = "rollouts",
    params(("service" = String, Path), EndQuery, MatchHeader), responses(RolloutResponses))]
pub(super) async fn end(call: Call) -> Result<Response, Box<Problem>> {
    let (service, query) = (expected(&call)?, call.query::<EndQuery>()?);
    let rollouts = call.app.control.rollouts();
    let back = match query.mode.as_deref() {
        None => rollouts.on_failure(&service).map_err(|why| refused(&call, why))?,
        Some(mode) => back("mode", Some(mode))?,
    };
    let why = Some(edit::reason(None, query.reason.as_ref())?).filter(|why| !why.is_empty());
    let told = rollouts.end(&service, back, why).map_err(|why| refused(&call, why))?;
    Ok((StatusCode::ACCEPTED, Json(Rollout::of(&told, &call.app.control.state()))).into_response())
}

/// An endpoint that was safe to stop was dealt with: the rolling upgrade goes on.
#[utoipa::path(post, path = "/v1/services/{service}/rollout/proceed", tag = "rollouts", request_body = Proceed,
    params(("service" = String, Path), MatchHeader), responses(RolloutResponses))]
pub(super) async fn proceed(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let (service, body) = (expected(&call)?, call.json::<Proceed>()?);
    let endpoint: EndpointAddr = parse("endpoint", &body.endpoint)?;
    let told = call
        .app
        .control
        .rollouts()
        .confirm(&service, &endpoint, &call.app.control)
        .map_err(|why| refused(&call, why))?;
    Ok(Json(Rollout::of(&told, &call.app.control.state())).into_response())
}

/// Whether the endpoints of a version can serve: each of them is asked for a connection now.
#[utoipa::path(get, path = "/v1/services/{service}/versions/{version}/ready", tag = "services",
    params(("service" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = Ready, description = "whether the version is ready for traffic", headers(("etag" = String))), ReadResponses))]
pub(super) async fn ready(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let (name, control) = (call.service()?, &call.app.control);
    let state = control.state();
    let known = state.table.service(&name).zip(state.deployment(&name));
    let known = known.ok_or_else(|| no_service(&name))?;
    let version = resolve(known, &call.version_ref()?, 404, None)?;
    let asked = version.serving().map(|endpoint| is_ready(control, &name, version, endpoint));
    let endpoints: Vec<_> = join_all(asked).await;
    let ready = !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.ready);
    Ok(([(ETAG, etag(known.0.epoch.0))], Json(Ready { ready, endpoints })).into_response())
}

async fn is_ready(
    control: &Handle,
    service: &ServiceName,
    version: &VersionSpec,
    endpoint: &EndpointAddr,
) -> EndpointReady {
    let connected = answers(endpoint).await;
    let upstream = control.live().snapshot().tenure(service, &version.name).cloned();
    let is_well = upstream.is_some_and(|upstream| upstream.vitals(endpoint).standing().serves());
    let why = connected.err().or_else(|| (!is_well).then(|| "its checks do not find it well".to_owned()));
    EndpointReady { endpoint: endpoint.to_string(), ready: why.is_none(), why }
}

/// The service of the path, if there is one, and at the epoch that the caller knows.
fn expected(call: &Call) -> Result<ServiceName, Box<Problem>> {
    let (service, state) = (call.service()?, call.app.control.state());
    if state.table.service(&service).is_none() {
        return Err(no_service(&service));
    }
    let epochs = order::expected(call, Vec::new(), &state)?;
    check_expected(&state, &epochs).map_err(|why| refused(call, Failed::from(why).into()))?;
    Ok(service)
}

/// Its steps are the proxy's own changes: what their caller may not bring is looked for here.
fn brings_no_path(call: &Call, service: &Service, plan: &Plan) -> Result<(), Box<Problem>> {
    let is_new = |address: &&EndpointAddr| {
        let is_known = service.versions.iter().any(|version| version.endpoints.contains(address));
        matches!(address, EndpointAddr::Unix(_)) && !is_known
    };
    match plan.moves.iter().filter_map(|one| one.into.as_ref()).find(is_new) {
        Some(path) if !call.caller.scopes().are_all() => {
            let beyond = Beyond::Path(path.clone());
            Err(out_of_scope(beyond.to_string(), &beyond.needed()))
        }
        Some(_) | None => Ok(()),
    }
}

fn read(
    call: &Call,
    known: (&Arc<Service>, &Deployment),
    body: &StartRollout,
) -> Result<Order, Box<Problem>> {
    let (service, _) = known;
    let reference = |field: &'static str, text: Option<&String>| match text {
        Some(text) => parse::<VersionRef>(field, text),
        None => Ok(VersionRef::Stable),
    };
    let from = resolve(known, &reference("from", body.from.as_ref())?, 422, Some("from"))?;
    let to = match &body.to {
        Some(to) => resolve(known, &parse("to", to)?, 422, Some("to"))?,
        None => from,
    };
    let moves = if body.replace.is_empty() { Plan::pairs(from, to) } else { moves(&body.replace)? };
    let mut plan = Plan {
        service: service.name.clone(),
        from: from.name.clone(),
        to: to.name.clone(),
        moves,
        batch: body.batch.unwrap_or(1),
        surge: body.surge,
        min_serving: 1,
    };
    if plan.batch == 0 {
        return Err(bad("batch", "a batch has at least one endpoint".to_owned()));
    }
    let serving = Rollouts::serving(&plan, &call.app.control);
    plan.min_serving = match &body.min_capacity {
        None => plan.least(&serving).max(1),
        Some(text) => capacity(text, serving.count())?,
    };
    Ok(Order {
        plan,
        drain_timeout: duration(
            "drain_timeout",
            body.drain_timeout.as_ref(),
            service.drain.deadline + BEYOND,
        )?,
        ready_timeout: duration("ready_timeout", body.ready_timeout.as_ref(), READY)?,
        settle: duration("settle", body.settle.as_ref(), Duration::ZERO)?,
        confirm: body.confirm,
        on_failure: back("on_failure", body.on_failure.as_deref())?,
        actor: call.actor(),
        reason: edit::reason(body.reason.clone(), None)?,
        expected: Vec::new(),
        idempotency: None,
    })
}

fn resolve<'s>(
    (service, deployment): (&'s Arc<Service>, &'s Deployment),
    reference: &VersionRef,
    status: u16,
    field: Option<&str>,
) -> Result<&'s VersionSpec, Box<Problem>> {
    let found = deployment.resolve(service, reference).and_then(|name| service.version(name));
    found.ok_or_else(|| {
        let known = service.versions.iter().map(|version| version.name.clone()).collect();
        let why =
            Refused::UnknownVersion { service: service.name.clone(), version: reference.clone(), known };
        let problem = Problem::new(status, why.token(), why.to_string()).hint(why.hint());
        match field {
            Some(field) => problem.at(field),
            None => problem,
        }
    })
}

fn moves(replace: &[Replace]) -> Result<Vec<Move>, Box<Problem>> {
    let endpoint = |field: String, text: Option<&String>| text.map(|text| parse(&field, text)).transpose();
    let one = |(index, replace): (usize, &Replace)| {
        let out = endpoint(format!("replace[{index}].out"), replace.out.as_ref())?;
        let into = endpoint(format!("replace[{index}].into"), replace.into.as_ref())?;
        if out.is_none() && into.is_none() {
            return Err(bad(
                &format!("replace[{index}]"),
                "name an endpoint that goes or one that comes".to_owned(),
            ));
        }
        Ok(Move { out, into })
    };
    replace.iter().enumerate().map(one).collect()
}

/// `8` or `80%` of those that serve.
fn capacity(text: &str, serving: usize) -> Result<usize, Box<Problem>> {
    let expected =
        || bad("min_capacity", "expected a number of endpoints such as 8, or a part such as 80%".to_owned());
    let least = match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.trim().parse::<usize>().ok().filter(|percent| *percent <= 100);
            (serving * percent.ok_or_else(expected)?).div_ceil(100)
        }
        None => text.parse().map_err(|_| expected())?,
    };
    Ok(least.max(1))
}

fn back(field: &str, text: Option<&str>) -> Result<Back, Box<Problem>> {
    match text {
        None | Some("reverse") => Ok(Back::All),
        Some("stop") => Ok(Back::Batch),
        Some(_) => Err(bad(field, "expected reverse or stop".to_owned())),
    }
}

fn duration(field: &str, text: Option<&String>, default: Duration) -> Result<Duration, Box<Problem>> {
    let Some(text) = text else { return Ok(default) };
    text::duration(text).map_err(|Invalid(why)| bad(field, why))
}

fn bad(field: &str, detail: String) -> Box<Problem> {
    Problem::new(400, "bad_value", detail).at(field)
}

fn refused(call: &Call, why: NotBegun) -> Box<Problem> {
    let detail = why.to_string();
    match why {
        NotBegun::NotPlanned(why) => Problem::new(422, why.token(), detail).hint(why.hint()),
        NotBegun::Underway(service) => Problem::new(409, "rollout_underway", detail).hint(format!(
            "`switchback rollout {service} --follow` shows it, `--stop` and `--reverse` end it"
        )),
        NotBegun::NoService(service) => no_service(&service),
        NotBegun::Failed(failed) => refusal::failed(&call.app, failed, &Blame::Path),
        NotBegun::None(_) => Problem::new(404, "no_rollout", detail).hint("it is over, or was never begun"),
        NotBegun::NotAwaited { .. } => {
            Problem::new(409, "not_awaited", detail).hint("it is dealt with when its state is `safe`")
        }
        NotBegun::Closed => Problem::new(503, "shutting_down", detail),
    }
}
