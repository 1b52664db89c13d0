//! `deploy`: a new version in one command. It is added, waited for, given the traffic, and the old one is seen out; whatever goes
//! wrong before it is ready leaves everything as it was.

use std::time::Duration;

use anyhow::Context;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::args::{self, Change, Wait};
use super::change::perform_and_follow;
use super::client::{Call, Error};
use super::session::{Exit, Format, Session};
use super::supervise::{Follows, value};
use super::{ramp, rollout};
use crate::admin::api;
use crate::table::LONGEST_HOLD;

/// How long the new version may take, and the old one after a flip, where nobody says it.
const TIMEOUT: Duration = Duration::from_mins(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// `switchback deploy SERVICE --version V --endpoint ADDR`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Deploy) -> anyhow::Result<Exit> {
    let args::Deploy { service, version, .. } = args;
    let before: api::Service = session
        .client
        .get(&["v1", "services", service])
        .await
        .with_context(|| format!("cannot deploy `{version}` of `{service}`"))?;
    let known = before.versions.iter().find(|known| known.name == *version);
    check(args, known)?;
    if let Some(begun) = under_way(args, &before)? {
        return ramp::follow(session, service, begun, None).await;
    }
    // Traffic may be on several versions; the one that is left is the one that carries it.
    let carrier = before.standing.stable.clone();
    let is_put = known.is_none_or(|known| known.weight == 0);
    if is_put {
        put(session, args, known).await?;
        match wait_until_ready(session, args).await {
            Ok(None) => {}
            Ok(Some(why)) => return give_up(session, args, known, &carrier, &why).await,
            Err(why) => {
                take_back(session, args, known).await.context(why.to_string())?;
                return Err(why);
            }
        }
    }
    if args.rolling && carrier != *version {
        return match begin(session, args, &carrier).await {
            Ok(begun) => roll(session, args, &begun).await,
            Err(why) if is_put => Err(not_begun(session, args, known, why).await),
            Err(why) => Err(why),
        };
    }
    if args.plan.is_asked() && carrier != *version {
        return ramp(session, args).await;
    }
    flip(session, args).await
}

/// A label stands for one release.
fn check(args: &args::Deploy, known: Option<&api::Version>) -> anyhow::Result<()> {
    let Some(known) = known.filter(|known| known.weight > 0) else { return Ok(()) };
    let pool = |endpoint: &String| known.endpoints.iter().any(|known| known.address == *endpoint);
    let same = args.endpoints.len() == known.endpoints.len() && args.endpoints.iter().all(pool);
    anyhow::ensure!(
        same,
        "cannot deploy `{0}` of `{1}`: `{0}` carries traffic with other endpoints\nhint: give a new release a new label; \
         `switchback rollout {1}` replaces endpoints of a version",
        args.version,
        args.service
    );
    Ok(())
}

/// The ramp that the same command has begun, if it is under way.
fn under_way(args: &args::Deploy, before: &api::Service) -> anyhow::Result<Option<u64>> {
    let args::Deploy { service, version, plan, .. } = args;
    let Some(ramp) = &before.standing.ramp else { return Ok(None) };
    anyhow::ensure!(
        plan.is_asked() && ramp.to == *version,
        "cannot deploy `{version}` of `{service}`: a ramp to `{}` is under way\nhint: `switchback abort {service}` takes it back, \
         `switchback promote {service} --full` brings it to its end",
        ramp.to
    );
    Ok(Some(ramp.begun))
}

async fn put(
    session: &mut Session<'_>,
    args: &args::Deploy,
    before: Option<&api::Version>,
) -> anyhow::Result<()> {
    let body = api::PutVersion { endpoints: args.endpoints.clone(), protocol: Some(args.protocol.clone()) };
    let mut call =
        Call::new(Method::PUT, &["v1", "services", &args.service, "versions", &args.version]).json(&body);
    if let Some(reason) = &args.reason {
        call = call.query("reason", reason);
    }
    let what = || format!("cannot add `{}` to `{}`", args.version, args.service);
    let answer: api::ChangeAnswer = session.client.send(call).await.with_context(what)?;
    if session.format == Format::Text {
        let how = match (answer.changed, before) {
            (false, _) => "is there already",
            (true, None) => "is added",
            (true, Some(_)) => "is replaced",
        };
        session.say(format!("{}: {} {how} (epoch {})", args.service, args.version, answer.epoch));
    }
    Ok(())
}

