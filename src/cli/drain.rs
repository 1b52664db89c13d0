//! `drain`, and the wait at the end of every change: is a version empty, and what is left on it?

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::args::{self, VersionOf};
use super::client::{Client, Error};
use super::render;
use super::session::{Exit, Format, Session};
use crate::admin::api;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines about what is left.
const TELL: Duration = Duration::from_secs(2);

/// May a version be stopped?
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// Yes: nothing is left, nothing can arrive.
    Empty,
    /// Not yet: this is left.
    Left(Vec<api::Remaining>),
    /// No: nothing of it is left, but others use its addresses.
    Shared(Vec<api::AlsoUsedBy>),
    /// No: it carries traffic, in basis points.
    Carries(u16),
    /// No: a targeting rule leads to it.
    Targeted,
    /// No: copies of requests may come to it.
    Mirrored,
    /// Not yet: nobody new comes to it, and who is there may still come.
    Retiring,
    /// No: nothing is left, and supervision may give it traffic back by itself.
    Measure(api::Measure),
}

/// Is it certain that a version was there? Only then an API that knows it no more says that it is empty; else its name
/// may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existence {
    /// The change just made, or an earlier look, knew it.
    Known,
    /// The operator says so.
    Claimed,
}

/// `switchback drain SERVICE/VERSION`, `switchback drain --all`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Drain) -> anyhow::Result<Exit> {
    let patience = args.wait.then_some(args.timeout);
    match &args.version {
        Some(version) => one(session, version, patience).await,
        None => all(session, patience).await,
    }
}

async fn one(
    session: &mut Session<'_>,
    version: &VersionOf,
    patience: Option<Duration>,
) -> anyhow::Result<Exit> {
    let states = wait(session, std::slice::from_ref(version), Existence::Claimed, patience).await?;
    let document = look(&session.client, version, Existence::Known).await?.1;
    let exit = match &states[..] {
        [(_, State::Empty)] => Exit::Done,
        [(_, State::Left(_) | State::Retiring)] if patience.is_some() => Exit::TimedOut,
        _ => Exit::Failed,
    };
    match session.format {
        Format::Json => session.tell(&document, |_, _| String::new())?,
        Format::Text => {
            document.endpoints.iter().for_each(|left| session.say(render::endpoint_left(left)));
            session.say(render::safety(&states, session.style));
        }
    }
    Ok(exit)
}

/// Everything that gets no new requests; of a proxy that winds down, everything.
async fn all(session: &mut Session<'_>, patience: Option<Duration>) -> anyhow::Result<Exit> {
    let mut was_stopping = false;
    let ask = async |client: &Client| -> anyhow::Result<api::Drains> {
        let asked = client.get::<api::Drains>(&["v1", "drain"]).await;
        match asked {
            // It said that it would end, and it has. From elsewhere that cannot be told from a network that is.
            Err(Error::Nobody { .. } | Error::Broken { .. }) if was_stopping && client.is_local() => {
                let (versions, shared, mirrored, kept) = Default::default();
                Ok(api::Drains { drained: true, stopping: true, versions, shared, mirrored, kept })
            }
            other => {
                let drains = other.context("cannot look at what is left")?;
                was_stopping = drains.stopping;
                Ok(drains)
            }
        }
    };
    let is_over = |drains: &api::Drains| drains.drained;
    let drains = until(session, patience, ask, is_over, render::waiting_for_all).await?;
    session.tell(&drains, render::all_left)?;
    Ok(match (drains.drained, patience) {
        (true, _) if drains.shared.is_empty() && drains.mirrored.is_empty() && drains.kept.is_empty() => {
            Exit::Done
        }
        (false, Some(_)) => Exit::TimedOut,
        (true, _) | (false, None) => Exit::Failed,
    })
}

/// Looks at `versions` until each is empty or carries traffic, for at most `patience`; once when there is none.
pub(super) async fn wait(
    session: &mut Session<'_>,
    versions: &[VersionOf],
    mut existence: Existence,
    patience: Option<Duration>,
) -> anyhow::Result<Vec<(VersionOf, State)>> {
    let ask = async |client: &Client| -> anyhow::Result<Vec<(VersionOf, State)>> {
        let mut states = Vec::with_capacity(versions.len());
        for version in versions {
            let (state, _) = look(client, version, existence).await?;
            states.push((version.clone(), state));
        }
        existence = Existence::Known;
        Ok(states)
    };
    let is_over = |states: &Vec<(VersionOf, State)>| {
        !states.iter().any(|(_, state)| matches!(state, State::Left(_) | State::Retiring))
    };
    let told = |states: &Vec<(VersionOf, State)>, style| render::waiting(states, style);
    until(session, patience, ask, is_over, told).await
}

