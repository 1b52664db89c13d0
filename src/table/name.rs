//! The words of the switch as types: names that cannot be mixed up, epochs, weights, addresses.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Why a name, weight or address was not accepted; the text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Longest service or version name, in bytes: they are metric labels and path segments.
pub const MAX_NAME: usize = 63;

fn checked_name(what: &str, text: &str) -> Result<Arc<str>, Invalid> {
    let head = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let tail = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if head && tail && text.len() <= MAX_NAME {
        return Ok(text.into());
    }
    Err(Invalid(format!(
        "`{}` is not a {what} name: 1 to {MAX_NAME} of a-z A-Z 0-9 - _ . and first a letter or digit",
        text.escape_default()
    )))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                checked_name($what, text).map(Self)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name! {
    /// The name of a service, the thing that is deployed.
    ServiceName, "service"
}
name! {
    /// The label of one release of a service: `blue`, `green`, `v42`.
    VersionName, "version"
}
name! {
    /// A place where machines stand, such as an availability zone: `eu-west-1a`.
    ZoneName, "zone"
}

/// A version as an operator names it: by label, or by the part it plays now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionRef {
    /// By its label.
    Name(VersionName),
    /// `@stable`: the version that carries the service.
    Stable,
    /// `@candidate`: the version that is tried against it.
    Candidate,
}

impl FromStr for VersionRef {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "@stable" => Ok(Self::Stable),
            "@candidate" => Ok(Self::Candidate),
            name => name.parse().map(Self::Name),
        }
    }
}

impl From<VersionName> for VersionRef {
    fn from(name: VersionName) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Stable => f.write_str("@stable"),
            Self::Candidate => f.write_str("@candidate"),
        }
    }
}

/// The number of a table: +1 for every change, never reused, survives restarts. 0 is "before the first change".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next change.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A weight: hundredths of a per cent, 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BasisPoints(u16);

impl BasisPoints {
    /// Nothing at all.
    pub const NONE: Self = Self(0);
    /// 100.00 %.
    pub const ALL: Self = Self(10_000);
    /// The least that is something.
    pub const LEAST: Self = Self(1);
    /// 10.00 %.
    pub const TENTH: Self = Self(1_000);

    /// A weight of `points` hundredths of a per cent.
    ///
    /// # Errors
    /// [`Invalid`] above 10,000.
    pub fn new(points: u64) -> Result<Self, Invalid> {
        match u16::try_from(points) {
            Ok(points) if points <= Self::ALL.0 => Ok(Self(points)),
            _ => Err(Invalid(format!("weight {points} is over 10000 basis points (100 %)"))),
        }
    }

    /// The number of basis points, 0 to 10,000.
    #[must_use]
    pub fn points(self) -> u16 {
        self.0
    }
}

impl FromStr for BasisPoints {
    type Err = Invalid;
    /// Reads what people write: `5`, `0.25`, `5%`, `0.25%`, at most two decimals.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let expected = || {
            Invalid(format!(
                "`{}` is not a weight: expected a percentage from 0 to 100 with at most two decimals, such as 5, 0.25 or 5%",
                text.escape_default()
            ))
        };
        let number = text.trim().trim_end_matches('%').trim_end();
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str, most: usize| {
            !part.is_empty() && part.len() <= most && part.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(decimals, 2) {
            return Err(expected());
        }
        let hundredths: u64 = format!("{whole}{decimals:0<2}").parse().map_err(|_| expected())?;
        Self::new(hundredths).map_err(|_| expected())
    }
}

impl fmt::Display for BasisPoints {
    /// `5 %`, `0.25 %`, `12.5 %`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole} %"),
            (whole, cents) if cents % 10 == 0 => write!(f, "{whole}.{} %", cents / 10),
            (whole, cents) => write!(f, "{whole}.{cents:02} %"),
        }
    }
}

/// Where one endpoint of a version listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointAddr {
    /// `127.0.0.1:9001`, `[::1]:9001`.
    Tcp(SocketAddr),
    /// `app.internal:9001`; resolved when a connection is opened.
    Named {
        /// The host name, lower case.
        host: Arc<str>,
        /// The port, 1 to 65,535.
        port: u16,
    },
    /// `unix:/run/app.sock`.
    Unix(Arc<Path>),
}

impl FromStr for EndpointAddr {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let expected = || {
            Invalid(format!(
                "`{}` is not an endpoint: expected host:port, [v6]:port or unix:/path",
                text.escape_default()
            ))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path.into())) } else { Err(expected()) };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(expected()) } else { Ok(Self::Tcp(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(expected)?;
        if !is_host_name(host) {
            return Err(expected());
        }
        Ok(Self::Named { host: host.to_ascii_lowercase().into(), port })
    }
}

/// A DNS name: labels of letters, digits, `-` and `_`, the last one not all digits (that would be a bad IPv4 address).
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let last_is_number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    host.len() <= 253 && host.split('.').all(label) && !last_is_number
}

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Named { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_people_write_them() {
        let points = |text: &str| text.parse::<BasisPoints>().map(BasisPoints::points);
        assert_eq!(points("5"), Ok(500));
        assert_eq!(points("0.25%"), Ok(25));
        assert_eq!(points("12.5 %"), Ok(1250));
        assert_eq!(points("100"), Ok(10_000));
        for bad in ["", "-1", "100.01", "0.001", "five", "1e1", "+5", "5%%5", ".5"] {
            assert!(points(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_weight_prints_as_it_is_read() {
        for points in 0..=10_000 {
            let weight = BasisPoints::new(points).unwrap();
            assert_eq!(weight.to_string().parse(), Ok(weight));
        }
    }

    #[test]
    fn endpoints_are_read_and_printed_alike() {
        for text in ["127.0.0.1:80", "[::1]:9001", "app.internal:80", "unix:/run/a.sock", "localhost:1"] {
            assert_eq!(text.parse::<EndpointAddr>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "127.0.0.1",
            "127.0.0.1:0",
            "a b:80",
            "::1:80",
            "unix:x",
            "300.1.1.1:80",
            "h:99999",
            "http://x:80",
        ] {
            assert!(bad.parse::<EndpointAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_safe_as_labels_and_path_segments() {
        for bad in ["", "a/b", "@stable", "-a", "a b", "é", &"x".repeat(64)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
        assert_eq!("v42".parse::<VersionName>().unwrap().as_str(), "v42");
    }
}
