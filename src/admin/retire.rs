//! Retirements: to begin one, and to wait for its end.
#![allow(unused_qualifications, reason = "what `utoipa::path` expands to")]

use std::time::Duration;

use axum::response::Response;

use super::api::{ChangeAnswer, Leaving, Problem, Retire};
use super::call::Call;
use super::openapi::{ChangeHeaders, ChangeResponses};
use super::order::{ChangeQuery, Order, make};
use super::wait;
use crate::control::Asked;
use crate::release::{Command, RampEnd, RampOrder, Retired};
use crate::table::{Epoch, Invalid, ServiceName, duration};

/// Nobody new comes to the version that is tried (`@candidate`), and a ramp is over; who is there stays. Users are those with a cookie that the proxy
/// has minted: they stay until nobody of them has come for `quiet`, or `for` is over; then the others have everything, once enough of their endpoints are well. Of a service
/// whose users stay by something else it is refused: nothing tells who is new. Where nobody stays, the others have everything at once, and what is in flight finishes; it is not
/// told to go before `for` is over. `abort`, `revert`, `flip` and weights end one; `wait=drained` waits for its end, and until the version is empty, `wait=finished` for supervision too.
#[utoipa::path(post, path = "/v1/services/{service}/retire", tag = "changes", request_body = Option<Retire>,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn retire(call: Call) -> Result<Response, Box<Problem>> {
    let (service, body) = (call.service()?, call.json_or_default::<Retire>()?);
    let (quiet, lasts) = (time("quiet", body.quiet.as_deref())?, time("for", body.lasts.as_deref())?);
    let command = Command::Ramp { service: service.clone(), order: RampOrder::Retire { quiet, lasts } };
    make(&call, Order::one(service, command).because(body.reason).forced(body.force)).await
}

fn time(field: &'static str, text: Option<&str>) -> Result<Option<Duration>, Box<Problem>> {
    let bad = |why: String| Problem::new(400, "bad_value", why).at(field);
    let time = text.map(duration::parse).transpose().map_err(|Invalid(why)| bad(why))?;
    if time.is_some_and(|time| time.is_zero()) {
        return Err(bad(format!("`{field}` is 1ms at least; `abort` sends everybody back at once")));
    }
    Ok(time)
}

/// The service whose retirement is waited for.
pub(super) fn named(asked: &Asked) -> Option<ServiceName> {
    match asked {
        Asked::Command(Command::Ramp { service, order: RampOrder::Retire { .. } }) => Some(service.clone()),
        Asked::Command(_) | Asked::UndoTo(_) => None,
    }
}

/// Waits until the retirement is over that `answer` tells of; it then tells what that has left.
///
/// # Errors
/// It was ended otherwise, or is not over in time.
pub(super) async fn until_over(
    call: &Call,
    answer: &mut ChangeAnswer,
    service: &ServiceName,
    patience: Duration,
) -> Result<(), Box<Problem>> {
    let control = &call.app.control;
    let standing = answer.services.get(service.as_str());
    let Some(begun) = standing.and_then(|it| it.retirement.as_ref()).map(|it| it.begun) else {
        // There was nobody to wait for.
        return Ok(());
    };
    let ended = match call.app.within(patience, control.retired(service, Epoch(begun))).await {
        Err(_) => {
            let detail =
                format!("the retirement in `{service}` is under way (epoch {}), and goes on", answer.epoch);
            let mut problem = Problem::new(504, "timed_out", detail)
                .hint("`GET /v1/services/{service}` tells how it stands; stop nothing until then");
            problem.change = Some(answer.clone());
            return Err(problem);
        }
        Ok(Err(failed)) => return Err(wait::broken_off(&call.app, answer, failed)),
        Ok(Ok(ended)) => ended,
    };
    match ended {
        Some(Retired { version, how: RampEnd::Finished, .. }) => {
            let (service_name, version) = (service.to_string(), version.to_string());
            answer.leaving.push(Leaving { service: service_name, version });
            answer.add(&control.state(), service);
            Ok(())
        }
        Some(Retired { version, how, epoch, .. }) => {
            let detail = format!(
                "the retirement of `{version}` of `{service}` was ended otherwise: {} (epoch {epoch})",
                how.token()
            );
            Err(wait::moved(answer, how.token(), detail))
        }
        None => {
            let detail = format!("later changes ended the retirement in `{service}`");
            Err(wait::moved(answer, "superseded", detail))
        }
    }
}
