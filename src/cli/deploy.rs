//! `deploy`: a new version in one command. It is added, waited for, given the traffic, and the old one is seen out; whatever goes
//! wrong before it is ready leaves everything as it was.
//!
//! Others may do the same at the same time, with the same label: each step is asked for on the understanding of the last look, and
//! what is taken back is only what this command has put there and nobody else has touched or given traffic since.

mod undo;

use std::time::Duration;

use anyhow::Context;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::args::{self, Change, Wait};
use super::change::perform_and_follow;
use super::client::{Call, Error};
use super::session::{Exit, Format, Session};
use super::supervise::value;
use super::{ramp, render, rollout};
use crate::admin::api;
use crate::table::{EndpointAddr, LONGEST_HOLD};

/// How long the new version may take, and the old one after a flip, where nobody says it.
const TIMEOUT: Duration = Duration::from_mins(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How often somebody else may change the service between our look at it and our change.
const CONFLICTS: usize = 20;

/// `switchback deploy SERVICE --version V --endpoint ADDR`.
pub(super) async fn run(session: &mut Session<'_>, args: &args::Deploy) -> anyhow::Result<Exit> {
    let deadline = Instant::now() + args.timeout.unwrap_or(TIMEOUT);
    let mut deployment = Deployment { args, deadline, put: Put::NotYet, is_told: false };
    let mut conflicts = 0;
    loop {
        match deployment.advance(session).await {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) => tokio::time::sleep(PAUSE).await,
            Err(why) if is_conflict(&why) && conflicts < CONFLICTS => conflicts += 1,
            Err(why) => return Err(why),
        }
    }
}

/// The ramp that the same command has begun, if it is under way.
///
/// # Errors
/// Somebody else moves the traffic.
fn under_way(args: &args::Deploy, now: &api::Service) -> anyhow::Result<Option<u64>> {
    let args::Deploy { service, version, plan, .. } = args;
    if let Some(retirement) = &now.standing.retirement {
        anyhow::bail!(
            "cannot deploy `{version}` of `{service}`: `{}` is retiring\nhint: `switchback abort {service}` sends everybody back at once",
            retirement.version
        );
    }
    let Some(ramp) = &now.standing.ramp else { return Ok(None) };
    anyhow::ensure!(
        plan.is_asked() && ramp.to == *version,
        "cannot deploy `{version}` of `{service}`: a ramp to `{}` is under way\nhint: `switchback abort {service}` takes it back, \
         `switchback promote {service} --full` brings it to its end",
        ramp.to
    );
    let before = now.standing.previous.as_ref().and_then(|before| before.weights.get(version));
    anyhow::ensure!(
        ramp.goes_by(&plan.steps, plan.every, before.copied().unwrap_or_default()),
        "cannot deploy `{version}` of `{service}`: its ramp is under way by another plan: {}\nhint: with that plan the same command \
         follows it; `switchback promote {service}` takes its next step now, `switchback abort {service}` takes it back",
        render::ramp_plan(ramp)
    );
    Ok(Some(ramp.begun))
}

/// Somebody else has changed the service since it was looked at: nothing was done.
fn is_conflict(why: &anyhow::Error) -> bool {
    is_refused(why, "conflict")
}

fn is_refused(why: &anyhow::Error, token: &str) -> bool {
    matches!(why.downcast_ref(), Some(Error::Refused(problem)) if problem.token() == token)
}

/// What was done about the version.
enum Put {
    /// Nothing yet.
    NotYet,
    /// Nothing: it was there as it should be.
    Found,
    /// It was put, in place of this one if there was any.
    Ours(Option<api::Version>),
}

/// A deployment, as far as it has come.
struct Deployment<'a> {
    args: &'a args::Deploy,
    /// Until when the version has to be ready.
    deadline: Instant,
    put: Put,
    /// True when it was said what is waited for.
    is_told: bool,
}

