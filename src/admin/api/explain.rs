//! Which version would get a request, and why.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Copied, Route, Sticky};

/// A request to explain.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The method; GET when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// `http://host/path`, or `/path` with the host in `headers`.
    #[schema(example = "http://shop.example.com/cart")]
    pub uri: String,
    /// The request's headers by name: a text is one line, a list one a line, in their order. `X-Forwarded-*`, `X-Real-IP` and `Forwarded` are
    /// taken for a trusted proxy's; anybody else's decide nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"x-beta": "yes", "x-team": ["qa", "eu"]}))]
    pub headers: BTreeMap<String, Lines>,
    /// The client's address: of somebody whom a listener trusts (`trusted_proxies`), what his `baggage` pins is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// The lines of a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, or a list of texts where the header has several lines")]
pub enum Lines {
    /// One.
    One(String),
    /// So many.
    Several(Vec<String>),
}

impl From<Vec<String>> for Lines {
    fn from(lines: Vec<String>) -> Self {
        // As a proxy of an earlier build takes it.
        <[String; 1]>::try_from(lines).map_or_else(Self::Several, |[line]| Self::One(line))
    }
}

impl From<Lines> for Vec<String> {
    fn from(lines: Lines) -> Self {
        match lines {
            Lines::One(line) => vec![line],
            Lines::Several(lines) => lines,
        }
    }
}

/// Where the request would go, by the table of this epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explained {
    /// The table's epoch.
    pub epoch: u64,
    /// The service; absent when no route matches.
    pub service: Option<String>,
    /// Its route that matched.
    pub route: Option<Route>,
    /// Why it goes where it goes.
    pub reason: Reason,
    /// The version, when only one is possible.
    pub version: Option<String>,
    /// Every version that could get it.
    pub chances: Vec<Chance>,
    /// The targeting rule that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Decided>,
    /// Where no `client` was told: the targeting rules that decide before anything here if its address is in their networks, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_client: Vec<Decided>,
    /// Headers that count for nothing: the proxy takes out those with an underscore in their name, as `underscores_in_headers` says, and
    /// a listener's `client_subject_header`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_out: Vec<String>,
    /// What its `baggage` pins of the service, followed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pinned>,
    /// By what the service's users stay with a version, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// Who answers, where it may go to another version and that fails it: stable, if the service is shielded and the method may be
    /// sent twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shielded_by: Option<String>,
    /// What of its `upgrade` is passed on, if it asks for a change of protocol that the service lists. A version that speaks HTTP/2 gets
    /// nothing of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["spdy/3.1"]))]
    pub upgrades: Vec<String>,
    /// Whether it is copied to a version that does not serve it, if the service has a mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<Copied>,
}

/// A targeting rule that decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decided {
    /// Which of the list as it was set, from 1 on.
    pub number: u8,
    /// As people type it.
    #[schema(example = "header x-beta=yes -> green")]
    pub text: String,
}

/// What a request's `baggage` pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pinned {
    /// As it is written.
    #[schema(example = "v42")]
    pub release: String,
    /// The version of the service that it means; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is followed; where the version has all the weight it decides nothing.
    Followed,
    /// A targeting rule decides before it.
    Rule,
    /// It is taken out: `client` is nobody whom a listener trusts, or was not told.
    Untrusted,
    /// It is passed over: the service has no version of that name.
    NoVersion,
    /// It is passed over: neither a weight nor a rule leads to the version.
    Idle,
    /// It is passed over: supervision suspects the version.
    Suspected,
    /// It is passed over: the version is being retired.
    Retiring,
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No route matches: 404.
    NoRoute,
    /// One version has all the weight.
    Single,
    /// A coin a request: where users stay with a version, because it has nothing that its user is known by.
    Coin,
    /// What its user is known by.
    Sticky,
    /// Its user is not known yet, and gets a cookie that decides from then on.
    Minted,
    /// A targeting rule that fits.
    Rule,
    /// A release that a trusted hop has pinned.
    Pinned,
    /// The route redirects by itself; no version is asked.
    Redirect,
    /// The route has a fixed answer; no version is asked.
    Fixed,
}

/// One version's chance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Chance {
    /// The version.
    pub version: String,
    /// Its weight in basis points.
    pub weight: u16,
    /// The same as a probability, 0 to 1.
    pub probability: f64,
}
