//! Who sees how a request ends: its version and its user, for nearly all. Where a version has failed and another one answers in its
//! place, the one sees what it did, and the user what he was answered.

use std::time::Instant;

use super::{Permit, Verdict};
use crate::metrics::{Outcome, Reason};
use crate::proxy::clock;

/// Who sees how it ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen {
    /// The version, and the user.
    Both,
    /// Nobody any more: the version has seen it, and the user hears of another one.
    Nobody,
    /// The version; and the user, who has waited since then for what another version had failed.
    Since(Instant),
}

impl Permit {
    /// It has failed here for this reason, and the permit `other` is for what comes now: another version answers.
    pub fn failed_before(&mut self, other: &mut Self, reason: Reason) {
        self.entry.as_ref().inspect(|entry| entry.failed(reason, false, self.seat.as_deref()));
        self.attempt_ended(Verdict::of_reason(reason));
        self.reason.set(Some(reason));
        self.gives_way(other, self.outcome(Some(reason)));
    }

    /// It was answered here with this status, which the user is not to see, and the permit `other` is for what comes now.
    pub fn answered_before(&mut self, other: &mut Self, code: u16) {
        if let Some(entry) = &self.entry {
            entry.answered(code, false, self.seat.as_deref());
            // What comes now is another version's.
            entry.stands();
        }
        self.attempt_ended(Some(Verdict::of_status(code)));
        self.reason.set(None);
        self.gives_way(other, Outcome { code, ..self.outcome(None) });
    }

    fn gives_way(&mut self, other: &mut Self, outcome: Outcome) {
        self.cells().record_covered(outcome);
        self.seen.set(Seen::Nobody);
        self.record = None;
        other.seen.set(Seen::Since(self.since));
        // The client has its place among those of the service once.
        other.slot = self.slot.take();
    }

    /// What became of it is counted.
    pub(super) fn is_over(&self) {
        match self.seen.get() {
            Seen::Both => self.cells().record(self.outcome(self.reason.get())),
            Seen::Nobody => {}
            Seen::Since(since) => self.is_over_in_place(since),
        }
    }

    #[cold]
    fn is_over_in_place(&self, since: Instant) {
        let outcome = self.outcome(self.reason.get());
        let micros = clock::now().saturating_duration_since(since).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.cells().record_in_place(outcome, Outcome { micros, ..outcome });
    }
}