/// Why it is not ready in time, if it is not.
async fn wait_until_ready(session: &mut Session<'_>, args: &args::Deploy) -> anyhow::Result<Option<String>> {
    let deadline = Instant::now() + args.timeout.unwrap_or(TIMEOUT);
    let path = ["v1", "services", &args.service, "versions", &args.version, "ready"];
    let mut is_told = false;
    loop {
        let ready: api::Ready = session.client.get(&path).await.context("cannot look at the new version")?;
        if ready.ready {
            return Ok(None);
        }
        let missing = ready.endpoints.iter().filter(|endpoint| !endpoint.ready);
        let missing = missing.map(|endpoint| {
            format!("{}: {}", endpoint.endpoint, endpoint.why.as_deref().unwrap_or("not ready"))
        });
        let missing = missing.collect::<Vec<_>>().join("; ");
        if Instant::now() >= deadline {
            return Ok(Some(missing));
        }
        if !is_told && session.format == Format::Text {
            session.say(format!("waiting until {} is ready: {missing}", args.version));
            is_told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The version is what it was: gone again, or with the pool that it had.
async fn take_back(
    session: &Session<'_>,
    args: &args::Deploy,
    before: Option<&api::Version>,
) -> anyhow::Result<()> {
    let args::Deploy { service, version, .. } = args;
    let call = match before {
        None => Call::new(Method::DELETE, &["v1", "services", service, "versions", version]),
        Some(before) => Call::new(Method::POST, &["v1", "changes"]).json(&as_before(service, before)),
    };
    let taken_back: Result<api::ChangeAnswer, _> = session.client.send(call).await;
    taken_back.map(drop).with_context(|| format!("cannot take back what was done to `{version}`"))
}

/// A version's pool with all that was said of its endpoints, as one change. Those that were discovered are there as before, and
/// would be put there for good.
fn as_before(service: &str, before: &api::Version) -> api::Batch {
    let edit = || api::Edit { service: service.to_owned(), ..api::Edit::default() };
    let at = |endpoint: &api::Endpoint| api::EndpointEdit {
        version: before.name.clone(),
        endpoint: endpoint.address.clone(),
        ..api::EndpointEdit::default()
    };
    let own = || before.endpoints.iter().filter(|endpoint| !endpoint.discovered);
    let pool = api::VersionEdit {
        version: before.name.clone(),
        endpoints: own().map(|endpoint| endpoint.address.clone()).collect(),
        protocol: Some(crate::table::Protocol::from(before.protocol).token().to_owned()),
    };
    let mut changes = vec![api::Edit { put_version: Some(pool), ..edit() }];
    for endpoint in own() {
        let said = api::EndpointEdit {
            weight: Some(endpoint.weight.into()),
            zone: endpoint.zone.clone(),
            ..at(endpoint)
        };
        changes.push(api::Edit { put_endpoint: Some(said), ..edit() });
        if endpoint.draining {
            changes.push(api::Edit { drain_endpoint: Some(at(endpoint)), ..edit() });
        }
    }
    api::Batch { changes, reason: Some(format!("{} did not become ready", before.name)), force: None }
}

fn as_it_was(before: Option<&api::Version>) -> &'static str {
    if before.is_none() { "it is removed again" } else { "it is what it was before" }
}

/// Nothing was moved, and the version is what it was.
async fn give_up(
    session: &mut Session<'_>,
    args: &args::Deploy,
    before: Option<&api::Version>,
    carrier: &str,
    why: &str,
) -> anyhow::Result<Exit> {
    let args::Deploy { service, version, timeout, .. } = args;
    take_back(session, args, before).await?;
    let (gone, seconds) = (as_it_was(before), timeout.unwrap_or(TIMEOUT).as_secs_f64());
    let detail = format!(
        "{service}: {version} was not ready after {seconds} s ({why}); nothing was moved, and {gone}"
    );
    match session.format {
        Format::Json => {
            let problem = api::Problem::new(504, "not_ready", detail);
            session.tell(&problem, |_, _| String::new())?;
        }
        Format::Text => {
            session.say(detail);
            session.say(format!("{carrier} carries the traffic as before: do not stop it"));
        }
    }
    Ok(Exit::TimedOut)
}

/// All at once, as `flip` does; what was so already is no change.
async fn flip(session: &mut Session<'_>, args: &args::Deploy) -> anyhow::Result<Exit> {
    let args::Deploy { service, version, exclusive, reason, timeout, no_wait, supervise, .. } = args;
    let exclusive = exclusive.as_deref().map(|what| match what {
        "writes" => Value::from("writes"),
        _ => Value::from(true),
    });
    let mut call = Call::new(Method::POST, &["v1", "services", service, "flip"]);
    if exclusive.is_some() {
        call = call.waits(LONGEST_HOLD);
    }
    let call = call.json(&api::Flip {
        to: version.clone(),
        exclusive,
        supervise: supervise.asked().map(value),
        ..api::Flip::default()
    });
    let change = Change { reason: reason.clone(), ..Change::default() };
    let wait = Wait { timeout: timeout.unwrap_or(TIMEOUT), no_wait: *no_wait };
    let what = format!("cannot flip `{service}` to `{version}`, which is ready; traffic goes where it went");
    perform_and_follow(session, call, &change, &wait, what, Follows::Always).await
}

/// Step by step, as `ramp` does.
async fn ramp(session: &mut Session<'_>, args: &args::Deploy) -> anyhow::Result<Exit> {
    let args::Deploy { service, version: to, plan, supervise, reason, no_wait, .. } = args;
    let change = Change { reason: reason.clone(), ..Change::default() };
    let what = format!("cannot ramp `{service}` to `{to}`, which is ready; traffic goes where it went");
    let (force, timeout, no_wait, change) = (false, None, *no_wait, &change);
    let asked = ramp::Asked { service, to, plan, force, supervise, change, timeout, no_wait };
    ramp::begin(session, &asked, what).await
}

async fn begin(session: &Session<'_>, args: &args::Deploy, carrier: &str) -> anyhow::Result<api::Rollout> {
    let timeout = args.timeout.map(rollout::millis);
    let body = api::StartRollout {
        from: Some(carrier.to_owned()),
        to: Some(args.version.clone()),
        batch: Some(args.batch.into()),
        // The new endpoints are there.
        surge: true,
        drain_timeout: timeout.clone(),
        ready_timeout: timeout,
        reason: args.reason.clone(),
        ..api::StartRollout::default()
    };
    rollout::start(&session.client, &args.service, &body, false).await
}

/// What a refusal says of this command; nothing was moved, and the version is what it was.
async fn not_begun(
    session: &Session<'_>,
    args: &args::Deploy,
    before: Option<&api::Version>,
    why: anyhow::Error,
) -> anyhow::Error {
    let mut problem = match why.downcast::<Error>() {
        Ok(Error::Refused(problem)) => problem,
        // It may have begun nevertheless.
        Ok(other) => return other.into(),
        Err(why) => return why,
    };
    if let Err(failed) = take_back(session, args, before).await {
        return failed.context(problem.detail);
    }
    let args::Deploy { service, version, .. } = args;
    problem.detail.push_str(&format!("; nothing was moved, and {}", as_it_was(before)));
    if matches!(problem.token(), "nobody_confirms" | "capacity") {
        problem.hint = Some("without `--rolling` the traffic goes over all at once".to_owned());
    }
    anyhow::Error::from(Error::Refused(problem)).context(format!("cannot deploy `{version}` of `{service}`"))
}

/// Endpoint by endpoint; a rollout takes back by itself what goes wrong.
async fn roll(session: &mut Session<'_>, args: &args::Deploy, begun: &api::Rollout) -> anyhow::Result<Exit> {
    if args.no_wait {
        return rollout::leave(session, begun);
    }
    let ended = rollout::follow(session, &args.service, None).await?;
    Ok(rollout::outcome(&ended))
}
