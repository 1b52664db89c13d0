//! A request's attempts at the endpoints of its version: usually one.

mod attempt;
mod hedge;
mod places;
mod tries;

use std::rc::Rc;

use super::bounds::Bounds;
use super::choice::Chooser;
use super::connection::Turn;
use super::gate::Asked;
use super::head::{Answer, Parts};
use super::journal::Record;
use super::live::Terms;
use super::outgoing::Upload;
use super::permit::Permit;
use super::shield::Shield;
use crate::metrics::Reason;
use attempt::{Headed, Request, attempt};
use hedge::hedged;
pub(super) use places::{at_once, stay_in_line};
use tries::Tries;

/// Sends the request to an endpoint of its version, and to another one by the rules of [`Tries`] when that fails; when that is for good,
/// the shield takes it over, if there is one and it does.
pub(super) async fn forward(
    turn: &Turn,
    (head, asked): (&Parts, &Asked<'_>),
    upload: &mut Upload,
    mut permit: Permit,
    terms: &Terms,
    record: Option<&Record>,
    shield: Option<&Shield<'_>>,
) -> Result<Answer, Reason> {
    let Terms { timeouts, limits } = *terms;
    let client = &turn.client;
    let bounds = Bounds::new(client, head, timeouts, limits);
    turn.is_due(bounds.deadline());
    let chooser = Chooser { turn, head, asked };
    let clock = chooser.clock();
    let special = permit.local().special();
    let circuit = special.as_ref().map(|rules| &rules.circuit).filter(|rules| rules.limits());
    if let Some(rules) = circuit {
        let limit = bounds.at_most(places::patience(&permit, rules), clock.ticks());
        // Boxed, here and below: rare, and all requests would have its size.
        if let Err(reason) = Box::pin(places::enter(&mut permit, rules, limit, chooser)).await {
            return over(permit, upload, reason, shield, &bounds);
        }
    }
    // In another version's place it has been chosen already.
    let chosen = permit.seat().map(Rc::clone).or_else(|| chooser.pick(permit.local(), &[]));
    let Some(mut seat) = chosen else {
        return over(permit, upload, Reason::NoEndpoint, shield, &bounds);
    };
    let mut tries = Tries::new(head, asked, !upload.is_empty());
    let limit = special.as_ref().and_then(|rules| rules.retries.per_try_timeout);
    let limit = limit.filter(|_| tries.may_repeat());
    let most = limits.request_body.unwrap_or(u64::MAX);
    let request = Request { turn, head, asked, timeouts, bounds, most, limit, record, entry: None };
    let hedge = special.as_deref().and_then(|rules| rules.hedge);
    let hedge = hedge.filter(|_| head.only_reads() && upload.is_empty() && asked.upgrade.is_none());
    let local = Rc::clone(permit.local());
    loop {
        if let Some(rules) = circuit {
            let limit = bounds.at_most(places::patience(&permit, rules), clock.ticks());
            let sit = places::sit(&mut permit, &mut seat, tries.tried(), rules, limit, chooser);
            if let Err(reason) = Box::pin(sit).await {
                return over(permit, upload, reason, shield, &bounds);
            }
            places::leave_line(&mut permit);
        }
        permit.goes_to(&seat, &turn.alarm);
        let ended = match hedge {
            None => attempt(&request, &seat, &local, Some(permit), upload, tries.may_reuse()).await,
            Some(rules) => Box::pin(hedged(&request, &seat, permit, upload, &mut tries, rules)).await,
        };
        let (kept, next) = match ended {
            Ok(headed) => {
                let looks = special.as_ref().filter(|rules| rules.retries.repeats(headed.status()));
                let Some(other) = looks.and_then(|_| tries.after_status(&headed, &seat, chooser)) else {
                    tries.answered(headed.permit());
                    if let Some(shield) = shield {
                        let headed = uncovered(headed, upload, &tries, shield, &bounds)?;
                        return Ok(headed.answer(upload, head));
                    }
                    return Ok(headed.answer(upload, head));
                };
                (headed.discard(), Ok(other))
            }
            Err((Some(mut permit), failure)) => {
                // Of several at a time it is the last one that has failed.
                let seat = permit.seat().map_or_else(|| Rc::clone(&seat), Rc::clone);
                let next = tries.after(&failure, &mut permit, &seat, upload, chooser);
                let shield = shield.filter(|_| tries.may_go_elsewhere(&failure));
                if let (Err(reason), Some(shield)) = (&next, shield)
                    && shield.takes_over(&mut permit, upload, *reason, &bounds)
                {
                    return Err(*reason);
                }
                (Some(permit), next)
            }
            Err((None, _)) => return Err(Reason::Internal),
        };
        permit = kept.ok_or(Reason::Internal)?;
        let place;
        (seat, place) = match next {
            Ok(next) => next,
            Err(reason) => return permit.fail(reason),
        };
        if place.is_some() {
            permit.places.get_or_insert_default().endpoint = place;
        }
    }
}

/// The answer, if it is one to the user.
///
/// # Errors
/// Any reason, when the shield has taken the request over for this answer.
fn uncovered(
    headed: Headed,
    upload: &mut Upload,
    tries: &Tries,
    shield: &Shield<'_>,
    bounds: &Bounds,
) -> Result<Headed, Reason> {
    let status = headed.status();
    if !tries.is_idempotent() || !shield.takes(status) {
        return Ok(headed);
    }
    match shield.admits(headed.permit(), upload, status, bounds) {
        None => Ok(headed),
        Some(stand_in) => {
            shield.instead(headed.discard().ok_or(Reason::Internal)?, upload, stand_in);
            Err(Reason::Internal)
        }
    }
}

/// Nothing of the request was sent this time, and nothing will be, for this reason: the shield takes it over, or that is its end.
fn over<T>(
    mut permit: Permit,
    upload: &mut Upload,
    reason: Reason,
    shield: Option<&Shield<'_>>,
    bounds: &Bounds,
) -> Result<T, Reason> {
    places::excuse(&mut permit, reason);
    match shield {
        Some(shield) if shield.takes_over(&mut permit, upload, reason, bounds) => Err(reason),
        Some(_) | None => permit.fail(reason),
    }
}
