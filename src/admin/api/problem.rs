//! Errors as RFC 9457 problem details.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ChangeAnswer, Service, Unhealthy};

/// What went wrong, and what to do about it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:switchback:problem:` and a stable token.
    #[serde(rename = "type")]
    #[schema(example = "urn:switchback:problem:unknown_version")]
    pub kind: String,
    /// The sort of problem.
    pub title: String,
    /// The answer's status.
    pub status: u16,
    /// This occurrence of it.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The member, parameter or header at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// With `conflict`: the service as it stands now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<Service>,
    /// With `timed_out`: the change, which *is* made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeAnswer>,
    /// With `timed_out`: what is left; with `streams_open` and where a hold has ended: what was in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Vec<Left>>,
    /// With `not_ready`, and `timed_out` where health was waited for: the endpoints that are not well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<Vec<Unhealthy>>,
}

/// So much of one kind is left on a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Left {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// request, upload, stream, sse, websocket, grpc, tunnel or mirror.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// For how long the oldest of them has been in flight, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_seconds: Option<f64>,
}

impl Problem {
    const PREFIX: &str = "urn:switchback:problem:";

    /// A problem of the sort that `token` names.
    #[must_use]
    pub fn new(status: u16, token: &str, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind: format!("{}{token}", Self::PREFIX),
            title: token.replace('_', " "),
            status,
            detail: detail.into(),
            hint: None,
            field: None,
            present: None,
            change: None,
            left: None,
            unhealthy: None,
        })
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self: Box<Self>, hint: impl Into<String>) -> Box<Self> {
        self.hint = Some(hint.into());
        self
    }

    /// The same with what is at fault.
    #[must_use]
    pub fn at(mut self: Box<Self>, field: impl Into<String>) -> Box<Self> {
        self.field = Some(field.into());
        self
    }

    /// The stable token.
    #[must_use]
    pub fn token(&self) -> &str {
        self.kind.strip_prefix(Self::PREFIX).unwrap_or(&self.kind)
    }
}
