//! `rollout`: one machine after the other. The proxy does it; this command begins it, follows it, and runs the hook.

use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use http::Method;

use super::args;
use super::client::{Call, Client};
use super::render;
use super::session::{Exit, Format, Session};
use crate::admin::api::{Proceed, Replace, Rollout, StartRollout};

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
        proceed(&session.client, service, endpoint).await?;
        session.say(format!("{endpoint} is dealt with: the rollout of {service} goes on"));
        return Ok(Exit::Done);
    }
    if args.stop || args.reverse {
        let mode = if args.stop { "stop" } else { "reverse" };
        end(&session.client, service, Some(mode)).await?;
    } else if !args.follow {
        let begun = begin(session, args).await?;
        if args.dry_run || args.no_wait {
            session.tell(&begun, render::rollout)?;
            if args.no_wait && session.format == Format::Text {
                session
                    .say(format!("it goes on by itself: `switchback rollout {service} --follow` shows it"));
            }
            return Ok(Exit::Done);
        }
    }
    follow(session, service, args.hook.as_deref()).await
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
    start(&session.client, &args.service, &body, args.dry_run).await
}

/// Begins a rollout, or tells what it would be.
pub(super) async fn start(
    client: &Client,
    service: &str,
    body: &StartRollout,
    dry_run: bool,
) -> anyhow::Result<Rollout> {
    let mut call = Call::new(Method::POST, &["v1", "services", service, "rollout"]).json(body);
    if dry_run {
        call = call.query("dry_run", "true");
    }
    client.send(call).await.with_context(|| format!("cannot begin a rollout of `{service}`"))
}

/// Shows what happens until the rollout is over.
pub(super) async fn follow(
    session: &mut Session<'_>,
    service: &str,
    hook: Option<&str>,
) -> anyhow::Result<Exit> {
    let mut seen: Option<Rollout> = None;
    loop {
        let now = look(&session.client, service).await.with_context(|| {
            format!("it is not followed any more: `switchback rollout {service} --status` tells where it is")
        })?;
        if session.format == Format::Text {
            for line in render::news(seen.as_ref(), &now, session.style) {
                session.say(line);
            }
        }
        if !matches!(&*now.state, "running" | "reversing") {
            conclude(session, &now)?;
            return Ok(exit(&now));
        }
        if let Some(hook) = hook.filter(|_| now.state == "running") {
            deal_with(session, &now, hook).await?;
        }
        seen = Some(now);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Runs the hook for each endpoint that waits for it.
async fn deal_with(session: &mut Session<'_>, rollout: &Rollout, hook: &str) -> anyhow::Result<()> {
    for (index, step) in rollout.steps.iter().enumerate().filter(|(_, step)| step.awaits_confirmation) {
        let out = step.out.clone().unwrap_or_default();
        let mut command = Command::new("sh");
        command.args(["-c", hook]).stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr()));
        command
            .env("SWITCHBACK_SERVICE", &rollout.service)
            .env("SWITCHBACK_FROM", &rollout.from)
            .env("SWITCHBACK_TO", &rollout.to)
            .env("SWITCHBACK_ENDPOINT", &out)
            .env("SWITCHBACK_REPLACEMENT", step.into.as_deref().unwrap_or(""))
            .env("SWITCHBACK_STEP", (index + 1).to_string())
            .env("SWITCHBACK_STEPS", rollout.steps.len().to_string());
        let ran = tokio::task::spawn_blocking(move || command.status()).await?;
        let went_well = ran.as_ref().is_ok_and(ExitStatus::success);
        if went_well {
            proceed(&session.client, &rollout.service, &out).await?;
            continue;
        }
        let why = ran.map_or_else(|error| error.to_string(), |status| status.to_string());
        if session.format == Format::Text {
            session.say(format!("the hook for {out} has failed ({why}): the rollout ends"));
        }
        end(&session.client, &rollout.service, None).await?;
        break;
    }
    Ok(())
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

fn exit(rollout: &Rollout) -> Exit {
    match &*rollout.state {
        "done" | "running" => Exit::Done,
        _ if rollout.timed_out => Exit::TimedOut,
        _ => Exit::Failed,
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

async fn end(client: &Client, service: &str, mode: Option<&str>) -> anyhow::Result<Rollout> {
    let mut call = Call::new(Method::DELETE, &["v1", "services", service, "rollout"]);
    if let Some(mode) = mode {
        call = call.query("mode", mode);
    }
    client.send(call).await.with_context(|| format!("cannot end the rollout of `{service}`"))
}

/// As the API reads it.
fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
