//! A service as the table holds it: its routes, its versions, and the split among them.

use std::sync::Arc;
use std::time::Duration;

use super::drain::DrainRules;
use super::hold::{HoldLimits, Holds};
use super::limits::ServiceLimits;
use super::matcher::Route;
use super::mirror::MirrorRules;
use super::name::{EndpointAddr, Epoch, ServiceName, VersionName, VersionRef};
use super::pin::{Avoided, Pin, Pinnable};
use super::pool::PoolRules;
use super::pool::traits::PoolTraits;
use super::rules::Rules;
use super::shield::ShieldRules;
use super::split::{Coin, Split};
use super::sticky::{Sticky, StickyRules};
use super::supervise::{SuperviseRules, Watch};
use super::targeting::{Aims, Targeting};
use super::transport::{Protocol, ProxyHeader, UpstreamTls};
use super::upgrades::UpgradeName;

/// One release of a service as it was defined: a label and a pool of endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionSpec {
    /// The label.
    pub name: VersionName,
    /// The pool, in the order it was written; the same list, by pointer, as long as the pool is the same.
    pub endpoints: Arc<[EndpointAddr]>,
    /// What the endpoints speak.
    pub protocol: Protocol,
    /// How they are verified where that is over TLS; `None`: as [`UpstreamTls::default`]. The file's alone to say.
    pub tls: Option<Arc<UpstreamTls>>,
    /// What comes first on a connection; such a one is for one request, and none of it is kept.
    pub proxy_header: Option<ProxyHeader>,
    /// Endpoints of the pool that get no new requests, because somebody wants to stop them.
    pub draining: Arc<[EndpointAddr]>,
    /// What is said of its endpoints beyond their addresses.
    pub traits: PoolTraits,
    /// How it is worked; `None`: as the service's pools are. The file's alone to say.
    pub pool: Option<Arc<PoolRules>>,
}

impl VersionSpec {
    /// The endpoints that new requests may go to, in the order of the pool.
    pub fn serving(&self) -> impl Iterator<Item = &EndpointAddr> {
        self.endpoints.iter().filter(|endpoint| !self.draining.contains(endpoint))
    }
}

/// How long the parts of a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// Until an endpoint accepts the connection; default 5 s.
    pub connect: Duration,
    /// From the request's last byte to the response's head; default 60 s.
    pub response: Duration,
    /// Between two bytes of a request's body, or of an answer of known length; default 30 s.
    pub progress: Duration,
    /// Between two bytes of an answer of unknown length: a stream, server-sent events; default 5 min.
    pub stream: Duration,
    /// Between two bytes of a tunnel, a WebSocket above all, whichever way they go; default 1 h.
    pub tunnel: Duration,
    /// For all of a request, from its head to the answer's last byte; default none.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let [connect, response, progress, stream, tunnel] = [5, 60, 30, 300, 3600].map(Duration::from_secs);
        Self { connect, response, progress, stream, tunnel, total: None }
    }
}

/// A service as the configuration file says it exists; where its traffic goes is the store's to say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceSpec {
    /// The name.
    pub name: ServiceName,
    /// The routes that lead to it; at least one.
    pub routes: Arc<[Route]>,
    /// The versions of the file; at least one.
    pub versions: Vec<VersionSpec>,
    /// Those of them that have endpoints by discovery: nothing may be found of one yet.
    pub discovering: Vec<VersionName>,
    /// The version that carries the service at first.
    pub stable: VersionName,
    /// The first weights: (version, basis points), summing to 10,000.
    pub weights: Vec<(VersionName, u16)>,
    /// Time limits of its requests.
    pub timeouts: Timeouts,
    /// What its routes and versions change about requests and answers.
    pub rules: Option<Arc<Rules>>,
    /// What it may be asked for.
    pub limits: ServiceLimits,
    /// How what is left on its versions ends when they are left.
    pub drain: DrainRules,
    /// What its holds are bounded by.
    pub hold: Arc<HoldLimits>,
    /// How its versions' pools are worked.
    pub pool: Arc<PoolRules>,
    /// How its candidates are supervised; `None`: only where a change asks for it.
    pub supervise: Option<Arc<SuperviseRules>>,
    /// By what its users stay with a version; `None`: each request is assigned by a coin of its own.
    pub sticky: Option<Arc<StickyRules>>,
    /// The first targeting rules.
    pub targeting: Targeting,
    /// What stable answers for the others when they fail; `None`: nothing.
    pub shield: Option<Arc<ShieldRules>>,
    /// What its requests may change to beside WebSocket.
    pub upgrades: Arc<[UpgradeName]>,
    /// Which of its requests are copied to a version without traffic; `None`: none.
    pub mirror: Option<Arc<MirrorRules>>,
}

