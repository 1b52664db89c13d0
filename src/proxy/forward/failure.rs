//! How an attempt at an endpoint fails before there is an answer.

use crate::metrics::Reason;
use crate::proxy::upstream::Verdict;
use crate::proxy::upstream::http2::Risk;

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The connection had been idle, and was closed before the endpoint has read the request, as far as can be told.
    Stale,
    /// The connection had been kept, and was closed before anything of the request could be sent.
    Unsent,
    /// The connection had been kept, and the endpoint ended it with the request in hand, before a byte of the answer.
    Broken,
    /// The endpoint says that it has not looked at the request.
    Refused,
    /// The endpoint ended its connection with an error, and this request may be why: it is not to cost others more.
    Suspect(Risk),
    /// There was no connection to send it on, or a new one that took nothing of it.
    Unconnected(Reason),
    /// The attempt took longer than one may.
    Late,
    /// For this reason.
    Because(Reason),
}

impl Failure {
    /// That of a connection which was closed before anything of the request was sent; a new one is none then.
    #[must_use]
    pub fn unsent(is_kept: bool) -> Self {
        if is_kept { Self::Unsent } else { Self::Unconnected(Reason::UpstreamClosed) }
    }

    /// True when the endpoint did not even accept a connection.
    #[must_use]
    pub fn is_not_accepted(&self) -> bool {
        let Self::Unconnected(reason) = self else { return false };
        // With whom there is no TLS to be done accepted a connection for it.
        *reason != Reason::UpstreamTls && Verdict::of_reason(*reason) != Some(Verdict::Reset)
    }

    /// Why, in the words that all share.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Stale | Self::Unsent | Self::Broken | Self::Refused => Reason::UpstreamClosed,
            Self::Late => Reason::ResponseTimeout,
            Self::Suspect(Risk::Head) => Reason::HeadTooLarge,
            Self::Suspect(Risk::Trailers | Risk::None) => Reason::UpstreamClosed,
            Self::Unconnected(reason) | Self::Because(reason) => *reason,
        }
    }
}
