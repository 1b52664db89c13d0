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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Yes: nothing is left, nothing can arrive.
    Empty,
    /// Not yet: this is left.
    Left(Vec<api::Remaining>),
    /// No: it carries traffic, in basis points.
    Carries(u16),
}

/// `switchback drain SERVICE/VERSION`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Drain) -> anyhow::Result<Exit> {
    let versions = [args.version.clone()];
    let states = wait(session, &versions, args.wait.then_some(args.timeout)).await?;
    let exit = match &states[..] {
        [(_, State::Empty)] => Exit::Done,
        [(_, State::Left(_))] if args.wait => Exit::TimedOut,
        _ => Exit::Failed,
    };
    match session.format {
        Format::Json => {
            let document = look(&session.client, &args.version).await?.1;
            session.tell(&document, |_, _| String::new())?;
        }
        Format::Text => session.say(render::safety(&states, session.style)),
    }
    Ok(exit)
}

/// Looks at `versions` until each is empty or carries traffic, for at most `patience`; once when there is none.
pub(super) async fn wait(
    session: &mut Session<'_>,
    versions: &[VersionOf],
    patience: Option<Duration>,
) -> anyhow::Result<Vec<(VersionOf, State)>> {
    let deadline = Instant::now() + patience.unwrap_or_default();
    let mut tell_at = Instant::now();
    loop {
        let mut states = Vec::with_capacity(versions.len());
        for version in versions {
            let (state, _) = look(&session.client, version).await?;
            states.push((version.clone(), state));
        }
        let is_over = !states.iter().any(|(_, state)| matches!(state, State::Left(_)));
        if is_over || Instant::now() >= deadline {
            return Ok(states);
        }
        if session.format == Format::Text && Instant::now() >= tell_at {
            session.say(render::waiting(&states, session.style));
            tell_at = Instant::now() + TELL;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(client: &Client, version: &VersionOf) -> anyhow::Result<(State, api::Drain)> {
    let VersionOf { service, version } = version;
    let drain = client.get(&["v1", "services", service, "versions", version, "drain"]).await;
    let drain: api::Drain = match drain {
        // It was removed, and has been empty since.
        Err(Error::Refused(why)) if why.token() == "unknown_version" => {
            let gone = api::Drain { drained: true, weight: 0, remaining: Vec::new() };
            return Ok((State::Empty, gone));
        }
        other => other.with_context(|| format!("cannot look at `{version}` of `{service}`"))?,
    };
    let state = match &drain {
        drain if drain.drained => State::Empty,
        drain if drain.weight > 0 => State::Carries(drain.weight),
        drain => State::Left(drain.remaining.clone()),
    };
    Ok((state, drain))
}
