//! The `[services.…]` of all files: each service once, each route once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderName;

use super::Listener;
use super::document::Place;
use super::file::SOME_TIME;
use super::walk::{Entry, Node, Section};
use super::{
    answer, drain, edits, hold, limits, mirror, pool, pool_rules, route, shield, split, sticky, supervise,
    targeting, upgrades,
};
use crate::table::targeting::Condition;
use crate::table::{
    Discovery, DrainRules, Edits, ErrorPage, HoldLimits, PoolRules, Route, RouteRules, Rules, ServiceLimits,
    ServiceName, ServiceSpec, StickyBy, StickyRules, Targeting, Timeouts, VersionName,
};

/// The services read so far, and who said what first.
#[derive(Default)]
pub(super) struct Services {
    specs: Vec<ServiceSpec>,
    names: HashMap<String, Place>,
    routes: HashMap<Route, (String, Place)>,
    /// The folder of the file that is being read.
    base: PathBuf,
    /// The pages of all services.
    pages: Vec<ErrorPage>,
    discoveries: Vec<Discovery>,
    /// The fields in which listeners tell whose certificate was verified.
    subjects: Vec<HeaderName>,
}

/// Routes with their rules, by index.
type Ruled = (Vec<Route>, Vec<Option<RouteRules>>);

impl Services {
    /// Reads one file's `[services]`.
    pub(super) fn read(&mut self, section: &Section<'_>) {
        for entry in section.entries() {
            let spec = self.service(entry);
            self.specs.extend(spec);
        }
    }

    /// Relative paths are from now on beside `base`.
    pub(super) fn beside(&mut self, base: &Path) {
        base.clone_into(&mut self.base);
    }

    /// Every service gets these pages behind its own.
    pub(super) fn common_pages(&mut self, pages: &[ErrorPage]) {
        pages.clone_into(&mut self.pages);
    }

    /// What these listeners tell about clients is not for services to change.
    pub(super) fn subjects_of(&mut self, listeners: &[Listener]) {
        let tls = listeners.iter().filter_map(|listener| listener.tls.as_ref());
        self.subjects = tls.filter_map(|tls| tls.client_subject_header.clone()).collect();
    }

    /// True when no file has a service, right or wrong.
    pub(super) fn are_none(&self) -> bool {
        self.names.is_empty()
    }

    /// The services, and where more of their endpoints are found.
    pub(super) fn into_specs(self) -> (Vec<ServiceSpec>, Vec<Discovery>) {
        (self.specs, self.discoveries)
    }

    fn service(&mut self, entry: Entry<'_>) -> Option<ServiceSpec> {
        let name = entry.name::<ServiceName>();
        let first = self.names.get(entry.key).cloned();
        self.names.entry(entry.key.to_owned()).or_insert_with(|| entry.at.place());
        if let Some(first) = first {
            let message = format!("service `{}` is already defined: {first}", entry.key.escape_debug());
            entry.at.error_with(message, "one service, one file");
            return None;
        }
        let mut section = entry.value.section(format!("service `{}`", entry.key.escape_debug()))?;
        let edits = edits::read(&mut section);
        let base = self.base.clone();
        let pages = section.or("error_pages", Vec::new(), |node| answer::pages(node, &base));
        let routes = self.routes(&mut section, entry.key, edits.as_ref().unwrap_or(&Edits::default()));
        let pool = pool_rules::read(&mut section, &PoolRules::default());
        let mut versions = pool::versions(&mut section, pool.as_ref().unwrap_or(&PoolRules::default()));
        let split = split::read(&mut section, &versions);
        let rules = section.or("rules", Targeting::default(), |node| targeting::read(node, &versions));
        let timeouts = section.or("timeouts", Timeouts::default(), timeouts);
        let limits = section.or("limits", ServiceLimits::default(), limits::of_service);
        let drain = section.or("drain", DrainRules::default(), drain::read);
        let hold = section.or("hold", HoldLimits::default(), hold::read);
        let supervise = section.or("supervise", None, |node| supervise::read(node).map(Some));
        let sticky = section.or("sticky", None, |node| sticky::read(node, name.as_ref()).map(Some));
        let shield = section.or("shield", None, shield::read);
        let upgrades = section.or("upgrades", Arc::default(), upgrades::read);
        let mirror = section.or("mirror", None, |node| mirror::read(node, &versions));
        let pins_release = section.or("pin_release", false, Node::flag);
        section.finish();
        let (stable, split) = split?;
        let targeting = rules?;
        let weights = split.shares().map(|(version, weight)| (version.clone(), weight.points())).collect();
        let found = versions.iter_mut().filter_map(|listed| {
            let (service, version) = (name.clone()?, listed.version.name.clone());
            Some(Discovery { service, version, source: listed.discover.take()? })
        });
        let found: Vec<_> = found.collect();
        let discovering = found.iter().map(|found| found.version.clone()).collect();
        self.discoveries.extend(found);
        let edited: Vec<_> = versions.iter_mut().filter_map(edits_of).collect();
        let versions = versions.into_iter().map(|listed| listed.version).collect();
        let (routes, of_routes) = routes?;
        let pages = [pages?, self.pages.clone()].concat();
        edits?;
        let rules = Rules { routes: of_routes, versions: edited, pages, pins_release: pins_release? };
        let sticky = sticky?;
        self.leaves_subjects(entry, &rules)?;
        self.warn_of_subjects(entry, &targeting, sticky.as_ref());
        Some(ServiceSpec {
            name: name?,
            routes: routes.into(),
            versions,
            discovering,
            stable,
            weights,
            timeouts: timeouts?,
            rules: (!rules.is_empty()).then(|| Arc::new(rules)),
            limits: limits?,
            drain: drain?,
            hold: Arc::new(hold?),
            pool: Arc::new(pool?),
            supervise: supervise?.map(Arc::new),
            sticky: sticky.map(Arc::new),
            targeting,
            shield: shield?.map(Arc::new),
            upgrades: upgrades?,
            mirror: mirror?.map(Arc::new),
        })
    }

