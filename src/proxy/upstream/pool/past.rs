//! How long a connection is used: what goes along with it from one request to the next.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::proxy::clock::Clock;
use crate::proxy::descriptors::Held;
use crate::proxy::upstream::census::Counted;
use crate::proxy::upstream::rest::Rest;
use crate::table::KeepaliveRules;

/// What is known of a connection to an endpoint besides its stream. Of HTTP/1.1: on it one request follows another.
#[derive(Debug)]
pub struct Past {
    /// The tick from which on it takes no more requests.
    expires: u64,
    /// How many more it takes.
    left: u32,
    /// How many ticks it may be without one.
    idle: u64,
    /// How long it took to open.
    opening: Duration,
    /// How long it had been without a request before the one that it has, unless it was opened for that.
    rest: Option<Rest>,
    /// The client's connection that it is for, if it is not for any.
    owner: Option<Weak<()>>,
    /// Its descriptor, of those of the version that it was opened for; and its part of the endpoint's connections, where they are
    /// limited.
    _counted: (Option<Held>, Option<Counted>),
}

impl Past {
    /// That of a connection which was opened at this tick, and took `opening` for it.
    #[must_use]
    pub fn new(
        rules: KeepaliveRules,
        (tick, opening): (u64, Duration),
        counted: (Option<Held>, Option<Counted>),
    ) -> Self {
        Self {
            expires: tick.saturating_add(Clock::ticks_in(rules.lifetime)),
            left: rules.requests.map_or(u32::MAX, std::num::NonZeroU32::get),
            idle: rules.idle.map_or(u64::MAX, Clock::ticks_in),
            opening,
            rest: None,
            owner: None,
            _counted: counted,
        }
    }

    /// How long it took to open: a round trip to the endpoint, and what else there was to do.
    #[must_use]
    pub fn opening(&self) -> Duration {
        self.opening
    }

    /// True when it was there before its request: it may have been closed meanwhile.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.rest.is_some()
    }

    /// How long it had been without a request before the one that it has, if it was there before that.
    #[must_use]
    pub fn rest(&self) -> Option<Rest> {
        self.rest
    }

    /// Its next request goes out after this.
    pub(super) fn rested(&mut self, rest: Rest) {
        self.rest = Some(rest);
    }

    /// It is for this client's connection alone.
    pub fn belongs_to(&mut self, owner: &Arc<()>) {
        self.owner = Some(Arc::downgrade(owner));
    }

    /// The client's connection that it is for, which may have ended.
    pub(super) fn owner(&self) -> Option<&Weak<()>> {
        self.owner.as_ref()
    }

    /// One more request has ended on it: true when it takes another one.
    pub(super) fn take(&mut self, now: u64) -> bool {
        self.left -= 1;
        self.left > 0 && now < self.expires
    }

    /// True while it may be without a request for so many ticks.
    pub(super) fn may_wait(&self, ticks: u64) -> bool {
        ticks <= self.idle
    }
}

impl Default for Past {
    /// That of a new one, by the usual rules.
    fn default() -> Self {
        Self::new(KeepaliveRules::default(), (0, Duration::ZERO), (None, None))
    }
}
