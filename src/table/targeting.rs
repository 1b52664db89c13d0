//! Targeting rules: who goes to which version by what his request shows, before any coin is thrown.
//!
//! The rules of a service stand in order, and the first one that fits decides; of none that fits the key or the coin does. A
//! rule fits when all of its conditions do. What is compared is what came: names of headers in any case, everything else byte
//! by byte; names and values of a query with `%61` as the byte that it stands for, and with `+` as itself.
//!
//! Cost: each condition looks once through the fields or the query that it is about, so a request costs no more than its
//! length times the number of conditions, which is bounded.

mod aims;
mod fit;
mod text;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderName;
use ipnet::IpNet;

use super::matcher::HostPattern;
use super::name::{Invalid, VersionName};
pub use aims::{Aim, Aims};
pub(in crate::table) use fit::decoded;

pub use text::network;

#[cfg(test)]
mod tests;

/// The rules of a service, in order; by default none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Targeting(Arc<[TargetRule]>);

/// Whoever shows all of this goes to that version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetRule {
    /// What a request has to show.
    pub when: Conditions,
    /// Where it goes then.
    pub to: VersionName,
}

/// What a request has to show, all of it; never nothing, and none twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Conditions(Box<[Condition]>);

/// One thing that a request may show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// A header of this name, in lower case: any of its lines.
    Header(Box<str>, Matching),
    /// The first cookie of this name.
    Cookie(Box<str>, Matching),
    /// A parameter of this name in the query: any of them.
    Query(Box<str>, Matching),
    /// The client's address is in one of these networks.
    Client(Box<[IpNet]>),
    /// The host that is asked for, without its port.
    Host(HostPattern),
}

/// How a value has to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Matching {
    /// It is there, with any value.
    There,
    /// Exactly this.
    Is(Box<str>),
    /// It begins so.
    Starts(Box<str>),
}

/// What rules need to see of a request.
pub trait Shown {
    /// The values of the header of this lower-case name, one a line.
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]>;
    /// The raw query, without its `?`.
    fn query(&self) -> &[u8];
    /// The address of the client; `None` where nobody knows.
    fn client(&self) -> Option<IpAddr>;
    /// The host without its port, in any case.
    fn host(&self) -> &[u8];
}

impl Targeting {
    /// The most rules of a service.
    pub const MOST_RULES: usize = 64;
    /// The most conditions of all of them together; each network counts as one.
    pub const MOST_CONDITIONS: usize = 128;

    /// These rules, in this order.
    ///
    /// # Errors
    /// [`Invalid`] when they are too many.
    pub fn new(rules: Vec<TargetRule>) -> Result<Self, Invalid> {
        let (count, most) = (rules.len(), Self::MOST_RULES);
        if count > most {
            return Err(Invalid(format!("{count} rules are too many: a service has at most {most}")));
        }
        let (count, most) = (rules.iter().map(|rule| rule.when.size()).sum::<usize>(), Self::MOST_CONDITIONS);
        if count > most {
            return Err(Invalid(format!(
                "{count} conditions are too many: the rules of a service have at most {most} together"
            )));
        }
        Ok(Self(rules.into()))
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[TargetRule] {
        &self.0
    }

    /// True when there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when a rule leads to `version`.
    #[must_use]
    pub fn leads_to(&self, version: &VersionName) -> bool {
        self.0.iter().any(|rule| rule.to == *version)
    }

    /// Those that lead to versions of which this is so, in the same order.
    #[must_use]
    pub fn to_those(&self, keeps: impl Fn(&VersionName) -> bool) -> Self {
        if self.0.iter().all(|rule| keeps(&rule.to)) {
            return self.clone();
        }
        Self(self.0.iter().filter(|rule| keeps(&rule.to)).cloned().collect())
    }

    /// Those that `others` have not, in the same order.
    #[must_use]
    pub fn beyond(&self, others: &Self) -> Self {
        Self(self.0.iter().filter(|rule| !others.0.contains(rule)).cloned().collect())
    }

    /// Those that lead elsewhere than to `version`.
    #[must_use]
    pub fn without(&self, version: &VersionName) -> Self {
        self.to_those(|to| to != version)
    }
}

/// `no rules`, `1 rule (header x-beta=yes -> green)`, `3 rules (header x-beta=yes -> green, and 2 more)`.
impl fmt::Display for Targeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0 => f.write_str("no rules"),
            1 => write!(f, "1 rule ({})", self.first(1)),
            many => write!(f, "{many} rules ({})", self.first(1)),
        }
    }
}

impl Targeting {
    /// `header x-beta=yes -> green, client 10.0.0.0/8 -> blue, and 2 more`: so many of them, and of each so much that a line has an end.
    #[must_use]
    pub fn first(&self, most: usize) -> String {
        /// Of a rule's text so much is shown.
        const SHOWN: usize = 120;
        let shown = self.0.iter().take(most).map(|rule| {
            let mut text = rule.to_string();
            if let Some((end, _)) = text.char_indices().nth(SHOWN) {
                text.truncate(end);
                text.push('…');
            }
            text
        });
        let more = self.0.len().saturating_sub(most);
        let more = (more > 0).then(|| format!("and {more} more"));
        shown.chain(more).collect::<Vec<_>>().join(", ")
    }
}

