//! What supervision knows of a service.
#![allow(unused_qualifications, reason = "what `utoipa::path` expands to")]

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::header::ETAG;

use super::api::{Problem, Supervision, Trial, TrialEnd, Verdict};
use super::call::Call;
use super::openapi::ReadResponses;
use super::read::{Nothing, etag, no_service};

/// How the candidate of a service stands against its baseline: for gates of controllers.
#[utoipa::path(get, path = "/v1/services/{service}/verdict", tag = "services", params(("service" = String, Path)),
    responses((status = 200, body = Supervision, description = "what the comparison has found", headers(("etag" = String))), ReadResponses))]
pub(super) async fn verdict(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let (name, control) = (call.service()?, &call.app.control);
    let state = control.state();
    let known = state.table.service(&name).zip(state.deployment(&name));
    let (service, deployment) = known.ok_or_else(|| no_service(&name))?;
    let told = deployment.trial.as_ref().and_then(|trial| control.verdicts().of(control, &name, trial.stage));
    let state = match (&deployment.trial, &told) {
        (None, _) => "none",
        (Some(_), None) => "collecting",
        (Some(_), Some(told)) => told.report.standing.name(),
    };
    let supervision = Supervision {
        service: name.to_string(),
        state: state.to_owned(),
        trial: deployment.trial.as_ref().map(|trial| Trial::of(trial, &service.split)),
        verdict: told.as_ref().map(|told| Verdict::from(&told.report)),
        said: told.as_ref().map(|told| told.report.so_far()),
        hindrance: told.and_then(|told| told.hindrance),
        ended: control.verdicts().ended_of(&name).as_ref().map(TrialEnd::from),
    };
    Ok(([(ETAG, etag(service.epoch.0))], Json(supervision)).into_response())
}
