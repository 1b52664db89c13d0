//! The choice of an endpoint for a request: what the request and the worker have to do with it.

use std::rc::Rc;

use super::head::Parts;
use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderValue};

use super::clock::{self, Clock};
use super::connection::Turn;
use super::gate::Asked;
use super::upstream::balance::{Asking, hash};
use super::upstream::{Local, Picked, Seat};
use crate::table::{HashKey, sticky};

/// Chooses endpoints for one request.
#[derive(Clone, Copy)]
pub(super) struct Chooser<'r> {
    pub(super) turn: &'r Turn,
    pub(super) head: &'r Parts,
    pub(super) asked: &'r Asked<'r>,
}

impl<'r> Chooser<'r> {
    /// The endpoint that the request goes to next, of the version of `local`, and none of `tried`; `None` when there is none
    /// that may be used.
    pub(super) fn pick(&self, local: &Local, tried: &[Rc<Seat>]) -> Option<Rc<Seat>> {
        let suits = |seat: &Seat| is_untried(seat, tried);
        self.pick_one(local, (!tried.is_empty()).then_some(&suits)).map(|picked| picked.counted(local))
    }

    /// The same, of those that suit besides; not counted yet.
    ///
    /// # Errors
    /// All that may be used, by their [`Seat::room`], when none of them suits.
    pub(super) fn pick_of(
        &self,
        local: &Local,
        tried: &[Rc<Seat>],
        suits: impl Fn(&Seat) -> bool,
    ) -> Result<Picked, Vec<u64>> {
        let picked = self.pick_one(local, Some(&|seat| suits(seat) && is_untried(seat, tried)));
        picked.ok_or_else(|| local.picked_from(|seat| is_untried(seat, tried)))
    }

    fn pick_one(&self, local: &Local, suits: Option<&dyn Fn(&Seat) -> bool>) -> Option<Picked> {
        let worker = &self.turn.client.worker;
        let (lot, key) = (|| worker.lot(), |what: &HashKey| key(what, self.turn, self.head, self.asked));
        local.pick(&worker.clock, Asking { suits, lot: &lot, key: &key, now: &clock::now })
    }

    /// Takes over what has become of the pool of `local` since the request was assigned.
    pub(super) fn refresh(&self, local: &Local) {
        self.turn.client.worker.refresh(local);
    }

    /// The worker's clock.
    pub(super) fn clock(&self) -> &'r Clock {
        &self.turn.client.worker.clock
    }
}

/// True when it was not tried yet at this address.
fn is_untried(seat: &Seat, tried: &[Rc<Seat>]) -> bool {
    !tried.iter().any(|tried| tried.endpoint.address == seat.endpoint.address)
}

/// What the request is hashed to.
fn key(what: &HashKey, turn: &Turn, head: &Parts, asked: &Asked<'_>) -> Option<u64> {
    match what {
        HashKey::Header(name) if HOST == **name => {
            let host = asked.bare_host();
            (!host.is_empty()).then(|| hash(&host.to_ascii_lowercase()))
        }
        HashKey::Header(name) => head.headers.get(&**name).map(|value| hash(value.as_bytes())),
        HashKey::Cookie(name) => cookie(&head.headers, name).map(hash),
        HashKey::Client => {
            let client = turn.client.arrival.peer.client(&head.headers)?;
            Some(hash(client.to_string().as_bytes()))
        }
        HashKey::Path => Some(hash(asked.raw_path().as_bytes())),
    }
}

/// The value of the first cookie of this name.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    sticky::cookie(headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_exact_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("xid=1; id=2=3;  other=4"));
        headers.append(COOKIE, HeaderValue::from_static("late=5"));
        let found = |name| cookie(&headers, name).map(|value| String::from_utf8(value.to_vec()).unwrap());
        assert_eq!(found("id").as_deref(), Some("2=3"));
        assert_eq!(found("other").as_deref(), Some("4"));
        assert_eq!(found("late").as_deref(), Some("5"));
        assert_eq!((found("ID"), found("d")), (None, None));
    }
}
