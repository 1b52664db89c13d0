//! The verbs that move traffic: `flip`, `revert`, `weights`, `undo`.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::args;
use super::change::{Moves, perform, perform_and_follow, perform_quietly};
use super::client::Call;
use super::render;
use super::session::{Exit, Session};
use super::supervise::value;
use crate::admin::api;
use crate::table::LONGEST_HOLD;

/// `switchback flip SERVICE --to VERSION`.
pub(super) async fn flip(session: &mut Session<'_>, args: &args::Flip) -> anyhow::Result<Exit> {
    let args::Flip { service, to, exclusive, streams, hold_timeout, force, supervise, .. } = args;
    let exclusive_value = exclusive.as_deref().map(|what| match what {
        "writes" => Value::from("writes"),
        _ => Value::from(true),
    });
    let body = api::Flip {
        to: to.clone(),
        exclusive: exclusive_value,
        streams: streams.clone(),
        hold_timeout: hold_timeout.map(in_millis),
        force: force.then_some(true),
        supervise: supervise.asked().map(value),
        ..api::Flip::default()
    };
    let mut call = Call::new(Method::POST, &["v1", "services", service, "flip"]).json(&body);
    if exclusive.is_some() {
        call = call.waits(hold_timeout.unwrap_or(LONGEST_HOLD));
    }
    let what = format!("cannot flip `{service}` to `{to}`");
    perform_and_follow(session, call, &args.change, &args.wait, what).await
}

/// `switchback hold SERVICE`.
pub(super) async fn hold(session: &mut Session<'_>, args: &args::Hold) -> anyhow::Result<Exit> {
    let args::Hold { service, writes, timeout, change } = args;
    let body = api::Hold {
        scope: writes.then(|| "writes".to_owned()),
        timeout: timeout.map(in_millis),
        ..api::Hold::default()
    };
    let call = Call::new(Method::POST, &["v1", "services", service, "hold"]).json(&body);
    let last = format!("on with it: switchback release {service}");
    let what = format!("cannot hold `{service}`");
    perform_quietly(session, call, change, what, |_| last, render::held).await
}

/// `switchback release SERVICE`.
pub(super) async fn release(session: &mut Session<'_>, args: &args::Release) -> anyhow::Result<Exit> {
    let args::Release { service, change } = args;
    let call = Call::new(Method::POST, &["v1", "services", service, "release"]);
    let last = |answer: &api::ChangeAnswer| match answer.services.get(service) {
        Some(api::Standing { hold: Some(_), .. }) => format!("requests of {service} still wait"),
        _ => format!("requests of {service} go on"),
    };
    perform_quietly(session, call, change, format!("cannot release `{service}`"), last, render::held).await
}

/// As the API reads it.
fn in_millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
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
    let args::Weights { service, weights, rest, force, supervise, .. } = args;
    let points: BTreeMap<_, _> =
        weights.iter().map(|(version, weight)| (version.clone(), u64::from(weight.points()))).collect();
    anyhow::ensure!(points.len() == weights.len(), "a version is named twice");
    let call = Call::new(Method::PUT, &["v1", "services", service, "weights"]);
    let mut call = call.json(&api::Weights(points)).query("rest", rest);
    if *force {
        call = call.query("force", "true");
    }
    if let Some(asked) = supervise.asked() {
        call = call.query("supervise", &asked);
    }
    let what = format!("cannot set the weights of `{service}`");
    perform_and_follow(session, call, &args.change, &args.wait, what).await
}

/// `switchback undo --to EPOCH`.
pub(super) async fn undo(session: &mut Session<'_>, args: &args::Undo) -> anyhow::Result<Exit> {
    let to_epoch = args.to_epoch;
    let call = Call::new(Method::POST, &["v1", "undo"]).json(&api::Undo { to_epoch, reason: None });
    let change = args::Change { reason: args.reason.clone(), dry_run: args.dry_run, if_epoch: None };
    perform(session, call, &change, &args.wait, format!("cannot undo to epoch {to_epoch}"), Moves::Any).await
}
