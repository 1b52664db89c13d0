//! The names of what is told as it happens, for those who want to hear of some of it only.

/// The events of `GET /v1/events` that a webhook can ask for; what begins a stream or fell out of one is not among them.
pub const EVENTS: &[&str] = &["changed", "drained", "health", "ramp", "reload_failed", "rollout", "verdict"];
