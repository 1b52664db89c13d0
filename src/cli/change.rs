//! What all changes have in common: ask, say what was done, wait, and say what is safe to stop.

use anyhow::Context;

use super::args::{Change, VersionOf, Wait};
use super::client::Call;
use super::drain::{self, Existence, State};
use super::render;
use super::session::{Exit, Format, Session};
use super::style::Style;
use super::supervise::{self, Follows};
use crate::admin::api::ChangeAnswer;

/// What a change moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moves {
    /// Traffic: a revert takes it back.
    Traffic,
    /// Versions, endpoints and targeting rules: a revert would not bring them back.
    Pools,
    /// An undo, any of these: a revert takes it back where it moved traffic, and only another undo where it did not.
    Any,
}

/// As [`perform`], and then waits until supervision is over, if there is any.
pub(super) async fn perform_and_follow(
    session: &mut Session<'_>,
    call: Call,
    change: &Change,
    wait: &Wait,
    what: String,
) -> anyhow::Result<Exit> {
    make(session, call, change, wait, what, Moves::Traffic, Follows::Always).await
}

/// Makes the change and tells it; `what` begins the sentence when it fails: "cannot flip `shop` to `green`".
pub(super) async fn perform(
    session: &mut Session<'_>,
    call: Call,
    change: &Change,
    wait: &Wait,
    what: String,
    moves: Moves,
) -> anyhow::Result<Exit> {
    make(session, call, change, wait, what, moves, Follows::Never).await
}

async fn make(
    session: &mut Session<'_>,
    call: Call,
    change: &Change,
    wait: &Wait,
    what: String,
    moves: Moves,
    follows: Follows,
) -> anyhow::Result<Exit> {
    let mut call = with_options(call, change);
    if session.format == Format::Json && !wait.no_wait && !change.dry_run {
        let until = follows.until(&session.client, &call, wait.timeout).await;
        let (until, patience) = until.with_context(|| what.clone())?;
        call = call.waits_until(until, patience);
    }
    let answer: ChangeAnswer = session.client.send(call).await.context(what)?;
    match moves {
        Moves::Traffic | Moves::Any => session.tell(&answer, render::change)?,
        Moves::Pools => session.tell(&answer, render::quiet_change)?,
    }
    match (session.format, answer.dry_run) {
        (Format::Json, _) => Ok(Exit::Done),
        (Format::Text, true) => {
            session.say("nothing was changed: this was a dry run");
            Ok(Exit::Done)
        }
        (Format::Text, false) => {
            let way = match moves {
                Moves::Traffic => render::way_back(&answer),
                Moves::Any => render::way_back_from_undo(&answer),
                Moves::Pools => None,
            };
            way.into_iter().for_each(|way| session.say(way));
            match supervise::follow(session, &answer, follows, wait).await? {
                Some(exit) => Ok(exit),
                None => conclude(session, &answer, wait).await,
            }
        }
    }
}

/// As [`perform`], for changes that move no traffic, as they are `told`; `last` says what that means for stopping.
pub(super) async fn perform_quietly(
    session: &mut Session<'_>,
    call: Call,
    change: &Change,
    what: String,
    last: impl FnOnce(&ChangeAnswer) -> String,
    told: fn(&ChangeAnswer, Style) -> String,
) -> anyhow::Result<Exit> {
    let answer: ChangeAnswer = session.client.send(with_options(call, change)).await.context(what)?;
    session.tell(&answer, told)?;
    if session.format == Format::Text {
        let last = last(&answer);
        session.say(if answer.dry_run { "nothing was changed: this was a dry run" } else { &last });
    }
    Ok(Exit::Done)
}

pub(super) fn with_options(mut call: Call, change: &Change) -> Call {
    if change.dry_run {
        call = call.query("dry_run", "true");
    }
    if let Some(reason) = &change.reason {
        call = call.query("reason", reason);
    }
    call.if_epoch(change.if_epoch)
}

/// Waits for what the change left, and says what is safe to stop.
pub(super) async fn conclude(
    session: &mut Session<'_>,
    answer: &ChangeAnswer,
    wait: &Wait,
) -> anyhow::Result<Exit> {
    let versions = left(answer);
    if versions.is_empty() {
        session.say(render::carriers(answer));
        return Ok(Exit::Done);
    }
    let patience = (!wait.no_wait).then_some(wait.timeout);
    let states = drain::wait(session, &versions, Existence::Known, patience).await?;
    let is_left = states.iter().any(|(_, state)| matches!(state, State::Left(_) | State::Retiring));
    let any = |is_so: fn(&State) -> bool| states.iter().any(|(_, state)| is_so(state));
    let is_back = any(|state| matches!(state, State::Carries(_)));
    // Whoever shows nothing of it stays where the change has sent him.
    let is_targeted = any(|state| *state == State::Targeted);
    let is_mirrored = any(|state| *state == State::Mirrored);
    let since = match (is_back, is_targeted, is_mirrored) {
        (true, _, _) => Some("but a later one took it back"),
        (false, true, _) => Some("and targeting rules have been set since"),
        (false, false, true) => Some("and a mirror has been set since"),
        (false, false, false) => None,
    };
    if let Some(since) = since {
        session.say(format!("the change was made (epoch {}), {since}", answer.epoch));
    }
    if is_left && !wait.no_wait {
        let (epoch, timeout) = (answer.epoch, wait.timeout.as_secs());
        session.say(format!("timed out after {timeout} s; the change itself is made (epoch {epoch})"));
    }
    session.say(render::safety(&states, session.style));
    Ok(match (since.is_some(), is_left) {
        _ if wait.no_wait => Exit::Done,
        (true, _) => Exit::Failed,
        (false, true) => Exit::TimedOut,
        (false, false) => Exit::Done,
    })
}

/// The versions to tell about: those that the change left, or, when it changed nothing, those left before.
fn left(answer: &ChangeAnswer) -> Vec<VersionOf> {
    let leaving = answer.leaving.iter();
    let mut versions: Vec<_> = leaving
        .map(|left| VersionOf { service: left.service.clone(), version: left.version.clone() })
        .collect();
    for (service, standing) in &answer.services {
        let previous = standing.previous.iter().flat_map(|previous| previous.weights.keys());
        let gets_some = |version: &String| {
            standing.weights.contains_key(version) || standing.rules.iter().any(|rule| rule.to == *version)
        };
        for version in previous.filter(|version| !gets_some(version)) {
            let version = VersionOf { service: service.clone(), version: version.clone() };
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
    }
    versions
}
