//! The verbs that move traffic: `flip`, `revert`, `weights`, `undo`.

use std::collections::BTreeMap;

use http::Method;

use super::args;
use super::change::{Moves, perform};
use super::client::Call;
use super::session::{Exit, Session};
use crate::admin::api;

/// `switchback flip SERVICE --to VERSION`.
pub(super) async fn flip(session: &mut Session<'_>, args: &args::Flip) -> anyhow::Result<Exit> {
    let args::Flip { service, to, .. } = args;
    let body = api::Flip { to: to.clone(), ..api::Flip::default() };
    let call = Call::new(Method::POST, &["v1", "services", service, "flip"]).json(&body);
    perform(
        session,
        call,
        &args.change,
        &args.wait,
        format!("cannot flip `{service}` to `{to}`"),
        Moves::Traffic,
    )
    .await
}

/// `switchback revert SERVICE`.
pub(super) async fn revert(session: &mut Session<'_>, args: &args::Revert) -> anyhow::Result<Exit> {
    let service = &args.service;
    let call = Call::new(Method::POST, &["v1", "services", service, "revert"]);
    perform(session, call, &args.change, &args.wait, format!("cannot revert `{service}`"), Moves::Traffic)
        .await
}

/// `switchback weights SERVICE VERSION=PERCENT …`.
pub(super) async fn weights(session: &mut Session<'_>, args: &args::Weights) -> anyhow::Result<Exit> {
    let args::Weights { service, weights, rest, .. } = args;
    let points: BTreeMap<_, _> =
        weights.iter().map(|(version, weight)| (version.clone(), u64::from(weight.points()))).collect();
    anyhow::ensure!(points.len() == weights.len(), "a version is named twice");
    let call = Call::new(Method::PUT, &["v1", "services", service, "weights"]);
    let call = call.json(&api::Weights(points)).query("rest", rest);
    perform(
        session,
        call,
        &args.change,
        &args.wait,
        format!("cannot set the weights of `{service}`"),
        Moves::Traffic,
    )
    .await
}

/// `switchback undo --to EPOCH`.
pub(super) async fn undo(session: &mut Session<'_>, args: &args::Undo) -> anyhow::Result<Exit> {
    let to_epoch = args.to_epoch;
    let call = Call::new(Method::POST, &["v1", "undo"]).json(&api::Undo { to_epoch, reason: None });
    let change = args::Change { reason: args.reason.clone(), dry_run: args.dry_run, if_epoch: None };
    perform(session, call, &change, &args.wait, format!("cannot undo to epoch {to_epoch}"), Moves::Traffic)
        .await
}
