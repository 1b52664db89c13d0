//! `ramp`, `promote`, `abort`, `freeze`, `resume`: the ramp is the proxy's; these begin it, steer it and follow it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::args;
use super::change::{Moves, conclude, perform, perform_quietly, with_options};
use super::client::{Call, Error};
use super::hook::interrupted;
use super::render;
use super::rollout::millis;
use super::session::{Exit, Format, Session};
use super::style::Style;
use super::supervise::{self, Follows, value};
use crate::admin::api::{self, ChangeAnswer, RampEnded, Ramped, text};

/// Between two looks.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
/// For how long nobody may answer, while one process takes another's place.
const ABSENT: Duration = Duration::from_secs(30);
/// How long the version that was left may take, once the last step is reached.
const DRAIN: Duration = Duration::from_secs(30);

/// A ramp to be begun, and what is waited for.
pub(super) struct Asked<'a> {
    pub(super) service: &'a str,
    pub(super) to: &'a str,
    pub(super) plan: &'a args::Plan,
    pub(super) force: bool,
    pub(super) supervise: &'a args::Supervise,
    pub(super) change: &'a args::Change,
    pub(super) patience: Patience,
    pub(super) no_wait: bool,
}

/// For how long is waited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For its end; `None`: as long as it takes.
    pub(super) end: Option<Duration>,
    /// Once its last step is reached, for what that has left.
    pub(super) drain: Duration,
}

impl Patience {
    /// As `ramp` is told.
    fn of(timeout: Option<Duration>) -> Self {
        Self { end: timeout, drain: timeout.unwrap_or(DRAIN) }
    }
}

/// `switchback ramp SERVICE --to VERSION --steps 1,5,25,50,100 --every 2m`.
pub(super) async fn ramp(session: &mut Session<'_>, args: &args::Ramp) -> anyhow::Result<Exit> {
    let args::Ramp { service, to, plan, force, supervise, change, timeout, no_wait } = args;
    let (force, patience, no_wait) = (*force, Patience::of(*timeout), *no_wait);
    let what = format!("cannot ramp `{service}` to `{to}`");
    begin(session, &Asked { service, to, plan, force, supervise, change, patience, no_wait }, what).await
}

/// `switchback promote SERVICE`.
pub(super) async fn promote(session: &mut Session<'_>, args: &args::Promote) -> anyhow::Result<Exit> {
    let args::Promote { service, full, force, change, wait } = args;
    let body = api::Promote { full: *full, force: force.then_some(true), reason: None };
    let call = Call::new(Method::POST, &["v1", "services", service, "promote"]).json(&body);
    perform(session, call, change, wait, format!("cannot promote `{service}`"), Moves::Traffic).await
}

/// `switchback abort SERVICE`.
pub(super) async fn abort(session: &mut Session<'_>, args: &args::Revert) -> anyhow::Result<Exit> {
    let args::Revert { service, change, wait } = args;
    let call = Call::new(Method::POST, &["v1", "services", service, "abort"]);
    perform(session, call, change, wait, format!("cannot abort a ramp of `{service}`"), Moves::Traffic).await
}

/// `switchback freeze SERVICE`, `switchback resume SERVICE`.
pub(super) async fn steer(
    session: &mut Session<'_>,
    args: &args::Steer,
    verb: &'static str,
) -> anyhow::Result<Exit> {
    let args::Steer { service, change } = args;
    let call = Call::new(Method::POST, &["v1", "services", service, verb]);
    let last = |answer: &ChangeAnswer| {
        let standing = answer.services.get(service);
        let ramp = standing.and_then(|standing| standing.ramp.as_ref());
        let on =
            if verb == "freeze" { format!("   (on: switchback resume {service})") } else { String::new() };
        let stands = ramp.map(|ramp| format!("ramp to {}: {}{on}\n", ramp.to, render::ramp_stands(ramp)));
        format!("{}{}", stands.unwrap_or_default(), render::carriers(answer))
    };
    let what = format!("cannot {verb} a ramp of `{service}`");
    perform_quietly(session, call, change, what, last, render::quiet_change).await
}

