//! Whether a request that failed is tried again, and where.

use std::rc::Rc;

use crate::proxy::head::Parts;
use smallvec::SmallVec;

use super::attempt::Headed;
use super::places::{self, Found};
use crate::metrics::{Hedge, Reason, Retry};
use crate::proxy::choice::Chooser;
use crate::proxy::forward::Failure;
use crate::proxy::gate::Asked;
use crate::proxy::outgoing::Upload;
use crate::proxy::permit::Permit;
use crate::proxy::upgrade::Upgrade;
use crate::proxy::upstream::http2::Risk;
use crate::proxy::upstream::{Local, Seat};
use crate::table::Failing;

/// What was tried for one request.
///
/// A request of which an endpoint may have seen something is tried again only if it may run twice: an idempotent one
/// (RFC 9110 §9.2.2) of whose body nothing was taken. It goes to another endpoint, and at once: there is nothing to
/// wait for there, so there is no back-off. The budget keeps many of them from becoming a storm. Where there is no other one, and it
/// was a kept connection that broke, it goes over a fresh one to the same: what has ended may have been the connection alone.
///
/// Two things are no attempts in this sense. A kept connection that turns out to be closed, or on which the endpoint refuses,
/// says nothing about the endpoint: a fresh connection to it takes its place, once; within the budget, and by the rules for one that
/// was reset, unless the endpoint itself says that it has not looked at the request; and whatever the request is, where nothing of it
/// could be sent. And an endpoint that does not accept a connection
/// has seen nothing: another one that accepted the last time costs nothing of the budget, unless it does not accept either. One that
/// accepts and then takes nothing has had its part of the storm.
pub(super) struct Tries {
    /// Where it has failed; and where else it was tried beside.
    tried: SmallVec<[Rc<Seat>; 2]>,
    /// How many attempts were made after one had failed.
    made: u32,
    is_idempotent: bool,
    has_body: bool,
    /// False when a fresh connection is wanted.
    may_reuse: bool,
    /// True when the present attempt was free, because its endpoint was taken to be well.
    is_free: bool,
}

impl Tries {
    /// None yet, of a request with a body or not.
    pub(super) fn new(head: &Parts, asked: &Asked<'_>, has_body: bool) -> Self {
        // A change of protocol that was not answered has not begun.
        let is_idempotent = match asked.upgrade {
            None => head.method.is_idempotent(),
            Some(Upgrade::Http1 | Upgrade::Http2) => true,
            // Nobody knows of what it has not.
            Some(Upgrade::Listed) => false,
        };
        // It may have no second chance, and is about to have a connection of its own in any case.
        let may_reuse = asked.upgrade != Some(Upgrade::Listed);
        Self { tried: SmallVec::new(), made: 0, is_idempotent, has_body, may_reuse, is_free: false }
    }

    /// The endpoints at which it has failed, and the one that is tried now is none of them.
    pub(super) fn tried(&self) -> &[Rc<Seat>] {
        &self.tried
    }

    /// It has failed at this endpoint too, while another one that is tried beside goes on.
    pub(super) fn failed_at(&mut self, seat: &Rc<Seat>) {
        self.tried.push(Rc::clone(seat));
    }

    /// True when a kept connection will do.
    pub(super) fn may_reuse(&self) -> bool {
        self.may_reuse
    }

    /// True when the request may run twice, as far as is known before it was sent.
    pub(super) fn may_repeat(&self) -> bool {
        self.is_idempotent && !self.has_body
    }

