//! Each metric's name, once.

/// Requests a version got, by what it answered; judge a version by this one.
pub const UPSTREAM_REQUESTS: &str = "switchback_upstream_requests_total";
