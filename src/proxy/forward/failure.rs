//! How an attempt at an endpoint fails before there is an answer.

use crate::metrics::Reason;
use crate::proxy::upstream::http2::Risk;

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The connection had been idle, and was closed before the endpoint has read the request, as far as can be told.
    Stale,
    /// The connection had been kept, and the endpoint ended it with the request in hand, before a byte of the answer.
    Broken,
    /// The endpoint says that it has not looked at the request.
    Refused,
    /// The endpoint ended its connection with an error, and this request may be why: it is not to cost others more.
    Suspect(Risk),
    /// There was no connection to send it on.
    Unconnected(Reason),
    /// The attempt took longer than one may.
    Late,
    /// For this reason.
    Because(Reason),
}

impl Failure {
    /// Why, in the words that all share.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Stale | Self::Broken | Self::Refused => Reason::UpstreamClosed,
            Self::Late => Reason::ResponseTimeout,
            Self::Suspect(Risk::Head) => Reason::HeadTooLarge,
            Self::Suspect(Risk::Trailers | Risk::None) => Reason::UpstreamClosed,
            Self::Unconnected(reason) | Self::Because(reason) => *reason,
        }
    }
}
