//! Sticky users: by what a service knows a user again, and which version a key belongs to (G5).
//!
//! A key is a salted 64-bit hash (SipHash-2-4) of what the user sends, and each version has a lot for it, by nothing but its
//! name, the salt and the key. With `u` as the lot, uniform in (0, 1), the version with the smallest `-ln(u) / weight` has the
//! key: weighted rendezvous. So a version gets exactly its weight of the keys; who has the same file gives the same answer,
//! whatever happened before; and a weight that rises alone only ever wins keys.
//!
//! All of it is the same on every machine and for ever: SipHash is fixed, and the logarithm is `libm`'s, in software, because
//! those of platforms differ in the last digit. Test vectors see to that.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use siphasher::sip::SipHasher24;

use super::fnv::Fnv;
use super::name::VersionName;
use super::split::Split;

#[cfg(test)]
mod tests;

/// By what a service's users stay with a version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StickyRules {
    /// What tells one user from another.
    pub by: StickyBy,
    /// Services with the same salt, and versions of the same names, have the same users on them; default: the service's name.
    pub salt: Box<str>,
}

/// What tells one user from another. Who does not send it is assigned by a coin a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StickyBy {
    /// The first cookie of this name.
    Cookie {
        /// Its name.
        name: Box<str>,
        /// How long a cookie lasts that is given to users who have none, default 30 days; `None`: none is given.
        mint: Option<Duration>,
    },
    /// The first value of the field of this name, in lower case; of `host` the [host](Sticky::key_of_host) that is asked for.
    Header(Box<str>),
    /// The address, or for IPv6 its [`network`].
    Client,
}

impl StickyRules {
    /// The same for rules by which the same users have the same keys, and only for those: however long a cookie lasts, and whether
    /// one is given.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        Fnv::of(format!("{}\0{}", self.by, self.salt).as_bytes())
    }
}

impl StickyBy {
    /// How long a cookie of ours lasts unless told otherwise.
    pub const MAX_AGE: Duration = Duration::from_hours(30 * 24);

    /// True when users who have no key are given one.
    #[must_use]
    pub fn mints(&self) -> bool {
        matches!(self, Self::Cookie { mint: Some(_), .. })
    }
}

/// As people read it: `the cookie sb_id`.
impl std::fmt::Display for StickyBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cookie { name, .. } => write!(f, "the cookie {name}"),
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Client => f.write_str("the client's address"),
        }
    }
}

/// A user's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StickyKey(u64);

impl StickyKey {
    /// The key as bits, each as good as any other.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// The rules of one service with its split, compiled for the request path.
#[derive(Debug, Clone, PartialEq)]
pub struct Sticky {
    /// What they were made of.
    pub rules: StickyRules,
    salt: (u64, u64),
    /// Those that have weight, by name.
    contenders: Box<[Contender]>,
    /// The version that nobody new comes to.
    closed: Option<Closed>,
}

/// A version that nobody new comes to.
#[derive(Debug, Clone, PartialEq)]
struct Closed {
    /// Of the version in its service.
    index: usize,
    /// By whose weights nobody new may belong to it, by name.
    contenders: Box<[Contender]>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Contender {
    /// Its name, salted.
    mark: u64,
    /// In basis points.
    weight: f64,
    /// Of the version in its service.
    index: usize,
}

// Weights are whole numbers.
impl Eq for Sticky {}

impl Sticky {
    /// Compiles `rules` and `split` over `versions`, in whose order the indices count.
    #[must_use]
    pub fn new<'v>(
        rules: &StickyRules,
        split: &Split,
        versions: impl Iterator<Item = &'v VersionName>,
    ) -> Self {
        let half = |number| SipHasher24::new_with_keys(0, number).hash(rules.salt.as_bytes());
        let salt = (half(0), half(1));
        let contenders = contenders(salt, split, &versions.collect::<Vec<_>>());
        Self { rules: rules.clone(), salt, contenders, closed: None }
    }

    /// The same, with nobody new coming to `version`: those who do not belong to it by the weights `split` either, so that none of them is
    /// ever moved while the version has no more than there.
    #[must_use]
    pub fn turning_away<'v>(
        self,
        version: &VersionName,
        split: &Split,
        versions: impl Iterator<Item = &'v VersionName>,
    ) -> Self {
        let versions: Vec<_> = versions.collect();
        let index = versions.iter().position(|name| *name == version);
        let closed = |index| Closed { index, contenders: contenders(self.salt, split, &versions) };
        Self { closed: index.map(closed), ..self }
    }

    /// True while nobody new comes to one of the versions.
    #[must_use]
    pub fn turns_away(&self) -> bool {
        self.closed.is_some()
    }

    /// The index of that version.
    #[must_use]
    pub fn closed(&self) -> Option<usize> {
        self.closed.as_ref().map(|closed| closed.index)
    }

