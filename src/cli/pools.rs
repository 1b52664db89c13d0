//! The verbs about pools: `versions`, `endpoints`.

use anyhow::Context;
use http::Method;

use super::args::{EndpointEdit, EndpointOf, Endpoints, VersionEdit, VersionOf, Versions};
use super::change::{Moves, perform, perform_quietly};
use super::client::Call;
use super::render;
use super::session::{Exit, Session};
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
            perform_quietly(session, call, change, what, last).await
        }
        VersionEdit::Rm { service, version, change, wait } => {
            let call = Call::new(Method::DELETE, &["v1", "services", service, "versions", version]);
            let what = format!("cannot remove `{version}` of `{service}`");
            perform(session, call, change, wait, what, Moves::Pools).await
        }
    }
}

/// `switchback endpoints add`, `endpoints rm`.
pub(super) async fn endpoints(session: &mut Session<'_>, args: &Endpoints) -> anyhow::Result<Exit> {
    let (method, EndpointOf { version: VersionOf { service, version }, endpoint, change }) = match &args.edit
    {
        EndpointEdit::Add(of) => (Method::PUT, of),
        EndpointEdit::Rm(of) => (Method::DELETE, of),
    };
    let (verb, last) = match &args.edit {
        EndpointEdit::Add(_) => ("add", format!("{endpoint} is in the pool: do not stop it")),
        EndpointEdit::Rm(_) => (
            "remove",
            format!(
                "{endpoint} gets no new requests; those already on it are not counted by endpoint: let them end before you stop it"
            ),
        ),
    };
    let segments = ["v1", "services", service, "versions", version, "endpoints", endpoint];
    let what = format!("cannot {verb} {endpoint} of `{version}` of `{service}`");
    perform_quietly(session, Call::new(method, &segments), change, what, last).await
}
