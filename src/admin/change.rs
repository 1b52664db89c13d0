//! The calls that change something: each reads what is asked, and makes an order of it.
#![allow(unused_qualifications, reason = "what `utoipa::path` expands to")]

use axum::response::Response;

use super::api::{Batch, Flip, Hold, Problem, PutEndpoint, PutVersion, Release, Revert, Undo, Weights};
use super::call::Call;
use super::edit::{self, Edits};
use super::openapi::{ChangeHeaders, ChangeResponses, KeyHeader};
use super::order::{ChangeQuery, Order, make};
use super::refusal::Blame;
use crate::control::Asked;
use crate::control::health::Healthy;
use crate::release::Command;
use crate::table::{Epoch, Holder};

/// All new requests of a service to one version; with `exclusive`, when nothing is left on the others.
#[utoipa::path(post, path = "/v1/services/{service}/flip", tag = "changes", request_body = Flip,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn flip(call: Call) -> Result<Response, Box<Problem>> {
    let (service, body) = (call.service()?, call.json::<Flip>()?);
    let exclusive = edit::exclusively(&body)?;
    let order = Order::one(service.clone(), edit::flip(service, &body)?).exclusively(exclusive);
    make(&call, order.because(body.reason).forced(body.force).blaming(Blame::Member("to"))).await
}

/// The split as it was before the last flip or weight change. While an exclusive flip is under way, that is called off instead; while
/// supervision takes one back, that is made at once.
#[utoipa::path(post, path = "/v1/services/{service}/revert", tag = "changes", request_body = Option<Revert>,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn revert(call: Call) -> Result<Response, Box<Problem>> {
    let (service, body) = (call.service()?, call.json_or_default::<Revert>()?);
    make(&call, Order::one(service.clone(), Command::Revert { service }).because(body.reason)).await
}

/// New requests wait until they are released, for as long as they may from now on; none of them is refused. No exclusive flip
/// ends that, made or not, nor does supervision. A process begins with nothing held.
#[utoipa::path(post, path = "/v1/services/{service}/hold", tag = "changes", request_body = Option<Hold>,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn hold(call: Call) -> Result<Response, Box<Problem>> {
    let (service, body) = (call.service()?, call.json_or_default::<Hold>()?);
    make(&call, Order::one(service.clone(), edit::hold(service, &body)?).because(body.reason)).await
}

/// Requests that wait go on: a hold that was asked for is over. Where there is none, an exclusive flip that is under way is called
/// off; supervision's exclusive way back is not (409 `exclusive_underway`).
#[utoipa::path(post, path = "/v1/services/{service}/release", tag = "changes", request_body = Option<Release>,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn release(call: Call) -> Result<Response, Box<Problem>> {
    let (service, body) = (call.service()?, call.json_or_default::<Release>()?);
    make(
        &call,
        Order::one(service.clone(), Command::Release { service, holder: Holder::Operator })
            .because(body.reason),
    )
    .await
}

/// New weights, in basis points.
#[utoipa::path(put, path = "/v1/services/{service}/weights", tag = "changes", request_body = Weights,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn put_weights(call: Call) -> Result<Response, Box<Problem>> {
    let (service, weights) = (call.service()?, call.json::<Weights>()?);
    let ChangeQuery { rest, supervise, .. } = call.query::<ChangeQuery>()?;
    let supervise = supervise.map(edit::value);
    let command = edit::weights(service.clone(), &weights, rest.as_deref(), supervise.as_ref())?;
    let named = weights.0.into_keys().collect();
    make(&call, Order::one(service, command).blaming(Blame::Weights(named))).await
}

/// A version comes, or its pool is replaced.
#[utoipa::path(put, path = "/v1/services/{service}/versions/{version}", tag = "changes", request_body = PutVersion,
    params(("service" = String, Path), ("version" = String, Path), ChangeQuery, ChangeHeaders),
    responses(ChangeResponses))]
pub(super) async fn put_version(call: Call) -> Result<Response, Box<Problem>> {
    let (service, version, body) = (call.service()?, call.version()?, call.json::<PutVersion>()?);
    let protocol = body.protocol.as_deref();
    let command = edit::put_version(service.clone(), version.as_str(), &body.endpoints, protocol)?;
    let order = Order::one(service, command).bringing(version.into(), Healthy::Version);
    make(&call, order).await
}

