//! `rollout`: one machine after the other. The proxy does it; this command begins it, follows it, and runs the hook.

use std::time::Duration;

use anyhow::Context;
use http::Method;

use super::args;
use super::client::{Call, Client};
use super::hook::{Hook, interrupted};
use super::render;
use super::session::{Exit, Format, Session};
use crate::admin::api::{Proceed, Replace, Rollout, RolloutStep, StartRollout};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// `switchback rollout SERVICE …`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Rollout) -> anyhow::Result<Exit> {
    let service = &args.service;
    if args.status {
        let rollout = look(&session.client, service).await?;
        session.tell(&rollout, render::rollout)?;
        return Ok(exit(&rollout));
    }
    if let Some(endpoint) = &args.proceed {
        let rollout = proceed(&session.client, service, endpoint).await?;
        let said = |_: &_, _| format!("{endpoint} is dealt with: the rollout of {service} goes on");
        session.tell(&rollout, said)?;
        return Ok(Exit::Done);
    }
    if args.stop || args.reverse {
        let (mode, state) = if args.stop { ("stop", "stopped") } else { ("reverse", "reversed") };
        end(&session.client, service, &[("mode", mode)]).await?;
        let ended = follow(session, service, None).await?;
        return Ok(if has_ended_as(&ended, state) { Exit::Done } else { exit_early(&ended) });
    }
    if !args.follow {
        let begun = begin(session, args).await?;
        if args.dry_run {
            session.tell(&begun, render::rollout)?;
            return Ok(Exit::Done);
        }
        if args.no_wait {
            return leave(session, &begun);
        }
    }
    let ended = follow(session, service, args.hook.as_deref()).await?;
    Ok(exit(&ended))
}

async fn begin(session: &mut Session<'_>, args: &args::Rollout) -> anyhow::Result<Rollout> {
    let replace = args.replace.iter();
    let body = StartRollout {
        from: Some(args.from.clone()),
        to: args.to.clone(),
        replace: replace
            .map(|pair| Replace { out: Some(pair.old.clone()), into: Some(pair.new.clone()) })
            .collect(),
        batch: Some(args.batch.into()),
        surge: args.surge,
        min_capacity: args.min_capacity.clone(),
        drain_timeout: args.drain_timeout.map(millis),
        ready_timeout: args.ready_timeout.map(millis),
        settle: args.settle.map(millis),
        confirm: args.confirm || args.hook.is_some(),
        on_failure: Some(args.on_failure.clone()),
        reason: args.reason.clone(),
    };
    start(&session.client, &args.service, &body, None, args.dry_run).await
}

/// Begins a rollout, or tells what it would be; only if the service is at this epoch, where one is named.
pub(super) async fn start(
    client: &Client,
    service: &str,
    body: &StartRollout,
    if_epoch: Option<u64>,
    dry_run: bool,
) -> anyhow::Result<Rollout> {
    let mut call =
        Call::new(Method::POST, &["v1", "services", service, "rollout"]).json(body).if_epoch(if_epoch);
    if dry_run {
        call = call.query("dry_run", "true");
    }
    client.send(call).await.with_context(|| format!("cannot begin a rollout of `{service}`"))
}

/// Tells what has begun, and that it needs nobody.
pub(super) fn leave(session: &mut Session<'_>, begun: &Rollout) -> anyhow::Result<Exit> {
    session.tell(begun, render::rollout)?;
    if session.format == Format::Text {
        let service = &begun.service;
        session.say(format!("it goes on by itself: `switchback rollout {service} --follow` shows it"));
    }
    Ok(Exit::Done)
}

