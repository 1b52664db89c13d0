//! `retire`: the retirement is the proxy's; this begins it and follows it.

use std::time::Duration;

use anyhow::Context;
use http::Method;
use tokio::time::Instant;

use super::args;
use super::change::{conclude, with_options};
use super::client::{Call, Error};
use super::hook::interrupted;
use super::ramp::{PAUSE, left_by, missed};
use super::render;
use super::rollout::millis;
use super::session::{Exit, Format, Session};
use super::style::span;
use crate::admin::api::{self, ChangeAnswer, Leaving, RampEnded, Retired, text};

/// `switchback retire SERVICE`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Retire) -> anyhow::Result<Exit> {
    let args::Retire { service, quiet, lasts, force, change, timeout, no_wait } = args;
    let (quiet, force) = (quiet.map(millis), force.then_some(true));
    let body = api::Retire { quiet, lasts: lasts.map(millis), force, reason: None };
    let call = Call::new(Method::POST, &["v1", "services", service, "retire"]).json(&body);
    let mut call = with_options(call, change);
    let patience = timeout.unwrap_or(text::LONGEST);
    if session.format == Format::Json && !no_wait && !change.dry_run {
        // For machines the server waits: one call, one document.
        call = call.waits_until("finished", patience);
    }
    let what = || format!("cannot retire a version of `{service}`");
    let answer: ChangeAnswer = session.client.send(call).await.with_context(what)?;
    session.tell(&answer, render::quiet_change)?;
    if session.format == Format::Json {
        return Ok(Exit::Done);
    }
    let retirement = answer.services.get(service).and_then(|standing| standing.retirement.as_ref());
    if let Some(retirement) = retirement {
        session.say(render::retirement(retirement));
    }
    if answer.dry_run {
        session.say("nothing was changed: this was a dry run");
        return Ok(Exit::Done);
    }
    match retirement.map(|retirement| (retirement.begun, &retirement.version)) {
        Some((_, version)) if *no_wait => {
            session.say(goes_on(service));
            session.say(stop_neither(version));
            Ok(Exit::Done)
        }
        Some((begun, version)) => {
            session.say(goes_on(service));
            follow(session, service, (begun, version), *timeout).await
        }
        // There are no users to wait for, only what is in flight.
        None => {
            let alone = span(lasts.unwrap_or(api::Retire::LASTS).as_secs());
            session.say(format!("what is in flight there is left alone for {alone}"));
            conclude(session, &answer, &args::Wait { timeout: patience, no_wait: *no_wait }).await
        }
    }
}

/// Shows a retirement until it is over, and then what is left.
async fn follow(
    session: &mut Session<'_>,
    service: &str,
    (begun, version): (u64, &str),
    timeout: Option<Duration>,
) -> anyhow::Result<Exit> {
    let since = Instant::now();
    let over = tokio::select! {
        over = until_over(session, service, begun, timeout) => over?,
        () = interrupted() => Err("interrupted"),
    };
    let present = match over {
        Ok(present) => present,
        Err(why) => {
            session.say(format!("{why}; {}", goes_on(service)));
            session.say(stop_neither(version));
            return Ok(if why == "interrupted" { Exit::Failed } else { Exit::TimedOut });
        }
    };
    let retired = present.standing.retired.as_ref().filter(|retired| retired.begun == begun);
    let Some(retired) = retired else {
        session.say(format!("{service}: later changes ended the retirement of {version}"));
        session.say(render::carriers(&left_by(service, begun, &present)));
        return Ok(Exit::Failed);
    };
    let mut answer = left_by(service, retired.epoch, &present);
    let change = present.changes.iter().flatten().find(|change| change.epoch == retired.epoch);
    session.say(render::retired(service, retired, change));
    if let Some(exit) = failed(retired) {
        session.say(render::carriers(&answer));
        return Ok(exit);
    }
    // Also when nothing is left on it any more.
    if !answer.leaving.iter().any(|left| left.version == *version) {
        answer.leaving.push(Leaving { service: service.to_owned(), version: version.to_owned() });
    }
    let left = timeout.unwrap_or(text::LONGEST).saturating_sub(since.elapsed());
    conclude(session, &answer, &args::Wait { timeout: left, no_wait: false }).await
}

/// How the verb ends when it was not the retirement's own end.
fn failed(retired: &Retired) -> Option<Exit> {
    match retired.how {
        RampEnded::Finished => None,
        RampEnded::Reverted => Some(Exit::Reverted),
        RampEnded::Aborted | RampEnded::Superseded => Some(Exit::Failed),
    }
}

/// The service once the retirement is over; or why it is followed no more.
async fn until_over(
    session: &Session<'_>,
    service: &str,
    begun: u64,
    timeout: Option<Duration>,
) -> anyhow::Result<Result<Box<api::Service>, &'static str>> {
    let (since, mut answered) = (Instant::now(), Instant::now());
    loop {
        let looked: Result<api::Service, Error> = session.client.get(&["v1", "services", service]).await;
        match looked {
            Ok(present) => {
                answered = Instant::now();
                if present.standing.retirement.as_ref().is_none_or(|it| it.begun != begun) {
                    return Ok(Ok(Box::new(present)));
                }
            }
            Err(why) => {
                missed(why, answered, (format!("the retirement in `{service}` is over"), goes_on(service)))?
            }
        }
        if timeout.is_some_and(|timeout| since.elapsed() >= timeout) {
            return Ok(Err("timed out"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn goes_on(service: &str) -> String {
    format!(
        "it goes on by itself: `switchback status {service}` shows it, `switchback abort {service}` sends everybody back at once"
    )
}

fn stop_neither(version: &str) -> String {
    format!("{version} is retiring: who is on it may still come, do not stop it yet")
}
