//! A request's entry in the ledger of its service.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use super::out::Way;
use super::page::{Decided, Outcome, Page};
use super::quiet::{Bad, Slot};
use super::{Counting, LATELY, Side, micros};
use crate::metrics::{GRPC_FAILURES, Kind, Reason};
use crate::proxy::clock;
use crate::proxy::fields::Fields;
use crate::proxy::peer::Peer;
use crate::proxy::quota::network;
use crate::proxy::upstream::{Seat, Verdict};
use crate::table::StickyKey;
use crate::table::latency::bucket;

/// One request, from its coin to the end of its first attempt.
#[derive(Debug)]
pub struct Entry {
    page: Arc<Page>,
    side: Side,
    generation: u32,
    /// When it was begun, or its upload was over; microseconds after the ledger.
    begun: Cell<u64>,
    /// The client as one of many.
    client: u16,
    /// The same by what it is known again, where that decides on its version.
    slot: Option<Slot>,
    /// Since when the endpoint has it, over a connection that stands.
    sent: Cell<Option<Instant>>,
    /// The bucket of how long the head took.
    took: Cell<Option<usize>>,
    flight: Cell<Flight>,
    /// It is with an endpoint whose speed does not count yet.
    is_cold: Cell<bool>,
    /// Its client has asked for so much that it does not count while it is out.
    is_beyond: bool,
    end: Cell<End>,
}

/// Whose the coin of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    /// There is none: one version has everything.
    Nobodys,
    /// Its own.
    Its,
    /// Its client's.
    Clients(StickyKey),
}

/// What is known of the first attempt's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum End {
    #[default]
    Unknown,
    /// It was answered well, and what it was answered with may still be broken off.
    Good,
    /// All that there is to know.
    Known,
}

/// Whether it is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    /// Not yet: its client is still sending, at its own pace.
    Uploading,
    /// It is in flight.
    Out,
    /// Its head has come, or never will.
    Back,
}

impl Counting {
    /// Writes a request of this client in, on this worker.
    #[must_use]
    pub fn begin(
        &self,
        worker: usize,
        kind: Kind,
        (peer, fields): (&Peer, &Fields),
        drawn: Drawn,
    ) -> Rc<Entry> {
        let (client, now) = (number(peer, fields), clock::now());
        let slot = match drawn {
            Drawn::Nobodys | Drawn::Its => None,
            Drawn::Clients(key) => Some(Slot::of(HASHER.hash_one(key))),
        };
        let page = Arc::clone(self.ledger.page(worker));
        let newest = &page.shared.newest;
        if newest.load(Ordering::Relaxed) < self.generation {
            newest.fetch_max(self.generation, Ordering::Relaxed);
        }
        let begun = micros(page.shared.begun, now);
        let flight = if kind == Kind::Upload { Flight::Uploading } else { Flight::Out };
        let (generation, side) = (self.generation, self.side);
        let is_beyond = side == Side::Candidate && !page.shared.counts_while_out(client, begun);
        if flight == Flight::Out {
            page.out.began(Way { side, is_cold: false, is_beyond }, begun);
        }
        let (begun, flight) = (Cell::new(begun), Cell::new(flight));
        if let Some(clients) = page.clients().filter(|_| drawn != Drawn::Nobodys) {
            clients.came(slot);
        }
        let (sent, took, is_cold, end) = Default::default();
        Rc::new(Entry {
            page,
            side,
            generation,
            begun,
            client,
            slot,
            sent,
            took,
            flight,
            is_cold,
            is_beyond,
            end,
        })
    }
}

/// Differently in every process, so that nobody knows whose place is another's.
static HASHER: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::default);

/// A client as one of many, differently in every process. Neighbours on this machine all have one address: each of their
/// connections counts as one.
fn number(peer: &Peer, fields: &Fields) -> u16 {
    let client = peer.client(fields);
    let is_neighbour = client.is_none_or(|address| address.is_loopback());
    let port = peer.ends.filter(|_| is_neighbour).map(|(from, _)| from.port());
    u16::try_from(HASHER.hash_one((network(client), port)) & 0xFFFF).unwrap_or(0)
}

impl Entry {
    /// It is tried with this endpoint.
    pub fn goes_to(&self, seat: &Seat) {
        let is_out = self.flight.get() == Flight::Out;
        if self.flight.get() == Flight::Back || self.is_cold.get() || self.is_warm(Some(seat)) {
            return;
        }
        let now = micros(self.page.shared.begun, clock::now());
        if self.page.silence(self.side, seat.id(), now) >= self.page.shared.patience {
            // It does not get warm, it hangs.
            return;
        }
        // What has waited for an endpoint for longer than that is known to be out, and no more.
        if !is_out || now.saturating_sub(self.begun.get()) < LATELY {
            if is_out {
                self.page.out.grows_cold(self.way(), self.begun.get());
            }
            self.is_cold.set(true);
        }
    }

    fn way(&self) -> Way {
        Way { side: self.side, is_cold: self.is_cold.get(), is_beyond: self.is_beyond }
    }

    /// Only who is new has to get warm: were the baseline's first answers left out too, what slows both would show on one.
    fn is_warm(&self, seat: Option<&Seat>) -> bool {
        let met = |seat: &Seat| self.page.met(self.side, seat.id());
        self.side == Side::Baseline || seat.is_none_or(|seat| met(seat) >= self.page.shared.grace)
    }

    /// It goes out over a connection that stands.
    pub fn sent(&self) {
        if self.flight.get() == Flight::Out {
            self.sent.set(Some(clock::now()));
        }
    }

