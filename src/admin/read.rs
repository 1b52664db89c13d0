//! The calls that only read.
#![allow(unused_qualifications, reason = "what `utoipa::path` expands to")]

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use serde::Deserialize;
use tokio::time::timeout;
use tracing::warn;
use utoipa::IntoParams;

use super::api::{self, Change, History, Problem, Service, Services};
use super::call::{Call, parse};
use super::caller::out_of_scope;
use super::openapi::ReadResponses;
use super::{App, Readiness, openapi, refusal, uses};
use crate::release::{self, Refused};
use crate::store::HistoryQuery;
use crate::table::{Epoch, ServiceName};

/// Changes that a service's detail shows.
const LAST_CHANGES: usize = 5;
/// How long they are waited for: the rest is known at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// Changes that one call lists at most.
const MOST_CHANGES: usize = 1000;

/// Changes that are read at once, where not all of them may be looked at.
const FILTERED: usize = 200;

/// How often, for one call: the store has other things to do.
const MOST_READ: usize = 50;

/// No parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// An entity tag: the epoch.
pub(super) fn etag(epoch: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{epoch}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// All services that the caller may look at: versions, endpoints, split, phase, what is in flight.
#[utoipa::path(get, path = "/v1/services", tag = "services",
    responses((status = 200, body = Services, description = "the services, by name", headers(("etag" = String))), ReadResponses))]
pub(super) async fn services(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let control = &call.app.control;
    let mut services = Services::of(&control.state(), control);
    services.services.retain(|service| call.caller.scopes().read(&service.name));
    let told = services.services.into_iter().map(|service| service.with_health(control.health()));
    let told = told.map(|service| service.with_clocks(control));
    services.services = told.collect();
    uses::told(control, &mut services.services).await;
    Ok(([(ETAG, etag(services.epoch))], Json(services)).into_response())
}

/// One service, with its last changes; without them when the store cannot be read, or does not answer within a second.
#[utoipa::path(get, path = "/v1/services/{service}", tag = "services", params(("service" = String, Path)),
    responses((status = 200, body = Service, description = "the service", headers(("etag" = String))), ReadResponses))]
pub(super) async fn service(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let (name, control) = (call.service()?, &call.app.control);
    let present = Service::of(&control.state(), control, &name);
    let present = present.map(|service| service.with_health(control.health()));
    let present = present.map(|service| service.with_clocks(control));
    let mut service = present.ok_or_else(|| no_service(&name))?;
    uses::told(control, std::slice::from_mut(&mut service)).await;
    let query = HistoryQuery { before: None, limit: LAST_CHANGES, service: Some(name) };
    // Where traffic goes is told even when the store is lost or hangs: that is when somebody looks.
    let changes = timeout(PATIENCE, control.history(query)).await;
    let changes =
        changes.map_or_else(|late| Err(late.to_string()), |read| read.map_err(|why| why.to_string()));
    let changes = changes.inspect_err(|error| warn!(error, "cannot read the last changes of a service"));
    let told = |change: &release::Change| Change::from(change).seen_by(call.caller.scopes());
    service.changes = changes.ok().map(|changes| changes.iter().filter_map(told).collect());
    Ok(([(ETAG, etag(service.standing.epoch))], Json(service)).into_response())
}

pub(super) fn no_service(name: &ServiceName) -> Box<Problem> {
    let why = Refused::UnknownService { service: name.clone() };
    Problem::new(404, why.token(), why.to_string()).hint(why.hint())
}

/// Which changes to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangesQuery {
    /// At most so many, 1 to 1000; 20 when absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only changes older than this epoch.
    before: Option<u64>,
    /// Only changes that touched this service.
    service: Option<String>,
}

/// Past changes, newest first, of the services that the caller may look at; 503 when the store cannot be read, or does not answer within two seconds.
#[utoipa::path(get, path = "/v1/changes", tag = "changes", params(ChangesQuery),
    responses((status = 200, body = History, description = "a page, newest first"), ReadResponses))]
