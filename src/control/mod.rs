//! CONTROL PLANE: one task owns the state; it takes an order, steps, and performs the effects in a fixed order:
//! *persist → publish → close → report*. Everybody else holds a snapshot.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::release::{Actor, Change, Command, Effects, Refused, State};
use crate::store::{HistoryQuery, StoreError};
use crate::table::{Epoch, ServiceName, VersionName};

/// What outsiders hold: a way to ask for changes, and what is to be seen.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<Arc<State>>,
    notices: broadcast::Sender<Notice>,
}

/// A wanted change with all that comes with it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What.
    pub command: Asked,
    /// Who.
    pub actor: Actor,
    /// Why; may be empty.
    pub reason: String,
    /// Refuse unless these services are at these epochs.
    pub expected: Vec<(ServiceName, Epoch)>,
    /// The caller's idempotency key with a digest of what is asked.
    pub idempotency: Option<(String, String)>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Makes the answer's body from the state after the change, so that it can be kept with it for the idempotency key.
    pub render: fn(&State, &Effects) -> String,
}

/// What is asked for; an undo needs the store's memory before it becomes a command.
#[derive(Debug, Clone)]
pub enum Asked {
    /// A command of the heart.
    Command(Command),
    /// Everything back to where it was at this epoch.
    UndoTo(Epoch),
}

/// What became of a wanted change.
#[derive(Debug, Clone)]
pub struct Done {
    /// The state after it (for a dry run: as it would be).
    pub state: Arc<State>,
    /// What it did, or would do; no change in it: everything was so already.
    pub effects: Effects,
    /// The body of the answer, by [`Wanted::render`] or as it was kept.
    pub body: String,
    /// True when the answer is the one given to the same key before.
    pub replayed: bool,
}

/// Why nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failed {
    /// The heart refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The change could not be made durable; nothing has changed.
    #[error("nothing was changed: {0}")]
    Store(#[from] StoreError),
    /// The same idempotency key was used for something else.
    #[error("the idempotency key `{0}` was used for a different request")]
    KeyReused(String),
    /// The proxy is shutting down.
    #[error("the proxy is shutting down")]
    Closed,
}

/// What control tells whoever listens (`GET /v1/events`).
#[derive(Debug, Clone)]
pub enum Notice {
    /// A change was published.
    Changed(Arc<Change>),
    /// A version that was left has nothing in flight any more.
    Drained {
        /// The service.
        service: ServiceName,
        /// The version that is safe to stop.
        version: VersionName,
        /// From the change that left it to its last request's end, in seconds.
        seconds: f64,
    },
    /// The file was read and refused; what it said before stays.
    ReloadFailed {
        /// Every error, one a line.
        errors: String,
    },
}

#[derive(Debug)]
enum Request {
    Change(Box<Wanted>, oneshot::Sender<Result<Done, Failed>>),
    History(HistoryQuery, oneshot::Sender<Result<Vec<Change>, StoreError>>),
}
