//! `wait=drained`: answers when nothing is left on the versions and endpoints that a change has left; `wait=finished`: when supervision
//! is over too; `wait=healthy`: when what it brought is found well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::api::{ChangeAnswer, InFlight, Left, Problem, Reached, TrialEnd, TrialEnded, text};
use super::call::Call;
use super::order::ChangeQuery;
use super::refusal::{self, Blame};
use super::{drain, health};
use crate::control::health::Healthy;
use crate::control::{Asked, Failed, Handle, Waited};
use crate::release::Command;
use crate::table::{BasisPoints, EndpointAddr, Epoch, ServiceName, VersionName, VersionRef};

/// How long `wait=drained` waits unless told.
const WAIT: &str = "30s";
/// How often an endpoint is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// When a change is answered.
#[derive(Debug)]
pub(super) enum Until {
    /// Once it is durable and fenced.
    Fenced,
    /// Once nothing is left on what it left, or after this long.
    Drained(Duration),
    /// Once the comparisons that it began are over and nothing is left on what it left, or after this long.
    Finished(Duration),
    /// Once what it brought is found well, or after this long.
    Healthy(VersionRef, Healthy, Duration),
}

/// What is to be waited for, of a change that brings what `comes`.
pub(super) fn until(
    query: &ChangeQuery,
    comes: Option<(VersionRef, Healthy)>,
) -> Result<Until, Box<Problem>> {
    let timeout = timeout(query.timeout.as_deref())?;
    match (query.wait.as_deref(), comes) {
        (None | Some("fenced"), _) => Ok(Until::Fenced),
        (Some("drained"), _) => Ok(Until::Drained(timeout)),
        (Some("healthy"), Some((version, what))) => Ok(Until::Healthy(version, what, timeout)),
        (Some("healthy"), None) => {
            let detail = "`healthy` goes with a version or an endpoint that is put";
            Err(Problem::new(400, "bad_query", detail).at("wait"))
        }
        (Some("finished"), _) => Ok(Until::Finished(timeout)),
        (Some(other), _) => {
            let other = other.escape_default();
            let detail =
                format!("`{other}` is nothing to wait for: expected fenced, drained, finished or healthy");
            Err(Problem::new(400, "bad_query", detail).at("wait"))
        }
    }
}

/// How long to wait, as the query says it.
pub(super) fn timeout(text: Option<&str>) -> Result<Duration, Box<Problem>> {
    let timeout = text::duration(text.unwrap_or(WAIT));
    timeout.map_err(|why| Problem::new(400, "bad_query", why.0).at("timeout"))
}

/// Waits for it; the change has `named` these endpoints.
pub(super) async fn wait(
    call: &Call,
    answer: &mut ChangeAnswer,
    services: &[ServiceName],
    named: Vec<Endpoint>,
    until: Until,
) -> Result<(), Box<Problem>> {
    let endpoints = &with_those_out(named, answer);
    match (until, services) {
        (Until::Drained(patience), _) => until_drained(call, answer, endpoints, patience).await,
        (Until::Finished(patience), _) => {
            let since = Instant::now();
            until_finished(call, answer, patience).await?;
            until_drained(call, answer, endpoints, patience.saturating_sub(since.elapsed())).await?;
            answer.state = Reached::Finished;
            Ok(())
        }
        (Until::Healthy(version, what, patience), [service]) => {
            health::wait(&call.app, service, &version, &what, patience).await.map_err(|mut problem| {
                problem.change = Some(answer.clone());
                problem
            })
        }
        (Until::Fenced | Until::Healthy(..), _) => Ok(()),
    }
}

/// An endpoint that is to get nothing new.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Endpoint {
    service: ServiceName,
    version: VersionRef,
    address: EndpointAddr,
}

