//! The mirror: a copy of a request goes to a version that does not serve it, and its answer is thrown away.
//!
//! A request is served first, as without a mirror. Once the head of its answer is there, which is nobody's to wait for any more, a copy is
//! made of it, if there is room: it is admitted like a request, under the newest epoch and only where copies may come, so that `drained`
//! is not said while one is there or can come. But it is none: it goes over a connection of its own, in a task of its own, and is counted
//! nowhere that anything of users is decided by. What is short for users is not there for copies.

mod copy;
mod digest;
mod exchange;
mod flight;
mod place;

use std::cell::Cell;
use std::rc::Rc;

use super::body::{Incoming, Kept, Source};
use super::connection::Turn;
use super::entry::Admitted;
use super::fields::Note;
use super::gate::Asked;
use super::head::{Answer, Parts};
use super::live::Snapshot;
use super::media;
use super::outgoing::Upload;
use super::pressure::Pressure;
use super::shield;
use super::story::{Place as Way, Story};
use super::upstream::Local;
use super::worker::Worker;
use crate::metrics::Reason;
use crate::table::mirror::MARK;
use crate::table::{MirrorRules, Routed, ServiceName};
use copy::{Copy, Expected};
pub use digest::Watched;
use exchange::Message;
use flight::Flight;
use place::Place;
pub use place::Places;

/// A request that is to be copied, unless something comes in between.
pub(super) struct Original<'r> {
    turn: &'r Turn,
    /// Whose it is.
    service: ServiceName,
    /// What it can be read by once more, and the place of the copy that it is kept for; if it has a body.
    kept: Option<(Kept, Place)>,
    /// True when it has a body that is not kept.
    is_lost: Cell<bool>,
}

