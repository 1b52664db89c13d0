//! `wait=drained`: answers when nothing is left on the versions and endpoints that a change has left; `wait=finished`: when supervision
//! is over too; `wait=healthy`: when what it brought is found well.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::api::{ChangeAnswer, InFlight, Left, Problem, Reached, Standing, TrialEnd, TrialEnded};
use super::call::Call;
use super::refusal::{self, Blame};
use super::until::Until;
use super::{App, drain, health, ramp, retire};
use crate::control::{Asked, Failed, Handle, Waited};
use crate::release::{Command, State};
use crate::table::{EndpointAddr, Epoch, Service, ServiceName, VersionName, VersionRef};

/// How often an endpoint is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Waits for it; the change has `named` these endpoints, this service's ramp, and the service in which it retires a version.
pub(super) async fn wait(
    call: &Call,
    answer: &mut ChangeAnswer,
    services: &[ServiceName],
    (named, ramp, retires): (Vec<Named>, Option<ServiceName>, Option<ServiceName>),
    until: Until,
) -> Result<(), Box<Problem>> {
    let (endpoints, since) = (&endpoints(named, answer), Instant::now());
    let left = |patience: Duration| patience.saturating_sub(since.elapsed());
    if let (Until::Drained(patience) | Until::Finished(patience, _), Some(service)) = (&until, &retires) {
        // Until then it is not left: who is on it may still come.
        retire::until_over(call, answer, service, *patience).await?;
    }
    match (until, services) {
        (Until::Drained(patience), _) => until_drained(call, answer, endpoints, left(patience)).await,
        (Until::Finished(patience, drain), _) => {
            let over = match &ramp {
                Some(service) => ramp::until_over(call, answer, service, left(patience)).await?,
                None => None,
            };
            let stage = over.as_ref().map_or(Epoch(answer.epoch), |over| over.epoch);
            until_finished(call, answer, (stage, ramp.as_ref()), left(patience)).await?;
            until_drained(call, answer, endpoints, drain.unwrap_or_else(|| left(patience))).await?;
            if let Some((service, over)) = ramp.as_ref().zip(over) {
                ramp::check_stands(call, answer, service, &over)?;
            }
            answer.state = Reached::Finished;
            Ok(())
        }
        (Until::Healthy(version, what, patience), [service]) => {
            let waited = health::wait(&call.app, service, &version, &what, patience).await;
            waited.map_err(|problem| but(answer, problem))
        }
        (Until::Fenced | Until::Healthy(..), _) => Ok(()),
    }
}

/// The change was made, and what comes of it is not seen here.
pub(super) fn broken_off(app: &App, answer: &ChangeAnswer, failed: Failed) -> Box<Problem> {
    but(answer, refusal::failed(app, failed, &Blame::Path))
}

fn but(answer: &ChangeAnswer, mut problem: Box<Problem>) -> Box<Problem> {
    problem.detail = format!("the change is made (epoch {}), but {}", answer.epoch, problem.detail);
    problem.change = Some(answer.clone());
    problem
}

/// An endpoint that is to get nothing new, by the names of a command.
pub(super) type Named = (ServiceName, VersionRef, EndpointAddr);

/// The endpoints that the change drains or removes by their names: they are waited for also where that changes nothing any more.
pub(super) fn named(asked: &Asked) -> Vec<Named> {
    fn of(command: &Command) -> Vec<Named> {
        match command {
            Command::Batch(commands) => commands.iter().flat_map(of).collect(),
            Command::DrainEndpoint { service, version, endpoint }
            | Command::RemoveEndpoint { service, version, endpoint } => {
                vec![(service.clone(), version.clone(), endpoint.clone())]
            }
            _ => Vec::new(),
        }
    }
    match asked {
        Asked::Command(command) => of(command),
        Asked::UndoTo(_) => Vec::new(),
    }
}

/// An endpoint that is to get nothing new.
#[derive(Debug, PartialEq)]
struct Endpoint {
    service: ServiceName,
    version: VersionName,
    address: EndpointAddr,
}

impl Endpoint {
    /// True while requests may be sent there.
    fn serves(&self, state: &State) -> bool {
        let service = state.table.service(&self.service);
        let gets_some = |service: &&Arc<Service>| {
            service.split.leads_to(&self.version) || service.mirrors_to(&self.version)
        };
        let version = service.filter(gets_some).and_then(|service| service.version(&self.version));
        version.is_some_and(|version| version.serving().any(|address| *address == self.address))
    }

    /// Of what is so since then nothing becomes otherwise before the next.
    fn epoch(&self, state: &State) -> Epoch {
        state.table.service(&self.service).map_or(state.table.epoch(), |service| service.epoch)
    }
}

