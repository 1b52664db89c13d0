//! A request's attempts at the endpoints of its version: usually one.

mod attempt;
mod hedge;
mod places;
mod tries;

use std::rc::Rc;

use super::body::Incoming;
use super::bounds::Bounds;
use super::choice::Chooser;
use super::connection::Turn;
use super::gate::Asked;
use super::head::{Answer, Parts};
use super::journal::Record;
use super::live::Terms;
use super::outgoing::Upload;
use super::permit::Permit;
use crate::metrics::Reason;
use attempt::{Request, attempt};
use hedge::hedged;
pub(super) use places::stay_in_line;
use tries::Tries;

/// Sends the request to an endpoint of its version, and to another one by the rules of [`Tries`] when that fails.
pub(super) async fn forward(
    turn: &Turn,
    head: &Parts,
    asked: &Asked<'_>,
    body: Incoming,
    mut permit: Permit,
    terms: &Terms,
    record: Option<&Record>,
) -> Result<Answer, Reason> {
    let Terms { timeouts, limits } = *terms;
    let client = &turn.client;
    let bounds = Bounds::new(client, head, timeouts, limits);
    turn.is_due(bounds.deadline());
    let mut upload = Upload::of(head, body, asked, limits.request_body);
    let chooser = Chooser { turn, head, asked };
    let clock = chooser.clock();
    let special = permit.local().special();
    let circuit = special.as_ref().map(|rules| &rules.circuit).filter(|rules| rules.limits());
    if let Some(rules) = circuit {
        let limit = bounds.at_most(places::patience(&permit, rules), clock.ticks());
        // Boxed, here and below: rare, and all requests would have its size.
        if let Err(reason) = Box::pin(places::enter(&mut permit, rules, limit, chooser)).await {
            return places::refused(permit, reason);
        }
    }
    let Some(mut seat) = chooser.pick(permit.local(), &[]) else { return permit.fail(Reason::NoEndpoint) };
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
                return places::refused(permit, reason);
            }
            places::leave_line(&mut permit);
        }
        permit.goes_to(&seat, &turn.alarm);
        let ended = match hedge {
            None => attempt(&request, &seat, &local, Some(permit), &mut upload, tries.may_reuse()).await,
            Some(rules) => Box::pin(hedged(&request, &seat, permit, &upload, &mut tries, rules)).await,
        };
        let (kept, next) = match ended {
            Ok(headed) => {
                let looks = special.as_ref().filter(|rules| rules.retries.repeats(headed.status()));
                let Some(other) = looks.and_then(|_| tries.after_status(&headed, &seat, chooser)) else {
                    tries.answered(headed.permit());
                    return Ok(headed.answer(upload, head));
                };
                (headed.discard(), Ok(other))
            }
            Err((Some(mut permit), failure)) => {
                // Of several at a time it is the last one that has failed.
                let seat = permit.seat().map_or_else(|| Rc::clone(&seat), Rc::clone);
                let next = tries.after(&failure, &mut permit, &seat, &upload, chooser);
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
