//! What survives: every acknowledged change, and where each service's traffic goes.

pub mod keeper;
#[cfg(test)]
pub mod memory;
pub mod record;
pub mod sqlite;

#[cfg(test)]
pub(crate) mod arbitrary;

use crate::release::{Change, ServiceRecord};
use crate::table::{Epoch, ServiceName};

/// Keeps changes. Calls block; control makes them from a thread of their own.
pub trait Store: Send {
    /// The newest epoch and the newest record of every service, dropped ones included.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Appends `change`, and with it the answer to a caller who gave an idempotency key: both or neither.
    ///
    /// Durable when it returns: survives power loss. The change's epoch must be the one after the newest.
    ///
    /// # Errors
    /// [`StoreError`] when it is not known to be kept; what [`Store::history`] shows afterwards is kept.
    fn append(&mut self, change: &Change, answer: Option<&Answer>) -> Result<(), StoreError>;

    /// Puts these records in the place of those of the same services and epochs: they say the same, in this build's form. No change;
    /// all of them or none.
    ///
    /// # Errors
    /// [`StoreError`] when they were not kept.
    fn restate(&mut self, records: &[ServiceRecord]) -> Result<(), StoreError>;

    /// The newest changes first, at most `limit`, older than `before`, touching `service` if given.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn history(&mut self, query: &HistoryQuery) -> Result<Vec<Change>, StoreError>;

    /// Keeps the answer to an order that changed nothing, so that it changes nothing when it is sent again later.
    ///
    /// # Errors
    /// [`StoreError`] when it was not kept.
    fn remember(&mut self, answer: &Answer) -> Result<(), StoreError>;

    /// The record of every service that existed at `epoch`, by name; `None` when the history does not reach back that far.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn records_at(&mut self, epoch: Epoch) -> Result<Option<Vec<ServiceRecord>>, StoreError>;

    /// The answer that was kept with a change under this idempotency key.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    fn answer(&mut self, key: &str) -> Result<Option<Answer>, StoreError>;

    /// Whether whoever opens it next finds what is kept here.
    ///
    /// # Errors
    /// [`StoreError`] when somebody has taken it away, or put another in its place.
    fn check(&mut self) -> Result<(), StoreError>;
}

/// What the store remembers at start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The epoch of the newest change; 0 when there is none.
    pub epoch: Epoch,
    /// The oldest epoch that `records_at` still knows; 0 as long as nothing is forgotten.
    pub oldest: Epoch,
    /// The newest record of every service, by name.
    pub records: Vec<ServiceRecord>,
}

/// How many answers are kept at most; older ones are forgotten first.
pub const MOST_ANSWERS: usize = 10_000;

/// An answer that is given again to the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The caller's key.
    pub key: String,
    /// A digest of what was asked: the same key for something else is an error of the caller's.
    pub fingerprint: String,
    /// The answer's body, JSON.
    pub body: String,
}

/// Which changes to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only changes older than this epoch.
    pub before: Option<Epoch>,
    /// At most so many.
    pub limit: usize,
    /// Only changes that touched this service.
    pub service: Option<ServiceName>,
}

/// What to do about a store that cannot be read.
const REMEDY: &str = "put a copy of it back, it says where traffic goes; or move it away, to begin with the weights of the file";

/// The store could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error("cannot open the state store {path}: {why}")]
    Open {
        /// Where.
        path: String,
        /// Why, and what to do.
        why: String,
    },
    /// It was written by a newer switchback.
    #[error(
        "the state store {path} has schema {found}; this switchback knows up to {known}: use a newer switchback, or another state.dir"
    )]
    NewerSchema {
        /// Where.
        path: String,
        /// Its schema.
        found: i64,
        /// The newest one this build knows.
        known: i64,
    },
    /// Reading or writing failed.
    #[error("the state store failed: {0}")]
    Io(String),
    /// Writing failed, and then so did asking whether it had.
    #[error(
        "the state store failed and does not say whether it kept the change (if it did, the change takes effect when the store answers again): {0}"
    )]
    InDoubt(String),
    /// It does not say what it should.
    #[error("the state store holds what cannot be read ({0}): {REMEDY}")]
    Corrupt(String),
}