/// The endpoints that the change drains or removes by their names: they are waited for also where that changes nothing any more.
pub(super) fn named(asked: &Asked) -> Vec<Endpoint> {
    fn of(command: &Command) -> Vec<Endpoint> {
        match command {
            Command::Batch(commands) => commands.iter().flat_map(of).collect(),
            Command::DrainEndpoint { service, version, endpoint }
            | Command::RemoveEndpoint { service, version, endpoint } => {
                let (service, version, address) = (service.clone(), version.clone(), endpoint.clone());
                vec![Endpoint { service, version, address }]
            }
            _ => Vec::new(),
        }
    }
    match asked {
        Asked::Command(command) => of(command),
        Asked::UndoTo(_) => Vec::new(),
    }
}

/// Those, and all that the change took out.
fn with_those_out(mut named: Vec<Endpoint>, answer: &ChangeAnswer) -> Vec<Endpoint> {
    // Names that we wrote ourselves.
    let out = answer.out.iter().filter_map(|out| {
        let (service, address) = (out.service.parse().ok()?, out.endpoint.parse().ok()?);
        Some(Endpoint { service, version: VersionRef::Name(out.version.parse().ok()?), address })
    });
    for out in out {
        if !named.contains(&out) {
            named.push(out);
        }
    }
    named
}

/// Waits until the comparisons are over that the change began.
///
/// # Errors
/// One has ended with a revert, or has not ended in time.
async fn until_finished(
    call: &Call,
    answer: &mut ChangeAnswer,
    patience: Duration,
) -> Result<(), Box<Problem>> {
    let verdicts = call.app.control.verdicts();
    let begun = answer.services.iter().filter_map(|(service, standing)| {
        let trial = standing.supervision.as_ref().filter(|trial| trial.stage == answer.epoch)?;
        // A name that we wrote ourselves.
        Some((service.parse().ok()?, Epoch(trial.stage)))
    });
    let begun: Vec<(ServiceName, Epoch)> = begun.collect();
    let waiting = async {
        for (service, stage) in &begun {
            let ended = verdicts.end_of(service, *stage).await;
            answer.trials.insert(service.to_string(), TrialEnd::from(&ended));
        }
    };
    let is_late = tokio::time::timeout(patience, waiting).await.is_err();
    if let Some((service, end)) = answer.trials.iter().find(|(_, end)| end.how == TrialEnded::Reverted) {
        let detail = format!(
            "supervision has taken the traffic of `{service}` back (epoch {}): {}",
            end.epoch, end.said
        );
        let mut problem = Problem::new(409, "reverted", detail)
            .hint("`switchback status` shows where the traffic is; `switchback history` what moved it");
        problem.change = Some(answer.clone());
        return Err(problem);
    }
    if is_late {
        let detail = format!("the change is made (epoch {}), and is still being supervised", answer.epoch);
        let mut problem = Problem::new(504, "timed_out", detail)
            .hint("`GET /v1/services/{service}/verdict` tells how it stands; stop nothing until then");
        problem.change = Some(answer.clone());
        return Err(problem);
    }
    Ok(())
}

/// The versions that are left, by service.
type Leaving = Vec<(ServiceName, Vec<VersionName>)>;

/// Waits until nothing is left on these endpoints, and on the versions that the answer's services are leaving.
async fn until_drained(
    call: &Call,
    answer: &mut ChangeAnswer,
    endpoints: &[Endpoint],
    patience: Duration,
) -> Result<(), Box<Problem>> {
    let control = &call.app.control;
    let leaving = leaving(control, answer);
    let waiting = async {
        let versions = all_drained(control, &leaving).await?.map(|(service, version)| {
            let what = format!("`{version}` of `{service}`");
            (what, "traffic")
        });
        Ok(match versions {
            None => all_empty(control, endpoints).await.map(|what| (what, "requests")),
            returned => returned,
        })
    };
    match tokio::time::timeout(patience, waiting).await {
        Err(_) => {
            let late = timed_out(control, answer, &leaving, endpoints).await;
            return Err(refusal::with_ages(&call.app, late).await);
        }
        Ok(Err(failed)) => {
            let mut problem = refusal::failed(&call.app, failed, &Blame::Path);
            problem.change = Some(answer.clone());
            return Err(problem);
        }
        Ok(Ok(Some((what, gets)))) => return Err(returned(answer, &what, gets)),
        Ok(Ok(None)) => {}
    }
    let state = control.state();
    (answer.state, answer.leaving) = (Reached::Drained, Vec::new());
    leaving.iter().for_each(|(service, _)| answer.add(&state, service));
    Ok(())
}

