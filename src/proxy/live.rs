//! The published snapshot: the table joined with the live handles of its versions. The only place that knows arc-swap.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::admission::Published;
use super::hold::{Gate, Gates, Line};
use super::ledger::{Counting, Ledger};
use super::quota::Quota;
use super::upstream::leaving::Departures;
use super::upstream::warmups::Warmups;
use super::upstream::{Roll, Target, Upstream};
use crate::table::{
    Aims, AssignedBy, Epoch, MirrorRules, Pin, Pinnable, Service, ServiceLimits, ServiceName, ShieldRules,
    Sticky, Table, Timeouts, UpgradeName, VersionName, VersionSpec,
};

/// One table with the tenures of its versions; never edited.
#[derive(Debug)]
pub struct Snapshot {
    /// Where traffic goes.
    pub table: Arc<Table>,
    /// By service index, then version index, as in the table.
    lanes: Vec<Arc<[Lane]>>,
}

/// What a request needs to know of the version that it is assigned to, of the service and of the tenure: side by side,
/// because with ten thousand services each of them would be another cache miss. What every request reads comes first.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Lane {
    /// Its coins are those below this that are no earlier lane's; 0 without weight.
    below: u64,
    /// True when the service has [`Service::rules`].
    has_rules: bool,
    /// What decides on the version of a request.
    pub assigned_by: AssignedBy,
    /// True when pins lead to the version.
    takes_pins: bool,
    /// [`Upstream::slot`].
    pub slot: u32,
    /// The version's tenure.
    pub upstream: Arc<Upstream>,
    /// The version's pool; the same one for as long as nothing changes about it.
    pub target: Arc<Target>,
    /// What only few services have.
    pub rare: Option<Arc<Rare>>,
    /// What its requests have to keep to.
    pub terms: Arc<Terms>,
    /// The index of the version in its service.
    pub version: usize,
}

/// What only few services have of a lane.
#[derive(Debug)]
pub struct Rare {
    /// Where the service's requests wait while it is held, if it ever was.
    pub gates: Option<Gates>,
    /// What is left of its limits, if it has to be counted.
    pub quota: Option<Arc<Quota>>,
    /// Where the service's targeting rules lead, if there are any.
    pub aims: Option<Arc<Aims>>,
    /// How the service's users stay with a version, if they do.
    pub sticky: Option<Arc<Sticky>>,
    /// What stable answers in the version's place, if it does.
    pub shield: Option<Arc<ShieldRules>>,
    /// What requests to the version may change to beside WebSocket, if to anything.
    pub upgrades: Option<Arc<[UpgradeName]>>,
    /// Which of the service's requests are copied, if any are now.
    pub mirror: Option<Arc<MirrorRules>>,
    /// How the version's requests are counted, if it is compared with another.
    pub counting: Option<Counting>,
    /// Where the service's requests are counted, if it is supervised.
    ledger: Option<Arc<Ledger>>,
}

/// What the requests of a service have to keep to. Services with the same share them, so that these stay in a processor's
/// cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Time limits of its requests.
    pub timeouts: Timeouts,
    /// What the service may be asked for.
    pub limits: ServiceLimits,
}

/// What the lanes of a service have in common.
#[derive(Debug, Clone)]
struct Shared {
    quota: Option<Arc<Quota>>,
    gates: Option<Gates>,
    ledger: Option<Arc<Ledger>>,
    terms: Arc<Terms>,
}

impl Shared {
    /// As it was in `before`, as far as it is the same; otherwise as others have it, of whom `known` is told.
    fn of(
        service: &Service,
        before: Option<&Lane>,
        known: &mut HashSet<Arc<Terms>>,
        workers: usize,
        if_moved: bool,
    ) -> Self {
        let terms = Terms { timeouts: service.timeouts, limits: service.limits };
        let same = before.map(|before| &before.terms).filter(|same| ***same == terms);
        let terms = same.or_else(|| known.get(&terms)).map_or_else(|| Arc::new(terms), Arc::clone);
        known.insert(Arc::clone(&terms));
        let before = before.and_then(|before| before.rare.as_ref());
        Self {
            terms,
            quota: Quota::of(service.limits, before.and_then(|before| before.quota.as_ref())),
            gates: Gates::of(service, before.and_then(|before| before.gates.as_ref()), if_moved),
            ledger: Ledger::of(service, before.and_then(|before| before.ledger.as_ref()), workers),
        }
    }

    /// What a version has of it that only few have.
    fn rare(self, service: &Service, spec: &VersionSpec) -> Option<Arc<Rare>> {
        let Self { quota, gates, ledger, .. } = self;
        let counting = Counting::of(service, &spec.name, ledger.as_ref());
        let (aims, sticky) = (service.aims.clone(), service.sticky.clone());
        let (shield, upgrades) = (service.shield(&spec.name).cloned(), service.upgrades(spec).cloned());
        let mirror = service.mirroring().cloned();
        let is_limited = quota.is_some() || gates.is_some() || ledger.is_some();
        let is_attended = shield.is_some() || mirror.is_some();
        let is_special = aims.is_some() || sticky.is_some() || upgrades.is_some() || is_attended;
        let rare = || Rare { gates, quota, aims, sticky, shield, upgrades, mirror, counting, ledger };
        (is_limited || is_special).then(|| Arc::new(rare()))
    }
}