/// Where the service stood when the version was found ready.
struct Found {
    epoch: u64,
    /// Whom the version takes traffic from. It may be on several: then it is the one that carries it, or, beside the version itself, has
    /// most of it.
    left: Option<String>,
}

/// What the version is ready for.
enum Readiness {
    /// For traffic.
    Ready(Found),
    /// Not yet.
    NotYet,
    /// It has its traffic by the ramp that began at this epoch, as the same command wants it; so the service stands.
    Ramping(u64, Box<api::Service>),
    /// For nothing, and its time is over; why.
    Late(String),
}

impl Deployment<'_> {
    /// One look, and what follows from it; `None` while the version is waited for.
    async fn advance(&mut self, session: &mut Session<'_>) -> anyhow::Result<Option<Exit>> {
        let args = self.args;
        let now = match self.prepare(session).await {
            Ok(Readiness::Ready(now)) => now,
            Ok(Readiness::NotYet) => return Ok(None),
            Ok(Readiness::Ramping(_, now)) if args.no_wait => {
                return ramp::leave(session, &args.service, &now, wait(args)).await.map(Some);
            }
            Ok(Readiness::Ramping(begun, _)) => {
                return ramp::follow(session, &args.service, begun, patience(args)).await.map(Some);
            }
            Ok(Readiness::Late(why)) => return self.give_up(session, &why).await.map(Some),
            Err(why) if is_conflict(&why) => return Err(why),
            Err(why) => {
                let reason = format!("the deployment of {} has failed", args.version);
                let fate = self.take_back(session, &reason).await.context(why.to_string())?;
                if session.format == Format::Text && matches!(self.put, Put::Ours(_)) {
                    session.say(fate);
                }
                return Err(why);
            }
        };
        let moved = match now.left.filter(|_| args.rolling || args.plan.is_asked()) {
            None => flip(session, args, now.epoch).await,
            Some(_) if args.plan.is_asked() => ramp(session, args, now.epoch).await,
            Some(left) => match begin(session, args, left, now.epoch).await {
                Ok(begun) => roll(session, args, &begun).await,
                Err(why) if is_conflict(&why) => Err(why),
                Err(why) => return Err(self.not_begun(session, why).await),
            },
        };
        match moved {
            Err(why) if is_refused(&why, "rollout_underway") => Err(self.not_begun(session, why).await),
            moved => moved.map(Some),
        }
    }

    /// Has the version there, and looks whether it is ready; one that has traffic was, and one that a rule leads to is left as it is.
    /// Nobody else moves the traffic at the epoch that is looked at, and so at the change that is asked for on that understanding.
    async fn prepare(&mut self, session: &mut Session<'_>) -> anyhow::Result<Readiness> {
        let (now, known) = self.look(session).await?;
        self.check(known.as_ref())?;
        if let Some(begun) = under_way(self.args, &now)? {
            return Ok(Readiness::Ramping(begun, Box::new(now)));
        }
        let left = left(&self.args.version, &now.standing);
        if known.as_ref().is_some_and(|known| known.weight > 0) {
            return Ok(Readiness::Ready(Found { epoch: now.standing.epoch, left }));
        }
        let is_targeted = known.as_ref().is_some_and(|known| known.targeted);
        let epoch = match (&self.put, self.is_as_put(known.as_ref())) {
            (Put::Found | Put::Ours(_), true) => now.standing.epoch,
            (Put::NotYet | Put::Found, _) if is_targeted => {
                self.put = Put::Found;
                now.standing.epoch
            }
            // Whoever had put it there has taken it back.
            (Put::NotYet, _) | (Put::Found, false) => self.put(session, known, now.standing.epoch).await?,
            (Put::Ours(_), false) => {
                let args::Deploy { service, version, .. } = self.args;
                anyhow::bail!(
                    "somebody else has changed `{version}` of `{service}` meanwhile: it is left as it is"
                )
            }
        };
        let Some(missing) = self.missing(session).await? else {
            return Ok(Readiness::Ready(Found { epoch, left }));
        };
        if Instant::now() >= self.deadline {
            return Ok(Readiness::Late(missing));
        }
        if !self.is_told && session.format == Format::Text {
            session.say(format!("waiting until {} is ready: {missing}", self.args.version));
            self.is_told = true;
        }
        Ok(Readiness::NotYet)
    }

    /// The service as it stands, and the version, if it is there.
    async fn look(&self, session: &Session<'_>) -> anyhow::Result<(api::Service, Option<api::Version>)> {
        let args::Deploy { service, version, .. } = self.args;
        let found = session.client.get(&["v1", "services", service]).await;
        let now: api::Service = found.with_context(|| format!("cannot deploy `{version}` of `{service}`"))?;
        let known = now.versions.iter().find(|known| known.name == *version).cloned();
        Ok((now, known))
    }

    /// A label stands for one release.
    fn check(&self, known: Option<&api::Version>) -> anyhow::Result<()> {
        let other = known.filter(|known| (known.weight > 0 || known.targeted) && !self.has_pool(known));
        anyhow::ensure!(
            other.is_none(),
            "cannot deploy `{0}` of `{1}`: `{0}` carries traffic with other endpoints\nhint: give a new release a new label; \
             `switchback rollout {1}` replaces endpoints of a version",
            self.args.version,
            self.args.service
        );
        Ok(())
    }

    /// True when it has the endpoints that are wanted, and no others but what is discovered.
    fn has_pool(&self, known: &api::Version) -> bool {
        let own = known.endpoints.iter().filter(|endpoint| !endpoint.discovered);
        let mut own: Vec<Option<EndpointAddr>> = own.map(|endpoint| endpoint.address.parse().ok()).collect();
        let mut wanted: Vec<_> = self.args.endpoints.iter().map(|endpoint| endpoint.parse().ok()).collect();
        own.sort();
        wanted.sort();
        own == wanted
    }

    /// True of the version as this command puts it.
    fn is_as_put(&self, known: Option<&api::Version>) -> bool {
        let speaks = |known: &api::Version| crate::table::Protocol::from(known.protocol).token();
        known.is_some_and(|known| self.has_pool(known) && speaks(known) == self.args.protocol)
    }

    /// Puts the version; the service's epoch then.
    async fn put(
        &mut self,
        session: &mut Session<'_>,
        before: Option<api::Version>,
        epoch: u64,
    ) -> anyhow::Result<u64> {
        let args::Deploy { service, version, endpoints, protocol, .. } = self.args;
        let body = api::PutVersion { endpoints: endpoints.clone(), protocol: Some(protocol.clone()) };
        let call = Call::new(Method::PUT, &["v1", "services", service, "versions", version]).json(&body);
        let mut call = call.if_epoch(Some(epoch));
        if let Some(reason) = &self.args.reason {
            call = call.query("reason", reason);
        }
        let what = || format!("cannot add `{version}` to `{service}`");
        let answer: api::ChangeAnswer = session.client.send(call).await.with_context(what)?;
        let how = match (answer.changed, &before) {
            (false, _) => "is there already",
            (true, None) => "is added",
            (true, Some(_)) => "is replaced",
        };
        if session.format == Format::Text {
            session.say(format!("{service}: {version} {how} (epoch {})", answer.epoch));
        }
        self.put = if answer.changed { Put::Ours(before) } else { Put::Found };
        Ok(answer.services.get(service).map_or(answer.epoch, |standing| standing.epoch))
    }

    /// Why it is not ready, if it is not.
    async fn missing(&self, session: &Session<'_>) -> anyhow::Result<Option<String>> {
        let args::Deploy { service, version, .. } = self.args;
        let ready = session.client.get(&["v1", "services", service, "versions", version, "ready"]).await;
        let ready: api::Ready = match ready {
            Err(Error::Refused(problem)) if problem.token() == "unknown_version" => {
                return Ok(Some("it is not there any more".to_owned()));
            }
            ready => ready.context("cannot look at the new version")?,
        };
        let missing = ready.endpoints.iter().filter(|endpoint| !endpoint.ready);
        let missing = missing.map(|endpoint| {
            format!("{}: {}", endpoint.endpoint, endpoint.why.as_deref().unwrap_or("not ready"))
        });
        Ok((!ready.ready).then(|| missing.collect::<Vec<_>>().join("; ")))
    }
}