/// Waits until nothing is left on any of them; ends early with one that gets requests again.
async fn all_empty(control: &Handle, endpoints: &[Endpoint]) -> Option<String> {
    for endpoint @ Endpoint { service, address, .. } in endpoints {
        let Some(version) = endpoint.version(control) else { continue };
        loop {
            let (left, _) = drain::look_at_endpoint(control, service, &version, address).await;
            if left.drained {
                break;
            }
            if left.in_pool && !left.draining && has_weight(control, service, &version) {
                return Some(format!("{address} of `{version}` of `{service}`"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    None
}

fn has_weight(control: &Handle, service: &ServiceName, version: &VersionName) -> bool {
    let state = control.state();
    let service = state.table.service(service);
    service.is_some_and(|service| service.split.weight(version) > BasisPoints::NONE)
}

impl Endpoint {
    fn version(&self, control: &Handle) -> Option<VersionName> {
        control.state().table.service(&self.service)?.resolve(&self.version).cloned()
    }
}

/// The versions that the change left: by its answer, not by the present state, in which they may have traffic again; and those of
/// its services that were left before, and have work still, as with a process before this one.
fn leaving(control: &Handle, answer: &ChangeAnswer) -> Leaving {
    let mut all: BTreeMap<ServiceName, BTreeSet<VersionName>> = BTreeMap::new();
    // Names that we wrote ourselves.
    let left = answer.leaving.iter();
    let left = left.filter_map(|left| Some((left.service.parse().ok()?, left.version.parse().ok()?)));
    let before = drain::busy(control, false).into_iter().filter(|(service, version)| {
        answer.services.contains_key(service.as_str()) && !has_weight(control, service, version)
    });
    for (service, version) in left.chain(before) {
        all.entry(service).or_default().insert(version);
    }
    all.into_iter().map(|(service, versions)| (service, versions.into_iter().collect())).collect()
}

/// Waits for all of them; ends early with one that carries traffic again.
async fn all_drained(
    control: &Handle,
    leaving: &Leaving,
) -> Result<Option<(ServiceName, VersionName)>, Failed> {
    for (service, versions) in leaving {
        match control.wait_drained(service, versions).await? {
            Waited::Drained => {}
            Waited::Returned(versions) => {
                return Ok(versions.into_iter().next().map(|version| (service.clone(), version)));
            }
        }
    }
    Ok(None)
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

async fn timed_out(
    control: &Handle,
    answer: &ChangeAnswer,
    leaving: &Leaving,
    endpoints: &[Endpoint],
) -> Box<Problem> {
    let versions = leaving.iter().flat_map(|(service, versions)| versions.iter().map(move |v| (service, v)));
    let mut left: Vec<_> = versions
        .flat_map(|(service, version)| {
            let remaining = InFlight::left(control, service, version).remaining();
            let (service, version) = (service.to_string(), version.to_string());
            remaining.into_iter().map(move |left| {
                let (service, version) = (service.clone(), version.clone());
                Left { service, version, kind: left.kind, count: left.count, oldest_seconds: None }
            })
        })
        .collect();
    for endpoint in endpoints {
        let Some(version) = endpoint.version(control) else { continue };
        let (there, _) =
            drain::look_at_endpoint(control, &endpoint.service, &version, &endpoint.address).await;
        left.extend(there.remaining.into_iter().map(|there| Left {
            service: endpoint.service.to_string(),
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
