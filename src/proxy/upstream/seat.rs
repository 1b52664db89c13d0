//! An endpoint as one version sees it on one worker: where it is, how it fares, and how much of the version it has.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::Pace;
use super::pool::Endpoint;
use super::suspicion::{Heard, Tally};
use super::vitals::{Vitals, Watching};
use crate::metrics::Reason;
use crate::proxy::clock;

/// One endpoint in one version's pool. As long as the pool has it, it is the same one.
///
/// With the counts of its `Rc` it is one cache line, which a request of a version with an endpoint of its own has to fetch.
#[derive(Debug)]
pub struct Seat {
    /// The endpoint, which other versions may share.
    pub endpoint: Rc<Endpoint>,
    /// How it fares in this version, as the whole process knows.
    pub vitals: Arc<Vitals>,
    /// How fast it answers, where that matters.
    pub pace: Pace,
    in_flight: Cell<u32>,
    /// True when there was no connection to be had the last time.
    is_unreachable: Cell<bool>,
    /// What is looked for in its attempts, as the vitals said when that was last looked at: they are not touched for an
    /// endpoint in which nothing is looked for.
    watched: Cell<Watching>,
    /// What this worker counts where endpoints are compared.
    tally: OnceCell<Arc<Tally>>,
}

const _: () = assert!(size_of::<Seat>() + 2 * size_of::<usize>() <= 64, "a cache line");

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
        let (pace, in_flight, is_unreachable) = (Pace::default(), Cell::new(0), Cell::new(false));
        let (watched, tally) = (Cell::default(), OnceCell::new());
        Self { endpoint, vitals, pace, in_flight, is_unreachable, watched, tally }
    }

    /// Takes over what is looked for in its attempts, and how its pace is measured, if it is.
    pub(super) fn look(&self, decay: Option<Duration>) {
        self.pace.measure(decay);
        self.watched.set(self.vitals.watching());
    }

    /// A number that no other endpoint of its version has, and all workers know it by.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.vitals.id()
    }

    /// The number of the room in which its requests are counted where they are limited, on all workers. It goes with the address: who
    /// went and comes back while it has requests has the same one.
    #[must_use]
    pub fn room(&self) -> u64 {
        **self.vitals.room()
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

    /// The head of a good answer has come to a request that it has had since then. How long it took, if that is known and
    /// anybody wants to know.
    #[must_use]
    pub fn answered(&self, since: Option<Instant>) -> Option<Duration> {
        self.is_unreachable.set(false);
        let since = since.filter(|_| self.pace.is_measured() || self.watched.get() == Watching::Times)?;
        let now = clock::now();
        self.pace.observe(since, now, false);
        Some(now.saturating_duration_since(since))
    }

    /// A request that it has had since then was given up before it answered, and by nobody's fault.
    pub fn given_up(&self, since: Instant) {
        if self.pace.is_measured() {
            self.pace.outlast(since, clock::now());
        }
    }

    /// One that it has had since then was answered faster by another, who was asked later.
    pub fn outrun(&self, since: Instant) {
        self.given_up(since);
        if self.watched.get() == Watching::Times {
            self.tally.get_or_init(|| self.vitals.tally()).time(since.elapsed());
        }
    }

    /// All of a good answer has come, whose head took so long.
    pub fn served(&self, took: Option<Duration>) {
        self.told(Heard::Good, took);
    }

    /// An attempt has ended so, with a request that it has had since then if that is known.
    pub fn ended(&self, verdict: Verdict, since: Option<Instant>) {
        if self.pace.is_measured() {
            let now = clock::now();
            self.pace.observe(since.unwrap_or(now), now, verdict != Verdict::Ok);
        }
        self.is_unreachable.set(verdict == Verdict::ConnectFailed);
        self.told(verdict.heard(), None);
    }

    fn told(&self, heard: Heard, took: Option<Duration>) {
        if self.watched.get() != Watching::Nothing && self.vitals.hear(heard) {
            let tally = self.tally.get_or_init(|| self.vitals.tally());
            tally.record(heard, took);
        }
    }

    /// True when this worker could not connect to it the last time.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.is_unreachable.get()
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
