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
    /// The fields, without those that were for one connection only.
    pub headers: Fields,
    /// The body.
    pub source: Source,
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
