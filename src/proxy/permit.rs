//! A permit: the proof that a request is counted in on its version, and the pen that records how it ended.

mod seen;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::admission::{Class, Superseded};
use super::clock::{self, Alarm};
use super::journal::Record;
use super::ledger::Entry;
use super::live::Live;
use super::quota::Slot;
use super::upstream::flights::Ask;
use super::upstream::{Local, Place, Seat, Verdict};
use crate::metrics::{Cells, Hedge, Kind, Outcome, Reason, Retry};
use crate::table::Epoch;
use seen::Seen;

/// One request in flight on one version. Counts until dropped: move it into the body or the tunnel, so that it ends
/// with the last byte and not with the head.
#[derive(Debug)]
pub struct Permit {
    local: Rc<Local>,
    /// Its key among what the worker has in flight.
    flight: usize,
    /// The endpoint that it is tried with.
    seat: Option<Rc<Seat>>,
    kind: Cell<Kind>,
    /// Among whom it is counted in.
    class: Cell<Class>,
    since: Instant,
    /// Since when its endpoint has had all of it: the last attempt's beginning, or the end of its upload.
    asked: Cell<Instant>,
    /// Set from the head of a good answer to its end: how long the endpoint took for it, if anybody wants to know.
    good: Cell<Option<Option<Duration>>>,
    /// What to record at the end; a request dropped before anything is known was left by its client.
    code: Cell<u16>,
    reason: Cell<Option<Reason>>,
    /// True when it was ended in words, because its version is being left.
    is_dismissed: Cell<bool>,
    /// Who sees how it ends.
    seen: Cell<Seen>,
    /// Where its end is noted too: the access log, when that is on.
    record: Option<Rc<Record>>,
    /// The epoch it was admitted under.
    pub epoch: Epoch,
    /// Its place among those that its service may have at once, if there is a limit.
    pub slot: Option<Slot>,
    /// Its places in its version's circuit, if that has limits.
    pub places: Option<Box<Places>>,
    /// Its entry in the ledger of its service, if it is supervised.
    pub entry: Option<Rc<Entry>>,
}

/// What a request takes of its version's limits.
#[derive(Debug, Default)]
pub struct Places {
    /// Among all that the version may have at once.
    pub version: Option<Place>,
    /// Among those that its endpoint may have.
    pub endpoint: Option<Place>,
    /// In the line of a hold, until it has the others.
    pub line: Option<Box<super::hold::Place>>,
}

impl Permit {
    /// Counts one request in on this version, unless the snapshot it was chosen from is no longer the published one.
    ///
    /// # Errors
    /// [`Superseded`] when a newer epoch was published in between; choose again from it.
    pub fn admit(
        local: &Rc<Local>,
        live: &Live,
        chosen_under: Epoch,
        (kind, class): (Kind, Class),
    ) -> Result<Self, Superseded> {
        local.shard().of(class).admit(live.published(), chosen_under.0)?;
        local.shard().cells().enter(kind);
        let since = clock::now();
        Ok(Self {
            local: Rc::clone(local),
            flight: local.flights().enter(local.id(), kind, since),
            seat: None,
            kind: Cell::new(kind),
            class: Cell::new(class),
            since,
            asked: Cell::new(since),
            good: Cell::new(None),
            code: Cell::new(Reason::ClientGone.status()),
            reason: Cell::new(Some(Reason::ClientGone)),
            is_dismissed: Cell::new(false),
            seen: Cell::new(Seen::Both),
            record: None,
            epoch: chosen_under,
            slot: None,
            places: None,
            entry: None,
        })
    }

    /// Notes its end in `record` too.
    pub fn note_in(&mut self, record: &Rc<Record>) {
        self.record = Some(Rc::clone(record));
    }

    /// Where its end is noted.
    pub fn record(&self) -> Option<&Rc<Record>> {
        self.record.as_ref()
    }

    /// The worker's part of the version it counts on.
    pub fn local(&self) -> &Rc<Local> {
        &self.local
    }

    /// From now on this is work of another kind.
    pub fn becomes(&self, kind: Kind) {
        let before = self.kind.replace(kind);
        if before != kind {
            self.cells().enter(kind);
            self.cells().leave(before);
            self.local.flights().becomes(self.flight, kind);
            if is_lasting(kind) && !self.class.get().is_lasting() {
                self.lasts();
            }
            if has_no_end(kind) {
                self.stands();
            }
        }
    }

    /// It is a call of this kind, which may go on sending for as long as it lasts.
    pub fn is_call(&self, kind: Kind) {
        self.becomes(kind);
        self.entry.as_ref().inspect(|entry| entry.uploaded());
    }

