//! What becomes of copies of a service's requests.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::control::Handle;
use crate::table::{self, duration};

/// Copies of a service's requests go to a version that does not serve them, and their answers are thrown away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mirror {
    /// The version that gets them.
    #[schema(example = "green")]
    pub to: String,
    /// Whether it does.
    pub state: Mirroring,
    /// How many of the requests that may be copied are, in basis points.
    #[schema(maximum = 10_000)]
    pub share: u16,
    /// Requests with these methods may be.
    #[schema(example = json!(["GET", "HEAD", "OPTIONS"]))]
    pub methods: Vec<String>,
    /// Those with a body of at most so many bytes.
    pub body: u64,
    /// What is compared of the two answers: `none`, `status` or `body`.
    pub compare: String,
    /// How many copies there are at a time, on each worker.
    pub concurrency: u32,
    /// How long one may take in all.
    #[schema(example = "5s")]
    pub timeout: String,
    /// How many were sent to the version since the process began, or it has come.
    pub mirrored: u64,
    /// How many of those were answered otherwise, or not at all.
    pub differences: u64,
}

/// Whether a version gets copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mirroring {
    /// It does.
    On,
    /// Not while the service is held.
    Held,
    /// Not any more: the version has had requests since, or an exclusive flip was made; or it is not there.
    Over,
}

/// Whether such a request is copied to a version that does not serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Copied {
    /// The version that gets the copies.
    #[schema(example = "green")]
    pub to: String,
    /// How many of such requests are copied, in basis points, if they have no body that is too large, and there is room; 0: none.
    #[schema(maximum = 10_000)]
    pub share: u16,
    /// Why none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless: Option<NotCopied>,
}

/// Why a request is not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotCopied {
    /// The version gets no copies any more.
    Over,
    /// The service is held.
    Held,
    /// Its method is none of those that are.
    Method,
    /// It asks for a change of protocol: a WebSocket.
    Upgrade,
    /// It is gRPC.
    Grpc,
    /// Its client waits to be told to send the body.
    Expect,
    /// It is a copy itself: `switchback-mirrored` is there, which counts from whom a listener trusts.
    Marked,
}

impl NotCopied {
    /// That in words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Over => "the version gets no copies any more",
            Self::Held => "the service is held",
            Self::Method => "not with this method",
            Self::Upgrade => "no change of protocol is",
            Self::Grpc => "gRPC is not",
            Self::Expect => "its client waits to be told to send the body",
            Self::Marked => "it is a copy itself",
        }
    }
}

impl Mirror {
    /// That of a service, if it has one.
    #[must_use]
    pub fn of(service: &table::Service, control: &Handle) -> Option<Self> {
        let rules = service.mirror.as_ref()?;
        let state = match (service.mirroring(), service.mirror()) {
            (Some(_), _) => Mirroring::On,
            (None, Some(_)) => Mirroring::Held,
            (None, None) => Mirroring::Over,
        };
        let tenures = control.tenures().of_version(&service.name, &rules.to);
        let counts = tenures
            .iter()
            .flat_map(|tenure| tenure.cells().map(|cells| (cells.mirrored(), cells.differences())));
        let (mirrored, differences) =
            counts.fold((0, 0), |(all, other), (sent, differ)| (all + sent, other + differ));
        Some(Self {
            to: rules.to.to_string(),
            state,
            share: rules.share.points(),
            methods: rules.methods.iter().map(ToString::to_string).collect(),
            body: rules.body,
            compare: rules.compare.token().to_owned(),
            concurrency: rules.concurrency,
            timeout: duration::text(rules.timeout),
            mirrored,
            differences,
        })
    }
}
