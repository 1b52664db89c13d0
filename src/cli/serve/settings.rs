//! From the configuration to what the data plane is set to.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::address;
use super::entrances::Entrances;
use super::log::Log;
use crate::admin;
use crate::config::{self, Config};
use crate::proxy::descriptors;
use crate::proxy::gate::Underscores;
use crate::proxy::identity::{Accept, Identity, RequestIds, Traces};
use crate::proxy::peer::Door;
use crate::proxy::pressure::MemoryLimit;
use crate::proxy::settings::Settings;

/// What the workers need of the configuration.
pub(super) fn settings(config: &Config, entrances: &Entrances, log: &Log) -> Settings {
    let limits = &config.limits;
    let doors = config.listeners.iter().map(|listener| (address(listener), Arc::new(door(listener))));
    Settings {
        connections: limits.connections.min(most_connections()),
        connections_per_client: limits.connections_per_client,
        idle: limits.idle,
        head: limits.head,
        head_bytes: limits.head_bytes,
        headers: limits.headers,
        progress: limits.write_stall,
        min_body_rate: limits.min_body_rate as u64,
        min_drain_rate: limits.min_drain_rate as u64,
        pool_idle: limits.pool_idle,
        pool_size: limits.pool_size,
        epoch_header: config.proxy.epoch_header,
        via: config.proxy.via.clone(),
        zone: config.proxy.zone.clone(),
        forwarded: config.proxy.forwarded,
        underscores: match config.proxy.underscores_in_headers {
            config::Underscores::Drop => Underscores::Drop,
            config::Underscores::Allow => Underscores::Allow,
            config::Underscores::Reject => Underscores::Reject,
        },
        doors: doors.collect::<BTreeMap<_, _>>(),
        entrances: entrances.by_address(),
        subject_headers: entrances.subject_headers(),
        handshakes: limits.handshakes,
        streams: u32::try_from(limits.streams).unwrap_or(u32::MAX),
        ping: limits.ping,
        identity: identity(&config.proxy),
        error_pages: config.proxy.error_pages.clone().into(),
        log: log.options(config.access_log.as_ref()),
    }
}

/// What `explain` needs of it.
pub(super) fn taken_out(config: &Config, entrances: &Entrances) -> admin::TakenOut {
    let underscores = match config.proxy.underscores_in_headers {
        config::Underscores::Drop => admin::Underscores::Drop,
        config::Underscores::Allow => admin::Underscores::Allow,
        config::Underscores::Reject => admin::Underscores::Reject,
    };
    admin::TakenOut { underscores, subjects: entrances.subject_headers() }
}

/// The same: whom any listener trusts.
pub(super) fn trusted(config: &Config) -> Vec<IpNet> {
    config.listeners.iter().flat_map(|listener| listener.trusted_proxies.clone()).collect()
}

fn identity(proxy: &config::Proxy) -> Identity {
    let request_id = proxy.request_id.map(|ids| RequestIds {
        accept: match ids.accept {
            config::Accept::Trusted => Accept::Trusted,
            config::Accept::Always => Accept::Always,
            config::Accept::Never => Accept::Never,
        },
        answer: ids.answer,
    });
    let trace = proxy.trace.map(|trace| Traces { start: trace.start, sampled: trace.sampled });
    Identity { request_id, trace }
}

/// How many clients the limit on open files leaves room for.
pub(super) fn most_connections() -> usize {
    descriptors::limit().map_or(usize::MAX, descriptors::for_clients)
}

/// How much memory may be used.
pub(super) fn memory_limit(config: &Config) -> MemoryLimit {
    match config.limits.memory {
        config::MemoryLimit::None => MemoryLimit::None,
        config::MemoryLimit::Percent(percent) => MemoryLimit::Percent(percent),
        config::MemoryLimit::Bytes(bytes) => MemoryLimit::Bytes(bytes),
    }
}

/// What only takes effect at the next start.
pub(super) fn fixed(config: &Config) -> impl PartialEq {
    let metrics = config.metrics.as_ref().map(|metrics| metrics.listen);
    let Config { admin, state, proxy, .. } = config;
    (admin.socket.clone(), metrics, state.dir.clone(), state.history, proxy.cpu_affinity.clone())
}

fn door(listener: &config::Listener) -> Door {
    Door {
        listener: Some(address(listener)),
        trusted: listener.trusted_proxies.clone(),
        proxy_protocol: listener.proxy_protocol,
    }
}
