//! An endpoint as one version sees it on one worker: where it is, how it fares, and how much of the version it has.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::balance::Pace;
use super::pool::Endpoint;
use super::suspicion::{Heard, Tally};
use super::vitals::Vitals;
use crate::metrics::Reason;
use crate::proxy::clock;

/// One endpoint in one version's pool. As long as the pool has it, it is the same one.
#[derive(Debug)]
pub struct Seat {
    /// The endpoint, which other versions may share.
    pub endpoint: Rc<Endpoint>,
    /// How it fares in this version, as the whole process knows.
    pub vitals: Arc<Vitals>,
    /// How fast it answers, where that matters.
    pub pace: Pace,
    in_flight: Cell<u32>,
    /// How attempts ended, in the order of [`Verdict::ALL`].
    verdicts: [Cell<u64>; Verdict::ALL.len()],
    /// True when there was no connection to be had the last time.
    is_unreachable: Cell<bool>,
    /// What this worker counts where endpoints are compared.
    tally: OnceCell<Arc<Tally>>,
}

/// What an attempt says about the endpoint that it was made with. What a client did says nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered.
    Ok,
    /// No connection, or not in time, or no TLS over it: nothing was sent.
    ConnectFailed,
    /// Nothing in time: no head, or no more of the body.
    Timeout,
    /// It closed or reset the connection, or what it sent was not HTTP.
    Reset,
    /// It answered 502, 503 or 504: what is behind it fails, or it wants no more.
    Gateway,
    /// It answered with another 5xx.
    ServerError,
}

impl Verdict {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::ConnectFailed, Self::Timeout, Self::Reset, Self::Gateway, Self::ServerError];

    /// That, as far as ejection goes.
    fn heard(self) -> Heard {
        match self {
            Self::Ok => Heard::Good,
            Self::ConnectFailed | Self::Timeout | Self::Reset => Heard::Nothing,
            Self::Gateway => Heard::Gateway,
            Self::ServerError => Heard::Error,
        }
    }

    /// What an answer with this status says.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::Gateway,
            500.. => Self::ServerError,
            _ => Self::Ok,
        }
    }

    /// What a failure for this reason says; `None` when it is not the endpoint's.
    #[must_use]
    pub fn of_reason(reason: Reason) -> Option<Self> {
        match reason {
            Reason::ConnectFailed | Reason::ConnectTimeout | Reason::UpstreamTls => Some(Self::ConnectFailed),
            Reason::ResponseTimeout | Reason::BodyStalled => Some(Self::Timeout),
            Reason::UpstreamClosed | Reason::UpstreamProtocol | Reason::BodyTruncated => Some(Self::Reset),
            _ => None,
        }
    }
}

impl Seat {
    /// With nothing in flight.
    #[must_use]
    pub fn new(endpoint: Rc<Endpoint>, vitals: Arc<Vitals>) -> Self {
        let (in_flight, verdicts, is_unreachable) = (Cell::new(0), Default::default(), Cell::new(false));
        let pace = Pace::default();
        Self { endpoint, vitals, pace, in_flight, verdicts, is_unreachable, tally: OnceCell::new() }
    }

    /// What this worker has with it, of this version.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// One more.
    pub fn enter(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// One less.
    pub fn leave(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }

    /// An attempt that began at `since` came to its answer's head, or failed; told once more when the body fails later.
    pub fn ended(&self, verdict: Verdict, since: Instant) {
        if self.pace.is_measured() {
            self.pace.observe(since, clock::now(), verdict != Verdict::Ok);
        }
        let count = &self.verdicts[verdict as usize];
        count.set(count.get() + 1);
        self.is_unreachable.set(verdict == Verdict::ConnectFailed);
        let heard = verdict.heard();
        if self.vitals.hear(heard) {
            let took = clock::now().saturating_duration_since(since);
            let tally = self.tally.get_or_init(|| self.vitals.tally());
            tally.record(heard, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// True when this worker could not connect to it the last time.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.is_unreachable.get()
    }

    /// How many attempts of this worker's ended so.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.verdicts[verdict as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_judged_by_what_it_did_and_not_by_its_client() {
        let judged = |reason| Verdict::of_reason(reason).is_some();
        let guilty: Vec<_> = Reason::ALL.into_iter().filter(|reason| judged(*reason)).collect();
        let expected = [
            Reason::ConnectFailed,
            Reason::ConnectTimeout,
            Reason::UpstreamTls,
            Reason::UpstreamClosed,
            Reason::UpstreamProtocol,
            Reason::ResponseTimeout,
            Reason::BodyStalled,
            Reason::BodyTruncated,
        ];
        assert_eq!(guilty, expected);
        let of = [200, 404, 500, 501, 502, 503, 504, 505].map(Verdict::of_status);
        use Verdict::{Gateway, Ok, ServerError};
        assert_eq!(of, [Ok, Ok, ServerError, ServerError, Gateway, Gateway, Gateway, ServerError]);
    }
}