pub(super) async fn changes(call: Call) -> Result<Response, Box<Problem>> {
    let query: ChangesQuery = call.query()?;
    let limit = query.limit.unwrap_or(20);
    if !(1..=MOST_CHANGES).contains(&limit) {
        return Err(Problem::new(400, "bad_query", format!("limit is 1 to {MOST_CHANGES}")).at("limit"));
    }
    let service: Option<ServiceName> =
        query.service.as_deref().map(|name| parse("service", name)).transpose()?;
    let scopes = call.caller.scopes();
    if let Some(name) = service.as_ref().filter(|name| !scopes.read(name.as_str())) {
        let needed = [format!("operate:{name}")];
        return Err(out_of_scope("the service may not be looked at", &needed));
    }
    let is_from_the_top = query.before.is_none();
    let query = HistoryQuery { before: query.before.map(Epoch), limit, service: service.clone() };
    let (changes, next_before) = page(&call, query).await?;
    // One that was dropped has a past; one that never was is a slip.
    let is_known = |name: &ServiceName| call.app.control.state().table.service(name).is_some();
    if let Some(name) = service.filter(|name| changes.is_empty() && is_from_the_top && !is_known(name)) {
        return Err(no_service(&name));
    }
    Ok(Json(History { changes, next_before }).into_response())
}

/// What the caller may look at of the changes that are asked for, and where to read on.
async fn page(call: &Call, query: HistoryQuery) -> Result<(Vec<Change>, Option<u64>), Box<Problem>> {
    let (scopes, wanted, mut before) = (call.caller.scopes(), query.limit, query.before);
    // Of others' changes there may be many in between.
    let most = if scopes.read_all() { wanted } else { wanted.max(FILTERED) };
    let mut changes = Vec::new();
    for _ in 0..MOST_READ {
        // One more than asked for tells whether there are more.
        let part = HistoryQuery { before, limit: most + 1, service: query.service.clone() };
        let found = call.app.control.history(part).await.map_err(|why| refusal::store(&why))?;
        for change in found.iter().take(most) {
            if changes.len() == wanted {
                return Ok((changes, before.map(|before| before.0)));
            }
            before = Some(change.epoch);
            changes.extend(Change::from(change).seen_by(scopes));
        }
        if found.len() <= most {
            return Ok((changes, None));
        }
        if changes.len() == wanted {
            break;
        }
    }
    Ok((changes, before.map(|before| before.0)))
}

/// The proxy itself.
#[utoipa::path(get, path = "/v1/status", tag = "proxy", responses((status = 200, body = api::Status, description = "what runs"), ReadResponses))]
pub(super) async fn status(call: Call) -> Result<Json<api::Status>, Box<Problem>> {
    call.query::<Nothing>()?;
    let (status, control) = (&call.app.status, &call.app.control);
    Ok(Json(status.told(control.live().epoch(), &control.elders().all())))
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "proxy",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")))]
pub(super) async fn openapi() -> Response {
    Json(openapi::document()).into_response()
}

/// Prometheus metrics. Who asks while a text is made gets that one.
#[utoipa::path(get, path = "/metrics", tag = "proxy",
    responses((status = 200, body = String, description = "text format 0.0.4", content_type = "text/plain"),
        (status = 503, body = Problem, description = "there is no thread to make it on", content_type = "application/problem+json")))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Box<Problem>> {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let text = app.metrics.text().await.map_err(|error| {
        Problem::new(503, "overload", format!("there is no thread to make it on: {error}"))
            .hint("raise the limit on threads (TasksMax=, a container's limit on pids)")
    })?;
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

/// The process is there.
#[utoipa::path(get, path = "/healthz", tag = "proxy", responses((status = 200, body = String, description = "it runs", content_type = "text/plain")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Traffic may be sent here.
#[utoipa::path(get, path = "/readyz", tag = "proxy",
    responses((status = 200, body = String, description = "it serves", content_type = "text/plain"),
        (status = 503, body = String, description = "starting or stopping", content_type = "text/plain")))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, String) {
    let readiness = app.status.readiness();
    let status = match readiness {
        Readiness::Ready => StatusCode::OK,
        Readiness::Starting | Readiness::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{}\n", readiness.token()))
}
