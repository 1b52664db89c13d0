//! The changes of protocol that are served: to WebSocket, over HTTP/1.1 (RFC 6455 §4) and HTTP/2 (RFC 8441), and over HTTP/1.1
//! to what a service lists.
//!
//! Anything else that `Upgrade` may name is dropped and the request served as it is; `h2c` above all, with which a
//! request could leave the proxy's sight.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Version, request};

use super::fields::{Fields, Note};
use super::head::Parts;
use super::headers::{append, has_token, only};
use crate::metrics::Reason;
use crate::table::{UpgradeName, upgrades};

/// How a client asks for another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// `GET` with `Upgrade: websocket`; the client's own key is passed on, and what answers it.
    Http1,
    /// Extended `CONNECT` of a stream; the handshake with the endpoint is ours.
    Http2,
    /// No WebSocket: what the [`Offer`] of its head says.
    Listed,
}

/// What a request may be answered with a change to: what it asks for, as far as its service lists it. It is an extension of the
/// request's head from when the service is known.
#[derive(Debug, Clone)]
pub struct Offer(Arc<[UpgradeName]>);

impl Offer {
    /// What `request` asks for of `listed`; `None` when that is nothing, and in what is no upgrade (RFC 9110 §7.8).
    #[must_use]
    pub fn of(request: &Parts, listed: &[UpgradeName]) -> Option<Self> {
        let headers = &request.headers;
        if request.version != Version::HTTP_11 || !headers.has(Note::Upgrade) || !is_connected(headers) {
            return None;
        }
        let offered = upgrades::offered(listed, headers.all_of(UPGRADE.as_str()));
        (!offered.is_empty()).then(|| Self(offered.into_iter().cloned().collect()))
    }