impl Conditions {
    /// All of these.
    ///
    /// # Errors
    /// [`Invalid`] when there is none, one is there twice, or no request can show it.
    pub fn new(mut all: Vec<Condition>) -> Result<Self, Invalid> {
        if all.is_empty() {
            return Err(Invalid("a rule without a condition fits everybody: that is a flip".to_owned()));
        }
        all.iter_mut().try_for_each(Condition::check)?;
        all.sort();
        match all.windows(2).find(|pair| pair[0].subject() == pair[1].subject()) {
            Some(pair) => Err(Invalid(format!("a rule has one condition on {}, not two", pair[0].what()))),
            None => Ok(Self(all.into())),
        }
    }

    /// The conditions, sorted.
    #[must_use]
    pub fn all(&self) -> &[Condition] {
        &self.0
    }

    fn size(&self) -> usize {
        let size = |condition: &Condition| match condition {
            Condition::Client(networks) => networks.len(),
            Condition::Header(..) | Condition::Cookie(..) | Condition::Query(..) | Condition::Host(_) => 1,
        };
        self.0.iter().map(size).sum()
    }

    /// True when the request shows all of it.
    pub fn fit(&self, request: &impl Shown) -> bool {
        self.0.iter().all(|condition| condition.fits(request))
    }

    /// True when it shows all of it, or would if its client, whom nobody knows, were in the right network.
    fn may_fit(&self, request: &impl Shown) -> bool {
        let is_open =
            |condition: &Condition| matches!(condition, Condition::Client(_)) && request.client().is_none();
        self.0.iter().all(|condition| is_open(condition) || condition.fits(request))
    }
}

impl Condition {
    /// The longest name, in bytes.
    pub const MOST_NAME: usize = 256;
    /// The longest value, in bytes.
    pub const MOST_VALUE: usize = 1024;

    /// What it is about, so that two about the same are found out.
    fn subject(&self) -> (u8, &str) {
        match self {
            Self::Header(name, _) => (0, name),
            Self::Cookie(name, _) => (1, name),
            Self::Query(name, _) => (2, name),
            Self::Client(_) => (3, ""),
            Self::Host(_) => (4, ""),
        }
    }

    /// `header x-beta`, `client`: what a rule is told by.
    #[must_use]
    pub fn what(&self) -> String {
        let word = ["header", "cookie", "query", "client", "host"][usize::from(self.subject().0)];
        format!("{word} {}", self.subject().1).trim_end().to_owned()
    }

    /// That a request can show it; a header's name is in lower case from then on, and networks begin where they begin.
    fn check(&mut self) -> Result<(), Invalid> {
        let what = self.what();
        let (name, matching) = match self {
            Self::Client(networks) => {
                if networks.is_empty() {
                    return Err(Invalid("`client` names no network".to_owned()));
                }
                networks.iter_mut().for_each(|network| *network = canonical(*network));
                networks.sort();
                return Ok(());
            }
            Self::Host(HostPattern::Any) => {
                return Err(Invalid("the host `*` is any host: leave it out".to_owned()));
            }
            Self::Host(HostPattern::Exact(_) | HostPattern::Wildcard(_)) => return Ok(()),
            Self::Header(name, matching) => {
                let read = HeaderName::from_bytes(name.as_bytes());
                let read =
                    read.map_err(|_| Invalid(format!("`{}` is not a header name", name.escape_debug())))?;
                match read.as_str() {
                    "host" => {
                        return Err(Invalid(
                            "the header `host` is what the condition on the host is about".to_owned(),
                        ));
                    }
                    "cookie" => {
                        return Err(Invalid(
                            "the header `cookie` is what a condition on a cookie is about".to_owned(),
                        ));
                    }
                    lower => *name = lower.into(),
                }
                (&*name, &*matching)
            }
            Self::Query(name, _) if decoded(name.as_bytes()).ne(name.bytes()) => {
                let name = name.escape_debug();
                return Err(Invalid(format!(
                    "the names of a query are compared decoded: `{name}` is what is sent, not what it stands for"
                )));
            }
            Self::Cookie(name, matching) | Self::Query(name, matching) => (&*name, &*matching),
        };
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '=' | '^' | '"');
        if name.is_empty() || name.len() > Self::MOST_NAME || name.contains(is_odd) {
            let most = Self::MOST_NAME;
            return Err(Invalid(format!(
                "`{}` is no name for a rule: expected 1 to {most} bytes without spaces and = ^ \"",
                name.escape_debug()
            )));
        }
        matching.check(&what)
    }
}

impl Matching {
    fn check(&self, what: &str) -> Result<(), Invalid> {
        let (Self::Is(value) | Self::Starts(value)) = self else { return Ok(()) };
        let most = Condition::MOST_VALUE;
        if value.len() > most {
            return Err(Invalid(format!("the value of {what} is too long: at most {most} bytes")));
        }
        if value.chars().any(char::is_control) {
            return Err(Invalid(format!(
                "the value of {what} has a control character, which no request has"
            )));
        }
        if matches!(self, Self::Starts(_)) && value.is_empty() {
            return Err(Invalid(format!(
                "every value of {what} begins with nothing: have it be there instead"
            )));
        }
        if what.starts_with("cookie") && value.contains(';') {
            return Err(Invalid(format!("the value of {what} has a `;`, where a cookie ends")));
        }
        let is_query = what.starts_with("query");
        let is_padded =
            value.trim_start() != &**value || matches!(self, Self::Is(_)) && value.trim_end() != &**value;
        if is_padded && !is_query {
            return Err(Invalid(format!(
                "the value of {what} has a space around it, which no request's has"
            )));
        }
        Ok(())
    }
}

/// IPv4 in IPv6's form is IPv4, as it is in clients' addresses; and 10.1.2.3/8 is 10.0.0.0/8.
fn canonical(network: IpNet) -> IpNet {
    let v4 = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    v4.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(network).trunc()
}
