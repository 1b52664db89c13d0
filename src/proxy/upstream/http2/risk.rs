//! What a request may cost those that it shares a connection with.

use crate::proxy::head::Parts;
use crate::proxy::outgoing::Upload;

/// The list size (RFC 9113 §6.5.2) from which on a client's head is a risk. No known default is below 8 KiB (nginx, Tomcat, Jetty,
/// gRPC for Java; HAProxy has 15), and what we add needs less than one of them.
const LARGE: usize = 7 * 1024;

/// Why an endpoint might end a whole connection for one request.
///
/// There are those who do so for a head that is too large for them (HAProxy, nginx, Netty), and for trailers (nginx). An
/// endpoint that announces how large a head may be is held to know them; with any other one such a request shares its
/// connection with nobody.
///
/// An upload as such is none, although trailers may follow it: gRPC would share nothing any more, and has none. So only trailers
/// pass there that the head announces; others are dropped, as anybody may on the way (RFC 9110 §6.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Risk {
    /// There is no reason.
    None,
    /// Its head is large.
    Head,
    /// Trailers follow its body.
    Trailers,
}

impl Risk {
    /// That of a request with this head and body.
    #[must_use]
    pub fn of(head: &Parts, target: &str, upload: &Upload) -> Self {
        if head.headers.list_size() + target.len() > LARGE {
            Self::Head
        } else if !upload.is_empty() && head.headers.announces_trailers() {
            Self::Trailers
        } else {
            Self::None
        }
    }
}