/// Serves a request with what its service has besides: a shield, a mirror.
///
/// # Errors
/// As [`shield::serve`].
pub(super) async fn serve(
    turn: &Turn,
    (head, asked): (&Parts, &Asked<'_>),
    body: Incoming,
    admitted: Admitted,
    story: &mut Story,
) -> Result<Answer, Reason> {
    let mut original = Original::of(turn, (head, asked), &admitted);
    let mut answer = shield::serve(turn, (head, asked), body, admitted, story, original.as_mut()).await?;
    if let Some(original) = original {
        original.answered((head, asked), story, &mut answer);
    }
    Ok(answer)
}

/// True while there may be copies at all.
fn are_welcome(worker: &Worker) -> bool {
    !worker.is_stopping.get() && !worker.is_shut.get() && worker.commons.pressure() == Pressure::Calm
}

/// True when such a request may be copied, whatever there is room for: one that ends, and that nobody waits with.
fn may_be_copied(rules: &MirrorRules, head: &Parts, asked: &Asked<'_>) -> bool {
    let is_marked = || head.headers.has(Note::Forwarding) && head.headers.has_any(MARK, |_| true);
    let content = || head.headers.first(Note::ContentType).unwrap_or_default();
    let is_plain = asked.upgrade.is_none() && !asked.expects_continue;
    is_plain && rules.methods.contains(&head.method) && !media::is_grpc(content()) && !is_marked()
}

impl<'r> Original<'r> {
    fn of(turn: &'r Turn, (head, asked): (&Parts, &Asked<'_>), admitted: &Admitted) -> Option<Self> {
        let worker = &turn.client.worker;
        let snapshot = worker.view.newest();
        let upstream = admitted.permit.local().upstream();
        let rules = snapshot.lane(upstream)?.rare.as_ref()?.mirror.as_ref()?;
        if !may_be_copied(rules, head, asked) || !rules.takes(worker.coin()) || !are_welcome(worker) {
            return None;
        }
        Some(Self { turn, service: upstream.service.clone(), kept: None, is_lost: Cell::new(false) })
    }

    /// Keeps the body as it is sent, if there is one and room for it.
    pub(super) fn keep(&mut self, upload: &mut Upload) {
        if upload.is_empty() {
            return;
        }
        let worker = &self.turn.client.worker;
        let snapshot = worker.view.newest();
        let kept = target(&snapshot, worker, &self.service).and_then(|(rules, local)| {
            let place = Place::take(&local, rules.concurrency)?;
            Some((upload.keep(usize::try_from(rules.body).ok()?)?, place))
        });
        self.is_lost.set(kept.is_none());
        self.kept = kept;
    }

    /// The head of its answer is there: a copy is sent.
    fn answered(mut self, request: (&Parts, &Asked<'_>), story: &Story, answer: &mut Answer) {
        if self.is_lost.get() || matches!(answer.source, Source::Tunnel(_)) {
            return;
        }
        let (body, place) = match self.kept.take() {
            None => (None, None),
            Some((kept, place)) => match kept.whole() {
                Some(body) => (Some(body), Some(place)),
                // It is still being sent, or is too much.
                None => return,
            },
        };
        if let Some(copy) = self.admit(request, story, (body, place), answer) {
            copy.send(Rc::clone(&self.turn.client.worker));
        }
    }

    /// Counts a copy in where it may come, if it has room at once.
    fn admit(
        &self,
        (head, asked): (&Parts, &Asked<'_>),
        story: &Story,
        (body, mut place): (Option<Vec<u8>>, Option<Place>),
        answer: &mut Answer,
    ) -> Option<Copy> {
        let worker = &self.turn.client.worker;
        loop {
            if !are_welcome(worker) {
                return None;
            }
            let snapshot = worker.view.newest();
            let routed = snapshot.table.route(asked)?;
            if !self.is_of(&snapshot, routed) {
                return None;
            }
            let (rules, local) = target(&snapshot, worker, &self.service)?;
            let version = snapshot.lane(local.upstream())?.version;
            let way = Way::of(&snapshot, routed, version);
            let taken = place.take().filter(|place| place.is_on(&local));
            let taken = taken.or_else(|| Place::take(&local, rules.concurrency))?;
            let seat = local.seat_for_copy(worker.lot())?;
            let Ok(flight) = Flight::admit(&local, worker, snapshot.table.epoch(), &seat) else {
                place = Some(taken);
                continue;
            };
            let rewritten =
                way.as_ref().and_then(|way| story.rewritten_at(way, &self.turn.client, head, asked));
            let sent = rewritten.as_ref().map_or(*asked, |rewritten| rewritten.asked(asked));
            let sent_head = rewritten.as_ref().map_or(head, |rewritten| &rewritten.head);
            let message =
                Message::of(&self.turn.client, (sent_head, &sent), &seat.endpoint, (body, &self.service));
            let expected = Expected::of(answer, rules.compare, rules.body);
            let (timeout, only_reads) = (rules.timeout, head.only_reads());
            return Some(Copy { flight, _place: taken, seat, message, expected, timeout, only_reads });
        }
    }

    /// True while such a request is still its service's, which does not answer by itself.
    fn is_of(&self, snapshot: &Snapshot, routed: Routed) -> bool {
        let service = &snapshot.table.services()[routed.service];
        let route = service.rules.as_ref().and_then(|rules| rules.route(routed.route));
        service.name == self.service && route.is_none_or(|route| route.answer.is_none())
    }
}

/// Where copies of this service's requests go now, and by which rules.
fn target<'s>(
    snapshot: &'s Snapshot,
    worker: &Worker,
    service: &ServiceName,
) -> Option<(&'s MirrorRules, Rc<Local>)> {
    let index = snapshot.table.index(service)?;
    let service = &snapshot.table.services()[index];
    let rules = service.mirroring()?;
    let version = service.versions.iter().position(|version| version.name == rules.to)?;
    let lane = snapshot.lane_of(index, version);
    let local = worker.local(lane);
    local.follow(&lane.target);
    Some((rules, local))
}
