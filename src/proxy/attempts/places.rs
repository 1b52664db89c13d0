//! A request's places in its version's circuit, where that has limits.
//!
//! A request that waits is in flight on its version: a drain waits for it, and it does not wait long enough to hold one up.

use std::rc::Rc;
use std::time::Duration;

use crate::metrics::Reason;
use crate::proxy::choice::Chooser;
use crate::proxy::clock;
use crate::proxy::permit::Permit;
use crate::proxy::upstream::{Full, Place, Seat};
use crate::table::CircuitRules;

/// How many other endpoints are looked at when one is full.
const OTHERS: usize = 4;

/// Takes a place on the version, which may take as long as `limit`.
///
/// # Errors
/// [`Reason::CircuitOpen`].
pub(super) async fn enter(permit: &mut Permit, rules: &CircuitRules, limit: Duration) -> Result<(), Reason> {
    if let Some(size) = rules.requests {
        let local = Rc::clone(permit.local());
        let circuit = local.upstream().circuit();
        let place = circuit.enter(circuit.requests(size), rules.pending, limit).await;
        let place = place.map_err(|Full| Reason::CircuitOpen)?;
        permit.places.get_or_insert_default().version = Some(place);
    }
    Ok(())
}

/// Takes a place with the endpoint of `seat`, or with another one that is none of `tried` and has room, which is then
/// `seat`; when none has, it waits for the first. One that has left the pool meanwhile is not waited for any more.
///
/// # Errors
/// [`Reason::CircuitOpen`]; [`Reason::NoEndpoint`] when there is nobody left to go to.
pub(super) async fn sit(
    permit: &mut Permit,
    seat: &mut Rc<Seat>,
    tried: &[Rc<Seat>],
    rules: &CircuitRules,
    limit: Duration,
    chooser: Chooser<'_>,
) -> Result<(), Reason> {
    let Some(size) = rules.at_endpoint(seat.endpoint.shares_connections()) else { return Ok(()) };
    // That of the attempt before.
    permit.places.get_or_insert_default().endpoint = None;
    let (local, since) = (Rc::clone(permit.local()), clock::now());
    let place = loop {
        let free = at_once(permit, seat, tried, |seat| seat.vitals.room(size).try_enter(), chooser);
        if let Some(place) = free {
            break place;
        }
        let left = limit.saturating_sub(clock::now().saturating_duration_since(since));
        let room = seat.vitals.room(size);
        let place = local.upstream().circuit().enter(room, rules.pending, left).await;
        let place = place.map_err(|Full| Reason::CircuitOpen)?;
        chooser.refresh(&local);
        if local.names(seat) {
            break place;
        }
        // The next one in this line looks as well.
        drop(place);
        *seat = chooser.pick(&local, tried).ok_or(Reason::NoEndpoint)?;
    };
    permit.places.get_or_insert_default().endpoint = Some(place);
    Ok(())
}

/// A place that is free now, with `seat` or another.
fn at_once(
    permit: &Permit,
    seat: &mut Rc<Seat>,
    tried: &[Rc<Seat>],
    try_enter: impl Fn(&Seat) -> Option<Place>,
    chooser: Chooser<'_>,
) -> Option<Place> {
    if let Some(place) = try_enter(seat) {
        return Some(place);
    }
    let mut full = tried.to_vec();
    full.push(Rc::clone(seat));
    for _ in 0..OTHERS {
        let other = chooser.pick(permit.local(), &full)?;
        if let Some(place) = try_enter(&other) {
            *seat = other;
            return Some(place);
        }
        full.push(other);
    }
    None
}
