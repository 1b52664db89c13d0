//! What a listener makes of those who come to it, beside accepting them: TLS, the redirect to it, and HSTS.

use std::sync::Arc;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::gate::Asked;
use super::peer::Peer;
use super::tls::{Secured, Tls};
use crate::metrics::Reason;
use crate::table::RouteKey;

/// One listener's options, shared by its connections.
#[derive(Debug, Default)]
pub struct Entrance {
    /// Its TLS; `None`: clear text.
    pub tls: Option<Arc<Tls>>,
    /// Where its clients are sent instead of being served.
    pub redirect: Option<Redirect>,
    /// `Strict-Transport-Security` of all its answers (RFC 6797).
    pub hsts: Option<HeaderValue>,
}

/// One connection as it came in: all that its requests are told of it.
#[derive(Debug)]
pub struct Arrival {
    /// Who it is.
    pub peer: Peer,
    /// The listener that it came to.
    pub entrance: Arc<Entrance>,
    /// What its TLS handshake has settled; `None`: clear text.
    pub secured: Option<Secured>,
}

impl Arrival {
    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.secured.is_some() { "https" } else { "http" }
    }

    /// The field that tells endpoints whose certificate was verified, if one was.
    #[must_use]
    pub fn subject(&self) -> Option<(&HeaderName, &HeaderValue)> {
        let name = self.entrance.tls.as_ref()?.subject_header()?;
        Some((name, self.secured.as_ref()?.subject.as_ref()?))
    }

    /// A request has to be for the host of its connection's handshake, where clients' certificates decide who may ask
    /// (RFC 9110 §15.5.20). A client that named no host then has no name to differ from.
    ///
    /// # Errors
    /// [`Reason::Misdirected`].
    pub fn check_host(&self, asked: &Asked<'_>) -> Result<(), Reason> {
        let Some(secured) = self.secured.as_ref().filter(|secured| secured.asks_clients) else {
            return Ok(());
        };
        let bare = |host: &[u8]| host.strip_suffix(b".").unwrap_or(host).to_ascii_lowercase();
        match &secured.server_name {
            Some(name) if bare(name.as_bytes()) != bare(asked.host()) => Err(Reason::Misdirected),
            Some(_) | None => Ok(()),
        }
    }
}

/// Where a clear-text listener sends everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// The port of https; 443 is left out.
    pub port: u16,
    /// 301, 302, 307 or 308.
    pub status: StatusCode,
    /// Whether [`ACME`] is served all the same.
    pub exempts_acme: bool,
}

/// Where authorities look for the proof that a host is its owner's (RFC 8555 §8.3).
pub const ACME: &str = "/.well-known/acme-challenge/";

/// True for a challenge alone: its token is of the base64url alphabet, and what an endpoint might read as the way elsewhere
/// is not (RFC 8555 §8.3).
fn is_challenge(path: &str) -> bool {
    let token = path.strip_prefix(ACME).unwrap_or_default();
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !token.is_empty() && token.bytes().all(is_of_token)
}

impl Redirect {
    /// The answer to `asked`; `None` when it is to be served.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for a request of HTTP/1.0 that names no host: there is nowhere to send it.
    pub fn answer(&self, asked: &Asked<'_>) -> Result<Option<Response<Bytes>>, Reason> {
        if self.exempts_acme && is_challenge(asked.path()) {
            return Ok(None);
        }
        let port = if self.port == 443 { String::new() } else { format!(":{}", self.port) };
        let target = if asked.target == "*" { "/" } else { asked.target };
        let location = [b"https://", asked.host(), port.as_bytes(), target.as_bytes()].concat();
        let location = HeaderValue::from_maybe_shared(Bytes::from(location));
        let location = location.ok().filter(|_| !asked.host().is_empty()).ok_or(Reason::BadRequest)?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = self.status;
        response.headers_mut().insert(LOCATION, location);
        Ok(Some(response))
    }
}
