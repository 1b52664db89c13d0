//! `status`: what a tired operator needs at 3 a.m.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use http::Method;
use serde::Serialize;

use super::args;
use super::client::{Call, Client, Error};
use super::render;
use super::session::{Exit, Session};
use crate::admin::api;

/// Between two pictures of `--watch`.
const REFRESH: Duration = Duration::from_secs(1);
/// So many of the newest changes are searched for the last one of each service.
const CHANGES: &str = "200";

/// Everything that `status` shows.
#[derive(Debug, Serialize)]
pub(super) struct Picture {
    /// The proxy.
    pub(super) proxy: api::Status,
    /// Why something is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<String>,
    /// The services asked for.
    pub(super) services: Vec<api::Service>,
    /// Changes among which the last one of each service is, unless it is long ago.
    pub(super) changes: Vec<api::Change>,
    /// How the candidate stands, when one service was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) supervision: Option<api::Supervision>,
    /// When this was so, in milliseconds since 1970.
    pub(super) at: u64,
}

/// `switchback status [SERVICE] [--watch]`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Status) -> anyhow::Result<Exit> {
    if !args.watch {
        let picture = look(session, args.service.as_deref()).await?;
        session.tell(&picture, render::status)?;
        return Ok(Exit::Done);
    }
    while session.is_heard {
        let picture = look(session, args.service.as_deref()).await;
        session.clear();
        match picture {
            Ok(picture) => session.tell(&picture, render::status)?,
            // It may come back: a restart is one of the things that are watched.
            Err(error) if is_passing(&error) => session.remark(&error),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(REFRESH).await;
    }
    Ok(Exit::Done)
}

pub(super) fn is_passing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(|error| !matches!(error, Error::Refused(_)))
}

async fn look(session: &Session<'_>, service: Option<&str>) -> anyhow::Result<Picture> {
    let client = &session.client;
    let mut supervision = None;
    let services = match service {
        Some(name) => {
            let service: api::Service = client
                .get(&["v1", "services", name])
                .await
                .with_context(|| format!("cannot show `{name}`"))?;
            supervision = Some(client.get(&["v1", "services", name, "verdict"]).await?);
            vec![service]
        }
        None => client.get::<api::Services>(&["v1", "services"]).await?.services,
    };
    let known = services.first().and_then(|only| only.changes.clone());
    let (changes, warning) = match known {
        Some(changes) => (changes, None),
        None => last_changes(client).await?,
    };
    let proxy = client.get(&["v1", "status"]).await?;
    Ok(Picture { proxy, warning, services, changes, supervision, at: now() })
}

/// The newest changes; a store that cannot be read is a warning here, for the rest is still true.
async fn last_changes(client: &Client) -> anyhow::Result<(Vec<api::Change>, Option<String>)> {
    let call = Call::new(Method::GET, &["v1", "changes"]).query("limit", CHANGES);
    match client.send::<api::History>(call).await {
        Ok(history) => Ok((history.changes, None)),
        Err(Error::Refused(why)) => Ok((Vec::new(), Some(why.detail))),
        Err(error) => Err(error.into()),
    }
}

/// Milliseconds since 1970, for the ages of things.
#[allow(
    clippy::disallowed_methods,
    reason = "the command line is an edge: it shows how long ago things were"
)]
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