/// Whom `version` takes traffic from, if it has not all of it.
fn left(version: &str, standing: &api::Standing) -> Option<String> {
    let others = standing.weights.iter().filter(|(name, _)| **name != version);
    let left = others.max_by_key(|(name, weight)| (**name == standing.stable, **weight));
    left.map(|(name, _)| name.clone())
}

/// All at once, as `flip` does; what was so already is no change.
async fn flip(session: &mut Session<'_>, args: &args::Deploy, epoch: u64) -> anyhow::Result<Exit> {
    let args::Deploy { service, version, exclusive, reason, supervise, .. } = args;
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
        interrupt: Some(false),
        ..api::Flip::default()
    });
    let change = Change { reason: reason.clone(), if_epoch: Some(epoch), ..Change::default() };
    let what = format!("cannot flip `{service}` to `{version}`; traffic goes where it went");
    perform_and_follow(session, call, &change, &wait(args), what).await
}

/// Step by step, as `ramp` does; what was so already is no change.
async fn ramp(session: &mut Session<'_>, args: &args::Deploy, epoch: u64) -> anyhow::Result<Exit> {
    let args::Deploy { service, version: to, plan, supervise, reason, no_wait, .. } = args;
    let change = Change { reason: reason.clone(), if_epoch: Some(epoch), ..Change::default() };
    let what = format!("cannot ramp `{service}` to `{to}`; traffic goes where it went");
    let (force, patience, no_wait, change) = (false, patience(args), *no_wait, &change);
    let asked = ramp::Asked { service, to, plan, force, supervise, change, patience, no_wait };
    match ramp::begin(session, &asked, what).await {
        Err(why) if is_refused(&why, "nothing_to_ramp") => {
            let present = session.client.get(&["v1", "services", service]).await.context(why)?;
            ramp::leave(session, service, &present, wait(args)).await
        }
        begun => begun,
    }
}

