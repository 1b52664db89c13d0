//! The calls about what is left, and whether it may be stopped: `drained` is an answer, not a timer (G3).
#![allow(unused_qualifications, reason = "what `utoipa::path` expands to")]

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::ETAG;

use super::Readiness;
use super::api::{Drain, Drains, EndpointDrain, InFlight, Measure, Problem, VersionKept, VersionLeft};
use super::call::Call;
use super::openapi::ReadResponses;
use super::read::{Nothing, etag, no_service};
use super::uses;
use crate::control::Handle;
use crate::release::{Deployment, Refused, Scopes};
use crate::table::{self, EndpointAddr, Epoch, ServiceName, VersionName, VersionRef};

/// May this version be stopped? `drained` is an answer, not a timer. What is drained is safe to stop unless others use its addresses
/// (`also_used_by`) or supervision may give it traffic back (`measure`).
#[utoipa::path(get, operation_id = "version_drain", path = "/v1/services/{service}/versions/{version}/drain", tag = "services",
    params(("service" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = Drain, description = "what is left on the version", headers(("etag" = String))), ReadResponses))]
pub(super) async fn version(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let (name, control) = (call.service()?, &call.app.control);
    let version = named(control, &name, &call.version_ref()?)?;
    let (mut drain, epoch) = look(control, &name, &version).await;
    if drain.drained {
        let pool = uses::pool(control, &name, &version);
        drain.also_used_by = uses::of_others(control, &name, &version, pool).await;
    }
    Ok(([(ETAG, etag(epoch))], Json(drain)).into_response())
}

/// May this endpoint of a version be stopped? One that the version does not have, and that nothing is left on, is
/// `drained`, whether or not it ever had it; `in_pool` tells whether it has it now. What is drained is safe to stop as a version is.
#[utoipa::path(get, path = "/v1/services/{service}/versions/{version}/endpoints/{endpoint}/drain", tag = "services",
    params(("service" = String, Path), ("version" = String, Path),
        ("endpoint" = String, Path, description = "percent-encoded: `unix:%2Frun%2Fapp.sock`")),
    responses((status = 200, body = EndpointDrain, description = "what is left on the endpoint", headers(("etag" = String))), ReadResponses))]
pub(super) async fn endpoint(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let (name, control, endpoint) = (call.service()?, &call.app.control, call.endpoint()?);
    let version = named(control, &name, &call.version_ref()?)?;
    let (mut drain, epoch) = look_at_endpoint(control, &name, &version, &endpoint).await;
    if drain.drained {
        let address = BTreeSet::from([endpoint]);
        drain.also_used_by = uses::of_others(control, &name, &version, address).await;
    }
    Ok(([(ETAG, etag(epoch.0))], Json(drain)).into_response())
}

/// What is left on an endpoint, and at which epoch that is so.
pub(super) async fn look_at_endpoint(
    control: &Handle,
    name: &ServiceName,
    version: &VersionName,
    endpoint: &EndpointAddr,
) -> (EndpointDrain, Epoch) {
    let before = control.state().table.epoch();
    // Before they are asked: who begins nothing more only has less.
    let are_elders_quiet = control.elders().are_quiet();
    let told = control.remaining_at(name, version, endpoint).await;
    let state = control.state();
    let service = state.table.service(name);
    let spec = service.and_then(|service| service.version(version));
    let in_pool = spec.is_some_and(|spec| spec.endpoints.contains(endpoint));
    let draining = spec.is_some_and(|spec| spec.draining.contains(endpoint));
    let remaining: Vec<_> = told.iter().flatten().map(Into::into).collect();
    let epoch = service.map_or(state.table.epoch(), |service| service.epoch);
    let takes_part = in_pool && !draining;
    let mirrored = takes_part && service.is_some_and(|service| service.mirrors_to(version));
    let gets_nothing = !mirrored && service.is_none_or(|service| !service.split.leads_to(version));
    // What the workers said holds for a change that was published before they were asked.
    let is_fenced = epoch <= before && are_elders_quiet;
    let drained = (!takes_part || gets_nothing) && is_fenced && told.is_some() && remaining.is_empty();
    let measure = takes_part.then(|| Measure::present(&state, name, version.as_str())).flatten();
    (
        EndpointDrain { drained, in_pool, draining, mirrored, remaining, also_used_by: Vec::new(), measure },
        epoch,
    )
}

/// What is left on all versions that get no new requests; while the proxy winds down, on all. Of services that the caller may look at.
#[utoipa::path(get, path = "/v1/drain", tag = "proxy", responses((status = 200, body = Drains, description = "all drains that are open"), ReadResponses))]
pub(super) async fn proxy(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let (control, scopes) = (&call.app.control, call.caller.scopes());
    let stopping = call.app.status.readiness() == Readiness::Stopping;
    let are_elders_quiet = control.elders().are_quiet();
    let mut versions = Vec::new();
    let seen = busy(control, stopping).into_iter().filter(|(service, _)| scopes.read(service.as_str()));
    for (service, version) in seen {
        let (drain, _) = look(control, &service, &version).await;
        let is_leaving = drain.weight == 0 && !drain.targeted && !drain.mirrored && !drain.drained;
        if is_leaving || (stopping && !drain.remaining.is_empty()) {
            let (service, version) = (service.to_string(), version.to_string());
            versions.push(VersionLeft { service, version, drain });
        }
    }
    let drained = versions.is_empty() && !stopping && are_elders_quiet;
    let mut kept = if stopping { Vec::new() } else { kept(control) };
    kept.retain(|kept| scopes.read(&kept.service));
    let mut shared = uses::shared(control).await;
    shared.retain(|left| scopes.read(&left.service));
    let mirrored = if stopping { Vec::new() } else { mirrored((control, scopes)).await };
    Ok(Json(Drains { drained, stopping, versions, shared, mirrored, kept }).into_response())
}