    /// Nobody knows any more how long it will take.
    fn lasts(&self) {
        let before = self.class.get();
        let after = before.lasting();
        let shard = self.local.shard();
        shard.of(after).take_over(shard.of(before));
        self.class.set(after);
    }

    /// It is tried with this endpoint.
    pub fn goes_to(&mut self, seat: &Rc<Seat>, alarm: &Rc<Alarm>) {
        seat.enter();
        let before = self.seat.replace(Rc::clone(seat));
        if before.is_some() || self.places.is_some() {
            // It was tried elsewhere, or has waited.
            self.asked.set(clock::now());
        }
        before.inspect(|before| before.leave());
        self.good.set(None);
        self.local.flights().goes_to(self.flight, seat, alarm);
        self.entry.as_ref().inspect(|entry| entry.goes_to(seat));
    }

    /// The attempt with this endpoint, which began at `since`, is the one that counts.
    pub fn goes_on_with(&mut self, seat: &Rc<Seat>, alarm: &Rc<Alarm>, since: Instant) {
        self.goes_to(seat, alarm);
        self.asked.set(since);
    }

    /// Its key among what the worker has in flight.
    pub fn flight(&self) -> usize {
        self.flight
    }

    /// Whoever polls it is woken by this alarm when something is asked of it.
    pub fn is_woken_by(&self, alarm: &Rc<Alarm>) {
        if let Some(seat) = &self.seat {
            self.local.flights().goes_to(self.flight, seat, alarm);
        }
    }

    /// It goes out to its endpoint, over a connection that stands.
    pub fn is_sent(&self) {
        self.entry.as_ref().inspect(|entry| entry.sent());
    }

    /// The endpoint that it is tried with.
    pub fn seat(&self) -> Option<&Rc<Seat>> {
        self.seat.as_ref()
    }

    /// It is tried with nobody any more: what becomes of it is no endpoint's doing.
    pub fn blames_nobody(&mut self) {
        self.seat.take().inspect(|seat| seat.leave());
    }

    /// What is asked of it, because its version is being left.
    #[must_use]
    pub fn ask(&self) -> Ask {
        self.local.flights().ask(self.flight)
    }

    /// It can be ended before its time, in its protocol's own words.
    pub fn has_words(&self) {
        self.local.flights().has_words(self.flight);
    }

    /// It was ended before its time, in its protocol's own words: nothing has failed.
    pub fn said_goodbye(&self) {
        self.reason.set(None);
        if !self.is_dismissed.replace(true) {
            self.cells().dismiss(self.kind.get());
        }
    }

    /// Work of the kind `before` is now work of the kind `after`.
    pub fn becomes_if(&self, before: Kind, after: Kind) {
        if self.kind.get() == before {
            self.becomes(after);
            if before == Kind::Upload {
                self.asked.set(clock::now());
                self.entry.as_ref().inspect(|entry| entry.uploaded());
            }
        }
    }

    /// The version answered with this status; its body may still fail.
    pub fn answered(&self, code: u16) {
        self.code.set(code);
        if let Some(entry) = &self.entry {
            entry.answered(code, self.kind.get() == Kind::Grpc, self.seat.as_deref());
        }
        match (Verdict::of_status(code), &self.seat) {
            // Good it is when all of it has come.
            (Verdict::Ok, Some(seat)) => self.good.set(Some(seat.answered(self.asked()))),
            (verdict, _) => self.attempt_ended(Some(verdict)),
        }
        if has_no_end(self.kind.get()) {
            self.stands();
        }
    }

    /// Since when its endpoint has had all of it; `None` while the rest of it is still on its way.
    fn asked(&self) -> Option<Instant> {
        (self.kind.get() != Kind::Upload).then(|| self.asked.get())
    }

    /// The answer was good, whatever comes now.
    fn stands(&self) {
        self.served();
        self.entry.as_ref().inspect(|entry| entry.stands());
    }

    /// The endpoint hears that its answer was good.
    fn served(&self) {
        if let Some((seat, took)) = self.seat.as_ref().zip(self.good.take()) {
            seat.served(took);
        }
    }

    /// The endpoint hears how the attempt with it ended, if that is the endpoint's doing.
    fn attempt_ended(&self, verdict: Option<Verdict>) {
        self.good.set(None);
        if let Some((seat, verdict)) = self.seat.as_ref().zip(verdict) {
            seat.ended(verdict, self.asked());
        }
    }

    /// The status of a gRPC call, as its trailers tell it; `None`: it is over and has told none.
    pub fn grpc_status(&self, status: Option<&HeaderValue>) {
        let code = status.and_then(|status| status.to_str().ok()?.parse().ok());
        self.cells().record_grpc(code);
        self.entry.as_ref().inspect(|entry| entry.grpc(code, self.seat.as_deref()));
    }