    /// True when the request may run twice, once its body is there again.
    pub(super) fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    /// True when the request may be sent to somebody else after this failure, once its body is there again.
    pub(super) fn may_go_elsewhere(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Unconnected(_) | Failure::Refused | Failure::Unsent => true,
            Failure::Stale | Failure::Broken | Failure::Late | Failure::Because(_) => self.is_idempotent,
            // It may be why. Another version need not mind, but for what is known to cost others their connection.
            Failure::Suspect(Risk::None) => self.is_idempotent,
            Failure::Suspect(Risk::Head | Risk::Trailers) => false,
        }
    }

    /// Where the request goes after this failure with the endpoint of `seat`; `upload` is its body, if it is whole again.
    ///
    /// # Errors
    /// Nowhere, and why it has failed.
    pub(super) fn after(
        &mut self,
        failure: &Failure,
        permit: &mut Permit,
        seat: &Rc<Seat>,
        upload: &Upload,
        chooser: Chooser<'_>,
    ) -> Result<Found, Reason> {
        let is_whole = !self.has_body || !upload.is_empty();
        let may_repeat = self.is_idempotent && is_whole;
        let may_go_afresh = self.may_reuse && (may_repeat || is_whole && !matches!(failure, Failure::Stale));
        let (failing, may_go) = match failure {
            Failure::Refused if may_go_afresh => return Ok(self.afresh(permit, seat)),
            Failure::Stale | Failure::Unsent if may_go_afresh && may_be_made_afresh(permit, chooser) => {
                return Ok(self.afresh(permit, seat));
            }
            Failure::Unconnected(_) => (Some(Failing::Connect), is_whole),
            Failure::Refused => (Some(Failing::Refused), is_whole),
            Failure::Late => (Some(Failing::Timeout), may_repeat),
            Failure::Broken | Failure::Because(Reason::UpstreamClosed | Reason::UpstreamProtocol) => {
                (Some(Failing::Reset), may_repeat)
            }
            Failure::Stale | Failure::Unsent | Failure::Suspect(_) | Failure::Because(_) => (None, false),
        };
        let reason = failure.reason();
        if matches!(failure, Failure::Stale | Failure::Unsent | Failure::Suspect(Risk::Head | Risk::Trailers))
        {
            // A kept connection that was closed says nothing about its endpoint, nor does what not everybody takes.
            permit.blames_nobody();
        }
        if self.made > 0 {
            permit.retried(Retry::Failed);
        }
        if self.is_free && failing.is_some() {
            // It led nowhere: whoever does the same next has to have something left for it.
            permit.local().charge(chooser.clock());
        }
        let is_wanted = |failing: Failing| may_go && permit.local().rules().retries.on.contains(&failing);
        if !failing.is_some_and(is_wanted) {
            return Err(reason);
        }
        let same = matches!(failure, Failure::Broken).then_some(seat);
        let waits = |local: &Local, tried: &[_]| {
            chooser.pick(local, tried).or_else(|| same.map(Rc::clone)).map(|seat| (seat, None))
        };
        let other = self.another(permit, seat, Some(failure), chooser, waits).ok_or(reason)?;
        permit.attempt_failed(reason);
        Ok(other)
    }

    /// Where the request goes after an answer with a status that is a reason to try again; `None`: nowhere, this is the
    /// answer. It is given up for a place that is had, not for one that has to be waited for.
    pub(super) fn after_status(
        &mut self,
        headed: &Headed,
        seat: &Rc<Seat>,
        chooser: Chooser<'_>,
    ) -> Option<Found> {
        // Of a body it is not known whether it is still whole.
        let permit = headed.permit().filter(|_| self.may_repeat())?;
        let sits = |local: &Local, tried: &[_]| places::try_sit(local, tried, chooser);
        let other = self.another(permit, seat, None, chooser, sits)?;
        permit.attempt_answered(headed.status());
        Some(other)
    }

    /// The answer goes to the client.
    pub(super) fn answered(&self, permit: Option<&Permit>) {
        if self.made > 0 {
            permit.inspect(|permit| permit.retried(Retry::Answered));
        }
    }

    /// The same endpoint over a fresh connection.
    fn afresh(&mut self, permit: &Permit, seat: &Rc<Seat>) -> Found {
        permit.retried(Retry::Reconnected);
        self.may_reuse = false;
        (Rc::clone(seat), None)
    }

    /// An endpoint that was not tried yet, if one is found and another attempt may be made after this `failure`, or after an answer.
    fn another(
        &mut self,
        permit: &Permit,
        seat: &Rc<Seat>,
        failure: Option<&Failure>,
        chooser: Chooser<'_>,
        find: impl FnOnce(&Local, &[Rc<Seat>]) -> Option<Found>,
    ) -> Option<Found> {
        let local = permit.local();
        if self.made >= local.rules().retries.attempts {
            return None;
        }
        self.tried.push(Rc::clone(seat));
        let (other, place) = find(local, &self.tried)?;
        self.is_free = failure.is_some_and(Failure::is_not_accepted) && !other.is_unreachable();
        if !self.is_free && !may_be_made(permit, chooser) {
            return None;
        }
        self.may_reuse = !Rc::ptr_eq(&other, seat);
        self.made += 1;
        Some((other, place))
    }

    /// An endpoint to be tried beside that of `seat`, which takes its time, if there is one with room for it; with its place.
    pub(super) fn beside(&mut self, permit: &Permit, seat: &Rc<Seat>, chooser: Chooser<'_>) -> Option<Found> {
        let local = permit.local();
        let mut taken = self.tried.clone();
        taken.push(Rc::clone(seat));
        let (other, place) = places::try_sit(local, &taken, chooser)?;
        if !local.may_try_again(chooser.clock()) {
            permit.hedged(Hedge::Exhausted);
            return None;
        }
        self.tried.push(Rc::clone(&other));
        Some((other, place))
    }
}

/// Takes an attempt after the first out of the budget; false when there is none.
fn may_be_made(permit: &Permit, chooser: Chooser<'_>) -> bool {
    let may = permit.local().may_try_again(chooser.clock());
    if !may {
        permit.retried(Retry::Exhausted);
    }
    may
}

/// The same where a request that was reset is tried again at all.
fn may_be_made_afresh(permit: &Permit, chooser: Chooser<'_>) -> bool {
    let is_wanted = {
        let rules = permit.local().rules();
        rules.retries.attempts > 0 && rules.retries.on.contains(&Failing::Reset)
    };
    is_wanted && may_be_made(permit, chooser)
}