/// What decided on a request's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignedBy {
    /// There was no choice: one version has all the weight.
    Single,
    /// The request's own coin.
    Coin,
    /// What the client sends whenever it comes.
    Sticky,
    /// The same, which it was given with this answer.
    Minted,
    /// The targeting rule of this number, from 1 on.
    Rule(u8),
    /// A release that a trusted hop has pinned.
    Pinned,
}

impl AssignedBy {
    /// The token for it.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Coin => "coin",
            Self::Sticky => "sticky",
            Self::Minted => "minted",
            Self::Rule(_) => "rule",
            Self::Pinned => "pinned",
        }
    }
}

/// A service in the table. Built only by [`Service::new`], so its coin always fits its split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The name.
    pub name: ServiceName,
    /// The routes that lead to it.
    pub routes: Arc<[Route]>,
    /// Every version, with weight or without.
    pub versions: Vec<VersionSpec>,
    /// The version that carries the service.
    pub stable: VersionName,
    /// The present weights and targeting rules.
    pub split: Split,
    /// The epoch of the last change of this service.
    pub epoch: Epoch,
    /// Time limits of its requests.
    pub timeouts: Timeouts,
    /// What its routes and versions change about requests and answers; `None` when nothing.
    pub rules: Option<Arc<Rules>>,
    /// What it may be asked for.
    pub limits: ServiceLimits,
    /// How what is left on its versions ends when they are left.
    pub drain: DrainRules,
    /// What its holds are bounded by.
    pub hold_limits: Arc<HoldLimits>,
    /// How its versions' pools are worked, unless they say it themselves.
    pub pool: Arc<PoolRules>,
    /// How its candidates are supervised; `None`: only where a change asks for it.
    pub supervise: Option<Arc<SuperviseRules>>,
    /// By what its users stay with a version, and which; `None`: each request is assigned by a coin of its own.
    pub sticky: Option<Arc<Sticky>>,
    /// Its targeting rules, if there are any.
    pub aims: Option<Arc<Aims>>,
    /// What stable answers for the others when they fail; `None`: nothing.
    pub shield: Option<Arc<ShieldRules>>,
    /// What its requests may change to beside WebSocket.
    pub upgrades: Arc<[UpgradeName]>,
    /// Which of its requests are copied, unless the [mirror is over](Self::mirror_over).
    pub mirror: Option<Arc<MirrorRules>>,
    /// True once the version that its mirror leads to has had traffic, or one version alone may serve: it gets no copies any more.
    pub mirror_over: bool,
    /// Its new requests wait, while there are any.
    pub holds: Holds,
    /// Whose answers are counted, if any.
    pub watch: Option<Watch>,
    /// The versions that no pin leads to, whatever they have.
    pub avoided: Avoided,
    coin: Coin,
}

impl Service {
    /// The service of `spec` with these versions and this split, changed last at `epoch`; nothing of it is held.
    #[must_use]
    pub fn new(
        spec: &ServiceSpec,
        versions: Vec<VersionSpec>,
        stable: VersionName,
        split: Split,
        epoch: Epoch,
    ) -> Self {
        let names = || versions.iter().map(|version| &version.name);
        let coin = Coin::new(&split, names());
        let sticky = spec.sticky.as_ref().map(|rules| Arc::new(Sticky::new(rules, &split, names())));
        let aims = Aims::of(split.rules(), names()).map(Arc::new);
        Self {
            name: spec.name.clone(),
            routes: Arc::clone(&spec.routes),
            timeouts: spec.timeouts,
            rules: spec.rules.clone(),
            limits: spec.limits,
            drain: spec.drain,
            hold_limits: Arc::clone(&spec.hold),
            pool: Arc::clone(&spec.pool),
            supervise: spec.supervise.clone(),
            sticky,
            aims,
            shield: spec.shield.clone(),
            upgrades: Arc::clone(&spec.upgrades),
            mirror: spec.mirror.clone(),
            mirror_over: false,
            holds: Holds::default(),
            watch: None,
            avoided: Avoided::default(),
            versions,
            stable,
            split,
            epoch,
            coin,
        }
    }

    /// Its rules have the numbers that they have among `all` from now on.
    pub fn number_rules(&mut self, all: &Targeting) {
        self.aims = self.aims.as_ref().map(|aims| Arc::new(aims.numbered_among(all)));
    }

    /// The same, held or not.
    #[must_use]
    pub fn holding(self, holds: Holds) -> Self {
        Self { holds, ..self }
    }

    /// From now on nobody new comes to a version, by these weights, where users are known by a cookie of ours; `None`: to any.
    pub fn turn_away(&mut self, from: Option<(&VersionName, &Split)>) {
        let Some(sticky) = self.sticky.as_ref().filter(|sticky| sticky.turns_away() || from.is_some()) else {
            return;
        };
        let names = || self.versions.iter().map(|version| &version.name);
        let fresh = Sticky::new(&sticky.rules, &self.split, names());
        let fresh = match from {
            Some((version, split)) => fresh.turning_away(version, split, names()),
            None => fresh,
        };
        self.sticky = Some(Arc::new(fresh));
    }