impl Lane {
    fn new(
        service: &Service,
        index: usize,
        upstream: Arc<Upstream>,
        shared: Shared,
        before: Option<&Self>,
    ) -> Self {
        let below = service.bounds().iter().find(|(_, version)| *version == index);
        let target = Target::of(service, &service.versions[index]);
        let same = before.map(|before| &before.target).filter(|before| before.is_same(&target));
        Self {
            below: below.map_or(0, |(below, _)| *below),
            version: index,
            has_rules: service.rules.is_some(),
            assigned_by: service.assigned_by(),
            takes_pins: service.takes_pins(&service.versions[index].name) == Pinnable::Yes,
            slot: upstream.slot(),
            upstream,
            target: same.map_or_else(|| Arc::new(target), Arc::clone),
            terms: Arc::clone(&shared.terms),
            rare: shared.rare(service, &service.versions[index]),
        }
    }

    /// True of the only version that has weight.
    #[must_use]
    pub fn has_all(&self) -> bool {
        self.assigned_by == AssignedBy::Single && self.below > 0
    }
}

impl Snapshot {
    /// Joins `table` with its tenures: those of `before` go on where service and version are still there,
    /// `open` makes the new ones.
    pub fn join(
        table: Arc<Table>,
        before: Option<&Self>,
        mut open: impl FnMut(&Service, &VersionSpec) -> Arc<Upstream>,
    ) -> Self {
        // Those who wait may be led to any service: each has a line for them then.
        let if_moved = before.is_some_and(|old| !table.routes_as(&old.table) && old.lines().next().is_some());
        let mut terms = HashSet::new();
        let join = |(index, service): (usize, &Arc<Service>)| {
            // Most services are the same value in the same place: no lookup for those.
            let unmoved = before
                .filter(|_| !if_moved)
                .filter(|old| old.table.services().get(index).is_some_and(|same| Arc::ptr_eq(same, service)));
            if let Some(old) = unmoved {
                return Arc::clone(&old.lanes[index]);
            }
            let old = before.and_then(|old| Some(&old.lanes[old.table.index(&service.name)?]));
            let tenures: Vec<_> = (service.versions.iter())
                .map(|version| {
                    let kept =
                        old.and_then(|old| old.iter().find(|lane| lane.upstream.version == version.name));
                    kept.map_or_else(|| open(service, version), |lane| Arc::clone(&lane.upstream))
                })
                .collect();
            let workers = tenures.first().map_or(0, |tenure| tenure.workers());
            let shared = Shared::of(service, old.and_then(|old| old.first()), &mut terms, workers, if_moved);
            let lane = |(index, version): (usize, &VersionSpec)| {
                let kept = old.and_then(|old| old.iter().find(|lane| lane.upstream.version == version.name));
                Lane::new(service, index, Arc::clone(&tenures[index]), shared.clone(), kept)
            };
            service.versions.iter().enumerate().map(lane).collect()
        };
        let lanes = table.services().iter().enumerate().map(join).collect();
        Self { table, lanes }
    }

    /// The lane of an unkeyed request with this coin, of the service with this index (G4); as [`Service::assign`].
    #[must_use]
    pub fn assign(&self, service: usize, coin: u32) -> Option<&Lane> {
        self.lanes[service].iter().find(|lane| u64::from(coin) < lane.below)
    }

    /// The lane of the version with this index, of the service with that one.
    #[must_use]
    pub fn lane_of(&self, service: usize, version: usize) -> &Lane {
        &self.lanes[service][version]
    }

    /// The lane that `pin` leads to, of the service with this index; as [`Service::pinned`]. `None` where it leads nowhere.
    #[must_use]
    pub fn pinned(&self, service: usize, pin: &Pin) -> Option<&Lane> {
        let lanes = &self.lanes[service];
        let lane = |version: &VersionName| lanes.iter().find(|lane| lane.upstream.version == *version);
        let version = pin.version_of(&lanes.first()?.upstream.service, |version| lane(version).is_some())?;
        lane(version).filter(|lane| lane.takes_pins)
    }

    /// True when the service with this index changes something about its requests or answers; every service has a lane.
    #[must_use]
    pub fn has_rules(&self, service: usize) -> bool {
        self.lanes[service].first().is_some_and(|lane| lane.has_rules)
    }

    /// The lane of a tenure; `None` when it is in the table no more.
    #[must_use]
    pub fn lane(&self, upstream: &Arc<Upstream>) -> Option<&Lane> {
        let lanes = &self.lanes[self.table.index(&upstream.service)?];
        lanes.iter().find(|lane| Arc::ptr_eq(&lane.upstream, upstream))
    }