    /// The whole answer has come.
    pub fn complete(&self) {
        self.reason.set(None);
        self.stands();
    }

    /// It failed for this reason, whatever was answered before.
    pub fn failed(&self, reason: Reason) {
        self.reason.set(Some(reason));
        // An endpoint that had the whole request and has not answered took all of the time that there was.
        let is_late = reason == Reason::Deadline
            && self.kind.get() != Kind::Upload
            && self.code.get() == Reason::ClientGone.status();
        self.entry.as_ref().inspect(|entry| entry.failed(reason, is_late, self.seat.as_deref()));
        // What has no end may be silent: it was answered, and breaks no promise.
        let is_silent = reason == Reason::BodyStalled && has_no_end(self.kind.get());
        let verdict = if is_late { Some(Verdict::Timeout) } else { Verdict::of_reason(reason) };
        self.attempt_ended(verdict.filter(|_| !is_silent));
    }

    /// It failed for this reason, and is over.
    ///
    /// # Errors
    /// The reason, always.
    pub fn fail<T>(self, reason: Reason) -> Result<T, Reason> {
        self.failed(reason);
        Err(reason)
    }

    /// True when its client has left before the endpoint answered.
    fn was_left(&self) -> bool {
        self.reason.get() == Some(Reason::ClientGone) && self.code.get() == Reason::ClientGone.status()
    }

    /// Since when the present attempt is made.
    pub fn tried_since(&self) -> Instant {
        self.asked.get()
    }

    /// One attempt failed, and another one is made within this permit.
    pub fn attempt_failed(&self, reason: Reason) {
        self.entry.as_ref().inspect(|entry| entry.failed(reason, false, self.seat.as_deref()));
        self.cells().record_unseen(self.outcome(Some(reason)));
        self.attempt_ended(Verdict::of_reason(reason));
    }

    /// One attempt was answered with this status, and another one is made within this permit.
    pub fn attempt_answered(&self, code: u16) {
        if let Some(entry) = &self.entry {
            entry.answered(code, false, self.seat.as_deref());
            // What comes now is of another attempt.
            entry.stands();
        }
        self.cells().record_unseen(Outcome { code, ..self.outcome(None) });
        self.attempt_ended(Some(Verdict::of_status(code)));
    }

    /// One of several attempts at once failed at this endpoint, and another one goes on.
    pub fn one_failed(&self, seat: &Seat, since: Option<Instant>, reason: Reason) {
        self.cells().record_unseen(self.outcome(Some(reason)));
        if since.is_none() {
            // The first one is the version's whatever hides it; those beside it are as second ones.
            self.entry.as_ref().inspect(|entry| entry.failed(reason, false, Some(seat)));
        }
        if let Some(verdict) = Verdict::of_reason(reason) {
            seat.ended(verdict, Some(since.unwrap_or(self.asked.get())));
        }
    }

    /// What became of an attempt beside another.
    pub fn hedged(&self, hedge: Hedge) {
        self.cells().hedge(hedge);
    }

    /// What became of an attempt after the first.
    pub fn retried(&self, retry: Retry) {
        self.cells().retry(retry);
    }

    fn outcome(&self, reason: Option<Reason>) -> Outcome {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        Outcome { code: self.code.get(), reason, micros }
    }

    fn cells(&self) -> &Cells {
        self.local.shard().cells()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.is_over();
        self.cells().leave(self.kind.get());
        if let Some(record) = &self.record {
            record.ended(self.reason.get());
            if self.is_dismissed.get() && self.reason.get().is_none() {
                record.answered_by_itself("drained");
            }
        }
        self.local.flights().leave(self.flight);
        if let Some(seat) = self.seat.take() {
            if self.was_left() {
                self.asked().inspect(|since| seat.given_up(*since));
            }
            seat.leave();
        }
        // Last: whoever sees nothing in flight also sees everything recorded.
        self.local.shard().end(self.class.get(), || self.local.upstream());
    }
}

/// Work that may go on for hours: its endpoint is not made to wait for a good word.
fn has_no_end(kind: Kind) -> bool {
    matches!(kind, Kind::Sse | Kind::Websocket | Kind::Tunnel)
}

/// Work that does not end with an answer of known length.
fn is_lasting(kind: Kind) -> bool {
    match kind {
        Kind::Request | Kind::Upload => false,
        Kind::Stream | Kind::Sse | Kind::Websocket | Kind::Grpc | Kind::Tunnel | Kind::Mirror => true,
    }
}