    /// The index of the version that an unkeyed request with this coin is assigned to (G4).
    ///
    /// `None` only for a service without weights, which [`crate::release`] never makes.
    #[must_use]
    pub fn assign(&self, coin: u32) -> Option<usize> {
        self.coin.toss(coin)
    }

    /// What decides on the version of a request now.
    #[must_use]
    pub fn assigned_by(&self) -> AssignedBy {
        if self.coin.is_certain() { AssignedBy::Single } else { AssignedBy::Coin }
    }

    /// The version that `pin` means here, and whether it leads there; `None` where the service has none of that name.
    #[must_use]
    pub fn pinned(&self, pin: &Pin) -> Option<(usize, Pinnable)> {
        let place = |name: &VersionName| self.versions.iter().position(|version| version.name == *name);
        let version = pin.version_of(&self.name, |name| place(name).is_some())?;
        Some((place(version)?, self.takes_pins(version)))
    }

    /// Whether a pin leads to `version`: never to one that nobody else may come to.
    #[must_use]
    pub fn takes_pins(&self, version: &VersionName) -> Pinnable {
        let Avoided { suspected, retiring } = &self.avoided;
        if !self.split.leads_to(version) {
            Pinnable::Idle
        } else if suspected.as_ref() == Some(version) {
            Pinnable::Suspected
        } else if retiring.as_ref() == Some(version) {
            Pinnable::Retiring
        } else {
            Pinnable::Yes
        }
    }

    /// Which coins are whose: of each version with weight the first coin that is not its any more, and its index;
    /// ascending.
    #[must_use]
    pub fn bounds(&self) -> &[(u64, usize)] {
        self.coin.bounds()
    }

    /// The version with this label.
    #[must_use]
    pub fn version(&self, name: &VersionName) -> Option<&VersionSpec> {
        self.versions.iter().find(|version| version.name == *name)
    }

    /// How the pool of `version` is worked.
    #[must_use]
    pub fn pool<'s>(&'s self, version: &'s VersionSpec) -> &'s Arc<PoolRules> {
        version.pool.as_ref().unwrap_or(&self.pool)
    }

    /// The version that is tried against stable: the heaviest of the others that have weight, else the first that a rule leads to.
    #[must_use]
    pub fn candidate(&self) -> Option<&VersionName> {
        let others = self.split.shares().filter(|(name, _)| **name != self.stable);
        let heaviest = others.max_by_key(|(_, weight)| *weight).map(|(name, _)| name);
        heaviest.or_else(|| self.split.versions().find(|name| **name != self.stable))
    }

    /// By which rules stable answers for this version when that fails, if it does: only while new requests come to stable.
    #[must_use]
    pub fn shield(&self, version: &VersionName) -> Option<&Arc<ShieldRules>> {
        let is_other = *version != self.stable && self.split.leads_to(&self.stable);
        self.shield.as_ref().filter(|_| is_other)
    }

    /// What requests to this version may change to beside WebSocket: nothing where it speaks HTTP/2, which has no such change.
    #[must_use]
    pub fn upgrades(&self, version: &VersionSpec) -> Option<&Arc<[UpgradeName]>> {
        Some(&self.upgrades).filter(|upgrades| !upgrades.is_empty() && !version.protocol.is_http2())
    }

    /// The mirror, while its version may get copies: it is there, and has no requests of its own.
    #[must_use]
    pub fn mirror(&self) -> Option<&Arc<MirrorRules>> {
        self.mirror.as_ref().filter(|mirror| {
            let has_traffic = self.stable == mirror.to || self.split.leads_to(&mirror.to);
            !self.mirror_over && !has_traffic && self.version(&mirror.to).is_some()
        })
    }

    /// The same, while it gets them: not while anything of the service is held.
    #[must_use]
    pub fn mirroring(&self) -> Option<&Arc<MirrorRules>> {
        self.mirror().filter(|_| self.holds.are_none())
    }

    /// True while copies of requests may come to this version.
    #[must_use]
    pub fn mirrors_to(&self, version: &VersionName) -> bool {
        self.mirror().is_some_and(|mirror| mirror.to == *version)
    }

    /// The version that `reference` names, if there is one now.
    #[must_use]
    pub fn resolve(&self, reference: &VersionRef) -> Option<&VersionName> {
        match reference {
            VersionRef::Name(name) => self.version(name).map(|version| &version.name),
            VersionRef::Stable => Some(&self.stable),
            VersionRef::Candidate => self.candidate(),
        }
    }
}
