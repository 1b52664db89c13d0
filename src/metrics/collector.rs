//! What is shown to Prometheus: the inputs of one moment as metric families, and those as text.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};

use super::cells::{GRPC, code_labels};
use super::family::Family;
use super::handshake::Handshake;
use super::inputs::{EndpointState, Finds, Inputs, Source};
use super::kind::Kind;
use super::reason::Reason;
use super::retry::{Hedge, Retry};
use super::sums::{Requests, Versions, Waits, versions};
use super::{names, process, supervision};
use crate::table::pool::outliers::Cause;
use crate::table::{BasisPoints, Table};

/// The codes that are there from 0 on, so that the first one is seen as a rise.
const FROM_ZERO: [&str; 7] = ["200", "404", "499", "500", "502", "503", "504"];

/// The reasons that a version can give, there from 0 on too.
const REASONS_FROM_ZERO: [Reason; 11] = [
    Reason::NoEndpoint,
    Reason::ConnectFailed,
    Reason::ConnectTimeout,
    Reason::UpstreamTls,
    Reason::UpstreamClosed,
    Reason::UpstreamProtocol,
    Reason::ResponseTimeout,
    Reason::BodyStalled,
    Reason::BodyTruncated,
    Reason::CircuitOpen,
    Reason::ClientGone,
];

/// Everything that `/metrics` shows. One a process: it remembers what versions that are gone had counted.
pub struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// The metrics of `source`.
    ///
    /// # Panics
    /// When two metrics of [`names::ALL`] have one name, which a test rules out.
    #[must_use]
    pub fn of(source: impl Source + 'static) -> Self {
        let registry = Registry::new();
        let gathering = Gathering::of(Box::new(source));
        #[allow(clippy::expect_used, reason = "the names are constants")]
        registry.register(Box::new(gathering)).expect("each metric once");
        Self { registry }
    }

    /// The text of `/metrics`, sorted by name and labels. Cost: O(versions), on the caller's thread.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        match TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            Ok(()) => text,
            // Only a family without a name or samples is refused, and such do not leave the registry.
            Err(why) => format!("# {why}\n"),
        }
    }
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposition").finish_non_exhaustive()
    }
}

struct Gathering {
    source: Box<dyn Source>,
    descriptions: Vec<Desc>,
    waits: Mutex<Waits>,
}

impl Gathering {
    fn of(source: Box<dyn Source>) -> Self {
        let describe = |metric: &names::Metric| {
            let labels = metric.labels.iter().map(ToString::to_string).collect();
            Desc::new(
                metric.name.to_owned(),
                metric.help.to_owned(),
                labels,
                std::collections::HashMap::new(),
            )
            .ok()
        };
        let descriptions = names::ALL.iter().filter_map(describe).collect();
        Self { source, descriptions, waits: Mutex::default() }
    }
}

impl Collector for Gathering {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Held while the inputs are taken, so that two scrapes at once do not go back in time for each other.
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let inputs = self.source.inputs();
        let versions = versions(&inputs.tenures);
        let mut client_seconds = Family::of(&names::CLIENT_SECONDS);
        for (service, durations) in waits.by_service(&inputs.tenures, &versions) {
            client_seconds.durations(&[service.as_str()], &durations.buckets());
        }
        drop(waits);
        let mut families = vec![client_seconds, build_info()];
        families.extend(of_versions(&versions, &inputs));
        families.extend(of_table(&inputs.table, &versions));
        families.extend(of_operations(&inputs));
        families.extend(of_reloads(&inputs));
        families.extend(of_edges(&inputs));
        families.extend(of_workers(&inputs));
        families.extend(of_tls(&inputs));
        families.push(of_names(&inputs));
        families.extend(of_health(&versions, &inputs));
        families.extend(of_webhooks(&inputs));
        families.push(of_discovery(&inputs));
        families.extend(supervision::families(&inputs));
        families.extend(process::families());
        families.into_iter().map(Family::finish).collect()
    }
}