/// Begins a ramp, tells it, and follows it to its end.
pub(super) async fn begin(
    session: &mut Session<'_>,
    asked: &Asked<'_>,
    what: String,
) -> anyhow::Result<Exit> {
    let Asked { service, to, plan, force, supervise, change, patience, no_wait } = *asked;
    let steps = plan.steps.iter().map(|step| Value::from(step.points())).collect::<Vec<_>>();
    let body = api::StartRamp {
        to: to.to_owned(),
        steps: Some(steps).filter(|steps| !steps.is_empty()),
        every: plan.every.map(millis),
        supervise: supervise.asked().map(value),
        force: force.then_some(true),
        reason: None,
    };
    let call = Call::new(Method::POST, &["v1", "services", service, "ramp"]).json(&body);
    let mut call = with_options(call, change);
    if session.format == Format::Json && !no_wait && !change.dry_run {
        call = call.waits_until("finished", patience.end.unwrap_or(text::LONGEST));
        call = call.query("drain_timeout", &millis(patience.drain)).waits(patience.drain);
    }
    let answer: ChangeAnswer = session.client.send(call).await.context(what)?;
    session.tell(&answer, render::ramp_begun)?;
    match session.format {
        Format::Json => return Ok(Exit::Done),
        Format::Text if answer.dry_run => {
            session.say("nothing was changed: this was a dry run");
            return Ok(Exit::Done);
        }
        Format::Text => {}
    }
    let standing = answer.services.get(service);
    let under_way = standing.and_then(|standing| standing.ramp.as_ref());
    // One that is over at once is followed to its end, where that is said.
    if let Some(way) = render::way_back(&answer).filter(|_| under_way.is_some() || no_wait) {
        session.say(way);
    }
    let ramped = standing.and_then(|standing| standing.ramped.as_ref());
    match (under_way, ramped) {
        (None, Some(ramped)) if no_wait => {
            // One step alone is over at once.
            session.say(render::ramp_ended(service, ramped, None));
            finish(session, service, answer, &args::Wait { timeout: patience.drain, no_wait }).await
        }
        _ if no_wait => Ok(left_to_itself(session, service, &answer)),
        (under_way, ramped) => {
            let begun = under_way.map(|ramp| ramp.begun).or(ramped.map(|ramped| ramped.begun));
            follow(session, service, begun.unwrap_or(answer.epoch), patience).await
        }
    }
}

/// Tells how a service stands where no ramp has to be begun: somebody has begun it, and it is followed no further; or its last step
/// is reached, and what comes of that is waited for.
pub(super) async fn leave(
    session: &mut Session<'_>,
    service: &str,
    present: &api::Service,
    args::Wait { timeout, no_wait }: args::Wait,
) -> anyhow::Result<Exit> {
    let standing = &present.standing;
    let answer = ChangeAnswer { changed: false, ..left_by(service, standing.epoch, present) };
    let is_all = no_wait || standing.ramp.is_some();
    if is_all || session.format == Format::Text {
        session.tell(&answer, render::change)?;
    }
    if is_all && session.format == Format::Json {
        return Ok(Exit::Done);
    }
    let Some(ramp) = &standing.ramp else {
        // What is compared began with the last step, and others may have changed the service since.
        let epoch = standing.supervision.as_ref().map_or(standing.epoch, |trial| trial.stage);
        let answer = ChangeAnswer { epoch, ..answer };
        return finish(session, service, answer, &args::Wait { timeout, no_wait }).await;
    };
    session.say(format!("ramp to {}: {}", ramp.to, render::ramp_stands(ramp)));
    Ok(left_to_itself(session, service, &answer))
}

fn left_to_itself(session: &mut Session<'_>, service: &str, answer: &ChangeAnswer) -> Exit {
    session.say(goes_on(service));
    session.say(render::carriers(answer));
    Exit::Done
}