/// Those, and all that the change took out. What an alias meant is as the answer tells: by now it may be another version.
fn endpoints(named: Vec<Named>, answer: &ChangeAnswer) -> Vec<Endpoint> {
    // Names that we wrote ourselves.
    let named = named.into_iter().filter_map(|(service, version, address)| {
        let standing = || answer.services.get(service.as_str());
        let version = match version {
            VersionRef::Name(version) => version,
            VersionRef::Stable => standing()?.stable.parse().ok()?,
            VersionRef::Candidate => standing()?.candidate.as_ref()?.parse().ok()?,
        };
        Some(Endpoint { service, version, address })
    });
    let out = answer.out.iter().filter_map(|out| {
        let (service, version) = (out.service.parse().ok()?, out.version.parse().ok()?);
        Some(Endpoint { service, version, address: out.endpoint.parse().ok()? })
    });
    let mut all = Vec::new();
    for endpoint in named.chain(out) {
        if !all.contains(&endpoint) {
            all.push(endpoint);
        }
    }
    all
}

/// Waits until the comparisons are over that the change at this epoch began, which may have been the last step of a ramp.
///
/// # Errors
/// One has ended with a revert, or because somebody moved the traffic elsewhere, or has not ended in time.
async fn until_finished(
    call: &Call,
    answer: &mut ChangeAnswer,
    (stage, ramp): (Epoch, Option<&ServiceName>),
    patience: Duration,
) -> Result<(), Box<Problem>> {
    let control = &call.app.control;
    let begun = answer.services.iter().filter_map(|(service, standing)| {
        let trial = standing.supervision.as_ref().filter(|trial| trial.stage == stage.0)?;
        // What only the next change ends does not end a ramp.
        let is_waited_for = ramp.is_none() || trial.until.is_some();
        // A name that we wrote ourselves.
        Some((service.parse().ok().filter(|_| is_waited_for)?, stage))
    });
    let mut begun: Vec<(ServiceName, Epoch)> = begun.collect();
    if let Some(service) = ramp
        && control.had_trial(service, stage).await
    {
        // Before anybody has looked.
        begun = vec![(service.clone(), stage)];
    }
    let waiting = async {
        for (service, stage) in &begun {
            let ended = control.trial_ended(service, *stage).await?;
            answer.trials.insert(service.to_string(), TrialEnd::from(&ended));
        }
        Ok(())
    };
    let waited = call.app.within(patience, waiting).await;
    let mut ended = answer.trials.iter();
    if let Some((service, end)) = ended.clone().find(|(_, end)| end.how == TrialEnded::Reverted) {
        let detail = format!(
            "supervision has taken the traffic of `{service}` back (epoch {}): {}",
            end.epoch, end.said
        );
        return Err(moved(answer, "reverted", detail));
    }
    let state = control.state();
    let is_elsewhere = |(service, end): &(&String, &TrialEnd)| {
        end.how == TrialEnded::Superseded && !stands_as_told(&state, answer, service)
    };
    if let Some((service, end)) = ended.find(is_elsewhere) {
        let detail = format!(
            "the change was made (epoch {}), but the traffic of `{service}` is elsewhere by now: {}",
            answer.epoch, end.said
        );
        return Err(moved(answer, "superseded", detail));
    }
    match waited {
        Ok(waited) => waited.map_err(|failed| broken_off(&call.app, answer, failed)),
        Err(_) => {
            let detail =
                format!("the change is made (epoch {}), and is still being supervised", answer.epoch);
            let mut problem = Problem::new(504, "timed_out", detail)
                .hint("`GET /v1/services/{service}/verdict` tells how it stands; stop nothing until then");
            problem.change = Some(answer.clone());
            Err(problem)
        }
    }
}

/// True while a service has the weights that the answer tells.
fn stands_as_told(state: &State, answer: &ChangeAnswer, service: &str) -> bool {
    let present = service.parse().ok().and_then(|service| Standing::of(state, &service));
    present.map(|present| present.weights) == answer.services.get(service).map(|told| told.weights.clone())
}

/// Traffic is not where the change has moved it.
pub(super) fn moved(answer: &ChangeAnswer, token: &str, detail: String) -> Box<Problem> {
    let mut problem = Problem::new(409, token, detail)
        .hint("`switchback status` shows where the traffic is; `switchback history` what moved it");
    problem.change = Some(answer.clone());
    problem
}

/// Waits until nothing is left on these endpoints, and on the versions that the answer's services are leaving.
async fn until_drained(
    call: &Call,
    answer: &mut ChangeAnswer,
    endpoints: &[Endpoint],
    patience: Duration,
) -> Result<(), Box<Problem>> {
    let control = &call.app.control;
    let leaving: Vec<_> = leaving(control, answer).into_iter().collect();
    let state = match call.app.within(patience, until_empty(control, &leaving, endpoints)).await {
        Err(_) => {
            let late = timed_out(control, answer, &leaving, endpoints).await;
            return Err(refusal::with_ages(&call.app, late).await);
        }
        Ok(Err(failed)) => return Err(broken_off(&call.app, answer, failed)),
        Ok(Ok(Emptied::Returned { what, gets })) => return Err(returned(answer, &what, gets)),
        Ok(Ok(Emptied::Mirrored { what })) => return Err(mirrored(answer, &what)),
        Ok(Ok(Emptied::All(state))) => state,
    };
    (answer.state, answer.leaving) = (Reached::Drained, Vec::new());
    leaving.iter().for_each(|(service, _)| answer.add(&state, service));
    Ok(())
}

