//! What proxies say about who is asking: `X-Forwarded-For`, and `Forwarded` (RFC 7239) where that is not there.
//!
//! Each proxy appends whom it heard, so only the end of the list can be believed: from the right, as long as it is trusted
//! proxies who speak.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;

use super::headers::{X_FORWARDED_FOR, X_FORWARDED_PROTO};

/// The client behind the trusted proxy `peer`: the rightmost address that is not trusted, else the leftmost.
///
/// Where somebody is not named by an address (`unknown`, `_hidden`, nonsense), whoever said so is the last one known.
pub fn client(fields: &HeaderMap, peer: Option<IpAddr>, trusts: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut client = peer;
    let mut take = |hop: Option<IpAddr>| {
        client = hop.or(client);
        hop.is_some_and(&trusts)
    };
    if fields.contains_key(X_FORWARDED_FOR) {
        let values: Vec<_> = fields.get_all(X_FORWARDED_FOR).iter().collect();
        let hops = values.into_iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        // Empty elements count for nothing (RFC 9110 §5.6.1).
        let mut hops = hops.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty());
        while hops.next().is_some_and(|hop| take(node(hop))) {}
    } else {
        let hops: Vec<_> =
            fields.get_all(FORWARDED).iter().flat_map(|value| hops(value.as_bytes())).collect();
        let mut hops = hops.into_iter().rev();
        while hops.next().is_some_and(&mut take) {}
    }
    client
}

