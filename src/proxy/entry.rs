//! How a request gets in: its route, the hold of its service, its version, and a permit, all under one epoch (G1).

use super::head::Parts;
use http_body::Body as _;

use super::admission::Class;
use super::body::Incoming;
use super::connection::Client;
use super::gate::Asked;
use super::hold::{self, Place, Way};
use super::live::{Lane, Rare, Snapshot, Terms};
use super::permit::Permit;
use super::pressure::Pressure;
use super::quota::{Comer, NotNow, Slot};
use super::sticky::{self, Known, Minted};
use super::story::Story;
use super::targeting::Request;
use super::upgrade::Offer;
use crate::metrics::{Kind, Reason};
use crate::table::Pin;

/// A request that is counted in on the version it was assigned to.
pub(super) struct Admitted {
    pub(super) permit: Permit,
    pub(super) terms: Terms,
    /// True when stable may answer in the version's place, or a copy of it may be sent elsewhere.
    pub(super) is_attended: bool,
    /// What the version may change the protocol to; nobody attends it then.
    pub(super) offer: Option<Offer>,
}

/// How far a request has come.
#[expect(
    clippy::large_enum_variant,
    reason = "moved once and kept nowhere; a box would be an allocation a request"
)]
pub(super) enum Entry {
    Admitted(Admitted),
    /// Its route answers by itself.
    OwnAnswer,
    /// Its service is held, and it only asks whether that is well.
    Check,
    /// Its service is held, and it has a place in the line.
    Held,
}

/// Routes the request and assigns it by a rule, by a pin, by whose it is, or by its coin, under one epoch; again when a change came in between (G1).
pub(super) fn admit(
    client: &Client,
    head: &Parts,
    asked: &Asked<'_>,
    body: &Incoming,
    story: &mut Story,
    place: &mut Option<Box<Place>>,
) -> Result<Entry, Reason> {
    let worker = &client.worker;
    // Wherever it has waited: from then on another process acknowledges changes.
    if worker.is_shut.get() || worker.commons.pressure() == Pressure::Critical {
        return Err(Reason::Overload);
    }
    let mut slot: Option<Slot> = None;
    let coin = worker.coin();
    let kind = if body.is_end_stream() { Kind::Request } else { Kind::Upload };
    let writes = !head.only_reads() || asked.upgrade.is_some();
    loop {
        let snapshot = worker.view.newest();
        let table = &snapshot.table;
        story.epoch = Some(table.epoch());
        let routed = table.route(asked).ok_or(Reason::NoRoute)?;
        if story.take(&snapshot, routed) {
            return Ok(Entry::OwnAnswer);
        }
        let told = (story.pin.as_ref(), &mut story.minted);
        let assigned = assign(&snapshot, routed.service, coin, (client, head, asked), told);
        let Some((lane, known)) = assigned else {
            story.stays_outside(&snapshot, routed);
            return Err(Reason::NoEndpoint);
        };
        let rare = lane.rare.as_deref();
        let gates = rare.and_then(|rare| rare.gates.as_ref());
        let offer = rare.and_then(|rare| Offer::of(head, rare.upgrades.as_deref()?));
        let writes = writes || offer.is_some();
        let mut way = Way::Free;
        if place.is_some() || gates.is_some_and(|gates| !gates.are_idle()) {
            way = hold::look(gates, (head, asked.raw_path(), writes), place);
        }
        if way == Way::Answered {
            return Ok(Entry::Check);
        }
        let terms = *lane.terms;
        if let Some(reason) = barred(lane, body, way) {
            story.stays_outside(&snapshot, routed);
            return Err(reason);
        }
        let (quota, mut full) = (rare.and_then(|rare| rare.quota.as_ref()), None);
        let address = || client.arrival.peer.client(&head.headers);
        if let Some(quota) = quota.filter(|_| way != Way::Held) {
            let comer = if place.is_some() { Comer::Waited } else { Comer::New };
            // Once a request, also when a change came in between.
            match quota.enter(slot.take(), comer, address) {
                Ok(entered) => slot = Some(entered),
                Err(NotNow { reason: Reason::Concurrency, .. })
                    if place.as_ref().is_some_and(|place| !place.patience().is_zero()) =>
                {
                    (way, full) = (Way::Held, Some(quota));
                }
                Err(not_now) => {
                    story.stays_outside(&snapshot, routed);
                    return Err(story.not_now(not_now));
                }
            }
        }
        if let Some(gates) = gates.filter(|_| way == Way::Held) {
            story.stays_outside(&snapshot, routed);
            if let Some(quota) = quota.filter(|_| place.is_none() && slot.is_none()) {
                // When it comes: those who wait would all ask at once when they go on.
                quota.pass(address).map_err(|not_now| story.not_now(not_now))?;
            }
            hold::queue(gates, (head, writes), full, place);
            return Ok(Entry::Held);
        }
        let local = worker.local(lane);
        // Before it is counted in: what both look at may be far away, and is fetched at once so.
        local.follow(&lane.target);
        local.fetch();
        if let Ok(mut permit) =
            Permit::admit(&local, worker.view.live(), table.epoch(), (kind, Class::of(writes)))
        {
            permit.slot = slot;
            let counting = rare.and_then(|rare| rare.counting.as_ref());
            if let Some(counting) = counting.filter(|_| known.is_drawn()) {
                let (from, drawn) = ((&client.arrival.peer, &head.headers), known.drawn());
                permit.entry = Some(counting.begin(worker.id, kind, from, drawn));
            }
            story.assigned(lane, known, &mut permit);
            let is_attended = offer.is_none() && rare.is_some_and(is_attended);
            return Ok(Entry::Admitted(Admitted { permit, terms, is_attended, offer }));
        }
    }
}