/// How long the old version may take, once all is with the new one.
fn wait(args: &args::Deploy) -> Wait {
    Wait { timeout: args.timeout.unwrap_or(TIMEOUT), no_wait: args.no_wait }
}

/// A ramp takes as long as its steps do.
fn patience(args: &args::Deploy) -> ramp::Patience {
    ramp::Patience { end: None, drain: args.timeout.unwrap_or(TIMEOUT) }
}

async fn begin(
    session: &Session<'_>,
    args: &args::Deploy,
    left: String,
    epoch: u64,
) -> anyhow::Result<api::Rollout> {
    let timeout = args.timeout.map(rollout::millis);
    let body = api::StartRollout {
        from: Some(left),
        to: Some(args.version.clone()),
        batch: Some(args.batch.into()),
        // The new endpoints are there.
        surge: true,
        drain_timeout: timeout.clone(),
        ready_timeout: timeout,
        reason: args.reason.clone(),
        ..api::StartRollout::default()
    };
    rollout::start(&session.client, &args.service, &body, Some(epoch), false).await
}

/// Endpoint by endpoint; a rollout takes back by itself what goes wrong.
async fn roll(session: &mut Session<'_>, args: &args::Deploy, begun: &api::Rollout) -> anyhow::Result<Exit> {
    if args.no_wait {
        return rollout::leave(session, begun);
    }
    let ended = rollout::follow(session, &args.service, None).await?;
    Ok(rollout::outcome(&ended))
}
