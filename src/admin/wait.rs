//! `wait=drained`: answers when nothing is left on the versions that a change has left; `wait=healthy`: when what it brought is
//! found well.

use std::collections::BTreeMap;
use std::time::Duration;

use super::api::{ChangeAnswer, InFlight, Left, Problem, Reached, text};
use super::call::Call;
use super::health;
use super::order::ChangeQuery;
use super::refusal::{self, Blame};
use crate::control::health::Healthy;
use crate::control::{Failed, Handle, Waited};
use crate::table::{ServiceName, VersionName, VersionRef};

/// How long `wait=drained` waits unless told.
const WAIT: &str = "30s";

/// When a change is answered.
#[derive(Debug)]
pub(super) enum Until {
    /// Once it is durable and fenced.
    Fenced,
    /// Once nothing is left on what it left, or after this long.
    Drained(Duration),
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
        (Some("finished"), _) => {
            let detail = "`finished` is not served by this version of switchback";
            Err(Problem::new(422, "not_served_yet", detail).hint("wait for fenced or drained").at("wait"))
        }
        (Some(other), _) => {
            let other = other.escape_default();
            let detail = format!("`{other}` is nothing to wait for: expected fenced, drained or healthy");
            Err(Problem::new(400, "bad_query", detail).at("wait"))
        }
    }
}

/// How long to wait, as the query says it.
pub(super) fn timeout(text: Option<&str>) -> Result<Duration, Box<Problem>> {
    let timeout = text::duration(text.unwrap_or(WAIT));
    timeout.map_err(|why| Problem::new(400, "bad_query", why.0).at("timeout"))
}

/// Waits for it.
pub(super) async fn wait(
    call: &Call,
    answer: &mut ChangeAnswer,
    services: &[ServiceName],
    until: Until,
) -> Result<(), Box<Problem>> {
    match (until, services) {
        (Until::Drained(patience), _) => until_drained(call, answer, patience).await,
        (Until::Healthy(version, what, patience), [service]) => {
            health::wait(&call.app, service, &version, &what, patience).await.map_err(|mut problem| {
                problem.change = Some(answer.clone());
                problem
            })
        }
        (Until::Fenced | Until::Healthy(..), _) => Ok(()),
    }
}

/// The versions that are left, by service.
type Leaving = Vec<(ServiceName, Vec<VersionName>)>;

/// Waits until nothing is left on the versions that the answer's services are leaving.
async fn until_drained(
    call: &Call,
    answer: &mut ChangeAnswer,
    patience: Duration,
) -> Result<(), Box<Problem>> {
    let control = &call.app.control;
    let leaving = leaving(answer);
    match tokio::time::timeout(patience, all_drained(control, &leaving)).await {
        Err(_) => return Err(refusal::with_ages(&call.app, timed_out(control, answer, &leaving)).await),
        Ok(Err(failed)) => return Err(refusal::failed(&call.app, failed, &Blame::Path)),
        Ok(Ok(Some((service, version)))) => return Err(returned(answer, &service, &version)),
        Ok(Ok(None)) => {}
    }
    let state = control.state();
    (answer.state, answer.leaving) = (Reached::Drained, Vec::new());
    leaving.iter().for_each(|(service, _)| answer.add(&state, service));
    Ok(())
}

/// The versions that the change left: by its answer, not by the present state, in which they may have traffic again.
fn leaving(answer: &ChangeAnswer) -> Leaving {
    let mut all: BTreeMap<ServiceName, Vec<VersionName>> = BTreeMap::new();
    for left in &answer.leaving {
        // Names that we wrote ourselves.
        if let (Ok(service), Ok(version)) = (left.service.parse(), left.version.parse()) {
            all.entry(service).or_default().push(version);
        }
    }
    all.into_iter().collect()
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

fn returned(answer: &ChangeAnswer, service: &ServiceName, version: &VersionName) -> Box<Problem> {
    let epoch = answer.epoch;
    let detail = format!(
        "the change was made (epoch {epoch}), but a later one gave `{version}` of `{service}` traffic again: it is not safe to stop"
    );
    let mut problem =
        Problem::new(409, "returned", detail).hint("`switchback history` tells who changed it back");
    problem.change = Some(answer.clone());
    problem
}

fn timed_out(control: &Handle, answer: &ChangeAnswer, leaving: &Leaving) -> Box<Problem> {
    let versions = leaving.iter().flat_map(|(service, versions)| versions.iter().map(move |v| (service, v)));
    let left = versions.flat_map(|(service, version)| {
        let remaining = InFlight::left(control, service, version).remaining();
        let (service, version) = (service.to_string(), version.to_string());
        remaining.into_iter().map(move |left| {
            let (service, version) = (service.clone(), version.clone());
            Left { service, version, kind: left.kind, count: left.count, oldest_seconds: None }
        })
    });
    let detail = format!("the change is made (epoch {}), but not everything is drained yet", answer.epoch);
    let mut problem = Problem::new(504, "timed_out", detail).hint(
        "`GET /v1/services/{service}/versions/{version}/drain` tells when it is; stop nothing until then",
    );
    (problem.left, problem.change) = (Some(left.collect()), Some(answer.clone()));
    problem
}
