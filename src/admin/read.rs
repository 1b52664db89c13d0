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
use super::openapi::ReadResponses;
use super::{App, Readiness, openapi, refusal, uses};
use crate::release::Refused;
use crate::store::HistoryQuery;
use crate::table::{Epoch, ServiceName};

/// Changes that a service's detail shows.
const LAST_CHANGES: usize = 5;
/// How long they are waited for: the rest is known at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// Changes that one call lists at most.
const MOST_CHANGES: usize = 1000;

/// No parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// An entity tag: the epoch.
pub(super) fn etag(epoch: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{epoch}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// All services: versions, endpoints, split, phase, what is in flight.
#[utoipa::path(get, path = "/v1/services", tag = "services",
    responses((status = 200, body = Services, description = "the services, by name", headers(("etag" = String))), ReadResponses))]
pub(super) async fn services(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let control = &call.app.control;
    let mut services = Services::of(&control.state(), control);
    let told = services.services.into_iter().map(|service| service.with_health(control.health()));
    let told = told.map(|service| service.with_clock(control));
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
    let present = present.map(|service| service.with_clock(control));
    let mut service = present.ok_or_else(|| no_service(&name))?;
    uses::told(control, std::slice::from_mut(&mut service)).await;
    let query = HistoryQuery { before: None, limit: LAST_CHANGES, service: Some(name) };
    // Where traffic goes is told even when the store is lost or hangs: that is when somebody looks.
    let changes = timeout(PATIENCE, control.history(query)).await;
    let changes =
        changes.map_or_else(|late| Err(late.to_string()), |read| read.map_err(|why| why.to_string()));
    let changes = changes.inspect_err(|error| warn!(error, "cannot read the last changes of a service"));
    service.changes = changes.ok().map(|changes| changes.iter().map(Change::from).collect());
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

/// Past changes, newest first; 503 when the store cannot be read, or does not answer within two seconds.
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
    let is_from_the_top = query.before.is_none();
    // One more than asked for tells whether there are more.
    let query = HistoryQuery { before: query.before.map(Epoch), limit: limit + 1, service: service.clone() };
    let found = call.app.control.history(query).await.map_err(|why| refusal::store(&why))?;
    // One that was dropped has a past; one that never was is a slip.
    let is_known = |name: &ServiceName| call.app.control.state().table.service(name).is_some();
    if let Some(name) = service.filter(|name| found.is_empty() && is_from_the_top && !is_known(name)) {
        return Err(no_service(&name));
    }
    let changes: Vec<_> = found.iter().take(limit).map(Change::from).collect();
    let next_before = changes.last().filter(|_| found.len() > limit).map(|oldest| oldest.epoch);
    Ok(Json(History { changes, next_before }).into_response())
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
        (status = 503, body = Problem, description = "the proxy is stopping", content_type = "application/problem+json")))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Box<Problem>> {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let text = app.metrics.text().await;
    let text = text.map_err(|_| Problem::new(503, "shutting_down", "the proxy stops"))?;
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