    /// True when `request` was offered a change to what the only `Upgrade` of its answer says.
    #[must_use]
    pub fn is_accepted(request: &Parts, answer: &Fields) -> bool {
        let offer = request.extensions.get::<Self>();
        let accepted = answer.first(Note::Upgrade);
        offer.zip(accepted).is_some_and(|(offer, accepted)| offer.0.iter().any(|name| name.is(accepted)))
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (index, name) in self.0.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"upgrade: " } else { b", " });
            out.extend_from_slice(name.as_str().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Upgrade {
    /// What `request` asks for; `None` when it is an ordinary one, whatever its `Upgrade` says.
    ///
    /// # Errors
    /// A `CONNECT` for anything else: tunnels to elsewhere are not served.
    pub fn of(request: &Parts) -> Result<Option<Self>, Reason> {
        if request.method == Method::CONNECT {
            let protocol = request.extensions.get::<h2::ext::Protocol>();
            let is_websocket = protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
            return if is_websocket { Ok(Some(Self::Http2)) } else { Err(Reason::Method) };
        }
        if request.extensions.get::<Offer>().is_some() {
            return Ok(Some(Self::Listed));
        }
        let headers = &request.headers;
        if request.version != Version::HTTP_11 || !headers.has(Note::Upgrade) {
            return Ok(None);
        }
        let has_body = headers.contains_key(TRANSFER_ENCODING)
            || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
        let is_sound = request.method == Method::GET
            && !has_body
            && only(headers, &UPGRADE)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
            && is_connected(headers)
            && only(headers, &SEC_WEBSOCKET_KEY).is_some();
        Ok(is_sound.then_some(Self::Http1))
    }

    /// Appends the fields towards an endpoint that ask for it; `key` is ours, for a client that has none.
    pub fn write(self, out: &mut Vec<u8>, request: &Parts, key: &str) {
        out.extend_from_slice(b"connection: Upgrade\r\n");
        if let Some(offer) = request.extensions.get::<Offer>() {
            return offer.write(out);
        }
        out.extend_from_slice(b"upgrade: websocket\r\n");
        if self == Self::Http2 {
            append(out, b"sec-websocket-key", key.as_bytes());
            if !request.headers.contains_key(SEC_WEBSOCKET_VERSION) {
                append(out, b"sec-websocket-version", b"13");
            }
        }
    }
}

/// True when `Connection` says that the protocol is to be changed.
fn is_connected(headers: &Fields) -> bool {
    headers.all_of(CONNECTION.as_str()).any(|value| has_token(value, b"upgrade"))
}

/// Takes a key away that came with an extended `CONNECT`, where it means nothing (RFC 8441 §5): the endpoint would have two, and
/// answer one of them.
pub fn drop_key(request: &mut request::Parts) {
    if request.method == Method::CONNECT {
        request.headers.remove(SEC_WEBSOCKET_KEY);
    }
}

/// A handshake's key: 16 bytes that were not used before (RFC 6455 §4.1).
#[must_use]
pub fn key(random: [u32; 4]) -> String {
    STANDARD.encode(random.map(u32::to_be_bytes).concat())
}

/// True when an endpoint's fields accept the handshake of `key`, once.
#[must_use]
pub fn is_accepted(headers: &HeaderMap, key: &[u8]) -> bool {
    only(headers, &SEC_WEBSOCKET_ACCEPT).is_some_and(|given| given.as_bytes() == accept(key).as_bytes())
}

/// What accepts the handshake of `key` (RFC 6455 §4.2.2).
#[must_use]
pub fn accept(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn asked(method: &str, fields: &[(&str, &str)]) -> Result<Option<Upgrade>, Reason> {
        let mut request = http::Request::builder().method(method).uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Upgrade::of(&request.body(()).unwrap().into_parts().0.into())
    }

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const ASKS: (&str, &str) = ("connection", "keep-alive, Upgrade");

    #[test]
    fn only_a_websocket_is_asked_for() {
        assert_eq!(asked("GET", &[("upgrade", "WebSocket"), ASKS, KEY]), Ok(Some(Upgrade::Http1)));
        for fields in [
            vec![("upgrade", "h2c"), ASKS, KEY],
            vec![("upgrade", "websocket, h2c"), ASKS, KEY],
            vec![("upgrade", "websocket"), ("upgrade", "h2c"), ASKS, KEY],
            vec![("upgrade", "websocket"), KEY],
            vec![("upgrade", "websocket"), ASKS],
            vec![("upgrade", "websocket"), ASKS, KEY, ("content-length", "3")],
            vec![("upgrade", "websocket"), ASKS, KEY, ("transfer-encoding", "chunked")],
            vec![ASKS, KEY],
        ] {
            assert_eq!(asked("GET", &fields), Ok(None), "{fields:?}");
        }
        assert_eq!(asked("POST", &[("upgrade", "websocket"), ASKS, KEY]), Ok(None));
        assert_eq!(asked("CONNECT", &[]), Err(Reason::Method));
    }

    #[test]
    fn what_is_listed_is_offered_and_nothing_else_is_accepted() {
        let listed: Vec<UpgradeName> = ["tcp", "spdy/3.1"].iter().map(|name| name.parse().unwrap()).collect();
        let request = |version, fields: &[(&str, &str)]| {
            let mut request = http::Request::builder().version(version);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            Parts::from(request.body(()).unwrap().into_parts().0)
        };
        let mut asks = request(Version::HTTP_11, &[ASKS, ("upgrade", "foo, TCP"), ("upgrade", "h2c")]);
        let offer = Offer::of(&asks, &listed).unwrap();
        asks.extensions.insert(offer);
        assert_eq!(Upgrade::of(&asks), Ok(Some(Upgrade::Listed)));
        let mut out = Vec::new();
        Upgrade::Listed.write(&mut out, &asks, "");
        assert_eq!(out, b"connection: Upgrade\r\nupgrade: tcp\r\n");
        let accepted = |name: &'static str| {
            let fields = HeaderMap::from_iter([(UPGRADE, HeaderValue::from_static(name))]);
            Offer::is_accepted(&asks, &fields.into())
        };
        assert_eq!(
            ["Tcp", "spdy/3.1", "foo", "tcp, foo", ""].map(accepted),
            [true, false, false, false, false]
        );
        for (version, fields) in [
            (Version::HTTP_11, vec![("upgrade", "tcp")]),
            (Version::HTTP_11, vec![ASKS, ("upgrade", "foo, spdy, websocket")]),
            (Version::HTTP_10, vec![ASKS, ("upgrade", "tcp")]),
            (Version::HTTP_2, vec![ASKS, ("upgrade", "tcp")]),
        ] {
            assert!(Offer::of(&request(version, &fields), &listed).is_none(), "{version:?} {fields:?}");
        }
    }

    #[test]
    fn an_accepted_key_is_known_by_its_digest() {
        // The example of RFC 6455 §1.3.
        let accepted = |values: &[&'static str]| {
            let name = SEC_WEBSOCKET_ACCEPT;
            let fields = values.iter().map(|value| (name.clone(), HeaderValue::from_static(value)));
            is_accepted(&fields.collect(), KEY.1.as_bytes())
        };
        assert!(accepted(&["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]));
        assert!(!accepted(&["s3pPLMBiTxaQ9kYGzzhZRbK+xOp="]));
        assert!(!accepted(&["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; 2]));
        assert!(!accepted(&[]));
    }

    #[test]
    fn keys_are_sixteen_bytes() {
        assert_eq!(key([0; 4]), "AAAAAAAAAAAAAAAAAAAAAA==");
    }
}