/// The scheme that the first of the trusted proxies was asked by, as they say: `X-Forwarded-Proto`, else the first `proto` of
/// `Forwarded`; `None` where nobody says.
pub fn scheme(fields: &HeaderMap) -> Option<Vec<u8>> {
    if let Some(told) = fields.get(X_FORWARDED_PROTO) {
        let first = told.as_bytes().split(|byte| *byte == b',').next();
        return first.map(|first| first.trim_ascii().to_vec());
    }
    let value = fields.get(FORWARDED)?.as_bytes();
    let (element, _) = split(value, b',');
    let mut rest = Some(element);
    while let Some(text) = rest {
        let (pair, behind) = split(text, b';');
        let at = pair.iter().position(|byte| *byte == b'=');
        if let Some((name, value)) = at.map(|at| (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()))
            && name.eq_ignore_ascii_case(b"proto")
        {
            return unquoted(value);
        }
        rest = behind;
    }
    None
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]`, `[2001:db8::1]:80`, `2001:db8::1`.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

/// The `for` of each element of a `Forwarded`; `None` for one that names no address, or cannot be read.
fn hops(value: &[u8]) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    let mut rest = value;
    loop {
        let (element, behind) = split(rest, b',');
        if !element.trim_ascii().is_empty() {
            hops.push(named_for(element));
        }
        match behind {
            Some(behind) => rest = behind,
            None => return hops,
        }
    }
}

/// The one `for` among the pairs of an element.
fn named_for(element: &[u8]) -> Option<IpAddr> {
    let mut rest = element;
    let mut named = None;
    loop {
        let (pair, behind) = split(rest, b';');
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=');
        if let Some((name, value)) = at.map(|at| (&pair[..at], &pair[at + 1..]))
            && name.eq_ignore_ascii_case(b"for")
        {
            if named.is_some() {
                return None;
            }
            named = Some(node(&unquoted(value)?)?);
        }
        match behind {
            Some(behind) => rest = behind,
            None => return named,
        }
    }
}

/// What is before the first `separator` outside quotes, and what is behind it.
fn split(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ if !is_quoted && *byte == separator => return (&text[..at], Some(&text[at + 1..])),
            _ => {}
        }
    }
    (text, None)
}

/// A value without the quotes that it may stand in; `None` when they do not match.
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let Some(quoted) = value.strip_prefix(b"\"") else {
        return (!value.contains(&b'"')).then(|| value.to_vec());
    };
    let mut quoted = quoted.strip_suffix(b"\"")?.iter();
    let mut text = Vec::with_capacity(quoted.len());
    while let Some(byte) = quoted.next() {
        match byte {
            b'\\' => text.push(*quoted.next()?),
            b'"' => return None,
            byte => text.push(*byte),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn trusts(address: IpAddr) -> bool {
        address.to_string().starts_with("10.") || address.to_string().starts_with("fd00:")
    }

    fn of(fields: &[(HeaderName, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        client(&headers, Some("10.0.0.1".parse().unwrap()), trusts).unwrap().to_string()
    }

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_client() {
        for (value, client) in [
            ("1.1.1.1", "1.1.1.1"),
            ("6.6.6.6, 1.1.1.1", "1.1.1.1"),
            ("6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("1.1.1.1:4711", "1.1.1.1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:DB8::1, fd00::1", "2001:db8::1"),
            ("::ffff:1.1.1.1", "1.1.1.1"),
            ("1.1.1.1, , ", "1.1.1.1"),
            ("1.1.1.1, ::ffff:10.0.0.9", "1.1.1.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(of(&[(X_FORWARDED_FOR, value)]), client, "{value:?}");
        }
        assert_eq!(of(&[(X_FORWARDED_FOR, "1.1.1.1"), (X_FORWARDED_FOR, "2.2.2.2, 10.0.0.2")]), "2.2.2.2");
        assert_eq!(of(&[(X_FORWARDED_FOR, "1.1.1.1"), (X_FORWARDED_FOR, "10.0.0.2")]), "1.1.1.1");
    }

    #[test]
    fn who_is_not_named_by_an_address_ends_the_chain_at_who_said_so() {
        for value in
            ["unknown", "1.1.1.1, _hidden", "1.1.1.1, 1.1.1", "1.1.1.1 2.2.2.2", "1.1.1.1, [::1", "a:b"]
        {
            assert_eq!(of(&[(X_FORWARDED_FOR, value)]), "10.0.0.1", "{value:?}");
        }
        assert_eq!(of(&[(X_FORWARDED_FOR, "1.1.1.1, _hidden, 10.0.0.2")]), "10.0.0.2");
    }

    #[test]
    fn forwarded_is_read_where_the_other_one_is_missing() {
        for (value, client) in [
            ("for=1.1.1.1", "1.1.1.1"),
            ("For=\"1.1.1.1:80\";proto=https;by=10.0.0.1", "1.1.1.1"),
            ("for=6.6.6.6, for=1.1.1.1;host=\"a,b;for=7.7.7.7\", for=10.0.0.2", "1.1.1.1"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=\"\\1.1.1.1\"", "1.1.1.1"),
            ("for=1.1.1.1;by=x, proto=http", "10.0.0.1"),
            ("for=1.1.1.1, for=unknown", "10.0.0.1"),
            ("for=1.1.1.1, for=_x", "10.0.0.1"),
            ("for=1.1.1.1;for=2.2.2.2", "10.0.0.1"),
            ("for=\"1.1.1.1", "10.0.0.1"),
            ("for=1.1.1.1\"", "10.0.0.1"),
            ("for=\"1.1\"1.1\"", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(of(&[(FORWARDED, value)]), client, "{value:?}");
        }
        assert_eq!(of(&[(FORWARDED, "for=6.6.6.6"), (X_FORWARDED_FOR, "1.1.1.1")]), "1.1.1.1");
    }

    proptest! {
        #[test]
        fn whatever_is_said_somebody_is_the_client(said in "[ -~]{0,60}") {
            of(&[(X_FORWARDED_FOR, &said)]);
            of(&[(FORWARDED, &said)]);
        }

        /// Nothing that a client writes in front changes what trusted proxies say behind it.
        #[test]
        fn a_client_cannot_forge_its_address(forged in "[!-~]([ -~]{0,40}[!-~])?") {
            prop_assert_eq!(of(&[(X_FORWARDED_FOR, &format!("{forged}, 1.1.1.1, 10.0.0.2"))]), "1.1.1.1");
            prop_assert_eq!(of(&[(FORWARDED, &forged), (FORWARDED, "for=1.1.1.1, for=10.0.0.2")]), "1.1.1.1");
        }
    }
}
