//! What the clients saw, request by request: the evidence.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Before its first byte was sent.
    pub(super) began: Instant,
    /// After the last byte of its answer.
    pub(super) ended: Instant,
    /// What came.
    pub(super) seen: Seen,
}

/// How a request ended for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// A whole answer by this version.
    Answer {
        /// Which.
        version: &'static str,
        /// Its status.
        status: u16,
    },
    /// No answer, not a whole one, or not a version's: why.
    Failed(String),
}

impl Sample {
    /// The version that answered.
    pub(super) fn version(&self) -> Option<&'static str> {
        match &self.seen {
            Seen::Answer { version, .. } => Some(version),
            Seen::Failed(_) => None,
        }
    }

    /// A version answered with an error of its own.
    pub(super) fn is_error(&self) -> bool {
        matches!(self.seen, Seen::Answer { status, .. } if status >= 500)
    }
}

/// Shared by the clients, who write, and the picture, who reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<Sample>>>);

impl Log {
    /// Adds one.
    pub(super) fn push(&self, sample: Sample) {
        self.samples().push(sample);
    }

    /// All of them, in the order of their ends; nobody else gets on meanwhile.
    pub(super) fn samples(&self) -> MutexGuard<'_, Vec<Sample>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what ended longer than `age` ago: a log without end is no log.
    pub(super) fn forget(&self, age: Duration) {
        let now = Instant::now();
        self.samples().retain(|sample| now.duration_since(sample.ended) < age);
    }
}
