//! How much is left of what is over by time, as a process knows it for the one that takes its place. What is written down goes by the
//! calendar: who begins with that alone believes whoever has set it meanwhile.

use std::time::{Duration, Instant};

use super::{Handle, clock};
use crate::release::Timestamp;
use crate::table::ServiceName;

/// The most that are told of; of the others the next process goes by the calendar.
const MOST: usize = 20_000;

/// Something of a service that is over by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The service.
    pub service: ServiceName,
    /// What.
    pub of: TermOf,
    /// When, as it is written down by the calendar: names it, for that is written anew with each.
    pub until: Timestamp,
    /// How much of it is left, by a clock that nobody sets.
    pub left: Duration,
}

/// What is over by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TermOf {
    /// A ramp's step.
    Step,
    /// The comparison of a candidate.
    Trial,
    /// A retirement, at the latest.
    Retirement,
}

impl TermOf {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Step, Self::Trial, Self::Retirement];

    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Trial => "trial",
            Self::Retirement => "retirement",
        }
    }
}

/// When something is over: as it is written down, and on the clock that nobody sets.
pub(super) type End = (Timestamp, Instant);

impl Handle {
    /// What is left of all that is over by time. To be asked once nothing is decided any more.
    #[must_use]
    pub fn terms(&self) -> Vec<Term> {
        let now = clock::instant();
        let all = [
            (TermOf::Step, self.ramps.ends()),
            (TermOf::Trial, self.verdicts.ends()),
            (TermOf::Retirement, self.retirements.ends()),
        ];
        let told = all.into_iter().flat_map(|(of, ends)| {
            ends.into_iter().map(move |(service, (until, due))| {
                let left = due.saturating_duration_since(now);
                Term { service, of, until, left }
            })
        });
        told.take(MOST).collect()
    }

    /// Goes on with these, as far as the same is written here. To be called before anybody goes by what was found.
    pub fn go_on_with(&self, terms: Vec<Term>) {
        let now = clock::instant();
        for Term { service, of, until, left } in terms {
            let end = (until, now + left);
            match of {
                TermOf::Step => self.ramps.go_on(&service, end),
                TermOf::Trial => self.verdicts.go_on(self.live.snapshot().ledger(&service), service, end),
                TermOf::Retirement => self.retirements.go_on(&service, end),
            }
        }
    }
}
