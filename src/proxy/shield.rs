//! The shield: where a version that is tried has failed, stable answers in its place.
//!
//! The failure stays the version's, at once and as without it: for the judges of it and of its endpoint, and in what the metrics say of
//! it. Only the user sees nothing of it. What stable does then is nobody's proof: no coin has chosen it.
//!
//! It is an admission like any other. The request is routed and counted in under the newest epoch, and only where new requests come to
//! stable: so nothing comes to a version that is drained, held, or kept apart from another. It has to find room there at once; else the
//! failure is the answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::admission::Class;
use super::attempts::{at_once, forward};
use super::body::{Incoming, Kept};
use super::bounds::Bounds;
use super::choice::Chooser;
use super::connection::Turn;
use super::entry::Admitted;
use super::gate::Asked;
use super::head::{Answer, Parts};
use super::ledger;
use super::live::Terms;
use super::mirror::Original;
use super::outgoing::Upload;
use super::permit::{Permit, Places};
use super::pressure::Pressure;
use super::story::{Place, Story};
use super::upstream::{Local, Seat};
use crate::metrics::{Kind, Reason};
use crate::table::{Routed, Service, ShieldRules};

/// How a version has failed a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lost {
    /// For this reason, without an answer.
    Failed(Reason),
    /// With an answer of this status.
    Answered(u16),
}

impl Lost {
    /// That as the access log has it: the outcome, and the status.
    pub(super) fn told(self) -> (&'static str, u16) {
        match self {
            Self::Failed(reason) => (reason.token(), reason.status()),
            Self::Answered(status) => ("ok", status),
        }
    }
}

/// What covers for the version that a request was assigned to.
pub(super) struct Shield<'r> {
    turn: &'r Turn,
    /// The request as it came.
    head: &'r Parts,
    asked: &'r Asked<'r>,
    rules: &'r ShieldRules,
    story: &'r Story,
    has_body: bool,
    /// True when its client waited to be told to send that.
    is_held: bool,
    /// What its body can be read by once more, if it has one and may run twice.
    kept: Option<Kept>,
    /// Who answers in the version's place, once it has failed.
    stand_in: RefCell<Option<Box<StandIn>>>,
}

/// A request that stable is to answer, and is counted in there for.
pub(super) struct StandIn {
    pub(super) permit: Permit,
    /// Its total time is what is left of it.
    terms: Terms,
    /// Where it leads now, if there are rules about that.
    pub(super) place: Option<Place>,
    /// Where it had failed, and how.
    failed: Rc<Local>,
    pub(super) lost: Lost,
}