/// True when somebody besides the version may have to do with a request.
fn is_attended(rare: &Rare) -> bool {
    rare.shield.is_some() || rare.mirror.is_some()
}

/// Why the request has no business here, whatever has room: it is too large, or so is the line behind a hold.
fn barred(lane: &Lane, body: &Incoming, way: Way) -> Option<Reason> {
    let sizes = body.size_hint().exact().zip(lane.terms.limits.request_body);
    if sizes.is_some_and(|(length, most)| length > most) {
        return Some(Reason::RequestTooLarge);
    }
    if way == Way::Full { limit_of(lane) } else { None }
}

/// The limit that those wait for who stand in the line behind a hold, if there is one.
fn limit_of(lane: &Lane) -> Option<Reason> {
    if lane.terms.limits.in_flight.is_some() {
        return Some(Reason::Concurrency);
    }
    lane.target.pool.circuit.limits().then_some(Reason::CircuitOpen)
}

/// The lane that the request is assigned to, and what has decided: the first rule that fits, else a pin that leads somewhere, else
/// whose it is where users stay, else its coin. `None` where there is none.
fn assign<'s>(
    snapshot: &'s Snapshot,
    service: usize,
    coin: u32,
    request: (&Client, &Parts, &Asked<'_>),
    (pin, minted): (Option<&Pin>, &mut Option<Box<Minted>>),
) -> Option<(&'s Lane, Known)> {
    let lane = snapshot.assign(service, coin)?;
    let rare = lane.rare.as_deref();
    if rare.is_none() && pin.is_none() {
        return Some((lane, Known::by_coin(lane)));
    }
    if let Some(aims) = rare.and_then(|rare| rare.aims.as_ref()) {
        let (client, head, asked) = request;
        if let Some(aim) = aims.aim(&Request { client, head, asked }) {
            return Some((snapshot.lane_of(service, aim.version), Known::by_rule(aim.rule)));
        }
    }
    if let Some(lane) = pin.and_then(|pin| snapshot.pinned(service, pin)) {
        return Some((lane, Known::by_pin(lane)));
    }
    let Some(sticky) = rare.and_then(|rare| rare.sticky.as_ref()) else {
        return Some((lane, Known::by_coin(lane)));
    };
    let known = sticky::know(sticky, lane.assigned_by, request, minted);
    let index = known
        .key
        .and_then(|key| if known.is_turned_away { sticky.assign_new(key) } else { sticky.assign(key) });
    Some((index.map_or(lane, |index| snapshot.lane_of(service, index)), known))
}
