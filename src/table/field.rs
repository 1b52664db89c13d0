//! Operations on header fields, and which fields they may not touch.

use std::sync::Arc;

use super::template::Template;

/// One operation on the fields of a head. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FieldOp {
    /// Takes every field of this name away.
    Remove(Arc<str>),
    /// Puts one field in the place of all of this name.
    Set(Arc<str>, Template),
    /// Adds a field behind those of this name.
    Add(Arc<str>, Template),
}

impl FieldOp {
    /// The field's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Remove(name) | Self::Set(name, _) | Self::Add(name, _) => name,
        }
    }
}

/// Which head a field belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A request's, on its way to an endpoint.
    Request,
    /// An answer's, on its way to the client.
    Response,
}

/// Why an operation may not touch the field `name` (in lower case), and what to do instead; `None` when it may.
///
/// Fields that frame a message, belong to one connection, or say who is asking are the proxy's own: a wrong one would
/// make the message ambiguous, or take a client's word for what only we know.
#[must_use]
pub fn protected(name: &str, side: Side) -> Option<&'static str> {
    match name {
        "content-length" | "transfer-encoding" | "trailer" => {
            Some("it says where the body ends, which only the proxy knows")
        }
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "upgrade"
        | "te"
        | "proxy-authenticate"
        | "proxy-authorization" => Some("it belongs to one connection and is never passed on"),
        "sec-websocket-key" | "sec-websocket-accept" | "sec-websocket-version" => {
            Some("it belongs to a WebSocket's handshake")
        }
        _ if name.starts_with("switchback-") => Some("fields of that name are the proxy's own"),
        "host" if side == Side::Request => {
            Some("use `rewrite_host = \"internal.test\"`, or \"@endpoint\" for the endpoint's own address")
        }
        "expect" if side == Side::Request => Some("the proxy deals with it"),
        "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-forwarded-port" | "forwarded"
        | "via"
            if side == Side::Request =>
        {
            Some("the proxy says who is asking; `trusted_proxies` of a listener says whom it believes")
        }
        _ => None,
    }
}
