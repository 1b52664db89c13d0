//! The protocols that requests of a service may change to, beside WebSocket.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::name::Invalid;

/// A protocol as `Upgrade` names it: a token, with or without a version (RFC 9110 §7.8). Kept in lower case, since the names are
/// compared in any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpgradeName(Arc<str>);

/// Longest name, in bytes.
const MAX_NAME: usize = 64;
/// Names of what would take a request out of the proxy's sight, or out of the connection's own security.
const NEVER: [&str; 6] = ["h2c", "h2", "h3", "http", "https", "tls"];

impl UpgradeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True when a peer means this one by `name`.
    #[must_use]
    pub fn is(&self, name: &[u8]) -> bool {
        self.0.as_bytes().eq_ignore_ascii_case(name)
    }

    /// True for what is served without being listed.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.as_str() == "websocket"
    }
}

impl FromStr for UpgradeName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (protocol, version) =
            text.split_once('/').map_or((text, None), |(name, version)| (name, Some(version)));
        if text.len() > MAX_NAME || !is_token(protocol) || version.is_some_and(|version| !is_token(version)) {
            let text = text.escape_default();
            return Err(Invalid(format!(
                "`{text}` is no protocol of an `Upgrade`: a name, or a name and a version such as \"spdy/3.1\""
            )));
        }
        let name = text.to_ascii_lowercase();
        if NEVER.iter().any(|never| protocol.eq_ignore_ascii_case(never)) {
            return Err(Invalid(format!(
                "`{name}` cannot be passed on: requests in it would be smuggled past routes, rules and limits"
            )));
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for UpgradeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which of `listed` the lines of an `Upgrade` offer, each once, the most wanted first.
pub fn offered(listed: &[UpgradeName], lines: impl IntoIterator<Item: AsRef<[u8]>>) -> Vec<&UpgradeName> {
    let mut offered = Vec::new();
    for line in lines {
        for name in line.as_ref().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let found = listed.iter().find(|known| known.is(name));
            offered.extend(found.filter(|found| !offered.contains(found)));
        }
    }
    offered
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_tchar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_in_any_case() {
        let name: UpgradeName = "SPDY/3.1".parse().unwrap();
        assert_eq!(name.to_string(), "spdy/3.1");
        assert!(name.is(b"Spdy/3.1") && !name.is(b"spdy") && !name.is(b"spdy/3"));
        for odd in ["", "/", "a/", "/1", "a b", "a,b", "a/1/2", "ä", "a\r\n", &"a".repeat(65)] {
            assert!(odd.parse::<UpgradeName>().is_err(), "{odd}");
        }
    }

    #[test]
    fn what_smuggles_is_no_name() {
        for name in ["h2c", "H2C", "HTTP/2.0", "http", "TLS/1.0", "tls/1.3", "h2", "h3", "https"] {
            let why = name.parse::<UpgradeName>().unwrap_err().to_string();
            assert!(why.contains("smuggled"), "{why}");
        }
        assert!("h2x".parse::<UpgradeName>().is_ok());
    }

    #[test]
    fn of_what_is_offered_only_the_listed_are_taken_in_the_clients_order() {
        let listed: Vec<UpgradeName> = ["tcp", "spdy/3.1"].iter().map(|name| name.parse().unwrap()).collect();
        let taken = |lines: &[&str]| -> Vec<String> {
            offered(&listed, lines).into_iter().map(UpgradeName::to_string).collect()
        };
        assert_eq!(taken(&["h2c, SPDY/3.1 ,tcp", "TCP"]), ["spdy/3.1", "tcp"]);
        assert_eq!(taken(&["websocket", "", "tcp/1", "spdy"]), [""; 0]);
    }
}