/// How a wait for what a change has left ended.
enum Emptied {
    /// In this state nothing was left on any of it.
    All(Arc<State>),
    /// Copies of requests may come to one of them.
    Mirrored { what: String },
    /// One of them gets something again.
    Returned { what: String, gets: &'static str },
}

/// Waits until nothing is left on any of them, all at one moment: while one is waited for another may get traffic again.
async fn until_empty(
    control: &Handle,
    versions: &[(ServiceName, VersionName)],
    endpoints: &[Endpoint],
) -> Result<Emptied, Failed> {
    // Since which epoch of its service each of them is known to be empty: it is so until the next.
    let mut empty_since = vec![None; endpoints.len()];
    loop {
        let state = match control.wait_drained(versions).await? {
            Waited::Drained(state) => state,
            Waited::Returned(service, version) => {
                let what = format!("`{version}` of `{service}`");
                let state = control.state();
                let is_mirrored = |service: &Arc<Service>| service.mirrors_to(&version);
                return Ok(match state.table.service(&service).is_some_and(is_mirrored) {
                    true => Emptied::Mirrored { what },
                    false => Emptied::Returned { what, gets: "traffic" },
                });
            }
        };
        if let Some(Endpoint { service, version, address }) = endpoints.iter().find(|one| one.serves(&state))
        {
            let what = format!("{address} of `{version}` of `{service}`");
            return Ok(Emptied::Returned { what, gets: "requests" });
        }
        let known = endpoints.iter().zip(&mut empty_since);
        let mut unknown: Vec<_> =
            known.filter(|(endpoint, since)| **since != Some(endpoint.epoch(&state))).collect();
        if unknown.is_empty() {
            return Ok(Emptied::All(state));
        }
        let mut is_left = false;
        for (Endpoint { service, version, address }, since) in &mut unknown {
            let (left, epoch) = drain::look_at_endpoint(control, service, version, address).await;
            **since = left.drained.then_some(epoch);
            is_left |= !left.drained;
        }
        if is_left {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The versions that the change left: by its answer, not by the present state, in which they may have traffic again; and those of
/// its services that were left before, and have work still, as with a process before this one.
fn leaving(control: &Handle, answer: &ChangeAnswer) -> BTreeSet<(ServiceName, VersionName)> {
    // Names that we wrote ourselves.
    let left = answer.leaving.iter();
    let left = left.filter_map(|left| Some((left.service.parse().ok()?, left.version.parse().ok()?)));
    let state = control.state();
    let before = drain::busy(control, false).into_iter().filter(|(service, version)| {
        let present = state.table.service(service);
        let gets_some =
            present.is_some_and(|present| present.split.leads_to(version) || present.mirrors_to(version));
        answer.services.contains_key(service.as_str()) && !gets_some
    });
    left.chain(before).collect()
}

fn returned(answer: &ChangeAnswer, what: &str, gets: &str) -> Box<Problem> {
    let epoch = answer.epoch;
    let detail = format!(
        "the change was made (epoch {epoch}), but a later one gave {what} {gets} again: it is not safe to stop"
    );
    let mut problem =
        Problem::new(409, "returned", detail).hint("`switchback history` tells who changed it back");
    problem.change = Some(answer.clone());
    problem
}

/// It is empty of what it had, or will be, and copies of requests come all the same.
fn mirrored(answer: &ChangeAnswer, what: &str) -> Box<Problem> {
    let epoch = answer.epoch;
    let detail = format!(
        "the change was made (epoch {epoch}), but the mirror leads to {what}: it is not drained, nor safe to stop"
    );
    let mut problem = Problem::new(409, "mirrored", detail)
        .hint("take `mirror` of the service out of the file first, or name another version there");
    problem.change = Some(answer.clone());
    problem
}

async fn timed_out(
    control: &Handle,
    answer: &ChangeAnswer,
    leaving: &[(ServiceName, VersionName)],
    endpoints: &[Endpoint],
) -> Box<Problem> {
    let mut left: Vec<_> = leaving
        .iter()
        .flat_map(|(service, version)| {
            let remaining = InFlight::left(control, service, version).remaining();
            let (service, version) = (service.to_string(), version.to_string());
            remaining.into_iter().map(move |left| {
                let (service, version) = (service.clone(), version.clone());
                Left { service, version, kind: left.kind, count: left.count, oldest_seconds: None }
            })
        })
        .collect();
    for Endpoint { service, version, address } in endpoints {
        let (there, _) = drain::look_at_endpoint(control, service, version, address).await;
        left.extend(there.remaining.into_iter().map(|there| Left {
            service: service.to_string(),
            version: version.to_string(),
            kind: there.kind,
            count: there.count,
            oldest_seconds: there.oldest_seconds,
        }));
    }
    let detail = format!("the change is made (epoch {}), but not everything is drained yet", answer.epoch);
    let mut problem = Problem::new(504, "timed_out", detail).hint(
        "`GET /v1/services/{service}/versions/{version}/drain` tells when it is; stop nothing until then",
    );
    (problem.left, problem.change) = (Some(left), Some(answer.clone()));
    problem
}
