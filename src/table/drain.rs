//! How what is left on a version ends once the version gets no new requests.

use std::time::Duration;

/// The rules of one service. Requests and uploads finish by themselves, whatever these say, until the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DrainRules {
    /// How long nothing is ended; default 30 s.
    pub patience: Duration,
    /// Over what time after that WebSockets, event streams and gRPC streams are told to go, evenly; default 60 s.
    pub spread: Duration,
    /// After what time, from the change on, whatever is left is cut; default 10 min.
    pub deadline: Duration,
    /// What event streams are told last: after what time to come again; default nothing.
    pub retry: Option<Duration>,
}

impl DrainRules {
    /// The same, so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self { patience: self.patience + time, deadline: self.deadline + time, ..self }
    }
}

impl Default for DrainRules {
    fn default() -> Self {
        let [patience, spread, deadline] = [30, 60, 600].map(Duration::from_secs);
        Self { patience, spread, deadline, retry: None }
    }
}
