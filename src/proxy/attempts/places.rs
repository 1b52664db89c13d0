//! A request's places in its version's circuit, where that has limits.
//!
//! A request that waits is in flight on its version: a drain waits for it, and it does not wait long enough to hold one up.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use crate::metrics::Reason;
use crate::proxy::choice::Chooser;
use crate::proxy::hold;
use crate::proxy::permit::{Permit, Places};
use crate::proxy::upstream::{Local, NoPlace, Picked, Place, Seat, Seek, Wish};
use crate::table::CircuitRules;

/// The only room there is for a version's requests.
const ALL: u64 = 0;

/// An endpoint, and the place that is had there already, if one is.
pub(super) type Found = (Rc<Seat>, Option<Place>);

/// Who has waited in a hold stays in line until he has his places: it is the turn of those behind him only when there may be room
/// for them.
pub(in crate::proxy) fn stay_in_line(permit: &mut Permit, mut place: Box<hold::Place>) {
    place.goes_on();
    let is_limited = permit.local().special().is_some_and(|rules| rules.circuit.limits());
    if !is_limited {
        return;
    }
    if place.patience().is_zero() {
        // All that still wait go on at once now, which is no fault of the version.
        permit.entry = None;
    } else {
        permit.places.get_or_insert_default().line = Some(place);
    }
}

/// He has them.
pub(super) fn leave_line(permit: &mut Permit) {
    if let Some(places) = &mut permit.places {
        places.line = None;
    }
}

fn line(permit: &Permit) -> Option<&hold::Place> {
    permit.places.as_ref()?.line.as_deref()
}

/// How many may wait already for who waits with them; who stands in line stands for himself.
fn pending(permit: &Permit, rules: &CircuitRules) -> Option<u32> {
    line(permit).is_none().then_some(rules.pending)
}

/// There is no place, for this reason: it is no fault of the version when that so many have come at once says something of the hold alone.
pub(super) fn excuse(permit: &mut Permit, reason: Reason) {
    if reason == Reason::CircuitOpen && line(permit).is_some() {
        permit.entry = None;
    }
}

/// How long a request waits for a place.
pub(super) fn patience(permit: &Permit, rules: &CircuitRules) -> Duration {
    line(permit).map_or(rules.queue_timeout, |line| line.patience().max(rules.queue_timeout))
}

/// Takes a place on the version, which may take as long as `limit`.
///
/// # Errors
/// [`Reason::CircuitOpen`]; [`Reason::ClientGone`].
pub(super) async fn enter(
    permit: &mut Permit,
    rules: &CircuitRules,
    limit: Duration,
    chooser: Chooser<'_>,
) -> Result<(), Reason> {
    let has_one = permit.places.as_ref().is_some_and(|places| places.version.is_some());
    if rules.requests.is_some() && !has_one {
        let local = Rc::clone(permit.local());
        let circuit = local.upstream().circuit();
        let seeker = Newcomer { local: &local, chooser };
        let entered = circuit.enter(&circuit.requests, seeker, pending(permit, rules), limit);
        let ((), place) = chooser.turn.unless_left(entered).await?.map_err(reason)?;
        permit.places.get_or_insert_default().version = Some(place);
    }
    Ok(())
}

