//! What control refuses, as problem details.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};

use super::api::{Left, Problem, Service, Unhealthy, seconds};
use super::caller::out_of_scope;
use super::edit::Edits;
use super::{App, precondition};
use crate::control::{Ended, Failed, HoldEnded, InTheWay};
use crate::release::{Misaimed, Refused};
use crate::store::StoreError;
use crate::table::{ServiceName, VersionRef};

impl IntoResponse for Box<Problem> {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let pause = match self.token() {
            "succeeded" => Some("0"),
            "upgrading" | "too_many_connections" => Some("1"),
            _ => None,
        };
        let mut response = (status, Json(*self)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(pause) = pause {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(pause));
        }
        response
    }
}

/// Which part of the call named a version: that part is at fault when there is no such version.
pub(super) enum Blame {
    /// The path, which the status tells.
    Path,
    /// This member of the body.
    Member(&'static str),
    /// The body's members are versions; those of them that were named.
    Weights(Vec<String>),
    /// The body's members are rules: the versions that they lead to.
    Rules(Vec<String>),
    /// The edits of a batch.
    Edits(Edits),
}

impl Blame {
    fn field(&self, service: &ServiceName, version: &VersionRef) -> Option<String> {
        match self {
            Self::Path => None,
            Self::Member(member) => Some((*member).to_owned()),
            Self::Weights(named) => {
                let version = version.to_string();
                Some(if named.contains(&version) { version } else { "rest".to_owned() })
            }
            Self::Rules(to) => {
                let version = version.to_string();
                to.iter().position(|to| *to == version).map(|index| format!("[{index}].to"))
            }
            Self::Edits(edits) => edits.mover(service, version).map(|index| format!("changes[{index}]")),
        }
    }
}

/// The problem that a failed change is.
pub(super) fn failed(app: &App, failed: Failed, blame: &Blame) -> Box<Problem> {
    match failed {
        Failed::Refused(why) => refused(app, &why, blame),
        Failed::Store(why) => store(&why),
        Failed::Underway { .. } => Problem::new(409, "exclusive_underway", failed.to_string())
            .hint("wait for its end; `switchback revert SERVICE` calls it off, and has supervision's way back made at once"),
        Failed::StreamsOpen { ref service, ref left } => {
            let mut problem = Problem::new(409, "streams_open", failed.to_string()).hint(
                "`--streams=close` tells them to go; with `--streams=ignore` they go on beside the new version",
            );
            problem.left = Some(in_the_way(service, left));
            problem
        }
        Failed::HoldEnded(ref ended) => hold_ended(ended, failed.to_string()),
        Failed::Beyond(ref beyond) => out_of_scope(failed.to_string(), &beyond.needed()),
        // As its caller wrote it: in front of it stands whose it is.
        Failed::KeyReused(ref key) => Problem::new(422, "key_reused", reused(key))
            .hint("make a new key for every change")
            .at(precondition::KEY_HEADER),
        Failed::Closed => Problem::new(503, "shutting_down", failed.to_string()),
        Failed::WorkElsewhere(_) => Problem::new(409, "work_elsewhere", failed.to_string())
            .hint("`switchback status` names it; wait until it has ended, or flip without --exclusive"),
        Failed::Holding => Problem::new(409, "held", failed.to_string()).hint("release it first"),
        Failed::Queueing(_) => {
            Problem::new(409, "queueing", failed.to_string()).hint("wait until they have gone on")
        }
        Failed::RollingOut => {
            Problem::new(409, "rollout_underway", failed.to_string()).hint("wait for its end")
        }
        Failed::Unfenced => Problem::new(504, "unfenced", failed.to_string())
            .hint("`switchback status` names it; the change itself is durable"),
        Failed::Lent => Problem::new(503, "upgrading", failed.to_string()).hint("try again in a few seconds"),
        Failed::Succeeded => Problem::new(503, "succeeded", failed.to_string())
            .hint("connect to the socket anew and try again: the new process answers"),
        // Not as above: who tried again would make the change a second time.
        Failed::Overtaken | Failed::LeftBehind => Problem::new(504, "left_behind", failed.to_string())
            .hint("the same call with its `Idempotency-Key` waits there; `switchback status SERVICE` asks that one"),
    }
}

fn reused(key: &str) -> String {
    let key = key.rsplit_once(' ').map_or(key, |(_, key)| key).to_owned();
    Failed::KeyReused(key).to_string()
}

fn in_the_way(service: &ServiceName, left: &[InTheWay]) -> Vec<Left> {
    let left = left.iter().map(|found| Left {
        service: service.to_string(),
        version: found.version.to_string(),
        kind: found.kind.token().to_owned(),
        count: found.count,
        oldest_seconds: None,
    });
    left.collect()
}

/// The same with how old the work is that it names, as far as the workers say.
pub(super) async fn with_ages(app: &App, mut problem: Box<Problem>) -> Box<Problem> {
    let unknown = |left: &&mut Left| left.oldest_seconds.is_none();
    for left in problem.left.iter_mut().flatten().filter(unknown) {
        let Ok(service) = left.service.parse() else { continue };
        let Ok(version) = left.version.parse() else { continue };
        let told = app.control.remaining(&service, &version).await.unwrap_or_default();
        let of_kind = told.iter().filter(|told| told.kind.token() == left.kind);
        left.oldest_seconds = of_kind.map(|told| seconds(told.oldest)).reduce(f64::max);
    }
    problem
}

/// The problem that an exclusive flip is whose hold ended first.
fn hold_ended(ended: &HoldEnded, detail: String) -> Box<Problem> {
    let HoldEnded { service, why, left, .. } = ended;
    let (token, hint) = match why {
        Ended::Time => (
            "hold_timed_out",
            "what is in the way was there before the hold; let it end, or flip with a longer `--hold-timeout`",
        ),
        Ended::Requests | Ended::Bytes => {
            ("hold_overrun", "flip when there is less traffic, or raise the bounds of the service's `hold`")
        }
        Ended::Released => ("called_off", "`switchback history` tells who released it"),
        Ended::Stopping => ("shutting_down", "flip when the proxy is up again"),
        Ended::Store => ("store_failed", "see to the state directory, then try again"),
    };
    let mut problem = Problem::new(409, token, detail).hint(hint);
    problem.left = Some(in_the_way(service, left));
    problem
}

/// The problem that a broken store is.
pub(super) fn store(why: &StoreError) -> Box<Problem> {
    let hint = match why {
        StoreError::InDoubt(_) => {
            "traffic goes on as before; see to the state directory, then look at `switchback history` before trying again"
        }
        StoreError::Open { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::Io(_)
        | StoreError::Corrupt(_) => {
            "nothing was changed and traffic goes on as before; see to the state directory, then try again"
        }
    };
    Problem::new(503, "store_failed", why.to_string()).hint(hint)
}

fn refused(app: &App, why: &Refused, blame: &Blame) -> Box<Problem> {
    let field = field(why, blame);
    let status = match why {
        // Named in the body, not in the path: the resource is there, its content is wrong.
        Refused::UnknownVersion { .. } if field.is_some() => 422,
        why => status(why),
    };
    let mut problem = Problem::new(status, why.token(), why.to_string()).hint(why.hint());
    if let Refused::Conflict { service, .. } = why {
        problem.present = Service::of(&app.control.state(), &app.control, service);
    }
    if let Refused::NotReady { readiness, .. } = why {
        problem.unhealthy = Some(Unhealthy::all(readiness));
    }
    problem.field = field;
    problem
}

fn status(why: &Refused) -> u16 {
    match why {
        Refused::UnknownService { .. } | Refused::UnknownVersion { .. } | Refused::UnknownEndpoint { .. } => {
            404
        }
        Refused::Conflict { .. } => 412,
        Refused::NothingToRevert { .. }
        | Refused::VersionInUse { .. }
        | Refused::Mirrored { .. }
        | Refused::Draining { .. }
        | Refused::LastEndpoint { .. }
        | Refused::Measure { .. }
        | Refused::NotReady { .. }
        | Refused::File(_)
        | Refused::Discovered { .. }
        | Refused::Gone { .. }
        | Refused::RouteTaken(_)
        | Refused::Ramping { .. }
        | Refused::NoRamp { .. }
        | Refused::NothingToRamp { .. }
        | Refused::Suspect { .. }
        | Refused::Retire(_)
        | Refused::Rules(Misaimed::Targeted { .. })
        | Refused::NoTrial { .. } => 409,
        Refused::EmptyVersion { .. }
        | Refused::BadWeights { .. }
        | Refused::Rules(Misaimed::TooMany { .. })
        | Refused::UnknownEpoch { .. }
        | Refused::RampInBatch { .. }
        | Refused::EmptyChange => 422,
        Refused::Edit { why, .. } => match &**why {
            Refused::UnknownVersion { .. } => 422,
            why => status(why),
        },
    }
}

fn field(why: &Refused, blame: &Blame) -> Option<String> {
    match why {
        Refused::UnknownVersion { service, version, .. } => blame.field(service, version),
        Refused::EmptyVersion { service, version }
        | Refused::NotReady { service, version, .. }
        | Refused::NothingToRamp { service, version, .. } => blame.field(service, &version.clone().into()),
        Refused::UnknownEpoch { .. } | Refused::Gone { .. } => Some("to_epoch".to_owned()),
        Refused::EmptyChange => Some("changes".to_owned()),
        Refused::Edit { index, .. } => Some(format!("changes[{index}]")),
        Refused::Conflict { service, expected, .. } => match blame {
            Blame::Edits(edits) => {
                edits.expecting(service, *expected).map(|index| format!("changes[{index}].if_epoch"))
            }
            Blame::Path | Blame::Member(_) | Blame::Weights(_) | Blame::Rules(_) => {
                Some("if-match".to_owned())
            }
        },
        Refused::UnknownService { service } => match blame {
            Blame::Edits(edits) => edits.about(service).map(|index| format!("changes[{index}].service")),
            Blame::Path | Blame::Member(_) | Blame::Weights(_) | Blame::Rules(_) => None,
        },
        Refused::NothingToRevert { .. }
        | Refused::BadWeights { .. }
        | Refused::VersionInUse { .. }
        | Refused::Mirrored { .. }
        | Refused::UnknownEndpoint { .. }
        | Refused::Draining { .. }
        | Refused::LastEndpoint { .. }
        | Refused::Measure { .. }
        | Refused::File(_)
        | Refused::Discovered { .. }
        | Refused::RouteTaken(_)
        | Refused::Ramping { .. }
        | Refused::NoRamp { .. }
        | Refused::Suspect { .. }
        | Refused::Retire(_)
        | Refused::Rules(_)
        | Refused::RampInBatch { .. }
        | Refused::NoTrial { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_in_doubt_is_not_said_to_have_changed_nothing() {
        let says_nothing = |why| store(&why).hint.unwrap().contains("nothing was changed");
        assert!(says_nothing(StoreError::Io("disk full".to_owned())));
        assert!(!says_nothing(StoreError::InDoubt("disk full".to_owned())));
    }
}