    /// True of a key that nobody new may have: it belongs to the version that nobody new comes to.
    #[must_use]
    pub fn is_closed_to(&self, key: StickyKey) -> bool {
        self.closed.as_ref().is_some_and(|closed| first(&closed.contenders, key) == Some(closed.index))
    }

    /// The index of the version that has a new user with this key: of those that are open the first, which is the one that has the key
    /// later on too, unless [`Sticky::is_closed_to`] it.
    #[must_use]
    pub fn assign_new(&self, key: StickyKey) -> Option<usize> {
        let Some(Closed { index, contenders }) = &self.closed else { return self.assign(key) };
        let open: Vec<_> = contenders.iter().copied().filter(|contender| contender.index != *index).collect();
        first(&open, key)
    }

    /// The key of who sends these bytes; `None` for none at all, which tell nobody from anybody.
    #[must_use]
    pub fn key(&self, sent: &[u8]) -> Option<StickyKey> {
        (!sent.is_empty()).then(|| StickyKey(salted(self.salt, sent)))
    }

    /// The key of a client with this address.
    #[must_use]
    pub fn key_of_client(&self, address: IpAddr) -> StickyKey {
        StickyKey(match network(address) {
            IpAddr::V4(v4) => salted(self.salt, &v4.octets()),
            IpAddr::V6(v6) => salted(self.salt, &v6.octets()),
        })
    }

    /// The key of who asks for this host, without its port: HTTP/2 has it in `:authority`, and its case tells nobody from anybody.
    #[must_use]
    pub fn key_of_host(&self, host: &[u8]) -> Option<StickyKey> {
        self.key(&host.to_ascii_lowercase())
    }

    /// The index of the version that has this key; O(versions with weight), some 40 ns each.
    #[must_use]
    pub fn assign(&self, key: StickyKey) -> Option<usize> {
        first(&self.contenders, key)
    }
}

/// Those that have weight in `split`, by name: the order in which a file has `versions` must not decide anything.
fn contenders(salt: (u64, u64), split: &Split, versions: &[&VersionName]) -> Box<[Contender]> {
    let contenders = split.shares().filter_map(|(name, weight)| {
        let index = versions.iter().position(|version| *version == name)?;
        let mark = salted(salt, name.as_str().as_bytes());
        Some(Contender { mark, weight: f64::from(weight.points()), index })
    });
    contenders.collect()
}

/// The index of the version that has the key, of these.
fn first(contenders: &[Contender], key: StickyKey) -> Option<usize> {
    let [only] = *contenders else {
        let reach = |contender: &Contender| -libm::log(lot(key, contender.mark)) / contender.weight;
        let reached = contenders.iter().map(|contender| (reach(contender), contender.index));
        // Among equals the first by name.
        let first = reached.min_by(|one, other| one.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal));
        return first.map(|(_, index)| index);
    };
    Some(only.index)
}

fn salted(salt: (u64, u64), bytes: &[u8]) -> u64 {
    SipHasher24::new_with_keys(salt.0, salt.1).hash(bytes)
}

/// What the version with this mark draws for the key: an odd multiple of 2⁻⁵³, so neither 0 nor 1, and exact.
fn lot(key: StickyKey, mark: u64) -> f64 {
    let bits = SipHasher24::new_with_keys(key.0, mark).hash(&[]);
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    let odd = ((bits >> 11) | 1) as f64;
    odd / (1u64 << 53) as f64
}

/// The part of all keys that have another version after the split `after` than after `before`.
///
/// The lots are exponential, so that a version which has `w` and `w'` keeps a key with probability
/// 1 / Σ max(wⱼ/w, wⱼ'/w'), over all versions j.
#[must_use]
pub fn moved(before: &Split, after: &Split) -> f64 {
    let weight = |split: &Split, name: &VersionName| f64::from(split.weight(name).points());
    let fallen = before.shares().map(|(name, _)| name);
    let risen = after.shares().map(|(name, _)| name).filter(|name| weight(before, name) == 0.0);
    let all: Vec<_> = fallen.chain(risen).collect();
    let stays = |name: &VersionName| {
        let (old, new) = (weight(before, name), weight(after, name));
        if old == 0.0 || new == 0.0 {
            return 0.0;
        }
        1.0 / all
            .iter()
            .map(|other| (weight(before, other) / old).max(weight(after, other) / new))
            .sum::<f64>()
    };
    let moved = 1.0 - all.iter().map(|name| stays(name)).sum::<f64>();
    // What rounding leaves of nothing is nothing.
    if moved < 1e-9 { 0.0 } else { moved }
}

/// Whom an address stands for: itself, or for IPv6 the 64 bits that one client usually has all addresses of.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// The value of the first cookie of this name in these `Cookie` fields, as it stands there (RFC 6265 §5.4).
pub fn cookie<'c>(fields: impl Iterator<Item = &'c [u8]>, name: &str) -> Option<&'c [u8]> {
    let mut pairs = fields.flat_map(|field| field.split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        (key == name.as_bytes()).then_some(value)
    })
}
