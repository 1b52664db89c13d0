//! The ingress gate: what a request must be before it is routed. Nothing behind it checks again.

use http::{HeaderMap, HeaderName, Method, Version};

use super::fields::{Came, Fields, Note};
use super::head::Parts;
use super::headers::{is_padded, is_taken_for};
use super::upgrade::Upgrade;
use crate::metrics::Reason;
use crate::table::{RouteKey, SentHost};

/// An unambiguous request: where it wants to go, in its own bytes.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r> {
    /// Host and port as they were asked for, in ASCII; empty only in HTTP/1.0.
    pub authority: &'r [u8],
    /// The host without its port.
    host: &'r [u8],
    /// Path and query, or `*`; raw.
    pub target: &'r str,
    path: &'r str,
    headers: &'r Fields,
    /// The `Host` for the endpoint, where it is not the one that was asked for.
    pub sent_host: Option<&'r SentHost>,
    /// True when the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The change of protocol that it asks for.
    pub upgrade: Option<Upgrade>,
}

impl<'r> Asked<'r> {
    /// Lets a request pass that can be read in one way only.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn of(request: &'r Parts) -> Result<Self, Reason> {
        let (uri, headers) = (&request.uri, &request.headers);
        if request.version == Version::HTTP_2 && headers.values().any(is_padded) {
            return Err(Reason::BadRequest);
        }
        let upgrade = Upgrade::of(request)?;
        let header = only_host(headers)?;
        let host = match (uri.authority(), header) {
            // An authority alone is CONNECT's target only (RFC 9112 §3.2.3), and HTTP/1.1 has a Host whatever the target
            // says (§3.2); HTTP/2 has its authority instead.
            (Some(_), _) if uri.scheme().is_none() => return Err(Reason::BadRequest),
            (Some(_), None) if request.version == Version::HTTP_11 => return Err(Reason::BadRequest),
            (Some(authority), Some(host))
                if !same_host(authority.as_str().as_bytes(), host, uri.scheme_str()) =>
            {
                return Err(Reason::BadRequest);
            }
            (Some(authority), _) => authority.as_str().as_bytes(),
            (None, Some(host)) if !host.is_empty() => host,
            (None, _) if request.version < Version::HTTP_11 => b"",
            (None, _) => return Err(Reason::BadRequest),
        };
        // Of a scheme that is not ours nobody knows what its target means (RFC 9110 §7.4).
        if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
            return Err(Reason::BadRequest);
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let is_target = target.starts_with('/') || (target == "*" && request.method == Method::OPTIONS);
        let bare = without_port(host);
        if !is_target || !(host.is_empty() || is_host(bare, &host[bare.len()..])) {
            return Err(Reason::BadRequest);
        }
        // To be ignored in HTTP/1.0 (RFC 9110 §10.1.1).
        let expects_continue = expectation(headers)? && request.version >= Version::HTTP_11;
        let path = if target == "*" { "/" } else { uri.path() };
        Ok(Self {
            authority: host,
            host: bare,
            target,
            path,
            headers,
            sent_host: None,
            expects_continue,
            upgrade,
        })
    }

    /// The same as rules have it, with another target and another `Host` for the endpoint.
    #[must_use]
    pub fn sent_as(&self, target: &'r str, host: Option<&'r SentHost>) -> Self {
        Self { target, sent_host: host, ..*self }
    }

    /// The host without its port.
    #[must_use]
    pub fn bare_host(&self) -> &'r [u8] {
        self.host
    }

    /// The path, raw; `/` for `*`.
    #[must_use]
    pub fn raw_path(&self) -> &'r str {
        self.path
    }
}

/// Takes out what a client says of who is asking, and may not: of a stranger all of it (`X-Forwarded-*`, `Forwarded`), of anybody the
/// fields `subjects`, in which listeners tell whose certificate they have verified. What is left is believed, and decides.
pub fn disown(fields: &mut Fields, is_trusted: bool, subjects: &[HeaderName]) {
    if !is_trusted && fields.has(Note::Forwarding) {
        fields.drop_forwarding();
    }
    if !subjects.is_empty() {
        let is_subject = |name: &&HeaderName| subjects.iter().any(|subject| is_taken_for(name, subject));
        let said: Vec<_> = fields.keys().filter(is_subject).cloned().collect();
        said.iter().for_each(|name| drop(fields.remove(name)));
    }
}

/// What becomes of fields with an underscore in their name, which CGI and its like cannot tell from a hyphen:
/// `x_forwarded_for` would be somebody's word on who is asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underscores {
    /// They do not reach anybody.
    #[default]
    Drop,
    /// They pass.
    Allow,
    /// The request is refused.
    Reject,
}

impl Underscores {
    /// Deals with such fields among `headers`.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub fn clean(self, headers: &mut HeaderMap) -> Result<(), Reason> {
        let is_odd = |name: &HeaderName| name.as_str().as_bytes().contains(&b'_');
        if self == Self::Allow || !headers.keys().any(is_odd) {
            return Ok(());
        }
        if self == Self::Reject {
            return Err(Reason::BadRequest);
        }
        let odd: Vec<_> = headers.keys().filter(|name| is_odd(name)).cloned().collect();
        for name in odd {
            headers.remove(name);
        }
        Ok(())
    }
}