/// The versions that copies of requests may come to, of services that the caller may look at.
async fn mirrored((control, scopes): (&Handle, &Scopes)) -> Vec<VersionLeft> {
    let state = control.state();
    let mirrors = state.table.services().iter().filter_map(|service| Some((service, &service.mirror()?.to)));
    let mut all = Vec::new();
    for (service, version) in mirrors.filter(|(service, _)| scopes.read(service.name.as_str())) {
        let (drain, _) = look(control, &service.name, version).await;
        all.push(VersionLeft { service: service.name.to_string(), version: version.to_string(), drain });
    }
    all
}

/// The versions without traffic to which supervision may give it back.
fn kept(control: &Handle) -> Vec<VersionKept> {
    let state = control.state();
    let baseless = |service: &Arc<table::Service>| {
        let version = state.deployment(&service.name)?.trial.as_ref()?.baseline.clone();
        (!service.split.leads_to(&version)).then_some(version)
    };
    let kept = state.table.services().iter().filter_map(|service| {
        let version = baseless(service)?;
        let measure = Measure::present(&state, &service.name, version.as_str())?;
        Some(VersionKept { service: service.name.to_string(), version: version.to_string(), measure })
    });
    kept.collect()
}

/// The versions worth a look: those that drain, and those with something in flight.
pub(super) fn busy(control: &Handle, stopping: bool) -> BTreeSet<(ServiceName, VersionName)> {
    let mut all: BTreeSet<_> = control.draining().iter().cloned().collect();
    all.extend(control.leaving_elsewhere().into_iter().map(|left| (left.service, left.version)));
    let state = control.state();
    let gets_some = |service: &ServiceName, version: &VersionName| {
        state.table.service(service).is_some_and(|service| service.split.leads_to(version))
    };
    for upstream in control.tenures().tenures() {
        let counts = stopping || !gets_some(&upstream.service, &upstream.version);
        if counts && upstream.in_flight() > 0 {
            all.insert((upstream.service.clone(), upstream.version.clone()));
        }
    }
    all
}

/// What is left on a version, and the epoch of its service.
pub(super) async fn look(control: &Handle, service: &ServiceName, version: &VersionName) -> (Drain, u64) {
    // In this order. First the workers, who tell since when; then whether it drains; then its weight, so that a flip back
    // in between is seen; the counts last: what has no weight in a published table gets nothing new, so what they do not
    // show cannot arrive.
    let told = control.remaining(service, version).await;
    let draining = control.is_draining(service, version);
    let state = control.state();
    let present = state.table.service(service);
    let weight = present.map_or(0, |service| service.split.weight(version).points());
    let in_flight = InFlight::left(control, service, version);
    let epoch = present.map_or(state.table.epoch(), |service| service.epoch);
    let measure = Measure::present(&state, service, version.as_str());
    let retirement = state.deployment(service).and_then(|deployment| deployment.retirement.as_ref());
    let retiring = retirement.is_some_and(|retirement| retirement.version == *version);
    let targeted = present.is_some_and(|service| service.split.rules().leads_to(version));
    let mirrored = present.is_some_and(|service| service.mirrors_to(version));
    let drain = Drain::of((weight, targeted, mirrored), draining, &in_flight, told.as_deref());
    (Drain { measure, retiring, ..drain }, epoch.0)
}

/// The version of that name or part; one that was removed, also with its service, as long as it drains.
pub(super) fn named(
    control: &Handle,
    service: &ServiceName,
    reference: &VersionRef,
) -> Result<VersionName, Box<Problem>> {
    let state = control.state();
    match (state.table.service(service).zip(state.deployment(service)), reference) {
        (Some(known), _) => of_service(control, known, reference),
        (None, VersionRef::Name(version)) if control.is_draining(service, version) => Ok(version.clone()),
        (None, _) => Err(no_service(service)),
    }
}

fn of_service(
    control: &Handle,
    (service, deployment): (&Arc<table::Service>, &Deployment),
    reference: &VersionRef,
) -> Result<VersionName, Box<Problem>> {
    let gone = || match reference {
        VersionRef::Name(version) if control.is_draining(&service.name, version) => Some(version),
        VersionRef::Name(_) | VersionRef::Stable | VersionRef::Candidate => None,
    };
    deployment.resolve(service, reference).or_else(gone).cloned().ok_or_else(|| {
        let known = service.versions.iter().map(|version| version.name.clone()).collect();
        let why =
            Refused::UnknownVersion { service: service.name.clone(), version: reference.clone(), known };
        Problem::new(404, why.token(), why.to_string()).hint(why.hint())
    })
}