/// A version without weight goes.
#[utoipa::path(delete, path = "/v1/services/{service}/versions/{version}", tag = "changes",
    params(("service" = String, Path), ("version" = String, Path), ChangeQuery, ChangeHeaders),
    responses(ChangeResponses))]
pub(super) async fn remove_version(call: Call) -> Result<Response, Box<Problem>> {
    let (service, version) = (call.service()?, call.version()?);
    make(&call, Order::one(service.clone(), Command::RemoveVersion { service, version })).await
}

/// An endpoint joins a pool, or serves again; or its weight or its zone changes.
#[utoipa::path(put, path = "/v1/services/{service}/versions/{version}/endpoints/{endpoint}", tag = "changes",
    request_body = Option<PutEndpoint>,
    params(("service" = String, Path), ("version" = String, Path),
        ("endpoint" = String, Path, description = "percent-encoded: `unix:%2Frun%2Fapp.sock`"),
        ChangeQuery, ChangeHeaders),
    responses(ChangeResponses))]
pub(super) async fn put_endpoint(call: Call) -> Result<Response, Box<Problem>> {
    let (service, version, endpoint) = (call.service()?, call.version_ref()?, call.endpoint()?);
    let traits = edit::traits(&call.json_or_default::<PutEndpoint>()?)?;
    let comes = (version.clone(), Healthy::Endpoint(endpoint.clone()));
    let order = Order::one(service.clone(), Command::PutEndpoint { service, version, endpoint, traits });
    make(&call, order.bringing(comes.0, comes.1)).await
}

/// An endpoint leaves a pool.
#[utoipa::path(delete, path = "/v1/services/{service}/versions/{version}/endpoints/{endpoint}", tag = "changes",
    params(("service" = String, Path), ("version" = String, Path),
        ("endpoint" = String, Path, description = "percent-encoded: `unix:%2Frun%2Fapp.sock`"),
        ChangeQuery, ChangeHeaders),
    responses(ChangeResponses))]
pub(super) async fn remove_endpoint(call: Call) -> Result<Response, Box<Problem>> {
    let (service, version, endpoint) = (call.service()?, call.version_ref()?, call.endpoint()?);
    make(&call, Order::one(service.clone(), Command::RemoveEndpoint { service, version, endpoint })).await
}

/// An endpoint gets no new requests and stays in its pool, until it is put there again.
#[utoipa::path(post, path = "/v1/services/{service}/versions/{version}/endpoints/{endpoint}/drain", tag = "changes",
    params(("service" = String, Path), ("version" = String, Path),
        ("endpoint" = String, Path, description = "percent-encoded: `unix:%2Frun%2Fapp.sock`"),
        ChangeQuery, ChangeHeaders),
    responses(ChangeResponses))]
pub(super) async fn drain_endpoint(call: Call) -> Result<Response, Box<Problem>> {
    let (service, version, endpoint) = (call.service()?, call.version_ref()?, call.endpoint()?);
    make(&call, Order::one(service.clone(), Command::DrainEndpoint { service, version, endpoint })).await
}

/// Several edits, over one service or many, as one change with one epoch; each may have an `if_epoch` of its own.
#[utoipa::path(post, path = "/v1/changes", tag = "changes", request_body = Batch,
    params(ChangeQuery, KeyHeader), responses(ChangeResponses))]
pub(super) async fn batch(call: Call) -> Result<Response, Box<Problem>> {
    let edits = Edits::read(&call.body)?;
    let (expected, blame) = (edits.expected(), Blame::Edits(edits.clone()));
    let Edits { commands, services, reason, force, .. } = edits;
    let asked = Asked::Command(Command::Batch(commands));
    make(&call, Order { asked, reason, services, expected, blame, exclusive: None, force, comes: None }).await
}

/// Every service back to where it was at an epoch.
#[utoipa::path(post, path = "/v1/undo", tag = "changes", request_body = Undo,
    params(ChangeQuery, KeyHeader), responses(ChangeResponses))]
pub(super) async fn undo(call: Call) -> Result<Response, Box<Problem>> {
    let Undo { to_epoch, reason } = call.json()?;
    let order = Order {
        asked: Asked::UndoTo(Epoch(to_epoch)),
        reason,
        services: Vec::new(),
        expected: Vec::new(),
        blame: Blame::Path,
        exclusive: None,
        force: false,
        comes: None,
    };
    make(&call, order).await
}