impl RouteKey for Asked<'_> {
    fn host(&self) -> &[u8] {
        self.host
    }

    fn path(&self) -> &str {
        self.path
    }

    fn has_header(&self, name: &str, value: &str) -> bool {
        self.headers.has_value(name, value.as_bytes())
    }
}

/// The one `Host` field (RFC 9112 §3.2: more than one is an error).
fn only_host(headers: &Fields) -> Result<Option<&[u8]>, Reason> {
    match headers.came(Note::Host) {
        Came::Never => Ok(None),
        Came::Once(host) => Ok(Some(host)),
        Came::Often => Err(Reason::BadRequest),
    }
}

/// Only `100-continue` can be expected (RFC 9110 §10.1.1).
fn expectation(headers: &Fields) -> Result<bool, Reason> {
    match headers.came(Note::Expect) {
        Came::Never => Ok(false),
        Came::Once(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Came::Once(_) | Came::Often => Err(Reason::Expectation),
    }
}

fn same_host(authority: &[u8], host: &[u8], scheme: Option<&str>) -> bool {
    let default = if scheme == Some("https") { &b":443"[..] } else { b":80" };
    let bare = |host: &[u8]| host.strip_suffix(default).unwrap_or(host).to_ascii_lowercase();
    authority.eq_ignore_ascii_case(host) || bare(authority) == bare(host)
}

/// What a registered name consists of (RFC 3986 §3.2.2). No comma: that would be a list. No percent sign: what it encodes is
/// another name to whoever decodes it, and to h2 it is no authority.
const IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut others: &[u8] = b"-._~!$&'()*+;=";
    while let [other, rest @ ..] = others {
        table[*other as usize] = true;
        others = rest;
    }
    table
};

/// A registered name, IPv4 or bracketed IPv6 address with an optional port: no userinfo, list, blank or path.
fn is_host(name: &[u8], port: &[u8]) -> bool {
    let is_port = port.is_empty() || (port.len() <= 6 && port[1..].iter().all(u8::is_ascii_digit));
    let is_name = match name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]")) {
        Some(v6) => str::from_utf8(v6).is_ok_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => name.iter().all(|byte| IN_NAME[usize::from(*byte)]),
    };
    is_name && is_port && !name.is_empty()
}

fn without_port(host: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', host) {
        Some(colon) if !host[colon..].contains(&b']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<(String, String, bool), Reason> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (request, ()) = request.body(()).unwrap().into_parts();
        let request = request.into();
        Asked::of(&request).map(|asked| {
            (
                String::from_utf8(asked.host().to_owned()).unwrap(),
                asked.target.to_owned(),
                asked.expects_continue,
            )
        })
    }

    #[test]
    fn one_valid_host_passes() {
        for (host, name) in
            [("a.b", "a.b"), ("a.b:80", "a.b"), ("[::1]:8080", "[::1]"), ("127.0.0.1", "127.0.0.1")]
        {
            assert_eq!(asked("GET", "/x?y", &[("host", host)]), Ok((name.into(), "/x?y".into(), false)));
        }
    }

    #[test]
    fn an_ambiguous_host_is_refused() {
        let refused = |headers: &[(&str, &str)]| {
            assert_eq!(asked("GET", "/", headers), Err(Reason::BadRequest), "{headers:?}")
        };
        refused(&[]);
        refused(&[("host", "a"), ("host", "a")]);
        for host in [
            "", "a,b", "u@a", "a b", "a/b", "a:b", "a:1:2", "[::1", "[zz]", ":80", "a:123456", "a\\b",
            "a%2db",
        ] {
            refused(&[("host", host)]);
        }
        assert_eq!(asked("GET", "http://a/x", &[("host", "b")]), Err(Reason::BadRequest));
        assert!(asked("GET", "http://a/x", &[("host", "A:80")]).is_ok());
        assert_eq!(asked("GET", "ftp://a/x", &[("host", "a")]), Err(Reason::BadRequest));
        assert_eq!(asked("GET", "http://a/x", &[]), Err(Reason::BadRequest));
        assert_eq!(asked("GET", "a:80", &[("host", "a:80")]), Err(Reason::BadRequest));
    }

    #[test]
    fn every_host_that_passes_can_be_sent_over_http_2() {
        for byte in 0..128_u8 {
            let name = [b'a', byte, b'b'];
            let passes = is_host(&name, b"");
            assert!(!passes || http::uri::Authority::try_from(&name[..]).is_ok(), "{}", char::from(byte));
        }
    }

    #[test]
    fn what_a_reverse_proxy_does_not_do_is_refused_by_name() {
        assert_eq!(asked("CONNECT", "a:443", &[("host", "a:443")]), Err(Reason::Method));
        assert_eq!(asked("POST", "/", &[("host", "a"), ("expect", "200-ok")]), Err(Reason::Expectation));
        assert_eq!(
            asked("POST", "/", &[("host", "a"), ("expect", "100-Continue")]).map(|asked| asked.2),
            Ok(true)
        );
        assert_eq!(asked("OPTIONS", "*", &[("host", "a")]).map(|asked| asked.1), Ok("*".into()));
        assert_eq!(asked("GET", "*", &[("host", "a")]), Err(Reason::BadRequest));
    }
}
