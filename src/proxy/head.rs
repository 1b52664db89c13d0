//! Heads of messages as the proxy passes them on.

use bytes::Bytes;
use http::{Extensions, Method, Response, StatusCode, Uri, Version};

use super::body::Source;
use super::fields::Fields;

/// A request's head.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The method.
    pub method: Method,
    /// The target.
    pub uri: Uri,
    /// The version that it came in.
    pub version: Version,
    /// All fields, as they came.
    pub headers: Fields,
    /// What HTTP/2 says beside them.
    pub extensions: Extensions,
}

/// An answer on its way to the client.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The fields, without those that were for one connection only; with the `Upgrade` of a 426.
    pub headers: Fields,
    /// The body.
    pub source: Source,
}

impl Parts {
    /// True for the methods that operators are told of as changing nothing. TRACE is as safe (RFC 9110 §9.2.1), and none of them.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// Copies what is part of the buffer that it was read into: for a request that has to wait.
    pub fn detach(&mut self) {
        let copy = Uri::from_maybe_shared(Bytes::from(self.uri.to_string()));
        if let Some(copy) = copy.ok().filter(|copy| *copy == self.uri) {
            self.uri = copy;
        }
        self.headers.detach();
    }
}

impl From<http::request::Parts> for Parts {
    fn from(parts: http::request::Parts) -> Self {
        let http::request::Parts { method, uri, version, headers, extensions, .. } = parts;
        Self { method, uri, version, headers: headers.into(), extensions }
    }
}

impl From<Response<Bytes>> for Answer {
    fn from(response: Response<Bytes>) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, headers: head.headers.into(), source: Source::Full(body) }
    }
}
