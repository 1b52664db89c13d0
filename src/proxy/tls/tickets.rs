//! The keys of tickets: new ones every six hours, whatever is done to the calendar. rustls' own go by that alone, and would be kept for
//! as long as it was ahead when they were made.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;

use crate::proxy::clock;

/// For how long keys make tickets; for as long again at most they are still known.
const EVERY: Duration = Duration::from_hours(6);

/// Keys, and those before them. Locked for a look.
#[derive(Debug)]
pub(super) struct Tickets(Mutex<Keys>);

#[derive(Debug, Clone)]
struct Keys {
    present: Arc<dyn ProducesTickets>,
    before: Option<Arc<dyn ProducesTickets>>,
    since: Now,
}

/// By the clock that nobody sets, which stands while the machine sleeps, and by the calendar.
type Now = (Instant, UnixTime);

impl Tickets {
    /// # Errors
    /// When there is nothing random to be had.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        Ok(Self(Mutex::new(Keys { present: Ticketer::new()?, before: None, since: now() })))
    }

    /// The keys of `now`; `None`: there are none to be had, and no tickets for a moment.
    fn keys(&self, now: Now) -> Option<Keys> {
        // Whole even if a holder panicked: it is replaced as one.
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.are_old(now) {
            let before = Some(Arc::clone(&keys.present));
            *keys = Keys { present: Ticketer::new().ok()?, before, since: now };
        }
        Some(keys.clone())
    }
}

impl Keys {
    /// By either clock; also when it is earlier by the calendar than when they were made, and nobody knows how long that was ago.
    fn are_old(&self, (now, at): Now) -> bool {
        let (since, made) = self.since;
        let by_calendar = at.as_secs().checked_sub(made.as_secs());
        now.saturating_duration_since(since) >= EVERY
            || by_calendar.is_none_or(|seconds| seconds >= EVERY.as_secs())
    }

    fn read(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.present.decrypt(ticket).or_else(|| self.before.as_ref()?.decrypt(ticket))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(EVERY.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys(now())?.present.encrypt(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.keys(now())?.read(ticket)
    }
}

fn now() -> Now {
    (clock::now(), UnixTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    /// Whether a ticket of the beginning is still good after each of these: so much later by the clock, and then by the calendar.
    fn is_good_after<const N: usize>(steps: [(Duration, Duration); N]) -> [bool; N] {
        let tickets = Tickets::new().unwrap();
        // So that the calendar can be set back.
        let (since, made) = (now().0, UnixTime::since_unix_epoch(240 * HOUR));
        tickets.0.lock().unwrap().since = (since, made);
        let ticket = tickets.keys((since, made)).unwrap().present.encrypt(b"a session").unwrap();
        steps.map(|(later, at)| {
            let keys = tickets.keys((since + later, UnixTime::since_unix_epoch(at))).unwrap();
            keys.read(&ticket).is_some()
        })
    }

    #[test]
    fn a_ticket_is_good_for_six_to_twelve_hours_by_either_clock() {
        let step = |later: u32, at: u32| (later * HOUR, at * HOUR);
        let both = [step(5, 245), step(7, 247), step(12, 252), step(13, 253)];
        assert_eq!(is_good_after(both), [true, true, true, false]);
        // The calendar stands; the machine was asleep.
        assert_eq!(is_good_after([step(7, 240), step(13, 240)]), [true, false]);
        assert_eq!(is_good_after([step(0, 247), step(0, 253)]), [true, false]);
    }

    #[test]
    fn a_calendar_that_is_set_back_keeps_no_ticket() {
        let step = |later: u32, at: u32| (later * HOUR, at * HOUR);
        assert_eq!(is_good_after([step(1, 1), step(8, 8), step(9, 9)]), [true, false, false]);
        assert_eq!(is_good_after([step(1, 1), step(2, 0)]), [true, false]);
    }
}
