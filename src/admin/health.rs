//! The call about a version's health, and a way to wait for it.
#![allow(unused_qualifications, reason = "what `utoipa::path` expands to")]

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::ETAG;
use serde::Deserialize;
use utoipa::IntoParams;

use super::api::{Problem, Unhealthy, VersionHealth};
use super::call::Call;
use super::openapi::ReadResponses;
use super::read::etag;
use super::refusal::{self, Blame};
use super::{App, drain, until};
use crate::control::health::Healthy;
use crate::table::{ServiceName, VersionRef};

/// Whether to wait.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct HealthQuery {
    /// `healthy`: answer once enough endpoints are well, or 504 when the time is over.
    wait: Option<String>,
    /// With `wait`: for how long, `500ms`, `30s` (the default), `5m`.
    timeout: Option<String>,
}

/// Is this version ready for traffic? Enough of its endpoints are well; without checks it always is.
#[utoipa::path(get, operation_id = "version_health", path = "/v1/services/{service}/versions/{version}/health", tag = "services",
    params(("service" = String, Path), ("version" = String, Path), HealthQuery),
    responses((status = 200, body = VersionHealth, description = "each endpoint, and why", headers(("etag" = String))), ReadResponses))]
pub(super) async fn version(call: Call) -> Result<Response, Box<Problem>> {
    let query: HealthQuery = call.query()?;
    let (service, version, control) = (call.service()?, call.version_ref()?, &call.app.control);
    let name = drain::named(control, &service, &version)?;
    match query.wait.as_deref() {
        None => {}
        Some("healthy") => {
            let patience = until::timeout(query.timeout.as_deref())?;
            self::wait(&call.app, &service, &version, &Healthy::Version, patience).await?;
        }
        Some(other) => {
            let detail = format!("`{}` is nothing to wait for: expected healthy", other.escape_default());
            return Err(Problem::new(400, "bad_query", detail).at("wait"));
        }
    }
    let state = control.state();
    let told = VersionHealth::of(&state, control, &service, &name);
    let told =
        told.ok_or_else(|| Problem::new(404, "unknown_version", format!("version `{name}` is gone")))?;
    let epoch = state.table.service(&service).map_or(state.table.epoch(), |service| service.epoch);
    Ok(([(ETAG, etag(epoch.0))], Json(told)).into_response())
}

/// Waits until `what` of a version is found well.
///
/// # Errors
/// `timed_out` with what is unwell.
pub(super) async fn wait(
    app: &App,
    service: &ServiceName,
    version: &VersionRef,
    what: &Healthy,
    patience: Duration,
) -> Result<(), Box<Problem>> {
    let control = &app.control;
    let name = drain::named(control, service, version)?;
    match app.within(patience, control.wait_healthy(service, &name, what)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(failed)) => Err(refusal::failed(app, failed, &Blame::Path)),
        Err(_) => {
            let readiness = control.readiness(service, &name);
            let told = readiness.as_ref().map_or_else(String::new, |readiness| format!(": {readiness}"));
            let detail = format!("`{name}` of `{service}` is not healthy yet{told}");
            let hint = format!("`switchback status {service}` shows the checks");
            let mut problem = Problem::new(504, "timed_out", detail).hint(hint);
            problem.unhealthy = readiness.map(|readiness| Unhealthy::all(&readiness));
            Err(problem)
        }
    }
}
