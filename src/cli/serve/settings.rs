//! From the configuration to what the data plane is set to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::address;
use super::entrances::Entrances;
use crate::config::{self, Config};
use crate::proxy::gate::Underscores;
use crate::proxy::peer::Door;
use crate::proxy::pressure::MemoryLimit;
use crate::proxy::worker::Settings;

/// What the workers need of the configuration.
pub(super) fn settings(config: &Config, entrances: &Entrances, workers: usize) -> Settings {
    let limits = &config.limits;
    let doors = config.listeners.iter().map(|listener| (address(listener), Arc::new(door(listener))));
    Settings {
        connections: limits.connections.div_ceil(workers.max(1)),
        connections_per_client: limits.connections_per_client,
        idle: limits.idle,
        head: limits.head,
        head_bytes: limits.head_bytes,
        headers: limits.headers,
        progress: limits.write_stall,
        min_body_rate: limits.min_body_rate as u64,
        pool_idle: limits.pool_idle,
        pool_size: limits.pool_size,
        epoch_header: config.proxy.epoch_header,
        via: config.proxy.via.clone(),
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
    }
}

/// How much memory may be used.
pub(super) fn memory_limit(config: &Config) -> MemoryLimit {
    match config.limits.memory {
        config::MemoryLimit::None => MemoryLimit::None,
        config::MemoryLimit::Percent(percent) => MemoryLimit::Percent(percent),
        config::MemoryLimit::Bytes(bytes) => MemoryLimit::Bytes(bytes),
    }
}

fn door(listener: &config::Listener) -> Door {
    Door { trusted: listener.trusted_proxies.clone(), proxy_protocol: listener.proxy_protocol }
}
