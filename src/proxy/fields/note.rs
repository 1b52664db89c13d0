//! What is noted about a field on the way through a head, by its name.

use http::HeaderName;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE,
    WWW_AUTHENTICATE,
};

const BAGGAGE: HeaderName = HeaderName::from_static(crate::table::pin::FIELD);

/// What is noted about a head's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of fields")]
pub enum Note {
    Host,
    Expect,
    Te,
    Connection,
    Upgrade,
    ContentLength,
    TransferEncoding,
    ContentType,
    Date,
    WwwAuthenticate,
    Baggage,
    /// Any other that is for one connection only.
    HopByHop,
    /// Any with which proxies say who is asking, or that it is a copy.
    Forwarding,
}

impl Note {
    /// What there is to note about a field of this name.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        // By first letter: most names are decided by a comparison of lengths behind it.
        match name.first()? | 0x20 {
            b'b' if is(name, b"baggage") => Some(Self::Baggage),
            b'c' if is(name, b"content-length") => Some(Self::ContentLength),
            b'c' if is(name, b"content-type") => Some(Self::ContentType),
            b'c' if is(name, b"connection") => Some(Self::Connection),
            b'd' if is(name, b"date") => Some(Self::Date),
            b'e' if is(name, b"expect") => Some(Self::Expect),
            b'f' if is(name, b"forwarded") => Some(Self::Forwarding),
            b'h' if is(name, b"host") => Some(Self::Host),
            b'k' if is(name, b"keep-alive") => Some(Self::HopByHop),
            b'p' if is(name, b"proxy-connection") => Some(Self::HopByHop),
            b'p' if is(name, b"proxy-authenticate") => Some(Self::HopByHop),
            b'p' if is(name, b"proxy-authorization") => Some(Self::HopByHop),
            b's' if is(name, b"switchback-mirrored") => Some(Self::Forwarding),
            b't' if is(name, b"te") => Some(Self::Te),
            b't' if is(name, b"transfer-encoding") => Some(Self::TransferEncoding),
            b'u' if is(name, b"upgrade") => Some(Self::Upgrade),
            b'w' if is(name, b"www-authenticate") => Some(Self::WwwAuthenticate),
            b'x' if is(name, b"x-real-ip") => Some(Self::Forwarding),
            b'x' if name.get(..12).is_some_and(|start| is(start, b"x-forwarded-")) => Some(Self::Forwarding),
            _ => None,
        }
    }

    /// True for fields that are for one connection only (RFC 9110 §7.6.1).
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(self, Self::Connection | Self::Te | Self::TransferEncoding | Self::Upgrade | Self::HopByHop)
    }

    /// The field, if it is one.
    pub(super) fn name(self) -> Option<HeaderName> {
        Some(match self {
            Self::Host => HOST,
            Self::Expect => EXPECT,
            Self::Te => TE,
            Self::Connection => CONNECTION,
            Self::Upgrade => UPGRADE,
            Self::ContentLength => CONTENT_LENGTH,
            Self::TransferEncoding => TRANSFER_ENCODING,
            Self::ContentType => CONTENT_TYPE,
            Self::Date => DATE,
            Self::WwwAuthenticate => WWW_AUTHENTICATE,
            Self::Baggage => BAGGAGE,
            Self::HopByHop | Self::Forwarding => return None,
        })
    }

    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// True when `name`, a token in any case, is `field`. All bytes at once, without a branch for each: of the bytes that are in
/// tokens only letters become a letter or a hyphen by this bit.
fn is<const N: usize>(name: &[u8], field: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else { return false };
    name.iter().zip(field).fold(0, |differs, (given, wanted)| differs | ((given | 0x20) ^ wanted)) == 0
}