    /// All of its upload has gone out: from here on it is the version that takes its time.
    pub fn uploaded(&self) {
        if self.flight.get() == Flight::Uploading {
            let now = clock::now();
            self.begun.set(micros(self.page.shared.begun, now));
            self.page.out.began(self.way(), self.begun.get());
            self.flight.set(Flight::Out);
            self.sent.set(Some(now));
        }
    }

    /// The head of an answer has come; of a gRPC call it is not known yet what it says.
    pub fn answered(&self, code: u16, is_grpc: bool, seat: Option<&Seat>) {
        if self.end.get() != End::Unknown {
            return;
        }
        if let Some(sent) = self.sent.get() {
            let bucket = bucket(micros(sent, clock::now()));
            self.page.took(self.side, bucket);
            self.took.set(Some(bucket));
        }
        self.is_back();
        if !is_grpc || code != 200 {
            let outcome = Outcome::of_status(code);
            self.decide(outcome, seat);
            if outcome == Outcome::Good {
                self.end.set(End::Good);
                self.page.out.opened(self.side);
            }
        }
    }

    /// Nothing that comes now makes a failure of what was good: all of it has come, or it has no end.
    pub fn stands(&self) {
        if self.end.get() == End::Good {
            self.end.set(End::Known);
            self.page.out.closed(self.side);
        }
    }

    /// The status of a gRPC call.
    pub fn grpc(&self, status: Option<usize>, seat: Option<&Seat>) {
        if status.is_none_or(|status| GRPC_FAILURES.contains(&status)) {
            self.has_failed(seat);
        } else {
            self.decide(Outcome::Good, seat);
        }
    }

    /// The first attempt failed, or its whole request, for this reason.
    pub fn failed(&self, reason: Reason, is_late: bool, seat: Option<&Seat>) {
        if is_late || is_failure(reason) {
            self.has_failed(seat);
        }
    }

    fn has_failed(&self, seat: Option<&Seat>) {
        if self.end.get() == End::Good {
            self.broke_off(seat);
        } else {
            self.decide(Outcome::Failed, seat);
        }
    }

    /// What was decided to be good has failed. It is not decided twice, and how long its head took stays as it was counted.
    fn broke_off(&self, seat: Option<&Seat>) {
        let is_capped = self.side == Side::Candidate && self.is_capped();
        self.page.broke_off(self.side, self.generation, is_capped, self.slot);
        if let Some(seat) = seat {
            self.page.endpoint_broke_off(self.side, seat.id());
        }
        self.stands();
    }

    /// Takes down a failure of the candidate: false when it counts where one client must not decide alone.
    fn is_capped(&self) -> bool {
        let shared = &self.page.shared;
        let is_capped = !shared.counts_for(self.client, Bad::Failed, micros(shared.begun, clock::now()));
        if !is_capped {
            shared.candidate_failed();
        }
        is_capped
    }

    fn decide(&self, outcome: Outcome, seat: Option<&Seat>) {
        if self.end.get() != End::Unknown {
            return;
        }
        self.end.set(End::Known);
        let shared = &self.page.shared;
        let has_failed = outcome == Outcome::Failed;
        let is_warm = self.is_warm(seat);
        if let Some(seat) = seat {
            self.page.of_endpoint(self.side, seat.id(), has_failed);
        }
        let bucket = self.took.get().filter(|_| is_warm && shared.compares(self.begun.get()));
        let mut is_capped = false;
        if self.side == Side::Candidate {
            if has_failed {
                is_capped = self.is_capped();
            } else {
                shared.candidate_answered();
            }
        } else if !has_failed && self.begun.get() >= shared.mark.load(Ordering::Relaxed) {
            self.page.is_alive();
        }
        self.page.decided(&self.with(outcome, is_capped, bucket));
        self.is_back();
    }

    fn with(&self, outcome: Outcome, is_capped: bool, bucket: Option<usize>) -> Decided {
        let (side, generation, client, slot) = (self.side, self.generation, self.client, self.slot);
        Decided { side, generation, outcome, is_capped, bucket, client, slot }
    }

    fn is_back(&self) {
        if self.flight.replace(Flight::Back) == Flight::Out {
            self.page.out.ended(self.way(), self.begun.get());
        }
    }
}

/// True when a version that gives no answer for this reason has failed.
#[must_use]
pub fn is_failure(reason: Reason) -> bool {
    Verdict::of_reason(reason).is_some() || matches!(reason, Reason::NoEndpoint | Reason::CircuitOpen)
}

impl Outcome {
    fn of_status(code: u16) -> Self {
        match code {
            500.. => Self::Failed,
            // Too many requests is a matter of load, and 499 the client's own.
            400..500 if code != 429 && code != 499 => Self::ClientError,
            _ => Self::Good,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.stands();
        if self.end.get() != End::Unknown {
            return;
        }
        // Nobody waited for its head: what it says is that it was slow, if it was, and to who has gone an endpoint
        // that is not warm is no excuse. How long a call goes on after that is no matter of speed.
        let shared = &self.page.shared;
        let is_meant = self.flight.get() == Flight::Out && shared.compares(self.begun.get());
        let waited = self.sent.get().filter(|_| is_meant).map(|sent| bucket(micros(sent, clock::now())));
        let slow = shared.slow_from(self.side);
        if waited.zip(slow).is_some_and(|(waited, [p75, ..])| waited >= usize::from(p75)) {
            self.took.set(waited);
            self.page.decided(&self.with(Outcome::GivenUp, false, waited));
        }
        self.is_back();
    }
}