    /// Notes when a request's field is changed that a listener tells a client's subject in, or one that may be read as that.
    fn leaves_subjects(&self, entry: Entry<'_>, rules: &Rules) -> Option<()> {
        let Some(name) = rules.request_fields().find(|name| self.is_subject(name)) else { return Some(()) };
        let service = entry.key.escape_debug();
        let message = format!("service `{service}` cannot change `{name}` of a request");
        entry.at.error_with(
            message,
            "a listener tells in it whose certificate was verified: its `client_subject_header`",
        );
        None
    }

    /// Notes when requests are to go by such a field: no client can send it.
    fn warn_of_subjects(&self, entry: Entry<'_>, targeting: &Targeting, sticky: Option<&StickyRules>) {
        let conditions = targeting.rules().iter().flat_map(|rule| rule.when.all());
        let headers = conditions.filter_map(|condition| match condition {
            Condition::Header(name, _) => Some(name),
            Condition::Cookie(..) | Condition::Query(..) | Condition::Client(_) | Condition::Host(_) => None,
        });
        let key = sticky.and_then(|sticky| match &sticky.by {
            StickyBy::Header(name) => Some(name),
            StickyBy::Cookie { .. } | StickyBy::Client => None,
        });
        if let Some(name) = headers.chain(key).find(|name| self.is_subject(name)) {
            let service = entry.key.escape_debug();
            entry.at.warn(format!("service `{service}` goes by `{name}`, which is taken out of what clients send: it is a listener's `client_subject_header`"));
        }
    }

    /// True for a field in which a listener tells a client's subject, and for one that may be read as that.
    fn is_subject(&self, name: &str) -> bool {
        let plain = |name: &str| name.replace('_', "-");
        self.subjects.iter().any(|subject| plain(subject.as_str()) == plain(name))
    }

    fn routes(&mut self, section: &mut Section<'_>, service: &str, edits: &Edits) -> Option<Ruled> {
        let node = section.required("routes", "routes = [{ host = \"shop.example.com\", path = \"/\" }]")?;
        let list = node.list("a list of routes such as [{ host = \"shop.example.com\", path = \"/\" }]")?;
        if list.is_empty() {
            node.at
                .error_with(format_args!("{} has no routes", section.what), "a service needs at least one");
        }
        let routes: Vec<_> = list.into_iter().map(|node| self.route(node, service, edits)).collect();
        routes.into_iter().collect()
    }

    fn route(&mut self, node: Node<'_>, service: &str, edits: &Edits) -> Option<(Route, Option<RouteRules>)> {
        let (route, rules) = route::read(node, edits, &self.base)?;
        if let Some((first, place)) = self.routes.get(&route) {
            node.at.error(format_args!(
                "route {route} already leads to service `{}`: {place}",
                first.escape_debug()
            ));
            return None;
        }
        self.routes.insert(route.clone(), (service.to_owned(), node.at.place()));
        Some((route, rules))
    }
}

/// A version's edits with its name, if it has any.
fn edits_of(listed: &mut pool::Listed<'_>) -> Option<(VersionName, Edits)> {
    let edits = std::mem::take(&mut listed.edits);
    (!edits.is_empty()).then(|| (listed.version.name.clone(), edits))
}

fn timeouts(node: Node<'_>) -> Option<Timeouts> {
    let mut section = node.section("`timeouts`")?;
    let default = Timeouts::default();
    let connect = section.or("connect", default.connect, |node| node.duration(SOME_TIME));
    let response = section.or("response", default.response, |node| node.duration(SOME_TIME));
    let progress = section.or("progress", default.progress, |node| node.duration(SOME_TIME));
    let stream = section.or("stream", default.stream, |node| node.duration(SOME_TIME));
    let tunnel = section.or("tunnel", default.tunnel, |node| node.duration(SOME_TIME));
    let total = section.or("total", default.total, |node| node.duration(SOME_TIME).map(Some));
    section.finish();
    Some(Timeouts {
        connect: connect?,
        response: response?,
        progress: progress?,
        stream: stream?,
        tunnel: tunnel?,
        total: total?,
    })
}