/// Sends a request to the version it was assigned to, and to stable when that fails; its body is kept for `original`, if it is to be copied.
///
/// # Errors
/// As [`forward`], of whoever had the request last.
pub(super) async fn serve(
    turn: &Turn,
    (head, asked): (&Parts, &Asked<'_>),
    body: Incoming,
    Admitted { permit, terms, .. }: Admitted,
    story: &mut Story,
    original: Option<&mut Original<'_>>,
) -> Result<Answer, Reason> {
    let client = &turn.client;
    let (mut stand_in, mut upload) = {
        let snapshot = client.worker.view.newest();
        let rules =
            snapshot.lane(permit.local().upstream()).and_then(|lane| lane.rare.as_ref()?.shield.as_ref());
        let rewritten = story.rewritten(client, head, asked);
        let sent = rewritten.as_ref().map_or(*asked, |rewritten| rewritten.asked(asked));
        let sent_head = rewritten.as_ref().map_or(head, |rewritten| &rewritten.head);
        let mut upload = Upload::of(sent_head, body, &sent, terms.limits.request_body);
        if let Some(original) = original {
            original.keep(&mut upload);
        }
        let shield = rules.map(|rules| Shield::new(turn, (head, asked, &*story), rules, &mut upload));
        let (shield, record) = (shield.as_ref(), story.record.as_deref());
        let answer = forward(turn, (sent_head, &sent), &mut upload, permit, &terms, record, shield).await;
        // What it has failed with is no answer then.
        match shield.and_then(|shield| shield.stand_in.take()) {
            Some(stand_in) => (stand_in, upload),
            None => return answer,
        }
    };
    story.stands_in(&mut stand_in);
    let StandIn { permit, terms, failed, .. } = *stand_in;
    let rewritten = story.rewritten(client, head, asked);
    let asked = rewritten.as_ref().map_or(*asked, |rewritten| rewritten.asked(asked));
    let head = rewritten.as_ref().map_or(head, |rewritten| &rewritten.head);
    let answer =
        forward(turn, (head, &asked), &mut upload, permit, &terms, story.record.as_deref(), None).await?;
    failed.shard().cells().shield();
    Ok(answer)
}

impl<'r> Shield<'r> {
    fn new(
        turn: &'r Turn,
        (head, asked, story): (&'r Parts, &'r Asked<'r>, &'r Story),
        rules: &'r ShieldRules,
        upload: &mut Upload,
    ) -> Self {
        let (has_body, is_held) = (!upload.is_empty(), upload.is_held());
        let most = usize::try_from(rules.body).unwrap_or(usize::MAX);
        // What may not run twice is sent again only if nothing of it was taken.
        let kept = if head.method.is_idempotent() { upload.keep(most) } else { None };
        Self { turn, head, asked, story, rules, has_body, is_held, kept, stand_in: RefCell::default() }
    }

    /// True when an answer with this status is a failure.
    pub(super) fn takes(&self, status: u16) -> bool {
        self.rules.takes(status)
    }

    /// The version has failed the request for this reason, for good, and it may be sent elsewhere: true when it is stable's from now on,
    /// and its permit here is over.
    pub(super) fn takes_over(
        &self,
        permit: &mut Permit,
        upload: &mut Upload,
        reason: Reason,
        bounds: &Bounds,
    ) -> bool {
        if !is_lost(reason) {
            return false;
        }
        let Some(mut stand_in) = self.admit(permit, upload, Lost::Failed(reason), bounds) else {
            return false;
        };
        permit.failed_before(&mut stand_in.permit, reason);
        self.hand_over(stand_in, upload);
        true
    }

    /// The same of one that was answered, and may be sent elsewhere: its place on stable, if it has one there.
    pub(super) fn admits(
        &self,
        permit: Option<&Permit>,
        upload: &Upload,
        status: u16,
        bounds: &Bounds,
    ) -> Option<Box<StandIn>> {
        self.admit(permit?, upload, Lost::Answered(status), bounds)
    }

    /// The answer is not wanted: the request is stable's from now on.
    pub(super) fn instead(&self, mut permit: Permit, upload: &mut Upload, mut stand_in: Box<StandIn>) {
        if let Lost::Answered(status) = stand_in.lost {
            permit.answered_before(&mut stand_in.permit, status);
        }
        self.hand_over(stand_in, upload);
    }

    fn hand_over(&self, stand_in: Box<StandIn>, upload: &mut Upload) {
        if let Some(kept) = self.kept.as_ref().filter(|_| self.has_body && upload.is_empty()) {
            let is_held = self.is_held && !kept.is_asked_for();
            kept.again().into_iter().for_each(|kept| upload.restore(kept, is_held));
        }
        self.stand_in.replace(Some(stand_in));
    }

    /// Counts the request in on stable, if it is all there, has time left, and stable takes it.
    fn admit(&self, failed: &Permit, upload: &Upload, lost: Lost, bounds: &Bounds) -> Option<Box<StandIn>> {
        let worker = &self.turn.client.worker;
        let now = worker.clock.ticks();
        let is_whole = || self.kept.as_ref().is_some_and(|kept| kept.again().is_some());
        if bounds.is_over(now) || self.has_body && upload.is_empty() && !is_whole() {
            return None;
        }
        let kind = if self.has_body { Kind::Upload } else { Kind::Request };
        let writes = !self.head.only_reads() || self.asked.upgrade.is_some();
        loop {
            if worker.is_shut.get() || worker.commons.pressure() == Pressure::Critical {
                return None;
            }
            let snapshot = worker.view.newest();
            let routed = snapshot.table.route(self.asked)?;
            let service = &snapshot.table.services()[routed.service];
            let (rules, version) = shielding(service, routed, failed)?;
            let lane = snapshot.lane_of(routed.service, version);
            let gates = lane.rare.as_ref().and_then(|rare| rare.gates.as_ref());
            // Who stands in the line has come later: it was let in already.
            if gates.is_some_and(|gates| gates.closed(writes).is_some()) {
                return None;
            }
            let local = worker.local(lane);
            local.follow(&lane.target);
            if !local.may_stand_in(rules, &worker.clock) {
                return None;
            }
            let place = Place::of(&snapshot, routed, version);
            let (seat, places) = self.room(&local, place.as_ref())?;
            let epoch = snapshot.table.epoch();
            let Ok(mut permit) = Permit::admit(&local, worker.view.live(), epoch, (kind, Class::of(writes)))
            else {
                continue;
            };
            local.stands_in(rules, &worker.clock);
            permit.places = places;
            permit.goes_to(&seat, &self.turn.alarm);
            let mut terms = *lane.terms;
            let left = bounds.at_most(Duration::MAX, now);
            terms.timeouts.total = (left < Duration::MAX).then_some(left);
            let failed = Rc::clone(failed.local());
            return Some(Box::new(StandIn { permit, terms, place, failed, lost }));
        }
    }

    /// An endpoint of stable for the request as it is sent there, and the places that are had so.
    fn room(&self, local: &Local, place: Option<&Place>) -> Option<(Rc<Seat>, Option<Box<Places>>)> {
        let Self { turn, head, asked, story, .. } = *self;
        let rewritten = place.and_then(|place| story.rewritten_at(place, &turn.client, head, asked));
        let sent = rewritten.as_ref().map_or(*asked, |rewritten| rewritten.asked(asked));
        let head = rewritten.as_ref().map_or(head, |rewritten| &rewritten.head);
        at_once(local, Chooser { turn, head, asked: &sent })
    }
}

/// True when it is the version that has not answered, whether or not that is counted against it.
fn is_lost(reason: Reason) -> bool {
    let is_withheld =
        matches!(reason, Reason::NoWebsocket | Reason::ResponseTooLarge | Reason::DrainDeadline);
    is_withheld || ledger::is_failure(reason)
}

/// By which rules stable answers for the version that has failed, and its index: while the request still leads to their service, which
/// does not answer by itself.
fn shielding<'s>(service: &'s Service, routed: Routed, failed: &Permit) -> Option<(&'s ShieldRules, usize)> {
    let failed = failed.local().upstream();
    let route = service.rules.as_ref().and_then(|rules| rules.route(routed.route));
    if service.name != failed.service || route.is_some_and(|route| route.answer.is_some()) {
        return None;
    }
    let rules = service.shield(&failed.version)?;
    let stable = service.versions.iter().position(|version| version.name == service.stable)?;
    Some((rules, stable))
}
