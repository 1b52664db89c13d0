//! How long a connection is used: what goes along with it from one request to the next.

use std::sync::{Arc, Weak};

use crate::proxy::clock::Clock;
use crate::proxy::descriptors::Held;
use crate::proxy::upstream::census::Counted;
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
    /// True when it was not opened for the request that it has.
    is_kept: bool,
    /// The client's connection that it is for, if it is not for any.
    owner: Option<Weak<()>>,
    /// Its descriptor, of those of the version that it was opened for; and its part of the endpoint's connections, where they are
    /// limited.
    _counted: (Option<Held>, Option<Counted>),
}

impl Past {
    /// That of a connection which was opened at this tick.
    #[must_use]
    pub fn new(rules: KeepaliveRules, tick: u64, counted: (Option<Held>, Option<Counted>)) -> Self {
        Self {
            expires: tick.saturating_add(Clock::ticks_in(rules.lifetime)),
            left: rules.requests.map_or(u32::MAX, std::num::NonZeroU32::get),
            idle: rules.idle.map_or(u64::MAX, Clock::ticks_in),
            is_kept: false,
            owner: None,
            _counted: counted,
        }
    }

    /// True when it was there before its request: it may have been closed meanwhile.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_kept
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
        self.is_kept = true;
        self.left -= 1;
        self.left > 0 && now < self.expires
    }

    /// It was opened for a request that is still to come.
    pub(super) fn waits(&mut self) {
        self.is_kept = true;
    }

    /// True while it may be without a request for so many ticks.
    pub(super) fn may_wait(&self, ticks: u64) -> bool {
        ticks <= self.idle
    }
}

impl Default for Past {
    /// That of a new one, by the usual rules.
    fn default() -> Self {
        Self::new(KeepaliveRules::default(), 0, (None, None))
    }
}
