//! A hold: new requests of a service wait, bounded in number, size and time, instead of being sent or refused.
//!
//! That a service is held is a property of the published table, so it has an epoch, and the fence (G1) says from when on
//! nothing passes. It is no part of what is remembered of a service: a process begins with nothing held.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Epoch;

/// Nothing is held for longer, whatever is asked for.
pub const LONGEST_HOLD: Duration = Duration::from_mins(10);

/// Which requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldScope {
    /// All of them.
    All,
    /// Those that may change something: other methods than GET, HEAD and OPTIONS, and changes of protocol, behind which
    /// anything may be written.
    Writes,
}

impl HoldScope {
    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Writes => "writes",
        }
    }

    /// True when a request waits that `writes`, or does not.
    #[must_use]
    pub fn holds(self, writes: bool) -> bool {
        match self {
            Self::All => true,
            Self::Writes => writes,
        }
    }
}

impl fmt::Display for HoldScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

/// Who holds a service. Each ends its own hold, and nobody another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Whoever has asked for it, until it is released.
    Operator,
    /// An exclusive flip, or supervision's exclusive way back, for as long as it takes.
    Exclusive,
}

impl Holder {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Operator, Self::Exclusive];

    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Exclusive => "exclusive",
        }
    }
}

/// One hold of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hold {
    /// Whose it is.
    pub holder: Holder,
    /// The epoch of the change that it began with: asked for once more it is another one, whose time begins then.
    pub since: Epoch,
    /// Which requests wait.
    pub scope: HoldScope,
    /// For how long at most, from its publishing on.
    pub timeout: Duration,
}

/// The holds of a service, one a holder at most. A request waits for as long as any of them holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Holds([Option<Hold>; 2]);

impl Holds {
    /// The hold of this holder.
    #[must_use]
    pub fn of(&self, holder: Holder) -> Option<Hold> {
        self.0[holder as usize]
    }

    /// A hold begins, in place of its holder's that there is.
    pub fn begin(&mut self, hold: Hold) {
        self.0[hold.holder as usize] = Some(hold);
    }

    /// The hold of this holder ends, if there is one.
    pub fn end(&mut self, holder: Holder) {
        self.0[holder as usize] = None;
    }

    /// All of them, that of the operator first.
    pub fn iter(&self) -> impl Iterator<Item = Hold> {
        self.0.into_iter().flatten()
    }

    /// True when nothing is held.
    #[must_use]
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a hold of the service is bounded by. A bound that is hit ends the hold; nothing is refused because of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HoldLimits {
    /// Requests that wait, over all workers; default 1,000.
    pub requests: usize,
    /// Bytes of their heads; default 8 MiB.
    pub bytes: u64,
    /// How long it lasts unless told otherwise; default 10 s, at most [`LONGEST_HOLD`].
    pub timeout: Duration,
    /// Exact paths at which GET and HEAD are answered by the proxy itself meanwhile, so that who checks the service's health
    /// does not take the proxy out; default `/healthz`.
    pub answer: Vec<Box<str>>,
}

impl Default for HoldLimits {
    fn default() -> Self {
        Self {
            requests: 1_000,
            bytes: 8 << 20,
            timeout: Duration::from_secs(10),
            answer: vec!["/healthz".into()],
        }
    }
}

impl HoldLimits {
    /// The defaults, shared.
    #[must_use]
    pub fn standard() -> Arc<Self> {
        Arc::default()
    }
}
