//! The verbs about pools: `versions`, `endpoints`.

use std::time::Duration;

use anyhow::Context;
use http::Method;

use super::args::{EndpointEdit, EndpointOf, Endpoints, VersionEdit, VersionOf, Versions};
use super::change::{Moves, perform, perform_quietly, with_options};
use super::client::Call;
use super::drain::wait_for_endpoint;
use super::render;
use super::session::{Exit, Format, Session};
use crate::admin::api;

/// `switchback versions SERVICE`, `versions add`, `versions rm`.
pub(super) async fn versions(session: &mut Session<'_>, args: &Versions) -> anyhow::Result<Exit> {
    match (&args.edit, &args.service) {
        (Some(edit), _) => edit_version(session, edit).await,
        (None, Some(service)) => list(session, service).await,
        (None, None) => Ok(Exit::Usage),
    }
}

async fn list(session: &mut Session<'_>, name: &str) -> anyhow::Result<Exit> {
    let found = session.client.get(&["v1", "services", name]).await;
    let service: api::Service = found.with_context(|| format!("cannot list the versions of `{name}`"))?;
    session.tell(&service, render::versions)?;
    Ok(Exit::Done)
}

async fn edit_version(session: &mut Session<'_>, edit: &VersionEdit) -> anyhow::Result<Exit> {
    match edit {
        VersionEdit::Add { service, version, endpoints, protocol, change } => {
            let body = api::PutVersion { endpoints: endpoints.clone(), protocol: Some(protocol.clone()) };
            let call = Call::new(Method::PUT, &["v1", "services", service, "versions", version]).json(&body);
            let what = format!("cannot add `{version}` to `{service}`");
            let last = format!(
                "`{version}` is there; stop nothing for that. Next: switchback flip {service} --to {version}"
            );
            perform_quietly(session, call, change, what, |_| last, render::quiet_change).await
        }
        VersionEdit::Rm { service, version, change, wait } => {
            let call = Call::new(Method::DELETE, &["v1", "services", service, "versions", version]);
            let what = format!("cannot remove `{version}` of `{service}`");
            perform(session, call, change, wait, what, Moves::Pools).await
        }
    }
}

/// `switchback endpoints add`, `endpoints rm`, `endpoints drain`.
pub(super) async fn endpoints(session: &mut Session<'_>, args: &Endpoints) -> anyhow::Result<Exit> {
    match &args.edit {
        EndpointEdit::Add(added) => {
            let said = api::PutEndpoint { weight: added.weight, zone: added.zone.clone() };
            add(session, &added.of, &said).await
        }
        EndpointEdit::Rm { of, wait } => {
            let patience = (!wait.no_wait).then_some(wait.timeout);
            take_out(session, of, Out::Removed, patience).await
        }
        EndpointEdit::Drain { of, wait, timeout } => {
            take_out(session, of, Out::Drained, wait.then_some(*timeout)).await
        }
    }
}

async fn add(session: &mut Session<'_>, of: &EndpointOf, said: &api::PutEndpoint) -> anyhow::Result<Exit> {
    let EndpointOf { version: VersionOf { service, version }, endpoint, change } = of;
    let segments = ["v1", "services", service, "versions", version, "endpoints", endpoint];
    let what = format!("cannot add {endpoint} of `{version}` of `{service}`");
    let last = format!("{endpoint} is in the pool: do not stop it");
    let call = Call::new(Method::PUT, &segments).json(said);
    perform_quietly(session, call, change, what, |_| last, render::quiet_change).await
}

/// How an endpoint comes to get no new requests.
#[derive(Clone, Copy)]
enum Out {
    Removed,
    Drained,
}

/// Takes an endpoint out of the traffic, waits for what is left on it, and says whether it is safe to stop.
async fn take_out(
    session: &mut Session<'_>,
    of: &EndpointOf,
    out: Out,
    patience: Option<Duration>,
) -> anyhow::Result<Exit> {
    let EndpointOf { version, endpoint, change } = of;
    let (service, name) = (&version.service, &version.version);
    let path = ["v1", "services", service, "versions", name, "endpoints", endpoint];
    let (verb, call) = match out {
        Out::Removed => ("remove", Call::new(Method::DELETE, &path)),
        Out::Drained => ("drain", Call::new(Method::POST, &[&path[..], &["drain"]].concat())),
    };
    let what = format!("cannot {verb} {endpoint} of `{name}` of `{service}`");
    let answer: api::ChangeAnswer = session.client.send(with_options(call, change)).await.context(what)?;
    if session.format == Format::Text {
        session.tell(&answer, render::quiet_change)?;
    }
    if answer.dry_run {
        if session.format == Format::Json {
            session.tell(&answer, render::quiet_change)?;
        } else {
            session.say("nothing was changed: this was a dry run");
        }
        return Ok(Exit::Done);
    }
    let drain = wait_for_endpoint(session, version, endpoint, patience).await?;
    match (session.format, out) {
        (Format::Json, Out::Removed) => session.tell(&answer, render::quiet_change)?,
        (Format::Json, Out::Drained) | (Format::Text, _) => {
            session.tell(&drain, |drain, style| render::endpoint_safety(endpoint, drain, style))?;
        }
    }
    Ok(if patience.is_none() || drain.is_safe() {
        Exit::Done
    } else if drain.drained || (drain.in_pool && !drain.draining) {
        Exit::Failed
    } else {
        Exit::TimedOut
    })
}