/// Shows a ramp until it is over, and then what comes of it.
pub(super) async fn follow(
    session: &mut Session<'_>,
    service: &str,
    begun: u64,
    patience: Patience,
) -> anyhow::Result<Exit> {
    let over = tokio::select! {
        over = until_over(session, service, begun, patience.end) => over?,
        () = interrupted() => Over::Left("interrupted"),
    };
    let (present, ramped) = match over {
        Over::Ended(present, ramped) => (present, ramped),
        Over::Left(why) if session.format == Format::Json => anyhow::bail!("{why}; {}", goes_on(service)),
        Over::Left(why) => {
            session.say(format!("{why}; {}", goes_on(service)));
            return Ok(if why == "interrupted" { Exit::Failed } else { Exit::TimedOut });
        }
    };
    let answer = left_by(service, ramped.as_ref().map_or(begun, |ramped| ramped.epoch), &present);
    let (exit, said) = match &ramped {
        Some(ramped) => judged(service, ramped, &present),
        None => {
            let how = format!("`switchback history {service}` tells how it ended");
            (
                Exit::Failed,
                format!("{service}: the ramp is over, and no longer the last one that is kept: {how}"),
            )
        }
    };
    if exit == Exit::Done {
        if session.format == Format::Text {
            session.say(said);
            // An abort was, until now.
            render::way_back(&answer).into_iter().for_each(|way| session.say(way));
        }
        let wait = args::Wait { timeout: patience.drain, no_wait: false };
        return finish(session, service, answer, &wait).await;
    }
    if session.format == Format::Json {
        return Err(otherwise(exit, said, answer));
    }
    session.say(said);
    session.say(render::carriers(&answer));
    Ok(exit)
}

/// How a ramp has ended, and what became of that until somebody looked.
fn judged(service: &str, ramped: &Ramped, present: &api::Service) -> (Exit, String) {
    let mut changes = present.changes.iter().flatten();
    if ramped.how == RampEnded::Finished && is_elsewhere(&present.standing, ramped) {
        let has_moved = |change: &&api::Change| {
            let is_left = |was: &api::Was| weight(&was.weights, ramped) != ramped.reached;
            let is_lean = change.actor.kind == "supervisor" && change.kind == "weights";
            change.epoch > ramped.epoch
                && !is_lean
                && change.services.get(service).and_then(Option::as_ref).is_some_and(is_left)
        };
        // They come newest first: the first one that took it away.
        let by = changes.rfind(has_moved);
        let is_reverted = by.is_some_and(|change| change.actor.kind == "supervisor");
        let exit = if is_reverted { Exit::Reverted } else { Exit::Failed };
        return (exit, render::ramp_gone(service, ramped, by));
    }
    let exit = match ramped.how {
        RampEnded::Finished => Exit::Done,
        RampEnded::Reverted => Exit::Reverted,
        RampEnded::Aborted | RampEnded::Superseded => Exit::Failed,
    };
    let change = changes.find(|change| change.epoch == ramped.epoch);
    (exit, render::ramp_ended(service, ramped, change))
}

/// True when the last step does not stand any more, and no comparison goes on that began with it: that one has its own end.
fn is_elsewhere(standing: &api::Standing, ramped: &Ramped) -> bool {
    let trial = standing.supervision.as_ref();
    weight(&standing.weights, ramped) != ramped.reached
        && trial.is_none_or(|trial| trial.stage != ramped.epoch)
}

/// What the ramp's version has, in basis points.
fn weight(weights: &BTreeMap<String, u16>, ramped: &Ramped) -> u16 {
    weights.get(&ramped.to).copied().unwrap_or_default()
}

/// Waits for what comes of the last step. Machines are told how the service stands then, or what is wrong, in one document.
async fn finish(
    session: &mut Session<'_>,
    service: &str,
    answer: ChangeAnswer,
    wait: &args::Wait,
) -> anyhow::Result<Exit> {
    if session.format == Format::Text {
        return come_of(session, &answer, wait).await;
    }
    let mut said = Vec::new();
    let mut note = |line: &str| {
        said.push(line.to_owned());
        true
    };
    let (client, format, style) = (session.client.clone(), session.format, Style::PLAIN);
    let mut noting = Session { client, format, style, out: &mut note, is_heard: true };
    let exit = come_of(&mut noting, &answer, wait).await?;
    let present = session.client.get(&["v1", "services", service]).await;
    let present: api::Service = present.with_context(|| format!("cannot tell how `{service}` stands"))?;
    let answer = ChangeAnswer { changed: answer.changed, ..left_by(service, answer.epoch, &present) };
    if exit != Exit::Done {
        return Err(otherwise(exit, said.join("; "), answer));
    }
    session.tell(&ChangeAnswer { state: api::Reached::Finished, ..answer }, |_, _| String::new())?;
    Ok(exit)
}

