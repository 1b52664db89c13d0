//! `[limits]`, which bounds everything, and `limits` of a service, which bounds what it may be asked for.

use std::num::NonZeroU32;
use std::time::Duration;

use super::file::SOME_TIME;
use super::walk::{Node, Section};
use super::{Limits, MemoryLimit, size};
use crate::table::{Rate, RateBy, ServiceLimits};

/// `[limits]`.
pub(super) fn of_process(node: Node<'_>) -> Option<Limits> {
    let mut section = node.section("[limits]")?;
    let default = Limits::default();
    let connections = section.or("connections", default.connections, |node| node.count(&(1..=100_000_000)));
    let per_client = section
        .or("connections_per_client", default.connections_per_client, |node| node.count(&(0..=100_000_000)));
    let memory = section.or("memory", default.memory, memory);
    let idle = section.or("idle", default.idle, |node| node.duration(SOME_TIME));
    let head = section.or("head", default.head, |node| node.duration(SOME_TIME));
    let head_bytes = section.or("head_bytes", default.head_bytes, |node| node.count(&(8 << 10..=1 << 20)));
    let headers = section.or("headers", default.headers, |node| node.count(&(1..=10_000)));
    let min_body_rate = section.or("min_body_rate", default.min_body_rate, |node| node.count(&(0..=1 << 30)));
    let min_drain_rate =
        section.or("min_drain_rate", default.min_drain_rate, |node| node.count(&(0..=1 << 30)));
    let write_stall = section.or("write_stall", default.write_stall, |node| node.duration(SOME_TIME));
    let pool_idle = section.or("pool_idle", default.pool_idle, |node| node.duration(SOME_TIME));
    let pool_size = section.or("pool_size", default.pool_size, |node| node.count(&(0..=1_000_000)));
    let handshakes = section.or("handshakes", default.handshakes, |node| node.count(&(1..=1_000_000)));
    let streams = section.or("streams", default.streams, |node| node.count(&(1..=10_000)));
    let ping = section.or("ping", default.ping, |node| node.duration(SOME_TIME));
    section.finish();
    Some(Limits {
        connections: connections?,
        connections_per_client: per_client?,
        memory: memory?,
        idle: idle?,
        head: head?,
        head_bytes: head_bytes?,
        headers: headers?,
        min_body_rate: min_body_rate?,
        min_drain_rate: min_drain_rate?,
        write_stall: write_stall?,
        pool_idle: pool_idle?,
        pool_size: pool_size?,
        handshakes: handshakes?,
        streams: streams?,
        ping: ping?,
    })
}

fn memory(node: Node<'_>) -> Option<MemoryLimit> {
    let expected = "a share such as \"90%\", a size such as \"2GiB\", or \"off\"";
    let text = node.text(expected)?;
    if text == "off" {
        return Some(MemoryLimit::None);
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse().ok().filter(|percent| (10..=99).contains(percent));
        return percent
            .map(MemoryLimit::Percent)
            .or_else(|| node.unexpected("a share from \"10%\" to \"99%\""));
    }
    let bytes = size::parse(text).ok().filter(|bytes| *bytes >= 1 << 20);
    bytes.map(MemoryLimit::Bytes).or_else(|| node.unexpected(expected))
}

/// `limits` of a service.
pub(super) fn of_service(node: Node<'_>) -> Option<ServiceLimits> {
    let mut section = node.section("`limits` of a service")?;
    let in_flight = section.or("in_flight", None, |node| some(node).map(Some));
    let rate = rate(&mut section);
    let request_body = section.or("request_body", None, |node| bytes(node).map(Some));
    let response_body = section.or("response_body", None, |node| bytes(node).map(Some));
    section.finish();
    Some(ServiceLimits {
        in_flight: in_flight?,
        rate: rate?,
        request_body: request_body?,
        response_body: response_body?,
    })
}

fn bytes(node: Node<'_>) -> Option<u64> {
    size::parse(node.text("a size such as \"10MiB\"")?).map_err(|why| node.at.error(why)).ok()
}

fn some(node: Node<'_>) -> Option<NonZeroU32> {
    let count = node.count(&(1..=1_000_000_000))?;
    u32::try_from(count).ok().and_then(NonZeroU32::new)
}

/// `rate = "100/s"` with what belongs to it: `burst = 200`, `rate_by = "client"`.
fn rate(section: &mut Section<'_>) -> Option<Option<Rate>> {
    let rate = section.take("rate");
    let (burst, by) = (section.take("burst"), section.take("rate_by"));
    let Some(node) = rate else {
        for node in [burst, by].into_iter().flatten() {
            node.at.error_with("this is only of use with `rate`", "for example: rate = \"100/s\"");
        }
        return Some(None);
    };
    let pace = pace(node);
    let burst = burst.map_or(Some(None), |node| some(node).map(Some));
    let by = by.map_or(Some(RateBy::default()), rate_by);
    let (requests, per) = pace?;
    Some(Some(Rate { requests, per, burst: burst?.unwrap_or(requests), by: by? }))
}

/// So many in a second, minute or hour.
fn pace(node: Node<'_>) -> Option<(NonZeroU32, Duration)> {
    let expected = "requests in a second, minute or hour, such as \"100/s\", \"600/m\" or \"1000/h\"";
    let (count, unit) = node.text(expected)?.split_once('/').or_else(|| node.unexpected(expected))?;
    let count = count.parse().ok().filter(|count: &NonZeroU32| count.get() <= 100_000_000);
    let per = match unit {
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_mins(1)),
        "h" => Some(Duration::from_hours(1)),
        _ => None,
    };
    count.zip(per).or_else(|| node.unexpected(expected))
}

fn rate_by(node: Node<'_>) -> Option<RateBy> {
    let expected = "\"service\" or \"client\"";
    match node.text(expected)? {
        "service" => Some(RateBy::Service),
        "client" => Some(RateBy::Client),
        _ => node.unexpected(expected),
    }
}