/// Takes a place with the endpoint of `seat`, or with another one that is none of `tried` and has room, which is then
/// `seat`; when none has, it waits for the first that becomes free at any of them.
///
/// # Errors
/// [`Reason::CircuitOpen`]; [`Reason::ClientGone`]; [`Reason::NoEndpoint`] when there is nobody left to go to.
pub(super) async fn sit(
    permit: &mut Permit,
    seat: &mut Rc<Seat>,
    tried: &[Rc<Seat>],
    rules: &CircuitRules,
    limit: Duration,
    chooser: Chooser<'_>,
) -> Result<(), Reason> {
    if permit.local().most_at_endpoint().is_none() {
        return Ok(());
    }
    let held = &mut permit.places.get_or_insert_default().endpoint;
    if held.as_ref().is_some_and(|place| place.is_in(seat.room())) {
        // The same one again, over a fresh connection.
        return Ok(());
    }
    *held = None;
    let local = Rc::clone(permit.local());
    let circuit = local.upstream().circuit();
    let chosen = Some(Picked { seat: Rc::clone(seat), is_panic: false });
    let seeker = Guest { local: &local, tried, chooser, chosen };
    let entered = circuit.enter(&circuit.endpoints, seeker, pending(permit, rules), limit);
    let (other, place) = chooser.turn.unless_left(entered).await?.map_err(reason)?;
    // That it was chosen is counted: once, however often it has looked for room.
    *seat = other.seat;
    permit.places.get_or_insert_default().endpoint = Some(place);
    Ok(())
}

/// An endpoint that is none of `tried` and has room now, with a place there, where those are limited.
pub(super) fn try_sit(local: &Local, tried: &[Rc<Seat>], chooser: Chooser<'_>) -> Option<Found> {
    if local.most_at_endpoint().is_none() {
        return chooser.pick(local, tried).map(|seat| (seat, None));
    }
    let mut seeker = Guest { local, tried, chooser, chosen: None };
    let (picked, place) = local.upstream().circuit().endpoints.try_enter(&mut seeker)?;
    Some((picked.counted(local), Some(place)))
}

/// An endpoint that has room now on a version that has, and the places that are had so.
pub(in crate::proxy) fn at_once(
    local: &Local,
    chooser: Chooser<'_>,
) -> Option<(Rc<Seat>, Option<Box<Places>>)> {
    let is_limited = local.rules().circuit.requests.is_some();
    let rooms = is_limited.then(|| &local.upstream().circuit().requests);
    let version = match rooms {
        Some(rooms) => Some(rooms.try_enter(&mut Newcomer { local, chooser })?.1),
        None => None,
    };
    let (seat, endpoint) = try_sit(local, &[], chooser)?;
    let has_some = version.is_some() || endpoint.is_some();
    Some((seat, has_some.then(|| Box::new(Places { version, endpoint, line: None }))))
}

fn reason(why: NoPlace) -> Reason {
    match why {
        NoPlace::Full => Reason::CircuitOpen,
        NoPlace::Nowhere => Reason::NoEndpoint,
    }
}

/// Who looks for a place on a version.
struct Newcomer<'s> {
    local: &'s Local,
    chooser: Chooser<'s>,
}

impl Seek for Newcomer<'_> {
    type Found = ();

    fn refresh(&mut self) {
        self.chooser.refresh(self.local);
    }

    fn choose(&mut self, has_place: &dyn Fn(u64, Option<NonZeroU32>) -> bool) -> Result<(u64, ()), Wish> {
        let size = self.local.rules().circuit.requests;
        if has_place(ALL, size) { Ok((ALL, ())) } else { Err(Wish { rooms: vec![ALL], size }) }
    }
}

/// Who looks for a place with an endpoint that is none of `tried`.
struct Guest<'s> {
    local: &'s Local,
    tried: &'s [Rc<Seat>],
    chooser: Chooser<'s>,
    /// The one that was chosen without a look at its room.
    chosen: Option<Picked>,
}

impl Seek for Guest<'_> {
    type Found = Picked;

    fn refresh(&mut self) {
        self.chooser.refresh(self.local);
    }

    fn choose(&mut self, has_place: &dyn Fn(u64, Option<NonZeroU32>) -> bool) -> Result<(u64, Picked), Wish> {
        let size = self.local.most_at_endpoint();
        let chosen = self.chosen.take().filter(|picked| has_place(picked.seat.room(), size));
        let has_place = |seat: &Seat| has_place(seat.room(), size);
        let picked = chosen.map_or_else(|| self.chooser.pick_of(self.local, self.tried, has_place), Ok);
        picked.map(|picked| (picked.seat.room(), picked)).map_err(|rooms| Wish { rooms, size })
    }
}