/// What machines are told of a ramp that has not come to its end, or of whose end something else has come.
fn otherwise(exit: Exit, said: String, answer: ChangeAnswer) -> anyhow::Error {
    let (status, token) = match exit {
        Exit::TimedOut => (504, "timed_out"),
        Exit::Reverted => (409, "reverted"),
        Exit::Done | Exit::Failed | Exit::Usage => (409, "superseded"),
    };
    let problem = api::Problem { change: Some(answer), ..*api::Problem::new(status, token, said) };
    Error::Refused(Box::new(problem)).into()
}

async fn come_of(
    session: &mut Session<'_>,
    answer: &ChangeAnswer,
    wait: &args::Wait,
) -> anyhow::Result<Exit> {
    match supervise::follow(session, answer, Follows::Always, wait).await? {
        Some(exit) => Ok(exit),
        None => conclude(session, answer, wait).await,
    }
}

/// What the change at this epoch has left, as the service stands now.
pub(super) fn left_by(service: &str, epoch: u64, present: &api::Service) -> ChangeAnswer {
    let leaving = present.standing.leaving.iter();
    let left = |version: &String| api::Leaving { service: service.to_owned(), version: version.clone() };
    ChangeAnswer {
        epoch,
        changed: true,
        summary: String::new(),
        state: api::Reached::Fenced,
        dry_run: false,
        services: [(service.to_owned(), present.standing.clone())].into(),
        leaving: leaving.map(left).collect(),
        out: Vec::new(),
        notes: Vec::new(),
        moves: Vec::new(),
        trials: BTreeMap::new(),
    }
}

/// How a ramp came to be followed no more.
enum Over {
    /// It has ended; so the service stands.
    Ended(Box<api::Service>, Option<Ramped>),
    /// It goes on.
    Left(&'static str),
}

/// What it means for whoever follows something that he was not answered: for a while nothing, since another process may be about to; then that it
/// goes on unseen, or where its service is gone that it is over.
pub(super) fn missed(why: Error, answered: Instant, (over, goes_on): (String, String)) -> anyhow::Result<()> {
    if why.may_pass() && answered.elapsed() < ABSENT {
        return Ok(());
    }
    let is_gone = matches!(&why, Error::Refused(why) if why.token() == "unknown_service");
    Err(why).context(if is_gone { over } else { goes_on })
}

async fn until_over(
    session: &mut Session<'_>,
    service: &str,
    begun: u64,
    timeout: Option<Duration>,
) -> anyhow::Result<Over> {
    let since = Instant::now();
    let (mut seen, mut answered) = (None, Instant::now());
    loop {
        let looked: Result<api::Service, Error> = session.client.get(&["v1", "services", service]).await;
        match looked {
            Ok(present) => {
                answered = Instant::now();
                match present.standing.ramp.clone().filter(|ramp| ramp.begun == begun) {
                    None => {
                        let ramped = present.standing.ramped.clone().filter(|ramped| ramped.begun == begun);
                        return Ok(Over::Ended(Box::new(present), ramped));
                    }
                    Some(ramp) => {
                        let news = render::ramp_news(service, seen.as_ref(), &ramp);
                        if let Some(news) = news.filter(|_| session.format == Format::Text) {
                            session.say(news);
                        }
                        seen = Some(ramp);
                    }
                }
            }
            Err(why) => {
                missed(why, answered, (format!("the ramp of `{service}` is over"), goes_on(service)))?
            }
        }
        if timeout.is_some_and(|timeout| since.elapsed() >= timeout) {
            return Ok(Over::Left("timed out"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn goes_on(service: &str) -> String {
    format!(
        "the ramp goes on by itself: `switchback status {service}` shows it, `switchback abort {service}` takes it back"
    )
}