/// Shows what happens until the rollout is over, and runs the hook while it is not; gives how it ended.
pub(super) async fn follow(
    session: &mut Session<'_>,
    service: &str,
    hook: Option<&str>,
) -> anyhow::Result<Rollout> {
    let mut seen: Option<Rollout> = None;
    let mut hook = hook.map(Hook::new);
    let mut interrupted = std::pin::pin!(interrupted());
    loop {
        let now = look(&session.client, service).await.with_context(|| {
            format!("it is not followed any more: `switchback rollout {service} --status` tells where it is")
        })?;
        if session.format == Format::Text {
            for line in render::news(seen.as_ref(), &now, session.style) {
                session.say(line);
            }
        }
        match &mut hook {
            Some(hook) if now.state == "running" => deal_with(session, &now, hook).await?,
            Some(hook) => {
                // Its endpoint may be on its way back into service.
                if let Some(endpoint) = hook.end().await.filter(|_| session.format == Format::Text) {
                    session.say(format!("the hook for {endpoint} was ended: the rollout goes on without it"));
                }
            }
            None => {}
        }
        if !matches!(&*now.state, "running" | "reversing") {
            conclude(session, &now)?;
            return Ok(now);
        }
        seen = Some(now);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = &mut interrupted, if hook.is_some() => {
                if let Some(hook) = &mut hook {
                    hook.end().await;
                }
                anyhow::bail!("interrupted, with its hook; `switchback rollout {service} --follow --hook …` takes it up again");
            }
        }
    }
}

/// Runs the hook for whoever waits for it, and says what has come of it.
async fn deal_with(session: &mut Session<'_>, rollout: &Rollout, hook: &mut Hook<'_>) -> anyhow::Result<()> {
    let (client, service) = (session.client.clone(), &rollout.service);
    let told = match hook.work(rollout) {
        None => return Ok(()),
        Some((endpoint, Ok(()))) => proceed(&client, service, &endpoint).await,
        Some((endpoint, Err(why))) => {
            let why = format!("the hook for {endpoint} has failed ({why})");
            if session.format == Format::Text {
                session.say(format!("{why}: the rollout ends"));
            }
            end(&client, service, &[("reason", &why)]).await
        }
    };
    match told {
        // It has come to its end meanwhile: the next look says how.
        Err(_) if look(&client, service).await.is_ok_and(|now| now.state != "running") => Ok(()),
        told => told.map(drop),
    }
}

/// The last words: what is safe to stop.
fn conclude(session: &mut Session<'_>, rollout: &Rollout) -> anyhow::Result<()> {
    match session.format {
        Format::Json => session.tell(rollout, |_, _| String::new()),
        Format::Text => {
            session.say(render::outcome(rollout, session.style));
            Ok(())
        }
    }
}

/// Whoever stops what was replaced goes by it: an old endpoint that others use, or that may get traffic back, is not done with.
fn exit(rollout: &Rollout) -> Exit {
    match outcome(rollout) {
        Exit::Done if rollout.state == "done" && !render::is_safe(rollout) => Exit::Failed,
        exit => exit,
    }
}

/// Whether one that somebody has ended came to that end, with nothing half done and every old endpoint back that was to serve again.
fn has_ended_as(rollout: &Rollout, state: &str) -> bool {
    let is_settled = |step: &RolloutStep| matches!(&*step.state, "pending" | "restored" | "done");
    rollout.state == state && rollout.steps.iter().all(is_settled)
}

/// The same of one that was to end: what it had been begun for is not what was asked.
fn exit_early(rollout: &Rollout) -> Exit {
    if rollout.timed_out { Exit::TimedOut } else { Exit::Failed }
}

/// Whether what was asked was done.
pub(super) fn outcome(rollout: &Rollout) -> Exit {
    match &*rollout.state {
        "done" | "running" => Exit::Done,
        _ => exit_early(rollout),
    }
}

async fn look(client: &Client, service: &str) -> anyhow::Result<Rollout> {
    let found = client.get(&["v1", "services", service, "rollout"]).await;
    found.with_context(|| format!("cannot look at the rollout of `{service}`"))
}

async fn proceed(client: &Client, service: &str, endpoint: &str) -> anyhow::Result<Rollout> {
    let call = Call::new(Method::POST, &["v1", "services", service, "rollout", "proceed"]);
    let told = client.send(call.json(&Proceed { endpoint: endpoint.to_owned() })).await;
    told.with_context(|| format!("cannot go on with the rollout of `{service}`"))
}

async fn end(client: &Client, service: &str, how: &[(&str, &str)]) -> anyhow::Result<Rollout> {
    let call = Call::new(Method::DELETE, &["v1", "services", service, "rollout"]);
    let call = how.iter().fold(call, |call, (name, value)| call.query(name, value));
    client.send(call).await.with_context(|| format!("cannot end the rollout of `{service}`"))
}

/// As the API reads it.
pub(super) fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