fn of_versions(versions: &Versions, inputs: &Inputs) -> [Family; 13] {
    let mut upstream = Family::of(&names::UPSTREAM_REQUESTS);
    let mut client = Family::of(&names::CLIENT_REQUESTS);
    let mut upstream_seconds = Family::of(&names::UPSTREAM_SECONDS);
    let mut in_flight = Family::of(&names::IN_FLIGHT);
    let mut grpc = Family::of(&names::UPSTREAM_GRPC_STATUS);
    let mut dismissed = Family::of(&names::DRAIN_DISMISSED);
    let mut retries = Family::of(&names::RETRIES);
    let mut hedges = Family::of(&names::HEDGES);
    let mut pending = Family::of(&names::PENDING);
    let mut panics = Family::of(&names::PANIC_REQUESTS);
    let mut shielded = Family::of(&names::SHIELDED);
    let mut mirrored = Family::of(&names::MIRRORED);
    let mut differences = Family::of(&names::MIRROR_DIFFERENCES);
    for ((service, version), sum) in versions {
        let (service, version) = (service.as_str(), version.as_str());
        requests(&mut upstream, service, version, &sum.upstream);
        requests(&mut client, service, version, &sum.client);
        upstream_seconds.durations(&[service, version], &sum.upstream_seconds.buckets());
        for (status, count) in GRPC.iter().zip(sum.grpc.into_iter().flatten()) {
            grpc.count(&[service, version, status], count);
        }
        for (kind, count) in Kind::ALL.iter().zip(sum.in_flight) {
            in_flight.count(&[service, version, kind.token()], count);
        }
        panics.count(&[service, version], sum.panics);
        shielded.count(&[service, version], sum.shielded);
        mirrored.count(&[service, version], sum.mirrored);
        differences.count(&[service, version], sum.differences);
        for kind in [Kind::Sse, Kind::Websocket, Kind::Grpc] {
            dismissed.count(&[service, version, kind.token()], sum.dismissed[kind as usize]);
        }
        pending.count(&[service, version], sum.pending);
        for (retry, count) in Retry::ALL.iter().zip(sum.retries) {
            retries.count(&[service, version, retry.token()], count);
        }
        for (hedge, count) in Hedge::ALL.iter().zip(sum.hedges) {
            hedges.count(&[service, version, hedge.token()], count);
        }
    }
    refusals(&mut client, inputs);
    [
        upstream,
        client,
        upstream_seconds,
        in_flight,
        grpc,
        dismissed,
        retries,
        hedges,
        pending,
        panics,
        shielded,
        mirrored,
        differences,
    ]
}

fn requests(family: &mut Family, service: &str, version: &str, requests: &Requests) {
    for (code, count) in code_labels().iter().zip(requests.codes) {
        if count > 0 || FROM_ZERO.contains(&code.as_str()) {
            family.count(&[service, version, code, ""], count);
        }
    }
    for (reason, count) in Reason::ALL.into_iter().zip(requests.reasons) {
        if count > 0 || REASONS_FROM_ZERO.contains(&reason) {
            family.count(&[service, version, &reason.status().to_string(), reason.token()], count);
        }
    }
}

/// Answers that no version was asked for, and most of them no service: what is empty is to Prometheus no label at all.
fn refusals(family: &mut Family, inputs: &Inputs) {
    for (index, reason) in Reason::ALL.into_iter().enumerate() {
        let count: u64 = inputs.edges.iter().map(|edge| edge.refused[index]).sum();
        if count > 0 || reason == Reason::NoRoute {
            family.count(&["", "", &reason.status().to_string(), reason.token()], count);
        }
    }
    for (service, reason, count) in &inputs.refusals {
        family.count(&[service.as_str(), "", &reason.status().to_string(), reason.token()], *count);
    }
}

fn of_table(table: &Table, versions: &Versions) -> [Family; 3] {
    let mut epoch = Family::of(&names::EPOCH);
    let mut service_epoch = Family::of(&names::SERVICE_EPOCH);
    let mut weight = Family::of(&names::WEIGHT);
    epoch.count(&[], table.epoch().0);
    for service in table.services() {
        service_epoch.count(&[service.name.as_str()], service.epoch.0);
        for version in &service.versions {
            let points = service.split.weight(&version.name).points();
            let share = f64::from(points) / f64::from(BasisPoints::ALL.points());
            weight.value(&[service.name.as_str(), version.name.as_str()], share);
        }
    }
    let is_gone =
        |(service, version)| table.service(service).is_none_or(|service| service.version(version).is_none());
    for (service, version) in versions.keys().filter(|(service, version)| is_gone((service, version))) {
        weight.value(&[service.as_str(), version.as_str()], 0.0);
    }
    [epoch, service_epoch, weight]
}

fn of_operations(inputs: &Inputs) -> [Family; 3] {
    let mut changes = Family::of(&names::CHANGES);
    let mut fence = Family::of(&names::FENCE_SECONDS);
    let mut drain = Family::of(&names::DRAIN_SECONDS);
    for (service, operations) in &inputs.operations {
        let service = service.as_str();
        for (kind, actor, count) in &operations.changes {
            changes.count(&[service, kind, actor], *count);
        }
        fence.durations(&[service], &operations.fence);
        drain.durations(&[service], &operations.drain);
    }
    [changes, fence, drain]
}

fn of_reloads(Inputs { reloads, .. }: &Inputs) -> [Family; 2] {
    let mut ended = Family::of(&names::RELOADS);
    ended.count(&["applied"], reloads.applied);
    ended.count(&["failed"], reloads.failed);
    let mut is_last_in_force = Family::of(&names::RELOADED);
    is_last_in_force.count(&[], u64::from(!reloads.is_failed));
    [ended, is_last_in_force]
}