    /// The tenure of a version, by the table's indices.
    #[must_use]
    pub fn upstream(&self, service: usize, version: usize) -> &Arc<Upstream> {
        &self.lanes[service][version].upstream
    }

    /// Where the requests of the service with this name wait while it is held, and behind those who have, if it ever was.
    #[must_use]
    pub fn line(&self, service: &ServiceName) -> Option<&Arc<Line>> {
        Some(self.rare(service)?.gates.as_ref()?.line())
    }

    /// The lines in which somebody may stand, or come to stand.
    pub fn lines(&self) -> impl Iterator<Item = &Arc<Line>> {
        let gates = self.lanes.iter().filter_map(|lanes| lanes.first()?.rare.as_ref()?.gates.as_ref());
        gates.filter(|gates| !gates.are_idle()).map(Gates::line)
    }

    /// How many requests of the service with this name stand there.
    #[must_use]
    pub fn waiting(&self, service: &ServiceName) -> usize {
        self.line(service).map_or(0, |line| line.length())
    }

    /// A service of which some do, if there is one.
    #[must_use]
    pub fn queueing(&self) -> Option<&ServiceName> {
        self.table.services().iter().map(|service| &service.name).find(|name| self.waiting(name) > 0)
    }

    /// The holds of the service with this name.
    #[must_use]
    pub fn gates(&self, service: &ServiceName) -> &[Arc<Gate>] {
        self.rare(service).and_then(|rare| rare.gates.as_ref()).map_or(&[], Gates::all)
    }

    /// What is left of the limits of the service with this name, if it has to be counted.
    #[must_use]
    pub fn quota(&self, service: &ServiceName) -> Option<&Arc<Quota>> {
        self.rare(service)?.quota.as_ref()
    }

    /// Where the requests of the service with this name are counted, if it is supervised.
    #[must_use]
    pub fn ledger(&self, service: &ServiceName) -> Option<&Arc<Ledger>> {
        self.rare(service)?.ledger.as_ref()
    }

    fn rare(&self, service: &ServiceName) -> Option<&Rare> {
        self.lanes[self.table.index(service)?].first()?.rare.as_deref()
    }

    /// The tenure of the version of this name.
    #[must_use]
    pub fn tenure(&self, service: &ServiceName, version: &VersionName) -> Option<&Arc<Upstream>> {
        let index = self.table.index(service)?;
        let position = self.table.services()[index].versions.iter().position(|spec| spec.name == *version)?;
        Some(self.upstream(index, position))
    }

    /// All tenures.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.lanes.iter().flat_map(|lanes| lanes.iter()).map(|lane| &lane.upstream)
    }
}

/// What every worker serves from and control publishes to.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    published: Published,
    /// The workers that serve from it, to be asked what they have left.
    pub roll: Roll,
    /// The versions that are being left.
    pub departures: Departures,
    /// The workers, to be asked to make versions ready.
    pub warmups: Warmups,
}

impl Live {
    /// Serves `first` from the start.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        let published = Published::new(first.table.epoch().0);
        let (roll, departures, warmups) = (Roll::default(), Departures::default(), Warmups::default());
        Self { snapshot: ArcSwap::from_pointee(first), published, roll, departures, warmups }
    }

    /// Publishes `next`: when this returns, no request is admitted under an older epoch on any worker (G1).
    ///
    /// One caller at a time: control.
    pub fn publish(&self, next: Arc<Snapshot>) {
        let epoch = next.table.epoch().0;
        self.snapshot.store(next);
        self.published.publish(epoch);
    }

    /// The present snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The present epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.published.epoch())
    }

    /// The epoch that admission is checked against.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.published
    }
}

/// One worker's view of what is published: refreshed when the epoch moved, else one load a request.
///
/// Holds its snapshot by an `Rc` of its own, so that a request's clone writes nothing that another worker reads.
#[derive(Debug)]
#[expect(
    clippy::redundant_allocation,
    reason = "the inner count is the process's, the outer one this worker's"
)]
pub struct View {
    live: Arc<Live>,
    current: RefCell<Rc<Arc<Snapshot>>>,
}

impl View {
    /// A view of `live`.
    #[must_use]
    pub fn of(live: Arc<Live>) -> Self {
        let current = RefCell::new(Rc::new(live.snapshot()));
        Self { live, current }
    }

    /// The newest snapshot.
    ///
    /// It may be one change newer than [`Live::epoch`] for an instant.
    #[must_use]
    pub fn newest(&self) -> Rc<Arc<Snapshot>> {
        let mut current = self.current.borrow_mut();
        if current.table.epoch() < self.live.epoch() {
            *current = Rc::new(self.live.snapshot());
        }
        Rc::clone(&current)
    }

    /// What is published.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }
}

#[cfg(test)]
mod tests;