/// Waits until an endpoint that gets no new requests is empty, for at most `patience`.
pub(super) async fn wait_for_endpoint(
    session: &mut Session<'_>,
    version: &VersionOf,
    endpoint: &str,
    patience: Option<Duration>,
) -> anyhow::Result<api::EndpointDrain> {
    let VersionOf { service, version: name } = version;
    let path = ["v1", "services", service, "versions", name, "endpoints", endpoint, "drain"];
    let ask = async |client: &Client| -> anyhow::Result<api::EndpointDrain> {
        match client.get(&path).await {
            // The change just made knew it.
            Err(Error::Refused(why)) if is_gone(&why) => {
                let (in_pool, draining, remaining, also_used_by) = (false, false, Vec::new(), Vec::new());
                let (drained, mirrored, measure) = (true, false, None);
                Ok(api::EndpointDrain {
                    drained,
                    in_pool,
                    draining,
                    mirrored,
                    remaining,
                    also_used_by,
                    measure,
                })
            }
            other => other.with_context(|| format!("cannot look at {endpoint} of `{name}` of `{service}`")),
        }
    };
    // Who serves again is not waited for.
    let is_over = |drain: &api::EndpointDrain| drain.drained || (drain.in_pool && !drain.draining);
    let told = |drain: &api::EndpointDrain, style| render::waiting_for_endpoint(endpoint, drain, style);
    until(session, patience, ask, is_over, told).await
}

/// Asks until it is over, for at most `patience`, and tells now and then what is waited for; once when there is none.
async fn until<T>(
    session: &mut Session<'_>,
    patience: Option<Duration>,
    mut ask: impl AsyncFnMut(&Client) -> anyhow::Result<T>,
    is_over: impl Fn(&T) -> bool,
    told: impl Fn(&T, super::Style) -> String,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + patience.unwrap_or_default();
    let mut tell_at = Instant::now();
    loop {
        let answer = ask(&session.client).await?;
        if is_over(&answer) || Instant::now() >= deadline {
            return Ok(answer);
        }
        if session.format == Format::Text && Instant::now() >= tell_at {
            session.say(told(&answer, session.style));
            tell_at = Instant::now() + TELL;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// True when the API knows the version no more, or its whole service: nothing is left on it either, or it would.
fn is_gone(why: &api::Problem) -> bool {
    matches!(why.token(), "unknown_version" | "unknown_service")
}

async fn look(
    client: &Client,
    version: &VersionOf,
    existence: Existence,
) -> anyhow::Result<(State, api::Drain)> {
    let VersionOf { service, version } = version;
    let drain = client.get(&["v1", "services", service, "versions", version, "drain"]).await;
    let drain: api::Drain = match drain {
        // It was removed, and has been empty since.
        Err(Error::Refused(why)) if existence == Existence::Known && is_gone(&why) => {
            let (remaining, endpoints, also_used_by) = (Vec::new(), Vec::new(), Vec::new());
            let (drained, retiring) = (true, false);
            let gone = api::Drain {
                drained,
                weight: 0,
                targeted: false,
                mirrored: false,
                remaining,
                endpoints,
                retiring,
                also_used_by,
                measure: None,
            };
            return Ok((State::Empty, gone));
        }
        other => other.with_context(|| format!("cannot look at `{version}` of `{service}`"))?,
    };
    let state = match &drain {
        api::Drain { drained: true, measure: Some(measure), .. } => State::Measure(measure.clone()),
        drain if drain.drained && drain.also_used_by.is_empty() => State::Empty,
        drain if drain.drained => State::Shared(drain.also_used_by.clone()),
        drain if drain.retiring => State::Retiring,
        drain if drain.weight > 0 => State::Carries(drain.weight),
        drain if drain.targeted => State::Targeted,
        drain if drain.mirrored => State::Mirrored,
        drain => State::Left(drain.remaining.clone()),
    };
    Ok((state, drain))
}