fn of_edges(inputs: &Inputs) -> [Family; 5] {
    let mut connections = Family::of(&names::CONNECTIONS);
    let mut accepted = Family::of(&names::ACCEPTED);
    connections.count(&[], inputs.edges.iter().map(|edge| edge.connections).sum());
    accepted.count(&[], inputs.edges.iter().map(|edge| edge.accepted).sum());
    let mut own_answers = Family::of(&names::OWN_ANSWERS);
    own_answers.count(&["redirect"], inputs.edges.iter().map(|edge| edge.redirects).sum());
    own_answers.count(&["fixed"], inputs.edges.iter().map(|edge| edge.fixed).sum());
    own_answers.count(&["held"], inputs.edges.iter().map(|edge| edge.checked).sum());
    own_answers.count(&["max_forwards"], inputs.edges.iter().map(|edge| edge.ended).sum());
    let mut held = Family::of(&names::HELD);
    inputs.held.iter().for_each(|(service, waiting)| held.count(&[service.as_str()], *waiting));
    let mut log_dropped = Family::of(&names::LOG_DROPPED);
    log_dropped.count(&[], inputs.log_dropped);
    [connections, accepted, own_answers, held, log_dropped]
}

fn of_workers(inputs: &Inputs) -> [Family; 4] {
    let mut connections = Family::of(&names::WORKER_CONNECTIONS);
    let mut streams = Family::of(&names::WORKER_STREAMS);
    let mut busy = Family::of(&names::WORKER_BUSY);
    let mut passed_on = Family::of(&names::PASSED_ON);
    for (worker, edge) in inputs.edges.iter().enumerate() {
        let worker = worker.to_string();
        let labels = [worker.as_str()];
        connections.count(&labels, edge.connections);
        streams.count(&labels, edge.streams);
        #[allow(clippy::cast_precision_loss, reason = "at most 1000")]
        busy.value(&labels, edge.busy as f64 / 1000.0);
        passed_on.count(&labels, edge.passed_on);
    }
    [connections, streams, busy, passed_on]
}

fn of_tls(inputs: &Inputs) -> [Family; 3] {
    let mut handshakes = Family::of(&names::HANDSHAKES);
    for (index, ended) in Handshake::ALL.into_iter().enumerate() {
        handshakes.count(&[ended.token()], inputs.edges.iter().map(|edge| edge.handshakes[index]).sum());
    }
    let mut redirects = Family::of(&names::HTTPS_REDIRECTS);
    redirects.count(&[], inputs.edges.iter().map(|edge| edge.redirected).sum());
    let mut expiry = Family::of(&names::CERTIFICATE_EXPIRY);
    for certificate in &inputs.certificates {
        #[allow(clippy::cast_precision_loss, reason = "exact below 285 million years")]
        expiry.value(&[&certificate.listener, &certificate.file], certificate.not_after as f64);
    }
    [handshakes, redirects, expiry]
}

fn of_names(inputs: &Inputs) -> Family {
    let mut lookups = Family::of(&names::NAME_LOOKUPS);
    for name in &inputs.lookups {
        lookups.count(&[&name.host, "found"], name.found);
        lookups.count(&[&name.host, "failed"], name.failed);
    }
    lookups
}

fn of_health(versions: &Versions, inputs: &Inputs) -> [Family; 4] {
    let mut up = Family::of(&names::ENDPOINT_UP);
    let mut checks = Family::of(&names::HEALTH_CHECKS);
    let mut seconds = Family::of(&names::HEALTH_SECONDS);
    let mut ejections = Family::of(&names::EJECTIONS);
    for EndpointState { service, version, endpoint, is_up } in &inputs.endpoints {
        up.count(&[service.as_str(), version.as_str(), endpoint], u64::from(*is_up));
    }
    for ((service, version), sum) in versions {
        let (service, version) = (service.as_str(), version.as_str());
        let ejected = sum.checks.as_ref().map_or([0; Cause::ALL.len()], |sum| sum.ejections);
        for (cause, count) in Cause::ALL.into_iter().zip(ejected) {
            ejections.count(&[service, version, cause.token()], count);
        }
        let Some(sum) = &sum.checks else { continue };
        for (result, count) in ["well", "unwell"].into_iter().zip(sum.results) {
            checks.count(&[service, version, result], count);
        }
        seconds.durations(&[service, version], &sum.seconds.buckets());
    }
    [up, checks, seconds, ejections]
}

fn of_discovery(inputs: &Inputs) -> Family {
    let mut discoveries = Family::of(&names::DISCOVERIES);
    for Finds { service, version, found, failed } in &inputs.finds {
        discoveries.count(&[service.as_str(), version.as_str(), "found"], *found);
        discoveries.count(&[service.as_str(), version.as_str(), "failed"], *failed);
    }
    discoveries
}

fn of_webhooks(inputs: &Inputs) -> [Family; 2] {
    let mut deliveries = Family::of(&names::WEBHOOK_DELIVERIES);
    let mut waiting = Family::of(&names::WEBHOOK_WAITING);
    for told in &inputs.deliveries {
        for (result, count) in
            [("delivered", told.delivered), ("failed", told.failed), ("dropped", told.dropped)]
        {
            deliveries.count(&[&told.webhook, result], count);
        }
        waiting.count(&[&told.webhook], told.waiting);
    }
    [deliveries, waiting]
}

fn build_info() -> Family {
    let mut info = Family::of(&names::BUILD_INFO);
    info.count(&[env!("CARGO_PKG_VERSION")], 1);
    info
}
